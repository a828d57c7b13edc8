"""An endless sampler whose indices also say how often a sample has come before."""
from collections.abc import Iterator
from itertools import islice

import torch
from mmengine.dataset import InfiniteSampler

from simpleseg_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class InfiniteVisitSampler(InfiniteSampler):
    """Yields ``sample + visit * len(dataset)``, visit by visit, each in its own order.

    The dataset draws a sample's random choices (task, template, point) from its number and its
    visit, so they do not depend on workers, ranks or resuming.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.skip(0)

    def skip(self, num_samples: int) -> None:
        """Begin after so many indices of this process, counted from the first."""
        self.indices = islice(self.visits(), self.rank + num_samples * self.world_size, None,
                              self.world_size)

    def visits(self) -> Iterator[int]:
        """The indices of all processes, without end."""
        if self.size == 0:
            raise ValueError('cannot sample from an empty dataset')
        generator = torch.Generator().manual_seed(self.seed)
        visit = 0
        while True:
            order = (torch.randperm(self.size, generator=generator) if self.shuffle
                     else torch.arange(self.size))
            yield from (order + visit * self.size).tolist()
            visit += 1
