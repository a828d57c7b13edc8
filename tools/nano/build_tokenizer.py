"""Builds nano's tokenizer and image processor: small, byte-level, in Qwen's or Kimi's format.

    python tools/nano/build_tokenizer.py simpleseg_mm/zoo/nano
    python tools/nano/build_tokenizer.py simpleseg_mm/zoo/nano_kimi --family kimi

In Qwen's format digits are split into groups of at most two, so that a coordinate on nano's
100-step grid is one token (Qwen spells every digit: our choice); in Kimi's they are split as Kimi
does, into groups of at most three. Deterministic.
"""
import argparse
import json
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.choices import NANO_FAMILIES

#: Qwen's split into words, numbers and punctuation, with numbers of at most two digits
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}|"
              r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
#: a message as text, or as parts of picture and text, which servers need to leave it as it is
CONTENT = ("{% if message['content'] is string %}{{ message['content'] }}{% else %}"
           "{% for part in message['content'] %}"
           "{{ part['text'] if part['type'] == 'text' else 'PICTURE' }}"
           '{% endfor %}{% endif %}')
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + CONTENT.replace('PICTURE', '<|vision_start|><|image_pad|><|vision_end|>')
    + '<|im_end|>\n{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')
KIMI_CHAT = (
    "{% for message in messages %}<|im_{{ message['role'] }}|>{{ message['role'] }}<|im_middle|>"
    + CONTENT.replace('PICTURE',
                      '<|media_start|>image<|media_content|><|media_pad|><|media_end|>')
    + '<|im_end|>{% endfor %}'
    '{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}')


def family_of(name: str) -> dict:
    """Special tokens, split into words, chat template and picture processor of a family."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from simpleseg_mm.models.families.kimi_checkpoint import KIMI_SPLIT  # these load transformers
    from simpleseg_mm.models.families.kimi_pictures import Kimi_K25ImageProcessorPil
    if name == 'qwen':
        return dict(
            special=['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>',
                     '<|vision_end|>', '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>'],
            split=QWEN_SPLIT, chat=QWEN_CHAT,
            processor=Qwen2VLImageProcessorPil(
                patch_size=14, merge_size=2, temporal_patch_size=1,
                size=dict(shortest_edge=28 * 28, longest_edge=112 * 112)))
    return dict(
        special=['[PAD]', '<|im_user|>', '<|im_end|>', '<|im_assistant|>', '<|im_system|>',
                 '<|im_middle|>', '<|media_pad|>', '<|media_start|>', '<|media_content|>',
                 '<|media_end|>'],
        split=KIMI_SPLIT, chat=KIMI_CHAT,
        processor=Kimi_K25ImageProcessorPil(
            patch_size=14, merge_size=2, max_patches=8 * 8, min_patches=0,
            size=dict(max_height=64, max_width=64)))


def corpus(scenes: int, seed: int):
    """Words, sentences of RefShapes, prompts, and answers in every grammar."""
    import numpy as np

    from simpleseg_mm import templates
    from simpleseg_mm.datasets import refshapes
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


def build(family: dict, vocab_size: int, scenes: int, seed: int):
    """The tokenizer of a family, as transformers keeps it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    special, split, chat = (family[key] for key in ('special', 'split', 'chat'))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(scenes, seed), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<|im_end|>', pad_token=special[0],
        extra_special_tokens=special[1:2] + special[3:], chat_template=chat,
        clean_up_tokenization_spaces=False, model_max_length=4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--family', choices=NANO_FAMILIES, default='qwen')
    parser.add_argument('--vocab-size', type=int, default=1024)
    parser.add_argument('--scenes', type=int, default=1000, help='scenes in the corpus')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    family = family_of(args.family)
    tokenizer = build(family, args.vocab_size, args.scenes, args.seed)
    tokenizer.save_pretrained(args.out)
    family['processor'].save_pretrained(args.out)
    print(f'{len(tokenizer)} tokens written to {args.out}')


if __name__ == '__main__':
    main()
