"""Texts scored offline give the figures of the run that dumped them."""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.evaluation.offline import score
from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.samples import attach_answer, read_answer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'eval_text', ROOT / 'tools/analysis_tools/eval_text.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def config_file(tmp_path_factory):
    """A config with RefShapes test, absent targets among it."""
    folder = tmp_path_factory.mktemp('offline')
    generate(folder / 'data', dict(train=1, test=5), seed=4, size=112, absent=0.5)
    path = folder / 'config.py'
    path.write_text(f"""
_base_ = ['{ROOT}/configs/_base_/datasets/refshapes.py',
          '{ROOT}/configs/_base_/evaluators/res.py', '{ROOT}/configs/_base_/default_runtime.py']
test_dataloader = dict(dataset=dict(data_root='{folder / 'data'}'))
test_evaluator = _base_.test_evaluator + [
    dict(type='TextDump', out_file='{folder / 'answers.jsonl'}'),
    dict(type='mmdet.RefSegMetric'), dict(type='RESMetric', protocol='rela', prefix='rela')]
""")
    return path


def write_answers(dataset):
    """Texts as a model might write them: good, shifted, cut off, nonsense, empty."""
    rng = np.random.default_rng(0)
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        size = sample.ori_shape
        mask = np.roll(sample.gt_masks.masks[0], rng.integers(-6, 7, 2), axis=(0, 1))
        text = PolygonCodec.from_spec(sample.codec).encode(mask)
        text = [text, text, text, text[:len(text) // 2], 'no idea', '[]'][i % 6]
        attach_answer(sample, read_answer(sample, text, num_tokens=len(text) // 3,
                                        finished=i % 6 != 3, seconds=float(rng.random())))
        assert sample.pred_instances.masks.shape == (1, *size)
        yield sample


@pytest.fixture(scope='module')
def run(config_file):
    """Figures of the run, its dump, and the dataset."""
    config = Config.fromfile(config_file)
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        evaluator = Evaluator(config.test_evaluator)
        evaluator.dataset_meta = dataset.metainfo
        samples = list(write_answers(dataset))
        for start in range(0, len(samples), 4):
            evaluator.process(samples[start:start + 4])
        figures = evaluator.evaluate(len(samples))
    figures = {name: value.item() if hasattr(value, 'item') else value
               for name, value in figures.items()}
    return figures, config_file.parent / 'answers.jsonl', dataset


def last_line(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_dump_is_scored_as_the_run_was(run, tool, config_file, capsys):
    figures, dump, _ = run
    before = dump.read_bytes()
    tool.main([str(config_file), str(dump)])
    assert last_line(capsys) == figures
    assert dump.read_bytes() == before
    assert 0 < figures['res/gIoU'] < 100 and figures['health/truncated'] > 0
    assert figures['res/N-acc'] != figures['rela/N-acc']      # 'no idea' is no empty answer there


def test_rows_of_another_model(run, tool, config_file, capsys, tmp_path):
    """Matched by reference, in another grammar, in another order, without anything else."""
    figures, dump, dataset = run
    rows = []
    for line in dump.read_text().splitlines():
        row = json.loads(line)
        sample = dataset[row['img_id']]['data_samples']
        codec = PolygonCodec(grammar='fixed3', tokens=None)
        rows.append(dict(ref_id=row['ref_id'], sent_id=row['sent_id'], codec=codec.spec,
                         pred_text=codec.encode(sample.gt_masks.masks[0])))
    path = tmp_path / 'other.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in rows[::-1]))
    tool.main([str(config_file), str(path), '--metrics', 'RESMetric', 'OutputHealthMetric'])
    result = last_line(capsys)
    assert result['res/gIoU'] == result['res/cIoU'] == 100
    assert result['health/valid_parse'] == 100
    assert not {'health/tokens', 'health/seconds', 'health/vertex_ratio',
                'rela/gIoU'} & set(result)


@pytest.mark.parametrize('edit, message', [
    (lambda rows: rows[:-2], '2 of .* queries have no row'),
    (lambda rows: rows + rows[:1], '1 rows of a query that has one already'),
    (lambda rows: rows + [dict(img_id=10 ** 6, pred_text='[]')], '1 rows of unknown queries'),
    (lambda rows: [dict(img_id=0)], "line 1: .*'pred_text'"),
])
def test_rows_that_do_not_fit_end_the_tool_with_one_line(run, tool, config_file, tmp_path, edit,
                                                         message):
    rows = [json.loads(line) for line in run[1].read_text().splitlines()]
    path = tmp_path / 'rows.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in edit(rows)))
    with pytest.raises(SystemExit, match=message):
        tool.main([str(config_file), str(path)])


OFFLINE = """
import sys
from simpleseg_mm.cli import main  # as `simpleseg` begins
sys.path.insert(0, 'tools/analysis_tools')
sys.argv = ['eval_text.py', *sys.argv[1:]]
import eval_text
eval_text.main()
print(sorted({'transformers', 'peft', 'simpleseg_mm.models', 'simpleseg_mm.engine'}
             & set(sys.modules)), file=sys.stderr)
"""


def test_no_model_is_imported(run, config_file):
    """Scoring needs the dataset and the metrics: neither our models nor transformers."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', OFFLINE, str(config_file), str(run[1]),
         '--metrics', 'RESMetric', 'RECMetric', 'OutputHealthMetric', 'GRESMetric',
         '--cfg-options', 'test_dataloader.num_workers=0'],
        capture_output=True, text=True, cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert result.returncode == 0 and result.stderr.splitlines()[-1] == '[]', result.stderr
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    assert figures['res/gIoU'] == run[0]['res/gIoU']


@pytest.mark.parametrize('imports, message', [
    ("['simpleseg_mm.engine', 'no_such_module']", 'is no valid config: ImportError'),
    ("['simpleseg_mm.engine', 'my_metric']", None), ("'my_metric'", None)])
def test_modules_of_ones_own_are_imported(run, tool, config_file, tmp_path, monkeypatch, capsys,
                                          imports, message):
    (tmp_path / 'my_metric.py').write_text(
        'from simpleseg_mm.evaluation import QueryMetric\n'
        'from simpleseg_mm.registry import METRICS\n'
        '@METRICS.register_module(force=True)\n'
        'class Answered(QueryMetric):\n'
        "    default_prefix = 'mine'\n"
        '    def measure(self, query):\n'
        "        return query.text != '[]'\n"
        '    def summarize(self, results):\n'
        '        return dict(answered=sum(results))\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'my_metric', raising=False)
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = '{config_file}'\n"
                    f'custom_imports = dict(_delete_=True, imports={imports})\n')
    arguments = [str(path), str(run[1]), '--metrics', 'Answered']
    if message:
        with pytest.raises(SystemExit, match=message) as error:
            tool.main(arguments)
        assert '\n' not in str(error.value)
    else:
        tool.main(arguments)
        assert last_line(capsys)['mine/answered'] > 0


def test_clashing_metrics_are_refused_before_scoring(run, tool, config_file):
    with pytest.raises(SystemExit, match="same prefix 'res'"):
        tool.main([str(config_file), str(run[1]), '--metrics', 'RESMetric', 'RESMetric'])


def test_box_answers(run, tool, config_file, tmp_path):
    """A box answer reaches RECMetric and mmdet.CocoMetric; what is no box is a miss."""
    config = Config.fromfile(config_file)
    config.test_dataloader.dataset.query.tasks = dict(text2box=1.0)
    config.test_evaluator = [dict(type='RECMetric', source='box'),
                             dict(type='RECMetric', source='box', protocol='polyformer',
                                  prefix='polyformer'),
                             dict(type='OutputHealthMetric')]
    dataset = run[2]
    present = [i for i in range(len(dataset)) if dataset.get_data_info(i)['instances']]
    config.test_dataloader.dataset.indices = present
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        boxes = DATASETS.build(config.test_dataloader.dataset)
        rows = [dict(img_id=present[i], pred_text=boxes[i]['data_samples'].answer)
                for i in range(len(boxes))]
        rows[0]['pred_text'] = '[[[1,1],[1,9],[9,9]]]'
        path = tmp_path / 'boxes.jsonl'
        path.write_text('\n'.join(map(json.dumps, rows)))
        figures = score(config, path)
    right = 100 * (len(rows) - 1) / len(rows)
    assert figures['rec/Acc@0.5'] == figures['polyformer/Acc@0.5'] == right
    assert figures['health/valid_parse'] == right


def test_real_references(real_data, tool, tmp_path):
    """Joint real sets: rows matched by (source, ref_id, sent_id), IoU as pycocotools has it."""
    config = Config.fromfile(ROOT / 'configs/_base_/datasets/refcoco_mini.py')
    config.test_dataloader.dataset.data_root = str(real_data / 'refcoco_mini')
    config.test_dataloader.dataset.indices = list(range(0, 65, 5))
    config.test_evaluator = [dict(type='RESMetric', per_set=True), dict(type='RECMetric')]
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        rows, ious = [], []
        for i in range(len(dataset)):
            info, sample = dataset.get_data_info(i), dataset[i]['data_samples']
            height, width = sample.ori_shape
            rows.append(dict(source=info['source'], ref_id=info['ref_id'],
                             sent_id=info['sent_id'], pred_text=sample.answer))
            decoded = PolygonCodec.from_spec(sample.codec).decode(sample.answer, (height, width))
            truth = coco_mask.merge(coco_mask.frPyObjects(info['instances'][0]['mask'], height,
                                                          width))
            prediction = coco_mask.encode(np.asfortranarray(decoded.mask.astype(np.uint8)))
            ious.append(coco_mask.iou([prediction], [truth], [0])[0, 0])
        path = tmp_path / 'truth.jsonl'
        path.write_text('\n'.join(map(json.dumps, rows)))
        figures = score(config, path)
    assert figures['res/gIoU'] == pytest.approx(100 * np.mean(ious), abs=1e-9) and (
        figures['res/gIoU'] > 94)
    assert figures['rec/Acc@0.5'] == 100
    sets = {(row['source']) for row in rows}
    assert {key.split('/')[1].split('_')[0] for key in figures if key.count('/') == 2} == (
        sets | {'average'})
