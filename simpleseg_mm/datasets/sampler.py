"""An endless sampler whose indices also say how often a sample has come before."""
from collections.abc import Iterator

import torch
from mmengine.dataset import InfiniteSampler

from simpleseg_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class InfiniteVisitSampler(InfiniteSampler):
    """Yields ``sample + visit * len(dataset)``, visit by visit, each in its own order.

    The dataset draws a sample's random choices (task, template, point) from its number and its
    visit, so they do not depend on workers, ranks or resuming.
    """

    def _infinite_indices(self) -> Iterator[int]:
        if self.size == 0:
            raise ValueError('cannot sample from an empty dataset')
        generator = torch.Generator().manual_seed(self.seed)
        visit = 0
        while True:
            order = (torch.randperm(self.size, generator=generator) if self.shuffle
                     else torch.arange(self.size))
            yield from (order + visit * self.size).tolist()
            visit += 1
