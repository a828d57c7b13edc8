"""``SimpleSeg.answer`` written by another engine."""
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from ..models.consensus import Seeds
from ..models.generation import NEUTRAL, OFF
from ..polygon import AnswerAutomaton, export_grammar
from ..structures import Generated
from .base import NEVER, ExternalEngine

#: prompts whose groups of answers are written together
_GROUPS = 32
#: what is in ``model.generation`` beside keys of ``GenerationConfig``
_OURS = {'draft', 'constrain'}


class EngineAnswers:
    """Greedy answers of a model by an engine, as ``SimpleSeg.answer`` gives them.

    Args:
        model: the unwrapped SimpleSeg; its ``generation`` says how answers are written.
        engine: has the model's weights.
    """

    def __init__(self, model, engine: ExternalEngine) -> None:
        self.model, self.engine = model, engine

    def answer(self, images: Sequence[Tensor], prompts: Sequence[str],
               forms: Sequence | None = None, on_tokens: Callable | None = None, **options
               ) -> list[Generated]:
        """Answers to one prompt a picture; see ``SimpleSeg.answer``. ``on_tokens`` is told of
        whole answers."""
        answers = list(self.stream(zip(images, prompts, forms or [None] * len(prompts)),
                                   **options))
        for row, answer in enumerate(answers if on_tokens else ()):
            on_tokens(row, answer.token_ids)
        return answers

    def stream(self, asked: Iterable[tuple], batch_size: int | None = None, **options
               ) -> Iterator[Generated]:
        """Answers to pictures, prompts and grammars, in order, each while later ones are being
        written; see ``SimpleSeg.answer_stream``. How many are open at a time is the engine's."""
        options = {**self.model.generation, **options}
        keywords = greedy_keywords(options)
        requests = ((image, prompt, _grammar(form) if options.get('constrain') else None)
                    for image, prompt, form in asked)
        return self.engine.stream(requests, options['max_new_tokens'], keywords)

    def groups(self, asked: Iterable[tuple], more: Callable[[int, list[Generated]], int],
               batch_size: int | None = None, on_tokens: Callable | None = None, **options
               ) -> Iterator[list[Generated]]:
        """The greedy answer and sampled ones to what is asked, in order; see
        ``SimpleSeg.group_stream``. A prompt goes once a part of its answers: an engine that keeps
        prefixes reads it once. ``on_tokens`` is told of whole greedy answers."""
        options, consensus = {**self.model.generation, **options}, self.model.consensus
        constrain, limit = options.get('constrain'), options['max_new_tokens']
        keywords, sampling = greedy_keywords(options), consensus.sampling(limit)
        seeds, size, begun = Seeds(consensus.seed, consensus.group_size), consensus.group_size, 0
        asked = iter(asked)
        while part := list(islice(asked, _GROUPS)):
            for image, prompt, _ in part:
                seeds.add(image, prompt)
            found: list[list[Generated]] = [[] for _ in part]

            def write(chosen: list[int], count: int, **how) -> None:
                images, prompts, forms = zip(*(part[i] for i in chosen))
                grammars = [_grammar(form) for form in forms] if constrain else None
                for i, answers in zip(chosen, self.engine.write(
                        images, prompts, count, structured=grammars, more=keywords, **how)):
                    found[i] += answers

            left = list(range(len(part)))
            while left := [i for i in left if more(begun + i, found[i]) > 0]:
                wanted = {i: more(begun + i, found[i]) for i in left}
                if first := [i for i in left if not found[i]]:
                    write(first, 1, max_new_tokens=limit)
                    for i in first:
                        wanted[i] -= 1
                        if on_tokens is not None:
                            on_tokens(begun + i, found[i][0].token_ids)
                for count in sorted(set(wanted.values()) - {0}):
                    chosen = [i for i in left if wanted[i] == count]
                    write(chosen, count, sampling=sampling, seeds=[
                        seeds[(begun + i) * size + len(found[i]) + g]
                        for i in chosen for g in range(count)])
            begun += len(part)
            yield from found


def _grammar(form: AnswerAutomaton | None) -> dict[str, str] | None:
    """An answer's grammar for vLLM; ``None`` for free text."""
    return form and dict(regex=export_grammar(form.grammar, form.kind, 'regex'))


def greedy_keywords(generation: dict[str, Any]) -> dict[str, Any]:
    """Keywords of vLLM's ``SamplingParams`` for keys of ``transformers.GenerationConfig`` that
    change greedy answers.

    Raises:
        ValueError: it has no such keyword.
    """
    default, found, bias = GenerationConfig().to_dict(), {}, {}
    for key, value in generation.items():
        if (value in (None, default.get(key, False), OFF.get(key))
                or key in NEUTRAL | _OURS and not (key == 'do_sample' and value)):
            continue
        if key == 'repetition_penalty':
            found[key] = float(value)
        elif key == 'suppress_tokens':
            bias.update((token, NEVER) for token in value)
        elif key in ('sequence_bias', 'bad_words_ids') and (single := _single(key, value)):
            bias.update(single)
        else:
            raise ValueError(
                f'model.generation.{key}={value!r}: an engine writes greedily, with '
                'repetition_penalty, suppress_tokens and a bias or ban of single tokens. Leave '
                f'{key} out, or test without --engine')
    if bias:
        found['logit_bias'] = bias
    return found


def _single(key: str, value) -> dict[int, float]:
    """Token -> bias, where every sequence that is biased or banned is one token; else empty."""
    pairs = (value.items() if isinstance(value, dict) else value if key == 'sequence_bias'
             else [(ids, NEVER) for ids in value])
    pairs = [(tuple(ids), float(bias)) for ids, bias in pairs]
    return {} if any(len(ids) != 1 for ids, _ in pairs) else {ids[0]: bias for ids, bias in pairs}
