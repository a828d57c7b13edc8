"""The contract of a stage, and how a chunk goes through one whatever happens."""
import json
import time
from collections.abc import Sequence
from pathlib import Path

from simpleseg_mm.files import replacing

from .sample import Chunk, Sample, clean_text

DEATHS = 2  # of processes at one batch before its images are tried singly, and at one image


class Stage:
    """One step of the pipeline.

    A subclass implements :meth:`process`; it may hold a model, is built once a process, and keeps
    nothing from one batch to the next that would change a result. What it drops it counts
    (``sample.drop``, ``sample.keep``). An exception is an image's fault, not the run's: the batch
    is tried image by image, and those that raise are quarantined with the message.

    Args:
        batch_size: images in one call of ``process``. Batches are cut from the chunk, so they are
            the same on every engine.
        resources: of the Ray engine: ``dict(num_cpus=1, num_gpus=0, workers=1)``; ``workers`` may
            be (least, most). Neighbouring stages without it share the processes of the reader.
    """
    name = ''

    def __init__(self, batch_size: int = 16, resources: dict | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, got {batch_size}')
        self.batch_size = batch_size
        self.resources = resources

    def process(self, samples: Sequence[Sample]) -> None:
        """Work on images in place."""
        raise NotImplementedError

    def begin(self, chunk: Chunk, work_dir: Path) -> None:
        """Called before the batches of each chunk."""


class Journal:
    """Which batch a chunk is in, on disk: what a dead process leaves behind names the culprit.

    A file a chunk, there only while the chunk is in work. A death counts where the driver outlived
    it, that is, where the process that finds the note belongs to the same run of the driver: a
    driver that is killed takes its processes along, whatever images they were at.

    Args:
        work_dir: folder of the run.
        chunk: its name.
        driver: names this run of the driver.
    """

    def __init__(self, work_dir: Path, chunk: str, driver: str) -> None:
        self.path = Path(work_dir) / 'in_work' / f'{chunk}.json'
        self.driver = driver
        try:
            left = json.loads(self.path.read_bytes())
            self.left = left['deaths'] if left['driver'] == driver else {}
        except (OSError, ValueError, LookupError, TypeError):
            self.left = {}

    def deaths(self, place: str) -> int:
        """How many processes of this driver have died at this place."""
        return self.left.get(place, 0)

    def enter(self, place: str) -> None:
        """Note the place; should the process die here, the next one finds it."""
        self._write({**self.left, place: self.deaths(place) + 1})

    def leave(self) -> None:
        """The place is left alive."""
        if self.left:
            self._write(self.left)
        else:
            self.close()

    def close(self) -> None:
        """The chunk is done, or nothing is known against it."""
        self.path.unlink(missing_ok=True)

    def _write(self, deaths: dict) -> None:
        content = json.dumps(dict(driver=self.driver, deaths=deaths))
        with replacing(self.path, durable=False) as partial:
            partial.write_text(content)


def run_stage(stage: Stage, chunk: Chunk, work_dir: Path, driver: str) -> None:
    """Take a chunk through a stage. Never raises for what an image does to the stage."""
    journal = Journal(work_dir, chunk.name, driver)
    live = chunk.live
    start = time.perf_counter()
    try:
        stage.begin(chunk, work_dir)
        for number in range(0, len(live), stage.batch_size):
            batch = live[number:number + stage.batch_size]
            place = f'{stage.name}/{number}'
            if journal.deaths(place) < DEATHS:
                journal.enter(place)
                if len(batch) == 1:
                    _process_single(stage, batch[0])
                else:
                    _process_batch(stage, batch)
                continue
            for sample in batch:
                own = f'{place}/{sample.key}'
                if journal.deaths(own) >= DEATHS:
                    sample.drop(stage.name, 'killed its process', quarantine=True)
                    continue
                journal.enter(own)
                _process_single(stage, sample)
    finally:
        journal.leave()
        chunk.seconds[stage.name] += time.perf_counter() - start
        chunk.handled[stage.name] += len(live)


def _process_batch(stage: Stage, batch: Sequence[Sample]) -> None:
    states = [_snapshot(sample) for sample in batch]
    try:
        stage.process(batch)
    except Exception:  # found out image by image, below
        for sample, state in zip(batch, states):
            sample.__dict__.update(state)
        for sample in batch:
            _process_single(stage, sample)


def _process_single(stage: Stage, sample: Sample) -> None:
    state = _snapshot(sample)
    try:
        stage.process([sample])
    except Exception as error:
        sample.__dict__.update(state)
        sample.drop(stage.name, f'failed: {type(error).__name__}', quarantine=True)
        sample.notes.append(f'{stage.name}: {type(error).__name__}: {clean_text(error, 300)}')


def _snapshot(sample: Sample) -> dict:
    """The state to go back to after a failed attempt."""
    return {**sample.__dict__,
            'objects': [{**o, 'descriptions': [dict(d) for d in o['descriptions']]}
                        if 'descriptions' in o else dict(o) for o in sample.objects],
            'lost': set(sample.lost), 'notes': list(sample.notes), 'counts': sample.counts.copy(),
            'proposed': sample.proposed.copy(), 'meta': dict(sample.meta)}
