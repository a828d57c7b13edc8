"""Keeping answers in their grammar, beside the libraries that do it for any grammar.

    pip install --no-deps -r requirements/lock-test.txt    # the peers among others
    python benchmarks/constraint.py                             # nano's vocabulary
    python benchmarks/constraint.py --tokenizer Qwen/Qwen2.5-VL-7B-Instruct

32 polygons at random, written token by token. A pass finds what each may go on with, bans all
else in a copy of their logits (probabilities are of those before), and takes the next token in.
The peers get the grammar as far as theirs can say it: rings of three vertices or more, in the
same numbers, but not that the vertices differ. Both sides run in turns in one process, by its
own CPU time. The last line is one JSON object.
"""
import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import Skip, alternate, one_thread, row, skipped
from transformers import AutoTokenizer

from simpleseg_mm.files import from_folder
from simpleseg_mm.models.decoding import constrained
from simpleseg_mm.models.guide import Guide, Spelling
from simpleseg_mm.models.resources import packaged
from simpleseg_mm.polygon import AnswerAutomaton, Grammar, export_grammar

ROWS = 32
ANSWER = export_grammar('decimal3', 'rings', 'regex')


def polygons(tokenizer, vertices: int) -> list[list[int]]:
    """Token ids of answers in decimal3, end token included."""
    grammar, rng = Grammar.from_name('decimal3'), np.random.default_rng(0)
    texts = [grammar.format_steps([rng.integers(0, grammar.steps + 1, (vertices, 2))])
             for _ in range(ROWS)]
    return [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            for text in texts]


class Ours:
    def __init__(self, tokenizer, size: int) -> None:
        self.guide = Guide(AnswerAutomaton.of('decimal3', 'rings'), Spelling(tokenizer, size),
                           lambda text: tokenizer.encode(text, add_special_tokens=False),
                           [tokenizer.eos_token_id])

    def begin(self) -> None:
        self.states = [self.guide.start] * ROWS

    def ban(self, logits: torch.Tensor) -> torch.Tensor:
        return constrained(logits, [(self.guide, state) for state in self.states])

    def take(self, tokens: list[int]) -> None:
        self.states = [self.guide.step(state, token)
                       for state, token in zip(self.states, tokens)]


class Library:
    """``matchers`` of the rows, a bit ``mask`` for them, and what ``apply``s it in place."""

    def begin(self) -> None:
        for matcher in self.matchers:
            matcher.reset()

    def ban(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        for number in range(ROWS):
            self.fill(number)
        self.apply(logits, self.mask)
        return logits


class LLGuidance(Library):
    def __init__(self, tokenizer, size: int) -> None:
        try:
            import llguidance.hf
            import llguidance.torch
        except ImportError as error:
            raise Skip('pip install --no-deps -r requirements/lock-test.txt') from error
        self.torch = llguidance.torch
        self.apply = llguidance.torch.apply_token_bitmask_inplace
        known = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size)
        grammar = llguidance.LLMatcher.grammar_from_regex(ANSWER)
        self.matchers = [llguidance.LLMatcher(known, grammar) for _ in range(ROWS)]
        self.mask = llguidance.torch.allocate_token_bitmask(ROWS, size)

    def fill(self, number: int) -> None:
        self.torch.fill_next_token_bitmask(self.matchers[number], self.mask, number)

    def take(self, tokens: list[int]) -> None:
        for matcher, token in zip(self.matchers, tokens):
            assert matcher.consume_token(token), matcher.get_error()


class XGrammar(Library):
    def __init__(self, tokenizer, size: int) -> None:
        try:
            import xgrammar
        except ImportError as error:
            raise Skip('pip install --no-deps -r requirements/lock-test.txt') from error
        self.apply = xgrammar.apply_token_bitmask_inplace
        known = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
        compiled = xgrammar.GrammarCompiler(known).compile_regex(ANSWER)
        self.matchers = [xgrammar.GrammarMatcher(compiled) for _ in range(ROWS)]
        self.mask = xgrammar.allocate_token_bitmask(ROWS, size)

    def fill(self, number: int) -> None:
        self.matchers[number].fill_next_token_bitmask(self.mask, number)

    def take(self, tokens: list[int]) -> None:
        for matcher, token in zip(self.matchers, tokens):
            assert matcher.accept_token(token)


def write(side, logits: torch.Tensor, answers: list[list[int]]) -> None:
    """All passes of the answers."""
    side.begin()
    for tokens in zip(*answers):
        side.ban(logits)
        side.take(tokens)


def agreement(ours, peer, logits: torch.Tensor, answers: list[list[int]]) -> dict[str, int]:
    """Places of the answers, and at how many of them both allow the same tokens."""
    same = 0
    for side in (ours, peer):
        side.begin()
    for tokens in zip(*answers):
        left, right = (side.ban(logits) > -torch.inf for side in (ours, peer))
        same += int((left == right).all(1).sum())
        for side in (ours, peer):
            side.take(tokens)
    return dict(places=sum(map(len, answers)), same_tokens_allowed=same)


def compared(name: str, peer_of: Callable, known, answers: list[list[int]], turns: int) -> dict:
    """The row of one library."""
    size, start = len(known), time.process_time()
    ours = Ours(known, size)
    begun = time.process_time()  # the libraries may go on in threads
    peer = peer_of(known, size)
    notes = dict(starting_ours=round(begun - start, 3),
                 starting_peer=round(time.process_time() - begun, 3))
    logits = torch.randn(ROWS, size, generator=torch.Generator().manual_seed(0))
    notes.update(agreement(ours, peer, logits, answers))
    seconds = alternate(dict(ours=lambda: write(ours, logits, answers),
                             peer=lambda: write(peer, logits, answers)), turns)
    milliseconds = [[1000 * s / len(answers[0]) for s in seconds[side]]
                    for side in ('ours', 'peer')]
    return row(name, *milliseconds, f'ms a pass of {ROWS} rows', 'cpu, 1 thread',
               what=f'{ROWS} polygons in decimal3, a vocabulary of {size:,} tokens', **notes)


def rows(quick: bool = False, tokenizer: str = '') -> list[dict]:
    """A row a library.

    Args:
        quick: tiny sizes: to see that it runs.
        tokenizer: a folder or name; nano's unless told.
    """
    known = from_folder(AutoTokenizer.from_pretrained, tokenizer or packaged('nano'))
    answers = polygons(known, 4 if quick else 20)
    shortest = min(map(len, answers))
    answers = [ids[:shortest] for ids in answers]
    found = []
    with one_thread():
        for name, peer_of in dict(constraint_llguidance=LLGuidance,
                                  constraint_xgrammar=XGrammar).items():
            try:
                found.append(compared(name, peer_of, known, answers, 1 if quick else 5))
            except Skip as skip:
                found.append(skipped(name, str(skip)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tokenizer', default='', help="a folder or name; nano's unless told")
    parser.add_argument('--quick', action='store_true', help='tiny sizes: to see that it runs')
    args = parser.parse_args()
    print(json.dumps({item.pop('name'): item for item in rows(args.quick, args.tokenizer)}))


if __name__ == '__main__':
    main()
