"""Documents of the page as corrected pictures, checked."""
from collections.abc import Mapping
from functools import partial

import numpy as np

from ..export.corrections import ACTIONS, CorrectedObject, CorrectedPicture, Rejected
from ..files import one_line
from ..polygon import rings_to_spans
from ..polygon.raster import MAX_COORDINATE
from ..structures import Prompt, Segmentation
from .edited import MAX_SET_PIXELS, CheckedObject, answers, check_objects
from .outlines import checked_review

_MAX_COUNT = 1_000_000  # of one kind of action
_MAX_NAME = 1000  # characters of an id, or a model's name


def read_corrected(document: Mapping) -> CorrectedPicture:
    """One document, as docs/serving.md describes it, as :func:`..export.to_corrections` takes it.

    Args:
        document: ``name``, ``width``, ``height``, ``objects``, ``done`` and ``rejected``; an
            object has ``origin`` (the question and the model's outline), ``edited`` and
            ``actions`` besides ``label`` and ``polygons``. What it does not have is not known.

    Raises:
        ValueError: it is of another form, in one line.
    """
    size = document.get('height'), document.get('width')
    if not all(type(side) is int and side > 0 for side in size):
        raise ValueError('a document has `width` and `height` of its picture, whole pixels')
    name = _text(document.get('name'), 'name')
    if not name:
        raise ValueError("a document has `name`, that of its picture's file")
    items, (done, rejected) = document.get('objects', []), checked_review(document)
    checked = check_objects(size, items, MAX_SET_PIXELS)
    objects = tuple(_object(number, item, one, name, size)
                    for number, (item, one) in enumerate(zip(items, checked)))
    deleted = check_objects(size, [
        dict(label=one.get('label'), polygons=_fillable(_polygons(
            one.get('polygons'), f'rejected answer {number}')))
        for number, one in enumerate(rejected)], MAX_SET_PIXELS)
    return CorrectedPicture(name, size, done, objects, tuple(
        Rejected(_prompt(one.get('prompt'), f'rejected answer {number}'),
                 rings_to_spans(outline.rings, size), one)
        for number, (one, outline) in enumerate(zip(rejected, deleted))))


def _draw(name: str, size: tuple[int, int], checked: CheckedObject) -> Segmentation:
    return next(answers(name, size, [checked]))


def _object(number: int, item: dict, checked: CheckedObject, name: str, size: tuple[int, int]
            ) -> CorrectedObject:
    where = f'object {number}'
    origin, actions = ({} if item.get(key) is None else item[key] for key in ('origin', 'actions'))
    if not isinstance(origin, dict):
        raise ValueError(f'{where}: `origin` is dict(prompt, polygons, score, model), or null')
    if not isinstance(actions, dict) or not all(
            type(actions.get(name, 0)) is int and 0 <= actions.get(name, 0) <= _MAX_COUNT
            for name in ACTIONS):
        raise ValueError(f'{where}: `actions` has numbers of {", ".join(ACTIONS)}')
    edited = item.get('edited', False)
    if not isinstance(edited, bool):
        raise ValueError(f'{where}: `edited` is true or false')
    score = origin.get('score')
    if score is not None and (type(score) not in (int, float) or not 0 <= score <= 1):
        raise ValueError(f"{where}: the origin's `score` is a number from 0 to 1, or null")
    return CorrectedObject(
        one_line(checked.label).strip() or 'object', rings_to_spans(checked.rings, size),
        partial(_draw, name, size, checked), _prompt(origin.get('prompt'), where),
        _polygons(origin.get('polygons'), where), score,
        _text(origin.get('model'), f"{where}: the origin's `model`") or None, edited,
        {name: actions.get(name, 0) for name in ACTIONS},
        _text(item.get('id'), f'{where}: `id`'))


def _prompt(value, where: str) -> Prompt | None:
    try:
        return None if value is None else Prompt.of(value)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None


def _text(value, what: str) -> str:
    if value is None:
        return ''
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise ValueError(f'{what} is a text of at most {_MAX_NAME} characters')
    return value


def _polygons(value, where: str) -> list[dict]:
    """Outlines as they were written, which need not be whole: a ring may have one point."""
    if value is None:
        return []
    try:
        return [dict(outer=_ring(one['outer']),
                     holes=[_ring(hole) for hole in one.get('holes', [])]) for one in value]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise ValueError(f"{where}: the model's polygons are dict(outer, holes) of rings [x, y], "
                         f'none beyond {MAX_COORDINATE:g}') from None


def _fillable(polygons: list[dict]) -> list[dict]:
    return [dict(outer=one['outer'], holes=[hole for hole in one['holes'] if len(hole) > 2])
            for one in polygons if len(one['outer']) > 2]


def _ring(points) -> list[list[float]]:
    ring = np.array(points, np.float64).reshape(-1, 2)
    if len(ring) != len(points) or not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError
    return ring.tolist()
