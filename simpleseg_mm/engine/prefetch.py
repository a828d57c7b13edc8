"""Prefetching: what the next step needs, prepared in a thread beside the present one."""
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item, Made = TypeVar('Item'), TypeVar('Made')


class Prefetcher:
    """An iterator of prepared items; the next can be prepared before it is asked for.

    Between :meth:`begin` and :meth:`wait` the thread alone may use the loader and what
    ``prepare`` uses.

    Args:
        batches: MMEngine's endless iterator of a loader.
        prepare: what is done with each batch.
        an_iteration: batches of which one iteration of the loop takes so many.
    """

    def __init__(self, batches, prepare: Callable[[dict], dict], an_iteration: int = 1) -> None:
        self._batches, self._prepare, self._an_iteration = batches, prepare, an_iteration
        self._thread = _thread()
        self._next: Future | None = None

    def begin(self) -> None:
        self._next = self._thread.submit(lambda: self._prepare(next(self._batches)))

    def wait(self) -> None:
        if self._next is not None:
            self._next.result()

    def __next__(self) -> dict:
        if self._next is None:
            return self._prepare(next(self._batches))
        batch, self._next = self._next.result(), None
        return batch

    def skip_iter(self, count: int) -> None:
        """Pass over the batches of ``count`` iterations."""
        self._batches.skip_iter(count * self._an_iteration)


def prefetched(items: Sequence[Item], prepare: Callable[[Item], Made]
                  ) -> Iterator[tuple[Item, Made]]:
    """Each item and what ``prepare`` made of it, which is done while the one before is worked
    on; so two are held at a time."""
    with _thread() as thread:
        made = [thread.submit(prepare, item) for item in items[:1]]
        for item, following in zip(items, [*items[1:], None]):
            ready = made.pop().result()
            if following is not None:
                made.append(thread.submit(prepare, following))
            yield item, ready


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix='encode')
