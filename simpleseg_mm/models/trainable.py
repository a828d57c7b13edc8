"""What of a network is trained: parts, adapters, quantised weights, recomputed layers."""
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer


def part_of(name: str, parts: dict[str, tuple[str, ...]]) -> str | None:
    """The part that owns a parameter of the transformers model, by its name."""
    found = [(len(prefix), part) for part, prefixes in parts.items()
             for prefix in prefixes if name.startswith(prefix)]
    return max(found)[1] if found else None  # the longest prefix wins


def check_parts(names: Sequence[str], parts: dict, family: str) -> None:
    """ValueError where a part is named that the family does not have."""
    if unknown := sorted(set(names) - set(parts)):
        raise ValueError(f'unknown parts {unknown}; {family} has {sorted(parts)}')


def quantization_config(keys: dict, parts: dict[str, tuple[str, ...]]):
    """Of transformers, for the language model alone: all else and the head stay whole.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig  # only here: bitsandbytes is optional
    from transformers.utils import is_bitsandbytes_available
    if not is_bitsandbytes_available():
        raise ImportError('`quantization` needs bitsandbytes: pip install bitsandbytes')
    whole = [prefix.rstrip('.') for part, prefixes in parts.items() if part != 'llm'
             for prefix in prefixes]
    return BitsAndBytesConfig(**{'llm_int8_skip_modules': [*whole, 'lm_head'], **keys})


def keep_layout(hf) -> None:
    """bitsandbytes lays 4-bit weights out anew when a CPU first infers, for good, and has no
    gradient from there: it is told not to."""
    for module in hf.modules():
        if hasattr(module, 'support_avx512bf16_for_cpu'):
            module.support_avx512bf16_for_cpu = False


def select_trainable(hf, parts: dict[str, tuple[str, ...]], freeze: Sequence[str],
                     lora: dict | None, train_with_lora: Sequence[str], family: str) -> None:
    """Freeze parts, or add LoRA's adapters and freeze all else, in place; said in the log.

    Raises:
        ValueError: keys that ``peft.LoraConfig`` does not take.
    """
    if lora is not None:
        from peft import LoraConfig, inject_adapter_in_model  # slow, and only for LoRA
        try:
            inject_adapter_in_model(LoraConfig(**lora), hf)
        except (TypeError, ValueError) as error:
            keys = ' '.join(str(error).split())
            raise ValueError(f'lora={dict(lora)}: {keys}. Give keys of peft.LoraConfig, as '
                             'configs/_base_/models/lora_llm.py does') from None
    for name, parameter in hf.named_parameters():
        if 'lora_' in name:
            parameter.data = parameter.to(hf.dtype)  # peft's choice depends on the device
        part = part_of(name.replace('.base_layer', ''), parts)
        if lora is not None:
            parameter.requires_grad_('lora_' in name or part in train_with_lora)
        else:
            parameter.requires_grad_(part not in freeze)
    trained = sum(p.numel() for p in hf.parameters() if p.requires_grad)
    total = sum(map(num_values, hf.parameters()))
    print_log(f'{family}: {trained:,} of {total:,} parameters are trainable', 'current')


def num_values(parameter: Tensor) -> int:
    """Numbers that a parameter holds: 4-bit ones stand in pairs."""
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)


def recompute(hf, parts: dict[str, tuple[str, ...]], share: float) -> None:
    """Let layers compute their activations again in the backward pass, in place; of the language
    model's, this share."""
    enable = getattr(hf, 'activation_checkpointing_enable',  # newer releases' name
                     hf.gradient_checkpointing_enable)
    enable(dict(use_reentrant=False))
    # It lets pictures and embeddings ask for a gradient, which only reentrant checkpoints
    # need: a frozen vision tower would be run again and backwards for nothing.
    hf.disable_input_require_grads()
    layers = [layer for name, layer in hf.named_modules()
              if isinstance(layer, GradientCheckpointingLayer)
              and part_of(f'{name}.', parts) == 'llm']
    # The last layers' activations are given back before the first layers compute theirs.
    for layer in layers[round(share * len(layers)):]:
        layer.gradient_checkpointing = False
