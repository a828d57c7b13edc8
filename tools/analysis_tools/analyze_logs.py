"""Look at the logs of runs: curves and throughput.

    analyze_logs.py plot_curve WORK_DIR... [--out curves.png] [--keys loss res/cIoU ...]
    analyze_logs.py cal_train_time WORK_DIR...

A run is a work directory (its newest log is taken) or a scalars.json. The last line of
cal_train_time is one JSON object.
"""
import argparse
import json
import statistics
from pathlib import Path

_RATES = ('time', 'data_time', 'samples_per_s', 'tokens_per_s', 'answer_tokens_per_s', 'memory')


def train_time(path: Path) -> dict:
    """Medians over the logged training iterations, and their number."""
    from simpleseg_mm.visualization import read_scalars
    series = read_scalars(path)
    summary = dict(run=str(path), logged=len(series.get('loss', ((), ()))[0]))
    for name in _RATES:
        if name in series:
            summary[name] = statistics.median(series[name][1])
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest='task', required=True)
    plot = tasks.add_parser('plot_curve', help='draw scalars of one or more runs')
    plot.add_argument('--keys', nargs='+', help='names of scalars, such as loss res/cIoU')
    plot.add_argument('--out', default='curves.png', help='.png, .svg or .pdf')
    tasks.add_parser('cal_train_time', help='median time and throughput of an iteration')
    for task in tasks.choices.values():
        task.add_argument('runs', nargs='+', help='work directories or scalars.json files')
    args = parser.parse_args()

    from simpleseg_mm.engine.launch import one_line_errors  # loads torch: not for --help
    from simpleseg_mm.visualization import find_log, plot_curves
    with one_line_errors():
        logs = [find_log(run) for run in args.runs]
        if args.task == 'plot_curve':
            plot_curves(logs, args.out, names=args.keys)
            print(f'curves written to {args.out}')
        else:
            summaries = [train_time(log) for log in logs]
            for summary in summaries:
                print('  '.join(f'{key}: {value:.4g}' if isinstance(value, float) else
                                f'{key}: {value}' for key, value in summary.items()))
            print(json.dumps(dict(runs=summaries)))


if __name__ == '__main__':
    main()
