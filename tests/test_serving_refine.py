"""Outlines added to an object or cut away from it: the right vertices, holes, parts; limits."""
import json
import math

import numpy as np
import pytest

from simpleseg_mm.serving.edited import read_objects
from simpleseg_mm.serving.refine import MAX_REFINED_VERTICES, refine

SIZE = [100, 120]


def box(x1, y1, x2, y2):
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def polygon(outer, *holes):
    return dict(outer=outer, holes=list(holes))


def asked(polygons, other, how, **more):
    return dict(size=SIZE, polygons=polygons, how=how, **{'with': other}, **more)


def made(polygons, other, how):
    answer = refine(asked(polygons, other, how))
    assert set(answer) == {'polygons', 'left_out'}
    return answer['polygons']


def mask_of(polygons):
    """As an export fills them."""
    return read_objects('x', tuple(SIZE), [dict(label='x', polygons=polygons)])[0].mask


def circle(x, y, r, count=30):
    return [[round(x + r * math.cos(2 * math.pi * k / count), 2),
             round(y + r * math.sin(2 * math.pi * k / count), 2)] for k in range(count)]


SQUARE = [polygon(box(20, 20, 60, 60))]
GOOD = asked(SQUARE, [polygon(box(50, 30, 80, 50))], 'add')


@pytest.mark.parametrize('change, message', [
    (dict(how='xor'), '`how` is one of'), (dict(how=None), '`how` is one of'),
    (dict(how=['add']), '`how` is one of'),
    (dict(size=None), '`size` is the height'), (dict(size=[100]), '`size` is the height'),
    (dict(size=[100, 0]), '`size` is the height'), (dict(size=[1e9, 2]), '`size` is the height'),
    (dict(size=[True, 3]), '`size` is the height'), (dict(size='ab'), '`size` is the height'),
    (dict(polygons=None), '`polygons` is a list'), (dict(polygons={}), '`polygons` is a list'),
    (dict(polygons=[3]), '`polygons`, 0: a polygon is dict'),
    (dict(polygons=[dict(outer=box(1, 1, 2, 2), holes=3)]), '`polygons`, 0: a polygon is dict'),
    (dict(polygons=[{}]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2], [3, 4]])]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2, 3]] * 4)]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2], [3, 4], [5, 'a']])]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2], [3, 4], [5, None]])]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2], [3, 4], [5, float('nan')]])]), 'at least 3 points'),
    (dict(polygons=[polygon([[1, 2], [3, 4], [5, 1e7]])]), 'none beyond 100000'),
    (dict(polygons=[polygon([[1, 2], [3, 4], [5, 10 ** 400]])]), 'at least 3 points'),
    (dict(polygons=[polygon(box(1, 1, 9, 9), [[2, 2]])]), 'at least 3 points'),
    ({'with': []}, 'nothing to add'), ({'with': None}, '`with` is a list'),
    ({'with': [polygon([])]}, '`with`, 0: a ring'),
    (dict(polygons=[polygon(circle(50, 50, 30, MAX_REFINED_VERTICES))]), 'more than 20000'),
])
def test_malformed_input_is_told_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        refine({**GOOD, **change})
    assert '\n' not in str(error.value) and len(str(error.value)) < 300


def test_added_vertices_that_are_not_touched_stay():
    one, = made(SQUARE, [polygon(box(50, 30, 80, 50))], 'add')
    assert one == polygon([[20, 20], [60, 20], [60, 30], [80, 30], [80, 50], [60, 50], [60, 60],
                           [20, 60]])
    # the ring runs and begins as it did, and odd decimals stay
    square = [[20.12345, 60], [60, 60], [60, 20], [20, 20]]
    one, = made([polygon(square)], [polygon(box(50, 30, 80.111, 50))], 'add')
    assert one['outer'] == [[20.12345, 60], [60, 60], [60, 50], [80.11, 50], [80.11, 30],
                            [60, 30], [60, 20], [20, 20]]


def test_cut_and_holes_and_parts():
    one, = made(SQUARE, [polygon(box(30, 30, 40, 40))], 'cut')
    assert one['outer'] == box(20, 20, 60, 60)
    hole, = one['holes']
    assert sorted(hole) == sorted(box(30, 30, 40, 40))
    ring = polygon(box(10, 10, 90, 90), box(40, 40, 60, 60))
    far = polygon(box(95, 5, 110, 15))
    first, second = made([ring, far], [polygon(box(0, 80, 20, 100))], 'cut')
    assert second == far and first['holes'] == [box(40, 40, 60, 60)]  # exactly as they were
    assert first['outer'] == [[10, 10], [90, 10], [90, 90], [20, 90], [20, 80], [10, 80]]
    left, right, last = made([ring, far], [polygon(box(45, 0, 55, 100))], 'cut')  # cut in two
    assert not left['holes'] and not right['holes'] and last == far
    one, = made([ring], [polygon(box(30, 30, 70, 70))], 'add')  # the hole is filled
    assert one == polygon(box(10, 10, 90, 90))
    one, = made([ring], [polygon(box(45, 45, 55, 55))], 'cut')  # nothing of it is there
    assert one == ring
    assert made([ring], [polygon(box(0, 0, 120, 100))], 'cut') == []
    two = made([ring], [far], 'add')
    assert two[0] == ring and mask_of(two[1:]).sum() == 150
    assert len(made([], [far], 'add')) == 1 and made([], [far], 'cut') == []
    ring_with = made([far], [ring], 'add')  # what is added may have holes
    assert [len(part['holes']) for part in ring_with] == [0, 1]


def test_parts_that_lie_on_each_other_and_are_not_touched_stay_as_they_are():
    parts = [polygon(box(10, 10, 30, 30)), polygon(box(20, 20, 40, 40))]
    assert made(parts, [polygon(box(80, 80, 90, 90))], 'add')[:2] == parts
    assert made(parts, [polygon(box(80, 80, 90, 90))], 'cut') == parts
    assert made(parts, [polygon(box(40, 20, 50, 40))], 'cut') == parts  # it only touches
    joined = made(parts, [polygon(box(40, 20, 50, 40))], 'add')
    assert joined[0] == parts[0] and len(joined) == 2


def test_small_pieces_are_left_out_and_counted():
    answer = refine(asked(SQUARE, [polygon(box(20, 20, 59.5, 59.5), box(21, 21, 21.5, 21.5))],
                          'cut'))
    assert answer['left_out'] == 1  # a quarter of a pixel; the border of half a pixel is larger
    assert len(answer['polygons']) == 1


EIGHT = [[10, 10], [50, 50], [50, 10], [10, 50]]
CASES = [
    [polygon(EIGHT)], [polygon(EIGHT), polygon(box(5, 5, 30, 55))],
    [polygon(box(5, 5, 60, 60), box(40, 40, 90, 90))],  # a hole that sticks out
    [polygon(box(5, 5, 60, 60), box(10, 10, 40, 40), box(30, 30, 50, 50))],  # holes that overlap
    [polygon(box(5, 5, 60, 60), box(70, 70, 90, 90))],  # a hole outside
    [polygon([[50, 5], [70, 80], [10, 30], [90, 30], [30, 80]])],  # a star: its middle twice
    [polygon([[1, 1], [90, 1], [90, 1], [45, 1]])],  # of no area
    [polygon([[20, 20], [60, 20], [60, 60], [60, 60], [20, 60], [20, 20]])],
    [polygon(box(10, 10, 90, 90), box(40, 40, 60, 60)), polygon(box(45, 45, 55, 55))],
    [polygon(circle(50, 50, 35), circle(50, 50, 20))],
]
TOOLS = [[polygon(circle(40, 40, 22))], [polygon(EIGHT[::-1])],
         [polygon(box(20, 20, 80, 80), box(30, 30, 55, 55))],
         [polygon(box(-50, -50, 30, 30))]]


@pytest.mark.parametrize('how', ['add', 'cut'])
@pytest.mark.parametrize('polygons', CASES)
def test_what_is_filled_is_the_union_or_the_difference(polygons, how):
    """By the rule of the exports, self-crossing outlines included."""
    for other in TOOLS:
        before, tool = mask_of(polygons), mask_of(other)
        wanted = before | tool if how == 'add' else before & ~tool
        found = mask_of(made(polygons, other, how))
        # a pixel whose centre is on a border, or a hundredth beside a new vertex
        assert np.count_nonzero(found != wanted) <= 4, (polygons, other)


def test_random_outlines():
    rng = np.random.default_rng(0)
    for _ in range(60):
        polygons = [polygon(rng.uniform(0, 100, (rng.integers(3, 9), 2)).round(2).tolist(),
                            *[rng.uniform(20, 80, (4, 2)).round(2).tolist()
                              for _ in range(rng.integers(0, 2))])
                    for _ in range(rng.integers(1, 3))]
        other = [polygon(circle(*rng.uniform(20, 80, 2), 25))]
        how = ['add', 'cut'][rng.integers(2)]
        before, tool = mask_of(polygons), mask_of(other)
        wanted = before | tool if how == 'add' else before & ~tool
        assert np.count_nonzero(mask_of(made(polygons, other, how)) != wanted) <= 6


def test_over_the_server_bounded_as_exports_are():
    pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
    pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
    import httpx2
    from serving_standin import serving

    comb = [[x * 0.02, y] for k in range(2200) for x, y in ((k, 1), (k, 99))]
    teeth = [[x, y * 0.02] for k in range(2200) for x, y in ((1, k), (99, k))]

    def post(url, body):
        return httpx2.post(f'{url}/api/refine', content=json.dumps(body), timeout=120)

    with serving(settings=dict(export_seconds=100.0)) as (url, _):
        good = post(url, GOOD)
        assert good.status_code == 200 and good.json() == refine(GOOD)
        assert post(url, dict(GOOD, how=1)).status_code == 400
        assert post(url, [1]).json() == {'error': 'the body is not a JSON object'}
    with serving(settings=dict(export_seconds=4.0)) as (url, _):
        slow = post(url, asked([polygon(comb)], [polygon(teeth)], 'cut'))
        assert slow.status_code == 400 and 'the work takes' in slow.json()['error']
        # and the next one is served, where a busy machine starts a process in time
        assert any(post(url, GOOD).status_code == 200 for _ in range(10))
