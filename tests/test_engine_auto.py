"""Families by their own processor (AutoVLM) through data, loops, processes, export and use."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_standin import ROOT, run_tool, train
from serving_standin import serving
from test_engine_kimi import logged, options
from test_models_auto import NEEDS, PROMPTS, official, picture
from test_serving import ask, png, upload
from tiny_families import FAMILIES, make
from transformers import AutoModelForImageTextToText

from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.cli import main
from simpleseg_mm.exported import NOTE
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.models.families.auto import load_processor

pytestmark = pytest.mark.usefixtures('one_thread')
CONFIGS = ROOT / 'configs' / 'simpleseg'
SCENE = np.full((84, 84, 3), 240, np.uint8)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    generate(folder, dict(train=6, val=2))
    return options(folder, ['train_dataloader', 'val_dataloader', 'test_dataloader'])


SHORT = {
    'train_dataloader.batch_size': 4, 'train_cfg.global_batch_size': 4, 'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2, 'param_scheduler': [], 'val_dataloader.dataset.indices': 2,
    'model.generation.max_new_tokens': 8, 'default_hooks.checkpoint.interval': 2,
    'default_hooks.checkpoint.save_best': None, 'default_hooks.logger.interval': 1,
    'optim_wrapper.optimizer.ns_dtype': 'float32'}
ONE_STEP = {
    'train_cfg.global_batch_size': 2, 'train_cfg.max_iters': 1, 'train_cfg.group_size': 4,
    'train_cfg.down_sample': None, 'train_cfg.micro_batch_size': 4, 'train_cfg.mini_batches': 2,
    'train_cfg.objective.clip_low': 0.2, 'train_cfg.objective.clip_high': 0.2,
    'train_cfg.rollout.max_new_tokens': 12, 'train_cfg.reward.weights.vowels': 1.0,
    'optim_wrapper.optimizer.ns_dtype': 'float32', 'model.generation.max_new_tokens': 4,
    'param_scheduler': [], 'default_hooks.rollouts.interval': -1, 'val_cfg': None,
    'val_dataloader': None, 'val_evaluator': None, 'test_cfg': None, 'test_dataloader': None,
    'test_evaluator': None, 'default_hooks.checkpoint.save_best': None}


def config_of(name: str, stage: str, tmp_path_factory) -> Path:
    """A child of nano's config with a tiny network of a family."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    base = tmp_path_factory.mktemp(name)
    folder = make(name, base / 'folder')
    path = base / f'{name}_{stage}.py'
    path.write_text(f"""
_base_ = '{CONFIGS}/nano_{stage}_refshapes.py'
model = dict(mllm=dict(_delete_=True, type='AutoVLM', pretrained='{folder}', init='random'))
load_from = None
""")
    return path


@pytest.fixture(scope='module', params=[
    'internvl', *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
                  if name != 'internvl')])
def sft(request, data, tmp_path_factory):
    """A config and its run of two steps."""
    config = config_of(request.param, 'sft', tmp_path_factory)
    train(config, config.parent / 'run', **data, **SHORT)
    return config, config.parent / 'run'


def test_sft(sft):
    rows = logged(sft[1])
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert {'res/gIoU', 'health/valid_parse'} <= rows[-1].keys()


def test_a_gspo_step(sft, data, tmp_path):
    """By a reward that tells unread answers apart."""
    config = tmp_path / 'gspo.py'
    config.write_text(sft[0].read_text().replace('nano_sft_', 'nano_gspo_'))
    runner = train(config, tmp_path / 'run', **data, **ONE_STEP,
                   load_from=str(sft[1] / 'iter_2.pth'))
    row, = [row for row in logged(tmp_path / 'run') if 'reward' in row]
    assert row['dropped_groups'] < 1 and row['grad_norm'] > 0
    before = torch.load(sft[1] / 'iter_2.pth', weights_only=False)['state_dict']
    after = runner.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_an_export_is_read_by_transformers_and_by_the_inferencer(sft, data, tmp_path):
    config, run = sft
    out = tmp_path / 'out'
    written = run_tool('model_converters/to_huggingface.py', config, run / 'iter_2.pth', out)
    assert written.returncode == 0, written.stderr[-2000:]
    note = json.loads((out / NOTE).read_text())
    assert note['mllm']['type'] == 'AutoVLM'
    ours = SimpleSegInferencer(str(out), device='cpu', show_progress=False)
    assert ours.segment(SCENE, 'red circle')[0].codec == 'int100/default'
    plain = AutoModelForImageTextToText.from_pretrained(out)
    processor = load_processor(str(out), plain.config)  # without torchvision: for pictures alone
    assert processor.chat_template == ours.model.mllm.family.processor.chat_template
    image = picture(84, 84)
    ours.model.mllm.family.processor = processor
    batch = official(ours.model, image, PROMPTS[1])
    ids = plain.generate(**{key: value for key, value in batch.items()
                            if key not in ('num_patches', 'num_crops')}, max_new_tokens=8,
                         suppress_tokens=ours.model.mllm.writer.banned_tokens)
    answer, = ours.model.answer([image], [PROMPTS[1]], max_new_tokens=8)
    assert tuple(ids[0, batch['input_ids'].shape[1]:].tolist()) == answer.token_ids
    # by the page's server and by the command
    with serving(ours) as (url, _):
        assert ask(url, upload(url, png(84, 84)), 'red circle')[0] == 200
    (tmp_path / 'scene.png').write_bytes(png(84, 84))
    assert main(['segment', str(tmp_path / 'scene.png'), 'red circle', '--model', str(out),
                 '--device', 'cpu', '--out-dir', str(tmp_path / 'answers')]) == 0
    assert len(list((tmp_path / 'answers/preds').glob('*.json'))) == 1
    # without its note: loaded, and said
    (out / NOTE).unlink()
    untaught, = SimpleSegInferencer(str(out), device='cpu', show_progress=False, cfg_options={
        'model.generation.max_new_tokens': 4}).segment(SCENE, 'red circle')
    assert any('taught outlines' in text for text in untaught.warnings)


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['', 'strategies/fsdp.py'])
@pytest.mark.parametrize('name', ['gemma3', 'internvl'])
def test_two_processes_equal_one(name, strategy, data, tmp_path, tmp_path_factory):
    """Gemma's vision tower has weights that take no part, for which processes would wait."""
    config = config_of(name, 'sft', tmp_path_factory)
    short = {**data, **SHORT}
    one, two = tmp_path / 'one', tmp_path / 'two'
    train(config, one, **short)
    if strategy:
        text = config.read_text().replace("_base_ = '", "_base_ = ['").replace(
            "refshapes.py'", f"refshapes.py', '{ROOT}/configs/_base_/{strategy}']")
        config.write_text(text)
    short['train_dataloader.batch_size'] = 2
    result = run_tool('train.py', config, '--work-dir', two, '--launcher', 'pytorch',
                      '--cfg-options', *(f'{key}={value}' for key, value in short.items()),
                      processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    for a, b in zip(logged(one), logged(two)):
        if 'loss' in a:
            assert a['loss'] == pytest.approx(b['loss'], rel=1e-4)
            assert a['grad_norm'] == pytest.approx(b['grad_norm'], rel=1e-3)
