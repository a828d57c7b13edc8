"""Where the pictures of a dataset lie, and which of them are to be left out."""
import logging
import os
import stat
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image

from simpleseg_mm.files import (ImageError, PictureFinder, open_picture, orientation_of,
                                read_lines)
from simpleseg_mm.files.parquet import is_inside_parquet, read_inside
from simpleseg_mm.files.pictures import stored_size, turned

from .native import missing_images


class NamedPictures:
    """The pictures that records name, each looked for once.

    Args:
        left_out: Names to leave out, see :func:`names_to_leave_out`.
    """

    def __init__(self, left_out: Collection[str] = ()) -> None:
        self.left_out = left_out
        self._listed: set[str] = set()
        self._places: dict[tuple[str, str], tuple[Path, str | None]] = {}
        self._finders: dict[Path, PictureFinder] = {}
        self._sizes: dict[str | Path, tuple[int, int]] = {}

    def finder(self, folder: Path) -> PictureFinder:
        """The one finder of a folder."""
        if folder not in self._finders:
            self._finders[folder] = PictureFinder([folder])
        return self._finders[folder]

    def find(self, folder: Path, name: str) -> tuple[Path, str | None]:
        """Where a picture lies, and what is wrong with it, or None."""
        key = str(folder), name
        if key not in self._places:
            path = folder / name
            found, fault = path, file_fault(path)
            if fault is not None and not os.path.lexists(path):
                other, how = self.finder(folder).look(name)
                if other is not None:
                    found, fault = other, file_fault(other)
                elif how != 'missing':
                    fault = f'{fault} ({how})'
            self._places[key] = found, fault
        return self._places[key]

    def is_left_out(self, folder: Path, name: str) -> bool:
        """Whether a picture is listed as one to leave out."""
        listed = self.left_out & names_of(name, folder) if self.left_out else set()
        self._listed |= listed
        return bool(listed)

    def size(self, path: str | Path, orientation: str) -> tuple[int, int]:
        """(height, width) in pixels from a picture's header, as ``LoadImage(orientation)`` reads
        it. ImageError where it cannot be read."""
        if path not in self._sizes:
            with opened_picture(path) as image:
                width, height = stored_size(image)
                if orientation == 'upright':
                    width, height = turned((width, height), orientation_of(image))
            self._sizes[path] = height, width
        return self._sizes[path]

    def report(self, label: str) -> None:
        """Log the listed names that were of no picture, and what was guessed."""
        if unknown := self.left_out - self._listed if self.left_out else ():
            print_log(f'{label}: {len(unknown)} of {len(self.left_out)} names in skip_images '
                      f'are of no image that was asked for, such as {min(unknown)!r}',
                      logger='current', level=logging.WARNING)
        for folder, finder in self._finders.items():
            if finder.guessed:
                print_log(f'{label}: pictures below {folder} that do not lie as written: '
                          f'{dict(finder.guessed)}', logger='current', level=logging.WARNING)


def bytes_of_picture(path: str | Path, backend_args: dict | None = None) -> bytes:
    """The file of a picture, which may lie inside a parquet file. OSError where it cannot be
    read."""
    if is_inside_parquet(path):
        return read_inside(path)
    return fileio.get(path, backend_args=backend_args)


@contextmanager
def opened_picture(path: str | Path) -> Iterator[Image.Image]:
    """:func:`simpleseg_mm.files.open_picture` for a path that may be inside a parquet file."""
    source: str | Path | bytes = path
    if is_inside_parquet(path):
        try:
            source = read_inside(path)
        except OSError as error:
            raise ImageError(str(error)) from None
    with open_picture(source, str(path)) as image:
        yield image


def file_fault(path: Path) -> str | None:
    """What is wrong with an image file as far as can be told without reading it, or None."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return missing_images(path.parent, f'there is no image {path}')
    if not stat.S_ISREG(found.st_mode):
        return f'{path} is no file'
    return None if found.st_size else f'{path} is an empty file'


def names_to_leave_out(skip_images: Sequence[str] | str) -> frozenset[str]:
    """Names as :func:`names_of` gives them, from a list or a file with one a line."""
    if isinstance(skip_images, str | os.PathLike):
        if not os.path.isfile(skip_images):
            raise FileNotFoundError(f'skip_images: there is no list {skip_images}; refcoco.py '
                                    'verify --bad-images writes one, and several names are '
                                    'given as a list')
        skip_images = read_lines(skip_images)
    return frozenset(map(_plain_name, skip_images))


def names_of(name: str, folder: Path) -> set[str]:
    """The names that ``skip_images`` may list a picture by."""
    names = name, os.path.join(folder.name, name), os.path.join(folder, name)
    return {_plain_name(one) for one in (*names, os.path.abspath(names[-1]))}


def _plain_name(name: str) -> str:
    """A picture's name as names are compared: by ``/``, in one normal form of Unicode."""
    return unicodedata.normalize('NFC', os.path.normpath(name.strip().replace('\\', '/')))
