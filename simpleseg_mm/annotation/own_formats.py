"""Annotations of one's own, COCO's and LabelMe's files, as pictures with objects.

Nothing here looks at a picture's pixels or decodes a mask; records that cannot be used are left
out and counted, files that are no annotations at all are a ValueError.
"""
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simpleseg_mm.files.pictures import MAX_PIXELS
from simpleseg_mm.datasets import native

from .sample import clean_text

MAX_TEXT = 300  # characters of an expression. Our choice
#: where an annotation may hold its expressions, each a text, or a list of texts or of records
TEXT_KEYS = ('phrase', 'expressions', 'sentences', 'descriptions')
_RECORD_KEYS = ('text', 'sent', 'raw')


@dataclass
class OwnObject:
    """One annotated object.

    Attributes:
        where: names the record in messages.
        segmentation: COCO's form; not yet decoded.
        category: its name.
        phrases: expressions that mean it.
        crowd: whether it stands for a group.
        box, area: of its mask, x1, y1, x2, y2 and pixels; known once it is decoded.
    """
    where: str
    segmentation: object
    category: str
    phrases: list[str]
    crowd: bool = False
    box: list[float] = field(default_factory=list)
    area: int = 0


@dataclass
class OwnPicture:
    """One annotated picture.

    Attributes:
        path: of its file.
        size: (height, width) that its annotations are for; None where they do not say.
        objects: what is on it.
        absent: expressions that mean nothing on it.
        raw: the picture itself, where the annotations hold it and the file is missing.
    """
    path: Path
    size: tuple[int, int] | None
    objects: list[OwnObject] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    raw: bytes | None = None


class LeftOut:
    """What is left out or changed, counted by reason, with a few examples each."""

    def __init__(self, examples: int = 5) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._limit = examples

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count ``count`` under a reason; ``where`` names the record."""
        self.counts[reason] += count
        found = self.examples.setdefault(reason, [])
        if len(found) < self._limit:
            found.append(clean_text(where, 200))


def read_own(path: Path, images: Path | None, expressions: Path | None,
             left_out: LeftOut) -> list[OwnPicture]:
    """Pictures of a COCO file, of one LabelMe file, or of a folder of LabelMe files.

    Args:
        path: of the annotations.
        images: folder of the pictures. None: beside the annotations, for COCO in ``images`` there
            if there is such a folder.
        expressions: JSON file of rows ``dict(ann_id, sentences)`` for COCO annotations; RefCOCO's
            ``refs.json`` is one. ``ann_id`` is an id, several, or -1 with an ``image_id``.

    Raises:
        FileNotFoundError, ValueError: one line: what is missing or of another form.
    """
    if not path.exists():
        raise FileNotFoundError(f'no annotations {path}: give a COCO file, or a folder of '
                                "LabelMe's files")
    if path.is_dir():
        files = sorted(path.rglob('*.json'))
        if not files:
            raise FileNotFoundError(f'{path} holds no .json files; give the folder with '
                                    "LabelMe's files, or a COCO file")
        contents = [(file, native.load_json(file)) for file in files]
        if len(files) == 1 and not _is_labelme(contents[0][1]):
            return read_own(files[0], images, expressions, left_out)
    else:
        contents = [(path, native.load_json(path))]
        if not _is_labelme(contents[0][1]):
            return _read_coco(path, contents[0][1], images, expressions, left_out)
    if expressions is not None:
        raise ValueError("expressions stand in LabelMe's files (a shape's description, or its "
                         'label); a file of expressions goes with COCO annotations')
    from .own_labelme import read_labelme
    return read_labelme(contents, images, left_out)


def _is_labelme(content) -> bool:
    return isinstance(content, dict) and 'shapes' in content


def size_of(height, width) -> tuple[int, int] | None:
    """(height, width) where both are sensible numbers of pixels, else None."""
    sensible = all(isinstance(n, int) and n > 0 for n in (height, width))
    return (height, width) if sensible and height * width <= MAX_PIXELS else None


# --- expressions -------------------------------------------------------------------------------
def texts_of(value, where: str, left_out: LeftOut) -> list[str]:
    """Clean expressions of a text, a list of texts, or a list of records; each once."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            one = next((one[key] for key in _RECORD_KEYS if key in one), None)
        text = clean_text(one, MAX_TEXT + 1) if isinstance(one, str) else ''
        if not text:
            left_out.add('expression empty or no text', f'{where}: {one!r:.60}')
        elif len(text) > MAX_TEXT:
            left_out.add(f'expression of more than {MAX_TEXT} characters', f'{where}: {text:.60}')
        else:
            found.append(text)
    return list(dict.fromkeys(found))


def _read_expressions(path: Path, left_out: LeftOut) -> Iterator[tuple[list, object, list[str]]]:
    """``(annotation ids, image id or None, expressions)`` of each row."""
    rows = native.load_refs(path) if path.suffix == '.p' else native.load_json(path)
    if not isinstance(rows, list):
        raise ValueError(f'{path} must hold a list of rows, each with ann_id and sentences')
    for number, row in enumerate(rows):
        where = f'{path}, row {number}'
        if not isinstance(row, dict) or not {'ann_id', 'sentences'} <= row.keys():
            left_out.add('row of expressions without ann_id or sentences', where)
            continue
        ids = row['ann_id'] if isinstance(row['ann_id'], list) else [row['ann_id']]
        yield ids, row.get('image_id'), texts_of(row['sentences'], where, left_out)


# --- COCO --------------------------------------------------------------------------------------
def _read_coco(path: Path, content, images: Path | None, expressions: Path | None,
               left_out: LeftOut) -> list[OwnPicture]:
    """Pictures of a COCO file; see :func:`read_own`."""
    if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) for key in ('images', 'annotations')):
        raise ValueError(f"{path} is neither a COCO file (lists 'images' and 'annotations') nor "
                         "one of LabelMe's (a list 'shapes')")
    if images is None:
        images = next((folder for folder in (path.parent / 'images',
                                             path.parent.parent / 'images') if folder.is_dir()),
                      path.parent)
    pictures = _coco_pictures(path, content['images'], images, left_out)
    names = {row['id']: row['name'] for row in content.get('categories') or []
             if isinstance(row, dict) and {'id', 'name'} <= row.keys()}
    objects: dict = {}
    places: dict = {}
    for number, row in enumerate(content['annotations']):
        where = f'{path}, annotation {row.get("id", number)!r}' if isinstance(row, dict) else \
            f'{path}, annotation number {number}'
        fault = _coco_fault(row, pictures, names, objects)
        if fault:
            left_out.add(fault, where)
            continue
        found = [row[key] for key in TEXT_KEYS if row.get(key)]
        texts = [text for value in found for text in texts_of(value, where, left_out)]
        one = OwnObject(where, row['segmentation'], clean_text(names[row['category_id']]), texts,
                        bool(row.get('iscrowd')))
        key = row.get('id', f'number {number}')
        objects[key], places[key] = one, row['image_id']
        pictures[row['image_id']].objects.append(one)
    if expressions is not None:
        _give_expressions(expressions, pictures, objects, places, left_out)
    return list(pictures.values())


def _coco_pictures(path: Path, rows: list, images: Path, left_out: LeftOut) -> dict:
    pictures: dict = {}
    twice = set()
    for number, row in enumerate(rows):
        where = f'{path}, image {row.get("id", number)!r}' if isinstance(row, dict) else \
            f'{path}, image number {number}'
        if not (isinstance(row, dict) and isinstance(row.get('id'), int | str)
                and isinstance(row.get('file_name'), str) and row['file_name']):
            left_out.add('image without id or file_name', where)
            continue
        known = pictures.get(row['id'])
        place = images / row['file_name']
        if known is not None and known.path != place:
            left_out.add('image id used for two files (both, with their annotations)', where)
            twice.add(row['id'])
            continue
        absent = texts_of(row['absent_phrases'], where, left_out) \
            if row.get('absent_phrases') else []
        pictures[row['id']] = OwnPicture(
            place, size_of(row.get('height'), row.get('width')), [], absent)
    return {key: picture for key, picture in pictures.items() if key not in twice}


def _coco_fault(row, pictures: dict, names: dict, objects: dict) -> str:
    """Why an annotation is left out; '' where it is not."""
    if not isinstance(row, dict):
        return 'annotation that is no record'
    if not isinstance(row.get('id', 0), int | str):
        return 'annotation without a usable id'
    if row.get('id') in objects:
        return 'annotation id used before'
    if not isinstance(row.get('image_id'), int | str) or row['image_id'] not in pictures:
        return 'annotation of an unknown image'
    if not row.get('segmentation'):
        return 'annotation without a segmentation'
    name = names.get(row['category_id']) if isinstance(row.get('category_id'), int | str) else None
    if not isinstance(name, str) or not clean_text(name):
        return 'annotation of an unknown category'
    return ''


def _give_expressions(path: Path, pictures: dict, objects: dict, places: dict,
                      left_out: LeftOut) -> None:
    for ids, image_id, texts in _read_expressions(path, left_out):
        if ids == [-1]:
            if isinstance(image_id, int | str) and image_id in pictures:
                pictures[image_id].absent += texts
            else:
                left_out.add('expression for nothing, of an unknown image', f'{path}: {texts}')
            continue
        known = [i for i in ids if isinstance(i, int | str) and i in objects]
        if len(known) < len(ids) or len({places[i] for i in known}) != 1:
            left_out.add('expression of an annotation that is unknown or left out, or of several '
                         'images', f'{path}: ann_id {ids}: {texts}', max(1, len(texts)))
            continue
        for key in known:
            objects[key].phrases += [text for text in texts if text not in objects[key].phrases]
