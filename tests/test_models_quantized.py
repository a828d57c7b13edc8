"""QLoRA: the language model in 4 bits below the adapters, from training to whole weights."""
import json

import pytest
import torch
from engine_standin import run_tool
from mmengine.config import Config
from test_engine_nano import config  # noqa: F401
from test_models_simpleseg import TURNS, picture, sample

from simpleseg_mm.analysis import Rehearsal
from simpleseg_mm.analysis.quantized import QuantizedLinear
from simpleseg_mm.engine import launch
from simpleseg_mm.models import SimpleSeg

bitsandbytes = pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed')
pytestmark = pytest.mark.usefixtures('one_thread')

LORA = dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*\.(q_proj|down_proj)')
NF4 = dict(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)
MLLM = dict(type='QwenVL', pretrained='simpleseg_mm://nano', lora=LORA,
            train_with_lora=['projector'], gradient_checkpointing=True)


@pytest.mark.parametrize('change', [
    dict(lora=None, train_with_lora=()),
    dict(init='random', pretrained=None, processor='simpleseg_mm://nano',
         config=dict(model_type='qwen2_5_vl')),
])
def test_quantized_weights_are_pretrained_ones_below_adapters(change):
    with pytest.raises(ValueError, match='lora=.*init='):
        SimpleSeg({**MLLM, 'quantization': NF4, **change})


@pytest.mark.parametrize('strategy', ['FullyShardStrategy', 'DeepSpeedStrategy'])
def test_quantized_weights_are_not_split(strategy):
    cfg = Config(dict(model=dict(mllm=dict(quantization=NF4)), strategy=dict(type=strategy)))
    with pytest.raises(ValueError, match=f'quantization under {strategy}'):
        launch.check_training(cfg, 2)


def test_the_language_model_alone_is_quantized_and_the_loss_stays_near():
    whole = SimpleSeg(dict(MLLM))
    model = SimpleSeg(dict(MLLM, quantization=NF4))
    adapter = model.mllm
    few = {name for name, p in adapter.hf.named_parameters() if p.dtype == torch.uint8}
    assert len(few) == 4 * 7  # q, k, v, o, gate, up and down of four layers
    assert {adapter.part_of(name.replace('.base_layer', '')) for name in few} == {'llm'}
    batch = [picture(56, 56)], [sample(TURNS)]
    losses = [m.loss(*batch)['loss'] for m in (whole, model)]
    assert losses[0] != losses[1]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.1)
    losses[1].backward()
    with_gradient = {name for name, p in adapter.hf.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in adapter.hf.named_parameters() if p.requires_grad}
    assert all('lora_' in name or 'visual.merger' in name for name in with_gradient)


@pytest.mark.slow
def test_trained_saved_tested_and_merged_into_whole_weights(config, tmp_path):  # noqa: F811
    qlora = tmp_path / 'qlora.py'
    qlora.write_text(f"""
_base_ = '{config}'
model = dict(mllm=dict(_delete_=True, quantization={NF4!r}, **{MLLM!r}))
val_evaluator = dict(_delete_=True, type='RESMetric')
test_evaluator = val_evaluator
test_dataloader = dict(dataset=dict(split='val'))
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=1))
""")
    trained = run_tool('train.py', qlora, '--work-dir', tmp_path / 'run')
    assert trained.returncode == 0, trained.stderr[-2000:]
    checkpoint = tmp_path / 'run' / 'iter_2.pth'
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    assert state and all('lora_' in name or 'visual.merger' in name for name in state)
    for argument in (['train.py', qlora, '--work-dir', tmp_path / 'run', '--resume'],
                     ['test.py', qlora, checkpoint, '--work-dir', tmp_path / 'test']):
        result = run_tool(*argument)
        assert result.returncode == 0, result.stderr[-2000:]
    out = tmp_path / 'out'
    result = run_tool('model_converters/to_huggingface.py', qlora, checkpoint, out)
    assert result.returncode == 0, result.stderr[-2000:]
    assert '8 LoRA adapters merged' in result.stdout
    assert 'quantization_config' not in json.loads((out / 'config.json').read_text())
    whole = SimpleSeg(dict(type='QwenVL', pretrained=str(out)))
    name = 'model.language_model.layers.0.self_attn.q_proj.'
    base = SimpleSeg(dict(type='QwenVL', pretrained='simpleseg_mm://nano'))
    key = f'mllm.hf.{name}base_layer.weight'.replace('.base_layer', '')
    change = (state[f'mllm.hf.{name}lora_B.default.weight']
              @ state[f'mllm.hf.{name}lora_A.default.weight']) * 2  # lora_alpha / r
    assert change.abs().max() > 0
    torch.testing.assert_close(whole.state_dict()[key], base.state_dict()[key] + change)


def test_the_planner_counts_what_bitsandbytes_holds_and_allocates(tmp_path):
    linear = torch.nn.Linear(512, 2048, dtype=torch.bfloat16)
    real = bitsandbytes.nn.Linear4bit(512, 2048, quant_type='nf4', compute_dtype=torch.bfloat16)
    real.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False,
                                             quant_type='nf4', compress_statistics=True)
    real.bias = linear.bias
    real.to('cpu')
    held = sum(v.numel() * v.element_size() for k, v in real.state_dict().items()
               if 'quant_map' not in k and 'quant_state' not in k)  # tables of 16 and 256 values
    planned = QuantizedLinear(linear, bits=4, double=True)
    assert held == sum(v.numel() * v.element_size() for v in planned.state_dict().values())

    x = torch.randn(64, 512, dtype=torch.bfloat16, requires_grad=True)
    with torch.backends.mkldnn.flags(enabled=False):  # some processors need memory for it
        real(x).sum().backward()
        with torch.profiler.profile(profile_memory=True) as profile:
            real(x).sum().backward()
    sizes = [e.nbytes() for e in profile.profiler.kineto_results.events()
             if e.name() == '[memory]']
    measured = max(sum(sizes[:i]) for i in range(1, len(sizes) + 1))
    rehearsal = Rehearsal(7)
    planned = planned.to('meta')
    rehearsal.adopt(planned)
    with rehearsal:
        x = torch.zeros(64, 512, dtype=torch.bfloat16, requires_grad=True)
        before = sum(rehearsal.alive.values())
        with rehearsal.phase() as phase:
            planned(x).sum().backward()
    assert phase.total - before == pytest.approx(measured, rel=0.15)
