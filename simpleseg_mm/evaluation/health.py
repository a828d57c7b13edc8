"""Output health: is what the model writes well-formed, short, and right in kind?"""
import logging

import cv2
import numpy as np
from mmengine.logging import print_log

from ..polygon import Answer, ParsedAnswer, box_iou, mask_iou, mask_to_box, parse_answer
from ..polygon.metrics import self_intersects
from ..registry import METRICS
from .base import QueryMetric, SampleQuery, mean, percent, stated


@METRICS.register_module()
class OutputHealthMetric(QueryMetric):
    """How a model writes, beside how well its masks fit.

    Shares, in percent:

    - ``valid_parse``: answers that parse as a whole and are of the kind that the task asks for;
    - ``other_grammar``: of the answers with numbers, those with one that the dataset's grammar
      does not write; a warning is logged where they are most;
    - ``truncated``: answers that the network did not end (cut or, where constrained, completed at
      the limit), or with an unclosed tail;
    - ``self_intersection``, ``few_vertices``: of the answers with rings, those with a ring that
      meets itself (a one-pixel line traced there and back does), with a ring of fewer than 3
      distinct vertices;
    - ``empty``: present targets answered with an empty mask;
    - ``false_object``: absent targets answered with a mask that is not empty;
    - ``box_right_mask_wrong``: present targets with box IoU > 0.5 and mask IoU <= 0.5: found, but
      not outlined;
    - ``part_recall``: parts of targets with several parts of which at least half is predicted;
    - ``hole_recall``: holes of targets of which at least half lies in holes of the prediction.
      Parts and holes below ``min_pixels`` are passed over. (Both definitions are ours.);
    - ``looked_again``, ``look_taken``: answers that got second looks (``model.second_look``), and
      of these looks those whose outline was taken.

    Means: ``vertices`` an answer with rings; ``vertex_ratio``, predicted over true vertices in
    all (the N-ratio); ``tokens`` and ``seconds`` an answer, where the samples state them.
    A figure for which there is no sample is left out.

    Args:
        min_pixels: Least area of a part or a hole (our choice).
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'health'

    def __init__(self, min_pixels: int = 16, **kwargs) -> None:
        super().__init__(**kwargs)
        self.min_pixels = min_pixels

    def measure(self, query: SampleQuery) -> dict:
        answer = query.answer
        result = dict(
            valid_parse=answer.parsed.valid,
            other_grammar=answer.codec.grammar.is_foreign(answer.text),
            truncated=answer.parsed.truncated or answer.finished is False,
            tokens=answer.num_tokens,
            seconds=answer.seconds,
            looks=len(answer.looks),
            looks_taken=sum(look.accepted for look in answer.looks))
        result.update(self._rings(answer, query.meta.get('answer')))
        if query.truth.any():
            result.update(self._masks(query.prediction, query.truth))
        else:
            result['false_object'] = bool(query.prediction.any())
        return result

    def compute_metrics(self, results: list) -> dict:
        figures = super().compute_metrics(results)
        if figures.get('other_grammar', 0) > 50:
            print_log(f'{figures["other_grammar"]:.0f} % of the answers have numbers that the '
                      'grammar of the test data does not write: the weights were taught another '
                      "one. Set the dataset's query.codec.grammar to theirs (decimal3 for the "
                      'released SimpleSeg weights).', 'current', logging.WARNING)
        return figures

    def summarize(self, results: list[dict]) -> dict:
        def column(name: str) -> list:
            return [result.get(name) for result in results]

        figures = {name: percent(column(name)) for name in (
            'valid_parse', 'other_grammar', 'truncated', 'self_intersection', 'few_vertices',
            'empty', 'false_object', 'box_right_mask_wrong')}
        for name in ('part', 'hole'):
            true_count = sum(count or 0 for count in column(f'true_{name}s'))
            found = sum(count or 0 for count in column(f'found_{name}s'))
            figures[f'{name}_recall'] = 100 * found / true_count if true_count else None
        looks = sum(column('looks'))
        if looks:
            figures['looked_again'] = percent([count > 0 for count in column('looks')])
            figures['look_taken'] = 100 * sum(column('looks_taken')) / looks
        figures.update({name: mean(column(name)) for name in ('vertices', 'tokens', 'seconds')})
        true_vertices = sum(count or 0 for count in column('true_vertices'))
        if true_vertices:
            figures['vertex_ratio'] = sum(
                result.get('vertices', 0) for result in results
                if result.get('true_vertices')) / true_vertices
        return stated(figures)

    @staticmethod
    def _rings(answer: Answer, true_text: str | None) -> dict:
        result, parsed = {}, answer.parsed
        if isinstance(true_text, str):
            result['true_vertices'] = _vertices(
                parse_answer(true_text, answer.codec.grammar, answer.kind, max_chars=None))
        if parsed.kind in ('rings', 'masks', 'objects'):
            result.update(
                vertices=_vertices(parsed),
                few_vertices=parsed.short_rings > 0,
                self_intersection=any(self_intersects(ring) for ring in parsed.rings))
        return result

    def _masks(self, prediction: np.ndarray, truth: np.ndarray) -> dict:
        result = dict(empty=not prediction.any(), box_right_mask_wrong=False)
        if prediction.any():
            box_right = box_iou(mask_to_box(prediction), mask_to_box(truth)) > 0.5
            result['box_right_mask_wrong'] = bool(
                box_right and mask_iou(prediction, truth) <= 0.5)
        left, top, right, bottom = mask_to_box(truth | prediction).astype(int)
        window = slice(top, bottom), slice(left, right)
        truth, prediction = (np.ascontiguousarray(mask[window]) for mask in (truth, prediction))
        parts, part_areas = _components(truth, connectivity=8)
        if np.count_nonzero(part_areas >= self.min_pixels) > 1:
            result['true_parts'], result['found_parts'] = self._found(
                parts, part_areas, prediction)
        holes, hole_areas = _components(_holes(truth), connectivity=4)
        if len(hole_areas):
            result['true_holes'], result['found_holes'] = self._found(
                holes, hole_areas, _holes(prediction))
        return result

    def _found(self, labels: np.ndarray, areas: np.ndarray, cover: np.ndarray) -> tuple[int, int]:
        """Components of at least ``min_pixels``: how many, and how many are half covered."""
        covered = np.bincount(labels[cover], minlength=len(areas) + 1)[1:]
        counted = areas >= self.min_pixels
        return int(np.count_nonzero(counted)), int(np.count_nonzero(
            counted & (2 * covered >= areas)))


def _vertices(parsed: ParsedAnswer) -> int:
    return sum(len(ring) for ring in parsed.rings)


def _components(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) labels from 1 (0 is the rest), and the area of each."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64)
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)
    return labels, np.bincount(labels.ravel())[1:]


def _holes(mask: np.ndarray) -> np.ndarray:
    """(h, w) bool: background that does not reach the frame by 4-neighbours."""
    around = np.pad(~mask, 1, constant_values=True)
    _, labels = cv2.connectedComponents(around.view(np.uint8), connectivity=4)
    return (around & (labels != labels[0, 0]))[1:-1, 1:-1]
