"""SimpleSeg as a function of CVAT, by the types of CVAT's own package."""
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

cvataa = pytest.importorskip('cvat_sdk.auto_annotation')

from cvat_sdk import models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402
from cvat_sdk.exceptions import ApiException  # noqa: E402
from cvat_sdk.masks import decode_mask  # noqa: E402

from simpleseg_mm.integrations import cvat  # noqa: E402
from simpleseg_mm.polygon import PolygonCodec, vote  # noqa: E402
from simpleseg_mm.structures import Prompt, Segmentation  # noqa: E402
from simpleseg_mm.taught import Taught  # noqa: E402

SQUARE = '[[[10,10],[10,30],[40,30],[40,10]]]'
RING = '[[[10,10],[10,90],[90,90],[90,10]],[[40,40],[60,40],[60,60],[40,60]]]'
PARTS = '[[[10,10],[10,30],[30,30],[30,10]],[[60,60],[60,90],[90,90],[90,60]]]'
TEXTS = dict(cup=SQUARE, ring=RING, nothing='[]', parts=PARTS, cups=f'[{SQUARE},{RING}]')
PICTURE = Image.new('RGB', (100, 100))


class Inferencer:
    """Answers by the prompt's words; a point and a box give a square."""
    codec = PolygonCodec(grammar='int100')

    def __init__(self, *prompts: str) -> None:
        self.taught, self.asked = Taught(prompts=prompts), []

    def segment(self, picture, prompts):
        found = []
        for prompt in prompts if isinstance(prompts, list) else [prompts]:
            self.asked.append(prompt)
            answer = self.codec.decode(TEXTS.get(prompt.text, SQUARE), picture.size[::-1],
                                       prompt.task.kind, num_tokens=9, finished=True,
                                       seconds=0.1, confidence=0.5)
            found.append(Segmentation.of(vote([answer]), '0', prompt))
        return found


def detected(inferencer, labels: str, shapes='polygon', threshold=None, to_polygons=False):
    """As ``cvat-cli task auto-annotate`` runs a function, with its checks; (name, type, points,
    group) of each shape."""
    function = cvat.create(labels, inferencer=inferencer, shapes=shapes)
    names = {label.id: label.name for label in function.spec.labels}
    context = SimpleNamespace(frame_name='a.png', conf_threshold=threshold,
                              conv_mask_to_poly=to_polygons)
    found = function.detect(context, PICTURE)
    for shape in found:
        assert shape.frame == 0 and not hasattr(shape, 'id') and not hasattr(shape, 'source')
    return [(names[one.label_id], str(one.type.value), list(one.points), one.group)
            for one in found]


def test_a_label_is_a_polygon():
    found = detected(Inferencer('text'), 'cup;nothing')
    (name, kind, points, group), = found
    assert (name, kind, group) == ('cup', 'polygon', 0)
    assert sorted(zip(points[::2], points[1::2])) == [(10, 10), (10, 30), (40, 10), (40, 30)]


def test_words_stand_behind_the_name():
    inferencer = Inferencer('text')
    (name, *_), = detected(inferencer, 'plate = cup')
    assert name == 'plate' and inferencer.asked == [Prompt(text='cup')]


ODD = 'a "cup"; <é>=\N{GRINNING FACE}'


@pytest.mark.parametrize('labels, names', [
    ({ODD: 'cup', 'ring': 'ring'}, [ODD, 'ring']), (['cup', 'ring'], ['cup', 'ring'])])
def test_labels_of_any_character_are_json(labels, names):
    found = detected(Inferencer('text'), json.dumps(labels))
    assert [name for name, *_ in found] == names


def test_shapes_say_how_sure_the_model_is():
    context = SimpleNamespace(conf_threshold=None, conv_mask_to_poly=False)
    shape, = cvat.create('cup', inferencer=Inferencer('text')).detect(context, PICTURE)
    assert shape.score == 0.5
    prompts = SimpleNamespace(pos_points=[(20, 21)], neg_points=[], bounding_box=None)
    shape, = cvat.create(inferencer=Inferencer('point')).detect(None, PICTURE, prompts)
    sure, = shape.attributes
    assert (sure.spec_id, sure.value) == (0, '0.5000')


@pytest.mark.parametrize('shapes, to_polygons, kind', [
    ('mask', False, 'mask'), ('mask', True, 'polygon'), ('polygon', False, 'polygon')])
def test_holes(shapes, to_polygons, kind):
    (_, found, points, _), = detected(Inferencer('text'), 'ring', shapes, None, to_polygons)
    assert found == kind
    if kind == 'mask':
        mask = decode_mask(points, image_width=100, image_height=100)
        wanted = np.zeros((100, 100), bool)
        wanted[10:90, 10:90] = True
        wanted[40:60, 40:60] = False
        assert np.array_equal(mask, wanted)
    else:
        assert len(points) == 2 * (4 + 4 + 2)  # cut open


def test_parts_have_one_group_and_objects_their_own():
    first, second = detected(Inferencer('text'), 'parts')
    assert first[3] == second[3] == 1
    assert [group for *_, group in detected(Inferencer('text', 'all'), 'cups')] == [0, 0]


@pytest.mark.parametrize('threshold, count', [(None, 1), (0.5, 1), (0.51, 0)])
def test_what_is_less_sure_than_asked_is_left_out(threshold, count):
    assert len(detected(Inferencer('text'), 'cup', threshold=threshold)) == count


def test_cvats_own_driver_takes_it(monkeypatch):
    """It maps the labels to those of the task by name, checks every shape, and sends them."""
    labels = [models.Label(id=number, name=name, type='any', attributes=[], sublabels=[])
              for number, name in ((70, 'ring'), (71, 'cup'))]
    sample = SimpleNamespace(frame_name='a.png', frame_index=3,
                             media=SimpleNamespace(load_image=lambda: PICTURE))
    monkeypatch.setattr(driver, 'TaskDataset', lambda *_, **__: SimpleNamespace(
        labels=labels, samples=[sample]))
    sent = []
    api = SimpleNamespace(partial_update_annotations=lambda action, task, **data: sent.append(
        (action, task, data['patched_labeled_data_request'].shapes)))
    client = SimpleNamespace(logger=logging.getLogger(), tasks=SimpleNamespace(api=api))
    function = cvat.create('cup;ring;nothing=nothing', inferencer=Inferencer('text'))
    with pytest.raises(cvataa.BadFunctionError, match='nothing'):
        driver.annotate_task(client, 137, function)
    driver.annotate_task(client, 137, function, allow_unmatched_labels=True)
    (action, task, shapes), = sent
    assert (action, task) == ('create', 137)
    assert [(one.label_id, one.frame, one.source) for one in shapes] == [
        (71, 3, 'auto'), (70, 3, 'auto')]


@pytest.mark.parametrize('taught, points, boxes', [
    (('point', ), 1, None), (('box', ), 0, 1), (('point', 'box'), 0, 0)])
def test_an_interactor_asks_for_what_was_taught(taught, points, boxes):
    spec = cvat.create(inferencer=Inferencer(*taught)).spec
    assert (spec.min_pos_points, spec.min_neg_points, spec.min_bounding_boxes) == (
        points, None, boxes)


@pytest.mark.parametrize('given, asked', [
    (dict(pos_points=[(5, 6), (20, 21)]), Prompt(point=(20, 21))),
    (dict(pos_points=[(5, 6)], bounding_box=((1, 2), (30, 40))), Prompt(box=(1, 2, 30, 40))),
    ({}, None)])
def test_clicks_and_boxes(given, asked):
    inferencer = Inferencer('point', 'box')
    prompts = SimpleNamespace(**dict(dict(pos_points=[], neg_points=[], bounding_box=None),
                                     **given))
    found = cvat.create(inferencer=inferencer).detect(None, PICTURE, prompts)
    assert inferencer.asked == ([] if asked is None else [asked])
    if asked is not None:
        mask = decode_mask(found[0].points, image_width=100, image_height=100)
        assert mask.sum() == 30 * 20 and mask[20, 20]


@pytest.mark.parametrize('options, taught, message', [
    (dict(labels=' ; '), ('text', ), 'give names of labels'),
    (dict(labels='["cup'), ('text', ), 'is not JSON'),
    (dict(labels='[]'), ('text', ), 'give names of labels'),
    (dict(labels='[" "]'), ('text', ), 'give names of labels'),
    (dict(labels='{"cup": 3}'), ('text', ), 'give names of labels'),
    (dict(labels='cup', weights='/nowhere/a.pth', inferencer=None), (), '/nowhere/a.pth'),
    (dict(labels='cup', shapes='box'), ('text', ), 'give one of'),
    (dict(labels='cup'), ('point', ), 'not taught expressions'),
    ({}, ('text', ), 'neither points nor boxes')])
def test_bad_options_are_one_line(options, taught, message):
    with pytest.raises(cvat.FunctionError, match=message) as caught:
        cvat.create(**dict(dict(inferencer=Inferencer(*taught)), **options))
    # CVAT's command prints errors of this kind, and tracebacks of others
    assert isinstance(caught.value, ApiException) and '\n' not in str(caught.value)
