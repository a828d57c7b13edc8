"""SFT of nano, samples a second: this project's training loop against Hugging Face's ``Trainer``.

Same weights, pictures, conversations, batch, precision (float32), optimizer (AdamW, fused),
weight decay, gradient clipping and number of loader workers (one), in turns in one process. Ours
is the Runner of configs/simpleseg/nano_sft_refshapes.py with its hooks; the Trainer reads
conversations that were written beforehand, as JSON and image files, and pads batches to their
longest row. Our loader writes the polygon of a mask when it first meets it, and keeps the text:
one turn is measured while it does so (``first_epoch``), the others when it has met all masks.
"""
import copy
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, device_name, now, released, row
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch, processes
from simpleseg_mm.models.encoder import IGNORE

CONFIG = ROOT / 'configs/simpleseg/nano_sft_refshapes.py'
OPTIMIZER = dict(lr=1e-3, weight_decay=0.05, betas=(0.9, 0.95))


def build(folder: str, scenes: int) -> Runner:
    """The config's own runner on a few generated scenes, with AdamW and no validation."""
    generate(f'{folder}/data', dict(train=scenes))
    cfg = Config.fromfile(str(CONFIG))
    cfg.train_dataloader.dataset.data_root = f'{folder}/data'
    cfg.optim_wrapper.optimizer = dict(type='AdamW', fused=True, **OPTIMIZER)
    return runner_of(cfg, folder)


def runner_of(cfg: Config, folder: str) -> Runner:
    """A config's own runner, which trains and writes nothing."""
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    cfg.update(work_dir=f'{folder}/work', val_cfg=None, val_dataloader=None, val_evaluator=None,
               test_cfg=None, test_dataloader=None, test_evaluator=None, log_level='WARNING',
               custom_hooks=[])
    cfg.train_cfg.update(val_interval=10**6)
    for name in ('samples', 'retention', 'first_batch', 'progress'):
        cfg.default_hooks.pop(name, None)
    cfg.default_hooks.logger.interval = 10**6  # a line of the log forgets the peak of memory
    cfg.default_hooks.checkpoint.update(interval=10**6, save_best=None, save_last=False)
    processes.prepare_launcher(cfg, 'none')
    launch.check_training(cfg, 1)
    return Runner.from_cfg(cfg)


def started(runner: Runner):
    """The training loop, ready for its first iteration."""
    loop = runner._train_loop = runner.build_train_loop(runner.cfg.train_cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, loop.max_iters)
    runner.param_schedulers = None
    for point in ('before_run', 'before_train', 'before_train_epoch'):
        runner.call_hook(point)
    runner.model.train()
    return loop


class Conversations(Dataset):
    """Image files and their conversations, as a user of the Trainer keeps them."""

    def __init__(self, folder: Path, source: Dataset, count: int) -> None:
        folder.mkdir()
        self.rows = []
        for i in range(count):
            item = source[i]
            path = folder / f'{i}.png'
            Image.fromarray(item['inputs'].permute(1, 2, 0).numpy()).save(path)
            self.rows.append(dict(image=str(path), turns=list(item['data_samples'].turns)))
        (folder / 'conversations.json').write_text(json.dumps(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[index]


class Collator:
    """Chat template, tokens, pictures and labels of a batch, padded to its longest row."""

    def __init__(self, tokenizer, image_processor) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        images = [Image.open(item['image']).convert('RGB') for item in items]
        visual = self.image_processor(images=images, return_tensors='pt')
        texts = []
        for item, grid in zip(items, visual['image_grid_thw']):
            places = int(grid.prod()) // self.image_processor.merge_size ** 2
            messages = []
            for i, (prompt, answer) in enumerate(item['turns']):
                picture = '' if i else ('<|vision_start|>' + '<|image_pad|>' * places
                                        + '<|vision_end|>')
                messages += [dict(role='user', content=picture + prompt),
                             dict(role='assistant', content=answer)]
            texts.append(self.tokenizer.apply_chat_template(messages, tokenize=False))
        batch = self.tokenizer(texts, padding=True, padding_side='right', return_tensors='pt',
                               add_special_tokens=False)
        batch = dict(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])
        batch['labels'] = self.labels(batch['input_ids'], batch['attention_mask'])
        image_token = self.tokenizer.convert_tokens_to_ids('<|image_pad|>')
        batch['mm_token_type_ids'] = (batch['input_ids'] == image_token).long()
        return {**batch, **visual}

    def labels(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens from each assistant header to its end token; -100 elsewhere."""
        header = self.tokenizer.encode('<|im_start|>assistant\n', add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        labels = torch.full_like(ids, IGNORE)
        for r, line in enumerate(ids.tolist()):
            i = 0
            while i < len(line):
                if line[i:i + len(header)] == header:
                    i += len(header)
                    while i < len(line) and mask[r, i]:
                        labels[r, i] = line[i]
                        if line[i] == end:
                            break
                        i += 1
                i += 1
        return labels


class Clock(TrainerCallback):
    """When batches end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.ends.append(now())
        if torch.cuda.is_available():
            print(f'the Trainer after {len(self.ends)} batches: {self.ends[-1]:.3f} s',
                  file=sys.stderr, flush=True)

    on_substep_end = on_step_end  # of a batch whose gradient is kept for the next


def trainer_steps(mllm, data: Dataset, folder: str, batch_size: int, steps: int, warmup: int,
                  optimizer: torch.optim.Optimizer | None = None, hf=None, **options) -> float:
    """Seconds of ``steps`` batches of the Trainer, after ``warmup`` others.

    Args:
        mllm: adapter with the network, which is trained with transformers' own attention.
        optimizer: AdamW of ``OPTIMIZER`` unless given.
        hf: a network to train in place of the adapter's.
        options: further ``TrainingArguments``.
    """
    clock = Clock()
    cuda = torch.cuda.is_available()
    with released(hf or mllm) as network:
        Trainer(
            model=network, train_dataset=data, callbacks=[clock],
            data_collator=Collator(mllm.encoder.tokenizer, mllm.family.image_processor),
            optimizers=(optimizer, None),
            args=TrainingArguments(**{**dict(
                output_dir=folder, per_device_train_batch_size=batch_size,
                max_steps=steps + warmup, learning_rate=OPTIMIZER['lr'],
                weight_decay=OPTIMIZER['weight_decay'], adam_beta2=OPTIMIZER['betas'][1],
                optim='adamw_torch_fused', max_grad_norm=1.0, lr_scheduler_type='constant',
                dataloader_num_workers=1, logging_steps=10, save_strategy='no',
                report_to='none', disable_tqdm=True, use_cpu=not cuda,
                remove_unused_columns=False, seed=0), **options})).train()
    return clock.ends[-1] - clock.ends[warmup - 1]


def runner_steps(loop, steps: int, warmup: int) -> float:
    """Seconds of ``steps`` iterations of our loop, after ``warmup`` others."""
    for step in range(steps + warmup):
        if step == warmup:
            start = now()
        loop.run_iter(next(loop.dataloader_iterator))
    return now() - start


def meet_all(loop) -> None:
    """Draw an epoch of batches, so that the text of every mask is at hand."""
    for _ in range(len(loop.dataloader.dataset) // loop.dataloader.batch_size):
        next(loop.dataloader_iterator)


def rows(quick: bool = False) -> list[dict]:
    steps, warmup, turns, scenes = (2, 1, 2, 40) if quick else (30, 5, 5, 400)
    with tempfile.TemporaryDirectory() as folder:
        runner = build(folder, scenes)
        loop = started(runner)
        mllm = runner.model.mllm
        data = Conversations(Path(folder) / 'conversations', loop.dataloader.dataset,
                             min(scenes, 4 if quick else 240))
        with released(mllm) as plain:
            hf, size = copy.deepcopy(plain), loop.dataloader.batch_size
        seconds: dict[str, list[float]] = dict(ours=[], peer=[])
        ways: dict[str, Callable[[], float]] = dict(
            ours=lambda: runner_steps(loop, steps, warmup),
            peer=lambda: trainer_steps(mllm, data, f'{folder}/trainer', size, steps, warmup,
                                       hf=hf))
        for turn in range(1 + turns):
            if turn == 1:
                meet_all(loop)
            for name, way in ways.items():
                seconds[name].append(way())
    rates = {name: [size * steps / s for s in values] for name, values in seconds.items()}
    first = {name: values.pop(0) for name, values in rates.items()}
    return [row('sft_nano', rates['ours'], rates['peer'], 'samples/s', device_name(), True,
                what=f'{np.round(sum(p.numel() for p in hf.parameters()) / 1e6, 1)} M parameters, '
                     f'batches of {size} pictures with up to 3 polygons, float32, AdamW; the peer '
                     'is transformers.Trainer',
                first_epoch=round(first['ours'] / first['peer'], 3))]
