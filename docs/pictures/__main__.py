"""The pictures of these pages: ``python docs/pictures [NAME ...]`` writes docs/images/NAME.svg.

A picture has the name of its page; the second of a page begins with it. Those of runs are made by
runs: nano answers, data is generated, a plan is made. Figures that are typed in stand on the page,
which says where they are from. Other code makes these:

| picture | made by |
|---|---|
| outline.svg | docs/animated_outline.py |
| page*.png | tests/test_serving_browser*.py, SIMPLESEG_SCREENSHOTS=FOLDER |
| annotator.png, consensus_nano.png | benchmarks/annotator.py, consensus.py, --plot |
| gspo_nano.png, rollout.jpg, quickstart.jpg, second_look.jpg | runs of training |
"""
import argparse
import os
import sys
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import figures  # noqa: E402
import look  # noqa: E402
import masks  # noqa: E402
import runs  # noqa: E402
import schemes  # noqa: E402

#: name -> a function that draws it and says in a sentence what it shows
PICTURES = {**schemes.PICTURES, **figures.PICTURES, **masks.PICTURES,
            **runs.PICTURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=', '.join(sorted(PICTURES)))
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images')
    args = parser.parse_args()
    if unknown := set(args.names) - set(PICTURES):
        parser.error(f'no picture {", ".join(sorted(unknown))}; there are '
                     f'{", ".join(sorted(PICTURES))}')
    out = args.out.resolve()
    os.chdir(ROOT)  # configs are named from there
    for name in args.names or PICTURES:
        with matplotlib.rc_context(look.SETTINGS):
            figure, label = PICTURES[name]()
            path = out / f'{name}.svg'
            look.save(figure, path, label)
        print(f'{path}: {path.stat().st_size} bytes')


if __name__ == '__main__':
    main()
