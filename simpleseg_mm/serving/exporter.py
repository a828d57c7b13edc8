"""Exports, sets, reading and refined outlines in processes of their own, which can be stopped:
their time and memory are bounded.

    python -m simpleseg_mm.serving.exporter     # such a process; requests come by its input

A request is a line of JSON (``task``, what it needs, ``seconds`` and ``length``) and a body of
``length`` bytes; an answer a line (``length``, and what the task gives, or ``error``) and so many
bytes.
"""
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from ..export import notes_of
from . import edited, packing, reading, refine
from .engine import Busy
from .http import parse_json

WORKERS = 2  # exports at a time
PACKERS = 2  # sets, and annotation files that are read, at a time
MAX_PACK_SECONDS = 1800.0
_READ_TIMES = 6  # seconds of an export that reading may take
MAX_WAITING = 16  # of all clients
MAX_CLIENT = 4  # of one client
_LINE = 100_000  # bytes of an answer's first line
_LENGTH = 1_000_000_000  # bytes of an answer's file


class Exported(NamedTuple):
    """An export: name, media type and bytes of the file; what was left out or changed."""
    file: str
    kind: str
    content: bytes
    notes: list[str]


class Exporter:
    """Runs exports; used in one event loop.

    Args:
        seconds: of an export.
        max_bytes: memory of a process.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self.seconds, self.max_bytes = seconds, max_bytes
        self._idle: list[Process] = []
        self._workers = anyio.CapacityLimiter(WORKERS)
        self._packers = anyio.CapacityLimiter(PACKERS)
        self._clients: Counter = Counter()

    async def export(self, body: bytes, size: tuple[int, int], name: str, client: str
                     ) -> Exported:
        """The file that a request's body asks for. Cancelling stops the work.

        Args:
            body: JSON with ``objects``, ``format`` and ``exact``.
            size: (h, w) of the picture.
            name: of the picture's file.

        Raises:
            ValueError: the request is wrong, or takes too much time or memory.
            Busy: too many exports are waiting.
        """
        async with self._turn(client):
            row, content = await self._work(dict(task='export', size=list(size), name=name), body)
        return Exported(content=content, **row)

    async def refine(self, body: bytes, client: str) -> bytes:
        """The answer, JSON, to a request's body; see :func:`.refine.refine`. Raises as
        :meth:`export`."""
        async with self._turn(client):
            return (await self._work(dict(task='refine'), body))[1]

    async def read(self, body: bytes, client: str) -> bytes:
        """The answer, JSON, to a request's body with annotation files; see
        :func:`.reading.read_files`. Raises as :meth:`export`."""
        async with self._turn(client, self._packers):
            return (await self._work(dict(task='read'), body, _READ_TIMES * self.seconds))[1]

    async def pack(self, folder: str, format: str, exact: bool, pictures: list[dict]
                   ) -> list[str]:
        """Write a set's zip; see :func:`.packing.pack_set`. Raises ValueError."""
        body = json.dumps(dict(format=format, exact=exact, pictures=pictures)).encode()
        seconds = min(self.seconds * (1 + len(pictures)), MAX_PACK_SECONDS)
        async with self._packers:
            row, _ = await self._work(dict(task='pack', folder=folder), body, seconds)
        return row['notes']

    @asynccontextmanager
    async def _turn(self, client: str, workers: anyio.CapacityLimiter | None = None
                    ) -> AsyncIterator[None]:
        """A place among the workers, of exports unless told. Raises Busy."""
        if self._clients[client] >= MAX_CLIENT:
            raise Busy(429, f'{MAX_CLIENT} of your exports are waiting already')
        if sum(self._clients.values()) >= MAX_WAITING:
            raise Busy(503, f'{MAX_WAITING} exports are waiting; try again in a few seconds')
        self._clients[client] += 1
        try:
            async with workers or self._workers:
                yield
        finally:
            self._clients[client] -= 1

    async def close(self) -> None:
        """Stop the processes."""
        for process in self._idle:
            process.kill()
            await process.wait()
        self._idle.clear()

    async def _work(self, head: dict, body: bytes, seconds: float | None = None
                    ) -> tuple[dict, bytes]:
        """What a process answers to a request, in ``seconds`` or those of an export."""
        seconds = self.seconds if seconds is None else seconds
        process = await self._process()
        answer: tuple[dict, bytes] | None = None
        line = json.dumps(dict(head, length=len(body), seconds=seconds)).encode()
        try:
            with anyio.fail_after(seconds):
                await process.stdin.send(line + b'\n' + body)
                stream = BufferedByteReceiveStream(process.stdout)
                row = json.loads(await stream.receive_until(b'\n', _LINE))
                answer = row, await stream.receive_exactly(row.pop('length'))
            self._idle.append(process)
            process = None
        except TimeoutError:
            raise ValueError(f'the work takes more than {seconds:g} s; send fewer objects or '
                             'vertices, or the objects in parts') from None
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            raise ValueError('the work takes too much memory; send fewer objects or vertices, '
                             'or the objects in parts') from None
        finally:
            if process is not None:
                process.kill()
                with anyio.CancelScope(shield=True):
                    await process.wait()
        if 'error' in answer[0]:
            raise ValueError(answer[0]['error'])
        return answer

    async def _process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return await anyio.open_process(
            [sys.executable, '-m', 'simpleseg_mm.serving.exporter', str(self.max_bytes)],
            stderr=None, env=_environment())


def _environment() -> dict:
    """With the folder of this package, wherever it was imported from, and one thread."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [root, *os.environ.get('PYTHONPATH', '').split(os.pathsep)]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), OMP_NUM_THREADS='1',
                OPENBLAS_NUM_THREADS='1')


# --- the process -------------------------------------------------------------------------------
def main() -> int:
    """Answer requests until the input ends."""
    limits = sys.platform != 'win32'
    if limits:
        import resource  # of Unix alone
        resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), ) * 2)
        os.nice(10)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        request = json.loads(line)
        if limits:  # where the server has gone, nobody else ends it
            signal.setitimer(signal.ITIMER_REAL, 2 * request['seconds'] + 5)
        row, content = _answer(request, source.read(request['length']))
        if limits:
            signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(dict(row, length=len(content))).encode() + b'\n' + content)
        out.flush()
    return 0


def _answer(request: dict, body: bytes) -> tuple[dict, bytes]:
    try:
        return _TASKS[request['task']](request, body)
    except (ValueError, RecursionError) as error:
        return dict(error=str(error)), b''
    except OSError as error:
        return dict(error=f"the server's disk fails: {error.strerror}"), b''
    except MemoryError:
        return dict(error='the work takes too much memory; send fewer objects or vertices, or '
                          'the objects in parts'), b''


def _export(request: dict, body: bytes) -> tuple[dict, bytes]:
    row = parse_json(body)
    results = edited.read_objects(request['name'], tuple(request['size']), row.get('objects'))
    file, kind, content = edited.write(results, row.get('format'), row.get('exact') is True)
    return dict(file=file, kind=kind, notes=notes_of(results, row['format'])), content


def _refine(request: dict, body: bytes) -> tuple[dict, bytes]:
    return {}, json.dumps(refine.refine(parse_json(body))).encode()


def _pack(request: dict, body: bytes) -> tuple[dict, bytes]:
    return dict(notes=packing.pack_set(Path(request['folder']), **json.loads(body))), b''


def _read(request: dict, body: bytes) -> tuple[dict, bytes]:
    return {}, json.dumps(reading.read_files(body), ensure_ascii=False).encode()


_TASKS = dict(export=_export, pack=_pack, read=_read, refine=_refine)


if __name__ == '__main__':
    sys.exit(main())
