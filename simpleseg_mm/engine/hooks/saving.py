"""Checkpoints that are whole or absent, and a best one that no kill and no full disk loses."""
import errno
import logging
import os
import shutil
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop
from torch.distributed.checkpoint.api import CheckpointException

from simpleseg_mm.files.writing import move_into_place, replace_text
from simpleseg_mm.registry import HOOKS

from ..checkpoint_file import fault_of


@HOOKS.register_module(name='CheckpointHook')
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, whose checkpoints survive a kill at any moment.

    - A checkpoint, file or folder, is written aside and renamed when it is on the disk.
    - What it replaces is deleted after that: the oldest one, and the best one before.
    - ``best_checkpoint`` beside ``last_checkpoint`` names the best one.
    - With ``save_best``, a checkpoint knows whether the validation of its iteration took place;
      a run that resumes from one without it validates first. So the best checkpoint and its
      score are those of a run that was never stopped.

    Arguments as for ``mmengine.hooks.CheckpointHook``.

    Raises:
        OSError: a checkpoint cannot be written; those before it are whole.
    """

    #: iteration of the newest checkpoint
    _last_step: int | None = None
    #: ``epoch`` and ``iter`` of the checkpoint that is being written
    _saved_as: dict | None = None

    # --- start and resume -----------------------------------------------------------------------
    def before_train(self, runner) -> None:
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids: list[int] = list(self.keep_ckpt_ids)
        if is_main_process():
            _tidy(Path(self.out_dir))
        if runner.iter == 0:
            return
        self._last_step, self.last_ckpt = runner.iter, runner.message_hub.get_info(
            'last_ckpt')
        if not self._forget_lost_best(runner):
            self._delete(map(self._moved, runner.message_hub.get_info('obsolete_ckpts', ())))

    def before_train_epoch(self, runner) -> None:
        """The validation that the resumed checkpoint lacks."""
        if (self.save_best and isinstance(runner.train_loop, IterBasedTrainLoop)
                and lacks_validation(runner)):
            runner.logger.info('The run was stopped before or in the validation at '
                               f'{runner.train_loop.iter}: it takes place now.')
            runner.val_loop.run()

    def _forget_lost_best(self, runner) -> bool:
        """A best checkpoint that is gone or damaged is no longer the one to beat."""
        hub, lost = runner.message_hub, False
        for key, (score_key, path_key) in self._names().items():
            path = hub.get_info(path_key)
            if path is None:
                continue
            path = self._moved(path)
            fault = [fault_of(path) if is_main_process() else None]
            broadcast_object_list(fault)
            if fault[0]:
                print_log(f'The best checkpoint by {key} is lost: {fault[0]} The next validation '
                          'makes a new one.', 'current', logging.WARNING)
                for name in (score_key, 'validated_iter'):
                    if name in hub.runtime_info:
                        hub.pop_info(name)
                path, lost = None, True
            hub.update_info(path_key, path)
            self._set_best(key, path)
        return lost

    def _moved(self, path: str) -> str:
        """Where a checkpoint lies now, should the run's folder have got another name."""
        here = os.path.join(self.out_dir, os.path.basename(path))
        return here if os.path.exists(here) else path

    # --- saving ---------------------------------------------------------------------------------
    def after_train_epoch(self, runner) -> None:
        """Save every ``interval`` epochs, and the last one."""
        if self.by_epoch and (
                self.every_n_epochs(runner, self.interval, self.save_begin)
                or (self.save_last and self.is_last_train_epoch(runner))):
            step = runner.epoch + 1
            runner.logger.info(f'Saving checkpoint at {step} epochs')
            self.save(runner, step, dict(epoch=step, iter=runner.iter))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Save every ``interval`` iterations, and the last one."""
        if not self.by_epoch and (
                self.every_n_train_iters(runner, self.interval, self.save_begin)
                or (self.save_last and self.is_last_train_iter(runner))):
            step = runner.iter + 1
            runner.logger.info(f'Saving checkpoint at {step} iterations')
            self.save(runner, step, dict(epoch=runner.epoch, iter=step))

    def after_val_epoch(self, runner, metrics) -> None:
        """Keep the best checkpoint, and write down that this validation took place."""
        if self.out_dir is None or not self.save_best:
            return  # a validation by itself
        runner.message_hub.update_info('validated_iter', runner.iter)
        if metrics:
            self._save_best(runner, metrics)
        else:
            runner.logger.warning('The validation gave no figures: no best checkpoint is kept.')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """The count that is saved: ``FlexibleRunner`` writes its loop's plus one, also after the
        loop has counted on."""
        if self._saved_as is not None:
            checkpoint['meta'].update(self._saved_as)

    def save(self, runner, step: int, meta: dict) -> None:
        """Write ``iter_STEP.pth``, then delete the oldest.

        Args:
            step: iterations (or epochs, with ``by_epoch``) whose updates the weights hold.
            meta: ``epoch`` and ``iter`` to go on from.
        """
        hub, surplus = runner.message_hub, []
        if self.max_keep_ckpts > 0:
            if self.keep_ckpt_ids[-1:] != [step]:
                self.keep_ckpt_ids.append(step)
            # with those to be deleted: where that is not done, a resume does it
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            surplus = self.keep_ckpt_ids[:-self.max_keep_ckpts]
        name = self.filename_tmpl.format(step)
        self._last_step, self.last_ckpt = step, os.path.join(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        self._save_whole(runner, name, meta, by_epoch=self.by_epoch,
                         save_optimizer=self.save_optimizer,
                         save_param_scheduler=self.save_param_scheduler, **self.args)
        if is_main_process():
            with _named_errors('last_checkpoint'):
                replace_text(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        self._delete(os.path.join(self.out_dir, self.filename_tmpl.format(old)) for old in surplus)
        if surplus:
            del self.keep_ckpt_ids[:len(surplus)]
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best(self, runner, metrics: dict) -> None:
        """Write the best checkpoint, then the newest anew, which knows of it; then delete the
        best one before."""
        if 'auto' in self.key_indicators:
            first = next(iter(metrics))
            known = CheckpointHook(save_best=first, rule=self.rules[0],
                                   greater_keys=self.greater_keys, less_keys=self.less_keys)
            self.key_indicators, self.rules = known.key_indicators, known.rules
            self.is_better_than = known.is_better_than
        hub, step = runner.message_hub, runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        obsolete, first = [], next(iter(self._names()))
        improved = False
        for (key, (score_key, path_key)), rule in zip(self._names().items(), self.rules):
            best = hub.runtime_info.get(score_key, self.init_value_map[rule])
            score = metrics[key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            improved = True
            name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
            path = os.path.join(self.out_dir, name)
            if (old := self._best(key)) and old != path:
                obsolete.append(old)
            hub.update_info('obsolete_ckpts', list(obsolete))
            hub.update_info(score_key, score)
            hub.update_info(path_key, path)
            self._set_best(key, path)
            self._save_whole(runner, name, meta, by_epoch=False, save_optimizer=False,
                             save_param_scheduler=False)
            if is_main_process() and key == first:
                with _named_errors('best_checkpoint'):
                    replace_text(Path(runner.work_dir, 'best_checkpoint'), path)
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {step} is saved '
                               f'to {name}.')
        if self._last_step == step or (improved and self.last_ckpt is not None):
            self.save(runner, step, meta)
        self._delete(obsolete)
        hub.update_info('obsolete_ckpts', [])

    def _save_whole(self, runner, name: str, meta: dict, **options) -> None:
        """The runner's ``save_checkpoint``, aside and then renamed."""
        aside, path = Path(self.out_dir, f'.{name}.partial'), Path(self.out_dir, name)
        if is_main_process():
            _remove(aside)
        barrier()
        with _named_errors(name, aside):
            self._saved_as = meta
            try:
                runner.save_checkpoint(self.out_dir, aside.name, self.file_client_args,
                                       meta=dict(meta), backend_args=self.backend_args, **options)
            finally:
                self._saved_as = None
            barrier()
            if is_main_process():
                move_into_place(aside, path)
        barrier()

    def _delete(self, paths) -> None:
        """Those of this run's folder alone: a resumed run may have begun in another."""
        if not is_main_process():
            return
        for path in map(Path, paths):
            if path.parent == Path(self.out_dir) and str(path) not in (
                    self.last_ckpt, *map(self._best, self._names())):
                _remove(path)

    # --- one or several indicators: MMEngine names them differently -----------------------------
    def _names(self) -> dict[str, tuple]:
        """Each indicator's keys of its score and path in the message hub."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {self.key_indicators[0]: ('best_score', 'best_ckpt')}
        return {key: (f'best_score_{key}', f'best_ckpt_{key}') for key in self.key_indicators}

    def _best(self, key: str) -> str | None:
        return (self.best_ckpt_path if len(self.key_indicators) == 1
                else self.best_ckpt_path_dict.get(key))

    def _set_best(self, key: str, path: str | None) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path


def lacks_validation(runner) -> bool:
    """Whether a resumed run begins where a validation is due that did not take place."""
    loop = runner.train_loop
    if not loop.iter or runner.val_loop is None:
        return False
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, loop.iter + 1) - 1]
    due = loop.iter >= loop.val_begin and (
        loop.iter % interval == 0 or loop.iter == loop.max_iters)
    return due and runner.message_hub.runtime_info.get('validated_iter') != loop.iter


@contextmanager
def _named_errors(name: str, aside: Path | None = None) -> Iterator[None]:
    """Within, what fails for a full disk and the like leaves nothing and says so in one line."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        if aside is not None:
            _remove(aside)
        if isinstance(error, CheckpointException):  # of a folder: one for each process
            causes = [cause for cause, _ in error.failures.values() if isinstance(cause, OSError)]
            if not causes:
                raise
            error = causes[0]
        code = error.errno or errno.EIO
        raise OSError(code, f'{name} was not written: {os.strerror(code)}. The checkpoints before '
                      'it are whole: mend that, and go on with --resume') from None


def _tidy(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob('.*.pth.replaced'):
        whole = folder / path.name[1:-len('.replaced')]
        if whole.exists():
            _remove(path)
        else:
            path.rename(whole)
    for path in folder.glob('.*.partial'):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
