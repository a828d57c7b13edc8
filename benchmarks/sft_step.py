"""One SFT step at the true shape of a model with random weights: time, memory, tokens/s, MFU.

    python benchmarks/sft_step.py configs/_base_/models/qwen25vl_7b_random.py \
        --batch-size 4 --image 640 480 --peak-tflops 989

``run.py sft_gpu`` sets the step beside the plain one of transformers: the model's own loss over
all positions, on a batch that is encoded already, with the same optimizer.

The last line is one JSON object. MFU counts 6 FLOPs a parameter and token that it sees (8 with
gradient checkpointing are spent, 6 are counted), attention scores left out.
"""
import argparse
import json
import statistics
import time

import numpy as np
import torch
from measure import ROOT, alternate, device_name, need_cuda, row
from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

import simpleseg_mm.engine  # noqa: F401
import simpleseg_mm.models  # noqa: F401
from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS


def fake_batch(batch_size: int, width: int, height: int):
    """Noise pictures, and an ellipse's polygon as each answer."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    mask = ((x - width / 2) / (width / 3)) ** 2 + ((y - height / 2) / (height / 3)) ** 2 < 1
    codec = PolygonCodec()
    turns = [('Output the polygon coordinates of the ellipse in the image.', codec.encode(mask))]
    samples = [DetDataSample(metainfo=dict(turns=turns)) for _ in range(batch_size)]
    return [torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8))
            for _ in range(batch_size)], samples


def counted_flops(model, patches: int, tokens: int) -> float:
    """6 FLOPs a parameter a patch (vision tower) or token (language model, no embedding)."""
    parts = {'vision': 0, 'projector': 0, 'llm': 0}
    for name, parameter in model.mllm.hf.named_parameters():
        if 'embed_tokens' not in name:
            parts[model.mllm.part_of(name)] += parameter.numel()
    return 6 * (parts['vision'] * patches + (parts['projector'] + parts['llm']) * tokens)


def compare(name: str, config: str, batch_size: int, image, repeats: int, lr: float) -> dict:
    """A row of samples a second: our step, its encoding included, and the plain one."""
    init_default_scope('simpleseg_mm')
    cuda = torch.cuda.is_available()
    with torch.device('cuda' if cuda else 'cpu'):
        model = MODELS.build(Config.fromfile(str(ROOT / config)).model)
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.get('MuonConstructor')(
        dict(optimizer=dict(type='MuonAdamW', lr=lr)))(model)
    inputs, samples = fake_batch(batch_size, *image)
    batch = model.mllm.encode(inputs, [sample.turns for sample in samples])

    def finish(loss):
        wrapper.update_params(loss)
        if cuda:
            torch.cuda.synchronize()

    seconds = alternate(dict(
        ours=lambda: finish(model.loss(inputs, samples)['loss']),
        peer=lambda: finish(model.mllm.hf(**batch, use_cache=False).loss)), repeats,
        time.perf_counter)
    return row(name, *([batch_size / s for s in seconds[way]] for way in ('ours', 'peer')),
               unit='samples/s', device=device_name(), more_is_better=True,
               what=f'{batch_size} pictures of {image[0]} x {image[1]}, MuonAdamW on both sides')


def rows(quick: bool = False) -> list:
    need_cuda()
    return [compare('sft_step_7b', 'configs/_base_/models/qwen25vl_7b_random.py', 4, (640, 480),
                    2 if quick else 8, 5e-5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config with `model`')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--image', type=int, nargs=2, default=[640, 480], metavar=('W', 'H'))
    parser.add_argument('--steps', type=int, default=8, help='timed steps, after two of warm-up')
    parser.add_argument('--peak-tflops', type=float, default=989., help="the device's, dense bf16")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope('simpleseg_mm')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    with device:
        model = MODELS.build(cfg.model)
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.get('MuonConstructor')(
        dict(optimizer=dict(type='MuonAdamW', lr=5e-5, weight_decay=0.1)))(model)
    inputs, samples = fake_batch(args.batch_size, *args.image)
    batch = model.mllm.encode(inputs, [sample.turns for sample in samples])
    tokens, patches = int(batch['attention_mask'].sum()), len(batch['pixel_values'])
    seconds = []
    for step in range(args.steps + 2):
        start = time.perf_counter()
        loss = model.loss(inputs, samples)['loss']
        wrapper.update_params(loss)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        if step > 1:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    flops = counted_flops(model, patches, tokens)
    print(json.dumps(dict(
        device=torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu',
        parameters=sum(p.numel() for p in model.parameters()), sequence_tokens=tokens,
        seconds=round(median, 4), spread=[round(min(seconds), 4), round(max(seconds), 4)],
        tokens_per_s=round(tokens / median, 1),
        memory_gib=(round(torch.cuda.max_memory_allocated() / 2**30, 2)
                    if device.type == 'cuda' else None),
        mfu=round(flops / median / args.peak_tflops / 1e12, 5), loss=round(loss.item(), 4))))


if __name__ == '__main__':
    main()
