"""Annotations of one's own, of any tool -> a training set and a config that is ready to run.

    python tools/dataset_converters/own_data.py coco.json data/mine --images photos
    python tools/dataset_converters/own_data.py labelme_folder data/mine --base 3b-lora
    python tools/train.py data/mine/nano_mine.py

Every picture is decoded and every mask too. What cannot be used is left out and counted, what was
decided is said. The last line is one JSON object, which is also ``OUT/report.json``.
"""
import argparse
import json
import sys
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line('the set is not whole; the same command starts again.')

from simpleseg_mm.choices import ASK, BASES, BOXES, CROWDS, EXIF, VAL_SHARE


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', type=Path,
                        help="COCO file, LabelMe file or folder of them, CVAT's XML, Label "
                        "Studio's JSON, YOLO's data.yaml, or folder of VOC's masks")
    parser.add_argument('out', type=Path, help='folder of the new set')
    parser.add_argument('--images', type=Path, help='folder of the pictures, which stay there '
                        '(default: where tools put them, near the annotations)')
    parser.add_argument('--expressions', type=Path, metavar='FILE',
                        help='JSON rows {"ann_id": 7, "sentences": ["the red car"]} for COCO')
    parser.add_argument('--ask', default='auto', choices=ASK, help='by category, by expressions '
                        '(text) or by both (default: by expressions where a tenth of the objects '
                        'has some, else by category)')
    parser.add_argument('--val', metavar='SHARE_OR_ANNOTATIONS',
                        help='share of the pictures that validate, or annotations of their own '
                        f"(default: those of a data.yaml, else {VAL_SHARE})")
    parser.add_argument('--val-images', type=Path, help='folder of their pictures')
    parser.add_argument('--absent', type=int, default=0, metavar='K',
                        help='by category: also ask each picture for K categories that it does '
                        'not hold, answered by []; for sets annotated throughout')
    parser.add_argument('--prompts', action='store_true', help='also train outlines from a point '
                        'and from a box, object by object')
    parser.add_argument('--boxes', default='auto', choices=BOXES, help='take plain boxes as '
                        "outlines, or leave such objects out (default: take LabelMe's "
                        "rectangles, leave all others)")
    parser.add_argument('--crowds', default='auto', choices=CROWDS, help='what iscrowd 1 means '
                        "(default: groups, as in COCO; CVAT's brush masks are objects)")
    parser.add_argument('--exif', default='auto', choices=EXIF, help='annotations are for turned '
                        'pictures as they are stored, or upright as viewers show them (default: '
                        'by the evidence of all of them)')
    parser.add_argument('--white', type=int, metavar='N', help='brightest value of pictures of '
                        'more than 8 bits (default: of the fewest bits that hold all)')
    parser.add_argument('--base', default='nano', metavar='NAME_OR_CONFIG',
                        help=f'{", ".join(BASES)}, or a config (default: %(default)s)')
    parser.add_argument('--epochs', type=float, help="passes over the queries (default: the "
                        "base's own schedule; 3b-lora: 3)")
    parser.add_argument('--batch', type=int, help='queries of an update, with --epochs')
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    parser.add_argument('--overwrite', action='store_true', help='replace files in OUT that were '
                        'changed by hand')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from simpleseg_mm.annotation.own_account import Account  # these load torch: not for --help
    from simpleseg_mm.annotation.own_folder import OwnFolder
    from simpleseg_mm.annotation.own_set import make_set
    from simpleseg_mm.files import replace_json
    account = Account()
    out = args.out.resolve()
    folder = OwnFolder(out, args.overwrite)
    try:
        report = make_set(args, out, folder, account)
    except (OSError, ValueError) as error:
        message = ' '.join(str(error).split())
        report = dict(ok=False, error=message,
                      left_out_or_changed=dict(account.reasons), decided=dict(account.decided))
    for line in account.lines():
        print(line)
    if report['ok']:
        replace_json(out / 'report.json', report, indent=1)
        folder.note([out / 'report.json'])
        if report['warning']:
            print(f'own_data.py: warning: {report["warning"]}', file=sys.stderr)
        ceiling = report['text_ceiling']
        print('pictures, queries: ' + '; '.join(
            f'{report[part]["images"]}, {sum(report[part]["queries"].values())} ({part})'
            for part in ('train', 'val')))
        if ceiling['queries']:
            print(f'text ceiling: mean IoU {100 * ceiling["mean_iou"]:.1f} % of '
                  f'{ceiling["queries"]} ground-truth outlines, written as text and read again')
        print('\nNext: look at the samples, then train\n'
              f'  simpleseg browse {report["config"]} --out-dir {args.out}/pictures\n'
              f'  simpleseg train {report["config"]}\n'
              f'The same report as JSON, also in {args.out}/report.json:')
    else:
        print(f'own_data.py: {report["error"]}', file=sys.stderr)
    print(json.dumps(report, ensure_ascii=False))
    return 0 if report['ok'] else 1


if __name__ == '__main__':
    sys.exit(main())
