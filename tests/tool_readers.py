"""What other tools' own code reads of our data sets, and we of what they write, on real photos.

    .readers/bin/python tests/tool_readers.py     # a table in Markdown, in some minutes

The environment is made by ``make test-readers``; tests/test_tool_readers.py holds the figures.
Objects are those of coco_photos, their outlines those of their masks' pixels. Photos lie in one
folder that is given by its name, by an absolute path, by a path that leads up and down again, or
in folders below each other with names that are the same.
"""
import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from simpleseg_mm.export import export_set
from simpleseg_mm.polygon import (mask_iou, mask_to_box, mask_to_parts, mask_to_rle,
                                  rings_to_mask, segmentation_to_mask)
from simpleseg_mm.structures import Prompt, Segmentation

LAYOUTS = ('folder', 'absolute', 'relative', 'nested')
#: of each picture by its name below ``images``, its objects: (label, mask)
Truth = dict[str, list[tuple[str, np.ndarray]]]


# --- photos ------------------------------------------------------------------------------------
def lay_out(data: Path, place: Path, layout: str, photos: int | None = None
            ) -> tuple[list[Segmentation], Truth]:
    """Photos with their objects as answers, and what is true of them.

    Args:
        data: folder with coco_photos.
        place: where the photos are copied to; it is the working folder.
        layout: of ``LAYOUTS``.
        photos: how many, those with holes or parts first; None: all.
    """
    content = json.loads((data / 'coco_photos/instances.json').read_text())
    labels = {one['id']: one['name'] for one in content['categories']}
    by_image: dict[int, list] = {}
    for one in content['annotations']:
        if not one['iscrowd']:
            by_image.setdefault(one['image_id'], []).append(one)
    images = [one for one in content['images'] if one['id'] in by_image]
    images.sort(key=lambda one: -max(len(made['segmentation']) for made in by_image[one['id']]))
    results, truth = [], {}
    for index, image in enumerate(images[:photos]):
        name = f'photo é {index}.jpg'
        if layout == 'nested':  # one name in two folders
            name = f'{"a" if index % 2 else "b c"}/d/photo {index // 2}.jpg'
        path = place / 'in/pics' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / 'coco_photos/images' / image['file_name'], path)
        given = dict(folder=f'in/pics/{name}', absolute=str(path), nested=f'in/pics/{name}',
                     relative=f'in/../in/pics/./{name}')[layout]
        size = image['height'], image['width']
        truth[name] = []
        for made in by_image[image['id']]:
            mask = segmentation_to_mask(made['segmentation'], *size)
            if mask.any():
                label = labels[made['category_id']]
                truth[name].append((label, mask))
                results.append(Segmentation(
                    image=given, size=size, prompt=Prompt(text=label),
                    parts=tuple(mask_to_parts(mask)), mask=mask, box=mask_to_box(mask), text='',
                    confidence=0.5, valid=True, finished=True, says_nothing=False, num_tokens=1,
                    seconds=0.1, codec='', index=index))
    return results, truth


def compared(truth: Truth, found: Truth, whole: bool = False) -> tuple[list[float], int]:
    """IoU of each true object with the most alike one of its label, each of which is taken once;
    and how many were found that are none.

    Args:
        whole: all objects of a label together, for tools that hold parts as objects.
    """
    ious, more = [], 0
    assert found.keys() <= truth.keys(), (sorted(found)[:3], sorted(truth)[:3])
    for name, objects in truth.items():
        left = list(found.get(name, []))
        if whole:
            objects, left = _together(objects), _together(left)
        for label, mask in sorted(objects, key=lambda one: -one[1].sum()):
            pairs = [(mask_iou(mask, other), number) for number, (said, other) in enumerate(left)
                     if said == label]
            best, number = max(pairs, default=(0.0, None))
            ious.append(best)
            if number is not None:
                left.pop(number)
        more += len(left)
    return ious, more


def _together(objects):
    labels = dict.fromkeys(label for label, _ in objects)
    return [(label, np.any([mask for said, mask in objects if said == label], axis=0))
            for label in labels]


def _sizes(truth: Truth) -> dict[str, tuple[int, int]]:
    return {name: objects[0][1].shape for name, objects in truth.items()}


# --- we write, they read -----------------------------------------------------------------------
def read_pycocotools(folder: Path, truth: Truth) -> Truth:
    from pycocotools.coco import COCO
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / 'annotations/instances_default.json'))
    found: Truth = {}
    for image in coco.loadImgs(coco.getImgIds()):
        assert (folder / 'images' / image['file_name']).is_file()
        found[image['file_name']] = [
            (coco.cats[one['category_id']]['name'], coco.annToMask(one) > 0)
            for one in coco.loadAnns(coco.getAnnIds(image['id']))]
    return found


def read_supervision_coco(folder: Path, truth: Truth) -> Truth:
    import supervision as sv
    data = sv.DetectionDataset.from_coco(
        str(folder / 'images'), str(folder / 'annotations/instances_default.json'),
        force_masks=True)
    return _of_supervision(data, folder)


def read_supervision_yolo(folder: Path, truth: Truth) -> Truth:
    """It reads one folder at a time."""
    import supervision as sv
    found: Truth = {}
    for below in sorted({str(Path(name).parent) for name in truth}):
        data = sv.DetectionDataset.from_yolo(
            str(folder / 'images' / below), str(folder / 'labels' / below),
            str(folder / 'data.yaml'), force_masks=True)
        found |= _of_supervision(data, folder)
    return found


def _of_supervision(data, folder: Path) -> Truth:
    return {os.path.relpath(path, folder / 'images'): [
        (data.classes[number], mask) for number, mask in zip(
            one.class_id, () if one.mask is None else one.mask)] for path, _, one in data}


def read_datumaro_coco(folder: Path, truth: Truth) -> Truth:
    return _of_datumaro(folder, 'coco_instances', truth)


def read_datumaro_cvat(folder: Path, truth: Truth) -> Truth:
    return _of_datumaro(folder, 'cvat', truth)


def _of_datumaro(folder: Path, format: str, truth: Truth) -> Truth:
    import datumaro as dm
    data = dm.Dataset.import_from(str(folder), format)
    labels, found = data.categories()[dm.AnnotationType.label], {}
    for item in data:
        name, = (name for name in truth if os.path.splitext(name)[0] == item.id)
        assert os.path.isfile(item.media.path) and item.media.size == _sizes(truth)[name]
        groups: dict = {}
        for one in item.annotations:
            if one.type in (dm.AnnotationType.polygon, dm.AnnotationType.mask):
                mask = np.asarray(one.image) > 0 if one.type == dm.AnnotationType.mask else \
                    segmentation_to_mask([one.points], *item.media.size)
                key = labels[one.label].name, one.group or id(one)
                groups[key] = groups.get(key, False) | mask
        found[name] = [(label, mask) for (label, _), mask in groups.items()]
    return found


def read_ultralytics(folder: Path, truth: Truth) -> Truth:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask
    data = check_det_dataset(str(folder / 'data.yaml'), autodownload=False)
    assert data['train'] == data['val']
    read = YOLODataset(img_path=data['train'], data=data, task='segment', augment=False)
    found: Truth = {}
    for row in read.labels:
        size = row['shape']
        found[os.path.relpath(row['im_file'], folder / 'images')] = [
            (data['names'][int(number)],
             polygon2mask(size, [ring * size[::-1]]) > 0)
            for (number, ), ring in zip(row['cls'], row['segments'])]
    return found


def read_labelme(folder: Path, truth: Truth) -> Truth:
    from labelme._label_file import read_label_file
    from labelme.utils.shape import shape_to_mask
    found: Truth = {}
    for file in folder.rglob('*.json'):
        data = read_label_file(str(file))  # with the picture, of which it checks the size
        name = (file.parent / data.image_path).relative_to(folder).as_posix()
        size, groups = _sizes(truth)[name], {}
        for shape in data.shapes:
            if shape['shape_type'] == 'mask':
                mask = np.zeros(size, bool)
                (x1, y1), (x2, y2) = np.asarray(shape['points']).astype(int)
                mask[y1:y2 + 1, x1:x2 + 1] = shape['mask']
            else:
                mask = shape_to_mask(size, shape['points'], shape['shape_type'])
            key = shape['label'], shape['group_id']
            groups[key] = groups.get(key, False) | mask
        found[name] = [(label, mask) for (label, _), mask in groups.items()]
    return found


def read_label_studio(folder: Path, truth: Truth) -> Truth:
    """Its own checks of config and regions; polygons by its converter to COCO, brushes by its
    decoder."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface
    config = (folder / 'label_config.xml').read_text()
    interface, found = LabelInterface(config), {}
    tasks = json.loads((folder / 'tasks.json').read_text())
    made = []
    for task in tasks:
        prediction, = task.pop('predictions')
        assert interface.validate_prediction(prediction), prediction
        name = _served(task['data']['image'], folder)
        size = _sizes(truth)[name]
        found[name] = [(one['value']['brushlabels'][0],
                        decode_rle(one['value']['rle']).reshape(*size, 4)[..., 3] > 0)
                       for one in prediction['result'] if one['type'] == 'brushlabels']
        polygons = [one for one in prediction['result'] if one['type'] == 'polygonlabels']
        made.append(dict(task, data=dict(image=name), annotations=[dict(id=1, result=polygons)]))
    with tempfile.TemporaryDirectory() as out:
        Path(out, 'tasks.json').write_text(json.dumps(made))
        Converter(config, project_dir=out, download_resources=False).convert(
            f'{out}/tasks.json', out, 'COCO', is_dir=False)
        content = json.loads(Path(out, 'result.json').read_text())
    names = {one['id']: one['name'] for one in content['categories']}
    order = list(found)
    for one in content['annotations']:
        name = order[one['image_id']]
        found[name].append((names[one['category_id']],
                            segmentation_to_mask(one['segmentation'], *_sizes(truth)[name])))
    return found


def _served(address: str, folder: Path) -> str:
    """The picture that Label Studio serves at an address, whose root is the folder."""
    from urllib.parse import parse_qs, urlsplit
    parts = urlsplit(address)
    path, = parse_qs(parts.query)['d']
    assert parts.path == '/data/local-files/' and (folder / path).is_file()
    return Path(path).relative_to('images').as_posix()


def read_datasets(folder: Path, truth: Truth) -> Truth:
    import datasets
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset(str(folder), split='train', cache_dir=cache)
        found: Truth = {}
        for row in rows:
            size = row['image'].size[::-1]
            assert size == (row['height'], row['width'])
            found[row['name']] = [
                (one['label'], rings_to_mask([np.reshape(ring, (-1, 2)) for part in one['parts']
                                              for ring in part], size, 'edges'))
                for one in row['objects']]
    return found


def read_shapely(folder: Path, truth: Truth) -> Truth:
    import shapely
    found: Truth = {}
    for file in folder.rglob('*.geojson'):
        content = json.loads(file.read_text())
        name = (file.parent / content['image']['name']).relative_to(folder).as_posix()
        height, width = _sizes(truth)[name]
        found[name] = []
        for one in content['features']:
            shape, mask = shapely.geometry.shape(one['geometry']), np.zeros((height, width), bool)
            x1, y1, x2, y2 = (int(value) for value in shape.bounds)
            x, y = np.meshgrid(np.arange(x1, min(x2 + 1, width)) + 0.5,
                               np.arange(y1, min(y2 + 1, height)) + 0.5)
            shapely.prepare(shape)
            mask[y1:y1 + len(x), x1:x1 + x.shape[1]] = shapely.contains_xy(shape, x, y)
            found[name].append((one['properties']['label'], mask))
    return found


def read_resvg(folder: Path, truth: Truth) -> Truth:
    """An object at a time: what is half covered."""
    import resvg_py
    from PIL import Image
    space, found = '{http://www.w3.org/2000/svg}', {}
    for file in folder.rglob('*.svg'):
        root = ElementTree.parse(file).getroot()
        name = (file.parent / _unquoted(root.find(f'{space}image').get('href'))
                ).relative_to(folder).as_posix()
        assert (folder / name).is_file()
        found[name] = []
        for path in root.iter(f'{space}path'):
            numbers = np.array(re.findall(r'-?[\d.]+', path.get('d')), float).reshape(-1, 2)
            (x1, y1), (x2, y2) = np.floor(numbers.min(0)).astype(int), np.ceil(
                numbers.max(0)).astype(int)
            alone = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{x2 - x1}" '
                     f'height="{y2 - y1}" viewBox="{x1} {y1} {x2 - x1} {y2 - y1}">'
                     f'<path fill="black" d="{path.get("d")}"/></svg>')
            raw = resvg_py.svg_to_bytes(svg_string=alone)
            mask = np.zeros(_sizes(truth)[name], bool)
            with Image.open(io.BytesIO(bytes(raw))) as image:
                mask[y1:y2, x1:x2] = np.asarray(image.convert('RGBA'))[..., 3] > 127
            found[name].append((path.find(f'{space}title').text, mask))
    return found


def _unquoted(address: str) -> str:
    from urllib.parse import unquote
    return unquote(address)


#: (format, tool, its reader, whether it holds parts as objects)
READ_BY: list[tuple[str, str, Callable[[Path, Truth], Truth], bool]] = [
    ('coco', 'pycocotools', read_pycocotools, False),
    ('coco', 'datumaro', read_datumaro_coco, False),
    ('coco', 'supervision', read_supervision_coco, False),
    ('cvat', 'datumaro', read_datumaro_cvat, False),
    ('yolo', 'ultralytics', read_ultralytics, True),
    ('yolo', 'supervision', read_supervision_yolo, True),
    ('labelme', 'labelme', read_labelme, False),
    ('labelstudio', 'label_studio_sdk', read_label_studio, False),
    ('parquet', 'datasets', read_datasets, False),
    ('geojson', 'shapely', read_shapely, False),
    ('svg', 'resvg_py', read_resvg, False)]


# --- they write, we read -----------------------------------------------------------------------
def _items(truth: Truth, pictures: Path):
    """datumaro's dataset of the photos."""
    import datumaro as dm
    labels = sorted({label for objects in truth.values() for label, _ in objects})
    return dm.Dataset.from_iterable([
        dm.DatasetItem(os.path.splitext(name)[0], subset='default',
                       media=dm.Image.from_file(str(pictures / name)), annotations=[
                           dm.Mask(mask.astype(np.uint8), label=labels.index(label), id=number,
                                   group=number) for number, (label, mask) in
                           enumerate(objects, 1)]) for name, objects in truth.items()],
        categories=labels)


def written_by_datumaro(format: str, polygons: bool = False):
    def write(truth: Truth, pictures: Path, out: Path) -> None:
        data = _items(truth, pictures)
        if polygons:
            data.transform('masks_to_polygons')
        data.export(str(out), format, save_media=True)
    return write


def written_by_labelme(truth: Truth, pictures: Path, out: Path) -> None:
    from labelme._label_file import write_label_file
    from labelme.utils import img_arr_to_b64
    for name, objects in truth.items():
        file = (out / name).with_suffix('.json')
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / name, out / name)
        shapes = []
        for label, mask in objects:
            x1, y1, x2, y2 = mask_to_box(mask).astype(int).tolist()
            shapes.append(dict(label=label, points=[[x1, y1], [x2 - 1, y2 - 1]], group_id=None,
                               shape_type='mask', flags={}, description='', mask=img_arr_to_b64(
                                   mask[y1:y2, x1:x2].astype(np.uint8))))
        height, width = objects[0][1].shape
        write_label_file(str(file), shapes=shapes, image_path=os.path.basename(name),
                         image_height=height, image_width=width)


def written_by_supervision(format: str):
    def write(truth: Truth, pictures: Path, out: Path) -> None:
        import supervision as sv
        labels = sorted({label for objects in truth.values() for label, _ in objects})
        found = {str(pictures / name): sv.Detections(
            xyxy=np.array([mask_to_box(mask) for _, mask in objects]),
            mask=np.array([mask for _, mask in objects]),
            class_id=np.array([labels.index(label) for label, _ in objects]))
            for name, objects in truth.items()}
        data = sv.DetectionDataset(labels, list(found), found)
        if format == 'coco':
            data.as_coco(str(out / 'images'), str(out / 'annotations.json'),
                         approximation_percentage=0.0)
        else:
            data.as_yolo(str(out / 'images'), str(out / 'labels'), str(out / 'data.yaml'),
                         approximation_percentage=0.0)
    return write


def written_by_label_studio(truth: Truth, pictures: Path, out: Path) -> None:
    """Brushes by its own encoder."""
    from label_studio_sdk.converter.brush import mask2rle
    tasks = []
    for number, (name, objects) in enumerate(truth.items(), 1):
        height, width = objects[0][1].shape
        tasks.append(dict(id=number, data=dict(image=f'/data/upload/1/{name}'), annotations=[dict(
            id=number, result=[dict(
                id=f'r{count}', type='brushlabels', from_name='brush', to_name='image',
                original_width=width, original_height=height, value=dict(
                    format='rle', rle=mask2rle(mask.astype(np.uint8) * 255), brushlabels=[label]))
                for count, (label, mask) in enumerate(objects)])]))
    out.mkdir(parents=True, exist_ok=True)
    (out / 'tasks.json').write_text(json.dumps(tasks))
    shutil.copytree(pictures, out / 'images')


def written_as_coco(truth: Truth, pictures: Path, out: Path) -> None:
    """COCO's RLE by pycocotools."""
    labels = sorted({label for objects in truth.values() for label, _ in objects})
    images, annotations = [], []
    for number, (name, objects) in enumerate(truth.items(), 1):
        height, width = objects[0][1].shape
        images.append(dict(id=number, file_name=name, height=height, width=width))
        annotations += [dict(id=len(annotations) + count, image_id=number, iscrowd=0,
                             category_id=labels.index(label) + 1, segmentation=mask_to_rle(mask),
                             bbox=[0, 0, 1, 1], area=int(mask.sum()))
                        for count, (label, mask) in enumerate(objects, 1)]
    shutil.copytree(pictures, out / 'images')
    (out / 'instances.json').write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in enumerate(labels, 1)])))


#: (format, tool, what it writes, whether it holds parts as objects, whether it keeps folders)
WRITTEN_BY = [
    ('COCO (RLE)', 'pycocotools', written_as_coco, False, True),
    ('COCO (polygons)', 'datumaro', written_by_datumaro('coco_instances', True), True, True),
    ('COCO (RLE)', 'datumaro', written_by_datumaro('coco_instances'), False, True),
    ('COCO', 'supervision', written_by_supervision('coco'), False, False),
    ('CVAT', 'datumaro', written_by_datumaro('cvat'), False, True),
    ('VOC masks', 'datumaro', written_by_datumaro('voc_segmentation'), True, True),
    ('YOLO', 'supervision', written_by_supervision('yolo'), True, False),
    ('LabelMe', 'labelme', written_by_labelme, False, True),
    ('Label Studio', 'label_studio_sdk', written_by_label_studio, False, True)]


def read_here(out: Path, truth: Truth) -> Truth:
    """What we read of a folder that a tool wrote, as the page does when it is opened."""
    from PIL import Image

    from simpleseg_mm.serving.reading import read_files
    files, pictures, names = [], [], {}
    for path in sorted(path for path in out.rglob('*') if path.is_file()):
        place = path.relative_to(out).as_posix()
        voc = 'Segmentation' in place
        if path.suffix.lower() in ('.jpg', '.jpeg', '.png') and not voc:
            with Image.open(path) as image:
                pictures.append(dict(path=place, width=image.width, height=image.height))
            names[place], = [name for name in truth if place.endswith(f'/{name}') or
                             place == name or '/' not in name and
                             os.path.splitext(place)[0].endswith(f'/{os.path.splitext(name)[0]}')]
        else:
            import base64
            files.append(dict(path=place, base64=base64.b64encode(path.read_bytes()).decode()))
    answer = read_files(json.dumps(dict(files=files, pictures=pictures)).encode())
    found: Truth = {}
    for picture in answer['pictures']:
        name = names[picture['path']]
        found[name] = [(one['label'], rings_to_mask(
            [np.array(ring, float) for part in one['polygons']
             for ring in (part['outer'], *part['holes'])], _sizes(truth)[name], 'edges'))
            for one in picture['objects']]
    return found


# --- the table ---------------------------------------------------------------------------------
@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def measured(data: Path, layout: str, photos: int | None) -> Iterator[tuple]:
    """(written, read by, least and mean IoU by default, the same ``--exact`` or None, found,
    asked, found beside them) of every format and tool that holds such a layout."""
    with tempfile.TemporaryDirectory() as place, standing_in(Path(place)):
        results, truth = lay_out(data, Path(place), layout, photos)
        for format, tool, read, whole in READ_BY:
            ious = {}
            for exact in (False, True):
                out = Path(place, f'{format}-{exact}')
                if not out.exists():
                    export_set(results, out, format, exact)
                with contextlib.redirect_stdout(io.StringIO()):
                    ious[exact], more = compared(truth, read(out, truth), whole)
            yield (f'`{format}`', tool, *(f'{min(ious[one]):.3f}, {np.mean(ious[one]):.3f}'
                                          for one in (False, True)),
                   sum(iou > 0 for iou in ious[True]), len(ious[True]), more)
        for format, tool, write, whole, keeps in WRITTEN_BY:
            if layout == 'nested' and not keeps:
                continue
            out = Path(place, f'theirs {format} {tool}')
            with contextlib.redirect_stdout(io.StringIO()):
                write(truth, Path(place, 'in/pics'), out)
            ious, more = compared(truth, read_here(out, truth), whole)
            yield (f'{format} by {tool}', 'us', f'{min(ious):.3f}, {np.mean(ious):.3f}', '',
                   sum(iou > 0 for iou in ious), len(ious), more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=os.environ.get('SIMPLESEG_DATA'))
    parser.add_argument('--photos', type=int, help='how many (all)')
    parser.add_argument('--others', type=int, default=20, help='photos of the other three layouts '
                        '(%(default)s)')
    args = parser.parse_args()
    rows: dict[tuple, list[str]] = {}
    for layout in LAYOUTS:
        photos = args.photos if layout == 'folder' else args.others
        for *names, plain, exact, hits, asked, more in measured(args.data, layout, photos):
            row = rows.setdefault(tuple(names), [*names, plain, exact])
            row.append(f'{hits} / {asked}' + (f', {more} more' if more else ''))
            print(layout, *row, file=sys.stderr, flush=True)
    print('| written | read by | IoU least, mean | `--exact` | ' + ' | '.join(LAYOUTS) + ' |')
    print('|---' * (4 + len(LAYOUTS)) + '|')
    for row in rows.values():
        print('| ' + ' | '.join([*row, *['not held'] * (4 + len(LAYOUTS) - len(row))]) + ' |')


if __name__ == '__main__':
    main()
