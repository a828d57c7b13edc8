"""The grammar of answers over characters, against the formatter and the parser."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleseg_mm.polygon import ANSWER_KINDS, AnswerAutomaton, Grammar, parse_answer

GRAMMARS = ['int1', 'int7', 'int37', 'int100', 'int1000', 'decimal1', 'decimal3', 'decimal5',
            'fixed1', 'fixed3']
BOUND = 400  # characters after which a walk closes what is open


def accepts(automaton, text):
    state = automaton.follow(automaton.start, text)
    return state is not None and automaton.is_final(state)


@pytest.mark.parametrize('options', [dict(kind='text'), dict(kind=None), dict(grammar='int0'),
                                     dict(grammar='decimal7'), dict(grammar=3)])
def test_unknown_grammars_and_kinds_are_refused(options):
    with pytest.raises(ValueError, match='choose|decimals'):
        AnswerAutomaton(**{'grammar': 'int100', **options})


@pytest.mark.parametrize('kind, grammar, text', [
    ('rings', 'int100', ''), ('rings', 'int100', '[[[1,2],[3,4]]]'),  # two vertices
    ('rings', 'int100', '[[[1,2],[3,4],[1,2]]]'), ('rings', 'int100', '[[[1,2],[3,4],[5,6]]'),
    ('rings', 'int100', '[[[01,2],[3,4],[5,6]]]'), ('rings', 'int100', '[[[101,2],[3,4],[5,6]]]'),
    ('rings', 'int100', '[[[1, 2],[3,4],[5,6]]]'), ('rings', 'int100', '[[[1,2],[3,4],[5,6]]] '),
    ('rings', 'int100', '[[1,2],[3,4],[5,6]]'), ('rings', 'int100', '[1,2]'),
    ('rings', 'int100', '[[]]'), ('rings', 'int100', '[[[1,2],[3,4],[5,6]],[]]'),
    ('rings', 'int100', '[[[-1,2],[3,4],[5,6]]]'), ('rings', 'int100', '[[[1.0,2],[3,4],[5,6]]]'),
    ('rings', 'decimal3', '[[[0.10, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('rings', 'decimal3', '[[[0.1,0.2],[0.3,0.4],[0.5,0.6]]]'),
    ('rings', 'decimal3', '[[[0, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('rings', 'decimal3', '[[[1.1, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('rings', 'decimal3', '[[[1.00, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('rings', 'decimal3', '[[[0.1234, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('rings', 'fixed3', '[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]]'),
    ('box', 'int100', '[5,6,5,8]'), ('box', 'int100', '[5,6,9,6]'), ('box', 'int100', '[9,6,5,8]'),
    ('box', 'int100', '[100,6,5,8]'), ('box', 'int100', '[1,2]'), ('box', 'int100', '[1,2,3]'),
    ('box', 'int100', '[1,2,3,4,5]'), ('point', 'int100', '[1]'), ('point', 'int100', '[1,2,3,4]'),
    ('masks', 'int100', '[[[1,2],[3,4],[5,6]]]'),  # one mask
    ('masks', 'int100', '[[[[1,2],[3,4]]]]'), ('masks', 'int100', '[[]]'),
    ('masks', 'int100', '[[[[1,2],[3,4],[5,6]]],[]]'), ('masks', 'int100', '[[[]]]'),
    ('masks', 'int100', '[[[[1,2],[3,4],[5,6]]], [[[1,2],[3,4],[5,6]]]]'),
    ('masks', 'int100', '[[[[[1,2],[3,4],[5,6]]]]]'),
    ('masks', 'int100', '[[[[1,2],[3,4],[5,6]]],[[[1,2],[3,4],[5,6]]]'),
    ('boxes', 'int100', '[1,2,3,4]'), ('boxes', 'int100', '[[5,6,5,8]]'),
    ('boxes', 'int100', '[[1,2,3,4],[5,6,7]]'), ('boxes', 'int100', '[[1,2,3,4],[9,6,5,8]]'),
    ('points', 'int100', '[1,2]'), ('points', 'int100', '[[[1,2]]]'),
    ('points', 'int100', '[[1,2],]'), ('points', 'int100', '[[1,2],[]]'),
    ('point', 'int100', '[[1,2]]'), ('point', 'decimal3', '[0., 0.1]'),
    ('point', 'decimal5', '[1e-05, 0.1]'), ('point', 'decimal5', '[0.00001, 0.1]'),
])
def test_what_is_not_an_answer(kind, grammar, text):
    assert not accepts(AnswerAutomaton(grammar, kind), text)


@pytest.mark.parametrize('kind, grammar, text', [
    ('rings', 'int100', '[]'), ('box', 'int100', '[]'), ('point', 'fixed2', '[]'),
    ('rings', 'int100', '[[[1,2],[1,2],[3,4],[1,2],[0,100]],[[7,7],[7,8],[8,8]]]'),
    ('rings', 'decimal3', '[[[0.0, 1.0], [0.26, 0.5], [0.001, 0.999]]]'),
    ('rings', 'fixed3', '[[[0.000, 1.000], [0.260, 0.500], [0.001, 0.999]]]'),
    ('box', 'int100', '[5,6,6,100]'), ('box', 'decimal3', '[0.0, 0.0, 0.001, 1.0]'),
    ('masks', 'int100', '[]'), ('boxes', 'int100', '[]'), ('points', 'fixed2', '[]'),
    ('masks', 'int100', '[[[[1,2],[3,4],[5,6]]]]'),
    ('masks', 'decimal1', '[[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], [[0.0, 0.2], [0.3, 0.4], '
     '[0.5, 0.6]]], [[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]]]'),
    ('boxes', 'int100', '[[5,6,6,100],[5,6,6,100]]'), ('points', 'decimal3', '[[0.1, 1.0]]'),
    ('points', 'int100', '[[1,2],[1,2],[3,4]]'),
    ('point', 'int1000', '[1000,0]'), ('point', 'decimal5', '[0.0001, 0.12345]'),
])
def test_what_is_one(kind, grammar, text):
    automaton = AnswerAutomaton(grammar, kind)
    assert accepts(automaton, text) and parse_answer(text, grammar, kind).valid
    assert automaton.chars(automaton.follow(automaton.start, text)) == ''


@pytest.mark.parametrize('name', GRAMMARS[:7] + GRAMMARS[8:])
def test_numbers_are_those_of_the_formatter(name):
    """Every prefix of every number goes on with what some number has there, and nothing else."""
    grammar = Grammar.from_name(name)
    automaton = AnswerAutomaton(grammar, 'point')
    words = [grammar.number(step) + grammar.comma[0] for step in range(grammar.steps + 1)]
    after = {}
    for word in words:
        for i, char in enumerate(word):
            after.setdefault(word[:i], set()).add(char)
    for prefix, chars in after.items():
        state = automaton.follow(automaton.start, '[' + prefix)
        assert set(automaton.chars(state)) - ({']'} if not prefix else set()) == chars, prefix


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(GRAMMARS), st.sampled_from(ANSWER_KINDS), st.data())
def test_every_walk_can_be_finished_and_is_valid(name, kind, data):
    automaton = AnswerAutomaton(name, kind)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    state, text = automaton.start, ''
    while not automaton.is_final(state):
        chars = automaton.chars(state)
        assert chars, text  # no dead end
        char = ']' if len(text) > BOUND and ']' in chars else rng.choice(list(chars))
        state, text = automaton.step(state, char), text + char
    answer = parse_answer(text, name, kind)
    assert answer.valid and answer.kind == ('empty' if text == '[]' else kind)


@pytest.mark.parametrize('kind, grammar, text, rest', [
    ('rings', 'int100', '', '[[[0,0],[0,1],[0,2]]]'),
    ('rings', 'int100', '[[[0,0],[0,0],[5', ',0],[0,1]]]'),
    ('rings', 'int100', '[[[0,2],[0,1],[0', ',0]]]'),
    ('rings', 'int1', '[[[1,0],[0,0],[0,1],[1', ',0]]]'),  # three are distinct already
    ('rings', 'int1', '[[[1,1],[1,0],[1,0', '],[0,0]]]'),  # that vertex cannot be a new one
    ('rings', 'int1', '[[[0,1],[0,0],[', '1,0]]]'),
    ('rings', 'decimal3', '[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.10', '1]]]'),
    ('rings', 'decimal3', '[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]], ', '[[0.0, 0.0], [0.0, 0.1], '
     '[0.0, 0.2]]]'),
    ('rings', 'fixed3', '[[[0.100, 0.200], [0.300, 0.400], [0.500, 0.', '000]]]'),
    ('rings', 'fixed1', '[[[0.0, 0.0], [0.0, 0.1], [0.0, 0.', '2]]]'),
    ('box', 'int100', '', '[0,0,1,1]'), ('box', 'int100', '[99,7', ',100,8]'),
    ('box', 'int1000', '[123,4,1', '24,5]'), ('box', 'int1000', '[123,4,2', '00,5]'),
    ('box', 'decimal3', '[0.998, 0.899, 0.', '999, 0.9]'),
    ('masks', 'int100', '', '[[[[0,0],[0,1],[0,2]]]]'), ('masks', 'int100', '[[', '[[0,0],[0,1],'
                                                         '[0,2]]]]'),
    ('masks', 'int100', '[[[[0,0],[0,1],[0,2]]]', ']'),
    ('masks', 'int100', '[[[[0,0],[0,1],[0,2]]],', '[[[0,0],[0,1],[0,2]]]]'),
    ('boxes', 'int100', '[[99,7', ',100,8]]'), ('boxes', 'int100', '', '[[0,0,1,1]]'),
    ('boxes', 'int100', '[[1,2,3,4]', ']'), ('points', 'decimal3', '[[1.0, 0.0],', ' [0.0, 0.0]]'),
    ('point', 'decimal3', '[1', '.0, 0.0]'), ('point', 'int100', '[]', ''),
])
def test_the_rest_of_an_answer(kind, grammar, text, rest):
    automaton = AnswerAutomaton(grammar, kind)
    assert automaton.rest(automaton.follow(automaton.start, text)) == rest


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(GRAMMARS + ['decimal6', 'fixed6']),
       st.sampled_from(ANSWER_KINDS), st.data())
def test_the_rest_completes_whatever_is_written(name, kind, data):
    automaton = AnswerAutomaton(name, kind)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    state, text = automaton.start, ''
    while len(text) < 60 and not automaton.is_final(state):
        rest = automaton.rest(state)
        assert len(rest) < 128 and rest == rest[0] + automaton.rest(automaton.step(state, rest[0]))
        answer = parse_answer(text + rest, name, kind)
        assert answer.valid and answer.kind == kind
        char = rng.choice(list(automaton.chars(state)))
        state, text = automaton.step(state, char), text + char


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(GRAMMARS), st.integers(0, 2**32))
def test_it_takes_what_the_formatter_writes_and_the_parser_finds_valid(name, seed):
    grammar, rng = Grammar.from_name(name), np.random.default_rng(seed)
    top = min(grammar.steps, int(rng.choice([1, 4, grammar.steps])))  # small: vertices repeat
    rings = [rng.integers(0, top + 1, (rng.integers(1, 7), 2)) for _ in range(rng.integers(0, 4))]
    text = grammar.format_steps(rings)
    assert accepts(AnswerAutomaton(name), text) == parse_answer(text, name, 'rings').valid
    size = (grammar.steps, grammar.steps)
    box = rng.integers(0, top + 1, 4)
    text = grammar.format_box(box, size)
    assert accepts(AnswerAutomaton(name, 'box'), text) == parse_answer(text, name, 'box').valid
    text = grammar.format_point(box[:2], size)
    assert accepts(AnswerAutomaton(name, 'point'), text) == parse_answer(text, name, 'point').valid
    for kind, text in [
            ('masks', grammar.format_masks([rings[:k] for k in range(1, len(rings) + 1)], size)),
            ('boxes', grammar.format_boxes([box, box], size)),
            ('points', grammar.format_points([box[:2], box[2:]], size))]:
        assert accepts(AnswerAutomaton(name, kind), text) == parse_answer(text, name, kind).valid


@pytest.mark.parametrize('kind', ['rings', 'masks'])
@pytest.mark.parametrize('name', ['int37', 'decimal3'])
def test_reduced_states_allow_the_same(name, kind):
    """Whatever is forgotten, the characters up to the end of a vertex are the same."""
    automaton, rng = AnswerAutomaton(name, kind), np.random.default_rng(0)
    first = {}
    for _ in range(30):
        state, length = automaton.start, 0
        while not automaton.is_final(state) and length < 300:
            chars = automaton.chars(state)
            assert first.setdefault(automaton.reduced(state), chars) == chars
            state, length = automaton.step(state, rng.choice(list(chars))), length + 1
    assert len(first) > 100
