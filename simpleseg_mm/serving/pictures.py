"""Pictures that users sent, in memory for a while; and files of a folder that is allowed."""
import base64
import binascii
import io
import re
import secrets
import threading
import urllib.parse
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
        name = file_name(name)
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
        """A picture in base64 or as a ``data:`` address; not kept. Raises ImageError."""
        return Picture('', file_name(name), self.open(bytes_of(text), 'the picture'))

    def read(self, *paths: str) -> Picture:
        """A file of the allowed folder, by its path there; not kept.

        Args:
            paths: spellings of one path; the first that is there counts.

        Raises:
            PermissionError: no folder is allowed, or the path leads out of it.
            ImageError: there is no such picture.
        """
        if self.root is None:
            raise PermissionError('this server reads no paths: send the picture, or start it with '
                                  '--root FOLDER')
        places = {path: self._inside(path) for path in paths}
        path = next((path for path, place in places.items() if place and place.is_file()),
                    paths[0])
        place = places[path]
        if place is None or not place.is_file():
            raise ImageError(f'there is no picture {path[:200]!r} in the folder of this server')
        return Picture('', place.name, load_image(place, path, self.max_pixels))

    def _inside(self, path: str) -> Optional[Path]:
        """The place of a path; None: it cannot be one. Raises PermissionError."""
        try:
            place = (self.root / path).resolve()
        except (OSError, ValueError, RuntimeError):  # null bytes; links in a circle
            return None
        if not place.is_relative_to(self.root):
            raise PermissionError('the path is outside the folder that this server may read')
        return place


def file_name(name: str) -> str:
    """A picture's name for messages and exports: no folder in it, at most 200 characters."""
    name = Path(name.replace('\\', '/').replace('\0', '')).name
    stem, dot, suffix = name.rpartition('.')
    return (stem[:180] + dot + suffix[:19] if stem else name[:200]) or 'picture.png'


def bytes_of(text: str) -> bytes:
    """The bytes of base64 or of a ``data:`` address.

    Lines, blanks, the letters of addresses (``-_``) and left out ``=`` are taken, and parameters
    (``data:image/png;name=a.png;base64,``). Raises ImageError.
    """
    try:
        if text[:5].lower() == 'data:':
            head = re.match(r'data:(?:[^,"]|"[^"]*")*,', text[:2000], re.I)
            if head is None:
                raise ValueError
            text = text[head.end():]
            if not re.search(r';\s*base64\s*,$', head[0], re.I):
                return urllib.parse.unquote_to_bytes(text)
            text = urllib.parse.unquote(text) if '%' in text else text
        raw = text.encode('ascii').translate(bytes.maketrans(b'-_', b'+/'), b' \t\r\n\f\v')
        raw = raw.rstrip(b'=')
        return base64.b64decode(raw + b'=' * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError('`image` is not base64 of a picture file') from None


def as_jpeg(pixels: np.ndarray) -> bytes:
    """The picture for a browser."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=92, subsampling=0)
    return out.getvalue()
