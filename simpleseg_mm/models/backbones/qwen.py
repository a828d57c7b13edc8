"""Qwen-VL: Qwen2-VL, Qwen2.5-VL and Qwen3-VL share their image processor and placeholders."""
from typing import Dict, List, Optional, Sequence, Tuple

from torch import Tensor
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from ...registry import MODELS
from .base import MLLMAdapter, _load


@MODELS.register_module()
class QwenVL(MLLMAdapter):
    """Adapter for the Qwen-VL family; arguments as in :class:`MLLMAdapter`."""
    parts = dict(vision=('model.visual.', ), projector=('model.visual.merger.', ),
                 llm=('model.language_model.', 'lm_head.'))
    can_pack = True
    takes_token_types = True  # without them mRoPE silently falls back to one dimension

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # A network with random weights may borrow another's processor: patches are the network's.
        vision = self.hf.config.vision_config
        self.image_processor.patch_size = vision.patch_size
        self.image_processor.temporal_patch_size = vision.temporal_patch_size
        self.image_processor.merge_size = vision.spatial_merge_size

    def build_image_processor(self, folder: str, min_pixels: Optional[int],
                              max_pixels: Optional[int]):
        cls = Qwen2VLImageProcessor if is_torchvision_available() else Qwen2VLImageProcessorPil
        processor = _load(cls.from_pretrained, folder)
        if min_pixels is not None:
            processor.size['shortest_edge'] = min_pixels
        if max_pixels is not None:
            processor.size['longest_edge'] = max_pixels
        return processor

    def encode_images(self, images: Sequence[Tensor]) -> Tuple[Dict[str, Tensor], List[int]]:
        if isinstance(self.image_processor, Qwen2VLImageProcessorPil):
            # Pillow reads lines of pixels; with those in memory it copies them ten times as fast.
            images = [image.cpu().permute(1, 2, 0).contiguous().permute(2, 0, 1)
                      for image in images]
        visual = self.image_processor(images=images, return_tensors='pt')
        merge = self.image_processor.merge_size ** 2
        return dict(visual), (visual['image_grid_thw'].prod(-1) // merge).tolist()

    def token_positions(self, batch: Dict[str, Tensor]) -> Tensor:
        grid = batch['image_grid_thw']
        if 'image_index' in batch:
            grid = grid[batch['image_index']]
        return self.hf.model.get_rope_index(
            batch['input_ids'], mm_token_type_ids=batch['mm_token_type_ids'], image_grid_thw=grid,
            attention_mask=batch['attention_mask'])[0]

    @property
    def image_token(self) -> str:
        return '<|image_pad|>'

    @property
    def image_markup(self) -> str:
        return '<|vision_start|><|image_pad|><|vision_end|>'

    @property
    def banned_tokens(self) -> List[int]:
        names = ['<|vision_start|>', '<|vision_end|>', '<|vision_pad|>', '<|image_pad|>',
                 '<|video_pad|>']
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[name] for name in names if name in vocabulary]
