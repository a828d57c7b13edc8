"""The real model and data: exact resume after SIGKILL, and two processes against one."""
import json
import threading
from pathlib import Path

import pytest
import torch
from engine_standin import BASE, run_tool, train

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch
from simpleseg_mm.engine.prefetch import Prefetcher, prefetched

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('nano')
    generate(folder / 'refshapes', dict(train=6, val=3))
    loader = ('num_workers=0, persistent_workers=False, '
              f"dataset=dict(data_root='{folder}/refshapes'")
    path = folder / 'nano.py'
    path.write_text(f"""
_base_ = ['{BASE}/models/nano_random.py', '{BASE}/datasets/refshapes.py',
          '{BASE}/schedules/sft_nano.py', '{BASE}/default_runtime.py']
custom_imports = dict(imports=['simpleseg_mm.datasets', 'simpleseg_mm.models',
    'simpleseg_mm.engine', 'simpleseg_mm.evaluation', 'simpleseg_mm.visualization',
    'engine_standin'])
model = dict(generation=dict(max_new_tokens=4))
train_dataloader = dict(batch_size=4, {loader}))
val_dataloader = dict(batch_size=2, {loader}, indices=5))
test_dataloader = val_dataloader
val_evaluator = [dict(type='RESMetric'), dict(type='TextDump', out_file='{folder}/a.jsonl')]
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(ns_dtype='float32'))  # some CPUs would take bfloat16
train_cfg = dict(global_batch_size=None, max_iters=6, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=2)]
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1),
                     samples=dict(interval=3, num_samples=1))
""")
    return path


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """Work directory of the run that nothing disturbs."""
    work_dir = tmp_path_factory.mktemp('whole')
    train(config, work_dir, **{'val_evaluator.1.out_file': str(work_dir / 'answers.jsonl')})
    return work_dir


def logged(work_dir):
    log, = Path(work_dir).glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in rows if 'loss' in row], [row for row in rows if 'res/cIoU' in row]


def answers(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'answers.jsonl').read_text().splitlines()]
    return [(row['img_id'], row['pred_text']) for row in rows]


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(config, whole, tmp_path):
    killed = run_tool('train.py', config, '--work-dir', tmp_path, '--cfg-options',
                      'default_hooks.kill.type=KillHook', 'default_hooks.kill.at=3')
    assert killed.returncode == -9, killed.stderr[-2000:]
    checkpoint = launch.find_resumable(str(tmp_path))
    assert checkpoint.endswith('iter_2.pth')
    train(config, tmp_path, resume=True, load_from=checkpoint)
    first, second = (torch.load(folder / 'iter_6.pth', weights_only=False)
                     for folder in (whole, tmp_path))
    assert first['state_dict'].keys() == second['state_dict'].keys()
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    states = [checkpoint['optimizer']['state'] for checkpoint in (first, second)]
    for i, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(value, states[1][i][key]), (i, key)


def test_encoding_ahead_changes_nothing(config, whole, tmp_path):
    train(config, tmp_path, train_cfg=dict(
        _delete_=True, type='IterBasedTrainLoop', max_iters=6, val_interval=6))
    ahead, plain = (torch.load(folder / 'iter_6.pth', weights_only=False)['state_dict']
                    for folder in (whole, tmp_path))
    for name, value in plain.items():
        assert torch.equal(ahead[name], value), name


@pytest.mark.parametrize('bad', [0, 1])
def test_what_fails_ahead_is_raised_by_the_step_beside_it(bad):
    def prepare(batch):
        if batch == bad:
            raise OSError(f'batch {batch} cannot be read')
        return batch

    batches = Prefetcher(iter(range(3)), prepare)
    batches.begin()
    if bad == 0:
        with pytest.raises(OSError, match='batch 0'):
            batches.wait()
    else:
        batches.wait()
        assert next(batches) == 0
        batches.begin()
        with pytest.raises(OSError, match='batch 1'):
            next(batches)


@pytest.mark.parametrize('count', [0, 1, 4])
def test_each_is_prepared_beside_the_one_before(count):
    begun = [threading.Event() for _ in range(count + 1)]

    def prepare(i):
        begun[i].set()
        return i * 10

    for i, (item, made) in enumerate(prefetched(range(count), prepare)):
        assert (item, made) == (i, i * 10)
        assert i == count - 1 or begun[i + 1].wait(10)
        assert not any(event.is_set() for event in begun[i + 2:])  # two are held at a time
    assert all(event.is_set() for event in begun[:count])


def test_what_fails_beside_an_item_is_raised_after_it():
    def prepare(item):
        if item == 1:
            raise OSError('item 1 cannot be read')
        return item

    seen = []
    with pytest.raises(OSError, match='item 1'):
        for item, _ in prefetched([0, 1, 2], prepare):
            seen.append(item)
    assert seen == [0]


@pytest.mark.slow
def test_two_processes_equal_one(config, whole, tmp_path):
    result = run_tool('train.py', config, '--work-dir', tmp_path, '--launcher', 'pytorch',
                      '--cfg-options', 'train_dataloader.batch_size=2',
                      f'val_evaluator.1.out_file={tmp_path}/answers.jsonl', processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    (one, metrics_one), (two, metrics_two) = logged(whole), logged(tmp_path)
    assert len(one) == len(two) == 6
    for a, b in zip(one, two):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-4)
        assert a['token_accuracy'] == pytest.approx(b['token_accuracy'], abs=5e-3)
        assert a['grad_norm'] == pytest.approx(b['grad_norm'], rel=1e-3)
        for name in ('answer_tokens', 'sequence_tokens', 'lr'):
            assert a[name] == b[name]
    assert one[0]['loss'] > one[-1]['loss']

    timing = ('time', 'data_time')
    assert [{k: v for k, v in row.items() if k not in timing} for row in metrics_one] == [
        {k: v for k, v in row.items() if k not in timing} for row in metrics_two]
    assert len(answers(whole)) == 5 and answers(whole) == answers(tmp_path)
