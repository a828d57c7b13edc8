"""Stand-ins: a model, data and a metric that train in milliseconds; rollouts, rewards, hooks."""
import itertools
import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from simpleseg_mm.engine import launch
from simpleseg_mm.engine.rollout import InProcessRollout
from simpleseg_mm.structures import Generated
from simpleseg_mm.registry import DATASETS, HOOKS, METRICS, MODELS, REWARDS, ROLLOUTS

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / 'configs' / '_base_'
COUNTER = itertools.count()
#: what the configs of all stand-in runs begin with
TOY = f"""
_base_ = ['{BASE}/default_runtime.py', '{BASE}/schedules/sft_nano.py']
custom_imports = dict(_delete_=True, imports=['simpleseg_mm.datasets', 'simpleseg_mm.engine',
                                             'engine_standin'])
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteVisitSampler', shuffle=True),
    collate_fn=dict(type='collate_queries'), dataset=dict(type='ToyQueries', length=10))
"""


def build(config, work_dir, **options):
    """The steps of tools/train.py in this process up to the runner."""
    cfg = Config.fromfile(str(config))
    cfg.merge_from_dict(options)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'run{next(COUNTER)}'  # MMEngine's singletons go by it
    launch.check_training(cfg, 1)
    launch.shorten_warm_up(cfg)
    return Runner.from_cfg(cfg)


def train(config, work_dir, **options):
    """The steps of tools/train.py in this process; gives the runner back."""
    runner = build(config, work_dir, **options)
    runner.train()
    return runner


def run_tool(name, *args, processes=0):
    """A tool in one process of its own, or in several by torchrun."""
    torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    return subprocess.run(
        [sys.executable, *(torchrun if processes else []), str(ROOT / 'tools' / name),
         *map(str, args)], text=True, capture_output=True, cwd=ROOT, env=dict(
             os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(
                 [str(ROOT), f'{ROOT}/tests', *filter(None, [os.environ.get('PYTHONPATH')])])))


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

    def encode(self, inputs, data_samples):
        return torch.stack([image.float().flatten(1).mean(1) for image in inputs]) / 255

    def forward(self, inputs, data_samples=None, mode='tensor', encoded=None):
        x = self.encode(inputs, data_samples) if encoded is None else encoded
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
    """Send this process a signal in an iteration: at its start, or at a call of a method.

    ``at`` is the iteration from 0, ``method`` is named from the runner on, ``call`` counts its
    calls from that iteration on from 1; ``rank`` alone, where it is given.
    """

    def __init__(self, at, method=None, call=1, number=signal.SIGKILL, rank=None):
        self.at, self.method, self.call, self.number = at, method, call, number
        self.rank = get_rank() if rank is None else rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != self.at or get_rank() != self.rank:
            return
        if self.method is None:
            os.kill(os.getpid(), self.number)
            return
        owner, name = self.method.rsplit('.', 1)
        owner = attrgetter(owner)(runner)
        method, calls = getattr(owner, name), itertools.count(1)

        def deadly(*args, **kwargs):
            if next(calls) == self.call:
                os.kill(os.getpid(), self.number)
            return method(*args, **kwargs)

        setattr(owner, name, deadly)


@HOOKS.register_module()
class KillServerHook(Hook):
    """Kill a server's processes while it writes the answers of an iteration (from 0)."""

    def __init__(self, at, process):
        self.at, self.process = at, process

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            server, = runner.train_loop.rollout._engine.servers
            write = server.write
            calls = itertools.count(1)

            def deadly(*args):
                if next(calls) == 5:
                    os.killpg(self.process, signal.SIGKILL)
                return write(*args)

            server.write = deadly


def logged_rows(work_dir):
    """What a run's newest log holds."""
    log = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in log.read_text().splitlines()]


# --- reinforcement learning -----------------------------------------------------------------
@ROLLOUTS.register_module()
class ScriptedRollout(InProcessRollout):
    """Answers that depend on the picture and the place in the group alone, good and bad ones.

    ``sampled`` of each group are sampled from the model instead. In rollout i, the prompts at
    the places ``alike[i]`` of all ranks' batch get the answer ``text`` G times; every group's
    second answer has no token where ``silent``.
    """

    def __init__(self, sampled=0, alike=(), text='[[[20,20],[80,20],[50,80]]]', silent=False,
                 **sampling):
        super().__init__(**sampling)
        self.sampled, self.alike, self.text, self.silent = sampled, alike, text, silent

    def generate(self, model, images, prompts, group_size, seeds, forms=None):
        few = [seed for seed in seeds if seed[-1] < self.sampled]
        groups = [[] for _ in images]
        if self.sampled:
            groups = super().generate(model, images, prompts, self.sampled, few, forms)
        for group, image, seed in zip(groups, images, seeds[::group_size]):
            iteration, place = seed[1:3]
            key = zlib.crc32(image.cpu().numpy().tobytes())
            group += [self.script(model, key, g) for g in range(self.sampled, group_size)]
            if iteration < len(self.alike) and place in self.alike[iteration]:
                group[:] = [self.written(model, self.text)] * group_size
        return groups

    def script(self, model, key, g):
        if self.silent and g == 1:
            return Generated('', 0, False)
        rng = np.random.default_rng([key, g])
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        x, y = rng.uniform(20, 80, (2, 1)) + rng.uniform(5, 60) * np.stack([
            np.cos(angle), np.sin(angle)])
        ring = np.stack([x, y], 1).clip(0, 100).round().astype(int).tolist()
        text = str([ring]).replace(' ', '')
        return self.written(model, text if g % 3 else text[:-4], finished=g % 3 > 0)

    @staticmethod
    def written(model, text, finished=True):
        ids = model.mllm.encoder.tokenizer.encode(text, add_special_tokens=False)
        ids += model.mllm.writer.stop_tokens[:1] if finished else []
        return Generated(text, len(ids), finished, tuple(ids))


@ROLLOUTS.register_module()
class EngineRollout(ScriptedRollout):
    """An engine of its own: its log-probabilities are the training forward's, but that of the
    token ``wrong`` of each prompt's first answer, which is off by ``by`` nats; in answers with
    ``mute`` it says nothing."""
    gives_logps = True

    def __init__(self, wrong=0, by=0.0, mute=False, **options):
        super().__init__(**options)
        self.wrong, self.by, self.mute = wrong, by, mute

    def generate(self, model, images, prompts, group_size, seeds, forms=None):
        groups = super().generate(model, images, prompts, group_size, seeds, forms)
        for image, prompt, group in zip(images, prompts, groups):
            for g, answer in enumerate(group):
                logp, _, mask = model.log_probs([image], [[(prompt, answer.token_ids)]],
                                                self.temperature)
                said = logp.detach()[mask].tolist()
                said[self.wrong] += self.by * (g == 0)
                group[g] = replace(answer, token_logps=() if self.mute else tuple(said))
        return groups


@REWARDS.register_module()
def vowels(query):
    """A reward that a model with random weights gets, and can learn to get."""
    text = query.answer.text
    return sum(letter in 'aeiou' for letter in text) / max(len(text), 1)


@REWARDS.register_module()
def broken(query):
    return 1 / 0


@HOOKS.register_module()
class RecordHook(Hook):
    """Keep every rollout's answers and the gradient of every update; write the answers down."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.rollouts, self.gradients = [], []
        names = {id(p): name for name, p in runner.model.named_parameters()}
        runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda optimizer, *_: self.gradients.append(
                {names[id(p)]: p.grad.clone() for group in optimizer.param_groups
                 for p in group['params']}))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rollouts.append(runner.train_loop.experience.rows())

    def after_train(self, runner):
        Path(runner.work_dir, f'record_rank{get_rank()}.json').write_text(
            json.dumps(self.rollouts))


@HOOKS.register_module()
class NothingMeantHook(Hook):
    """The targets of a batch lose their pixels: they are absent from the pictures."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for sample in data_batch['data_samples']:
            sample.gt_masks.masks[:] = 0
