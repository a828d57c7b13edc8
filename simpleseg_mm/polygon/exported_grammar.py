"""The grammar of an answer in the notations of other engines, and where a text leaves it.

An engine that is given one of these grammars writes what ``AnswerAutomaton`` allows, and a little
more: a grammar without memory cannot say that vertices differ, nor that a box's second corner
exceeds its first. :func:`exported_differences` names what is more, :func:`allowed_beyond` says of
a text whether it is that, and :func:`outside_grammar` finds a server that ignored the grammar.
"""
import json
import re

from .automaton import AnswerAutomaton
from .grammar import Grammar
from .names import MAX_NAME, NAME_PATTERN
from .reading import LIST_KINDS, NAMED_KINDS

#: 'regex': Python's ``re`` (whole match), xgrammar, llguidance, outlines, and so vLLM and SGLang.
#: 'lark': llguidance, xgrammar and the package lark. 'ebnf': xgrammar. 'gbnf': llama.cpp.
#: 'json-schema': whatever knows no other, with more differences; not for objects with names.
GRAMMAR_FORMS = ('regex', 'lark', 'ebnf', 'gbnf', 'json-schema')
#: what a form may allow beyond the automaton
DIFFERENCES = {
    'distinct': 'a ring of three or more vertices of which fewer than three are distinct',
    'corners': 'a box whose second corner does not exceed the first in x and in y',
    'spaces': 'white space elsewhere than the grammar writes it, as far as the engine allows it',
    'numbers': 'a number in range but in another spelling or with other decimals (0.2600, 1, '
               '1e-1), as far as the engine allows it',
}

# A number is a list of alternatives, an alternative a list of pieces: text, or the first and last
# digit of a class with how often it stands there. An alternative never begins a later one's text,
# so that a reader that takes the first one which fits is right, too.
Piece = str | tuple[str, str, int, int]
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(NAME_PATTERN)
# A name in regular expressions, and its first and other characters in GBNF.
_NAME_REGEX = (rf'"([^ "\\\x00-\x1f]|\\["\\])([^"\\\x00-\x1f]|\\["\\]){{0,{MAX_NAME - 1}}}"')
_NAME_RULES = dict(
    name=rf'"\"" head char{{0,{MAX_NAME - 1}}} "\""',
    head=r'[^ "\\\x00-\x1F] | "\\" ["\\]', char=r'[^"\\\x00-\x1F] | "\\" ["\\]')
_JSON_NUMBER = re.compile(r'(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)', re.ASCII)


def export_grammar(grammar: str | Grammar, kind: str = 'rings', form: str = 'regex') -> str:
    r"""The grammar of an answer, '[]' for an absent target included, for other engines.

    Args:
        grammar: a name, such as 'int1000', or a Grammar.
        kind: one of ``ANSWER_KINDS``.
        form: one of ``GRAMMAR_FORMS``.

    ``export_grammar('int1000', 'point')`` is
    ``\[((1000|[1-9][0-9]{0,2}|0),(1000|[1-9][0-9]{0,2}|0))?\]``.

    Raises:
        ValueError: no such grammar, kind or form, or a schema of objects with names.
    """
    _check_form(form, kind)
    grammar = AnswerAutomaton(grammar, kind).grammar  # checks both
    if form == 'json-schema':
        return json.dumps(_schema(grammar, kind))
    return dict(regex=_regex, lark=_lark, ebnf=_bnf, gbnf=_bnf)[form](grammar, kind)


def exported_differences(grammar: str | Grammar, kind: str = 'rings',
                         form: str = 'regex') -> dict[str, str]:
    """What a form allows beyond the automaton: name -> in words, see ``DIFFERENCES``.

    Beside these texts both allow the same ones. Raises as :func:`export_grammar`.
    """
    _check_form(form, kind)
    grammar = AnswerAutomaton(grammar, kind).grammar
    item = LIST_KINDS.get(kind, kind)
    names = ['distinct'] if item == 'rings' else []
    if item == 'box' and grammar.steps > 1:
        names.append('corners')
    if form == 'json-schema':
        names += ['spaces', 'numbers']
    return {name: DIFFERENCES[name] for name in names}


def allowed_beyond(text: str, grammar: str | Grammar, kind: str = 'rings',
                   form: str = 'regex') -> tuple[str, ...]:
    """The differences by which a form allows a text that the automaton forbids.

    Empty for a text that the automaton accepts, and for one that the form forbids, too. With
    'spaces' or 'numbers' among them an engine may forbid it; each has its own bounds.

    ``allowed_beyond('[[[1,2],[1,2],[3,4]]]', 'int1000')`` is ``('distinct',)``.
    """
    names = exported_differences(grammar, kind, form)
    grammar = Grammar.from_name(grammar)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not _fits(value, kind, grammar, form):
        return ()
    if kind in NAMED_KINDS:
        if not all(map(_NAME.fullmatch, _STRING.findall(text))):
            return ()
        text = _STRING.sub('[]', text)
    layout = _JSON_NUMBER.split(text)
    found = set(_memory(value, kind))
    if '0'.join(layout[::2]) != _written(value, grammar.comma):
        found.add('spaces')
    if not all(_is_spelled(word, grammar) for word in layout[1::2]):
        found.add('numbers')
    return tuple(name for name in names if name in found) if found <= set(names) else ()


def outside_grammar(text: str, grammar: str | Grammar, kind: str = 'rings') -> int | None:
    """Where a text leaves the exported grammar; None where all of it is inside.

    The position of the first character that the grammar forbids there; the length of the text
    where it ends too early: an answer that was cut off did obey. For every form but
    'json-schema'. A server that was given the grammar and writes a text outside it has ignored
    the grammar.

    ``outside_grammar('The dog: [1,2]', 'int1000', 'point')`` is 0.
    """
    automaton = ExportedAutomaton.of(Grammar.from_name(grammar).name, kind)
    state = automaton.start
    for position, char in enumerate(text):
        state = automaton.step(state, char)
        if state is None:
            return position
    return None if automaton.is_final(state) else len(text)


class ExportedAutomaton(AnswerAutomaton):
    """What the exported grammars allow, but 'json-schema': the automaton without what it keeps in
    mind of vertices and corners."""

    def _y(self, char: str, text: str, seen):
        state = super()._y(char, text, seen)
        if state is None or state[0] == 'y' or seen is True:
            return state
        return ('vertex', True if len(seen) == 3 else (*seen[:-1], None))  # any vertex counts

    def _bounds(self, index: int, past: tuple[int, ...]) -> tuple[int, int]:
        return _bounds(self.grammar, self.item, index)


def _bounds(grammar: Grammar, kind: str, index: int) -> tuple[int, int]:
    """Least and most step of number ``index`` of a box or point, whatever the others are."""
    if kind == 'point':
        return 0, grammar.steps
    return (0, grammar.steps - 1) if index < 2 else (1, grammar.steps)


def _check_form(form: str, kind: str) -> None:
    if form not in GRAMMAR_FORMS:
        raise ValueError(f'form is {form!r}; choose one of {GRAMMAR_FORMS}')
    if form == 'json-schema' and kind in NAMED_KINDS:
        raise ValueError('there is no json-schema of objects with names: engines read the schema '
                         f'of a pair in two ways; choose one of {GRAMMAR_FORMS[:-1]}')


# --- numbers ----------------------------------------------------------------------------------
def _numbers(grammar: Grammar, low: int, high: int) -> list[list[Piece]]:
    """The numbers of steps ``low`` (0 or 1) to ``high`` (N - 1 or N), longest first."""
    if grammar.style == 'int':
        return _integers(low, high)
    digits = grammar.digits
    one = [[f'1.{"0" * digits if grammar.style == "fixed" else "0"}']] * (high == grammar.steps)
    if grammar.style == 'fixed':
        if not low:
            return [*one, ['0.', ('0', '9', digits, digits)]]
        rest = [(i, digits - 1 - i) for i in range(digits)]  # zeros, then a digit, then others
        return [*one, *([f'0.{"0" * i}', ('1', '9', 1, 1), ('0', '9', n, n)] for i, n in rest)]
    # repr: no zero at the end, and not below 1e-4
    short = min(digits, 4)
    long = [[f'0.{"0" * i}', ('1', '9', 1, 1), ('0', '9', 3 - i, digits - 2 - i),
             ('1', '9', 1, 1)] for i in range(4) if digits > 4]
    return [*one, *long, ['0.', ('0', '9', 0, short - 1), ('1', '9', 1, 1)],
            *[['0.0']] * (low == 0)]


def _integers(low: int, high: int) -> list[list[Piece]]:
    digits = str(high)
    length = len(digits)
    if length == 1:
        return [[(str(low), digits, 1, 1)]]
    found: list[list[Piece]] = []
    end = len(digits.rstrip('9')) - 1  # from here on every digit goes up to 9
    for i in range(end + 1):
        first, last = int(i == 0), int(digits[i]) - (i < end)
        if first <= last:
            found.append([digits[:i], (str(first), str(last), 1, 1),
                          ('0', '9', length - 1 - i, length - 1 - i)])
    # those of fewer digits, or of as many where all are nines
    found.append([('1', '9', 1, 1), ('0', '9', 0, length - 2 + (end < 0))])
    return found + [['0']] * (low == 0)


# --- notations --------------------------------------------------------------------------------
def _number_rules(grammar: Grammar, kind: str) -> dict[str, list[list[Piece]]]:
    """Name -> numbers, for the numbers of an answer that differ in range."""
    if LIST_KINDS.get(kind, kind) == 'box':
        return {name: _numbers(grammar, *_bounds(grammar, kind, index))
                for name, index in (('first', 0), ('second', 2))}
    return {'number': _numbers(grammar, 0, grammar.steps)}


def _regex(grammar: Grammar, kind: str) -> str:
    words = {name: f'({"|".join(map(_regex_of, numbers))})'
             for name, numbers in _number_rules(grammar, kind).items()}
    comma, item = grammar.comma, LIST_KINDS.get(kind, kind)
    if item == 'box':
        inner = comma.join([words['first']] * 2 + [words['second']] * 2)
    else:
        inner = comma.join([words['number']] * 2)
    if item == 'rings':
        vertex = rf'\[{inner}\]'
        ring = rf'\[{vertex}({comma}{vertex}){{2,}}\]'
        inner = f'{ring}({comma}{ring})*'
    if kind in NAMED_KINDS:
        inner = rf'{_NAME_REGEX}{comma}\[{inner}\]'
    if kind in LIST_KINDS:
        inner = rf'\[{inner}\]({comma}\[{inner}\])*'
    return rf'\[({inner})?\]'


def _regex_of(number: list[Piece]) -> str:
    return ''.join(piece.replace('.', r'\.') if isinstance(piece, str) else _regex_class(*piece)
                   for piece in number)


def _regex_class(first: str, last: str, least: int, most: int) -> str:
    times = f'{{{least}}}' if least == most else f'{{{least},{most}}}'
    times = {(1, 1): '', (0, 1): '?'}.get((least, most), times)
    return (first if first == last else f'[{first}-{last}]') + times if most else ''


def _lark(grammar: Grammar, kind: str) -> str:
    terminals = {name.upper(): '|'.join(map(_regex_of, numbers))
                 for name, numbers in _number_rules(grammar, kind).items()}
    if kind in NAMED_KINDS:
        terminals['NAME'] = _NAME_REGEX
    return '\n'.join([f'{name}: {rule}' for name, rule in _rules(
        grammar, kind, 'start', str.upper).items()] + [
            f'{name}: /{pattern}/' for name, pattern in terminals.items()])


def _bnf(grammar: Grammar, kind: str) -> str:
    """GBNF: one rule a line, and names of letters alone, since llama.cpp does not read others.
    xgrammar's EBNF is a superset of it."""
    rules = _rules(grammar, kind, 'root', str)
    for name, numbers in _number_rules(grammar, kind).items():
        rules[name] = ' | '.join(' '.join(filter(None, map(_bnf_of, number)))
                                 for number in numbers)
    rules.update(_NAME_RULES if kind in NAMED_KINDS else {})
    return '\n'.join(f'{name} ::= {rule}' for name, rule in rules.items())


def _bnf_of(piece: Piece) -> str:
    if isinstance(piece, str):
        return f'"{piece}"' if piece else ''
    first, last, least, most = piece
    one = f'"{first}"' if first == last else f'[{first}-{last}]'
    maybe = ''
    for _ in range(most - least):  # not [0-9]? [0-9]?: one digit would be read in two ways
        maybe = f'({one} {maybe})?' if maybe else f'{one}?'
    return ' '.join([one] * least + [maybe] * bool(maybe))


def _rules(grammar: Grammar, kind: str, start: str, named) -> dict[str, str]:
    """Rules but those of numbers, in what Lark, EBNF and GBNF have in common."""
    comma, number = f' "{grammar.comma}" ', named('number')
    item, more = LIST_KINDS.get(kind, kind), comma.lstrip()
    rules: dict[str, str] = {}
    if item == 'box':
        inner = comma.join([named('first')] * 2 + [named('second')] * 2)
    else:
        inner = comma.join([number] * 2)
    if item == 'rings':
        rules = {'ring': f'"[" vertex{comma}vertex ({more}vertex)+ "]"',
                 'vertex': f'"[" {inner} "]"'}
        inner = f'ring ({more}ring)*'
    if kind in LIST_KINDS:
        rules = {'item': f'"[" {inner} "]"', **rules}
        inner = f'item ({more}item)*'
    if kind in NAMED_KINDS:
        rules = {'pair': f'"[" {named("name")}{comma}item "]"', **rules}
        inner = f'pair ({more}pair)*'
    return {start: f'"[" ({inner})? "]"', **rules}


def _schema(grammar: Grammar, kind: str) -> dict:
    """In words that every draft and engine knows: one range for all numbers."""
    number = (dict(type='integer', minimum=0, maximum=grammar.steps) if grammar.style == 'int'
              else dict(type='number', minimum=0, maximum=1))
    count = 4 if kind in ('box', 'boxes') else 2
    row = dict(type='array', items=number, minItems=count, maxItems=count)
    if kind in ('box', 'point'):
        return dict(anyOf=[row, dict(const=[])])
    if kind in ('boxes', 'points'):
        return dict(type='array', items=row)
    rings = dict(type='array', items=dict(type='array', items=row, minItems=3))
    return rings if kind == 'rings' else dict(type='array', items=dict(rings, minItems=1))


# --- what a text of JSON is -------------------------------------------------------------------
def _fits(value, kind: str, grammar: Grammar, form: str) -> bool:
    """Whether a value of JSON has the shape and range of an answer."""
    if not isinstance(value, list):
        return False
    if kind in NAMED_KINDS:
        return all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
                   and pair[1] != [] and _fits(pair[1], LIST_KINDS[kind], grammar, form)
                   for pair in value)
    if kind in LIST_KINDS:
        return all(item != [] and _fits(item, LIST_KINDS[kind], grammar, form) for item in value)
    if kind == 'rings':
        return all(isinstance(ring, list) and len(ring) >= 3 and all(
            _fits_row(row, 'point', grammar) for row in ring) for ring in value)
    return not value or _fits_row(value, kind, grammar, form != 'json-schema')


def _fits_row(row, kind: str, grammar: Grammar, bounded: bool = True) -> bool:
    if not isinstance(row, list) or len(row) != (4 if kind == 'box' else 2):
        return False
    scale = 1 if grammar.style == 'int' else grammar.steps
    for index, number in enumerate(row):
        low, high = _bounds(grammar, kind, index) if bounded else (0, grammar.steps)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return False
        if not low / scale <= number <= high / scale or scale == 1 and number != int(number):
            return False
    return True


def _memory(value: list, kind: str) -> list[str]:
    """What an answer of the right shape has that only a memory could forbid."""
    if kind in LIST_KINDS:
        items = [item[1] for item in value] if kind in NAMED_KINDS else value
        return [name for item in items for name in _memory(item, LIST_KINDS[kind])]
    if kind == 'rings':
        return ['distinct'] * any(len(set(map(tuple, ring))) < 3 for ring in value)
    if kind == 'box' and value:
        return ['corners'] * (value[0] >= value[2] or value[1] >= value[3])
    return []


def _is_spelled(word: str, grammar: Grammar) -> bool:
    """Whether a number in range is written as the grammar does."""
    share = float(word) / (grammar.steps if grammar.style == 'int' else 1)
    return 'e' not in word and grammar.number(round(share * grammar.steps)) == word


def _written(value, comma: str) -> str:
    """Lists as the grammar writes them, with 0 for every number and [] for every name."""
    if isinstance(value, str):
        return '[]'
    if not isinstance(value, list):
        return '0'
    return f'[{comma.join(_written(item, comma) for item in value)}]'
