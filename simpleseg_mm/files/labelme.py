"""LabelMe's and X-AnyLabeling's shapes: the one reader of their outlines. Nothing is decided."""
import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .shapes import corners, ellipse, flat
from .texts import one_line

_CORNERS = ('polygon', 'rotation', 'quadrilateral', 'oriented_rectangle')
RECTANGLES = ('rectangle', 'rotation', 'oriented_rectangle')


@dataclass
class Crop:
    """A mask of a part of the picture, as LabelMe holds it.

    Attributes:
        png: PNG file in base64; what is not black is in the mask.
        x, y: of its top left pixel in the picture.
    """
    png: str
    x: int
    y: int

    def pixels(self, most: int) -> np.ndarray:
        """All of the mask, bool. ValueError: it is broken, or has more than ``most`` pixels."""
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.png)), formats=('PNG', )) as png:
                if png.width * png.height > most:
                    raise ValueError('larger than the picture')
                return np.asarray(png.convert('L')) > 0
        except Exception:  # decoders raise whatever broken bytes lead to
            raise ValueError('mask that is no PNG in base64, or larger than the picture') from None

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """The mask, bool, as far as it lies in a picture of ``size`` (h, w); its top left pixel is
        at (x, y). ValueError: what is wrong."""
        box = self.pixels(size[0] * size[1])
        if not (0 <= self.x < size[1] and 0 <= self.y < size[0]):
            raise ValueError('mask that begins outside the picture')
        return box[:size[0] - self.y, :size[1] - self.x]

    def place(self, size: tuple[int, int]) -> np.ndarray:
        """The mask on a picture of ``size`` (h, w), (h, w) bool. ValueError: what is wrong."""
        box, whole = self.read(size), np.zeros(size, bool)
        whole[self.y:self.y + box.shape[0], self.x:self.x + box.shape[1]] = box
        return whole


def is_labelme(content) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def shape_type_of(shape: dict) -> str:
    """What a shape is drawn as; a polygon where it does not say."""
    return str(shape.get('shape_type') or 'polygon')


def outline_of(shape: dict) -> tuple:
    """A flat polygon or a :class:`Crop` of one shape, or None and why there is none."""
    kind = shape_type_of(shape)
    if kind not in (*_CORNERS, 'rectangle', 'circle', 'mask'):
        return None, f'shape of type {one_line(kind)[:30]}, which has no area'
    try:
        points = np.asarray(shape['points'], float)
    except (KeyError, TypeError, ValueError, OverflowError):
        points = np.zeros((0, 2))
    if points.ndim == 1 and len(points) % 2 == 0:
        points = points.reshape(-1, 2)
    enough = points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()
    if not enough or len(points) < (3 if kind in _CORNERS else 2):
        return None, f'{kind} without enough points'
    if kind in _CORNERS:
        return flat(points), ''
    if kind == 'rectangle':
        return _rectangle(points)
    (x1, y1), (x2, y2) = points[:2]
    if kind == 'circle':
        return flat(ellipse(points[0], [np.hypot(x2 - x1, y2 - y1)] * 2)), ''
    if not isinstance(shape.get('mask'), str) or max(abs(x1), abs(y1), abs(x2), abs(y2)) > 1e5:
        return None, 'mask that is no PNG in base64, or larger than the picture'
    return Crop(shape['mask'], round(min(x1, x2)), round(min(y1, y2))), ''


def _rectangle(points: np.ndarray) -> tuple:
    """LabelMe writes two opposite corners, X-AnyLabeling all four, turned ones too."""
    if len(points) not in (2, 4):
        return None, f'rectangle of {len(points)} points; two opposite corners, or all four'
    low, high = points.min(axis=0), points.max(axis=0)
    upright = np.isclose(points, low) | np.isclose(points, high)
    if len(points) == 4 and not upright.all():
        return flat(points), ''
    return flat(corners(*low, *high)), ''
