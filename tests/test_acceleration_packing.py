"""Rows without padding are trained as the padded ones are."""
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from test_models_families import PICTURES, of_family
from test_models_simpleseg import TURNS, build, sample
from torch import nn

from simpleseg_mm.acceleration import attention, kernels, segments
from simpleseg_mm.acceleration.attention import row_attention
from simpleseg_mm.acceleration.packing import Packed, pack_rows

CUDA = torch.cuda.is_available()

LINES = [TURNS, [('a', '[[[1,2],[3,4],[5,6]]]')], TURNS[:1]]
FULL = ('qwen2_5_vl', 'qwen2_vl', 'qwen3_vl', 'qwen3_vl_moe')


def exact(name: str, **options):
    return of_family(name, dtype='float32' if name.endswith('moe') else 'float64',
                     acceleration='auto', **options)


def with_packing(model, on: bool):
    """The model with all measures, or with those alone that packing does not need."""
    if on:
        for name in ('packed_rows', 'patch_layout'):
            assert model.mllm.acceleration.install(name) is None
    else:
        model.mllm.acceleration.remove('packed_rows')
    assert ('packed_rows' in model.mllm.acceleration.on) == on
    return model


def layout(groups) -> Packed:
    """Of groups of rows: the tokens with which all begin, and of each those of its own, the first
    beginning included."""
    rows, pictures, token = [], [], 0
    for picture, (shared, own) in enumerate(groups):
        first = len(rows)
        for i, length in enumerate(own):
            beginning = rows[first][:shared] if i else []
            rows.append(beginning + list(range(token + 1, token + 1 + length)))
            pictures.append(picture)
            token += length
    ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    return pack_rows(ids, ids > 0, pictures)


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('make, message', [
    (lambda: build(attn_implementation='eager', acceleration=['attention', 'packed_rows']),
     "attention does not apply: attn_implementation='eager'.*set acceleration='auto'"),
    (lambda: of_family('kimi_vl', acceleration=['attention', 'packed_rows']),
     'packed_rows does not apply: not known to suit KimiVL.*Leave it out'),
])
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_linear_layers_are_not_packed_and_the_log_says_so(monkeypatch):
    lines = []
    monkeypatch.setattr('simpleseg_mm.acceleration.print_log',
                        lambda line, logger: lines.append(line))
    quick, plain = (of_family('qwen3_5', acceleration=wanted) for wanted in ('auto', []))
    assert 'packed_rows' not in quick.mllm.acceleration.on
    assert sum('linear_attention' in line for line in lines) == 1
    batch = PICTURES[:1], [sample(TURNS)]
    torch.testing.assert_close(quick.loss(*batch)['loss'], plain.loss(*batch)['loss'])


def test_lengths_that_are_not_those_of_the_row():
    states, packed = torch.zeros(1, 2, 5, 8), layout([(0, [1]), (0, [3])])
    with pytest.raises(ValueError, match='4 tokens in a row of 5'):
        row_attention(nn.Module(), states, states, states, None, packed.shared, packed.places,
                      packed.order)


# --- what it computes -------------------------------------------------------------------------
@pytest.mark.parametrize('dtype', [torch.float64, *([torch.bfloat16] if CUDA else [])])
@pytest.mark.parametrize('groups', [
    [(0, [5])], [(0, [1]), (0, [4])], [(0, [2]), (0, [1]), (0, [2])], [(0, [1])] * 5,
    [(2, [3, 2])], [(1, [1, 2, 1]), (0, [1])], [(0, [1]), (1, [2, 2])], [(0, [2, 3])],
    [(2, [2, 0, 3])]])
def test_attention_is_that_of_a_mask(groups, dtype):
    module, device = nn.Module(), 'cuda' if CUDA else 'cpu'
    module.num_key_value_groups = 2
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, 5, 8, generator=generator, dtype=torch.float64)
              .to(device, dtype).requires_grad_() for heads in (4, 2, 2)]
    mask, start = torch.zeros(5, 5, dtype=torch.bool), 0
    for shared, own in groups:
        first = start
        for length in own:
            mask[start:start + length, first:first + shared] = True
            mask[start:start + length, start:start + length] = True
            start += length
    mask &= torch.ones(5, 5, dtype=torch.bool).tril()
    packed = layout(groups)
    cu_seqlens = None if packed.cu_seqlens is None else packed.cu_seqlens.to(device)
    out, _ = row_attention(module, *states, None, packed.shared, packed.places.to(device),
                           packed.order.to(device), cu_seqlens)
    query, key, value = states
    expected = F.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1),
        mask.to(device)).transpose(1, 2)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
    near = dict(rtol=.02, atol=.02) if dtype == torch.bfloat16 else {}
    for ours, theirs in zip([out, *torch.autograd.grad((out * weights).sum(), states)],
                            [expected, *torch.autograd.grad((expected * weights).sum(), states)]):
        torch.testing.assert_close(ours, theirs, **near)


@pytest.mark.parametrize('pictures, rows, row, shared, cu_seqlens', [
    ([0], ['abc'], 'abc', [], [0, 3]),
    ([0, 1], ['abc', 'abd'], 'abcabd', [], [0, 3, 6]),       # pictures differ
    ([0, 0], ['abc', 'abde'], 'abcde', [(2, 0, [0, 1])], None),
    ([0, 0, 0], ['abc', 'abde', 'ac'], 'abcbdec', [(1, 0, [0, 1, 2])], None),
    ([0, 1, 0], ['abc', 'x', 'abd'], 'abcdx', [(2, 0, [0, 2])], None),  # lie together
    ([0, 1, 0], ['abc', 'x', 'de'], 'abcdex', [], [0, 3, 5, 6]),
    ([0, 1, 1], ['abc', 'xy', 'xz'], 'abcxyz', [(1, 3, [1, 2])], None),
    ([0, 0], ['abc', 'abc'], 'abc', [(3, 0, [0, 1])], None),
    ([0, 0], ['ab', 'abc'], 'abc', [(2, 0, [0, 1])], None),
    ([0, 0], ['abc', 'ab'], 'abc', [(2, 0, [0, 1])], None),
])
def test_rows_of_one_picture_lie_together_with_one_beginning(pictures, rows, row, shared,
                                                             cu_seqlens):
    width = max(map(len, rows))
    ids = torch.tensor([list(text.ljust(width).encode()) for text in rows])
    packed = pack_rows(ids, ids != ord(' '), pictures)
    assert bytes(ids.flatten()[packed.order].tolist()).decode() == row
    assert packed.shared == shared
    assert (packed.cu_seqlens if cu_seqlens is None else packed.cu_seqlens.tolist()) == cu_seqlens
    assert [''.join(row[place] for place in places[:len(text)])
            for text, places in zip(rows, packed.places)] == rows


def of_any_lengths(query, key, value, cu_seqlens, other_cu_seqlens, longest, other_longest, *,
                   window_size=(-1, -1), enable_gqa=False):
    """What the GPU's kernel computes, segment by segment."""
    assert (cu_seqlens, longest) == (other_cu_seqlens, other_longest)
    assert cu_seqlens.dtype == torch.int32 and longest == cu_seqlens.diff().max()
    fewer = key.shape[1] != query.shape[1]
    assert enable_gqa == fewer or 'enable_gqa' not in kernels._VARLEN  # else it is refused
    parts = [x.tensor_split(cu_seqlens[1:-1].long()) for x in (query, key, value)]
    return torch.cat([F.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in segment), is_causal=window_size == (-1, 0),
        enable_gqa=fewer).transpose(0, 1) for segment in zip(*parts)])


@pytest.fixture(params=[False, True], ids=['padded', 'as they lie'])
def attended(request, monkeypatch):
    """How sequences in a row are attended to: side by side, or as on a GPU."""
    if request.param:
        for module in (attention, segments):
            monkeypatch.setattr(module, 'takes_any_lengths', lambda *_: True)
        monkeypatch.setattr(kernels, 'varlen_attn', of_any_lengths)


@pytest.mark.usefixtures('attended')
@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('family', FULL)
def test_loss_and_gradients_are_those_of_padded_rows(family, checkpointing):
    model = exact(family, gradient_checkpointing=checkpointing)
    losses, gradients = [], []
    for on in (False, True):
        out = with_packing(model, on).loss(PICTURES, [sample(turns) for turns in LINES])
        out['loss'].backward()
        losses.append(out)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    for key, padded in losses[0].items():
        torch.testing.assert_close(losses[1][key], padded, msg=key)
    assert gradients[0].keys() == gradients[1].keys()
    for name, padded in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], padded, msg=name)


@pytest.mark.usefixtures('attended')
@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('family', FULL)
def test_log_probs_and_gradients_are_those_of_padded_rows(family, checkpointing):
    model = exact(family, gradient_checkpointing=checkpointing)
    # four rows share a picture, and of these three a prompt, and two the whole
    images = [PICTURES[0], PICTURES[0], PICTURES[1], PICTURES[0], PICTURES[0]]
    turns = [[('a', [20, 21, 2])], [('a', [20, 2])], [('a', [20, 21, 22, 23])], TURNS,
             [('a', [20, 21, 2])]]
    sizes, found, gradients = [], [], []
    for on in (False, True):
        encoded = with_packing(model, on).encode_answers(images, turns)
        sizes.append(encoded['input_ids'].numel())
        out = model.log_probs(images, turns, temperature=0.7, encoded=encoded)
        assert all(map(torch.equal, out, model.log_probs(images, turns, temperature=0.7)))
        weight = torch.arange(1., out[0].numel() + 1, dtype=out[0].dtype).view(out[0].shape).sin()
        (out[0] * weight).sum().backward()
        found.append(out)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    for padded, packed in zip(*found):
        torch.testing.assert_close(packed, padded)
    assert found[0][2].sum() > 10
    assert sizes[1] < sizes[0] - 3 * encoded['shared_prefixes'][0][0] < sizes[0]
    assert gradients[0].keys() == gradients[1].keys()
    for name, padded in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], padded, msg=name,  # norms are in float32
                                   rtol=1e-5, atol=1e-6)


# --- where it computes ------------------------------------------------------------------------
@pytest.mark.parametrize('packing', [False, True])
def test_batches_are_prepared_without_a_word_from_the_device(packing):
    """Nothing can be read from 'meta', and on a GPU whoever reads waits for all its work."""
    model = of_family('qwen2_5_vl', acceleration='auto' if packing else [])
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
                stays = packing and key == 'image_grid_thw'  # its numbers are read
                assert there[key].device.type == ('cpu' if stays else 'meta'), key
                assert there[key].shape == value.shape, key
            else:
                assert there[key] == value, key


@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen2_vl'])
def test_a_training_step_asks_the_device_for_nothing(family, monkeypatch):
    """Neither forwards nor backwards: the GPU would have to catch up, and wait in turn."""
    model = of_family(family, acceleration='auto').to('meta')
    for module in (attention, segments):
        monkeypatch.setattr(module, 'takes_any_lengths', lambda *_: True)
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # knows no 'meta'
    batch = model.encode(PICTURES, [sample(turns) for turns in LINES])
    model.loss(None, None, encoded=batch)['loss'].backward()
    batch = model.encode_answers([PICTURES[0], PICTURES[0], PICTURES[1]], [
        [('a', [20, 21, 2])], [('a b', [30, 2])], [('a', [20, 21, 22, 23])]])
    model.log_probs(None, None, encoded=batch)[0].sum().backward()
