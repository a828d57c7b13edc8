"""Descriptions of objects by a chat VLM: what is asked, what of an answer is taken."""
import os
import re
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from PIL import Image, ImageDraw

from simpleseg_mm.client import ChatClient, EndpointError, Reply, data_url
from simpleseg_mm.registry import STAGES

from .sample import Sample, clean_text
from .stage import Stage

PROMPT = ('The red box marks one object, a {category}. Write {count} different short phrases, '
          'one a line, each of which refers to this object alone and to no other in the image. '
          'Do not mention the box.')
_LIST_MARK = re.compile(r'^\s*(?:[-*\u2022]|\(?\d{1,2}[.):])\s+')
_REFUSAL = re.compile(r"\b(i'm sorry|i am sorry|i can(?:no|')t|unable to|as an ai|red box|"
                      r'bounding box|the box)\b', re.IGNORECASE)
_LETTER = re.compile(r'[^\W\d_]{2}')
_MARKUP = re.compile(r'[<>{}\[\]\\|`]')


def text_fault(text: str, max_words: int) -> str | None:
    """What is wrong with a phrase, or None. It must be clean already."""
    if not text:
        return 'empty'
    if len(text) > 12 * max_words or len(text.split()) > max_words:
        return 'too long'
    if _REFUSAL.search(text):
        return 'refusal or talk of the box'
    if _MARKUP.search(text) or not _LETTER.search(text):
        return 'nonsense'
    return None


def mark(image: np.ndarray, box: Sequence[float], max_side: int) -> Image.Image:
    """The image, at most ``max_side`` pixels a side, with a red frame round the box."""
    picture = Image.fromarray(image)
    scale = min(1, max_side / max(picture.size))
    if scale < 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size],
                                 Image.BILINEAR)
    width = max(2, round(max(picture.size) / 200))
    x1, y1, x2, y2 = np.asarray(box) * scale
    ImageDraw.Draw(picture).rectangle(
        [max(0, x1 - width), max(0, y1 - width), min(picture.width - 1, x2 + width),
         min(picture.height - 1, y2 + width)], outline=(255, 0, 0), width=width)
    return picture


class Failure(str):
    """Why there is no answer; goes into the counts."""


class Describe(Stage):
    """Base: asks about each object, with its box drawn into the image, and keeps usable phrases.

    Args:
        prompt: with ``{category}`` and ``{count}``.
        count: phrases asked for.
        max_words: of a phrase.
        max_side: of the picture that is shown, pixels.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, prompt: str = PROMPT, count: int = 2, max_words: int = 30,
                 max_side: int = 1024, **kwargs) -> None:
        super().__init__(**kwargs)
        self.prompt, self.count, self.max_words = prompt, count, max_words
        self.max_side = max_side

    def ask(self, requests: list[tuple[Image.Image, str]]) -> list[str]:
        """Answers to (picture, question); a :class:`Failure` where there is none."""
        raise NotImplementedError

    def process(self, samples: Sequence[Sample]) -> None:
        asked = [(sample, found) for sample in samples for found in sample.objects]
        answers = self.ask([
            (mark(sample.image, found['box'], self.max_side),
             self.prompt.replace('{category}', found['category'] or 'thing')
             .replace('{count}', str(self.count)))
            for sample, found in asked])
        for (sample, found), answer in zip(asked, answers, strict=True):
            self._take(sample, found, answer)

    def _take(self, sample: Sample, found: dict, answer: str) -> None:
        lines = [answer] if isinstance(answer, Failure) else str(answer)[:20_000].splitlines()
        lines = [line for line in lines if line.strip()] or ['']
        taken = found.setdefault('descriptions', [])
        known = {d['text'].lower() for d in taken}
        for line in lines:
            sample.proposed['descriptions'] += 1
            text = clean_text(_LIST_MARK.sub('', line), 20_000).strip(' "\'*.')
            reason = (str(answer) if isinstance(answer, Failure)
                      else text_fault(text, self.max_words)
                      or ('repeated' if text.lower() in known else None)
                      or ('more than asked for' if len(taken) == self.count else None))
            if reason:
                sample.counts[self.name, 'descriptions', reason] += 1
            else:
                known.add(text.lower())
                taken.append(dict(text=text))


@STAGES.register_module()
class DescribeByEndpoint(Describe):
    """Asks an OpenAI-compatible chat endpoint (vLLM, SGLang, a service).

    An endpoint's answers need not be the same twice: a chunk once written stays as it is.

    Args:
        base_url: such as 'http://host:8000/v1', see :class:`~simpleseg_mm.client.ChatClient`.
        model: name of the model there.
        key_variable: environment variable that holds the API key; '' for none.
        timeout: seconds of one request.
        retries: further attempts after an error that may pass, each after twice the wait.
        wait: seconds before the first of them.
        concurrency: requests at once.
        max_tokens: of an answer.
        **kwargs: see :class:`Describe`.
    """

    def __init__(self, base_url: str, model: str, key_variable: str = '', timeout: float = 60,
                 retries: int = 3, wait: float = 1, concurrency: int = 16, max_tokens: int = 128,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.model, self.max_tokens = model, max_tokens
        if key_variable and not os.environ.get(key_variable):
            raise ValueError(f'no {key_variable} in the environment; key_variable names it')
        self.client = ChatClient(base_url, os.environ.get(key_variable) if key_variable else None,
                                 timeout, retries, wait, concurrency)

    def ask(self, requests: list[tuple[Image.Image, str]]) -> list[str]:
        return [self._answer(future) for future in [
            self.client.start(self._body(*request)) for request in requests]]

    def _body(self, picture: Image.Image, question: str) -> dict:
        return dict(
            model=self.model, max_tokens=self.max_tokens, temperature=0, seed=0,
            messages=[dict(role='user', content=[
                dict(type='image_url', image_url=dict(url=data_url(picture, 'JPEG', quality=90))),
                dict(type='text', text=question)])])

    @staticmethod
    def _answer(future: 'Future[Reply]') -> str:
        try:
            reply = future.result()
        except EndpointError as error:
            return Failure(f'endpoint: {error.reason}')
        return Failure('endpoint: broken answer') if reply.text is None or reply.broken \
            else reply.text
