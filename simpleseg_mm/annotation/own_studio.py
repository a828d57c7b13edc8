"""Label Studio's JSON as pictures with objects; see :func:`.own_files.read_own`.

Ours, for its own converter leads to formats without expressions or without holes.
"""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simpleseg_mm.files.brush import read_brush
from simpleseg_mm.files.coco import read_whole
from simpleseg_mm.files.pictures import SUFFIXES
from simpleseg_mm.files.shapes import corners, ellipse, numbers, turned_by
from simpleseg_mm.polygon import mask_to_rle

from .own_account import Account
from .own_formats import (OwnPicture, OwnSet, Reading, finder_near, missing_picture, score_of,
                          tell_guesses, texts_of)
from .own_outlines import Relative
from .own_shapes import DrawnShape, add_shapes
from .sample import clean_text

_AREAS = ('polygon', 'rectangle', 'brush', 'ellipse')
#: keys of a task's data that hold its picture, the likeliest first
_PICTURES = ('image', 'img', 'picture', 'photo', 'url')


def is_studio(content) -> bool:
    """Whether a JSON is Label Studio's export of tasks."""
    return isinstance(content, list) and bool(content) and all(
        isinstance(task, dict) and isinstance(task.get('data'), dict) for task in content)


def read_studio(path: Path, tasks: list[dict], reading: Reading, account: Account) -> OwnSet:
    """Pictures of an export 'JSON'.

    Of a task's annotations that one is read which is marked as ground truth, or else the newest
    one that was not skipped. Tasks without one are left out: nobody has looked at them. A region's
    text area holds its expressions.
    """
    finder = finder_near(path, reading)
    pictures = []
    for number, task in enumerate(tasks):
        account.read['picture'] += 1
        where = f'{path}, task {clean_text(task.get("id", number), 30)}'
        regions = _chosen(task, where, reading.predictions, account)
        name = _picture_of(task['data'])
        if regions is None or name is None:
            account.leave('picture', 'task without an annotation' if regions is None else
                          'task without a picture', where)
            continue
        place, how = finder.look(name)
        picture = OwnPicture(str(place or f'{where}: {name}'), place, None,
                             fault='' if place else missing_picture(how))
        add_shapes(picture, _shapes(regions, where, account), reading.boxes == 'take', account)
        pictures.append(picture)
    tell_guesses(finder, path, account)
    return OwnSet(pictures, 'upright')


def _picture_of(data: dict) -> str | None:
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value.strip()}
    for key in _PICTURES:
        if key in texts:
            return texts[key].strip()
    return next((value.strip() for value in texts.values()
                 if any(suffix in value.lower() for suffix in SUFFIXES)), None)


def _chosen(task: dict, where: str, predictions: bool, account: Account) -> list | None:
    """Regions of the annotation that is read, or else of the last prediction; None: there is
    none."""
    given = task.get('annotations', task.get('completions'))
    given = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    made = [one for one in given if not one.get('was_cancelled')
            and isinstance(one.get('result'), list)]
    if not made and predictions and isinstance(task.get('predictions'), list):
        guessed = [one['result'] for one in task['predictions']
                   if isinstance(one, dict) and isinstance(one.get('result'), list)]
        account.decide('task without an annotation: its prediction is read', where,
                       bool(guessed))
        return guessed[-1] if guessed else None
    if not made:
        return None
    made.sort(key=lambda one: (bool(one.get('ground_truth')),
                               str(one.get('updated_at') or one.get('created_at') or '')))
    if len(made) > 1:
        account.decide('task of several annotations: the ground truth is read, or else the newest',
                       where)
    return made[-1]['result']


def _shapes(regions: list, where: str, account: Account) -> Iterator[DrawnShape]:
    """Regions; entries of one id are one: its area, its labels, its text."""
    found: dict = {}
    for number, entry in enumerate(regions):
        if not isinstance(entry, dict) or not isinstance(entry.get('value'), dict):
            account.read['annotation'] += 1
            account.leave('annotation', 'entry that is no region', f'{where}, entry {number}')
        elif entry.get('type') in ('choices', 'relation', 'rating', 'number'):
            account.read['annotation'] += 1
            account.leave('annotation', f'{entry["type"]}, which is no outline',
                          f'{where}, entry {number}')
        else:
            found.setdefault(entry.get('id') or ('entry', number), []).append(entry)
    for key, entries in found.items():
        place = f'{where}, region {clean_text(key, 30)}'
        areas = [entry for entry in entries if str(entry.get('type')).removesuffix('labels')
                 not in ('', 'textarea')]
        texts = [text for entry in entries if entry.get('type') == 'textarea'
                 for text in texts_of(entry['value'].get('text'), place, account)]
        account.read['annotation'] += 1
        if not areas:  # the text of a whole picture, or labels of nothing
            account.leave('annotation', 'text or label without an outline', place)
            continue
        yield _shape(areas[0], _labels(entries), texts, place)


def _labels(entries: list[dict]) -> list[str]:
    found = [label for entry in entries for key, value in entry['value'].items()
             if key.endswith('labels') and isinstance(value, list) for label in value]
    return list(dict.fromkeys(clean_text(label) for label in found if isinstance(label, str)))


def _shape(entry: dict, labels: list[str], texts: list[str], where: str) -> DrawnShape:
    kind = str(entry.get('type')).removesuffix('labels')
    size = tuple(read_whole(entry.get(key)) for key in ('original_height', 'original_width'))
    label = labels[0] if len(labels) == 1 else ''
    if len(labels) > 1:
        return DrawnShape(where, '', fault='region of several labels', phrases=texts)
    if entry.get('item_index'):
        return DrawnShape(where, '', fault='region of another picture of its task')
    part, fault = None, f'shape of type {clean_text(kind, 30)}, which has no area'
    if kind in _AREAS:
        try:
            part, fault = _part(entry['value'], kind, size), ''
        except (KeyError, TypeError, ValueError) as error:
            where, fault = f'{where}: {error}', f'broken {kind}'
    return DrawnShape(where, label, part, fault, box=kind == 'rectangle' and part is not None,
                      areal=kind in _AREAS, phrases=texts, score=score_of(entry.get('score')))


def _part(value: dict, kind: str, size: tuple):
    """An outline in shares of the picture, or a brush's mask as RLE. KeyError, TypeError,
    ValueError: it is broken."""
    if kind == 'brush':
        if None in size:
            raise ValueError('a brush without original_width and original_height')
        return mask_to_rle(read_brush(value['rle'], size))
    if kind == 'polygon':
        points = np.array([numbers(point, 2) for point in value['points']]).reshape(-1, 2)
        if len(points) < 3:
            raise ValueError('a polygon takes three points or more')
        return Relative(points / 100)
    degrees, = numbers([value.get('rotation') or 0])
    if degrees and None in size:
        raise ValueError('turned, without original_width and original_height')
    scale = np.array([1.0, 1.0] if None in size else size[::-1]) / 100  # turned in pixels
    x, y = numbers([value['x'], value['y']]) * scale
    if kind == 'rectangle':
        width, height = numbers([value['width'], value['height']]) * scale
        points = turned_by(corners(x, y, x + width, y + height), (x, y), degrees)
    else:
        points = ellipse((x, y), numbers([value['radiusX'], value['radiusY']]) * scale, degrees)
    return Relative(points / scale / 100)
