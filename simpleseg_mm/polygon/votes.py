"""Several answers to one question make one: what most of them hold, and how far they agree.

Pixels are never painted for it: masks are spans, and a vote counts how many of them cover each run
of pixels.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from .answer import SAME, Answer
from .codec import PolygonCodec
from .names import name_key, writable_name
from .raster import box_iou
from .reading import LIST_KINDS
from .spans import Spans

#: Share of the masks that must cover a pixel: every number of masks between these is tried.
LEAST_SHARE, MOST_SHARE = 0.2, 0.6
#: Kinds of answers that can be voted.
VOTED_KINDS = ('rings', 'box', 'masks', 'boxes', 'objects')
#: Runs of pixels that are worked on at a time.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Tally:
    """How N masks cover one another.

    Attributes:
        starts: ``(S + 1,) int64``, from 0: the first pixel of each run of pixels that no border
            divides, and the end of the last.
        counts: ``(S,) int64``, masks that cover each run.
        shared: ``(N, N) float64``, pixels that two masks share; their areas on the diagonal.
        covered: ``(N, N + 1) float64``, of each mask the pixels that at least k masks cover.
        areas: ``(N + 1,) float64``, pixels that at least k masks cover.
        size: (h, w).
    """
    starts: np.ndarray
    counts: np.ndarray
    shared: np.ndarray
    covered: np.ndarray
    areas: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, masks: Sequence[Spans]) -> 'Tally':
        """Of N masks of one size, at least one."""
        sizes = sorted({tuple(mask.size) for mask in masks})
        if len(sizes) != 1:
            raise ValueError(f'a vote is about one picture; got masks of {sizes or "no"} sizes')
        count = len(masks)
        starts = np.unique(np.concatenate([[0], *(mask.borders for mask in masks)]))
        counts = np.zeros(len(starts) - 1, np.int64)
        shared, covered = np.zeros((count, count)), np.zeros((count, count + 1))
        areas = np.zeros(count + 1)
        for begin in range(0, len(counts), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            lengths = np.diff(starts[begin:begin + _CHUNK + 1]).astype(np.float64)
            inside_NS = np.stack([np.searchsorted(mask.borders, starts[:-1][part], 'right') % 2
                                  for mask in masks])
            counts[part] = inside_NS.sum(axis=0)
            weighted_NS = inside_NS * lengths
            shared += weighted_NS @ inside_NS.T
            areas += np.bincount(counts[part], lengths, count + 1)
            covered += [np.bincount(counts[part], row, count + 1) for row in weighted_NS]
        areas, covered = (x[..., ::-1].cumsum(-1)[..., ::-1] for x in (areas, covered))
        return cls(starts, counts, shared, covered, areas, sizes[0])

    @cached_property
    def ious(self) -> np.ndarray:
        """``(N, N) float64`` IoU of each pair; 1 where both are empty."""
        areas = np.diag(self.shared)
        return _ratio(self.shared, areas[:, None] + areas - self.shared)

    @cached_property
    def level_ious(self) -> np.ndarray:
        """``(N + 1,) float64``, mean IoU with the masks of what at least k of them cover."""
        areas = np.diag(self.shared)[:, None]
        return _ratio(self.covered, areas + self.areas - self.covered).mean(axis=0)

    def level(self, least: int) -> Spans:
        """What at least so many masks cover, 1 or more."""
        inside = np.concatenate([[False], self.counts >= least, [False]])
        return Spans(self.starts[inside[1:] != inside[:-1]], self.size)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.ones_like(part), where=whole > 0)


def vote(answers: Sequence[Answer], tokens: float = 150) -> Answer:
    """One answer from several to the same question.

    First whether there is such an object: as most answers say; where they are even, as the first
    of them says. Then the pixels of those that hold a mask are voted: one is in where a share of
    the masks cover it. Of all shares between ``LEAST_SHARE`` and ``MOST_SHARE`` that one is taken
    whose mask has the largest mean IoU with the masks; it is written as a polygon again. Where an
    answer itself has a larger one, as where there are two, that is the answer. Of boxes, each side
    is the median. Of lists, there are as many instances as most answers say (even: as the first
    of them says). They are matched between the answers (Hungarian, IoU from ``SAME``, of objects
    those of one name); so many of those that most answers hold are voted.

    The agreement is the mean IoU of the mask that is answered with those of all answers; of an
    absent object, the share of answers that say so; of a list, the IoU of its instances over the
    larger number of them. An answer that cannot be read agrees with none. The confidence is the
    agreement times the mean token probability of the answers, which together tell right answers
    from wrong ones better than either; the agreement, where the probability is not known.
    ``agreements`` and ``scores`` have both of each instance of a list, where answers that lack it
    count as 0.

    Args:
        answers: at least one, the greedy one first, all about one picture, read by one codec and
            for one kind of ``VOTED_KINDS``.
        tokens: mean number of tokens of a polygon that is written, see :class:`PolygonCodec`.

    Returns:
        The answer, with its ``agreement`` and ``confidence``, and all answers as its ``voters``.
        ``num_tokens`` and ``seconds`` are those of all of them together. One answer alone has
        nothing to agree with and is given back as it is.
    """
    kind = answers[0].kind
    if kind not in VOTED_KINDS:
        raise ValueError(f'answers of the kind {kind!r} are not voted; those of {VOTED_KINDS} are')
    if len(answers) == 1:
        return answers[0]
    ballots = _ballots(answers)
    if not ballots:
        chosen, agreement = answers[0], 0.0
    elif answers[0].many:
        chosen, agreement = _voted_list(ballots, tokens)
    else:
        chosen, agreement = _voted_one(ballots, tokens)
    read = len(ballots) / len(answers)
    agreement *= read
    agreements = tuple(score * read for score in chosen.agreements)
    sure = _token_probability(answers)
    return replace(
        chosen, voters=tuple(answers), agreement=agreement, confidence=agreement * sure,
        agreements=agreements, scores=tuple(score * sure for score in agreements),
        num_tokens=_sum([answer.num_tokens for answer in answers]),
        seconds=_sum([answer.seconds for answer in answers]))


def agreement_of(answers: Sequence[Answer]) -> float:
    """The ``agreement`` that :func:`vote` gives, for two answers or more, without writing what is
    voted."""
    if answers[0].kind != 'rings':
        return vote(answers).agreement
    ballots = _ballots(answers)
    present = [answer for answer in ballots if not answer.says_nothing]
    if not present or _is_absent(ballots):
        return (len(ballots) - len(present)) / len(answers)
    return _elected(present)[2] * len(present) / len(answers)


def _ballots(answers: Sequence[Answer]) -> list[Answer]:
    """Those that can be read."""
    return [answer for answer in answers if answer.says_nothing or _holds(answer)]


def _is_absent(ballots: Sequence[Answer]) -> bool:
    """Whether most say so or, where they are even, the first does."""
    absent = sum(answer.says_nothing for answer in ballots)
    return 2 * absent > len(ballots) or 2 * absent == len(ballots) and ballots[0].says_nothing


def _holds(answer: Answer) -> bool:
    """Whether an answer holds what was asked for."""
    if answer.many:
        return bool(_held(answer))
    return answer.parsed.box is not None if answer.kind == 'box' else answer.spans.area > 0


def _held(answer: Answer) -> list[Answer]:
    """The instances of a list that hold what was asked for: a box is no mask."""
    return [one for one in answer.instances
            if one.kind == LIST_KINDS[answer.kind] and _holds(one)]


def _voted_one(answers: Sequence[Answer], tokens: float) -> tuple[Answer, float]:
    """The answer about one object, and how far these, which can be read, agree with it."""
    present = [answer for answer in answers if not answer.says_nothing]
    if _is_absent(answers):
        return (next(answer for answer in answers if answer.says_nothing),
                1 - len(present) / len(answers))
    chosen, agreement = (_voted_box if answers[0].kind == 'box' else _voted_mask)(present, tokens)
    return chosen, agreement * len(present) / len(answers)


def _voted_list(answers: Sequence[Answer], tokens: float) -> tuple[Answer, float]:
    """The list of so many instances as most answers have, those that most hold, in the codec's
    order, and how far the answers agree: of each the IoU with the instances of the list, over the
    larger number of them."""
    held = list(map(_held, answers))
    sizes = [len(ones) for ones in held]
    size = max(sizes, key=sizes.count)  # of those as frequent the first
    chosen, overlap = [], np.zeros(len(answers))
    by_number = sorted(_matched(held), key=lambda members: (-len(members), min(members)))
    for members in by_number[:size]:
        ones = list(members.values())
        voted, agreement = (_voted_box if ones[0].kind == 'box' else _voted_mask)(ones, tokens)
        chosen.append((voted, agreement * len(members) / len(answers)))
        overlap[list(members)] += [_iou(one, voted) for one in ones]
    counts = np.maximum(sizes, len(chosen)).astype(np.float64)
    agreement = float(_ratio(overlap, counts).mean())
    chosen.sort(key=lambda one: _place(one[0]))
    first = answers[0]
    text = _list_of([one for one, _ in chosen], first)
    agreements = tuple(agreement for _, agreement in chosen)
    if len(text) > first.codec.max_chars:  # the largest are written, or all of them coarser
        masks, writer = [one.spans.mask for one, _ in chosen], _writer(first, tokens)
        text = writer.encode_objects(masks, [writable_name(one.name) for one, _ in chosen]) \
            if first.named else writer.encode_masks(masks)
        agreements = ()
    return replace(first, text=text, finished=True, agreements=agreements), agreement


def _list_of(ones: Sequence[Answer], first: Answer) -> str:
    """The text of the instances of a list, which ``first`` is one of."""
    texts = [one.text for one in ones]
    if first.named:
        return first.codec.grammar.format_named([writable_name(one.name) for one in ones], texts)
    return first.codec.grammar.format_list(texts)


def _matched(held: Sequence[Sequence[Answer]]) -> list[dict[int, Answer]]:
    """Instances of several answers that are one: of each its instances by the number of the
    answer. Those of an answer are matched to the first ones of those found before, so that their
    IoU is largest in all."""
    found: list[dict[int, Answer]] = []
    for number, ones in enumerate(held):
        firsts = [next(iter(members.values())) for members in found]
        ious = np.array([[_iou(one, other) for other in firsts] for one in ones]).reshape(
            len(ones), len(firsts))
        matched = {int(i): int(j) for i, j in zip(*linear_sum_assignment(ious, maximize=True))
                   if ious[i, j] >= SAME}
        for i, one in enumerate(ones):
            if i in matched:
                found[matched[i]][number] = one
            else:
                found.append({number: one})
    return found


def _iou(one: Answer, other: Answer) -> float:
    """Of boxes or masks; 0 where their names differ."""
    if name_key(one.name) != name_key(other.name):
        return 0.0
    if one.kind == 'box':
        return box_iou(one.parsed.box, other.parsed.box)
    (x1, y1, x2, y2), (u1, v1, u2, v2) = one.spans.box, other.spans.box
    if x2 <= u1 or u2 <= x1 or y2 <= v1 or v2 <= y1:  # most of a list's lie apart
        return 0.0
    return one.spans.iou(other.spans)


def _place(answer: Answer) -> tuple[float, ...]:
    """As :meth:`PolygonCodec.order` orders instances."""
    if answer.kind == 'box':
        x1, y1, x2, y2 = answer.parsed.box
        return x1 + x2, y1 + y2, (x2 - x1) * (y2 - y1)
    x1, y1, x2, y2 = answer.spans.box
    return x1 + x2, y1 + y2, answer.spans.area


def _elected(answers: Sequence[Answer]) -> tuple[int, Spans | None, float]:
    """Which of the answers agrees best with all of them; the mask of the pixels that are voted,
    where that does better, else None; and the mean IoU of whichever it is."""
    tally = Tally.of([answer.spans for answer in answers])
    count = len(answers)
    own = tally.ious.mean(axis=1)
    best = int(own.argmax())
    least = max(math.floor(LEAST_SHARE * count), 1)
    levels = tally.level_ious[least:math.ceil(MOST_SHARE * count) + 1]
    level = int(levels.argmax())
    if levels[level] <= own[best]:
        return best, None, float(own[best])
    return best, tally.level(least + level), float(levels[level])


def _voted_mask(answers: Sequence[Answer], tokens: float) -> tuple[Answer, float]:
    """The answer, and its mean IoU with them."""
    best, pixels, agreement = _elected(answers)
    if pixels is None:
        return answers[best], agreement
    text = _writer(answers[best], tokens).encode(pixels.mask)
    voted = replace(answers[best], text=text, finished=True)
    # what is too thin for this way of reading is not written
    return voted if voted.spans.area else answers[best], agreement


def _writer(answer: Answer, tokens: float) -> PolygonCodec:
    """Writes what is read as the answer is; what 'paper' itself writes is read half a pixel
    smaller."""
    codec = answer.codec
    preset = 'default' if codec.preset == 'paper' else codec.preset
    return PolygonCodec(preset, codec.grammar, tokens)


def _voted_box(answers: Sequence[Answer], tokens: float) -> tuple[Answer, float]:
    boxes = np.array([answer.parsed.box for answer in answers])
    box = np.median(boxes, axis=0)
    agreement = float(np.mean([box_iou(box, other) for other in boxes]))
    for answer, other in zip(answers, boxes):
        if np.array_equal(box, other):
            return answer, agreement
    text = answers[0].codec.grammar.format_box(box, (1, 1))
    return replace(answers[0], text=text, finished=True), agreement


def _token_probability(answers: Sequence[Answer]) -> float:
    """Mean over the answers of that of their tokens; 1 where it is not known of all."""
    known = [answer.confidence for answer in answers]
    return 1.0 if None in known else sum(known) / len(known)


def _sum(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values)
