"""The nano-sized Kimi-VL through nano's data, codec, loops and metrics: SFT, then GSPO."""
import json
from pathlib import Path

import pytest
import torch
from engine_standin import ROOT, train

from simpleseg_mm.datasets.refshapes import generate

CONFIGS = ROOT / 'configs' / 'simpleseg'
BIAS = 'e_score_correction_bias'


def options(folder, loaders):
    keys = dict(num_workers=0, persistent_workers=False)
    return {f'{loader}.{key}': value for loader in loaders for key, value in dict(
        keys, **{'dataset.data_root': str(folder)}).items()}


def logged(work_dir):
    log, = Path(work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    generate(folder, dict(train=6, val=2))
    return options(folder, ['train_dataloader', 'val_dataloader'])


@pytest.fixture(scope='module')
def sft(data, tmp_path_factory):
    """Work directory of a short SFT."""
    work_dir = tmp_path_factory.mktemp('sft')
    train(CONFIGS / 'nano_kimi_sft_refshapes.py', work_dir, **data, **{
        'train_dataloader.batch_size': 4, 'train_cfg.global_batch_size': 4, 'test_cfg': None,
        'test_dataloader': None, 'test_evaluator': None, 'train_cfg.max_iters': 12,
        'train_cfg.val_interval': 12, 'param_scheduler': [], 'val_dataloader.dataset.indices': 2,
        'model.generation.max_new_tokens': 8, 'default_hooks.checkpoint.interval': 12,
        'default_hooks.checkpoint.save_best': None, 'default_hooks.logger.interval': 1})
    return work_dir


def test_sft_learns(sft):
    rows = logged(sft)
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 12 and losses[-1] < 0.7 * losses[0]
    assert {'res/gIoU', 'rec/Acc@0.5', 'health/valid_parse'} <= rows[-1].keys()


def test_a_gspo_step(sft, data, tmp_path):
    """From the SFT checkpoint; a reward of the length tells unread answers apart."""
    runner = train(CONFIGS / 'nano_kimi_gspo_refshapes.py', tmp_path, **data, **{
        'train_cfg.global_batch_size': 2, 'train_cfg.max_iters': 1, 'train_cfg.group_size': 4,
        'train_cfg.down_sample': None, 'train_cfg.micro_batch_size': 4,
        'train_cfg.mini_batches': 2, 'train_cfg.objective.clip_low': 0.2,
        'train_cfg.objective.clip_high': 0.2, 'train_cfg.rollout.max_new_tokens': 12,
        'train_cfg.reward.weights.length': 1.0, 'optim_wrapper.optimizer.lr': 1e-2,
        'model.generation.max_new_tokens': 4, 'param_scheduler': [],
        'load_from': str(sft / 'iter_12.pth'),
        'default_hooks.rollouts.interval': -1, 'val_cfg': None, 'val_dataloader': None,
        'val_evaluator': None, 'test_cfg': None, 'test_dataloader': None,
        'test_evaluator': None, 'default_hooks.checkpoint.save_best': None})
    row, = [row for row in logged(tmp_path) if 'reward' in row]
    assert row['dropped_groups'] < 1 and row['grad_norm'] > 0
    before = torch.load(sft / 'iter_12.pth', weights_only=False)['state_dict']
    after = runner.model.state_dict()
    assert before.keys() == after.keys()
    routed = [name for name in before if '.mlp.gate.' in name or '.mlp.experts.' in name]
    assert len(routed) == 4 * 3
    for name in routed:  # the balance bias is kept, everything else learns
        assert torch.equal(before[name], after[name]) == name.endswith(BIAS), name
