"""LabelMe's files as pictures with objects: polygons, boxes, circles, masks, groups."""
import base64
import binascii
import io
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image

from simpleseg_mm.polygon import mask_to_rle, segmentation_to_mask

from .own_formats import LeftOut, OwnObject, OwnPicture, size_of, texts_of
from .sample import clean_text

_CIRCLE = 64  # corners that stand for a circle


def read_labelme(contents: Iterable[tuple[Path, object]], images: Path | None,
                 left_out: LeftOut) -> list[OwnPicture]:
    """Pictures of LabelMe's files; see :func:`.own_formats.read_own`.

    Shapes of one label and ``group_id`` are parts of one object. The lines of a shape's
    ``description`` are its expressions. LabelMe's polygons have no holes: a cut that leads to
    the hole and back, or a shape of type 'mask', says them.
    """
    pictures = []
    for file, content in contents:
        if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
            left_out.add("file that is not LabelMe's", str(file))
            continue
        picture = OwnPicture(_path(file, content, images),
                             size_of(content.get('imageHeight'), content.get('imageWidth')))
        if not picture.path.is_file() and isinstance(content.get('imageData'), str):
            try:
                picture.raw = base64.b64decode(content['imageData'])
            except binascii.Error:
                left_out.add('embedded picture that cannot be read', str(file))
        picture.objects = list(_objects(file, content['shapes'], picture, left_out))
        pictures.append(picture)
    return pictures


def _path(file: Path, content: dict, images: Path | None) -> Path:
    name = content.get('imagePath')
    name = PureWindowsPath(name).as_posix() if isinstance(name, str) and name else file.stem
    if images is None:
        return file.parent / name
    return images / name if (images / name).is_file() else images / Path(name).name


def _objects(file: Path, shapes: list, picture: OwnPicture,
                     left_out: LeftOut) -> Iterator[OwnObject]:
    groups: dict = {}
    for number, shape in enumerate(shapes):
        where = f'{file}, shape {number}'
        label = clean_text(shape.get('label') or '') if isinstance(shape, dict) else ''
        if not label:
            left_out.add('shape without a label', where)
            continue
        try:
            part = _part(shape, picture)
        except ValueError as error:
            left_out.add(str(error), where)
            continue
        key = number if shape.get('group_id') is None else (label, str(shape['group_id']))
        groups.setdefault(key, []).append((where, shape, part))
    for members in groups.values():
        where, first, _ = members[0]
        texts = [text for _, shape, _ in members for text in _lines(shape, where, left_out)]
        try:
            segmentation = _join([part for *_, part in members], picture.size)
        except ValueError as error:
            left_out.add('broken shape', f'{where}: {error}')
            continue
        yield OwnObject(where, segmentation, clean_text(first['label']),
                        list(dict.fromkeys(texts)))


def _lines(shape: dict, where: str, left_out: LeftOut) -> list[str]:
    text = shape.get('description')
    if not isinstance(text, str):
        return []
    return texts_of([line for line in text.splitlines() if line.strip()], where, left_out)


def _part(shape: dict, picture: OwnPicture):
    """A flat polygon or an RLE dict of one shape. ValueError says why there is none."""
    kind = shape.get('shape_type') or 'polygon'
    if kind not in ('polygon', 'rectangle', 'circle', 'mask'):
        raise ValueError(f'shape of type {clean_text(kind, 30)}, which has no area')
    try:
        points = np.asarray(shape['points'], float).reshape(-1, 2)
        enough = np.isfinite(points).all() and len(points) >= (3 if kind == 'polygon' else 2)
    except (KeyError, TypeError, ValueError):
        enough = False
    if not enough:
        raise ValueError(f'{kind} without enough points')
    if kind == 'polygon':
        return points.ravel().tolist()
    (x1, y1), (x2, y2) = points[:2]
    if kind == 'rectangle':
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if kind == 'circle':
        turns = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
        around = np.hypot(x2 - x1, y2 - y1) * np.stack([np.cos(turns), np.sin(turns)], 1)
        return (points[0] + around).ravel().tolist()
    return _mask(shape, min(x1, x2), min(y1, y2), picture)


def _mask(shape: dict, x: float, y: float, picture: OwnPicture) -> dict:
    """RLE of a mask that LabelMe holds as a PNG of the object's box."""
    if picture.size is None:
        raise ValueError('mask in a file without imageHeight and imageWidth')
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape['mask'])), formats=('PNG', )) as png:
            if png.width * png.height > picture.size[0] * picture.size[1]:
                raise ValueError('larger than the picture')
            box = np.asarray(png.convert('L')) > 0
    except (KeyError, TypeError, ValueError, OSError, SyntaxError):
        raise ValueError('mask that is no PNG in base64, or larger than the picture') from None
    whole = np.zeros(picture.size, bool)
    x, y = round(x), round(y)
    if not (0 <= x < picture.size[1] and 0 <= y < picture.size[0]):
        raise ValueError('mask that begins outside the picture')
    place = whole[y:y + box.shape[0], x:x + box.shape[1]]
    place |= box[:place.shape[0], :place.shape[1]]
    return mask_to_rle(whole)


def _join(parts: list, size: tuple[int, int] | None):
    """One segmentation of an object's parts: polygons, or an RLE where one is a mask."""
    if all(isinstance(part, list) for part in parts):
        return parts
    return mask_to_rle(np.any([segmentation_to_mask(
        part if isinstance(part, dict) else [part], *size) for part in parts], axis=0))
