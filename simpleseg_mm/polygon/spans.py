"""Masks as spans of pixels: what areas, IoU and centroids need, with no pixel written.

A span is a run of pixels that follow one another in reading order, row after row; pixel (x, y)
of an image of width w has the number ``y * w + x``. A polygon over a 640 x 480 image is a few
hundred spans, so that reading an answer costs its outline, not its area.
"""
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .contour import check_mask, crop_of

# A pixel's centre, and a hair more: a border that runs through centres is decided alike however
# its coordinates were rounded.
TIE = 0.5 + 1e-6

# Crossings that are worked on at a time: a few MB of arrays, and fastest. Our choice.
CHUNK = 1 << 15
# Pixels a border above which spans are painted one by one. Our choice, by time.
SPARSE = 100


@dataclass(frozen=True, eq=False)
class Spans:
    """A mask as the borders of its spans.

    Attributes:
        borders: ``(2 N,) int64``, strictly increasing: first pixel of each span, first pixel
            after it. A span may go on in the next row.
        size: (h, w) of the mask.
    """
    borders: np.ndarray
    size: tuple[int, int]

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

    @classmethod
    def union(cls, masks: Sequence['Spans'], size: tuple[int, int]) -> 'Spans':
        """Pixels that any of some masks of ``size`` (h, w) has."""
        for mask in masks:
            _check_sizes(mask.size, size)
        pixel = np.concatenate([np.zeros(0, np.int64), *(mask.borders for mask in masks)])
        change = np.ones(len(pixel), np.int64)
        change[1::2] = -1  # every mask has an even number
        order = np.lexsort([-change, pixel])  # what begins where another ends goes on
        depth = change[order].cumsum()
        ends = depth == 0
        starts = np.roll(ends, 1)
        return cls(pixel[order[ends | starts]], tuple(size))

    @property
    def mask(self) -> np.ndarray:
        """``(h, w) bool``, made anew each time."""
        mask = np.zeros(self.size, bool)
        self.paint(mask)
        return mask

    def paint(self, mask: np.ndarray) -> None:
        """Set the pixels in a mask ``(h, w) bool``, contiguous, where they are all False yet."""
        _paint(mask.reshape(-1), self.borders)

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int((self.borders[1::2] - self.borders[::2]).sum())

    @cached_property
    def box(self) -> np.ndarray | None:
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
    def centroid(self) -> tuple[float, float] | None:
        """Mean x and y of the pixels' indices, None if empty."""
        if not self.area:
            return None
        w = self.size[1]
        row, column = self.borders // w, self.borders % w
        # Sums of x and y over all pixels of the image before each border.
        x = row * (w * (w - 1) // 2) + column * (column - 1) // 2
        y = w * (row * (row - 1) // 2) + row * column
        return tuple(int((s[1::2] - s[::2]).sum()) / self.area for s in (x, y))

    def shared(self, other: 'Spans') -> int:
        """Pixels that both masks have."""
        _check_sizes(self.size, other.size)
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


def _check_sizes(one: tuple[int, int], other: tuple[int, int]) -> None:
    if tuple(one) != tuple(other):
        raise ValueError(f'masks have shapes {one} and {other}; resize one first')


def count_crossings(rings: Sequence[np.ndarray], size) -> int:
    """Rows of an image that the edges of rings cross, summed over all edges: what filling costs.

    Args:
        rings: ``(N, 2)`` each, x then y, image coordinates.
        size: ``(h, w)``; what lies outside costs nothing.
    """
    total = 0
    for ring in rings:
        level = _levels(np.asarray(ring, np.float64)[:, 1], size[0])
        total += int(np.abs(level - np.roll(level, 1)).sum())
    return total


def wind(rings: list[np.ndarray], size) -> Spans:
    """Pixels whose centre has a winding number other than zero, summed over all rings.

    Time is that of the crossings (``count_crossings``), memory that of the rings and the spans.

    Args:
        rings: ``(N, 2) float64`` each, N at least 1, x then y, image coordinates.
        size: ``(h, w)``; what lies outside is cut off.
    """
    pieces: list[np.ndarray] = []
    for borders in _borders(rings, size):
        if len(borders) and pieces and pieces[-1][-1] == borders[0]:
            pieces[-1], borders = pieces[-1][:-1], borders[1:]  # a span that goes on
        if len(borders):
            pieces.append(borders)
    if len(pieces) == 1:
        return Spans(pieces[0], tuple(size))
    return Spans(np.concatenate([np.zeros(0, np.int64), *pieces]), tuple(size))


def fill(rings: list[np.ndarray], size) -> np.ndarray:
    """The mask ``(h, w) bool`` of ``wind``, without keeping its spans."""
    h, w = size
    mask = np.zeros(h * w, bool)
    for borders in _borders(rings, size):
        _paint(mask, borders)
    return mask.reshape(h, w)


def _paint(mask: np.ndarray, borders: np.ndarray) -> None:
    """Set the spans of ``borders`` in a flat mask, where they are all False yet."""
    if not len(borders):
        return
    first, end = int(borders[0]), int(borders[-1])
    if end - first > SPARSE * len(borders):  # few spans: faster than a pass over the pixels
        for start, stop in borders.reshape(-1, 2).tolist():
            mask[start:stop] = True
        return
    mask[borders[:-1]] = True
    part = mask[first:end]
    np.logical_xor.accumulate(part, out=part)


def _borders(rings: list[np.ndarray], size) -> Iterator[np.ndarray]:
    """Borders of the spans of some rows at a time, from top to bottom.

    A chunk is as many rows as have ``CHUNK`` crossings, or one row; so memory does not grow with
    the height of the image.
    """
    h, w = size
    points = rings[0] if len(rings) == 1 else np.concatenate(rings)
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x0, y0 = (min(max(math.floor(v), 0), side) for v, side in zip(low, (w, h)))
    x1, y1 = (min(max(math.ceil(v), 0), side) for v, side in zip(high, (w, h)))
    if x1 <= x0 or y1 <= y0:
        return
    edges = _Edges(points - np.array([x0, y0], np.float64), _following(rings), (y1 - y0, x1 - x0))
    for top, bottom in edges.chunks():
        row, column, down = edges.crossings(top, bottom)
        if not len(row):
            continue
        # One number a crossing, so that one sort of whole numbers does: twice the pixel, and the
        # way. Column w is the next row's first pixel: there the winding numbers of a row are back
        # at 0.
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
        yield borders


def _following(rings: list[np.ndarray]) -> np.ndarray:
    """Index of the point after each point of the rings laid end to end; rings close."""
    after = np.arange(1, sum(map(len, rings)) + 1)
    end = 0
    for ring in rings:
        start, end = end, end + len(ring)
        after[end - 1] = start
    return after


def _levels(y: np.ndarray, h: int) -> np.ndarray:
    """The first row of pixel centres at or below each height, ``(N,) int64`` of 0..h."""
    level = np.ceil(y - TIE)
    return np.minimum(np.maximum(level, 0, out=level), h, out=level).astype(np.int64)


class _Edges:
    """Where the edges from ``points`` to ``points[after]`` cross the rows of pixel centres.

    Args:
        points: ``(E, 2) float64``, image coordinates.
        after: ``(E,)`` index of each edge's other end.
        size: ``(h, w)``; rows outside are dropped, columns are clipped to 0..w.
    """

    def __init__(self, points: np.ndarray, after: np.ndarray, size) -> None:
        self.h, self.w = size
        x, y = points.T
        level = _levels(y, self.h)
        other = level[after]
        self.first, self.last = np.minimum(level, other), np.maximum(level, other)
        dy = y[after] - y
        self.slope = (x[after] - x) / np.where(np.abs(dy) > 1e-9, dy, np.inf)
        self.shift = x + (0.5 - y) * self.slope - TIE
        self.down = dy > 0

    def chunks(self) -> list[tuple[int, int]]:
        """Rows from, rows to (exclusive), so that no chunk of several has too many crossings."""
        count = int(self.last.sum() - self.first.sum())
        most = max(CHUNK, len(self.first))  # each chunk looks at all edges once
        if count <= most:
            return [(0, self.h)]
        change = (np.bincount(self.first, minlength=self.h + 1)
                  - np.bincount(self.last, minlength=self.h + 1))
        done = change.cumsum().cumsum()  # crossings of the rows up to each
        chunks, top, before = [], 0, 0
        while top < self.h:
            bottom = max(int(done.searchsorted(before + most, 'right')), top + 1)
            bottom = min(bottom, self.h)
            chunks.append((top, bottom))
            top, before = bottom, int(done[bottom - 1])
        return chunks

    def crossings(self, top: int, bottom: int) -> tuple[np.ndarray, ...]:
        """Of rows ``top`` to ``bottom``: ``(row, column, down)``, edge after edge.

        The centre of pixel ``(row, j)`` lies right of the crossing exactly for ``j >= column``;
        ``down`` says whether the edge runs down there.
        """
        first, last = self.first, self.last
        which = None
        if (top, bottom) != (0, self.h):
            which = np.flatnonzero((first < bottom) & (last > top))
            first, last = first[which].clip(top), last[which].clip(max=bottom)
        count = last - first
        edge = np.repeat(np.arange(len(first)), count)
        row = np.arange(len(edge)) + (first - (count.cumsum() - count))[edge]
        if which is not None:
            edge = which[edge]
        at = row * self.slope[edge]
        at += self.shift[edge]
        np.ceil(at, out=at)
        np.minimum(np.maximum(at, 0, out=at), self.w, out=at)
        return row, at.astype(np.int64), self.down[edge]
