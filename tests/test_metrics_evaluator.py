"""RES, REC, pointing and output health: hand-computed values, and other implementations."""
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from simpleseg_mm.evaluation import (BOX_PROTOCOLS, REGION_PROTOCOLS, OutputHealthMetric,
                                     PointMetric, RECMetric, RESMetric, TextDump,
                                     check_metric_names, match_rows, read_text_rows)
from simpleseg_mm.polygon import PolygonCodec, mask_to_box, mask_to_rle
from simpleseg_mm.registry import METRICS
from simpleseg_mm.samples import answer_of

CODEC = PolygonCodec(grammar='int1000', tokens=None)
META = dict(classes=('object', ), palette=[(220, 20, 60)])


@pytest.fixture(autouse=True)
def default_scope():
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        yield


def rect(x1, y1, x2, y2, size=(100, 100)):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def make_sample(truth, prediction, img_id=0, text=None, **meta):
    """A data sample as the dataset and the model leave it."""
    size = truth.shape
    box, true_box = mask_to_box(prediction), mask_to_box(truth)
    text = CODEC.encode(prediction) if text is None else text
    sample = DetDataSample(metainfo={**dict(
        img_id=img_id, image_id=7, ref_id=img_id // 2, sent_id=img_id, source='refcoco',
        split='val', img_path='a.jpg', ori_shape=size, text='the thing', task='text2mask',
        prompt='Outline the thing.', answer=CODEC.encode(truth), codec=CODEC.spec,
        gt_masks=BitmapMasks(truth[None].astype(np.uint8), *size),
        instances=[] if true_box is None else [
            dict(bbox=true_box.tolist(), bbox_label=0, ignore_flag=0, mask=json_rle(truth))],
        pred_text=text, pred_num_tokens=10, pred_finished=True, pred_seconds=0.5), **meta})
    sample.pred_instances = InstanceData(
        masks=torch.from_numpy(prediction)[None],
        bboxes=torch.as_tensor(np.zeros(4) if box is None else box, dtype=torch.float32)[None],
        scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.long))
    return sample


def json_rle(mask):
    rle = mask_to_rle(mask)
    counts = rle['counts']
    return dict(size=list(rle['size']),
                counts=counts.decode() if isinstance(counts, bytes) else counts)


def run(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = META
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def random_samples(count, size=(90, 120), seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for img_id in range(count):
        x, y = rng.integers(0, 60, 2)
        dx, dy = rng.integers(-6, 7, 2)
        w, h = rng.integers(8, 30, 2)
        truth = rect(x, y, x + w, y + h, size) & (rng.random(size) < 0.97)
        samples.append(make_sample(truth, rect(max(x + dx, 0), max(y + dy, 0), x + w, y + h, size),
                                   img_id=img_id))
    return samples


# Malformed input


@pytest.mark.parametrize('build, message', [
    (lambda: RESMetric(protocol='text5seg'), "unknown protocol 'text5seg'.*lavt.*text4seg"),
    (lambda: RECMetric(protocol='lisa'), "unknown protocol 'lisa'"),
    (lambda: RECMetric(source='masks'), "'mask' or 'box', got 'masks'"),
    (lambda: TextDump('out.json'), r'must end in .jsonl'),
])
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def without(sample, *keys):
    sample = sample.to_dict()
    for key in keys:
        del sample[key]
    return sample


@pytest.mark.parametrize('metric', [RESMetric, RECMetric, OutputHealthMetric, PointMetric])
def test_a_sample_that_lacks_its_truth_is_named(metric):
    sample = make_sample(rect(0, 0, 9, 9), rect(0, 0, 9, 9), img_id=41)
    with pytest.raises(ValueError, match='41.*gt_masks'):
        metric().process(None, [without(sample, 'gt_masks')])
    with pytest.raises(ValueError, match='img_id'):
        metric().process(None, [without(sample, 'img_id')])


def test_a_sample_that_lacks_its_prediction_is_named():
    sample = make_sample(rect(0, 0, 9, 9), rect(0, 0, 9, 9), img_id=41)
    with pytest.raises(ValueError, match='41.*pred_instances.masks'):
        RESMetric().process(None, [without(sample, 'pred_instances')])
    with pytest.raises(ValueError, match='41.*pred_instances.bboxes'):
        RECMetric(source='box').process(None, [without(sample, 'pred_instances')])
    with pytest.raises(ValueError, match='41.*pred_text'):
        OutputHealthMetric().process(None, [without(sample, 'pred_text')])
    sample = make_sample(rect(0, 0, 9, 9), rect(0, 0, 9, 9), img_id=41).to_dict()
    sample['pred_instances']['masks'] = torch.zeros(1, 50, 100, dtype=torch.bool)
    with pytest.raises(ValueError, match=r'41.*\(1, 50, 100\).*\(100, 100\)'):
        RESMetric().process(None, [sample])


@pytest.mark.parametrize('metric', [RESMetric, RECMetric, OutputHealthMetric])
def test_shared_ids_are_refused(metric):
    samples = [make_sample(rect(0, 0, 9, 9), rect(0, 0, 9, 9), img_id=i) for i in (3, 5, 5, 8)]
    with pytest.raises(ValueError, match='img_id 5 has 2 results.*1 of 3'):
        run(metric(), samples)


def test_prefixes_are_checked_before_the_run():
    from mmdet.evaluation import DumpDetResults, RefSegMetric
    dumps = [TextDump('a.jsonl'), TextDump('b.jsonl'), DumpDetResults(out_file_path='a.pkl')]
    check_metric_names([RESMetric(), RECMetric(), RECMetric(prefix='rec_box'),
                        OutputHealthMetric(), RefSegMetric(), *dumps])
    with pytest.raises(ValueError, match="RECMetric and RECMetric have the same prefix 'rec'"):
        check_metric_names([RECMetric(), RESMetric(), RECMetric(source='box')])
    with pytest.raises(ValueError, match='prefix None'):
        check_metric_names([RefSegMetric(), RefSegMetric()])


# RES

A = (rect(0, 0, 10, 10), rect(0, 0, 10, 20))       # I 100, U 200, IoU .5, area 100: small
B = (rect(0, 0, 40, 40), rect(0, 0, 40, 36))       # I 1440, U 1600, IoU .9, medium
C = (rect(0, 0, 98, 98), rect(0, 0, 98, 49))       # I 4802, U 9604, IoU .5, large
MISSED = (rect(0, 0, 10, 10), rect(0, 0, 0, 0))    # I 0, U 100
ABSENT = (rect(0, 0, 0, 0), rect(0, 0, 0, 0))
FALSE = (rect(0, 0, 0, 0), rect(0, 0, 10, 30))     # nothing there, 300 px predicted


def test_res_by_hand():
    figures = run(RESMetric(), [make_sample(*pair, img_id=i) for i, pair in enumerate([A, B, C])])
    expected = {
        'cIoU': 100 * (100 + 1440 + 4802) / (200 + 1600 + 9604),
        'gIoU': 100 * (0.5 + 0.9 + 0.5) / 3,
        'P@0.5': 100, 'P@0.6': 100 / 3, 'P@0.7': 100 / 3, 'P@0.8': 100 / 3, 'P@0.9': 100 / 3,
        'gIoU_small': 50, 'gIoU_medium': 90, 'gIoU_large': 50}
    assert {name: figures[f'res/{name}'] for name in expected} == pytest.approx(expected)
    assert set(figures) == {f'res/{name}' for name in expected} | {'res/bIoU', 'res/bF'}


def test_bins_are_by_true_area():
    bins = dict(small=31 * 33, medium=32 * 32, large=96 * 96)    # 1023, 1024, 9216 px
    for name, area in bins.items():
        truth = np.zeros((100, 100), bool)
        truth.flat[:area] = True
        figures = run(RESMetric(boundary=False), [make_sample(truth, truth)])
        assert [key for key in figures if 'gIoU_' in key] == [f'res/gIoU_{name}']


@pytest.mark.parametrize('protocol, expected', [
    # gIoU over [A .5, MISSED 0, ABSENT ?, FALSE 0]; cIoU: (100) / (200 + 100 + 0 + 300)
    ('text4seg', {'gIoU': 37.5, 'cIoU': 100 / 6, 'P@0.5': 50, 'N-acc': 50, 'T-acc': 50}),
    ('lisa', {'gIoU': 37.5, 'cIoU': 100 / 6, 'P@0.5': 50}),
    ('gsva', {'gIoU': 37.5, 'cIoU': 100 / 6, 'P@0.5': 50}),
    ('lavt', {'gIoU': 12.5, 'cIoU': 100 / 6, 'P@0.5': 25}),
    ('rela', {'gIoU': 37.5, 'cIoU': 100 / 6, 'P@0.5': 50, 'N-acc': 50, 'T-acc': 50}),
])
def test_protocols_on_empty_masks(protocol, expected):
    # 240 px: every pixel is 2 x 2 in the 480 square, so resizing changes no ratio.
    pairs = [[np.pad(mask, (0, 140)) for mask in pair] for pair in (A, MISSED, ABSENT, FALSE)]
    figures = run(RESMetric(protocol=protocol),
                  [make_sample(*pair, img_id=i) for i, pair in enumerate(pairs)])
    assert {name: figures[f'res/{name}'] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize('protocol, text, iou, n_acc', [
    ('text4seg', '[]', 100, 100),
    ('text4seg', 'I am not sure', 100, 100),
    ('rela', '[]', 100, 100),
    ('rela', 'I am not sure', 0, 0),
    ('rela', '[[[1,1],[', 0, 0),
])
def test_unreadable_text_on_an_absent_target(protocol, text, iou, n_acc):
    figures = run(RESMetric(protocol=protocol), [make_sample(*ABSENT, text=text)])
    assert (figures['res/gIoU'], figures['res/N-acc']) == (iou, n_acc)


def test_a_square_protocol_reweights_and_can_lose_a_target():
    # 960 wide, 480 high: in the 480 square columns count half, so I and U do too.
    size = (480, 960)
    wide = (rect(0, 0, 200, 100, size), rect(100, 0, 300, 100, size))
    figures = run(RESMetric('lavt'), [make_sample(*wide)])
    assert figures['res/cIoU'] == pytest.approx(100 / 3)
    # Nearest sampling takes columns 1, 3, 5, ... (pixel centres): a target in column 2 is lost.
    line = rect(2, 0, 3, 100, size)
    for protocol, value in [('lavt', 0), ('rela', 0), ('text4seg', 100)]:
        assert run(RESMetric(protocol), [make_sample(line, line)])['res/gIoU'] == value
    assert REGION_PROTOCOLS['polyformer'].square == 512


def test_an_empty_prediction_has_zero_boundary_scores():
    figures = run(RESMetric(), [make_sample(*A, img_id=0), make_sample(*MISSED, img_id=1),
                                make_sample(*ABSENT, img_id=2)])
    alone = run(RESMetric(), [make_sample(*A)])
    assert figures['res/bIoU'] == pytest.approx(alone['res/bIoU'] / 2)
    assert figures['res/bF'] == pytest.approx(alone['res/bF'] / 2)


def test_several_masks_are_joined_and_rle_is_read():
    whole = rect(0, 0, 20, 20)
    halves = np.stack([rect(0, 0, 10, 20), rect(5, 0, 20, 20)])
    for masks in (torch.from_numpy(halves), halves, [json_rle(mask) for mask in halves]):
        sample = make_sample(whole, whole).to_dict()
        sample['gt_masks'] = BitmapMasks(halves.astype(np.uint8), 100, 100)
        sample['pred_instances']['masks'] = masks
        assert run(RESMetric(), [sample])['res/cIoU'] == 100
    for nothing in (torch.zeros(0, 100, 100, dtype=torch.bool), []):
        sample['pred_instances']['masks'] = nothing
        assert run(RESMetric(), [sample])['res/cIoU'] == 0


def test_sums_are_exact_integers_in_any_order():
    samples = random_samples(12)
    figures = run([RESMetric(), RECMetric(), OutputHealthMetric()], samples)
    assert run([RESMetric(), RECMetric(), OutputHealthMetric()], samples[::-1]) == figures
    metric = RESMetric()
    huge = dict(intersection=2 ** 61, union=2 ** 62, iou=0.5, area=4, nothing=False)
    assert metric.summarize([huge] * 5)['cIoU'] == 50


def test_figures_of_each_set():
    samples = [make_sample(*A, img_id=0), make_sample(*B, img_id=1, split='testA'),
               make_sample(*B, img_id=2, split='testA', source='refcoco+')]
    figures = run(RESMetric(per_set=True), samples)
    assert figures['res/refcoco_val/cIoU'] == 50
    assert figures['res/refcoco_testA/cIoU'] == figures['res/refcoco+_testA/cIoU'] == 90
    assert figures['res/average/cIoU'] == pytest.approx(230 / 3)
    assert figures['res/cIoU'] == pytest.approx(100 * (100 + 2880) / 3400)
    assert 'res/average/gIoU_small' not in figures     # not every set has small targets
    with pytest.raises(ValueError, match='per_set=True needs source and split.*1 have none'):
        run(RESMetric(per_set=True), [without(samples[0], 'split')])


# REC and pointing


@pytest.mark.parametrize('protocol, hits', [('text4seg', 50), ('polyformer', 100)])
def test_rec_at_the_threshold(protocol, hits):
    pairs = [A, B]     # box IoU exactly .5, and .9
    figures = run(RECMetric(protocol=protocol),
                  [make_sample(*pair, img_id=i) for i, pair in enumerate(pairs)])
    assert figures == pytest.approx({'rec/Acc@0.5': hits, 'rec/box_IoU': 70})


def test_rec_sources_and_truths():
    sample = make_sample(rect(0, 0, 10, 10), rect(50, 50, 60, 60))
    sample.pred_instances.bboxes = torch.tensor([[0., 0., 10., 8.]])
    sample.set_metainfo(dict(instances=[dict(bbox=[0, 0, 10, 16])]))
    assert run(RECMetric('mask'), [sample])['rec/box_IoU'] == 0
    assert run(RECMetric('box'), [sample])['rec/box_IoU'] == pytest.approx(80)
    assert run(RECMetric('box', 'polyformer'), [sample]) == {
        'rec/Acc@0.5': 100, 'rec/box_IoU': 50}
    assert run(RECMetric('box', threshold=0.8), [sample])['rec/Acc@0.8'] == 0     # not > 0.8
    assert BOX_PROTOCOLS['text4seg'].strict


@pytest.mark.parametrize('boxes', [torch.zeros(1, 4), torch.zeros(0, 4),
                                   torch.tensor([[9., 9., 0., 0.]])])
def test_no_box_is_wrong_and_absent_targets_do_not_count(boxes):
    samples = [make_sample(*A, img_id=0), make_sample(*ABSENT, img_id=1)]
    samples[0].pred_instances = InstanceData(
        masks=torch.zeros(1, 100, 100, dtype=torch.bool))
    data = [sample.to_dict() for sample in samples]
    data[0]['pred_instances']['bboxes'] = boxes
    for source in ('mask', 'box'):
        assert run(RECMetric(source), data) == {'rec/Acc@0.5': 0, 'rec/box_IoU': 0}
    assert run(RECMetric(), data[1:]) == {}


def test_points():
    truth = rect(10, 20, 11, 21)          # one pixel: x 10, y 20 of 100
    texts = {'[105,205]': True, '[100,200]': True, '[109,209]': True, 'Here: [105, 205].': True,
             '[110,205]': False, '[205,105]': False, '[99,205]': False, 'no idea': False,
             '[1000,1000]': False}
    for text, hit in texts.items():
        sample = make_sample(truth, ABSENT[0], text=text, task='text2point')
        assert run(PointMetric(), [sample]) == {'point/hit': 100 * hit}, text
    corner = make_sample(rect(99, 99, 100, 100), ABSENT[0], text='[1000,1000]', task='text2point')
    absent = make_sample(*ABSENT, img_id=1, text='[]', task='text2point')
    assert run(PointMetric(), [corner, absent]) == {'point/hit': 100}


# Output health


def health(*samples, **kwargs):
    figures = run(OutputHealthMetric(**kwargs), list(samples))
    return {name.removeprefix('health/'): value for name, value in figures.items()}


@pytest.mark.parametrize('text, expected', [
    ('[[[0,0],[0,100],[100,100],[100,0]]]', dict(
        valid_parse=100, truncated=0, self_intersection=0, few_vertices=0, vertices=4,
        vertex_ratio=1)),
    ('[[[0,0],[100,100],[0,100],[100,0]]]', dict(valid_parse=100, self_intersection=100)),
    ('[[[0,0],[0,100],[100,100]],[[5,5],[6,6]]]', dict(
        valid_parse=0, few_vertices=100, vertices=3, vertex_ratio=0.75)),
    ('[[[0,0],[0,100],[100,100],[100', dict(valid_parse=0, truncated=100, vertices=3)),
    ('[1,2,3,4]', dict(valid_parse=0)),
    ('no idea', dict(valid_parse=0, truncated=0)),
])
def test_health_of_texts(text, expected):
    figures = health(make_sample(rect(0, 0, 10, 10), rect(0, 0, 10, 10), text=text))
    assert {name: figures.get(name) for name in expected} == expected
    if '[[' not in text:
        assert not {'vertices', 'self_intersection', 'few_vertices'} & set(figures)


@pytest.mark.parametrize('texts, share', [
    (('[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]]]', 'no idea', '[0.1, 0.2, 0.3, 0.4]'), 100),
    (('[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]]]', '[1,2]'), 50), (('[1,2]', '[]'), 0)])
def test_weights_of_another_grammar_are_told_by_their_answers(texts, share, monkeypatch):
    warnings = []
    monkeypatch.setattr('simpleseg_mm.evaluation.health.print_log',
                        lambda text, *args: warnings.append(text))
    square = rect(0, 0, 10, 10)
    assert health(*(make_sample(square, square, text=text, img_id=i)
                    for i, text in enumerate(texts)))['other_grammar'] == share
    assert [f'{share} % of the answers' in text for text in warnings] == [True] * (share > 50)


def test_health_asks_for_the_kind_of_the_task():
    square = rect(0, 0, 10, 10)
    for task, text, valid in [('text2box', '[0,0,100,100]', 100), ('text2box', '[1,2]', 0),
                              ('text2point', '[50,50]', 100), ('mask2point', '[]', 100),
                              ('box2mask', '[50,50]', 0), ('text2mask', '[]', 100)]:
        sample = make_sample(square, square, text=text, task=task, answer=text)
        assert health(sample)['valid_parse'] == valid, (task, text)


def test_health_means_and_truncation():
    square = rect(0, 0, 10, 10)
    figures = health(make_sample(square, square, img_id=0, pred_num_tokens=30, pred_seconds=1.5),
                     make_sample(square, square, img_id=1, pred_finished=False))
    assert (figures['tokens'], figures['seconds'], figures['truncated']) == (20, 1.0, 50)
    bare = without(make_sample(square, square), 'pred_num_tokens', 'pred_seconds',
                   'pred_finished', 'answer')
    assert not {'tokens', 'seconds', 'vertex_ratio'} & set(health(bare))


def test_health_of_masks():
    figures = health(
        make_sample(*MISSED, img_id=0),
        make_sample(*ABSENT, img_id=1),
        # Box IoU 1, mask IoU .36: found, but not outlined.
        make_sample(rect(0, 0, 10, 10), rect(0, 0, 10, 10) & ~rect(1, 1, 9, 9), img_id=2),
        # Box and mask IoU are both .5: the box is not right.
        make_sample(*A, img_id=3))
    assert figures['empty'] == pytest.approx(100 / 3)
    assert figures['box_right_mask_wrong'] == pytest.approx(100 / 3)
    assert 'part_recall' not in figures and 'hole_recall' not in figures


def test_recall_of_parts():
    parts = [rect(0, 0, 10, 10), rect(20, 0, 30, 10), rect(40, 0, 50, 10)]
    speck = rect(90, 90, 92, 92)          # 4 px: passed over, or found nowhere
    truth = parts[0] | parts[1] | parts[2] | speck
    half = rect(20, 0, 30, 5)
    less = rect(40, 0, 50, 4)
    assert health(make_sample(truth, parts[0] | half | less))['part_recall'] == (
        pytest.approx(200 / 3))
    assert health(make_sample(truth, truth), min_pixels=1)['part_recall'] == 100
    assert health(make_sample(truth, parts[0] | half | less), min_pixels=1)['part_recall'] == 50
    assert 'part_recall' not in health(make_sample(parts[0] | speck, parts[0]))


def test_recall_of_holes():
    holes = [rect(10, 10, 20, 20), rect(30, 10, 40, 20)]
    body = rect(5, 5, 45, 25)
    truth = body & ~holes[0] & ~holes[1]
    cases = [
        (truth, 100), (body, 0), (body & ~holes[0], 50), (np.zeros_like(body), 0),
        (body & ~rect(10, 10, 20, 15), 50),      # half of the first hole
        (body & ~rect(10, 10, 20, 14), 0),       # less than half
        (body & ~rect(10, 0, 20, 20), 0),        # a bay, open to the frame, is no hole
    ]
    for prediction, expected in cases:
        assert health(make_sample(truth, prediction))['hole_recall'] == expected
    # Background in a corner that only touches the outside diagonally is a hole.
    ring = rect(5, 5, 12, 12) & ~rect(6, 6, 11, 11)
    ring[5, 5] = False
    assert health(make_sample(ring, ring))['hole_recall'] == 100


# Texts, dumped and read


def test_text_dump(tmp_path):
    path = tmp_path / 'new' / 'answers.jsonl'
    samples = [make_sample(*A, img_id=np.int64(4), text='[[[é'), make_sample(*B, img_id=5)]
    assert run(TextDump(str(path)), samples) == {}
    rows = read_text_rows(path)
    assert rows[0] == dict(
        confidence=None, img_id=4, image_id=7, ref_id=2, sent_id=4, source='refcoco', split='val',
        text='the thing', task='text2mask', prompt='Outline the thing.',
        answer=CODEC.encode(A[0]), pred_text='[[[é', tokens=10, finished=True, seconds=0.5,
        codec=CODEC.spec, ori_shape=[100, 100], agreement=None, answers=None, greedy_text=None,
        scores=None, looks=None)
    assert len(rows) == 2


@pytest.mark.parametrize('content, message', [
    ('', 'has no rows'),
    ('{"img_id": 1, "pred_text": "[]"}\n{oops', 'line 2: not JSON'),
    ('[1, 2]', "line 1: expected a JSON object with the string 'pred_text'"),
    ('{"img_id": 1, "pred_text": null}', "line 1: .*'pred_text'"),
    ('{"ref_id": 1, "pred_text": "[]"}', "line 1: expected 'img_id', or 'ref_id' and 'sent_id'"),
    ('{"img_id": 1, "pred_text": "[]", "tokens": "many"}', "line 1: 'tokens' is 'many'; give a n"),
    ('{"img_id": 1, "pred_text": "[]", "tokens": true}', "line 1: 'tokens' is True"),
    ('{"img_id": 1, "pred_text": "[]", "seconds": NaN}', "line 1: 'seconds' is nan; give a numb"),
    ('{"img_id": 1, "pred_text": "[]", "finished": 1}', "'finished' is 1; give true or false"),
    ('{"img_id": 1, "pred_text": "[]", "codec": ["int1000"]}', "'codec' is .*a name such as"),
    ('[' * 100000, 'line 1: not JSON'),
])
def test_broken_files_of_answers(tmp_path, content, message):
    path = tmp_path / 'answers.jsonl'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_text_rows(path)
    assert '\n' not in str(error.value)


def test_no_file_of_answers(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.jsonl'):
        read_text_rows(tmp_path / 'nowhere.jsonl')


QUERIES = [dict(img_id=10, ref_id=1, sent_id=1, source='refcoco'),
           dict(img_id=11, ref_id=1, sent_id=2, source='refcoco'),
           dict(img_id=12, ref_id=1, sent_id=1, source='refcoco+')]


def test_rows_are_matched_by_id_or_by_reference():
    by_id = [dict(img_id=12), dict(img_id=10), dict(img_id=11)]
    assert match_rows(by_id, QUERIES) == {0: by_id[1], 1: by_id[2], 2: by_id[0]}
    by_reference = [dict(query, img_id=None) for query in QUERIES]
    assert match_rows(by_reference, QUERIES) == dict(enumerate(by_reference))
    pair = dict(ref_id=1, sent_id=2)
    assert match_rows([pair], QUERIES[1:2]) == {0: pair}


@pytest.mark.parametrize('rows, message', [
    ([dict(img_id=10), dict(img_id=11)], '1 of 3 queries have no row'),
    ([dict(img_id=i) for i in (10, 11, 12, 13, 14)], "2 rows of unknown queries.*'img_id': 13"),
    ([dict(img_id=i) for i in (10, 11, 12, 11)], "1 rows of a query that has one.*'img_id': 11"),
    ([dict(ref_id=1, sent_id=1)] * 3, "3 rows that fit several queries .add 'source'"),
    ([], '3 of 3 queries have no row'),
])
def test_rows_that_do_not_fit(rows, message):
    with pytest.raises(ValueError, match=message):
        match_rows(rows, QUERIES)


# Beside other implementations


def test_beside_mmdet_in_one_evaluator(tmp_path):
    samples = random_samples(20)
    out = str(tmp_path / 'out.pkl')
    evaluator = Evaluator([
        dict(type='mmdet.DumpDetResults', out_file_path=out),
        dict(type='RESMetric'), dict(type='RECMetric'), dict(type='OutputHealthMetric'),
        dict(type='TextDump', out_file=str(tmp_path / 'answers.jsonl')),
        dict(type='mmdet.RefSegMetric'),
        dict(type='mmdet.CocoMetric', metric=['bbox', 'segm']),
        dict(type='RESMetric', protocol='lavt', prefix='lavt'),
    ])
    check_metric_names(evaluator.metrics)
    evaluator.dataset_meta = META
    for start in range(0, len(samples), 8):
        evaluator.process(samples[start:start + 8])
    figures = evaluator.evaluate(len(samples))
    assert figures['res/cIoU'] == pytest.approx(float(figures['cIoU']), abs=1e-4)
    assert figures['res/gIoU'] == pytest.approx(float(figures['mIoU']), abs=1e-4)
    # IoU by pycocotools
    pairs = [[json_rle(mask.astype(np.uint8)) for mask in
              (sample.gt_masks.masks[0], sample.pred_instances.masks[0].numpy())]
             for sample in samples]
    ious = [coco_mask.iou([prediction], [truth], [0])[0, 0] for truth, prediction in pairs]
    assert figures['res/gIoU'] == pytest.approx(100 * math.fsum(ious) / len(ious), abs=1e-9)
    boxes = [coco_mask.iou(*([coco_mask.toBbox(rle)] for rle in reversed(pair)), [0])[0, 0]
             for pair in pairs]
    assert figures['rec/box_IoU'] == pytest.approx(100 * math.fsum(boxes) / len(boxes), abs=1e-9)
    assert 0 < figures['coco/segm_mAP'] < 1
    assert len(read_text_rows(tmp_path / 'answers.jsonl')) == 20
    # What DumpDetResults wrote (masks as RLE) gives the same figures.
    from mmengine.fileio import load
    assert run(RESMetric(), load(out))['res/cIoU'] == figures['res/cIoU']


def test_perfect_answers_are_perfect_in_every_column():
    samples = []
    for img_id, sample in enumerate(random_samples(4)):
        mask = sample.pred_instances.masks[0].numpy()
        samples.append(make_sample(mask, mask, img_id=img_id))
    figures = run([dict(type='RESMetric'), dict(type='RECMetric'),
                   dict(type='mmdet.RefSegMetric'),
                   dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])], samples)
    for name in ('res/cIoU', 'res/gIoU', 'res/bIoU', 'res/bF', 'rec/Acc@0.5', 'cIoU', 'mIoU'):
        assert float(figures[name]) == 100, name
    assert figures['coco/segm_mAP'] == figures['coco/bbox_mAP'] == 1


# --- one record of a sample -------------------------------------------------------------------
def test_the_metric_of_the_page(tmp_path):
    """docs/evaluation.md: a metric of one's own sees the record that ours see."""
    page = (Path(__file__).parent.parent / 'docs/evaluation.md').read_text()
    code, = re.findall(r'## Write your own metric.*?```python\n(.*?)```', page, re.S)
    names = set(METRICS.module_dict)
    exec(code, {})
    try:
        metric = METRICS.build(dict(type='VerticesMetric', words=2))
    finally:
        for name in set(METRICS.module_dict) - names:
            del METRICS.module_dict[name]
    square = rect(10, 10, 50, 50)
    samples = [make_sample(square, square, 0), make_sample(square, square, 1, text='one'),
               make_sample(square, square, 2, text='[[[1,1],[9,1],[9,9]]]')]
    samples[1].set_metainfo(dict(text='thing'))
    evaluator = Evaluator([metric])
    evaluator.process(samples)
    assert evaluator.evaluate(3) == {'vertices/mean': (4 + 3) / 2}


@pytest.mark.parametrize('task, text, valid', [
    ('text2extreme', '[500,100]', 100), ('text2extreme', '[[[1,1],[9,1],[9,9]]]', 0),
    ('text2extreme', '[1,2,3,4]', 0), ('text2point', '[1,2,3,4]', 0),
    ('text2mask', '[500,100]', 0), ('my own task', '[500,100]', 100)])
def test_an_answer_is_held_to_the_kind_that_its_task_asks_for(task, text, valid):
    """An extreme point is a point: an outline is no valid answer to it."""
    metric = OutputHealthMetric()
    metric.process(None, [make_sample(rect(1, 1, 9, 9), rect(0, 0, 0, 0), text=text,
                                      task=task).to_dict()])
    assert metric.evaluate(1)['health/valid_parse'] == valid


def test_a_text_that_is_changed_is_read_again():
    """The record of an answer belongs to its text and codec, not to the sample."""
    square = rect(10, 10, 50, 50)
    sample = make_sample(square, square).to_dict()
    first = answer_of(sample)
    assert answer_of(sample) is first and first.mask.sum() == 1600
    assert answer_of(dict(sample, pred_text='[]')).says_nothing
    other = answer_of(dict(sample, codec='int100/default'))
    assert other.codec.spec == 'int100/default' and not other.parsed.valid
    assert answer_of({k: v for k, v in sample.items() if k != 'pred_text'}) is None
