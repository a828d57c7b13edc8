"""Pictures of queries: true and predicted polygons with their vertices, and the text."""
from collections.abc import Mapping
from typing import TYPE_CHECKING, Union

import numpy as np

from ..answers import answer_of, read_answer
from ..files import one_line
from ..polygon import Answer, Task, box_iou, mask_iou, mask_to_rings
from . import draw

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

#: a sample as the dataset packs it, or a mapping with its keys
DrawnSample = Union['DetDataSample', Mapping]
LAYOUTS = ('overlay', 'side_by_side')
_DASH = (9, 6)


class QueryPainter:
    """Draws a query: the truth dashed in green, the prediction in pink with its vertices in order
    (yellow to red; the first has a white rim and an arrow), prompt and answer underneath. Of a
    consensus, 90 % of the answers pass within the blue circle round a vertex.

    Args:
        layout: 'overlay', or 'side_by_side' (truth left, prediction right).
        side: Smaller images are enlarged until their longer side has this many pixels.
        largest: Larger images are reduced until it has this many. The answer itself is not.
        numbers: Whether to number the vertices in the order of the text.
    """

    def __init__(self, layout: str = 'overlay', side: int = 560, largest: int = 1600,
                 numbers: bool = False) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f'layout must be one of {LAYOUTS}, got {layout!r}')
        if not 0 < side <= largest:
            raise ValueError(f'side must be above 0 and at most largest, got {side} and {largest}')
        self.layout, self.side, self.largest, self.numbers = layout, side, largest, numbers

    def draw_query(self, image: np.ndarray, data_sample: DrawnSample | None = None,
                   draw_gt: bool = True, draw_pred: bool = True) -> np.ndarray:
        """The picture of one query.

        Args:
            image: (H, W, 3) uint8, RGB, at the sample's ``ori_shape`` or resized since.
            data_sample: As the dataset packs it, with predictions or not. What it lacks is not
                drawn.

        Returns:
            RGB picture, (H', W', 3) uint8.
        """
        sample = {} if data_sample is None else data_sample
        draw_gt = draw_gt and ('gt_masks' in sample or 'answer' in sample)
        draw_pred = draw_pred and ('pred_text' in sample or 'pred_instances' in sample)
        canvas, scale = draw.fit(image, self.side, self.largest)
        scale *= image.shape[1] / sample.get('ori_shape', image.shape)[1]
        if self.layout == 'side_by_side' and draw_gt and draw_pred:
            panels = [draw.add_title(self._panel(canvas, scale, sample, *what), title, color)
                      for what, title, color in (((True, False), 'truth', draw.TRUTH),
                                                 ((False, True), 'prediction', draw.PREDICTION))]
            picture = draw.contact_sheet(panels, columns=2, gap=6, background=draw.PAPER)
        else:
            picture = self._panel(canvas, scale, sample, draw_gt, draw_pred)
        lines = _caption(sample, draw_gt, draw_pred)
        return draw.add_caption(picture, lines) if lines else picture

    def _panel(self, canvas: np.ndarray, scale: float, sample: DrawnSample, truth: bool,
               prediction: bool) -> np.ndarray:
        canvas = canvas.copy()
        if prediction:
            _draw_prediction(canvas, scale, sample)
        if truth:
            _draw_truth(canvas, scale, sample)
        _draw_given(canvas, scale, sample)
        written = 0
        for ring, spread in _spread_rings(sample) if prediction else ():
            if spread is not None:
                draw.draw_spread(canvas, ring * scale, spread[:, -1] * scale)
            draw.draw_vertices(canvas, ring * scale, _radius(canvas, len(ring)))
            if self.numbers:
                draw.number_vertices(canvas, ring * scale, written + 1)
            written += len(ring)
        return canvas


def _task(sample: DrawnSample) -> Task:
    return Task.find(sample.get('task')) or Task('text', 'mask')


def _truths(sample: DrawnSample) -> np.ndarray | None:
    """(N, H, W): N targets, those of a query that asks for one object together."""
    return sample.get('gt_masks').to_ndarray() if 'gt_masks' in sample else None


def _truth(sample: DrawnSample) -> np.ndarray | None:
    truths = _truths(sample)
    return None if truths is None else truths.any(axis=0)


def _predicted_mask(sample: DrawnSample) -> np.ndarray | None:
    masks = sample.get('pred_instances', {}).get('masks')
    if masks is None or not len(masks):
        return None
    return (masks if isinstance(masks, np.ndarray) else masks.cpu().numpy()).any(axis=0)


def _answer(sample: DrawnSample) -> Answer | None:
    """What the model wrote, where it is not in words."""
    return answer_of(sample) if 'codec' in sample else None


def _true_answer(sample: DrawnSample) -> Answer | None:
    text = sample.get('answer')
    return read_answer(sample, text) if 'codec' in sample and text is not None else None


def _predicted_rings(sample: DrawnSample) -> list[np.ndarray]:
    """Rings in pixels, from the text where there is one."""
    answer = _answer(sample)
    return answer.rings if answer and _task(sample).single.wanted == 'mask' else []


def _spread_rings(sample: DrawnSample) -> list[tuple]:
    """These rings, and how sure their vertices are; None where there was no vote."""
    rings = _predicted_rings(sample)
    spread = _answer(sample).spread if rings else None
    return list(zip(rings, spread or [None] * len(rings)))


def _mark(answer: Answer | None, kind: str) -> np.ndarray | None:
    """A point (2,) or box (4,) in pixels from a text; None where there is none."""
    if answer is None:
        return None
    found = answer.found(kind)
    shares = found.point if kind == 'point' else found.box
    return None if shares is None else shares * np.array(answer.size[::-1] * (len(shares) // 2))


def _marks(answer: Answer | None, task: Task) -> list[np.ndarray]:
    """The points or boxes in pixels that are asked for, from a text."""
    kind = task.single.kind
    answers = answer.instances if answer is not None and task.many else [answer]
    marks = [_mark(one, kind) for one in answers]
    return [mark for mark in marks if mark is not None]


def _draw_prediction(canvas: np.ndarray, scale: float, sample: DrawnSample) -> None:
    task = _task(sample)
    if task.single.kind in ('box', 'point'):
        for mark in _marks(_answer(sample), task):
            _draw_mark(canvas, scale, mark, draw.PREDICTION)
        return
    mask = _predicted_mask(sample)
    if mask is not None:
        draw.tint(canvas, mask, draw.PREDICTION)
        for ring in _predicted_rings(sample) or mask_to_rings(mask, 'edges'):
            draw.draw_ring(canvas, ring * scale, draw.PREDICTION)
    answer = _answer(sample)
    if task.named and answer is not None:
        named = [one for one in answer.instances if one.box is not None]
        draw.draw_labels(canvas, [(one.box[:2] + one.box[2:]) / 2 * scale for one in named],
                         [one_line(one.name) for one in named])


def _draw_truth(canvas: np.ndarray, scale: float, sample: DrawnSample) -> None:
    masks, task = _truths(sample), _task(sample)
    for mask in () if masks is None else masks:
        for ring in mask_to_rings(mask, 'edges'):
            draw.draw_ring(canvas, ring * scale, draw.TRUTH, dash=_DASH)
    if task.single.kind in ('box', 'point'):
        for mark in _marks(_true_answer(sample), task):
            _draw_mark(canvas, scale, mark, draw.TRUTH, _DASH)


def _draw_given(canvas: np.ndarray, scale: float, sample: DrawnSample) -> None:
    """The point or box that the prompt names."""
    given, prompt = _task(sample).given, sample.get('prompt')
    if given in ('box', 'point') and prompt and 'codec' in sample:
        mark = _mark(read_answer(sample, prompt, given), given)
        _draw_mark(canvas, scale, mark, draw.GIVEN_COLOR)


def _draw_mark(canvas: np.ndarray, scale: float, mark: np.ndarray | None, color: draw.Color,
               dash: tuple[int, int] | None = None) -> None:
    if mark is not None and len(mark) == 4:
        draw.draw_box(canvas, mark * scale, color, dash=dash)
    elif mark is not None:
        draw.draw_point(canvas, mark * scale, color)


def _radius(canvas: np.ndarray, vertices: int) -> int:
    """Smaller dots where there are many, so that they do not hide the outline."""
    return int(np.clip(max(canvas.shape[:2]) / (6 * max(vertices, 1)), 2, 4))


def _caption(sample: DrawnSample, truth: bool, prediction: bool) -> list:
    lines = []
    if sample.get('prompt') or sample.get('text'):
        lines.append((f"? {sample.get('prompt') or sample.get('text')}", draw.INK))
    if prediction:
        if 'pred_text' in sample:
            lines.append((f'> {sample.get("pred_text")}', draw.PREDICTION))
        if truth and _task(sample).given == 'question':
            lines.append((f'= {sample.get("answer")}', draw.TRUTH))
        lines.append((_score(sample, both=truth), draw.FAINT))
    elif truth and 'answer' in sample:
        lines.append((f'= {sample.get("answer")}', draw.TRUTH))
    return lines


def _score(sample: DrawnSample, both: bool) -> str:
    words = []
    task, mask, truth = _task(sample), _predicted_mask(sample), _truth(sample)
    if task.single.wanted == 'mask' and mask is not None and truth is not None:
        words.append(f'IoU {100 * mask_iou(mask, truth):.1f} %')
    answer = _answer(sample)
    if task.many and answer is not None:
        of = '' if truth is None else f' of {len(_truths(sample))}'
        words.append(f'{len(answer.instances)}{of} instances')
        if strange := sample.get('pred_no_class'):
            words.append(f'{len(strange)} of a name that is no class')
    if task.wanted == 'box':
        boxes = [_mark(answer, 'box') for answer in (_answer(sample), _true_answer(sample))]
        if all(box is not None for box in boxes):
            words.append(f'box IoU {100 * box_iou(*boxes):.1f} %')
    rings = _predicted_rings(sample)
    if rings:
        parts = f' in {len(rings)} rings' if len(rings) > 1 else ''
        words.append(f'{sum(map(len, rings))} vertices{parts}')
    if sample.get('pred_num_tokens') is not None:
        words.append(f'{sample.get("pred_num_tokens")} tokens')
    if looks := sample.get('pred_looks'):
        taken = sum(look['accepted'] for look in looks)
        words.append(f'second look: {taken} of {len(looks)} taken')
    if sample.get('pred_agreement') is not None:
        words.append(f'agreement {sample.get("pred_agreement"):.2f}')
    if sample.get('pred_finished') is False:
        words.append('cut off')
    if task.given == 'question':
        return ' · '.join(words)
    if truth is not None and not truth.any():
        words.append('the target is absent')
    elif both:
        words.append('truth: dashed green')
    return ' · '.join(words)
