"""Who makes the runs of a study: processes of this machine, Slurm, or Ray.

All make a run by the same command, ``simpleseg study STUDY --run ARM SEED``, or the function
behind it. A run that starts from another waits for it.
"""
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ..files import replace_text
from .runs import DONE, FAILED, STOPPED, StudyRun, make_run, setting_of


@dataclass
class Launched:
    """What came of launching.

    Attributes:
        failed: (run, why) of those that have no figures.
        submitted: whether the runs are made elsewhere, after this has ended.
    """
    failed: list[tuple[StudyRun, str]] = field(default_factory=list)
    submitted: bool = False


def launch_study(by: str, runs: Sequence[StudyRun], study_file: Path, out: Path, jobs: int = 1,
                 gpus: Sequence[str] = (), options: Sequence[str] = (),
                 settings: Mapping[str, object] = MappingProxyType({}),
                 tell: Callable[[str], None] = print) -> Launched:
    """Make runs that have no figures yet.

    Args:
        by: a name of ``LAUNCHERS``.
        runs: in the order of the study: one that starts from another stands behind it.
        jobs: runs at a time, of this machine or of a Slurm array.
        gpus: of this machine, those that runs may use; each gets as many as it has processes.
        options: of ``sbatch``.
        settings: of all runs, beside those of the study's file.
        tell: gets a line at each step.

    Raises:
        ValueError: the launcher is not there, or does not fit.
    """
    return LAUNCHERS[by](runs, study_file=study_file, out=out, jobs=jobs, gpus=gpus,
                         options=options, settings=settings, tell=tell)


# --- this machine -----------------------------------------------------------------------------
def _local(runs, *, jobs, gpus, tell, **_) -> Launched:
    size = runs[0].study.processes if runs else 1
    if gpus and len(gpus) < size:
        raise ValueError(f'a run has {size} processes and there are {len(gpus)} GPUs: give more '
                         'by --gpus, or fewer processes in the study')
    slots = [gpus[k:k + size] for k in range(0, len(gpus) - size + 1, size)] or [()] * jobs
    free = slots[:jobs]

    def made(run: StudyRun, slot: Sequence[str]) -> dict:
        return make_run(run, {'CUDA_VISIBLE_DEVICES': ','.join(slot)} if slot else None)

    with ThreadPoolExecutor(len(free)) as pool:
        def start(run: StudyRun) -> Future:
            slot = free.pop()
            tell(f'{run.label}: begun; its log is {run.folder}/train.log')
            future = pool.submit(made, run, slot)
            future.add_done_callback(lambda _: free.append(slot))
            return future
        return _in_order(runs, start, lambda: bool(free), _first_of, tell)


def _first_of(futures: dict[Future, StudyRun]) -> Iterator[Future]:
    yield from wait(futures, return_when=FIRST_COMPLETED).done


# --- Ray --------------------------------------------------------------------------------------
def _ray(runs, *, jobs, tell, **_) -> Launched:
    try:
        import ray
    except ImportError:
        raise ValueError('Ray is not installed: pip install "ray", or leave --launcher out'
                         ) from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    gpus = runs[0].study.processes if runs and ray.cluster_resources().get('GPU') else 0
    remote = ray.remote(num_gpus=gpus, num_cpus=1)(make_run)
    going: set = set()

    def start(run: StudyRun):
        tell(f'{run.label}: handed to Ray')
        going.add(reference := remote.remote(run, None, os.getcwd()))
        return reference

    def first(references: dict) -> Iterator:
        ready, _ = ray.wait(list(references), num_returns=1)
        going.difference_update(ready)
        yield from ready
    return _in_order(runs, start, lambda: len(going) < jobs, first, tell, result=ray.get)


def _in_order(runs: Sequence[StudyRun], start: Callable, room: Callable[[], bool],
              first: Callable, tell: Callable[[str], None], result=lambda future: future.result()
              ) -> Launched:
    """Make runs, one that starts from another after it; say how it goes, and how long it takes."""
    launched, waiting, going = Launched(), list(runs), {}
    began, ended, total = time.time(), 0, len(runs)
    failed: dict[Path, StudyRun] = {}
    try:
        while waiting or going:
            for run in list(waiting):
                if run.start is not None and run.start.parent in failed:
                    why = f'{failed[run.start.parent].label}, which it starts from, has failed'
                    launched.failed.append((run, why))
                    failed[run.folder] = run
                    waiting.remove(run)
                    tell(f'{run.label}: left out: {why}')
                elif room() and (run.start is None or run.start.parent not in {
                        one.folder for one in (*waiting, *going.values())}):
                    waiting.remove(run)
                    going[start(run)] = run
            for future in first(going) if going else ():
                run, said = going.pop(future), _result_of(future, result)
                ended += 1
                if said['state'] != DONE:
                    launched.failed.append((run, said['error']))
                    failed[run.folder] = run
                spent = time.time() - began
                left = (total - ended) * spent / ended
                tell(f'{run.label}: {_outcome(run, said)} ({ended} of {total} runs'
                     + (f', about {duration(left)} left)' if ended < total else ')'))
    except KeyboardInterrupt:  # the runs got it, too, and keep what they have
        tell('stopping: each run writes a checkpoint; the same command goes on from there')
        for future in going:
            _result_of(future, result)
        raise
    return launched


def _result_of(future, result) -> dict:
    try:
        return result(future)
    except (OSError, ValueError) as error:
        return dict(state=FAILED, error=' '.join(str(error).split()))


def _outcome(run: StudyRun, said: dict) -> str:
    if said['state'] == DONE:
        return ', '.join(f'{name} {said["figures"][name]:.4g}' for name in run.study.metrics) + \
            f', {duration(said["seconds"])}'
    if said['state'] == STOPPED:
        return said['error']
    return f'FAILED: {said["error"]}'


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {seconds} s' if minutes \
        else f'{seconds} s'


# --- Slurm ------------------------------------------------------------------------------------
def _slurm(runs, *, study_file, out, jobs, options, settings, tell, **_) -> Launched:
    """An array a level: runs that start from others stand in a later one."""
    if shutil.which('sbatch') is None:
        raise ValueError('there is no sbatch here: start the study where Slurm is, or leave '
                         '--launcher out')
    levels: list[list[StudyRun]] = []
    level_of: dict[Path, int] = {}
    for run in runs:
        level = level_of[run.folder] = 1 + level_of.get(
            run.start.parent, -1) if run.start is not None else 0
        levels[level:level + 1] = [[*(levels[level] if level < len(levels) else []), run]]
    before = None
    for number, level in enumerate(levels):
        script = out / f'slurm_{number}.sh'
        replace_text(script, sbatch_script(level, study_file, out, jobs, options,
                                           settings))
        command = ['sbatch', '--parsable',
                   *([f'--dependency=afterany:{before}'] if before else []), str(script)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f'sbatch refused {script}: {" ".join(done.stderr.split())[:300]}')
        before = done.stdout.strip().split(';')[0]
        tell(f'{len(level)} runs are job {before}')
    tell('the table so far: simpleseg study STUDY --collect')
    return Launched(submitted=True)


def sbatch_script(runs: Sequence[StudyRun], study_file: Path, out: Path, jobs: int,
                  options: Sequence[str],
                  settings: Mapping[str, object] = MappingProxyType({})) -> str:
    """The script of a job array, a task a run."""
    size = runs[0].study.processes
    lines = ['#!/bin/bash', f'#SBATCH --job-name={runs[0].study.name.split()[0]}',
             f'#SBATCH --array=0-{len(runs) - 1}%{min(jobs, len(runs))}',
             f'#SBATCH --output="{out.resolve()}/slurm_%A_%a.log"',
             *(f'#SBATCH {option}' for option in options), '']
    if not any('gres' in option or 'gpus' in option for option in options):
        lines.insert(4, f'#SBATCH --gpus-per-task={size}')
    cases = [f'    {k}) run=({_quoted(run.arm.name)} {run.seed});;' for k, run in enumerate(runs)]
    return '\n'.join([
        *lines, 'case $SLURM_ARRAY_TASK_ID in', *cases, 'esac',
        f'srun --ntasks=1 {_quoted(sys.executable)} -m simpleseg_mm study '
        f'{_quoted(str(study_file.resolve()))} --out {_quoted(str(out.resolve()))} '
        '--run "${run[@]}"' + ''.join([' --cfg-options', *(
            f' {_quoted(setting_of(*item))}' for item in settings.items())] if settings else ''),
        ''])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


LAUNCHERS: dict[str, Callable[..., Launched]] = dict(local=_local, slurm=_slurm, ray=_ray)


def visible_gpus() -> list[str]:
    """GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; without torch, which would take
    memory of each."""
    if (given := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [one for one in given.split(',') if one.strip()]
    if shutil.which('nvidia-smi') is None:
        return []
    listed = subprocess.run(['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
                            capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []
