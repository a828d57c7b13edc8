"""Keys and values of answers that grow at different speeds, written in place.

Growing copies nothing but once in a while. On a GPU a pass is recorded as a CUDA graph and played
again: launched kernel by kernel, a pass of a 7B takes several times as long as its work.

Shapes: B prompts, R rows (answers), P slots of the padded prompt, T tokens read in one pass, S
slots in use, C slots allocated.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from .attention import PACKED, SharedPrompts

#: (tokens (R, T), mask, position (R, T), cache) -> hidden states (R, T, D)
Decode = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]


class _Layer(CacheLayerMixin):
    """One layer's keys and values, (R, heads, C, D), of which slots are written by row."""
    is_sliding = False
    #: slots that come before the buffers
    before = 0

    def __init__(self, layer: DynamicLayer, rows: Tensor, size: int) -> None:
        super().__init__()
        self.used = layer.keys.shape[2]
        self.keys, self.values = self._begun(layer, rows, size)
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True
        self.slots_RT: Tensor = None
        self.places: dict[int, Tensor] = {}

    def _begun(self, layer: DynamicLayer, rows: Tensor, size: int) -> list[Tensor]:
        # room is made while rows are few; index_select is several times as fast as indexing
        return [_grown(x, size).index_select(0, rows) for x in (layer.keys, layer.values)]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the prompt's keys and values are there."""

    def reserve(self, size: int) -> None:
        self.keys, self.values = (_grown(x, size - self.before)
                                  for x in (self.keys, self.values))

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        index = self._places(*key_states.shape[:2])
        for buffer, new in ((self.keys, key_states), (self.values, value_states)):
            size = buffer.shape[3]
            buffer.view(-1, size).index_copy_(0, index, new.reshape(-1, size))
        used = self.used - self.before
        return self.keys[:, :, :used], self.values[:, :, :used]

    def _places(self, rows: int, heads: int) -> Tensor:
        """(R * heads * T,) where the slots of a pass lie; layers of one shape share it."""
        if heads not in self.places:
            first = torch.arange(rows * heads, device=self.device).view(rows, heads, 1)
            slots_R1T = (self.slots_RT - self.before)[:, None]
            self.places[heads] = (first * self.keys.shape[2] + slots_R1T).flatten()
        return self.places[heads]

    def keep(self, rows: Tensor) -> None:
        self.keys, self.values = (x.index_select(0, rows) for x in (self.keys, self.values))

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int):
        return self.used, 0

    def get_max_length(self) -> int:
        return -1


class _OwnLayer(_Layer):
    """One layer's keys and values of what the rows have written, (R, heads, C - P, D); those of
    the prompts stand once beside them."""

    def _begun(self, layer: DynamicLayer, rows: Tensor, size: int) -> list[Tensor]:
        self.before = self.used
        self.prompts = SharedPrompts(layer.keys, layer.values, rows)
        return [x.new_zeros(len(rows), x.shape[1], size - self.before, x.shape[3])
                for x in (layer.keys, layer.values)]

    def update(self, *args, **kwargs):
        keys, values = super().update(*args, **kwargs)
        keys.simpleseg_prompts = self.prompts  # the way to attention is through the network
        return keys, values

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.prompts = self.prompts.keep(rows)


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
        shared: let the prompt's keys and values stand once for all of its rows.
    """
    #: whether a pass may read more than one token of a row
    reads_many = True
    #: of the rows, the share that may have ended before the others are moved together
    ended_share = 1 / 8
    #: slots that are allocated at a time
    step = 64

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor, shared: bool = False) -> None:
        width = mask_BP.shape[1]
        size, kind = self._size(width), _OwnLayer if shared else _Layer
        self.cache = Cache(layers=[kind(layer, rows, size) for layer in cache.layers])
        self.visible_RC = F.pad(mask_BP.bool(), (0, size - width), value=True)[rows]
        self.lengths = [width] * len(rows)

    def read(self, decode: Decode, tokens_RT: Tensor, start_R: Tensor) -> Tensor:
        """Hidden states (R, T, D) after each token.

        Args:
            decode: the network.
            tokens_RT: ids, on the CPU.
            start_R: position of each row's first, on the CPU.
        """
        device, count = self.visible_RC.device, tokens_RT.shape[1]
        used = self._reserve(max(self.lengths) + count)
        tokens_RT, start_R, lengths_R = (
            x.to(device) for x in (tokens_RT, start_R, torch.tensor(self.lengths)))
        return self._run(decode, tokens_RT, start_R, lengths_R, used)

    def _run(self, decode: Decode, tokens_RT: Tensor, start_R: Tensor, lengths_R: Tensor,
             used: int) -> Tensor:
        """A pass that looks at ``used`` slots."""
        device = tokens_RT.device
        steps_T = torch.arange(tokens_RT.shape[1], device=device)
        slots_RT, places = lengths_R[:, None] + steps_T, {}
        for layer in self.cache.layers:
            layer.used, layer.slots_RT, layer.places = used, slots_RT, places
        return decode(tokens_RT, self._mask(slots_RT, used), start_R[:, None] + steps_T,
                      self.cache)

    def _mask(self, slots_RT: Tensor, used: int) -> Tensor:
        """Mask (R, 1, T, S) to add to scores: each token sees its row up to itself."""
        device = slots_RT.device
        mask = torch.arange(used, device=device) <= slots_RT[..., None]
        mask = (mask & self.visible_RC[:, None, :used])[:, None]
        dtype = self.cache.layers[0].keys.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(
            ~mask, torch.finfo(dtype).min)

    def _reserve(self, used: int) -> int:
        """Allocate so many slots at least; how many the next pass looks at."""
        if used > self.visible_RC.shape[1]:
            size = self._size(used)
            more = self.visible_RC.new_ones(len(self.lengths), size - self.visible_RC.shape[1])
            self.visible_RC = torch.cat([self.visible_RC, more], 1)
            for layer in self.cache.layers:
                layer.reserve(size)
        return used

    def _size(self, used: int) -> int:
        """Slots to allocate: whole 64s, as fast attention wants its mask."""
        return -(-(used + self.step) // 64) * 64

    def close(self, counts: Sequence[int]) -> None:
        """Keep so many of each row's tokens of the last pass."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts)]

    def keep(self, rows: list[int]) -> None:
        """Forget the other rows."""
        index = torch.tensor(rows, device=self.visible_RC.device)
        self.lengths = [self.lengths[row] for row in rows]
        self.visible_RC = self.visible_RC[index]
        for layer in self.cache.layers:
            layer.keep(index)


@dataclass
class _Recording:
    """A pass that can be run again: all that it reads and writes stays where it is."""
    inputs: Tensor
    replay: Callable[[], None]
    hidden: Tensor

    def play(self, inputs: Tensor) -> Tensor:
        self.inputs.copy_(inputs)
        self.replay()
        return self.hidden


def _recorded(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What runs it again as a CUDA graph, and where the result then stands."""
    graph, stream = torch.cuda.CUDAGraph(), _recording_stream()
    stream.wait_stream(torch.cuda.current_stream())
    # torch.cuda.graph would also empty the allocator's cache, which costs more than it gives here
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode='thread_local')  # other threads go on
        try:
            result = run()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay, result


@lru_cache(maxsize=None)
def _recording_stream():
    return torch.cuda.Stream()


class GraphMemory(RaggedMemory):
    """As :class:`RaggedMemory`, on a CUDA device: passes of one shape are recorded and replayed.

    So that there are few shapes, a pass looks at all slots that are allocated and reads a power
    of two tokens a row, and rows move together only when half of them have ended.

    Args:
        cache, mask_BP, rows: as for the base.
        ready: (R, T) of passes that the network has run; those that are new are not recorded.
    """
    ended_share = 1 / 2
    step = 256

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor,
                 ready: set[tuple[int, int]]) -> None:
        super().__init__(cache, mask_BP, rows)
        self._ready = ready
        self._recordings: dict[int, _Recording] = {}

    def read(self, decode: Decode, tokens_RT: Tensor, start_R: Tensor) -> Tensor:
        """As the base's; the next pass of as many tokens overwrites the result."""
        real = tokens_RT.shape[1]
        count = 1 << (real - 1).bit_length()
        slots = self._reserve(max(self.lengths) + count)
        # one transfer: tokens, position, slot
        given = torch.cat([F.pad(tokens_RT, (0, count - real)), start_R[:, None],
                           torch.tensor(self.lengths)[:, None]], 1)
        if count in self._recordings:
            return self._recordings[count].play(given)[:, :real]
        inputs = given.to(self.visible_RC.device)

        def run() -> Tensor:
            return self._run(decode, inputs[:, :count], inputs[:, count], inputs[:, count + 1],
                             slots)

        shape = len(self.lengths), count
        if shape not in self._ready:  # loads what cannot be loaded while recording
            self._ready.add(shape)
            return run()[:, :real]
        self._recordings[count] = _Recording(inputs, *_recorded(run))
        return self._recordings[count].play(given)[:, :real]

    def _reserve(self, used: int) -> int:
        before = self.visible_RC.shape[1]
        super()._reserve(used)
        if self.visible_RC.shape[1] != before:
            self._forget()
        return self.visible_RC.shape[1]

    def keep(self, rows: list[int]) -> None:
        self._forget()
        super().keep(rows)

    def _forget(self) -> None:
        """Buffers are about to move, and recordings know them by their place."""
        self._recordings.clear()


class StepMemory:
    """The network's own cache, for networks that a token cannot be taken back from (linear
    attention, sliding windows) or that take no other mask: one token of every row a pass."""
    reads_many = False
    ended_share = RaggedMemory.ended_share

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor) -> None:
        cache.reorder_cache(rows)  # the one such method that linear attention has as well
        self.cache = cache
        self.mask_RS = mask_BP[rows]

    def read(self, decode: Decode, tokens_R1: Tensor, start_R: Tensor) -> Tensor:
        """Hidden states (R, 1, D) after one more token of each row."""
        self.mask_RS = torch.cat([self.mask_RS, self.mask_RS.new_ones(len(self.mask_RS), 1)], 1)
        device = self.mask_RS.device
        return decode(tokens_R1.to(device), self.mask_RS, start_R[:, None].to(device), self.cache)

    def close(self, counts: Sequence[int]) -> None:
        """Nothing: the cache has grown by itself."""

    def keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.mask_RS.device)
        self.mask_RS = self.mask_RS[index]
        self.cache.reorder_cache(index)


def memory_of(cache: Cache, mask_BP: Tensor, rows: Tensor, attention: str,
              ready: set[tuple[int, int]] | None = None):
    """The memory that suits a network's cache and its implementation of attention.

    Args:
        ready: of :class:`GraphMemory`; ``None``: passes of the network cannot be recorded.
    """
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if plain and ready is not None and attention in ('sdpa', PACKED):
        return GraphMemory(cache, mask_BP, rows, ready)
    if plain and attention in ('sdpa', PACKED, 'eager'):
        shared = attention == PACKED and len(rows) > len(mask_BP) and mask_BP.device.type == 'cpu'
        return RaggedMemory(cache, mask_BP, rows, shared)
    return StepMemory(cache, mask_BP, rows)
