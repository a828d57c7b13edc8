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
from .rings import centre_rings, number, opened, plain


def to_coco(results: Sequence[Segmentation], exact: bool = False) -> dict:
    """A COCO instances file. A category is a label.

    ``file_name`` is the path below the folder that holds all pictures. ``segmentation`` is the
    list of the parts' polygons, holes cut open; an RLE when ``exact``, which some readers do not
    take (Label Studio's converter). An annotation has a ``score``; of a vote, ``agreement`` and,
    unless ``exact``, ``uncertainty``: for each polygon as many numbers as it has points, pixels
    within which 90 % of the answers pass them.
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
        outlines = [] if exact else opened(result)
        segmentation = [[value for point in plain(ring) for value in point]
                        for ring, _ in outlines] or mask_to_rle(result.mask)
        annotation = dict(
            id=len(annotations) + 1, image_id=result.index + 1, iscrowd=0,
            category_id=categories[result.label] + 1, segmentation=segmentation,
            bbox=[x1, y1, x2 - x1, y2 - y1], area=int(np.count_nonzero(result.mask)))
        widths = [widths for _, widths in outlines] if result.spread and outlines else None
        annotations.append(annotation | _evidence(result, widths))
    return dict(images=list(images.values()), annotations=annotations,
                categories=[dict(id=i + 1, name=name) for name, i in categories.items()])


def to_labelme(results: Sequence[Segmentation], exact: bool = False, folder: Path = Path()
               ) -> dict:
    """A LabelMe file of one picture; objects are told apart by ``group_id``. ``imagePath`` leads
    from ``folder``, where the file will lie, to the picture.

    Polygons, one a part, holes cut open (LabelMe's have none); when ``exact``, shapes of type
    'mask' (a PNG in the box of the object), since its polygons are filled with their outline.

    A shape has the keys of :func:`to_coco` beside its own; LabelMe keeps what it does not know.
    """
    shapes: list[dict] = []
    for group, result in enumerate(results):
        if not result.mask.any():
            continue
        if exact:
            x1, y1, x2, y2 = mask_to_box(result.mask).astype(int).tolist()
            found = [dict(shape_type='mask', points=[[x1, y1], [x2 - 1, y2 - 1]],
                          mask=_png(result.mask[y1:y2, x1:x2]), **_evidence(result))]
        else:
            found = [dict(shape_type='polygon', points=plain(ring), **_evidence(result, widths))
                     for ring, widths in opened(result)]
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
                ring for ring, _ in opened(result)]
            shares = [ring / np.array(result.size[::-1], np.float64) for ring in rings]
            rows += [' '.join([str(classes[result.label]),
                               *(f'{value:.8g}' for value in share.ravel())]) for share in shares]
        texts.append('\n'.join([*rows, '']) if rows else '')
    return texts, list(classes)


def to_cvat(results: Sequence[Segmentation], exact: bool = False) -> str:
    """CVAT's XML 1.1 for images: polygons grouped by ``group_id``; masks (run lengths in the box
    of the object) where there are holes, which CVAT's polygons cannot say, and when ``exact``.
    CVAT finds pictures by their name below the folder that holds them all. The confidence is an
    attribute of a label; where a task's own labels lack it, CVAT leaves it out."""
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
        attribute = ElementTree.SubElement(ElementTree.SubElement(label, 'attributes'),
                                           'attribute')
        for key, value in (('name', 'confidence'), ('mutable', 'False'), ('input_type', 'text'),
                           ('default_value', ''), ('values', '')):
            ElementTree.SubElement(attribute, key).text = value
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
            shapes = [('mask', _runs(result.mask))]
        else:
            shapes = [('polygon', dict(points=';'.join(
                f'{number(x, 2)},{number(y, 2)}' for x, y in part.outer)))
                for part in result.parts]
        for kind, place in shapes:
            shape = ElementTree.SubElement(images[result.index], kind, common | place)
            if result.confidence is not None:
                attribute = ElementTree.SubElement(shape, 'attribute', name='confidence')
                attribute.text = f'{result.confidence:.4f}'
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n'


def _evidence(result: Segmentation, uncertainty: list | None = None) -> dict:
    """How sure an object is, as far as it is known."""
    found = dict(score=result.confidence, agreement=result.agreement, uncertainty=uncertainty)
    return {name: value for name, value in found.items() if value is not None}


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
