"""Drawing tokens, sampling groups of answers, and their log-probabilities, on nano."""
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from simpleseg_mm.models.losses import chunked_token_logp
from simpleseg_mm.models.sampling import Sampling, draw, uniforms
from simpleseg_mm.registry import MODELS

JUST_BELOW_ONE = math.nextafter(1, 0)


def picture(height: int, width: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8))


PICTURES = [picture(112, 84, 0), picture(112, 112, 1), picture(56, 56, 2)]
PROMPTS = ['a', 'Where is the little red one on the left of the blue star?', 'b c']  # left-padded
SEEDS = [(7, prompt, g) for prompt in range(3) for g in range(4)]


@pytest.fixture(scope='module')
def model():
    return MODELS.build(dict(type='SimpleSeg',
                             mllm=dict(type='QwenVL', pretrained='simpleseg_mm://nano')))


def sample(model, group_size=4, seeds=SEEDS, pictures=PICTURES, prompts=PROMPTS, **options):
    return model.sample(pictures, prompts, group_size, seeds, Sampling(**options))


# --- drawing ----------------------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(max_new_tokens=0), 'max_new_tokens=0'), (dict(max_new_tokens=-3), 'max_new_tokens=-3'),
    (dict(temperature=0), 'temperature=0.*greedy'), (dict(temperature=-1.), 'temperature=-1.0'),
    (dict(temperature=math.nan), 'temperature=nan'),
    (dict(top_p=0), 'top_p=0'), (dict(top_p=1.01), 'top_p=1.01'), (dict(top_p=math.nan), 'top_p'),
    (dict(top_k=-1), 'top_k=-1'),
])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def sweep(logits, count: int = 20000, **options) -> torch.Tensor:
    """Share of each token over a grid of uniform numbers."""
    uniform = (torch.arange(count, dtype=torch.float64) + .5) / count
    tokens = draw(torch.tensor(logits).expand(count, -1), uniform, Sampling(**options))
    return torch.bincount(tokens, minlength=len(logits)) / count


INF = math.inf
# probabilities of tokens 1 .. 6, out of 16: 1, 5, 2, 0, 7, 1; tokens 0, 4 and 7 are banned
LOGITS = [-INF, math.log(1), math.log(5), math.log(2), -INF, math.log(7), math.log(1), -INF]


@pytest.mark.parametrize('options, weights', [
    (dict(), [0, 1, 5, 2, 0, 7, 1, 0]),
    (dict(temperature=.5), [0, 1, 25, 4, 0, 49, 1, 0]),
    (dict(temperature=2.), [0, 1, 5**.5, 2**.5, 0, 7**.5, 1, 0]),
    (dict(temperature=1e-4), [0, 0, 0, 0, 0, 1, 0, 0]),
    (dict(top_k=1), [0, 0, 0, 0, 0, 1, 0, 0]),
    (dict(top_k=3), [0, 0, 5, 2, 0, 7, 0, 0]),
    (dict(top_k=99), [0, 1, 5, 2, 0, 7, 1, 0]),
    (dict(top_p=1e-9), [0, 0, 0, 0, 0, 1, 0, 0]),
    (dict(top_p=.43), [0, 0, 0, 0, 0, 1, 0, 0]),  # the first has 7 / 16 = 0.4375
    (dict(top_p=.45), [0, 0, 5, 0, 0, 7, 0, 0]),
    (dict(top_p=.76), [0, 0, 5, 2, 0, 7, 0, 0]),  # two have 0.75
    (dict(top_p=.99), [0, 1, 5, 2, 0, 7, 1, 0]),
    (dict(top_k=3, top_p=.6), [0, 0, 5, 0, 0, 7, 0, 0]),  # of the 14 / 16 that are left
    (dict(temperature=.5, top_p=.7), [0, 0, 25, 0, 0, 49, 0, 0]),  # after the temperature
])
def test_the_whole_line_of_uniform_numbers_gives_the_distribution(options, weights):
    expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    shares = sweep(LOGITS, **options)
    assert (shares - expected).abs().max() <= 1 / 20000 + 1e-6
    assert not shares[expected == 0].any()


@pytest.mark.parametrize('options', [dict(), dict(top_k=6), dict(top_p=.999)])
@pytest.mark.parametrize('uniform', [0., 1e-300, .5, JUST_BELOW_ONE])
@pytest.mark.parametrize('allowed', range(6))
def test_what_is_banned_is_never_drawn(allowed, uniform, options):
    """One allowed token, and one that is too unlikely to have any probability."""
    logits = torch.full((1, 6), -INF)
    logits[0, allowed - 3] = -1e4
    logits[0, allowed] = 0.
    uniform = torch.tensor([uniform], dtype=torch.float64)
    assert draw(logits, uniform, Sampling(**options)).tolist() == [allowed]


def test_both_ends_of_the_line():
    ends = torch.tensor([0, JUST_BELOW_ONE], dtype=torch.float64)
    assert draw(torch.tensor([LOGITS] * 2), ends, Sampling()).tolist() == [1, 6]
    many = draw(torch.zeros(2, 151936), ends, Sampling()).tolist()
    assert many == [0, 151935]


def test_rows_are_drawn_by_themselves():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    uniform = uniforms([(i, ) for i in range(5)], 1)[:, 0]
    for options in (dict(), dict(top_k=4, top_p=.8)):
        together = draw(logits, uniform, Sampling(**options))
        alone = [draw(logits[i:i + 1], uniform[i:i + 1], Sampling(**options)) for i in range(5)]
        assert together.tolist() == torch.cat(alone).tolist()


def test_uniform_numbers_depend_on_their_seed_alone():
    seeds = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**40, 3, 5)]
    rows = uniforms(seeds, 1000)
    assert rows.shape == (5, 1000) and rows.dtype == torch.float64
    assert (rows >= 0).all() and (rows < 1).all()
    assert ((rows.mean(1) - .5).abs() < .05).all()
    for i, seed in enumerate(seeds):
        assert torch.equal(uniforms([(9, 9, 9), seed], 1000)[1], rows[i])
    assert len({tuple(row.tolist()) for row in rows}) == 5


# --- log-probabilities of the head ------------------------------------------------------------
def test_an_empty_chunk_is_refused():
    with pytest.raises(ValueError, match='chunk=0'):
        chunked_token_logp(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(1, dtype=int),
                           chunk=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('tokens, chunk, temperature', [
    (1, 4, 1.), (7, 1, .7), (7, 3, 1.3), (8, 4, 1.), (8, 100, .7)])
def test_logp_and_entropy_are_those_of_torch(tokens, chunk, temperature, autocast, dtype):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 6).to(dtype).requires_grad_()
    weight = torch.randn(11, 6).to(dtype).requires_grad_()
    target = torch.randint(0, 11, (tokens, ))
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):  # the head stays in fp32
        logp, entropy = chunked_token_logp(hidden, weight, target, temperature, chunk)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = Categorical(logits=exact[0] @ exact[1].T / temperature)
    assert logp.dtype == entropy.dtype == torch.float32 and not entropy.requires_grad
    torch.testing.assert_close(logp.double(), expected.log_prob(target), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropy.double(), expected.entropy(), rtol=1e-6, atol=1e-6)
    share = torch.linspace(-1, 2, tokens)
    ours = torch.autograd.grad((logp * share).sum(), [hidden, weight])
    theirs = torch.autograd.grad((expected.log_prob(target) * share).sum(), exact)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b.to(dtype), rtol=1e-2 if dtype.itemsize == 2 else 1e-5,
                                   atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_no_tokens_have_no_log_probs(dtype):
    hidden = torch.zeros(0, 6, dtype=dtype, requires_grad=True)
    logp, entropy = chunked_token_logp(hidden, torch.ones(11, 6, dtype=dtype),
                                       torch.zeros(0, dtype=int))
    logp.sum().backward()
    for value in (logp, entropy):
        assert value.shape == (0, ) and value.dtype == torch.float32


# --- sampling ---------------------------------------------------------------------------------
def test_a_low_temperature_is_greedy(model):
    greedy = model.answer(PICTURES, PROMPTS, max_new_tokens=24)
    cold = sample(model, max_new_tokens=24, temperature=1e-4)
    assert cold == [[answer] * 4 for answer in greedy]


def test_an_answer_does_not_depend_on_what_is_beside_it(model):
    together = sample(model, max_new_tokens=24)
    lengths = {answer.num_tokens for group in together for answer in group}
    assert len(lengths) > 1  # rows leave the batch at different times
    for p, group in enumerate(together):
        alone = [sample(model, 1, [SEEDS[4 * p + g]], PICTURES[p:p + 1], PROMPTS[p:p + 1],
                        max_new_tokens=24)[0][0] for g in range(4)]
        assert alone == group
    back = sample(model, 4, SEEDS[::-1], PICTURES[::-1], PROMPTS[::-1], max_new_tokens=24)
    assert [group[::-1] for group in back[::-1]] == together


def test_cut_answers_are_marked(model):
    whole = sum(sample(model, max_new_tokens=40), [])
    finished = [answer.token_ids[-1] in model.mllm.writer.stop_tokens for answer in whole]
    assert any(finished) and [answer.finished for answer in whole] == finished
    assert all(answer.num_tokens == 40 for answer in whole if not answer.finished)
    length = min(answer.num_tokens for answer in whole if answer.finished)
    for limit in {1, max(1, length - 1), length}:
        for cut, answer in zip(sum(sample(model, max_new_tokens=limit), []), whole):
            assert cut.token_ids == answer.token_ids[:limit]
            assert cut.num_tokens == len(cut.token_ids)
            assert cut.finished == (answer.finished and answer.num_tokens <= limit)
            assert cut.text == model.mllm.encoder.tokenizer.decode(
                cut.token_ids[:-1] if cut.finished else cut.token_ids)


def test_vision_tokens_are_never_written(model, monkeypatch):
    adapter = model.mllm
    expected = sample(model, max_new_tokens=24)
    original = adapter.logits

    def pushed(hidden):
        logits = original(hidden)
        logits[:, adapter.writer.banned_tokens] = 1e4
        return logits

    monkeypatch.setattr(adapter, 'logits', pushed)
    assert adapter.writer.banned_tokens and sample(model, max_new_tokens=24) == expected


@pytest.mark.parametrize('training', [True, False])
def test_training_mode_is_put_back(model, training, monkeypatch):
    modes = []
    original = model.mllm.logits

    def watched(hidden):
        modes.append((model.mllm.hf.training, torch.is_grad_enabled()))
        if len(modes) == 3:
            raise KeyboardInterrupt
        return original(hidden)

    monkeypatch.setattr(model.mllm, 'logits', watched)
    model.train(training)
    try:
        with pytest.raises(KeyboardInterrupt):
            sample(model, max_new_tokens=24)
        assert set(modes) == {(False, False)}
        assert {part.training for part in model.modules()} == {training}
        sample(model, max_new_tokens=2)
        assert {part.training for part in model.modules()} == {training}
        assert torch.is_grad_enabled()
    finally:
        model.train()


# --- log-probabilities of answers -------------------------------------------------------------
@pytest.fixture(scope='module')
def answers(model):
    """Token ids of two answers a prompt; every second one is cut."""
    flat = sum(sample(model, 2, SEEDS[:6], max_new_tokens=24), [])
    return [answer.token_ids[:3 if i % 2 else 24] for i, answer in enumerate(flat)]


def conversations(answers):
    return [[(PROMPTS[i // 2], answer)] for i, answer in enumerate(answers)]


def gradients(model, logp, mask):
    """Gradients of a weighted sum of log-probabilities, by parameter."""
    weight = torch.linspace(-1, 2, int(mask.sum()))
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad((logp[mask] * weight).sum(), list(parameters.values()))
    return dict(zip(parameters, found))


def same_gradients(ours, theirs):
    for name, gradient in ours.items():
        scale = max(1., float(theirs[name].abs().max()))
        torch.testing.assert_close(gradient / scale, theirs[name] / scale, rtol=0, atol=1e-5,
                                   msg=lambda text: f'{name}: {text}')


@pytest.mark.parametrize('temperature', [1., .6])
def test_log_probs_are_the_log_softmax_of_all_logits(model, answers, temperature):
    pictures = [image.clone() for image in PICTURES for _ in range(2)]
    logp, entropy, mask = model.log_probs(pictures, conversations(answers), temperature)
    assert mask.sum(1).tolist() == list(map(len, answers))
    assert not logp[~mask].any() and not entropy[~mask].any() and not entropy.requires_grad
    batch = model.mllm.encoder.encode(pictures, conversations(answers))
    whole = (model.mllm.hf(**batch).logits[:, :-1].float() / temperature).log_softmax(-1)
    tokens = batch['input_ids'][:, 1:]
    assert [tuple(row[m].tolist()) for row, m in zip(tokens, mask)] == answers
    expected = whole.gather(2, tokens[..., None]).squeeze(2)
    torch.testing.assert_close(logp[mask], expected[mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(entropy[mask], -(whole.exp() * whole).sum(-1)[mask], rtol=0,
                               atol=1e-5)
    same_gradients(gradients(model, logp, mask), gradients(model, expected, mask))


@pytest.fixture
def steps(model, monkeypatch):
    """Grows by the logits of each step of sampling, before vision tokens are banned."""
    steps = []
    original = model.mllm.logits

    def watched(hidden):
        logits = original(hidden)
        steps.append(logits.clone())
        return logits

    monkeypatch.setattr(model.mllm, 'logits', watched)
    return steps


@pytest.mark.parametrize('temperature', [1., .6])
def test_sampling_and_training_agree_on_the_log_probs(model, steps, temperature):
    """Step by step with a cache and left padding, or at once with right padding."""
    sampling = Sampling(24, temperature)
    groups = model.sample(PICTURES, PROMPTS, 2, SEEDS[:6], sampling)
    answers = [answer.token_ids for answer in sum(groups, [])]
    uniform = uniforms(SEEDS[:6], 24)
    drawn = [[] for _ in answers]
    for t, logits in enumerate(steps):
        going = [r for r, answer in enumerate(answers) if len(answer) > t]
        written = [answers[r][t] for r in going]
        for row, r, token in zip(logits, going, written, strict=True):
            drawn[r].append(float((row / temperature).log_softmax(-1)[token]))
        logits[:, model.mllm.writer.banned_tokens] = -INF
        assert draw(logits, uniform[going, t], sampling).tolist() == written
    logp, _, mask = model.log_probs([image for image in PICTURES for _ in range(2)],
                                    conversations(answers), temperature)
    for row, m, expected in zip(logp, mask, drawn):
        assert row[m].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize('order', [[0, 0, 1, 1, 2, 2], [0, 1, 2, 2, 1, 0], [1] * 6])
def test_rows_may_share_a_picture(model, answers, order):
    shared = [PICTURES[i] for i in order]
    cloned = [image.clone() for image in shared]
    turns = conversations(answers)
    batches = [model.mllm.encoder.encode(images, turns, share_images=True)
               for images in (shared, cloned)]
    assert [len(batch['image_grid_thw']) for batch in batches] == [len(set(order)), 6]
    ours, theirs = (model.log_probs(images, turns) for images in (shared, cloned))
    assert torch.equal(ours[2], theirs[2])
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
    same_gradients(gradients(model, ours[0], ours[2]), gradients(model, theirs[0], theirs[2]))


@pytest.mark.parametrize('count', [1, 2, 3, 10, 97])
@pytest.mark.parametrize('share', [0., .3, .999999, 1 - 2**-53])
def test_a_draw_is_where_the_running_sum_passes(count, share):
    """Against a plain running sum; tokens of no probability at either end are never drawn."""
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(5, count, generator=generator)
    logits[1:3, :count // 3] = logits[2:4, count - count // 3:] = -torch.inf
    drawn = draw(logits, torch.full((5, ), share, dtype=torch.float64), Sampling())
    probs = logits.softmax(-1).double()
    for row, token in zip(probs, drawn.tolist()):
        assert row[token] > 0
        low, high = row[:token].sum() / row.sum(), row[:token + 1].sum() / row.sum()
        assert low - 1e-12 <= share <= high + 1e-12
