"""Boxes: what of a detector's answer can be used, and which of overlapping ones stays."""
from collections.abc import Iterable, Sequence

import numpy as np

from simpleseg_mm.registry import STAGES

from .sample import Sample
from .stage import Stage


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union ``(N, M)`` of boxes ``(N, 4)`` and ``(M, 4)``, x1, y1, x2, y2."""
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    size = (np.minimum(a[:, None, 2:], b[None, :, 2:])
            - np.maximum(a[:, None, :2], b[None, :, :2])).clip(0)
    inter = size.prod(-1)
    area_a, area_b = (np.prod(c[:, 2:] - c[:, :2], axis=1) for c in (a, b))
    union = area_a[:, None] + area_b[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def suppress(overlap: np.ndarray, order: Iterable[int], reason: str,
             most: int | None = None) -> list[str | None]:
    """Greedy suppression: whatever overlaps a kept one of before gives way.

    Args:
        overlap: ``(N, N) bool``, which ones are too much alike.
        order: their numbers, the best first.
        reason: of what gives way.
        most: how many are kept; further ones are 'more than max_objects'.

    Returns:
        Of each of N the reason to drop it, or None.
    """
    reasons: list[str | None] = [None] * len(overlap)
    kept: list[int] = []
    for number in order:
        if overlap[number, kept].any():
            reasons[number] = reason
        elif len(kept) == most:
            reasons[number] = 'more than max_objects'
        else:
            kept.append(number)
    return reasons


@STAGES.register_module()
class SelectBoxes(Stage):
    """Drops boxes that cannot be used, then all but the best of those that overlap (NMS).

    Boxes are cut at the image's border first. Suppression looks across categories: one thing is
    often found under several names.

    Args:
        min_score: of the detector.
        min_side: of a box, pixels.
        max_share: of the image that a box may cover.
        iou: overlap from which the lower score gives way.
        max_objects: best scores that stay in an image.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, min_score: float = 0.3, min_side: float = 8, max_share: float = 0.95,
                 iou: float = 0.7, max_objects: int = 50, **kwargs) -> None:
        super().__init__(**kwargs)
        self.min_score, self.min_side, self.max_share = min_score, min_side, max_share
        self.iou, self.max_objects = iou, max_objects

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            sample.keep(self.name, [self._fault(o, sample) for o in sample.objects])
            sample.objects.sort(key=lambda o: -o['score'])  # stable: ties in the detector's order
            sample.keep(self.name, self._suppress(sample.objects))
            if not sample.objects:
                sample.drop(self.name, 'no box')

    def _fault(self, found: dict, sample: Sample) -> str | None:
        box = np.asarray(found['box'], np.float64)
        if box.shape != (4,) or not np.isfinite([*box, found['score']]).all():
            return 'box or score not finite'
        width, height = sample.width, sample.height
        box = np.clip(box, 0, [width, height, width, height])
        found['box'] = box.tolist()
        found['score'] = float(found['score'])
        side_x, side_y = box[2:] - box[:2]
        if side_x <= 0 or side_y <= 0:
            return 'box outside the image or empty'
        if found['score'] < self.min_score:
            return 'score too low'
        if min(side_x, side_y) < self.min_side:
            return 'box too small'
        if side_x * side_y > self.max_share * width * height:
            return 'box covers the image'
        return None

    def _suppress(self, objects: list[dict]) -> list[str | None]:
        boxes = np.array([o['box'] for o in objects]).reshape(-1, 4)
        return suppress(pairwise_iou(boxes, boxes) >= self.iou, range(len(objects)),
                        'overlaps a better box', self.max_objects)
