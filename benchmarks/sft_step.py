"""SFT of the 7B shape on one GPU, samples a second, beside Hugging Face's ``Trainer``.

    python benchmarks/run.py sft_gpu
    python benchmarks/sft_step.py configs/_base_/models/qwen25vl_7b_random.py   # our side alone

Ours is the Runner of configs/simpleseg/qwen25vl_sft_refcoco.py with random weights. Both sides
train all parameters by the same optimizer (the paper's Muon, one state for both), with gradient
checkpointing, on the same pictures and conversations, an update from the same number of
micro-batches. Pictures are noise of sizes that are common in COCO, and each answer is the outline
of a star of its own.

MFU counts 6 FLOPs a parameter and token that it sees (8 with gradient checkpointing are spent, 6
are counted), attention scores left out. The last line is one JSON object.
"""
import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, device, device_name, free_memory, need_cuda, peak_gib, row
from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from sft_nano import Conversations, runner_of, runner_steps, started, trainer_steps
from torch.utils.data import Dataset

from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.registry import DATASETS

CONFIG = ROOT / 'configs/simpleseg/qwen25vl_sft_refcoco.py'
#: width, height
SIZES = ((640, 480), (480, 640), (640, 427), (427, 640), (640, 360), (500, 375), (640, 640))
#: drawn again and again
PICTURES = 64


@DATASETS.register_module()
class Stars(Dataset):
    """Noise pictures, and the polygon of a star on each."""

    def __init__(self, count: int) -> None:
        rng, codec = np.random.default_rng(0), PolygonCodec(grammar='int1000', tokens=150)
        self.items = []
        for i in range(count):
            width, height = SIZES[i % len(SIZES)]
            y, x = np.mgrid[:height, :width]
            angle = np.arctan2(y - height / 2, x - width / 2)
            radius = 1 + 0.3 * np.sin(rng.integers(2, 9) * angle + rng.random())
            mask = np.hypot((x - width / 2) / width, (y - height / 2) / height) < radius / 4
            turns = [('Output the polygon coordinates of the star in the image.',
                      codec.encode(mask))]
            self.items.append(dict(
                inputs=torch.from_numpy(rng.integers(0, 255, (3, height, width), np.uint8)),
                data_samples=DetDataSample(metainfo=dict(turns=turns))))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]


def build(folder: str, model: str, batch_size: int, micro_batches: int,
          options: dict | None = None):
    """Runner of the config on generated pictures."""
    cfg = Config.fromfile(str(CONFIG))
    cfg.model = Config.fromfile(model).model
    # an iteration is a micro-batch here, so that some of an update can be left for warm-up
    cfg.train_cfg.global_batch_size = None
    cfg.optim_wrapper.accumulative_counts = micro_batches
    cfg.train_dataloader = dict(
        batch_size=batch_size, num_workers=4, persistent_workers=True,
        sampler=dict(type='InfiniteSampler', shuffle=True), collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='Stars', count=min(PICTURES, batch_size * micro_batches)))
    cfg.merge_from_dict(options or {})
    with device():
        return runner_of(cfg, folder)


def counted(model, dataset: Dataset) -> tuple[float, int]:
    """FLOPs and tokens of the whole dataset: 6 FLOPs a parameter a patch (vision tower) or token
    (language model, no embedding)."""
    parts = {'vision': 0, 'projector': 0, 'llm': 0}
    for name, parameter in model.mllm.hf.named_parameters():
        if 'embed_tokens' not in name:
            parts[model.mllm.part_of(name)] += parameter.numel()
    patches = tokens = 0
    for item in dataset:
        batch = model.mllm.encoder.encode([item['inputs']], [item['data_samples'].turns])
        tokens += batch['input_ids'].numel()
        patches += len(batch['pixel_values'])
    return 6 * (parts['vision'] * patches
                + (parts['projector'] + parts['llm']) * tokens), tokens


def compare(name: str, model: str, batch_size: int, micro_batches: int, turns: int,
            peak_tflops: float, peer: bool = True, options: dict | None = None) -> dict:
    """A row of samples a second, with memory and MFU; ``peer``: whether to run the Trainer;
    ``options``: override our config, the peer recomputes every layer.

    A first update of ours is warm-up, in which kernels are compiled and loaded, and of each update
    the first quarter of its micro-batches.
    """
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        runner = build(folder, model, batch_size, micro_batches, options)
        loop = started(runner)
        mllm, dataset = runner.model.mllm, loop.dataloader.dataset
        data = Conversations(Path(folder) / 'conversations', dataset, len(dataset))
        warmup, (flops, tokens) = micro_batches // 4, counted(runner.model, dataset)
        timed = batch_size * (micro_batches - warmup)
        seconds, memory = dict(ours=[], peer=[]), {}
        runner_steps(loop, micro_batches, 0)
        for _ in range(turns):
            peak_gib(start=True)
            seconds['ours'].append(runner_steps(loop, micro_batches - warmup, warmup))
            memory['ours'] = peak_gib()
            print(seconds, memory, file=sys.stderr, flush=True)
            if peer:
                peak_gib(start=True)
                seconds['peer'].append(trainer_steps(
                    mllm, data, f'{folder}/trainer', batch_size, micro_batches - warmup, warmup,
                    runner.optim_wrapper.optimizer, gradient_accumulation_steps=micro_batches,
                    max_steps=1, gradient_checkpointing=True, dataloader_num_workers=4))
                memory['peer'] = peak_gib()
                print(seconds, memory, file=sys.stderr, flush=True)
    flops *= timed / len(dataset)
    mfu = {side: round(flops / statistics.median(values) / peak_tflops / 1e12, 3)
           for side, values in seconds.items() if values}
    rates = {side: [timed / value for value in values]
             for side, values in seconds.items() if values}
    what = (f'{timed} pictures in micro-batches of {batch_size} and an update by Muon, gradient '
            f'checkpointing, bfloat16; MFU {mfu["ours"]} of {peak_tflops:g} TFLOP/s, peak memory '
            f'{memory["ours"]} GiB')
    if peer:
        what += f'; the peer is transformers.Trainer: {mfu["peer"]}, {memory["peer"]} GiB'
    return row(name, rates['ours'], rates.get('peer'), 'samples/s', device_name(), True,
               what=what, mfu=mfu, memory_gib=memory, seconds=seconds, tokens_per_s=round(
                   tokens / len(dataset) * statistics.median(rates['ours']), 1),
               reserved_gib=round(torch.cuda.max_memory_reserved() / 2**30, 2) if cuda else None)


def rows(quick: bool = False) -> list[dict]:
    need_cuda()
    model = str(ROOT / 'configs/_base_/models/qwen25vl_7b_random.py')
    update = compare('sft_update_7b', model, 16, 4 if quick else 16, 1, 989., peer=False)
    free_memory()  # two networks do not fit beside each other
    return [update,
            compare('sft_step_7b', model, 16, 4, 1 if quick else 2, 989.)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config with `model`')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--micro-batches', type=int, default=8, help='an update')
    parser.add_argument('--turns', type=int, default=2, help='timed updates')
    parser.add_argument('--peak-tflops', type=float, default=989., help="the device's, dense bf16")
    parser.add_argument('--memory-gib', type=float, help='fail beyond so much memory of the GPU')
    parser.add_argument('--trainer', action='store_true', help='beside the Trainer')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    if args.memory_gib:
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(args.memory_gib / total)
    print(json.dumps(compare('sft_step', args.config, args.batch_size, args.micro_batches,
                             args.turns, args.peak_tflops, args.trainer, args.cfg_options)))


if __name__ == '__main__':
    main()
