"""Pictures from anywhere, read safely: the one door for files, addresses and uploads.

A picture is refused before its pixels are unpacked where it is too large, and by an
:class:`ImageError` that says what is wrong and what would do.
"""
import io
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import List, Tuple, Union

import numpy as np
from PIL import Image, ImageOps

#: what is read; formats that run other programs (EPS) or hold scenes are not
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'JPEG2000', 'PPM')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.jp2', '.ppm',
            '.pgm')
# Our choices. The model sees a picture of some 1 MP; a mask has a byte a pixel.
MAX_SIDE = 16_384
MAX_PIXELS = 80_000_000  # below what Pillow warns of
MAX_ASPECT = 200  # Qwen's image processor refuses longer ones
MAX_BYTES = 100_000_000
TIMEOUT = 20.0  # seconds without an answer from a server

ImageLike = Union[str, os.PathLike, bytes, np.ndarray, Image.Image]


class ImageError(ValueError):
    """A picture that cannot be used; the message names it and says what would do."""


class ImageTooLarge(ImageError):
    """A picture with more pixels or bytes than are taken."""


def load_image(source: ImageLike, name: str = '', max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Pixels of a picture, upright.

    Args:
        source: path, http(s) address, the bytes of a file, a PIL picture, or an array: (H, W, 3)
            **RGB**, (H, W, 4) RGBA or (H, W) grey; uint8, uint16 (full scale) or bool.
        name: what messages call it; the path or address unless told.
        max_pixels: of an encoded picture, known before its pixels are unpacked.

    Returns:
        (H, W, 3) uint8, RGB. EXIF's orientation is applied, greyscale, CMYK, palettes and 16 bits
        are converted, transparency is laid on white; of several frames the first is taken.

    Raises:
        ImageError: missing or unreachable, no picture, broken, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or 'the array')
    if isinstance(source, Image.Image):
        name = name or getattr(source, 'filename', '') or 'the picture'
        check_size(source.size, name)
        return _to_rgb(source, name)
    if isinstance(source, (str, os.PathLike)):
        name = name or str(source)
        source = _download(name) if is_url(source) else _read(Path(source), name)
    if not isinstance(source, (bytes, bytearray)):
        raise ImageError(f'a picture is a path, an address, bytes, an array or a PIL picture; '
                         f'got {type(source).__name__}')
    return _decode(bytes(source), name or 'the upload', max_pixels)


def is_url(source) -> bool:
    """Whether a source is an http(s) address."""
    return isinstance(source, str) and source.lower().startswith(('http://', 'https://'))


def list_images(folder: Union[str, os.PathLike]) -> List[Path]:
    """Pictures of a folder by their suffix, sorted; not of folders in it.

    Raises:
        ImageError: there are none.
    """
    found = sorted(path for path in Path(folder).iterdir()
                   if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ImageError(f'{folder} holds no pictures ({", ".join(SUFFIXES)})')
    return found


def check_size(size: Tuple[int, int], name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture of ``size`` (width, height) that is too large. Raises ImageError."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f'{name} is {width} x {height} pixels: it is empty')
    if max(size) > MAX_SIDE or width * height > max_pixels:
        raise ImageTooLarge(f'{name} is {width} x {height} pixels; at most {MAX_SIDE} a side and '
                            f'{max_pixels / 1e6:g} million in all. Cut it into tiles, or make it '
                            'smaller: the model sees about a million')
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f'{name} is {width} x {height} pixels; one side may be at most '
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
    request = urllib.request.Request(url, headers={'User-Agent': 'simpleseg_mm'})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            raw = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ImageError(f'{url} answers {error.code} {error.reason}') from None
    except (OSError, ValueError) as error:  # URLError and timeouts among them
        raise ImageError(f'cannot reach {url}: {getattr(error, "reason", error)}. Fetch the '
                         'picture by other means and give its path') from None
    if len(raw) > MAX_BYTES:
        raise ImageError(f'{url} sends more than {MAX_BYTES:,} bytes')
    return raw


def _decode(raw: bytes, name: str, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            check_size(image.size, name, max_pixels)
            return _to_rgb(image, name)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f'{name} is no picture that can be read ({len(raw):,} bytes); give one '
                         f'of {", ".join(FORMATS)}') from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f'{name} unpacks to more than {MAX_PIXELS // 10**6} million pixels; '
                            'make it smaller') from None
    except (OSError, SyntaxError, ValueError) as error:  # what broken files raise
        raise ImageError(f'{name} is a broken picture: {error}') from None


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # 16 bits, and the 32 that PIL widens some of them to
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16), name)
    if image.mode == 'F':
        raise ImageError(f'{name} holds fractions, whose black and white are not known; save it '
                         'with 8 or 16 bits')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f'{name} has shape {shape}; give (H, W, 3) RGB, (H, W, 4) or (H, W)')
    check_size((shape[1], shape[0]), name)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f'{name} is of {array.dtype}; give uint8 (0..255) or uint16 (0..65535)')
    if array.ndim == 3 and shape[2] == 4:
        return _to_rgb(Image.fromarray(array, 'RGBA'), name)
    grey = array if array.ndim == 2 else array[..., 0] if shape[2] == 1 else None
    return np.ascontiguousarray(array if grey is None else np.stack([grey] * 3, axis=-1))
