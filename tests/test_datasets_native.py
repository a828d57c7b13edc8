"""Native files: hostile pickles, broken JSON, segmentations, published sizes, split leakage."""
import gzip
import json
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from simpleseg_mm.datasets import native

REF = dict(ref_id=1, ann_id=2, image_id=3, split='train', sentences=[dict(sent_id=4, sent='cat')])


class Evil:
    def __reduce__(self):
        return os.mkdir, (Evil.path,)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path, protocol):
    Evil.path = str(tmp_path / 'made')
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(pickle.dumps([REF, Evil()], protocol))
    with pytest.raises(ValueError, match=r'refs\(unc\).p is refused: it asks for .*mkdir'):
        native.load_refs(path)
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('content', [
    pickle.dumps([OrderedDict()], 2), pickle.dumps([np.float64(1)], 2), pickle.dumps({1, 2}, 2),
    pickle.dumps(object, 2), pickle.dumps([REF], 2)[:-9], b'', b'\x80\x02.', b'hello',
    b'\xff' * 64, b'\x80\x02X\xff\xff\xff\x7fabc.', b'\x80\x04\x95' + b'\xff' * 8, b'P1\n.',
    b'\x80\x02\x82\x01.', b'\x80\x02' + b'(' * 100000,
    pickle.dumps([(1, 2)], 2), pickle.dumps({('a',): 1}, 2), pickle.dumps(bytearray(b'a'), 5),
    b'\x80\x02]r\xff\xff\xff\x7f.', b'\x80\x02]p99999999999\n.', b'\x80\x02]q',
    b'\x80\x02]p-1\n.',     b'\x80\x02T\xff\xff\xff\xffabc.', b'\x80\x04\x8c\x02\xff\xfe.',
    b'\x80\x02\x8b\xff\xff\xff\x7f1.',
    pickle.dumps({k * (2**61 - 1): k for k in range(10_005)}, 2),
], ids=range(25))
def test_other_pickles_are_refused(tmp_path, content):
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='is refused: '):
        native.load_pickle(path)


def test_values_that_hold_each_other_are_refused_at_once(tmp_path):
    """Of 377 bytes or so: what would be written or walked through without an end."""
    loop = [1]
    loop.append(loop)
    twice = ['a']
    for _ in range(100):
        twice = [twice, twice]
    deep = []
    for _ in range(200):
        deep = [deep]
    sentences = [dict(sent_id=k, sent='a') for k in range(1000)]
    many = [REF | dict(ref_id=k, sentences=sentences) for k in range(1000)]
    shared = [REF | dict(extra=twice)]
    path = tmp_path / 'refs(unc).p'
    for content, message in ((loop, 'nested deeper than'), (twice, 'hold themselves'),
                             (deep, 'nested deeper than'), (many, 'each other many times'),
                             (shared, 'hold themselves'), ([REF, twice], 'hold themselves')):
        path.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(ValueError, match=f'is refused: .*{message}') as error:
            native.load_refs(path)
        assert len(str(error.value)) < 500
    shared = REF | dict(extra=sentences[:3])
    path.write_bytes(pickle.dumps([shared, dict(shared, ref_id=9)], 2))
    assert len(native.load_refs(path)) == 2  # some lists in common are no harm


@pytest.mark.parametrize('protocol', range(5))
def test_plain_pickles_are_read(tmp_path, protocol):
    content = [REF, [1, 2.5, None, True, 2**70, 'été'], dict(a=[-1])]
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(pickle.dumps(content, protocol))
    assert native.load_pickle(path) == content


@pytest.mark.parametrize('raw, text', [(b'caf\xe9', 'café'), ('café'.encode(), 'café')])
def test_python_2_byte_strings(tmp_path, raw, text):
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(b'\x80\x02U' + bytes([len(raw)]) + raw + b'.')
    assert native.load_pickle(path) == text


@pytest.mark.parametrize('content, message', [
    ('[{"ref_id": 1,', 'is not readable JSON'),
    ('{"ref_id": 1}', 'must hold a list of references, it holds dict'),
    ('[3]', 'record 0: expected a dict'),
    (json.dumps([REF, dict(ref_id=1, ann_id=2)]), "record 1: no 'image_id'"),
    (json.dumps([REF | dict(sentences=[dict(sent='a')])]), "needs 'sent' .text. and 'sent_id'"),
    (json.dumps([REF | dict(sentences=['a'])]), "needs 'sent' .text. and 'sent_id'"),
    (json.dumps([REF | dict(sentences=[dict(sent=3, sent_id=1)])]), 'ref_id 1'),
    (json.dumps([REF | dict(sentences=None)]),
     r'record 0 \(ref_id 1\): sentences is None; a list'),
    (json.dumps([REF | dict(split=3)]), r"\(ref_id 1\): split is 3; a text such as 'train'"),
    (json.dumps([REF | dict(ref_id=[1])]), r'record 0: ref_id is \[1\]; an id'),
    (json.dumps([REF | dict(image_id=None)]), 'record 0: image_id is None; an id'),
    (json.dumps([REF | dict(ann_id=1.5)]), 'ann_id is 1.5; an id'),
    (json.dumps([REF | dict(ann_id=[2, '2'])]), r"ann_id is \[2, '2'\]; every target once"),
    (json.dumps([REF, REF | dict(image_id=9)]), 'ref_id 1: it is used 2 times, in records 0, 1'),
    (json.dumps([REF, REF | dict(ref_id='1')]), 'ref_id 1: it is used 2 times, in records 0, 1'),
    (json.dumps([REF | dict(sentences=[dict(sent_id=4, sent='a'), dict(sent_id='4', sent='b')])]),
     r'record 0 \(ref_id 1\): sent_id 4 is used 2 times; every sentence needs its own'),
    ('[' * 100_000, 'nested too deep'), ('[' + '9' * 5000 + ']', 'is not readable JSON'),
])
def test_bad_json_references(tmp_path, content, message):
    path = tmp_path / 'refs.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        native.load_refs(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('content, message', [
    ('[]', 'is no COCO file'), ('{"images": [{"id": 1, "height": 3}]}', 'is no COCO file'),
    ('nope', 'is not readable JSON')])
def test_bad_instances(tmp_path, content, message):
    path = tmp_path / 'instances.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        native.load_instances(path)


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*refcoco. To get it, .*'refer'"):
        native.find_refs(tmp_path, 'refcoco', 'unc')
    with pytest.raises(FileNotFoundError, match='simpleseg convert refshapes '):
        native.find_refs(tmp_path, 'refshapes', 'refshapes')
    (tmp_path / 'refcoco').mkdir()
    (tmp_path / 'refcoco' / 'refs(google).p').touch()
    with pytest.raises(FileNotFoundError, match=r"='unc'.*refs\(unc\).p.*refs\(google\).p"):
        native.find_refs(tmp_path, 'refcoco', 'unc')
    with pytest.raises(FileNotFoundError, match='there is no .*instances.json'):
        native.load_instances(tmp_path / 'refcoco' / 'instances.json')


def test_json_is_preferred_and_google_is_not_unc(tmp_path):
    folder = tmp_path / 'refcoco'
    folder.mkdir()
    for name in ('refs(google).p', 'refs(unc).p', 'refs(unc).json'):
        (folder / name).touch()
        found = native.find_refs(tmp_path, 'refcoco', 'unc') if 'unc' in name else None
        assert found is None or found.name == name
    assert native.find_refs(tmp_path, 'refcoco', 'google').name == 'refs(google).p'


def test_unknown_split_lists_the_known():
    with pytest.raises(ValueError, match=r"no split 'testA'; it has \['train', 'val'\]"):
        native.select_split([REF, REF | dict(split='val')], 'testA', 'refs.json')


def test_ids_of_references_are_read_by_one_rule(tmp_path):
    path = tmp_path / 'refs.json'
    path.write_text(json.dumps([dict(ref_id='1', ann_id=['2', 3.0, 'a_1'], image_id=3.0, split='x',
                                     sentences=[dict(sent_id='4', sent='cat', raw='Cat')])]))
    assert native.load_refs(path) == [dict(
        ref_id=1, ann_id=[2, 3, 'a_1'], image_id=3, split='x',
        sentences=[dict(sent_id=4, sent='cat', raw='Cat')])]


SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.mark.parametrize('segmentation, fault', [
    ([SQUARE], None), ([SQUARE, SQUARE], None),
    (dict(size=[8, 9], counts='abc'), None), ([dict(size=[8, 9], counts=[70, 2])], None),
    (dict(size=[8, 9], counts=[1, 2]), 'RLE of 3 pixels, the image has 72'),
    ([SQUARE[:7] + [2e5]], 'a coordinate of 200000; at most 100000'),
    ([], 'empty or unknown'), (None, 'empty or unknown'), ('abc', 'empty or unknown'),
    ([[]], 'degenerate polygon of 0'), ([SQUARE, [1, 1]], 'degenerate polygon of 2'),
    ([[1, 1, 5, 5]], 'degenerate polygon of 4'), ([SQUARE[:7]], 'degenerate polygon of 7'),
    ([SQUARE[:7] + [float('nan')]], 'no finite'), ([SQUARE[:7] + [float('inf')]], 'no finite'),
    ([SQUARE[:7] + ['x']], 'no finite'), ([SQUARE[:7] + [10**400]], 'no finite'),
    ([3], 'unknown part 3'), (dict(size=[9, 8], counts='abc'), 'RLE size'),
    (dict(counts='abc'), 'RLE size'), (dict(size=[8, 9]), 'RLE without counts'),
])
def test_segmentation_faults(segmentation, fault):
    found = native.segmentation_fault(segmentation, 8, 9)
    assert found is None if fault is None else fault in found


def test_refclef_rle_lists_are_merged():
    a, b = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    a[1:3, 1:4], b[2:5, 3:6] = 1, 1
    rles = [coco_mask.encode(np.asfortranarray(m)) for m in (a, b)]
    rles = [dict(size=rle['size'], counts=rle['counts'].decode()) for rle in rles]
    merged = native.plain_segmentation(rles)
    assert np.array_equal(coco_mask.decode(merged), a | b)
    assert native.plain_segmentation(rles[:1]) == rles[0]
    assert native.plain_segmentation([SQUARE]) == [SQUARE]
    listed = dict(size=[6, 8], counts=[6 * 8 - 2, 2])
    assert coco_mask.decode(native.plain_segmentation([rles[0], listed])).sum() == a.sum() + 2


@pytest.mark.parametrize('ann_id, expected', [
    (5, [5]), ('8756_2', ['8756_2']), ([5, 6], [5, 6]), ([-1], []), (-1, [])])
def test_annotation_ids(ann_id, expected):
    assert native.annotation_ids(dict(ann_id=ann_id)) == expected


def test_eval_sources():
    coco = [('refcoco', 'unc'), ('refcoco+', 'unc'), ('refcocog', 'umd')]
    assert native.eval_sources(['refcocog']) == coco
    assert native.eval_sources(['refcoco', 'refclef']) == [*coco, ('refclef', 'unc')]
    assert native.eval_sources(['refshapes']) == []


def image_number(name: str) -> int:
    return int(name.split('_')[2].split('.')[0])


def test_published_sizes_of_the_eval_splits(real_data):
    """The published sentence and image counts, against lists that others made."""
    checked = 0
    for path in sorted((real_data / 'refexp' / 'minigpt4_eval').glob('*.json')):
        name, split = path.stem.split('_')
        split_by = 'umd' if name == 'refcocog' else 'unc'
        refs, sentences, images = native.PUBLISHED[name, split_by][split]
        rows = json.loads(path.read_text())
        assert len(rows) == sentences, path.name
        assert len({image_number(row['img_id']) for row in rows}) == images, path.name
        checked += 1
    assert checked == 8


def test_published_leakage_between_train_and_eval_images(real_data):
    """3,751 of 6,549 eval images are train images of some set; 24,407 of 28,158 remain."""
    folder = real_data / 'refexp'
    refs = [dict(image_id=image_number(row['img_id']), split=path.stem.split('_')[1])
            for path in (folder / 'minigpt4_eval').glob('*.json')
            for row in json.loads(path.read_text())]
    train: set[int] = set()
    for kind, expected in (('unc', 16994), ('unc+', 16992), ('gref_umd', 21899), ('gref', 24698)):
        path = folder / 'train_imagelists' / f'{kind}_train_images.txt.gz'
        images = {image_number(line) for line in gzip.open(path, 'rt').read().split()}
        assert len(images) == expected
        train |= images if kind != 'gref' else set()
    kept, removed = native.split_leakage(train, native.eval_image_ids(refs))
    assert (len(native.eval_image_ids(refs)), len(train)) == (6549, 28158)
    assert (len(removed), len(kept)) == (3751, 24407)
