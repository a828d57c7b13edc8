"""Chat completions of any OpenAI-compatible server: one client for all that ask one."""
import asyncio
import base64
import io
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import httpx2
from PIL import Image

from ..files import shown
from .transport import MAX_REPLY, EndpointError, Transport, broken, detail, parsed, whole_json

# Our choices.
LOOK_SECONDS = 15.0  # for what is asked beside answers: the models
LAST_SECONDS = 5.0  # for a count after an answer's end, where the line stays open
#: what not every server takes: left out where one says so
OPTIONAL = ('logprobs', 'stream_options', 'repetition_penalty', 'seed', 'chat_template_kwargs')


@dataclass
class Reply:
    """A chat completion.

    Attributes:
        text: what was written; None where the answer has no text at all.
        finish_reason: as the server says it, 'stop' or 'length'; 'ended' where the caller ended
            it, None where the answer broke off.
        num_tokens: by the server's count; where it does not count, by log-probabilities or pieces.
        token_logps: in nats; empty where the server gives none.
        seconds: from the request to the end.
        broken: why the text ends early, where the server or the line is to blame; else None.
    """
    text: str | None = None
    finish_reason: str | None = None
    num_tokens: int = 0
    token_logps: list[float] = field(default_factory=list)
    seconds: float = 0.0
    broken: str | None = None


class ChatClient:
    """Asks a server for chat completions, several at a time.

    Args:
        url, api_key, timeout, retries, wait, concurrency, remedies: see :class:`Transport`.

    Attributes:
        transport: asks for anything else.

    Raises:
        ValueError: the address, the key or a number is none.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120.0,
                 retries: int = 3, wait: float = 1.0, concurrency: int = 8,
                 remedies: Mapping[str, str] | None = None) -> None:
        self.transport = Transport(url, api_key, timeout, retries, wait, concurrency, remedies)
        self.shown = self.transport.shown
        self._look_seconds = min(timeout, LOOK_SECONDS)
        self._left_out: set[str] = set()  # optional keys that the server does not take

    @property
    def notes(self) -> list[str]:
        """What the server does not take and was left out."""
        return [f'the server does not take {key}; it was left out' +
                (': answers have no confidence' if key == 'logprobs' else '')
                for key in sorted(self._left_out)]

    def start(self, body: dict, on_text: Callable[[str], bool | None] | None = None
              ) -> 'Future[Reply]':
        """Ask; a Future of the :class:`Reply`, which raises :class:`EndpointError`.

        A text that breaks off for good is a Reply all the same, with ``broken``.

        Args:
            body: as the API takes it; with ``stream`` the text comes piece by piece.
            on_text: is given the text so far whenever it grows, in the client's thread; True ends
                the answer. After a failed attempt it begins anew. What it raises is raised.
        """
        return self.transport.submit(lambda: self._ask(body, on_text))

    def models(self) -> list[dict]:
        """What the server says that it serves: dicts with 'id'.

        Raises:
            EndpointError: it does not answer, or with something else.
        """
        found = self.transport.ask('models', timeout=self._look_seconds)
        data = found.get('data') if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise EndpointError(
                f'{self.shown}/models holds no list of models: is this the address of an '
                'OpenAI-compatible server? It ends in /v1 as a rule', 'broken answer', ends=True)
        return [entry for entry in data
                if isinstance(entry, dict) and isinstance(entry.get('id'), str)]

    def served(self, name: str | None = None) -> dict:
        """The entry of the model that is meant.

        Args:
            name: None: the only one that the server serves.

        Raises:
            EndpointError: see :meth:`models`; where the list is absent, empty or broken (that of
                ``transformers serve`` is of the hub's cache), a given name is believed.
            ValueError: it serves no such model, or several; one line.
        """
        try:
            entries = self.models()
        except EndpointError as error:
            if name is None or not (error.reason in ('HTTP 404', 'HTTP 405') or
                                    error.reason.startswith('HTTP 5')):
                raise
            return dict(id=name)
        names, option = [entry['id'] for entry in entries], self.transport.remedies['model']
        if name is not None:
            if not names:
                return dict(id=name)
            if name not in names:
                raise ValueError(f'{self.shown} serves no {shown(name)}; it serves '
                                 f'{_listed(names)}: give one of these as {option}')
            return entries[names.index(name)]
        if len(names) != 1:
            raise ValueError(f'{self.shown} serves {_listed(names)}: ' + (
                f'say which by {option}' if names else
                f'load a model there first, or name it by {option}'))
        return entries[0]

    def tokenize(self, model: str, text: str) -> list[int] | None:
        """Token ids of a text by the server's tokenizer (vLLM, SGLang, llama.cpp); None where it
        does not say."""
        body = dict(model=model, prompt=text, content=text, add_special_tokens=False,
                    add_special=False)
        try:
            found = self.transport.ask('/tokenize', body, self._look_seconds)
        except EndpointError:
            return None
        tokens = found.get('tokens') if isinstance(found, dict) else None
        return tokens if isinstance(tokens, list) and all(
            type(token) is int for token in tokens) else None

    # --- in the loop ---------------------------------------------------------------------------
    async def _ask(self, body: dict, on_text) -> Reply:
        started, longest = time.monotonic(), Reply()

        async def attempt() -> Reply:
            nonlocal longest
            while True:
                reading = _Reading(on_text, self.transport)
                sent = {key: value for key, value in body.items() if key not in self._left_out}
                try:
                    await self.transport.send('chat/completions', sent, reading.take)
                except EndpointError as fault:
                    if self._leave_out(fault, sent):
                        continue
                    if reading.reply.finish_reason is None or fault.reason != 'no connection':
                        raise
                finally:
                    if len(reading.reply.text or '') > len(longest.text or ''):
                        longest = reading.reply
                return reading.reply

        try:
            reply = await self.transport.attempts(attempt)
        except EndpointError as fault:
            if not longest.text:
                raise
            reply, longest.broken = longest, str(fault)
        reply.seconds = time.monotonic() - started
        return reply

    def _leave_out(self, fault: EndpointError, sent: dict) -> bool:
        """Whether the server refuses a key that may be left out; it is, from here on."""
        key = next((key for key in OPTIONAL if key in sent and key in fault.said), None)
        if not fault.refused or key is None:
            return False
        self._left_out.add(key)
        return True


class _Ended(Exception):
    """The caller wants no more."""


class _Reading:
    """What has been read of an answer."""

    def __init__(self, on_text, transport: Transport) -> None:
        self.reply = Reply()
        self._on_text, self._transport, self._pieces = on_text, transport, 0
        self._counted = False

    async def take(self, response: httpx2.Response) -> None:
        """All of it. EndpointError where it is no chat completion, or a part of one."""
        kind = response.headers.get('content-type', '').partition(';')[0].strip().lower()
        await (self._events if kind == 'text/event-stream' else self._whole)(response)

    async def _events(self, response: httpx2.Response) -> None:
        size, events = 0, aiter(httpx2.EventSource(response))
        try:
            while (event := await self._next(events)) is not None:
                size += len(event.data)
                if size > MAX_REPLY:
                    raise broken(f'more than {MAX_REPLY >> 20} MB')
                if event.data.strip() == '[DONE]':
                    self.reply.finish_reason = self.reply.finish_reason or 'stop'
                    break
                if event.data:
                    self._add(parsed(event.data.encode()), 'delta')
        except _Ended:
            self.reply.finish_reason = 'ended'
        except httpx2.SSEError as error:
            raise broken(str(error)) from None
        if self.reply.finish_reason is None:
            raise EndpointError('the server ended the answer in its midst: its log may say why',
                                'broken answer', again=True)

    async def _next(self, events: AsyncIterator):
        """The next event, or None: the stream has ended, or the answer and nothing comes."""
        seconds = None if self.reply.finish_reason is None else LAST_SECONDS
        try:
            return await asyncio.wait_for(anext(events), seconds)
        except (StopAsyncIteration, asyncio.TimeoutError):
            return None

    async def _whole(self, response: httpx2.Response) -> None:
        try:
            self._add(await whole_json(response), 'message')
        except _Ended:  # nothing more would have come
            pass
        self.reply.finish_reason = self.reply.finish_reason or 'stop'

    def _add(self, said: dict, place: str) -> None:
        """One event, or a whole answer."""
        reply = self.reply
        if not isinstance(said, dict):
            raise broken('it is no JSON object')
        if said.get('error'):
            raise EndpointError(f'the server failed: {self._transport.cut(detail(said))}',
                                'broken answer', again=True)
        usage, choices = said.get('usage'), said.get('choices')
        if isinstance(usage, dict) and type(usage.get('completion_tokens')) is int:
            reply.num_tokens, self._counted = usage['completion_tokens'], True
        if not choices and place == 'delta':
            return
        try:
            choice = choices[0]
            piece = (choice.get(place) or {}).get('content')
            reason = choice.get('finish_reason')
        except (LookupError, TypeError, AttributeError):
            raise broken('it is no chat completion: '
                         f'{self._transport.cut(detail(said))}') from None
        if isinstance(reason, str):
            reply.finish_reason = reason
        reply.token_logps += _logps(choice)
        if isinstance(piece, str):
            self._pieces += bool(piece)
            # halves of characters, which JSON may name, cannot be written to files
            reply.text = (reply.text or '') + piece.encode('utf-8', 'replace').decode()
        elif piece is not None:
            raise broken('its content is no text')
        if not self._counted:
            reply.num_tokens = len(reply.token_logps) or self._pieces
        if piece and self._on_text is not None and self._on_text(reply.text):
            raise _Ended


# --- parts -----------------------------------------------------------------------------------
def data_url(picture: Image.Image, kind: str, **options) -> str:
    """A picture as a ``data:`` address, 'PNG' or 'JPEG', with Pillow's options of that format."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}'


def _listed(names: Sequence[str]) -> str:
    if not names:
        return 'no model'
    more = f' and {len(names) - 20} more' if len(names) > 20 else ''
    return ', '.join(map(shown, names[:20])) + more


def _logps(choice: dict) -> list[float]:
    """Log-probabilities of a piece's tokens; none where they are not as the API says."""
    try:
        logps = [float(entry['logprob']) for entry in choice['logprobs']['content']]
    except (LookupError, TypeError, ValueError):
        return []
    return [value for value in logps if not math.isnan(value)]
