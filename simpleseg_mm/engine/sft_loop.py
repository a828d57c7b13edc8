"""SFT's loop: MMEngine's, with pictures and texts of the next batch prepared beside the step."""
from mmengine.runner import IterBasedTrainLoop

from ..registry import LOOPS
from .prefetch import Prefetcher
from .sharding import unwrap


@LOOPS.register_module()
class SFTTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that prefetches encoded batches.

    While the network works on a batch, a thread fetches the next from the loader, resizes its
    pictures and tokenizes its texts (``SimpleSeg.encode``); batches, their order and their
    numbers are unchanged. Nothing else is encoded meanwhile: the first batch is encoded before
    its step, and the thread rests while hooks and validation run.
    Arguments as for ``IterBasedTrainLoop``.
    """

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.dataloader_iterator = Prefetcher(self.dataloader_iterator, self._encoded)

    def _encoded(self, data_batch: dict) -> dict:
        encoded = unwrap(self.runner.model).encode(data_batch['inputs'],
                                                   data_batch['data_samples'])
        return dict(data_batch, encoded=encoded)

    def run_iter(self, data_batch: dict) -> None:
        """One step, and the next batch's encoding beside it."""
        self.runner.call_hook('before_train_iter', batch_idx=self.iter, data_batch=data_batch)
        if self.iter + 1 < self.max_iters:
            self.dataloader_iterator.begin()
        outputs = self.runner.model.train_step(data_batch,
                                               optim_wrapper=self.runner.optim_wrapper)
        self.dataloader_iterator.wait()
        self.runner.call_hook('after_train_iter', batch_idx=self.iter, data_batch=data_batch,
                              outputs=outputs)
        self._iter += 1
