"""Qwen-VL: Qwen2-VL, Qwen2.5-VL and Qwen3-VL share their image processor and placeholders."""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from transformers import Qwen2VLImageProcessor, vision_utils
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from ...files import from_folder
from ...registry import MODELS
from .base import MLLMAdapter


@MODELS.register_module()
class QwenVL(MLLMAdapter):
    """Adapter for the Qwen-VL family; arguments as in :class:`MLLMAdapter`."""
    parts = dict(vision=('model.visual.', ), projector=('model.visual.merger.', ),
                 llm=('model.language_model.', 'lm_head.'))
    families = ('qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_vl_moe', 'qwen3_5', 'qwen3_5_moe')
    can_pack = True
    takes_token_types = True  # without them mRoPE silently falls back to one dimension

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # A network with random weights may borrow another's processor: patches are the network's.
        vision = self.hf.config.vision_config
        self.image_processor.patch_size = vision.patch_size
        self.image_processor.temporal_patch_size = vision.temporal_patch_size
        self.image_processor.merge_size = vision.spatial_merge_size

    def build_image_processor(self, folder: str, min_pixels: int | None,
                              max_pixels: int | None):
        cls = Qwen2VLImageProcessor if is_torchvision_available() else Qwen2VLImageProcessorPil
        processor = from_folder(cls.from_pretrained, folder)
        if min_pixels is not None:
            processor.size['shortest_edge'] = min_pixels
        if max_pixels is not None:
            processor.size['longest_edge'] = max_pixels
        return processor

    def encode_images(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        if isinstance(self.image_processor, Qwen2VLImageProcessorPil):
            # Pillow reads lines of pixels; with those in memory it copies them ten times as fast.
            images = [image.cpu().permute(1, 2, 0).contiguous().permute(2, 0, 1)
                      for image in images]
        visual = self.image_processor(images=images, return_tensors='pt')
        merge = self.image_processor.merge_size ** 2
        return dict(visual), (visual['image_grid_thw'].prod(-1) // merge).tolist()

    def token_positions(self, batch: dict[str, Tensor]) -> Tensor:
        grid = batch['image_grid_thw']
        if 'image_index' in batch:
            grid = grid[batch['image_index']]
        return self.hf.model.get_rope_index(
            batch['input_ids'], mm_token_type_ids=batch['mm_token_type_ids'], image_grid_thw=grid,
            attention_mask=batch['attention_mask'])[0]

    def pack(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """As the base's, with what the network would work out from ``image_grid_thw``: in its
        forward and backward pass it would ask the device for numbers, each time waiting for all
        that the device still has to do."""
        packed, places = super().pack(batch)
        if not self.packing:
            return packed, places
        pictures = (packed['input_ids'][0] == self.image_token_id).nonzero().squeeze(1)
        return dict(packed, picture_places=pictures,
                    **self._layout(packed['image_grid_thw'])), places

    def _layout(self, grid: Tensor) -> dict[str, Tensor | int]:
        """Positions and segments of the patches of pictures (t, h, w), as the vision tower takes
        them; transformers hands it what begins with ``image_``."""
        visual, config = self.hf.model.visual, self.hf.config.vision_config
        merge = config.spatial_merge_size
        borders = vision_utils.get_vision_cu_seqlens(grid)
        made = dict(image_position_ids=vision_utils.get_vision_position_ids(grid, merge),
                    image_cu_seqlens=borders, image_max_seqlen=int(borders.diff().max()))
        if hasattr(visual, 'num_grid_per_side'):  # Qwen3-VL adds positions between those learnt
            made.update(zip(('image_interp_indices', 'image_interp_weights'),
                            vision_utils.get_vision_interpolation_indices_and_weights(
                                grid, visual.num_grid_per_side, visual.interpolation_mode,
                                visual.interpolation_align_corners, merge)))
        if hasattr(config, 'window_size'):
            index, borders = vision_utils.get_vision_window_index(
                grid, merge, config.window_size, config.patch_size)
            made.update(image_window_index=index, image_cu_window_seqlens=borders,
                        image_max_window_seqlen=int(borders.diff().max()))
        return made

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As the base's. Where the layout of patches is given, nothing but Python reads the grids:
        they stay on the CPU."""
        stay = {'image_grid_thw'} & batch.keys() if 'image_position_ids' in batch else ()
        moved = super().to_device({key: value for key, value in batch.items() if key not in stay})
        return {**moved, **{key: batch[key] for key in stay}}

    def _run(self, batch: dict[str, Tensor], **options):
        model, places = self.hf.model, batch.get('picture_places')
        if places is None or hasattr(model.visual, 'deepstack_visual_indexes'):  # needs a mask
            return super()._run(batch, **options)
        given = _Places(places.to(self.device))
        model.get_placeholder_mask = lambda *args, **kwargs: (given, None)
        try:
            return super()._run(batch, **options)
        finally:
            del model.get_placeholder_mask

    @property
    def image_token(self) -> str:
        return '<|image_pad|>'

    @property
    def image_markup(self) -> str:
        return '<|vision_start|><|image_pad|><|vision_end|>'

    @cached_property
    def banned_tokens(self) -> list[int]:
        names = ['<|vision_start|>', '<|vision_end|>', '<|vision_pad|>', '<|image_pad|>',
                 '<|video_pad|>']
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[name] for name in names if name in vocabulary]


@dataclass(frozen=True)
class _Places:
    """(P,) where pictures' tokens are, in the place of a mask: a mask is counted, for its backward
    pass, by asking the device."""
    index: Tensor

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None) -> Tensor:
        if function is not Tensor.masked_scatter:
            return NotImplemented
        states, places, features = args
        return states.flatten(0, 1).index_copy(0, places.index, features).view_as(states)
