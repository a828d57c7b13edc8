"""X-AnyLabeling's remote models: ``/v1/models`` and ``/v1/predict``.

From the client's requests and the documented answers of X-AnyLabeling-Server. Positions are pixels
of the upright picture.
"""
import re

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..export.rings import keyhole, plain
from ..structures import Prompt, Segmentation
from .http import read_json
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
                       Route('/v1/predict', self.predict, methods=['POST'])]

    async def models(self, request: Request) -> Response:
        return JSONResponse(dict(success=True, data={MODEL: self._described()}))

    async def info(self, request: Request) -> Response:
        if request.path_params['model'] != MODEL:
            return self._no_model(request.path_params['model'])
        return JSONResponse(dict(success=True, data=dict(self._described(), model_id=MODEL)))

    async def predict(self, request: Request) -> Response:
        """Shapes of what a text, several texts or marks ask for."""
        body = await read_json(request)
        if body.get('model') != MODEL:
            return self._no_model(body.get('model'))
        params = body.get('params') if isinstance(body.get('params'), dict) else {}
        taught = self.api.engine.inferencer.taught
        asked = prompts_asked(params, 'all' in taught.prompts)
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
        return JSONResponse(dict(success=True, data=dict(shapes=shapes, description='')))

    def _described(self) -> dict:
        """The model, with the controls that the tool is to show: those of ways to ask that the
        model was taught."""
        taught = self.api.engine.inferencer.taught
        names = []
        if taught.knows('text') or taught.knows('all'):
            names += ['edit_text', 'button_send']
        if taught.knows('box'):
            names += ['add_pos_rect', 'button_run_rect', 'button_clear', 'button_finish_object']
        widgets = [dict(name=name, value=None) for name in [*names, 'input_conf']]
        widgets += [dict(name='edit_conf', value=0.0),
                    dict(name='toggle_preserve_existing_annotations', value=True)]
        return dict(display_name=f'SimpleSeg ({self.api.model_name})', widgets=widgets, params={},
                    batch_processing_mode='text_prompt')

    def _no_model(self, name) -> Response:
        return JSONResponse(dict(success=False, error=dict(
            code='MODEL_NOT_FOUND',
            message=f'there is no model {name!r:.60}; this server has {MODEL!r}')), 404)


def prompts_asked(params: dict, many: bool) -> list[tuple[Prompt, str]]:
    """Prompts and labels of what a request's parameters ask for.

    Texts are told apart by '.' or, where there is none, by ',', as the tool's own servers do.

    Args:
        many: whether every object of a text is asked for.

    Raises:
        ValueError: nothing is asked for, or what the model cannot be asked.
    """
    marks, text = params.get('marks'), params.get('text_prompt')
    if marks:
        return [(_prompt_of(mark), _UNNAMED) for mark in _few(marks, 'marks')]
    if not isinstance(text, str) or not text.strip():
        raise ValueError('nothing is asked for: write what is to be outlined, or draw a box')
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
