"""Values of settings whose class refuses them late, or with a traceback."""
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from .files import shown

_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')
_TYPES = ('bfloat16', 'float16', 'float32', 'float64')


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_settings(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_package(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier() and find_spec(value) is not None


#: place -> whether a value may stand there, and what may
RULES = {
    'log_level': (lambda value: type(value) is int or value in _LEVELS,
                  f'one of {", ".join(_LEVELS)}'),
    'default_scope': (_is_package, "the package whose classes are meant, 'simpleseg_mm'"),
    'resume': (lambda value: isinstance(value, bool), 'True or False; --resume FILE names one'),
    'env_cfg.mp_cfg': (_is_settings, 'settings, dict(mp_start_method=...)'),
    'env_cfg.dist_cfg': (_is_settings, 'settings, dict(backend=...)'),
    'optim_wrapper.clip_grad': (_is_settings, 'settings, dict(max_norm=1.0), or None'),
    'optim_wrapper.dtype': (lambda value: value in (None, *_TYPES), f'one of {", ".join(_TYPES)}'),
    'model.mllm.dtype': (lambda value: value in _TYPES, f'one of {", ".join(_TYPES)}'),
    'model.mllm.lora': (_is_settings, 'settings, dict(r=64, ...), or None'),
    'model.mllm.quantization': (_is_settings, "settings of BitsAndBytesConfig, or None"),
    **{f'model.mllm.{name}_pixels': (lambda value: value is None or _is_count(value),
                                     'a number of pixels from 1 on, or None')
       for name in ('min', 'max')},
    'default_hooks.checkpoint.interval': (lambda value: value == -1 or _is_count(value),
                                          'a whole number from 1 on, or -1 for none'),
    **{f'train_cfg.{name}': (_is_count, 'a whole number from 1 on')
       for name in ('group_size', 'mini_batches', 'micro_batch_size')},
}


def settings_above(cfg: Config, place: str) -> Config | dict:
    """The settings that a dotted place is one of; empty where there are none."""
    node: Any = cfg
    for key in place.split('.')[:-1]:
        node = node.get(key)
        if not isinstance(node, dict):
            return {}
    return node


def faults_of_values(cfg: Config) -> Iterator[str]:
    """What is wrong with values of ``RULES``, a part of a line each."""
    for place, (fits, allowed) in RULES.items():
        node, last = settings_above(cfg, place), place.rpartition('.')[2]
        if last in node and not fits(node[last]):
            yield f'{place} is {shown(node[last], 60)}; give {allowed}'
