"""Matrices whose rows ``fully_shard`` has split over processes, whole for one product.

Newton-Schulz needs a whole matrix. Each process of a round owns some matrices: it receives their
rows from all, orthogonalises them, and sends the rows back. What moves is twice the process's
share of the matrices, instead of all of them to everyone.
"""
from collections.abc import Callable, Sequence
from operator import mul

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_group(param: Tensor) -> dist.ProcessGroup | None:
    """The processes that the rows of a parameter are split over; None for a whole one.

    Raises:
        ValueError: it is split along another dimension, or along several.
    """
    if not isinstance(param, DTensor):
        return None
    split = [i for i, place in enumerate(param.placements) if not place.is_replicate()]
    if not split:
        return None
    if len(split) > 1 or param.placements[split[0]] != Shard(0):
        raise ValueError(f'a parameter of shape {tuple(param.shape)} is placed '
                         f'{param.placements}: Muon takes whole ones and those that fully_shard '
                         'splits along their first dimension.')
    return param.device_mesh.get_group(split[0])


def orthogonalize_sharded(shapes: Sequence[Sequence[tuple[int, int]]],
                          updates: Sequence[Sequence[Tensor]], group: dist.ProcessGroup,
                          function: Callable[[list[Tensor]], list[Tensor]]) -> list[list[Tensor]]:
    """Apply ``function`` to whole matrices of which every process has some rows.

    Args:
        shapes: of the whole matrices, one list for each process of the group at most; the i-th is
            computed by process i.
        updates: this process's rows of each matrix, ``(rows, c)``, one dtype.
        group: the processes.
        function: whole matrices ``(r, c)`` of a list -> as many of the same shapes.

    Returns:
        this process's rows of the results, in the shape of ``updates``.
    """
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    # rows[i][s]: rows that process s has of each matrix of list i
    rows = [[[_rows(r, world, s) for r, _ in chunk] for s in range(world)] for chunk in shapes]
    columns = [[c for _, c in chunk] for chunk in shapes]
    sizes = [[sum(map(mul, rows[i][s], columns[i])) for s in range(world)]
             for i in range(len(shapes))]
    idle = [0] * world
    sent = [size[rank] for size in sizes] + idle[len(shapes):]
    received = sizes[rank] if rank < len(shapes) else idle
    send = torch.cat([update.reshape(-1) for chunk in updates for update in chunk])
    receive = send.new_empty(sum(received))
    dist.all_to_all_single(receive, send, received, sent, group)
    if rank < len(shapes):
        pieces = [_unflatten(part, rows[rank][s], columns[rank])
                  for s, part in enumerate(receive.split(received))]
        results = function([torch.cat(parts) for parts in zip(*pieces)])
        # from matrix by matrix to process by process
        split = [result.split([rows[rank][s][j] for s in range(world)])
                 for j, result in enumerate(results)]
        receive = torch.cat([part.reshape(-1) for parts in zip(*split) for part in parts])
    dist.all_to_all_single(send, receive, sent, received, group)
    return [_unflatten(part, rows[i][rank], columns[i])
            for i, part in enumerate(send.split(sent)[:len(shapes)])]


def _rows(total: int, world: int, rank: int) -> int:
    """Rows of a process: all but the last have as many, as ``torch.chunk`` splits."""
    size = -(-total // world)
    return max(0, min(size, total - rank * size))


def _unflatten(flat: Tensor, rows: Sequence[int], columns: Sequence[int]) -> list[Tensor]:
    sizes = [r * c for r, c in zip(rows, columns)]
    return [part.view(r, c) for part, r, c in zip(flat.split(sizes), rows, columns)]
