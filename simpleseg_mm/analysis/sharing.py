"""What several GPUs change: what data parallelism adds, and what sharding divides."""

from mmengine.config import Config

from ..engine import FullyShardStrategy, launch
from ..registry import STRATEGIES, builds
from .step import Measured


def strategy_of(cfg: Config) -> str:
    """'DDP', 'FSDP', or 'ZeRO-1' to 'ZeRO-3', from the config's ``strategy``."""
    if builds(STRATEGIES, cfg.get('strategy'), FullyShardStrategy):
        return 'FSDP'
    if launch.uses_deepspeed(cfg):
        stage = launch.zero_stage(cfg)
        if stage:
            return f'ZeRO-{stage}'
    return 'DDP'


def share_out(cfg: Config, measured: Measured, name: str, gpus: int) -> dict[str, int]:
    """Bytes by part of one GPU of several, at the peak of a phase of one process.

    - DDP copies the gradients into buckets (MMEngine's default), or keeps them there
      (``model_wrapper_cfg.gradient_as_bucket_view``).
    - FSDP divides weights, gradients, optimizer state and reference among the ``shard_size``
      processes of a copy (all by default); gathered are what is outside the layers, two layers
      (one is fetched ahead) and, going backward, the gradients of one; for writing answers, all
      weights.
    - ZeRO divides the optimizer's state (of bfloat16 weights: a float32 copy and two moments, 12
      bytes), from stage 2 the gradients, in stage 3 the weights. Its buffers are DeepSpeed's
      defaults: 5e8 gradients, 1e9 gathered weights.

    Raises:
        ValueError: ``shard_size`` does not divide ``gpus``.
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
    among = gpus
    if strategy == 'FSDP':
        among = cfg.strategy.get('shard_size') or gpus
        if gpus % among:
            raise ValueError(f'strategy.shard_size={among} does not divide {gpus} GPUs')
        if name in ('validation', 'rollout'):
            parts['gathered'] = measured.weights
        elif name != 'update':
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
    return {key: -(-size // among) if key in divided else size for key, size in parts.items()
            if size}
