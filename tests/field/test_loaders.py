"""What the loaders decide for a user: half truths, names of pictures, lists, texts, formats."""
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.datasets import (AnnotatedShardsDataset, CocoQueryDataset,
                                   QuestionAnsweringDataset, ReasonSegDataset, RefCOCODataset,
                                   native, pictures)

H, W = 20, 30
QUERY = dict(codec=dict(grammar='int1000', tokens=None))


def square(x: int) -> list[int]:
    return [x, 5, x + 6, 5, x + 6, 15, x, 15]  # 60 pixels


def tables(names=('0.png', '1.png')) -> dict:
    """Two images with two cats and a dog each."""
    return dict(
        images=[dict(id=k, file_name=name, height=H, width=W) for k, name in enumerate(names)],
        annotations=[dict(id=10 * k + n, image_id=k, category_id=1 + n // 2, iscrowd=0, area=60,
                          bbox=[1 + 8 * n, 5, 6, 10], segmentation=[square(1 + 8 * n)],
                          phrase=['animal', f'number {n}'])
                     for k in range(len(names)) for n in range(3)],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog'), dict(id=3, name='bus')])


def write(root: Path, content: dict, pictures=None) -> Path:
    (root / 'mine').mkdir(exist_ok=True)
    (root / 'images').mkdir(exist_ok=True)
    for image in content['images'] if pictures is None else pictures:
        path = root / 'images' / (image['file_name'] if pictures is None else image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (W, H)).save(path)
    (root / 'mine/instances.json').write_text(json.dumps(content))
    (root / 'mine/refs.json').write_text(json.dumps([
        dict(ref_id=k, ann_id=one['id'], image_id=one['image_id'], split='train',
             sentences=[dict(sent_id=k, sent='it')])
        for k, one in enumerate(content['annotations'])]))
    return root


def queries(root: Path, targets='category', absent=1, **options) -> CocoQueryDataset:
    return CocoQueryDataset(
        str(root), 'mine/instances.json', 'images', targets=targets,
        absent=absent if targets == 'category' else 0, serialize_data=False,
        query=QUERY | dict(tasks=dict(box2mask=1) if targets == 'object' else dict(text2mask=1)),
        **options)


def references(root: Path, **options) -> RefCOCODataset:
    return RefCOCODataset(str(root), [dict(name='mine', split='train', img_dir='images')],
                          query=QUERY, serialize_data=False, **options)


def truth(dataset) -> dict:
    samples = [dataset[k]['data_samples'] for k in range(len(dataset))]
    return {(s.image_id, s.text): int(s.gt_masks.masks.sum()) for s in samples}


def annotation(**change):
    return lambda content: content['annotations'][0].update(change)


ALL = {(0, 'cat'): 120, (0, 'dog'): 60, (1, 'cat'): 120, (1, 'dog'): 60, (0, 'bus'): 0,
       (1, 'bus'): 0}
NO_CAT = {key: area for key, area in ALL.items() if key != (0, 'cat')}
NO_IMAGE = {key: area for key, area in ALL.items() if key[0] == 1}


def twice(content):
    content['annotations'][0]['id'] = 1  # that of the other cat


def twice_elsewhere(content):
    content['annotations'][3]['id'] = 0  # a cat of each image has one id


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('edit, left', [
    (lambda content: None, ALL),
    (annotation(segmentation=[]), NO_CAT), (annotation(segmentation=None), NO_CAT),
    (annotation(segmentation=[[1, 1, 5, 5]]), NO_CAT),
    (annotation(segmentation=[square(1)[:7] + ['x']]), NO_CAT),
    (annotation(bbox=[1, 5, 0, 10]), NO_CAT), (annotation(bbox='x'), NO_CAT),
    (annotation(iscrowd='x'), NO_CAT), (annotation(iscrowd=1), ALL),
    (annotation(bbox=None), ALL),
    # what decoding alone tells, and annotated as large
    (annotation(segmentation=[[1, 1, 1.1, 1, 1.1, 1.1]], area=99), NO_CAT),
    (annotation(segmentation=[[50, 50, 60, 50, 60, 60]], area=99), NO_CAT),
    (annotation(segmentation=dict(size=[H, W], counts='00'), area=99), NO_CAT),
    (annotation(segmentation=dict(size=[H, W], counts=[H * W])), NO_CAT),
    # of which category is not known: no query of the image is whole
    (annotation(category_id=None), NO_IMAGE), (annotation(category_id=9), NO_IMAGE),
    (twice, NO_CAT), (twice_elsewhere, {key: area for key, area in ALL.items()
                                        if key[1] != 'cat'}),
    # of an image that is not in the file: the others are as the file says
    (lambda content: content['annotations'].append(
        dict(content['annotations'][0], id=99, image_id=9)), ALL),
    (lambda content: content['images'].append(dict(content['images'][0], id='0')), NO_IMAGE),
    (lambda content: content['images'].append(dict(content['images'][0], id=7)), NO_IMAGE),
    (lambda content: content['images'][0].update(height='x'), NO_IMAGE),
    (lambda content: content['images'].append(None), ALL),
], ids=range(23))
def test_no_query_with_half_of_its_truth(tmp_path, edit, left, test_mode):
    content = tables()
    edit(content)
    root = write(tmp_path, content, ['0.png', '1.png'])
    dataset = queries(root, bad_samples='skip', test_mode=test_mode)
    assert truth(dataset) == left
    assert len(dataset) + dataset.skipped.total() == dataset.read
    faulty = json.dumps(content) != json.dumps(tables()) and left is not ALL
    if faulty:  # without 'skip' it is an error, when loading or when the query is read
        with pytest.raises(ValueError):
            truth(queries(root, test_mode=test_mode))


@pytest.mark.parametrize('old, new, left', [
    ('dog', 'CAT', {key: area for key, area in ALL.items() if key[1] == 'bus'}),
    ('bus', 'Cat', {key: area for key, area in ALL.items() if key[1] != 'bus'})])
def test_names_in_other_capitals(tmp_path, old, new, left):
    content = tables()
    next(row for row in content['categories'] if row['name'] == old)['name'] = new
    dataset = queries(write(tmp_path, content, ['0.png', '1.png']), bad_samples='skip')
    assert truth(dataset) == left
    assert len(dataset) + dataset.skipped.total() == dataset.read


@pytest.mark.parametrize('change', [dict(image_id=None), dict(image_id=[0])])
def test_an_annotation_that_may_be_of_any_image_is_an_error(tmp_path, change):
    content = tables()
    content['annotations'][0].update(change)
    root = write(tmp_path, content)
    for targets in ('category', 'phrase'):
        with pytest.raises(ValueError, match='annotation 0: .*It may be of any image, so no quer'):
            queries(root, targets, bad_samples='skip')
    dataset = queries(root, 'object', bad_samples='skip')
    assert len(dataset) == 5 and dataset.read == 6


def test_phrases(tmp_path):
    content = tables()
    content['annotations'][0]['phrase'] = None
    content['annotations'][3]['phrase'] = [3]
    content['images'][0]['absent_phrases'] = ['number 1', 'number 9']
    dataset = queries(write(tmp_path, content), 'phrase', bad_samples='skip')
    assert truth(dataset) == {(0, 'animal'): 120, (0, 'number 2'): 60, (0, 'number 9'): 0}
    assert dict(dataset.skipped) == {
        'annotation without a phrase': 1, 'phrase that is no text': 1,
        'phrase that is said to be there and to be absent': 2,
        'query of an image with an annotation that may belong to it': 3}
    assert dataset.read == len(dataset) + dataset.skipped.total()


def test_several_targets_of_which_one_is_empty(tmp_path):
    content = tables()
    content['annotations'][0].update(segmentation=[[1, 1, 1.1, 1, 1.1, 1.1]])
    root = write(tmp_path, content)
    (root / 'mine/refs.json').write_text(json.dumps([dict(
        ref_id=0, ann_id=[0, 1], image_id=0, split='train', sentences=[
            dict(sent_id=0, sent='cats')])]))
    with pytest.raises(ValueError, match='the mask is empty, that of target 0'):
        references(root)[0]
    with pytest.raises(ValueError, match="no sample is left.*'bad annotation': 1"):
        references(root, bad_samples='skip')


# --- names ------------------------------------------------------------------------------------
NFC, NFD = (unicodedata.normalize(form, 'é.png') for form in ('NFC', 'NFD'))


@pytest.mark.parametrize('said, lies', [
    ('0.png', '0.png'), ('a\\0.png', 'a/0.png'), ('C:\\data\\a\\0.png', 'a/0.png'),
    ('/data/other/0.png', '0.png'), ('train/0.png', '0.png'), ('0.png', 'deep/er/0.png'),
    (NFC, NFD), (NFD, NFC), ('a b/0 1.png', 'a b/0 1.png')])
def test_pictures_are_found_where_they_lie(tmp_path, monkeypatch, said, lies):
    said_in_log = []
    monkeypatch.setattr(pictures, 'print_log', lambda text, **more: said_in_log.append(text))
    root = write(tmp_path, tables((said, '1.png')), [lies, '1.png'])
    for dataset in (references(root), queries(root)):
        paths = {dataset.get_data_info(k)['img_path'] for k in range(len(dataset))}
        assert paths == {str(root / 'images' / lies), str(root / 'images/1.png')}
        assert dataset[0]['inputs'].shape == (3, H, W)
    as_written = said.replace('\\', '/') == lies
    told = [text for text in said_in_log if 'do not lie as written' in text]
    if unicodedata.normalize('NFC', said) != unicodedata.normalize('NFC', lies):
        assert len(told) == (0 if as_written else 2)
    (root / 'q.jsonl').write_text(json.dumps(dict(
        image=os.path.join('images', said), question='What?', kind='a', answers=['b'])))
    if not said.startswith(('/', 'C:')):
        assert QuestionAnsweringDataset(str(root), 'q.jsonl')[0]['inputs'].shape == (3, H, W)


def test_a_name_that_is_there_twice_is_none(tmp_path):
    root = write(tmp_path, tables(('x/0.png', '1.png')), ['a/0.png', 'b/0.png', '1.png'])
    with pytest.raises(ValueError, match='there is no image .*x/0.png.*2 files of this name'):
        references(root)
    dataset = references(root, bad_samples='skip')
    assert len(dataset) == 3 and dict(dataset.skipped) == {'image file missing or empty': 3}


def test_a_folder_is_no_picture(tmp_path):
    root = write(tmp_path, tables(('d', '1.png')), ['1.png'])
    (root / 'images/d').mkdir()
    with pytest.raises(ValueError, match='images/d is no file'):
        references(root)


@pytest.mark.parametrize('name, listed', [
    ('0.png', '0.png'), ('IMG 0.png', 'IMG 0.png'), ('a/0.png', 'a/0.png'),
    ('a/0.png', 'a\\0.png'), ('a/0.png', './a/0.png'), ('a/0.png', 'images/a/0.png'),
    ('a/0.png', '{root}/images/a/0.png'), (NFC, NFD), ('a\\0.png', 'a/0.png')])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_lists_of_pictures_to_leave_out(tmp_path, name, listed, encoding):
    root = write(tmp_path, tables((name, '1.png')))
    path = tmp_path / 'bad.txt'
    path.write_bytes(f'\r\n{listed.format(root=root)} \r\n\r\n'.encode(encoding))
    for dataset in (references(root, skip_images=str(path)), queries(root, skip_images=path),
                    references(root, skip_images=[listed.format(root=root)])):
        assert {dataset.get_data_info(k)['image_id'] for k in range(len(dataset))} == {1}
        assert dataset.skipped['listed in skip_images'] == 3
        assert dataset.read == len(dataset) + 3


def test_a_bare_name_means_no_picture_in_a_folder_and_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(pictures, 'print_log', lambda text, **more: told.append(text))
    root = write(tmp_path, tables(('a/0.png', 'b/0.png')))
    assert len(references(root, skip_images=['0.png'])) == 6
    assert any("1 of 1 names in skip_images are of no image" in text for text in told)


def test_a_list_that_is_not_there(tmp_path):
    root = write(tmp_path, tables())
    with pytest.raises(FileNotFoundError, match='skip_images: there is no list .*none.txt'):
        references(root, skip_images=str(tmp_path / 'none.txt'))


# --- texts and formats --------------------------------------------------------------------------
@pytest.mark.parametrize('encode', [
    lambda text: text.encode('utf-8-sig'), lambda text: text.encode('utf-16'),
    lambda text: text.replace('\n', '\r\n').encode(), lambda text: text.encode('cp1252')])
def test_texts_of_any_editor(tmp_path, encode):
    root = write(tmp_path, tables())
    rows = [dict(image='images/0.png', question='Où?', kind='a', answers=['là']),
            dict(image='images/1.png', question='Où?', kind='a', answers=['ici'])]
    (root / 'q.jsonl').write_bytes(encode('\n'.join(
        json.dumps(row, ensure_ascii=False) for row in rows) + '\n'))
    data = QuestionAnsweringDataset(str(root), 'q.jsonl')
    assert [data.get_data_info(k)['answers'] for k in range(2)] == [['là'], ['ici']]
    (root / 'val').mkdir()
    Image.new('RGB', (W, H)).save(root / 'val/a.jpg')
    (root / 'val/a.json').write_bytes(encode(json.dumps(dict(
        text=['où?'], is_sentence=True,
        shapes=[dict(label='target', points=[[1, 1], [9, 1], [9, 9]])]), ensure_ascii=False)))
    assert ReasonSegDataset(str(root), 'val').get_data_info(0)['text'] == 'où?'
    for name in ('instances', 'refs'):
        path = root / f'mine/{name}.json'
        path.write_bytes(encode(path.read_text()))
    assert len(references(root)) == 6


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 30 20
%%EndComments
newpath 0 0 moveto 30 20 lineto stroke
showpage
%%EOF
"""


def test_no_picture_starts_another_program(run, tmp_path, monkeypatch):
    """PostScript under another name: Pillow would hand it to Ghostscript."""
    root = write(tmp_path, tables())
    (root / 'bin').mkdir()
    for name in ('gs', 'gswin32c', 'gswin64c'):
        (root / f'bin/{name}').write_text(f'#!/bin/sh\ntouch {root}/canary\n')
        (root / f'bin/{name}').chmod(0o755)
    monkeypatch.setenv('PATH', f'{root}/bin', prepend=os.pathsep)
    (root / 'val').mkdir()
    for path in (root / 'images/0.png', root / 'val/a.jpg'):
        path.write_bytes(EPS)
    (root / 'val/a.json').write_text('{}')
    (root / 'q.jsonl').write_text(json.dumps(dict(image='images/0.png', question='What?',
                                                  kind='a', answers=['b'])))
    for read in (lambda: references(root)[0], lambda: queries(root)[0],
                 lambda: ReasonSegDataset(str(root), 'val'),
                 lambda: QuestionAnsweringDataset(str(root), 'q.jsonl')):
        with pytest.raises(ValueError, match='cannot read .*is no picture that can be read'):
            read()
    code, report, _ = run('dataset_converters/refcoco.py', 'verify', root, '--sets', 'mine',
                          '--img-dir', 'images', '--bad-images', root / 'bad.txt')
    assert code == 1 and report['faults'] == dict(counts=0, annotations=0, images=1)
    assert (root / 'bad.txt').read_text() == '0.png\n'
    assert not (root / 'canary').exists()


@pytest.mark.parametrize('make, expected', [
    (lambda rgb: Image.fromarray(rgb).convert('CMYK'), None),
    (lambda rgb: Image.fromarray(rgb).convert('P', palette=Image.Palette.ADAPTIVE), None),
    (lambda rgb: Image.fromarray(rgb[..., 0]), None),
    (lambda rgb: Image.fromarray(np.dstack([rgb, np.zeros_like(rgb[..., :1])])), 255),
    (lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * np.uint16(257)), None)])
def test_pictures_of_other_modes(tmp_path, make, expected):
    root = write(tmp_path, tables())
    rgb = np.zeros((H, W, 3), np.uint8)
    rgb[5:15, 1:7] = 255
    image = make(rgb)
    name = '0.jpg' if image.mode == 'CMYK' else '0.png'
    image.save(root / 'images' / name, quality=100)
    content = tables((name, '1.png'))
    (root / 'mine/instances.json').write_text(json.dumps(content))
    found = references(root)[0]['inputs'].numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(found - (rgb if expected is None else expected)).max() <= 12


def test_verify_lists_ids_that_two_records_have(run, tmp_path):
    content = tables()
    content['images'].append(dict(content['images'][1], id='0'))
    content['annotations'].append(dict(content['annotations'][4], id=10.0))
    root = write(tmp_path, content)
    refs = json.loads((root / 'mine/refs.json').read_text())[:-1]
    refs.append(dict(refs[0], image_id=1, ann_id=14))
    (root / 'mine/refs.json').write_text(json.dumps(refs))
    code, report, out = run('dataset_converters/refcoco.py', 'verify', root, '--sets', 'mine',
                            '--img-dir', 'images')
    assert code == 1 and not report['ok']
    for text in ("image 0: its id is used twice, in row 0 ('0.png') and in row 2 ('1.png')",
                 'annotation 10: its id is used twice, in row 3 and in row 6',
                 'ref_id 0: it is used 2 times'):
        assert text in out
    with pytest.raises(ValueError, match='used'):
        references(root)
    with pytest.raises(ValueError, match='image 0: its id is used twice'):
        queries(root)


@pytest.mark.parametrize('index', [
    b'', b'no index', np.zeros((2, 5), int), np.zeros(6, int), np.zeros((2, 6)),
    np.array([{}], object)], ids=range(6))
def test_broken_indices_of_shards(tmp_path, index):
    (tmp_path / 'shards').mkdir()
    path = tmp_path / 'shards/0.npy'
    path.write_bytes(index) if isinstance(index, bytes) else np.save(path, index)
    with pytest.raises(ValueError, match='0.npy is no index of a shard'):
        AnnotatedShardsDataset(str(tmp_path))


@pytest.mark.parametrize('content', [
    b'x', b'[]', b'{"objects": []}', b'{"objects": [{"bbox": [1]}]}',
    b'{"objects": [{"bbox": [1, 2, 3, 4]}]}', b'[' * 5000, b''])
def test_broken_annotations_of_shards(tmp_path, content):
    (tmp_path / 'shards').mkdir()
    np.save(tmp_path / 'shards/0.npy', np.array([[0, 0, 0, max(1, len(content)), 0, 0]]))
    with pytest.raises(FileNotFoundError, match='there is no .*0.tar; its index is there'):
        AnnotatedShardsDataset(str(tmp_path))[0]
    (tmp_path / 'shards/0.tar').write_bytes(content)
    with pytest.raises(ValueError, match='0.tar, byte 0: no annotation as the data engine writes'):
        AnnotatedShardsDataset(str(tmp_path))[0]


def test_files_that_a_mac_adds_are_passed_over(tmp_path):
    (tmp_path / 'val').mkdir()
    Image.new('RGB', (W, H)).save(tmp_path / 'val/a.jpg')
    (tmp_path / 'val/a.json').write_text(json.dumps(dict(
        text=['where?'], is_sentence=True, shapes=[dict(label='target', points=[[1, 1], [9, 1],
                                                                                [9, 9]])])))
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists/a.txt').write_text('COCO_train2014_000000000007_1\n')
    for name in ('val/._a.jpg', 'val/._a.json', 'lists/._a.txt'):
        (tmp_path / name).write_bytes(b'\0\5\26\7Mac OS X')
    dataset = ReasonSegDataset(str(tmp_path), 'val', test_mode=True)
    assert len(dataset) == dataset.read == 1
    assert native.listed_images(tmp_path / 'lists') == {7}
