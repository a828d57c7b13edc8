"""What annotators corrected becomes a set that own_data.py takes: nothing is asked whose truth is
not known."""
import json

import pytest
from PIL import Image

from simpleseg_mm import cli
from simpleseg_mm.annotation.own_account import Account
from simpleseg_mm.annotation.own_data import Choices, convert
from simpleseg_mm.annotation.own_files import read_own
from simpleseg_mm.annotation.own_formats import Reading
from simpleseg_mm.export import CORRECTIONS_FILE, to_corrections
from simpleseg_mm.polygon import mask_iou, segmentation_to_mask
from simpleseg_mm.serving.corrected import read_corrected
from simpleseg_mm.visualization.corrections import correction_figures

SIZE = (120, 160)


def square(x, y, side=30, holes=()):
    return dict(outer=[[x, y], [x + side, y], [x + side, y + side], [x, y + side]],
                holes=list(holes))


def item(label, place=(10, 10), ask=None, *, all=False, moved=0, edited=None, **more):
    """An object at a place; ``ask``: the question, an expression or a dict; None: by hand."""
    origin = None
    if ask is not None:
        prompt = dict(text=ask) if isinstance(ask, str) else ask
        origin = dict(prompt=dict(prompt, all=True) if all else prompt, score=0.75, model='nano',
                      polygons=[square(place[0] + 4, place[1])])
    return dict(id=label, label=label, polygons=[square(*place)], score=None, origin=origin,
                edited=bool(moved) if edited is None else edited,
                actions=dict(clicks=0, moved=moved, added=0, removed=0, drawn=0), **more)


def deleted(text, place=(100, 60)):
    prompt = dict(text=text) if isinstance(text, str) else text
    return dict(prompt=prompt, polygons=[square(*place)], label=str(text), score=0.4, model='nano')


def document(objects=(), done=True, rejected=(), name='a.png'):
    return dict(key=f'local:1/{name}', name=name, width=SIZE[1], height=SIZE[0], digest='1',
                objects=list(objects), done=done, rejected=list(rejected))


def corrected(*documents):
    return to_corrections(map(read_corrected, documents))


LEFT = item('cup', (10, 10), 'the left cup')
RIGHT = (60, 10)
TWO = [square(10, 10), square(60, 10)]


@pytest.mark.parametrize('broken, message', [
    (dict(name=''), 'has `name`'), (dict(name=7), 'name is a text'),
    (dict(width='160'), 'whole pixels'), (dict(height=0), 'whole pixels'),
    (dict(done=1), '`done` is'), (dict(objects=7), '`objects` is a list'),
    (dict(rejected={}), '`rejected` is a list'), (dict(rejected=[3]), '`rejected` is a list'),
    (dict(rejected=[dict(prompt=dict(text=''))]), 'rejected answer 0: the expression'),
    (dict(rejected=[dict(polygons=[dict(outer=7)])]), "rejected answer 0: the model's polygons"),
    (dict(objects=[dict(LEFT, origin=7)]), 'object 0: `origin` is'),
    (dict(objects=[dict(LEFT, origin=dict(prompt=dict(txt='a')))]), 'object 0: a prompt is'),
    (dict(objects=[dict(LEFT, origin=dict(polygons=[[1, 2]]))]), "object 0: the model's polygons"),
    (dict(objects=[dict(LEFT, origin=dict(polygons=[square(0, 0, float('nan'))]))]),
     "object 0: the model's polygons"),
    (dict(objects=[dict(LEFT, origin=dict(score=2))]), "object 0: the origin's `score`"),
    (dict(objects=[dict(LEFT, origin=dict(model=['a']))]), "object 0: the origin's `model`"),
    (dict(objects=[dict(LEFT, edited='no')]), 'object 0: `edited` is'),
    (dict(objects=[dict(LEFT, actions=dict(moved=-1))]), 'object 0: `actions` has'),
    (dict(objects=[dict(LEFT, actions=[1])]), 'object 0: `actions` has'),
    (dict(objects=[dict(LEFT, id=5)]), 'object 0: `id` is'),
])
def test_malformed(broken, message):
    with pytest.raises(ValueError, match=message) as error:
        read_corrected(dict(document([LEFT]), **broken))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('documents', [[], [document([LEFT], done=False)],
                                       [document(done=False, rejected=[deleted('a dog')])]])
def test_nothing_to_learn_from(documents):
    with pytest.raises(ValueError, match='no picture is marked done'):
        corrected(*documents)


#: objects, done -> the expressions of those that are kept
PHRASES = {
    'accepted as it was': ([LEFT], True, [['the left cup']]),
    'nobody has looked at it': ([LEFT, item('cup', RIGHT, 'right', moved=1)], False, [['right']]),
    'the label is the expression': ([item('Cup', ask='cup')], True, [['cup']]),
    'drawn by hand': ([item('cup', edited=True)], True, [['cup']]),
    'a label means all that have it': (
        [LEFT, item('cup', RIGHT, edited=True)], True, [['the left cup', 'cup'], ['cup']]),
    'in other capitals too': (
        [item('CUP', ask='the left cup'), item('cup', RIGHT, edited=True)], True,
        [['the left cup', 'cup'], ['cup']]),
    'a label that nobody asks for is not asked': (
        [LEFT, item('cup', RIGHT, 'the right one')], True, [['the left cup'], ['the right one']]),
    'every instance': (
        [item('cups', ask='cups', all=True), item('cups', RIGHT, 'cups', all=True)], True,
        [['cups'], ['cups']]),
    'asked by a point, with a label': (
        [item('cup', ask=dict(point=[20, 20]))], True, [['cup']]),
    'asked by a box, without one': (
        [item('object', ask=dict(box=[0, 0, 50, 50]))], True, [[]]),
    'one without a name may be a cup': (
        [item('cup', edited=True), item('object', RIGHT, edited=True)], True, [[], []]),
    'but the question meant one': (
        [LEFT, item('object', RIGHT, edited=True)], True, [['the left cup'], []]),
    'and one for all did not': (
        [item('cup', ask='the cups', all=True), item('', RIGHT, edited=True)], True, [[], []]),
    'everything, with names': (
        [item('cup', ask=dict(everything=True)), item('cup', RIGHT, dict(everything=True))], True,
        [['cup'], ['cup']]),
    'renamed: the expression is of another': (
        [item('plate', ask='cup'), item('cup', RIGHT, edited=True)], True, [[], []]),
    'no pixel': ([item('cup', (500, 500), 'cup'), item('cup', edited=True)], True, [[]]),
    'by hand, others may follow': (
        [item('cup', edited=True), item('cup', RIGHT, 'cup', moved=1)], False, [[], []]),
    'every instance, others may follow': (
        [item('cup', ask='cups', all=True, moved=2)], False, [[]]),
    'asked twice': (
        [item('cup', ask='cup', moved=1), item('cup', RIGHT, 'cup')], False, [[]]),
    'changed, though it does not say so': (
        [item('cup', ask='cup', moved=1, edited=False)], False, [['cup']]),
}


@pytest.mark.parametrize('case', PHRASES)
def test_what_objects_are_asked_by(case):
    objects, done, phrases = PHRASES[case]
    content, notes = corrected(document(objects, done))
    assert [one['phrase'] for one in content['annotations']] == phrases
    fewer = len(phrases) < len(objects)
    assert any('left out' in note for note in notes) is fewer


#: objects, rejected, done -> absent_phrases
ABSENT = {
    'nothing there': ([], [deleted('a dog')], True, ['a dog']),
    'beside another thing': ([LEFT], [deleted('a dog')], True, ['a dog']),
    'twice': ([], [deleted('a dog'), deleted('A  dog')], True, ['a dog']),
    'the picture is not done': ([item('cup', moved=1)], [deleted('a dog')], False, None),
    'asked again': ([item('dog', ask='a dog')], [deleted('a dog')], True, None),
    'asked in other words': ([item('it', ask='the dogs on top')], [deleted('a dog')], True, None),
    'drawn by hand': ([item('dog', edited=True)], [deleted('a small dog')], True, None),
    'by hand, without a name': ([item('object', edited=True)], [deleted('a dog')], True, None),
    'by a point, without a name': (
        [item('object', ask=dict(point=[20, 20]))], [deleted('a dog')], True, None),
    'in the same place': ([LEFT], [deleted('a mug', (12, 10))], True, None),
    'may be anything': ([LEFT], [deleted('the thing below')], True, None),
    'other letters': ([item('杯子', ask='杯子')], [deleted('红色的杯子')], True, None),
    'other letters, another thing': ([item('猫', ask='猫')], [deleted('红色的杯子')], True,
                                     ['红色的杯子']),
    'a point means something': ([], [deleted(dict(point=[9, 9])), deleted('a dog')], True,
                                ['a dog']),
}


@pytest.mark.parametrize('case', ABSENT)
def test_what_fits_nothing(case):
    objects, rejected, done, absent = ABSENT[case]
    content, notes = corrected(document(objects, done, rejected))
    image, = content['images']
    assert image.get('absent_phrases') == absent
    assert image['rejected'] == rejected and image['done'] is done
    count = len({one['label'].casefold() for one in rejected}) - len(absent or ())
    assert sum(int(note.split()[0]) for note in notes if 'deleted answer' in note) == (
        0 if case == 'twice' else count)


def test_before_after_and_categories():
    hole = square(18, 18, 8)['outer']
    one = dict(item('cup', ask='a cup', moved=3), polygons=[square(10, 10, holes=[hole]),
                                                            square(60, 60)])
    content, notes = corrected(
        document([one]), document([item('cup', (5, 5), 'a cup', moved=1), item('mug', RIGHT)],
                                  False, name='b/a.png'),
        document(done=False, name='c.png'))
    first, second = content['annotations']
    assert [image['file_name'] for image in content['images']] == ['a.png', 'b/a.png']
    assert (first['image_id'], second['image_id'], first['id'], second['id']) == (1, 2, 1, 2)
    assert first['correction'] == dict(
        id='cup', question=dict(text='a cup'), before=[square(14, 10)], iou=0.3729, score=0.75,
        model='nano', edited=True, actions=dict(clicks=0, moved=3, added=0, removed=0, drawn=0))
    mask = segmentation_to_mask(first['segmentation'], *SIZE)
    assert mask[70, 70] and mask[12, 12] and not mask[22, 22]  # both parts, and the hole
    assert mask_iou(mask, read_corrected(document([one])).objects[0].draw().mask) >= 0.98
    assert content['categories'] == [dict(id=1, name='cup')]
    assert 'not_exhaustive_category_ids' not in content['images'][0]
    assert content['images'][1]['not_exhaustive_category_ids'] == [1]
    assert content['images'][1]['neg_category_ids'] == []
    assert [note.split()[0] for note in notes] == ['1'] * 3 and all(
        word in note for word, note in zip(('by their', 'left out', 'pictures that'), notes))


@pytest.mark.parametrize('outer', [
    [[10, 10], [50, 50], [50, 10], [10, 50], [30, 60]], [[10.2, 10], [14, 10.7], [12.4, 15]]])
def test_training_sees_what_the_screen_shows(outer):
    """Outlines that cross themselves, and small ones, which COCO fills otherwise."""
    one = dict(LEFT, polygons=[dict(outer=outer, holes=[])])
    content, notes = corrected(document([one]))
    shown = read_corrected(document([one])).objects[0].draw().mask
    segmentation = content['annotations'][0]['segmentation']
    assert mask_iou(segmentation_to_mask(segmentation, *SIZE), shown) >= 0.98
    assert isinstance(segmentation, dict) is any('as masks' in note for note in notes)


def test_a_photo_with_many_objects():
    """No mask is made before it is written: two hundred of 12 megapixels would take 2.4 GB."""
    one = dict(document([LEFT] * 200, rejected=[deleted('a dog')] * 200), width=4000, height=3000)
    assert [found.spans.area for found in read_corrected(one).objects] == [900] * 200


def written(folder, *documents):
    (folder / 'images').mkdir()
    for number, one in enumerate(documents):
        path = folder / 'images' / one['name']
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', SIZE[::-1], (number, 90, 90)).save(path)
    content, _ = corrected(*documents)
    (folder / CORRECTIONS_FILE).write_text(json.dumps(content), encoding='utf-8')
    return folder


def asked(out, split='train'):
    """Pictures -> expression -> how many objects it means."""
    content = json.loads((out / f'annotations/{split}.json').read_text())
    found = {image['id']: dict.fromkeys(image.get('absent_phrases', ()), 0)
             for image in content['images']}
    for one in content['annotations']:
        for text in one['phrase']:
            found[one['image_id']][text] = found[one['image_id']].get(text, 0) + 1
    names = {image['id']: image['file_name'] for image in content['images']}
    return {names[key].rpartition('/')[2]: value for key, value in found.items()}


DOCUMENTS = [
    document([LEFT, item('cup', RIGHT, edited=True)], rejected=[deleted('a dog')], name='a.png'),
    document([item('cup', ask='cup', moved=1), item('mug', RIGHT, 'mug')], False, name='d/b.png'),
    document([item('object', ask=dict(point=[20, 20]))], rejected=[deleted('a dog')],
             name='c.png')]


@pytest.mark.parametrize('ask, prompts, expected, objects', [
    ('auto', False, {'a.png': {'the left cup': 1, 'cup': 2, 'a dog': 0}, 'b.png': {'cup': 1}}, 3),
    ('auto', True, {'a.png': {'the left cup': 1, 'cup': 2, 'a dog': 0}, 'b.png': {'cup': 1},
                    'c.png': {}}, 4),
    ('category', False, {'a.png': {'cup': 2}}, 2),
    ('both', False, {'a.png': {'the left cup': 1, 'cup': 2, 'a dog': 0}}, 2),
])
def test_own_data_takes_it_as_it_is(tmp_path, ask, prompts, expected, objects):
    other = tmp_path / 'val'
    other.mkdir()
    account = Account()
    sets = [read_own(written(folder, *documents), Reading(), account) for folder, documents in (
        (tmp_path, DOCUMENTS), (other, [document([item('cup', (1, 1), 'cup')], name='v.png')]))]
    Image.new('RGB', SIZE[::-1], (200, 0, 0)).save(other / 'images/v.png')
    converted = convert(tmp_path / 'out', sets, Choices(ask=ask, prompts=prompts), account)
    assert asked(tmp_path / 'out') == expected
    assert converted.report['train']['objects'] == objects


# --- the report --------------------------------------------------------------------------------
COUNTED = [
    document([LEFT, item('cup', RIGHT, 'right', moved=3), item('mug', (60, 60), edited=True)],
             rejected=[deleted('a dog')]),
    document([item('cup', ask=dict(point=[20, 20]), moved=1), item('cup', RIGHT, 'cup')], False,
             name='b.png')]


def test_figures_by_hand():
    content, _ = corrected(*COUNTED)
    content['annotations'].append(dict(id=99, image_id=1, category_id=1))
    figures = correction_figures(content)
    same, moved = 26 / 34, 26 / 34  # the model's square lies four pixels to the right
    assert (figures['pictures'], figures['done'], figures['others']) == (2, 1, 1)
    every = figures['all']
    assert (every['objects'], every['answers']) == (4, 3)  # the second picture is not done
    assert [every[fate] for fate in ('unchanged', 'corrected', 'deleted')] == [1 / 3] * 3
    assert every['iou'] == pytest.approx((same + moved) / 2, abs=1e-4)
    assert (every['actions'], every['moved'], every['drawn']) == (1.0, 1.0, 0.0)
    assert {name: (row['objects'], row['answers']) for name, row in
            figures['by_question'].items()} == {'text': (2, 3), 'point': (1, 0),
                                                'drawn by hand': (1, 0)}
    assert figures['by_category']['a dog']['deleted'] == 1.0
    assert figures['by_category']['a dog']['actions'] is None
    assert figures['by_category']['cup']['moved'] == pytest.approx(4 / 3)


@pytest.mark.parametrize('content, message', [
    ([], 'no COCO file'), (dict(images=[], annotations=[3], categories=[]), 'no COCO file'),
    (dict(images=[], annotations=[], categories=[]), 'holds no corrections'),
    (dict(images=[], annotations=[dict(id=1)], categories=[]), 'holds no corrections'),
    (dict(images=[], annotations=[dict(id=1, correction=dict(actions=3))], categories=[]),
     'annotation 1: its `correction`'),
    (dict(images=[], annotations=[dict(id=1, correction=7)], categories=[]),
     'annotation 1: its `correction`'),
])
def test_no_corrections(tmp_path, capsys, content, message):
    (tmp_path / CORRECTIONS_FILE).write_text(json.dumps(content))
    assert cli.main(['report', str(tmp_path), '--out', str(tmp_path / 'r.html')]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'r.html').exists()


@pytest.mark.parametrize('words, message', [
    (['config.py'], 'needs answers'), (['nowhere'], 'no corrections nowhere'),
    (['nowhere', '--runs', 'a'], 'go with a config')])
def test_report_says_what_is_missing(capsys, words, message):
    assert cli.main(['report', *words]) == 2
    assert message in capsys.readouterr().err


def test_the_report_shows_the_worst_first(tmp_path):
    far = item('<b>cup', (10, 10), 'far', moved=2)
    far['origin']['polygons'] = [square(100, 80)]
    folder = written(tmp_path, document([LEFT, far, item('cup', RIGHT, 'right', moved=1)]),
                     document([item('cup', moved=1, ask='gone')], name='gone.png'))
    (folder / 'images/gone.png').unlink()
    assert cli.main(['report', str(folder), '--out', str(folder / 'r.html')]) == 0
    page, text = (folder / 'r.html').read_text(), (folder / 'r.md').read_text()
    assert page.index('IoU before 0.00') < page.index('IoU before 0.76')
    assert page.count('<figure>') == 2  # what was not changed, and what is missing, is not shown
    assert '<b>' not in page and '&lt;b&gt;cup' in page
    assert '| all | 4 | 25 % | 75 % | 0 % |' in text
    assert 'http' not in page.replace('http-equiv', '')
