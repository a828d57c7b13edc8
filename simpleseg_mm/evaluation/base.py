"""What the metrics of this package share: one record and one result a query, unique ids."""
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric, DumpResults

from ..polygon import Answer, Spans, Task, rle_to_mask
from ..samples import answer_of
from ..structures import AnsweredQuery


class SampleQuery(AnsweredQuery):
    """The record of a sample as a metric gets it. What the sample lacks is missed, with its
    ``img_id`` and what to do, when it is asked for.

    Args:
        meta: ``DetDataSample.to_dict()``.
    """

    def __init__(self, meta: dict) -> None:
        object.__setattr__(self, 'meta', meta)

    @property
    def prompt(self) -> str | None:
        return self.meta.get('prompt')

    @property
    def task(self) -> Task | None:
        return Task.find(self.meta.get('task'))

    @property
    def has_text(self) -> bool:
        """Whether the model wrote an answer; one of another kind may predict masks alone."""
        return self.meta.get('pred_text') is not None

    @property
    def text(self) -> str:
        """What the model wrote."""
        if not isinstance(self.meta.get('pred_text'), str):
            self._lacks("'pred_text'; this metric is for models that write their answer as text")
        return self.meta['pred_text']

    @cached_property
    def answer(self) -> Answer:
        if self.text is not None and not isinstance(self.meta.get('codec'), str):
            self._lacks("'codec'; this metric is for models that write their answer as text")
        return answer_of(self.meta)

    @cached_property
    def truth(self) -> np.ndarray:
        """(h, w) bool: the union of ``gt_masks``; all False where the target is absent."""
        return _union(self._true_masks)

    @cached_property
    def truths(self) -> np.ndarray:
        """(n, h, w) bool: each object of ``gt_masks`` that has a pixel; n is 0 where the target is
        absent, and 1 where objects were not asked for one by one."""
        masks = self._true_masks != 0
        return masks[masks.any(axis=(1, 2))]

    @cached_property
    def labels(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The labels of ``predictions`` and of ``truths``, (m,) and (n,) int64, where names were
        asked for; else None."""
        if self.task is None or not self.task.named:
            return None
        found = np.asarray(self.meta['pred_instances']['labels'], np.int64).reshape(-1)
        true = np.array([one['bbox_label'] for one in self.objects], np.int64)
        return tuple(labels[(masks != 0).any(axis=(1, 2))] for labels, masks in (
            (found, self._predicted_masks), (true, self._true_masks)))

    @cached_property
    def target(self) -> Spans:
        return Spans.from_mask(self.truth)

    @cached_property
    def targets(self) -> tuple[Spans, ...]:
        return tuple(map(Spans.from_mask, self.truths))

    @property
    def _true_masks(self) -> np.ndarray:
        if 'gt_masks' not in self.meta:
            self._lacks("'gt_masks'; load the target's mask in the pipeline")
        return self.meta['gt_masks'].to_ndarray()

    @cached_property
    def prediction(self) -> np.ndarray:
        """(h, w) bool: the union of ``pred_instances['masks']`` (a (n, h, w) tensor or array, or
        n RLE dicts as `mmdet.DumpDetResults` leaves them), which any model predicts."""
        return _union(self._predicted_masks)

    @cached_property
    def predictions(self) -> np.ndarray:
        """(n, h, w) bool: each predicted object that has a pixel."""
        masks = self._predicted_masks != 0
        return masks[masks.any(axis=(1, 2))]

    @cached_property
    def _predicted_masks(self) -> np.ndarray:
        size = self.truth.shape
        masks = self.meta.get('pred_instances', {}).get('masks')
        if masks is None:
            self._lacks('pred_instances.masks; a model that finds nothing predicts one all-zero '
                        'mask')
        if isinstance(masks, (list, tuple)):
            masks = [rle_to_mask(rle) for rle in masks]
            masks = np.stack(masks) if masks else np.zeros((0, *size))
        elif not isinstance(masks, np.ndarray):
            masks = masks.detach().cpu().numpy()
        if masks.ndim != 3 or masks.shape[1:] != size:
            raise ValueError(f'sample {self.name}: predicted masks have shape {masks.shape}, the '
                             f'truth is (h, w) = {size}; predict at ori_shape')
        return masks

    @cached_property
    def scored(self) -> np.ndarray | None:
        """(h, w) bool: False where neither mask counts (``gt_ignore``, as in ReasonSeg); None:
        all."""
        ignored = self.meta.get('gt_ignore')
        return None if ignored is None else ~_union(ignored.to_ndarray())

    @property
    def objects(self) -> list[dict]:
        """The targets in MMDetection's form, without those to ignore (crowds)."""
        return [one for one in self.meta.get('instances', ()) if not one.get('ignore_flag')]

    @property
    def name(self) -> str:
        """Of the sample, for messages."""
        return repr(self.meta.get('img_id'))

    def _lacks(self, what: str) -> None:
        raise ValueError(f'sample {self.name} has no {what}')


class QueryMetric(BaseMetric):
    """A metric with exactly one result a sample (query), keyed by ``img_id``.

    MMEngine pads the last batch of a distributed run and cuts the collected results to the size
    of the dataset, which is right only with one result a sample. Ids that still occur twice are
    an error: a dataset with shared ids (one id an image, say) is scored wrongly by metrics that
    match by id.

    A subclass implements `measure` (a query -> a small picklable result, no tensors) and
    `summarize` (all results -> figures). Sums over samples go through `mean` or Python's
    integers, which do not depend on the order: any number of ranks gives the same figures.

    Args:
        per_set: Whether to give every figure also for each (source, split) of a joint test set,
            as ``refcoco_val/cIoU``, and averaged over these sets, as ``average/cIoU``: the eight
            columns and the average of the papers from one run.
        prefix, collect_device, collect_dir: See `mmengine.evaluator.BaseMetric`.
    """

    def __init__(self, per_set: bool = False, prefix: str | None = None,
                 collect_device: str = 'cpu', collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.per_set = per_set

    @abstractmethod
    def measure(self, query: SampleQuery) -> Any:
        """The result of one query."""

    @abstractmethod
    def summarize(self, results: list[Any]) -> dict:
        """Figures over the results of all samples."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if 'img_id' not in sample:
                raise ValueError(f"{type(self).__name__} got a sample without 'img_id'; pack it "
                                 'into the metainfo, unique a (image, sentence) pair')
            self.results.append((sample['img_id'], _set_name(sample),
                                 self.measure(SampleQuery(sample))))

    def compute_metrics(self, results: list) -> dict:
        if not results:
            return {}
        self._check_unique([img_id for img_id, _, _ in results])
        figures = self.summarize([result for _, _, result in results])
        if self.per_set:
            figures.update(self._figures_of_sets(results))
        return figures

    def _check_unique(self, img_ids: list) -> None:
        counts = Counter(img_ids)
        doubled = [img_id for img_id, count in counts.items() if count > 1]
        if doubled:
            raise ValueError(
                f'{type(self).__name__}: img_id {doubled[0]!r} has {counts[doubled[0]]} results '
                f'({len(doubled)} of {len(counts)} ids are not unique); img_id must be unique a '
                '(image, sentence) pair, not an image')

    def _figures_of_sets(self, results: list) -> dict:
        sets: dict[str, list] = {}
        for _, name, result in results:
            sets.setdefault(name, []).append(result)
        if None in sets:
            raise ValueError(f'{type(self).__name__}: per_set=True needs source and split in the '
                             f'metainfo of every sample; {len(sets[None])} have none')
        columns = {name: self.summarize(sets[name]) for name in sorted(sets)}
        figures = {f'{name}/{figure}': value for name, column in columns.items()
                   for figure, value in column.items()}
        for figure in set.intersection(*(set(column) for column in columns.values())):
            figures[f'average/{figure}'] = mean(column[figure] for column in columns.values())
        return figures


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values that are not None, the same in any order; None if there are none."""
    values = [value for value in values if value is not None]
    return math.fsum(values) / len(values) if values else None


def percent(values: Iterable[float]) -> float | None:
    """`mean` times 100."""
    value = mean(values)
    return None if value is None else 100 * value


def stated(figures: dict) -> dict:
    """The figures that are defined (not None)."""
    return {name: value for name, value in figures.items() if value is not None}


def check_metric_names(metrics: Sequence[BaseMetric]) -> None:
    """Refuses metrics whose names could clash, before the run instead of after its last sample.

    Args:
        metrics: Those of one evaluator (``runner.test_evaluator.metrics``). What returns no
            figures (dumps) is passed over.

    Raises:
        ValueError: Two metrics have one prefix.
    """
    owner = {}
    for metric in metrics:
        if isinstance(metric, DumpResults) or getattr(metric, 'returns_nothing', False):
            continue
        name = type(metric).__name__
        if metric.prefix in owner:
            raise ValueError(
                f'{owner[metric.prefix]} and {name} have the same prefix {metric.prefix!r}, so '
                "their figures can take each other's names; set prefix='...' in the config of "
                'one of them')
        owner[metric.prefix] = name


def _set_name(sample: dict) -> str | None:
    if sample.get('source') is None or sample.get('split') is None:
        return None
    return f"{sample['source']}_{sample['split']}"


def _union(masks: np.ndarray) -> np.ndarray:
    masks = masks != 0
    return masks[0] if len(masks) == 1 else masks.any(axis=0)

