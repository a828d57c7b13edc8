"""JSON over HTTP to a server of a model: the one way in which this package asks one.

Requests run on one event loop in a thread of its own, so that a deadline holds for a request as a
whole, however slowly its bytes come.
"""
import asyncio
import json
import math
import os
import ssl
import threading
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar

import httpx2

from ..asking import Unanswered
from ..files import one_line

Given = TypeVar('Given')

# Our choices.
CONNECT_SECONDS = 10.0
MAX_REPLY = 16 << 20  # bytes of an answer as it is sent, log-probabilities included
MAX_WAIT = 120.0  # seconds that a server may ask to wait (Retry-After)
_MAX_DETAIL = 300  # characters of a server's own words
#: what may be done about a fault, by the names of ``simpleseg segment``'s options
REMEDIES = dict(
    slow='Raise --timeout, or ask for less at a time (--batch-size)',
    busy='ask for less at a time (--batch-size), or later',
    key='set OPENAI_API_KEY, or give --api-key',
    size='send smaller pictures (--max-pixels 1003520), or raise its limit',
    model='--served-model-name')
#: words by which a refusal may mean the picture, or the length that it takes
_OF_PICTURES = ('image', 'picture', 'pixel', 'too large', 'too long', 'context', 'length',
                'token', 'size')


class EndpointError(Unanswered):
    """A server did not answer.

    Attributes:
        reason: 'HTTP 429', 'timed out', 'no connection' or 'broken answer'; for counts.
        again: another attempt may do better.
        pause: seconds that the server asks to wait before it; None: it does not say.
        said: the server's own words, or the system's, in one line; '': none.
    """

    def __init__(self, message: str, reason: str, again: bool = False, ends: bool = False,
                 pause: float | None = None, said: str = '') -> None:
        super().__init__(message, ends=ends)
        self.reason, self.again, self.pause, self.said = reason, again, pause, said

    @property
    def refused(self) -> bool:
        """Whether the server does not take what it was given."""
        return self.reason in ('HTTP 400', 'HTTP 422')


class Transport:
    """Asks a server, several requests at a time. Any thread may call it.

    Args:
        url: of the server, ``http://host:8000/v1``; ``/v1`` is added where there is no path.
        api_key: sent as a bearer token; None: none.
        timeout: seconds of one attempt, from its start to the last byte.
        retries: further attempts after 408, 425, 429 and 5xx, a broken answer or connection, or a
            time-out; each after twice the wait, or after what the server asks for. With 0 every
            request has a connection of its own: one that is kept may just have been closed.
        wait: seconds before the first of them.
        concurrency: requests at a time.
        remedies: instead of some of :data:`REMEDIES`.

    Attributes:
        shown: the address, for messages; without a password.

    Raises:
        ValueError: the address, the key or a number is none.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120.0,
                 retries: int = 3, wait: float = 1.0, concurrency: int = 8,
                 remedies: Mapping[str, str] | None = None) -> None:
        for name, value, least in (('timeout', timeout, 1e-3), ('retries', retries, 0),
                                   ('wait', wait, 0), ('concurrency', concurrency, 1)):
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f'{name} is {value}; a number, at least {least:g}')
        self._base = base_url(url)
        self.shown = urllib.parse.urlunsplit(self._base._replace(
            netloc=self._base.netloc.rpartition('@')[2], query=''))
        self.timeout, self.retries, self.wait = timeout, retries, wait
        self.concurrency, self.api_key = concurrency, _checked_key(api_key)
        self.remedies = {**REMEDIES, **(remedies or {})}
        self._opened = os.getpid(), self._open()

    def ask(self, path: str, body: dict | None = None, timeout: float | None = None) -> Any:
        """What the server answers to a GET, or with ``body`` to a POST: any JSON, None where
        nothing stands in the answer. A server that is not there is not asked again.

        Args:
            path: below the address; from the root of the server where it begins with '/'.
            timeout: instead of the usual one.

        Raises:
            EndpointError: it does not answer, or not in JSON; one line.
        """
        future = self.start(path, body, timeout)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, path: str, body: dict | None = None, timeout: float | None = None
              ) -> 'Future[Any]':
        """As :meth:`ask`; a Future of the answer. Where it is cancelled, so is the request."""
        async def attempt() -> Any:
            try:
                return await self.send(path, body, whole_json)
            except EndpointError as fault:
                fault.again &= fault.reason != 'broken answer'  # it is an answer of another kind
                raise
        return self.submit(lambda: self.attempts(attempt, timeout, waits=False))

    # --- for readers of their own --------------------------------------------------------------
    def submit(self, work: Callable[[], Awaitable[Given]]) -> 'Future[Given]':
        """Runs what sends requests, when its turn has come; its result."""
        async def in_turn() -> Given:
            async with self._session()[1]:
                return await work()
        return asyncio.run_coroutine_threadsafe(in_turn(), _loop_of(os.getpid()))

    async def attempts(self, attempt: Callable[[], Awaitable[Given]],
                       timeout: float | None = None, waits: bool = True) -> Given:
        """The result of ``attempt()``, tried again while that may help.

        Args:
            timeout: seconds for one attempt, instead of the usual.
            waits: also for a server that is not there.
        """
        seconds, number = timeout or self.timeout, 0
        while True:
            try:
                return await asyncio.wait_for(attempt(), seconds)
            except asyncio.TimeoutError:
                fault = EndpointError(
                    f'{self.shown} timed out: no whole answer within {seconds:g} s. '
                    f'{self.remedies["slow"]}', 'timed out', again=True,
                    said=f'timed out after {seconds:g} s')
            except EndpointError as error:
                fault = error
            pause = self.wait * 2 ** number if fault.pause is None else fault.pause
            again = fault.again and number < self.retries and (waits or not fault.ends)
            if again and pause <= MAX_WAIT:
                await asyncio.sleep(pause)
                number += 1
                continue
            if again:
                fault.args = (f'{fault}. It asks to wait {pause:.0f} s: try again then', )
            if number:
                fault.args = (f'{fault} ({number + 1} attempts)', )
            raise fault

    async def send(self, path: str, body: dict | None,
                   read: Callable[[httpx2.Response], Awaitable[Given]]) -> Given:
        """What ``read`` makes of the response to one request, which succeeds."""
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._session()[0].stream(
                    'GET' if body is None else 'POST', self._url_of(path), json=body))
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                raise self._no_connection(error) from None
            try:
                if not response.is_success:
                    raise self._refused(response, await _head(response), body or {})
                return await read(response)
            except httpx2.HTTPError as error:
                raise self._no_connection(error) from None
            except EndpointError as fault:
                if fault.reason == 'broken answer':
                    fault.args = (f'{self.shown}: {fault}', )
                raise

    def cut(self, text: str) -> str:
        """A server's words for a message: a line, without the key."""
        text = self._line(text)
        return text if len(text) <= _MAX_DETAIL else f'{text[:_MAX_DETAIL]}...'

    # --- parts ---------------------------------------------------------------------------------
    def _line(self, text: str) -> str:
        text = ' '.join(one_line(text).split())
        return text.replace(self.api_key, '***') if self.api_key else text

    def _open(self) -> tuple[httpx2.AsyncClient, asyncio.Semaphore]:
        headers = {'Accept-Encoding': 'identity'}
        if self.api_key:
            headers['Authorization'] = f'Bearer {self.api_key}'
        kept = self.concurrency if self.retries else 0
        try:
            http = httpx2.AsyncClient(
                headers=headers, limits=httpx2.Limits(max_keepalive_connections=kept),
                timeout=httpx2.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS)))
        except (ImportError, ValueError, OSError) as error:  # of HTTP_PROXY, SSL_CERT_FILE, ...
            raise ValueError("the environment's settings of proxies or certificates cannot be "
                             f'used: {self.cut(str(error))}') from None
        return http, asyncio.Semaphore(self.concurrency)

    def _session(self) -> tuple[httpx2.AsyncClient, asyncio.Semaphore]:
        """Connections of this process: a forked one has its own."""
        if self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _url_of(self, path: str) -> str:
        base, (path, _, query) = self._base.path, path.partition('?')
        base = base.removesuffix('/v1') if path.startswith('/') else f'{base}/'
        return urllib.parse.urlunsplit(self._base._replace(
            path=base + path, query='&'.join(filter(None, (self._base.query, query)))))

    # --- faults --------------------------------------------------------------------------------
    def _no_connection(self, error: Exception) -> EndpointError:
        said = self.cut(_cause(error))
        if isinstance(error, httpx2.TimeoutException):
            never = isinstance(error, httpx2.ConnectTimeout)
            where = 'does not accept a connection' if never else 'timed out'
            return EndpointError(f'{self.shown} {where}: is the server busy, or the address '
                                 f'another? {self.remedies["slow"]}', 'timed out', again=True,
                                 ends=never, said='timed out')
        never = isinstance(error, (httpx2.ConnectError, httpx2.UnsupportedProtocol,
                                   httpx2.InvalidURL))
        return EndpointError(
            f'no connection to {self.shown} ({said}): start the server, or correct the address'
            if never else f'the connection to {self.shown} broke ({said}): its log may say why',
            'no connection', again=True, ends=never, said=said)

    def _refused(self, response: httpx2.Response, head: bytes, body: dict) -> EndpointError:
        code, said = response.status_code, self._line(_said(head))
        detail = f'HTTP {code}' + (f': {self.cut(said)}' if said else '')
        again = code in (408, 425, 429) or (code >= 500 and code not in (501, 505))
        ends = code in (401, 403, 404) or 300 <= code < 400
        if code in (401, 403):
            does = ('refuses the API key' if self.api_key else 'wants an API key') + \
                f': {self.remedies["key"]}'
        elif code == 404:
            does = ('has no such model or address: the address of the API ends in /v1 as a rule, '
                    f'and {self.remedies["model"]} names the model')
        elif 300 <= code < 400:
            does = f'sends on to {self.cut(response.headers.get("location", "?"))}: give that ' \
                   'address'
        elif code == 413 or (code in (400, 422) and any(w in said.lower() for w in _OF_PICTURES)):
            does = f'does not take a request of this size: {self.remedies["size"]}'
        elif code == 429:
            does = f'has too many requests: {self.remedies["busy"]}'
        elif again:
            does = 'failed: its log says why'
        else:
            does = 'refuses the request'
        return EndpointError(f'{self.shown} {does} ({detail})', f'HTTP {code}', again, ends,
                             _retry_after(response.headers.get('retry-after')), said)


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


def _checked_key(key: str | None) -> str | None:
    key = (key or '').strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError('the API key has characters that no key has: give it again, as one line')
    return key or None


@lru_cache(maxsize=None)
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process, running in a thread; a forked process has its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name='client', daemon=True).start()
    return loop


# --- what a server says ------------------------------------------------------------------------
async def whole_json(response: httpx2.Response) -> Any:
    """The JSON of an answer; None where nothing stands in it. EndpointError where it is none."""
    raw = bytearray()
    async for part in response.aiter_bytes():
        raw += part
        if len(raw) > MAX_REPLY:
            raise broken(f'more than {MAX_REPLY >> 20} MB')
    kind, _, _ = response.headers.get('content-type', '').partition(';')
    if kind.strip().lower() == 'text/html' or raw.lstrip()[:1] == b'<':
        raise broken('a page of HTML: is this the address of the API? It ends in /v1 as a rule',
                     bytes(raw))
    return parsed(bytes(raw)) if raw.strip() else None


def parsed(raw: bytes) -> Any:
    """JSON; EndpointError where it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise broken('it is no JSON object', raw) from None


def broken(why: str, raw: bytes = b'') -> EndpointError:
    """What is raised for an answer of another form, whose beginning may be told."""
    said = one_line(raw[:2000].decode('utf-8', 'replace'))
    return EndpointError(f'the server answers with something else: {why}', 'broken answer',
                         again=True, said=said)


def detail(said: Any) -> str:
    """The words in an error's JSON, whatever its form."""
    for key in ('error', 'message', 'detail'):
        if isinstance(said, dict) and said.get(key):
            return detail(said[key])
    return said if isinstance(said, str) else json.dumps(said)[:2000] if said else ''


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
        return detail(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _cause(error: BaseException) -> str:
    """The words of what lies under an error of the library."""
    while deeper := error.__cause__ or error.__context__ or getattr(error, 'exceptions', (0, ))[0]:
        error = deeper
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (
            error.errno or 0) > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


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
