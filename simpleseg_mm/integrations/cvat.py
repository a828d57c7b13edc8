"""CVAT's auto-annotation: SimpleSeg as a function of ``cvat-cli`` and of CVAT's agents.

    pip install cvat-cli
    cvat-cli --server-host https://app.cvat.ai task auto-annotate 137 \\
        --function-module simpleseg_mm.integrations.cvat \\
        -p 'labels=str:cup;plate=the plates with food'

docs/annotation_tools.md has more.
"""
import json
from collections.abc import Iterator, Sequence

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk import exceptions, models
from cvat_sdk.masks import encode_mask

from ..apis import SimpleSegInferencer
from ..export.rings import keyhole
from ..structures import Prompt, Segmentation

_SHAPES = ('polygon', 'mask')
#: what older versions of cvat_sdk have no place for: how sure the model is of a shape
_HAS_SCORE = 'score' in models.LabeledShapeRequest.openapi_types
_SURE = getattr(getattr(cvataa, 'InteractionResultAttributes', None), 'CONFIDENCE', None)


class FunctionError(ValueError, exceptions.ApiException):
    """An option that does not fit. ``cvat-cli`` tells errors of this kind in one line."""
    status = body = headers = None

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)

    __str__ = Exception.__str__


def create(labels: str | None = None, model: str | None = None, weights: str | None = None,
           device: str | None = None, consensus: int | None = None, shapes: str = 'polygon',
           inferencer=None):
    """A detection function, or without labels an interaction function.

    Args:
        labels: names of the task's labels, told apart by ``;``. ``NAME=WORDS`` asks in other words
            than the name. For names with these characters it is JSON, a list of names or an
            object of words by name. Every object is outlined where the model was taught lists,
            else one. None: what is clicked at or boxed in is outlined.
        model, weights, device, consensus: as :class:`~simpleseg_mm.apis.SimpleSegInferencer` takes
            them.
        shapes: 'polygon', the vertices that the model wrote, or 'mask', which keeps holes.
        inferencer: one that is there already, instead of these.

    Raises:
        FunctionError: an option does not fit, or the model cannot be asked so.
    """
    try:
        if shapes not in _SHAPES:
            raise ValueError(f'shapes={shapes!r:.40}: give one of {_SHAPES}')
        names = None if labels is None else _names_of(labels)
        if inferencer is None:
            inferencer = SimpleSegInferencer(model, weights, device, show_progress=False,
                                             consensus=consensus)
        return Clicks(inferencer) if names is None else Labels(inferencer, names, shapes)
    except (ValueError, FileNotFoundError) as error:
        raise FunctionError(' '.join(str(error).split())) from None


def _names_of(labels: str) -> dict[str, str]:
    """Words by the label's name. Raises ValueError."""
    text = str(labels).strip()
    if text.startswith(('[', '{')):
        try:
            found = json.loads(text)
        except ValueError:
            raise ValueError(f'labels={text!r:.60} is not JSON; give ["cup"] or '
                             '{"cup": "words to ask by"}') from None
        found = found if isinstance(found, dict) else {str(name): name for name in found}
    else:
        parts = [[half.strip() for half in part.partition('=')] for part in text.split(';')]
        found = {name: words or name for name, _, words in parts if name}
    if not found or not all(isinstance(words, str) and words.strip() and name.strip()
                            for name, words in found.items()):
        raise ValueError(f"labels={text!r:.60}: give names of labels, such as 'cup;plate=the "
                         "plates with food'")
    return found


class Labels:
    """Outlines of what labels mean, a detection function of CVAT."""

    def __init__(self, inferencer, names: dict[str, str], shapes: str) -> None:
        self.inferencer, self.shapes = inferencer, shapes
        every = 'all' in inferencer.taught.prompts
        if not every and not inferencer.taught.knows('text'):
            raise ValueError('this model was not taught expressions: leave labels out, and use it '
                             'as an interactor')
        self.prompts = [Prompt(text=words, all=every) for words in names.values()]
        self.spec = cvataa.DetectionFunctionSpec(labels=[
            cvataa.label_spec(name, number, type='any') for number, name in enumerate(names)])

    def detect(self, context, image) -> list:
        """Shapes of a picture; parts of an object have one group."""
        polygons = self.shapes == 'polygon' or context.conv_mask_to_poly
        least = context.conf_threshold or 0
        found, group = [], 0
        for label, result in enumerate(self.inferencer.segment(image, self.prompts)):
            for one in result.objects:
                if not one.mask.any() or one.confidence is not None and one.confidence < least:
                    continue
                group += 1
                points = list(_polygons(one)) if polygons else [encode_mask(one.mask)]
                sure = {} if not _HAS_SCORE or one.confidence is None else dict(
                    score=one.confidence)
                found += [cvataa.shape(
                    label, type='polygon' if polygons else 'mask', points=part,
                    group=group if len(points) > 1 else 0, **sure) for part in points]
        return found


class Clicks:
    """The outline of what is clicked at or boxed in, an interaction function of CVAT. The model
    takes one of them: the box, or else the last point."""

    def __init__(self, inferencer) -> None:
        self.inferencer = inferencer
        point, box = (inferencer.taught.knows(kind) for kind in ('point', 'box'))
        if not point and not box:
            raise ValueError('this model was taught neither points nor boxes: give labels')
        self.spec = cvataa.InteractionFunctionSpec(
            min_pos_points=int(point and not box),
            min_bounding_boxes=(0 if point else 1) if box else None)

    def detect(self, context, image, prompts) -> list:
        """A mask, as CVAT's page takes it; none where nothing is asked or found."""
        if prompts.bounding_box is not None:
            prompt = Prompt(box=tuple(np.ravel(prompts.bounding_box).tolist()))
        elif prompts.pos_points:
            prompt = Prompt(point=tuple(prompts.pos_points[-1]))
        else:
            return []
        result, = self.inferencer.segment(image, prompt)
        if not result.mask.any():
            return []
        sure = {} if _SURE is None or result.confidence is None else dict(
            attributes=[models.AttributeValRequest(spec_id=int(_SURE),
                                                   value=f'{result.confidence:.4f}')])
        return [cvataa.InteractionResultShape(type='mask', points=encode_mask(result.mask),
                                              **sure)]


def _polygons(result: Segmentation) -> Iterator[Sequence[float]]:
    """Flat polygons, one a part, holes cut open."""
    for part in result.parts:
        yield np.ravel(keyhole(part.outer, part.holes)).tolist()
