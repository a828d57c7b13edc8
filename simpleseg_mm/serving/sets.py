"""Complete data sets that the page puts together picture by picture: ``/api/sets``."""
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..export import check_format
from ..files import upright_size
from . import edited
from .engine import Busy
from .http import client_of, parse_json, read_json, while_there
from .outlines import checked_review
from .packing import PACKED

MAX_SETS = 32  # of all clients
MAX_CLIENT_SETS = 4
MAX_SET_PICTURES = 10_000
MAX_AGE = 3600.0  # seconds since a set was asked for last
_SWEEP = 60.0  # seconds between looks for old ones
_MAX_PATH = 1000  # characters of a picture's name


@dataclass
class _Picture:
    """A picture of a set.

    Attributes:
        name: below the folder of all pictures.
        size: (h, w), upright.
        file: where it lies.
        document: where what is on it lies; None where nothing was sent.
        held: bytes of both, as far as they are of this set alone.
    """
    name: str
    size: tuple[int, int]
    file: Path
    document: Path | None = None
    held: int = 0


@dataclass(eq=False)
class _Set:
    """A set that is being put together."""
    client: str
    format: str
    exact: bool
    folder: Path
    pictures: list[_Picture] = field(default_factory=list)
    packed: int = 0  # bytes of its zip
    notes: list[str] | None = None  # of its zip; None: there is none yet
    used: float = field(default_factory=time.monotonic)
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def held(self) -> int:
        return self.packed + sum(picture.held for picture in self.pictures)


class Sets:
    """The endpoints; docs/serving.md describes them.

    Args:
        api: holds exporter, pictures and settings.
    """

    def __init__(self, api) -> None:
        self.api = api
        self.max_bytes = int(api.settings.set_mb * 1e6)
        self._sets: dict[str, _Set] = {}
        self._folder: Path | None = None
        self.routes = [
            Route('/api/sets', self.create, methods=['POST']),
            Route('/api/sets/{set}', self.get, methods=['GET']),
            Route('/api/sets/{set}', self.delete, methods=['DELETE']),
            Route('/api/sets/{set}/pictures', self.add_picture, methods=['POST']),
            Route('/api/sets/{set}/objects', self.add_objects, methods=['POST'])]

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Sets are kept while this is open, and removed when they are old."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._sweep)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                self._sets.clear()
                if self._folder is not None:
                    shutil.rmtree(self._folder, ignore_errors=True)

    async def create(self, request: Request) -> Response:
        """Begin a set."""
        body = await read_json(request)
        check_format(body.get('format'), PACKED)
        exact = body.get('exact', False)
        if not isinstance(exact, bool):
            raise ValueError('`exact` is true or false')
        client = client_of(request)
        own = sorted((one for one in self._sets.items() if one[1].client == client),
                     key=lambda one: one[1].used)
        for key, _ in own[:max(0, len(own) - MAX_CLIENT_SETS + 1)]:  # left by a page that has gone
            await self._remove(key)
        if len(self._sets) >= MAX_SETS:
            raise Busy(503, f'{MAX_SETS} sets are being put together; try again in some minutes')
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix='simpleseg-sets-'))
        key = secrets.token_urlsafe(12)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        self._sets[key] = _Set(client, body['format'], exact, folder)
        return JSONResponse(dict(set=key), 201)

    async def add_picture(self, request: Request) -> Response:
        """Add a picture: its file is the body, or is named by ``path`` below --root."""
        one, asked = self._known(request), request.query_params
        async with one.lock:
            if len(one.pictures) >= MAX_SET_PICTURES:
                raise ValueError(f'a set has at most {MAX_SET_PICTURES} pictures')
            file, held = one.folder / f'{len(one.pictures)}.picture', 0
            path = asked.get('path')
            name = asked.get('name') or path or ''
            if not name or len(name) > _MAX_PATH:
                raise ValueError('`name` is the path of the picture below the folder of all, at '
                                 f'most {_MAX_PATH} characters')
            if path is not None:
                place = await self.api.quickly(self.api.pictures.place_of, path)
                raw, _ = await self.api.quickly(self.api.pictures.read, path)
            else:
                raw = await request.body()
                if not raw:
                    raise ValueError('the picture is empty: send its bytes as the body')
                place, held = file, len(raw)
                self._check_room(one, held)
            size = await self.api.decoded(upright_size, raw, name, self.api.pictures.max_pixels)
            if held:
                await self.api.quickly(_written, file, raw)
            one.notes = None
            one.pictures.append(_Picture(name, size, place, held=held))
            return JSONResponse(dict(number=len(one.pictures) - 1, width=size[1],
                                     height=size[0]), 201)

    async def add_objects(self, request: Request) -> Response:
        """Say what is on a picture; what was said before is forgotten."""
        one, raw = self._known(request), await request.body()
        body = await self.api.quickly(parse_json, raw)
        number = body.get('number')
        if type(number) is not int or not 0 <= number < len(one.pictures):
            raise ValueError(f'`number` is that of a picture of the set, 0 to '
                             f'{len(one.pictures) - 1}; got {number!r:.40}')
        picture = one.pictures[number]
        await self.api.quickly(_check, picture.size, body)
        async with one.lock:
            before = 0 if picture.document is None else picture.document.stat().st_size
            self._check_room(one, len(raw) - before)
            document = one.folder / f'{number}.json'
            await self.api.quickly(_written, document, raw)
            picture.document, picture.held = document, picture.held + len(raw) - before
            one.notes = None
        return JSONResponse(dict(number=number, objects=len(body['objects'])))

    async def get(self, request: Request) -> Response:
        """The set as a zip."""
        one = self._known(request)
        async with one.lock:
            if one.notes is None:
                rows = [dict(name=picture.name, size=picture.size, file=str(picture.file),
                             document=picture.document and str(picture.document))
                        for picture in one.pictures]
                self._check_room(one, one.held - one.packed)
                one.notes = await while_there(request, self.api.exporter.pack(
                    str(one.folder), one.format, one.exact, rows))
                one.packed = (one.folder / 'set.zip').stat().st_size
            one.used = time.monotonic()
            headers = {'x-notes': quote(json.dumps(one.notes, ensure_ascii=False))} \
                if one.notes else {}
            return FileResponse(one.folder / 'set.zip', headers=headers,
                                media_type='application/zip', filename=f'{one.format}.zip')

    async def delete(self, request: Request) -> Response:
        """Forget a set."""
        self._known(request)
        await self._remove(request.path_params['set'])
        return Response(status_code=204)

    # --- parts ---------------------------------------------------------------------------------
    def _known(self, request: Request) -> _Set:
        one = self._sets.get(request.path_params['set'])
        if one is None:
            raise HTTPException(404, 'there is no such set (any more): begin it again')
        one.used = time.monotonic()
        return one

    def _check_room(self, one: _Set, more: int) -> None:
        """413 where ``more`` bytes of a set are too many."""
        if sum(other.held for other in self._sets.values()) + more > self.max_bytes:
            raise HTTPException(413, f'the sets have more than {self.max_bytes / 1e6:g} MB: fetch '
                                'or delete one, or put the pictures in several sets')

    async def _remove(self, key: str) -> None:
        one = self._sets.pop(key, None)
        if one is not None:
            await self.api.quickly(shutil.rmtree, one.folder, True)

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(_SWEEP)
            old = time.monotonic() - MAX_AGE
            for key in [key for key, one in self._sets.items()
                        if one.used < old and not one.lock.statistics().locked]:
                await self._remove(key)


def _check(size: tuple[int, int], body: dict) -> None:
    """ValueError where a document is none, or more than is taken."""
    checked_review(body)
    edited.check_objects(size, body.get('objects'), edited.MAX_SET_PIXELS)


def _written(path: Path, raw: bytes) -> None:
    """Write a file whole. HTTPException 507: the disk is full."""
    try:
        path.write_bytes(raw)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HTTPException(507, f"the server's disk takes no more: {error.strerror}") from None
