"""Training on rows without padding, packed end to end."""
from torch import Tensor, nn
from transformers import DynamicCache

from ..registry import MEASURES
from .measure import Measure
from .packing import pack_rows
from .ragged_cache import is_plain


@MEASURES.register_module(name='packed_rows')
class PackedRows(Measure):
    """Rows stand end to end in one row (1, N), and what rows of one picture begin with stands once
    (:func:`~.packing.pack_rows`). Every token keeps its position and attends to its own row alone,
    so states and gradients are those of the padded batch."""
    needs = ('attention', )
    of_family = True

    def obstacle(self, network: nn.Module) -> str | None:
        config = network.hf.config.get_text_config()
        layers = set(getattr(config, 'layer_types', None) or ())
        if other := sorted(layers - {'full_attention'}):
            return f'rows would read each other in layers of {", ".join(other)}'
        if not is_plain(DynamicCache(config=config)):
            return 'its tokens see a window of their row alone'
        return None

    def install(self, network: nn.Module) -> None:
        self.network = [network]
        network.layouts.insert(0, self.pack)

    def remove(self, network: nn.Module) -> None:
        if self.pack in network.layouts:
            network.layouts.remove(self.pack)

    def pack(self, batch: dict[str, Tensor], _) -> tuple[dict[str, Tensor], Tensor]:
        """A padded batch -> the packed one, and where in it each token's state stands (B, T)."""
        ids, batch = batch['input_ids'], dict(batch)
        positions = self.network[0].positions(batch)
        real = batch.pop('attention_mask').bool()
        packed = pack_rows(ids, real, batch.pop('image_index', range(len(ids))))
        for key, value in batch.items():
            if isinstance(value, Tensor) and value.shape == ids.shape:
                batch[key] = value.flatten()[packed.order][None]
        if positions.ndim == 3:
            positions = positions.flatten(1)[:, packed.order][:, None]
        else:
            positions = positions.flatten()[packed.order][None]
        return dict(batch, position_ids=positions, shared_prefixes=packed.shared,
                    unpack_index=packed.places, pack_index=packed.order,
                    text_cu_seqlens=packed.cu_seqlens), packed.places
