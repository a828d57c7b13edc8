"""Keys and values of prompts that several rows continue: they stand once."""
import torch
import torch.nn.functional as F
from torch import Tensor


class SharedPrompts:
    """Keys and values of B prompts, each continued by one or several of R rows: they stand once,
    and the rows of a prompt read them together.

    Args:
        keys, values: (B, heads, P, D); those that no row continues are dropped.
        prompts: (R,) int64, which of them each row continues.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompts: Tensor) -> None:
        kept, self.prompts, counts = prompts.unique(return_inverse=True, return_counts=True)
        if len(kept) < len(keys):
            keys, values = keys.index_select(0, kept), values.index_select(0, kept)
        self.keys, self.values = keys, values
        #: rows of the prompt that has most
        self.most = int(counts.max())
        among = F.one_hot(self.prompts).cumsum(0) - 1  # (R, B) rows of each prompt before
        places = self.prompts * self.most + among.gather(1, self.prompts[:, None]).squeeze(1)
        whole = torch.arange(len(kept) * self.most, device=places.device)
        #: (R,) of each row in a table of B prompts by most rows; none: it is that table
        self.places = None if torch.equal(places, whole) else places

    def keep(self, rows: Tensor) -> 'SharedPrompts':
        """Of these rows alone."""
        return SharedPrompts(self.keys, self.values, self.prompts[rows])

    def joined(self, other: 'SharedPrompts') -> 'SharedPrompts':
        """With the rows of others after these; prompts of one length P."""
        return SharedPrompts(*(torch.cat(pair) for pair in (
            (self.keys, other.keys), (self.values, other.values),
            (self.prompts, other.prompts + len(self.keys)))))

    def padded(self, count: int) -> 'SharedPrompts':
        """With so many slots more, or less, on the left."""
        return SharedPrompts(*(F.pad(x, (0, 0, count, 0)) for x in (self.keys, self.values)),
                             self.prompts)

    def scores(self, queries: Tensor) -> Tensor:
        """(R, heads, M, P) of queries (R, heads, M, D)."""
        return self._each(queries, self.keys.transpose(2, 3))

    def read(self, weights: Tensor) -> Tensor:
        """(R, heads, M, D) by weights (R, heads, M, P)."""
        return self._each(weights, self.values)

    def _each(self, x: Tensor, matrix: Tensor) -> Tensor:
        """x (R, heads, M, K) times what its prompt has, (B, heads, K, N): (R, heads, M, N)."""
        heads, count, size = x.shape[1:]
        if self.places is not None:
            x = x.new_zeros(len(matrix) * self.most, heads, count, size).index_copy_(
                0, self.places, x)
        x = x.reshape(-1, self.most, heads, count, size).transpose(1, 2)
        x = x.reshape(-1, heads, self.most * count, size) @ matrix
        x = x.reshape(-1, heads, self.most, count, x.shape[-1]).transpose(1, 2).flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)


def after_prompts(query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
                  prompts: SharedPrompts, scaling: float | None = None) -> Tensor:
    """(R, T, heads, D) of few tokens that see their prompt, and of their row what the mask lets
    them: one softmax over both.

    Args:
        query: (R, heads, T, D).
        key, value: (R, heads or fewer, S, D) of the rows.
        mask: (R, 1, T, P + S), to add.
    """
    rows, heads, count, size = query.shape
    scaling = size ** -0.5 if scaling is None else scaling
    queries = (query * scaling).reshape(rows, key.shape[1], -1, size)  # of the heads of one key
    scores = torch.cat([prompts.scores(queries), queries @ key.transpose(2, 3)], -1)
    weights = (scores.reshape(rows, heads, count, -1) + mask).softmax(
        -1, dtype=torch.promote_types(query.dtype, torch.float32))
    weights = weights.to(query.dtype).reshape(scores.shape)
    to_prompt, to_row = weights.split([prompts.keys.shape[2], key.shape[2]], -1)
    output = prompts.read(to_prompt) + to_row @ value
    return output.reshape(rows, heads, count, -1).transpose(1, 2).contiguous()
