"""Filters on images: what cannot be read, sizes, duplicates."""
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from simpleseg_mm.files import (ImageTooLarge, load_image, open_picture, orientation_of,
                                replace_json)
from simpleseg_mm.files.pictures import MAX_PIXELS, ImageTooLong, brightest_of
from simpleseg_mm.registry import STAGES

from .sample import Chunk, Sample, clean_text
from .stage import Stage

_DARK = 'nearly black for 16 bits; set white of FilterImage to 4095 if it holds 12'
_ORIENTATION = 0x0112
_THUMBNAIL = 32
_REDUCED = ((8, cv2.IMREAD_REDUCED_GRAYSCALE_8), (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
            (2, cv2.IMREAD_REDUCED_GRAYSCALE_2))
_BITS = np.array([bin(value).count('1') for value in range(256)], np.uint8)


@STAGES.register_module()
class FilterImage(Stage):
    """Looks at every image once: format, size, whether it decodes to its end.

    Bytes of an ordinary JPEG stay untouched. Encoded again as JPEG are: other formats, CMYK,
    16 bit, transparency (on white), and images that an orientation tag turns, since training
    reads pixels as they are stored. A JPEG is decoded here at reduced size, and a cut file
    found by its missing end; the pixels are decoded by the stages that need them.

    Args:
        min_side: of the shorter side, pixels.
        max_pixels: read from the header; larger ones are never decoded.
        max_aspect: longer / shorter side.
        white: the brightest value of images of more than 8 bits, see
            :func:`simpleseg_mm.files.load_image`. Images that are nearly black by it are noted.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, min_side: int = 256, max_pixels: int = 50_000_000, max_aspect: float = 4,
                 white: int = 65535, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 1 <= max_pixels <= MAX_PIXELS:
            raise ValueError(f'max_pixels must be 1 to {MAX_PIXELS}, got {max_pixels}: larger '
                             'images are decoded nowhere')
        if white not in range(1, 65536):
            raise ValueError(f'white must be 1 to 65535, such as 4095 for 12 bits; got {white!r}')
        self.min_side, self.max_pixels, self.max_aspect = min_side, max_pixels, max_aspect
        self.white = white

    def process(self, samples: Sequence[Sample]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # bombs and odd tags: judged here
            for sample in samples:
                try:
                    self._look(sample)
                except ImageTooLong:
                    sample.drop(self.name, 'aspect ratio')
                except ImageTooLarge:
                    sample.drop(self.name, 'too many pixels')
                except Exception as error:  # OpenCV raises its own
                    sample.drop(self.name, 'unreadable image', quarantine=True)
                    sample.notes.append(f'{self.name}: {clean_text(error, 300)}')

    def _look(self, sample: Sample) -> None:
        with open_picture(sample.raw, sample.key, self.max_pixels) as image:
            width, height = image.size
            jpeg = image.format in ('JPEG', 'MPO')
            reason = (
                'too small' if min(width, height) < self.min_side else
                'aspect ratio' if max(width, height) > self.max_aspect * min(width, height) else
                'animated' if not jpeg and getattr(image, 'is_animated', False) else None)
            if reason:
                sample.drop(self.name, reason)
                return
            sample.width, sample.height = width, height
            deep = brightest_of(image) > 0
            sample.orientation = orientation_of(image)
            if not _exif_is_readable(image):
                sample.notes.append('EXIF orientation unreadable, not turned')
            if jpeg and image.mode in ('RGB', 'L') and sample.orientation == 1:
                grey = _reduced(sample.raw, min(width, height))
            else:
                note = ('orientation' if sample.orientation != 1 else image.mode if jpeg else
                        f'{image.format} {image.mode}')
                pixels = load_image(sample.raw, sample.key, self.max_pixels, white=self.white)
                if deep and int(pixels.max()) * 16 <= 256:
                    sample.notes.append(_DARK)
                sample.set_image(pixels, note)
                grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        sample.thumbnail = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL),
                                      interpolation=cv2.INTER_AREA)


def _exif_is_readable(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 0) in range(9)  # 0: unknown, as cameras write
    except Exception:  # malformed EXIF raises whatever its bytes lead to
        return False


def _reduced(raw: bytes, side: int) -> np.ndarray:
    """Grey pixels of a JPEG at reduced size, shorter side 32 or more where it can be.

    OpenCV takes 0.7 of the time of Pillow's draft mode here, but passes over a file that is cut:
    such a one has no end marker, or that of an embedded thumbnail and a scan after it. It sees
    only what ``open_picture`` has found to be a JPEG: it would read other formats too.

    Args:
        raw: the file.
        side: shorter side of the image, pixels.
    """
    end = raw.rfind(b'\xff\xd9')
    if end < 0 or raw.find(b'\xff\xda', end) >= 0:
        raise ValueError('the JPEG is cut off')
    flag = next((flag for factor, flag in _REDUCED if side >= factor * _THUMBNAIL),
                cv2.IMREAD_GRAYSCALE)
    grey = cv2.imdecode(np.frombuffer(raw, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None:
        raise ValueError('the JPEG does not decode')
    return grey


def perceptual_hash(thumbnail: np.ndarray) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies lie above their median (pHash, Zauner 2010).

    Args:
        thumbnail: ``(32, 32) uint8`` grey.
    """
    low = cv2.dct(thumbnail.astype(np.float32))[:8, :8].ravel()
    return int(np.packbits(low > np.median(low[1:])).view('>u8')[0])


def find_duplicates(hashes: np.ndarray, distance: int) -> np.ndarray:
    """For each hash the place of an earlier one within ``distance`` bits, -1 where there is none.

    Hashes that differ in at most d bits agree in one of d + 1 bands of them: each band is sorted,
    and neighbours in it are compared.

    Args:
        hashes: ``(N,) uint64``.
        distance: 0 to 7.

    Returns:
        ``(N,) int64``: the earliest found.
    """
    first = np.full(len(hashes), -1, np.int64)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:]):
        band = (hashes >> np.uint64(low)) & np.uint64(2**int(high - low) - 1)
        order = np.argsort(band, kind='stable')
        band = band[order]
        step = 1
        pairs = np.arange(len(hashes) - 1)
        while len(pairs := pairs[pairs + step < len(hashes)]):
            pairs = pairs[band[pairs] == band[pairs + step]]
            a, b = order[pairs], order[pairs + step]  # a is earlier: the sort is stable
            differ = _BITS[(hashes[a] ^ hashes[b]).view(np.uint8).reshape(-1, 8)].sum(1)
            near = differ <= distance
            a, b = a[near], b[near]
            first[b] = np.where(first[b] < 0, a, np.minimum(first[b], a))
            step += 1
    return first


@STAGES.register_module()
class FilterDuplicates(Stage):
    """Drops an image that an earlier one of the whole input resembles.

    The stages before this one run over all input first (the survey), and the hashes of all chunks
    are compared; so the result does not depend on who works on what. An image is dropped if any
    earlier image that came as far is within ``distance``, chains included. Needs ``FilterImage``.

    Args:
        distance: bits of 64 that two perceptual hashes may differ in, 0 to 7.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, distance: int = 2, **kwargs) -> None:
        super().__init__(**kwargs)
        if distance not in range(8):
            raise ValueError(f'distance must be 0 to 7 bits, got {distance!r}')
        self.distance = distance
        self.repeated: dict[str, str] = {}

    def survey(self, chunk: Chunk) -> bytes:
        """Keys and hashes of the images that came as far as this, as JSON."""
        if any(sample.thumbnail is None for sample in chunk.live):
            raise ValueError(f'{self.name} (FilterDuplicates) needs FilterImage before it')
        return json.dumps([[sample.key, perceptual_hash(sample.thumbnail)]
                           for sample in chunk.live]).encode()

    def conclude(self, work_dir: Path) -> None:
        """Compare all surveys; write ``survey/NAME.repeated.json`` where something repeats."""
        paths = sorted(path for path in (work_dir / 'survey').glob('*.json')
                       if not path.name.endswith('.repeated.json'))
        owners, hashes = [], []
        for number, path in enumerate(paths):
            rows = json.loads(path.read_bytes())
            owners += [(number, key) for key, _ in rows]
            hashes += [value for _, value in rows]
        first = find_duplicates(np.array(hashes, np.uint64), self.distance)
        found: dict[int, dict] = {}
        for place in np.flatnonzero(first >= 0):
            number, key = owners[place]
            origin = owners[first[place]]
            found.setdefault(number, {})[key] = f'{paths[origin[0]].stem}/{origin[1]}'
        for number, path in enumerate(paths):
            target = path.with_name(f'{path.stem}.repeated.json')
            if number in found:
                replace_json(target, found[number])
            else:
                target.unlink(missing_ok=True)

    def begin(self, chunk: Chunk, work_dir: Path) -> None:
        path = Path(work_dir) / 'survey' / f'{chunk.name}.repeated.json'
        self.repeated = json.loads(path.read_bytes()) if path.exists() else {}

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            sample.thumbnail = None
            if sample.key in self.repeated:
                sample.notes.append(f'resembles: {self.repeated[sample.key]}')
                sample.drop(self.name, 'duplicate')
