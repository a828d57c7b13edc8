"""Every benchmark beside its peer, by one command.

    python benchmarks/run.py codec              # one of those below, or several
    python benchmarks/run.py all                # all that this machine can run
    python benchmarks/run.py all --write        # and docs/benchmarks.md with its plots

Prints a table, and on the last line one JSON object: ``machine``, and a key a row with ``ratio``
(above 1: ours is better; null without a peer), ``ours``, ``peer``, ``unit``, ``device`` and
``spread`` (least and most of the turns' ratios), or ``skipped`` and why. Ours and its peer run in
turns in one process. One that fails does not stop the others; the status is then 1.
"""
import argparse
import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure  # noqa: E402

#: name -> module with ``rows(quick) -> list of rows``; see measure.row
BENCHMARKS = dict(
    codec='codec',
    annotate='annotate_speed',
    decoding='decoding',
    constraint='constraint',
    logp='logp_memory',
    sft='sft_nano',
    gspo='gspo_nano',
    rollout_vllm='vllm_rollout',
    rollout_gpu='rollout_step',
    sft_gpu='sft_step',
    gspo_gpu='gspo_step',
)


def run(names, quick: bool) -> dict:
    """Rows by name, and the machine."""
    report: dict = dict(machine=measure.machine())
    for name in names:
        if len(names) > 1:  # in a process of its own: what one leaves in memory speeds another
            done = subprocess.run([sys.executable, __file__, name, *['--quick'] * quick],
                                  stdout=subprocess.PIPE, text=True)
            if done.returncode:
                row = measure.skipped(name, f'failed with status {done.returncode}')
                rows = {row.pop('name'): dict(row, failed=done.returncode)}
            else:
                rows = json.loads(done.stdout.splitlines()[-1])
            report.update({**rows, 'machine': report['machine']})
            continue
        try:
            found = importlib.import_module(BENCHMARKS[name]).rows(quick)
        except measure.Skip as skip:
            found = [measure.skipped(name, str(skip))]
        new = {row.pop('name'): row for row in found}
        report.update(new)
        print(table(new, head=False), file=sys.stderr, flush=True)
    return report


def table(report: dict, head: bool = True) -> str:
    """Rows as a table in Markdown."""
    lines = ['| row | ours | peer | unit | ratio | least to most | device |',
             '|---|---|---|---|---|---|---|'] if head else []
    for name, row in report.items():
        if name == 'machine':
            continue
        if 'skipped' in row:
            lines.append(f'| {name} | | | | skipped: {row["skipped"]} | | |')
        elif row['ratio'] is None:
            lines.append(f'| {name} | {row["ours"]:g} | no peer | {row["unit"]} | | | '
                         f'{row["device"]} |')
        else:
            least, most = row['spread']
            lines.append(f'| {name} | {row["ours"]:g} | {row["peer"]:g} | {row["unit"]} | '
                         f'**{row["ratio"]:.3g}** | {least:.3g} to {most:.3g} | '
                         f'{row["device"]} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='+', choices=[*BENCHMARKS, 'all'], metavar='NAME',
                        help=f'of {", ".join(BENCHMARKS)}, or all')
    parser.add_argument('--quick', action='store_true', help='tiny sizes: to see that it runs')
    parser.add_argument('--write', action='store_true',
                        help='also write docs/benchmarks.md, its plots and its JSON')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    names = list(BENCHMARKS) if 'all' in args.names else list(dict.fromkeys(args.names))
    report = run(names, args.quick)
    if args.write:
        import page
        page.write(report, args.quick)
    print(table(report))
    print(json.dumps(report))
    if any('failed' in row for row in report.values()):
        sys.exit(1)


if __name__ == '__main__':
    main()
