"""Rule rewards against numbers worked out by hand on squares of whole pixels."""
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simpleseg_mm.polygon import PolygonCodec, mask_to_rle
from simpleseg_mm.registry import REWARDS
from simpleseg_mm.rl import (COMPONENTS, PolygonReward, RewardError, easyr1_reward,
                             group_advantages, ms_swift_reward, read_truth, trl_reward,
                             verl_reward)

ALL = dict.fromkeys(set(COMPONENTS) - {'instance_iou'}, 1.)  # which is of another task
CODEC = 'int100/default'  # on 100 x 100 pixels a step is a pixel
ABSENT = np.zeros((100, 100), bool)


def square(x0: int, y0: int, x1: int, y1: int) -> str:
    return f'[[[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}]]]'


def mask(x0: int, y0: int, x1: int, y1: int, size=(100, 100)) -> np.ndarray:
    out = np.zeros(size, bool)
    out[y0:y1, x0:x1] = True
    return out


TRUTH = mask(10, 10, 50, 50)
SAME = square(10, 10, 50, 50)


def one(text, truth=TRUTH, weights=ALL, finished=True, tokens=None, **options) -> dict:
    """Components of one answer."""
    rewards = PolygonReward(weights, **{'codec': CODEC, **options})(
        [text], [truth], [finished], None if tokens is None else [tokens])
    return {name: values[0] for name, values in rewards.components.items()}


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('weights, options, message', [
    (dict(mask_iou=1, iou=1, box=1), {}, r"unknown reward components \['box', 'iou'\].*mask_iou"),
    ({}, {}, 'not all 0'),
    (dict(mask_iou=0, format=0.), {}, 'not all 0'),
    (dict(mask_iou=math.nan), {}, 'must be finite.*nan'),
    (dict(mask_iou=1, format=math.inf), {}, 'must be finite'),
    (dict(mask_iou=1), dict(codec='int1000'), "it looks like 'int1000/default'"),
    (dict(mask_iou=1), dict(codec='int1000/best'), "preset is 'best'"),
    (dict(mask_iou=1), dict(codec=None), 'spec is None'),
    (dict(mask_iou=1), dict(max_side=0), 'max_side=0'),
])
def test_bad_settings(weights, options, message):
    with pytest.raises(ValueError, match=message):
        PolygonReward(weights, **options)


@pytest.mark.parametrize('call, message', [
    (dict(truths=[TRUTH]), r'2 texts, but \[1, 2, 2, 2, 2\] truths'),
    (dict(truths=[]), r'\[0, 2, 2, 2, 2\]'),
    (dict(finished=[True]), r'\[2, 1, 2, 2, 2\].*finished flags'),
    (dict(finished=[]), r'\[2, 0, 2, 2, 2\]'),
    (dict(num_tokens=[1, 2, 3]), r'\[2, 2, 3, 2, 2\].*token counts'),
    (dict(codecs=[CODEC]), r'\[2, 2, 2, 1, 2\].*codecs'),
    (dict(samples=[{}]), r'\[2, 2, 2, 2, 1\].*samples'),
    (dict(samples=[{}, 'text2mask']), "a sample is 'text2mask'; give .* as a dict, or None"),
    (dict(codecs=[CODEC, 'int7']), "it looks like 'int1000/default'"),
    (dict(truths=[TRUTH, TRUTH[None]]), r'got shape \(1, 100, 100\)'),
    (dict(truths=[TRUTH, TRUTH[0]]), r'got shape \(100,\)'),
    (dict(truths=[TRUTH, TRUTH[:0]]), r'got shape \(0, 100\)'),
    (dict(truths=[TRUTH, None]), r'got shape \(\)'),
    (dict(truths=[TRUTH, {}]), 'an RLE is a dict with size and counts'),
    (dict(truths=[TRUTH, dict(size=[4, 4], counts=[3])]), 'covers 3 pixels, the image has 16'),
])
def test_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        PolygonReward(ALL, CODEC)(**{'texts': [SAME, SAME], 'truths': [TRUTH, TRUTH], **call})


@pytest.mark.parametrize('component, message', [
    (lambda query: 1 / 0, 'ZeroDivisionError: division by zero'),
    (lambda query: [1], 'TypeError'),
    (lambda query: 'good', "ValueError: could not convert string to float: 'good'"),
    (lambda query: math.nan, 'gave nan'),
    (lambda query: np.float32(-np.inf), 'gave -inf'),
])
@pytest.mark.parametrize('weight', [1, 0])
def test_a_wrong_component_is_named_with_its_input(component, message, weight):
    reward = PolygonReward(dict(format=1, mine=weight), CODEC, extra=dict(mine=component))
    with pytest.raises(RewardError, match=message) as caught:
        reward(['[[1,2]]'], [TRUTH])
    for part in ("reward 'mine'", "'[[1,2]]'", '(100, 100) with 1600 pixels', CODEC):
        assert part in str(caught.value)
    assert 'gave' in message or caught.value.__cause__ is not None


def test_a_long_answer_is_cut_in_the_error():
    with pytest.raises(RewardError) as caught:
        one('[' * 10**5, weights=dict(mine=1), extra=dict(mine=lambda query: math.nan))
    assert len(str(caught.value)) < 1000


# --- components -------------------------------------------------------------------------------
@pytest.mark.filterwarnings('error::RuntimeWarning')  # such as the mean of nothing
@pytest.mark.parametrize('text, iou, centroid, boundary', [
    (SAME, 1, 1, 1),
    # the same, as two touching rings: the union counts
    (square(10, 10, 30, 50)[:-1] + ',' + square(30, 10, 50, 50)[1:], 1, 1, 1),
    # 30 x 40 pixels shared of 2000; 10 px off, half the diagonal is 20 sqrt(2); bands of 3 px
    # have 40^2 - 34^2 = 444 pixels and share 2 strips of 30 x 3
    (square(20, 10, 60, 50), .6, 1 - 10 / (20 * math.sqrt(2)), 180 / (2 * 444 - 180)),
    (square(15, 10, 45, 50), .75, 1, 2 * 30 * 3 / (444 + 1200 - 24 * 34 - 180)),
    # no pixel shared, centroids 20 px apart, then 50 sqrt(2)
    (square(50, 10, 70, 50), 0, max(0, 1 - 30 / (20 * math.sqrt(2))), 0),
    (square(60, 60, 100, 100), 0, 0, 0),
    (square(30, 30, 30, 50), 0, 0, 0),  # no area
    ('[]', 0, 0, 0),
    ('I do not see it', 0, 0, 0),
])
def test_shapes_by_hand(text, iou, centroid, boundary):
    parts = one(text)
    assert parts['mask_iou'] == pytest.approx(iou, abs=1e-12)
    assert parts['iou_squared'] == pytest.approx(iou**2, abs=1e-12)
    assert parts['centroid'] == pytest.approx(centroid, abs=1e-12)
    assert parts['boundary_iou'] == pytest.approx(boundary, abs=1e-12)


def test_the_centroid_is_measured_by_the_box_of_the_target():
    """A target of 30 x 40 px, half its diagonal is 25 px; the answer lies 10 px to the right."""
    parts = one(square(10, 20, 60, 40), mask(10, 10, 40, 50))
    assert parts['centroid'] == pytest.approx(1 - 10 / 25, abs=1e-12)


@pytest.mark.parametrize('text, finished, expected', [
    (SAME, True, 1),
    (SAME, False, 0),  # no end token
    ('[]', True, 1),
    ('[]', False, 0),
    ('[[[10,10],[50,10],[10,10],[50,50]]]', True, 1),
    ('[[[10,10],[50,10]]]', True, 0),
    ('[[[10,10],[50,10],[10,10],[50,10]]]', True, 0),  # two distinct vertices
    (SAME[:-1] + ',[[1,1],[2,2]]]', True, 0),  # a good ring, and a short one
    ('[[[10,10],[101,10],[50,50]]]', True, 0),
    ('[[[10,10],[-1,10],[50,50]]]', True, 0),
    ('[[[10,10],[10000,10],[50,50]]]', True, 0),
    ('[[[10,10],[50.0,10],[50,50]]]', True, 0),
    ('[[[0.1,0.1],[0.5,0.1],[0.5,0.5]]]', True, 0),  # another grammar
    (SAME[:-1], True, 0),
    (SAME[:-4], True, 0),
    ('[[10,10],[50,10],[50,50]]', True, 0),
    ('[10,10,50,50]', True, 0),
    ('[10,10]', True, 0),
    ('[[]]', True, 0),
    ('', True, 0),
    ('the red one', True, 0),
])
def test_format(text, finished, expected):
    assert one(text, finished=finished)['format'] == expected


@pytest.mark.parametrize('text, tokens, expected', [
    ('', 0, 0), ('', 100, -.5), (SAME, 200, -1), (SAME, 10**6, -1),
    # '[[[' 2, 16 digits, 4 commas, 3 times '],[', ']]]' 2
    (SAME, None, -27 / 200), ('[]', None, -1 / 200),
])
def test_length(text, tokens, expected):
    assert one(text, tokens=tokens)['length'] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('text, right', [
    ('[]', 1), (' [ ] ', 1), (SAME, 0), ('nothing there', 0), ('', 0), ('[[]]', 0), ('[', 0),
    (square(30, 30, 30, 50), 0),  # its mask is as empty as the target
    ('[[[200,200],[300,300],[200,300]]]', 0),
])
def test_absent_targets(text, right):
    parts = one(text, ABSENT)
    assert [parts[name] for name in ('mask_iou', 'iou_squared', 'boundary_iou', 'centroid')] \
        == [right] * 4


@pytest.mark.parametrize('text, iou, centroid', [
    # objects of 40 x 40 and 20 x 40 pixels, 2400 in all; centroids by hand
    ('[[[10,10],[50,10],[50,50],[10,50]],[[60,10],[80,10],[80,50],[60,50]]]', 1, 1),
    (SAME, 1600 / 2400, None),  # one missed
    ('[]', 0, 0),
    # a third, false one of 20 x 40
    ('[[[10,10],[50,10],[50,50],[10,50]],[[60,10],[80,10],[80,50],[60,50]],'
     '[[10,55],[30,55],[30,95],[10,95]]]', 2400 / 3200, None),
])
def test_several_objects_are_one_target(text, iou, centroid):
    parts = one(text, TRUTH | mask(60, 10, 80, 50))
    assert (parts['mask_iou'], parts['iou_squared']) == pytest.approx((iou, iou ** 2))
    assert parts['format'] == 1
    if centroid is None:
        assert 0 < parts['centroid'] < 1
    else:
        assert parts['centroid'] == centroid


def test_a_group_on_an_absent_target_prefers_the_empty_answer():
    rewards = PolygonReward(dict(mask_iou=1., centroid=.2, format=.2), CODEC)(
        ['[]', SAME, 'nothing', '[]'], [ABSENT] * 4)
    assert rewards.total == pytest.approx([1.4, .2, 0, 1.4])


# --- sums and groups --------------------------------------------------------------------------
def test_weighted_sum_and_each_component_by_itself():
    weights = dict(mask_iou=.7, format=.3, length=0, vertices=-.1)
    reward = PolygonReward(weights, CODEC, extra=dict(
        vertices=lambda query: sum(map(len, query.answer.rings)), unused=lambda query: 1 / 0))
    rewards = reward([square(20, 10, 60, 50), 'no', SAME], [TRUTH] * 3, [True, True, False],
                     [20, 2, 40])
    assert {name: values.tolist() for name, values in rewards.components.items()} == dict(
        mask_iou=[.6, 0, 1], format=[1, 0, 0], length=[-.1, -.01, -.2], vertices=[4, 0, 4])
    assert rewards.total == pytest.approx([.7 * .6 + .3 - .4, 0, .7 - .4], abs=1e-12)
    assert rewards.total.dtype == np.float64
    assert [query.answer.text for query in rewards.queries][1:] == ['no', SAME]
    assert [query.answer.well_formed for query in rewards.queries] == [True, False, False]


def test_no_answers():
    rewards = PolygonReward(ALL)([], [])
    assert rewards.total.shape == (0, ) and rewards.queries == []
    assert all(values.shape == (0, ) for values in rewards.components.values())


@pytest.mark.parametrize('texts', [
    ['', '[', 'sorry', '[[[', '99'],  # none can be read
    [SAME] * 5,
])
def test_groups_that_teach_nothing_are_dropped(texts):
    reward = PolygonReward(dict(mask_iou=.8, format=.1, centroid=.1), CODEC)
    total = torch.from_numpy(reward(texts, [TRUTH] * 5).total)
    advantage, kept = group_advantages(total[None], min_std=0.)
    assert kept.tolist() == [False] and not advantage.any()


def test_each_answer_meets_its_own_target_and_codec():
    truths = [TRUTH, mask(50, 50, 90, 90), TRUTH, ABSENT]
    texts = [SAME, square(50, 50, 90, 90), square(100, 100, 500, 500), '[]']
    codecs = [CODEC, CODEC, 'int1000/default', CODEC]
    assert PolygonReward(ALL)(texts, truths, codecs=codecs).components['mask_iou'].tolist() \
        == [1] * 4
    assert PolygonReward(ALL)(texts[2:3], truths[2:3]).components['mask_iou'] == 1  # the default
    assert PolygonReward(ALL, CODEC)(texts[2:3], truths[2:3]).components['mask_iou'] == 0


def test_arrays_serve_as_lists():
    """Rows of a stacked array are new objects each time they are read."""
    corners = range(0, 60, 2)
    truths = np.stack([mask(2 * i, 2 * i, 2 * i + 80, 2 * i + 80, (200, 200)) for i in corners])
    texts = [square(i, i, i + 40, i + 40) for i in corners]
    reward = PolygonReward(dict(mask_iou=1, format=1, length=1), CODEC, max_side=100)
    assert reward(texts, truths).components['mask_iou'].tolist() == [1] * len(texts)
    parts = reward(texts[:3], truths[:3], np.array([False, True, True]), np.array([50, 20, 0]),
                   np.array([CODEC] * 3)).components
    assert parts['format'].tolist() == [0, 1, 1]
    assert parts['length'].tolist() == [-.25, -.1, 0]


# --- targets ----------------------------------------------------------------------------------
@pytest.mark.parametrize('size, side, expected', [
    ((240, 120), 60, (60, 30)), ((120, 240), 60, (30, 60)), ((100, 100), 512, (100, 100)),
    ((100, 100), 100, (100, 100)), ((3000, 2), 100, (100, 1)),
])
def test_targets_are_scaled_down_only(size, side, expected):
    h, w = size
    truth = mask(0, 0, w, h // 2, size)
    rewards = PolygonReward(ALL, CODEC, max_side=side)([square(0, 0, 100, 50)], [truth])
    assert rewards.queries[0].truth.shape == expected
    assert rewards.components['mask_iou'] == 1


@pytest.mark.parametrize('left, kept', [(1, 0), (2, 0), (3, 1)])
def test_scaled_pixels_are_those_at_least_half_covered(left, kept):
    query = PolygonReward(ALL, CODEC, max_side=100)(
        [''], [mask(left, 0, 400 - left, 400, (400, 400))]).queries[0]
    assert np.array_equal(query.truth, mask(kept, 0, 100 - kept, 100))


def test_scaling_hardly_changes_the_reward():
    """A disc of radius 600 px at full size and at 512."""
    y, x = np.ogrid[:2000, :3000]
    disc = (x - 1400)**2 + (y - 900)**2 < 600**2
    text = PolygonCodec('default', 'int1000', tokens=60).encode(disc)
    small, full = (one(text, disc, codec='int1000/default', max_side=side) for side in (512, 4000))
    assert .9 < full['mask_iou'] < .999
    assert small['mask_iou'] == pytest.approx(full['mask_iou'], abs=.005)
    assert small['centroid'] == pytest.approx(full['centroid'], abs=.005)


@pytest.mark.parametrize('box', [(700, 0, 701, 2000), (0, 1999, 2000, 2000), (3, 5, 4, 6)])
def test_a_thin_target_stays_present(box):
    parts = one('[]', mask(*box, (2000, 2000)), max_side=100)
    assert parts['mask_iou'] == 0
    x0, y0, x1, y1 = box
    text = f'[[[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}]]]'
    parts = one(text, mask(*box, (2000, 2000)), codec='int2000/default', max_side=2000)
    assert parts['mask_iou'] == 1


def test_rle_targets_are_mask_targets():
    texts = [SAME, square(20, 10, 60, 50), '[]', '']
    truths = [TRUTH, mask(3, 5, 80, 9), ABSENT, mask(0, 0, 100, 100)]
    reward = PolygonReward(ALL, CODEC)
    expected = reward(texts, truths)
    rles = [mask_to_rle(truth) for truth in truths]
    raw = [dict(rle, counts=rle['counts'].encode()) for rle in rles]
    numbers = [truth.astype(np.uint8) * 255 for truth in truths]
    for other in (rles, raw, numbers, [truth.tolist() for truth in truths]):
        rewards = reward(texts, other)
        for name, values in expected.components.items():
            assert rewards.components[name].tolist() == values.tolist()
        assert rewards.total.tolist() == expected.total.tolist()


def test_answers_of_a_group_share_one_raster():
    first, second = PolygonReward(ALL, CODEC)([SAME] * 2, [mask_to_rle(TRUTH)] * 2).queries
    assert first.truth is second.truth and first.target is second.target


# --- model text never raises ------------------------------------------------------------------
RANGES = dict(mask_iou=(0, 1), iou_squared=(0, 1), boundary_iou=(0, 1), centroid=(0, 1),
              format=(0, 1), length=(-1, 0))
PIECES = st.sampled_from(['[', ']', '[[[', ']]]', '],[', ',', ' ', '\n', '-', '.', '0', '7', '100',
                          '101', '1e999', '-1e9', 'nan', 'inf', '0.5', '[10,10]', '[50,90],',
                          '[90,5],', SAME, '[[', '[]', '<|im_end|>', '٣', '9' * 400, 'a' * 40])


@pytest.mark.filterwarnings('error::RuntimeWarning')
@settings(deadline=None, max_examples=100)
@given(text=st.one_of(st.text(st.characters(exclude_categories=())),
                      st.lists(PIECES, max_size=12).map(''.join)),
       truth=st.sampled_from([TRUTH, ABSENT, mask(3, 3, 4, 4), mask(0, 0, 1, 1, (1, 1))]),
       spec=st.sampled_from([CODEC, 'int1000/paper', 'decimal3/default']))
@example('[' * 30000, TRUTH, CODEC)
@example('\ud800[[[1,1],[2,9],[9,\udfff9]]]', TRUTH, CODEC)
def test_any_text_has_a_reward(text, truth, spec):
    rewards = PolygonReward(ALL)([text], [truth], codecs=[spec])
    assert np.isfinite(rewards.total).all()
    for name, (low, high) in RANGES.items():
        assert low <= rewards.components[name][0] <= high


@pytest.mark.parametrize('text', [None, 3, b'[]', [SAME]])
def test_what_is_no_text_reads_as_nothing(text):
    assert one(text) == one('')


# --- TRL's signature, and configs -------------------------------------------------------------
def test_trl_needs_the_column_of_targets():
    reward = trl_reward(PolygonReward(ALL, CODEC), truth='masks')
    with pytest.raises(ValueError, match=r"no column 'masks', only \['codec', 'mask'\]"):
        reward(prompts=['x'], completions=[SAME], mask=[TRUTH], codec=[CODEC])


@pytest.mark.parametrize('wrap', [
    lambda text: text,
    lambda text: [dict(role='assistant', content=text)],
    lambda text: [dict(role='assistant', content='[]'), dict(role='assistant', content=text)],
])
def test_trl_texts_and_conversations(wrap):
    texts = [SAME, square(20, 10, 60, 50), 'no']
    function = trl_reward(PolygonReward(dict(mask_iou=1), CODEC))
    values = function(prompts=['x'] * 3, completions=[wrap(text) for text in texts],
                      mask=[mask_to_rle(TRUTH)] * 3, other=[1, 2, 3], trainer_state=None)
    assert values == pytest.approx([1, .6, 0]) and all(type(v) is float for v in values)
    assert function.__name__ == 'simpleseg_polygon'


def test_trl_column_of_codecs():
    function = trl_reward(PolygonReward(dict(mask_iou=1), CODEC), truth='target', codec='spec')
    big = square(100, 100, 500, 500)
    assert function(prompts=['x'] * 2, completions=[big, SAME], target=[TRUTH] * 2,
                    spec=['int1000/default', CODEC]) == [1, 1]


def test_a_component_of_ones_own_by_name():
    cfg = dict(type='PolygonReward', weights=dict(mask_iou=1, test_few_vertices=.5), codec=CODEC)
    with pytest.raises(ValueError, match='unknown reward components.*test_few_vertices'):
        REWARDS.build(dict(cfg))

    @REWARDS.register_module()
    def test_few_vertices(query):
        return -sum(map(len, query.answer.rings)) / 100

    try:
        rewards = REWARDS.build(cfg)([SAME, ''], [TRUTH] * 2)
    finally:
        del REWARDS.module_dict['test_few_vertices']
    assert rewards.components['test_few_vertices'].tolist() == [-.04, 0]
    assert rewards.total == pytest.approx([1 - .02, 0])


# --- targets in all forms, and other trainers' calls ------------------------------------------
@pytest.mark.parametrize('truth', [
    TRUTH, TRUTH.astype(np.uint8) * 255, TRUTH.astype(float), TRUTH.tolist(),
    TRUTH.astype(int).tolist(), mask_to_rle(TRUTH), json.dumps(mask_to_rle(TRUTH)),
    json.dumps(TRUTH.tolist()),
    dict(size=[100, 100], counts=[1010, *[40, 60] * 39, 40, 5050]),
])
def test_a_target_in_every_form(truth):
    assert np.array_equal(read_truth(truth), TRUTH)
    assert read_truth(truth).dtype == bool


@pytest.mark.parametrize('truth, message', [
    ([[10, 10, 40, 10, 40, 30, 10, 30]], 'polygon'),  # a COCO segmentation has no size
    ([[0, 0, 0, 1, 1, 1, 1, 0]], 'polygon'),
    ([[0, 0, 0, 5, 5, 5, 5, 0], [1, 2, 3, 4, 5, 6, 7, 8]], 'polygon'),
    ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7, 8]], 'a list that is no mask'),
    (json.dumps([[10, 10, 40, 10, 40, 30, 10, 30]]), 'polygon'),
    ([10, 10, 40, 10, 40, 30], r'got shape \(6,\)'),
    ([[[10, 10], [40, 10], [40, 30]]], r'got shape \(1, 3, 2\)'),
    (np.full((4, 4), 0.3) + np.eye(4) * 0.4, 'no mask'),  # probabilities
    (np.full((4, 4), np.nan), 'no mask'), (-np.eye(4), 'no mask'),
    ([['a', 'b'], ['c', 'd']], 'no mask'), ([[10**400, 1], [1, 0]], 'no mask'),
    ('[[10, 10', 'no JSON'), ('', 'no JSON'), ('[' * 100000, 'no JSON'), ('7', r'got shape \(\)'),
    ('null', r'got shape \(\)'), (b'{}', r'got shape \(\)'), ({}, 'an RLE is a dict'),
    ('{"counts": [4]}', 'an RLE is a dict'), ('{"size": [2, 2], "counts": [9]}', 'covers 9'),
    (dict(segmentation=[[1, 2, 3, 4, 5, 6]]), 'an RLE is a dict'),
])
def test_targets_that_are_refused(truth, message):
    with pytest.raises(ValueError, match=message) as error:
        PolygonReward(ALL, CODEC)([SAME], [truth])
    assert '\n' not in str(error.value)


WORSE = square(20, 10, 60, 50)


def test_the_form_of_easyr1():
    reward = PolygonReward(dict(mask_iou=1, format=.5), CODEC)
    records = [dict(response=text, response_length=9, ground_truth=json.dumps(mask_to_rle(TRUTH)))
               for text in (SAME, WORSE)]
    assert reward(records).total.tolist() == [1.5, 1.1]
    found = easyr1_reward(reward)(records)
    assert found == [dict(overall=1.5, mask_iou=1, format=1),
                     dict(overall=1.1, mask_iou=.6, format=1)]
    assert easyr1_reward(reward)(records[1]) == found[1]  # its 'sequential' manager
    assert all(type(value) is float for value in found[0].values())
    for bad in (['text'], [dict(response=SAME)], [dict(ground_truth='{}')], [None]):
        with pytest.raises(ValueError, match='response and ground_truth'):
            reward(bad)


def test_the_form_of_verl():
    score = verl_reward(PolygonReward(dict(mask_iou=1, format=.5), CODEC))
    truth = mask_to_rle(TRUTH)
    call = dict(data_source='x', solution_str=WORSE, ground_truth=truth, extra_info=None)
    assert score(**call) == dict(score=1.1, mask_iou=.6, format=1)
    assert score(**call, reward_router_address=None) == score('x', WORSE, json.dumps(truth))
    with pytest.raises(ValueError, match='polygon'):
        score('x', SAME, [[10, 10, 40, 10, 40, 30, 10, 30]])


def test_the_form_of_ms_swift():
    kind = ms_swift_reward(PolygonReward(dict(mask_iou=1), CODEC), truth='target')
    function = kind(args=None)
    assert function([SAME, WORSE], target=[mask_to_rle(TRUTH)] * 2, images=[None] * 2) == [1, .6]
    with pytest.raises(ValueError, match="no column 'target'"):
        function([SAME], mask=[TRUTH])


@pytest.mark.parametrize('make, name', [(verl_reward, 'score'), (easyr1_reward, 'overall')])
def test_a_component_cannot_hide_the_sum(make, name):
    reward = make(PolygonReward({name: 1.}, CODEC, extra={name: lambda query: 1}))
    with pytest.raises(ValueError, match=f"named '{name}'"):
        if name == 'score':
            reward('x', SAME, TRUTH)
        else:
            reward(dict(response=SAME, ground_truth=TRUTH))
