"""Exports of a folder of pictures, read by other tools' own code.

    pip install supervision datumaro label-studio-sdk labelme

Each test is skipped where its package is not there; none is in the lock.
"""
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.export import export
from simpleseg_mm.polygon import mask_iou, mask_to_box, mask_to_parts
from simpleseg_mm.structures import Prompt, Segmentation

SIZE = (48, 64)


def masks():
    solid = np.zeros(SIZE, bool)
    solid[5:30, 10:40] = True
    holed, parts = solid.copy(), solid.copy()
    holed[10:20, 15:30] = False
    parts[35:45, 50:60] = True
    return {'0 é.png': ('cat', solid), '1 b.png': ('a ring', holed), '2.png': ('two', parts),
            '3.png': ('cat', np.zeros(SIZE, bool))}


@pytest.fixture
def exported(tmp_path):
    """(folder, format -> its folder); pictures lie in folder/pics."""
    results = []
    for index, (name, (text, mask)) in enumerate(masks().items()):
        path = tmp_path / 'pics' / name
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', SIZE[::-1], (index, 0, 0)).save(path)
        results.append(Segmentation(
            image=str(path), size=SIZE, prompt=Prompt(text=text),
            parts=tuple(mask_to_parts(mask)), mask=mask, box=mask_to_box(mask), text='',
            confidence=0.5, valid=True, finished=True, says_nothing=False, num_tokens=1,
            seconds=0.1, codec='', index=index, agreement=0.75, answers=9, spread=tuple(
                tuple(np.full(ring.shape, 1.5) for ring in part.rings)
                for part in mask_to_parts(mask))))

    def write(format: str, exact: bool = False):
        export(results, tmp_path / format, format, exact)
        return tmp_path / format
    return tmp_path, write


@pytest.mark.parametrize('format', ['coco', 'yolo'])
def test_supervision(exported, format):
    sv = pytest.importorskip('supervision')
    folder, write = exported
    out = write(format)
    pictures = str(folder / 'pics')
    data = (sv.DetectionDataset.from_coco(pictures, str(out / 'coco.json'), force_masks=True)
            if format == 'coco' else sv.DetectionDataset.from_yolo(
                pictures, str(out), str(out / 'data.yaml'), force_masks=True))
    assert sorted(data.classes) == ['a ring', 'cat', 'two'] and len(data) == 4
    for path, _, found in data:
        text, mask = masks()[path.rpartition('/')[2]]
        if not mask.any():
            assert not len(found)
            continue
        # its polygons are filled with their outline: a pixel more on two sides
        assert mask_iou(found.mask.any(axis=0), mask) > 0.88
        assert {data.classes[number] for number in found.class_id} == {text}


@pytest.mark.parametrize('format', ['cvat', 'coco_instances'])
@pytest.mark.parametrize('exact', [False, True])
def test_datumaro(exported, format, exact):
    dm = pytest.importorskip('datumaro')
    folder, write = exported
    out = write(format.partition('_')[0], exact)
    place = folder / 'set'
    pictures = place / 'images' / ('' if format == 'cvat' else 'x')
    shutil.copytree(folder / 'pics', pictures)
    target = place / ('cvat.xml' if format == 'cvat' else 'annotations/instances_x.json')
    target.parent.mkdir(exist_ok=True)
    shutil.copy(next(out.iterdir()), target)
    data = dm.Dataset.import_from(str(place), format)
    labels = data.categories()[dm.AnnotationType.label]
    found = {item.id: [(labels[one.label].name, one.get_area()) for one in item.annotations
                       if one.type.name != 'bbox'] for item in data}
    areas = {name.rpartition('.')[0]: (text, mask.sum()) for name, (text, mask) in
             masks().items()}
    assert found.keys() == areas.keys()
    for name, objects in found.items():
        assert {text for text, _ in objects} <= {areas[name][0]}
        assert sum(area for _, area in objects) == areas[name][1], name
    key, value = ('confidence', '0.5000') if format == 'cvat' else ('score', 0.5)
    assert {one.attributes.get(key) for item in data for one in item.annotations} == {value}


def test_labelme(exported):
    """What it opens and saves again holds all that was written."""
    file = pytest.importorskip('labelme._label_file')
    folder, write = exported
    out = write('labelme')
    names = sorted(out.glob('*.json'))
    assert len(names) == 4
    for path in names:
        found = file.read_label_file(str(path))
        for shape in found.shapes:
            assert {key: shape['other_data'][key] for key in ('score', 'agreement')} == dict(
                score=0.5, agreement=0.75)
            assert shape['other_data']['uncertainty'] == [1.5] * len(shape['points'])
            assert shape['description'] == ''  # which our own reader takes for expressions


def test_label_studios_converter(exported):
    """first met: an RLE ends it with KeyError."""
    coco = pytest.importorskip('label_studio_sdk.converter.imports.coco')
    folder, write = exported
    coco.convert_coco_to_ls(str(write('coco') / 'coco.json'), str(folder / 'tasks.json'),
                            use_super_categories=False, point_width=1.0)
    tasks = json.loads((folder / 'tasks.json').read_text())
    found = [sorted(one['value']['polygonlabels'][0]
                    for one in (task.get('annotations') or [dict(result=[])])[0]['result']
                    if one['type'] == 'polygonlabels') for task in tasks]
    assert found == [['cat'], ['a ring'], ['two', 'two'], []]
