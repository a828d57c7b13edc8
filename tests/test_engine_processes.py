"""Runs on two processes: all learn from the same tokens, from the first step on."""
import json
import multiprocessing
import os
import socket

import pytest
import torch
from engine_standin import ROOT
from mmengine.config import Config
from mmengine.runner import Runner
from test_engine_nano import config, logged  # noqa: F401

from simpleseg_mm.engine import processes


def _process(rank, port, config, work_dir):  # noqa: F811
    """What tools/train.py does in a process that torchrun has started."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'train_cfg.max_iters': 2, 'train_dataloader.batch_size': 2,
                         'default_hooks.samples.interval': -1, 'param_scheduler': [],
                         'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None})
    cfg.work_dir = str(work_dir)
    processes.prepare_launcher(cfg, 'pytorch')
    Runner.from_cfg(cfg).train()
    processes.leave_processes()


def run(config, work_dir):  # noqa: F811
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('forkserver')  # modules are imported once
    context.set_forkserver_preload(['engine_standin', 'simpleseg_mm.models'])
    ranks = [context.Process(target=_process, args=(rank, port, str(config), work_dir))
             for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
        assert process.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize('count', [50])
def test_runs_on_two_processes_are_all_the_same(config, tmp_path, monkeypatch, count):  # noqa: F811
    monkeypatch.setenv('PYTHONPATH', f'{ROOT}:{ROOT}/tests')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    logs, weights = [], []
    for i in range(count):
        run(config, tmp_path / str(i))
        rows, _ = logged(tmp_path / str(i))
        logs.append([{key: row[key] for key in ('loss', 'grad_norm', 'sequence_tokens',
                                                'answer_tokens')} for row in rows])
        weights.append(torch.load(tmp_path / f'{i}/iter_2.pth', weights_only=False)['state_dict'])
    assert len(logs[0]) == 2
    assert {json.dumps(log) for log in logs} == {json.dumps(logs[0])}
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
