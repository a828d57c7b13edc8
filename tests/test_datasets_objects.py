"""Pictures whose objects are all asked for, each with its name: sets, samples, metrics, reward."""
import json

import numpy as np
import pytest
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_datasets_instances import asked, coco, load, photos, predicted_rows  # noqa: F401
from test_metrics_evaluator import run

from simpleseg_mm.answers import class_of
from simpleseg_mm.datasets import JoinedDataset, RefShapesDataset, refshapes
from simpleseg_mm.datasets.transforms import META_KEYS, FormatQuery
from simpleseg_mm.evaluation import InstanceMetric
from simpleseg_mm.export.chat_rows import ChatRows
from simpleseg_mm.export.picture_paths import PicturePaths
from simpleseg_mm.polygon import PolygonCodec, Task, codec_of
from simpleseg_mm.registry import METRICS
from simpleseg_mm.rl import PolygonReward
from simpleseg_mm.samples import attach_answer, read_answer
from simpleseg_mm.scenes import COLOURS
from simpleseg_mm.second_look import NAMES_UNSEEN, SecondLook

OBJECTS = dict(tasks=dict(image2objects=1.0), codec=dict(grammar='int1000', tokens=None))


def pictures(root, query=OBJECTS, **kwargs):
    return load(root, query, **{'targets': 'picture', **kwargs})


# --- bad options and files -----------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(query=None), r"targets='picture' with the tasks \['text2mask'\]: .*image2objects=1.0"),
    (dict(query=dict(tasks=dict(image2objects=1, text2masks=1))), r"tasks \['text2masks'\]"),
    (dict(targets='instances'), r"tasks \['image2objects'\]: .* targets='picture'"),
    (dict(targets='object'), r"tasks \['image2objects'\]: .* targets='picture'"),
    (dict(absent=1), "only with targets='category' or 'instances'"),
])
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        pictures(coco(tmp_path), **options)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('options, message', [
    (dict(targets='scene'), "targets must be 'references' or 'picture', got 'scene'"),
    (dict(query=OBJECTS), r"RefShapesDataset with the tasks \['image2objects'\]"),
    (dict(targets='picture'), r"targets='picture' with the tasks \['text2mask'\]"),
])
def test_bad_options_of_scenes(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        RefShapesDataset(str(tmp_path), **options)


@pytest.mark.parametrize('names, message', [
    (['a\nb'], r"coco.json: an object has the name 'a\\nb'.* Rename the category"),
    ([101 * 'x'], 'at most 100 characters. Rename'),
    (['Cup'], r"the categories \['Cup', 'cup'\] differ in capitals alone.* Rename one"),
])
def test_categories_that_cannot_be_told(tmp_path, names, message):
    def edit(content):
        content['categories'] += [dict(id=50 + k, name=name) for k, name in enumerate(names)]
    with pytest.raises(ValueError, match=message) as error:
        pictures(coco(tmp_path, edit))
    assert '\n' not in str(error.value)


def test_a_sample_without_names_is_refused():
    info = dict(img=np.zeros((30, 40, 3), np.uint8), height=30, width=40, text='every object',
                ref_id=1, sent_id=1, ann_id=1, source='mine', split='train', test_mode=True,
                rng=np.random.default_rng(0),
                instances=[dict(mask=[[1, 1, 9, 1, 9, 9]], bbox=[1, 1, 9, 9])])
    with pytest.raises(ValueError, match='its objects have no names; image2objects needs a set'):
        FormatQuery(dict(image2objects=1)).transform(info)


# --- sets ----------------------------------------------------------------------------------------
def test_all_objects_of_a_picture(tmp_path):
    dataset = pictures(coco(tmp_path))
    samples = asked(dataset)
    assert set(samples) == {(1, 'every object'), (2, 'every object')}
    assert dataset.metainfo['classes'] == ('cup', 'plate', 'fork', 'spoon')
    one = samples[1, 'every object']
    assert one.task == 'image2objects' and one.names == ['cup', 'cup', 'plate']
    assert one.prompt == ('Output the name and the polygon coordinates of every object in the '
                          'image.')
    assert [item['bbox_label'] for item in one.instances] == [0, 0, 1]
    assert one.gt_masks.masks.shape == (3, 30, 40) and one.classes == dataset.metainfo['classes']
    assert [name for name, _ in json.loads(one.answer)] == ['cup', 'plate', 'cup']  # left to right
    answer = codec_of(one.codec).decode(one.answer, (30, 40), 'objects')
    assert [one.mask.sum() for one in answer.instances] == [100, 100, 100]


def test_crowds(tmp_path):
    training = pictures(coco(tmp_path), test_mode=False)
    assert set(asked(training)) == {(1, 'every object')}
    assert training.skipped == {'crowd among the objects, which are not told apart': 1}
    two = asked(pictures(tmp_path))[2, 'every object']
    assert [(one['bbox_label'], one['ignore_flag']) for one in two.instances] == [
        (0, 0), (1, 0), (1, 1)]
    assert two.names == ['cup', 'plate'] and two.gt_masks.masks.shape == (2, 30, 40)
    assert two.gt_ignore.masks.sum() == 300
    assert [name for name, _ in json.loads(two.answer)] == ['cup', 'plate']


def test_no_half_truths(tmp_path):
    def partly(content):
        content['images'][0]['neg_category_ids'] = []
        content['images'][1]['not_exhaustive_category_ids'] = [1]
        content['images'].append(dict(id=3, file_name='1.png', height=30, width=40))
        content['images'][2]['file_name'] = '3.png'
    root = coco(tmp_path, partly)
    (root / 'images' / '3.png').write_bytes((root / 'images' / '1.png').read_bytes())
    dataset = pictures(root)
    assert set(asked(dataset)) == {(3, 'every object')}  # without an object
    assert dataset.skipped == {'picture of which only some categories are annotated': 2}
    none = dataset[0]['data_samples']
    assert (none.answer, none.names, none.instances) == ('[]', [], [])

    def broken(content):
        content['annotations'][0]['category_id'] = 77
        content['annotations'][4]['segmentation'] = [[1, 2]]
        content['annotations'].pop()
    root = tmp_path / 'broken'
    root.mkdir()
    with pytest.raises(ValueError, match='77'):
        pictures(coco(root, broken))
    with pytest.raises(ValueError, match='no sample is left'):
        pictures(root, bad_samples='skip')


def test_scenes(tmp_path):
    refshapes.generate(tmp_path, dict(train=12, val=2), 5)
    dataset = RefShapesDataset(str(tmp_path), targets='picture', query=OBJECTS, test_mode=True)
    assert len(dataset) == 12 and len(dataset.metainfo['classes']) == 64
    content = json.loads((tmp_path / 'refshapes' / 'instances.json').read_text())
    shapes = {one['id']: one['name'] for one in content['categories']}
    for k in range(len(dataset)):
        sample = dataset[k]['data_samples']
        rows = [row for row in content['annotations'] if row['image_id'] == sample.image_id]
        assert sample.names == [f'{row["colour"]} {shapes[row["category_id"]]}' for row in rows]
        assert sorted(name for name, _ in json.loads(sample.answer)) == sorted(sample.names)
        assert all(dataset.classes[one['bbox_label']] == name for one, name in zip(
            sample.instances, sample.names))
        assert len(sample.gt_masks.masks) == len(rows) and sample.names[0].split()[0] in COLOURS
    assert len(RefShapesDataset(str(tmp_path))) > 3 * 12  # sentences, as before
    joined = JoinedDataset([
        dict(type='RefShapesDataset', data_root=str(tmp_path), targets='picture', query=OBJECTS),
        dict(type='RefShapesDataset', data_root=str(tmp_path))], [1, 1])
    assert {sample['data_samples'].task for sample in joined} == {'image2objects', 'text2mask'}


def test_rows_for_other_trainers_have_the_names(tmp_path):
    dataset = pictures(coco(tmp_path), test_mode=False)
    rows = list(ChatRows(dataset, range(1), META_KEYS, {}, 'trl', 'rl', '.jsonl',
                         PicturePaths(tmp_path, 'never', None)))
    assert rows[0]['names'] == ['cup', 'cup', 'plate'] and rows[0]['task'] == 'image2objects'
    reward = PolygonReward(dict(instance_iou=1.0), 'int1000/default')
    text = dataset[0]['data_samples'].answer
    assert reward([text], [rows[0]['mask']], samples=[rows[0]]).total == pytest.approx([1])


# --- answers in samples --------------------------------------------------------------------------
SQUARES = {'a': '[[[0,0],[500,0],[500,500],[0,500]]]',
           'b': '[[[500,0],[999,0],[999,500],[500,500]]]',
           'c': '[[[0,500],[500,500],[500,999],[0,999]]]'}


def answered(*named, classes=('cup', 'plate'), text=None):
    codec = PolygonCodec()
    sample = DetDataSample(metainfo=dict(
        ori_shape=(100, 100), codec=codec.spec, task='image2objects', img_id=0))
    if classes:
        sample.set_metainfo(dict(classes=classes))
    text = f'[{",".join(f"[{json.dumps(name)},{SQUARES[at]}]" for name, at in named)}]' \
        if text is None else text
    attach_answer(sample, read_answer(sample, text, finished=True))
    return sample


@pytest.mark.parametrize('named, labels, names, no_class', [
    ([('plate', 'a'), (' CUP', 'b')], [1, 0], ['plate', ' CUP'], []),
    ([('plate', 'a'), ('bowl', 'b'), ('', 'c')], [1], ['plate'], ['bowl', '']),
    ([('bowl', 'a')], [], [], ['bowl']), ([], [], [], []),
])
def test_labels_are_places_among_the_classes(named, labels, names, no_class):
    sample = answered(*named)
    found = sample.pred_instances
    assert found.labels.tolist() == labels and found.names == names and len(found) == len(labels)
    assert sample.pred_no_class == no_class
    assert found.masks.shape == (len(labels), 100, 100) and found.bboxes.shape == (len(labels), 4)
    assert [one.name for one in sample.pred_answer.instances] == [name for name, _ in named]


def test_without_classes_nothing_is_left_out():
    found = answered(('bowl', 'a'), ('', 'b'), classes=None).pred_instances
    assert found.labels.tolist() == [0, 0] and found.names == ['bowl', '']


def test_a_class_is_found_whatever_its_capitals():
    assert class_of(' Dining  TABLE ', ['cup', 'dining table']) == 1
    assert class_of('', ['cup']) is None and class_of('cups', ['cup']) is None


def test_a_second_look_passes_over_names_and_says_so():
    look = SecondLook(lists=True)
    assert look.doubts(Task('image', 'objects')) == (NAMES_UNSEEN, )
    assert look.doubts(Task('text', 'masks')) == ()
    assert not list(look.asks(answered(('cup', 'a'))))


# --- metrics -------------------------------------------------------------------------------------
def truth_of(sample, *named):
    masks = [PolygonCodec().decode(SQUARES[at], (100, 100)).mask for _, at in named]
    stacked = np.array(masks, np.uint8).reshape(-1, 100, 100)
    sample.set_metainfo(dict(
        gt_masks=BitmapMasks(stacked, 100, 100), names=[name for name, _ in named],
        instances=[dict(bbox_label=('cup', 'plate').index(name), ignore_flag=0)
                   for name, _ in named]))
    return sample


@pytest.mark.parametrize('true, predicted, expected', [
    ([('cup', 'a'), ('plate', 'b')], [('cup', 'a'), ('plate', 'b')], dict(
        count_exact=100, PQ=100, SQ=100, mIoU=100, PQ_classes=100, name_acc=100, no_class=0)),
    # both found, the names the wrong way round
    ([('cup', 'a'), ('plate', 'b')], [('plate', 'a'), ('cup', 'b')], dict(
        count_exact=100, PQ=0, mIoU=0, PQ_classes=0, name_acc=0, no_class=0)),
    # one right; one of no class, which counts as an invention
    ([('cup', 'a'), ('plate', 'b')], [('cup', 'a'), ('bowl', 'b')], dict(
        count_exact=100, PQ=50, RQ=50, SQ=100, mIoU=50, PQ_classes=50, no_class=50)),
    # cups: 1 of 1; plates: 1 of 2, of which the other was called a cup
    ([('cup', 'a'), ('plate', 'b'), ('plate', 'c')],
     [('cup', 'a'), ('plate', 'b'), ('cup', 'c')], dict(
        PQ=100 * 2 / 3, mIoU=100 * 2 / 3, PQ_classes=100 * 2 / 3, name_acc=100 * 2 / 3)),
    ([], [], {'count_exact': 100, 'mIoU': 100, 'N-acc': 100}),
    ([], [('bowl', 'a')], {'count_exact': 0, 'mIoU': 0, 'N-acc': 0, 'no_class': 100}),
    ([('cup', 'a')], [], dict(count_exact=0, mIoU=0, PQ=0)),
])
def test_by_hand(true, predicted, expected):
    sample = truth_of(answered(*predicted), *true)
    figures = {name.removeprefix('inst/'): value
               for name, value in run(InstanceMetric(), [sample]).items()}
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    reward = PolygonReward(dict(instance_iou=1.0))(
        [sample.pred_text], [sample.gt_masks.masks], samples=[sample.metainfo])
    assert 100 * reward.total[0] == pytest.approx(figures['mIoU'])


@pytest.mark.parametrize('text', [
    '', 'no', '[', '[["cup"', '[["cup",[[[[', '[["cup",[[1,2,3]]]]', '[["", []]]', '{"cup": 3}',
    '[[[[0,0],[999,0],[999,999]]]]', '["' * 4000, '[[' + '"x",' * 3000])
def test_no_text_raises(text):
    sample = truth_of(answered(text=text), ('cup', 'a'))
    figures = run(InstanceMetric(), [sample])
    assert figures['inst/mIoU'] == 0
    assert PolygonReward(dict(instance_iou=1.0, format=1.0))(
        [text], [sample.gt_masks.masks], samples=[sample.metainfo]).total[0] == 0


def test_a_reward_needs_the_names():
    with pytest.raises(RuntimeError, match='1 objects have 0 names; a sample of image2objects'):
        PolygonReward(dict(instance_iou=1.0))(['[]'], [np.ones((1, 4, 4), bool)],
                                              samples=[dict(task='image2objects')])


@pytest.mark.parametrize('spoil', [False, True])
def test_average_precision_of_an_oracle_is_that_of_pycocotools(photos, spoil, tmp_path):  # noqa: F811
    """mmdet.CocoMetric on one query a picture, against COCOeval on the file itself with the same
    decoded masks: all categories, crowds as COCO has them."""
    root, content = photos
    dataset = pictures(root, dict(OBJECTS, codec=dict(grammar='int1000', tokens=150)))
    ids = {one['name']: one['id'] for one in content['categories']}
    samples, found = [], []
    for number in range(len(dataset)):
        sample = dataset[number]['data_samples']
        objects = json.loads(sample.answer)
        if spoil:
            objects = objects[number % 3 == 1:] + objects[:number % 4 == 2]
            objects = [[name if (number + k) % 6 else 'person', mask]
                       for k, (name, mask) in enumerate(objects)] + [['no class', [[[1, 2]]]]]
        text = json.dumps(objects, separators=(',', ':'))
        attach_answer(sample, read_answer(sample, text))
        samples.append(sample)
        found += predicted_rows(sample, [ids[name] for name in sample.pred_instances.names])
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        evaluator = Evaluator([METRICS.build(dict(type='mmdet.CocoMetric', metric='segm')),
                               InstanceMetric()])
        evaluator.dataset_meta = dataset.metainfo
        evaluator.process(samples)
        figures = evaluator.evaluate(len(samples))
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    truth = COCO(str(tmp_path / 'truth.json'))
    evaluation = COCOeval(truth, truth.loadRes(found), 'segm')
    evaluation.params.maxDets = [100, 300, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]
    wanted = precision[precision > -1].mean()
    assert figures['coco/segm_mAP'] == pytest.approx(wanted, abs=6e-4)
    if spoil:
        assert 0.3 < wanted < 0.95 and figures['inst/no_class'] > 0
    else:
        assert figures['inst/count_exact'] == figures['inst/name_acc'] == 100 and wanted > 0.85
