"""Fit the confidence of a consensus on a validation set: its own -> probability of being right.

    python tools/analysis_tools/calibrate.py CONFIG CHECKPOINT
    python tools/analysis_tools/calibrate.py CONFIG CHECKPOINT \\
        --cfg-options model.consensus.samples=16

The whole validation set of the config is answered by ``model.consensus`` (8 samples unless told),
and what it teaches is written as JSON beside the checkpoint: ``model.consensus.calibration=FILE``
reads it. Of lists it is about their instances. The last line is one JSON object.
"""
import argparse
import json
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
    parser.add_argument('checkpoint', help="checkpoint or run; 'none' for the weights that the "
                        'config names')
    parser.add_argument('--out', help='.json file (default: CHECKPOINT.calibration.json)')
    parser.add_argument('--right', type=float, help='IoU from which on an answer is right (0.7; '
                        'an instance of a list: 0.5)')
    parser.add_argument('--work-dir', help='logs (default: work_dirs/CONFIG)')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    args = parser.parse_args()
    if args.out and not args.out.endswith('.json'):
        parser.error(f'--out {args.out}: give a .json file')
    if not args.out and args.checkpoint == 'none':
        parser.error('--out FILE.json: there is no checkpoint to lay the file beside')
    if args.right is not None and not 0 < args.right <= 1:
        parser.error(f'--right {args.right}: an IoU above 0 and up to 1')
    return args


def load_config(args: argparse.Namespace) -> tuple['Config', str]:
    """The config of a test of the validation set, and the path of the calibration."""
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch  # takes seconds to load: not for --help
    from simpleseg_mm.models.consensus import Consensus
    cfg = read_config(args.config, args.cfg_options, said={
        'load_from': 'the argument checkpoint', 'resume': 'the argument checkpoint',
        'launcher': '--launcher'})
    if not (cfg.get('val_dataloader') or {}).get('dataset'):
        raise ValueError(f'{args.config} has no val_dataloader.dataset, which is what a '
                         'calibration is fitted to')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or launch.default_work_dir(args.config)
    cfg.resume, cfg.load_from = False, launch.existing_checkpoint(args.checkpoint)
    cfg.model.consensus = dict(cfg.model.get('consensus') or {}, calibration=None)
    consensus = Consensus.of(cfg.model.consensus)
    if consensus is None:
        raise ValueError('model.consensus.samples=0: there is no agreement to fit')
    out = args.out or f'{cfg.load_from}.calibration.json'
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_dataloader.dataset.pop('indices', None)  # the whole set
    cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    cfg.test_evaluator = [dict(type='ConfidenceMetric', right=args.right, fit_to=out,
                               settings=consensus.drawn_by)]
    return cfg, out


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from simpleseg_mm.calibration import Calibration
    from simpleseg_mm.engine import launch, processes
    with launch.one_line_errors():
        cfg, out = load_config(args)
        processes.prepare_launcher(cfg, args.launcher)
        launch.build_runner(cfg, 'test').test()
        if is_main_process():
            found = Calibration.load(out)
            print(f'{out}: set model.consensus.calibration={out}')
            print(json.dumps(dict(found.figures, file=out)), flush=True)
        processes.leave_processes()


if __name__ == '__main__':
    main()
