"""Prompts that several answers continue stand once in the KV cache."""
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from ..registry import MEASURES
from .measure import CacheMeasure
from .prompts import SharedPrompts
from .ragged_cache import RaggedCache, RowsLayer, is_plain, written_deviation


@MEASURES.register_module(name='shared_prompts')
class SharedPromptRows(CacheMeasure):
    """On a CPU, several answers to a prompt read its keys and values together, by one product."""
    needs = ('attention', 'ragged_cache')

    def obstacle(self, network: nn.Module) -> str | None:
        if getattr(network.hf.config.get_text_config(), 'kv_lora_rank', None):
            return 'its KV cache holds keys in another form than its attention reads'
        return None

    def make(self, cache, mask_BP: Tensor, rows: Tensor):
        if is_plain(cache) and len(rows) > len(mask_BP) and mask_BP.device.type == 'cpu':
            return SharedPromptCache(cache, mask_BP, rows)
        return None

    def deviation(self, network: nn.Module) -> float:
        return written_deviation(network, self.make)


class OwnLayer(RowsLayer):
    """One layer's keys and values of what the rows have written, (R, heads, C - P, D); those of
    the prompts stand once beside them."""

    def _begun(self, layer: DynamicLayer, rows: Tensor, size: int) -> list[Tensor]:
        self.before = self.used
        self.prompts = SharedPrompts(layer.keys, layer.values, rows)
        return [x.new_zeros(len(rows), x.shape[1], size - self.before, x.shape[3])
                for x in (layer.keys, layer.values)]

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.prompts = self.prompts.keep(rows)

    def join(self, other: 'OwnLayer', size: int) -> None:
        super().join(other, size)
        self.prompts = self.prompts.joined(other.prompts)

    def pad(self, count: int) -> None:
        """So many slots more, or less, on the left of the prompts."""
        self.before += count
        self.prompts = self.prompts.padded(count)


class SharedPromptCache(RaggedCache):
    """As :class:`RaggedCache`; attention is told of the prompts of each layer."""
    layer = OwnLayer

    def _more(self) -> dict:
        return dict(prompts=[layer.prompts for layer in self.cache.layers])

    def join(self, other: 'SharedPromptCache') -> None:
        caches = (self, other)
        width = max(cache.width - cache.padding for cache in caches)
        for cache in caches:
            cache._pad(width - cache.width)
        super().join(other)

    @property
    def width(self) -> int:
        """Slots of the prompts."""
        return self.cache.layers[0].before

    @property
    def padding(self) -> int:
        """Of them, those on the left that are padding in every row."""
        return int(self.visible_RC.any(0).int().argmax())

    def _pad(self, count: int) -> None:
        """So many slots more, or less, on the left."""
        self.lengths = [length + count for length in self.lengths]
        self.visible_RC = F.pad(self.visible_RC, (count, 0))
        for layer in self.cache.layers:
            layer.pad(count)
