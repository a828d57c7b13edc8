"""Annotations of one's own (COCO or LabelMe) -> a training set and a config that is ready to run.

    python tools/dataset_converters/own_data.py coco.json data/mine --images photos
    python tools/dataset_converters/own_data.py labelme_folder data/mine --base 3b-lora
    python tools/train.py data/mine/nano_mine.py

Where annotations have expressions, they are asked by these, else by category. Every picture is
decoded and every mask too; what cannot be used is left out and listed. The last line is one JSON
object, which is also ``OUT/report.json``.
"""
import argparse
import json
import math
import os
import sys
from pathlib import Path

from simpleseg_mm import stopping

if __name__ == '__main__':  # also while the libraries below are loaded
    stopping.end_in_one_line('the set is not whole; the same command starts again.')

from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from simpleseg_mm.annotation import own_data
from simpleseg_mm.annotation.own_formats import LeftOut, read_own
from simpleseg_mm.registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]
#: base: its config, epochs and batch (None: the base's own schedule). Our choice
BASES = {'nano': ('configs/simpleseg/nano_sft_refshapes.py', None, None),
         '3b-lora': ('configs/simpleseg/qwen25vl_3b_lora_sft_refcoco.py', 3, 16)}
_VAL_QUERIES = 200  # that training looks at; the test takes all


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', type=Path,
                        help="COCO file, LabelMe file, or folder of LabelMe's files")
    parser.add_argument('out', type=Path, help='folder of the new set')
    parser.add_argument('--images', type=Path, help='folder of the pictures, which stay there '
                        '(default: beside the annotations)')
    parser.add_argument('--expressions', type=Path, metavar='FILE',
                        help='JSON rows {"ann_id": 7, "sentences": ["the red car"]} for COCO')
    parser.add_argument('--val', default='0.1', metavar='SHARE_OR_ANNOTATIONS',
                        help='share of the pictures that validate, or annotations of their own '
                        '(default: %(default)s)')
    parser.add_argument('--val-images', type=Path, help='folder of their pictures')
    parser.add_argument('--absent', type=int, default=0, metavar='K',
                        help='by category: also ask each picture for K categories that it does '
                        'not hold, answered by []; for sets annotated throughout')
    parser.add_argument('--prompts', action='store_true', help='also train outlines from a point '
                        'and from a box, object by object')
    parser.add_argument('--base', default='nano', metavar='NAME_OR_CONFIG',
                        help=f'{", ".join(BASES)}, or a config (default: %(default)s)')
    parser.add_argument('--epochs', type=float, help="passes over the queries (default: the "
                        "base's own schedule; 3b-lora: 3)")
    parser.add_argument('--batch', type=int, help='queries of an update, with --epochs')
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    return parser.parse_args()


def base_of(args: argparse.Namespace) -> tuple[Path, float | None, int | None]:
    """The base config, and the epochs and batch of the new schedule."""
    path, epochs, batch = BASES.get(args.base, (args.base, None, None))
    path = ROOT / path if args.base in BASES else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no base {args.base}: give one of {list(BASES)}, or a config')
    return path, args.epochs or epochs, args.batch or batch or 16


def schedule(queries: int, epochs: float, batch: int) -> str:
    """Lines of a config: updates for so many passes, at least 60; 3 % of them warm up."""
    updates = max(60, math.ceil(epochs * queries / batch))
    warmup = max(1, round(0.03 * updates))
    return f'''
global_batch_size = {batch}
train_cfg = dict(max_iters={updates}, val_interval={max(1, updates // 4)})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warmup}),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.04, by_epoch=False, begin={warmup})
]
'''


def write_config(args: argparse.Namespace, img_dir: Path, report: dict) -> Path:
    """``OUT/BASE_OUT.py``, a child of the base."""
    base, epochs, batch = base_of(args)
    parent = Config.fromfile(base)
    said = parent.train_dataloader.dataset.get('query', {})
    kept = ''.join(f', {key}={said[key]!r}' for key in ('templates', 'turns') if key in said)
    query = f"query=dict(train_set['query']{kept})"
    share = f'batch_size={math.gcd(batch, 8)}, ' if epochs else ''
    trained = f'''train_dataloader = dict(
    {share}dataset=dict(train_set, _delete_=True, {query}))'''
    if args.prompts:
        trained = f'''object_set = dict(
    train_set, targets='object', absent=0,
    query=dict(train_set['query']{kept}, tasks=dict(point2mask=1.0, box2mask=1.0)))
train_dataloader = dict({share}dataset=dict(
    _delete_=True, type='JoinedDataset', datasets=[dict(train_set, {query}), object_set]))'''
    absent = args.absent or report['train']['queries']['none'] or report['val']['queries']['none']
    family = 'gres' if absent else 'res'
    queries = (sum(report['train']['queries'].values()) + args.absent * report['train']['images']
               + args.prompts * report['train']['objects'])
    shown = min(_VAL_QUERIES, sum(report['val']['queries'].values()))
    name = args.base if args.base in BASES else base.stem
    text = f'''# {name} on {args.out.name}, asked by {report['targets']}.
# Written by tools/dataset_converters/own_data.py; change what you like.
_base_ = {os.path.relpath(base, args.out)!r}
train_set = dict(
    type='CocoQueryDataset',
    data_root={str(args.out)!r},
    ann_file='annotations/train.json',
    img_dir={os.path.relpath(img_dir, args.out)!r},
    name={args.out.name!r},
    split='train',
    targets={report['targets']!r},
    absent={args.absent},
    query=dict(type='FormatQuery', codec=_base_.codec, tasks=dict(text2mask=1.0)))
val_set = dict(
    train_set, _delete_=True, ann_file='annotations/val.json', split='val', test_mode=True)
{trained}
val_dataloader = dict(dataset=dict(val_set, indices={shown}))
test_dataloader = dict(dataset=val_set)
default_hooks = dict(checkpoint=dict(save_best='{family}/gIoU', rule='greater'))
'''
    if family == 'gres':
        text += ("val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]\n"
                 'test_evaluator = val_evaluator\n')
    if epochs:
        text += schedule(queries, epochs, batch)
    path = args.out / f'{name.replace("-", "_")}_{args.out.name}.py'
    path.write_text(text, encoding='utf-8')
    return path


def try_config(path: Path) -> dict:
    """Samples of each split, as the config reads them; the first of each is packed."""
    cfg = Config.fromfile(path)
    init_default_scope('simpleseg_mm')
    sizes = {}
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.test_dataloader)):
        dataset = DATASETS.build(loader.dataset)
        dataset[0]
        sizes[split] = len(dataset)
    return sizes


def main() -> int:
    args = parse_args()
    left_out = LeftOut()
    try:
        report = run(args, left_out)
    except (OSError, ValueError) as error:
        report = dict(ok=False, error=str(error))
    report['left_out_or_changed'] = dict(left_out.counts)
    for reason, count in left_out.counts.most_common():
        print(f'{count} x {reason}, such as:')
        for where in left_out.examples[reason]:
            print(f'    {where}')
    if report['ok']:
        (args.out / 'report.json').write_text(json.dumps(report, indent=1, ensure_ascii=False),
                                              encoding='utf-8')
        print(f'\npython tools/analysis_tools/browse_dataset.py {report["config"]} --out-dir '
              f'{args.out}/pictures\npython tools/train.py {report["config"]}')
    else:
        print(f'own_data.py: {report["error"]}', file=sys.stderr)
    print(json.dumps(report, ensure_ascii=False))
    return 0 if report['ok'] else 1


def run(args: argparse.Namespace, left_out: LeftOut) -> dict:
    """Convert; returns the report."""
    base_of(args)
    train = read_own(args.annotations, args.images, args.expressions, left_out)
    try:
        val = float(args.val)
        if not 0 < val < 1:
            raise ValueError(f'--val {args.val}: a share between 0 and 1, or annotations')
    except ValueError:
        if not Path(args.val).exists():
            raise ValueError(f'--val {args.val}: a share between 0 and 1, or annotations that '
                             'are there') from None
        val = read_own(Path(args.val), args.val_images, None, left_out)
    folders = [str(picture.path.parent.resolve()) for picture in train]
    if not folders:
        raise ValueError(f'{args.annotations} holds no usable picture: {dict(left_out.counts)}')
    img_dir = Path(os.path.commonpath(folders))
    args.out.mkdir(parents=True, exist_ok=True)
    report = own_data.convert(args.out.resolve(), train, val, args.seed, left_out, img_dir,
                              lambda items: tqdm(items, 'pictures', unit='picture'))
    if args.absent and report['targets'] != 'category':
        raise ValueError('--absent asks for categories; these annotations have expressions. Give '
                         'expressions that fit nothing: absent_phrases of an image, or rows with '
                         'ann_id -1 and an image_id')
    config = write_config(args, img_dir, report)
    return dict(ok=True, config=str(config), **report, samples=try_config(config))


if __name__ == '__main__':
    sys.exit(main())
