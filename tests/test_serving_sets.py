"""/api/sets and /api/read: data sets picture by picture, and annotation files of other tools."""
import base64
import io
import json
import zipfile
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import serving  # noqa: E402
from test_serving import call, png  # noqa: E402

from simpleseg_mm.polygon import rings_to_mask  # noqa: E402

SQUARE = dict(outer=[[10, 10], [40, 10], [40, 30], [10, 30]], holes=[])
RING = dict(outer=[[10, 10], [90, 10], [90, 45], [10, 45]],
            holes=[[[30, 20], [60, 20], [60, 30], [30, 30]]])


def thing(label='cup', *polygons, **more):
    return dict(id='k1', label=label, polygons=list(polygons or [SQUARE]), **more)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp('root')
    (root / 'a b').mkdir()
    (root / 'a b/é 100%.png').write_bytes(png(30, 20))
    (root / 'no.png').write_bytes(b'no picture')
    with serving(settings=dict(root=str(root))) as (url, _):
        yield url


def begin(url, format='coco', **more) -> str:
    status, _, row = call(url, 'POST', '/api/sets', dict(format=format, **more))
    assert status == 201, row
    return row['set']


def add(url, key, name='a.png', raw=None, objects=None, **more) -> int:
    status, _, row = call(url, 'POST', f'/api/sets/{key}/pictures?name={quote(name)}',
                          png() if raw is None else raw)
    assert status == 201, row
    if objects is not None:
        status, _, told = call(url, 'POST', f'/api/sets/{key}/objects',
                               dict(number=row['number'], objects=objects, **more))
        assert (status, told) == (200, dict(number=row['number'], objects=len(objects)))
    return row['number']


def fetch(url, key):
    """Files of the set, and notes."""
    status, headers, raw = call(url, 'GET', f'/api/sets/{key}')
    assert status == 200, raw
    assert headers['content-type'] == 'application/zip'
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    return files, json.loads(unquote(headers.get('x-notes', '[]')))


# --- sets: bad input ---------------------------------------------------------------------------
@pytest.mark.parametrize('body, message', [
    (dict(format='pascal'), "unknown format 'pascal'; choose from .*'yolo'"),
    (dict(), 'unknown format None'), (dict(format=['coco']), 'unknown format'),
    (dict(format='coco', exact=1), '`exact` is true or false')])
def test_sets_that_are_not_begun(server, body, message):
    status, _, row = call(server, 'POST', '/api/sets', body)
    assert status == 400
    assert __import__('re').search(message, row['error']), row


@pytest.mark.parametrize('path, body, status, message', [
    ('pictures?name=a.png', b'', 400, 'the picture is empty'),
    ('pictures', png(), 400, '`name` is the path of the picture'),
    ('pictures?name=' + 'a' * 1001, png(), 400, 'at most 1000 characters'),
    ('pictures?name=a.png', b'no picture', 400, 'a.png is no picture'),
    ('pictures?path=../x.png', b'', 403, 'outside the folder'),
    ('pictures?path=none.png', b'', 400, "no picture 'none.png'"),
    ('pictures?path=no.png', b'', 400, 'no.png is no picture'),
    ('objects', dict(number=1, objects=[]), 400, '0 to 0; got 1'),
    ('objects', dict(number=-1, objects=[]), 400, 'got -1'),
    ('objects', dict(number='0', objects=[]), 400, "got '0'"),
    ('objects', dict(number=0), 400, '`objects` is a list'),
    ('objects', dict(number=0, objects=[dict(label='a')]), 400, 'object 0: give dict'),
    ('objects', dict(number=0, objects=[thing('a', dict(outer=[[1, 2]]))]), 400, 'at least 3'),
    ('objects', dict(number=0, objects=[], done='yes'), 400, '`done` is true or false'),
    ('objects', dict(number=0, objects=[], rejected={}), 400, '`rejected` is a list')])
def test_what_is_not_added_leaves_the_set_as_it_was(server, path, body, status, message):
    key = begin(server)
    add(server, key, objects=[thing()])
    found, _, row = call(server, 'POST', f'/api/sets/{key}/{path}', body)
    assert (found, message in row['error']) == (status, True), row
    files, notes = fetch(server, key)
    assert sorted(files) == ['annotations/instances_default.json', 'images/a.png']
    assert len(json.loads(files['annotations/instances_default.json'])['annotations']) == 1
    assert notes == []


def test_sets_that_are_not_there(server):
    key = begin(server)
    assert call(server, 'DELETE', f'/api/sets/{key}')[0] == 204
    for method, path in (('GET', ''), ('DELETE', ''), ('POST', '/pictures?name=a.png'),
                         ('POST', '/objects')):
        status, _, row = call(server, method, f'/api/sets/{key}{path}', png())
        assert (status, row['error']) == (404, 'there is no such set (any more): begin it again')


def test_a_set_without_a_picture(server):
    status, _, row = call(server, 'GET', f'/api/sets/{begin(server)}')
    assert (status, row['error']) == (400, 'the set has no picture: send some first')


def test_sets_are_bounded(tmp_path):
    from simpleseg_mm.serving.sets import MAX_CLIENT_SETS
    with serving(settings=dict(set_mb=0.01)) as (url, _):
        keys = [begin(url) for _ in range(MAX_CLIENT_SETS + 1)]
        status, _, _ = call(url, 'POST', f'/api/sets/{keys[0]}/pictures?name=a.png', png())
        assert status == 404  # the one that was used longest ago has gone
        noise = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
                        ).save(noise, 'PNG')
        add(url, keys[1], raw=noise.getvalue())
        status, _, row = call(url, 'POST', f'/api/sets/{keys[2]}/pictures?name=a.png',
                              noise.getvalue())
        assert (status, row['error'][:37]) == (413, 'the sets have more than 0.01 MB: fetc')
        call(url, 'DELETE', f'/api/sets/{keys[1]}')
        add(url, keys[2], raw=noise.getvalue())


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    with serving() as (url, _):
        key = begin(url)
        add(url, key, objects=[thing()])
        fetch(url, key)
        assert len(list(tmp_path.rglob('*.zip'))) == 1
    assert not list(tmp_path.iterdir())


# --- sets --------------------------------------------------------------------------------------
def test_what_each_format_holds(server):
    """Two pictures of one name in two folders, one that looks like the first to tools, one of
    the server's folder, one without objects."""
    layouts = dict(
        coco={'annotations/instances_default.json', 'images/x/a.png', 'images/y/a.png',
              'images/x/a_1.jpg', 'images/a b/é 100%.png'},
        cvat={'annotations.xml', 'images/x/a.png', 'images/y/a.png', 'images/x/a_1.jpg',
              'images/a b/é 100%.png'},
        yolo={'data.yaml', 'classes.txt', 'images/x/a.png', 'images/y/a.png', 'images/x/a_1.jpg',
              'images/a b/é 100%.png', 'labels/x/a.txt', 'labels/y/a.txt', 'labels/x/a_1.txt',
              'labels/a b/é 100%.txt'},
        labelme={f'{name}{suffix}' for name, picture in (
            ('x/a', '.png'), ('y/a', '.png'), ('x/a_1', '.jpg'), ('a b/é 100%', '.png'))
            for suffix in ('.json', picture)},
        labelstudio={'tasks.json', 'label_config.xml', 'images/x/a.png', 'images/y/a.png',
                     'images/x/a_1.jpg', 'images/a b/é 100%.png'},
        parquet={'data/train-00000-of-00001.parquet'})
    info = call(server, 'GET', '/api/info')[2]
    assert {*layouts, 'svg', 'geojson'} <= {*info['sets'], 'parquet'}
    for format in set(layouts) & set(info['sets']):
        key = begin(server, format)
        add(server, key, 'x/a.png', objects=[thing('cup'), thing('ring', RING)])
        add(server, key, 'y/a.png', png(mode='L'), [thing('cup')])
        add(server, key, 'x/a.jpg', png(format='JPEG'))
        status, _, row = call(server, 'POST',
                              f'/api/sets/{key}/pictures?path={quote("a b/é 100%.png")}')
        assert (status, row) == (201, dict(number=3, width=30, height=20))
        files, notes = fetch(server, key)
        assert set(files) == layouts[format]
        assert notes[0] == ('1 pictures have another name in the set, as theirs was taken or is '
                            "none that tools find: 'x/a.jpg is x/a_1.jpg'")
        again, _ = fetch(server, key)  # not written again
        assert again == files


def test_an_object_is_where_it_was(server):
    key = begin(server, 'labelme', exact=True)
    add(server, key, objects=[thing('a, "b" / <c>&\n\x01d', RING)])
    files, notes = fetch(server, key)
    shape, = json.loads(files['a.json'])['shapes']
    assert shape['label'] == 'a, "b" / <c>& d'
    assert notes == ["1 labels hold line breaks or control characters, which became blanks: "
                     "'a, \"b\" / <c>& d'"]
    with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as mask:
        inside = np.array(mask) > 0
    (x1, y1), (x2, y2) = shape['points']
    whole = np.zeros((50, 100), bool)
    whole[y1:y2 + 1, x1:x2 + 1] = inside
    assert np.array_equal(whole, rings_to_mask([np.array(RING['outer'])], (50, 100), 'edges')
                          & ~rings_to_mask([np.array(RING['holes'][0])], (50, 100), 'edges'))


def test_tasks_of_label_studio(server):
    """Done or changed by hand: an annotation; else a prediction. A hole needs a brush."""
    key = begin(server, 'labelstudio')
    add(server, key, 'a#b?%.png', objects=[thing('cup', score=0.5)])
    add(server, key, 'c.png', objects=[thing('ring', RING)], done=True)
    add(server, key, 'd.png', objects=[thing('cup', edited=True)])
    files, notes = fetch(server, key)
    first, second, third = json.loads(files['tasks.json'])
    assert first['data']['image'] == '/data/local-files/?d=images/a%23b%3F%25.png'
    assert files['images/a#b?%.png']
    assert first['predictions'][0]['score'] == 0.5 and 'annotations' not in first
    region, = first['predictions'][0]['result']
    assert region['value'] == dict(points=[[10, 60], [40, 60], [40, 20], [10, 20]], closed=True,
                                   polygonlabels=['cup'])
    region, = second['annotations'][0]['result']
    assert region['type'] == 'brushlabels' and region['value']['brushlabels'] == ['ring']
    assert 'annotations' in third
    root = ElementTree.fromstring(files['label_config.xml'])
    for control in ('PolygonLabels', 'BrushLabels'):
        assert [one.get('value') for one in root.find(control)] == ['cup', 'ring']
    assert notes[0].startswith('Label Studio serves the pictures itself')


def test_corrections_are_what_own_data_takes(server):
    key = begin(server, 'corrections')
    origin = dict(prompt=dict(text='the cup'), polygons=[RING], score=0.25, model='nano')
    far = dict(outer=[[60, 35], [95, 35], [95, 48], [60, 48]], holes=[])
    add(server, key, 'a b.png', objects=[thing('cup', origin=origin, edited=True)], done=True,
        rejected=[dict(prompt=dict(text='a zebra'), polygons=[far], label='zebra', score=0.5,
                       model='nano')])
    files, notes = fetch(server, key)
    assert sorted(files) == ['annotations.json', 'images/a b.png']
    content = json.loads(files['annotations.json'])
    one, = content['annotations']
    assert one['correction']['question'] == dict(text='the cup')
    assert (one['correction']['before'][0]['outer'], one['phrase']) == (RING['outer'],
                                                                       ['the cup'])
    assert content['images'][0]['absent_phrases'] == ['a zebra']


def test_a_picture_that_changed_is_left_out_and_told(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(30, 20))
    with serving(settings=dict(root=str(tmp_path))) as (url, _):
        key = begin(url)
        assert call(url, 'POST', f'/api/sets/{key}/pictures?path=a.png')[0] == 201
        add(url, key, 'b.png')
        (tmp_path / 'a.png').write_bytes(png(31, 20))
        files, notes = fetch(url, key)
        assert sorted(files) == ['annotations/instances_default.json', 'images/b.png']
        assert notes == ['a.png is left out: a.png is 31 x 20 pixels, and its outlines are for '
                         '30 x 20: it has changed since']


@pytest.mark.slow
def test_thousands_of_objects(server):
    key = begin(server, 'yolo')
    raw = png(4000, 3000)
    objects = [thing(f'name {number % 7}', dict(outer=[[x, y], [x + 30, y], [x, y + 30]]))
               for number, (x, y) in enumerate((x, y) for x in range(0, 3900, 80)
                                               for y in range(0, 2900, 70))]
    assert len(objects) > 2000
    add(server, key, raw=raw, objects=objects)
    files, _ = fetch(server, key)
    assert len(files['labels/a.txt'].splitlines()) == len(objects)


# --- reading: bad input ------------------------------------------------------------------------
def read(url, files, *pictures, status=200):
    body = dict(files=[dict(path=path, **(dict(text=content) if isinstance(content, str) else
                                          dict(base64=base64.b64encode(content).decode())))
                       for path, content in files.items()],
                pictures=[dict(path=path, width=100, height=50) for path in pictures])
    found, _, row = call(url, 'POST', '/api/read', body)
    assert found == status, row
    return row


@pytest.mark.parametrize('body, message', [
    (b'{', 'the body is not JSON'), (b'[]', '`files` is a list'),
    (dict(files=[], pictures=3), '`pictures` is a list'),
    (dict(files=[dict(path=1)], pictures=[]), 'each with its `path`'),
    (dict(files=[dict(path='a.json')], pictures=[]), 'give its `text`'),
    (dict(files=[dict(path='a.json', base64='?')], pictures=[]), 'give its `text`'),
    (dict(files=[], pictures=[dict(path='a.png', width=0, height=5)]), 'whole pixels'),
    (dict(files=[], pictures=[dict(path='a.png', width=1, height=5),
                              dict(path='a.png/b.png', width=1, height=5)]), 'and of a folder')])
def test_reading_that_is_refused(server, body, message):
    status, _, row = call(server, 'POST', '/api/read', body)
    assert (status, message in row['error']) == (400, True), row


COCO = dict(images=[dict(id=1, file_name='a.png', width=100, height=50)],
            categories=[dict(id=1, name='cup')], annotations=[dict(
                id=1, image_id=1, category_id=1, iscrowd=0, bbox=[10, 10, 30, 20], area=600,
                segmentation=[[10, 10, 40, 10, 40, 30, 10, 30]])])


@pytest.mark.parametrize('files, notes', [
    ({'a.json': '{"images": [1'}, ['a.json is not read: a.json is not readable JSON']),
    ({'a.json': '{}'}, ['a.json is not read: a.json is neither a COCO file']),
    ({'a.xml': '<annotations><image'}, ['a.xml is not read: a.xml is no XML']),
    ({'a.xml': '<annotation/>'}, ["a.xml is not read: a.xml is <annotation>; give CVAT's"]),
    ({'a.zip': b'PK\x03\x04rubbish'}, ["'a.zip' is a zip that cannot be read"]),
    ({'labels/a.txt': '0 0 0 1 0 1 1'}, ["1 files .txt are not read: the names of their classes"]),
    ({'a.docx': 'x'}, ['1 files .docx are not read: they are no annotations']),
    ({'../../..': 'x'}, ["'../../..' is no path of a file"]),
    ({'data.yaml': 'names: ['}, ['data.yaml is not read: data.yaml is no YAML']),
    ({'b.json': json.dumps(dict(COCO, images=[dict(COCO['images'][0], file_name='b.png')]))},
     ['annotations of 1 pictures that are not open here are left out']),
    ({}, ['no file of annotations that can be read'])])
def test_files_that_are_not_read_are_told(server, files, notes):
    row = read(server, {**files}, 'a.png')
    assert row['pictures'] == []
    assert len(row['notes']) == len(notes), row
    for told, begins in zip(row['notes'], notes):
        assert told.startswith(begins) and '/tmp' not in told and '\n' not in told


def test_what_can_be_read_of_a_broken_file_is(server):
    content = dict(COCO, annotations=[
        *COCO['annotations'], 7, dict(COCO['annotations'][0], id=2, segmentation='x'),
        dict(COCO['annotations'][0], id=3, category_id=9),
        dict(COCO['annotations'][0], id=4, segmentation=[[1, 2, float('nan'), 4, 5, 6]])])
    row = read(server, {'annotations.json': json.dumps(content), 'more.json': '{'}, 'a.png')
    picture, = row['pictures']
    assert [one['label'] for one in picture['objects']] == ['cup', 'object']
    assert picture['objects'][0]['polygons'] == [dict(
        outer=[[10, 30], [40, 30], [40, 10], [10, 10]], holes=[])]
    assert sum(note.startswith('1 left out: ') or note.startswith('2 left out: ')
               for note in picture['notes'])
    assert any(note.startswith('more.json is not read') for note in row['notes'])


@pytest.mark.parametrize('size, note', [
    ((50, 100), "its annotations are for the picture as it is stored"),
    ((7, 9), 'its annotations are for a picture of 7 x 9 pixels, and it has 100 x 50')])
def test_annotations_of_another_size_are_not_read(server, size, note):
    content = dict(COCO, images=[dict(COCO['images'][0], width=size[0], height=size[1])])
    picture, = read(server, {'a.json': json.dumps(content)}, 'a.png')['pictures']
    assert picture['objects'] == [] and picture['notes'][0].startswith(note)


# --- reading what was written ------------------------------------------------------------------
@pytest.mark.parametrize('exact', [False, True])
@pytest.mark.parametrize('format', ['coco', 'cvat', 'yolo', 'labelme', 'labelstudio'])
def test_a_set_is_read_as_it_was_written(server, format, exact):
    """Holes and parts; two pictures of one name; names as tools dislike them; a zip alike."""
    if format == 'yolo' and exact:
        pytest.skip('its rings run through the centres of pixels, for the reader of YOLO alone')
    two = dict(outer=[[50, 5], [95, 5], [95, 8], [50, 8]], holes=[])
    truth = {'x/a.png': [thing('cup', SQUARE, score=0.25), thing('a, b/c', RING)],
             'y/a.png': [thing('naïve ☕', SQUARE, two)], 'e f%20.png': []}
    key = begin(server, format, exact=exact)
    for name, objects in truth.items():
        add(server, key, name, objects=objects, done=True)
    files, _ = fetch(server, key)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    texts = {name: content for name, content in files.items()
             if name.rpartition('.')[2] in ('json', 'xml', 'yaml', 'txt')}
    prefix = '' if format == 'labelme' else 'images/'
    for given, before in ((texts, prefix), (texts, ''), ({'my set.zip': packed.getvalue()}, '')):
        if format == 'labelme' and before:
            continue
        row = read(server, given, *(before + name for name in truth))
        found = {one['path'].removeprefix(before): one for one in row['pictures']}
        assert found.keys() == truth.keys(), row
        for name, objects in truth.items():
            assert found[name]['notes'] == []
            read_back = sorted((one['label'], filled(one)) for one in found[name]['objects'])
            written = sorted((one['label'], filled(one)) for one in objects)
            if format != 'yolo':
                assert {one['label']: one['score'] for one in found[name]['objects']} == {
                    one['label']: one.get('score') for one in objects}
            if format == 'yolo':  # parts are objects of their own
                assert {label for label, _ in read_back} == {label for label, _ in written}
                assert union(found[name]['objects']) == union(objects)
            else:
                assert read_back == written
            if format != 'labelstudio' and not exact and objects and name == 'x/a.png':
                assert [len(one['polygons'][0]['holes']) for one in sorted(
                    found[name]['objects'], key=lambda one: one['label'])] == [1, 0]


def filled(one) -> bytes:
    return np.packbits(mask_of(one)).tobytes()


def union(objects) -> bytes:
    return np.packbits(np.any([mask_of(one) for one in objects] or [np.zeros((50, 100))], axis=0)
                       ).tobytes()


def mask_of(one):
    mask = np.zeros((50, 100), bool)
    for polygon in one['polygons']:
        part = rings_to_mask([np.array(polygon['outer'], float)], (50, 100), 'edges')
        for hole in polygon['holes']:
            part &= ~rings_to_mask([np.array(hole, float)], (50, 100), 'edges')
        mask |= part
    return mask


def test_labels_without_data_yaml_have_their_names_from_a_list(server):
    """Label Studio's own export has classes.txt."""
    row = read(server, {'x/classes.txt': 'cup\nspoon\n', 'x/labels/a.txt': '1 0.1 .2 .4 .2 .4 .6'},
               'a.png')
    one, = row['pictures'][0]['objects']
    assert one['label'] == 'spoon' and one['polygons'][0]['outer'][0] in (
        [10, 10], [40, 10], [40, 30])


def test_boxes_alone_are_rectangles_and_those_beside_outlines_are_not(server):
    box = dict(COCO['annotations'][0], segmentation=[])
    content = dict(COCO, annotations=[*COCO['annotations'], dict(box, id=2),
                                      dict(box, id=3, bbox=[60, 20, 10, 20])])
    picture, = read(server, {'a.json': json.dumps(content)}, 'a.png')['pictures']
    assert [one['polygons'][0]['outer'] for one in picture['objects']] == [
        [[10, 30], [40, 30], [40, 10], [10, 10]], [[60, 40], [70, 40], [70, 20], [60, 20]]]
    assert picture['notes'] == ['1 boxes without an outline, read as rectangles']


def test_masks_of_voc(server):
    mask, classes = np.zeros((50, 100), np.uint8), np.zeros((50, 100), np.uint8)
    mask[10:30, 10:40] = 1
    mask[15:20, 20:30] = 0
    mask[40:, 90:] = 2
    classes[mask == 1], classes[mask == 2] = 15, 8  # person, cat
    for below in ('', 'x/'):  # datumaro keeps folders
        row = read(server, {f'VOC/SegmentationObject/{below}a.png': palette(mask),
                            f'VOC/SegmentationClass/{below}a.png': palette(classes)},
                   f'VOC/JPEGImages/{below}a.jpg', 'VOC/JPEGImages/y/a.jpg',
                   *(['VOC/JPEGImages/a.jpg'] if below else []))
        picture, = row['pictures']
        assert picture['path'] == f'VOC/JPEGImages/{below}a.jpg'
        assert {one['label'] for one in picture['objects']} == {'person', 'cat'}
        for one in picture['objects']:
            assert np.array_equal(mask_of(one), mask == (1 if one['label'] == 'person' else 2))


def palette(values) -> bytes:
    from simpleseg_mm.annotation.own_voc import _voc_color
    picture = Image.fromarray(values, 'P')
    picture.putpalette([value for number in range(256) for value in _voc_color(number)])
    out = io.BytesIO()
    picture.save(out, 'PNG')
    return out.getvalue()
