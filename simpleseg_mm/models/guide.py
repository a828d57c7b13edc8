"""The grammar of an answer over the tokens of a tokenizer: what may be written, what is likely.

The tokens that an answer is spelt with are few whatever the vocabulary: those of nothing but
digits, brackets, commas, points and spaces. They stand in a trie, which is walked together with
the automaton of the characters; what is found is kept by the automaton's reduced state.
Names of objects are free text: there the trie also holds the tokens with a quotation mark or a
backslash, and all others that spell whole characters stand in one list, by their length.
"""
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..polygon import LIST_KINDS, NAMED_KINDS, AnswerAutomaton, Grammar
from ..polygon.automaton import LONGEST_PIECE
from ..polygon.names import is_name_char

# A draft is made where one token follows in at least so many of the texts that teach it.
LIKELY = 0.5
# Answers that the drafts are learnt from, and the memory of states before it is cleared.
_TEXTS, _STATES = 100, 200_000
#: Every answer can be completed within so many tokens, whatever is written.
NEAR = 128
_SPELLS_SPACE = str.maketrans({'Ġ': ' ', '▁': ' '})  # byte-level and SentencePiece vocabularies
_ANSWER = re.compile(r'[0-9\[\], .]+')
_QUOTED = re.compile(r'[ -~]*["\\][ -~]*')
_NAMES = ('cup', 'red car', 'person', 'tv', 'dining table', 'blue star', 'potted plant', 'dog')


class Spelling:
    """The tokens that answers are spelt with.

    Args:
        tokenizer: of transformers.
        size: tokens that the network's head knows.
        names: whether answers hold names, too.
    """

    def __init__(self, tokenizer, size: int, names: bool = False) -> None:
        special = set(tokenizer.all_special_ids)
        #: id -> text
        self.texts: dict[int, str] = {}
        others = []
        for name, token in tokenizer.get_vocab().items():
            text = name.translate(_SPELLS_SPACE)
            if token in special or token >= size or names and len(text) > LONGEST_PIECE:
                continue
            if _ANSWER.fullmatch(text) or names and _QUOTED.fullmatch(text):
                self.texts[token] = text
            elif names:
                others.append(token)
        self._drop_what_reads_otherwise(tokenizer)
        self.names = names
        self._learn_words(tokenizer, others)
        self.trie: dict = {}
        for token, text in sorted(self.texts.items()):
            node = self.trie
            for char in text:
                node = node.setdefault(char, {})
            node.setdefault('', []).append(token)
        #: whether one token can hold the end of a number and what follows its vertex
        self.mixes = any(re.search('[0-9][^0-9]*]', text) for text in self.texts.values())
        self.texts.update(zip(self.words.tolist(), self._spelt))
        self.size = size

    def _drop_what_reads_otherwise(self, tokenizer) -> None:
        """Keep tokens that read, after a bracket, as they are spelt."""
        before = tokenizer.encode('[', add_special_tokens=False)
        head = tokenizer.decode(before)
        self.texts = {
            token: text for token, text in self.texts.items()
            if tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
            == head + text}

    def _learn_words(self, tokenizer, tokens: list[int]) -> None:
        """Of tokens those that spell nothing but whole characters of a name."""
        before = tokenizer.encode('"', add_special_tokens=False)
        head = tokenizer.decode(before)
        spelt = {}
        for token in sorted(tokens):
            text = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
            piece = text[len(head):]
            fits = text.startswith(head) and 0 < len(piece) <= LONGEST_PIECE
            if fits and '\ufffd' not in piece and all(map(is_name_char, piece)):
                spelt[token] = piece
        #: ids (W,) of the tokens that names alone are spelt with, and their characters
        self.words = np.array(list(spelt), np.int64)
        self.lengths = np.array([len(piece) for piece in spelt.values()], np.int64)
        self._spelt = list(spelt.values())
        self._blank = np.array([piece[0] == ' ' for piece in self._spelt], bool)

    def words_of(self, automaton: AnswerAutomaton, state) -> np.ndarray:
        """Ids of the tokens that names alone are spelt with and that may follow a state."""
        if state[0] != 'name' or state[2] or not self.names:
            return self.words[:0]
        fit = self.lengths <= automaton.longest_name - state[1]
        return self.words[fit & ~self._blank if not state[1] else fit]

    def fewest(self, text: str) -> int:
        """The least number of tokens that spell a text of the grammar's characters."""
        counts = [0]  # of the text's end, from its last character on
        for start in reversed(range(len(text))):
            best, node = len(text), self.trie
            for end in range(start, len(text)):
                node = node.get(text[end])
                if node is None:
                    break
                if '' in node:
                    best = min(best, 1 + counts[len(text) - 1 - end])
            counts.append(best)
        return counts[-1]

    def walk(self, automaton: AnswerAutomaton, state) -> list[int]:
        """Ids of the tokens that may follow a state."""
        found, todo = [], [(self.trie, state)]
        while todo:
            node, state = todo.pop()
            for char, below in node.items():
                if not char:
                    found += below
                    continue
                after = automaton.step(state, char)
                if after is not None:
                    todo.append((below, after))
        return found


class Guide:
    """One grammar and kind of answer in the tokens of a tokenizer.

    Args:
        automaton: of the characters.
        spelling: of the tokenizer.
        encode: text -> ids, as answers are taught.
        stops: ids that end an answer.

    Raises:
        ValueError: the vocabulary cannot spell an answer of this grammar.
    """

    def __init__(self, automaton: AnswerAutomaton, spelling: Spelling, encode,
                 stops: Sequence[int]) -> None:
        self.automaton = automaton
        self.spelling = spelling
        self.stops = sorted(stops)
        self.start = automaton.start
        self._check()
        self._steps: dict[tuple, tuple | None] = {}
        self._allowed: dict[tuple, np.ndarray] = {}
        self._arrays: dict[tuple, np.ndarray] = {}
        self._drafts = self._learn(encode)
        self._shapes: dict[tuple, int | None] = {}
        self._costs: dict[tuple, int] = {}

    def _check(self) -> None:
        """Every character must be there by itself: then no state is a dead end."""
        numbers = self.automaton.numbers
        needed = set(numbers.chars + '[],' + self.automaton.grammar.comma)
        needed |= {'"', 'a'} if self.automaton.named else set()
        missing = sorted(needed - {text for text in self.spelling.texts.values()})
        if missing:
            raise ValueError(
                f'the tokenizer has no token for {missing} alone, which answers of '
                f'{self.automaton.grammar.name} are spelt with: take another grammar or '
                'tokenizer, or leave model.generation.constrain out')

    def step(self, state, token: int):
        """The state after a token; ``None`` off the grammar, as after an end token."""
        if state is None:
            return None
        key = (state, token)
        if key not in self._steps:
            if len(self._steps) >= _STATES:
                self._steps.clear()
            text = self.spelling.texts.get(token)
            self._steps[key] = None if text is None else self.automaton.follow(state, text)
        return self._steps[key]

    def track(self, state, token: int):
        """As :meth:`step`, but a text off the grammar is taken up again where a vertex opens, for
        drafts alone: one coordinate that is written otherwise does not end them."""
        after = self.step(state, token)
        if after is None and self.automaton.item == 'rings' and (
                self.spelling.texts.get(token, '').endswith('[')):
            return ('x', '', True)
        return after

    def allowed(self, state) -> np.ndarray:
        """Ids (n,) of what may be written in a state, from the least; an end token only where the
        answer is complete. Most states share one of some ten arrays."""
        key = state if self.spelling.mixes else self.automaton.reduced(state)
        if key not in self._allowed:
            if len(self._allowed) >= _STATES:
                self._allowed.clear()
            ids = tuple(self.stops if self.automaton.is_final(state)
                        else sorted(self.spelling.walk(self.automaton, state)))
            words = self.spelling.words_of(self.automaton, state)
            self._allowed[key] = np.union1d(ids, words).astype(np.int64) if len(words) else \
                self._arrays.setdefault(ids, np.array(ids))
        return self._allowed[key]

    # --- the limit ----------------------------------------------------------------------------
    def in_time(self, state, token: int, room: int) -> list[int] | None:
        """What may be written in place of a token after which the answer could not be completed
        in ``room`` more; ``None`` where it can, or where nothing else would do either.

        '[]' is nothing else: it says that there is no object.
        """
        if self.automaton.is_final(state) or self._cost(self.step(state, token)) <= room:
            return None
        empty = state[0] in ('start', 'open')
        others = self.allowed(state).tolist() if state[0] != 'name' else sorted(
            self.spelling.walk(self.automaton, state))  # a name is ended rather than gone on with
        return [other for other in others
                for after in [self.step(state, other)]
                if self._cost(after) <= room
                and not (empty and self.automaton.is_final(after))] or None

    def _cost(self, state) -> int:
        """Tokens that complete an answer, its end token included."""
        if state not in self._costs:
            if len(self._costs) >= _STATES:
                self._costs.clear()
            self._costs[state] = 1 + self.spelling.fewest(self.automaton.rest(state))
        return self._costs[state]

    # --- drafts -------------------------------------------------------------------------------
    def draft(self, state) -> int | None:
        """The token that is likely to follow; ``None`` where none is."""
        if state is None:
            return None
        if state not in self._shapes:
            if len(self._shapes) >= _STATES:
                self._shapes.clear()
            token = self._drafts.get(self.automaton.shape(state))
            if token is not None and self.step(state, token) is None:
                token = None  # as a comma after 0.10, which lacks a digit
            self._shapes[state] = token
        return self._shapes[state]

    def _learn(self, encode) -> dict[tuple, int]:
        """What follows each shape of state, where it mostly is one token, in answers written at
        random: so drafts know the tokenizer's way with brackets, and no model's."""
        counts = defaultdict(Counter)
        for text in _written(self.automaton.grammar.name, self.automaton.kind):
            state = self.start
            for token in encode(text):
                counts[self.automaton.shape(state)][token] += 1
                state = self.step(state, token)
                if state is None:  # a token of other characters as well
                    break
        likely = {shape: counter.most_common(1)[0] for shape, counter in counts.items()}
        return {shape: token for shape, (token, count) in likely.items()
                if count >= LIKELY * counts[shape].total()}


@lru_cache(maxsize=16)
def _written(name: str, kind: str) -> list[str]:
    """Answers with coordinates at random: rings of 3 to 15 vertices, one to three of them; lists
    of one to three."""
    grammar, rng = Grammar.from_name(name), np.random.default_rng(0)
    item = LIST_KINDS.get(kind, kind)

    def written() -> str:
        if item != 'rings':
            count = 2 if item == 'point' else 4
            return grammar._list(rng.integers(0, grammar.steps + 1, count).tolist())
        return grammar.format_steps([
            rng.integers(0, grammar.steps + 1, (rng.integers(3, 16), 2))
            for _ in range(rng.choice(3, p=[.8, .15, .05]) + 1)])
    if kind == item:
        return [written() for _ in range(_TEXTS)]
    if kind in NAMED_KINDS:
        return [grammar.format_named(*zip(*((rng.choice(_NAMES), written())
                                            for _ in range(rng.integers(1, 4)))))
                for _ in range(_TEXTS)]
    return [grammar.format_list([written() for _ in range(rng.integers(1, 4))])
            for _ in range(_TEXTS)]
