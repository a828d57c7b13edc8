"""From the confidence of a vote to how likely it is right: a curve that a validation set gives."""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .files import load_json, replace_json

#: an answer is right from this IoU on
RIGHT_IOU = 0.7
#: bins of equal width of the expected calibration error
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A rising curve.

    Attributes:
        score, confidence: its points, both rising, 0..1; straight lines between them, and
            beyond them the first and the last.
        right: IoU from which on an answer counts as right.
        settings: of the consensus that gave the scores, such as ``samples``.
        figures: of the validation set, such as ``ece``.
    """
    score: tuple[float, ...]
    confidence: tuple[float, ...]
    right: float = RIGHT_IOU
    settings: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ('score', 'confidence'):
            values = np.asarray(getattr(self, name), np.float64)
            if (values.ndim != 1 or not len(values) or not np.isfinite(values).all()
                    or (np.diff(values) < 0).any() or values[0] < 0 or values[-1] > 1):
                raise ValueError(f'{name} of a calibration is rising numbers in 0..1, got '
                                 f'{str(getattr(self, name)):.80}')
            object.__setattr__(self, name, tuple(values.tolist()))
        if len(self.score) != len(self.confidence):
            raise ValueError(f'a calibration has {len(self.score)} scores and '
                             f'{len(self.confidence)} numbers of confidence; give one for each')

    def __call__(self, score):
        """The calibrated confidence of a vote's, or of an array of them."""
        found = np.interp(score, self.score, self.confidence)
        return float(found) if np.ndim(found) == 0 else found

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
