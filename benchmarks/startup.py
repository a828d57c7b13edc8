"""Seconds to ``--help`` of every command and script, and what an import of the package takes.

    python benchmarks/startup.py                # a table in Markdown; the last line is JSON
    python benchmarks/startup.py --turns 1

Each is a fresh process; the median of the turns, wall time and processor time. One turn that is
not counted fills the caches of the disk before.
"""
import argparse
import json
import os
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--turns', type=int, default=3)
    turns = parser.parse_args().turns
    rows = {name: measure(arguments, turns) for name, arguments in commands().items()}
    print('| `--help` of | seconds | processor seconds |\n|---|---|---|')
    for name, (wall, used) in rows.items():
        print(f'| `{name}` | {wall:.2f} | {used:.2f} |')
    print(json.dumps({name: dict(wall=round(wall, 3), processor=round(used, 3))
                      for name, (wall, used) in rows.items()}))


if __name__ == '__main__':
    main()
