"""Annotations of CVAT, Label Studio, YOLO and VOC as sets of one's own."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.annotation import own_data
from simpleseg_mm.annotation.own_account import Account
from simpleseg_mm.annotation.own_files import read_own, validation_of
from simpleseg_mm.annotation.own_formats import BOX_ALONE, BOX_BESIDE, Reading
from simpleseg_mm.export import export
from simpleseg_mm.files.brush import read_brush, write_brush
from simpleseg_mm.polygon import (mask_iou, mask_to_box, mask_to_parts, segmentation_to_mask)
from simpleseg_mm.structures import Prompt, Segmentation

SIZE = (48, 64)


def painted(*boxes, holes=()) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    for x1, y1, x2, y2 in holes:
        mask[y1:y2, x1:x2] = False
    return mask


CAR, DOG = painted((10, 10, 40, 30)), painted((5, 5, 25, 25), holes=[(10, 10, 15, 15)])
PARTS = painted((2, 2, 12, 12), (40, 30, 60, 44))


def pictures(folder: Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new('RGB', SIZE[::-1], (number, 90, 30)).save(folder / name)


def read(path, out, account=None, **reading) -> tuple[dict, Account]:
    """Masks by picture and category, as they are written; and the account."""
    account = account or Account()
    reading = Reading(passed_over=out, **reading)
    sets = [read_own(path, reading, account)]
    if validation_of(path, reading):
        sets.append(read_own(path, reading, account, 'val'))
    own_data.convert(out, sets, own_data.Choices(share=0.3), account)
    account.report()  # all of it is used or left out
    found: dict = {}
    for split in own_data.OWN_SPLITS:
        content = json.loads((out / f'annotations/{split}.json').read_text())
        names = {one['id']: one['name'] for one in content['categories']}
        images = {one['id']: Path(one['file_name']).name for one in content['images']}
        for row in content['annotations']:
            mask = segmentation_to_mask(row['segmentation'], *SIZE)
            found.setdefault(images[row['image_id']], []).append(
                (names[row['category_id']], mask))
    return found, account


def same(found: list, wanted: list) -> bool:
    """Whether two lists of (category, mask) are equal, in any order."""
    left = list(wanted)
    for name, mask in found:
        place = next((k for k, (other, truth) in enumerate(left)
                      if other == name and np.array_equal(mask, truth)), None)
        if place is None:
            return False
        left.pop(place)
    return not left


# --- CVAT ---------------------------------------------------------------------------------------
def cvat(folder: Path, shapes: str, names=('a.png', 'b.png', 'c.png'), head='') -> Path:
    pictures(folder / 'images', names)
    images = ''.join(f'<image id="{k}" name="{name}" width="64" height="48">{shapes}</image>'
                     for k, name in enumerate(names))
    path = folder / 'annotations.xml'
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1'
                    f'</version><meta/>{images}</annotations>')
    return path


POLYGON = '<polygon label="{}" points="10,10;40,10;40,30;10,30" {}>{}</polygon>'
SHAPES = {  # of CVAT: a shape, what it is
    'polygon': (POLYGON.format('car', '', ''), [('car', CAR)]),
    'a box': ('<box label="car" xtl="10" ytl="10" xbr="40" ybr="30"/>', [('car', CAR)]),
    'a turned box': ('<box label="car" xtl="15" ytl="5" xbr="35" ybr="35" rotation="90"/>',
                     [('car', CAR)]),
    'a mask': ('<mask label="car" rle="0, 600" left="10" top="10" width="30" height="20"/>',
               [('car', CAR)]),
    'a mask with a hole': (
        '<mask label="dog" rle="0, 105, 5, 15, 5, 15, 5, 15, 5, 15, 5, 210" left="5" top="5" '
        'width="20" height="20"/>', [('dog', DOG)]),
    'a group': ('<polygon label="two" points="2,2;12,2;12,12;2,12" group_id="3"/>'
                '<polygon label="two" points="40,30;60,30;60,44;40,44" group_id="3"/>',
                [('two', PARTS)]),
    'group 0 is none': (POLYGON.format('car', 'group_id="0"', '') * 2, [('car', CAR)] * 2),
    'groups of two labels': (POLYGON.format('car', 'group_id="1"', '')
                             + POLYGON.format('van', 'group_id="1"', ''),
                             [('car', CAR), ('van', CAR)]),
    'a tag': ('<tag label="night"/>' + POLYGON.format('car', '', ''), [('car', CAR)]),
}


@pytest.mark.parametrize('name', SHAPES)
def test_shapes_of_cvat(tmp_path, name):
    shapes, wanted = SHAPES[name]
    found, account = read(cvat(tmp_path, shapes), tmp_path / 'out', boxes='take')
    assert set(found) == {'a.png', 'b.png', 'c.png'}
    assert all(same(objects, wanted) for objects in found.values())
    assert account.read['picture'] == account.used['picture'] == 3


BROKEN = {  # of CVAT: shapes that cannot be used, and why
    'two points': ('<polygon label="van" points="1,1;2,2"/>', 'broken polygon'),
    'no numbers': ('<polygon label="van" points="a,b;c,d;e,f"/>', 'broken polygon'),
    'infinite': ('<polygon label="van" points="1,1;2,2;3,inf"/>', 'broken polygon'),
    'no points': ('<polygon label="van"/>', 'broken polygon'),
    'half a box': ('<box label="van" xtl="1" ytl="1"/>', 'broken box'),
    'runs too short': ('<mask label="van" rle="3,4" left="0" top="0" width="5" height="5"/>',
                       'broken mask'),
    'runs below 0': ('<mask label="van" rle="-5,30" left="0" top="0" width="5" height="5"/>',
                     'broken mask'),
    'a mask outside': ('<mask label="van" rle="0,25" left="60" top="0" width="5" height="5"/>',
                       'broken mask'),
    'huge': ('<mask label="van" rle="0,1" left="0" top="0" width="99999999999" height="1"/>',
             'broken mask'),
    'a line': ('<polyline label="van" points="1,1;5,5"/>',
               'shape of type polyline, which has no area'),
    'a cuboid': ('<cuboid label="van" xtl1="1"/>', 'shape of type cuboid, which has no area'),
    'unknown': ('<blob label="van"/>', 'shape of the unknown type blob'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_cannot_be_read_bars_its_category(tmp_path, name):
    """A van that is lost: the vans of the picture are not asked, the cars are."""
    shape, why = BROKEN[name]
    van = '<polygon label="van" points="40,30;60,30;60,44;40,44"/>'
    found, account = read(cvat(tmp_path, POLYGON.format('car', '', '') + van + shape),
                          tmp_path / 'out')
    assert all([name for name, _ in objects] == ['car'] for objects in found.values())
    assert account.left_out['annotation'][why] == 3
    assert account.left_out['query'][f'query whose truth is incomplete: {why}'] == 3


def test_a_shape_without_a_label_may_be_anything(tmp_path):
    path = cvat(tmp_path, POLYGON.format('car', '', '') + '<box xtl="1" ytl="1" xbr="4" ybr="4"/>')
    with pytest.raises(ValueError, match='no usable picture|usable picture.s. cannot be split'):
        read(path, tmp_path / 'out')


def test_expressions_of_cvat(tmp_path):
    words = '<attribute name="Description">the red car\nleft car</attribute>'
    account = Account()
    own = read_own(cvat(tmp_path, POLYGON.format('car', '', words)), Reading(), account)
    assert own.pictures[0].objects[0].phrases == ['the red car', 'left car']


@pytest.mark.parametrize('text, message', [
    ('<annotations><track id="0"/></annotations>', "CVAT's XML for video"),
    ('<annotation><object/></annotation>', '<annotation>'), ('<annotations>', 'no XML'),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', 'DOCTYPE'), ('', 'no XML')])
def test_other_xml_is_one_line(tmp_path, text, message):
    (tmp_path / 'a.xml').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_own(tmp_path / 'a.xml', Reading(), Account())
    assert '\n' not in str(error.value)


# --- Label Studio -------------------------------------------------------------------------------
def region(kind: str, value: dict, number='r1', label='car', **more) -> dict:
    labels = {f'{kind}labels': [label]} if label else {}
    return dict(id=number, type=f'{kind}labels', value=dict(value, **labels), original_width=64,
                original_height=48, from_name='label', to_name='image', **more)


def studio(folder: Path, regions: list, names=('a.png', 'b.png', 'c.png'), **task) -> Path:
    pictures(folder / 'images', names)
    rows = [dict(id=k, data=dict(image=f'/data/upload/1/0123abcd-{name}'),
                 annotations=[dict(result=regions)], **task) for k, name in enumerate(names)]
    path = folder / 'project.json'
    path.write_text(json.dumps(rows))
    return path


def percent(*points) -> list:
    return [[x / 64 * 100, y / 48 * 100] for x, y in points]


CORNERS = percent((10, 10), (40, 10), (40, 30), (10, 30))
REGIONS = {
    'polygon': (region('polygon', dict(points=CORNERS)), ('car', CAR)),
    'rectangle': (region('rectangle', dict(x=10 / .64, y=10 / .48, width=30 / .64,
                                           height=20 / .48)), ('car', CAR)),
    'turned': (region('rectangle', dict(x=40 / .64, y=10 / .48, width=20 / .64,
                                        height=30 / .48, rotation=90)), ('car', CAR)),
    'brush': (region('brush', dict(format='rle', rle=write_brush(DOG)), label='dog'),
              ('dog', DOG)),
}


@pytest.mark.parametrize('name', REGIONS)
def test_regions_of_label_studio(tmp_path, name):
    one, wanted = REGIONS[name]
    found, account = read(studio(tmp_path, [one]), tmp_path / 'out', boxes='take')
    assert len(found) == 3 and all(same(objects, [wanted]) for objects in found.values())
    assert account.decided["picture not where its record says, found by its name without the "
                           "prefix of Label Studio's uploads"] == 3


def test_entries_of_one_region_are_one(tmp_path):
    """With the control <Labels>, and a text area for each region."""
    area = dict(region('polygon', dict(points=CORNERS), label=''), type='polygon')
    own = read_own(studio(tmp_path, [
        area, dict(id='r1', type='labels', value=dict(labels=['car'])),
        dict(id='r1', type='textarea', value=dict(text=['the red car', 'left car'])),
        dict(id='c', type='choices', value=dict(choices=['night']))]), Reading(), Account())
    one, = own.pictures[0].objects
    assert (one.category, one.phrases) == ('car', ['the red car', 'left car'])


@pytest.mark.parametrize('bad, why', [
    (region('polygon', dict(points=[[1, 2]]), 'x', 'van'), 'broken polygon'),
    (region('polygon', dict(points=[['a', 2]] * 3), 'x', 'van'), 'broken polygon'),
    (region('polygon', {}, 'x', 'van'), 'broken polygon'),
    (region('brush', dict(rle=[1, 2, 3]), 'x', 'van'), 'broken brush'),
    (region('brush', dict(rle=write_brush(DOG[:-1])), 'x', 'van'), 'broken brush'),
    (region('brush', dict(rle='@@'), 'x', 'van'), 'broken brush'),
    (region('keypoint', dict(x=1, y=1), 'x', 'van'), 'shape of type keypoint, which has no area')])
def test_broken_regions_bar_their_category(tmp_path, bad, why):
    found, account = read(studio(tmp_path, [REGIONS['polygon'][0], bad]), tmp_path / 'out')
    assert all([name for name, _ in objects] == ['car'] for objects in found.values())
    assert account.left_out['annotation'][why] == 3


@pytest.mark.parametrize('annotations, points', [
    ([], None), ([dict(result=[], was_cancelled=True)], None),
    ([dict(result=[], updated_at='2026-02'), dict(result=[1], updated_at='2026-01')], 0),
    ([dict(result=[1], ground_truth=True, updated_at='2025'), dict(result=[])], 1)])
def test_which_annotation_of_a_task(tmp_path, annotations, points):
    one = REGIONS['polygon'][0]
    for row in annotations:
        row['result'] = [one for _ in row['result']]
    path = studio(tmp_path, [one])
    tasks = json.loads(path.read_text())
    tasks[0]['annotations'] = annotations
    path.write_text(json.dumps(tasks))
    account = Account()
    own = read_own(path, Reading(), account)
    if points is None:
        assert len(own.pictures) == 2
        assert account.left_out['picture'] == {'task without an annotation': 1}
    else:
        assert len(own.pictures[0].objects) == points


@pytest.mark.parametrize('shape', [(1, 1), (5, 3), (40, 50)])
def test_brushes_are_read_as_they_are_written(shape):
    for share in (0, 0.3, 1):
        mask = np.random.default_rng(1).random(shape) < share
        content = write_brush(mask)
        assert np.array_equal(read_brush(content, shape), mask)
        for cut in (0, 3, len(content) - 1):
            with pytest.raises(ValueError):
                read_brush(content[:cut], shape)
        with pytest.raises(ValueError, match='pixels on a picture'):
            read_brush(content, (shape[0], shape[1] + 1))


# --- YOLO ---------------------------------------------------------------------------------------
def yolo(folder: Path, rows: str, splits=('train', ), content='', names=('a', 'b', 'c')) -> Path:
    for split in splits:
        pictures(folder / f'images/{split}', [f'{split}_{name}.png' for name in names])
        (folder / f'labels/{split}').mkdir(parents=True)
        for number, name in enumerate(names):
            picture_file = folder / f'images/{split}/{split}_{name}.png'
            Image.new('RGB', SIZE[::-1], (len(split), number, 1)).save(picture_file)
            (folder / f'labels/{split}/{split}_{name}.txt').write_text(rows)
    path = folder / 'data.yaml'
    path.write_text(content or ''.join(f'{split}: images/{split}\n' for split in splits)
                    + 'names: [car, dog]\n')
    return path


def shares(*points) -> str:
    return ' '.join(f'{x / 64:.8f} {y / 48:.8f}' for x, y in points)


ROW = '0 ' + shares((10, 10), (40, 10), (40, 30), (10, 30))


@pytest.mark.parametrize('rows, wanted', [
    (ROW, [('car', CAR)]), (ROW + '\n' + ROW, [('car', CAR)]),
    (ROW + '\n\n1 0.390625 0.41666667 0.46875 0.41666667', [('car', CAR), ('dog', CAR)])])
def test_rows_of_yolo(tmp_path, rows, wanted):
    found, account = read(yolo(tmp_path, rows), tmp_path / 'out', boxes='take')
    assert len(found) == 3 and all(same(objects, wanted) for objects in found.values())
    assert account.left_out['annotation'].get('row written twice', 0) == 3 * (
        rows == ROW + '\n' + ROW)


@pytest.mark.parametrize('row, why', [
    ('1 0.1 0.2 0.3', 'row that is no outline'), ('1 .1 .1 .2 .1 .2 .2 .9', 'row that is no outl'),
    ('1 a b c d e f', 'row that is no numbers'), ('1', 'row that is no outline'),
    ('1 10 10 40 10 40 30', 'row whose numbers are no shares'),
    ('1 nan 0 0 1 1 1', 'row that is no numbers')])
def test_broken_rows_bar_their_class(tmp_path, row, why):
    found, account = read(yolo(tmp_path, f'{ROW}\n{row}\n1{ROW[1:]}'), tmp_path / 'out')
    assert all([name for name, _ in objects] == ['car'] for objects in found.values())
    (reason, count), = ((key, count) for key, count in account.left_out['annotation'].items()
                        if key.startswith(why))
    assert count == 3


def test_a_class_without_a_name_may_be_any(tmp_path):
    own = read_own(yolo(tmp_path, f'{ROW}\n7{ROW[1:]}'), Reading(), Account())
    assert {one.category for one in own.pictures[0].objects} == {'car', None}


def test_pictures_of_validation_are_their_own(tmp_path):
    path = yolo(tmp_path, ROW, ('train', 'val'))
    account = Account()
    found, _ = read(path, tmp_path / 'out', account)
    val = json.loads((tmp_path / 'out/annotations/val.json').read_text())
    assert sorted(Path(one['file_name']).name for one in val['images']) == [
        'val_a.png', 'val_b.png', 'val_c.png'] and len(found) == 6


def test_no_labels_are_not_the_same_as_empty_ones(tmp_path):
    path = yolo(tmp_path, ROW)
    (tmp_path / 'labels/train/train_a.txt').write_text('\n')
    (tmp_path / 'labels/train/train_b.txt').unlink()
    account = Account()
    own = read_own(path, Reading(), account)
    assert [len(picture.objects) for picture in own.pictures] == [0, 1]
    assert list(account.left_out['picture'].values()) == [1]


@pytest.mark.parametrize('content, message', [
    ('names: [a]\nkpt_shape: [17, 3]\ntrain: x\n', 'key points'), ('train: x\n', 'no names'),
    ('names: [a]\n', 'no pictures of train'), ('{', 'no YAML'), ('3', 'no names'),
    ('names: [a]\ntrain: nowhere\n', "no pictures of train: 'nowhere'")])
def test_other_yaml_is_one_line(tmp_path, content, message):
    path = tmp_path / 'data.yaml'
    path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_own(path, Reading(), Account())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('said', ['../train/images', 'train/images', './train/images'])
def test_roboflows_folders(tmp_path, said):
    pictures(tmp_path / 'train/images', ['a.jpg', 'b.jpg'])
    (tmp_path / 'train/labels').mkdir()
    for name in 'ab':
        (tmp_path / f'train/labels/{name}.txt').write_text(ROW)
    (tmp_path / 'data.yaml').write_text(f'train: {said}\nnc: 1\nnames: ["car"]\n')
    own = read_own(tmp_path, Reading(), Account())
    assert [len(picture.objects) for picture in own.pictures] == [1, 1]


# --- VOC ----------------------------------------------------------------------------------------
def voc(folder: Path, names=('a', 'b', 'c'), objects=True, labelmap=None, color=(128, 0, 0)):
    """Two aeroplanes and a border of which nothing is known."""
    pictures(folder / 'JPEGImages', [f'{name}.jpg' for name in names])
    palette = np.zeros((*SIZE, 3), np.uint8)
    palette[CAR | PARTS] = color
    palette[0] = 224, 224, 192
    ids = np.zeros(SIZE, np.uint8)
    ids[PARTS], ids[CAR], ids[0] = 2, 1, 255
    kinds = np.zeros((256, 3), np.uint8)
    kinds[1], kinds[2], kinds[255] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    for kind in ('SegmentationClass', 'SegmentationObject')[:1 + objects]:
        (folder / kind).mkdir()
        for name in names:
            image = Image.fromarray(palette) if kind == 'SegmentationClass' else Image.fromarray(
                ids, 'P')
            if kind == 'SegmentationObject':
                image.putpalette(kinds.ravel().tolist())
            image.save(folder / kind / f'{name}.png')
    if labelmap is not None:
        (folder / 'labelmap.txt').write_text(labelmap)
    return folder


@pytest.mark.parametrize('labelmap, color, name', [
    (None, (128, 0, 0), 'aeroplane'), (None, (192, 128, 128), 'person'),
    ('# label:color_rgb:parts:actions\nbackground:0,0,0::\nbig: car:1,2,3::\n', (1, 2, 3),
     'big: car'),
    ('# label:color_rgb:parts:actions\nbackground:::\ncup:::\n', (128, 0, 0), 'cup')])
def test_masks_of_voc(tmp_path, labelmap, color, name):
    found, account = read(voc(tmp_path, labelmap=labelmap, color=color), tmp_path / 'out')
    apart = PARTS & ~CAR
    apart[0] = False
    assert all(same(objects, [(name, CAR), (name, apart)]) for objects in found.values())
    assert account.decided['border of which nothing is known (void): it is of no object'] == 3


def test_a_colour_that_is_no_class(tmp_path):
    own = read_own(voc(tmp_path, color=(1, 2, 3)), Reading(), Account())
    assert {one.category for picture in own.pictures for one in picture.objects} == {None}


def test_classes_alone_are_groups(tmp_path):
    own = read_own(voc(tmp_path, objects=False), Reading(), Account())
    one, = own.pictures[0].objects
    assert one.crowd and one.category == 'aeroplane'


def test_a_broken_labelmap_is_one_line(tmp_path):
    with pytest.raises(ValueError, match='is no line as name:R,G,B'):
        read_own(voc(tmp_path, labelmap='car=1,2,3'), Reading(), Account())


@pytest.mark.parametrize('tool', ['cvat', 'studio', 'yolo'])
def test_boxes_of_detection_are_no_outlines(tmp_path, tool):
    """As of COCO's, their objects are lost, unless one says so."""
    path = {'cvat': lambda: cvat(tmp_path, SHAPES['a box'][0]),
            'studio': lambda: studio(tmp_path, [REGIONS['rectangle'][0]]),
            'yolo': lambda: yolo(tmp_path, '0 0.390625 0.41666667 0.46875 0.41666667')}[tool]()
    own = read_own(path, Reading(), Account())
    assert {one.lost for picture in own.pictures for one in picture.objects} == {BOX_ALONE}


@pytest.mark.parametrize('tool', ['cvat', 'cvat, a group', 'studio', 'yolo'])
def test_the_box_of_an_outline_goes_with_it(tmp_path, tool):
    """As datumaro and Label Studio's converter write COCO's; a box of another place is lost."""
    box = '<box label="car" xtl="10.4" ytl="10" xbr="40" ybr="30" {}/>'
    path = {
        'cvat': lambda: cvat(tmp_path, POLYGON.format('car', '', '') + box.format('')),
        'cvat, a group': lambda: cvat(tmp_path, POLYGON.format('car', 'group_id="7"', '')
                                      + box.format('group_id="7"')),
        'studio': lambda: studio(tmp_path, [REGIONS['polygon'][0],
                                            dict(REGIONS['rectangle'][0], id='r2')]),
        'yolo': lambda: yolo(tmp_path, f'{ROW}\n0 0.390625 0.41666667 0.46875 0.41666667'),
    }[tool]()
    found, account = read(path, tmp_path / 'out')
    assert all(same(objects, [('car', CAR)]) for objects in found.values()) and len(found) == 3
    assert account.changed == {BOX_BESIDE: 3}
    assert account.used['annotation'] == account.read['annotation'] == 6


# --- our own exports ----------------------------------------------------------------------------
@pytest.mark.parametrize('format, exact, holes', [
    ('cvat', False, True), ('cvat', True, True), ('yolo', False, False)])
def test_exports_are_read_again(tmp_path, format, exact, holes):
    """Pixel for pixel where the format has holes and parts; YOLO's outline has neither."""
    wanted = {'a.png': ('car', CAR), 'b.png': ('dog', DOG), 'c.png': ('two', PARTS)}
    pictures(tmp_path / 'images', wanted)
    results = [Segmentation(
        image=str(tmp_path / 'images' / name), size=SIZE, prompt=Prompt(text=text),
        parts=tuple(mask_to_parts(mask)), mask=mask, box=mask_to_box(mask), text='',
        confidence=0.5, valid=True, finished=True, says_nothing=False, num_tokens=1, seconds=0.1,
        codec='', index=index) for index, (name, (text, mask)) in enumerate(wanted.items())]
    export(results, tmp_path / 'set', format, exact)
    found, _ = read(tmp_path / 'set' / ('cvat.xml' if format == 'cvat' else 'data.yaml'),
                    tmp_path / 'out', images=tmp_path / 'images')
    for name, (text, mask) in wanted.items():
        assert {category for category, _ in found[name]} == {text}
        union = np.any([one for _, one in found[name]], axis=0)
        assert np.array_equal(union, mask) if holes else mask_iou(union, mask) > 0.97


def test_a_folder_of_two_tools_is_refused(tmp_path):
    voc(tmp_path)
    yolo(tmp_path, ROW)
    with pytest.raises(ValueError, match='several tools: data.yaml, '):
        read_own(tmp_path, Reading(), Account())


def test_expressions_go_with_coco(tmp_path):
    path = cvat(tmp_path, POLYGON.format('car', '', ''))
    with pytest.raises(ValueError, match='goes with COCO annotations'):
        read_own(path, Reading(expressions=tmp_path / 'refs.json'), Account())
