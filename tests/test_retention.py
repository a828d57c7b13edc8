"""What a model keeps: the hook in real runs, the tool on nano, the answers of `predict`."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from engine_standin import ROOT, TOY, build, run_tool, train
from mmengine.config import Config

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.datasets.shape_questions import write_questions
from simpleseg_mm.engine.hooks.retention import RetentionHook
from simpleseg_mm.registry import MODELS
from simpleseg_mm.visualization import read_scalars

CONFIG = TOY + """
retention_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='collate_queries'), dataset=dict(type='ToyQueries', length=3))
retention_evaluator = dict(type='ToyMetric', prefix='retention')
val_cfg = test_cfg = None
train_cfg = dict(global_batch_size=4, max_iters=10, val_interval=99)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=-1),
                     samples=dict(interval=-1))
"""
HOOK = {'default_hooks.retention': dict(type='RetentionHook', interval=4)}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    return path


def curve(work_dir, name):
    log = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))[-1]
    return read_scalars(log).get(f'retention/{name}')


def test_scored_before_during_and_after_without_a_trace(config, tmp_path):
    plain = train(config, tmp_path / 'plain')
    scored = train(config, tmp_path / 'scored', **HOOK)
    steps, values = curve(tmp_path / 'scored', 'cIoU')
    assert steps == [0, 4, 8, 10] and len(set(values)) == 4
    changes = [value - values[0] for value in values]
    assert curve(tmp_path / 'scored', 'change/cIoU') == (steps, pytest.approx(changes))
    assert curve(tmp_path / 'plain', 'cIoU') is None
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, scored.model.state_dict()[name]), name
    assert scored.model.training

    seldom = dict(HOOK, **{'default_hooks.retention': dict(type='RetentionHook')})
    train(config, tmp_path / 'seldom', **seldom)
    assert curve(tmp_path / 'seldom', 'cIoU') == ([0, 10], [values[0], values[-1]])


def test_a_resumed_run_knows_its_start(config, tmp_path):
    train(config, tmp_path / 'whole', **HOOK)
    steps, values = curve(tmp_path / 'whole', 'cIoU')
    train(config, tmp_path / 'rest', resume=True,
          load_from=str(tmp_path / 'whole/iter_4.pth'), **HOOK)
    assert curve(tmp_path / 'rest', 'cIoU') == ([8, 10], values[2:])
    assert curve(tmp_path / 'rest', 'change/cIoU') == (
        [8, 10], pytest.approx([value - values[0] for value in values[2:]]))


@pytest.mark.slow
def test_two_processes_score_as_one(config, tmp_path):
    train(config, tmp_path / 'one', **HOOK)
    result = run_tool('train.py', config, '--work-dir', tmp_path / 'two', '--launcher', 'pytorch',
                      '--cfg-options', 'default_hooks.retention.type=RetentionHook',
                      'default_hooks.retention.interval=4', 'train_dataloader.batch_size=2',
                      processes=2)
    assert result.returncode == 0, result.stderr[-2000:]
    (steps, values), (steps_2, values_2) = (curve(tmp_path / n, 'cIoU') for n in ('one', 'two'))
    assert steps == steps_2 and values[0] == pytest.approx(values_2[0], abs=1e-4)
    assert curve(tmp_path / 'two', 'number')[1] == [3] * 4


@pytest.mark.parametrize('missing', ['dataloader', 'evaluator'])
def test_without_questions_it_says_so(config, tmp_path, missing):
    runner = build(config, tmp_path, **{f'retention_{missing}': None})
    with pytest.raises(ValueError, match=f'needs retention_{missing} in the config: add a piece'):
        RetentionHook().before_train(runner)


# nano: the tool, and the path that answers take


@pytest.fixture(scope='module')
def questions(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes')
    generate(out, dict(train=1, val=1, test=12), seed=5)
    rows = write_questions(out, 'test', limit=8)
    (out / 'questions_test.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    return out


def retention(monkeypatch, *args):
    spec = importlib.util.spec_from_file_location(
        'a_tool', ROOT / 'tools/analysis_tools/retention.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', ['retention.py', *map(str, args)])
    module.main()


@pytest.mark.slow
def test_the_tool_finds_what_nano_knows_and_what_is_lost(questions, tmp_path, monkeypatch,
                                                          capsys):
    config = ROOT / 'configs/simpleseg/nano_sft_refshapes.py'
    model = MODELS.build(Config.fromfile(config).model)
    state = model.state_dict()
    for name in state:
        if '.mlp.' in name and 'language_model' in name:
            state[name] = torch.zeros_like(state[name])
    checkpoint = tmp_path / 'lost.pth'
    torch.save(dict(state_dict=state, meta={}), checkpoint)
    retention(monkeypatch, config, checkpoint, '--work-dir', tmp_path, '--cfg-options',
              f'retention_dataloader.dataset.data_root={questions}',
              'retention_dataloader.num_workers=0', 'model.generation.max_new_tokens=24')
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {'colour', 'count', 'position', 'naming_box', 'naming_point', 'overall',
            'grounding/Acc@0.5', 'grounding/box_IoU'} == set(rows)
    assert rows['overall']['questions'] == 40 and rows['grounding/box_IoU']['questions'] == 8
    assert rows['grounding/Acc@0.5']['before'] >= 75 and rows['naming_box']['before'] >= 50
    for row in rows.values():
        assert row['change'] == pytest.approx(row['after'] - row['before'], abs=0.011)
    assert rows['grounding/Acc@0.5']['change'] < -50 and rows['overall']['change'] < 0
    written = [json.loads(line) for line in (tmp_path / 'before.jsonl').read_text().splitlines()]
    assert len(written) == 48
    right = sum(row['pred_text'].removeprefix('the ') in answers for row, answers in zip(
        written, (json.loads(line).get('answers', ()) for line in
                  (questions / 'questions_test.jsonl').read_text().splitlines())))
    assert rows['overall']['before'] == pytest.approx(100 * right / 40, abs=0.01)


@pytest.mark.parametrize('args, stop', [
    (('nano_sft_refshapes', 'nowhere.pth'), 2), (('nano_sft_refshapes', 'none', '--base', 'x'), 2),
    (('nano_pretrain_refshapes', 'none'), 'retention: .* has no retention_dataloader: add')])
def test_the_tool_ends_with_one_line(tmp_path, monkeypatch, capsys, args, stop):
    with pytest.raises(SystemExit, match=stop if isinstance(stop, str) else None) as error:
        retention(monkeypatch, ROOT / f'configs/simpleseg/{args[0]}.py', *args[1:], '--work-dir',
                  tmp_path)
    if stop == 2:
        assert error.value.code == 2 and 'ERROR: no checkpoint' in capsys.readouterr().out
