"""How a network writes answers: by our own loop, or by transformers'."""
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..polygon import AnswerAutomaton
from ..structures import Generated
from .decoding import OnTokens, OpenAnswer, Take, in_order, write_answers
from .encoder import Encoder
from .generation import greedy_rules
from .guide import Guide, Spelling
from .network import Network
from .sampling import Drawn, FirstLikeliest, Likeliest, Sampling


class Writer:
    """Writes answers with a network: greedy or sampled, with drafts and constraints.

    Args:
        network: reads prompts and answers.
        encoder: knows the tokens.
    """

    def __init__(self, network: Network, encoder: Encoder) -> None:
        self.network, self.encoder = network, encoder
        self._guides: dict[AnswerAutomaton, Guide] = {}
        self._spellings: dict[bool, Spelling] = {}

    @property
    def banned_tokens(self) -> list[int]:
        """Ids that break the network when written."""
        return self.encoder.family.banned_tokens

    @property
    def stop_tokens(self) -> list[int]:
        """Every id that ends an answer: the encoder's and the generation config's."""
        listed = self.network.hf.generation_config.eos_token_id
        listed = listed if isinstance(listed, list) else [listed]
        size = self.network.hf.get_input_embeddings().num_embeddings
        return sorted({*self.encoder.end_token_ids,
                       *(i for i in listed if type(i) is int and 0 <= i < size)})

    def generation_settings(self) -> dict[str, Any]:
        """Content of the ``generation_config.json`` of an exported folder, by which transformers
        and vLLM, which knows no ``do_sample``, write what :meth:`generate` does."""
        tokenizer = self.encoder.tokenizer
        end = tokenizer.eos_token_id
        return dict(bos_token_id=self.network.hf.generation_config.bos_token_id,
                    eos_token_id=[end, *(i for i in self.stop_tokens if i != end)],
                    pad_token_id=self.encoder.pad_token_id, do_sample=False, temperature=0.0,
                    repetition_penalty=1.0)

    # --- passes of the network ----------------------------------------------------------------
    def prefill(self, batch: dict[str, Tensor]):
        """Read left-padded prompts.

        Returns:
            hidden state of each last token (B, D), the KV cache, and the position (B,) of the
            next token.
        """
        positions = self.network.positions(batch)
        output = self.network.run(batch, use_cache=True, position_ids=positions)
        following = positions.amax(0) if positions.ndim == 3 else positions
        return (output.last_hidden_state[:, -1], output.past_key_values,
                following.amax(1) + 1)

    def decode(self, tokens: Tensor, mask: Tensor, position: Tensor, cache, **more) -> Tensor:
        """Hidden states (R, T, D) after T more tokens a row; the KV cache takes them in.

        Args:
            tokens: (R, T) ids.
            mask: attention mask (R, L), the new tokens included, or (R, 1, T, L).
            position: (R, T) of the new tokens.
            more: goes to the network's attention.
        """
        hf = self.network.hf
        if hasattr(hf.model, 'get_rope_index'):  # time, height, width
            position = position.expand(3, *position.shape)
        decoder = hf.get_decoder()  # without a look for pictures, pass after pass
        return decoder(inputs_embeds=hf.get_input_embeddings()(tokens), attention_mask=mask,
                       position_ids=position, past_key_values=cache, use_cache=True,
                       **more).last_hidden_state

    # --- grammars -----------------------------------------------------------------------------
    def guides(self, forms: Sequence[AnswerAutomaton | None], constrain: bool
               ) -> list[Guide | None]:
        """Each answer's grammar in this tokenizer's tokens; ``None`` for free text, and where the
        vocabulary cannot spell the grammar.

        Raises:
            ValueError: to ``constrain``, the vocabulary must spell it.
        """
        for form in set(forms) - {None, *self._guides}:
            try:
                self._guides[form] = Guide(form, self._spelling(form.named),
                                           self.encoder.ids_of_text, self.stop_tokens)
            except ValueError:
                if constrain:
                    raise
        return [self._guides.get(form) for form in forms]

    def _spelling(self, names: bool) -> Spelling:
        if names not in self._spellings:
            self._spellings[names] = Spelling(self.encoder.tokenizer,
                                              self.network.head_weight.shape[0], names)
        return self._spellings[names]

    # --- answers ------------------------------------------------------------------------------
    def sample(self, take: Take, group_size: int, seeds: Sequence[Sequence[int]],
               sampling: Sampling, **options) -> Iterator[Generated]:
        """``group_size`` sampled answers to each prompt, in order.

        Args:
            take: gives the prompts.
            group_size: answers a prompt.
            seeds: tuples of non-negative integers, one an answer.
            sampling: how tokens are drawn.
            options: of :func:`write_answers`.
        """
        for group in self._groups(take, Drawn(seeds, sampling), sampling.max_new_tokens,
                                  group_size, **options):
            yield from group

    def generate(self, take: Take, batch_size: int | None = None, draft: bool = True,
                 constrain: bool = False, on_tokens: OnTokens | None = None, **options
                 ) -> Iterator[Generated]:
        """Answers, one a prompt, in order.

        Args:
            take: gives the prompts.
            batch_size, draft, constrain, on_tokens: of :func:`write_answers`.
            options: keys of ``transformers.GenerationConfig``; see :func:`greedy_rules` for those
                that leave the writing to transformers.
        """
        rules, limit = self._rules(options)
        if rules is None and constrain:
            raise ValueError(f'constrained decoding is greedy, without beams; not with {options}')
        if rules is None:
            with self.generating():
                yield from self._by_transformers(take, batch_size, on_tokens, options)
            return
        for group in self._groups(take, Likeliest(rules), limit, 1, batch_size, draft, constrain,
                                  on_tokens):
            yield from group

    def generate_groups(self, take: Take, group_size: int, seeds: Sequence[Sequence[int]],
                        sampling: Sampling, more: Callable[[int, list[Generated]], int],
                        batch_size: int | None = None, draft: bool = True,
                        constrain: bool = False, on_tokens: OnTokens | None = None, **options
                        ) -> Iterator[list[Generated]]:
        """The greedy answer and sampled ones to each prompt, in order.

        Args:
            take: gives the prompts.
            group_size: G, answers of a group at most, the greedy one included.
            seeds: tuples of non-negative integers by the row of an answer, b * G + g; those of
                greedy answers are not looked for.
            sampling: how tokens are drawn; its ``max_new_tokens`` is that of ``options``.
            more: called with the number of a prompt and its answers so far: how many further ones
                are written. 0 ends the group.
            batch_size, draft, constrain, on_tokens, options: as for :meth:`generate`.
        """
        rules, limit = self._rules(options)
        if rules is None:
            raise ValueError('a consensus takes the greedy answer and sampled ones, without '
                             f'beams: not with model.generation={options}. Leave these out, or '
                             'model.consensus')
        choose = FirstLikeliest(Likeliest(rules), Drawn(seeds, sampling), group_size)
        yield from self._groups(
            take, choose, limit, group_size, batch_size, draft, constrain, on_tokens,
            lambda number, ended: more(number, [self._finish(answer) for answer in ended]))

    def _rules(self, options: dict) -> tuple[list | None, int | None]:
        """Logits processors of a greedy search, see :func:`greedy_rules`, and its limit."""
        limit = options.get('max_new_tokens')
        if limit is not None and limit < 1:
            raise ValueError(f'max_new_tokens={limit}: at least 1')
        return greedy_rules(self.network.hf.generation_config, options,
                            self.network.device), limit

    def _groups(self, take: Take, choose: Callable, limit: int, group_size: int, *args, **options
                ) -> Iterator[list[Generated]]:
        """Answers to each prompt, in order; see :func:`write_answers`."""
        with self.generating():
            for group in in_order(write_answers(self, take, choose, limit, group_size, *args,
                                                **options), group_size):
                yield [self._finish(answer) for answer in group]

    def _by_transformers(self, take: Take, batch_size: int | None, on_tokens: OnTokens | None,
                         options: dict) -> Iterator[Generated]:
        """By transformers' ``generate``, batch after batch."""
        # Without synced_gpus: of split weights every process has all while it generates.
        banned = [*self.banned_tokens, *(options.pop('suppress_tokens', None) or ())]
        count = 0
        while taken := take(sys.maxsize if batch_size is None else batch_size):
            batch = self.network.to_device(taken[0])
            output = self.network.hf.generate(
                **batch, synced_gpus=False, pad_token_id=self.encoder.pad_token_id,
                eos_token_id=self.stop_tokens, suppress_tokens=banned, use_cache=True, **options)
            for row in output[:, batch['input_ids'].shape[1]:].tolist():
                answer = self.read(row)
                if on_tokens:
                    on_tokens(count, answer.token_ids)
                count += 1
                yield answer

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Dropout off; gradient checkpointing would also forbid the KV cache."""
        hf = self.network.hf
        training = hf.training
        hf.eval()
        try:
            yield
        finally:
            hf.train(training)

    def read(self, ids: list[int]) -> Generated:
        """The answer that ids spell, up to its end token."""
        stops = set(self.stop_tokens)
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        written = tuple(ids if end is None else ids[:end + 1])
        return Generated(self.encoder.text_of(ids[:end]), len(written), end is not None, written)

    def _finish(self, answer: OpenAnswer) -> Generated:
        read = self.read(answer.tokens)
        return replace(read, token_logps=tuple(answer.logps),
                       finished=read.finished and not answer.hurried)
