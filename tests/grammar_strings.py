"""Texts to hold exported grammars against the automaton: answers, and answers spoilt."""
import random
from functools import lru_cache

from simpleseg_mm.polygon import LIST_KINDS, NAMED_KINDS, AnswerAutomaton, Grammar

#: what is put in: what an answer is made of, and what a model adds
CHARS = '0123456789[],. -+eE\n\t"x５é'
#: what is put in or taken out as a whole
PIECES = [',,', '[]', '[[', ']]', ', ', '],[', '00', '0.', '.0', '1001', '-1', '0.0000', 'NaN',
          '1e-05', ' ', '```', 'The dog: ', '<|im_end|>']
#: names, and what is none
NAMES = ['"cup"'] * 8 + [
    '"dining table"', '"5\\" pipe"', '"a\\\\b"', '"tasse à café"', '"杯"', '"x"', '""', '" "',
    'cup', "'cup'", '"a\\n"', f'"{100 * "n"}"', f'"{101 * "n"}"', '"], ["', '"1,2"']


@lru_cache(maxsize=2)
def strings(name: str, kind: str, count: int, as_json: bool = False) -> list[str]:
    """``count`` texts that differ, of which about a third are answers; the same each time.

    ``as_json`` also writes numbers and white space as JSON may.
    """
    rng = random.Random(f'{name} {kind} {as_json}')
    automaton = AnswerAutomaton(name, kind)
    grammar, found = automaton.grammar, {'': None, '[]': None}
    while len(found) < count:
        text = walk(automaton, rng) if rng.random() < 0.05 else answer(grammar, kind, rng)
        if rng.random() < 0.62:
            for _ in range(rng.choice([1, 1, 1, 2])):
                text = spoilt(text, rng)
        if as_json and rng.random() < 0.4:
            text = other_json(text, rng)
        found[text] = None
    return list(found)


def step(grammar: Grammar, rng: random.Random) -> int:
    top = grammar.steps
    if rng.random() < 0.4:
        found = min(top, rng.choice([0, 1, 2, 9, 10, 11, 99, 100, top // 10, top // 2, top - 1,
                                     top]))
        if 'e' not in grammar.number(found) or rng.random() < 0.1:
            return found
    return rng.randint(0, top)


def answer(grammar: Grammar, kind: str, rng: random.Random) -> str:
    """Mostly an answer; with corners, vertices or their number as they come."""
    def row(steps):
        return f'[{grammar.comma.join(map(grammar.number, steps))}]'
    if kind in LIST_KINDS:
        items = [answer(grammar, LIST_KINDS[kind], rng) for _ in range(rng.choice([1, 2, 2, 3]))]
        if kind in NAMED_KINDS:
            items = [f'[{rng.choice(NAMES)}{grammar.comma}{item}]' for item in items]
        return f'[{grammar.comma.join(items)}]'
    if kind != 'rings':
        steps = [step(grammar, rng) for _ in range(2 if kind == 'point' else 4)]
        if kind == 'box' and rng.random() < 0.7:
            steps = [f(pair) for f in (min, max) for pair in zip(steps[:2], steps[2:])]
        return row(steps)
    rings = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        known = [[step(grammar, rng), step(grammar, rng)] for _ in range(rng.choice([2, 8, 8]))]
        number = rng.choice([3, 3, 4, 5, 6, 2 if rng.random() < 0.3 else 8])
        rings.append(f'[{grammar.comma.join(row(rng.choice(known)) for _ in range(number))}]')
    return f'[{grammar.comma.join(rings)}]'


def walk(automaton: AnswerAutomaton, rng: random.Random) -> str:
    """Any path of the automaton."""
    state, text = automaton.start, ''
    while not automaton.is_final(state):
        chars = automaton.chars(state)
        char = ']' if len(text) > 80 and ']' in chars else rng.choice(chars)
        state, text = automaton.step(state, char), text + char
    return text


def spoilt(text: str, rng: random.Random) -> str:
    at, to = sorted(rng.randint(0, len(text)) for _ in range(2))
    change = rng.choice(['delete', 'insert', 'replace', 'swap', 'cut', 'piece', 'double', 'drop',
                         'end', 'digit', 'comma'])
    if change == 'delete':
        return text[:at] + text[at + 1:]
    if change == 'insert':
        return text[:at] + rng.choice(CHARS) + text[at:]
    if change == 'replace':
        return text[:at] + rng.choice(CHARS) + text[at + 1:]
    if change == 'swap':
        return text[:at] + text[at + 1:at + 2] + text[at:at + 1] + text[at + 2:]
    if change == 'cut':
        return text[:at]
    if change == 'piece':
        return text[:at] + rng.choice(PIECES) + text[at:]
    if change == 'double':
        return text[:to] + text[at:to] + text[to:]
    if change == 'drop':
        return text[:at] + text[to:]
    if change == 'end':
        return text + rng.choice([*PIECES, *CHARS])
    places = [i for i, char in enumerate(text) if char in ('0123456789' if change == 'digit' else
                                                           ',. ')]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + rng.choice(['0', '1', '9', '', '00'] if change == 'digit' else
                                  ['', ' ', ', ', ',', '.']) + text[at + 1:]


def other_json(text: str, rng: random.Random) -> str:
    """Other white space, or another spelling of a number."""
    if rng.random() < 0.5:
        space = rng.choice(['', ' ', '  ', '\n', '\n ', '\t'])
        mark = rng.choice(',[]')
        return text.replace(mark, rng.choice([mark + space, space + mark]),
                            rng.choice([1, 2, len(text)])).replace(', ', rng.choice([',', ', ']))
    old, new = rng.choice([('0.', '0.0'), ('.0', ''), (',', '.0,'), ('0', '0e0'), (']', '0]'),
                           ('[0', '[-0'), ('0.1', '1e-1'), ('1', '1E+0'), ('5', '50')])
    return text.replace(old, new, rng.choice([1, len(text)]))
