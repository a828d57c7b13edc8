"""A second look, without a model: where it is taken, when it is believed, what is answered."""
import copy
import json
import pickle

import cv2
import numpy as np
import pytest

from simpleseg_mm.answers import answer_of, looks_of
from simpleseg_mm.polygon import Answer, CropAnswer, Spans, codec_of, mask_iou, mask_to_box
from simpleseg_mm.second_look import SecondLook, outline_agreement, cut_out, is_cut, look_of
from simpleseg_mm.structures import Prompt, Segmentation
from simpleseg_mm.taught import Taught

LOOK = SecondLook()
CODEC = codec_of('int100/default')


def disc(size, x, y, radius) -> np.ndarray:
    """(h, w) bool."""
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def answered(mask, codec=CODEC, **facts) -> Answer:
    """A mask as a model would write it that sees it exactly."""
    return Answer(codec.encode(mask), mask.shape, codec, **facts)


def sample(says, size=(800, 1000), task='text2mask', prompt='Outline the cup.', **more) -> dict:
    return dict(pred_text=says, ori_shape=size, task=task, prompt=prompt, codec='int100/default',
                **more)


def seen(truth, window, codec=CODEC, **facts) -> tuple:
    x1, y1, x2, y2 = window
    return window, answered(truth[y1:y2, x1:x2], codec, **facts)


# --- settings -----------------------------------------------------------------------------------
@pytest.mark.parametrize('settings, message', [
    (dict(zoom=1), 'zoom is 1; give a number above 1'), (dict(zoom='2'), "zoom is '2'"),
    (dict(zoom=float('nan')), 'zoom is nan'), (dict(zoom=True), 'zoom is True'),
    (dict(margin=-0.1), 'margin is -0.1'), (dict(margin=None), 'margin is None'),
    (dict(agreement=0), 'agreement is 0'), (dict(agreement=1.1), 'agreement is 1.1'),
    (dict(side=0), 'side is 0'), (dict(side=448.0), 'side is 448.0'),
    (dict(lists=1), 'lists is 1; give True or False'), (dict(zom=2), r"zom.*keys of \['zoom'"),
    (3, 'is 3; give a dict'), (True, 'is True; give a dict'), ('yes', "is 'yes'")])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f'model.second_look.*{message}') as caught:
        SecondLook.of(settings)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('settings, found', [
    (None, None), ({}, SecondLook()), (dict(zoom=3), SecondLook(zoom=3)), (LOOK, LOOK)])
def test_settings(settings, found):
    assert SecondLook.of(settings) == found


@pytest.mark.parametrize('asked, prompts, lists', [
    (True, ('text', 'all'), True), ({}, ('text', ), True), (True, ('all', ), False),
    (True, (), False), (dict(lists=True), ('all', ), True),
    (dict(lists=False), ('text', ), False)])
def test_lists_are_looked_at_where_the_model_outlines_one_object_by_words(asked, prompts, lists):
    assert look_of(asked, Taught(prompts=prompts)).lists is lists


@pytest.mark.parametrize('asked', [None, False])
def test_no_look_is_asked_for(asked):
    assert look_of(asked, Taught()) is None


# --- where a look is taken ----------------------------------------------------------------------
@pytest.mark.parametrize('size, box, window', [
    ((800, 1000), (500, 400, 540, 420), (460, 360, 580, 460)),  # margin 20 and two steps of 10
    ((800, 1000), (500, 400, 520, 480), (410, 340, 610, 540)),  # upright: a square, 200 x 200
    ((800, 1000), (0, 0, 40, 40), (0, 0, 120, 120)),  # in a corner: moved inwards
    ((800, 1000), (960, 760, 1000, 800), (880, 680, 1000, 800)),
    ((800, 1000), (300, 300, 301, 301), (280, 280, 322, 322)),  # one pixel: 42 x 42
    ((800, 1000), (100, 400, 330, 405), (0, 202, 500, 602)),  # like a thread: the picture's shape
    ((1000, 1000), (100, 400, 300, 420), (0, 190, 440, 630)),  # of a square a square
    ((100, 4000), (2000, 5, 2090, 95), (1875, 0, 2215, 100)),  # of a strip its height
    ((800, 1000), (0, 0, 1000, 800), None),  # the whole picture
    ((800, 1000), (100, 100, 400, 400), None),  # a crop of 600 shows too little more
    ((1, 1), (0, 0, 1, 1), None), ((2, 2), (0, 0, 1, 1), None), ((1, 5000), (0, 0, 3, 1), None)])
def test_window(size, box, window):
    x1, y1, x2, y2 = box
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    answer = Answer('', size, CODEC)
    vars(answer).update(rings=[np.array(box[:2])], spans=Spans.from_mask(mask))
    found = LOOK.window(answer)
    if size == (1, 5000):  # 50 pixels a step: 3, half of it and two steps on each side
        window = (0, 0, 206, 1)
    assert found == window


def test_a_look_is_as_large_as_asked_for():
    answer = answered(disc((800, 1000), 500, 400, 130))
    assert LOOK.window(answer) is None  # a crop of some 560 of 1,000
    assert SecondLook(zoom=1.5).window(answer) is not None
    assert SecondLook(margin=0).window(answer) is not None


CUP = '[[[48,48],[48,52],[52,52],[52,48]]]'


@pytest.mark.parametrize('text', [
    '', '[]', 'no such object', '[[[', '[[[1,2]]]', '[[[1,2],[1,2],[1,2]]]', '[[[nan]]]',
    '[48,48,52,52]', '[[[0,0],[0,100],[100,100],[100,0]]]', '[[[900,1],[950,2],[999,3]]]',
    '\ud800[[[', '9' * 5000])
def test_answers_that_get_no_look(text):
    assert list(LOOK.asks(sample(text))) == []


@pytest.mark.parametrize('change', [
    dict(task='text2box'), dict(task='text2point'), dict(task='text2masks'), dict(task='question'),
    dict(task='text2extreme'), dict(task=None), dict(task='own'), dict(prompt=None),
    dict(task='mask2mask'), dict(task='box2mask'), dict(task='point2mask'), dict(codec=None),
    dict(task='point2mask', prompt='Outline the object at [90,90].'),
    dict(task='box2mask', prompt='Outline what is in [0,0,20,20].')])
def test_questions_that_get_no_look(change):
    """Boxes, points, lists unless told, free text; and what is given lies outside, or nowhere."""
    assert list(LOOK.asks({**sample(CUP), **change})) == []


def test_no_answer_gets_no_look():
    assert list(LOOK.asks(dict(task='text2mask', prompt='x', codec='int100/default'))) == []


@pytest.mark.parametrize('task, prompt, asked', [
    ('text2mask', 'Outline the cup.', 'Outline the cup.'),
    ('point2mask', 'Outline the object at [50,50].', 'Outline the object at [50,50].'),
    ('point2mask', 'Outline the object at [48,51].', 'Outline the object at [33,57].'),
    ('box2mask', 'In [45,47,55,53] is one.', 'In [8,29,92,71] is one.'),
    ('box2mask', 'In [0,0,100,100] is one.', 'In [0,0,100,100] is one.')])
def test_the_question_is_asked_again(task, prompt, asked):
    """By the same words; points and boxes are those of the crop."""
    found, = LOOK.asks(sample(CUP, task=task, prompt=prompt))
    assert found.window == (440, 344, 560, 456) and found.instance == 0
    assert found.prompt == asked
    crop = found.sample(sample(CUP, task=task))
    assert crop == dict(prompt=asked, task=task, codec='int100/default', ori_shape=(112, 120))


def test_each_small_instance_of_a_list_gets_a_look():
    one, large, broken = CUP, '[[[0,0],[0,90],[90,90],[90,0]]]', '[[[3,4]]]'
    asked = sample(f'[{large},{broken},{one}]', task='text2masks', text='cups')
    found, = SecondLook(lists=True).asks(asked)
    assert found.instance == 2
    assert 'cups' in found.prompt and 'all' not in found.prompt
    assert found.sample(asked)['task'] == 'text2mask'
    assert list(SecondLook(lists=True).asks({**asked, 'text': None})) == []
    assert LOOK.doubts(Prompt.of(dict(text='cups', all=True)).task)
    assert not LOOK.doubts(Prompt.of('cup').task)


# --- the crop -----------------------------------------------------------------------------------
@pytest.mark.parametrize('window, side, shape', [
    ((2, 1, 7, 3), 1, (2, 5, 3)), ((2, 1, 7, 3), 50, (20, 50, 3)), ((3, 3, 4, 4), 8, (8, 8, 3)),
    ((0, 0, 10, 8), 10, (8, 10, 3)), ((0, 4, 10, 5), 30, (3, 30, 3)),
    ((0, 4, 10, 5), 2, (1, 10, 3))])
def test_cut_out(window, side, shape):
    picture = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8)
    crop = cut_out(picture, window, side)
    assert crop.shape == shape and crop.dtype == np.uint8 and crop.flags.c_contiguous
    x1, y1, x2, y2 = window
    if max(shape) <= max(y2 - y1, x2 - x1):
        assert (crop == picture[y1:y2, x1:x2]).all()


# --- whether it is believed ---------------------------------------------------------------------
def test_agreement_is_iou_where_a_step_is_less_than_a_pixel():
    codec = codec_of('int1000/default')
    masks = [disc((300, 400), 100 + dx, 100, 30) for dx in (0, 12)]
    first, second = (answered(mask, codec) for mask in masks)
    assert outline_agreement(first, second) == pytest.approx(mask_iou(first.mask, second.mask))
    assert outline_agreement(first, first) == 1


@pytest.mark.parametrize('dx, agrees', [(0, 1), (8, 1), (24, 0.5), (40, 0), (300, 0)])
def test_agreement_forgives_a_step(dx, agrees):
    """Of a picture of 1,000 pixels a step is 10, and the objects are 20 wide."""
    first, second = (answered(disc((1000, 1000), 400 + shift, 400, 10)) for shift in (0, dx))
    found = outline_agreement(first, second)
    assert outline_agreement(second, first) == pytest.approx(found)
    assert {1: found > 0.8, 0.5: 0 < found < 0.6, 0: found < 0.05}[agrees], found


@pytest.mark.parametrize('text', ['', '[]', '[[[1,2]]]', 'x'])
def test_nothing_agrees_with_nothing(text):
    empty = Answer(text, (50, 60), CODEC)
    assert outline_agreement(empty, empty) == 0
    assert outline_agreement(answered(disc((50, 60), 20, 20, 9)), empty) == 0


TRUTH = disc((800, 1000), 507, 403, 17)
FIRST = answered(TRUTH, num_tokens=20, finished=True, confidence=0.8, seconds=1.0)
WINDOW = LOOK.window(FIRST)


def test_a_look_that_agrees_is_the_outline():
    judged = LOOK.judged(FIRST, {0: seen(TRUTH, WINDOW, num_tokens=30, finished=True)})
    look, = judged.looks
    assert look.accepted and look.agreement > 0.9 and look.window == WINDOW
    assert mask_iou(FIRST.mask, TRUTH) < 0.85 < 0.95 < mask_iou(judged.mask, TRUTH)
    assert judged.spans.iou(Spans.from_mask(TRUTH)) == mask_iou(judged.mask, TRUTH)
    np.testing.assert_allclose(judged.box, mask_to_box(TRUTH), atol=1.5)
    assert judged.parts[0].outer.shape == judged.rings[0].shape
    # what the first said stays
    assert (judged.text, judged.confidence, judged.finished) == (FIRST.text, 0.8, True)
    assert judged.num_tokens == 50 and judged.parsed.valid and judged.well_formed
    assert judged.instances == (judged, )


@pytest.mark.parametrize('text, finished', [
    ('', True), ('[]', True), ('nothing', True), ('[[[5,5],[5,6]]]', True), ('[[[', False),
    ('[40,40,60,60]', True), ('[[[1,1],[1,20],[20,20],[20,1]]]', True),
    ('[[[0,0],[0,100],[100,100],[100,0]]]', True), ('\ud800', True), ('[[[9e999,1]]]', True),
    (CODEC.encode(TRUTH[WINDOW[1]:WINDOW[3], WINDOW[0]:WINDOW[2]]), False)])
def test_a_look_that_does_not_agree_leaves_the_first(text, finished):
    """Nothing, what cannot be read, another place, all of the crop; the right one, cut off."""
    size = WINDOW[3] - WINDOW[1], WINDOW[2] - WINDOW[0]
    second = Answer(text, size, CODEC, num_tokens=None, finished=finished)
    judged = LOOK.judged(FIRST, {0: (WINDOW, second)})
    look, = judged.looks
    assert not look.accepted and look.text == text
    assert (judged.mask == FIRST.mask).all() and judged.num_tokens is None


def test_an_outline_that_the_crop_cuts_is_not_whole():
    truth = np.zeros((800, 1000), bool)
    truth[380:420, 480:700] = True
    first = answered(disc((800, 1000), 500, 400, 20))
    window = LOOK.window(first)
    assert window[2] < 700
    judged = LOOK.judged(first, {0: seen(truth, window)})
    assert not judged.looks[0].accepted


@pytest.mark.parametrize('window, box, cut', [
    ((10, 10, 50, 50), (1, 1, 39, 39), False), ((10, 10, 50, 50), (0, 1, 39, 39), True),
    ((10, 10, 50, 50), (1, 1, 40, 39), True), ((10, 10, 50, 50), (1, 0, 39, 39), True),
    ((10, 10, 50, 50), (1, 1, 39, 40), True), ((0, 0, 40, 40), (0, 0, 39, 39), False),
    ((60, 40, 100, 80), (1, 1, 40, 40), False), ((60, 40, 100, 80), (1, 0, 40, 40), True)])
def test_where_the_picture_ends_nothing_is_cut(window, box, cut):
    mask = np.zeros((40, 40), bool)
    mask[box[1]:box[3], box[0]:box[2]] = True
    second = Answer('', (40, 40), CODEC)
    vars(second).update(spans=Spans.from_mask(mask))
    assert is_cut(CropAnswer('', window), second, (80, 100)) is cut


def test_instances_are_judged_one_by_one():
    truths = [disc((800, 1000), x, 403, 17) for x in (107, 507, 907)]
    first = Answer(CODEC.encode_masks(truths), (800, 1000), CODEC, 'masks', num_tokens=9,
                   confidence=0.5)
    windows = [LOOK.window(one) for one in first.instances]
    judged = LOOK.judged(first, {
        0: seen(truths[0], windows[0], num_tokens=1), 1: (windows[1], Answer('[]', (9, 9), CODEC)),
        2: seen(truths[2], windows[2], num_tokens=1)})
    assert [(look.instance, look.accepted) for look in judged.looks] == [
        (0, True), (1, False), (2, True)]
    ious = [mask_iou(one.mask, truth) for one, truth in zip(judged.instances, truths)]
    before = [mask_iou(one.mask, truth) for one, truth in zip(first.instances, truths)]
    assert ious[1] == before[1] and min(ious[0], ious[2]) > 0.95 > max(before)
    assert (judged.mask == np.any([one.mask for one in judged.instances], axis=0)).all()
    assert len(judged.rings) == 3 and judged.confidence == 0.5


def test_no_looks_change_nothing():
    assert LOOK.judged(FIRST, {}) is FIRST


# --- the answer ---------------------------------------------------------------------------------
JUDGED = LOOK.judged(FIRST, {0: seen(TRUTH, WINDOW, num_tokens=30)})


@pytest.mark.parametrize('way', [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)),
                                 lambda one: one.at((1600, 2000)).at((800, 1000))])
def test_copies_keep_their_looks(way):
    other = way(JUDGED)
    assert other.looks == JUDGED.looks and (other.mask == JUDGED.mask).all()


def test_at_another_size_the_outline_is_the_same():
    double = JUDGED.at((1600, 2000))
    for ring, other in zip(JUDGED.rings, double.rings):
        np.testing.assert_allclose(2 * ring, other)


@pytest.mark.parametrize('spec', ['int1000/default', 'decimal3/default', 'fixed3/paper',
                                  'decimal3/paper-exact'])
def test_finer_than_a_step_of_a_large_picture(spec):
    """In 4,000 pixels a step of a thousand is 4: an outline from a crop is within a pixel."""
    codec = codec_of(spec)
    truth = disc((3000, 4000), 2003, 1501, 21)
    first = answered(truth, codec)
    window = LOOK.window(first)
    judged = LOOK.judged(first, {0: seen(truth, window, codec)})
    assert judged.looks[0].accepted
    assert mask_iou(judged.mask, truth) > max(mask_iou(first.mask, truth) + 0.01, 0.93)
    assert np.abs(judged.box - mask_to_box(truth)).max() <= 2


def test_samples_and_json_keep_looks():
    row = json.loads(json.dumps([look.to_dict() for look in JUDGED.looks]))
    again = answer_of(sample(FIRST.text, pred_looks=row))
    assert again.looks == JUDGED.looks and (again.mask == JUDGED.mask).all()
    result = Segmentation.of(answer_of(sample(FIRST.text, pred_looks=row, pred_num_tokens=3,
                                              pred_seconds=1.0)), 'a', Prompt.of('cup'))
    said = json.loads(json.dumps(result.to_dict()))
    assert said['looks'] == row and said['text'] == FIRST.text
    np.testing.assert_allclose(said['polygons'][0]['outer'], JUDGED.rings[0])
    assert said['bboxes'] == [JUDGED.box.tolist()]
    assert next(result.objects).looks == JUDGED.looks


@pytest.mark.parametrize('value', [
    3, [3], [{}], [dict(text='x')], [dict(text=3, window=[0, 0, 1, 1])],
    [dict(text='x', window=[0, 0, 1])], [dict(text='x', window=[5, 0, 1, 1])],
    [dict(text='x', window=[0, 0, 1, float('inf')])], [dict(text='x', window='0011')],
    [dict(text='x', window=[0, 0, 1, float('nan')])],
    [dict(text='x', window=[0, 0, 1, 1], instance='0')],
    [dict(text='x', window=[0, 0, 1, 1], agreement='high')],
    [dict(text='x', window=[0, 0, 1, 1], accepted=1)]])
def test_broken_looks_of_a_file(value):
    with pytest.raises(ValueError) as caught:
        looks_of(value)
    assert '\n' not in str(caught.value)


def test_a_look_without_an_outline_hides_none():
    """As a file may say."""
    hollow = CropAnswer('[]', WINDOW, accepted=True)
    answer = Answer(FIRST.text, (800, 1000), CODEC, looks=(hollow, ))
    assert (answer.mask == FIRST.mask).all()
