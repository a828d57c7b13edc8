"""COCO's instance files as tools really write them: the one reader of their records.

What has one meaning is read: ids as ``3``, ``3.0`` or ``"3"``, numbers as text, one flat polygon,
polygons as pairs or in a list too many, counts as ``str(bytes)``. What has none is a
:class:`Fault` that names the record and says what was expected. Nothing is decoded, and nothing is
decided: a strict loader makes a fault an error, a lenient one counts it by its kind.
"""
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .pictures import MAX_PIXELS, MAX_SIDE
from .shapes import corners, flat, turned_by
from .texts import is_blank, shown

# Kinds of faults, as reports count them.
IMAGE_NO_RECORD = 'image that is no record'
IMAGE_ID = 'image without a usable id'
IMAGE_TWICE = 'image id used twice'
IMAGE_FILE = 'image without a usable file_name'
IMAGE_SIZE = 'image without a usable size'
ANNOTATION_NO_RECORD = 'annotation that is no record'
ANNOTATION_ID = 'annotation without a usable id'
ANNOTATION_TWICE = 'annotation id used twice'
ANNOTATION_IMAGE = 'annotation without a usable image_id'
UNKNOWN_IMAGE = 'annotation of an unknown image'
ANNOTATION_CATEGORY = 'annotation without a usable category_id'
UNKNOWN_CATEGORY = 'annotation of an unknown category'
NO_SEGMENTATION = 'annotation without a segmentation'
SEGMENTATION = 'broken segmentation'
BOX = 'broken bbox'
CROWD = 'iscrowd that is neither 0 nor 1'
AREA = 'broken area'
CATEGORIES = 'no list of categories'
CATEGORY = 'category without a usable id or name'
CATEGORY_TWICE = 'category id used twice'

_PLAIN = {int, float}
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?', re.ASCII)
_WHOLE = re.compile(r'0|-?[1-9]\d{0,39}', re.ASCII)
_FLAGS = {'0': False, '1': True, 'false': False, 'true': True}


@dataclass(slots=True)
class Fault:
    """What is wrong with a record.

    Attributes:
        kind: one of this module's constants.
        where: names the record.
        message: what was found, and what was expected.
        record: the :class:`CocoImage` or :class:`CocoAnnotation`; None where there is none.
    """
    kind: str
    where: str
    message: str
    record: object = None

    def __str__(self) -> str:
        return f'{self.where}: {self.message}'


@dataclass(slots=True)
class CocoImage:
    """One image.

    Attributes:
        row: its place in the list.
        id: whole number or text; None where it has no usable one.
        file_name: as it is written; '' where it has no usable one.
        height, width: pixels; None where they are not said, or are none.
        record: the record as it is in the file.
        faults: what is wrong with it.
    """
    row: int
    id: int | str | None
    file_name: str
    height: int | None
    width: int | None
    record: dict
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class CocoAnnotation:
    """One annotation.

    Attributes:
        row: its place in the list.
        id, image_id, category_id: whole number or text; None where there is no usable one.
        segmentation: flat polygons ``[[x1, y1, ...], ...]``, an RLE ``dict(size=[h, w], counts)``
            with counts as list or text, or a list of RLEs; None where it has none. Neither
            decoded nor compared with the image.
        bbox: x, y, width, height; None where there is none.
        crowd: whether it stands for a group.
        area: pixels; None where it is not said.
        record: the record as it is in the file.
        faults: what is wrong with it.
    """
    row: int
    id: int | str | None
    image_id: int | str | None
    category_id: int | str | None
    segmentation: list | dict | None
    bbox: list[float] | None
    crowd: bool
    area: float | None
    record: dict
    faults: tuple[Fault, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of('annotation', self.row, self.id)


@dataclass
class CocoTables:
    """What a file holds.

    Attributes:
        images, annotations: all that are records, in the file's order, faulty ones too.
        categories: names by id.
        faults: all of them, in the order of categories, images, annotations.
    """
    images: list[CocoImage] = field(default_factory=list)
    annotations: list[CocoAnnotation] = field(default_factory=list)
    categories: dict[int | str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def is_coco(content) -> bool:
    """Whether the content of a JSON file is a set of COCO's."""
    return isinstance(content, dict) and all(isinstance(content.get(table), list)
                                             for table in ('images', 'annotations'))


def read_coco(content, where: str, categories: bool = True) -> CocoTables:
    """Records of a COCO file; takes time by their number.

    Args:
        content: of its JSON. It is not changed, but parts of it are in the result.
        where: names the file in messages.
        categories: whether its annotations need categories.

    Raises:
        ValueError: it has no lists of images and annotations.
    """
    if not is_coco(content):
        found = shown(sorted(map(str, content))) if isinstance(content, dict) else \
            type(content).__name__
        raise ValueError(f"{where} is no COCO file: it needs the lists 'images' and "
                         f"'annotations', it holds {found}")
    tables = CocoTables()
    if categories:
        _read_categories(content.get('categories'), where, tables)
    known = _read_images(content['images'], where, tables)
    _read_annotations(content['annotations'], where, categories, known, tables)
    return tables


def read_id(value) -> int | str | None:
    """An id by its text: ``3``, ``3.0`` and ``"3"`` are 3, ``"003"`` and ``"a_1"`` are texts.

    None for what is no id: null, truth values, fractions, lists, blanks.
    """
    if type(value) is int:
        return value if value.bit_length() <= 128 else None
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 and value.is_integer() else None
    if isinstance(value, str):
        value = value.strip()
        return int(value) if _WHOLE.fullmatch(value) else value or None
    return None


def read_number(value) -> float | int | None:
    """A finite number, also as text; None for everything else."""
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value := value.strip()) else None
    if type(value) not in _PLAIN:
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond what a float holds
        return None


def read_whole(value) -> int | None:
    """A whole number, also as text or with a fraction of 0; None for everything else."""
    value = read_number(value)
    return None if value is None or value != int(value) else int(value)


def read_segmentation(value) -> tuple[list | dict | None, str | None]:
    """A segmentation in the form of :class:`CocoAnnotation`, and what is wrong with it, or None.

    A part with too few or an odd number of coordinates is left as it is.
    """
    if isinstance(value, dict):
        return _read_rle(value)
    if not isinstance(value, list):
        return None, (f'segmentation is {shown(value)}; polygons [[x1, y1, x2, y2, ...], ...], or '
                      "an RLE {'size': [h, w], 'counts': ...}")
    if all(type(part) is list and len(part) > 2 and _are_plain(part) for part in value):
        return value, None  # as COCO's are
    if all(isinstance(part, dict) for part in value):
        rles = []
        for part in value:
            rle, fault = _read_rle(part)
            if fault is not None:
                return None, fault
            rles.append(rle)
        return rles, None
    return _read_polygons(value)


def box_corners(row: CocoAnnotation) -> list[float]:
    """Corners of a box, turned by CVAT's ``rotation``: degrees, clockwise, about its centre."""
    x, y, width, height = row.bbox
    said = row.record.get('attributes')
    angle = read_number(said.get('rotation')) if isinstance(said, dict) else None
    return flat(turned_by(corners(x, y, x + width, y + height),
                          (x + width / 2, y + height / 2), angle or 0))


# --- polygons and RLEs -------------------------------------------------------------------------
def _read_polygons(value: list) -> tuple[list | None, str | None]:
    if not isinstance(value[0], list) or (len(value) >= 3 and _are_pairs(value)):
        value = [value]  # one polygon, not in a list of its own
    while len(value) == 1 and isinstance(value[0], list) and any(
            isinstance(part, list) and (len(part) >= 6 or (part and isinstance(part[0], list)))
            for part in value[0]):
        value = value[0]  # in a list too many
    polygons = []
    for number, part in enumerate(value):
        if isinstance(part, list) and len(part) == 1 and isinstance(part[0], list):
            part = part[0]  # each in a list too many
        if not isinstance(part, list):
            return None, f'part {number} is {shown(part)}; a polygon [x1, y1, x2, y2, ...]'
        if _are_pairs(part):
            part = [coordinate for pair in part for coordinate in pair]
        numbers = _finite(part)
        if numbers is None:
            place = next(k for k, one in enumerate(part) if read_number(one) is None)
            return None, (f'polygon {number}, coordinate {place} is {shown(part[place])}, no '
                          'finite number')
        polygons.append(numbers)
    return polygons, None


def _are_pairs(part) -> bool:
    return isinstance(part, list) and bool(part) and all(
        isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list)
        for pair in part)


def _finite(part: list) -> list | None:
    """Numbers of a list, the same list where they are plain; None where one is none."""
    if _are_plain(part):
        return part
    numbers = [read_number(one) for one in part]
    return None if None in numbers else numbers


def _are_plain(part: list) -> bool:
    """Whether all of a list are finite numbers."""
    try:
        return _PLAIN.issuperset(map(type, part)) and math.isfinite(math.fsum(part))
    except (OverflowError, ValueError):
        return False


def _read_rle(rle: dict) -> tuple[dict | None, str | None]:
    size, counts = rle.get('size'), rle.get('counts')
    sides = [read_whole(one) for one in size] if isinstance(size, list) else []
    if len(sides) != 2 or not all(side is not None and side > 0 for side in sides):
        return None, f'RLE size {shown(size)}; [height, width] in pixels'
    if isinstance(counts, bytes):
        counts = counts.decode('latin-1')
    if isinstance(counts, str):
        if counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1] and len(counts) > 2:
            counts = counts[2:-1].replace('\\\\', '\\')  # str(bytes)
    elif isinstance(counts, list):
        if not {*map(type, counts)} <= {int}:
            runs = [read_whole(one) for one in counts]
            if None in runs:
                place = runs.index(None)
                return None, f'RLE count {place} is {shown(counts[place])}; a whole number'
            counts = runs
        if counts and not 0 <= min(counts) <= max(counts) <= MAX_PIXELS:
            return None, f'RLE counts from {shown(min(counts))} to {shown(max(counts))}; pixels'
    else:
        return None, f'RLE counts {shown(counts)}; a list of numbers or a text'
    if not counts:
        return None, 'RLE without counts'
    return dict(size=sides, counts=counts), None


# --- tables ------------------------------------------------------------------------------------
def name_of(table: str, row: int, record_id) -> str:
    """What messages call a record: by its id, else by its row."""
    return f'{table} {record_id!r}' if record_id is not None else f'{table} in row {row}'


def _read_categories(rows, where: str, tables: CocoTables) -> None:
    if not isinstance(rows, list):
        tables.faults.append(Fault(CATEGORIES, where, f"categories is {shown(rows)}; a list of "
                                   "records with 'id' and 'name'"))
        return
    places: dict[int | str, int] = {}
    for row, record in enumerate(rows):
        key = read_id(record.get('id')) if isinstance(record, dict) else None
        name = _text(record.get('name')) if isinstance(record, dict) else None
        place = f'{where}, {name_of("category", row, key)}'
        if key is None or name is None:
            tables.faults.append(Fault(CATEGORY, place, f"it is {shown(record)}; a record with "
                                       "'id' and 'name'"))
        elif key in places:
            tables.faults.append(Fault(
                CATEGORY_TWICE, place, f'its id is used twice, in row {places[key]} '
                f'({tables.categories[key]!r:.60}) and in row {row} ({name!r:.60}); every '
                'category needs its own'))
        else:
            places[key], tables.categories[key] = row, name


def _text(name) -> str | None:
    """A name; numbers as text."""
    if type(name) in _PLAIN and (number := read_number(name)) is not None:
        whole = read_id(number)
        return str(number if whole is None else whole)
    return name if isinstance(name, str) and not is_blank(name) else None


def _read_images(rows: list, where: str, tables: CocoTables) -> dict:
    """Adds images to the tables; gives the first image of each id."""
    known: dict[int | str, CocoImage] = {}
    for row, record in enumerate(rows):
        if not isinstance(record, dict):
            tables.faults.append(Fault(IMAGE_NO_RECORD, f'{where}, image in row {row}',
                                       f'it is {shown(record)}; a record'))
            continue
        key, name = read_id(record.get('id')), record.get('file_name')
        height, width = _size(record.get('height'), record.get('width'))
        faults = []
        if not isinstance(name, str) or not name.strip() or '\0' in name:
            faults.append((IMAGE_FILE, f'file_name is {shown(name)}; the name of a file'))
            name = ''
        image = CocoImage(row, key, name, height, width, record)
        tables.images.append(image)
        if key is None:
            faults.append((IMAGE_ID, f'id is {shown(record.get("id"))}; a whole number or a text'))
        elif key in known:
            first = known[key]
            faults.append((IMAGE_TWICE, f'its id is used twice, in row {first.row} '
                           f'({shown(first.file_name)}) and in row {row} ({shown(name)}); every '
                           'image needs its own'))
        else:
            known[key] = image
        if height is None:
            faults.append((IMAGE_SIZE, f'height and width are {shown(record.get("height"))} and '
                           f'{shown(record.get("width"))}; pixels, at most {MAX_SIDE} a side and '
                           f'{MAX_PIXELS / 1e6:g} million in all'))
        if faults:
            _add(tables, f'{where}, {name_of("image", row, key)}', image, faults)
    return known


def _size(height, width) -> tuple[int, int] | tuple[None, None]:
    height, width = read_whole(height), read_whole(width)
    if height is None or width is None or not (
            0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        return None, None
    return height, width


def _read_annotations(rows: list, where: str, categories: bool, images: dict,
                      tables: CocoTables) -> None:
    known: dict[int | str, CocoAnnotation] = {}
    for row, record in enumerate(rows):
        if not isinstance(record, dict):
            tables.faults.append(Fault(ANNOTATION_NO_RECORD, f'{where}, annotation in row {row}',
                                       f'it is {shown(record)}; a record'))
            continue
        key, image_id = read_id(record.get('id')), read_id(record.get('image_id'))
        faults = []
        category = read_id(record.get('category_id'))
        segmentation = record.get('segmentation')
        if _is_nothing(segmentation) or segmentation == [[]]:
            faults.append((NO_SEGMENTATION, 'empty or unknown segmentation '
                           f'{shown(segmentation)}; polygons or an RLE'))
            segmentation = None
        else:
            segmentation, fault = read_segmentation(segmentation)
            if fault is not None:
                faults.append((SEGMENTATION, fault))
        bbox, fault = _box(record.get('bbox'))
        if fault is not None:
            faults.append((BOX, fault))
        crowd = _flag(record.get('iscrowd'))
        if crowd is None:
            faults.append((CROWD, f'iscrowd is {shown(record["iscrowd"])}; 0 or 1'))
        area = record.get('area')
        if _is_nothing(area):
            area = None
        elif (area := read_number(area)) is None or area < 0:
            faults.append((AREA, f'area is {shown(record["area"])}; a number of pixels'))
            area = None
        found = CocoAnnotation(row, key, image_id, category, segmentation, bbox, bool(crowd), area,
                               record)
        tables.annotations.append(found)
        if key is None:
            faults.append((ANNOTATION_ID, f'id is {shown(record.get("id"))}; a whole number or a '
                           'text'))
        elif key in known:
            faults.append((ANNOTATION_TWICE, f'its id is used twice, in row {known[key].row} and '
                           f'in row {row}; every annotation needs its own'))
        else:
            known[key] = found
        if image_id is None:
            faults.append((ANNOTATION_IMAGE, f'image_id is {shown(record.get("image_id"))}; the '
                           'id of an image'))
        elif image_id not in images:
            faults.append((UNKNOWN_IMAGE, f'it is of the unknown image {image_id!r}'))
        if categories and category not in tables.categories:
            faults.append((ANNOTATION_CATEGORY, f'category_id is '
                           f'{shown(record.get("category_id"))}; the id of a category')
                          if category is None else
                          (UNKNOWN_CATEGORY, f'it has the unknown category_id {category!r}'))
        if faults:
            _add(tables, f'{where}, {found.name}', found, faults)


def _add(tables: CocoTables, where: str, record, faults: Sequence[tuple[str, str]]) -> None:
    record.faults = tuple(Fault(kind, where, message, record) for kind, message in faults)
    tables.faults += record.faults


def _box(bbox) -> tuple[list | None, str | None]:
    """x, y, width, height, or None where there is no box; and what is wrong with it, or None."""
    while isinstance(bbox, list) and len(bbox) == 1:
        bbox = bbox[0]
    if _is_nothing(bbox):
        return None, None
    numbers = _finite(bbox) if isinstance(bbox, list) and len(bbox) == 4 else None
    if numbers is None:
        return None, f'bbox is {shown(bbox)}; x, y, width and height in pixels'
    return numbers, None


def _flag(value) -> bool | None:
    if value in (0, 1):
        return bool(value)
    if _is_nothing(value):
        return False
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


def _is_nothing(value) -> bool:
    """Whether a value says that there is none: null, NaN as pandas writes it, nothing in it."""
    return value is None or value != value or value in ('', [], {})

