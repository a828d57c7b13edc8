"""Kimi-VL in transformers' own classes (``kimi_k25``): MoonViT, a projector, DeepSeek-V3's MoE.

The released folders hold remote code and another layout: convert them once with
``tools/model_converters/kimi_vl.py``.
"""
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from ...files import from_folder
from ...registry import FAMILIES
from .base import Family
from .kimi_pictures import Kimi_K25ImageProcessorPil


@FAMILIES.register_module()
class KimiVL(Family):
    """Kimi-VL; arguments as in :class:`Family`.

    ``min_pixels`` and ``max_pixels`` bound the area of the picture before it is padded to whole
    visual tokens of 28 x 28 pixels: it can then exceed ``max_pixels`` by a row and a column of
    tokens. Pictures are never enlarged unless ``min_pixels`` says so.
    """
    model_types = ('kimi_k25', )
    parts = dict(vision=('model.vision_tower.', ), projector=('model.mm_projector.', ),
                 llm=('model.language_model.', 'lm_head.'))
    image_token = '<|media_pad|>'
    image_markup = '<|media_start|>image<|media_content|><|media_pad|><|media_end|>'
    acceleration = ('shared_pictures', )
    saves_original_format = False  # transformers 5.23 could not read what it writes by it

    def build_image_processor(self, folder: str, min_pixels: int | None,
                              max_pixels: int | None) -> Kimi_K25ImageProcessorPil:
        processor = from_folder(Kimi_K25ImageProcessorPil.from_pretrained, folder)
        if min_pixels is not None:
            processor.min_patches = min_pixels // processor.patch_size ** 2
        if max_pixels is not None:
            processor.max_patches = max_pixels // processor.patch_size ** 2
        return processor

    def read_pictures(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        inputs = self.image_processor(images=[image.cpu() for image in images],
                                      return_tensors='pt')
        merge = self.image_processor.merge_size ** 2
        return dict(inputs), (inputs['image_grid_thw'].prod(-1) // merge).tolist()

    @cached_property
    def banned_tokens(self) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        return sorted(i for name, i in vocabulary.items() if name.startswith('<|media_'))
