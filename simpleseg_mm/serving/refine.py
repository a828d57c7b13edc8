"""Outlines added to an object, or cut away from it: what positive and negative clicks do."""
from collections.abc import Iterator

import numpy as np
import shapely

from ..polygon import signed_area
from ..polygon.raster import MAX_COORDINATE
from .outlines import checked_rings, directed

MAX_REFINED_VERTICES = 20_000
HOW = ('add', 'cut')
#: pixels that a piece or a hole has at least, of those that an operation makes
MIN_AREA = 1.0
_PAIRS = 4_000_000  # of a point and an edge that are worked on at a time

Polygon = list[np.ndarray]  # an outer ring and its holes, (N, 2) float64 each


def refine(body: dict) -> dict:
    """Union or difference of two outlines, each filled by winding number as exports fill it.

    Args:
        body: ``size`` (h, w) of the picture; ``polygons`` of the object and those ``with`` which
            it is changed, each a list of ``dict(outer, holes)`` of rings ``[[x, y], ...]`` in
            pixels (edges), orientation plays no part; ``how``: 'add' or 'cut'.

    Returns:
        ``polygons``, of the same form: a vertex that is not touched has the numbers that it had,
        a polygon that is not touched is as it was. ``left_out``: how many pieces and holes of less
        than ``MIN_AREA`` the operation made, which are left out.

    Raises:
        ValueError: anything else, or more than the limits.
    """
    how = body.get('how')
    if how not in HOW:
        raise ValueError(f'`how` is one of {list(HOW)}, got {how!r:.40}')
    size = body.get('size')
    if not (isinstance(size, list) and len(size) == 2
            and all(type(n) is int and 0 < n <= MAX_COORDINATE for n in size)):
        raise ValueError('`size` is the height and the width of the picture, [h, w], pixels')
    polygons, other = (_read(body, key) for key in ('polygons', 'with'))
    if not other:
        raise ValueError('`with` is empty: there is nothing to add or to cut away')
    if sum(len(ring) for polygon in (*polygons, *other) for ring in polygon) \
            > MAX_REFINED_VERTICES:
        raise ValueError(f'the outlines have more than {MAX_REFINED_VERTICES} vertices; refine '
                         'outlines with fewer')
    tool = shapely.intersection(_region(other), shapely.box(0, 0, size[1], size[0]))
    parts = _parts(polygons)
    touched = [_overlap(part, tool, how) for _, part in parts]
    given = {tuple(vertex) for polygon in polygons for ring in polygon
             for vertex in ring.tolist()}
    rings = {_set_of(ring): ring for polygon in polygons for ring in polygon}
    if how == 'add':
        made = shapely.union_all([tool, *(part for (_, part), is_touched in zip(parts, touched)
                                          if is_touched)])
    found, left_out, added = [], 0, how == 'cut' or tool.is_empty
    for (polygon, part), is_touched in zip(parts, touched):
        if not is_touched:
            found += [polygon] if polygon else _written(_rings_of(part), None, given, rings)[0]
            continue
        if how == 'add' and added:  # it is in the union already
            continue
        pieces = _rings_of(made if how == 'add' else shapely.difference(part, tool))
        added = True
        kept, small = _written(pieces, polygon, given, rings)
        found, left_out = found + kept, left_out + small
    if not added:
        kept, small = _written(_rings_of(made), None, given, rings)
        found, left_out = found + kept, left_out + small
    return dict(polygons=[dict(outer=outer.tolist(), holes=[hole.tolist() for hole in holes])
                          for outer, *holes in found], left_out=left_out)


def _read(body: dict, key: str) -> list[Polygon]:
    given = body.get(key)
    if not isinstance(given, list):
        raise ValueError(f'`{key}` is a list of polygons, dict(outer, holes)')
    return [checked_rings(polygon, f'`{key}`, {number}') for number, polygon in enumerate(given)]


# --- what rings cover --------------------------------------------------------------------------
def _parts(polygons: list[Polygon]) -> list[tuple[Polygon | None, shapely.Geometry]]:
    """Polygons with what each covers. Where one crosses itself, its windings may undo those of
    others, so that what all of them cover takes their place, and there is no polygon."""
    shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    if all(map(shapely.is_valid, shapes)):
        return list(zip(polygons, shapes))
    return [(None, part) for part in shapely.get_parts(_region(polygons))]


def _region(polygons: list[Polygon]) -> shapely.Geometry:
    """What polygons cover: where the winding numbers of their rings, each outer one turned one
    way and each hole the other, do not add up to zero."""
    shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    if all(map(shapely.is_valid, shapes)):
        return shapely.union_all(shapes)
    rings = [directed(ring, 1 if k else -1) for polygon in polygons
             for k, ring in enumerate(polygon)]
    lines = shapely.union_all([shapely.LineString([*ring, ring[0]]) for ring in rings])
    faces = shapely.get_parts(shapely.polygonize([lines]))
    inner = shapely.get_coordinates(shapely.point_on_surface(faces))
    return shapely.union_all(faces[_windings(rings, inner) != 0])


def _windings(rings: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """How often rings wind around each of ``(N, 2)`` points, ``(N,) int``."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    (x1, y1), (x2, y2) = starts.T, ends.T
    found = np.zeros(len(points), int)
    step = max(1, _PAIRS // len(starts))
    for first in range(0, len(points), step):
        x, y = points[first:first + step].T[..., None]
        side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
        up, down = (y1 <= y) & (y2 > y) & (side > 0), (y2 <= y) & (y1 > y) & (side < 0)
        found[first:first + step] = up.sum(axis=1) - down.sum(axis=1)
    return found


def _overlap(part: shapely.Geometry, tool: shapely.Geometry, how: str) -> bool:
    """Whether an operation changes a part: what only touches it at a border is cut from nothing,
    and added to it where they share more than points."""
    if not shapely.intersects(part, tool):
        return False
    common = shapely.intersection(part, tool)
    return common.area > 0 or (how == 'add' and common.length > 0)


# --- rings of the result -----------------------------------------------------------------------
def _rings_of(shape: shapely.Geometry) -> Iterator[Polygon]:
    for part in shapely.get_parts(shape):
        if part.geom_type == 'Polygon' and not part.is_empty:
            yield [np.array(ring.coords)[:-1] for ring in (part.exterior, *part.interiors)]


def _set_of(ring: np.ndarray) -> frozenset:
    return frozenset(map(tuple, ring.tolist()))


def _written(pieces: Iterator[Polygon], like: Polygon | None, given: set[tuple],
             rings: dict[frozenset, np.ndarray]) -> tuple[list[Polygon], int]:
    """Polygons of an operation, and how many pieces and holes were too small: rings that are as
    they were are given as they were; the others run and begin as ``like`` does, where they have
    its vertices, and have two decimals where a vertex is new."""
    kept, small = [], 0
    order = {tuple(vertex): k for ring in (like or [])[::-1]  # the outer one has the last word
             for k, vertex in enumerate(ring.tolist())}
    for piece in pieces:
        written = []
        for k, ring in enumerate(piece):
            old = rings.get(_set_of(ring))
            if old is not None and len(old) == len(ring):
                written.append(old)
                continue
            if abs(signed_area(ring)) < MIN_AREA:
                small += 1
                if k == 0:
                    break
                continue
            model = like[0] if like else None
            sign = -1 if model is None or signed_area(model) <= 0 else 1
            ring = directed(ring, -sign if k else sign)
            vertices = list(map(tuple, ring.tolist()))
            old = np.array([vertex in given for vertex in vertices])
            first = min(range(len(ring)), key=lambda i: order.get(vertices[i], len(order)))
            written.append(np.roll(np.where(old[:, None], ring, ring.round(2)), -first, axis=0))
        if written:
            kept.append(written)
    return kept, small
