"""What general ability training has kept: a fixed set of questions, before and after.

    python tools/analysis_tools/retention.py CONFIG CHECKPOINT [--base none|CHECKPOINT]

The questions are the config's ``retention_dataloader`` and are scored by its
``retention_evaluator``, all figures in percent. The last line is one JSON object, a figure's name
-> before, after, change and the number of questions. What the model wrote is in the work dir's
``before.jsonl`` and ``after.jsonl``.
"""
import argparse
import copy
import json
import os
import os.path as osp
from typing import TYPE_CHECKING

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint or run: after')
    parser.add_argument('--base', default='none', help="checkpoint before; 'none' (default): the "
                        'weights that the config names')
    parser.add_argument('--work-dir', help='logs (default: work_dirs/CONFIG/retention)')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> 'Config':
    """The config with the questions as its test set.

    Raises:
        ValueError, FileNotFoundError: It has no questions; a checkpoint is missing.
    """
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch  # loads torch: not for --help
    cfg = read_config(args.config, args.cfg_options,
                      ('retention_dataloader', 'retention_evaluator'), said={
                          'load_from': 'the argument checkpoint',
                          'resume': 'the argument checkpoint', 'launcher': '--launcher'})
    for key in ('retention_dataloader', 'retention_evaluator'):
        if not cfg.get(key):
            raise ValueError(f"{args.config} has no {key}: add a piece such as "
                             "'../_base_/retention/refshapes.py' to its _base_")
    for checkpoint in (args.checkpoint, args.base):
        launch.existing_checkpoint(checkpoint)
    cfg.work_dir = args.work_dir or osp.join(launch.default_work_dir(args.config), 'retention')
    cfg.resume = False
    cfg.test_dataloader = cfg.retention_dataloader
    cfg.test_cfg = dict(type='TestLoop')
    return cfg


def score(cfg: 'Config', name: str, checkpoint: str) -> tuple[dict, dict]:
    """Figures of one model, and the number of questions of each kind, where the set knows it."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from simpleseg_mm.engine import launch
    from simpleseg_mm.evaluation import check_metric_names
    cfg = copy.deepcopy(cfg)
    cfg.load_from = launch.existing_checkpoint(checkpoint)
    cfg.experiment_name = f'retention_{name}'
    cfg.test_evaluator = [*launch.as_list(cfg.retention_evaluator), dict(
        type='TextDump', out_file=osp.join(cfg.work_dir, f'{name}.jsonl'))]
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_metric_names(runner.test_evaluator.metrics)
    figures = {key.removeprefix('retention/'): float(value)
               for key, value in runner.test().items()}
    dataset = runner.test_dataloader.dataset
    return figures, dataset.counts() if hasattr(dataset, 'counts') else {}


def compare(before: dict, after: dict, counts: dict) -> dict:
    """figure -> before, after, change, rounded to 0.01, and the questions that it is a mean of."""
    return {name: dict(before=round(before[name], 2), after=round(after[name], 2),
                       change=round(after[name] - before[name], 2),
                       questions=counts.get(name.split('/')[0]))
            for name in after}


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from simpleseg_mm.engine import launch, processes
    with launch.one_line_errors():
        try:
            cfg = load_config(args)
        except ValueError as error:
            raise SystemExit(f'retention: {error}') from None
        processes.prepare_launcher(cfg, args.launcher)
        before, counts = score(cfg, 'before', args.base)
        after, _ = score(cfg, 'after', args.checkpoint)
        rows = compare(before, after, counts)
        if is_main_process():
            print(f'{"":20}{"questions":>10}{"before":>9}{"after":>9}{"change":>9}')
            for name, row in rows.items():
                print(f'{name:20}{row["questions"]!s:>10}{row["before"]:9.2f}{row["after"]:9.2f}'
                      f'{row["change"]:+9.2f}')
            print(json.dumps(rows), flush=True)
        processes.leave_processes()


if __name__ == '__main__':
    main()
