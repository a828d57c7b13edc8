"""Parquet files as mirrors of RefCOCO write them, made of native files."""
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
from pyarrow import parquet
from pycocotools import mask as coco_mask

from simpleseg_mm.files import load_json
from simpleseg_mm.polygon import segmentation_to_mask

IMAGE = pyarrow.struct([('bytes', pyarrow.binary()), ('path', pyarrow.string())])
NUMBERS = pyarrow.list_(pyarrow.float32())
SENTENCES = pyarrow.list_(pyarrow.struct([
    ('raw', pyarrow.string()), ('sent', pyarrow.string()), ('sent_id', pyarrow.int64()),
    ('tokens', pyarrow.list_(pyarrow.string()))]))
RLE = pyarrow.struct([('counts', pyarrow.string()), ('size', pyarrow.list_(pyarrow.int32()))])
REF_INFO = pyarrow.struct([
    ('ann_id', pyarrow.int64()), ('category_id', pyarrow.int64()), ('file_name', pyarrow.string()),
    ('image_id', pyarrow.int64()), ('ref_id', pyarrow.int64()), ('sentences', SENTENCES),
    ('split', pyarrow.string())])
ANN_INFO = pyarrow.struct([
    ('area', pyarrow.float64()), ('bbox', pyarrow.list_(pyarrow.float64())),
    ('category_id', pyarrow.int64()), ('id', pyarrow.int64()), ('image_id', pyarrow.int64()),
    ('iscrowd', pyarrow.int64()),
    ('segmentation', pyarrow.list_(pyarrow.list_(pyarrow.float64())))])
IMAGE_INFO = pyarrow.struct([('file_name', pyarrow.string()), ('height', pyarrow.int64()),
                             ('id', pyarrow.int64()), ('width', pyarrow.int64())])
SCHEMAS = dict(
    native=pyarrow.schema(dict(
        file_name=pyarrow.string(), ann_id=pyarrow.int64(), ref_id=pyarrow.int64(),
        image_id=pyarrow.int64(), split=pyarrow.string(), sentences=SENTENCES,
        raw_anns=pyarrow.string(), raw_image_info=pyarrow.string(), image_path=pyarrow.string(),
        bbox=pyarrow.list_(pyarrow.float64()))),
    benchmark=pyarrow.schema(dict(
        ref_list=pyarrow.list_(pyarrow.struct([('ann_info', ANN_INFO), ('ref_info', REF_INFO)])),
        image_info=IMAGE_INFO, image=IMAGE)),
    masks=pyarrow.schema(dict(
        image=IMAGE, image_id=pyarrow.int64(), file_name=pyarrow.string(),
        samples=pyarrow.list_(pyarrow.struct([
            ('id', pyarrow.int64()), ('image_id', pyarrow.int64()),
            ('category', pyarrow.string()), ('sentences', pyarrow.list_(pyarrow.string())),
            ('bbox', NUMBERS), ('mask', RLE)])))),
    flat=pyarrow.schema(dict(
        question_id=pyarrow.string(), image=IMAGE, question=pyarrow.string(),
        answer=pyarrow.list_(pyarrow.string()), segmentation=NUMBERS, bbox=NUMBERS,
        iscrowd=pyarrow.int8(), file_name=pyarrow.string())))


def rows_of(root: Path, name: str, form: str, img_dir: str = 'images'
            ) -> dict[str, list[dict]]:
    """Rows of a set in the form of a mirror, by the split that its file is named after."""
    refs = load_json(next((root / name).glob('refs*.json')))
    instances = load_json(root / name / 'instances.json')
    images = {one['id']: one for one in instances['images']}
    annotations = {one['id']: one for one in instances['annotations']}
    found: dict[str, list[dict]] = {}
    for ref in refs:
        image, annotation = images[ref['image_id']], annotations[ref['ann_id']]
        rows = found.setdefault(ref['split'], [])
        path = root / img_dir / image['file_name']
        picture = dict(bytes=path.read_bytes(), path=path.name)
        if form == 'native':
            rows.append(dict(ref, raw_anns=json.dumps(annotation),
                             raw_image_info=json.dumps(image), bbox=[0, 0, 1, 1],
                             image_path=f'coco/train2014/{path.name}'))
        elif form == 'flat':
            rows.append(dict(
                question_id=str(ref['ann_id']), image=picture, question='', iscrowd=0,
                answer=[one['sent'] for one in ref['sentences']], bbox=annotation['bbox'],
                segmentation=annotation['segmentation'][0],
                file_name=f'{path.stem}_{len(rows)}.jpg'))
        else:
            key = 'ref_list' if form == 'benchmark' else 'samples'
            row = next((row for row in rows if row['_id'] == image['id']), None)
            if row is None:
                row = dict(_id=image['id'], image=picture, image_id=image['id'],
                           file_name=path.name, image_info=image, **{key: []})
                rows.append(row)
            row[key].append(dict(ann_info=annotation, ref_info=ref) if form == 'benchmark' else
                            dict(id=ref['ref_id'], image_id=image['id'], category='thing',
                                 sentences=[one['sent'] for one in ref['sentences']],
                                 bbox=annotation['bbox'], mask=rle_of(annotation, image)))
    return found


def rle_of(annotation: dict, image: dict) -> dict:
    """The mask of an annotation as compressed RLE."""
    mask = segmentation_to_mask(annotation['segmentation'], image['height'], image['width'])
    rle = coco_mask.encode(mask.astype('uint8', order='F'))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())


def write_rows_as(path: Path, rows: list[dict], form: str, schema: pyarrow.Schema | None = None,
                  group: int = 2) -> Path:
    """A parquet file of a mirror's form, a few rows a group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = schema or SCHEMAS[form]
    table = pyarrow.Table.from_pylist([{key: row.get(key) for key in schema.names}
                                       for row in rows], schema=schema)
    parquet.write_table(table, path, row_group_size=group)
    return path


def write_mirror(root: Path, folder: Path, name: str, form: str, img_dir: str = 'images',
                 label: Callable[[str], str] = str, edit: Callable | None = None) -> Path:
    """A set in the form of a mirror: ``FOLDER/data/LABEL-00000-of-00001.parquet``, where ``label``
    makes a file's label of a split, and ``edit`` changes the rows by split."""
    rows = rows_of(root, name, form, img_dir)
    if edit:
        edit(rows)
    for split, some in rows.items():
        write_rows_as(folder / 'data' / f'{label(split)}-00000-of-00001.parquet', some, form)
    return folder
