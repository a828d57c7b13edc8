"""Kimi-VL's released folders: converted, they give an independent forward's logits, and come back
bit for bit."""
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import regex
import torch
from kimi_reference import CONFIG, EXPERT, logits, random_weights, write_folder
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from simpleseg_mm.models import MLLM
from simpleseg_mm.models.families.kimi_checkpoint import (KIMI_SPLIT, to_released,
                                                          to_transformers)
from simpleseg_mm.models.resources import packaged

TOOLS = Path(__file__).resolve().parent.parent / 'tools' / 'model_converters'


@pytest.fixture(scope='module')
def ranks():
    """Byte strings in the order of their merges: those of nano_kimi."""
    tokenizer = AutoTokenizer.from_pretrained(packaged('nano_kimi'))
    bytes_of = {char: byte for byte, char in bytes_to_unicode().items()}
    vocabulary = {i: token for token, i in tokenizer.get_vocab().items()}
    return [bytes(map(bytes_of.get, vocabulary[i])) for i in range(10, 1024)]


@pytest.fixture(scope='module')
def folders(ranks, tmp_path_factory):
    """(released, converted) folders of random weights in float32."""
    root = tmp_path_factory.mktemp('kimi')
    write_folder(root / 'released', random_weights(), ranks)
    to_transformers(root / 'released', root / 'converted', shard_bytes=40_000)
    return root / 'released', root / 'converted'


def read(folder):
    weights = {}
    for file in sorted(folder.glob('*.safetensors')):
        weights.update(load_file(file))
    return weights


def run_tool(name, monkeypatch, *args):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    module.main()


# --- what is refused --------------------------------------------------------------------------
def test_all_missing_extra_and_misshapen_weights_are_in_one_error(ranks, tmp_path):
    weights = random_weights()
    gone = [EXPERT.format(2, 3, 'up'), 'vision_tower.encoder.blocks.1.wqkv.bias']
    for name in gone:
        del weights[name]
    weights['language_model.model.layers.9.norm.weight'] = torch.zeros(2)
    weights['multi_modal_projector.linear_3.bias'] = torch.zeros(2)
    weights['language_model.lm_head.weight'] = torch.zeros(7, 48)
    write_folder(tmp_path / 'released', weights, ranks)
    with pytest.raises(ValueError) as caught:
        to_transformers(tmp_path / 'released', tmp_path / 'out')
    message = str(caught.value)
    missing, unknown, shapes = message.split('. ')[1].split('; ')
    assert missing == 'missing: ' + ', '.join(gone)
    assert unknown == ('unknown: language_model.model.layers.9.norm.weight, '
                       'multi_modal_projector.linear_3.bias')
    assert shapes == ('of another shape: language_model.lm_head.weight (7, 48) for (1040, 48)')
    assert not list((tmp_path / 'out').glob('*'))


def test_loading_names_all_weights_that_do_not_fit(folders, tmp_path):
    """transformers itself draws missing weights at random, and warns."""
    _, converted = folders
    for file in converted.glob('*.json'):
        if 'index' not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'chat_template.jinja').write_bytes(
        (converted / 'chat_template.jinja').read_bytes())
    weights = read(converted)
    del weights['lm_head.weight'], weights['model.language_model.layers.1.mlp.gate.weight']
    weights['model.mm_projector.more.weight'] = torch.zeros(3)
    weights['model.language_model.norm.weight'] = torch.zeros(5)
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError) as caught:
        MLLM('KimiVL', str(tmp_path))
    for part in (str(tmp_path), 'missing: lm_head.weight, model.language_model.layers.1.mlp.gate.',
                 'unknown: model.mm_projector.more.weight',
                 'another shape: model.language_model.norm.weight (5,) for (48,)'):
        assert part in str(caught.value)


@pytest.mark.parametrize('file, change, message', [
    ('config.json', dict(text_config={**CONFIG['text_config'], 'scoring_func': 'softmax'}),
     "'scoring_func': 'softmax'"),
    ('tokenizer_config.json', dict(added_tokens_decoder={}), 'names no .*<|im_end|>.*media_pad'),
    ('chat_template.jinja', None, 'no chat template'),
    ('model-00001-of-00001.safetensors', None, 'which the folder does not hold'),
])
def test_folders_that_are_not_kimi_vl(file, change, message, ranks, tmp_path):
    source = tmp_path / 'released'
    write_folder(source, random_weights(), ranks, shards=1)
    if change is None:
        (source / file).unlink()
    else:
        (source / file).write_text(json.dumps({**json.loads((source / file).read_text()),
                                               **change}))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        to_transformers(source, tmp_path / 'out')


def test_a_folder_is_not_overwritten(folders):
    with pytest.raises(ValueError, match='not empty'):
        to_transformers(folders[0], folders[1])
    with pytest.raises(FileNotFoundError, match='original'):
        to_released(folders[0], folders[0].parent / 'nothing')


# --- weights ----------------------------------------------------------------------------------
def test_shards_are_small_and_complete(folders):
    _, converted = folders
    files = sorted(converted.glob('*.safetensors'))
    largest = max(tensor.nbytes for tensor in read(converted).values())
    assert len(files) > 5
    assert max(file.stat().st_size for file in files) < 40_000 + 2 * largest + 8192
    index = json.loads((converted / 'model.safetensors.index.json').read_text())['weight_map']
    assert {file.name for file in files} == set(index.values())
    assert index.keys() == read(converted).keys()


@pytest.mark.parametrize('sizes', [[(6, 6)], [(4, 10)], [(2, 2)], [(6, 6), (4, 10), (14, 8)]])
def test_logits_are_the_reference_s(folders, sizes):
    released, converted = folders
    hf = MLLM('KimiVL', str(converted)).hf.eval()
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(sum(h * w for h, w in sizes), 3, 14, 14, generator=generator)
    ids = torch.randint(0, 1014, (5, ), generator=generator)
    picture = CONFIG['media_placeholder_token_id']
    for h, w in sizes:
        ids = torch.cat([ids[:3], torch.full((h * w // 4, ), picture), ids[2:]])
    with torch.no_grad():
        grid = torch.tensor([[1, h, w] for h, w in reversed(sizes)])
        # the last picture that was inserted stands first
        patches = torch.cat(patches.split([h * w for h, w in sizes])[::-1])
        ours = hf(input_ids=ids[None], pixel_values=patches, image_grid_thw=grid).logits[0]
        theirs = logits(read(released), patches, [(h, w) for h, w in reversed(sizes)], ids)
    assert theirs.std() > 0.5  # else any answer would be near
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_there_and_back_is_bit_identical(dtype, ranks, tmp_path, monkeypatch):
    weights = random_weights(dtype)  # the balance bias is float32 in either
    write_folder(tmp_path / 'released', weights, ranks)
    run_tool('kimi_vl', monkeypatch, tmp_path / 'released', tmp_path / 'ours')
    run_tool('kimi_vl', monkeypatch, '--back', tmp_path / 'ours', tmp_path / 'again')
    again = read(tmp_path / 'again')
    assert again.keys() == weights.keys()
    for name, tensor in weights.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name].view(torch.uint8), tensor.view(torch.uint8)), name
    skipped = ('.safetensors', 'index.json')
    for file in (tmp_path / 'released').iterdir():
        if not file.name.endswith(skipped):
            assert (tmp_path / 'again' / file.name).read_bytes() == file.read_bytes()


def test_the_balance_bias_stays_in_float32(folders):
    """In bfloat16 neighbouring experts' biases would become equal."""
    state = MLLM('KimiVL', str(folders[1]), dtype='bfloat16').hf.state_dict()
    dtypes = {name.endswith('correction_bias'): value.dtype for name, value in state.items()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_a_trained_checkpoint_goes_back_too(folders, tmp_path, monkeypatch):
    """to_huggingface.py writes names that load again; transformers' own default does not."""
    released, converted = folders
    (tmp_path / 'config.py').write_text(
        f"model = dict(type='SimpleSeg', mllm=dict(type='KimiVL', pretrained='{converted}'))")
    adapter = MLLM('KimiVL', str(converted))
    state = {f'mllm.hf.{name}': value + 0.01 for name, value in adapter.hf.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    run_tool('to_huggingface', monkeypatch, tmp_path / 'config.py', tmp_path / 'trained.pth',
             tmp_path / 'hf')
    to_released(tmp_path / 'hf', tmp_path / 'back', original=released)
    back, start = read(tmp_path / 'back'), read(released)
    assert back.keys() == start.keys()
    for name, value in start.items():
        torch.testing.assert_close(back[name], value + 0.01, rtol=0, atol=0)
    run_tool('to_huggingface', monkeypatch, tmp_path / 'config.py', tmp_path / 'trained.pth',
             tmp_path / 'half', '--dtype', 'bfloat16')
    half = read(tmp_path / 'half')
    assert {value.dtype for name, value in half.items() if 'correction_bias' in name} == {
        torch.float32}
    assert half['lm_head.weight'].dtype == torch.bfloat16


# --- tokenizer, pictures ----------------------------------------------------------------------
def reference_tokens(ranks, text):
    """Byte pair encoding by the file's ranks: the pair of lowest rank first, from the left."""
    rank = {token: i for i, token in enumerate(ranks)}
    ids = []
    for piece in regex.findall(KIMI_SPLIT, text, regex.V1):
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            best = min(range(len(parts) - 1),
                       key=lambda i: rank.get(parts[i] + parts[i + 1], 1 << 30))
            if parts[best] + parts[best + 1] not in rank:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        ids += [rank[part] for part in parts]
    return ids


@pytest.mark.parametrize('text', [
    '[[[12,34],[100,7],[999,1000]]]', '[[[0.295, 0.204], [0.298, 0.225]]]', '[]',
    "Output the polygon coordinates of the little red one, it's on the LEFT.", '  two\n\n  x\t',
    'Größe 中文字abc한국 ½', '!!!!??((((', 'the the' * 3, '12345678', ''])
def test_tokens_are_the_ranks(folders, ranks, text):
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == reference_tokens(ranks, text)
    assert tokenizer.decode(ids) == text


def test_special_tokens_have_the_released_ids(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    assert tokenizer.convert_tokens_to_ids('<|media_pad|>') == 1021
    assert tokenizer.convert_tokens_to_ids('<|reserved_token_1030|>') == 1030
    assert len(tokenizer) == 1040
    assert (tokenizer.eos_token, tokenizer.bos_token) == ('<|im_end|>', '[BOS]')
    adapter = MLLM('KimiVL', str(folders[1]))
    assert adapter.writer.stop_tokens == [1015, 1016]  # [EOS] by the generation config
    assert adapter.writer.banned_tokens == [1021, 1022, 1023, 1024]


@pytest.mark.parametrize('height, width, options, grid, shown', [
    (56, 84, {}, (4, 6), (56, 84)),
    (50, 29, {}, (4, 4), (50, 29)),  # padded to whole visual tokens, never enlarged
    (1, 1, {}, (2, 2), (1, 1)),
    (1000, 2000, {}, (46, 92), (637, 1274)),  # 71 x 142 patches > 4096: 0.6374 of the size
    (1000, 2000, dict(max_pixels=100 * 196), (8, 16), (99, 199)),
    (28, 56, dict(min_pixels=32 * 196), (4, 8), (56, 112)),
])
def test_sizes_of_pictures(folders, height, width, options, grid, shown):
    adapter = MLLM('KimiVL', str(folders[1]), **options)
    assert adapter.family.image_processor.fit(height, width) == shown
    visual, counts = adapter.family.read_pictures(
        [torch.zeros(3, height, width, dtype=torch.uint8)])
    assert visual['image_grid_thw'].tolist() == [[1, *grid]]
    assert counts == [grid[0] * grid[1] // 4]
    assert visual['pixel_values'].shape == (grid[0] * grid[1], 3, 14, 14)


def test_patches_of_a_picture(folders):
    """Row by row, channels first, (value / 255 - mean) / std, black below and to the right."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 28), dtype=np.uint8)
    visual, _ = MLLM('KimiVL', str(folders[1])).family.read_pictures([torch.from_numpy(pixels)])
    padded = np.zeros((3, 56, 28))
    padded[:, :30] = pixels
    expected = (padded / 255 - 0.5) / 0.4
    patches = visual['pixel_values'].numpy()
    for i in range(4):
        for j in range(2):
            np.testing.assert_allclose(patches[2 * i + j], expected[
                :, 14 * i:14 * i + 14, 14 * j:14 * j + 14], atol=1e-5)
