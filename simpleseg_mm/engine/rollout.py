"""Rollouts: who writes the answers that reinforcement learning learns from."""
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from .. import stopping
from ..models.sampling import Sampling
from ..registry import ROLLOUTS
from ..structures import Generated


class RolloutEngine(ABC):
    """Writes G answers to each prompt with the policy's present weights.

    Another engine, such as :class:`simpleseg_mm.engine.vllm_rollout.VLLMRollout`, takes over the
    weights in :meth:`sync`. The loop works out the log-probabilities of whatever it gets with the
    training forward, so an engine need not give any.
    """
    #: temperature that the answers are drawn at; the loop's log-probabilities divide by it
    temperature: float = 1.0
    #: whether ``token_logps`` of the answers are those of an engine of its own, at
    #: ``temperature``; the loop then compares them with the training forward's
    gives_logps: bool = False

    def sync(self, model) -> None:
        """Called before each rollout; ``model`` is the unwrapped SimpleSeg."""

    @abstractmethod
    def generate(self, model, images: Sequence[Tensor], prompts: Sequence[str], group_size: int,
                 seeds: Sequence[Sequence[int]], forms: Sequence | None = None
                 ) -> list[list[Generated]]:
        """Answers, ``group_size`` to each of P prompts, with their token ids.

        Args:
            model: the unwrapped SimpleSeg.
            images: P uint8 tensors (3, H, W), RGB.
            prompts: P prompts.
            group_size: G.
            seeds: P * G tuples of non-negative integers, one an answer, prompt by prompt.
            forms: P grammars of the answers (``AnswerAutomaton``), ``None`` for free text: an
                engine may write faster by them, but must not change what is drawn.
        """


def whole_vocabulary(sampling: dict) -> None:
    """Takes ``constrain`` out of the settings of a rollout; ValueError where it is asked for."""
    if sampling.pop('constrain', False):
        raise ValueError('constrain=True: rollouts are drawn from the whole vocabulary, as the '
                         'log-probabilities of the update are; the reward `format` teaches the '
                         'grammar. Leave constrain out; model.generation takes it for validation '
                         'and test')


@ROLLOUTS.register_module()
class InProcessRollout(RolloutEngine):
    """Samples from the model that is being trained: no copy of the weights, no other engine.

    Args:
        batch_size: prompts that are decoded at a time; ``None``: all. The next begin in the rows
            of answers that have ended.
        draft: check likely punctuation instead of writing it; the answers are the same.
        sampling: arguments of :class:`simpleseg_mm.models.sampling.Sampling`.

    Raises:
        ValueError: for ``constrain``: the loop's log-probabilities are those of the whole
            vocabulary, so answers drawn from a part of it would be learnt from with wrong ratios.
    """

    def __init__(self, batch_size: int | None = None, draft: bool = True, **sampling) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: a positive number of prompts, or None')
        whole_vocabulary(sampling)
        self.batch_size = batch_size
        self.draft = draft
        self.sampling = Sampling(**sampling)
        self.temperature = self.sampling.temperature

    def generate(self, model, images, prompts, group_size, seeds, forms=None):
        return model.sample(images, prompts, group_size, seeds, self.sampling, forms=forms,
                            batch_size=self.batch_size, draft=self.draft,
                            on_tokens=lambda *_: bool(stopping.asked()))
