"""The planner's memory against a real training step's.

    python benchmarks/plan_memory.py configs/simpleseg/nano_sft_refshapes.py \
        --cfg-options train_dataloader.batch_size=4
    python benchmarks/plan_memory.py configs/simpleseg/qwen25vl_sft_refcoco.py   # on a GPU

The real step is the optimizer wrapper's, with random weights of the true shape and gradients
accumulated twice where the config accumulates. Its peak is the allocator's own record:
``torch.cuda.max_memory_allocated``, or on a CPU every allocation that torch's profiler saw. The
last line is one JSON object; ``ratio`` is planned / measured.
"""
import argparse
import copy
import json
import logging
import warnings

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch.profiler import ProfilerActivity, profile

from simpleseg_mm.analysis import plan_batch, rehearse, training_turns, without_weights
from simpleseg_mm.analysis.rehearsal import bytes_of, state_tensors
from simpleseg_mm.config import read_config
from simpleseg_mm.engine import launch
from simpleseg_mm.registry import MODELS

STEP = ('update', 'forward', 'backward')


def allocated_peak(function, base: int) -> int:
    """Most bytes that were allocated on a CPU at one time while ``function`` ran, over ``base``
    bytes from before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [(event.start_ns(), i, event.nbytes())
              for i, event in enumerate(profiler.profiler.kineto_results.events())
              if event.name() == '[memory]']
    peak = alive = base
    for *_, size in sorted(events):
        alive += size
        peak = max(peak, alive)
    return peak


def measure(cfg: Config, device: str) -> int:
    """Bytes at the peak of the second update of a real run."""
    cfg = copy.deepcopy(cfg)
    batch = plan_batch(cfg)
    accumulated = min(launch.check_training(cfg, 1), 2)
    with torch.device(device):
        model = MODELS.build({**cfg.model, 'mllm': without_weights(cfg.model.mllm)})
    wrapper_cfg = dict(cfg.optim_wrapper, accumulative_counts=accumulated)
    wrapper = build_optim_wrapper(model, wrapper_cfg)
    count = cfg.train_dataloader.batch_size
    image = torch.zeros(3, batch.picture[1], batch.picture[0], dtype=torch.uint8)
    samples = [DetDataSample(metainfo=dict(turns=training_turns(model.mllm, batch, row)))
               for row in range(count)]

    def update():
        for _ in range(accumulated):
            wrapper.update_params(model.loss([image] * count, samples)['loss'])

    update()  # makes the optimizer's state
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        update()
        return torch.cuda.max_memory_allocated()
    tensors = {id(x): x for x in [*model.parameters(), *model.buffers()]}
    return allocated_peak(update, bytes_of(tensors.values())
                          + bytes_of(state_tensors(wrapper.optimizer)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of SFT')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    init_default_scope('simpleseg_mm')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    phases = rehearse(cfg, plan_batch(cfg), on_gpu=device == 'cuda').phases
    planned = max(phases[name].total for name in STEP)
    measured = measure(cfg, device)
    print(json.dumps(dict(
        config=args.config, options=args.cfg_options or {},
        device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
        planned_mib=round(planned / 2**20, 2), measured_mib=round(measured / 2**20, 2),
        ratio=round(planned / measured, 4))))


if __name__ == '__main__':
    main()
