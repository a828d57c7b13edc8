"""Rollouts in process beside vLLM in the same process: the same weights, prompts and sampling.

    .vllm/bin/python benchmarks/run.py rollout_vllm     # the environment of make test-vllm

nano, taught RefShapes, writes 8 answers to each of 32 prompts on one core: ours with the drafts
that save a trained model passes, vLLM token by token. Where there is a GPU, the 7B shape with
random weights, without drafts. Both sides run in turns.
"""
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Skip, alternate, device, device_name, now, one_thread, row
from mmengine.config import Config
from mmengine.registry import init_default_scope

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engines.vllm import VLLMEngine
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.registry import DATASETS, MODELS

GROUP = 8
PROMPT = 'Output the polygon coordinates of the ellipse in the image.'


def compare(name: str, model, engine, images, prompts, forms, limit: int, turns: int, clock,
            **notes) -> dict:
    """A row of seconds a token."""
    tokens: dict[str, list[int]] = dict(ours=[], peer=[])

    def write(side: str) -> None:
        turn = len(tokens[side])
        seeds = [(turn, p, g) for p in range(len(prompts)) for g in range(GROUP)]
        sampling = Sampling(limit)
        groups = (engine.write(images, prompts, GROUP, sampling, seeds) if side == 'peer' else
                  model.sample(images, prompts, GROUP, seeds, sampling, forms=forms))
        tokens[side].append(sum(answer.num_tokens for group in groups for answer in group))

    seconds = alternate(dict(ours=lambda: write('ours'), peer=lambda: write('peer')), turns, clock)
    a_token = {side: [s / n for s, n in zip(seconds[side], tokens[side][1:])] for side in seconds}
    rate = {side: round(len(times) / sum(times)) for side, times in a_token.items()}
    return row(name, a_token['ours'], a_token['peer'], 'seconds a token', tokens_per_second=rate,
               what=f'{len(prompts)} prompts, {GROUP} answers of up to {limit} tokens each; '
               f'{rate["ours"]} tokens/s in process, {rate["peer"]} by vLLM', **notes)


def nano(quick: bool) -> dict:
    init_default_scope('simpleseg_mm')
    cfg = Config.fromfile(str(ROOT / 'configs/simpleseg/nano_sft_refshapes.py'))
    cfg.model.mllm.pretrained = 'simpleseg_mm://nano_sft'
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder, 'refshapes'), dict(train=2, val=2, test=12))
        cfg.test_dataloader.dataset.update(data_root=f'{folder}/refshapes')
        queries = DATASETS.build(cfg.test_dataloader.dataset)
        chosen = [queries[i] for i in range(4 if quick else 32)]
    with one_thread():
        model = MODELS.build(cfg.model).eval()
        engine = VLLMEngine(model, max_model_len=1024, max_num_seqs=256,
                            kv_cache_memory_bytes=1 << 30)
        samples = [query['data_samples'] for query in chosen]
        return compare('rollout_vllm', model, engine, [query['inputs'] for query in chosen],
                       [sample.prompt for sample in samples], list(map(answer_form, samples)),
                       16 if quick else 100, 1 if quick else 5, time.process_time,
                       device='cpu, 1 thread')


def shape_7b(quick: bool) -> dict:
    init_default_scope('simpleseg_mm')
    with device():
        model = MODELS.build(Config.fromfile(
            str(ROOT / 'configs/_base_/models/qwen25vl_7b_random.py')).model).eval()
    engine = VLLMEngine(model, gpu_memory_utilization=0.5)
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 255, (3, 480, 640), dtype=np.uint8))
              for _ in range(32)]
    return compare('rollout_vllm_7b', model, engine, images, [PROMPT] * 32, None,
                   16 if quick else 256, 1 if quick else 3, now, device=device_name())


def rows(quick: bool = False) -> list[dict]:
    try:
        import vllm  # noqa: F401
    except ImportError:
        raise Skip('vLLM is not installed: make test-vllm, then .vllm/bin/python') from None
    return [shape_7b(quick) if torch.cuda.is_available() else nano(quick)]
