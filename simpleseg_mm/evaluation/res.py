"""Referring expression segmentation: cIoU, gIoU, P@X, boundary metrics, size bins."""
from collections.abc import Sequence

import cv2
import numpy as np

from ..polygon.metrics import boundary_f, boundary_iou
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, percent, stated
from .protocols import REGION_PROTOCOLS, get_protocol

SIZE_BINS = dict(small=(1, 32 ** 2), medium=(32 ** 2, 96 ** 2), large=(96 ** 2, float('inf')))
"""COCO's: least (inclusive) and largest (exclusive) area of the true mask in pixels."""


@METRICS.register_module()
class RESMetric(QueryMetric):
    """Overlap of the predicted and the true mask of each query.

    Figures, all in percent as in the papers and `mmdet.RefSegMetric`:

    - ``cIoU``: sum of intersections over sum of unions, in integers;
    - ``gIoU`` (mIoU): mean IoU a query; ``gIoU_small``, ``gIoU_medium``, ``gIoU_large``: the
      same by COCO's bins of true area at the original size;
    - ``P@0.5`` ... ``P@0.9``: share of queries with IoU of at least the threshold (as LAVT);
    - ``bIoU``, ``bF``: mean boundary IoU and boundary F at the original size over queries whose
      target is present (our choice), see `simpleseg_mm.polygon.metrics`;
    - ``N-acc``, ``T-acc`` (gRefCOCO), where the set has absent targets: share of absent targets
      answered with nothing, and of present ones answered with something.

    A figure for which the ground truth has no sample is left out. Pixels that a set says to
    ignore (ReasonSeg) count for neither mask.

    Args:
        protocol: A name in `REGION_PROTOCOLS`: mask size and the rules for empty masks and
            unreadable text. 'text4seg' unless told.
        thresholds: Of P@X.
        boundary: Whether to compute ``bIoU`` and ``bF`` (about 3 ms a 640x480 mask).
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'res'

    def __init__(self, protocol: str = 'text4seg',
                 thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9), boundary: bool = True,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.protocol = get_protocol(protocol, REGION_PROTOCOLS)
        self.thresholds = tuple(thresholds)
        self.boundary = boundary

    def measure(self, query: SampleQuery) -> dict:
        truth, prediction = query.truth, query.prediction
        if query.scored is not None:
            truth, prediction = truth & query.scored, prediction & query.scored
        area = int(np.count_nonzero(truth))
        present = area > 0
        nothing = not prediction.any() and (
            self.protocol.unreadable_is_empty or not query.has_text
            or query.answer.says_nothing)
        intersection, union = self._overlap(prediction, truth)
        if union:
            iou = intersection / union
        elif present:
            iou = self.protocol.empty_iou
        else:
            iou = self.protocol.absent_iou * nothing
        result = dict(intersection=intersection, union=union, iou=iou, area=area, nothing=nothing)
        if self.boundary and present:
            result.update(bIoU=boundary_iou(prediction, truth), bF=boundary_f(prediction, truth))
        return result

    def summarize(self, results: list[dict]) -> dict:
        union = sum(result['union'] for result in results)
        intersection = sum(result['intersection'] for result in results)
        figures = dict(cIoU=100 * intersection / union if union else None,
                       gIoU=percent(result['iou'] for result in results))
        counted = [result['iou'] for result in results
                   if result['area'] or self.protocol.precision_over_absent]
        for threshold in self.thresholds:
            figures[f'P@{threshold:g}'] = percent(iou >= threshold for iou in counted)
        for name in ('bIoU', 'bF'):
            figures[name] = percent(result.get(name) for result in results)
        for name, (low, high) in SIZE_BINS.items():
            figures[f'gIoU_{name}'] = percent(
                result['iou'] for result in results if low <= result['area'] < high)
        if any(result['area'] == 0 for result in results):
            figures['N-acc'] = percent(r['nothing'] for r in results if not r['area'])
            figures['T-acc'] = percent(not r['nothing'] for r in results if r['area'])
        return stated(figures)

    def _overlap(self, prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
        if self.protocol.square is not None:
            prediction, truth = (_to_square(mask, self.protocol.square)
                                 for mask in (prediction, truth))
        return (int(np.count_nonzero(prediction & truth)),
                int(np.count_nonzero(prediction | truth)))


def _to_square(mask: np.ndarray, side: int) -> np.ndarray:
    """Nearest neighbour as Pillow samples it (at the centre of the new pixel)."""
    resized = cv2.resize(mask.view(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.view(bool)
