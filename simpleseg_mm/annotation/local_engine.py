"""The embedded engine: the whole pipeline in this process, or in several on this machine."""
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from .pipeline import ChunkRunner, InputFile, Plan

MAX_DEATHS = 10  # of processes, one after another, at one place of a file. Our choice


class LocalEngine:
    """Runs every chunk through all stages in one place.

    Args:
        workers: processes; 0 works in this one. Each holds its own models. One that dies is
            replaced, and its file begun again behind the last finished chunk. A run of this
            process that was killed goes on in one process besides: whether an image has killed it
            can be told by a driver that outlives it.
    """

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(f'workers must be at least 0, got {workers}')
        self.workers = workers

    def run(self, plan: Plan, files: list[InputFile], survey: bool) -> Iterator[dict]:
        """Records of all chunks as they are done; a chunk may come twice."""
        killed = any((Path(plan.work_dir) / 'in_work').glob('*.json'))
        if self.workers or killed:
            yield from _Pool(plan, survey, min(self.workers or 1, len(files))).run(files)
        else:
            runner = ChunkRunner(plan, survey)
            for file in files:
                yield from runner.run_file(file)


def _work(connection: Connection, plan: Plan, survey: bool) -> None:
    """A process: files in, records out, None after each file's last; an exception ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, who stops all
    threading.Thread(target=_leave_with_driver, daemon=True).start()
    try:
        runner = ChunkRunner(plan, survey)
        while (file := connection.recv()) is not None:
            for record in runner.run_file(file):
                connection.send(record)
            connection.send(None)
    except (EOFError, BrokenPipeError):
        pass  # the driver is gone
    except Exception as error:
        try:
            connection.send(error)
        except Exception:  # an exception that cannot be pickled
            connection.send(RuntimeError(f'{type(error).__name__}: {error}'))


def _leave_with_driver() -> None:
    """A killed driver leaves no process behind that writes into its folder."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


class _Pool:
    """Processes with a pipe each, so that the death of one takes nothing along."""

    def __init__(self, plan: Plan, survey: bool, workers: int) -> None:
        self.context = multiprocessing.get_context('spawn')
        self.plan, self.survey, self.workers = plan, survey, workers
        self.pool: dict[Connection, tuple] = {}  # connection -> (process, file)

    def run(self, files: list[InputFile]) -> Iterator[dict]:
        pending = deque(files)
        deaths: dict[str, tuple[dict, int]] = {}  # by file: what the journal said, how often
        try:
            while pending or self.pool:
                while pending and len(self.pool) < self.workers:
                    self._start(pending.popleft())
                for connection in wait(list(self.pool)):
                    process, file = self.pool[connection]
                    try:
                        answer = connection.recv()
                    except (EOFError, ConnectionResetError):
                        process.join()
                        del self.pool[connection]
                        place = self._place(file)
                        alike = deaths.get(file.name, (place, 0))
                        deaths[file.name] = place, alike[1] + 1 if alike[0] == place else 1
                        if deaths[file.name][1] > MAX_DEATHS:
                            raise ChildProcessError(
                                f'{MAX_DEATHS} processes died at {file.name} (the last with exit '
                                f'code {process.exitcode}): is there memory enough? Fewer '
                                'workers or a smaller reader.shard_size need less') from None
                        pending.appendleft(file)
                        continue
                    if isinstance(answer, Exception):
                        raise answer
                    if answer is not None:
                        yield answer
                    elif pending:
                        self._give(connection, process, pending.popleft())
                    else:
                        connection.send(None)
                        process.join()
                        del self.pool[connection]
        finally:
            for process, _ in self.pool.values():
                process.kill()

    def _place(self, file: InputFile) -> dict:
        """What a dead process has noted of its place in a file; a place is tried a few times."""
        return {path.name: path.read_bytes()
                for path in (Path(self.plan.work_dir) / 'in_work').glob(f'{file.name}*.json')}

    def _start(self, file: InputFile) -> None:
        connection, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, self.plan, self.survey),
                                       daemon=True)
        process.start()
        theirs.close()
        self._give(connection, process, file)

    def _give(self, connection: Connection, process, file: InputFile) -> None:
        self.pool[connection] = process, file
        try:
            connection.send(file)
        except (BrokenPipeError, ConnectionResetError):
            pass  # found dead by run()
