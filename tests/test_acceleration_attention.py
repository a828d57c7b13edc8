"""Attention of vision towers and of few tokens is PyTorch's own, computed together."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_models_families import PICTURES, model  # noqa: F401
from torch import nn

from simpleseg_mm.acceleration import kernels, segments
from simpleseg_mm.acceleration.attention import row_attention
from simpleseg_mm.acceleration.prompts import SharedPrompts
from simpleseg_mm.acceleration.segments import segment_attention


def states(heads, count, size=8, seed=0):
    return torch.randn(1, heads, count, size, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('lengths', [[6], [2, 2, 2], [1, 5], [3, 1, 2], [2, 1, 2, 1], [2, 0, 4]])
def test_segments_attend_to_themselves(lengths):
    query, key, value = (states(3, 6, seed=seed) for seed in range(3))
    segment = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    for _ in range(2):  # the second time by what was kept
        out, _ = segment_attention(nn.Module(), query, key, value, None, scaling=.3,
                                   cu_seq_lens_q=cu_seqlens)
        expected = F.scaled_dot_product_attention(
            query, key, value, segment[:, None] == segment, scale=.3)
        torch.testing.assert_close(out, expected.transpose(1, 2))


@pytest.mark.parametrize('takes, query, options, card', [
    (True, dict(), dict(), (9, 0)),
    (True, dict(dtype=torch.float16, shape=(1, 16, 5, 80)), dict(scaling=80 ** -.5), (8, 0)),
    (True, dict(), dict(scaling=None, dropout=0.), (8, 0)),
    (False, dict(), dict(), (7, 5)),                        # a T4 has no flash attention
    (False, dict(is_cuda=False), dict(), (9, 0)),
    (False, dict(dtype=torch.float32), dict(), (9, 0)),
    (False, dict(shape=(1, 2, 5, 84)), dict(), (9, 0)),     # no multiple of 8
    (False, dict(shape=(1, 2, 5, 512)), dict(), (9, 0)),
    (False, dict(), dict(scaling=1.), (9, 0)),
    (False, dict(), dict(dropout=.1), (9, 0)),
])
def test_which_states_the_kernel_for_any_lengths_takes(takes, query, options, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: card)
    monkeypatch.setattr(kernels, 'varlen_attn', len)
    given = dict(is_cuda=True, dtype=torch.bfloat16, shape=(1, 28, 5, 128), device='cuda:0')
    assert kernels.takes_any_lengths(SimpleNamespace(**{**given, **query}), options) is takes


def test_vision_towers_see_what_transformers_own_attention_sees(model):  # noqa: F811
    mllm, seen = model.mllm, []
    visual, _ = mllm.family.read_pictures(PICTURES)
    tower = mllm.hf.get_submodule(mllm.family.parts['vision'][0].rstrip('.'))
    for name in (segments.NAME, 'sdpa'):
        assert tower.config._attn_implementation == name
        with torch.no_grad():
            seen.append(mllm.hf.model.get_image_features(**visual).pooler_output)
        mllm.acceleration.remove('segments')
    assert mllm.acceleration.install('segments') is None
    for ours, theirs in zip(*seen):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('count', [1, 2, 5, 40])
def test_few_tokens_read_shared_keys_as_if_repeated(count):
    module = nn.Module()
    module.num_key_value_groups = 3
    query, key, value = states(6, count), states(2, 50, seed=1), states(2, 50, seed=2)
    mask = torch.arange(50) <= torch.arange(50 - count, 50)[:, None]
    for mask in (mask[None, None], torch.zeros(1, 1, count, 50, dtype=torch.float64).masked_fill(
            ~mask, -torch.inf)):
        out, _ = row_attention(module, query, key, value, mask, dropout=0., scaling=.3)
        expected = F.scaled_dot_product_attention(
            query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), mask, scale=.3)
        torch.testing.assert_close(out, expected.transpose(1, 2))


@pytest.mark.parametrize('prompts', [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2], [0, 2, 2], [1],
                                     [2, 0, 2, 1, 0], [0, 1, 2]])
@pytest.mark.parametrize('heads', [2, 6])
@pytest.mark.parametrize('count', [1, 3])
def test_rows_read_a_prompt_that_stands_once_as_if_each_had_it(prompts, heads, count):
    rows, before, own = len(prompts), 7, 5
    query, key, value = (torch.cat([states(h, n, seed=10 * row + h + kind) for row in range(rows)])
                         for kind, (h, n) in enumerate([(heads, count), (2, own), (2, own)]))
    prompt_key, prompt_value = (torch.cat([states(2, before, seed=100 * kind + b)
                                           for b in range(3)]) for kind in (1, 2))
    mask = torch.zeros(rows, 1, count, before + own, dtype=torch.float64)
    mask[:, :, :, -2:] = mask[1:, :, :, :3] = -torch.inf  # a padded prompt, slots to be written
    mask[:, :, 0, -3] = -torch.inf
    keys, values = (torch.cat([prompt[prompts], x], 2).repeat_interleave(heads // 2, 1)
                    for prompt, x in ((prompt_key, key), (prompt_value, value)))
    expected = F.scaled_dot_product_attention(query, keys, values, mask, scale=.3)
    shared = SharedPrompts(prompt_key, prompt_value, torch.tensor(prompts))
    for kept in (list(range(rows)), list(range(rows))[::2], [rows - 1]):
        layer = nn.Module()
        layer.layer_idx = 1
        out, _ = row_attention(layer, query[kept], key[kept], value[kept], mask[kept],
                               prompts=[None, shared.keep(torch.tensor(kept))], dropout=0.,
                               scaling=.3)
        torch.testing.assert_close(out, expected[kept].transpose(1, 2))
    assert len(shared.keep(torch.tensor([0])).keys) == 1
