"""A config's training queries as conversations for another trainer.

    python tools/dataset_converters/to_chat.py CONFIG sft.parquet --for ms-swift --stage sft
    python tools/dataset_converters/to_chat.py CONFIG rl.parquet --for verl --stage rl --limit 1000

Writes what this package's own training reads: prompts by the config's templates, answers by its
codec, several turns where it has them. RL rows hold the first prompt, and the target as the JSON
text of a COCO RLE, for the reward functions of ``simpleseg_mm.rl``. Pictures stay where they are.
What cannot be written is left out and counted. The last line is one JSON object.
"""
import argparse
import json
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line('OUT is not written; the same command starts again (remove the '
                             'folder OUT_pictures where it was asked for).')

from simpleseg_mm.choices import CHAT_STAGES, CHAT_TRAINERS, COPIES
from simpleseg_mm.commands.options import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('out', type=Path, help='file to write: NAME.jsonl or NAME.parquet')
    parser.add_argument('--for', dest='trainer', required=True, choices=CHAT_TRAINERS)
    parser.add_argument('--stage', required=True, choices=CHAT_STAGES,
                        help='answers to learn from, or prompts with the target for a reward')
    parser.add_argument('--split', default='train', choices=('train', 'val', 'test'),
                        help='the queries of this dataloader (default: %(default)s)')
    parser.add_argument('--visits', type=int, default=1, metavar='N', help='times that each '
                        'sample is written: tasks, templates, points and further turns are drawn '
                        'anew at each visit, as in N epochs (default: %(default)s)')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N samples')
    parser.add_argument('--pictures', default='never', choices=COPIES, help='copy none; those '
                        'that other tools would read otherwise (turned, transparent, 16 bits, '
                        'inside shards); or all, to NAME_pictures beside OUT (default: '
                        '%(default)s)')
    parser.add_argument('--relative-to', type=Path, metavar='FOLDER',
                        help='write paths of pictures from this folder (default: absolute)')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.registry import init_default_scope
    from tqdm import tqdm

    from simpleseg_mm.config import read_config
    from simpleseg_mm.datasets.transforms import META_KEYS
    from simpleseg_mm.engine.launch import one_line_errors  # loads transformers: not for --help
    from simpleseg_mm.export.chat import TRAINERS
    from simpleseg_mm.export.chat_rows import ChatRows, check_request, dataset_of
    from simpleseg_mm.export.picture_paths import PicturePaths
    from simpleseg_mm.export.tables import list_set, write_rows
    from simpleseg_mm.files import make_folder
    from simpleseg_mm.registry import DATASETS
    pictures = PicturePaths(args.out.with_name(f'{args.out.stem}_pictures'), args.pictures,
                            args.relative_to)
    with one_line_errors():
        check_request(args.out, args.trainer, args.stage, pictures, visits=args.visits,
                      limit=args.limit)
        cfg = read_config(args.config, args.cfg_options)
        asked = dataset_of(cfg, args.split, args.config)
        init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
        dataset = DATASETS.build(asked)
        total = len(dataset) * args.visits
        rows = ChatRows(dataset, range(min(total, args.limit or total)), META_KEYS,
                        (cfg.get('model') or {}).get('mllm') or {}, args.trainer, args.stage,
                        args.out.suffix, pictures)
        make_folder(args.out.parent, 'the folder of OUT')
        write_rows(args.out, tqdm(rows, unit='sample'),
                   TRAINERS[args.trainer].images)
        for reason, example in rows.examples.items():
            print(f'left out {rows.left_out[reason]}: {reason}; the first: {example}')
        rows.check_some()
        listed = list_set(args.out) if TRAINERS[args.trainer].lists_sets else None
    for note in rows.notes():
        print(f'note: {note}')
    print(json.dumps(dict(
        out=str(args.out), trainer=args.trainer, stage=args.stage, samples=rows.seen,
        rows=rows.written, left_out=dict(rows.left_out), visits=args.visits,
        dataset=len(dataset), pictures_copied=pictures.copied, bytes=args.out.stat().st_size,
        **({} if listed is None else dict(dataset_info=str(listed))))))


if __name__ == '__main__':
    main()
