"""Every family through one interface, on tiny random shapes: loss, log-probabilities with shared
pictures, sampling, prediction."""
import pytest
import torch
from test_models_simpleseg import TURNS, build, picture, sample

from simpleseg_mm.models.sampling import Sampling

ROPE = dict(rope_type='default', rope_theta=10.0, mrope_section=[2, 3, 3])
TEXT = dict(vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=2,
            pad_token_id=0, rope_parameters=ROPE)
VISION = dict(depth=2, num_heads=2, patch_size=14, spatial_merge_size=2, temporal_patch_size=1,
              hidden_size=32, intermediate_size=64, out_hidden_size=32,
              num_position_embeddings=16)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
DEEP = dict(deepstack_visual_indexes=[0])
LINEAR = dict(head_dim=16, layer_types=['linear_attention', 'full_attention'],
              linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
              linear_value_head_dim=8,
              rope_parameters=dict(ROPE, mrope_section=[2, 1, 1], partial_rotary_factor=0.5))
QWEN = dict(
    qwen2_vl=(TEXT, {k: v for k, v in VISION.items() if k in (
        'depth', 'num_heads', 'patch_size', 'spatial_merge_size', 'temporal_patch_size',
        'hidden_size')} | dict(embed_dim=32)),
    qwen3_vl=(TEXT | dict(head_dim=16), VISION | DEEP),
    qwen3_vl_moe=(TEXT | EXPERTS | dict(head_dim=16), VISION | DEEP),
    qwen3_5=(TEXT | LINEAR, VISION),
    qwen3_5_moe=(TEXT | LINEAR | EXPERTS | dict(shared_expert_intermediate_size=16), VISION))
PICTURES = [picture(112, 84), picture(112, 112, 1), picture(56, 56, 2)]
PROMPTS = ['a', 'Where is the little red one on the left of the blue star?', 'b c']
SEEDS = [(7, prompt, g) for prompt in range(3) for g in range(4)]


def of_family(name: str, **options):
    """A tiny network of a family with random weights."""
    if name == 'kimi_vl':
        return build('nano_kimi_random', **options)
    if name != 'qwen2_5_vl':
        text, vision = QWEN[name]
        options = dict(config=dict(
            model_type=name, text_config=text, vision_config=vision, image_token_id=6,
            video_token_id=7, vision_start_token_id=3, vision_end_token_id=4)) | options
    return build(**options)


@pytest.fixture(scope='module', params=['qwen2_5_vl', *QWEN, 'kimi_vl'])
def model(request):
    model = of_family(request.param)
    with torch.no_grad():  # at the initial scale every token looks like every other
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def test_every_weight_belongs_to_a_part(model):
    parts = {model.mllm.part_of(name) for name, _ in model.mllm.hf.named_parameters()}
    assert parts == {'vision', 'projector', 'llm'}


def test_loss_is_transformers_own_and_reaches_every_weight(model):
    batch = model.mllm.encoder.encode(PICTURES[:1], [TURNS])
    expected = model.mllm.hf(**batch).loss
    loss = model.loss(PICTURES[:1], [sample(TURNS)])['loss']
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    model.zero_grad()


def test_labels_are_the_answers_and_their_end_tokens(model):
    adapter = model.mllm
    labels = adapter.encoder.encode(PICTURES[:1], [TURNS])['labels']
    assert adapter.encoder.tokenizer.decode(labels[labels != -100]) == ''.join(
        answer + '<|im_end|>' for _, answer in TURNS)


def test_left_padding_does_not_change_an_answer(model):
    together = model.answer(PICTURES, PROMPTS, max_new_tokens=8)
    alone = [model.answer([p], [q], max_new_tokens=8)[0] for p, q in zip(PICTURES, PROMPTS)]
    assert together == alone
    assert len({answer.text for answer in together}) > 1


def test_sampling_the_likeliest_is_transformers_greedy_search(model):
    greedy = model.answer(PICTURES, PROMPTS, max_new_tokens=8)
    sampled = model.sample(PICTURES, PROMPTS, 1, SEEDS[:3], Sampling(8, top_k=1))
    assert [group[0].token_ids for group in sampled] == [answer.token_ids for answer in greedy]


def test_samples_depend_on_their_seed_alone(model, monkeypatch):
    """Neither on the prompts decoded beside them nor on answers that end earlier."""
    monkeypatch.setattr(type(model.mllm.writer), 'stop_tokens', list(range(0, 1024, 4)))
    together = model.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(8))
    alone = [model.sample([p], [q], 4, SEEDS[4 * i:4 * i + 4], Sampling(8))[0]
             for i, (p, q) in enumerate(zip(PICTURES, PROMPTS))]
    assert together == alone
    assert len({answer.num_tokens for group in together for answer in group}) > 2


def test_rows_may_share_a_picture(model):
    order = [2, 0, 0, 1, 2]
    pictures = [PICTURES[i] for i in order]
    turns = [[(PROMPTS[i], [40, 41, 42 + row])] for row, i in enumerate(order)]
    shared, _, mask = model.log_probs(pictures, turns)
    apart, _, _ = model.log_probs([p.clone() for p in pictures], turns)
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-5)
    assert mask.sum() == 15 and (shared[mask] < 0).all()


def test_prediction(model):
    samples = [sample([(prompt, None)]) for prompt in PROMPTS]
    model.generation['max_new_tokens'] = 4
    for item in model.predict(PICTURES, samples):
        assert item.pred_instances.masks.shape == (1, 112, 84)
        assert item.pred_num_tokens == 4 or item.pred_finished
