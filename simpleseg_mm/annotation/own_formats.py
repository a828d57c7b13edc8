"""Annotations of one's own, files of any tool, as pictures with objects.

Nothing here looks at a picture's pixels or decodes a mask. Records that cannot be used are counted
by reason; one bad file never refuses a folder.
"""
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simpleseg_mm.files import PictureFinder, load_json, shown
from simpleseg_mm.files.coco import read_whole
from simpleseg_mm.files.pickles import load_pickle
from simpleseg_mm.files.pictures import MAX_PIXELS

from .own_account import Account
from .sample import clean_text

MAX_EXPRESSION = 300  # characters of an expression. Our choice
_RECORD_KEYS = ('text', 'sent', 'raw')
BOX_ALONE = 'object with a box alone (--boxes take reads it as a rectangle)'
BOX_BESIDE = 'box that its object has beside an outline'
#: ends messages about what is no set
EXPORT = ("Give the JSON of a COCO export (Roboflow: 'COCO Segmentation'; VIA: 'COCO format'), "
          "LabelMe's files, CVAT's XML ('CVAT for images 1.1'), Label Studio's 'JSON', YOLO's "
          "data.yaml, or a folder of VOC's masks, unpacked")


@dataclass
class OwnObject:
    """One annotated object.

    Attributes:
        where: names the record in messages.
        parts: its outline: flat polygons, RLE dicts, :class:`simpleseg_mm.files.labelme.Crop` or
            :class:`~.own_outlines.Relative`.
        category: its name; None where it is not known, so that it may be of any; '' where it is of
            one that is never asked for.
        phrases: expressions that mean it.
        crowd: whether it stands for a group.
        lost: why its outline cannot be used; '' where it can. One with a box alone may have that
            as its part.
        unnamed: why its category is not known; '' where it is.
        records: annotations, or shapes, that it is made of.
        cuts: outlines that are taken off it.
        segmentation, box, area: of its mask, in COCO's form, x1, y1, x2, y2 and pixels; known once
            it is decoded.
        texts: what it is asked by; known once that is chosen.
        score: how sure a model was of it, 0..1; None where that is not said.
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
    score: float | None = None


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
            lost. 'auto': LabelMe's rectangles are taken, all other boxes are left: a tool wrote
            them beside outlines, or they are for detection.
        crowds: 'groups': ``iscrowd`` 1 is a group of objects, as in COCO; 'objects': one object,
            as CVAT writes brush masks. 'auto': groups.
        passed_over: folder whose files are no annotations: the new set, below the old one.
        further: a folder of pictures that is looked into after those near the annotations.
        predictions: whether Label Studio's predictions are read where nobody has annotated a task.
    """
    images: Path | None = None
    expressions: Path | None = None
    boxes: str = 'auto'
    crowds: str = 'auto'
    passed_over: Path | None = None
    further: Path | None = None
    predictions: bool = False


def score_of(value) -> float | None:
    """How sure a model was of an object, where a record says it in a number from 0 to 1."""
    try:
        score = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return score if 0 <= score <= 1 else None


def missing_picture(how: str) -> str:
    """The fault of a picture that :meth:`~simpleseg_mm.files.PictureFinder.look` has not found."""
    return 'picture missing' if how == 'missing' else f'picture missing: {how}'


def finder_near(path: Path, reading: Reading) -> PictureFinder:
    """Looks for the pictures of a file of annotations: in the folder that is given, or near it."""
    return finder_in([reading.images] if reading.images else _folders(path), reading)


def finder_in(folders: Sequence[str | os.PathLike], reading: Reading) -> PictureFinder:
    """Looks for pictures in these folders, and in what else is to be looked into."""
    return PictureFinder([*folders, *([reading.further] if reading.further else [])],
                         reading.passed_over)


def tell_guesses(finder: PictureFinder, where: Path, account: Account) -> None:
    """Count the pictures that were found otherwise than as they were written."""
    for how, count in finder.guessed.items():
        account.decide(f'picture not where its record says, found {how}', str(where), count)


def stated_size(height, width) -> tuple[int, int] | None:
    """(h, w) of a picture as its annotations state it; None where that is no size."""
    size = read_whole(height), read_whole(width)
    sensible = None not in size and min(size) > 0 and size[0] * size[1] <= MAX_PIXELS
    return size if sensible else None


def _folders(path: Path) -> list[Path]:
    """Where the pictures of a file of annotations are, as tools lay them out."""
    here = Path(os.path.abspath(path)).parent
    above = here.parent
    subset = path.stem.split('_', 1)[-1]  # instances_val2017, instances_default (CVAT)
    folders = [here / 'images' / subset, above / 'images' / subset, above / subset,
               here / 'images', above / 'images']
    folders = [folder for folder in folders if folder.is_dir()]
    inner = here.name.lower() in ('annotations', 'annotation', 'labels', 'json')
    return [*folders, here, *([above] if inner else [])]


# --- expressions -------------------------------------------------------------------------------
def texts_of(value, where: str, account: Account) -> list[str]:
    """Clean expressions of a text, a list of texts, or a list of records; each once."""
    found: dict[str, None] = {}
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            one = next((one[key] for key in _RECORD_KEYS if key in one), None)
        account.read['expression'] += 1
        text = clean_text(one, MAX_EXPRESSION + 1) if isinstance(one, str) else ''
        if not text:
            account.leave('expression', 'expression empty or no text', f'{where}: {shown(one)}')
        elif len(text) > MAX_EXPRESSION:
            account.leave('expression', f'expression of more than {MAX_EXPRESSION} characters',
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
