"""Test a model: python tools/test.py CONFIG CHECKPOINT. The last line is the metrics as JSON."""
import argparse
import json
import math
import os
from typing import TYPE_CHECKING

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import KeyValues, add_config_options

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint',
                        help="checkpoint, a run's folder (RUN, RUN/best, RUN/last), or 'none' for "
                        'the weights that the config names')
    parser.add_argument('--work-dir', help='logs (default: work_dirs/CONFIG)')
    parser.add_argument('--out', help='write the predictions to this .pkl file, or the '
                        'answers as text to this .jsonl file')
    parser.add_argument('--show', action='store_true', help='show pictures of the predictions')
    parser.add_argument('--show-dir', help='write pictures of the predictions into this folder')
    parser.add_argument('--engine', choices=['vllm'],
                        help='writes the answers instead of the model itself (docs/engines.md); '
                        'figures, metrics and dumps are the same')
    parser.add_argument('--engine-options', nargs='+', action=KeyValues,
                        help='keywords of vllm.LLM: key=value')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch of old passes --local_rank
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle', '.jsonl')):
        parser.error(f'--out {args.out}: give a .pkl or a .jsonl file')
    if args.engine_options and not args.engine:
        parser.error('--engine-options are those of --engine vllm: give that, too')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> 'Config':
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch  # takes seconds to load: not for --help
    said = {'load_from': 'the argument checkpoint', 'resume': 'the argument checkpoint',
            'launcher': '--launcher'}
    if args.work_dir:
        said['work_dir'] = '--work-dir'
    if args.show_dir:
        said['default_hooks.visualization.test_out_dir'] = '--show-dir'
    cfg = read_config(args.config, args.cfg_options, said=said, needs=(
        'model', 'test_dataloader', 'test_cfg', 'test_evaluator'))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or launch.default_work_dir(args.config)
    cfg.resume, cfg.load_from = False, launch.existing_checkpoint(args.checkpoint)
    if args.show or args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if not hook:
            raise ValueError("--show and --show-dir need a hook 'visualization' in default_hooks")
        hook.update(draw=True, show=args.show)
        if args.show_dir:
            hook.test_out_dir = args.show_dir
    if args.out:
        cfg.test_evaluator = [*launch.as_list(cfg.test_evaluator), (
            dict(type='TextDump', out_file=args.out) if args.out.endswith('.jsonl')
            else dict(type='DumpResults', out_file_path=args.out))]
    if args.engine:
        from simpleseg_mm.engine.hooks import answers
        answers.VLLMEngine.check_installed()
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(
            type='EngineAnswersHook', options=args.engine_options)]
    return cfg


def jsonable(value):
    """Plain JSON numbers; what is not finite or not a number becomes null or text."""
    if hasattr(value, 'item'):
        value = value.item() if getattr(value, 'size', 1) == 1 else value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str, list, type(None))) else str(value)


def main() -> None:
    args = parse_args()
    from mmengine.dist import is_main_process

    from simpleseg_mm.engine import launch, processes
    from simpleseg_mm.evaluation import check_metric_names
    from simpleseg_mm.files import make_folder
    with launch.one_line_errors():
        cfg = load_config(args)
        processes.prepare_launcher(cfg, args.launcher)
        make_folder(cfg.work_dir, 'the work dir')
        if args.out:
            make_folder(os.path.dirname(args.out) or '.', 'the folder of --out')
        runner = launch.build_runner(cfg, 'test')
        check_metric_names(runner.test_evaluator.metrics)
        metrics = runner.test()
        if is_main_process():
            print(json.dumps({key: jsonable(value) for key, value in metrics.items()}), flush=True)
        processes.leave_processes()


if __name__ == '__main__':
    main()
