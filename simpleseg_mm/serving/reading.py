"""Annotation files of other tools as objects of the pictures that the page has open. Runs in the
worker process."""
import base64
import binascii
import io
import json
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..annotation.own_account import Account
from ..annotation.own_coco import read_coco_set
from ..annotation.own_cvat import read_cvat
from ..annotation.own_formats import BOX_ALONE, OwnObject, OwnPicture, OwnSet, Reading
from ..annotation.own_labelme import read_labelme
from ..annotation.own_pictures import settle_objects
from ..annotation.own_studio import is_studio, read_studio
from ..annotation.own_voc import CLASSES, OBJECTS, read_voc
from ..annotation.own_yolo import YoloSet
from ..export.rings import plain, uncut
from ..files import ImageError, load_json, read_lines, replace_text
from ..export.formats import data_yaml
from ..polygon import Part, group_rings, mask_to_parts, rle_to_crop, signed_area

MAX_FILES = 20_000  # and pictures
MAX_READ_BYTES = 500_000_000  # bytes of all files of annotations
MAX_VERTICES = 2_000_000  # of all objects
_SUFFIXES = ('.json', '.xml', '.yaml', '.yml', '.txt', '.png')  # of what a zip may hold for us
_NAMES = ('classes.txt', 'obj.names', '_darknet.labels')  # of classes, one a line
_CONFIG = 'label_config.xml'  # Label Studio's, beside its tasks
_HINT = re.compile(r' \(--[a-z][^()]*\)')  # what an option of own_data.py would do
_MAX_NOTES = 100


@dataclass
class _Found:
    """What is known of an open picture."""
    path: str
    size: tuple[int, int]
    objects: list[dict]
    notes: list[str]
    records: int = 0  # files that have it


def read_files(body: bytes) -> dict:
    """Annotations of any tool, for pictures that are known by their paths and sizes.

    COCO, LabelMe, YOLO (data.yaml, or the list of classes, and its labels), CVAT for images, Label
    Studio's JSON, VOC's masks, and zips of them. What can be read is; the rest is told.

    Args:
        body: JSON, ``files`` (``path`` and ``text`` or ``base64`` each) and ``pictures``
            (``path``, ``width`` and ``height``).

    Returns:
        ``pictures``: of those that have a record ``path``, ``objects`` (``label``, ``score``,
        ``polygons``) and ``notes``; and ``notes`` of all together.

    Raises:
        ValueError: the request is of another form, or more than is taken.
    """
    try:
        asked = json.loads(body)
    except ValueError:
        raise ValueError('the body is not JSON') from None
    files, pictures = (asked.get(key) if isinstance(asked, dict) else None
                       for key in ('files', 'pictures'))
    for rows, name in ((files, 'files'), (pictures, 'pictures')):
        if not isinstance(rows, list) or len(rows) > MAX_FILES or not all(
                isinstance(row, dict) and isinstance(row.get('path'), str) for row in rows):
            raise ValueError(f'`{name}` is a list of at most {MAX_FILES}, each with its `path`')
    with tempfile.TemporaryDirectory(prefix='simpleseg-read-') as folder:
        tree = _Tree(Path(os.path.realpath(folder)))
        for row in pictures:
            tree.add_picture(row)
        for row in files:
            tree.add_file(row['path'], _content(row))
        for own, account in tree.sets():
            _take(own, account, tree)
        found = [one for one in tree.pictures.values() if one.records]
        notes = [_HINT.sub('', note.replace(f'{tree.top}/', '')) for note in tree.notes]
    if not found and not notes:
        notes = ['no file of annotations that can be read: give COCO, LabelMe, YOLO with its '
                 "data.yaml, CVAT for images, Label Studio's JSON, or VOC's masks"]
    notes = list(dict.fromkeys(notes))
    if len(notes) > _MAX_NOTES:
        notes = [*notes[:_MAX_NOTES], f'and {len(notes) - _MAX_NOTES} more notes']
    return dict(pictures=[dict(path=one.path, objects=one.objects, notes=one.notes)
                          for one in found], notes=notes)


def _content(row: dict) -> bytes:
    text, packed = row.get('text'), row.get('base64')
    if isinstance(text, str) and packed is None:
        return text.encode(errors='replace')
    try:
        if isinstance(packed, str) and text is None:
            return base64.b64decode(packed.rpartition(',')[2], validate=True)
    except (binascii.Error, ValueError):
        pass
    raise ValueError(f'file {row["path"]!r:.80}: give its `text`, or its bytes as `base64`')


class _Tree:
    """Files of annotations on the disk as they lay, with empty files in the places of pictures,
    so that the readers find them by their own rules.

    Attributes:
        top: the folder.
        pictures: open pictures by the place of their empty file.
        notes: what was not read, and why.
        vertices: of all objects so far.
    """

    def __init__(self, top: Path) -> None:
        self.top = top / 'files'
        self.top.mkdir()
        self.masks = top / 'masks'  # VOC's, whose names are those of pictures
        self.pictures: dict[str, _Found] = {}
        self.notes: list[str] = []
        self.vertices = 0
        self._bytes = 0
        self._files: list[Path] = []

    def add_picture(self, row: dict) -> None:
        width, height = row.get('width'), row.get('height')
        if not all(type(side) is int and 0 < side <= 100_000 for side in (width, height)) \
                or width * height > 10**9:
            raise ValueError(f'picture {row["path"]!r:.80}: `width` and `height` are whole pixels')
        if (place := self._place(self.top, row['path'])) is not None:
            self._write(place, b'')
            self.pictures[str(place)] = _Found(row['path'], (height, width), [], [])

    def add_file(self, path: str, content: bytes) -> None:
        """Write a file, or what is in it where it is a zip."""
        if content[:4] == b'PK\x03\x04':
            self._unpack(path, content)
            return
        self._bytes += len(content)
        if self._bytes > MAX_READ_BYTES or len(self._files) >= MAX_FILES:
            raise ValueError(f'the files are more than {MAX_FILES}, or have more than '
                             f'{MAX_READ_BYTES:,} bytes: read them in parts')
        parts = path.replace('\\', '/').split('/')
        masks = CLASSES in parts or OBJECTS in parts or parts[-1] == 'labelmap.txt'
        place = self._place(self.masks if masks else self.top, path)
        if place is None:
            return
        if str(place) in self.pictures:
            self.notes.append(f'{path!r:.80} is an open picture and a file of annotations: it is '
                              'not read as one')
            return
        self._write(place, content)
        self._files.append(place)

    def sets(self) -> Iterator[tuple[OwnSet, Account]]:
        """What the files hold, file by file; LabelMe's together."""
        reading = Reading(boxes='leave', crowds='objects', further=self.top, predictions=True)
        labelme, odd = [], Counter()
        lists = [path for path in self._files if path.suffix.lower() in ('.yaml', '.yml')]
        if not lists:
            lists = [self._as_yaml(path) for path in self._files if path.name in _NAMES]
        for path in lists:
            yield from self._read(path, partial(self._yolo, path, reading))
        for path in self._files:
            suffix = path.suffix.lower()
            if path.name == _CONFIG:
                continue
            if suffix == '.xml':
                yield from self._read(path, partial(read_cvat, path, reading))
            elif suffix == '.json':
                try:
                    content = load_json(path)
                except (OSError, ValueError) as error:
                    self.notes.append(f'{path.name} is not read: {error}')
                    continue
                if isinstance(content, dict) and isinstance(content.get('shapes'), list):
                    labelme.append((path, content))
                elif is_studio(content):
                    yield from self._read(path, partial(read_studio, path, content, reading))
                else:
                    yield from self._read(path, partial(read_coco_set, path, content, reading))
            elif suffix not in ('.yaml', '.yml') and not path.is_relative_to(self.masks) \
                    and not (suffix == '.txt' and lists) and path.name not in _NAMES:
                odd[suffix or path.name] += 1
        for suffix, count in odd.items():
            self.notes.append(
                f'{count} files {suffix} are not read' +
                (": the names of their classes stand in YOLO's data.yaml, which is not among them"
                 if suffix == '.txt' else ': they are no annotations that are known'))
        if labelme:
            yield from self._read(labelme[0][0], partial(read_labelme, labelme, self.top, reading))
        for folder in sorted({above.parent for path in self.masks.rglob('*.png')
                              for above in path.parents if above.name == CLASSES}):
            beside = self.top / folder.relative_to(self.masks)
            images = next((beside / name for name in ('JPEGImages', 'images')
                           if (beside / name).is_dir()), self.top)
            yield from self._read(folder, partial(read_voc, folder, Reading(images=images)))

    def _read(self, path: Path, read: Callable[[Account], OwnSet]
              ) -> Iterator[tuple[OwnSet, Account]]:
        account = Account()
        try:
            yield read(account), account
        except (ImageError, OSError, ValueError) as error:
            self.notes.append(f'{path.name} is not read: {error}')

    def _yolo(self, path: Path, reading: Reading, account: Account) -> OwnSet:
        return YoloSet(path, Reading(images=self.top, boxes=reading.boxes)).read('train', account)

    def _as_yaml(self, path: Path) -> Path:
        """A list of classes as a data.yaml beside it."""
        place = path.with_name('data.yaml')
        replace_text(place, data_yaml(read_lines(path), '.', path.name))
        return place

    def _unpack(self, path: str, content: bytes) -> None:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    parts = entry.filename.replace('\\', '/').split('/')
                    masks = CLASSES in parts or OBJECTS in parts
                    suffix = os.path.splitext(entry.filename)[1].lower()
                    if entry.is_dir() or suffix not in _SUFFIXES or (
                            suffix == '.png' and not masks) or '__MACOSX' in parts:
                        continue
                    if entry.file_size > MAX_READ_BYTES - self._bytes:
                        raise ValueError(f'{path!r:.80} unpacks to more than {MAX_READ_BYTES:,} '
                                         'bytes: read its files in parts')
                    folder = path.replace('\\', '/').rpartition('/')[0]
                    self.add_file(f'{folder}/{entry.filename}', archive.read(entry))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            self.notes.append(f'{path!r:.80} is a zip that cannot be read: {error}')

    def _place(self, top: Path, path: str) -> Path | None:
        """Where a path lies below a folder, whatever it says; None, and a note: nowhere."""
        parts = [part for part in path.replace('\\', '/').split('/')
                 if part not in ('', '.', '..')]
        place = top.joinpath(*parts)
        if not parts or '\0' in path or max(len(os.fsencode(part)) for part in parts) > 255 \
                or len(os.fsencode(place)) > 3000:
            self.notes.append(f'{path!r:.80} is no path of a file')
            return None
        return place

    def _write(self, place: Path, content: bytes) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ValueError(f'{place.name!r:.80} is the name of a file and of a folder') from None


# --- objects -----------------------------------------------------------------------------------
def _take(own: OwnSet, account: Account, tree: _Tree) -> None:
    """Add what a file holds to the pictures that are open."""
    closed = 0
    for picture in own.pictures:
        found = None if picture.path is None or picture.raw is not None else \
            tree.pictures.get(os.path.realpath(picture.path))
        if found is None:
            closed += 1
            continue
        found.records += 1
        if found.records == 2:
            found.notes.append('several files have annotations of it: all are taken')
        if picture.fault:
            found.notes.append(picture.fault)
        elif picture.size not in (None, found.size):
            found.notes.append(_other_size(picture.size, found.size))
        else:
            picture.size = found.size
            settle_objects(picture, account)
            _add_objects(picture, found, tree)
    if closed:
        tree.notes.append(f'annotations of {closed} pictures that are not open here are left out')
    reasons = account.changed + account.guessed
    for kind, counts in account.left_out.items():
        reasons.update({reason: count for reason, count in counts.items()
                        if not reason.startswith(('picture missing', 'picture without a file'))})
    for reason, count in reasons.items():
        example = account.examples.get(reason)
        tree.notes.append(f'{count} x {reason}' + (f', such as {example[0]}' if example else ''))


def _other_size(said: tuple[int, int], size: tuple[int, int]) -> str:
    if said == size[::-1]:
        return ('its annotations are for the picture as it is stored, which is shown turned (its '
                'EXIF orientation): they are not read')
    return (f'its annotations are for a picture of {said[1]} x {said[0]} pixels, and it has '
            f'{size[1]} x {size[0]}: they are not read')


def _add_objects(picture: OwnPicture, found: _Found, tree: _Tree) -> None:
    lost: Counter[str] = Counter()
    boxes = unnamed = unread = 0
    for one in picture.objects:
        if one.lost == BOX_ALONE and one.segmentation:
            boxes += 1
        elif one.lost:
            lost[_HINT.sub('', one.lost)] += 1
            continue
        parts = _parts_of(one)
        tree.vertices += sum(len(ring) for part in parts for ring in part.rings)
        if tree.vertices > MAX_VERTICES:
            raise ValueError(f'the outlines have more than {MAX_VERTICES:,} vertices: read the '
                             'files in parts')
        label = one.category or next(iter(one.phrases), '')
        unnamed += not label
        unread += len(one.phrases) - (not one.category and bool(one.phrases))
        found.objects.append(dict(label=label or 'object', score=one.score, polygons=[
            dict(outer=plain(part.outer), holes=[plain(hole) for hole in part.holes])
            for part in parts]))
    for count, what in ((boxes, 'boxes without an outline, read as rectangles'),
                        (unnamed, "objects without a name, called 'object'"),
                        (unread, 'further expressions of objects, which are not shown')):
        if count:
            found.notes.append(f'{count} {what}')
    found.notes += [f'{count} left out: {reason}' for reason, count in lost.items()]


def _parts_of(one: OwnObject) -> list[Part]:
    """The outline: vertices as they were drawn, or round the pixels of a mask; a hole that was cut
    open is one again."""
    if isinstance(one.segmentation, dict):
        crop, (x, y) = rle_to_crop(one.segmentation)
        return [Part(part.outer + (x, y), tuple(hole + (x, y) for hole in part.holes))
                for part in mask_to_parts(crop)]
    found: list[Part] = []
    for polygon in one.segmentation:
        ring = np.reshape(polygon, (-1, 2))
        rings = uncut(ring)
        if sum(map(signed_area, rings)) > 0:
            rings = [ring[::-1] for ring in rings]
        found += group_rings(rings)
    return found
