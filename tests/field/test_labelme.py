"""LabelMe's files as people have them: shapes, reserved labels, groups, other files beside."""
import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from own_sets import SMALL, SQUARE, areas, coco, labelme, own, picture, shape, written
from PIL import Image

BOX = [10, 10, 40, 30]  # two corners of SQUARE


def png_mask(height: int, width: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width), 255, np.uint8)).save(buffer, 'PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def found(tmp_path, shapes, **options) -> tuple[dict, dict]:
    report, samples = own(labelme(tmp_path / 'set', shapes), tmp_path / 'out', **options)
    return report, {text: area for (_, text), area in areas(samples).items()}


@pytest.mark.parametrize('one, area', [
    (shape(SQUARE), 600), (shape(BOX, kind='rectangle'), 600),
    (shape([40, 30, 10, 10], kind='rectangle'), 600), (shape(SQUARE, kind='rectangle'), 600),
    (shape([25, 20, 25, 30], kind='circle'), 312), (shape(BOX, kind='mask',
                                                          mask=png_mask(20, 30)), 600),
    (shape(SQUARE, kind=None), 600),
    (dict(shape(SQUARE), points=[['10', '10'], ['40', '10'], ['40', '30'], ['10', '30']]), 600),
    (shape(SQUARE, label=7), 600), (shape(SQUARE, label='  car\n'), 600)])
def test_shapes_with_an_area(tmp_path, one, area):
    report, texts = found(tmp_path, [one])
    assert texts == {str(one['label']).strip(): pytest.approx(area, abs=6)}
    assert not report['left_out']


@pytest.mark.parametrize('one', [
    shape([10, 10], kind='point'), shape(BOX, kind='line'), shape(SQUARE, kind='linestrip'),
    shape(SQUARE, kind='cuboid'), shape(BOX),
    dict(shape(SQUARE), points=[[1, 'x'], [2, 3], [4, 5]]), dict(shape(SQUARE), points=None),
    dict(shape(SQUARE), points=[[1, 2, 3], [4, 5, 6]]), shape(BOX, kind='mask', mask='no'),
    shape(BOX, kind='mask'), shape([900, 900, 910, 900, 910, 910]),
    shape([10, 10, 40, 30, 20, 20], kind='rectangle')])
def test_a_category_with_a_lost_shape_is_not_asked(tmp_path, one):
    report, texts = found(tmp_path, [shape(SQUARE), one, shape(SMALL, 'dog')])
    assert texts == {'dog': 225}
    assert sum(report['left_out']['query'].values()) == 3


@pytest.mark.parametrize('one', [dict(points=[]), 'x', None, shape(SQUARE, label=''),
                                 shape(SQUARE, label=None), shape(SQUARE, label='__ignore__')])
def test_what_may_be_of_any_category_bars_all(tmp_path, one):
    folder = labelme(tmp_path / 'set', [shape(SQUARE), shape(SMALL, 'dog')])
    content = json.loads((folder / '0.json').read_text())
    content['shapes'].append(one)
    written(content, folder / '0.json')
    report, samples = own(folder, tmp_path / 'out', absent=1)
    assert {name for name, _ in samples} == {'1.png', '2.png'}
    assert sum(report['left_out']['query'].values()) == 2


def test_background_is_taken_off_what_is_drawn_before(tmp_path):
    """As labelme2voc paints: a later shape covers an earlier one."""
    hole = [20, 15, 30, 15, 30, 25, 20, 25]
    report, texts = found(tmp_path, [shape(SQUARE), shape(hole, '_background_'),
                                     shape(hole, 'wheel')])
    assert texts == {'car': 500, 'wheel': 100} and not report['left_out']
    assert report['used']['annotation'] == report['read']['annotation'] == 9


def test_groups(tmp_path):
    """Shapes of one label and group are one object; a part that is lost loses all of it."""
    report, texts = found(tmp_path, [
        shape(SQUARE, group_id=1), shape(SMALL, group_id=1),
        shape(SQUARE, 'dog', group_id=1), shape(BOX, 'dog', group_id=1),
        shape(SMALL, 'person', group_id=2), shape([50, 10], 'person', 'point', group_id=2)])
    assert texts == {'car': 825, 'person': 225}
    assert report['left_out']['annotation'] == {'polygon without enough points': 6}
    assert report['changed'] == {'point or line of an object with an outline': 3}


@pytest.mark.parametrize('ask, texts', [
    ('auto', {'car'}), ('category', {'car'}), ('text', {'check again'}),
    ('both', {'car', 'check again'})])
def test_one_description_is_a_note(tmp_path, ask, texts):
    """One description among many objects does not leave out the others."""
    folder = labelme(tmp_path / 'set', [shape(SQUARE)], count=12)
    content = json.loads((folder / '0.json').read_text())
    content['shapes'][0]['description'] = 'check again'
    written(content, folder / '0.json')
    if ask == 'text':
        with pytest.raises(ValueError, match='cannot be split'):
            own(folder, tmp_path / 'out', ask=ask)
        return
    report, samples = own(folder, tmp_path / 'out', ask=ask)
    assert {text for _, text in samples} == texts
    assert ask != 'auto' or any('1 of 12' in rule for rule in report['decided'])


@pytest.mark.parametrize('size', [None, 0, 'x', -3])
def test_a_size_that_is_none_is_taken_from_the_picture(tmp_path, size):
    report, samples = own(labelme(tmp_path / 'set', [
        shape(SQUARE), shape(BOX, 'mark', 'mask', mask=png_mask(20, 30))], imageHeight=size),
        tmp_path / 'out')
    assert set(areas(samples).values()) == {600} and not report['left_out']


def test_a_size_that_is_another_is_refused(tmp_path):
    folder = labelme(tmp_path / 'set', [shape(SQUARE)], count=4)
    content = json.loads((folder / '0.json').read_text())
    written(dict(content, imageHeight=480, imageWidth=640), folder / '0.json')
    report, samples = own(folder, tmp_path / 'out')
    assert len(samples) == 3
    assert report['left_out']['picture'] == {
        'picture of another size than its annotations say': 1}


def test_other_files_in_the_folder(tmp_path):
    folder = labelme(tmp_path / 'set', [shape(SQUARE)])
    (folder / '._0.json').write_bytes(b'\0\5\26\7Mac OS X')
    (folder / '.ipynb_checkpoints').mkdir()
    shutil.copy(folder / '0.json', folder / '.ipynb_checkpoints/0-checkpoint.json')
    (folder / '__MACOSX').mkdir()
    (folder / '__MACOSX/0.json').write_bytes(b'\0')
    written(dict(name='tool', version='1'), folder / 'package.json')
    written([1, 2], folder / 'list.json')
    (folder / 'broken.json').write_text('{"shapes": [')
    (folder / 'deep.json').write_text('[' * 100_000)
    (folder / 'empty.json').write_bytes(b'')
    written(coco(tmp_path / 'else'), folder / 'coco.json')
    text = (folder / '1.json').read_text()
    (folder / '1.json').write_bytes(text.encode('utf-8-sig'))
    (folder / '2.json').unlink()
    (folder / '2.JSON').write_bytes(text.replace('1.png', '2.png').encode('utf-16'))
    report, samples = own(folder, tmp_path / 'out')
    assert areas(samples) == {(f'{k}.png', 'car'): 600 for k in range(3)}
    assert report['left_out'] == dict(file={
        'hidden file, such as those of a Mac': 1, "file that is not LabelMe's": 2,
        'file that is no readable JSON': 3, "COCO file among LabelMe's: give it by itself": 1})
    assert report['read']['file'] == 10


def test_the_new_set_below_the_old_one_is_no_annotation(tmp_path):
    folder = labelme(tmp_path / 'set', [shape(SQUARE)])
    for _ in range(2):
        report, samples = own(folder, folder / 'out', passed_over=folder / 'out')
        assert len(samples) == 3 and not report['left_out']


@pytest.mark.parametrize('path', [
    '{}', '..\\photos\\{}', 'C:\\photos\\{}', '/home/ann/photos/{}', '../photos/{}', 'renamed.png',
    None])
def test_pictures_where_they_are_now(tmp_path, path):
    folder = labelme(tmp_path / 'set', [shape(SQUARE)])
    for k in range(3):
        content = json.loads((folder / f'{k}.json').read_text())
        written(dict(content, imagePath=path and path.format(f'{k}.png')), folder / f'{k}.json')
    report, samples = own(folder, tmp_path / 'out')
    assert areas(samples) == {(f'{k}.png', 'car'): 600 for k in range(3)}
    assert sum(report['decided'].values()) == (0 if path == '{}' else 3)
    assert not report['left_out']


@pytest.mark.parametrize('head', ['', 'data:image/png;base64,'])
def test_embedded_pictures(tmp_path, head):
    folder = labelme(tmp_path / 'set', [shape(SQUARE)])
    for k in range(3):
        raw = (folder / f'{k}.png').read_bytes()
        content = json.loads((folder / f'{k}.json').read_text())
        data = head + base64.b64encode(raw).decode()
        written(dict(content, imageData=data), folder / f'{k}.json')
        (folder / f'{k}.png').unlink()
    _, samples = own(folder, tmp_path / 'out')
    assert areas(samples) == {(f'{k}.png', 'car'): 600 for k in range(3)}
    for k in range(3):
        picture(tmp_path / f'same/{k}.png', k)
        np.testing.assert_array_equal(samples[f'{k}.png', 'car'][0],
                                      np.asarray(Image.open(tmp_path / f'same/{k}.png')))
    assert all(Path(name).suffix == '.png' for name, _ in samples)


def test_rectangles_are_left_where_that_is_said(tmp_path):
    other = [[44, 32], [60, 32], [60, 42], [44, 42]]
    shapes = [shape(other), shape(BOX, kind='rectangle'), shape(SMALL, 'dog')]
    assert found(tmp_path, shapes, boxes='leave')[1] == {'dog': 225}
    assert found(tmp_path / 'b', shapes)[1] == {'car': 760, 'dog': 225}
    # the box of an outline is no object of its own
    shapes[0] = shape(SQUARE)
    assert found(tmp_path / 'c', shapes, boxes='leave')[1] == {'car': 600, 'dog': 225}
