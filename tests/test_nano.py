"""The model that ships with the package: it grounds, and has not seen a polygon."""
import numpy as np
import pytest
import torch

from simpleseg_mm.datasets.refshapes import make_scene
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.polygon import Grammar, box_iou, parse_answer


@pytest.fixture(scope='module')
def nano() -> SimpleSeg:
    return SimpleSeg(dict(type='QwenVL', pretrained='simpleseg_mm://nano'),
                     generation=dict(max_new_tokens=40))


@pytest.fixture(scope='module')
def queries() -> list:
    """(picture, sentence, true box in shares of the side), from scenes that no training saw."""
    found = []
    for index in range(24):
        scene = make_scene(77, 'val', index)
        picture = torch.from_numpy(scene['pixels']).permute(2, 0, 1)
        boxes = {a['id']: np.array(a['bbox']) / 224 for a in scene['annotations']}
        for ref in scene['refs']:
            x, y, w, h = boxes[ref['ann_id']]
            found.append((picture, ref['sentences'][0]['sent'], np.array([x, y, x + w, y + h])))
    return found


def test_it_finds_boxes(nano, queries):
    answers = nano.answer([picture for picture, _, _ in queries],
                          [f'Output the bounding box of {text} in the image.'
                           for _, text, _ in queries])
    stated = [parse_answer(answer.text, Grammar.from_name('int100'), 'box').box
              for answer in answers]
    ious = [0. if box is None else float(box_iou(box, true))
            for box, (_, _, true) in zip(stated, queries)]
    assert np.mean(ious) > 0.5
    # the box follows the sentence: with the sentences of other scenes it is lost
    moved = [0. if box is None else float(box_iou(box, true))
             for box, (_, _, true) in zip(stated, queries[5:] + queries[:5])]
    assert np.mean(moved) < 0.25


def test_it_writes_no_polygon(nano, queries):
    answers = nano.answer([picture for picture, _, _ in queries[:16]],
                          [f'Output the polygon coordinates of {text} in the image.'
                           for _, text, _ in queries[:16]])
    kinds = [parse_answer(answer.text, Grammar.from_name('int100')).kind for answer in answers]
    assert 'rings' not in kinds
