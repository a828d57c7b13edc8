"""Runs of a study: one arm and seed each, in a folder of its own, trained and then tested.

A run is made by the project's own commands, ``simpleseg train`` and ``simpleseg test``, in
processes of their own. ``run.json`` says what it was made of and what came of it.
"""
import ctypes
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..files import load_json, replace_json
from .spec import Arm, Study

DONE, FAILED, STOPPED = 'done', 'failed', 'stopped'
_C = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class StudyRun:
    """An arm with a seed.

    Attributes:
        folder: of the run; training is in ``train``, the test in ``test``.
        fingerprint: of all that it is made of: its config as it is read, its settings, its seed,
            and the run that it starts from.
        start: folder of the training whose checkpoint it starts from; None: none.
    """
    study: Study
    arm: Arm
    seed: int
    folder: Path
    fingerprint: str
    start: Path | None = None

    @property
    def result(self) -> dict:
        """``run.json``; empty where the run has not ended yet."""
        path = self.folder / 'run.json'
        return load_json(path) if path.is_file() else {}

    @property
    def label(self) -> str:
        return f'{self.arm.name}, seed {self.seed}'


@dataclass(frozen=True)
class States:
    """All runs of a study, sorted by what is to be done with them.

    Attributes:
        runs: all, an arm after the other.
        done: those that have their figures.
        changed: those that have figures of other settings than the study's now.
        left: folders of arms or seeds that the study no longer has.
    """
    runs: tuple[StudyRun, ...]
    done: tuple[StudyRun, ...]
    changed: tuple[StudyRun, ...]
    left: tuple[Path, ...]


def states_of(study: Study, out: Path, configs: dict[str, str]) -> States:
    """The runs of a study in a folder.

    Args:
        configs: name of an arm -> the text of its config, as it is read with its settings.

    Raises:
        ValueError: the folder is another study's.
    """
    named = out / 'study.json'
    if named.is_file() and load_json(named).get('name') != study.name:
        raise ValueError(f'{out} holds the study {load_json(named).get("name")!r}, not '
                         f'{study.name!r}: give another folder by --out')
    runs: dict[tuple[str, int], StudyRun] = {}
    for arm in study.arms:
        for seed in study.seeds:
            before = runs.get((arm.start, seed))
            made_of = [configs[arm.name], seed, study.checkpoint, study.test, study.processes,
                       dict(arm.test_options) if study.test else None,
                       before and before.fingerprint]
            runs[arm.name, seed] = StudyRun(
                study, arm, seed, out / arm.folder / f'seed_{seed}',
                hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()
                               ).hexdigest()[:16], before and before.folder / 'train')
    ended = {run: run.result for run in runs.values()}
    folders = {run.folder for run in runs.values()}
    return States(
        tuple(runs.values()),
        tuple(run for run, said in ended.items() if said.get('state') == DONE
              and said['fingerprint'] == run.fingerprint),
        tuple(run for run, said in ended.items() if said
              and said['fingerprint'] != run.fingerprint),
        tuple(sorted(path.parent for path in out.glob('*/seed_*/run.json')
                     if path.parent not in folders)))


def set_aside(run: StudyRun) -> Path:
    """Move what was made with other settings out of the way; where to."""
    for number in range(1, 10_000):
        place = run.folder.with_name(f'{run.folder.name}.old-{number}')
        if not place.exists():
            run.folder.rename(place)
            return place
    raise ValueError(f'{run.folder} has been set aside too often: delete its old ones')


def make_run(run: StudyRun, environment: dict[str, str] | None = None,
             folder: str | None = None) -> dict:
    """Train and test a run, or go on with it; what ``run.json`` says then.

    Args:
        environment: variables beside those of this process.
        folder: that paths of configs are relative to; None: this process's.

    Raises:
        ValueError: another process makes this run now, or it holds other settings.
    """
    with _alone(run) as lock:
        said = run.result
        if said and said['fingerprint'] != run.fingerprint:
            raise ValueError(f'{run.folder} was made with other settings; see simpleseg study '
                             '--redo')
        if said.get('state') == DONE:
            return said
        began = time.time()
        result = dict(arm=run.arm.name, seed=run.seed, fingerprint=run.fingerprint,
                      seconds=said.get('seconds', 0.0), state=STOPPED)
        replace_json(run.folder / 'run.json', result)  # so that it is never taken for another's
        try:
            result |= _made(run, os.environ | (environment or {}), folder, lock)
        finally:
            result['seconds'] = round(result['seconds'] + time.time() - began, 1)
            replace_json(run.folder / 'run.json', result)
    return result


@contextmanager
def _alone(run: StudyRun) -> Iterator[int]:
    """Holds the run's lock, whose descriptor is for the processes that make the run: it is free
    when the last of them has ended, also where this one was killed."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / 'lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another process makes {run.label} in {run.folder} now: wait for it'
                             ) from None
        yield file.fileno()


def _end_with_the_study() -> None:
    """In a new process: it is asked to stop, and to write a checkpoint, when its study dies."""
    if hasattr(_C, 'prctl'):  # Linux
        _C.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _made(run: StudyRun, environment: dict[str, str], folder: str | None, lock: int) -> dict:
    train = run.folder / 'train'
    options = dict(run.arm.options) | {'randomness.seed': run.seed}
    if run.start is not None:
        options['load_from'] = str(run.start / run.study.checkpoint)
    steps = [('train', ['train', run.arm.config, '--work-dir', str(train), '--resume'], options)]
    if run.study.test:
        steps.append(('test', [
            'test', run.arm.config, str(train / run.study.checkpoint), '--work-dir',
            str(run.folder / 'test')],
            dict(run.arm.options) | dict(run.arm.test_options)))
    for name, words, settings in steps:
        finished = run.folder / f'{name}.finished'
        log = run.folder / f'{name}.log'
        if finished.is_file():
            continue
        told = [setting_of(*item) for item in settings.items()]
        command = [*_command(run.study.processes), *words,
                   *(['--launcher', 'pytorch'] if run.study.processes > 1 else []),
                   *(['--cfg-options', *told] if told else [])]
        with log.open('ab') as out:
            code = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder,
                pass_fds=[lock], preexec_fn=_end_with_the_study).returncode
        if code < 0 or code > 128:
            return dict(state=STOPPED, error=f'{name} was stopped (status {code}); it goes on '
                        'when the study is run again')
        if code:
            return dict(state=FAILED, error=f'{name}: {_last_line(log)}', log=str(log))
        finished.touch()
    figures = _tested(run.folder / 'test.log') if run.study.test else _validated(train)
    lacking = [name for name in run.study.metrics if not isinstance(
        figures.get(name), (int, float))]
    if lacking:
        return dict(state=FAILED, error=f'no figure {", ".join(lacking)}; there are '
                    f'{", ".join(sorted(figures)) or "none"}', log=str(run.folder))
    return dict(state=DONE, error='', figures=figures)


def _command(processes: int) -> list[str]:
    if processes > 1:
        return [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                f'--nproc_per_node={processes}', '-m', 'simpleseg_mm']
    return [sys.executable, '-m', 'simpleseg_mm']


def setting_of(key: str, value: object) -> str:
    """A setting as --cfg-options reads it: a text stays one, a list or dict is Python's."""
    return f'{key}={value if isinstance(value, str) else repr(value)}'


def _last_line(log: Path) -> str:
    lines = log.read_text(errors='replace').strip().splitlines()
    return (lines[-1] if lines else 'it wrote nothing')[:500]


def _tested(log: Path) -> dict:
    """The figures that a test prints as its last line."""
    for text in reversed(log.read_text(errors='replace').splitlines()):
        if text.startswith('{'):
            try:
                return json.loads(text)
            except ValueError:
                continue
    return {}


def validations(train: Path) -> list[dict]:
    """Each validation of a training, in order: ``step`` and its figures."""
    rows: dict[int, dict] = {}
    for path in sorted(train.glob('*/vis_data/scalars.json'), key=lambda one: one.stat().st_mtime):
        for text in path.read_text(errors='replace').splitlines():
            try:
                row = json.loads(text)
            except ValueError:  # the line that was being written when it was stopped
                continue
            if isinstance(row, dict) and any('/' in key for key in row) and 'loss' not in row:
                rows[row.get('step', 0)] = row  # one that was made again counts
    return [rows[step] for step in sorted(rows)]


def _validated(train: Path) -> dict:
    found = validations(train)
    return {key: value for key, value in (found[-1] if found else {}).items() if '/' in key}
