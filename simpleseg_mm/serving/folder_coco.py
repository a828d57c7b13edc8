"""A COCO file for all pictures of a folder, as objects of the page and back.

An annotation is an object. COCO's polygons have no holes: they are cut open, and kept whole under
our key.
"""
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import PictureFinder, coco
from ..files.paths import AS_WRITTEN
from ..files.orientation import way_of_outlines, way_of_size
from ..polygon import signed_area
from .folder_objects import (EVIDENCE, MAX_FOLDER_OBJECTS, OWN, Document, Frame, Held, Sent,
                             check_count, cut_open, digest_of_outline, fill_evidence, give_ids,
                             is_same_document, is_same_object, kept_apart, known_share, match,
                             own_of, shown_object, shown_polygon, written_label)


@dataclass
class CocoIndex:
    """The content of a COCO file, and what of it is of which picture.

    Attributes:
        content: of its JSON; not changed.
        tables: its records.
        images: for each picture, by its path below the root, the rows of its image records.
        annotations: for each picture the numbers of its annotations among the tables'.
        clashes: why what it holds of a picture cannot be told apart.
        lost: file names of image records whose picture is not found.
    """
    content: dict
    tables: coco.CocoTables
    images: dict[str, list[int]] = field(default_factory=dict)
    annotations: dict[str, list[int]] = field(default_factory=dict)
    clashes: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def index_of(content, where: str, look: Callable[[str], tuple[str | None, bool]]) -> CocoIndex:
    """Look through the content of a file; of None, an empty one.

    Args:
        where: names the file.
        look: the ``file_name`` of an image record -> the path of its picture, or None, and
            whether it lies where the name says.

    Raises:
        ValueError: it is no COCO file.
    """
    if content is None:
        content = dict(images=[], annotations=[], categories=[])
    index = CocoIndex(content, coco.read_coco(content, where))
    if not isinstance(content.get('categories') or [], list):
        raise ValueError(f'{where}: `categories` is no list')
    images, paths = index.tables.images, {}
    guessed: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        path, exact = look(image.file_name) if image.file_name else (None, False)
        if path is None or image.id is None:
            index.lost.append(image.file_name or f'row {image.row}')
        else:
            (index.images if exact else guessed).setdefault(path, []).append(number)
    for path, numbers in guessed.items():
        names = {images[number].file_name for number in numbers}
        if path in index.images:  # the picture of another folder, which is not here
            index.lost += sorted(names)
        else:
            index.images[path] = numbers
            if len(names) > 1:
                index.clashes[path] = 'several image records may mean it: ' + ', '.join(
                    f'{name!r:.80}' for name in sorted(names)[:3])
    for path, numbers in index.images.items():
        for number in numbers:
            paths.setdefault(images[number].id, set()).add(path)
    index.clashes |= {path: 'its image id is that of another picture, too: give each its own'
                      for found in paths.values() if len(found) > 1 for path in found}
    for number, row in enumerate(index.tables.annotations):
        for path in paths.get(row.image_id, ()) if row.image_id is not None else ():
            index.annotations.setdefault(path, []).append(number)
    return index


class PictureNames:
    """Where the pictures of image records lie below a folder; what was found is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.forget()

    def forget(self) -> None:
        """Look again: pictures came or went."""
        self._finder, self._found = PictureFinder([self.root], links=False), {}

    def __call__(self, name: str) -> tuple[str | None, bool]:
        """The path below the folder, or None, and whether it is there as it is written."""
        if name not in self._found:
            path, how = self._finder.look(name)
            below = '..' if path is None else os.path.relpath(os.path.abspath(path), self.root)
            self._found[name] = (None if below.split(os.sep)[0] == '..' else
                                 below.replace(os.sep, '/'), how == AS_WRITTEN)
        return self._found[name]


def revision_of(index: CocoIndex, path: str) -> str | None:
    """By which it is told whether what the file holds of a picture was changed since; None where
    it holds nothing."""
    if path not in index.images:
        return None
    images = [index.tables.images[number].record for number in index.images[path]]
    rows = [index.tables.annotations[number] for number in index.annotations.get(path, ())]
    names = sorted({f'{row.category_id}: {index.tables.categories.get(row.category_id)}'
                    for row in rows})
    text = json.dumps([images, [row.record for row in rows], names], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_picture(index: CocoIndex, path: str, size: tuple[int, int], tag: int = 1) -> Document:
    """What a file holds of a picture.

    Args:
        path: of the picture below the root.
        size: (h, w) of the picture upright.
        tag: its EXIF orientation.

    Raises:
        ValueError: it holds more than is edited, or cannot be told from another picture.
    """
    if path in index.clashes:
        raise ValueError(index.clashes[path])
    rows = [index.tables.annotations[number] for number in index.annotations.get(path, ())]
    images = [index.tables.images[number] for number in index.images.get(path, ())]
    if len(rows) > MAX_FOLDER_OBJECTS:
        raise ValueError(f'it holds {len(rows):,} objects of this picture; at most '
                         f'{MAX_FOLDER_OBJECTS:,} are edited here')
    said = next(((one.height, one.width) for one in images if one.height is not None), None)
    frame = _frame_of(rows, said, size, tag)
    own = next((own_of(one.record) for one in images if own_of(one.record)), {})
    document, faults, boxes = Document([], own, frame), [], 0
    for number, row in zip(index.annotations.get(path, ()), rows):
        try:
            held = _held(row, number, index.tables.categories, frame)
        except ValueError as error:
            faults.append(f'{row.name}: {error}')
            continue
        boxes += row.segmentation is None and 'polygons' not in own_of(row.record)
        document.held.append(held)
    check_count(one.object for one in document.held)
    give_ids(document.held, lambda one: _base(index.tables.annotations[one.records[0]]))
    redrawn = sum(one.foreign for one in document.held)
    if redrawn:
        document.notes.append(f'{redrawn} objects were drawn anew by another program: they are as '
                              'it drew them, without what was known of them, such as holes')
    if boxes:
        document.notes.append(f'{boxes} objects have a box alone, which is shown as an outline')
    if faults:
        document.notes.append(f'{len(faults)} annotations are not shown and stay as they are: '
                              + '; '.join(faults[:3]))
    if frame.tag != 1:
        document.notes.append('the outlines are of the picture as it is stored; they are shown '
                              'upright, as EXIF says')
    elif said not in (frame.size, None) and not own.get('digest'):
        document.notes.append(f'the annotations say {said[1]} x {said[0]} pixels, the picture has '
                              f'{size[1]} x {size[0]}: see whether the outlines fit')
    return document


def merge_picture(index: CocoIndex, path: str, document: Document, given: Sent) -> dict | None:
    """The content of the file once it holds what the page gives of a picture; None where it does
    already. What is of other pictures stays as it is."""
    matched = match(document, given.objects)
    if path in index.images and is_same_document(document, given, matched):
        return None
    content = dict(index.content)
    images, rows = list(content['images']), list(content['annotations'])
    categories = list(content.get('categories') or [])
    height, width = document.frame.file_size
    if path in index.images:
        place = index.tables.images[index.images[path][0]].row
        image = dict(images[place])
        if (coco.read_whole(image.get('height')), coco.read_whole(image.get('width'))) != (
                height, width):
            image |= dict(height=height, width=width)
        images[place] = image
    else:
        image = dict(id=_next([one.id for one in index.tables.images]), file_name=path,
                     height=height, width=width)
        images.append(image)
    image[OWN] = {**document.own, **given.own}
    ids = [one.id for one in index.tables.annotations]
    free = _next(ids)
    category_ids: dict[str, int | str] = {}
    for key, name in index.tables.categories.items():
        category_ids.setdefault(name, key)
    claimed = {id(held) for held in matched.values()}
    gone = {index.tables.annotations[held.records[0]].row for held in document.held
            if id(held) not in claimed}
    for number, item in enumerate(given.objects):
        held = matched[number]
        if held is not None and is_same_object(held.object, item):
            continue
        if held is None:
            record, place = dict(id=free, image_id=image['id'], category_id=None, iscrowd=0), None
            free += 1
        else:
            place = index.tables.annotations[held.records[0]].row
            record = dict(rows[place])
        label = written_label(item['label'])
        if held is None or item['label'] != held.object['label']:
            if label not in category_ids:
                key = _next([coco.read_id(one.get('id')) for one in categories
                             if isinstance(one, dict)])
                categories.append(dict(id=key, name=label))
                category_ids[label] = key
            record['category_id'] = category_ids[label]
        _fill(record, held, item, label, document.frame)
        if place is None:
            rows.append(record)
        else:
            rows[place] = record
    return content | dict(images=images, categories=categories, annotations=[
        row for place, row in enumerate(rows) if place not in gone])


# --- parts -------------------------------------------------------------------------------------
def _frame_of(rows: list, said: tuple | None, size: tuple[int, int], tag: int) -> Frame:
    """The picture as its annotations mean it: as it is stored, as COCO's are, unless outlines, or
    else the size that is stated, fit the upright picture alone."""
    if tag == 1:
        return Frame(size)
    stored = Frame(size, tag).file_size
    parts = [part for row in rows for part in _parts(row)]
    way = way_of_outlines(parts, stored, tag) or way_of_size(said, stored, tag) or 'stored'
    return Frame(size, tag) if way == 'stored' else Frame(size)


def _parts(row: coco.CocoAnnotation) -> list:
    """Flat polygons and RLEs of an annotation; the corners of its box where it has no others."""
    found = row.segmentation
    if found is None:
        return [] if row.bbox is None or min(row.bbox[2:]) <= 0 else [coco.box_corners(row)]
    found = found if isinstance(found, list) else [found]
    usable = [one for one in found if isinstance(one, dict) or len(one) >= 6]
    return usable or found  # slivers cover nothing


def _base(row: coco.CocoAnnotation) -> str:
    """What the derived id of an object is made of."""
    return _digest(row.record) if row.id is None else f'coco{row.id}'


def _held(row: coco.CocoAnnotation, number: int, categories: dict, frame: Frame) -> Held:
    broken = [fault for fault in row.faults if fault.kind in (coco.SEGMENTATION, coco.CROWD)]
    if broken:
        raise ValueError(broken[0].message)
    record, own = row.record, own_of(row.record)
    foreign = 'written' in own and own['written'] != _digest(record)
    polygons = [] if foreign or not isinstance(own.get('polygons'), list) else [
        shown_polygon(one, frame) for one in own['polygons']]
    if not polygons or None in polygons:
        parts = _parts(row)
        if not parts:
            raise ValueError('it has neither an outline nor a box')
        polygons = [one for part in parts for one in frame.outlines(part)]
    if not polygons:
        raise ValueError('its mask is empty')
    label = categories.get(row.category_id)
    if label is None:
        label = f'category {row.category_id}'
    if isinstance(own.get('label'), str) and label == written_label(own['label']):
        label = own['label']
    kept = own.get('object') if isinstance(own.get('object'), dict) else {}
    fields = dict(kept, id=own.get('id', ''),
                  label=label, polygons=polygons)
    fields |= {key: None if foreign else known_share(record.get(key)) for key in EVIDENCE}
    if foreign:
        fields['edited'] = True
    return Held(shown_object(fields), [number], [number] * len(polygons), [], foreign)


def _digest(record: dict) -> str:
    segmentation = record.get('segmentation')
    if not segmentation:
        return digest_of_outline('box', record.get('bbox'))
    if isinstance(segmentation, dict):
        return digest_of_outline('rle', segmentation.get('size'), segmentation.get('counts'))
    return digest_of_outline('polygons', segmentation)


def _fill(record: dict, held: Held | None, item: dict, label: str, frame: Frame) -> None:
    """Write an object into its annotation; one whose outline was not changed keeps its form."""
    own = {key: value for key, value in own_of(record).items() if key == 'polygons'}
    same = held is not None and is_same_object(
        dict(polygons=held.object['polygons']), dict(polygons=item['polygons']))
    if not same:
        filed = [frame.turned(polygon, back=True) for polygon in item['polygons']]
        record['segmentation'] = [np.ravel(cut_open(polygon)).tolist() for polygon in filed]
        record |= dict(zip(('bbox', 'area'), _box_and_area(filed, frame.file_size)))
        record.pop('uncertainty', None)  # of our exports: how sure each of the old vertices was
        whole = any(polygon['holes'] or polygon.keys() - {'outer', 'holes'} for polygon in filed)
        own = dict(polygons=filed) if whole else {}
    elif held.foreign:
        own = {}
    apart = kept_apart(item)
    record[OWN] = dict(own, id=item['id'], written=_digest(record)) | (
        dict(object=apart) if apart else {}) | (
        dict(label=item['label']) if label != item['label'] else {})
    fill_evidence(record, held, item)


def _box_and_area(polygons: list[dict], size: tuple[int, int]) -> tuple[list, float]:
    """COCO's ``bbox`` x, y, width, height within the picture, and ``area``, of polygons without
    their holes; as its own are, from the vertices."""
    points = np.concatenate([np.asarray(one['outer'], np.float64) for one in polygons])
    low = points.min(axis=0).clip(0, size[::-1])
    high = points.max(axis=0).clip(0, size[::-1])
    area = sum(abs(signed_area(one['outer'])) - sum(abs(signed_area(hole))
                                                   for hole in one['holes']) for one in polygons)
    return [*low.tolist(), *(high - low).tolist()], max(0.0, round(area, 3))


def _next(ids: list) -> int:
    """A whole number that no record has for its id."""
    return 1 + max((one for one in ids if isinstance(one, int) and one > 0), default=0)
