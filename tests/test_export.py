"""Annotation files, each read back by its own format's reader or its documented rule."""
import base64
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from shapely.geometry import shape

from simpleseg_mm.export import FORMATS, export, notes_of
from simpleseg_mm.export.prepare import picture_names
from simpleseg_mm.export.rings import centre_rings, keyhole
from simpleseg_mm.polygon import (Part, PolygonCodec, group_rings, mask_iou, mask_to_box,
                                  mask_to_parts, rings_to_mask, segmentation_to_mask, signed_area)
from simpleseg_mm.structures import FileNames, Prompt, Segmentation

CODEC = PolygonCodec(tokens=150)


def made(shape, text='red "<cup> & co"', index=0, image='photo.jpg', codec=CODEC, **changes):
    """What a model says that writes the mask as well as its codec can."""
    written = codec.encode(shape)
    decoded = codec.decode(written, shape.shape)
    return Segmentation(**{**dict(
        image=image, size=shape.shape, prompt=Prompt(text=text),
        parts=tuple(codec.parts(decoded.rings)), mask=decoded.mask, box=mask_to_box(decoded.mask),
        text=written, confidence=0.75, valid=True, finished=True, says_nothing=False,
        num_tokens=9, seconds=0.1, codec=codec.spec, index=index), **changes})


def ring_mask():
    """An island within a hole, a second part that touches by a corner, one-pixel lines."""
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:30] = True
    mask[9:21, 9:26] = False
    mask[13:17, 14:20] = True
    mask[25:30, 30:40] = True
    mask[33, 3:50] = True
    mask[2, 2] = mask[0, 59] = mask[39, 59] = True
    return mask


def noise(seed, share=0.5):
    return np.random.default_rng(seed).random((24, 31)) < share


MASKS = {'rings': ring_mask(), 'whole': np.ones((7, 9), bool),
         'pixel': np.eye(1, 12, 5, dtype=bool).reshape(3, 4), 'diagonal': np.eye(9, dtype=bool),
         'noise': noise(0), 'dense noise': noise(1, 0.8)}


# --- the readers ---------------------------------------------------------------------------------
def read_coco(folder, size):
    coco = COCO(folder / 'coco.json')
    return [coco.annToMask(annotation).astype(bool) for annotation in coco.loadAnns(
        coco.getAnnIds())]


def read_labelme(folder, size):
    """LabelMe's utils.shapes_to_label: PIL's polygon with outline, masks pasted into their box,
    one instance a (label, group_id)."""
    content = json.loads(next(folder.glob('*.json')).read_text())
    assert (content['imageHeight'], content['imageWidth']) == size
    found = {}
    for one in content['shapes']:
        mask = found.setdefault((one['label'], one['group_id']), np.zeros(size, bool))
        if one['shape_type'] == 'mask':
            (x1, y1), (x2, y2) = np.asarray(one['points']).astype(int)
            picture = Image.open(io.BytesIO(base64.b64decode(one['mask'])))
            mask[y1:y2 + 1, x1:x2 + 1] = np.asarray(picture).astype(bool)
        else:
            canvas = Image.new('L', size[::-1])
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in one['points']], outline=1, fill=1)
            mask |= np.asarray(canvas).astype(bool)
    return list(found.values())


def read_geojson(folder, size):
    """shapely's reader; a pixel belongs to what its centre lies in."""
    content = json.loads(next(folder.glob('*.geojson')).read_text())
    y, x = np.indices(size) + 0.5
    geometries = [shape(feature['geometry']) for feature in content['features']]
    for geometry in geometries:
        shapely.prepare(geometry)
    return [shapely.contains_xy(geometry, x, y) for geometry in geometries]


def read_svg(folder, size):
    """resvg's rendering of one path at a time; a pixel counts from half of the paint on."""
    resvg = pytest.importorskip('resvg_py')
    root = ElementTree.parse(next(folder.glob('*.svg'))).getroot()
    group = root[0]
    paths = list(group)
    masks = []
    for path in paths:
        group[:] = [path]
        png = bytes(resvg.svg_to_bytes(svg_string=ElementTree.tostring(root, 'unicode')))
        alpha = np.asarray(Image.open(io.BytesIO(png)).convert('RGBA'))[..., 3]
        assert alpha.shape == size
        masks.append(alpha >= 64)  # opacity 0.5 of a pixel half covered
    return masks


def read_yolo(folder, size):
    """The rule of ultralytics' polygon2mask: shares times the size, cut to whole numbers,
    cv2.fillPoly. A row is an object; these tests have one object."""
    mask = np.zeros(size, np.uint8)
    for row in next(p for p in folder.glob('*.txt') if p.stem != 'classes').read_text().split(
            '\n'):
        if row:
            number, *shares = row.split(' ')
            points = np.array(shares, np.float32).reshape(-1, 2) * np.array(size[::-1])
            assert number == '0' and (0 <= points).all() and len(points) >= 3
            cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return [mask > 0]


def read_cvat(folder, size):
    """CVAT's manual, XML 1.1 for images: polygons of one group; runs in the box, row by row."""
    root = ElementTree.parse(folder / 'cvat.xml').getroot()
    assert root.find('version').text == '1.1'
    found = {}
    for one in root.find('image'):
        mask = found.setdefault(one.get('group_id'), np.zeros(size, bool))
        if one.tag == 'mask':
            left, top, width, height = (int(one.get(k)) for k in ('left', 'top', 'width',
                                                                  'height'))
            runs = np.array(one.get('rle').split(', '), int)
            values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
            mask[top:top + height, left:left + width] |= values > 0
        else:
            points = [tuple(map(float, p.split(','))) for p in one.get('points').split(';')]
            mask |= rings_to_mask([np.array(points)], size, 'edges')
    return list(found.values())


READERS = dict(coco=read_coco, labelme=read_labelme, geojson=read_geojson, svg=read_svg,
               yolo=read_yolo, cvat=read_cvat)


def test_every_format_has_a_reader():
    assert set(READERS) == set(FORMATS)


@pytest.fixture(scope='module')
def photo_results(real_data):
    """Objects of real photos: with holes, with parts, plain; (result, true mask)."""
    coco = COCO(real_data / 'coco_photos/instances.json')
    wanted = dict(holed=8, parted=6, plain=2)
    found = []
    for annotation in coco.loadAnns(coco.getAnnIds()):
        size = coco.imgs[annotation['image_id']]
        if annotation['area'] < 400 or len(found) == 16:
            continue
        mask = segmentation_to_mask(annotation['segmentation'], size['height'], size['width'])
        parts = mask_to_parts(mask)
        kind = ('holed' if any(part.holes for part in parts) else
                'parted' if len(parts) > 1 else 'plain')
        if wanted[kind]:
            wanted[kind] -= 1
            found.append((made(mask), mask))
    assert not any(wanted.values())
    return found


# --- exact ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('format', READERS)
@pytest.mark.parametrize('name', MASKS)
def test_exact_is_exact(format, name, tmp_path):
    mask = MASKS[name]
    export([made(mask, mask=mask)], tmp_path, format, exact=True)
    found, = READERS[format](tmp_path, mask.shape)
    assert np.array_equal(found, mask)


@pytest.mark.parametrize('format', READERS)
def test_exact_is_exact_on_photos(format, photo_results, tmp_path):
    for number, (result, mask) in enumerate(photo_results):
        folder = tmp_path / str(number)
        export([replace(result, mask=mask)], folder, format, exact=True)
        found, = READERS[format](folder, mask.shape)
        assert mask_iou(found, mask) == 1.0, number


# --- the model's own vertices --------------------------------------------------------------------
@pytest.mark.parametrize('format, least', [('coco', 0.97), ('labelme', 0.90), ('geojson', 0.999),
                                           ('svg', 0.97), ('yolo', 0.90), ('cvat', 0.999)])
def test_sparse_keeps_the_topology(format, least, photo_results, tmp_path):
    ious = []
    for number, (result, _) in enumerate(photo_results):
        folder = tmp_path / str(number)
        export([result], folder, format)
        found, = READERS[format](folder, result.size)
        ious.append(mask_iou(found, result.mask))
    print(format, np.mean(ious), min(ious))
    assert np.mean(ious) > least, ious


def test_sparse_vertices_are_the_models(tmp_path):
    result = made(ring_mask()[:30], codec=PolygonCodec(tokens=None))
    export([result], tmp_path, 'geojson')
    written = json.loads((tmp_path / 'photo.geojson').read_text())['features'][0]
    rings = [ring for polygon in written['geometry']['coordinates'] for ring in polygon]
    points = {tuple(point) for ring in rings for point in ring}
    model = {tuple(np.round(point, 3)) for part in result.parts for ring in part.rings
             for point in ring}
    assert points == model and written['properties']['confidence'] == 0.75
    for polygon in written['geometry']['coordinates']:
        assert all(ring[0] == ring[-1] for ring in polygon)
        assert shapely.LinearRing(polygon[0]).is_ccw
        assert not any(shapely.LinearRing(hole).is_ccw for hole in polygon[1:])


@pytest.mark.parametrize('name', MASKS)
def test_exact_geometry_is_valid(name):
    """Of simple features: what shapely, PostGIS and QuPath take without repair."""
    parts = mask_to_parts(MASKS[name])
    polygons = shapely.MultiPolygon([(part.outer, part.holes) for part in parts])
    assert polygons.is_valid, shapely.is_valid_reason(polygons)
    assert polygons.area == MASKS[name].sum()
    for part in parts:
        assert signed_area(part.outer) < 0 and all(signed_area(hole) > 0 for hole in part.holes)


def test_coco_is_polygons_unless_exact(tmp_path):
    solid = np.zeros((20, 30), bool)
    solid[2:9, 3:12] = solid[12:18, 15:28] = True
    holed = solid.copy()
    holed[4:7, 5:9] = False
    export([made(solid, 'solid'), made(holed, 'holed', index=1, image='b.jpg')], tmp_path, 'coco')
    content = json.loads((tmp_path / 'coco.json').read_text())
    first, second = content['annotations']
    assert len(first['segmentation']) == 2 and len(second['segmentation']) == 2
    assert {len(ring) for ring in second['segmentation']} == {8, 2 * (4 + 4 + 2)}  # cut open
    assert [c['name'] for c in content['categories']] == ['solid', 'holed']
    assert first['area'] == solid.sum() and second['area'] == holed.sum()
    assert first['bbox'] == [3, 2, 25, 16] and first['score'] == 0.75
    assert [i['file_name'] for i in content['images']] == ['photo.jpg', 'b.jpg']


def test_several_pictures_and_empty_answers(tmp_path):
    mask, nothing = ring_mask(), np.zeros((40, 60), bool)
    results = [made(mask, 'a cup', 0, 'x/photo.jpg'), made(mask, 'a dog', 0, 'x/photo.jpg'),
               made(nothing, 'a cup', 1, 'y/photo.jpg', box=None)]
    for format in FORMATS:
        export(results, tmp_path, format)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'coco.json', 'cvat.xml', 'classes.txt', 'data.yaml'} | {
        f'photo{k}{suffix}' for k in ('', '_1')
        for suffix in ('.json', '.geojson', '.svg', '.txt')}
    assert (tmp_path / 'classes.txt').read_text() == 'a cup\na dog\n'
    assert (tmp_path / 'photo_1.txt').read_text() == ''
    rows = (tmp_path / 'photo.txt').read_text().split('\n')[:-1]
    assert {row.split()[0] for row in rows} == {'0', '1'}
    assert json.loads((tmp_path / 'photo_1.geojson').read_text())['features'] == []
    assert len(json.loads((tmp_path / 'coco.json').read_text())['images']) == 2
    root = ElementTree.parse(tmp_path / 'cvat.xml').getroot()
    assert len(root.findall('image')) == 2 and not len(root.findall('image')[1])


def test_names_of_files():
    names = FileNames()
    found = [names.of(*one) for one in [
        ('0', 0), ('1', 1), ('photos/000000000009.jpg', 2), ('a/b.png', 3), ('c/b.jpg', 3),
        ('http://x/d.png?size=1.5', 4), ('b_1.png', 5), ('http://x/', 6), ('7.png', 7)]]
    assert found == ['00000000', '00000001', '000000000009', 'b', 'b_1', 'd', 'b_1_1', 'x', '7']


def test_unknown_format_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown format 'pascal'.*labelme"):
        export([], tmp_path, 'pascal')


# --- how sure it is -----------------------------------------------------------------------------
def told_by(point) -> float:
    """An uncertainty that says of which vertex it is."""
    return round(point[0] + point[1] / 64, 2)


def voted(mask, **changes):
    """A vote, whose vertices each have an uncertainty of their own."""
    result = made(mask, agreement=0.5, **changes)
    return replace(result, spread=tuple(
        tuple(np.array([[0, told_by(point)] for point in ring]) for ring in part.rings)
        for part in result.parts))


def told_labelme(folder):
    for one in json.loads((folder / 'photo.json').read_text())['shapes']:
        yield one['score'], one['agreement'], list(zip(one['points'], one['uncertainty'],
                                                       strict=True))


def told_coco(folder):
    for one in COCO(folder / 'coco.json').dataset['annotations']:
        pairs = [pair for ring, widths in zip(one['segmentation'], one['uncertainty'], strict=True)
                 for pair in zip(zip(ring[::2], ring[1::2]), widths, strict=True)]
        yield one['score'], one['agreement'], pairs


def told_geojson(folder):
    for feature in json.loads((folder / 'photo.geojson').read_text())['features']:
        told, polygons = feature['properties'], feature['geometry']['coordinates']
        pairs = [pair for polygon, widths in zip(polygons, told['uncertainty'], strict=True)
                 for ring, numbers in zip(polygon, widths, strict=True)
                 for pair in zip(ring, numbers, strict=True)]
        yield told['confidence'], told['agreement'], pairs


def told_svg(folder):
    root = ElementTree.parse(folder / 'photo.svg').getroot()
    path, = root[0]
    circles = [[float(one.get(key)) for key in ('cx', 'cy', 'r')] for one in root[1]]
    written = re.findall(r'([\d.]+),([\d.]+)', path.get('d'))
    assert sorted((x, y) for x, y, _ in circles) == sorted(
        (float(x), float(y)) for x, y in written)
    yield (float(path.get('data-confidence')), float(path.get('data-agreement')),
           [((x, y), r) for x, y, r in circles])


@pytest.mark.parametrize('told, format', [(told_labelme, 'labelme'), (told_coco, 'coco'),
                                          (told_geojson, 'geojson'), (told_svg, 'svg')])
def test_each_point_has_its_own_uncertainty(told, format, tmp_path):
    """Also where holes are cut open, parts are several and rings are turned round."""
    result = voted(ring_mask()[:30])
    assert len(result.parts) > 1 and any(part.holes for part in result.parts)
    export([result], tmp_path, format)
    points = set()
    for score, agreement, pairs in told(tmp_path):
        assert (score, agreement) == (0.75, 0.5)
        for point, width in pairs:
            assert width == pytest.approx(told_by(point), abs=0.011)
            points.add(tuple(point))
    assert points == {tuple(np.round(point, 3)) for part in result.parts for ring in part.rings
                      for point in ring}


@pytest.mark.parametrize('format', ['labelme', 'coco', 'geojson', 'svg'])
def test_outlines_of_pixels_and_answers_without_a_vote_have_no_uncertainty(format, tmp_path):
    for name, result, exact in (('exact', voted(ring_mask()), True),
                                ('greedy', made(ring_mask()), False),
                                ('cut', replace(drawn(BEYOND['two parts']), agreement=0.5, spread=(
                                    (np.zeros((4, 2)), ), ) * 2), False)):
        export([result], tmp_path / name, format, exact)
        text = next((tmp_path / name).iterdir()).read_text()
        assert 'uncertainty' not in text and ('agreement' in text) is (name != 'greedy')
        assert '0.75' in text
    assert notes_of([result], format) == ['1 of 1 objects leave the picture and are cut at its '
                                          'border, without how sure their vertices are']


def test_a_confidence_of_0_is_written_and_an_unknown_one_is_not(tmp_path):
    results = [made(ring_mask(), index=0, confidence=0.0), made(ring_mask(), confidence=None)]
    for format in FORMATS:
        export(results, tmp_path, format)
    shapes = json.loads((tmp_path / 'photo.json').read_text())['shapes']
    assert {one.get('score') for one in shapes if one['group_id'] == 0} == {0.0}
    assert not any('score' in one for one in shapes if one['group_id'] == 1)
    found = json.loads((tmp_path / 'coco.json').read_text())['annotations']
    assert [one.get('score') for one in found] == [0.0, None]
    paths = ElementTree.parse(tmp_path / 'photo.svg').getroot()[0]
    assert [one.get('data-confidence') for one in paths] == ['0.0000', None]
    root = ElementTree.parse(tmp_path / 'cvat.xml').getroot()
    assert [[attribute.text for attribute in one] for one in root.find('image')] == [
        ['0.0000'], []]
    assert [one.text for one in root.iterfind('meta//attribute/name')] == ['confidence']


# --- beyond the picture, odd labels and names -------------------------------------------------
def drawn(rings, size=(20, 30), text='cat', **changes):
    """What a program draws: rings in pixels that may leave the picture."""
    rings = [np.array(ring, float) for ring in rings]
    mask = rings_to_mask(rings, size, 'edges')
    return made(np.zeros(size, bool), text, **{**dict(
        parts=tuple(group_rings(rings)), mask=mask, box=mask_to_box(mask)), **changes})


def box(x1, y1, x2, y2):
    return [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]


BEYOND = {
    'corner': [box(-5, -5, 10, 12)], 'side': [box(20, 5, 1000, 9)],
    'around': [box(-10, -10, 50, 50)], 'with a hole': [box(-5, 2, 12, 18), box(-2, 5, 6, 9)[::-1]],
    'a hole on the border': [box(-5, -5, 20, 15), box(-9, 2, 5, 9)[::-1]],
    'cut in two': [[[5, -9], [5, 8], [10, 8], [10, -4], [20, -4], [20, 6], [24, 6], [24, -9]]],
    'two parts': [box(-5, 2, 5, 8), box(25, 2, 90, 8)],
    'slanted': [[[-7.3, 3.1], [13.7, 25.9], [33.3, -4.2]]],
    'crossing itself': [[[-5, 2], [35, 15], [35, 2], [-5, 15]]],
    'around and back': [[[-5, 2], [10, 2], [10, 9], [-5, 9], [-5, 2], [10, 2], [10, 9], [-5, 9]]]}


@pytest.mark.parametrize('format', READERS)
@pytest.mark.parametrize('name', BEYOND)
def test_outlines_are_cut_at_the_border(format, name, tmp_path):
    """yolov5 #10632, ultralytics #13924: a number beyond 0..1 and the whole picture is dropped."""
    result = drawn(BEYOND[name])
    export([result], tmp_path, format)
    found, = READERS[format](tmp_path, result.size)
    if format in ('geojson', 'cvat'):  # which say the same as the mask
        assert np.array_equal(found, result.mask)
    if format in ('yolo', 'labelme'):  # which are filled with their outline
        around = cv2.dilate(result.mask.astype(np.uint8), np.ones((3, 3))) > 0
        assert not (found & ~around).any() and mask_iou(found, result.mask) > 0.7
    else:
        assert mask_iou(found, result.mask) > 0.9
    assert notes_of([result], format) == ['1 of 1 objects leave the picture and are cut at its '
                                          'border']
    if format == 'yolo':
        values = [float(value) for row in (tmp_path / 'photo.txt').read_text().splitlines()
                  for value in row.split()[1:]]
        assert min(values) >= 0 and max(values) <= 1
    if format == 'coco':
        points = json.loads((tmp_path / 'coco.json').read_text())['annotations'][0][
            'segmentation']
        assert all(0 <= v <= limit for ring in points for v, limit in zip(ring, [30, 20] * 99))


@pytest.mark.parametrize('format', READERS)
@pytest.mark.parametrize('exact', [False, True])
def test_what_has_no_pixel_is_left_out_and_told(format, exact, tmp_path):
    results = [drawn([box(2, 2, 9, 9)]), drawn([box(200, 2, 210, 9)]),
               drawn([box(3.2, 3.2, 3.3, 3.3)]), drawn([], says_nothing=True)]
    export(results, tmp_path, format, exact)
    assert len(READERS[format](tmp_path, (20, 30))) == 1
    assert notes_of(results, format)[0] == ('2 of 3 objects have no pixel in the picture and are '
                                            'left out')
    if format == 'yolo':
        assert len((tmp_path / 'photo.txt').read_text().splitlines()) == 1


@pytest.mark.parametrize('names, told', [
    (['a/0.png', 'a/1.png'], 0), (['a/0.png', 'a/0.jpg'], 2), (['a/0.png', 'b/0.png'], 2),
    (['a/IMG.png', 'a/img.png', 'a/c.png'], 2)])
def test_labels_of_yolo_that_belong_to_several_pictures_are_told(names, told):
    results = [drawn([box(2, 2, 9, 9)], image=name, index=k) for k, name in enumerate(names)]
    assert [note.split()[0] for note in notes_of(results, 'yolo')] == ([str(told)] if told else [])
    assert not notes_of(results, 'coco')


ODD = ['a\nb', 'a\r\nb', 'a\u2028b', 'a\u2029b', 'a\x85b', 'a\x0bb', 'a\x0cb', 'a\x1cb', 'a\0b',
       'a\x1b\x07b', 'a\ufffeb', '\na\nb\t']


@pytest.mark.parametrize('label', ODD)
def test_labels_are_one_line_everywhere(label, tmp_path):
    results = [drawn([box(2, 2, 9, 9)], text=label), drawn([box(12, 2, 19, 9)], text='second')]
    for format in FORMATS:
        export(results, tmp_path, format)
        note, = notes_of(results, format)
        assert '1 labels hold line breaks' in note and '\n' not in note
        assert format == 'yolo' or len(READERS[format](tmp_path, (20, 30))) == 2
    assert (tmp_path / 'classes.txt').read_text() == 'a b\nsecond\n'
    assert [row.split()[0] for row in (tmp_path / 'photo.txt').read_text().splitlines()
            ] == ['0', '1']
    assert '  0: "a b"\n  1: "second"\n' in (tmp_path / 'data.yaml').read_text()
    cvat = ElementTree.parse(tmp_path / 'cvat.xml')
    assert {one.get('label') for one in cvat.iter('polygon')} == {'a b', 'second'}
    assert [one.text for one in cvat.iterfind('meta/task/labels/label/name')] == [
        'a b', 'second']
    titles = [one.text for one in ElementTree.parse(tmp_path / 'photo.svg').iter(
        '{http://www.w3.org/2000/svg}title')]
    assert titles == ['a b', 'second']


@pytest.mark.parametrize('text, label', [('\0a', 'a'), (' cup ', 'cup'), ('a  b', 'a  b'),
                                         ('<a & "b">', '<a & "b">'), ('写真', '写真')])
def test_labels_stay_as_they_are_otherwise(text, label):
    assert drawn([box(2, 2, 9, 9)], text=text).label == label


@pytest.mark.parametrize('image', ['classes.jpg', 'Classes.png', 'coco.png', 'x' * 300 + '.png',
                                   '写' * 200 + '.png', 'a\nb.png', 'a\x01b.png',
                                   '\udcff.png'])
def test_pictures_with_odd_names_overwrite_nothing(image, tmp_path):
    result = drawn([box(2, 2, 9, 9)], image=image)
    files = [file for format in FORMATS for file in export([result], tmp_path, format)]
    assert len(set(files)) == len(files) == 8
    assert (tmp_path / 'classes.txt').read_text() == 'cat\n'
    assert len(json.loads((tmp_path / 'coco.json').read_text())['annotations']) == 1
    ElementTree.parse(tmp_path / 'cvat.xml')


@pytest.mark.parametrize('images, names', [
    (['pics/0.png', 'pics/1.png'], ['0.png', '1.png']), (['/a/b/c.png'], ['c.png']),
    (['/a/b/0.png', '/a/c/0.png'], ['b/0.png', 'c/0.png']),
    (['a/0.png', 'a/b/0.png'], ['0.png', 'b/0.png']), (['./p/../p/0.png'], ['0.png']),
    (['0', '1'], ['0', '1']), (['\udcff.png'], ['\udcff.png']),
    (['http://x/a%20b.png?s=1', 'pics/0.png'], ['a b.png', '0.png']),
    (['http://x/d.png', 'http://y/d.png'], ['x/d.png', 'y/d.png'])])
def test_names_below_the_folder_of_the_pictures(images, names):
    assert list(picture_names(images).values()) == names


@pytest.mark.parametrize('where, out, place', [
    ('pics/0.png', 'out', '../pics/0.png'), ('pics/0.png', 'pics', '0.png'),
    ('pics/a/0.png', 'pics', 'a/0.png'), ('pics/0.png', 'linked/out', '../../pics/0.png')])
def test_labelme_finds_its_picture(where, out, place, tmp_path, monkeypatch):
    """labelme #1336: imagePath leads from the folder of the .json."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'deep/er').mkdir(parents=True)
    (tmp_path / 'linked').symlink_to(tmp_path / 'deep')
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    Image.new('RGB', (30, 20)).save(path)
    for image in (where, str(path)):
        file, = export([drawn([box(2, 2, 9, 9)], image=image)], out, 'labelme')
        row = json.loads(file.read_text())
        assert row['imagePath'] == place and (file.parent / row['imagePath']).samefile(path)
    row = json.loads(export([drawn([box(2, 2, 9, 9)], image='upload.png')], 'o', 'labelme'
                            )[0].read_text())
    assert row['imagePath'] == 'upload.png'


def test_yolo_says_where_the_pictures_are(tmp_path, monkeypatch):
    yaml = pytest.importorskip('yaml')
    monkeypatch.chdir(tmp_path)
    for name in ('0', '1'):
        path = tmp_path / f'pics/{name}.png'
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (30, 20)).save(path)
    results = [drawn([box(2, 2, 9, 9)], text=f'{k} "no": yes', image=f'pics/{k}.png', index=k)
               for k in range(2)]
    export(results, 'out', 'yolo')
    content = yaml.safe_load((tmp_path / 'out/data.yaml').read_text())
    assert content == dict(train='../pics', val='../pics',
                           names={0: '0 "no": yes', 1: '1 "no": yes'})
    assert (tmp_path / 'out' / content['train'] / '0.png').is_file()


# --- rings ---------------------------------------------------------------------------------------
SQUARE, INNER = np.array([[0, 0], [0, 10], [10, 10], [10, 0]], float), \
    np.array([[2, 2], [2, 8], [8, 8], [8, 2]], float)


@pytest.mark.parametrize('rings, expected', [
    ([], []),
    ([SQUARE[:2]], []),
    ([SQUARE], [0]),
    ([SQUARE[::-1]], [0]),                              # a single ring, whichever way it runs
    ([SQUARE, INNER[::-1]], [1]),
    ([INNER[::-1], SQUARE], [1]),
    ([SQUARE[::-1], INNER], [1]),                       # all turned: the same
    ([SQUARE, INNER], [0, 0]),                          # the same way: two parts
    ([SQUARE, INNER[::-1] + 50], [0, 0]),               # a hole of nothing is an object
    ([SQUARE * 10, INNER[::-1] * 10, SQUARE * 2 + 40, INNER[::-1] + 45], [1, 1]),
])
def test_rings_are_grouped(rings, expected):
    parts = group_rings(rings)
    assert [len(part.holes) for part in parts] == expected
    size = (120, 120)
    everything = [ring for part in parts for ring in part.rings]
    assert np.array_equal(rings_to_mask(everything, size, 'edges'),
                          rings_to_mask([r for r in rings if len(r) > 2], size, 'edges'))


def test_the_official_preset_has_no_holes():
    codec = PolygonCodec('paper', 'fixed3')
    assert len(codec.parts([SQUARE, INNER[::-1]])) == 2


def test_crossing_rings_do_not_break_the_grouping():
    bow = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    assert sum(len(part.rings) for part in group_rings([SQUARE * 3, bow, bow[::-1]])) == 3


def test_keyhole_area_is_outer_less_holes():
    ring = keyhole(SQUARE, [INNER[::-1]])
    assert abs(signed_area(ring)) == 100 - 36 and len(ring) == 4 + 4 + 2
    assert keyhole(SQUARE, []) is not None and len(keyhole(SQUARE, [])) == 4


def test_centre_rings_have_three_points_at_least():
    assert all(len(ring) >= 3 for mask in MASKS.values() for ring in centre_rings(mask))


def test_part_lists_its_rings():
    part = Part(SQUARE, (INNER,))
    assert len(part.rings) == 2 and part.rings[0] is SQUARE
