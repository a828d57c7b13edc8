"""Fused steps compute what transformers' own do; with a GPU, by kernels that are compiled."""
import sys
from functools import lru_cache
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from test_acceleration_packing import LINES
from test_models_families import PICTURES, PROMPTS
from test_models_families import of_family as build_family
from test_models_simpleseg import sample
from torch import nn
from transformers.activations import SiLUActivation

from simpleseg_mm.acceleration import compiled, lora_in_place
from simpleseg_mm.acceleration.fused_gates import FusedGates
from simpleseg_mm.acceleration.lora_in_place import LoraInPlace
from simpleseg_mm.acceleration.measure import ForwardMeasure
from simpleseg_mm.acceleration.patches_as_rows import PatchesAsRows

CUDA = torch.cuda.is_available()
DEVICE = 'cuda' if CUDA else 'cpu'
STEPS = {'Qwen2_5_VLRMSNorm', 'Qwen2RMSNorm', 'Qwen3VLTextRMSNorm', 'Qwen2MLP',
         'Qwen2_5_VLMLP', 'Qwen3VLTextMLP'}


FUSED = ('fused_norms', 'fused_gates', 'fused_rotations')


@pytest.fixture(autouse=True)
def as_they_are(monkeypatch):
    """Without a GPU the steps run as they are: compiling them takes longer than it teaches."""
    if not CUDA:
        monkeypatch.setattr(compiled.CompiledMeasure, 'obstacle', ForwardMeasure.obstacle)
        monkeypatch.setattr(compiled, '_as_they_are', True)


def of_family(name: str, **options):
    return build_family(name, acceleration='auto', **options)


def fuse(model, on: bool = True):
    acceleration = model.mllm.acceleration
    for name in FUSED:
        if not on:
            acceleration.remove(name)
        elif name not in acceleration.on:
            assert acceleration.install(name) is None, acceleration.off
    assert len(acceleration.on.keys() & set(FUSED)) == 3 * on
    for measure in [m for name, m in acceleration.on.items() if name == 'recorded_passes']:
        measure.ready.clear()  # by other steps: those compile when first run
    return model


def installed(measure, module: nn.Module):
    measure().install(SimpleNamespace(hf=module))


def rotations() -> list:
    """Of the modules of Qwen's attentions."""
    modules = [module for name, module in list(sys.modules.items())
               if 'transformers.models.qwen' in name]
    return [value for module in modules
            for key, value in vars(module).items() if key.startswith('apply_rotary_pos_emb')]


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen2_vl', 'qwen3_vl'])
def test_losses_gradients_and_answers_are_the_same(family, checkpointing):
    model = of_family(family, gradient_checkpointing=checkpointing).to(DEVICE)
    found, plain = [], []
    for on in (False, True):
        fuse(model, on)
        plain.append(rotations())
        loss = model.loss(PICTURES, [sample(turns) for turns in LINES])['loss']
        loss.backward()
        found.append((loss, {name: p.grad for name, p in model.named_parameters()},
                      [a.text for a in model.answer(PICTURES, PROMPTS, max_new_tokens=8)]))
        model.zero_grad()
    changed = {type(m).__name__ for m in model.mllm.hf.modules() if 'forward' in m.__dict__}
    assert changed & STEPS
    assert sum(one is not other for one, other in zip(*plain, strict=True)) == 2
    fuse(model, False)
    assert not changed & STEPS & {type(m).__name__ for m in model.mllm.hf.modules()
                                  if 'forward' in m.__dict__}
    assert rotations() == plain[0]
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][2] == found[1][2]
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_log_probs_are_bit_for_bit_the_same_with_and_without_gradient():
    """Else GSPO would clip the noise between two kernels."""
    model = fuse(of_family(
        'qwen2_5_vl', gradient_checkpointing=True, dtype='bfloat16',
        lora=dict(r=4, target_modules=['q_proj', 'down_proj'])).to(DEVICE))
    turns = [[('a', [20, 21, 2])], [('a b', [30, 2])]]
    with torch.no_grad():
        old = model.log_probs(PICTURES[:2], turns)[0]
    new = model.log_probs(PICTURES[:2], turns)[0]
    assert new.requires_grad and torch.equal(old, new)


@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen2_vl', 'qwen3_vl'])
def test_no_number_of_tokens_compiles_anything_new(family, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    @lru_cache(maxsize=None)
    def with_backend(function):
        return torch.compile(function, dynamic=False, backend=backend)

    monkeypatch.setattr(compiled, '_compiled', with_backend)
    monkeypatch.setattr(compiled, '_as_they_are', False)
    model = fuse(of_family(family).to(DEVICE))
    counts = []
    for lines in (LINES, LINES[:1], LINES[1:], LINES[:2]):
        batch = [sample(turns) for turns in lines]
        model.loss(PICTURES[:len(lines)], batch)['loss'].backward()
        model.answer(PICTURES[:len(lines)], PROMPTS[:len(lines)], max_new_tokens=4)
        counts.append(len(graphs))
        if len(lines) == 1:
            known = len(graphs)  # of one row and of several
    assert len(graphs) == known > 0, counts


@pytest.mark.parametrize('family, reason', [
    ('kimi_vl', 'not known to suit KimiVL'), ('qwen3_5', 'no module of this network')])
def test_norms_of_another_form_are_left_alone(family, reason):
    model = of_family(family)
    assert reason in model.mllm.acceleration.install('fused_norms')
    assert not any('Norm' in type(m).__name__ for m in model.mllm.hf.modules()
                   if 'forward' in m.__dict__)


class Gated(nn.Module):
    """As transformers' gated layers, of a width that no fast kernel takes."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.hidden_size, self.intermediate_size = 16, width
        self.gate_proj, self.up_proj = (nn.Linear(16, width, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(width, 16, bias=bias)
        self.act_fn = SiLUActivation()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('width', [16, 12, 20, 3])
def test_padded_widths_are_the_same_product(width, bias, monkeypatch):
    torch.manual_seed(0)
    layer, states, widths = Gated(width, bias).to(DEVICE), torch.randn(2, 5, 16), []
    linear = F.linear
    monkeypatch.setattr(F, 'linear', lambda x, weight, *bias: (
        widths.append(tuple(weight.shape)), linear(x, weight, *bias))[1])
    found = []
    for on in (False, True):
        if on:
            installed(FusedGates, layer)
        inputs = states.to(DEVICE, copy=True).requires_grad_()
        output = layer(inputs)
        output.square().sum().backward()
        found.append([output, inputs.grad, *(p.grad for p in layer.parameters())])
        layer.zero_grad()
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs)
    assert all(size % 8 == 0 for shape in widths[-3:] for size in shape)


@pytest.mark.parametrize('setting', [
    'plain', 'rslora', 'bias', 'dropout', 'dora', 'disabled', 'merged', 'two', 'other dtype',
    'autocast'])
def test_adapters_add_what_pefts_do(setting):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 4, bias=False))
    network.to(torch.float32 if setting == 'autocast' else torch.float64)
    more = dict(rslora=dict(use_rslora=True), bias=dict(lora_bias=True), dora=dict(use_dora=True),
                dropout=dict(lora_dropout=.5)).get(setting, {})
    config = LoraConfig(r=3, lora_alpha=5, target_modules=['0', '2'], init_lora_weights=False,
                        **more)
    inject_adapter_in_model(config, network)
    if setting == 'two':
        inject_adapter_in_model(config, network, 'second')
        for layer in (network[0], network[2]):
            layer.set_adapter(['default', 'second'])
    for layer in (network[0], network[2]):
        if setting == 'disabled':
            layer.enable_adapters(False)
        if setting == 'merged':
            layer.merge()
        if setting == 'other dtype':
            layer.lora_A.float(), layer.lora_B.float()
    states = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = []
    for on in (False, True):
        if on:
            installed(LoraInPlace, network)
        torch.manual_seed(1)  # of dropout
        with torch.autocast('cpu', torch.bfloat16, enabled=setting == 'autocast'):
            output = network(states.to(network[2].base_layer.weight.dtype))
        found.append([output, *torch.autograd.grad(output.square().sum(), [states, *parameters],
                                                   allow_unused=True)])
    for theirs, ours in zip(*found):
        torch.testing.assert_close(ours, theirs)


def test_adapters_of_the_language_model_are_in_place():
    model = of_family('qwen2_5_vl', lora=dict(r=4, target_modules=['q_proj', 'down_proj']))
    layers = [m for m in model.mllm.hf.modules() if isinstance(m, LoraLinear)]
    assert layers and all(m.forward.__func__ is lora_in_place.added_in_place
                          for m in layers)
    passes = []
    with patch.object(LoraLinear, 'forward', lambda *_: passes.append(1)), torch.no_grad():
        model.loss(PICTURES, [sample(turns) for turns in LINES])
    assert not passes


@pytest.mark.parametrize('conv, shape', [
    (nn.Conv2d(3, 8, 14, 14), (5, 3, 14, 14)),
    (nn.Conv3d(3, 8, (2, 14, 14), (2, 14, 14), bias=False), (5, 3, 2, 14, 14)),
    (nn.Conv3d(3, 8, (1, 14, 14), (1, 14, 14)), (5, 3, 1, 14, 14)),
    (nn.Conv2d(3, 8, 14, 14), (5, 3, 28, 14)),  # two patches each
    (nn.Conv2d(4, 8, 3, 3, padding=1), (5, 4, 3, 3)),
    (nn.Conv2d(4, 8, 3, 3, dilation=2), (5, 4, 5, 5)),
    (nn.Conv2d(4, 8, 3, 3, groups=2), (5, 4, 3, 3)),
    (nn.Conv2d(4, 8, 3, 1), (5, 4, 3, 3)),
])
def test_a_patch_is_a_row(conv, shape):
    conv = conv.double()
    patches = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = []
    for on in (False, True):
        if on:
            installed(PatchesAsRows, conv)
        output = conv(patches)
        found.append([output, *torch.autograd.grad(output.square().sum(),
                                                   [patches, *conv.parameters()])])
    for theirs, ours in zip(*found):
        torch.testing.assert_close(ours, theirs)
