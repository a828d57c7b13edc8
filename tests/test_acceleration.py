"""Measures: what is refused, what is said, each by itself, and all beside transformers' own."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_acceleration_packing import LINES
from test_models_decoding import FORMS
from test_models_families import PICTURES, PROMPTS, QWEN, SEEDS, of_family
from test_models_simpleseg import build, sample

from simpleseg_mm import acceleration
from simpleseg_mm.acceleration import compiled, fused_rotations
from simpleseg_mm.acceleration.measure import ForwardMeasure, Measure, allowed, difference
from simpleseg_mm.models.sampling import Sampling, draw, uniforms
from simpleseg_mm.registry import MEASURES, MODELS

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ['nano', 'qwen2_5_vl', *QWEN, 'kimi_vl']
LORA = dict(r=4, target_modules=['q_proj', 'down_proj'])


def model_of(family: str, **options):
    if family == 'nano':
        return MODELS.build(dict(type='SimpleSeg', mllm=dict(
            type='QwenVL', pretrained='simpleseg_mm://nano', **options)))
    model = of_family(family, **options)
    with torch.no_grad():  # at the initial scale every token looks like every other
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Measures for a GPU apply; their steps run uncompiled, and passes are not recorded."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(compiled.CompiledMeasure, 'obstacle', ForwardMeasure.obstacle)
    monkeypatch.setattr(compiled, '_as_they_are', True)


@pytest.fixture
def own(monkeypatch):
    """Registers measures for one test: a name, and what makes it another than ``Own``."""
    def register(name: str, **more) -> type:
        cls = type(name, (Own, ), more)
        monkeypatch.setitem(MEASURES.module_dict, name, cls)
        return cls
    return register


class Own(Measure):
    """Changes nothing."""

    def obstacle(self, network):
        return None

    def install(self, network):
        pass

    def remove(self, network):
        pass


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('wanted, message', [
    ('all', "acceleration='all': give 'auto', or a list of names, of which there are attention"),
    ('packed_rows', "acceleration='packed_rows': give 'auto'"),
    (None, "acceleration=None: give 'auto'"), (True, "acceleration=True: give 'auto'"),
    (dict(attention=True), "give 'auto'"), ([1], r"acceleration=\[1\]: give 'auto'"),
    (['attention', 'packing'], 'there is no packing. There are attention, segments'),
    (['packed_rows'], 'packed_rows needs attention. Name it as well'),
    (['patch_layout', 'attention', 'packed_rows'], 'patch_layout needs shared_pictures'),
])
def test_refused_before_anything_is_read(wanted, message):
    with pytest.raises(ValueError, match=message) as error:
        build('nano', pretrained='no/such folder', acceleration=wanted)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('family, options, message', [
    ('kimi_vl', dict(acceleration=['attention', 'packed_rows']), 'not known to suit KimiVL'),
    ('qwen2_5_vl', dict(acceleration=['attention'], attn_implementation='eager'),
     "attention does not apply: attn_implementation='eager'"),
    ('qwen2_5_vl', dict(acceleration=['lora_in_place']), 'lora_in_place .*: there is no LoRA'),
    ('qwen3_5', dict(acceleration=['ragged_cache']), 'a token cannot be taken back'),
    ('qwen2_5_vl', dict(acceleration=['fused_norms']), 'fused_norms .*a GPU, and there is none'),
])
def test_what_does_not_apply_is_refused_by_name(family, options, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match=message) as error:
        of_family(family, **options)
    assert '\n' not in str(error.value) and "set acceleration='auto'" in str(error.value)
    assert of_family(family, **{**options, 'acceleration': 'auto'})


def test_kernels_need_a_compiler(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('shutil.which', lambda name: None)
    off = of_family('qwen2_5_vl', acceleration='auto').mllm.acceleration.off
    assert {off[name] for name in ('fused_norms', 'fused_gates', 'fused_rotations')} == {
        'kernels are compiled by a C compiler, and there is none; install gcc'}


@pytest.mark.parametrize('says', ['one', 'other'])  # whichever of the two knows it
def test_measures_that_exclude_each_other(own, says):
    for name, excludes in dict(one=('other', ), other=('one', )).items():
        own(name, excludes=excludes if name == says else ())
    for wanted in (['one', 'other'], ['other', 'one']):
        with pytest.raises(ValueError, match='one and other exclude|other and one exclude'):
            build(acceleration=wanted)
    found = build(acceleration='auto').mllm.acceleration
    assert 'one' in found.on and found.off['other'] == 'one is on'
    found.remove('one')
    assert found.install('other') is None and found.install('one') == 'other is on'


def test_an_order_or_a_name_twice_changes_nothing():
    found = build(acceleration=('packed_rows', 'attention', 'attention')).mllm.acceleration
    assert list(found.on) == ['attention', 'packed_rows']


# --- what is said -----------------------------------------------------------------------------
@pytest.mark.parametrize('wanted, on, off', [
    ('auto', 'attention, segments, patches_as_rows, shared_pictures, packed_rows',
     r'lora_in_place \(there is no LoRA\); .*fused_norms \(.*there is none\)'),
    ([], 'none', 'all else'), (['segments'], 'segments', 'all else')])
def test_one_line_says_what_is_on_and_what_is_off(wanted, on, off, monkeypatch):
    lines = []
    monkeypatch.setattr(acceleration, 'print_log', lambda line, logger: lines.append(line))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    found = build(acceleration=wanted).mllm.acceleration
    line, = lines
    assert line.startswith(f'acceleration: on: {on}')
    assert re.search(f'; off: {off}', line) and '\n' not in line
    assert found.on.keys() | found.off.keys() == set(acceleration.names())
    assert not found.on.keys() & found.off.keys()


# --- a measure that is wrong ------------------------------------------------------------------
class Wrong(Own):
    """Changes every norm."""

    def install(self, network):
        for norm in self.norms(network):
            norm.forward = lambda states, norm=norm: self.change(type(norm).forward(norm, states))

    def remove(self, network):
        for norm in self.norms(network):
            norm.__dict__.pop('forward', None)

    @staticmethod
    def norms(network):
        return [m for m in network.hf.modules() if 'Norm' in type(m).__name__]

    def change(self, states):
        return states * 1.01


def failing(*_):
    raise KeyError('a name\nthat is gone')


@pytest.mark.parametrize('change, reason', [
    (lambda self, states: states * 1.01, 'differs from the plain path by 0.0'),
    (lambda self, states: states * float('nan'), 'differs from the plain path by inf'),
    (lambda self, states: states[..., :-1], 'Error: '), (failing, "KeyError: 'a name"),
    (lambda self, states: states * (1 + 1e-7), None)])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_a_measure_that_changes_numbers_is_off_with_its_reason(own, change, reason, dtype):
    own('wrong', **{**vars(Wrong), 'change': change, '__dict__': None})
    found = build(dtype=dtype).mllm
    if reason is None and dtype == 'float64':
        reason = 'differs from the plain path by'
    if reason is None:
        assert 'wrong' in found.acceleration.on
    else:
        assert reason in found.acceleration.off['wrong']
        assert '\n' not in found.acceleration.off['wrong']
        assert not any('forward' in norm.__dict__ for norm in Wrong.norms(found))
        with pytest.raises(ValueError, match='wrong does not apply'):
            build(dtype=dtype, acceleration=['wrong'])


@pytest.mark.parametrize('part', ['obstacle', 'install', 'deviation'])
def test_whatever_a_measure_raises_is_its_reason(own, part):
    own('wrong', **{part: failing})
    found = build().mllm.acceleration
    assert found.off['wrong'] == "KeyError: 'a name\\nthat is gone'" and found.on


def test_a_deviation_of_its_own_counts(own):
    own('wrong', deviation=lambda self, network: .5)
    assert 'by 0.5 of its largest' in build().mllm.acceleration.off['wrong']


# --- each by itself ---------------------------------------------------------------------------
def closure(name: str) -> list[str]:
    """A measure after all that it needs."""
    needed = [other for need in MEASURES.get(name).needs for other in closure(need)]
    return [*dict.fromkeys(needed), name]


def state_of(network) -> list:
    """All that a measure may change."""
    hf = network.hf
    return [
        [(name, module.__dict__.get('forward'), module.training, type(module),
          getattr(module, 'gradient_checkpointing', None), list(module._forward_hooks.values()),
          list(module._forward_pre_hooks.values()),
          getattr(getattr(module, 'config', None), '_attn_implementation', None))
         for name, module in hf.named_modules()],
        [(name, p.requires_grad, p.grad) for name, p in hf.named_parameters()],
        list(network.layouts), network.run_model, list(network.caches), network.shares_images,
        {name: value for name, value in vars(sys.modules[type(hf).__module__]).items()
         if name.startswith('apply_')}, dict(fused_rotations._REPLACED)]


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.usefixtures('as_on_a_gpu', 'one_thread')
def test_each_measure_alone_is_near_and_leaves_nothing_behind(family):
    model = model_of(family, lora=LORA, acceleration=[])
    network, found = model.mllm, model.mllm.acceleration
    batch = PICTURES, [sample(turns) for turns in LINES]
    before, weights = state_of(network), {k: v.clone() for k, v in network.state_dict().items()}
    plain = model.loss(*batch)['loss']
    applied = set()
    for name in acceleration.FILES:
        reasons = [found.install(other) for other in closure(name)]
        if reasons[-1] is None:
            applied.add(name)
            measure = found.on[name]
            assert measure.deviation(network) <= allowed(torch.float32)
            assert difference(model.loss(*batch)['loss'], plain) <= allowed(torch.float32)
            assert state_of(network) != before, name
        for other in reversed(closure(name)):
            found.remove(other)
        assert state_of(network) == before, name
        assert torch.equal(model.loss(*batch)['loss'], plain), name
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name]), name
    expected = set(acceleration.FILES)
    if 'qwen3_5' in family or family == 'kimi_vl':
        expected -= {'packed_rows', 'patch_layout', 'shared_prompts', 'recorded_passes',
                     'fused_norms'}
    if 'qwen3_5' in family:
        expected -= {'ragged_cache'}
    if family == 'kimi_vl':
        expected -= {'fused_gates', 'fused_rotations'}
    if family == 'qwen3_vl_moe':
        expected -= {'recorded_passes'}  # tokens are routed to experts
    if 'moe' in family:
        expected -= {'fused_gates'} - applied  # of experts that are no modules
    assert applied == expected


def test_all_that_is_off_within_is_on_again():
    network = build(lora=LORA).mllm
    names, before = list(network.acceleration.on), state_of(network)
    with network.acceleration.removed():
        assert not network.acceleration.on and not network.layouts and not network.caches
        assert network.run_model == network._run_model and not network.shares_images
        assert not any('forward' in module.__dict__ for module in network.hf.modules())
    assert list(network.acceleration.on) == names
    after = state_of(network)
    assert [[entry[0] for entry in part] for part in after[:1]] == [
        [entry[0] for entry in part] for part in before[:1]]
    assert len(after[2]) == len(before[2]) and len(after[4]) == len(before[4])


def test_building_draws_no_random_number():
    for wanted in ('auto', []):
        torch.manual_seed(3)
        build(acceleration=wanted, lora=LORA)
        torch.manual_seed(3)
        torch.rand(1)
    drawn = []
    for wanted in ('auto', []):
        model = build(acceleration=wanted, lora=dict(LORA, lora_dropout=.5))  # seeds with 0
        drawn.append((torch.rand(3), model.state_dict()))
    assert torch.equal(drawn[0][0], drawn[1][0])
    for name, value in drawn[0][1].items():
        assert torch.equal(value, drawn[1][1][name]), name


def test_lora_is_tried_with_numbers_in_b(monkeypatch):
    """It begins at 0, where any scale would be right."""
    from simpleseg_mm.acceleration import lora_in_place
    usual = lora_in_place._plain_adapter
    monkeypatch.setattr(lora_in_place, '_plain_adapter', lambda layer: (
        lambda down, up, scale: (down, up, 2 * scale))(*usual(layer)))
    found = build(lora=LORA).mllm
    assert 'differs from the plain path' in found.acceleration.off['lora_in_place']
    assert all((p == 0).all() for name, p in found.named_parameters() if 'lora_B' in name)


# --- beside transformers ----------------------------------------------------------------------
@pytest.fixture(scope='module', params=FAMILIES)
def pair(request):
    """The same network with all that applies, and as transformers has it."""
    quick, plain = (model_of(request.param, acceleration=wanted) for wanted in ('auto', []))
    assert len(quick.mllm.acceleration.on) >= 4 and not plain.mllm.acceleration.on
    return quick, plain


TURNS = [[(prompt, [40, 41, 42, 50 + row, 2])] for row, prompt in enumerate(PROMPTS)]


def test_losses_and_log_probs_are_transformers_own(pair):
    quick, plain = pair
    hf, encoder = plain.mllm.hf, plain.mllm.encoder
    batch = encoder.encode(PICTURES, TURNS)
    with torch.no_grad():
        theirs = hf(**batch)
        samples = [sample(turns) for turns in TURNS]
        assert float(plain.loss(PICTURES, samples)['loss']) == pytest.approx(
            float(theirs.loss), abs=1e-5)
        logps, _, mask = plain.log_probs(PICTURES, TURNS)
        expected = theirs.logits.float().log_softmax(-1)[:, :-1].gather(
            2, batch['input_ids'][:, 1:, None]).squeeze(2)
        torch.testing.assert_close(logps[mask], expected[mask], rtol=1e-5, atol=1e-5)
        assert mask.sum() == sum(len(turns[0][1]) for turns in TURNS)
        torch.testing.assert_close(quick.loss(PICTURES, samples)['loss'], theirs.loss,
                                   rtol=1e-5, atol=1e-5)
        shared, _, other_mask = quick.log_probs(PICTURES, TURNS)
        assert torch.equal(mask, other_mask)
        torch.testing.assert_close(shared[mask], logps[mask], rtol=1e-4, atol=1e-4)


def test_greedy_answers_are_transformers_own(pair):
    mllm = pair[1].mllm
    batch = pair[1]._prompted(PICTURES, PROMPTS)
    with mllm.writer.generating(), torch.no_grad():
        theirs = mllm.hf.generate(
            **batch, do_sample=False, max_new_tokens=12, eos_token_id=mllm.writer.stop_tokens,
            pad_token_id=mllm.encoder.pad_token_id, suppress_tokens=mllm.writer.banned_tokens)
    expected = [mllm.writer.read(row)
                for row in theirs[:, batch['input_ids'].shape[1]:].tolist()]
    for model in pair:
        for forms in (None, FORMS):  # with drafts
            assert model.answer(PICTURES, PROMPTS, forms, max_new_tokens=12) == expected


def test_sampled_answers_are_those_of_transformers_logits(pair):
    """Each token is where its number falls among the probabilities of a pass over the whole."""
    sampling = Sampling(12, temperature=.8, top_p=.95)
    quick, plain = (model.sample(PICTURES, PROMPTS, 4, SEEDS, sampling, FORMS) for model in pair)
    assert quick == plain
    mllm, numbers = pair[1].mllm, uniforms(SEEDS, 12)
    for row, answer in enumerate(sum(plain, [])):
        picture, prompt = PICTURES[row // 4], PROMPTS[row // 4]
        start = pair[1]._prompted([picture], [prompt])['input_ids'].shape[1]
        batch = mllm.encoder.encode([picture], [[(prompt, answer.token_ids)]])
        with mllm.writer.generating(), torch.no_grad():
            logits = mllm.hf(**batch).logits[0].float()
        logits[:, mllm.writer.banned_tokens] = -torch.inf
        count = answer.num_tokens
        chosen = draw(logits[start - 1:start - 1 + count], numbers[row, :count], sampling)
        assert chosen.tolist() == list(answer.token_ids)


@pytest.mark.parametrize('family', ['nano', 'kimi_vl'])
def test_pictures_are_repeated_where_they_cannot_be_shared(family):
    quick, plain = (model_of(family, acceleration=wanted) for wanted in ('auto', []))
    images = [PICTURES[0], PICTURES[0], PICTURES[1]]
    grids = [model.encode_answers(images, TURNS)['image_grid_thw'] for model in (quick, plain)]
    assert len(grids[0]) == 2 and len(grids[1]) == 3
    one, other = (model.log_probs(images, TURNS)[0] for model in (quick, plain))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_nothing_reads_the_measures_before_a_network_is_built():
    """What measures touch is read when a network is first built."""
    code = ('import sys, simpleseg_mm.models, simpleseg_mm.engine, simpleseg_mm.analysis\n'
            'names = [n for n in sys.modules if n.startswith("simpleseg_mm.acceleration.")]\n'
            'assert {n.rpartition(".")[2] for n in names} <= {"measure", "compiled"}, names')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


# --- all of the model's tests on the plain path -----------------------------------------------
@pytest.mark.slow
def test_the_model_suite_passes_on_the_plain_path():
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', '--acceleration', 'none', '-p',
         'no:cacheprovider', *map(str, sorted(ROOT.glob('tests/test_models_*.py')))],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
