"""The objective and the reward beside TRL's GRPOTrainer, whose own methods are called.

The trainer is made without its constructor: only what the methods read is set.
"""
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.rl import PolicyObjective, PolygonReward, trl_reward

pytest.importorskip('trl')

from trl import GRPOTrainer  # noqa: E402
from trl.trainer.utils import get_callable_name  # noqa: E402


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """accelerate takes the variable that tools/train.py sets for a process of several."""
    monkeypatch.delenv('LOCAL_RANK', raising=False)


def stub(**attributes) -> GRPOTrainer:
    trainer = object.__new__(GRPOTrainer)
    accelerator = SimpleNamespace(
        device=torch.device('cpu'), is_main_process=True, num_processes=1,
        gather=lambda value: value, reduce=lambda value, reduction: value)
    vars(trainer).update(
        accelerator=accelerator, model=SimpleNamespace(training=True),
        state=SimpleNamespace(global_step=0), _metrics=defaultdict(lambda: defaultdict(list)),
        **attributes)
    return trainer


# --- loss -------------------------------------------------------------------------------------
def their_loss(level, clip, beta, logp, old, advantage, mask, ref, weight=None):
    """TRL's loss, and its share of clipped answers; ``weight``: of vLLM's answers or tokens."""
    trainer = stub(
        importance_sampling_level=level, epsilon_low=clip[0], epsilon_high=clip[1], beta=beta,
        loss_type='grpo', current_gradient_accumulation_steps=1, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, use_vllm=weight is not None,
        vllm_importance_sampling_correction=True, aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False))
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
        logp, torch.zeros_like(logp), None)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    loss = trainer._compute_loss(None, dict(
        prompt_ids=ids[:, :1], prompt_mask=ids[:, :1] + 1, completion_ids=ids,
        completion_mask=mask.long(), advantages=advantage, old_per_token_logps=old,
        ref_per_token_logps=ref, importance_sampling_ratio=weight))
    return loss, trainer._metrics['train']['clip_ratio/region_mean'][0]


@pytest.mark.parametrize('beta', [0., 0.04])
@pytest.mark.parametrize('ours, theirs, clip, noise', [
    ('sequence', 'sequence', (3e-4, 4e-4), 5e-4),
    ('sequence_token', 'sequence', (3e-4, 4e-4), 5e-4),
    ('sequence', 'sequence', (.2, .28), .5),
    ('token', 'token', (.2, .28), .5),
    ('token', 'token', (3e-4, 4e-4), 5e-4),
    ('sequence', 'sequence', (3e-4, 4e-4), 0.),  # on-policy
])
def test_loss_and_gradient_are_trl_s(ours, theirs, clip, noise, beta):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    rows, width = 16, 7
    length = torch.randint(1, width + 1, (rows, 1), generator=generator)
    mask = torch.arange(width) < length
    old = -normal(rows, width).exp()
    logp = (old + noise * length**.5 * normal(rows, width)).requires_grad_()
    ref = old + .3 * normal(rows, width)
    advantage = normal(rows)
    expected, clipped = their_loss(theirs, clip, beta, logp, old, advantage, mask, ref)
    loss, sums = PolicyObjective(ours, *clip, beta)(logp, old, advantage, mask,
                                                    ref_logp_BT=ref if beta else None)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(value, logp)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    assert gradients[0].any()
    if theirs == 'sequence':  # at token level TRL weighs every token alike
        assert float(sums['clipped']) / rows == pytest.approx(clipped)
        assert (0 < clipped < 1) == (noise > 0)  # both sides of the band are met


@pytest.mark.parametrize('ours, theirs', [
    ('sequence', 'sequence'), ('sequence_token', 'sequence'), ('token', 'token')])
def test_answers_of_an_engine_are_weighed_as_in_trl(ours, theirs):
    """Its 'sequence_truncate' and 'token_truncate', at a cap that some reach."""
    generator = torch.Generator().manual_seed(1)
    old, noise, off = -torch.rand(3, 12, 5, dtype=torch.float64, generator=generator)
    mask = torch.arange(5) < torch.randint(1, 6, (12, 1), generator=generator)
    logp = (old + .3 * noise).requires_grad_()
    engine = old + off + .5
    advantage = torch.randn(12, dtype=torch.float64, generator=generator)
    difference = (old - engine) * mask
    if theirs == 'sequence':
        difference = difference.sum(1, keepdim=True)
    weight = difference.exp().clamp(max=1.2)
    assert 0 < (weight == 1.2).sum() < weight.numel()
    expected, _ = their_loss(theirs, (.2, .28), 0., logp, old, advantage, mask, None, weight)
    loss, _ = PolicyObjective(ours, .2, .28, importance_cap=1.2)(
        logp, old, advantage, mask, engine_logp_BT=engine)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(value, logp)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


# --- reward -----------------------------------------------------------------------------------
TRUTH = np.zeros((100, 100), bool)
TRUTH[10:50, 10:50] = True
ANSWERS = ['[[[10,10],[50,10],[50,50],[10,50]]]', '[[[20,10],[60,10],[60,50],[20,50]]]', 'no']
VALUES = [1.5, .6 + .5, 0]


@pytest.mark.parametrize('target', [mask_to_rle(TRUTH), TRUTH.tolist()])
@pytest.mark.parametrize('conversational', [False, True])
def test_reward_called_by_trl(conversational, target):
    """Examples as a dataset gives them, with a column that the reward has no use for."""
    reward = trl_reward(PolygonReward(dict(mask_iou=1, format=.5)), codec='spec')
    trainer = stub(reward_funcs=[reward, reward], reward_processing_classes=[None, None],
                   reward_func_names=[get_callable_name(reward)] * 2, environments=None,
                   args=SimpleNamespace(report_to=[]))
    prompt, completions = 'Where?', list(ANSWERS)
    if conversational:
        prompt = [dict(role='user', content=prompt)]
        completions = [[dict(role='assistant', content=text)] for text in completions]
    examples = [dict(prompt=prompt, mask=target, spec='int100/default', image_id=i)
                for i in range(3)]
    rewards = trainer._calculate_rewards(examples, [prompt] * 3, completions, [[1, 2]] * 3)
    assert trainer.reward_func_names[0] == 'simpleseg_polygon'
    torch.testing.assert_close(rewards, torch.tensor([VALUES, VALUES]).T)


def test_a_row_without_a_target():
    """Of a set that is mixed with others: the other reward is alone there."""
    reward = trl_reward(PolygonReward(dict(mask_iou=1), codec='int100/default'))
    trainer = stub(reward_funcs=[reward, lambda **columns: [.5] * 3], environments=None,
                   reward_processing_classes=[None, None], reward_func_names=['ours', 'other'],
                   args=SimpleNamespace(report_to=[]))
    examples = [dict(mask=target, codec=None) for target in (mask_to_rle(TRUTH), None, TRUTH)]
    rewards = trainer._calculate_rewards(examples, ['Where?'] * 3, ANSWERS, [[1, 2]] * 3)
    torch.testing.assert_close(rewards[:, 0], torch.tensor([1, float('nan'), 0]), equal_nan=True)
    assert rewards[:, 1].tolist() == [.5] * 3


def test_targets_from_a_dataset():
    """``datasets`` makes the values of a column anew each time it is read."""
    from datasets import Dataset
    truths = [np.roll(TRUTH, 2 * i, 1) for i in range(20)]
    texts = [f'[[[{x},10],[{x + 40},10],[{x + 40},50],[{x},50]]]' for x in range(10, 50, 2)]
    data = Dataset.from_list([dict(mask=mask_to_rle(truth)) for truth in truths])
    function = trl_reward(PolygonReward(dict(mask_iou=1), codec='int100/default'))
    rewards = function(prompts=['Where?'] * 20, completions=texts, mask=data['mask'])
    assert rewards == [1] * 20
