"""Hooks and tools in real MMEngine runs of a small stand-in model."""
import copy
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_standin import BASE, ROOT, TOY, run_tool, train
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from simpleseg_mm.engine import launch
from simpleseg_mm.engine.global_batch import Rebatched
from simpleseg_mm.engine.hooks.randomness import preserve_rng, seed_everything

CONFIG = TOY + """
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='collate_queries'), dataset=dict(type='ToyQueries', length=3))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(global_batch_size=4, max_iters=12, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=3)]
default_hooks = dict(checkpoint=dict(interval=4, save_best='res/cIoU', rule='greater'),
                     logger=dict(interval=1),
                     samples=dict(interval=4, num_samples=2))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    return path


def load(path):
    return torch.load(path, weights_only=False)


def assert_same(a, b, where=''):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f'{where}[{i}]')
    elif torch.is_tensor(a):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    else:
        assert a == b, where


def scalars(runner):
    log = Path(runner.log_dir) / 'vis_data' / f'{runner.timestamp}.json'
    return [json.loads(line) for line in log.read_text().splitlines()]


# --- exact resume ---------------------------------------------------------------------------
@pytest.mark.parametrize('options', [
    pytest.param({}, id='plain', marks=pytest.mark.slow),
    pytest.param({'train_cfg.global_batch_size': 8, 'train_dataloader.num_workers': 1},
                 id='accumulated')])
def test_killed_and_resumed_equals_never_stopped(config, tmp_path, options):
    whole = train(config, tmp_path / 'whole', **options)
    killed = tmp_path / 'killed'
    cfg_options = [f'{key}={value}' for key, value in options.items()]
    kill = ['default_hooks.kill.type=KillHook', 'default_hooks.kill.at=7']
    result = run_tool('train.py', config, '--work-dir', killed, '--cfg-options', *cfg_options,
                      *kill)
    assert result.returncode == -9, result.stderr[-2000:]
    assert not list(killed.glob('iter_12.pth'))
    resume = launch.find_resumable(str(killed))
    assert resume.endswith('iter_4.pth')

    train(config, killed, resume=True, load_from=resume, **options)
    first, second = (load(Path(d) / 'iter_12.pth') for d in (whole.work_dir, killed))
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(first[key], second[key], key)


def test_pictures_and_validation_do_not_change_training(config, tmp_path):
    common = {'default_hooks.checkpoint.interval': 99, 'default_hooks.checkpoint.save_best': None,
              'train_cfg.max_iters': 6}
    plain = train(config, tmp_path / 'a', val_cfg=None, val_dataloader=None, val_evaluator=None,
                  **common)
    busy = train(config, tmp_path / 'b', **common, **{'default_hooks.samples.interval': 1,
                                                      'train_cfg.val_interval': 1})
    assert_same(plain.model.state_dict(), busy.model.state_dict())


def test_preserve_rng():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()
    seed_everything(1, 2, 3)
    expected = draws()
    seed_everything(1, 2, 3)
    with preserve_rng():
        draws()
    assert draws() == expected
    seed_everything(1, 2, 4)
    assert draws() != expected


@pytest.mark.parametrize('options, match', [
    ({'optim_wrapper.accumulative_counts': 3}, 'multiple of 3'),
    ({'optim_wrapper.accumulative_counts': 2, 'train_cfg.val_interval': 3}, 'val_interval')])
def test_checkpoints_between_updates_are_refused(config, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        train(config, tmp_path / 'run', **options, **{'train_cfg.global_batch_size': None})


@pytest.mark.slow
def test_resume_with_another_schedule_is_refused(config, tmp_path):
    run = train(config, tmp_path / 'run', **{'train_cfg.max_iters': 4})
    with pytest.raises(ValueError, match='end=4'):
        train(config, tmp_path / 'run', resume=True, load_from=f'{run.work_dir}/iter_4.pth')


def test_find_resumable_passes_over_a_half_written_file(tmp_path):
    assert launch.find_resumable(str(tmp_path)) is None
    for name in ('iter_4.pth', 'iter_12.pth', 'best_res_cIoU_iter_99.pth'):
        torch.save(torch.zeros(100), tmp_path / name)
    whole = (tmp_path / 'iter_12.pth').read_bytes()
    assert launch.find_resumable(str(tmp_path)).endswith('iter_12.pth')
    (tmp_path / 'iter_12.pth').write_bytes(whole[:-100])
    assert launch.find_resumable(str(tmp_path)).endswith('iter_4.pth')


# --- checkpoints of what is trained ---------------------------------------------------------
def test_checkpoint_holds_what_is_trainable(config, tmp_path):
    run = train(config, tmp_path / 'run', model=dict(freeze=['visual', 'lm_head']))
    state = load(f'{run.work_dir}/iter_12.pth')['state_dict']
    assert set(state) == {'projector.weight', 'projector.bias'}
    best, = Path(run.work_dir).glob('best_*.pth')
    assert set(load(best)['state_dict']) == set(state)


def test_frozen_weights_that_a_checkpoint_brought_are_kept(config, tmp_path):
    first = train(config, tmp_path / 'first')  # trains everything
    second = train(config, tmp_path / 'second', load_from=f'{first.work_dir}/iter_12.pth',
                   model=dict(freeze=['visual']))
    path = f'{second.work_dir}/iter_8.pth'
    assert 'visual.weight' in load(path)['state_dict']
    third = train(config, tmp_path / 'second', load_from=path, resume=True,
                  model=dict(freeze=['visual']))
    assert torch.equal(load(f'{third.work_dir}/iter_12.pth')['state_dict']['visual.weight'],
                       first.model.visual.weight)


def tampered(path, how):
    checkpoint = load(path)
    state = checkpoint['state_dict']
    if how == 'missing':
        del state['projector.weight']
    elif how == 'shape':
        state['projector.weight'] = torch.zeros(2, 8)
    elif how == 'unknown':
        state['decoder.weight'] = torch.zeros(2)
    elif how == 'other pretrained weights':
        checkpoint['meta']['frozen_probes']['visual.weight'][0] += 0.1
    torch.save(checkpoint, path)


@pytest.mark.parametrize('how, match', [
    ('missing', 'trainable, but not in the checkpoint: projector.weight'),
    ('shape', 'of another shape: projector.weight'),
    ('unknown', 'unknown to the model: decoder.weight'),
    ('other pretrained weights', 'different from the weights .*: visual.weight')])
def test_checkpoint_that_does_not_fit_is_refused(config, tmp_path, how, match):
    model = dict(freeze=['visual'])
    run = train(config, tmp_path / 'run', model=model, **{'train_cfg.max_iters': 4})
    path = f'{run.work_dir}/iter_4.pth'
    tampered(path, how)
    for options in (dict(load_from=path), dict(load_from=path, resume=True)):
        with pytest.raises(ValueError, match=match):
            train(config, tmp_path / 'again', model=model, **options,
                  **{'train_cfg.max_iters': 4})
    if how != 'shape':
        ignore = {'default_hooks.trainable.ignore': ['projector', 'decoder', 'visual']}
        train(config, tmp_path / 'again', model=model, load_from=path, **ignore)


def test_what_was_frozen_may_be_trained_from_the_same_weights(config, tmp_path):
    run = train(config, tmp_path / 'run', model=dict(freeze=['visual']))
    train(config, tmp_path / 'all', load_from=f'{run.work_dir}/iter_12.pth')


# --- logs -----------------------------------------------------------------------------------
def test_logs(config, tmp_path, monkeypatch, capsys):
    run = train(config, tmp_path / 'run')
    last = [row for row in scalars(run) if 'loss' in row][-1]
    for name in ('samples_per_s', 'tokens_per_s', 'answer_tokens_per_s', 'grad_norm',
                 'lr'):
        assert last[name] > 0, name
    assert last['tokens_per_s'] == pytest.approx(10 * last['answer_tokens_per_s'], rel=1e-4)
    assert 2 <= last['answer_tokens_per_s'] / last['samples_per_s'] <= 4
    assert 0 <= last['token_accuracy'] <= 1
    log = Path(run.log_dir, f'{run.timestamp}.log').read_text()
    assert 'where is' in log and '[[answer' in log and 'eta' in log
    assert 'Sample 1 at 12: where is 1? -> [' in log and 'Sample 0 at 0:' in log
    assert Path(run.work_dir, 'first_batch.txt').read_text().count('[[answer') == 4
    assert len(list(Path(run.log_dir, 'vis_data/vis_image').glob('sample_*.png'))) == 2 * 4

    call_tool(monkeypatch, 'analysis_tools/analyze_logs', 'plot_curve', run.work_dir, '--out',
              tmp_path / 'curves.png')
    call_tool(monkeypatch, 'analysis_tools/analyze_logs', 'cal_train_time', run.work_dir)
    summary, = json.loads(capsys.readouterr().out.splitlines()[-1])['runs']
    assert summary['logged'] == 12 and summary['samples_per_s'] > 0
    assert (tmp_path / 'curves.png').is_file()
    with pytest.raises(SystemExit):
        call_tool(monkeypatch, 'analysis_tools/analyze_logs', 'cal_train_time', tmp_path / 'none')


def test_progress_bar_is_for_terminals(config, tmp_path, monkeypatch, capsys):
    short = {'train_cfg.max_iters': 4, 'default_hooks.checkpoint.interval': 99}
    train(config, tmp_path / 'run', **short)
    assert 'train:' not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    train(config, tmp_path / 'run', **short)
    err = capsys.readouterr().err
    assert 'train: 100%' in err and '4/4' in err and 'val: 100%' in err and 'loss=' in err


def test_throughput_is_a_ratio_of_sums(monkeypatch):
    from simpleseg_mm.engine import ThroughputHook
    hub = dict(now=0.)

    class Hub:
        def get_scalar(self, name):
            assert name == 'train/time'
            return type('Buffer', (), dict(current=lambda self: hub['now']))()

        def update_scalar(self, name, value):
            hub[name] = value

    runner = type('Runner', (), dict(message_hub=Hub()))()
    hook = ThroughputHook(window=2)
    for seconds, tokens in [(100., 1), (1., 30), (3., 10)]:
        hub['now'] = seconds
        hook.after_train_iter(runner, 0, dict(inputs=[0, 0]),
                              dict(sequence_tokens=torch.tensor(float(tokens))))
    assert hub['train/samples_per_s'] == 1 and hub['train/tokens_per_s'] == 10
    assert 'train/answer_tokens_per_s' not in hub


def test_bad_loss_stops_the_run_and_names_the_batch(config, tmp_path):
    with pytest.raises(FloatingPointError, match='nonfinite_iter_'):
        train(config, tmp_path / 'run', **{'train_dataloader.dataset.bad': [3]})
    report, = (tmp_path / 'run').glob('nonfinite_iter_*_rank0.json')
    samples = json.loads(report.read_text())['samples']
    assert 3 in [s['img_id'] for s in samples] and samples[0]['text'].startswith('thing')


# --- schedules ------------------------------------------------------------------------------
def test_a_config_is_left_as_it_is_written(config):
    cfg = Config.fromfile(str(config))
    cfg.train_cfg.global_batch_size = 24
    before = copy.deepcopy(cfg.to_dict())
    assert launch.check_training(cfg, 2) == 3
    assert cfg.to_dict() == before


def test_an_update_of_several_batches_is_that_of_mmengine(config, tmp_path):
    """Its OptimWrapper's, whose iterations are batches."""
    common = {'model.dropout': 0., 'param_scheduler': [],
              'train_dataloader.sampler.shuffle': False}
    ours = train(config, tmp_path / 'ours', **common, **{'train_cfg.global_batch_size': 12})
    peer = train(config, tmp_path / 'peer', **common, **{
        'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=36,
                          val_interval=12),
        'optim_wrapper.accumulative_counts': 3, 'default_hooks.checkpoint.interval': 12})
    assert ours.iter == 12 and peer.iter == 36
    assert_same(ours.model.state_dict(), peer.model.state_dict())
    rows, batches = ([row for row in scalars(run) if 'loss' in row] for run in (ours, peer))
    assert rows[0]['loss'] == pytest.approx(batches[2]['loss'])  # MMEngine's mean of the last 10


def test_figures_of_an_update_are_those_of_its_samples():
    from simpleseg_mm.engine.sft_loop import _of_update
    figures = _of_update([
        {name: torch.tensor(value) for name, value in row.items()} for row in (
            dict(loss=1., token_accuracy=1., answer_tokens=30., sequence_tokens=50.),
            dict(loss=2., token_accuracy=0., answer_tokens=10., sequence_tokens=20.))])
    assert {name: float(value) for name, value in figures.items()} == dict(
        loss=1.5, token_accuracy=0.75, answer_tokens=40., sequence_tokens=70.)


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 6))
def test_rebatched_samples_keep_their_order(size, asked, skipped):
    class Batches:
        """As MMEngine's iterator of a loader."""

        def __init__(self):
            self.at = 0

        def __next__(self):
            self.at += size
            return dict(inputs=list(range(self.at - size, self.at)))

        def skip_iter(self, count):
            self.at += count * size

    batches = Rebatched(Batches(), size, asked)
    batches.skip_iter(skipped)
    first = skipped * asked
    assert [next(batches) for _ in range(5)] == [
        dict(inputs=list(range(i, i + asked))) for i in range(first, first + 5 * asked, asked)]


def test_both_ways_to_accumulate_are_refused(config, tmp_path):
    cfg = Config.fromfile(str(config))
    cfg.optim_wrapper.accumulative_counts = 2
    with pytest.raises(ValueError, match='not both'):
        launch.check_training(cfg, 1)


@pytest.mark.parametrize('total, processes', [(6, 1), (4, 2), (2, 1)])
def test_global_batch_that_cannot_be_reached_is_refused(config, total, processes):
    cfg = Config.fromfile(str(config))
    cfg.train_cfg.global_batch_size = total
    with pytest.raises(ValueError, match='multiple'):
        launch.check_training(cfg, processes)


def test_paper_schedule():
    cfg = Config.fromfile(str(BASE / 'schedules/sft_paper.py'))
    param = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([param], lr=cfg.optim_wrapper.optimizer.lr)
    from mmengine.registry import PARAM_SCHEDULERS
    schedulers = [PARAM_SCHEDULERS.build(dict(end=cfg.train_cfg.max_iters) | s, default_args=dict(
        optimizer=optimizer)) for s in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_iters):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert max(rates) == pytest.approx(5e-5) and rates[94] == pytest.approx(5e-5, rel=1e-3)
    assert rates[-1] == pytest.approx(2e-6, rel=1e-2) and min(rates[94:]) >= 2e-6 * 0.999
    assert rates[:94] == sorted(rates[:94]) and rates[94:] == sorted(rates[94:], reverse=True)
    assert cfg.train_cfg.max_iters * cfg.train_cfg.global_batch_size == 800_000


# --- tools ----------------------------------------------------------------------------------
def load_tool(name):
    spec = importlib.util.spec_from_file_location('a_tool', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call_tool(monkeypatch, name, *args):
    """Run a tool's main() in this process."""
    module = load_tool(name)
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    module.main()


def test_tools(config, tmp_path, monkeypatch, capsys):
    work_dir = tmp_path / 'run'
    call_tool(monkeypatch, 'train', config, '--work-dir', work_dir, '--resume',  # nothing yet
              '--cfg-options', 'train_cfg.max_iters=4')
    call_tool(monkeypatch, 'test', config, work_dir / 'iter_4.pth', '--work-dir',
              tmp_path / 'test', '--out', tmp_path / 'out.pkl')
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics['res/number'] == 3 and 0 < metrics['res/cIoU'] < 100
    assert (tmp_path / 'out.pkl').is_file()
    call_tool(monkeypatch, 'test', config, 'none', '--work-dir', tmp_path / 'test')
    untrained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert untrained['res/cIoU'] != metrics['res/cIoU']


@pytest.mark.parametrize('args, what', [
    (('train', 'CONFIG', '--resume', 'nowhere.pth'), 'nowhere.pth'),
    (('test', 'CONFIG', 'nowhere.pth'), 'nowhere.pth'),
    (('train', 'nowhere.py'), 'nowhere.py')])
def test_missing_file_is_one_line(config, tmp_path, monkeypatch, capsys, args, what):
    args = [config if arg == 'CONFIG' else arg for arg in args]
    with pytest.raises(SystemExit) as stop:
        call_tool(monkeypatch, *args, '--work-dir', tmp_path)
    line, = capsys.readouterr().out.splitlines()
    assert stop.value.code == 2 and line.startswith('ERROR: ') and what in line


@pytest.mark.skipif(torch.cuda.is_available(), reason='says what happens without a GPU')
def test_amp_without_gpu_is_one_line(config, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call_tool(monkeypatch, 'train', config, '--work-dir', tmp_path, '--amp')
    assert stop.value.code == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith('ERROR: --amp needs a GPU')


def test_metrics_as_json():
    values = [np.float32(0.5), torch.tensor(2), float('nan'), np.int64(3), np.array([1., 2.]), 'a',
              None, True, {1}]
    assert [load_tool('test').jsonable(v) for v in values] == [
        0.5, 2, None, 3, [1.0, 2.0], 'a', None, True, '{1}']


@pytest.mark.parametrize('grammar, test, named', [
    ('int1000', 'int1000', []), ('int1000', 'int100', ['test_dataloader']),
    ('int100', 'int100', ['train_dataloader', 'test_dataloader'])])
def test_a_checkpoint_of_another_grammar_is_warned_about(grammar, test, named, monkeypatch):
    from simpleseg_mm.engine.hooks import grammar as module

    def runner(train, test):
        def loader(name):
            return dict(dataset=dict(type='RefCOCODataset', query=dict(codec=dict(grammar=name))))

        joined = dict(dataset=dict(datasets=[loader(train)['dataset'], dict(type='Other')]))
        return SimpleNamespace(cfg=Config(dict(train_dataloader=joined, val_dataloader=None,
                                               test_dataloader=loader(test))))

    warnings, checkpoint = [], dict(meta={})
    monkeypatch.setattr(module, 'print_log', lambda text, *args: warnings.append(text))
    module.GrammarHook().before_save_checkpoint(runner('int1000', 'int100'), checkpoint)
    assert checkpoint['meta']['grammars'] == ['int1000']
    module.GrammarHook().after_load_checkpoint(runner(grammar, test), checkpoint)
    assert [f'{key}.dataset' in text for key, text in zip(named, warnings)] == [True] * len(named)
    assert len(warnings) == len(named) and all('taught the grammar int1000' in t for t in warnings)
    module.GrammarHook().after_load_checkpoint(runner('int7', 'int7'), dict(state_dict={}))
    assert len(warnings) == len(named)  # a checkpoint of others says nothing
