"""The processes of a run: how many there are, how they join, and how they leave together."""
import atexit
import os
import sys

import torch
from mmengine.config import Config


def world_size(launcher: str) -> int:
    """Number of processes that ``launcher`` ('none', 'pytorch', 'slurm' or 'mpi') has started."""
    names = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    return int(os.environ.get(names.get(launcher, ''), 1))


def prepare_launcher(cfg: Config, launcher: str) -> None:
    """Set the launcher; without a GPU, join the processes by gloo (MMEngine would need CUDA)."""
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise ValueError(f'launcher {launcher!r} needs GPUs here: without one, start the tool '
                         'with torchrun and --launcher pytorch.')
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})['backend'] = 'gloo'
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                 broadcast_buffers=False)
    if not torch.distributed.is_initialized():
        if 'RANK' not in os.environ:
            raise ValueError("launcher 'pytorch' is for processes that torchrun has started: "
                             'torchrun --nproc-per-node=N tools/train.py CONFIG --launcher '
                             'pytorch; or leave --launcher out')
        torch.distributed.init_process_group('gloo')


def leave_processes(status: int = 0) -> None:
    """Leave the group of processes together; one that exits early aborts the others.

    The last call of a tool: processes that were joined by gloo end here, with ``status``, after
    Python's own exit functions. About one exit in 25 of three such processes aborted later, in a
    destructor of a library ("terminate called without an active exception"), and torchrun called
    a finished run failed.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return  # one alone, which vLLM joins to itself, and leaves by itself
    by_gloo = torch.distributed.get_backend() == 'gloo'
    torch.distributed.barrier()
    atexit._run_exitfuncs()  # an engine in this process leaves groups of its own, or all of them
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if by_gloo:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
