"""Outlines as the formats want them: exact ones, holes cut open to one ring, numbers as text."""
import heapq
from collections.abc import Sequence

import cv2
import numpy as np
import shapely

from ..polygon import Part, check_parts, mask_to_parts, mask_to_rings
from ..structures import Segmentation

# Vertices of a part with holes that are joined to one ring. Our choice.
MAX_CUT_VERTICES = 500_000


def parts_of(result: Segmentation, exact: bool) -> list[Part]:
    """The model's own outline, or the pixel-exact one of its mask; edges between pixels."""
    return mask_to_parts(result.mask) if exact else list(result.parts)


def widths_of(spread: np.ndarray) -> list[float | None]:
    """From ``(V,)`` pixels within which 90 % of the answers pass a vertex: the same as numbers of
    two decimals, None where it is not known."""
    return [None if np.isnan(value) else value for value in spread.round(2).tolist()]


def opened(result: Segmentation) -> list[tuple[np.ndarray, list[float | None] | None]]:
    """The model's own outline as one ring a part, holes cut open: its ``(N, 2)`` points and, of a
    vote, for each of them within how many pixels 90 % of the answers pass it, as
    :func:`widths_of`."""
    found = []
    for number, part in enumerate(result.parts):
        rings = part.rings
        if result.spread:
            rings = [np.column_stack([ring, spread[:, -1]])
                     for ring, spread in zip(rings, result.spread[number])]
        ring = keyhole(rings[0], rings[1:])
        found.append((ring[:, :2], widths_of(ring[:, 2]) if result.spread else None))
    return found


def centre_rings(mask: np.ndarray) -> list[np.ndarray]:
    """One ring ``(N, 2) int`` a part of a mask through the centres of its border pixels, its holes
    cut open: filled inclusively (even-odd, outline drawn) all together give the mask.

    Raises:
        ValueError: too many parts, see ``mask_to_parts``.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8),
                                                               connectivity=8)
    check_parts(stats)
    rings = []
    for i in range(1, count):
        x, y, w, h = stats[i, :4].tolist()
        outer, *holes = mask_to_rings(labels[y:y + h, x:x + w] == i, 'centres')
        ring = keyhole(_dense(outer), [_dense(hole) for hole in holes])
        rings.append(_corners(ring) + np.array([x, y]))
    return rings


def keyhole(outer: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """One ring for a part with holes: a cut goes in to each hole and back the same way.

    Each cut is between the two nearest vertices of what is joined already and a hole, so that it
    crosses no other hole where vertices are dense. Time is near-linear in the vertices: such a
    pair are always neighbours in the Delaunay triangulation of all vertices.

    Args:
        outer: ``(N, 2)``, or more columns, which go with their point.
        holes: ``(M, 2)`` each, or as many.

    Returns:
        ``(N + all M + 2 a hole, 2)``, or as many, from the first vertex of ``outer``.

    Raises:
        ValueError: there are holes, and more vertices than ``MAX_CUT_VERTICES``.
    """
    rings = [np.asarray(ring) for ring in (outer, *holes) if len(ring)]
    if len(rings) < 2:
        return rings[0] if rings else np.asarray(outer)
    points = np.concatenate(rings)
    if len(points) > MAX_CUT_VERTICES:
        raise ValueError(f'a part with holes has {len(points)} points on its outlines; at most '
                         f'{MAX_CUT_VERTICES} are cut open to one ring. Choose a format that '
                         'keeps holes, such as coco or geojson')
    size = np.array([len(ring) for ring in rings])
    start = np.cumsum(size) - size
    ring_of = np.repeat(np.arange(len(rings)), size)
    cuts: dict[int, list[int]] = {}  # at each vertex, those where holes are entered
    for i, j in _cuts(points[:, :2], ring_of):
        cuts.setdefault(i, []).append(j)
    order: list[int] = []
    todo = [iter(range(size[0]))]  # by itself: a recursion could be as deep as there are holes
    while todo:
        i = next(todo[-1], None)
        if i is None:
            todo.pop()
            continue
        order.append(i)
        if cuts.get(i):  # in, round the hole, and back
            j = cuts[i].pop()
            ring = ring_of[j]
            along = (np.arange(size[ring]) + j - start[ring]) % size[ring] + start[ring]
            todo += [iter([i]), iter([*along.tolist(), j])]
    return points[order]


def uncut(ring: np.ndarray) -> list[np.ndarray]:
    """The rings of a part that :func:`keyhole`, or a tool as it does, has joined to one.

    A way in and back along the same edge is taken out where it leads to a ring of three points or
    more. The winding number round every point stays as it is.

    Args:
        ring: ``(N, 2)``.

    Returns:
        ``(M, 2)`` each; the first is what is left of ``ring``.
    """
    found: list[list[tuple]] = []
    way: list[tuple] = []
    places: dict[tuple, int] = {}  # of each edge on the way, where it begins
    points = [tuple(point) for point in np.asarray(ring, np.float64).tolist()]
    points = [point for number, point in enumerate(points) if point != points[number - 1]]
    for point in [*points, *points[:1]]:
        place = places.get((point, way[-1])) if way else None
        loop = way[place + 1:-1] if place is not None else []
        if len(set(loop)) >= 3:  # from its first point round to it again, and back
            for edge in zip(way[place:], way[place + 1:]):
                places.pop(edge, None)
            found.append(loop)
            del way[place + 1:]
            continue
        if way:
            places[way[-1], point] = len(way) - 1
        way.append(point)
    return [np.array(one) for one in (way[:-1], *found) if len(one) >= 3]


def _cuts(points: np.ndarray, ring: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of vertices, one of what is joined and the nearest one of a ring that is not.

    Args:
        points: ``(P, 2)`` vertices of all rings; ring 0 is joined.
        ring: ``(P,)`` which ring each belongs to.
    """
    unique, index = np.unique(points, axis=0, return_inverse=True)
    index = index.ravel()
    # Neighbours, and where the triangulation fails or is no graph of all, those by reading order.
    links = [np.stack([np.arange(len(unique) - 1), np.arange(1, len(unique))], axis=1)]
    try:
        lines = shapely.delaunay_triangles(shapely.multipoints(unique), only_edges=True)
        ends = shapely.get_coordinates(lines)
        parts = shapely.get_num_coordinates(shapely.get_parts(lines))
        if len(ends) and (parts == 2).all():
            links.append(_rows_of(unique, ends).reshape(-1, 2))
    except shapely.GEOSException:
        pass
    # Vertices of one place are one in the triangulation: the first stands for all of them.
    by_place = np.argsort(index, kind='stable')
    first = by_place[np.searchsorted(index[by_place], np.arange(len(unique)))]
    same = np.stack([first[index], np.arange(len(points))], axis=1)
    pairs = np.concatenate([first[np.concatenate(links)], same])
    pairs = pairs[ring[pairs[:, 0]] != ring[pairs[:, 1]]]
    apart = ((points[pairs[:, 0]].astype(np.float64) - points[pairs[:, 1]]) ** 2).sum(axis=1)
    near: dict[int, list] = {}
    for (i, j), distance in zip(pairs.tolist(), apart.tolist()):
        near.setdefault(int(ring[i]), []).append((distance, i, j))
        near.setdefault(int(ring[j]), []).append((distance, j, i))
    found, joined, heap = [], {0}, near.get(0, [])
    heapq.heapify(heap)
    while heap:
        _, i, j = heapq.heappop(heap)
        new = int(ring[j])
        if new not in joined:
            joined.add(new)
            found.append((i, j))
            for item in near[new]:
                heapq.heappush(heap, item)
    return found


def _rows_of(unique: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Index of each point among sorted, distinct ones."""
    table = {place: i for i, place in enumerate(map(tuple, unique.astype(np.float64).tolist()))}
    return np.array([table[place] for place in map(tuple, points.tolist())])


def _dense(ring: np.ndarray) -> np.ndarray:
    """Every pixel along a ring whose edges run in the eight directions."""
    after = np.roll(ring, -1, axis=0)
    steps = np.abs(after - ring).max(axis=1)
    index = np.repeat(np.arange(len(ring)), np.maximum(steps, 1))
    along = np.arange(len(index)) - np.repeat(np.cumsum(np.maximum(steps, 1))
                                              - np.maximum(steps, 1), np.maximum(steps, 1))
    return ring[index] + np.sign(after - ring)[index] * along[:, None]


def _corners(ring: np.ndarray) -> np.ndarray:
    """Without the points where a ring goes straight on; turning back is a corner."""
    if len(ring) < 3:
        return np.concatenate([ring] * 3)[:max(3, len(ring))]  # readers want three points
    into, out = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    straight = (np.sign(into) == np.sign(out)).all(axis=1) & (
        into[:, 0] * out[:, 1] == into[:, 1] * out[:, 0])
    kept = ring[~straight]
    return kept if len(kept) >= 3 else np.concatenate([kept] * 3)[:3]


def plain(ring: np.ndarray, decimals: int = 3) -> list[list[float]]:
    """Points as lists of numbers, whole ones without a fraction."""
    return [[number(x, decimals), number(y, decimals)] for x, y in np.asarray(ring).tolist()]


def number(value: float, decimals: int = 3) -> float:
    """A coordinate rounded; an int where it is whole."""
    value = round(float(value), decimals)
    return int(value) if value.is_integer() else value
