"""Objects one by one: matching, InstanceMetric and its reward, by hand and by others' code."""
import json
from collections import defaultdict
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import panoptic_utils
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask
from test_metrics_evaluator import CODEC, make_sample, rect, run

from simpleseg_mm.evaluation import GRESMetric, InstanceMetric, RESMetric
from simpleseg_mm.matching import best_pairs, matched_iou, mask_ious
from simpleseg_mm.polygon import Spans, mask_to_box, mask_to_rle
from simpleseg_mm.rl import PolygonReward, read_truths
from simpleseg_mm.samples import attach_answer, read_answer

SIZE = (100, 100)


@pytest.fixture(autouse=True)
def default_scope():
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        yield


def masks_of(boxes) -> np.ndarray:
    return np.array([rect(*box) for box in boxes], bool).reshape(-1, *SIZE)


def query(number, true, predicted, text=None, ignored=(), written=False):
    """A query about objects that are boxes of whole pixels."""
    truths, found = masks_of(true), masks_of(predicted)
    sample = make_sample(np.zeros(SIZE, bool), np.zeros(SIZE, bool), number)
    text = CODEC.encode_masks(found) if text is None else text
    sample.set_metainfo(dict(
        task='text2masks', answer=CODEC.encode_masks(truths), pred_text=text,
        gt_masks=BitmapMasks(truths.astype(np.uint8), *SIZE),
        instances=[dict(bbox=list(map(float, box)), bbox_label=0, ignore_flag=flag,
                        mask=mask_to_rle(rect(*box)))
                   for boxes, flag in ((true, 0), (ignored, 1)) for box in boxes]))
    if len(ignored):
        sample.set_metainfo(dict(gt_ignore=BitmapMasks(
            masks_of(ignored).any(0)[None].astype(np.uint8), *SIZE)))
    if written:
        attach_answer(sample, read_answer(sample, text))
    else:
        sample.pred_instances = InstanceData(
            masks=torch.from_numpy(found),
            bboxes=torch.tensor([mask_to_box(mask) for mask in found]).reshape(-1, 4),
            scores=torch.ones(len(found)), labels=torch.zeros(len(found), dtype=torch.long))
    return sample


A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (40, 40, 60, 60)  # 400 pixels each
HALF = (0, 0, 10, 20)  # half of A: IoU 0.5
WIDE = (0, 0, 20, 25)  # 500 pixels with all of A: IoU 0.8
NEAR_B = (40, 0, 60, 16)  # 320 of B: IoU 0.8

CASES = {  # (true, predicted) of each query: figures
    'all right': ([([A, B], [B, A]), ([C], [C])], dict(
        count_exact=100, count_exact_several=100, count_error=0, SQ=100, RQ=100, PQ=100,
        mIoU=100)),
    'absent, answered so': ([([], [])], {
        'count_exact': 100, 'count_error': 0, 'mIoU': 100, 'N-acc': 100}),
    'absent, answered with two': ([([], [A, B])], {
        'count_exact': 0, 'count_error': 2, 'mIoU': 0, 'N-acc': 0, 'RQ': 0, 'PQ': 0}),
    'nothing where one is': ([([A], [])], dict(
        count_exact=0, count_error=1, mIoU=0, RQ=0, PQ=0)),
    # IoU of exactly 0.5 is no match; the matched IoU counts it
    'half': ([([A], [HALF])], dict(count_exact=100, count_error=0, mIoU=50, RQ=0, PQ=0)),
    # two of the three found, IoU 0.8 each; one invented: TP 2, FN 1, FP 1
    'missed and invented': ([([A, B, C], [WIDE, NEAR_B, (80, 80, 99, 99)])], dict(
        count_exact=100, count_exact_several=100, count_error=0, SQ=80, RQ=100 * 4 / 6,
        PQ=80 * 4 / 6, mIoU=160 / 3)),
    # one object written twice: the second is an invention
    'twice': ([([A], [A, A])], dict(
        count_exact=0, count_error=1, SQ=100, RQ=100 * 2 / 3, PQ=100 * 2 / 3, mIoU=50)),
    'both over a query': ([([A], [WIDE]), ([], []), ([B, C], [C])], {
        'count_exact': 200 / 3, 'count_exact_several': 0, 'count_error': 1 / 3, 'SQ': 90,
        'RQ': 80, 'PQ': 72, 'mIoU': (80 + 100 + 50) / 3, 'N-acc': 100, 'T-acc': 100}),
}


@pytest.mark.parametrize('queries, expected', CASES.values(), ids=CASES)
@pytest.mark.parametrize('written', [False, True])
def test_by_hand(queries, expected, written):
    figures = run(InstanceMetric(), [query(k, true, predicted, written=written)
                                     for k, (true, predicted) in enumerate(queries)])
    figures = {name.removeprefix('inst/'): value for name, value in figures.items()}
    if not any(len(true) > 1 for true, _ in queries):
        assert 'count_exact_several' not in figures
    assert set(expected) <= set(figures)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert ('N-acc' in figures) == any(not true for true, _ in queries)


@pytest.mark.parametrize('text, absent_right', [
    ('[]', True), ('There are none: []', True), ('I see no cup.', False), ('', False),
    ('[[[[1,1]]]]', False), ('[', False)])
def test_only_the_empty_list_says_that_there_is_nothing(text, absent_right):
    figures = run(InstanceMetric(), [query(0, [], [], text=text, written=True),
                                     query(1, [A], [], text=text, written=True)])
    assert figures['inst/N-acc'] == 100 * absent_right
    assert figures['inst/count_exact'] == 50 * absent_right
    assert figures['inst/T-acc'] == 100 * (not absent_right)


def test_crowds_are_passed_over_and_their_queries_not_counted():
    crowd = (60, 60, 100, 100)
    inside, across = (70, 70, 80, 80), (50, 60, 66, 70)  # all of it, and 6 of 16 columns
    found = [query(0, [A], [A, inside], ignored=[crowd]), query(1, [B], [B])]
    figures = run(InstanceMetric(), found)
    assert (figures['inst/PQ'], figures['inst/mIoU'], figures['inst/count_exact']) == (
        100, 100, 100)
    figures = run(InstanceMetric(), [query(0, [A], [A, across], ignored=[crowd])])
    assert figures['inst/RQ'] == pytest.approx(100 * 2 / 3)
    assert 'inst/count_exact' not in figures
    # an object that is found counts, however much of a crowd is about it
    figures = run(InstanceMetric(), [query(0, [inside], [inside], ignored=[crowd])])
    assert (figures['inst/PQ'], figures['inst/mIoU']) == (100, 100)


def test_other_metrics_see_all_objects_together():
    samples = [query(0, [A, B], [A], written=True), query(1, [], [], written=True)]
    assert run(RESMetric(boundary=False), samples)['res/gIoU'] == pytest.approx(75)
    figures = run(GRESMetric(), samples)
    assert (figures['gres/N-acc'], figures['gres/gIoU_several']) == (100, pytest.approx(50, 1e-2))


def random_objects(rng, most=5):
    return [tuple(np.concatenate([corner, corner + rng.integers(4, 30, 2)]).tolist())
            for corner in rng.integers(0, 60, (rng.integers(0, most + 1), 2))]


def test_pairs_and_matched_iou_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(60):
        true, predicted = masks_of(random_objects(rng)), masks_of(random_objects(rng))
        iou = mask_ious([Spans.from_mask(mask) for mask in predicted],
                           [Spans.from_mask(mask) for mask in true])
        if iou.size:
            reference = coco_mask.iou(*([coco_mask.encode(np.asfortranarray(mask, np.uint8))
                                         for mask in masks] for masks in (predicted, true)),
                                      [0] * len(true))
            assert np.allclose(iou, reference, atol=1e-12)
        wide = iou if iou.shape[0] <= iou.shape[1] else iou.T
        best = max((sum(wide[m, n] for m, n in enumerate(order))
                    for order in permutations(range(wide.shape[1]), wide.shape[0])), default=0)
        expected = best / max(iou.shape) if max(iou.shape) else 1.0
        assert matched_iou(iou) == pytest.approx(expected, abs=1e-12)
        pairs = best_pairs(iou)
        assert len({m for m, _ in pairs}) == len({n for _, n in pairs}) == len(pairs)


def test_panoptic_quality_is_that_of_panopticapi(tmp_path, monkeypatch):
    """Of segments that do not overlap, crowds among them: by MMDetection's copy of its code, which
    needs two names of the package."""
    monkeypatch.setattr(panoptic_utils, 'PQStat', lambda: defaultdict(
        lambda: SimpleNamespace(iou=0., tp=0, fp=0, fn=0)))
    monkeypatch.setattr(panoptic_utils, 'rgb2id', lambda rgb: rgb[..., 0].astype(np.uint32))
    rng = np.random.default_rng(1)
    samples, pairs = [], []
    for number in range(40):
        owner = np.zeros((2, *SIZE), np.uint8)  # segments of truth and prediction; 0: neither
        for k, box in enumerate(random_objects(rng, 6)):
            for layer in owner:
                shift = rng.integers(-3, 4, 2)
                x1, y1, x2, y2 = np.maximum(np.array(box) + np.tile(shift, 2), 0)
                layer[y1:y2, x1:x2] = k + 1
        if number % 3 == 0:
            owner[0, 70:, 50:] = 9  # a crowd, with one object in it and one half outside
            owner[1, 75:85, 60:70], owner[1, 65:80, 80:90] = 7, 8
        true, found = ({int(k): layer == k for k in np.unique(layer) if k} for layer in owner)
        crowd = true.pop(9, None)
        sample = query(number, [], [], ignored=[] if crowd is None else [(50, 70, 100, 100)])
        sample.set_metainfo(dict(gt_masks=BitmapMasks(
            np.array(list(true.values()), np.uint8).reshape(-1, *SIZE), *SIZE)))
        sample.pred_instances = InstanceData(
            masks=torch.from_numpy(np.array(list(found.values()), bool).reshape(-1, *SIZE)))
        samples.append(sample)
        rows = []
        for name, layer in zip(('true', 'found'), owner):
            layer = np.where(layer, layer, 100)  # a segment of another kind, and no void
            Image.fromarray(np.stack([layer] * 3, -1).astype(np.uint8)).save(
                tmp_path / f'{name}{number}.png')
            rows.append(dict(image_id=number, file_name=f'{name}{number}.png', segments_info=[
                dict(id=int(k), category_id=2 if k == 100 else 1, iscrowd=int(k == 9),
                     area=int((layer == k).sum())) for k in np.unique(layer)]))
        pairs.append(rows)
    wanted = panoptic_utils.pq_compute_single_core(0, pairs, str(tmp_path), str(tmp_path),
                                                   {1: {}, 2: {}})[1]
    assert min(wanted.tp, wanted.fp, wanted.fn) > 10
    figures = run(InstanceMetric(), samples)
    over = wanted.tp + wanted.fp / 2 + wanted.fn / 2
    assert figures['inst/PQ'] == pytest.approx(100 * wanted.iou / over)
    assert figures['inst/SQ'] == pytest.approx(100 * wanted.iou / wanted.tp)
    assert figures['inst/RQ'] == pytest.approx(100 * wanted.tp / over)


def test_two_hundred_objects():
    boxes = [(5 * (k % 20), 10 * (k // 20), 5 * (k % 20) + 4, 10 * (k // 20) + 8)
             for k in range(200)]
    figures = run(InstanceMetric(), [query(0, boxes, boxes[:150])])
    assert figures['inst/mIoU'] == pytest.approx(75)
    assert figures['inst/count_error'] == 50


# The reward

REWARD = PolygonReward(dict(instance_iou=1.0), CODEC.spec)
MANY = [dict(task='text2masks')]


def reward_of(text, truth, samples=MANY) -> float:
    return REWARD([text], [truth], samples=samples).components['instance_iou'][0]


@pytest.mark.parametrize('true, predicted', [pair for queries, _ in CASES.values()
                                             for pair in queries])
def test_the_reward_is_the_metric_of_one_query(true, predicted):
    text = CODEC.encode_masks(masks_of(predicted))
    figures = run(InstanceMetric(), [query(0, true, predicted, text=text, written=True)])
    truth = masks_of(true)
    value = reward_of(text, truth)
    assert 100 * value == pytest.approx(figures['inst/mIoU'])
    listed = [mask_to_rle(mask) for mask in truth] or mask_to_rle(np.zeros(SIZE, bool))
    assert reward_of(text, listed) == value


@pytest.mark.parametrize('text', ['', 'no', '[', '[[[[', '[[[[1,2]]]]', '[[[1,2],[3,4],[9,9]]]',
                                  '[[1,2,3,4]]', '[' * 5000, '[[[[0,0],[999,0],[999,999]]]'])
def test_no_text_raises_and_what_says_nothing_right_is_worth_nothing(text):
    assert 0 <= reward_of(text, masks_of([A])) <= 1
    assert reward_of(text, masks_of([])) == 0


def test_misses_and_inventions_cost():
    truth = masks_of([A, B, C])
    values = [reward_of(CODEC.encode_masks(masks_of(boxes)), truth) for boxes in (
        [A, B, C], [A, B], [A], [A, B, C, (80, 80, 90, 90)], [A, A, B, C], [])]
    assert values == pytest.approx([1, 2 / 3, 1 / 3, 3 / 4, 3 / 4, 0])


def test_it_says_nothing_about_other_tasks():
    for samples in (None, [dict(task='text2mask')], [dict(task='text2boxes')]):
        truth = rect(*A) if samples is None or samples[0]['task'] == 'text2mask' else masks_of([A])
        assert np.isnan(reward_of('[]', truth, samples))


@pytest.mark.parametrize('truth, message', [
    (np.zeros((2, 0, 4), bool), r'got shape \(2, 0, 4\)'),
    ([[[1, 0], [1]], [[1, 0], [0, 1]]], 'is a list that is no mask'),
    ([[0, 2], [3, 0]], 'are no mask'),
    (np.zeros((0, 0, 4), bool), r'got shape \(0, 0, 4\)'),
    ([], 'got shape'),
    ('[]', 'got shape'),
    ('{', 'which is no JSON'),
    ([mask_to_rle(rect(*A)), mask_to_rle(np.zeros((5, 5), bool))],
     r'masks of one picture have shapes \[\(5, 5\), \(100, 100\)\]'),
    ([mask_to_rle(rect(*A)), 3], r'got shape \(\)'),
    (None, r'got shape \(\)'),
])
def test_truths_that_cannot_be_used(truth, message):
    with pytest.raises(ValueError, match=message):
        read_truths(truth)


def test_truths_in_every_form():
    masks = masks_of([A, B])
    rles = [mask_to_rle(mask) for mask in masks]
    for form in (masks, list(masks), rles, json.dumps(rles), masks.astype(np.uint8)):
        assert np.array_equal(np.array(read_truths(form)), masks)
    for form in (masks[0], rles[0], json.dumps(rles[0])):
        assert np.array_equal(np.array(read_truths(form)), masks[:1])
    assert [mask.shape for mask in read_truths(masks[:0])] == [SIZE]
