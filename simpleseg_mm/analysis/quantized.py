"""A linear layer of few bits as a planner sees it: its bytes and its work."""

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

_BLOCK, _OUTER = 64, 256  # bitsandbytes' defaults: weights a scale, scales a scale of scales


class QuantizedLinear(nn.Module):
    """What ``Linear4bit`` or ``Linear8bitLt`` of bitsandbytes holds and allocates.

    A product makes the whole matrix in the dtype of its input, in each direction, and drops it.
    8 bits are counted as if they were multiplied that way too (bitsandbytes multiplies them as
    int8, which needs less).

    Args:
        linear: the layer that is replaced; its bias is taken over.
        bits: 4 or 8.
        double: whether the scales are held in 8 bits (``bnb_4bit_use_double_quant``).
    """

    def __init__(self, linear: nn.Linear, bits: int, double: bool = False) -> None:
        super().__init__()
        weight = linear.weight
        self.shape, self.bias = tuple(weight.shape), linear.bias
        dtype = torch.uint8 if bits == 4 else torch.int8
        self.weight = nn.Parameter(
            weight.new_empty(weight.numel() * bits // 8, dtype=dtype), requires_grad=False)
        scales = weight.numel() // _BLOCK if bits == 4 else self.shape[0]
        self.register_buffer('absmax', weight.new_empty(
            scales, dtype=torch.uint8 if double and bits == 4 else torch.float32))
        if double and bits == 4:
            self.register_buffer('outer', weight.new_empty(-(-scales // _OUTER),
                                                           dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype

        def whole(shape: tuple[int, ...]) -> Tensor:
            return self.absmax.new_empty(shape, dtype=dtype)

        with saved_tensors_hooks(lambda saved: tuple(saved.shape), whole):
            # of a fixed weight's product it alone is saved
            return F.linear(x, whole(self.shape), self.bias)
