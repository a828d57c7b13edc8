"""COCO files of any tool as pictures with objects; see :func:`.own_files.read_own`."""
from collections import Counter
from pathlib import Path

from simpleseg_mm.files import PictureFinder, coco, shown

from .own_account import Account
from .own_formats import (BOX_ALONE, EXPORT, OwnObject, OwnPicture, OwnSet, Reading, finder_near,
                          missing_picture, read_expressions, score_of, tell_guesses, texts_of)
from .sample import clean_text

#: where an annotation may hold its expressions, each a text, or a list of texts or of records
TEXT_KEYS = ('phrase', 'expressions', 'sentences', 'descriptions')
_IMAGE_FAULTS = (coco.IMAGE_ID, coco.IMAGE_TWICE, coco.IMAGE_FILE)


def read_coco_set(path: Path, content, reading: Reading, account: Account) -> OwnSet:
    """Pictures of a COCO file. ValueError: it is none."""
    try:
        tables = coco.read_coco(content, str(path))
    except ValueError as error:
        raise ValueError(f"{path} is neither a COCO file nor one of LabelMe's (a list 'shapes'): "
                         f'{error}. {EXPORT}') from None
    account.read['picture'] += len(content['images'])
    account.read['annotation'] += len(content['annotations'])
    for fault in tables.faults:
        if fault.kind == coco.IMAGE_NO_RECORD:
            account.leave('picture', fault.kind, str(fault))
        elif fault.kind == coco.ANNOTATION_NO_RECORD:
            account.leave('annotation', fault.kind, str(fault))
        elif fault.kind in (coco.CATEGORY, coco.CATEGORY_TWICE):
            account.decide(fault.kind, str(fault))
    finder = finder_near(path, reading)
    pictures = _pictures(path, tables, finder, account)
    names = _names(content.get('categories'), tables.categories)
    objects: dict = {}
    for row in tables.annotations:
        picture = pictures.get(row.image_id)
        if picture is None:
            known = any(fault.kind in (coco.ANNOTATION_IMAGE, coco.UNKNOWN_IMAGE)
                        for fault in row.faults)
            account.leave('annotation', 'annotation of an unknown image' if known else
                          'annotation of an image that is left out', f'{path}, {row.name}')
            continue
        one = _object(path, row, names, picture, reading, account)
        picture.objects.append(one)
        objects.setdefault(row.id, []).append((one, picture))
    for image in tables.images:
        absent = image.record.get('neg_category_ids')  # LVIS's
        if isinstance(absent, list) and image.id in pictures:
            pictures[image.id].known_absent = {names.get(coco.read_id(key)) for key in absent}
        partly = image.record.get('not_exhaustive_category_ids')  # LVIS's, and the data engine's
        for key in partly if isinstance(partly, list) and image.id in pictures else ():
            pictures[image.id].objects.append(OwnObject(
                f'{path}, image {image.id!r}', [], names.get(coco.read_id(key)),
                lost='category that is not annotated throughout on its picture', records=0))
    repeated = {key: found for key, found in objects.items() if key is None or len(found) > 1}
    if reading.expressions is not None:
        _give_expressions(reading.expressions, pictures, objects, account)
    elif repeated:
        account.decide('annotation without an id of its own, used all the same: ids are for '
                       '--expressions alone', f'{path}, annotation ids {list(repeated)[:5]}',
                       sum(map(len, repeated.values())))
    tell_guesses(finder, path, account)
    every = list(pictures.values())
    if not reading.images and every and not any(picture.path for picture in every):
        account.decide('picture that is not where tools put them; --images names their folder',
                       str(path), len(every))
    return OwnSet(every, 'stored')


def _pictures(path: Path, tables: coco.CocoTables, finder: PictureFinder,
              account: Account) -> dict:
    """Usable images by id; the others are counted."""
    pictures: dict = {}
    first: dict = {}
    twice: set = set()
    for image in tables.images:
        if image.id in first:
            before = first[image.id]
            if (image.file_name, image.height, image.width) == (
                    before.file_name, before.height, before.width):
                account.leave('picture', 'image record written twice',
                              f'{path}, {coco.name_of("image", image.row, image.id)}')
                continue
            twice.add(image.id)
        elif image.id is not None:
            first[image.id] = image
        fault = next((one for one in image.faults if one.kind in _IMAGE_FAULTS), None)
        if image.id in twice:
            reason = 'image id used for two files (both, with their annotations)'
            account.leave('picture', reason, str(fault))
            continue
        if fault is not None:
            account.leave('picture', 'image without id or file_name', str(fault))
            continue
        pictures[image.id] = image
    for key in twice & pictures.keys():
        account.leave('picture', 'image id used for two files (both, with their annotations)',
                      f'{path}, image {key!r}')
        del pictures[key]
    return {key: _picture(path, image, finder, account) for key, image in pictures.items()}


def _picture(path: Path, image: coco.CocoImage, finder: PictureFinder,
             account: Account) -> OwnPicture:
    place, how = finder.look(image.file_name)
    where = f'{path}, image {image.id!r}: {image.file_name}'
    said = image.record.get('absent_phrases')
    size = None if image.height is None else (image.height, image.width)
    return OwnPicture(where if place is None else str(place), place, size, [],
                      texts_of(said, where, account) if said else [],
                      fault='' if place else missing_picture(how))


def _names(rows, categories: dict) -> dict:
    """Clean names of categories by id; None where one id stands for two names."""
    found: dict = {key: clean_text(name) or None for key, name in categories.items()}
    for row in rows if isinstance(rows, list) else ():
        key = coco.read_id(row.get('id')) if isinstance(row, dict) else None
        if key in found and found[key] is not None and clean_text(
                row.get('name', '')) != found[key] and isinstance(row.get('name'), str):
            found[key] = None
    return found


def _object(path: Path, row: coco.CocoAnnotation, names: dict, picture: OwnPicture,
            reading: Reading, account: Account) -> OwnObject:
    where = f'{path}, {row.name}'
    kinds = {fault.kind: fault for fault in row.faults}
    said = [row.record[key] for key in TEXT_KEYS if row.record.get(key)]
    phrases = [text for value in said for text in texts_of(value, where, account)]
    one = OwnObject(where, [], names.get(row.category_id), list(dict.fromkeys(phrases)),
                    row.crowd and reading.crowds != 'objects',
                    score=score_of(row.record.get('score')))
    if row.crowd:
        account.decide('crowd (iscrowd 1) read as one object' if not one.crowd else
                       'crowd (iscrowd 1) read as a group (--crowds objects: each is one object, '
                       'such as a brush mask of CVAT)', where)
    if one.category is None and coco.UNKNOWN_CATEGORY in kinds:
        one.unnamed, one.category = 'annotation of an unknown category', ''
        picture.throughout = False
    elif one.category is None:
        one.unnamed = 'annotation without a usable category'
    if coco.CROWD in kinds:
        one.lost, one.where = coco.CROWD, str(kinds[coco.CROWD])
    elif coco.SEGMENTATION in kinds:
        one.lost, one.where = coco.SEGMENTATION, str(kinds[coco.SEGMENTATION])
    elif row.segmentation is None:
        _take_box(one, row, reading, account)
    else:
        segmentation = row.segmentation
        one.parts = segmentation if isinstance(segmentation, list) else [segmentation]
        _drop_slivers(one, account)
    return one


def _take_box(one: OwnObject, row: coco.CocoAnnotation, reading: Reading,
              account: Account) -> None:
    if row.bbox is None or not (row.bbox[2] > 0 and row.bbox[3] > 0):
        one.lost = 'object without an outline or a box'
        return
    one.parts = [coco.box_corners(row)]
    if reading.boxes != 'take':
        one.lost = BOX_ALONE
    else:
        account.decide('box read as the outline of its object', one.where)


def _drop_slivers(one: OwnObject, account: Account) -> None:
    """Polygons of fewer than three points out, where others are left: they cover nothing."""
    usable = [part for part in one.parts if not (isinstance(part, list) and len(part) < 6)]
    if usable and len(usable) < len(one.parts):
        account.change('part of fewer than three points, which covers nothing', one.where,
                       len(one.parts) - len(usable))
        one.parts = usable


def _give_expressions(path: Path, pictures: dict, objects: dict, account: Account) -> None:
    unusable: Counter = Counter()
    for ids, image_id, texts in read_expressions(path, account):
        where = f'{path}: ann_id {shown(ids)}: {shown(texts)}'
        keys = [coco.read_id(one) for one in ids]
        if keys == [-1]:
            picture = pictures.get(coco.read_id(image_id))
            if picture is not None:
                picture.absent += texts
            else:
                unusable['expression for nothing, of an unknown image', where] += len(texts)
            continue
        found = [[] if key is None else objects.get(key, []) for key in keys]
        places = {id(picture) for some in found for _, picture in some}
        if any(len(some) > 1 for some in found):
            reason = 'expression of an annotation id that several annotations have'
            where += '; ' + ', '.join(one.where for some in found for one, _ in some[:2])
        elif not all(found) or len(places) != 1:
            reason = ('expression of an annotation that is unknown or left out, or of several '
                      'images')
        elif image_id is not None and pictures.get(coco.read_id(image_id)) is not found[0][0][1]:
            reason = 'expression whose image_id is not that of its annotation'
        else:
            reason = ''
        if reason:
            unusable[reason, where] += len(texts)
            for some in found:  # what such a text means on these pictures is not known in full
                for _, picture in some:
                    picture.objects.append(OwnObject(where, [], '', texts, lost=reason, records=0))
            continue
        for one, _ in (some[0] for some in found):
            one.phrases += [text for text in texts if text not in one.phrases]
    for (reason, where), count in unusable.items():
        account.used['expression'] -= count
        account.leave('expression', reason, where, count)
