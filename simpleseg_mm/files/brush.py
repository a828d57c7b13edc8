"""Masks as Label Studio's brushes hold them: bytes of the run lengths of RGBA pixels.

The format is that of the package rle-pack: 32 bits for the number of values, 5 for the bits of a
value less 1, four times 4 for the bits of a length less 1; then pieces: a bit, 1 for a run of one
value and 0 for values one by one; 2 bits for which of the four sizes the length has, the length
less 1, and the value or values. A pixel is in the mask by its fourth value.
"""
import numpy as np

from .pictures import MAX_PIXELS

_SIZES = (3, 4, 8, 16)


def write_brush(mask: np.ndarray) -> list[int]:
    """Bytes of a mask, ``(H, W)`` bool."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * 4
    bits = [f'{flat.size * 4:032b}', f'{7:05b}', *(f'{size - 1:04b}' for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist()):
        value = '11111111' if flat[start] else '00000000'
        while length:
            run = min(length, 1 << 16)
            size = int(np.searchsorted(1 << np.array(_SIZES), run))
            bits.append(f'1{size:02b}{run - 1:0{_SIZES[size]}b}{value}')
            length -= run
    text = ''.join(bits)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord('0')).tolist()


def read_brush(content, size: tuple[int, int]) -> np.ndarray:
    """The mask of a brush, ``(H, W)`` bool.

    Args:
        content: bytes, as a list of whole numbers from 0 to 255.
        size: (h, w) of the picture.

    Raises:
        ValueError: it is no such content, or of a picture of another size.
    """
    height, width = size
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f'a brush of a picture of {width} x {height} pixels')
    try:
        raw = bytes(content if isinstance(content, list) else ())
    except (TypeError, ValueError):
        raise ValueError('a brush is a list of whole numbers from 0 to 255') from None
    reader = _Bits(np.unpackbits(np.frombuffer(raw, np.uint8)))
    count, word = reader.read(32), reader.read(5) + 1
    sizes = [reader.read(4) + 1 for _ in range(4)]
    if count != height * width * 4:
        raise ValueError(f'a brush of {count // 4} pixels on a picture of {height * width}')
    values = np.zeros(count, bool)
    place = 0
    while place < count:
        is_run, which = reader.read(1), reader.read(2)
        end = place + reader.read(sizes[which]) + 1
        if end > count:
            raise ValueError('a brush whose runs are more than its pixels')
        if is_run:
            values[place:end] = reader.read(word) > 0
        else:
            values[place:end] = reader.words(end - place, word)
        place = end
    return values.reshape(height, width, 4)[:, :, 3]


class _Bits:
    """Numbers one after the other, the highest bit first."""

    def __init__(self, bits: np.ndarray) -> None:
        self.bits, self.place = bits, 0

    def take(self, count: int) -> np.ndarray:
        found = self.bits[self.place:self.place + count]
        if len(found) < count:
            raise ValueError('a brush that ends before its last pixel')
        self.place += count
        return found

    def read(self, count: int) -> int:
        number = 0
        for bit in self.take(count).tolist():
            number = number << 1 | bit
        return number

    def words(self, count: int, width: int) -> np.ndarray:
        """``(count,) bool``: which of the next words are above 0."""
        return self.take(count * width).reshape(count, width).any(axis=1)
