"""How the network of an adapter writes answers: by our own loop, or by transformers'."""
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ...polygon import AnswerAutomaton
from ..decoding import Answer, OnTokens, write_answers
from ..generation import greedy_rules
from ..guide import Guide, Spelling
from ..sampling import Drawn, Likeliest, Sampling


@dataclass(frozen=True)
class Generated:
    """One generated answer.

    Attributes:
        text: the answer without its end token.
        num_tokens: tokens written, the end token included.
        finished: whether the network ended the answer; False: it was cut at ``max_new_tokens`` or,
            where constrained, completed before.
        token_ids: the tokens themselves.
        token_logps: log-probability of each token by the network, in nats: over the whole
            vocabulary, at temperature 1, whatever was banned or constrained. Empty where
            transformers' own ``generate`` wrote the answer. Two answers are equal whatever these
            are: rounding differs with the batch.
    """
    text: str
    num_tokens: int
    finished: bool
    token_ids: tuple[int, ...] = ()
    token_logps: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @property
    def confidence(self) -> float:
        """Mean probability of the tokens; NaN where their log-probabilities are not known."""
        logps = self.token_logps
        return sum(map(math.exp, logps)) / len(logps) if logps else math.nan


class AnswerWriter:
    """The half of :class:`MLLMAdapter` that writes answers.

    Of the other it uses the network ``hf``, its ``head_weight``, ``tokenizer``, ``device``,
    ``to_device``, ``_run``, ``_ids`` and the special tokens.
    """

    def prefill(self, batch: dict[str, Tensor]):
        """Read left-padded prompts.

        Returns:
            hidden state of each last token (B, D), the cache, and the position (B,) of the next
            token.
        """
        position = batch['attention_mask'].sum(1)
        if self._has_mrope:  # works out its positions from the mask
            output = self._run(batch, use_cache=True)
            position = position + self.hf.model.rope_deltas.view(-1).to(position)
        else:
            position_ids = (batch['attention_mask'].cumsum(1) - 1).clamp(min=0)
            output = self._run(batch, use_cache=True, position_ids=position_ids)
        return output.last_hidden_state[:, -1], output.past_key_values, position

    def decode(self, tokens: Tensor, mask: Tensor, position: Tensor, cache) -> Tensor:
        """Hidden states (R, T, D) after T more tokens a row; the cache takes them in.

        Args:
            tokens: (R, T) ids.
            mask: attention mask (R, L), the new tokens included, or (R, 1, T, L).
            position: (R, T) of the new tokens.
        """
        if self._has_mrope:  # time, height, width
            position = position.expand(3, *position.shape)
        decoder = self.hf.get_decoder()  # without a look for pictures, pass after pass
        return decoder(inputs_embeds=self.hf.get_input_embeddings()(tokens), attention_mask=mask,
                       position_ids=position, past_key_values=cache,
                       use_cache=True).last_hidden_state

    @cached_property
    def passes_run(self) -> set[tuple[int, int]]:
        """(rows, tokens) of the passes of decoding so far that can be recorded."""
        return set()

    @property
    def can_replay(self) -> bool:
        """Whether passes of decoding can be recorded as CUDA graphs: on a GPU, with weights that
        lie there as they are (not split, not in few bits), and no experts to route to."""
        text = self.hf.config.get_text_config()
        experts = (getattr(text, name, None) for name in ('num_experts', 'n_routed_experts'))
        return self.device.type == 'cuda' and not any(experts) and all(
            type(p) is nn.Parameter and not hasattr(p, 'ds_id') for p in self.hf.parameters())

    @property
    def _has_mrope(self) -> bool:
        return hasattr(self.hf.model, 'rope_deltas')

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) float32 of hidden states (..., D)."""
        return (hidden @ self.head_weight.T).float()

    def guides(self, forms: Sequence[AnswerAutomaton | None], constrain: bool
               ) -> list[Guide | None]:
        """Each answer's grammar in this tokenizer's tokens; ``None`` for free text, and where the
        vocabulary cannot spell the grammar.

        Raises:
            ValueError: to ``constrain``, the vocabulary must spell it.
        """
        for form in set(forms) - {None, *self._guides}:
            try:
                self._guides[form] = Guide(form, self._spelling, self._ids, self.stop_tokens)
            except ValueError:
                if constrain:
                    raise
        return [self._guides.get(form) for form in forms]

    @cached_property
    def _guides(self) -> dict[AnswerAutomaton, Guide]:
        return {}

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self.tokenizer, self.head_weight.shape[0])

    def sample(self, batch: dict[str, Tensor], group_size: int,
               seeds: Sequence[Sequence[int]], sampling: Sampling, **options
               ) -> list[list[Generated]]:
        """``group_size`` sampled answers to each prompt of a left-padded batch.

        Args:
            batch: from :meth:`encode` with ``for_generation``.
            group_size: answers a prompt.
            seeds: B * group_size tuples of non-negative integers, one an answer.
            sampling: how tokens are drawn.
            options: ``guides``, ``draft`` and ``on_tokens`` of :func:`write_answers`.
        """
        count = len(batch['input_ids']) * group_size
        if len(seeds) != count:
            raise ValueError(f'{len(seeds)} seeds for {count} answers: give one an answer')
        batch = self.to_device(batch)
        with self.generating():
            written = write_answers(self, batch, Drawn(seeds, sampling), sampling.max_new_tokens,
                                    group_size, **options)
        answers = [self._finish(answer) for answer in written]
        return [answers[i:i + group_size] for i in range(0, len(answers), group_size)]

    @torch.no_grad()
    def generate(self, batch: dict[str, Tensor], guides: Sequence = (), draft: bool = True,
                 constrain: bool = False, on_tokens: OnTokens | None = None, **options
                 ) -> list[Generated]:
        """Answers to a left-padded batch, one a prompt.

        Args:
            batch: from :meth:`encode` with ``for_generation``.
            guides, draft, constrain, on_tokens: of :func:`write_answers`.
            options: keys of ``transformers.GenerationConfig``; see :func:`greedy_rules` for those
                that leave the writing to transformers.
        """
        limit = options.get('max_new_tokens')
        if limit is not None and limit < 1:
            raise ValueError(f'max_new_tokens={limit}: at least 1')
        batch = self.to_device(batch)
        rules = greedy_rules(self.hf.generation_config, options, batch['attention_mask'])
        with self.generating():
            if rules is not None:
                choose = Likeliest(rules, batch['input_ids'])
                written = write_answers(self, batch, choose, limit, 1, guides, draft, constrain,
                                        on_tokens)
                return [self._finish(answer) for answer in written]
            if constrain:
                raise ValueError(f'constrained decoding is greedy, without beams; not with '
                                 f'{options}')
            # Without synced_gpus: of split weights every process has all while it generates.
            banned = [*self.banned_tokens, *(options.pop('suppress_tokens', None) or ())]
            output = self.hf.generate(
                **batch, synced_gpus=False, pad_token_id=self.pad_token_id,
                eos_token_id=self.stop_tokens, suppress_tokens=banned,
                use_cache=True, **options)
        answers = [self._read(row) for row in output[:, batch['input_ids'].shape[1]:].tolist()]
        for row, answer in enumerate(answers if on_tokens else ()):
            on_tokens(row, answer.token_ids)
        return answers

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Dropout off; gradient checkpointing would also forbid the cache."""
        training = self.hf.training
        self.hf.eval()
        try:
            yield
        finally:
            self.hf.train(training)

    def _read(self, ids: list[int]) -> Generated:
        stops = set(self.stop_tokens)
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=False,
                                     clean_up_tokenization_spaces=False)
        written = tuple(ids if end is None else ids[:end + 1])
        return Generated(text, len(written), end is not None, written)

    def _finish(self, answer: Answer) -> Generated:
        read = self._read(answer.tokens)
        return replace(read, token_logps=tuple(answer.logps),
                       finished=read.finished and not answer.hurried)
