"""Around the whole app: who may talk to it, how much may be sent, what a browser may do.

A server on the loopback address is reached by every web page that the user has open. A page of
another site is told by its Origin; a name that was made to point here (DNS rebinding) by Host.
"""
import ipaddress
import json
from typing import Sequence
from urllib.parse import urlsplit

import anyio
from starlette.exceptions import HTTPException

_DRAIN, _DRAIN_SECONDS = 10, 10  # of a refused body: times the limit, seconds

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
_HEADERS = [(b'content-security-policy', CSP.encode()), (b'x-content-type-options', b'nosniff'),
            (b'referrer-policy', b'no-referrer'), (b'cache-control', b'no-store'),
            (b'cross-origin-resource-policy', b'same-origin'),
            (b'cross-origin-opener-policy', b'same-origin')]


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        hosts: names (without port) under which the server may be called, besides localhost and
            addresses in numbers.
        max_bytes: of a request's body.
    """

    def __init__(self, app, hosts: Sequence[str], max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes
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
        seen = 0

        async def limited():
            nonlocal seen
            message = await receive()
            seen += len(message.get('body', b''))
            if seen > self.max_bytes:  # a body without Content-Length
                await self._drain(receive)
                raise HTTPException(413, self._too_much())
            return message

        async def answer(message):
            if message['type'] == 'http.response.start':
                message = dict(message, headers=[*message.get('headers', ()), *_HEADERS])
            await send(message)

        await self.app(scope, limited, answer)

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
        origin = headers.get(b'origin')
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, 'pages of other sites may not use this server'
        if headers.get(b'sec-fetch-site') in ('cross-site', 'same-site') \
                and headers.get(b'sec-fetch-mode') != 'navigate':
            return 403, 'pages of other sites may not use this server'
        length = headers.get(b'content-length', '0')
        if not length.isdecimal() or int(length) > self.max_bytes:
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


async def _refuse(send, status: int, message: str) -> None:
    body = json.dumps(dict(error=message)).encode()
    await send(dict(type='http.response.start', status=status, headers=[
        (b'content-type', b'application/json'), (b'content-length', str(len(body)).encode()),
        (b'connection', b'close'), *_HEADERS]))
    await send(dict(type='http.response.body', body=body))
