"""A run: config -> reader and stages -> chunks through an engine -> shards, counts, report."""
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.utils import import_modules_from_strings
from tqdm import tqdm

from simpleseg_mm.files import load_json, replace_bytes, replace_json
from simpleseg_mm.registry import STAGES

from .readers import InputFile, Reader
from .sample import Chunk, clean_text
from .stage import DEATHS, Journal, Stage, run_stage
from .writer import FOLDERS, Totals, write_chunk


@dataclass(frozen=True)
class Plan:
    """What every process needs to know; plain data.

    Attributes:
        reader: config of the reader.
        stages: name -> config of each stage, in order.
        work_dir: folder of the run, reachable from every machine.
        imports: modules that register stages of the user's own.
        driver: names one run of the driver: a plan belongs to it.
    """
    reader: dict
    stages: dict
    work_dir: str
    imports: tuple[str, ...] = ()
    driver: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def from_config(cls, cfg: Mapping, work_dir: str) -> 'Plan':
        """Plan of an annotation config.

        Raises:
            ValueError: it has none, or ``order`` names a stage that ``stages`` lacks, or one
                twice.
        """
        if lacking := [name for name in ('reader', 'stages', 'order') if not cfg.get(name)]:
            raise ValueError(f'the config has no {" and no ".join(lacking)}: take one of '
                             'configs/annotation, or a child of '
                             'configs/_base_/annotation/stages.py')
        order = list(cfg['order'])
        if missing := [name for name in order if name not in cfg['stages']]:
            raise ValueError(f"order names {missing}, stages has {sorted(cfg['stages'])}")
        if len(set(order)) < len(order) or 'read' in order:
            raise ValueError(f"order names each stage once, and none 'read'; got {order}")
        plain = json.loads(json.dumps([cfg['reader'], {n: cfg['stages'][n] for n in order}]))
        return cls(plain[0], plain[1], str(Path(work_dir).resolve()),
                   tuple(cfg.get('custom_imports', {}).get('imports', ())))

    def load(self) -> None:
        """Import what registers stages; in every process."""
        import_modules_from_strings(list(self.imports))

    def build_reader(self) -> Reader:
        """A new reader."""
        self.load()
        return STAGES.build(dict(self.reader))

    def build_stage(self, name: str) -> Stage:
        """A new stage, with its models."""
        self.load()
        stage = STAGES.build(dict(self.stages[name]))
        stage.name = name
        return stage

    def surveyed(self) -> str | None:
        """Name of the stage that looks at all input first, if there is one."""
        names = [name for name, stage in self.stages.items()
                 if hasattr(STAGES.get(stage['type']), 'survey')]
        if len(names) > 1:
            raise ValueError(f'one stage can survey the input, got {names}')
        return names[0] if names else None

    def passes(self, survey: bool) -> list[str]:
        """Names of the stages of a pass: those before the surveying one, or all."""
        names = list(self.stages)
        return names[:names.index(self.surveyed())] if survey else names


def is_done(plan: Plan, survey: bool) -> Callable[[str], bool]:
    """Whether a chunk needs no work, by its name."""
    folder = Path(plan.work_dir) / ('survey' if survey else 'ledger')
    return lambda name: (folder / f'{name}.json').exists()


def read(plan: Plan, reader: Reader, file: InputFile, done: Callable[[str], bool]
         ) -> Iterator[Chunk]:
    """Chunks of a file, the reading timed.

    A file that makes the reader raise or die is at fault from there on; the run is not.
    """
    journal = Journal(Path(plan.work_dir), f'{file.name}-read', plan.driver)
    chunks, number, fault = iter(reader.chunks(file, done)), 0, None
    while fault is None:
        start = time.perf_counter()
        place = f'read/{number}'
        if journal.deaths(place) >= DEATHS:
            fault = 'killed its process'
            break
        journal.enter(place)
        try:
            chunk = next(chunks, None)
        except ImportError:
            raise
        except Exception as error:
            fault = f'failed: {type(error).__name__}: {clean_text(error, 200)}'
            break
        finally:
            journal.leave()
        if chunk is None:
            break
        number += 1
        chunk.seconds['read'] += time.perf_counter() - start
        chunk.handled['read'] += len(chunk.samples)
        yield chunk
    journal.close()
    if fault is not None:
        yield Chunk(f'{file.name}-unread', [], 0 if number else file.weight, [(
            'file unreadable', f'{", ".join(file.paths[:1])}, after {number} chunks: {fault}')])


def finish(plan: Plan, chunk: Chunk, survey: Stage | None) -> dict:
    """Write a chunk that has been through its stages; returns its record."""
    work_dir = Path(plan.work_dir)
    if survey is not None:
        replace_bytes(work_dir / 'survey' / f'{chunk.name}.json', survey.survey(chunk))
        record = dict(name=chunk.name, weight=chunk.weight)
    else:
        record = write_chunk(chunk, work_dir, list(plan.stages))
    Journal(work_dir, chunk.name, plan.driver).close()
    return record


def recorded(plan: Plan, chunk: Chunk, survey: bool) -> dict:
    """Record of a chunk that was done before."""
    if survey:
        return dict(name=chunk.name, weight=chunk.weight)
    return json.loads((Path(plan.work_dir) / 'ledger' / f'{chunk.name}.json').read_bytes())


class ChunkRunner:
    """The whole pipeline in one process.

    Args:
        plan: of the run.
        survey: run the surveying pass instead of the main one.
    """

    def __init__(self, plan: Plan, survey: bool) -> None:
        self.plan = plan
        self.reader = plan.build_reader()
        self.stages = [plan.build_stage(name) for name in plan.passes(survey)]
        self.survey = plan.build_stage(plan.surveyed()) if survey else None

    def run_file(self, file: InputFile) -> Iterator[dict]:
        """Take every chunk of a file through the pipeline; yields their records."""
        survey = self.survey is not None
        done = is_done(self.plan, survey)
        for chunk in read(self.plan, self.reader, file, done):
            if done(chunk.name):
                yield recorded(self.plan, chunk, survey)
                continue
            for stage in self.stages:
                run_stage(stage, chunk, Path(self.plan.work_dir), self.plan.driver)
            yield finish(self.plan, chunk, self.survey)


def annotate(cfg: Mapping, work_dir: str, engine) -> Totals:
    """Run an annotation config, or go on with it.

    Args:
        cfg: with ``reader``, ``stages`` (name -> config) and ``order`` (names).
        work_dir: a new folder, or one of the same config and input.
        engine: :class:`LocalEngine` or :class:`RayEngine`.

    Raises:
        ValueError: the folder belongs to another config, or the input has changed.
    """
    plan = Plan.from_config(cfg, work_dir)
    files = plan.build_reader().files()
    for folder in FOLDERS:
        (Path(plan.work_dir) / folder).mkdir(parents=True, exist_ok=True)
        for partial in (Path(plan.work_dir) / folder).glob('.*.partial'):
            partial.unlink(missing_ok=True)  # of a run that was killed
    _claim(plan, files)
    name = plan.surveyed()
    if name is not None:
        _run(plan, files, engine, survey=True)
        plan.build_stage(name).conclude(Path(plan.work_dir))
    totals = _run(plan, files, engine, survey=False)
    for left in (Path(plan.work_dir) / 'in_work').iterdir():
        left.unlink(missing_ok=True)
    replace_json(Path(plan.work_dir) / 'counts.json', totals.as_dict(), indent=1)
    return totals


def _run(plan: Plan, files: list[InputFile], engine, survey: bool) -> Totals:
    """One pass over all input, under a progress bar."""
    totals = Totals()
    seen: set[str] = set()
    images = 0
    start = time.perf_counter()
    weight = sum(file.weight for file in files)
    with tqdm(total=weight, desc='survey' if survey else 'annotate', unit='',
              unit_scale=True) as bar:
        for record in engine.run(plan, files, survey):
            if record['name'] in seen:  # a file begun again after its process died
                continue
            seen.add(record['name'])
            bar.update(record['weight'])
            if not survey:
                totals.add(record)
                images += record['counts']['images']['entered']
                seconds = time.perf_counter() - start
                slowest = max(totals.stages, default='',
                              key=lambda name: totals.stages[name]['seconds'])
                bar.set_postfix_str(f'{images} images, {images / seconds:.1f}/s, most time in '
                                    f'{slowest}')
    return totals


def _claim(plan: Plan, files: list[InputFile]) -> None:
    """Write what the folder is of, or compare with what it was."""
    stages = {name: {k: v for k, v in stage.items() if k != 'resources'}
              for name, stage in plan.stages.items()}
    mine = dict(
        config=dict(reader=plan.reader, stages=stages),
        files={file.name: hashlib.sha256(json.dumps([file.paths, file.weight]).encode())
               .hexdigest()[:16] for file in files})
    path = Path(plan.work_dir) / 'run.json'
    if path.exists():
        before = load_json(path)
        differing = _differences(before['config'], mine['config'])
        if differing:
            raise ValueError(f'{plan.work_dir} was made with another config: {differing[:5]} '
                             'differ. Give a new --work-dir, or the old values')
        changed = [name for name, digest in before['files'].items()
                   if mine['files'].get(name) != digest]
        if changed:
            raise ValueError(f'the input has changed since {plan.work_dir} was begun: '
                             f'{changed[:5]} are other or gone. Give a new --work-dir')
    replace_json(path, mine, indent=1, ensure_ascii=True)


def _differences(a, b, place: str = '') -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        if not place.count('.') and list(a) != list(b) and set(a) == set(b):
            return [f'order of {place or "keys"}']
        return [line for key in {**a, **b}
                for line in _differences(a.get(key), b.get(key), f'{place}.{key}'.lstrip('.'))]
    return [] if a == b else [f'{place} ({a!r:.60} before, {b!r:.60} now)']
