"""The tests that need the readers of other tools: ``python tests/readers_env.py [--folder F]``.

In an environment of its own, with requirements/lock-readers.txt on top of the other locks; all is
installed with --no-deps. Status 1 where tests fail or the environment cannot be had.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

from compat import LOCKED, find_python

ROOT = Path(__file__).resolve().parents[1]
LOCKS = tuple(ROOT / 'requirements' / name
              for name in ('lock.txt', 'lock-test.txt', 'lock-readers.txt'))
TESTS = ('test_export_readers.py', 'test_tool_readers.py', 'test_export_sets.py',
         'test_integrations_supervision.py', 'test_serving_label_studio.py')
#: LabelMe's readers import its window's library, which they do not use
WINDOW = '''"""Stands in for PyQt5: any name is an empty class."""


def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    return type(name, (), {})
'''


def install(folder: Path) -> Path:
    """Make or complete the environment; its interpreter."""
    inside, done = folder / 'bin' / 'python', folder / 'asked.txt'
    asked = ''.join(lock.read_text() for lock in LOCKS) + WINDOW
    if done.exists() and done.read_text() == asked:
        return inside
    python = find_python(LOCKED)
    if python is None:
        raise SystemExit(f'no Python {LOCKED}: uv python install {LOCKED}')
    if not inside.exists():
        subprocess.run([python, '-m', 'venv', folder], check=True)
    pip = [inside, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps']
    for lock in LOCKS:
        subprocess.run([*pip, '-r', lock], check=True)
    subprocess.run([*pip, '--no-build-isolation', '-e', ROOT], check=True)
    packages, = folder.glob('lib/python*/site-packages')
    (packages / 'PyQt5').mkdir(exist_ok=True)
    for name in ('__init__', 'QtCore', 'QtGui', 'QtWidgets'):
        (packages / f'PyQt5/{name}.py').write_text(WINDOW)
    done.write_text(asked)
    return inside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=ROOT / '.readers',
                        help='of the environment; made where it is not there')
    parser.add_argument('--install-only', action='store_true', help='run no test')
    parser.add_argument('options', nargs='*', help='for pytest, after --')
    args = parser.parse_args()
    try:
        inside = install(args.folder.absolute())
    except subprocess.CalledProcessError as error:
        print(f'not installed: {" ".join(map(str, error.cmd))}')
        return 1
    if args.install_only:
        return 0
    files = [f'tests/{name}' for name in TESTS]
    return subprocess.run(
        [inside, '-m', 'pytest', '-p', 'no:cacheprovider', '--durations=5', '-rs', *files,
         *args.options], cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')).returncode


if __name__ == '__main__':
    sys.exit(main())
