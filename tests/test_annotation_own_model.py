"""SimpleSeg as a stage of the data engine."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from annotation_standin import FAST, config, jpeg, run

from simpleseg_mm import apis
from simpleseg_mm.annotation.stages import Sample, SimpleSegSegment
from simpleseg_mm.annotation.export import annotations_of
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.polygon import PolygonCodec, mask_iou, rle_to_mask
from simpleseg_mm.structures import Prompt, Segmentation
from simpleseg_mm.taught import Taught

SQUARE = '[[[10,10],[10,30],[40,30],[40,10]]]'


class Inferencer:
    """A square for boxes and most words; nothing for 'ghost', no outline for 'babble'."""
    texts = dict(ghost='[]', babble='I see')
    codec = PolygonCodec(grammar='int100')

    def __init__(self, *_, **options) -> None:
        self.options, self.asked = options, []
        self.taught = Taught(prompts=('text', 'box'))

    def ask_batch(self, asked):
        self.asked.append([prompt for _, prompt in asked])
        return [Segmentation.of(self.codec.decode(
            self.texts.get(prompt.text, SQUARE), picture.shape[:2], 'rings', num_tokens=1,
            finished=True, seconds=0.1, confidence=0.75), '0', prompt)
            for picture, prompt in asked]


@pytest.fixture
def inferencer(monkeypatch):
    made = []
    monkeypatch.setattr(apis, 'SimpleSegInferencer', lambda *args, **options: made.append(
        Inferencer(*args, **options)) or made[-1])
    return SimpleNamespace(made=made)


def sample(*objects) -> Sample:
    made = Sample('a', jpeg(0, size=(100, 100)))
    made.width = made.height = 100
    made.propose([dict(box=list(map(float, box)), category=name, score=0.9)
                  for box, name in objects])
    return made


@pytest.mark.parametrize('options, message', [
    (dict(ask='point'), 'give one of'), (dict(max_asked=0), '1 prompt or more')])
def test_bad_options_are_one_line(inferencer, options, message):
    with pytest.raises(ValueError, match=message):
        SimpleSegSegment(**options)


def test_a_model_that_does_not_know_boxes_is_refused(inferencer, monkeypatch):
    monkeypatch.setattr(Taught, 'knows', lambda self, kind: kind == 'text')
    with pytest.raises(ValueError, match="ask='box': the model was taught"):
        SimpleSegSegment()
    SimpleSegSegment(ask='category')


def test_boxes_and_words_are_asked_in_parts(inferencer):
    objects = [((10, 10, 40, 30), 'cup'), ((-5, 0, 20, 20), 'cup'), ((50, 50, 50, 60), 'line'),
               ((1, 1, 9, 9), '')]
    for ask, prompts in (
            ('box', [[Prompt(box=(10, 10, 40, 30)), Prompt(box=(0, 0, 20, 20))],
                     [Prompt(box=(1, 1, 9, 9))]]),
            ('category', [[Prompt(text='cup'), Prompt(text='cup')], [Prompt(text='line')]])):
        one = sample(*objects)
        stage = SimpleSegSegment(ask=ask, max_asked=2)
        stage.name = 'segment'
        stage.process([one])
        assert inferencer.made[-1].asked == prompts
        assert [found['mask_score'] for found in one.objects] == [0.75] * 3
        assert rle_to_mask(one.objects[0]['mask']).sum() == 600
        assert one.counts == {('segment', 'objects', 'no outline is written for it'): 1}


def test_what_gets_no_outline_is_dropped_and_bars_its_category(inferencer):
    one = sample(((1, 1, 9, 9), 'ghost'), ((1, 1, 9, 9), 'babble'), ((1, 1, 9, 9), 'cup'))
    stage = SimpleSegSegment(ask='category', consensus=8, second_look=True)
    stage.process([one])
    assert [found['category'] for found in one.objects] == ['cup']
    assert one.lost == {'ghost', 'babble'}
    assert inferencer.made[-1].options['consensus'] == 8
    assert inferencer.made[-1].options['second_look'] is True


def test_the_packaged_model_annotates_scenes_with_a_consensus(tmp_path):
    """Boxes of the truth in, its outlines out; the score is the vote's confidence."""
    generate(tmp_path / 'data', dict(train=4), seed=3)
    ann_file = tmp_path / 'data/refshapes/instances.json'
    cfg = config(dict(type='ReadFolder', root=str(tmp_path / 'data/images')),
                 detect=dict(type='OracleDetect', ann_file=str(ann_file)),
                 segment=dict(type='SimpleSegSegment', consensus=2),
                 clean=dict(type='CleanMasks', min_score=0.1),
                 polygon=dict(type='WritePolygons', codec=FAST))
    counts = run(cfg, tmp_path / 'run')['counts']
    truth = json.loads(ann_file.read_text())
    assert counts['objects']['entered'] == len(truth['annotations'])
    masks = {}
    names = {image['id']: image['file_name'] for image in truth['images']}
    for row in truth['annotations']:
        masks.setdefault(names[row['image_id']], []).append(row['segmentation'])
    scores, ious = [], []
    for _, annotation, _ in annotations_of(str(tmp_path / 'run')):
        for found in annotation['objects']:
            scores.append(found['mask_score'])
            ious.append(max(mask_iou(rle_to_mask(found['segmentation']), rle_to_mask(one))
                            for one in masks[annotation['source']['file']]))
    assert len(ious) >= 0.7 * len(truth['annotations']) and np.mean(ious) > 0.7
    assert 0.1 <= min(scores) < max(scores) <= 1 and len(set(scores)) == len(scores)
