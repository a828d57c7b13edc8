"""Exact continuation of an interrupted run."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from torch import nn

from simpleseg_mm.config import accumulated_batches
from simpleseg_mm.registry import HOOKS

from ..sharding import unwrap, whole_weights


def seed_everything(*entropy: int) -> None:
    """Seed Python's, NumPy's and torch's generators from a tuple of non-negative integers."""
    seeds = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    torch.manual_seed(int(seeds[2]))


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Leave the global generators as they were found."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def undisturbed(model) -> Iterator[nn.Module]:
    """The unwrapped model, in evaluation mode and with all its weights, without gradients.

    The run goes on as if nothing had been asked. Every process must enter and leave.
    """
    wrapper, model = model, unwrap(model)
    training = model.training
    with preserve_rng(), torch.no_grad(), whole_weights(wrapper):
        model.eval()
        yield model
        model.train(training)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run continue as if it had never stopped.

    Every iteration seeds the global generators from (seed, rank, iteration), so that dropout and
    sampling depend on neither what ran before nor a saved state: validation, pictures and a
    resume change nothing. The data do the same (see ``InfiniteVisitSampler``).

    What cannot be continued exactly is refused: checkpoints between two updates of an
    accumulated gradient, which would lose a part of it, and a resume with another schedule
    (schedulers restore their saved ``end``, so the learning rate would silently follow the old
    one). Another number of samples an iteration is warned about.

    Raises:
        ValueError: at the start of training, for either of the two.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        count = accumulated_batches(runner.cfg)
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook) or hook.by_epoch:
                continue
            intervals = dict(interval=hook.interval)
            if hook.save_best:
                intervals['val_interval (save_best)'] = runner.train_loop.val_interval
            for name, interval in intervals.items():
                if interval > 0 and interval % count:
                    raise ValueError(
                        f'CheckpointHook would save every {interval} batches ({name}), between '
                        f'two updates: gradients of {count} batches are accumulated. Choose a '
                        f'multiple of {count}.')

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_everything(runner.seed, get_rank(), runner.iter)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['samples_per_iter'] = _samples_per_iter(runner)
        checkpoint['meta']['accumulative_counts'] = accumulated_batches(runner.cfg)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner.cfg.get('resume'):
            return
        missing = [part for part in ('meta', 'optimizer', 'message_hub') if part not in checkpoint
                   and not (part == 'optimizer' and 'optim_wrapper' in checkpoint)]
        if missing:
            raise ValueError(f"the checkpoint holds no {' and no '.join(missing)}: a run goes on "
                             'from its iter_N.pth; from a best one, or weights of others, a new '
                             'run starts: load_from=CHECKPOINT without --resume')
        meta = checkpoint['meta']
        for name, value in dict(samples_per_iter=_samples_per_iter(runner),
                                accumulative_counts=accumulated_batches(runner.cfg)).items():
            if meta.get(name, value) != value:
                runner.logger.warning(
                    f'{name} is {value}, but was {meta[name]} when the checkpoint was written: '
                    'the data will not continue where they stopped.')
        schedulers = runner.param_schedulers
        if not isinstance(schedulers, list):
            return
        for scheduler, saved in zip(schedulers, checkpoint.get('param_schedulers', [])):
            for key in ('begin', 'end', 'T_max'):
                was, now = saved.get(key), getattr(scheduler, key, None)
                if was != now:
                    raise ValueError(
                        f'{type(scheduler).__name__} had {key}={was} when the checkpoint was '
                        f'written and has {key}={now} now: resume with the same schedule. To '
                        'train longer, start a new run from the weights: load_from=CHECKPOINT '
                        'resume=False.')


def _samples_per_iter(runner) -> int:
    """Of all processes; a loop of this package knows what it takes."""
    return getattr(runner.train_loop, 'samples_per_iter',
                   (runner.train_dataloader.batch_size or 1) * get_world_size())
