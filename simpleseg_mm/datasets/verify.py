"""Converting and checking folders of the RefCOCO family: counts, ids, annotations, images."""
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ..choices import ORIENTATIONS
from ..files import (ImageError, PictureFinder, load_image, one_line, orientation_of,
                     replace_json, replace_text)
from ..files.coco import CocoImage
from ..files.parquet import is_inside_parquet
from ..files.pickles import load_pickle
from ..files.pictures import stored_size, turned
from . import native
from .annotation_files import AnnotationFiles, measure_image
from .mirrors import TWICE, Mirror, has_parquet, sets_of_mirror
from .pictures import NamedPictures, file_fault, opened_picture
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


def find_sets(data_root: Path, wanted: list[str] | None) -> list[dict]:
    """The sets to check, ``dict(name, split_by, parquet)``: in native files where ``parquet`` is
    None and they are there, else in parquet."""
    if wanted:
        return [dict(name=name, split_by=split_by or native.DEFAULT_SPLIT_BY.get(name, 'unc'),
                     parquet=None)
                for name, _, split_by in (item.partition(':') for item in wanted)]
    found = set()
    for path in data_root.glob('*/*'):
        if match := _REFS.fullmatch(path.name):
            found.add((path.parent.name, match[1]))
        elif path.name == 'refs.json':
            found.add((path.parent.name, native.DEFAULT_SPLIT_BY.get(path.parent.name, 'unc')))
    sets = [dict(name=name, split_by=split_by, parquet=None) for name, split_by in sorted(found)]
    for folder in sorted(path for path in data_root.glob('*') if path.is_dir()):
        if has_parquet(folder):
            sets += [dict(name=name, split_by=split_by, parquet=folder.name)
                     for name, split_by in sets_of_mirror(folder)]
    if not sets:
        raise FileNotFoundError(f'{data_root} holds no */refs(*).p, */refs(*).json or '
                                '*/refs.json, nor parquet files')
    return sets


def root_of_sets(folder: Path) -> Path:
    """The folder of the sets: the one above where a mirror itself is given."""
    inside = any(any(folder.glob(pattern)) for pattern in
                 ('*.parquet', 'data/*.parquet', 'default/*/*.parquet'))  # as the Hub lays them
    return folder.absolute().parent if inside else folder


def count_faults(data_root: Path, name: str, split_by: str,
                 sizes: dict[str, tuple[int, int, int]], whole: bool) -> Iterator[str]:
    """Splits whose size is not the published one (or, for RefShapes, the card's); where the files
    need not be ``whole``, of those that are there."""
    expected = native.PUBLISHED.get((name, split_by), {})
    card = data_root / name / 'card.json'
    if card.is_file():
        expected = {split: (count['refs'], count['sentences'], None)
                    for split, count in native.load_json(card)['counts'].items()}
    for split, wanted in expected.items():
        size = sizes.get(split, (0, 0, 0))
        if (whole or split in sizes) and any(w not in (None, s) for w, s in zip(wanted, size)):
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


def look_at_image(path: Path | str, name: str, image: CocoImage, finder: PictureFinder,
                  orientation: str) -> tuple[str | None, int, str | None]:
    """What is wrong with an image file or None; its orientation tag, 1 where it has none; and the
    one rule of ``ORIENTATIONS`` that its size fits, where it fits one alone."""
    if not is_inside_parquet(path):
        if not path.exists():
            path = finder.find(name) or path
        if not path.exists():
            return f'missing image {path}', 1, None
        if (fault := file_fault(path)) is not None:
            return f'broken image {fault}', 1, None
    try:
        with opened_picture(path) as picture:
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


def check_images(used: dict[tuple[Path, str], tuple[CocoImage, str | None]], orientation: str,
                 workers: int) -> tuple[list[str], list[str], dict]:
    """What is wrong with images, names of those that cannot be used, and what is known of their
    orientation. Names are as annotations have them, for ``skip_images``.

    Args:
        used: records by image folder and name, with their address inside a parquet file or None.
    """
    faults, bad = [], []
    tags: Counter[str] = Counter()
    evidence = dict.fromkeys(ORIENTATIONS, 0)
    keys = sorted(used, key=lambda key: (key[0], _order(used[key][1]), key[1]))
    finders = {folder: PictureFinder([folder]) for folder, _ in keys}

    def look(key: tuple[Path, str]) -> tuple[str | None, int, str | None]:
        folder, name = key
        image, address = used[key]
        return look_at_image(address or folder / name, name, image, finders[folder], orientation)

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


def _order(address: str | None) -> tuple[str, int]:
    """Pictures of a parquet file by their rows, as it is read fastest."""
    file, _, row = (address or '.0').rpartition('.')
    return file, int(row)


def measure_images(file: native.Instances, folder: Path, orientation: str) -> None:
    """Take sizes that a mirror does not say from its pictures, as far as they can be read."""
    pictures = NamedPictures()
    for image in file.images.values():
        path = (file.pictures or {}).get(image.id) or pictures.find(folder, image.file_name)[0]
        try:
            measure_image(image, file, lambda: pictures.size(path, orientation))
        except ImageError:
            pass  # which is told with the images


def say_lacks(source: dict, mirror: Mirror, sizes: dict, lacks: set[str], folder: Path
              ) -> list[str]:
    """What a mirror does not hold of its set."""
    known = native.PUBLISHED.get((source['name'], source['split_by']), {})
    lacking = [f'split {split}' for split in known if split not in sizes]
    lacking += [f'{what} (they are read in {folder})' if what == 'pictures' else what
                for what in sorted(lacks)]
    print(f'{source["name"]} {source["split_by"]}: {mirror.folder} is read as {mirror.kind}; it '
          f'lacks {", ".join(lacking) or "nothing"}')
    return lacking


def verify(data_root: Path, wanted: list[str] | None = None, img_dir: str | None = None,
           orientation: str = 'stored', images: bool = True, bad_list: Path | None = None,
           workers: int = 4) -> dict:
    """Check sets; prints what is wrong and returns the report.

    Args:
        data_root: folder of the sets, or of one mirror's parquet files.
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
    used: dict[tuple[Path, str], tuple[CocoImage, str | None]] = {}
    sizes, lacks, by_rule = {}, {}, {native.BLANK: [], TWICE: []}
    data_root = data_root if wanted else root_of_sets(data_root)
    files = AnnotationFiles(strict=False)
    for source in find_sets(data_root, wanted):
        name, split_by = source['name'], source['split_by']
        label, key = f'{name} {split_by}', f'{name}:{split_by}'
        if key in sizes:
            key = f'{key} in {source["parquet"]}'
        folder = data_root / (img_dir or native.DEFAULT_IMG_DIR.get(name, 'train2014'))
        mirror = files.mirror(data_root, source)
        parts = [files.set_of(data_root, source, None)] if mirror is None or mirror.has_column \
            else [mirror.load(split) for split in mirror.splits]
        sizes[key] = {}
        for part in parts:
            sizes[key].update(native.split_sizes(part.refs))
            faults['annotations'] += [record.message for record in part.bad if not record.by_rule]
            for record in part.bad:
                if record.by_rule:
                    by_rule[record.reason].append(record.message)
            if 'masks' in part.lacks:
                faults['annotations'].append(f'{label}: {part.path} has no masks, only boxes')
                continue
            file = part.instances or native.load_instances(data_root / name / 'instances.json')
            if mirror is not None:
                measure_images(file, folder, orientation)
            faults['annotations'] += annotation_faults(part.refs, file, label)
            for image_id in {ref['image_id'] for ref in part.refs} & file.images.keys():
                image = file.images[image_id]
                if file.image_fault(image) is None:
                    used[folder, image.file_name] = image, (file.pictures or {}).get(image_id)
        faults['counts'] += count_faults(data_root, name, split_by, sizes[key], mirror is None)
        if mirror is not None:
            lacks[key] = say_lacks(source, mirror, sizes[key],
                                   {what for part in parts for what in part.lacks}, folder)
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
    for reason, messages in by_rule.items():
        if messages:
            print(f'{reason}: {len(messages)} are left out in any case, such as '
                  f'{one_line(messages[0])}')
    if lacks:
        report.update(lacks=lacks, rows_twice=len(by_rule[TWICE]))
    return dict(ok=not any(faults.values()), sets=sizes,
                blank_sentences=len(by_rule[native.BLANK]),
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
