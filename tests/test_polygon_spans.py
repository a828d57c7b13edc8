"""Spans against the pixels of their masks: the same counts, boxes and centroids, bit for bit."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleseg_mm.polygon import (PolygonCodec, Spans, mask_iou, mask_to_box, rings_to_mask,
                                  rings_to_spans)

SEEDS = st.integers(0, 2**32 - 1)


def winding(rings, size) -> np.ndarray:
    """The mask by its definition: each pixel centre's crossings of a ray to the left, counted.

    As in the rasteriser, a border through a centre is decided for the pixel's right and lower
    side, by a hair.
    """
    h, w = size
    row, x = np.mgrid[:h, :w] + 0.5
    y, x = row + 1e-6, x + 1e-6
    number = np.zeros(size, int)
    for ring in rings:
        for (xa, ya), (xb, yb) in zip(ring, np.roll(ring, -1, axis=0)):
            for up, low, high in ((1, ya, yb), (-1, yb, ya)):
                crossed = (low <= y) & (y < high)
                if low < high and crossed.any():
                    number += up * (crossed & (xa + (row - ya) * (xb - xa) / (yb - ya) <= x))
    return number != 0


def random_rings(rng, size) -> list:
    """Rings of 1 to 9 vertices that cross themselves, one another and the frame; halves of
    pixels, so that borders meet pixels' centres, or not."""
    rings = [rng.uniform(-8, max(size) * 1.3, (rng.integers(1, 10), 2))
             for _ in range(rng.integers(1, 5))]
    return [np.round(ring * 2) / 2 if rng.random() < 0.5 else ring for ring in rings]


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, h=st.integers(1, 40), w=st.integers(1, 40))
def test_spans_of_rings_are_their_pixels(seed, h, w):
    rng = np.random.default_rng(seed)
    rings, truth = random_rings(rng, (h, w)), rng.random((h, w)) < rng.random()
    spans, target = rings_to_spans(rings, (h, w)), Spans.from_mask(truth)
    mask = rings_to_mask(rings, (h, w), 'edges')
    assert (mask == winding(rings, (h, w))).all()
    for known, pixels in ((spans, mask), (target, truth)):
        assert (known.mask == pixels).all()
        assert (known.borders == Spans.from_mask(pixels).borders).all()  # one form a mask
        assert known.area == pixels.sum()
        if pixels.any():
            y, x = np.nonzero(pixels)
            assert known.centroid == (x.mean(), y.mean())
            assert (known.box == mask_to_box(pixels)).all()
        else:
            assert known.centroid is None and known.box is None
    assert spans.shared(target) == target.shared(spans) == (mask & truth).sum()
    assert spans.iou(target) == mask_iou(mask, truth)


def test_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[0, 3] = mask[1, :2] = mask[2, 1] = True  # the first two rows are one span
    spans = Spans.from_mask(mask)
    assert spans.borders.tolist() == [3, 6, 9, 10]
    assert (spans.area, spans.centroid, spans.box.tolist()) == (4, (1.25, 1.0), [0, 0, 4, 3])
    other = rings_to_spans([[[1, 0], [1, 3], [4, 3], [4, 0]]], (3, 4))
    assert other.borders.tolist() == [1, 4, 5, 8, 9, 12]
    assert (spans.shared(other), spans.iou(other)) == (3, 3 / 10)


@pytest.mark.parametrize('ring', [
    [], [[5, 5]], [[1, 1], [8, 8]], [[1, 1], [1, 1], [8, 1]],  # nothing enclosed
    [[20, 20], [30, 20], [30, 30]], [[-9, -9], [-1, -9], [-1, -1]],  # outside
])
def test_nothing(ring):
    spans = rings_to_spans([np.array(ring, float).reshape(-1, 2)], (10, 10))
    empty, full = (Spans.from_mask(np.full((10, 10), value)) for value in (False, True))
    assert not spans.area and not spans.mask.any() and spans.mask.shape == (10, 10)
    assert spans.iou(empty) == 1.0 and spans.iou(full) == 0.0 and full.iou(full) == 1.0
    assert full.borders.tolist() == [0, 100]


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r'\(2, 3\) and \(3, 2\)'):
        Spans.from_mask(np.ones((2, 3)) > 0).iou(Spans.from_mask(np.ones((3, 2)) > 0))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, preset=st.sampled_from(['default', 'paper', 'paper-exact']))
def test_a_decoded_answer_is_one_mask_in_both_forms(seed, preset):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(20, 60, 2).tolist()
    coarse = rng.random((h // 8 + 1, w // 8 + 1)) < 0.4
    truth = np.kron(coarse, np.ones((8, 8), bool))[:h, :w]
    codec = PolygonCodec(preset)
    text = codec.encode(truth)
    first, second = codec.decode(text, (h, w)), codec.decode(text, (h, w))
    assert (first.spans.mask == second.mask).all()  # asked for in either order
    assert (first.mask == first.spans.mask).all()
    assert first.spans.iou(Spans.from_mask(truth)) == mask_iou(second.mask, truth)
