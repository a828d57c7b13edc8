"""Checkpoints that hold what is trained."""
import re
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from simpleseg_mm.registry import HOOKS

from ..sharding import unwrap, whole

_PROBES = 8


@HOOKS.register_module()
class TrainableCheckpointHook(Hook):
    """Leave frozen parameters out of checkpoints, and refuse a checkpoint that does not fit.

    A frozen parameter is left out unless a checkpoint brought it (``load_from`` after training
    with other parts frozen): then the pretrained weights do not hold it and it is kept. A few
    values of each parameter left out are stored, so that a checkpoint is not put on top of other
    pretrained weights than it was trained with.

    Args:
        ignore: regular expressions for names that may be missing, unknown or different, such as
            ``['lora_']`` when LoRA starts from a checkpoint that has none.

    Raises:
        ValueError: at loading, naming the parameters: a trainable one is missing, a shape
            differs, the model does not know one, or a frozen one is not as it was.
    """

    priority = 'VERY_LOW'

    def __init__(self, ignore: Sequence[str] = ()):
        self.ignore = [re.compile(pattern) for pattern in ignore]
        self._brought: set = set()
        self._probes: dict[str, list[float]] = {}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        state = checkpoint['state_dict']
        dropped = {name: param for name, param in _parameters(runner.model).items()
                   if not param.requires_grad and name not in self._brought and name in state}
        for name, param in dropped.items():
            if name not in self._probes:  # frozen: looked at once
                self._probes[name] = _probe(param)
            for key in [key for key in state if key == name or key.startswith(f'{name}.')]:
                del state[key]  # of quantized weights also their scales, NAME.absmax and others
        checkpoint['meta']['lora_scaling'] = _scalings(runner.model)
        checkpoint['meta']['frozen_probes'] = {name: self._probes[name] for name in dropped}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        state = {re.sub('^module.', '', name): value
                 for name, value in checkpoint.get('state_dict', checkpoint).items()}
        probes = checkpoint.get('meta', {}).get('frozen_probes', {})
        params = _parameters(runner.model)
        known = unwrap(runner.model).state_dict()
        scaled = checkpoint.get('meta', {}).get('lora_scaling', {})
        faults = {
            'trainable, but not in the checkpoint':
            [n for n, p in params.items() if p.requires_grad and n not in state | probes],
            'of another shape':
            [n for n, v in state.items()
             if n in known and getattr(v, 'shape', None) != known[n].shape],
            'unknown to the model': [n for n in state | probes if n not in known],
            'not part of the checkpoint and different from the weights it was trained with':
            [n for n, values in probes.items()
             if n in params and n not in state and not _matches(params[n], values)],
            'under a LoRA of another scale (lora_alpha and r)':
            [n for n, scale in _scalings(runner.model).items() if scaled.get(n, scale) != scale],
        }
        lines = []
        for fault, names in faults.items():
            names = [n for n in names if not any(p.search(n) for p in self.ignore)]
            if names:
                more = f' and {len(names) - 5} more' if len(names) > 5 else ''
                lines.append(f"{len(names)} parameters are {fault}: {', '.join(names[:5])}{more}.")
        if lines:
            raise ValueError(
                'The checkpoint does not fit the model. ' + ' '.join(lines) + ' Use the config '
                'and the pretrained weights that made it, or name what may differ in '
                "default_hooks.trainable.ignore=['REGEX'].")
        self._brought |= {n for n in state if n in params and not params[n].requires_grad}


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """All parameters under all their names (tied ones have several)."""
    return dict(unwrap(model).named_parameters(remove_duplicate=False))


def _scalings(model: nn.Module) -> dict[str, float]:
    """Layer with a LoRA -> its factor, which no tensor of a checkpoint holds."""
    return {name: float(layer.scaling['default'])
            for name, layer in unwrap(model).named_modules()
            if isinstance(getattr(layer, 'scaling', None), dict) and 'default' in layer.scaling}


def _probe(param: Tensor) -> list[float]:
    flat = whole(param.detach()).flatten()
    return flat[::max(1, len(flat) // _PROBES)][:_PROBES].float().tolist()


def _matches(param: Tensor, values: list[float]) -> bool:
    """Equal up to the rounding of a half-precision type."""
    if param.is_meta:
        return True
    here, there = torch.tensor(_probe(param)), torch.tensor(values)
    return here.shape == there.shape and torch.allclose(
        here, there, rtol=0.02, atol=1e-3 * float(there.abs().max()) if values else 0)
