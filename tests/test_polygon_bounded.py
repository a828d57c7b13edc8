"""Bounded work: what is done in pieces equals what is done at once, and hostile input stays small.

Time is not measured here: crossings, chunks, rings and characters are counted, and memory.
"""
import tracemalloc
import warnings

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleseg_mm.export.rings import keyhole
from simpleseg_mm.polygon import (PolygonCodec, coco_fill, contour, count_crossings, group_rings,
                                  mask_to_parts, mask_to_rings, parts, raster, rings_to_mask,
                                  rings_to_spans, signed_area, simplify_dp, spans)
from simpleseg_mm.polygon.text import MAX_CHARS, Grammar
from simpleseg_mm.serving import edited
from test_polygon_raster import masks
from test_polygon_spans import random_rings

SEEDS = st.integers(0, 2**32 - 1)
N = 300
Y, X = np.mgrid[:N, :N]
HOSTILE = dict(
    checkerboard=(X + Y) % 2 == 0, dots=(X % 3 == 0) & (Y % 3 == 0),
    holes=~((X % 3 == 0) & (Y % 3 == 0)), comb=(X % 2 == 0) | (Y == 0), stripes=X % 4 < 2,
    squares=(X % 8 < 5) & (Y % 8 < 5), noise=np.random.default_rng(0).random((N, N)) < 0.5)


def zigzag(count: int, height: float) -> np.ndarray:
    """A ring whose every edge crosses the whole height."""
    index = np.arange(count)
    return np.stack([index * 7 % 10, height * (index % 2)], axis=1).astype(float)


# --- in pieces as at once ---------------------------------------------------------------------
@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, h=st.integers(1, 40), w=st.integers(1, 40), chunk=st.integers(1, 60))
def test_filling_in_chunks_of_rows(seed, h, w, chunk):
    rings = random_rings(np.random.default_rng(seed), (h, w))
    whole = rings_to_spans(rings, (h, w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, 'CHUNK', chunk)
        pieces, mask = rings_to_spans(rings, (h, w)), rings_to_mask(rings, (h, w), 'edges')
        patch.setattr(spans, 'SPARSE', 0)
        other = rings_to_mask(rings, (h, w), 'edges')
    assert np.array_equal(pieces.borders, whole.borders)
    assert np.array_equal(mask, whole.mask) and np.array_equal(other, whole.mask)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, most=st.integers(1, 400))
def test_a_long_ring_is_filled_by_pycocotools_in_fans(seed, most):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 60, 2).tolist()
    rings = [rng.uniform(-20, 80, (rng.integers(3, 20), 2)) for _ in range(rng.integers(1, 4))]
    whole = coco_fill(rings, (h, w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, 'MAX_COCO_POINTS', most)
        assert np.array_equal(coco_fill(rings, (h, w)), whole)


@settings(max_examples=200, deadline=None)
@given(mask=masks(), holes=st.booleans())
def test_linked_rings_are_those_of_border_following(mask, holes):
    followed = mask_to_rings(mask, 'edges', holes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contour, 'MANY_BORDERS', -1)
        linked = mask_to_rings(mask, 'edges', holes)
    assert [ring.tolist() for ring in linked] == [ring.tolist() for ring in followed]


@settings(max_examples=60, deadline=None)
@given(mask=masks(), most=st.integers(1, 6), reading=st.sampled_from(['centres', 'edges']))
def test_the_largest_rings(mask, most, reading):
    rings = mask_to_rings(mask, reading)
    areas = sorted((abs(signed_area(ring)) for ring in rings), reverse=True)[:most]
    found = mask_to_rings(mask, reading, most=most)
    assert sorted((abs(signed_area(ring)) for ring in found), reverse=True) == areas
    known = {tuple(ring.ravel().tolist()) for ring in rings}
    assert all(tuple(ring.ravel().tolist()) in known for ring in found)


def contains(ring, point) -> bool:
    """Whether a point has a winding number other than zero, edge by edge."""
    number, point = 0, point.tolist()
    for (xa, ya), (xb, yb) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist()):
        side = (xb - xa) * (point[1] - ya) - (point[0] - xa) * (yb - ya)
        number += (ya <= point[1] < yb and side > 0) - (yb <= point[1] < ya and side < 0)
    return number != 0


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, chunk=st.integers(1, 40))
def test_owners_of_holes_are_the_smallest_rings_around_them(seed, chunk):
    rng = np.random.default_rng(seed)
    rings = []
    for _ in range(rng.integers(1, 12)):
        (x, y), (w, h) = rng.integers(0, 40, 2), rng.integers(1, 30, 2)
        ring = np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]], float)
        rings.append(ring if rng.random() < 0.6 else ring[::-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, 'CHUNK', chunk)
        found = group_rings(rings)
    areas = [signed_area(ring) for ring in rings]
    way = np.sign(areas[int(np.argmax(np.abs(areas)))])
    outers = sorted((i for i, area in enumerate(areas) if area * way > 0),
                    key=lambda i: abs(areas[i]))
    expected: dict = {i: [] for i in outers}
    for i, area in enumerate(areas):
        if area * way < 0:
            point = parts._inner_point(rings[i])
            owner = next((k for k in outers if abs(areas[k]) >= abs(area)
                          and contains(rings[k], point)), None)
            expected.setdefault(i if owner is None else owner, [])
            expected[i if owner is None else owner] += [] if owner is None else [i]
    assert [(len(part.holes), abs(signed_area(part.outer))) for part in found] == [
        (len(expected[i]), abs(areas[i])) for i in sorted(expected)]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_cuts_to_holes_are_the_shortest(seed):
    """As long as those of the plain way: the nearest vertices, hole by hole."""
    rng = np.random.default_rng(seed)
    outer = np.array([[0, 0], [0, 60], [60, 60], [60, 0]], float)
    holes = [rng.integers(3, 50, 2) + np.array([[0, 0], [2, 0], [2, 3]], float)
             for _ in range(rng.integers(1, 12))]
    joined, todo, length = outer, list(holes), 0.0
    while todo:
        apart = [np.sqrt(((joined[:, None] - hole) ** 2).sum(-1)).min() for hole in todo]
        length += min(apart)
        joined = np.concatenate([joined, todo.pop(int(np.argmin(apart)))])
    ring = keyhole(outer, holes)
    assert len(ring) == 4 + 5 * len(holes)
    edges = np.sqrt(((ring - np.roll(ring, -1, axis=0)) ** 2).sum(-1)).sum()
    around = 240 + len(holes) * (2 + 3 + np.sqrt(13))
    assert edges == pytest.approx(around + 2 * length)


@pytest.mark.parametrize('outer', [
    [[0, 0], [1, 1], [2, 2]], [[5, 5]] * 3, [[0, 0], [9, 0], [9, 9]]])
def test_cuts_of_rings_on_a_line_or_in_one_place(outer):
    holes = [np.array([[3, 3], [4, 4], [7, 7]]), np.array([[1, 1], [4, 4], [1, 1]])]
    ring = keyhole(np.array(outer), holes).tolist()
    assert len(ring) == 3 + 2 * 5 and ring[0] == outer[0]
    assert {tuple(point) for point in ring} == {
        tuple(point) for part in (outer, *holes) for point in np.asarray(part).tolist()}


# --- counted ----------------------------------------------------------------------------------
def test_crossings_are_counted():
    square = np.array([[10, 10], [10, 50], [50, 50], [50, 10]], float)
    assert count_crossings([square], (100, 100)) == 80
    assert count_crossings([square, square[::-1]], (30, 100)) == 80  # the rest is outside
    assert count_crossings([square - 200], (100, 100)) == 0
    assert count_crossings([zigzag(1000, 500)], (500, 10)) == 1000 * 500
    assert count_crossings([], (5, 5)) == 0


def test_chunks_have_so_many_crossings():
    ring, size = zigzag(100, 5000), (5000, 10)
    edges = spans._Edges(ring, spans._following([ring]), size)
    chunks = edges.chunks()
    assert [top for top, _ in chunks[1:]] == [bottom for _, bottom in chunks[:-1]]
    assert chunks[0][0] == 0 and chunks[-1][1] == 5000
    counts = [len(edges.crossings(*rows)[0]) for rows in chunks]
    assert sum(counts) == count_crossings([ring], size) == 500_000
    assert max(counts) <= spans.CHUNK


@pytest.mark.parametrize('preset', ['default', 'paper', 'paper-exact'])
def test_memory_of_a_zigzag_is_that_of_the_answer_and_its_mask(preset):
    rng = np.random.default_rng(0)
    points = ','.join(f'[{rng.integers(0, 1000)},{rng.integers(0, 5) + 990 * (i % 2)}]'
                      for i in range(1800))
    decoded = PolygonCodec(preset).decode(f'[[{points}]]', (8000, 100))
    assert sum(map(len, decoded.rings)) > 1500
    tracemalloc.start()
    assert decoded.mask.any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # 14 million crossings at once would be 900 MB


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('kwargs', [
    dict(), dict(tokens=2000), dict(epsilon=0), dict(preset='paper', epsilon=0),
    dict(grammar='decimal3', epsilon=0.001)])
def test_what_is_written_is_read(kwargs, name):
    codec = PolygonCodec(**kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        text = codec.encode(HOSTILE[name])
    assert len(text) <= MAX_CHARS
    parsed = codec.decode(text, (N, N)).parsed
    assert parsed.kind == 'rings' and not parsed.truncated
    assert codec.preset == 'paper' or parsed.valid


def test_rings_that_are_left_out_are_said():
    with pytest.warns(UserWarning, match='more rings than 16384 characters hold'):
        text = PolygonCodec(epsilon=0).encode(HOSTILE['squares'])
    assert len(text) > 0.9 * MAX_CHARS
    with pytest.warns(UserWarning, match='largest rings'):
        PolygonCodec('paper').encode(HOSTILE['dots'])
    big = np.zeros((N, N), bool)
    big[:60, :200] = True  # the largest part is kept
    with pytest.warns(UserWarning):
        text = PolygonCodec(epsilon=0).encode(big | (HOSTILE['squares'] & (Y > 70)))
    assert text.startswith('[[[2,0],[0,2],[0,198],[2,200],[665,200],[667,198],[667,2],[665,0]]')


def test_every_vertex_or_an_error():
    codec = PolygonCodec(tokens=None)
    with pytest.raises(ValueError, match='more than 1048576 characters.*tokens'):
        codec.encode(np.kron(HOSTILE['dots'], np.eye(3)[:, ::-1]).astype(bool))
    text = codec.encode(HOSTILE['squares'])
    assert MAX_CHARS < len(text) < codec.max_chars
    assert np.array_equal(codec.decode(text, (N, N)).mask, HOSTILE['squares'])
    assert codec.decode(text + ' ' * codec.max_chars, (N, N)).parsed.span[1] == len(text)


def test_no_more_rings_are_fitted_than_a_text_holds(monkeypatch):
    from simpleseg_mm.polygon import fit
    fitted = []
    plain = fit._Fitter.fit
    monkeypatch.setattr(fit._Fitter, 'fit', lambda self, ring: fitted.append(len(ring)) or plain(
        self, ring))
    for name in ('dots', 'squares'):
        fitted.clear()
        PolygonCodec(tokens=2000).encode(HOSTILE[name])
        assert len(fitted) <= Grammar.from_name('int1000').most_rings


def test_a_long_outline_is_simplified_in_pieces():
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 1000
    found = simplify_dp(ring, 1.0)
    assert 60 < len(found) < 200
    apart = shapely.distance(shapely.points(ring), shapely.LinearRing(found))
    assert 0.5 < apart.max() <= 2.0
    assert len(simplify_dp(ring, 0.0, most=50)) <= 50


def test_too_many_parts_are_refused(monkeypatch):
    monkeypatch.setattr(parts, 'MAX_PARTS', 50)
    with pytest.raises(ValueError, match='falls into 10000 parts'):
        mask_to_parts(HOSTILE['dots'])


# --- outlines that a user has edited ----------------------------------------------------------
def objects(*polygons) -> list:
    return [dict(label='a', polygons=[dict(outer=np.asarray(outer).tolist(), holes=[
        np.asarray(hole).tolist() for hole in holes]) for outer, *holes in polygons])]


@pytest.mark.parametrize('size, polygons, message', [
    ((16384, 1500), [(zigzag(8000, 16384), )], 'cross more than 20000000 rows'),
    ((10, 10), [(zigzag(200_001, 9), )], 'more than 200000 vertices'),
    ((10, 10), [(zigzag(50_000, 9), *[zigzag(3, 1)] * 1500)], 'more than 50000000 pairs'),
])
def test_edited_outlines_that_are_too_much(size, polygons, message, monkeypatch):
    monkeypatch.setattr(edited, 'rings_to_mask', None)  # refused before anything is filled
    with pytest.raises(ValueError, match=message) as error:
        edited.read_objects('a.png', size, objects(*polygons))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('ring', [
    [[10**400, 1], [2, 3], [4, 5]], [[-10**400, 1], [2, 3], [4, 5]], [[1e400, 1], [2, 3], [4, 5]],
    [[float('nan'), 1], [2, 3], [4, 5]], [[1e6, 1], [2, 3], [4, 5]], [['a', 1], [2, 3], [4, 5]],
    [[1, 2], [3, 4]], [[1, 2], [3]], [[[1, 2]]], 'x', None, {}, 7, [[{}, 1], [2, 3], [4, 5]],
])
def test_edited_rings_that_are_none(ring):
    with pytest.raises(ValueError, match='object 0: a ring is a list of at least 3 points') as e:
        edited.read_objects('a.png', (10, 10), [dict(polygons=[dict(outer=ring)])])
    assert '\n' not in str(e.value) and len(str(e.value)) < 200


def test_edited_holes_stay():
    square = np.array([[0, 0], [0, 20], [20, 20], [20, 0]], float)
    result, = edited.read_objects('a.png', (20, 20), objects((square, square[:, ::-1] / 2 + 1)))
    assert result.mask.sum() == 300 and len(result.parts[0].holes) == 1
