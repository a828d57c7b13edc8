"""Greedy answers of an engine, with all that it says of what it has read."""
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image
from torch import Tensor

from ..client.chat import data_url
from ..files import shown
from ..structures import Generated
from .observed import Observed
from .vllm import VLLMEngine

#: requests that are open at a time
_OPEN = 8
#: bytes of an answer that are read
_MOST_BYTES = 16 << 20


def ask_vllm(model, images: Sequence[Tensor], prompts: Sequence[str], limit: int,
             options: dict) -> list[Observed]:
    """Answers of vLLM in this process, with the weights of a model.

    Args:
        model: the unwrapped SimpleSeg.
        images: uint8 (3, H, W), RGB.
        prompts: one a picture.
        limit: tokens of an answer.
        options: keywords of ``vllm.LLM``.
    """
    engine = VLLMEngine(model, **options)
    written = engine.read(images, prompts, limit)
    engine.sleep()
    return [_observed(model, one, limit) for one in written]


def _observed(model, written, limit: int) -> Observed:
    ids = tuple(written.token_ids)
    ends = set(model.mllm.writer.stop_tokens)
    end = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    answer = Generated(model.mllm.encoder.text_of(ids[:end]), len(ids),
                       end < len(ids) or len(ids) < limit, ids, tuple(written.logps))
    return Observed(answer, tuple(written.read_ids), len(written.read_ids), limit=limit)


def ask_server(post: Callable[[str, dict | None], Any], name: str, model,
               images: Sequence[Tensor], prompts: Sequence[str], limit: int) -> list[Observed]:
    """Answers of an OpenAI-compatible server to messages, as its users ask it.

    Args:
        post: (path below the address, or from its root where it begins with '/'; content, or None
            to look) -> what the server answers, as :class:`ServerAddress`.
        name: of the model at the server, see :func:`served_model`.
        model, images, prompts, limit: as for :func:`ask_vllm`.

    Raises:
        ValueError: the server does not answer as the API says; one line.
    """
    asked = [_messages(model.mllm.encoder, image, prompt)
             for image, prompt in zip(images, prompts)]
    server = _Server(post, name, model, limit)
    first = server.ask(asked[0])  # what it understands is known before many ask at a time
    with ThreadPoolExecutor(_OPEN) as pool:
        return [first, *pool.map(server.ask, asked[1:])]


class RefusedError(ValueError):
    """A server refuses what it is asked for, whereas it might answer less."""


class ServerAddress:
    """The address of a server. Called with a path and content, it gives what is answered.

    Args:
        url: such as ``http://localhost:8000/v1``.
        timeout: seconds of an attempt.
        retries: further attempts after 429 and 5xx, each after twice the wait.
    """

    def __init__(self, url: str, timeout: float = 120.0, retries: int = 3) -> None:
        url = url.rstrip('/')
        try:
            parts = urllib.parse.urlsplit(url)
            parts.port  # checks it
        except ValueError as error:
            raise ValueError(f'{url} is no address ({error}): such as '
                             'http://localhost:8000/v1') from None
        self.url = url if parts.path else f'{url}/v1'
        self.timeout, self.retries = timeout, retries

    def __call__(self, path: str, content: dict | None = None) -> Any:
        """Raises ValueError in one line."""
        url = (self.url.removesuffix('/v1') + path if path.startswith('/') else
               f'{self.url}/{path}')
        headers = {'Content-Type': 'application/json'}
        if key := os.environ.get('OPENAI_API_KEY'):
            headers['Authorization'] = f'Bearer {key}'
        text = b''
        for attempt in range(self.retries + 1):
            try:
                request = urllib.request.Request(
                    url, None if content is None else json.dumps(content).encode(), headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    text = response.read(_MOST_BYTES)
                return json.loads(text)
            except urllib.error.HTTPError as error:
                said = f'{url} answers {error.code}: {shown(_said(error), 300)}'
                if error.code in (400, 422):
                    raise RefusedError(said) from None
                if error.code != 429 and error.code < 500:
                    raise ValueError(f'{said}. Give the address of the API (it ends in /v1 as a '
                                     'rule), and OPENAI_API_KEY where it wants a key') from None
                if attempt == self.retries:
                    raise ValueError(f'{said} ({attempt + 1} attempts): its log says '
                                     'why') from None
                time.sleep(2 ** attempt)
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, 'reason', None) or error) or type(error).__name__
                raise ValueError(f'{url} does not answer ({shown(reason, 200)}): start the '
                                 'server, or correct the address') from None
            except ValueError:
                raise ValueError(f'{url} answers no JSON but {shown(text[:100], 100)}: is it the '
                                 'address of the API? It ends in /v1 as a rule') from None


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(500).decode(errors='replace')
    except (OSError, http.client.HTTPException):
        return ''


def served_model(post: Callable[[str, dict | None], Any], name: str | None) -> str:
    """The name of the model that is meant.

    Args:
        post: as for :func:`ask_server`.
        name: ``None``: the only one that the server serves.

    Raises:
        ValueError: it serves no such model, or several; one line.
    """
    told = post('models', None)
    try:
        names = [str(entry['id']) for entry in told['data']]
    except (KeyError, TypeError):
        raise ValueError(f'the server lists no models but {shown(told, 100)}: is it '
                         'OpenAI-compatible? Its address ends in /v1 as a rule') from None
    if name is not None and name in names or name is None and len(names) == 1:
        return name or names[0]
    listed = ', '.join(map(shown, names[:20])) or 'nothing'
    raise ValueError(f'the server serves {listed}' + (
        f', and not {shown(name)}' if name is not None else '') + ': name one by --model')


def _messages(encoder, image: Tensor, prompt: str) -> list[dict]:
    address = data_url(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), 'PNG')
    system = encoder.system_prompt
    return [*([] if system is None else [dict(role='system', content=system)]),
            dict(role='user', content=[
                dict(type='image_url', image_url=dict(url=address)),
                dict(type='text', text=prompt)])]


class _Server:
    """One server, and what it understands."""

    def __init__(self, post: Callable[[str, dict | None], Any], name: str, model,
                 limit: int) -> None:
        self.post, self.name, self.limit = post, name, limit
        self.encoder = model.mllm.encoder
        self.end = tuple(self.encoder.tokenizer.encode(self.encoder.frame.end,
                                                       add_special_tokens=False))
        self.more: dict | None = dict(logprobs=True, return_token_ids=True)
        self.tokenizes = True

    def ask(self, messages: list[dict]) -> Observed:
        body = dict(model=self.name, messages=messages, max_tokens=self.limit, temperature=0)
        if self.encoder.chat_template_kwargs:
            body['chat_template_kwargs'] = self.encoder.chat_template_kwargs
        told = self._chat(body)
        try:
            choice = told['choices'][0]
            text = choice['message']['content'] or ''
            usage = told.get('usage') or {}
            entries = (choice.get('logprobs') or {}).get('content') or []
            logps = tuple(float(entry['logprob']) for entry in entries)
            finished = choice.get('finish_reason') == 'stop'
            ids, read = choice.get('token_ids'), told.get('prompt_token_ids')
            ids = None if ids is None else tuple(map(int, ids))
            read = None if read is None else tuple(map(int, read))
            total = usage.get('prompt_tokens')
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f'the server answers without what the API of chat completions says '
                             f'({type(error).__name__} {error}): {shown(told, 200)}. Is it '
                             'OpenAI-compatible?') from None
        if ids is None:
            ids = tuple(self.encoder.ids_of_text(text))
            ids += self.end if finished else ()
            if len(logps) not in (len(ids), len(ids) - finished):
                logps = ()  # of other tokens
        if read is None:
            read = self._tokenized(body, total)
        alone = None
        if read is None and total is not None:
            alone = self._without_picture(body)
        return Observed(Generated(text, len(ids), finished, ids, logps), read, total, alone,
                        self.limit)

    def _chat(self, body: dict) -> Any:
        """With all that vLLM can tell; some servers refuse what they do not know."""
        while True:
            try:
                return self.post('chat/completions', {**body, **(self.more or {})})
            except RefusedError:
                if not self.more:
                    raise
                self.more.popitem()

    def _tokenized(self, body: dict, total: int | None) -> tuple[int, ...] | None:
        """A prompt's ids by vLLM's ``/tokenize``; a picture may be one id in it."""
        if not self.tokenizes:
            return None
        try:
            told = self.post('/tokenize', {key: body[key] for key in (
                'model', 'messages', 'chat_template_kwargs') if key in body})
            ids = [int(token) for token in told['tokens']]
        except (ValueError, KeyError, TypeError):
            self.tokenizes = False
            return None
        image = self.encoder.family.image_token_id
        if total is not None and len(ids) != total and ids.count(image) == 1:
            at = ids.index(image)
            ids[at:at + 1] = [image] * max(total - len(ids) + 1, 0)
        return tuple(ids)

    def _without_picture(self, body: dict) -> int | None:
        messages = [dict(message, content=[part for part in message['content'] if part['type'] ==
                                           'text']) if message['role'] == 'user' else message
                    for message in body['messages']]
        try:
            told = self.post('chat/completions', dict(body, messages=messages, max_tokens=1))
            return int(told['usage']['prompt_tokens'])
        except (ValueError, KeyError, TypeError):
            return None
