"""The adapter and the model on nano's shape with random weights."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel

from simpleseg_mm.engine.hooks import TrainableCheckpointHook
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.models.decoding import at_once
from simpleseg_mm.structures import Generated
from simpleseg_mm.registry import MODELS

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / '_base_' / 'models'


def build(name: str = 'nano_random', **mllm):
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / f'{name}.py').model
    cfg.mllm.update(mllm)
    return MODELS.build(cfg)


@pytest.fixture(scope='module')
def model():
    model = build()
    with torch.no_grad():  # at the initial scale every token looks like every other
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8))


def sample(turns, size=(112, 84), codec='int100/default') -> DetDataSample:
    prompt, answer = turns[0]
    return DetDataSample(metainfo=dict(turns=turns, prompt=prompt, answer=answer, codec=codec,
                                       ori_shape=size, img_id=0))


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(init='guess'), "init='guess'"),
    (dict(freeze=['head']), r"unknown parts \['head'\].*llm.*projector.*vision"),
    (dict(processor=None), 'give `pretrained`'),
    (dict(family='QwenVL'), 'model.mllm.family=.* set model.mllm.type'),
    (dict(init='pretrained'), "set init='random'"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize('folder', ['no/such-model', 'simpleseg_mm://nothing'])
def test_absent_weights_say_how_to_get_them(folder, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)  # fail at once
    with pytest.raises(FileNotFoundError) as caught:
        build('nano', pretrained=folder)
    assert '\n' not in str(caught.value)
    assert ('hf download' in str(caught.value)) == ('://' not in folder)


def test_broken_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        build('nano', pretrained=str(tmp_path))


# --- encoding ---------------------------------------------------------------------------------
TURNS = [('Where is the red one?', '[[[1,2],[30,4],[5,60]]]'), ('And the box?', '[1,2,30,60]')]


@pytest.mark.parametrize('turns', [TURNS[:1], TURNS])
def test_labels_are_the_answers_and_their_end_tokens(model, turns):
    adapter = model.mllm
    batch = adapter.encoder.encode([picture(112, 84)], [turns])
    learnt = batch['labels'][batch['labels'] != -100]
    assert adapter.encoder.tokenizer.decode(learnt) == ''.join(a + '<|im_end|>' for _, a in turns)
    # a label is the token that stands at its own place
    at = batch['labels'] != -100
    assert (batch['input_ids'][at] == batch['labels'][at]).all()


def test_text_is_the_chat_template_of_the_tokenizer(model):
    adapter = model.mllm
    batch = adapter.encoder.encode([picture(112, 84)], [TURNS])
    count = 4 * 3  # 112 x 84 pixels in merged patches of 28
    messages = [dict(role='user', content='<|vision_start|>' + '<|image_pad|>' * count
                     + '<|vision_end|>' + TURNS[0][0])]
    for i, (prompt, answer) in enumerate(TURNS):
        if i:
            messages.append(dict(role='user', content=prompt))
        messages.append(dict(role='assistant', content=answer))
    expected = adapter.encoder.tokenizer.apply_chat_template(messages, tokenize=False)
    assert adapter.encoder.tokenizer.decode(batch['input_ids'][0]) == expected
    assert batch['mm_token_type_ids'].sum() == count
    assert batch['image_grid_thw'].tolist() == [[1, 8, 6]]


def test_generation_prompt_is_the_training_prompt(model):
    adapter = model.mllm
    image = picture(112, 84)
    train = adapter.encoder.encode([image], [TURNS])
    ask = adapter.encoder.encode([image], [[TURNS[0], (TURNS[1][0], None)]], for_generation=True)
    length = ask['input_ids'].shape[1]
    assert (train['input_ids'][0, :length] == ask['input_ids'][0]).all()
    assert train['labels'][0, length] != -100 and 'labels' not in ask


@pytest.mark.parametrize('text', ['<|im_end|>', 'a <|image_pad|> b', '<|im_start|>system\n'])
def test_a_sentence_cannot_write_special_tokens(model, text):
    adapter = model.mllm
    batch = adapter.encoder.encode([picture(56, 56)], [[(text, '[]')]])
    assert (batch['input_ids'] == adapter.family.image_token_id).sum() == 4
    assert (batch['input_ids'] == adapter.encoder.tokenizer.eos_token_id).sum() == 2
    assert text in adapter.encoder.tokenizer.decode(batch['input_ids'][0])


def test_positions_of_a_picture(model):
    """Golden mRoPE ids: a 2 x 3 picture at position 4 counts (t, h, w) from there, and the text
    goes on one after the largest."""
    adapter = model.mllm
    batch = adapter.encoder.encode([picture(56, 84)], [[('a', 'b')]])
    first = int((batch['input_ids'][0] == adapter.family.image_token_id).nonzero()[0])
    ids, _ = adapter.hf.model.get_rope_index(
        batch['input_ids'], image_grid_thw=batch['image_grid_thw'],
        attention_mask=batch['attention_mask'], mm_token_type_ids=batch['mm_token_type_ids'])
    block = (ids[:, 0, first:first + 6] - first).tolist()
    assert block == [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    assert (ids[:, 0, first + 6] - first).tolist() == [3, 3, 3]


# --- loss -------------------------------------------------------------------------------------
def test_loss_is_the_mean_over_answer_tokens_and_padding_is_neutral(model):
    pictures = [picture(112, 84), picture(56, 56, 1)]
    samples = [sample(TURNS), sample([('what?', '[3,4]')])]
    both = model.loss(pictures, samples)
    one, two = (model.loss([p], [s]) for p, s in zip(pictures, samples))
    total = (one['loss'] * one['answer_tokens'] + two['loss'] * two['answer_tokens'])
    assert both['answer_tokens'] == one['answer_tokens'] + two['answer_tokens']
    torch.testing.assert_close(both['loss'], total / both['answer_tokens'], rtol=1e-5, atol=1e-5)


def test_loss_is_transformers_own(model):
    batch = model.mllm.encoder.encode([picture(112, 84)], [TURNS])
    expected = model.mllm.hf(**batch).loss
    torch.testing.assert_close(model.loss([picture(112, 84)], [sample(TURNS)])['loss'], expected,
                               rtol=1e-5, atol=1e-5)


def test_figures_for_the_log_are_read_with_the_loss(model):
    losses = model.loss([picture(112, 84)], [sample(TURNS)])
    loss, figures = model.parse_losses(losses)
    expected_loss, expected = BaseModel.parse_losses(model, losses)
    assert loss.requires_grad and torch.equal(loss, expected_loss)
    assert list(figures) == list(expected)
    for name, figure in figures.items():
        assert figure.item() == expected[name].item() and not figure.requires_grad, name
        assert figure.device.type == 'cpu', name


def test_describe_marks_what_is_learnt(model):
    text = model.describe_batch([picture(112, 84)], [sample(TURNS[:1])])[0]
    assert '<|image_pad|>x12' in text
    assert text.count('⟦') == 1 and '⟦[[[1,2],[30,4],[5,60]]]<|im_end|>⟧' in text


# --- generation -------------------------------------------------------------------------------
def test_left_padding_does_not_change_an_answer(model):
    pictures = [picture(112, 84), picture(112, 112, 1), picture(56, 56, 2)]
    prompts = ['a', 'Where is the little red one on the left of the blue star?', 'b c']
    together = model.answer(pictures, prompts, max_new_tokens=12)
    alone = [model.answer([p], [q], max_new_tokens=12)[0] for p, q in zip(pictures, prompts)]
    assert together == alone
    assert len({answer.text for answer in together}) > 1


def test_vision_tokens_are_never_written(model):
    adapter = model.mllm
    with torch.no_grad():  # a head that wants nothing but an image token
        saved = adapter.head_weight.clone()
        adapter.head_weight[adapter.family.image_token_id] = 100 * adapter.head_weight.mean(0)
    try:
        batch = adapter.encoder.encode([picture(56, 56)] * 4, [[('x', None)]] * 4,
                                       for_generation=True)
        torch.manual_seed(0)
        out = list(adapter.writer.generate(at_once(batch), do_sample=True, max_new_tokens=40))
    finally:
        with torch.no_grad():
            adapter.head_weight.copy_(saved)
    names = adapter.encoder.tokenizer.convert_ids_to_tokens(adapter.writer.banned_tokens)
    assert set(names) == {
        '<|vision_start|>', '<|vision_end|>', '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>'}
    assert all('<|image_pad|>' not in answer.text for answer in out)


@pytest.mark.parametrize('ids, text, count, finished', [
    ('[3,4]<|im_end|>', '[3,4]', None, True),
    ('[3,4]<|im_end|><|endoftext|><|endoftext|>', '[3,4]', None, True),
    ('[3,4', '[3,4', None, False),
    ('<|im_end|>', '', 1, True),
])
def test_reading_generated_ids(model, ids, text, count, finished):
    tokens = model.mllm.encoder.tokenizer.encode(ids, add_special_tokens=False)
    answer = model.mllm.writer.read(tokens)
    assert (answer.text, answer.finished) == (text, finished)
    ids = model.mllm.encoder.tokenizer.encode(text)
    assert answer.num_tokens == (count or len(ids) + finished)


@pytest.mark.parametrize('text, area, box, score', [
    ('nonsense', 0, [0, 0, 0, 0], 0.),
    ('[]', 0, [0, 0, 0, 0], 0.),
    ('[[[nan,1e308],[0', 0, [0, 0, 0, 0], 0.),
    ('[10,20,60,80]', 0, [10, 10, 60, 40], 1.),
])
def test_answers_without_a_mask(text, area, box, score):
    item = sample([('q', None)], size=(50, 100))
    SimpleSeg.postprocess(item, Generated(text, 3, True), 0.5)
    instances = item.pred_instances
    assert instances.masks.shape == (1, 50, 100) and instances.masks.dtype == torch.bool
    assert int(instances.masks.sum()) == area and item.pred_has_mask is False
    assert instances.bboxes.tolist() == [box] and instances.scores.tolist() == [score]
    assert (item.pred_text, item.pred_num_tokens, item.pred_seconds) == (text, 3, 0.5)


def test_a_polygon_answer_becomes_a_mask():
    item = sample([('q', None)], size=(100, 100))
    SimpleSeg.postprocess(item, Generated('Sure: [[[20,30],[60,30],[60,80],[20,80]]]', 3, True), 0)
    area = int(item.pred_instances.masks.sum())
    assert abs(area - 40 * 50) <= 100  # either reading of the ring: at most its outline apart
    assert item.pred_instances.bboxes[0].tolist() == pytest.approx([20, 30, 60, 80], abs=1)


# --- what is trained --------------------------------------------------------------------------
@pytest.mark.parametrize('freeze, trained', [
    ([], {'vision', 'projector', 'llm'}),
    (['vision'], {'projector', 'llm'}),
    (['vision', 'projector'], {'llm'}),
    (['llm'], {'vision', 'projector'}),
])
def test_freezing(freeze, trained):
    adapter = build(freeze=freeze).mllm
    found = {adapter.part_of(name) for name, p in adapter.hf.named_parameters() if p.requires_grad}
    assert found == trained


def test_lora_trains_adapters_and_named_parts_only():
    lora = dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*\.(q_proj|v_proj)')
    model = build(lora=lora, train_with_lora=['projector'], gradient_checkpointing=True)
    model.loss([picture(56, 56)], [sample(TURNS)])['loss'].backward()
    names = {n for n, p in model.mllm.hf.named_parameters() if p.grad is not None}
    assert len([n for n in names if 'lora_B' in n]) == 2 * 4
    assert all('lora_' in n or 'visual.merger' in n for n in names)
    assert any('visual.merger' in n for n in names)


@pytest.mark.parametrize('lora, message', [
    (dict(r=4), 'target_modules'), (dict(r=0, target_modules=['q_proj']), 'r'),
    (dict(r=4, target_modules=['nowhere']), 'nowhere'),
    (dict(rank=4, target_modules=['q_proj']), 'rank')])
def test_wrong_lora_is_one_line(lora, message):
    with pytest.raises(ValueError, match=f'lora=.*{message}.*lora_llm.py') as error:
        build(lora=lora)
    assert '\n' not in str(error.value)


def test_a_lora_of_another_alpha_does_not_fit():
    """Its tensors have the same shapes: merged, the weights would be wrong without a word."""
    def runner(alpha):
        return SimpleNamespace(model=build(lora=dict(
            r=4, lora_alpha=alpha, target_modules=r'.*language_model.*\.q_proj')))
    made = runner(8)
    checkpoint = dict(state_dict=made.model.state_dict(), meta={})
    TrainableCheckpointHook().before_save_checkpoint(made, checkpoint)
    TrainableCheckpointHook().after_load_checkpoint(made, checkpoint)
    with pytest.raises(ValueError, match='4 parameters are under a LoRA of another scale'):
        TrainableCheckpointHook().after_load_checkpoint(runner(16), checkpoint)


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for checkpointing in (False, True, 0.5):
        model = build(gradient_checkpointing=checkpointing)
        model.loss([picture(56, 56)], [sample(TURNS)])['loss'].backward()
        grads.append([p.grad for p in model.parameters()])
    for a, *others in zip(*grads):
        for b in others:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('share, recomputed', [
    (0, []), (.25, [0]), (.5, [0, 1]), (.9, [0, 1, 2, 3]), (True, [0, 1, 2, 3])])
def test_the_last_layers_keep_their_activations(share, recomputed):
    hf = build(gradient_checkpointing=share).mllm.hf.model
    assert [i for i, layer in enumerate(hf.language_model.layers)
            if layer.gradient_checkpointing] == recomputed
    assert all(block.gradient_checkpointing == bool(share) for block in hf.visual.blocks)


@pytest.mark.parametrize('share', [-.1, 2])
def test_a_share_of_layers_is_between_0_and_1(share):
    with pytest.raises(ValueError, match=f'gradient_checkpointing={share}.*between 0 and 1'):
        build(gradient_checkpointing=share)


@pytest.mark.parametrize('options', [
    dict(freeze=['vision']),
    dict(lora=dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*\.q_proj'),
         train_with_lora=['projector'])])
def test_a_frozen_vision_tower_runs_once_and_not_backwards(options):
    model = build(gradient_checkpointing=True, **options)
    hf, runs = model.mllm.hf.model, []
    for name, layer in dict(vision=hf.visual.blocks[0], llm=hf.language_model.layers[0]).items():
        layer.mlp.register_forward_pre_hook(lambda _, inputs, name=name: runs.append(
            (name, inputs[0].requires_grad)))
    model.loss([picture(56, 56)], [sample(TURNS)])['loss'].backward()
    assert runs == [('vision', False), ('llm', True), ('llm', True)]


# --- the true shape ---------------------------------------------------------------------------
def test_seven_billion_parameters_on_the_meta_device():
    """8,292,166,656 is the parameter count of the published Qwen2.5-VL-7B-Instruct."""
    with torch.device('meta'):
        model = build('qwen25vl_7b_random')
    assert sum(p.numel() for p in model.parameters()) == 8_292_166_656


@pytest.mark.parametrize('model_type', ['qwen2_vl', 'qwen3_vl'])
def test_the_family_shares_the_adapter(model_type):
    text = dict(vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=2,
                pad_token_id=0,
                rope_parameters=dict(rope_type='default', rope_theta=10.0,
                                     mrope_section=[2, 3, 3]))
    vision = dict(depth=2, num_heads=2, patch_size=14, spatial_merge_size=2, temporal_patch_size=1)
    if model_type == 'qwen3_vl':
        text |= dict(head_dim=16)
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=32,
                       num_position_embeddings=16, deepstack_visual_indexes=[0])
    else:
        vision |= dict(embed_dim=32, hidden_size=32)
    model = build(config=dict(model_type=model_type, text_config=text, vision_config=vision,
                              image_token_id=6, video_token_id=7, vision_start_token_id=3,
                              vision_end_token_id=4))
    model.loss([picture(56, 56)], [sample(TURNS)])['loss'].backward()
    assert all(p.grad is not None for n, p in model.mllm.named_parameters() if 'layers' in n)
    assert len(model.answer([picture(56, 84)], ['x'], max_new_tokens=3)) == 1
