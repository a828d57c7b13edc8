"""CVAT's XML for images as pictures with objects; see :func:`.own_files.read_own`.

Ours, for each shape must be used or counted with its reason; readers of other packages
(datumaro) do not tell what they leave out.
"""
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from simpleseg_mm.files import read_text
from simpleseg_mm.files.coco import read_whole
from simpleseg_mm.files.shapes import corners, ellipse, flat, numbers, turned_by
from simpleseg_mm.polygon import mask_to_rle

from .own_account import Account
from .own_formats import (OwnPicture, OwnSet, Reading, finder_near, missing_picture, score_of,
                          stated_size, tell_guesses, texts_of)
from .own_shapes import DrawnShape, add_shapes
from .sample import clean_text

#: attributes of a shape that hold its expressions
PHRASES = ('phrase', 'phrases', 'expression', 'expressions', 'description', 'caption', 'sentence')
_NO_AREA = ('polyline', 'points')
_SHAPES = ('polygon', 'box', 'mask', 'ellipse', *_NO_AREA, 'cuboid', 'skeleton')


def read_cvat(path: Path, reading: Reading, account: Account) -> OwnSet:
    """Pictures of an ``annotations.xml``.

    Shapes of one label and ``group_id`` are parts of one object, as CVAT's COCO export has it. An
    attribute of :data:`PHRASES` holds expressions. Tags of whole pictures are no objects.

    Raises:
        ValueError: it is no such file, or one of CVAT for video.
    """
    text = read_text(path)
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        raise ValueError(f'{path} has a DOCTYPE, which CVAT does not write: it is not read')
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f'{path} is no XML that can be read: {error}. Export it again') from None
    if root.tag != 'annotations' or root.find('track') is not None:
        what = "CVAT's XML for video, with tracks" if root.tag == 'annotations' else \
            f'<{clean_text(root.tag, 30)}>'
        raise ValueError(f"{path} is {what}; give CVAT's export 'CVAT for images 1.1'")
    finder = finder_near(path, reading)
    pictures = []
    for image in root.iter('image'):
        account.read['picture'] += 1
        name = image.get('name') or ''
        place, how = finder.look(name)
        where = f'{path}, image {clean_text(name, 100)}'
        size = stated_size(image.get('height'), image.get('width'))
        picture = OwnPicture(str(place or where), place, size,
                             fault='' if place else missing_picture(how))
        shapes = []
        for number, tag in enumerate(image):
            account.read['annotation'] += 1
            if tag.tag == 'tag':
                account.leave('annotation', 'tag of a whole picture, which is no object', where)
            else:
                shapes.append(_shape(tag, f'{where}, shape {number}', picture.size, account))
        add_shapes(picture, shapes, reading.boxes == 'take', account)
        pictures.append(picture)
    tell_guesses(finder, path, account)
    return OwnSet(pictures, 'upright')


def _shape(tag: ElementTree.Element, where: str, size: tuple[int, int] | None, account: Account
           ) -> DrawnShape:
    label, kind = clean_text(tag.get('label') or ''), clean_text(tag.tag, 30)
    phrases = [text for one in tag.iter('attribute')
               if str(one.get('name')).strip().lower() in PHRASES and (one.text or '').strip()
               for text in texts_of(one.text.splitlines(), where, account)]
    part, fault = None, f'shape of type {kind}, which has no area'
    if kind in ('polygon', 'box', 'mask', 'ellipse'):
        try:
            part, fault = _part(tag, kind, size), ''
        except (TypeError, ValueError) as error:
            fault = f'broken {kind}'
            where = f'{where}: {error}'
    elif kind not in _SHAPES:
        fault = f'shape of the unknown type {kind}'
    group = read_whole(tag.get('group_id'))
    return DrawnShape(where, label, part, fault, group or None,
                      box=kind == 'box' and part is not None, areal=kind not in _NO_AREA,
                      phrases=phrases, score=next(
                          (score_of(one.text) for one in tag.iter('attribute')
                           if one.get('name') == 'confidence'), None))


def _part(tag: ElementTree.Element, kind: str, size: tuple[int, int] | None):
    """A flat polygon, or a mask as RLE. ValueError, TypeError: it is broken."""
    if kind == 'polygon':
        points = numbers(tag.get('points', '').replace(';', ',').split(','))
        if len(points) < 6 or len(points) % 2:
            raise ValueError('a polygon takes three points or more')
        return flat(points)
    degrees, = numbers([tag.get('rotation') or 0])
    if kind == 'box':
        x1, y1, x2, y2 = numbers(tag.get(key) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        return flat(turned_by(corners(x1, y1, x2, y2), [(x1 + x2) / 2, (y1 + y2) / 2], degrees))
    if kind == 'ellipse':
        cx, cy, rx, ry = numbers(tag.get(key) for key in ('cx', 'cy', 'rx', 'ry'))
        return flat(ellipse((cx, cy), (rx, ry), degrees))
    return _mask(tag, size)


def _mask(tag: ElementTree.Element, size: tuple[int, int] | None) -> dict:
    """The runs of a box, row by row, as COCO's RLE of the picture."""
    if size is None:
        raise ValueError('its picture has no size')
    left, top, width, height = (read_whole(tag.get(key)) for key in
                                ('left', 'top', 'width', 'height'))
    if None in (left, top, width, height) or not (
            0 <= left and 0 <= top and 0 < width <= size[1] - left
            and 0 < height <= size[0] - top):
        raise ValueError('its box is not inside the picture')
    runs = numbers(tag.get('rle', '').split(','))
    if (runs < 0).any() or (runs % 1).any() or runs.sum() != width * height:
        raise ValueError('its runs do not fill its box')
    mask = np.zeros(size, np.uint8)
    mask[top:top + height, left:left + width] = np.repeat(
        np.arange(len(runs)) % 2, runs.astype(np.int64)).reshape(height, width)
    return mask_to_rle(mask)
