"""SimpleSeg as a model of FiftyOne; skipped where that package is not there.

What needs FiftyOne's database is skipped where that does not start.
"""
import numpy as np
import pytest
from PIL import Image

fo = pytest.importorskip('fiftyone')

from tool_pages import run_block  # noqa: E402

from simpleseg_mm.asking import PromptedInferencer, Unanswered  # noqa: E402
from simpleseg_mm.integrations.fiftyone import SimpleSegModel  # noqa: E402
from simpleseg_mm.polygon import PolygonCodec  # noqa: E402
from simpleseg_mm.structures import Prompt, Segmentation  # noqa: E402
from simpleseg_mm.taught import Taught  # noqa: E402

SQUARE = '[[[10,10],[10,30],[40,30],[40,10]]]'
RING = '[[[10,10],[10,90],[90,90],[90,10]],[[40,40],[60,40],[60,60],[40,60]]]'
TEXTS = dict(ring=RING, nothing='[]', cups=f'[{SQUARE},{RING}]', babble='no such thing')
ODD = 'a "cup", <é>;=\u2028 \N{GRINNING FACE}'
PICTURE = np.zeros((50, 100, 3), np.uint8)  # a percent is a pixel wide and half a pixel high


class Inferencer(PromptedInferencer):
    """Answers by the prompt's words; all else gives a square. After 'offline' nothing comes."""
    codec = PolygonCodec(grammar='int100')

    def __init__(self, *prompts: str) -> None:
        self.taught, self.asked, self.batches = Taught(prompts=prompts), [], []

    def answers(self, queries, batch_size):
        self.batches.append(batch_size)
        for query in queries:
            self.asked.append(query.prompt)
            text = query.prompt.text
            if text in ('offline', 'refused'):
                yield query, {}, Unanswered('no server at\nhttp://x', ends=text == 'offline')
                if text == 'offline':
                    return
                continue
            answer = self.codec.decode(TEXTS.get(text, SQUARE), query.picture.shape[:2],
                                       query.prompt.task.kind, num_tokens=9, finished=True,
                                       seconds=0.1, confidence=0.5)
            yield query, {}, Segmentation.of(answer, query.name, query.prompt, query.index)


def model(*prompts: str, **options) -> SimpleSegModel:
    return SimpleSegModel(inferencer=Inferencer(*prompts), **options)


def sample(**fields) -> fo.Sample:
    return fo.Sample(filepath='/pics/a.png', **fields)


def boxes(*given) -> fo.Detections:
    return fo.Detections(detections=[fo.Detection(label=label, bounding_box=list(box))
                                     for label, box in given])


def points(label: str, *given) -> fo.Keypoints:
    return fo.Keypoints(keypoints=[fo.Keypoint(label=label, points=list(given))])


# --- what cannot be asked ----------------------------------------------------------------------
@pytest.mark.parametrize('options, taught, message', [
    (dict(classes='cup'), ('text', ), 'give a list'), (dict(classes=[3]), ('text', ), 'got 3'),
    (dict(classes=[['a']]), ('text', ), 'a class is a name'),
    (dict(classes=[' ']), ('text', ), 'a class is a name'),
    (dict(classes={'cup': None}), ('text', ), 'a class is a name'),
    (dict(classes=['cup']), ('point', ), 'not taught expressions')])
def test_bad_options_are_one_line(options, taught, message):
    with pytest.raises(ValueError, match=message) as caught:
        model(*taught, **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('fields, message', [
    (dict(box_field='a'), 'box_field: this model takes text_prompt_field, point_prompt_field'),
    (dict(box_prompt_field='a'), 'not taught boxes')])
def test_bad_keywords_of_apply_model_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        model('text', classes=['ring']).needs_fields = fields


def test_nothing_to_ask_for_is_said_before_the_first_picture():
    with pytest.raises(ValueError, match='nothing is asked for'), model('text'):
        pass
    with pytest.raises(ValueError, match='nothing is asked for'):
        model('text').predict(PICTURE)


@pytest.mark.parametrize('key, value, message', [
    ('text', 3, 'f holds a int; expressions'),
    ('text', ['ring', 3], 'f holds a int; expressions'),
    ('text', boxes(('a', (0, 0, 1, 1))), 'f holds a Detections; expressions'),
    ('box', 'ring', 'f holds a str; boxes'), ('box', points('a', (0, 0)), 'f holds a Keypoints'),
    ('point', boxes(('a', (0, 0, 1, 1))), 'f holds a Detections; points'),
    ('text', 'offline', 'no server at http://x')])
def test_a_sample_that_fails_is_said_in_one_line(key, value, message):
    one = model('text', 'box', 'point')
    one.needs_fields = {f'{key}_prompt_field': 'f'}
    with pytest.raises(ValueError, match=f'^/pics/a.png: .*{message}') as caught:
        one.predict(PICTURE, sample=sample(f=value))
    assert '\n' not in str(caught.value) and one.errors == [str(caught.value)]


@pytest.mark.parametrize('text, given, told', [
    # a refused one fails alone; after a server that is gone nobody is asked
    ('refused', [True, False, True, True], 1), ('offline', [True, False, False, False], 3)])
def test_what_fails_in_a_batch_keeps_the_others(text, given, told):
    one = model('text')
    one.needs_fields = dict(text_prompt_field='f')
    found = one.predict_all([PICTURE] * 4, [sample(f=['ring', word]) for word in (
        'cup', text, 'cup', 'nothing')])
    assert [label is not None for label in found] == given
    assert len(one.errors) == told and all('http://x' in line for line in one.errors)
    assert [label.label for label in found[0].detections] == ['ring', 'cup']


@pytest.mark.parametrize('key, value, asked, told', [
    ('box', boxes(('a', (0, 0, 0, 1)), ('b', (.1, .2, .3, .4)), ('c', (2, 2, 1, 1))),
     [Prompt(box=(10, 10, 40, 30))], '2 of f are passed over: the box'),
    ('box', fo.Detections(detections=[fo.Detection(label='a')]), [], '1 of f'),
    ('point', points('a', (float('nan'), 0), (.2, .5), (.9, .9)), [Prompt(point=(20, 25))],
     '1 of f are passed over: the model takes one point, the first'),
    ('point', points('a'), [], 'a point is 2 numbers'),
    ('point', points('a', (1.5, 0)), [], 'outside')])
def test_prompts_that_cannot_be_used_are_passed_over_and_counted(key, value, asked, told):
    one = model('box', 'point')
    one.needs_fields = {f'{key}_prompt_field': 'f'}
    found = one.predict(PICTURE, sample=sample(f=value))
    assert one.inferencer.asked == asked and len(found.detections) == len(asked)
    assert len(one.errors) == 1 and told in one.errors[0]


@pytest.mark.parametrize('value, wanted', [(None, None), ('', []), ([], [])])
def test_a_field_that_asks_for_nothing(value, wanted):
    one = model('text')
    one.needs_fields = dict(text_prompt_field='f')
    found = one.predict(PICTURE, sample=sample(f=value))
    assert (found if found is None else found.detections) == wanted
    assert one.inferencer.asked == [] and one.errors == []


def test_a_sample_is_needed_for_its_fields():
    one = model('text')
    one.needs_fields = dict(text_prompt_field='f')
    with pytest.raises(ValueError, match='fields of a sample'):
        one.predict(PICTURE)


# --- what is asked -------------------------------------------------------------------------------
@pytest.mark.parametrize('taught, classes, asked, labels', [
    (('text', ), ['ring', 'nothing'], [Prompt(text='ring'), Prompt(text='nothing')], ['ring']),
    (('text', 'all'), {'cup': 'cups'}, [Prompt(text='cups', all=True)], ['cup', 'cup']),
    (('text', ), [ODD], [Prompt(text=ODD)], [ODD]), (('text', ), ['babble'],
                                                     [Prompt(text='babble')], [])])
def test_classes(taught, classes, asked, labels):
    one = model(*taught, classes=classes)
    found = one.predict(PICTURE)
    assert one.inferencer.asked == asked
    assert [label.label for label in found.detections] == labels


@pytest.mark.parametrize('fields, value, asked, labels', [
    ('text', 'ring', [Prompt(text='ring')], ['ring']),
    ('text', ['ring', ODD], [Prompt(text='ring'), Prompt(text=ODD)], ['ring', ODD]),
    ('text', fo.Classification(label='ring'), [Prompt(text='ring')], ['ring']),
    ('text', fo.Classifications(classifications=[fo.Classification(label='ring')]),
     [Prompt(text='ring')], ['ring']),
    ('box', boxes((ODD, (.1, .2, .3, .4)), (None, (.5, 0, .7, 1))),
     [Prompt(box=(10, 10, 40, 30)), Prompt(box=(50, 0, 100, 50))], [ODD, 'object']),
    ('box', fo.Detection(label='a', bounding_box=[0, 0, 1, 1]), [Prompt(box=(0, 0, 100, 50))],
     ['a']),
    ('point', points('a', (.2, .5)), [Prompt(point=(20, 25))], ['a']),
    ('point', fo.Keypoint(points=[(1, 1)]), [Prompt(point=(100, 50))], ['object'])])
def test_fields_are_asked_instead_of_classes(fields, value, asked, labels):
    one = model('text', 'box', 'point', classes=['nothing'])
    one.needs_fields = {f'{fields}_prompt_field': 'frames.f', 'text_prompt_field': None} \
        if fields != 'text' else dict(text_prompt_field='f')
    found = one.predict(PICTURE, sample=sample(f=value))
    assert one.inferencer.asked == asked
    assert [label.label for label in found.detections] == labels


def test_everything_where_nothing_else_is_asked_for():
    one = model('everything')
    one.predict(PICTURE)
    assert one.inferencer.asked == [Prompt(everything=True)]


# --- what is given -------------------------------------------------------------------------------
def wanted_ring() -> np.ndarray:
    mask = np.zeros((50, 100), bool)
    mask[5:45, 10:90] = True
    mask[20:30, 40:60] = False
    return mask


def test_a_detection_keeps_the_mask_exactly():
    found, = model('text', classes=['ring']).predict(PICTURE).detections
    assert found.bounding_box == [.1, .1, .8, .8] and found.confidence == 0.5
    mask = found.to_segmentation(frame_size=(100, 50), target=1).mask
    assert np.array_equal(mask.astype(bool), wanted_ring())


def test_a_polyline_has_the_vertices_with_holes_cut_open():
    found, = model('text', classes=['ring'], polylines=True).predict(PICTURE).polylines
    ring, = found.points
    assert (found.closed, found.filled, found.label) == (True, True, 'ring')
    assert len(ring) == 4 + 4 + 2 and {(.1, .1), (.4, .4), (.9, .9)} <= set(map(tuple, ring))
    mask = found.to_segmentation(frame_size=(100, 50), target=1).mask.astype(bool)
    wanted = wanted_ring()
    assert (mask & wanted).sum() / (mask | wanted).sum() > 0.9  # it draws its outline, too


# --- FiftyOne's own way --------------------------------------------------------------------------
@pytest.fixture
def dataset(tmp_path):
    try:
        dataset = fo.Dataset()
    except Exception as error:
        pytest.skip(f"FiftyOne's database does not start: {error}")
    for number in range(5):
        path = str(tmp_path / f'{number}.png')
        Image.fromarray(PICTURE).save(path)
        dataset.add_sample(fo.Sample(filepath=path, words=['ring', 'nothing'][number % 2],
                                     truth=boxes((ODD, (.1, .2, .3, .4)))))
    yield dataset
    dataset.delete()


@pytest.mark.parametrize('batch_size', [None, 2])
def test_apply_model(dataset, batch_size):
    one = model('text', 'box', classes=['ring', 'nothing'])
    dataset.apply_model(one, label_field='simpleseg', batch_size=batch_size)
    assert dataset.count_values('simpleseg.detections.label') == {'ring': 5}
    assert one.inferencer.batches == ([1] * 5 if batch_size is None else [2, 2, 1])
    dataset.apply_model(one, label_field='sure', batch_size=batch_size, confidence_thresh=0.6)
    assert dataset.count('sure.detections') == 0
    dataset.apply_model(one, label_field='boxed', box_prompt_field='truth', batch_size=batch_size)
    assert dataset.count_values('boxed.detections.label') == {ODD: 5}
    assert one.needs_fields == {}
    dataset.apply_model(one, label_field='said', text_prompt_field='words', batch_size=batch_size)
    assert dataset.count_values('said.detections.label') == {'ring': 3}
    kept = fo.load_dataset(dataset.name).first()['simpleseg'].detections[0]
    assert np.array_equal(kept.to_segmentation(frame_size=(100, 50), target=1).mask > 0,
                          wanted_ring())


@pytest.mark.parametrize('batch_size', [None, 5])
def test_a_picture_or_server_that_fails_leaves_the_others(dataset, batch_size):
    last = dataset.last()
    last['words'] = 'offline'
    last.save()
    one = model('text')
    dataset.apply_model(one, label_field='said', text_prompt_field='words', batch_size=batch_size)
    assert dataset.exists('said').count() == 4 and len(one.errors) == 1
    with pytest.raises(ValueError, match='this model takes'):
        dataset.apply_model(one, label_field='said', prompts='words')


@pytest.mark.slow
def test_the_lines_of_the_docs(dataset, tmp_path, monkeypatch):
    names = run_block('fiftyone', tmp_path, monkeypatch)
    kept = names['dataset']
    assert kept.count_values('simpleseg.detections.label') == {'large orange ring': 1}
    assert kept.count('boxed.detections') == 1 and names['model'].errors == []
    kept.delete()
