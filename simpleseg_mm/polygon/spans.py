"""Masks as spans of pixels: what areas, IoU and centroids need, with no pixel written.

A span is a run of pixels that follow one another in reading order, row after row; pixel (x, y)
of an image of width w has the number ``y * w + x``. A polygon over a 640 x 480 image is a few
hundred spans, so that reading an answer costs its outline, not its area.
"""
import math
from dataclasses import dataclass
from functools import cached_property
from typing import List, Optional, Tuple

import numpy as np

from .contour import check_mask, crop_of

# A pixel's centre, and a hair more: a border that runs through centres is decided alike however
# its coordinates were rounded.
TIE = 0.5 + 1e-6


@dataclass(frozen=True, eq=False)
class Spans:
    """A mask as the borders of its spans.

    Attributes:
        borders: ``(2 N,) int64``, strictly increasing: first pixel of each span, first pixel
            after it. A span may go on in the next row.
        size: (h, w) of the mask.
    """
    borders: np.ndarray
    size: Tuple[int, int]

    @classmethod
    def from_mask(cls, mask) -> 'Spans':
        """Spans of a mask ``(H, W)``."""
        mask = check_mask(mask)
        box = crop_of(mask)
        if box is None:
            return cls(np.zeros(0, np.int64), mask.shape)
        _, top, _, bottom = box
        rows = mask[top:bottom].ravel()
        change = np.flatnonzero(rows[1:] != rows[:-1]) + 1
        ends = [np.zeros(int(rows[0]), np.int64), change,
                np.full(int(rows[-1]), len(rows), np.int64)]
        return cls(np.concatenate(ends) + top * mask.shape[1], mask.shape)

    @cached_property
    def mask(self) -> np.ndarray:
        """``(h, w) bool``."""
        h, w = self.size
        mask = np.zeros(h * w, bool)
        for start, end in self.borders.reshape(-1, 2).tolist():  # faster than a pass over pixels
            mask[start:end] = True
        return mask.reshape(h, w)

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.borders[1::2].sum() - self.borders[::2].sum())

    @cached_property
    def box(self) -> Optional[np.ndarray]:
        """Tight box ``(4,) float64`` x1, y1, x2, y2, right and bottom exclusive; None if empty."""
        if not len(self.borders):
            return None
        w = self.size[1]
        first, last = self.borders[::2], self.borders[1::2] - 1
        rows, columns = first // w, first % w
        if (last // w > rows).any():  # what goes on in the next row touches both sides
            left, right = 0, w
        else:
            left, right = columns.min(), (last % w).max() + 1
        return np.array([left, rows[0], right, last[-1] // w + 1], np.float64)

    @cached_property
    def centroid(self) -> Optional[Tuple[float, float]]:
        """Mean x and y of the pixels' indices, None if empty."""
        if not self.area:
            return None
        w = self.size[1]
        row, column = self.borders // w, self.borders % w
        # Sums of x and y over all pixels of the image before each border.
        x = row * (w * (w - 1) // 2) + column * (column - 1) // 2
        y = w * (row * (row - 1) // 2) + row * column
        return tuple(int(s[1::2].sum() - s[::2].sum()) / self.area for s in (x, y))

    def shared(self, other: 'Spans') -> int:
        """Pixels that both masks have."""
        self._check(other)
        few, many = sorted((self, other), key=lambda spans: len(spans.borders))
        before = many._before(few.borders)
        return int(before[1::2].sum() - before[::2].sum())

    def _before(self, pixels: np.ndarray) -> np.ndarray:
        """How many pixels of the mask come before each of ``pixels``."""
        if not len(self.borders):
            return np.zeros(len(pixels), np.int64)
        first, end = self.borders[::2], self.borders[1::2]
        index = np.searchsorted(first, pixels, 'right') - 1  # span that starts at or before it
        done = np.concatenate([[0], np.cumsum(end - first)])
        inside = np.minimum(pixels, end[index]) - first[index]
        return np.where(index < 0, 0, done[index] + inside)

    def iou(self, other: 'Spans') -> float:
        """Intersection over union, 1.0 when both are empty: ``mask_iou`` of the masks."""
        shared = self.shared(other)
        union = self.area + other.area - shared
        return shared / union if union else 1.0

    def _check(self, other: 'Spans') -> None:
        if tuple(self.size) != tuple(other.size):
            raise ValueError(f'masks have shapes {self.size} and {other.size}; resize one first')


def wind(rings: List[np.ndarray], size) -> Spans:
    """Pixels whose centre has a winding number other than zero, summed over all rings.

    Args:
        rings: ``(N, 2) float64`` each, N at least 1, x then y, image coordinates.
        size: ``(h, w)``; what lies outside is cut off.
    """
    h, w = size
    points = rings[0] if len(rings) == 1 else np.concatenate(rings)
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x0, y0 = (min(max(math.floor(v), 0), side) for v, side in zip(low, (w, h)))
    x1, y1 = (min(max(math.ceil(v), 0), side) for v, side in zip(high, (w, h)))
    if x1 <= x0 or y1 <= y0:
        return Spans(np.zeros(0, np.int64), (h, w))
    row, column, down = _crossings(points - np.array([x0, y0], np.float64), _following(rings),
                                   (y1 - y0, x1 - x0))
    # One number a crossing, so that one sort of whole numbers does: twice the pixel, and the way.
    # Column w is the next row's first pixel: there the winding numbers of a row are back at 0.
    key = ((row + y0) * w + (column + x0)) * 2 + down
    key.sort()
    pixel, winding = key >> 1, ((key & 1) * 2 - 1).cumsum()
    final = np.flatnonzero(pixel[1:] != pixel[:-1])  # crossings of one pixel count together
    inside = np.zeros(len(final) + 1, bool)
    inside[1:] = winding[final]
    turn = np.flatnonzero(inside[1:] != inside[:-1])
    borders = pixel[final[turn]]
    if len(borders) % 2:  # the last crossing of all ends what is open
        borders = np.append(borders, pixel[-1])
    return Spans(borders, (h, w))


def _following(rings: List[np.ndarray]) -> np.ndarray:
    """Index of the point after each point of the rings laid end to end; rings close."""
    after = np.arange(1, sum(map(len, rings)) + 1)
    end = 0
    for ring in rings:
        start, end = end, end + len(ring)
        after[end - 1] = start
    return after


def _crossings(points: np.ndarray, after: np.ndarray, size) -> Tuple[np.ndarray, ...]:
    """Where the edges from ``points`` to ``points[after]`` cross the rows of pixel centres.

    Args:
        points: ``(E, 2) float64``, image coordinates.
        after: ``(E,)`` index of each edge's other end.
        size: ``(h, w)``; rows outside are dropped, columns are clipped to 0..w.

    Returns:
        ``(row, column, down)``, edge after edge: the centre of pixel ``(row, j)`` lies right of
        the crossing exactly for ``j >= column``; whether the edge runs down there.
    """
    h, w = size
    x, y = points.T
    level = np.ceil(y - TIE)
    level = np.minimum(np.maximum(level, 0, out=level), h, out=level).astype(np.int64)
    other = level[after]
    first = np.minimum(level, other)
    count = np.abs(other - level)
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(len(edge)) + (first - (count.cumsum() - count))[edge]
    dy = y[after] - y
    slope = (x[after] - x) / np.where(np.abs(dy) > 1e-9, dy, np.inf)
    at = row * slope[edge]
    at += (x + (0.5 - y) * slope - TIE)[edge]
    np.ceil(at, out=at)
    np.minimum(np.maximum(at, 0, out=at), w, out=at)
    return row, at.astype(np.int64), (dy > 0)[edge]
