"""What a config needs before it is run: memory a GPU, FLOPs and time, and what would fit.

Memory is measured, not estimated: the config's own training step is rehearsed without data
(:mod:`simpleseg_mm.analysis.rehearsal`). What a rehearsal in one process cannot show stands in
:func:`share_out`: what data parallelism adds, and what sharding divides.
"""
import copy
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from ..datasets.templates import QUESTIONS
from ..engine import launch
from ..engine.optimizers import MuonAdamW, orthogonalize
from ..models.sampling import Sampling, draw
from ..polygon import PolygonCodec, count_tokens
from ..rl import PolicyObjective
from .rehearsal import Phase, Rehearsal, bytes_of, state_tensors
from .shapes import build_on_meta

GIB = 2**30
#: a typical picture of a dataset (width, height), and how that is known
PICTURES = {
    'RefCOCODataset': ((640, 480), "COCO's most frequent size"),
    'CocoQueryDataset': ((640, 480), "COCO's most frequent size"),
    'RefShapesDataset': ((224, 224), "the generator's default"),
}
#: mean tokens a mask of (preset, epsilon) on 1,145 objects of COCO, measured (docs/polygon.md)
EPSILON_TOKENS = {('paper', 0.001): 792, ('paper', 0.002): 502, ('paper', 0.005): 266,
                  ('paper', 0.01): 168, ('default', 0.002): 307, ('default', 0.005): 162}
PHRASE = 'the man in the red shirt on the left'
#: kept free: CUDA context and libraries, and this share for fragments. Our choice, not measured.
RESERVE_GIB, RESERVE_SHARE = 1.0, 0.02
#: of the LoRA recipe, for the advice; its rank is our choice
LORA = dict(r=64, lora_alpha=128, lora_dropout=0.0,
            target_modules=r'.*language_model.*\.(q|k|v|o|gate|up|down)_proj')


@dataclass(frozen=True)
class Batch:
    """What a training step reads.

    Attributes:
        picture: width and height in pixels.
        turns: questions a sample; of reinforcement learning 1.
        longest: tokens an answer that memory is planned for, the end token included.
        mean: tokens an answer that time is planned for.
        sources: (what, value, where it is from).
    """
    picture: Tuple[int, int]
    turns: int
    longest: int
    mean: float
    sources: Tuple[Tuple[str, str, str], ...]


@dataclass
class Measured:
    """A rehearsed config, in one process.

    Attributes:
        phases: name -> what it took, in the order of a training step.
        parts: part of the network -> (parameters, trained ones).
        sample_tokens: of one sequence, as rehearsed; the picture's among them.
        visual_tokens: of one picture.
        weights, trained, state: bytes of all weights, of the trained ones, of the optimizer's
            state.
        trained_count: numbers that are trained.
        layer, root: bytes of (weights, trained weights) of the largest repeated layer, and of
            what is outside repeated layers.
    """
    phases: Dict[str, Phase] = field(default_factory=dict)
    parts: Dict[str, Tuple[int, int]] = field(default_factory=dict)
    sample_tokens: int = 0
    visual_tokens: int = 0
    weights: int = 0
    trained: int = 0
    state: int = 0
    trained_count: int = 0
    layer: Tuple[int, int] = (0, 0)
    root: Tuple[int, int] = (0, 0)


# --- what is read -----------------------------------------------------------------------------
def plan_batch(cfg: Config, picture: Optional[Tuple[int, int]] = None,
               answer_tokens: Optional[int] = None) -> Batch:
    """Sizes of pictures and answers, from the config's dataset and codec.

    Args:
        cfg: of training.
        picture, answer_tokens: instead of the dataset's typical picture and the codec's mean.
    """
    dataset = cfg.train_dataloader.dataset
    query = dataset.query
    sources = []
    if picture is None:
        picture, source = PICTURES.get(dataset.type, ((640, 480), 'assumed: dataset unknown'))
    else:
        source = 'given'
    sources.append(('picture', f'{picture[0]} x {picture[1]} pixels', source))
    codec = PolygonCodec(**dict(query.get('codec') or {}))
    if answer_tokens is not None:
        mask, source = answer_tokens, 'given'
    elif codec.epsilon is not None:
        mask = EPSILON_TOKENS.get((codec.preset.removesuffix('-exact'), codec.epsilon))
        source = 'mean over 1,145 objects of COCO, measured (docs/polygon.md)'
    else:
        mask, source = codec.tokens, "the codec's budget, a mean over masks; + 1 end token"
    if mask is None:
        raise ValueError('the tokens of a mask are not known for this codec: give answer_tokens '
                         '(tools/analysis_tools/codec_ceiling.py measures them)')
    mask = int(mask) + 1
    sources.append(('tokens a mask', str(mask), source))
    size, grammar = (picture[1], picture[0]), codec.grammar
    wanted = dict(mask=mask, text=5,
                  box=count_tokens(grammar.format_box([100, 100, 200, 200], size)) + 1,
                  point=count_tokens(grammar.format_point([100, 100], size)) + 1)
    wanted['extreme'] = wanted['point']
    tasks = query.get('tasks') or dict(text2mask=1)
    mean = sum(weight * wanted[task.split('2')[1]] for task, weight in tasks.items())
    mean /= sum(tasks.values())
    longest = max(wanted[task.split('2')[1]] for task, weight in tasks.items() if weight)
    if _is_rl(cfg):
        longest = Sampling(**_sampling(cfg)).max_new_tokens
        sources.append(('answers, for memory', str(longest), 'rollout.max_new_tokens, the most'))
    else:
        sources.append(('answers, for memory', str(longest), 'the longest kind of the tasks'))
    sources.append(('answers, for time', f'{mean:.0f}', 'mean over the tasks by their weights'))
    return Batch(tuple(picture), query.get('turns', 1), longest, mean, tuple(sources))


def _is_rl(cfg: Config) -> bool:
    return cfg.train_cfg.get('type') == 'RLTrainLoop'


def _sampling(cfg: Config) -> dict:
    return {key: value for key, value in cfg.train_cfg.rollout.items()
            if key not in ('type', 'batch_size')}


def _prompt() -> str:
    return QUESTIONS['mask'][0].replace('{subject}', PHRASE)


# --- the rehearsal ----------------------------------------------------------------------------
def rehearse(cfg: Config, batch: Batch, processes: int = 1, on_gpu: bool = True,
             known: Optional[Measured] = None) -> Measured:
    """Runs the config's training step without data.

    Args:
        cfg: of training, as its file gives it.
        batch: what a step reads.
        processes: of a data-parallel run; they share Muon's work.
        on_gpu: let the optimizer choose as on a GPU (bfloat16 Newton-Schulz, foreach kernels).
        known: a rehearsal whose optimizer and its update are the same; they are taken from it.

    Raises:
        ValueError: the batch does not divide among the processes.
    """
    cfg = copy.deepcopy(cfg)
    accumulated = launch.fit_global_batch(cfg, processes)
    accumulated = max(accumulated, cfg.optim_wrapper.get('accumulative_counts', 1))
    model = build_on_meta(cfg.model)
    mllm = model.mllm
    measured = _census(model)
    rehearsal = Rehearsal(len(mllm.head_weight))
    rehearsal.adopt(model)
    wrapper_cfg = dict(cfg.optim_wrapper)
    amp = wrapper_cfg.get('type') == 'AmpOptimWrapper'
    if amp:  # the wrapper itself asks for a GPU
        wrapper_cfg = {key: value for key, value in wrapper_cfg.items()
                       if key not in ('dtype', 'loss_scale')}
    wrapper_cfg['type'] = 'OptimWrapper'
    autocast = torch.autocast('cpu', torch.bfloat16) if amp else nullcontext()
    optimizer = build_optim_wrapper(model, wrapper_cfg).optimizer
    _as_in_the_run(optimizer, processes, on_gpu)
    trained = [p for p in model.parameters() if p.requires_grad]
    image = torch.zeros(3, batch.picture[1], batch.picture[0], dtype=torch.uint8)
    phases = measured.phases
    with rehearsal:
        reference = None
        if _is_rl(cfg) and cfg.train_cfg.get('objective', {}).get('beta', 0):
            reference = [p.detach().clone() for p in trained]
            rehearsal.file(reference, 'reference')
        if known is None:
            for _ in range(2):  # the first makes the state
                _blank_gradients(rehearsal, trained)
                with rehearsal.phase() as phases['update']:
                    optimizer.step()
                state = state_tensors(optimizer)
                rehearsal.file(state, 'optimizer')
            optimizer.zero_grad()
        else:
            phases['update'] = known.phases['update']
            state = [torch.empty_like(trained[0], dtype=torch.uint8).new_empty(known.state)]
            rehearsal.file(state, 'optimizer')
        measured.state = bytes_of(state)
        if cfg.get('val_dataloader'):
            phases['validation'] = _rehearse_generation(
                rehearsal, mllm, image, cfg.val_dataloader.batch_size, 1,
                model.generation['max_new_tokens'])
        with autocast:
            if _is_rl(cfg):
                _rehearse_rl(rehearsal, cfg, model, image, batch, phases, trained,
                             reference is not None)
            else:
                _rehearse_sft(rehearsal, model, image, batch, phases, trained,
                              cfg.train_dataloader.batch_size, accumulated > 1)
    encoded = mllm.encode([image], [training_turns(mllm, batch, 0)])
    measured.sample_tokens = encoded['input_ids'].shape[1]
    measured.visual_tokens = int((encoded['input_ids'] == mllm.image_token_id).sum())
    return measured


def _census(model: nn.Module) -> Measured:
    """Counts of a model on the meta device."""
    mllm, parts = model.mllm, {}
    for name, p in mllm.hf.named_parameters():
        part = mllm.part_of(name.replace('.base_layer', '')) or 'rest'
        count, trained = parts.get(part, (0, 0))
        parts[part] = (count + p.numel(), trained + p.numel() * p.requires_grad)
    parameters = list(model.parameters())
    layers = [_size(layer) for layer in _layers(mllm.hf)]
    total = _size(model)
    return Measured(
        parts=parts, weights=total[0], trained=total[1],
        trained_count=sum(p.numel() for p in parameters if p.requires_grad),
        layer=max(layers), root=tuple(all_ - sum(column)
                                      for all_, column in zip(total, zip(*layers))))


def _layers(module: nn.Module) -> List[nn.Module]:
    """The outermost members of module lists: what a sharding wraps."""
    found = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _layers(child)
    return found


def _size(module: nn.Module) -> Tuple[int, int]:
    parameters = list(module.parameters())
    return bytes_of(parameters), bytes_of(p for p in parameters if p.requires_grad)


def _as_in_the_run(optimizer: torch.optim.Optimizer, processes: int, on_gpu: bool) -> None:
    """Choices that an optimizer makes by its device and processes, which are not there."""
    if isinstance(optimizer, MuonAdamW):
        for group in optimizer.param_groups:
            group['ns_steps'] = 1  # each holds what the last one held
        if on_gpu and optimizer._ns_dtype is None:
            optimizer._ns_dtype = 'bfloat16'
        if optimizer._share and processes > 1:
            def first(stacks: List[Tensor], steps: int, shared: bool) -> None:
                stacks[0] = orthogonalize(stacks[0], steps)  # the others come from the others

            optimizer._processes = lambda spread: processes
            optimizer._orthogonalize = first
    elif on_gpu:
        for group in optimizer.param_groups:
            if group.get('foreach', True) is None and not group.get('fused'):
                group['foreach'] = True


def _blank_gradients(rehearsal: Rehearsal, parameters: Sequence[Tensor]) -> None:
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
            rehearsal.file([p.grad], 'gradients')


def training_turns(mllm, batch: Batch, row: int) -> List[tuple]:
    """A conversation of a row; all but the first row are a token shorter, so that there is
    padding, as there always is."""
    filler = mllm.tokenizer.encode('1', add_special_tokens=False)[:1]
    answer = filler * (batch.longest - 1 - (row > 0)) + [mllm.tokenizer.eos_token_id]
    return [(_prompt(), answer)] * batch.turns


def _rehearse_sft(rehearsal, model, image, batch, phases, trained, rows: int,
                  accumulates: bool) -> None:
    if accumulates:
        _blank_gradients(rehearsal, trained)
    samples = [DetDataSample(metainfo=dict(turns=training_turns(model.mllm, batch, row)))
               for row in range(rows)]
    with rehearsal.phase() as phases['forward']:
        loss = model.loss([image.clone() for _ in samples], samples)['loss']
    with rehearsal.phase() as phases['backward']:
        loss.backward()


def _rehearse_rl(rehearsal, cfg, model, image, batch, phases, trained, reference: bool) -> None:
    settings, mllm = cfg.train_cfg, model.mllm
    prompts = cfg.train_dataloader.batch_size
    group = settings.get('group_size', 8)
    sampling = Sampling(**_sampling(cfg))
    phases['rollout'] = _rehearse_generation(
        rehearsal, mllm, image, settings.rollout.get('batch_size') or prompts, group,
        sampling.max_new_tokens, sampling)
    rows = settings.get('micro_batch_size', 8)
    answers = prompts // settings.get('mini_batches', 4) * (
        settings.get('down_sample') or group)
    if answers > rows:
        _blank_gradients(rehearsal, trained)
    images = [image.clone() for _ in range(rows)]  # the most pictures there can be
    turns = [training_turns(mllm, replace(batch, turns=1), row) for row in range(rows)]

    def log_probs():
        return model.log_probs(images, turns, sampling.temperature)

    with rehearsal.phase() as phases['forward']:
        logp, _, mask = log_probs()
        old = None
        if reference:
            with torch.no_grad():
                old = log_probs()[0]
        loss, _ = PolicyObjective(**settings.get('objective', {}))(
            logp, logp.detach(), torch.ones(rows), mask, answers, old)
    with rehearsal.phase() as phases['backward']:
        loss.backward()


@torch.no_grad()
def _rehearse_generation(rehearsal, mllm, image, prompts: int, group: int, new_tokens: int,
                         sampling: Optional[Sampling] = None) -> Phase:
    """Prefill, then one token with a cache; the cache is then counted at its full length."""
    batch = mllm.encode([image] * prompts, [[(_prompt(), None)]] * prompts, for_generation=True)
    length = batch['input_ids'].shape[1]
    with mllm.generating():
        with rehearsal.phase() as prefill:
            hidden, cache, position = mllm.prefill(batch)
        if group > 1:
            cache.batch_repeat_interleave(group)
        full = bytes_of(_cached(cache)) * (length + new_tokens) // length
        mask = batch['attention_mask'].repeat_interleave(group, 0)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        before = sum(rehearsal.alive.values())
        with rehearsal.phase() as decode:
            rows = hidden.repeat_interleave(group, 0)
            tokens = draw(mllm.logits(rows), torch.ones(len(rows)), sampling or Sampling())
            mllm.decode(tokens, mask, position.repeat_interleave(group, 0), cache)
    logits = decode.peak.get('logits', 0)
    decode.peak['activations'] = max(decode.total - before - logits, 0)
    # Each layer's cache is copied when it grows.
    decode.peak['kv_cache'] = full + full // max(1, len(cache.layers))
    return decode if decode.total >= prefill.total else prefill


def _cached(cache) -> List[Tensor]:
    return [x for layer in cache.layers for x in (layer.keys, layer.values)]


# --- several GPUs -----------------------------------------------------------------------------
def strategy_of(cfg: Config) -> str:
    """'DDP', 'FSDP', or 'ZeRO-1' to 'ZeRO-3', from the config's ``strategy``."""
    name = launch.strategy_type(cfg)
    if name == 'FullyShardStrategy':
        return 'FSDP'
    if name == 'DeepSpeedStrategy':
        stage = (cfg.strategy.get('zero_optimization') or {}).get('stage', 0)
        if stage:
            return f'ZeRO-{stage}'
    return 'DDP'


def share_out(cfg: Config, measured: Measured, name: str, gpus: int) -> Dict[str, int]:
    """Bytes by part of one GPU of several, at the peak of a phase of one process.

    - DDP copies the gradients into buckets (MMEngine's default), or keeps them there
      (``model_wrapper_cfg.gradient_as_bucket_view``).
    - FSDP divides weights, gradients, optimizer state and reference; gathered are what is outside
      the layers, two layers (one is fetched ahead) and, going backward, the gradients of one.
    - ZeRO divides the optimizer's state (of bfloat16 weights: a float32 copy and two moments, 12
      bytes), from stage 2 the gradients, in stage 3 the weights. Its buffers are DeepSpeed's
      defaults: 5e8 gradients, 1e9 gathered weights.
    """
    parts = {key: size for key, size in measured.phases[name].peak.items() if size}
    strategy = strategy_of(cfg)
    if gpus == 1 and strategy == 'DDP':
        return parts
    if strategy == 'DDP':
        if (cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view'):
            parts['gradients'] = measured.trained
        else:
            parts['buckets'] = measured.trained
        return parts
    size = measured.weights / max(1, sum(count for count, _ in measured.parts.values()))
    divided = ['weights', 'gradients', 'optimizer', 'reference']
    if strategy == 'FSDP':
        if name != 'update':
            (layer, layer_trained), (root, root_trained) = measured.layer, measured.root
            parts['gathered'] = root + 2 * layer + (
                root_trained + layer_trained if name == 'backward' else 0)
    else:
        stage = int(strategy[-1])
        zero = cfg.strategy.zero_optimization
        divided = ['optimizer'] + ['gradients'] * (stage > 1) + ['weights'] * (stage > 2)
        master = measured.trained_count * (12 if size < 4 else 8)
        offloaded = (zero.get('offload_optimizer') or {}).get('device') == 'cpu'
        parts['optimizer'] = 0 if offloaded else master
        if stage > 1:
            bucket = int(zero.get('reduce_bucket_size', 5e8))
            parts['buckets'] = int(min(bucket, measured.trained_count) * size)
        if stage == 3 and name != 'update':
            live = int(zero.get('stage3_max_live_parameters', 1e9) * size)
            parts['gathered'] = min(live, measured.weights)
        if name == 'update':  # the gradients of a share in float32
            parts['activations'], parts['logits'] = measured.trained_count * 4, 0
    if name == 'update':
        divided += ['activations', 'logits']
    return {key: -(-size // gpus) if key in divided else size for key, size in parts.items()
            if size}


# --- the plan ---------------------------------------------------------------------------------
def make_plan(cfg: Config, gpus: int, gpu_memory: float, mfu: float = 0.35,
              peak_tflops: float = 989., picture: Optional[Tuple[int, int]] = None,
              answer_tokens: Optional[int] = None, tokens_per_s: Optional[float] = None,
              advise: bool = True) -> dict:
    """What a training run needs, and what would make it fit.

    Args:
        cfg: of training, as its file gives it.
        gpus: processes, one GPU each.
        gpu_memory: of one GPU, GiB.
        mfu: share of ``peak_tflops`` that a run reaches, recomputation not counted.
        peak_tflops: of one GPU, dense, in the dtype of the run (989: H100, bfloat16).
        picture, answer_tokens: as of :func:`plan_batch`.
        tokens_per_s: measured, of one GPU: of whole sequences in SFT (``benchmarks/sft_step.py``),
            of answers in reinforcement learning (``gspo_step.py``). Replaces ``mfu``.
        advise: rehearse what would help where it does not fit.

    Returns:
        a dict of plain values; memory in GiB a GPU.

    Raises:
        ValueError: for a number that must be above 0, or a batch that does not divide.
    """
    for name, value in [('gpus', gpus), ('gpu_memory', gpu_memory), ('mfu', mfu),
                        ('peak_tflops', peak_tflops), ('tokens_per_s', tokens_per_s),
                        ('answer_tokens', answer_tokens)]:
        if value is not None and not value > 0:
            raise ValueError(f'{name}={value}: give a number above 0')
    if mfu > 1:
        raise ValueError(f'mfu={mfu}: a share of the peak, at most 1')
    batch = plan_batch(cfg, picture, answer_tokens)
    measured = rehearse(cfg, batch, gpus)
    memory = {name: {key: size / GIB for key, size in share_out(cfg, measured, name, gpus).items()}
              for name in measured.phases}
    peak_phase = max(memory, key=lambda name: sum(memory[name].values()))
    peak = sum(memory[peak_phase].values())
    plan = dict(
        gpus=gpus, gpu_memory_gib=gpu_memory, strategy=strategy_of(cfg) if gpus > 1 or
        cfg.get('strategy') else 'one process', rl=_is_rl(cfg),
        parameters=sum(count for count, _ in measured.parts.values()),
        trained=measured.trained_count,
        parts={part: dict(parameters=count, trained=trained)
               for part, (count, trained) in measured.parts.items()},
        sources=[list(row) for row in batch.sources] + _sources(cfg, gpus, mfu, tokens_per_s),
        visual_tokens=measured.visual_tokens, sequence_tokens=measured.sample_tokens,
        memory_gib=memory, peak_phase=peak_phase, peak_gib=peak, reserve_gib=_reserve(peak),
        fits=_fits(peak, gpu_memory),
        **_work(cfg, batch, measured, gpus, mfu, peak_tflops, tokens_per_s))
    if advise and not plan['fits']:
        plan.update(_advice(cfg, batch, measured, gpus, gpu_memory, peak))
    return plan


def _sources(cfg: Config, gpus: int, mfu: float, tokens_per_s: Optional[float]) -> list:
    rows = [['memory', 'rehearsed', "the config's own step on tensors without data, tensors that "
             'live at once; buffers inside kernels are not seen'],
            ['reserve', f'{RESERVE_GIB:g} GiB + {RESERVE_SHARE:.0%}',
             'CUDA context and fragments; our choice, not measured'],
            ['FLOPs', 'rehearsed', 'matrix products, convolutions and attention; the optimizer '
             'left out']]
    if gpus > 1 or cfg.get('strategy'):
        rows.append([strategy_of(cfg), 'by formula', 'simpleseg_mm.analysis.plan.share_out'])
    if tokens_per_s is None:
        rows.append(['time', f'at MFU {mfu:g}', 'given, an assumption; ' + (
            'updates only: how long answers take to be written is for benchmarks/gspo_step.py '
            'and --tokens-per-s' if _is_rl(cfg) else 'recomputation not counted as useful')])
    else:
        rows.append(['time', f'at {tokens_per_s:g} tokens/s a GPU', 'given, measured'])
    return rows


def _reserve(peak: float) -> float:
    return RESERVE_GIB + RESERVE_SHARE * peak


def _fits(peak: float, memory: float) -> bool:
    return peak + _reserve(peak) <= memory


def _work(cfg: Config, batch: Batch, measured: Measured, gpus: int, mfu: float,
          peak_tflops: float, tokens_per_s: Optional[float]) -> dict:
    """Tokens, FLOPs and time. A sequence's FLOPs are taken in proportion to its tokens."""
    settings = cfg.train_cfg
    forward, backward = measured.phases['forward'], measured.phases['backward']
    turns = 1 if _is_rl(cfg) else batch.turns
    mean_tokens = measured.sample_tokens - turns * (batch.longest - batch.mean)
    spent = forward.flops + backward.flops
    useful = spent - forward.recomputed - backward.recomputed
    if _is_rl(cfg):
        rows = settings.get('micro_batch_size', 8)
        group = settings.get('group_size', 8)
        sequences = settings.get('down_sample') or group  # a prompt, that are learnt from
        if settings.get('mini_batches', 4) > 1:  # the old log-probabilities
            again = forward.flops // (2 if settings.get('objective', {}).get('beta') else 1)
            useful, spent = useful + again, spent + again
        counted = group * batch.mean
    else:
        rows, sequences = cfg.train_dataloader.batch_size, 1
        counted = mean_tokens
    share = sequences / rows * mean_tokens / measured.sample_tokens
    samples = cfg.get('global_batch_size') or gpus * cfg.train_dataloader.batch_size * (
        cfg.optim_wrapper.get('accumulative_counts', 1))
    steps = settings.max_iters
    useful_step, spent_step = (flops * share * samples for flops in (useful, spent))
    if tokens_per_s is None:
        seconds = useful_step / (gpus * mfu * peak_tflops * 1e12)
    else:
        seconds = counted * samples / (gpus * tokens_per_s)
    return dict(
        samples_per_step=samples, steps=steps, samples=samples * steps,
        tokens_per_step=round(mean_tokens * sequences * samples), mean_sequence_tokens=mean_tokens,
        tflops_per_step=useful_step / 1e12, recomputed_share=1 - useful_step / spent_step,
        mfu=mfu if tokens_per_s is None else None, peak_tflops=peak_tflops,
        tokens_per_s=tokens_per_s, seconds_per_step=seconds, hours=seconds * steps / 3600)


# --- what would help --------------------------------------------------------------------------
@dataclass(frozen=True)
class _Knob:
    """A change of a config.

    Attributes:
        name: for people.
        options: as of ``--cfg-options``.
        changes: what the update of the weights does.
    """
    name: str
    options: dict
    changes_update: bool = False

    def apply(self, cfg: Config) -> Config:
        cfg = copy.deepcopy(cfg)
        options = dict(self.options)
        if 'optim_wrapper.optimizer' in options:
            cfg.optim_wrapper.optimizer = options.pop('optim_wrapper.optimizer')
        cfg.merge_from_dict(options)
        return cfg


def _knobs(cfg: Config, batch: Batch, gpus: int) -> List[_Knob]:
    """What could help, first what changes no result."""
    mllm, rl = cfg.model.mllm, _is_rl(cfg)
    rows = 'train_cfg.micro_batch_size' if rl else 'train_dataloader.batch_size'
    knobs = []
    if not mllm.get('gradient_checkpointing'):
        knobs.append(_Knob('gradient checkpointing', {'model.mllm.gradient_checkpointing': True}))
    if (cfg.train_cfg.get('micro_batch_size', 8) if rl else cfg.train_dataloader.batch_size) > 1:
        knobs.append(_Knob('1 answer at a time' if rl else '1 sample at a time, accumulated',
                           {rows: 1}))
    if rl and cfg.train_cfg.rollout.get('batch_size') != 1:
        knobs.append(_Knob('1 prompt decoded at a time', {'train_cfg.rollout.batch_size': 1}))
    if cfg.get('val_dataloader') and cfg.val_dataloader.batch_size > 1:
        knobs.append(_Knob('1 sample validated at a time', {'val_dataloader.batch_size': 1}))
    if cfg.model.get('loss_chunk', 512) > 128:
        knobs.append(_Knob('smaller head chunk', {'model.loss_chunk': 128}))
    ddp = gpus > 1 and strategy_of(cfg) == 'DDP'
    if ddp and not (cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view'):
        knobs.append(_Knob('gradients in the buckets', {'model_wrapper_cfg': dict(
            type='MMDistributedDataParallel', gradient_as_bucket_view=True,
            broadcast_buffers=False)}))
    if ddp:
        optimizer = {key: value for key, value in cfg.optim_wrapper.optimizer.items()
                     if key in ('lr', 'weight_decay', 'betas')}
        knobs.append(_Knob('FSDP, AdamW', {
            'strategy': dict(type='FullyShardStrategy'),
            'optim_wrapper.optimizer': dict(type='AdamW', **optimizer)}, True))
    if not mllm.get('lora') and 'vision' not in (mllm.get('freeze') or []):
        knobs.append(_Knob('vision tower frozen', {
            'model.mllm.freeze': ['vision', *(mllm.get('freeze') or [])]}, True))
    if mllm.get('max_pixels'):
        half = min(batch.picture[0] * batch.picture[1], mllm.max_pixels) // 2
        knobs.append(_Knob('half the pixels', {
            'model.mllm.max_pixels': half,
            'model.mllm.min_pixels': min(half, mllm.get('min_pixels') or half)}))
    if not mllm.get('lora'):
        knobs.append(_Knob('LoRA r 64', {'model.mllm.lora': LORA,
                                         'model.mllm.train_with_lora': ['projector'],
                                         'model.mllm.freeze': []}, True))
    return knobs


def _advice(cfg: Config, batch: Batch, measured: Measured, gpus: int, gpu_memory: float,
            peak: float) -> dict:
    """Each knob by itself, and if none is enough, knobs together until it fits."""
    knobs = []

    def rehearsed(knob: _Knob, cfg: Config, known: Measured) -> Tuple[Config, Measured, float]:
        cfg = knob.apply(cfg)
        found = rehearse(cfg, batch, gpus, known=None if knob.changes_update else known)
        return cfg, found, max(sum(share_out(cfg, found, name, gpus).values())
                               for name in found.phases) / GIB

    candidates = _knobs(cfg, batch, gpus)
    for knob in candidates:
        new = rehearsed(knob, cfg, measured)[2]
        knobs.append(dict(name=knob.name, options=knob.options, peak_gib=new,
                          saved_gib=peak - new, fits=_fits(new, gpu_memory)))
    together = []
    if not any(row['fits'] for row in knobs):
        for knob in candidates:
            changed, found, new = rehearsed(knob, cfg, measured)
            if new > (together[-1]['peak_gib'] if together else peak) - 0.01 * peak:
                continue  # not worth its price
            cfg, measured = changed, found
            together.append(dict(name=knob.name, options=knob.options, peak_gib=new,
                                 fits=_fits(new, gpu_memory)))
            if together[-1]['fits']:
                break
    return dict(knobs=knobs, together=together)
