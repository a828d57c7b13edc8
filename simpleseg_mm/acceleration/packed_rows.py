"""Training on rows without padding, packed end to end."""
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..models.probing import first_layers
from ..registry import MEASURES
from .measure import Measure, difference, numbers
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
        if getattr(self, 'network', None):
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

    def deviation(self, network: nn.Module) -> float:
        """Of the language model's states of two rows of 3 and 5 tokens."""
        decoder = network.hf.get_decoder()
        embed = network.hf.get_input_embeddings()
        weight = embed.weight
        states = numbers(2, 5, embed(torch.zeros(1, dtype=torch.long, device=weight.device))
                         .shape[-1], like=weight)
        real = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
        packed = pack_rows(torch.arange(10).view(2, 5), real.bool(), range(2))
        positions = (real.cumsum(1) - 1).clamp(min=0)
        device = weight.device
        with first_layers(network):
            plain = decoder(inputs_embeds=states, attention_mask=real.to(device),
                            position_ids=self._axes(network, positions.to(device)),
                            use_cache=False).last_hidden_state
            order = packed.order.to(device)
            found = decoder(
                inputs_embeds=states.flatten(0, 1)[order][None],
                position_ids=self._axes(network, positions.flatten()[packed.order][None]
                                        .to(device)),
                use_cache=False, shared_prefixes=packed.shared, pack_index=order,
                unpack_index=packed.places.to(device),
                text_cu_seqlens=packed.cu_seqlens.to(device)).last_hidden_state
        return difference(found[0], plain.flatten(0, 1)[order])

    @staticmethod
    def _axes(network: nn.Module, positions: Tensor) -> Tensor:
        if hasattr(network.hf.model, 'get_rope_index'):  # time, height, width
            return positions.expand(3, *positions.shape)
        return positions
