"""Checkpoints as folders: every process writes its part, any number of processes reads them.

The folder holds the tensors in the format of ``torch.distributed.checkpoint`` and everything else
of an MMEngine checkpoint in ``checkpoint.pth``, which is written last: a folder without it was
interrupted. What is read is the dictionary that a plain run would have saved.
"""
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from mmengine.dist import barrier, is_main_process
from torch import Tensor
from torch.distributed.tensor import DTensor

from .checkpoint_content import REST, CheckpointError, FolderReader, load_torch_file

_MARK = '__tensor__'
#: keys and numbers that lead to a value of nested containers
Place = tuple[str | int, ...]
#: place of a tensor, its shape and type -> a tensor to read it into
MakeTensor = Callable[[Place, torch.Size, torch.dtype], Tensor]


def save_sharded(checkpoint: dict[str, Any], folder: str) -> None:
    """Write a checkpoint; every process of the run calls it with the same keys.

    Args:
        checkpoint: nested dictionaries, lists and tuples; its tensors may be DTensors.
        folder: made where it is absent; what is in it is overwritten.
    """
    rest = Path(folder, REST)
    if is_main_process():
        rest.parent.mkdir(parents=True, exist_ok=True)
        rest.unlink(missing_ok=True)
    barrier()
    tensors: dict[str, Tensor] = {}

    def take_out(value: Any, place: Place) -> Any:
        if not isinstance(value, Tensor):
            return value
        key = '/'.join(map(str, place))
        tensors[key] = value.detach()
        return {_MARK: key}

    skeleton = _map(take_out, checkpoint)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='torch.distributed is disabled')
        dcp.save(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    if is_main_process():
        partial = rest.with_suffix('.partial')
        torch.save(skeleton, partial)
        os.replace(partial, rest)
    barrier()


def load_sharded(folder: str, make: MakeTensor | None = None) -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        folder: as written by :func:`save_sharded`, by any number of processes.
        make: gives the tensor to read into; where that is a DTensor, this process reads its part
            only, and every process must call. ``None``: whole tensors on the CPU.

    Raises:
        CheckpointError: no checkpoint, or one whose writing was interrupted.
    """
    if not Path(folder, REST).is_file():
        raise CheckpointError(f'{folder} is not a whole checkpoint: it has no {REST}, which is '
                              'written last. Take an earlier one.')
    skeleton = load_torch_file(Path(folder, REST))
    tensors: dict[str, Tensor] = {}
    stored = FolderReader(folder).read_metadata().state_dict_metadata

    def put_in(value: Any, place: Place) -> Any:
        if not _is_mark(value):
            return value
        key = value[_MARK]
        size, dtype = stored[key].size, stored[key].properties.dtype
        tensors[key] = torch.empty(size, dtype=dtype) if make is None else make(place, size, dtype)
        return tensors[key]

    checkpoint = _map(put_in, skeleton)
    # Without a DTensor the processes read for themselves: they need not all be here.
    alone = not any(isinstance(tensor, DTensor) for tensor in tensors.values())
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='torch.distributed is disabled')
        dcp.load(tensors, storage_reader=FolderReader(folder), no_dist=alone)
    return checkpoint


def _map(function: Callable[[Any, Place], Any], value: Any, place: Place = ()) -> Any:
    """A copy of nested dictionaries, lists and tuples with ``function`` of each leaf.

    A mark is a leaf.
    """
    if isinstance(value, dict) and _MARK not in value:
        return {key: _map(function, item, (*place, key)) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(function, item, (*place, i)) for i, item in enumerate(value))
    return function(value, place)


def _is_mark(value: Any) -> bool:
    return isinstance(value, dict)  # the only dictionary that is a leaf
