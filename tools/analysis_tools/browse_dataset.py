"""Look at a dataset as training sees it: image, mask, vertices, prompt and answer.

    python tools/analysis_tools/browse_dataset.py configs/_base_/datasets/refshapes.py \\
        --out-dir work_dirs/browse --num 12

Writes one picture a sample and ``contact_sheet.png``. Green stripes: the true mask. Red: what the
answer says, decoded from its text. Blue: what the prompt gives. Samples come in the order of the
config's sampler.
"""
import argparse
import json
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/browse_dataset'))
    parser.add_argument('--num', type=int, default=12, help='samples to draw')
    parser.add_argument('--mode', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--side', type=int, default=448, help='longer side of a picture, pixels')
    parser.add_argument('--columns', type=int, default=4, help='of the contact sheet')
    parser.add_argument('--seed', type=int, default=0, help='of the sampler')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.registry import init_default_scope  # these load torch: not for --help

    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine.launch import one_line_errors
    from simpleseg_mm.registry import DATA_SAMPLERS, DATASETS
    from simpleseg_mm.visualization.browse import draw_samples
    with one_line_errors():
        for name in ('num', 'side', 'columns'):
            if getattr(args, name) < 1:
                raise ValueError(f'--{name} {getattr(args, name)}: give a number from 1 on')
        config = read_config(args.config, args.cfg_options, needs=(f'{args.mode}_dataloader', ))
        init_default_scope(config.get('default_scope', 'simpleseg_mm'))
        loader = config[f'{args.mode}_dataloader']
        dataset = DATASETS.build(loader.dataset)
        sampler = DATA_SAMPLERS.build(loader.sampler,
                                      default_args=dict(dataset=dataset, seed=args.seed))
        count = draw_samples(dataset, sampler, args.num, args.out_dir, args.side, args.columns)
    print(json.dumps(dict(samples=count, dataset=len(dataset), out_dir=str(args.out_dir))))


if __name__ == '__main__':
    main()
