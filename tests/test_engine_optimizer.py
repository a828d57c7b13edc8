"""MuonAdamW against torch's own optimizers; MuonConstructor on small models."""
import copy
import io

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from simpleseg_mm.engine import MuonAdamW, MuonConstructor, orthogonalize
from simpleseg_mm.engine.optimizers import constructor as constructor_module
from simpleseg_mm.engine.optimizers import muon as muon_module

SHAPES = [(8, 8), (16, 8), (8, 16), (24, 8), (16, 8), (8, 8), (8, 24), (1, 8), (8, 1)]


def parameters(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def set_grads(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def run(optimizer, params, steps, start=0):
    for seed in range(start, start + steps):
        set_grads(params, seed)
        optimizer.step()


# --- malformed input ------------------------------------------------------------------------
@pytest.mark.parametrize('kwargs', [
    dict(lr=-1.), dict(momentum=1.), dict(weight_decay=-0.1), dict(betas=(0.9, 1.)), dict(eps=-1.),
    dict(lr=float('nan')), dict(ns_dtype='float16')])
def test_bad_settings_are_refused(kwargs):
    with pytest.raises(ValueError):
        MuonAdamW(parameters([(2, 2)]), **kwargs)


@pytest.mark.parametrize('shape', [(4,), (2, 3, 4, 5), ()])
def test_muon_takes_matrices_only(shape):
    with pytest.raises(ValueError, match='matrices'):
        MuonAdamW([dict(params=parameters([shape]), muon=True)])


# --- Muon -----------------------------------------------------------------------------------
@pytest.mark.parametrize('nesterov', [True, False])
@pytest.mark.parametrize('ns_dtype, tolerance', [('bfloat16', 1e-6), ('float32', 0.02)])
def test_muon_equals_torch(nesterov, ns_dtype, tolerance):
    ours, theirs, start = (parameters(SHAPES) for _ in range(3))
    kwargs = dict(lr=0.01, weight_decay=0.1, momentum=0.9, nesterov=nesterov)
    run(MuonAdamW([dict(params=ours, muon=True)], ns_dtype=ns_dtype, **kwargs), ours, 4)
    run(torch.optim.Muon(theirs, adjust_lr_fn='match_rms_adamw', **kwargs), theirs, 4)
    for a, b, c in zip(ours, theirs, start):
        assert (a - b).norm() <= tolerance * (b - c).norm(), a.shape


def test_stacking_does_not_change_the_update(monkeypatch):
    one, many = parameters(SHAPES), parameters(SHAPES)
    run(MuonAdamW([dict(params=many, muon=True)], ns_dtype='float32'), many, 2)
    monkeypatch.setattr(muon_module, '_MAX_STACK', 1)
    run(MuonAdamW([dict(params=one, muon=True)], ns_dtype='float32'), one, 2)
    for a, b in zip(one, many):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shape', [(5, 8, 12), (5, 12, 8), (3, 8, 8), (1, 8, 1)])
def test_a_stack_of_experts_is_updated_expert_by_expert(shape, dtype, monkeypatch):
    monkeypatch.setattr(muon_module, '_MAX_STACK', 2 * shape[1] * shape[2])  # 2 experts a product
    stack, = parameters([shape], dtype)
    experts = [nn.Parameter(m.clone()) for m in stack.detach()]
    options = dict(lr=0.01, ns_dtype='float32')
    together = MuonAdamW([dict(params=[stack], muon=True)], **options)
    apart = MuonAdamW([dict(params=experts, muon=True)], **options)
    for seed in range(4):
        set_grads([stack], seed)
        stack.grad[0] *= 1e-3  # a rarely chosen expert moves as far as the others
        for expert, grad in zip(experts, stack.grad):
            expert.grad = grad.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(stack, torch.stack(tuple(experts)), rtol=0, atol=1e-6)
    key = 'low_bits' if dtype == torch.bfloat16 else 'momentum_buffer'
    assert together.state[stack][key].shape == shape


@pytest.mark.parametrize('shape', [(32, 32), (16, 64), (64, 16)])
def test_update_has_the_rms_of_adamw(shape):
    param, = parameters([shape])
    before = param.detach().clone()
    run(MuonAdamW([dict(params=[param], muon=True)], lr=1e-3, weight_decay=0), [param], 1)
    rms = (param - before).pow(2).mean().sqrt() / 1e-3
    assert 0.15 < rms < 0.25  # Moonlight: 0.2


def test_orthogonalize():
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    matrices[1] *= 1e-4
    matrices[2] = 0
    result = orthogonalize(matrices)
    singular = torch.linalg.svdvals(result)
    assert singular[:2].min() > 0.6 and singular[:2].max() < 1.3
    assert not result[2].any()


# --- AdamW ----------------------------------------------------------------------------------
@pytest.mark.parametrize('fused', [True, False])
def test_adamw_equals_torch_exactly(fused):
    ours, theirs = parameters([(5,), (3, 4), ()]), parameters([(5,), (3, 4), ()])
    kwargs = dict(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6, fused=fused)
    run(MuonAdamW(ours, **kwargs), ours, 5)
    run(torch.optim.AdamW(theirs, **kwargs), theirs, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_parameters_without_gradient_are_left_alone():
    params = parameters([(4, 4), (4, 4), (4,), (4,)])
    before = [p.detach().clone() for p in params]
    optimizer = MuonAdamW([dict(params=params[:2], muon=True), dict(params=params[2:])])
    set_grads(params, 0)
    params[1].grad = params[3].grad = None
    optimizer.step()
    assert [torch.equal(a, b) for a, b in zip(params, before)] == [False, True, False, True]


# --- bfloat16 parameters --------------------------------------------------------------------
def test_master_is_kept_bit_for_bit():
    values = torch.randint(-2**31, 2**31, (100000,), generator=torch.Generator().manual_seed(0))
    values = values.int().view(torch.float32)
    values = torch.cat([values[values.abs() < 3e38], torch.tensor([0., -0., 1e-45, -1e-45, 1.])])
    param, low = torch.empty_like(values, dtype=torch.bfloat16), values.to(torch.int16)
    muon_module.store_master(values, param, low)
    assert torch.equal(muon_module.load_master(param, low).view(torch.int32),
                       values.view(torch.int32))
    ours, nearest = [(v.double() - values.double()).abs() for v in (param, values.bfloat16())]
    assert (ours <= nearest).all()


@pytest.mark.parametrize('is_muon', [True, False])
def test_small_updates_of_bfloat16_are_not_lost(is_muon):
    half, full = parameters([(8, 16)], torch.bfloat16), parameters([(8, 16)], torch.bfloat16)
    full = [nn.Parameter(p.detach().float()) for p in full]
    start = full[0].detach().clone()
    optimizers = []
    for params in (half, full):
        optimizer = MuonAdamW([dict(params=params, muon=is_muon)], lr=2e-5, weight_decay=0)
        optimizers.append(optimizer)
        for _ in range(100):
            for p in params:
                p.grad = torch.ones_like(p) + torch.eye(8, 16).to(p.dtype)
            optimizer.step()
    moved = (full[0] - start).norm()
    master = muon_module.load_master(half[0], optimizers[0].state[half[0]]['low_bits'])
    assert (master - full[0]).norm() < 0.02 * moved
    assert torch.equal(half[0], master.bfloat16())
    assert 'low_bits' not in optimizers[1].state[full[0]]


@pytest.mark.parametrize('fused', [True, False])
def test_a_part_of_bfloat16_at_a_time_changes_nothing(fused, monkeypatch):
    found = []
    for most in (1 << 24, 20):
        monkeypatch.setattr(muon_module, '_MAX_STACK', most)
        params = parameters([(8, 16), (7, 3), (25, ), (2, 3, 4), (), (0, 4)], torch.bfloat16)
        optimizer = MuonAdamW(params, lr=0.1, fused=fused)
        run(optimizer, params, 3)
        states = [dict(optimizer.state[p]) for p in params]
        found.append([dict(state, master=muon_module.load_master(p, state.pop('low_bits')))
                      for p, state in zip(params, states)])
    for whole, parts in zip(*found):
        assert int(parts['step']) == 3
        # a CPU's fused kernel rounds the last few values of a tensor otherwise
        torch.testing.assert_close(parts, whole, rtol=1e-6 if fused else 0, atol=0)


# --- state ----------------------------------------------------------------------------------
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_state_round_trip_is_exact(dtype):
    def build(params):
        return MuonAdamW([dict(params=params[:3], muon=True), dict(params=params[3:], lr=0.1)],
                         lr=0.01)
    params = parameters([(4, 4), (4, 8), (2, 8, 4), (5,), (3, 4)], dtype)
    optimizer = build(params)
    run(optimizer, params, 3)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    run(optimizer, params, 3, start=3)  # a state that shared memory would change now

    buffer.seek(0)
    restored = build(copies)
    restored.load_state_dict(torch.load(buffer))
    run(restored, copies, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(params, copies))
    for p, q in zip(params, copies):
        for key, value in optimizer.state[p].items():
            assert value.dtype == restored.state[q][key].dtype
            assert torch.equal(value, restored.state[q][key]), key


def test_accumulation_in_optim_wrapper_equals_one_batch():
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for counts in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
        wrapper = MuonConstructor(
            dict(type='OptimWrapper', optimizer=dict(type='MuonAdamW', lr=0.1),
                 accumulative_counts=counts, clip_grad=dict(max_norm=0.1)))(model)
        for _ in range(3):
            for chunk in x.chunk(counts):
                with wrapper.optim_context(model):
                    loss = model(chunk).pow(2).mean()
                wrapper.update_params(loss)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


# --- the constructor ------------------------------------------------------------------------
class Toy(nn.Module):
    """Names and kinds of parameters as in a multimodal LLM."""

    def __init__(self):
        super().__init__()
        self.visual = nn.ModuleDict(dict(
            patch_embed=nn.Conv3d(3, 8, (2, 2, 2)), blocks=nn.Linear(8, 8), norm=nn.LayerNorm(8)))
        self.embed_tokens = nn.Embedding(10, 8)
        self.layers = nn.Linear(8, 16, bias=True)
        self.lora_A = nn.Linear(8, 2, bias=False)
        self.lm_head = nn.Linear(8, 10, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.experts = nn.ParameterDict(dict(down_proj=torch.zeros(3, 8, 4)))
        self.positions = nn.Parameter(torch.zeros(4, 4, 8))
        self.conv = nn.Conv1d(4, 4, 3, bias=False)


def build(model, paramwise=None, **optimizer):
    wrapper_cfg = dict(type='OptimWrapper', optimizer=dict(type='MuonAdamW', lr=1., **optimizer))
    return MuonConstructor(wrapper_cfg, paramwise)(model)


def by_name(model, wrapper):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: group for group in wrapper.optimizer.param_groups
            for p in group['params']}


def test_constructor_splits_by_kind():
    model = Toy()
    wrapper = build(model, weight_decay=0.5)
    assert isinstance(wrapper, OptimWrapper)
    groups = by_name(model, wrapper)
    assert {n for n, g in groups.items() if g['muon']} == {
        'visual.blocks.weight', 'layers.weight', 'experts.down_proj'}
    assert {n for n, g in groups.items() if not g['weight_decay']} == {
        'visual.patch_embed.bias', 'visual.blocks.bias', 'visual.norm.weight', 'visual.norm.bias',
        'layers.bias'}
    assert set(groups) == {n for n, p in model.named_parameters() if p.requires_grad}
    # a tied parameter counts once
    assert sum(len(g['params']) for g in wrapper.optimizer.param_groups) == len(groups)


def test_constructor_multipliers_take_the_longest_key():
    model = Toy()
    groups = by_name(model, build(model, dict(custom_keys={
        'visual': dict(lr_mult=0.1), 'visual.norm': dict(lr_mult=0.5, decay_mult=3.)})))
    assert groups['visual.blocks.weight']['lr'] == pytest.approx(0.1)
    assert groups['visual.norm.weight']['lr'] == 0.5
    assert groups['visual.norm.weight']['weight_decay'] == 0
    assert groups['layers.weight']['lr'] == 1


@pytest.mark.parametrize('paramwise, expected', [(None, False), (dict(lora='muon'), True)])
def test_constructor_lora(paramwise, expected):
    model = Toy()
    assert by_name(model, build(model, paramwise))['lora_A.weight']['muon'] is expected


def test_constructor_finds_a_head_tied_under_another_name():
    model = nn.Module()
    model.out = nn.Linear(4, 6, bias=False)
    model.words = nn.Embedding(6, 4)
    model.out.weight = model.words.weight
    assert not by_name(model, build(model))['out.weight']['muon']


def test_constructor_serves_other_optimizers():
    model = Toy()
    wrapper = MuonConstructor(dict(optimizer=dict(type='AdamW', lr=1e-3)))(model)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    assert not any('muon' in group for group in wrapper.optimizer.param_groups)


@pytest.mark.parametrize('wrapper, optimizer, dtype, warned', [
    ('OptimWrapper', 'AdamW', torch.bfloat16, True),
    ('OptimWrapper', 'SGD', torch.bfloat16, True),
    ('OptimWrapper', 'AdamW', torch.float32, False),
    ('OptimWrapper', 'MuonAdamW', torch.bfloat16, False),
])
def test_who_loses_updates_of_bfloat16_is_told(wrapper, optimizer, dtype, warned, monkeypatch):
    logged = []
    monkeypatch.setattr(constructor_module, 'print_log',
                        lambda text, *_, **__: logged.append(text))
    MuonConstructor(dict(type=wrapper, optimizer=dict(type=optimizer, lr=1e-6)))(Toy().to(dtype))
    assert ("Take type='MuonAdamW'" in ''.join(logged)) == warned


@pytest.mark.parametrize('wrapper_cfg, paramwise, match', [
    (dict(type='OptimWrapper'), None, 'optimizer'),
    (dict(optimizer=dict(type='MuonAdamW')), dict(norm_decay_mult=0.), 'norm_decay_mult'),
    (dict(optimizer=dict(type='MuonAdamW')), dict(lora='adam'), 'lora'),
    (dict(optimizer=dict(type='MuonAdamW')), dict(custom_keys=dict(a=dict(lr=1))), 'lr_mult'),
    (dict(optimizer=dict(type='NoSuchOptimizer')), None, 'NoSuchOptimizer')])
def test_constructor_refuses(wrapper_cfg, paramwise, match):
    with pytest.raises(ValueError, match=match):
        MuonConstructor(copy.deepcopy(wrapper_cfg), paramwise)(Toy())


def test_constructor_needs_something_to_train():
    with pytest.raises(ValueError, match='trainable'):
        build(Toy().requires_grad_(False))
