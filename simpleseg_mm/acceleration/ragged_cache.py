"""Keys and values of answers that grow at different speeds, written in place.

Growing copies nothing but once in a while, and a pass may read several tokens of a row: those that
grammar makes likely are checked together (drafts).

Shapes: B prompts, R rows (answers), P slots of the padded prompt, T tokens read in one pass, S
slots in use, C slots allocated.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from ..models.probing import first_layers
from ..models.step_cache import Decode
from ..registry import MEASURES
from .measure import CacheMeasure, difference


def is_plain(cache: Cache) -> bool:
    """Whether a cache keeps every key and value: no sliding windows, no linear attention."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


@MEASURES.register_module(name='ragged_cache')
class RaggedRows(CacheMeasure):
    """Answers are written with a :class:`RaggedCache`, which drafts need."""

    def obstacle(self, network: nn.Module) -> str | None:
        if network.attention not in ('sdpa', 'eager'):
            return f'attn_implementation={network.attention!r} takes no mask of its own form'
        if not is_plain(DynamicCache(config=network.hf.config.get_text_config())):
            return 'it has layers from which a token cannot be taken back'
        return None

    def make(self, cache: Cache, mask_BP: Tensor, rows: Tensor):
        return RaggedCache(cache, mask_BP, rows) if is_plain(cache) else None

    def deviation(self, network: nn.Module) -> float:
        """Of three tokens after a prompt of two, of two rows."""
        return written_deviation(network, self.make)


def written_deviation(network: nn.Module, make) -> float:
    """Of states of tokens read by a cache that ``make`` gives, in a pass of two tokens and, when
    others have joined, in one of one, beside one pass over everything."""
    embed, decode = network.hf.get_input_embeddings(), network.writer.decode
    device = embed.weight.device
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 5, 3, 4]], device=device) % embed.num_embeddings
    positions = torch.arange(5, device=device).expand(2, 5)

    with first_layers(network):
        plain = decode(ids, torch.ones_like(ids), positions, None)
        begun = DynamicCache(config=network.hf.config.get_text_config())
        begun.layers = begun.layers[:1]
        mask = ids.new_ones(1, 2)
        decode(ids[:1, :2], mask, positions[:1, :2], begun)
        cache, more = (make(begun, mask, torch.zeros(2, dtype=torch.long, device=device))
                       for _ in range(2))
        if cache is None:
            return 0.0
        two = cache.read(decode, ids[:, 2:4].cpu(), torch.full((2, ), 2)).clone()
        cache.close([2, 2])
        cache.join(more)
        one = cache.read(decode, torch.cat([ids[:, 4:], ids[:, 2:3]]).cpu(),
                         torch.tensor([4, 4, 2, 2]))
    return difference(torch.cat([two, *one.split(2)], 1),
                      torch.cat([plain[:, 2:], plain[:, 2:3]], 1))


class RowsLayer(CacheLayerMixin):
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
        return [_sized(x, size).index_select(0, rows) for x in (layer.keys, layer.values)]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the prompt's keys and values are there."""

    def reserve(self, size: int) -> None:
        self.keys, self.values = (_sized(x, size - self.before)
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

    def join(self, other: 'RowsLayer', size: int) -> None:
        """Rows of another layer after these, with so many slots."""
        self.keys, self.values = (
            torch.cat([_sized(x, size - self.before) for x in pair])
            for pair in ((self.keys, other.keys), (self.values, other.values)))

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int):
        return self.used, 0

    def get_max_length(self) -> int:
        return -1


def _sized(buffer: Tensor, size: int) -> Tensor:
    """(R, heads, size, D): slots at the end go or are added."""
    if size <= buffer.shape[2]:
        return buffer[:, :, :size]
    more = buffer.new_zeros(*buffer.shape[:2], size - buffer.shape[2], buffer.shape[3])
    return torch.cat([buffer, more], 2)


class RaggedCache:
    """What the rows have read, each at its own length: a pass may read several tokens of each row,
    and those that are not kept are overwritten by the next.

    Args:
        cache: of B left-padded prompts.
        mask_BP: their attention mask.
        rows: (R,) the prompt of each row.
    """
    #: of the network's cache
    layer = RowsLayer
    #: whether a pass may read more than one token of a row
    reads_many = True
    #: whether the next prompts' rows can join while others are written
    joins = True
    #: of the rows, the share that may have ended before the others are moved together
    ended_share = 1 / 8
    #: slots that are allocated at a time
    step = 64

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor) -> None:
        width = mask_BP.shape[1]
        size = self._size(width)
        self.cache = Cache(layers=[self.layer(layer, rows, size) for layer in cache.layers])
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
                      self.cache, **self._more())

    def _more(self) -> dict:
        """What goes to the network's attention beside the mask."""
        return {}

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

    def join(self, other: 'RaggedCache') -> None:
        """Rows of another such cache after these; slots that no row has come to go."""
        self.lengths = self.lengths + other.lengths
        size = self._size(max(self.lengths))
        self.visible_RC = torch.cat([
            F.pad(visible_RC, (0, size - visible_RC.shape[1]), value=True)
            for visible_RC in (self.visible_RC, other.visible_RC)])
        for layer, more in zip(self.cache.layers, other.cache.layers):
            layer.join(more, size)
