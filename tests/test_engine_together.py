"""What one of two processes finds wrong stops both, by its message."""
import json

import pytest
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import Runner
from test_engine_rl import DROPOUT, ENGINE, ONE_ROLLOUT, SCRIPT, config  # noqa: F401
from two_processes import in_two_processes

from simpleseg_mm.engine import processes
from simpleseg_mm.together import failing_together

BAND = {key: value for key, value in DROPOUT.items() if 'clip' in key}
CASES = {  # settings of both, those of the second process beside them, what both raise
    'engine, one update': ({**ENGINE, 'train_cfg.mini_batches': 1}, {'train_cfg.rollout.by': 30.0},
                           'RuntimeError', "nats a token in the answer '[[["),
    'engine, two updates': (ENGINE, {'train_cfg.rollout.by': 30.0}, 'RuntimeError',
                            "nats a token in the answer '[[["),
    'the policy': ({**SCRIPT, **BAND}, DROPOUT, 'RuntimeError', 'The policy differs from itself'),
    'reward': (SCRIPT, {'train_cfg.reward.weights.broken': 1.0}, 'RewardError', 'broken'),
    'rollout': ({**SCRIPT, 'dead': True}, {}, 'ConnectionError', 'http://b does not answer'),
    'nothing': (SCRIPT, {}, None, ''),
}


def train(config, work_dir, options):  # noqa: F811
    cfg = Config.fromfile(config)
    options = dict(options)
    dead = options.pop('dead', False)
    cfg.merge_from_dict({**ONE_ROLLOUT, 'train_cfg.global_batch_size': 4, **options})
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    processes.prepare_launcher(cfg, 'pytorch')
    runner = Runner.from_cfg(cfg)
    if dead:
        def generate(*_, **__):
            raise ConnectionError('http://b does not answer')
        loop = runner.build_train_loop(runner._train_loop)
        runner._train_loop = loop
        if get_rank() == 1:
            loop.rollout.generate = generate
    runner.train()


def _train_all(rank, config, folder):  # noqa: F811
    """All runs one after the other: processes that have stopped together are in step."""
    told = {}
    for name, (both, second, _, _) in CASES.items():
        try:
            train(config, folder / name.replace(' ', '_'), {**both, **(second if rank else {})})
            told[name] = None, ''
        except Exception as error:
            told[name] = type(error).__name__, str(error)
        (folder / f'rank{rank}.json').write_text(json.dumps(told))


@pytest.fixture(scope='module')
def told(config, tmp_path_factory):  # noqa: F811
    """What each process raised in each case."""
    folder = tmp_path_factory.mktemp('together')
    in_two_processes(_train_all, str(config), folder, seconds=600)
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(2)]


@pytest.mark.parametrize('name', CASES)
@pytest.mark.slow
def test_both_stop_by_the_message_of_one(told, name):
    _, _, kind, message = CASES[name]
    (first, said), (second, own) = told[0][name], told[1][name]
    assert second == kind and message in own and said == own
    assert first == ('RuntimeError' if kind == 'RewardError' else kind)


def test_alone_it_is_the_exception_itself():
    error = KeyError('x')
    with pytest.raises(KeyError) as raised, failing_together():
        raise error
    assert raised.value is error
    with failing_together():
        pass
