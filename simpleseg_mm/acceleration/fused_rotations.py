"""Rotations of queries and keys as one kernel."""
import inspect
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..registry import MEASURES
from .compiled import CompiledMeasure, any_length, compiled, uncompiled
from .measure import difference, numbers

#: Functions of the modules of attentions that turn queries and keys.
_ROTATIONS = ('apply_rotary_pos_emb', 'apply_rotary_pos_emb_vision')
#: (module, name) -> the function that stood there, and for how many networks it is replaced
_REPLACED: dict[tuple[str, str], list] = {}


@MEASURES.register_module(name='fused_rotations')
class FusedRotations(CompiledMeasure):
    """The functions by which attentions turn queries and keys are replaced in their modules, as
    Liger does it: that holds for every network of these modules in the process, until the last
    one has it removed. The numbers are the same."""

    def suits(self, module: nn.Module) -> bool:
        return bool(self._used_by(module))

    @staticmethod
    def _used_by(module: nn.Module) -> list[tuple[str, str]]:
        forward = inspect.unwrap(type(module).forward)  # releases wrap it where they rename
        code, where = getattr(forward, '__code__', None), type(module).__module__
        names = getattr(forward, '__globals__', {})
        return [(where, name) for name in _ROTATIONS
                if code is not None and name in code.co_names and name in names]

    def _places(self, network: nn.Module) -> set[tuple[str, str]]:
        return {place for module in network.hf.modules() for place in self._used_by(module)}

    def install(self, network: nn.Module) -> None:
        self.places = self._places(network)
        for where, name in self.places:
            module = sys.modules[where]
            entry = _REPLACED.setdefault((where, name), [getattr(module, name), 0])
            entry[1] += 1
            setattr(module, name, partial(_Rotation.apply, entry[0]))

    def remove(self, network: nn.Module) -> None:
        for where, name in getattr(self, 'places', ()):
            entry = _REPLACED[where, name]
            entry[1] -= 1
            if not entry[1]:
                setattr(sys.modules[where], name, entry[0])
                del _REPLACED[where, name]

    def deviation(self, network: nn.Module) -> float:
        """Of the rotated states and their gradients."""
        worst, weight = 0.0, next(network.hf.parameters())
        for where, name in self.places:
            rotate, _ = _REPLACED[where, name]
            shape = (1, 2, 3, 8) if name == _ROTATIONS[0] else (3, 2, 8)
            angle = numbers(*shape[:1], 3, 4, like=weight) if len(shape) == 4 else numbers(
                3, 4, like=weight)
            cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
            found = []
            for function in (partial(_Rotation.apply, rotate), rotate):
                states = [numbers(*shape, like=weight, seed=n).requires_grad_() for n in (1, 2)]
                with uncompiled(), torch.enable_grad():
                    out = function(*states, cos, sin)
                    found.append([*out, *torch.autograd.grad(
                        (out[0] * states[1].detach() + out[1] * 2).sum(), states)])
            worst = max([worst, *map(difference, *found)])
        return worst


class _Rotation(Function):
    """A rotation of transformers: of ``x * cos + turned(x) * sin`` with equal halves of ``sin``,
    the gradient is the rotation back."""

    @staticmethod
    def forward(ctx, rotate: Callable, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor,
                *more) -> tuple[Tensor, Tensor]:
        ctx.rotate, ctx.more = rotate, more
        ctx.save_for_backward(cos, sin)
        return _rotated(rotate, query.detach(), key.detach(), cos, sin, *more)

    @staticmethod
    def backward(ctx, of_query: Tensor, of_key: Tensor):
        cos, sin = ctx.saved_tensors
        back = _rotated(ctx.rotate, of_query, of_key, cos, -sin, *ctx.more)
        return None, *back, None, None, *(None for _ in ctx.more)


def _rotated(rotate: Callable, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *more
             ) -> tuple[Tensor, Tensor]:
    """Of (N, heads, D) with (N, D), or of (B, heads, T, D) with (B, T, D)."""
    any_length(query, key, of=(0, 2) if query.ndim == 4 else (0, ))
    any_length(cos, sin, of=tuple(range(cos.ndim - 1)))
    return compiled(rotate)(query, key, cos, sin, *more)
