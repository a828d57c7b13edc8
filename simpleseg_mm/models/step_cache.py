"""The network's own KV cache, as answers are written with it: the plain path.

Shapes: B prompts, R rows (answers), P slots of the padded prompt, S slots in use, D features.
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: (tokens (R, T), mask, position (R, T), KV cache, more) -> hidden states (R, T, D)
Decode = Callable[..., Tensor]


class StepCache:
    """One token of every row a pass, by the network's own cache and mask.

    Args:
        cache: of B left-padded prompts.
        mask_BP: their attention mask.
        rows: (R,) the prompt of each row.
    """
    #: whether a pass may read more than one token of a row
    reads_many = False
    #: of the rows, the share that may have ended before the others are moved together
    ended_share = 1 / 8

    def __init__(self, cache, mask_BP: Tensor, rows: Tensor) -> None:
        cache.reorder_cache(rows)  # the one such method that linear attention has as well
        self.cache = cache
        self.mask_RS = mask_BP[rows]

    def read(self, decode: Decode, tokens_R1: Tensor, start_R: Tensor) -> Tensor:
        """Hidden states (R, 1, D) after one more token of each row.

        Args:
            decode: the network.
            tokens_R1: ids, on the CPU.
            start_R: their positions, on the CPU.
        """
        self.mask_RS = torch.cat([self.mask_RS, self.mask_RS.new_ones(len(self.mask_RS), 1)], 1)
        device = self.mask_RS.device
        return decode(tokens_R1.to(device), self.mask_RS, start_R[:, None].to(device), self.cache)

    def close(self, counts: Sequence[int]) -> None:
        """Keep so many of each row's tokens of the last pass: here the one that there is."""

    def keep(self, rows: list[int]) -> None:
        """Forget the other rows."""
        index = torch.tensor(rows, device=self.mask_RS.device)
        self.mask_RS = self.mask_RS[index]
        self.cache.reorder_cache(index)
