"""LoRA's linear layers in one pass over their output."""
import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from ..registry import MEASURES
from .measure import ForwardMeasure, numbers


@MEASURES.register_module(name='lora_in_place')
class LoraInPlace(ForwardMeasure):
    """LoRA's linear layers add to their base's output as they multiply: peft scales and adds in
    two more passes over the output, and as many in the backward pass."""

    def suits(self, module: nn.Module) -> bool:
        return type(module) is LoraLinear

    def obstacle(self, network: nn.Module) -> str | None:
        return None if self._suited(network) else 'there is no LoRA'

    def forward_of(self, module: nn.Module):
        return added_in_place

    def inputs_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        return numbers(3, module.in_features, like=next(iter(module.lora_A.values())).weight),

    def compare(self, module: nn.Module) -> float:
        """With numbers in ``lora_B``, which begins at 0, and without dropout."""
        training, saved = module.training, {p: p.clone() for p in module.lora_B.parameters()}
        module.eval()
        for weight in saved:
            weight.copy_(numbers(*weight.shape, like=weight))
        try:
            return super().compare(module)
        finally:
            for weight, values in saved.items():
                weight.copy_(values)
            module.train(training)


def added_in_place(self, states: Tensor, *args, **options) -> Tensor:
    """The layer's ``forward``, where it does nothing but multiply; else it goes the usual way."""
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
