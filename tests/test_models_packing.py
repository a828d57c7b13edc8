"""Rows without padding are trained as the padded ones are."""
import pytest
import torch
import torch.nn.functional as F
from test_models_families import PICTURES, of_family
from test_models_simpleseg import TURNS, build, sample
from torch import nn

from simpleseg_mm.models.attention import packed_attention

LINES = [TURNS, [('a', '[[[1,2],[3,4],[5,6]]]')], TURNS[:1]]
FULL = ('qwen2_5_vl', 'qwen2_vl', 'qwen3_vl', 'qwen3_vl_moe')


def exact(name: str, **options):
    return of_family(name, dtype='float32' if name.endswith('moe') else 'float64', **options)


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('make, message', [
    (lambda: build(attn_implementation='eager'), "QwenVL with attn_implementation='eager' cannot"),
    (lambda: of_family('kimi_vl', packing=True), 'KimiVL .* Set packing=False'),
    (lambda: of_family('qwen3_5', packing=True),
     r"full attention in every layer.*'linear_attention'"),
])
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lengths_that_are_not_those_of_the_row():
    states = torch.zeros(1, 2, 5, 8)
    with pytest.raises(ValueError, match='4 tokens in a row of 5'):
        packed_attention(nn.Module(), states, states, states, None, lengths=[1, 3])


# --- what it computes -------------------------------------------------------------------------
@pytest.mark.parametrize('lengths', [[5], [1, 4], [2, 1, 2], [1, 1, 1, 1, 1]])
def test_attention_is_that_of_a_block_mask(lengths):
    module = nn.Module()
    module.num_key_value_groups = 2
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 5, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, 5, 8, generator=generator, dtype=torch.float64)
    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    mask = (row[:, None] == row) & torch.ones(5, 5, dtype=torch.bool).tril()
    out, _ = packed_attention(module, query, key, value, None, lengths=lengths)
    expected = F.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), mask)
    torch.testing.assert_close(out, expected.transpose(1, 2))


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('family', FULL)
def test_loss_and_gradients_are_those_of_padded_rows(family, checkpointing):
    model = exact(family, gradient_checkpointing=checkpointing)
    losses, gradients = [], []
    for model.mllm.packing in (False, True):
        out = model.loss(PICTURES, [sample(turns) for turns in LINES])
        out['loss'].backward()
        losses.append(out)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    for key, padded in losses[0].items():
        torch.testing.assert_close(losses[1][key], padded, msg=key)
    assert gradients[0].keys() == gradients[1].keys()
    for name, padded in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], padded, msg=name)


@pytest.mark.parametrize('family', FULL)
def test_log_probs_are_those_of_padded_rows(family):
    model = exact(family)
    images = [PICTURES[0], PICTURES[0], PICTURES[1], PICTURES[0]]  # three rows share one
    turns = [[('a', [20, 21, 2])], [('a b', [30, 2])], [('a', [20, 21, 22, 23])], TURNS]
    with torch.no_grad():
        padded, packed = [model.log_probs(images, turns, temperature=0.7)
                          for model.mllm.packing in (False, True)]
    for a, b in zip(padded, packed):
        torch.testing.assert_close(a, b)
    assert padded[2].sum() > 10


# --- where it computes ------------------------------------------------------------------------
@pytest.mark.parametrize('packing', [False, True])
def test_batches_are_prepared_without_a_word_from_the_device(packing):
    """Nothing can be read from 'meta', and on a GPU whoever reads waits for all its work."""
    model = of_family('qwen2_5_vl', packing=packing)
    turns = [[('a', [20, 21, 2])], [('a b', [30, 2])], [('a', [20, 21, 22, 23])]]
    pictures = [PICTURES[0], PICTURES[0], PICTURES[1]]

    def prepared() -> list:
        return [model.encode(PICTURES, [sample(turns) for turns in LINES]),
                model.encode_answers(pictures, turns)]

    expected = prepared()
    model.to('meta')
    for batch, there in zip(expected, prepared()):
        assert batch.keys() == there.keys()
        for key, value in batch.items():
            if torch.is_tensor(value):
                assert there[key].device.type == 'meta' and there[key].shape == value.shape, key
            else:
                assert there[key] == value, key
