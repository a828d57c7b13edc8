"""Exports, sets, reading and refined outlines in processes of their own, which can be stopped:
their time and memory are bounded.

The processes are those of :mod:`.worker`.
"""
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from .engine import Busy

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
            [sys.executable, '-m', 'simpleseg_mm.serving.worker', str(self.max_bytes)],
            stderr=None, env=_environment())


def _environment() -> dict:
    """With the folder of this package, wherever it was imported from, and one thread."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [root, *os.environ.get('PYTHONPATH', '').split(os.pathsep)]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), OMP_NUM_THREADS='1',
                OPENBLAS_NUM_THREADS='1')
