"""The scripted annotator: it does what is needed, counts it, and keeps documents of the page."""
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'benchmarks'))

import annotator  # noqa: E402

from simpleseg_mm.export import to_corrections  # noqa: E402
from simpleseg_mm.polygon import rings_to_mask  # noqa: E402
from simpleseg_mm.serving.corrected import read_corrected  # noqa: E402

SIZE = (100, 100)
SQUARE = [[20, 20], [20, 80], [80, 80], [80, 20]]
HOLE = [[40, 40], [60, 40], [60, 60], [40, 60]]


def ring(points):
    return np.array(points, float)


def hand(*rings, target=0.95):
    return annotator.Hand(rings_to_mask([ring(one) for one in rings], SIZE, 'edges'), target)


@pytest.mark.parametrize('rings', [[SQUARE], [SQUARE, HOLE], [[[3.2, 7.1], [50, 99], [93.7, 0.4]]],
                                   [[[-20, 10], [50, 130], [140, 50]]]])
def test_sums_over_edges_are_areas(rings):
    truth = np.random.default_rng(0).random(SIZE) < 0.3
    edges = annotator.Edges(truth)
    turned = annotator.rings_of([dict(outer=rings[0], holes=rings[1:])])
    area, inside = abs(sum(edges.of_ring(one).sum(0) for one in turned))
    mask = rings_to_mask(turned, SIZE, 'edges')
    assert (area, inside) == (mask.sum(), (mask & truth).sum())


#: what the model wrote -> what is done; None: drawing is less work
WORK = {
    'right': ([SQUARE], {}),
    'good enough': ([[[21, 20], [20, 80], [80, 80], [80, 20]]], {}),
    'a vertex is off': ([[[45, 45], [20, 80], [80, 80], [80, 20]]], {'moved': 1}),
    'a vertex is missing': ([[[20, 80], [80, 80], [80, 20]]], {'added': 1}),
    'a vertex too many': ([[[20, 20], [20, 80], [80, 80], [99, 50], [80, 20]]], {'removed': 1}),
    'a part too many': ([SQUARE, [[85, 5], [85, 18], [98, 18]]], {'removed': 1}),
    'two vertices are off': ([[[20, 20], [5, 80], [80, 80], [50, 20]]], {'moved': 2}),
    'elsewhere': ([[[1, 1], [1, 9], [9, 9], [9, 1]]], None),
}


@pytest.mark.parametrize('case', WORK)
def test_what_is_done(case):
    rings, expected = WORK[case]
    found = hand(SQUARE).correct([ring(one) for one in rings])
    if expected is None:
        assert found is None
        return
    rings, done = found
    assert done == Counter(expected)
    assert hand(SQUARE).iou(rings) >= 0.95


def test_a_missing_hole_is_drawn():
    rings, done = hand(SQUARE, HOLE).correct([ring(SQUARE)])
    assert done == Counter(drawn=4) and len(rings) == 2


def test_drawing_anew_is_good_enough():
    assert sum(map(len, hand(SQUARE).fresh)) == 4
    assert hand(SQUARE, HOLE).iou(hand(SQUARE, HOLE).fresh) >= 0.95


def answer(*outers, **prompt):
    return dict(prompt=prompt, confidence=0.5,
                polygons=[dict(outer=outer, holes=[]) for outer in outers])


OFF = [[45, 45], [20, 80], [80, 80], [80, 20]]
FAR = [[1, 1], [1, 9], [9, 9], [9, 1]]
#: answers to the expression and to a click -> the kind of the question that is kept, the
#: actions, and how many answers are deleted
WAYS = {
    'accepted': (answer(SQUARE, text='a'), None, 'text', {}, 0),
    'corrected': (answer(OFF, text='a'), None, 'text', {'moved': 1}, 0),
    'clicked': (answer(FAR, text='a'), answer(SQUARE, point=[50, 50]), 'point', {'clicks': 1}, 1),
    'drawn': (answer(FAR, text='a'), answer(FAR, point=[50, 50]), None,
              {'clicks': 1, 'drawn': 4}, 2),
    'nothing was found': (answer(text='a'), answer(point=[50, 50]), None,
                          {'clicks': 1, 'drawn': 4}, 0),
}


@pytest.mark.parametrize('case', WAYS)
def test_an_object_in_the_pages_form(case):
    said, clicked, kind, actions, deleted = WAYS[case]
    one, gone = annotator.annotate_one('a', hand(SQUARE), said, clicked, 'nano')
    assert (one['origin'] and next(iter(one['origin']['prompt']))) == kind
    assert {name: count for name, count in one['actions'].items() if count} == actions
    assert len(gone) == deleted and one['label'] == 'a'
    assert one['edited'] is bool(set(actions) - {'clicks'})


def test_documents_are_corrections(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', SIZE).save(path)
    truth = hand(SQUARE).truth
    scene = annotator.Scene(path, {'red square': truth, 'blue square': truth})
    said = dict(text=[answer(OFF, text='red square'), answer(FAR, text='blue square')],
                point=[None, answer(FAR, point=[50, 50])])
    documents, rows = annotator.annotate([scene], annotator.hands_of([scene], 0.95), said, 'nano')
    content, notes = to_corrections(map(read_corrected, documents))
    assert [one['phrase'] for one in content['annotations']] == [['red square'], ['blue square']]
    assert [one['correction']['actions']['drawn'] for one in content['annotations']] == [0, 4]
    assert len(content['images'][0]['rejected']) == 2
    assert 'absent_phrases' not in content['images'][0]
    assert [annotator.total(row) for row in rows] == [1, 1 + 4 + 2]
    assert rows[0]['before'] < 0.95 <= rows[0]['after'] and rows[1]['by_hand'] == 4


def test_before_and_after_on_the_same_objects():
    row = dict.fromkeys(annotator.ACTIONS, 0) | dict(before=0.5, after=0.9, by_hand=8)
    rounds = [{'before 0.9': [dict(row, moved=4), dict(row, clicks=1, deleted=1)],
               'after 0.9': [dict(row, moved=moved), row]} for moved in (1, 3)]
    found = annotator.compared(rounds, 0.9)
    assert found['before']['actions'] == [3.0, 3.0, 3.0]
    assert found['after']['actions'] == [1.0, 0.5, 1.5]
    assert found['difference']['actions'] == [-2.0, -2.5, -1.5]
    assert found['after']['accepted'] == [0.5, 0.5, 0.5]
    assert found['objects with'] == dict(fewer=1.0, as_many=0.0, more=0.0)
