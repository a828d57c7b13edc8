"""Outline metrics against hand-computed values and plain references."""
import math

import cv2
import numpy as np
import pytest

from simpleseg_mm.polygon.metrics import (boundary_f, boundary_iou, chamfer, hausdorff, polis,
                                          self_intersects, vertex_ratio)

SQUARE = np.array([[0, 0], [0, 4], [4, 4], [4, 0]])


def square_mask(top, left, side, size=(20, 20)):
    mask = np.zeros(size, bool)
    mask[top:top + side, left:left + side] = True
    return mask


def blob_mask(seed, size=(60, 80)):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), rng.uniform(2, 6))
    return noise > np.quantile(noise, rng.uniform(0.3, 0.95))


def reference_boundary_iou(a, b, ratio):
    """The definition, step by step: pad by one zero pixel, erode by 3x3 d times, subtract."""
    steps = max(1, round(ratio * math.sqrt(a.shape[0] ** 2 + a.shape[1] ** 2)))
    bands = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        eroded = padded.copy()
        for _ in range(steps):
            inner = np.zeros_like(eroded)
            for y in range(1, eroded.shape[0] - 1):
                for x in range(1, eroded.shape[1] - 1):
                    inner[y, x] = eroded[y - 1:y + 2, x - 1:x + 2].all()
            eroded = inner
        bands.append((padded & ~eroded)[1:-1, 1:-1])
    union = (bands[0] | bands[1]).sum()
    return (bands[0] & bands[1]).sum() / union if union else 1.0


def reference_boundary_f(a, b, ratio):
    """DAVIS by brute force: boundary maps, then all pairs of boundary pixels."""
    reach = math.ceil(ratio * math.hypot(*a.shape))
    points = []
    for mask in (a, b):
        height, width = mask.shape
        points.append(np.array([
            (x, y) for y in range(height) for x in range(width)
            if mask[y, x] != mask[y, min(x + 1, width - 1)]
            or mask[y, x] != mask[min(y + 1, height - 1), x]
            or (x + 1 < width and y + 1 < height and mask[y, x] != mask[y + 1, x + 1])]))
    if not len(points[0]) or not len(points[1]):
        return float(len(points[0]) == len(points[1]))
    squared = ((points[0][:, None] - points[1][None]) ** 2).sum(-1)
    precision = (squared.min(1) <= reach ** 2).mean()
    recall = (squared.min(0) <= reach ** 2).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize('function', [boundary_iou, boundary_f])
@pytest.mark.parametrize('a, b', [
    (np.zeros((3, 4)), np.zeros((4, 3))),
    (np.zeros((3, 4, 1)), np.zeros((3, 4, 1))),
    (np.zeros((0, 4)), np.zeros((0, 4))),
])
def test_masks_of_wrong_shape_are_refused(function, a, b):
    with pytest.raises(ValueError, match='masks of one size'):
        function(a, b)


@pytest.mark.parametrize('function', [polis, hausdorff, chamfer])
@pytest.mark.parametrize('ring', [np.zeros((0, 2)), np.zeros((3, 3)), np.zeros(4),
                                  np.array([[0, np.nan]]), np.array([[0, np.inf]])])
def test_rings_of_wrong_shape_are_refused(function, ring):
    with pytest.raises(ValueError):
        function(ring, SQUARE)
    with pytest.raises(ValueError):
        function(SQUARE, ring)


def test_boundary_iou_by_hand():
    # Diagonal of 20 x 20 is 28.3, d = 1: bands of two 5 x 5 squares have 16 pixels each. Shifted
    # by one column the bands share the top and bottom rows' 4 + 4 pixels: 8 / 24.
    assert boundary_iou(square_mask(5, 5, 5), square_mask(5, 6, 5)) == 8 / 24
    assert boundary_iou(square_mask(5, 5, 5), square_mask(5, 5, 5)) == 1.0
    assert boundary_iou(square_mask(0, 0, 3), square_mask(10, 10, 3)) == 0.0
    # At the frame: the whole image against itself without its first column.
    full = np.ones((20, 20), bool)
    cut = full.copy()
    cut[:, 0] = False
    assert boundary_iou(full, cut) == (76 - 18 - 2) / (76 + 18)


@pytest.mark.parametrize('a, b, expected', [
    (np.zeros((9, 9)), np.zeros((9, 9)), 1.0),
    (np.zeros((9, 9)), square_mask(2, 2, 3, (9, 9)), 0.0),
    (square_mask(2, 2, 3, (9, 9)), np.zeros((9, 9)), 0.0),
])
@pytest.mark.parametrize('function', [boundary_iou, boundary_f])
def test_empty_masks(function, a, b, expected):
    assert function(a, b) == expected


@pytest.mark.parametrize('ratio', [0.001, 0.02, 0.05])
@pytest.mark.parametrize('seed', range(4))
def test_boundary_iou_is_its_definition(seed, ratio):
    a, b = blob_mask(seed), blob_mask(seed + 100)
    b = (b & a) | blob_mask(seed + 200)
    assert boundary_iou(a, b, ratio) == reference_boundary_iou(a, b, ratio)
    assert boundary_iou(a.astype(np.uint8) * 255, b, ratio) == boundary_iou(a, b, ratio)


@pytest.mark.parametrize('ratio', [0.0, 0.008, 0.03])
@pytest.mark.parametrize('seed', range(4))
def test_boundary_f_is_its_definition(seed, ratio):
    a, b = blob_mask(seed), blob_mask(seed + 100)
    assert boundary_f(a, b, ratio) == pytest.approx(reference_boundary_f(a, b, ratio), abs=1e-12)


def test_boundary_f_by_hand():
    # Diagonal 28.3: 0.008 of it is less than a pixel, so one pixel of shift is forgiven ...
    assert boundary_f(square_mask(5, 5, 6), square_mask(5, 6, 6)) == 1.0
    # ... and far squares share nothing; the frame is no boundary: a full image has none.
    assert boundary_f(square_mask(0, 0, 4), square_mask(14, 14, 4)) == 0.0
    assert boundary_f(np.ones((9, 9)), np.ones((9, 9))) == 1.0
    assert boundary_f(np.ones((9, 9)), square_mask(2, 2, 3, (9, 9))) == 0.0


@pytest.mark.parametrize('a, b, expected', [
    (SQUARE, SQUARE, dict(polis=0, hausdorff=0, chamfer=0)),
    # Another start and direction: the same outline.
    (SQUARE, np.roll(SQUARE, 1, axis=0)[::-1], dict(polis=0, hausdorff=0, chamfer=0)),
    # An extra vertex in the middle of an edge: only chamfer sees it, 2 px from its neighbours.
    (SQUARE, np.insert(SQUARE, 1, [0, 2], axis=0),
     dict(polis=0, hausdorff=0, chamfer=(2 / 5) / 2)),
    # Shifted by (1, 0): the two left vertices of b are on edges of a, the right ones 1 px away.
    (SQUARE, SQUARE + [1, 0], dict(polis=(2 / 4 + 2 / 4) / 2, hausdorff=1, chamfer=1)),
    # Twice the size at the same corner: 0 + 4 + sqrt(32) + 4 from b to a; all of a's vertices but
    # the far one, 4 px away, are on b's edges.
    (SQUARE, SQUARE * 2, dict(polis=((8 + 32 ** .5) / 4 + 4 / 4) / 2, hausdorff=32 ** .5,
                              chamfer=((8 + 32 ** .5) / 4 + (0 + 4 + 32 ** .5 + 4) / 4) / 2)),
    # A point against the square, and two points.
    (np.array([[2, 2]]), SQUARE, dict(polis=(2 + 8 ** .5) / 2, hausdorff=8 ** .5,
                                      chamfer=8 ** .5)),
    (np.array([[0, 0]]), np.array([[3, 4]]), dict(polis=5, hausdorff=5, chamfer=5)),
    # Repeated points are one point.
    (np.array([[0, 0]] * 3), np.array([[3, 4]] * 2), dict(polis=5, hausdorff=5, chamfer=5)),
])
def test_ring_distances_by_hand(a, b, expected):
    for function in (polis, hausdorff, chamfer):
        value = expected[function.__name__]
        assert function(a, b) == pytest.approx(value), function.__name__
        assert function(b, a) == pytest.approx(value), function.__name__


def test_vertex_ratio():
    assert vertex_ratio([SQUARE, SQUARE[:3]], [SQUARE]) == 7 / 4
    assert vertex_ratio([], [SQUARE]) == 0
    with pytest.raises(ValueError, match='at least one true vertex'):
        vertex_ratio([SQUARE], [])


@pytest.mark.parametrize('ring, expected', [
    (SQUARE, False),
    (SQUARE[::-1], False),
    (SQUARE[[0, 0, 1, 2, 2, 3, 0]], False),              # repeats in a row, closed explicitly
    (SQUARE[[0, 2, 1, 3]], True),                        # a bow tie
    ([[0, 0], [4, 0], [4, 4], [2, 0], [0, 4]], True),    # touches its first edge
    ([[0, 0], [4, 0], [2, 0], [2, 3]], True),            # runs back over itself
    ([[0, 0], [4, 0], [8, 0]], True),                    # a line there and back
    ([[0, 0], [4, 0]], False),
    ([[1, 1]], False),
    ([[1, 1], [1, 1], [1, 1], [1, 1]], False),
])
def test_self_intersects(ring, expected):
    assert self_intersects(np.array(ring)) is expected
