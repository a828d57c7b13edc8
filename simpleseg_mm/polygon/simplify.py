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
    return cv2.approxPolyDP(ring.astype(kind)[:, None], tolerance, True)[:, 0]


def arc_length(ring) -> float:
    """Length of a closed ring, pixels."""
    return float(cv2.arcLength(np.asarray(ring, np.float32)[:, None], True))
