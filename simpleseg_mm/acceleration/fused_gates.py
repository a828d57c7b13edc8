"""Gated layers: ``silu(gate) * up`` as one kernel."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from transformers.activations import SiLUActivation

from ..registry import MEASURES
from .compiled import CompiledMeasure, any_length, compiled
from .measure import numbers

#: Matrix units read 16 bytes at a time: so many values of two bytes.
_ALIGNED = 8


@MEASURES.register_module(name='fused_gates')
class FusedGates(CompiledMeasure):
    """Gates of several kernels become one, and matrices whose width no fast kernel takes are
    padded with zeros while they are multiplied."""

    def suits(self, module: nn.Module) -> bool:
        return (all(hasattr(module, f'{name}_proj') for name in ('gate', 'up', 'down'))
                and isinstance(getattr(module, 'act_fn', None), (nn.SiLU, SiLUActivation))
                and hasattr(module, 'hidden_size') and hasattr(module, 'intermediate_size'))

    def forward_of(self, module: nn.Module):
        return fused_gate

    def inputs_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        return numbers(3, module.hidden_size, like=next(module.parameters())),


class _Gate(Function):
    """``silu(gate) * up`` of (N, D)."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return compiled(_gate)(*any_length(gate.detach(), up.detach()))

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return compiled(_gate_back)(*any_length(gradient, *(x.detach()
                                                            for x in ctx.saved_tensors)))


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _gate_back(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    values = gate.float()
    share = torch.sigmoid(values)
    slope = share * (1 + values * (1 - share))
    return ((gradient * up).float() * slope).to(gate.dtype), gradient * F.silu(gate)


def fused_gate(self, states: Tensor) -> Tensor:
    flat = states.reshape(-1, states.shape[-1])
    layers, width = (self.gate_proj, self.up_proj, self.down_proj), self.intermediate_size
    if width % _ALIGNED == 0 or any(  # LoRA's, or split over processes
            type(layer) is not nn.Linear or layer.weight.numel() != self.hidden_size * width
            for layer in layers):
        output = self.down_proj(_Gate.apply(self.gate_proj(flat), self.up_proj(flat)))
    else:
        more = -width % _ALIGNED
        gate, up = (F.linear(flat, F.pad(layer.weight, (0, 0, 0, more)), None if layer.bias is None
                             else F.pad(layer.bias, (0, more))) for layer in layers[:2])
        output = F.linear(_Gate.apply(gate, up), F.pad(self.down_proj.weight, (0, more)),
                          self.down_proj.bias)
    return output.view(states.shape)
