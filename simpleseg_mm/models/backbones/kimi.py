"""Kimi-VL in transformers' own classes (``kimi_k25``): MoonViT, a projector, DeepSeek-V3's MoE.

The released folders hold remote code and another layout: convert them once with
``tools/model_converters/kimi_vl.py``.
"""
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD,
                                      PILImageResampling, SizeDict)
from transformers.processing_utils import ImagesKwargs

from ...files import from_folder
from ...registry import MODELS
from .base import MLLMAdapter

#: Kimi's split of a text before byte pairs are merged: numbers of at most three digits
KIMI_SPLIT = '|'.join([
    r'[\p{Han}]+',
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r'\p{N}{1,3}', r' ?[^\s\p{L}\p{N}]+[\r\n]*', r'\s*[\r\n]+', r'\s+(?!\S)', r'\s+'
])


class KimiImagesKwargs(ImagesKwargs, total=False):
    """Keys of ``preprocessor_config.json`` beside transformers' common ones."""
    patch_size: int
    merge_size: int
    max_patches: int
    min_patches: int


class Kimi_K25ImageProcessorPil(PilBackend):
    """Kimi's pictures by PIL: shrunk to a number of patches, padded with black, cut into patches.

    transformers has this for torchvision only; the keys and the sizes are those of its
    ``Kimi_K25ImageProcessor``, but for ``min_patches``, which is ours.

    Attributes:
        max_patches: a larger picture is shrunk to about so many patches.
        min_patches: a smaller picture is enlarged to about so many; 0, as released: never.
        size: ``max_height`` and ``max_width``, the most patches a side.
        patch_size: pixels a side of a patch.
        merge_size: patches a side of a visual token; right and bottom are padded to whole ones.
    """
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    resample = PILImageResampling.BICUBIC
    size = dict(max_height=512, max_width=512)
    max_patches = 16384
    min_patches = 0
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    patch_size = 14
    merge_size = 2
    valid_kwargs = KimiImagesKwargs
    model_input_names = ['pixel_values', 'image_grid_thw']

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels, before padding; the aspect ratio is kept."""
        patch, side = self.patch_size, self.size['max_height'] * self.patch_size
        count = max(1, height // patch) * max(1, width // patch)
        scale = min(max(1.0, math.sqrt(self.min_patches / count)),
                    math.sqrt(self.max_patches / count), side / height, side / width)
        return max(1, int(height * scale)), max(1, int(width * scale))

    def _preprocess(self, images: list[np.ndarray], return_tensors=None, **_) -> BatchFeature:
        parts, grids = [], []
        patch, whole = self.patch_size, self.patch_size * self.merge_size
        for image in images:
            height, width = self.fit(*image.shape[-2:])
            image = self.resize(image, SizeDict(height=height, width=width), self.resample)
            image = np.pad(image, ((0, 0), (0, -height % whole), (0, -width % whole)))
            image = self.normalize(self.rescale(image, self.rescale_factor), self.image_mean,
                                   self.image_std)
            rows, columns = image.shape[1] // patch, image.shape[2] // patch
            parts.append(image.reshape(3, rows, patch, columns, patch)
                         .transpose(1, 3, 0, 2, 4).reshape(-1, 3, patch, patch))
            grids.append([1, rows, columns])
        return BatchFeature(dict(pixel_values=np.concatenate(parts).astype(np.float32),
                                 image_grid_thw=np.array(grids)), return_tensors)


@MODELS.register_module()
class KimiVL(MLLMAdapter):
    """Adapter for Kimi-VL; arguments as in :class:`MLLMAdapter`.

    ``min_pixels`` and ``max_pixels`` bound the area of the picture before it is padded to whole
    visual tokens of 28 x 28 pixels: it can then exceed ``max_pixels`` by a row and a column of
    tokens. Pictures are never enlarged unless ``min_pixels`` says so.
    """
    parts = dict(vision=('model.vision_tower.', ), projector=('model.mm_projector.', ),
                 llm=('model.language_model.', 'lm_head.'))
    families = ('kimi_k25', )
    saves_original_format = False  # transformers 5.23 could not read what it writes by it
    image_token = '<|media_pad|>'
    image_markup = '<|media_start|>image<|media_content|><|media_pad|><|media_end|>'

    def build_image_processor(self, folder: str, min_pixels: int | None,
                              max_pixels: int | None) -> Kimi_K25ImageProcessorPil:
        processor = from_folder(Kimi_K25ImageProcessorPil.from_pretrained, folder)
        if min_pixels is not None:
            processor.min_patches = min_pixels // processor.patch_size ** 2
        if max_pixels is not None:
            processor.max_patches = max_pixels // processor.patch_size ** 2
        return processor

    def encode_images(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        visual = self.image_processor(images=[image.cpu() for image in images],
                                      return_tensors='pt')
        visual['pixel_values'] = visual['pixel_values'].to(self.hf.dtype)
        merge = self.image_processor.merge_size ** 2
        return dict(visual), (visual['image_grid_thw'].prod(-1) // merge).tolist()

    @cached_property
    def banned_tokens(self) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        return sorted(i for name, i in vocabulary.items() if name.startswith('<|media_'))
