"""Outlines that a user has edited, as answers that the exports write."""
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from ..export import FORMATS, export
from ..polygon import count_crossings, group_rings, mask_to_box, rings_to_mask
from ..polygon.raster import MAX_COORDINATE
from ..structures import Prompt, Segmentation

MAX_OBJECTS = 500
MAX_EDITED_VERTICES = 100_000
MAX_LABEL = 1000
MAX_EDITED_PIXELS = 500_000_000  # pixels of the picture times objects: a mask has a byte a pixel
# What filling costs: rows that edges cross. About a second; a drawn object has a few thousand.
MAX_CROSSINGS = 20_000_000
# What telling holes apart costs: holes of an object times vertices of its outer rings, summed.
MAX_PAIRS = 50_000_000
_TYPES = {'.json': 'application/json', '.geojson': 'application/geo+json',
          '.svg': 'image/svg+xml', '.xml': 'application/xml', '.txt': 'text/plain; charset=utf-8'}


def read_objects(name: str, size: tuple[int, int], objects) -> list[Segmentation]:
    """Edited objects as answers.

    Args:
        name: of the picture's file.
        size: (h, w) of the picture.
        objects: a list of ``dict(label, polygons)``, where a polygon is ``dict(outer, holes)`` of
            rings ``[[x, y], ...]`` in pixels (edges); orientation plays no part.

    Raises:
        ValueError: anything else, or more than the limits. Nothing is filled before all of them
            are checked.
    """
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise ValueError(f'`objects` is a list of at most {MAX_OBJECTS} objects')
    if size[0] * size[1] * max(1, len(objects)) > MAX_EDITED_PIXELS:
        raise ValueError('too many objects for so large a picture; export them in parts')
    vertices = crossings = pairs = 0
    found = []
    for number, item in enumerate(objects):
        if not isinstance(item, dict) or not isinstance(item.get('polygons'), list):
            raise ValueError(f'object {number}: give dict(label, polygons)')
        outers, holes = [], []
        order = []
        for polygon in item['polygons']:
            if not isinstance(polygon, dict) or not isinstance(polygon.get('holes', []), list):
                raise ValueError(f'object {number}: a polygon is dict(outer, holes)')
            outers.append(_turned(_ring(polygon.get('outer'), number), -1))
            inner = [_turned(_ring(hole, number), 1) for hole in polygon.get('holes', [])]
            holes += inner
            order += [outers[-1], *inner]
        vertices += sum(map(len, order))
        crossings += count_crossings(order, size)
        pairs += len(holes) * sum(map(len, outers))
        for value, most, what in (
                (vertices, MAX_EDITED_VERTICES, 'have {} vertices'),
                (crossings, MAX_CROSSINGS, 'cross {} rows of pixels, edge by edge'),
                (pairs, MAX_PAIRS, 'make {} pairs of a hole and a vertex around it')):
            if value > most:
                raise ValueError(f'the outlines {what.format(f"more than {most}")}; export the '
                                 'objects in parts, or with fewer vertices')
        found.append((_label(item, number), order))
    return [_answer(name, size, label, rings) for label, rings in found]


def _label(item: dict, number: int) -> str:
    label = item.get('label') or 'object'
    if not isinstance(label, (str, int, float)) or len(str(label)) > MAX_LABEL:
        raise ValueError(f'object {number}: `label` is a text of at most {MAX_LABEL} characters')
    return str(label)


def _ring(points, number: int) -> np.ndarray:
    try:
        ring = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):  # a whole number may have 400 digits
        ring = np.zeros(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 \
            or not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError(f'object {number}: a ring is a list of at least 3 points [x, y], pixels, '
                         f'none beyond {MAX_COORDINATE:g}')
    return ring


def _turned(ring: np.ndarray, sign: int) -> np.ndarray:
    """The ring with a shoelace area of this sign."""
    x, y = ring.T
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return ring[::-1] if area * sign < 0 else ring


def _answer(name: str, size: tuple[int, int], label: str, rings: list[np.ndarray]
            ) -> Segmentation:
    mask = rings_to_mask(rings, size, 'edges') if rings else np.zeros(size, bool)
    return Segmentation(
        image=name, size=size, prompt=Prompt(text=label if label.strip() else 'object'),
        parts=tuple(group_rings(rings)), mask=mask, box=mask_to_box(mask), text='',
        confidence=None, valid=True, finished=True, says_nothing=not rings, num_tokens=0,
        seconds=0.0, codec='')


def write(results: list[Segmentation], format: str, exact: bool = False
          ) -> tuple[str, str, bytes]:
    """File name, media type and bytes of an export; several files come as a zip.

    Raises:
        ValueError: unknown format, or there is nothing to export.
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f'unknown format {format!r:.40}; choose from {sorted(FORMATS)}')
    if not results:
        raise ValueError('there is no object to export')
    if not any(result.mask.any() for result in results):
        raise ValueError('no object has a pixel in the picture; is `width` and `height` its size?')
    with tempfile.TemporaryDirectory() as folder:
        files = export(results, folder, format, exact)
        if len(files) == 1:
            return files[0].name, _TYPES[files[0].suffix], files[0].read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.name)
    return f'{Path(results[0].image).stem}_{format}.zip', 'application/zip', packed.getvalue()
