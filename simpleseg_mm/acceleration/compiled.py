"""Steps of a network compiled by torch.compile, one kernel each.

Steps are compiled, not layers, and for any number of tokens, so that no new length compiles
anything. Of the widths they know: memory is read 16 bytes at a time only where rows are known to
begin at such places. A step runs the same kernel with and without a gradient, unlike a compiled
module: GSPO compares the two, and its band is narrower than the noise between kernels.
"""
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from .measure import ForwardMeasure


class CompiledMeasure(ForwardMeasure):
    """A :class:`ForwardMeasure` of compiled steps: they pay on a GPU alone."""
    of_family = True

    def obstacle(self, network: nn.Module) -> str | None:
        if not torch.cuda.is_available():
            return 'compiled kernels pay on a GPU, and there is none'
        if not any(map(shutil.which, (os.environ.get('CC') or 'cc', 'gcc', 'clang'))):
            return 'kernels are compiled by a C compiler, and there is none; install gcc'
        return super().obstacle(network)

    def deviation(self, network: nn.Module) -> float:
        """Of the steps uncompiled: compiling them takes half a minute."""
        with uncompiled():
            return super().deviation(network)


_as_they_are = False


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, steps run as they are written."""
    global _as_they_are
    before, _as_they_are = _as_they_are, True
    try:
        yield
    finally:
        _as_they_are = before


def compiled(function: Callable) -> Callable:
    """By torch.compile, for the widths that it meets, rounding where PyTorch rounds."""
    return function if _as_they_are else _compiled(function)


@lru_cache(maxsize=None)
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False, options=dict(emulate_precision_casts=True))


def any_length(*tensors: Tensor, of: Sequence[int] = (0, )) -> Sequence[Tensor]:
    """The tensors, as inputs of compiled steps: of any size in these dimensions."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, of)
    return tensors
