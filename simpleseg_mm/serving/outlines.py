"""Outlines and scores in requests, held to the same rules wherever they come in."""
import numpy as np

from ..polygon import signed_area
from ..polygon.raster import MAX_COORDINATE

# An area below which a ring has none: coordinates have two decimals. The page has the same number
# (twice, as its area is), so that it fills what an export fills (static/geometry.js).
_FLAT = 2.5e-5


def checked_rings(polygon, where: str) -> list[np.ndarray]:
    """Rings (n, 2) of a polygon ``dict(outer, holes)``, the outer one first.

    Args:
        where: names the polygon in messages.

    Raises:
        ValueError: it is no polygon, or a ring has fewer than 3 points or one far outside.
    """
    if not isinstance(polygon, dict) or not isinstance(polygon.get('holes', []), list):
        raise ValueError(f'{where}: a polygon is dict(outer, holes)')
    return [_ring(points, where) for points in (polygon.get('outer'), *polygon.get('holes', []))]


def _ring(points, where: str) -> np.ndarray:
    try:
        ring = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):  # a whole number may have 400 digits
        ring = np.zeros(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 \
            or not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError(f'{where}: a ring is a list of at least 3 points [x, y], pixels, none '
                         f'beyond {MAX_COORDINATE:g}')
    return ring


def checked_review(document: dict) -> tuple[bool, list[dict]]:
    """Of the document of a picture: whether it is done, and the answers that were rejected.

    Raises:
        ValueError: either is of another form.
    """
    done, rejected = document.get('done', False), document.get('rejected')
    if not isinstance(done, bool):
        raise ValueError('`done` is true or false')
    rejected = [] if rejected is None else rejected
    if not isinstance(rejected, list) or not all(isinstance(one, dict) for one in rejected):
        raise ValueError('`rejected` is a list of answers, dict(prompt, polygons, label)')
    return done, rejected


def checked_share(item: dict, key: str, where: str) -> float | None:
    """A score, 0..1, or None where it is not known. Raises ValueError."""
    value = item.get(key)
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise ValueError(f'{where}: `{key}` is a number from 0 to 1, or null')
    return value


def directed(ring: np.ndarray, sign: int) -> np.ndarray:
    """The ring with an area of this sign; one that crosses itself to an area of 0 as it is."""
    return ring[::-1] if signed_area(ring) * sign < -_FLAT else ring
