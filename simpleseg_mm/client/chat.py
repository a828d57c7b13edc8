"""Chat completions of any OpenAI-compatible server: one client for all that ask one.

Requests run on one event loop in a thread of its own, so that a deadline holds for a request as a
whole, however slowly its bytes come.
"""
import asyncio
import base64
import io
import json
import math
import os
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache

import httpx2
from PIL import Image

from ..asking import Unanswered
from ..files import one_line

# Our choices.
CONNECT_SECONDS = 10.0
LOOK_SECONDS = 15.0  # for what is asked beside answers: the models
MAX_REPLY = 16 << 20  # of an answer as it is sent, log-probabilities included
MAX_WAIT = 120.0  # seconds that a server may ask to wait (Retry-After)
_MAX_DETAIL = 300  # characters of a server's own words
#: what not every server takes: left out where one says so
OPTIONAL = ('logprobs', 'stream_options', 'repetition_penalty', 'seed', 'chat_template_kwargs')
#: words by which a refusal may mean the picture, or the length that it takes
_OF_PICTURES = ('image', 'picture', 'pixel', 'too large', 'too long', 'context', 'length',
                'token', 'size')


class EndpointError(Unanswered):
    """A server did not answer.

    Attributes:
        reason: 'HTTP 429', 'timed out', 'no connection' or 'broken answer'; for counts.
        again: another attempt may do better.
        pause: seconds that the server asks to wait before it; None: it does not say.
    """

    def __init__(self, message: str, reason: str, again: bool = False, ends: bool = False,
                 pause: float | None = None) -> None:
        super().__init__(message, ends=ends)
        self.reason, self.again, self.pause = reason, again, pause


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
        url: of the server, ``http://host:8000/v1``; ``/v1`` is added where there is no path.
        api_key: sent as a bearer token; None: none.
        timeout: seconds of one attempt, from its start to the last byte.
        retries: further attempts after 408, 425, 429 and 5xx, a broken answer or connection, or a
            time-out; each after twice the wait, or after what the server asks for.
        wait: seconds before the first of them.
        concurrency: requests at a time.

    Raises:
        ValueError: the address, the key or a number is none.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120.0,
                 retries: int = 3, wait: float = 1.0, concurrency: int = 8) -> None:
        for name, value, least in (('timeout', timeout, 1e-3), ('retries', retries, 0),
                                   ('wait', wait, 0), ('concurrency', concurrency, 1)):
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f'{name} is {value}; a number, at least {least:g}')
        self.base = base_url(url)
        self.shown = _without_password(self.base)
        self.timeout, self.retries, self.wait = timeout, retries, wait
        self.api_key = _checked_key(api_key)
        headers = {'Accept-Encoding': 'identity'}
        if self.api_key:
            headers['Authorization'] = f'Bearer {self.api_key}'
        try:
            self._http = httpx2.AsyncClient(
                headers=headers, limits=httpx2.Limits(max_keepalive_connections=concurrency),
                timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)))
        except (ImportError, ValueError, OSError) as error:  # of HTTP_PROXY, SSL_CERT_FILE, ...
            raise ValueError("the environment's settings of proxies or certificates cannot be "
                             f'used: {one_line(str(error))[:_MAX_DETAIL]}') from None
        self._slots = asyncio.Semaphore(concurrency)
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
        return asyncio.run_coroutine_threadsafe(self._ask(body, on_text), _loop_of(os.getpid()))

    def models(self) -> list[dict]:
        """What the server says that it serves: dicts with 'id'.

        Raises:
            EndpointError: it does not answer, or with something else.
        """
        found = self._look('GET', _join(self.base, '/models'), None)
        data = found.get('data') if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise EndpointError(
                f'{self.shown}/models holds no list of models: is this the address of an '
                'OpenAI-compatible server? It ends in /v1 as a rule', 'broken answer', ends=True)
        return [entry for entry in data
                if isinstance(entry, dict) and isinstance(entry.get('id'), str)]

    def tokenize(self, model: str, text: str) -> list[int] | None:
        """Token ids of a text by the server's tokenizer (vLLM, SGLang, llama.cpp); None where it
        does not say."""
        root = self.base._replace(path=self.base.path.removesuffix('/v1'))
        body = dict(model=model, prompt=text, content=text, add_special_tokens=False,
                    add_special=False)
        try:
            found = self._look('POST', _join(root, '/tokenize'), body)
        except EndpointError:
            return None
        tokens = found.get('tokens') if isinstance(found, dict) else None
        return tokens if isinstance(tokens, list) and all(
            type(token) is int for token in tokens) else None

    # --- in the loop ---------------------------------------------------------------------------
    def _look(self, method: str, url: str, body: dict | None):
        """JSON of one short request."""
        async def look():
            reading = _Reading(None)
            await self._send(method, url, body, reading)
            return reading.json
        return _result(asyncio.run_coroutine_threadsafe(
            self._again(look, min(self.timeout, LOOK_SECONDS), waits=False),
            _loop_of(os.getpid())))

    async def _ask(self, body: dict, on_text) -> Reply:
        started, longest = time.monotonic(), Reply()

        async def attempt() -> Reply:
            nonlocal longest
            reading = _Reading(on_text)
            try:
                await self._send('POST', _join(self.base, '/chat/completions'),
                                 {key: value for key, value in body.items()
                                  if key not in self._left_out}, reading)
            except httpx2.HTTPError:
                if reading.reply.finish_reason is None:
                    raise
            finally:
                if len(reading.reply.text or '') > len(longest.text or ''):
                    longest = reading.reply
            if reading.reply.finish_reason is None:
                raise _broken(f'it is no chat completion: {self._cut(_detail(reading.json))}')
            return reading.reply

        async with self._slots:
            reply = await self._again(attempt, self.timeout,
                                      lambda: longest if longest.text else None)
        reply.seconds = time.monotonic() - started
        return reply

    async def _again(self, attempt, seconds: float, instead=lambda: None, waits: bool = True):
        """The result of ``attempt()``, tried again while that may help; at the end what
        ``instead()`` has, the reason in its ``broken``.

        Args:
            seconds: for one attempt.
            waits: also for a server that is not there.
        """
        number = 0
        while True:
            left_out = len(self._left_out)
            try:
                return await asyncio.wait_for(attempt(), seconds)
            except asyncio.TimeoutError:
                fault = EndpointError(
                    f'{self.shown} timed out: no whole answer within {seconds:g} s. Raise '
                    '--timeout, or ask for less at a time (--batch-size)', 'timed out', again=True)
            except EndpointError as error:
                fault = error
                if len(self._left_out) > left_out:  # asked again without it
                    continue
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                fault = self._no_connection(error)
            if not fault.again or number >= self.retries or (fault.ends and not waits):
                return self._given_up(fault, number, instead())
            pause = self.wait * 2 ** number if fault.pause is None else fault.pause
            if pause > MAX_WAIT:
                fault.args = (f'{fault}. It asks to wait {pause:.0f} s: try again then', )
                return self._given_up(fault, number, instead())
            await asyncio.sleep(pause)
            number += 1

    def _given_up(self, fault: EndpointError, number: int, partial: Reply | None) -> Reply:
        message = f'{fault}' + (f' ({number + 1} attempts)' if number else '')
        if partial is None:
            fault.args = (message, )
            raise fault
        partial.broken = message
        return partial

    async def _send(self, method: str, url: str, body: dict | None, reading: '_Reading') -> None:
        async with self._http.stream(method, url, json=body) as response:
            if response.status_code != 200:
                raise self._refused(response, await _head(response), body or {})
            kind = response.headers.get('content-type', '').partition(';')[0].strip().lower()
            if kind == 'text/event-stream':
                await reading.events(response)
            else:
                await reading.whole(response, kind)

    # --- faults --------------------------------------------------------------------------------
    def _no_connection(self, error: Exception) -> EndpointError:
        if isinstance(error, httpx2.TimeoutException):
            where = 'does not accept a connection' if isinstance(
                error, httpx2.ConnectTimeout) else 'timed out'
            return EndpointError(f'{self.shown} {where}: is the server busy, or the address '
                                 'another? Raise --timeout where it is slow', 'timed out',
                                 again=True, ends=isinstance(error, httpx2.ConnectTimeout))
        never = isinstance(error, (httpx2.ConnectError, httpx2.UnsupportedProtocol,
                                   httpx2.InvalidURL))
        said = self._cut(str(error)) or type(error).__name__
        return EndpointError(
            f'no connection to {self.shown} ({said}): start the server, or correct the address'
            if never else f'the connection to {self.shown} broke ({said}): its log may say why',
            'no connection', again=True, ends=never)

    def _refused(self, response: httpx2.Response, head: bytes, body: dict) -> EndpointError:
        code, whole = response.status_code, _said(head)
        said = self._cut(whole)
        detail = f'HTTP {code}' + (f': {said}' if said else '')
        again = code in (408, 425, 429) or (code >= 500 and code not in (501, 505))
        if code in (400, 422):
            for key in OPTIONAL:
                if key in body and key in whole and key not in self._left_out:
                    self._left_out.add(key)
                    break
        ends = code in (401, 403, 404) or 300 <= code < 400
        if code in (401, 403):
            does = ('refuses the API key: set OPENAI_API_KEY, or give --api-key' if self.api_key
                    else 'wants an API key: set OPENAI_API_KEY, or give --api-key')
        elif code == 404:
            does = ('has no such model or address: the address of the API ends in /v1 as a rule, '
                    'and --served-model-name names the model')
        elif 300 <= code < 400:
            does = f'sends on to {self._cut(response.headers.get("location", "?"))}: give that ' \
                   'address'
        elif code == 413 or (code in (400, 422) and any(w in whole.lower() for w in _OF_PICTURES)):
            does = ('does not take a request of this size: send smaller pictures (--max-pixels '
                    '1003520), or raise its limit')
        elif code == 429:
            does = 'has too many requests: ask for less at a time (--batch-size), or later'
        elif again:
            does = 'failed: its log says why'
        else:
            does = 'refuses the request'
        return EndpointError(f'{self.shown} {does} ({detail})', f'HTTP {code}', again, ends,
                             _retry_after(response.headers.get('retry-after')))

    def _cut(self, text: str) -> str:
        """A server's words in a line, without the key."""
        text = ' '.join(one_line(text).split())
        if self.api_key:
            text = text.replace(self.api_key, '***')
        return text if len(text) <= _MAX_DETAIL else f'{text[:_MAX_DETAIL]}...'


class _Ended(Exception):
    """The caller wants no more."""


class _Reading:
    """What has been read of an answer."""

    def __init__(self, on_text) -> None:
        self.reply, self.json = Reply(), None
        self._on_text, self._pieces = on_text, 0
        self._counted = False

    async def events(self, response: httpx2.Response) -> None:
        size = 0
        try:
            async for event in httpx2.EventSource(response):
                size += len(event.data)
                if size > MAX_REPLY:
                    raise _broken(f'more than {MAX_REPLY >> 20} MB')
                if event.data.strip() == '[DONE]':
                    self.reply.finish_reason = self.reply.finish_reason or 'stop'
                    break
                if event.data:
                    self._take(_parsed(event.data.encode()), 'delta')
        except _Ended:
            self.reply.finish_reason = 'ended'
        except httpx2.SSEError as error:
            raise _broken(str(error)) from None
        if self.reply.finish_reason is None:
            raise EndpointError('the server ended the answer in its midst: its log may say why',
                                'broken answer', again=True)

    async def whole(self, response: httpx2.Response, kind: str) -> None:
        raw = bytearray()
        async for part in response.aiter_bytes():
            raw += part
            if len(raw) > MAX_REPLY:
                raise _broken(f'more than {MAX_REPLY >> 20} MB')
        if kind == 'text/html' or raw.lstrip()[:1] == b'<':
            raise _broken('a page of HTML: is this the address of the API? It ends in /v1 as a '
                          'rule')
        self.json = _parsed(bytes(raw))
        if self.json.get('choices') or self.json.get('error'):
            try:
                self._take(self.json, 'message')
            except _Ended:
                pass
            self.reply.finish_reason = self.reply.finish_reason or 'stop'

    def _take(self, said: dict, place: str) -> None:
        """One event, or a whole answer."""
        reply = self.reply
        if said.get('error'):
            raise EndpointError(f'the server failed: {_detail(said)[:_MAX_DETAIL]}',
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
            raise _broken('it is no chat completion') from None
        if isinstance(reason, str):
            reply.finish_reason = reason
        reply.token_logps += _logps(choice)
        if isinstance(piece, str):
            self._pieces += bool(piece)
            # halves of characters, which JSON may name, cannot be written to files
            reply.text = (reply.text or '') + piece.encode('utf-8', 'replace').decode()
        elif piece is not None:
            raise _broken('its content is no text')
        if not self._counted:
            reply.num_tokens = len(reply.token_logps) or self._pieces
        if piece and self._on_text is not None and self._on_text(reply.text):
            raise _Ended


# --- parts -----------------------------------------------------------------------------------
def base_url(url: str) -> urllib.parse.SplitResult:
    """The address below which ``/chat/completions`` lies.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urllib.parse.urlsplit(str(url).strip())
        parts.port  # read, so that it is checked
        good = parts.scheme in ('http', 'https') and parts.hostname
    except ValueError:
        good = False
    if not good:
        raise ValueError(f'the endpoint is {str(url)[:200]!r}; give an address such as '
                         'http://localhost:8000/v1')
    path = parts.path.rstrip('/')
    for end in ('/chat/completions', '/completions', '/models'):
        path = path.removesuffix(end)
    return parts._replace(path=path or '/v1', fragment='')


def data_url(picture: Image.Image, kind: str, **options) -> str:
    """A picture as a ``data:`` address, 'PNG' or 'JPEG', with Pillow's options of that format."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}'


def _join(base: urllib.parse.SplitResult, path: str) -> str:
    return urllib.parse.urlunsplit(base._replace(path=base.path + path))


def _without_password(base: urllib.parse.SplitResult) -> str:
    return urllib.parse.urlunsplit(base._replace(netloc=base.netloc.rpartition('@')[2], query=''))


def _checked_key(key: str | None) -> str | None:
    key = (key or '').strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError('the API key has characters that no key has: give it again, as one line')
    return key or None


@lru_cache(maxsize=None)
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process, running in a thread; a forked process has its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name='chat', daemon=True).start()
    return loop


def _result(future: Future):
    """What a Future gives; where waiting is interrupted, it is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _head(response: httpx2.Response) -> bytes:
    """The beginning of an error's body."""
    raw = bytearray()
    async for part in response.aiter_bytes():
        raw += part
        if len(raw) > 1 << 16:
            break
    return bytes(raw)


def _said(head: bytes) -> str:
    """A server's message in the body of an error; a page of HTML is named as one."""
    text = head.decode('utf-8', 'replace').strip()
    if text.startswith('<'):
        return 'a page of HTML'
    try:
        return _detail(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _detail(said) -> str:
    """The words in an error's JSON, whatever its form."""
    for key in ('error', 'message', 'detail'):
        if isinstance(said, dict) and said.get(key):
            return _detail(said[key])
    return said if isinstance(said, str) else json.dumps(said)[:2000]


def _logps(choice: dict) -> list[float]:
    """Log-probabilities of a piece's tokens; none where they are not as the API says."""
    try:
        logps = [float(entry['logprob']) for entry in choice['logprobs']['content']]
    except (LookupError, TypeError, ValueError):
        return []
    return [value for value in logps if not math.isnan(value)]


def _parsed(raw: bytes) -> dict:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _broken('it is no JSON object')
    return said


def _broken(why: str) -> EndpointError:
    return EndpointError(f'the server answers with something else: {why}', 'broken answer',
                         again=True)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a header asks to wait: a number, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        seconds = (moment - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
