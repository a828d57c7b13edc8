"""Runs of a stand-in model that are killed at a chosen point around their validations."""
import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (once, not in every fork)
import torch
from engine_standin import TOY, ToyMetric, build
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import runner as runner_module

from simpleseg_mm.engine import launch
from simpleseg_mm.registry import HOOKS, METRICS

CONFIG = TOY + """
custom_imports = dict(_delete_=True, imports=['simpleseg_mm.datasets', 'simpleseg_mm.engine',
                                             'engine_standin', 'kills'])
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='collate_queries'), dataset=dict(type='ToyQueries', length=3))
val_evaluator = dict(type='UpAndDown')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
train_cfg = dict(global_batch_size=4, max_iters=8, val_interval=2)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3)]
default_hooks = dict(checkpoint=dict(interval=2, save_best='res/cIoU', rule='greater'),
                     samples=dict(interval=-1),
                     ticks=dict(type='TickHook'))
visualizer = dict(vis_backends=[])
"""
#: names of the files whose opening, renaming and removal are points
FILES = ('.pth', '.partial', '_checkpoint')


class Killer:
    """Counts the points of a run, and kills this process at one of them.

    A point is a file operation on a checkpoint, or a step of a validation; for a file that is
    opened to be written there are two: before, and with half of the content.
    """

    def __init__(self, at=None):
        self.at, self.count, self.busy, self.full = at, 0, False, False

    def tick(self, half=None):
        self.count += 1
        if self.count == self.at:
            if half is not None:
                self.busy = True
                Path(half).write_bytes(b'PK' + bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event, args):
        if self.busy or event not in ('open', 'os.rename', 'os.remove', 'shutil.rmtree'):
            return
        if not isinstance(args[0], (str, Path)) or not str(args[0]).endswith(FILES):
            return
        if event == 'open' and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        self.tick()
        if event == 'open':
            if self.full and str(args[0]).endswith('.partial'):
                self.busy = True
                Path(args[0]).write_bytes(bytes(1000))
                self.busy = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.tick(half=args[0])


KILLER = Killer()


@HOOKS.register_module()
class TickHook(Hook):
    """The steps of a validation as points."""

    priority = 'VERY_HIGH'

    def before_val(self, runner):
        KILLER.tick()

    def after_val_iter(self, runner, **kwargs):
        KILLER.tick()

    def after_val_epoch(self, runner, metrics=None):
        KILLER.tick()


@METRICS.register_module()
class UpAndDown(ToyMetric):
    """A score that depends on the weights, and rises and falls."""

    def compute_metrics(self, results):
        return dict(cIoU=super().compute_metrics(results)['cIoU'] * 1e4 % 100)


def in_a_child(function, *args) -> int:
    """Call a function in a fork of this process; its exit code, or -signal."""
    child = os.fork()
    if not child:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            function(*args)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(config, work_dir, at=None, report=None, full=False):
    """Train, resuming where there is something to resume, and be killed at a point."""
    KILLER.at, KILLER.full = at, full
    runner_module.collect_env = dict  # several subprocesses
    runner_module.get_git_hash = str
    Config.pretty_text = property(str)  # half a second each
    sys.addaudithook(KILLER.audit)
    found = launch.find_resumable(str(work_dir))
    runner = build(config, work_dir, **(dict(resume=True, load_from=found) if found else {}))
    runner.train()
    if report:
        Path(report).write_text(json.dumps(KILLER.count))


def outcome(work_dir):
    """What a finished run left: names, the best one's weights, score and iteration."""
    from simpleseg_mm.engine.checkpoint_file import read_checkpoint
    best, = Path(work_dir).glob('best_*.pth')
    last = read_checkpoint(str(launch.find_resumable(str(work_dir))))
    info = last['message_hub']['runtime_info']
    return dict(names=sorted(p.name for p in Path(work_dir).iterdir()
                             if p.name.endswith(FILES)),
                score=info['best_score'], best=os.path.basename(info['best_ckpt']),
                weights=read_checkpoint(str(best))['state_dict'], last=last['state_dict'],
                ids=info['keep_ckpt_ids'], iter=last['meta']['iter'])


def same(a, b):
    return all(
        torch.equal(a[k][n], b[k][n]) for k in ('weights', 'last') for n in a[k]) and all(
            a[k] == b[k] for k in a if k not in ('weights', 'last'))
