"""The vision tower's attention: its windows or pictures together, each seeing itself alone."""
from dataclasses import dataclass
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ..registry import MEASURES
from .kernels import of_any_lengths, quick_kernels, takes_any_lengths
from .measure import Measure

#: name of :func:`segment_attention` among transformers' implementations, which tell an attention
#: where segments end if "flash" is in its name, and else run them one by one
NAME = 'simpleseg_flash_segments'


@MEASURES.register_module(name='segments')
class Segments(Measure):
    """The vision tower attends by :func:`segment_attention`."""

    def obstacle(self, network: nn.Module) -> str | None:
        if network.attention != 'sdpa':
            return f"attn_implementation={network.attention!r}; it takes the place of 'sdpa'"
        return None if self._towers(network) else 'its vision tower is not asked for segments'

    @staticmethod
    def _towers(network: nn.Module) -> list[nn.Module]:
        """Vision towers whose attention is given ``cu_seqlens``."""
        towers = [network.hf.get_submodule(prefix.rstrip('.'))
                  for prefix in network.family.parts['vision']]
        return [tower for tower in towers if hasattr(tower, 'config') and any(
            'cu_seqlens' in signature(type(module).forward).parameters
            for module in tower.modules())]

    def install(self, network: nn.Module) -> None:
        self._name(network, NAME)

    def remove(self, network: nn.Module) -> None:
        self._name(network, 'sdpa')

    def _name(self, network: nn.Module, name: str) -> None:
        for tower in self._towers(network):  # set_attn_implementation asks for a flash package
            tower.config._attn_implementation = name




@dataclass(frozen=True)
class _Plan:
    """Which places of a row are read together.

    Attributes:
        groups: (segments, tokens of each), by length.
        order: (N,) places, group after group; ``None``: as they lie.
        back: (N,) the inverse.
    """
    groups: list[tuple[int, int]]
    order: Tensor | None = None
    back: Tensor | None = None

    @classmethod
    def of(cls, cu_seqlens: Tensor) -> '_Plan':
        """Of (segments + 1,) ``cu_seqlens``, which every layer of a pass is given."""
        if cu_seqlens not in _PLANS:
            _PLANS[cu_seqlens] = cls._made(cu_seqlens.tolist(), cu_seqlens.device)
        return _PLANS[cu_seqlens]

    @classmethod
    def _made(cls, ends: list[int], device) -> '_Plan':
        starts: dict = {}
        for start, end in zip(ends, ends[1:]):
            starts.setdefault(end - start, []).append(start)
        starts.pop(0, None)
        groups = [(len(found), length) for length, found in starts.items()]
        if len(groups) == 1:
            return cls(groups)
        order = torch.cat([(torch.tensor(found)[:, None] + torch.arange(length)).flatten()
                           for length, found in starts.items()])
        return cls(groups, order.to(device), order.argsort().to(device))


_PLANS = WeakIdKeyDictionary()


class _Permuted(torch.autograd.Function):
    """Rows in another order; the gradient is read in the order back, not added up."""

    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.back = back
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient.index_select(0, ctx.back), None, None


def segment_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                      attention_mask: None, scaling: float | None = None, dropout: float = 0.,
                      cu_seq_lens_q: Tensor | None = None,
                      max_length_q: int | None = None, **_) -> tuple[Tensor, None]:
    """Attention within each segment of one row: the windows or pictures of a vision tower.

    Segments of one length go through PyTorch's attention together. Of a picture's some thirty
    windows all but those at its borders have one length.

    On a GPU, in 16 bits, one kernel takes segments of any lengths as they lie.

    Args:
        query, key, value: (1, heads, N, D).
        cu_seq_lens_q: (segments + 1,) int32, where they begin, and N.
        max_length_q: tokens of the longest.

    Returns:
        (1, N, heads, D), and None.
    """
    states = [x[0].transpose(0, 1) for x in (query, key, value)]  # (N, heads, D)
    if max_length_q and takes_any_lengths(query, dict(scaling=scaling, dropout=dropout)):
        return of_any_lengths(*states, cu_seq_lens_q, max_length_q, causal=False)[None], None
    plan = _Plan.of(cu_seq_lens_q)
    if plan.order is not None:
        states = [_Permuted.apply(x, plan.order, plan.back) for x in states]
    parts = []
    for (count, length), *qkv in zip(plan.groups, *(
            x.split([count * length for count, length in plan.groups]) for x in states)):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in qkv)
        with quick_kernels(q):
            out = F.scaled_dot_product_attention(q, k, v, None, dropout, scale=scaling)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    output = torch.cat(parts) if len(parts) > 1 else parts[0]
    if plan.back is not None:
        output = _Permuted.apply(output, plan.back, plan.order)
    return output[None], None


AttentionInterface.register(NAME, segment_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
