"""Kimi-VL's folder as released <-> a folder that transformers loads without remote code.

    python tools/model_converters/kimi_vl.py Kimi-VL-A3B-Instruct kimi_vl
    python tools/model_converters/kimi_vl.py --back kimi_vl Kimi-VL-A3B-Instruct-again

There and back every weight is the same, bit for bit. One file of weights is held at a time.
"""
import argparse

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='folder to read')
    parser.add_argument('out', help='new folder to write')
    parser.add_argument('--back', action='store_true', help="transformers' layout -> as released")
    parser.add_argument('--original', help='with --back: released folder whose config, tokenizer '
                        'and code are copied (default: SOURCE/original)')
    parser.add_argument('--shard-gib', type=float, default=5, help='size of a file of weights')
    args = parser.parse_args()
    if args.original and not args.back:
        parser.error('--original goes with --back')
    from simpleseg_mm.engine import launch  # these take seconds to load: not for --help
    from simpleseg_mm.models.families.kimi_checkpoint import to_released, to_transformers
    shard_bytes = int(args.shard_gib * 2 ** 30)
    with launch.one_line_errors():
        if args.back:
            to_released(args.source, args.out, args.original, shard_bytes)
        else:
            to_transformers(args.source, args.out, shard_bytes)
    print(f'{args.out} written')


if __name__ == '__main__':
    main()
