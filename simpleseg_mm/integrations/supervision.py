"""Answers as ``Detections`` of supervision (Roboflow), for its annotators and trackers."""
from collections.abc import Sequence

import numpy as np
import supervision as sv

from ..structures import Segmentation


def to_detections(results: Sequence[Segmentation]) -> sv.Detections:
    """Answers about one picture.

    Returns:
        One row an object: ``xyxy``, ``mask``, ``confidence`` (1 where it is not known),
        ``class_id``, by the first use of a label, and ``data['class_name']``. What found nothing
        has no row.

    Raises:
        ValueError: the answers are about pictures of several sizes.
    """
    sizes = {tuple(result.size) for result in results}
    if len(sizes) > 1:
        raise ValueError(f'answers about pictures of {sorted(sizes)}: give those about one '
                         'picture')
    found = [one for result in results for one in result.objects if one.mask.any()]
    if not found:
        return sv.Detections.empty()
    numbers: dict[str, int] = {}
    for one in found:
        numbers.setdefault(one.label, len(numbers))
    return sv.Detections(
        xyxy=np.array([one.box for one in found], np.float32),
        mask=np.array([one.mask for one in found], bool),
        confidence=np.array([1.0 if one.confidence is None else one.confidence for one in found],
                            np.float32),
        class_id=np.array([numbers[one.label] for one in found]),
        data={'class_name': np.array([one.label for one in found])})
