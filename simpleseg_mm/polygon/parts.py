"""Rings grouped to parts: an outer ring and its holes, as most annotation formats want them."""
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from .contour import check_mask, mask_to_rings, signed_area
from .spans import CHUNK

# Parts of a mask, and pixels of the boxes around them, that are traced one by one. Our choice.
MAX_PARTS = 20_000
MAX_BOXES = 1 << 31


@dataclass(frozen=True)
class Part:
    """A connected piece of an object.

    Attributes:
        outer: ``(N, 2) float64`` ring, x then y, pixels (edges: pixel (0, 0) covers (0, 0) to
            (1, 1)), without a repeated closing point; negative shoelace area with y down.
        holes: rings of the same form, of positive area.
    """
    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def rings(self) -> list[np.ndarray]:
        """The outer ring, then the holes."""
        return [self.outer, *self.holes]


def group_rings(rings: Sequence, oriented: bool = True) -> list[Part]:
    """Rings to parts, by the rule by which ``rings_to_mask`` fills them.

    The ring of the largest area says which way outer rings run. A ring that runs the other way is
    a hole of the smallest outer ring around it, or a part of its own where there is none.

    Args:
        rings: ``(N, 2)`` arrays of any text: they may cross themselves and each other.
        oriented: False where orientation plays no part (the 'paper' preset): every ring is a
            part.

    Returns:
        Parts in the order of their outer rings, all turned the canonical way. Their rings filled
        together by winding number give the mask of ``rings``, unless a ring crosses itself or
        others.
    """
    rings = [np.asarray(ring, np.float64) for ring in rings if len(ring) >= 3]
    if not rings:
        return []
    areas = np.array([signed_area(ring) for ring in rings])
    outward = 1 if areas[int(np.argmax(np.abs(areas)))] > 0 else -1
    is_hole = areas * outward < 0 if oriented else np.zeros(len(rings), bool)
    outers, inner = np.flatnonzero(~is_hole).tolist(), np.flatnonzero(is_hole).tolist()
    holes: dict = {}
    for i, owner in zip(inner, _owners(rings, np.abs(areas), outers, inner)):
        if owner is None:
            outers.append(i)
        else:
            holes.setdefault(owner, []).append(i)
    return [Part(_turned(rings[i], -1), tuple(_turned(rings[k], 1) for k in holes.get(i, [])))
            for i in sorted(outers)]


def _owners(rings: list[np.ndarray], areas: np.ndarray, outers: list[int], holes: list[int]
            ) -> list[int | None]:
    """Of each hole the smallest outer ring, no smaller than the hole, that winds around its inner
    point, or None.

    The edges of the outer rings that cross the row of a hole's point are counted, some holes at a
    time: time is that of these crossings, memory that of the rings.
    """
    if not holes:
        return []
    points = _inner_points([rings[i] for i in holes])
    by_height = np.argsort(points[:, 1], kind='stable')
    x, y = points[by_height].T
    a = np.concatenate([rings[i] for i in outers])
    b = np.concatenate([np.roll(rings[i], -1, axis=0) for i in outers])
    by_size = np.array(sorted(outers, key=lambda i: areas[i]))  # stable: of equal ones the first
    rank = np.empty(len(rings), np.int64)
    rank[by_size] = np.arange(len(by_size))
    least = areas[by_size].searchsorted(areas[holes])[by_height]
    ring = rank[outers].repeat([len(rings[i]) for i in outers])
    # An edge crosses the rows of the holes first to last, in their order by height.
    ends = y.searchsorted(a[:, 1]), y.searchsorted(b[:, 1])
    first, last = np.minimum(*ends), np.maximum(*ends)
    done = (np.bincount(first, minlength=len(y) + 1)
            - np.bincount(last, minlength=len(y) + 1)).cumsum().cumsum()
    most = max(CHUNK, len(a))
    (ax, ay), (dx, dy), down = a.T.copy(), (b - a).T.copy(), b[:, 1] > a[:, 1]
    owner, top, before = np.full(len(holes), -1), 0, 0
    while top < len(y):
        bottom = min(max(int(done.searchsorted(before + most, 'right')), top + 1), len(y))
        which = np.flatnonzero((first < bottom) & (last > top))
        start = first[which].clip(top)
        count = last[which].clip(max=bottom) - start
        edge = which.repeat(count)
        hole = np.arange(len(edge)) + (start - (count.cumsum() - count)).repeat(count)
        side = dx.take(edge) * (y.take(hole) - ay.take(edge))
        side -= (x.take(hole) - ax.take(edge)) * dy.take(edge)
        crossed = (side > 0) == down.take(edge)
        crossed &= side != 0
        crossed &= least.take(hole) <= ring.take(edge)  # of smaller rings none is the owner
        edge = edge[crossed]
        pair = (hole[crossed] - top) * len(by_size) + ring.take(edge)
        way = 2.0 * down.take(edge) - 1
        if (bottom - top) * len(by_size) > 4 * most:  # few of the pairs are there
            pairs, pair = np.unique(pair, return_inverse=True)
            pairs = pairs[np.bincount(pair, way, len(pairs)) != 0]
        else:
            pairs = np.flatnonzero(np.bincount(pair, way))
        hole, found = np.divmod(pairs, len(by_size))
        hole, index = np.unique(hole, return_index=True)  # the smallest comes first
        owner[by_height[hole + top]] = by_size[found[index]]
        top, before = bottom, int(done[bottom - 1])
    return [None if i < 0 else int(i) for i in owner]


def mask_to_parts(mask) -> list[Part]:
    """The pixel-exact outline of a mask ``(H, W)``, by parts, largest first.

    A part is 4-connected and no ring touches itself, so that every part is a valid polygon of
    OGC's simple features; rings of one part meet in points at most. Pixels whose centre lies in a
    part, and the mask's, are the same.

    Raises:
        ValueError: no mask, or one of more parts than ``MAX_PARTS`` or of boxes around them that
            have more pixels than ``MAX_BOXES``.
    """
    mask = check_mask(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    check_parts(stats)
    order = sorted(range(1, count), key=lambda i: -stats[i, cv2.CC_STAT_AREA])
    parts: list[Part] = []
    for i in order:
        x, y, w, h = stats[i, :4].tolist()
        crop = labels[y:y + h, x:x + w] == i
        rings = [simple + np.array([x, y], np.float64)
                 for ring in mask_to_rings(crop, 'edges') for simple in _split(ring)]
        parts += group_rings(rings)
    return parts


def check_parts(stats: np.ndarray) -> None:
    """Raise ValueError where the components of a mask are too many to be traced one by one.

    Args:
        stats: of ``cv2.connectedComponentsWithStats``.
    """
    boxes = (stats[1:, cv2.CC_STAT_WIDTH].astype(np.int64) * stats[1:, cv2.CC_STAT_HEIGHT]).sum()
    if len(stats) - 1 > MAX_PARTS or boxes > MAX_BOXES:
        raise ValueError(f'the mask falls into {len(stats) - 1} parts, too many for outlines '
                         f'(at most {MAX_PARTS}, and {MAX_BOXES} pixels in the boxes around '
                         'them); keep it as a mask, or leave out its small parts')


def _split(ring: np.ndarray) -> list[np.ndarray]:
    """A ring that comes back to a vertex, cut there into rings that do not."""
    simple, path, seen = [], [], {}
    for point in map(tuple, ring.tolist()):
        if point in seen:
            start = seen[point]
            loop = path[start:]
            for other in loop[1:]:
                del seen[other]
            del path[start + 1:]
            simple.append(np.array(loop))
        else:
            seen[point] = len(path)
            path.append(point)
    simple.append(np.array(path))
    return [_straightened(loop) for loop in simple]


def _straightened(ring: np.ndarray) -> np.ndarray:
    """Without the vertices in the middle of a straight run, which cutting can leave."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    return ring[~((before == ring) & (ring == after)).any(axis=1)]


def _turned(ring: np.ndarray, sign: int) -> np.ndarray:
    """The ring with an area of this sign; its first vertex stays."""
    return np.roll(ring[::-1], 1, axis=0) if signed_area(ring) * sign < 0 else ring


def _inner_points(rings: list[np.ndarray]) -> np.ndarray:
    """A point in each ring, ``(R, 2)``; of one that crosses itself it may lie outside."""
    try:
        polygons = shapely.polygons([shapely.linearrings(ring) for ring in rings])
        points = shapely.get_coordinates(shapely.point_on_surface(polygons))
        if len(points) == len(rings):
            return points
    except (shapely.GEOSException, ValueError):
        pass
    return np.array([_inner_point(ring) for ring in rings])


def _inner_point(ring: np.ndarray) -> np.ndarray:
    try:
        point = shapely.Polygon(ring).representative_point()
        return np.array([point.x, point.y])
    except (shapely.GEOSException, ValueError):  # the ring crosses itself
        return ring.mean(axis=0)
