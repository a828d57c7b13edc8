"""The server around the app: how many connections, and how long they may take.

uvicorn reads a request as long as its sender takes, and a connection costs a file descriptor. Here
a request's head has a deadline, and so has a peer that does not read its answer. Where there are
too many connections, those that have not finished a request's head make room, the oldest first.
(Bodies are the guard's: see :mod:`.guard`.)
"""
import asyncio
import errno
import logging
import socket
from collections import Counter

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None

LOG = logging.getLogger(__name__)
_SPARE_FILES = 64  # descriptors for all that is no connection
_WANTED_FILES = 4096
_BUSY = (b'HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\n'
         b'content-type: application/json\r\ncontent-length: 51\r\n\r\n'
         b'{"error": "too many connections; try again in 2 s"}')
_LATE = (b'HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n')


class Connections:
    """All connections of a server.

    Args:
        limit: of connections, less where the system allows fewer descriptors.
        client_limit: of connections of one address.
        head_seconds: for a request's head, and for a peer to read on.
    """

    def __init__(self, limit: int, client_limit: int, head_seconds: float) -> None:
        self.limit = max(8, min(limit, _descriptors() - _SPARE_FILES))
        self.client_limit, self.head_seconds = client_limit, head_seconds
        self._open: dict[Connection, None] = {}  # the oldest first
        self._clients: Counter = Counter()

    def add(self, connection: 'Connection') -> bool:
        """Whether there is room for it, or room was made."""
        address = connection.address
        if self._clients[address] >= self.client_limit:
            if not self._make_room(address):
                return False
        elif len(self._open) >= self.limit and not self._make_room(None):
            return False
        self._open[connection] = None
        self._clients[address] += 1
        return True

    def remove(self, connection: 'Connection') -> None:
        if connection in self._open:
            del self._open[connection]
            self._clients[connection.address] -= 1
            if not self._clients[connection.address]:
                del self._clients[connection.address]

    def _make_room(self, address: str | None) -> bool:
        """Close the oldest connection that waits for a head, of this address or of any."""
        for connection in self._open:
            if connection.reads_head and address in (None, connection.address):
                connection.transport.abort()
                self.remove(connection)
                return True
        return False


class Connection(H11Protocol):
    """uvicorn's, with deadlines."""
    connections_of_server: Connections

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        send = self.conn.send
        self.conn.send = lambda event: send(_with_reason(event))
        self.address = self.client[0] if self.client else ''
        self._timer: asyncio.TimerHandle | None = None
        if not self.connections_of_server.add(self):
            transport.write(_BUSY)
            transport.close()
            return
        self._arm()

    def connection_lost(self, exc) -> None:
        self._disarm()
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:  # the peer does not read
        super().pause_writing()
        self._arm()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm()

    @property
    def reads_head(self) -> bool:
        """Whether no whole head of a request is here, and no request is being answered."""
        return self.conn.their_state is h11.IDLE and (
            self.cycle is None or self.cycle.response_complete)

    def _watch_head(self) -> None:
        if not self.reads_head:
            if not self.flow.write_paused:
                self._disarm()
        elif self.conn.trailing_data[0]:  # else uvicorn closes it, by its time to keep it alive
            self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.connections_of_server.head_seconds,
                                               self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.reads_head:
            self.transport.write(_LATE)
            self.transport.close()
        else:
            self.transport.abort()


def _with_reason(event):
    """An answer whose status has what ``x-error`` says for its reason: clients that raise for the
    status, as those of annotation tools, show nothing else of it."""
    if not isinstance(event, h11.Response):
        return event
    said = next((value for key, value in event.headers if key == b'x-error'), event.reason)
    return h11.Response(status_code=event.status_code, reason=said, headers=[
        (key, value) for key, value in event.headers if key != b'x-error'])


def check_address(host: str, port: int) -> None:
    """Refuse an address that nothing can listen at here.

    Raises:
        ValueError: it has no such name or port, or another program has the port.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f'--port is {port}; give 1 to 65535, or 0 for any free one')
    faults = []
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        places, faults = [], [error]
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(place)
        except OSError as error:
            faults.append(error)
    if faults and (len(faults) >= len(places)
                   or any(error.errno == errno.EADDRINUSE for error in faults)):
        raise ValueError(f'nothing can listen at {host}, port {port} '
                         f'({getattr(faults[0], "strerror", None) or faults[0]}): give another '
                         '--host or --port')


def make_server(app, settings, host: str, port: int, **options) -> uvicorn.Server:
    """A server of the app with the limits of ``settings``; ``options`` are uvicorn's."""
    connections = Connections(settings.max_connections, settings.max_client_connections,
                              settings.head_seconds)
    protocol = type('Connection', (Connection, ), dict(connections_of_server=connections))
    return uvicorn.Server(uvicorn.Config(app, host=host, port=port, http=protocol, ws='none',
                                         access_log=False, server_header=False, **options))


def _descriptors() -> int:
    """How many files this process may open, raised as far as it may be and is of use."""
    if resource is None:
        return _WANTED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            LOG.warning('at most %d files may be open; raise it with ulimit -n', soft)
    return _WANTED_FILES if soft == resource.RLIM_INFINITY else soft
