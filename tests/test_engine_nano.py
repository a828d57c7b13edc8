"""The real model, data and tools: exact resume after SIGKILL; two processes against one."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / 'configs' / '_base_'


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
val_evaluator = dict(type='RESMetric')
test_evaluator = val_evaluator
global_batch_size = 0
train_cfg = dict(max_iters=6, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=2)]
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1),
                     samples=dict(interval=3, num_samples=1))
""")
    return path


def run(*command, check=True):
    result = subprocess.run(
        [sys.executable, *map(str, command)], text=True, capture_output=True, cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT}/tests'))
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """The run that nothing disturbs."""
    work_dir = tmp_path_factory.mktemp('whole')
    run('tools/train.py', config, '--work-dir', work_dir)
    return work_dir


def load(path):
    return torch.load(path, weights_only=False)


def losses(work_dir):
    log, = Path(work_dir).glob('*/vis_data/2*.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in rows if 'loss' in row]


def test_killed_and_resumed_equals_never_stopped(config, whole, tmp_path):
    killed = run('tools/train.py', config, '--work-dir', tmp_path, '--cfg-options',
                 'default_hooks.kill.type=KillHook', 'default_hooks.kill.at=3', check=False)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert launch.find_resumable(str(tmp_path)).endswith('iter_2.pth')
    resumed = run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    assert 'resumed epoch: 0, iter: 2' in resumed.stdout + resumed.stderr
    first, second = load(whole / 'iter_6.pth'), load(tmp_path / 'iter_6.pth')
    assert first['state_dict'].keys() == second['state_dict'].keys()
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    states = [checkpoint['optimizer']['state'] for checkpoint in (first, second)]
    for i, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(value, states[1][i][key]), (i, key)


def test_two_processes_equal_one(config, whole, tmp_path):
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    run(*torchrun, 'tools/train.py', config, '--work-dir', tmp_path, '--launcher', 'pytorch',
        '--cfg-options', 'train_dataloader.batch_size=2')
    one, two = losses(whole), losses(tmp_path)
    assert len(one) == len(two) == 6
    for a, b in zip(one, two):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-4)
        assert a['token_accuracy'] == pytest.approx(b['token_accuracy'], abs=5e-3)
        assert a['grad_norm'] == pytest.approx(b['grad_norm'], rel=1e-3)
        for name in ('answer_tokens', 'sequence_tokens'):
            assert a[name] == b[name]
    assert one[0]['loss'] > one[-1]['loss']

    metrics = []
    for command in [(), (*torchrun, )]:
        options = ('--launcher', 'pytorch') if command else ()
        result = run(*command, 'tools/test.py', config, whole / 'iter_6.pth', '--work-dir',
                     tmp_path / 'test', '--out', tmp_path / f'{len(command)}.jsonl', *options)
        metrics.append(json.loads(result.stdout.splitlines()[-1]))
    assert metrics[0] and metrics[0] == metrics[1]
    rows = [[json.loads(line) for line in open(tmp_path / f'{n}.jsonl')] for n in (0, 4)]
    assert len(rows[0]) == 5
    assert [[r['img_id'], r['pred_text']] for r in rows[0]] == [
        [r['img_id'], r['pred_text']] for r in rows[1]]
