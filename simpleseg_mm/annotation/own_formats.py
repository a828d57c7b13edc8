"""Annotations of one's own, COCO's and LabelMe's files, as pictures with objects.

Nothing here looks at a picture's pixels or decodes a mask. Records that cannot be used are counted
by reason; one bad file never refuses a folder.
"""
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simpleseg_mm.files import load_json, shown
from simpleseg_mm.files.pickles import load_pickle
from simpleseg_mm.files.texts import is_guessed

from .own_account import Account
from .sample import clean_text

MAX_TEXT = 300  # characters of an expression. Our choice
_RECORD_KEYS = ('text', 'sent', 'raw')
BOXES, CROWDS = ('auto', 'take', 'leave'), ('auto', 'objects', 'groups')
#: ends messages about what is no set
EXPORT = ("Give the JSON of a COCO export (CVAT: 'COCO 1.0'; Label Studio: 'COCO', not 'JSON'; "
          "Roboflow: 'COCO Segmentation'; VIA: 'COCO format'), unpacked, or LabelMe's files")
_NOT_SETS = ('__MACOSX', )  # folders that archives bring along


@dataclass
class OwnObject:
    """One annotated object.

    Attributes:
        where: names the record in messages.
        parts: its outline: flat polygons, RLE dicts or :class:`~.own_outlines.Crop`.
        category: its name; None where it is not known, so that it may be of any; '' where it is of
            one that is never asked for.
        phrases: expressions that mean it.
        crowd: whether it stands for a group.
        lost: why its outline cannot be used; '' where it can.
        unnamed: why its category is not known; '' where it is.
        records: annotations, or shapes, that it is made of.
        cuts: outlines that are taken off it.
        segmentation, box, area: of its mask, in COCO's form, x1, y1, x2, y2 and pixels; known once
            it is decoded.
        texts: what it is asked by; known once that is chosen.
    """
    where: str
    parts: list
    category: str | None
    phrases: list[str] = field(default_factory=list)
    crowd: bool = False
    lost: str = ''
    unnamed: str = ''
    records: int = 1
    cuts: list = field(default_factory=list)
    segmentation: object = None
    box: list[float] = field(default_factory=list)
    area: int = 0
    texts: list[str] = field(default_factory=list)


@dataclass
class OwnPicture:
    """One annotated picture.

    Attributes:
        where: names its record in messages.
        path: of its file; None where there is none.
        size: (height, width) that its annotations are for; None where they do not say. Once it is
            checked, that of its pixels.
        objects: what is on it, lost ones too.
        absent: expressions that mean nothing on it.
        raw: the picture itself, where the annotations hold it and the file is missing.
        fault: why it cannot be used; '' where it can.
        cuts: shapes on it that are no objects, but taken off some.
        throughout: whether what is not annotated on it is not there, as far as can be seen.
        known_absent: the categories that are known not to be on it, where others may be; None
            where all that it does not hold are.
        texts: what is asked and fits nothing; known once that is chosen.
    """
    where: str
    path: Path | None
    size: tuple[int, int] | None
    objects: list[OwnObject] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    raw: bytes | None = None
    fault: str = ''
    cuts: int = 0
    throughout: bool = True
    known_absent: set[str] | None = None
    texts: list[str] = field(default_factory=list)


@dataclass
class OwnSet:
    """What one file or folder of annotations holds.

    Attributes:
        pictures: all, those that cannot be used too.
        exif: how turned pictures are meant where nothing shows it: 'stored' or 'upright'.
    """
    pictures: list[OwnPicture]
    exif: str


@dataclass(frozen=True)
class Reading:
    """How annotations are read.

    Attributes:
        images: folder of the pictures. None: where tools put them, near the annotations.
        expressions: JSON file of rows ``dict(ann_id, sentences)`` for COCO annotations; RefCOCO's
            ``refs.json`` is one. ``ann_id`` is an id, several, or -1 with an ``image_id``.
        boxes: 'take': a plain box is a rectangle that outlines its object; 'leave': the object is
            lost. 'auto': COCO's boxes are left, for a tool wrote them beside outlines; LabelMe's
            rectangles are taken, for people drew them.
        crowds: 'groups': ``iscrowd`` 1 is a group of objects, as in COCO; 'objects': one object,
            as CVAT writes brush masks. 'auto': groups.
        passed_over: folder whose files are no annotations: the new set, below the old one.
    """
    images: Path | None = None
    expressions: Path | None = None
    boxes: str = 'auto'
    crowds: str = 'auto'
    passed_over: Path | None = None


def read_own(path: Path, reading: Reading, account: Account) -> OwnSet:
    """Pictures of a COCO file, of one LabelMe file, or of a folder of LabelMe files.

    Raises:
        FileNotFoundError, ValueError: one line: what is missing or of another form.
    """
    from .own_coco import read_coco_set
    from .own_labelme import read_labelme
    if not path.exists():
        raise FileNotFoundError(f'no annotations {path}: give a COCO file, or a folder of '
                                "LabelMe's files")
    if not path.is_dir():
        try:
            content = _load(path, account)
        except ValueError as error:
            raise ValueError(f'{error}. {EXPORT}') from None
        if not _is_labelme(content):
            return read_coco_set(path, content, reading, account)
        account.read['file'] += 1
        found, folder = [(path, content)], path.parent
    else:
        found, others = _files_of(path, reading.passed_over, account)
        if not found and len(others) == 1:
            account.read['file'] += 1
            account.used['file'] += 1
            return read_coco_set(*others[0], reading, account)
        if not found and others:
            raise ValueError(f'{path} holds {len(others)} COCO files, such as '
                             f'{others[0][0].relative_to(path)} and '
                             f'{others[1][0].relative_to(path)}: give one of them, and another '
                             'with --val where it is of validation')
        if not found:
            raise FileNotFoundError(
                f"{path} holds no annotations ({dict(account.left_out['file']) or 'no .json'}). "
                + EXPORT)
        for file, _ in others:
            account.read['file'] += 1
            account.leave('file', "COCO file among LabelMe's: give it by itself", str(file))
        folder = path
    if reading.expressions is not None:
        raise ValueError("expressions stand in LabelMe's files (a shape's description, or its "
                         'label); a file of expressions goes with COCO annotations')
    account.used['file'] += len(found)
    return read_labelme(found, folder, reading, account)


def _files_of(folder: Path, passed_over: Path | None, account: Account) -> tuple[list, list]:
    """LabelMe's files of a folder with their content, and COCO files; others are counted."""
    found, others = [], []
    over = os.path.realpath(passed_over) if passed_over is not None else None
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith('.')
                            and one not in _NOT_SETS
                            and os.path.realpath(os.path.join(place, one)) != over)
        for name in sorted(files):
            if not name.lower().endswith('.json'):
                continue
            file = Path(place, name)
            if name.startswith('.'):
                account.read['file'] += 1
                account.leave('file', 'hidden file, such as those of a Mac', str(file))
                continue
            try:
                content = _load(file, account)
            except (OSError, ValueError) as error:
                account.read['file'] += 1
                account.leave('file', 'file that is no readable JSON', str(error))
                continue
            if isinstance(content, dict) and 'images' in content and 'annotations' in content:
                others.append((file, content))
                continue
            account.read['file'] += 1
            if not _is_labelme(content):
                account.leave('file', "file that is not LabelMe's", str(file))
            else:
                found.append((file, content))
    return found, others


def _load(file: Path, account: Account):
    content = load_json(file)
    if is_guessed(file.read_bytes()):
        account.decide('file that is not in UTF-8, read as Windows-1252: names in other letters '
                       'than those of Western Europe are wrong', str(file), guessed=True)
    return content


def _is_labelme(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


# --- expressions -------------------------------------------------------------------------------
def texts_of(value, where: str, account: Account) -> list[str]:
    """Clean expressions of a text, a list of texts, or a list of records; each once."""
    found: dict[str, None] = {}
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            one = next((one[key] for key in _RECORD_KEYS if key in one), None)
        account.read['expression'] += 1
        text = clean_text(one, MAX_TEXT + 1) if isinstance(one, str) else ''
        if not text:
            account.leave('expression', 'expression empty or no text', f'{where}: {shown(one)}')
        elif len(text) > MAX_TEXT:
            account.leave('expression', f'expression of more than {MAX_TEXT} characters',
                          f'{where}: {text:.60}')
        else:
            account.used['expression'] += 1
            found[text] = None
    return list(found)


def read_expressions(path: Path, account: Account) -> Iterator[tuple[list, object, list[str]]]:
    """``(annotation ids, image id or None, expressions)`` of each row."""
    rows = load_pickle(path) if path.suffix == '.p' else load_json(path)
    if not isinstance(rows, list):
        raise ValueError(f'{path} must hold a list of rows, each with ann_id and sentences')
    for number, row in enumerate(rows):
        where = f'{path}, row {number}'
        if not isinstance(row, dict) or not {'ann_id', 'sentences'} <= row.keys():
            account.read['expression'] += 1
            account.leave('expression', 'row of expressions without ann_id or sentences', where)
            continue
        ids = row['ann_id'] if isinstance(row['ann_id'], list) else [row['ann_id']]
        yield ids, row.get('image_id'), texts_of(row['sentences'], where, account)
