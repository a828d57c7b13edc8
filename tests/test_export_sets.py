"""Complete data sets: names of pictures, pictures that tools read in several ways, folders."""
import argparse
import io
import json
import sys
import weakref

import numpy as np
import pytest
import yaml
from PIL import Image

from simpleseg_mm.commands import segment
from simpleseg_mm.export import SETS, SetPicture, check_set, export_set
from simpleseg_mm.export.complete import FolderFiles, SetNames
from simpleseg_mm.export.picture_paths import picture_file
from simpleseg_mm.export.rings import keyhole, uncut
from simpleseg_mm.files import ImageError, load_image
from simpleseg_mm.polygon import mask_to_box, mask_to_parts, rings_to_mask
from simpleseg_mm.structures import Prompt, Segmentation

SIZE = (20, 30)


def holed() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[2:18, 3:27] = True
    mask[6:12, 8:20] = False
    return mask


def found(image, text='cup', index=0, mask=None) -> Segmentation:
    mask = holed() if mask is None else mask
    return Segmentation(
        image=str(image), size=mask.shape, prompt=Prompt(text=text),
        parts=tuple(mask_to_parts(mask)), mask=mask, box=mask_to_box(mask), text='',
        confidence=0.5, valid=True, finished=True, says_nothing=not mask.any(), num_tokens=1,
        seconds=0.1, codec='', index=index)


def picture(path, color=(9, 8, 7), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', SIZE[::-1], color).save(path, **options)
    return path


def files_of(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


# --- bad input ---------------------------------------------------------------------------------
def test_sets_that_are_refused(tmp_path):
    a = picture(tmp_path / 'a.png')
    with pytest.raises(ValueError, match="unknown format 'pascal'; choose from"):
        export_set([found(a)], tmp_path / 'x', 'pascal')
    for there in (a, tmp_path):
        with pytest.raises(ValueError, match='is there already'):
            export_set([found(a)], there, 'coco')
    with pytest.raises(ImageError, match='there is no picture'):
        export_set([found(a), found(tmp_path / 'b.png', index=1)], tmp_path / 'x', 'coco')
    with pytest.raises(ImageError, match='30 x 20 pixels, and its outlines are for 20 x 20'):
        export_set([found(a, mask=np.ones((20, 20), bool))], tmp_path / 'x', 'coco')
    assert files_of(tmp_path) == {'a.png'} and len(list(tmp_path.iterdir())) == 1  # nothing half


def test_a_set_takes_an_empty_folder(tmp_path):
    a = picture(tmp_path / 'a.png')
    (tmp_path / 'x').mkdir()
    assert check_set(tmp_path / 'x', 'coco') == tmp_path / 'x'
    export_set([found(a)], tmp_path / 'x', 'coco')
    assert files_of(tmp_path / 'x') == {'annotations/instances_default.json', 'images/a.png'}


def test_parquet_without_pyarrow_is_told_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ValueError, match='pip install pyarrow') as error:
        check_set(tmp_path / 'x', 'parquet')
    assert '\n' not in str(error.value)


# --- names -------------------------------------------------------------------------------------
@pytest.mark.parametrize('names, expected', [
    (['a.jpg', 'b.jpg'], ['a.jpg', 'b.jpg']),
    (['x/a.jpg', 'y/a.jpg'], ['x/a.jpg', 'y/a.jpg']),
    (['a.jpg', 'a.png', 'A.jpg'], ['a.jpg', 'a_1.png', 'A_2.jpg']),
    (['a.jpg', 'a_1.jpg', 'a.png'], ['a.jpg', 'a_1.jpg', 'a_2.png']),
    (['é.jpg', 'e\u0301.jpg'], ['é.jpg', 'e\u0301_1.jpg']),  # one name to some file systems
    (['../../x.jpg', '/etc/y.jpg', './z.jpg'], ['x.jpg', 'etc/y.jpg', 'z.jpg']),
    (['a\\b.jpg'], ['a/b.jpg']),
    (['a\nb.jpg', 'c\x01.jpg', ' d .jpg'], ['a b.jpg', 'c.jpg', 'd.jpg']),
    (['.hidden.jpg', '...', ''], ['hidden.jpg', 'picture.jpg', 'picture_1.jpg']),
    (['a.jpg', 'a/b.jpg'], ['a.jpg', 'a/b.jpg']),
    (['50% off #1?.jpg', 'a.b.c.jpg'], ['50% off #1?.jpg', 'a.b.c.jpg']),
    (['x' * 300 + '.jpg', 'é' * 200 + '.jpg'], ['x' * 180 + '.jpg', 'é' * 90 + '.jpg'])])
def test_names_in_a_set(names, expected):
    taken = SetNames()
    found = [taken.of(name, '.png' if name.endswith('.png') else '.jpg') for name in names]
    if expected == ['a.jpg', 'a/b.jpg']:  # a file a.txt and a folder a are two
        assert len(set(found)) == 2
    else:
        assert found == expected
    assert taken.changed == [(old, new) for old, new in zip(names, found) if old != new]


def test_folders_that_mean_something_to_yolo(tmp_path):
    """Ultralytics puts 'labels' for the last 'images' of a path."""
    paths = [picture(tmp_path / f'in/{name}/images/a.png') for name in ('train', 'val')]
    notes = export_set([found(path, index=k) for k, path in enumerate(paths)], tmp_path / 'out',
                       'yolo')
    assert {'images/train/images_/a.png', 'labels/train/images_/a.txt',
            'images/val/images_/a.png', 'labels/val/images_/a.txt'} < files_of(tmp_path / 'out')
    assert notes[0].startswith('2 pictures have another name in the set')


# --- pictures ----------------------------------------------------------------------------------
def saved(image, format, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.new('RGB', SIZE, (200, 10, 10)), 'JPEG', exif=exif)


RGB, ALPHA = Image.new('RGB', SIZE[::-1], (1, 2, 3)), Image.new('RGBA', SIZE[::-1], (1, 2, 3, 90))


@pytest.mark.parametrize('name, raw, suffix, anew', [
    ('a.jpg', saved(RGB, 'JPEG'), '.jpg', False),
    ('a.JPEG', saved(RGB, 'JPEG'), '.JPEG', False),
    ('a', saved(RGB, 'JPEG'), '.jpg', False),
    ('a.png', saved(RGB, 'JPEG'), '.jpg', False),  # by what it is
    ('a.png', saved(RGB, 'PNG'), '.png', False),
    ('a.png', saved(RGB.convert('P'), 'PNG'), '.png', False),
    ('a.webp', saved(RGB, 'WEBP', lossless=True), '.webp', False),
    ('a.png', saved(ALPHA, 'PNG'), '.png', True),
    ('a.png', saved(Image.fromarray(np.full(SIZE, 40_000, np.uint16)), 'PNG'), '.png', True),
    ('a.tif', saved(RGB, 'TIFF'), '.png', True),
    ('a.gif', saved(RGB, 'GIF', save_all=True, append_images=[ALPHA]), '.png', True),
    ('a.jpg', saved(RGB.convert('CMYK'), 'JPEG'), '.jpg', True),
    ('a.jpg', turned_jpeg(), '.jpg', True)])
def test_files_of_pictures(name, raw, suffix, anew):
    """What is written is read as the picture by everybody: no tag, 8 bits, three colours."""
    content, given, changed = picture_file(raw, name, SIZE)
    assert (given, changed) == (suffix, anew)
    assert (content == raw) is not anew
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        seen = np.asarray(image.convert('RGB'), int)
    assert seen.shape[:2] == SIZE
    assert np.abs(seen - load_image(raw)).max() <= (3 if anew and suffix == '.jpg' else 0)


# --- what stands in them -----------------------------------------------------------------------
LABELS = ['a, b', '"quoted"', "it's", 'a/b', 'a: b', '#x', '- y', 'ya\u200bml', '☕ né',
          'x\ny\x02', '{a}', '%', '<b>&amp;', '[1]', 'null', '1.0', '  padded  ', '\u2028', 'yes']


@pytest.mark.parametrize('format', sorted(SETS))
def test_labels_of_any_character(tmp_path, format):
    if format == 'parquet':
        pytest.importorskip('pyarrow')
    a = picture(tmp_path / 'in/a.png')
    results = [found(a, label if label.strip() else 'x') for label in LABELS]
    expected = {one.label for one in results}
    export_set(results, tmp_path / 'out', format)
    assert read_labels(format, tmp_path / 'out') == expected


def read_labels(format, out) -> set[str]:
    from xml.etree import ElementTree
    if format == 'yolo':
        return set(yaml.safe_load((out / 'data.yaml').read_text())['names'].values())
    if format == 'cvat':
        root = ElementTree.parse(out / 'annotations.xml').getroot()
        assert {one.findtext('name') for one in root.iter('label')} == {
            one.get('label') for one in root.find('image')}
        return {one.get('label') for one in root.find('image')}
    if format == 'svg':
        root = ElementTree.parse(out / 'a.svg').getroot()
        assert root[0].get('href') == 'a.png'
        return {one.text for one in root.iter('{http://www.w3.org/2000/svg}title')}
    if format == 'parquet':
        import pyarrow.parquet
        row, = pyarrow.parquet.read_table(out / 'data').to_pylist()
        return {one['label'] for one in row['objects']}
    content = json.loads((out / dict(
        coco='annotations/instances_default.json', labelme='a.json', geojson='a.geojson',
        labelstudio='tasks.json')[format]).read_text())
    if format == 'coco':
        return {one['name'] for one in content['categories']}
    if format == 'labelme':
        assert content['imagePath'] == 'a.png'
        return {one['label'] for one in content['shapes']}
    if format == 'geojson':
        assert content['image'] == dict(name='a.png', height=20, width=30)
        return {one['properties']['label'] for one in content['features']}
    config = ElementTree.parse(out / 'label_config.xml').getroot()
    named = {label for region in content[0]['predictions'][0]['result']
             for label in region['value'][region['type']]}
    assert named == {one.get('value') for one in config.find('BrushLabels')}
    return named


@pytest.mark.parametrize('format', sorted(SETS))
def test_one_mask_is_held_at_a_time(tmp_path, format):
    """Objects of a picture are gone through once, one after the other."""
    if format == 'parquet':
        pytest.importorskip('pyarrow')
    a, made = picture(tmp_path / 'in/a.png'), []

    def objects():
        for number in range(12):
            one = found(a, f'object {number}')
            made.append(weakref.ref(one))
            assert sum(known() is not None for known in made) <= 3
            yield one
    (tmp_path / 'out').mkdir()
    writer = SETS[format](FolderFiles(tmp_path / 'out'))
    writer.add(SetPicture('a.png', a, SIZE, objects()))
    writer.close()
    assert len(made) == 12


def test_parquet_is_what_datasets_reads(tmp_path):
    datasets = pytest.importorskip('datasets')
    paths = [picture(tmp_path / f'in/{name}.png', (number, 0, 0))
             for number, name in enumerate('ab')]
    export_set([found(paths[0], 'ring'), found(paths[0], 'cup'),
                found(paths[1], index=1, mask=np.zeros(SIZE, bool))], tmp_path / 'out', 'parquet',
               exact=True)
    rows = datasets.load_dataset(str(tmp_path / 'out'), split='train',
                                 cache_dir=str(tmp_path / 'cache'))
    assert [row['name'] for row in rows] == ['a.png', 'b.png']
    assert rows[1]['objects'] == [] and rows[1]['image'].getpixel((0, 0)) == (1, 0, 0)
    ring, cup = rows[0]['objects']
    assert (ring['label'], cup['label'], ring['score'], ring['bbox']) == (
        'ring', 'cup', 0.5, [3, 2, 24, 16])
    rings = [np.reshape(one, (-1, 2)) for part in ring['parts'] for one in part]
    assert np.array_equal(rings_to_mask(rings, SIZE, 'edges'), holed())


# --- cut open and closed again -----------------------------------------------------------------
@pytest.mark.parametrize('seed', range(20))
def test_uncut_takes_a_keyhole_back(seed):
    rng = np.random.default_rng(seed)
    outer = np.array([[0, 0], [0, 100], [100, 100], [100, 0]], float)
    holes = [np.array([[x, y], [x + 6, y], [x + 6, y + 6], [x, y + 6]], float)
             + rng.integers(0, 3, 2) for x in range(5, 90, 20) for y in range(5, 90, 20)
             if rng.random() < 0.5]
    rings = uncut(keyhole(outer, holes))
    assert len(rings) == 1 + len(holes)
    same = {tuple(sorted(map(tuple, ring.tolist()))) for ring in rings}
    assert same == {tuple(sorted(map(tuple, ring.tolist()))) for ring in [outer, *holes]}


@pytest.mark.parametrize('ring', [
    [], [[1, 1]], [[1, 1], [2, 2]], [[0, 0], [4, 0], [4, 4], [0, 4]],
    [[0, 0], [4, 0], [8, 0], [4, 0], [4, 4]],  # there and back, but to nothing
    [[0, 0], [0, 0], [4, 0], [4, 4], [0, 0]]])
def test_uncut_leaves_other_rings_alone(ring):
    rings = uncut(np.array(ring, float).reshape(-1, 2))
    if len({tuple(point) for point in ring}) < 3:
        assert rings == [] or len(rings) == 1
        return
    one, = rings
    assert np.array_equal(rings_to_mask([one], (9, 9), 'edges'),
                          rings_to_mask([np.array(ring, float)], (9, 9), 'edges'))


# --- the command -------------------------------------------------------------------------------
def test_segment_writes_sets(tmp_path, monkeypatch, capsys):
    scene = picture(tmp_path / 'pics/scene é.png')

    class Inferencer:
        notes = errors = ()

        def write(self, *args, **options):
            return [found(scene, 'the red box')]
    monkeypatch.setattr(segment, 'inferencer_of', lambda args: Inferencer())
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    args = parser.parse_args([str(tmp_path / 'pics'), 'the red box', '--out-dir',
                              str(tmp_path / 'out'), '--formats', '--sets', 'yolo', 'labelme'])
    assert segment.main(args) == 0
    assert files_of(tmp_path / 'out') == {
        'yolo/data.yaml', 'yolo/classes.txt', 'yolo/images/scene é.png', 'yolo/labels/scene é.txt',
        'labelme/scene é.png', 'labelme/scene é.json'}
    assert 'exports: train and val of data.yaml are the same' in capsys.readouterr().err
    monkeypatch.setattr(segment, 'inferencer_of', None)  # said before a model is loaded
    with pytest.raises(ValueError, match='yolo is there already'):
        segment.main(args)
