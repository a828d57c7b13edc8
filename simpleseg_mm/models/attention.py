"""Attention over rows that hold several sequences, each attending to itself alone.

Both run PyTorch's own attention, and stand among transformers' implementations by name.
"""
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .packing import Shared

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None
_VARLEN = signature(varlen_attn).parameters if varlen_attn else {}
if 'window_size' not in _VARLEN:  # before PyTorch 2.11
    varlen_attn = None

#: name of :func:`packed_attention`, for language models
PACKED = 'simpleseg_packed'
#: name of :func:`segment_attention`, for vision towers: transformers tells an attention where
#: segments end if "flash" is in its name, and else runs them one by one
SEGMENTS = 'simpleseg_flash_segments'


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                     attention_mask: Tensor | None, shared: Sequence[Shared] = (),
                     apart: Tensor | None = None, together: Tensor | None = None,
                     borders: Tensor | None = None, **options) -> tuple[Tensor, None]:
    """Causal attention within each of several sequences that lie in one row.

    On a GPU, in 16 bits, one kernel takes them as they lie. Else, and where some share a
    beginning, they are laid side by side for it, the shorter ones padded on the right: no token
    sees what follows it, so no mask is needed, and one call serves all.

    Args:
        query, key, value: (1, heads, N, D); key and value may have fewer heads.
        attention_mask: used where ``apart`` is ``None``.
        shared, apart, together, borders: ``shared``, ``places`` (B, T), ``order`` (N,) and
            ``borders`` of :class:`Packed`; no ``apart``: rows of one sequence each, as
            transformers' 'sdpa'.

    Returns:
        (1, N, heads, D), and None.
    """
    with _quick_kernels(query):
        if apart is None:
            return _row_attention(module, query, key, value, attention_mask, options), None
        if query.shape[2] != len(together):
            raise ValueError(f'sequences of {len(together)} tokens in a row of {query.shape[2]}')
        states = [x[0].transpose(0, 1) for x in (query, key, value)]  # (N, heads, D)
        if borders is not None and _takes_any_lengths(query, options):
            return _of_any_lengths(*states, borders, apart.shape[1], causal=True)[None], None
        options['is_causal'] = True
        states = [_Apart.apply(x, shared, apart, together).transpose(1, 2) for x in states]
        output = sdpa_attention_forward(module, *states, None, **options)[0]
        return _Together.apply(output, together)[None], None


class _Apart(torch.autograd.Function):
    """(N, heads, D) of the tokens of a row -> (B, T, heads, D) of its sequences."""

    @staticmethod
    def forward(ctx, states: Tensor, shared: Sequence[Shared], apart: Tensor,
                together: Tensor) -> Tensor:
        ctx.shared, ctx.together = shared, together
        return states[apart]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        own = gradient.flatten(0, 1).index_select(0, ctx.together)
        for length, start, (_, *others) in ctx.shared:
            own[start:start + length] += torch.stack(
                [gradient[row, :length] for row in others]).sum(0)
        return own, None, None, None


class _Together(torch.autograd.Function):
    """(B, T, heads, D) of sequences -> (N, heads, D) of the tokens of their row."""

    @staticmethod
    def forward(ctx, states: Tensor, together: Tensor) -> Tensor:
        ctx.together, ctx.shape = together, states.shape
        return states.flatten(0, 1).index_select(0, together)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        apart = gradient.new_zeros(ctx.shape)
        apart.flatten(0, 1).index_copy_(0, ctx.together, gradient)
        return apart, None


def _row_attention(module, query, key, value, attention_mask, options) -> Tensor:
    prompts = getattr(key, 'simpleseg_prompts', None)
    if prompts is not None:
        return _after_prompts(query, key, value, attention_mask, prompts, **options)
    shared = query.shape[1] // key.shape[1]
    if shared > 1 and attention_mask is not None and 1 < query.shape[2] <= _FEW:
        return _few_queries(query, key, value, attention_mask, shared, **options)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]


def _quick_kernels(query: Tensor):
    """Within, attention on a GPU does without cuDNN, PyTorch's first choice on Hopper: it plans
    for each new length of a sequence, which took two thirds of a micro-batch's processor time."""
    if not query.is_cuda:
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                        SDPBackend.MATH])


#: as many new tokens a row read the cache as it is, instead of a copy with all heads
_FEW = 32


def _few_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, shared: int,
                 dropout: float = 0., scaling: float | None = None, **_) -> Tensor:
    """(R, T, heads, D) of few tokens: the heads that share a key are queries of one head.

    transformers does this for one token; for several it repeats keys and values.
    """
    rows, heads, count, size = query.shape
    output = F.scaled_dot_product_attention(
        query.reshape(rows, heads // shared, shared * count, size), key, value,
        mask.repeat(1, 1, shared, 1), dropout, scale=scaling)
    return output.reshape(rows, heads, count, -1).transpose(1, 2).contiguous()


class SharedPrompts:
    """Keys and values of B prompts, each continued by one or several of R rows: they stand once,
    and the rows of a prompt read them together.

    Args:
        keys, values: (B, heads, P, D); those that no row continues are dropped.
        prompts: (R,) int64, which of them each row continues.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompts: Tensor) -> None:
        kept, self.prompts, counts = prompts.unique(return_inverse=True, return_counts=True)
        if len(kept) < len(keys):
            keys, values = keys.index_select(0, kept), values.index_select(0, kept)
        self.keys, self.values = keys, values
        #: rows of the prompt that has most
        self.most = int(counts.max())
        among = F.one_hot(self.prompts).cumsum(0) - 1  # (R, B) rows of each prompt before
        places = self.prompts * self.most + among.gather(1, self.prompts[:, None]).squeeze(1)
        whole = torch.arange(len(kept) * self.most, device=places.device)
        #: (R,) of each row in a table of B prompts by most rows; none: it is that table
        self.places = None if torch.equal(places, whole) else places

    def keep(self, rows: Tensor) -> 'SharedPrompts':
        """Of these rows alone."""
        return SharedPrompts(self.keys, self.values, self.prompts[rows])

    def scores(self, queries: Tensor) -> Tensor:
        """(R, heads, M, P) of queries (R, heads, M, D)."""
        return self._each(queries, self.keys.transpose(2, 3))

    def read(self, weights: Tensor) -> Tensor:
        """(R, heads, M, D) by weights (R, heads, M, P)."""
        return self._each(weights, self.values)

    def _each(self, x: Tensor, matrix: Tensor) -> Tensor:
        """x (R, heads, M, K) times what its prompt has, (B, heads, K, N): (R, heads, M, N)."""
        heads, count, size = x.shape[1:]
        if self.places is not None:
            x = x.new_zeros(len(matrix) * self.most, heads, count, size).index_copy_(
                0, self.places, x)
        x = x.reshape(-1, self.most, heads, count, size).transpose(1, 2)
        x = x.reshape(-1, heads, self.most * count, size) @ matrix
        x = x.view(-1, heads, self.most, count, x.shape[-1]).transpose(1, 2).flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)


def _after_prompts(query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
                   prompts: SharedPrompts, scaling: float | None = None, **_) -> Tensor:
    """(R, T, heads, D) of few tokens that see their prompt, and of their row what the mask lets
    them: one softmax over both.

    Args:
        query: (R, heads, T, D).
        key, value: (R, heads or fewer, S, D) of the rows.
        mask: (R, 1, T, P + S), to add.
    """
    rows, heads, count, size = query.shape
    scaling = size ** -0.5 if scaling is None else scaling
    queries = (query * scaling).reshape(rows, key.shape[1], -1, size)  # of the heads of one key
    scores = torch.cat([prompts.scores(queries), queries @ key.transpose(2, 3)], -1)
    weights = (scores.view(rows, heads, count, -1) + mask).softmax(
        -1, dtype=torch.promote_types(query.dtype, torch.float32))
    weights = weights.to(query.dtype).view(scores.shape)
    to_prompt, to_row = weights.split([prompts.keys.shape[2], key.shape[2]], -1)
    output = prompts.read(to_prompt) + to_row @ value
    return output.view(rows, heads, count, -1).transpose(1, 2).contiguous()


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
    def of(cls, borders: Tensor) -> '_Plan':
        """Of borders (segments + 1,); kept with the tensor, which every layer is given."""
        plan = getattr(borders, 'simpleseg_plan', None)
        if plan is None:
            plan = borders.simpleseg_plan = cls._made(borders.tolist(), borders.device)
        return plan

    @classmethod
    def _made(cls, borders: list[int], device) -> '_Plan':
        starts: dict = {}
        for start, end in zip(borders, borders[1:]):
            starts.setdefault(end - start, []).append(start)
        starts.pop(0, None)
        groups = [(len(found), length) for length, found in starts.items()]
        if len(groups) == 1:
            return cls(groups)
        order = torch.cat([(torch.tensor(found)[:, None] + torch.arange(length)).flatten()
                           for length, found in starts.items()])
        return cls(groups, order.to(device), order.argsort().to(device))


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
    if max_length_q and _takes_any_lengths(query, dict(scaling=scaling, dropout=dropout)):
        return _of_any_lengths(*states, cu_seq_lens_q, max_length_q, causal=False)[None], None
    plan = _Plan.of(cu_seq_lens_q)
    if plan.order is not None:
        states = [_Permuted.apply(x, plan.order, plan.back) for x in states]
    parts = []
    for (count, length), *qkv in zip(plan.groups, *(
            x.split([count * length for count, length in plan.groups]) for x in states)):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in qkv)
        with _quick_kernels(q):
            out = F.scaled_dot_product_attention(q, k, v, None, dropout, scale=scaling)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    output = torch.cat(parts) if len(parts) > 1 else parts[0]
    if plan.back is not None:
        output = _Permuted.apply(output, plan.back, plan.order)
    return output[None], None


def _takes_any_lengths(query: Tensor, options: dict) -> bool:
    """Whether PyTorch's variable-length attention does: flash attention, at the usual scale."""
    size = query.shape[-1]
    return (varlen_attn is not None and query.is_cuda and not options.get('dropout')
            and query.dtype in (torch.float16, torch.bfloat16) and size % 8 == 0 and size <= 256
            and options.get('scaling') in (None, size ** -0.5)
            and torch.cuda.get_device_capability(query.device) >= (8, 0))  # Ampere and later


def _of_any_lengths(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int,
                    causal: bool) -> Tensor:
    """(N, heads, D) of (N, heads, D), of segments between borders."""
    options = dict(window_size=(-1, 0)) if causal else {}
    if 'enable_gqa' in _VARLEN:
        options['enable_gqa'] = query.shape[1] != key.shape[1]
    return varlen_attn(query, key, value, borders, borders, longest, longest, **options)


for _name, _function in ((PACKED, packed_attention), (SEGMENTS, segment_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)
