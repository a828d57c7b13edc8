"""Drafts change no answer, constrained answers follow their grammar, and tokens are told as they
are written; on nano, and on tiny random networks of other families."""
import math
import re

import numpy as np
import pytest
import torch
from test_models_families import PICTURES, PROMPTS, SEEDS, model, of_family  # noqa: F401
from test_models_simpleseg import picture, sample
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from simpleseg_mm.acceleration.prompts import SharedPrompts
from simpleseg_mm.acceleration.ragged_cache import RaggedCache
from simpleseg_mm.acceleration.shared_prompts import SharedPromptCache
from simpleseg_mm.engine.rollout import InProcessRollout
from simpleseg_mm.models.decoding import at_once
from simpleseg_mm.models.generation import greedy_rules
from simpleseg_mm.models.guide import Guide, Spelling
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.polygon import AnswerAutomaton, parse_answer
from simpleseg_mm.registry import MODELS

RINGS = AnswerAutomaton.of('int100', 'rings')
FORMS = [RINGS, AnswerAutomaton.of('decimal3', 'rings'), AnswerAutomaton.of('int100', 'masks')]
BOXES = [f'Output the bounding box of {name} in the image.' for name in ('it', 'the star', 'red')]


@pytest.fixture(scope='module')
def nano():
    return MODELS.build(dict(type='SimpleSeg', mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano'), generation=dict(max_new_tokens=40)))


@pytest.fixture(scope='module')
def ragged():
    """As nano; it reads drafts, and each answer of a group reads a prompt of its own."""
    return MODELS.build(dict(type='SimpleSeg', mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano', acceleration=['ragged_cache'])))


@pytest.fixture(scope='module')
def together():
    """As nano; what a group's answers share is read once."""
    return MODELS.build(dict(type='SimpleSeg', mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano', acceleration='auto')))


@pytest.fixture
def passes(together, monkeypatch):
    """Grows by the shape (rows, tokens) of each pass after the prompt's."""
    shapes, original = [], together.mllm.writer.decode

    def counted(tokens, *args, **options):
        shapes.append(tuple(tokens.shape))
        return original(tokens, *args, **options)

    monkeypatch.setattr(together.mllm.writer, 'decode', counted)
    return shapes


# --- tokenizers -------------------------------------------------------------------------------
def tokenizer_of(tokens):
    """A byte-level tokenizer of these tokens and an end token, without merges."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*tokens, '<end>']))}
    backend = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='<end>')


def guide_of(tokens, form):
    tokenizer = tokenizer_of(tokens)
    stop = tokenizer.eos_token_id
    return Guide(form, Spelling(tokenizer, len(tokenizer), form.named),
                 lambda text: tokenizer.encode(text, add_special_tokens=False), [stop]), tokenizer


@pytest.mark.parametrize('left_out, grammar', [('7', 'int100'), ('[', 'int100'), (',', 'int100'),
                                               ('.', 'decimal3'), ('Ġ', 'decimal3')])
def test_a_vocabulary_that_cannot_spell_the_grammar_is_refused(left_out, grammar):
    tokens = set('0123456789[],.Ġabc') - {left_out}
    missing = repr([left_out.replace('Ġ', ' ')])
    with pytest.raises(ValueError, match=re.escape(f'no token for {missing}')) as caught:
        guide_of(sorted(tokens), AnswerAutomaton.of(grammar, 'rings'))
    assert grammar in str(caught.value)


def test_only_constraints_need_a_vocabulary_that_spells(nano, monkeypatch):
    monkeypatch.setattr(nano.mllm.writer, '_guides', {})
    spelling = Spelling(nano.mllm.encoder.tokenizer, 1024)
    spelling.texts = {i: text for i, text in spelling.texts.items() if '7' not in text}
    monkeypatch.setattr(nano.mllm.writer, '_spellings', {False: spelling})
    options = dict(max_new_tokens=4)
    assert nano.answer(PICTURES, PROMPTS, FORMS, **options) == nano.answer(PICTURES, PROMPTS,
                                                                           **options)
    with pytest.raises(ValueError, match='no token for'):
        nano.answer(PICTURES, PROMPTS, FORMS, constrain=True, **options)


SINGLE = list('0123456789[],.Ġ')
MIXED = SINGLE + ['[[[', '12', '123', '5],[', '7]]]', '],[1,', ',Ġ', ',Ġ0.', '0.', '],Ġ[0.', '1.0',
                  '100', '00', ']]]', '3],[4,5],[', '99', 'a[', '[1,2]x', '1000', '[]', ']],[[']


NAMED = MIXED + ['"', '\\', 'a', 'Ġa', 'Ã©', 'Ã', '["', '",', '",[[[', 'cup', 'cup"', '\\"', 'aĊ',
                 30 * 'x', ']],["', '[["cup",']


@pytest.mark.parametrize('tokens', [SINGLE, MIXED, NAMED],
                         ids=['digit by digit', 'mixed', 'with names'])
@pytest.mark.parametrize('grammar, kind', [('int100', 'rings'), ('decimal3', 'rings'),
                                           ('fixed2', 'rings'), ('int1000', 'box'),
                                           ('decimal1', 'point'), ('int100', 'masks'),
                                           ('decimal1', 'boxes'), ('int1000', 'points'),
                                           ('int100', 'objects'), ('decimal3', 'objects')])
def test_tokens_are_allowed_where_the_text_may_go_on(tokens, grammar, kind):
    """Against the definition: a token is allowed where the automaton takes its characters."""
    form = AnswerAutomaton.of(grammar, kind)
    if form.named and tokens is not NAMED:
        with pytest.raises(ValueError, match=r'no token for .* alone'):
            guide_of(tokens, form)
        return
    guide, tokenizer = guide_of(tokens, form)
    texts = {i: tokenizer.decode([i]) for i in range(len(tokenizer))}
    end, rng = tokenizer.eos_token_id, np.random.default_rng(0)
    for _ in range(15):
        state, written = guide.start, []
        while not written or written[-1] != end:
            allowed = guide.allowed(state).tolist()
            expected = [end] if form.is_final(state) else [
                i for i, text in texts.items() if i != end and form.follow(state, text)
                and '\ufffd' not in text and len(text) <= 24]  # halves of characters, long ones
            assert allowed == expected and allowed
            closing = [i for i in allowed if ']]' in texts[i] or i == end or '"' in texts[i]]
            written.append(int(rng.choice(closing if closing and len(written) > 40 else allowed)))
            if written[-1] != end:
                state = guide.step(state, written[-1])
        assert parse_answer(tokenizer.decode(written[:-1]), grammar, kind).valid
        assert guide.step(state, end) is None and guide.draft(None) is None


@pytest.mark.parametrize('text, count', [('', 0), ('[', 1), (']]]', 1), ('[[[', 1), ('12345', 3),
                                         ('3],[4,5],[1', 2), ('3],[4,5],[12', 2), (']],[[]', 2),
                                         ('99],[1,0.1', 4), ('1.00', 2)])
def test_the_fewest_tokens_of_a_text(text, count):
    tokenizer = tokenizer_of(MIXED)
    assert Spelling(tokenizer, len(tokenizer)).fewest(text) == count


def test_drafts_are_the_tokenizers_own_punctuation(nano):
    spelt = nano.mllm.encoder.tokenizer
    guide, = nano.mllm.writer.guides([FORMS[1]], True)
    text = '[[[0.123, 0.456], [0.789, 0.012], [0.345, 0.678], [0.9'
    state, foreseen = guide.start, []
    for token in nano.mllm.encoder.ids_of_text(text):
        if guide.draft(state) == token:
            foreseen.append(spelt.decode([token]))
        state = guide.step(state, token)
    assert ''.join(foreseen) == '[[[' + ''.join(
        ['0.', ', 0.', '], [']) * 3 + '0.'


# --- drafts -----------------------------------------------------------------------------------
def test_drafts_change_no_answer_of_any_family(model):  # noqa: F811
    """Random networks write nonsense, so that nearly every draft is refused."""
    reads = [model.answer(PICTURES, PROMPTS, FORMS, draft=draft, max_new_tokens=12)
             for draft in (False, True)]
    assert reads[0] == reads[1]
    drawn = [model.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(12), FORMS, draft=draft)
             for draft in (False, True)]
    assert drawn[0] == drawn[1]
    for one, other in zip(sum(drawn[0], []), sum(drawn[1], [])):
        assert one.token_logps == pytest.approx(other.token_logps, abs=1e-4)


@pytest.mark.parametrize('constrain', [False, True])
def test_constrained_and_open_answers_are_the_same_with_drafts(model, constrain):  # noqa: F811
    """Constrained random networks write the grammar, so that many a draft is kept."""
    reads = [model.answer(PICTURES, PROMPTS, FORMS, draft=draft, constrain=constrain,
                          max_new_tokens=30) for draft in (False, True)]
    assert reads[0] == reads[1]
    if constrain:
        for answer, form in zip(reads[0], FORMS):
            text = answer.text
            assert form.follow(form.start, text) is not None
            assert not answer.finished or parse_answer(text, form.grammar, form.kind).valid


def test_networks_that_cannot_take_back_a_token_read_one_at_a_time():
    for family, many in (('qwen3_5', False), ('qwen2_5_vl', True)):
        tiny = of_family(family, acceleration='auto')
        shapes, original = [], tiny.mllm.writer.decode
        tiny.mllm.writer.decode = lambda tokens, *args, **more: (
            shapes.append(tokens.shape[1]), original(tokens, *args, **more))[1]
        tiny.answer(PICTURES, PROMPTS, [RINGS] * 3, constrain=True, max_new_tokens=12)
        assert (max(shapes) > 1) == many


def test_eager_attention_takes_the_same_drafts(nano):
    eager = MODELS.build(dict(type='SimpleSeg', mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano', attn_implementation='eager')))
    options = dict(constrain=True, max_new_tokens=30)
    assert (eager.answer(PICTURES, PROMPTS, FORMS, **options)
            == nano.answer(PICTURES, PROMPTS, FORMS, **options))


def test_samples_are_the_same_with_drafts_and_take_fewer_passes(together, passes):
    seeds = [(3, p, g) for p in range(3) for g in range(8)]
    found = []
    for draft in (False, True):
        passes.clear()
        found.append((together.sample(PICTURES, BOXES, 8, seeds, Sampling(48, temperature=.7),
                                      [AnswerAutomaton.of('int100', 'box')] * 3, draft=draft),
                      sum(rows for rows, _ in passes)))
    assert found[0][0] == found[1][0] and found[1][1] < .8 * found[0][1]
    assert len({answer.text for group in found[0][0] for answer in group}) > 6
    assert {width for _, width in passes} > {1}


def test_a_group_of_one_and_a_single_token(nano):
    seeds = [(5, p, 0) for p in range(3)]
    whole = nano.sample(PICTURES, PROMPTS, 1, seeds, Sampling(20), FORMS)
    assert [len(group) for group in whole] == [1, 1, 1]
    for limit in (1, 2, 7):
        cut = nano.sample(PICTURES, PROMPTS, 1, seeds, Sampling(limit), FORMS)
        for (short, ), (long, ) in zip(cut, whole):
            assert short.token_ids == long.token_ids[:limit]
            assert len(short.token_logps) == short.num_tokens <= limit


@pytest.mark.parametrize('limit', [0, -1])
def test_no_new_tokens_are_refused(nano, limit):
    with pytest.raises(ValueError, match=f'max_new_tokens={limit}: at least 1'):
        nano.answer(PICTURES[:1], PROMPTS[:1], max_new_tokens=limit)


def test_prompts_of_very_different_lengths(nano):
    prompts = ['a', 'Where is the blue star? ' * 40]
    options = dict(constrain=True, max_new_tokens=30)
    together = nano.answer(PICTURES[:2], prompts, FORMS[:2], **options)
    alone = [nano.answer([p], [q], [f], **options)[0]
             for p, q, f in zip(PICTURES, prompts, FORMS)]
    assert together == alone


# --- constraints ------------------------------------------------------------------------------
@pytest.mark.parametrize('kind, grammar, limit, cut', [
    ('rings', 'int100', 500, False), ('rings', 'int100', 90, True), ('rings', 'int100', 30, True),
    ('rings', 'decimal3', 45, True), ('rings', 'fixed2', 60, True), ('box', 'decimal2', 90, False),
    ('box', 'int1000', 12, True), ('point', 'decimal3', 20, False),
    ('masks', 'int100', 60, True), ('boxes', 'int100', 30, True),
    ('points', 'fixed2', 400, False)])
@pytest.mark.parametrize('draft', [True, False])
def test_constrained_answers_parse(nano, kind, grammar, limit, cut, draft):
    """At this temperature all that the grammar allows is about as likely. What does not end by
    the limit is completed; what does is what it is under a higher one."""
    form = AnswerAutomaton.of(grammar, kind)
    seeds = [(1, p, g) for p in range(3) for g in range(6)]
    guides = nano.mllm.writer.guides([form] * 3, True)
    answers, longer = [list(nano.mllm.writer.sample(
        at_once(nano._prompted(PICTURES, PROMPTS), guides), 6, seeds,
        Sampling(count, temperature=50.), constrain=True, draft=draft)) for count in (limit, 500)]
    assert any(answer.finished for answer in answers) and all(a.finished for a in longer)
    assert any(not answer.finished for answer in answers) == cut
    for answer, whole in zip(answers, longer):
        parsed = parse_answer(answer.text, grammar, kind)
        assert parsed.valid and answer.num_tokens <= limit
        assert answer.finished == (whole.num_tokens <= limit)
        assert answer == whole if answer.finished else parsed.kind == kind  # not by []


def test_an_answer_at_the_limit_is_truncated(nano):
    answer, = nano.answer(PICTURES[:1], PROMPTS[:1], [RINGS], constrain=True, max_new_tokens=9)
    assert answer.num_tokens == 9 and not answer.finished
    assert parse_answer(answer.text, 'int100').truncated


def test_free_text_beside_a_grammar_is_not_constrained(nano):
    free = nano.answer(PICTURES[:1], PROMPTS[:1])
    mixed = nano.answer(PICTURES[:1] * 2, PROMPTS[:1] * 2, [None, RINGS], constrain=True)
    assert mixed[0] == free[0] and mixed[1].text.startswith('[')


def test_constraints_need_to_know_the_grammar_and_greedy_search(nano):
    with pytest.raises(ValueError, match='forms'):
        nano.answer(PICTURES[:1], PROMPTS[:1], constrain=True)
    with pytest.raises(ValueError, match='num_beams'):
        nano.answer(PICTURES[:1], PROMPTS[:1], [RINGS], constrain=True, num_beams=2)


def test_rollouts_are_not_constrained():
    with pytest.raises(ValueError, match='whole vocabulary.*format'):
        InProcessRollout(constrain=True)


@pytest.mark.parametrize('task, kind', [('text2mask', 'rings'), ('box2mask', 'rings'),
                                        ('text2box', 'box'), ('mask2point', 'point'),
                                        ('text2extreme', 'point'), ('mask2text', None),
                                        ('text2masks', 'masks'), ('text2boxes', 'boxes'),
                                        ('question', None), (None, None)])
def test_a_sample_names_its_grammar(task, kind):
    item = sample([('q', None)], codec='decimal2/default')
    if task:
        item.set_metainfo(dict(task=task))
    form = answer_form(item)
    assert form is (None if kind is None else AnswerAutomaton.of('decimal2', kind))


def test_prediction_follows_the_settings(nano):
    items = [sample([(prompt, None)]) for prompt in PROMPTS]
    for item in items:
        item.set_metainfo(dict(task='text2mask'))
    nano.generation['constrain'] = True
    try:
        texts = [item.pred_text for item in nano.predict(PICTURES, items)]
    finally:
        del nano.generation['constrain']
    assert all(RINGS.follow(RINGS.start, text) is not None for text in texts)


# --- what is told -----------------------------------------------------------------------------
@pytest.mark.parametrize('options', [dict(), dict(constrain=True), dict(num_beams=2)])
def test_tokens_are_told_as_they_are_written(nano, options):
    told = [[] for _ in PICTURES]
    answers = nano.answer(PICTURES, PROMPTS, FORMS, on_tokens=lambda row, ids: told[row].extend(
        ids), **options)
    assert [tuple(ids) for ids in told] == [answer.token_ids for answer in answers]


@pytest.mark.parametrize('constrain', [False, True])
def test_log_probabilities_are_the_networks_own(nano, constrain):
    answers = nano.answer(PICTURES, PROMPTS, FORMS, constrain=constrain, repetition_penalty=1.3)
    logp, _, mask = nano.log_probs(PICTURES, [[(prompt, answer.token_ids)] for prompt, answer
                                              in zip(PROMPTS, answers)])
    for row, m, answer in zip(logp, mask, answers):
        assert answer.token_logps == pytest.approx(row[m].tolist(), abs=1e-4)
        assert answer.confidence == pytest.approx(float(row[m].detach().exp().mean()), abs=1e-4)
    beams, = nano.answer(PICTURES[:1], PROMPTS[:1], num_beams=2)
    assert beams.token_logps == () and beams.confidence is None


# --- settings of transformers -----------------------------------------------------------------
@pytest.mark.parametrize('options', [
    dict(), dict(repetition_penalty=1.5), dict(no_repeat_ngram_size=2), dict(temperature=.1),
    dict(sequence_bias=[[[40], 3.0], [[41, 42], 5.0]]), dict(bad_words_ids=[[30], [31, 32]]),
    dict(suppress_tokens=[33, 34, 35]),
    dict(repetition_penalty=1.2, sequence_bias=[[[2], -9.0]], no_repeat_ngram_size=3),
    dict(num_beams=3), dict(min_new_tokens=5), dict(length_penalty=.5, num_beams=2),
])
def test_settings_give_what_transformers_gives(nano, options):
    batch = nano._prompted(PICTURES, PROMPTS)
    mllm = nano.mllm
    expected_options = dict(options)
    banned = mllm.writer.banned_tokens + expected_options.pop('suppress_tokens', [])
    with mllm.writer.generating(), torch.no_grad():
        expected = mllm.hf.generate(
            **batch, do_sample=False, max_new_tokens=24, pad_token_id=mllm.encoder.pad_token_id,
            eos_token_id=mllm.writer.stop_tokens, suppress_tokens=banned, **expected_options)
    expected = [mllm.writer.read(row)
                for row in expected[:, batch['input_ids'].shape[1]:].tolist()]
    assert nano.answer(PICTURES, PROMPTS, FORMS, max_new_tokens=24, **options) == expected


@pytest.mark.parametrize('options, ours', [
    (dict(), True), (dict(num_beams=1, top_k=5), True), (dict(repetition_penalty=1.1), True),
    (dict(num_beams=2), False), (dict(do_sample=True), False), (dict(foo=1), False),
    (dict(min_new_tokens=3), False),
    (dict(max_new_tokens=None), False)])
def test_who_writes(options, ours):
    rules = greedy_rules(GenerationConfig(eos_token_id=2), {
        'max_new_tokens': 5, 'do_sample': False, **options}, 'cpu')
    assert (rules is not None) == ours
    inherited = GenerationConfig(repetition_penalty=1.05, temperature=.1, do_sample=True)
    assert len(greedy_rules(inherited, dict(max_new_tokens=5, do_sample=False), 'cpu')) == 1


# --- the cache --------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', [RaggedCache, SharedPromptCache])
def test_rows_grow_at_their_own_speed(together, kind):
    """Reading runs of any lengths and forgetting part of them is reading what was kept."""
    mllm, rng = together.mllm, np.random.default_rng(0)
    batch = together._prompted(PICTURES[:2], ['a', 'a much longer question, padded on the left'])
    with mllm.writer.generating(), torch.no_grad():
        _, cache, position = mllm.writer.prefill(batch)
        rows = torch.tensor([0, 1, 1])
        memory = kind(cache, batch['attention_mask'], rows)
        kept, start = [[], [], []], position[rows]
        for step in range(40):  # grows past the slots that are there
            width = int(rng.integers(1, 6))
            tokens = torch.from_numpy(rng.integers(20, 60, (len(kept), width)))
            places = start + torch.tensor([len(row) for row in kept])
            hidden = memory.read(mllm.writer.decode, tokens, places)
            counts = rng.integers(1, width + 1, len(kept)).tolist()
            memory.close(counts)
            kept = [row + ids[:count].tolist() for row, ids, count in zip(kept, tokens, counts)]
            last = [hidden[i, count - 1] for i, count in enumerate(counts)]
            if step == 20:
                memory.keep([0, 2])
                kept, start, rows = [kept[0], kept[2]], start[[0, 2]], rows[[0, 2]]
        for row, ids, state in zip(rows.tolist(), kept, last):
            prompt = batch['input_ids'][row][batch['attention_mask'][row].bool()]
            turns = [[(['a', 'a much longer question, padded on the left'][row], ids)]]
            whole = mllm.hidden_states(mllm.encoder.encode([PICTURES[row]], turns))[0]
            torch.testing.assert_close(state, whole[len(prompt) + len(ids) - 1], rtol=1e-3,
                                       atol=1e-3)


def test_groups_read_their_prompt_together(ragged, together, monkeypatch):
    seeds = [(3, p, g) for p in range(3) for g in range(8)]
    read, original = [], SharedPrompts.read

    def counted(self, weights):
        read.append((len(self.keys), len(weights)))
        return original(self, weights)

    monkeypatch.setattr(SharedPrompts, 'read', counted)
    one, other = (network.sample(PICTURES, PROMPTS, 8, seeds, Sampling(60, temperature=1.2), FORMS)
                  for network in (ragged, together))
    assert one == other
    for apart, shared in zip(sum(one, []), sum(other, [])):
        assert shared.token_logps == pytest.approx(apart.token_logps, abs=1e-4)
    assert (3, 24) in read and any(rows % prompts for prompts, rows in read)
    read.clear()
    together.sample(PICTURES, BOXES, 1, seeds[::8], Sampling(8))
    assert not read  # nothing is shared


# --- statistics -------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['nano', 'together'])
def test_samples_have_the_frequencies_of_transformers_logits(name, request):
    """2,000 answers: after every prefix that 100 or more share, the counts of the next token
    against the softmax of transformers' own forward pass (chi-square, four deviations)."""
    nano = request.getfixturevalue(name)
    count, mllm, image = 2000, nano.mllm, picture(56, 56, 2)
    answers = nano.sample([image], ['red'], count, [(0, i) for i in range(count)],
                          Sampling(4, temperature=.8), [RINGS])[0]
    after = {}
    for answer in answers:
        for place, token in enumerate(answer.token_ids):
            after.setdefault(answer.token_ids[:place], []).append(token)
    often = {prefix: tokens for prefix, tokens in after.items() if len(tokens) >= 100}
    assert {len(prefix) for prefix in often} >= {0, 1, 2}
    for prefix, tokens in often.items():
        batch = mllm.encoder.encode([image], [[('red', list(prefix))]])
        with mllm.writer.generating(), torch.no_grad():
            logits = mllm.hf(**batch).logits[0]
        length = nano._prompted([image], ['red'])['input_ids'].shape[1] + len(prefix)
        logits = logits[length - 1].double() / .8
        logits[mllm.writer.banned_tokens] = -math.inf
        expected = logits.softmax(-1) * len(tokens)
        found = torch.bincount(torch.tensor(tokens), minlength=len(expected)).double()
        likely = expected >= 5
        found, expected = (torch.cat([x[likely], x[~likely].sum()[None]])
                           for x in (found, expected))
        chi = float(((found - expected) ** 2 / expected.clamp(min=1)).sum())
        freedom = max(1, len(found) - 1)
        assert chi < freedom + 4 * math.sqrt(2 * freedom), (prefix, chi, freedom)
