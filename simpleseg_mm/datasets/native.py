"""Native files of the RefCOCO family: references, instances, published sizes, leakage."""
import gzip
import io
import math
import pickle
import re
from collections.abc import Iterable
from pathlib import Path

from pycocotools import mask as coco_mask

from simpleseg_mm.files import load_json

# Published sizes of the sets: (references, sentences, images); None where it is not published.
PUBLISHED = {
    ('refcoco', 'unc'): dict(train=(42404, 120624, 16994), val=(3811, 10834, 1500),
                             testA=(1975, 5657, 750), testB=(1810, 5095, 750)),
    ('refcoco+', 'unc'): dict(train=(42278, 120191, 16992), val=(3805, 10758, 1500),
                              testA=(1975, 5726, 750), testB=(1798, 4889, 750)),
    ('refcocog', 'umd'): dict(train=(42226, 80512, 21899), val=(2573, 4896, 1300),
                              test=(5023, 9602, 2600)),
    ('refcocog', 'google'): dict(train=(44822, 85474, 24698), val=(5000, 9536, 4650)),
    ('refclef', 'unc'): dict(val=(None, None, 2000), testA=(None, None, 485),
                             testB=(None, None, 490), testC=(None, None, 465)),
}
TRAIN_SPLIT = 'train'
DEFAULT_IMG_DIR = dict(refclef='saiapr_tc-12', refshapes='images')  # else: train2014
DEFAULT_SPLIT_BY = dict(refcocog='umd', refshapes='refshapes')  # else: unc

_COCO_KEYS = dict(images={'file_name', 'height', 'width'},
                  annotations={'image_id', 'bbox', 'segmentation'})
_HOW_TO_GET = {
    'annotations': "take the annotation archive of the 'refer' toolkit, and unpack it so that {}",
    'train2014': "take COCO's train2014 images, and unpack or link them there",
    'saiapr_tc-12': "take the saiapr_tc-12 images that 'refer' names, and unpack them there",
    'refshapes': 'generate the set: python tools/dataset_converters/generate_refshapes.py {}',
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings, numbers and the like; refuses every class and function."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid):
        raise pickle.UnpicklingError('it holds persistent ids')


def load_pickle(path: str | Path):
    """Content of a pickle that holds plain containers, strings and numbers and nothing else.

    Pickles of Python 2 are read too (byte strings as UTF-8, else Latin-1).

    Raises:
        ValueError: If it holds anything else, or is broken; nothing of it has been run.
    """
    raw = Path(path).read_bytes()
    for encoding in ('utf-8', 'latin1'):
        try:
            return _PlainUnpickler(io.BytesIO(raw), encoding=encoding).load()
        except UnicodeDecodeError:
            continue
        except Exception as error:  # a broken pickle raises whatever its bytes lead to
            raise ValueError(
                f'{path} is refused: {error}. Only pickles of plain lists, dicts, strings and '
                'numbers are read; take the original file again, or convert it to JSON') from None
    raise AssertionError('latin1 decodes every byte')


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
    advice = _HOW_TO_GET.get(Path(folder).name, 'set img_dir of the source to the images')
    return f'{what}. To get it, {advice}'


def load_refs(path: str | Path) -> list[dict]:
    """References of a set, from ``refs(*).p`` or JSON.

    Returns:
        Native records: ``ref_id, ann_id, image_id, split, sentences=[dict(sent_id, sent), ...]``
        and more. In gRefCOCO ``ann_id`` is a list, ``[-1]`` where nothing is meant.

    Raises:
        ValueError: If the file is refused or broken, or its records lack a field.
    """
    path = Path(path)
    refs = load_pickle(path) if path.suffix == '.p' else load_json(path)
    if not isinstance(refs, list):
        raise ValueError(f'{path} must hold a list of references, it holds {type(refs).__name__}')
    for number, ref in enumerate(refs):
        if not isinstance(ref, dict):
            raise ValueError(f'{path}, record {number}: expected a dict, got {ref!r:.60}')
        for key in ('ref_id', 'ann_id', 'image_id', 'split', 'sentences'):
            if key not in ref:
                raise ValueError(f'{path}, record {number}: no {key!r}, only {sorted(ref)}')
        fault = _ann_id_fault(ref['ann_id'])
        if fault is not None:
            raise ValueError(f'{path}, record {number} (ref_id {ref["ref_id"]}): {fault}')
        for sentence in ref['sentences']:
            if not (isinstance(sentence, dict) and isinstance(sentence.get('sent'), str)
                    and 'sent_id' in sentence):
                raise ValueError(f'{path}, record {number} (ref_id {ref["ref_id"]}): a sentence '
                                 f"needs 'sent' (text) and 'sent_id', got {sentence!r:.80}")
    return refs


def _ann_id_fault(ann_id) -> str | None:
    """What is wrong with a reference's ``ann_id``, or None."""
    if not isinstance(ann_id, list):
        return None if isinstance(ann_id, (int, str)) else f'ann_id is {ann_id!r:.60}; an id'
    if not ann_id:
        return "ann_id is an empty list; the ids of the targets, or [-1] where nothing is meant"
    if not all(isinstance(one, (int, str)) for one in ann_id):
        return f'ann_id is {ann_id!r:.60}; a list of ids'
    if -1 in ann_id and len(ann_id) > 1:
        return f'ann_id is {ann_id!r:.60}; -1 (nothing is meant) stands alone'
    if len(set(ann_id)) < len(ann_id):
        return f'ann_id is {ann_id!r:.60}; every target once'
    return None


def select_split(refs: list[dict], split: str, path: str | Path) -> list[dict]:
    """References of one split. ValueError lists the splits that the file has."""
    chosen = [ref for ref in refs if ref['split'] == split]
    if not chosen:
        raise ValueError(f'{path} has no split {split!r}; '
                         f'it has {sorted({ref["split"] for ref in refs})}')
    return chosen


def load_coco(path: str | Path) -> tuple[dict, dict, dict]:
    """Images and annotations of a COCO file, each by id, and names of categories by id.

    Raises:
        ValueError: If it is broken or no COCO file, or two annotations have one id.
    """
    content = load_json(path)
    images, annotations = _tables(content, path)
    if len(annotations) < len(content['annotations']):
        raise ValueError(f'{path}: {len(content["annotations"])} annotations have only '
                         f'{len(annotations)} ids; every annotation needs its own')
    try:
        categories = {record['id']: record['name'] for record in content['categories']}
    except (KeyError, TypeError):
        raise ValueError(f'{path} needs a list of categories, each with id and name') from None
    return images, annotations, categories


def load_instances(path: str | Path) -> tuple[dict, dict]:
    """Images and annotations of an ``instances.json``, each by id.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is broken or no COCO file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(missing(path.parent.parent, path.parent.name,
                                        f'there is no {path}'))
    return _tables(load_json(path), path)


def _tables(content, path: str | Path) -> tuple[dict, dict]:
    try:
        tables = {}
        for table, keys in _COCO_KEYS.items():
            tables[table] = {record['id']: record for record in content[table]}
            for record in content[table]:
                if lacking := keys - record.keys():
                    raise ValueError(f'{path}, {table}, id {record["id"]!r}: it lacks '
                                     f'{sorted(lacking)}')
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no COCO file: it needs lists of images and annotations, '
                         f'each with an id ({error!r})') from None
    return tables['images'], tables['annotations']


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
        return f'empty or unknown segmentation {segmentation!r:.40}'
    for part in segmentation:
        if isinstance(part, dict):
            if list(part.get('size', ())) != [height, width]:
                return f'RLE size {part.get("size")}, image (h, w) {[height, width]}'
            if not part.get('counts'):
                return 'RLE without counts'
        elif not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            return (f'degenerate polygon of {len(part)} numbers; at least 6, and an even number'
                    if isinstance(part, list) else f'unknown part {part!r:.40}')
        else:
            try:
                finite = math.isfinite(math.fsum(part))
            except (TypeError, ValueError, OverflowError):
                finite = False
            if not finite:
                return 'polygon with coordinates that are no finite numbers'
    return None


def reference_instances(ref: dict, image: dict, annotations: dict,
                        path: Path) -> tuple[list[dict], str | None]:
    """Instances of a reference in MMDetection's form, and what is wrong with them, if anything.

    Returns:
        ``dict(bbox=[x1, y1, x2, y2] pixels, bbox_label=0, ignore_flag=0, mask=segmentation)`` for
        each annotation, as far as no fault is found without decoding; and the fault or None.
    """
    height, width = image['height'], image['width']
    instances = []
    for ann_id in annotation_ids(ref):
        annotation = annotations.get(ann_id)
        if annotation is None:
            return [], f'ann_id {ann_id!r} is not in {path}'
        if annotation['image_id'] != ref['image_id']:
            return [], (f'{path}, annotation {ann_id!r} is of image {annotation["image_id"]}, not '
                        f'{ref["image_id"]}')
        fault = segmentation_fault(annotation['segmentation'], height, width)
        if fault is not None:
            return [], f'{path}, annotation {ann_id!r}: {fault}'
        x, y, w, h = annotation['bbox']
        if not (w > 0 and h > 0):
            return [], f'{path}, annotation {ann_id!r}: empty bbox {annotation["bbox"]}'
        instances.append(dict(bbox=[x, y, x + w, y + h], bbox_label=0, ignore_flag=0,
                              mask=plain_segmentation(annotation['segmentation'])))
    return instances, None


def image_family(name: str) -> str:
    """Which image ids of two sets mean the same photo: 'coco' for the COCO sets, else the set."""
    return 'coco' if name in ('refcoco', 'refcoco+', 'refcocog', 'grefcoco') else name


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
             if path.name.endswith(('.json', '.txt', '.txt.gz'))]
    if not lists:
        raise FileNotFoundError(f'{folder} holds no lists of images (.json, .txt or .txt.gz)')
    return set().union(*(_images_of_list(path) for path in lists))


_COCO_NAME = re.compile(r'COCO_(?:train|val)20\d\d_(\d{12})', re.ASCII)


def _images_of_list(path: Path) -> set[int]:
    try:
        if path.suffix == '.json':
            names = [row.get('img_id', row.get('file_name')) for row in load_json(path)]
        else:
            raw = path.read_bytes()
            names = (gzip.decompress(raw) if path.suffix == '.gz' else raw).decode().split()
    except (AttributeError, TypeError):
        raise ValueError(f'{path} must be a list of objects with img_id or file_name') from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no list of image names: {error}') from None
    if not names:
        raise ValueError(f'{path} lists no image')
    found = set()
    for name in names:
        match = _COCO_NAME.match(name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f'{path}: {name!r:.60} is no COCO image name '
                             '(COCO_train2014_000000000009...)')
        found.add(int(match.group(1)))
    return found


def split_sizes(refs: list[dict]) -> dict[str, tuple[int, int, int]]:
    """(references, sentences, images) of every split."""
    sizes = {}
    for split in sorted({ref['split'] for ref in refs}):
        part = [ref for ref in refs if ref['split'] == split]
        sizes[split] = (len(part), sum(len(ref['sentences']) for ref in part),
                        len({ref['image_id'] for ref in part}))
    return sizes
