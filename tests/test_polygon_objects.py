"""Objects with their names in one answer: their text and back, and what is made of a bad one."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_polygon_raster import disk, masks

from simpleseg_mm.polygon import (MAX_NAME, AnswerAutomaton, Grammar, PolygonCodec, WrittenRings,
                                  mask_iou, name_key, parse_answer, quoted_name, vote,
                                  written_masks)
from simpleseg_mm.polygon.names import read_name, writable_name

A, C = '[[[1,2],[3,4],[5,1]]]', '[[[0,0],[9,0],[9,9]]]'
B = '[[[6,6],[7,6],[7,7]],[[1,1],[2,2],[1,2]]]'
BAD = '[[[1,2],[3,4]]]'
CODEC = PolygonCodec(grammar='int100')


# --- malformed input -----------------------------------------------------------------------------
@pytest.mark.parametrize('text, found, truncated, dropped', [
    # text; each object: its name, its rings, and whether it is valid by itself
    (f'["cup",{A}]', [('cup', 1, True)], False, 0),  # one object where a list was asked for
    (f'["cup",{A}],["plate",{B}]', [('cup', 1, True), ('plate', 2, True)], False, 0),
    (f'[[["cup",{A}],["plate",{B}]]]', [('cup', 1, True), ('plate', 2, True)], False, 0),
    (A, [('', 1, False)], False, 0),  # one mask
    (f'[{A},{B}]', [('', 1, False), ('', 2, False)], False, 0),  # masks without names
    (f'[{A},["cup",{B}]]', [('', 1, False), ('cup', 2, True)], False, 0),
    (f'[["cup",[{A}]],["plate",[{B}]]]', [('cup', 1, False), ('plate', 2, False)], False, 0),
    ('[["cup",[[1,2],[3,4],[5,1]]],["cup",[[1,2],[3,4],[5,1]]]]',
     [('cup', 1, False), ('cup', 1, False)], False, 0),  # a level too few
    (f'{{"cup": [{A},{C}], "plate": [{B}]}}',
     [('cup', 1, False), ('cup', 1, False), ('plate', 2, False)], False, 0),  # a JSON object
    (f"[['cup', {A}], ['plate', {B}]]", [('cup', 1, False), ('plate', 2, False)], False, 0),
    (f'[cup,{A}]', [('cup', 1, False)], False, 0), (f'[["cup" {A}]]', [('cup', 1, False)], False,
                                                    0),
    (f'"cup": {A}, "plate": {B}', [('cup', 1, False), ('plate', 2, False)], False, 0),
    (f'[["cup",{A}],{B}]', [('cup', 1, True), ('cup', 2, False)], False, 0),
    ('[["cup",[[1,2]]]]', [('cup', 0, False)], False, 1),
    (f'[["cup",{A}] and ["plate",{B}]]', [('cup', 1, True)], False, 0),  # words end an answer
    ('[["cup",[1,2,3,4]],["plate",[[[1,2],[3,4],[5,1]]]]]', [('cup', 0, False),
                                                              ('plate', 1, True)], False, 0),
    (f'[["cup",[]],["plate",{A}]]', [('plate', 1, True)], False, 1),
    (f'[["cup",{BAD}],["plate",{A}]]', [('cup', 0, False), ('plate', 1, True)], False, 1),
    (f'[["",{A}],["  ",{B}]]', [('', 1, False), ('  ', 2, False)], False, 0),  # no names
    (f'[["{101 * "x"}",{A}]]', [(100 * 'x', 1, False)], False, 0),
    (f'[["\\u00e9\\n",{A}],["\\ud800",{A}],["\\q",{A}]]',
     [('é\n', 1, False), ('\ufffd', 1, False), ('\\q', 1, False)], False, 0),  # other escapes
    (f'[["a\nb",{A}]]', [('a\nb', 1, False)], False, 0),
    (f'[["cup",{A}],["pla', [('cup', 1, True)], True, 0),
    (f'[["cup",{A}],["plate",[[[6,6],[7,6],[7', [('cup', 1, True), ('plate', 0, False)], True, 1),
    (f'[["cup",{A}],["plate",', [('cup', 1, True)], True, 0),
    (f'[["cup",{A}]', [('cup', 1, True)], True, 0), (f'[["cup",{A}', [('cup', 1, True)], True, 0),
])
def test_a_malformed_list(text, found, truncated, dropped):
    parsed = parse_answer(text, 'int10', 'objects')
    assert not parsed.valid and parsed.kind == 'objects'
    assert [(one.name, len(one.rings), one.valid) for one in parsed.instances] == found
    assert (parsed.truncated, parsed.dropped) == (truncated, dropped)
    for one in parsed.instances:
        if one.valid:  # its own text says the same
            alone = parse_answer(text[slice(*one.span)], 'int10', 'rings')
            assert alone.valid and alone.span == (0, one.span[1] - one.span[0])


@pytest.mark.parametrize('text, found, valid', [
    ('[]', 'empty', True), ('None: [].', 'empty', True), ('[[]]', 'empty', False),
    ('', 'none', False), (None, 'none', False), ('The "cups" and \'plates\'', 'none', False),
    ('[["cup"]]', 'none', False), ('[["cup",[1,2]]]', 'none', False), ('{}', 'none', False),
    ('["cup", "plate"]', 'none', False),
])
def test_no_objects(text, found, valid):
    parsed = parse_answer(text, 'int10', 'objects')
    assert (parsed.kind, parsed.valid) == (found, valid) and not any(
        one.rings for one in parsed.instances)


@pytest.mark.parametrize('kind, instances', [('masks', 2), ('rings', 0)])
def test_objects_where_masks_were_asked_for(kind, instances):
    """All of them, without their names, and not valid."""
    parsed = parse_answer(f'Sure: [["a]b",{A}],["[[1",{B}]].', 'int10', kind)
    assert parsed.kind == kind and not parsed.valid and len(parsed.rings) == 3
    assert len(parsed.instances) == instances
    assert all(one.name is None for one in parsed.instances)


def test_the_first_of_two_lists_is_the_answer():
    parsed = parse_answer(f'See [["cup",{A}]] and [["plate",{B}]].', 'int10', 'objects')
    assert parsed.valid and [one.name for one in parsed.instances] == ['cup']


def test_an_answer_cut_anywhere():
    text = f'[["cup",{A}],["a\\"b]",{B}],["cup",{C}],["x",{B}]]'
    whole = parse_answer(text, 'int10', 'objects')
    assert whole.valid and [one.name for one in whole.instances] == ['cup', 'a"b]', 'cup', 'x']
    for cut in range(len(text)):
        parsed = parse_answer(text[:cut], 'int10', 'objects')
        assert not parsed.valid and parsed.truncated == (cut > 0), text[:cut]
        valid = [(one.name, one.span) for one in parsed.instances if one.valid]
        assert valid == [(one.name, one.span) for one in whole.instances if one.span[1] <= cut]
        assert len(parsed.instances) - len(valid) <= 1


def test_an_answer_cut_in_the_middle_of_the_ninth():
    found = [disk((100, 200), (50, 10 + 20 * k), 8) for k in range(9)]
    text = CODEC.encode_objects(found, [f'cup {k}' for k in range(9)])
    start, end = parse_answer(text, 'int100', 'objects').instances[8].span
    cut = CODEC.decode(text[:(start + end) // 2], (100, 200), 'objects')
    assert cut.parsed.truncated and not cut.well_formed
    assert [one.name for one in cut.instances] == [f'cup {k}' for k in range(9)]
    assert [one.well_formed for one in cut.instances] == [True] * 8 + [False]


def test_a_streamed_answer_shows_every_ring():
    text = f'[["a]",{A}],["b",[[[6,6],[7,6],[7,7]],[[1,1],[2'
    found = written_masks(text, 'int10', many=True)
    assert [[len(ring) for ring in rings] for _, rings in found] == [[3], [3, 1]]
    assert [text[start:start + 6] for start, _ in found] == ['[[[1,2', '[[[6,6']
    reader, news = WrittenRings('int10', many=True), []
    for end in range(len(text) + 1):
        news += [(number, sum(map(len, rings))) for number, rings in reader.news(text[:end])]
    assert news == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (1, 4)]


# --- names ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['', ' ', ' cup', '\u3000', 'a\nb', 'a\x00', '\ud800', None, 3,
                                  (MAX_NAME + 1) * 'x', (MAX_NAME // 2 + 1) * '\\"'])
def test_names_that_cannot_be_written(name):
    with pytest.raises(ValueError, match='an object has the name .* at most 100') as error:
        quoted_name(name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['cup', 'dining table', '5" pipe', 'a\\b', 'café', '杯子', '🐈',
                                  '], [[', "it's", '{"a": 1}', MAX_NAME * 'x', '\x7f'])
def test_names_go_round(name):
    text = quoted_name(name)
    assert json.loads(text) == name == read_name(text) == writable_name(name)
    answer = f'[[{text},{A}],[{text},{B}]]'
    parsed = parse_answer(f'Here: {answer} "and" [1,2]', 'int10', 'objects')
    assert parsed.valid and [one.name for one in parsed.instances] == [name, name]
    automaton = AnswerAutomaton.of('int10', 'objects')
    assert automaton.follow(automaton.start, answer) == ('done', )


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_what_a_model_wrote_can_be_written(name):
    written = writable_name(name)
    assert quoted_name(written) and writable_name(written) == written
    assert read_name(json.dumps(name)) == name.encode('utf-16', 'surrogatepass').decode(
        'utf-16', 'replace')[:MAX_NAME] or len(name) > MAX_NAME
    assert name_key(f' {name} ') == name_key(name.upper().lower()) or not name.isascii()


# --- texts and back ------------------------------------------------------------------------------
@pytest.mark.parametrize('name, text', [
    ('int100', '[["cup",[[[1,2],[3,4],[5,1]]]],["a\\"b",[[[0,0],[1,1],[1,0]]]]]'),
    ('decimal2', '[["cup", [[[0.01, 0.02], [0.03, 0.04], [0.05, 0.01]]]], '
     '["a\\"b", [[[0.0, 0.0], [0.01, 0.01], [0.01, 0.0]]]]]')])
def test_formats(name, text):
    grammar, size = Grammar.from_name(name), (100, 100)
    rings = np.array([[1, 2], [3, 4], [5, 1]]), np.array([[0, 0], [1, 1], [1, 0]])
    assert grammar.format_objects(['cup', 'none', 'a"b'], [[rings[0]], [], [rings[1]]],
                                  size) == text
    assert grammar.format_objects([], [], size) == '[]'
    assert parse_answer(text, name, 'objects').valid


NAMES = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=20).map(
    writable_name)


@settings(max_examples=60, deadline=None)
@given(found=st.lists(st.tuples(masks(), NAMES), max_size=6),
       grammar=st.sampled_from(['int1000', 'decimal3']))
def test_the_codec_gives_back_every_object(found, grammar):
    shape = found[0][0].shape if found else (5, 5)
    found = [pair for pair in found if pair[0].shape == shape]
    codec = PolygonCodec(grammar=grammar, tokens=None)
    text = codec.encode_objects(*zip(*found)) if found else codec.encode_objects([], [])
    answer = codec.decode(text, shape, 'objects')
    order = codec.order([mask for mask, _ in found])
    assert answer.parsed.valid and answer.named and answer.many
    assert [(one.mask.tolist(), one.name) for one in answer.instances] == [
        (found[i][0].tolist(), found[i][1]) for i in order]
    assert json.loads(text) == [[one.name, json.loads(one.text)] for one in answer.instances]
    assert AnswerAutomaton.of(grammar, 'objects').follow(('start', ), text) == ('done', )


@pytest.mark.parametrize('count', [2, 20, 200])
def test_so_many_objects_go_round(count):
    rng = np.random.default_rng(count)
    found = [disk((300, 400), rng.integers(0, [300, 400]), rng.integers(3, 60))
             for _ in range(count)]
    names = [f'thing {rng.integers(9)}' for _ in range(count)]
    codec = PolygonCodec(tokens=None)
    answer = codec.decode(codec.encode_objects(found, names), (300, 400), 'objects')
    assert answer.well_formed and len(answer.instances) == count
    for number, one in zip(codec.order(found), answer.instances):
        assert (one.mask == found[number]).all() and one.name == names[number]


def test_too_many_for_the_text():
    rng = np.random.default_rng(0)
    found = [disk((400, 600), rng.integers(20, [380, 580]), 4 + k % 6) for k in range(200)]
    names = [f'thing {k}' for k in range(200)]
    codec = PolygonCodec(tokens=400)
    with pytest.warns(UserWarning, match='200 masks need more .* written coarser'):
        answer = codec.decode(codec.encode_objects(found, names), (400, 600), 'objects')
    assert answer.parsed.valid and len(answer.instances) == 200
    for number, one in list(zip(codec.order(found), answer.instances))[::20]:
        assert one.name == names[number] and mask_iou(one.mask, found[number]) > 0.4
    with pytest.warns(UserWarning, match='the largest [0-9]+ are written'):
        text = PolygonCodec(epsilon=0.001).encode_objects(found, [100 * 'n'] * 200)
    assert len(text) <= codec.max_chars


def test_names_and_masks_must_be_as_many():
    with pytest.raises(ValueError, match='1 masks have 2 names; give one each'):
        CODEC.encode_objects([np.ones((3, 3), bool)], ['a', 'b'])


# --- votes ---------------------------------------------------------------------------------------
def test_only_objects_of_one_name_are_voted_together():
    cup, plate = disk((100, 200), (50, 50), 30), disk((100, 200), (50, 150), 30)
    texts = [CODEC.encode_objects([cup, plate], names) for names in (
        ['cup', 'plate'], ['Cup', 'bowl'], ['cup', 'plate'])]
    voted = vote([CODEC.decode(text, (100, 200), 'objects', finished=True) for text in texts])
    assert voted.parsed.valid and [name_key(one.name) for one in voted.instances] == [
        'cup', 'plate']
    assert voted.agreements == pytest.approx([1, 2 / 3])
    assert mask_iou(voted.instances[0].mask, CODEC.decode(CODEC.encode(cup), (100, 200)).mask) == 1


@pytest.mark.parametrize('kind, mask', [('masks', '{}'), ('objects', '["cup",{}]')])
def test_boxes_among_masks_are_not_voted_with_them(kind, mask):
    square, box = '[[[10,10],[60,10],[60,60],[10,60]]]', '[10,10,60,60]'
    texts = [f'[{mask.format(square)}]', f'[{mask.format(box)}]', f'[{mask.format(square)}]']
    for order in (texts, texts[::-1], texts[1:] + texts[:1]):
        voted = vote([CODEC.decode(text, (100, 200), kind, finished=True) for text in order])
        assert len(voted.instances) == 1 and voted.agreement == pytest.approx(2 / 3)
        assert voted.mask.sum() == 100 * 50
