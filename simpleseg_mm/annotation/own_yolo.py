"""YOLO's outlines (Ultralytics, Roboflow) as pictures with objects; see
:func:`.own_files.read_own`.

Ultralytics' own reader needs OpenCV and its trainer's environment, makes broken rows an exception
and takes a picture without labels for one without objects.
"""
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from simpleseg_mm.files import PictureFinder, read_lines, read_text, shown
from simpleseg_mm.files.pictures import SUFFIXES
from simpleseg_mm.files.shapes import corners, numbers

from .own_account import Account
from .own_formats import OwnPicture, OwnSet, Reading
from .own_outlines import Relative
from .own_shapes import DrawnShape, add_shapes
from .sample import clean_text

_SLACK = 0.01  # share of a side that an outline may lie outside its picture, for rounding


class YoloSet:
    """A ``data.yaml``: names of classes, and where pictures and labels lie.

    Args:
        path: of the file.
        reading: ``images`` replaces the folders that the file names.

    Raises:
        ValueError: it is no such file, or not of outlines.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            content = yaml.safe_load(read_text(path))
        except (yaml.YAMLError, RecursionError):
            raise ValueError(f"{path} is no YAML that can be read; give YOLO's data.yaml"
                             ) from None
        names = content.get('names') if isinstance(content, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict):
            raise ValueError(f"{path} has no names of classes: it is no data.yaml of YOLO's")
        if content.get('kpt_shape'):
            raise ValueError(f'{path} is of key points (kpt_shape), not of outlines: give a set '
                             'for segmentation')
        self.path, self.reading, self.content = path, reading, content
        self._elsewhere: dict[str, list[Path]] | None = None
        self.names = {str(key): clean_text(name) for key, name in names.items()}
        here = Path(os.path.abspath(path)).parent
        root = content.get('path')
        self.roots = [here / root, here] if isinstance(root, str) else [here]

    def places(self, split: str) -> list[Path]:
        """Folders of pictures, or files that list them, of 'train' or 'val'; those that are
        there."""
        said = self.content.get(split) or ()
        found = []
        for name in said if isinstance(said, list) else [said]:
            if not isinstance(name, str):
                continue
            # Roboflow writes ../train/images for what lies in train/images
            for text in (name, name.removeprefix('../').removeprefix('./')):
                place = next((root / text for root in self.roots if (root / text).exists()), None)
                if place is not None:
                    found.append(place)
                    break
        return found

    @property
    def validates(self) -> bool:
        """Whether it has pictures of its own for validation."""
        val = self.places('val')
        return not self.reading.images and bool(val) and {*map(os.path.realpath, val)} != {
            *map(os.path.realpath, self.places('train'))}

    def read(self, split: str, account: Account) -> OwnSet:
        """The pictures of a split.

        A picture whose file of labels is empty holds nothing. One without a file is left out:
        whether anybody has looked at it is not known.

        Raises:
            FileNotFoundError: there are none.
        """
        pictures = []
        for path in self._pictures(split):
            account.read['picture'] += 1
            labels = self._labels_of(path) or self._by_name(path, account)
            if labels is None:
                account.leave('picture', 'picture without a file of labels (an empty file says '
                              'that nothing is on it)', str(path))
                continue
            picture = OwnPicture(str(path), path, None)
            try:
                lines = read_lines(labels)
            except (OSError, ValueError):
                picture.fault, lines = 'picture whose file of labels cannot be read', []
            account.read['annotation'] += len(lines)
            rows = list(dict.fromkeys(lines))
            account.leave('annotation', 'row written twice', str(labels), len(lines) - len(rows))
            shapes = (self._shape(row, f'{labels}, row {number}')
                      for number, row in enumerate(rows))
            add_shapes(picture, shapes, self.reading.boxes == 'take', account)
            pictures.append(picture)
        return OwnSet(pictures, 'upright')

    def _pictures(self, split: str) -> Iterator[Path]:
        places = [self.reading.images] if self.reading.images else self.places(split)
        found: dict[str, Path] = {}
        for place in places:
            if place.is_dir():
                every = sorted(path for path in place.rglob('*') if not path.name.startswith('.')
                               and path.suffix.lower() in SUFFIXES)
            else:  # a list of pictures
                finder = PictureFinder([place.parent, *self.roots])
                looked = [finder.look(line) for line in read_lines(place)]
                every = [path for path, _ in looked if path is not None]
            for path in every:
                found.setdefault(os.path.realpath(path), path)
        if not found:
            raise FileNotFoundError(
                f'{self.path}: no pictures of {split}: {shown(self.content.get(split))}. Give '
                'their folder by --images')
        return iter(found.values())

    def _labels_of(self, path: Path) -> Path | None:
        """Where Ultralytics looks, then beside the picture, then beside the data.yaml."""
        head, found, tail = str(path).rpartition(f'{os.sep}images{os.sep}')
        names = [Path(f'{head}{os.sep}labels{os.sep}{tail}')] if found else []
        here = self.path.parent
        names += [path, here / 'labels' / path.name, here / path.name]
        return next((name.with_suffix('.txt') for name in names
                     if name.with_suffix('.txt').is_file()), None)

    def _by_name(self, path: Path, account: Account) -> Path | None:
        """A file of labels elsewhere below data.yaml that has the picture's name, and of several
        that one whose folders are most alike."""
        if self._elsewhere is None:
            self._elsewhere = {}
            for file in sorted(self.path.parent.rglob('*.txt')):
                self._elsewhere.setdefault(file.stem, []).append(file)
        found = sorted((_same_folders(path, file), file)
                       for file in self._elsewhere.get(path.stem, []))
        if not found or len(found) > 1 and found[-1][0] == found[-2][0]:
            return None
        account.decide('file of labels found by its name', str(path))
        return found[-1][1]

    def _shape(self, row: str, where: str) -> DrawnShape:
        number, *values = row.split()
        label = self.names.get(number.removesuffix('.0'), '')
        fault = '' if label else 'row of a class that data.yaml does not name'
        part = None
        try:
            found = numbers(values)
            if len(found) == 4:
                x, y, width, height = found
                part = Relative(corners(x - width / 2, y - height / 2, x + width / 2,
                                        y + height / 2))
            elif len(found) < 6 or len(found) % 2:
                fault = fault or 'row that is no outline: a class, and x and y of three points on'
            elif (found < -_SLACK).any() or (found > 1 + _SLACK).any():
                fault = fault or 'row whose numbers are no shares of the picture'
            else:
                part = Relative(found.reshape(-1, 2))
        except ValueError:
            fault = fault or 'row that is no numbers'
        return DrawnShape(where, label, part, fault, box=len(values) == 4 and part is not None)


def _same_folders(one: Path, other: Path) -> int:
    """How many of the innermost folders of two files have the same names."""
    pairs = zip(one.parent.parts[::-1], other.parent.parts[::-1])
    return next((count for count, (a, b) in enumerate(pairs) if a != b), len(one.parts))
