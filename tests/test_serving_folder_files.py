"""Annotations beside the pictures of a folder: what is read, kept and written."""
import base64
import copy
import errno
import io
import json
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")

from starlette.exceptions import HTTPException  # noqa: E402

from simpleseg_mm.files.pictures import turn_upright  # noqa: E402
from simpleseg_mm.polygon import mask_iou, rings_to_mask, segmentation_to_mask  # noqa: E402
from simpleseg_mm.serving import folder as folder_module  # noqa: E402
from simpleseg_mm.serving.folder import Folder  # noqa: E402
from simpleseg_mm.serving.folder_files import (PictureFolder, by_people, file_of,  # noqa: E402
                                               Stamp)

SIZE = (60, 100)  # h, w
FORMS = ('labelme', 'coco')


def picture(path, size=SIZE, tag=None, color=0):
    exif = Image.Exif()
    if tag is not None:
        exif[0x0112] = tag
    Image.new('L', size[::-1], color).save(path, exif=exif)


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / 'a.png')
    return tmp_path


def ring(x=0.0, y=0.0, side=20.0):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def made(key='one', label='cup', holes=(), parts=1, **more):
    return dict(id=key, label=label, polygons=[
        dict(outer=ring(30 * part), holes=list(holes) if part == 0 else [])
        for part in range(parts)], **more)


def save(folder, objects, revision=None, path='a.png', **more):
    return folder.write(path, dict(dict(objects=objects, done=False, rejected=[], digest='',
                                        revision=revision), **more))['revision']


def file_in(root, form):
    return root / ('a.json' if form == 'labelme' else 'annotations.json')


def loaded(root, form='labelme'):
    return json.loads(file_in(root, form).read_text())


def refused(folder, *args, status=423, **more):
    """The message, in one line, of a save that is refused."""
    with pytest.raises(HTTPException) as info:
        save(folder, *args, **more)
    assert info.value.status_code == status, info.value.detail
    assert '\n' not in info.value.detail
    return info.value


# --- what we write is read again ----------------------------------------------------------------
HOLE = [[5, 5], [5, 10.25], [10, 10]]
OBJECTS = [
    made('plain'), made('holed', 'ring', [HOLE]), made('parts', 'b', [HOLE], 3),
    made('scored', 'x', score=0.25, agreement=0.75), made('looks', 'x', hidden=True, locked=True,
                                                          color='#123456', edited=True),
    made('asked', 'x', origin=dict(prompt=dict(text='a cup'), polygons=[dict(outer=ring())],
                                   score=0.5, model='nano'),
         actions=dict(clicks=2, moved=1, added=0, removed=0, drawn=0), unknown=dict(a=[1, None])),
    *(made(f'label{number}', label) for number, label in enumerate([
        'a\nb', 'a/b\\c', '\N{GRINNING FACE}', '', '  ', '<b>&"\'', 'x' * 10_000, '0', 'object',
        '\x00\x07', '\u202e\u2028', 'e\u0301']))]


@pytest.mark.parametrize('form', FORMS)
def test_a_document_comes_back_as_it_was_saved(root, form):
    folder = Folder(root, form)
    assert folder.read('a.png') == dict(objects=[], done=False, rejected=[], revision=None,
                                        changed=False, fault='', notes=[])
    rejected = [dict(prompt=dict(text='a'), polygons=[], label='a', score=None, model='nano')]
    revision = save(folder, OBJECTS, done=True, rejected=rejected, unknown=[1])
    got = folder.read('a.png')
    assert (got['done'], got['rejected'], got['revision'], got['changed'], got['notes'],
            got['unknown']) == (True, rejected, revision, False, [], [1])
    nothing = dict(score=None, agreement=None, edited=False, hidden=False, locked=False,
                   origin=None, actions=dict.fromkeys(
                       ('clicks', 'moved', 'added', 'removed', 'drawn'), 0))
    assert got['objects'] == [nothing | one for one in OBJECTS]
    assert os.listdir(root) == unordered(['a.png', file_in(root, form).name])
    row, = folder.listing()['pictures']
    assert row == dict(path='a.png', objects=len(OBJECTS), done=True, fault='')
    before = file_in(root, form).stat()
    assert save(folder, got['objects'], revision, done=True, rejected=rejected) == revision
    assert save(folder, OBJECTS, revision, done=True, rejected=rejected) == revision
    assert file_in(root, form).stat() == before  # it was not even written
    assert Folder(root, form).read('a.png') == got  # nothing of it is in memory alone
    assert save(folder, [], revision) != revision
    assert folder.read('a.png')['objects'] == [] and folder.listing()['pictures'][0]['done'] is \
        False


class unordered(list):
    def __eq__(self, other):
        return sorted(self) == sorted(other)


@pytest.mark.parametrize('form', FORMS)
def test_vertices_are_exact_and_only_what_is_changed_is_written_anew(root, form):
    folder, exact = Folder(root, form), [[0.1, 1 / 3], [50.123456789, 7], [3e-7, 41.5]]
    first = [dict(made(), polygons=[dict(outer=exact, holes=[])]), made('two', holes=[HOLE])]
    revision = save(folder, first)
    assert folder.read('a.png')['objects'][0]['polygons'] == first[0]['polygons']
    before = loaded(root, form)
    first[1]['polygons'][0]['holes'] = [[[6, 5], [5, 10.25], [10, 10]]]
    save(folder, first, revision)
    rows = [content['shapes' if form == 'labelme' else 'annotations']
            for content in (before, loaded(root, form))]
    assert rows[0][0] == rows[1][0] and rows[0][1] != rows[1][1]
    assert folder.read('a.png')['objects'][1]['polygons'][0]['holes'][0][0] == [6, 5]


@pytest.mark.parametrize('form', FORMS)
def test_spread_of_a_vote_is_kept(root, form):
    folder, spread = Folder(root, form), [[[0.5, 1], None, [1, 2], [1, 3]]]
    one = dict(made(), polygons=[dict(outer=ring(), holes=[], spread=spread)])
    revision = save(folder, [one])
    assert folder.read('a.png')['objects'][0]['polygons'] == one['polygons']
    one['polygons'][0]['spread'] = None
    save(folder, [one], revision)
    assert 'spread' not in folder.read('a.png')['objects'][0]['polygons'][0]


# --- what others read ---------------------------------------------------------------------------
def filled(one):
    """The object's mask as the page shows it: holes are wound the other way."""
    def wound(points, sign):
        x, y = np.array(points, float).T
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
        return np.array(points if area * sign >= 0 else points[::-1], float)
    return rings_to_mask([ring for part in one['polygons'] for ring in (
        wound(part['outer'], -1), *(wound(hole, 1) for hole in part['holes']))], SIZE, 'edges')


SHAPES = [made('square'), made('holed', 'b', [ring(5, 5, 8)]),
          made('holes', 'b', [ring(3, 3, 4), ring(12, 12, 4)], 2),
          dict(made('other way', 'c'), polygons=[dict(outer=ring(10, 10, 40)[::-1],
                                                     holes=[ring(20, 20, 10)])])]


def test_pycocotools_reads_what_is_drawn(root):
    save(Folder(root, 'coco'), SHAPES)
    coco = COCO(str(root / 'annotations.json'))
    assert [image['file_name'] for image in coco.dataset['images']] == ['a.png']
    assert [coco.cats[row['category_id']]['name'] for row in coco.dataset['annotations']] == [
        one['label'] for one in SHAPES]
    for one, row in zip(SHAPES, coco.dataset['annotations']):
        mask = filled(one)
        assert mask_iou(coco.annToMask(row).astype(bool), mask) > 0.93  # its edges are its own
        assert row['area'] == mask.sum()  # whole pixels here
        rows, columns = np.nonzero(mask)
        assert row['bbox'] == [columns.min(), rows.min(), columns.max() + 1 - columns.min(),
                               rows.max() + 1 - rows.min()]


def test_labelme_reads_what_is_drawn(root):
    """By what its reader asks for, and its fill of a polygon."""
    save(Folder(root), SHAPES)
    content = loaded(root)
    assert (content['imagePath'], content['imageData'], content['imageHeight'],
            content['imageWidth']) == ('a.png', None, *SIZE)
    for shape in content['shapes']:
        assert isinstance(shape['label'], str) and shape['shape_type'] == 'polygon'
        assert shape['flags'] == {} and isinstance(shape['description'], str)
        assert shape['group_id'] is None or type(shape['group_id']) is int
    assert [shape['group_id'] for shape in content['shapes']] == [None, None, 1, 1, None]
    groups = [[0], [1], [2, 3], [4]]
    for one, numbers in zip(SHAPES, groups):
        mask = np.logical_or.reduce([segmentation_to_mask(
            [np.ravel(content['shapes'][number]['points']).tolist()], *SIZE)
            for number in numbers])
        assert mask_iou(mask, filled(one)) > 0.93


def test_training_reads_both_alike(root):
    """The project's own readers take what is saved as any other file of the tools."""
    from simpleseg_mm.annotation.own_account import Account
    from simpleseg_mm.annotation.own_files import read_own
    from simpleseg_mm.annotation.own_formats import Reading
    for form in FORMS:
        save(Folder(root, form), SHAPES)
        own = read_own(file_in(root, form), Reading(), Account())
        objects = own.pictures[0].objects
        assert [(one.category, one.lost) for one in objects] == [
            (one['label'], '') for one in SHAPES], form
        os.remove(file_in(root, form))


# --- files of LabelMe's -------------------------------------------------------------------------
def png_mask():
    mask = np.ones((12, 14), np.uint8) * 255
    mask[4:8, 4:8] = 0
    out = io.BytesIO()
    Image.fromarray(mask).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode()


def shape(label='cup', points=None, kind='polygon', **more):
    return dict(label=label, points=ring() if points is None else points, shape_type=kind,
                group_id=None, description='', flags={}, mask=None) | more


def foreign():
    """A file with all that LabelMe and X-AnyLabeling know, and what no program does."""
    return dict(version='5.0.1', flags=dict(night=True), imagePath='a.png', imageData=None,
                imageHeight=60, imageWidth=100, custom=dict(a=1.5), shapes=[
        shape(extra=[1], flags=dict(occluded=True), description='the cup', points=ring(1, 1)),
        shape('box', [[40, 40], [20, 10]], 'rectangle', other='x'),
        shape('disc', [[50, 30], [50, 40]], 'circle'),
        shape('mask', [[10, 20], [23, 31]], 'mask', mask=png_mask()),
        shape('point', [[3, 4]], 'point'), shape('line', [[3, 4], [5, 6]], 'line'),
        shape('two', ring(60, 0, 9), group_id=4), shape('two', ring(80, 0, 9), group_id=4),
        shape('two', [[60, 0], [90, 9]], 'rectangle', group_id=4),
        shape('broken', [[1, 2]]), shape('nan', [[1, 2], [3, float('nan')], [4, 5]]), None, 'x',
        dict(label='no points'), shape('bad mask', [[1, 1], [4, 4]], 'mask', mask='AAAA'),
        shape(7, ring(5, 40, 9)), shape(None, ring(15, 40, 9)), shape('half \ud800', ring(25, 40)),
        shape('turned', [[70, 30], [80, 35], [75, 45], [65, 40]], 'rotation', direction=1.0)])


SEEN = {'cup': [0], 'box': [1], 'disc': [2], 'mask': [3], 'two': [6, 7], '7': [15], '': [16],
        'half \ufffd': [17], 'turned': [18]}


def written(root, content):
    (root / 'a.json').write_text(json.dumps(content))


def object_of(got, label):
    return next(one for one in got['objects'] if one['label'] == label)


def test_what_labelme_drew_is_shown_and_the_rest_is_told(root):
    written(root, foreign())
    got = Folder(root).read('a.png')
    assert [one['label'] for one in got['objects']] == list(SEEN)
    assert Folder(root).listing()['pictures'][0]['objects'] == len(SEEN) + 1  # the bad mask, too
    assert len({one['id'] for one in got['objects']}) == len(SEEN)
    assert (got['done'], got['rejected'], got['changed'], got['fault']) == (False, [], False, '')
    note, = got['notes']
    assert note.startswith('8 shapes are not shown and stay as they are: shape 14: mask that')
    outer = {one['label']: one['polygons'][0]['outer'] for one in got['objects']}
    assert outer['cup'] == ring(1, 1) and outer['box'] == [[20, 10], [40, 10], [40, 40], [20, 40]]
    assert len(outer['disc']) == 64 and outer['disc'][0] == [60, 30]
    mask = object_of(got, 'mask')
    expected = np.zeros(SIZE, bool)
    expected[20:32, 10:24] = True
    expected[24:28, 14:18] = False
    assert (filled(mask) == expected).all() and len(mask['polygons'][0]['holes']) == 1
    assert len(object_of(got, 'two')['polygons']) == 2  # the box beside them is no part
    json.dumps(got, allow_nan=False).encode()


def test_a_file_is_wholly_the_same_after_an_unedited_save(root):
    written(root, foreign())
    raw = (root / 'a.json').read_bytes()
    folder = Folder(root)
    got = folder.read('a.png')
    for item in got['objects']:
        item['color'] = '#abcdef'  # which the page gives to what has none
    assert save(folder, got['objects'], got['revision'], digest='0' * 32) == got['revision']
    assert (root / 'a.json').read_bytes() == raw


def renamed(one):
    one['label'] = 'new'


def moved(one):
    one['polygons'][0]['outer'][0] = [2.5, 2.5]


def holed(one):
    one['polygons'][0]['holes'] = [[[3, 3], [3, 5], [5, 5]]]


def part_added(one):
    one['polygons'].append(dict(outer=ring(70, 40, 5), holes=[]))


def hidden(one):
    one['hidden'] = True


@pytest.mark.parametrize('label', list(SEEN))
@pytest.mark.parametrize('edit', [renamed, moved, holed, part_added, hidden, None])
def test_an_edit_changes_its_object_alone(root, label, edit):
    content = foreign()
    written(root, content)
    folder = Folder(root)
    got = folder.read('a.png')
    one = object_of(got, label)
    if edit is None:
        got['objects'].remove(one)
    else:
        edit(one)
    revision = save(folder, got['objects'], got['revision'])
    after = loaded(root)
    assert {key: value for key, value in after.items() if key not in ('shapes', 'simpleseg')} == {
        key: value for key, value in content.items() if key != 'shapes'}
    gone = {*SEEN[label]} if edit is None else set()
    beside = {8} if label == 'two' else set()  # goes with its object
    untouched = [json.dumps(one) for number, one in enumerate(content['shapes'])
                 if number not in {*SEEN[label], *beside}]
    rows = [json.dumps(one) for one in after['shapes']]
    assert [row for row in rows if row in untouched] == untouched
    changed = [row for row in after['shapes'] if json.dumps(row) not in untouched]
    assert len(changed) == (0 if gone else len(SEEN[label]) + len(beside)
                            + (edit is part_added) + (label == 'mask') * 0)
    for row in changed[:1]:
        kept = content['shapes'][SEEN[label][0]]
        for key in ('extra', 'other', 'flags', 'description', 'direction'):
            assert row.get(key) == kept.get(key)
        if edit in (renamed, hidden) or edit is part_added and label not in ('box', 'turned'):
            assert (row['shape_type'], row['points'], row['mask']) == (
                kept['shape_type'], kept['points'], kept['mask'])
        else:
            assert row['shape_type'] == 'polygon' and row['mask'] is None
        assert row['label'] == ('new' if edit is renamed else kept['label'] if isinstance(
            kept['label'], str) else label or 'object')
    again = folder.read('a.png')
    assert again['objects'] == got['objects'] and again['revision'] == revision
    assert len(again['notes']) == 1 and again['notes'][0].startswith('8 shapes are not shown')
    assert save(folder, again['objects'], revision) == revision


@pytest.mark.parametrize('edits', range(12))
def test_any_edits_in_any_order_come_back(root, edits):
    """What is saved is what is read, whatever was there before; nothing else is touched."""
    rng = random.Random(edits)
    for form in FORMS:
        if form == 'labelme':
            written(root, foreign())
        folder = Folder(root, form)
        got = folder.read('a.png')
        objects, revision = got['objects'], got['revision']
        for _ in range(8):
            for _ in range(rng.randrange(1, 4)):
                choice = rng.randrange(4)
                if choice == 0 or not objects:
                    objects.append(made(f'new{rng.random()}', rng.choice(['two', 'cup', 'new']),
                                        [HOLE] * rng.randrange(2), rng.randrange(1, 4)))
                elif choice == 1:
                    objects.pop(rng.randrange(len(objects)))
                else:
                    rng.choice([renamed, moved, holed, part_added, hidden,
                                lambda one: one['polygons'].reverse(),
                                lambda one: one.update(label='two'),
                                lambda one: len(one['polygons']) > 1 and one['polygons'].pop(0)])(
                        rng.choice(objects))
            revision = save(folder, copy.deepcopy(objects), revision)
            again = folder.read('a.png')
            assert again['revision'] == revision
            assert {one['id']: one['polygons'] for one in again['objects']} == {
                one['id']: one['polygons'] for one in objects}
            assert {one['id']: (one['label'], one.get('hidden', False))
                    for one in again['objects']} == {
                one['id']: (one['label'], one.get('hidden', False)) for one in objects}
            if form == 'labelme':
                kept = loaded(root)['shapes']
                for number in (4, 5, 9, 11, 12, 13, 14):
                    assert foreign()['shapes'][number] in kept
        os.remove(file_in(root, form))


def labelme_saves(root, change):
    """What LabelMe does: coordinates become floats, keys that it does not know stay."""
    content = loaded(root)
    for one in content['shapes']:
        one['points'] = [[float(x), float(y)] for x, y in one['points']]
        one.update(mask=None)
    change(content['shapes'])
    written(root, dict(content, version='6.2.0'))


@pytest.mark.parametrize('change, drawn_anew, holes', [
    (lambda shapes: None, 0, [0, 1, 2]),
    (lambda shapes: shapes[1].update(label='new'), 0, [0, 1, 2]),
    (lambda shapes: shapes[1]['points'][0].__setitem__(0, 3.0), 1, [0, 0, 2]),
    (lambda shapes: shapes.pop(3), 1, [0, 1, 2]),
    (lambda shapes: shapes[2].update(group_id=None), 2, [0, 1, 2, 0]),
    (lambda shapes: shapes.insert(0, copy.deepcopy(shapes[1])), 0, [1, 0, 1, 2]),
    (lambda shapes: shapes.pop(1), 0, [0, 2]),
    (lambda shapes: shapes[1].pop('simpleseg'), 0, [0, 0, 2]),
    (lambda shapes: shapes[1].update(simpleseg='x'), 0, [0, 0, 2]),
    (lambda shapes: shapes[1]['simpleseg'].update(polygon=dict(outer='x')), 0, [0, 0, 2]),
    (lambda shapes: shapes[1]['simpleseg'].update(id=[1], object=[2], label=3), 0, [0, 1, 2]),
    (lambda shapes: shapes[1]['simpleseg'].update(object=dict(actions=3, polygons=4, id=None,
                                                              score=float('nan')))
     , 0, [0, 1, 2])])
def test_what_labelme_changed_since_is_taken_from_it(root, change, drawn_anew, holes):
    folder = Folder(root)
    save(folder, [dict(one, score=0.5) for one in SHAPES[:3]])
    before = [one['id'] for one in folder.read('a.png')['objects']]
    labelme_saves(root, change)
    got = folder.read('a.png')
    assert [sum(len(part['holes']) for part in one['polygons'])
            for one in got['objects']] == holes
    said = [note for note in got['notes'] if 'drawn anew' in note]
    assert len(said) == bool(drawn_anew) and (not said or said[0].startswith(f'{drawn_anew} '))
    assert [one['score'] for one in got['objects']].count(None) == drawn_anew
    assert [one['edited'] for one in got['objects']].count(True) == drawn_anew
    ids = [one['id'] for one in got['objects']]
    assert len({*ids}) == len(ids) and all(isinstance(key, str) and key for key in ids)
    assert before[0] in ids
    json.dumps(got, allow_nan=False)
    got['objects'][0]['label'] = 'edited here'
    save(folder, got['objects'], got['revision'])
    assert folder.read('a.png')['objects'][0]['label'] == 'edited here'


def test_a_mask_that_labelme_packs_otherwise_is_the_same(root):
    written(root, dict(shapes=[foreign()['shapes'][3]]))
    folder = Folder(root)
    got = folder.read('a.png')
    got['objects'][0].update(score=0.5, label='named')
    save(folder, got['objects'], got['revision'])
    content = loaded(root)
    with Image.open(io.BytesIO(base64.b64decode(content['shapes'][0]['mask']))) as mask:
        out = io.BytesIO()
        mask.point(lambda value: value > 0).save(out, 'PNG', compress_level=0)
    content['shapes'][0]['mask'] = base64.b64encode(out.getvalue()).decode()
    written(root, content)
    again = folder.read('a.png')
    assert again['objects'] == got['objects'] and again['notes'] == []


def test_objects_of_one_label_and_group_are_never_joined(root):
    """A renamed object may come to have the label and the group of another."""
    written(root, dict(shapes=[shape('a', ring(0), group_id=1), shape('b', ring(30), group_id=1),
                               shape('c', ring(60), group_id='1'),
                               shape('d', ring(0, 30), group_id=1)]))
    folder = Folder(root)
    got = folder.read('a.png')
    for one in got['objects']:
        one['label'] = 'same'
    save(folder, got['objects'], got['revision'])
    assert len({str(one['group_id']) for one in loaded(root)['shapes']}) == 4
    assert folder.read('a.png')['objects'] == got['objects']


def test_two_shapes_alike_are_two_objects(root):
    written(root, dict(shapes=[shape(a=1), shape(a=2), shape(a=3)]))
    folder = Folder(root)
    got = folder.read('a.png')
    revision = save(folder, got['objects'][1:], got['revision'])  # as a page that does not reload
    assert [one['a'] for one in loaded(root)['shapes']] in ([1, 2], [2, 3])
    got['objects'][2]['hidden'] = True
    save(folder, got['objects'][1:], revision)
    assert [one['hidden'] for one in folder.read('a.png')['objects']] == [False, True]
    assert all('a' in one for one in loaded(root)['shapes'])


def test_labelme_finds_the_picture_and_its_size_after_a_save(root):
    written(root, dict(shapes=[], imagePath='C:\\pictures\\old.png', imageHeight=1, imageWidth=1,
                       flags={}, version='5.0.1', imageData=None))
    folder = Folder(root)
    got = folder.read('a.png')
    assert got['notes'] == ['the annotations say 1 x 1 pixels, the picture has 100 x 60: see '
                            'whether the outlines fit']
    save(folder, [made()], got['revision'])
    content = loaded(root)
    assert (content['imagePath'], content['imageHeight'], content['imageWidth']) == (
        'a.png', *SIZE)
    embedded = dict(content, imagePath='gone.png', imageHeight=1, imageWidth=1, imageData='AAAA')
    written(root, embedded)
    got = folder.read('a.png')
    save(folder, [], got['revision'])
    assert {key: loaded(root)[key] for key in embedded if key.startswith('image')} == {
        key: embedded[key] for key in embedded if key.startswith('image')}


# --- a COCO file --------------------------------------------------------------------------------
def rle(mask):
    """Run lengths, down the columns, background first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    return dict(size=list(mask.shape), counts=np.diff(ends, prepend=0).tolist())


def block(y1, y2, x1, x2, hole=None):
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    if hole:
        mask[slice(*hole[:2]), slice(*hole[2:])] = False
    return mask


def foreign_coco():
    from simpleseg_mm.polygon import mask_to_rle
    runs = mask_to_rle(block(5, 20, 5, 20, (8, 12, 8, 12)))
    return dict(
        info=dict(year=2017, x='y'), licenses=[dict(id=1)], custom=3,
        images=[dict(id=7, file_name='a.png', height=60, width=100, license=1, coco_url='u'),
                dict(id=8, file_name='elsewhere/b.png', height=10, width=10)],
        categories=[dict(id=3, name='cup', supercategory='s', keypoints=['k']),
                    dict(id=5, name='plate'), dict(id='x', name='text id')],
        annotations=[
            dict(id=11, image_id=7, category_id=3, iscrowd=0, area=400.5, bbox=[0, 0, 20, 20],
                 segmentation=[np.ravel(ring()).tolist()], score=0.5, extra=1,
                 keypoints=[1, 2, 2]),
            dict(id=12, image_id=7, category_id=5, iscrowd=0, segmentation=runs, area=209,
                 bbox=[5, 5, 15, 15]),
            dict(id=13, image_id=7, category_id=5, iscrowd=1, area=100, bbox=[50, 0, 10, 10],
                 segmentation=rle(block(0, 10, 50, 60))),
            dict(id=14, image_id=7, category_id='x', bbox=[60, 20, 10, 10]),
            dict(id=15, image_id=7, category_id=3, segmentation=[
                np.ravel(ring(30, 30, 9)).tolist(), np.ravel(ring(50, 30, 9)).tolist(), [1, 2]]),
            dict(id=21, image_id=8, category_id=3, segmentation=[np.ravel(ring()).tolist()]),
            dict(id=22, image_id=99, category_id=3, segmentation=[]),
            dict(id=31, image_id=7, category_id=3, segmentation=[[0, 0, 5, 'x', 5, 5]]),
            dict(id=32, image_id=7, category_id=3, segmentation=dict(size=[5, 5], counts=[25])),
            dict(id=33, image_id=7, category_id=3, segmentation=rle(block(0, 9, 0, 9)),
                 iscrowd='perhaps'), None, 'x', dict(id=34, image_id=7, category_id=3),
            dict(id=11, image_id=7, category_id=77, segmentation=[np.ravel(
                ring(70, 40)).tolist()])])


COCO_SEEN = {0: 'cup', 1: 'plate', 2: 'plate', 3: 'text id', 4: 'cup', 13: 'category 77'}


def write_coco(root, content=None):
    (root / 'annotations.json').write_text(json.dumps(content or foreign_coco()))


def test_what_a_coco_file_holds_is_shown_and_the_rest_is_told(root):
    write_coco(root)
    folder = Folder(root, 'coco')
    got = folder.read('a.png')
    assert [one['label'] for one in got['objects']] == list(COCO_SEEN.values())
    cup, plate, crowd, box, parts, _ = got['objects']
    assert cup['polygons'] == [dict(outer=ring(), holes=[])] and cup['score'] == 0.5
    assert (filled(plate) == block(5, 20, 5, 20, (8, 12, 8, 12))).all()
    assert (filled(crowd) == block(0, 10, 50, 60)).all()
    assert box['polygons'][0]['outer'] == ring(60, 20, 10)
    assert [part['outer'] for part in parts['polygons']] == [ring(30, 30, 9), ring(50, 30, 9)]
    assert got['notes'][0] == '1 objects have a box alone, which is shown as an outline'
    assert [got['notes'][1].find(text) >= 0 for text in (
        '4 annotations are not shown and stay as they are: annotation 31: polygon 0, coordinate 3',
        'annotation 32: the RLE', "annotation 33: iscrowd is 'perhaps'; 0 or 1")] == [True] * 3
    listing = folder.listing()
    assert listing['pictures'] == [dict(path='a.png', objects=10, done=False, fault='')]
    assert listing['notes'] == ["1 pictures of annotations.json are not in the folder; their "
                                "annotations stay: 'elsewhere/b.png'"]


@pytest.mark.parametrize('number', [None, *range(len(COCO_SEEN))])
@pytest.mark.parametrize('edit', [renamed, moved, holed, part_added, hidden, None])
def test_an_edit_changes_its_annotation_alone(root, number, edit):
    write_coco(root)
    raw, content = (root / 'annotations.json').read_bytes(), foreign_coco()
    folder = Folder(root, 'coco')
    got = folder.read('a.png')
    if number is None:
        assert save(folder, got['objects'], got['revision']) == got['revision']
        assert (root / 'annotations.json').read_bytes() == raw
        return
    row = list(COCO_SEEN)[number]
    if edit is None:
        del got['objects'][number]
    else:
        edit(got['objects'][number])
    revision = save(folder, got['objects'], got['revision'])
    after = loaded(root, 'coco')
    for key in ('info', 'licenses', 'custom'):
        assert after[key] == content[key]
    assert {key: after['images'][0][key] for key in content['images'][0]} == content['images'][0]
    assert after['images'][1:] == content['images'][1:]
    new = [dict(id=6, name='new')] if edit is renamed else []
    assert after['categories'] == content['categories'] + new
    rows = after['annotations']
    if edit is None:
        assert rows == content['annotations'][:row] + content['annotations'][row + 1:]
    else:
        assert rows[:row] + rows[row + 1:] == \
            content['annotations'][:row] + content['annotations'][row + 1:]
        one, was = rows[row], content['annotations'][row]
        for key in ('id', 'image_id', 'iscrowd', 'keypoints', 'extra'):
            assert one.get(key) == was.get(key)
        if edit in (renamed, hidden):
            for key in ('segmentation', 'bbox', 'area'):
                assert one.get(key) == was.get(key)
        else:
            assert one['bbox'] != was.get('bbox') or edit is holed or edit is moved
            assert isinstance(one['segmentation'], list) and one['area'] > 0
        assert one['category_id'] == (6 if edit is renamed else was['category_id'])
    again = folder.read('a.png')
    if edit is None:  # two have the id 11: of the one that is left it says nothing more
        for one in (*got['objects'], *again['objects']):
            one['id'] = one['id'].partition('.')[0]
    assert again['objects'] == got['objects'] and again['revision'] == revision
    if edit is not None:
        assert save(folder, again['objects'], revision) == revision


def test_pictures_of_one_file_have_revisions_of_their_own(root):
    picture(root / 'b.png')
    folder = Folder(root, 'coco')
    first = save(folder, [made()])
    save(folder, [made()], path='b.png')
    assert folder.read('a.png')['revision'] == first
    content = loaded(root, 'coco')
    content['categories'][0]['name'] = 'renamed by another program'
    write_coco(root, content)
    assert folder.read('a.png')['objects'][0]['label'] == 'renamed by another program'
    assert refused(folder, [], first, status=409).more['revision'] == folder.read('a.png')[
        'revision']


@pytest.mark.parametrize('names, file', [
    ([], 'annotations.json'), (['annotations.json', 'other.json'], 'annotations.json'),
    (['_annotations.coco.json'], '_annotations.coco.json'),
    (['annotations/instances.json'], 'annotations/instances.json'), (['a.json', 'b.json'], None)])
def test_which_coco_file_is_edited(root, names, file):
    (root / 'annotations').mkdir()
    (root / 'package.json').write_text('{"annotations": 1}')
    (root / 'broken.json').write_text('{"annotations": ')
    for name in names:
        (root / name).write_text(json.dumps(foreign_coco()))
    if file is None:
        with pytest.raises(ValueError, match='2 COCO files, such as a.json and b.json: name'):
            Folder(root, 'coco')
        return
    folder = Folder(root, 'coco')
    save(folder, [made('new')], folder.read('a.png')['revision'])
    assert json.loads((root / file).read_text())['annotations'][-1]['simpleseg']['id'] == 'new'


@pytest.mark.parametrize('images, counts, fault', [
    ([(1, 'x/a.png'), (2, 'y/a.png')], [1, 2], ''),
    ([(1, 'a.png'), (2, 'y/a.png')], [None, 2], ''),     # by its bare name it would be any
    ([(1, './x/a.png'), (1, 'y/a.png')], [1, 1], 'its image id is that of another picture'),
    ([(1, 'z/a.png'), (2, 'y/a.png')], [None, 2], ''),
    ([(1, 'x\\a.png'), (2, 'y/a.png'), (3, 'y/a.png')], [1, 3], '')])
def test_pictures_of_one_name_in_two_folders(tmp_path, images, counts, fault):
    for folder in 'xy':
        (tmp_path / folder).mkdir()
        picture(tmp_path / folder / 'a.png')
    write_coco(tmp_path, dict(
        images=[dict(id=key, file_name=name) for key, name in images],
        categories=[dict(id=1, name='cup')],
        annotations=[dict(id=number, image_id=key, category_id=1, segmentation=[
            np.ravel(ring(number)).tolist()])
            for number, key in enumerate(key for key in (1, 2, 2, 3) if key in dict(images))]))
    folder = Folder(tmp_path, 'coco')
    rows = {row['path']: row for row in folder.listing()['pictures']}
    assert [rows[f'{name}/a.png']['objects'] for name in 'xy'] == counts
    for name, count in zip('xy', counts):
        got = folder.read(f'{name}/a.png')
        assert got['fault'].find(fault) >= 0 and (fault or len(got['objects']) == (count or 0))
        if fault:
            refused(folder, [], got['revision'], path=f'{name}/a.png')


# --- turned pictures ----------------------------------------------------------------------------
@pytest.mark.parametrize('tag', range(2, 9))
@pytest.mark.parametrize('form, said', [
    ('labelme', None), ('labelme', 'upright'), ('labelme', 'stored'),
    ('coco', None), ('coco', 'upright'), ('coco', 'stored')])
def test_outlines_of_turned_pictures_lie_where_they_were_drawn(tmp_path, tag, form, said):
    """LabelMe shows pictures upright, COCO means them as they are stored; sizes tell otherwise."""
    picture(tmp_path / 'a.png', SIZE, tag)
    upright = SIZE[::-1] if tag >= 5 else SIZE
    way = (said if tag >= 5 else None) or ('upright' if form == 'labelme' else 'stored')
    size = SIZE if way == 'stored' else upright
    stated = {} if said is None else dict(zip(('height', 'width'), SIZE if said == 'stored' else
                                              upright))
    drawn = np.array([[5, 3], [25, 3], [25, 20], [11, 20]], float)
    mask = rings_to_mask([drawn], size, 'edges')
    runs, png = rle(mask), io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(png, 'PNG')
    if form == 'labelme':
        written(tmp_path, dict(shapes=[shape('drawn', drawn.tolist()), shape(
            'mask', [[0, 0], [1, 1]], 'mask', mask=base64.b64encode(png.getvalue()).decode())],
            **{f'image{key.title()}': value for key, value in stated.items()}))
    else:
        write_coco(tmp_path, dict(images=[dict(id=1, file_name='a.png', **stated)], categories=[
            dict(id=1, name='drawn'), dict(id=2, name='mask')], annotations=[
            dict(id=1, image_id=1, category_id=1, segmentation=[drawn.ravel().tolist()]),
            *([dict(id=2, image_id=1, category_id=2, segmentation=runs)] if tag < 5 or said
              else [])]))
    folder = Folder(tmp_path, form)
    got = folder.read('a.png')
    expected = turn_upright(mask, tag) if way == 'stored' else mask
    for one in got['objects']:
        shown = np.logical_or.reduce([rings_to_mask([np.array(part['outer'], float)], upright,
                                                    'edges') for part in one['polygons']])
        assert (shown == expected).all(), one['label']
    assert len(got['objects']) == (1 if form == 'coco' and tag >= 5 and said is None else 2)
    told = [note for note in got['notes'] if 'as it is stored' in note]
    assert len(told) == (way == 'stored')
    raw = file_in(tmp_path, form).read_bytes()
    assert save(folder, got['objects'], got['revision']) == got['revision']
    assert file_in(tmp_path, form).read_bytes() == raw
    new = dict(made('new'), polygons=[dict(got['objects'][0]['polygons'][0], holes=[
        (np.array(got['objects'][0]['polygons'][0]['outer']).mean(0)
         + [[0, 0], [0, 2], [2, 2]]).tolist()])])
    save(folder, [*got['objects'], new], got['revision'])
    again = folder.read('a.png')['objects']
    assert again[:-1] == got['objects'] and np.allclose(
        again[-1]['polygons'][0]['holes'], new['polygons'][0]['holes'])
    kept = loaded(tmp_path, form)
    record = (kept['shapes'] if form == 'labelme' else kept['annotations'])[-1]
    points = record['points'] if form == 'labelme' else np.reshape(record['segmentation'], (-1, 2))
    assert {*map(tuple, np.round(points, 6).tolist())} >= {*map(tuple, drawn.tolist())}


# --- pictures that change, files that are broken ------------------------------------------------
@pytest.mark.parametrize('form', FORMS)
def test_a_picture_that_changed_since_it_was_annotated(root, form):
    folder = Folder(root, form)
    digest = folder_module.digest_of((root / 'a.png').read_bytes())
    revision = save(folder, [made()], digest=digest)
    assert folder.read('a.png')['changed'] is False
    picture(root / 'a.png', SIZE, color=9)
    assert folder.read('a.png')['changed'] is True
    new = folder_module.digest_of((root / 'a.png').read_bytes())
    assert save(folder, [made()], revision, digest=digest) == revision  # of the one that was seen
    assert folder.read('a.png')['changed'] is True
    revision = save(folder, [made()], revision, digest=new)
    assert folder.read('a.png')['changed'] is False
    picture(root / 'a.png', (30, 40))
    got = folder.read('a.png')
    assert got['changed'] is True
    save(folder, got['objects'], revision)
    assert folder.read('a.png')['changed'] is False
    content = loaded(root, form)
    record = content['images'][0] if form == 'coco' else {
        key[5:].lower(): content[key] for key in ('imageHeight', 'imageWidth')}
    assert (record['height'], record['width']) == (30, 40)


BROKEN = {
    'cut': b'{"shapes": [{"label"', 'empty': b'', 'list': b'[]', 'null': b'null',
    'number': b'{"shapes": 5, "images": {}, "annotations": []}', 'nulls': b'{"shapes"\0: []}',
    'utf16': b'\xff\xfe{', 'deep': b'[' * 100_000, 'digits': b'{"shapes": ' + b'9' * 5000 + b'}',
    'own key': b'{"shapes": [], "simpleseg": "of another program", "categories": 3, "images": [],'
               b' "annotations": []}'}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('raw', BROKEN.values(), ids=list(BROKEN))
def test_what_cannot_be_read_is_told_and_never_written_over(root, form, raw):
    file_in(root, form).write_bytes(raw)
    folder = Folder(root, form)
    got = folder.read('a.png')
    assert got['objects'] == [] and got['fault'] and got['notes'][0].startswith(got['fault'])
    assert '\n' not in got['fault'] and len(got['fault']) < 400
    row, = folder.listing()['pictures']
    assert raw == BROKEN['own key'] and form == 'labelme' or row['fault']
    for force in (False, True):
        error = refused(folder, [made()], got['revision'], force=force)
        assert 'move it away' in error.detail
    assert file_in(root, form).read_bytes() == raw
    file_in(root, form).unlink()
    save(folder, [made()])
    assert folder.read('a.png')['fault'] == ''


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('kind', ['folder', 'link out', 'link to nothing', 'link in', 'large'])
def test_odd_places(root, form, kind, monkeypatch):
    file, outside = file_in(root, form), root.parent / f'{root.name}.json'
    outside.write_text('{"shapes": [], "images": [], "annotations": []}')
    if kind == 'folder':
        file.mkdir()
    elif kind == 'link out':
        file.symlink_to(outside)
    elif kind == 'link to nothing':
        file.symlink_to(root / 'none.json')
    elif kind == 'link in':
        (root / 'real').write_bytes(outside.read_bytes())
        file.symlink_to(root / 'real')
    else:
        file.write_bytes(outside.read_bytes())
        monkeypatch.setattr('simpleseg_mm.serving.folder_files.MAX_ANNOTATION_BYTES', 10)
    folder = Folder(root, form)
    got = folder.read('a.png')
    if kind == 'link in':
        save(folder, [made()], got['revision'])
        assert file.is_symlink() and b'one' in (root / 'real').read_bytes()
        return
    assert got['fault']
    refused(folder, [made()], got['revision'], force=True)
    assert not (root / 'none.json').exists() and b'one' not in outside.read_bytes()


def test_a_file_in_another_encoding(root):
    """UTF-16 says what it is; Windows-1252 is a guess, which a save would make the truth."""
    text = json.dumps(dict(shapes=[shape('Stra\xdfe')]), ensure_ascii=False)
    (root / 'a.json').write_bytes(text.encode('utf-16'))
    folder = Folder(root)
    got = folder.read('a.png')
    assert got['objects'][0]['label'] == 'Stra\xdfe' and got['fault'] == ''
    got['objects'][0]['hidden'] = True
    save(folder, got['objects'], got['revision'])
    assert loaded(root)['shapes'][0]['label'] == 'Stra\xdfe'
    (root / 'a.json').write_bytes(text.encode('cp1252'))
    got = folder.read('a.png')
    assert got['objects'][0]['label'] == 'Stra\xdfe' and 'not in UTF-8' in got['fault']
    refused(folder, got['objects'], got['revision'], force=True)
    assert (root / 'a.json').read_bytes() == text.encode('cp1252')


@pytest.mark.parametrize('form', FORMS)
def test_more_objects_than_are_edited(root, form, monkeypatch):
    many = [made(str(number)) for number in range(2001)]
    folder = Folder(root, form)
    revision = save(folder, many)
    assert len(folder.read('a.png')['objects']) == 2001
    monkeypatch.setattr(folder_module.folder_coco, 'MAX_FOLDER_OBJECTS', 2000)
    monkeypatch.setattr(folder_module.folder_labelme, 'MAX_FOLDER_OBJECTS', 2000)
    monkeypatch.setattr('simpleseg_mm.serving.folder_objects.MAX_FOLDER_OBJECTS', 2000)
    got = folder.read('a.png')
    assert '2,001 objects' in got['fault'] and '2,000' in got['fault']
    refused(folder, [], revision, force=True)
    with pytest.raises(ValueError, match='at most 2,000 objects; cut the picture'):
        save(folder, many, revision)
    monkeypatch.setattr('simpleseg_mm.serving.folder_objects.MAX_FOLDER_OBJECTS', 10_000)
    monkeypatch.setattr(folder_module.folder_coco, 'MAX_FOLDER_OBJECTS', 10_000)
    monkeypatch.setattr(folder_module.folder_labelme, 'MAX_FOLDER_OBJECTS', 10_000)
    monkeypatch.setattr('simpleseg_mm.serving.folder_objects.MAX_FOLDER_VERTICES', 8000)
    assert '8,004 vertices; at most 8,000' in folder.read('a.png')['fault']
    with pytest.raises(ValueError, match='8,004 vertices'):
        save(folder, many, revision)


# --- names --------------------------------------------------------------------------------------
def test_lists_are_sorted_as_people_sort():
    names = ['b', 'a10.jpg', 'a2.jpg', 'A3.jpg', 'a02.jpg', 'a.jpg', '10.jpg', '2.jpg',
             'a2b10.jpg', 'a2b9.jpg', '\u0663.jpg', '9' * 200]
    assert sorted(names, key=by_people) == [
        '2.jpg', '10.jpg', '9' * 200, 'a.jpg', 'a02.jpg', 'a2.jpg', 'a2b9.jpg', 'a2b10.jpg',
        'A3.jpg', 'a10.jpg', 'b', '\u0663.jpg']


@pytest.mark.parametrize('pictures, files, expected', [
    (['a.jpg'], {}, ['a.json']),
    (['a.jpg', 'a.png'], {}, ['a.json', 'a.png.json']),
    (['a.jpg', 'a.png'], {'a.json': 'a.png'}, ['a.jpg.json', 'a.json']),
    (['a.jpg', 'a.png'], {'a.json': 'a.jpg', 'a.png.json': 'a.png'}, ['a.json', 'a.png.json']),
    (['a.jpg', 'a.png'], {'a.json': 'old name.jpg'}, ['a.json', 'a.png.json']),
    (['a.jpg', 'a.png'], {'a.json': None}, ['a.json', 'a.png.json']),
    (['a.jpg', 'a.png'], {'a.jpg.json': 'a.jpg'}, ['a.jpg.json', 'a.png.json']),
    (['A.png', 'a.jpg'], {}, ['A.png.json', 'a.json']),  # a.json is A.json on some systems
    (['A.png', 'a.jpg'], {'A.json': 'A.png', 'a.json': 'a.jpg'}, ['A.json', 'a.json']),
    (['a.png', 'a.png.jpg'], {}, ['a.json', 'a.png.json']),
    (['a.jpg', 'a.png', 'a.png.jpg'], {'a.png.json': 'a.png.jpg'}, ['a.json', None, 'a.png.json']),
    (['e\u0301.jpg'], {'e\u0301.json': '\xe9.jpg'}, ['e\u0301.json'])])
def test_whose_file_it_is_where_pictures_share_a_name(pictures, files, expected):
    place = PictureFolder('', sorted(pictures, key=by_people), {name: Stamp(0, 0, 0)
                                                               for name in files})
    assert [file_of(place, name, files.get) for name in pictures] == expected


def test_pictures_that_share_a_name_have_files_of_their_own(tmp_path):
    for name in ('a.jpg', 'a.png', 'A.bmp'):
        picture(tmp_path / name)
    folder = Folder(tmp_path)
    names = [row['path'] for row in folder.listing()['pictures']]
    for name in reversed(names):
        save(folder, [made(name)], path=name)
    for name in names:
        assert folder.read(name)['objects'][0]['id'] == name
        assert folder.read(name)['revision']
    assert len([file for file in os.listdir(tmp_path) if file.endswith('.json')]) == 3
    for file in tmp_path.glob('*.json'):
        assert json.loads(file.read_text())['imagePath'] in names


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', [
    'a b.png', '50% #1?.png', 'a\\b.png', '\N{GRINNING FACE}.png', os.fsdecode(b'\xe9\xff.png'),
    '\u202e.png', 'a\nb.png', '"quoted".png', 'x' * 240 + '.PNG', '\u6f22' * 82 + '.png',
    'deep/er/a.png', 'a.b.c.png'])
def test_names_of_any_character(tmp_path, form, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    picture(tmp_path / name)
    folder = Folder(tmp_path, form)
    row, = folder.listing()['pictures']
    json.dumps(row, ensure_ascii=False).encode()
    revision = save(folder, [made()], path=row['path'])
    assert folder.read(row['path'])['revision'] == revision
    assert folder.listing()['pictures'][0]['objects'] == 1
    save(Folder(tmp_path, form), [], revision, path=row['path'])
    file = next(tmp_path.rglob('*.json'))
    content = json.loads(file.read_text())
    said = content['images'][0]['file_name'] if form == 'coco' else content['imagePath']
    assert (file.parent / said).is_file() and len(list(tmp_path.rglob('*'))) == 2 + (
        2 * ('deep' in name))


@pytest.mark.parametrize('path, status', [
    ('none.png', 404), ('', 404), ('.', 404), ('a.json', 404), ('.hidden.png', 404),
    ('x/../a.png', None), ('./a.png', None), ('a.png/', 404 if os.sep == '\\' else None),
    ('../out.png', 403), ('/etc/passwd', 403), ('link.png', 403), ('a.png\0', 403),
    ('x' * 5000 + '.png', 404), ('.git/a.png', 404)])
def test_what_is_no_picture_of_the_folder(root, path, status):
    picture(root / '.hidden.png')
    picture(root.parent / 'out.png')
    (root / '.git').mkdir()
    picture(root / '.git/a.png')
    (root / 'link.png').symlink_to(root.parent / 'out.png')
    (root / 'a.json').write_text('{"shapes": []}')
    folder = Folder(root)
    for call in (lambda: folder.read(path),
                 lambda: save(folder, [], path=path, force=True)):
        if status is None:
            call()
            continue
        with pytest.raises((HTTPException, PermissionError)) as info:
            call()
        assert getattr(info.value, 'status_code', 403) == status


# --- writing ------------------------------------------------------------------------------------
def failing(number):
    def fail(*args, **options):
        raise OSError(number, os.strerror(number))
    return fail


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('where', ['write', 'fsync', 'replace'])
@pytest.mark.parametrize('number, status, said', [
    (errno.ENOSPC, 507, 'the disk is full'), (errno.EDQUOT, 507, 'the disk is full'),
    (errno.EROFS, 423, 'Read-only file system'), (errno.EACCES, 423, 'Permission denied'),
    (errno.EBUSY, 423, 'resource busy'), (errno.EIO, 423, 'Input/output error')])
def test_a_write_that_fails_leaves_everything_as_it_was(root, monkeypatch, form, where, number,
                                                         status, said):
    folder = Folder(root, form)
    revision = save(folder, [made()])
    raw, files = file_in(root, form).read_bytes(), unordered(os.listdir(root))
    with monkeypatch.context() as patch:
        if where == 'write':
            patch.setattr('pathlib.Path.write_bytes', failing(number))
        else:
            patch.setattr(os, where, failing(number))
        for objects in ([], [made('new')]):
            error = refused(folder, objects, revision, status=status)
            assert said in error.detail and 'The file is as it was' in error.detail
            assert file_in(root, form).name in error.detail and str(root) not in error.detail
    assert file_in(root, form).read_bytes() == raw and os.listdir(root) == files
    assert folder.read('a.png')['objects'][0]['id'] == 'one'
    save(folder, [made('new')], revision)


@pytest.mark.parametrize('form', FORMS)
def test_what_a_killed_server_left_goes_with_the_next_save(root, form):
    code = ('import os, signal, sys\n'
            'from simpleseg_mm.serving.folder import Folder\n'
            'os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n'
            'Folder(sys.argv[1], sys.argv[2]).write("a.png", dict(objects=[]))\n')
    killed = subprocess.run([sys.executable, '-c', code, str(root), form])
    assert killed.returncode != 0 and len(os.listdir(root)) == 2  # half done, and hidden
    folder = Folder(root, form)
    assert folder.read('a.png')['revision'] is None and folder.listing()['notes'] == []
    save(folder, [made()])
    assert os.listdir(root) == unordered(['a.png', file_in(root, form).name])


@pytest.mark.skipif(sys.platform == 'win32', reason='limits and locks are of Unix')
def test_a_disk_that_is_really_full(root):
    """The system refuses the bytes in the middle of the file."""
    save(Folder(root), [made()])
    raw = (root / 'a.json').read_bytes()
    code = ('import resource, signal, sys\n'
            'from simpleseg_mm.serving.folder import Folder\n'
            'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
            'resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n'
            'folder = Folder(sys.argv[1])\n'
            'got = folder.read("a.png")\n'
            'got["objects"][0]["label"] = "x" * 9000\n'
            'try:\n'
            '    folder.write("a.png", got)\n'
            'except Exception as error:\n'
            '    print(error.status_code, error.detail)\n')
    result = subprocess.run([sys.executable, '-c', code, str(root)], capture_output=True,
                            text=True, check=True)
    assert result.stdout.startswith('507 a.json was not written, the disk is full'), result.stdout
    assert (root / 'a.json').read_bytes() == raw and len(os.listdir(root)) == 2


@pytest.mark.skipif(sys.platform == 'win32', reason='modes and locks are of Unix')
@pytest.mark.parametrize('form', FORMS)
def test_what_may_not_be_written_is_shown_all_the_same(root, form):
    folder = Folder(root, form)
    revision = save(folder, [made()])
    file_in(root, form).chmod(0o444)
    error = refused(folder, [], revision)
    assert f'{file_in(root, form).name} may not be written: allow it' in error.detail
    file_in(root, form).chmod(0o640)
    assert folder.about()['read_only'] is False
    root.chmod(0o555)
    try:
        assert folder.about()['read_only'] is True
        assert 'nothing can be written in this folder' in folder.listing()['notes'][0]
        assert len(folder.read('a.png')['objects']) == 1
        refused(folder, [], revision)
    finally:
        root.chmod(0o755)
    save(folder, [], revision)
    assert file_in(root, form).stat().st_mode & 0o777 == 0o640  # who may read it stays


@pytest.mark.skipif(sys.platform == 'win32', reason='modes and locks are of Unix')
@pytest.mark.parametrize('lock', ['flock', 'lockf'])
def test_a_file_that_another_program_holds(root, lock):
    folder = Folder(root)
    revision = save(folder, [made()])
    code = (f'import fcntl, sys\nfile = open(sys.argv[1], "r+")\nfcntl.{lock}(file, fcntl.LOCK_EX)'
            '\nprint("held", flush=True)\nsys.stdin.read()')
    holder = subprocess.Popen([sys.executable, '-c', code, str(root / 'a.json')],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b'held\n'
        assert 'another program holds a.json' in refused(folder, [], revision).detail
        assert folder.read('a.png')['objects']
    finally:
        holder.communicate()
    save(folder, [], revision)


@pytest.mark.parametrize('form', FORMS)
def test_a_revision_that_is_not_the_one_that_was_read(root, form):
    one, two = Folder(root, form), Folder(root, form)  # two servers, as it were
    assert refused(one, [], 'never read', status=409).more == dict(revision=None)
    first = save(one, [made()])
    error = refused(two, [], None, status=409)
    assert error.more == dict(revision=first) and 'read them again' in error.detail
    second = save(two, [made('two')], first)
    assert refused(one, [made('three')], first, status=409).more == dict(revision=second)
    assert one.read('a.png')['objects'][0]['id'] == 'two'
    third = save(one, [made('three')], first, force=True)
    assert two.read('a.png')['revision'] == third
    file_in(root, form).unlink()
    assert refused(one, [], third, status=409).more == dict(revision=None)
    assert one.read('a.png')['revision'] is None
    save(one, [made()])


def test_force_keeps_what_the_page_does_not_know(root):
    written(root, foreign())
    folder = Folder(root)
    got = folder.read('a.png')
    content = foreign()
    content['shapes'][0]['flags'] = dict(other=True)
    content['shapes'].append(shape('line too', [[1, 1], [2, 2]], 'line'))
    written(root, content)
    got['objects'][1]['label'] = 'renamed'
    save(folder, got['objects'], got['revision'], force=True)
    after = loaded(root)['shapes']
    assert after[0] == content['shapes'][0] and after[-1] == content['shapes'][-1]
    assert after[1]['label'] == 'renamed'


@pytest.mark.parametrize('form', FORMS)
def test_a_program_that_writes_at_the_same_moment_is_not_written_over(root, form, monkeypatch):
    folder = Folder(root, form)
    revision = save(folder, [made()])
    whole = folder_module.replacing
    other = file_in(root, form).read_text().replace('cup', 'their cup')

    @folder_module.contextmanager
    def replacing(path):
        with whole(path) as aside:
            path.write_text(other)
            yield aside
    monkeypatch.setattr(folder_module, 'replacing', replacing)
    refused(folder, [], revision, status=409)
    assert file_in(root, form).read_text() == other and len(os.listdir(root)) == 2
    monkeypatch.setattr(folder_module, 'replacing', whole)
    assert folder.read('a.png')['objects'][0]['label'] == 'their cup'


@pytest.mark.parametrize('form', FORMS)
def test_a_program_that_never_stops_writing(root, form, monkeypatch):
    folder = Folder(root, form)
    save(folder, [made()])
    whole, count = folder_module.replacing, iter(range(10**6))

    @folder_module.contextmanager
    def replacing(path):
        with whole(path) as aside:
            content = json.loads(path.read_text())
            path.write_text(json.dumps(dict(content, count=next(count))))
            yield aside
    monkeypatch.setattr(folder_module, 'replacing', replacing)
    error = refused(folder, [], None, force=True)
    assert 'all the time' in error.detail and len(os.listdir(root)) == 2


@pytest.mark.parametrize('form', FORMS)
def test_fifty_who_save_at_random_lose_nothing(tmp_path, form):
    """Every file is whole at each moment, and what was accepted is there until the next one."""
    names = [f'{number}.png' for number in range(20)]
    for name in names:
        picture(tmp_path / name, (8, 8))
    folder, accepted, faults = Folder(tmp_path, form), {name: [] for name in names}, []
    guard, stop = threading.Lock(), threading.Event()

    def work(seed):
        rng = random.Random(seed)
        try:
            for step in range(6):
                name = rng.choice(names)
                got = folder.read(name)
                seen = [one['id'] for one in got['objects']]
                key = f'{seed}-{step}'
                try:
                    revision = save(folder, [*got['objects'], made(key)], got['revision'],
                                    path=name)
                except HTTPException as error:
                    assert error.status_code == 409 and 'revision' in error.more
                    continue
                with guard:
                    accepted[name].append((seen, key, revision))
        except Exception as error:  # told by the main thread
            faults.append(error)

    def watch():
        while not stop.is_set():
            for file in tmp_path.glob('*.json'):
                if not file.name.startswith('.'):
                    json.loads(file.read_text())
            folder.listing()

    def watched():
        try:
            watch()
        except Exception as error:
            faults.append(error)
    watcher = threading.Thread(target=watched)
    watcher.start()
    threads = [threading.Thread(target=work, args=(seed, )) for seed in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()
    assert faults == []
    assert sum(map(len, accepted.values())) >= 20
    for name, saves in accepted.items():
        keys = [one['id'] for one in folder.read(name)['objects']]
        assert keys == unordered([key for _, key, _ in saves])  # each came on top of all before
        for seen, key, _ in saves:
            assert seen == keys[:keys.index(key)]
    assert len(os.listdir(tmp_path)) == 20 + (1 if form == 'coco' else sum(
        bool(saves) for saves in accepted.values()))


# --- lists --------------------------------------------------------------------------------------
def test_a_list_of_thousands_is_read_in_parts_and_once(tmp_path, monkeypatch):
    picture(tmp_path / '0.png', (8, 8))
    raw = (tmp_path / '0.png').read_bytes()
    for number in range(2000):
        (tmp_path / f'{number}.png').write_bytes(raw)
        (tmp_path / f'{number}.json').write_text(json.dumps(dict(shapes=[shape()])))
    folder, read = Folder(tmp_path), []
    summed = folder_module._summed
    monkeypatch.setattr(folder_module, '_summed', lambda *args: read.append(args) or summed(*args))
    monkeypatch.setattr(folder_module, '_LIST_SECONDS', -1.0)
    listing = folder.listing()
    assert [row['path'] for row in listing['pictures'][:11]] == [f'{n}.png' for n in range(11)]
    assert not read and {row['objects'] for row in listing['pictures']} == {None}
    assert listing['notes'] == ['the annotations of 2000 pictures are not read yet: ask again']
    monkeypatch.setattr(folder_module, '_LIST_SECONDS', 60.0)
    for _ in range(2):
        listing = folder.listing()
        assert {row['objects'] for row in listing['pictures']} == {1} and listing['notes'] == []
    assert len(read) == 2000  # each once
    (tmp_path / '7.json').write_text('{"shapes": []}')
    (tmp_path / '8.png').unlink()
    listing = folder.listing()
    assert [row['objects'] for row in listing['pictures'][6:9]] == [1, 0, 1]
    assert len(listing['pictures']) == 1999 and len(read) == 2001


def test_lists_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr('simpleseg_mm.serving.folder_files.MAX_PICTURES', 5)
    for name in [*(f'{number}.png' for number in range(4)), 'x/1.png', 'x/2.png', 'y/1.png']:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name, (8, 8))
    listing = Folder(tmp_path).listing()
    assert len(listing['pictures']) == 5
    assert listing['notes'] == ['2 more pictures are not listed: open a part of the folder']


def test_annotations_of_the_other_format_are_told(root):
    write_coco(root)
    assert Folder(root).listing()['notes'] == [
        'annotations.json is a COCO file: to edit it start the server with --annotations coco']
    written(root, foreign())
    assert '1 pictures have files of their own' in Folder(root, 'coco').listing()['notes'][-1]


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        Folder(tmp_path / 'none')
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        Folder(tmp_path / 'file')
    with pytest.raises(ValueError, match='choose from'):
        Folder(tmp_path, 'yolo')
    assert Folder(tmp_path).listing()['pictures'] == []
    assert Folder(tmp_path).id == Folder(tmp_path, 'coco').id != Folder('/').id


def test_a_picture_that_vanishes(root):
    folder = Folder(root)
    revision = save(folder, [made()])
    (root / 'a.png').unlink()
    refused(folder, [], revision, status=404)
    assert folder.listing()['pictures'] == [] and (root / 'a.json').exists()
    (root / 'a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='no picture that can be read'):
        folder.read('a.png')
