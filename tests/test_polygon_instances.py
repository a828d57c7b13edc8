"""Several instances in one answer: their text and back, and what is made of a bad one."""
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks

from simpleseg_mm import answers
from simpleseg_mm.datasets import FormatQuery, LoadTargetMask
from simpleseg_mm.evaluation.base import SampleQuery
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.polygon import (LIST_KINDS, AnswerAutomaton, Grammar, PolygonCodec, Spans,
                                  WrittenRings, mask_iou, mask_to_box, mask_to_rle, parse_answer)
from simpleseg_mm.polygon.text import MAX_CHARS
from simpleseg_mm.structures import Generated
from test_polygon_raster import disk, masks

SIZE = (100, 200)
A, C = '[[[1,2],[3,4],[5,1]]]', '[[[0,0],[9,0],[9,9]]]'
B = '[[[6,6],[7,6],[7,7]],[[1,1],[2,2],[1,2]]]'
SQUARE, OTHER = '[[[10,20],[60,20],[60,80],[10,80]]]', '[[[50,0],[100,0],[100,50],[50,50]]]'
CODEC = PolygonCodec(grammar='int100')


# --- malformed input -----------------------------------------------------------------------------
@pytest.mark.parametrize('text, kind, instances, truncated, dropped', [
    # text, asked for, each instance: its rings or numbers, and whether it is valid by itself
    (A, 'masks', [(1, True)], False, 0),  # one mask where a list was asked for
    ('[[1,2],[3,4],[5,1]]', 'masks', [(1, False)], False, 0),  # one ring
    (B, 'masks', [(2, True)], False, 0),  # a list of rings is one mask
    (f'{A},{B}', 'masks', [(1, True), (2, True)], False, 0),  # the outer brackets are missing
    (f'{A} , {B},{C}', 'masks', [(1, True), (2, True), (1, True)], False, 0),
    (f'{A} and {B}', 'masks', [(1, True)], False, 0),  # words end an answer
    ('[[1,2],[3,4],[5,1]],[[6,6],[7,6],[7,7]]', 'masks', [(1, False), (1, False)], False, 0),
    (f'[[{A},{B}]]', 'masks', [(1, True), (2, True)], False, 0),  # a level too many
    (f'[[{A}],[{B}]]', 'masks', [(1, True), (2, True)], False, 0),
    (f'[{A},{B}', 'masks', [(1, True), (2, True)], True, 0),
    (f'[{A},', 'masks', [(1, True)], True, 0), (f'[{A},[', 'masks', [(1, True)], True, 0),
    (f'[{A},[[[6,', 'masks', [(1, True)], True, 0),
    (f'[{A},[[[6,6],[7,6],[7,7]', 'masks', [(1, True), (1, False)], True, 0),
    (f'[{A},[[[6,6],[7', 'masks', [(1, True), (0, False)], True, 1),
    (f'{A},[[[6,6],[7', 'masks', [(1, True), (0, False)], True, 1),
    (f'[{A}]]', 'masks', [(1, True)], False, 0),  # a bracket too many
    (f'[{A},[[[6,6],[7,6]]],{C}]', 'masks', [(1, True), (0, False), (1, True)], False, 1),
    (f'[{A},[],{C}]', 'masks', [(1, True), (1, True)], False, 1),
    (f'[[],{A}]', 'masks', [(1, True)], False, 0),
    (f'[[[["x","y"]]],{A}]', 'masks', [(1, True)], False, 1),
    ('[[[["x","y"]]]]', 'masks', [], False, 1),
    (f'[{A},[[[99,6],[7,6],[7,7]]],{C}]', 'masks', [(1, True), (0, False), (1, True)], False, 2),
    (f'[{A},[[[-1,6],[7,6],[7,7]]]]', 'masks', [(1, True), (1, False)], False, 0),
    (f'[{A} {B}]', 'masks', [(1, True), (2, True)], False, 0),  # no comma
    ('[[[[0.1,0.2],[0.3,0.4],[0.5,0.1]]]]', 'masks', [(1, False)], False, 0),  # shares
    (f'[{A},[[[6.5,6],[7,6],[7,7]]]]', 'masks', [(1, True), (1, False)], False, 0),
    ('[[1,2,3,4],[5,6,7,8]]', 'masks', [], False, 2),
    ('[1,2,3,4]', 'boxes', [(4, True)], False, 0),  # one box where a list was asked for
    ('[1,2,3,4],[5,6,7,8]', 'boxes', [(4, True), (4, True)], False, 0),
    ('[1,2,3,4] or [5,6,7,8]', 'boxes', [(4, True)], False, 0),
    ('[[[1,2,3,4]],[[5,6,7,8]]]', 'boxes', [(4, True), (4, True)], False, 0),
    ('[[1,2,3,4],[5,6,7', 'boxes', [(4, True)], True, 0),
    ('[1,2,3,4],[5,6', 'boxes', [(4, True)], True, 0),
    ('[[1,2,3,4],[5,6],[5,6,7,8]]', 'boxes', [(4, True), (4, True)], False, 1),
    ('[[1,2,3,4],[7,8,5,6]]', 'boxes', [(4, True), (4, False)], False, 0),  # corners swapped
    ('[[1,2,3,4],[5,6,7,99]]', 'boxes', [(4, True), (0, False)], False, 1),
    ('[[1,2,3,4],[5,6,7,8]]]', 'boxes', [(4, True), (4, True)], False, 0),
    ('[[1,2,3,4],[0.1,0.2,0.3,0.4]]', 'boxes', [(4, True), (4, False)], False, 0),
    ('[1,2]', 'points', [(2, True)], False, 0), ('[1,2],[3,4]', 'points', [(2, True)] * 2, False,
                                                 0),
    ('[[1,2],[3,4', 'points', [(2, True)], True, 0),
    ('[[1,2],[3,4,5],[6,7]]', 'points', [(2, True)] * 2, False, 1),
    ('[[1,2],[99,4]]', 'points', [(2, True), (0, False)], False, 1),
])
def test_a_malformed_list(text, kind, instances, truncated, dropped):
    parsed = parse_answer(text, 'int10', kind)
    assert not parsed.valid and parsed.kind == kind
    assert [(size_of(one), one.valid) for one in parsed.instances] == instances
    assert (parsed.truncated, parsed.dropped) == (truncated, dropped)
    assert all(one.kind == LIST_KINDS[kind] for one in parsed.instances)
    for one in parsed.instances:
        if one.valid:  # its own text says the same
            alone = parse_answer(text[slice(*one.span)], 'int10', one.kind)
            assert alone.valid and alone.span == (0, one.span[1] - one.span[0])


def size_of(one):
    if one.kind == 'rings':
        return len(one.rings)
    numbers = one.box if one.kind == 'box' else one.point
    return 0 if numbers is None else len(numbers)


@pytest.mark.parametrize('text, kind, found, valid', [
    ('[]', 'masks', 'empty', True), ('None: [].', 'boxes', 'empty', True),
    ('[[]]', 'masks', 'empty', False), ('[[],[]]', 'boxes', 'empty', False),
    ('', 'masks', 'none', False), (None, 'points', 'none', False),
    ('no cups', 'masks', 'none', False), ('[1,2]', 'masks', 'none', False),
    ('[[1,2],[3,4]]', 'boxes', 'none', False), (f'[{A}]', 'boxes', 'none', False),
    ('[[1,2,3,4]]', 'points', 'none', False),
])
def test_no_list(text, kind, found, valid):
    parsed = parse_answer(text, 'int10', kind)
    assert (parsed.kind, parsed.valid, parsed.instances) == (found, valid, ())


@pytest.mark.parametrize('text, kind', [
    (f'[{A},{B}]', 'rings'), ('[[1,2,3,4],[5,6,7,8]]', 'box'), ('[[1,2],[3,4]]', 'point')])
def test_a_list_where_one_was_asked_for_is_not_valid(text, kind):
    parsed = parse_answer(text, 'int10', kind)
    assert parsed.kind == kind and not parsed.valid and parsed.instances == ()
    assert len(parsed.rings) == (3 if kind == 'rings' else 0)


@pytest.mark.parametrize('text', [f'[{A},{B}]', f'Sure: [ {A} , {B} ], all of them.'])
def test_what_was_not_asked_for_is_read_as_before(text):
    assert parse_answer(text, 'int10').kind == 'rings'
    assert parse_answer(text, 'int10', 'masks').valid


def test_an_answer_cut_in_the_middle_of_the_ninth():
    text = CODEC.encode_masks([disk((100, 200), (50, 10 + 20 * k), 8) for k in range(9)])
    whole = parse_answer(text, 'int100', 'masks')
    start, end = whole.instances[8].span
    cut = parse_answer(text[:(start + end) // 2], 'int100', 'masks')
    assert whole.valid and not cut.valid and cut.truncated
    assert [one.valid for one in cut.instances] == [True] * 8 + [False]
    for one, other in zip(cut.instances[:8], whole.instances):
        assert one.span == other.span and (one.rings[0] == other.rings[0]).all()


@pytest.mark.parametrize('text, kind', [
    (f'[{A},{B},{C},{B}]', 'masks'), ('[[1,2,3,4],[5,6,7,8],[0,0,10,10]]', 'boxes'),
    ('[[1,2],[3,4],[0,10]]', 'points')])
def test_an_answer_cut_anywhere(text, kind):
    whole = parse_answer(text, 'int10', kind).instances
    for cut in range(len(text)):
        parsed = parse_answer(text[:cut], 'int10', kind)
        assert not parsed.valid and parsed.truncated == (cut > 0)
        valid = [one for one in parsed.instances if one.valid]
        assert [one.span for one in valid] == [one.span for one in whole if one.span[1] <= cut]
        assert len(parsed.instances) - len(valid) <= 1


# --- texts and back ------------------------------------------------------------------------------
@pytest.mark.parametrize('name, texts', [
    ('int100', ('[[[[1,2],[3,4],[5,1]]],[[[0,0],[1,1],[1,0]]]]', '[[1,2,3,4],[0,0,1,1]]',
                '[[1,2],[3,4]]')),
    ('decimal2', ('[[[[0.01, 0.02], [0.03, 0.04], [0.05, 0.01]]], [[[0.0, 0.0], [0.01, 0.01], '
                  '[0.01, 0.0]]]]', '[[0.01, 0.02, 0.03, 0.04], [0.0, 0.0, 0.01, 0.01]]',
                  '[[0.01, 0.02], [0.03, 0.04]]')),
])
def test_formats(name, texts):
    grammar, size = Grammar.from_name(name), (100, 100)
    rings = np.array([[1, 2], [3, 4], [5, 1]]), np.array([[0, 0], [1, 1], [1, 0]])
    assert grammar.format_masks([[rings[0]], [], [rings[1]]], size) == texts[0]
    assert grammar.format_boxes([[1, 2, 3, 4], [0, 0, 1, 1]], size) == texts[1]
    assert grammar.format_points([[1, 2], [3, 4]], size) == texts[2]
    for write in (grammar.format_masks, grammar.format_boxes, grammar.format_points):
        assert write([], size) == '[]'


@settings(max_examples=60, deadline=None)
@given(found=st.lists(masks(), max_size=6), grammar=st.sampled_from(['int1000', 'decimal3']))
def test_the_codec_gives_back_every_instance(found, grammar):
    shape = found[0].shape if found else (5, 5)
    found = [mask for mask in found if mask.shape == shape]
    codec = PolygonCodec(grammar=grammar, tokens=None)
    text = codec.encode_masks(found)
    answer = codec.decode(text, shape, 'masks')
    order = codec.order(found)
    assert order == sorted(order, key=order.index) and answer.parsed.valid
    assert [one.mask.tolist() for one in answer.instances] == [found[i].tolist() for i in order]
    assert set(order) == {i for i, mask in enumerate(found) if mask.any()}
    assert (answer.mask == np.any([*found, np.zeros(shape, bool)], axis=0)).all()
    assert AnswerAutomaton.of(grammar, 'masks').follow(('start', ), text) == ('done', )


@pytest.mark.parametrize('count', [2, 20, 200])
def test_so_many_instances_go_round(count):
    rng = np.random.default_rng(count)
    found = [disk((300, 400), rng.integers(0, [300, 400]), rng.integers(3, 60))
             for _ in range(count)]
    codec = PolygonCodec(tokens=None)
    answer = codec.decode(codec.encode_masks(found), (300, 400), 'masks')
    assert answer.well_formed and len(answer.instances) == count
    for number, one in zip(codec.order(found), answer.instances):
        assert (one.mask == found[number]).all() and one.well_formed
        assert (one.spans.box == one.box).all()
    assert (answer.mask == np.any(found, axis=0)).all()


@pytest.mark.parametrize('preset', ['paper', 'paper-exact'])
def test_the_presets_of_the_paper_work_on_each_instance(preset):
    codec = PolygonCodec(preset=preset)
    found = [disk((120, 160), (60, 50), 30), disk((120, 160), (60, 80), 30)]  # they overlap
    answer = codec.decode(codec.encode_masks(found), (120, 160), 'masks')
    assert answer.parsed.valid
    for mask, one in zip(found, answer.instances):
        assert (one.mask == codec.decode(codec.encode(mask), (120, 160)).mask).all()
        assert mask_iou(one.mask, mask) > 0.9
    assert (answer.mask == answer.instances[0].mask | answer.instances[1].mask).all()


def test_the_order_of_instances():
    found = [np.zeros((20, 40), bool) for _ in range(6)]
    found[0][10:12, 30:34] = True  # to the right
    found[1][14:18, 2:6] = True  # left, below
    found[2][2:6, 2:6] = True  # left, above
    found[4][3:5, 3:5] = True  # the same centre, smaller
    found[5][0:20, 3:7] = True
    assert CODEC.order(found) == [4, 2, 1, 5, 0]  # number 3 is empty
    assert CODEC.order([]) == [] and CODEC.encode_masks([]) == '[]' == CODEC.encode_masks(
        found[3:4])
    assert CODEC.encode_masks(found) == CODEC.encode_masks(found[::-1])
    twice = CODEC.decode(CODEC.encode_masks([found[0], found[0]]), (20, 40), 'masks')
    assert len(twice.instances) == 2 and twice.parsed.valid
    assert (twice.instances[0].mask == twice.instances[1].mask).all()


def test_masks_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r'sizes \[\(3, 3\), \(4, 4\)\]; give those of one'):
        CODEC.encode_masks([np.ones((3, 3), bool), np.ones((4, 4), bool)])


def scattered(count, radii=17):
    rng = np.random.default_rng(0)
    return [disk((400, 600), rng.integers(20, [380, 580]), 4 + k % radii) for k in range(count)]


def test_too_many_for_the_text_are_written_coarser():
    found = scattered(200, radii=6)
    codec = PolygonCodec(tokens=400)
    with pytest.warns(UserWarning, match='200 masks need more than 16384 .* written coarser'):
        text = codec.encode_masks(found)
    answer = codec.decode(text, (400, 600), 'masks')
    assert len(text) <= MAX_CHARS and answer.parsed.valid and len(answer.instances) == 200
    assert np.mean([mask_iou(one.mask, found[number])
                    for number, one in zip(codec.order(found), answer.instances)]) > 0.7


@pytest.mark.parametrize('kwargs', [dict(preset='paper'), dict(epsilon=0.001)])
def test_where_that_is_not_enough_the_largest_are_written(kwargs):
    found = scattered(300)
    codec = PolygonCodec(**kwargs)
    with pytest.warns(UserWarning, match='300 masks need more .* the largest [0-9]+ are written'):
        text = codec.encode_masks(found)
    answer = codec.decode(text, (400, 600), 'masks')
    assert len(text) <= MAX_CHARS and answer.parsed.valid
    kept = len(answer.instances)
    areas = sorted((mask.sum() for mask in found), reverse=True)
    assert 20 < kept < 300 and min(one.mask.sum() for one in answer.instances) > 0.5 * areas[kept]


def test_few_masks_are_written_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        PolygonCodec().encode_masks(scattered(20))


# --- answers -------------------------------------------------------------------------------------
@pytest.mark.parametrize('text, kind, areas, boxes, area, box', [
    # text, asked for; of each instance its pixels and box; pixels of all, the box around all
    (f'[{SQUARE},{OTHER}]', 'masks', [6000, 5000], [[20, 20, 120, 80], [100, 0, 200, 50]],
     6000 + 5000 - 600, [20, 0, 200, 80]),
    (SQUARE, 'masks', [6000], [[20, 20, 120, 80]], 6000, [20, 20, 120, 80]),
    (f'[{SQUARE},{SQUARE}]', 'masks', [6000] * 2, [[20, 20, 120, 80]] * 2, 6000,
     [20, 20, 120, 80]),
    # a ring that runs the other way fills too, and takes nothing from another instance
    (f'[{SQUARE},[[[10,80],[60,80],[60,20],[10,20]]]]', 'masks', [6000] * 2,
     [[20, 20, 120, 80]] * 2, 6000, [20, 20, 120, 80]),
    ('[[10,20,60,80],[50,0,100,50]]', 'boxes', [0, 0], [[20, 20, 120, 80], [100, 0, 200, 50]], 0,
     [20, 0, 200, 80]),
    ('[[10,20],[60,80]]', 'points', [0, 0], [None, None], 0, None),
    # another list than was asked for
    (f'[{SQUARE},{OTHER}]', 'boxes', [6000, 5000], [[20, 20, 120, 80], [100, 0, 200, 50]], 10400,
     [20, 0, 200, 80]),
    ('[10,20,60,80]', 'masks', [0], [[20, 20, 120, 80]], 0, [20, 20, 120, 80]),
    (f'[{SQUARE},[[[1,2],[3,4]]]]', 'masks', [6000, 0], [[20, 20, 120, 80], None], 6000,
     [20, 20, 120, 80]),
    ('[]', 'masks', [], [], 0, None), ('no cups', 'masks', [], [], 0, None),
    ('[] but not [10,20,60,80]', 'masks', [], [], 0, None), (None, 'boxes', [], [], 0, None),
    # one object alone
    (SQUARE, 'rings', [6000], [[20, 20, 120, 80]], 6000, [20, 20, 120, 80]),
    ('[]', 'rings', [], [], 0, None), ('words', None, [], [], 0, None),
])
@pytest.mark.parametrize('mask_first', [True, False])
def test_the_instances_of_an_answer(text, kind, areas, boxes, area, box, mask_first):
    answer = CODEC.decode(text, SIZE, kind, finished=True)
    if mask_first:
        assert [int(one.mask.sum()) for one in answer.instances] == areas
    assert [None if one.box is None else one.box.tolist() for one in answer.instances] == boxes
    assert [one.spans.area for one in answer.instances] == areas
    assert int(answer.mask.sum()) == area == answer.spans.area
    assert (None if answer.box is None else answer.box.tolist()) == box
    assert len(answer.parts) == len(answer.rings) == sum(map(bool, areas))
    half = answer.at((50, 100))
    assert [one.spans.area for one in half.instances] == [n / 4 for n in areas]


@settings(max_examples=60, deadline=None)
@given(st.lists(masks(), max_size=5))
def test_the_union_of_spans(found):
    shape = found[0].shape if found else (5, 5)
    found = [mask for mask in found if mask.shape == shape]
    union = Spans.union([Spans.from_mask(mask) for mask in found], shape)
    whole = Spans.from_mask(np.any([*found, np.zeros(shape, bool)], axis=0))
    assert union.borders.tolist() == whole.borders.tolist() and union.size == shape


def test_spans_of_another_size_are_not_united():
    with pytest.raises(ValueError, match='resize one first'):
        Spans.union([Spans.from_mask(np.ones((3, 3), bool))], (4, 4))


# --- samples -------------------------------------------------------------------------------------
@pytest.mark.parametrize('text, task, boxes, scores, areas', [
    (f'[{SQUARE},{OTHER},[[[1,2],[3,4]]]]', 'text2masks',
     [[20, 20, 120, 80], [100, 0, 200, 50], [0, 0, 0, 0]], [1, 1, 0], [6000, 5000, 0]),
    ('[]', 'text2masks', [], [], []), ('words', 'text2masks', [], [], []),
    (SQUARE, 'text2masks', [[20, 20, 120, 80]], [1], [6000]),
    ('[[10,20,60,80],[50,0,100,50]]', 'text2boxes', [[20, 20, 120, 80], [100, 0, 200, 50]], [1, 1],
     [0, 0]),
    (f'[{SQUARE},{OTHER}]', 'text2mask', [[20, 0, 200, 80]], [1], [10400]),  # one was asked for
    ('[]', 'text2mask', [[0, 0, 0, 0]], [0], [0]),
])
def test_a_sample_holds_one_entry_an_instance(text, task, boxes, scores, areas):
    sample = DetDataSample(metainfo=dict(ori_shape=SIZE, codec=CODEC.spec, task=task))
    SimpleSeg.postprocess(sample, Generated(text, 5, True), 0.1)
    found = sample.pred_instances
    assert found.masks.shape == (len(areas), *SIZE) and str(found.masks.dtype) == 'torch.bool'
    assert found.masks.sum((1, 2)).tolist() == areas and sample.pred_has_mask == any(areas)
    assert found.bboxes.shape == (len(areas), 4) and found.bboxes.tolist() == boxes
    assert found.scores.tolist() == scores and found.labels.tolist() == [0] * len(areas)
    assert len(found) == len(areas)
    row = SampleQuery(dict(sample.to_dict(), gt_masks=BitmapMasks(np.zeros((0, *SIZE)), *SIZE)))
    assert row.asks_mask == (task != 'text2boxes') and not row.truth.any()
    assert row.prediction.sum() == sample.pred_answer.mask.sum()


def test_more_instances_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(answers, 'MAX_MASK_BYTES', 2 * 100 * 200 + 1)
    sample = DetDataSample(metainfo=dict(ori_shape=SIZE, codec=CODEC.spec, task='text2masks'))
    with pytest.warns(UserWarning, match='lists 3 instances .* the masks of the first 2 are'):
        SimpleSeg.postprocess(sample, Generated(f'[{SQUARE},{OTHER},{OTHER}]', 5, True), 0.1)
    assert len(sample.pred_instances) == 2 and len(sample.pred_answer.instances) == 3


def likes(count):
    """A sample's target: so many disks, as boxes and masks, from the right to the left."""
    found = [disk((100, 200), (50, 190 - 20 * k), 8) for k in range(count)]
    boxes = [mask_to_box(mask).tolist() for mask in found]
    return found, dict(
        img=np.zeros((100, 200, 3), np.uint8), height=100, width=200, text='cups', ref_id=1,
        sent_id=1, ann_id=1, source='mine', split='train', siblings=[], is_sentence=False,
        instances=[dict(bbox=box, bbox_label=0, ignore_flag=0, mask=mask_to_rle(mask))
                   for box, mask in zip(boxes, found)], test_mode=True,
        rng=np.random.default_rng(0))


@pytest.mark.parametrize('wanted', ['masks', 'boxes', 'points'])
@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('loaded', [True, False])
def test_a_query_for_every_instance(wanted, count, loaded):
    found, info = likes(count)
    if loaded:
        info = LoadTargetMask().transform(info)
        assert info['gt_masks'].masks.shape == (1, 100, 200)
    made = FormatQuery({f'text2{wanted}': 1.0}, dict(grammar='int1000', tokens=None)).transform(
        info)
    assert made['task'] == f'text2{wanted}' and ' all ' in made['prompt']
    if loaded:  # one an instance, in the order of the set
        assert made['gt_masks'].masks.shape == (count, 100, 200)
        assert np.array_equal(made['gt_masks'].masks, np.reshape(found, (count, 100, 200)))
    answer = PolygonCodec(tokens=None).decode(made['answer'], (100, 200), wanted)
    assert answer.parsed.valid and len(answer.instances) == count
    for one, mask in zip(answer.instances, found[::-1]):  # from left to right
        if wanted == 'masks':
            assert np.array_equal(one.mask, mask)
        elif wanted == 'boxes':
            assert one.box.round().tolist() == mask_to_box(mask).tolist()
        else:
            x, y = one.parsed.point * (200, 100)
            assert mask[int(y), int(x)]


def test_a_sentence_asks_for_all():
    _, info = likes(2)
    info.update(is_sentence=True, text='What can one drink from?')
    assert FormatQuery(dict(text2masks=1)).transform(info)['prompt'] == (
        'What can one drink from? Output the polygon coordinates of each in the image.')


@pytest.mark.parametrize('text, many, shown', [
    ('[[[[1,2],[3,4],[5,1]]],[[[6,6],[7,6],[7,7]],[[1,1],[2', True, {0: [3], 1: [3, 1]}),
    ('[[[1,2],[3,4],[5,1]],[[6,6],[7,6]]]', False, {0: [3, 2]}),
    # one mask where a list was asked, and the reverse
    ('[[[1,2],[3,4],[5,1]],[[6,6],[7,6]]]', True, {0: [3, 2]}),
    ('[[[[1,2],[3,4],[5,1]]],[[[6,6],[7,6],[7,7]]]]', False, {0: [3, 3]}),
    # masks without the brackets of their list; an instance without a readable vertex
    ('[[[1,2],[3,4],[5,1]]],[[[6,6],[7,6],[7,7]]]', True, {0: [3], 1: [3]}),
    ('[[[[1,2],[3,4],[5,1]]],[[[x,y]]],[[[6,6],[7,6],[7,7]]]]', True, {0: [3], 1: [3]}),
    ('Here: [[[[1,2],[3,4],[5,1]]]] are the cups.', True, {0: [3]}),
    ('[]', True, {}), ('I see none', True, {}), ('[[[[', True, {}), ('[[[[x,1]]]]', True, {})])
def test_an_answer_is_shown_as_it_is_written(text, many, shown):
    for step in (1, 3, len(text)):
        reader, seen = WrittenRings('int10', many), {}
        for end in (*range(step, len(text), step), len(text)):
            for number, rings in reader.news(text[:end]):
                counts = [len(ring) for ring in rings]
                assert step > 1 or sum(counts) == sum(seen.get(number, [])) + 1
                seen[number] = counts
        assert seen == shown
    assert reader.news(text) == []


def test_a_long_list_is_read_once_while_it_is_written(monkeypatch):
    from simpleseg_mm.polygon import written
    read, masks = [], written.written_masks
    monkeypatch.setattr(written, 'written_masks', lambda text, *rest: read.append(
        len(text)) or masks(text, *rest))
    mask = '[[[10,10],[20,10],[20,20],[10,20]]]'
    text = f"[{','.join([mask] * 200)}]"
    reader, news = WrittenRings('int100', True), []
    for end in range(1, len(text) + 1):
        news += reader.news(text[:end])
    assert len(news) == 800 and news[-1][0] == 199
    assert sum(read) < 5 * 2 * len(text)  # and not the whole list at each vertex
