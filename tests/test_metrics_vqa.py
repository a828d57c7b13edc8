"""Exact match as VQA normalises answers, beside the metrics of regions."""
import pytest
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator

from simpleseg_mm.evaluation import QuestionAnsweringMetric, normalise_answer


@pytest.mark.parametrize('text, expected', [
    ('', ''), ('  \n\t ', ''), ('...', ''), ('The', ''),
    ('Red', 'red'), ('red.', 'red'), ('Red\n', 'red'), ('a red  Bus', 'red bus'),
    ('two', '2'), ('Two', '2'), ('none', '0'), ('Ten dogs', '10 dogs'), ('two.', '2'),
    ('3.5', '3.5'), ('.5', '.5'), ('no. 3', 'no 3'), ('U.S.', 'us'),
    ("don't", 'dont'), ('dont', 'dont'), ('don\u2019t', 'dont'),
    ('well-known', 'well known'), ('red/white', 'red white'),
    ('red, white', 'red white'), ('red , white', 'red white'), ('red,white', 'red white'),
    ('1,000', '1000'), ('1,000 red/white', '1000 redwhite'),  # a number joins all, as in VQA
    ('yes!', 'yes'), ('(left)', 'left'), ('left of an A', 'left of'),
])
def test_normalisation(text, expected):
    assert normalise_answer(text) == expected
    assert normalise_answer(expected) == expected


def sample(img_id, kind, text, answers, **keys):
    return DetDataSample(metainfo={key: value for key, value in dict(
        img_id=img_id, kind=kind, pred_text=text, answers=answers, **keys).items()
        if value is not None})


def run(samples, **kwargs):
    evaluator = Evaluator(QuestionAnsweringMetric(**kwargs))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def test_figures_by_kind_and_overall():
    samples = [sample(0, 'count', 'Two.', ['2']), sample(1, 'count', '22', ['2']),
               sample(2, 'count', '', ['0']), sample(3, 'count', 'none', ['0']),
               sample(4, 'colour', 'a dark red', ['red', 'dark red']),
               sample(5, 'grounding', '[1,2,3,4]', None)]  # a box: others score it
    assert run(samples) == pytest.approx(
        {'vqa/count': 50, 'vqa/colour': 100, 'vqa/overall': 60})
    assert run(samples[-1:], prefix='retention') == {}
    joint = [sample(i, 'count', '2', ['2', str(i)], source='a', split='b') for i in range(2)]
    assert run(joint, per_set=True, prefix='r')['r/a_b/count'] == 100


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="sample 7 has no 'pred_text'"):
        run([sample(7, 'count', None, ['2'])])
    with pytest.raises(ValueError, match='img_id 1 has 2 results'):
        run([sample(1, 'count', '2', ['2'])] * 2)
