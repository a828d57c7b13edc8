"""``make release``: build, check, and try what would be published, ``python tests/release.py``.

Builds the source archive and, from it, the wheel into ``dist/``; ``twine check`` and
``check-wheel-contents``; then, on each Python that setup.cfg allows, installs the wheel into a
fresh environment below ``.release/`` and spends a beginner's first minute in an empty folder, by
the command and by both kinds of mim. Nothing is uploaded. Status 1 where anything fails.

    python tests/release.py [3.11 ...]     # on these Pythons alone
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import compat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / '.release'
#: Python -> the mim that is tried there, its release, and what that needs which the lock lacks.
#: openmim asks pkg_resources, which setuptools 81 no longer has
MIMS = {'3.10': ('openmim==0.3.9', 'setuptools<81'), '3.11': ('openmim==0.3.9', 'setuptools<81'),
        '3.12': ('onedl-mim==0.5.1', )}
#: of setup.cfg, those whose requirements each Python must be able to have
EXTRAS = 'onedl,serve,annotate'
_MIM_NEEDS = ('click', 'colorama', 'model-index', 'pandas', 'requests', 'tabulate')
#: a small set, and a training of a few updates
SCENES = ('--scenes-train', '16', '--scenes-val', '2', '--scenes-test', '2', '--workers', '1')
SHORT = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'val_dataloader.dataset.indices=2',
         'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
         'model.mllm.pretrained=simpleseg_mm://nano_sft')
CONFIG = 'nano_sft_refshapes'


def pythons() -> list[str]:
    """Those that setup.cfg allows, oldest first."""
    ends = [name.partition('python-')[2] for name in compat.environments() if 'python' in name]
    first, last = (int(version.partition('.')[2]) for version in ends)
    return [f'3.{minor}' for minor in range(first, last + 1)]


def run(*command, cwd: Path = ROOT, said: str | None = None) -> str:
    """A step; its output.

    Raises:
        RuntimeError: it failed, or did not say ``said``.
    """
    print('$', *(str(word) for word in command), flush=True)
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([*map(str, command)], cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          env=dict(env, HF_HUB_OFFLINE='1'))
    if done.returncode or said is not None and said not in done.stdout:
        raise RuntimeError(f'{" ".join(map(str, command))}: status {done.returncode}'
                           f'{"" if said is None else f", {said!r} expected"}\n'
                           f'{done.stdout[-3000:]}')
    return done.stdout


def build() -> Path:
    """Source archive and wheel in ``dist/``, checked; the wheel."""
    tools = FOLDER / 'tools' / 'bin'
    if not (tools / 'twine').exists():
        run(sys.executable, '-m', 'venv', FOLDER / 'tools')
        run(tools / 'python', '-m', 'pip', 'install', '--quiet', 'build', 'twine',
            'check-wheel-contents')
    shutil.rmtree(ROOT / 'dist', ignore_errors=True)
    run(tools / 'python', '-m', 'build', '--outdir', ROOT / 'dist', ROOT)
    wheel, = (ROOT / 'dist').glob('*.whl')
    run(tools / 'twine', 'check', '--strict', *(ROOT / 'dist').iterdir())
    run(tools / 'check-wheel-contents', '--config', ROOT / 'setup.cfg', wheel)
    return wheel


def install(version: str, wheel: Path) -> Path:
    """A fresh environment with the wheel, all else as the lock has it; its ``bin``."""
    python = compat.find_python(version)
    if python is None:
        raise RuntimeError(f'no Python {version}: uv python install {version}, or pyenv install '
                           f'{version}')
    inside = FOLDER / f'python-{version}' / 'bin'
    if not inside.exists():
        run(python, '-m', 'venv', inside.parent)
    pip = (inside / 'python', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check')
    # what a user types: that there are releases of all requirements for this Python. What is
    # tried below is installed as the lock has it
    run(*pip, '--dry-run', '--ignore-installed', f'{wheel}[{EXTRAS}]')
    asked = inside.parent / 'asked.txt'
    lines = '\n'.join(compat.requirements(version, None))
    if not asked.exists() or asked.read_text() != lines:
        (inside.parent / 'asking.txt').write_text(lines)
        run(*pip, '--no-deps', '-r', inside.parent / 'asking.txt')
        run(*pip, *(line for line in lines.splitlines() if line.startswith('torch==')))
        run(*pip, *_MIM_NEEDS)
        run(*pip, '--no-deps', *MIMS[version])
        (inside.parent / 'asking.txt').replace(asked)
    # over an installation from source, which it replaces
    run(*pip, '--no-deps', '--no-build-isolation', '--force-reinstall', '-e', ROOT)
    run(*pip, '--no-deps', '--force-reinstall', wheel)
    return inside


def first_minute(inside: Path, folder: Path, onedl: bool) -> None:
    """What the README does first, in an empty folder; then the same by mim."""
    simpleseg, mim = inside / 'simpleseg', inside / 'mim'
    home = run(inside / 'python', '-c', 'import simpleseg_mm; print(simpleseg_mm.__file__)',
               cwd=folder)
    if str(inside.parent) not in home:
        raise RuntimeError(f'the wheel is not what is imported: {home}')
    run(simpleseg, 'doctor', cwd=folder, said='works here: nano')
    run(simpleseg, 'segment', 'simpleseg_mm://example.jpg', 'the orange ring', cwd=folder,
        said='pictures: outputs/vis')
    run(simpleseg, 'convert', 'refshapes', 'data/refshapes', *SCENES, cwd=folder)
    run(simpleseg, 'train', CONFIG, '--cfg-options', *SHORT, cwd=folder)
    run(simpleseg, 'test', CONFIG, f'work_dirs/{CONFIG}', '--cfg-options',
        'test_dataloader.dataset.indices=2', cwd=folder, said='res/gIoU')
    for name in ('simpleseg_mm', 'simpleseg-mm'):
        run(mim, 'search', name, '--model', 'SimpleSeg', cwd=folder, said=CONFIG)
    run(mim, 'train', 'simpleseg_mm', f'{CONFIG}.py', '--work-dir', 'by_mim', '--cfg-options',
        *SHORT, cwd=folder, said='Training finished successfully')
    run(mim, 'test', 'simpleseg_mm', f'{CONFIG}.py', '--checkpoint', 'by_mim', *(
        () if onedl else ('--gpus', '0')), '--cfg-options', 'test_dataloader.dataset.indices=2',
        cwd=folder, said='res/gIoU')
    run(mim, 'download', 'simpleseg_mm', '--config', CONFIG, '--dest', 'downloaded', cwd=folder)
    run(simpleseg, 'train', f'downloaded/{CONFIG}.py', '--cfg-options', *SHORT, cwd=folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('versions', nargs='*', metavar='VERSION', help=f'of {pythons()}; all')
    versions = parser.parse_args().versions or pythons()
    if unknown := sorted({*versions} - {*pythons()}):
        parser.error(f'setup.cfg does not allow {", ".join(unknown)}; it allows {pythons()}')
    try:
        wheel = build()
        for version in versions:
            inside = install(version, wheel)
            with tempfile.TemporaryDirectory() as folder:
                first_minute(inside, Path(folder), 'onedl' in MIMS[version][0])
            print(f'Python {version}: passed')
    except RuntimeError as error:
        print(f'release: {error}', file=sys.stderr)
        return 1
    print(f'dist/: {", ".join(sorted(path.name for path in wheel.parent.iterdir()))}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
