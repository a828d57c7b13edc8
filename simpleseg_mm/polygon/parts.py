"""Rings grouped to parts: an outer ring and its holes, as most annotation formats want them."""
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import cv2
import numpy as np
from shapely import GEOSException, Polygon

from .contour import check_mask, mask_to_rings, signed_area


@dataclass(frozen=True)
class Part:
    """A connected piece of an object.

    Attributes:
        outer: ``(N, 2) float64`` ring, x then y, pixels (edges: pixel (0, 0) covers (0, 0) to
            (1, 1)), without a repeated closing point; negative shoelace area with y down.
        holes: rings of the same form, of positive area.
    """
    outer: np.ndarray
    holes: Tuple[np.ndarray, ...] = ()

    @property
    def rings(self) -> List[np.ndarray]:
        """The outer ring, then the holes."""
        return [self.outer, *self.holes]


def group_rings(rings: Sequence, oriented: bool = True) -> List[Part]:
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
    areas = [signed_area(ring) for ring in rings]
    outward = 1 if areas[int(np.argmax(np.abs(areas)))] > 0 else -1
    holes: dict = {}
    outers = [i for i, area in enumerate(areas) if not oriented or area * outward >= 0]
    by_size = sorted(outers, key=lambda i: abs(areas[i]))
    for i in set(range(len(rings))) - set(outers):
        point = _inner_point(rings[i])
        around = (k for k in by_size if abs(areas[k]) >= abs(areas[i]))
        owner = next((k for k in around if _contains(rings[k], point)), None)
        if owner is None:
            outers.append(i)
        else:
            holes.setdefault(owner, []).append(i)
    return [Part(_turned(rings[i], -1), tuple(_turned(rings[k], 1)
                                              for k in sorted(holes.get(i, []))))
            for i in sorted(outers)]


def mask_to_parts(mask) -> List[Part]:
    """The pixel-exact outline of a mask ``(H, W)``, by parts, largest first.

    A part is 4-connected and no ring touches itself, so that every part is a valid polygon of
    OGC's simple features; rings of one part meet in points at most. Pixels whose centre lies in a
    part, and the mask's, are the same.
    """
    mask = check_mask(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    order = sorted(range(1, count), key=lambda i: -stats[i, cv2.CC_STAT_AREA])
    parts: List[Part] = []
    for i in order:
        x, y, w, h = stats[i, :4].tolist()
        crop = labels[y:y + h, x:x + w] == i
        rings = [simple + np.array([x, y], np.float64)
                 for ring in mask_to_rings(crop, 'edges') for simple in _split(ring)]
        parts += group_rings(rings)
    return parts


def _split(ring: np.ndarray) -> List[np.ndarray]:
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


def _inner_point(ring: np.ndarray) -> np.ndarray:
    try:
        point = Polygon(ring).representative_point()
        return np.array([point.x, point.y])
    except (GEOSException, ValueError):  # the ring crosses itself
        return ring.mean(axis=0)


def _contains(ring: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point has a winding number other than zero."""
    a, b = ring, np.roll(ring, -1, axis=0)
    upward, downward = (a[:, 1] <= point[1]) & (b[:, 1] > point[1]), \
        (a[:, 1] > point[1]) & (b[:, 1] <= point[1])
    side = ((b[:, 0] - a[:, 0]) * (point[1] - a[:, 1])
            - (point[0] - a[:, 0]) * (b[:, 1] - a[:, 1]))
    return bool(np.count_nonzero(upward & (side > 0)) - np.count_nonzero(downward & (side < 0)))
