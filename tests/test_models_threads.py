"""Prompts that several threads encode, and prompts that are not the chat template's."""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import torch
from test_models_simpleseg import TURNS, build, picture, sample
from transformers import AutoModelForImageTextToText

from simpleseg_mm.models.resources import packaged
from simpleseg_mm.models.sampling import Sampling

NAMES = ['nano_random', 'nano_kimi_random']
BATCHES = [([picture(112, 84, i), picture(56, 56, i)],
            [TURNS, [(f'outline <|im_start|> {i}', '[[[1,2],[3,4],[5,6]]]')]]) for i in range(4)]


def folder_of(family, out, file, change):
    """A copy of a packaged folder's tokenizer and image processor, with one JSON file changed."""
    for path in [*packaged(family).glob('*.json'), *packaged(family).glob('*.jinja')]:
        (out / path.name).write_bytes(path.read_bytes())
    settings = json.loads((out / file).read_text())
    change(settings)
    (out / file).write_text(json.dumps(settings))
    return str(out)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


class Interrupted:
    """A backend tokenizer: before it encodes, another thread encodes a whole batch. What is set
    on it is written down."""

    def __init__(self, backend, beside, written):
        vars(self).update(backend=backend, beside=beside, written=written, busy=False)

    def __getattr__(self, name):
        if name in ('no_truncation', 'no_padding', 'enable_truncation', 'enable_padding'):
            self.written.append(name)
        return getattr(self.backend, name)

    def __setattr__(self, name, value):
        self.written.append(name)
        setattr(self.backend, name, value)

    def encode_batch(self, *args, **kwargs):
        if not self.busy:
            vars(self).update(busy=True)
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self.beside).result()
            vars(self).update(busy=False)
        return self.backend.encode_batch(*args, **kwargs)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('for_generation', [False, True])
def test_a_thread_that_encodes_beside_changes_nothing(name, for_generation):
    images, turns = BATCHES[0]
    expected = build(name).mllm.encoder.encode(images, turns, for_generation)
    adapter, written = build(name).mllm, []

    def beside():
        adapter.encoder.encode(*BATCHES[1], not for_generation)
        adapter.writer._spelling  # which asks the tokenizer as well

    for value in list(vars(adapter.encoder).values()):
        if hasattr(value, '_tokenizer'):
            value._tokenizer = Interrupted(value._tokenizer, beside, written)
    assert_same(expected, adapter.encoder.encode(images, turns, for_generation))
    assert not written


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('rounds', [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_first_steps_on_four_threads_are_all_the_same(name, rounds, monkeypatch):
    """Encoders that were just built; each encodes four batches at once."""
    adapter = build(name).mllm
    expected = [adapter.encoder.encode(*batch) for batch in BATCHES]
    monkeypatch.setattr(AutoModelForImageTextToText, 'from_config', lambda *_, **__: adapter.hf)
    switches = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(rounds):
                fresh, together = build(name, acceleration=[]).mllm, Barrier(4)

                def first(batch):
                    together.wait()
                    return fresh.encoder.encode(*batch)

                for one, two in zip(expected, threads.map(first, BATCHES)):
                    assert_same(one, two)
    finally:
        sys.setswitchinterval(switches)


# --- the prompt before the first update -------------------------------------------------------
def spelt(encoder):
    """The template's texts as characters, as a switched tokenizer gave them."""
    for name in ('opening', 'end', 'between', 'close', 'middle'):
        setattr(encoder, f'_{name}', encoder.ids_of_text(getattr(encoder.frame, name)))
    before, after = map(encoder.ids_of_text,
                        encoder.frame.head.split(encoder.family.image_token))
    encoder._head = replace(encoder._head, before=before, after=after)


def another(encoder):
    """The template of another conversation."""
    before = encoder._head.before + encoder.ids_of_text('Answer. ')
    encoder._head = replace(encoder._head, before=before)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('wrong, match', [
    (spelt, r"it has \['<.*_pad\|>'\], the template \['<\|im_"), (another, "it has '.*Answer. ")])
@pytest.mark.parametrize('call', ['encode', 'encode_answers', 'predict', 'sample'])
def test_a_prompt_that_is_not_the_templates_is_refused(name, wrong, match, call):
    model = build(name)
    wrong(model.mllm.encoder)
    calls = dict(
        encode=lambda images, turns: model.encode(images, [sample(turns[0])] * 2),
        encode_answers=lambda images, turns: model.encode_answers(
            images, [[(turns[0][0][0], (5, 6))]] * 2),
        predict=lambda images, turns: model.predict(images, [sample(turns[0])] * 2),
        sample=lambda images, turns: model.sample(images, [turns[0][0][0]] * 2, 1, [(0, ), (1, )],
                                                  Sampling()))
    with pytest.raises(ValueError, match=match) as error:
        calls[call](*BATCHES[0])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('prompt', [
    'the <|im_end|> of <|image_pad|> <|media_pad|>', '', '\n\n', ' x ', '猫 🐈',
    'é e\u0301 \u2126', 'user\nsystem', '<<P1>>'])
def test_odd_prompts_pass(name, prompt):
    adapter = build(name).mllm
    for for_generation in (False, True):
        adapter.encoder.encode([picture(56, 56)], [[(prompt, '[]')]], for_generation)
    assert not adapter.encoder._unchecked


@pytest.mark.parametrize('family', ['nano', 'nano_kimi'])
@pytest.mark.parametrize('file, change', [
    ('tokenizer_config.json', lambda settings: settings.update(split_special_tokens=True)),
    ('tokenizer.json', lambda settings: settings.update(truncation=dict(
        direction='Right', max_length=3, strategy='LongestFirst', stride=0))),
    ('tokenizer.json', lambda settings: settings.update(padding=dict(
        strategy=dict(Fixed=64), direction='Left', pad_to_multiple_of=None, pad_id=0,
        pad_type_id=0, pad_token='<|endoftext|>')))])
def test_what_a_folder_sets_in_its_tokenizer_changes_nothing(family, file, change, tmp_path):
    name = f'{family}_random'
    expected = build(name).mllm.encoder.encode(*BATCHES[0])
    other = build(name, processor=folder_of(family, tmp_path, file, change)).mllm
    assert_same(expected, other.encoder.encode(*BATCHES[0]))
