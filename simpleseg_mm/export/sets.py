"""Formats of annotation tools and training sets: COCO, LabelMe, CVAT, YOLO."""
import base64
import io
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ..files import one_line
from ..polygon import mask_to_box, mask_to_rle
from ..structures import Segmentation
from .prepare import picture_from, picture_names
from .rings import centre_rings, keyhole, number, parts_of, plain


def to_coco(results: Sequence[Segmentation], exact: bool = False) -> dict:
    """A COCO instances file. A category is a label.

    ``file_name`` is the path below the folder that holds all pictures. ``segmentation`` is the
    list of the parts' polygons, holes cut open; an RLE when ``exact``, which some readers do not
    take (Label Studio's converter).
    """
    results = list(results)
    names = picture_names(result.image for result in results)
    categories = _numbered(result.label for result in results)
    images: dict[int, dict] = {}
    annotations: list[dict] = []
    for result in results:
        images.setdefault(result.index, dict(
            id=result.index + 1, file_name=names[result.image], height=result.size[0],
            width=result.size[1]))
        if not result.mask.any():
            continue
        x1, y1, x2, y2 = mask_to_box(result.mask).tolist()
        segmentation = mask_to_rle(result.mask) if exact or not result.parts else [
            [value for point in plain(keyhole(part.outer, part.holes)) for value in point]
            for part in result.parts]
        annotation = dict(
            id=len(annotations) + 1, image_id=result.index + 1, iscrowd=0,
            category_id=categories[result.label] + 1, segmentation=segmentation,
            bbox=[x1, y1, x2 - x1, y2 - y1], area=int(np.count_nonzero(result.mask)))
        if result.confidence is not None:
            annotation['score'] = result.confidence
        annotations.append(annotation)
    return dict(images=list(images.values()), annotations=annotations,
                categories=[dict(id=i + 1, name=name) for name, i in categories.items()])


def to_labelme(results: Sequence[Segmentation], exact: bool = False, folder: Path = Path()
               ) -> dict:
    """A LabelMe file of one picture; objects are told apart by ``group_id``. ``imagePath`` leads
    from ``folder``, where the file will lie, to the picture.

    Polygons, one a part, holes cut open (LabelMe's have none); when ``exact``, shapes of type
    'mask' (a PNG in the box of the object), since its polygons are filled with their outline.
    """
    shapes: list[dict] = []
    for group, result in enumerate(results):
        if not result.mask.any():
            continue
        if exact:
            x1, y1, x2, y2 = mask_to_box(result.mask).astype(int).tolist()
            found = [dict(shape_type='mask', points=[[x1, y1], [x2 - 1, y2 - 1]],
                          mask=_png(result.mask[y1:y2, x1:x2]))]
        else:
            found = [dict(shape_type='polygon', points=plain(keyhole(part.outer, part.holes)))
                     for part in parts_of(result, exact)]
        shapes += [dict(shape, label=result.label, group_id=group, description='', flags={})
                   for shape in found]
    first = results[0]
    return dict(version='5.4.1', flags={}, shapes=shapes,
                imagePath=picture_from(folder, first.image), imageData=None,
                imageHeight=first.size[0], imageWidth=first.size[1])


def to_yolo(pictures: Sequence[Sequence[Segmentation]], exact: bool = False
            ) -> tuple[list[str], list[str]]:
    """Texts of YOLO's segmentation labels, one a picture, and the names of the classes.

    A row is one ring, ``class x1 y1 x2 y2 ...`` in shares of the picture: holes are cut open, and
    an object of several parts is several rows.
    """
    classes = _numbered(result.label for picture in pictures for result in picture)
    texts = []
    for picture in pictures:
        rows = []
        for result in picture:
            if not result.mask.any():
                continue
            rings = [ring + 0.5 for ring in centre_rings(result.mask)] if exact else [
                keyhole(part.outer, part.holes) for part in result.parts]
            shares = [ring / np.array(result.size[::-1], np.float64) for ring in rings]
            rows += [' '.join([str(classes[result.label]),
                               *(f'{value:.8g}' for value in share.ravel())]) for share in shares]
        texts.append('\n'.join([*rows, '']) if rows else '')
    return texts, list(classes)


def to_cvat(results: Sequence[Segmentation], exact: bool = False) -> str:
    """CVAT's XML 1.1 for images: polygons grouped by ``group_id``; masks (run lengths in the box
    of the object) where there are holes, which CVAT's polygons cannot say, and when ``exact``.
    CVAT finds pictures by their name below the folder that holds them all."""
    results = list(results)
    names = picture_names(result.image for result in results)
    root = ElementTree.Element('annotations')
    ElementTree.SubElement(root, 'version').text = '1.1'
    task = ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task')
    for key, value in (('name', 'simpleseg'), ('size', len({r.index for r in results})),
                       ('mode', 'annotation'), ('overlap', 0)):
        ElementTree.SubElement(task, key).text = str(value)
    labels = ElementTree.SubElement(task, 'labels')
    for name in _numbered(result.label for result in results):
        label = ElementTree.SubElement(labels, 'label')
        ElementTree.SubElement(label, 'name').text = name
        ElementTree.SubElement(label, 'attributes')
    images: dict[int, ElementTree.Element] = {}
    for group, result in enumerate(results, 1):
        if result.index not in images:
            images[result.index] = ElementTree.SubElement(
                root, 'image', id=str(result.index),
                name=one_line(names[result.image]),
                width=str(result.size[1]), height=str(result.size[0]))
        if not result.mask.any():
            continue
        common = dict(label=result.label, source='auto', occluded='0', z_order='0',
                      group_id=str(group))
        if exact or not result.parts or any(part.holes for part in result.parts):
            ElementTree.SubElement(images[result.index], 'mask', common | _runs(result.mask))
            continue
        for part in result.parts:
            points = ';'.join(f'{number(x, 2)},{number(y, 2)}' for x, y in part.outer)
            ElementTree.SubElement(images[result.index], 'polygon', common | dict(points=points))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n'


def _runs(mask: np.ndarray) -> dict:
    """Row by row in the box, runs of background and mask in turn, background first."""
    x1, y1, x2, y2 = mask_to_box(mask).astype(int).tolist()
    flat = mask[y1:y2, x1:x2].ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))  # 0 where the first pixel is mask
    lengths = np.diff(changes, prepend=0, append=flat.size).tolist()
    return dict(rle=', '.join(map(str, lengths)), left=str(x1), top=str(y1), width=str(x2 - x1),
                height=str(y2 - y1))


def _numbered(labels) -> dict[str, int]:
    """Each label's number, in the order of their first use."""
    numbers: dict[str, int] = {}
    for label in labels:
        numbers.setdefault(label, len(numbers))
    return numbers


def _png(mask: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode('ascii')
