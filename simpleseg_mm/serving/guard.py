"""Around the whole app: who may talk to it, how much may be sent, what a browser may do.

A server on the loopback address is reached by every web page that the user has open. A page of
another site is told by its Origin; a name that was made to point here (DNS rebinding) by Host.
"""
import ipaddress
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.exceptions import HTTPException

from .http import as_reason

_DRAIN, _DRAIN_SECONDS = 10, 10  # of a refused body: times the limit, seconds
_RATE = 50_000  # bytes a second that a body comes in at least, after the first seconds
_CLOSE = {'connection': 'close'}

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
_HEADERS = [(b'content-security-policy', CSP.encode()), (b'x-content-type-options', b'nosniff'),
            (b'referrer-policy', b'no-referrer'), (b'cache-control', b'no-store'),
            (b'cross-origin-resource-policy', b'same-origin'),
            (b'cross-origin-opener-policy', b'same-origin')]


@dataclass(eq=False)
class _Body:
    """A request's body, as far as it has come."""
    client: str
    size: int = 0
    whole: bool = False
    refused: bool = False
    scope: anyio.CancelScope | None = None  # of waiting for its next piece


class Bodies:
    """The bodies of all requests that are not answered yet.

    Args:
        max_held: bytes of all together; a client's part is half. Where they are more, the largest
            that is still being sent is refused.
    """

    def __init__(self, max_held: int) -> None:
        self.max_held = max_held
        self._all: list[_Body] = []

    def open(self, client: str) -> _Body:
        self._all.append(body := _Body(client))
        return body

    def close(self, body: _Body) -> None:
        self._all.remove(body)

    def grow(self, body: _Body, size: int) -> None:
        """Count what has come. Where it is too much, the largest that is not whole is refused."""
        body.size += size
        own = [one for one in self._all if one.client == body.client]
        for bodies, limit in ((own, self.max_held // 2), (self._all, self.max_held)):
            held = [one for one in bodies if not one.refused]
            sent = [one for one in held if not one.whole]
            if sent and sum(one.size for one in held) > limit:
                largest = max(sent, key=lambda one: one.size)
                largest.refused = True
                if largest.scope is not None:
                    largest.scope.cancel()


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        hosts: names (without port) under which the server may be called, besides localhost and
            addresses in numbers.
        max_bytes: of a request's body.
        max_held: bytes of the bodies of all requests that are not answered yet.
        body_seconds: in which a body is to come, longer by what a slow line needs for its size.
    """

    def __init__(self, app, hosts: Sequence[str], max_bytes: int, max_held: int = 10**9,
                 body_seconds: float = 20.0) -> None:
        self.app, self.max_bytes, self.body_seconds = app, max_bytes, body_seconds
        self.bodies = Bodies(max(max_held, 2 * max_bytes))
        self.hosts = {'localhost', *(host.lower() for host in hosts)}

    async def __call__(self, scope, receive, send) -> None:
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = {key.lower(): value.decode('latin-1') for key, value in scope['headers']}
        fault = self._fault(headers)
        if fault is not None:
            await self._drain(receive)
            await _refuse(send, *fault)
            return
        body = self.bodies.open((scope.get('client') or ('', 0))[0])
        start = time.monotonic()

        async def limited():
            if body.whole:  # from here on it is told when the client goes
                return await receive()
            message = await self._received(receive, body, start)
            body.whole = not message.get('more_body')
            self.bodies.grow(body, len(message.get('body', b'')))
            if body.size > self.max_bytes:  # a body without Content-Length
                await self._drain(receive)
                raise HTTPException(413, self._too_much(), _CLOSE)
            if body.refused:
                raise self._busy()
            return message

        async def answer(message):
            if message['type'] == 'http.response.start':
                more = [] if body.whole or headers.get(b'content-length', '0') == '0' and \
                    b'transfer-encoding' not in headers else [(b'connection', b'close')]
                message = dict(message, headers=[*message.get('headers', ()), *_HEADERS, *more])
            await send(message)

        try:
            await self.app(scope, limited, answer)
        finally:
            self.bodies.close(body)

    async def _received(self, receive, body: _Body, start: float) -> dict:
        """The next piece of a body. Raises HTTPException: it is late (408), or others need the
        room (503)."""
        deadline = start + self.body_seconds + body.size / _RATE
        message: dict | None = None
        with anyio.move_on_after(deadline - time.monotonic()) as body.scope:
            message = await receive()
        body.scope = None
        if body.refused:
            raise self._busy()
        if message is None:
            raise HTTPException(408, f'the request is not whole after {self.body_seconds:g} s; '
                                'send it faster, or a smaller picture', _CLOSE)
        return message

    async def _drain(self, receive) -> None:
        """Read on and forget, within bounds: who still sends does not read an answer."""
        seen = 0
        with anyio.move_on_after(_DRAIN_SECONDS):
            while seen <= _DRAIN * self.max_bytes:
                message = await receive()
                seen += len(message.get('body', b''))
                if message['type'] != 'http.request' or not message.get('more_body'):
                    break

    def _fault(self, headers: dict):
        """Status and message of a request that is refused, or None."""
        host = headers.get(b'host', '')
        if not self._known(host):
            return 421, (f'this server is not called {host!r:.80}; start it with --allow-host '
                         'NAME if that name is yours')
        if _other_site(headers.get(b'origin'), host):
            return 403, 'pages of other sites may not use this server'
        if headers.get(b'sec-fetch-site') in ('cross-site', 'same-site') \
                and headers.get(b'sec-fetch-mode') != 'navigate':
            return 403, 'pages of other sites may not use this server'
        length = headers.get(b'content-length', '0')
        if not length.isdecimal() or len(length) > 18 or int(length) > self.max_bytes:
            return 413, self._too_much()
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name.lower() in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _too_much(self) -> str:
        return (f'the request has more than {self.max_bytes / 1e6:g} MB; send a smaller picture, '
                'or start the server with --max-mb')

    @staticmethod
    def _busy() -> HTTPException:
        return HTTPException(503, 'too much is being sent to this server at once; try again in '
                             'a few seconds', {'retry-after': '2', **_CLOSE})


def _other_site(origin: str | None, host: str) -> bool:
    try:
        return origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


async def _refuse(send, status: int, message: str) -> None:
    body = json.dumps(dict(error=message)).encode()
    await send(dict(type='http.response.start', status=status, headers=[
        (b'content-type', b'application/json'), (b'content-length', str(len(body)).encode()),
        (b'x-error', as_reason(message).encode()), (b'connection', b'close'), *_HEADERS]))
    await send(dict(type='http.response.body', body=body))
