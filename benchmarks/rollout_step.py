"""Rollouts of the 7B shape on one GPU beside transformers' ``generate(num_return_sequences=8)``.

Random weights, bfloat16: they end no answer and follow no grammar, so both sides write all tokens
one by one. What is compared is the reading of the prompt and the passes, without the drafts that
save a trained model passes. Same network, prompts and sampling, in turns in one process.
"""

import numpy as np
import torch
from decoding import transformers_answers
from measure import ROOT, alternate, device, device_name, need_cuda, now, peak_gib, released, row
from mmengine.config import Config
from mmengine.registry import init_default_scope

import simpleseg_mm.models  # noqa: F401
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.registry import MODELS

GROUP = 8
PROMPT = 'Output the polygon coordinates of the ellipse in the image.'


def compare(name: str, config: str, prompts: int, limit: int, turns: int) -> dict:
    """A row of seconds a token."""
    init_default_scope('simpleseg_mm')
    with device():
        model = MODELS.build(Config.fromfile(str(ROOT / config)).model).eval()
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 255, (3, 480, 640), dtype=np.uint8))
              for _ in range(prompts)]
    tokens: dict[str, list[int]] = dict(ours=[], peer=[])
    memory = {}

    def finish(side: str, answers: list) -> None:
        tokens[side].append(sum(answer.num_tokens for answer in answers))
        memory[side] = peak_gib()

    def ours() -> None:
        turn = len(tokens['ours'])
        seeds = [(turn, p, g) for p in range(prompts) for g in range(GROUP)]
        finish('ours', sum(model.sample(images, [PROMPT] * prompts, GROUP, seeds,
                                        Sampling(limit)), []))

    def peer() -> None:
        finish('peer', transformers_answers(model.mllm, images, [PROMPT] * prompts, limit, True,
                                            top_k=0, num_return_sequences=GROUP))

    seconds = alternate(dict(ours=ours, peer=peer), turns, now,
                        before=lambda _: peak_gib(start=True),
                        within=dict(peer=lambda: released(model.mllm)))
    a_token = {side: [s / n for s, n in zip(seconds[side], tokens[side][1:])] for side in seconds}
    return row(name, a_token['ours'], a_token['peer'], 'seconds a token', device_name(),
               memory_gib=memory, what=f'{prompts} prompts of a picture of 640 x 480, {GROUP} '
               f'answers of {limit} tokens each, random weights, no drafts; peak memory '
               f'{memory["ours"]} GiB, the peer {memory["peer"]}')


def rows(quick: bool = False) -> list[dict]:
    need_cuda()
    return [compare('rollout_7b_g8', 'configs/_base_/models/qwen25vl_7b_random.py', 8,
                    16 if quick else 256, 1 if quick else 3)]
