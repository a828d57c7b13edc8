"""What of its general ability a model keeps while it learns to segment."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from simpleseg_mm.evaluation import check_metric_names
from simpleseg_mm.registry import HOOKS
from ..look_ahead import look_ahead
from .randomness import undisturbed


@HOOKS.register_module()
class RetentionHook(Hook):
    """Score a fixed set of questions before training, at an interval, and at its end.

    The questions are the config's ``retention_dataloader``, the metrics its
    ``retention_evaluator`` (``configs/_base_/retention/``). Logged are the figures as
    ``retention/NAME``, and as ``retention/change/NAME`` how far they have moved since the start.
    The figures of the start go into the checkpoints, so that a resumed run still knows them. The
    run is not changed: the global generators and the model's mode are put back.

    Args:
        interval: in iterations. -1: before and after training only.

    Raises:
        ValueError: at the start of training, where the config has no such set.
    """

    priority = 'LOW'

    def __init__(self, interval: int = -1):
        self.interval = interval
        self._start: dict[str, float] | None = None
        self._loader = self._evaluator = self._scored_at = None

    def before_train(self, runner) -> None:
        faults = [key for key in ('retention_dataloader', 'retention_evaluator')
                  if not runner.cfg.get(key)]
        if faults:
            raise ValueError(f'RetentionHook needs {" and ".join(faults)} in the config: add a '
                             "piece such as '../_base_/retention/refshapes.py' to its _base_")
        self._loader = Runner.build_dataloader(runner.cfg.retention_dataloader, seed=runner.seed)
        self._evaluator = runner.build_evaluator(runner.cfg.retention_evaluator)
        check_metric_names(self._evaluator.metrics)
        self._evaluator.dataset_meta = self._loader.dataset.metainfo
        if self._start is None:
            self._score(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._score(runner, runner.iter + 1)

    def after_train(self, runner) -> None:
        if self._scored_at != runner.iter:
            self._score(runner, runner.iter)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['retention_start'] = self._start

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner.cfg.get('resume'):
            self._start = checkpoint['meta'].get('retention_start')

    def _score(self, runner, step: int) -> None:
        loader = self._loader
        with undisturbed(runner.model) as model:
            for batch in look_ahead(loader, model):
                self._evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
            figures = self._evaluator.evaluate(len(loader.dataset))
        figures = {name.removeprefix('retention/'): float(value)
                   for name, value in figures.items()}
        self._scored_at = step
        if self._start is None:
            self._start = figures
        changes = {name: value - self._start[name] for name, value in figures.items()
                   if name in self._start}
        runner.visualizer.add_scalars(
            {f'retention/{name}': value for name, value in figures.items()}
            | {f'retention/change/{name}': value for name, value in changes.items()}, step=step)
        runner.logger.info(f'Retention at {step}, {len(loader.dataset)} questions: ' + '  '.join(
            f'{name}: {value:.2f} ({changes.get(name, 0):+.2f})'
            for name, value in figures.items()))
