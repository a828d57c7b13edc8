"""One GSPO step at the true shape of a model with random weights: time, memory, tokens/s.

    python benchmarks/gspo_step.py configs/simpleseg/qwen25vl_lora_gspo_refcoco.py \
        --model configs/_base_/models/qwen25vl_7b_random.py --prompts 4 --new-tokens 256

A step is the training loop's own: rollout, rewards, old log-probabilities, updates. Pictures are
RefShapes scenes, and as random weights write nonsense, the reward is a checksum of the text. The
last line is one JSON object.
"""
import argparse
import json
import statistics
import tempfile
import time
import zlib

import torch
from measure import ROOT, need_cuda
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch
from simpleseg_mm.registry import REWARDS


@REWARDS.register_module()
def checksum(answer) -> float:
    """A reward that differs between any two texts."""
    return zlib.crc32(answer.text.encode()) / 2**32


def build(args: argparse.Namespace, folder: str) -> Runner:
    """The config's own runner, with random weights, RefShapes and no validation."""
    generate(f'{folder}/data', dict(train=2 * args.prompts), size=args.size)
    cfg = Config.fromfile(args.config)
    dataset = Config.fromfile(
        str(ROOT / 'configs/_base_/datasets/refshapes.py')).train_dataloader.dataset
    dataset.update(data_root=f'{folder}/data')
    dataset.query.codec.grammar = 'int1000'
    model = Config.fromfile(args.model).model
    cfg.merge_from_dict(dict(model={**model, 'mllm': {
        **model.mllm, **{key: cfg.model.mllm[key] for key in ('lora', 'train_with_lora')
                         if key in cfg.model.mllm}}}))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset = dataset
    cfg.update(work_dir=folder, global_batch_size=args.prompts, load_from=None,
               val_cfg=None, val_dataloader=None, val_evaluator=None,
               test_cfg=None, test_dataloader=None, test_evaluator=None)
    cfg.train_cfg.rollout.max_new_tokens = args.new_tokens
    cfg.train_cfg.reward.weights = dict(checksum=1.0)
    cfg.log_level = 'WARNING'
    cfg.merge_from_dict(args.cfg_options or {})
    launch.prepare_launcher(cfg, 'none')
    launch.fit_global_batch(cfg, 1)
    return Runner.from_cfg(cfg)


def measure_steps(args: argparse.Namespace) -> dict:
    """Medians of a few steps, as a dict."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        runner = build(args, folder)
        loop = runner.build_train_loop(runner.cfg.train_cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        batches = iter(loop.dataloader)
        runner.model.train()
        for step in range(args.steps + 1):
            data = loop.model.data_preprocessor(next(batches), True)
            start = time.perf_counter()
            experience = loop.collect(data['inputs'], data['data_samples'])
            middle = time.perf_counter()
            loop.update(experience)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            end = time.perf_counter()
            tokens = sum(answer.num_tokens for group in experience.answers for answer in group)
            times.append((middle - start, end - middle, tokens))
    rollout, update, tokens = (statistics.median(column) for column in zip(*times[1:]))
    totals = [first + second for first, second, _ in times[1:]]
    cuda = torch.cuda.is_available()
    return dict(
        device=torch.cuda.get_device_name() if cuda else 'cpu',
        parameters=sum(p.numel() for p in loop.model.parameters()),
        trained=sum(p.numel() for p in loop.model.parameters() if p.requires_grad),
        prompts=args.prompts, group_size=loop.group_size, new_tokens=tokens,
        seconds=round(statistics.median(totals), 3),
        spread=[round(min(totals), 3), round(max(totals), 3)],
        rollout_seconds=round(rollout, 3), update_seconds=round(update, 3),
        tokens_per_s=round(tokens / statistics.median(totals), 1),
        rollout_tokens_per_s=round(tokens / rollout, 1),
        memory_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None)


def rows(quick: bool = False) -> list:
    """Tokens a second of whole steps, LoRA on the 7B shape; there is no peer yet."""
    need_cuda()
    found = measure_steps(argparse.Namespace(
        config=str(ROOT / 'configs/simpleseg/qwen25vl_lora_gspo_refcoco.py'),
        model=str(ROOT / 'configs/_base_/models/qwen25vl_7b_random.py'), prompts=4,
        new_tokens=32 if quick else 256, size=448, steps=1 if quick else 3, cfg_options=None))
    return [dict(name='gspo_step_7b_lora', ratio=None, ours=found['tokens_per_s'], peer=None,
                 unit='tokens/s', device=found['device'], spread=[], **{
                     key: found[key] for key in ('memory_gib', 'rollout_seconds',
                                                 'update_seconds')})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a GSPO run')
    parser.add_argument('--model', required=True, help='config with `model`, of random weights')
    parser.add_argument('--prompts', type=int, default=4, help='prompts a step')
    parser.add_argument('--new-tokens', type=int, default=256)
    parser.add_argument('--size', type=int, default=448, help='side of the pictures in pixels')
    parser.add_argument('--steps', type=int, default=3, help='timed steps, after one of warm-up')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    print(json.dumps(measure_steps(args)))


if __name__ == '__main__':
    main()
