"""The language model's attention: PyTorch's, for the rows that training and decoding give it.

It stands among transformers' implementations of attention by name.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..registry import MEASURES
from .kernels import of_any_lengths, quick_kernels, takes_any_lengths
from .measure import Measure, difference, numbers
from .packing import Shared
from .prompts import SharedPrompts, after_prompts

#: name of :func:`row_attention` among transformers' implementations
NAME = 'simpleseg_rows'
#: as many new tokens a row read the cache as it is, instead of a copy with all heads
_FEW = 32


@MEASURES.register_module(name='attention')
class Attention(Measure):
    """The language model attends by :func:`row_attention`: on a GPU without cuDNN, whose plans
    cost more than they give, and where few tokens a row read a cache with fewer heads, without a
    copy of it. Other measures build on it."""

    def obstacle(self, network: nn.Module) -> str | None:
        if network.attention != 'sdpa':
            return f"attn_implementation={network.attention!r}; it takes the place of 'sdpa'"
        return None

    def install(self, network: nn.Module) -> None:
        network.hf.get_decoder().set_attn_implementation(NAME)

    def remove(self, network: nn.Module) -> None:
        decoder = network.hf.get_decoder()
        if decoder.config._attn_implementation == NAME:
            decoder.set_attn_implementation('sdpa')

    @torch.no_grad()
    def deviation(self, network: nn.Module) -> float:
        """Of a whole row, and of few tokens that read a cache."""
        config, weight = network.hf.config.get_text_config(), next(network.hf.parameters())
        heads = config.num_attention_heads
        few = getattr(config, 'num_key_value_heads', None) or heads
        module, worst = nn.Module(), 0.0
        module.num_key_value_groups = heads // few
        for tokens, mask in ((5, None), (2, numbers(2, 1, 2, 5, like=weight))):
            query = numbers(2, heads, tokens, 16, like=weight, seed=1)
            key, value = (numbers(2, few, 5, 16, like=weight, seed=n) for n in (2, 3))
            worst = max(worst, difference(
                row_attention(module, query, key, value, mask)[0],
                sdpa_attention_forward(module, query, key, value, mask)[0]))
        return worst


def row_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                  attention_mask: Tensor | None, shared_prefixes: Sequence[Shared] = (),
                  unpack_index: Tensor | None = None, pack_index: Tensor | None = None,
                  text_cu_seqlens: Tensor | None = None,
                  prompts: Sequence[SharedPrompts] | None = None, **options
                  ) -> tuple[Tensor, None]:
    """Attention of rows of one sequence each, or causal attention within each of several
    sequences that are packed into one row.

    On a GPU, in 16 bits, one kernel takes packed sequences as they lie. Else, and where some share
    a prefix, they are unpacked for it, the shorter ones padded on the right: no token sees what
    follows it, so no mask is needed, and one call serves all.

    Args:
        query, key, value: (R, heads, T, D), packed (1, heads, N, D); key and value may have fewer
            heads.
        attention_mask: of rows of one sequence each.
        shared_prefixes, unpack_index, pack_index, text_cu_seqlens: ``shared``, ``places`` (B, T),
            ``order`` (N,) and ``cu_seqlens`` of :class:`~.packing.Packed`.
        prompts: of each layer, what rows that are being written share.

    Returns:
        (R, T, heads, D), and None.
    """
    with quick_kernels(query):
        if prompts is not None:
            return after_prompts(query, key, value, attention_mask, prompts[module.layer_idx],
                                 options.get('scaling')), None
        if unpack_index is None:
            return _plain_rows(module, query, key, value, attention_mask, options), None
        if query.shape[2] != len(pack_index):
            raise ValueError(f'sequences of {len(pack_index)} tokens in a row of {query.shape[2]}')
        states = [x[0].transpose(0, 1) for x in (query, key, value)]  # (N, heads, D)
        if text_cu_seqlens is not None and takes_any_lengths(query, options):
            return of_any_lengths(*states, text_cu_seqlens, unpack_index.shape[1],
                                  causal=True)[None], None
        options['is_causal'] = True
        states = [_Unpacked.apply(x, shared_prefixes, unpack_index, pack_index).transpose(1, 2)
                  for x in states]
        output = sdpa_attention_forward(module, *states, None, **options)[0]
        return _PackedAgain.apply(output, pack_index)[None], None


class _Unpacked(torch.autograd.Function):
    """(N, heads, D) of the tokens of a row -> (B, T, heads, D) of its sequences."""

    @staticmethod
    def forward(ctx, states: Tensor, shared: Sequence[Shared], unpack_index: Tensor,
                pack_index: Tensor) -> Tensor:
        ctx.shared, ctx.pack_index = shared, pack_index
        return states[unpack_index]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        own = gradient.flatten(0, 1).index_select(0, ctx.pack_index)
        for length, start, (_, *others) in ctx.shared:
            own[start:start + length] += torch.stack(
                [gradient[row, :length] for row in others]).sum(0)
        return own, None, None, None


class _PackedAgain(torch.autograd.Function):
    """(B, T, heads, D) of sequences -> (N, heads, D) of the tokens of their row."""

    @staticmethod
    def forward(ctx, states: Tensor, pack_index: Tensor) -> Tensor:
        ctx.pack_index, ctx.shape = pack_index, states.shape
        return states.flatten(0, 1).index_select(0, pack_index)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        apart = gradient.new_zeros(ctx.shape)
        apart.flatten(0, 1).index_copy_(0, ctx.pack_index, gradient)
        return apart, None


def _plain_rows(module, query, key, value, attention_mask, options) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and attention_mask is not None and 1 < query.shape[2] <= _FEW:
        return _few_queries(query, key, value, attention_mask, groups, **options)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]


def _few_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, groups: int,
                 dropout: float = 0., scaling: float | None = None, **_) -> Tensor:
    """(R, T, heads, D) of few tokens: the heads that share a key are queries of one head.

    transformers does this for one token; for several it repeats keys and values.
    """
    rows, heads, count, size = query.shape
    output = F.scaled_dot_product_attention(
        query.reshape(rows, heads // groups, groups * count, size), key, value,
        mask.repeat(1, 1, groups, 1), dropout, scale=scaling)
    return output.reshape(rows, heads, count, -1).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, row_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
