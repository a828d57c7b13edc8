"""Generate RefShapes: ``python tools/dataset_converters/generate_refshapes.py data/refshapes``."""
import argparse
import json
import os
import time
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.choices import SCENE_OBJECTS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument('--scenes-train', type=int, default=20000)
    parser.add_argument('--scenes-val', type=int, default=500)
    parser.add_argument('--scenes-test', type=int, default=500)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=224, help='side of the images in pixels')
    parser.add_argument('--absent', type=float, default=0.0,
                        help='share of scenes with one more reference, to nothing')
    parser.add_argument('--several', type=float, default=0.0,
                        help='share of scenes with one more reference, to several objects')
    parser.add_argument('--like', type=float, default=0.0,
                        help='share of scenes of like objects, whose references fit one to all '
                             'of them')
    parser.add_argument('--objects', type=int, nargs=2, default=SCENE_OBJECTS,
                        metavar=('MIN', 'MAX'),
                        help='fewest and most objects of a scene (default: %(default)s)')
    parser.add_argument('--object-size', type=int, nargs=2, metavar=('MIN', 'MAX'),
                        help='sides of the objects in pixels (default: 44 to 110 of 224)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(),
                        help='processes that draw (default: all cores, %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from tqdm import tqdm

    from simpleseg_mm.datasets.refshapes import generate  # loads torch: not for --help
    start = time.perf_counter()
    try:
        if not any((args.scenes_train, args.scenes_val, args.scenes_test)):
            raise ValueError('no scene is asked for: give --scenes-train, --scenes-val or '
                             '--scenes-test')
        scenes = dict(train=args.scenes_train, val=args.scenes_val, test=args.scenes_test)
        card = generate(args.out, scenes, args.seed, args.size, args.absent, tuple(args.objects),
                        args.workers, args.several, args.like,
                        args.object_size and tuple(args.object_size),
                        lambda items, total: tqdm(items, total=total, unit='scene'))
    except ValueError as error:
        raise SystemExit(f'generate_refshapes: {error}') from None
    print(json.dumps(dict(card, out=str(args.out),
                          seconds=round(time.perf_counter() - start, 1))))


if __name__ == '__main__':
    main()
