"""Answers as Detections of supervision; skipped where that package is not there."""
import warnings

import numpy as np
import pytest

sv = pytest.importorskip('supervision')

from tool_pages import run_block  # noqa: E402

from simpleseg_mm.integrations import supervision  # noqa: E402
from simpleseg_mm.integrations.supervision import from_vlm, to_detections  # noqa: E402
from simpleseg_mm.polygon import PolygonCodec  # noqa: E402
from simpleseg_mm.structures import Prompt, Segmentation  # noqa: E402

SQUARE, RING = '[[[10,10],[10,30],[40,30],[40,10]]]', '[[[60,60],[60,90],[90,90],[90,60]]]'
CODEC = PolygonCodec(grammar='int100')


def answer(text: str, prompt: Prompt, confidence=0.5, size=(100, 100)) -> Segmentation:
    return Segmentation.of(CODEC.decode(
        text, size, prompt.task.kind, num_tokens=9, finished=True, seconds=0.1,
        confidence=confidence), '0', prompt)


def test_a_row_an_object():
    cups = Prompt(text='cup', all=True)
    found = to_detections([answer(RING, Prompt(text='plate'), None), answer('[]', cups),
                           answer(f'[{SQUARE},{RING}]', cups)])
    assert found.data['class_name'].tolist() == ['plate', 'cup', 'cup']
    assert found.class_id.tolist() == [0, 1, 1]
    assert found.xyxy.tolist() == [[60, 60, 90, 90], [10, 10, 40, 30], [60, 60, 90, 90]]
    assert found.mask.sum((1, 2)).tolist() == [900, 600, 900] and found.confidence[0] == 1
    assert len(found.with_nms(0.5, class_agnostic=True)) == 2
    drawn = sv.MaskAnnotator().annotate(np.zeros((100, 100, 3), np.uint8), found)
    assert drawn[20, 20].any() and not drawn[50, 5].any()


def test_nothing_is_no_row():
    assert len(to_detections([])) == len(to_detections([answer('[]', Prompt(text='a'))])) == 0


def test_pictures_of_two_sizes():
    with pytest.raises(ValueError, match='those about one picture'):
        to_detections([answer(SQUARE, Prompt(text='a')),
                       answer(SQUARE, Prompt(text='a'), size=(50, 50))])


@pytest.mark.parametrize('arguments, message', [
    (dict(result=None), 'give the text'), (dict(resolution_wh=100), 'give .width, height.'),
    (dict(resolution_wh=(0, 10)), 'give .width, height.'), (dict(prompt=3), 'a prompt is'),
    (dict(prompt=' '), 'the expression is'), (dict(codec='int1000'), 'it looks like'),
    (dict(classes='cup'), 'give a list')])
def test_arguments_that_do_not_fit_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_vlm(**dict(dict(result=SQUARE, resolution_wh=(100, 50)), **arguments))
    assert '\n' not in str(caught.value)


HOLED = '[[[100,100],[100,900],[900,900],[900,100]],[[400,400],[600,400],[600,600],[400,600]]]'
SMALL = '[[[0,0],[0,500],[500,500],[500,0]]]'
CUPS, ALL = dict(text='cup', all=True), dict(everything=True)


@pytest.mark.parametrize('text, prompt, classes, names, ids, areas, told', [
    ('I see no cup', 'cup', None, [], [], [], 'no valid answer'),
    ('', 'cup', None, [], [], [], 'no valid answer'), ('[]', 'cup', None, [], [], [], None),
    (HOLED, 'cup', None, ['cup'], [0], [80 * 40 - 20 * 10], None),
    (HOLED, 'cup', ['plate', 'cup'], ['cup'], [1], [3000], None),
    (HOLED, 'cup', ['plate'], [], [], [], '1 objects are left out'),
    (f'[{HOLED},{SMALL}]', CUPS, None, ['cup', 'cup'], [0, 0], [3000, 1250], None),
    (f'[{HOLED},[[[0,0],[0,500],[500', CUPS, None, ['cup'], [0], [3000], 'no valid answer'),
    (f'[["a plate",{HOLED}],["cup",{SMALL}]]', ALL, ['cup', 'a plate'], ['a plate', 'cup'],
     [1, 0], [3000, 1250], None)])
@pytest.mark.parametrize('dense', [True, False])
def test_from_vlm_reads_a_text(monkeypatch, text, prompt, classes, names, ids, areas, told,
                               dense):
    monkeypatch.setattr(supervision, 'MAX_DENSE', 10**9 if dense else 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        found = from_vlm(text, resolution_wh=(100, 50), prompt=prompt, classes=classes)
    assert [str(one.message) for one in caught if told and told in str(one.message)] or not told
    assert bool(caught) == bool(told)
    assert len(found) == len(names)
    if names:
        assert found.data['class_name'].tolist() == names and found.class_id.tolist() == ids
        masks = np.asarray(found.mask)
        assert masks.shape[1:] == (50, 100) and masks.sum((1, 2)).tolist() == areas
        assert not masks[0, 25, 50] and found.confidence.tolist() == [1] * len(names)
        assert found.xyxy[0].tolist() == [10, 5, 90, 45]


def test_a_text_of_another_grammar_is_told():
    with pytest.warns(UserWarning, match='int1000/default does not write: name another codec'):
        from_vlm('[[[0.1,0.2],[0.1,0.8],[0.5,0.8]]]', (100, 50), 'cup')
    found = from_vlm('[[[0.1,0.2],[0.1,0.8],[0.5,0.8],[0.5,0.2]]]', (100, 50), 'cup',
                     codec='fixed3/paper')
    assert found.xyxy.tolist() == [[10, 10, 50, 40]]


def test_thousands_of_objects_of_a_large_picture_take_little_memory():
    square = '[[[{0},{1}],[{0},{2}],[{3},{2}]]]'
    lists = ['[' + ','.join(square.format(x, y, y + 1, x + 1) for y in range(100)) + ']'
             for x in range(20)]
    found = to_detections([answer(text, Prompt.of(CUPS), size=(1500, 1000)) for text in lists])
    assert len(found) == 2000 and isinstance(found.mask, sv.CompactMask)
    assert found.xyxy[-1].tolist() == [190, 1486, 200, 1500]


def test_an_older_supervision_says_what_to_do(monkeypatch):
    monkeypatch.setattr(supervision, 'MAX_DENSE', 0)
    monkeypatch.delattr(sv, 'CompactMask')
    with pytest.raises(ValueError, match='pip install -U supervision'):
        to_detections([answer(SQUARE, Prompt(text='a'))])


@pytest.mark.slow
def test_the_lines_of_the_docs(tmp_path, monkeypatch, capsys):
    run_block('supervision', tmp_path, monkeypatch)
    assert "'large orange ring'" in capsys.readouterr().out
