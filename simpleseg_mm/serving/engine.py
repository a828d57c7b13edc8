"""One thread that runs the model: waiting requests are answered together, as they are written."""
import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from ..asking import Unanswered
from ..polygon import WrittenRings
from ..structures import Prompt, Segmentation

LOG = logging.getLogger(__name__)

# Our choices.
MAX_PROMPT = 2000  # characters of an expression
BATCH_TEXT = 2000  # characters of a batch, each filled up to its longest: long ones are alone
PATIENCE = 0.5  # seconds that one who waits leaves the batch of a client who has more waiting
_RESTARTS = 5  # times that a job makes room for others


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

    Events are dicts with ``event``: 'started'; 'outline' with ``rings``, the vertices of an
    instance written so far, pixels, and ``instance``, its number from 0, 0 where one object was
    asked for; at the end 'done' with ``result`` (a :class:`Segmentation`) or 'error' with
    ``message``. A job that is started twice begins anew.
    """
    picture: np.ndarray
    prompt: Prompt
    client: str
    stream: bool
    loop: asyncio.AbstractEventLoop
    options: dict = field(default_factory=dict)  # of the inferencer's ``ask_batch``
    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    written: WrittenRings | None = None
    restarts: int = 0  # how often it has made room for others
    set_aside: bool = False  # it makes room now

    def tell(self, **event) -> None:
        """Give an event to the loop that waits for it; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.cancelled = True


class Engine:
    """Answers prompts up to ``batch_size`` together; clients take turns.

    A client's prompts are begun in the order of their arrival. Where several clients wait, each
    batch takes one prompt of each in turn until it is full. A batch of a client who has more
    waiting makes room for another client who comes meanwhile, and begins anew after these.

    Args:
        inferencer: a :class:`~simpleseg_mm.apis.SimpleSegInferencer`, or one of an endpoint.
        batch_size: prompts of one batch at most; fewer where they are long. They are asked by the
            same options.
        max_queue: prompts that may wait, of all clients.
        max_client: prompts that may wait or run of one client.
        max_bytes: of the pictures that prompts which wait are about.
    """

    def __init__(self, inferencer, batch_size: int = 8, max_queue: int = 64,
                 max_client: int = 16, max_bytes: int = 500_000_000) -> None:
        for name, value in dict(batch_size=batch_size, max_queue=max_queue,
                                max_client=max_client, max_bytes=max_bytes).items():
            if value < 1:
                raise ValueError(f'{name} is {value}; at least 1')
        self.inferencer = inferencer
        self.batch_size, self.max_queue, self.max_client = batch_size, max_queue, max_client
        self.max_bytes = max_bytes
        self._queues: OrderedDict[str, deque[Job]] = OrderedDict()  # clients, the next first
        self._clients: Counter = Counter()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Prompts that have not been started."""
        with self._changed:
            return sum(map(len, self._queues.values()))

    def check(self, prompt: Prompt, size: tuple[int, int] | None = None) -> Prompt:
        """The prompt as it is asked of a picture of ``size`` (h, w).

        Raises:
            ValueError: it is too long, or outside the picture.
        """
        if prompt.kind == 'text' and len(prompt.text) > MAX_PROMPT:
            raise ValueError(f'the expression has more than {MAX_PROMPT} characters')
        return prompt if size is None else prompt.within(size)

    def submit(self, picture: np.ndarray, prompt: Prompt, client: str = '',
               stream: bool = True, options: dict = {}) -> Job:
        """Queue a prompt; call it in the event loop that will read the job's events.

        Args:
            options: of the inferencer's ``ask_batch``, besides.

        Raises:
            ValueError: the prompt is too long or does not fit the picture.
            Busy: too many are waiting.
        """
        prompt = self.check(prompt, picture.shape[:2])
        job = Job(picture, prompt, client, stream, asyncio.get_running_loop(), options)
        with self._changed:
            if self._closed:
                raise Busy(503, 'the server is stopping')
            if self._clients[client] >= self.max_client:
                raise Busy(429, f'{self.max_client} of your requests are waiting already; send '
                                'the next when one is answered')
            waiting = [one.picture for queue in self._queues.values() for one in queue]
            if len(waiting) >= self.max_queue:
                raise Busy(503, f'{self.max_queue} requests are waiting; try again in a few '
                                'seconds')
            held = {id(one): one.nbytes for one in waiting if one is not picture}
            if held and sum(held.values()) + picture.nbytes > self.max_bytes:
                raise Busy(503, f'the pictures of {len(waiting)} waiting requests fill the room '
                                'for them; try again in a few seconds')
            self._clients[client] += 1
            self._queues.setdefault(client, deque()).append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Answer what is being answered, refuse the rest, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=30)

    # --- the thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        while jobs := self._next():
            self._work(jobs)
        with self._changed:
            left = [job for queue in self._queues.values() for job in queue]
            self._queues.clear()
        for job in left:
            self._end(job, event='error', message='the server is stopping')

    def _next(self) -> list[Job]:
        """The jobs of the next batch; none at the end."""
        with self._changed:
            while True:
                for job in self._gone():
                    self._end(job, event='error', message='cancelled')
                if self._closed:
                    return []
                if jobs := self._taken():
                    return jobs
                self._changed.wait()

    def _gone(self) -> list[Job]:
        """Take what nobody waits for any more out of the queues."""
        gone = [job for queue in self._queues.values() for job in queue if job.cancelled]
        for client, queue in list(self._queues.items()):
            self._queues[client] = deque(job for job in queue if not job.cancelled)
            if not self._queues[client]:
                del self._queues[client]
        return gone

    def _taken(self) -> list[Job]:
        """Take a batch: the clients' oldest in turn, while they fit."""
        jobs: list[Job] = []
        longest, turns = 0, len(self._queues)
        while turns and len(jobs) < self.batch_size:
            client, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(client)
            length = max(longest, len(queue[0].prompt.text or ''))
            if jobs and (length * (len(jobs) + 1) > BATCH_TEXT
                         or queue[0].options != jobs[0].options):
                turns -= 1
                continue
            jobs.append(queue.popleft())
            longest = length
            if not queue:
                del self._queues[client]
            turns = len(self._queues)
        return jobs

    def _makes_room(self, job: Job, jobs: list[Job], started: float) -> bool:
        """Whether others wait, and this client has more waiting itself."""
        if job.restarts >= _RESTARTS or time.monotonic() - started < PATIENCE:
            return False
        served = {one.client for one in jobs}
        with self._changed:
            return job.client in self._queues and any(
                client not in served for client in self._queues)

    def _work(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.written = WrittenRings(self.inferencer.codec.grammar, job.prompt.many)
            job.set_aside = False
            job.tell(event='started')
        try:
            results = self._answer(jobs)
        except Unanswered as error:  # a server has not answered all: it was tried again there
            LOG.warning('%s', error)
            results = error.results
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
        for job, result in zip(jobs, results, strict=True):
            if job.set_aside:
                continue
            if isinstance(result, Unanswered):
                self._end(job, event='error', message=str(result))
            else:
                self._end(job, event='done', result=result)
        with self._changed:
            for job in jobs:  # behind its client's others, so that each makes room in its turn
                if job.set_aside:
                    job.restarts += 1
                    self._queues.setdefault(job.client, deque()).append(job)

    def _answer(self, jobs: list[Job]) -> list[Segmentation]:
        started = time.monotonic()

        def on_text(number: int, text: str) -> bool:
            job = jobs[number]
            job.set_aside = job.set_aside or self._makes_room(job, jobs, started)
            if job.cancelled or job.set_aside:
                return True
            height, width = job.picture.shape[:2]
            for instance, rings in job.written.news(text) if job.stream else ():
                job.tell(event='outline', instance=instance, rings=[
                    (ring * [width, height]).round(2).tolist() for ring in rings])
            return False

        return self.inferencer.ask_batch([(job.picture, job.prompt) for job in jobs], on_text,
                                         **jobs[0].options)

    def _end(self, job: Job, **event) -> None:
        with self._changed:
            self._clients[job.client] -= 1
            if self._clients[job.client] <= 0:
                del self._clients[job.client]
        job.tell(**event)
