"""Where other tools find pictures that they then read as this package does."""
import os
import shutil
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import ImageError, open_picture, orientation_of, replacing
from ..structures import FileNames
from .chat import LeftOut, is_utf8

COPIES = ('never', 'needed', 'all')


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
