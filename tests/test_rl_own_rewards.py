"""Rewards of one's own: parameters from the config, the whole sample in view, 'does not apply'."""
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import simpleseg_mm.engine  # noqa: F401 (registers rewards)
from simpleseg_mm.config import read_config
from simpleseg_mm.config_keys import check_config
from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.registry import REWARDS
from simpleseg_mm.rl import (COMPONENTS, PolygonReward, easyr1_reward, ms_swift_reward,
                             trl_reward, verl_reward)

ROOT = Path(__file__).resolve().parent.parent
CODEC = 'int100/default'
SQUARE = '[[[10,10],[50,10],[50,50],[10,50]]]'
TRUTH = np.zeros((100, 100), bool)
TRUTH[10:50, 10:50] = True


@pytest.fixture(autouse=True)
def own():
    """Registered for a test: a function, a class, and one that applies to some queries only."""
    names = set(REWARDS.module_dict)

    @REWARDS.register_module()
    def few(query, budget=100):
        return -query.answer.text.count(',') / budget

    @REWARDS.register_module()
    class Named:

        def __init__(self, word, bonus=1.0):
            if not word:
                raise ValueError('word is empty')
            self.word, self.bonus = word, bonus

        def __call__(self, query):
            return self.bonus * (self.word in query.prompt) if query.prompt else None

    @REWARDS.register_module()
    class Silent:
        pass

    @REWARDS.register_module()
    def small_only(query):
        return query.meta['area'] / 100 if query.meta.get('area', 999) < 100 else None

    yield
    for name in set(REWARDS.module_dict) - names:
        del REWARDS.module_dict[name]


def build(**cfg):
    return REWARDS.build(dict(type='PolygonReward', codec=CODEC, **cfg))


# --- refused ---------------------------------------------------------------------------------
@pytest.mark.parametrize('rewards, message', [
    (['few'], r"a reward is 'few'; give dict\(type=NAME, weight=NUMBER"),
    ([dict(type='few')], 'give dict'),
    ([dict(weight=1)], 'give dict'),
    ([dict(type='fwe', weight=1)], r"unknown reward components \['fwe'\]; choose from .*few.*"
     'custom_imports'),
    ([dict(type='PolygonReward', weight=1)], 'unknown reward components'),
    ([dict(type='os', weight=1)], 'unknown reward components'),
    ([dict(type=3, weight=1)], 'unknown reward components'),
    ([dict(type='few', weight=1, budgte=5)], r"reward 'few' with {'budgte': 5}: got an "
     r"unexpected keyword argument 'budgte'; it takes \(query, budget=100\)"),
    ([dict(type='few', weight=1, query=5)], "reward 'few' with .*multiple values"),
    ([dict(type="Named", weight=1)], "reward .Named. with {}: missing a required argument: .word"),
    ([dict(type='Named', weight=1, word='')], 'word is empty'),
    ([dict(type='few', weight=1), dict(type='few', weight=1, budget=9)],
     "two rewards are named 'few'; give one of them a name"),
    ([dict(type='Silent', weight=1)], "reward 'Silent': its objects cannot be called; give it a"),
    ([dict(type='few', weight='much')], 'reward weights'),
    ([dict(type='few', weight=float('nan'))], 'reward weights must be finite'),
    ([dict(type='few', weight=0)], 'not all 0'),
])
def test_bad_lists(rewards, message):
    with pytest.raises(ValueError, match=message) as error:
        build(rewards=rewards)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('weights, message', [
    (dict(Named=1), "reward 'Named' with {}: missing a required argument"),
    (dict(fewe=1), r"unknown reward components \['fewe'\]")])
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        build(weights=weights)


def test_one_reward_in_both_places():
    with pytest.raises(ValueError, match="two rewards are named 'few'"):
        build(weights=dict(few=1), rewards=[dict(type='few', weight=1)])


# --- parameters and what is seen -------------------------------------------------------------
def test_parameters_come_from_the_config():
    reward = build(weights=dict(mask_iou=1.0), rewards=[
        dict(type='few', weight=2, budget=10), dict(type='few', name='fewer', weight=0),
        dict(type='length', weight=.5, budget=54), dict(type='Named', weight=1, word='red')])
    found = reward([SQUARE], [TRUTH], samples=[dict(prompt='the red one')])
    assert {name: values.tolist() for name, values in found.components.items()} == dict(
        mask_iou=[1], few=[-.7], fewer=[-.07], length=[-.5], Named=[1])  # 7 commas, 27 tokens
    assert found.total == pytest.approx([1 - 1.4 - .25 + 1])


def test_a_reward_sees_prompt_task_sample_and_truth():
    seen = []
    reward = PolygonReward(dict(mine=1), CODEC, extra=dict(
        mine=lambda query: seen.append(query) or 0))
    sample = dict(prompt='where?', task='text2box', image_id=7)
    reward(['[1,2,3,4]', SQUARE], [TRUTH] * 2, samples=[sample, None], finished=[False, True],
           num_tokens=[9, None])
    boxed, plain = seen
    assert (boxed.prompt, boxed.task.wanted, boxed.meta['image_id']) == ('where?', 'box', 7)
    assert (boxed.answer.parsed.kind, boxed.answer.finished, boxed.answer.num_tokens) == (
        'box', False, 9)
    assert boxed.truth is plain.truth and np.array_equal(boxed.truth, TRUTH)
    assert (plain.prompt, plain.task, dict(plain.meta)) == (None, None, {})
    assert plain.answer.parsed.kind == 'rings' and plain.iou == 1


def test_none_is_left_out_and_counted():
    reward = build(weights=dict(format=.5, small_only=1.0))
    samples = [dict(area=40), dict(area=400), {}, None]
    found = reward([SQUARE] * 3 + ['words'], [TRUTH] * 4, samples=samples)
    assert found.components['small_only'].tolist()[:1] == [.4]
    assert np.isnan(found.components['small_only'][1:]).all()
    assert found.total.tolist() == [.9, .5, .5, 0] and found.applied.all()
    alone = build(weights=dict(small_only=1.0, format=0))([SQUARE] * 2, [TRUTH] * 2,
                                                         samples=samples[:2])
    assert alone.total.tolist() == [.4, 0] and alone.applied.tolist() == [True, False]


@pytest.mark.parametrize('task, text, expected', [
    # right format of what was asked for, and whether the rewards of masks say anything
    ('text2mask', SQUARE, (1, 1)), ('point2mask', '[1,2,3,4]', (0, 0)), (None, SQUARE, (1, 1)),
    ('my task', SQUARE, (1, 1)), ('text2box', '[10,10,50,50]', (1, None)),
    ('text2box', SQUARE, (0, None)), ('text2point', '[1,2]', (1, None)),
    ('text2extreme', '[1,2] or so', (0, None)), ('box2text', 'the red one', (None, None)),
    ('question', 'two', (None, None)),
])
def test_rewards_of_masks_apply_to_masks(task, text, expected):
    found = PolygonReward(dict.fromkeys(COMPONENTS, 1.), CODEC)([text], [TRUTH],
                                                               samples=[dict(task=task)])
    parts = {name: None if np.isnan(values[0]) else values[0]
             for name, values in found.components.items()}
    assert (parts['format'], parts['mask_iou']) == expected
    for name in ('iou_squared', 'boundary_iou', 'centroid'):
        assert (parts[name] is None) == (expected[1] is None)
    assert parts['length'] < 0 and np.isfinite(found.total).all()


# --- other trainers --------------------------------------------------------------------------
def test_trl_gives_every_column():
    function = trl_reward(build(rewards=[dict(type='Named', weight=1, word='red'),
                                         dict(type='small_only', weight=1)]))
    prompts = [[dict(role='user', content='the red one')],
               [dict(role='user', content=[dict(type='image'), 'the ',
                                           dict(type='text', text='dog')])],
               'red dog']
    values = function(prompts=prompts, completions=[SQUARE] * 3, mask=[mask_to_rle(TRUTH)] * 3,
                      area=[40, 40, 400], trainer_state=object(), log=print)
    assert values == pytest.approx([1.4, .4, 1])
    alone = trl_reward(build(rewards=[dict(type='small_only', weight=1)]))
    assert alone(prompts=['x'] * 2, completions=[SQUARE] * 2, mask=[TRUTH] * 2,
                 area=[50, 500]) == [.5, None]  # TRL's word for 'does not apply'


def test_the_others_give_what_they_know():
    reward = build(weights=dict(format=1.0), rewards=[dict(type='small_only', weight=1)])
    rle = mask_to_rle(TRUTH)
    scored = verl_reward(reward)('x', SQUARE, rle, extra_info=dict(area=20))
    assert scored == dict(score=1.2, format=1, small_only=.2)
    assert verl_reward(reward)('x', SQUARE, rle)['score'] == 1
    found = easyr1_reward(reward)([dict(response=SQUARE, ground_truth=json.dumps(rle), area=30)])
    assert found == [dict(overall=1.3, format=1, small_only=.3)]
    called = ms_swift_reward(reward)()
    assert called(completions=[SQUARE], mask=[rle], area=[10]) == [1.1]


# --- configs and the page --------------------------------------------------------------------
def test_settings_in_a_config_are_checked():
    from mmengine.config import Config
    cfg = Config(dict(default_scope='simpleseg_mm', train_cfg=dict(
        type='RLTrainLoop', max_iters=1, rollout=dict(type='InProcessRollout'),
        reward=dict(type='PolygonReward', weights=dict(format=1.0), rewards=[
            dict(type='few', weight=.1, budget=50), dict(type='few', name='b', weight=.1)]))))
    check_config(cfg)
    cfg.train_cfg.reward.rewards[0].pop('budget')
    cfg.train_cfg.reward.rewards[0].budgett = 3
    with pytest.raises(ValueError, match='rewards.0.budgett: few has no such setting.*budget'):
        check_config(cfg)
    cfg.train_cfg.reward.rewards[0] = dict(type='fww', weight=1)
    with pytest.raises(ValueError, match='there is no fww'):
        check_config(cfg)


def test_the_reward_of_the_page_runs(tmp_path, monkeypatch):
    """docs/reinforcement_learning.md: a reward with a parameter, in fewer than ten lines, and the
    config that names it."""
    page = (ROOT / 'docs/reinforcement_learning.md').read_text()
    code, config = re.findall(r'```python\n(.*?)```', page.partition('## Rewards')[2], re.S)[:2]
    assert len([line for line in code.splitlines() if line.strip()]) < 10
    (tmp_path / 'my_rewards.py').write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'my_rewards', raising=False)
    path = tmp_path / 'config.py'
    path.write_text(config.replace("'./", f"'{ROOT}/configs/simpleseg/"))
    cfg = read_config(str(path))
    check_config(cfg)
    reward = REWARDS.build(dict(cfg.train_cfg.reward, codec=CODEC))
    assert reward.weights['OnTheLeft'] == .1 and reward.weights['mask_iou'] == 1
    found = reward([SQUARE] * 2, [TRUTH] * 2, samples=[
        dict(prompt='the car on the left', task='text2mask'),
        dict(prompt='the car', task='text2mask')])
    first, second = found.components['OnTheLeft']
    assert first == 1 and np.isnan(second)
