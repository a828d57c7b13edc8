"""Chat templates: what the network reads is what the template writes for the official messages."""
import json
from pathlib import Path

import pytest
from test_models_simpleseg import build, picture

from simpleseg_mm.models.resources import packaged

PICTURE = picture(112, 84)
PROMPT, ANSWER, SECOND = 'Where is the star?', '[[1,2],[3,4],[5,6]]', 'And the red box?'
#: a template of the kind of Qwen3.5's: thoughts in the last answer alone
THINKING = """{%- set last = namespace(query=0) -%}
{%- for m in messages if m.role == 'user' -%}
{%- set last.query = messages.index(m) -%}{%- endfor -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}{{ '\n' }}
{%- if m.role == 'assistant' and loop.index0 > last.query -%}
<think>{{ '\n\n' }}</think>{{ '\n\n' }}
{%- endif -%}
{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in m.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>{{ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}<think>{{ '\n' }}
{%- if enable_thinking is defined and enable_thinking is false -%}{{ '\n' }}</think>{{ '\n\n' }}
{%- endif -%}{%- endif -%}"""
#: of the kind of SmolVLM's: parts alone, and a blank before a finished answer
PARTS = """<|im_start|>{% for m in messages %}{{ m.role | capitalize }}{%
if m.content[0].type == 'image' %}:{% else %}: {% endif %}{% for part in m.content %}{%
if part.type == 'text' %}{{ part.text }}{% else %}<|image_pad|>{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""


def official(name: str) -> str:
    """The text of a released template, from TRL, with nano's placeholder and end token."""
    trl = pytest.importorskip('trl')
    text = Path(trl.__file__).parent.joinpath('chat_templates', f'{name}.jinja').read_text()
    return text.replace('<image>', '<|image_pad|>').replace('<end_of_utterance>', '<|im_end|>')


TEMPLATES = {
    'thinking': (lambda: THINKING, {}), 'parts': (lambda: PARTS, {}),
    **{f'{name} {kwargs}': (lambda name=name: official(name), kwargs) for name, kwargs in [
        ('qwen2_5_vl', {}), ('qwen2_5_vl', dict(add_vision_id=True)), ('qwen3_vl', {}),
        ('qwen3_5_nothink', {}), ('qwen3_5_nothink', dict(enable_thinking=True)),
        ('qwen3_5_think', {}), ('qwen3_5_think', dict(enable_thinking=False)),
        ('qwen3_5_think', dict(enable_thinking=True)), ('qwen3_6', {}), ('smolvlm', {})]}}


def folder_with(template: str, folder: Path) -> str:
    for path in packaged('nano').glob('*.json'):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / 'chat_template.jinja').write_text(template)
    return str(folder)


def message(role, text, image=False):
    return dict(role=role, content=[dict(type='image')] * image + [dict(type='text', text=text)])


@pytest.fixture(scope='module', params=TEMPLATES)
def case(request, tmp_path_factory):
    template, kwargs = TEMPLATES[request.param]
    folder = folder_with(template(), tmp_path_factory.mktemp('template'))
    adapter = build(processor=folder, chat_template_kwargs=kwargs).mllm
    used = {**(dict(enable_thinking=False) if '<think>' in template() else {}), **kwargs}

    def written(messages, asked):
        """Ids of the official messages, with as many placeholders as the picture has tokens."""
        text = adapter.encoder.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=asked, **used)
        count, = adapter.family.read_pictures([PICTURE])[1]
        assert text.count('<|image_pad|>') == 1
        return adapter.encoder.tokenizer.encode(
            text.replace('<|image_pad|>', '<|image_pad|>' * count), add_special_tokens=False)

    return adapter, written


def ids_of(adapter, turns, for_generation):
    batch = adapter.encoder.encode([PICTURE], [turns], for_generation)
    return batch['input_ids'][0].tolist(), batch.get('labels')


def test_a_prompt_is_the_official_one(case):
    adapter, written = case
    asked = written([message('user', PROMPT, True)], True)
    assert ids_of(adapter, [(PROMPT, None)], True)[0] == asked
    ids, labels = ids_of(adapter, [(PROMPT, ANSWER)], False)
    answer = [*adapter.encoder.ids_of_text(ANSWER), adapter.encoder.tokenizer.eos_token_id]
    assert ids[:len(asked)] == asked and ids[len(asked):][:len(answer)] == answer
    assert labels[labels != -100].tolist() == answer


def test_a_conversation_goes_on_as_the_official_one(case):
    adapter, written = case
    asked = written([message('user', PROMPT, True), message('assistant', ANSWER),
                     message('user', SECOND)], True)
    found = ids_of(adapter, [(PROMPT, ANSWER), (SECOND, None)], True)[0]
    ids, labels = ids_of(adapter, [(PROMPT, ANSWER), (SECOND, '[]')], False)
    assert ids[:len(found)] == found
    if adapter.encoder.frame.middle.endswith(' '):  # a token of its own, so answers are trained
        found, asked = map(adapter.encoder.tokenizer.decode, (found, asked))
    assert found == asked
    end = adapter.encoder.tokenizer.eos_token_id
    assert labels[labels != -100].tolist() == [*adapter.encoder.ids_of_text(ANSWER), end,
                                               *adapter.encoder.ids_of_text('[]'), end]


@pytest.mark.parametrize('kwargs, opening, lines', [
    (None, '<think>\n\n</think>\n\n', 1), (dict(enable_thinking=False), '</think>\n\n', 0),
    (dict(enable_thinking=True), 'assistant\n<think>\n', 1)])
def test_an_open_thought_is_closed_unless_told(kwargs, opening, lines, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('simpleseg_mm.models.chat.print_log',
                        lambda line, logger: said.append(line))
    adapter = build(processor=folder_with(THINKING, tmp_path), chat_template_kwargs=kwargs).mllm
    ids, _ = ids_of(adapter, [(PROMPT, None)], True)
    assert adapter.encoder.tokenizer.decode(ids).endswith(opening)
    assert sum('enable_thinking' in line or 'thought' in line for line in said) == lines


PLAIN = packaged('nano').joinpath('chat_template.jinja').read_text()


@pytest.mark.parametrize('template, message', [
    ('{{ raise_exception("no") }}', 'cannot be used: no'),
    ('{% for m in messages %}', 'cannot be used'), ('nothing', 'does not write what is said'),
    ('{{ undefined.x.y }}', 'cannot be used'),
    (PLAIN.replace('<|im_end|>', ''), 'must end an answer with a special token'),
    (PLAIN + '{{ messages | length }}', 'begins a conversation, or an answer, by what follows'),
    ('<|image_pad|>' + PLAIN, 'writes 2 times .* for one picture')])
def test_templates_that_cannot_be_used(template, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        build(processor=folder_with(template, tmp_path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('word', ['tokenize', 'add_generation_prompt', 'chat_template'])
def test_keywords_that_are_not_the_template_s(word):
    with pytest.raises(ValueError, match=f"'{word}'.*not keywords of a template"):
        build(chat_template_kwargs={word: True})


def test_a_template_in_chat_template_json(tmp_path):
    """As processors read it: before the tokenizer's own, after ``chat_template.jinja``."""
    folder_with(PLAIN, tmp_path)
    plain = ids_of(build(processor=str(tmp_path)).mllm, [(PROMPT, None)], True)[0]
    other = PLAIN.replace('<|im_start|>', 'Turn <|im_start|>')
    (tmp_path / 'chat_template.json').write_text(json.dumps(dict(chat_template=other)))
    assert ids_of(build(processor=str(tmp_path)).mllm, [(PROMPT, None)], True)[0] == plain
    (tmp_path / 'chat_template.jinja').unlink()
    found = build(processor=str(tmp_path)).mllm
    ids, _ = ids_of(found, [(PROMPT, None)], True)
    assert found.encoder.tokenizer.decode(ids).startswith('Turn <')
