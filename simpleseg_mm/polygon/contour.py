"""Mask to oriented rings: outlines of parts and holes, in either reading of a ring.

A ring is an ``(N, 2)`` array, x then y, without a repeated closing point. Its numbers have one
of two readings:

``centres``
    Pixel indices of the outermost pixels, as border following (Suzuki and Abe) returns them.
    Pixel (0, 0) is the point (0, 0). The exact inverse is an *inclusive* fill.
``edges``
    Image coordinates of the border between pixels. Pixel (0, 0) covers the square from (0, 0)
    to (1, 1). The exact inverse is the set of pixels whose centre the ring winds around.

In both, outer rings have negative shoelace area with y down (as OpenCV returns them:
counter-clockwise on the screen) and holes have positive area.
"""

import cv2
import numpy as np

READINGS = ('centres', 'edges')

#: x, y times this grow from left to right and from line to line; exact below 1e6 pixels
_READING_ORDER = np.array([1.0, 1e6])

#: borders of a mask from which its rings may be too many for OpenCV. Our choice.
MANY_BORDERS = 1 << 15
#: parts, and holes, of which the outlines of such a mask are followed in reading 'centres'
MOST_RINGS = 1 << 13


def check_reading(reading: str) -> str:
    """Return ``reading`` or raise ValueError."""
    if reading not in READINGS:
        raise ValueError(f'reading is {reading!r}; a ring is read as one of {READINGS}')
    return reading


def check_mask(mask) -> np.ndarray:
    """Return ``mask`` as a contiguous ``(H, W) uint8`` array of 0 and 1, or raise ValueError.

    It may share the memory of a bool mask.
    """
    mask = _check_kind(mask)
    return np.ascontiguousarray(mask if mask.dtype == bool else mask != 0).view(np.uint8)


def _check_kind(mask) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f'a mask has shape (H, W), got {mask.shape}; pass one mask at a time')
    if mask.size and mask.dtype.kind not in 'bui':
        raise ValueError(f'a mask is bool or integer, got {mask.dtype}; threshold it first')
    return mask


def signed_area(ring) -> float:
    """Shoelace area of a ring, pixels squared; negative for an outer ring (y points down)."""
    ring = np.asarray(ring, np.float64)
    if len(ring) < 3:
        return 0.0
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def canonical_start(ring: np.ndarray) -> np.ndarray:
    """Roll a ring so that it starts at its top-most, then left-most vertex."""
    first = int((ring @ _READING_ORDER).argmin())
    return np.concatenate([ring[first:], ring[:first]]) if first else ring


def crop_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Tight ``(x0, y0, x1, y1)`` of the non-zero pixels, right and bottom exclusive, or None."""
    if not mask.size:
        return None
    rows = mask.max(axis=1) > 0
    top = int(rows.argmax())
    if not rows[top]:
        return None
    bottom = len(rows) - int(rows[::-1].argmax())
    columns = mask[top:bottom].max(axis=0) > 0
    return (int(columns.argmax()), top, len(columns) - int(columns[::-1].argmax()), bottom)


class _Chain:
    """Many rings in one array, so that thousands of them cost no more than a few numpy calls.

    Attributes:
        points: ``(P, 2) int32``, ring after ring.
        size: ``(R,) int64`` points of each ring, at least 1.
    """

    def __init__(self, points: np.ndarray, size: np.ndarray) -> None:
        self.points, self.size = points, size
        self.start = np.cumsum(size) - size
        self.ring = np.repeat(np.arange(len(size)), size)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The points before and after each point."""
        index = np.arange(len(self.points))
        last = self.start + self.size - 1
        before, after = index - 1, index + 1
        before[self.start] = last
        after[last] = self.start
        return self.points.take(before, axis=0), self.points.take(after, axis=0)

    def keep(self, mask: np.ndarray) -> '_Chain':
        return _Chain(self.points[mask], np.bincount(self.ring[mask], minlength=len(self.size)))

    def rings(self, wanted: np.ndarray) -> '_Chain':
        """The rings for which ``wanted`` ``(R,) bool`` is True."""
        return _Chain(self.points[wanted[self.ring]], self.size[wanted])

    def areas(self) -> np.ndarray:
        """Shoelace area of every ring."""
        points = (self.points - self.points[self.start][self.ring]).astype(np.int64)
        after = _Chain(points, self.size).neighbours()[1]
        cross = points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]
        return np.add.reduceat(cross, self.start) / 2

    def from_canonical_start(self) -> '_Chain':
        """Every ring rolled to its top-most, then left-most point."""
        x, y = self.points.T
        first = np.lexsort((x, y, self.ring))[self.start] - self.start
        along = np.arange(len(self.points)) - self.start[self.ring] + first[self.ring]
        index = self.start[self.ring] + along % self.size[self.ring]
        return _Chain(self.points[index], self.size)


def _order(chain: _Chain, parent: np.ndarray, most: int | None = None) -> list[int]:
    """Outer rings by decreasing area (then top, left), each followed by its holes likewise.

    ``most``: only so many rings, those of the largest area. (A hole's outer ring is larger.)
    """
    x, y = chain.points[chain.start].T
    rank = np.lexsort((x, y, -np.abs(chain.areas())))[:most].tolist()
    holes = {}
    for i in rank:
        holes.setdefault(int(parent[i]), []).append(i)
    return [i for outer in holes.get(-1, []) for i in (outer, *holes.get(outer, []))]


def mask_to_rings(mask, reading: str = 'centres', holes: bool = True, most: int | None = None
                  ) -> list[np.ndarray]:
    """Trace every part and hole of a mask.

    Args:
        mask: ``(H, W)`` bool or integer; non-zero is foreground.
        reading: 'centres' or 'edges', see the module.
        holes: trace holes too; False fills them.
        most: give only so many rings, those of the largest area; None: all.

    Returns:
        A list of ``(N, 2) int32`` rings, x then y, pixels; straight runs are merged. Outer rings
        by decreasing area, each followed by its own holes; every ring starts at its top-most,
        then left-most point. Foreground is 8-connected. An empty mask gives an empty list.
        ``rings_to_mask`` with the same reading is the exact inverse.
    """
    check_reading(reading)
    mask = _check_kind(mask)
    # 0 and 1 are not asked for: of bytes, the whole mask need not be copied
    mask = mask if mask.dtype == np.uint8 else check_mask(mask)
    box = crop_of(mask)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    return trace_crop(mask[y0:y1, x0:x1], (x0, y0), reading, holes, most)


def trace_crop(crop: np.ndarray, corner: tuple[int, int], reading: str, holes: bool,
               most: int | None = None) -> list[np.ndarray]:
    """``mask_to_rings`` of the part of a mask that its tight box holds.

    Args:
        crop: ``(h, w) uint8``, not empty.
        corner: x, y of its top left pixel in the mask.
        reading, holes, most: as there.
    """
    # A ring has two borders between a pixel and its right neighbour, or the frame, at least.
    if crop.size <= MANY_BORDERS or _count_borders(crop) <= MANY_BORDERS:
        contours, hierarchy = _contours(crop, reading, holes)
        if len(contours) == 1 and reading == 'centres':  # most masks: nothing to put in order
            return [canonical_start(contours[0][:, 0]) + np.array(corner, np.int32)]
        chain, parent = _followed(contours, hierarchy, reading)
    elif reading == 'edges':
        chain, parent = _linked(crop, holes)
    else:
        chain, parent = _followed(*_contours(_without_small(crop), reading, holes), reading)
    if len(chain.size) == 1:
        return [canonical_start(chain.points) + np.array(corner, np.int32)]
    chain = chain.from_canonical_start()
    points = chain.points + np.array(corner, np.int32)
    order = _order(chain, parent, most)
    ends = (chain.start + chain.size).tolist()
    starts = chain.start.tolist()
    return [points[starts[i]:ends[i]] for i in order]


def _count_borders(crop: np.ndarray) -> int:
    return int(np.count_nonzero(crop[:, 1:] != crop[:, :-1])) + 2 * len(crop)


def _contours(crop: np.ndarray, reading: str, holes: bool) -> tuple:
    """OpenCV's border following: contours and hierarchy."""
    if reading == 'edges':
        crop = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    mode = cv2.RETR_CCOMP if holes else cv2.RETR_EXTERNAL
    return cv2.findContours(crop, mode, cv2.CHAIN_APPROX_SIMPLE)


def _followed(contours, hierarchy, reading: str) -> tuple[_Chain, np.ndarray]:
    """Rings of contours, and the index of each one's outer ring or -1."""
    chain = _Chain(np.concatenate(contours)[:, 0], np.array([len(c) for c in contours]))
    return _to_edges(chain) if reading == 'edges' else chain, hierarchy[0, :, 3]


def _without_small(crop: np.ndarray) -> np.ndarray:
    """A mask of many parts and holes without the smallest, by their boxes."""
    parts = (crop > 0).astype(np.uint8)
    for value, connectivity in ((0, 8), (1, 4)):  # parts, then holes
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            np.pad(parts ^ value, 1, constant_values=value), connectivity=connectivity)
        if count > MOST_RINGS:
            size = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
            size[0] = 0
            small = np.argsort(-size, kind='stable')[MOST_RINGS:]
            drop = np.zeros(count, bool)
            drop[small] = True
            drop[0] = False
            parts[drop[labels[1:-1, 1:-1]]] = value
    return parts


def _linked(crop: np.ndarray, holes: bool) -> tuple[_Chain, np.ndarray]:
    """``_followed`` for edges in time of the corners, however many rings there are.

    OpenCV looks for a hole's outer ring among the rings before it. Here the corners between
    pixels are linked along rows and columns, and the rings fall out of the links.
    """
    mask = np.pad(crop > 0, 1)
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]  # round a corner
    bent = (a ^ b ^ c ^ d)
    saddle = (a == d) & (b == c) & (a != b)  # two rings meet, or one meets itself
    y, x = np.nonzero(bent | saddle)
    twice = saddle[y, x]
    index = np.repeat(np.arange(len(y)), 1 + twice)
    y, x, twice = y[index], x[index], twice[index]
    second = np.zeros(len(y), bool)
    second[1:] = index[1:] == index[:-1]  # of a saddle: first the link to the left, then right
    # Along a row, and along a column, corners are the ends of borders in turn.
    side = np.arange(len(y)) ^ 1
    falling = a[y, x]  # of a saddle: a and d are set, so the left link turns down
    below = np.where(twice, second != falling, False)
    column = np.lexsort((below, y, x))
    other = np.empty(len(y), np.int64)
    other[column] = column[np.arange(len(y)) ^ 1]
    left_end = np.arange(len(y)) % 2 == 0
    # The mask is on the left hand: above a border that runs right, below one that runs left.
    runs_left = np.where(left_end, d[y, x], c[y, x])
    leaves_along_row = left_end != runs_left
    after = np.where(leaves_along_row, side, other)
    before = np.where(leaves_along_row, other, side)
    root = _roots(after)
    rank = _ranks(before, root)
    order = np.lexsort((rank, root))
    starts = np.flatnonzero(rank[order] == 0)
    size = np.diff(starts, append=len(order))
    points = np.stack([x[order], y[order]], axis=1).astype(np.int32)
    # A root is a top left corner: of an outer ring its pixel is set, of a hole the one above.
    x, y = points[starts].T
    outer = d[y, x]
    if not holes:  # those around which the background reaches the frame
        labels = cv2.connectedComponents((~mask).view(np.uint8), connectivity=4)[1]
        outer &= labels[y, x + 1] == labels[0, 0]
        chain = _Chain(points, size).rings(outer)
        return chain, np.full(len(chain.size), -1)
    labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
    label = labels[y + outer, x + 1]
    owner = np.zeros(int(label.max()) + 1, np.int64)
    owner[label[outer]] = np.flatnonzero(outer)
    return _Chain(points, size), np.where(outer, -1, owner[label])


def _roots(after: np.ndarray) -> np.ndarray:
    """The least index of each one's cycle."""
    root = np.arange(len(after))
    while True:
        new = np.minimum(root, root[after])
        if np.array_equal(new, root):
            return root
        root, after = new, after[after]


def _ranks(before: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Steps from its root to each index of a cycle."""
    index = np.arange(len(before))
    before = np.where(root == index, index, before)
    rank = (before != index).astype(np.int64)
    while not np.array_equal(before, root):
        rank, before = rank + rank[before], before[before]
    return rank


def _to_edges(chain: _Chain) -> _Chain:
    """Turn the contours of a mask enlarged twice into corners between pixels.

    The enlarged pixel 2x is the left half of pixel x and borders edge x; 2x + 1 is its right
    half and borders edge x + 1. A diagonal step round a concave corner has both ends there.
    """
    chain = _Chain((chain.points + 1) // 2, chain.size)
    before, _ = chain.neighbours()
    new = chain.points != before
    chain = chain.keep(new[:, 0] | new[:, 1])
    before, after = chain.neighbours()
    turns = (before != chain.points) | (chain.points != after)
    return chain.keep(turns[:, 0] & turns[:, 1])
