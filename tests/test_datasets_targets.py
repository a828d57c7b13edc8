"""gRefCOCO, ReasonSeg and COCO files, malformed ones first; eval images kept out of training."""
import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_datasets_refcoco import build, make_set

from simpleseg_mm.datasets import (CocoQueryDataset, ReasonSegDataset, leakage, native,
                                   pictures)
from simpleseg_mm.evaluation import RESMetric
from simpleseg_mm.polygon import parse_answer, segmentation_to_mask

GREF = [dict(name='grefcoco', split='train')]

# gRefCOCO


def grefcoco(root: Path, edit=None) -> Path:
    """gRefCOCO's files: lists of ids in ``grefs(unc).json``, and both forms of ``file_name``."""
    def lists(refs, images, annotations):
        for ref in refs:
            ref.update(ann_id=[ref['ann_id']], category_id=[1])
        refs[0].update(ann_id=[1000, 1001], category_id=[1, 1],
                       file_name='COCO_train2014_000000000100.jpg')
        refs[1].update(ann_id=[-1], category_id=[-1])
        if edit:
            edit(refs, images, annotations)
    make_set(root, 'grefcoco', suffix='json', edit=lists)
    path = root / 'grefcoco' / 'refs(unc).json'
    path.rename(path.with_name('grefs(unc).json'))
    return root


def ann_id(value):
    return lambda refs, images, annotations: refs[0].update(ann_id=value)


@pytest.mark.parametrize('edit, message', [
    (lambda refs, images, annotations: refs[0].pop('ann_id'), r"record 0: no 'ann_id', only \["),
    (ann_id([]), r'record 0 \(ref_id 0\): ann_id is an empty list; .*\[-1\] where nothing'),
    (ann_id([1000, -1]), r'ann_id is \[1000, -1\]; -1 \(nothing is meant\) stands alone'),
    (ann_id([1000, 1000]), r'ann_id is \[1000, 1000\]; every target once'),
    (ann_id([[1000]]), r'ann_id is \[\[1000\]\]; a list of ids'),
    (ann_id(None), 'ann_id is None; an id'),
    (ann_id([1000, 7]), r'ref_id 0: ann_id 7 is not in .*instances.json'),
    (ann_id([1000, 1010]), 'annotation 1010 is of image 101, not 100'),
    (lambda refs, images, annotations: images.pop(0), 'image_id 100 is not in .*instances.json'),
    (lambda refs, images, annotations: refs.clear(), r"no split 'train'; it has \[\]"),
])
def test_malformed_grefcoco(tmp_path, edit, message):
    with pytest.raises(ValueError, match=message) as error:
        build(grefcoco(tmp_path, edit), GREF)
    assert 'grefs(unc).json' in str(error.value) and '\n' not in str(error.value)


def test_missing_or_broken_grefcoco_files(tmp_path):
    root = grefcoco(tmp_path)
    path = root / 'grefcoco' / 'grefs(unc).json'
    path.write_text(path.read_text()[:-5])
    with pytest.raises(ValueError, match=r'grefs\(unc\).json is not readable JSON'):
        build(root, GREF)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'no references .*grefs\(unc\).json'):
        build(root, GREF)


def test_grefcoco(tmp_path):
    dataset = build(grefcoco(tmp_path), GREF, test_mode=True,
                    query=dict(codec=dict(grammar='int1000', tokens=None)))
    assert len(dataset) == 8  # 4 references, 2 sentences each
    both, none, one = (dataset[i]['data_samples'] for i in (0, 2, 4))
    # 10 x 10 squares at (2, 5) and (16, 5) of 30 x 20 pixels
    assert both.gt_masks.masks.sum() == 200 and both.ann_id == [1000, 1001]
    assert len(both.instances) == len(parse_answer(both.answer).rings) == 2
    assert (none.answer, none.instances, none.gt_masks.masks.sum()) == ('[]', [], 0)
    assert one.gt_masks.masks.sum() == 100 and one.img_path.endswith('000000000101.jpg')
    boxes = build(tmp_path, GREF, test_mode=True, query=dict(tasks=dict(box2mask=1)))
    asked = [boxes[i]['data_samples'].prompt for i in (0, 2)]
    assert '[67,250,867,750]' in asked[0]  # 2/30, 5/20, 26/30, 15/20: round all objects
    assert 'grefcoco 100 1 0' in asked[1]  # an absent one has no box to start from


# ReasonSeg


def reason_record(**change) -> dict:
    return dict(text=['what can one eat?', 'the food'], is_sentence=True, shapes=[
        dict(label='target', points=[[5, 5], [24, 5], [24, 14], [5, 14]]),
        dict(label='target', points=[[30, 5], [33, 5], [33, 8], [30, 8]]),
        dict(label='ignore', points=[[10, 8], [12, 8], [12, 10], [10, 10]]),
        dict(label='flag', points=[[0, 0], [39, 0], [39, 29], [0, 29]])]) | change


def reasonseg(root: Path, record=None, name='a', split='val', encoding='utf-8') -> Path:
    folder = root / split
    folder.mkdir(exist_ok=True)
    Image.new('RGB', (40, 30)).save(folder / f'{name}.jpg')
    text = record if isinstance(record, str) else json.dumps(record or reason_record(),
                                                             ensure_ascii=False)
    (folder / f'{name}.json').write_bytes(text.encode(encoding))
    return root


def load_reasonseg(root, split='val', **kwargs):
    kwargs.setdefault('test_mode', True)
    return ReasonSegDataset(str(root), split, serialize_data=False, **kwargs)


@pytest.mark.parametrize('record, message', [
    ('{"text": [', 'val/a.json is not readable JSON'),
    ('[1]', 'must hold an object, it holds list'),
    (reason_record(text=[]), "'text' must be a list of at least one text, got \\[\\]"),
    (reason_record(text='food'), "'text' must be a list of at least one text"),
    (reason_record(is_sentence='no'), "'is_sentence' must be true or false, got 'no'"),
    (reason_record(shapes=None), "'shapes' must be a list, got None"),
    (reason_record(shapes=[dict(label='target')]), "shape 0: it needs 'label' .* and 'points'"),
    (reason_record(shapes=[dict(points=[[1, 2]])]), "shape 0: it needs 'label'"),
    (reason_record(shapes=[dict(label='target', points=[[1, 2, 3]])]), "shape 0: it needs"),
    (reason_record(shapes=[dict(label='target', points=[])]), 'shape 0: no points'),
    (reason_record(shapes=[dict(label='target', points=[[1e9, 0]])]), 'not in an image'),
    (reason_record(shapes=[dict(label='ignore', points=[[1, 2], [9, 2], [9, 9]])]),
     'no pixel is of the target'),
    (reason_record(shapes=[]), 'no pixel is of the target'),
])
def test_malformed_reasonseg(tmp_path, record, message):
    root = reasonseg(tmp_path, record)
    with pytest.raises(ValueError, match=message) as error:
        len(load_reasonseg(root))
    assert 'a.json' in str(error.value)
    reasonseg(root, name='b')
    dataset = load_reasonseg(root, bad_samples='skip')
    assert len(dataset) == 1 and dict(dataset.skipped) == {'bad record': 1}


def test_reasonseg_files_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder .*val; unpack'):
        load_reasonseg(tmp_path)
    (tmp_path / 'val').mkdir()
    with pytest.raises(FileNotFoundError, match='val holds no pictures and .json'):
        load_reasonseg(tmp_path)
    reasonseg(tmp_path)
    (tmp_path / 'val' / 'a.json').unlink()
    with pytest.raises(ValueError, match='there is no .*a.json'):
        load_reasonseg(tmp_path)
    reasonseg(tmp_path)
    (tmp_path / 'val' / 'a.jpg').unlink()
    with pytest.raises(ValueError, match='there is no image .*a.jpg'):
        load_reasonseg(tmp_path)
    (tmp_path / 'val' / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match='cannot read .*a.jpg'):
        load_reasonseg(tmp_path)


@pytest.mark.parametrize('picture, source', [
    ('a.png', 'a.json'), ('a.JPG', 'a.json'), ('a.jpeg', 'a.JSON'), ('a.tiff', 'a.json'),
    ('more/a.webp', 'a.json'), ('cafe\u0301.png', 'caf\xe9.json')])
def test_reasonseg_pictures_of_any_suffix(tmp_path, picture, source):
    folder = tmp_path / 'val'
    (folder / 'more').mkdir(parents=True)
    Image.new('RGB', (40, 30), (9, 9, 9)).save(folder / picture)
    (folder / source).write_text(json.dumps(reason_record()))
    (folder / '._a.jpg').write_bytes(b'of a Mac')
    dataset = load_reasonseg(tmp_path)
    sample = dataset[0]['data_samples']
    assert len(dataset) == 1 and sample.img_path == str(folder / picture)
    assert sample.gt_masks.masks.sum() == 200 + 16 - 9  # what is ignored stands out of the target
    with pytest.raises(ValueError, match="no sample is left .*{'listed in skip_images': 1}"):
        load_reasonseg(tmp_path, skip_images=[picture])


def test_reasonseg_names_of_several_files(tmp_path):
    reasonseg(tmp_path)
    reasonseg(tmp_path, name='b')
    Image.new('RGB', (40, 30)).save(tmp_path / 'val/a.png')
    with pytest.raises(ValueError, match='val/a: 2 pictures of this name: a.jpg, a.png'):
        len(load_reasonseg(tmp_path))
    (tmp_path / 'val/b.JSON').write_text('{}')
    with pytest.raises(ValueError, match="no sample is left of .* {'bad record': 2}"):
        len(load_reasonseg(tmp_path, bad_samples='skip'))


def test_a_blank_text_of_reasonseg_is_left_out_and_counted(tmp_path):
    reasonseg(tmp_path, reason_record(text=[' ', 'the food']))
    reasonseg(tmp_path, name='b')
    training = load_reasonseg(tmp_path, test_mode=False)
    assert [training.get_data_info(k)['text'] for k in range(3)] == [
        'the food', 'what can one eat?', 'the food']
    assert (len(training), training.read) == (3, 4)
    asked = load_reasonseg(tmp_path)  # the first text of each image
    assert (len(asked), asked.read, dict(asked.skipped)) == (1, 2, {'blank sentence': 1})


def test_reasonseg(tmp_path):
    reasonseg(tmp_path)
    reasonseg(tmp_path, reason_record(text=['café “x”'], is_sentence=False), 'b',
              encoding='cp1252')
    reasonseg(tmp_path, split='train')
    dataset = load_reasonseg(tmp_path, ['val', 'train'])
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert [(s.image_id, s.split, s.text) for s in samples] == [
        ('a', 'val_long', 'what can one eat?'), ('b', 'val_short', 'café “x”'),
        ('a', 'train_long', 'what can one eat?')]
    assert samples[0].prompt == 'what can one eat? Output the polygon coordinates in the image.'
    assert samples[1].prompt == 'Output the polygon coordinates of café “x” in the image.'
    # 20 x 10 and 4 x 4 pixels with their outlines; 3 x 3 ignored; the flag is nothing
    assert samples[0].gt_masks.masks.sum() == 200 + 16 - 9
    assert samples[0].gt_ignore.masks.sum() == 9
    assert samples[0].gt_ignore.masks[0, 8:11, 10:13].all()
    training = load_reasonseg(tmp_path, 'train', test_mode=False)
    assert [training.get_data_info(i)['text'] for i in range(len(training))] == [
        'what can one eat?', 'the food']


def test_reasonseg_masks_are_painted_large_to_small_whatever_their_order(tmp_path):
    shapes = [dict(label='target', points=[[8, 8], [12, 8], [12, 12], [8, 12]]),
              dict(label='Ignore', points=[[2, 2], [20.9, 2], [20.9, 20], [2, 20]]),
              dict(label='target', points=[[0, 0], [30, 0], [30, 28], [0, 28]])]
    expected = np.zeros((30, 40), np.uint8)
    for shape, value in ((shapes[2], 1), (shapes[1], 255), (shapes[0], 1)):
        corners = np.array([shape['points']]).astype(np.int32)
        cv2.polylines(expected, corners, True, value, 1)
        cv2.fillPoly(expected, corners, value)
    reasonseg(tmp_path, reason_record(shapes=shapes))
    sample = load_reasonseg(tmp_path)[0]['data_samples']
    assert np.array_equal(sample.gt_masks.masks[0] == 1, expected == 1)
    assert np.array_equal(sample.gt_ignore.masks[0] == 1, expected == 255)


def test_a_reasonseg_answer_with_what_is_ignored_is_perfect(tmp_path):
    sample = load_reasonseg(reasonseg(tmp_path))[0]['data_samples'].to_dict()
    mask = sample['gt_masks'].masks | sample['gt_ignore'].masks
    sample['pred_instances'] = dict(masks=mask > 0)
    metric = RESMetric(protocol='lisa', boundary=False, per_set=True)
    metric.process(None, [sample])
    figures = metric.compute_metrics(metric.results)
    assert figures['cIoU'] == figures['reasonseg_val_long/gIoU'] == 100


# COCO


def coco(root: Path, edit=None) -> Path:
    """Two images: two cats (one a crowd) and a dog; nothing. A third category is nowhere."""
    (root / 'images').mkdir(exist_ok=True)
    for number in (1, 2):
        Image.new('RGB', (30, 20)).save(root / 'images' / f'{number}.jpg')

    def box(number, category, x, **more):
        return dict(id=number, image_id=1, category_id=category, bbox=[x, 5, 6, 10], area=60,
                    iscrowd=0, segmentation=[[x, 5, x + 6, 5, x + 6, 15, x, 15]]) | more

    content = dict(
        images=[dict(id=k, file_name=f'{k}.jpg', height=20, width=30) for k in (1, 2)],
        annotations=[box(7, 1, 1, phrase='left cat'), box(8, 1, 10, iscrowd=1),
                     box(9, 2, 20, phrase=['left cat', 'a dog'])],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog'), dict(id=3, name='bus')])
    if edit:
        edit(content)
    (root / 'instances.json').write_text(json.dumps(content))
    return root


PROMPTS = dict(tasks=dict(point2mask=1, box2mask=1))


def load_coco(root, **kwargs):
    kwargs.setdefault('query', PROMPTS if kwargs.get('targets', 'object') == 'object' else {})
    return CocoQueryDataset(str(root), 'instances.json', 'images', test_mode=True,
                            serialize_data=False, **kwargs)


def annotation(**change):
    return lambda content: content['annotations'][0].update(change)


@pytest.mark.parametrize('edit, kwargs, message', [
    (None, dict(targets='objects'), "targets must be one of .*, got 'objects'"),
    (None, dict(absent=1), "absent=1 with targets='object'"),
    (None, dict(targets='category', absent=-1), 'absent=-1'),
    (None, dict(query={}), r"targets='object' with the tasks \['text2mask'\]: a category does"),
    (lambda content: content.pop('categories'), {}, 'categories is None; a list of records'),
    (annotation(category_id=5), {}, 'annotation 7: it has the unknown category_id 5'),
    (annotation(image_id=5), {}, 'annotation 7: it is of the unknown image 5'),
    (annotation(id=8), {}, 'annotation 8: its id is used twice, in row 0 and in row 1'),
    (annotation(segmentation=[[1, 2]]), {}, 'annotation 7: degenerate polygon of 2'),
    (annotation(segmentation=[[1, 1, 1.2, 1, 1.2, 1.2]], area=0.02), {}, '7: the mask is empty'),
    (annotation(phrase=3), dict(targets='phrase'), 'annotation 7: phrase must be a text or a li'),
    (lambda content: content['images'][0].update(absent_phrases=['a dog']),
     dict(targets='phrase'), "absent_phrases names 'a dog', which annotations of the image"),
    (lambda content: content['images'][0].update(absent_phrases=3), dict(targets='phrase'),
     'image 1: absent_phrases must be'),
])
def test_malformed_coco(tmp_path, edit, kwargs, message):
    with pytest.raises(ValueError, match=message):
        len(load_coco(coco(tmp_path, edit), **kwargs))


def test_missing_coco_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no .*instances.json; name the annotations in'):
        load_coco(tmp_path)
    (coco(tmp_path) / 'images' / '1.jpg').unlink()
    with pytest.raises(ValueError, match='there is no image .*1.jpg'):
        load_coco(tmp_path)


def test_coco_objects_by_point_and_box(tmp_path):
    dataset = load_coco(coco(tmp_path))
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert [s.ann_id for s in samples] == [[7], [9]]
    assert dict(dataset.skipped) == {'crowd, which is no object': 1} and dataset.read == 3
    assert {s.task for s in samples} <= set(PROMPTS['tasks'])
    assert [s.gt_masks.masks.sum() for s in samples] == [60, 60]
    assert samples[0].instances[0]['area'] == 60
    box = load_coco(tmp_path, query=dict(tasks=dict(box2mask=1)))[0]['data_samples']
    assert '[33,250,233,750]' in box.prompt  # 1/30, 5/20, 7/30, 15/20


def test_coco_categories_several_and_absent(tmp_path):
    dataset = load_coco(coco(tmp_path), targets='category', absent=2)
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert [(s.image_id, s.text, s.ann_id) for s in samples[:3]] == [
        (1, 'cat', [7, 8]), (1, 'dog', [9]), (1, 'bus', [-1])]
    assert samples[0].gt_masks.masks.sum() == 120 and samples[2].answer == '[]'
    assert len(samples) == 5 and {s.image_id for s in samples[3:]} == {2}
    assert len({s.text for s in samples[3:]}) == 2
    assert len({(s.ref_id, s.sent_id) for s in samples}) == len({s.img_id for s in samples}) == 5
    again, other = (load_coco(tmp_path, targets='category', absent=1, seed=seed)
                    for seed in (0, 0))
    assert [again.get_data_info(i) for i in range(len(again))] == [
        other.get_data_info(i) for i in range(len(other))]


def test_coco_phrases(tmp_path):
    dataset = load_coco(coco(tmp_path, lambda content: content['images'][1].update(
        absent_phrases=['a bird'])), targets='phrase')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(info['image_id'], info['text'], info['ann_id']) for info in infos] == [
        (1, 'left cat', [7, 9]), (1, 'a dog', [9]), (2, 'a bird', [-1])]


def test_real_coco(real_data):
    path = real_data / 'coco_photos' / 'instances.json'
    content = json.loads(path.read_text())
    plain = [a for a in content['annotations'] if not a['iscrowd']]

    def load(**kwargs):
        return CocoQueryDataset(str(real_data / 'coco_photos'), 'instances.json', 'images',
                                test_mode=True, serialize_data=False, **kwargs)

    dataset = load(query=PROMPTS, bad_samples='skip')
    assert len(dataset) + dataset.skipped.total() == dataset.read == len(content['annotations'])
    assert dataset.skipped['crowd, which is no object'] == len(content['annotations']) - len(plain)
    groups = {(a['image_id'], a['category_id']) for a in content['annotations']}
    dataset = load(targets='category', absent=3, bad_samples='skip')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    absent = [info for info in infos if info['ann_id'] == [-1]]
    assert len(absent) == 3 * len(content['images'])
    assert len(infos) - len(absent) + dataset.skipped.total() == len(groups)
    names = {c['id']: c['name'] for c in content['categories']}
    there = {(image_id, names[category]) for image_id, category in groups}
    assert not {(info['image_id'], info['text']) for info in absent} & there
    crowd = max(infos, key=lambda info: len(info['instances']))
    union = np.any([segmentation_to_mask(i['mask'], crowd['height'], crowd['width'])
                    for i in crowd['instances']], axis=0)
    sample = dataset[crowd['img_id']]['data_samples']
    assert np.array_equal(sample.gt_masks.masks[0] > 0, union)


# Images of eval splits


@pytest.mark.parametrize('name, content, message', [
    ('a.json', b'[', 'a.json is not readable JSON'),
    ('a.json', b'{"img_id": 3}', 'must be a list of objects with img_id'),
    ('a.json', b'[]', 'lists no image'),
    ('a.json', b'[{"image": 1}]', 'None is no COCO image name'),
    ('a.txt', b'', 'lists no image'),
    ('a.txt', b'COCO_train2014_000000000009\n12.jpg', "'12.jpg' is no COCO image name"),
    ('a.txt', b'\xff\xfe', 'lists no image'), ('a.txt', b'\xff\xfea', 'is no list of image'),
    ('a.txt.gz', b'COCO', 'is no list of image names'),
    ('a.txt.gz', gzip.compress(b'COCO_train2014_000000000009', mtime=0)[:-9],
     'is no list of image names'),
])
def test_malformed_lists_of_images(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        native.listed_images(tmp_path)


def test_lists_of_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder .*none with lists of images'):
        native.listed_images(tmp_path / 'none')
    (tmp_path / 'LICENSE.md').touch()
    with pytest.raises(FileNotFoundError, match='holds no lists of images'):
        native.listed_images(tmp_path)
    (tmp_path / 'a.json').write_text(
        '[{"img_id": "COCO_train2014_000000000009_4"}, {"file_name": "COCO_val2014_000000000010'
        '.jpg"}]')
    (tmp_path / 'b.txt').write_text('COCO_train2014_000000000011.jpg\n')
    (tmp_path / 'c.txt.gz').write_bytes(gzip.compress(b'COCO_train2014_000000000012_1'))
    assert native.listed_images(tmp_path) == {9, 10, 11, 12}


def test_listed_images_are_kept_out_of_training_alone(tmp_path):
    make_set(tmp_path)  # train are images 100 and 101, val 102
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists' / 'val.txt').write_text(
        'COCO_train2014_000000000101\nCOCO_train2014_000000000102\n')
    sources = [dict(name='refcoco', split=['train', 'val'])]
    dataset = build(tmp_path, sources, exclude_eval_images=str(tmp_path / 'lists'))
    assert [dataset.get_data_info(i)['image_id'] for i in range(len(dataset))] == (
        [100] * 4 + [102] * 4)
    root = coco(tmp_path)
    (tmp_path / 'lists' / 'val.txt').write_text('COCO_train2014_000000000001\n')
    for name, left in (('coco', {2}), ('other', {1, 2})):
        dataset = load_coco(root, targets='category', absent=1, split='train', name=name,
                            exclude_eval_images=str(tmp_path / 'lists'))
        assert {dataset.get_data_info(i)['image_id'] for i in range(len(dataset))} == left


def test_published_leakage_through_the_option(real_data, tmp_path, monkeypatch):
    """Of 28,158 train images of unc, unc+ and umd 3,751 are eval images; 24,407 remain."""
    lists = real_data / 'refexp' / 'train_imagelists'
    (tmp_path / 'train2014').mkdir()
    sources = []
    for name, split_by, kind in (('refcoco', 'unc', 'unc'), ('refcoco+', 'unc', 'unc+'),
                                 ('refcocog', 'umd', 'gref_umd')):
        names = gzip.open(lists / f'{kind}_train_images.txt.gz', 'rt').read().split()
        ids = sorted({int(n.split('_')[2].split('.')[0]) for n in names})
        refs = [dict(ref_id=k, ann_id=[-1], image_id=k, split='train',
                     sentences=[dict(sent_id=k, sent='a')]) for k in ids]
        images = [dict(id=k, file_name=f'{k}.jpg', height=9, width=9) for k in ids]
        (tmp_path / name).mkdir()
        (tmp_path / name / f'refs({split_by}).json').write_text(json.dumps(refs))
        (tmp_path / name / 'instances.json').write_text(
            json.dumps(dict(images=images, annotations=[])))
        sources.append(dict(name=name, split_by=split_by, split='train'))
    monkeypatch.setattr(pictures, 'file_fault', lambda path: None)
    messages = []
    monkeypatch.setattr(leakage, 'print_log', lambda text, **kwargs: messages.append(text))
    dataset = build(tmp_path, sources,
                    exclude_eval_images=str(real_data / 'refexp' / 'minigpt4_eval'))
    assert len({dataset.get_data_info(i)['image_id'] for i in range(len(dataset))}) == 24407
    assert messages[0].endswith('lists 6549 COCO images')
    assert messages[-1] == ('coco, all train sets: 3751 of 28158 images removed, 24407 remain')
