"""A consensus as users meet it: inferencer, command, files, pictures, a test, its calibration."""
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from simpleseg_mm import cli
from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.calibration import Calibration
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.evaluation.text_dump import read_text_rows
from simpleseg_mm.export.vectors import to_geojson
from simpleseg_mm.files import load_image
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.visualization.painter import QueryPainter

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / 'configs/simpleseg/nano_sft_refshapes.py')
EXAMPLE = str(ROOT / 'simpleseg_mm/serving/static/example.jpg')  # a RefShapes scene
SETTINGS = dict(samples=3, temperature=1.0, seed=1)

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def inferencer():
    return SimpleSegInferencer(device='cpu', show_progress=False, consensus=SETTINGS)


@pytest.fixture(scope='module')
def result(inferencer):
    return inferencer.segment(EXAMPLE, 'red circle')[0]


# --- refused ----------------------------------------------------------------------------------
@pytest.mark.parametrize('consensus, message', [
    (-1, 'samples is -1'), (dict(sample=3), "'sample'"), (2.5, 'samples is 2.5')])
def test_bad_settings_are_named_before_a_model_is_loaded(consensus, message, monkeypatch):
    monkeypatch.setattr('simpleseg_mm.apis.inferencer.MODELS.build', None)
    with pytest.raises(ValueError, match=message):
        SimpleSegInferencer(consensus=consensus, device='cpu')


def test_a_server_is_asked_for_one_answer(capsys):
    assert cli.main(['segment', EXAMPLE, 'red circle', '--consensus', '8', '--endpoint',
                     'http://localhost:9/v1']) != 0
    assert '--consensus is for a model that runs here' in capsys.readouterr().err


# --- what comes back --------------------------------------------------------------------------
def test_results_say_how_they_were_found(inferencer, result):
    assert result.answers == 4 and 0 < result.agreement <= 1
    assert 0 < result.confidence < result.agreement and result.valid and result.mask.any()
    assert [[ring.shape for ring in rings] for rings in result.spread] == [
        [(len(ring), 2) for ring in part.rings] for part in result.parts]
    assert all((ring[:, 0] <= ring[:, 1]).all() for rings in result.spread for ring in rings)
    row = json.loads(json.dumps(result.to_dict()))
    assert row['agreement'] == result.agreement and row['scores'] == [result.confidence]
    assert [len(ring) for ring in row['polygons'][0]['spread']] == [
        len(ring) for ring in result.parts[0].rings]
    inferencer.model.consensus, kept = None, inferencer.model.consensus
    try:
        greedy, = inferencer.segment(EXAMPLE, 'red circle')
    finally:
        inferencer.model.consensus = kept
    assert (greedy.text, greedy.answers, greedy.spread) == (result.greedy_text, 1, ())
    assert greedy.agreement is greedy.greedy_text is None
    assert 'spread' not in greedy.to_dict()['polygons'][0]


def test_the_same_picture_and_prompt_give_the_same_vote(inferencer, result):
    texts = [one.text for one in inferencer.segment(
        [EXAMPLE, EXAMPLE], ['blue square', 'red circle'], batch_size=3)]
    assert texts[1] == texts[3] == result.text and texts[0] == texts[2]
    heard = []
    found = inferencer.ask(load_image(EXAMPLE), 'red circle', on_text=heard.append)
    assert found.text == result.text and result.greedy_text in heard


def test_a_batch_may_have_its_own_number_of_samples(inferencer, result):
    asked = [(load_image(EXAMPLE), 'red circle')]
    usual, seen = inferencer.model.consensus, []
    with_one, = inferencer.ask_batch(asked, consensus=1)
    greedy, = inferencer.ask_batch(asked, consensus=0)
    again, = inferencer.ask_batch(asked)
    assert [one.answers for one in (with_one, greedy, again)] == [2, 1, 4]
    assert greedy.text == with_one.greedy_text and again.text == result.text

    def stop(number: int, text: str) -> None:
        seen.append(inferencer.samples)
        raise KeyError('stopped')
    with pytest.raises(KeyError, match='stopped'):
        inferencer.ask_batch(asked, stop, consensus=2)
    assert seen == [2] and inferencer.model.consensus is usual and inferencer.samples == 3
    with pytest.raises(ValueError, match='samples is -1'):
        inferencer.ask_batch(asked, consensus=-1)


def test_geojson_holds_the_uncertainty(result):
    feature, = to_geojson([result])['features']
    properties, shape = feature['properties'], feature['geometry']
    assert properties['agreement'] == result.agreement
    widths, rings = properties['uncertainty'], shape['coordinates']
    if shape['type'] == 'Polygon':
        widths, rings = [widths], [rings]
    assert [[len(ring) for ring in part] for part in widths] == [
        [len(ring) for ring in part] for part in rings]
    outer, spread = rings[0][0], result.spread[0][0]
    for point, width in zip(outer, widths[0][0]):  # each belongs to its vertex
        at = np.abs(result.parts[0].outer - point).sum(axis=1).argmin()
        assert width == pytest.approx(spread[at, 1], abs=0.01)
    exact, = to_geojson([result], exact=True)['features']
    assert 'uncertainty' not in exact['properties']


def test_pictures_show_it(inferencer, monkeypatch):
    from simpleseg_mm.visualization import draw
    drawn = []
    monkeypatch.setattr(draw, 'draw_spread', lambda canvas, ring, radii, *_: drawn.append(radii))
    out = inferencer(EXAMPLE, 'red circle', return_datasamples=True)
    sample, = out['predictions']
    QueryPainter().draw_query(load_image(EXAMPLE), sample)
    assert [len(radii) for radii in drawn] == [len(ring) for ring in sample.pred_answer.rings]


def test_circles_are_drawn_where_a_vertex_is_not_sure():
    from simpleseg_mm.visualization.draw import draw_spread
    canvas = np.zeros((60, 60, 3), np.uint8)
    draw_spread(canvas, np.array([[30.0, 30.0], [10.0, 10.0]]), np.array([20.0, 0.5]))
    assert canvas[30, 49].any() and not canvas[5:15, 5:15].any()
    draw_spread(canvas, np.array([[30.0, 30.0]]), np.array([np.nan]))
    draw_spread(canvas, np.array([[30.0, 30.0]]), np.array([1e9]))


def test_the_command(tmp_path, capsys):
    assert cli.main(['segment', EXAMPLE, 'red circle', '--consensus', '2', '--out-dir',
                     str(tmp_path)]) == 0
    assert 'from 3 answers' in capsys.readouterr().out
    row = json.loads(next((tmp_path / 'preds').iterdir()).read_text())
    assert row['answers'] == 3 and row['greedy_text']


# --- a test and its calibration ---------------------------------------------------------------
@pytest.fixture(scope='module')
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp('consensus')
    generate(folder / 'data', dict(train=1, val=3, test=2), seed=5, size=112)
    path = folder / 'config.py'
    path.write_text(f"""
_base_ = '{CONFIG}'
model = dict(mllm=dict(pretrained='simpleseg_mm://nano_sft'), consensus=dict(
    samples=3, temperature=1.0, seed=1))
val_dataloader = dict(num_workers=0, persistent_workers=False,
                      dataset=dict(data_root='{folder / 'data'}'))
test_dataloader = dict(num_workers=0, persistent_workers=False,
                       dataset=dict(data_root='{folder / 'data'}'))
test_evaluator = _base_.test_evaluator + [
    dict(type='ConfidenceMetric'), dict(type='mmdet.CocoMetric', metric='segm')]
""")
    return path


def call(monkeypatch, capsys, tool, *args):
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    threads = torch.get_num_threads()
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    torch.set_num_threads(threads)
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_calibrate_and_test(config_file, tmp_path, monkeypatch, capsys):
    fitted = tmp_path / 'folder/fit.json'
    said = call(monkeypatch, capsys, 'analysis_tools/calibrate.py', config_file, 'none', '--out',
                fitted, '--work-dir', tmp_path / 'logs')
    kept = Calibration.load(fitted)
    assert said['file'] == str(fitted) and said['answers'] == kept.figures['answers'] > 5
    assert kept.settings == Consensus.of(SETTINGS).drawn_by
    figures = call(monkeypatch, capsys, 'test.py', config_file, 'none', '--work-dir',
                   tmp_path / 'test', '--out', tmp_path / 'answers.jsonl', '--cfg-options',
                   f'model.consensus.calibration={fitted}')
    rows = read_text_rows(tmp_path / 'answers.jsonl')
    assert all(row['answers'] == 4 and row['greedy_text'] for row in rows)
    for row in rows:
        assert row['agreement'] <= 1 and 0 <= row['confidence'] <= 1
    assert {'confidence/ECE', 'coco/segm_mAP'} <= set(figures)
    again = call(monkeypatch, capsys, 'analysis_tools/eval_text.py', config_file,
                 tmp_path / 'answers.jsonl')
    assert again['coco/segm_mAP'] == figures['coco/segm_mAP']
    assert again['confidence/ECE'] == pytest.approx(figures['confidence/ECE'])


@pytest.mark.parametrize('arguments, message', [
    (['CONFIG', 'none'], '--out FILE.json'), (['CONFIG', 'none', '--out', 'a.txt'], 'json file'),
    (['CONFIG', 'none', '--out', 'a.json', '--right', '2'], '--right 2.0'),
    (['CONFIG', 'none', '--out', 'a.json', '--cfg-options', 'model.consensus.samples=0'],
     'no agreement to fit'),
    (['CONFIG', 'none', '--out', 'a.json', '--cfg-options', 'model.consensus.first=0'],
     'first is 0')])
def test_calibrate_says_what_is_wrong(arguments, message, config_file, monkeypatch, capsys):
    arguments = [str(config_file) if word == 'CONFIG' else word for word in arguments]
    monkeypatch.setattr(sys, 'argv', ['calibrate.py', *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / 'tools/analysis_tools/calibrate.py'), run_name='__main__')
    assert message in ''.join([str(caught.value), *capsys.readouterr()])


def test_the_config_names_its_consensus(config_file):
    assert Consensus.of(Config.fromfile(config_file).model.consensus) == Consensus(**SETTINGS)
