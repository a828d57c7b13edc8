"""Rows of different lengths as one row without padding, each attending to itself alone."""
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: name of :func:`packed_attention` among transformers' attention implementations
PACKED = 'simpleseg_packed'


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                     attention_mask: Optional[Tensor], lengths: Optional[Sequence[int]] = None,
                     **options) -> Tuple[Tensor, None]:
    """Causal attention within each of several sequences that lie in one row.

    PyTorch's own attention, a sequence at a time and without a mask, which leaves out the upper
    triangle and, unlike a mask over the whole row, costs nothing for other sequences.

    Args:
        query, key, value: (1, heads, N, D); key and value may have fewer heads.
        attention_mask: used where there are no ``lengths``.
        lengths: tokens of each sequence, N in all; ``None``: transformers' 'sdpa'.

    Returns:
        (1, N, heads, D), and None.
    """
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if query.shape[2] != sum(lengths):
        raise ValueError(f'sequences of {sum(lengths)} tokens in a row of {query.shape[2]}')
    options['is_causal'] = True
    parts = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in zip(
        *(states.split(list(lengths), dim=2) for states in (query, key, value)))]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
