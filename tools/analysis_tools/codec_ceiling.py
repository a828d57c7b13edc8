"""What the text itself costs: ground truth -> text -> mask over a COCO file, no model involved.

    python tools/analysis_tools/codec_ceiling.py instances.json
    python tools/analysis_tools/codec_ceiling.py instances.json --tokens 250
    python tools/analysis_tools/codec_ceiling.py instances.json --preset paper --epsilon 0.005

Prints a table, and one JSON object on the last line. Tokens are counted by Qwen's digit rule;
times are processor time of one core.
"""
import argparse
import json

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.choices import CODEC_PRESETS


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', help='a COCO instances file')
    parser.add_argument('--preset', default='default', choices=CODEC_PRESETS)
    parser.add_argument('--tokens', type=float, default=150,
                        help='mean tokens a mask asked for (default preset)')
    parser.add_argument('--epsilon', type=float, help='tolerance of Douglas-Peucker instead')
    parser.add_argument('--grammar', help="'int1000', and 'decimal3' for the paper preset")
    parser.add_argument('--min-area', type=int, default=20, help='skip smaller objects, pixels')
    parser.add_argument('--limit', type=int, help='only the first so many objects')
    return parser.parse_args()


def main():
    args = parse_args()
    from simpleseg_mm.polygon import PolygonCodec
    from simpleseg_mm.polygon.ceiling import load_masks, measure, summarise
    grammar = args.grammar or ('int1000' if args.preset == 'default' else 'decimal3')
    codec = PolygonCodec(args.preset, grammar, tokens=args.tokens, epsilon=args.epsilon)
    rows = measure(codec, load_masks(args.annotations, args.min_area, args.limit))
    if not rows.size:
        raise SystemExit(f'{args.annotations} has no object of at least {args.min_area} px')
    report = summarise(rows)
    print(codec)
    for key, value in report.items():
        print(f'  {key:18} {value}')
    print(json.dumps(dict(report, preset=args.preset, grammar=grammar, tokens=args.tokens,
                          epsilon=codec.epsilon)))


if __name__ == '__main__':
    main()
