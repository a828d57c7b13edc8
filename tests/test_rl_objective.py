"""Advantages of groups and the policy objective, against numbers worked out by hand.

Answers are ragged rows of per-token numbers; ``pad`` makes a (B, T) batch of them.
"""
import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleseg_mm.rl import LEVELS, PolicyObjective, group_advantages, max_variance_subset

GRPO = dict(clip_low=0.2, clip_high=0.2)
SEQUENCE = ('sequence', 'sequence_token')


def pad(rows, left: bool = False, value: float = 0.):
    """Ragged rows -> (B, T) float64, and the mask of what is not padding."""
    width = max(map(len, rows))

    def fill(row, blank):
        blank = [blank] * (width - len(row))
        return blank + list(row) if left else list(row) + blank

    return (torch.tensor([fill(row, value) for row in rows], dtype=torch.float64),
            torch.tensor([fill([True] * len(row), False) for row in rows]))


def evaluate(objective, log_ratios, advantages, refs=None, left=False, value=0., total=None):
    """Loss, its gradient by the log-probs of each answer, and the sums for the log.

    Args:
        refs: log-ratios to the reference.
        value: what stands in the padding.
    """
    old_rows = [[-(t + 1) / 4 for t in range(len(row))] for row in log_ratios]
    old, mask = pad(old_rows, left, -value)
    rows = [[o + x for o, x in zip(old, row)] for old, row in zip(old_rows, log_ratios)]
    logp = pad(rows, left, value)[0].requires_grad_()
    if refs is not None:
        refs = pad([[p - x for p, x in zip(row, ref)] for row, ref in zip(rows, refs)],
                   left, 2 * value)[0]
    loss, sums = objective(logp, old, torch.tensor(advantages, dtype=torch.float64), mask, total,
                           refs)
    loss.backward()
    assert (logp.grad[~mask] == 0).all()
    assert not any(value.requires_grad for value in sums.values())
    return loss.item(), [g[m].tolist() for g, m in zip(logp.grad, mask)], \
        {name: value.item() for name, value in sums.items()}


def plain(objective, log_ratios, advantages, refs=None):
    """Loss and gradient by the paper's formulas on one ragged row after another."""
    rows = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in log_ratios]
    loss = 0
    for i, (row, advantage) in enumerate(zip(rows, advantages)):
        ratio = row.exp() if objective.level == 'token' else row.mean().exp()
        clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
        loss = loss - torch.minimum(ratio * advantage, clipped * advantage).mean() / len(rows)
        if refs is not None:
            x = row - row.detach() + torch.tensor(refs[i], dtype=torch.float64)
            loss = loss + objective.beta * ((-x).exp() - 1 + x).mean() / len(rows)
    return loss.item(), [g.tolist() for g in torch.autograd.grad(loss, rows)]


def table(seed: int, count: int = 6):
    """Random answers of 1 to 6 tokens, about half of them beyond GSPO's clip band."""
    rng = random.Random(seed)
    ratios = [[rng.gauss(0, 1e-3) for _ in range(rng.randint(1, 6))] for _ in range(count)]
    return ratios, [rng.gauss(0, 1) for _ in ratios], [[rng.gauss(0, 1) for _ in row]
                                                       for row in ratios]


def close(value):
    if isinstance(value, list):
        return [pytest.approx(row, rel=1e-10, abs=1e-12) for row in value]
    return pytest.approx(value, rel=1e-10, abs=1e-12)


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(level='GSPO'), r"level='GSPO': choose one of \('sequence', 'sequence_token', 'token'\)"),
    (dict(level=None), 'level=None'),
    (dict(clip_low=-1e-4), 'clip_low=-0.0001.*at least 0'),
    (dict(clip_high=math.nan), 'clip_high=nan'),
    (dict(clip_high=math.inf), 'clip_high=inf'),
    (dict(beta=-0.1), 'beta=-0.1'),
    (dict(beta=math.nan), 'beta=nan'),
    (dict(importance_cap=math.nan), 'importance_cap=nan'),
    (dict(importance_cap=0.5), 'importance_cap=0.5: at least 1'),
    (dict(importance_cap=0), 'importance_cap=0: at least 1'),
])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        PolicyObjective(**options)


@pytest.mark.parametrize('change, message', [
    (dict(old=torch.zeros(2, 4)), r'\(2, 4\)'),
    (dict(old=torch.zeros(1, 3)), r'\(1, 3\)'),  # would be broadcast
    (dict(advantage=torch.zeros(3)), r'advantages \(3,\)'),
    (dict(advantage=torch.zeros(2, 1)), r'advantages \(2, 1\)'),
    (dict(mask=torch.ones(2, 1, dtype=torch.bool)), r'\(2, 1\)'),
    (dict(mask=torch.ones(2, 3)), 'mask is torch.float32: give bool'),
    (dict(mask=torch.ones(2, 3, dtype=torch.long)), 'mask is torch.int64'),
    (dict(logp=torch.zeros(3), old=torch.zeros(3), mask=torch.ones(3, dtype=torch.bool),
          advantage=torch.zeros(3)), r'\(B, T\)'),
    (dict(beta=0.1), 'beta=0.1 needs ref_logp_BT'),
    (dict(importance_cap=2.0), 'importance_cap=2.0 needs engine_logp_BT'),
])
def test_bad_batches(change, message):
    batch = dict(logp=torch.zeros(2, 3), old=torch.zeros(2, 3), advantage=torch.zeros(2),
                 mask=torch.ones(2, 3, dtype=torch.bool), beta=0.)
    batch.update(change)
    objective = PolicyObjective(beta=batch.pop('beta'),
                                importance_cap=batch.pop('importance_cap', None))
    with pytest.raises(ValueError, match=message):
        objective(*batch.values())


@pytest.mark.parametrize('shape', [(2, 1), (1, 3), (3, ), (2, 4)])
def test_reference_of_another_shape(shape):
    batch = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 3) > 0
    with pytest.raises(ValueError, match='ref'):
        PolicyObjective(beta=0.1)(*batch, ref_logp_BT=torch.zeros(shape))


@pytest.mark.parametrize('rewards, message', [
    ([1., 2.], r'shape \(2,\)'),
    ([[1.], [2.]], r'shape \(2, 1\).*at least 2 answers'),
    ([[], []], r'shape \(2, 0\)'),
    ([[[1., 2.]]], r'shape \(1, 1, 2\)'),
    ([[0., 1.], [math.nan, 1.]], r'group 1 has rewards \[nan, 1.0\]'),
    ([[0., math.inf], [0., 1.]], 'group 0'),
])
def test_bad_rewards(rewards, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(torch.tensor(rewards))


# --- advantages -------------------------------------------------------------------------------
@pytest.mark.parametrize('rewards, options, expected, kept', [
    # deviations with ddof = 1: 1, 2 / sqrt(12) and sqrt(2)
    ([1, 2, 3], {}, [-1 / 1.0001, 0, 1 / 1.0001], True),
    ([0, 0, 1, 1], dict(eps=0), [-math.sqrt(.75)] * 2 + [math.sqrt(.75)] * 2, True),
    ([0, 2], dict(eps=0.5), [-1 / (math.sqrt(2) + .5), 1 / (math.sqrt(2) + .5)], True),
    ([5, 5, 5], {}, [0, 0, 0], False),
    ([.5, .51, .505], {}, [0, 0, 0], False),  # its deviation is 0.005
    ([.5, .51, .505], dict(min_std=0.004), [-.005 / .0051, .005 / .0051, 0], True),
    ([1, 2, 3], dict(min_std=1), [-1 / 1.0001, 0, 1 / 1.0001], True),
    ([1, 2, 3], dict(min_std=1.001), [0, 0, 0], False),
])
def test_advantages_by_hand(rewards, options, expected, kept):
    other = [10 * i for i in range(len(rewards))]  # a group does not look at its neighbour
    advantage, keep = group_advantages(torch.tensor([rewards, other], dtype=torch.float64),
                                       **options)
    assert advantage[0].tolist() == close(expected)
    assert keep.tolist() == [kept, True] and keep.dtype == torch.bool
    assert advantage[1].sum().item() == close(0.) and advantage[1].any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equal_rewards_are_dropped_whatever_the_threshold(dtype):
    for size in (2, 3, 7, 8, 33):
        values = torch.tensor([0, .1, 1 / 3, .7, -2 / 7, 1e6 + .1, 1e-30], dtype=dtype)
        advantage, kept = group_advantages(values[:, None].repeat(1, size), min_std=0.)
        assert not kept.any() and (advantage == 0).all()


@pytest.mark.parametrize('rewards, size, chosen', [
    ([.1, .9, .5, .4], 2, [1, 1, 0, 0]),
    ([.9, .1, .4, .5], 4, [1, 1, 1, 1]),
    ([0, 0, 0, 1], 2, [1, 0, 0, 1]),
    ([0, .1, .2, 1], 3, [1, 1, 0, 1]),          # two low ones differ more from the high one
    ([1, .9, .8, 0], 3, [1, 1, 0, 1]),
    ([3, 3, 3, 3], 2, [1, 0, 0, 1]),            # nothing differs: the even split
    ([5, 1], 1, [0, 1]),
])
def test_subset_by_hand(rewards, size, chosen):
    got = max_variance_subset(torch.tensor([rewards, rewards[::-1]], dtype=torch.float64), size)
    assert got[0].int().tolist() == chosen and got.dtype == torch.bool
    assert got.sum(1).tolist() == [size, size]


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.integers(1, 8))
@settings(deadline=None)
def test_no_subset_differs_more(rewards, size):
    size = min(size, len(rewards))
    values = torch.tensor([rewards], dtype=torch.float64)
    best = max(torch.tensor(subset, dtype=torch.float64).var(correction=0).item()
               for subset in itertools.combinations(rewards, size))
    chosen = values[max_variance_subset(values, size)]
    assert chosen.var(correction=0).item() == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize('size', [0, 4, -1])
def test_subset_of_impossible_size(size):
    with pytest.raises(ValueError, match=f'size={size}: choose 1 to 3'):
        max_variance_subset(torch.zeros(2, 3), size)


# --- golden vectors ---------------------------------------------------------------------------
@pytest.mark.parametrize('level', SEQUENCE)
@pytest.mark.parametrize('log_ratios, advantages, clip, loss, grad', [
    ([[3, -3, .6]], [1], GRPO, -1.2, [[0] * 3]),
    ([[.0012, -.0003, .0006], [-.0016, .0004]], [1, -1], {}, -0.00035, [[0] * 3, [0] * 2]),
    ([[.0006, -.0003, .0003], [.0016, .0004]], [1, -1], {}, 0.00040024008268746,
     [[-0.16670000333355559] * 3, [0.2502501250416771] * 2]),
])
def test_golden(level, log_ratios, advantages, clip, loss, grad):
    got, gradient, _ = evaluate(PolicyObjective(level, **clip), log_ratios, advantages)
    assert got == pytest.approx(loss, abs=1e-12)
    assert gradient == [pytest.approx(row, abs=1e-12) for row in grad]
    if not any(map(any, grad)):
        assert gradient == grad  # stopped by the band: exactly 0


def test_golden_token_level():
    loss, grad, _ = evaluate(PolicyObjective('token', **GRPO), [[3, -3, .6]], [1])
    assert loss == pytest.approx(-0.8165956895, abs=1e-10)
    assert grad == [[0, pytest.approx(-math.exp(-3) / 3, abs=1e-12), 0]]


# --- properties -------------------------------------------------------------------------------
@pytest.mark.parametrize('beta', [0., 0.3])
@pytest.mark.parametrize('value', [0., 1e6, -1e6, math.inf, math.nan])
@pytest.mark.parametrize('left', [False, True])
@pytest.mark.parametrize('level', LEVELS)
def test_formulas_whatever_the_padding(level, left, value, beta):
    objective = PolicyObjective(level, beta=beta)
    for seed in range(5):
        batch = table(seed)[:3 if beta else 2]
        loss, grad, sums = evaluate(objective, *batch, left=left, value=value)
        expected, gradient = plain(objective, *batch)
        assert loss == close(expected) and grad == close(gradient)
        means = [sum(row) / len(row) for row in batch[0]]
        assert sums['log_ratio'] == close(sum(means))
        assert sums['abs_log_ratio'] == close(sum(map(abs, means)))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), level=st.sampled_from(LEVELS), beta=st.sampled_from([0., 0.3]),
       cuts=st.sets(st.integers(1, 5)), left=st.booleans())
def test_micro_batches_sum_to_the_whole(seed, level, beta, cuts, left):
    objective = PolicyObjective(level, beta=beta)
    batch = table(seed)[:3 if beta else 2]
    whole, gradient, figures = evaluate(objective, *batch)
    edges = [0, *sorted(cuts), 6]
    parts = [evaluate(objective, *(column[i:j] for column in batch), left=left, total=6)
             for i, j in zip(edges, edges[1:])]
    assert sum(loss for loss, _, _ in parts) == close(whole)
    assert [row for _, grad, _ in parts for row in grad] == close(gradient)
    for name, value in figures.items():
        assert sum(sums[name] for _, _, sums in parts) == close(value)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('advantage', [5., math.nan])
def test_an_answer_without_tokens_is_left_out(level, advantage):
    objective = PolicyObjective(level, beta=0.3)
    ratios, advantages, refs = table(3)
    loss, grad, sums = evaluate(objective, ratios, advantages, refs)
    padded = evaluate(objective, ratios + [[]], advantages + [advantage], refs + [[]], value=7.)
    assert padded == (close(loss), close(grad + [[]]),
                      {name: close(value) for name, value in sums.items()})


@pytest.mark.parametrize('level', LEVELS)
def test_a_batch_without_tokens_has_no_loss(level):
    logp = torch.full((2, 3), math.nan, requires_grad=True)
    loss, sums = PolicyObjective(level)(logp, logp.detach(), torch.tensor([1., math.nan]),
                                        torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and (logp.grad == 0).all() and not any(sums.values())


@pytest.mark.parametrize('level', LEVELS)
def test_on_policy_the_loss_is_minus_the_advantage_and_teaches(level):
    ratios, advantages = [[0, 0, 0], [0, 0]], [1.5, -.5]
    loss, grad, sums = evaluate(PolicyObjective(level), ratios, advantages)
    assert loss == pytest.approx(-.5, abs=1e-15)
    assert grad == close([[-1.5 / 6] * 3, [.5 / 4] * 2])
    assert set(sums.values()) == {0}


@pytest.mark.parametrize('level, log_ratio, advantage, stopped', [
    *[(level, *row) for level in LEVELS for row in [
        (.5, 1, True), (.5, -1, False), (-.5, 1, False), (-.5, -1, True), (.1, 1, False),
        (-.1, -1, False), (.5, 0, False), (0, 1, False)]]])
def test_the_band_stops_the_gradient_where_it_would_lead_out(level, log_ratio, advantage, stopped):
    _, grad, sums = evaluate(PolicyObjective(level, **GRPO), [[log_ratio] * 2], [advantage])
    assert sums['clipped'] == stopped
    assert any(grad[0]) == (advantage != 0 and not stopped)


def test_clipped_is_a_share_of_tokens_at_token_level():
    _, _, sums = evaluate(PolicyObjective('token', **GRPO), [[.5, .5, 0, 0], [.5], [0]], [1] * 3)
    assert sums['clipped'] == 1.5


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('log_ratio, advantage, loss', [
    (1e4, -1, math.exp(20)), (-1e4, 1, -math.exp(-20)), (1e4, 1, -1.0004), (-1e4, -1, .9997)])
def test_absurd_log_ratios_stay_finite(level, log_ratio, advantage, loss):
    got, grad, sums = evaluate(PolicyObjective(level), [[log_ratio] * 2], [advantage])
    assert got == pytest.approx(loss, rel=1e-12)
    assert all(map(math.isfinite, grad[0])) and all(map(math.isfinite, sums.values()))
    got, grad, _ = evaluate(PolicyObjective(level, beta=1), [[0]], [0], [[-log_ratio]])
    assert math.isfinite(got) and math.isfinite(grad[0][0])


def test_k3_by_hand():
    """x = log 2 and 0: k3 is 1/2 - 1 + log 2 and 0, its derivative 1 - 1/2 and 0."""
    objective = PolicyObjective(beta=0.1)
    loss, grad, sums = evaluate(objective, [[0, 0], [0]], [0, 0], [[math.log(2), 0], [0]])
    kl = (math.log(2) - .5) / 2
    assert loss == close(.1 * kl / 2) and grad == close([[.1 * .5 / 4, 0], [0]])
    assert sums['ref_kl'] == close(kl)


def test_kl_of_a_small_change_is_half_its_square():
    _, _, sums = evaluate(PolicyObjective(), [[1e-3, -1e-3], [2e-3]], [1, 1])
    assert sums['kl'] == pytest.approx(.5e-6 + 2e-6, rel=2e-3)


# --- answers of another engine ----------------------------------------------------------------
#: by how much likelier the policy makes each token than the engine did, as log-ratios
ENGINE = [[.5, -.2, .6], [-.4, -.1], [3., 0., 0., .1]]


@pytest.mark.parametrize('level, weights, importance, capped', [
    # capped at 2: an answer by the sum of its log-ratios, a token by its own
    ('sequence', [2., math.exp(-.5), 2.], 4 + math.exp(-.5), 2),
    ('sequence_token', [2., math.exp(-.5), 2.], 4 + math.exp(-.5), 2),
    ('token', [[math.exp(.5), math.exp(-.2), math.exp(.6)], [math.exp(-.4), math.exp(-.1)],
               [2., 1., 1., math.exp(.1)]], None, 1 / 4),
])
@pytest.mark.parametrize('left', [False, True])
def test_answers_of_an_engine_are_weighed(level, weights, importance, capped, left):
    """The weight stands before the clipped gain and has no gradient."""
    ratios = [[.1, -.05, .02], [-.3, .1], [.05, .05, -.02, .1]]
    advantages = [1., -2., .5]
    objective = PolicyObjective(level, .2, .2, importance_cap=2.)
    old_rows = [[-(t + 1) / 4 for t in range(len(row))] for row in ratios]
    old, mask = pad(old_rows, left, -7.)
    engine = pad([[o - e for o, e in zip(*rows)] for rows in zip(old_rows, ENGINE)], left, 9.)[0]
    logp = pad([[o + x for o, x in zip(*rows)] for rows in zip(old_rows, ratios)], left,
               5.)[0].requires_grad_()
    loss, sums = objective(logp, old, torch.tensor(advantages, dtype=torch.float64), mask,
                           engine_logp_BT=engine)
    loss.backward()
    rows = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in ratios]
    expected = 0
    for row, advantage, weight in zip(rows, advantages, weights):
        ratio = row.exp() if level == 'token' else row.mean().exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(.8, 1.2) * advantage)
        expected = expected - (torch.tensor(weight, dtype=torch.float64) * gain).mean() / 3
    assert loss.item() == close(expected.item())
    expected = [g.tolist() for g in torch.autograd.grad(expected, rows)]
    assert [g[m].tolist() for g, m in zip(logp.grad, mask)] == close(expected)
    if importance is None:
        importance = sum(sum(row) / len(row) for row in weights)
    assert sums['importance'].item() == close(importance)
    assert sums['importance_capped'].item() == close(capped)


@pytest.mark.parametrize('level', LEVELS)
def test_an_engine_that_agrees_changes_nothing(level):
    ratios, advantages, _ = table(5)
    old, mask = pad([[-.5] * len(row) for row in ratios])
    logp = old + pad(ratios)[0]
    arguments = logp, old, torch.tensor(advantages, dtype=torch.float64), mask
    plainly = PolicyObjective(level)(*arguments)[0]
    weighed = PolicyObjective(level, importance_cap=2.)(*arguments, engine_logp_BT=old)[0]
    assert weighed.item() == plainly.item()
