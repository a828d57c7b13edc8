"""Which predicted object is which true one: a best one-to-one match of two sets of masks."""
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from .polygon import Spans, name_key


def same_names(predicted: Sequence[str], true: Sequence[str]) -> np.ndarray:
    """Whether each predicted name is each true one, blanks and capitals aside: (M, N) bool.

    >>> same_names(['Cup', 'plate'], ['cup']).tolist()
    [[True], [False]]
    """
    keys = [list(map(name_key, names)) for names in (predicted, true)]
    return np.array([[one == other for other in keys[1]] for one in keys[0]], bool).reshape(
        len(predicted), len(true))


def mask_ious(predicted: Sequence[Spans], true: Sequence[Spans]) -> np.ndarray:
    """IoU of each predicted mask with each true one: (M, N) float64, 0 where both are empty."""
    iou = np.zeros((len(predicted), len(true)))
    boxes = [_boxes(predicted), _boxes(true)]
    low = np.maximum(boxes[0][:, None, :2], boxes[1][None, :, :2])
    high = np.minimum(boxes[0][:, None, 2:], boxes[1][None, :, 2:])
    for m, n in np.argwhere((low < high).all(-1)):  # others share no pixel
        iou[m, n] = predicted[m].iou(true[n])
    return iou


def best_pairs(iou: np.ndarray, least: float = 0.0) -> list[tuple[int, int]]:
    """The one-to-one pairs (m, n) whose sum of IoU is largest, of those above ``least``.

    Args:
        iou: (M, N), 0..1.
        least: IoU that a pair must exceed.

    >>> best_pairs(np.array([[0.9, 0.8], [0.8, 0.1], [0.0, 0.0]]))
    [(0, 1), (1, 0)]
    """
    worth = np.where(iou > least, iou, 0.0)
    pairs = zip(*linear_sum_assignment(worth, maximize=True))
    return [(int(m), int(n)) for m, n in pairs if worth[m, n] > 0]


def matched_iou(iou: np.ndarray) -> float:
    """Sum of the IoU of the best pairs over the larger count: a miss and an invention cost alike.

    Args:
        iou: (M, N), of M predicted and N true masks.

    Returns:
        0..1; 1.0 where there are none of either.

    >>> round(matched_iou(np.array([[0.9], [0.1]])), 3)  # one too many
    0.45
    """
    count = max(iou.shape)
    return sum(iou[pair] for pair in best_pairs(iou)) / count if count else 1.0


def _boxes(masks: Sequence[Spans]) -> np.ndarray:
    """(N, 4) float64; an empty mask has an empty box."""
    empty = np.zeros(4)
    return np.array([empty if mask.box is None else mask.box for mask in masks]).reshape(-1, 4)
