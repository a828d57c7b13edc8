"""Convert and verify a folder of RefCOCO sets.

    python tools/dataset_converters/refcoco.py convert data/refcoco
    python tools/dataset_converters/refcoco.py verify data/refcoco --bad-images bad.txt

``convert`` writes each ``refs(*).p`` as JSON beside it. ``verify`` checks counts against the
published ones, ids, every annotation that a reference names, and every image; it lists what is
wrong, prints one JSON object on its last line, and exits with 1 if anything is. It counts photos
with an orientation tag, and says which rule the annotations' sizes fit. It reads the parquet files
of a mirror too, below the folder of the sets or as the folder itself, and says what they lack.
"""
import argparse
import json
import sys
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.choices import ORIENTATIONS


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


def main() -> int:
    args = parse_args()
    from simpleseg_mm.datasets.verify import refs_as_json, verify  # loads torch: not for --help
    try:
        report = refs_as_json(args.data_root) if args.command == 'convert' else verify(
            args.data_root, args.sets, args.img_dir, args.orientation, not args.no_images,
            args.bad_images, args.workers)
    except (OSError, ValueError) as error:
        print(f'refcoco.py: {error}', file=sys.stderr)
        report = dict(ok=False, error=str(error))
    print(json.dumps(report))
    return 0 if report['ok'] else 1


if __name__ == '__main__':
    sys.exit(main())
