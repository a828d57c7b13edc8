"""The network's own small steps in fewer kernels: norms, rotations and gates on a GPU; patches
and adapters everywhere.

Weights, names and arithmetic stay transformers'. What changes: a step of eight kernels, each of
which reads and writes all features, becomes one that torch.compile writes; and matrices whose
width no fast kernel takes are padded with zeros while they are multiplied. Steps are compiled,
not layers, and for any number of tokens, so that no new length compiles anything. Of the widths
they know: memory is read 16 bytes at a time only where rows are known to begin at such places.

A step runs the same kernel with and without a gradient, unlike a compiled module: GSPO compares
the two, and its band is narrower than the noise between kernels.

Shapes: N tokens, D features.
"""
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import FunctionType, MethodType

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd import Function
from transformers.activations import SiLUActivation

#: Classes of transformers whose ``forward`` is :class:`_Norm`.
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
    """By torch.compile, for the widths that it meets, rounding where PyTorch rounds."""
    return torch.compile(function, dynamic=False, options=dict(emulate_precision_casts=True))


def any_length(*tensors: Tensor, of: Sequence[int] = (0, )) -> Sequence[Tensor]:
    """The tensors, as inputs of compiled steps: of any size in these dimensions."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, of)
    return tensors


# --- patches ----------------------------------------------------------------------------------
def patches_as_rows(network: nn.Module) -> None:
    """Let convolutions that are given single patches multiply them as the rows of a matrix, in
    place: the same sums, and libraries' convolutions take several times as long."""
    for module in network.modules():
        if (isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.stride == module.kernel_size
                and set(module.dilation) == {1} and module.groups == 1
                and not any(module.padding)):
            module.forward = MethodType(_fused_patches, module)


def _fused_patches(self, patches: Tensor) -> Tensor:
    if patches.shape[2:] != self.kernel_size:
        return type(self).forward(self, patches)
    rows = F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
    return rows.view(*rows.shape, *(1 for _ in self.kernel_size))


# --- adapters ---------------------------------------------------------------------------------
def adapters_in_place(network: nn.Module) -> None:
    """Let LoRA's linear layers add to their base's output as they multiply, in place: peft scales
    and adds in two more passes over the output, and as many in the backward pass."""
    for module in network.modules():
        if type(module) is LoraLinear:
            module.forward = MethodType(_fused_adapter, module)


def _fused_adapter(self, states: Tensor, *args, **options) -> Tensor:
    down, up, scale = _plain_adapter(self) or (None, None, 0.)
    if (down is None or args or options or not states.dtype == down.dtype == up.dtype
            or torch.is_autocast_enabled(states.device.type)):
        return type(self).forward(self, states, *args, **options)
    rows = states.reshape(-1, states.shape[-1])
    output = self.base_layer(rows).addmm_(F.linear(rows, down), up.T, alpha=scale)
    return output.view(*states.shape[:-1], -1)


def _plain_adapter(layer: LoraLinear) -> tuple[Tensor, Tensor, float] | None:
    """Weights (r, in), (out, r) and scale of its adapter, where there is but one, which does
    nothing but multiply."""
    name, *others = layer.active_adapters
    if (others or name not in layer.lora_A or name in layer.lora_variant
            or layer.disable_adapters or layer.merged or layer.lora_bias[name]
            or not isinstance(layer.lora_dropout[name], nn.Identity)):
        return None
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return (down, up, layer.scaling[name]) if down.ndim == up.ndim == 2 else None  # else split


# --- norms ------------------------------------------------------------------------------------
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


def _fused_norm(self, hidden_states: Tensor) -> Tensor:
    states = hidden_states.reshape(-1, hidden_states.shape[-1])
    return _Norm.apply(states, self.weight, self.variance_epsilon).view(hidden_states.shape)


# --- gates ------------------------------------------------------------------------------------
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


def _is_gated(module: nn.Module) -> bool:
    return (all(hasattr(module, f'{name}_proj') for name in ('gate', 'up', 'down'))
            and isinstance(getattr(module, 'act_fn', None), (nn.SiLU, SiLUActivation))
            and hasattr(module, 'hidden_size') and hasattr(module, 'intermediate_size'))


def _fused_gate(self, states: Tensor) -> Tensor:
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


# --- rotations --------------------------------------------------------------------------------
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


@lru_cache(maxsize=None)
def _with_fused_rotation(forward: FunctionType):
    """The same function, with the rotations that its module names replaced; ``None``: it names
    none."""
    names = forward.__globals__
    used = {name: partial(_Rotation.apply, names[name]) for name in _ROTATIONS
            if name in forward.__code__.co_names and name in names}
    if not used:
        return None
    fused = FunctionType(forward.__code__, {**names, **used}, 'fused_forward',
                         forward.__defaults__, forward.__closure__)
    fused.__kwdefaults__ = forward.__kwdefaults__
    return fused
