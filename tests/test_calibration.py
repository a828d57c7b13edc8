"""Confidence: calibrations, their files, ECE and AUROC against hand-computed values."""
import json
from dataclasses import asdict
from math import exp, log

import numpy as np
import pytest
from mmdet.structures.mask import BitmapMasks
from test_metrics_evaluator import CODEC, make_sample, rect, run

from simpleseg_mm.calibration import (FEATURES, Calibration, auroc, evidence, expected_error,
                                      reliability)
from simpleseg_mm.evaluation import ConfidenceMetric, fit_calibration
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.samples import attach_answer, read_answer


EVEN = dict.fromkeys(FEATURES, 0.0)


def of_confidence(slope=1.0, bias=0.0, **more) -> Calibration:
    """By the log-odds of the confidence alone."""
    return Calibration({**EVEN, 'confidence': slope}, EVEN, bias, **more)


def changed(**changes) -> str:
    return json.dumps({**asdict(of_confidence()), **changes})


@pytest.mark.parametrize('content, message', [
    ('{', 'no calibration|not JSON|JSON'), ('[]', 'no calibration'), ('{}', 'no calibration'),
    (changed(weights=3), 'weights.*each of'), (changed(middle={}), 'middle.*each of'),
    (changed(weights={**EVEN, 'colour': 1}), "weights.*'confidence', 'area', 'fill', 'absent'"),
    (changed(bias=float('nan')), 'finite'), (changed(middle={**EVEN, 'area': None}), 'finite'),
    (changed(weights={**EVEN, 'fill': 'a'}), 'finite'), (changed(bias=float('inf')), 'finite'),
    (changed(more=1), 'more'), (changed(of='box'), "of='box'.*answer or instance"),
    ('{"score": [0.1], "confidence": [0]}', 'no calibration')])  # what an older release wrote
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / 'fit.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.load(path)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
    for name, error in (('none.json', FileNotFoundError), ('fit.json', ValueError)):
        with pytest.raises(error, match='calibrate.py|JSON'):  # before anything is drawn
            Consensus(calibration=str(tmp_path / name))


def shape(x1, y1, x2, y2, confidence, **facts):
    """A rectangle of a picture of 100 x 100."""
    return CODEC.decode(CODEC.encode(rect(x1, y1, x2, y2)), (100, 100), confidence=confidence,
                        **facts)


def test_evidence():
    assert evidence(shape(0, 0, 20, 50, 0.75)) == pytest.approx([log(3), log(0.1), 1, 0])
    triangle = CODEC.decode('[[[0,0],[0,400],[400,400]]]', (100, 100), confidence=0.5)
    assert triangle.spans.area and evidence(triangle)[2] == pytest.approx(0.5, abs=0.03)
    for text in ('[]', 'x', '[[[1,1],[2,1]]]'):
        none = evidence(CODEC.decode(text, (100, 100), confidence=0.5))
        assert none[0] == 0 and np.isnan(none[1:3]).all() and none[3] == 1
    assert [evidence(shape(0, 0, 20, 50, sure))[0] for sure in (0, 1)] == pytest.approx(
        [-log(99), log(99)])


def test_a_calibration_is_kept(tmp_path):
    fitted = Calibration(dict(confidence=2.0, area=0.5, fill=-1.0, absent=3.0),
                         dict(confidence=0.0, area=log(0.1), fill=0.5, absent=0.25), 0.1, 0.5,
                         dict(samples=8))
    fitted.save(tmp_path / 'fit.json')
    assert Calibration.load(tmp_path / 'fit.json') == fitted
    answer, absent = shape(0, 0, 20, 50, 0.75), CODEC.decode('[]', (100, 100), confidence=0.5)
    odds = [2 * log(3) - 1 * 0.5 - 3 * 0.25 + 0.1, 3 * 0.75 + 0.1]
    assert [fitted(answer), fitted(absent)] == pytest.approx([1 / (1 + exp(-x)) for x in odds])
    assert fitted.probability([evidence(answer), evidence(absent)]) == pytest.approx(
        [fitted(answer), fitted(absent)])
    assert of_confidence(1000)(answer) == 1 and of_confidence(-1000)(answer) < 1e-99


@pytest.mark.parametrize('score, right, value', [
    ([0.9, 0.1], [1, 0], 1), ([0.1, 0.9], [1, 0], 0), ([0.5, 0.5], [1, 0], 0.5),
    ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 3.5 / 4), ([0.3, 0.4], [1, 1], None), ([], [], None)])
def test_auroc(score, right, value):
    assert auroc(score, right) == value


def test_expected_error():
    confidence, right = [0.05, 0.95, 0.95, 1.0, 0.95], [0, 1, 1, 1, 0]
    assert reliability(confidence, right) == [
        (1, pytest.approx(0.05), 0.0), (4, pytest.approx(0.9625), 0.75)]
    assert expected_error(confidence, right) == pytest.approx((0.05 + 4 * 0.2125) / 5)
    assert expected_error([], []) is None


def rows_of(confidence, area=None, fill=None, absent=None) -> np.ndarray:
    """Evidence as arrays; what is not told is the same of all."""
    confidence = np.asarray(confidence, float)
    one = np.ones(len(confidence))
    return np.column_stack([np.log(confidence / (1 - confidence)), *(
        one * 0.5 if x is None else x for x in (area, fill)), one * 0 if absent is None else absent
    ])


def test_a_fit_finds_what_was_put_in():
    """Answers that are right with a probability which is known."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(0, 1.5, 8000), rng.normal(-3, 1, 8000),
                            rng.uniform(0.2, 1, 8000), np.zeros(8000)])
    absent = rng.random(8000) < 0.2
    rows[absent] = np.column_stack([rows[absent, 0], *[np.full(absent.sum(), np.nan)] * 2,
                                    np.ones(absent.sum())])
    true = dict(confidence=1.5, area=0.5, fill=-2.0, absent=1.0)
    middle = np.nanmean(rows, axis=0)
    odds = np.nan_to_num(rows - middle) @ list(true.values()) + 0.3
    right = rng.random(8000) < 1 / (1 + np.exp(-odds))
    fitted = fit_calibration(rows[:6000], np.where(right, 0.9, 0.1)[:6000])
    assert fitted.weights == pytest.approx(true, abs=0.2)
    assert fitted.bias == pytest.approx(0.3, abs=0.15)
    sure, before = fitted.probability(rows[6000:]), 1 / (1 + np.exp(-rows[6000:, 0]))
    assert expected_error(sure, right[6000:]) < 0.03 < expected_error(before, right[6000:])
    assert auroc(sure, right[6000:]) > auroc(before, right[6000:]) + 0.02


def test_a_fit_of_few_answers():
    rows = rows_of([0.2, 0.8])
    fitted = fit_calibration(rows, [0.1, 0.9])
    low, high = fitted.probability(rows)
    assert 0.2 < low < 0.5 < high < 0.8  # two answers say little
    assert [fitted.weights[name] for name in ('area', 'fill', 'absent')] == [0, 0, 0]
    for iou, least, most in ((0.9, 0.6, 0.8), (0.1, 0.2, 0.4)):  # all right, all wrong: Platt's
        sure = fit_calibration(rows, [iou, iou]).probability(rows)  # 3/4 and 1/4
        assert ((least < sure) & (sure < most)).all()
    against = fit_calibration(rows_of([0.2, 0.3, 0.7, 0.8]), [0.9, 0.9, 0.1, 0.1])
    assert against.weights['confidence'] == 0  # it never falls with the confidence
    assert fitted.figures['answers'] == 2 and fitted.figures['auroc'] == 1
    assert fit_calibration(rows_of([0.2, 0.8]), [0.6, 0.6], right=0.5).figures['auroc'] is None
    with pytest.raises(ValueError, match='no answer was voted.*model.consensus'):
        fit_calibration([], [])


# --- the metric -------------------------------------------------------------------------------
def voted(iou_is, confidence, agreement=None, img_id=0, **meta):
    """A sample whose answer has this IoU, in tenths."""
    truth, mask = rect(0, 0, 10, 10), rect(0, 0, round(10 * iou_is), 10)
    sample = make_sample(truth, mask, img_id, **meta)
    sample.set_metainfo(dict(pred_confidence=confidence, pred_agreement=agreement))
    return sample


def test_figures_and_the_fit(tmp_path):
    path = tmp_path / 'folder/fit.json'
    samples = [voted(0.9, 0.9, 0.8, 0), voted(0.8, 0.9, 0.7, 1), voted(0.3, 0.2, 0.4, 2),
               voted(0.5, 0.95, None, 3), voted(0.9, None, None, 4),
               voted(0.9, 0.1, 0.1, 5, task='text2box')]
    figures = run(ConfidenceMetric(fit_to=str(path), settings=dict(samples=8)), samples)
    assert figures == {'confidence/AUROC': pytest.approx(50), 'confidence/ECE': pytest.approx(
        100 * (3 * abs(2.75 / 3 - 2 / 3) + 0.2) / 4)}
    kept = json.loads(path.read_text())
    assert kept['figures']['answers'] == 3 and kept['settings'] == dict(samples=8)
    assert run(ConfidenceMetric(), samples[4:]) == {}


# --- lists: instances -------------------------------------------------------------------------
BOXES = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]


def bitmaps(*boxes):
    return BitmapMasks([rect(*box).astype(np.uint8) for box in boxes], 100, 100)


def listed(boxes, scores, truths=BOXES, img_id=0, crowd=None):
    """A sample whose voted answer lists these boxes."""
    meta = dict(gt_masks=bitmaps(*truths))
    if crowd is not None:
        meta['gt_ignore'] = bitmaps(crowd)
    sample = make_sample(rect(*truths[0]), rect(*truths[0]), img_id, task='text2masks', **meta)
    text = CODEC.encode_masks([rect(*box) for box in boxes])
    attach_answer(sample, read_answer(sample, text, confidence=0.5, agreement=0.5, scores=scores))
    return sample


def measured(*samples, **options):
    return run(ConfidenceMetric(**options), list(samples))


@pytest.mark.parametrize('boxes, scores, expected', [
    (BOXES, (1.0, 1.0, 1.0), (None, 0)),
    (BOXES[:1], (0.6, ), (None, 40)),  # what is missed has no score
    # one of nothing is wrong, and surer than one of the two right ones
    ([*BOXES[:2], (70, 0, 80, 10)], (0.9, 0.5, 0.6), (50, 100 * (.1 + .5 + .6) / 3)),
    # the same twice: one of them is wrong
    ([BOXES[0], BOXES[0]], (0.9, 0.4), (100, 100 * (.1 + .4) / 2)),
    # IoU 0.5 is right, 0.4 is wrong
    ([(0, 0, 10, 5), (20, 0, 30, 4)], (0.7, 0.5), (100, 100 * (.3 + .5) / 2)),
    ([], (), ())])
def test_instances_of_lists(boxes, scores, expected):
    names = 'instance_AUROC', 'instance_ECE'
    assert measured(listed(boxes, scores)) == {
        f'confidence/{name}': pytest.approx(value) for name, value in zip(names, expected)
        if value is not None}


def test_what_lies_in_a_crowd_and_what_cannot_be_read_is_passed_over():
    far = (70, 0, 80, 10)
    assert measured(listed([BOXES[0], far], (0.9, 0.8), crowd=far)) == {
        'confidence/instance_ECE': pytest.approx(10)}
    assert measured(listed([BOXES[0], far], (0.9, 0.8), crowd=(76, 0, 80, 10))) == {
        'confidence/instance_AUROC': 100, 'confidence/instance_ECE': pytest.approx(45)}
    sample = listed(BOXES[:1], (0.9, ))
    text = f'{sample.pred_text[:-1]},[[[5,5],[6,5]]]]'  # two vertices
    attach_answer(sample, read_answer(sample, text, confidence=0.5, agreement=0.5,
                                      scores=(0.9, 0.8)))
    assert sample.pred_instances.scores.tolist() == pytest.approx([0.9, 0])
    assert measured(sample) == {'confidence/instance_ECE': pytest.approx(10)}


def test_a_curve_of_instances(tmp_path):
    path = tmp_path / 'fit.json'
    rows = [listed([BOXES[0], (70, 0, 80, 10)], (0.9, 0.3), img_id=i) for i in range(4)]
    measured(*rows, fit_to=str(path))
    fitted = Calibration.load(path)
    assert (fitted.of, fitted.right, fitted.figures['answers']) == ('instance', 0.5, 8)
    good, bad = map(fitted, rows[0].pred_answer.instances)
    assert good > 0.65 and bad < 0.35
    with pytest.raises(ValueError, match='1 answers about one object and 2 instances'):
        measured(rows[0], voted(0.9, 0.9, 0.9, 7), fit_to=str(path))


def test_a_curve_is_for_answers_of_its_own_kind(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('simpleseg_mm.models.consensus.print_log',
                        lambda text, *_, **__: said.append(text))
    path = str(tmp_path / 'fit.json')
    text = CODEC.encode_masks([rect(*BOXES[0])])
    lists = [CODEC.decode(text, (100, 100), 'masks')] * 3
    ones = answers(*BOXES[:1] * 3)
    for of, right, wrong, name in (('instance', lists, ones, 'lists of masks'),
                                   ('answer', ones, lists, 'masks of one object')):
        of_confidence(0, log(1 / 3), of=of).save(path)
        rule = Consensus(samples=2, calibration=path)
        found = rule.vote(right)
        assert [one.confidence for one in found.instances] == pytest.approx([0.25])
        assert found.confidence == pytest.approx(1 if found.many else 0.25) and not said
        for _ in range(2):
            assert [one.confidence for one in rule.vote(wrong).instances] == [1]
        assert len(said) == 1 and name in said.pop()


@pytest.mark.parametrize('options, message', [
    (dict(right=0), 'right=0'), (dict(fit_to='a.json', per_set=True), 'one calibration')])
def test_bad_metric(options, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMetric(**options)


# --- in use -----------------------------------------------------------------------------------
def answers(*boxes):
    return [CODEC.decode(CODEC.encode(rect(*box)), (100, 100)) for box in boxes]


def test_the_curve_gives_the_confidence_and_the_score(tmp_path):
    path = str(tmp_path / 'fit.json')
    of_confidence(0.5, -1.0).save(path)
    rule = Consensus(samples=2, calibration=path)
    given = answers((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 5))
    found = rule.vote(given)
    assert found.agreement == pytest.approx(2.5 / 3)
    odds = 0.5 * log(2.5 / 0.5) - 1  # of a token probability that is not known: 1
    assert found.confidence == pytest.approx(1 / (1 + exp(-odds)))
    sample = make_sample(rect(0, 0, 10, 10), rect(0, 0, 10, 10))
    attach_answer(sample, found)
    assert float(sample.pred_instances.scores) == pytest.approx(found.confidence)
    assert (sample.pred_answers, sample.pred_greedy_text) == (3, given[0].text)
    # dumps hold the text, from which offline scoring gives the same score
    again = make_sample(rect(0, 0, 10, 10), rect(0, 0, 10, 10))
    attach_answer(again, read_answer(again, found.text, confidence=found.confidence,
                                     agreement=found.agreement))
    assert float(again.pred_instances.scores) == float(sample.pred_instances.scores)
    assert rule.vote(given[:1]).confidence is None


def test_a_curve_of_other_settings_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('simpleseg_mm.models.consensus.print_log',
                        lambda text, *_, **__: said.append(text))
    path = str(tmp_path / 'fit.json')
    for samples, count in ((8, 0), (4, 1)):
        of_confidence(0, settings=Consensus(samples=samples).drawn_by).save(path)
        rule = Consensus(samples=8, calibration=path)
        assert [rule.vote(answers(*BOXES[:1] * 2)).confidence for _ in range(2)] == [0.5, 0.5]
        assert len(said) == count
    assert "'samples': 4" in said[0] and "'samples': 8" in said[0]
