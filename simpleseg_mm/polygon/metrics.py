"""Outline metrics: boundary IoU and F on masks, vertex distances on rings.

Masks are (H, W) bool or uint8. Rings are (N, 2), x then y, in any one unit (pixels or normalised);
distances come back in that unit. Nothing here rounds, clips or repairs: the parser guards what a
model wrote, and a ring of the wrong shape or with NaN is a ValueError.
"""
import math
from collections.abc import Sequence

import cv2
import numpy as np
import shapely

Ring = np.ndarray


def boundary_iou(a: np.ndarray, b: np.ndarray, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner boundary bands of two masks (Cheng et al., CVPR 2021).

    A band is the mask minus its 3x3 erosion repeated d times, with
    d = max(1, round(dilation_ratio * image diagonal)); beyond the image frame is background, so a
    mask cut by the frame has a boundary there.

    Args:
        a: (H, W) mask.
        b: (H, W) mask of the same size.
        dilation_ratio: Width of the band as a share of the image diagonal.

    Returns:
        0..1; 1.0 where both masks are empty.
    """
    a, b = _mask_pair(a, b)
    width = max(1, int(round(dilation_ratio * math.hypot(*a.shape))))
    a, b = _crop_to_content(a, b)
    if a.size == 0:
        return 1.0
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    band_a, band_b = (
        mask - cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        for mask in (a, b))
    return int(np.count_nonzero(band_a & band_b)) / int(np.count_nonzero(band_a | band_b))


def boundary_f(a: np.ndarray, b: np.ndarray, tolerance: float = 0.008) -> float:
    """F-measure of boundary pixels matched within a distance (DAVIS; Perazzi et al., CVPR 2016).

    As in DAVIS a boundary pixel differs from its right, lower or lower-right neighbour, the image
    frame is no boundary, and the tolerance in pixels is ceil(tolerance * image diagonal).

    Args:
        a: (H, W) mask, the prediction. (F is symmetric.)
        b: (H, W) mask of the same size.
        tolerance: Largest distance of a match as a share of the image diagonal.

    Returns:
        0..1; 1.0 where neither mask has a boundary, 0.0 where only one has.
    """
    a, b = _mask_pair(a, b)
    reach = math.ceil(tolerance * math.hypot(*a.shape))
    a, b = _crop_to_content(a, b, margin=1)
    if a.size == 0:
        return 1.0
    edge_a, edge_b = _boundary_pixels(a), _boundary_pixels(b)
    if not edge_a.any() or not edge_b.any():
        return float(edge_a.any() == edge_b.any())
    y, x = np.ogrid[-reach:reach + 1, -reach:reach + 1]
    disk = (x * x + y * y <= reach * reach).astype(np.uint8)
    precision = np.mean(cv2.dilate(edge_b, disk)[edge_a > 0])
    recall = np.mean(cv2.dilate(edge_a, disk)[edge_b > 0])
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def polis(ring_a: Ring, ring_b: Ring) -> float:
    """PoLiS distance of two rings (Avbelj et al., 2015): 0 for the same outline.

    Half the mean distance from the vertices of one ring to the outline of the other, plus the
    same the other way. Distances are to edges, so extra vertices on an edge cost nothing.

    Args:
        ring_a: (N, 2) vertices, N >= 1, closed implicitly.
        ring_b: (M, 2) vertices.
    """
    to_b, to_a = _vertex_to_outline(ring_a, ring_b)
    return float((to_b.mean() + to_a.mean()) / 2)


def hausdorff(ring_a: Ring, ring_b: Ring) -> float:
    """Largest distance from a vertex of either ring to the outline of the other."""
    to_b, to_a = _vertex_to_outline(ring_a, ring_b)
    return float(max(to_b.max(), to_a.max()))


def chamfer(ring_a: Ring, ring_b: Ring) -> float:
    """Mean distance from a vertex to the nearest *vertex* of the other ring, both ways averaged.

    Unlike `polis` it sees where vertices are placed, not only the outline that they draw.
    """
    a, b = _ring(ring_a), _ring(ring_b)
    points_a, points_b = shapely.MultiPoint(a), shapely.MultiPoint(b)
    to_b = shapely.distance(shapely.points(a), points_b)
    to_a = shapely.distance(shapely.points(b), points_a)
    return float((to_b.mean() + to_a.mean()) / 2)


def vertex_ratio(predicted: Sequence[Ring], truth: Sequence[Ring]) -> float:
    """N-ratio: vertices of all predicted rings over vertices of all true rings.

    Raises:
        ValueError: The true rings have no vertex.
    """
    total = sum(len(ring) for ring in truth)
    if total == 0:
        raise ValueError('vertex_ratio needs at least one true vertex, got none; skip targets '
                         'that are absent')
    return sum(len(ring) for ring in predicted) / total


def self_intersects(ring: Ring) -> bool:
    """Whether the closed outline meets itself anywhere but at neighbouring edges.

    Touching counts as well as crossing, so a one-pixel line that is traced there and back does
    intersect itself. Repeated vertices in a row are no intersection, and a ring with fewer than 3
    distinct vertices has no outline: False.

    Args:
        ring: (N, 2) vertices, closed implicitly.
    """
    ring = _ring(ring)
    ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    if len(np.unique(ring, axis=0)) < 3:
        return False
    return not shapely.LinearRing(ring).is_simple


def _mask_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise ValueError(f'expected two masks of one size (H, W), got {a.shape} and {b.shape}')
    return (a != 0).view(np.uint8), (b != 0).view(np.uint8)


def _crop_to_content(a: np.ndarray, b: np.ndarray, margin: int = 0):
    """Cut both masks to the box around everything in them; (0, 0) where both are empty."""
    either = a | b
    columns = np.flatnonzero(either.max(axis=0))
    if columns.size == 0:
        return a[:0, :0], b[:0, :0]
    rows = np.flatnonzero(either.max(axis=1))
    window = (slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
              slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin))
    return np.ascontiguousarray(a[window]), np.ascontiguousarray(b[window])


def _boundary_pixels(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge.view(np.uint8)


def _ring(ring: Ring) -> np.ndarray:
    points = np.asarray(ring, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f'expected a ring of shape (N, 2) with N >= 1, got {points.shape}')
    if not np.isfinite(points).all():
        raise ValueError('expected finite vertices, got NaN or infinity')
    return points


def _outline(points: np.ndarray):
    if len(np.unique(points, axis=0)) < 2:
        return shapely.Point(points[0])
    return shapely.LineString(np.concatenate([points, points[:1]]))


def _vertex_to_outline(ring_a: Ring, ring_b: Ring) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the vertices of a to the outline of b (N,), and of b to that of a (M,)."""
    a, b = _ring(ring_a), _ring(ring_b)
    outline_a, outline_b = _outline(a), _outline(b)
    shapely.prepare([outline_a, outline_b])
    return (shapely.distance(outline_b, shapely.points(a)),
            shapely.distance(outline_a, shapely.points(b)))
