"""Objects one by one: are all found, each once, and how well does each outline fit?"""
import numpy as np
from pycocotools import mask as coco_mask

from ..matching import best_pairs, matched_iou
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, mean, percent, stated

_LEAST = 0.5  # IoU above which a predicted object is a true one, as in panoptic quality


@METRICS.register_module()
class InstanceMetric(QueryMetric):
    """Figures of answers that list objects (text2masks), in percent unless said.

    - ``count_exact``: queries whose answer has as many objects as there are, absent targets among
      them; ``count_exact_several``: of those with two objects or more; ``count_error``: mean
      difference of the two counts (a number of objects);
    - ``PQ``, ``SQ``, ``RQ``: panoptic quality (Kirillov et al., CVPR 2019) over the objects of all
      queries as one class. A pair is a match above IoU 0.5, SQ is the mean IoU of matches, RQ
      their F1, PQ the product. Outlines may overlap here, which panoptic segments do not, so pairs
      are one to one and of the largest sum of IoU; where nothing overlaps these are the pairs of
      panopticapi;
    - ``mIoU``: mean over queries of the matched IoU: the sum of the best one-to-one pairs over the
      larger count, for an absent target 1 if answered with nothing, else 0. It is what the reward
      ``instance_iou`` gives;
    - ``N-acc``, ``T-acc``: absent targets answered with nothing (``[]``), present ones with
      something.

    Crowds (``ignore_flag=1``): a predicted object without a match of which more than half lies in
    the crowds of its query is passed over, as panopticapi does. How many objects such a query has
    is not known, so it has no part in the counts.
    A figure for which there is no sample is left out. `mmdet.CocoMetric` gives AP beside these.
    """

    default_prefix = 'inst'

    def measure(self, query: SampleQuery) -> dict:
        predicted, true = _encoded(query.predictions), _encoded(query.truths)
        iou = _iou(predicted, true, crowd=False)
        pairs = best_pairs(iou, _LEAST)
        scored = list(range(len(predicted)))
        if query.scored is not None:  # there are crowds
            inside = _iou(predicted, _encoded(~query.scored[None]), crowd=True)
            found = {m for m, _ in pairs}
            scored = [m for m in scored if m in found or inside[m] <= 0.5]
        nothing = not predicted and (not query.has_text or (
            query.answer.says_nothing and query.answer.parsed.valid))
        return dict(
            true=len(true), predicted=len(scored), nothing=nothing,
            known=query.scored is None,
            matched=[float(iou[pair]) for pair in pairs],
            mIoU=matched_iou(iou[scored]) if true else float(nothing))

    def summarize(self, results: list[dict]) -> dict:
        known = [result for result in results if result['known']]
        absent = [result for result in results if not result['true']]
        objects = sum(result['predicted'] + result['true'] for result in results)
        matched = [iou for result in results for iou in result['matched']]
        figures = dict(
            count_exact=percent(map(_exact, known)),
            count_exact_several=percent(_exact(r) for r in known if r['true'] > 1),
            count_error=mean(abs(r['predicted'] - r['true']) for r in known),
            SQ=percent(matched),
            mIoU=percent(result['mIoU'] for result in results))
        if objects:
            figures['RQ'] = 100 * 2 * len(matched) / objects
            figures['PQ'] = figures['RQ'] * (mean(matched) or 0.0)
        if absent:
            figures['N-acc'] = percent(result['nothing'] for result in absent)
            figures['T-acc'] = percent(not r['nothing'] for r in results if r['true'])
        return stated(figures)


def _exact(result: dict) -> bool:
    """Whether the count is right; text that cannot be read does not say that there is nothing."""
    return result['predicted'] == result['true'] and (result['true'] > 0 or result['nothing'])


def _encoded(masks: np.ndarray) -> list[dict]:
    """RLEs of (N, h, w) masks."""
    return [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def _iou(predicted: list[dict], true: list[dict], crowd: bool) -> np.ndarray:
    """(M, N) IoU by pycocotools; of a crowd, the share of the predicted mask that lies in it."""
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    return np.asarray(coco_mask.iou(predicted, true, [int(crowd)] * len(true)))
