"""The report of a run: the test's own figures, the kinds of failures, nothing from the network."""
import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from test_metrics_offline import config_file, run  # noqa: F401 (fixtures)

from simpleseg_mm import cli
from simpleseg_mm.evaluation.failures import FAILURES, FailureKinds, kind_of
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.structures import Generated
from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.visualization import draw
from simpleseg_mm.visualization.report import to_markdown, write_report

FINE = dict(truncated=False, valid_parse=True, empty=False, box_right_mask_wrong=False)


@pytest.mark.parametrize('res, health, kind', [
    (dict(iou=0.9, area=9), dict(truncated=True), 'truncated'),
    (dict(iou=0.0, area=9), dict(truncated=True, valid_parse=False, empty=True), 'truncated'),
    (dict(iou=0.0, area=9), dict(valid_parse=False, empty=True), 'unparseable'),
    (dict(iou=0.0, area=9), dict(empty=True), 'missed'),
    (dict(iou=0.0, area=0), dict(false_object=True), 'false object'),
    (dict(iou=1.0, area=0), dict(false_object=False), None),
    (dict(iou=0.0, area=0), dict(false_object=False, valid_parse=False), 'unparseable'),
    (dict(iou=0.2, area=9), dict(), 'semantic'),
    (dict(iou=0.5, area=9), dict(box_right_mask_wrong=True), 'geometric'),
    (dict(iou=0.8, area=9), dict(true_parts=2, found_parts=1), 'part or hole missed'),
    (dict(iou=0.8, area=9), dict(true_holes=1, found_holes=0), 'part or hole missed'),
    (dict(iou=0.8, area=9), dict(true_holes=1, found_holes=1, valid_parse=False), None),
    (dict(iou=0.51, area=9), dict(), None),
])
def test_kinds_of_failures(res, health, kind):
    assert kind_of(res, {**FINE, **health}) == kind
    assert kind is None or kind in FAILURES


def test_a_query_is_measured_by_the_metrics(config_file):  # noqa: F811
    config = Config.fromfile(config_file)
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
    sample = next(dataset[i]['data_samples'] for i in range(len(dataset))
                  if dataset.get_data_info(i)['instances'])
    text = PolygonCodec.from_spec(sample.codec).encode(sample.gt_masks.masks[0])
    SimpleSeg.postprocess(sample, Generated(text, 12, True), 0.1)
    good = FailureKinds().measure(sample.to_dict())
    assert good['iou'] > 0.6 and good['area'] == sample.gt_masks.masks[0].sum()
    assert good['tokens'] == 12 and good['vertices'] >= 3
    SimpleSeg.postprocess(sample, Generated('[]', 3, True), 0.1)
    assert FailureKinds().measure(sample.to_dict())['kind'] == 'missed'


@pytest.fixture(scope='module')
def written(run, config_file, tmp_path_factory):  # noqa: F811
    """The report of answers of all kinds, and the figures of the evaluator's own run."""
    figures, answers, _ = run
    folder = tmp_path_factory.mktemp('report')
    scalars = folder / 'run/20250101/vis_data/scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text('\n'.join(json.dumps(dict(step=i, loss=1 / (i + 1))) for i in range(9)))
    out = folder / 'r/report.html'
    assert cli.main(['report', str(config_file), str(answers), '--runs', str(folder / 'run'),
                     '--out', str(out), '--examples', '2', '--title', 'a <b> & "c"']) == 0
    return figures, out.read_text(), out.with_suffix('.md').read_text()


def test_every_figure_is_the_tests(written):
    figures, page, table = written
    found = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S).group(1))
    assert found == figures and len(figures) > 20
    shown = page.partition('<h2>Figures')[2].partition('<h2>Failures')[0]
    rows = dict(re.findall(r'<tr><td>([^<]+)</td><td class="number">([^<]+)</td>', shown))
    assert rows == {name: f'{value:.2f}' for name, value in figures.items()}
    listed = table.partition('| figure | value |')[2].partition('| failure |')[0]
    markdown = dict(re.findall(r'^\| (\S+) \| ([\d.]+) \|$', listed, re.M))
    assert markdown == rows
    assert f'| {figures["res/cIoU"]:.1f} | {figures["res/gIoU"]:.1f} |' in table


def test_failures_are_counted_and_shown(written):
    _, page, table = written
    counts = dict(re.findall(r'^\| ([a-z ]+) \| (\d+) \| [\d.]+ \|$', table, re.M))
    assert set(counts) == {*FAILURES, 'none'}
    assert all(int(counts[kind]) > 0 for kind in ('truncated', 'unparseable', 'missed', 'none'))
    shown = page.count('<figure>')
    assert shown == sum(min(2, int(number)) for number in counts.values())


class References(HTMLParser):
    """Everything that a browser might fetch."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [value for name, value in attributes
                       if name in ('src', 'href', 'srcset', 'data', 'action', 'poster')]


def test_it_opens_without_a_network(written):
    _, page, _ = written
    parser = References()
    parser.feed(page)
    outside = [value for value in parser.found if not value.startswith(('data:image/', '#'))]
    assert not outside and len(parser.found) > 8
    assert not {'link', 'iframe', 'object', 'embed', 'base'} & set(parser.tags)
    assert not re.search(r'url\(|@import|https?://', page)
    for value in parser.found:
        if value.startswith('data:'):
            Image.open(io.BytesIO(base64.b64decode(value.partition(',')[2]))).verify()


def test_titles_are_escaped(written):
    _, page, _ = written
    assert '<title>a &lt;b&gt; &amp; &#34;c&#34;</title>' in page and '<b>' not in page


def test_markdown_escapes_bars():
    assert '| a\\|b/x | 1.00 |' in to_markdown({'a|b/x': 1.0}, {None: 0}, 't')


def test_what_is_missing_is_said(config_file, tmp_path, capsys):  # noqa: F811
    assert cli.main(['report', str(config_file), str(tmp_path / 'no.jsonl')]) == 2
    assert 'no file of answers' in capsys.readouterr().err
    assert cli.main(['report', str(config_file), str(tmp_path / 'no.jsonl'), '--runs',
                     str(tmp_path)]) == 2
    assert 'scalars.json' in capsys.readouterr().err
    with pytest.raises(ValueError, match='.html'):
        write_report(Config(), 'a.jsonl', tmp_path / 'report.pdf')


def test_vertices_are_numbered_beside_them():
    canvas = np.full((200, 300, 3), 90, np.uint8)
    ring = np.array([[100, 50], [100, 150], [200, 150], [200, 50]], float)
    draw.number_vertices(canvas, ring)
    changed = (canvas != 90).any(axis=2)
    for x, y in ring.astype(int):
        near = changed[y - 25:y + 25, x - 25:x + 25]
        assert near.sum() > 20 and not changed[y, x]
    assert not changed[75:125, 125:175].any()
