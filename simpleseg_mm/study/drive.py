"""The command ``simpleseg study``: its file, its runs, its table."""
import argparse
import difflib
import re
from dataclasses import replace
from pathlib import Path

from ..config import config_root, read_config
from ..files import make_folder, replace_json, replace_text
from .launch import duration, launch_study, visible_gpus
from .plots import plot_study
from .runs import DONE, States, StudyRun, make_run, set_aside, states_of, validations
from .spec import Study, read_study
from .table import StudyTable, table_of


def drive_study(args: argparse.Namespace) -> int:
    """Do what the arguments ask for; the exit status: 1 where a run has no figures.

    Raises:
        FileNotFoundError, ValueError: in one line.
    """
    if args.sbatch and args.launcher != 'slurm':
        raise ValueError('--sbatch is for --launcher slurm: give that, too')
    for name in args.gpus or ():
        if not re.fullmatch(r'\d+|(GPU|MIG)-[\w/-]+', name):
            raise ValueError(f'--gpus {name}: give numbers, such as --gpus 0 1, or UUIDs '
                             '(nvidia-smi -L)')
    path = find_study(args.study)
    study = read_study(path)
    if args.cfg_options:
        study = replace(study, arms=tuple(replace(arm, options={**arm.options, **args.cfg_options})
                                          for arm in study.arms))
    out = args.out or Path('work_dirs/studies') / path.stem
    states = states_of(study, out.resolve(), _configs_of(study))
    if args.run:
        return _one(states, *args.run)
    _tell_left(states)
    if states.changed and not args.collect:
        if not args.redo:
            names = ', '.join(run.label for run in states.changed)
            raise ValueError(f'{len(states.changed)} runs were made with other settings than '
                             f'the study has now: {names}. --redo sets them aside and makes them '
                             'again; --collect writes the table without them')
        for run in () if args.dry_run else states.changed:
            print(f'{run.label}: set aside as {set_aside(run)}', flush=True)
    todo = [run for run in states.runs if run not in states.done]
    if args.dry_run:
        for run in states.runs:
            print(f'{run.label}: {"done" if run in states.done else "to be made"}: {run.folder}')
        return 0
    failed = []
    if todo and not args.collect:
        make_folder(out, '--out')
        replace_json(out / 'study.json', dict(name=study.name, file=str(path.resolve())))
        gpus = args.gpus if args.gpus is not None else visible_gpus()
        # elsewhere whoever makes the runs knows what there is
        jobs = args.jobs if args.jobs is not None else (
            max(1, len(gpus) // study.processes) if args.launcher == 'local' else len(todo))
        if jobs < 1:
            raise ValueError(f'--jobs is {jobs}; give a whole number from 1')
        if states.done:
            print(f'{len(states.done)} of {len(states.runs)} runs are done already', flush=True)
        launched = launch_study(args.launcher, todo, path, out, jobs, gpus, args.sbatch,
                                args.cfg_options or {}, lambda line: print(line, flush=True))
        if launched.submitted:
            return 0
        failed = launched.failed
    return _collect(study, states, out, failed)


def find_study(name: str) -> Path:
    """The file that a study is named by: a path, or a name of ``configs/studies``."""
    if Path(name).is_file():
        return Path(name)
    folder = config_root() / 'configs/studies'
    known = {path.stem: path for path in sorted(folder.glob('*.yaml'))}
    if found := known.get(name.removesuffix('.yaml')):
        return found
    near = difflib.get_close_matches(name.removesuffix('.yaml'), known, 1, 0.75)
    raise FileNotFoundError(f'there is no study {name}: ' + (
        f'did you mean {near[0]}?' if near else
        f'give a .yaml file, or one of {", ".join(known)}'))


def _configs_of(study: Study) -> dict[str, str]:
    """The arms' configs as they are read: a wrong key is told before the first run begins."""
    texts = {}
    for arm in study.arms:
        cfg = read_config(arm.config, dict(arm.options), needs=('model', 'train_dataloader'))
        if study.test:
            read_config(arm.config, {**arm.options, **arm.test_options},
                        needs=('test_dataloader', 'test_evaluator'))
        texts[arm.name] = cfg.pretty_text
    return texts


def _one(states: States, arm: str, seed: str) -> int:
    run = next((run for run in states.runs
                if run.arm.name == arm and str(run.seed) == seed), None)
    if run is None:
        raise ValueError(f'the study has no run {arm!r}, seed {seed!r}')
    if run.start is not None and not any(
            one.folder == run.start.parent for one in states.done):
        raise ValueError(f'{run.label} starts from {run.start.parent}, which has no figures')
    said = make_run(run)
    print(f'{run.label}: {said["state"]} {said["error"]}', flush=True)
    return int(said['state'] != DONE)


def _tell_left(states: States) -> None:
    if states.left:
        print(f'{len(states.left)} runs are of arms or seeds that the study no longer has; they '
              f'are kept, and not in the table: {", ".join(map(str, states.left[:3]))}'
              + (' ...' if len(states.left) > 3 else ''), flush=True)


def _collect(study: Study, states: States, out: Path, failed: list[tuple[StudyRun, str]]) -> int:
    results = {run: run.result for run in states.runs}
    done = {run: said for run, said in results.items()
            if said.get('state') == DONE and said['fingerprint'] == run.fingerprint}
    if not done:
        raise ValueError(f'no run of {study.name} has figures'
                         + (f': {failed[0][0].label}: {failed[0][1]}' if failed else ''))
    arms = tuple(arm.name for arm in study.arms)
    table = table_of(study.name, arms, study.metrics, study.seeds, {
        (run.arm.name, run.seed): said['figures'] for run, said in done.items()})
    curves = {arm: [[(row.get('step', 0), row) for row in validations(run.folder / 'train')]
                    for run in done if run.arm.name == arm] for arm in arms}
    seconds = sum(said['seconds'] for said in done.values())
    replace_text(out / 'table.md', _page(study, table, seconds))
    replace_text(out / 'table.tex', table.to_latex())
    replace_text(out / 'table.json', table.to_json())
    plot_study(out / 'table.png', table, curves)
    print(table.to_markdown(), end='', flush=True)
    print(f'{out}/table.md, .tex, .json and .png written', flush=True)
    lacking = [run for run in states.runs if run not in done]
    why = {run.folder: reason for run, reason in failed}
    for run in lacking:
        print(f'{run.label}: no figures: '
              f'{why.get(run.folder) or results[run].get("error") or "not made yet"}', flush=True)
    return int(bool(lacking))


def _page(study: Study, table: StudyTable, seconds: float) -> str:
    figures = 'the test' if study.test else 'the last validation'
    notes = (f'Mean and standard deviation over seeds {", ".join(map(str, study.seeds))}; figures '
             f'of {figures}, of the {study.checkpoint} checkpoint. Differences are paired by '
             'seed, with the 95 % confidence interval and p of a paired t-test (two-sided, not '
             f'corrected for the number of rows). The runs took {duration(seconds)} in all.')
    return f'# {study.name}\n\n{table.to_markdown()}\n{notes}\n\n![the figures](table.png)\n'
