"""Answers that were written as text, scored again on their dataset without running a model."""
from collections.abc import Callable

from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.registry import DefaultScope
from mmengine.utils import track_iter_progress

from ..answers import looks_of
from ..registry import DATASETS
from ..samples import attach_answer, read_answer
from .base import check_metric_names
from .text_dump import match_rows, read_text_rows

#: called with the number of a query, its sample with the decoded answer, and its row
Visit = Callable[[int, DetDataSample, dict], None]


def build_evaluator(config, names: list[str] | None = None) -> Evaluator:
    """The evaluator without what only writes files; ``names``: types of metrics instead."""
    if names:
        config = [dict(type=name) for name in names]
    evaluator = Evaluator(config.get('metrics', config) if isinstance(config, dict) else config)
    evaluator.metrics = [metric for metric in evaluator.metrics
                         if not isinstance(metric, DumpResults)
                         and not getattr(metric, 'returns_nothing', False)]
    check_metric_names(evaluator.metrics)
    return evaluator


def attach_row(sample: DetDataSample, row: dict) -> None:
    """Puts the answer of a row into the sample, as ``SimpleSeg.predict`` does with its own."""
    codec = row.get('codec')
    if codec is not None and sample.get('codec') not in (None, codec):
        # The true answer is written in the config's grammar: there is none in this one.
        sample.set_metainfo(dict(codec=codec, answer=None))
    attach_answer(sample, read_answer(
        sample, row['pred_text'], num_tokens=row.get('tokens'), finished=row.get('finished'),
        seconds=row.get('seconds'), confidence=row.get('confidence'),
        agreement=row.get('agreement'), scores=tuple(row.get('scores') or ()),
        looks=looks_of(row.get('looks'))))


def score(config: Config, results: str, names: list[str] | None = None,
          visit: Visit | None = None) -> dict:
    """Figures of the answers in a .jsonl file on the test set of a config.

    Args:
        config: its ``test_dataloader.dataset`` and ``test_evaluator`` are used.
        results: a file as ``TextDump`` writes it.
        names: types of metrics instead of the config's.
        visit: is shown every query, in the dataset's order.

    Raises:
        FileNotFoundError, ValueError: Files are missing, or the rows do not fit the queries.
    """
    rows = read_text_rows(results)
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'simpleseg_mm')):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        evaluator = build_evaluator(config.test_evaluator, names)
        evaluator.dataset_meta = dataset.metainfo
        matched = match_rows(rows, (dataset.get_data_info(i) for i in range(len(dataset))))
        for i in track_iter_progress(range(len(dataset))):
            sample = dataset[i]['data_samples']
            attach_row(sample, matched[i])
            evaluator.process([sample])
            if visit is not None:
                visit(i, sample, matched[i])
        figures = evaluator.evaluate(len(dataset))
    return {name: value.item() if hasattr(value, 'item') else value
            for name, value in figures.items()}
