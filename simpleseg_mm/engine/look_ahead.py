"""Loops over batches that begin the next ones while a long answer is being written."""
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import tee

from mmengine.runner import TestLoop
from torch import nn

from simpleseg_mm.registry import LOOPS

from .sharding import unwrap


def look_ahead(batches: Iterable[dict], model: nn.Module) -> Iterator[dict]:
    """Batches for a loop that has each answered in its turn by ``model.val_step`` or another that
    predicts. The model is shown those that follow, and begins them in the rows of answers that
    have ended.

    Args:
        batches: of ``inputs`` and ``data_samples``.
        model: unwrapped; one without ``predict_stream`` is shown nothing.
    """
    if not hasattr(model, 'predict_stream'):
        yield from batches
        return
    batches, shown = tee(batches)
    stream = model.predict_stream(model.data_preprocessor(batch, False) for batch in shown)
    del shown  # what the model has been shown is not kept
    with closing(stream):
        try:
            for batch in batches:
                model.upcoming = batch['data_samples'], stream
                yield batch
        finally:
            model.upcoming = None


class _Ahead:
    """A loader whose batches are looked ahead to, until ``stop`` is true."""

    def __init__(self, loader, model: nn.Module, stop: Callable) -> None:
        self.loader, self.model, self.stop = loader, model, stop
        self.batches = (_ for _ in ())

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[dict]:
        with closing(look_ahead(self.loader, self.model)) as self.batches:
            for batch in self.batches:
                if self.stop():
                    return
                yield batch


@contextmanager
def looking_ahead(loop, stop: Callable = lambda: False) -> Iterator[None]:
    """Within, MMEngine's loop of validation or test looks ahead; it is the same else.

    Args:
        stop: asked before each batch; true: there are no more.
    """
    loader = loop.dataloader
    loop.dataloader = ahead = _Ahead(loader, unwrap(loop.runner.model), stop)
    try:
        yield
    finally:
        loop.dataloader = loader
        ahead.batches.close()


@LOOPS.register_module(name='TestLoop')
class LookingAheadTestLoop(TestLoop):
    """MMEngine's ``TestLoop``; see :func:`look_ahead`."""

    def run(self) -> dict:
        with looking_ahead(self):
            return super().run()
