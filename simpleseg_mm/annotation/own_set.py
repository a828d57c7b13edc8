"""What tools/dataset_converters/own_data.py does: a set, a config for it, a report."""
import argparse
import math
import os
import re
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from simpleseg_mm.choices import BASES, VAL_SHARE
from simpleseg_mm.config import find_config, read_config
from simpleseg_mm.files import replace_text
from simpleseg_mm.polygon import PolygonCodec, mask_iou
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.scenes import is_scene
from . import own_data
from .own_account import Account
from .own_files import read_own, validation_of
from .own_folder import OwnFolder
from .own_formats import Reading

_VAL_QUERIES = 200  # that training looks at; the test takes all
_CEILING_QUERIES = 200  # that the text's ceiling is measured on


def base_of(args: argparse.Namespace) -> tuple[Path, float | None, int | None]:
    """The base config, and the epochs and batch of the new schedule."""
    path, epochs, batch = BASES.get(args.base, (args.base, None, None))
    try:
        path = Path(find_config(path)).resolve()
    except FileNotFoundError:  # said with all else that is wrong
        path = Path(path).resolve()
    return path, args.epochs or epochs, args.batch or batch or 16


def faults_of(args: argparse.Namespace) -> list[str]:
    """Everything that is wrong with the arguments."""
    faults = []
    if not base_of(args)[0].is_file():
        faults.append(f'no base {args.base}: give one of {list(BASES)}, or a config')
    if not args.annotations.exists():
        faults.append(f'no annotations {args.annotations}: give a file or a folder of them')
    if val_share_of(args) is None and not Path(args.val).exists():
        faults.append(f'--val {args.val}: a share between 0 and 1, or annotations that are there')
    for name in ('images', 'val_images', 'expressions'):
        path = getattr(args, name)
        if path is not None and not (path.is_file() if name == 'expressions' else path.is_dir()):
            faults.append(f'--{name.replace("_", "-")} {path}: there is no such '
                          f'{"file" if name == "expressions" else "folder"}')
    if args.val_images is not None and val_share_of(args) is not None:
        faults.append('--val-images goes with annotations in --val')
    for name, low, high in (('absent', 0, math.inf), ('epochs', 0, 1e6), ('batch', 1, 1e6),
                            ('white', 1, 65535), ('seed', 0, math.inf)):
        value = getattr(args, name)
        if value is not None and not (low <= value <= high and (name != 'epochs' or value > 0)):
            faults.append(f'--{name} {value}: a number from {low} on'
                          + ('' if high == math.inf else f', at most {high:g}'))
    if args.out.exists() and not args.out.is_dir():
        faults.append(f'{args.out} is a file; give the folder of the new set')
    return faults


def val_share_of(args: argparse.Namespace) -> float | None:
    """The share in --val; None where it names annotations."""
    try:
        share = float(VAL_SHARE if args.val is None else args.val)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def schedule(queries: int, epochs: float, batch: int) -> str:
    """Lines of a config: updates for so many passes, at least 60; 3 % of them warm up."""
    updates = max(60, math.ceil(epochs * queries / batch))
    warmup = max(1, round(0.03 * updates))
    return f'''
train_cfg = dict(
    global_batch_size={batch}, max_iters={updates}, val_interval={max(1, updates // 4)})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warmup}),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.04, by_epoch=False, begin={warmup})
]
'''


def config_path(args: argparse.Namespace, out: Path) -> Path:
    """``OUT/BASE_OUT.py``."""
    name = args.base if args.base in BASES else base_of(args)[0].stem
    return out / (re.sub(r'\W', '_', f'{name}_{out.name}') + '.py')


def read_base(args: argparse.Namespace) -> Config:
    """The config of which the new one is a child. ValueError where it cannot be."""
    base = base_of(args)[0]
    parent = read_config(str(base))
    if not parent.get('codec') or not (parent.get('train_dataloader') or {}).get('dataset'):
        raise ValueError(f'--base {base} has no codec or no train_dataloader.dataset: take one of '
                         f'{list(BASES)}, or a config of training')
    return parent


def write_config(args: argparse.Namespace, out: Path, img_dir: Path, report: dict,
                 parent: Config) -> Path:
    """The config, a child of the base. Its paths hold from any folder and through links."""
    base, epochs, batch = base_of(args)
    said = parent.train_dataloader.dataset.get('query', {})
    kept = ''.join(f', {key}={said[key]!r}' for key in ('templates', 'turns') if key in said)
    query = f"query=dict(train_set['query']{kept})"
    share = f'batch_size={math.gcd(batch, 8)}, ' if epochs else ''
    trained = f'''train_dataloader = dict(
    {share}dataset=dict(train_set, _delete_=True, {query}))'''
    if args.prompts:
        trained = f'''object_set = dict(
    train_set, targets='object',
    query=dict(train_set['query']{kept}, tasks=dict(point2mask=1.0, box2mask=1.0)))
train_dataloader = dict({share}dataset=dict(
    _delete_=True, type='JoinedDataset', datasets=[dict(train_set, {query}), object_set]))'''
    absent = report['train']['queries']['none'] or report['val']['queries']['none']
    family = 'gres' if absent else 'res'
    queries = (sum(report['train']['queries'].values())
               + args.prompts * report['train']['objects'])
    shown = min(_VAL_QUERIES, sum(report['val']['queries'].values()))
    name = args.base if args.base in BASES else base.stem
    text = f'''# {name} on {out.name!r}, asked by {report['targets']}.
# Written by tools/dataset_converters/own_data.py; change what you like.
_base_ = {str(base)!r}
train_set = dict(
    type='CocoQueryDataset',
    data_root={str(out)!r},
    ann_file='annotations/train.json',
    img_dir={os.path.relpath(img_dir, out)!r},
    name={out.name!r},
    split='train',
    targets='phrase',  # an annotation's phrases are what it is asked by, categories too
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
    path = config_path(args, out)
    replace_text(path, text)
    return path


def try_config(path: Path) -> dict:
    """What the config reads: ``samples`` of each split, and the ``text_ceiling``."""
    cfg = Config.fromfile(path)
    init_default_scope('simpleseg_mm')
    sizes = {}
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.test_dataloader)):
        dataset = DATASETS.build(loader.dataset)
        dataset[0]
        sizes[split] = len(dataset)
    asked = cfg.test_dataloader.dataset
    codec = PolygonCodec(**asked.query.codec)
    asked = [DATASETS.build(dict(asked, ann_file=f'annotations/{split}.json'))
             for split in own_data.OWN_SPLITS]
    return dict(samples=sizes, text_ceiling=text_ceiling(asked, codec))


def text_ceiling(datasets: list, codec: PolygonCodec) -> dict:
    """What the text itself costs: mean IoU of true outlines once written and read again.

    Measured on at most ``_CEILING_QUERIES`` queries that have a target, evenly drawn; ``scenes``
    of them are on pictures that look like RefShapes'.
    """
    places = [(dataset, k) for dataset in datasets for k in range(len(dataset))
              if dataset.get_data_info(k)['instances']]
    scenes = 0
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _CEILING_QUERIES),
                                   dtype=int)) if places else []
    found = []
    for number in chosen:
        dataset, k = places[number]
        item = dataset[k]
        sample, image = item['data_samples'], item['inputs'].permute(1, 2, 0).numpy()
        scenes += bool(is_scene(image))
        mask = sample.gt_masks.masks[0] > 0
        decoded = codec.decode(sample.answer, mask.shape)
        found.append(mask_iou(decoded.mask, mask))
    return dict(queries=len(found), scenes=scenes,
                mean_iou=round(float(np.mean(found)), 4) if found else None)


def advice_on_base(args: argparse.Namespace, report: dict) -> str | None:
    """A warning where nano is trained on what it does not know."""
    ceiling = report['text_ceiling']
    if args.base != 'nano' or ceiling['scenes'] > ceiling['queries'] / 2:
        return None
    return ('nano knows only the generated scenes of RefShapes, no photos. Use it to try the '
            f'steps: its text cannot exceed a mean IoU of {100 * ceiling["mean_iou"]:.1f} % on '
            'this set. For a useful model give --base 3b-lora (LoRA on Qwen2.5-VL-3B, one GPU of '
            '16 GB or more)')


def make_set(args: argparse.Namespace, out: Path, folder: OwnFolder, account: Account) -> dict:
    """Convert, write the config and try it; returns the report.

    Args:
        args: of tools/dataset_converters/own_data.py.
        out: folder of the new set, absolute.
        folder: what this tool wrote there before.
        account: takes what is left out and what is decided.

    Raises:
        OSError, ValueError: in one line, why no set is made.
    """
    if faults := faults_of(args):
        raise ValueError('; '.join(faults))
    base = read_base(args)
    targets = [config_path(args, out), out / 'report.json',
               *(out / f'annotations/{split}.json' for split in own_data.OWN_SPLITS)]
    for path in (args.annotations, args.val and Path(args.val), args.expressions):
        if path is not None and path.resolve() in targets:
            raise ValueError(f'{path} is read, and would be replaced: give another folder for the '
                             'new set')
    folder.check(targets)
    reading = Reading(args.images, args.expressions, args.boxes, args.crowds, out)
    sets = [read_own(args.annotations, reading, account)]
    share = val_share_of(args)
    if share is None:
        reading = Reading(args.val_images, None, args.boxes, args.crowds, out)
        sets.append(read_own(Path(args.val), reading, account, 'val'))
    elif validation_of(args.annotations, reading):
        if args.val is None:
            sets.append(read_own(args.annotations, reading, account, 'val'))
        account.decide('pictures of val in data.yaml: ' + (
            'they validate' if args.val is None else
            'not read, for --val gives a share of the others'), str(args.annotations))
    choices = own_data.Choices(args.ask, args.expressions is not None, args.absent, args.prompts,
                               args.exif, args.white, share or VAL_SHARE, args.seed)
    if not any(own.pictures for own in sets[:1]):
        raise ValueError(f'{args.annotations} holds no usable picture: {dict(account.reasons)}')
    out.mkdir(parents=True, exist_ok=True)
    done = own_data.convert(out, sets, choices, account, folder.is_ours,
                            lambda items: tqdm(items, 'pictures', unit='picture'))
    config = write_config(args, out, done.img_dir, done.report, base)
    folder.note([config, *done.written])
    report = dict(ok=True, config=os.path.join(os.path.abspath(args.out), config.name),
                  **done.report, **try_config(config), **account.report())
    expected = account.used['query'] + account.used['prompt']
    assert sum(report['samples'].values()) == expected, (report['samples'], account.used)
    return dict(report, warning=advice_on_base(args, report))
