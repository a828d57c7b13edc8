"""Confidence: curves, their files, ECE and AUROC against hand-computed values."""
import json

import numpy as np
import pytest
from test_metrics_evaluator import CODEC, make_sample, rect, run

from simpleseg_mm.calibration import Calibration, auroc, expected_error, reliability
from simpleseg_mm.evaluation import ConfidenceMetric, fit_calibration
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.samples import attach_answer, read_answer


@pytest.mark.parametrize('content, message', [
    ('{', 'no calibration|not JSON|JSON'), ('[]', 'no calibration'), ('{}', 'no calibration'),
    ('{"score": [], "confidence": []}', 'rising numbers'),
    ('{"score": [0.5, 0.4], "confidence": [0, 1]}', 'score.*rising'),
    ('{"score": [0.4, 0.5], "confidence": [1, 0]}', 'confidence.*rising'),
    ('{"score": [0.4, 0.5], "confidence": [0, 2]}', '0..1'),
    ('{"score": [0.4, 0.5], "confidence": [0]}', 'one for each'),
    ('{"score": ["a"], "confidence": [0]}', 'no calibration'),
    ('{"score": [NaN], "confidence": [0]}', 'rising'),
    ('{"score": [0.1], "confidence": [0], "more": 1}', 'more')])
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / 'curve.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.load(path)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match='calibrate.py'):
        Calibration.load(tmp_path / 'none.json')


def test_a_curve_is_kept(tmp_path):
    curve = Calibration((0.2, 0.6, 0.6, 0.8), (0.0, 0.4, 0.5, 0.9), 0.5, dict(samples=8))
    curve.save(tmp_path / 'curve.json')
    assert Calibration.load(tmp_path / 'curve.json') == curve
    assert curve(0.7) == pytest.approx(0.7) and curve(0) == 0 and curve(1) == pytest.approx(0.9)
    assert curve(np.array([0.4, 0.9])) == pytest.approx([0.2, 0.9])


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


def test_the_fit_is_isotonic_and_tells_apart():
    agreement = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    ious = [0.0, 0.9, 0.0, 0.9, 0.9, 0.9]  # steps: 0; 0.5 of two; 1 of three
    curve = fit_calibration(agreement, ious)
    assert curve.score == pytest.approx((0.1, 0.25, 0.5))
    assert curve.confidence == pytest.approx((0, 0.5, 1))
    assert curve(0.2) < curve(0.3)
    assert curve.figures['answers'] == 6 and curve.figures['auroc'] == 7 / 8
    assert fit_calibration([0.5], [0.9])(0.1) == 1.0
    with pytest.raises(ValueError, match='no answer was voted.*model.consensus'):
        fit_calibration([], [])


def test_a_fit_calibrates():
    rng = np.random.default_rng(0)
    agreement = rng.uniform(0.3, 1, 4000)
    ious = np.where(rng.random(4000) < agreement ** 3, 0.9, 0.1)
    curve = fit_calibration(agreement[:2000], ious[:2000])
    right = ious[2000:] >= 0.7
    assert expected_error(curve(agreement[2000:]), right) < 0.03
    assert expected_error(agreement[2000:], right) > 0.15


# --- the metric -------------------------------------------------------------------------------
def voted(iou_is, confidence, agreement=None, img_id=0, **meta):
    """A sample whose answer has this IoU, in tenths."""
    truth, mask = rect(0, 0, 10, 10), rect(0, 0, round(10 * iou_is), 10)
    sample = make_sample(truth, mask, img_id, **meta)
    sample.set_metainfo(dict(pred_confidence=confidence, pred_agreement=agreement))
    return sample


def test_figures_and_the_fit(tmp_path):
    path = tmp_path / 'folder/curve.json'
    samples = [voted(0.9, 0.9, 0.8, 0), voted(0.8, 0.9, 0.7, 1), voted(0.3, 0.2, 0.4, 2),
               voted(0.5, 0.95, None, 3), voted(0.9, None, None, 4),
               voted(0.9, 0.1, 0.1, 5, task='text2box')]
    figures = run(ConfidenceMetric(fit_to=str(path), settings=dict(samples=8)), samples)
    assert figures == {'confidence/AUROC': pytest.approx(50), 'confidence/ECE': pytest.approx(
        100 * (3 * abs(2.75 / 3 - 2 / 3) + 0.2) / 4)}
    kept = json.loads(path.read_text())
    assert kept['figures']['answers'] == 3 and kept['settings'] == dict(samples=8)
    assert run(ConfidenceMetric(), samples[4:]) == {}


@pytest.mark.parametrize('options, message', [
    (dict(right=0), 'right=0'), (dict(fit_to='a.json', per_set=True), 'one curve')])
def test_bad_metric(options, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMetric(**options)


# --- in use -----------------------------------------------------------------------------------
def answers(*boxes):
    return [CODEC.decode(CODEC.encode(rect(*box)), (100, 100)) for box in boxes]


def test_the_curve_gives_the_confidence_and_the_score(tmp_path):
    path = str(tmp_path / 'curve.json')
    Calibration((0.0, 1.0), (0.0, 0.5)).save(path)
    rule = Consensus(samples=2, calibration=path)
    given = answers((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 5))
    found = rule.vote(given)
    assert found.agreement == pytest.approx(2.5 / 3)
    assert found.confidence == pytest.approx(found.agreement / 2)  # of the agreement: 1
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
    path = str(tmp_path / 'curve.json')
    for samples, count in ((8, 0), (4, 1)):
        Calibration((0.0, ), (0.5, ), settings=Consensus(samples=samples).drawn_by).save(path)
        assert Consensus(samples=8, calibration=path).curve(0.3) == 0.5
        assert len(said) == count
    assert "'samples': 4" in said[0] and "'samples': 8" in said[0]
