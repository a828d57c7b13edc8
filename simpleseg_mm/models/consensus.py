"""A consensus: several answers to each prompt, and their vote."""
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mmengine.logging import print_log
from torch import Tensor

from ..answers import read_answer
from ..calibration import Calibration
from ..polygon import Answer, vote
from ..polygon.votes import VOTED_KINDS, agreement_of
from ..settings import check_fields, is_within, is_whole_within, settings_of
from ..structures import Generated
from .sampling import Sampling


@dataclass(frozen=True)
class Consensus:
    """How answers are voted: the greedy one, and sampled ones beside it.

    Attributes:
        samples: sampled answers a prompt; 0: the greedy one alone, without a vote.
        temperature: that they are drawn at.
        seed: of the drawing. What is drawn depends on it, the picture and the prompt alone.
        early_stop: no more are drawn where the answers' disagreement, 1 - agreement, over their
            number is at most this, such as 0.02: so little does another one change. ``None``: all
            are always drawn.
        first: of the samples, how many are drawn before that is looked at; ``None``: three
            eighths. After them it is looked at each eighth.
        tokens: mean number of tokens of a voted polygon, as ``PolygonCodec`` takes it.
        calibration: file of ``tools/analysis_tools/calibrate.py``: the confidence of an answer
            about one object, or the ``scores`` of a list, is then the probability that it is
            right; ``None``: it is as :func:`vote` gives it.

    Raises:
        FileNotFoundError, ValueError: a number is out of its range; there is no calibration there.
    """
    samples: int = 8
    temperature: float = 0.6
    seed: int = 0
    early_stop: float | None = None
    first: int | None = None
    tokens: float = 150
    calibration: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, 'model.consensus', (
            ('samples', is_whole_within(self.samples, 0, 1000),
             'a whole number of sampled answers, 0 to 1000'),
            ('temperature', _above_0(self.temperature), 'above 0'),
            ('seed', is_whole_within(self.seed, 0), 'a whole number from 0 on'),
            ('early_stop', self.early_stop is None or
             _above_0(self.early_stop) and self.early_stop <= 1,
             'a disagreement an answer, above 0 and up to 1, or None to draw all'),
            ('first', self.first is None or is_whole_within(self.first, 1),
             'a whole number of samples from 1 on, or None for three eighths of them'),
            ('tokens', _above_0(self.tokens), 'above 0'),
            ('calibration', isinstance(self.calibration, str | None),
             'the path of a JSON file, or None')))
        _ = self._calibration  # a file that cannot be read is told before any answer is drawn

    @classmethod
    def of(cls, settings: 'dict | Consensus | None') -> 'Consensus | None':
        """Settings of a config; None for none, and for a consensus of no samples.

        Raises:
            ValueError: a key is unknown, or a value does not fit.
        """
        if settings is None:
            return None
        settings = settings_of(cls, settings, 'model.consensus')
        return settings if settings.samples else None

    @property
    def group_size(self) -> int:
        """Answers to a prompt at most: the greedy one and the samples."""
        return 1 + self.samples

    @property
    def drawn_by(self) -> dict:
        """What the agreement depends on, for the file of a calibration."""
        return dict(samples=self.samples, temperature=self.temperature,
                    early_stop=self.early_stop, first=self._first)

    @property
    def _first(self) -> int:
        """Samples that are drawn before anything is looked at."""
        if self.early_stop is None:
            return self.samples
        return min(self.samples, -(-3 * self.samples // 8) if self.first is None else self.first)

    def sampling(self, limit: int) -> Sampling:
        """How the samples are drawn."""
        return Sampling(max_new_tokens=limit, temperature=self.temperature)

    @cached_property
    def _calibration(self) -> Calibration | None:
        if self.calibration is None:
            return None
        found = Calibration.load(self.calibration)
        if found.settings and found.settings != self.drawn_by:
            self._say(f'was fitted to answers of {found.settings}; these are of {self.drawn_by}')
        return found

    def vote(self, answers: Sequence[Answer]) -> Answer:
        """One answer from several; see :func:`simpleseg_mm.polygon.vote`."""
        return self.calibrated(vote(answers, self.tokens))

    def calibrated(self, voted: Answer) -> Answer:
        """A vote with the confidence of the calibration, where there is one for such answers."""
        fitted = self._calibration
        if voted.agreement is None or fitted is None:
            return voted
        if voted.kind != dict(answer='rings', instance='masks')[fitted.of]:
            _ = self._other_kind
            return voted
        if voted.many:
            return replace(voted, scores=tuple(map(fitted, voted.instances)))
        return replace(voted, confidence=fitted(voted))

    @cached_property
    def _other_kind(self) -> None:
        """Said once."""
        self._say('is of ' + dict(answer='masks of one object', instance='lists of masks')[
            self._calibration.of] + '; there are other answers, too')

    def _say(self, what: str) -> None:
        print_log(f'{self.calibration} {what}: their confidence is not calibrated', 'current',
                  logging.WARNING)

    def further(self, answers: Sequence[Answer]) -> int:
        """How many more answers are asked for, after those that there are: of none, the greedy one
        and the first samples; then an eighth of all at a time, until they agree enough."""
        if not answers:
            return 1 + self._first
        left = self.group_size - len(answers)
        if left <= 0 or 1 - agreement_of(answers) <= self.early_stop * len(answers):
            return 0
        return min(left, max(self.samples // 8, 1))


class Ballot:
    """The answers to the prompts of a stream, as they come.

    Args:
        consensus: how they are voted.
        sample_of: (number of a prompt) -> its sample, from when it is read until it is voted.
    """

    def __init__(self, consensus: Consensus, sample_of: Callable) -> None:
        self.consensus, self.sample_of = consensus, sample_of
        self._answers: dict[int, list[Answer]] = {}

    def more(self, number: int, written: Sequence[Generated]) -> int:
        """How many more answers to a prompt are written; one, where it cannot be voted."""
        answers = self._read(number, written)
        if not answers:
            sample = self.sample_of(number)
            kind = None if 'codec' not in sample else read_answer(sample, '').kind
            if kind not in VOTED_KINDS:
                return 1
        elif len(answers) == 1 and answers[0].kind not in VOTED_KINDS:
            return 0
        return self.consensus.further(answers)

    def vote(self, number: int, written: Sequence[Generated], seconds: float) -> Answer:
        """The answer to a prompt, whose ballot ends."""
        answers = self._read(number, written)
        del self._answers[number]
        if len(answers) == 1:
            return replace(answers[0], seconds=seconds)
        return replace(self.consensus.vote(answers), seconds=seconds)

    def _read(self, number: int, written: Sequence[Generated]) -> list[Answer]:
        answers, sample = self._answers.setdefault(number, []), self.sample_of(number)
        answers += [read_answer(sample, one.text, num_tokens=one.num_tokens,
                                finished=one.finished, confidence=one.confidence)
                    for one in written[len(answers):]]
        return answers


class Seeds:
    """Seeds of the answers to the prompts of a stream, by the row of an answer: of the same
    picture and prompt the same, whatever is asked before or beside them.

    Args:
        seed: of all.
        group_size: G, answers to a prompt.
    """

    def __init__(self, seed: int, group_size: int) -> None:
        self.seed, self.group_size = seed, group_size
        self._digests: list[int] = []

    def add(self, image: Tensor, prompt: str) -> None:
        """The next prompt of the stream.

        Args:
            image: (3, H, W) uint8.
        """
        digest = hashlib.blake2b(f'{tuple(image.shape)} {prompt}'.encode('utf-8', 'replace'))
        digest.update(image.cpu().contiguous().numpy())
        self._digests.append(int.from_bytes(digest.digest()[:8], 'little'))

    def __getitem__(self, row: int) -> tuple[int, ...]:
        number, place = divmod(row, self.group_size)
        return self.seed, self._digests[number], place


def _above_0(value) -> bool:
    return is_within(value) and 0 < value < 1e9
