"""Label Studio's ML-backend protocol: ``/health``, ``/setup``, ``/predict``, ``/webhook``.

From the requests that label-studio-ml documents. Regions come as polygons in percent.
"""
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from typing import List, Optional, Tuple
from xml.etree import ElementTree

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..files import ImageError
from ..export.rings import keyhole
from ..structures import Prompt, Segmentation
from .pictures import Picture

MAX_CONFIG = 200_000  # characters of a labelling config
MAX_TASKS = 100  # of one request
TIMEOUT = 20.0  # seconds for a picture
#: keys of a task's data that hold expressions to ask for instead of the labels
EXPRESSIONS = ('expression', 'expressions')


@dataclass(frozen=True)
class Config:
    """What a labelling config says: names of the controls, the key of the picture, the labels."""
    from_name: str
    to_name: str
    key: str
    labels: Tuple[str, ...]


def read_config(text) -> Config:
    """The first ``PolygonLabels`` of a labelling config. Raises ValueError."""
    if not isinstance(text, str) or len(text) > MAX_CONFIG or '<!' in text.replace('<!--', ''):
        raise ValueError('label_config is a short XML text without a DOCTYPE')
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f'label_config is not XML: {error}') from None
    images = {tag.get('name'): tag.get('value', '') for tag in root.iter('Image')}
    for tag in root.iter('PolygonLabels'):
        to_name = tag.get('toName', '')
        if tag.get('name') and images.get(to_name, '').startswith('$'):
            labels = tuple(label.get('value', '') for label in tag.iter('Label'))
            return Config(tag.get('name'), to_name, images[to_name][1:],
                          tuple(filter(None, labels)))
    raise ValueError('label_config needs <Image name="image" value="$image"/> and '
                     '<PolygonLabels name="label" toName="image">: answers are polygons')


def read_context(context, size: Tuple[int, int]) -> List[Tuple[Prompt, Optional[str]]]:
    """Prompts and labels of what the annotator has just drawn or written.

    Args:
        context: ``dict(result=[region, ...])`` with regions of type keypoint, rectangle (with or
            without labels) or textarea; positions are in percent.
        size: (h, w) of the picture.

    Raises:
        ValueError: a region cannot be read, or none is of these types.
    """
    found = []
    for region in (context or {}).get('result') or []:
        kind = region.get('type', '') if isinstance(region, dict) else ''
        value = region.get('value') if isinstance(region, dict) else None
        if not isinstance(value, dict):
            raise ValueError('a region of the context has no value')
        labels = value.get(kind) or value.get('labels') or [None]
        scale = np.array(size[::-1], np.float64) / 100
        try:
            if kind.startswith('keypoint'):
                if region.get('is_positive') in (0, False):
                    continue  # the model takes one point on the object
                point = np.array([value['x'], value['y']], np.float64) * scale
                found.append((Prompt(point=tuple(point)), labels[0]))
            elif kind.startswith('rectangle'):
                x, y, w, h = (float(value[key]) for key in ('x', 'y', 'width', 'height'))
                box = np.array([x, y, x + w, y + h]) * np.tile(scale, 2)
                found.append((Prompt(box=tuple(box)), labels[0]))
            elif kind == 'textarea':
                texts = value['text'] if isinstance(value['text'], list) else [value['text']]
                found += [(Prompt(text=text), None) for text in texts]
        except (KeyError, TypeError) as error:
            raise ValueError(f'a {kind} of the context cannot be read: {error!r}') from None
    if not found:
        raise ValueError('the context holds no keypoint, rectangle or text')
    return found[-1:] if found[-1][0].kind != 'text' else found


def regions(result: Segmentation, config: Config, label: Optional[str]) -> List[dict]:
    """An answer as Label Studio's regions, one a part; holes are cut open."""
    height, width = result.size
    scale = 100 / np.array([width, height], np.float64)
    name = label if label in config.labels else (config.labels or (result.label,))[0]
    rows = []
    for part in result.parts:
        points = (keyhole(part.outer, part.holes) * scale).clip(0, 100)
        row = dict(id=uuid.uuid4().hex[:10], from_name=config.from_name, to_name=config.to_name,
                   type='polygonlabels', original_width=width, original_height=height,
                   image_rotation=0, origin='prediction', value=dict(
                       points=points.round(4).tolist(), closed=True, polygonlabels=[name]))
        if result.confidence is not None:
            row['score'] = result.confidence
        rows.append(row)
    return rows


class LabelStudio:
    """The endpoints. Args: ``api``, which holds engine, pictures and settings."""

    def __init__(self, api) -> None:
        self.api = api
        self.version = f'simpleseg-{__version__}-{api.model_name}'
        self.routes = [
            Route('/health', self.health), Route('/setup', self.setup, methods=['POST']),
            Route('/predict', self.predict, methods=['POST']),
            Route('/webhook', self.webhook, methods=['POST']),
            Route('/train', self.webhook, methods=['POST']),
            Route('/versions', self.versions), Route('/metrics', self.metrics)]

    async def health(self, request: Request) -> Response:
        return JSONResponse(dict(status='UP', model_class='SimpleSeg', v2=True))

    async def setup(self, request: Request) -> Response:
        """Called when a project connects: its config must be one that polygons fit."""
        from .app import read_json
        body = await read_json(request)
        if body.get('schema'):
            read_config(body['schema'])
        return JSONResponse(dict(model_version=self.version))

    async def versions(self, request: Request) -> Response:
        return JSONResponse(dict(versions=[self.version]))

    async def metrics(self, request: Request) -> Response:
        return JSONResponse({})

    async def webhook(self, request: Request) -> Response:
        """Events of a project are acknowledged; nothing is trained here."""
        from .app import read_json
        await read_json(request)
        return JSONResponse(dict(status='ok'), 201)

    async def predict(self, request: Request) -> Response:
        """Predictions of each task: of its labels or expressions, or of what was drawn."""
        from .app import read_json
        body = await read_json(request)
        tasks = body.get('tasks')
        if not isinstance(tasks, list) or len(tasks) > MAX_TASKS:
            raise ValueError(f'`tasks` is a list of at most {MAX_TASKS} tasks')
        config = read_config(body.get('label_config'))
        params = body.get('params') if isinstance(body.get('params'), dict) else {}
        results = [await self._task(task, config, params.get('context'), request)
                   for task in tasks]
        return JSONResponse(dict(results=results, model_version=self.version))

    async def _task(self, task, config: Config, context, request: Request) -> dict:
        data = task.get('data') if isinstance(task, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get(config.key), str):
            raise ValueError(f'a task has no picture in data.{config.key}')
        picture = await self.api._decode(self._picture, data[config.key])
        if context:
            asked = read_context(context, picture.pixels.shape[:2])
        else:
            asked = self._asked(data, config)
        rows, scores = [], []
        for result, label in await self._answers(picture, asked, request):
            found = regions(result, config, label)
            rows += found
            if found and result.confidence is not None:
                scores.append(result.confidence)
        return dict(model_version=self.version, result=rows,
                    score=sum(scores) / len(scores) if scores else 0.0)

    @staticmethod
    def _asked(data: dict, config: Config) -> List[Tuple[Prompt, Optional[str]]]:
        texts = next((data[key] for key in EXPRESSIONS if data.get(key)), None)
        if texts is None:
            return [(Prompt(text=label), label) for label in config.labels]
        texts = texts if isinstance(texts, list) else [texts]
        return [(Prompt(text=text), None) for text in texts[:50]]

    async def _answers(self, picture: Picture, asked, request: Request) -> list:
        """Answers in order, at most a batch at a time."""
        from .app import client_of, wait
        engine, answers = self.api.engine, []
        step = min(engine.batch_size, engine.max_client)
        for start in range(0, len(asked), step):
            jobs = [(engine.submit(picture.pixels, prompt, client_of(request), False), label)
                    for prompt, label in asked[start:start + step]]
            try:
                answers += [(await wait(job, request), label) for job, label in jobs]
            finally:
                for job, _ in jobs:
                    job.cancelled = True
        return answers

    # --- pictures of tasks ---------------------------------------------------------------------
    def _picture(self, place: str) -> Picture:
        """The picture that a task names. Raises ImageError, PermissionError."""
        pictures = self.api.pictures
        if place.startswith('data:'):
            return pictures.decode(place)
        address = urllib.parse.urlsplit(place)
        if not address.scheme and address.path.startswith('/data/local-files/'):
            return pictures.read(urllib.parse.parse_qs(address.query).get('d', [''])[0])
        base = self.api.settings.label_studio_url
        if not base:
            raise PermissionError('this server fetches no addresses: start it with '
                                  '--label-studio-url URL, or --root FOLDER for local files')
        url = urllib.parse.urljoin(base.rstrip('/') + '/', place)
        if _site(url) != _site(base):
            raise PermissionError(f'pictures are fetched from {base} alone')
        return Picture('', 'task', pictures.open(self._fetch(url), 'the picture of the task'))

    def _fetch(self, url: str) -> bytes:
        limit = int(self.api.settings.max_mb * 1e6)
        request = urllib.request.Request(url)
        if self.api.settings.label_studio_key:
            request.add_header('Authorization', f'Token {self.api.settings.label_studio_key}')
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as answer:
                raw = answer.read(limit + 1)
        except (OSError, ValueError) as error:
            raise ImageError(f'Label Studio did not give the picture: {error}') from None
        if len(raw) > limit:
            raise ImageError('the picture is too large for this server')
        return raw


def _site(url: str) -> Tuple[str, str]:
    address = urllib.parse.urlsplit(url)
    return address.scheme, address.netloc.lower()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs):
        return None  # a token must not follow to another place


_OPENER = urllib.request.build_opener(_NoRedirects)
