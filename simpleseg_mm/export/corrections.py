"""What annotators corrected, as a training set: a COCO file that ``own_data.py`` takes as it is.

A question is asked again in training only where its truth is known. In a picture that is marked
done that is so for every object; in one that is not, for those that were changed by hand alone:
an answer that nobody touched may be one that nobody looked at.
"""
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..polygon import Spans, mask_iou, mask_to_rle, rings_to_spans, segmentation_to_mask
from ..structures import Prompt, Segmentation
from .prepare import prepared, with_sign
from .sets import to_coco

#: of a set of corrections; the pictures lie in ``images/`` beside it
CORRECTIONS_FILE = 'annotations.json'
#: what an annotator did for an object: questions by pointer, and vertices
ACTIONS = ('clicks', 'moved', 'added', 'removed', 'drawn')

_UNNAMED = 'object'  # the label of what was not given one
_FILLED_ALIKE = 0.98  # IoU from which COCO's filling of a polygon is ours. Our choice
_SAME = 0.5  # IoU from which a deleted answer is taken for an object that is there. Our choice
_SMALL_WORDS = frozenset('a an and at by from in is of on that the to with'.split())
_ANYTHING = ('any', 'it', 'item', 'object', 'one', 'other', 'shape', 'some', 'thing', 'this')
_WORD = re.compile(r'[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+')


def is_touched(edited: bool, actions: Mapping[str, int]) -> bool:
    """Whether a hand has changed an outline: clicks alone ask the model again."""
    return edited or any(count for name, count in actions.items() if name != 'clicks')


@dataclass(frozen=True, eq=False)
class CorrectedObject:
    """An object as it was left.

    Attributes:
        label: in one line; 'object' where it was not given one.
        spans: what it covers.
        draw: makes its outline with its mask, which is not kept.
        prompt: what was asked; None where nobody asked, as of one that was drawn by hand.
        before: the polygons as the model wrote them, ``dict(outer, holes)`` each.
        score: of the model's outline.
        model: which one wrote it.
        edited: whether it was changed by hand.
        actions: how often each of ``ACTIONS`` was done.
        id: its own in its picture.
    """
    label: str
    spans: Spans
    draw: Callable[[], Segmentation]
    prompt: Prompt | None = None
    before: Sequence[dict] = ()
    score: float | None = None
    model: str | None = None
    edited: bool = False
    actions: dict[str, int] = field(default_factory=dict)
    id: str = ''

    @property
    def question(self) -> str | None:
        """The expression that was asked, if it was one."""
        return None if self.prompt is None else self.prompt.text

    @property
    def name(self) -> str | None:
        """Its label, where it was given one."""
        return None if _key(self.label) == _UNNAMED else self.label

    @property
    def touched(self) -> bool:
        """Whether a hand has changed its outline."""
        return is_touched(self.edited, self.actions)


@dataclass(frozen=True, eq=False)
class Rejected:
    """An answer of the model that was deleted whole: its question, what it covers, its record."""
    prompt: Prompt | None
    spans: Spans
    record: dict


@dataclass(frozen=True, eq=False)
class CorrectedPicture:
    """One picture as it was left.

    Attributes:
        name: of its file below ``images/``, with ``/``.
        size: (h, w), upright.
        done: whether all that is on it is annotated, and right.
    """
    name: str
    size: tuple[int, int]
    done: bool
    objects: Sequence[CorrectedObject] = ()
    rejected: Sequence[Rejected] = ()


def to_corrections(pictures: Iterable[CorrectedPicture], exact: bool = False
                   ) -> tuple[dict, list[str]]:
    """A COCO file of corrections, and what was left out or not asked, a line each.

    An annotation's ``segmentation`` is the outline as it was left, as :func:`.sets.to_coco` writes
    it, or an RLE where COCO would fill that otherwise; ``phrase`` is what it is asked by;
    ``correction`` has ``question`` (the prompt), ``before`` (the model's polygons), ``iou`` (of
    before and after; null where the model wrote nothing), ``score``, ``model``, ``edited`` and
    ``actions``. An image has ``done`` and ``rejected``, the answers that were deleted whole, and
    ``absent_phrases``.

    - A picture that is done: an expression means the objects that it was asked for and those that
      have it as their label; an object that no expression was asked for is asked by its label,
      which then means all objects of that label. A deleted answer's expression fits nothing,
      unless it may mean an object that is there.
    - Another picture: the objects that were changed by hand, each by its expression alone, where
      no other object may be meant by it; no label, and nothing that is absent.

    Args:
        pictures: read one by one; no more than one is held, and one mask.
        exact: see :func:`.sets.to_coco`.

    Raises:
        ValueError: no picture is done and no object was changed.
    """
    left: Counter[str] = Counter()
    images, annotations = [], []
    categories: dict[str, int] = {}
    for picture in pictures:
        kept = list(_kept(picture, left))
        if not (kept or picture.done):
            left['pictures that are not marked done and on which no object was changed'] += 1
            continue
        phrases = (_done_phrases if picture.done else _single_phrases)(picture, kept, left)
        image_id = len(images) + 1
        for one, texts in zip(kept, phrases, strict=True):
            annotations.append(dict(
                _row(one, exact, left), id=len(annotations) + 1, image_id=image_id, phrase=texts,
                category_id=categories.setdefault(one.label, len(categories) + 1),
                correction=_correction(one)))
        images.append(dict(
            id=image_id, file_name=picture.name, height=picture.size[0], width=picture.size[1],
            done=picture.done, rejected=[one.record for one in picture.rejected],
            absent_phrases=_absent(picture, left)))
        if not picture.done or any(_may_be_anything(one) for one in kept):
            images[-1].update(neg_category_ids=[], not_exhaustive_category_ids=True)
    if not images:
        raise ValueError('no picture is marked done and no object was changed by hand: there is '
                         'nothing to learn from. Mark the pictures done that are')
    for image in images:  # own_data.py then asks for no category there
        if 'not_exhaustive_category_ids' in image:
            image['not_exhaustive_category_ids'] = list(categories.values())
        if not image['absent_phrases']:
            del image['absent_phrases']
    content = dict(images=images, annotations=annotations,
                   categories=[dict(id=number, name=name) for name, number in categories.items()])
    return content, [f'{count} {reason}' for reason, count in left.items()]


def _row(one: CorrectedObject, exact: bool, left: Counter) -> dict:
    """An annotation with the outline."""
    answer = replace(one.draw(), index=0)
    row, = to_coco(prepared([answer]), exact)['annotations']
    filled = segmentation_to_mask(row['segmentation'], *answer.size)
    if mask_iou(filled, answer.mask) < _FILLED_ALIKE:
        row['segmentation'] = mask_to_rle(answer.mask)
        left['objects written as masks: COCO would fill their polygons otherwise (small ones, '
             'holes, outlines that cross themselves)'] += 1
    return row


def _correction(one: CorrectedObject) -> dict:
    return dict(id=one.id, question=None if one.prompt is None else one.prompt.to_dict(),
                before=list(one.before), iou=_iou_before(one), score=one.score, model=one.model,
                edited=one.edited, actions={name: one.actions.get(name, 0) for name in ACTIONS})


def _iou_before(one: CorrectedObject) -> float | None:
    rings = [with_sign(ring, sign) for polygon in one.before for ring, sign in (
        (polygon['outer'], -1), *((hole, 1) for hole in polygon.get('holes', ())))
        if len(ring) > 2]
    if not one.before:
        return None
    return round(rings_to_spans(rings, one.spans.size).iou(one.spans), 4)


def _kept(picture: CorrectedPicture, left: Counter) -> Iterator[CorrectedObject]:
    """Objects that are known to be right."""
    for one in picture.objects:
        if not one.spans.area:
            left['objects without a pixel in their picture, left out'] += 1
        elif not (picture.done or one.touched):
            left['objects left out: they were not changed, and their picture is not marked done, '
                 'so nobody has said that they are right'] += 1
        else:
            yield one


def _may_be_anything(one: CorrectedObject) -> bool:
    return one.name is None and one.question is None


def _done_phrases(picture: CorrectedPicture, kept: Sequence[CorrectedObject], left: Counter
                  ) -> list[list[str]]:
    """What each object is asked by, where all that is on the picture is known."""
    spelled: dict[str, str] = {}
    for one in kept:
        text = one.question or one.name
        if text:
            spelled.setdefault(_key(text), text)
    barred = {_key(text) for one in picture.objects if not one.spans.area
              for text in (one.question, one.name) if text} & spelled.keys()
    single = {_key(one.question) for one in kept if one.question and not one.prompt.all}
    if any(_may_be_anything(one) for one in kept):
        barred |= spelled.keys() - single
    names = {_key(one.name) for one in kept if one.name}
    barred |= {_key(one.question) for one in kept  # it was of another thing, which is there too?
               if one.question and one.name and _key(one.name) != _key(one.question)} & names
    if barred:
        left['expressions not asked on their picture: an object that has no name, no pixel or '
             'another name now may be meant too'] += len(barred)
    found = []
    for one in kept:
        if one.question and one.name and _key(one.question) != _key(one.name):
            left['objects asked by their expression, not by their label, which is another'] += 1
        keys = dict.fromkeys(_key(text) for text in (one.question, one.name) if text)
        found.append([spelled[key] for key in keys if key in spelled and key not in barred])
        if _may_be_anything(one):
            left['objects without a name or an expression: they train points and boxes alone '
                 '(own_data.py --prompts)'] += 1
    return found


def _single_phrases(picture: CorrectedPicture, kept: Sequence[CorrectedObject], left: Counter
                    ) -> list[list[str]]:
    """What each object is asked by, where others may not be annotated yet."""
    used: Counter[str] = Counter()
    for one in picture.objects:
        used.update({_key(text) for text in (one.question, one.name) if text})
    found = []
    for one in kept:
        alone = one.question and not one.prompt.all and used[_key(one.question)] == 1
        found.append([one.question] if alone else [])
        if not alone:
            left['objects that were changed on a picture that is not marked done, and that no '
                 'expression means alone: they train points and boxes alone (own_data.py '
                 '--prompts)'] += 1
    return found


def _absent(picture: CorrectedPicture, left: Counter) -> list[str]:
    """Expressions that fit nothing on the picture."""
    found: dict[str, str] = {}
    for one in picture.rejected:
        text = None if one.prompt is None else one.prompt.text
        if text is None:
            left['deleted answers to a point, a box or a question for everything: there is no '
                 'such question for nothing'] += 1
        elif not picture.done:
            left['deleted answers on pictures that are not marked done: what they were asked for '
                 'may be there'] += 1
        elif any(_may_mean(text, one.spans, other) for other in picture.objects):
            left['deleted answers whose expression may mean an object that is there: it shares '
                 'a word or the place, or means anything'] += 1
        else:
            found.setdefault(_key(text), text)
    return list(found.values())


def _may_mean(text: str, spans: Spans, other: CorrectedObject) -> bool:
    """Whether an expression may mean an object that the annotator kept or drew anew."""
    words = _words(text)
    known = {word for said in (other.question, other.name) if said for word in _words(said)}
    return (not words or not known or any(_alike(word, thing) for word in words
                                          for thing in (*known, *_ANYTHING))
            or spans.iou(other.spans) >= _SAME)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold())) - _SMALL_WORDS


def _alike(one: str, other: str) -> bool:
    """The same word, or forms of it, as far as their beginnings show it."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) > 2 and long.startswith(short))


def _key(text: str) -> str:
    return ' '.join(text.casefold().split())
