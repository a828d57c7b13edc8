"""Fewer vertices: Douglas-Peucker by tolerance."""

import cv2
import numpy as np


# Points that Douglas-Peucker takes at a time, since its time may grow with their square; no
# outline of a COCO object is as long. Our choice.
PIECE = 4096


def simplify_dp(ring, tolerance: float, most: int | None = None) -> np.ndarray:
    """Douglas-Peucker on a closed ring (OpenCV).

    Time is near-linear in the points: a ring of more than ``PIECE`` points is simplified piece by
    piece first, so that the largest distance may come to twice the tolerance there.

    Args:
        ring: ``(N, 2)`` int32 or float, pixels.
        tolerance: largest distance of a removed vertex from the new outline, pixels.
        most: points that are left at most, M; the tolerance grows until they are. None: any.

    Returns:
        ``(M, 2)`` of the same type.
    """
    ring = np.asarray(ring)
    kind = np.int32 if ring.dtype.kind in 'iu' else np.float32
    points = _simplified(ring.astype(kind, copy=False), tolerance)
    while most is not None and len(points) > most:
        tolerance = max(1.4 * tolerance, 0.5)
        points = _simplified(points, tolerance)
    return points


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    if len(ring) > PIECE:
        pieces = [cv2.approxPolyDP(ring[i:i + PIECE + 1, None], tolerance, False)[:, 0]
                  for i in range(0, len(ring), PIECE)]
        ring = np.concatenate([piece[:-1] for piece in pieces[:-1]] + pieces[-1:])
        if len(ring) > PIECE:
            return ring
    return cv2.approxPolyDP(ring[:, None], tolerance, True)[:, 0]


def arc_length(ring) -> float:
    """Length of a closed ring, pixels."""
    ring = np.asarray(ring)
    kind = np.int32 if ring.dtype == np.int32 else np.float32
    return float(cv2.arcLength(ring.astype(kind, copy=False)[:, None], True))
