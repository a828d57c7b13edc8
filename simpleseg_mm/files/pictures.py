"""Pictures from anywhere, read safely: the one door for files, addresses and uploads.

A picture is refused before its pixels are decoded where it is too large, and by an
:class:`ImageError` that says what is wrong and what would do.
"""
import io
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from .packaged import locate

#: what is read; formats that run other programs (EPS) or hold scenes are not
PICTURE_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'JPEG2000', 'PPM')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.jp2', '.ppm',
            '.pgm')
# Our choices. The model sees a picture of some 1 MP; a mask has a byte a pixel.
MAX_SIDE = 16_384
MAX_PIXELS = 80_000_000  # below what Pillow warns of
MAX_ASPECT = 200  # Qwen's image processor refuses longer ones
MAX_BYTES = 100_000_000
MAX_SCANS = 100  # of a progressive JPEG; encoders write some ten
MAX_SCANNED = 2_000_000_000  # scans x pixels: each scan goes through the whole picture
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer from a server

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
        max_pixels: of an encoded picture, known before its pixels are decoded.
        upright: turn the picture as its EXIF orientation says, as viewers show it; False: as it
            is stored, as COCO's annotations mean it.
        white: the brightest value of a picture of more than 8 bits: 65535 of 16 bits in full, 4095
            of twelve bits in a file of sixteen. What is brighter is white.

    Returns:
        (H, W, 3) uint8, RGB. Greyscale, CMYK, palettes and 16 bits are converted, transparency is
        laid on white; of several frames the first is taken. A PIL picture whose pixels are
        decoded already has 8 bits a colour, as PIL has them.

    Raises:
        ImageError: missing or unreachable, no picture, broken, or too large.
    """
    return load_tagged(source, name, max_pixels, upright, white)[0]


def load_tagged(source: ImageLike, name: str = '', max_pixels: int = MAX_PIXELS,
                upright: bool = True, white: int = 65535) -> tuple[np.ndarray, int]:
    """What :func:`load_image` gives, and the picture's EXIF orientation, 1 to 8."""
    if isinstance(source, np.ndarray):
        return _from_array(source, name or 'the array', white), 1
    if isinstance(source, Image.Image):
        name = name or getattr(source, 'filename', '') or 'the picture'
        check_picture_size(source.size, name)
        with _one_error(name, 0):
            return _to_rgb(source, name, upright, white)
    with open_picture(source, name, max_pixels) as image:
        return _to_rgb(image, name or _name_of(source), upright, white)


@contextmanager
def open_picture(source: str | os.PathLike | bytes, name: str = '',
                 max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture whose header is read and whose pixels are not yet decoded.

    For what needs its size, format or orientation; :func:`load_image` gives pixels. Whatever a
    broken file raises inside the block becomes an ImageError.

    Args:
        source: path, http(s) address, or the bytes of a file.
        name, max_pixels: see :func:`load_image`.

    Raises:
        ImageError: see :func:`load_image`.
    """
    name = name or _name_of(source)
    source = picture_bytes(source, name)
    with _one_error(name, len(source)), Image.open(
            io.BytesIO(source), formats=PICTURE_FORMATS) as image:
        check_picture_size(image.size, name, max_pixels)
        if image.format in ('JPEG', 'MPO'):  # MPO: of two cameras, or with a preview behind
            _check_scans(source, image.size, name)
        yield image


def picture_bytes(source: str | os.PathLike | bytes, name: str = '') -> bytes:
    """The bytes of a picture's file. Raises ImageError: see :func:`load_image`."""
    if isinstance(source, (str, os.PathLike)):
        name = name or _name_of(source)
        if is_url(source):
            return _download(str(source))
        try:
            return _read_file(Path(locate(os.fspath(source))), name)
        except FileNotFoundError as error:  # of the package's names
            raise ImageError(str(error)) from None
    if not isinstance(source, (bytes, bytearray)):
        raise ImageError(f'a picture is a path, an address, bytes, an array or a PIL picture; '
                         f'got {type(source).__name__}')
    return source


def upright_size(source: str | os.PathLike | bytes, name: str = '',
                 max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(h, w) of a picture once it is upright, by the header alone. Raises ImageError."""
    with open_picture(source, name, max_pixels) as image:
        width, height = turned(stored_size(image), orientation_of(image))
        return height, width


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 of an open picture: 1 where it has none, or a malformed one.

    Asked before the pixels of a TIFF are decoded: PIL turns them upright, and forgets the tag.
    """
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # malformed EXIF raises whatever its bytes lead to
        return 1
    return tag if tag in _TURNS else 1


def brightest_of(image: Image.Image) -> int:
    """The brightest value of an open picture of more than 8 bits, its transparency left out; 0
    for others. Asked before :func:`orientation_of`, which decodes a PNG to 8 bits."""
    deep = _deep_pixels(image)
    return 0 if deep is None else int(deep[..., :3].max() if deep.ndim == 3 else deep.max())


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an open picture as it is stored. PIL gives that of a TIFF upright."""
    if image.format != 'TIFF':
        return image.size
    tag = image.tag_v2.get(_ORIENTATION)
    return turned(image.size, tag if tag in _TURNS else 1)


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """The size of a picture once it is upright: tags 5 to 8 swap its sides."""
    return size[::-1] if orientation >= 5 else size


def turn_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, ...) of a picture as it is stored, such as a mask, once it is upright."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    rows, columns = _FLIPS[orientation]
    return np.ascontiguousarray(stored[::rows, ::columns])


def turn_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Points ``(N, 2)``, x then y, edges, of a picture as it is stored, once it is upright.

    Args:
        size: (h, w) of the picture once it is upright.
    """
    points = np.array(points, np.float64)[:, ::-1 if orientation >= 5 else 1]
    return _flipped(points, size, orientation)


def turn_points_back(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """What :func:`turn_points` was given."""
    points = _flipped(np.array(points, np.float64), size, orientation)
    return points[:, ::-1 if orientation >= 5 else 1]


def _flipped(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    for axis, sign in ((1, _FLIPS[orientation][0]), (0, _FLIPS[orientation][1])):
        if sign < 0:
            points[:, axis] = size[1 - axis] - points[:, axis]
    return points


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


def check_picture_size(size: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS) -> None:
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


def _read_file(path: Path, name: str) -> bytes:
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
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as answer:
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
    except Image.DecompressionBombError:
        raise ImageTooLarge(f'{name} decodes to more than {MAX_PIXELS // 10**6} million pixels; '
                            'make it smaller') from None
    except MemoryError:
        raise ImageTooLarge(f'{name} does not fit into memory; make it smaller') from None
    except Exception as error:  # decoders raise whatever broken bytes lead to
        if _is_unidentified(error):
            raise ImageError(f'{name} is no picture that can be read ({size:,} bytes); give one '
                             f'of {", ".join(PICTURE_FORMATS)}') from None
        raise ImageError(f'{name} is a broken picture: {str(error) or repr(error)}') from None


def _is_unidentified(error: BaseException | None) -> bool:
    """Whether no decoder knew the bytes; also where a library that has put itself before
    ``Image.open``, as ultralytics does, then fails to find one more decoder."""
    while error is not None and not isinstance(error, Image.UnidentifiedImageError):
        error = error.__context__
    return error is not None


def _check_scans(raw: bytes, size: tuple[int, int], name: str) -> None:
    """Refuse a JPEG whose scans are more than any encoder writes: they take minutes to read."""
    scans = raw.count(b'\xff\xda')
    if scans > MAX_SCANS or scans * size[0] * size[1] > MAX_SCANNED:
        raise ImageTooLarge(f'{name} is a JPEG of {scans} scans; at most {MAX_SCANS}, and fewer '
                            'where it is large. Save it anew')


def _to_rgb(image: Image.Image, name: str, upright: bool, white: int) -> tuple[np.ndarray, int]:
    """Pixels and EXIF orientation."""
    image.seek(0)
    deep = _deep_pixels(image)  # before the tag: looking for that may decode a PNG
    tag = orientation_of(image)
    turn = tag if upright else 1
    if image.format == 'TIFF':  # which PIL decodes upright
        turn = 1 if upright else {6: 8, 8: 6}.get(tag, tag)
    pixels = _colours(image, name) if deep is None else deep
    return _from_array(turn_upright(pixels, turn) if turn != 1 else pixels, name, white), tag


def _colours(image: Image.Image, name: str) -> np.ndarray:
    """Pixels of 8 bits, transparency laid on white, as PIL decodes them: (H, W, 3) uint8."""
    if image.mode == 'F':
        raise ImageError(f'{name} holds fractions, whose black and white are not known; save it '
                         'with 8 or 16 bits')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))


def _deep_pixels(image: Image.Image) -> np.ndarray | None:
    """Pixels of more than 8 bits as PIL turns them: (H, W) or, with colours or transparency,
    (H, W, 3 or 4) uint16; None for a picture of 8. ``image`` stays as it is.

    PIL cuts colours of 16 bits to their upper bytes. The lower ones are read as the upper ones of
    the other order of bytes.
    """
    tiles, file = getattr(image, 'tile', None), getattr(image, 'fp', None)
    if image.mode.startswith('I'):  # 16 bits, and the 32 that PIL widens some of them to
        copy = image
        if tiles and file is not None:
            file.seek(0)
            copy = Image.open(io.BytesIO(file.read()), formats=PICTURE_FORMATS)
        return _with_key(np.asarray(copy).clip(0, 65535).astype(np.uint16), image)
    if not tiles or file is None:
        return None
    args = tiles[0][3]
    mode = args if isinstance(args, str) else args[0] if args else ''
    if args == ('RGB', 65535):  # PPM, whose decoder scales
        tiles = [tile._replace(codec_name='raw', args=('RGB;16B', 0, 1)) for tile in tiles]
    elif mode not in ('LA;16B', *(f'{colours};16{order}' for colours in ('RGB', 'RGBA', 'RGBX')
                                  for order in 'BLN')):
        return None
    file.seek(0)
    raw = file.read()
    if mode == 'LA;16B':  # a PNG, read as one of four colours of a byte each
        head = raw[12:24] + b'\x08\x06' + raw[26:29]
        raw = raw[:12] + head + zlib.crc32(head).to_bytes(4, 'big') + raw[33:]
        with Image.open(io.BytesIO(raw), formats=['PNG']) as planes:
            deep = np.asarray(planes).astype(np.uint16)
        return (deep[..., ::2] << 8 | deep[..., 1::2])[..., [0, 0, 0, 1]]
    deep = _upper_bytes(raw, tiles, swapped=False).astype(np.uint16)
    deep <<= 8
    deep |= _upper_bytes(raw, tiles, swapped=True)
    return _with_key(deep, image)


def _upper_bytes(raw: bytes, tiles: list, swapped: bool) -> np.ndarray:
    """The upper bytes of colours of 16 bits, (H, W, 3 or 4) uint8; the lower ones where the order
    of bytes is swapped."""
    other = dict(B='L', L='B', N='B' if sys.byteorder == 'little' else 'L')
    made = []
    for tile in tiles:
        plain = isinstance(tile.args, str)
        mode = tile.args if plain else tile.args[0]
        if swapped:
            mode = mode[:-1] + other[mode[-1]]
        made.append(tile._replace(args=mode if plain else (mode, *tile.args[1:])))
    with Image.open(io.BytesIO(raw), formats=PICTURE_FORMATS) as image:
        image.tile = made
        return np.asarray(image)


def _with_key(deep: np.ndarray, image: Image.Image) -> np.ndarray:
    """Pixels with transparency, where a colour of a PNG stands for it."""
    key = image.info.get('transparency')
    if not isinstance(key, (int, tuple)) or deep.ndim == 3 and deep.shape[2] == 4:
        return deep
    deep = deep[..., None] if deep.ndim == 2 else deep
    seen = (deep != np.array(key)).any(-1, keepdims=True) * np.uint16(65535)
    return np.concatenate([np.broadcast_to(deep, (*deep.shape[:2], 3)), seen], -1)


def _in_eight_bits(deep: np.ndarray, white: int) -> np.ndarray:
    """uint16 as uint8: ``white`` and above is 255. By a table, which takes no memory besides."""
    values = np.minimum(np.arange(65536, dtype=np.uint32), white)
    return ((values * 255 + white // 2) // white).astype(np.uint8)[deep]


def _from_array(array: np.ndarray, name: str, white: int) -> np.ndarray:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f'{name} has shape {shape}; give (H, W, 3) RGB, (H, W, 4) or (H, W)')
    check_picture_size((shape[1], shape[0]), name)
    if array.dtype == np.uint16:
        deep, array = array, _in_eight_bits(array, white)
        if array.ndim == 3 and shape[2] == 4 and deep[..., 3].max() > white:
            # transparency may have all bits where colours have few
            array[..., 3] = _in_eight_bits(deep[..., 3], 65535)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f'{name} is of {array.dtype}; give uint8 (0..255) or uint16 (0..65535)')
    if array.ndim == 3 and shape[2] == 4:
        return _colours(Image.fromarray(array, 'RGBA'), name)
    grey = array if array.ndim == 2 else array[..., 0] if shape[2] == 1 else None
    return np.ascontiguousarray(array if grey is None else np.stack([grey] * 3, axis=-1))
