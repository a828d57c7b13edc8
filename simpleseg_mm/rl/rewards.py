"""Rule rewards of a polygon written as text: components, and their weighted sum.

Pure: numpy, OpenCV and ``simpleseg_mm.polygon`` only, so that any trainer can call them.
"""
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from ..polygon import ParsedAnswer, PolygonCodec, Spans, count_tokens, rle_to_mask
from ..polygon.metrics import boundary_iou


@dataclass
class Answer:
    """One answer beside its target; what several components need is worked out once.

    Attributes:
        text: what the model wrote.
        truth: (h, w) bool, the target at the raster's size; all False for an absent one.
        codec: reads the text.
        finished: whether an end token was written.
        num_tokens: tokens written; ``None``: counted by Qwen's digit rule.
        target: ``truth`` as spans, which the answers of a group share; ``None``: worked out.
    """
    text: str
    truth: np.ndarray
    codec: PolygonCodec
    finished: bool = True
    num_tokens: int | None = None
    target: Spans | None = None

    def __post_init__(self) -> None:
        if self.target is None:
            self.target = Spans.from_mask(self.truth)

    @cached_property
    def _decoded(self):
        return self.codec.decode(self.text, self.truth.shape)

    @property
    def parsed(self) -> ParsedAnswer:
        return self._decoded.parsed

    @property
    def mask(self) -> np.ndarray:
        """(h, w) bool; all False where nothing could be read."""
        return self._decoded.mask

    @property
    def spans(self) -> Spans:
        """``mask`` as spans: area, box, centroid and IoU without its pixels."""
        return self._decoded.spans

    @property
    def well_formed(self) -> bool:
        """The whole answer follows the grammar, is in range, and ends with an end token."""
        return self.parsed.valid and self.finished

    @cached_property
    def says_absent_rightly(self) -> bool | None:
        """For an absent target, whether the answer is '[]'; None for a present one."""
        return None if self.target.area else self.parsed.kind == 'empty' and self.parsed.valid

    @cached_property
    def iou(self) -> float:
        if self.says_absent_rightly is not None:
            return float(self.says_absent_rightly)
        return self.spans.iou(self.target)


# Components: an answer -> a number. Those of COMPONENTS can be named in configs.
def mask_iou_reward(answer: Answer) -> float:
    """IoU of the masks, 0..1 (paper). An absent target: 1 for '[]', else 0."""
    return answer.iou


def iou_squared_reward(answer: Answer) -> float:
    """IoU squared, 0..1: the last tenths count most (ablation, ours)."""
    return answer.iou ** 2


def boundary_iou_reward(answer: Answer) -> float:
    """Boundary IoU, 0..1 (ablation, ours)."""
    if answer.says_absent_rightly is not None:
        return answer.iou
    return boundary_iou(answer.mask, answer.truth)


def centroid_reward(answer: Answer) -> float:
    """1 - distance of the masks' centroids / half the diagonal of the target's box, at least 0.

    The paper rewards the centroid distance; this form of it is our choice.
    """
    if answer.says_absent_rightly is not None:
        return answer.iou
    if not answer.spans.area:
        return 0.0
    x0, y0, x1, y1 = answer.target.box
    distance = math.dist(answer.spans.centroid, answer.target.centroid)
    return max(0.0, 1 - distance / (0.5 * math.hypot(x1 - x0, y1 - y0)))


def format_reward(answer: Answer) -> float:
    """1 where the whole text is one answer by the grammar, in range, at least 3 distinct vertices
    a ring, with an end token; else 0 (paper; what counts is our choice)."""
    start, end = answer.parsed.span
    around = answer.text[:start] + answer.text[end:]  # else any chatter would be rewarded
    return float(answer.well_formed and answer.parsed.kind in ('rings', 'empty')
                 and not around.strip())


def length_reward(answer: Answer, budget: int = 200) -> float:
    """-tokens / budget, at least -1: a penalty of length (the paper's ablation; our form)."""
    tokens = count_tokens(answer.text) if answer.num_tokens is None else answer.num_tokens
    return -min(1.0, tokens / budget)


Component = Callable[[Answer], float]
COMPONENTS: dict[str, Component] = dict(
    mask_iou=mask_iou_reward, iou_squared=iou_squared_reward, boundary_iou=boundary_iou_reward,
    centroid=centroid_reward, format=format_reward, length=length_reward)


@dataclass(frozen=True)
class Rewards:
    """Rewards of N answers.

    Attributes:
        total: (N,) float64, the weighted sum.
        components: each component by itself, unweighted, (N,) float64.
        answers: the N answers as they were read.
    """
    total: np.ndarray
    components: dict[str, np.ndarray]
    answers: list[Answer]


_TRUTHS = ('give a mask (H, W) of bool, a COCO RLE dict with size and counts, or a JSON text of '
           'either (mask_to_rle makes the RLE of a mask, segmentation_to_rle that of a polygon)')


class RewardError(RuntimeError):
    """A component raised, or gave no finite number; names it and its input."""


class PolygonReward:
    """Weighted sum of rule rewards over texts and ground truths.

    Args:
        weights: component -> weight. A component is a name of ``COMPONENTS``; weights are finite
            and not all 0. A component of weight 0 is worked out and logged, and changes nothing.
        extra: further components by name, for those that ``weights`` names beside the known.
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
        values = np.array(list(weights.values()), np.float64)
        if not (np.isfinite(values).all() and values.any()):
            raise ValueError(f'reward weights must be finite and not all 0, got {dict(weights)}')
        if max_side < 1:
            raise ValueError(f'max_side={max_side}: give a positive number of pixels')
        self.weights = dict(weights)
        self.components = {name: known[name] for name in weights}
        self.codec = codec
        self.max_side = max_side
        _codec(codec)  # a wrong spec is refused here

    def __call__(self, texts: Sequence[str | dict],
                 truths: Sequence[np.ndarray | dict | str] | None = None,
                 finished: Sequence[bool] | None = None,
                 num_tokens: Sequence[int] | None = None,
                 codecs: Sequence[str] | None = None) -> Rewards:
        """Rewards of N answers.

        Args:
            texts: N answers, anything: model text never raises.
            truths: N targets as ``read_truth`` takes them; empty ones are absent targets. None:
                ``texts`` are records ``dict(response, ground_truth)``, as EasyR1 gives them.
            finished: whether each answer ended by itself; ``None``: all did.
            num_tokens: of each answer.
            codecs: spec of the codec of each; ``None``: ``self.codec``.

        Raises:
            ValueError: lists of different lengths, or a target that cannot be used.
            RewardError: a component raised, or gave no finite number.
        """
        if truths is None:
            texts, truths = _columns_of(texts)
        count = len(texts)
        columns = [[default] * count if column is None else list(column) for column, default in (
            (truths, None), (finished, True), (num_tokens, None), (codecs, self.codec))]
        if any(len(column) != count for column in columns):
            raise ValueError(f'{count} texts, but {[len(column) for column in columns]} truths, '
                             'finished flags, token counts and codecs')
        rasters: dict = {}  # answers of a group share their target
        answers = []
        for text, truth, end, tokens, spec in zip(texts, *columns):
            key = truth if isinstance(truth, str) else id(truth)
            if key not in rasters:
                raster = self._raster(truth)
                rasters[key] = raster, Spans.from_mask(raster)
            raster, target = rasters[key]
            answers.append(Answer(text if isinstance(text, str) else '', raster, _codec(spec),
                                  bool(end), tokens, target))
        parts = {name: np.array([_apply(name, component, answer) for answer in answers])
                 for name, component in self.components.items()}
        total = sum(self.weights[name] * parts[name] for name in parts)
        return Rewards(np.asarray(total, np.float64), parts, answers)

    def _raster(self, truth) -> np.ndarray:
        mask = read_truth(truth)
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


@lru_cache(maxsize=64)
def _codec(spec: str) -> PolygonCodec:
    return PolygonCodec.from_spec(spec)


def _columns_of(records: Sequence[dict]) -> tuple[list[str], list]:
    """Texts and targets of EasyR1's records."""
    for record in records:
        if not isinstance(record, Mapping) or not {'response', 'ground_truth'} <= set(record):
            raise ValueError(f'there are no truths, and {record!r:.60} is no record: give texts '
                             'and truths, or dicts with response and ground_truth')
    return ([record['response'] for record in records],
            [record['ground_truth'] for record in records])


def _apply(name: str, component: Component, answer: Answer) -> float:
    try:
        value = float(component(answer))
    except Exception as error:
        raise RewardError(f'reward {name!r} raised {type(error).__name__}: {error}; '
                          f'{_describe(answer)}') from error
    if not math.isfinite(value):
        raise RewardError(f'reward {name!r} gave {value}; {_describe(answer)}')
    return value


def _describe(answer: Answer) -> str:
    return (f'answer {answer.text[:500]!r}, target {answer.truth.shape} with '
            f'{int(answer.truth.sum())} pixels, codec {answer.codec.spec}')
