"""Pictures from anywhere, read safely: the one door for files, addresses and uploads.

A picture is refused before its pixels are unpacked where it is too large, and by an
:class:`ImageError` that says what is wrong and what would do.
"""
import io
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

#: what is read; formats that run other programs (EPS) or hold scenes are not
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'JPEG2000', 'PPM')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.jp2', '.ppm',
            '.pgm')
# Our choices. The model sees a picture of some 1 MP; a mask has a byte a pixel.
MAX_SIDE = 16_384
MAX_PIXELS = 80_000_000  # below what Pillow warns of
MAX_ASPECT = 200  # Qwen's image processor refuses longer ones
MAX_BYTES = 100_000_000
MAX_SCANS = 100  # of a progressive JPEG; encoders write some ten
MAX_SCANNED = 2_000_000_000  # scans x pixels: each scan goes through the whole picture
TIMEOUT = 20.0  # seconds without an answer from a server

_ORIENTATION = 0x0112
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
          4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
          6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}
_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1),  # of rows and columns, the sides
          5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}  # swapped before from 5 on

ImageLike = str | os.PathLike | bytes | np.ndarray | Image.Image


class ImageError(ValueError):
    """A picture that cannot be used; the message names it and says what would do."""


class ImageTooLarge(ImageError):
    """A picture with more pixels or bytes than are taken."""


class ImageTooLong(ImageError):
    """A picture one side of which is too many times the other."""


def load_image(source: ImageLike, name: str = '', max_pixels: int = MAX_PIXELS,
               upright: bool = True, white: int = 65535) -> np.ndarray:
    """Pixels of a picture.

    Args:
        source: path, http(s) address, the bytes of a file, a PIL picture, or an array: (H, W, 3)
            **RGB**, (H, W, 4) RGBA or (H, W) grey; uint8, uint16 (up to ``white``) or bool.
        name: what messages call it; the path or address unless told.
        max_pixels: of an encoded picture, known before its pixels are unpacked.
        upright: turn the picture as its EXIF orientation says, as viewers show it; False: as it
            is stored, as COCO's annotations mean it.
        white: the brightest value of a picture of more than 8 bits: 65535 of 16 bits in full, 4095
            of twelve bits in a file of sixteen. What is brighter is white.

    Returns:
        (H, W, 3) uint8, RGB. Greyscale, CMYK, palettes and 16 bits are converted, transparency is
        laid on white; of several frames the first is taken.

    Raises:
        ImageError: missing or unreachable, no picture, broken, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or 'the array', white)
    if isinstance(source, Image.Image):
        name = name or getattr(source, 'filename', '') or 'the picture'
        check_size(source.size, name)
        with _one_error(name, 0):
            return _to_rgb(source, name, upright, white)
    with open_picture(source, name, max_pixels) as image:
        return _to_rgb(image, name or _name_of(source), upright, white)


@contextmanager
def open_picture(source: str | os.PathLike | bytes, name: str = '',
                 max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture whose header is read and whose pixels are not yet unpacked.

    For what needs its size, format or orientation; :func:`load_image` gives pixels. Whatever a
    broken file raises inside the block becomes an ImageError.

    Args:
        source: path, http(s) address, or the bytes of a file.
        name, max_pixels: see :func:`load_image`.

    Raises:
        ImageError: see :func:`load_image`.
    """
    name = name or _name_of(source)
    if isinstance(source, (str, os.PathLike)):
        source = _download(name) if is_url(source) else _read(Path(source), name)
    if not isinstance(source, (bytes, bytearray)):
        raise ImageError(f'a picture is a path, an address, bytes, an array or a PIL picture; '
                         f'got {type(source).__name__}')
    with _one_error(name, len(source)), Image.open(io.BytesIO(source), formats=FORMATS) as image:
        check_size(image.size, name, max_pixels)
        if image.format in ('JPEG', 'MPO'):  # MPO: of two cameras, or with a preview behind
            _check_scans(source, image.size, name)
        yield image


def check_picture(source: str | os.PathLike | bytes, name: str = '') -> None:
    """Refuse what :func:`open_picture` refuses, by the header alone. Raises ImageError."""
    with open_picture(source, name):
        pass


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 of an open picture: 1 where it has none, or a malformed one."""
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # malformed EXIF raises whatever its bytes lead to
        return 1
    return tag if tag in _TURNS else 1


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """The size of a picture once it is upright: tags 5 to 8 swap its sides."""
    return size[::-1] if orientation >= 5 else size


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, ...) of a picture as it is stored, such as a mask, once it is upright."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    rows, columns = _FLIPS[orientation]
    return np.ascontiguousarray(stored[::rows, ::columns])


def is_url(source) -> bool:
    """Whether a source is an http(s) address."""
    return isinstance(source, str) and source.lower().startswith(('http://', 'https://'))


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Pictures of a folder by their suffix, sorted; not of folders in it, nor hidden files
    (``._NAME.jpg`` of a Mac). Links to nothing are among them: reading tells of each.

    Raises:
        ImageError: there are none.
    """
    found = sorted(path for path in Path(folder).iterdir()
                   if path.suffix.lower() in SUFFIXES and not path.name.startswith('.')
                   and (path.is_file() or not path.exists()))
    if not found:
        raise ImageError(f'{folder} holds no pictures ({", ".join(SUFFIXES)})')
    return found


def check_size(size: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture of ``size`` (width, height) that is too large. Raises ImageError."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f'{name} is {width} x {height} pixels: it is empty')
    if max(size) > MAX_SIDE or width * height > max_pixels:
        raise ImageTooLarge(f'{name} is {width} x {height} pixels; at most {MAX_SIDE} a side and '
                            f'{max_pixels / 1e6:g} million in all. Cut it into tiles, or make it '
                            'smaller: the model sees about a million')
    if max(size) > MAX_ASPECT * min(size):
        raise ImageTooLong(f'{name} is {width} x {height} pixels; one side may be at most '
                         f'{MAX_ASPECT} times the other. Cut it into tiles')


def _read(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageTooLarge(f'{name} has {path.stat().st_size:,} bytes; at most '
                                f'{MAX_BYTES:,}')
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f'there is no picture {name}') from None
    except OSError as error:
        raise ImageError(f'cannot read {name}: {error.strerror}') from None


def _download(url: str) -> bytes:
    request = urllib.request.Request(quoted(url), headers={'User-Agent': 'simpleseg_mm'})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            raw = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ImageError(f'{url} answers {error.code} {error.reason}') from None
    except (OSError, ValueError) as error:  # URLError and timeouts among them
        raise ImageError(f'cannot reach {url}: {getattr(error, "reason", error)}. Fetch the '
                         'picture by other means and give its path') from None
    except Exception as error:  # http.client's, for answers that are none
        raise ImageError(f'{url} does not answer as a web server does: {error!r:.100}') from None
    if len(raw) > MAX_BYTES:
        raise ImageError(f'{url} sends more than {MAX_BYTES:,} bytes')
    return raw


def quoted(url: str) -> str:
    """An address as it is sent: blanks and letters beyond ASCII as %XX, what is quoted stays (a
    ``%`` that quotes nothing becomes ``%25``)."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.encode('idna').decode() if not parts.netloc.isascii() else parts.netloc
    except ValueError as error:
        raise ImageError(f'{url} is no address: {error}') from None
    def quote(text: str, safe: str) -> str:
        return urllib.parse.quote(re.sub(r'%(?![0-9A-Fa-f]{2})', '%25', text), safe)

    return urllib.parse.urlunsplit((parts.scheme, host, quote(parts.path, "/%:@!$&'()*+,;=~"),
                                    quote(parts.query, "/%:@!$&'()*+,;=~?[]"), ''))


def _name_of(source) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else 'the upload'


@contextmanager
def _one_error(name: str, size: int) -> Iterator[None]:
    """What broken files raise, as ImageErrors."""
    try:
        yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f'{name} is no picture that can be read ({size:,} bytes); give one '
                         f'of {", ".join(FORMATS)}') from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f'{name} unpacks to more than {MAX_PIXELS // 10**6} million pixels; '
                            'make it smaller') from None
    except MemoryError:
        raise ImageTooLarge(f'{name} does not fit into memory; make it smaller') from None
    except Exception as error:  # decoders raise whatever broken bytes lead to
        raise ImageError(f'{name} is a broken picture: {str(error) or repr(error)}') from None


def _check_scans(raw: bytes, size: tuple[int, int], name: str) -> None:
    """Refuse a JPEG whose scans are more than any encoder writes: they take minutes to read."""
    scans = raw.count(b'\xff\xda')
    if scans > MAX_SCANS or scans * size[0] * size[1] > MAX_SCANNED:
        raise ImageTooLarge(f'{name} is a JPEG of {scans} scans; at most {MAX_SCANS}, and fewer '
                            'where it is large. Save it anew')


def _to_rgb(image: Image.Image, name: str, upright: bool, white: int) -> np.ndarray:
    orientation = orientation_of(image) if upright else 1
    image.seek(0)
    image.load()
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    if image.mode.startswith('I'):  # 16 bits, and the 32 that PIL widens some of them to
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16), name, white)
    if image.mode == 'F':
        raise ImageError(f'{name} holds fractions, whose black and white are not known; save it '
                         'with 8 or 16 bits')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))


def _from_array(array: np.ndarray, name: str, white: int) -> np.ndarray:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f'{name} has shape {shape}; give (H, W, 3) RGB, (H, W, 4) or (H, W)')
    check_size((shape[1], shape[0]), name)
    if array.dtype == np.uint16:
        bright = np.minimum(array, white).astype(np.uint32)
        array = ((bright * 255 + white // 2) // white).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f'{name} is of {array.dtype}; give uint8 (0..255) or uint16 (0..65535)')
    if array.ndim == 3 and shape[2] == 4:
        return _to_rgb(Image.fromarray(array, 'RGBA'), name, False, white)
    grey = array if array.ndim == 2 else array[..., 0] if shape[2] == 1 else None
    return np.ascontiguousarray(array if grey is None else np.stack([grey] * 3, axis=-1))
