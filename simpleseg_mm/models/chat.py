"""The constant texts of a conversation, read from a chat template."""
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import TemplateError
from mmengine.logging import print_log
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..files import chat_template_of

#: of ``apply_chat_template`` itself
_NOT_OF_TEMPLATES = set(inspect.signature(
    PreTrainedTokenizerBase.apply_chat_template).parameters)
_P1, _A1, _P2 = '<<P1>>', '<<A1>>', '<<P2>>'


class Frame(NamedTuple):
    """What stands around prompts and answers.

    Attributes:
        head: up to the first prompt, with one placeholder of a picture.
        opening: from the last prompt to its answer, as the template has the answer asked for;
            that is not everywhere how it writes a finished one: templates with thoughts, or with
            a blank before an answer.
        end: the special token that ends an answer.
        between: from there to the next prompt.
        close: from there to the end of the conversation.
        middle: from an earlier prompt to its answer.
    """
    head: str
    opening: str
    end: str
    between: str
    close: str
    middle: str


def check_keywords(keywords: dict | None) -> dict:
    """Keywords of a chat template; ValueError where one is not a template's."""
    if taken := sorted((keywords or {}).keys() & _NOT_OF_TEMPLATES):
        raise ValueError(f'chat_template_kwargs={keywords}: {taken} are not keywords of a '
                         'template')
    return dict(keywords or {})


def read_frame(render: Callable, name: str, placeholder: str, markup: str, ends: Sequence[str],
               system_prompt: str | None, keywords: dict) -> Frame:
    """The frame of a template, asked with messages in parts of text and picture, as is official,
    and else with plain text. Where answers would begin inside an open thought, and ``keywords``
    does not say so, it is closed: what is asked for is the outline.

    Args:
        render: messages and keywords -> text.
        name: of the folder, for errors.
        placeholder: text that stands for a picture's token.
        markup: what stands for a picture where the template takes plain text alone.
        ends: special tokens, one of which must end an answer.
        system_prompt: ``None``: the template's own.
        keywords: of the template; ``enable_thinking`` is added where a thought is closed.

    Raises:
        ValueError: the template cannot be used; one line.
    """
    frame = _read(render, name, placeholder, markup, ends, system_prompt, keywords)
    if not _thinks(frame.opening):
        return frame
    if 'enable_thinking' not in keywords:
        keywords['enable_thinking'] = False
        frame = _read(render, name, placeholder, markup, ends, system_prompt, keywords)
    print_log(
        'the chat template begins an answer with an open thought (<think>): ' + (
            'answers are written inside it' if _thinks(frame.opening) else
            'it is closed by enable_thinking=False. model.mllm.chat_template_kwargs='
            'dict(enable_thinking=True) leaves it open'), 'current')
    return frame


def _read(render, name, placeholder, markup, ends, system_prompt, keywords) -> Frame:
    faults = []
    for in_parts in (True, False):
        try:
            return _frame(render, placeholder, markup if not in_parts else None, ends,
                          system_prompt, keywords)
        except (ValueError, TypeError, TemplateError) as error:
            faults.append(' '.join(str(error).split()))
    raise ValueError(f'the chat template of {name} cannot be used: {faults[-1]}')


def _frame(render, placeholder: str, markup: str | None, ends: Sequence[str],
           system_prompt: str | None, keywords: dict) -> Frame:
    def turn(role: str, text: str, picture: bool = False) -> dict:
        content = ((markup or '') if picture else '') + text
        if markup is None:
            content = [dict(type='image')] * picture + [dict(type='text', text=text)]
        return dict(role=role, content=content)

    def written(messages: list[dict], asked: bool) -> str:
        return render(messages, add_generation_prompt=asked, **keywords)

    first = [] if system_prompt is None else [turn('system', system_prompt)]
    first += [turn('user', _P1, picture=True)]
    going = [*first, turn('assistant', _A1), turn('user', _P2)]
    head, opening = _cut(written(first, True), [_P1])
    told, middle, between, again = _cut(written(going, True), [_P1, _A1, _P2])
    _, _, after = _cut(written(going[:-1], False), [_P1, _A1])
    if (told, again) != (head, opening):
        raise ValueError('it begins a conversation, or an answer, by what follows it')
    pictures = head.count(placeholder)
    if pictures != 1:
        raise ValueError(f'it writes {pictures} times {placeholder!r} for one picture')
    found = [end for end in ends if between.startswith(end) and after.startswith(end)]
    if not found:
        raise ValueError(f'it must end an answer with a special token, such as {ends[0]!r}; it '
                         f'writes {after!r}. Take the tokenizer that belongs to the template'
                         if ends else 'the tokenizer has no special token to end an answer')
    end = max(found, key=len)
    return Frame(head, opening, end, between[len(end):], after[len(end):], middle)


def _cut(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            raise ValueError('it does not write what is said')
        parts.append(part)
    return [*parts, text]


def _thinks(opening: str) -> bool:
    """Whether an answer that begins so is the middle of a thought."""
    return opening.rfind('<think>') > opening.rfind('</think>')


def read_template(tokenizer, folder: str) -> None:
    """Gives a tokenizer the chat template of its folder, as transformers' processors find it: the
    file ``chat_template.jinja``, else ``chat_template.json``, else the tokenizer's own.

    Raises:
        ValueError: there is none.
    """
    if file_of(folder, 'chat_template.jinja') is None:
        legacy = file_of(folder, 'chat_template.json')
        template = None if legacy is None else chat_template_of(legacy.parent)
        tokenizer.chat_template = template or tokenizer.chat_template
    if not tokenizer.chat_template:
        raise ValueError(f'the tokenizer in {folder} has no chat template: add the model\'s '
                         'chat_template.jinja to that folder')


def file_of(folder: str, name: str) -> Path | None:
    """A file of a local folder, or of a hub id; None where there is none."""
    found = cached_file(folder, name, _raise_exceptions_for_gated_repo=False,
                        _raise_exceptions_for_missing_entries=False,
                        _raise_exceptions_for_connection_errors=False)
    return None if found is None else Path(found)
