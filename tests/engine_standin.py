"""A model, a data set and a metric in SimpleSeg's interfaces that train in milliseconds."""
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from simpleseg_mm.engine import launch
from simpleseg_mm.registry import DATASETS, HOOKS, METRICS, MODELS

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / 'configs' / '_base_'
COUNTER = itertools.count()


def train(config, work_dir, **options):
    """The steps of tools/train.py in this process; gives the runner back."""
    cfg = Config.fromfile(str(config))
    cfg.merge_from_dict(options)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'run{next(COUNTER)}'  # MMEngine's singletons go by it
    launch.fit_global_batch(cfg, 1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def run_tool(name, *args, processes=0):
    """A tool in one process of its own, or in several by torchrun."""
    torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    return subprocess.run(
        [sys.executable, *(torchrun if processes else []), str(ROOT / 'tools' / name),
         *map(str, args)], text=True, capture_output=True, cwd=ROOT, env=dict(
             os.environ, OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT}/tests'))


@DATASETS.register_module()
class ToyQueries(Dataset):
    """Pictures of two sizes; a sample's choices depend on its index and visit only."""

    metainfo = dict(classes=('object', ))

    def __init__(self, length=10, bad=()):
        self.length, self.bad = length, bad

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        visit, i = divmod(index, self.length)
        rng = np.random.default_rng([0, i, visit])
        picture = torch.from_numpy(rng.integers(0, 256, (3, 4, 4 + i % 2), dtype=np.uint8))
        sample = BaseDataElement(metainfo=dict(
            img_id=i, img_path=f'{i}.jpg', text=f'thing {i}', task='text2mask',
            prompt=f'where is {i}?', bad=i in self.bad))
        return dict(inputs=picture, data_samples=sample)


@MODELS.register_module()
class ToyModel(BaseModel):
    """A vision part, a projector and a head; dropout, and a loss averaged over all ranks."""

    def __init__(self, freeze=(), dropout=0.3, **kwargs):
        super().__init__(**kwargs)
        generator = torch.Generator().manual_seed(0)
        self.visual, self.projector, self.lm_head = (
            nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 3))
        self.drop = nn.Dropout(dropout)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.3
        for name in freeze:
            getattr(self, name).requires_grad_(False)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack([image.float().flatten(1).mean(1) for image in inputs]) / 255
        y = self.lm_head(torch.tanh(self.drop(self.projector(torch.relu(self.visual(x))))))
        if mode == 'predict':
            torch.rand(5), np.random.rand()  # a careless user of the global generators
            for sample, row in zip(data_samples, y):
                sample.set_metainfo(dict(pred_text=str([round(float(v), 3) for v in row]),
                                         error=float((row - 0.5).abs().mean())))
            return data_samples
        tokens = torch.tensor([2. + s.img_id % 3 for s in data_samples])
        count = tokens.sum()
        all_reduce(count, 'mean')
        error = ((y - 0.5)**2).mean(1)
        if any(s.get('bad') for s in data_samples):
            error = error * float('nan')
        return dict(loss=(error * tokens).sum() / count, answer_tokens=tokens.sum(),
                    sequence_tokens=tokens.sum() * 10,
                    token_accuracy=((y > 0.4).float().mean(1) * tokens).sum() / tokens.sum())

    def describe_batch(self, inputs, data_samples):
        return [f'{s.prompt} [[answer {s.img_id}]]' for s in data_samples]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'res'

    def process(self, data_batch, data_samples):
        self.results += [sample['error'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(cIoU=100 - 100 * float(np.mean(results)), number=len(results))


@HOOKS.register_module()
class KillHook(Hook):
    """SIGKILL this process in the middle of an iteration."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
