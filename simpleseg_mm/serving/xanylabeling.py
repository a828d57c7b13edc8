"""X-AnyLabeling's remote models: ``/v1/models`` and ``/v1/predict``.

From the client's requests and the documented answers of X-AnyLabeling-Server. Positions are pixels
of the upright picture.
"""
import re

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..export.rings import keyhole, plain
from ..files import ImageError
from ..structures import Prompt, Segmentation
from .engine import Busy
from .http import as_reason, refusal_of, read_json
from .pictures import from_base64
from .studio_regions import MAX_ASKED

MODEL = 'simpleseg'  # the model's id
#: label of what was asked by a box or a point; the tool then asks for a name
_UNNAMED = 'AUTOLABEL_OBJECT'


class XAnyLabeling:
    """The endpoints.

    Args:
        api: holds engine, pictures and settings.
    """

    def __init__(self, api) -> None:
        self.api = api
        self.routes = [Route('/v1/models', self.models),
                       Route('/v1/models/{model}/info', self.info),
                       Route('/v1/predict', self.answer, methods=['POST'])]

    async def models(self, request: Request) -> Response:
        return JSONResponse(dict(success=True, data={MODEL: self._described()}))

    async def info(self, request: Request) -> Response:
        if request.path_params['model'] != MODEL:
            return self._no_model(request.path_params['model'])
        return JSONResponse(dict(success=True, data=dict(self._described(), model_id=MODEL)))

    async def answer(self, request: Request) -> Response:
        """:meth:`predict`, whose errors are as the tool's own servers tell them."""
        try:
            return await self.predict(request)
        except (HTTPException, Busy, PermissionError, ValueError, RecursionError) as error:
            status, headers, message = refusal_of(error)
            code = 'INVALID_IMAGE' if isinstance(error, ImageError) else 'INFERENCE_ERROR'
            return JSONResponse(dict(success=False, error=dict(code=code, message=message)),
                                status, headers)

    async def predict(self, request: Request) -> Response:
        """Shapes of what a text, several texts or marks ask for; none where nothing is asked for,
        as when the tool's marks are cleared."""
        body = await read_json(request)
        if body.get('model') != MODEL:
            return self._no_model(body.get('model'))
        params = body.get('params') or {}
        if not isinstance(params, dict):
            raise ValueError('`params` is an object, such as {"text_prompt": "cup"}')
        taught = self.api.engine.inferencer.taught
        asked = prompts_asked(params, 'all' in taught.prompts)
        if not asked:
            return self._shapes([], False)
        if not isinstance(body.get('image'), str):
            raise ValueError('`image` is the picture in base64')
        raw = await self.api.quickly(from_base64, body['image'])
        picture = await self.api.picture_of(raw, 'the picture')
        least = params.get('conf_threshold')
        least = least if isinstance(least, int | float) else 0
        shapes: list[dict] = []
        group = 0
        for result, label in await self.api.answers(picture, asked, request):
            for one in result.objects:
                if one.confidence is None or one.confidence >= least:
                    group += 1
                    shapes += shapes_of(one, label, group)
        # what is drawn round one object does not replace the others, whatever the tool's switch
        return self._shapes(shapes, None if asked[0][0].kind == 'text' else False)

    def _shapes(self, shapes: list[dict], replace: bool | None) -> Response:
        return JSONResponse(dict(success=True, data=dict(shapes=shapes, description='',
                                                         replace=replace)))

    def _described(self) -> dict:
        """The model, with the controls that the tool is to show: those of ways to ask that the
        model was taught."""
        taught = self.api.engine.inferencer.taught
        text, point, box = (taught.knows('text') or taught.knows('all'), taught.knows('point'),
                            taught.knows('box'))
        names = ['edit_text', 'button_send'] * text + ['button_add_point'] * point
        names += ['add_pos_rect', 'button_run_rect'] * box
        names += ['button_clear', 'button_finish_object'] * (point or box)
        widgets = [dict(name=name, value=None) for name in [*names, 'input_conf']]
        widgets += [dict(name='edit_conf', value=0.0),
                    dict(name='toggle_preserve_existing_annotations', value=True)]
        return dict(display_name=f'SimpleSeg ({self.api.model_name})', widgets=widgets, params={},
                    batch_processing_mode='text_prompt' if text else None)

    def _no_model(self, name) -> Response:
        message = f'there is no model {name!r:.60}; this server has {MODEL!r}'
        return JSONResponse(dict(success=False, error=dict(
            code='MODEL_NOT_FOUND', message=message)), 404, {'x-error': as_reason(message)})


def prompts_asked(params: dict, many: bool) -> list[tuple[Prompt, str]]:
    """Prompts and labels of what a request's parameters ask for; empty: nothing.

    A text is there only where the tool has just sent it, so that marks which are still drawn do
    not count then. Texts are told apart by '.' or, where there is none, by ',', as the tool's own
    servers do. Each box is an object; of points, which stay until an object is finished, the last
    counts.

    Args:
        many: whether every object of a text is asked for.

    Raises:
        ValueError: what is asked for is not what the model can be asked.
    """
    marks, text = params.get('marks'), params.get('text_prompt')
    if text is not None and not isinstance(text, str):
        raise ValueError(f'`text_prompt` is a text, got {text!r:.60}')
    if not (text or '').strip():
        prompts = [_prompt_of(mark) for mark in _few(marks, 'marks')] if marks else []
        boxes, points = ([prompt for prompt in prompts if prompt.kind == kind]
                         for kind in ('box', 'point'))
        return [(prompt, _UNNAMED) for prompt in [*boxes, *points[-1:]]]
    texts = [part.strip() for part in re.split(r'\.' if '.' in text else ',', text)]
    texts = list(dict.fromkeys(part for part in texts if part))
    return [(Prompt(text=part, all=many), part) for part in _few(texts, 'texts')]


def _few(given, what: str) -> list:
    if not isinstance(given, list) or not 0 < len(given) <= MAX_ASKED:
        raise ValueError(f'{what} of one request: 1 to {MAX_ASKED}')
    return given


def _prompt_of(mark) -> Prompt:
    """Of a rectangle or a point that is drawn on the object."""
    kind, data = (mark.get(key) if isinstance(mark, dict) else None for key in ('type', 'data'))
    if kind not in ('rectangle', 'point') or not isinstance(data, list):
        raise ValueError('a mark is dict(type="rectangle", data=[x1, y1, x2, y2], label=1), or a '
                         'point with data=[x, y]')
    if mark.get('label', 1) != 1:
        raise ValueError('the model takes no marks of what is not meant: remove them')
    if kind == 'point':
        return Prompt(point=tuple(data))
    if len(data) != 4 or not all(isinstance(value, int | float) for value in data):
        raise ValueError('a rectangle is four numbers, [x1, y1, x2, y2]')
    x1, y1, x2, y2 = data
    return Prompt(box=(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))


def shapes_of(result: Segmentation, label: str, group: int) -> list[dict]:
    """A polygon a part, holes cut open; the tool closes one where its first corner comes again."""
    shapes = []
    for part in result.parts:
        ring = np.asarray(keyhole(part.outer, part.holes))
        shapes.append(dict(
            label=label, shape_type='polygon', points=plain(np.concatenate([ring, ring[:1]])),
            score=result.confidence, group_id=group if len(result.parts) > 1 else None,
            attributes={}, description=None, difficult=False, direction=0, flags=None,
            kie_linking=[]))
    return shapes
