"""Every config loads, every dataset query and schedule in it is buildable, ablations are small."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import simpleseg_mm.datasets  # noqa: F401
import simpleseg_mm.engine  # noqa: F401
import simpleseg_mm.evaluation  # noqa: F401
import simpleseg_mm.models  # noqa: F401
from simpleseg_mm.analysis import build_on_meta
from simpleseg_mm.config_keys import check_config
from simpleseg_mm.registry import (DATA_SAMPLERS, DATASETS, FAMILIES, FUNCTIONS, HOOKS, LOOPS,
                                   METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS,
                                   REWARDS, ROLLOUTS, TRANSFORMS)
from simpleseg_mm.rl import PolicyObjective

ROOT = Path(__file__).resolve().parent.parent / 'configs' / 'simpleseg'
CONFIGS = sorted(ROOT.rglob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config(path):
    cfg = Config.fromfile(path)
    loaders = [cfg[key] for key in cfg if key.endswith('_dataloader') and cfg[key]]
    assert len(loaders) >= 2
    for loader in loaders:
        assert DATASETS.get(loader.dataset.type) and DATA_SAMPLERS.get(loader.sampler.type)
        assert FUNCTIONS.get(loader.collate_fn.type)
        for dataset in loader.dataset.get('datasets', [loader.dataset]):
            assert DATASETS.get(dataset.type)
            TRANSFORMS.build(dict(dataset.query))
    evaluators = (cfg.test_evaluator if isinstance(cfg.test_evaluator, list)
                  else [cfg.test_evaluator])
    for metric in evaluators + cfg.get('retention_evaluator', []):
        METRICS.build(dict(metric))
    assert FAMILIES.get(cfg.model.mllm.type) and MODELS.get(cfg.model.type)
    assert OPTIM_WRAPPER_CONSTRUCTORS.get(cfg.optim_wrapper.constructor)
    assert OPTIMIZERS.get(cfg.optim_wrapper.optimizer.type)
    wrapper = cfg.optim_wrapper  # else most updates are smaller than a weight's last bit
    assert (cfg.model.mllm.get('dtype') != 'bfloat16' or wrapper.optimizer.type == 'MuonAdamW'
            or wrapper.type == 'DeepSpeedOptimWrapper')
    assert all(LOOPS.get(loop.type) for loop in (cfg.train_cfg, cfg.val_cfg, cfg.test_cfg) if loop)
    if cfg.train_cfg.type == 'RLTrainLoop':
        REWARDS.build(cfg.train_cfg.reward)
        ROLLOUTS.build(cfg.train_cfg.rollout)
        PolicyObjective(**cfg.train_cfg.objective)
    assert all(HOOKS.get(hook.type) for hook in cfg.default_hooks.values())
    check_config(cfg)  # no false alarm
    assert re.fullmatch(r'work_dirs/[\w./-]+(?<!pth)', cfg.load_from or 'work_dirs/none')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_model_builds_without_weights_and_without_a_hub(path, monkeypatch):
    """On the meta device; where a hub would be asked, the repository's own shape stands in, or a
    line says what to fetch."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    init_default_scope('simpleseg_mm')
    cfg = Config.fromfile(path)
    if cfg.model.mllm.type == 'AutoVLM':  # no shape: their processors do not ship with the package
        with pytest.raises(FileNotFoundError, match='weights .*hf download.*pretrained=DIR'):
            build_on_meta(cfg.model)
        return
    model = build_on_meta(cfg.model)
    parameters = list(model.parameters())
    assert all(p.is_meta for p in parameters) and any(p.requires_grad for p in parameters)
    hf = model.mllm.hf  # transformers keeps some in float32, as the gate of experts since 5.24
    precise = {*(hf._keep_in_fp32_modules or ()), *(hf._keep_in_fp32_modules_strict or ())}
    assert {p.dtype for name, p in model.named_parameters() if p.ndim == 2 and not p.requires_grad
            and not any(kept in name.replace('.base_layer', '') for kept in precise)} <= {
        getattr(torch, cfg.model.mllm.get('dtype', 'float32'))}
    assert hf.config.text_config.vocab_size == len(model.mllm.head_weight)


@pytest.mark.parametrize('path', sorted((ROOT / 'ablations').glob('*.py')), ids=lambda p: p.stem)
def test_an_ablation_is_its_parent_but_for_one_thing(path):
    model, data = ('nano', 'refshapes') if path.stem.startswith('nano_') else (
        'qwen25vl', 'refcoco')
    stage = path.stem.removeprefix('nano_').split('_')[0]
    parent = ROOT / f'{model}_{stage}_{data}.py'
    child, parent = (Config.fromfile(file).to_dict() for file in (path, parent))
    differing = set(_differences(child, parent)) - {('query', ), ('tasks', )}
    places = {key[3] if key[0].endswith('_dataloader') else key[:2] for key in differing}
    started = {('load_from', )}  # where a stage begins: what 'from' changes, and nothing else
    assert len(places - started) == ('_from-' not in path.stem), places
    assert len([line for line in path.read_text().splitlines() if line]) <= 8


def test_the_tasks_of_nanos_base_hold_no_polygon():
    cfg = Config.fromfile(ROOT / 'nano_pretrain_refshapes.py')
    assert not [task for task, weight in cfg.train_dataloader.dataset.query.tasks.items()
                if 'mask' in task and weight]


def test_the_paper_s_rl_prompts():
    cfg = Config.fromfile(ROOT / 'qwen25vl_gspo_refcoco-all.py')
    assert cfg.train_cfg.global_batch_size * cfg.train_cfg.max_iters == 400_000
    assert cfg.train_cfg.mini_batches == 4 and cfg.train_cfg.objective.level == 'sequence'
    assert dict(cfg.train_dataloader.dataset.query.tasks) == dict(text2mask=1.0)


def test_the_paper_s_schedule():
    cfg = Config.fromfile(ROOT / 'qwen25vl_sft_refcoco-all.py')
    optimizer, (warmup, cosine) = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert cfg.train_cfg.global_batch_size * cfg.train_cfg.max_iters == 800_000
    assert optimizer.lr == 5e-5 and optimizer.lr * cosine.eta_min_ratio == pytest.approx(2e-6)
    assert warmup.end == round(0.03 * cfg.train_cfg.max_iters) == cosine.begin
    assert [s.name for s in cfg.train_dataloader.dataset.sources] == [
        'refcoco', 'refcoco+', 'refcocog', 'refclef']


def _differences(a, b, path=()):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {*a, *b}:
            yield from _differences(a.get(key), b.get(key), (*path, key))
    elif a != b:
        yield path
