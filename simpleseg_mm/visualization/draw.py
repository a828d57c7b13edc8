"""Drawing on RGB arrays with OpenCV and Pillow: outlines, vertices, captions, contact sheets.

Coordinates are those of the polygon core: x, y in pixels, 0 at the left or top edge of the image.
"""
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import replacing

Color = tuple[int, int, int]

TRUTH: Color = (57, 255, 20)
PREDICTION: Color = (255, 64, 160)
GIVEN_COLOR: Color = (0, 200, 255)
PAPER: Color = (24, 26, 31)
INK: Color = (235, 236, 240)
FAINT: Color = (150, 155, 165)
_START: Color = (255, 255, 255)
_FIRST, _LAST = np.array([255, 214, 0]), np.array([214, 0, 92])
_SHIFT = 4
_WORDS = re.compile(r'\s+|[^\s\]]*\]+,?\s*|[^\s\]]+\s*')


def fit(image: np.ndarray, side: int = 560, largest: int = 1600) -> tuple[np.ndarray, float]:
    """A copy of an image in a size that lines and letters of some pixels suit.

    Its longer side is brought to at least ``side``, by a whole number of times, and to at most
    ``largest``.

    Returns:
        The image, (H * scale, W * scale, 3), and the scale.
    """
    if max(image.shape[:2]) > largest:
        scale = largest / max(image.shape[:2])
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale
    scale = max(1, -(-side // max(image.shape[:2])))
    if scale == 1:
        return image.copy(), 1
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), scale


def tint(canvas: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.35) -> None:
    """Blends a colour into the canvas (H, W, 3) where the mask, of any size, is true; in place."""
    size = canvas.shape[1], canvas.shape[0]
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    canvas[inside] = np.round(canvas[inside] * (1 - alpha) + np.array(color) * alpha)


def draw_ring(canvas: np.ndarray, ring: np.ndarray, color: Color, width: int = 2,
              dash: tuple[int, int] | None = None) -> None:
    """Draws a closed ring (N, 2) in pixels of the canvas, in place.

    Args:
        dash: Lengths of the strokes and of the gaps between them; None: one stroke.
    """
    strokes = [np.concatenate([ring, ring[:1]])] if dash is None else _dashes(ring, *dash)
    for stroke, line_color, line_width in ((strokes, PAPER, width + 2), (strokes, color, width)):
        cv2.polylines(canvas, [_fixed_point(points) for points in stroke], False, line_color,
                      line_width, cv2.LINE_AA, _SHIFT)


def draw_vertices(canvas: np.ndarray, ring: np.ndarray, radius: int = 4) -> None:
    """Draws the vertices of a ring as dots, from yellow to red in order, in place.

    The first has a white rim, and an arrow points from it to the next.
    """
    for point, share in reversed(list(zip(ring, np.linspace(0, 1, len(ring))))):
        color = tuple(int(c) for c in np.round(_FIRST + share * (_LAST - _FIRST)))
        _dot(canvas, point, radius + 1, PAPER)
        _dot(canvas, point, radius, color)
    _arrow(canvas, ring, radius)
    _dot(canvas, ring[0], radius + 4, PAPER)
    _dot(canvas, ring[0], radius + 3, _START)
    _dot(canvas, ring[0], radius, tuple(int(c) for c in _FIRST))


def draw_spread(canvas: np.ndarray, ring: np.ndarray, radii: np.ndarray,
                color: Color = GIVEN_COLOR) -> None:
    """Draws a circle round each vertex of a ring, in place: the less sure it is, the larger.

    Args:
        radii: (N,) pixels of the canvas; those below a pixel are left out.
    """
    most = max(canvas.shape[:2])
    for point, radius in zip(ring, radii):
        if radius >= 1:
            x, y = _fixed_point(point).tolist()
            cv2.circle(canvas, (x, y), round(min(radius, most) * 2 ** _SHIFT), color, 1,
                       cv2.LINE_AA, _SHIFT)


def number_vertices(canvas: np.ndarray, ring: np.ndarray, first: int = 1, size: int = 11) -> None:
    """Writes the numbers of the vertices of a ring beside them, outside of it, in place.

    Args:
        first: Number of the first vertex.
        size: Of the digits, in pixels; the more vertices, the fewer are numbered.
    """
    picture = Image.fromarray(canvas)
    write = ImageDraw.Draw(picture)
    step = max(1, -(-len(ring) // 40))
    out = ring - ring.mean(axis=0)
    out = out / np.maximum(np.hypot(*out.T), 1e-9)[:, None] * (size + 4)
    for i in range(0, len(ring), step):
        x, y = np.clip(ring[i] + out[i], size, np.array(canvas.shape[1::-1]) - size)
        write.text((x, y), str(first + i), fill=_START, font=_font(size), anchor='mm',
                   stroke_width=2, stroke_fill=PAPER)
    canvas[:] = np.asarray(picture)


def draw_labels(canvas: np.ndarray, points: Sequence[np.ndarray], texts: Sequence[str],
                size: int = 13) -> None:
    """Writes texts in the middle of points (2,) x, y of the canvas, in place; of each at most as
    much as the canvas is wide."""
    picture = Image.fromarray(canvas)
    write = ImageDraw.Draw(picture)
    room = max(canvas.shape[1] // (size * 2 // 3), 1)
    for point, text in zip(points, texts):
        x, y = np.clip(point, size, np.maximum(np.array(canvas.shape[1::-1]) - size, size))
        write.text((x, y), text if len(text) <= room else f'{text[:room]}…', fill=INK,
                   font=_font(size), anchor='mm', stroke_width=2, stroke_fill=PAPER)
    canvas[:] = np.asarray(picture)


def draw_box(canvas: np.ndarray, box: np.ndarray, color: Color, width: int = 2,
             dash: tuple[int, int] | None = None) -> None:
    """Draws a box (4,) x1, y1, x2, y2 in pixels of the canvas, in place."""
    x1, y1, x2, y2 = box
    draw_ring(canvas, np.array([[x1, y1], [x1, y2], [x2, y2], [x2, y1]]), color, width, dash)


def draw_point(canvas: np.ndarray, point: np.ndarray, color: Color, radius: int = 6) -> None:
    """Draws a point (2,) as a target, in place."""
    for size, ring_color in ((radius + 5, PAPER), (radius + 4, color), (radius + 1, PAPER),
                             (radius, color)):
        _dot(canvas, point, size, ring_color)
    _dot(canvas, point, 1, PAPER)


def add_caption(canvas: np.ndarray, lines: Sequence[tuple[str, Color]], size: int = 15,
                max_lines: int = 4) -> np.ndarray:
    """The canvas with lines of text under it.

    Args:
        lines: Text and colour of each paragraph. A paragraph is wrapped, and shortened in its
            middle to ``max_lines`` lines.
        size: Of the letters, in pixels.

    Returns:
        (H + height of the text, W, 3) uint8.
    """
    margin = size * 2 // 3
    font = _font(size)
    columns = max(8, int((canvas.shape[1] - 2 * margin) / font.getlength('0')))
    wrapped = [(line, color) for text, color in lines
               for line in wrap(text, columns, max_lines)]
    height = round(size * 1.35)
    strip = Image.new('RGB', (canvas.shape[1], height * len(wrapped) + 2 * margin), PAPER)
    draw = ImageDraw.Draw(strip)
    for number, (line, color) in enumerate(wrapped):
        draw.text((margin, margin + number * height), line, fill=color, font=font)
    return np.concatenate([canvas, np.asarray(strip)])


def add_title(canvas: np.ndarray, title: str, color: Color = INK, size: int = 15) -> np.ndarray:
    """The canvas with a line of text over it."""
    strip = np.full((1, canvas.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([add_caption(strip, [(title, color)], size, max_lines=1), canvas])


def wrap(text: str, columns: int, max_lines: int) -> list[str]:
    """Lines of at most ``columns`` characters; what does not fit is cut from the middle."""
    room = columns * max_lines
    if len(text) > 4 * room:
        text = f'{text[:2 * room]}…{text[-2 * room:]}'
    text = ' '.join(text.split())
    lines = _lines(text, columns)
    while len(lines) > max_lines:
        room -= max(1, columns // 8)
        lines = _lines(f'{text[:room - room // 4]} … {text[-(room // 4):]}', columns)
    return lines


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, gap: int = 10,
                  background: Color = (255, 255, 255)) -> np.ndarray:
    """Puts images, read by rows, on one sheet.

    Args:
        images: (H, W, 3) uint8 each, of any sizes.
        columns: Images in a row.
        gap: Pixels between and around the images.

    Returns:
        (H, W, 3) uint8. A row is as high as its highest image, a column as wide as its widest.

    Raises:
        ValueError: No images, or fewer than one column.
    """
    if not len(images) or columns < 1:
        raise ValueError(f'a contact sheet needs images and columns, got {len(images)} images '
                         f'and {columns} columns')
    columns = min(columns, len(images))
    rows = [images[i:i + columns] for i in range(0, len(images), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (columns + 1), 3),
                    background, np.uint8)
    top = gap
    for row, height in zip(rows, heights):
        left = gap
        for image, width in zip(row, widths):
            sheet[top:top + image.shape[0], left:left + image.shape[1]] = image
            left += width + gap
        top += height + gap
    return sheet


def write_image(image: np.ndarray, path: str | Path) -> None:
    """Writes an RGB image by the suffix of its path; folders are made.

    Raises:
        ValueError: no picture has that suffix.
    """
    path = Path(path)
    try:
        encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    except cv2.error:
        raise ValueError(f'{path} is no name of a picture: give .png or .jpg') from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as partial:
        partial.write_bytes(encoded)


def _lines(text: str, columns: int) -> list[str]:
    """Breaks after spaces and after the comma behind a vertex; elsewhere only where it must."""
    lines = ['']
    for word in _WORDS.findall(text):
        if len(lines[-1]) + len(word.rstrip()) > columns and lines[-1]:
            lines.append('')
        while len(word.rstrip()) > columns:
            lines[-1:] = [word[:columns], '']
            word = word[columns:]
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Image coordinates to OpenCV's: pixel centres are whole, with a fixed binary point."""
    return np.round((np.asarray(points, np.float64) - 0.5) * 2 ** _SHIFT).astype(np.int32)


def _dot(canvas: np.ndarray, point: np.ndarray, radius: int, color: Color) -> None:
    x, y = _fixed_point(point).tolist()
    cv2.circle(canvas, (x, y), radius << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)


def _arrow(canvas: np.ndarray, ring: np.ndarray, radius: int) -> None:
    ahead = next((point - ring[0] for point in ring[1:] if np.any(point != ring[0])), None)
    if ahead is None:
        return
    ahead = ahead / np.hypot(*ahead)
    tip = ring[0] + ahead * (radius + 20)
    foot = ring[0] + ahead * (radius + 4)
    side = np.array([-ahead[1], ahead[0]]) * 8
    head = _fixed_point(np.stack([tip, foot + side, foot - side]))
    cv2.fillPoly(canvas, [head], _START, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, [head], True, PAPER, 1, cv2.LINE_AA, _SHIFT)


def _dashes(ring: np.ndarray, on: int, off: int) -> list[np.ndarray]:
    """Strokes along the closed ring, with the corners that they pass."""
    ring = np.concatenate([ring, ring[:1]]).astype(np.float64)
    at = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    strokes = []
    for start in np.arange(0, at[-1], on + off):
        end = min(start + on, at[-1])
        inner = at[(at > start) & (at < end)]
        stops = np.concatenate([[start], inner, [end]])
        strokes.append(np.stack([np.interp(stops, at, ring[:, k]) for k in (0, 1)], axis=1))
    return strokes or [ring[:1]]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # of matplotlib, which is not loaded for it
    package, = find_spec('matplotlib').submodule_search_locations
    path = Path(package, 'mpl-data', 'fonts', 'ttf', 'DejaVuSansMono.ttf')
    return ImageFont.truetype(str(path), size)
