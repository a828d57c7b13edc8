"""Checkpoint -> Hugging Face folder that transformers, vLLM or TRL load; LoRA is merged or kept.

    python tools/model_converters/to_huggingface.py CONFIG CHECKPOINT OUT [--keep-lora]
"""
import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from simpleseg_mm.apis.loading import write_note
from simpleseg_mm.registry import MODELS


def merge_lora(model: torch.nn.Module) -> int:
    """Folds every adapter into its layer, in place; the number of adapters."""
    wrapped = {name: module for name, module in model.named_modules()
               if isinstance(module, BaseTunerLayer)}
    # A module with several adapted parameters is wrapped several times: from the inside out.
    for name, module in reversed(wrapped.items()):
        module.merge()
        parent, _, child = name.rpartition('.')
        if parent not in wrapped:
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    return len(wrapped)


def save_lora(adapter: torch.nn.Module, cfg: dict, out: str) -> int:
    """Writes what was trained as a PEFT adapter, for ``PeftModel.from_pretrained``; its tensors.

    Parts trained in full beside LoRA go with it as PEFT's ``modules_to_save``.
    """
    full = [prefix.rstrip('.') for part in cfg.get('train_with_lora', ())
            for prefix in adapter.parts[part]]
    state = {'base_model.model.' + name.replace('.default.', '.'): value.contiguous()
             for name, value in adapter.hf.state_dict().items()
             if 'lora_' in name or name.startswith(tuple(f'{prefix}.' for prefix in full))}
    Path(out).mkdir(parents=True, exist_ok=True)
    save_file(state, Path(out, 'adapter_model.safetensors'), metadata=dict(format='pt'))
    LoraConfig(**cfg['lora'], modules_to_save=full or None, task_type='CAUSAL_LM',
               base_model_name_or_path=cfg.get('pretrained')).save_pretrained(out)
    return len(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='.pth file of a run')
    parser.add_argument('out', help='folder to write')
    parser.add_argument('--keep-lora', action='store_true',
                        help='write the adapters alone, in the form of PEFT')
    parser.add_argument('--dtype', help='of the written weights, such as bfloat16')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
    cfg.model.mllm.pop('quantization', None)  # adapters are merged into the whole weights
    model = MODELS.build(cfg.model)
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    adapter = model.mllm
    if args.keep_lora:
        if not cfg.model.mllm.get('lora'):
            raise SystemExit(f'ERROR: {args.config} trains without LoRA; leave --keep-lora out.')
        count = save_lora(adapter, cfg.model.mllm, args.out)
        print(f'{args.out}: PEFT adapter of {count} tensors')
        return
    merged = merge_lora(adapter.hf)
    if args.dtype:
        for parameter in adapter.hf.parameters():  # buffers, as a router's bias, keep their own
            parameter.data = parameter.data.to(getattr(torch, args.dtype))
    adapter.hf.save_pretrained(args.out, save_original_format=adapter.saves_original_format)
    adapter.tokenizer.save_pretrained(args.out)
    adapter.image_processor.save_pretrained(args.out)
    write_note(cfg, args.out)
    print(f'{args.out}: {type(adapter.hf).__name__}, {adapter.hf.num_parameters():,} parameters, '
          f'{merged} LoRA adapters merged')


if __name__ == '__main__':
    main()
