"""What a config needs, before it is run: memory, FLOPs, time, and what would make it fit.

    python tools/analysis_tools/plan.py configs/simpleseg/qwen25vl_sft_refcoco.py \
        --gpus 8 --gpu-memory 80

No weights, data, hub or GPU are needed: the config's own training step runs on tensors without
data. The last line is one JSON object. docs/planning.md explains the figures.
"""
import argparse
import json
import logging
import warnings

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a training run')
    parser.add_argument('--gpus', type=int, required=True, help='one process each')
    parser.add_argument('--gpu-memory', type=float, required=True, help='of one GPU, GiB')
    parser.add_argument('--mfu', type=float, default=0.35,
                        help='share of the peak that the run reaches (an assumption)')
    parser.add_argument('--peak-tflops', type=float, default=989.,
                        help='of one GPU, dense, bfloat16 (%(default)g: an H100 or H200; A100 '
                        '312, L40S 362, RTX 4090 165 by their data sheets)')
    parser.add_argument('--tokens-per-s', type=float,
                        help='measured, of one GPU (benchmarks/sft_step.py, gspo_step.py), '
                        'instead of --mfu')
    parser.add_argument('--memory-bandwidth', type=float, default=3350.,
                        help='of one GPU, GB/s, by which rollouts are estimated (%(default)g: an '
                        'H100; H200 4800, A100 2039, L40S 864, RTX 4090 1008 by their data '
                        'sheets)')
    parser.add_argument('--rollout-tokens-per-s', type=float,
                        help='of answers written, measured, of one GPU (gspo_step.py), instead of '
                        '--memory-bandwidth')
    parser.add_argument('--image', type=int, nargs=2, metavar=('W', 'H'),
                        help="pixels of a picture, instead of the dataset's typical one")
    parser.add_argument('--answer-tokens', type=int,
                        help="tokens of a mask, instead of the codec's mean")
    parser.add_argument('--no-advice', action='store_true',
                        help='do not rehearse what would help where it does not fit, or what '
                        'memory that is left would buy')
    add_config_options(parser)
    return parser.parse_args()


def table(head: list, rows: list, left: tuple = (0, )) -> str:
    """Columns of figures; those numbered ``left`` are of text."""
    rows = [[str(cell) for cell in row] for row in (head, *rows) if any(row)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  ' + '  '.join(
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)


def describe(plan: dict) -> str:
    """The plan for people."""
    share = plan['trained'] / plan['parameters']
    lines = [f'{plan["config"]}: {plan["gpus"]} x {plan["gpu_memory_gib"]:g} GiB, '
             f'{plan["strategy"]}', '', 'Parameters', table(
                 ['part', 'all', 'trained'],
                 [[part, f'{row["parameters"]:,}', f'{row["trained"]:,}']
                  for part, row in plan['parts'].items()]
                 + [['all', f'{plan["parameters"]:,}', f'{plan["trained"]:,} ({share:.2%})']])]
    memory = plan['memory_gib']
    kinds = list(dict.fromkeys(kind for parts in memory.values() for kind in parts))
    kinds.sort(key=lambda kind: kind in ('activations', 'logits', 'kv_cache'))
    lines += ['', 'Memory of one GPU at the peak of each phase, GiB', table(
        ['', *memory],
        [[kind, *(f'{parts.get(kind, 0):.2f}' for parts in memory.values())] for kind in kinds]
        + [['all', *(f'{sum(parts.values()):.2f}' for parts in memory.values())]])]
    needed = plan['peak_gib'] + plan['reserve_gib']
    verdict = 'fits' if plan['fits'] else f'lacks {needed - plan["gpu_memory_gib"]:.1f} GiB'
    lines += ['', f'Needs {needed:.1f} GiB ({plan["peak_phase"]} {plan["peak_gib"]:.1f} + reserve '
              f'{plan["reserve_gib"]:.1f}) of {plan["gpu_memory_gib"]:g}: {verdict}']
    if plan.get('spare'):
        spare = plan['spare']
        lines += [f'The memory left would do for {spare["name"]}: {spare["peak_gib"]:.1f} GiB and '
                  f'{spare["saved_share"]:.0%} fewer operations, ' + _settings(spare['options'])]
    if 'knobs' in plan:
        lines += ['', 'What would help, each by itself, GiB',
                  _advice(plan['knobs'], plan['peak_gib'])]
        if plan['together']:
            lines += ['', 'Together, each with those above it',
                      _advice(plan['together'], plan['peak_gib'])]
            if not plan['together'][-1]['fits']:
                lines += ['  Even so it does not fit: take larger or more GPUs.']
    what = 'prompts a step (rollout)' if plan['rl'] else 'samples a step (update)'
    lines += ['', 'Work', table(['', ''], [
        [what, f'{plan["samples_per_step"]:,}'], ['steps', f'{plan["steps"]:,}'],
        ['prompts in all' if plan['rl'] else 'samples in all', f'{plan["samples"]:,}'],
        ['visual tokens a picture', plan['visual_tokens']],
        ['tokens a sequence, mean', f'{plan["mean_sequence_tokens"]:.0f}'],
        ['tokens a step', f'{plan["tokens_per_step"]:,}'],
        ['TFLOP a step, useful', f'{plan["tflops_per_step"]:,.1f}'],
        ['recomputed besides', f'{plan["recomputed_share"]:.0%} of all'],
        ['seconds a step', f'{plan["seconds_per_step"]:.3g}'],
        *([] if plan['rollout_seconds_per_step'] is None else [
            ['of them rollout', f'{plan["rollout_seconds_per_step"]:.3g}']]),
        ['hours in all', f'{plan["hours"]:.3g}'],
        ['on GPUs of', _speed(plan)]])]
    lines += ['', 'Where the figures are from', *(
        f'  {name}: {value} ({source})' for name, value, source in plan['sources'])]
    return '\n'.join(lines)


def _speed(plan: dict) -> str:
    """What the hours are for."""
    if plan['tokens_per_s'] is not None:
        return f'{plan["tokens_per_s"]:g} tokens/s, as measured'
    known = ', an H100: give --peak-tflops of yours' if plan['peak_tflops'] == 989 else ''
    return f'{plan["peak_tflops"]:g} TFLOPS at MFU {plan["mfu"]:g}{known}'


def _advice(rows: list, before: float) -> str:
    """Changes with the memory before them less that after them."""
    cells = []
    for row in rows:
        cells.append([row['name'], f'{before - row["peak_gib"]:.1f}', f'{row["peak_gib"]:.1f}',
                      'yes' if row['fits'] else 'no', _settings(row['options'])])
    return table(['change', 'saves', 'leaves', 'fits', 'settings'], cells, left=(0, 4))


def _settings(options: dict) -> str:
    return ' '.join(f'{key}={_short(value)}' for key, value in options.items())


def _short(value) -> str:
    """A setting; of dicts, which belong into a child config, the type (the JSON has all)."""
    if isinstance(value, dict):
        return value.get('type', 'dict(...)')
    return str(value).replace(' ', '')


def rounded(value):
    """The same with at most six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f'{value:.6g}') if isinstance(value, float) else value


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # these load torch: not for --help
    from mmengine.registry import init_default_scope

    from simpleseg_mm.analysis import make_plan
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    init_default_scope('simpleseg_mm')
    with launch.one_line_errors():
        cfg = read_config(args.config, args.cfg_options, needs=(
            'model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
        plan = make_plan(cfg, args.gpus, args.gpu_memory, args.mfu, args.peak_tflops,
                         args.image and tuple(args.image), args.answer_tokens,
                         args.tokens_per_s, not args.no_advice, args.memory_bandwidth,
                         args.rollout_tokens_per_s)
    plan = dict(config=args.config, **plan)
    print(describe(plan))
    print(json.dumps(rounded(plan)))


if __name__ == '__main__':
    main()
