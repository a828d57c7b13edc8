"""Several sampled answers to each prompt from one prefill, with the weights as they are.

Shapes: B prompts, G answers each, R rows being decoded, V tokens of the vocabulary.
"""
from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np
import torch
from torch import Tensor


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
    ids_RV: Optional[Tensor] = None
    if sampling.top_k or sampling.top_p < 1:
        width = min(sampling.top_k or logits_RV.shape[1], logits_RV.shape[1])
        logits_RV, ids_RV = logits_RV.topk(width, sorted=True)
    probs_RV = logits_RV.softmax(-1, dtype=torch.float64)
    if sampling.top_p < 1:  # the first token always stays
        probs_RV = probs_RV * (probs_RV.cumsum(-1) - probs_RV < sampling.top_p)
    total_RV = probs_RV.cumsum(-1)
    threshold_R1 = uniform_R.to(total_RV)[:, None] * total_RV[:, -1:]
    index_R1 = torch.searchsorted(total_RV, threshold_R1, right=True)
    index_R1 = index_R1.clamp(max=total_RV.shape[1] - 1)
    return (index_R1 if ids_RV is None else ids_RV.gather(1, index_R1)).squeeze(1)


@torch.no_grad()
def sample_tokens(mllm, batch: dict, group_size: int, seeds: Sequence[Sequence[int]],
                  sampling: Sampling) -> List[List[int]]:
    """Token ids of B * G answers, answer g of prompt b at ``b * G + g``, end tokens included.

    The prompts are read once and their cache is repeated; finished rows leave the batch.

    Args:
        mllm: the adapter, in eval mode.
        batch: of B left-padded prompts, from ``mllm.encode(..., for_generation=True)``.
        group_size: G.
        seeds: B * G tuples of integers.
        sampling: how to draw.
    """
    count = len(batch['input_ids']) * group_size
    if len(seeds) != count:
        raise ValueError(f'{len(seeds)} seeds for {count} answers: give one an answer')
    hidden_BD, cache, position_B = mllm.prefill(batch)
    prompt_R = torch.arange(len(hidden_BD), device=hidden_BD.device).repeat_interleave(group_size)
    cache.reorder_cache(prompt_R)  # the one such method that linear attention has as well
    hidden, position = hidden_BD[prompt_R], position_B[prompt_R]
    mask = batch['attention_mask'][prompt_R]
    random = uniforms(seeds, sampling.max_new_tokens).to(hidden.device)
    banned = torch.tensor(mllm.banned_tokens, dtype=torch.long, device=hidden.device)
    stops = torch.tensor(mllm.stop_tokens, device=hidden.device)
    written = torch.full(random.shape, -1, dtype=torch.long, device=hidden.device)
    rows = torch.arange(len(hidden), device=hidden.device)  # of ``written``, still decoded
    for t in range(sampling.max_new_tokens):
        logits = mllm.logits(hidden)
        logits[:, banned] = -torch.inf
        tokens = draw(logits, random[rows, t], sampling)
        written[rows, t] = tokens
        going = ~torch.isin(tokens, stops)
        if not going.any() or t + 1 == sampling.max_new_tokens:
            break
        if not going.all():
            kept = going.nonzero().squeeze(1)
            rows, tokens, mask, position = (x[kept] for x in (rows, tokens, mask, position))
            cache.reorder_cache(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        hidden = mllm.decode(tokens, mask, position, cache)
        position = position + 1
    return [row[row >= 0].tolist() for row in written.cpu()]
