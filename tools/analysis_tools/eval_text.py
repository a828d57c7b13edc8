"""Score answers that were written as text, this model's or any other's, without running a model.

A row of the .jsonl file needs ``pred_text`` and either ``img_id`` or ``ref_id`` and ``sent_id``
(and ``source`` where sets are joined). ``codec`` names another grammar than the config's;
``tokens``, ``finished`` and ``seconds`` are used where they are given. The metric ``TextDump``
writes such files, and their figures are then those of the run itself. The last line is one JSON
object.
"""
import argparse
import json
from typing import List, Optional, Sequence

from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress

from simpleseg_mm.evaluation import check_metric_names, match_rows, read_text_rows
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.models.backbones.base import Generated
from simpleseg_mm.registry import DATASETS


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file; its test_dataloader.dataset is scored')
    parser.add_argument('results', help='.jsonl file of answers, one row a query')
    parser.add_argument('--metrics', nargs='+', metavar='TYPE',
                        help="metrics instead of the config's test_evaluator, such as RESMetric "
                        'mmdet.RefSegMetric')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings: key=value, a.b=value, list="[a,b]"')
    return parser.parse_args(argv)


def build_evaluator(config, names: Optional[List[str]]) -> Evaluator:
    """The evaluator without what only writes files."""
    if names:
        config = [dict(type=name) for name in names]
    evaluator = Evaluator(config.get('metrics', config) if isinstance(config, dict) else config)
    evaluator.metrics = [metric for metric in evaluator.metrics
                         if not isinstance(metric, DumpResults)
                         and not getattr(metric, 'returns_nothing', False)]
    check_metric_names(evaluator.metrics)
    return evaluator


def attach_answer(sample: DetDataSample, row: dict) -> None:
    """Decodes the text of a row into the sample, as ``SimpleSeg.predict`` does."""
    codec = row.get('codec')
    if codec is not None and codec != sample.codec:
        # The true answer is written in the config's grammar: there is none in this one.
        sample.set_metainfo(dict(codec=codec, answer=None))
    answer = Generated(row['pred_text'], row.get('tokens'), row.get('finished'))
    SimpleSeg.postprocess(sample, answer, row.get('seconds'))


def score(config: Config, results: str, names: Optional[List[str]] = None) -> dict:
    """Figures of the answers in a .jsonl file on the test set of a config.

    Raises:
        FileNotFoundError, ValueError: Files are missing, or the rows do not fit the queries.
    """
    init_default_scope(config.get('default_scope', 'simpleseg_mm'))
    rows = read_text_rows(results)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    evaluator = build_evaluator(config.test_evaluator, names)
    evaluator.dataset_meta = dataset.metainfo
    matched = match_rows(rows, (dataset.get_data_info(i) for i in range(len(dataset))))
    for i in track_iter_progress(range(len(dataset))):
        sample = dataset[i]['data_samples']
        attach_answer(sample, matched[i])
        evaluator.process([sample])
    figures = evaluator.evaluate(len(dataset))
    return {name: value.item() if hasattr(value, 'item') else value
            for name, value in figures.items()}


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    try:
        figures = score(config, args.results, args.metrics)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'eval_text: {error}') from None
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
