"""SFT's loop: MMEngine's, whose iterations are updates of a global batch, encoded ahead."""
import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from ..config import accumulated_batches
from ..registry import LOOPS
from .global_batch import PartOfUpdate, accumulating, batches_an_update, merged
from .prefetch import Prefetcher
from .sharding import unwrap


@LOOPS.register_module()
class SFTTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` of updates that each see ``global_batch_size`` samples.

    An iteration is an update: it takes as many batches of the loader as that needs on the
    processes there are and adds up their gradients. So ``max_iters``, ``val_interval``, learning
    rate schedules and the hooks' intervals mean the same on any number of processes.

    While the network works on a batch, a thread fetches the next from the loader, resizes its
    pictures and tokenizes its texts (``SimpleSeg.encode``); batches, their order and their
    numbers are unchanged. Nothing else is encoded meanwhile: the first batch is encoded before
    its step, and the thread rests while hooks and validation run.

    Args:
        global_batch_size: samples an update; None or 0: one batch of each process.
        runner, dataloader, **kwargs: as for ``IterBasedTrainLoop``.

    Raises:
        ValueError: at construction, ``global_batch_size`` cannot be reached, or the config's
            ``optim_wrapper`` accumulates as well.
    """

    def __init__(self, runner, dataloader, global_batch_size: int | None = None,
                 **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        size, processes = self.dataloader.batch_size or 1, get_world_size()
        #: batches of a process that make an update
        self.batches = batches_an_update(global_batch_size, size, processes)
        self.samples_per_iter = processes * size * self.batches
        if global_batch_size:
            refuse_accumulation(runner.cfg)
            print_log(f'{global_batch_size} samples an update = {processes} process(es) x {size} '
                      f'x {self.batches} accumulated batches; iterations count updates.',
                      logger='current')
        self.dataloader_iterator = Prefetcher(self.dataloader_iterator, self._encoded,
                                              self.batches)

    def _encoded(self, data_batch: dict) -> dict:
        encoded = unwrap(self.runner.model).encode(data_batch['inputs'],
                                                   data_batch['data_samples'])
        return dict(data_batch, encoded=encoded)

    def run_iter(self, data_batch: dict) -> None:
        """One update, and beside each of its steps the next batch's encoding."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self.iter, data_batch=data_batch)
        seen, outputs = [], []
        for i in range(self.batches):
            last = i == self.batches - 1
            if i:
                data_batch = next(self.dataloader_iterator)
            if not last or self.iter + 1 < self.max_iters:
                self.dataloader_iterator.begin()
            outputs.append(self._step(data_batch, last))
            self.dataloader_iterator.wait()
            seen.append({key: data_batch[key] for key in ('inputs', 'data_samples')})
        runner.call_hook('after_train_iter', batch_idx=self.iter, data_batch=merged(seen),
                         outputs=_of_update(outputs))
        self._iter += 1

    def _step(self, data_batch: dict, last: bool) -> dict[str, Tensor]:
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        if self.batches == 1:
            return model.train_step(data_batch, optim_wrapper=wrapper)
        with accumulating(model, last):
            return model.train_step(data_batch, optim_wrapper=PartOfUpdate(
                wrapper, self.batches, last))


def refuse_accumulation(cfg) -> None:
    """
    Raises:
        ValueError: the config's ``optim_wrapper`` accumulates beside ``global_batch_size``.
    """
    if accumulated_batches(cfg) != 1:
        raise ValueError('Give train_cfg.global_batch_size or optim_wrapper.accumulative_counts, '
                         'not both.')


def _of_update(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Figures of an update from those of its batches: ``*_tokens`` are sums, ``token_accuracy``
    is of all answer tokens, and all others, as the loss, are means."""
    if len(outputs) == 1:
        return outputs[0]
    figures = {}
    for name in outputs[0]:
        values = [row[name] for row in outputs]
        if name == 'token_accuracy' and 'answer_tokens' in outputs[0]:
            weights = [row['answer_tokens'] for row in outputs]
            figures[name] = (sum(v * w for v, w in zip(values, weights))
                             / torch.stack(weights).sum().clamp(min=1))
        else:
            figures[name] = sum(values) / (1 if name.endswith('_tokens') else len(values))
    return figures
