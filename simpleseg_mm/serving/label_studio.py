"""Label Studio's ML-backend protocol: ``/health``, ``/setup``, ``/predict``, ``/webhook``.

From the requests that label-studio-ml documents. Positions are in percent of the upright picture.
"""
import re
import time
import urllib.parse
from datetime import datetime, timezone

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..structures import Prompt
from .http import refusal_of, read_json
from .pictures import Picture, from_base64
from .studio_pictures import Fetcher
from .studio_regions import (EXPRESSIONS, MAX_ASKED, Config, expressions_of, label_for,
                             read_context, read_label_config, regions)

MAX_TASKS = 100  # of one request; Label Studio sends all that are selected
BATCH_SECONDS = 80.0  # after which no further task of a request is begun: it waits for 100
_FETCHES = 4  # pictures that are fetched at a time
_LOCAL = re.compile(r'(?:https?://[^/]+)?(?:/[^?]*)?/data/local-files/?\?(.*)', re.I | re.S)


class LabelStudio:
    """The endpoints.

    Args:
        api: holds engine, pictures and settings.

    Raises:
        ValueError: ``settings.label_studio_url`` or ``label_studio_key`` is none.
    """

    def __init__(self, api) -> None:
        self.api = api
        settings = api.settings
        self.fetcher: Fetcher | None = None
        if settings.label_studio_url:
            self.fetcher = Fetcher(settings.label_studio_url, settings.label_studio_key,
                                   int(settings.max_mb * 1e6))
        self._fetching = anyio.CapacityLimiter(_FETCHES)
        self.version = f'simpleseg-{__version__}-{api.model_name}'
        self.routes = [
            Route('/health', self.health), Route('/setup', self.setup, methods=['POST']),
            Route('/predict', self.predict, methods=['POST']),
            Route('/webhook', self.webhook, methods=['POST']),
            Route('/train', self.webhook, methods=['POST']),
            Route('/versions', self.versions), Route('/metrics', self.metrics)]

    async def health(self, request: Request) -> Response:
        """For X-AnyLabeling, too, whose servers say how many models they have."""
        return JSONResponse(dict(status='UP', model_class='SimpleSeg', v2=True, models_loaded=1,
                                 timestamp=datetime.now(timezone.utc).isoformat()))

    async def setup(self, request: Request) -> Response:
        """Called when a project connects: its config must be one that answers fit."""
        body = await read_json(request)
        if body.get('schema'):
            read_label_config(body['schema'])
        return JSONResponse(dict(model_version=self.version))

    async def versions(self, request: Request) -> Response:
        return JSONResponse(dict(versions=[self.version]))

    async def metrics(self, request: Request) -> Response:
        return JSONResponse({})

    async def webhook(self, request: Request) -> Response:
        """Events of a project are acknowledged; nothing is trained here."""
        await read_json(request)
        return JSONResponse(dict(status='ok'), 201)

    async def predict(self, request: Request) -> Response:
        """Predictions of each task: of its labels or expressions, or of what was drawn.

        Of several tasks one that fails has an ``error`` in place of its ``result``: Label Studio
        then logs it, and takes the others. It has none of them where the request fails.
        """
        body = await read_json(request)
        tasks = body.get('tasks')
        if not isinstance(tasks, list):
            raise ValueError('`tasks` is a list of tasks')
        config = read_label_config(body.get('label_config'))
        params = body.get('params') if isinstance(body.get('params'), dict) else {}
        if len(tasks) > MAX_TASKS:  # for one answer to many tasks it asks again, one by one
            return JSONResponse(dict(results=[self._failed(
                ValueError(f'{len(tasks)} tasks at once; ask for at most {MAX_TASKS}'))]))
        results, errors, start = [], [], time.monotonic()
        for task in tasks:
            try:
                if results and time.monotonic() - start > BATCH_SECONDS:
                    raise ValueError(f'not asked: {len(results)} tasks took {BATCH_SECONDS:g} s, '
                                     'and Label Studio waits no longer. Retrieve it again')
                results.append(await self._task(task, config, params.get('context'), request))
            except (PermissionError, ValueError, HTTPException) as error:
                if isinstance(error, HTTPException) and error.status_code != 500:
                    raise  # the client has gone, or the server stops
                errors.append(error)
                results.append(self._failed(error))
        if errors and len(errors) == len(tasks):
            raise errors[0]
        return JSONResponse(dict(results=results, model_version=self.version))

    def _failed(self, error: Exception) -> dict:
        return dict(model_version=self.version, error=refusal_of(error)[2])

    async def _task(self, task, config: Config, context, request: Request) -> dict:
        data = task.get('data') if isinstance(task, dict) else None
        if not isinstance(data, dict):
            raise ValueError(f'a task has no picture in data.{config.image[1:]}')
        place = config.picture_of(data)
        if not context:
            asked = asked_of(data, config, 'all' in self.api.engine.inferencer.taught.prompts)
        picture = await self._picture(place)
        if context:
            asked = read_context(context, picture.pixels.shape[:2])
            labels = config.labels_of(data)
            asked = [(prompt, label_for(label or prompt.text, labels)) for prompt, label in asked]
        rows, scores = [], []
        for result, name in await self.api.answers(picture, asked, request):
            for one in result.objects:
                found = regions(one, config, name)
                rows += found
                if found and one.confidence is not None:
                    scores.append(one.confidence)
        return dict(model_version=self.version, result=rows,
                    score=sum(scores) / len(scores) if scores else 0.0)

    # --- pictures of tasks ---------------------------------------------------------------------
    async def _picture(self, place: str) -> Picture:
        """The picture that a task names. Raises ImageError, PermissionError."""
        api = self.api
        if place[:5].lower() == 'data:':
            return await api.picture_of(await api.quickly(from_base64, place), 'task')
        local = _LOCAL.fullmatch(place)
        if local and (api.pictures.root is not None or self.fetcher is None):
            return await api.picture_of(*await api.quickly(self._local, local[1]))
        if self.fetcher is None:
            raise PermissionError('this server fetches no addresses: start it with '
                                  '--label-studio-url URL, or --root FOLDER for local files')
        raw = await anyio.to_thread.run_sync(self.fetcher.fetch, place, limiter=self._fetching)
        return await api.picture_of(raw, 'task')

    def _local(self, query: str) -> tuple[bytes, str]:
        """A file of the allowed folder, as ``?d=`` names it: quoted, or as it was typed."""
        value = query.partition('d=')[2]
        names = [urllib.parse.unquote(value), *urllib.parse.parse_qs(query).get('d', []),
                 urllib.parse.unquote(value.partition('&')[0]), value]
        return self.api.pictures.read(*dict.fromkeys(names))


def asked_of(data: dict, config: Config, many: bool) -> list[tuple[Prompt, str]]:
    """What is asked of a task without a context, and the label's name.

    Args:
        many: whether every object of a label is asked for; an expression means one.

    Raises:
        ValueError: there is nothing to ask for, or too much.
    """
    texts = expressions_of(data)
    labels = config.labels_of(data)
    if texts:
        return [(Prompt(text=text), label_for(text, labels)) for text in texts]
    if not labels:
        raise ValueError('there is no label to ask for: neither the config nor the task has one, '
                         f'and the task has no {" or ".join(EXPRESSIONS)}')
    if len(labels) > MAX_ASKED:
        raise ValueError(f'the config has {len(labels)} labels to ask for; at most {MAX_ASKED}. '
                         'Ask for expressions of the task instead')
    return [(Prompt(text=label.text, all=many), label.name) for label in labels]
