"""Hooks that let a person see what is trained on and what is learnt."""
import os.path as osp

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from simpleseg_mm.files import replace_text
from simpleseg_mm.registry import HOOKS

from ..sharding import unwrap
from .randomness import preserve_rng, undisturbed


@HOOKS.register_module()
class FirstBatchHook(Hook):
    """Show the first batch as the model reads it, with the tokens that are learnt marked.

    The text is what ``model.describe_batch(inputs, data_samples)`` returns for each sample. The
    first goes to the log, all go to ``first_batch.txt`` in the work directory. A model without
    that method is left alone.
    """

    def __init__(self):
        self._done = False

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if self._done or not is_main_process():
            return
        self._done = True
        model = unwrap(runner.model)
        if not hasattr(model, 'describe_batch'):
            return
        with preserve_rng(), torch.no_grad():
            batch = model.data_preprocessor(data_batch, True)
            texts: list[str] = model.describe_batch(batch['inputs'], batch['data_samples'])
        path = osp.join(runner.work_dir, 'first_batch.txt')
        replace_text(path, '\n\n'.join(f'--- {i} ---\n{text}'
                                       for i, text in enumerate(texts)) + '\n')
        runner.logger.info(f'The first of {len(texts)} samples of the first batch, learnt tokens '
                           f'marked (all are in {path}):\n{texts[0]}')


@HOOKS.register_module()
class SampleGenerationHook(Hook):
    """Answer the same few validation queries during training, as pictures and in the log.

    The queries are spread evenly over the validation set. The pictures are the visualizer's. The
    run is not changed: the global generators and the model's mode are put back.

    Args:
        interval: in iterations; the first answers come before the first step. -1: never.
        num_samples: how many queries.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500, num_samples: int = 4):
        if num_samples < 1:
            raise ValueError(f'num_samples={num_samples}: at least 1; interval=-1 switches off.')
        self.interval = interval
        self.num_samples = num_samples

    def before_train(self, runner) -> None:
        if self.interval > 0:
            self._generate(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._generate(runner, runner.iter + 1)

    def _generate(self, runner, step: int) -> None:
        if runner.val_loop is None:
            return
        with undisturbed(runner.model) as model:
            if is_main_process():
                self._answer(runner, model, step)

    def _answer(self, runner, model, step: int) -> None:
        loader = runner.val_loop.dataloader
        count = min(self.num_samples, len(loader.dataset))
        items = [loader.dataset[i * len(loader.dataset) // count] for i in range(count)]
        samples = model.val_step(loader.collate_fn(items))
        for i, (item, sample) in enumerate(zip(items, samples)):
            image = item['inputs'].permute(1, 2, 0).numpy()
            runner.visualizer.add_datasample(f'sample_{i}', image, data_sample=sample.cpu(),
                                             draw_gt=True, draw_pred=True, step=step)
            runner.logger.info(f"Sample {i} at {step}: {sample.get('prompt')} -> "
                               f"{sample.get('pred_text')}")
