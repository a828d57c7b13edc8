"""Builds nano's tokenizer and image processor: small, byte-level, in Qwen's chat format.

    python tools/nano/build_tokenizer.py simpleseg_mm/zoo/nano

Digits are split into groups of at most two, so that a coordinate on nano's 100-step grid is one
token (Qwen spells every digit, Kimi up to three: our choice). Deterministic.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from simpleseg_mm.datasets import refshapes, templates

SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
           '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>']
#: Qwen's split into words, numbers and punctuation, with numbers of at most two digits
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}|"
         r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')


def corpus(scenes: int, seed: int):
    """Words, sentences of RefShapes, prompts, and answers in every grammar."""
    words = (Path(__file__).parent / 'words.txt').read_text().split()
    yield from (text for word in words for text in [word, f' {word}'] * 20)
    yield from ['user\n', 'assistant\n', 'system\n'] * 100
    for index in range(scenes):
        for ref in refshapes.make_scene(seed, 'train', index)['refs']:
            yield from (sentence['sent'] for sentence in ref['sentences'])
    for lists in (templates.SUBJECTS, templates.QUESTIONS):
        yield from (prompt for prompts in lists.values() for prompt in prompts * 20)
    rng = np.random.default_rng(seed)
    for number in [*range(100)] * 20:
        yield f'{number},{number:02d}'
    for _ in range(500):
        rings = [rng.integers(0, 100, (rng.integers(3, 9), 2)).tolist()
                 for _ in range(rng.integers(1, 4))]
        yield json.dumps(rings, separators=(',', ':'))
        yield json.dumps(rings[0][:2], separators=(',', ':'))
        yield json.dumps((np.array(rings[0]) / 100).tolist())


def build(vocab_size: int, scenes: int, seed: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(scenes, seed), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<|im_end|>', pad_token='<|endoftext|>',
        extra_special_tokens=SPECIAL[1:2] + SPECIAL[3:], chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--vocab-size', type=int, default=1024)
    parser.add_argument('--scenes', type=int, default=1000, help='scenes in the corpus')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    tokenizer = build(args.vocab_size, args.scenes, args.seed)
    tokenizer.save_pretrained(args.out)
    Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, temporal_patch_size=1,
        size=dict(shortest_edge=28 * 28, longest_edge=112 * 112)).save_pretrained(args.out)
    print(f'{len(tokenizer)} tokens written to {args.out}')


if __name__ == '__main__':
    main()
