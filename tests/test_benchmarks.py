"""Benchmarks: the form of their rows, and that peers do the same work as ours."""
import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from test_models_simpleseg import build

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'benchmarks'))

import codec  # noqa: E402
import gspo_step  # noqa: E402
import measure  # noqa: E402
import official  # noqa: E402
import page  # noqa: E402
import run  # noqa: E402
import sft_nano  # noqa: E402

from simpleseg_mm.polygon import PolygonCodec, Spans, mask_iou  # noqa: E402

KEYS = {'ratio', 'ours', 'peer', 'unit', 'device', 'spread'}
SQUARES = ('[[[0.1, 0.1], [0.5, 0.1], [0.5, 0.5], [0.1, 0.5]],'
           ' [[0.4, 0.4], [0.9, 0.4], [0.9, 0.8]]]')


@pytest.mark.parametrize('more_is_better, ratio, spread', [
    (False, 2.0, [1.0, 4.0]), (True, 0.5, [0.25, 1.0])])
def test_a_row_by_hand(more_is_better, ratio, spread):
    row = measure.row('x', [1, 2, 1], [2, 2, 4], 'ms', more_is_better=more_is_better, what='w')
    assert row == dict(name='x', ratio=ratio, ours=1, peer=2, unit='ms', device='cpu',
                       spread=spread, what='w')


def test_ways_take_turns_and_the_first_turn_is_not_counted():
    seen, ticks = [], iter(range(100))
    seconds = measure.alternate(dict(a=lambda: seen.append('a'), b=lambda: seen.append('b')), 2,
                                clock=lambda: next(ticks), before=lambda name: seen.append('-'))
    assert ''.join(seen) == '-a-b' * 3
    assert seconds == dict(a=[1, 1], b=[1, 1])


@pytest.mark.skipif(importlib.util.find_spec('vllm') is not None, reason='vLLM is here')
def test_without_vllm_its_row_says_so():
    report = run.run(['rollout_vllm'], quick=True)
    assert 'make test-vllm' in report['rollout_vllm']['skipped']


@pytest.mark.parametrize('row, cell', [
    (measure.skipped('gpu', 'no CUDA device'), 'skipped: no CUDA device'),
    (measure.row('gpu', [1.0, 3.0, 2.0], None, 's'), '| 2 | no peer | s |'),
    (measure.row('gpu', [1.0], [3.0], 's'), '**3**'),
])
def test_every_row_has_a_line(row, cell):
    assert KEYS < set(row)
    lines = run.table({row.pop('name'): row, 'machine': {}}).splitlines()
    assert len(lines) == 3 and cell in lines[-1] and lines[-1].count('|') == lines[0].count('|')


def test_the_page_has_a_table_a_topic_and_no_row_is_lost():
    names = ('machine', 'summary', 'codec', 'decoding', 'training', 'further')
    text = ''.join(f'<!-- figures: {name} -->\nold\n<!-- end of figures -->\n{name} ends\n'
                   for name in names)
    made = [measure.row('sft_nano', [4.0, 4.0], [2.0, 1.0], 'samples/s', more_is_better=True),
            measure.row('greedy_int1000_seconds', [0.25], [0.5], 'seconds a batch'),
            measure.row('new', [1.0], None, 'ms', what='w', ours_quality=dict(iou=0.5, tokens=3),
                        peer_quality=dict(iou=0.25, tokens=4)),
            measure.skipped('gpu', 'no CUDA device')]
    report = dict(machine=measure.machine(), **{row.pop('name'): row for row in made})
    filled = page.filled(text, report)
    assert 'old' not in filled and page.filled(filled, report) == filled
    parts = dict(zip(names, filled.split(' ends\n')))
    assert 'cores' in parts['machine'] and 'SFT of nano' in parts['summary']
    assert '| samples' not in parts['codec'] and '|' not in parts['codec']
    assert '| 250 | 500, transformers\' generate | **2x** (2 to 2) |' in parts['decoding']
    assert 'SFT of nano, samples/s | 4 | 1.5, ' in parts['training']
    assert '**3x** (2 to 4)' in parts['training']
    assert '| `new`, ms | 1 | no peer |  |' in parts['further']
    assert 'Ours: IoU 50.00 % at 3 tokens. The peer: 25.00 % at 4.' in parts['further']
    assert 'Not run on this machine: `gpu` (no CUDA device).' in parts['further']


def test_the_page_is_that_of_its_report():
    report = json.loads((page.FOLDER / 'results.json').read_text())
    text = page.PAGE.read_text()
    assert page.filled(text, report) == text
    shown = set(text.split('<!-- figures: further -->')[0].split('`'))
    assert set(page.ROWS) - set(report) == set() and set(page.ROWS) <= shown
    assert set(page.SUMMARY) <= set(page.ROWS)


def test_the_official_decoding_is_the_union_of_pycocotools():
    h, w = 40, 60
    flat = [(np.array(ring) * [w, h]).ravel().tolist() for ring in json.loads(SQUARES)]
    union = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, h, w)))
    assert (official.text_mask(f'It is {SQUARES}.', h, w) == union).all()
    ours = PolygonCodec('paper', 'decimal3').decode(SQUARES, (h, w))
    assert (ours.mask == union).all()
    target = np.zeros((h, w), np.uint8)
    target[5:30, 5:30] = 1
    assert official.iou(union, target) == ours.spans.iou(Spans.from_mask(target))


@pytest.mark.parametrize('epsilon', [0.001, 0.005])
def test_the_official_preparation_is_the_papers_preset(epsilon):
    ring = codec.blob(np.random.default_rng(1), (120, 160)).round(2).ravel().tolist()
    mask = official.annotation_mask([ring, ring], 120, 160)
    assert mask.max() == 1
    preset = PolygonCodec('paper', 'decimal3', epsilon=epsilon)
    assert official.mask_text(mask, epsilon) == preset.encode(mask.astype(np.uint8))
    assert preset.encode_segmentation([ring, ring], 120, 160) == preset.encode(mask > 0)


def test_answers_say_the_same_in_both_grammars():
    for fixed, whole, target in codec.answers((96, 128), 3):
        masks = [PolygonCodec(grammar=grammar).decode(text, (96, 128)).mask
                 for grammar, text in (('fixed3', fixed), ('int1000', whole))]
        assert (masks[0] == masks[1]).all() and 0.7 < mask_iou(masks[0], target) < 1


@pytest.mark.slow
def test_run_prints_json_on_its_last_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['run.py', 'codec', 'sft_gpu', 'gspo_gpu', '--quick'])
    monkeypatch.delenv('SIMPLESEG_DATA', raising=False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')  # each runs in a process of its own
    run.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {'cpu', 'cores', 'threads', 'torch'} <= set(report.pop('machine'))
    assert {'decode_iou', 'annotation_to_text', 'rewards'} < set(report)
    for name, row in report.items():
        assert KEYS <= set(row)
        if name.endswith('_gpu'):
            assert row['skipped'] == 'no CUDA device'
        else:
            assert row['ratio'] > 0 and len(row['spread']) == 2


def test_one_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    def ran(command, **_):
        name = command[2]
        return subprocess.CompletedProcess(
            command, 3 if name == 'codec' else 0, json.dumps({name: dict(skipped='so')}))

    monkeypatch.setattr(run.subprocess, 'run', ran)
    monkeypatch.setattr(sys, 'argv', ['run.py', 'codec', 'logp'])
    with pytest.raises(SystemExit, match='1'):
        run.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert KEYS <= set(report['codec']) and report['codec']['failed'] == 3
    assert report['logp'] == dict(skipped='so')


def test_an_unknown_benchmark_is_refused():
    done = subprocess.run([sys.executable, str(ROOT / 'benchmarks/run.py'), 'nothing'],
                          capture_output=True, text=True)
    assert done.returncode == 2 and 'codec' in done.stderr


def test_the_trainers_batch_is_ours(tmp_path):
    """The same tensors, and the same loss: what is timed is the same work."""
    runner = sft_nano.build(str(tmp_path), 12)
    dataset = runner.build_dataloader(runner.cfg.train_dataloader).dataset
    items = [dataset[i] for i in range(4)]
    data = sft_nano.Conversations(tmp_path / 'conversations', dataset, 4)
    model = runner.model
    inputs, samples = ([item[key] for item in items] for key in ('inputs', 'data_samples'))
    ours = model._encode(inputs, samples)
    peer = sft_nano.Collator(model.mllm.encoder.tokenizer,
                             model.mllm.family.image_processor)(data.rows)
    assert ours.keys() == peer.keys()
    assert all(torch.equal(ours[key], peer[key]) for key in ours)
    with torch.no_grad():
        loss = model.loss(inputs, samples)['loss']
        assert loss == pytest.approx(float(model.mllm.hf(**peer).loss), rel=1e-5)


def test_a_peer_gets_the_network_of_transformers_and_gives_ours_back():
    lora = dict(r=2, target_modules=['q_proj'])
    mllm = build(gradient_checkpointing=.5, lora=lora).mllm

    def state() -> dict:
        return {name: (module.__dict__.get('forward'),
                       getattr(module, 'gradient_checkpointing', None),
                       getattr(getattr(module, 'config', None), '_attn_implementation', None),
                       len(module._forward_hooks))
                for name, module in mllm.hf.named_modules()}

    before = state()
    with measure.released(mllm) as theirs:
        theirs.activation_checkpointing_enable(dict(use_reentrant=False))
        within = state().values()
        assert not any(forward for forward, *_ in within)
        assert sum(flag is True for _, flag, *_ in within) > sum(
            flag is True for _, flag, *_ in before.values())
        assert {name for *_, name, _ in within} <= {'sdpa', None}
        assert any(hooks for *_, hooks in within)
    assert state() == before


@pytest.fixture
def tiny_gspo(tmp_path, monkeypatch):
    """The peer's module, a config of a tiny network, and a batch of two prompts."""
    pytest.importorskip('trl')
    import trl_gspo
    monkeypatch.delenv('LOCAL_RANK', raising=False)  # which accelerate takes for several processes
    cfg = gspo_step.configure(argparse.Namespace(
        config=str(ROOT / 'configs/simpleseg/qwen25vl_lora_gspo_refcoco.py'),
        model=str(ROOT / 'configs/_base_/models/nano_random.py'), prompts=2, new_tokens=3, size=64,
        cfg_options={'train_cfg.group_size': 4, 'train_cfg.mini_batches': 2,
                     'train_cfg.micro_batch_size': 2, 'model.mllm.min_pixels': 784,
                     'model.mllm.dtype': 'float32'}), str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 56, 84), dtype=torch.uint8, generator=generator)
    return trl_gspo, cfg, (list(pictures), ['the red circle', 'a larger blue square on the left'])


def test_trl_reads_and_learns_from_what_we_do(tiny_gspo, tmp_path):
    """Our tokens and pixels (else it is not built), in generation, old log-probabilities and
    updates."""
    trl_gspo, cfg, batch = tiny_gspo
    clock = trl_gspo.Clock()
    trainer = trl_gspo.build(cfg, [batch, batch], str(tmp_path / 'trl'), [clock])
    seen, hf = [], trainer.model
    hf.model.visual.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            (len(kwargs['grid_thw']), torch.is_grad_enabled())), with_kwargs=True)
    before = {name: p.detach().clone() for name, p in hf.named_parameters()}
    trainer.train()
    assert seen == 2 * ([(8, False)] + 4 * [(2, False)] + 4 * [(2, True)])
    assert len(clock.seconds) == 2 * cfg.train_cfg.mini_batches
    assert len(trainer.reward_funcs[0].tokens) == 2
    changed = {name for name, p in hf.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if 'lora_' in name or '.merger.' in name}


def test_a_peer_that_reads_other_tokens_is_refused(tiny_gspo, tmp_path, monkeypatch):
    trl_gspo, cfg, batch = tiny_gspo
    monkeypatch.setattr(trl_gspo, 'CHAT_TEMPLATE',
                        trl_gspo.CHAT_TEMPLATE.replace("['role'] }}\n", "['role'] }}"))
    with pytest.raises(ValueError, match='the peer reads other input_ids'):
        trl_gspo.build(cfg, [batch], str(tmp_path / 'trl'))
