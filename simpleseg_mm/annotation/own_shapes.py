"""Shapes as annotation tools hold them, put together as objects of one's own."""
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .own_account import Account
from .own_formats import BOX_ALONE, BOX_BESIDE, OwnObject, OwnPicture

_CIRCLE = 64  # corners that stand for an ellipse


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
    """
    where: str
    label: str
    part: object = None
    fault: str = ''
    group: Hashable = None
    box: bool = False
    areal: bool = True
    phrases: Sequence[str] = ()


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


def flat(points: np.ndarray) -> list[float]:
    """``(N, 2)`` as a flat polygon."""
    return np.asarray(points, float).ravel().tolist()


def turned_by(points: np.ndarray, about: Sequence[float], degrees: float) -> np.ndarray:
    """``(N, 2)`` turned about a point, clockwise as one sees it: y points down."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """``(4, 2)`` of a box."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


def ellipse(center: Sequence[float], radii: Sequence[float], degrees: float = 0) -> np.ndarray:
    """``(64, 2)`` corners on an ellipse."""
    turns = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns)], 1) * radii + center
    return turned_by(around, center, degrees)


def numbers(values: Iterable, count: int | None = None) -> np.ndarray:
    """``(N,) float64``, finite.

    Raises:
        ValueError: a value is no such number, or there are not so many.
    """
    try:
        found = np.array([float(value) for value in values], np.float64)
    except (TypeError, OverflowError):
        raise ValueError('no numbers') from None
    if not np.isfinite(found).all() or count not in (None, len(found)):
        raise ValueError('no finite numbers, or not as many as it takes')
    return found
