"""What would make a run fit."""
import copy
from dataclasses import dataclass

from mmengine.config import Config

from ..engine import launch
from .batch import Batch
from .sharing import share_out, strategy_of
from .step import Measured, rehearse

GIB = 2**30
#: kept free: CUDA context and libraries, and this share for fragments. Our choice, not measured.
RESERVE_GIB, RESERVE_SHARE = 1.0, 0.02
#: of the LoRA recipe, for the advice; its rank is our choice
LORA = dict(r=64, lora_alpha=128, lora_dropout=0.0,
            target_modules=r'.*language_model.*\.(q|k|v|o|gate|up|down)_proj')
NF4 = dict(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)


def reserve(peak: float) -> float:
    """GiB that are kept free beside a peak."""
    return RESERVE_GIB + RESERVE_SHARE * peak


def fits(peak: float, memory: float) -> bool:
    """Whether a peak and its reserve fit, GiB."""
    return peak + reserve(peak) <= memory


@dataclass(frozen=True)
class Knob:
    """A change of a config.

    Attributes:
        name: for people.
        options: as of ``--cfg-options``.
        changes_update: whether the optimizer's state and update are other ones.
    """
    name: str
    options: dict
    changes_update: bool = False

    def apply(self, cfg: Config) -> Config:
        """A changed copy."""
        cfg = copy.deepcopy(cfg)
        cfg.merge_from_dict(dict(self.options))
        return cfg


def knobs_of(cfg: Config, batch: Batch, gpus: int) -> list[Knob]:
    """What could help, first what changes no result."""
    mllm, rl = cfg.model.mllm, launch.is_rl(cfg)
    rows = 'train_cfg.micro_batch_size' if rl else 'train_dataloader.batch_size'
    knobs = []
    if not mllm.get('gradient_checkpointing'):
        knobs.append(Knob('gradient checkpointing', {'model.mllm.gradient_checkpointing': True}))
    if (cfg.train_cfg.get('micro_batch_size', 8) if rl else cfg.train_dataloader.batch_size) > 1:
        knobs.append(Knob('1 answer at a time' if rl else '1 sample at a time, accumulated',
                          {rows: 1}))
    if rl and cfg.train_cfg.rollout.get('batch_size') != 1:
        knobs.append(Knob('1 prompt decoded at a time', {'train_cfg.rollout.batch_size': 1}))
    if cfg.get('val_dataloader') and cfg.val_dataloader.batch_size > 1:
        knobs.append(Knob('1 sample validated at a time', {'val_dataloader.batch_size': 1}))
    if cfg.model.get('loss_chunk', 512) > 128:
        knobs.append(Knob('smaller head chunk', {'model.loss_chunk': 128}))
    ddp = gpus > 1 and strategy_of(cfg) == 'DDP'
    if ddp and not (cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view'):
        knobs.append(Knob('gradients in the buckets', {'model_wrapper_cfg': dict(
            type='MMDistributedDataParallel', gradient_as_bucket_view=True,
            broadcast_buffers=False)}))
    if ddp:
        knobs.append(Knob('FSDP (_base_/strategies/fsdp.py)', {
            'strategy': dict(type='FullyShardStrategy'), 'runner_type': 'FlexibleRunner'}))
    if not mllm.get('lora') and 'vision' not in (mllm.get('freeze') or []):
        knobs.append(Knob('vision tower frozen', {
            'model.mllm.freeze': ['vision', *(mllm.get('freeze') or [])]}, True))
    if mllm.get('max_pixels'):
        half = min(batch.picture[0] * batch.picture[1], mllm.max_pixels) // 2
        knobs.append(Knob('half the pixels', {
            'model.mllm.max_pixels': half,
            'model.mllm.min_pixels': min(half, mllm.get('min_pixels') or half)}))
    if not mllm.get('lora'):
        knobs.append(Knob('LoRA r 64', {'model.mllm.lora': LORA,
                                        'model.mllm.train_with_lora': ['projector'],
                                        'model.mllm.freeze': []}, True))
    elif not mllm.get('quantization') and mllm.get('init') != 'random':
        knobs.append(Knob('QLoRA, 4 bits', {'model.mllm.quantization': NF4}))
    return knobs


def _rehearsed(knob: Knob, cfg: Config, batch: Batch, known: Measured,
               gpus: int) -> tuple[Config, Measured, float]:
    """The changed config, what it takes, and its peak in GiB a GPU."""
    cfg = knob.apply(cfg)
    found = rehearse(cfg, batch, gpus, known=None if knob.changes_update else known)
    return cfg, found, max(sum(share_out(cfg, found, name, gpus).values())
                           for name in found.phases) / GIB


def use_of_spare_memory(cfg: Config, batch: Batch, measured: Measured, gpus: int,
                        gpu_memory: float) -> dict | None:
    """Of a config that fits, how little recomputing fits too; ``None``: as much as it does."""
    present = float(cfg.model.mllm.get('gradient_checkpointing') or 0)

    def tried(share: float) -> dict | None:
        knob = Knob(f'{share:.0%} of the layers recomputed' if share else
                    'no gradient checkpointing', {'model.mllm.gradient_checkpointing': share})
        _, found, peak = _rehearsed(knob, cfg, batch, measured, gpus)
        spent, before = (sum(each.phases[name].flops for name in ('forward', 'backward'))
                         for each in (found, measured))
        return dict(name=knob.name, options=knob.options, peak_gib=peak,
                    saved_share=1 - spent / before) if fits(peak, gpu_memory) else None

    shares = [share for share in (0., .25, .5, .75) if share < present]
    most = tried(shares[-1]) if shares else None
    if most is None:
        return None
    return next(filter(None, map(tried, shares[:-1])), most)


def advice(cfg: Config, batch: Batch, measured: Measured, gpus: int, gpu_memory: float,
           peak: float) -> dict:
    """Each knob by itself, and if none is enough, knobs together until it fits."""
    knobs, candidates = [], knobs_of(cfg, batch, gpus)
    for knob in candidates:
        new = _rehearsed(knob, cfg, batch, measured, gpus)[2]
        knobs.append(dict(name=knob.name, options=knob.options, peak_gib=new,
                          saved_gib=peak - new, fits=fits(new, gpu_memory)))
    together = []
    if not any(row['fits'] for row in knobs):
        for knob in candidates:
            changed, found, new = _rehearsed(knob, cfg, batch, measured, gpus)
            if new > (together[-1]['peak_gib'] if together else peak) - 0.01 * peak:
                continue  # not worth its price
            cfg, measured = changed, found
            together.append(dict(name=knob.name, options=knob.options, peak_gib=new,
                                 fits=fits(new, gpu_memory)))
            if together[-1]['fits']:
                break
    return dict(knobs=knobs, together=together)
