"""Advantages of groups and the policy objective: GSPO, GSPO-token and GRPO in one function.

Shapes: B answers of T tokens (padded on either side), P prompts with G answers each.
"""
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

LEVELS = ('sequence', 'sequence_token', 'token')
_MAX_LOG_RATIO = 20.0  # before exp; e^20 is far outside every clip band


def group_advantages(reward_PG: Tensor, min_std: float = 0.01,
                     eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Rewards of a group, centred and divided by their deviation (GSPO eq. 2, ddof = 1).

    Args:
        reward_PG: (P, G) rewards, G at least 2.
        min_std: groups with a smaller deviation teach nothing and are dropped: continuous rewards
            are never exactly equal, and dividing by eps would amplify raster noise (our choice).
        eps: added to the deviation.

    Returns:
        advantages (P, G), 0 in dropped groups; kept (P,) bool.

    Raises:
        ValueError: wrong shape, a group of one, or a reward that is not finite.
    """
    if reward_PG.ndim != 2 or reward_PG.shape[1] < 2:
        raise ValueError(f'rewards have shape {tuple(reward_PG.shape)}: give (prompts, answers), '
                         'at least 2 answers a prompt')
    if not torch.isfinite(reward_PG).all():
        row = (~torch.isfinite(reward_PG)).any(1).nonzero()[0].item()
        raise ValueError(f'group {row} has rewards {reward_PG[row].tolist()}: all must be finite')
    std_P1 = reward_PG.std(1, keepdim=True)
    kept_P = std_P1.squeeze(1) >= max(min_std, torch.finfo(reward_PG.dtype).tiny)
    advantage_PG = (reward_PG - reward_PG.mean(1, keepdim=True)) / (std_P1 + eps)
    return advantage_PG * kept_P[:, None], kept_P


def max_variance_subset(reward_PG: Tensor, size: int) -> Tensor:
    """The answers of each group whose rewards differ most (PODS, arXiv 2504.13818).

    The subset of greatest variance is made of the lowest and the highest rewards; every split of
    ``size`` between the two is tried.

    Args:
        reward_PG: (P, G) rewards.
        size: answers to choose of each group, 1 to G.

    Returns:
        (P, G) bool, ``size`` times True in each row. Of equal rewards the earlier answers count
        as the lower ones; of equal variances the most even split wins.
    """
    count, group = reward_PG.shape
    if not 1 <= size <= group:
        raise ValueError(f'size={size}: choose 1 to {group} answers of a group of {group}')
    value_PG, order_PG = reward_PG.sort(dim=1, stable=True)
    splits = sorted(range(size + 1), key=lambda high: abs(2 * high - size))
    chosen_SN = torch.stack([torch.cat([torch.arange(size - high),
                                        torch.arange(group - high, group)]) for high in splits])
    variance_PS = value_PG[:, chosen_SN.to(value_PG.device)].var(2, correction=0)
    best_P = variance_PS.argmax(1).cpu()
    chosen_PN = order_PG.gather(1, chosen_SN[best_P].to(order_PG.device))
    return torch.zeros_like(reward_PG, dtype=torch.bool).scatter(1, chosen_PN, True)


@dataclass(frozen=True)
class PolicyObjective:
    """The clipped surrogate loss of a batch of answers (GSPO, arXiv 2507.18071, eq. 5 and 13).

    Attributes:
        level: of the importance ratio. 'sequence': one ratio an answer, exp(mean log-ratio)
            (GSPO); 'sequence_token': its value with the gradient of each token (GSPO-token,
            equal to GSPO while the advantage is the same for all tokens); 'token': one ratio a
            token (GRPO, averaged over the answer's tokens).
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high]. 3e-4 and
            4e-4 are GSPO's; GRPO uses about 0.2.
        beta: weight of the k3 KL to a frozen reference; 0 needs none.
        importance_cap: answers of another engine, whose probabilities are not quite the policy's,
            are weighed by how much likelier the policy makes them, at most by this number
            (truncated importance sampling): each token at level 'token', else the answer.
            ``None``: not at all.
    """
    level: str = 'sequence'
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    beta: float = 0.0
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f'level={self.level!r}: choose one of {LEVELS}')
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f'{field.name}={value!r}: give a number of at least 0')
        if self.importance_cap is not None and self.importance_cap < 1:
            raise ValueError(f'importance_cap={self.importance_cap}: at least 1, which is the '
                             'weight of an answer that engine and policy find alike; 2 is usual')

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, advantage_B: Tensor,
                 mask_BT: Tensor, total: float | None = None,
                 ref_logp_BT: Tensor | None = None, engine_logp_BT: Tensor | None = None
                 ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a micro-batch, as its share of the whole mini-batch's.

        Args:
            logp_BT: log-probabilities of the answers' tokens under the policy, with gradient.
            old_logp_BT: the same under the policy that wrote them, without gradient.
            advantage_B: of each answer.
            mask_BT: bool, True on tokens of the answer. What is elsewhere is never looked at;
                an answer without any token is left out.
            total: answers of the mini-batch, over all micro-batches and ranks. Summing the losses
                of all parts gives the mini-batch's loss, however it was split. ``None``: this
                batch is the whole.
            ref_logp_BT: under the frozen reference; needed where beta > 0.
            engine_logp_BT: as the engine that wrote the answers gave them; needed where
                importance_cap is set.

        Returns:
            The loss, and sums over the answers (without gradient, for the log): ``clipped``
            (answers at which the band stops the gradient; tokens' mean at level 'token'),
            ``log_ratio`` and ``abs_log_ratio`` (mean over tokens), ``kl`` (k3 of the old policy
            to this one, mean over tokens), ``ref_kl`` where there is a reference, ``importance``
            (weight) and ``importance_capped`` (share) where answers are weighed.
        """
        _check_shapes(logp_BT, old_logp_BT, advantage_B, mask_BT)
        count_B = mask_BT.sum(1)
        valid_B = count_B > 0
        if total is None:
            total = max(int(valid_B.sum()), 1)
        log_ratio_BT = _difference(logp_BT, old_logp_BT, mask_BT)
        log_ratio_B = _mean(log_ratio_BT, count_B)
        ratio = self._ratio(log_ratio_BT, log_ratio_B)
        advantage = advantage_B if ratio.ndim == 1 else advantage_B[:, None]
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        stopped = (ratio * advantage > clipped * advantage).detach()
        weighed = {}
        if self.importance_cap is not None:
            weight, weighed = self._importance(old_logp_BT, engine_logp_BT, mask_BT, count_B)
            gain = gain * (weight if weight.ndim == gain.ndim else weight[:, None])
        if ratio.ndim == 2:
            gain = _mean(gain * mask_BT, count_B)
            stopped = _mean(stopped * mask_BT.to(logp_BT), count_B)
        sums = dict(clipped=stopped, log_ratio=log_ratio_B, abs_log_ratio=log_ratio_B.abs(),
                    kl=_mean(_k3(-log_ratio_BT), count_B), **weighed)
        loss_B = -gain
        if self.beta:
            if ref_logp_BT is None:
                raise ValueError(f'beta={self.beta} needs ref_logp_BT, the log-probabilities '
                                 'under the frozen reference')
            if ref_logp_BT.shape != logp_BT.shape:
                raise ValueError(f'ref_logp_BT has shape {tuple(ref_logp_BT.shape)}, the '
                                 f'log-probs {tuple(logp_BT.shape)}: give two times (B, T)')
            sums['ref_kl'] = _mean(
                _k3(_difference(logp_BT, ref_logp_BT.detach(), mask_BT)), count_B)
            loss_B = loss_B + self.beta * sums['ref_kl']
        zero = logp_BT.new_zeros(())
        loss = torch.where(valid_B, loss_B, zero).sum() / total
        return loss, {name: torch.where(valid_B, value.detach().to(logp_BT), zero).sum()
                      for name, value in sums.items()}

    def _ratio(self, log_ratio_BT: Tensor, log_ratio_B: Tensor) -> Tensor:
        """(B,) or (B, T)."""
        if self.level == 'sequence':
            return _exp(log_ratio_B)
        if self.level == 'token':
            return _exp(log_ratio_BT)
        value_B1 = _exp(log_ratio_B).detach()[:, None]
        return value_B1 * (log_ratio_BT - log_ratio_BT.detach()).exp()


    def _importance(self, old_logp_BT: Tensor, engine_logp_BT: Tensor | None, mask_BT: Tensor,
                    count_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights, (B,) or (B, T), and their figures for the log."""
        if engine_logp_BT is None or engine_logp_BT.shape != old_logp_BT.shape:
            raise ValueError(f'importance_cap={self.importance_cap} needs engine_logp_BT (B, T), '
                             'the log-probabilities by the engine that wrote the answers')
        ratio = _difference(old_logp_BT.detach(), engine_logp_BT, mask_BT)
        if self.level != 'token':
            ratio = ratio.sum(1)
        ratio = _exp(ratio)
        weight = ratio.clamp(max=self.importance_cap)
        figures = weight, (ratio > self.importance_cap).to(weight)
        if self.level == 'token':
            figures = [_mean(figure * mask_BT, count_B) for figure in figures]
        return weight, dict(zip(('importance', 'importance_capped'), figures))


def _check_shapes(logp_BT: Tensor, old_logp_BT: Tensor, advantage_B: Tensor,
                  mask_BT: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (logp_BT, old_logp_BT, mask_BT)]
    if len(set(shapes)) > 1 or logp_BT.ndim != 2 or advantage_B.shape != logp_BT.shape[:1]:
        raise ValueError(f'log-probs, old log-probs and mask have shapes {shapes}, advantages '
                         f'{tuple(advantage_B.shape)}: give three times (B, T), and (B,)')
    if mask_BT.dtype != torch.bool:
        raise ValueError(f'the mask is {mask_BT.dtype}: give bool')


def _difference(a_BT: Tensor, b_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """a - b on the mask, 0 elsewhere, whatever stands there."""
    return a_BT.masked_fill(~mask_BT, 0) - b_BT.detach().masked_fill(~mask_BT, 0)


def _mean(value_BT: Tensor, count_B: Tensor) -> Tensor:
    return value_BT.sum(1) / count_B.clamp(min=1)


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


def _k3(log_ratio: Tensor) -> Tensor:
    """Schulman's k3: e^-x - 1 + x, at least 0 and 0 at x = 0. With x = log p - log q on samples
    of p it estimates KL(p to q)."""
    return _exp(-log_ratio) - 1 + log_ratio
