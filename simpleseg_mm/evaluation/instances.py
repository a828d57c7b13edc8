"""Objects one by one: are all found, each once, and how well does each outline fit?"""
import math
from collections import Counter

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

    Where names were asked for (image2objects), two objects are a pair only where the predicted
    label is the true one; a predicted object whose name is no class has no pair, and counts. There
    are three more figures then:

    - ``PQ_classes``: the mean of PQ over the classes that have an object, true or predicted, as
      panopticapi reports it (``PQ`` takes all as one class);
    - ``name_acc``: objects found whatever their name (IoU above 0.5) whose name is right;
    - ``no_class``: predicted objects whose name is none of the set's classes.

    Crowds (``ignore_flag=1``): a predicted object without a match of which more than half lies in
    the crowds of its query is passed over, as panopticapi does. How many objects such a query has
    is not known, so it has no part in the counts.
    A figure for which there is no sample is left out. `mmdet.CocoMetric` gives AP beside these.
    """

    default_prefix = 'inst'

    def measure(self, query: SampleQuery) -> dict:
        predicted, true = _encoded(query.predictions), _encoded(query.truths)
        any_iou = iou = _iou(predicted, true, crowd=False)
        labels = query.labels
        strange = len(query.meta.get('pred_no_class', ()))
        if labels is not None:
            iou = iou * (labels[0][:, None] == labels[1])
        pairs = best_pairs(iou, _LEAST)
        scored = list(range(len(predicted)))
        if query.scored is not None:  # there are crowds
            inside = _iou(predicted, _encoded(~query.scored[None]), crowd=True)
            found = {m for m, _ in pairs}
            scored = [m for m in scored if m in found or inside[m] <= 0.5]
        nothing = not predicted and not strange and (not query.has_text or (
            query.answer.says_nothing and query.answer.parsed.valid))
        result = dict(
            true=len(true), predicted=len(scored) + strange, nothing=nothing,
            known=query.scored is None,
            matched=[float(iou[pair]) for pair in pairs],
            mIoU=matched_iou(np.pad(iou[scored], ((0, strange), (0, 0)))) if true
            else float(nothing))
        if labels is not None:
            result.update(
                strange=strange,
                labels=([int(labels[0][m]) for m in scored], labels[1].tolist(),
                        [int(labels[1][n]) for _, n in pairs]),
                right=[bool(labels[0][m] == labels[1][n])
                       for m, n in best_pairs(any_iou, _LEAST)])
        return result

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
        named = [result for result in results if 'labels' in result]
        if named:
            figures.update(
                PQ_classes=_classwise(named),
                name_acc=percent(right for r in named for right in r['right']),
                no_class=100 * sum(r['strange'] for r in named)
                / max(sum(r['predicted'] for r in named), 1))
        if absent:
            figures['N-acc'] = percent(result['nothing'] for result in absent)
            figures['T-acc'] = percent(not r['nothing'] for r in results if r['true'])
        return stated(figures)


def _classwise(results: list[dict]) -> float | None:
    """Mean PQ of the classes, in percent: of each the sum of the IoU of its pairs over half of its
    predicted and true objects."""
    objects, quality = Counter(), {}
    for result in results:
        *lists, matched = result['labels']
        for labels in lists:
            objects.update(labels)
        for label, iou in zip(matched, result['matched']):
            quality.setdefault(label, []).append(iou)
    return percent(2 * math.fsum(quality.get(label, ())) / count
                   for label, count in sorted(objects.items()))


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
