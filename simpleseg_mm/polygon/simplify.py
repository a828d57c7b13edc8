"""Fewer vertices: Douglas-Peucker by tolerance."""
import cv2
import numpy as np


def simplify_dp(ring, tolerance: float) -> np.ndarray:
    """Douglas-Peucker on a closed ring (OpenCV).

    Args:
        ring: ``(N, 2)`` int32 or float, pixels.
        tolerance: largest distance of a removed vertex from the new outline, pixels.

    Returns:
        ``(M, 2)`` of the same type.
    """
    ring = np.asarray(ring)
    kind = np.int32 if ring.dtype.kind in 'iu' else np.float32
    return cv2.approxPolyDP(ring.astype(kind, copy=False)[:, None], tolerance, True)[:, 0]


def arc_length(ring) -> float:
    """Length of a closed ring, pixels."""
    ring = np.asarray(ring)
    kind = np.int32 if ring.dtype == np.int32 else np.float32
    return float(cv2.arcLength(ring.astype(kind, copy=False)[:, None], True))
