"""Root mean square norms as one kernel each."""
from inspect import signature

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..registry import MEASURES
from .compiled import CompiledMeasure, any_length, compiled
from .measure import numbers


@MEASURES.register_module(name='fused_norms')
class FusedNorms(CompiledMeasure):
    """Norms whose numbers are :func:`_norm`'s, of eight kernels each, become one."""

    def suits(self, module: nn.Module) -> bool:
        weight = getattr(module, 'weight', None)
        return (hasattr(module, 'variance_epsilon') and isinstance(weight, nn.Parameter)
                and weight.ndim == 1 and len(list(module.parameters())) == 1
                and len(signature(type(module).forward).parameters) == 2)  # no gate beside

    def forward_of(self, module: nn.Module):
        return fused_norm

    def inputs_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        states = numbers(4, len(module.weight), like=module.weight)
        return torch.cat([states, states / 1000]),  # small ones, so that epsilon counts


class _Norm(Function):
    """Root mean square norm of (N, D) states, in float32."""

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        output, scale = compiled(_norm)(*any_length(states.detach()), weight.detach(), eps)
        ctx.save_for_backward(states, weight, scale)
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):
        states, weight, scale = (x.detach() for x in ctx.saved_tensors)
        any_length(gradient, states, scale)
        of_weight = (compiled(_norm_weight_back)(gradient, states, scale)
                     if ctx.needs_input_grad[1] else None)
        return compiled(_norm_back)(gradient, states, weight, scale), of_weight, None


def _norm(states: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    values = states.float()
    scale = torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + eps)
    return weight * (values * scale).to(states.dtype), scale


def _norm_back(gradient: Tensor, states: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    values, gradient = states.float(), (gradient * weight).float()
    inside = (gradient * values).mean(-1, keepdim=True) * scale.pow(3)
    return (gradient * scale - values * inside).to(states.dtype)


def _norm_weight_back(gradient: Tensor, states: Tensor, scale: Tensor) -> Tensor:
    normed = (states.float() * scale).to(states.dtype)
    return (gradient * normed).sum(0)


def fused_norm(self, hidden_states: Tensor) -> Tensor:
    states = hidden_states.reshape(-1, hidden_states.shape[-1])
    return _Norm.apply(states, self.weight, self.variance_epsilon).view(hidden_states.shape)
