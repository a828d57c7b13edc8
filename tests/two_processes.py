"""Two processes of one run, as torchrun starts them, without torchrun's own seconds."""
import multiprocessing
import os
import socket

import pytest
import torch
from engine_standin import ROOT

from simpleseg_mm.engine import processes


def _rank(rank, port, target, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    target(rank, *args)
    processes.leave_processes()


def in_two_processes(target, *args, seconds: float = 300) -> list[int]:
    """Runs ``target(rank, *args)`` in each; their exit codes. Who hangs is killed."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', f'{ROOT}:{ROOT}/tests')
        patch.setenv('OMP_NUM_THREADS', '1')
        context = multiprocessing.get_context('forkserver')  # modules are imported once
        context.set_forkserver_preload(['engine_standin', 'simpleseg_mm.models'])
        ranks = [context.Process(target=_rank, args=(rank, port, target, args))
                 for rank in range(2)]
        for process in ranks:
            process.start()
    for process in ranks:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]
