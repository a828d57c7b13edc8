"""Train a model: python tools/train.py CONFIG [--work-dir DIR] [--resume [auto|CHECKPOINT]] ..."""
import argparse
import os
from typing import TYPE_CHECKING

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU only)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by the batch, instead of accumulating '
                        "gradients up to train_cfg.global_batch_size")
    parser.add_argument('--resume', nargs='?', const='auto',
                        help='continue: from this checkpoint, or from the newest whole one of the '
                        'work dir')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch of old passes --local_rank
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> 'Config':
    import torch  # these take seconds to load: not for --help

    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch
    said = {'launcher': '--launcher'}
    if args.work_dir:
        said['work_dir'] = '--work-dir'
    if args.amp:
        said['optim_wrapper.type'] = '--amp'
    if args.auto_scale_lr:
        said['train_cfg.global_batch_size'] = '--auto-scale-lr'
    if args.resume:
        said['resume'] = '--resume'
        if args.resume != 'auto':  # which starts from load_from where there is nothing to resume
            said['load_from'] = '--resume'
    cfg = read_config(args.config, args.cfg_options, said=said, needs=(
        'model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or launch.default_work_dir(args.config)

    if args.amp:
        if not torch.cuda.is_available():
            raise ValueError("--amp needs a GPU, and none is visible: train in the model's own "
                             'dtype (leave --amp out)')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        # bfloat16 needs no loss scaling; GradScaler stays a no-op
        cfg.optim_wrapper.setdefault('dtype', 'bfloat16')
        cfg.optim_wrapper.setdefault('loss_scale', dict(enabled=False))
    if args.auto_scale_lr:
        launch.scale_learning_rate(cfg)

    if args.resume == 'auto' or not args.resume and cfg.get('resume') and not cfg.get('load_from'):
        checkpoint = launch.find_resumable(cfg.work_dir)
        cfg.resume, cfg.load_from = bool(checkpoint), checkpoint or cfg.get('load_from')
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume
    if cfg.get('load_from'):
        cfg.load_from = launch.whole_checkpoint(cfg.load_from)
    return cfg


def main() -> None:
    args = parse_args()
    from simpleseg_mm.engine import launch, processes
    from simpleseg_mm.engine.safe_stop import resumable
    from simpleseg_mm.evaluation import check_metric_names
    from simpleseg_mm.files import make_folder
    with launch.one_line_errors():
        cfg = load_config(args)
        processes.prepare_launcher(cfg, args.launcher)
        launch.check_training(cfg, processes.world_size(args.launcher))
        launch.check_save_best(cfg)
        launch.shorten_warm_up(cfg)
        make_folder(cfg.work_dir, 'the work dir')
        runner = launch.build_runner(cfg, 'train', 'val')
        if runner.val_loop is not None:
            check_metric_names(runner.val_evaluator.metrics)
        with resumable(runner):
            runner.train()
        processes.leave_processes()


if __name__ == '__main__':
    main()
