"""Mask to text to mask: presets, budgets, ring orders, any text."""
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from simpleseg_mm.polygon import (Grammar, PolygonCodec, count_tokens, mask_iou, mask_to_rle,
                                  parse_answer, rate_of, rings_to_mask, segmentation_to_mask,
                                  signed_area)
from simpleseg_mm.polygon.codec import PRESETS
from simpleseg_mm.polygon.fit import _Table
from test_polygon_raster import disk, masks

FRAME = disk((200, 240), (100, 120), 80) & ~disk((200, 240), (100, 120), 40)
PARTS = disk((200, 240), (60, 60), 40) | disk((200, 240), (140, 180), 30)


def blob(size, seed, radius):
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    far = radius * rng.uniform(0.6, 1.2, 9)
    points = np.stack([size[1] / 2 + far * np.cos(angle), size[0] / 2 + far * np.sin(angle)], 1)
    return cv2.fillPoly(np.zeros(size, np.uint8), [np.int32(points)], 1).astype(bool)


@pytest.mark.parametrize('kwargs, message', [
    (dict(preset='best'), 'preset'),
    (dict(grammar='xml'), 'grammar'),
    (dict(tokens=0), 'tokens'),
    (dict(tokens=float('nan')), 'tokens'),
    (dict(epsilon=-0.1), 'epsilon'),
    (dict(epsilon=1.5), 'epsilon'),
    (dict(ring_order='clockwise'), 'ring_order'),
])
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PolygonCodec(**kwargs)


@settings(max_examples=150, deadline=None)
@given(mask=masks(), grammar=st.sampled_from(['int1000', 'decimal3', 'fixed3', 'int40']))
def test_every_vertex_written_is_the_exact_inverse(mask, grammar):
    codec = PolygonCodec(grammar=grammar, tokens=None)
    again = PolygonCodec.from_spec(codec.spec)
    decoded = again.decode(codec.encode(mask), mask.shape)
    assert (decoded.mask == mask).all()


@pytest.mark.parametrize('size', [(1000, 1000), (999, 640), (3, 1000)])
def test_exact_inverse_of_noise_at_full_size(size):
    rng = np.random.default_rng(0)
    mask = rng.random(size) < 0.002
    mask[:100, size[1] // 2:] = rng.random((min(size[0], 100), size[1] - size[1] // 2)) < 0.9
    mask[-1, -1] = mask[0, 0] = True
    codec = PolygonCodec(tokens=None)
    assert (codec.decode(codec.encode(mask), size).mask == mask).all()


def test_exact_inverse_of_real_objects(real_data):
    data = json.loads((real_data / 'coco_photos' / 'instances.json').read_text())
    images = {image['id']: image for image in data['images']}
    codec = PolygonCodec(tokens=None)
    for ann in data['annotations']:
        image = images[ann['image_id']]
        mask = segmentation_to_mask(ann['segmentation'], image['height'], image['width'])
        assert (codec.decode(codec.encode(mask), mask.shape).mask == mask).all(), ann['id']


@pytest.mark.parametrize('kwargs', [
    dict(), dict(tokens=60), dict(tokens=None), dict(epsilon=0.01), dict(grammar='int100'),
    dict(preset='paper'), dict(preset='paper', grammar='decimal3'),
    dict(ring_order='reversed'), dict(ring_order='shuffled'),
])
@settings(max_examples=25, deadline=None)
@given(mask=masks(20))
def test_any_mask(kwargs, mask):
    """Never an exception, valid text, a pure function, '[]' exactly for the empty mask."""
    codec = PolygonCodec(**kwargs)
    text = codec.encode(mask)
    assert codec.encode_rle(mask_to_rle(mask)) == text
    assert text == PolygonCodec(**kwargs).encode(mask.astype(np.int64) * 7)
    assert (text == '[]') == (not mask.any())
    decoded = codec.decode(text, mask.shape)
    assert decoded.mask.shape == mask.shape and decoded.mask.dtype == bool
    if codec.preset == 'default':
        parsed = parse_answer(text, codec.grammar, max_chars=None)
        assert parsed.valid and not parsed.dropped


@pytest.mark.parametrize('grammar, size, tokens, least', [
    ('int1000', (480, 640), 60, 0.96), ('int1000', (480, 640), 150, 0.985),
    ('int1000', (480, 640), 250, 0.99), ('decimal3', (480, 640), 150, 0.96),
    ('int100', (112, 112), 60, 0.95), ('int100', (112, 112), 100, 0.97),
    ('int100', (224, 224), 100, 0.97),
])
def test_default_preset_is_close_at_any_budget(grammar, size, tokens, least):
    codec = PolygonCodec(grammar=grammar, tokens=tokens)
    found = []
    for seed in range(6):
        mask = blob(size, seed, size[0] / 3)
        found.append(mask_iou(codec.decode(codec.encode(mask), size).mask, mask))
    assert np.mean(found) >= least


TOOL = Path(__file__).parent.parent / 'tools' / 'analysis_tools' / 'codec_ceiling.py'


@pytest.mark.parametrize('args, iou, tokens, holes', [
    ([], (0.992, 1), (140, 155), 0.98),
    (['--tokens', '250'], (0.998, 1), (240, 265), 0.99),
    (['--preset', 'paper'], (0.86, 0.87), (280, 290), 0.85),
])
def test_ceiling_on_real_objects(args, iou, tokens, holes, real_data):
    """The tool's last line: the first 200 objects of the photos."""
    path = real_data / 'coco_photos' / 'instances.json'
    env = dict(os.environ, PYTHONPATH=str(TOOL.parent.parent.parent))
    out = subprocess.run([sys.executable, str(TOOL), str(path), '--limit', '200', *args],
                         check=True, capture_output=True, text=True, env=env).stdout
    report = json.loads(out.splitlines()[-1])
    assert report['objects'] == 200
    assert iou[0] <= report['mean_iou'] <= iou[1]
    assert tokens[0] <= report['mean_tokens'] <= tokens[1]
    assert report['holes_iou'] >= holes


@settings(max_examples=60, deadline=None)
@given(mask=masks(60), seed=st.integers(0, 5))
def test_price_of_a_ring_is_exact(mask, seed):
    """Wrong pixels by the sum over edges equal wrong pixels by filling, for simple rings."""
    grammar = Grammar.from_name('int1000')
    rng = np.random.default_rng(seed)
    angle = -np.linspace(0, 2 * np.pi, 7, endpoint=False)
    size = np.array(mask.shape[::-1])
    radius = rng.uniform(0.1, 0.6, (7, 1))
    star = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = size * (rng.uniform(0.3, 0.7, 2) + star)
    steps = grammar.to_steps(points, mask.shape)
    table = _Table(mask.view(np.uint8), (0, 0, *size), grammar.steps)
    ends = table.from_steps(steps)
    price = table.price(ends, np.roll(ends, -1, axis=0))[0].sum()
    filled = rings_to_mask([steps / 1000 * size], mask.shape, 'edges')
    assert mask.sum() + price == (filled ^ mask).sum()


def test_text_does_not_depend_on_the_block_of_lookups(monkeypatch):
    text = PolygonCodec().encode(FRAME)
    monkeypatch.setattr('simpleseg_mm.polygon.fit.BLOCK', 5)  # less than the rows of an edge
    assert PolygonCodec().encode(FRAME) == text


@pytest.mark.parametrize('mask', [FRAME, PARTS, FRAME[:, ::-1] | PARTS])
def test_holes_and_parts_survive(mask):
    codec = PolygonCodec()
    decoded = codec.decode(codec.encode(mask), mask.shape)
    assert mask_iou(decoded.mask, mask) > 0.97
    assert len(decoded.rings) >= 2


def test_a_larger_budget_is_closer():
    mask = blob((480, 640), 3, 150) & ~disk((480, 640), (240, 320), 30)
    values = []
    for tokens in (40, 80, 150, 250, 400):
        codec = PolygonCodec(tokens=tokens)
        text = codec.encode(mask)
        values.append((count_tokens(text), mask_iou(codec.decode(text, mask.shape).mask, mask)))
    assert values == sorted(values)
    assert values[0][0] < values[-1][0] and values[-1][1] > 0.99


@pytest.mark.parametrize('mask', [FRAME, PARTS])
def test_rings_are_canonical(mask):
    """Outer rings negative, holes positive, from the top-most, then left-most vertex."""
    rings = PolygonCodec().decode(PolygonCodec().encode(mask), mask.shape).rings
    areas = [signed_area(ring) for ring in rings]
    assert areas[0] < 0 and abs(areas[0]) == max(map(abs, areas))
    assert (areas[1] > 0) == (mask is FRAME)
    for ring in rings:
        assert tuple(ring[0][::-1]) == min(map(tuple, ring[:, ::-1]))


def test_ring_orders():
    plain = PolygonCodec().encode(FRAME)
    text = PolygonCodec(ring_order='reversed').encode(FRAME)
    rings, back = parse_answer(plain).rings, parse_answer(text).rings
    for ring, other in zip(rings, back):
        assert np.array_equal(ring[0], other[0])
        assert np.array_equal(np.roll(ring[::-1], 1, axis=0), other)
    same = PolygonCodec().decode(text, FRAME.shape)
    assert (same.mask == PolygonCodec().decode(plain, FRAME.shape).mask).all()
    shuffled = [PolygonCodec(ring_order='shuffled', seed=seed).encode(FRAME) for seed in (0, 0, 1)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    for ring, other in zip(rings, parse_answer(shuffled[0]).rings):
        assert not np.array_equal(ring, other)
        assert sorted(ring.tolist()) == sorted(other.tolist())


def test_paper_preset_by_hand():
    """A rectangle: centres traced, divided by (W, H), rounded, read back as corners."""
    mask = np.zeros((100, 200), bool)
    mask[20:60, 50:151] = True
    mask[30:40, 70:80] = False
    codec = PolygonCodec('paper', 'decimal3')
    text = codec.encode(mask)
    assert text == '[[[0.25, 0.2], [0.25, 0.59], [0.75, 0.59], [0.75, 0.2]]]'
    decoded = codec.decode(text, mask.shape)
    rle = coco_mask.frPyObjects([[50, 20, 50, 59, 150, 59, 150, 20]], 100, 200)
    assert (decoded.mask == coco_mask.decode(rle)[..., 0]).all()
    assert decoded.mask.sum() == 100 * 39
    exact = PolygonCodec('paper-exact', 'decimal3')  # the same text, read as what it is
    assert exact.encode(PARTS) == codec.encode(PARTS)
    assert PolygonCodec.from_spec(exact.spec).preset == 'paper-exact'
    outer = PolygonCodec('paper-exact', 'decimal3', epsilon=0.0)
    box = np.zeros((40, 50), bool)
    box[5:25, 10:41] = True
    assert (outer.decode(outer.encode(box), box.shape).mask == box).all()
    assert mask_iou(codec.decode(codec.encode(box), box.shape).mask, box) < 0.95
    tight = PolygonCodec('paper', epsilon=0.001)
    assert count_tokens(tight.encode(PARTS)) > count_tokens(PolygonCodec('paper').encode(PARTS))


BAD_TEXTS = ['', '[]', 'no', '[[[1,2]]]', '[[[1,2],[3,4]]]', '[[[nan,nan],[1,2],[3,4]]]',
             '[[[100000000,1],[1,2],[3,4]]]', '[[[1e308,-1e308],[0,1],[1,0]]]', '[[[', '[1,2,3,4]',
             '[[[5,5],[5,5],[5,5],[5,5]]]', '[[[0,0],[0,0.5],[0,1]]]', '[[[1,2],[3,4],[5']


@pytest.mark.parametrize('preset', ['default', 'paper'])  # centres in a row are a line of pixels
@pytest.mark.parametrize('grammar', ['int1000', 'decimal3'])
@pytest.mark.parametrize('text', BAD_TEXTS)
def test_bad_texts_decode_to_an_empty_mask(preset, grammar, text):
    decoded = PolygonCodec(preset, grammar).decode(text, (48, 64))
    assert decoded.mask.shape == (48, 64) and decoded.mask.dtype == bool
    assert not decoded.mask.any()


@pytest.mark.parametrize('preset', PRESETS)
@settings(max_examples=150, deadline=None)
@given(numbers=st.lists(st.one_of(st.integers(-2000, 3000), st.floats(), st.integers()),
                        max_size=40), size=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_any_rings_decode(preset, numbers, size):
    points = ','.join(f'[{x},{y}]' for x, y in zip(numbers[::2], numbers[1::2]))
    decoded = PolygonCodec(preset).decode(f'[[{points}]]', size)
    assert decoded.mask.shape == size


def test_specs():
    for codec in (PolygonCodec(), PolygonCodec('paper', 'decimal3'), PolygonCodec(tokens=None),
                  PolygonCodec(grammar='int100', tokens=60)):
        again = PolygonCodec.from_spec(codec.spec)
        assert again.spec == codec.spec
        assert (again.preset, again.grammar) == (codec.preset, codec.grammar)
    assert PolygonCodec().spec == 'int1000/default'
    for spec in ('', 'int1000', 'int1000/best', 'xml/default', 'int1000/default/x', None):
        with pytest.raises(ValueError):
            PolygonCodec.from_spec(spec)


def test_rates_fall_with_the_budget():
    grammars = [Grammar.from_name(name) for name in ('int1000', 'int100', 'decimal3')]
    for grammar in grammars:
        rates = [rate_of(tokens, grammar) for tokens in (1, 40, 80, 150, 250, 1e6)]
        assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < rates[0] < 1
    assert rate_of(264, grammars[2]) == pytest.approx(rate_of(149, grammars[0]) * 0.565, rel=0.02)


@pytest.mark.parametrize('preset', ['default', 'paper', 'paper-exact'])
@pytest.mark.parametrize('seg', [
    [[10, 10, 40, 10, 40, 30, 10, 30]],
    [[10, 10, 40, 10, 40, 30, 10, 30], [20, 20, 60, 22, 55, 45]],  # parts overlap
    dict(size=[48, 64], counts=[10, 30, 18, 30, 48 * 64 - 88]),
    [dict(size=[48, 64], counts=[0, 5, 48 * 64 - 5]), dict(size=[48, 64], counts=[48 * 64])],
    dict(size=[48, 64], counts=[48 * 64]),  # empty
])
def test_an_annotation_is_written_as_its_mask(preset, seg):
    codec, mask = PolygonCodec(preset), segmentation_to_mask(seg, 48, 64)
    assert codec.encode_segmentation(seg, 48, 64) == codec.encode(mask)
