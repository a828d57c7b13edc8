"""Parameter groups for MuonAdamW (and for any other optimizer) from a model."""
import inspect
import logging
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from simpleseg_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, builds

from ..sharding import DeepSpeedOptimWrapper
from .muon import MuonAdamW

_KEYS = ('custom_keys', 'adamw_keys', 'lora')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MuonConstructor:
    """Give hidden matrices to Muon and everything else to AdamW.

    Muon takes 2-D parameters, and 3-D ones of which 'experts' is a part of the name: the stacked
    matrices of a mixture of experts. AdamW takes embeddings, the output head, convolutions (the
    patch embedding), norms, biases and everything else that is not 2-D; norms, biases and other
    1-D parameters get no weight decay. LoRA factors go to AdamW unless ``lora='muon'``:
    orthogonalising A and B one by one is not orthogonalising their product (our choice). Frozen
    parameters are left out, and a tied parameter is counted once, as an embedding if any of its
    owners is one.

    It serves any optimizer: one that is not MuonAdamW gets the same groups without the flag.

    Args:
        optim_wrapper_cfg: config of the wrapper, with ``optimizer``.
        paramwise_cfg: any of

            - ``custom_keys``: ``{part of a name: dict(lr_mult=1., decay_mult=1.)}``; the longest
              key that occurs in a parameter's name counts, as in MMEngine. For example
              ``{'visual': dict(lr_mult=0.1)}``.
            - ``adamw_keys``: parts of names of matrices that AdamW takes as well. Default
              ``('lm_head', 'embed')``.
            - ``lora``: 'adamw' (default) or 'muon'.

    Raises:
        ValueError: an unknown option, or a model without a trainable parameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if 'optimizer' not in optim_wrapper_cfg:
            raise ValueError("optim_wrapper needs an 'optimizer', for example "
                             "dict(type='MuonAdamW', lr=5e-5).")
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer'))
        options = dict(paramwise_cfg or {})
        unknown = set(options) - set(_KEYS)
        if unknown:
            raise ValueError(f'paramwise_cfg has {sorted(unknown)}: MuonConstructor takes '
                             f'{list(_KEYS)}.')
        self.custom_keys: dict[str, dict] = dict(options.get('custom_keys', {}))
        for key, value in self.custom_keys.items():
            if set(value) - {'lr_mult', 'decay_mult'}:
                raise ValueError(f'custom_keys[{key!r}] has {sorted(value)}: give lr_mult and '
                                 'decay_mult only.')
        self.adamw_keys: Sequence[str] = tuple(options.get('adamw_keys', ('lm_head', 'embed')))
        self.lora = options.get('lora', 'adamw')
        if self.lora not in ('adamw', 'muon'):
            raise ValueError(f"lora={self.lora!r}: give 'adamw' or 'muon'.")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)
        cfg = dict(self.optimizer_cfg)
        optimizer_class = cfg['type']
        if isinstance(optimizer_class, str):
            optimizer_class = OPTIMIZERS.get(optimizer_class)
            if optimizer_class is None:
                raise ValueError(f"optimizer type {cfg['type']!r} is not registered: give "
                                 "'MuonAdamW', 'AdamW' or another torch optimizer.")
        defaults = inspect.signature(optimizer_class).parameters
        lr = cfg.get('lr', defaults['lr'].default)
        decay = cfg.get('weight_decay', defaults['weight_decay'].default)
        groups, frozen = self._groups(model, lr, decay)
        if not groups:
            raise ValueError(
                f'None of the {frozen} parameters of {type(model).__name__} is trainable: '
                'unfreeze a part of the model or add LoRA.')
        has_muon = inspect.isclass(optimizer_class) and issubclass(optimizer_class, MuonAdamW)
        cfg['params'] = [group if has_muon else {k: v for k, v in group.items() if k != 'muon'}
                         for group in groups]
        self._log(groups, frozen, has_muon)
        wrapper_cfg = dict(self.wrapper_cfg)
        wrapper_cfg.setdefault('type', 'OptimWrapper')
        if not has_muon and not builds(OPTIM_WRAPPERS, wrapper_cfg, DeepSpeedOptimWrapper):
            self._warn_of_bfloat16(groups)  # DeepSpeed keeps masters
        optimizer = OPTIMIZERS.build(cfg)
        return OPTIM_WRAPPERS.build(wrapper_cfg, default_args=dict(optimizer=optimizer))

    def _groups(self, model: nn.Module, lr: float, decay: float) -> tuple[list, int]:
        owners = defaultdict(list)
        for module_name, module in model.named_modules():
            for name, param in module.named_parameters(recurse=False):
                owners[param].append((f'{module_name}.{name}'.lstrip('.'), module))
        groups: dict[tuple, list] = defaultdict(list)
        frozen = 0
        for param, places in owners.items():
            if not param.requires_grad:
                frozen += 1
                continue
            muon = all(self._is_hidden(param, *place) for place in places)
            custom = self._custom(places[0][0])
            wd = decay * custom.get('decay_mult', 1.) if param.ndim > 1 else 0.
            groups[muon, lr * custom.get('lr_mult', 1.), wd].append(param)
        return [dict(params=params, muon=muon, lr=group_lr, weight_decay=wd)
                for (muon, group_lr, wd), params in groups.items()], frozen

    def _is_hidden(self, param: nn.Parameter, name: str, module: nn.Module) -> bool:
        if not (param.ndim == 2 or param.ndim == 3 and 'experts' in name):
            return False
        if 'lora_' in name:
            return self.lora == 'muon' and 'lora_embedding' not in name
        return (not isinstance(module, nn.Embedding)
                and not any(key in name for key in self.adamw_keys))

    def _custom(self, name: str) -> dict:
        keys = sorted((key for key in self.custom_keys if key in name), key=lambda k: (-len(k), k))
        return self.custom_keys[keys[0]] if keys else {}

    def _warn_of_bfloat16(self, groups: list) -> None:
        count = sum(p.numel() for group in groups for p in group['params']
                    if p.dtype == torch.bfloat16)
        if count:
            print_log(f'{self.optimizer_cfg["type"]} updates {count / 1e6:.2f} M weights in '
                      'bfloat16: what is smaller than their last bit is lost, at usual learning '
                      "rates most of it. Take type='MuonAdamW', which keeps the bits, or weights "
                      "in float32 (model.mllm.dtype='float32') with --amp.", 'current',
                      logging.WARNING)

    def _log(self, groups: list, frozen: int, has_muon: bool) -> None:
        parts = []
        for flag, name in [(True, 'Muon'), (False, 'AdamW')]:
            params = [p for g in groups if g['muon'] == flag for p in g['params']]
            if params:
                count = sum(p.numel() for p in params) / 1e6
                rule = name if has_muon else self.optimizer_cfg['type']
                parts.append(f'{len(params)} tensors ({count:.2f} M) by {rule}')
        rates = sorted({g['lr'] for g in groups})
        print_log(f"Optimizer: {', '.join(parts)}; {frozen} frozen tensors left out; "
                  f'{len(groups)} groups, learning rates {rates}', logger='current')
