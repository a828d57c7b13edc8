"""Objects of the page beside what a file of annotations holds of them.

A file is kept as it is but for what was changed: an object that comes back as it was read leaves
its records alone. What a format cannot hold stands under a key of our own, with a digest of the
outline that was written beside it: where that is another one now, another program drew it, and
what was said of the old one is passed over.
"""
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..export.corrections import ACTIONS
from ..export.rings import keyhole
from ..files import is_blank
from ..files.labelme import Crop
from ..files.pictures import turn_points, turn_points_back
from ..polygon import mask_to_parts, rle_to_crop, segmentation_to_rle
from ..polygon.raster import MAX_COORDINATE
from .outlines import checked_review, checked_rings, checked_share, directed

OWN = 'simpleseg'  # the key
# Of one picture; a request has 500,000 values at most. Our choice.
MAX_FOLDER_OBJECTS, MAX_FOLDER_VERTICES, _MAX_LABEL = 10_000, 150_000, 100_000
_MAX_ID = 1000  # characters
_NONE_DONE = dict.fromkeys(ACTIONS, 0)
_DEFAULTS = dict(score=None, agreement=None, edited=False, hidden=False, locked=False, color=None,
                 origin=None, actions=_NONE_DONE)
EVIDENCE = ('score', 'agreement')
_PLACED = ('id', 'label', 'polygons', *EVIDENCE)  # what has a place of its own in files


@dataclass(frozen=True)
class Frame:
    """A picture, and which way its annotations mean it.

    Attributes:
        size: (h, w) of the picture upright, as the page shows it.
        tag: EXIF orientation of which the annotations take no notice; 1 where they are of the
            upright picture.
    """
    size: tuple[int, int]
    tag: int = 1

    @property
    def file_size(self) -> tuple[int, int]:
        """(h, w) of the picture as the annotations mean it."""
        return self.size[::-1] if self.tag >= 5 else self.size

    def upright(self, ring) -> list:
        """A ring of the file for the page."""
        return _pairs(turn_points(np.reshape(ring, (-1, 2)), self.size, self.tag))

    def as_filed(self, ring) -> list:
        """A ring of the page for the file."""
        return _pairs(turn_points_back(np.reshape(ring, (-1, 2)), self.size, self.tag))

    def turned(self, polygon: dict, back: bool = False) -> dict:
        """A polygon ``dict(outer, holes, spread)`` of the file for the page, or back."""
        turn = self.as_filed if back else self.upright
        return dict(polygon, outer=turn(polygon['outer']),
                    holes=[turn(hole) for hole in polygon['holes']])

    def outlines(self, part) -> list[dict]:
        """Polygons of a part as files hold it: a flat polygon, an RLE or a :class:`Crop`.

        Raises:
            ValueError: it is broken, of another size, or has too many pieces.
        """
        if isinstance(part, list):
            ring = np.asarray(part, np.float64)
            if len(ring) % 2 or len(ring) < 6 or not (np.abs(ring) <= MAX_COORDINATE).all():
                raise ValueError('an outline of fewer than 3 points, or far outside the picture')
            return [dict(outer=_open(self.upright(ring)), holes=[])]
        if isinstance(part, Crop):
            mask, (x, y) = part.read(self.file_size), (part.x, part.y)
        else:
            mask, (x, y) = rle_to_crop(segmentation_to_rle(part, *self.file_size))
        del part
        return [dict(outer=self.upright(one.outer + (x, y)),
                     holes=[self.upright(hole + (x, y)) for hole in one.holes])
                for one in mask_to_parts(mask)]


@dataclass
class Held:
    """An object as a file holds it.

    Attributes:
        object: as the page gets it.
        records: numbers of the records that outline it.
        sources: for each polygon the one of them that it is of.
        beside: numbers of records that go where the object goes, such as its box.
        foreign: whether another program has drawn it anew since we wrote it.
        derived: whether its id is not in the file, but made of what it is.
    """
    object: dict
    records: list[int]
    sources: list[int]
    beside: list[int] = field(default_factory=list)
    foreign: bool = False
    derived: bool = False


@dataclass
class Document:
    """What a file holds of a picture.

    Attributes:
        held: its objects.
        own: what stands under our key for the picture: done, rejected, digest and others.
        frame: the picture.
        notes: what is to be told, a line each.
    """
    held: list[Held]
    own: dict
    frame: Frame
    notes: list[str] = field(default_factory=list)


@dataclass
class Sent:
    """What the page has for a picture.

    Attributes:
        objects: checked ones.
        own: done, rejected, digest, and what else is to be kept for the picture.
    """
    objects: list[dict]
    own: dict


# --- what is sent ------------------------------------------------------------------------------
def read_given(body: dict) -> Sent:
    """The document of a request.

    Raises:
        ValueError: it is of another form, or more than the limits, in one line.
    """
    items = body.get('objects')
    if not isinstance(items, list) or len(items) > MAX_FOLDER_OBJECTS:
        raise ValueError(f'`objects` is a list of at most {MAX_FOLDER_OBJECTS:,} objects; cut the '
                         'picture into tiles for more')
    objects, ids = [], set()
    for number, item in enumerate(items):
        objects.append(_object(item, f'object {number}'))
        if objects[-1]['id'] in ids:
            raise ValueError(f'object {number}: its id is that of another one')
        ids.add(objects[-1]['id'])
    check_count(objects)
    own = {key: value for key, value in body.items() if key not in (
        'objects', 'revision', 'force', 'key', 'name', 'path', 'width', 'height')}
    checked_review(own)
    if not isinstance(own.get('digest') or '', str) or len(own.get('digest') or '') > 100:
        raise ValueError('`digest` is that of the picture, as /api/pictures gives it')
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise ValueError('a number of the document is not finite') from None
    return Sent(objects, own)


def check_count(objects: Iterable[dict]) -> None:
    """Refuse more vertices than are edited in one picture. Raises ValueError."""
    count = sum(len(ring) for one in objects for polygon in one['polygons']
                for ring in (polygon['outer'], *polygon['holes']))
    if count > MAX_FOLDER_VERTICES:
        raise ValueError(f'the outlines have {count:,} vertices; at most {MAX_FOLDER_VERTICES:,} '
                         'of one picture are edited here. Cut it into tiles')


def _object(item, where: str) -> dict:
    if not isinstance(item, dict) or not isinstance(item.get('polygons'), list):
        raise ValueError(f'{where}: give dict(id, label, polygons)')
    if not item['polygons']:
        raise ValueError(f'{where} has no outline: delete it')
    key, label = item.get('id') or secrets.token_hex(8), item.get('label', 'object')
    for name, value, most in (('id', key, _MAX_ID), ('label', label, _MAX_LABEL)):
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(f'{where}: `{name}` is a text of at most {most:,} characters')
    for name in EVIDENCE:
        checked_share(item, name, where)
    return dict(item, id=key, label=label,
                polygons=[_polygon(one, where) for one in item['polygons']])


def _polygon(value, where: str) -> dict:
    checked_rings(value, where)
    return {key: one for key, one in value.items() if one is not None} | dict(
        outer=value['outer'], holes=value.get('holes', []))


# --- comparing ---------------------------------------------------------------------------------
def is_same_object(held: dict, given: dict) -> bool:
    """Whether an object came back as it was read. The page gives a colour to what has none."""
    keys = (held.keys() | given.keys()) - {'id', 'polygons'}
    if held.get('color') is None:
        keys.discard('color')
    return (len(held['polygons']) == len(given['polygons'])
            and all(_value(held, key) == _value(given, key) for key in keys)
            and all(key_of_polygon(one) == key_of_polygon(other)
                    for one, other in zip(held['polygons'], given['polygons'])))


def key_of_polygon(polygon: dict) -> tuple:
    """By which polygons are the same: their points to a ten-thousandth of a pixel."""
    return (*((np.round(np.asarray(ring, np.float64), 4) + 0.0).tobytes()
              for ring in (polygon['outer'], *polygon['holes'])),
            json.dumps(_floats(polygon.get('spread') or None)))


def is_same_document(document: Document, given: Sent, matched: dict) -> bool:
    """Whether nothing at all is to be written."""
    held = {id(one) for one in matched.values() if one is not None}
    return (len(held) == len(document.held) == len(given.objects)
            and all(is_same_object(one.object, given.objects[number])
                    for number, one in matched.items())
            and all(value == document.own.get(key, dict(done=False, rejected=[]).get(key))
                    for key, value in given.own.items() if key != 'digest')
            and document.own.get('digest') in (None, given.own.get('digest')))


def _value(item: dict, key: str):
    value = item.get(key)
    if key == 'actions' and isinstance(value, dict):
        return {**_NONE_DONE, **value}
    return _DEFAULTS.get(key) if value is None else value


def match(document: Document, objects: Sequence[dict]) -> dict[int, Held | None]:
    """For each object of the page the one of the file that it was.

    Ids that were derived count those that are alike: where one of these was deleted, they count
    from 0 again, while the page still has the old ones. These are matched in their order.
    """
    held = {one.object['id']: one for one in document.held}
    found: dict[int, Held | None] = {}
    alike: dict[str, list[int]] = {}
    for number, one in enumerate(objects):
        same = held.get(one['id'])
        if same is None or same.derived:
            alike.setdefault(one['id'].rpartition('.')[0], []).append(number)
        found[number] = None if same is None or same.derived else same
    for base, numbers in alike.items():
        exact = [held.get(objects[number]['id']) for number in numbers]
        if None in exact and base:
            exact = [one for one in document.held
                     if one.derived and one.object['id'].rpartition('.')[0] == base]
        found |= dict(zip(numbers, exact))
    return found


def give_ids(held: Sequence[Held], base: Callable[[Held], str]) -> None:
    """An id to each object that has none yet, from what it is; one that two have stays with the
    object that is as we wrote it.

    Args:
        base: of an object -> what is the same for all that are alike.
    """
    taken: set[str] = set()
    for one in sorted(held, key=lambda one: one.foreign):
        key = one.object['id']
        one.derived = not isinstance(key, str) or not 0 < len(key) <= _MAX_ID or key in taken
        if not one.derived:
            taken.add(key)
    counts: Counter[str] = Counter()
    for one in held:
        if one.derived:
            start = base(one)
            while (key := f'{start}.{counts[start]}') in taken:
                counts[start] += 1
            one.object['id'] = key
            taken.add(key)


# --- what is written ---------------------------------------------------------------------------
def own_of(record) -> dict:
    """What stands under our key in a record; nothing where that is none of ours."""
    own = record.get(OWN) if isinstance(record, dict) else None
    return own if isinstance(own, dict) else {}


def fill_evidence(record: dict, held: Held | None, item: dict) -> None:
    """Write how sure an object is; what a file says of it that is no share of 1 stays."""
    for key in EVIDENCE:
        if item.get(key) is not None:
            record[key] = item[key]
        elif held is None or held.foreign or held.object.get(key) is not None:
            record.pop(key, None)


def kept_apart(item: dict) -> dict:
    """What an object has that no format has a place for."""
    return {key: value for key, value in item.items()
            if key not in _PLACED and _value(item, key) != _DEFAULTS.get(key)}


def shown_object(fields: dict) -> dict:
    """An object for the page: with all that one has, and nothing that JSON cannot say."""
    actions = fields.get('actions')
    defaults = {key: value for key, value in _DEFAULTS.items() if key != 'color'}
    return sendable({**defaults, **fields, 'actions': {
        **_NONE_DONE, **(actions if isinstance(actions, dict) else {})}})


def shown_polygon(value, frame: Frame) -> dict | None:
    """A polygon that we wrote into a file, for the page; None where it is broken."""
    try:
        return frame.turned(_polygon(value, ''))
    except (ValueError, TypeError):
        return None


def written_label(label: str) -> str:
    """A label as every reader takes it: one that shows."""
    return 'object' if is_blank(label) else label


def known_share(value) -> float | None:
    """A score or an agreement as files hold it."""
    return value if type(value) in (int, float) and 0 <= value <= 1 else None


def digest_of_outline(*values) -> str:
    """By which an outline that we wrote is known again; whole numbers are as good as ``3.0``."""
    return hashlib.sha256(json.dumps(_floats(values)).encode()).hexdigest()[:16]


def cut_open(polygon: dict) -> list:
    """A polygon as one ring, its holes cut open; as it is where it has none."""
    if not polygon['holes']:
        return polygon['outer']
    return _pairs(keyhole(directed(np.asarray(polygon['outer'], np.float64), -1),
                          [directed(np.asarray(hole, np.float64), 1)
                           for hole in polygon['holes']]))


def sendable(value):
    """A value as JSON can say it: halves of characters become U+FFFD, what is no number null."""
    if isinstance(value, str):
        return value.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {sendable(key): sendable(one) for key, one in value.items()}
    return [sendable(one) for one in value] if isinstance(value, list) else value


def _floats(value):
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return value
    return [_floats(one) for one in value] if isinstance(value, (list, tuple)) else value


def _pairs(points: np.ndarray) -> list:
    """Points as JSON; whole numbers without a fraction."""
    return [[int(x) if x.is_integer() else x, int(y) if y.is_integer() else y]
            for x, y in points.tolist()]


def _open(ring: list) -> list:
    """Without the first point again at the end."""
    return ring[:-1] if len(ring) > 3 and ring[0] == ring[-1] else ring
