"""The policy that a run of reinforcement learning began with, for the KL term (``beta``)."""
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import is_main_process

from ..files import replacing
from .sharding import split_like, whole


class ReferencePolicy:
    """The trainable weights as they were when the run began; the others never change.

    They are kept in ``work_dir/reference.pth``, so that a resumed run has the same reference.
    Every process keeps its part of a split model's.
    """

    def __init__(self, model, work_dir: str, fresh: bool) -> None:
        path = osp.join(work_dir, 'reference.pth')
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if fresh:
            self.weights = {name: p.detach().clone() for name, p in trained.items()}
            full = {name: whole(weight).cpu() for name, weight in self.weights.items()}
            if is_main_process():
                with replacing(path) as partial:
                    torch.save(full, partial)
            return
        if not osp.isfile(path):
            raise FileNotFoundError(f'no {path}: a run with beta > 0 resumes with the reference '
                                    'that it wrote at its start')
        saved = torch.load(path, map_location='cpu', weights_only=True)
        self.weights = {name: split_like(saved[name].to(p.device, p.dtype), p)
                        for name, p in trained.items()}

    @contextmanager
    def applied(self, model) -> Iterator[None]:
        """Within, the model has the reference's weights. Not between a pass and its backward."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model) -> None:
        for name, p in model.named_parameters():
            if name in self.weights:
                present = p.detach().clone()
                p.copy_(self.weights[name])
                self.weights[name].copy_(present)
