"""Converting and checking folders of the RefCOCO family: counts, ids, annotations, images."""
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ..choices import ORIENTATIONS
from ..files import (ImageError, PictureFinder, load_image, one_line, open_picture,
                     orientation_of, replace_json, replace_text)
from ..files.coco import CocoImage
from ..files.pickles import load_pickle
from ..files.pictures import stored_size, turned
from . import native
from .pictures import file_fault
from .transforms import size_fault

_REFS = re.compile(r'g?refs\((.+)\)\.(?:p|json)')
_LISTED = 20  # faults of one kind that are written out; the JSON line counts all


def refs_as_json(data_root: Path) -> dict:
    """Write every pickled references file as JSON beside it."""
    files = sorted(path for path in data_root.glob('*/*.p') if _REFS.fullmatch(path.name))
    if not files:
        raise FileNotFoundError(f'{data_root} holds no */refs(*).p')
    done = {}
    for path in tqdm(files, unit='file'):
        native.load_refs(path)  # refuses what cannot be used
        refs = load_pickle(path)
        target = path.with_suffix('.json')
        replace_json(target, refs, separators=(',', ':'))
        done[str(target)] = len(refs)
    return dict(ok=True, converted=done)


def find_sets(data_root: Path, wanted: list[str] | None) -> list[tuple[str, str]]:
    """(name, split_by) of the sets to check."""
    if wanted:
        return [(name, split_by or native.DEFAULT_SPLIT_BY.get(name, 'unc'))
                for name, _, split_by in (item.partition(':') for item in wanted)]
    found = set()
    for path in data_root.glob('*/*'):
        if match := _REFS.fullmatch(path.name):
            found.add((path.parent.name, match[1]))
        elif path.name == 'refs.json':
            found.add((path.parent.name, native.DEFAULT_SPLIT_BY.get(path.parent.name, 'unc')))
    if not found:
        raise FileNotFoundError(f'{data_root} holds no */refs(*).p, */refs(*).json or */refs.json')
    return sorted(found)


def count_faults(data_root: Path, name: str, split_by: str, refs: list[dict]) -> Iterator[str]:
    """Splits whose size is not the published one (or, for RefShapes, the card's)."""
    sizes = native.split_sizes(refs)
    expected = native.PUBLISHED.get((name, split_by), {})
    card = data_root / name / 'card.json'
    if card.is_file():
        expected = {split: (count['refs'], count['sentences'], None)
                    for split, count in native.load_json(card)['counts'].items()}
    for split, wanted in expected.items():
        size = sizes.get(split, (0, 0, 0))
        if any(w not in (None, s) for w, s in zip(wanted, size)):
            yield (f'{name} {split_by} {split}: {size} references, sentences, images; '
                   f'expected {wanted}')


def annotation_faults(refs: list[dict], file: native.Instances, label: str) -> Iterator[str]:
    """Ids that two records have, references without image or annotation, degenerate and empty
    masks."""
    for fault in file.faults:
        if fault.kind in native.FILE_FAULTS:
            yield str(fault)
    for ref in tqdm(refs, desc=f'{label} annotations', unit='ref'):
        record = f'{label} ref_id {ref["ref_id"]}'
        image = file.images.get(ref['image_id'])
        if image is None:
            yield f'{record}: image_id {ref["image_id"]} is not in {file.path}'
            continue
        fault = file.image_fault(image)
        found, instances = [], []
        if fault is None:
            found, fault = native.referred(ref, file)
        if fault is None:
            instances, fault = native.instances_of(found, image, file)
        for one, instance in zip(found, instances):
            problem = native.mask_fault(instance['mask'], image.height, image.width)
            if problem is not None:
                fault = fault or f'{file.path}, {one.name}: {problem}'
        if fault is not None:
            yield f'{record}: {fault}'


def look_at_image(path: Path, name: str, image: CocoImage, finder: PictureFinder,
                  orientation: str) -> tuple[str | None, int, str | None]:
    """What is wrong with an image file or None; its orientation tag, 1 where it has none; and the
    one rule of ``ORIENTATIONS`` that its size fits, where it fits one alone."""
    if not path.exists():
        path = finder.find(name) or path
    if not path.exists():
        return f'missing image {path}', 1, None
    if (fault := file_fault(path)) is not None:
        return f'broken image {fault}', 1, None
    try:
        with open_picture(path) as picture:
            tag, stored = orientation_of(picture), stored_size(picture)[::-1]
            load_image(picture, str(path), upright=False)
    except ImageError as error:
        return f'broken image {path}: {error}', 1, None
    sizes = dict(stored=stored, upright=turned(stored, tag))
    said = image.height, image.width
    fits = [rule for rule in ORIENTATIONS if sizes[rule] == said]
    fault = None if orientation in fits else \
        f'image {path} {size_fault(sizes[orientation], said, tag, orientation)}'
    return fault, tag, fits[0] if len(fits) == 1 else None


def check_images(used: dict[tuple[Path, str], CocoImage], orientation: str, workers: int
                 ) -> tuple[list[str], list[str], dict]:
    """What is wrong with images, names of those that cannot be used, and what is known of their
    orientation. Names are as annotations have them, for ``skip_images``."""
    faults, bad = [], []
    tags: Counter[str] = Counter()
    evidence = dict.fromkeys(ORIENTATIONS, 0)
    keys = sorted(used)
    finders = {folder: PictureFinder([folder]) for folder, _ in keys}

    def look(key: tuple[Path, str]) -> tuple[str | None, int, str | None]:
        folder, name = key
        return look_at_image(folder / name, name, used[key], finders[folder], orientation)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = pool.map(look, keys)
        for (_, name), (fault, tag, rule) in zip(keys, tqdm(found, 'images', len(keys),
                                                            unit='image')):
            if fault is not None:
                faults.append(fault)
                bad.append(name)
            if tag != 1:
                tags[str(tag)] += 1
                if rule is not None:
                    evidence[rule] += 1
    guessed = sum((finder.guessed for finder in finders.values()), Counter())
    if guessed:
        print(f'images: some do not lie as written: {dict(guessed)}')
    return faults, bad, dict(turned=tags.total(), tags=dict(sorted(tags.items())),
                             **{f'fit_{rule}': count for rule, count in evidence.items()},
                             undecided=tags.total() - sum(evidence.values()))


def verify(data_root: Path, wanted: list[str] | None = None, img_dir: str | None = None,
           orientation: str = 'stored', images: bool = True, bad_list: Path | None = None,
           workers: int = 4) -> dict:
    """Check sets; prints what is wrong and returns the report.

    Args:
        data_root: folder of the sets.
        wanted: ``NAME`` or ``NAME:SPLIT_BY`` of those to check; None: all that are there.
        img_dir: folder of images under it, for all sets; None: each set's own.
        orientation: one of ``ORIENTATIONS``, what annotations of turned photos are of.
        images: whether images are looked at.
        bad_list: file for the names of unusable images, one a line.
        workers: threads that decode images.

    Raises:
        FileNotFoundError, ValueError: there is no set, or a file of one cannot be read.
    """
    faults: dict[str, list[str]] = {'counts': [], 'annotations': [], 'images': []}
    used: dict[tuple[Path, str], CocoImage] = {}
    sizes, blank = {}, []
    for name, split_by in find_sets(data_root, wanted):
        label = f'{name} {split_by}'
        refs, bad = native.read_refs(native.find_refs(data_root, name, split_by))
        file = native.load_instances(data_root / name / 'instances.json')
        sizes[f'{name}:{split_by}'] = native.split_sizes(refs)
        faults['counts'] += count_faults(data_root, name, split_by, refs)
        faults['annotations'] += [record.message for record in bad if not record.by_rule]
        blank += [record.message for record in bad if record.by_rule]
        faults['annotations'] += annotation_faults(refs, file, label)
        folder = data_root / (img_dir or native.DEFAULT_IMG_DIR.get(name, 'train2014'))
        for image_id in {ref['image_id'] for ref in refs} & file.images.keys():
            image = file.images[image_id]
            if file.image_fault(image) is None:
                used[folder, image.file_name] = image
    report = {}
    if images:
        faults['images'], bad_images, report['orientation'] = check_images(used, orientation,
                                                                           workers)
        say_orientation(report['orientation'], orientation)
        if bad_list:
            replace_text(bad_list, ''.join(f'{name}\n' for name in bad_images))
    for kind, messages in faults.items():
        for message in messages[:_LISTED]:
            print(f'{kind}: {one_line(message)}')
        if len(messages) > _LISTED:
            print(f'{kind}: {len(messages) - _LISTED} more')
    if blank:
        print(f'{native.BLANK}: {len(blank)} are left out in any case, such as '
              f'{one_line(blank[0])}')
    return dict(ok=not any(faults.values()), sets=sizes, blank_sentences=len(blank),
                images_checked=len(used) if images else 0,
                faults={kind: len(messages) for kind, messages in faults.items()}, **report)


def say_orientation(found: dict, orientation: str) -> None:
    """Say which rule photos with an orientation tag fit."""
    if not found['turned']:
        return
    stored, upright = found['fit_stored'], found['fit_upright']
    if stored and upright:
        advice = 'they are of two rules: mend the sizes, or make two sets of them'
    elif stored or upright:
        rule = ORIENTATIONS[stored == 0]
        advice = f"take orientation='{rule}' in LoadImage for all of them"
        if rule == 'stored':
            advice += (" where outlines are of it too (Label Studio's are upright beside the "
                       'stored size: convert such a set by own_data.py)')
    else:
        advice = (f"sizes cannot tell; as orientation='{orientation}' is set, look at some with "
                  'browse_dataset.py')
    print(f'orientation: {found["turned"]} photos have an orientation tag {found["tags"]}; by '
          f'their sizes {stored} are annotated as stored, {upright} upright, of '
          f'{found["undecided"]} it is not known; {advice}')
