"""What a config needs before it is run: memory a GPU, FLOPs and time, and what would fit.

Memory is measured, not estimated: the config's own training step is rehearsed without data
(:mod:`.step`, :mod:`.rehearsal`). What a rehearsal in one process cannot show stands in
:mod:`.sharing`.
"""
from math import ceil

from mmengine.config import Config

from ..config import accumulated_batches
from ..engine import launch
from ..engine.rollout import InProcessRollout
from ..registry import ROLLOUTS, builds
from .advice import (GIB, RESERVE_GIB, RESERVE_SHARE, advice, fits, reserve,
                     use_of_spare_memory)
from .batch import Batch, plan_batch
from .sharing import share_out, strategy_of
from .step import Measured, rehearse


def make_plan(cfg: Config, gpus: int, gpu_memory: float, mfu: float = 0.35,
              peak_tflops: float = 989., picture: tuple[int, int] | None = None,
              answer_tokens: int | None = None, tokens_per_s: float | None = None,
              advise: bool = True, memory_bandwidth: float = 3350.,
              rollout_tokens_per_s: float | None = None) -> dict:
    """What a training run needs, and what would make it fit.

    Args:
        cfg: of training, as its file gives it.
        gpus: processes, one GPU each.
        gpu_memory: of one GPU, GiB.
        mfu: share of ``peak_tflops`` that a run reaches, recomputation not counted.
        peak_tflops: of one GPU, dense, in the dtype of the run (989: H100, bfloat16).
        picture, answer_tokens: as of :func:`plan_batch`.
        tokens_per_s: measured, of one GPU: of whole sequences in SFT (``benchmarks/sft_step.py``),
            of answers in reinforcement learning (``gspo_step.py``), rollouts included. Replaces
            ``mfu`` and what follows for rollouts.
        advise: rehearse what would help where it does not fit, and what memory that is left would
            buy where it does.
        memory_bandwidth: of one GPU, GB/s (3350: H100), by which the time of rollouts is
            estimated: a pass reads all weights.
        rollout_tokens_per_s: of answers that are written, measured, of one GPU
            (``rollout_tokens_per_s`` of ``gspo_step.py``), instead.

    Returns:
        a dict of plain values; memory in GiB a GPU.

    Raises:
        ValueError: for a number that must be above 0, or a batch that does not divide.
    """
    for name, value in [('gpus', gpus), ('gpu_memory', gpu_memory), ('mfu', mfu),
                        ('peak_tflops', peak_tflops), ('tokens_per_s', tokens_per_s),
                        ('answer_tokens', answer_tokens), ('memory_bandwidth', memory_bandwidth),
                        ('rollout_tokens_per_s', rollout_tokens_per_s),
                        *(('image', side) for side in picture or ())]:
        if value is not None and not value > 0:
            raise ValueError(f'{name}={value}: give a number above 0')
    if mfu > 1:
        raise ValueError(f'mfu={mfu}: a share of the peak, at most 1')
    if rollout_tokens_per_s is not None and not launch.is_rl(cfg):
        raise ValueError(f'rollout_tokens_per_s={rollout_tokens_per_s}: this config has no '
                         'rollouts; give tokens_per_s')
    batch = plan_batch(cfg, picture, answer_tokens)
    measured = rehearse(cfg, batch, gpus)
    memory = {name: {key: size / GIB for key, size in share_out(cfg, measured, name, gpus).items()}
              for name in measured.phases}
    peak_phase = max(memory, key=lambda name: sum(memory[name].values()))
    peak = sum(memory[peak_phase].values())
    plan = dict(
        gpus=gpus, gpu_memory_gib=gpu_memory, strategy=strategy_of(cfg) if gpus > 1 or
        cfg.get('strategy') else 'one process', rl=launch.is_rl(cfg),
        parameters=sum(count for count, _ in measured.parts.values()),
        trained=measured.trained_count,
        parts={part: dict(parameters=count, trained=trained)
               for part, (count, trained) in measured.parts.items()},
        sources=[list(row) for row in batch.sources] + _sources(
            cfg, gpus, mfu, peak_tflops, tokens_per_s, memory_bandwidth, rollout_tokens_per_s),
        visual_tokens=measured.visual_tokens, sequence_tokens=measured.sample_tokens,
        memory_gib=memory, peak_phase=peak_phase, peak_gib=peak, reserve_gib=reserve(peak),
        fits=fits(peak, gpu_memory),
        **_work(cfg, batch, measured, gpus, mfu, peak_tflops, tokens_per_s, memory_bandwidth,
                rollout_tokens_per_s))
    if advise and plan['fits']:
        plan['spare'] = use_of_spare_memory(cfg, batch, measured, gpus, gpu_memory)
    elif advise:
        plan.update(advice(cfg, batch, measured, gpus, gpu_memory, peak))
    return plan


def _sources(cfg: Config, gpus: int, mfu: float, peak_tflops: float, tokens_per_s: float | None,
             memory_bandwidth: float, rollout_tokens_per_s: float | None) -> list:
    rows = [['memory', 'rehearsed', "the config's own step on tensors without data, tensors that "
             'live at once; buffers inside kernels are not seen'],
            ['reserve', f'{RESERVE_GIB:g} GiB + {RESERVE_SHARE:.0%}',
             'CUDA context and fragments; our choice, not measured'],
            ['FLOPs', 'rehearsed', 'matrix products, convolutions and attention; the optimizer '
             'left out']]
    if gpus > 1 or cfg.get('strategy'):
        rows.append([strategy_of(cfg), 'by formula', 'simpleseg_mm.analysis.plan.share_out'])
    if tokens_per_s is not None:
        return rows + [['time', f'at {tokens_per_s:g} tokens/s a GPU', 'given, measured']]
    rl = launch.is_rl(cfg)
    rows.append(['time of updates' if rl else 'time', f'at MFU {mfu:g} of {peak_tflops:g} TFLOPS',
                 'given, an assumption; recomputation not counted as useful'])
    if rl and rollout_tokens_per_s is not None:
        rows.append(['time of rollouts', f'at {rollout_tokens_per_s:g} tokens/s a GPU',
                     'given, measured'])
    elif rl and not _in_process(cfg):
        rows.append(['time of rollouts', 'not known',
                     'by another engine; --rollout-tokens-per-s takes what you measure'])
    elif rl:
        rows.append(['time of rollouts', f'weights read at {memory_bandwidth:g} GB/s a pass',
                     'given, an assumption; one token a pass, rows refilled at once, one answer '
                     'at max_new_tokens, prompts and cache left out; --rollout-tokens-per-s takes '
                     'what benchmarks/gspo_step.py measures'])
    return rows


def _work(cfg: Config, batch: Batch, measured: Measured, gpus: int, mfu: float,
          peak_tflops: float, tokens_per_s: float | None, memory_bandwidth: float,
          rollout_tokens_per_s: float | None) -> dict:
    """Tokens, FLOPs and time. A sample's FLOPs are taken in proportion to its tokens."""
    settings = cfg.train_cfg
    forward, backward = measured.phases['forward'], measured.phases['backward']
    turns = 1 if launch.is_rl(cfg) else batch.turns
    mean_tokens = measured.sample_tokens - turns * (batch.longest - batch.mean)
    spent = forward.flops + backward.flops
    useful = spent - forward.recomputed - backward.recomputed
    if launch.is_rl(cfg):
        group = settings.get('group_size', 8)
        sequences = settings.get('down_sample') or group  # a prompt, that are learnt from
        prompt = measured.sample_tokens - batch.longest
        prompts_read = sequences if not measured.packing else ceil(
            sequences / settings.get('micro_batch_size', 8))
        tokens = prompts_read * prompt + sequences * batch.mean
        # the old log-probabilities, of all updates but the first
        again = forward.flops * (1 - 1 / settings.get('mini_batches', 4))
        again /= 2 if settings.get('objective', {}).get('beta') else 1
        useful, spent = useful + again, spent + again
        counted = group * batch.mean
    else:
        tokens = counted = mean_tokens
    share = tokens / measured.batch_tokens
    samples = settings.get('global_batch_size') or gpus * cfg.train_dataloader.batch_size * (
        accumulated_batches(cfg))
    steps = settings.max_iters
    useful_step, spent_step = (flops * share * samples for flops in (useful, spent))
    rollout = None
    if tokens_per_s is not None:
        seconds = counted * samples / (gpus * tokens_per_s)
    else:
        seconds = useful_step / (gpus * mfu * peak_tflops * 1e12)
        if rollout_tokens_per_s is not None:
            rollout = counted * samples / (gpus * rollout_tokens_per_s)
        elif launch.is_rl(cfg) and _in_process(cfg):
            rollout = _passes(cfg, batch, samples / gpus) * measured.weights / (
                memory_bandwidth * 1e9)
        seconds += rollout or 0
    return dict(
        samples_per_step=samples, steps=steps, samples=samples * steps,
        tokens_per_step=round(tokens * samples), mean_sequence_tokens=mean_tokens,
        tflops_per_step=useful_step / 1e12, recomputed_share=1 - useful_step / spent_step,
        mfu=mfu if tokens_per_s is None else None, peak_tflops=peak_tflops,
        tokens_per_s=tokens_per_s, seconds_per_step=seconds, rollout_seconds_per_step=rollout,
        hours=seconds * steps / 3600)


def _in_process(cfg: Config) -> bool:
    return builds(ROLLOUTS, cfg.train_cfg.rollout, InProcessRollout)


def _passes(cfg: Config, batch: Batch, prompts: float) -> float:
    """Forward passes of a rollout of so many prompts, one token a pass: its rows are always full,
    and there is an answer of the most tokens."""
    at_a_time = min(cfg.train_cfg.rollout.get('batch_size') or prompts, prompts)
    return max(prompts / at_a_time * batch.mean, batch.longest)
