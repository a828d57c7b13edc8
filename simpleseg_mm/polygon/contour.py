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
from typing import List, Optional, Tuple

import cv2
import numpy as np

READINGS = ('centres', 'edges')


def check_reading(reading: str) -> str:
    """Return ``reading`` or raise ValueError."""
    if reading not in READINGS:
        raise ValueError(f'reading is {reading!r}; a ring is read as one of {READINGS}')
    return reading


def check_mask(mask) -> np.ndarray:
    """Return ``mask`` as a contiguous ``(H, W) uint8`` array of 0 and 1, or raise ValueError."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f'a mask has shape (H, W), got {mask.shape}; pass one mask at a time')
    if mask.size and mask.dtype.kind not in 'bui':
        raise ValueError(f'a mask is bool or integer, got {mask.dtype}; threshold it first')
    return np.ascontiguousarray(mask != 0).view(np.uint8)


def signed_area(ring) -> float:
    """Shoelace area of a ring, pixels squared; negative for an outer ring (y points down)."""
    ring = np.asarray(ring, np.float64)
    if len(ring) < 3:
        return 0.0
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def canonical_start(ring: np.ndarray) -> np.ndarray:
    """Roll a ring so that it starts at its top-most, then left-most vertex."""
    first = int(np.lexsort((ring[:, 0], ring[:, 1]))[0])
    return np.roll(ring, -first, axis=0)


def crop_of(mask: np.ndarray) -> Optional[Tuple[int, int, int, int]]:
    """Tight ``(x0, y0, x1, y1)`` of the non-zero pixels, right and bottom exclusive, or None."""
    x, y, w, h = cv2.boundingRect(mask)
    return None if w == 0 or h == 0 else (x, y, x + w, y + h)


def _order(contours, hierarchy) -> List[int]:
    """Outer rings by decreasing area (then top, left), each followed by its holes likewise."""
    start = [contour[np.lexsort((contour[:, 0], contour[:, 1]))[0]] for contour in contours]
    key = [(-abs(signed_area(ring)), int(p[1]), int(p[0])) for ring, p in zip(contours, start)]
    holes = {}
    for i, row in enumerate(hierarchy):
        holes.setdefault(int(row[3]), []).append(i)
    order = []
    for outer in sorted(holes.get(-1, []), key=key.__getitem__):
        order.append(outer)
        order.extend(sorted(holes.get(outer, []), key=key.__getitem__))
    return order


def mask_to_rings(mask, reading: str = 'centres', holes: bool = True) -> List[np.ndarray]:
    """Trace every part and hole of a mask.

    Args:
        mask: ``(H, W)`` bool or integer; non-zero is foreground.
        reading: 'centres' or 'edges', see the module.
        holes: trace holes too; False fills them.

    Returns:
        A list of ``(N, 2) int32`` rings, x then y, pixels; straight runs are merged. Outer rings
        by decreasing area, each followed by its own holes. Foreground is 8-connected. An empty
        mask gives an empty list. ``rings_to_mask`` with the same reading is the exact inverse.
    """
    check_reading(reading)
    mask = check_mask(mask)
    box = crop_of(mask)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    crop = mask[y0:y1, x0:x1]
    if reading == 'edges':
        crop = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    mode = cv2.RETR_CCOMP if holes else cv2.RETR_EXTERNAL
    contours, hierarchy = cv2.findContours(crop, mode, cv2.CHAIN_APPROX_SIMPLE)
    contours = [contour[:, 0] for contour in contours]
    if reading == 'edges':
        contours = [_to_edges(contour) for contour in contours]
    if len(contours) == 1:
        order = [0]
    else:
        order = _order(contours, hierarchy[0])
    offset = np.array([x0, y0], np.int32)
    return [canonical_start(contours[i]) + offset for i in order]


def _to_edges(contour: np.ndarray) -> np.ndarray:
    """Turn the contour of a mask enlarged twice into corners between pixels.

    The enlarged pixel 2x is the left half of pixel x and borders edge x; 2x + 1 is its right
    half and borders edge x + 1. A diagonal step round a concave corner has both ends there.
    """
    ring = (contour + 1) // 2
    ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    straight = ((before == ring) & (ring == after)).any(axis=1)
    return ring[~straight]
