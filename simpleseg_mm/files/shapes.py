"""Shapes of annotation tools as corners; pixels of a picture, x then y."""
from collections.abc import Iterable, Sequence

import numpy as np

_CIRCLE = 64  # corners that stand for an ellipse


def flat(points: np.ndarray) -> list[float]:
    """``(N, 2)`` as a flat polygon."""
    return np.asarray(points, float).ravel().tolist()


def turned_by(points: np.ndarray, about: Sequence[float], degrees: float) -> np.ndarray:
    """``(N, 2)`` turned about a point, clockwise as one sees it: y points down."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """``(4, 2)`` of a box."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


def ellipse(center: Sequence[float], radii: Sequence[float], degrees: float = 0) -> np.ndarray:
    """``(64, 2)`` corners on an ellipse."""
    turns = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns)], 1) * radii + center
    return turned_by(around, center, degrees)


def numbers(values: Iterable, count: int | None = None) -> np.ndarray:
    """``(N,) float64``, finite.

    Raises:
        ValueError: a value is no such number, or there are not so many.
    """
    try:
        found = np.array([float(value) for value in values], np.float64)
    except (TypeError, OverflowError):
        raise ValueError('no numbers') from None
    if not np.isfinite(found).all() or count not in (None, len(found)):
        raise ValueError('no finite numbers, or not as many as it takes')
    return found
