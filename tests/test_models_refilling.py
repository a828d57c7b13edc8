"""Rows of answers that have ended are given to the next prompts: the same answers in fewer
passes."""
from itertools import islice

import numpy as np
import pytest
import torch
from test_models_auto import auto
from test_models_families import PICTURES, of_family
from test_models_simpleseg import picture, sample
from tiny_families import make

from simpleseg_mm.acceleration.ragged_cache import RaggedCache
from simpleseg_mm.acceleration.shared_prompts import SharedPromptCache
from simpleseg_mm.engine.rollout import InProcessRollout
from simpleseg_mm.models import decoding, simpleseg
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.models.step_cache import StepCache
from simpleseg_mm.polygon import AnswerAutomaton
from simpleseg_mm.registry import MODELS

pytestmark = pytest.mark.usefixtures('one_thread')
FORMS = [AnswerAutomaton.of('int100', 'boxes'), AnswerAutomaton.of('int100', 'masks'), None,
         AnswerAutomaton.of('decimal3', 'point')] * 2
PROMPTS = ['a', 'Where is the little red one? ' * 12, 'b c', 'the star', 'd', 'e f g ' * 9, 'h',
           'the red one on the left']
IMAGES = [PICTURES[i % 3] for i in range(len(PROMPTS))]
SEEDS = [(5, p, g) for p in range(len(PROMPTS)) for g in range(3)]
MEASURES = [[], 'auto']


def alone(model, **options):
    """Each prompt by itself."""
    forms = options.pop('forms', [None] * len(PROMPTS))
    return [model.answer([image], [prompt], [form], **options)[0]
            for image, prompt, form in zip(IMAGES, PROMPTS, forms)]


@pytest.fixture
def joined(monkeypatch):
    """Grows by what joins: rows before, rows that came."""
    found = []
    for kind in (StepCache, RaggedCache):
        def join(self, other, kind=kind, original=kind.join):
            found.append(kind)
            original(self, other)

        monkeypatch.setattr(kind, 'join', join)
    return found


@pytest.fixture(scope='module', params=MEASURES, ids=['plain', 'auto'])
def nano(request):
    return MODELS.build(dict(type='SimpleSeg', generation=dict(max_new_tokens=40), mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano', acceleration=request.param)))


def counted_passes(model, monkeypatch) -> list[int]:
    """Counts forward passes, of prompts and of tokens."""
    count, decoder = [0], model.mllm.hf.get_decoder()
    forward = decoder.forward

    def counted(*args, **options):
        count[0] += 1
        return forward(*args, **options)

    monkeypatch.setattr(decoder, 'forward', counted)
    return count


@pytest.fixture
def passes(nano, monkeypatch):
    return counted_passes(nano, monkeypatch)


def ending(lengths):
    """Ends answers after so many tokens."""
    left = list(lengths)

    def told(row, ids):
        left[row] -= len(ids)
        return left[row] <= 0
    return told


# --- the same answers -------------------------------------------------------------------------
@pytest.mark.parametrize('measures', MEASURES, ids=['plain', 'auto'])
@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen3_5', 'kimi_vl', 'internvl', 'gemma3',
                                    'glm4v'])
def test_no_answer_depends_on_what_it_is_written_beside(family, measures, joined, tmp_path,
                                                        monkeypatch):
    """Caches of keys and values, of linear attention, of a sliding window, compressed ones."""
    if family in ('internvl', 'gemma3', 'glm4v'):
        model = auto(make(family, tmp_path), acceleration=measures)
    else:
        model = of_family(family, acceleration=measures)
        with torch.no_grad():  # at the initial scale every token looks like every other
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
    constrained = dict(forms=FORMS, constrain=True, max_new_tokens=24)
    assert model.answer(IMAGES, PROMPTS, batch_size=3, **constrained) == alone(model,
                                                                               **constrained)
    assert joined and model.mllm.writer.network is model.mllm
    joined.clear()
    expected, lengths = alone(model, max_new_tokens=35), [5, 33, 2, 11, 1, 20, 8, 3]
    for size in (1, 2, 3, 20):
        answers = model.answer(IMAGES, PROMPTS, batch_size=size, max_new_tokens=35,
                               on_tokens=ending(lengths))
        assert [answer.token_ids for answer in answers] == [
            answer.token_ids[:length] for answer, length in zip(expected, lengths)]
    monkeypatch.setattr(type(model.mllm.writer), 'stop_tokens', list(range(0, 1000, 5)))
    groups = [model.sample([image], [prompt], 3, SEEDS[3 * i:3 * i + 3], Sampling(40), [form])[0]
              for i, (image, prompt, form) in enumerate(zip(IMAGES, PROMPTS, FORMS))]
    for size in (1, 2, 5):
        assert model.sample(IMAGES, PROMPTS, 3, SEEDS, Sampling(40), FORMS,
                            batch_size=size) == groups
    assert len({answer.num_tokens for group in groups for answer in group}) > 5
    assert len(joined) > 2


@pytest.mark.parametrize('options', [
    dict(repetition_penalty=1.5), dict(no_repeat_ngram_size=2), dict(num_beams=2),
    dict(repetition_penalty=1.2, sequence_bias=[[[2], 4.0]], bad_words_ids=[[30], [31, 32]]),
    dict(draft=False), dict(max_new_tokens=1), dict(max_new_tokens=2)])
def test_settings_of_transformers(nano, options):
    told = [[] for _ in PROMPTS]
    expected = alone(nano, **options)
    assert nano.answer(IMAGES, PROMPTS, batch_size=3, on_tokens=lambda row, ids: told[row].extend(
        ids), **options) == expected
    assert [tuple(ids) for ids in told] == [answer.token_ids for answer in expected]


def test_log_probabilities_are_those_of_each_alone(nano):
    refilled = nano.answer(IMAGES, PROMPTS, FORMS, batch_size=2, constrain=True)
    for one, other in zip(refilled, alone(nano, forms=FORMS, constrain=True)):
        assert one.token_logps == pytest.approx(other.token_logps, abs=1e-4)


def test_one_answer_is_ended_and_what_is_raised_ends_all(nano):
    expected = alone(nano)
    assert expected[4].num_tokens > 2
    assert nano.training
    count = [0]

    def end_the_fifth(row, ids):
        count[0] += row == 4
        return row == 4 and count[0] == 2

    answers = nano.answer(IMAGES, PROMPTS, batch_size=2, on_tokens=end_the_fifth)
    assert answers[4].token_ids == expected[4].token_ids[:2] and not answers[4].finished
    assert answers[:4] + answers[5:] == expected[:4] + expected[5:]

    def fail(row, ids):
        if row == 6:
            raise RuntimeError('enough')

    with pytest.raises(RuntimeError, match='enough'):
        nano.answer(IMAGES, PROMPTS, batch_size=2, on_tokens=fail)
    assert {part.training for part in nano.modules()} == {True}


@pytest.mark.parametrize('batch_size', [None, 1, 3, 4, 100])
def test_rollouts(nano, batch_size):
    engine = InProcessRollout(batch_size=batch_size, max_new_tokens=30)
    assert (engine.generate(nano, IMAGES, PROMPTS, 3, SEEDS, FORMS)
            == nano.sample(IMAGES, PROMPTS, 3, SEEDS, Sampling(30)))


@pytest.mark.parametrize('images, seeds, message', [
    (IMAGES, SEEDS[1:], '23 seeds for 24 answers'), (IMAGES[1:], SEEDS, 'zip')])
def test_what_does_not_match(nano, images, seeds, message):
    with pytest.raises(ValueError, match=message):
        nano.sample(images, PROMPTS, 3, seeds, Sampling(5), batch_size=2)


# --- fewer passes -----------------------------------------------------------------------------
@pytest.mark.parametrize('group, size', [(1, 8), (8, 2)])
def test_a_long_answer_does_not_hold_its_batch(nano, passes, group, size):
    """Lengths are geometric: most answers are short, a few long."""
    prompts = 64 // group
    images, texts = [PICTURES[2]] * prompts, ['red'] * prompts
    seeds = [(1, i) for i in range(64)]
    lengths = np.random.default_rng(3).geometric(1 / 20, 64).clip(max=120)
    counts, answers = [], []
    for step in (size, prompts):  # batch after batch, and refilled
        passes[0], found = 0, []
        for i in range(0, prompts, step):
            rows = slice(i * group, (i + step) * group)
            found += nano.sample(images[i:i + step], texts[i:i + step], group, seeds[rows],
                                 Sampling(120), batch_size=size, on_tokens=ending(lengths[rows]))
        counts.append(passes[0])
        answers.append(found)
    assert answers[0] == answers[1]
    assert counts[1] <= 0.75 * counts[0]


def test_without_refilling_passes_are_as_many_as_before(nano, passes, monkeypatch):
    """One for the prompts, and one less than the longest answer has tokens."""
    lengths = [3, 9, 5, 14, 1, 2, 8, 4]
    options = dict(on_tokens=ending(lengths), draft=False)
    answers = nano.answer(IMAGES, PROMPTS, **options)
    longest = max(answer.num_tokens for answer in answers)
    assert passes[0] == longest <= 14
    passes[0] = 0
    for kind in (StepCache, RaggedCache):  # of a kind that no row can join
        monkeypatch.setattr(kind, 'joins', property(lambda self: False, lambda self, value: None),
                            raising=False)
    waiting = nano.answer(IMAGES, PROMPTS, batch_size=4, draft=False, on_tokens=ending(lengths))
    assert waiting == answers
    assert passes[0] == sum(max(answer.num_tokens for answer in answers[i:i + 4]) for i in (0, 4))


def test_prompts_are_read_once_a_quarter_of_the_rows_is_free(nano, monkeypatch):
    read, original = [], nano.mllm.writer.prefill

    def counted(batch):
        read.append(len(batch['input_ids']))
        return original(batch)

    monkeypatch.setattr(nano.mllm.writer, 'prefill', counted)
    nano.answer(IMAGES * 3, PROMPTS * 3, batch_size=8, on_tokens=ending(range(2, 26)))
    assert read[0] == 8 and sum(read) == 24 and min(read[:-1]) >= 2 and len(read) > 3


@pytest.mark.parametrize('group', [1, 3])
def test_memory_is_bounded(nano, group, monkeypatch):
    """Slots are those of the longest prompt and answer of the rows that are there, however many
    prompts have come and gone; the long one is the first."""
    slots, limit = [], 30
    for kind, name in ((StepCache, 'mask_RS'), (RaggedCache, 'visible_RC')):
        def read(self, *args, name=name, original=kind.read):
            hidden = original(self, *args)
            layers = [getattr(layer, 'before', 0) + layer.keys.shape[2]
                      for layer in self.cache.layers]
            slots.append(max(getattr(self, name).shape[1], *layers))
            return hidden

        monkeypatch.setattr(kind, 'read', read)
    count = 12
    images, prompts = [PICTURES[2]] * count, ['Where is the blue star? ' * 60] + ['red'] * 11
    lengths = [[1 + (7 * i + 5) % limit] * group for i in range(count)]
    nano.sample(images, prompts, group, [(i, ) for i in range(count * group)], Sampling(limit),
                batch_size=2, on_tokens=ending(sum(lengths, [])))
    long, short = (nano._prompted(images[:1], [prompt])['input_ids'].shape[1]
                   for prompt in (prompts[0], 'red'))
    spare = 0 if not nano.mllm.acceleration.on else 128  # allocated 64 at a time
    assert slots[0] >= long > short + limit + spare
    assert max(slots) <= long + limit + spare
    assert slots[-1] <= short + limit + spare


def test_the_prompts_of_groups_stand_once(monkeypatch):
    """Also of those that have joined, and none whose answers have ended."""
    model = MODELS.build(dict(type='SimpleSeg', mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano', acceleration='auto')))
    kept, original = [], SharedPromptCache.read

    def read(self, decode, tokens, *args):
        kept.append((len(self.cache.layers[0].prompts.keys), len(tokens)))
        return original(self, decode, tokens, *args)

    monkeypatch.setattr(SharedPromptCache, 'read', read)
    lengths = np.random.default_rng(0).integers(1, 20, 24)
    model.sample(IMAGES, PROMPTS, 3, SEEDS, Sampling(20), batch_size=4,
                 on_tokens=ending(lengths))
    assert all(prompts <= rows <= 12 for prompts, rows in kept)
    assert max(prompts for prompts, _ in kept) < len(PROMPTS)


# --- streams ----------------------------------------------------------------------------------
def test_a_stream_is_drawn_no_further_than_it_must_be(nano):
    """The first answer is long; those behind it wait to be given in order, with their pictures."""
    drawn, ahead = [0], []

    def asked():
        for _ in range(60):
            drawn[0] += 1
            yield PICTURES[2], 'red', None

    def told(row, ids):
        if row == 0:
            ahead.append(drawn[0])
        return row > 0

    answers = nano.answer_stream(asked(), batch_size=2, on_tokens=told)
    first = next(answers)
    assert first.num_tokens == len(ahead) > 20
    assert ahead[0] == 2 and max(ahead) == ahead[-1] == 2 * decoding.AHEAD
    assert [answer.num_tokens for answer in answers] == [1] * 59


def batches_of(*sizes):
    """Batches of a loader."""
    items = iter(zip(IMAGES * 3, PROMPTS * 3))
    for size in sizes:
        images, prompts = zip(*islice(items, size))
        yield dict(inputs=list(images), data_samples=[sample([(p, None)]) for p in prompts])


@pytest.mark.parametrize('sizes', [(3, 3, 3, 1), (1, 1, 1), (8, 8), (5, ), ()])
def test_batches_come_in_order_with_their_samples(nano, sizes):
    batches = list(batches_of(*sizes))
    found = list(nano.predict_stream(batches))
    expected = [nano.predict(**batch) for batch in batches_of(*sizes)]
    assert [[item.pred_text for item in samples] for samples in found] == [
        [item.pred_text for item in samples] for samples in expected]
    for batch, samples in zip(batches, found, strict=True):
        assert all(one is other for one, other in zip(batch['data_samples'], samples, strict=True))


def test_seconds_are_all_that_was_worked_and_none_that_was_waited(nano, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(simpleseg.time, 'perf_counter', lambda: clock[0])

    def slow():
        for batch in batches_of(3, 3, 3, 2):
            clock[0] += 1000
            yield batch

    def worked(row, ids):
        clock[0] += 1

    found = []
    for samples in nano.predict_stream(slow(), draft=False, on_tokens=worked):
        clock[0] += 10**6  # of whoever asks
        found += samples
    tokens = sum(item.pred_num_tokens for item in found)
    assert sum(item.pred_seconds for item in found) == pytest.approx(tokens)


def test_a_stream_that_is_left_puts_the_mode_back(nano):
    stream = nano.predict_stream(batches_of(2, 2, 2))
    next(stream)
    stream.close()
    assert {part.training for part in nano.modules()} == {True} and torch.is_grad_enabled()


def test_what_a_source_raises_is_raised(nano):
    def broken():
        yield from batches_of(2)
        raise OSError('no such picture')

    with pytest.raises(OSError, match='no such picture'):
        list(nano.predict_stream(broken()))
    assert nano.training


def test_pictures_of_all_sizes(nano):
    images = [picture(56 + 28 * (i % 4), 84, i) for i in range(9)]
    expected = [nano.answer([image], ['red'])[0] for image in images]
    assert nano.answer(images, ['red'] * 9, batch_size=4) == expected
