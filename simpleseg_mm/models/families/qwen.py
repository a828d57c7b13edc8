"""Qwen-VL: Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5 share image processor and placeholders."""
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from ...files import from_folder
from ...registry import FAMILIES
from .base import Family


@FAMILIES.register_module()
class QwenVL(Family):
    """The Qwen-VL family; arguments as in :class:`Family`."""
    model_types = ('qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_vl_moe', 'qwen3_5', 'qwen3_5_moe')
    parts = dict(vision=('model.visual.', ), projector=('model.visual.merger.', ),
                 llm=('model.language_model.', 'lm_head.'))
    image_token = '<|image_pad|>'
    image_markup = '<|vision_start|><|image_pad|><|vision_end|>'
    token_types = 'mm_token_type_ids'  # without them mRoPE silently falls back to one dimension
    acceleration = ('packed_rows', 'patch_layout', 'shared_pictures', 'fused_norms',
                    'fused_gates', 'fused_rotations')

    def build_image_processor(self, folder: str, min_pixels: int | None, max_pixels: int | None):
        cls = Qwen2VLImageProcessor if is_torchvision_available() else Qwen2VLImageProcessorPil
        processor = from_folder(cls.from_pretrained, folder)
        if min_pixels is not None:
            processor.size['shortest_edge'] = min_pixels
        if max_pixels is not None:
            processor.size['longest_edge'] = max_pixels
        # A network with random weights may borrow another's processor: patches are the network's.
        vision = self.config.vision_config
        processor.patch_size = vision.patch_size
        processor.temporal_patch_size = vision.temporal_patch_size
        processor.merge_size = vision.spatial_merge_size
        return processor

    def read_pictures(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        if isinstance(self.image_processor, Qwen2VLImageProcessorPil):
            # Pillow reads lines of pixels; with those in memory it copies them ten times as fast.
            images = [image.cpu().permute(1, 2, 0).contiguous().permute(2, 0, 1)
                      for image in images]
        inputs = self.image_processor(images=images, return_tensors='pt')
        merge = self.image_processor.merge_size ** 2
        return dict(inputs), (inputs['image_grid_thw'].prod(-1) // merge).tolist()

    def resized(self, image: Tensor) -> Tensor:
        inputs = self.image_processor(images=[image.cpu()], do_rescale=False, do_normalize=False,
                                      return_tensors='pt')
        (_, rows, columns), = inputs['image_grid_thw'].tolist()
        size, merge = self.image_processor.patch_size, self.image_processor.merge_size
        patches = inputs['pixel_values'].reshape(  # merged patches stand together
            rows // merge, columns // merge, merge, merge, 3, -1, size, size)[:, :, :, :, :, 0]
        return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(
            3, rows * size, columns * size).round().to(torch.uint8)

    @cached_property
    def banned_tokens(self) -> list[int]:
        names = ['<|vision_start|>', '<|vision_end|>', '<|vision_pad|>', '<|image_pad|>',
                 '<|video_pad|>']
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[name] for name in names if name in vocabulary]
