"""The network's own KV cache, as answers are written with it: the plain path.

Shapes: B prompts, R rows (answers), P slots of the padded prompt, S slots in use, D features.
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import cache_utils

#: (tokens (R, T), mask, position (R, T), KV cache, more) -> hidden states (R, T, D)
Decode = Callable[..., Tensor]
#: layers of caches that rows can join: of all slots, of the last ones, of states without slots.
#: Where a release calls one otherwise, no layer is of it, and batches end before the next begins.
_JOINED = _, _SLIDING, _LINEAR = tuple(
    getattr(cache_utils, name, type(name, (), {}))
    for name in ('DynamicLayer', 'DynamicSlidingWindowLayer', 'LinearAttentionLayer'))


class StepCache:
    """One token of every row a pass, by the network's own cache and mask.

    Args:
        cache: of B left-padded prompts.
        mask_BP: their attention mask.
        rows: (R,) the prompt of each row.
    """
    #: whether a pass may read more than one token of a row
    reads_many = False
    #: of the rows, the share that may have ended before the others are moved together
    ended_share = 1 / 8

    def __init__(self, cache, mask_BP: Tensor, rows: Tensor) -> None:
        cache.reorder_cache(rows)  # the one such method that linear attention has as well
        self.cache = cache
        #: whether the next prompts' rows can join while others are written
        self.joins = all(type(layer) in _JOINED for layer in getattr(cache, 'layers', [None]))
        self.mask_RS = mask_BP[rows]

    def read(self, decode: Decode, tokens_R1: Tensor, start_R: Tensor) -> Tensor:
        """Hidden states (R, 1, D) after one more token of each row.

        Args:
            decode: the network.
            tokens_R1: ids, on the CPU.
            start_R: their positions, on the CPU.
        """
        self.mask_RS = torch.cat([self.mask_RS, self.mask_RS.new_ones(len(self.mask_RS), 1)], 1)
        device = self.mask_RS.device
        return decode(tokens_R1.to(device), self.mask_RS, start_R[:, None].to(device), self.cache)

    def close(self, counts: Sequence[int]) -> None:
        """Keep so many of each row's tokens of the last pass: here the one that there is."""

    def keep(self, rows: list[int]) -> None:
        """Forget the other rows."""
        index = torch.tensor(rows, device=self.mask_RS.device)
        self.mask_RS = self.mask_RS[index]
        self.cache.reorder_cache(index)

    def join(self, other: 'StepCache') -> None:
        """Rows of another such cache after these; slots that are padding in every row go."""
        width = max(cache.mask_RS.shape[1] - _padding(cache.mask_RS) for cache in (self, other))
        self.mask_RS = torch.cat([_fitted(cache.mask_RS, width, -1) for cache in (self, other)])
        for layer, more in zip(self.cache.layers, other.cache.layers):
            _join(layer, more, width)


def _padding(mask_RS: Tensor) -> int:
    """Slots on the left that are padding in every row."""
    return int((mask_RS != 0).any(0).int().argmax())


def _fitted(x: Tensor, width: int, dim: int) -> Tensor:
    """So many slots: those on the left go, or are added as padding."""
    have = x.shape[dim]
    if have >= width:
        return x.narrow(dim, have - width, width)
    return F.pad(x, (0, 0) * (-1 - dim) + (width - have, 0))


def _join(layer, more, width: int) -> None:
    """Rows of another layer after those of this one, which then has ``width`` slots."""
    if isinstance(layer, _LINEAR):  # states of whole rows, without slots
        for states, added in ((layer.conv_states, more.conv_states),
                              (layer.recurrent_states, more.recurrent_states)):
            for i, state in states.items():
                if state is not None:
                    states[i] = torch.cat([state, added[i]])
        return
    if isinstance(layer, _SLIDING):  # keeps the last of them
        layer.cumulative_length, width = width, min(width, layer.sliding_window - 1)
    layer.keys, layer.values = (
        torch.cat([_fitted(x, width, -2) for x in pair])
        for pair in ((layer.keys, more.keys), (layer.values, more.values)))
