"""A live model as the Hugging Face folder that engines read: its weights, and all beside them."""
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from ..files import replace_json


def folder_weights(mllm) -> dict[str, Tensor]:
    """Weights by their names in the exported folder, adapters folded in.

    The model stays as it is, bit for bit. A weight that no adapter changes is the model's own
    tensor, not a copy. Of a model that is split over processes, ask within ``whole_weights``.

    Args:
        mllm: a :class:`simpleseg_mm.models.mllm.MLLM`.

    Raises:
        ValueError: weights that are held in few bits, or split by ZeRO-3; one line.
    """
    hf = mllm.hf
    named = dict(hf.named_parameters())
    if getattr(hf, 'hf_quantizer', None) is not None:
        raise ValueError('model.mllm.quantization holds the weights in few bits, and an engine '
                         'takes whole ones: leave it out, or take '
                         "train_cfg.rollout.type='InProcessRollout'")
    if any(hasattr(parameter, 'ds_id') for parameter in named.values()):
        raise ValueError('weights that DeepSpeed ZeRO-3 splits are not handed to an engine: take '
                         'configs/_base_/strategies/fsdp.py or ZeRO-1 or 2, or '
                         "train_cfg.rollout.type='InProcessRollout'")
    folded = _folded(hf)
    weights = {name.replace('.base_layer', ''): folded.get(id(tensor), tensor.detach())
               for name, tensor in [*named.items(), *_kept_buffers(hf)] if 'lora_' not in name}
    if mllm.family.saves_original_format:
        weights = revert_weight_conversion(hf, weights)
    return {name: weight.contiguous() for name, weight in weights.items()}


@torch.no_grad()
def _folded(hf: nn.Module) -> dict[int, Tensor]:
    """New tensors in place of the weights that adapters change, by the weight's ``id``."""
    if not any('lora_' in name for name, _ in hf.named_parameters()):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer  # takes seconds to load
    folded: dict[int, Tensor] = {}
    inside: set[nn.Module] = set()
    for module in hf.modules():  # from the outside in
        if not isinstance(module, BaseTunerLayer) or module in inside:
            continue
        # a module with several adapted parameters is wrapped several times
        layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
        inside.update(layers)
        own = list(module.get_base_layer().parameters())
        before = [weight.detach().clone() for weight in own]
        try:
            for layer in reversed(layers):
                layer.merge()
            folded.update((id(weight), weight.detach().clone()) for weight in own)
        finally:  # peft's own way back rounds
            for weight, value in zip(own, before):
                weight.data.copy_(value)
            for layer in layers:
                layer.merged_adapters.clear()
    return folded


def _kept_buffers(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers that a checkpoint holds, such as a router's bias."""
    for prefix, module in hf.named_modules():
        own = dict(module.named_buffers(recurse=False))
        kept = module.state_dict() if own else {}
        yield from ((f'{prefix}.{name}' if prefix else name, buffer)
                    for name, buffer in own.items() if name in kept)


def write_folder(mllm, folder: str | Path) -> None:
    """Writes what stands beside the weights: config, generation config, tokenizer and image
    processor, with the bounds of a picture's size that this model has."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(mllm.hf.config)
    config.architectures = [type(mllm.hf).__name__]
    config.save_pretrained(folder)
    write_settings(mllm, folder)


def write_settings(mllm, folder: str | Path) -> None:
    """Writes generation config, tokenizer and image processor."""
    replace_json(Path(folder, 'generation_config.json'), mllm.writer.generation_settings(),
                 indent=2)
    mllm.family.save(folder)


def write_weights(mllm, path: str | Path) -> None:
    """Writes :func:`folder_weights` as safetensors."""
    save_file({name: weight.cpu() for name, weight in folder_weights(mllm).items()}, path,
              metadata=dict(format='pt'))
