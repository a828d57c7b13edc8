"""The nano-sized Kimi-VL: what is trained of a mixture of experts, its tokens, its true shape."""
import importlib.util
from pathlib import Path

import pytest
import torch
from test_models_simpleseg import TURNS, build, picture, sample
from transformers import AutoTokenizer

from simpleseg_mm.engine import MuonConstructor
from simpleseg_mm.models.resources import packaged
from simpleseg_mm.polygon import Grammar, count_tokens, parse_answer

BIAS = 'e_score_correction_bias'
LORA = dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*\.(q|kv_b|o|gate|up|down)_proj',
            target_parameters=['mlp.gate.weight', 'mlp.experts.gate_up_proj',
                               'mlp.experts.down_proj'])
PICTURES = [picture(112, 84), picture(56, 56, 1)]
SAMPLES = [sample(TURNS), sample(TURNS[:1])]


def with_bias(model):
    """Balance biases that change which experts are chosen, as in released weights."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith(BIAS):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return model


def gradients(model):
    model.loss(PICTURES, SAMPLES)['loss'].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['nano_random', 'nano_kimi_random'])
def test_a_tokenizer_without_chat_template(name, tmp_path):
    family = 'nano_kimi' if 'kimi' in name else 'nano'
    for file in packaged(family).glob('*.json'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=f'{tmp_path} has no chat template: add'):
        build(name, processor=str(tmp_path))


@pytest.mark.parametrize('name, other, token', [
    ('nano_random', 'nano_kimi', 'image_pad'), ('nano_kimi_random', 'nano', 'media_pad')])
def test_a_tokenizer_of_another_family(name, other, token):
    with pytest.raises(ValueError, match=f'no token .*{token}.*another `processor`'):
        build(name, processor=f'simpleseg_mm://{other}')


# --- training ---------------------------------------------------------------------------------
def test_full_training_reaches_router_and_experts_with_checkpointing():
    plain, checkpointed = (gradients(with_bias(build('nano_kimi_random',
                                                     gradient_checkpointing=flag)))
                           for flag in (False, True))
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(checkpointed[name], grad, rtol=1e-4, atol=1e-6)
    routed = [name for name in plain if '.mlp.gate.weight' in name or '.experts.' in name]
    assert len(routed) == 3 * 3 and all(plain[name].abs().sum() > 0 for name in routed)


def test_the_balance_bias_is_kept_and_muon_takes_the_experts():
    model = with_bias(build('nano_kimi_random'))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = MuonConstructor(dict(optimizer=dict(type='MuonAdamW', lr=1e-3)))(model)
    names = {id(p): name for name, p in model.named_parameters()}
    muon = {names[id(p)] for group in wrapper.optimizer.param_groups if group['muon']
            for p in group['params']}
    assert {name for name in muon if 'layers.1.mlp' in name and 'language' in name} == {
        f'mllm.hf.model.language_model.layers.1.mlp.{part}' for part in (
            'gate.weight', 'experts.gate_up_proj', 'experts.down_proj',
            *(f'shared_experts.{p}_proj.weight' for p in ('gate', 'up', 'down')))}
    assert not [name for name in muon if 'embed' in name or 'norm' in name or 'bias' in name]
    losses = []
    for _ in range(3):
        losses.append(model.loss(PICTURES, SAMPLES)['loss'])
        wrapper.update_params(losses[-1])
    assert losses[-1] < losses[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.endswith(BIAS), name


def test_lora_on_attention_router_and_experts():
    model = with_bias(build('nano_kimi_random', lora=LORA, train_with_lora=['projector'],
                            gradient_checkpointing=True))
    with torch.no_grad():  # B starts at 0
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(std=0.05)
    found = gradients(model)
    assert all('lora_' in name or 'mm_projector' in name for name in found)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in found.values())
    for part in ('mlp.gate.lora_A', 'mlp.experts.lora_A', 'mlp.experts.base_layer.lora_A'):
        assert sum(part in name for name in found) == 3
    assert sum(name.endswith(BIAS) for name in model.state_dict()) == 3

    path = Path(__file__).resolve().parent.parent / 'tools/model_converters/to_huggingface.py'
    spec = importlib.util.spec_from_file_location('to_huggingface', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    loss = model.loss(PICTURES, SAMPLES)['loss']
    tool.merge_lora(model.mllm.hf)
    assert model.state_dict().keys() == build('nano_kimi_random').state_dict().keys()
    torch.testing.assert_close(model.loss(PICTURES, SAMPLES)['loss'], loss, rtol=1e-5, atol=1e-5)


# --- tokens -----------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['int1000', 'int100', 'decimal3', 'fixed3'])
def test_several_digits_in_a_token_change_nothing_but_the_count(name):
    """A grammar's text comes back from tokens of several digits, and labels end where it ends."""
    adapter = build('nano_kimi_random').mllm
    grammar = Grammar.from_name(name)
    text = dict(int1000='[[[123,999],[45,6],[1000,70]],[[1,2],[3,4],[5,60]]]',
                int100='[[[12,99],[45,6],[100,70]]]', decimal3='[[[0.123, 0.999], [0.5, 1.0]]]',
                fixed3='[[[0.123, 0.999], [0.500, 1.000], [0.010, 0.200]]]')[name]
    ids = adapter.encoder.ids_of_text(text)
    longest = max(len(token) for token in adapter.encoder.tokenizer.convert_ids_to_tokens(ids)
                  if token.isdigit())
    assert longest >= 2 and len(ids) < count_tokens(text)  # Qwen's rule: a digit a token
    read = adapter.writer.read([*ids, adapter.encoder.tokenizer.eos_token_id])
    assert (read.text, read.num_tokens, read.finished) == (text, len(ids) + 1, True)
    batch = adapter.encoder.encode([picture(56, 56)], [[('q 12', text)]])
    assert batch['labels'][batch['labels'] != -100].tolist() == list(read.token_ids)
    assert parse_answer(read.text, grammar).kind == parse_answer(text, grammar).kind == 'rings'


def test_the_two_tokenizers_of_nano_know_the_same_words():
    kimi, qwen = (AutoTokenizer.from_pretrained(packaged(name)) for name in ('nano_kimi', 'nano'))
    sentence = 'Output the polygon coordinates of the little red star on the left in the image.'
    assert kimi.tokenize(sentence) == qwen.tokenize(sentence)


# --- the true shape ---------------------------------------------------------------------------
def test_sixteen_billion_parameters_on_the_meta_device():
    """Published, rounded: Kimi-VL-A3B 16.4 B; Moonlight-16B-A3B without embeddings 15.29 B, of
    which 2.24 B are active. The exact numbers of the release were not at hand."""
    with torch.device('meta'):
        adapter = build('kimi_vl_random').mllm
    counts = dict(vision=0, projector=0, llm=0)
    for name, parameter in adapter.hf.named_parameters():
        counts[adapter.part_of(name)] += parameter.numel()
    assert counts == dict(vision=416_866_032, projector=30_679_808, llm=15_960_108_544)
    assert round(sum(counts.values()) / 1e9, 1) == 16.4
    text = counts['llm'] - 2 * 163840 * 2048
    idle = 26 * (64 - 6) * 3 * 2048 * 1408
    assert (round(text / 1e9, 2), round((text - idle) / 1e9, 2)) == (15.29, 2.24)
