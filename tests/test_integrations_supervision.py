"""Answers as Detections of supervision; skipped where that package is not there."""
import numpy as np
import pytest

sv = pytest.importorskip('supervision')

from simpleseg_mm.integrations.supervision import to_detections  # noqa: E402
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
