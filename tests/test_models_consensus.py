"""A consensus in the model: several answers to a prompt that is read once."""
import copy

import pytest
import torch
from test_models_refilling import IMAGES, PROMPTS
from test_models_simpleseg import sample

from simpleseg_mm.engines.answers import EngineAnswers
from simpleseg_mm.models.consensus import Consensus, Seeds
from simpleseg_mm.registry import MODELS

pytestmark = pytest.mark.usefixtures('one_thread')
COUNT = len(PROMPTS)


#: for tests that take seconds: without measures they are slow ones
BOTH = pytest.mark.parametrize('nano', [pytest.param([], marks=pytest.mark.slow, id='plain'),
                                          pytest.param('auto', id='auto')], indirect=True)


@pytest.fixture(scope='module', params=[[], 'auto'], ids=['plain', 'auto'])
def nano(request):
    return MODELS.build(dict(type='SimpleSeg', generation=dict(max_new_tokens=60), mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano_sft', acceleration=request.param)))


@pytest.fixture
def consensus(nano):
    """Sets the consensus of the model for a test."""
    def set_to(**settings):
        nano.consensus = Consensus.of(settings)
        return nano
    yield set_to
    nano.consensus = None


def samples(task='text2mask', count=COUNT):
    found = []
    for number, prompt in enumerate(PROMPTS[:count]):
        one = sample([(prompt, '[]')], (112, 84), 'int100/default')
        one.set_metainfo(dict(task=task, img_id=number))
        found.append(one)
    return found


def predicted(model, size=COUNT, asked=None, order=None, **options):
    """Samples, predicted ``size`` at a time."""
    asked = samples() if asked is None else asked
    order = range(len(asked)) if order is None else order
    pairs = [(IMAGES[i], asked[i]) for i in order]
    batches = [dict(inputs=[image for image, _ in part], data_samples=[one for _, one in part])
               for part in (pairs[i:i + size] for i in range(0, len(pairs), size))]
    for _ in model.predict_stream(batches, **options):
        pass
    return asked


def texts(asked):
    return [(one.pred_text, one.pred_answer.agreement,
             [voter.text for voter in one.pred_answer.voters]) for one in asked]


# --- settings ---------------------------------------------------------------------------------
@pytest.mark.parametrize('settings, message', [
    (dict(samples=-1), 'samples is -1.*0 to 1000'), (dict(samples=2.5), 'samples is 2.5'),
    (dict(samples=True), 'samples is True'), (dict(samples='8'), "samples is '8'"),
    (dict(temperature=0), 'temperature is 0; give above 0'),
    (dict(temperature=float('nan')), 'temperature is nan'), (dict(seed=-3), 'seed is -3'),
    (dict(early_stop=0), 'early_stop is 0'), (dict(early_stop=1.2), 'early_stop is 1.2'),
    (dict(first=0), 'first is 0'), (dict(tokens=0), 'tokens is 0'),
    (dict(calibration=3), 'calibration is 3'), (dict(sampels=8), 'sampels.*keys of'),
    (8, 'is 8;')])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f'model.consensus.*{message}') as caught:
        Consensus.of(settings)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('generation', [dict(num_beams=2), dict(do_sample=True, top_k=3)])
def test_ways_of_writing_without_a_greedy_answer(consensus, generation):
    model = consensus(samples=2)
    with pytest.raises(ValueError, match='a consensus takes the greedy answer.*model.consensus'):
        predicted(model, **generation)


@pytest.mark.parametrize('settings, parts', [
    (dict(samples=8), [9, 0]),
    (dict(samples=16, early_stop=1e-9), [7, 2, 2, 2, 2, 2, 0]),
    (dict(samples=8, early_stop=1e-9), [4, 1, 1, 1, 1, 1, 0]),
    (dict(samples=20, early_stop=1e-9), [9, 2, 2, 2, 2, 2, 2, 0]),
    (dict(samples=8, early_stop=1e-9, first=7), [8, 1, 0]),
    (dict(samples=2, early_stop=1e-9, first=5), [3, 0]),
    (dict(samples=1, early_stop=1e-9), [2, 0]),
    (dict(samples=8, early_stop=0.3), [4, 0])])
def test_parts(settings, parts):
    from simpleseg_mm.polygon import PolygonCodec
    codec = PolygonCodec('default', 'int100')
    rule, have = Consensus.of(settings), []
    for part in parts:
        assert rule.further(have) == part
        have += [codec.decode(f'[[[10,10],[{30 + i},10],[20,{40 + i}]]]', (100, 100))
                 for i in range(len(have), len(have) + part)]


def test_the_more_there_are_the_less_another_changes():
    """Two answers of one mask and ever more of another, IoU 0.5."""
    from simpleseg_mm.polygon import PolygonCodec
    codec = PolygonCodec('default', 'int100')
    half, whole = (codec.decode(f'[[[0,0],[0,50],[{x},50],[{x},0]]]', (100, 100))
                   for x in (25, 50))
    # disagreement an answer: 1/6 of 3, 1/4 of 4, 1/5 of 5, 1/6 of 6, 1/7 of 7
    for stop, ends in ((0.06, 3), (0.05, 5), (0.03, 6), (0.021, 7), (0.02, 8)):
        rule, have = Consensus(samples=9, early_stop=stop), [half, half, whole]
        while count := rule.further(have):
            have += [whole] * count
        assert len(have) == ends, stop


# --- the vote is that of the answers ----------------------------------------------------------
def test_without_samples_it_is_the_greedy_answer(consensus, nano):
    greedy = predicted(nano)
    assert consensus(samples=0).consensus is None
    assert texts(predicted(nano)) == texts(greedy)
    assert not any(one.pred_answer.voters for one in greedy)
    assert {float(one.pred_instances.scores) for one in greedy} <= {0.0, 1.0}
    voted = predicted(consensus(samples=3))
    assert [one.pred_greedy_text for one in voted] == [one.pred_text for one in greedy]


@BOTH
def test_no_vote_depends_on_what_it_is_written_beside(consensus):
    model = consensus(samples=4, temperature=0.8, seed=3)
    expected = texts(predicted(model))
    assert len({text for _, _, voters in expected for text in voters}) > COUNT
    for size in (1, 3, 5):
        assert texts(predicted(model, size)) == expected
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    assert texts(predicted(model, 3, order=order)) == expected
    assert texts(predicted(consensus(samples=4, temperature=0.8, seed=4))) != expected
    fewer = texts(predicted(consensus(samples=2, temperature=0.8, seed=3)))
    assert [voters for _, _, voters in fewer] == [voters[:3] for _, _, voters in expected]


@BOTH
def test_answers_that_come_in_parts_are_the_same(consensus):
    """Where all are drawn, whatever the batch; prompts are not read again."""
    settings = dict(samples=6, temperature=0.8)
    expected = texts(predicted(consensus(**settings)))
    model = consensus(**settings, early_stop=1e-9, first=1)
    drawn = None
    for size in (COUNT, 3, 1):
        found = texts(predicted(model, size))
        drawn = drawn or [len(voters) for _, _, voters in found]
        assert [len(voters) for _, _, voters in found] == drawn
        for one, other in zip(found, expected):
            assert one[2] == other[2][:len(one[2])]
            if len(one[2]) == 7:
                assert one == other
    assert 7 in drawn


def test_answers_that_agree_end_the_drawing(consensus):
    model = consensus(samples=8, temperature=0.01, early_stop=0.02)
    found = predicted(model)
    for one in found:
        assert 4 <= one.pred_answers <= 9
        agreed = 1 - one.pred_agreement <= 0.02 * one.pred_answers
        assert agreed or one.pred_answers == 9
    assert any(one.pred_answers == 4 for one in found)


@pytest.mark.parametrize('early_stop', [None, 1e-9])
def test_a_prompt_is_read_once(consensus, early_stop, monkeypatch):
    model = consensus(samples=6, temperature=0.8, early_stop=early_stop, first=1)
    read, prefill = [], model.mllm.writer.prefill
    monkeypatch.setattr(model.mllm.writer, 'prefill', lambda batch: read.append(
        len(batch['input_ids'])) or prefill(batch))
    predicted(model, 3)
    assert sum(read) == COUNT


def test_scores_and_costs(consensus, nano):
    one = predicted(consensus(samples=3), asked=samples(count=1), order=[0])[0]
    answer = one.pred_answer
    sure = sum(voter.confidence for voter in answer.voters) / 4
    assert one.pred_agreement == answer.agreement and 0 < sure < 1
    assert one.pred_confidence == pytest.approx(answer.agreement * sure)
    assert one.pred_num_tokens == sum(voter.num_tokens for voter in answer.voters)
    assert float(one.pred_instances.scores) == (
        pytest.approx(answer.confidence) if answer.box is not None else 0)
    assert one.pred_seconds > 0 and one.pred_answers == 4


@pytest.mark.parametrize('task, count', [('text2mask', 4), ('text2box', 4), ('text2point', 0),
                                         ('text2masks', 4), ('text2boxes', 4),
                                         ('text2points', 0), ('question', 0), (None, 0)])
def test_kinds_that_can_be_voted(consensus, task, count):
    asked = predicted(consensus(samples=3), 2, samples(task))
    assert {len(one.pred_answer.voters) for one in asked} == {count}


def test_voted_and_others_in_one_stream(consensus):
    model = consensus(samples=3, temperature=0.8)
    asked = samples()
    for number in (0, 1, 5):
        asked[number].set_metainfo(dict(task='text2point'))
    mixed = texts(predicted(model, 2, asked))
    expected = texts(predicted(model))
    assert [len(voters) for *_, voters in mixed] == [0, 0, 4, 4, 4, 0, 4, 4]
    assert [one for one, other in zip(mixed, expected) if one[2]] == [
        other for one, other in zip(mixed, expected) if one[2]]


def test_constrained_answers_keep_to_the_grammar(consensus):
    found = predicted(consensus(samples=3, temperature=3.0), constrain=True)
    assert all(voter.parsed.valid for one in found for voter in one.pred_answer.voters)


def test_whoever_listens_hears_the_greedy_answer_and_ends_all(consensus):
    model = consensus(samples=3)
    expected = predicted(model)
    told = [[] for _ in PROMPTS]
    predicted(model, 3, on_tokens=lambda row, ids: told[row].extend(ids))
    assert [model.mllm.writer.read(ids).text for ids in told] == [
        one.pred_greedy_text for one in expected]
    ended = predicted(model, 3, on_tokens=lambda row, ids: row == 4)
    assert len(ended[4].pred_answer.voters) <= 4 and ended[4].pred_num_tokens <= 8
    assert texts(ended[:4] + ended[5:]) == texts(expected[:4] + expected[5:])


def test_seeds_are_of_the_content():
    one, other = Seeds(1, 3), Seeds(1, 3)
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    one.add(image, 'a')
    one.add(image, 'b')
    other.add(image.flip(0), 'b')
    other.add(image, 'b')
    assert one[3] == other[3] and one[5] == other[5]
    assert len({one[0], one[1], one[3], other[0]}) == 4
    turned = Seeds(1, 3)
    turned.add(image.view(3, 1, 4), 'a')
    assert turned[0] != one[0]


# --- another engine ---------------------------------------------------------------------------
class Engine:
    """Writes by the model itself, and counts what it is asked."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def write(self, images, prompts, group_size=1, sampling=None, seeds=None,
              max_new_tokens=None, structured=None, more=None):
        self.asked.append((len(prompts), group_size, sampling is not None))
        if sampling is None:
            return [[one] for one in self.model.answer(list(images), prompts)]
        return self.model.sample(list(images), prompts, group_size, seeds, sampling)


@BOTH
@pytest.mark.parametrize('settings', [dict(samples=4), dict(samples=6, early_stop=0.02, first=1)])
def test_an_engine_writes_the_same_groups(consensus, monkeypatch, settings):
    monkeypatch.setattr('simpleseg_mm.engines.answers._GROUPS', 3)
    model = consensus(temperature=0.8, **settings)
    asked = samples()
    asked[2].set_metainfo(dict(task='text2point'))
    expected = texts(predicted(model, asked=copy.deepcopy(asked)))
    engine = Engine(model)
    answers = EngineAnswers(model, engine)
    monkeypatch.setattr(model, 'group_stream', answers.groups, raising=False)
    assert texts(predicted(model, 2, asked)) == expected
    drawn = sum(prompts * group for prompts, group, sampled in engine.asked if sampled)
    assert drawn == sum(max(len(voters) - 1, 0) for *_, voters in expected)
    assert sum(prompts for prompts, _, sampled in engine.asked if not sampled) == COUNT
