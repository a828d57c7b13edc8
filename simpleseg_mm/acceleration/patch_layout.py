"""What a vision tower works out from the sizes of pictures, worked out while the batch is made."""
from torch import Tensor, nn
from transformers import vision_utils

from ..registry import MEASURES
from .measure import Measure


@MEASURES.register_module(name='patch_layout')
class PatchLayout(Measure):
    """Positions and segments of patches, and the places of pictures' tokens, stand in the batch:
    in its passes the network would ask the device for numbers, each time waiting for all that the
    device still has to do. transformers hands the vision tower what begins with ``image_``."""
    needs = ('packed_rows', 'shared_pictures')
    of_family = True

    def obstacle(self, network: nn.Module) -> str | None:
        if getattr(network.hf.model, 'visual', None) is None:
            return 'it has no vision tower of the kind'
        return None

    def install(self, network: nn.Module) -> None:
        self.network = [network]
        network.layouts.append(self.lay_out)

    def remove(self, network: nn.Module) -> None:
        if self.lay_out in network.layouts:
            network.layouts.remove(self.lay_out)

    def lay_out(self, batch: dict[str, Tensor], places: Tensor
                ) -> tuple[dict[str, Tensor], Tensor]:
        """The packed batch with the layout of its pictures."""
        if 'image_grid_thw' not in batch:
            return batch, places
        token = self.network[0].family.image_token_id
        pictures = (batch['input_ids'][0] == token).nonzero().squeeze(1)
        # nothing but Python reads the grids from here
        return dict(batch, picture_places=pictures, stays_on_cpu=('image_grid_thw', ),
                    **self.of(batch['image_grid_thw'])), places

    def of(self, grid: Tensor) -> dict[str, Tensor | int]:
        """Of pictures of (t, h, w) patches."""
        network, = self.network
        visual, config = network.hf.model.visual, network.hf.config.vision_config
        merge = config.spatial_merge_size
        cu_seqlens = vision_utils.get_vision_cu_seqlens(grid)
        made = dict(image_position_ids=vision_utils.get_vision_position_ids(grid, merge),
                    image_cu_seqlens=cu_seqlens, image_max_seqlen=int(cu_seqlens.diff().max()))
        if hasattr(visual, 'num_grid_per_side'):  # Qwen3-VL adds positions between those learnt
            made.update(zip(('image_interp_indices', 'image_interp_weights'),
                            vision_utils.get_vision_interpolation_indices_and_weights(
                                grid, visual.num_grid_per_side, visual.interpolation_mode,
                                visual.interpolation_align_corners, merge)))
        if hasattr(config, 'window_size'):
            index, cu_seqlens = vision_utils.get_vision_window_index(
                grid, merge, config.window_size, config.patch_size)
            made.update(image_window_index=index, image_cu_window_seqlens=cu_seqlens,
                        image_max_window_seqlen=int(cu_seqlens.diff().max()))
        return made
