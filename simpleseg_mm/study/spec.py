"""What a study is: its file, checked."""
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..files import read_text, shown

_KEYS = {'name', 'config', 'cfg-options', 'seeds', 'arms', 'metrics', 'checkpoint', 'test',
         'test-options', 'processes'}
_ARM_KEYS = {'config', 'cfg-options', 'from', 'test-options'}
CHECKPOINTS = ('best', 'last')


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: as the file calls it.
        config: a path, or a name of this package's configs.
        options: settings as ``--cfg-options`` has them.
        start: name of the arm whose checkpoint of the same seed it starts from; None: what its
            config says.
        test_options: settings of the test alone.
    """
    name: str
    config: str
    options: Mapping[str, object] = field(default_factory=dict)
    start: str | None = None
    test_options: Mapping[str, object] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r'[^\w.+-]+', '-', self.name).strip('-.') or 'arm'


@dataclass(frozen=True)
class Study:
    """Arms by seeds.

    Attributes:
        name: of the study.
        arms: the first is the one that others are compared with.
        seeds: of ``randomness.seed``.
        metrics: names of the figures, as a test prints them.
        checkpoint: which of a run is tested, and started from: 'best' or 'last'.
        test: whether runs are tested; without, the figures are those of the last validation.
        processes: GPUs, or processes, of a run.
    """
    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    checkpoint: str = 'best'
    test: bool = True
    processes: int = 1

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def read_study(path: str | Path) -> Study:
    """A study's file.

    Raises:
        FileNotFoundError, ValueError: in one line; what was given, what is allowed.
    """
    path = Path(path)
    given = _parsed(path)
    _check_keys(given, _KEYS, str(path))
    name = given.get('name', path.stem)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{path}: name is {shown(name)}; give a text, or leave it out')
    seeds = given.get('seeds', [0])
    if not isinstance(seeds, list) or not seeds or any(
            type(seed) is not int or seed < 0 for seed in seeds) or len({*seeds}) < len(seeds):
        raise ValueError(f'{path}: seeds is {shown(seeds)}; give a list of different whole '
                         'numbers from 0, such as [0, 1, 2]')
    metrics = given.get('metrics', ['res/gIoU', 'res/cIoU'])
    if not isinstance(metrics, list) or not metrics or not all(
            isinstance(one, str) for one in metrics) or len({*metrics}) < len(metrics):
        raise ValueError(f'{path}: metrics is {shown(metrics)}; give a list of names that a test '
                         'prints, such as [res/gIoU, res/cIoU]')
    checkpoint = given.get('checkpoint', 'best')
    if checkpoint not in CHECKPOINTS:
        raise ValueError(f'{path}: checkpoint is {shown(checkpoint)}; give best or last')
    test = given.get('test', True)
    if not isinstance(test, bool):
        raise ValueError(f'{path}: test is {shown(test)}; give true or false')
    processes = given.get('processes', 1)
    if type(processes) is not int or processes < 1:
        raise ValueError(f'{path}: processes is {shown(processes)}; give a whole number from 1')
    return Study(name, _arms(given, path), tuple(seeds), tuple(metrics), checkpoint, test,
                 processes)


def _parsed(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f'there is no study {path}: give a .yaml file, or the name of one '
                                'of configs/studies')
    try:
        given = yaml.load(read_text(path), _OnceLoader)
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is no YAML: {" ".join(str(error).split())[:300]}') from None
    if not isinstance(given, dict):
        raise ValueError(f'{path} is no study; it has keys {", ".join(sorted(_KEYS))}')
    return given


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float)) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{key!r} stands twice', key_node.start_mark)
            if isinstance(key, (str, int, float)):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _check_keys(given: dict, known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise ValueError(f'{where}: unknown key {shown(key)}; ' + (
                f'did you mean {near[0]}?' if near else f'there are {", ".join(sorted(known))}'))


def _options(given, where: str) -> dict:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise ValueError(f'{where} is {shown(given)}; give settings, such as '
                         '{train_cfg.max_iters: 20}')
    return given


def _arms(given: dict, path: Path) -> tuple[Arm, ...]:
    rows = given.get('arms')
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f'{path}: arms is {shown(rows)}; give a name and settings a row, such as '
                         'arms: {baseline: {}, longer: {cfg-options: {train_cfg.max_iters: 40}}}')
    common = _options(given.get('cfg-options'), f'{path}: cfg-options')
    tested = _options(given.get('test-options'), f'{path}: test-options')
    arms: list[Arm] = []
    for name, row in rows.items():
        where, row = f'{path}: arm {shown(name)}', {} if row is None else row
        if not isinstance(name, str) or not name.strip() or not isinstance(row, dict):
            raise ValueError(f'{where} is {shown(row)}; give settings: '
                             f'{", ".join(sorted(_ARM_KEYS))}')
        _check_keys(row, _ARM_KEYS, where)
        config = row.get('config', given.get('config'))
        if not isinstance(config, str):
            raise ValueError(f'{where} has no config: give one for it, or for all')
        start = row.get('from')
        if start is not None and start not in [arm.name for arm in arms]:
            raise ValueError(f'{where} starts from {shown(start)}, which is none of the arms '
                             'above it')
        beside = (path.parent / config).resolve()
        options = common | _options(row.get('cfg-options'), f'{where}: cfg-options')
        for key, said in (('randomness.seed', 'seeds'), ('work_dir', 'the folder of the study'),
                          *([('load_from', 'from')] if start else [])):
            if key in options:
                raise ValueError(f'{where}: cfg-options has {key}, which {said} says')
        arms.append(Arm(name, str(beside) if beside.is_file() else config, options, start,
                        tested | _options(row.get('test-options'), f'{where}: test-options')))
    folders = [arm.folder.lower() for arm in arms]
    for arm in arms:
        if folders.count(arm.folder.lower()) > 1:
            raise ValueError(f'{path}: two arms would lie in the folder {arm.folder}: give '
                             'names that differ in letters or figures')
    return tuple(arms)
