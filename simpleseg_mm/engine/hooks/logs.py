"""What the log says of a training run: global losses, throughput, time left, bad numbers."""
import json
import math
import os.path as osp
import sys
from collections import deque
from contextlib import ExitStack, nullcontext
from functools import cached_property

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from simpleseg_mm.registry import HOOKS


@HOOKS.register_module()
class ReduceLogsHook(Hook):
    """Let the log show all processes' batch, where MMEngine shows the first process's.

    Of the values that the model returns, ``*_tokens`` are summed over the processes,
    ``token_accuracy`` is averaged by ``answer_tokens``, and all others are averaged.
    """

    priority = 'HIGHEST'

    @cached_property
    def _stream(self):
        return torch.cuda.Stream()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs: dict | None = None) -> None:
        if get_world_size() == 1 or not outputs:
            return
        names = sorted(name for name, value in outputs.items() if torch.is_tensor(value))
        if not names:
            return
        values = {name: outputs[name].detach().double().cpu() for name in names}
        weight = values.get('answer_tokens')
        weighted = weight is not None and 'token_accuracy' in values
        if weighted:
            values['token_accuracy'] = values['token_accuracy'] * weight
        total = torch.stack([values[name].reshape(()) for name in names])
        # Numbers that have been read need not wait for the backward pass, which is queued.
        with torch.cuda.stream(self._stream) if torch.cuda.is_available() else nullcontext():
            all_reduce(total)
        totals = dict(zip(names, total))
        for name in names:
            if weighted and name == 'token_accuracy':
                outputs[name] = totals[name] / totals['answer_tokens'].clamp(min=1)
            elif name.endswith('_tokens'):
                outputs[name] = totals[name]
            else:
                outputs[name] = totals[name] / get_world_size()


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``samples_per_s``, ``tokens_per_s`` and ``answer_tokens_per_s`` of all processes.

    The rates are sums over the last ``window`` iterations divided by their wall time, loading
    included, validation excluded. Token counts are the model's outputs ``sequence_tokens`` and
    ``answer_tokens``, summed over processes by ``ReduceLogsHook``.
    """

    def __init__(self, window: int = 10):
        self._window: deque = deque(maxlen=window)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs: dict | None = None) -> None:
        row = dict(seconds=runner.message_hub.get_scalar('train/time').current())
        if isinstance(data_batch, dict) and 'inputs' in data_batch:
            row['samples_per_s'] = len(data_batch['inputs']) * get_world_size()
        for key, name in [('sequence_tokens', 'tokens_per_s'),
                          ('answer_tokens', 'answer_tokens_per_s')]:
            if outputs and key in outputs:
                row[name] = float(outputs[key])
        self._window.append(row)
        seconds = sum(r['seconds'] for r in self._window)
        for name in row:
            if name != 'seconds' and seconds > 0:
                rate = sum(r.get(name, 0) for r in self._window) / seconds
                runner.message_hub.update_scalar(f'train/{name}', rate)


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Stop at the first loss or gradient norm that is not finite and write down its batch.

    Raises:
        FloatingPointError: naming the file with the ids of the batch's samples. A gradient norm
            is not judged under mixed precision, where the scaler skips such steps.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs: dict | None = None) -> None:
        values = {name: value.item() if torch.is_tensor(value) else float(value)
                  for name, value in (outputs or {}).items() if 'loss' in name}
        if not hasattr(runner.optim_wrapper, 'loss_scaler') and (
                'train/grad_norm' in runner.message_hub.log_scalars):
            values['grad_norm'] = runner.message_hub.get_scalar('train/grad_norm').current()
        bad = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        if not bad:
            return
        path = osp.join(runner.work_dir, f'nonfinite_iter_{runner.iter + 1}_rank{get_rank()}.json')
        keys = ('img_id', 'img_path', 'text', 'task')
        samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
        with open(path, 'w') as file:
            json.dump(dict(iter=runner.iter + 1, values=bad, samples=[
                {key: sample.get(key) for key in keys} for sample in samples]), file, indent=1)
        raise FloatingPointError(
            f'{bad} at iteration {runner.iter + 1}; its batch is listed in {path}. Try a lower '
            'learning rate, clip_grad, or float32, and look at those samples.')


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A bar with the time left for training, validation and testing, on a terminal only.

    Elsewhere nothing is printed: the logger's lines carry the time left (``eta``).
    """

    def __init__(self):
        self._bars: dict = {}
        self._stack = ExitStack()

    def _open(self, mode: str, total: int, initial: int, runner) -> None:
        if not (is_main_process() and sys.stderr.isatty()):
            return
        if not self._bars:  # keep log lines and bars apart
            self._stack.enter_context(logging_redirect_tqdm([runner.logger]))
        self._bars[mode] = tqdm(desc=mode, total=total, initial=initial, dynamic_ncols=True,
                                leave=mode == 'train')

    def _close(self, mode: str) -> None:
        if mode in self._bars:
            self._bars.pop(mode).close()
            if not self._bars:
                self._stack.close()

    def before_train(self, runner) -> None:
        self._open('train', runner.max_iters, runner.iter, runner)

    def before_val_epoch(self, runner) -> None:
        self._open('val', len(runner.val_dataloader), 0, runner)

    def before_test_epoch(self, runner) -> None:
        self._open('test', len(runner.test_dataloader), 0, runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if 'train' in self._bars and outputs and 'loss' in outputs:
            self._bars['train'].set_postfix(loss=f"{outputs['loss'].item():.4f}", refresh=False)
        self._advance('train')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance('val')

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance('test')

    def _advance(self, mode: str) -> None:
        if mode in self._bars:
            self._bars[mode].update()

    def after_train(self, runner) -> None:
        self._close('train')

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._close('val')

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._close('test')
