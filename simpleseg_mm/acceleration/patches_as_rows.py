"""Patches of pictures multiplied as rows of a matrix."""
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MEASURES
from .measure import ForwardMeasure, numbers


@MEASURES.register_module(name='patches_as_rows')
class PatchesAsRows(ForwardMeasure):
    """Convolutions that are given single patches multiply them as the rows of a matrix: the same
    sums, and libraries' convolutions take several times as long."""

    def suits(self, module: nn.Module) -> bool:
        return (isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.stride == module.kernel_size
                and set(module.dilation) == {1} and module.groups == 1
                and not any(module.padding))

    def forward_of(self, module: nn.Module):
        return patch_rows

    def inputs_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        return numbers(3, module.in_channels, *module.kernel_size, like=module.weight),


def patch_rows(self, patches: Tensor) -> Tensor:
    """The convolution's ``forward``, of (N, C, *kernel) patches; other inputs go the usual way."""
    if patches.shape[2:] != self.kernel_size:
        return type(self).forward(self, patches)
    rows = F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
    return rows.view(*rows.shape, *(1 for _ in self.kernel_size))
