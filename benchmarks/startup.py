"""Seconds to ``--help`` of every command and script, and what an import of the package takes.

    python benchmarks/startup.py                # a table in Markdown; the last line is JSON
    python benchmarks/startup.py --turns 1

Each is a fresh process; the median of the turns, wall time and processor time. One turn that is
not counted fills the caches of the disk before. A second table is what ``python -X importtime``
says of two of them: the turn with the least sum.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from simpleseg_mm import cli

ROOT = Path(__file__).resolve().parents[1]


def commands() -> dict[str, list[str]]:
    """Name -> arguments of Python."""
    help_of = {f'simpleseg {name}': ['-m', 'simpleseg_mm', name, '--help']
               for name in (*cli.COMMANDS, *cli.SCRIPTS, 'convert')}
    help_of |= {path.relative_to(ROOT).as_posix(): [str(path), '--help']
                for path in sorted((ROOT / 'tools').rglob('*.py'))}
    return {'python -c pass': ['-c', 'pass'], 'import simpleseg_mm': ['-c', 'import simpleseg_mm'],
            'simpleseg': ['-m', 'simpleseg_mm', '--help'], **help_of}


def measure(arguments: list[str], turns: int) -> tuple[float, float]:
    """Wall and processor seconds of a process, medians."""
    wall, used = [], []
    for turn in range(turns + 1):
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
        end, after = time.perf_counter(), os.times()
        if turn:
            wall.append(end - start)
            used.append(after.children_user + after.children_system
                        - before.children_user - before.children_system)
    return statistics.median(wall), statistics.median(used)


def import_times(arguments: list[str], turns: int) -> dict[str, float]:
    """Module -> milliseconds that it took itself, of the turn with the least sum."""
    runs = []
    for _ in range(turns + 1):
        said = subprocess.run([sys.executable, '-X', 'importtime', *arguments], check=True,
                              capture_output=True, text=True, cwd=ROOT).stderr
        runs.append({name: int(own) / 1000 for own, name in re.findall(
            r'^import time: +(\d+) \| +\d+ \| +(\S+)$', said, re.M)})
    return min(runs, key=lambda times: sum(times.values()))


def table_of_imports(turns: int) -> list[str]:
    """Lines of Markdown."""
    times = {name: import_times(arguments, turns) for name, arguments in commands().items()
             if name in ('python -c pass', 'import simpleseg_mm', 'simpleseg')}
    lines = ['| imports of | modules | milliseconds | the slowest |', '|---|---|---|---|']
    for name, found in times.items():
        slow = sorted(found, key=found.get, reverse=True)[:4]
        lines.append(f'| `{name}` | {len(found)} | {sum(found.values()):.0f} | '
                     + ', '.join(f'`{one}` {found[one]:.1f}' for one in slow) + ' |')
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--turns', type=int, default=3)
    turns = parser.parse_args().turns
    rows = {name: measure(arguments, turns) for name, arguments in commands().items()}
    print('| `--help` of | seconds | processor seconds |\n|---|---|---|')
    for name, (wall, used) in rows.items():
        print(f'| `{name}` | {wall:.2f} | {used:.2f} |')
    lines = table_of_imports(turns)
    print('', *lines, '', sep='\n')
    print(json.dumps({name: dict(wall=round(wall, 3), processor=round(used, 3))
                      for name, (wall, used) in rows.items()}))


if __name__ == '__main__':
    main()
