"""Engines of others, without them: what they are given, what they give back, how they fail."""
import runpy
import socket

import pytest
import torch
from engine_standin import ROOT
from safetensors.torch import load_file
from test_models_simpleseg import build, picture
from transformers import AutoConfig, AutoTokenizer
from vllm_standin import StandIn, serving

from simpleseg_mm.engines.base import check_version, number_of
from simpleseg_mm.engines.vllm_server import PACKS, VLLMServers
from simpleseg_mm.engines.weights import folder_weights, write_folder
from simpleseg_mm.models.sampling import Sampling

LORA = dict(r=4, lora_alpha=8,
            target_modules=r'.*language_model.*\.(q_proj|down_proj)|.*visual.*qkv')
PROMPTS = ['Where is the star?', 'the <|image_pad|> of a “ring”']


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.fixture(scope='module')
def images():
    return [picture(112, 84), picture(100, 231, seed=1)]


# --- weights ----------------------------------------------------------------------------------
@pytest.mark.parametrize('lora', [None, LORA], ids=['whole', 'lora'])
def test_weights_are_those_of_the_exported_folder(lora, tmp_path):
    """By name and value, with adapters folded in; the model that is trained stays bit for bit."""
    model = build(lora=lora, train_with_lora=['projector'] if lora else ())
    for name, p in model.named_parameters():
        p.data += 0.02 * torch.randn_like(p)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = folder_weights(model.mllm)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    own = {p.data_ptr() for p in model.parameters()}
    changed = {name for name, weight in found.items() if weight.data_ptr() not in own}
    assert bool(changed) == bool(lora) and all(
        name.endswith(('q_proj.weight', 'down_proj.weight', 'qkv.weight', 'q_proj.bias',
                       'down_proj.bias', 'qkv.bias')) for name in changed)

    tool = runpy.run_path(str(ROOT / 'tools/model_converters/to_huggingface.py'))
    assert tool['merge_lora'](model.mllm.hf) == (12 if lora else 0)
    model.mllm.hf.save_pretrained(tmp_path)
    expected = load_file(tmp_path / 'model.safetensors')
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_weights_of_few_bits_or_of_zero_3_are_refused(model, monkeypatch):
    parameter = next(model.mllm.hf.parameters())
    parameter.ds_id = 0
    try:
        with pytest.raises(ValueError, match='ZeRO-3.*fsdp.py.*InProcessRollout'):
            folder_weights(model.mllm)
    finally:
        del parameter.ds_id
    monkeypatch.setattr(model.mllm.hf, 'hf_quantizer', object(), raising=False)
    with pytest.raises(ValueError, match='model.mllm.quantization.*leave it out'):
        folder_weights(model.mllm)


def test_folder_without_weights(model, tmp_path):
    write_folder(model.mllm, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.architectures == ['Qwen2_5_VLForConditionalGeneration']
    assert config.to_dict()['vision_config'] == model.mllm.hf.config.to_dict()['vision_config']
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == model.mllm.encoder.tokenizer.get_vocab()
    assert not list(tmp_path.glob('*.safetensors'))


# --- what is read -----------------------------------------------------------------------------
@pytest.mark.parametrize('height, width', [(112, 84), (100, 231), (7, 500), (481, 640), (28, 28)])
def test_a_picture_of_our_processor_s_size_stays_as_it_is(model, height, width):
    """So another processor, which resizes otherwise, has the same pixels."""
    family, image = model.mllm.family, picture(height, width)
    resized = family.resized(image)
    assert resized.dtype == torch.uint8
    first, second = (family.read_pictures([one])[0] for one in (image, resized))
    assert torch.equal(first['image_grid_thw'], second['image_grid_thw'])
    assert torch.equal(first['pixel_values'], second['pixel_values'])


def test_prompts_have_one_placeholder(model, images):
    """Put as many there as the picture takes, and it is what the training forward reads. What
    spells a special token in a prompt stays text."""
    encoder, image = model.mllm.encoder, model.mllm.family.image_token_id
    batch = encoder.encode(images, [[(prompt, None)] for prompt in PROMPTS], for_generation=True)
    for prompt, ids, mask in zip(PROMPTS, batch['input_ids'], batch['attention_mask']):
        short, read = encoder.unexpanded_ids(prompt), ids[mask.bool()].tolist()
        at, = [i for i, token in enumerate(short) if token == image]
        count = read.count(image)
        assert count > 1 and short[:at] + [image] * count + short[at + 1:] == read


def test_seeds_are_numbers_of_their_own():
    seeds = [(0, i, p, g) for i in range(20) for p in range(20) for g in range(20)]
    numbers = [number_of(seed) for seed in seeds]
    assert len(set(numbers)) == len(seeds) and min(numbers) >= 0 and max(numbers) < 2**63
    assert number_of([0, 1, 2, 3]) == number_of((0, 1, 2, 3)) == numbers[20 * 20 + 2 * 20 + 3]


@pytest.mark.parametrize('version, fits', [
    ('0.32.0', True), ('0.32.0+cpu', True), ('0.32.7.dev3+g1234', True), ('0.31.9', False),
    ('0.33.0', False), ('1.0', False), ('0.4.2', False), ('main', False)])
def test_releases_of_vllm(version, fits):
    if fits:
        return check_version(version, 'here')
    with pytest.raises(ValueError, match=rf'vLLM {version} here: .*>=0.32, <0.33'):
        check_version(version, 'here')


# --- servers ----------------------------------------------------------------------------------
def engine_of(model, url, folder, **options):
    return VLLMServers(model, [url] if isinstance(url, str) else url, str(folder), **options)


@pytest.fixture
def standin(model):
    tokens = model.mllm.encoder.ids_of_text('[[[1,2],[30,4],[5,60]]]')
    tokens.append(model.mllm.writer.stop_tokens[-1])

    def make(**options):
        return StandIn(model.mllm.family.image_token_id, tokens, **options)
    return make


def test_a_server_is_asked_for_what_the_config_says(model, images, standin, tmp_path):
    first, second = standin(), standin()
    seeds = [(7, 0, p, g) for p in range(2) for g in range(3)]
    with serving(first) as one, serving(second) as two:
        servers = engine_of(model, [one, f'{two}/'], tmp_path)
        groups = servers.write(images, PROMPTS, 3, Sampling(20, .7, .9, 5), seeds)
    for server in (first, second):
        assert server.weights[0].keys() == folder_weights(model.mllm).keys()
        assert server.paths.count('/reset_prefix_cache') == server.paths.count(
            '/reset_mm_cache') == server.paths.count('/reset_encoder_cache') == 1
    assert not list(tmp_path.iterdir())  # weights that all have read
    for prompt, server in zip(PROMPTS, (first, second)):  # a group stays together
        assert len(server.asked) == 3
        assert {tuple(asked['token_ids']) for asked in server.asked} == {
            tuple(model.mllm.encoder.unexpanded_ids(prompt))}
    asked = [asked['sampling_params'] for server in (first, second) for asked in server.asked]
    assert sorted(params['seed'] for params in asked) == sorted(map(number_of, seeds))
    for params in asked:
        assert params['logit_bias'] == {str(i): -100 for i in model.mllm.writer.banned_tokens}
        assert params['stop_token_ids'] == model.mllm.writer.stop_tokens
        assert [params[key] for key in ('max_tokens', 'temperature', 'top_p', 'top_k',
                                        'logprobs')] == [20, .7, .9, 5, 0]
    for group in groups:
        assert len(group) == 3
        for answer in group:
            assert answer.text == '[[[1,2],[30,4],[5,60]]]' and answer.finished
            assert answer.token_ids == tuple(first.text)
            assert answer.token_logps == (-0.5, ) * len(first.text)


def test_greedy_by_a_server_with_a_grammar(model, images, standin, tmp_path):
    server = standin()
    with serving(server) as url:
        engine_of(model, url, tmp_path).write(images[:1], PROMPTS[:1], max_new_tokens=9,
                                              structured=[dict(regex='[0-9]+')])
    params, = [asked['sampling_params'] for asked in server.asked]
    assert params['temperature'] == 0 and 'seed' not in params and params['max_tokens'] == 9
    assert params['structured_outputs'] == dict(regex='[0-9]+')


def test_weights_are_taken_each_time(model, standin, tmp_path):
    server = standin()
    with serving(server) as url:
        servers = engine_of(model, url, tmp_path)
        first = server.weight_version
        name, parameter = next(iter(model.mllm.hf.named_parameters()))
        before = parameter.detach().clone()
        parameter.data += 1
        servers.load_weights(model)
        parameter.data.copy_(before)
    assert server.weight_version not in (first, 'default')
    old, new = server.weights
    assert {key for key in old if not torch.equal(old[key], new[key])} == {
        key for key in old if torch.equal(new[key], before + 1)} != set()


def test_a_server_on_a_cpu_packs_its_head_again(model, standin, tmp_path):
    server = standin(device='cpu', worker_extension_cls=PACKS)
    with serving(server) as url:
        engine_of(model, url, tmp_path).load_weights(model)
    assert server.packed == len(server.weights) == 2


@pytest.mark.parametrize('fault, error, match', [
    ('plain', ValueError, 'does not take new weights.*404.*VLLM_SERVER_DEV_MODE=1'),
    ('403', ValueError, 'takes no token ids.*answered 403.*--enable-scale-out'),
    ('html', ConnectionError, 'answered no JSON.*Welcome to nginx.*is it a server of vLLM'),
    ('busy', ValueError, 'writing answers for somebody else'),
    ('500', ConnectionError, 'answered 500: .*out of cache'),
    ('429', ConnectionError, 'answered 429: .*out of cache'),
    ('stale', ConnectionError, r"wrote with weights \['default'\] instead of \w+: .*--resume"),
    ('resized', ValueError, 'picture takes 11 tokens in the engine and 12 in training'),
    ('changed', ValueError, r'token \d+ is .*the engine has changed the ids'),
    ('aborted', ConnectionError, 'without what is needed.*ended by abort'),
    ('unscored', ConnectionError, 'without what is needed.*logprobs'),
    ('dies', ConnectionError, 'does not answer.*nothing of this rollout.*--resume'),
])
def test_servers_that_fail(model, images, standin, tmp_path, fault, error, match):
    with serving(standin(fault=fault, until=2)) as url:
        with pytest.raises(error, match=match) as told:
            engine_of(model, url, tmp_path).write(
                images[:1] * 2, PROMPTS[:1] * 2, 4, Sampling(), [(i, ) for i in range(8)])
    assert '\n' not in str(told.value) and url in str(told.value) or error is ValueError


@pytest.mark.parametrize('options, error, match', [
    (dict(version='0.31.0'), ValueError, 'vLLM 0.31.0 serves http'),
    (dict(logprobs_mode='processed_logprobs'), ValueError,
     '--logprobs-mode processed_logprobs, and the rollout needs raw_logprobs'),
    (dict(device='cpu'), ValueError,
     f'old copy of a head .*: start it with --worker-extension-cls {PACKS}'),
    (dict(max_model_len=30), ValueError, 'takes .* tokens with its picture.*max_model_len'),
])
def test_servers_that_cannot_be_used(model, images, standin, tmp_path, options, error, match):
    with serving(standin(**options)) as url, pytest.raises(error, match=match):
        engine_of(model, url, tmp_path).write(images, PROMPTS, 1, Sampling(16), [(0, ), (1, )])


def test_no_server(model, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{free.getsockname()[1]}'
    with pytest.raises(ConnectionError, match=f'{url} does not answer .*refused.*vllm serve'):
        VLLMServers(model, [url], str(tmp_path))


def test_a_server_that_is_too_slow(model, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = f'http://127.0.0.1:{silent.getsockname()[1]}'
        with pytest.raises(ConnectionError, match='does not answer .*timed out'):
            VLLMServers(model, [url], str(tmp_path), timeout=0.2)


def test_answers_and_seeds_must_be_as_many(model, images, standin, tmp_path):
    with serving(standin()) as url:
        servers = engine_of(model, url, tmp_path)
        with pytest.raises(ValueError, match='1 seeds for 4 answers'):
            servers.write(images, PROMPTS, 2, Sampling(), [(0, )])


def test_a_run_that_is_asked_to_stop_gives_the_rest_up(model, images, standin, tmp_path,
                                                       monkeypatch):
    from simpleseg_mm import stopping
    with serving(standin()) as url:
        servers = engine_of(model, url, tmp_path)
        monkeypatch.setattr(stopping, 'asked', lambda: 15)
        answers = servers.write(images, PROMPTS, 2, Sampling(), [(i, ) for i in range(4)])
    assert [len(group) for group in answers] == [2, 2]
    assert all(answer.finished or answer.token_ids == () for group in answers
               for answer in group)
