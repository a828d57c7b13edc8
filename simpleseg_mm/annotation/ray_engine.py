"""The engine for many machines and GPUs: Ray Data, stages as actors with resources of their own.

A row is a whole chunk, so what a stage sees together, and hence every result, is the same on any
number of machines as in one process. Between actors a chunk travels as encoded images and RLE
masks; each actor decodes for itself.
"""
import pickle
from collections.abc import Iterator
from pathlib import Path

from .pipeline import InputFile, Plan, finish, is_done, read, recorded
from .stage import run_stage


class RayEngine:
    """Runs a plan on a Ray cluster.

    Stages with ``resources`` are pools of actors; neighbours without share a pool of CPU actors,
    the first of them with the reader, the last with the writer.

    Args:
        address: of a cluster, or 'auto'. None starts Ray on this machine, or takes the Ray that
            this process has started.
        readers: actors that read, or (least, most).
    """

    def __init__(self, address: str | None = None, readers: int | tuple[int, int] = (1, 64)
                 ) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError:
            raise ImportError("the ray engine needs Ray Data: pip install "
                              "'simpleseg-mm[annotate-ray]'") from None
        self.address = address
        self.readers = readers

    def run(self, plan: Plan, files: list[InputFile], survey: bool) -> Iterator[dict]:
        """Records of all chunks as they are done; a chunk may come twice."""
        import ray  # optional
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, logging_level='warning')
        context = ray.data.DataContext.get_current().copy()
        context.target_max_block_size = 1  # a chunk a block: the unit that is passed on
        context.enable_progress_bars = False  # there is one
        with ray.data.DataContext.current(context):
            data = ray.data.from_items([dict(file=pickle.dumps(file)) for file in files],
                                       override_num_blocks=len(files))
            for number, (resources, names) in enumerate(_groups(plan, survey)):
                data = data.map_batches(
                    _Reader if number == 0 else _Worker, batch_size=1, zero_copy_batch=False,
                    fn_constructor_args=(plan, survey, names), **self._options(resources))
            data = data.map_batches(_Writer, batch_size=1, fn_constructor_args=(plan, survey),
                                    **self._options(dict(num_cpus=0.25)))
            for row in data.iter_rows():
                yield pickle.loads(row['record'])

    def _options(self, resources: dict) -> dict:
        import ray
        workers = resources.get('workers', self.readers)
        least, most = (workers, workers) if isinstance(workers, int) else workers
        return dict(num_cpus=resources.get('num_cpus', 1), num_gpus=resources.get('num_gpus', 0),
                    compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most))


def _groups(plan: Plan, survey: bool) -> list[tuple[dict, list[str]]]:
    """Resources and names of the stages that share actors, in order; the reader's group first."""
    groups: list[tuple[dict, list[str]]] = [({}, [])]
    for name in plan.passes(survey):
        resources = plan.stages[name].get('resources')
        if resources is not None or groups[-1][0]:
            groups.append((resources or {}, [name]))
        else:
            groups[-1][1].append(name)
    return groups


class _Worker:
    """An actor that takes chunks through some stages."""

    def __init__(self, plan: Plan, survey: bool, names: list[str]) -> None:
        plan.load()
        self.plan, self.survey = plan, survey
        self.stages = [plan.build_stage(name) for name in names]

    def __call__(self, row: dict) -> dict:
        chunk = pickle.loads(row['chunk'][0])
        if not isinstance(chunk, dict):  # else the record of a chunk that was done before
            self.run(chunk)
        return dict(chunk=[pickle.dumps(chunk)])

    def run(self, chunk) -> None:
        for stage in self.stages:
            run_stage(stage, chunk, Path(self.plan.work_dir), self.plan.driver)


class _Reader(_Worker):
    """An actor that reads files, and takes their chunks through the first stages."""

    def __init__(self, plan: Plan, survey: bool, names: list[str]) -> None:
        super().__init__(plan, survey, names)
        self.reader = plan.build_reader()

    def __call__(self, row: dict) -> Iterator[dict]:
        done = is_done(self.plan, self.survey)
        for chunk in read(self.plan, self.reader, pickle.loads(row['file'][0]), done):
            if done(chunk.name):
                chunk = recorded(self.plan, chunk, self.survey)
            else:
                self.run(chunk)
            yield dict(chunk=[pickle.dumps(chunk)])


class _Writer:
    """An actor that writes finished chunks; their records are all that goes to the driver."""

    def __init__(self, plan: Plan, survey: bool) -> None:
        plan.load()
        self.plan = plan
        self.survey = plan.build_stage(plan.surveyed()) if survey else None

    def __call__(self, row: dict) -> dict:
        chunk = pickle.loads(row['chunk'][0])
        record = chunk if isinstance(chunk, dict) else finish(self.plan, chunk, self.survey)
        return dict(record=[pickle.dumps(record)])
