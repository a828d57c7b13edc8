"""An answer: a model's text about a picture, from the text to the mask."""
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .parts import Part
from .raster import coco_fill, mask_to_box, rings_to_mask
from .reading import ANSWER_KINDS, LIST_KINDS, NAMED_KINDS, ParsedAnswer
from .spans import Spans, fill, wind
from .spread import outline_spread
from .text import find_kind, parse_answer

if TYPE_CHECKING:
    from .codec import PolygonCodec

#: instances of two answers are one from this IoU on
SAME = 0.5


@dataclass(frozen=True)
class CropAnswer:
    """What was answered about a part of the picture, after the whole: a second look.

    Attributes:
        text: the answer; its coordinates are shares of the window.
        window: x1, y1, x2, y2 of that part, in pixels of the picture.
        instance: of an answer about every instance, which of them it outlines again, from 0.
        agreement: how far its outline is that of the first answer, 0..1.
        accepted: whether its outline is the answer's; False: the first stays.
    """
    text: str
    window: tuple[float, float, float, float]
    instance: int = 0
    agreement: float = 0.0
    accepted: bool = False

    def to_dict(self) -> dict:
        """Plain numbers and lists, ready for JSON."""
        return dict(vars(self), window=list(self.window))

    @classmethod
    def from_dict(cls, value) -> 'CropAnswer':
        """By what :meth:`to_dict` gives.

        Raises:
            ValueError: it is no such dict, in one line.
        """
        fits = isinstance(value, dict) and isinstance(value.get('text'), str) and isinstance(
            window := value.get('window'), list | tuple) and len(window) == 4 and all(
                isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9
                for v in window) and window[0] < window[2] and window[1] < window[3]
        instance, agreement = (value.get('instance', 0), value.get('agreement', 0.0)) \
            if fits else (0, 0.0)
        if not (fits and type(instance) is int and type(agreement) in (int, float)
                and isinstance(value.get('accepted', False), bool)):
            raise ValueError('a look is dict(text, window=[x1, y1, x2, y2] in pixels, instance, '
                             f'agreement, accepted), got {str(value)[:100]!r}')
        return cls(value['text'], tuple(window), instance, float(agreement),
                   value.get('accepted', False))


@dataclass(frozen=True, eq=False)
class Answer:
    """A text as an answer about a picture. It is read when something of it is first asked for,
    and once; so is its mask filled. Never raises on the text.

    Attributes:
        text: anything.
        size: (h, w) of the picture that it is about.
        codec: reads it; None for an answer in words, of which only the text is of use.
        kind: one of ``ANSWER_KINDS``, what was asked for; None: not known, the first of 'rings',
            'box' and 'point'.
        num_tokens: tokens written; None where it is not known.
        finished: whether the model ended it; None where it is not known.
        seconds: that it took to write; None where it is not known.
        confidence: 0..1: mean probability of its tokens; where it was voted, that of the voters
            times their agreement, or as calibrated; None where it is not known.
        agreement: how far the answers agree from which it was voted, 0..1; None: it was not.
        voters: these answers, the greedy one first; empty where they are not known.
        scores, agreements: of a voted list the confidence of each instance, and how far the
            answers agree about it; else empty.
        looks: second looks at it. Where one is accepted, its outline is the answer's, in ``rings``
            and in all that follows from them; ``text`` and what is parsed of it stay the first
            answer's, which says the same more coarsely.
        name: of an instance, where names were asked for, as it was written; else None.
    """
    text: str
    size: tuple[int, int]
    codec: 'PolygonCodec | None'
    kind: str | None = 'rings'
    num_tokens: int | None = None
    finished: bool | None = None
    seconds: float | None = None
    confidence: float | None = None
    agreement: float | None = None
    voters: 'tuple[Answer, ...]' = ()
    scores: tuple[float, ...] = ()
    agreements: tuple[float, ...] = ()
    looks: tuple[CropAnswer, ...] = ()
    name: str | None = None

    @cached_property
    def parsed(self) -> ParsedAnswer:
        """What was found of what was asked for."""
        if self.codec is None:
            raise ValueError('an answer without a codec is words: there is nothing to parse')
        return parse_answer(self.text, self.codec.grammar, self.kind, self.codec.max_chars)

    def found(self, kind: str) -> ParsedAnswer:
        """What was found of ``kind``, asked for or not."""
        parsed = self.parsed
        if kind in (self.kind, parsed.kind):
            return parsed
        if self.kind is None and kind not in LIST_KINDS:
            # All were looked for in turn, up to the one that was found.
            turns = (*ANSWER_KINDS[:3], parsed.kind)
            if turns.index(kind) < turns.index(parsed.kind):
                return ParsedAnswer()
        if kind not in self._others:
            self._others[kind] = find_kind(self.text, self.codec.grammar, kind,
                                           self.codec.max_chars)
        return self._others[kind]

    @cached_property
    def _others(self) -> dict[str, ParsedAnswer]:
        return {}

    @property
    def says_nothing(self) -> bool:
        """Whether the answer is that there is no such object: '[]'."""
        return self.parsed.kind == 'empty'

    @property
    def well_formed(self) -> bool:
        """The whole answer follows the grammar, lies in range, and is not known to be cut off."""
        return self.parsed.valid and self.finished is not False

    @property
    def many(self) -> bool:
        """Whether every instance was asked for, in a list."""
        return self.kind in LIST_KINDS

    @property
    def named(self) -> bool:
        """Whether names were asked for: each of ``instances`` has one, '' where none stands."""
        return self.kind in NAMED_KINDS

    @cached_property
    def instances(self) -> tuple['Answer', ...]:
        """Of a list each instance as an answer of its own, in the order of the text, also where
        nothing of it can be used; of an answer about one object that alone, unless it holds
        nothing. Where another list was asked for and is not there, the instances of the one that
        stands in its place."""
        if not self.many:
            return (self, ) if self.parsed.kind not in ('none', 'empty') or self.rings else ()
        parsed = self.parsed
        if parsed.kind == 'none':
            parsed = next((found for found in map(self.found, ('masks', 'boxes'))
                           if found.instances), parsed)
        count = len(parsed.instances)
        scores, agreements = (each if len(each) == count else (whole, ) * count
                              for each, whole in ((self.scores, self.confidence),
                                                  (self.agreements, self.agreement)))
        looks: dict[int, tuple[CropAnswer, ...]] = {}
        for look in self.looks:
            looks[look.instance] = (*looks.get(look.instance, ()), replace(look, instance=0))
        return tuple(self._instance(one, scores[i], agreements[i], looks.get(i, ()))
                     for i, one in enumerate(parsed.instances))

    def _instance(self, parsed: ParsedAnswer, confidence: float | None, agreement: float | None,
                  looks: tuple[CropAnswer, ...]) -> 'Answer':
        name = (parsed.name or '') if self.named else None
        other = Answer(self.text[slice(*parsed.span)], self.size, self.codec, parsed.kind,
                       finished=self.finished, confidence=confidence, agreement=agreement,
                       looks=looks, name=name)
        vars(other).update(parsed=parsed, _others={kind: ParsedAnswer() for kind in ANSWER_KINDS})
        return other

    @cached_property
    def rings(self) -> list[np.ndarray]:
        """``(N, 2) float64`` rings in pixels, of a list those of all instances. Where another kind
        was asked for and is not there, the rings that stand in its place."""
        if self.many:
            return [ring for one in self.instances for ring in one.rings]
        for look in self.looks:
            if look.accepted and (rings := self._seen(look)):
                return rings
        if self.parsed.kind in ('rings', 'none'):
            scale = np.array(self.size[::-1], np.float64)
            return [ring * scale for ring in self.found('rings').rings]
        return []

    def _seen(self, look: CropAnswer) -> list[np.ndarray]:
        """The rings of a look, in pixels of the picture."""
        x1, y1, x2, y2 = look.window
        found = find_kind(look.text, self.codec.grammar, 'rings', self.codec.max_chars)
        return [ring * (x2 - x1, y2 - y1) + (x1, y1) for ring in found.rings]

    @cached_property
    def mask(self) -> np.ndarray:
        """``(h, w) bool``, of a list that of all instances together; all False where the text
        holds no mask."""
        if self.many:
            return self.spans.mask
        rings = self.rings
        if self.codec.preset == 'paper':
            return coco_fill(rings, self.size)
        if self.codec.preset == 'paper-exact':
            return rings_to_mask(rings, self.size, 'centres')
        if 'spans' in vars(self):
            return self.spans.mask
        return fill(rings, self.size) if rings else np.zeros(self.size, bool)

    @cached_property
    def spans(self) -> Spans:
        """The mask as spans: for IoU, area and centroid, without its pixels."""
        if self.many:
            return Spans.union([one.spans for one in self.instances], self.size)
        rings = self.rings
        if self.codec.preset == 'default' and rings and 'mask' not in vars(self):
            return wind(rings, self.size)
        return Spans.from_mask(self.mask)

    @cached_property
    def box(self) -> np.ndarray | None:
        """``(4,) float64`` x1, y1, x2, y2 in pixels: of the mask; where there is none, the box
        that the text states; else None. Of a list the box around those of all instances."""
        if self.many:
            boxes = [one.box for one in self.instances if one.box is not None]
            return np.concatenate([np.min(boxes, axis=0)[:2],
                                   np.max(boxes, axis=0)[2:]]) if boxes else None
        box = mask_to_box(self.mask) if 'mask' in vars(self) else self.spans.box
        if box is None and not self.says_nothing:
            stated = self.found('box').box
            box = None if stated is None else stated * np.array(self.size[::-1] * 2, np.float64)
        return box

    @property
    def parts(self) -> tuple[Part, ...]:
        """The rings grouped to outer rings with their holes, as :meth:`PolygonCodec.parts`; of a
        list instance by instance."""
        if self.many:
            return tuple(part for one in self.instances for part in one.parts)
        return tuple(self.codec.parts(self.rings))

    @cached_property
    def spread(self) -> list[np.ndarray] | None:
        """How sure each vertex of ``rings`` is: of the voters' outlines, half pass within so many
        pixels of it, and 90 %; see :func:`outline_spread`. None where there are no voters."""
        if not self.voters:
            return None
        return [widths for one in self.instances
                for widths in outline_spread(one.rings, self.outlines_of(one))]

    def outlines_of(self, one: 'Answer') -> list[list[np.ndarray]]:
        """The voters' outlines of one of the instances, their rings each. Of a voter that is a
        list it is that of the instance which overlaps most, from an IoU of ``SAME`` on."""
        if not self.many:
            return [voter.rings for voter in self.voters]
        found = []
        for voter in self.voters:
            iou, other = max(((other.spans.iou(one.spans), other) for other in voter.instances
                              if other.rings), key=lambda pair: pair[0], default=(0, None))
            if iou >= SAME:
                found.append(other.rings)
        return found

    def at(self, size: tuple[int, int]) -> 'Answer':
        """The same answer about the picture at another ``size`` (h, w); it is not read again."""
        size = tuple(size)
        scale = np.divide((*size[::-1], *size[::-1]), (*self.size[::-1], *self.size[::-1]))
        other = replace(
            self, size=size, voters=tuple(voter.at(size) for voter in self.voters),
            looks=tuple(replace(look, window=tuple((scale * look.window).tolist()))
                        for look in self.looks))
        if self.codec is not None:
            vars(other).update(parsed=self.parsed, _others=self._others)
        return other

    # A record: copies of a sample share it, and files of results hold the text, not the pixels.
    def __deepcopy__(self, memo) -> 'Answer':
        return self

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in fields(self)}
