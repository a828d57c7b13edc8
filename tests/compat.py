"""The oldest and newest releases that setup.cfg allows: ``python tests/compat.py [NAME ...]``.

Model, data and runner tests on the oldest and newest transformers, and on the oldest and newest
Python, each in an environment of its own below ``.compat/``. All else is as requirements/lock.txt
pins it; where a pin has no build for a Python, the newest release before it. Status 1 where tests
fail or an environment cannot be had.
"""
import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ('test_models_*.py', 'test_acceleration*.py', 'test_datasets_*.py',
         'test_engine_runner.py', 'test_configs.py')
LOCKED = '3.11'  # the Python of the lock
#: what a release of transformers pins beside itself
PINNED = ('transformers', 'tokenizers', 'huggingface_hub', 'safetensors')
#: what pytest and others need before Python 3.11
BACKPORTS = ('exceptiongroup', 'tomli')


def environments() -> dict[str, tuple[str, str | None]]:
    """Name -> Python, and what is asked of transformers (None: the lock's)."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    needs = dict(re.match(r'([\w-]+)(.*)', line).groups()
                 for line in setup['options']['install_requires'].split())
    oldest, beyond = re.fullmatch(r'>=([\d.]+),<([\d.]+)', needs['transformers']).groups()
    first, end = re.fullmatch(r'>=3\.(\d+),<3\.(\d+)',
                              setup['options']['python_requires']).groups()
    return {'transformers-oldest': (LOCKED, f'=={oldest}'),
            'transformers-newest': (LOCKED, f'>={oldest},<{beyond}'),
            f'python-3.{first}': (f'3.{first}', None),
            f'python-3.{int(end) - 1}': (f'3.{int(end) - 1}', None)}


def find_python(version: str) -> str | None:
    """An interpreter: of this process, on the path, of pyenv, or of uv."""
    if sys.version_info[:2] == tuple(map(int, version.split('.'))):
        return sys.executable
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    found = [shutil.which(f'python{version}'), *sorted(pyenv.glob(f'{version}.*/bin/python'))]
    if shutil.which('uv'):
        found.append(subprocess.run(['uv', 'python', 'find', version], capture_output=True,
                                    text=True).stdout.strip())
    for path in filter(None, found):  # pyenv's python3.x on the path may be no more than a hint
        asked = subprocess.run([path, '--version'], capture_output=True, text=True)
        if asked.stdout.startswith(f'Python {version}.'):
            return str(path)
    return None


def requirements(version: str, transformers: str | None) -> list[str]:
    """Lines of the lock for this Python and without transformers' own, where that is another."""
    lines = [line for line in (ROOT / 'requirements/lock.txt').read_text().splitlines()
             if '==' in line and not line.startswith('#')]
    if transformers:
        lines = [line for line in lines if line.split('==')[0] not in PINNED]
    if version != LOCKED:
        lines = [line if line.startswith('torch==') else line.replace('==', '<=')
                 for line in lines]
    return lines + ([*BACKPORTS] if version < '3.11' else [])


def install(folder: Path, python: str, version: str, transformers: str | None) -> Path:
    """Make or complete an environment; its interpreter."""
    inside = folder / 'bin' / 'python'
    if not inside.exists():
        subprocess.run([python, '-m', 'venv', folder], check=True)
    pip = [inside, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    asked = '\n'.join(requirements(version, transformers))
    done = folder / 'requirements.txt'
    if not done.exists() or done.read_text() != asked:
        (folder / 'asked.txt').write_text(asked)
        subprocess.run([*pip, '--no-deps', '-r', folder / 'asked.txt'], check=True)
        subprocess.run([*pip, '--no-deps', '--no-build-isolation', '-e', ROOT], check=True)
        # a build of torch for GPUs has its libraries apart
        subprocess.run([*pip, next(line for line in asked.splitlines()
                                   if line.startswith('torch=='))], check=True)
        (folder / 'asked.txt').replace(done)
    if transformers:  # again each time: the newest may be another one
        subprocess.run([*pip, '--upgrade', '--upgrade-strategy', 'only-if-needed',
                        f'transformers{transformers}'], check=True)
    return inside


def run_tests(name: str, version: str, transformers: str | None) -> str:
    """Test one environment; what came of it."""
    python = find_python(version)
    if python is None:
        return f'no Python {version}: uv python install {version}, or pyenv install {version}'
    try:
        inside = install(ROOT / '.compat' / name, python, version, transformers)
    except subprocess.CalledProcessError as error:
        return f'not installed: {" ".join(map(str, error.cmd))}'
    files = sorted(str(path) for tests in TESTS for path in (ROOT / 'tests').glob(tests))
    done = subprocess.run([inside, '-m', 'pytest', '-m', 'not slow', '-p', 'no:cacheprovider',
                           '--durations=0', '--durations-min=20', *files], cwd=ROOT,
                          env=dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1'))
    return 'passed' if done.returncode == 0 else f'failed (pytest ended with {done.returncode})'


def main() -> int:
    known = environments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=f'one of {", ".join(known)}; all unless told')
    names = parser.parse_args().names or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f'there is no {", ".join(unknown)}; there are {", ".join(known)}')
    results = {}
    for name in names:
        version, transformers = known[name]
        print(f'== {name}: Python {version}, transformers {transformers or "of the lock"}',
              flush=True)
        results[name] = run_tests(name, version, transformers)
    for name, result in results.items():
        print(f'{name}: {result}')
    return int(any(result != 'passed' for result in results.values()))


if __name__ == '__main__':
    sys.exit(main())
