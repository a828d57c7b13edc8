"""Validation and test of a model whose weights are split over processes."""
from contextlib import ExitStack

from mmengine.hooks import Hook

from simpleseg_mm.registry import HOOKS

from ..sharding import whole_weights


@HOOKS.register_module()
class WholeWeightsHook(Hook):
    """Gather a split model's weights while it is validated or tested.

    Answers have different lengths, so that processes run different numbers of passes, which
    split weights cannot serve. See :func:`simpleseg_mm.engine.whole_weights`.
    """

    priority = 'VERY_HIGH'  # split again before a checkpoint of the best is written

    def __init__(self) -> None:
        self._stack = ExitStack()

    def before_val_epoch(self, runner) -> None:
        self._stack.enter_context(whole_weights(runner.model))

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._stack.close()

    def before_test_epoch(self, runner) -> None:
        self.before_val_epoch(runner)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.after_val_epoch(runner)
