"""Pictures for other tools, which are to read them as this package does."""
import io
import os
import shutil
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import ImageError, load_image, open_picture, orientation_of, replacing
from ..files.parquet import is_inside_parquet
from ..files.pictures import picture_bytes
from ..structures import FileNames
from .chat import LeftOut, is_utf8



class PicturePaths:
    """Paths of pictures for other tools.

    Those open a file by Pillow and take 8 bits of three colours; some turn it as its orientation
    tag says, and some do not. A picture that may come out otherwise than this package reads it is
    written as PNG, or refused.

    Args:
        folder: of copies, which is made when it is needed.
        copies: 'never'; 'needed', pictures that others read otherwise; or 'all'.
        relative_to: paths are from this folder; None: absolute.

    Attributes:
        copied: number of pictures that were written.
    """

    def __init__(self, folder: Path, copies: str = 'never',
                 relative_to: Path | None = None) -> None:
        self.folder, self.copies, self.relative_to = folder, copies, relative_to
        self.copied = 0
        self._names = FileNames()
        self._known: dict[Hashable, str] = {}
        self._refused: dict[Hashable, str] = {}

    def of(self, path: str, image_id: Hashable, pixels: np.ndarray,
           window: tuple[int, ...] | None = None) -> str:
        """The path of a picture for other tools.

        Args:
            path: of the file that holds it.
            image_id: tells it from others of one file.
            pixels: as this package reads it, (H, W, 3) uint8.
            window: x1, y1, x2, y2 where they are a crop of that picture, else None.

        Raises:
            LeftOut: it must be copied, and is not to be.
        """
        key = path, image_id, window
        if key in self._refused:
            raise LeftOut(self._refused[key], repr(path))
        if key not in self._known:
            why = _why_not(path, pixels) or window and 'its query is about a crop of its picture'
            if why and self.copies == 'never':
                self._refused[key] = why
                raise LeftOut(why, repr(path))
            found = path if self.copies != 'all' and not why else self._copy(path, why, pixels)
            found = os.path.abspath(found)
            self._known[key] = (found if self.relative_to is None
                                else os.path.relpath(found, self.relative_to))
        return self._known[key]

    def _copy(self, path: str, why: str | None, pixels: np.ndarray) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self._names.of(os.path.basename(path), self.copied)
        self.copied += 1
        to = self.folder / f'{name}{".png" if why else Path(path).suffix.lower()}'
        with replacing(to, durable=False) as partial:
            if why:
                Image.fromarray(pixels).save(partial, 'PNG')
            else:
                shutil.copyfile(path, partial)
        return to


def _why_not(path: str, pixels: np.ndarray) -> str | None:
    """Why other tools may not read these pixels from a file; None where they do."""
    if not is_utf8(path):
        return 'the path of its picture is no UTF-8'
    if path != path.strip():
        return 'the path of its picture has blanks at its ends'
    if is_inside_parquet(path):
        return 'its picture is inside another file, such as a shard'
    if not os.path.isfile(path):
        return 'its picture is no file of this machine'
    try:
        with open_picture(path) as image:
            if orientation_of(image) != 1:
                return 'its picture has an orientation tag, which tools read in two ways'
            if image.format == 'JPEG' and image.mode in ('L', 'RGB'):
                return None  # there is one way to read it
            same = np.array_equal(np.asarray(image.convert('RGB')), pixels)
    except ImageError:
        return 'its picture is inside another file, such as a shard'
    return None if same else ('its picture has transparency or more than 8 bits, which tools '
                              'read otherwise')


#: formats that all tools read, and suffixes by which they look for them; the first is given
_READ = {'JPEG': ('.jpg', '.jpeg'), 'MPO': ('.jpg', '.jpeg'), 'PNG': ('.png', ),
         'BMP': ('.bmp', ), 'WEBP': ('.webp', )}


def picture_file(source: str | os.PathLike | bytes, name: str, size: tuple[int, int]
                 ) -> tuple[bytes, str, bool]:
    """A picture's file for another tool, its suffix, and whether it was written anew.

    It is the file itself where tools read it in one way. Else it is written anew as this package
    reads it: with an orientation tag, transparency, more than 8 bits, colours for print, several
    frames, or of a format that not all tools read. It is a JPEG of quality 95 where it was a JPEG,
    else a PNG.

    Args:
        source: path, http(s) address, or the bytes of a file.
        name: of the picture, for messages and its suffix.
        size: (h, w) of the upright picture, as its outlines are for.

    Raises:
        ImageError: it cannot be read, or is of another size.
    """
    raw = picture_bytes(source, name)
    with open_picture(raw, name) as image:
        format, found = image.format, image.size[::-1]
        if format in ('JPEG', 'MPO'):
            same = image.mode in ('L', 'RGB') and orientation_of(image) == 1
        else:
            several = getattr(image, 'is_animated', False)
            same = format in _READ and not several and orientation_of(image) == 1 and \
                np.array_equal(np.asarray(image.convert('RGB')), load_image(raw, name))
    if not same:
        pixels = load_image(raw, name)
        found = pixels.shape[:2]
    if tuple(found) != tuple(size):
        raise ImageError(f'{name} is {found[1]} x {found[0]} pixels, and its outlines are for '
                         f'{size[1]} x {size[0]}: it has changed since')
    if same:
        suffix = os.path.splitext(name)[1]
        return raw, suffix if suffix.lower() in _READ[format] else _READ[format][0], False
    kind, options = ('JPEG', dict(quality=95, subsampling=0)) if format in (
        'JPEG', 'MPO') else ('PNG', {})
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue(), _READ[kind][0], True
