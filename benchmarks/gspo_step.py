"""One GSPO step at the true shape of a model with random weights: time, memory, tokens/s.

    python benchmarks/gspo_step.py configs/simpleseg/qwen25vl_lora_gspo_refcoco.py \
        --model configs/_base_/models/qwen25vl_7b_random.py --prompts 4 --new-tokens 256 --peer

A step is the training loop's own: rollout, rewards, old log-probabilities, updates. Pictures are
RefShapes scenes, and as random weights write nonsense, the reward is a checksum of the text. The
last line is one JSON object: our figures, or with ``--peer`` the row of both sides
(trl_gspo.py is the other).
"""
import argparse
import json
import statistics
import sys
import tempfile
import zlib

from measure import (ROOT, Skip, device, device_name, free_memory, need_cuda, now, peak_gib,
                     row)
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from simpleseg_mm.config import read_config
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch, processes
from simpleseg_mm.registry import REWARDS


@REWARDS.register_module()
def checksum(query) -> float:
    """A reward that differs between any two texts."""
    return zlib.crc32(query.answer.text.encode()) / 2**32


def configure(args: argparse.Namespace, folder: str) -> Config:
    """The config, with random weights, RefShapes and no validation."""
    generate(f'{folder}/data', dict(train=2 * args.prompts), size=args.size)
    cfg = read_config(args.config)
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
    cfg.update(work_dir=folder, load_from=None,
               val_cfg=None, val_dataloader=None, val_evaluator=None,
               test_cfg=None, test_dataloader=None, test_evaluator=None)
    cfg.train_cfg.global_batch_size = args.prompts
    cfg.train_cfg.rollout.max_new_tokens = args.new_tokens
    cfg.train_cfg.reward.weights = dict(checksum=1.0)
    cfg.log_level = 'WARNING'
    cfg.merge_from_dict(args.cfg_options or {})
    processes.prepare_launcher(cfg, 'none')
    launch.check_training(cfg, 1)
    return cfg


def measure_steps(cfg: Config, steps: int, seen: list | None = None) -> dict:
    """Figures of a few steps after one of warm-up: medians, ``rates`` of each.

    ``seen`` takes the pictures and prompts of each step, that of warm-up included.
    """
    peak_gib(start=True)
    times = []
    with device():
        runner = Runner.from_cfg(cfg)
    loop = runner.build_train_loop(runner.cfg.train_cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.model.train()
    for step in range(steps + 1):
        data = loop.model.data_preprocessor(next(loop.dataloader_iterator), True)
        start = now()
        experience = loop.collect(data['inputs'], data['data_samples'])
        middle = now()
        loop.update(experience)
        end = now()
        tokens = sum(answer.num_tokens for group in experience.answers for answer in group)
        times.append((middle - start, end - middle, tokens))
        if not experience.learnt_PG.all():
            raise RuntimeError('groups were left out, since their texts are alike: the '
                               'step would be a part of one. Raise --new-tokens')
        if seen is not None:
            seen.append(([image.cpu() for image in experience.images],
                         [sample.prompt for sample in experience.samples]))
    rollout, update, tokens = (statistics.median(column) for column in zip(*times[1:]))
    totals = [first + second for first, second, _ in times[1:]]
    return dict(
        device=device_name(),
        parameters=sum(p.numel() for p in loop.model.parameters()),
        trained=sum(p.numel() for p in loop.model.parameters() if p.requires_grad),
        prompts=len(experience.samples), group_size=loop.group_size, new_tokens=tokens,
        seconds=round(statistics.median(totals), 3),
        spread=[round(min(totals), 3), round(max(totals), 3)],
        rollout_seconds=round(rollout, 3), update_seconds=round(update, 3),
        tokens_per_s=round(tokens / statistics.median(totals), 1),
        rates=[round(count / total, 2) for total, (_, _, count) in zip(totals, times[1:])],
        rollout_tokens_per_s=round(tokens / rollout, 1),
        memory_gib=peak_gib())


def compare(name: str, args: argparse.Namespace) -> dict:
    """A row of tokens a second: our steps, then TRL's on the same pictures and prompts."""
    try:
        import trl_gspo
    except ImportError as error:
        raise Skip(f'its peer needs what requirements/lock-test.txt lists: {error}') from error
    seen: list = []
    with tempfile.TemporaryDirectory() as folder:
        cfg = configure(args, folder)
        ours = measure_steps(cfg, args.steps, seen)
        print(json.dumps(ours), file=sys.stderr, flush=True)
        left = free_memory()
        if left > 1:
            raise RuntimeError(f'{left:.1f} GiB of our side are still held: the peer would be '
                               'measured beside it')
        peer = trl_gspo.measure_steps(cfg, seen, f'{folder}/trl')
    loop, lora = cfg.train_cfg, ' with LoRA' * bool(cfg.model.mllm.get('lora'))
    return row(
        name, ours['rates'], peer['rates'], 'tokens/s', device_name(), more_is_better=True,
        memory_gib=ours['memory_gib'], peer_memory_gib=peer['memory_gib'],
        rollout_seconds=ours['rollout_seconds'], update_seconds=ours['update_seconds'],
        seconds=ours['seconds'], peer_seconds=peer['seconds'], trained=ours['trained'],
        what=f'whole GSPO steps of {ours["parameters"] / 1e6:.0f} M random parameters{lora}. A '
             f'step has {ours["prompts"]} prompts with a picture, {loop.group_size} answers of '
             f'{loop.rollout.max_new_tokens} tokens each, {loop.mini_batches} update'
             f'{"s" * (loop.mini_batches > 1)}, '
             f'{loop.micro_batch_size} answers at a time. The peer is TRL\'s GRPOTrainer with '
             'generation by transformers, measured after ours on the same prompts')


def rows(quick: bool = False) -> list:
    """LoRA on the 7B shape."""
    need_cuda()
    return [compare('gspo_step_7b_lora', argparse.Namespace(
        config=str(ROOT / 'configs/simpleseg/qwen25vl_lora_gspo_refcoco.py'),
        model=str(ROOT / 'configs/_base_/models/qwen25vl_7b_random.py'), prompts=4,
        new_tokens=128 if quick else 256, size=448, steps=1 if quick else 2, cfg_options=None))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a GSPO run')
    parser.add_argument('--model', required=True, help='config with `model`, of random weights')
    parser.add_argument('--prompts', type=int, default=4, help='prompts a step')
    parser.add_argument('--new-tokens', type=int, default=256)
    parser.add_argument('--size', type=int, default=448, help='side of the pictures in pixels')
    parser.add_argument('--steps', type=int, default=3, help='timed steps, after one of warm-up')
    parser.add_argument('--peer', action='store_true', help='measure TRL beside it')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    if args.peer:
        print(json.dumps(compare('gspo_step', args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure_steps(configure(args, folder), args.steps)))


if __name__ == '__main__':
    main()
