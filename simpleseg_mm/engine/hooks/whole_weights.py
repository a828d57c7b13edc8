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

    def _before_epoch(self, runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._stack.enter_context(whole_weights(runner.model))

    def _after_epoch(self, runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._stack.close()
