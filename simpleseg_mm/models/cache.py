"""Keys and values of answers that grow at different speeds, written in place.

Growing copies nothing but once in a while.

Shapes: B prompts, R rows (answers), P slots of the padded prompt, T tokens read in one pass, S
slots in use, C slots allocated.
"""
from typing import List, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from .packing import PACKED

#: slots that are allocated at a time
STEP = 64


class _Layer(CacheLayerMixin):
    """One layer's keys and values, (R, heads, C, D), of which slots are written by row."""
    is_sliding = False

    def __init__(self, layer: DynamicLayer, rows: Tensor) -> None:
        super().__init__()
        self.keys, self.values = layer.keys[rows], layer.values[rows]
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True
        self.used = self.keys.shape[2]
        self.slots_RT: Tensor = None
        self.start = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the prompt's keys and values are there."""

    def reserve(self, size: int) -> None:
        self.keys, self.values = (_grown(x, size) for x in (self.keys, self.values))

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        for buffer, new in ((self.keys, key_states), (self.values, value_states)):
            if self.start is not None:
                buffer[:, :, self.start:self.start + new.shape[2]] = new
            else:
                index = self.slots_RT[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
                buffer.scatter_(2, index, new)
        return self.keys[:, :, :self.used], self.values[:, :, :self.used]

    def keep(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int):
        return self.used, 0

    def get_max_length(self) -> int:
        return -1


def _grown(buffer: Tensor, size: int) -> Tensor:
    more = buffer.new_zeros(*buffer.shape[:2], size - buffer.shape[2], buffer.shape[3])
    return torch.cat([buffer, more], 2)


class RaggedMemory:
    """What the rows have read, each at its own length: a pass may read several tokens of each row,
    and those that are not kept are overwritten by the next.

    Args:
        cache: of B left-padded prompts.
        mask_BP: their attention mask.
        rows: (R,) the prompt of each row.
        additive: give the mask as numbers to add ('eager' attention), not as truth values.
    """
    #: whether a pass may read more than one token of a row
    reads_many = True

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor, additive: bool) -> None:
        self.cache = Cache(layers=[_Layer(layer, rows) for layer in cache.layers])
        self.visible_RC = mask_BP[rows].bool()
        self.lengths = [mask_BP.shape[1]] * len(rows)
        self.additive = additive

    def open(self, count: int) -> Tensor:
        """Make place for ``count`` tokens a row: the attention mask (R, 1, T, S)."""
        used = max(self.lengths) + count
        if used > self.visible_RC.shape[1]:
            size = used + STEP
            more = self.visible_RC.new_ones(len(self.lengths), size - self.visible_RC.shape[1])
            self.visible_RC = torch.cat([self.visible_RC, more], 1)
            for layer in self.cache.layers:
                layer.reserve(size)
        device = self.visible_RC.device
        slots_RT = (torch.tensor(self.lengths, device=device)[:, None]
                    + torch.arange(count, device=device))
        level = self.lengths[0] if len(set(self.lengths)) == 1 else None
        for layer in self.cache.layers:
            layer.used, layer.slots_RT, layer.start = used, slots_RT, level
        mask = torch.arange(used, device=device) <= slots_RT[..., None]
        mask = (mask & self.visible_RC[:, None, :used])[:, None]
        if not self.additive:
            return mask
        dtype = self.cache.layers[0].keys.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(
            ~mask, torch.finfo(dtype).min)

    def close(self, counts: Sequence[int]) -> None:
        """Keep so many of each row's tokens of the last pass."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts)]

    def keep(self, rows: List[int]) -> None:
        """Forget the other rows."""
        index = torch.tensor(rows, device=self.visible_RC.device)
        self.lengths = [self.lengths[row] for row in rows]
        self.visible_RC = self.visible_RC[index]
        for layer in self.cache.layers:
            layer.keep(index)


class StepMemory:
    """The network's own cache, for networks that a token cannot be taken back from (linear
    attention, sliding windows) or that take no other mask: one token of every row a pass."""
    reads_many = False

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor) -> None:
        cache.reorder_cache(rows)  # the one such method that linear attention has as well
        self.cache = cache
        self.mask_RS = mask_BP[rows]

    def open(self, count: int) -> Tensor:
        """The attention mask (R, S) with one more token."""
        self.mask_RS = torch.cat([self.mask_RS, self.mask_RS.new_ones(len(self.mask_RS), 1)], 1)
        return self.mask_RS

    def close(self, counts: Sequence[int]) -> None:
        """Nothing: the cache has grown by itself."""

    def keep(self, rows: List[int]) -> None:
        index = torch.tensor(rows, device=self.mask_RS.device)
        self.mask_RS = self.mask_RS[index]
        self.cache.reorder_cache(index)


def memory_of(cache: Cache, mask_BP: Tensor, rows: Tensor, attention: str):
    """The memory that suits a network's cache and its implementation of attention."""
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if plain and attention in ('sdpa', PACKED, 'eager'):
        return RaggedMemory(cache, mask_BP, rows, additive=attention == 'eager')
    return StepMemory(cache, mask_BP, rows)
