"""The network's own small steps in fewer GPU kernels: norms, rotations and gates.

Weights, names and arithmetic stay transformers'. What changes: a step of eight kernels, each of
which reads and writes all features, becomes one that torch.compile writes; and matrices whose
width no fast kernel takes are padded with zeros while they are multiplied. Steps are compiled,
not layers: they know nothing of the batch's shape, so that no new length compiles anything.
"""
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation

#: Classes of transformers whose ``forward`` is :func:`_rms_norm`.
_NORMS = ('Qwen2_5_VLRMSNorm', 'Qwen2RMSNorm', 'Qwen3VLTextRMSNorm')
#: Functions of the module of an attention that turn queries and keys.
_ROTATIONS = ('apply_rotary_pos_emb', 'apply_rotary_pos_emb_vision')
#: Matrix units read 16 bytes at a time: so many values of two bytes.
_ALIGNED = 8


def fuse(network: nn.Module) -> None:
    """Let the modules of a network that are known here compute by fused steps, in place."""
    for module in network.modules():
        forward = None
        if type(module).__name__ in _NORMS:
            forward = _fused_norm
        elif _is_gated(module):
            forward = _fused_gate
        elif isinstance(getattr(type(module), 'forward', None), FunctionType):
            forward = _with_fused_rotation(type(module).forward)
        if forward is not None:
            module.forward = MethodType(forward, module)


@lru_cache(maxsize=None)
def compiled(function: Callable) -> Callable:
    """By torch.compile, for all shapes."""
    return torch.compile(function, dynamic=True)


def _flat(function: Callable, *states: Tensor) -> Callable:
    """The compiled function of (N, D) states and more: one number of axes, one compilation."""
    shape = states[0].shape
    flat = [x.reshape(-1, shape[-1]) for x in states]
    return lambda *more: compiled(function)(*flat, *more).view(shape)


def _rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    values = states.float()
    values = values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + eps)
    return weight * values.to(states.dtype)


def _fused_norm(self, hidden_states: Tensor) -> Tensor:
    return _flat(_rms_norm, hidden_states)(self.weight, self.variance_epsilon)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _is_gated(module: nn.Module) -> bool:
    return (all(hasattr(module, f'{name}_proj') for name in ('gate', 'up', 'down'))
            and isinstance(getattr(module, 'act_fn', None), (nn.SiLU, SiLUActivation)))


def _fused_gate(self, states: Tensor) -> Tensor:
    width = getattr(self, 'intermediate_size', 0)
    layers = self.gate_proj, self.up_proj, self.down_proj
    if width % _ALIGNED == 0 or any(  # LoRA's, or split over processes
            type(layer) is not nn.Linear or layer.weight.numel() != self.hidden_size * width
            for layer in layers):
        return self.down_proj(_flat(_gate, self.gate_proj(states), self.up_proj(states))())
    more = -width % _ALIGNED
    gate, up = (F.linear(states, F.pad(layer.weight, (0, 0, 0, more)), None if layer.bias is None
                         else F.pad(layer.bias, (0, more))) for layer in layers[:2])
    return F.linear(_flat(_gate, gate, up)(), F.pad(self.down_proj.weight, (0, more)),
                    self.down_proj.bias)


@lru_cache(maxsize=None)
def _with_fused_rotation(forward: FunctionType):
    """The same function, with the rotations that its module names compiled; ``None``: it names
    none."""
    used = {name: compiled(forward.__globals__[name]) for name in _ROTATIONS
            if name in forward.__code__.co_names and name in forward.__globals__}
    if not used:
        return None
    fused = FunctionType(forward.__code__, {**forward.__globals__, **used}, 'fused_forward',
                         forward.__defaults__, forward.__closure__)
    fused.__kwdefaults__ = forward.__kwdefaults__
    return fused
