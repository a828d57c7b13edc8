"""Reinforcement learning on a rule reward: the whole algorithm, top to bottom.

An iteration is one rollout batch: prompts -> G sampled answers each -> rewards -> advantages of
the groups -> mini-batches -> one update each. The paper gives GSPO and the rewards; the clip band
and four mini-batches a rollout batch are of GSPO's own paper, every other number is our choice.
"""
import json
import logging
import math
import os.path as osp
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from ..config import accumulated_batches
from ..files import shown
from ..models.simpleseg import answer_form
from ..polygon import Task
from ..registry import LOOPS, REWARDS, ROLLOUTS
from ..rl import PolicyObjective, group_advantages, max_variance_subset
from ..structures import Generated
from ..together import failing_together
from .experience import Experience, UpdateFigures, describe_rollout
from .global_batch import Rebatched, accumulating, prompts_a_process, step_and_clear
from .prefetch import prefetched
from .reference_policy import ReferencePolicy
from .safe_stop import stop_if_asked
from .sharding import deepspeed_engine, unwrap, whole, whole_weights


@dataclass(frozen=True)
class _MicroBatch:
    """Answers that are computed together; rows are padded to the longest.

    A filler is computed because other ranks have a micro-batch more: it teaches nothing.
    """
    images: list[Tensor]
    conversations: list[list[tuple[str, tuple[int, ...]]]]
    advantage_B: Tensor
    answers: list[Generated]
    filler: bool = False


def _truth_of(sample) -> np.ndarray:
    """The target's mask (H, W), or where objects are asked for one by one theirs, (N, H, W)."""
    task, masks = Task.find(sample.get('task')), sample.gt_masks.masks
    return masks if task is not None and task.many else masks[0]


@LOOPS.register_module()
class RLTrainLoop(IterBasedTrainLoop):
    """GSPO (or GRPO) with MMEngine's hooks, schedulers, validation and checkpoints around it.

    ``max_iters``, ``val_interval`` and the hooks' intervals count rollouts, and so do learning
    rate schedules.

    Args:
        reward: config of a reward, such as ``dict(type='PolygonReward', weights=...)``.
        rollout: config of a :class:`RolloutEngine`.
        objective: arguments of :class:`simpleseg_mm.rl.PolicyObjective`.
        global_batch_size: prompts of a rollout, which the processes share; None or 0: each
            takes a batch of the loader, whose size else is how many are read at a time.
        group_size: answers a prompt, G.
        mini_batches: updates a rollout; 1 is fully on-policy.
        micro_batch_size: answers that are computed at a time. It does not change the result.
        min_std: groups whose rewards deviate less are dropped.
        down_sample: learn from so many answers of each group, those whose rewards differ most
            (PODS); ``None``: from all. Sampling is cheap beside an update.
        max_engine_difference: nats by which the log-probabilities of an engine of its own may
            differ from the training forward's, in the mean over an answer's tokens.
        runner, dataloader, **kwargs: as for ``IterBasedTrainLoop``.

    Raises:
        ValueError: at construction, for settings that cannot work together.
        FloatingPointError: a loss or gradient is not finite; nothing was updated, and the batch
            is in the named file.
        RuntimeError: before the first update of a rollout, the policy's log-probabilities differ
            from its own by more than a third of the clip band, or from those of the engine that
            wrote the answers by more than ``max_engine_difference``.
    """

    def __init__(self, runner, dataloader, reward: dict, rollout: dict,
                 objective: dict | None = None, global_batch_size: int | None = None,
                 group_size: int = 8, mini_batches: int = 4, micro_batch_size: int = 8,
                 min_std: float = 0.01, down_sample: int | None = None,
                 max_engine_difference: float = 0.2, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        size = self.dataloader.batch_size
        prompts = prompts_a_process(global_batch_size, size, get_world_size())
        self.samples_per_iter = prompts * get_world_size()
        self.dataloader_iterator = Rebatched(self.dataloader_iterator, size, prompts)
        if group_size < 2:
            raise ValueError(f'group_size={group_size}: an advantage needs at least 2 answers')
        if down_sample is not None and not 2 <= down_sample <= group_size:
            raise ValueError(f'down_sample={down_sample}: 2 to group_size={group_size} answers, '
                             'or None for all')
        if micro_batch_size < 1:
            raise ValueError(f'micro_batch_size={micro_batch_size}: at least 1 answer')
        prompts_an_update(prompts, mini_batches)
        self.reward = REWARDS.build(reward)
        self.rollout = ROLLOUTS.build(rollout)
        self.objective = PolicyObjective(**(objective or {}))
        if self.objective.importance_cap is not None and not self.rollout.gives_logps:
            raise ValueError(
                f'objective.importance_cap={self.objective.importance_cap}: '
                f'{type(self.rollout).__name__} draws from the policy itself, or tells no '
                'log-probabilities of its own. Leave it out')
        if not max_engine_difference > 0:
            raise ValueError(f'max_engine_difference={max_engine_difference}: above 0 (nats)')
        self.max_engine_difference = max_engine_difference
        self.group_size = group_size
        self.mini_batches = mini_batches
        self.micro_batch_size = micro_batch_size
        self.min_std = min_std
        self.down_sample = down_sample or group_size
        self.reference: ReferencePolicy | None = None
        #: the last rollout, for hooks that show it
        self.experience: Experience | None = None

    @property
    def model(self):
        """SimpleSeg, unwrapped."""
        return unwrap(self.runner.model)

    def run(self):
        if accumulated_batches(self.runner.cfg) != 1:
            raise ValueError('RLTrainLoop sums over micro-batches itself: leave '
                             'optim_wrapper.accumulative_counts out and set micro_batch_size')
        if self.objective.beta:
            self.reference = ReferencePolicy(self.model, self.runner.work_dir,
                                             fresh=self.iter == 0)
        return super().run()

    def run_iter(self, data_batch: dict) -> None:
        """One rollout and its updates; before the first, a validation of what it starts from."""
        if self.iter == 0 and self.runner.val_loop is not None:
            self.runner.val_loop.run()
            self.runner.model.train()
        self.runner.call_hook('before_train_iter', batch_idx=self.iter, data_batch=data_batch)
        data = self.model.data_preprocessor(data_batch, True)
        start = time.perf_counter()
        self.experience = self.collect(data['inputs'], data['data_samples'])
        stop_if_asked(self.iter)  # before anything is updated
        middle = time.perf_counter()
        outputs = {**describe_rollout(self.experience), **self.update(self.experience)}
        end = time.perf_counter()
        outputs.update(rollout_seconds=middle - start, update_seconds=end - middle)
        if outputs['dropped_groups'] == 1:
            print_log(f'Rollout {self.iter + 1} teaches nothing: in every group the rewards '
                      f'deviate less than min_std={self.min_std}. Where this goes on, start from '
                      'an SFT checkpoint (load_from), or raise group_size or the temperature.',
                      'current', logging.WARNING)
        self.runner.call_hook('after_train_iter', batch_idx=self.iter, data_batch=data_batch,
                              outputs=outputs)
        self._iter += 1  # what MMEngine counts by

    # --- rollout ------------------------------------------------------------------------------
    def collect(self, images: list[Tensor], samples: Sequence) -> Experience:
        """Sampled answers, their rewards and advantages."""
        # The place of a prompt in all ranks' batch: draws do not depend on the number of ranks.
        places = [i * get_world_size() + get_rank() for i in range(len(samples))]
        seeds = [(self.runner.seed, self.iter, place, g)
                 for place in places for g in range(self.group_size)]
        with whole_weights(self.runner.model):
            self.rollout.sync(self.model)
            with failing_together():
                answers = self.rollout.generate(self.model, images, [s.prompt for s in samples],
                                                self.group_size, seeds,
                                                forms=[answer_form(s) for s in samples])
                flat = [answer for group in answers for answer in group]
                if self.rollout.gives_logps:
                    _check_told(flat)
        with failing_together():
            rewards = self.reward(
                [answer.text for answer in flat],
                [truth for sample in samples
                 for truth in [_truth_of(sample)] * self.group_size],
                finished=[answer.finished for answer in flat],
                num_tokens=[answer.num_tokens for answer in flat],
                codecs=[sample.codec for sample in samples for _ in range(self.group_size)],
                samples=[meta for meta in map(_meta_of, samples) for _ in range(self.group_size)])
        reward_PG = torch.from_numpy(rewards.total).view(len(samples), self.group_size)
        chosen_PG = max_variance_subset(reward_PG, self.down_sample)
        advantage_PN, kept_P = group_advantages(
            reward_PG[chosen_PG].view(len(samples), self.down_sample), self.min_std)
        advantage_PG = torch.zeros_like(reward_PG).masked_scatter(chosen_PG, advantage_PN)
        return Experience(images, samples, answers, rewards, advantage_PG.float(),
                          chosen_PG & kept_P[:, None])

    # --- update -------------------------------------------------------------------------------
    def update(self, experience: Experience) -> dict[str, Tensor]:
        """One update a mini-batch; figures for the log, means over all ranks' answers."""
        prompts = len(experience.samples)
        size = prompts // self.mini_batches
        parts = [self._micro_batches(experience, range(i, i + size))
                 for i in range(0, prompts, size)]
        sums = UpdateFigures(
            ['clipped', 'log_ratio', 'abs_log_ratio', 'kl', 'entropy']
            + ['ref_kl'] * (self.reference is not None)
            + ['importance', 'importance_capped'] * (self.objective.importance_cap is not None),
            compared=self.rollout.gives_logps)
        old = [self._old_log_probs(part, i == 0, sums) for i, part in enumerate(parts)]
        if self.rollout.gives_logps:
            sums.faults.raise_together()
        for part, old_logp in zip(parts, old):
            self._step(experience, part, old_logp, sums, check=not sums.updates)
        return sums.means()

    def _old_log_probs(self, part: list[_MicroBatch], first: bool, sums: UpdateFigures
                       ) -> list[Tensor | None]:
        """Of each micro-batch. The first update's are those of its own pass (``None``), but of
        one micro-batch, by which the policy is compared with itself."""
        asked = part if not first else part[:1] if self.mini_batches > 1 else []
        known = []
        for micro, batch in self._encoded(asked):
            logp, _, mask = self._log_probs(batch)
            with sums.faults.kept():
                self._compare(micro, logp, mask, sums)
            known.append(logp)
        return known + [None] * (len(part) - len(known))

    def _micro_batches(self, experience: Experience, places: Sequence[int]) -> list[_MicroBatch]:
        """The answers of some prompts to learn from, in micro-batches: prompt after prompt where
        answers share one, and else longest first, for the padding's sake."""
        rows = [(p, g) for p in places for g in range(self.group_size)
                if experience.learnt_PG[p, g]
                and experience.answers[p][g].token_ids]  # else nothing was decided
        mllm = self.model.mllm
        if 'packed_rows' not in mllm.acceleration.on:
            rows.sort(key=lambda row: -experience.answers[row[0]][row[1]].num_tokens)
        device = mllm.device
        micros = [
            _MicroBatch(
                [experience.images[p] for p, _ in chunk],
                [[(experience.samples[p].prompt, experience.answers[p][g].token_ids)]
                 for p, g in chunk],
                torch.stack([experience.advantage_PG[p, g] for p, g in chunk]).to(device),
                [experience.answers[p][g] for p, g in chunk])
            for chunk in (rows[i:i + self.micro_batch_size]
                          for i in range(0, len(rows), self.micro_batch_size))]
        most = torch.tensor(float(-len(micros)), device=device)
        all_reduce(most, 'min')  # as many on each rank: each must take part in every reduction
        answer = experience.answers[0][0].token_ids[:1] or (0, )
        filler = _MicroBatch(experience.images[:1], [[(experience.samples[0].prompt, answer)]],
                             torch.zeros(1, device=device), [], filler=True)
        return micros + [filler] * (int(-most) - len(micros))

    def _encoded(self, part: Sequence[_MicroBatch]) -> Iterator[tuple[_MicroBatch, dict]]:
        """Each micro-batch and what the network reads of it."""
        return prefetched(part, lambda micro: self.model.encode_answers(micro.images,
                                                                        micro.conversations))

    @torch.no_grad()
    def _log_probs(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """The training forward without a gradient: GSPO's band is narrower than the noise
        between two kernels or two paddings."""
        return self._forward(self.model, batch)

    def _forward(self, model, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        wrapper = self.runner.optim_wrapper
        deepspeed = deepspeed_engine(self.runner.model)
        with nullcontext() if deepspeed else wrapper.optim_context(model):
            return model(None, None, mode='log_probs', encoded=batch,
                         temperature=self.rollout.temperature)

    def _step(self, experience: Experience, part: list[_MicroBatch], old_logp: list[Tensor],
              sums: UpdateFigures, check: bool) -> None:
        """Gradients of one mini-batch over its micro-batches and all ranks, and the update."""
        total = torch.tensor(float(sum(len(m.advantage_B) for m in part if not m.filler)),
                             dtype=torch.float64, device=self.model.mllm.device)
        all_reduce(total)
        if not total:  # no group of any rank has anything to teach
            return
        wrapper, model = self.runner.optim_wrapper, self.runner.model
        share = float(total) / get_world_size()  # DDP averages gradients over ranks
        losses = []
        for i, ((micro, batch), old) in enumerate(zip(self._encoded(part), old_logp)):
            with accumulating(model, last=i == len(part) - 1):
                loss = self._loss(micro, batch, old, share, sums, check)
                losses.append(loss.detach())
                wrapper.backward(loss)
        if check:
            sums.faults.raise_together()
        self._guard(experience, torch.stack(losses))
        step_and_clear(wrapper)
        loss = torch.stack(losses).sum()
        all_reduce(loss, 'mean')
        sums.updates.append(loss)

    def _loss(self, micro: _MicroBatch, batch: dict, old_logp: Tensor | None, share: float,
              sums: UpdateFigures, check: bool) -> Tensor:
        reference = None
        if self.reference is not None:
            with self.reference.applied(self.model):
                reference = self._log_probs(batch)[0]
        model = self.runner.model
        logp, entropy, mask = self._forward(deepspeed_engine(model) or model, batch)
        if micro.filler:
            return logp.sum() * 0
        old = logp.detach() if old_logp is None else old_logp
        if old_logp is None:
            with sums.faults.kept():
                self._compare(micro, old, mask, sums)
        engine = None if self.objective.importance_cap is None else _engine_logps(micro, old, mask)
        loss, figures = self.objective(logp, old, micro.advantage_B, mask, share, reference,
                                       engine)
        figures['entropy'] = (entropy.sum(1) / mask.sum(1).clamp(min=1)).sum()
        sums.add(figures, mask)
        if check and old_logp is not None:
            with sums.faults.kept():
                self._check_same(logp, old, mask)
        return loss

    def _check_same(self, logp: Tensor, old: Tensor, mask: Tensor) -> None:
        """Before the first update of a rollout the policy must agree with itself."""
        difference = ((logp.detach() - old) * mask).sum(1).abs()
        if self.objective.level != 'token':
            difference = difference / mask.sum(1).clamp(min=1)
        worst = float(difference.max())
        band = min(self.objective.clip_low, self.objective.clip_high)
        if worst > band / 3:  # what is not a number is left to _guard
            raise RuntimeError(
                f'The policy differs from itself: |log ratio| is {worst:.2e} before any update, '
                f'a third of the clip band is {band / 3:.2e}, so that noise would be clipped. '
                'Two forward passes with the same weights must agree: switch dropout off '
                '(model.mllm.lora.lora_dropout=0), train in float32 or widen the band '
                '(train_cfg.objective.clip_low, clip_high), or set train_cfg.mini_batches=1.')

    def _compare(self, micro: _MicroBatch, logp: Tensor, mask: Tensor, sums: UpdateFigures
                 ) -> None:
        """What the engine said of its answers with what the training forward says, by the weights
        that wrote them."""
        if not self.rollout.gives_logps or micro.filler:
            return
        difference = (_engine_logps(micro, logp, mask) - logp.detach()).abs() * mask
        sums.compare(difference, mask)
        mean = difference.sum(1) / mask.sum(1)
        if not float(mean.max()) > self.max_engine_difference:
            return
        row = int(mean.argmax())
        place = int(difference[row][mask[row]].argmax())
        answer, (prompt, ids), = micro.answers[row], micro.conversations[row][0]
        token = self.model.mllm.encoder.text_of(ids[place:place + 1])
        raise RuntimeError(
            f"The engine's log-probabilities differ from the training forward's by "
            f'{float(mean[row]):.3g} nats a token in the answer {shown(answer.text)} to '
            f'{shown(prompt)}, most at token {place}, {token!r}: {answer.token_logps[place]:.4g} '
            f'by the engine, {float(logp[row][mask[row]][place]):.4g} in training. Allowed are '
            f'train_cfg.max_engine_difference={self.max_engine_difference}; nothing was updated '
            'by this answer. The engine reads something else than is trained, or has old weights: '
            'tools/analysis_tools/engine_check.py looks for it')

    def _guard(self, experience: Experience, losses: Tensor) -> None:
        """Refuse to update by numbers that are not finite; DDP has spread them to all ranks.
        DeepSpeed keeps gradients to itself: there the losses are looked at."""
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(grads)) if grads else losses.new_zeros(())
        values = dict(loss=float(losses.sum()), grad_norm=float(norm))
        finite = torch.tensor(float(all(map(math.isfinite, values.values()))),
                              device=losses.device)
        all_reduce(finite, 'min')
        if finite:
            return
        path = osp.join(self.runner.work_dir,
                        f'nonfinite_rollout_{self.iter + 1}_rank{get_rank()}.json')
        with open(path, 'w') as file:
            json.dump(dict(iter=self.iter + 1, values={k: str(v) for k, v in values.items()},
                           rollout=experience.rows()), file, indent=1)
        raise FloatingPointError(
            f'{values} in rollout {self.iter + 1}: nothing was updated; its answers and rewards '
            f'are in {path}. Try a lower learning rate, clip_grad, or float32.')


def _engine_logps(micro: _MicroBatch, like: Tensor, mask: Tensor) -> Tensor:
    """What the engine said of a micro-batch's tokens, laid out as the training forward's."""
    said = [logp for answer in micro.answers for logp in answer.token_logps]
    return like.detach().masked_scatter(mask, like.new_tensor(said))


def _check_told(answers: Sequence[Generated]) -> None:
    """RuntimeError where an engine has not said the log-probability of each token."""
    for answer in answers:
        if len(answer.token_logps) != len(answer.token_ids):
            raise RuntimeError(f'the engine gave {len(answer.token_logps)} log-probabilities of '
                               f'{len(answer.token_ids)} tokens: one of each is needed')


def _meta_of(sample) -> dict:
    """What a reward sees of a sample: all of it, by its keys."""
    return dict(sample.all_items())


def prompts_an_update(prompts: int, mini_batches: int) -> int:
    """Of a process.

    Raises:
        ValueError: the prompts of a rollout do not make so many updates of one size.
    """
    if mini_batches < 1 or prompts % mini_batches:
        raise ValueError(f'{prompts} prompts a process (train_cfg.global_batch_size) do not make '
                         f'mini_batches={mini_batches} of equal size')
    return prompts // mini_batches
