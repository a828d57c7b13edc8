"""Pascal VOC's masks as pictures with objects; see :func:`.own_files.read_own`.

Readers of other packages take the class of an object from the picture's list of boxes, by its
place; here it is the class that its pixels have.
"""
from pathlib import Path

import numpy as np

from simpleseg_mm.files import ImageError, PictureFinder, open_picture, read_lines
from simpleseg_mm.polygon import mask_to_rle

from .own_account import Account
from .own_formats import (OwnObject, OwnPicture, OwnSet, Reading, finder_in, missing_picture,
                          tell_guesses)
from .sample import clean_text

OBJECTS, CLASSES = 'SegmentationObject', 'SegmentationClass'
#: VOC's classes, in the order of their numbers, from 1
NAMES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
         'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
         'train', 'tvmonitor')
_VOID = (224, 224, 192)  # the border of which nothing is known


def is_voc(folder: Path) -> bool:
    """Whether a folder holds VOC's masks."""
    return (folder / CLASSES).is_dir()


def read_voc(folder: Path, reading: Reading, account: Account) -> OwnSet:
    """Pictures of a folder with ``SegmentationClass`` and, where objects are told apart,
    ``SegmentationObject``. Where they are not, the pixels of a class are a group.

    Raises:
        FileNotFoundError: there are no masks.
        ValueError: ``labelmap.txt`` cannot be read.
    """
    names = _names_of(folder)
    place = reading.images or next(
        (folder / name for name in ('JPEGImages', 'images') if (folder / name).is_dir()),
        folder.parent)
    finders: dict[Path, PictureFinder] = {}  # a mask's folder is that of its picture, too
    masks = sorted((folder / CLASSES).rglob('*.png'))
    if not masks:
        raise FileNotFoundError(f'{folder / CLASSES} holds no masks (.png)')
    pictures = []
    for classes in masks:
        account.read['picture'] += 1
        name = classes.relative_to(folder / CLASSES)
        if name.parent not in finders:
            finders[name.parent] = finder_in([place / name.parent, place], reading)
        path, how = finders[name.parent].look_beside(name.stem)
        picture = OwnPicture(str(path or classes), path, None,
                             fault='' if path else missing_picture(how))
        try:
            _add_objects(picture, classes, folder / OBJECTS / name, names, account)
        except (OSError, ImageError):
            picture.fault = picture.fault or 'mask that cannot be read'
        pictures.append(picture)
    for finder in finders.values():
        tell_guesses(finder, folder, account)
    return OwnSet(pictures, 'stored')


def _add_objects(picture: OwnPicture, classes: Path, objects: Path, names: dict, account: Account
                 ) -> None:
    colors = _colors(classes)
    told_apart = objects.is_file()
    ids = _colors(objects) if told_apart else colors
    if ids.shape != colors.shape:
        raise ImageError(f'{objects} and {classes} are of two sizes')
    picture.size = colors.shape
    void = _number(_VOID)
    known = (ids != 0) & (ids != void) & (colors != void)
    if not told_apart and known.any():
        account.decide('picture whose objects are not told apart (no SegmentationObject): the '
                       'pixels of a class are one group', picture.where)
    if (colors == void).any():
        account.decide('border of which nothing is known (void): it is of no object',
                       picture.where)
    for number in np.unique(ids[known]).tolist():
        account.read['annotation'] += 1
        mask = known & (ids == number)
        inside, counts = np.unique(colors[mask], return_counts=True)
        name = names.get(int(inside[counts.argmax()]))
        where = f'{objects if told_apart else classes}, colour {number:06x}'
        picture.objects.append(OwnObject(
            where, [mask_to_rle(mask)], name or None, crowd=not told_apart,
            lost='' if name else 'object of a colour that is no class: give labelmap.txt'))


def _names_of(folder: Path) -> dict[int, str]:
    """Names of classes by :func:`_number` of their colours."""
    path = folder / 'labelmap.txt'
    if not path.is_file():
        return {_number(_voc_color(k)): name for k, name in enumerate(NAMES, 1)}
    found = {}
    lines = [line for line in read_lines(path) if not line.startswith('#')]
    for number, line in enumerate(lines):
        name, _, rest = line.rpartition(':')[0].rpartition(':')[0].rpartition(':')
        try:
            # without colours they are VOC's, by the number of the line
            color = [int(value) for value in rest.split(',')] if rest else _voc_color(number)
            if not name or len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}: {clean_text(line, 60)} is no line as name:R,G,B:parts:"
                             'actions') from None
        found[_number(color)] = clean_text(name)
    return found


def _colors(path: Path) -> np.ndarray:
    """``(H, W) int64``, of each pixel :func:`_number` of its colour."""
    with open_picture(path, str(path)) as image:
        rgb = np.asarray(image.convert('RGB'), np.int64)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _number(color) -> int:
    red, green, blue = color
    return int(red) << 16 | int(green) << 8 | int(blue)


def _voc_color(number: int) -> tuple[int, int, int]:
    """VOC's colour of a class: its bits, the lowest first, are the highest of the channels."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (number & 1) << shift
        green |= (number >> 1 & 1) << shift
        blue |= (number >> 2 & 1) << shift
        number >>= 3
    return red, green, blue
