"""What all benchmarks share: ours beside its peer in turns, and one form of a row."""
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent


class Skip(Exception):
    """A benchmark cannot run here; the message says why."""


def need_cuda() -> None:
    if not torch.cuda.is_available():
        raise Skip('no CUDA device')


def real_data() -> Path | None:
    """Folder with real photos, where SIMPLESEG_DATA names one."""
    folder = os.environ.get('SIMPLESEG_DATA', '')
    return Path(folder) if folder and Path(folder).is_dir() else None


def alternate(ways: dict[str, Callable[[], object]], repeats: int,
              clock: Callable[[], float] = time.process_time,
              before: Callable[[str], object] | None = None,
              within: Mapping[str, Callable[[], AbstractContextManager]] | None = None
              ) -> dict[str, list[float]]:
    """Seconds of each way, ``repeats`` times in turns after one turn of warm-up.

    Args:
        ways: name -> what is timed.
        repeats: timed turns.
        clock: processor time of this process unless told; ``time.perf_counter`` where other
            processes or devices do a part.
        before: called with the name, untimed.
        within: name -> what gives a context to run that way in; it is entered and left untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            if before is not None:
                before(name)
            with (within or {}).get(name, nullcontext)():
                start = clock()
                way()
                taken = clock() - start
            if turn:
                seconds[name].append(taken)
            if clock is not time.process_time:  # so that a run which is cut has not been in vain
                print(f'turn {turn}, {name}: {taken:.3f} s', file=sys.stderr, flush=True)
    return seconds


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, PyTorch computes on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def row(name: str, ours: list[float], peer: list[float] | None, unit: str,
        device: str = 'cpu', more_is_better: bool = False, **notes) -> dict:
    """A row of the report.

    Args:
        ours, peer: values in ``unit`` of the same turns; no peer: no ratio.
        more_is_better: of a rate; else of a time or size.
        notes: further figures.

    Returns:
        ``ours``, ``peer`` and ``ratio`` (above 1: ours is better) are medians; ``spread`` is the
        least and the most of the turns' ratios.
    """
    if peer is None:
        return dict(name=name, ratio=None, ours=_short(statistics.median(ours)), peer=None,
                    unit=unit, device=device, spread=[], **notes)
    ratios = [(a / b if more_is_better else b / a) for a, b in zip(ours, peer)]
    return dict(name=name, ratio=_short(statistics.median(ratios)),
                ours=_short(statistics.median(ours)), peer=_short(statistics.median(peer)),
                unit=unit, device=device,
                spread=[_short(min(ratios)), _short(max(ratios))], **notes)


def skipped(name: str, reason: str) -> dict:
    return dict(name=name, ratio=None, ours=None, peer=None, unit='', device='', spread=[],
                skipped=reason)


def _short(value: float) -> float:
    return float(f'{value:.4g}')


@contextmanager
def released(network: nn.Module) -> Iterator[nn.Module]:
    """Within, a network of transformers, alone or in an ``MLLM``, runs transformers' own attention
    and steps, not this project's; which layers recompute is afterwards as it was before."""
    ours = getattr(network, 'acceleration', None)
    hf = network.hf if ours else network
    recompute = {module: module.gradient_checkpointing for module in hf.modules()
                 if hasattr(module, 'gradient_checkpointing')}
    with ours.removed() if ours else nullcontext():
        try:
            yield hf
        finally:
            for module, flag in recompute.items():
                module.gradient_checkpointing = flag
            hf.disable_input_require_grads()  # a trainer's checkpointing enables them


def peak_gib(start: bool = False) -> float | None:
    """Most memory of the GPU that was allocated since the last call with ``start``."""
    if not torch.cuda.is_available():
        return None
    if start:
        torch.cuda.reset_peak_memory_stats()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def now() -> float:
    """Seconds of the clock on the wall, when the GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def free_memory() -> float:
    """Give back what nothing holds any more; GiB of the GPU that are still held."""
    gc.collect()
    if not torch.cuda.is_available():
        return 0.
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated() / 2**30


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'


def machine() -> dict:
    """Processor, cores, threads, device and versions."""
    model = platform.processor()
    if Path('/proc/cpuinfo').is_file():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next((x.split(':', 1)[1].strip() for x in lines if x.startswith('model name')),
                     model)
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    return dict(cpu=model, cores=os.cpu_count(), threads=torch.get_num_threads(),
                device=device_name(), torch=torch.__version__,
                python=platform.python_version(), load=load)
