"""A training run that is asked to stop ends where ``--resume`` goes on bit for bit."""
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import ValLoop

from simpleseg_mm import stopping
from simpleseg_mm.registry import LOOPS

from .hooks.saving import WholeCheckpointHook, lacks_validation
from .hooks.whole_weights import WholeWeightsHook
from .look_ahead import looking_ahead
from .processes import leave_processes
from .sharding import deepspeed_engine


class Stopped(BaseException):
    """Ends a run of which ``step`` iterations count; ``number`` is the signal's."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step, number)
        self.step, self.number = step, number


def stop_if_asked(step: int) -> None:
    """Raise :class:`Stopped` where any process was asked to stop; every process must call.

    Args:
        step: iterations whose updates the weights hold.
    """
    number = torch.tensor(float(stopping.asked()))
    if get_world_size() > 1:
        # As figures for the log: not behind the work that is queued on a GPU.
        with torch.cuda.stream(torch.cuda.Stream()) if torch.cuda.is_available(
        ) else nullcontext():
            all_reduce(number, 'max')
    if number:
        raise Stopped(step, int(number))


@contextmanager
def resumable(runner) -> Iterator[None]:
    """Within, where ``runner`` trains, SIGINT and SIGTERM stop the run at its next safe point.

    For a tool that has called :func:`simpleseg_mm.stopping.end_in_one_line`.
    That is the end of an iteration that ends an update; rollouts and validations are given up.
    What is then saved is the state of that moment, from which a resumed run does all that an
    undisturbed one does. One line says so, and the process ends with status 130 or 143. A second
    signal ends it at once, as does one before the first update.
    """
    runner.register_hook(_StopHook(), 'LOWEST')
    stopping.end_at_once('before the first update of this run: there is nothing to save; the '
                         'same command starts it again.')
    try:
        yield
        stopping.finished()
    except Stopped as stopped:
        line, status = _saved(runner, stopped.step), 128 + stopped.number
        stopping.finished()
        if is_main_process():
            print(f'{stopping.stopped_by(stopped.number)} {line}', flush=True)
        leave_processes(status)
        raise SystemExit(status) from None


class _StopHook(Hook):
    """Looks for the request after every update."""

    def before_train_epoch(self, runner) -> None:
        """The validation that a run may have been stopped before or in, unless the hook of
        checkpoints knows that it took place."""
        if lacks_validation(runner):
            runner.val_loop.run()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        stopping.defer()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        engine, step = deepspeed_engine(runner.model), runner.iter + 1
        updated = (step % engine.gradient_accumulation_steps() == 0 if engine
                   else runner.optim_wrapper.should_update())
        if updated or step == runner.max_iters:
            stop_if_asked(step)

    def after_train_epoch(self, runner) -> None:
        stopping.end_at_once('the run was at its end.')
        stop_if_asked(runner.iter)


@LOOPS.register_module(name='ValLoop')
class StoppableValLoop(ValLoop):
    """MMEngine's ``ValLoop``, given up where the run is asked to stop; see
    :func:`~.look_ahead.look_ahead`."""

    def run(self) -> dict:
        evaluate = self.evaluator.evaluate

        def unless_stopped(size: int) -> dict:
            stop_if_asked(self.runner.iter)
            return evaluate(size)

        self.evaluator.evaluate = unless_stopped
        try:
            with looking_ahead(self, stopping.asked):
                return super().run()
        finally:
            del self.evaluator.evaluate


def _saved(runner, step: int) -> str:
    """Save the state after ``step`` iterations, unless it is; how to go on."""
    for hook in runner.hooks:
        if isinstance(hook, WholeWeightsHook):  # of a validation that was given up
            hook.after_val_epoch(runner)
    hooks = [hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook)]
    if step == 0:
        return ('before the first update: there is nothing to save; the same command starts it '
                'again.')
    if not hooks:
        return (f'after iteration {step}: the config has no CheckpointHook of simpleseg_mm, '
                'nothing is saved.')
    hook, = hooks[:1]
    path = osp.join(hook.out_dir, hook.filename_tmpl.format(step))
    if hook.last_ckpt != path:
        hook.save(runner, step, dict(epoch=runner.epoch, iter=step))
    return (f'after iteration {step} of {runner.max_iters}: {path} is saved. To go on, run the '
            f'same command with --resume {path}')
