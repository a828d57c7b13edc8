"""Conversations about pictures as token ids, labels and pictures' tensors."""
import copy
import os
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .chat import check_keywords, read_frame
from .families import Family, Head

#: label of a token that is not trained
IGNORE = -100
#: (prompt, answer) pairs; an answer may be given as the token ids that were written
Turns = Sequence[tuple[str, str | Sequence[int] | None]]


class Encoder:
    """Writes conversations in the tokens of a family; it needs no weights.

    Args:
        family: names and pictures.
        folder: of the tokenizer.
        system_prompt: ``None`` leaves the chat template's own default.
        chat_template_kwargs: keywords of the chat template.

    Raises:
        ValueError: the tokenizer has no chat template, or one that cannot be used, or does not
            know the picture's token; one line.
    """

    def __init__(self, family: Family, folder: str, system_prompt: str | None = None,
                 chat_template_kwargs: dict | None = None) -> None:
        self.family, self.tokenizer = family, family.tokenizer
        # A call with another setting switches a tokenizer's state, also for other threads. So one
        # object reads special tokens and another reads them as text, each from here on.
        self.tokenizer.split_special_tokens = False
        self._text_tokenizer = copy.deepcopy(self.tokenizer)
        self._text_tokenizer.split_special_tokens = True
        self.ids_of_text('')
        self.system_prompt = system_prompt
        self.chat_template_kwargs = check_keywords(chat_template_kwargs)
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values()
                   if token.special}
        eos = self.tokenizer.eos_token
        self.frame = read_frame(
            family.render, self.tokenizer.name_or_path or folder, family.image_token,
            family.image_markup, [*([eos] if eos else []), *sorted(special - {eos})],
            system_prompt, self.chat_template_kwargs)
        ids = [self.tokenizer.encode(part, add_special_tokens=False) for part in self.frame[1:]]
        self._opening, self._end, self._between, self._close, self._middle = ids
        before, after = self.frame.head.split(family.image_token)
        self._head = Head(self.frame.head, self.tokenizer.encode(before, add_special_tokens=False),
                          family.image_token_id,
                          self.tokenizer.encode(after, add_special_tokens=False))
        #: kinds of batches (``for_generation``) whose first has not been checked
        self._unchecked = {True, False}

    def encode(self, images: Sequence[Tensor], conversations: Sequence[Turns],
               for_generation: bool = False, share_images: bool = False) -> dict[str, Tensor]:
        """Pictures and conversations -> a padded batch on the CPU.

        Args:
            images: B uint8 tensors (3, H, W), RGB; sizes may differ.
            conversations: B lists of (prompt, answer) turns about the picture. An answer given
                as token ids is taken as it is: it ends with an end token, or was cut.
            for_generation: stop after the last prompt and pad on the left; else keep the
                answers, pad on the right and give labels.
            share_images: a picture object that stands in several rows stands once in the batch.

        Returns:
            The network's inputs: ``input_ids``, ``attention_mask`` and, where the network takes
            them, token types (B, T), those of the pictures, and for training ``labels`` (B, T):
            the ids of answers and their end tokens, -100 elsewhere. Where rows share a picture,
            ``image_index``, B numbers, says which one is whose.

        Raises:
            ValueError: in the first batch for training, or for generation, a prompt is not what
                the chat template writes.
        """
        places: dict[int, int] = {}
        index = [places.setdefault(id(image) if share_images else i, len(places))
                 for i, image in enumerate(images)]
        unique = {place: image for place, image in zip(index, images)}
        pictures, heads = self.family.read(list(unique.values()), self._head)
        ids = self._ids_of({text for turns in conversations for turn in turns for text in turn
                            if isinstance(text, str)})
        rows = [self._encode_row(turns, heads[place], ids, for_generation)
                for turns, place in zip(conversations, index)]
        if for_generation in self._unchecked:
            if self._check_prompt(rows[0][0], heads[index[0]], conversations[0], images[0]):
                self._unchecked.discard(for_generation)
        left = for_generation
        batch = dict(
            input_ids=_pad([ids for ids, _ in rows], self.pad_token_id, left),
            attention_mask=_pad([[1] * len(ids) for ids, _ in rows], 0, left))
        if self.family.token_types:
            batch[self.family.token_types] = (
                batch['input_ids'] == self.family.image_token_id).long()
        if not for_generation:
            batch['labels'] = _pad([labels for _, labels in rows], IGNORE, left)
        batch.update((key, value.cpu()) for key, value in pictures.items())
        if len(unique) < len(index):
            batch['image_index'] = index
        return batch

    def _encode_row(self, turns: Turns, head: list[int], ids_of: dict[str, list[int]],
                    for_generation: bool) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []

        def add(new: list[int], train: bool) -> None:
            ids.extend(new)
            labels.extend(new if train else [IGNORE] * len(new))

        for i, (prompt, answer) in enumerate(turns):
            last = i == len(turns) - 1
            add((self._between if i else head) + ids_of[prompt]
                + (self._opening if last else self._middle), False)
            if for_generation and last:
                break
            add(ids_of[answer] + self._end if isinstance(answer, str) else list(answer), True)
            if last:
                add(self._close, False)
        return ids, labels

    def unexpanded_ids(self, prompt: str) -> list[int]:
        """The ids of a question, with one placeholder for the picture, as an engine takes them
        that puts as many there as the picture needs."""
        return self._head.of(1) + self.ids_of_text(prompt) + self._opening

    def ids_of_text(self, text: str) -> list[int]:
        """The ids of a text: what spells a special token in it stays text."""
        return self._ids_of([text])[text]

    def _ids_of(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """The tokens of each text, by one call of the tokenizer."""
        texts = list(texts)
        if not texts:
            return {}
        return dict(zip(texts, self._text_tokenizer(texts, add_special_tokens=False)['input_ids']))

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False,
                                     clean_up_tokenization_spaces=False)

    def _check_prompt(self, ids: list[int], head: list[int], turns: Turns, image: Tensor) -> bool:
        """Whether it could be seen that a row begins as the chat template writes it, and that each
        special token of the template is one id.

        Raises:
            ValueError: it does not; one line.
        """
        prompt, alone = turns[0][0], len(turns) == 1
        opening = self._opening if alone else self._middle
        given = ids[:len(head) + len(self.ids_of_text(prompt)) + len(opening)]
        tail = prompt + (self.frame.opening if alone else self.frame.middle)
        special = {i: token.content for i, token in
                   self.tokenizer.added_tokens_decoder.items() if token.special}
        spelt = any(name in prompt for name in special.values())  # a processor takes it for one
        official = self.family.official(self.frame.head + ('' if spelt else tail), image)
        if official is not None:
            if not spelt:
                self._check_official(given, official)
            return not spelt
        count = head.count(self.family.image_token_id)
        text = self.frame.head.replace(self.family.image_token, self.family.image_token * count)
        names = sorted(map(re.escape, special.values()), key=len, reverse=True)
        has = [special[i] for i in given if i in special]
        needs = re.findall('|'.join(names), text + tail.removeprefix(prompt))
        if has != needs:
            raise self._other_tokens(*(list(dict.fromkeys(names)) for names in (has, needs)))
        wanted = self.tokenizer.encode(text + tail, add_special_tokens=False)
        self._check_texts(self.text_of(given), self.text_of(wanted))
        return True

    def _check_official(self, given: list[int], official: dict[str, list[int]]) -> None:
        """ValueError unless ids are the processor's own, and token types say where pictures
        are."""
        wanted = official['input_ids']
        if given != wanted:
            self._check_texts(self.text_of(given), self.text_of(wanted))
            start = max(len(os.path.commonprefix([given, wanted])) - 2, 0)
            raise self._other_tokens(*(self.tokenizer.convert_ids_to_tokens(
                ids[start:start + 6]) for ids in (given, wanted)))
        types = official.get(self.family.token_types)
        if types is not None and types != [int(i == self.family.image_token_id) for i in wanted]:
            raise ValueError(f'{self.family.token_types} of {self.tokenizer.name_or_path} say '
                             'something else than where pictures are: it cannot be used')

    def _check_texts(self, given: str, wanted: str) -> None:
        if given != wanted:
            start = max(len(os.path.commonprefix([given, wanted])) - 20, 0)
            raise self._other_tokens(given[start:start + 60], wanted[start:start + 60])

    def _other_tokens(self, given, wanted) -> ValueError:
        return ValueError(
            f'the tokens of a prompt are not those of the chat template of '
            f'{self.tokenizer.name_or_path}: it has {given!r}, the template {wanted!r}. Take the '
            'tokenizer that the model was released with; one that joins a text with the markup '
            'beside it, or puts a blank before it, cannot be used')

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def end_token_ids(self) -> list[int]:
        """Ids that end an answer: the chat template's and the tokenizer's."""
        eos = self.tokenizer.eos_token_id
        return sorted({*self._end, *([] if eos is None else [eos])})


def _pad(rows: list[list[int]], value: int | float, left: bool) -> Tensor:
    width = max(map(len, rows))
    padded = [[value] * (width - len(row)) + row if left else row + [value] * (width - len(row))
              for row in rows]
    return torch.tensor(padded)
