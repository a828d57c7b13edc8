"""The one reader of COCO records: odd ones with one meaning are read, others are named."""
import json
import math
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from simpleseg_mm.files import coco, shown
from simpleseg_mm.files.coco import read_coco, read_id, read_number, read_segmentation, read_whole

H, W = 48, 64
SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]  # 600 pixels
OTHER = [45, 5, 60, 5, 60, 20, 45, 20]  # 225 pixels
PAIRS = [[10, 10], [40, 10], [40, 30], [10, 30]]
NAN, INF = float('nan'), float('inf')


def mask_of(*rings):
    rles = coco_mask.frPyObjects(list(map(list, rings)), H, W)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def rle_of(*rings):
    return coco_mask.encode(np.asfortranarray(mask_of(*rings).astype(np.uint8)))


def runs_of(mask):
    flat = np.r_[0, mask.T.ravel(), 0].astype(int)
    change = np.flatnonzero(np.diff(flat))
    return np.diff(np.r_[0, change, H * W]).tolist()


def decoded(segmentation):
    """By pycocotools, as the annotation's own users would."""
    if isinstance(segmentation, dict):
        segmentation = [segmentation]
    if isinstance(segmentation[0], dict):
        rles = [coco_mask.frPyObjects(rle, *rle['size']) if isinstance(rle['counts'], list)
                else rle for rle in segmentation]
        return coco_mask.decode(coco_mask.merge(rles)).astype(bool)
    return mask_of(*segmentation)


def content(**change):
    return dict(
        images=[dict(id=0, file_name='0.png', height=H, width=W),
                dict(id=1, file_name='1.png', height=H, width=W)],
        annotations=[dict(id=7, image_id=0, category_id=1, bbox=[10, 10, 30, 20], area=600,
                          iscrowd=0, segmentation=[SQUARE]),
                     dict(id=8, image_id=1, category_id=1, segmentation=[OTHER])],
        categories=[dict(id=1, name='car')]) | change


def with_annotation(**change):
    tables = content()
    tables['annotations'][0].update(change)
    return read_coco(tables, 'f.json')


BACKSLASHES = np.zeros((H, W), bool)  # whose counts hold backslashes, which str(bytes) doubles
BACKSLASHES[3:47, 1:60:3] = True
BACKSLASH = coco_mask.encode(np.asfortranarray(BACKSLASHES.astype(np.uint8)))


@pytest.mark.parametrize('value, rings', [
    ([SQUARE], [SQUARE]), ([SQUARE, OTHER], [SQUARE, OTHER]), (SQUARE, [SQUARE]),
    ([PAIRS], [SQUARE]), (PAIRS, [SQUARE]), ([PAIRS, OTHER], [SQUARE, OTHER]),
    ([[SQUARE]], [SQUARE]), ([[SQUARE, OTHER]], [SQUARE, OTHER]), ([[[SQUARE]]], [SQUARE]),
    ([[SQUARE], [OTHER]], [SQUARE, OTHER]), ([[PAIRS]], [SQUARE]),
    ([[PAIRS, PAIRS]], [SQUARE]), ([[PAIRS], [OTHER]], [SQUARE, OTHER]),
    ([[PAIRS[0], PAIRS[1], PAIRS[2]]], [SQUARE[:6]]), (PAIRS[:3], [SQUARE[:6]]),
    ([list(map(str, SQUARE))], [SQUARE]), ([[f' {v:.2f} ' for v in SQUARE]], [SQUARE]),
    (list(map(str, SQUARE)), [SQUARE]), ([[[str(x), y] for x, y in PAIRS]], [SQUARE]),
    ([['1e1', '+10', '40.', '10', '4E1', '30', '.1e2', '30']], [SQUARE]),
])
def test_polygons_with_one_meaning(value, rings):
    before = json.dumps(value)
    found, fault = read_segmentation(value)
    assert fault is None and json.dumps(value) == before
    assert np.array_equal(decoded(found), mask_of(*rings))
    assert all(isinstance(part, list) and len(part) >= 6 for part in found)


@pytest.mark.parametrize('make', [
    lambda rle, runs: dict(size=[H, W], counts=runs),
    lambda rle, runs: dict(size=[H, W], counts=list(map(float, runs))),
    lambda rle, runs: dict(size=[H, W], counts=list(map(str, runs))),
    lambda rle, runs: dict(size=[float(H), f'{W}'], counts=runs),
    lambda rle, runs: dict(size=[H, W], counts=rle.decode()),
    lambda rle, runs: dict(size=[H, W], counts=rle),
    lambda rle, runs: dict(size=[H, W], counts=str(rle)),
    lambda rle, runs: [dict(size=[H, W], counts=rle.decode())],
    lambda rle, runs: [dict(size=[H, W], counts=runs), dict(size=[H, W], counts=str(rle))],
], ids=range(9))
@pytest.mark.parametrize('mask', [mask_of(SQUARE), BACKSLASHES], ids=['square', 'backslashes'])
def test_rles_with_one_meaning(make, mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))['counts']
    found, fault = read_segmentation(make(rle, runs_of(mask)))
    assert fault is None and np.array_equal(decoded(found), mask)


def test_the_backslashes_are_there():
    assert b'\\' in BACKSLASH['counts'] and str(BACKSLASH['counts']).count('\\\\') == 1


@pytest.mark.parametrize('value, message', [
    ('abc', "segmentation is 'abc'; polygons"), (3, 'segmentation is 3; polygons'),
    (True, 'segmentation is True'), ([None], 'polygon 0, coordinate 0 is None, no finite number'),
    ([SQUARE, None], 'part 1 is None; a polygon'), ([SQUARE, 3], 'part 1 is 3; a polygon'),
    ([SQUARE, dict(a=1)], "part 1 is {'a': 1}; a polygon"),
    ([SQUARE[:7] + [NAN]], 'polygon 0, coordinate 7 is nan, no finite number'),
    ([SQUARE[:7] + [-INF]], 'coordinate 7 is -inf'), ([SQUARE[:7] + [None]], '7 is None'),
    ([SQUARE[:7] + [True]], '7 is True'), ([SQUARE[:7] + ['x']], "7 is 'x'"),
    ([SQUARE[:7] + ['nan']], "7 is 'nan'"), ([SQUARE[:7] + ['1_0']], "7 is '1_0'"),
    ([SQUARE[:7] + [10**400]], '7 is a number of 1329 bits'), ([SQUARE[:7] + [[1]]], '7 is'),
    ([SQUARE[:7] + ['1' * 400]], "7 is '1111"), (['1,5'] * 6, "coordinate 0 is '1,5'"),
    ([[[1, 2, 3]] * 4], 'coordinate 0 is'), ([[[1, 2], [3, 4], [5]]], 'coordinate 0 is'),
    ([[SQUARE, OTHER], [OTHER]], 'polygon 0, coordinate 0 is'),
    (dict(size=[H, W]), 'RLE counts None; a list of numbers or a text'),
    (dict(size=[H, W], counts=''), 'RLE without counts'),
    (dict(size=[H, W], counts=[]), 'RLE without counts'),
    (dict(size=[H, W], counts=[3, -1]), 'RLE counts from -1 to 3; pixels'),
    (dict(size=[H, W], counts=[3, 1.5]), 'RLE count 1 is 1.5; a whole number'),
    (dict(size=[H, W], counts=[3, 10**20]), 'RLE counts from 3 to 1'),
    (dict(size=[H, W], counts=[3, None]), 'RLE count 1 is None'),
    (dict(size=[H, W], counts=[3, True]), 'RLE count 1 is True'),
    (dict(counts=[3]), 'RLE size None; .height, width. in pixels'),
    (dict(size=[H], counts=[3]), 'RLE size'), (dict(size=[H, 0], counts=[3]), 'RLE size'),
    (dict(size=[H, 1.5], counts=[3]), 'RLE size'), (dict(size=dict(h=H), counts=[3]), 'RLE size'),
    ([dict(size=[H, W], counts=[3]), dict(size=[H, W])], 'RLE counts None'),
], ids=range(35))
def test_segmentations_that_are_named(value, message):
    found, fault = read_segmentation(value)
    assert found is None

    assert re.search(message, fault) and len(fault) < 300 and '\n' not in fault


@pytest.mark.parametrize('value, expected', [
    ([[]], [[]]), ([SQUARE[:4]], [SQUARE[:4]]), ([SQUARE[:7]], [SQUARE[:7]]),
    ([[1, 2], [3, 4]], [[1, 2], [3, 4]]), ([SQUARE, []], [SQUARE, []]),
])
def test_parts_that_are_too_short_are_left_to_the_users(value, expected):
    assert read_segmentation(value) == (expected, None)


@pytest.mark.parametrize('value, expected', [
    (3, 3), (3.0, 3), ('3', 3), (' 3 ', 3), (-1, -1), ('-1', -1), (0, 0), ('0', 0), (0.0, 0),
    ('003', '003'), ('3.0', '3.0'), ('8756_2', '8756_2'), ('+3', '+3'), (2**100, 2**100),
    (str(2**100), 2**100), ('٣', '٣'), (2**53 - 1.0, 2**53 - 1),
    (None, None), (True, None), (1.5, None), (NAN, None), (INF, None), (1e300, None), ([], None),
    ([3], None), ({}, None), ('', None), (' ', None), (10**400, None)])
def test_ids(value, expected):
    found = read_id(value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize('value, number, whole', [
    (3, 3, 3), (3.0, 3.0, 3), ('3', 3.0, 3), ('3.5', 3.5, None), (-2.5, -2.5, None),
    ('-4e2', -400.0, -400), (NAN, None, None), (INF, None, None), ('inf', None, None),
    (10**400, None, None), (True, None, None), (None, None, None), ([3], None, None),
    ('1e400', None, None), ('0x10', None, None), ('', None, None)])
def test_numbers(value, number, whole):
    assert (read_number(value), read_whole(value)) == (number, whole)


@pytest.mark.parametrize('change, expected', [
    ({}, {}),
    (dict(id='7', image_id='0', category_id='1'), {}),
    (dict(id=7.0, image_id=0.0, category_id=1.0), {}),
    (dict(bbox=[[10, 10, 30, 20]]), {}), (dict(bbox=['10', '10.0', 30.0, '3e1']),
                                          dict(bbox=[10, 10, 30, 30])),
    (dict(bbox=None), dict(bbox=None)), (dict(bbox=[]), dict(bbox=None)),
    (dict(bbox=NAN), dict(bbox=None)), (dict(bbox=[3, 3, 0, 5]), dict(bbox=[3, 3, 0, 5])),
    (dict(iscrowd=None), {}), (dict(iscrowd=False), {}), (dict(iscrowd='0'), {}),
    (dict(iscrowd=NAN), {}), (dict(iscrowd='false'), {}), (dict(iscrowd=''), {}),
    (dict(iscrowd=True), dict(crowd=True)), (dict(iscrowd='1'), dict(crowd=True)),
    (dict(iscrowd=1.0), dict(crowd=True)), (dict(iscrowd='True'), dict(crowd=True)),
    (dict(area=None), dict(area=None)), (dict(area=NAN), dict(area=None)),
    (dict(area='600'), {}), (dict(area=0), dict(area=0)),
])
def test_annotations_with_one_meaning(change, expected):
    tables = with_annotation(**change)
    assert tables.faults == [] and tables.categories == {1: 'car'}
    found = tables.annotations[0]
    assert {key: getattr(found, key) for key in (
        'row', 'id', 'image_id', 'category_id', 'bbox', 'crowd', 'area', 'segmentation')} == dict(
        row=0, id=7, image_id=0, category_id=1, bbox=[10, 10, 30, 20], crowd=False, area=600,
        segmentation=[SQUARE]) | expected
    assert found.name == 'annotation 7' and found.faults == ()


@pytest.mark.parametrize('change, kind, message', [
    (dict(id=None), coco.ANNOTATION_ID, 'f.json, annotation in row 0: id is None; a whole number'),
    (dict(id=[1]), coco.ANNOTATION_ID, r'id is [1]; a whole number or a text'),
    (dict(id='8'), coco.ANNOTATION_TWICE, 'f.json, annotation 8: its id is used twice, in row 0 '
     'and in row 1'),
    (dict(image_id=None), coco.ANNOTATION_IMAGE, 'annotation 7: image_id is None; the id'),
    (dict(image_id=[0]), coco.ANNOTATION_IMAGE, 'image_id is [0]'),
    (dict(image_id='00'), coco.UNKNOWN_IMAGE, "annotation 7: it is of the unknown image '00'"),
    (dict(image_id=9), coco.UNKNOWN_IMAGE, 'it is of the unknown image 9'),
    (dict(category_id=None), coco.ANNOTATION_CATEGORY, 'category_id is None; the id of a'),
    (dict(category_id={}), coco.ANNOTATION_CATEGORY, 'category_id is {}'),
    (dict(category_id=2), coco.UNKNOWN_CATEGORY, 'it has the unknown category_id 2'),
    (dict(segmentation=None), coco.NO_SEGMENTATION,
     'empty or unknown segmentation None; polygons'),
    (dict(segmentation=[]), coco.NO_SEGMENTATION, 'empty or unknown segmentation []'),
    (dict(segmentation={}), coco.NO_SEGMENTATION, 'empty or unknown segmentation {}'),
    (dict(segmentation=NAN), coco.NO_SEGMENTATION, 'empty or unknown segmentation nan'),
    (dict(segmentation=[['x'] * 6]), coco.SEGMENTATION, "polygon 0, coordinate 0 is 'x'"),
    (dict(bbox='abc'), coco.BOX, "bbox is 'abc'; x, y, width and height"),
    (dict(bbox=[1, 2, 3]), coco.BOX, 'bbox is [1, 2, 3]'),
    (dict(bbox=[1, 2, 3, NAN]), coco.BOX, 'bbox is [1, 2, 3, nan]'),
    (dict(bbox=[1, 2, 3, 10**400]), coco.BOX, 'bbox is [1, 2, 3, a number of'),
    (dict(bbox=[None] * 4), coco.BOX, 'bbox is [None'),
    (dict(iscrowd=2), coco.CROWD, 'iscrowd is 2; 0 or 1'),
    (dict(iscrowd='yes'), coco.CROWD, "iscrowd is 'yes'"),
    (dict(iscrowd=[1]), coco.CROWD, 'iscrowd is [1]'),
    (dict(area=-1), coco.AREA, 'area is -1; a number of pixels'),
    (dict(area='big'), coco.AREA, "area is 'big'"), (dict(area=INF), coco.AREA, 'area is inf'),
])
def test_annotations_that_are_named(change, kind, message):
    tables = with_annotation(**change)
    fault, = tables.faults
    assert fault.kind == kind and message in str(fault) and 'f.json, ' in fault.where
    number = 1 if kind == coco.ANNOTATION_TWICE else 0
    assert tables.annotations[number].faults == (fault,)
    assert fault.record is tables.annotations[number]
    assert len(tables.annotations) == 2  # faulty ones are there too


@pytest.mark.parametrize('change, size', [
    ({}, (H, W)), (dict(height=48.0, width='64'), (H, W)), (dict(id='0'), (H, W)),
    (dict(id=0.0), (H, W))])
def test_images_with_one_meaning(change, size):
    tables = content()
    tables['images'][0].update(change)
    found = read_coco(tables, 'f.json')
    assert found.faults == []
    assert [(i.row, i.id, i.file_name, i.height, i.width) for i in found.images] == [
        (0, 0, '0.png', *size), (1, 1, '1.png', H, W)]


@pytest.mark.parametrize('change, kind, message', [
    (dict(id=None), coco.IMAGE_ID, 'f.json, image in row 1: id is None; a whole number'),
    (dict(id='0'), coco.IMAGE_TWICE, "f.json, image 0: its id is used twice, in row 0 ('0.png') "
     "and in row 1 ('1.png'); every image needs its own"),
    (dict(file_name=None), coco.IMAGE_FILE, 'image 1: file_name is None; the name of a file'),
    (dict(file_name=''), coco.IMAGE_FILE, "file_name is ''"),
    (dict(file_name='a\0b'), coco.IMAGE_FILE, 'file_name is'),
    (dict(file_name=7), coco.IMAGE_FILE, 'file_name is 7'),
    (dict(height=None), coco.IMAGE_SIZE, 'image 1: height and width are None and 64; pixels'),
    (dict(width=0), coco.IMAGE_SIZE, 'height and width are 48 and 0'),
    (dict(width=-4), coco.IMAGE_SIZE, '48 and -4'), (dict(width=1.5), coco.IMAGE_SIZE, '1.5'),
    (dict(width=10**400), coco.IMAGE_SIZE, 'a number of'),
    (dict(width=20_000), coco.IMAGE_SIZE, 'at most 16384 a side'),
    (dict(height=16_000, width=16_000), coco.IMAGE_SIZE, '80 million in all'),
])
def test_images_that_are_named(change, kind, message):
    tables = content(annotations=[])
    tables['images'][1].update(change)
    found = read_coco(tables, 'f.json')
    fault, = found.faults
    assert fault.kind == kind and message in str(fault)
    assert found.images[1].faults == (fault,) and fault.record is found.images[1]
    if kind == coco.IMAGE_SIZE:
        assert (found.images[1].height, found.images[1].width) == (None, None)


@pytest.mark.parametrize('categories, names, kinds', [
    ([dict(id='1', name='car'), dict(id=2.0, name=7), dict(id='a', name=7.5)],
     {1: 'car', 2: '7', 'a': '7.5'}, []),
    ([dict(id=1, name=2.0)], {1: '2'}, []),
    ([dict(id=1, name='car'), dict(id='1', name='bus')], {1: 'car'}, [coco.CATEGORY_TWICE]),
    ([dict(id=1, name='car'), 3, dict(id=2), dict(name='x'), dict(id=3, name=' '),
      dict(id=4, name=NAN), dict(id=5, name=True)], {1: 'car'}, [coco.CATEGORY] * 6),
    (None, {}, [coco.CATEGORIES]), ({'1': 'car'}, {}, [coco.CATEGORIES]), ('car', {},
                                                                        [coco.CATEGORIES]),
])
def test_categories(categories, names, kinds):
    found = read_coco(content(annotations=[], categories=categories), 'f.json')
    assert found.categories == names and [fault.kind for fault in found.faults] == kinds
    assert all(str(fault).startswith('f.json') for fault in found.faults)


def test_sets_without_categories():
    tables = content()
    del tables['categories'], tables['annotations'][0]['category_id']
    assert read_coco(tables, 'f.json', categories=False).faults == []
    assert [fault.kind for fault in read_coco(tables, 'f.json').faults] == [
        coco.CATEGORIES, coco.ANNOTATION_CATEGORY, coco.UNKNOWN_CATEGORY]


@pytest.mark.parametrize('value, message', [
    ([], 'it holds list'), (None, 'it holds NoneType'), ({}, r'it holds \[\]'),
    (dict(images=[]), r"it holds \['images'\]"), (dict(images=[], annotations=None), 'it holds'),
    (dict(images={}, annotations=[]), 'it holds')])
def test_files_of_another_kind(value, message):
    with pytest.raises(ValueError, match=f'f.json is no COCO file: .*{message}'):
        read_coco(value, 'f.json')


def test_all_faults_are_listed_in_one_run_and_all_records_kept():
    rows = [3, None, [], dict(id=1, file_name='b.png', height=H, width=W), {}]
    found = read_coco(content(images=rows, annotations=rows), 'f.json')
    assert [fault.kind for fault in found.faults] == [coco.IMAGE_NO_RECORD] * 3 + [
        coco.IMAGE_FILE, coco.IMAGE_ID, coco.IMAGE_SIZE] + [coco.ANNOTATION_NO_RECORD] * 3 + [
        coco.NO_SEGMENTATION, coco.ANNOTATION_IMAGE, coco.ANNOTATION_CATEGORY] + [
        coco.NO_SEGMENTATION, coco.ANNOTATION_ID, coco.ANNOTATION_IMAGE, coco.ANNOTATION_CATEGORY]
    assert (len(found.images), len(found.annotations)) == (2, 2)
    assert 'f.json, image in row 2: it is []; a record' in map(str, found.faults)


@pytest.mark.parametrize('value, text', [
    (None, 'None'), (7, '7'), ('cat', "'cat'"), ([1, 2], '[1, 2]'), (2**200, 'a number of 201 bi'),
    (math.nan, 'nan')])
def test_values_in_messages(value, text):
    assert shown(value, 60).startswith(text)


def test_values_that_hold_themselves_are_short():
    loop = [1]
    loop.append(loop)
    twice = {'a': 1}
    for _ in range(200):  # 2**200 leaves
        twice = {'a': twice, 'b': twice}
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown([10**5000]) == '[a number of 16610 bits]'
    for value in (loop, twice, deep, 'a' * 10**6, list(range(10**6))):
        assert len(shown(value)) <= 60
    while deep:  # its end is not left to recursion
        deep = deep.pop()
