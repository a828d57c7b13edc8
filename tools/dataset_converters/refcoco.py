"""Convert and verify a folder of RefCOCO sets.

    python tools/dataset_converters/refcoco.py convert data/refcoco
    python tools/dataset_converters/refcoco.py verify data/refcoco --bad-images bad.txt

``convert`` writes each ``refs(*).p`` as JSON beside it. ``verify`` checks counts against the
published ones, ids, every annotation that a reference names, and every image; it lists what is
wrong, prints one JSON object on its last line, and exits with 1 if anything is. It counts photos
with an orientation tag, and says which rule the annotations' sizes fit.
"""
import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from tqdm import tqdm

from simpleseg_mm.datasets import native
from simpleseg_mm.datasets.pictures import file_fault
from simpleseg_mm.datasets.transforms import ORIENTATIONS, size_fault
from simpleseg_mm.files import (ImageError, PictureFinder, load_image, one_line, open_picture,
                                orientation_of, replace_json, replace_text)
from simpleseg_mm.files.coco import CocoImage
from simpleseg_mm.files.pickles import load_pickle
from simpleseg_mm.files.pictures import stored_size, turned

_REFS = re.compile(r'g?refs\((.+)\)\.(?:p|json)')
_LISTED = 20  # faults of one kind that are written out; the JSON line counts all


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    convert = commands.add_parser('convert', help='write pickled references as JSON')
    verify = commands.add_parser('verify', help='check counts, annotations and images')
    for command in (convert, verify):
        command.add_argument('data_root', type=Path)
    verify.add_argument('--sets', nargs='+', metavar='NAME[:SPLIT_BY]',
                        help='sets to check, such as refcoco:unc; all that are there unless given')
    verify.add_argument('--img-dir', help='folder of images under data_root, for all sets')
    verify.add_argument('--orientation', choices=ORIENTATIONS, default='stored',
                        help='what annotations of photos with an orientation tag are of; that of '
                        'LoadImage')
    verify.add_argument('--no-images', action='store_true', help='do not look at the images')
    verify.add_argument('--bad-images', type=Path, metavar='FILE',
                        help='write the names of unusable images, one a line, for skip_images')
    verify.add_argument('--workers', type=int, default=4, help='threads that decode images')
    return parser.parse_args()


def convert(data_root: Path) -> dict:
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


def look_at(path: Path, name: str, image: CocoImage, finder: PictureFinder,
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


def check_images(args: argparse.Namespace, used: dict[tuple[Path, str], CocoImage]
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
        return look_at(folder / name, name, used[key], finders[folder], args.orientation)

    with ThreadPoolExecutor(max(1, args.workers)) as pool:
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


def verify(args: argparse.Namespace) -> dict:
    """Check all sets; returns the report."""
    faults: dict[str, list[str]] = {'counts': [], 'annotations': [], 'images': []}
    used: dict[tuple[Path, str], CocoImage] = {}
    sizes, blank = {}, []
    for name, split_by in find_sets(args.data_root, args.sets):
        label = f'{name} {split_by}'
        refs, bad = native.read_refs(native.find_refs(args.data_root, name, split_by))
        file = native.load_instances(args.data_root / name / 'instances.json')
        sizes[f'{name}:{split_by}'] = native.split_sizes(refs)
        faults['counts'] += count_faults(args.data_root, name, split_by, refs)
        faults['annotations'] += [record.message for record in bad if not record.by_rule]
        blank += [record.message for record in bad if record.by_rule]
        faults['annotations'] += annotation_faults(refs, file, label)
        folder = args.data_root / (args.img_dir
                                   or native.DEFAULT_IMG_DIR.get(name, 'train2014'))
        for image_id in {ref['image_id'] for ref in refs} & file.images.keys():
            image = file.images[image_id]
            if file.image_fault(image) is None:
                used[folder, image.file_name] = image
    report = {}
    if not args.no_images:
        faults['images'], bad_images, report['orientation'] = check_images(args, used)
        say_orientation(report['orientation'], args.orientation)
        if args.bad_images:
            replace_text(args.bad_images, ''.join(f'{name}\n' for name in bad_images))
    for kind, messages in faults.items():
        for message in messages[:_LISTED]:
            print(f'{kind}: {one_line(message)}')
        if len(messages) > _LISTED:
            print(f'{kind}: {len(messages) - _LISTED} more')
    if blank:
        print(f'{native.BLANK}: {len(blank)} are left out in any case, such as '
              f'{one_line(blank[0])}')
    return dict(ok=not any(faults.values()), sets=sizes, blank_sentences=len(blank),
                images_checked=0 if args.no_images else len(used),
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


def main() -> int:
    args = parse_args()
    try:
        report = convert(args.data_root) if args.command == 'convert' else verify(args)
    except (OSError, ValueError) as error:
        print(f'refcoco.py: {error}', file=sys.stderr)
        report = dict(ok=False, error=str(error))
    print(json.dumps(report))
    return 0 if report['ok'] else 1


if __name__ == '__main__':
    sys.exit(main())
