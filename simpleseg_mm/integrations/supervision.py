"""Answers as ``Detections`` of supervision (Roboflow), for its annotators and trackers.

    to_detections(inferencer.segment('photo.jpg', 'the cups'))
    from_vlm(text, resolution_wh=(640, 480), prompt='the cups')   # what a server's model wrote
"""
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import supervision as sv

from ..asking import PromptLike
from ..polygon import PolygonCodec, mask_to_rle
from ..structures import Prompt, Segmentation

#: bytes of masks, a byte a pixel, beyond which they are supervision's CompactMask
MAX_DENSE = 1_000_000_000


def to_detections(results: Sequence[Segmentation], classes: Sequence[str] | None = None
                  ) -> sv.Detections:
    """Answers about one picture.

    Args:
        classes: names that are kept; None: all, numbered by their first use.

    Returns:
        One row an object: ``xyxy``, ``mask``, ``confidence`` (1 where it is not known),
        ``class_id``, which is the place in ``classes``, and ``data['class_name']``. What found
        nothing has no row.

    Raises:
        ValueError: the answers are about pictures of several sizes, or their masks are too large
            together for this version of supervision.
    """
    sizes = {tuple(result.size) for result in results}
    if len(sizes) > 1:
        raise ValueError(f'answers about pictures of {sorted(sizes)}: give those about one '
                         'picture')
    if isinstance(classes, str):
        raise ValueError(f'classes is the text {classes!r:.60}: give a list, such as ["cup"]')
    numbers = {} if classes is None else {name: i for i, name in enumerate(classes)}
    count = sum(max(len(result.instances), 1) for result in results)
    compact = sizes and count * np.prod(*sizes, dtype=np.int64) > MAX_DENSE
    if compact and not hasattr(sv, 'CompactMask'):
        raise ValueError(f'{count} masks of {max(sizes)} pixels are more than '
                         f'{MAX_DENSE / 1e9:g} GB: pip install -U supervision, which has a '
                         'CompactMask, or give fewer answers at a time')
    masks, rows, left = [], [], 0
    for one in _objects(results):
        if classes is not None and one.label not in numbers:
            left += 1
            continue
        masks.append(mask_to_rle(one.mask) if compact else one.mask)
        rows.append((one.box, numbers.setdefault(one.label, len(numbers)), one.label,
                     1.0 if one.confidence is None else one.confidence))
    if left:
        warnings.warn(f'{left} objects are left out, whose names are not among the classes',
                      stacklevel=2)
    if not rows:
        return sv.Detections.empty()
    boxes, ids, names, sure = zip(*rows)
    xyxy = np.array(boxes, np.float32)
    return sv.Detections(
        xyxy=xyxy, confidence=np.array(sure, np.float32), class_id=np.array(ids),
        mask=(sv.CompactMask.from_coco_rle(masks, xyxy, *sizes) if compact
              else np.array(masks, bool)),
        data={'class_name': np.array(names)})


def from_vlm(result: str, resolution_wh: tuple[int, int], prompt: PromptLike = 'object',
             classes: Sequence[str] | None = None, codec: str = 'int1000/default'
             ) -> sv.Detections:
    """What a model wrote about one picture, as ``Detections.from_vlm`` reads other models' texts.

    Args:
        result: the text of the answer.
        resolution_wh: (w, h) of the upright picture, pixels.
        prompt: what was asked, as :meth:`~simpleseg_mm.structures.Prompt.of` takes it:
            ``dict(text='the cups', all=True)`` for every instance, ``dict(everything=True)`` for
            all objects with their names.
        classes: as :func:`to_detections` takes them.
        codec: how the model writes, such as 'fixed3/paper' of the released weights.

    Returns:
        As :func:`to_detections`. A text that cannot be read as an answer gives what can be read,
        and a warning.

    Raises:
        ValueError: an argument does not fit; never for what a model wrote.
    """
    if not isinstance(result, str):
        raise ValueError(f'result is {type(result).__name__}; give the text that was written')
    try:
        width, height = map(int, resolution_wh)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise ValueError(f'resolution_wh is {resolution_wh!r:.60}; give (width, height) in pixels')
    prompt, read = Prompt.of(prompt), PolygonCodec.from_spec(codec)
    answer = read.decode(result, (height, width), prompt.task.kind, num_tokens=0, finished=True,
                         seconds=0.0)
    found = Segmentation.of(answer, 'the picture', prompt)
    detections = to_detections([found], classes)
    foreign = not prompt.everything and read.grammar.is_foreign(result)  # names may hold numbers
    if foreign or not found.valid:
        why = (f'has numbers that {codec} does not write: name another codec, such as '
               'fixed3/paper' if foreign else f'is no valid answer to {str(prompt)!r:.60}')
        warnings.warn(f'the text {why}; {len(detections)} objects are read', stacklevel=2)
    return detections


def _objects(results: Sequence[Segmentation]) -> Iterator[Segmentation]:
    """Those that fill a pixel; their masks are made one at a time."""
    for result in results:
        for one in result.objects:
            if one.mask.any():
                yield one
