"""Pictures that users sent, in memory for a while; and files of a folder that is allowed."""
import base64
import binascii
import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image

from ..files import ImageError, load_image


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        id: by which it is asked about.
        name: of its file, for exports; no folder in it.
        pixels: (H, W, 3) uint8, RGB, upright.
    """
    id: str
    name: str
    pixels: np.ndarray


class Pictures:
    """The newest pictures, by ids that cannot be guessed; the oldest go first.

    Args:
        max_pixels: of one picture.
        max_bytes: of all decoded pictures together.
        root: folder whose files may be named; None: none may.
    """

    def __init__(self, max_pixels: int, max_bytes: int, root: Optional[Path] = None) -> None:
        self.max_pixels, self.max_bytes = max_pixels, max_bytes
        self.root = None if root is None else Path(root).resolve(strict=True)
        self._kept: 'OrderedDict[str, Picture]' = OrderedDict()
        self._lock = threading.Lock()

    def add(self, raw: bytes, name: str = '') -> Picture:
        """Decode and keep. Raises ImageError."""
        if not raw:
            raise ImageError('the picture is empty: send its bytes as the body')
        name = Path((name or 'picture.png').replace('\\', '/')).name or 'picture.png'
        picture = Picture(secrets.token_urlsafe(12), name, self.open(raw, name))
        with self._lock:
            self._kept[picture.id] = picture
            while len(self._kept) > 1 and sum(
                    one.pixels.nbytes for one in self._kept.values()) > self.max_bytes:
                self._kept.popitem(last=False)
        return picture

    def open(self, raw: bytes, name: str) -> np.ndarray:
        """Pixels of a file's bytes. Raises ImageError."""
        return load_image(raw, name, self.max_pixels)

    def get(self, key: str) -> Picture:
        """A kept picture. KeyError where it is unknown or has gone."""
        with self._lock:
            self._kept.move_to_end(key)
            return self._kept[key]

    def decode(self, text: str, name: str = '') -> Picture:
        """A picture in base64, with or without ``data:...;base64,`` before it; not kept."""
        try:
            raw = base64.b64decode(text.partition('base64,')[2] or text, validate=True)
        except (binascii.Error, ValueError):
            raise ImageError('`image` is not base64 of a picture file') from None
        return Picture('', Path(name).name or 'picture.png',
                       self.open(raw, 'the picture'))

    def read(self, path: str) -> Picture:
        """A file of the allowed folder, by its path there; not kept.

        Raises:
            PermissionError: no folder is allowed, or the path leads out of it.
        """
        if self.root is None:
            raise PermissionError('this server reads no paths: send the picture, or start it with '
                                  '--root FOLDER')
        place = (self.root / path).resolve()
        if not place.is_relative_to(self.root):
            raise PermissionError('the path is outside the folder that this server may read')
        return Picture('', place.name, load_image(place, path or 'the path', self.max_pixels))


def as_jpeg(pixels: np.ndarray) -> bytes:
    """The picture for a browser."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=92, subsampling=0)
    return out.getvalue()
