"""The web app: the page, the JSON API behind it, and the protocols of Label Studio and
X-AnyLabeling."""
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from ..files.pictures import MAX_SIDE
from ..settings import check_fields, is_within
from ..structures import Prompt, Segmentation
from ..taught import ASKED
from .engine import Busy, Engine, Job
from .exporter import Exporter
from .folder import Folder
from .guard import Guard
from .http import client_of, error_response, parse_json, read_json, wait, while_there
from .label_studio import LabelStudio
from .packing import formats_of_sets
from .pictures import Picture, Pictures, as_jpeg, from_base64, file_name, seconds_of
from .sets import Sets
from .studio_pictures import Fetcher
from .xanylabeling import XAnyLabeling

STATIC = Path(__file__).parent / 'static'
_FIELDS = ('picture', 'image', 'path', 'name', 'prompt', 'stream', 'consensus')  # of a question
_DECODERS = 2  # pictures that are decoded at a time, of the quick and of the slow ones each
_FOLDER_THREADS = 4  # that read and write annotations at a time
_QUICK = 1.0  # seconds that a quick one takes at most


@dataclass(frozen=True)
class Settings:
    """What a server takes and allows. The numbers are our choice.

    Attributes:
        max_mb: megabytes of a request.
        max_megapixels: of a picture.
        picture_mb: decoded pictures that are kept, in megabytes; the oldest go first.
        root: folder whose files a request may name by path, and whose pictures the page
            annotates; None: none.
        annotations: format of the annotations in that folder, 'labelme' or 'coco'.
        hosts: names by which the server may be called, besides localhost and numeric addresses.
        held_mb: megabytes of all requests that are not answered yet.
        body_seconds: in which a request is to come, longer by what a slow line needs for its size.
        head_seconds: for a request's head, and for a client to read on.
        max_connections, max_client_connections: of all, and of one address.
        export_seconds, export_mb: time and memory of an export.
        set_mb: megabytes of all data sets that are being put together, on the disk.
        max_consensus: samples that a request may have voted; None: as many as are voted where it
            does not say.
        label_studio_url, label_studio_key: where Label Studio's uploads are fetched from, and the
            token for it; None: nothing is fetched.
    """
    max_mb: float = 20.0
    max_megapixels: float = 25.0
    picture_mb: float = 500.0
    root: str | None = None
    annotations: str = 'labelme'
    hosts: Sequence[str] = ()
    held_mb: float = 200.0
    body_seconds: float = 20.0
    head_seconds: float = 10.0
    max_connections: int = 512
    max_client_connections: int = 128
    export_seconds: float = 10.0
    export_mb: float = 2000.0
    set_mb: float = 4000.0
    max_consensus: int | None = None
    label_studio_url: str | None = None
    label_studio_key: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError or FileNotFoundError."""
        check_fields(self, 'Settings', [
            (name, is_within(getattr(self, name), 1e-6, 1e9), 'a number above 0') for name in (
                'max_mb', 'max_megapixels', 'picture_mb', 'held_mb', 'body_seconds',
                'head_seconds', 'export_seconds', 'export_mb', 'set_mb')])
        if self.root is not None and not Path(self.root).is_dir():
            raise FileNotFoundError(f'there is no folder {self.root}: give one with pictures')
        if self.label_studio_url is not None:
            Fetcher(self.label_studio_url, self.label_studio_key, 1)


class Api:
    """Handlers of the JSON API; docs/serving.md describes requests and answers."""

    def __init__(self, engine: Engine, settings: Settings, model_name: str) -> None:
        self.engine, self.settings, self.model_name = engine, settings, model_name
        self.samples = engine.inferencer.samples
        self.max_samples = max(self.samples, settings.max_consensus or 0)
        self.folder = None if settings.root is None else Folder(settings.root,
                                                                settings.annotations)
        self.pictures = Pictures(int(settings.max_megapixels * 1e6),
                                 int(settings.picture_mb * 1e6), settings.root)
        self._quick, self._slow = (anyio.CapacityLimiter(_DECODERS) for _ in range(2))
        self._files = anyio.CapacityLimiter(_FOLDER_THREADS)
        self.exporter = Exporter(settings.export_seconds, int(settings.export_mb * 1e6))

    async def info(self, request: Request) -> Response:
        """What runs here and what it takes."""
        return JSONResponse(dict(
            version=__version__, model=self.model_name, formats=sorted(FORMATS),
            sets=await self.quickly(formats_of_sets),  # may load pyarrow
            asked=[kind for kind in ASKED if self.engine.inferencer.taught.knows(kind)],
            consensus=self.samples, max_consensus=self.max_samples,
            waiting=self.engine.waiting, max_queue=self.engine.max_queue,
            max_client=self.engine.max_client, max_mb=self.settings.max_mb,
            max_megapixels=self.settings.max_megapixels, paths=self.pictures.root is not None,
            folder=self.folder and self.folder.about()))

    async def add_picture(self, request: Request) -> Response:
        """Upload: the body is the picture's file, or ``path`` names one of the allowed folder."""
        raw, name = await request.body(), request.query_params.get('name', '')
        path = request.query_params.get('path')
        if path is not None and raw:
            raise ValueError('give `path` or a body, not both')
        if path is not None:
            raw, name = await self.quickly(self.pictures.read, path)
        if not raw:
            raise ValueError('the picture is empty: send its bytes as the body')
        picture = await self.decoded(self.pictures.add, raw, name)
        height, width = picture.pixels.shape[:2]
        return JSONResponse(dict(picture=picture.id, name=picture.name, width=width,
                                 height=height, digest=picture.digest), 201)

    async def list_folder(self, request: Request) -> Response:
        """The pictures of the allowed folder."""
        return JSONResponse(await self.in_folder(self._folder().listing))

    async def get_picture(self, request: Request) -> Response:
        """An uploaded picture, upright, as JPEG."""
        picture = self._kept(request.path_params['key'])
        return Response(await self.quickly(as_jpeg, picture.pixels), media_type='image/jpeg')

    async def segment(self, request: Request) -> Response:
        """One prompt about one picture, as JSON or, with ``stream``, as lines of events."""
        body = await read_json(request)
        if unknown := sorted({*body} - {*_FIELDS}):
            raise ValueError(f'there is no field {unknown[0][:50]!r}: give '
                             f'{", ".join(f"`{one}`" for one in _FIELDS)}')
        prompt = Prompt.of(body.get('prompt'))
        stream = body.get('stream', False)
        if not isinstance(stream, bool):
            raise ValueError('`stream` is true or false')
        options = self._options(body)
        self.engine.check(prompt)
        picture = await self._picture(body)
        job = self.engine.submit(picture.pixels, prompt, client_of(request), stream, options)
        if stream:
            return StreamingResponse(self._lines(job, picture.name),
                                     media_type='application/x-ndjson')
        result = await wait(job, request)
        return JSONResponse(await self.quickly(as_row, result, picture.name))

    async def export(self, request: Request) -> Response:
        """Edited outlines as a file of an annotation format."""
        size, name = self._size(await read_json(request))
        made = await while_there(request, self.exporter.export(
            await request.body(), size, name, client_of(request)))
        headers = {'content-disposition': f"attachment; filename*=UTF-8''{quote(made.file)}"}
        if made.notes:
            headers['x-notes'] = quote(json.dumps(made.notes, ensure_ascii=False))
        return Response(made.content, media_type=made.kind, headers=headers)

    async def refine(self, request: Request) -> Response:
        """Outlines with others added or cut away."""
        content = await while_there(request, self.exporter.refine(await request.body(),
                                                                  client_of(request)))
        return Response(content, media_type='application/json')

    async def read(self, request: Request) -> Response:
        """Annotation files of any tool as objects of the pictures that the page has open."""
        content = await while_there(request, self.exporter.read(await request.body(),
                                                                client_of(request)))
        return Response(content, media_type='application/json')

    async def quickly(self, function, *args):
        """Run what takes a second at most in a thread."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._quick)

    async def in_folder(self, function, *args):
        """Run what reads or writes the allowed folder in a thread. It goes on where the client
        goes away: what was begun is written."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._files)

    async def decoded(self, function, raw: bytes, *args):
        """Run ``function(raw, ...)``, which decodes a picture, in a thread: those that take long
        wait for each other, and not the others for them."""
        slow = await self.quickly(seconds_of, raw) > _QUICK
        return await anyio.to_thread.run_sync(partial(function, raw, *args),
                                              limiter=self._slow if slow else self._quick)

    async def picture_of(self, raw: bytes, name: str) -> Picture:
        """A picture that is not kept. Raises ImageError."""
        return Picture('', file_name(name), await self.decoded(self.pictures.open, raw,
                                                               'the picture'))

    async def answers(self, picture: Picture, asked: Sequence[tuple[Prompt, str]],
                      request: Request) -> list[tuple[Segmentation, str]]:
        """Answers to prompts, each with its name, in order; at most a batch is asked at a time.

        Raises:
            ValueError: a prompt does not fit the picture; none is answered then.
        """
        engine, answers = self.engine, []
        step = min(engine.batch_size, engine.max_client)
        for prompt, _ in asked:
            engine.check(prompt, picture.pixels.shape[:2])
        for start in range(0, len(asked), step):
            jobs: list = []
            try:
                for prompt, name in asked[start:start + step]:
                    jobs.append((engine.submit(picture.pixels, prompt, client_of(request), False),
                                 name))
                answers += [(await wait(job, request), name) for job, name in jobs]
            finally:
                for job, _ in jobs:
                    job.cancelled = True
        return answers

    # --- parts ---------------------------------------------------------------------------------
    def _options(self, body: dict) -> dict:
        """How the answer is to be made, where the request says."""
        samples = body.get('consensus')
        if samples is None:
            return {}
        if type(samples) is not int or not 0 <= samples <= self.max_samples:
            raise ValueError(
                f'`consensus` is the number of samples that are voted, 0 to {self.max_samples}'
                + ('' if self.max_samples else ': for more start the server with --max-consensus'))
        return dict(consensus=samples)

    async def _picture(self, body: dict) -> Picture:
        given = [key for key in ('picture', 'image', 'path') if body.get(key) is not None]
        if len(given) != 1 or not isinstance(body[given[0]], str):
            raise ValueError('give one of `picture` (the id of an upload), `image` (base64) and '
                             '`path` (in the allowed folder), a text')
        value = body[given[0]]
        if given == ['picture']:
            return self._kept(value)
        if given == ['image']:
            name = body.get('name') if isinstance(body.get('name'), str) else ''
            return await self.picture_of(await self.quickly(from_base64, value), name)
        return await self.picture_of(*await self.quickly(self.pictures.read, value))

    async def get_annotations(self, request: Request) -> Response:
        """The annotations of a picture of the allowed folder."""
        path = request.query_params.get('path', '')
        return JSONResponse(await self.in_folder(self._folder().read, path))

    async def put_annotations(self, request: Request) -> Response:
        """Save them."""
        folder, path = self._folder(), request.query_params.get('path', '')
        body = await self.quickly(parse_json, await request.body())
        return JSONResponse(await self.in_folder(folder.write, path, body))

    def _folder(self) -> Folder:
        if self.folder is None:
            raise PermissionError('this server has no folder: start it with --root FOLDER')
        return self.folder

    def _kept(self, key: str) -> Picture:
        try:
            return self.pictures.get(key)
        except KeyError:
            raise HTTPException(404, 'there is no such picture (any more): send it again'
                                ) from None

    def _size(self, body: dict) -> tuple[tuple[int, int], str]:
        """(h, w) and name of the picture that an export is about."""
        if isinstance(body.get('picture'), str):
            picture = self._kept(body['picture'])
            return picture.pixels.shape[:2], picture.name
        width, height, name = (body.get(key) for key in ('width', 'height', 'name'))
        if not all(type(n) is int and 0 < n <= MAX_SIDE for n in (width, height)) \
                or width * height > self.pictures.max_pixels:
            raise ValueError('give `picture`, or `width` and `height` within the limits')
        return (height, width), file_name(name if isinstance(name, str) else '')

    async def _lines(self, job: Job, name: str) -> AsyncIterator[bytes]:
        """Events as lines of JSON. A connection that closes ends the writing of the answer."""
        try:
            yield line(dict(event='queued', waiting=self.engine.waiting))
            while True:
                event = await job.events.get()
                if event['event'] == 'done':
                    event = dict(event, result=await self.quickly(as_row, event['result'], name))
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
        ValueError: it holds several COCO files.
    """
    api = Api(engine, settings, model_name)
    sets = Sets(api)
    tools = [*LabelStudio(api).routes, *XAnyLabeling(api).routes]

    async def page(request: Request) -> Response:
        return Response((STATIC / 'index.html').read_bytes(),
                        media_type='text/html; charset=utf-8')

    @asynccontextmanager
    async def lifespan(app):
        async with sets.kept():
            yield
        await api.exporter.close()
        await anyio.to_thread.run_sync(engine.close)

    kinds = (HTTPException, Busy, PermissionError, ValueError, RecursionError)
    app = Starlette(
        routes=[
            Route('/', page), Route('/api/info', api.info),
            Route('/api/pictures', api.add_picture, methods=['POST']),
            Route('/api/pictures/{key}', api.get_picture),
            Route('/api/folder', api.list_folder),
            Route('/api/folder/annotations', api.get_annotations, methods=['GET']),
            Route('/api/folder/annotations', api.put_annotations, methods=['PUT']),
            Route('/api/segment', api.segment, methods=['POST']),
            Route('/api/export', api.export, methods=['POST']),
            Route('/api/refine', api.refine, methods=['POST']),
            Route('/api/read', api.read, methods=['POST']), *sets.routes,
            *tools,
            Mount('/static', StaticFiles(directory=STATIC))],
        middleware=[Middleware(Guard, hosts=settings.hosts,
                               max_bytes=int(settings.max_mb * 1e6),
                               max_held=int(settings.held_mb * 1e6),
                               body_seconds=settings.body_seconds)],
        exception_handlers={kind: error_response for kind in (*kinds, Exception)},
        lifespan=lifespan)
    app.state.folder = api.folder
    return app
