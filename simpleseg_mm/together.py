"""What one process of a run meets, all of them stop by: none waits for another that is gone."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size

#: what other processes raise in the place of an exception of this kind or of one below it
_KINDS = (FloatingPointError, ConnectionError, FileNotFoundError, OSError, ImportError, ValueError,
          RuntimeError)


class Faults:
    """Keeps the first fault of this process until all of them look for one.

    For a stretch in which processes work together, such as the passes of an update: a process that
    raised in its midst would leave the others waiting.
    """

    def __init__(self) -> None:
        self._first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, an exception ends the block, and is kept."""
        try:
            yield
        except Exception as error:
            self._first = self._first or error

    def raise_together(self) -> None:
        """Raise what was kept; where another process alone kept something, that, by its message.

        Every process must call it.
        """
        if get_world_size() > 1:
            found = torch.tensor(float(self._first is not None))
            all_reduce(found, 'max')
            if found:
                told = all_gather_object(self._first and (_kind_of(self._first), str(self._first)))
                kind, message = next(filter(None, told))
                self._first = self._first or kind(message)
        if self._first is not None:
            raise self._first


def _kind_of(fault: Exception) -> type[Exception]:
    return next((kind for kind in _KINDS if isinstance(fault, kind)), RuntimeError)


@contextmanager
def failing_together() -> Iterator[None]:
    """Within, an exception of one process is raised by all of them at the end of the block.

    Every process must enter it, and none may wait for another within. All wait for each other at
    its end.
    """
    faults = Faults()
    with faults.kept():
        yield
    faults.raise_together()
