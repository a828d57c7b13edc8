"""What is asked of a picture and what comes back: plain data, numpy alone."""
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Union

import numpy as np

from .files import is_blank, one_line, shown
from .polygon import Answer, CropAnswer, Part, Spans, Task, mask_to_rle, outline_spread


@dataclass(frozen=True)
class Prompt:
    """What a query asks about: exactly one of text, point, box and everything.

    Attributes:
        text: an expression, such as 'the man in red'.
        point: x, y on the object, pixels of the upright picture.
        box: x1, y1, x2, y2 around it, pixels, right and bottom exclusive.
        all: whether every instance of what the text says is asked for, an outline each.
        everything: whether all objects of the picture are asked for, each with its name.

    Raises:
        ValueError: none or several are given, all instances of a point or box, an expression that
            is no text, numbers that are no point or no box, or a box of no or negative size.
    """
    text: str | None = None
    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    all: bool = False
    everything: bool = False
    KINDS: ClassVar[tuple[str, ...]] = ('text', 'point', 'box')

    def __post_init__(self) -> None:
        for name in ('all', 'everything'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} is {shown(getattr(self, name), 80)}; say True or False')
        given = [kind for kind in self.KINDS if getattr(self, kind) is not None]
        given += ['everything'] * self.everything
        if len(given) != 1:
            raise ValueError('a prompt is one of text, point, box and everything; got '
                             f'{given or "none"}')
        if self.all and self.kind != 'text':
            raise ValueError(f'all instances are asked for in words, not by a {self.kind}: give '
                             "a text, such as dict(text='the cups', all=True)")
        if self.everything:
            return
        if self.kind == 'text':
            if not isinstance(self.text, str) or is_blank(self.text):
                raise ValueError(f'the expression is {shown(self.text)}; say in words which '
                                 "object is meant, such as 'the man in red'")
            try:
                self.text.encode()
            except UnicodeEncodeError:  # halves of characters, or bytes that a shell passed on
                raise ValueError(f'the expression {shown(self.text)} holds what is no character: '
                                 'give it in UTF-8') from None
            return
        numbers = _numbers(self.value, 2 if self.kind == 'point' else 4, self.kind)
        object.__setattr__(self, self.kind, numbers)
        if self.kind == 'box' and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            raise ValueError(f'the box {list(numbers)} has no or a negative size; give x1, y1, '
                             'x2, y2 with x1 < x2 and y1 < y2 (pixels)')

    @property
    def kind(self) -> str:
        """'text', 'point' or 'box'; 'image' where everything is asked for."""
        return 'image' if self.everything else next(
            kind for kind in self.KINDS if getattr(self, kind) is not None)

    @property
    def value(self):
        """The expression, the point or the box; None where everything is asked for."""
        return None if self.everything else getattr(self, self.kind)

    @property
    def many(self) -> bool:
        """Whether several objects are asked for, an outline each."""
        return self.all or self.everything

    @property
    def task(self) -> Task:
        """Of the query that is asked."""
        wanted = 'objects' if self.everything else 'masks' if self.all else 'mask'
        return Task(self.kind, wanted)

    def __str__(self) -> str:
        """In a few words."""
        return 'everything' if self.everything else str(
            self.text if self.kind == 'text' else list(self.value))

    def to_dict(self) -> dict:
        """Its kind and value, as :meth:`of` takes it, ready for JSON; ``all`` where it is asked
        for."""
        if self.everything:
            return dict(everything=True)
        value = {self.kind: self.text if self.kind == 'text' else list(self.value)}
        return dict(value, all=True) if self.all else value

    @classmethod
    def of(cls, value: Union['Prompt', str, dict]) -> 'Prompt':
        """A Prompt as it is, an expression, or ``dict(text=...)``, with ``all=True`` for every
        instance, ``dict(point=(x, y))``, ``dict(box=(x1, y1, x2, y2))``, or
        ``dict(everything=True)`` for all objects with their names. Raises ValueError for anything
        else."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(text=value)
        if isinstance(value, dict) and set(value) <= {*cls.KINDS, 'all', 'everything'}:
            return cls(**value)
        raise ValueError('a prompt is an expression, dict(point=(x, y)), dict(box=(x1, y1, x2, '
                         f'y2)) or dict(everything=True); got {shown(value, 80)}')

    def within(self, size: tuple[int, int]) -> 'Prompt':
        """The prompt for a picture of ``size`` (h, w), a box cut to it.

        Raises:
            ValueError: the point or the whole box is outside.
        """
        h, w = size
        if self.kind == 'point':
            x, y = self.point
            if not (0 <= x <= w and 0 <= y <= h):
                raise ValueError(f'the point {list(self.point)} is outside the picture, which is '
                                 f'{w} x {h} pixels (x from the left, y from the top)')
        if self.kind == 'box':
            x1, y1, x2, y2 = self.box
            box = max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h))
            if not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError(f'the box {list(self.box)} is outside the picture, which is '
                                 f'{w} x {h} pixels (x from the left, y from the top)')
            return Prompt(box=box)
        return self


def _numbers(value, count: int, kind: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f'a {kind} is {count} numbers (pixels), got {shown(value, 80)}')
    return numbers


_MAX_STEM = 180  # bytes; file systems take names of 255 with what is added


class FileNames:
    """Names of files for pictures: their stem, with a number from the second use on.

    Args:
        reserved: stems that are taken by other files, whatever their case.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken: set = set()
        self._reserved = {name.casefold() for name in reserved}

    def of(self, image: str, index: int) -> str:
        """A name that was not given yet, of the picture ``image``, number ``index``."""
        stem = '' if image == str(index) else Path(image.partition('?')[0]).stem
        stem = one_line(stem).encode('utf-8', 'replace')[:_MAX_STEM].decode('utf-8', 'ignore')
        stem = stem.strip() or f'{index:08d}'
        name, count = stem, 1
        while name in self._taken or name.casefold() in self._reserved:
            name, count = f'{stem}_{count}', count + 1
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Generated:
    """What a model wrote, before it is read.

    Attributes:
        text: the answer without its end token.
        num_tokens: tokens written, the end token included.
        finished: whether the network ended the answer; False: it was cut at ``max_new_tokens`` or,
            where constrained, completed before.
        token_ids: the tokens themselves.
        token_logps: log-probability of each token by the network, in nats: over the whole
            vocabulary, at temperature 1, whatever was banned or constrained. Empty where they are
            not known, as where transformers' own ``generate`` wrote the answer. Two answers are
            equal whatever these are: rounding differs with the batch.
    """
    text: str
    num_tokens: int
    finished: bool
    token_ids: tuple[int, ...] = ()
    token_logps: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @property
    def confidence(self) -> float | None:
        """Mean probability of the tokens; None where their log-probabilities are not known."""
        logps = self.token_logps
        return sum(map(math.exp, logps)) / len(logps) if logps else None


@dataclass(frozen=True, eq=False)
class AnsweredQuery:
    """What a metric or a reward sees: what was asked, what is true, and what was answered.

    Attributes:
        answer: what the model wrote, read by its codec and for its task.
        truth: (h, w) bool, all targets together, as large as ``answer.size``; all False for an
            absent one.
        prompt: what the model was asked, as it read it; None where it is not known.
        task: None where it is not known.
        meta: the whole sample, or row of a data set, by its keys; not to be changed.
        target: ``truth`` as spans, which the answers of a group share; worked out where not given.
        targets: each target as spans, where they were asked for one by one; else ``target`` alone,
            and none of an absent one.
    """
    answer: Answer
    truth: np.ndarray
    prompt: str | None = None
    task: Task | None = None
    meta: Mapping = field(default_factory=dict)
    target: Spans | None = None
    targets: tuple[Spans, ...] | None = None

    def __post_init__(self) -> None:
        if self.target is None:
            object.__setattr__(self, 'target', Spans.from_mask(self.truth))
        if self.targets is None:
            object.__setattr__(self, 'targets', (self.target, ) if self.target.area else ())

    @property
    def asks_mask(self) -> bool:
        """Whether a mask was asked for, or several; so it is where the task is not known."""
        return self.task is None or self.task.wanted in ('mask', 'masks', 'objects')

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of each of ``targets`` its name, where names were asked for; else None.

        Raises:
            ValueError: the sample does not say them.
        """
        if self.task is None or not self.task.named:
            return None
        names = tuple(self.meta.get('names') or ())
        if len(names) != len(self.targets):
            raise ValueError(f'{len(self.targets)} objects have {len(names)} names; a sample of '
                             'image2objects has `names`, one an object, in the order of its masks')
        return names

    @cached_property
    def says_absent_rightly(self) -> bool | None:
        """For an absent target, whether the answer is '[]'; None for a present one."""
        if self.target.area:
            return None
        return self.answer.says_nothing and self.answer.parsed.valid

    @cached_property
    def iou(self) -> float:
        """Of the masks, 0..1; for an absent target 1 where the answer is '[]', else 0."""
        if self.says_absent_rightly is not None:
            return float(self.says_absent_rightly)
        return self.answer.spans.iou(self.target)


@dataclass(frozen=True)
class Segmentation:
    """The answer to one prompt about one picture, as plain data.

    Attributes:
        image: name of the picture: its path or address, or its number where it has none.
        size: (h, w) of the upright picture.
        prompt: what was asked.
        parts: outlines as the model wrote them, its vertices in pixels (edges), grouped to outer
            rings and holes; empty where it found nothing.
        mask: (h, w) bool, what the metrics score.
        box: (4,) float64 x1, y1, x2, y2 of the mask, or the box that the answer states where it
            has no mask; None where there is none.
        text: the answer as it was written.
        confidence: 0..1: mean probability of the written tokens; where several answers were voted,
            theirs times their agreement, or as calibrated; None where it is not known.
        valid: the whole text follows the grammar.
        finished: the model ended its answer; False: it was cut off or, where constrained,
            completed at the limit.
        says_nothing: the answer is that there is no such object (``[]``).
        num_tokens, seconds: of the answer.
        codec: how the text is read, such as 'int1000/default'.
        index: which picture of those given, from 0.
        warnings: why the answer may mean nothing, a sentence each.
        instances: where every instance was asked for each one as an answer of its own, with
            ``parts``, ``mask`` and ``box``; parts, mask and box above are of all together.
        agreement: how far the answers agree that were voted, 0..1; None: it was written as it is.
            Of ``objects`` each has its own.
        answers: how many there were.
        greedy_text: the answer that would have been given without a vote.
        spread: of each of ``parts`` its rings, (V, 2) float64 each: half of the answers' outlines
            pass within so many pixels of the vertex, and 90 %; NaN where that is not known, as of
            a vertex that was moved by hand; empty without a vote.
        looks: second looks, accepted or not. Where one is accepted its outline stands in parts,
            mask and box; ``text`` stays the first answer, which says the same more coarsely.
        name: of one of ``objects``, as it was written; None where names were not asked for.
    """
    image: str
    size: tuple[int, int]
    prompt: Prompt
    parts: tuple[Part, ...]
    mask: np.ndarray
    box: np.ndarray | None
    text: str
    confidence: float | None
    valid: bool
    finished: bool
    says_nothing: bool
    num_tokens: int
    seconds: float
    codec: str
    index: int = 0
    warnings: tuple[str, ...] = ()
    instances: tuple[Answer, ...] = ()
    agreement: float | None = None
    answers: int = 1
    greedy_text: str | None = None
    spread: tuple[tuple[np.ndarray, ...], ...] = ()
    looks: tuple[CropAnswer, ...] = ()
    name: str | None = None

    @classmethod
    def of(cls, answer: Answer, image: str, prompt: Prompt, index: int = 0,
           warnings: tuple[str, ...] = ()) -> 'Segmentation':
        """An answer with what was asked; see the attributes."""
        voters = answer.voters
        return cls(
            image=image, size=answer.size, prompt=prompt, parts=answer.parts, mask=answer.mask,
            box=answer.box, text=answer.text, confidence=answer.confidence,
            valid=answer.parsed.valid, finished=bool(answer.finished),
            says_nothing=answer.says_nothing, num_tokens=int(answer.num_tokens),
            seconds=float(answer.seconds), codec=answer.codec.spec, index=index,
            warnings=(*warnings, *_doubts_of_list(answer)),
            instances=answer.instances if answer.many else (),
            agreement=answer.agreement, answers=max(len(voters), 1),
            greedy_text=voters[0].text if voters else None,
            spread=tuple(tuple(outline_spread(part.rings, answer.outlines_of(one)))
                         for one in answer.instances for part in one.parts) if voters else (),
            looks=answer.looks)

    @property
    def objects(self) -> Iterator['Segmentation']:
        """What was found, an object each: itself, or where every instance was asked for one for
        each of them; itself, too, where there is none."""
        if not self.instances:
            yield self
        parts = 0
        for one in self.instances:
            spread = self.spread[parts:parts + len(one.parts)]
            parts += len(one.parts)
            yield replace(self, parts=one.parts, mask=one.spans.mask, box=one.box, text=one.text,
                          valid=one.parsed.valid, instances=(), confidence=one.confidence,
                          agreement=one.agreement, spread=spread, looks=one.looks,
                          name=one.name)

    @property
    def label(self) -> str:
        """A class name for annotation files, in one line: the expression, or where everything was
        asked for the object's name; 'object' for a point, a box, or an object without a name."""
        text = one_line((self.prompt.text if self.name is None else self.name) or '')
        return text.strip() or 'object'

    def to_dict(self) -> dict:
        """Plain numbers, lists and strings, ready for JSON.

        ``labels, scores, bboxes, masks`` are lists of one, as MMDetection's inferencer gives
        them: label 0, the confidence (1 where it is not known), xyxy pixels, COCO's RLE; empty
        lists where nothing was found. Where every instance was asked for they have one entry an
        instance, and each of the ``polygons`` says by ``instance`` which of them it is of, from 0.
        Where everything was asked for, ``classes`` are the names that were written, ``labels``
        places among them, and each polygon has its ``name``. Of a vote the ``polygons`` have
        ``spread``, a list a ring, and ``agreements`` is a list as ``scores``, else None.
        """
        boxes, masks, polygons, scores, agreements, names = [], [], [], [], [], []
        for one in self.objects:
            number = dict(instance=len(boxes)) if self.prompt.many else {}
            if one.name is not None:
                number['name'] = one.name
            spread = [dict(spread=[ring.round(2).tolist() for ring in rings])
                      for rings in one.spread] or [{}] * len(one.parts)
            polygons += [dict(outer=part.outer.tolist(),
                              holes=[hole.tolist() for hole in part.holes], **number, **more)
                         for part, more in zip(one.parts, spread)
                         if one.box is not None or not number]
            if one.box is not None:
                boxes.append(one.box.tolist())
                masks.append(mask_to_rle(one.mask))
                scores.append(1.0 if one.confidence is None else one.confidence)
                agreements.append(one.agreement)
                names.append(one.name)
        classes = list(dict.fromkeys(names))
        return dict(
            labels=list(map(classes.index, names)), scores=scores, bboxes=boxes, masks=masks,
            **(dict(classes=classes) if self.prompt.everything else {}),
            image=self.image, size=list(self.size),
            prompt=self.prompt.to_dict(), polygons=polygons,
            text=self.text, confidence=self.confidence, valid=self.valid,
            finished=self.finished, says_nothing=self.says_nothing, num_tokens=self.num_tokens,
            seconds=self.seconds, codec=self.codec, warnings=list(self.warnings),
            agreement=self.agreement, answers=self.answers, greedy_text=self.greedy_text,
            agreements=None if self.agreement is None else agreements,
            looks=[look.to_dict() for look in self.looks])


def _doubts_of_list(answer: Answer) -> Iterator[str]:
    """What of a list of instances is missing or odd, a sentence each."""
    found = answer.instances if answer.many else ()
    if not found:
        return
    if answer.finished is False or answer.parsed.truncated:
        yield f'the list is cut off after {len(found)} instances: there may be more'
    elif not answer.parsed.valid:
        dropped = answer.parsed.dropped
        yield ('the list is not valid: it is given as far as it can be read' +
               (f', without {dropped} points or rings' if dropped else ''))
    unread = sum(one.box is None for one in found)
    if unread:
        yield (f'{unread} of {len(found)} instances hold no pixel: their outline cannot be read '
               'or is too small')
    same = len(found) - unread - len({(*one.box.tolist(), one.spans.borders.tobytes(), one.name)
                                      for one in found if one.box is not None})
    if same:
        yield f'{same} of {len(found)} instances are the same as another one'
