"""Which way annotations mean a picture that EXIF turns: as it is stored, or upright.

Two things show it, for tags 5 to 8 on pictures that are no squares: outlines that lie inside the
picture one way and outside it the other, and the size that the annotations state.
"""
from collections import Counter
from collections.abc import Iterable

import numpy as np

from .labelme import Crop
from .pictures import turned

_BEYOND = 0.01  # of the longer side that an outline may reach beyond its picture, at least 2 px


def slack_of(size: tuple[int, int]) -> float:
    """Pixels that an outline may reach beyond a picture of ``size`` (h, w)."""
    return max(2.0, _BEYOND * max(size))


def way_of_outlines(parts: Iterable, size: tuple[int, int], tag: int) -> str | None:
    """The way, 'stored' or 'upright', that most outlines need which fit only one; None where none
    does, or as many.

    Args:
        parts: flat polygons, RLE dicts or :class:`Crop`; others say nothing.
        size: (h, w) of the picture as it is stored.
        tag: its EXIF orientation.
    """
    other = turned(size, tag)
    if other == size:
        return None
    slack = slack_of(size)
    votes: Counter[str] = Counter()
    for part in parts:
        reach = _extent(part)
        if reach is None:
            continue
        if isinstance(part, dict):  # an RLE is of one size exactly
            fits = [reach == one[::-1] for one in (size, other)]
        else:
            fits = [reach[0] <= one[1] + slack and reach[1] <= one[0] + slack
                    for one in (size, other)]
        if fits[0] != fits[1]:
            votes['stored' if fits[0] else 'upright'] += 1
    if votes['stored'] == votes['upright']:
        return None
    return max(votes, key=votes.get)


def way_of_size(said: tuple[int, int] | None, size: tuple[int, int], tag: int) -> str | None:
    """The way that a stated size (h, w) means; None where both have it, or neither."""
    other = turned(size, tag)
    if other == size or said not in (size, other):
        return None
    return 'stored' if said == size else 'upright'


def _extent(part) -> tuple[float, float] | None:
    """Largest x and y of a part; the size (w, h) of an RLE's picture; None where it is
    unreadable, or does not say."""
    try:
        if isinstance(part, dict):
            height, width = part['size']
            return float(width), float(height)
        if isinstance(part, Crop):
            return float(part.x), float(part.y)
        if not isinstance(part, list):
            return None
        points = np.asarray(part, float).reshape(-1, 2)
        return (float(points[:, 0].max()), float(points[:, 1].max())) if len(points) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
