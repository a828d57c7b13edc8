"""What a consensus gains and costs: gIoU against samples, early stop, confidence, on one core.

    python benchmarks/consensus.py CONFIG CHECKPOINT --data data/refshapes --keep answers.json
    python benchmarks/consensus.py --quick                # tiny: to see that it runs

Sixteen answers to every query of the test set are drawn for each seed, and to those of the
validation set for the first. All else is worked out from them: a consensus of fewer samples has
the first of them, and so has one that stops early. What is chosen is chosen on the validation set.
``--keep`` writes the texts, and reads them where they are there. A config whose queries ask for
lists (``nano_sft_refshapes-instances.py``) is measured by its own evaluators. Seconds are of one
core's time. The last line is one JSON object.
"""
import argparse
import contextlib
import functools
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from simpleseg_mm.answers import read_answer
from simpleseg_mm.apis.loading import load_weights
from simpleseg_mm.calibration import RIGHT_IOU, auroc, evidence, expected_error
from simpleseg_mm.evaluation import ConfidenceMetric, fit_calibration
from simpleseg_mm.models import consensus as consensus_module
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.polygon import Answer, Spans, mask_to_box, mask_to_rle, vote
from simpleseg_mm.polygon.votes import agreement_of
from simpleseg_mm.registry import DATASETS, MODELS
from simpleseg_mm.samples import attach_answer

CONFIG = Path(__file__).resolve().parent.parent / 'configs/simpleseg/nano_gspo_refshapes.py'
BATCH = 32
SAMPLES = (0, 1, 2, 4, 8, 16)
CLOCKED = (0, 8)  # and all of them, with the answers that are kept
#: share of the samples that a consensus which stops early may draw
SHARE = 0.58
RIGHT = RIGHT_IOU['answer']


def draw(model, dataset, seed: int, samples: int, temperature: float = 0.6
         ) -> tuple[list[list[dict]], float]:
    """The greedy answer and the samples to each query, as rows; and the seconds it took."""
    model.consensus = Consensus(samples=samples, seed=seed, temperature=temperature)
    asked = ((item['inputs'], item['data_samples'].prompt, answer_form(item['data_samples']))
             for item in map(dataset.__getitem__, range(len(dataset))))
    start = time.process_time()
    groups = list(model.group_stream(
        asked, lambda number, answers: 0 if answers else samples + 1, BATCH))
    seconds = time.process_time() - start
    return [[dict(text=one.text, finished=one.finished, tokens=one.num_tokens,
                  confidence=one.confidence) for one in group] for group in groups], seconds


def remember_agreements() -> None:
    """The agreement of the same answers is asked for at many thresholds."""
    known: dict = {}

    def agreement(answers: Sequence[Answer]) -> float:
        key = tuple(map(id, answers))
        if key not in known:
            known[key] = agreement_of(answers)
        return known[key]

    consensus_module.agreement_of = agreement


class Query:
    """A query of a set, its truth, and its answers, each read once."""

    def __init__(self, sample, rows: Sequence[dict]) -> None:
        self.sample = sample
        self.truth = Spans.from_mask(sample.gt_masks.to_ndarray().any(axis=0))
        self.answers = [read_answer(sample, row['text'], num_tokens=row['tokens'],
                                    finished=row['finished'], confidence=row['confidence'])
                        for row in rows]

    @functools.cache
    def vote(self, samples: int, tokens: float) -> Answer:
        return vote(self.answers[:1 + samples], tokens)

    @functools.cache
    def drawn(self, consensus: Consensus) -> int:
        """Samples that are drawn by one that stops early."""
        have: list[Answer] = []
        while count := consensus.further(have):
            have = self.answers[:len(have) + count]
        return len(have) - 1

    def stopped(self, consensus: Consensus) -> Answer:
        return self.vote(self.drawn(consensus), consensus.tokens)

    def iou(self, answer: Answer) -> float:
        return answer.spans.iou(self.truth)


def average_precision(queries: Sequence[Query], answers: Sequence[Answer], scored: bool
                      ) -> tuple[float, float]:
    """AP and AP50 of masks by pycocotools, a picture a query."""
    truth, found = COCO(), []
    images, annotations = [], []
    for number, (query, answer) in enumerate(zip(queries, answers), 1):
        h, w = query.truth.size
        images.append(dict(id=number, height=h, width=w))
        if query.truth.area:
            annotations.append(dict(
                id=number, image_id=number, category_id=1, iscrowd=0, area=query.truth.area,
                segmentation=mask_to_rle(query.truth.mask),
                bbox=_xywh(mask_to_box(query.truth.mask))))
        if answer.spans.area:
            found.append(dict(image_id=number, category_id=1,
                              score=answer.confidence if scored else 1.0,
                              segmentation=mask_to_rle(answer.mask)))
    truth.dataset = dict(images=images, annotations=annotations,
                         categories=[dict(id=1, name='object')])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found), 'segm')
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


def _xywh(box: np.ndarray) -> list[float]:
    return [float(v) for v in (*box[:2], *(box[2:] - box[:2]))]


def ious(queries: Sequence[Query], answers: Sequence[Answer]) -> np.ndarray:
    return np.array([query.iou(answer) for query, answer in zip(queries, answers)])


def calibrated(val: Sequence[Query], ours: Sequence[Answer], answers: Sequence[Answer]
               ) -> list[Answer]:
    """Answers with the confidence that the validation set's teach."""
    fitted = fit_calibration([evidence(answer) for answer in ours], ious(val, ours))
    return [replace(answer, confidence=fitted(answer)) for answer in answers]


def confidence_of(val: Sequence[Query], ours: Sequence[Answer], answers: Sequence[Answer],
                  right: np.ndarray) -> tuple[dict, list[Answer]]:
    """Figures before and after calibration, and the answers after it."""
    after = calibrated(val, ours, answers)
    before, sure = ([one.confidence for one in found] for found in (answers, after))
    return dict(auroc=auroc(sure, right), ece=expected_error(sure, right),
                auroc_before=auroc(before, right), ece_before=expected_error(before, right)), after


def figures_of(queries: Sequence[Query], val: Sequence[Query], most: int, tokens: float) -> dict:
    """Figures of one seed of answers about one object each."""
    found: dict = {}
    greedy = ious(queries, [query.answers[0] for query in queries])
    for samples in [samples for samples in SAMPLES if samples <= most]:
        answers = [query.vote(samples, tokens) for query in queries]
        got = ious(queries, answers)
        row = dict(gIoU=got.mean(), gain=got.mean() - greedy.mean(), P50=(got >= 0.5).mean(),
                   P80=(got >= 0.8).mean(),
                   tokens=np.mean([answer.num_tokens for answer in answers]))
        if samples in (0, 8, 16):
            figures, after = confidence_of(
                val, [query.vote(samples, tokens) for query in val], answers, got >= RIGHT)
            row |= figures
            row['AP'], row['AP50'] = average_precision(queries, after, True)
            row['AP_of_1'], row['AP50_of_1'] = average_precision(queries, after, False)
        if samples in (8, 16):
            row['auroc_agreement'] = auroc([one.agreement for one in answers], got >= RIGHT)
        found[f'K={samples}'] = row
    for samples in (8, 16):
        if samples > most:
            continue
        rule = Consensus(samples=samples, early_stop=stop_of(val, samples), tokens=tokens)
        answers = [query.stopped(rule) for query in queries]
        got = ious(queries, answers)
        gain = got.mean() - greedy.mean()
        figures, _ = confidence_of(val, [query.stopped(rule) for query in val], answers,
                                   got >= RIGHT)
        found[f'K={samples}, early stop'] = dict(
            gIoU=got.mean(), gain=gain, of_gain=gain / found[f'K={samples}']['gain'],
            of_samples=np.mean([len(answer.voters) - 1 for answer in answers]) / samples,
            at=rule.early_stop, P80=(got >= 0.8).mean(),
            tokens=np.mean([answer.num_tokens for answer in answers]), **figures)
    return found


def stop_of(val: Sequence[Query], samples: int) -> float:
    """Where drawing ends, by the validation set: ``SHARE`` of its samples are drawn."""
    low, high = 0.0, 1.0
    while high - low > 1e-4:  # the share falls as it rises
        rule = Consensus(samples=samples, early_stop=(low + high) / 2)
        share = np.mean([query.drawn(rule) for query in val]) / samples
        low, high = (rule.early_stop, high) if share > SHARE else (low, rule.early_stop)
    return round(high, 4)


def figures_of_lists(queries: Sequence[Query], val: Sequence[Query], most: int, tokens: float,
                     evaluators: Sequence[dict]) -> dict:
    """Figures of one seed of lists, by the config's own evaluators."""
    found = {}
    for samples in [samples for samples in SAMPLES if samples in (0, 4, 8, 16)
                    and samples <= most]:
        with tempfile.TemporaryDirectory() as folder:
            path = f'{folder}/fit.json'
            if samples:
                judged(val, [query.vote(samples, tokens) for query in val],
                       [ConfidenceMetric(fit_to=path)])
            answers = [query.vote(samples, tokens) for query in queries]
            row = judged(queries, answers, [*evaluators, dict(type='ConfidenceMetric')])
            if samples:
                rule = Consensus(samples=samples, tokens=tokens, calibration=path)
                sure = [rule.calibrated(answer) for answer in answers]
                row['ECE after calibration'] = judged(
                    queries, sure, [ConfidenceMetric()]).get('confidence/instance_ECE')
        row['tokens'] = float(np.mean([answer.num_tokens for answer in answers]))
        found[f'K={samples}'] = row
    return found


def judged(queries: Sequence[Query], answers: Sequence[Answer], metrics: Sequence) -> dict:
    samples = []
    for query, answer in zip(queries, answers):
        sample = query.sample.clone()
        attach_answer(sample, answer)
        samples.append(sample)
    judge = Evaluator(metrics)
    judge.dataset_meta = dict(classes=('object', ))
    with contextlib.redirect_stdout(io.StringIO()):
        judge.process(samples)
        return {name: float(value) for name, value in judge.evaluate(len(samples)).items()}


def mean_of(rows: Sequence[dict], of=statistics.fmean) -> dict:
    """Mean of each figure over the seeds; or its standard deviation. Without those that a few
    queries do not give."""
    return {name: {key: round(float(of(row[name][key] for row in rows)), 4) for key in values
                   if all(row[name].get(key) is not None for row in rows)}
            for name, values in rows[0].items()}


def plot(report: dict, spread: dict, seconds: dict, queries: int, path: Path) -> None:
    """gIoU against samples, and against what they cost."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    counts = [int(name[2:]) for name in report if name[2:].isdigit()]
    rows = {count: report[f'K={count}'] for count in counts}
    time_of = {int(name[2:]): value / queries for name, value in seconds.items()}
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout='constrained', sharey=True)
    for axis, label, at in (
            (axes[0], 'samples beside the greedy answer', dict(zip(counts, counts))),
            (axes[1], 'tokens a query', {count: row['tokens'] for count, row in rows.items()}),
            (axes[2], 'seconds a query, one core', time_of)):
        known = [count for count in counts if count in at]
        axis.errorbar([at[count] for count in known], [rows[count]['gIoU'] for count in known],
                      [spread[f'K={count}']['gIoU'] for count in known], fmt='o-', capsize=3,
                      color='C0', label='all samples')
        for count in known:
            axis.annotate(f'{count}', (at[count], rows[count]['gIoU']), (4, -11),
                          textcoords='offset points', fontsize=8)
        axis.set(xlabel=label)
        axis.grid(alpha=0.3)
    stops = {int(name.split(',')[0][2:]): row for name, row in report.items() if 'stop' in name}
    for axis, at in ((axes[0], [row['of_samples'] * count for count, row in stops.items()]),
                     (axes[1], [row['tokens'] for row in stops.values()])):
        axis.plot(at, [row['gIoU'] for row in stops.values()], 's', color='C3',
                  label='stops early')
    axes[0].set(ylabel='gIoU of the test set')
    axes[0].legend(fontsize=8, loc='lower right')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, metadata=dict(Software=None))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', default=str(CONFIG))
    parser.add_argument('checkpoint', nargs='?', default='none')
    parser.add_argument('--data', help='folder of RefShapes')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--samples', type=int, default=16, help='samples a query (16)')
    parser.add_argument('--queries', type=int, help='of each set so many, spread over it '
                        '(default: all)')
    parser.add_argument('--keep', type=Path, help='JSON file of the answers')
    parser.add_argument('--plot', type=Path, help='.png file')
    parser.add_argument('--no-clock', action='store_true', help='seconds of all samples alone')
    parser.add_argument('--quick', action='store_true', help='a few queries')
    return parser.parse_args()


def build_sets(cfg: Config, data: str | None, queries: int | None) -> dict:
    sets = {}
    for name in ('test', 'val'):
        settings = cfg[f'{name}_dataloader'].dataset
        settings.pop('indices', None)
        if data:
            settings.data_root = data
        sets[name] = DATASETS.build(settings)
        if queries and queries < len(sets[name]):
            settings.indices = np.linspace(0, len(sets[name]) - 1, queries).round().astype(
                int).tolist()
            sets[name] = DATASETS.build(settings)
    return sets


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope('simpleseg_mm')
    sets = build_sets(cfg, args.data, 6 if args.quick else args.queries)
    seconds: dict = {}
    if args.keep and args.keep.exists():
        kept = json.loads(args.keep.read_text())
        drawn, seconds = kept['drawn'], kept['seconds']
    else:
        torch.set_num_threads(1)
        model = MODELS.build(cfg.model).eval()
        if args.checkpoint != 'none':
            load_weights(model, cfg, args.checkpoint)
        drawn = {}
        for samples in () if args.no_clock else CLOCKED:
            seconds[f'K={samples}'] = draw(model, sets['test'], 0, samples)[1]
        for seed in range(args.seeds):
            drawn[f'test {seed}'], seconds[f'K={args.samples}'] = draw(
                model, sets['test'], seed, args.samples)
        drawn['val 0'], _ = draw(model, sets['val'], 0, args.samples)
        if args.keep:
            args.keep.write_text(json.dumps(dict(drawn=drawn, seconds=seconds)))
    remember_agreements()
    tokens = Consensus().tokens
    read = {name: [Query(sets[name.split()[0]][i]['data_samples'], row)
                   for i, row in enumerate(rows)] for name, rows in drawn.items()}
    most = len(drawn['val 0'][0]) - 1
    lists = read['val 0'][0].answers[0].many
    of_seeds = [figures_of_lists(queries, read['val 0'], most, tokens, cfg.test_evaluator)
                if lists else figures_of(queries, read['val 0'], most, tokens)
                for name, queries in read.items() if name.startswith('test')]
    report = mean_of(of_seeds)
    spread = mean_of(of_seeds, lambda values: statistics.pstdev(list(values)))
    for name, row in report.items():
        print(f'{name:20}' + '  '.join(
            f'{key} {value:.4f} ±{spread[name][key]:.4f}' for key, value in row.items()))
    if args.plot and not lists:
        plot(report, spread, seconds, len(read['test 0']), args.plot)
    print(json.dumps(dict(figures=report, spread=spread, seconds=seconds)))


if __name__ == '__main__':
    main()
