"""Rows of a batch laid end to end, each beginning that several rows share laid once."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: a beginning that sequences share: its tokens, where it stands in the row, and the sequences
Shared = tuple[int, int, list[int]]


@dataclass(frozen=True)
class Packed:
    """Where the tokens of B padded sequences of T stand in one row of N.

    Attributes:
        order: (N,) which of the B * T tokens stand there; of a shared beginning, those of the
            first sequence that has it.
        places: (B, T) where each token stands. 0 for padding.
        shared: the beginnings that stand once.
        cu_seqlens: (B + 1,) int32, where sequences begin, and N; ``None`` where some share.
    """
    order: Tensor
    places: Tensor
    shared: list[Shared]
    cu_seqlens: Tensor | None


def pack_rows(ids_BT: Tensor, real_BT: Tensor, pictures: Sequence[int]) -> Packed:
    """Right-padded rows end to end. Those of one picture lie together, and their longest common
    beginning, the picture and the prompt, once: in a causal network its states are the same.

    Args:
        ids_BT: (B, T) token ids.
        real_BT: (B, T) bool, False where padded.
        pictures: B numbers, from 0 in the order of first use: the picture of each row.
    """
    by_picture: dict[int, list[int]] = {}
    for row, picture in enumerate(pictures):
        by_picture.setdefault(picture, []).append(row)
    width, lengths = ids_BT.shape[1], real_BT.sum(1).tolist()
    places, order, shared, starts = torch.zeros_like(ids_BT), [], [], [0]
    for rows in by_picture.values():
        common = _common(ids_BT[rows], real_BT[rows]) if len(rows) > 1 else 0
        first = starts[-1]
        if common:
            shared.append((common, first, rows))
        for row in rows:
            start, skipped = starts[-1], 0 if row == rows[0] else common
            end = start + lengths[row] - skipped
            places[row, :skipped] = torch.arange(first, first + skipped)
            places[row, skipped:lengths[row]] = torch.arange(start, end)
            order.append(torch.arange(skipped, lengths[row]) + row * width)
            starts.append(end)
    cu_seqlens = None if shared else torch.tensor(starts, dtype=torch.int32)
    return Packed(torch.cat(order), places, shared, cu_seqlens)


def _common(ids_GT: Tensor, real_GT: Tensor) -> int:
    """Tokens with which all rows begin."""
    return int(((ids_GT == ids_GT[0]) & real_GT).all(0).long().cumprod(0).sum())
