"""Rings and masks: exact inverses, topology, COCO segmentations, boxes, points, IoU."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from shapely.geometry import Point, Polygon

from simpleseg_mm.polygon import (box_iou, mask_iou, mask_to_box, mask_to_extreme, mask_to_point,
                                  mask_to_rings, mask_to_rle, rings_to_mask, rle_to_crop,
                                  rle_to_mask, segmentation_to_mask, signed_area)

READINGS = ('centres', 'edges')


@st.composite
def masks(draw, max_side=40):
    """Random noise, thresholded blobs, lines and frames, with holes, islands and thin parts."""
    h, w = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(['noise', 'blobs', 'boxes']))
    if kind == 'noise':
        return rng.random((h, w)) < draw(st.floats(0, 1))
    if kind == 'blobs':
        y, x = np.mgrid[:h, :w]
        field = sum(rng.normal() * np.cos(rng.normal() * y / 3 + rng.normal() * x / 3 + i)
                    for i in range(6))
        return field > draw(st.floats(-1, 1))
    mask = np.zeros((h, w), bool)
    for i in range(draw(st.integers(1, 8))):
        y, x = rng.integers(0, h), rng.integers(0, w)
        mask[y:y + rng.integers(1, h + 1), x:x + rng.integers(1, w + 1)] ^= True
    return mask


def disk(size, centre, radius):
    y, x = np.mgrid[:size[0], :size[1]]
    return (y - centre[0])**2 + (x - centre[1])**2 <= radius**2


@pytest.mark.parametrize('reading', READINGS)
@settings(max_examples=300, deadline=None)
@given(mask=masks())
def test_trace_and_fill_are_inverse(reading, mask):
    rings = mask_to_rings(mask, reading)
    assert (rings_to_mask(rings, mask.shape, reading) == mask).all()
    for ring in rings:
        assert ring.dtype == np.int32
        first = ring[0]
        assert tuple(first[::-1]) == min(map(tuple, ring[:, ::-1].tolist()))


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('size', [(1000, 1000), (1, 1000), (999, 640)])
def test_inverse_at_full_size(reading, size):
    rng = np.random.default_rng(0)
    coarse = rng.random((size[0] // 25 + 1, size[1] // 25 + 1)) < 0.5
    mask = np.kron(coarse, np.ones((25, 25), bool))[:size[0], :size[1]]
    noisy = rng.random(mask.shape) < 0.02
    mask[:200] ^= noisy[:200]
    assert (rings_to_mask(mask_to_rings(mask, reading), size, reading) == mask).all()


@pytest.mark.parametrize('reading', READINGS)
def test_inverse_on_real_objects(reading, real_data):
    data = json.loads((real_data / 'coco_photos' / 'instances.json').read_text())
    images = {image['id']: image for image in data['images']}
    for ann in data['annotations']:
        image = images[ann['image_id']]
        mask = segmentation_to_mask(ann['segmentation'], image['height'], image['width'])
        back = rings_to_mask(mask_to_rings(mask, reading), mask.shape, reading)
        assert (back == mask).all(), ann['id']


@settings(max_examples=60, deadline=None)
@given(mask=masks(20))
def test_edge_rings_measure_the_mask(mask):
    """Outer rings are negative, holes positive, and the areas add up to the pixels."""
    areas = [signed_area(ring) for ring in mask_to_rings(mask, 'edges')]
    assert -sum(areas) == mask.sum()
    if areas:
        assert areas[0] < 0


def test_rings_of_a_frame_with_an_island():
    mask = np.zeros((9, 12), bool)
    mask[1:8, 2:9] = True
    mask[2:7, 3:8] = False
    mask[4, 5] = True
    edges = mask_to_rings(mask, 'edges')
    assert [ring.tolist() for ring in edges] == [
        [[2, 1], [2, 8], [9, 8], [9, 1]],
        [[3, 2], [8, 2], [8, 7], [3, 7]],
        [[5, 4], [5, 5], [6, 5], [6, 4]],
    ]
    centres = mask_to_rings(mask, 'centres')
    assert centres[0].tolist() == [[2, 1], [2, 7], [8, 7], [8, 1]]
    assert centres[2].tolist() == [[5, 4]]
    assert [np.sign(signed_area(ring)) for ring in centres] == [-1, 1, 0]
    assert len(mask_to_rings(mask, 'edges', holes=False)) == 1


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('flip', [False, True])
def test_a_single_ring_fills_either_way(reading, flip):
    mask = disk((40, 50), (20, 25), 12)
    ring = mask_to_rings(mask, reading)[0]
    ring = ring[::-1] if flip else ring
    assert (rings_to_mask([ring], mask.shape, reading) == mask).all()


@pytest.mark.parametrize('reading', READINGS)
def test_all_rings_reversed_is_the_same_mask(reading):
    mask = disk((60, 60), (30, 30), 25) & ~disk((60, 60), (30, 30), 15)
    mask |= disk((60, 60), (30, 30), 5)
    rings = [ring[::-1] for ring in mask_to_rings(mask, reading)]
    assert (rings_to_mask(rings, mask.shape, reading) == mask).all()


@pytest.mark.parametrize('reading', READINGS)
def test_a_hole_outside_every_outer_ring_is_an_object(reading):
    left, right = disk((40, 90), (20, 20), 15), disk((40, 90), (20, 65), 10)
    rings = mask_to_rings(left, reading) + [r[::-1] for r in mask_to_rings(right, reading)]
    assert (rings_to_mask(rings, left.shape, reading) == (left | right)).all()


@pytest.mark.parametrize('reading', READINGS)
def test_overlapping_parts_unite(reading):
    a, b = disk((40, 60), (20, 20), 15), disk((40, 60), (20, 35), 15)
    rings = mask_to_rings(a, reading) + mask_to_rings(b, reading)
    assert (rings_to_mask(rings, a.shape, reading) == (a | b)).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=3))
def test_edges_agree_with_shapely(points):
    triangle = Polygon(points)
    mask = rings_to_mask([np.array(points)], (20, 21), 'edges')
    for y in range(20):
        for x in range(21):
            centre = Point(x + 0.5, y + 0.5)
            if triangle.is_valid and triangle.exterior.distance(centre) > 1e-5:
                assert mask[y, x] == triangle.contains(centre)


def test_edges_are_close_to_pycocotools():
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(40, 60, (40, 1)) + 70.3
    ours = rings_to_mask([ring], (150, 150), 'edges')
    theirs = segmentation_to_mask([ring.ravel().tolist()], 150, 150)
    assert mask_iou(ours, theirs) > 0.99


@pytest.mark.parametrize('rings, reading, message', [
    ([np.zeros((3, 3))], 'edges', r'shape \(N, 2\)'),
    ([np.full((3, 2), np.nan)], 'edges', 'NaN'),
    ([np.full((3, 2), 1e8)], 'centres', 'beyond'),
    ([np.full((3, 2), np.inf)], 'centres', 'beyond'),
    ([np.zeros((3, 2))], 'corners', 'centres'),
])
def test_bad_rings(rings, reading, message):
    with pytest.raises(ValueError, match=message):
        rings_to_mask(rings, (8, 8), reading)


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('rings', [
    [], [np.zeros((0, 2))], [np.array([[90., 90], [95, 90], [95, 95]])],
])
def test_nothing_inside_the_image(rings, reading):
    assert not rings_to_mask(rings, (8, 9), reading).any()


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('ring', [[[-1e4, -1e4], [1e4, -1e4], [1e4, 1e4], [-1e4, 1e4]]])
def test_a_ring_round_the_image_fills_it(ring, reading):
    assert rings_to_mask([np.array(ring)], (8, 9), reading).all()


@pytest.mark.parametrize('mask, message', [
    (np.zeros((2, 3, 4), bool), 'shape'),
    (np.zeros((3, 4), np.float32), 'threshold'),
])
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        mask_to_rings(mask)


SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
RUNS = dict(size=[6, 7], counts=[8, 3, 31])
TEXT = mask_to_rle(rle_to_mask(RUNS))


@pytest.mark.parametrize('seg, area', [
    ([SQUARE], 16),
    ([SQUARE, SQUARE], 16),
    ([SQUARE, [4, 4, 7, 4, 7, 6, 4, 6]], 16 + 6 - 1),
    ([np.array(SQUARE)], 16),
    (RUNS, 3),
    (TEXT, 3),
    (dict(TEXT, counts=TEXT['counts'].encode()), 3),
    ([TEXT, TEXT], 3),
    ([RUNS, TEXT], 3),
])
def test_segmentations(seg, area):
    mask = segmentation_to_mask(seg, 6, 7)
    assert mask.dtype == bool and mask.shape == (6, 7)
    assert mask.sum() == area


@pytest.mark.parametrize('seg, message', [
    ([], 'empty list'),
    ([[]], 'polygon 0 has 0 points'),
    ([[1, 2]], 'polygon 0 has 1 points'),
    ([[1, 2, 3, 4]], 'polygon 0 has 2 points'),
    ([SQUARE, [1, 2, 3, 4, 5, 6, 7]], 'polygon 1 has an odd'),
    ([[1, 2, 3, 4, 5, float('nan')]], 'NaN'),
    ([[1, 2, 3, 4, 5, 1e8]], 'beyond'),
    ([[1, 2, 3, 4, 5, 10**400]], 'polygon 0'),
    (SQUARE, 'wrap it'),
    ([['a', 'b', 'c', 'd', 'e', 'f']], 'not a flat list'),
    ([[[1, 2], [3, 4], [5, 6]]], 'not a flat list'),
    ([SQUARE, RUNS], 'polygon 1'),
    (None, 'NoneType'),
    ('abc', 'str'),
    (dict(size=[6, 7]), 'no counts'),
    (dict(RUNS, size=[7, 6]), 'size'),
    (dict(RUNS, size=None), 'size'),
    (dict(RUNS, counts=[8, 3]), 'covers 11 pixels, the image has 42'),
    (dict(RUNS, counts=[8, -3, 37]), 'run'),
    (dict(RUNS, counts=[8, float('nan')]), 'run'),
    (dict(RUNS, counts=['x']), 'not numbers'),
    (dict(RUNS, counts=5), 'type int'),
    (dict(RUNS, counts='\x00\x01'), 'no compressed RLE'),
    (dict(RUNS, counts='é€'), 'no compressed RLE'),
    (dict(RUNS, counts='oo'), 'end within'),
    (dict(RUNS, counts='o' * 50), 'no compressed RLE'),
    (dict(RUNS, counts='83'), 'covers'),
    ([TEXT, dict(RUNS, counts=[1])], 'RLE 1 covers'),
])
def test_bad_segmentations(seg, message):
    with pytest.raises(ValueError, match=message):
        segmentation_to_mask(seg, 6, 7)


@settings(max_examples=80, deadline=None)
@given(mask=masks(25))
def test_rle(mask):
    rle = json.loads(json.dumps(mask_to_rle(mask)))
    assert (coco_mask.decode(rle) == mask).all()
    assert (rle_to_mask(rle) == mask).all()


@settings(max_examples=80, deadline=None)
@given(mask=masks(25))
def test_boxes_and_points(mask):
    box = mask_to_box(mask)
    if not mask.any():
        assert box is None and mask_to_point(mask) is None
        return
    x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.view(np.uint8))))
    assert box.tolist() == [x, y, x + w, y + h]
    px, py = mask_to_point(mask)
    assert mask[int(py), int(px)]
    cx, cy = mask_to_point(mask, 'centroid')
    rows, columns = np.nonzero(mask)
    assert np.allclose([cx, cy], [columns.mean() + 0.5, rows.mean() + 0.5])


def test_inside_point_of_a_ring_is_not_its_centroid():
    mask = disk((41, 41), (20, 20), 18) & ~disk((41, 41), (20, 20), 10)
    assert mask_to_point(mask, 'centroid').tolist() == [20.5, 20.5]
    x, y = mask_to_point(mask, 'inside')
    assert mask[int(y), int(x)]
    with pytest.raises(ValueError, match='inside'):
        mask_to_point(mask, 'middle')


@pytest.mark.parametrize('direction', [(0, 0), (1, float('nan')), (1, ), 'top'])
def test_extreme_points_want_a_direction(direction):
    with pytest.raises(ValueError):
        mask_to_extreme(np.ones((2, 2), bool), direction)


def test_extreme_points_by_hand():
    mask = np.zeros((5, 6), bool)
    mask[1, 2] = mask[2, 1:5] = mask[3, 4] = True
    assert mask_to_extreme(np.zeros((3, 3), bool), (0, 1)) is None
    for direction, expected in {
            (0, -1): (2.5, 1), (0, 1): (4.5, 4), (-1, 0): (1, 2.5), (1, 0): (5, 2.5 + 1),
            (1, 1): (5, 4), (-1, -1): (1, 2), (1, -1): (5, 2)}.items():
        assert mask_to_extreme(mask, direction).tolist() == list(expected), direction


@settings(max_examples=60, deadline=None)
@given(mask=masks(25))
def test_extreme_points_touch_the_box(mask):
    if mask.any():
        x1, y1, x2, y2 = mask_to_box(mask)
        assert mask_to_extreme(mask, (0, -1))[1] == y1 and mask_to_extreme(mask, (0, 1))[1] == y2
        assert mask_to_extreme(mask, (-1, 0))[0] == x1 and mask_to_extreme(mask, (1, 0))[0] == x2


def test_iou():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1.0
    a[:2] = True
    assert mask_iou(a, b) == 0.0
    b[1:3] = True
    assert mask_iou(a, b) == pytest.approx(4 / 12)
    with pytest.raises(ValueError, match='shapes'):
        mask_iou(a, b[:3])
    assert box_iou([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)
    assert box_iou([0, 0, 2, 2], [2, 0, 3, 2]) == 0.0
    assert box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0.0
    with pytest.raises(ValueError, match='shape'):
        box_iou([0, 0, 2], [0, 0, 2, 2])


@pytest.mark.parametrize('seed', range(6))
def test_rle_crops_against_pycocotools(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        h, w = rng.integers(1, 40, 2)
        mask = rng.random((h, w)) < rng.choice([0, 0.02, 0.5, 1])
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        crop, (x, y) = rle_to_crop(rle)
        np.testing.assert_array_equal(rle_to_mask(rle), mask)
        if not mask.any():
            assert crop.shape == (0, 0)
            continue
        assert crop.any(0)[[0, -1]].all() and crop.any(1)[[0, -1]].all()  # tight
        np.testing.assert_array_equal(mask[y:y + crop.shape[0], x:x + crop.shape[1]], crop)


@pytest.mark.parametrize('counts, expected', [
    ([0, 2, 0, 2, 2], [[1, 1, 0], [1, 1, 0]]), ([2, 0, 0, 2, 2], [[0, 1, 0], [0, 1, 0]]),
    ([6, 0], [[0, 0, 0], [0, 0, 0]]), ([6], [[0, 0, 0], [0, 0, 0]]), ([0, 6], [[1, 1, 1]] * 2),
    ([1, 4, 1], [[0, 1, 1], [1, 1, 0]])])
def test_rle_with_runs_of_no_pixel(counts, expected):
    assert rle_to_mask(dict(size=[2, 3], counts=counts)).astype(int).tolist() == expected


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (5, 1), (3, 4), (20, 30)])
@pytest.mark.parametrize('share', [0, 0.05, 0.5, 1])
def test_an_rle_is_that_of_pycocotools(size, share):
    for seed in range(10):
        mask = np.random.default_rng(seed).random(size) < share
        if seed % 2:  # at the borders, and whole columns there
            mask[:, 0], mask[:, -1] = seed % 3 == 0, seed % 5 == 0
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert mask_to_rle(mask) == dict(size=list(size), counts=rle['counts'].decode())
