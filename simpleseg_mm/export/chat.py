"""Training queries as conversations, in the forms that other trainers read.

Forms follow the readers of TRL 1.16, ms-swift 4.6, verl 0.9 and LLaMA-Factory 0.9.5.
"""
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..choices import CHAT_STAGES
from ..files import shown

#: what stands for a picture in a text
PICTURE_MARK = '<image>'
_MEDIA = (PICTURE_MARK, '<video>', '<audio>')
#: special tokens of chat templates, which other tools read also where a text spells them
_CHAT_MARKUP = re.compile(r'<\|[^<>|]+\|>')
#: columns of RL rows that a set of one's own cannot have
_OWN_COLUMNS = ('prompt', 'messages', 'images', 'mask', 'codec', 'task')


class LeftOut(ValueError):
    """A sample that is not written.

    Args:
        reason: how it is counted, in a few words.
        example: what is wrong with this one, or which it is.
    """

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(reason)
        self.reason, self.example = reason, example


@dataclass(frozen=True)
class Conversation:
    """A training sample as any trainer can take it.

    Attributes:
        picture: path of its picture, as the trainer opens it.
        turns: (prompt, answer) pairs; the picture belongs to the first.
        system: what the system says first; None: the chat template's own.
        mask: the target as COCO RLE, ``dict(size, counts)``; where every instance is asked for a
            list of them, one an instance, of an absent target one without a pixel; None where it
            is not known.
        codec: spec of the codec that the answer is written by; None for an answer in words.
        task: what is given and wanted, such as 'text2mask', of the first turn.
        facts: further columns for a reward, ready for JSON.
        pixels: ``min_pixels`` and ``max_pixels`` of the resized picture, as far as a config says.
    """
    picture: str
    turns: Sequence[tuple[str, str]]
    system: str | None = None
    mask: dict | list[dict] | None = None
    codec: str | None = None
    task: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    pixels: Mapping[str, int] = field(default_factory=dict)

    def messages(self, mark: str, stage: str) -> list[dict[str, str]]:
        """Roles and texts; for 'rl' up to the first answer, as this package's loop asks.

        Args:
            mark: stands for the picture before the first prompt.
            stage: 'sft' or 'rl'.
        """
        said = [] if self.system is None else [('system', self.system)]
        for number, (prompt, answer) in enumerate(self.turns):
            said.append(('user', prompt if number else mark + prompt))
            if stage == 'rl':
                break
            said.append(('assistant', answer))
        return [dict(role=role, content=content) for role, content in said]

    def reward_columns(self) -> dict[str, Any]:
        """What a reward function is given: the mask is the JSON text of its RLE, or of a list."""
        return dict(mask=json.dumps(self.mask), codec=self.codec, task=self.task or '',
                    **self.facts)


@dataclass(frozen=True)
class Trainer:
    """How a tool reads conversations.

    Attributes:
        row: (conversation, stage, number of the row, suffix of the file) -> a row.
        marks: texts that it does not read as text.
        stages: of ``CHAT_STAGES``, those it trains by a rule or by answers.
        parquet_only: stages whose reader takes Parquet alone.
        lists_sets: its sets are listed in ``dataset_info.json`` beside them.
        images: its Parquet tables hold pictures of ``datasets``, which decodes them.
    """
    row: Callable[[Conversation, str, int, str], dict[str, Any]]
    marks: tuple[str, ...] = _MEDIA
    stages: tuple[str, ...] = CHAT_STAGES
    parquet_only: tuple[str, ...] = ()
    lists_sets: bool = False
    images: bool = False


def _swift_row(said: Conversation, stage: str, number: int, suffix: str) -> dict[str, Any]:
    row = dict(messages=said.messages(PICTURE_MARK, stage), images=[said.picture])
    return row | said.reward_columns() if stage == 'rl' else row


def _trl_row(said: Conversation, stage: str, number: int, suffix: str) -> dict[str, Any]:
    picture = dict(bytes=None, path=said.picture) if suffix == '.parquet' else said.picture
    name = 'messages' if stage == 'sft' else 'prompt'
    row = {name: said.messages('', stage), 'images': [picture]}
    return row | said.reward_columns() if stage == 'rl' else row


def _verl_row(said: Conversation, stage: str, number: int, suffix: str) -> dict[str, Any]:
    images = [dict(image=said.picture, **said.pixels)]
    if stage == 'sft':
        return dict(messages=said.messages(PICTURE_MARK, stage), images=images)
    columns = said.reward_columns()
    return dict(
        data_source=said.facts.get('source') or 'simpleseg_mm',
        prompt=said.messages(PICTURE_MARK, stage), images=images, ability='segmentation',
        reward_model=dict(style='rule', ground_truth=columns.pop('mask')),
        extra_info=dict(index=number, prompt=said.turns[0][0], **columns))


TRAINERS = {
    'ms-swift': Trainer(_swift_row, marks=(*_MEDIA, '<bbox>', '<ref-object>', '<cot-process>',
                                           '<start-image>')),
    'verl': Trainer(_verl_row, parquet_only=('sft', )),
    'llama-factory': Trainer(_swift_row, stages=('sft', ), lists_sets=True),
    'trl': Trainer(_trl_row, marks=(), images=True),
}


def check_form(trainer: str, stage: str, suffix: str) -> None:
    """ValueError where a trainer cannot read such a file; one line."""
    if trainer not in TRAINERS:
        raise ValueError(f'there is no trainer {trainer!r}; choose from {list(TRAINERS)}')
    if stage not in CHAT_STAGES:
        raise ValueError(f'there is no stage {stage!r}; choose from {list(CHAT_STAGES)}')
    form = TRAINERS[trainer]
    if stage not in form.stages:
        can = [name for name, other in TRAINERS.items() if stage in other.stages]
        raise ValueError(f'{trainer} has no training on a rule reward; --stage {stage} is for '
                         f'{", ".join(can)}')
    if suffix not in ('.jsonl', '.parquet'):
        raise ValueError(f'a file of rows ends in .jsonl or .parquet, not in {suffix!r}')
    if suffix != '.parquet' and stage in form.parquet_only:
        raise ValueError(f'{trainer} reads .parquet alone at --stage {stage}, not {suffix}')


def check_conversation(said: Conversation, trainer: str, stage: str) -> None:
    """LeftOut where a trainer would not read a conversation as it is meant."""
    def refuse(reason: str) -> None:
        raise LeftOut(reason, f'{said.picture!r}, {said.turns[0][0]!r:.100}')

    for text in (message['content'] for message in said.messages('', stage)):
        if not isinstance(text, str):
            refuse('a prompt or an answer is missing')
        if not is_utf8(text):
            refuse('its text is no UTF-8')
        if _CHAT_MARKUP.search(text):
            refuse('its text spells a special token, such as <|im_end|>')
        if any(mark in text for mark in TRAINERS[trainer].marks):
            refuse(f'its text spells a mark that {trainer} reads as a picture or a setting')
    if stage == 'rl' and said.codec is None:
        refuse('it is answered in words: it has no codec, and no reward reads it')
    if stage == 'rl' and said.mask is None:
        refuse('it has no mask, which LoadTargetMask makes')


def facts_of(sample: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """Columns for a reward, from a sample by its keys.

    Args:
        sample: a sample.
        own: keys that a set's ``meta_keys`` names beside those that every sample has.

    Returns:
        ``text, source, split`` and the ids as texts, '' where there is none, so that sets of
        several kinds make one table; and what ``own`` names, as plain lists, numbers and texts.

    Raises:
        ValueError: a value that JSON cannot hold, or a name that is taken.
    """
    facts: dict[str, Any] = {}
    for name in ('text', 'source', 'split', 'image_id', 'ref_id', 'sent_id', 'ann_id'):
        value = sample.get(name)
        if not isinstance(value, str):
            value = '' if value is None else json.dumps(_plain(value, name))
        facts[name] = value.encode('utf-8', 'backslashreplace').decode()
    for name in own:
        if name in facts or name in _OWN_COLUMNS:
            raise ValueError(f'meta_keys names {name!r}, which is a column of its own here; give '
                             'it another name in the set')
        facts[name] = _plain(sample.get(name), name)
    return facts


def is_utf8(text: str) -> bool:
    """Whether a text can be written: a name of a file or broken JSON may hold half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value, name: str):
    """A value as JSON has it."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and is_utf8(value):
        return value
    raise ValueError(f'meta_keys names {name!r}, which is {shown(value)} of a sample: only '
                     'numbers, texts and lists of them can be written')
