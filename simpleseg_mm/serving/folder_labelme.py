"""LabelMe's files beside pictures, as objects of the page and back.

A polygon is a shape, and shapes of one label and ``group_id`` are an object. LabelMe's polygons
have no holes: they are cut open, and kept whole under our key, as LabelMe keeps what it does not
know.
"""
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..files import is_blank
from ..files.labelme import RECTANGLES, Crop, is_labelme, outline_of, shape_type_of
from ..files.orientation import way_of_outlines, way_of_size
from ..files.pictures import MAX_PIXELS
from .folder_objects import (EVIDENCE, MAX_FOLDER_OBJECTS, OWN, Document, Frame, Held, Sent,
                             check_count, cut_open, digest_of_outline, fill_evidence, give_ids,
                             is_same_document, is_same_object, kept_apart, key_of_polygon,
                             known_share, match, own_of, shown_object, shown_polygon,
                             written_label)

_VERSION = '5.4.1'  # whose files ours are


def groups_of(shapes: list) -> list[tuple[list[int], list[int]]]:
    """Numbers of the shapes that make up each object, and of the rectangles beside them.

    Shapes without an area and broken ones are among none.
    """
    groups: dict = {}
    for number, shape in enumerate(shapes):
        if isinstance(shape, dict) and outline_of(shape)[0] is not None:
            groups.setdefault(_key(shape) or number, []).append(number)
    found = []
    for members in groups.values():
        drawn = [one for one in members if shape_type_of(shapes[one]) not in RECTANGLES]
        beside = [one for one in members if shape_type_of(shapes[one]) in RECTANGLES]
        found.append((drawn, beside) if drawn else (beside, []))
    return found


def frame_of(content, size: tuple[int, int], tag: int) -> Frame:
    """The picture as a file means it: upright, as LabelMe shows it, unless its outlines, or else
    the size that it states, fit the stored picture alone."""
    frame = Frame(size)
    if tag == 1 or not is_labelme(content):
        return frame
    stored = Frame(size, tag).file_size
    parts = [outline_of(shape)[0] for shape in content['shapes'] if isinstance(shape, dict)]
    way = way_of_outlines(parts, stored, tag) or way_of_size(_size(content), stored, tag)
    return Frame(size, tag) if way == 'stored' else frame


def read_document(content, size: tuple[int, int], tag: int = 1) -> Document:
    """What the content of a file holds of its picture; of None, nothing.

    Args:
        size: (h, w) of the picture upright.
        tag: its EXIF orientation.

    Raises:
        ValueError: it is not LabelMe's, or holds more than is edited.
    """
    frame = frame_of(content, size, tag)
    if content is None:
        return Document([], {}, frame)
    if not is_labelme(content):
        raise ValueError("it is no file of LabelMe's: it has no list `shapes`")
    if content.get(OWN) is not None and not isinstance(content[OWN], dict):
        raise ValueError(f'its key {OWN!r} holds something of another program')
    shapes, groups = content['shapes'], groups_of(content['shapes'])
    if len(groups) > MAX_FOLDER_OBJECTS:
        raise ValueError(f'it holds {len(groups):,} objects; at most {MAX_FOLDER_OBJECTS:,} are '
                         'edited here')
    document, faults = Document([], own_of(content), frame), []
    for drawn, beside in groups:
        polygons, sources, records, foreign = [], [], [], False
        for number in drawn:
            try:
                found, redrawn = _polygons(shapes[number], frame)
            except ValueError as error:
                faults.append(f'shape {number}: {error}')
                continue
            foreign |= redrawn
            polygons += found
            sources += [number] * len(found)
            records.append(number)
        if not polygons:
            continue
        document.held.append(_held(shapes, records, polygons, sources, beside, foreign))
    check_count(one.object for one in document.held)
    give_ids(document.held, lambda one: digest_of_outline(
        one.object['label'], *(_digest(shapes[number]) for number in one.records)))
    seen = {number for drawn, beside in groups for number in (*drawn, *beside)}
    faults += [f'shape {number}: ' + (outline_of(shape)[1] if isinstance(shape, dict) else
                                      'it is no record')
               for number, shape in enumerate(shapes) if number not in seen]
    _tell(document, content, faults)
    return document


def merge_document(content, document: Document, given: Sent, name: str) -> dict | None:
    """The content of the file once it holds what the page gives; None where it does already.

    Args:
        content: of the file; None where there is none yet.
        document: what was read of it.
        name: of the picture's file.
    """
    matched = match(document, given.objects)
    if content is not None and is_same_document(document, given, matched):
        return None
    frame = document.frame
    height, width = frame.file_size
    content = dict(version=_VERSION, flags={}, shapes=[], imagePath=name, imageData=None,
                   imageHeight=height, imageWidth=width) if content is None else dict(content)
    if not content.get('imageData') and _size(content) != (height, width):
        content |= dict(imageHeight=height, imageWidth=width)  # else LabelMe does not open it
    content['shapes'] = _merged_shapes(content['shapes'], document, given.objects, matched)
    content[OWN] = {**document.own, **given.own}
    return content


# --- reading -----------------------------------------------------------------------------------
def _key(shape: dict) -> tuple | None:
    """By which shapes are of one object; None where one is by itself."""
    group = shape.get('group_id')
    return None if group in (None, '') else (_label(shape).strip(), str(group))


def _label(shape: dict) -> str:
    label = shape.get('label')
    return '' if label is None else str(label)


def _size(content: dict) -> tuple | None:
    return content.get('imageHeight'), content.get('imageWidth')


def _polygons(shape: dict, frame: Frame) -> tuple[list[dict], bool]:
    """Of a shape, and whether another program has drawn it anew since we wrote it."""
    own = own_of(shape)
    redrawn = 'written' in own and own['written'] != _digest(shape)
    if not redrawn and 'polygon' in own:
        polygon = shown_polygon(own['polygon'], frame)
        if polygon is not None:
            return [polygon], False
    return frame.outlines(outline_of(shape)[0]), redrawn


def _held(shapes: list, records: list[int], polygons: list[dict], sources: list[int],
          beside: list[int], foreign: bool) -> Held:
    owns = [own_of(shapes[number]) for number in records]
    first = owns[0]
    ours = 'id' in first
    foreign |= ours and (len(owns) != first.get('of') or any(
        own.get('id') != first['id'] for own in owns))
    kept = next((own['object'] for own in owns if isinstance(own.get('object'), dict)), {})
    label = _label(shapes[records[0]])
    if isinstance(first.get('label'), str) and label == written_label(first['label']):
        label = first['label']
    fields = dict(kept, id=first['id'] if ours else '', label=label, polygons=polygons)
    fields |= {key: None if foreign else known_share(shapes[records[0]].get(key))
               for key in EVIDENCE}
    if foreign:
        fields['edited'] = True
    return Held(shown_object(fields), records, sources, beside, foreign)


def _tell(document: Document, content: dict, faults: list[str]) -> None:
    notes = document.notes
    redrawn = sum(one.foreign for one in document.held)
    if redrawn:
        notes.append(f'{redrawn} objects were drawn anew by another program: they are as it drew '
                     'them, without what was known of them, such as holes and scores')
    if faults:
        notes.append(f'{len(faults)} shapes are not shown and stay as they are: '
                     + '; '.join(faults[:3]))
    frame, said = document.frame, _size(content)
    if frame.tag != 1:
        notes.append('the outlines are of the picture as it is stored; they are shown upright, as '
                     'EXIF says')
    elif said not in (frame.size, (None, None)) and not document.own.get('digest'):
        notes.append(f'the annotations say {said[1]} x {said[0]} pixels, the picture has '
                     f'{frame.size[1]} x {frame.size[0]}: see whether the outlines fit')


# --- writing -----------------------------------------------------------------------------------
def _digest(shape: dict) -> str:
    mask = shape.get('mask') or ''
    try:  # LabelMe packs the same pixels otherwise
        pixels = Crop(mask, 0, 0).pixels(MAX_PIXELS) if mask else None
        mask = '' if pixels is None else f'{pixels.shape} {np.packbits(pixels).tobytes().hex()}'
    except ValueError:
        pass
    return digest_of_outline(shape_type_of(shape), shape.get('points'), mask)


def _merged_shapes(shapes: list, document: Document, objects: list[dict],
                   matched: dict[int, Held | None]) -> list:
    """What is not changed stays in its place; the rest stands where the object began, or last."""
    replaced: dict[int, list] = {}
    added: list = []
    changed = [number for number, held in matched.items()
               if held is None or not is_same_object(held.object, objects[number])]
    same = [matched[number] for number in matched.keys() - set(changed)]
    groups = _Groups(shapes, [number for held in same for number in held.records])
    gone = {id(held) for held in document.held} - {id(held) for held in matched.values()}
    for held in document.held:
        if id(held) in gone:
            replaced |= {number: [] for number in (*held.records, *held.beside)}
    for number in changed:
        held, item = matched[number], objects[number]
        made = _shapes_of(shapes, held, item, document.frame)
        first = {} if held is None else shapes[held.records[0]]
        label = written_label(item['label'])
        if held is not None and item['label'] == held.object['label'] and isinstance(
                first.get('label'), str) and not is_blank(first['label']):
            label = first['label']  # also where it holds what cannot be sent
        group = groups.of(label, first.get('group_id'), len(made) > 1)
        for place, shape in enumerate(made):
            shape |= dict(label=label, group_id=group)
            shape[OWN] |= dict(id=item['id'], of=len(made))
            if place == 0:
                shape[OWN] |= dict(object=kept_apart(item)) if kept_apart(item) else {}
                shape[OWN] |= dict(label=item['label']) if label != item['label'] else {}
            fill_evidence(shape, held, item)
        if held is None:
            added += made
            continue
        replaced |= {one: [] for one in held.records} | {held.records[0]: made} | {
            one: [dict(shapes[one], label=label, group_id=group)] for one in held.beside}
    return [one for number, shape in enumerate(shapes)
            for one in replaced.get(number, [shape])] + added


def _shapes_of(shapes: list, held: Held | None, item: dict, frame: Frame) -> list[dict]:
    """A shape a polygon. One whose outline was not changed stays what it is: a circle, a mask; but
    a rectangle among several parts would be none of them."""
    places: dict = {}  # of the polygons that no shape has yet
    for place, polygon in enumerate(item['polygons']):
        places.setdefault(key_of_polygon(polygon), []).append(place)
    kept, seen, free = {}, set(), []
    for record in held.records if held else ():
        keys = Counter(key_of_polygon(polygon) for polygon, source in zip(
            held.object['polygons'], held.sources) if source == record)
        alone = len(keys) == len(item['polygons'])
        if (alone or shape_type_of(shapes[record]) not in RECTANGLES) and all(
                len(places.get(key, ())) >= count for key, count in keys.items()):
            found = [places[key].pop(0) for key in keys.elements()]
            kept[min(found)] = record
            seen |= {*found}
        else:
            free.append(record)
    made = []
    for place, polygon in enumerate(item['polygons']):
        if place in kept:
            shape = dict(shapes[kept[place]])
            own, digest = own_of(shape), _digest(shape)
            whole = 'polygon' in own and own.get('written') == digest
            shape[OWN] = dict(written=digest) | (dict(polygon=own['polygon']) if whole else {})
            made.append(shape)
        elif place not in seen:
            made.append(_drawn(dict(shapes[free.pop(0)]) if free else
                               dict(flags={}, description=''), frame.turned(polygon, back=True)))
    return made


def _drawn(shape: dict, polygon: dict) -> dict:
    """A shape with the outline of a polygon in the file's frame."""
    shape.pop('uncertainty', None)  # of our exports: how sure each of the old vertices was
    if shape.get('mask') is not None:
        shape['mask'] = None
    shape |= dict(shape_type='polygon', points=cut_open(polygon))
    shape[OWN] = dict(written=_digest(shape))
    if polygon['holes'] or polygon.keys() - {'outer', 'holes'}:
        shape[OWN]['polygon'] = polygon
    return shape


class _Groups:
    """Hands out ``group_id`` so that no two objects are taken for one."""

    def __init__(self, shapes: list, kept: Iterable[int]) -> None:
        self.taken = {_key(shapes[number]) for number in kept}
        self.next = 1 + max((shape['group_id'] for shape in shapes if isinstance(shape, dict)
                             and type(shape.get('group_id')) is int), default=0)

    def of(self, label: str, group, needed: bool):
        """The group of an object: the one that it had, where no other has it; else a new one,
        where it has several parts."""
        key = _key(dict(label=label, group_id=group))
        if key is None and not needed:
            return None
        if key is None or key in self.taken:
            group, self.next = self.next, self.next + 1
            key = _key(dict(label=label, group_id=group))
        self.taken.add(key)
        return group
