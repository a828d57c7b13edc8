"""Files of questions, the questions about RefShapes, and sets side by side."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from simpleseg_mm.datasets import (FormatQuestion, JoinedDataset, QuestionAnsweringDataset,
                                   RefShapesDataset, collate_queries)
from simpleseg_mm.datasets.refshapes import COLOURS, SHAPES, generate
from simpleseg_mm.datasets.shape_questions import QUESTION_KINDS, write_questions
from simpleseg_mm.registry import DATA_SAMPLERS

CONFIGS = Path(__file__).resolve().parent.parent / 'configs/simpleseg'
ROW = dict(image='a.png', question='What is it?', kind='naming', answers=['a cat'])
BOX = dict(image='a.png', question='Where is it?', kind='grounding', box=[8, 10, 32, 30])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp('refshapes')
    generate(out, dict(train=12, val=0, test=60), seed=3)
    rows = write_questions(out, 'test', ('colour', 'count', 'position', 'grounding'), each=2)
    rows += write_questions(out, 'test', ('naming_box', 'naming_point'), limit=20)
    (out / 'questions_test.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    return out


def file_of(folder, *rows):
    Image.new('RGB', (80, 40)).save(folder / 'a.png')
    (folder / 'q.jsonl').write_text('\n'.join(
        row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(folder)


def build(folder, *rows, **kwargs):
    return QuestionAnsweringDataset(file_of(folder, *rows), 'q.jsonl', **kwargs)


def but(row, **changes):
    return {key: value for key, value in (row | changes).items() if value is not None}


@pytest.mark.parametrize('row, message', [
    ('{"image": "a.png"', r'q\.jsonl, line 2: not JSON'),
    ('["a.png", "What?"]', 'line 2: a question is a JSON object'),
    (but(ROW, image=None), "line 2: 'image' must be a text"),
    ('3\n{', r"line 2: a question is a JSON object, got '3' .2 lines are wrong."),
    (but(ROW, question=' '), "line 2: 'question' must be a text"),
    (but(ROW, kind=3), "line 2: 'kind' must be a text"),
    (but(ROW, kind='overall'), "line 2: the kind 'overall' is not allowed"),
    (but(ROW, kind='a/b'), "line 2: the kind 'a/b' is not allowed"),
    (but(ROW, answers=None), "line 2: give 'answers', .*or 'box', and not both"),
    (but(ROW, box=[0, 0, 1, 1]), "and not both"),
    (but(ROW, answers=[]), "line 2: 'answers' must be a list of texts"),
    (but(ROW, answers='red'), "line 2: 'answers' must be a list of texts"),
    (but(ROW, answers=['red', 3]), "line 2: 'answers' must be a list of texts"),
    (but(BOX, box=[8, 10, 8, 30]), "line 2: 'box' must be"),
    (but(BOX, box=[8, 10, 32]), "line 2: 'box' must be"),
    (but(BOX, box=[8, 10, True, 30]), "line 2: 'box' must be"),
    (but(BOX, box=[8, 10, 81, 30]), "line 2: 'box' .* leaves the image of 80 x 40 pixels"),
    (but(ROW, region=[1, 2]), "line 2: 'region' and '{region}' in the question belong together"),
    (but(ROW, question='At {region}?'), "'region' and '{region}' .* belong together"),
    (but(ROW, question='At {region}?', region=[1, 2, 3]), "line 2: 'region' must be a box"),
    (but(ROW, question='At {region}?', region=[1, 41]), "line 2: 'region' .* leaves the image"),
])
def test_a_bad_line_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, ROW, row)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file of questions at .*docs/retention.md'):
        QuestionAnsweringDataset(str(tmp_path), 'q.jsonl')
    with pytest.raises(ValueError, match='has no questions'):
        build(tmp_path, ' ')
    with pytest.raises(FileNotFoundError, match=r'line 1: there is no image .*b\.png'):
        build(tmp_path, but(ROW, image='b.png'))
    (tmp_path / 'b.png').write_text('no picture')
    with pytest.raises(ValueError, match=r'line 1: cannot read .*b\.png'):
        build(tmp_path, but(ROW, image='b.png'))


@pytest.mark.parametrize('kwargs, message', [
    (dict(prompt='Answer!'), "prompt must hold '{question}' once"),
    (dict(turns=0), 'turns must be at least 1'), (dict(codec=dict(grammar='roman')), 'grammar')])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FormatQuestion(**kwargs)


def test_samples(tmp_path):
    named = but(ROW, question='What is at {region}?', region=[20, 30], answers=['a cat', 'cat'])
    rows = ['', json.dumps(ROW), named, but(named, region=[8, 10, 32, 30]), BOX]
    data = build(tmp_path, *rows, test_mode=True, query=dict(
        codec=dict(grammar='int100'), prompt='{question} In a word.'))
    batch = collate_queries([data[i] for i in range(len(data))])
    assert [tuple(image.shape) for image in batch['inputs']] == [(3, 40, 80)] * 4
    plain, point, box, grounding = batch['data_samples']
    assert [s.prompt for s in batch['data_samples']] == [
        'What is it? In a word.', 'What is at [25,75]? In a word.',
        'What is at [10,25,40,75]? In a word.', 'Where is it?']  # no word for a box
    assert plain.turns == [(plain.prompt, 'a cat')]
    assert point.answers == ['a cat', 'cat'] and point.kind == 'naming'
    assert [s.get('task') for s in batch['data_samples']] == ['question'] * 3 + ['text2box']
    for sample in (plain, point, box):
        assert 'codec' not in sample and not sample.gt_masks.masks.any()
    assert 'answers' not in grounding and grounding.codec == 'int100/default'
    assert grounding.answer == '[10,25,40,75]'
    mask, = grounding.gt_masks.masks
    assert mask.sum() == 24 * 20 and mask[10:30, 8:32].all()
    assert [s.img_id for s in batch['data_samples']] == [0, 1, 2, 3]
    assert data.counts() == dict(grounding=1, naming=3, overall=3)


def test_turns_ask_about_one_picture_in_training_only(root):
    data = QuestionAnsweringDataset(str(root), 'questions_test.jsonl', query=dict(turns=3))
    infos = [data.get_data_info(i) for i in range(len(data))]
    for i in range(0, len(data), 37):
        sample = data[i]['data_samples']
        of_picture = {info['question'].split('{region}')[0] for info in infos
                      if info['image_id'] == sample.image_id}
        assert len(sample.turns) == 3 and len(set(sample.turns)) == 3
        assert all(any(prompt.startswith(start) for start in of_picture)
                   for prompt, _ in sample.turns)
        assert data[i]['data_samples'].turns == sample.turns
    assert data[5 + len(data)]['data_samples'].turns != data[5]['data_samples'].turns
    fixed = QuestionAnsweringDataset(str(root), 'questions_test.jsonl', query=dict(turns=3),
                                     test_mode=True)
    assert len(fixed[0]['data_samples'].turns) == 1


# Questions about RefShapes, against the files of the set


def scenes(root):
    files = json.loads((root / 'refshapes/instances.json').read_text())
    names = {image['id']: f'images/{image["file_name"]}' for image in files['images']}
    found = {}
    for ann in files['annotations']:
        ys, xs = np.nonzero(coco_mask.decode(ann['segmentation']))
        found.setdefault(names[ann['image_id']], []).append(dict(
            ann, shape=SHAPES[ann['category_id'] - 1], pixels=set(zip(xs.tolist(), ys.tolist())),
            middle=((xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2)))
    return found


def meant(objects, name):
    """The one object that a name of attributes fits."""
    fits = [o for o in objects if name.endswith(o['shape']) and all(
        word in (o['colour'], o['size']) for word in name.removesuffix(o['shape']).split())]
    assert len(fits) == 1, name
    return fits[0]


def test_every_answer_is_true(root):
    found, asked = scenes(root), set()
    for line in (root / 'questions_test.jsonl').read_text().splitlines():
        row = json.loads(line)
        objects, text, kind = found[row['image']], row['question'], row['kind']
        asked.add(kind)
        if kind == 'colour':
            name = re.fullmatch(r'What colour is the (.*)\?', text)[1]
            assert not set(name.split()) & set(COLOURS)
            assert row['answers'] == [meant(objects, name)['colour']]
        elif kind == 'count':
            name = re.fullmatch(r'How many (.*) are there\?', text)[1]
            number = sum(name == 'objects' or name.split()[0] == o['colour']
                         or name in (f"{o['shape']}s", f"{o['shape']}es") for o in objects)
            assert row['answers'] == [str(number)]
        elif kind == 'position':
            first, relation, second = re.fullmatch(
                r'Is the (.*) (left of|right of|above|below) the (.*)\?', text).groups()
            a, b = meant(objects, first)['middle'], meant(objects, second)['middle']
            axis, sign = {'left of': (0, -1), 'right of': (0, 1), 'above': (1, -1),
                          'below': (1, 1)}[relation]
            ahead = (a[axis] - b[axis]) * sign
            assert abs(ahead) > 0.14 * 224
            assert row['answers'] == ['yes' if ahead > 0 else 'no']
        elif kind == 'grounding':
            x1, y1, x2, y2 = row['box']
            assert [x1, y1, x2 - x1, y2 - y1] in [o['bbox'] for o in objects]
        else:
            region = row['region']
            if kind == 'naming_point':
                item, = [o for o in objects if tuple(int(v) for v in region) in o['pixels']]
            else:
                item, = [o for o in objects if [
                    region[0], region[1], region[2] - region[0], region[3] - region[1]]
                    == o['bbox']]
            whole = f"{item['colour']} {item['shape']}"
            if sum((o['colour'], o['shape']) == (item['colour'], item['shape'])
                   for o in objects) == 1:
                assert whole in row['answers']
            rivals = {f"{o['colour']} {o['shape']}" for o in objects} - {whole}
            assert not rivals & set(row['answers']) and len(row['answers']) > 5
    assert asked == set(QUESTION_KINDS)


def test_questions_are_repeatable_and_varied(root):
    kinds = ('colour', 'count', 'position')
    once = write_questions(root, 'test', kinds, limit=40)
    assert once == write_questions(root, 'test', kinds, limit=40)
    assert once != write_questions(root, 'test', kinds, limit=40, seed=1)
    assert [row for row in once if row['kind'] == 'count'] == write_questions(
        root, 'test', ['count'], limit=40)
    answers = {kind: [row['answers'][0] for row in once if row['kind'] == kind]
               for kind in kinds}
    assert len(answers['colour']) == len(answers['count']) == len(answers['position']) == 40
    assert len(set(answers['colour'])) >= 6 and len(set(answers['count'])) >= 4
    assert 10 <= answers['position'].count('yes') <= 30
    for kwargs, message in [(dict(kinds=['mood']), r"unknown kinds \['mood'\]"),
                            (dict(each=0), 'each=0'), (dict(limit=0), 'limit=0'),
                            (dict(split='night'), 'night')]:
        with pytest.raises(ValueError, match=message):
            write_questions(root, **dict(dict(split='test'), **kwargs))


# Sets side by side


def test_joined_sets_keep_their_own_choices(root):
    def shapes():
        return RefShapesDataset(str(root), query=dict(tasks=dict(text2box=1)))

    questions = dict(type='QuestionAnsweringDataset', data_root=str(root),
                     questions='questions_test.jsonl', query=dict(turns=3))
    parts = [dict(type='RefShapesDataset', data_root=str(root),
                  query=dict(tasks=dict(text2box=1))), questions]
    first, second = shapes(), QuestionAnsweringDataset(
        **{key: value for key, value in questions.items() if key != 'type'})
    n, m = len(first), len(second)
    joined = JoinedDataset(parts)
    assert joined.counts == [n, m]
    same = [(3, first[3]), (n + 5, second[5]), (n + m + 3, first[n + 3]),
            (2 * n + m + 5, second[m + 5])]
    assert [joined[i]['data_samples'].turns for i, _ in same] == [
        sample['data_samples'].turns for _, sample in same]
    joined = JoinedDataset(parts, weights=[3, 1])
    assert len(joined) == pytest.approx(n + m, abs=1)
    few = joined.counts[1]
    assert few == round((n + m) / 4) < m
    drawn = [joined[visit * len(joined) + joined.counts[0] + k]['data_samples'].turns
             for visit in range(2) for k in range(few)]
    assert drawn == [second[k]['data_samples'].turns for k in range(2 * few)]
    sampler = DATA_SAMPLERS.build(dict(type='InfiniteVisitSampler', dataset=joined, seed=0))
    assert len({index for index, _ in zip(sampler, range(2 * len(joined)))}) == 2 * len(joined)


@pytest.mark.parametrize('weights', [[1], [1, 0], [-1, 1], [float('nan'), 1]])
def test_joined_sets_need_a_weight_each(weights):
    with pytest.raises(ValueError, match='weights must be 2 numbers above 0'):
        JoinedDataset([dict(type='RefShapesDataset')] * 2, weights)


def test_nanos_base_with_questions():
    """The config joins its parent's data and questions of one folder."""
    cfg = Config.fromfile(CONFIGS / 'nano_pretrain_refshapes-questions.py')
    parent = Config.fromfile(CONFIGS / 'nano_pretrain_refshapes.py')
    shapes, questions = cfg.train_dataloader.dataset.datasets
    assert shapes == parent.train_dataloader.dataset
    assert questions.data_root == shapes.data_root == cfg.data_root
