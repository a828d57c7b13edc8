"""Native files of the RefCOCO family: references, instances, published sizes, leakage."""
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycocotools import mask as coco_mask

from simpleseg_mm.files import coco, is_blank, load_json, shown
from simpleseg_mm.files.coco import CocoAnnotation, CocoImage, Fault, read_id
from simpleseg_mm.files.pickles import load_pickle
from simpleseg_mm.files.texts import decode_text
from simpleseg_mm.polygon import mask_to_box, segmentation_to_mask, segmentation_to_rle
from simpleseg_mm.polygon.raster import MAX_COORDINATE

# Published sizes of the sets: (references, sentences, images); None where it is not published.
PUBLISHED = {
    ('refcoco', 'unc'): dict(train=(42404, 120624, 16994), val=(3811, 10834, 1500),
                             testA=(1975, 5657, 750), testB=(1810, 5095, 750)),
    ('refcoco+', 'unc'): dict(train=(42278, 120191, 16992), val=(3805, 10758, 1500),
                              testA=(1975, 5726, 750), testB=(1798, 4889, 750)),
    ('refcocog', 'umd'): dict(train=(42226, 80512, 21899), val=(2573, 4896, 1300),
                              test=(5023, 9602, 2600)),
    ('refcocog', 'google'): dict(train=(44822, 85474, 24698), val=(5000, 9536, 4650)),
    ('refcoco-m', 'unc'): dict(val=(2080, 5598, 1190)),  # RefCOCO's val, drawn anew
    ('refclef', 'unc'): dict(val=(None, None, 2000), testA=(None, None, 485),
                             testB=(None, None, 490), testC=(None, None, 465)),
}
TRAIN_SPLIT = 'train'
COCO_PICTURE = (640, 480), "COCO's most frequent size"
BLANK = 'blank sentence'  # how one is counted that asks nothing
DEFAULT_IMG_DIR = dict(refclef='saiapr_tc-12', refshapes='images')  # else: train2014
DEFAULT_SPLIT_BY = dict(refcocog='umd', refshapes='refshapes')  # else: unc
_MAX_LIST = 100_000_000  # bytes of a list of images, unpacked

_HOW_TO_GET = {
    'annotations': "take the annotation archive of the 'refer' toolkit, and unpack it so that {} "
                   '(or a mirror in parquet, see docs/data.md)',
    'train2014': "take COCO's train2014 images, and unpack or link them there",
    'saiapr_tc-12': "take the saiapr_tc-12 images that 'refer' names, and unpack them there",
    'refshapes': 'generate the set: simpleseg convert refshapes {}',
}


def refs_candidates(folder: str | Path, split_by: str) -> list[Path]:
    """Where the references of a set may be, in order of preference."""
    names = [f'{kind}({split_by}).{suffix}' for kind in ('refs', 'grefs')
             for suffix in ('json', 'p')]
    return [Path(folder) / name for name in (*names, 'refs.json')]


def find_refs(data_root: str | Path, name: str, split_by: str) -> Path:
    """The references file of a set. FileNotFoundError says what is missing and how to get it."""
    folder = Path(data_root) / name
    if not folder.is_dir():
        raise FileNotFoundError(missing(data_root, name, f'there is no folder {folder}'))
    for path in refs_candidates(folder, split_by):
        if path.is_file():
            return path
    there = sorted(path.name for path in folder.iterdir())
    raise FileNotFoundError(missing(
        data_root, name, f'{folder} holds no references for split_by={split_by!r} '
        f'({" or ".join(path.name for path in refs_candidates(folder, split_by))}); '
        f'it holds {there}'))


def missing(data_root: str | Path, name: str, what: str) -> str:
    """One line: what is missing, and how to get it."""
    if name == 'refshapes':
        advice = _HOW_TO_GET['refshapes'].format(data_root)
    else:
        expected = Path(data_root) / name / 'instances.json'
        advice = _HOW_TO_GET['annotations'].format(f'{expected} is there')
    return f'{name}: {what}. To get it, {advice}'


def missing_images(folder: str | Path, what: str) -> str:
    """One line: what is missing in an image folder, and how to get it."""
    advice = _HOW_TO_GET.get(Path(folder).name,
                             'put it there, or name the folder that holds it in the config')
    return f'{what}. To get it, {advice}'


@dataclass(slots=True)
class BadRecord:
    """A record of references, or a sentence of one, that cannot be used.

    Attributes:
        message: names the file and the record, and says what is wrong.
        reason: how reports count it.
        split: its split, None where it has none.
        samples: how many samples it would have been.
        by_rule: whether it is left out in any case: it asks nothing, and the file is whole.
    """
    message: str
    reason: str
    split: str | None
    samples: int
    by_rule: bool = False


def load_refs(path: str | Path) -> list[dict]:
    """References of a set, from ``refs(*).p`` or JSON, without blank sentences; see
    :func:`read_refs`.

    Raises:
        ValueError: If the file is refused or broken, or a record cannot be used.
    """
    refs, bad = read_refs(path)
    for record in bad:
        if not record.by_rule:
            raise ValueError(record.message)
    return refs


def read_refs(path: str | Path) -> tuple[list[dict], list[BadRecord]]:
    """References of a set that can be used, and the records that cannot.

    Returns:
        Native records, ids as :func:`simpleseg_mm.files.coco.read_id` reads them: ``ref_id,
        ann_id, image_id, split, sentences=[dict(sent_id, sent), ...]`` and more. In gRefCOCO
        ``ann_id`` is a list, ``[-1]`` where nothing is meant. Records that share their ``ref_id``
        are all bad.

    Raises:
        ValueError: If the file is refused or broken.
    """
    path = Path(path)
    rows = load_pickle(path) if path.suffix == '.p' else load_json(path)
    if not isinstance(rows, list):
        raise ValueError(f'{path} must hold a list of references, it holds {type(rows).__name__}')
    return check_refs(rows, path)


def check_refs(rows: list, path: Path, named: Sequence[str] | None = None
               ) -> tuple[list[dict], list[BadRecord]]:
    """What :func:`read_refs` gives, from a file's rows; ``named`` says where each lies."""
    refs, bad = [], []
    places: dict[int | str, list[int]] = {}
    for number, row in enumerate(rows):
        where = named[number] if named else f'{path}, record {number}'
        ref, fault = _read_ref(row)
        if fault is None:
            places.setdefault(ref['ref_id'], []).append(number)
            refs.append((number, ref))
            bad += [BadRecord(f'{where} (ref_id {ref["ref_id"]}): {problem}', reason,
                              ref['split'], 1, by_rule=reason == BLANK)
                    for problem, reason in _take_bad_sentences(ref)]
        else:
            sentences = row.get('sentences') if isinstance(row, dict) else None
            split = row.get('split') if isinstance(row, dict) else None
            bad.append(BadRecord(f'{where}{fault}', 'bad reference',
                                 split if isinstance(split, str) else None,
                                 len(sentences) if isinstance(sentences, list) else 1))
    used = []
    for number, ref in refs:
        same = places[ref['ref_id']]
        if len(same) == 1:
            used.append(ref)
        else:
            records = ' and '.join(named[k] for k in same[:3]) if named else \
                f'records {shown(same)[1:-1]}'
            bad.append(BadRecord(
                f'{path}, ref_id {ref["ref_id"]}: it is used {len(same)} times, in {records}; '
                'every reference needs its own', 'ref_id used twice', ref['split'],
                len(ref['sentences'])))
    return used, bad


def _read_ref(row) -> tuple[dict | None, str | None]:
    """A record with its ids read, or what is wrong with it."""
    if not isinstance(row, dict):
        return None, f': expected a dict, got {shown(row)}'
    for key in ('ref_id', 'ann_id', 'image_id', 'split', 'sentences'):
        if key not in row:
            return None, f': no {key!r}, only {sorted(map(str, row))!s:.200}'
    ref_id, image_id = read_id(row['ref_id']), read_id(row['image_id'])
    for key, found in (('ref_id', ref_id), ('image_id', image_id)):
        if found is None:
            return None, f': {key} is {shown(row[key])}; an id'
    where = f' (ref_id {ref_id}): '
    many = isinstance(row['ann_id'], list)
    ids = [read_id(one) for one in (row['ann_id'] if many else [row['ann_id']])]
    fault = _ann_id_fault(row['ann_id'], ids, many)
    if fault is None and not isinstance(row['split'], str):
        fault = f"split is {shown(row['split'])}; a text such as 'train'"
    if fault is None and not isinstance(row['sentences'], list):
        fault = f'sentences is {shown(row["sentences"])}; a list'
    if fault is not None:
        return None, f'{where}{fault}'
    return {**row, 'ref_id': ref_id, 'image_id': image_id, 'ann_id': ids if many else ids[0]}, None


def _take_bad_sentences(ref: dict) -> list[tuple[str, str]]:
    """Leave a reference the sentences that can be used; gives what is wrong with the others, and
    how that is counted."""
    found, faults, blank = [], [], []
    for sentence in ref['sentences']:
        sent_id = read_id(sentence.get('sent_id')) if isinstance(sentence, dict) else None
        if sent_id is None or not isinstance(sentence.get('sent'), str):
            faults.append(f"a sentence needs 'sent' (text) and 'sent_id', got "
                          f'{shown(sentence, 80)}')
        else:
            found.append({**sentence, 'sent_id': sent_id})
    counts = Counter(sentence['sent_id'] for sentence in found)
    for sentence in found:
        if counts[sentence['sent_id']] == 1 and is_blank(sentence['sent']):
            counts[sentence['sent_id']] = 0
            blank.append(f'sent_id {sentence["sent_id"]} is {shown(sentence["sent"])}: a blank '
                         'sentence asks nothing')
    faults += [f'sent_id {sentence["sent_id"]} is used {counts[sentence["sent_id"]]} times; every '
               'sentence needs its own' for sentence in found if counts[sentence['sent_id']] > 1]
    ref['sentences'] = [sentence for sentence in found if counts[sentence['sent_id']] == 1]
    return [*((fault, 'bad sentence') for fault in faults), *((fault, BLANK) for fault in blank)]


def _ann_id_fault(ann_id, ids: list, many: bool) -> str | None:
    """What is wrong with a reference's ``ann_id``, or None."""
    if not ids:
        return "ann_id is an empty list; the ids of the targets, or [-1] where nothing is meant"
    if None in ids:
        return f'ann_id is {shown(ann_id)}; {"a list of ids" if many else "an id"}'
    if -1 in ids and len(ids) > 1:
        return f'ann_id is {shown(ann_id)}; -1 (nothing is meant) stands alone'
    if len(set(ids)) < len(ids):
        return f'ann_id is {shown(ann_id)}; every target once'
    return None


def select_split(refs: list[dict], split: str, path: str | Path) -> list[dict]:
    """References of one split. ValueError lists the splits that the file has."""
    chosen = [ref for ref in refs if ref['split'] == split]
    if not chosen:
        raise ValueError(f'{path} has no split {split!r}; '
                         f'it has {sorted({ref["split"] for ref in refs})}')
    return chosen


@dataclass
class Instances:
    """Records of a COCO file by id.

    Attributes:
        path: of the file.
        images, annotations: by id, the first of each; faulty ones too.
        categories: names by id.
        rows: all annotations, in the file's order.
        faults: all of them, see :mod:`simpleseg_mm.files.coco`.
        twice: what is said of an image's or annotation's id that two records have.
        pictures: where a picture lies that is inside the set's files, by image id; see
            :func:`simpleseg_mm.files.parquet.inside_parquet`. None of a set whose records must
            say the sizes of images.
    """
    path: Path
    images: dict[int | str, CocoImage]
    annotations: dict[int | str, CocoAnnotation]
    categories: dict[int | str, str]
    rows: list[CocoAnnotation]
    faults: list[Fault]
    twice: dict[tuple[str, int | str], str]
    pictures: dict[int | str, str] | None = None

    def image_fault(self, image: CocoImage) -> str | None:
        """Why an image cannot be used, or None."""
        fault = self.twice.get(('image', image.id))
        return fault or (str(image.faults[0]) if image.faults else None)

    def annotation_fault(self, annotation: CocoAnnotation) -> str | None:
        """Why an annotation cannot be used, or None."""
        fault = self.twice.get(('annotation', annotation.id))
        return fault or (str(annotation.faults[0]) if annotation.faults else None)


def load_instances(path: str | Path, categories: bool = False) -> Instances:
    """Records of an ``instances.json``, or of any COCO file.

    Args:
        categories: whether its annotations need them.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is broken or no COCO file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(missing(path.parent.parent, path.parent.name,
                                        f'there is no {path}'))
    return index_instances(path, coco.read_coco(load_json(path), str(path), categories))


def index_instances(path: Path, tables: coco.CocoTables) -> Instances:
    """The records of a COCO file by their ids."""
    images: dict[int | str, CocoImage] = {}
    annotations: dict[int | str, CocoAnnotation] = {}
    for found, records in ((images, tables.images), (annotations, tables.annotations)):
        for record in records:
            if record.id is not None:
                found.setdefault(record.id, record)
    twice = {('image' if fault.kind == coco.IMAGE_TWICE else 'annotation', fault.record.id):
             str(fault) for fault in tables.faults
             if fault.kind in (coco.IMAGE_TWICE, coco.ANNOTATION_TWICE)}
    return Instances(path, images, annotations, tables.categories, tables.annotations,
                     tables.faults, twice)


#: faults of a file, which are not those of one record that a query may be about
FILE_FAULTS = (coco.IMAGE_NO_RECORD, coco.IMAGE_ID, coco.IMAGE_TWICE, coco.ANNOTATION_NO_RECORD,
               coco.ANNOTATION_ID, coco.ANNOTATION_TWICE, coco.CATEGORIES, coco.CATEGORY,
               coco.CATEGORY_TWICE)


def annotation_ids(ref: dict) -> list:
    """Ids of the annotations that a reference names: none for gRefCOCO's ``[-1]``."""
    ids = ref['ann_id'] if isinstance(ref['ann_id'], list) else [ref['ann_id']]
    return [ann_id for ann_id in ids if ann_id != -1]


def plain_segmentation(segmentation):
    """The segmentation as polygons or one RLE: RefCLEF's list of RLE dicts is merged."""
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        if len(segmentation) == 1:
            return segmentation[0]
        merged = coco_mask.merge([_compressed(rle) for rle in segmentation])
        return dict(size=list(merged['size']), counts=merged['counts'].decode())
    return segmentation


def _compressed(rle: dict) -> dict:
    """An RLE with list counts compressed; others unchanged."""
    return coco_mask.frPyObjects(rle, *rle['size']) if isinstance(rle['counts'], list) else rle


def segmentation_fault(segmentation, height: int, width: int) -> str | None:
    """What is wrong with a segmentation as far as can be seen without decoding it, or None."""
    if isinstance(segmentation, dict):
        segmentation = [segmentation]
    if not isinstance(segmentation, list) or not segmentation:
        return f'empty or unknown segmentation {shown(segmentation, 40)}'
    for part in segmentation:
        if isinstance(part, dict):
            if part.get('size') != [height, width]:
                return (f'RLE size {shown(part.get("size"))}, image (h, w) {[height, width]}')
            counts = part.get('counts')
            if not counts:
                return 'RLE without counts'
            if isinstance(counts, list) and sum(counts) != height * width:
                return f'RLE of {sum(counts)} pixels, the image has {height * width}'
        elif not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            return (f'degenerate polygon of {len(part)} numbers; at least 6, and an even number'
                    if isinstance(part, list) else f'unknown part {shown(part, 40)}')
        else:
            try:
                far = max(map(abs, part))
                finite = math.isfinite(math.fsum(part))
            except (TypeError, ValueError, OverflowError):
                finite = False
            if not finite:
                return 'polygon with coordinates that are no finite numbers'
            if far > MAX_COORDINATE:
                return f'polygon with a coordinate of {far:g}; at most {MAX_COORDINATE:g}'
    return None


def mask_fault(segmentation, height: int, width: int) -> str | None:
    """What is wrong with a segmentation that only decoding it tells, or None."""
    try:
        rle = segmentation_to_rle(segmentation, height, width)
    except ValueError as error:
        return str(error)
    return None if rle_area(rle) else 'the mask is empty'


def rle_area(rle: dict) -> int:
    """Pixels of what :func:`simpleseg_mm.polygon.segmentation_to_rle` gives."""
    counts = rle['counts']
    return int(coco_mask.area(rle) if isinstance(counts, bytes) else counts[1::2].sum())


def instances_of(found: list[CocoAnnotation], image: CocoImage, file: Instances
                 ) -> tuple[list[dict], str | None]:
    """Annotations of an image in MMDetection's form, and what is wrong with them, if anything.

    Returns:
        ``dict(bbox=[x1, y1, x2, y2] pixels, bbox_label=0, ignore_flag=0, mask=segmentation)`` for
        each annotation, as far as no fault is found without decoding; and the fault or None. Where
        an annotation has no box, it is that of its mask.
    """
    height, width = image.height, image.width
    instances = []
    for one in found:
        fault = file.annotation_fault(one)
        if fault is not None:
            return [], fault
        where = f'{file.path}, {one.name}'
        fault = segmentation_fault(one.segmentation, height, width)
        if fault is not None:
            return [], f'{where}: {fault}'
        mask = plain_segmentation(one.segmentation)
        box = one.bbox
        if box is None:
            fault = mask_fault(mask, height, width)
            if fault is not None:
                return [], f'{where}: {fault}'
            box = mask_to_box(segmentation_to_mask(mask, height, width)).tolist()
        else:
            x, y, w, h = box
            if not (w > 0 and h > 0):
                return [], f'{where}: empty bbox {shown(box)}'
            box = [x, y, x + w, y + h]
            if not (x < width and y < height and x + w > 0 and y + h > 0
                    and max(map(abs, box)) <= MAX_COORDINATE):
                return [], (f'{where}: bbox {shown(box)} (x1, y1, x2, y2) is outside the image of '
                            f'{width} x {height} pixels')
        instances.append(dict(bbox=box, bbox_label=0, ignore_flag=0, mask=mask))
    return instances, None


def referred(ref: dict, file: Instances) -> tuple[list[CocoAnnotation], str | None]:
    """The annotations that a reference names, and what is wrong, or None."""
    found = []
    for ann_id in annotation_ids(ref):
        one = file.annotations.get(ann_id)
        if one is None:
            return [], f'ann_id {ann_id!r} is not in {file.path}'
        if one.image_id != ref['image_id'] and not one.faults:
            return [], (f'{file.path}, annotation {ann_id!r} is of image {one.image_id}, not '
                        f'{ref["image_id"]}')
        found.append(one)
    return found, None


def image_family(name: str) -> str:
    """Which image ids of two sets mean the same photo: 'coco' for the COCO sets, else the set."""
    return 'coco' if name in ('refcoco', 'refcoco+', 'refcocog', 'refcoco-m', 'grefcoco') else name


def eval_sources(names: Iterable[str]) -> list[tuple[str, str]]:
    """The (name, split_by) whose eval splits training on ``names`` may leak into.

    For the COCO sets these are RefCOCO unc, RefCOCO+ unc and RefCOCOg umd together, since they
    share their photos.
    """
    names = list(names)
    found = []
    if any(image_family(name) == 'coco' for name in names):
        found += [('refcoco', 'unc'), ('refcoco+', 'unc'), ('refcocog', 'umd')]
    return found + [(name, 'unc') for name in names if name == 'refclef']


def eval_image_ids(refs: list[dict]) -> set:
    """Ids of the images of all splits but train."""
    return {ref['image_id'] for ref in refs if ref['split'] != TRAIN_SPLIT}


def split_leakage(train_images: Iterable, eval_images: Iterable) -> tuple[set, set]:
    """Train images that no eval split holds, and those that one does: ``(kept, removed)``."""
    train_images, eval_images = set(train_images), set(eval_images)
    return train_images - eval_images, train_images & eval_images


def listed_images(folder: str | Path) -> set[int]:
    """COCO image ids in the lists of a folder, whose names hold them (``COCO_train2014_ID``).

    A ``.json`` file is a list of rows with ``img_id`` (or ``file_name``), as evaluation splits
    are passed around; a ``.txt`` or ``.txt.gz`` file has one image name a line. Other files are
    passed over. A name may go on after the id (``_4``, ``.jpg``).

    Raises:
        FileNotFoundError: There is no such folder, or no list in it.
        ValueError: A list is broken, empty, or has a name without an id.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder} with lists of images; name one '
                                'that holds .json, .txt or .txt.gz files')
    lists = [path for path in sorted(folder.iterdir())
             if path.name.endswith(('.json', '.txt', '.txt.gz'))
             and not path.name.startswith('.')]
    if not lists:
        raise FileNotFoundError(f'{folder} holds no lists of images (.json, .txt or .txt.gz)')
    return set().union(*(_images_of_list(path) for path in lists))


COCO_NAME = re.compile(r'COCO_(?:train|val)20\d\d_(\d{12})', re.ASCII)


def _images_of_list(path: Path) -> set[int]:
    try:
        if path.suffix == '.json':
            names = [row.get('img_id', row.get('file_name')) for row in load_json(path)]
        else:
            names = _text_of_list(path).split()
    except (AttributeError, TypeError):
        raise ValueError(f'{path} must be a list of objects with img_id or file_name') from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f'{path} is no list of image names: {error}') from None
    if not names:
        raise ValueError(f'{path} lists no image')
    found = set()
    for name in names:
        match = COCO_NAME.match(name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f'{path}: {shown(name)} is no COCO image name '
                             '(COCO_train2014_000000000009...)')
        found.add(int(match.group(1)))
    return found


def _text_of_list(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == '.gz':
        with gzip.open(io.BytesIO(raw)) as file:
            raw = file.read(_MAX_LIST + 1)
    if len(raw) > _MAX_LIST:
        raise ValueError(f'{path} is no list of image names: it has more than {_MAX_LIST:,} bytes')
    return decode_text(raw)


def split_sizes(refs: list[dict]) -> dict[str, tuple[int, int, int]]:
    """(references, sentences, images) of every split."""
    parts: dict[str, list[dict]] = {}
    for ref in refs:
        parts.setdefault(ref['split'], []).append(ref)
    return {split: (len(part), sum(len(ref['sentences']) for ref in part),
                    len({ref['image_id'] for ref in part}))
            for split, part in sorted(parts.items())}
