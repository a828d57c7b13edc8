"""PyTorch's attention kernels, as rows of several sequences use them."""
from contextlib import nullcontext
from inspect import signature

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None
_VARLEN = signature(varlen_attn).parameters if varlen_attn else {}
if 'window_size' not in _VARLEN:  # before PyTorch 2.11
    varlen_attn = None


def quick_kernels(query: Tensor):
    """Within, attention on a GPU does without cuDNN, PyTorch's first choice on Hopper: it plans
    for each new length of a sequence, which took two thirds of a micro-batch's processor time."""
    if not query.is_cuda:
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                        SDPBackend.MATH])


def takes_any_lengths(query: Tensor, options: dict) -> bool:
    """Whether PyTorch's variable-length attention does: flash attention, at the usual scale."""
    size = query.shape[-1]
    return (varlen_attn is not None and query.is_cuda and not options.get('dropout')
            and query.dtype in (torch.float16, torch.bfloat16) and size % 8 == 0 and size <= 256
            and options.get('scaling') in (None, size ** -0.5)
            and torch.cuda.get_device_capability(query.device) >= (8, 0))  # Ampere and later


def of_any_lengths(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int,
                   causal: bool) -> Tensor:
    """(N, heads, D) of (N, heads, D), of sequences that begin at ``cu_seqlens``."""
    options = dict(window_size=(-1, 0)) if causal else {}
    if 'enable_gqa' in _VARLEN:
        options['enable_gqa'] = query.shape[1] != key.shape[1]
    return varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest, **options)
