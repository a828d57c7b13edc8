"""Checkpoint -> Hugging Face folder that transformers, vLLM or TRL load; LoRA is merged or kept.

    python tools/model_converters/to_huggingface.py CONFIG CHECKPOINT OUT [--keep-lora]
"""
import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options

if TYPE_CHECKING:
    import torch
    from mmengine.config import Config


def merge_lora(model: 'torch.nn.Module') -> int:
    """Folds every adapter into its layer, in place; the number of adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # takes seconds to load: not for --help
    wrapped = {name: module for name, module in model.named_modules()
               if isinstance(module, BaseTunerLayer)}
    # A module with several adapted parameters is wrapped several times: from the inside out.
    for name, module in reversed(wrapped.items()):
        module.merge()
        parent, _, child = name.rpartition('.')
        if parent not in wrapped:
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    return len(wrapped)


def save_lora(adapter: 'torch.nn.Module', cfg: dict, out: str) -> int:
    """Writes what was trained as a PEFT adapter, for ``PeftModel.from_pretrained``; its tensors.

    Parts trained in full beside LoRA go with it as PEFT's ``modules_to_save``.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file
    full = [prefix.rstrip('.') for part in cfg.get('train_with_lora', ())
            for prefix in adapter.family.parts[part]]
    state = {'base_model.model.' + name.replace('.default.', '.'): value.contiguous()
             for name, value in adapter.hf.state_dict().items()
             if 'lora_' in name or name.startswith(tuple(f'{prefix}.' for prefix in full))}
    Path(out).mkdir(parents=True, exist_ok=True)
    save_file(state, Path(out, 'adapter_model.safetensors'), metadata=dict(format='pt'))
    LoraConfig(**cfg['lora'], modules_to_save=full or None, task_type='CAUSAL_LM',
               base_model_name_or_path=cfg.get('pretrained')).save_pretrained(out)
    return len(state)


def matrices(model: 'torch.nn.Module') -> list[str]:
    """Weights of the language model's layers, which a run with ``quantization`` held in few bits:
    what its checkpoint recorded of them are not values of the whole weights."""
    import torch
    return [f'{name}.weight' for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and model.mllm.part_of(name.removeprefix('mllm.hf.')) == 'llm']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='.pth file, or its run (work_dirs/NAME)')
    parser.add_argument('out', help='folder to write')
    parser.add_argument('--keep-lora', action='store_true',
                        help='write the adapters alone, in the form of PEFT')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'],
                        help='of the written weights')
    add_config_options(parser)
    args = parser.parse_args()
    from simpleseg_mm.engine import launch
    with launch.one_line_errors():
        export(args, load_config(args))


def load_config(args: argparse.Namespace) -> 'Config':
    """The config that the checkpoint was trained with.

    Raises:
        ValueError, FileNotFoundError: there is none, or it does not train what is asked for.
    """
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch
    cfg = read_config(args.config, args.cfg_options, said={
        'load_from': 'the argument checkpoint', 'resume': 'the argument checkpoint'},
        needs=('model', ))
    args.checkpoint = launch.whole_checkpoint(args.checkpoint)
    if args.keep_lora and not cfg.model.mllm.get('lora'):
        raise ValueError(f'{args.config} trains without LoRA; leave --keep-lora out.')
    return cfg


def export(args: argparse.Namespace, cfg: 'Config') -> None:
    """Build the model, put the checkpoint in and write the folder."""
    import torch
    from mmengine.registry import init_default_scope

    from simpleseg_mm.apis.loading import NOTE, load_weights, note_of
    from simpleseg_mm.engines.weights import write_settings
    from simpleseg_mm.files import replace_json
    from simpleseg_mm.registry import MODELS
    init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
    quantized = cfg.model.mllm.pop('quantization', None)  # adapters go into the whole weights
    note = note_of(cfg)
    model = MODELS.build(cfg.model)
    load_weights(model, cfg, args.checkpoint, matrices(model) if quantized else ())
    adapter = model.mllm
    if args.keep_lora:
        count = save_lora(adapter, cfg.model.mllm, args.out)
        if note is not None:
            replace_json(Path(args.out, NOTE), note, indent=2)
        print(f'{args.out}: PEFT adapter of {count} tensors')
        return
    merged = merge_lora(adapter.hf)
    if args.dtype:
        for parameter in adapter.hf.parameters():  # buffers, as a router's bias, keep their own
            parameter.data = parameter.data.to(getattr(torch, args.dtype))
    adapter.hf.save_pretrained(args.out, save_original_format=adapter.family.saves_original_format)
    write_settings(adapter, args.out)
    if note is not None:
        replace_json(Path(args.out, NOTE), note, indent=2)
    print(f'{args.out}: {type(adapter.hf).__name__}, {adapter.hf.num_parameters():,} parameters, '
          f'{merged} LoRA adapters merged. It needs transformers 5 or an engine that uses it; 4 '
          f'cannot read it. To try it: simpleseg serve --model {args.out}')


if __name__ == '__main__':
    main()
