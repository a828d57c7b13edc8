"""Outlines as the formats want them: exact ones, holes cut open to one ring, numbers as text."""
from typing import List, Sequence

import cv2
import numpy as np

from ..polygon import Part, mask_to_parts, mask_to_rings
from ..structures import Segmentation


def parts_of(result: Segmentation, exact: bool) -> List[Part]:
    """The model's own outline, or the pixel-exact one of its mask; edges between pixels."""
    return mask_to_parts(result.mask) if exact else list(result.parts)


def centre_rings(mask: np.ndarray) -> List[np.ndarray]:
    """One ring ``(N, 2) int`` a part of a mask through the centres of its border pixels, its holes
    cut open: filled inclusively (even-odd, outline drawn) all together give the mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8),
                                                               connectivity=8)
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
    crosses no other hole where vertices are dense.
    """
    ring, holes = np.asarray(outer), list(holes)
    while holes:
        best = None
        for number, hole in enumerate(holes):
            i, j, distance = _nearest(ring, hole)
            if best is None or distance < best[0]:
                best = distance, number, i, j
        _, number, i, j = best
        hole = np.roll(holes.pop(number), -j, axis=0)
        ring = np.concatenate([ring[:i + 1], hole, hole[:1], ring[i:]])
    return ring


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple:
    """Indices of the two nearest points of two rings, and their distance squared."""
    best = (0, 0, np.inf)
    for start in range(0, len(a), 1024):  # bounds the memory
        apart = ((a[start:start + 1024, None].astype(np.float64) - b[None]) ** 2).sum(-1)
        i, j = divmod(int(apart.argmin()), len(b))
        if apart[i, j] < best[2]:
            best = (start + i, j, float(apart[i, j]))
    return best


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


def plain(ring: np.ndarray, decimals: int = 3) -> List[List[float]]:
    """Points as lists of numbers, whole ones without a fraction."""
    return [[number(x, decimals), number(y, decimals)] for x, y in np.asarray(ring).tolist()]


def number(value: float, decimals: int = 3) -> float:
    """A coordinate rounded; an int where it is whole."""
    value = round(float(value), decimals)
    return int(value) if value.is_integer() else value
