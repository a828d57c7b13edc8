"""Outlines of one's own objects, as they are drawn, and what they cover on the picture."""
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from simpleseg_mm.files.labelme import Crop
from simpleseg_mm.polygon import (mask_to_rle, rle_to_crop, segmentation_to_mask,
                                  segmentation_to_rle)


@dataclass(frozen=True)
class Relative:
    """A polygon that does not say its picture's size, as YOLO and Label Studio write them.

    Attributes:
        points: ``(N, 2) float64``, x then y, shares of the picture's width and height.
    """
    points: np.ndarray

    def place(self, size: tuple[int, int]) -> list[float]:
        """The flat polygon on a picture of ``size`` (h, w)."""
        return (self.points * size[::-1]).ravel().tolist()


def placed(parts: list, size: tuple[int, int]) -> list:
    """Parts on a picture of ``size`` (h, w): what is relative to it becomes a flat polygon."""
    return [part.place(size) if isinstance(part, Relative) else part for part in parts]


def settle(parts: list, cuts: list, size: tuple[int, int]) -> tuple:
    """What an object covers of a picture of ``size`` (h, w).

    Args:
        parts: flat polygons, RLE dicts or :class:`Crop`; their union is the object.
        cuts: the same, taken off it.

    Returns:
        COCO's segmentation (the polygons themselves, where they say it), the box x1, y1, x2, y2,
        and the area in pixels; 0 where nothing is inside the picture.

    Raises:
        ValueError: a part is broken; the message says how.
    """
    if not cuts and all(isinstance(part, list) for part in parts):
        rle = segmentation_to_rle(parts, *size)
        x, y, width, height = coco_mask.toBbox(rle).tolist()
        return parts, [x, y, x + width, y + height], int(coco_mask.area(rle))
    if not cuts and len(parts) == 1 and isinstance(parts[0], dict):
        rle = _compressed(segmentation_to_rle(parts[0], *size))
    else:
        mask = np.zeros(size, bool)
        for part in parts:
            mask |= _mask(part, size)
        for part in cuts:
            mask &= ~_mask(part, size)
        rle = mask_to_rle(mask)
    crop, (x, y) = rle_to_crop(rle)
    box = [float(x), float(y), float(x + crop.shape[1]), float(y + crop.shape[0])]
    return rle, box, int(np.count_nonzero(crop))


def _mask(part, size: tuple[int, int]) -> np.ndarray:
    if isinstance(part, Crop):
        return part.place(size)
    return segmentation_to_mask(part if isinstance(part, dict) else [part], *size)


def _compressed(rle: dict) -> dict:
    """An RLE of run lengths in COCO's compressed form, which JSON can hold."""
    runs = dict(rle, counts=np.asarray(rle['counts']).tolist())
    return dict(rle, counts=coco_mask.frPyObjects(runs, *rle['size'])['counts'].decode())
