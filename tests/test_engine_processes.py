"""Runs on two processes: all learn from the same tokens, from the first step on."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from test_engine_nano import config, logged  # noqa: F401
from two_processes import in_two_processes

from simpleseg_mm.engine import processes


def _train(rank, config, work_dir):  # noqa: F811
    """What tools/train.py does in a process that torchrun has started."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'train_cfg.max_iters': 2, 'train_dataloader.batch_size': 2,
                         'default_hooks.samples.interval': -1, 'param_scheduler': [],
                         'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None})
    cfg.work_dir = str(work_dir)
    processes.prepare_launcher(cfg, 'pytorch')
    Runner.from_cfg(cfg).train()


@pytest.mark.slow
@pytest.mark.parametrize('count', [50])
def test_runs_on_two_processes_are_all_the_same(config, tmp_path, count):  # noqa: F811
    logs, weights = [], []
    for i in range(count):
        assert in_two_processes(_train, str(config), tmp_path / str(i)) == [0, 0]
        rows, _ = logged(tmp_path / str(i))
        logs.append([{key: row[key] for key in ('loss', 'grad_norm', 'sequence_tokens',
                                                'answer_tokens')} for row in rows])
        weights.append(torch.load(tmp_path / f'{i}/iter_2.pth', weights_only=False)['state_dict'])
    assert len(logs[0]) == 2
    assert {json.dumps(log) for log in logs} == {json.dumps(logs[0])}
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
