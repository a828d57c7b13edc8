"""Models without weights and without a hub: the shapes of pretrained MLLMs."""
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from ..config import config_root
from ..models import MLLM
from ..registry import MODELS
from .quantized import QuantizedLinear

#: keys of ``model.mllm`` that say where the network, tokenizer and image processor come from
_ORIGIN = ('pretrained', 'config', 'processor', 'init')


def shapes() -> dict[str, Path]:
    """What is loaded -> the config of its shape.

    There is no list: in ``configs/_base_/models``, ``NAME_random.py`` is the shape of what
    ``NAME.py`` loads.
    """
    folder = config_root() / 'configs' / '_base_' / 'models'
    found = {}
    for shape in sorted(folder.glob('*_random.py')):
        model = shape.with_name(shape.name.replace('_random', ''))
        if model.is_file():
            found[Config.fromfile(model).model.mllm.pretrained] = shape
    return found


def without_weights(mllm: dict) -> dict:
    """The same MLLM with random weights, from the shapes of this repository where it is there.

    Args:
        mllm: ``model.mllm`` of a config.

    Returns:
        a new config; what is neither there nor in a local folder takes the hub's configuration,
        tokenizer and image processor, but no weights.
    """
    if mllm.get('init') == 'random':
        return dict(mllm)
    shape = shapes().get(mllm['pretrained'])
    if shape is None:
        return {**mllm, 'init': 'random'}
    origin = Config.fromfile(shape).model.mllm
    return {**{key: value for key, value in mllm.items() if key not in _ORIGIN},
            **{key: origin[key] for key in _ORIGIN if origin.get(key) is not None}}


def build_on_meta(model: dict):
    """The model of a config on the meta device: every shape and dtype, no memory, no hub.

    Args:
        model: ``model`` of a config.

    Raises:
        FileNotFoundError: it is of no shape in this repository, and the hub did not give its
            configuration.
    """
    mllm = without_weights(model['mllm'])
    quantization = mllm.pop('quantization', None)
    with torch.device('meta'):
        model = MODELS.build({**model, 'mllm': mllm})
        if quantization:
            _quantize(model.mllm, quantization)
    return model


def _quantize(adapter: MLLM, keys: dict) -> None:
    """Puts stand-ins where transformers would put layers of bitsandbytes."""
    for name, module in list(adapter.hf.named_modules()):
        if (type(module) is nn.Linear and adapter.part_of(name) == 'llm' and 'lora_' not in name
                and name != 'lm_head'):
            adapter.hf.set_submodule(name, QuantizedLinear(
                module, bits=4 if keys.get('load_in_4bit') else 8,
                double=keys.get('bnb_4bit_use_double_quant', False)))
