"""Convert and verify a folder of RefCOCO sets.

    python tools/dataset_converters/refcoco.py convert data/refcoco
    python tools/dataset_converters/refcoco.py verify data/refcoco --bad-images bad.txt

``convert`` writes each ``refs(*).p`` as JSON beside it. ``verify`` checks counts against the
published ones, every annotation that a reference names, and every image; it lists what is wrong,
prints one JSON object on its last line, and exits with 1 if anything is.
"""
import argparse
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from simpleseg_mm.datasets import native
from simpleseg_mm.datasets.transforms import decode_image
from simpleseg_mm.polygon import segmentation_to_mask

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
        refs = native.load_refs(path)
        target = path.with_suffix('.json')
        target.write_text(json.dumps(refs, separators=(',', ':')))
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


def annotation_faults(refs: list[dict], images: dict, annotations: dict, path: Path,
                      label: str) -> Iterator[str]:
    """References without image or annotation, degenerate and empty masks."""
    for ref in tqdm(refs, desc=f'{label} annotations', unit='ref'):
        record = f'{label} ref_id {ref["ref_id"]}'
        image = images.get(ref['image_id'])
        if image is None:
            yield f'{record}: image_id {ref["image_id"]} is not in {path}'
            continue
        instances, fault = native.reference_instances(ref, image, annotations, path)
        for ann_id, instance in zip(native.annotation_ids(ref), instances):
            try:
                mask = segmentation_to_mask(instance['mask'], image['height'], image['width'])
                if not mask.any():
                    fault = fault or f'{path}, annotation {ann_id!r}: empty mask'
            except ValueError as error:
                fault = fault or f'{path}, annotation {ann_id!r}: {error}'
        if fault is not None:
            yield f'{record}: {fault}'


def image_fault(path: Path, image: dict) -> str | None:
    """What is wrong with an image file, or None."""
    if not path.is_file():
        return f'missing image {path}'
    try:
        height, width = decode_image(path.read_bytes()).shape[:2]
    except OSError as error:
        return f'broken image {path}: {error}'
    if (height, width) != (image['height'], image['width']):
        return (f'image {path} has (h, w) {(height, width)}, instances.json says '
                f'{(image["height"], image["width"])}')
    return None


def verify(args: argparse.Namespace) -> dict:
    """Check all sets; returns the report."""
    faults: dict[str, list[str]] = {'counts': [], 'annotations': [], 'images': []}
    used: dict[Path, dict] = {}
    sizes = {}
    for name, split_by in find_sets(args.data_root, args.sets):
        label = f'{name} {split_by}'
        refs = native.load_refs(native.find_refs(args.data_root, name, split_by))
        instances_path = args.data_root / name / 'instances.json'
        images, annotations = native.load_instances(instances_path)
        sizes[f'{name}:{split_by}'] = native.split_sizes(refs)
        faults['counts'] += count_faults(args.data_root, name, split_by, refs)
        faults['annotations'] += annotation_faults(refs, images, annotations, instances_path,
                                                    label)
        folder = args.data_root / (args.img_dir
                                   or native.DEFAULT_IMG_DIR.get(name, 'train2014'))
        for image_id in {ref['image_id'] for ref in refs} & images.keys():
            used[folder / images[image_id]['file_name']] = images[image_id]
    bad_images = []
    if not args.no_images:
        paths = sorted(used)
        with ThreadPoolExecutor(max(1, args.workers)) as pool:
            found = pool.map(image_fault, paths, (used[path] for path in paths))
            for path, fault in zip(paths, tqdm(found, 'images', len(paths), unit='image')):
                if fault is not None:
                    faults['images'].append(fault)
                    bad_images.append(path.name)
    if args.bad_images:
        args.bad_images.write_text(''.join(f'{name}\n' for name in bad_images))
    for kind, messages in faults.items():
        for message in messages[:_LISTED]:
            print(f'{kind}: {message}')
        if len(messages) > _LISTED:
            print(f'{kind}: {len(messages) - _LISTED} more')
    return dict(ok=not any(faults.values()), sets=sizes, images_checked=0 if args.no_images
                else len(used), faults={kind: len(messages) for kind, messages in faults.items()})


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
