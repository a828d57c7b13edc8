"""Outlines that a user has edited, as answers that the exports write."""
import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..export import FORMATS, export
from ..files import is_blank
from ..polygon import (SPREAD_QUANTILES, count_crossings, group_rings, mask_to_box,
                       rings_to_mask)
from ..polygon.raster import MAX_COORDINATE
from ..structures import Prompt, Segmentation
from .outlines import checked_rings, checked_share, directed

MAX_OBJECTS = 5000
MAX_EDITED_VERTICES = 200_000
MAX_LABEL = 1000
# Pixels of the picture times objects: a mask has a byte a pixel. 83 objects of 12 megapixels take
# 1.1 GB, and a second (10 with `exact`).
MAX_EDITED_PIXELS = 1_000_000_000
# The same of a picture of a set, whose masks are made one after the other: 2,000 objects of 12
# megapixels take half a minute.
MAX_SET_PIXELS = 25_000_000_000
# What filling costs: rows that edges cross. About a second; a drawn object has a few thousand.
MAX_CROSSINGS = 20_000_000
# What telling holes apart costs: holes of an object times vertices of its outer rings, summed.
MAX_PAIRS = 50_000_000
_TYPES = {'.json': 'application/json', '.geojson': 'application/geo+json',
          '.svg': 'image/svg+xml', '.xml': 'application/xml', '.txt': 'text/plain; charset=utf-8'}


class CheckedObject(NamedTuple):
    """An object whose outlines are rings: label, rings (outer ones turned the canonical way, holes
    the other), how sure their vertices are, score and agreement."""
    label: str
    rings: list[np.ndarray]
    spread: dict[tuple, tuple]
    score: float | None
    agreement: float | None


def read_objects(name: str, size: tuple[int, int], objects) -> list[Segmentation]:
    """Edited objects as answers; see :func:`check_objects`. ``name`` is that of the picture's
    file."""
    return list(answers(name, size, check_objects(size, objects)))


def answers(name: str, size: tuple[int, int], objects: list[CheckedObject]
            ) -> Iterator[Segmentation]:
    """Objects as answers, one mask after the other."""
    return (_answer(name, size, one) for one in objects)


def check_objects(size: tuple[int, int], objects, max_pixels: int = MAX_EDITED_PIXELS
                  ) -> list[CheckedObject]:
    """Edited objects, checked; nothing is filled.

    Args:
        size: (h, w) of the picture.
        objects: a list of ``dict(label, polygons)``, where a polygon is ``dict(outer, holes)`` of
            rings ``[[x, y], ...]`` in pixels (edges); orientation plays no part. An object may
            have ``score`` and ``agreement``, 0..1, and its polygons ``spread`` as those of an
            answer, with null for a vertex of which it is not known.
        max_pixels: of the masks of all of them.

    Raises:
        ValueError: anything else, or more than the limits.
    """
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise ValueError(f'`objects` is a list of at most {MAX_OBJECTS} objects')
    if size[0] * size[1] * max(1, len(objects)) > max_pixels:
        raise ValueError('too many objects for so large a picture; export them as a set, or in '
                         'parts')
    vertices = crossings = pairs = 0
    found = []
    for number, item in enumerate(objects):
        if not isinstance(item, dict) or not isinstance(item.get('polygons'), list):
            raise ValueError(f'object {number}: give dict(label, polygons)')
        outers, holes = [], []
        order = []
        spread: dict[tuple, tuple] = {}  # by the vertex, wherever it is grouped to
        for polygon in item['polygons']:
            rings = checked_rings(polygon, f'object {number}')
            spread |= _spread(polygon.get('spread'), rings, number)
            outers.append(directed(rings[0], -1))
            inner = [directed(ring, 1) for ring in rings[1:]]
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
        found.append(CheckedObject(
            _label(item, number), order, spread, *(checked_share(item, key, f'object {number}')
                                                   for key in ('score', 'agreement'))))
    return found


def _label(item: dict, number: int) -> str:
    label = item.get('label') or 'object'
    if not isinstance(label, (str, int, float)) or len(str(label)) > MAX_LABEL:
        raise ValueError(f'object {number}: `label` is a text of at most {MAX_LABEL} characters')
    return str(label)


def _spread(given, rings: list[np.ndarray], number: int) -> dict[tuple, tuple]:
    """How sure the vertices (x, y) of a polygon are, two numbers each; those that are not known
    are left out."""
    if given is None:
        return {}
    try:
        pairs = [pair for ring, widths in zip(rings, given, strict=True)
                 for _, pair in zip(ring, widths, strict=True)]
        filled = [pair for pair in pairs if pair is not None]
        known = np.array(filled or np.zeros((0, 2)), np.float64)
        if known.shape != (len(filled), 2) or not (
                (known >= 0) & (known <= MAX_COORDINATE)).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'object {number}: `spread` of a polygon is a list a ring, of two '
                         'numbers a vertex, pixels, or null') from None
    places = [tuple(vertex) for vertex, pair in zip(np.concatenate(rings).tolist(), pairs)
              if pair is not None]
    return dict(zip(places, map(tuple, known.tolist())))


def _answer(name: str, size: tuple[int, int], one: CheckedObject) -> Segmentation:
    parts = tuple(group_rings(one.rings))
    unknown = (np.nan, ) * len(SPREAD_QUANTILES)
    mask = rings_to_mask(one.rings, size, 'edges') if one.rings else np.zeros(size, bool)
    return Segmentation(
        image=name, size=size, prompt=Prompt(text='object' if is_blank(one.label) else one.label),
        parts=parts, mask=mask, box=mask_to_box(mask), text='', confidence=one.score, valid=True,
        finished=True, says_nothing=not one.rings, num_tokens=0, seconds=0.0, codec='',
        agreement=one.agreement, spread=tuple(
            tuple(np.array([one.spread.get(tuple(vertex), unknown) for vertex in ring.tolist()])
                  for ring in part.rings) for part in parts) if one.spread else ())


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
