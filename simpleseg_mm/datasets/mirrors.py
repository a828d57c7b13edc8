"""RefCOCO's family in parquet files, as mirrors publish it, read into the native form.

What a mirror calls its columns stands in :data:`MIRRORS`. Everything else is shared with the
native files: the records that come out of here are checked, counted and asked as theirs.
"""
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simpleseg_mm.files import shown
from simpleseg_mm.files.coco import read_coco, read_id, read_number
from simpleseg_mm.files.parquet import (inside_parquet, open_parquet, parquet_rows,
                                        picture_column)

from . import native

#: fields of a row, by their place in it
IMAGE_FIELDS = ('image', 'image_info', 'image_id', 'file_name', 'height', 'width', 'refs')
#: fields of a reference, by their place in an element of ``refs``, or in the row
REF_FIELDS = ('ref_id', 'split', 'sentences', 'annotation', 'ann_id', 'segmentation', 'bbox',
              'crowd', 'area')
#: What mirrors call their columns; ``a.b`` is the field ``b`` of the column ``a``. ``image`` is a
#: picture of ``datasets`` or its bytes, ``image_info`` and ``annotation`` are COCO's records
#: (structs or JSON), ``refs`` is a list of references where a row is an image, ``sentences`` are
#: native records, texts or one text, ``bbox`` is x, y, width, height.
MIRRORS: dict[str, dict[str, str]] = {
    'jxu124/refcoco, refcocoplus, refcocog': dict(
        ref_id='ref_id', split='split', sentences='sentences', annotation='raw_anns',
        ann_id='ann_id', image_id='image_id', image_info='raw_image_info'),
    'jxu124/refcoco-benchmark': dict(
        refs='ref_list', ref_id='ref_info.ref_id', sentences='ref_info.sentences',
        split='ref_info.split', ann_id='ref_info.ann_id', annotation='ann_info',
        image_info='image_info', image='image'),
    'moondream/refcoco-m': dict(
        refs='samples', ref_id='id', sentences='sentences', segmentation='mask', bbox='bbox',
        image_id='image_id', file_name='file_name', image='image'),
    'lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg': dict(
        ref_id='question_id', sentences='answer', segmentation='segmentation', bbox='bbox',
        crowd='iscrowd', file_name='file_name', image='image'),
    'Kangheng/refcoco, refcocop, refcocog': dict(sentences='question', bbox='bbox', image='image'),
}
#: how a row is counted that is there once more, the same in all that is read
TWICE = 'row that is there twice'
_PARTLY = 'outline of a part of the object'  # how one is counted whose truth is not whole
# COCO's boxes are those of all parts of an outline, to 0.02 pixels (1,067 objects). Our choice.
_BOX_OFF = 0.1
_SHARD = re.compile(r'(.+?)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?')
_SET = re.compile(r'((?:g?refcoco|refclef)[a-z+_]*?)_(unc|umd|google)_(.+)')
_PHOTO = re.compile(rf'(?:.*/)?({native.COCO_NAME.pattern})(?:_\d+)?\.jpg', re.ASCII | re.DOTALL)
_SPLITS = dict(validation='val')


@dataclass
class ReferenceSet:
    """References of a set and the objects that they name.

    Attributes:
        path: of the references, or the folder of the parquet files.
        refs, bad: see :func:`native.read_refs`.
        instances: of the objects and images; None where they are in a file of their own.
        places: where a reference lies, by its id; of native files its ``path`` says it.
        lacks: what the files do not hold: 'masks', 'pictures'.
    """
    path: Path
    refs: list[dict]
    bad: list[native.BadRecord]
    instances: native.Instances | None = None
    places: dict[int | str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()

    def where(self, ref: dict) -> str:
        """What messages call a reference."""
        return f'{self.places.get(ref["ref_id"], self.path)}, ref_id {ref["ref_id"]}'


def find_mirror(data_root: str | Path, name: str, split_by: str,
                parquet: str | None = None) -> Path | None:
    """The folder of a set's parquet files; None where the native files are to be read.

    Args:
        parquet: of that folder below ``data_root``. None: ``name``, where no native references
            are in it.

    Raises:
        FileNotFoundError: ``parquet`` holds none.
    """
    folder = Path(data_root) / (parquet or name)
    native_there = parquet is None and any(
        path.is_file() for path in native.refs_candidates(folder, split_by))
    if native_there or not folder.is_dir() and parquet is None:
        return None
    if has_parquet(folder):
        return folder
    if parquet is None:
        return None
    raise FileNotFoundError(
        f'{name}: {folder} holds no parquet files; download a mirror into it (hf download OWNER/'
        'NAME --repo-type dataset --local-dir FOLDER; docs/data.md lists them)')


def has_parquet(folder: Path) -> bool:
    """Whether parquet files lie in a folder, at any depth."""
    return next(_parquet_files(folder), None) is not None


def set_name(text: str) -> str:
    """The set that a folder or a file of a mirror is named after: 'RefCOCOplus' is refcoco+."""
    name = text.lower()
    return {'refcocoplus': 'refcoco+', 'refcoco_plus': 'refcoco+', 'refcocop': 'refcoco+',
            'refcoco-plus': 'refcoco+'}.get(name, name)


def sets_of_mirror(folder: Path) -> list[tuple[str, str]]:
    """(name, split_by) of the sets that a folder of parquet files holds: as its files are named,
    else as the folder is."""
    found = set()
    for path in _parquet_files(folder):
        label, _ = _label(folder, path)
        match = _SET.fullmatch(label)
        name = set_name(match[1]) if match else set_name(folder.name)
        found.add((name, match[2] if match else native.DEFAULT_SPLIT_BY.get(name, 'unc')))
    return sorted(found)


class Mirror:
    """Parquet files of a set.

    Args:
        folder: that holds them, at any depth.
        name, split_by: of the set. Files that are named after another are passed over.
        columns: fields (those of :data:`MIRRORS`) that are called otherwise; None: one of
            :data:`MIRRORS` fits.

    Attributes:
        kind: the mirror whose columns these are.
        splits: what the files' names say, 'val' for 'validation'. A column ``split`` says more.

    Raises:
        FileNotFoundError: There is none of this set, or a part of a split is missing.
        ValueError: Their columns are not known, a file is broken, or a part is there twice.
    """

    def __init__(self, folder: Path, name: str, split_by: str,
                 columns: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._files: dict[str, list[Path]] = {}
        others = set()
        parts: dict[tuple[str, str], dict[str, Path]] = {}
        for path in _parquet_files(folder):
            label, shard = _label(folder, path)
            match = _SET.fullmatch(label)
            if match and (set_name(match[1]), match[2]) != (name, split_by):
                others.add(f'{set_name(match[1])} {match[2]}')
                continue
            split = match[3] if match else label
            self._files.setdefault(_SPLITS.get(split, split), []).append(path)
            if shard:
                same = parts.setdefault((label, shard[1]), {})
                if shard[0] in same:
                    raise ValueError(f'{same[shard[0]]} and {path} are both part {shard[0]} of '
                                     f'{label!r}; keep the newer one')
                same[shard[0]] = path
        if not self._files:
            raise FileNotFoundError(f'{folder} holds no parquet files of {name} {split_by}; it '
                                    f'holds {sorted(others)}')
        for (label, count), found in parts.items():
            if missing := sorted({f'{k:05d}' for k in range(int(count))} - set(found)):
                raise FileNotFoundError(
                    f'{folder} holds {len(found)} of {int(count)} parts of {label!r}; it lacks '
                    f'{missing[:5]}. Download the rest: a split is read as a whole or not')
        self.splits = sorted(self._files)
        self._read: dict[str | None, ReferenceSet] = {}
        paths = [path for split in self.splits for path in self._files[split]]
        self.kind, self.columns = _columns_of(paths[0], columns)
        for path in paths[1:]:
            schema = open_parquet(path).schema_arrow
            if lacking := _lacking(schema, self.columns):
                raise ValueError(f'{path} lacks the columns {lacking}, which {paths[0]} has; all '
                                 'files of a set are of one form')

    @property
    def has_column(self) -> bool:
        """Whether a column says which split a row is of, not the file's name."""
        return 'split' in self.columns

    def load(self, split: str | None) -> ReferenceSet:
        """A split; or all, where None is asked for or a column says which one a row is of.

        Pictures stay where they are. What is wrong with a row is told in ``bad``.
        """
        key = None if self.has_column else split
        if key is not None and key not in self.splits:
            raise ValueError(f'{self.folder} has no split {key!r}; it has {self.splits}, as '
                             f'{self.kind} does. docs/data.md says which mirror has it')
        if key not in self._read:
            wanted = [key] if key is not None else self.splits
            reading = _Reading(self.folder, self.columns)
            for one in wanted:
                for path in self._files.get(one, ()):
                    reading.read(path, one)
            if not reading.rows and not reading.bad:
                raise ValueError(f'the files {[self._files[one][0].name for one in wanted]} of '
                                 f'{self.folder} hold no references; download them again')
            self._read[key] = reading.finish()
        return self._read[key]


class _Reading:
    """Native records out of rows."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self.folder, self.columns = folder, columns
        self.rows: list[dict] = []
        self.places: list[str] = []
        self.bad: list[native.BadRecord] = []
        self.images: dict[int | str, list[dict]] = {}
        self.annotations: dict[int | str, list[dict]] = {}
        self.pictures: dict[int | str, str] = {}
        self.known: dict[object, tuple[str, dict]] = {}

    def read(self, path: Path, split: str) -> None:
        """All rows of a file."""
        picture = self.columns.get('image')
        fields = IMAGE_FIELDS if 'refs' in self.columns else (*IMAGE_FIELDS, *REF_FIELDS)
        asked = sorted({column.partition('.')[0] for name, column in self.columns.items()
                        if name in fields} - {picture})  # whose bytes stay where they are
        inside: list[bool] = []
        if picture is not None:
            inside = picture_column(path, picture)
            if _has(open_parquet(path).schema_arrow, f'{picture}.path'):
                asked.append(f'{picture}.path')
            elif not any(inside):  # perhaps names of files
                asked.append(picture)
        for number, row in enumerate(parquet_rows(path, asked)):
            place = f'{path}, row {number}'
            address = inside_parquet(path, picture, number) if inside and inside[number] else None
            try:
                image = self._image(row, address, f'{path.stem}#{number}')
                refs = _at(row, self.columns['refs']) if 'refs' in self.columns else [row]
                if not isinstance(refs, list):
                    raise ValueError(f'{self.columns["refs"]} is {shown(refs)}; a list of '
                                     'references')
            except ValueError as error:
                self._refuse(place, str(error), split)
                continue
            for ref in refs:
                self._reference(ref, image, address, split, place)

    def _image(self, row: dict, address: str | None, fallback: str) -> dict:
        """COCO's record of a row's image. ValueError where it has none."""
        record = dict(_record(self._get(row, 'image_info'), 'image_info') or {})
        for name, key in (('image_id', 'id'), ('file_name', 'file_name'), ('height', 'height'),
                          ('width', 'width')):
            if (value := self._get(row, name)) is not None:
                record[key] = value
        name = record.get('file_name')
        if name is None and 'image' in self.columns:
            picture = _at(row, self.columns['image'])
            picture = picture.get('path') if isinstance(picture, dict) else picture
            name = picture if isinstance(picture, str) else None
        if name is None and address is not None:
            name = fallback
        known = _PHOTO.fullmatch(name) if isinstance(name, str) else None
        if known:
            name = f'{known[1]}.jpg'  # references' own names end in _16.jpg
            known = native.COCO_NAME.match(name)
            if record.get('id') is None:
                record['id'] = int(known[1])
            elif read_id(record['id']) != int(known[1]):
                raise ValueError(f'its image_id is {shown(record["id"])} and its file_name '
                                 f'{shown(name)}; they are of two images')
        if record.get('id') is None:
            record['id'] = name
        if read_id(record['id']) is None:
            raise ValueError('it names no image: neither by an id nor by a file name, and holds '
                             'no picture')
        record['file_name'] = name
        return {key: record.get(key) for key in ('id', 'file_name', 'height', 'width')}

    def _reference(self, ref, image: dict, address: str | None, split: str, place: str) -> None:
        if not isinstance(ref, dict):
            self._refuse(place, f'a reference is a record, got {shown(ref)}', split)
            return
        said = self._get(ref, 'split')
        split = _SPLITS.get(said, said) if isinstance(said, str) else split
        sentences = _sentences(self._get(ref, 'sentences'))
        count = len(sentences) if isinstance(sentences, list) else 1
        try:
            found = self._annotation(ref, image)
        except ValueError as error:
            self._refuse(place, str(error), split, count)
            return
        if (fault := _part_of(found)) is not None:
            self._refuse(place, fault, split, count, _PARTLY)
            return
        numbered = self._get(ref, 'ref_id') is None
        ref_id = len(self.rows) if numbered else self._get(ref, 'ref_id')
        if found.get('id') is None:
            found['id'] = ref_id
        row = dict(ref_id=ref_id, ann_id=found['id'], image_id=image['id'], split=split,
                   sentences=sentences)
        content = dict(row, annotation=found, image=image)
        if numbered:
            content.update(ref_id=None, ann_id=None, annotation=dict(found, id=None))
        key = (split, json.dumps(content, sort_keys=True, default=str)) if numbered else \
            (split, str(read_id(ref_id)))
        first = self.known.setdefault(key, (place, content))
        if first[1] is not content and first[1] == content:
            self._refuse(place, f'it is the same as {first[0]}, and read once', split, count,
                         TWICE, by_rule=True)
            return
        self.rows.append(row)
        self.places.append(place)
        for table, record in ((self.images, image), (self.annotations, found)):
            same = table.setdefault(read_id(record['id']), [])
            if record not in same:
                same.append(record)
        if address is not None:
            self.pictures.setdefault(read_id(image['id']), address)

    def _annotation(self, ref: dict, image: dict) -> dict:
        """COCO's record of a reference's object. ValueError where it is broken."""
        record = dict(_record(self._get(ref, 'annotation'), 'annotation') or {})
        said = self._get(ref, 'ann_id')
        if None not in (said, record.get('id')) and read_id(said) != read_id(record['id']):
            raise ValueError(f'its ann_id is {shown(said)}, and its annotation has the id '
                             f'{shown(record["id"])}')
        for name, key in (('ann_id', 'id'), ('segmentation', 'segmentation'), ('bbox', 'bbox'),
                          ('crowd', 'iscrowd'), ('area', 'area')):
            value = self._get(ref, name)
            if value is not None and record.get(key) is None:
                record[key] = value
        record.setdefault('image_id', image['id'])
        size = image['height'], image['width']
        record['segmentation'] = _segmentation(record.get('segmentation'), size)
        mask = record['segmentation']
        if size == (None, None) and isinstance(mask, dict) and isinstance(
                mask.get('size'), list) and len(mask['size']) == 2:
            # a picture of another size is an error when it is read
            image.update(height=mask['size'][0], width=mask['size'][1])
        return record

    def _get(self, record: dict, name: str):
        return _at(record, self.columns[name]) if name in self.columns else None

    def _refuse(self, place: str, fault: str, split: str, samples: int = 1,
                reason: str = 'bad row', by_rule: bool = False) -> None:
        self.bad.append(native.BadRecord(f'{place}: {fault}', reason, split, samples, by_rule))

    def finish(self) -> ReferenceSet:
        """The set, checked as native files are."""
        refs, bad = native.check_refs(self.rows, self.folder, self.places)
        places = {read_id(row['ref_id']): place for row, place in zip(self.rows, self.places)}
        tables = read_coco(dict(images=sum(self.images.values(), []),
                                annotations=sum(self.annotations.values(), [])),
                           str(self.folder), categories=False)
        instances = native.index_instances(self.folder, tables)
        instances.pictures = self.pictures
        lacks = [] if {'annotation', 'segmentation'} & set(self.columns) else ['masks']
        if len(self.pictures) < len(self.images):
            lacks.append('pictures')
        return ReferenceSet(self.folder, refs, self.bad + bad, instances, places, tuple(lacks))


# --- columns -----------------------------------------------------------------------------------
def _columns_of(path: Path, own: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
    """A file's mirror and columns. ValueError where they are none that are known."""
    schema = open_parquet(path).schema_arrow
    own = dict(own or {})
    if unknown := sorted(set(own) - {*IMAGE_FIELDS, *REF_FIELDS}):
        raise ValueError(f'columns: unknown fields {unknown}; {[*IMAGE_FIELDS, *REF_FIELDS]}')
    lacking = {}
    for kind, columns in MIRRORS.items():
        lacking[kind] = _lacking(schema, columns | own)
        if not lacking[kind]:
            return kind, columns | own
    if own and not (gone := _lacking(schema, own)):
        needed = [] if 'sentences' in own else ['sentences']
        needed += [] if {'annotation', 'segmentation'} & set(own) else ['segmentation']
        if not needed:
            return 'columns', own
        raise ValueError(f'{path}: columns must name {needed} too; the file has '
                         f'{schema.names}')
    if own and gone:
        raise ValueError(f'{path} has no columns {gone}, which columns names; it has '
                         f'{schema.names}')
    nearest = min(lacking, key=lambda kind: len(lacking[kind]) / len(MIRRORS[kind]))
    raise ValueError(
        f'{path} is of no form that is known: it has the columns {schema.names}; of '
        f'{nearest} it lacks {lacking[nearest]}. Take a mirror that docs/data.md lists, or say '
        "in the source what its columns are, such as columns=dict(sentences='caption', "
        "segmentation='mask', image='image')")


def _lacking(schema, columns: Mapping[str, str]) -> list[str]:
    """Columns that a file does not have."""
    refs = columns.get('refs')
    paths = [f'{refs}.{path}' if refs and name in REF_FIELDS else path
             for name, path in columns.items()]
    return [path for path in paths if not _has(schema, path)]


def _has(schema, path: str) -> bool:
    name, *inner = path.split('.')
    place = schema.get_field_index(name)
    if place < 0:
        return False
    kind = schema.field(place).type
    for name in inner:
        while hasattr(kind, 'value_type'):
            kind = kind.value_type
        place = kind.get_field_index(name) if hasattr(kind, 'get_field_index') else -1
        if place < 0:
            return False
        kind = kind.field(place).type
    return True


def _at(record: dict, path: str):
    for name in path.split('.'):
        record = record.get(name) if isinstance(record, dict) else None
    return record


# --- values ------------------------------------------------------------------------------------
def _record(value, name: str) -> dict | None:
    """A record, also as JSON. ValueError where it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{name} is no JSON ({error}): {shown(value)}') from None
    if value is not None and not isinstance(value, dict):
        raise ValueError(f'{name} is {shown(value)}; a record, or JSON of one')
    return value


def _sentences(value):
    """Native records of texts; others are left as they are, and refused with the references."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return [dict(sent_id=number, sent=one) if isinstance(one, str) else one
                for number, one in enumerate(value)]
    return value


def _segmentation(value, size: Sequence):
    """A segmentation that may be JSON, or the bare counts of an RLE where the size is known."""
    if isinstance(value, bytes):
        value = value.decode('latin-1')
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, list | dict):
            if None in size:
                raise ValueError(f'its segmentation is the text {shown(value)}, which is no JSON; '
                                 'counts of an RLE need its size: map height and width')
            return dict(size=list(size), counts=value)
        value = parsed
    if isinstance(value, list) and value and None not in size and all(
            type(one) is int and one >= 0 for one in value) and sum(value) == size[0] * size[1]:
        return dict(size=list(size), counts=value)
    return value


def _part_of(annotation: dict) -> str | None:
    """What is wrong with an outline of one list that does not reach its box, or None.

    A mirror that writes polygons as one list cannot write several of one object.
    """
    flat, box = annotation.get('segmentation'), annotation.get('bbox')
    if not (isinstance(flat, list) and isinstance(box, list) and len(box) == 4):
        return None
    numbers = [read_number(one) for one in (*flat, *box) if not isinstance(one, list)]
    if len(numbers) != len(flat) + 4 or len(flat) < 6 or len(flat) % 2 or None in numbers:
        return None
    x, y, w, h = numbers[-4:]
    xs, ys = numbers[:-4:2], numbers[1:-4:2]
    off = max(abs(min(xs) - x), abs(min(ys) - y), abs(max(xs) - x - w), abs(max(ys) - y - h))
    if off <= _BOX_OFF:
        return None
    return (f'its outline ends {off:.1f} pixels from its box {shown(box)}: the file holds one '
            'part of several, and the others are not known')


# --- files -------------------------------------------------------------------------------------
def _parquet_files(folder: Path) -> Iterator[Path]:
    """Parquet files of a folder at any depth, hidden ones left out."""
    return (path for path in sorted(folder.rglob('*.parquet'))
            if not any(part.startswith('.') for part in path.relative_to(folder).parts))


def _label(folder: Path, path: Path) -> tuple[str, tuple[str, str] | None]:
    """What a file is named after, and its number and that of all parts, where it is one."""
    if match := _SHARD.fullmatch(path.stem):
        return match[1], (match[2], match[3])
    if path.stem.isdigit() and path.parent != folder:  # the Hub's own conversion: val/0000.parquet
        return path.parent.name, None
    return path.stem, None
