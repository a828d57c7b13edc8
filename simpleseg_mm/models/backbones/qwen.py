"""Qwen-VL: Qwen2-VL, Qwen2.5-VL and Qwen3-VL share their image processor and placeholders."""
from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import torch
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
        visual = self.image_processor(images=list(images), return_tensors='pt')
        merge = self.image_processor.merge_size ** 2
        return dict(visual), (visual['image_grid_thw'].prod(-1) // merge).tolist()

    @contextmanager
    def share_images(self, inputs: Dict[str, Tensor], index: Tensor) -> Iterator[None]:
        model, grid = self.hf.model, inputs['image_grid_thw']
        inputs['image_grid_thw'] = grid[index]  # positions are by row
        original = model.get_image_features

        def once(pixel_values, image_grid_thw=None, **options):
            output = original(pixel_values, grid, **options)
            sizes = [len(part) for part in output.pooler_output]
            output.pooler_output = tuple(output.pooler_output[i] for i in index.tolist())
            if getattr(output, 'deepstack_features', None) is not None:  # Qwen3-VL
                output.deepstack_features = [
                    torch.cat([layer.split(sizes)[i] for i in index.tolist()])
                    for layer in output.deepstack_features]
            return output

        model.get_image_features = once
        try:
            yield
        finally:
            del model.get_image_features

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
