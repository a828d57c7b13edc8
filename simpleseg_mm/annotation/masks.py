"""Masks: clean them, write them as polygons."""
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from simpleseg_mm.polygon import (PolygonCodec, box_iou, mask_iou, mask_to_box, mask_to_rle,
                                  rle_to_crop, rle_to_mask)
from simpleseg_mm.registry import STAGES

from .boxes import suppress
from .sample import Sample
from .stage import Stage


def remove_small(mask: np.ndarray, min_part: float, min_hole: float) -> np.ndarray:
    """A mask ``(H, W) bool`` without its small parts and holes.

    Args:
        min_part: smallest part that stays, as a share of the largest part's area.
        min_hole: smallest hole that stays, likewise.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=8)
    largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_part * largest
    keep[0] = False
    if not keep[1:].all():
        padded = keep[labels].view(np.uint8)
    # The background is 4-connected where the mask is 8-connected.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - padded, connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] < min_hole * largest
    fill[[0, labels[0, 0]]] = False
    if fill.any():
        padded |= fill[labels]
    return padded[1:-1, 1:-1] > 0


@STAGES.register_module()
class CleanMasks(Stage):
    """Removes tiny parts and pin-holes, and drops objects whose mask is not to be trusted.

    The object's box becomes the tight box of its mask.

    Args:
        min_part, min_hole: shares of the largest part's area, see :func:`remove_small`.
        min_area: of the object, pixels.
        min_score: of the segmenter (its own estimate of IoU), where it gives one.
        min_box_iou: of the mask's box with the detector's.
        max_sides: of the image that an object may touch; 0 drops all that the border cuts, 3
            those that touch all four (backgrounds).
        max_iou: overlap of two masks from which the lower score gives way.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, min_part: float = 0.01, min_hole: float = 0.005, min_area: int = 100,
                 min_score: float = 0.7, min_box_iou: float = 0.5, max_sides: int = 3,
                 max_iou: float = 0.8, **kwargs) -> None:
        super().__init__(**kwargs)
        self.min_part, self.min_hole, self.min_area = min_part, min_hole, min_area
        self.min_score, self.min_box_iou = min_score, min_box_iou
        self.max_sides, self.max_iou = max_sides, max_iou

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            sample.keep(self.name, [self._clean(o) for o in sample.objects])
            sample.keep(self.name, self._repeated(sample.objects))
            if not sample.objects:
                sample.drop(self.name, 'no object')

    def _clean(self, found: dict) -> str | None:
        score = found.get('mask_score')
        if score is not None and not score >= self.min_score:  # NaN too
            return 'mask score too low'
        if not found.get('mask'):
            return 'no mask'
        before, (x, y) = rle_to_crop(found['mask'])
        if not before.size:
            return 'mask has no pixel'
        crop = remove_small(before, self.min_part, self.min_hole)
        area = int(np.count_nonzero(crop))
        if area < self.min_area:
            return 'mask too small'
        box = mask_to_box(crop) + [x, y, x, y]
        if box_iou(box, found['box']) < self.min_box_iou:
            return 'mask does not fit its box'
        h, w = found['mask']['size']
        if (box == [0, 0, w, h]).sum() > self.max_sides:
            return 'touches the border'
        if not np.array_equal(crop, before):
            mask = np.zeros((h, w), bool)
            mask[y:y + crop.shape[0], x:x + crop.shape[1]] = crop
            found['mask'] = mask_to_rle(mask)
        found['box'], found['area'] = box.tolist(), area
        return None

    def _repeated(self, objects: list[dict]) -> list[str | None]:
        if len(objects) < 2:
            return [None] * len(objects)
        masks = [o['mask'] for o in objects]
        overlap = np.asarray(coco_mask.iou(masks, masks, [0] * len(masks))) >= self.max_iou
        best_first = sorted(range(len(objects)), key=lambda k: -objects[k]['score'])
        return suppress(overlap, best_first, 'same mask as a better object')


@STAGES.register_module()
class WritePolygons(Stage):
    """Adds each object's outline as this project's polygon text, and how well it fits.

    Args:
        codec: arguments of :class:`simpleseg_mm.polygon.PolygonCodec`.
        min_iou: of the decoded text with the mask; objects below are dropped.
            None: not measured.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, codec: Mapping | None = None, min_iou: float | None = 0.5, **kwargs
                 ) -> None:
        super().__init__(**kwargs)
        self.codec = PolygonCodec(**dict(codec or {}))
        self.min_iou = min_iou

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            sample.keep(self.name, [self._write(found) for found in sample.objects])
            if not sample.objects:
                sample.drop(self.name, 'no object')

    def _write(self, found: dict) -> str | None:
        found['polygon'] = self.codec.encode_rle(found['mask'])
        if self.min_iou is None:
            return None
        mask = rle_to_mask(found['mask'])
        fit = mask_iou(self.codec.decode(found['polygon'], mask.shape).mask, mask)
        found['polygon_iou'] = round(fit, 4)
        return 'polygon does not fit' if fit < self.min_iou else None
