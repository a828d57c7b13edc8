"""The batch of an update, on however many processes and batches of a loader it takes."""
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mmengine.optim import OptimWrapper
from torch import Tensor

from ..settings import is_whole_within
from .sharding import DeepSpeedOptimWrapper, deepspeed_engine


def batches_an_update(global_batch_size: int | None, batch_size: int, processes: int) -> int:
    """Batches of each process whose gradients make an update of so many samples.

    Args:
        global_batch_size: samples an update; None or 0: one batch of each process.
        batch_size: samples a batch.
        processes: that train together.

    Raises:
        ValueError: it is no whole number.
    """
    _check(global_batch_size, batch_size)
    if not global_batch_size:
        return 1
    count, rest = divmod(global_batch_size, processes * batch_size)
    if rest or not count:
        raise ValueError(
            f'train_cfg.global_batch_size={global_batch_size} is not a multiple of {processes} '
            f'process(es) x train_dataloader.batch_size={batch_size}: '
            f'{_divisors(global_batch_size, processes, "train_dataloader.batch_size")}, or '
            'change global_batch_size itself (None leaves the batch as it is).')
    return count


def prompts_a_process(global_batch_size: int | None, batch_size: int, processes: int) -> int:
    """A process's share of the prompts of a rollout.

    Args:
        global_batch_size: prompts of all processes; None or 0: a batch of each process.
        batch_size, processes: as of :func:`batches_an_update`.

    Raises:
        ValueError: they do not divide among the processes.
    """
    _check(global_batch_size, batch_size)
    if not global_batch_size:
        return batch_size
    share, rest = divmod(global_batch_size, processes)
    if rest:
        raise ValueError(f'train_cfg.global_batch_size={global_batch_size} prompts a rollout do '
                         f'not divide among {processes} processes: '
                         f'{_divisors(global_batch_size, processes)}, or change '
                         'global_batch_size')
    return share


def _check(global_batch_size: int | None, batch_size: int) -> None:
    for name, size in {'train_cfg.global_batch_size': global_batch_size or 1,
                       'train_dataloader.batch_size': batch_size}.items():
        if not is_whole_within(size, 1):
            raise ValueError(f'{name} is {size!r}; give a whole number of at least 1')


def _divisors(total: int, processes: int, batch_size: str = '') -> str:
    """What would divide a batch: sizes a process, else numbers of processes."""
    share, rest = divmod(total, processes)
    if batch_size and not rest and share:
        return f'{batch_size} may be {[i for i in range(1, share + 1) if share % i == 0]}'
    fitting = [i for i in range(1, total + 1) if total % i == 0]
    return f'the number of processes may be {fitting}'


@contextmanager
def accumulating(model, last: bool) -> Iterator[None]:
    """Within, a backward pass adds to the gradient; the last one exchanges it."""
    engine = deepspeed_engine(model)
    if engine:
        engine.set_gradient_accumulation_boundary(last)
    with nullcontext() if engine or last or not hasattr(model, 'no_sync') else model.no_sync():
        yield


class PartOfUpdate:
    """What ``model.train_step`` takes for an ``optim_wrapper`` in one of several batches that
    make an update: the batches count alike, and the last one updates."""

    def __init__(self, wrapper: OptimWrapper, batches: int, last: bool) -> None:
        self.wrapper, self.batches, self.last = wrapper, batches, last

    def optim_context(self, model):
        return self.wrapper.optim_context(model)

    def update_params(self, loss: Tensor) -> None:
        self.wrapper.backward(loss / self.batches)
        if self.last:
            step_and_clear(self.wrapper)


def step_and_clear(wrapper: OptimWrapper) -> None:
    """Update the weights by the gradients and clear these."""
    wrapper.step()
    if not isinstance(wrapper, DeepSpeedOptimWrapper):  # whose step clears them
        wrapper.zero_grad()


def merged(batches: list[dict]) -> dict:
    """Batches of a loader, whose values are lists, as one."""
    if len(batches) == 1:
        return batches[0]
    return {key: [item for batch in batches for item in batch[key]] for key in batches[0]}


class Rebatched:
    """A loader's samples in batches of another size; the order stays.

    Args:
        batches: MMEngine's endless iterator of a loader; values of a batch are lists.
        batch_size: of the loader.
        size: of the batches given.
    """

    def __init__(self, batches, batch_size: int, size: int) -> None:
        self._batches, self._batch_size, self._size = batches, batch_size, size
        self._rest: dict[str, list] = {}

    def __next__(self) -> dict:
        held = self._rest
        while len(next(iter(held.values()), ())) < self._size:
            held = merged([held, next(self._batches)] if held else [next(self._batches)])
        self._rest = {key: values[self._size:] for key, values in held.items()}
        return {key: values[:self._size] for key, values in held.items()}

    def skip_iter(self, count: int) -> None:
        """Pass over ``count`` batches of the size given."""
        whole, rest = divmod(count * self._size, self._batch_size)
        self._batches.skip_iter(whole)
        if rest:
            self._rest = {key: values[rest:] for key, values in next(self._batches).items()}
