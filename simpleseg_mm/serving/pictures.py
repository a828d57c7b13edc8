"""Pictures that users sent, in memory for a while; and files of a folder that is allowed."""
import base64
import binascii
import hashlib
import io
import re
import secrets
import threading
import urllib.parse
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import (ImageError, ImageTooLarge, load_image, open_picture, spelled,
                     spellings)

MAX_ROOT_BYTES = 100_000_000  # of a file of the allowed folder


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        id: by which it is asked about.
        name: of its file, for exports; no folder in it.
        pixels: (H, W, 3) uint8, RGB, upright.
        digest: of the file's bytes, see :func:`digest_of`.
    """
    id: str
    name: str
    pixels: np.ndarray
    digest: str = ''


class Pictures:
    """The newest pictures, by ids that cannot be guessed; the oldest go first.

    Args:
        max_pixels: of one picture.
        max_bytes: of all decoded pictures together.
        root: folder whose files may be named; None: none may.
    """

    def __init__(self, max_pixels: int, max_bytes: int, root: Path | None = None) -> None:
        self.max_pixels, self.max_bytes = max_pixels, max_bytes
        self.root = None if root is None else Path(root).resolve(strict=True)
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, raw: bytes, name: str = '') -> Picture:
        """Decode and keep. Raises ImageError."""
        name = file_name(name)
        picture = Picture(secrets.token_urlsafe(12), name, self.open(raw, name), digest_of(raw))
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

    def read(self, *paths: str) -> tuple[bytes, str]:
        """Bytes and name of a file of the allowed folder; see :meth:`place_of`."""
        place = self.place_of(*paths)
        try:
            return place.read_bytes(), spelled(place.name)
        except OSError as error:
            raise ImageError(f'the picture {paths[0][:200]!r} cannot be read: {error.strerror}'
                             ) from None

    def place_of(self, *paths: str) -> Path:
        """A file of the allowed folder, links resolved.

        Args:
            paths: spellings of its path there; the first that is there counts.

        Raises:
            PermissionError: no folder is allowed, or the path leads out of it.
            ImageError: there is no such picture, or it is too large.
        """
        if self.root is None:
            raise PermissionError('this server reads no paths: send the picture, or start it with '
                                  '--root FOLDER')
        places = [self._inside(text) for path in paths for text in spellings(path)]
        place = next((place for place in places if place is not None and place.is_file()), None)
        try:
            if place is not None and place.stat().st_size > MAX_ROOT_BYTES:
                raise ImageTooLarge(f'the picture has more than {MAX_ROOT_BYTES:,} bytes')
            if place is not None:
                return place
        except OSError:
            pass
        raise ImageError(f'there is no picture {paths[0][:200]!r} in the folder of this server')

    def _inside(self, path: str) -> Path | None:
        """The place of a path; None: it cannot be one. Raises PermissionError."""
        try:
            place = (self.root / path).resolve()
        except (OSError, ValueError, RuntimeError):  # null bytes; links in a circle
            return None
        if not place.is_relative_to(self.root):
            raise PermissionError('the path is outside the folder that this server may read')
        return place


def digest_of(raw: bytes) -> str:
    """By which a file's content is known again: 32 hex digits of its SHA-256."""
    return hashlib.sha256(raw).hexdigest()[:32]


def file_name(name: str) -> str:
    """A picture's name for messages and exports: no folder in it, at most 200 characters."""
    name = Path(name.replace('\\', '/').replace('\0', '')).name
    stem, dot, suffix = name.rpartition('.')
    return (stem[:180] + dot + suffix[:19] if stem else name[:200]) or 'picture.png'


def from_base64(text: str) -> bytes:
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


def seconds_of(raw: bytes) -> float:
    """About how long a picture takes to decode, by its format and size, on a slow core. What is no
    picture takes no time."""
    try:
        with open_picture(raw) as image:
            pixels = image.width * image.height
            if image.format == 'JPEG':  # each scan goes through all pixels
                return 8e-9 * pixels * raw.count(b'\xff\xda')
            if image.format == 'JPEG2000':
                return 1e-6 * len(raw) + 2e-7 * pixels
            return (2.5e-7 if image.format == 'WEBP' else 4e-8) * pixels
    except ImageError:
        return 0.0


def as_jpeg(pixels: np.ndarray) -> bytes:
    """The picture for a browser."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=92, subsampling=0)
    return out.getvalue()
