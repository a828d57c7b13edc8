"""Kimi-VL's pictures by PIL."""
import math

import numpy as np
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD,
                                      PILImageResampling, SizeDict)
from transformers.processing_utils import ImagesKwargs


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
