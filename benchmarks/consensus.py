"""What a consensus gains and costs: gIoU against samples, early stop, confidence, on one core.

    python benchmarks/consensus.py CONFIG CHECKPOINT --data data/refshapes --keep answers.json
    python benchmarks/consensus.py --quick                # tiny: to see that it runs

Sixteen answers to every query of the test set are drawn for each seed, and to those of the
validation set for the first. All else is worked out from them: a consensus of fewer samples has
the first of them, and so has one that stops early. ``--keep`` writes the texts, and reads them
where they are there. The last line is one JSON object.
"""
import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from simpleseg_mm.answers import read_answer
from simpleseg_mm.apis.loading import load_weights
from simpleseg_mm.calibration import RIGHT_IOU, auroc, expected_error
from simpleseg_mm.evaluation import fit_calibration
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.polygon import Answer, Spans, mask_to_box, mask_to_rle, vote
from simpleseg_mm.registry import DATASETS, MODELS

CONFIG = Path(__file__).resolve().parent.parent / 'configs/simpleseg/nano_gspo_refshapes.py'
MOST, BATCH = 16, 32
SAMPLES = (0, 1, 2, 4, 8, 16)
STOPS = (0.7, 0.725, 0.75, 0.775)


def draw(model, dataset, seed: int, most: int = MOST, temperature: float = 0.6, **settings
         ) -> tuple[list[list[dict]], float]:
    """The greedy answer and the samples to each query, as rows; and the seconds it took."""
    model.consensus = Consensus(samples=most, seed=seed, temperature=temperature, **settings)
    asked = ((item['inputs'], item['data_samples'].prompt, answer_form(item['data_samples']))
             for item in map(dataset.__getitem__, range(len(dataset))))
    start = time.perf_counter()
    groups = list(model.group_stream(
        asked, lambda number, answers: 0 if answers else most + 1, BATCH))
    seconds = time.perf_counter() - start
    return [[dict(text=one.text, finished=one.finished, tokens=one.num_tokens,
                  confidence=one.confidence) for one in group] for group in groups], seconds


class Query:
    """A query of a set, its truth, and its answers, each read once."""

    def __init__(self, sample, rows: Sequence[dict]) -> None:
        self.truth = Spans.from_mask(sample.gt_masks.to_ndarray().any(axis=0))
        self.answers = [read_answer(sample, row['text'], num_tokens=row['tokens'],
                                    finished=row['finished'], confidence=row['confidence'])
                        for row in rows]
        self._votes: dict = {}

    def vote(self, samples: int, tokens: float) -> Answer:
        if (samples, tokens) not in self._votes:
            self._votes[samples, tokens] = vote(self.answers[:1 + samples], tokens)
        return self._votes[samples, tokens]

    def stopped(self, consensus: Consensus) -> Answer:
        """The vote that stops early."""
        have: list[Answer] = []
        while count := consensus.further(have):
            have = self.answers[:len(have) + count]
        return self.vote(len(have) - 1, consensus.tokens)

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


def figures_of(queries: Sequence[Query], val: Sequence[Query], tokens: float) -> dict:
    """Figures of one seed."""
    found: dict = {}
    greedy = ious(queries, [query.answers[0] for query in queries])
    for samples in SAMPLES:
        answers = [query.vote(samples, tokens) for query in queries]
        got = ious(queries, answers)
        row = dict(gIoU=got.mean(), gain=got.mean() - greedy.mean(), P50=(got >= 0.5).mean(),
                   P80=(got >= 0.8).mean(),
                   tokens=np.mean([answer.num_tokens for answer in answers]))
        if samples > 1:
            sure = [answer.confidence for answer in answers]
            ours = [query.vote(samples, tokens) for query in val]
            curve = fit_calibration([one.confidence for one in ours], ious(val, ours))
            row.update(auroc=auroc(sure, got >= RIGHT_IOU),
                       auroc_agreement=auroc([one.agreement for one in answers], got >= RIGHT_IOU),
                       ece_before=expected_error(sure, got >= RIGHT_IOU),
                       ece=expected_error(curve(sure), got >= RIGHT_IOU))
            row['AP'], row['AP50'] = average_precision(queries, answers, True)
            row['AP_of_1'], row['AP50_of_1'] = average_precision(queries, answers, False)
        found[f'K={samples}'] = row
    sure = [query.answers[0].confidence for query in queries]
    found['token probability'] = dict(auroc=auroc(sure, greedy >= RIGHT_IOU))
    for most in (8, 16):
        for stop in STOPS:
            rule = Consensus(samples=most, early_stop=stop, tokens=tokens)
            answers = [query.stopped(rule) for query in queries]
            got = ious(queries, answers)
            ours = [query.stopped(rule) for query in val]
            curve = fit_calibration([one.confidence for one in ours], ious(val, ours))
            sure = [answer.confidence for answer in answers]
            gain = got.mean() - greedy.mean()
            found[f'K={most}, stop at {stop}'] = dict(
                gIoU=got.mean(), gain=gain, of_gain=gain / found[f'K={most}']['gain'],
                of_samples=np.mean([len(answer.voters) - 1 for answer in answers]) / most,
                auroc=auroc(sure, got >= RIGHT_IOU),
                ece=expected_error(curve(sure), got >= RIGHT_IOU))
    return found


def mean_of(rows: Sequence[dict]) -> dict:
    """Mean of each figure over the seeds, and its spread."""
    return {name: {key: round(statistics.fmean(row[name][key] for row in rows), 4)
                   for key in values} for name, values in rows[0].items()}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', default=str(CONFIG))
    parser.add_argument('checkpoint', nargs='?', default='none')
    parser.add_argument('--data', help='folder of RefShapes')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--keep', type=Path, help='JSON file of the answers')
    parser.add_argument('--no-clock', action='store_true', help='seconds of 16 samples alone')
    parser.add_argument('--quick', action='store_true', help='a few queries')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope('simpleseg_mm')
    sets = {}
    for name in ('test', 'val'):
        settings = cfg[f'{name}_dataloader'].dataset
        settings.pop('indices', None)
        if args.data:
            settings.data_root = args.data
        if args.quick:
            settings.indices = 6
        sets[name] = DATASETS.build(settings)
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
        for samples in () if args.no_clock else (0, 8):
            seconds[f'K={samples}'] = draw(model, sets['test'], 0, samples)[1]
        for seed in range(args.seeds):
            drawn[f'test {seed}'], seconds['K=16'] = draw(model, sets['test'], seed)
        drawn['val 0'], _ = draw(model, sets['val'], 0)
        if args.keep:
            args.keep.write_text(json.dumps(dict(drawn=drawn, seconds=seconds)))
    tokens = Consensus().tokens
    read = {name: [Query(sets[name.split()[0]][i]['data_samples'], row)
                   for i, row in enumerate(rows)] for name, rows in drawn.items()}
    report = mean_of([figures_of(queries, read['val 0'], tokens)
                      for name, queries in read.items() if name.startswith('test')])
    for name, row in report.items():
        print(f'{name:20}' + '  '.join(f'{key} {value:.4f}' for key, value in row.items()))
    print(json.dumps(dict(figures=report, seconds=seconds)))


if __name__ == '__main__':
    main()
