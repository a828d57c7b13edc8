"""An answer's text is parsed once, whoever asks: command, test with all metrics, RL step."""
import itertools
from pathlib import Path

import pytest
from engine_standin import build, train
from test_apis_inferencer import EXAMPLE
from test_engine_nano import config  # noqa: F401 (a fixture)
from test_engine_rl import ONE_ROLLOUT, SCRIPT
from test_engine_rl import config as rl_config  # noqa: F401 (a fixture)

from simpleseg_mm import cli
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.polygon import text as parser
from simpleseg_mm.structures import Generated

pytestmark = pytest.mark.usefixtures('one_thread')
SHAPES = ('[[[{0},10],[60,10],[60,80],[10,80]]]', '[]', '[{0},20,60,80]', '[{0},20]',
          'I see {0} of them', '[[[{0},10],[60,10],[60,80],[10,', '[[[{0},1],[2,2]]]',
          '[[[10,10],[60,{0}],[60,80]],[[70,70],[90,70],[90,90]]]')


@pytest.fixture
def looks(monkeypatch):
    """Texts in which rings, a box, a point or nothing was looked for: (what, text)."""
    seen = []
    for name in ('find_rings', '_find_numbers', '_find_empty'):
        def counted(text, *args, _name=name, _real=getattr(parser, name)):
            seen.append((_name + (args[-1] if _name == '_find_numbers' else ''), text))
            return _real(text, *args)
        monkeypatch.setattr(parser, name, counted)
    return seen


@pytest.fixture
def says(monkeypatch):
    """The model writes a text of its own to each prompt; all that it wrote."""
    written, numbers = [], itertools.count(100)

    def answer_stream(self, asked, batch_size=None, **options):
        for _ in asked:
            written.append(SHAPES[len(written) % len(SHAPES)].format(next(numbers)))
            yield Generated(written[-1], 7, True, (1, ), (-.1, ))

    monkeypatch.setattr(SimpleSeg, 'answer_stream', answer_stream)
    return written


def of_answers(looks, written):
    """Looks into the answers' own texts; '[]' is not told from that of another answer."""
    return [look for look in looks if look[1] in written and look[1] != '[]']


def test_the_command_reads_an_answer_once(says, looks, tmp_path):
    prompts = [f'thing {i}' for i in range(len(SHAPES))]
    assert cli.main(['segment', EXAMPLE, *prompts, '--out-dir', str(tmp_path), '--formats',
                     'svg', 'geojson', 'coco', 'yolo', 'labelme']) == 0
    assert len(says) == len(SHAPES)
    found = of_answers(looks, says)
    assert len(found) == len(set(found))
    for text in says[:1] + says[5:]:  # where there are rings, nothing else was looked for
        whats = [what for what, other in found if other == text]
        assert whats == ['find_rings'] or '60,80' not in text
    assert sum(text == '[]' and what == 'find_rings' for what, text in looks) == 1


def test_all_metrics_and_pictures_read_an_answer_once(config, says, looks, tmp_path):  # noqa: F811
    metrics = [dict(type='RESMetric'), dict(type='GRESMetric'), dict(type='OutputHealthMetric'),
               dict(type='RECMetric'), dict(type='RECMetric', source='box', prefix='box'),
               dict(type='PromptedMaskMetric'), dict(type='PointMetric'),
               dict(type='QuestionAnsweringMetric'), dict(type='mmdet.RefSegMetric'),
               dict(type='RESMetric', protocol='rela', prefix='rela'),
               dict(type='TextDump', out_file=str(tmp_path / 'a.jsonl'))]
    runner = build(config, tmp_path, **{
        'test_evaluator': metrics, 'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.indices': 12,
        'default_hooks.visualization': dict(
            type='PredictionVisualizationHook', draw=True, interval=1,
            test_out_dir=str(tmp_path / 'pictures'))})
    figures = runner.test()
    assert len(says) == 12 and {'res/gIoU', 'health/valid_parse', 'point/hit'} <= set(figures)
    assert len(list(Path(tmp_path, 'pictures').iterdir())) == 12
    found = of_answers(looks, says)
    assert {text for _, text in found} == set(says) - {'[]'} and len(found) == len(set(found))


@pytest.mark.parametrize('interval', [-1, 1])  # with the table and its pictures
def test_a_rollout_reads_an_answer_once(rl_config, looks, tmp_path, interval):  # noqa: F811
    run = train(rl_config, tmp_path, **SCRIPT, **ONE_ROLLOUT,
                **{'default_hooks.rollouts.interval': interval, 'train_cfg.rollout.sampled': 0})
    answers = [answer.text for group in run.train_loop.experience.answers for answer in group]
    assert len(answers) == 16
    assert sorted(text for what, text in looks if what == 'find_rings') == sorted(answers)
    assert not [text for what, text in looks if what == '_find_numbers' and text in answers
                and interval < 0]
