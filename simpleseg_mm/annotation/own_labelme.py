"""LabelMe's and X-AnyLabeling's files as pictures with objects; see :func:`.own_files.read_own`.
"""
import base64
import binascii
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from simpleseg_mm.files import PictureFinder

from .own_account import Account
from .own_formats import (OwnPicture, OwnSet, Reading, missing_picture, stated_size, tell_guesses,
                          texts_of)
from .own_outlines import Crop
from .own_shapes import DrawnShape, add_shapes, corners, ellipse, flat
from .sample import clean_text

IGNORED, BACKGROUND = '__ignore__', '_background_'  # labels that LabelMe's converters reserve
_CORNERS = ('polygon', 'rotation', 'quadrilateral', 'oriented_rectangle')
_BOXES = ('rectangle', 'rotation', 'oriented_rectangle')
_NO_AREA = ('point', 'points', 'line', 'linestrip')


def read_labelme(contents: Iterable[tuple[Path, dict]], folder: Path, reading: Reading,
                 account: Account) -> OwnSet:
    """Pictures of LabelMe's files.

    Shapes of one label and ``group_id`` are parts of one object. The lines of a shape's
    ``description`` are its expressions. LabelMe's polygons have no holes: a cut that leads to
    the hole and back, a shape of type 'mask', or a later shape that is labelled ``_background_``
    says them. ``__ignore__`` marks a region of which nothing is known.
    """
    finder = PictureFinder([reading.images or os.path.abspath(folder)], reading.passed_over)
    pictures = []
    for file, content in contents:
        account.read['picture'] += 1
        account.read['annotation'] += len(content['shapes'])
        path, fault = _path(file, content, finder, reading, account)
        size = stated_size(content.get('imageHeight'), content.get('imageWidth'))
        picture = OwnPicture(str(path or file), path, size, fault=fault)
        if path is None and isinstance(content.get('imageData'), str) and content['imageData']:
            try:
                picture.raw = base64.b64decode(content['imageData'].rpartition(',')[2])
                picture.path, picture.fault = file.with_suffix('.png'), ''
            except (binascii.Error, ValueError):
                picture.fault = 'picture missing, and the embedded one cannot be read'
        _add_objects(picture, file, content['shapes'], reading, account)
        pictures.append(picture)
    tell_guesses(finder, folder, account)
    return OwnSet(pictures, 'upright')


def _path(file: Path, content: dict, finder: PictureFinder, reading: Reading,
          account: Account) -> tuple[Path | None, str]:
    """The picture of a file, or None and why there is none."""
    here = Path(os.path.abspath(file)).parent
    name = content.get('imagePath')
    how = 'missing'
    if isinstance(name, str) and name:
        path = finder.look(name)[0] if reading.images else None
        if path is None:
            path, how = finder.look(f'{here}/{name}')
        if path is not None or how != 'missing':
            return path, '' if path else missing_picture(how)
    if isinstance(content.get('imageData'), str) and content['imageData']:
        return None, 'picture missing'
    path, how = finder.look_beside(file.stem, here)
    if path is not None:
        account.decide('picture not where its record says, found by the name of its .json file',
                       str(file))
        return path, ''
    return None, missing_picture(how)


def _add_objects(picture: OwnPicture, file: Path, shapes: list, reading: Reading,
                 account: Account) -> None:
    found: list[DrawnShape] = []
    cuts: list = []
    for number, shape in enumerate(shapes):
        where = f'{file}, shape {number}'
        label = _label(shape)
        if not label or label == IGNORED:
            fault = f'region labelled {IGNORED}' if label else 'shape without a label'
            found.append(DrawnShape(where, '', fault=fault))
            continue
        part, fault = _part(shape)
        if label == BACKGROUND:
            if fault:
                found.append(DrawnShape(where, '', fault=fault))
            else:
                cuts.append((len(found), part))
                picture.cuts += 1
                account.decide(f'shape labelled {BACKGROUND}: what is drawn before it ends there',
                               where)
            continue
        group, kind = shape.get('group_id'), _kind(shape)
        found.append(DrawnShape(where, label, part, fault,
                                None if group in (None, '') else str(group),
                                box=kind in _BOXES and part is not None,
                                areal=kind not in _NO_AREA,
                                phrases=_lines(shape, where, account)))
    add_shapes(picture, found, reading.boxes != 'leave', account, cuts)


def _label(shape) -> str:
    label = shape.get('label') if isinstance(shape, dict) else None
    return clean_text(label) if isinstance(label, str | int | float) else ''


def _kind(shape: dict) -> str:
    return str(shape.get('shape_type') or 'polygon')


def _lines(shape: dict, where: str, account: Account) -> list[str]:
    text = shape.get('description')
    if not isinstance(text, str):
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return texts_of(lines, where, account) if lines else []


def _part(shape: dict) -> tuple:
    """A flat polygon or a :class:`Crop` of one shape, or None and why there is none."""
    kind = _kind(shape)
    if kind not in (*_CORNERS, 'rectangle', 'circle', 'mask'):
        return None, f'shape of type {clean_text(kind, 30)}, which has no area'
    try:
        points = np.asarray(shape['points'], float)
    except (KeyError, TypeError, ValueError, OverflowError):
        points = np.zeros((0, 2))
    if points.ndim == 1 and len(points) % 2 == 0:
        points = points.reshape(-1, 2)
    enough = points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()
    if not enough or len(points) < (3 if kind in _CORNERS else 2):
        return None, f'{kind} without enough points'
    if kind in _CORNERS:
        return flat(points), ''
    if kind == 'rectangle':
        return _rectangle(points)
    (x1, y1), (x2, y2) = points[:2]
    if kind == 'circle':
        return flat(ellipse(points[0], [np.hypot(x2 - x1, y2 - y1)] * 2)), ''
    if not isinstance(shape.get('mask'), str) or max(abs(x1), abs(y1), abs(x2), abs(y2)) > 1e5:
        return None, 'mask that is no PNG in base64, or larger than the picture'
    return Crop(shape['mask'], round(min(x1, x2)), round(min(y1, y2))), ''


def _rectangle(points: np.ndarray) -> tuple:
    """LabelMe writes two opposite corners, X-AnyLabeling all four, turned ones too."""
    if len(points) not in (2, 4):
        return None, f'rectangle of {len(points)} points; two opposite corners, or all four'
    low, high = points.min(axis=0), points.max(axis=0)
    upright = np.isclose(points, low) | np.isclose(points, high)
    if len(points) == 4 and not upright.all():
        return flat(points), ''
    return flat(corners(*low, *high)), ''
