"""Sets whose objects are asked for one by one: COCO with crowds, LVIS, gRefCOCO, others."""
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_datasets_refcoco import build
from test_datasets_targets import GREF, grefcoco

from simpleseg_mm.datasets import CocoQueryDataset, RefShapesDataset, refshapes
from simpleseg_mm.datasets.transforms import META_KEYS
from simpleseg_mm.evaluation import InstanceMetric
from simpleseg_mm.export.chat_rows import ChatRows
from simpleseg_mm.export.picture_paths import PicturePaths
from simpleseg_mm.polygon import codec_of, parse_answer
from simpleseg_mm.registry import METRICS
from simpleseg_mm.rl import PolygonReward, read_truths
from simpleseg_mm.samples import attach_answer, read_answer

MASKS = dict(tasks=dict(text2masks=1.0), codec=dict(grammar='int1000', tokens=None))


def square(x, y, side=10) -> list:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def coco(root: Path, edit=None) -> Path:
    """Two pictures of 40 x 30: two cups and a plate; a cup, and a crowd of plates beside one."""
    (root / 'images').mkdir()
    for number in (1, 2):
        Image.new('RGB', (40, 30)).save(root / 'images' / f'{number}.png')
    crowd = dict(size=[30, 40], counts=[0, 300, 900])  # the left 10 columns

    def row(number, image, category, segmentation, iscrowd=0):
        return dict(id=number, image_id=image, category_id=category, iscrowd=iscrowd, area=100,
                    segmentation=segmentation)
    content = dict(
        images=[dict(id=n, file_name=f'{n}.png', height=30, width=40) for n in (1, 2)],
        categories=[dict(id=1, name='cup'), dict(id=2, name='plate'), dict(id=3, name='fork'),
                    dict(id=4, name='spoon')],
        annotations=[row(11, 1, 1, square(25, 2)), row(12, 1, 1, square(2, 15)),
                     row(13, 1, 2, square(12, 12)), row(21, 2, 1, square(20, 5)),
                     row(22, 2, 2, square(28, 18)), row(23, 2, 2, crowd, 1)])
    if edit:
        edit(content)
    (root / 'coco.json').write_text(json.dumps(content))
    return root


def load(root, query=MASKS, **kwargs) -> CocoQueryDataset:
    return CocoQueryDataset(str(root), 'coco.json', 'images', query=query, **{
        'targets': 'instances', 'serialize_data': False, 'test_mode': True, **kwargs})


def asked(dataset) -> dict:
    """Texts and answers by picture."""
    samples = [dataset[k]['data_samples'] for k in range(len(dataset))]
    return {(sample.image_id, sample.text): sample for sample in samples}


@pytest.mark.parametrize('options, message', [
    (dict(targets='category'), r"the tasks \['text2masks'\]: .*take targets='instances'"),
    (dict(targets='object'), r"targets='object' with the tasks \['text2masks'\]"),
    (dict(targets='all'), "targets must be one of .*'instances'"),
    (dict(targets='phrase', absent=1), "only with targets='category' or 'instances'"),
    (dict(absent=-1), 'a number of categories from 0'),
    (dict(query=dict(tasks=dict(text2mask_s=1))), "unknown tasks"),
])
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(coco(tmp_path), **options)


def test_one_answer_an_object_from_left_to_right(tmp_path):
    samples = asked(load(coco(tmp_path)))
    assert set(samples) == {(1, 'cup'), (1, 'plate'), (2, 'cup'), (2, 'plate')}
    cups = samples[1, 'cup']
    assert cups.ann_id == [11, 12]
    assert [one['bbox'] for one in cups.instances] == [[25, 2, 35, 12], [2, 15, 12, 25]]
    assert cups.gt_masks.masks.sum((1, 2)).tolist() == [100, 100]
    lists = parse_answer(cups.answer, codec_of(cups.codec).grammar, 'masks')
    assert lists.valid and len(lists.instances) == 2
    first = lists.instances[0].rings[0]
    assert first[:, 0].max() < 0.5  # the left one first
    boxes = '[[50,500,300,833],[625,67,875,400]]'
    for task, wanted in (('text2boxes', boxes), ('text2points', 2)):
        answer = asked(load(tmp_path, dict(MASKS, tasks={task: 1})))[1, 'cup'].answer
        assert answer == wanted or len(json.loads(answer)) == wanted


def test_crowds_are_not_asked_in_training_and_ignored_in_evaluation(tmp_path):
    training = load(coco(tmp_path), test_mode=False)
    assert set(asked(training)) == {(1, 'cup'), (1, 'plate'), (2, 'cup')}
    assert training.skipped == {'crowd among the objects, which are not told apart': 1}
    assert training.read == 4

    plates = asked(load(tmp_path))[2, 'plate']
    assert [one['ignore_flag'] for one in plates.instances] == [0, 1]
    assert plates.instances[1]['bbox'] == [0, 0, 10, 30] and plates.ann_id == [22, 23]
    assert plates.gt_masks.masks.sum() == 100 and plates.gt_ignore.masks.sum() == 300
    assert len(parse_answer(plates.answer, codec_of(plates.codec).grammar,
                            'masks').instances) == 1
    boxes = asked(load(tmp_path, dict(MASKS, tasks=dict(text2boxes=1))))[2, 'plate'].answer
    assert boxes == '[[700,600,950,933]]'


def test_a_crowd_alone_is_left_out_of_both(tmp_path):
    root = coco(tmp_path, lambda content: content['annotations'].pop(4))
    for test_mode in (False, True):
        dataset = load(root, test_mode=test_mode)
        assert (2, 'plate') not in asked(dataset)
        assert dataset.skipped == {'crowd alone, which is no object': 1}
        # a crowd is there: it is not asked for as absent either
        asked_of_2 = {text for image, text in asked(load(root, absent=4, test_mode=test_mode))
                      if image == 2}
        assert asked_of_2 == {'cup', 'fork', 'spoon'}


def test_category_is_as_before(tmp_path):
    """All of a category in one mask: crowds are part of it."""
    plates = asked(load(coco(tmp_path), dict(MASKS, tasks=dict(text2mask=1)),
                        targets='category'))[2, 'plate']
    assert plates.gt_masks.masks.shape == (1, 30, 40) and plates.gt_masks.masks.sum() == 400
    assert [one['ignore_flag'] for one in plates.instances] == [0, 0]
    assert 'gt_ignore' not in plates


def test_the_union_of_instances_passes_over_crowds_too(tmp_path):
    plates = asked(load(coco(tmp_path), dict(MASKS, tasks=dict(text2mask=1))))[2, 'plate']
    assert plates.gt_masks.masks.sum() == 400  # no task asks one by one: as 'category'


def test_lvis_s_lists(tmp_path):
    """Of a category that is not annotated throughout, not all can be asked for; of those that are
    not there only what was looked for."""
    def edit(content):
        content['images'][0].update(not_exhaustive_category_ids=[1], neg_category_ids=[3])
        content['images'][1].update(not_exhaustive_category_ids=[], neg_category_ids=[])
    for test_mode in (False, True):
        root = tmp_path / str(test_mode)
        root.mkdir()
        dataset = load(coco(root, edit), absent=5, test_mode=test_mode)
        samples = asked(dataset)
        plates = {(2, 'plate')} if test_mode else set()
        assert set(samples) == {(1, 'plate'), (1, 'fork'), (2, 'cup')} | plates
        none = samples[1, 'fork']
        assert (none.answer, none.instances, none.ann_id) == ('[]', [], [-1])
        assert none.gt_masks.masks.shape == (0, 30, 40)
        assert dataset.skipped['category that is not annotated throughout on its image'] == 1


def test_phrases(tmp_path):
    """Several objects of one phrase, one by one; a crowd among them is no whole truth."""
    def edit(content):
        for row in content['annotations']:
            row['phrase'] = ['tableware', f'number {row["id"]}']
        content['images'][0]['absent_phrases'] = ['a dog']
    root = coco(tmp_path, edit)
    samples = asked(load(root, targets='phrase', test_mode=False))
    assert samples[1, 'tableware'].gt_masks.masks.shape == (3, 30, 40)
    assert samples[1, 'number 13'].gt_masks.masks.shape == (1, 30, 40)
    assert samples[1, 'a dog'].answer == '[]'
    assert (2, 'tableware') not in samples and (2, 'number 23') not in samples
    assert (2, 'number 22') in samples


def test_grefcoco(tmp_path):
    def edit(refs, images, annotations):
        pass
    root = grefcoco(tmp_path, edit)
    dataset = build(root, GREF, test_mode=True, query=MASKS)
    both, none, one = (dataset[i]['data_samples'] for i in (0, 2, 4))
    assert both.gt_masks.masks.shape[0] == len(both.instances) == 2
    assert len(parse_answer(both.answer, codec_of(both.codec).grammar, 'masks').instances) == 2
    assert (none.answer, none.gt_masks.masks.shape[0]) == ('[]', 0)
    assert one.gt_masks.masks.shape[0] == 1
    path = root / 'grefcoco' / 'instances.json'
    content = json.loads(path.read_text())
    next(row for row in content['annotations'] if row['id'] == 1001)['iscrowd'] = 1
    path.write_text(json.dumps(content))
    dataset = build(root, GREF, test_mode=True, query=MASKS)
    assert len(dataset) == 6
    assert dataset.skipped == {'crowd among the objects, which are not told apart': 2}


def test_refshapes(tmp_path):
    refshapes.generate(tmp_path, dict(train=4), 5, like=1.0, absent=1.0, objects_range=(3, 6))
    for task in ('text2masks', 'text2boxes', 'text2points'):
        dataset = RefShapesDataset(str(tmp_path), query=dict(tasks={task: 1.0}), test_mode=True)
        counts = set()
        for k in range(len(dataset)):
            sample = dataset[k]['data_samples']
            number = len(set(sample.ann_id) - {-1})
            counts.add(number)
            assert len(sample.instances) == len(sample.gt_masks.masks) == number
            assert len(json.loads(sample.answer)) == number
        assert {0, 1} < counts
    turns = RefShapesDataset(str(tmp_path), query=dict(turns=3, tasks=dict(
        text2masks=1, text2boxes=1)))[0]['data_samples'].turns
    assert len(turns) == 3


# COCO's photos, against pycocotools


@pytest.fixture(scope='module')
def photos(real_data, tmp_path_factory):
    """Some of COCO's photos, those with crowds among them: a folder, and its file's content."""
    source = real_data / 'coco_photos'
    content = json.loads((source / 'instances.json').read_text())
    crowded = {row['image_id'] for row in content['annotations'] if row['iscrowd']}
    kept = sorted(crowded)[:8] + sorted({image['id'] for image in content['images']}
                                         - crowded)[:10]
    images = [image for image in content['images'] if image['id'] in kept]
    number = {image['id']: k + 1 for k, image in enumerate(images)}
    root = tmp_path_factory.mktemp('photos')
    for image in images:
        image['id'] = number[image['id']]
    content.update(images=images, annotations=[
        dict(row, image_id=number[row['image_id']]) for row in content['annotations']
        if row['image_id'] in number])
    (root / 'coco.json').write_text(json.dumps(content))
    (root / 'images').symlink_to((source / 'images').resolve())
    return root, content


def spoilt(text: str, number: int, crowd_box) -> str:
    """An oracle's answer with what models do wrong: objects missed, moved, written twice, and one
    that lies in a crowd."""
    objects = json.loads(text)
    if number % 3 == 1:
        objects = objects[1:]
    if number % 4 == 2:
        objects = [[[[min(x + 25, 999), y] for x, y in ring] for ring in one] for one in objects]
    if number % 5 == 3:
        objects += objects[:1]
    if crowd_box is not None:
        x1, y1, x2, y2 = crowd_box
        objects.append([[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]])
    return json.dumps(objects, separators=(',', ':'))


def predicted_rows(sample, category_ids) -> list[dict]:
    """COCO's results of a sample; of a mask without a pixel the score is 0."""
    predicted = sample.pred_instances
    return [dict(image_id=sample.image_id, category_id=category, score=float(score),
                 segmentation=coco_mask.encode(np.asfortranarray(mask.numpy(), np.uint8)))
            for mask, score, category in zip(predicted.masks, predicted.scores, category_ids)]


@pytest.mark.parametrize('spoil', [False, True])
def test_average_precision_of_an_oracle_is_that_of_pycocotools(photos, spoil, tmp_path):
    """mmdet.CocoMetric on our samples, one query a (picture, category), against COCOeval on the
    file itself with the same decoded masks. A query of crowds alone has no part in either."""
    root, content = photos
    dataset = load(root, dict(MASKS, codec=dict(grammar='int1000', tokens=150)))
    names = {one['name']: one['id'] for one in content['categories']}
    found, samples = [], []
    for number in range(len(dataset)):
        sample = dataset[number]['data_samples']
        text, crowds = sample.answer, [one for one in sample.instances if one['ignore_flag']]
        if spoil:
            h, w = sample.ori_shape
            box = np.array(crowds[0]['bbox']) / [w, h, w, h] * 1000 if crowds else None
            text = spoilt(text, number, None if box is None else box.clip(0, 999).astype(int
                                                                                         ).tolist())
        attach_answer(sample, read_answer(sample, text))
        samples.append(sample)
        found += predicted_rows(sample, [names[sample.text]] * len(sample.pred_instances))
    assert sum(bool(one['ignore_flag']) for s in samples for one in s.instances) >= 5

    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        for name in ('person', None):
            chosen = [s for s in samples if name in (None, s.text)]
            evaluator = Evaluator([METRICS.build(dict(type='mmdet.CocoMetric',
                                                      metric=['segm', 'bbox'])),
                                   InstanceMetric()])
            evaluator.dataset_meta = dataset.metainfo
            evaluator.process(chosen)
            figures = evaluator.evaluate(len(chosen))
            wanted = average_precision(content, found, names.get(name), tmp_path)
            assert figures['coco/segm_mAP'] == pytest.approx(wanted[0], abs=6e-4)
            assert figures['coco/segm_mAP_50'] == pytest.approx(wanted[1], abs=6e-4)
            if spoil:
                assert 0.3 < wanted[0] < 0.9
            else:
                assert figures['inst/count_exact'] == 100 and figures['inst/SQ'] > 90
                assert wanted[0] > 0.85


def average_precision(content: dict, found: list[dict], category, folder) -> tuple[float, float]:
    """AP and AP50 by COCOeval: of a category, or with every (picture, category) for a picture."""
    content = json.loads(json.dumps(content))
    if category is None:
        pairs = sorted({(row['image_id'], row['category_id']) for row in content['annotations']})
        place = {pair: k + 1 for k, pair in enumerate(pairs)}
        order = {}  # as the set asks: by picture, then as categories first occur in it
        for row in content['annotations']:
            order.setdefault((row['image_id'], row['category_id']), len(order))
        ranked = sorted(pairs, key=lambda pair: (pair[0], order[pair]))
        place = {pair: k + 1 for k, pair in enumerate(ranked)}
        sizes = {image['id']: image for image in content['images']}
        content['images'] = [dict(sizes[image], id=k) for (image, _), k in place.items()]
        for row in content['annotations']:
            row.update(image_id=place[row['image_id'], row['category_id']], category_id=1)
        found = [dict(one, image_id=place[one['image_id'], one['category_id']], category_id=1)
                 for one in found]
        content['categories'], category = [dict(id=1, name='object')], 1
    truth = folder / 'truth.json'
    truth.write_text(json.dumps(content))
    truth = COCO(str(truth))
    evaluation = COCOeval(truth, truth.loadRes([dict(one, segmentation=dict(one['segmentation']))
                                                for one in found]), 'segm')
    evaluation.params.catIds = [category]
    evaluation.params.maxDets = [100, 300, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]
    return float(precision.mean()), float(precision[0].mean())


def test_rows_for_other_trainers_hold_every_object(tmp_path):
    """As the reward reads them there: a list of RLEs, of an absent target an empty one."""
    root = coco(tmp_path)
    dataset = load(root, absent=1, test_mode=False)
    rows = ChatRows(dataset, range(len(dataset)), META_KEYS, {}, 'trl', 'rl', '.jsonl',
                    PicturePaths(tmp_path, 'never', None))
    reward = PolygonReward(dict(instance_iou=1.0), 'int1000/default')
    for sample, row in zip((dataset[k]['data_samples'] for k in range(len(dataset))), rows):
        truths = read_truths(row['mask'])
        assert sum(mask.any() for mask in truths) == len(sample.instances)
        found = reward([sample.answer], [row['mask']], samples=[row])
        assert found.total[0] > 0.9
