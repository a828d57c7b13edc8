"""How the next token is chosen: the likeliest, or one drawn at a given place of the distribution.

Shapes: R answers, N tokens to be chosen at once, V tokens of the vocabulary.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .to_device import to_device

#: an ``OpenAnswer``, and what of its draft comes before the token to be chosen
Prefix = tuple[Any, Sequence[int]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: an answer is cut there, its end token included.
        temperature: logits are divided by it.
        top_p: smallest set of tokens whose probabilities reach it; 1: all.
        top_k: so many most likely tokens; 0: all.
    """
    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f'max_new_tokens={self.max_new_tokens}: at least 1')
        if not self.temperature > 0:
            raise ValueError(f'temperature={self.temperature}: must be above 0; greedy answers '
                             'are all alike and teach nothing')
        if not 0 < self.top_p <= 1:
            raise ValueError(f'top_p={self.top_p}: in (0, 1]')
        if self.top_k < 0:
            raise ValueError(f'top_k={self.top_k}: 0 for all tokens, or a number of them')


def uniforms(seeds: Sequence[Sequence[int]], count: int) -> Tensor:
    """(R, count) float64 in [0, 1): row r depends on ``seeds[r]`` (non-negative integers) alone.

    So an answer depends neither on what is decoded beside it nor on the number of ranks.
    """
    return torch.from_numpy(np.stack([np.random.default_rng(list(seed)).random(count)
                                      for seed in seeds]))


def draw(logits_RV: Tensor, uniform_R: Tensor, sampling: Sampling) -> Tensor:
    """One token id a row (R,), by inverting the cumulative distribution at ``uniform_R``."""
    logits_RV = logits_RV.float() / sampling.temperature
    ids_RV: Tensor | None = None
    if sampling.top_k or sampling.top_p < 1:
        width = min(sampling.top_k or logits_RV.shape[1], logits_RV.shape[1])
        logits_RV, ids_RV = logits_RV.topk(width, sorted=True)
    probs_RV = logits_RV.softmax(-1)
    if sampling.top_p < 1:  # the first token always stays
        before_RV = probs_RV.double().cumsum(-1) - probs_RV
        probs_RV = probs_RV * (before_RV < sampling.top_p)
    index_R1 = _passed(probs_RV, uniform_R.to(probs_RV.device, torch.float64)[:, None])
    return (index_R1 if ids_RV is None else ids_RV.gather(1, index_R1)).squeeze(1)


def _passed(probs_RV: Tensor, uniform_R1: Tensor) -> Tensor:
    """Where the cumulative sum passes a share of the whole (R, 1), added up in float64.

    First which block of tokens it is, then which token: a running sum over a whole vocabulary is
    one long chain on a GPU.
    """
    rows, count = probs_RV.shape
    width = math.isqrt(count - 1) + 1
    blocks_RBW = F.pad(probs_RV, (0, -count % width)).view(rows, -1, width)
    sums_RB = blocks_RBW.sum(-1, dtype=torch.float64).cumsum(-1)
    threshold_R1 = uniform_R1 * sums_RB[:, -1:]
    block_R1 = torch.searchsorted(sums_RB, threshold_R1, right=True).minimum(
        _last(blocks_RBW.amax(-1)))
    before_R1 = F.pad(sums_RB, (1, 0)).gather(1, block_R1)
    inside_RW = blocks_RBW.gather(1, block_R1[..., None].expand(-1, -1, width)).squeeze(1)
    place_R1 = torch.searchsorted(inside_RW.cumsum(-1, dtype=torch.float64),
                                  threshold_R1 - before_R1, right=True)
    return block_R1 * width + place_R1.minimum(_last(inside_RW))


def _last(values_RN: Tensor) -> Tensor:
    """Where each row has its last number above 0, (R, 1): rounding leads to none beyond it."""
    places_N = torch.arange(values_RN.shape[1], device=values_RN.device)
    return ((values_RN > 0) * places_N).amax(-1, keepdim=True)


class Likeliest:
    """Greedy: the likeliest token, after transformers' logits processors.

    Args:
        processors: functions of (token ids so far (n, L), logits (n, V)).
    """

    def __init__(self, processors: Sequence = ()) -> None:
        self.processors = processors

    def __call__(self, logits_NV: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
        """(N,) ids of what follows each of N prefixes, by what the network makes of it."""
        return self.processed(logits_NV, prefixes).argmax(-1)

    def processed(self, logits_NV: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
        """(N, V) logits as the processors leave them."""
        if self.processors:
            logits_NV = logits_NV.clone()
            ids = [torch.cat([answer.prompt, torch.tensor([*answer.tokens, *draft],
                                                          dtype=torch.long)])
                   for answer, draft in prefixes]
            lengths = list(map(len, ids))
            for length in set(lengths):  # a processor takes texts of one length
                at = [n for n, other in enumerate(lengths) if other == length]
                texts = to_device(torch.stack([ids[n] for n in at]), logits_NV.device)
                scores = logits_NV[at]
                for processor in self.processors:
                    scores = processor(texts, scores)
                logits_NV[at] = scores
        return logits_NV


class Drawn:
    """Sampled: the token where the cumulative distribution passes a number that belongs to the
    answer and the place, and to nothing else.

    Args:
        seeds: of each answer, by its row.
    """

    def __init__(self, seeds: Sequence[Sequence[int]], sampling: Sampling) -> None:
        self.seeds, self.sampling = seeds, sampling

    def __call__(self, logits_NV: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
        uniform_N = torch.tensor([self._uniforms(answer)[len(answer.tokens) + len(draft)]
                                  for answer, draft in prefixes], dtype=torch.float64)
        return draw(logits_NV, to_device(uniform_N, logits_NV.device), self.sampling)

    def _uniforms(self, answer) -> list[float]:
        if answer.uniforms is None:
            answer.uniforms = uniforms([self.seeds[answer.row]], self.sampling.max_new_tokens
                                       )[0].tolist()
        return answer.uniforms


class FirstLikeliest:
    """The first answer of each group is greedy, the others are sampled.

    Args:
        likeliest: for the first; its logits processors are for all of them.
        drawn: for the others.
        size: G, answers of a group.
    """

    def __init__(self, likeliest: Likeliest, drawn: Drawn, size: int) -> None:
        self.likeliest, self.drawn, self.size = likeliest, drawn, size

    def __call__(self, logits_NV: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
        logits_NV = self.likeliest.processed(logits_NV, prefixes)
        chosen_N = logits_NV.argmax(-1)
        others = [n for n, (answer, _) in enumerate(prefixes) if answer.row % self.size]
        if others:
            chosen_N[others] = self.drawn(logits_NV[others], [prefixes[n] for n in others])
        return chosen_N
