"""LabelMe's and X-AnyLabeling's files as pictures with objects; see :func:`.own_files.read_own`.
"""
import base64
import binascii
import os
from collections.abc import Iterable
from pathlib import Path

from simpleseg_mm.files import PictureFinder
from simpleseg_mm.files.labelme import RECTANGLES, outline_of, shape_type_of

from .own_account import Account
from .own_formats import (OwnPicture, OwnSet, Reading, finder_in, missing_picture, score_of,
                          stated_size, tell_guesses, texts_of)
from .own_shapes import DrawnShape, add_shapes
from .sample import clean_text

IGNORED, BACKGROUND = '__ignore__', '_background_'  # labels that LabelMe's converters reserve
_NO_AREA = ('point', 'points', 'line', 'linestrip')


def read_labelme(contents: Iterable[tuple[Path, dict]], folder: Path, reading: Reading,
                 account: Account) -> OwnSet:
    """Pictures of LabelMe's files.

    Shapes of one label and ``group_id`` are parts of one object. The lines of a shape's
    ``description`` are its expressions. LabelMe's polygons have no holes: a cut that leads to
    the hole and back, a shape of type 'mask', or a later shape that is labelled ``_background_``
    says them. ``__ignore__`` marks a region of which nothing is known.
    """
    finder = finder_in([reading.images or os.path.abspath(folder)], reading)
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
        part, fault = outline_of(shape)
        if label == BACKGROUND:
            if fault:
                found.append(DrawnShape(where, '', fault=fault))
            else:
                cuts.append((len(found), part))
                picture.cuts += 1
                account.decide(f'shape labelled {BACKGROUND}: what is drawn before it ends there',
                               where)
            continue
        group, kind = shape.get('group_id'), shape_type_of(shape)
        found.append(DrawnShape(where, label, part, fault,
                                None if group in (None, '') else str(group),
                                box=kind in RECTANGLES and part is not None,
                                areal=kind not in _NO_AREA,
                                phrases=_lines(shape, where, account),
                                score=score_of(shape.get('score'))))
    add_shapes(picture, found, reading.boxes != 'leave', account, cuts)


def _label(shape) -> str:
    label = shape.get('label') if isinstance(shape, dict) else None
    return clean_text(label) if isinstance(label, str | int | float) else ''


def _lines(shape: dict, where: str, account: Account) -> list[str]:
    text = shape.get('description')
    if not isinstance(text, str):
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return texts_of(lines, where, account) if lines else []
