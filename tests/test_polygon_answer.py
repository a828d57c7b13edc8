"""Tasks, and the record of an answer: read once, whoever asks."""
import copy
import pickle

import numpy as np
import pytest

from simpleseg_mm.polygon import ANSWER_KINDS, TASKS, Answer, PolygonCodec, Task, codec_of
from simpleseg_mm.polygon import text as parser
from simpleseg_mm.structures import Prompt

CODEC = PolygonCodec(grammar='int100')
SIZE = (100, 200)
SQUARE = '[[[10,20],[60,20],[60,80],[10,80]]]'  # of 200 x 100: x 20..120, y 20..80


# --- tasks -----------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['text2text', 'text2polygon', 'mask2', '', 'Text2mask', None, 3,
                                  ['text2mask'], 'text2mask ', 'extreme2text', 'question2text'])
def test_there_is_no_such_task(name):
    assert Task.find(name) is None
    with pytest.raises(ValueError, match=r"unknown task .*choose from \('text2point', ") as error:
        Task.from_name(name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('pair', [('text', 'text'), ('point', 'rings'), ('extreme', 'mask'),
                                  ('question', 'box'), (None, 'mask'), ('box', 'masks'),
                                  ('question', 'masks'), ('masks', 'text'), ('text', 'objects'),
                                  ('image', 'mask'), ('image', 'masks'), ('objects', 'text')])
def test_what_is_no_task_cannot_be_made(pair):
    with pytest.raises(ValueError, match='there is no task from'):
        Task(*pair)


@pytest.mark.parametrize('name, given, wanted, kind, for_absent', [
    ('text2mask', 'text', 'mask', 'rings', 'text2mask'),
    ('point2mask', 'point', 'mask', 'rings', 'text2mask'),
    ('mask2box', 'mask', 'box', 'box', 'text2box'),
    ('box2point', 'box', 'point', 'point', 'text2point'),
    ('mask2extreme', 'mask', 'extreme', 'point', 'text2extreme'),
    ('box2text', 'box', 'text', None, 'text2mask'),
    ('question', 'question', 'text', None, 'text2mask'),
    ('text2masks', 'text', 'masks', 'masks', 'text2masks'),
    ('text2points', 'text', 'points', 'points', 'text2points'),
    ('image2objects', 'image', 'objects', 'objects', 'image2objects'),
])
def test_tasks(name, given, wanted, kind, for_absent):
    task = Task.from_name(name)
    assert task == Task(given, wanted) == Task.find(name) and task.name == name
    assert (task.kind, task.for_absent.name) == (kind, for_absent)
    single = 'text2mask' if task.named else name[:-1]
    assert task.single == (Task.from_name(single) if task.many else task)
    assert task.named == (name == 'image2objects')


def test_all_tasks_and_what_a_person_gives():
    assert len(TASKS) == 20 and all(Task.from_name(name) is task for name, task in TASKS.items())
    assert [name for name, task in TASKS.items() if task.many] == [
        'text2masks', 'text2boxes', 'text2points', 'image2objects']
    assert all(Task(kind, 'mask').kind == 'rings' for kind in Prompt.KINDS)


# --- answers ---------------------------------------------------------------------------------
@pytest.fixture
def looks(monkeypatch):
    """Every look for something in a text: what, and the text."""
    seen = []
    for name in ('find_rings', 'find_objects', '_find_numbers', '_find_list', '_find_empty'):
        def counted(text, *args, _name=name, _real=getattr(parser, name)):
            seen.append((_name, '' if _name == '_find_empty' else args[-1], text))
            return _real(text, *args)
        monkeypatch.setattr(parser, name, counted)
    return seen


def everything(answer: Answer) -> None:
    for name in ('instances', 'parsed', 'rings', 'mask', 'spans', 'box', 'parts', 'says_nothing',
                 'well_formed') * 2:
        getattr(answer, name)
    for kind in ANSWER_KINDS:
        answer.found(kind)


@pytest.mark.parametrize('kind', [*ANSWER_KINDS, None])
@pytest.mark.parametrize('text', [SQUARE, '[]', '[1,2,3,4]', '[1,2]', 'words', '', '[[[1,2', None,
                                  '[[[1,1],[2,2]]]', f'{SQUARE} [1,2,3,4] []', '[[5,6,50,60]]'])
def test_nothing_is_looked_for_twice(looks, text, kind):
    answer = CODEC.decode(text, SIZE, kind)
    assert not looks  # not before it is asked for
    everything(answer)
    everything(answer.at((50, 50)))
    assert len(looks) == len(set(looks)) and len(looks) <= 8


def test_one_look_reads_a_good_answer(looks):
    answer = CODEC.decode(SQUARE, SIZE)
    assert answer.mask.sum() == 100 * 60 == answer.spans.area
    assert answer.box.tolist() == [20, 20, 120, 80] and len(answer.parts) == 1
    assert [name for name, *_ in looks] == ['find_rings']


@pytest.mark.parametrize('text, kind, area, box, found', [
    # text, asked for, pixels of the mask, box, kind that is found
    ('[10,20,60,80]', 'rings', 0, [20, 20, 120, 80], 'none'),
    ('[10,20,60,80]', 'box', 0, [20, 20, 120, 80], 'box'),
    ('[10,20,60,80]', None, 0, [20, 20, 120, 80], 'box'),
    ('[[10,20,60,80]]', 'rings', 0, [20, 20, 120, 80], 'rings'),  # in brackets of rings
    ('[10,20]', 'box', 0, None, 'none'),
    ('[]', 'rings', 0, None, 'empty'),
    ('[] but not [10,20,60,80]', 'rings', 0, None, 'empty'),  # what says nothing has no box
    (SQUARE, 'box', 6000, [20, 20, 120, 80], 'none'),  # an outline where a box was asked for
    (SQUARE, None, 6000, [20, 20, 120, 80], 'rings'),
    (f'{SQUARE}: [0,0,5,5]', 'rings', 6000, [20, 20, 120, 80], 'rings'),
    (f'{SQUARE}: [0,0,5,5]', 'box', 0, [0, 0, 10, 5], 'box'),  # what was asked for counts
    ('no idea', 'rings', 0, None, 'none'),
    (None, 'rings', 0, None, 'none'), (None, 'box', 0, None, 'none'),
])
def test_what_an_answer_says(text, kind, area, box, found):
    answer = CODEC.decode(text, SIZE, kind)
    assert answer.mask.shape == SIZE and answer.mask.dtype == bool
    assert (int(answer.mask.sum()), answer.parsed.kind) == (area, found)
    assert (None if answer.box is None else answer.box.tolist()) == box
    assert answer.says_nothing == (found == 'empty')


@pytest.mark.parametrize('text, finished, well_formed', [
    (SQUARE, True, True), (SQUARE, None, True), (SQUARE, False, False), ('[', True, False)])
def test_a_well_formed_answer(text, finished, well_formed):
    assert CODEC.decode(text, SIZE, finished=finished).well_formed is well_formed


def test_the_same_answer_at_another_size():
    answer = CODEC.decode(SQUARE, SIZE, num_tokens=7, finished=False)
    small = answer.at((50, 50))
    assert small.mask.shape == (50, 50) and small.mask.sum() == 25 * 30
    assert (small.text, small.num_tokens, small.finished) == (SQUARE, 7, False)
    assert small.parsed is answer.parsed and answer.mask.shape == SIZE


def test_copies_share_what_is_read_and_files_do_not_hold_it():
    answer = CODEC.decode(SQUARE, (1000, 1000))
    answer.mask, answer.spans
    assert copy.deepcopy(dict(a=[answer]))['a'][0] is answer
    written = pickle.dumps(answer)
    assert len(written) < 2000
    assert np.array_equal(pickle.loads(written).mask, answer.mask)


def test_an_answer_in_words():
    answer = Answer('two dogs', SIZE, None, None)
    assert answer.at((1, 1)).text == 'two dogs'
    with pytest.raises(ValueError, match='without a codec is words'):
        answer.mask


def test_one_codec_a_spec():
    assert codec_of('int100/default') is codec_of('int100/default')
    for spec in ('int100', None, ['int100/default'], 3):
        with pytest.raises(ValueError, match='spec is'):
            codec_of(spec)
