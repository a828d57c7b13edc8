"""Tests in an environment of their own: what make test-vllm and make test-readers share."""
import argparse
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from compat import LOCKED, find_python

ROOT = Path(__file__).resolve().parents[1]
#: torchvision's wheel does not load beside the CPU build of torch for want of two operators, of
#: which none is used: the image processors call its Python code
MEND = '''"""Defines what torchvision asks torch for, when it is first imported."""
import importlib.abc
import sys

KEPT = []


class Mend(importlib.abc.MetaPathFinder):

    def find_spec(self, name, path, target=None):
        if name == 'torchvision' and not KEPT:
            import torch
            KEPT.append(torch.library.Library('torchvision', 'DEF'))
            for operator in ('nms', 'qnms'):
                KEPT[0].define(
                    f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


sys.meta_path.insert(0, Mend())
'''


def run_tests_in(folder: Path, doc: str, tests: Sequence[str], asked: str,
                 fill: Callable[[Path, list, Path], None], hint: str = '') -> int:
    """The whole command; its exit status: 1 where the environment cannot be had.

    Args:
        folder: of the environment, unless ``--folder`` says otherwise.
        doc: the command's, whose first line is its description.
        tests: files of tests.
        asked: all that ``fill`` depends on; where it has changed, the environment is completed.
        fill: called with the interpreter, the start of a ``pip install`` and the folder of the
            packages.
        hint: behind the message that something could not be installed.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=folder,
                        help='of the environment; made where it is not there')
    parser.add_argument('--install-only', action='store_true', help='run no test')
    parser.add_argument('options', nargs='*', help='for pytest, after --')
    args = parser.parse_args()
    try:
        inside = _install(args.folder.absolute(), asked, fill)
    except subprocess.CalledProcessError as error:
        print(f'not installed: {" ".join(map(str, error.cmd))}{hint}')
        return 1
    if args.install_only:
        return 0
    return subprocess.run(
        [inside, '-m', 'pytest', '-p', 'no:cacheprovider', '--durations=5', '-rs', *tests,
         *args.options], cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')).returncode


def _install(folder: Path, asked: str, fill: Callable[[Path, list, Path], None]) -> Path:
    """Make or complete the environment; its interpreter."""
    inside, done = folder / 'bin' / 'python', folder / 'asked.txt'
    asked += MEND
    if done.exists() and done.read_text() == asked:
        return inside
    python = find_python(LOCKED)
    if python is None:
        raise SystemExit(f'no Python {LOCKED}: uv python install {LOCKED}')
    if not inside.exists():
        subprocess.run([python, '-m', 'venv', folder], check=True)
    packages, = folder.glob('lib/python*/site-packages')
    fill(inside, [inside, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check'],
         packages)
    (packages / 'torchvision_mend.py').write_text(MEND)
    (packages / 'torchvision_mend.pth').write_text('import torchvision_mend\n')
    done.write_text(asked)
    return inside
