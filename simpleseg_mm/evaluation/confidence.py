"""Whether the confidence of answers means something."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from scipy.optimize import isotonic_regression

from ..calibration import RIGHT_IOU, Calibration, auroc, expected_error
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, stated


@METRICS.register_module()
class ConfidenceMetric(QueryMetric):
    """How well the confidence of answers tells right ones from wrong ones, in percent.

    An answer is right from an IoU of ``right`` on; for an absent target, where it is '[]'.

    - ``AUROC``: probability that a right answer is surer than a wrong one; 50 is chance;
    - ``ECE``: how far the confidence is from the share of right answers, over ten bins of equal
      width.

    Answers without a confidence, and those that were not asked for a mask, are left out; so is a
    figure for which there is none.

    Args:
        right: IoU.
        fit_to: path of a JSON file to which the curve from the confidence of voted answers to the
            probability that they are right is written, see
            :class:`simpleseg_mm.calibration.Calibration`.
        settings: of the consensus, which are written with it.
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'confidence'

    def __init__(self, right: float = RIGHT_IOU, fit_to: str | None = None,
                 settings: dict | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 < right <= 1:
            raise ValueError(f'right={right}: an IoU above 0 and up to 1')
        if fit_to is not None and self.per_set:
            raise ValueError('fit_to is one curve of all answers: not with per_set=True')
        self.right, self.fit_to, self.settings = right, fit_to, settings

    def measure(self, query: SampleQuery) -> tuple | None:
        """Confidence, IoU, and whether it was voted."""
        if not query.asks_mask or query.answer.confidence is None:
            return None
        return query.answer.confidence, query.iou, query.answer.agreement is not None

    def summarize(self, results: list) -> dict:
        known = [result for result in results if result is not None]
        right = [iou >= self.right for _, iou, _ in known]
        confidence = [one for one, *_ in known]
        figures = dict(AUROC=auroc(confidence, right), ECE=expected_error(confidence, right))
        if self.fit_to is not None:
            voted = [(score, iou) for score, iou, was_voted in known if was_voted]
            scores, ious = zip(*voted) if voted else ((), ())
            curve = fit_calibration(scores, ious, self.right, self.settings)
            Path(self.fit_to).parent.mkdir(parents=True, exist_ok=True)
            curve.save(self.fit_to)
            print_log(f'calibration of {len(voted)} answers written to {self.fit_to}', 'current')
        return stated({name: None if value is None else 100 * value
                       for name, value in figures.items()})


def fit_calibration(scores: Sequence[float], ious: Sequence[float], right: float = RIGHT_IOU,
                    settings: dict | None = None) -> Calibration:
    """The curve of a validation set: isotonic regression, with straight lines between the middles
    of its steps, so that it tells apart what is surer from what is less sure.

    Args:
        scores, ious: of N voted answers, N at least 1.
        right, settings: of :class:`Calibration`.

    Raises:
        ValueError: there are no answers.
    """
    scores, ious = np.asarray(scores, np.float64), np.asarray(ious, np.float64)
    if not len(scores):
        raise ValueError('no answer was voted: is model.consensus set, with samples?')
    values, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    share = np.bincount(index, ious >= right) / counts
    steps = isotonic_regression(share, weights=counts)
    middles, levels = [], []
    for start, end in zip(steps.blocks, steps.blocks[1:]):
        middles.append(np.average(values[start:end], weights=counts[start:end]))
        levels.append(steps.x[start])
    curve = Calibration(tuple(middles), tuple(np.clip(levels, 0, 1)), right, settings or {})
    sure = curve(scores)
    figures = dict(answers=len(scores), ece=expected_error(sure, ious >= right),
                   ece_before=expected_error(scores, ious >= right),
                   auroc=auroc(scores, ious >= right))
    return Calibration(curve.score, curve.confidence, right, curve.settings, figures)
