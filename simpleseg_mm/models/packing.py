"""Rows of a batch laid end to end, each beginning that several rows share laid once."""
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

#: sequences that share a beginning: its tokens, and the tokens of each, of which only the first
#: has that beginning
Group = Tuple[int, List[int]]


@dataclass(frozen=True)
class Packed:
    """Where the tokens of B padded rows of T stand in one row of N.

    Attributes:
        order: (N,) which of the B * T tokens stand there.
        places: (B, T) where each token's state is; of a shared beginning, in the first row that
            has it. 0 for padding.
        groups: the sequences, in the order in which they lie.
    """
    order: Tensor
    places: Tensor
    groups: List[Group]


def pack_rows(ids_BT: Tensor, real_BT: Tensor, pictures: Sequence[int]) -> Packed:
    """Right-padded rows end to end. Those of one picture lie together, and their longest common
    beginning, the picture and the prompt, once: in a causal network its states are the same.

    Args:
        ids_BT: (B, T) token ids.
        real_BT: (B, T) bool, False where padded.
        pictures: B numbers, from 0 in the order of first use: the picture of each row.
    """
    by_picture: Dict[int, List[int]] = {}
    for row, picture in enumerate(pictures):
        by_picture.setdefault(picture, []).append(row)
    width, lengths = ids_BT.shape[1], real_BT.sum(1).tolist()
    places, order, groups, start = torch.zeros_like(ids_BT), [], [], 0
    for rows in by_picture.values():
        shared = _common(ids_BT[rows], real_BT[rows]) if len(rows) > 1 else 0
        first, own = start, []
        for row in rows:
            skipped = shared if own else 0
            own.append(lengths[row] - skipped)
            places[row, :skipped] = torch.arange(first, first + skipped)
            places[row, skipped:lengths[row]] = torch.arange(start, start + own[-1])
            order.append(torch.arange(skipped, lengths[row]) + row * width)
            start += own[-1]
        groups.append((shared, own))
    return Packed(torch.cat(order), places, groups)


def _common(ids_GT: Tensor, real_GT: Tensor) -> int:
    """Tokens with which all rows begin."""
    return int(((ids_GT == ids_GT[0]) & real_GT).all(0).long().cumprod(0).sum())


def side_by_side(groups: Sequence[Group]) -> Tuple[Tensor, Tensor]:
    """The B sequences of a row of N tokens, whole, padded to the longest, T.

    Returns:
        (B, T) which token of the row stands where, any in the padding; and (N,) where in B * T
        each token of the row stands, a shared one in the first sequence that has it.
    """
    rows, new, start = [], [], 0
    for shared, own in groups:
        beginning = torch.arange(start, start + shared)
        for i, length in enumerate(own):
            tokens = torch.arange(start, start + length)
            rows.append(torch.cat([beginning, tokens]) if i else tokens)
            new.append(len(rows[-1]) - length)
            start += length
    apart = pad_sequence(rows, batch_first=True)
    together = [torch.arange(first, len(row)) + i * apart.shape[1]
                for i, (row, first) in enumerate(zip(rows, new))]
    return apart, torch.cat(together)
