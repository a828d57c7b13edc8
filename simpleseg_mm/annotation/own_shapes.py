"""Shapes as annotation tools hold them, put together as objects of one's own."""
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from .own_account import Account
from .own_formats import BOX_ALONE, BOX_BESIDE, OwnObject, OwnPicture


@dataclass(frozen=True)
class DrawnShape:
    """A shape of a tool.

    Attributes:
        where: names it in messages.
        label: its category; '' where it has none.
        part: its outline, as :class:`.own_formats.OwnObject` holds it; None where it has none.
        fault: why it has none.
        group: shapes of one label and group are parts of one object; None: it is one by itself.
        box: whether it is a rectangle, upright or turned.
        areal: False for points and lines, which an object may have beside its outline.
        phrases: expressions that mean it.
        score: see :class:`.own_formats.OwnObject`.
    """
    where: str
    label: str
    part: object = None
    fault: str = ''
    group: Hashable = None
    box: bool = False
    areal: bool = True
    phrases: Sequence[str] = ()
    score: float | None = None


def add_shapes(picture: OwnPicture, shapes: Iterable[DrawnShape], take_boxes: bool,
               account: Account, cuts: Sequence[tuple[int, object]] = ()) -> None:
    """Add the objects that shapes are to a picture.

    Args:
        take_boxes: whether a box outlines its object. Else one alone is lost, but keeps its part:
            :class:`.own_pictures.Checker` looks for an outline that it goes with.
        cuts: (number of the shape that it comes before, outline): what it covers of the shapes
            before it is taken off them.
    """
    groups: dict = {}
    for number, shape in enumerate(shapes):
        if not shape.label:
            picture.objects.append(OwnObject(shape.where, [], None,
                                             lost=shape.fault or 'shape without a label'))
            continue
        key = number if shape.group is None else (shape.label, shape.group)
        groups.setdefault(key, []).append((number, shape))
    objects, boxes = [], []
    for members in groups.values():
        shapes = [shape for _, shape in members]
        one = OwnObject(shapes[0].where, [], shapes[0].label, records=len(shapes))
        one.phrases = list(dict.fromkeys(text for shape in shapes for text in shape.phrases))
        one.score = next((shape.score for shape in shapes if shape.score is not None), None)
        outlines = [shape for shape in shapes if take_boxes or not shape.box]
        if not outlines:
            one.lost, one.parts = BOX_ALONE, [shape.part for shape in shapes]
            boxes.append(one)
            continue
        one.parts = [shape.part for shape in outlines if shape.part is not None]
        for shape in outlines:
            if shape.fault and one.parts and not shape.areal:
                account.change('point or line of an object with an outline', one.where)
            elif shape.fault:
                one.lost = one.lost or shape.fault
            elif shape.box:
                account.decide('rectangle read as the outline of its object (--boxes leave: it is '
                               'none)', one.where)
        account.change(BOX_BESIDE, one.where, len(shapes) - len(outlines))
        one.cuts = [part for place, part in cuts if place > members[-1][0]]
        objects.append(one)
    picture.objects += [*objects, *boxes]
