"""The grammar of an answer as an automaton over characters: what may follow what is written.

A path from ``start`` to a final state spells exactly what ``Grammar.format_*`` writes for a point,
for a box with x1 < x2 and y1 < y2, for rings with at least 3 distinct vertices each, for a list of
any of these, for a list of masks with their names, and '[]': the texts that ``parse_answer`` finds
valid. There are no dead ends: every state can be finished.
Numbers that Python's repr writes with an exponent (below 1e-4, decimal5 and decimal6) are left
out: the parser does not take them as following the grammar.
"""
import re
from functools import lru_cache

from .grammar import Grammar
from .names import MAX_NAME, is_name_char
from .reading import ANSWER_KINDS, LIST_KINDS, NAMED_KINDS

#: (where, index or memory, ...): hashable, and the same for texts that can go on alike
State = tuple
_DIGITS = '0123456789'
#: a name has room for as many more characters in states that are reduced to one
LONGEST_PIECE = 24
_LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'


class Numbers:
    """The texts of a grammar's coordinates, by prefix. ``low`` and ``high`` bound the steps."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.chars = _DIGITS if grammar.style == 'int' else _DIGITS + '.'
        self.can_be = lru_cache(maxsize=100_000)(self._can_be)
        self.value = lru_cache(maxsize=100_000)(self._value)
        self.fill = lru_cache(maxsize=100_000)(self._fill)

    def spans(self, prefix: str) -> list[tuple[int, int]]:
        """Ranges of the steps whose text begins so."""
        grammar, steps = self.grammar, self.grammar.steps
        if not prefix:
            return [(0, steps)]
        if grammar.style == 'int':
            if prefix[0] == '0':
                return [(0, 0)] if prefix == '0' else []
            first, width, found = int(prefix), 1, []
            while first * width <= steps:
                found.append((first * width, min(first * width + width - 1, steps)))
                width *= 10
            return found
        if re.fullmatch(r'1(\.0*)?', prefix):
            zeros = grammar.digits if grammar.style == 'fixed' else 1
            return [(steps, steps)] if len(prefix) <= 2 + zeros else []
        if not re.fullmatch(r'0(\.[0-9]*)?', prefix) or len(prefix) > 2 + grammar.digits:
            return []
        digits = prefix[2:]
        width = 10**(grammar.digits - len(digits))
        first = int(digits or '0') * width
        last = first + width - 1
        if grammar.style == 'fixed':
            return [(first, last)]
        exponent = 10**max(0, grammar.digits - 4)  # below it repr writes 1e-05
        spans = [(0, 0)] if '0.0'.startswith(prefix) else []
        if digits.endswith('0') or not first:  # repr has no zero at the end, but for 0.0
            first += 1
        first = max(first, exponent)
        return spans + ([(first, last)] if first <= last else [])

    def _can_be(self, prefix: str, low: int, high: int) -> bool:
        """Whether a number of ``low`` to ``high`` begins so."""
        return any(first <= high and last >= low for first, last in self.spans(prefix))

    def _fill(self, prefix: str, low: int, high: int, but: tuple[int, ...] = ()) -> str | None:
        """The first of the shortest texts that make a prefix a number of ``low`` to ``high``, none
        of ``but``; None: there is none."""
        texts = [prefix]
        while texts:
            for text in texts:
                value = self.value(text)
                if value is not None and low <= value <= high and value not in but:
                    return text[len(prefix):]
            texts = [text + char for text in texts for char in self.chars
                     if self.can_be(text + char, low, high)]
            if self.grammar.style == 'fixed':  # all are as long
                texts = texts[:len(but) + 1]
        return None

    def _value(self, text: str) -> int | None:
        """The step that is written so; None: no number of the grammar."""
        grammar = self.grammar
        if grammar.style == 'int':
            value = int(text) if text else -1
        else:
            whole, _, digits = text.partition('.')
            if not digits:
                return None
            value = int(whole + digits.ljust(grammar.digits, '0'))
        return value if 0 <= value <= grammar.steps and grammar.number(value) == text else None


class AnswerAutomaton:
    """What a text may go on with, for one grammar and one kind of answer.

    Args:
        grammar: a name, such as 'decimal3', or a Grammar.
        kind: one of ``ANSWER_KINDS``.

    A state of rings remembers the distinct vertices of the ring up to the third, one of a box the
    corner that the other must exceed, one of a name how long it is; nothing else is remembered.
    """

    #: characters of a name at most
    longest_name = MAX_NAME

    def __init__(self, grammar: str | Grammar, kind: str = 'rings') -> None:
        if kind not in ANSWER_KINDS:
            raise ValueError(f'kind is {kind!r}; choose one of {ANSWER_KINDS}')
        self.grammar = Grammar.from_name(grammar)
        self.kind = kind
        #: what is listed, or the kind itself
        self.item = LIST_KINDS.get(kind, kind)
        self.many = kind in LIST_KINDS
        self.named = kind in NAMED_KINDS
        #: every character of an answer; of names, which hold others too, the common ones
        self.alphabet = _DIGITS + '[], .' + ('"\\' + _LETTERS) * self.named
        self.numbers = Numbers(self.grammar)
        self.start: State = ('start', )

    @classmethod
    @lru_cache(maxsize=None)
    def of(cls, grammar: str, kind: str) -> 'AnswerAutomaton':
        """One object for each grammar's name and kind."""
        return cls(grammar, kind)

    def is_final(self, state: State) -> bool:
        """Whether the answer is complete."""
        return state == ('done', )

    def step(self, state: State, char: str) -> State | None:
        """The state after one more character; None where the grammar forbids it."""
        return getattr(self, f'_{state[0]}')(char, *state[1:])

    def follow(self, state: State | None, text: str) -> State | None:
        """The state after a text; None where the grammar forbids it."""
        for char in text:
            if state is None:
                return None
            state = self.step(state, char)
        return state

    def chars(self, state: State) -> str:
        """The characters of ``alphabet`` that may follow; '' in the final state."""
        return ''.join(c for c in self.alphabet if self.step(state, c) is not None)

    # --- one method a place: (character, memory) -> state -------------------------------------
    def _start(self, char: str):
        return ('open', ) if char == '[' else None

    def _open(self, char: str):
        if char == ']':
            return ('done', )
        return self._another_item(char) if self.many else self._first(char)

    def _first(self, char: str):
        """What stands first in an item."""
        if self.item == 'rings':
            return ('ring', ) if char == '[' else None
        return self._number(char, 0, '', ())

    # a list: ``item`` stands after one
    def _item(self, char: str):
        if char == ',':
            return self._comma('another_item', 1)
        return ('done', ) if char == ']' else None

    def _another_item(self, char: str):
        return ('quote' if self.named else 'first', ) if char == '[' else None

    def _end(self) -> State:
        return ('pair', ) if self.named else ('item', ) if self.many else ('done', )

    # a name, of which ``count`` characters are written, and the mask after it
    def _quote(self, char: str):
        return ('name', 0, False) if char == '"' else None

    def _name(self, char: str, count: int, escaped: bool):
        if escaped:
            return ('name', count + 1, False) if char in '"\\' else None
        if char == '"':
            return ('after_name', ) if count else None
        if count == MAX_NAME or char == ' ' and not count:
            return None
        if char == '\\':
            return ('name', count, True)
        return ('name', count + 1, False) if is_name_char(char) else None

    def _after_name(self, char: str):
        return self._comma('mask', 1) if char == ',' else None

    def _mask(self, char: str):
        return ('first', ) if char == '[' else None

    def _pair(self, char: str):
        return ('item', ) if char == ']' else None

    def _done(self, char: str):
        return None

    # a ring: ``seen`` are its distinct vertices, True once there are three
    def _ring(self, char: str):
        return ('x', '', ()) if char == '[' else None

    def _x(self, char: str, text: str, seen):
        if char == ',':
            x = self.numbers.value(text)
            return None if x is None else self._comma('y', 1, '', seen if seen is True
                                                      else (*seen, x))
        return self._digit(char, text, 'x', seen)

    def _y(self, char: str, text: str, seen):
        if char != ']':
            return self._digit(char, text, 'y', seen)
        y = self.numbers.value(text)
        if y is None:
            return None
        if seen is not True:
            *seen, x = seen
            seen = (*seen, (x, y)) if (x, y) not in seen else tuple(seen)
        return ('vertex', True if seen is True or len(seen) == 3 else seen)

    def _digit(self, char: str, text: str, where: str, seen):
        text += char
        if char in self.numbers.chars and self.numbers.can_be(text, 0, self.grammar.steps):
            return (where, text, seen)
        return None

    def _vertex(self, char: str, seen):
        if char == ',':
            return self._comma('next', 1, seen)
        return ('closed', ) if char == ']' and seen is True else None

    def _next(self, char: str, seen):
        return ('x', '', seen) if char == '[' else None

    def _closed(self, char: str):
        if char == ',':
            return self._comma('another', 1)
        return self._end() if char == ']' else None

    def _another(self, char: str):
        return ('ring', ) if char == '[' else None

    # a box or a point: number ``index`` after ``past``
    def _number(self, char: str, index: int, text: str, past: tuple[int, ...]):
        count = 2 if self.item == 'point' else 4
        low, high = self._bounds(index, past)
        if char in ',]':
            value = self.numbers.value(text)
            if value is None or not low <= value <= high or (char == ']') != (index == count - 1):
                return None
            if char == ']':
                return self._end()
            past = past[1:] if index > 1 else (*past, value) if self.item == 'box' else ()
            return self._comma('number', 1, index + 1, '', past)
        text += char
        if char in self.numbers.chars and self.numbers.can_be(text, low, high):
            return ('number', index, text, past)
        return None

    def _bounds(self, index: int, past: tuple[int, ...]) -> tuple[int, int]:
        top = self.grammar.steps
        if self.item == 'point':
            return 0, top
        return (past[0] + 1, top) if index > 1 else (0, top - 1)

    # inside a separator of several characters, on the way to a state
    def _comma(self, then, read: int = 0, *memory):
        if read == len(self.grammar.comma):
            return (then, *memory)
        return ('between', then, read, memory)

    def _between(self, char: str, then: str, read: int, memory):
        if char != self.grammar.comma[read]:
            return None
        return self._comma(then, read + 1, *memory)

    # --- a way to the end ---------------------------------------------------------------------
    def rest(self, state: State) -> str:
        """A text that completes the answer, with an object if none is begun: as few vertices as
        the grammar asks for, in the shortest numbers that are left. Whoever writes its first
        character finds the remainder of the same text."""
        text = ''
        while not self.is_final(state):
            piece = self._piece(*state)
            state, text = self.follow(state, piece), text + piece
        return text

    def _piece(self, where: str, *rest) -> str:
        comma, top = self.grammar.comma[0], self.grammar.steps
        if where in ('closed', 'item', 'pair'):
            return ']'
        if where in ('quote', 'name'):
            return '"' if where == 'quote' or rest[0] or rest[1] else 'a'
        if where == 'after_name':
            return comma
        if where == ('first' if self.many else 'open') and self.item != 'rings':
            where, rest = 'number', (0, '', ())
        if where == 'vertex':
            return ']' if rest == (True, ) else comma
        if where == 'between':
            return self.grammar.comma[rest[1]:]
        if where == 'number':
            index, text, past = rest
            low, high = self._bounds(index, past)
            last = index == (1 if self.item == 'point' else 3)
            return self.numbers.fill(text, low, high) or (']' if last else comma)
        if where in ('x', 'y'):
            text, seen = rest
            fill = self.numbers.fill(text, 0, top, self._taken(where, seen))
            if fill is None:  # the vertex cannot be a new one
                fill = self.numbers.fill(text, 0, top)
            return fill or (comma if where == 'x' else ']')
        return '['

    def _taken(self, where: str, seen) -> tuple[int, ...]:
        """Coordinates with which a vertex would not be a new one."""
        if seen is True:
            return ()
        if where == 'y':
            *seen, x = seen
            return tuple(sorted(other[1] for other in seen if other[0] == x))
        xs = [x for x, _ in seen]
        return tuple(x for x in dict.fromkeys(xs) if xs.count(x) > self.grammar.steps)

    # --- what states have in common -----------------------------------------------------------
    def shape(self, state: State) -> tuple:
        """The state without its digits and memory: the same where answers go on with the same
        punctuation."""
        where, *rest = state
        if where in ('x', 'y'):
            text, seen = rest
            return where, self._digits(text), seen is True or where == 'y' and len(seen) == 3
        if where == 'number':
            return where, rest[0], self._digits(rest[1])
        if where == 'between':
            return where, *rest[:2]
        if where == 'name':
            return where, rest[0] > 0
        return where, rest == [True]

    def _digits(self, text: str) -> str:
        head = 0 if self.grammar.style == 'int' else 2  # '0.' or '1.' stays
        return text[:head] + '#' * len(text[head:])

    def reduced(self, state: State) -> tuple:
        """The state without memory that cannot forbid anything before the next vertex ends."""
        if state[0] in ('x', 'y', 'next', 'vertex') and state[-1] is not True:
            # two vertices and the third's x: whether a third one is new decides what may follow
            whole = state[0] == 'y' and len(state[-1]) == 3 or state[0] == 'x' and len(
                state[-1]) == 2
            return state if whole else (*state[:-1], False)
        if state[0] == 'name' and 0 < state[1] < MAX_NAME - LONGEST_PIECE:
            return 'name', 1, state[2]
        return state
