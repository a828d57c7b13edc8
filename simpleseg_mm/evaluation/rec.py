"""Referring expression comprehension (boxes) and pointing."""

import numpy as np

from ..polygon import box_iou, mask_to_box
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, percent, stated
from .protocols import BOX_PROTOCOLS, get_protocol


@METRICS.register_module()
class RECMetric(QueryMetric):
    """Box accuracy: ``Acc@0.5`` and ``box_IoU`` (mean), in percent, over present targets.

    Boxes are (x1, y1, x2, y2) in pixels, right and bottom exclusive. No box is an IoU of 0.

    Args:
        source: 'mask' scores the box of the predicted mask; 'box' the box in
            ``pred_instances['bboxes']``, for models that answer with a box.
        protocol: A name in `BOX_PROTOCOLS`: which true box, and > or >=. 'text4seg' unless told.
        threshold: Of the accuracy.
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'rec'

    def __init__(self, source: str = 'mask', protocol: str = 'text4seg', threshold: float = 0.5,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if source not in ('mask', 'box'):
            raise ValueError(f"source must be 'mask' or 'box', got {source!r}")
        self.source = source
        self.protocol = get_protocol(protocol, BOX_PROTOCOLS)
        self.threshold = threshold

    def measure(self, query: SampleQuery) -> float | None:
        if not query.truth.any():
            return None
        true_box = mask_to_box(query.truth)
        if self.protocol.truth == 'annotation':
            boxes = np.array([i['bbox'] for i in query.objects], dtype=np.float64)
            true_box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        if self.source == 'mask':
            box = mask_to_box(query.prediction)
        else:
            box = _first_box(query)
        return 0.0 if box is None else float(box_iou(box, true_box))

    def summarize(self, results: list[float | None]) -> dict:
        ious = [iou for iou in results if iou is not None]
        if self.protocol.strict:
            hits = [iou > self.threshold for iou in ious]
        else:
            hits = [iou >= self.threshold for iou in ious]
        return stated({f'Acc@{self.threshold:g}': percent(hits), 'box_IoU': percent(ious)})


@METRICS.register_module()
class PointMetric(QueryMetric):
    """Pointing (text -> point): ``hit``, the share in percent of present targets whose mask holds
    the point that the answer names. An answer that names no point is a miss."""

    default_prefix = 'point'

    def measure(self, query: SampleQuery) -> bool | None:
        truth = query.truth
        if not truth.any():
            return None
        point = query.answer.found('point').point
        if point is None:
            return False
        height, width = truth.shape
        # 0..1 from edge to edge, so pixel k holds [k, k + 1) / W; 1.0 is the last pixel's edge.
        x = min(int(point[0] * width), width - 1)
        y = min(int(point[1] * height), height - 1)
        return bool(truth[y, x])

    def summarize(self, results: list[bool | None]) -> dict:
        return stated(dict(hit=percent(results)))


def _first_box(query: SampleQuery) -> np.ndarray | None:
    """The first predicted box; None where there is none or it has no area."""
    boxes = query.meta.get('pred_instances', {}).get('bboxes')
    if boxes is None:
        raise ValueError(f"sample {query.name} has no pred_instances.bboxes; use source='mask' "
                         'for models that predict masks only')
    if len(boxes) == 0:
        return None
    box = np.asarray(boxes[0], dtype=np.float64)
    return box if box[2] > box[0] and box[3] > box[1] else None
