"""Families by their own processor (AutoVLM), on tiny random networks, against transformers."""
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from test_models_families import PICTURES, PROMPTS, SEEDS
from test_models_simpleseg import TURNS, picture, sample
from tiny_families import FAMILIES, make
from transformers import InternVLForConditionalGeneration, ProcessorMixin

from simpleseg_mm.models import QwenVL, SimpleSeg
from simpleseg_mm.models.families import AutoVLM
from simpleseg_mm.models.resources import packaged
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.polygon import AnswerAutomaton
from simpleseg_mm.registry import FAMILIES as FAMILIES_THAT_ARE

pytestmark = pytest.mark.usefixtures('one_thread')
NEEDS = dict(smolvlm='num2words')
RINGS = AnswerAutomaton.of('int100', 'rings')


def folder_of(name: str, tmp_path_factory) -> str:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return make(name, tmp_path_factory.mktemp(name))


def auto(folder, **options) -> SimpleSeg:
    """A network of a folder, with random weights."""
    torch.manual_seed(0)
    model = SimpleSeg(dict(type='AutoVLM', pretrained=str(folder), init='random') | options)
    with torch.no_grad():  # at the initial scale every token looks like every other
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and 'lora_' not in name and 'embed_tokens' not in name:
                parameter.mul_(4)
    return model


@pytest.fixture(scope='module', params=list(FAMILIES))
def folder(request, tmp_path_factory):
    return folder_of(request.param, tmp_path_factory)


@pytest.fixture(scope='module')
def model(folder):
    return auto(folder)


def official(model: SimpleSeg, image: torch.Tensor, prompt: str) -> dict:
    """What the snippet of a model card gives."""
    messages = [dict(role='user', content=[
        dict(type='image', image=Image.fromarray(image.permute(1, 2, 0).numpy())),
        dict(type='text', text=prompt)])]
    processor = model.mllm.family.processor
    return ProcessorMixin.apply_chat_template(  # SmolVLM's own looks for the part for videos
        processor, messages, add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors='pt')


# --- what is read -----------------------------------------------------------------------------
@pytest.mark.parametrize('size', [(112, 84), (56, 140), (30, 30)])
def test_ids_and_pixels_are_those_of_the_official_snippet(model, size):
    image = picture(*size)
    given = model.mllm.encoder.encode([image], [[('Where is the star?', None)]],
                                      for_generation=True)
    wanted = official(model, image, 'Where is the star?')
    assert set(given) <= {*wanted, 'token_type_ids', 'mm_token_type_ids'}
    for key in given:
        if key in wanted:
            assert torch.equal(given[key], wanted[key]), key


def test_every_weight_belongs_to_a_part(model):
    parts = [model.mllm.part_of(name) for name, _ in model.mllm.hf.named_parameters()]
    assert set(parts) == {'vision', 'projector', 'llm'}


def test_labels_are_the_answers_and_their_end_tokens(model):
    encoder = model.mllm.encoder
    labels = encoder.encode(PICTURES[:1], [TURNS])['labels']
    assert encoder.tokenizer.decode(labels[labels != -100]) == ''.join(
        answer + encoder.frame.end for _, answer in TURNS)


def test_loss_is_transformers_own(model):
    batch = model.mllm.encoder.encode(PICTURES, [TURNS, TURNS[:1], TURNS])
    expected = model.mllm.hf(**batch).loss
    loss = model.loss(PICTURES, [sample(turns) for turns in (TURNS, TURNS[:1], TURNS)])['loss']
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    assert not [name for name, p in model.named_parameters()
                if p.requires_grad and p.grad is None]
    model.zero_grad()


def test_log_probabilities_are_transformers_own_and_a_group_repeats_its_picture(model):
    order = [2, 0, 0, 1, 2]
    pictures = [PICTURES[i] for i in order]
    turns = [[(PROMPTS[i], [40, 41, 42 + row])] for row, i in enumerate(order)]
    batch = model.mllm.encoder.encode(pictures, turns)
    logits = model.mllm.hf(**batch).logits[:, :-1].float()
    wanted = logits.log_softmax(-1).gather(2, batch['input_ids'][:, 1:, None]).squeeze(2)
    found, _, mask = model.log_probs(pictures, turns)
    assert mask.sum() == 15
    torch.testing.assert_close(found[mask], wanted[mask], rtol=1e-5, atol=1e-5)


def test_a_picture_s_token_is_not_written_and_all_of_them_are_banned(model):
    banned = set(model.mllm.writer.banned_tokens)
    tokenizer = model.mllm.encoder.tokenizer
    batch = model.mllm.encoder.encode(PICTURES[:1], [[('a', None)]], for_generation=True)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    markup = {i for i in special & set(batch['input_ids'][0].tolist())
              if 'im' in tokenizer.decode([i]).lower() and '|im_' not in tokenizer.decode([i])}
    assert markup and markup <= banned
    assert not banned & set(model.mllm.writer.stop_tokens)


# --- what is written --------------------------------------------------------------------------
def test_greedy_answers_are_those_of_generate(model):
    together = model.answer(PICTURES, PROMPTS, max_new_tokens=8)
    alone = [model.answer([p], [q], max_new_tokens=8)[0] for p, q in zip(PICTURES, PROMPTS)]
    assert together == alone
    writer = model.mllm.writer
    for image, prompt, answer in zip(PICTURES, PROMPTS, together):
        batch = {key: value for key, value in official(model, image, prompt).items()
                 if key not in ('num_patches', 'num_crops')}
        model.eval()
        ids = model.mllm.hf.generate(
            **batch, max_new_tokens=8, do_sample=False, suppress_tokens=writer.banned_tokens,
            eos_token_id=writer.stop_tokens, pad_token_id=writer.encoder.pad_token_id)
        model.train()
        assert tuple(ids[0, batch['input_ids'].shape[1]:].tolist()) == answer.token_ids
    assert len({answer.token_ids for answer in together}) > 1


def test_what_transformers_writes_instead_of_us(model):
    beams = model.answer(PICTURES, PROMPTS, max_new_tokens=4, num_beams=2)
    assert len(beams) == 3 and all(answer.num_tokens <= 4 for answer in beams)


def test_samples_depend_on_their_seed_alone(model):
    together = model.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(8))
    alone = [model.sample([p], [q], 4, SEEDS[4 * i:4 * i + 4], Sampling(8))[0]
             for i, (p, q) in enumerate(zip(PICTURES, PROMPTS))]
    assert together == alone
    assert len({answer.token_ids for group in together for answer in group}) == 12
    likeliest = model.sample(PICTURES, PROMPTS, 1, SEEDS[:3], Sampling(8, top_k=1))
    assert [group[0].token_ids for group in likeliest] == [
        answer.token_ids for answer in model.answer(PICTURES, PROMPTS, max_new_tokens=8)]


def test_log_probabilities_of_a_sample_are_those_of_training(model):
    groups = model.sample(PICTURES, PROMPTS, 2, SEEDS[:6], Sampling(6))
    answers = [answer for group in groups for answer in group]
    pictures = [p for p in PICTURES for _ in range(2)]
    prompts = [p for p in PROMPTS for _ in range(2)]
    model.eval()
    logps, _, mask = model.log_probs(pictures, [
        [(prompt, list(answer.token_ids))] for prompt, answer in zip(prompts, answers)])
    model.train()
    for answer, row, real in zip(answers, logps, mask):
        torch.testing.assert_close(row[real].tolist(), list(answer.token_logps), rtol=1e-3,
                                   atol=1e-3)


def test_drafts_and_constraints(model):
    forms = [RINGS] * 3
    free = model.answer(PICTURES, PROMPTS, max_new_tokens=24, draft=False)
    assert model.answer(PICTURES, PROMPTS, forms, max_new_tokens=24) == free
    held = model.answer(PICTURES, PROMPTS, forms, max_new_tokens=24, constrain=True)
    assert held == model.answer(PICTURES, PROMPTS, forms, max_new_tokens=24, constrain=True,
                                draft=False)
    assert all(answer.text.startswith('[') and answer.text.endswith(']') for answer in held)


# --- measures ---------------------------------------------------------------------------------
def test_measures_change_no_number(model, folder):
    plain = auto(folder, acceleration=[])
    assert not plain.mllm.acceleration.on
    plain.load_state_dict(model.state_dict())
    turns = [sample(TURNS), sample(TURNS[:1])]
    torch.testing.assert_close(model.loss(PICTURES[:2], turns)['loss'],
                               plain.loss(PICTURES[:2], turns)['loss'], rtol=1e-5, atol=1e-5)
    for draws in (lambda m: m.answer(PICTURES, PROMPTS, max_new_tokens=8),
                  lambda m: m.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(6))):
        assert draws(model) == draws(plain)


#: what is on by itself on a CPU
ROWS = {'attention', 'packed_rows', 'ragged_cache', 'shared_prompts'}
ON = dict(gemma3={'attention'}, internvl=ROWS | {'patches_as_rows'},
          glm4v=ROWS | {'patches_as_rows', 'segments'})


def test_which_measures_are_on(model, folder, pytestconfig):
    if pytestconfig.getoption('--acceleration') == 'none':
        pytest.skip('none is on')
    name = next(name for name in FAMILIES if Path(folder).name.startswith(name))
    acceleration = model.mllm.acceleration
    assert set(acceleration.on) == ON.get(name, ROWS)
    if name == 'gemma3':
        assert 'layers of sliding_attention' in acceleration.off['packed_rows']
        assert 'cannot be taken back' in acceleration.off['ragged_cache']
    assert 'not known to suit AutoVLM' in acceleration.off['shared_pictures']


def test_rows_of_a_window_are_not_packed(tmp_path):
    folder = make('internvl', tmp_path)
    change(folder, 'config.json', text_config=dict(
        read(folder, 'config.json')['text_config'], model_type='mistral', sliding_window=8,
        layer_types=None))
    model = auto(folder, acceleration='auto')
    assert 'window' in model.mllm.acceleration.off['packed_rows']
    batch = model.mllm.encoder.encode(PICTURES[:2], [TURNS] * 2)
    torch.testing.assert_close(model.loss(PICTURES[:2], [sample(TURNS)] * 2)['loss'],
                               model.mllm.hf(**batch).loss, rtol=1e-5, atol=1e-5)


# --- what is trained --------------------------------------------------------------------------
@pytest.mark.parametrize('name, idle', [
    ('gemma3', 'vision_tower.head'), ('llava_onevision', 'post_layernorm'), ('internvl', None)])
def test_weights_that_take_no_part_are_not_trained_and_named(name, idle, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger, 'callHandlers', lambda self, record: said.append(
        record.getMessage()))
    MMLogger.get_current_instance()
    model = auto(make(name, tmp_path))
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert not any(p.any() for p in model.parameters() if not p.requires_grad)  # another draws too
    assert all(idle and idle in n for n in frozen) and bool(frozen) == bool(idle)
    told = [text for text in said if 'take no part' in text]
    assert len(told) == bool(idle) and (not idle or idle in told[0])


LORA = dict(r=4, lora_alpha=8, target_modules=r'.*(q_proj|down_proj|fc1)')


@pytest.mark.parametrize('name', ['internvl', 'gemma3', 'glm4v'])
def test_lora_and_recomputed_layers(name, tmp_path):
    folder = make(name, tmp_path)
    plain = auto(folder, lora=LORA, train_with_lora=['projector'])
    again = auto(folder, lora=LORA, train_with_lora=['projector'], gradient_checkpointing=True)
    losses = []
    for model in (plain, again):
        with torch.no_grad():
            for n, p in model.named_parameters():
                if 'lora_B' in n:
                    p.fill_(0.01)
        losses.append(model.loss(PICTURES[:2], [sample(TURNS)] * 2)['loss'])
        losses[-1].backward()
        assert not [n for n, p in model.named_parameters() if p.requires_grad == (p.grad is None)]
    assert torch.equal(*losses)
    for (n, a), b in zip(plain.named_parameters(), again.parameters()):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=n)


def test_the_language_model_alone_is_quantized(tmp_path):
    pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed')
    folder = make('internvl', tmp_path)
    auto(folder).mllm.hf.save_pretrained(folder)
    options = dict(type='AutoVLM', pretrained=folder, train_with_lora=['projector'],
                   lora=dict(LORA, target_modules=r'.*language_model.*\.(q_proj|down_proj)'))
    whole = SimpleSeg(dict(options))
    few = SimpleSeg(dict(options, quantization=dict(load_in_4bit=True,
                                                    bnb_4bit_quant_type='nf4')))
    names = {n for n, p in few.mllm.hf.named_parameters() if p.dtype == torch.uint8}
    assert len(names) == 2 * 7
    assert {few.mllm.part_of(n.replace('.base_layer', '')) for n in names} == {'llm'}
    losses = [m.loss(PICTURES[:1], [sample(TURNS)])['loss'] for m in (whole, few)]
    assert losses[0] != losses[1]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.2)
    losses[1].backward()
    trained = {n for n, p in few.mllm.hf.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in few.mllm.hf.named_parameters() if p.requires_grad}
    assert all('lora_' in n or 'multi_modal_projector' in n for n in trained)


# --- Qwen-VL, which has a family of its own ----------------------------------------------------
PARTS = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{%
if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif
%}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # as Qwen2.5-VL's own; nano's takes plain text alone


@pytest.mark.parametrize('template', [None, PARTS])
def test_qwen_by_its_processor_is_the_family_written_by_hand(template, tmp_path):
    folder = 'simpleseg_mm://nano_sft'
    if template:
        folder = shutil.copytree(packaged('nano_sft'), tmp_path / 'qwen')
        (folder / 'chat_template.jinja').write_text(template)
    one, two = (SimpleSeg(dict(type=kind, pretrained=str(folder)))
                for kind in ('AutoVLM', 'QwenVL'))
    assert isinstance(one.mllm.family, AutoVLM) and isinstance(two.mllm.family, QwenVL)
    assert one.mllm.family.banned_tokens == two.mllm.family.banned_tokens
    for options in (dict(), dict(for_generation=True)):
        first, second = (m.mllm.encoder.encode(PICTURES, [TURNS] * 3, **options)
                         for m in (one, two))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    forms = [RINGS] * 3
    assert one.answer(PICTURES, PROMPTS, forms, max_new_tokens=30) == two.answer(
        PICTURES, PROMPTS, forms, max_new_tokens=30)
    assert one.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(20)) == two.sample(
        PICTURES, PROMPTS, 4, SEEDS, Sampling(20))


# --- a family by hand, as docs/own_mllm.md writes it --------------------------------------------
@pytest.fixture
def by_hand():
    """The class of the page, registered."""
    page = Path(__file__).parents[1].joinpath('docs/own_mllm.md').read_text()
    code = re.search(r'`my_mllm.py`:\n\n```python\n(.*?)```', page, re.S)[1]
    assert len(code.splitlines()) < 80
    with_it = dict(FAMILIES_THAT_ARE.module_dict)
    exec(code, dict(__name__='my_mllm'))
    yield
    FAMILIES_THAT_ARE.module_dict.clear()
    FAMILIES_THAT_ARE.module_dict.update(with_it)


def test_the_page_s_family_is_the_processor_s_and_its_export_is_read(by_hand, tmp_path):
    folder = make('internvl', tmp_path / 'internvl')
    one, two = auto(folder, type='InternVL'), auto(folder)
    assert set(one.mllm.family.banned_tokens) <= set(two.mllm.family.banned_tokens)
    for options in (dict(), dict(for_generation=True)):
        first, second = (m.mllm.encoder.encode(PICTURES, [TURNS] * 3, **options)
                         for m in (one, two))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert one.answer(PICTURES, PROMPTS, max_new_tokens=8) == two.answer(
        PICTURES, PROMPTS, max_new_tokens=8)
    one.mllm.hf.save_pretrained(tmp_path / 'out')
    one.mllm.family.save(tmp_path / 'out')
    again = SimpleSeg(dict(type='AutoVLM', pretrained=str(tmp_path / 'out')))
    assert again.answer(PICTURES, PROMPTS, max_new_tokens=8) == two.answer(
        PICTURES, PROMPTS, max_new_tokens=8)


# --- what is refused --------------------------------------------------------------------------
def read(folder, name) -> dict:
    return json.loads(Path(folder, name).read_text())


def change(folder, name, **keys) -> None:
    content = {**read(folder, name), **keys}
    Path(folder, name).write_text(json.dumps(
        {key: value for key, value in content.items() if value is not None}))


#: what is wrong with a folder, what is done to it, the line
WRONG = [
    ('unknown family', dict(type='NoSuch'), {}, "mllm.type='NoSuch'.*AutoVLM.*own_mllm.md"),
    ('pixels', dict(max_pixels=1000), {}, 'max_pixels: each processor.*preprocessor_config.json'),
    ('an attention that is not installed', dict(attn_implementation='flash_attention_2'), {},
     'internvl cannot be built: .*[Ff]lash'),
    ('a measure that does not apply', dict(acceleration=['shared_pictures']), {},
     'shared_pictures does not apply: not known to suit AutoVLM'),
    ('no template', {}, {'chat_template.jinja': None}, 'no chat template: add'),
    ('other number of tokens', {}, {'processor_config.json': dict(image_seq_length=5)},
     'does not read what its processor writes.*image_seq_length'),
    ('the network makes other features', {}, {'config.json': dict(image_seq_length=4,
                                                                  downsample_ratio=0.25)},
     'does not read what its processor writes|cannot be loaded|image_seq_length'),
    ('a language model', {}, {'config.json': dict(model_type='qwen2')},
     'qwen2: transformers knows no network of this type that reads pictures'),
    ('no such type', {}, {'config.json': dict(model_type='internvl9')}, 'internvl9'),
    ('no token of a picture', {}, {'tokenizer_config.json': dict(
        context_image_token='<nothing>',
        extra_special_tokens=dict(start_image_token='<img>', end_image_token='</img>',
                                  context_image_token='<nothing>', video_token='<video>'))},
     'does not read what its processor writes'),
    ('a broken template', {}, {'chat_template.jinja': '{% if %}'}, 'chat template'),
]


@pytest.mark.parametrize('options, files, message', [w[1:] for w in WRONG],
                         ids=[w[0] for w in WRONG])
def test_one_line_says_what_does_not_fit(options, files, message, tmp_path):
    folder = make('internvl', tmp_path)
    for name, content in files.items():
        if isinstance(content, dict):
            change(folder, name, **content)
        elif content is None:
            Path(folder, name).unlink()
        else:
            Path(folder, name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        auto(folder, **options)
    assert '\n' not in str(caught.value)


def test_a_text_model_and_one_without_conversations_are_refused(tmp_path):
    folder = make('gemma3', tmp_path)
    config = read(folder, 'config.json')
    text = {key: config['text_config'][key] for key in (
        'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size')}
    Path(folder, 'config.json').write_text(json.dumps(dict(
        model_type='paligemma', image_token_index=1029, hidden_size=32, projection_dim=32,
        text_config=dict(text, model_type='gemma', head_dim=8, num_key_value_heads=2,
                         intermediate_size=64),
        vision_config=dict(config['vision_config'], projection_dim=32))))
    change(folder, 'processor_config.json', processor_class='PaliGemmaProcessor')
    change(folder, 'preprocessor_config.json', image_processor_type='SiglipImageProcessor',
           image_seq_length=16, processor_class='PaliGemmaProcessor')
    Path(folder, 'chat_template.jinja').unlink()
    with pytest.raises(ValueError, match='no chat template.*PaliGemma'):
        auto(folder)


@pytest.mark.parametrize('changed', [
    lambda logits: 0.5 * (logits / 0.5).tanh(), lambda logits: logits + torch.linspace(
        -1, 1, logits.shape[-1]), lambda logits: logits * 0.25], ids=['cap', 'bias', 'scale'])
def test_logits_that_are_changed_behind_the_head(changed, tmp_path, monkeypatch):
    plain = InternVLForConditionalGeneration.forward

    def forward(self, *args, **options):
        output = plain(self, *args, **options)
        output.logits = changed(output.logits)
        return output

    monkeypatch.setattr(InternVLForConditionalGeneration, 'forward', forward)
    with pytest.raises(ValueError, match='changes its logits behind the head'):
        auto(make('internvl', tmp_path))


@pytest.mark.parametrize('merges', ['a blank before', 'joins'])
def test_a_tokenizer_that_changes_what_stands_beside_markup(merges, tmp_path):
    folder = make('internvl', tmp_path)
    tokenizer = read(folder, 'tokenizer.json')
    if merges == 'joins':  # the prompt's first word is one token with what stands before it
        joined = dict(id=1090, content='\na', special=False, single_word=False, lstrip=False,
                      rstrip=False, normalized=False)
        tokenizer['added_tokens'].append(joined)
    else:
        tokenizer['normalizer'] = dict(type='Prepend', prepend='_')
    Path(folder, 'tokenizer.json').write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match='the tokens of a prompt are not those of the chat'):
        auto(folder)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr('transformers.models.smolvlm.processing_smolvlm.num2words', None)
    with pytest.raises(ValueError, match='needs a package.*num2words') as caught:
        auto(make('smolvlm', tmp_path))
    assert '\n' not in str(caught.value)
