"""Reinforcement learning on the real model: runs of a few rollouts of four prompts."""
import copy
import json
import math
from pathlib import Path

import pytest
import torch
from engine_standin import BASE, RecordHook, build, run_tool, train
from engine_standin import logged_rows as logged
from mmengine.config import Config
from packaging.version import Version

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch
from simpleseg_mm.engine import rl_loop as rl_loop_module
from simpleseg_mm.engine.rl_loop import RLTrainLoop
from simpleseg_mm.registry import LOOPS, REWARDS
from simpleseg_mm.rl import RewardError

SCRIPT = {'train_cfg.rollout.type': 'ScriptedRollout'}
RECORD = {'default_hooks.record.type': 'RecordHook'}
SGD = {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=0.1),
       'optim_wrapper.clip_grad': None, 'param_scheduler': []}
NO_VAL = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
ONE_ROLLOUT = {'train_cfg.max_iters': 1, **NO_VAL}
GROUP, PROMPTS, TEMPERATURE = 4, 4, 0.8

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    generate(folder / 'refshapes', dict(train=6, val=2))
    loader = ('num_workers=0, persistent_workers=False, '
              f"dataset=dict(data_root='{folder}/refshapes'")
    path = folder / 'rl.py'
    # The band is wide, so that the second update of a rollout is not clipped away.
    path.write_text(f"""
_base_ = ['{BASE}/models/nano_random.py', '{BASE}/datasets/refshapes.py',
          '{BASE}/evaluators/res.py', '{BASE}/schedules/gspo_nano.py', '{BASE}/rl_runtime.py']
custom_imports = dict(imports=['simpleseg_mm.datasets', 'simpleseg_mm.models',
    'simpleseg_mm.engine', 'simpleseg_mm.evaluation', 'simpleseg_mm.visualization',
    'engine_standin'])
model = dict(generation=dict(max_new_tokens=3))
train_dataloader = dict({loader}, query=dict(templates='single')))
val_dataloader = dict(batch_size=2, {loader}, indices=2))
test_dataloader = val_dataloader
train_cfg = dict(
    global_batch_size={PROMPTS}, max_iters=6, val_interval=2, group_size={GROUP},
    down_sample=None, mini_batches=2, micro_batch_size=3,
    objective=dict(clip_low=0.2, clip_high=0.2), reward=dict(max_side=64),
    rollout=dict(max_new_tokens=6, temperature={TEMPERATURE}))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4)]
default_hooks = dict(checkpoint=dict(interval=2), rollouts=dict(interval=-1))
""")
    return path


def recorded(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, RecordHook))


def weights(runner):
    return copy.deepcopy(runner.model.state_dict())


def assert_same(first, second):
    """Nested states, bit for bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif torch.is_tensor(first):
        assert torch.equal(first, second)
    else:
        assert first == second


def distance(first, second):
    """Largest difference of two sets of tensors, in units of the largest value."""
    assert first.keys() == second.keys()
    return max(float((first[k] - second[k]).abs().max()) for k in first) / max(
        float(value.abs().max()) for value in first.values())


# --- settings that cannot work -----------------------------------------------------------------
@pytest.fixture(scope='module')
def runner(config, tmp_path_factory):
    """A runner that is never run."""
    return build(config, tmp_path_factory.mktemp('runner'), **NO_VAL)


@pytest.mark.parametrize('options, match', [
    (dict(group_size=1), 'group_size=1.*at least 2'),
    (dict(mini_batches=3), '4 prompts.*mini_batches=3'),
    (dict(mini_batches=0), 'mini_batches=0'),
    (dict(mini_batches=8), 'mini_batches=8'),
    (dict(micro_batch_size=0), 'micro_batch_size=0'),
    (dict(down_sample=1), 'down_sample=1: 2 to group_size=4'),
    (dict(down_sample=5), 'down_sample=5'),
    (dict(reward=dict(type='PolygonReward', weights=dict(iou=1.0))), "unknown.*'iou'.*mask_iou"),
    (dict(reward=dict(type='PolygonReward', weights=dict(mask_iou=0, format=0))), 'not all 0'),
    (dict(reward=dict(type='PolygonReward', weights=dict(mask_iou=math.nan))), 'finite'),
    (dict(objective=dict(level='word')), "level='word'.*sequence"),
    (dict(rollout=dict(type='InProcessRollout', temperature=0)), 'temperature=0'),
    (dict(rollout=dict(type='InProcessRollout', batch_size=0)), 'batch_size=0'),
    (dict(objective=dict(importance_cap=2.)), 'importance_cap=2.0: InProcessRollout draws from'),
    (dict(max_engine_difference=0), 'max_engine_difference=0: above 0'),
    (dict(rollout=dict(type='VLLMRollout', mode='remote')), "mode='remote'.*'colocated'"),
    (dict(rollout=dict(type='VLLMRollout', mode='server')), 'rollout.urls'),
    (dict(rollout=dict(type='VLLMRollout', mode='server', urls='http://a')), 'weights_dir'),
    (dict(rollout=dict(type='VLLMRollout', mode='server', urls=['a:8000'], weights_dir='w')),
     "'a:8000' is no address"),
    (dict(rollout=dict(type='VLLMRollout', mode='server', urls=['http://a'], weights_dir='w',
                       engine=dict(max_num_seqs=2))), "rollout.engine is of mode='colocated'"),
    (dict(rollout=dict(type='VLLMRollout', urls=['http://a'])), "of mode='server'"),
    (dict(rollout=dict(type='VLLMRollout', constrain=True)), 'constrain=True.*whole vocabulary'),
    (dict(rollout=dict(type='VLLMRollout', temperature=0)), 'temperature=0'),
    (dict(rollout=dict(type='VLLMRollout', temperature=3)), 'temperature=3: vLLM takes 2'),
    (dict(rollout=dict(type='VLLMRollout', temperature=.5, top_p=.9)), 'temperature=0.5 with'),
])
def test_settings_that_cannot_work_are_refused(runner, options, match):
    arguments = {**runner.cfg.train_cfg.to_dict(), **options}
    del arguments['type']
    with pytest.raises(ValueError, match=match):
        RLTrainLoop(runner, runner.cfg.train_dataloader.to_dict(), **arguments)


def test_accumulated_gradients_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match='micro_batch_size'):
        train(config, tmp_path, **NO_VAL, **{'optim_wrapper.accumulative_counts': 2,
                                             'train_cfg.global_batch_size': None,
                                             'train_dataloader.batch_size': PROMPTS})


def test_prompts_are_shared_among_processes(config):
    cfg = Config.fromfile(str(config))
    before = copy.deepcopy(cfg.to_dict())
    assert launch.check_training(cfg, 2) == 1
    assert cfg.to_dict() == before
    with pytest.raises(ValueError, match='global_batch_size=4 prompts.*3 processes'):
        launch.check_training(cfg, 3)


@pytest.mark.parametrize('size', [pytest.param(1, marks=pytest.mark.slow), 3,
                                  pytest.param(32, marks=pytest.mark.slow)])
def test_a_rollout_has_its_prompts_whatever_the_loader_reads_at_a_time(config, tmp_path, size):
    def seen(run):
        return [[row['prompt'] for row in rows] for rows in recorded(run).rollouts]

    record = {'default_hooks.record': dict(type='RecordHook'), 'train_cfg.max_iters': 2, **NO_VAL}
    whole, other = (train(config, tmp_path / name, **record, **{'train_dataloader.batch_size': n})
                    for name, n in (('whole', PROMPTS), ('other', size)))
    assert all(len(rows) == PROMPTS * GROUP for rows in seen(whole))
    assert seen(whole) == seen(other)
    assert_same(weights(whole), weights(other))


@LOOPS.register_module()
class MyPolicyLoop(RLTrainLoop):
    """One of a user's own."""


@pytest.mark.parametrize('kind', ['MyPolicyLoop', 'simpleseg_mm.MyPolicyLoop', MyPolicyLoop,
                                  'RLTrainLoop', 'simpleseg_mm.RLTrainLoop'])
def test_a_loop_derived_from_rl_is_rl_whatever_its_name(config, kind):
    cfg = Config.fromfile(str(config))
    cfg.train_cfg.type = kind
    assert launch.is_rl(cfg)
    assert launch.check_training(cfg, 2) == 1
    for other in ('SFTTrainLoop', 'IterBasedTrainLoop', 'NoSuchLoop', 'other_scope.RLTrainLoop'):
        cfg.train_cfg.type = other
        assert not launch.is_rl(cfg)


# --- what an update is ------------------------------------------------------------------------
def test_updates_are_the_policy_gradients_of_their_answers(config, tmp_path):
    """Worked out here from log-probabilities, answer by answer; those without a token are left
    out of sum and count. The weights stay, so that the ratios are 1 in both mini-batches."""
    run = train(config, tmp_path, **SCRIPT, **RECORD, **SGD, **ONE_ROLLOUT, **{
        'train_cfg.rollout.silent': True, 'optim_wrapper.optimizer.lr': 0.0})
    experience = run.train_loop.experience
    losses = []
    for part, gradient in zip(([0, 1], [2, 3]), recorded(run).gradients, strict=True):
        rows = [(p, answer, experience.advantage_PG[p, g]) for p in part
                for g, answer in enumerate(experience.answers[p])
                if answer.token_ids and experience.learnt_PG[p, g]]
        assert 0 < len(rows) < len(part) * GROUP
        run.model.zero_grad()
        losses.append(0.0)
        for p, answer, advantage in rows:
            logp, _, mask = run.model.log_probs(
                [experience.images[p]], [[(experience.samples[p].prompt, answer.token_ids)]],
                TEMPERATURE)
            assert int(mask.sum()) == answer.num_tokens
            score = (logp * mask).sum() / answer.num_tokens
            (-score * advantage / len(rows)).backward()
            losses[-1] -= float(advantage) / len(rows)
        expected = {name: p.grad for name, p in run.model.named_parameters()}
        assert distance(expected, gradient) < 1e-5
    assert logged(tmp_path)[0]['loss'] == pytest.approx(sum(losses) / 2, abs=1e-5)


def test_only_the_chosen_answers_are_learnt_from(config, tmp_path):
    """Down-sampled from 8 to 4, a rollout gives the update of those 4 alone, with advantages
    among themselves."""
    run = train(config, tmp_path, **SCRIPT, **RECORD, **SGD, **ONE_ROLLOUT, **{
        'train_cfg.group_size': 8, 'train_cfg.down_sample': 4, 'train_cfg.mini_batches': 1})
    experience, = [run.train_loop.experience]
    assert experience.learnt_PG.sum(1).tolist() == [4] * PROMPTS
    for p in range(PROMPTS):
        learnt = experience.learnt_PG[p]
        chosen, rest = experience.reward_PG[p][learnt], experience.reward_PG[p][~learnt]
        assert not ((rest < chosen.min()) | (rest > chosen.max())).any()
        expected = (chosen - chosen.mean()) / (chosen.std() + 1e-4)
        assert experience.advantage_PG[p][learnt].tolist() == pytest.approx(
            expected.tolist(), rel=1e-5)
        assert not experience.advantage_PG[p][~learnt].any()
    answers = [answer.num_tokens for p, group in enumerate(experience.answers)
               for g, answer in enumerate(group) if experience.learnt_PG[p, g]]
    assert logged(tmp_path)[0]['answer_tokens'] == sum(answers)


@pytest.mark.parametrize('dtype, tolerance', [
    ('float64', 1e-7), pytest.param('float32', 5e-6, marks=pytest.mark.slow)])
def test_micro_batches_change_nothing(config, tmp_path, dtype, tolerance):
    """Neither loss nor gradients, of the rollout's first update and of its second, beyond
    rounding (3e-9 and 1.8e-6 of the largest gradient measured)."""
    runs = []
    for size in (8, 1, 2):
        run = train(config, tmp_path / str(size), **SCRIPT, **RECORD, **SGD, **ONE_ROLLOUT,
                    **{'train_cfg.micro_batch_size': size, 'model.mllm.dtype': dtype})
        runs.append((logged(tmp_path / str(size))[0], recorded(run).gradients))
    (log, (first, second)), *others = runs
    assert distance(first, second) > 0.1  # there is a second, other one
    for other_log, gradients in others:
        assert other_log['loss'] == pytest.approx(log['loss'], abs=1e-6)
        for name in ('entropy', 'kl', 'clipped', 'answer_tokens'):
            assert other_log[name] == pytest.approx(log[name], rel=1e-4), name
        assert distance(first, gradients[0]) < tolerance
        assert distance(second, gradients[1]) < tolerance


@pytest.mark.parametrize('strategy', [None, pytest.param('fsdp', marks=pytest.mark.slow)])
def test_two_processes_equal_one(config, tmp_path, strategy):
    """Two answers of each group are sampled. In the first rollout one group of the second process
    is dropped, in the second rollout all of them, in the third every group."""
    options = {**SCRIPT, **RECORD, **NO_VAL, 'train_cfg.max_iters': 4,
               'train_cfg.rollout.sampled': 2, 'train_cfg.objective.beta': 0.1,
               'train_cfg.rollout.alike': [[1], [1, 3], [0, 1, 2, 3]],
               'optim_wrapper.optimizer.lr': 1e-4}
    one = train(config, tmp_path / 'one', **options)
    if strategy:  # weights split over the processes
        path = tmp_path / 'split.py'
        path.write_text(f"_base_ = ['{config}', '{BASE}/strategies/{strategy}.py']\n")
        config = path
    result = run_tool('train.py', config, '--work-dir', tmp_path / 'two', '--launcher', 'pytorch',
                      '--cfg-options', *as_arguments(options), processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]

    logs = logged(tmp_path / 'one'), logged(tmp_path / 'two')
    assert [len(log) for log in logs] == [4, 4]
    assert [row['dropped_groups'] for row in logs[0]] == [0.25, 0.5, 1.0, 0.0]
    differ = ('time', 'data_time', 'rollout_seconds', 'update_seconds')
    for a, b in zip(*logs):
        assert a.keys() == b.keys()
        for name in a:
            if name not in differ and not name.endswith('_per_s'):
                assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name

    ranks = [json.loads((tmp_path / f'two/record_rank{r}.json').read_text()) for r in range(2)]
    for alone, first, second in zip(recorded(one).rollouts, *ranks):
        pairs = [rows[p * GROUP:(p + 1) * GROUP] for p in range(PROMPTS // 2)
                 for rows in (first, second)]
        for a, b in zip(alone, [row for rows in pairs for row in rows], strict=True):
            assert a.keys() == b.keys()
            for name, value in a.items():
                assert b[name] == (value if isinstance(value, str) else pytest.approx(
                    value, rel=1e-5)), name


@pytest.mark.parametrize('stage', [1, 2, 3])
def test_deepspeed_equals_one_process(stage, config, tmp_path, monkeypatch):
    """ZeRO on two processes; micro-batches of 2, so that gradients are accumulated."""
    deepspeed = pytest.importorskip('deepspeed')
    if stage == 2 and Version('0.17') <= Version(deepspeed.__version__) < Version('0.18.9'):
        pytest.skip('this DeepSpeed loses accumulated batches under ZeRO-2 and is refused')
    monkeypatch.setenv('DS_ACCELERATOR', 'cpu')
    optimizer = "dict(_delete_=True, type='{}', constructor='MuonConstructor', " \
        "optimizer=dict(type='AdamW', lr=1e-4){})"
    options = {**SCRIPT, **NO_VAL, 'train_cfg.max_iters': 4,
               'train_cfg.rollout.sampled': 2, 'train_cfg.micro_batch_size': 2,
               'train_cfg.objective.beta': 0.1 if stage < 3 else 0.0}
    plain, zero = tmp_path / 'plain.py', tmp_path / 'zero.py'
    plain.write_text(f"_base_ = '{config}'\noptim_wrapper = " + optimizer.format(
        'OptimWrapper', ', clip_grad=dict(max_norm=1.0)') + '\n')
    zero.write_text(f"_base_ = ['{config}', '{BASE}/strategies/deepspeed_zero{stage}.py']\n"
                    'strategy = dict(bf16=dict(enabled=False), '
                    'zero_optimization=dict(overlap_comm=False))\noptim_wrapper = '
                    + optimizer.format('DeepSpeedOptimWrapper', '') + '\n')
    train(plain, tmp_path / 'one', **options)
    result = run_tool('train.py', zero, '--work-dir', tmp_path / 'two', '--launcher', 'pytorch',
                      '--cfg-options', *as_arguments(options), processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    for a, b in zip(logged(tmp_path / 'one'), logged(tmp_path / 'two'), strict=True):
        for name in a.keys() & {'loss', 'reward', 'kl', 'ref_kl', 'log_ratio', 'entropy',
                                'length'}:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name


def as_arguments(options):
    """--cfg-options of a dictionary."""
    return [f'{key}={value}'.replace(' ', '') for key, value in options.items()]


# --- a whole run, and one that is killed ------------------------------------------------------
# Vowels are what random weights can learn to write; of few likely tokens they learn it in a blink.
WHOLE = {'train_cfg.reward.weights.vowels': 1.0, 'train_cfg.rollout.top_k': 16}


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """The run that nothing disturbs."""
    return train(config, tmp_path_factory.mktemp('whole'), **WHOLE, **RECORD,
                 **{'default_hooks.rollouts.interval': 6})


def test_log_of_a_run(whole):
    rows = [row for row in logged(whole.work_dir) if 'reward' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = {'loss', 'grad_norm', 'lr', 'reward', 'reward_mask_iou', 'reward_centroid',
             'reward_format', 'reward_vowels', 'reward_std', 'length', 'truncated', 'valid_parse',
             'dropped_groups', 'entropy', 'kl', 'clipped', 'rollout_seconds', 'update_seconds',
             'answer_tokens', 'samples_per_s'}
    for row in rows:
        assert names <= set(row), names - set(row)
        assert 0 < row['reward_std'] and 0 < row['entropy'] <= math.log(1024)
        assert row['reward'] == pytest.approx(
            row['reward_mask_iou'] + 0.2 * row['reward_centroid'] + 0.2 * row['reward_format']
            + row['reward_vowels'])
        assert 1 <= row['length'] <= 6 and row['rollout_seconds'] > 0 < row['update_seconds']
        assert row['kl'] > 0  # the second update of a rollout is off-policy


def test_reward_rises(whole):
    rows = [row['reward_vowels'] for row in logged(whole.work_dir) if 'reward' in row]
    assert rows[-1] > rows[0] + 0.1


def test_validation_and_best_checkpoint(whole):
    values = [row for row in logged(whole.work_dir) if 'res/gIoU' in row]
    assert [row['step'] for row in values] == [0, 2, 4, 6]
    best, = Path(whole.work_dir).glob('best_res_gIoU_iter_*.pth')
    assert torch.load(best, weights_only=False)['state_dict']


def test_rollout_table(whole):
    for step, rows in [(1, recorded(whole).rollouts[0]), (6, recorded(whole).rollouts[-1])]:
        table = Path(whole.work_dir, 'rollouts', f'rollout_{step}.jsonl').read_text()
        assert [json.loads(line) for line in table.splitlines()] == rows
        assert len(rows) == PROMPTS * GROUP and len({row['answer'] for row in rows}) > GROUP


@pytest.mark.parametrize('method, call', [
    pytest.param('model.mllm.writer.decode', 3, id='rollout', marks=pytest.mark.slow),
    pytest.param('optim_wrapper.backward', 4, id='update', marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_never_stopped(config, whole, tmp_path, method, call):
    """SIGKILL while answers are written, and between the updates of a rollout."""
    killed = run_tool('train.py', config, '--work-dir', tmp_path, '--cfg-options',
                      *as_arguments(WHOLE), 'default_hooks.kill.type=KillHook',
                      'default_hooks.kill.at=3', f'default_hooks.kill.method={method}',
                      f'default_hooks.kill.call={call}')
    assert killed.returncode == -9, killed.stderr[-2000:]
    checkpoint = launch.find_resumable(str(tmp_path))
    assert checkpoint.endswith('iter_2.pth')
    resumed = train(config, tmp_path, resume=True, load_from=checkpoint, **WHOLE, **RECORD)
    assert recorded(resumed).rollouts == recorded(whole).rollouts[2:]
    first, second = (torch.load(Path(folder, 'iter_6.pth'), weights_only=False)
                     for folder in (whole.work_dir, tmp_path))
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(first[key], second[key])


# --- nothing to learn -------------------------------------------------------------------------
EVERY_GROUP_ALIKE = {**SCRIPT, 'train_cfg.rollout.alike': [[0, 1, 2, 3]] * 2}


@pytest.mark.parametrize('text', ['[[[20,20],[80,20],[50,80]]]', 'over there [[[1,', '', '[]'])
def test_groups_without_a_difference_change_nothing(config, tmp_path, text):
    run = build(config, tmp_path, **EVERY_GROUP_ALIKE, **NO_VAL,
                **{'train_cfg.max_iters': 2, 'train_cfg.rollout.text': text})
    before = weights(run)
    run.train()
    assert_same(before, weights(run))
    assert not run.optim_wrapper.optimizer.state
    for row in logged(tmp_path):
        assert row['dropped_groups'] == 1 and row['reward_std'] == row['loss'] == 0


def test_target_without_a_pixel(config, tmp_path):
    """'[]' is right, every polygon is wrong; the other groups differ in their format."""
    run = train(config, tmp_path, **SCRIPT, **RECORD, **ONE_ROLLOUT, **{
        'train_cfg.rollout.alike': [[0]], 'train_cfg.rollout.text': '[]',
        'default_hooks.nothing.type': 'NothingMeantHook'})
    rows, = recorded(run).rollouts
    assert [row['reward'] for row in rows[:GROUP]] == pytest.approx([1.4] * GROUP)
    assert [row['reward'] for row in rows[GROUP:]] == pytest.approx(
        [0.2 * row['format'] for row in rows[GROUP:]])
    assert logged(tmp_path)[0]['dropped_groups'] == 1 / PROMPTS
    assert len(recorded(run).gradients) == 2


# --- what stops a run -------------------------------------------------------------------------
def poison(run, what, monkeypatch):
    if what == 'weight':
        next(run.model.parameters()).data[:] = math.nan
    elif what == 'gradient':
        next(run.model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    else:
        original = rl_loop_module.group_advantages

        def poisoned(*args):
            advantage_PG, kept_P = original(*args)
            advantage_PG[0, 0] = math.nan
            return advantage_PG, kept_P

        monkeypatch.setattr(rl_loop_module, 'group_advantages', poisoned)


@pytest.mark.parametrize('what', ['weight', 'gradient', 'advantage'])
def test_what_is_not_finite_stops_before_an_update(config, tmp_path, monkeypatch, what):
    run = build(config, tmp_path, **SCRIPT, **ONE_ROLLOUT)
    poison(run, what, monkeypatch)
    before = weights(run)
    with pytest.raises(FloatingPointError, match='nothing was updated') as error:
        run.train()
    for name, value in weights(run).items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name
    report, = tmp_path.glob('nonfinite_*.json')
    assert str(report) in str(error.value)
    content = json.loads(report.read_text())
    assert 'nan' in content['values'].values() and len(content['rollout']) == PROMPTS * GROUP
    for row in content['rollout']:
        assert row['prompt'] and row['answer'].startswith('[[[')
        assert 0 <= row['mask_iou'] <= 1


def test_a_reward_of_ones_own_sees_the_sample_and_may_not_apply(config, tmp_path):
    """Parameters come from the config; what it says nothing about is left out and counted."""
    seen = []

    @REWARDS.register_module()
    class OfEveryOther:

        def __init__(self, modulus):
            self.modulus = modulus

        def __call__(self, query):
            seen.append(query)
            return 0.5 if query.meta['img_id'] % self.modulus else None

    try:
        run = train(config, tmp_path, **SCRIPT, **RECORD, **ONE_ROLLOUT, **{
            'train_cfg.reward.rewards': [dict(type='OfEveryOther', weight=2.0, modulus=2)]})
    finally:
        del REWARDS.module_dict['OfEveryOther']
    rows = recorded(run).rollouts[0]
    assert len(seen) == len(rows) == PROMPTS * GROUP
    for query, row in zip(seen, rows):
        assert (query.prompt, query.answer.text) == (row['prompt'], row['answer'])
        assert query.task.name == query.meta['task'] and query.meta['gt_masks'] is not None
        assert row['OfEveryOther'] == (0.5 if row['img_id'] % 2 else None)
        others = row['mask_iou'] + .2 * row['centroid'] + .2 * row['format']
        assert row['reward'] == pytest.approx(others + (row['img_id'] % 2))
    even = sum(row['img_id'] % 2 == 0 for row in rows) / len(rows)
    logged_row = next(row for row in logged(run.work_dir) if 'reward' in row)
    assert logged_row.get('reward_OfEveryOther_na', 0) == pytest.approx(even)
    assert even == 1 or logged_row['reward_OfEveryOther'] == 0.5


def test_objects_one_by_one_reach_their_reward(config, tmp_path):
    """Each as a target of its own; of an absent target none, and '[]' is right."""
    generate(tmp_path / 'like', dict(train=8), like=1.0, absent=1.0, objects_range=(3, 6))
    run = train(config, tmp_path / 'work', **SCRIPT, **ONE_ROLLOUT, **{
        'train_dataloader.dataset.data_root': str(tmp_path / 'like'),
        'train_dataloader.dataset.query.tasks': dict(text2mask=0.0, text2masks=1.0),
        'train_cfg.rollout.alike': [[0, 1, 2, 3]], 'train_cfg.rollout.text': '[]',
        'train_cfg.global_batch_size': 16, 'train_cfg.group_size': 2,
        'train_cfg.reward.weights': dict(_delete_=True, instance_iou=1.0)})
    counts = set()
    for query in run.train_loop.experience.rewards.queries:
        number = len(query.meta['instances'])
        counts.add(number)
        assert len(query.targets) == len(query.meta['gt_masks'].masks) == number
        assert query.target.area == sum(target.area for target in query.targets)
    assert 0 in counts and max(counts) > 2
    for query, reward in zip(run.train_loop.experience.rewards.queries,
                             run.train_loop.experience.rewards.total):
        if query.answer.text == '[]':
            assert reward == (not query.targets)


def test_a_reward_that_raises_is_named(config, tmp_path):
    with pytest.raises(RewardError, match="'broken' raised ZeroDivisionError.*answer"):
        train(config, tmp_path, **ONE_ROLLOUT, **{'train_cfg.reward.weights.broken': 1.0})


DROPOUT = {'model.mllm.config.text_config.attention_dropout': 0.1,
           'train_cfg.objective.clip_low': 3e-4, 'train_cfg.objective.clip_high': 4e-4}


@pytest.mark.parametrize('level, alike', [
    ('sequence', []), ('token', []), ('sequence', [[0, 1]])], ids=['answer', 'token', 'skipped'])
def test_dropout_is_found(config, tmp_path, level, alike):
    """At the first update that is made, though the first mini-batch may have been skipped."""
    run = build(config, tmp_path, **SCRIPT, **ONE_ROLLOUT, **DROPOUT, **{
        'train_cfg.objective.level': level, 'train_cfg.rollout.alike': alike})
    before = weights(run)
    with pytest.raises(RuntimeError, match='dropout'):
        run.train()
    assert_same(before, weights(run))


def test_dropout_does_not_matter_on_policy(config, tmp_path):
    train(config, tmp_path, **SCRIPT, **ONE_ROLLOUT, **DROPOUT, **{'train_cfg.mini_batches': 1})
    assert logged(tmp_path)[0]['clipped'] == logged(tmp_path)[0]['kl'] == 0


# --- an engine of its own -----------------------------------------------------------------------
ENGINE = {'train_cfg.rollout.type': 'EngineRollout'}


@pytest.mark.parametrize('mini_batches', [1, 2])
def test_an_engine_s_log_probabilities_are_compared(config, tmp_path, mini_batches):
    """One token of each group's first answer is off by half a nat."""
    run = train(config, tmp_path, **ENGINE, **ONE_ROLLOUT, **{
        'train_cfg.mini_batches': mini_batches, 'train_cfg.rollout.by': -0.5})
    experience = run.train_loop.experience
    tokens = sum(answer.num_tokens for p, group in enumerate(experience.answers)
                 for g, answer in enumerate(group) if experience.learnt_PG[p, g])
    off = int(experience.learnt_PG[:, 0].sum())
    row, = logged(tmp_path)
    assert off and row['engine_difference'] == pytest.approx(off * 0.5 / tokens, rel=1e-3)
    assert row['engine_difference_max'] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize('mini_batches', [1, 2])
def test_an_engine_that_differs_stops_the_run(config, tmp_path, mini_batches):
    """The token and its answer are named, and nothing has been updated."""
    run = build(config, tmp_path, **ENGINE, **ONE_ROLLOUT, **{
        'train_cfg.mini_batches': mini_batches, 'train_cfg.rollout.by': 30.0,
        'train_cfg.rollout.wrong': 4})
    before = weights(run)
    with pytest.raises(RuntimeError, match=r"nats a token in the answer '\[\[\[.*most at token 4, "
                                           r"'.+': .* by the engine.*max_engine_difference=0.2"):
        run.train()
    assert_same(before, weights(run))


def test_an_engine_that_says_nothing_is_told(config, tmp_path):
    with pytest.raises(RuntimeError, match='the engine gave 0 log-probabilities of'):
        train(config, tmp_path, **ENGINE, **ONE_ROLLOUT, **{'train_cfg.rollout.mute': True})


def test_importance_weighs_the_updates(config, tmp_path):
    """An engine that made each first answer e^3 times likelier than the policy does: their
    gradient counts e^-3 as much."""
    def gradient(name, **options):
        run = train(config, tmp_path / name, **ENGINE, **RECORD, **SGD, **ONE_ROLLOUT, **{
            'train_cfg.mini_batches': 1, 'train_cfg.max_engine_difference': 9.0, **options})
        return recorded(run).gradients[0], logged(tmp_path / name)[0], run.train_loop.experience
    cap = {'train_cfg.objective.importance_cap': 2.0}
    off = {'train_cfg.rollout.by': 3.0}
    plainly, _, _ = gradient('plain')
    agreeing, row, _ = gradient('agreeing', **cap)
    assert distance(plainly, agreeing) < 1e-3 and row['importance'] == pytest.approx(1, abs=1e-3)
    weighed, row, experience = gradient('weighed', **cap, **off)
    first = float(experience.learnt_PG[:, 0].sum() / experience.learnt_PG.sum())
    assert row['importance'] == pytest.approx(1 - first * (1 - math.exp(-3)), rel=1e-3)
    assert row['importance_capped'] == 0
    assert distance(plainly, weighed) > 0.01
    doubled, row, _ = gradient('doubled', **cap, **{'train_cfg.rollout.by': -3.0})
    assert row['importance'] == pytest.approx(1 + first, rel=1e-3)
    assert row['importance_capped'] == pytest.approx(first)
    for name, value in plainly.items():  # linear in the weight of the first answers
        slope = (value - weighed[name]) / (1 - math.exp(-3))
        assert torch.allclose(doubled[name] - value, slope, rtol=1e-2, atol=1e-4), name


# --- LoRA -------------------------------------------------------------------------------------
def test_lora_learns_and_the_rest_stays(config, tmp_path):
    """With gradient checkpointing, off-policy and with a reference; the second update of a
    rollout needs the first to have changed the policy."""
    run = build(config, tmp_path, **SCRIPT, **ONE_ROLLOUT, **{
        'model.mllm.lora': dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*_proj'),
        'model.mllm.gradient_checkpointing': True, 'train_cfg.objective.beta': 0.1})
    before = weights(run)
    run.train()
    changed = {name for name, value in weights(run).items()
               if not torch.equal(value, before[name])}
    assert changed and all('lora_' in name for name in changed)
    assert set(torch.load(tmp_path / 'reference.pth')) == {name for name in before
                                                           if 'lora_' in name}
    row, = logged(tmp_path)
    assert row['kl'] > 0 and row['ref_kl'] > 0 and math.isfinite(row['grad_norm'])


# --- the reference ----------------------------------------------------------------------------
def test_reference_is_the_start_also_after_a_resume(config, tmp_path):
    options = {**SCRIPT, **NO_VAL, 'train_cfg.max_iters': 2, 'train_cfg.mini_batches': 1,
               'train_cfg.objective.beta': 0.5, 'default_hooks.checkpoint.interval': 1}
    run = build(config, tmp_path / 'run', **options)
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    first, second = (row['ref_kl'] for row in logged(tmp_path / 'run'))
    assert first == 0 < second
    path = tmp_path / 'run' / 'reference.pth'
    assert_same(start, torch.load(path))

    resume = dict(resume=True, load_from=str(tmp_path / 'run/iter_1.pth'))
    again = train(config, tmp_path / 'run', **options, **resume)
    assert_same(weights(run), weights(again))
    assert logged(tmp_path / 'run')[-1]['ref_kl'] == second
    path.unlink()
    with pytest.raises(FileNotFoundError, match='reference.pth'):
        train(config, tmp_path / 'run', **options, **resume)
