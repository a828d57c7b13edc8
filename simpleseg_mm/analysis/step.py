"""A config's training step, rehearsed without data: what each of its phases takes."""
import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from ..config import accumulated_batches
from ..engine import launch
from ..engine.global_batch import prompts_a_process
from ..engine.optimizers import MuonAdamW, orthogonalize
from ..engine.rl_loop import prompts_an_update
from ..models import losses
from ..models.trainable import num_values
from ..models.sampling import Sampling, draw
from ..registry import OPTIM_WRAPPERS, builds
from ..rl import PolicyObjective
from .batch import Batch, question, sampling_of
from .rehearsal import Phase, Rehearsal, bytes_of, state_tensors
from .shapes import build_on_meta


@dataclass
class Measured:
    """A rehearsed config, in one process.

    Attributes:
        phases: name -> what it took, in the order of a training step.
        parts: part of the network -> (parameters, trained ones).
        sample_tokens: of one sequence, as rehearsed; the picture's among them.
        visual_tokens: of one picture.
        batch_tokens: that the rehearsed forward pass ran, padding included.
        weights, trained, state: bytes of all weights, of the trained ones, of the optimizer's
            state.
        trained_count: numbers that are trained.
        packing: whether rows are laid end to end, which the network has the last word on.
        layer, root: bytes of (weights, trained weights) of the largest repeated layer, and of
            what is outside repeated layers.
    """
    phases: dict[str, Phase] = field(default_factory=dict)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    sample_tokens: int = 0
    visual_tokens: int = 0
    batch_tokens: int = 0
    weights: int = 0
    trained: int = 0
    state: int = 0
    trained_count: int = 0
    packing: bool = False
    layer: tuple[int, int] = (0, 0)
    root: tuple[int, int] = (0, 0)


def rehearse(cfg: Config, batch: Batch, processes: int = 1, on_gpu: bool = True,
             known: Measured | None = None) -> Measured:
    """Runs the config's training step without data.

    Args:
        cfg: of training, as its file gives it.
        batch: what a step reads.
        processes: of a data-parallel run; they share Muon's work.
        on_gpu: let the optimizer and the head choose as on a GPU (bfloat16 Newton-Schulz,
            foreach kernels, logits in float32 of a weight in bfloat16).
        known: a rehearsal whose optimizer and its update are the same; they are taken from it.

    Raises:
        ValueError: the batch does not divide among the processes.
    """
    cfg = copy.deepcopy(cfg)
    accumulated = max(launch.check_training(cfg, processes), accumulated_batches(cfg))
    model = build_on_meta(cfg.model)
    mllm = model.mllm
    measured = _census(model)
    rehearsal = Rehearsal(len(mllm.head_weight))
    rehearsal.adopt(model)
    wrapper_cfg = dict(cfg.optim_wrapper)
    amp = builds(OPTIM_WRAPPERS, wrapper_cfg, AmpOptimWrapper)
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
    with rehearsal, mock.patch.object(losses, 'writes_fp32', return_value=on_gpu):
        reference = None
        if launch.is_rl(cfg) and cfg.train_cfg.get('objective', {}).get('beta', 0):
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
            if launch.is_rl(cfg):
                measured.batch_tokens = _rehearse_rl(
                    rehearsal, cfg, processes, model, image, batch, phases, trained,
                    reference is not None)
            else:
                measured.batch_tokens = _rehearse_sft(
                    rehearsal, model, image, batch, phases, trained,
                    cfg.train_dataloader.batch_size, accumulated > 1)
    encoded = mllm.encoder.encode([image], [training_turns(mllm, batch, 0)])
    measured.sample_tokens = encoded['input_ids'].shape[1]
    measured.visual_tokens = int((encoded['input_ids'] == mllm.family.image_token_id).sum())
    return measured


def _census(model: nn.Module) -> Measured:
    """Counts of a model on the meta device."""
    mllm, parts = model.mllm, {}
    for name, p in mllm.hf.named_parameters():
        part = mllm.part_of(name.replace('.base_layer', '')) or 'rest'
        count, trained = parts.get(part, (0, 0))
        parts[part] = (count + num_values(p), trained + p.numel() * p.requires_grad)
    parameters = list(model.parameters())
    layers = [_size(layer) for layer in _layers(mllm.hf)]
    total = _size(model)
    return Measured(
        parts=parts, weights=total[0], trained=total[1],
        packing='packed_rows' in mllm.acceleration.on,
        trained_count=sum(p.numel() for p in parameters if p.requires_grad),
        layer=max(layers), root=tuple(all_ - sum(column)
                                      for all_, column in zip(total, zip(*layers))))


def _layers(module: nn.Module) -> list[nn.Module]:
    """The outermost members of module lists: what a sharding wraps."""
    found = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _layers(child)
    return found


def _size(module: nn.Module) -> tuple[int, int]:
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
            def first(stacks: list[Tensor], steps: int, shared: bool) -> None:
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


def training_turns(mllm, batch: Batch, row: int) -> list[tuple]:
    """A conversation of a row; all but the first row are a token shorter, so that there is
    padding, as there always is, and begin with another digit, as they share no more than the
    prompt."""
    first, filler = (mllm.encoder.tokenizer.encode(text, add_special_tokens=False)[:1]
                     for text in (str(row % 10), '1'))
    answer = (first + filler * (batch.longest - 2 - (row > 0))
              + [mllm.encoder.tokenizer.eos_token_id])[-(batch.longest - (row > 0)):]
    return [(question(), answer)] * batch.turns


def _rehearse_sft(rehearsal, model, image, batch, phases, trained, rows: int,
                  accumulates: bool) -> int:
    if accumulates:
        _blank_gradients(rehearsal, trained)
    samples = [DetDataSample(metainfo=dict(turns=training_turns(model.mllm, batch, row)))
               for row in range(rows)]
    images = [image.clone() for _ in samples]
    with rehearsal.phase() as phases['forward']:
        encoded = model.encode(images, samples)
        loss = model.loss(images, samples, encoded)['loss']
    with rehearsal.phase(backward=True) as phases['backward']:
        loss.backward()
    return encoded['input_ids'].numel()


def _rehearse_rl(rehearsal, cfg, processes, model, image, batch, phases, trained,
                 reference: bool) -> int:
    settings, mllm = cfg.train_cfg, model.mllm
    prompts = prompts_a_process(settings.get('global_batch_size'),
                                cfg.train_dataloader.batch_size, processes)
    group = settings.get('group_size', 8)
    sampling = Sampling(**sampling_of(cfg))
    phases['rollout'] = _rehearse_generation(
        rehearsal, mllm, image, settings.rollout.get('batch_size') or prompts, group,
        sampling.max_new_tokens, sampling)
    learnt = settings.get('down_sample') or group  # answers a prompt
    of_update = prompts_an_update(prompts, settings.get('mini_batches', 4))
    answers = of_update * learnt
    rows = min(settings.get('micro_batch_size', 8), answers)
    if answers > rows:
        _blank_gradients(rehearsal, trained)
    pictures = [image.clone() for _ in range(rows)]  # the most that there can be
    images = ([pictures[min((row + learnt - 1) // learnt, of_update - 1)] for row in range(rows)]
              if mllm.shares_images else pictures)
    turns = [training_turns(mllm, replace(batch, turns=1), row) for row in range(rows)]

    def log_probs():
        return model.log_probs(images, turns, sampling.temperature, encoded)

    with rehearsal.phase() as phases['forward']:
        encoded = model.encode_answers(images, turns)
        logp, _, mask = log_probs()
        old = None
        if reference:
            with torch.no_grad():
                old = log_probs()[0]
        loss, _ = PolicyObjective(**settings.get('objective', {}))(
            logp, logp.detach(), torch.ones(rows), mask, answers, old)
    with rehearsal.phase(backward=True) as phases['backward']:
        loss.backward()
    return encoded['input_ids'].numel()


@torch.no_grad()
def _rehearse_generation(rehearsal, mllm, image, prompts: int, group: int, new_tokens: int,
                         sampling: Sampling | None = None) -> Phase:
    """Prefill, then one token with a cache; the cache is then counted at its full length."""
    batch = mllm.encoder.encode([image] * prompts, [[(question(), None)]] * prompts,
                                for_generation=True)
    length = batch['input_ids'].shape[1]
    with mllm.writer.generating():
        with rehearsal.phase() as prefill:
            hidden, cache, position = mllm.writer.prefill(batch)
        if group > 1:
            cache.batch_repeat_interleave(group)
        full = bytes_of(_cached(cache)) * (length + new_tokens) // length
        mask = batch['attention_mask'].repeat_interleave(group, 0)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        before = sum(rehearsal.alive.values())
        with rehearsal.phase() as decode:
            rows = hidden.repeat_interleave(group, 0)
            tokens = draw(mllm.logits(rows), torch.ones(len(rows)), sampling or Sampling())
            position = position.repeat_interleave(group, 0)[:, None]
            mllm.writer.decode(tokens[:, None], mask, position, cache)
    logits = decode.peak.get('logits', 0)
    decode.peak['activations'] = max(decode.total - before - logits, 0)
    # Each layer's cache is copied when it grows.
    decode.peak['kv_cache'] = full + full // max(1, len(cache.layers))
    return decode if decode.total >= prefill.total else prefill


def _cached(cache) -> list[Tensor]:
    return [x for layer in cache.layers for x in (layer.keys, layer.values)]
