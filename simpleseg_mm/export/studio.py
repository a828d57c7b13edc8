"""Label Studio's regions, tasks and labelling config."""
import uuid
from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np

from ..files.brush import write_brush
from ..structures import Segmentation
from .rings import keyhole
from .sets import LabelNumbers

#: controls of :func:`studio_config` by the type of their regions
_CONTROLS = {'polygonlabels': ('PolygonLabels', 'outline'),
             'brushlabels': ('BrushLabels', 'brush')}
_PICTURE = 'image'


def outline_values(result: Segmentation, kind: str) -> list[dict]:
    """What Label Studio's regions hold for an object: a polygon a part (holes are cut open) of
    'polygonlabels', or one brush mask of 'brushlabels'."""
    if kind == 'polygonlabels':
        return [dict(points=in_percent(keyhole(part.outer, part.holes), result.size), closed=True)
                for part in result.parts]
    return [dict(format='rle', rle=write_brush(result.mask))] if result.mask.any() else []


def studio_regions(result: Segmentation, values: Iterable[dict], kind: str, from_name: str,
                   to_name: str, label: str, origin: str = 'prediction') -> list[dict]:
    """An object as regions, each with the object's score.

    Args:
        values: what they hold, such as :func:`outline_values`.
        kind: type of the regions.
        from_name, to_name: of the control and the picture in the labelling config.
        label: as the config has it.
        origin: 'prediction', or 'manual' of an annotation.
    """
    height, width = result.size
    score = {} if result.confidence is None else dict(score=result.confidence)
    return [dict(id=uuid.uuid4().hex[:10], from_name=from_name, to_name=to_name, type=kind,
                 original_width=width, original_height=height, image_rotation=0, origin=origin,
                 value={**value, kind: [label]}, **score) for value in values]


def studio_task(address: str, objects: Iterable[Segmentation], labels: LabelNumbers, number: int,
                made: bool, exact: bool = False) -> dict:
    """A task of one picture.

    An object of one part without holes is a polygon; another one, and any when ``exact``, is a
    brush, which holds parts and holes.

    Args:
        address: of the picture.
        labels: takes the labels that are used.
        number: of the task, from 0.
        made: whether somebody has looked at it: it is an annotation then, else a prediction.
    """
    regions: list[dict] = []
    for one in objects:
        labels.of(one.label)
        plain = len(one.parts) == 1 and not one.parts[0].holes and not exact
        if one.mask.any():
            kind = 'polygonlabels' if plain else 'brushlabels'
            regions += studio_regions(one, outline_values(one, kind), kind, _CONTROLS[kind][1],
                                      _PICTURE, one.label, 'manual' if made else 'prediction')
    task: dict = dict(id=number + 1, data={_PICTURE: address})
    if made:
        return dict(task, annotations=[dict(result=regions, ground_truth=False)])
    scores = [region['score'] for region in regions if 'score' in region]
    mean = dict(score=sum(scores) / len(scores)) if scores else {}
    return dict(task, predictions=[dict(model_version='simpleseg', result=regions, **mean)])


def studio_config(labels: Iterable[str]) -> ElementTree.Element:
    """The labelling config of such tasks."""
    root = ElementTree.Element('View')
    ElementTree.SubElement(root, 'Image', name=_PICTURE, value=f'${_PICTURE}', zoom='true')
    labels = list(labels)
    for tag, name in _CONTROLS.values():
        control = ElementTree.SubElement(root, tag, name=name, toName=_PICTURE)
        for label in labels:
            ElementTree.SubElement(control, 'Label', value=label)
    return root


def in_percent(points: np.ndarray, size: tuple[int, int]) -> list[list[float]]:
    """``(N, 2)`` pixels of a picture of ``size`` (h, w) in percent of its sides."""
    return (points * (100 / np.array(size[::-1], np.float64))).clip(0, 100).round(4).tolist()
