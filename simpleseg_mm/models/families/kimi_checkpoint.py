"""Kimi-VL's checkpoint folders as released <-> transformers' (``kimi_k25``), shard by shard.

Released: ``vision_tower.*`` with fused ``wqkv`` rotated in adjacent pairs,
``multi_modal_projector.*``, ``language_model.*`` with a matrix an expert, ``tiktoken.model``.
transformers: queries, keys and values apart and rotated in halves, stacked experts, a fast
tokenizer. The layouts are those of transformers 5.23 and of the public implementations of
Kimi-VL (vLLM, mlx-vlm); no released weights were at hand.
"""
import base64
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import (AutoConfig, AutoModelForImageTextToText, PreTrainedConfig,
                          PreTrainedTokenizerFast)
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.deepseek_v3 import DeepseekV3Config

from ...files import chat_template_of, check_whole, from_folder, load_json, replace_json
from ..loading import check_names
from .kimi import KimiVL
from .kimi_pictures import Kimi_K25ImageProcessorPil

#: Kimi's split of a text before byte pairs are merged: numbers of at most three digits
KIMI_SPLIT = '|'.join([
    r'[\p{Han}]+',
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r'\p{N}{1,3}', r' ?[^\s\p{L}\p{N}]+[\r\n]*', r'\s*[\r\n]+', r'\s+(?!\S)', r'\s+'
])
END = '<|im_end|>'
INDEX = 'model.safetensors.index.json'
_LAYER = r'^model\.vision_tower\.layers\.(\d+)\.'
_BLOCK = r'vision_tower.encoder.blocks.\1.'
#: names in transformers -> released; the first pattern that fits counts
RENAMED = [(re.compile(pattern), name) for pattern, name in [
    (r'^lm_head\.', 'language_model.lm_head.'),
    (r'^model\.language_model\.', 'language_model.model.'),
    (r'^model\.mm_projector\.in_proj\.', 'multi_modal_projector.linear_1.'),
    (r'^model\.mm_projector\.out_proj\.', 'multi_modal_projector.linear_2.'),
    (r'^model\.mm_projector\.', 'multi_modal_projector.'),
    (r'^model\.(vision_tower\.patch_embed\.pos_emb)\.position_embeddings$', r'\1.weight'),
    (r'^model\.vision_tower\.final_layernorm\.', 'vision_tower.encoder.final_layernorm.'),
    (_LAYER + r'norm1\.', _BLOCK + 'norm0.'), (_LAYER + r'norm2\.', _BLOCK + 'norm1.'),
    (_LAYER + r'attn\.proj\.', _BLOCK + 'wo.'), (_LAYER + r'attn\.q_proj\.', _BLOCK + 'wqkv.'),
    (_LAYER + r'mlp\.fc1\.', _BLOCK + 'mlp.fc0.'), (_LAYER + r'mlp\.fc2\.', _BLOCK + 'mlp.fc1.'),
    (r'^model\.', ''),
]]
#: what transformers' DeepSeek-V3 computes; another value in a released config is refused
FIXED = dict(scoring_func='sigmoid', topk_method='noaux_tc', moe_layer_freq=1)

Turn = Callable[[Sequence[Tensor]], list[Tensor]]


class Rule(NamedTuple):
    """Tensors that belong together: their names in both layouts, and the way there and back."""
    ours: tuple[str, ...]
    released: tuple[str, ...]
    to_ours: Turn
    to_released: Turn


# --- weights ----------------------------------------------------------------------------------
def layout(config: PreTrainedConfig) -> tuple[list[Rule], dict[str, Tensor]]:
    """The rules for a network of this config, and its weights on the meta device."""
    with torch.device('meta'):
        weights = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=False).state_dict()
    heads, experts = config.vision_config.num_attention_heads, config.text_config.n_routed_experts
    rules = []
    for name in weights:
        if re.search(r'\.attn\.[kv]_proj\.', name) or name.endswith('.experts.down_proj'):
            continue  # goes with its query, or with gate and up
        released = next(pattern.sub(new, name) for pattern, new in RENAMED
                        if pattern.search(name))
        if '.attn.q_proj.' in name:
            ours = tuple(name.replace('q_proj', part) for part in ('q_proj', 'k_proj', 'v_proj'))
            rules.append(Rule(ours, (released, ), *_attention(heads)))
        elif name.endswith('.experts.gate_up_proj'):
            stem = released[:-len('gate_up_proj')]
            rules.append(Rule(
                (name, name.replace('gate_up_proj', 'down_proj')),
                tuple(f'{stem}{i}.{part}_proj.weight' for part in ('gate', 'up', 'down')
                      for i in range(experts)), _stack_experts, _split_experts))
        else:
            rules.append(Rule((name, ), (released, ), list, list))
    return rules, weights


def _attention(heads: int) -> tuple[Turn, Turn]:
    """A rotary pair is two neighbouring rows of a head when released, and two rows half a head
    apart in transformers."""

    def reorder(rows: Tensor, *shape: int) -> Tensor:
        return rows.view(heads, *shape, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    def split(tensors: Sequence[Tensor]) -> list[Tensor]:
        q, k, v = tensors[0].chunk(3)
        return [reorder(q, -1, 2), reorder(k, -1, 2), v]

    def fuse(tensors: Sequence[Tensor]) -> list[Tensor]:
        q, k, v = tensors
        return [torch.cat([reorder(q, 2, -1), reorder(k, 2, -1), v])]

    return split, fuse


def _stack_experts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Gates, ups and downs of all experts -> (E, 2 I, D) and (E, D, I)."""
    count = len(tensors) // 3
    gate, up, down = (torch.stack(list(tensors[i:i + count]))
                      for i in range(0, 3 * count, count))
    return [torch.cat([gate, up], 1), down]


def _split_experts(tensors: Sequence[Tensor]) -> list[Tensor]:
    gate_up, down = tensors
    gate, up = gate_up.chunk(2, 1)
    return [*gate, *up, *down]


class _Shards:
    """Reads single tensors of a folder of safetensors."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob('*.safetensors'))
        if not files:
            raise FileNotFoundError(f'no *.safetensors in {folder}: give the folder of a '
                                    'checkpoint')
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file = {}
        for file in files:
            opened = safe_open(file, 'pt')
            for name in opened.keys():
                self.shapes[name] = tuple(opened.get_slice(name).get_shape())
                self._file[name] = opened

    def __getitem__(self, name: str) -> Tensor:
        return self._file[name].get_tensor(name)

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """ValueError that names every tensor that is missing, unknown or of another shape."""
        check_names(self.folder, missing=expected.keys() - self.shapes.keys(),
                    unknown=self.shapes.keys() - expected.keys(),
                    of_another_shape=[f'{name} {self.shapes[name]} for {shape}'
                                      for name, shape in expected.items()
                                      if self.shapes.get(name, shape) != shape])


def _write(weights: Iterator[tuple[str, Tensor]], out: Path, shard_bytes: int) -> None:
    """Writes shards as they fill up: no more than one is held."""
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = 0

    def flush() -> None:
        shards.append(list(held))
        save_file(held, out / f'{len(shards)}.safetensors', metadata=dict(format='pt'))
        held.clear()

    for name, tensor in weights:
        held[name] = tensor.contiguous()
        total += tensor.nbytes
        if sum(value.nbytes for value in held.values()) >= shard_bytes:
            flush()
    if held:
        flush()
    where = {}
    for i, names in enumerate(shards, 1):
        file = f'model-{i:05d}-of-{len(shards):05d}.safetensors'
        (out / f'{i}.safetensors').rename(out / file)
        where.update(dict.fromkeys(names, file))
    replace_json(out / INDEX, dict(metadata=dict(total_size=total),
                                   weight_map=dict(sorted(where.items()))), indent=2)


def convert_weights(source: Path, out: Path, config: PreTrainedConfig, to_ours: bool,
                    shard_bytes: int) -> None:
    """Weights of one layout -> the other's, every value as it was, bit for bit."""
    rules, ours = layout(config)
    expected = ours if not to_ours else {
        name: tensor for rule in rules
        for name, tensor in zip(rule.released, rule.to_released([ours[n] for n in rule.ours]))}
    shards = _Shards(source)
    shards.check({name: tuple(tensor.shape) for name, tensor in expected.items()})

    def weights() -> Iterator[tuple[str, Tensor]]:
        for rule in rules:
            if to_ours:
                yield from zip(rule.ours, rule.to_ours([shards[name] for name in rule.released]))
            else:
                yield from zip(rule.released, rule.to_released([shards[n] for n in rule.ours]))

    _write(weights(), out, shard_bytes)


# --- config, tokenizer, image processor -------------------------------------------------------
def convert_config(released: dict, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """``config.json`` of Kimi-VL -> transformers' ``kimi_k25``."""
    text, vision = released['text_config'], released['vision_config']
    odd = {key: text[key] for key, value in FIXED.items() if text.get(key, value) != value}
    if odd:
        raise ValueError(f'text_config has {odd}; transformers\' DeepSeek-V3 computes {FIXED}')
    known = {key: value for key, value in text.items() if hasattr(DeepseekV3Config, key)}
    rope = dict(text.get('rope_scaling') or dict(rope_type='default'),
                rope_theta=text['rope_theta'])
    ids = tokenizer.convert_tokens_to_ids
    return AutoConfig.for_model(
        'kimi_k25',
        text_config=dict(known, model_type='deepseek_v3', rope_parameters=rope),
        vision_config=dict(
            pos_emb_height=vision['init_pos_emb_height'],
            pos_emb_width=vision['init_pos_emb_width'],
            **{key: vision[key] for key in (
                'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads',
                'patch_size', 'merge_kernel_size')}),
        projection_hidden_size=vision['hidden_size'],
        image_token_id=released['media_placeholder_token_id'],
        video_token_id=text['vocab_size'],  # Kimi-VL has none: an id that no text holds
        vision_start_token_id=ids('<|media_start|>'),
        vision_end_token_id=ids('<|media_end|>'),
        tie_word_embeddings=text.get('tie_word_embeddings', False),
        dtype=released.get('torch_dtype') or text.get('torch_dtype'))


class _Ranks(TikTokenConverter):
    """transformers' converter, without the tiktoken package."""

    @staticmethod
    def load_tiktoken_bpe(path) -> dict[bytes, int]:
        lines = Path(path).read_bytes().splitlines()
        return {base64.b64decode(token): int(rank)
                for token, rank in (line.split() for line in lines if line)}


def convert_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """``tiktoken.model`` and ``tokenizer_config.json`` -> a fast tokenizer.

    Ids above the ranks are special tokens: those that the config names, and reserved ones up to
    ``vocab_size``. The end token is the chat template's ``<|im_end|>``.
    """
    settings = load_json(folder / 'tokenizer_config.json')
    named = {int(i): token['content'] for i, token in settings['added_tokens_decoder'].items()}
    count = len(_Ranks.load_tiktoken_bpe(folder / 'tiktoken.model'))
    special = [named.get(i, f'<|reserved_token_{i}|>') for i in range(count, vocab_size)]
    absent = sorted({END, KimiVL.image_token} - set(special))
    if absent:
        raise ValueError(f'{folder}/tokenizer_config.json names no {absent} among ids {count} to '
                         f'{vocab_size - 1}: give the folder of a Kimi-VL chat model')
    converter = _Ranks(folder / 'tiktoken.model', pattern=KIMI_SPLIT,
                       extra_special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=converter.converted(), eos_token=END,
        bos_token=settings.get('bos_token'), pad_token=settings.get('pad_token'),
        chat_template=_chat_template(folder, settings), clean_up_tokenization_spaces=False,
        model_max_length=settings.get('model_max_length', 131072))


def _chat_template(folder: Path, settings: dict) -> str:
    file = folder / 'chat_template.jinja'
    template = (file.read_text() if file.is_file() else settings.get('chat_template')
                or chat_template_of(folder))
    if not template:
        raise ValueError(f'{folder} has no chat template: neither chat_template.jinja nor '
                         "'chat_template' in tokenizer_config.json or chat_template.json")
    return template


def convert_image_processor(released: dict, merge: int) -> Kimi_K25ImageProcessorPil:
    """``preprocessor_config.json`` of Kimi-VL -> transformers' keys."""
    return Kimi_K25ImageProcessorPil(
        max_patches=released['in_token_limit'], patch_size=released['patch_size'],
        merge_size=merge, image_mean=released['image_mean'], image_std=released['image_std'])


# --- folders ----------------------------------------------------------------------------------
def to_transformers(source: str, out: str, shard_bytes: int = 5 << 30) -> None:
    """A released Kimi-VL folder -> one that transformers and ``KimiVL`` load.

    What is not weights is kept in ``out/original`` for the way back.

    Raises:
        ValueError: weights that are missing, unknown or of another shape, all of them; a config
            or a tokenizer that is not Kimi-VL's.
    """
    source = Path(source)
    if not (source / 'config.json').is_file():
        raise FileNotFoundError(f'no {source}/config.json: give the folder of Kimi-VL as released')
    check_whole(source)
    released = load_json(source / 'config.json')
    if not isinstance(released, dict) or released.get('model_type') != 'kimi_vl':
        raise ValueError(f'{source}/config.json is not that of a Kimi-VL as released (model_type '
                         "'kimi_vl'): there is nothing to convert")
    out = _new_folder(out)
    try:
        tokenizer = convert_tokenizer(source, released['text_config']['vocab_size'])
        config = convert_config(released, tokenizer)
    except KeyError as error:
        raise ValueError(f'the files of {source} lack the key {error}, which those of a Kimi-VL '
                         'as released have: fetch config.json and tokenizer_config.json '
                         'again') from None
    convert_weights(source, out, config, True, shard_bytes)
    config.architectures = ['Kimi_K25ForConditionalGeneration']
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    convert_image_processor(load_json(source / 'preprocessor_config.json'),
                            config.vision_config.merge_kernel_size[0]).save_pretrained(out)
    if (source / 'generation_config.json').is_file():
        shutil.copy(source / 'generation_config.json', out)
    _copy_rest(source, out / 'original')


def to_released(source: str, out: str, original: str | None = None,
                shard_bytes: int = 5 << 30) -> None:
    """A folder of transformers -> the released layout, as vLLM and the remote code read it.

    Args:
        source: from :func:`to_transformers`, or from ``tools/model_converters/to_huggingface.py``.
        out: folder to write.
        original: folder with config, tokenizer and code of the release; default
            ``source/original``.
        shard_bytes: size of a file of weights.
    """
    source = Path(source)
    rest = Path(original) if original else source / 'original'
    if not (rest / 'config.json').is_file():
        raise FileNotFoundError(f'no {rest}/config.json: name the released folder that the model '
                                'started from, whose config, tokenizer and code are copied')
    config = from_folder(AutoConfig.from_pretrained, source)
    if config.model_type != 'kimi_k25':
        raise ValueError(f'{source} holds a {config.model_type}, not a converted Kimi-VL: give '
                         'what this tool or to_huggingface.py wrote')
    out = _new_folder(out)
    convert_weights(source, out, config, False, shard_bytes)
    _copy_rest(rest, out)


def _new_folder(path: str) -> Path:
    folder = Path(path)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f'{folder} is not empty: name a new folder')
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy_rest(source: Path, out: Path) -> None:
    """All files but the weights and their index."""
    out.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix != '.safetensors' and file.name != INDEX:
            shutil.copy(file, out)
