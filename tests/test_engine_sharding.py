"""Split weights: Muon, checkpoints, SFT (GSPO: test_engine_rl.py), against what is not split."""
import json
import os
import subprocess
import sys

import pytest
import torch
from engine_standin import BASE, ROOT, run_tool, train
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from test_engine_nano import answers, config, logged, whole  # noqa: F401
from torch import nn

from simpleseg_mm.engine import FullyShardStrategy, launch, load_sharded, save_sharded
from simpleseg_mm.engine.optimizers.sharding import shard_group
from simpleseg_mm.engine.strategies import _blocks

pytestmark = pytest.mark.usefixtures('one_thread')


# --- malformed input --------------------------------------------------------------------------
def test_without_processes_it_says_how_to_start(config, tmp_path):  # noqa: F811
    result = run_tool('train.py', split(config, tmp_path), '--work-dir', tmp_path)
    assert result.returncode and 'torchrun' in result.stdout.splitlines()[-1]
    assert 'Traceback' not in result.stderr


def test_a_model_must_name_its_blocks():
    with pytest.raises(ValueError, match='GradientCheckpointingLayer'):
        _blocks(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize('size', [0, 3, -1])
def test_copies_must_divide_the_processes(size, monkeypatch):
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    monkeypatch.setattr('simpleseg_mm.engine.strategies.get_world_size', lambda: 4)
    strategy = FullyShardStrategy.__new__(FullyShardStrategy)
    strategy.shard_size = size
    with pytest.raises(ValueError, match=f'shard_size={size} does not divide 4 processes'):
        strategy._mesh()


CHECKPOINT = dict(
    state_dict={'a.b': torch.arange(6.).view(2, 3), 'c': torch.ones(2, dtype=torch.bfloat16)},
    optimizer=dict(state={0: dict(step=torch.tensor(3.), low=torch.ones(2, dtype=torch.int16))},
                   param_groups=[dict(lr=0.1, betas=(0.9, 0.95), params=[0])]),
    meta=dict(iter=2, words=['x', ('y', 1)]), message_hub={})


def test_round_trip_of_a_folder(tmp_path):
    folder = str(tmp_path / 'iter_2.pth')
    save_sharded(CHECKPOINT, folder)
    for read in (load_sharded(folder), CheckpointLoader.load_checkpoint(folder, 'cpu')):
        for name, value in CHECKPOINT['state_dict'].items():
            assert torch.equal(read['state_dict'][name], value)
            assert read['state_dict'][name].dtype == value.dtype
        assert read['optimizer']['state'][0]['step'] == 3
        assert read['optimizer']['state'][0]['low'].dtype == torch.int16
        assert read['optimizer']['param_groups'] == CHECKPOINT['optimizer']['param_groups']
        assert (read['meta'], read['message_hub']) == (CHECKPOINT['meta'], {})


def test_an_interrupted_folder_is_passed_over(tmp_path):
    for step in (2, 4):
        save_sharded(CHECKPOINT, str(tmp_path / f'iter_{step}.pth'))
    assert launch.find_resumable(str(tmp_path)).endswith('iter_4.pth')
    (tmp_path / 'iter_4.pth/checkpoint.pth').unlink()  # written last
    assert launch.find_resumable(str(tmp_path)).endswith('iter_2.pth')
    with pytest.raises(ValueError, match='iter_4.pth is not a whole checkpoint'):
        load_sharded(str(tmp_path / 'iter_4.pth'))


# --- Muon -------------------------------------------------------------------------------------
@pytest.mark.parametrize('processes, replicas', [
    pytest.param(3, 1, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_sharded_muon_equals_unsharded(processes, replicas):
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         f'--nproc_per_node={processes}', str(ROOT / 'tests/sharding_worker.py'), str(replicas)],
        text=True, capture_output=True, cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)))
    assert result.returncode == 0, result.stderr[-3000:]
    worst = json.loads(result.stdout.splitlines()[-1])
    assert worst['torch.float32'] <= 1e-6
    assert worst['torch.bfloat16'] <= 1e-2  # a step of the type at the largest weights


def test_a_whole_parameter_needs_no_exchange():
    assert shard_group(nn.Parameter(torch.ones(2, 2))) is None


# --- SFT --------------------------------------------------------------------------------------
def split(config, folder):  # noqa: F811
    """The config with split weights."""
    path = folder / 'split.py'
    path.write_text(f"_base_ = ['{config}', '{BASE}/strategies/fsdp.py']\n")
    return path


def run_split(config, work_dir, *options, resume=(), processes=2):  # noqa: F811
    work_dir.mkdir(exist_ok=True)
    return run_tool('train.py', split(config, work_dir), '--work-dir', work_dir,
                    '--launcher', 'pytorch', *(['--resume', resume] if resume else []),
                    '--cfg-options', f'train_dataloader.batch_size={4 // processes}',
                    f'val_evaluator.1.out_file={work_dir}/answers.jsonl', *options,
                    processes=processes)


def untimed(metrics):
    return {key: value for key, value in metrics.items() if 'time' not in key}


def assert_same(one, two, tolerance):
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for name, value in one['state_dict'].items():
        assert torch.allclose(two['state_dict'][name], value, atol=tolerance), name
    for i, state in one['optimizer']['state'].items():
        for key, value in state.items():
            scale = float(value.abs().max()) or 1
            other = two['optimizer']['state'][i][key]
            assert torch.allclose(other / scale, value / scale, atol=1e-3), (i, key)


@pytest.fixture(scope='module')
def two(config, tmp_path_factory):  # noqa: F811
    """Work directory of a run whose weights are split over two processes."""
    work_dir = tmp_path_factory.mktemp('split')
    result = run_split(config, work_dir)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return work_dir


@pytest.mark.slow
def test_two_split_processes_equal_one(whole, two):  # noqa: F811
    (one_log, one_metrics), (two_log, two_metrics) = logged(whole), logged(two)
    assert len(one_log) == len(two_log) == 6
    for a, b in zip(one_log, two_log):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
        assert a['grad_norm'] == pytest.approx(b['grad_norm'], rel=1e-4)
        assert (a['answer_tokens'], a['lr']) == (b['answer_tokens'], b['lr'])
    assert untimed(one_metrics[0]) == untimed(two_metrics[0])
    assert len(answers(whole)) == 5 and answers(whole) == answers(two)
    assert_same(torch.load(whole / 'iter_6.pth', weights_only=False),
                load_sharded(str(two / 'iter_6.pth')), 2e-5)


@pytest.mark.parametrize('processes', [
    *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 1, 0))])
def test_a_checkpoint_of_two_resumes_on(processes, config, two, tmp_path):  # noqa: F811
    """Two split processes, one, and a plain run."""
    checkpoint = two / 'iter_4.pth'
    if processes:
        result = run_split(config, tmp_path, resume=checkpoint, processes=processes)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        last = load_sharded(str(tmp_path / 'iter_6.pth'))
    else:
        train(config, tmp_path, resume=True, load_from=str(checkpoint))
        last = torch.load(tmp_path / 'iter_6.pth', weights_only=False)
    rows = logged(tmp_path)[0]
    assert [row['step'] for row in rows] == [5, 6]
    for a, b in zip(logged(two)[0][4:], rows):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
    assert_same(load_sharded(str(two / 'iter_6.pth')), last, 0 if processes == 2 else 2e-5)


@pytest.mark.slow
def test_split_weights_start_from_a_plain_file(config, whole, tmp_path):  # noqa: F811
    result = run_split(config, tmp_path, f"load_from={whole / 'iter_6.pth'}",
                       'train_cfg.max_iters=3')
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    assert logged(tmp_path)[0][0]['loss'] < logged(whole)[0][-1]['loss']


# --- DeepSpeed --------------------------------------------------------------------------------
ADAMW = "dict(_delete_=True, type='{}', constructor='MuonConstructor', optimizer=dict(" \
    "type='AdamW', lr=1e-3){})"


def deepspeed_config(config, folder, stage):  # noqa: F811
    path = folder / f'zero{stage}.py'
    path.write_text(f"""
_base_ = ['{config}', '{BASE}/strategies/deepspeed_zero{stage}.py']
strategy = dict(bf16=dict(enabled=False), zero_optimization=dict(overlap_comm=False))
optim_wrapper = {ADAMW.format('DeepSpeedOptimWrapper', '')}
train_cfg = dict(global_batch_size=4)
""")
    return path


@pytest.mark.parametrize('options, message', [
    (dict(), 'MuonAdamW has no matrices under DeepSpeed'),
    ({'train_cfg.type': 'RLTrainLoop', 'train_cfg.objective.beta': 0.1,
      'strategy.zero_optimization.stage': 3}, 'beta > 0 compares with whole weights.*stage=2')])
def test_what_deepspeed_cannot_do_is_refused(options, message):
    cfg = Config.fromfile(str(ROOT / 'configs/simpleseg/nano_sft_refshapes.py'))
    cfg.merge_from_dict({'strategy': dict(type='DeepSpeedStrategy'), **options})
    with pytest.raises(ValueError, match=message):
        launch.check_training(cfg, 2)


@pytest.mark.parametrize('version, stage, refused', [
    ('0.18.2', 2, True), ('0.18.2', 3, False), ('0.18.2', 1, False), ('0.18.9', 2, False)])
def test_accumulated_batches_that_deepspeed_loses(version, stage, refused, monkeypatch):
    monkeypatch.setattr('simpleseg_mm.engine.launch.metadata.version', lambda _: version)
    cfg = Config.fromfile(str(ROOT / 'configs/simpleseg/qwen25vl_zero2_sft_refcoco.py'))
    cfg.strategy.zero_optimization.stage = stage
    launch.check_training(Config(cfg.to_dict()), 32)  # nothing is accumulated
    rl = Config(cfg.to_dict())
    rl.train_cfg.type = 'RLTrainLoop'
    if refused:
        with pytest.raises(ValueError, match='loses all but the last of 4 accumulated'):
            launch.check_training(cfg, 8)
        with pytest.raises(ValueError, match='loses all but the last of its micro-batches'):
            launch.check_training(rl, 8)
    else:
        assert launch.check_training(cfg, 8) == 4
        assert launch.check_training(rl, 8) == 1


@pytest.mark.parametrize('stage', [2, 3])
def test_deepspeed_equals_one_process(stage, config, tmp_path, monkeypatch):  # noqa: F811
    """Two processes against one and AdamW."""
    pytest.importorskip('deepspeed')
    monkeypatch.setenv('DS_ACCELERATOR', 'cpu')
    plain = tmp_path / 'plain.py'
    plain.write_text(f"_base_ = '{config}'\noptim_wrapper = " + ADAMW.format(
        'OptimWrapper', ', clip_grad=dict(max_norm=1.0)') + '\n')
    train(plain, tmp_path / 'one')
    result = run_tool('train.py', deepspeed_config(config, tmp_path, stage), '--work-dir',
                      tmp_path / 'two', '--launcher', 'pytorch', '--cfg-options',
                      'train_dataloader.batch_size=2', processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    (one, one_metrics), (two, two_metrics) = logged(tmp_path / 'one'), logged(tmp_path / 'two')
    for a, b in zip(one, two, strict=True):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
    assert untimed(one_metrics[0]) == untimed(two_metrics[0])


def test_configs_name_the_strategy():
    cfg = Config.fromfile(str(BASE / 'strategies/fsdp.py'))
    assert cfg.runner_type == 'FlexibleRunner' and cfg.custom_hooks
