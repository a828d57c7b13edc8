"""One thread that runs the model: waiting requests are answered together, as they are written."""
import asyncio
import logging
import queue
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import List, Optional

import numpy as np

from ..polygon import PolygonCodec, written_rings
from ..structures import Prompt, Segmentation

LOG = logging.getLogger(__name__)


class Busy(RuntimeError):
    """The request is not taken now.

    Attributes:
        status: HTTP's 429 (this client has too many requests waiting) or 503 (all have).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Job:
    """One prompt about one picture, and where its events go.

    Events are dicts with ``event``: 'started'; 'outline' with ``rings``, those vertices written so
    far, pixels; at the end 'done' with ``result`` (a :class:`Segmentation`) or 'error' with
    ``message``. A job that is started twice begins anew.
    """
    picture: np.ndarray
    prompt: Prompt
    client: str
    stream: bool
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    closed: int = 0  # brackets of the text, as far as it has been read for vertices
    vertices: int = 0

    def tell(self, **event) -> None:
        """Give an event to the loop that waits for it; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.cancelled = True


class Engine:
    """Answers prompts in the order of their arrival, up to ``batch_size`` together.

    Args:
        inferencer: a :class:`~simpleseg_mm.apis.SimpleSegInferencer`.
        batch_size: prompts of one batch at most.
        max_queue: prompts that may wait, of all clients.
        max_client: prompts that may wait or run of one client.
    """

    def __init__(self, inferencer, batch_size: int = 8, max_queue: int = 64,
                 max_client: int = 16) -> None:
        for name, value in dict(batch_size=batch_size, max_queue=max_queue,
                                max_client=max_client).items():
            if value < 1:
                raise ValueError(f'{name} is {value}; at least 1')
        self.inferencer = inferencer
        self.batch_size, self.max_queue, self.max_client = batch_size, max_queue, max_client
        self._waiting: queue.Queue = queue.Queue()
        self._clients: Counter = Counter()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Prompts that have not been started."""
        return self._waiting.qsize()

    def submit(self, picture: np.ndarray, prompt: Prompt, client: str = '',
               stream: bool = True) -> Job:
        """Queue a prompt; call it in the event loop that will read the job's events.

        Raises:
            ValueError: the prompt does not fit the picture.
            Busy: too many are waiting.
        """
        prompt = prompt.within(picture.shape[:2])
        job = Job(picture, prompt, client, stream, asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                raise Busy(503, 'the server is stopping')
            if self._clients[client] >= self.max_client:
                raise Busy(429, f'{self.max_client} of your requests are waiting already; send '
                                'the next when one is answered')
            if self.waiting >= self.max_queue:
                raise Busy(503, f'{self.max_queue} requests are waiting; try again in a few '
                                'seconds')
            self._clients[client] += 1
            self._waiting.put(job)
        return job

    def close(self) -> None:
        """Answer what is being answered, refuse the rest, end the thread."""
        with self._lock:
            self._closed = True
        self._waiting.put(None)
        self._thread.join(timeout=30)

    # --- the thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            jobs = self._next()
            if jobs is None:
                break
            self._work(jobs)
        while not self._waiting.empty():
            if (job := self._waiting.get()) is not None:
                self._end(job, event='error', message='the server is stopping')

    def _next(self) -> Optional[List[Job]]:
        """The jobs of the next batch; None at the end."""
        jobs: List[Job] = []
        while not jobs or (len(jobs) < self.batch_size and not self._waiting.empty()):
            job = self._waiting.get()
            if job is None:
                for left in jobs:
                    self._end(left, event='error', message='the server is stopping')
                return None
            if job.cancelled:
                self._end(job, event='error', message='cancelled')
            else:
                jobs.append(job)
        return jobs

    def _work(self, jobs: List[Job]) -> None:
        for job in jobs:
            job.closed = job.vertices = 0
            job.tell(event='started')
        try:
            results = self._answer(jobs)
        except Exception as error:  # one request must not take the server down
            if len(jobs) > 1:  # nor the others of its batch
                LOG.warning('a batch of %d failed (%s); each is tried alone', len(jobs), error)
                for job in jobs:
                    self._work([job])
                return
            LOG.exception('a request failed')
            self._end(jobs[0], event='error',
                      message=str(error) if isinstance(error, ValueError) else
                      f'the model failed: {type(error).__name__}; the log says more')
            return
        for job, result in zip(jobs, results):
            self._end(job, event='done', result=result)

    def _answer(self, jobs: List[Job]) -> List[Segmentation]:
        codec = self._codec()

        def on_text(number: int, text: str) -> bool:
            job = jobs[number]
            if job.cancelled:
                return True
            if job.stream and text.count(']') > job.closed:
                job.closed = text.count(']')
                height, width = job.picture.shape[:2]
                rings = [(ring * [width, height]).round(2).tolist()
                         for ring in written_rings(text, codec.grammar)]
                count = sum(map(len, rings))
                if count > job.vertices:
                    job.vertices = count
                    job.tell(event='outline', rings=rings)
            return False

        return self.inferencer.ask_batch([(job.picture, job.prompt) for job in jobs], on_text)

    def _codec(self) -> PolygonCodec:
        from ..apis.loading import query_of
        return PolygonCodec(**dict(query_of(self.inferencer.cfg)['codec']))

    def _end(self, job: Job, **event) -> None:
        with self._lock:
            self._clients[job.client] -= 1
            if self._clients[job.client] <= 0:
                del self._clients[job.client]
        job.tell(**event)
