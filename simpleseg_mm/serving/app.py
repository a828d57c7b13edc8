"""The web app: the page, the JSON API behind it, and Label Studio's protocol."""
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import AsyncIterator, Optional, Sequence, Tuple
from urllib.parse import quote

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..export import FORMATS
from ..structures import Prompt, Segmentation
from . import edited
from .engine import Busy, Engine, Job
from .guard import Guard
from .http import client_of, error_response, read_json, wait
from .label_studio import LabelStudio
from .pictures import Picture, Pictures, as_jpeg

STATIC = Path(__file__).parent / 'static'
_DECODERS = 2  # pictures that are unpacked at a time


@dataclass(frozen=True)
class Settings:
    """What a server takes and allows. The numbers are our choice.

    Attributes:
        max_mb: megabytes of a request.
        max_megapixels: of a picture.
        picture_mb: decoded pictures that are kept, in megabytes; the oldest go first.
        root: folder whose files a request may name by path; None: none.
        hosts: names by which the server may be called, besides localhost and numeric addresses.
        label_studio_url, label_studio_key: where Label Studio's uploads are fetched from, and the
            token for it; None: nothing is fetched.
    """
    max_mb: float = 20.0
    max_megapixels: float = 25.0
    picture_mb: float = 500.0
    root: Optional[str] = None
    hosts: Sequence[str] = ()
    label_studio_url: Optional[str] = None
    label_studio_key: Optional[str] = None


class Api:
    """Handlers of the JSON API; docs/serving.md describes requests and answers."""

    def __init__(self, engine: Engine, settings: Settings, model_name: str) -> None:
        self.engine, self.settings, self.model_name = engine, settings, model_name
        self.pictures = Pictures(int(settings.max_megapixels * 1e6),
                                 int(settings.picture_mb * 1e6), settings.root)
        self._decoding = anyio.CapacityLimiter(_DECODERS)

    async def info(self, request: Request) -> Response:
        """What runs here and what it takes."""
        return JSONResponse(dict(
            version=__version__, model=self.model_name, formats=sorted(FORMATS),
            waiting=self.engine.waiting, max_queue=self.engine.max_queue,
            max_client=self.engine.max_client, max_mb=self.settings.max_mb,
            max_megapixels=self.settings.max_megapixels, paths=self.pictures.root is not None))

    async def add_picture(self, request: Request) -> Response:
        """Upload: the body is the picture's file."""
        picture = await self._decode(self.pictures.add, await request.body(),
                                     request.query_params.get('name', ''))
        height, width = picture.pixels.shape[:2]
        return JSONResponse(dict(picture=picture.id, name=picture.name, width=width,
                                 height=height), 201)

    async def get_picture(self, request: Request) -> Response:
        """An uploaded picture, upright, as JPEG."""
        picture = self._kept(request.path_params['key'])
        return Response(await self._decode(as_jpeg, picture.pixels), media_type='image/jpeg')

    async def segment(self, request: Request) -> Response:
        """One prompt about one picture, as JSON or, with ``stream``, as lines of events."""
        body = await read_json(request)
        prompt = Prompt.of(body.get('prompt'))
        stream = body.get('stream', False)
        if not isinstance(stream, bool):
            raise ValueError('`stream` is true or false')
        self.engine.check(prompt)
        picture = await self._picture(body)
        job = self.engine.submit(picture.pixels, prompt, client_of(request), stream)
        if stream:
            return StreamingResponse(self._lines(job, picture.name),
                                     media_type='application/x-ndjson')
        return JSONResponse(as_row(await wait(job, request), picture.name))

    async def export(self, request: Request) -> Response:
        """Edited outlines as a file of an annotation format."""
        body = await read_json(request)
        size, name = self._size(body)
        exact = body.get('exact', False) is True
        results = await self._decode(edited.read_objects, name, size, body.get('objects'))
        file, kind, content = await self._decode(edited.write, results, body.get('format'), exact)
        return Response(content, media_type=kind, headers={
            'content-disposition': f"attachment; filename*=UTF-8''{quote(file)}"})

    # --- parts ---------------------------------------------------------------------------------
    async def _decode(self, function, *args):
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._decoding)

    async def _picture(self, body: dict) -> Picture:
        given = [key for key in ('picture', 'image', 'path') if body.get(key) is not None]
        if len(given) != 1 or not isinstance(body[given[0]], str):
            raise ValueError('give one of `picture` (the id of an upload), `image` (base64) and '
                             '`path` (in the allowed folder), a text')
        value = body[given[0]]
        if given == ['picture']:
            return self._kept(value)
        name = body.get('name') if isinstance(body.get('name'), str) else ''
        return await (self._decode(self.pictures.decode, value, name) if given == ['image'] else
                      self._decode(self.pictures.read, value))

    def _kept(self, key: str) -> Picture:
        try:
            return self.pictures.get(key)
        except KeyError:
            raise HTTPException(404, 'there is no such picture (any more): send it again'
                                ) from None

    def _size(self, body: dict) -> Tuple[Tuple[int, int], str]:
        """(h, w) and name of the picture that an export is about."""
        if isinstance(body.get('picture'), str):
            picture = self._kept(body['picture'])
            return picture.pixels.shape[:2], picture.name
        width, height, name = (body.get(key) for key in ('width', 'height', 'name'))
        if not all(isinstance(n, int) and 0 < n for n in (width, height)) \
                or width * height > self.pictures.max_pixels:
            raise ValueError('give `picture`, or `width` and `height` within the limits')
        return (height, width), str(name or 'picture.png')[:200]

    async def _lines(self, job: Job, name: str) -> AsyncIterator[bytes]:
        """Events as lines of JSON. A connection that closes ends the writing of the answer."""
        try:
            yield line(dict(event='queued', waiting=self.engine.waiting))
            while True:
                event = await job.events.get()
                if event['event'] == 'done':
                    event = dict(event, result=as_row(event['result'], name))
                yield line(event)
                if event['event'] in ('done', 'error'):
                    return
        finally:
            job.cancelled = True


def line(event: dict) -> bytes:
    return (json.dumps(event, ensure_ascii=False) + '\n').encode()


def as_row(result: Segmentation, name: str) -> dict:
    """An answer as JSON; see docs/serving.md."""
    return dict(result.to_dict(), image=name, label=result.label)


def create_app(engine: Engine, settings: Settings = Settings(), model_name: str = 'nano'
               ) -> Starlette:
    """The ASGI app; the engine is closed with it.

    Raises:
        FileNotFoundError: ``settings.root`` is not there.
    """
    api = Api(engine, settings, model_name)
    studio = LabelStudio(api)

    async def page(request: Request) -> Response:
        return Response((STATIC / 'index.html').read_bytes(),
                        media_type='text/html; charset=utf-8')

    @asynccontextmanager
    async def lifespan(app):
        yield
        await anyio.to_thread.run_sync(engine.close)

    kinds = (HTTPException, Busy, PermissionError, ValueError, RecursionError)
    return Starlette(
        routes=[
            Route('/', page), Route('/api/info', api.info),
            Route('/api/pictures', api.add_picture, methods=['POST']),
            Route('/api/pictures/{key}', api.get_picture),
            Route('/api/segment', api.segment, methods=['POST']),
            Route('/api/export', api.export, methods=['POST']),
            *studio.routes,
            Mount('/static', StaticFiles(directory=STATIC))],
        middleware=[Middleware(Guard, hosts=settings.hosts,
                               max_bytes=int(settings.max_mb * 1e6))],
        exception_handlers={kind: error_response for kind in (*kinds, Exception)},
        lifespan=lifespan)
