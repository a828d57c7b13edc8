"""A test whose answers another engine writes."""
from mmengine.hooks import Hook
from mmengine.logging import print_log

from simpleseg_mm.engines.answers import EngineAnswers, greedy_keywords
from simpleseg_mm.engines.vllm import VLLMEngine
from simpleseg_mm.registry import HOOKS

from ..sharding import unwrap


@HOOKS.register_module()
class EngineAnswersHook(Hook):
    """vLLM in this process writes the answers of a test, with the weights that were loaded. Loop,
    metrics, dumps and pictures are the same; nothing else reads or writes answers.

    Args:
        options: keywords of ``vllm.LLM``.
    """

    priority = 'LOW'  # whole weights are gathered before

    def __init__(self, options: dict | None = None) -> None:
        self.options = options or {}

    def before_test_epoch(self, runner) -> None:
        model = unwrap(runner.model)
        greedy_keywords(model.generation)  # before an engine starts
        answers = EngineAnswers(model, VLLMEngine(model, **self.options))
        model.answer, model.answer_stream = answers.answer, answers.stream
        model.group_stream = answers.groups
        print_log('Answers are written by vLLM', 'current')

    def after_test_epoch(self, runner, metrics=None) -> None:
        model = unwrap(runner.model)
        del model.answer, model.answer_stream, model.group_stream
