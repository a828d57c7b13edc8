"""From the confidence of a vote to how likely it is right: what a validation set teaches."""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import load_json, replace_json

if TYPE_CHECKING:
    from .polygon import Answer

#: an answer about one object, or an instance of a list, is right from this IoU on
RIGHT_IOU = dict(answer=0.7, instance=0.5)
#: what is known of an answer; see :func:`evidence`
FEATURES = ('confidence', 'area', 'fill', 'absent')
#: bins of equal width of the expected calibration error
BINS = 10
#: the least confidence whose log-odds are told from those of 0, and likewise from 1
_LEAST = 0.01


def evidence(answer: 'Answer') -> list[float]:
    """What tells whether a voted answer, or an instance of one, is right: a number for each of
    ``FEATURES``. The log-odds of its confidence; the logarithm of the mask's share of the picture;
    the share of its box that it covers; and whether there is no mask, which then has neither of
    those (NaN). The same outline error costs a small or thin object more IoU."""
    sure, spans = np.clip(answer.confidence, _LEAST, 1 - _LEAST), answer.spans
    odds = float(np.log(sure / (1 - sure)))
    if not spans.area:
        return [odds, np.nan, np.nan, 1.0]
    (x1, y1, x2, y2), (h, w) = spans.box, spans.size
    return [odds, float(np.log(spans.area / (h * w))),
            float(spans.area / ((x2 - x1) * (y2 - y1))), 0.0]


@dataclass(frozen=True)
class Calibration:
    """A logistic regression (Platt) of :func:`evidence`.

    Attributes:
        weights, middle: a number for each of ``FEATURES``: the log-odds that an answer is right
            are ``bias`` and each weight times how far the feature is from its middle; one that is
            not there (NaN) adds nothing.
        bias: log-odds of an answer in the middle.
        right: IoU from which on one counts as right.
        settings: of the consensus that gave the answers, such as ``samples``.
        figures: of the validation set, such as ``ece``.
        of: whose confidence it is: an 'answer' about one object, or an 'instance' of a list.
    """
    weights: dict[str, float]
    middle: dict[str, float]
    bias: float
    right: float = RIGHT_IOU['answer']
    settings: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)
    of: str = 'answer'

    def __post_init__(self) -> None:
        for name in ('weights', 'middle'):
            found = getattr(self, name)
            if not isinstance(found, dict) or sorted(found) != sorted(FEATURES):
                raise ValueError(f'{name} of a calibration has a number for each of {FEATURES}, '
                                 f'got {str(found):.80}')
        numbers = [*self.weights.values(), *self.middle.values(), self.bias]
        if not all(isinstance(x, int | float) and np.isfinite(x) for x in numbers):
            raise ValueError(f'numbers of a calibration are finite, got {str(numbers):.120}')
        if self.of not in RIGHT_IOU:
            raise ValueError(f'of={self.of!r:.40}: a calibration is of {" or ".join(RIGHT_IOU)}')

    def __call__(self, answer: 'Answer') -> float:
        """The probability that a voted answer, or an instance of one, is right."""
        return float(self.probability([evidence(answer)])[0])

    def probability(self, rows: Sequence[Sequence[float]]) -> np.ndarray:
        """The same of ``(N, 4)`` :func:`evidence`: ``(N,) float64``."""
        middle, weights = (np.array([found[name] for name in FEATURES])
                           for found in (self.middle, self.weights))
        apart = np.nan_to_num(np.asarray(rows, np.float64).reshape(-1, len(FEATURES)) - middle)
        return 1 / (1 + np.exp(-np.clip(apart @ weights + self.bias, -500, 500)))

    def save(self, path: str | Path) -> None:
        """As JSON."""
        replace_json(Path(path), asdict(self), indent=1)

    @classmethod
    def load(cls, path: str | Path) -> 'Calibration':
        """From JSON.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it is no calibration.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'no calibration at {path}: '
                                    'tools/analysis_tools/calibrate.py writes one')
        found = load_json(path)
        try:
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path} is no calibration as tools/analysis_tools/calibrate.py '
                             f'writes it: {error}') from None


def reliability(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS
                ) -> list[tuple[int, float, float]]:
    """``(answers, mean confidence, share of right ones)`` of each bin of equal width that has
    answers, from the least confident."""
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [(int((index == k).sum()), float(confidence[index == k].mean()),
             float(right[index == k].mean())) for k in np.unique(index)]


def expected_error(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS
                   ) -> float | None:
    """ECE, 0..1: how far the confidence is from the share of right answers, mean over the bins of
    :func:`reliability`, weighted by their answers. None without answers."""
    rows = reliability(confidence, right, bins)
    total = sum(count for count, *_ in rows)
    return sum(count * abs(mean - share) for count, mean, share in rows) / total if rows else None


def auroc(score: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right answer has a higher score than a wrong one, equal ones counted
    half. None where all are right or all are wrong."""
    score, right = np.asarray(score, np.float64), np.asarray(right, bool)
    good, bad = score[right], np.sort(score[~right])
    if not len(good) or not len(bad):
        return None
    below, upto = (np.searchsorted(bad, good, side) for side in ('left', 'right'))
    return float((below + upto).sum() / (2 * len(good) * len(bad)))
