"""Rule rewards of a polygon written as text: components, and their weighted sum.

Pure: numpy, SciPy, OpenCV and ``simpleseg_mm.polygon`` only, so that any trainer can call them.
"""
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..matching import mask_ious, matched_iou, same_names
from ..polygon import Spans, Task, codec_of, count_tokens, rle_to_mask
from ..polygon.metrics import boundary_iou
from ..structures import AnsweredQuery


# Components: what was asked and answered -> a number; None: the component says nothing about it.
# Those of COMPONENTS can be named in configs.
def mask_iou_reward(query: AnsweredQuery) -> float | None:
    """IoU of the masks, 0..1 (paper). An absent target: 1 for '[]', else 0. None where no mask
    was asked for."""
    return query.iou if query.asks_mask else None


def iou_squared_reward(query: AnsweredQuery) -> float | None:
    """IoU squared, 0..1: the last tenths count most (ablation, ours)."""
    return query.iou ** 2 if query.asks_mask else None


def boundary_iou_reward(query: AnsweredQuery) -> float | None:
    """Boundary IoU, 0..1 (ablation, ours)."""
    if not query.asks_mask or query.says_absent_rightly is not None:
        return mask_iou_reward(query)
    return boundary_iou(query.answer.mask, query.truth)


def instance_iou_reward(query: AnsweredQuery) -> float | None:
    """Matched IoU of the objects, 0..1: the sum of the best one-to-one pairs over the larger
    count, so that a miss and an invention cost alike (ours). Where names were asked for, only
    objects of one name are a pair. An absent target: 1 for '[]', else 0. None where masks of
    objects one by one were not asked for.

    Raises:
        ValueError: the sample does not say the names of its objects.
    """
    if query.task is None or query.task.wanted not in ('masks', 'objects'):
        return None
    if query.says_absent_rightly is not None:
        return float(query.says_absent_rightly)
    answered = query.answer.instances
    iou = mask_ious([one.spans for one in answered], query.targets)
    if query.names is not None:
        iou *= same_names([one.name for one in answered], query.names)
    return matched_iou(iou)


def centroid_reward(query: AnsweredQuery) -> float | None:
    """1 - distance of the masks' centroids / half the diagonal of the target's box, at least 0.

    The paper rewards the centroid distance; this form of it is our choice.
    """
    if not query.asks_mask or query.says_absent_rightly is not None:
        return mask_iou_reward(query)
    spans = query.answer.spans
    if not spans.area:
        return 0.0
    x0, y0, x1, y1 = query.target.box
    distance = math.dist(spans.centroid, query.target.centroid)
    return max(0.0, 1 - distance / (0.5 * math.hypot(x1 - x0, y1 - y0)))


def format_reward(query: AnsweredQuery) -> float | None:
    """1 where the whole text is one answer by the grammar and of the kind that was asked for, in
    range, at least 3 distinct vertices a ring, with an end token; else 0 (paper; what counts is
    our choice). None where words were asked for."""
    answer = query.answer
    if answer.kind is None:
        return None
    start, end = answer.parsed.span
    around = answer.text[:start] + answer.text[end:]  # else any chatter would be rewarded
    return float(answer.well_formed and not around.strip())


def length_reward(query: AnsweredQuery, budget: float = 200) -> float:
    """-tokens / budget, at least -1: a penalty of length (the paper's ablation; our form)."""
    answer = query.answer
    tokens = count_tokens(answer.text) if answer.num_tokens is None else answer.num_tokens
    return -min(1.0, tokens / budget)


Component = Callable[[AnsweredQuery], float | None]
COMPONENTS: dict[str, Component] = dict(
    mask_iou=mask_iou_reward, instance_iou=instance_iou_reward, iou_squared=iou_squared_reward,
    boundary_iou=boundary_iou_reward, centroid=centroid_reward, format=format_reward,
    length=length_reward)


@dataclass(frozen=True)
class Rewards:
    """Rewards of N answers.

    Attributes:
        total: (N,) float64, the weighted sum of the components that apply; 0 where none does.
        components: each component by itself, unweighted, (N,) float64; NaN where it does not
            apply.
        queries: the N answers as they were read, with what they answer.
        applied: (N,) bool, whether a component of a weight other than 0 applies.
    """
    total: np.ndarray
    components: dict[str, np.ndarray]
    queries: list[AnsweredQuery]
    applied: np.ndarray


_TRUTHS = ('give a mask (H, W) of bool, a COCO RLE dict with size and counts, or a JSON text of '
           'either (mask_to_rle makes the RLE of a mask, segmentation_to_rle that of a polygon)')


class RewardError(RuntimeError):
    """A component raised, or gave no finite number; names it and its input."""


class PolygonReward:
    """Weighted sum of rule rewards over texts and ground truths.

    Args:
        weights: component -> weight. A component is a name of ``COMPONENTS``; weights are finite
            and not all 0. A component of weight 0 is worked out and logged, and changes nothing.
        extra: further components by name, for those that ``weights`` names beside the known. A
            component is called with an :class:`AnsweredQuery` and gives a number, or None where it
            does not apply to that query; then it is left out of the sum.
        codec: spec of the codec that reads the texts ('int1000/default'), unless a call names
            one.
        max_side: targets with a longer side are scaled down to it, in pixels; answers are
            rasterised at that size (our choice: IoU at 512 differs from full size by less than
            its raster noise).

    Raises:
        ValueError: an unknown component, or weights that are not finite or all 0.
    """

    def __init__(self, weights: Mapping[str, float], codec: str = 'int1000/default',
                 max_side: int = 512, extra: Mapping[str, Component] | None = None) -> None:
        known = {**COMPONENTS, **(extra or {})}
        if unknown := sorted(set(weights) - set(known)):
            raise ValueError(f'unknown reward components {unknown}; choose from {sorted(known)}')
        try:
            values = np.array(list(weights.values()), np.float64)
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if not (np.isfinite(values).all() and values.any()):
            raise ValueError(f'reward weights must be finite and not all 0, got {dict(weights)}')
        if max_side < 1:
            raise ValueError(f'max_side={max_side}: give a positive number of pixels')
        self.weights = dict(weights)
        self.components = {name: known[name] for name in weights}
        self.codec = codec
        self.max_side = max_side
        codec_of(codec)  # a wrong spec is refused here

    def __call__(self, texts: Sequence[str | Mapping],
                 truths: Sequence[np.ndarray | dict | str] | None = None,
                 finished: Sequence[bool] | None = None,
                 num_tokens: Sequence[int] | None = None,
                 codecs: Sequence[str] | None = None,
                 samples: Sequence[Mapping | None] | None = None) -> Rewards:
        """Rewards of N answers.

        Args:
            texts: N answers, anything: model text never raises.
            truths: N targets as ``read_truth`` takes them, or where objects were asked for one by
                one (such as by the task 'text2masks') as ``read_truths``; empty ones are absent
                targets. None: ``texts`` are records ``dict(response, ground_truth)``, as EasyR1
                gives them, with the number of tokens as ``response_length`` where it is known.
            finished: whether each answer ended by itself; ``None``: all did.
            num_tokens: of each answer.
            codecs: spec of the codec of each; ``None``: ``self.codec``.
            samples: what each answer is about, by its keys: ``prompt``, ``task`` (a name, such as
                'text2mask'; a mask is asked for where there is none), and whatever a component
                wants to see. ``None``: nothing is known, or it stands in the records.

        Raises:
            ValueError: lists of different lengths, or a target that cannot be used.
            RewardError: a component raised, or gave no finite number.
        """
        if truths is None:
            samples = texts if samples is None else samples
            texts, truths, lengths = _columns_of(texts)
            num_tokens = lengths if num_tokens is None else num_tokens
        count = len(texts)
        columns = [[default] * count if column is None else list(column) for column, default in (
            (truths, None), (finished, True), (num_tokens, None), (codecs, self.codec),
            (samples, None))]
        if any(len(column) != count for column in columns):
            raise ValueError(f'{count} texts, but {[len(column) for column in columns]} truths, '
                             'finished flags, token counts, codecs and samples')
        rasters: dict = {}  # answers of a group share their target
        queries = []
        for text, truth, end, tokens, spec, sample in zip(texts, *columns):
            sample = {} if sample is None else sample
            if not isinstance(sample, Mapping):
                raise ValueError(f'a sample is {sample!r:.60}; give what the answer is about as a '
                                 'dict, or None')
            task = Task.find(sample.get('task'))
            many = task is not None and task.many
            key = many, truth if isinstance(truth, str) else id(truth)
            if key not in rasters:
                rasters[key] = self._rasters(truth, many)
            raster, target, targets = rasters[key]
            answer = codec_of(spec).decode(
                text if isinstance(text, str) else '', raster.shape,
                task.kind if task else 'rings', finished=bool(end), num_tokens=tokens)
            queries.append(AnsweredQuery(answer, raster, sample.get('prompt'), task, sample,
                                         target, targets))
        parts = {name: np.array([_apply(name, component, query) for query in queries], np.float64)
                 for name, component in self.components.items()}
        total = sum(self.weights[name] * np.nan_to_num(parts[name]) for name in parts)
        applied = np.any([~np.isnan(parts[name]) for name in parts if self.weights[name]], axis=0)
        return Rewards(np.asarray(total, np.float64), parts, queries, applied)

    def _rasters(self, truth, many: bool) -> tuple[np.ndarray, Spans, tuple[Spans, ...]]:
        """All targets together, as a mask and as spans, and each as spans."""
        masks = [self._scaled(mask) for mask in (
            read_truths(truth) if many else [read_truth(truth)])]
        union = np.logical_or.reduce(masks)
        targets = tuple(Spans.from_mask(mask) for mask in masks if mask.any())
        return union, targets[0] if len(masks) == len(targets) == 1 else Spans.from_mask(union), \
            targets

    def _scaled(self, mask: np.ndarray) -> np.ndarray:
        scale = self.max_side / max(mask.shape)
        if scale >= 1:
            return mask
        size = tuple(max(1, round(side * scale)) for side in mask.shape[::-1])
        small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        if mask.any() and not small.any():  # a thin target stays a target
            small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        return small


def read_truth(truth: np.ndarray | Sequence | Mapping | str) -> np.ndarray:
    """A target as ``(H, W) bool``.

    Args:
        truth: a mask ``(H, W)`` (an array, or a list of rows) that is bool or holds 0 and one
            other number; a COCO RLE dict with ``size`` and ``counts``; or a JSON text of either.

    Raises:
        ValueError: anything else. A polygon is refused: it does not say how large its picture is.
    """
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError):
            raise ValueError(f'a target is the text {truth!r:.60}, which is no JSON; {_TRUTHS}'
                             ) from None
    if isinstance(truth, Mapping):
        return rle_to_mask(dict(truth))
    try:
        mask = np.asarray(truth)
    except (ValueError, RecursionError):  # rows of several lengths
        raise ValueError(f'a target is a list that is no mask; {_TRUTHS}') from None
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f'a target is a (H, W) mask or a COCO RLE, got shape {mask.shape} of '
                         f'{type(truth).__name__}; {_TRUTHS}')
    if mask.dtype == bool:
        return mask
    set_ = mask > 0 if mask.dtype.kind in 'uif' else mask
    flat = mask.shape[0] == 1 and isinstance(truth, (list, tuple))
    if mask.dtype.kind not in 'uif' or flat or not (mask == np.where(
            set_, mask[set_].max(initial=0), 0)).all():
        raise ValueError(f'a target of shape {mask.shape} holds {mask.dtype} that are no mask (0 '
                         f'and one other number), as those of a polygon; {_TRUTHS}')
    return set_


def read_truths(truth: np.ndarray | Sequence | Mapping | str) -> list[np.ndarray]:
    """Targets that were asked for one by one, as ``(H, W) bool`` each, at least one; of an absent
    target a mask of no pixel, which says how large the picture is.

    Args:
        truth: masks ``(N, H, W)``, of which N may be 0; a list of what ``read_truth`` takes, at
            least one; one target alone; or a JSON text of these.

    Raises:
        ValueError: anything else, and masks of several sizes.
    """
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError):
            pass  # read_truth says so
    if isinstance(truth, np.ndarray) and truth.ndim == 3 and 0 not in truth.shape[1:]:
        masks = [read_truth(mask) for mask in truth] or [np.zeros(truth.shape[1:], bool)]
    elif isinstance(truth, (list, tuple)) and any(map(_is_mask, truth)):
        masks = [read_truth(one) for one in truth]
    else:
        masks = [read_truth(truth)]
    if len({mask.shape for mask in masks}) > 1:
        raise ValueError(f'the masks of one picture have shapes '
                         f'{sorted({mask.shape for mask in masks})}; give all at its size')
    return masks


def _is_mask(item) -> bool:
    """Whether an item of a list is a target by itself, and not a row of a mask."""
    return isinstance(item, (Mapping, str)) or (
        isinstance(item, (np.ndarray, list, tuple)) and len(item) > 0
        and isinstance(item[0], (np.ndarray, list, tuple)))


def _columns_of(records: Sequence[dict]) -> tuple[list[str], list, list[int | None]]:
    """Texts, targets and numbers of tokens of EasyR1's records."""
    for record in records:
        if not isinstance(record, Mapping) or not {'response', 'ground_truth'} <= set(record):
            raise ValueError(f'there are no truths, and {record!r:.60} is no record: give texts '
                             'and truths, or dicts with response and ground_truth')
    return ([record['response'] for record in records],
            [record['ground_truth'] for record in records],
            [record.get('response_length') for record in records])


def _apply(name: str, component: Component, query: AnsweredQuery) -> float:
    """The value of a component; NaN where it does not apply."""
    try:
        value = component(query)
        value = None if value is None else float(value)
    except Exception as error:
        raise RewardError(f'reward {name!r} raised {type(error).__name__}: {error}; '
                          f'{_describe(query)}') from error
    if value is None:
        return math.nan
    if not math.isfinite(value):
        raise RewardError(f'reward {name!r} gave {value}; {_describe(query)}')
    return value


def _describe(query: AnsweredQuery) -> str:
    return (f'answer {query.answer.text[:500]!r}, target {query.truth.shape} with '
            f'{int(query.truth.sum())} pixels, codec {query.answer.codec.spec}')
