"""Whether the confidence of answers means something."""
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from scipy.optimize import minimize
from scipy.special import expit

from ..calibration import FEATURES, RIGHT_IOU, Calibration, auroc, evidence, expected_error
from ..matching import best_pairs, mask_ious
from ..polygon import Answer, Spans
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, stated


@METRICS.register_module()
class ConfidenceMetric(QueryMetric):
    """How well the confidence of answers tells right ones from wrong ones, in percent.

    An answer is right from an IoU of ``right`` on; for an absent target, where it is '[]'. Of a
    list each instance is judged by itself, by its own score and its IoU with the object that it is
    matched to, 0 where there is none. What lies in a crowd is passed over, as `InstanceMetric`
    does, and so is an instance of which no pixel can be read, whose score is 0.

    - ``AUROC``: probability that a right answer is surer than a wrong one; 50 is chance;
    - ``ECE``: how far the confidence is from the share of right answers, over ten bins of equal
      width;
    - ``instance_AUROC``, ``instance_ECE``: the same of the instances of lists.

    Answers without a confidence, and those that were not asked for a mask, are left out; so is a
    figure for which there is none.

    Args:
        right: IoU; ``None``: 0.7, and 0.5 of an instance (``calibration.RIGHT_IOU``).
        fit_to: path of a JSON file to which is written what makes the confidence of voted answers,
            or of the instances of voted lists, the probability that they are right, see
            :class:`simpleseg_mm.calibration.Calibration`.
        settings: of the consensus, which are written with it.
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'confidence'

    def __init__(self, right: float | None = None, fit_to: str | None = None,
                 settings: dict | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if right is not None and not 0 < right <= 1:
            raise ValueError(f'right={right}: an IoU above 0 and up to 1')
        if fit_to is not None and self.per_set:
            raise ValueError('fit_to is one calibration of all answers: not with per_set=True')
        self.right, self.fit_to, self.settings = right, fit_to, settings

    def measure(self, query: SampleQuery) -> list[tuple]:
        """Of the answer, or of each instance of a list: which of the two, confidence, IoU, and
        its evidence if it was voted, else None."""
        answer = query.answer
        if not query.asks_mask or answer.confidence is None:
            return []
        kind, found = (('instance', _instances(query)) if answer.many else
                       ('answer', [(answer, query.iou)]))
        return [(kind, one.confidence, iou, None if one.agreement is None else evidence(one))
                for one, iou in found]

    def summarize(self, results: list) -> dict:
        known = [one for result in results for one in result]
        figures = {}
        for kind, prefix in (('answer', ''), ('instance', 'instance_')):
            confidence = [sure for of, sure, *_ in known if of == kind]
            right = [iou >= self._right(kind) for of, _, iou, _ in known if of == kind]
            figures.update({f'{prefix}AUROC': auroc(confidence, right),
                            f'{prefix}ECE': expected_error(confidence, right)})
        if self.fit_to is not None:
            self._fit([one for one in known if one[-1] is not None])
        return stated({name: None if value is None else 100 * value
                       for name, value in figures.items()})

    def _right(self, kind: str) -> float:
        return RIGHT_IOU[kind] if self.right is None else self.right

    def _fit(self, voted: list[tuple]) -> None:
        kinds, _, ious, rows = zip(*voted) if voted else ((), ) * 4
        if len(set(kinds)) > 1:
            raise ValueError(
                f'{kinds.count("answer")} answers about one object and {kinds.count("instance")} '
                'instances of lists: each kind has a calibration of its own; fit them one by one '
                '(the tasks of val_dataloader.dataset.query)')
        of = kinds[0] if kinds else 'answer'
        fitted = fit_calibration(rows, ious, self._right(of), self.settings, of)
        Path(self.fit_to).parent.mkdir(parents=True, exist_ok=True)
        fitted.save(self.fit_to)
        print_log(f'calibration of {len(voted)} {of}s written to {self.fit_to}', 'current')


def _instances(query: SampleQuery) -> list[tuple[Answer, float]]:
    """Each instance of a list that is judged, and the IoU that it is matched with."""
    ones = [one for one in query.answer.instances if one.spans.area]
    ious = mask_ious([one.spans for one in ones], query.targets)
    matched = {m: float(ious[m, n]) for m, n in best_pairs(ious)}
    crowd = None if query.scored is None else Spans.from_mask(~query.scored)
    return [(one, matched.get(m, 0.0)) for m, one in enumerate(ones)
            if matched.get(m, 0.0) > 0.5 or crowd is None
            or 2 * one.spans.shared(crowd) <= one.spans.area]


def fit_calibration(rows: Sequence[Sequence[float]], ious: Sequence[float],
                    right: float = RIGHT_IOU['answer'], settings: dict | None = None,
                    of: str = 'answer') -> Calibration:
    """What a validation set teaches: a logistic regression whose weights are held small (ridge),
    towards targets as Platt's, which are never quite 0 or 1. It never falls with the confidence.

    Args:
        rows: :func:`simpleseg_mm.calibration.evidence` of N voted answers, or instances of them,
            N at least 1.
        ious: theirs.
        right, settings, of: of :class:`Calibration`.

    Raises:
        ValueError: there are no answers.
    """
    rows_NF, good = np.asarray(rows, np.float64), np.asarray(ious, np.float64) >= right
    if not len(rows_NF):
        raise ValueError('no answer was voted: is model.consensus set, with samples?')
    known = np.isfinite(rows_NF)
    count = np.maximum(known.sum(axis=0), 1)
    middle = np.where(known, rows_NF, 0).sum(axis=0) / count
    apart_NF = np.where(known, rows_NF - middle, 0)
    scale = np.sqrt((apart_NF ** 2).sum(axis=0) / count)
    scale[scale < 1e-9] = np.inf  # all are alike: no weight
    inputs_NF = np.column_stack([apart_NF / scale, np.ones(len(good))])
    wanted = np.where(good, (good.sum() + 1) / (good.sum() + 2), 1 / ((~good).sum() + 2))
    ridge = np.append(np.ones(len(FEATURES)), 0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        odds = inputs_NF @ weights
        value = np.logaddexp(0, odds) - wanted * odds
        return (value.sum() + (ridge * weights ** 2).sum() / 2,
                inputs_NF.T @ (expit(odds) - wanted) + ridge * weights)

    found = minimize(loss, np.zeros(inputs_NF.shape[1]), jac=True, method='L-BFGS-B',
                     bounds=[(0, None)] + [(None, None)] * len(FEATURES)).x
    fitted = Calibration(dict(zip(FEATURES, (found[:-1] / scale).tolist())),
                         dict(zip(FEATURES, middle.tolist())), float(found[-1]), right,
                         settings or {}, of=of)
    sure, before = fitted.probability(rows_NF), expit(rows_NF[:, 0])
    return replace(fitted, figures=dict(
        answers=len(good), ece=expected_error(sure, good), auroc=auroc(sure, good),
        ece_before=expected_error(before, good), auroc_before=auroc(before, good)))
