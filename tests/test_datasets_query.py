"""FormatQuery: every task family says the truth about the target, reproducibly."""
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from simpleseg_mm import templates
from simpleseg_mm.datasets import FormatQuery, JoinedDataset, RefShapesDataset
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.polygon import (MANY, TASKS, Grammar, PolygonCodec, box_iou, mask_iou,
                                  mask_to_box, mask_to_extreme, parse_answer)
from simpleseg_mm.registry import TRANSFORMS

#: of sets whose samples are about some objects of a picture
OF_OBJECTS = [name for name, task in TASKS.items() if not task.named]
ALL_TASKS = {task: 1.0 for task in OF_OBJECTS}
CODEC = dict(grammar='int1000', tokens=150)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp('refshapes')
    generate(out, dict(train=30, val=4), seed=2)
    return str(out)


def build(root: str, tasks: dict, test_mode: bool = False, **query) -> RefShapesDataset:
    return RefShapesDataset(root, query=dict(tasks=tasks, codec=CODEC) | query,
                            test_mode=test_mode)


@pytest.mark.parametrize('kwargs, message', [
    (dict(tasks=dict(text2text=1)), r"unknown tasks \['text2text'\]; choose from \('text2point'"),
    (dict(tasks='text2box'), 'must map names to weights'),
    (dict(tasks=dict()), 'task weights'), (dict(tasks=dict(text2box=0)), 'task weights'),
    (dict(tasks=dict(text2box=-1, text2mask=2)), 'task weights'),
    (dict(tasks=dict(text2box=float('nan'))), 'task weights'),
    (dict(templates='many'), "unknown templates 'many'; choose from"),
    (dict(turns=0), 'turns must be at least 1'),
    (dict(codec=dict(grammar='roman')), 'grammar'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FormatQuery(**kwargs)


def test_families_with_templates():
    assert len(TASKS) == 20 == len(set(TASKS))  # 4 ask for extremes, 3 for all instances, 1 names
    assert set(templates.SUBJECTS) == {task.given for task in TASKS.values()}
    assert set(templates.QUESTIONS) == {task.wanted for task in TASKS.values()}
    assert TRANSFORMS.get('FormatQuery') is FormatQuery
    for question in sum(templates.QUESTIONS.values(), ()):
        assert question.count('{subject}') == 1
    for kind, subjects in templates.SUBJECTS.items():
        assert all(subject.count('{given}') == (kind != 'image') for subject in subjects), kind
    for name, (_, answers) in templates.TEMPLATE_SETS.items():
        assert all(a.count('{answer}') == 1 for a in templates.ANSWERS[answers]), name
        assert templates.ANSWERS[answers][0] == '{answer}'


def test_the_prompts_that_the_paper_quotes():
    texts = {task: {question.replace('{subject}', subject.replace('{given}', given))
                    for subject in templates.SUBJECTS[task.split('2')[0]]
                    for question in templates.QUESTIONS[task.split('2')[1]]}
             for task, given in (('text2mask', 'the cat'), ('point2mask', '[0.621, 0.592]'),
                                 ('box2mask', '[0.372, 0.162, 0.784, 0.605]'))}
    assert 'Output the polygon coordinates of the cat in the image.' in texts['text2mask']
    assert 'What is the polygon of the cat in the image?' in texts['text2mask']
    assert 'Show me the contour of the object at point [0.621, 0.592].' in texts['point2mask']
    assert ('Give the polygon vertices of the stuff within the box region '
            '[0.372, 0.162, 0.784, 0.605].') in texts['box2mask']


def part(text: str, before: str) -> str:
    """The coordinates in a text."""
    assert text.startswith(before)
    return text[text.index('['):text.rindex(']') + 1]


def check(kind: str, text: str, data, strict: bool = True) -> None:
    """Whether a description is true of the sample's target."""
    mask, (h, w) = data.gt_masks.masks[0] > 0, data.ori_shape
    if kind == 'text':
        assert data.text in text
        return
    if kind in MANY:
        found = parse_answer(text, 'int1000', kind)
        assert found.valid and len(found.instances) == 1  # of one object
        kind, text = MANY[kind], text[slice(*found.instances[0].span)]
    parsed = parse_answer(text, grammar='int1000')
    assert parsed.valid or not strict
    if kind in ('point', 'extreme'):
        x, y = parsed.point * (w, h)
        assert mask[max(0, int(y) - 1):int(y) + 2, max(0, int(x) - 1):int(x) + 2].any()
    elif kind == 'box':
        assert box_iou(parsed.box * (w, h, w, h), mask_to_box(mask)) > 0.95
    else:
        assert mask_iou(PolygonCodec(**CODEC).decode(text, (h, w)).mask, mask) > 0.85


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('task', OF_OBJECTS)
def test_prompt_and_answer_are_true(root, task, test_mode):
    dataset = build(root, {task: 1.0}, test_mode)
    given, wanted = task.split('2')
    for index in range(0, len(dataset), len(dataset) // 12):
        data = dataset[index]['data_samples']
        assert data.task == task
        prompt = data.prompt
        check(given, prompt if given == 'text' else prompt[prompt.index('['):
                                                           prompt.rindex(']') + 1], data)
        check(wanted, data.answer, data)
        assert (wanted == 'text') == (data.answer == data.text)


def test_extreme_points_are_those_of_the_named_direction(root):
    dataset = build(root, dict(text2extreme=1), turns=8)
    seen = set()
    for index in range(0, 3 * len(dataset), 5):
        data = dataset[index]['data_samples']
        prompt, answer = data.turns[0]
        direction, = [name for name in templates.DIRECTIONS
                      if prompt.endswith((f'towards the {name} in the image.',
                                          f'farthest to the {name}?'))]
        seen.add(direction)
        point = mask_to_extreme(data.gt_masks.masks[0] > 0, templates.DIRECTIONS[direction])
        assert answer == '[{:.0f},{:.0f}]'.format(*(point * 1000 / 224))
        assert len(data.turns) > 3  # one object is asked about several times
    assert seen == set(templates.DIRECTIONS)


def test_hand_computed_answer(root):
    """A 0..1000 grid on 224 pixels: 1000 / 224 steps a pixel, boxes by pixel edges."""
    data = build(root, dict(text2box=1), True)[0]['data_samples']
    x1, y1, x2, y2 = mask_to_box(data.gt_masks.masks[0])
    assert data.answer == '[{:.0f},{:.0f},{:.0f},{:.0f}]'.format(
        *(v * 1000 / 224 for v in (x1, y1, x2, y2)))
    assert data.prompt == f'Output the bounding box of {data.text} in the image.'


def test_weights_and_visits(root):
    dataset = build(root, dict(text2box=3, text2point=1, box2point=0))
    drawn = Counter(dataset[i]['data_samples'].task for i in range(4 * len(dataset)))
    assert set(drawn) == {'text2box', 'text2point'}
    assert 0.68 < drawn['text2box'] / drawn.total() < 0.82
    visits = [dataset[visit * len(dataset) + 5]['data_samples'] for visit in range(60)]
    assert {data.img_id for data in visits} == {5}
    assert len({data.prompt for data in visits}) == 8  # four questions of each of two tasks
    assert dataset[5]['data_samples'].prompt == visits[0].prompt


@pytest.mark.parametrize('joined', [False, True])
def test_iteration_is_one_visit(root, joined):
    """It ends, again and again; an index beyond it is a later visit."""
    dataset = build(root, ALL_TASKS)
    if joined:  # of the second set every sample but two
        dataset = JoinedDataset([dict(
            type='RefShapesDataset', data_root=root, indices=indices,
            query=dict(tasks=ALL_TASKS, codec=CODEC)) for indices in (3, 5)], [2, 1])
    for _ in range(2):
        samples = list(islice(dataset, len(dataset) + 1))  # would not end otherwise
        assert len(samples) == len(dataset)
        for i, sample in enumerate(samples):
            assert sample['data_samples'].turns == dataset[i]['data_samples'].turns
    later = [dataset[i + len(dataset)]['data_samples'] for i in range(len(dataset))]
    assert [sample.turns for sample in later] != [s['data_samples'].turns for s in samples]
    if not joined:
        assert [s.img_id for s in later] == [s['data_samples'].img_id for s in samples]


def test_given_points_are_random_in_training_and_fixed_in_evaluation(root):
    def points(test_mode: bool) -> set[str]:
        dataset = build(root, dict(point2box=1), test_mode)
        return {part(dataset[visit * len(dataset)]['data_samples'].prompt, '')
                for visit in range(20)}
    assert len(points(False)) > 10 and len(points(True)) == 1


def test_evaluation_takes_the_first_template(root):
    dataset = build(root, dict(text2mask=1), True)
    for index in range(20):
        data = dataset[index]['data_samples']
        assert data.prompt == f'Output the polygon coordinates of {data.text} in the image.'
    single = build(root, dict(text2mask=1), templates='single')
    assert all(single[i]['data_samples'].prompt.startswith('Output the polygon')
               for i in range(20))


def test_answers_in_a_sentence(root):
    dataset = build(root, dict(text2mask=1), templates='sentence')
    answers = [dataset[i]['data_samples'].answer for i in range(30)]
    assert {answer[:2] for answer in answers} == {'[[', 'Su', 'It'}
    for index, answer in enumerate(answers):
        check('mask', answer, dataset[index]['data_samples'])


def test_braces_in_a_sentence_are_text():
    info = dict(text='the {subject} {0} {given}', instances=[], height=9, width=9, ref_id=0,
                rng=np.random.default_rng(0), test_mode=True)
    result = FormatQuery().transform(info)
    assert result['prompt'] == ('Output the polygon coordinates of the {subject} {0} {given} in '
                                'the image.')


@pytest.mark.parametrize('task, fallback', [
    ('text2mask', 'text2mask'), ('text2box', 'text2box'), ('point2box', 'text2box'),
    ('box2mask', 'text2mask'), ('mask2text', 'text2mask')])
def test_absent_targets_are_asked_by_text_and_answered_empty(task, fallback):
    info = dict(text='the blue ring', instances=[], height=9, width=9, ref_id=0,
                rng=np.random.default_rng(0), test_mode=False)
    result = FormatQuery(tasks={task: 1}).transform(info)
    assert (result['task'], result['answer']) == (fallback, '[]')
    assert 'the blue ring' in result['prompt']


def test_turns_ask_about_the_same_image_without_repeating(root):
    tasks = dict(text2point=1.0, text2box=1.0, box2mask=1.0)
    dataset = build(root, tasks, turns=4)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    lengths = Counter()
    for index in range(0, len(dataset), 5):
        data = dataset[index]['data_samples']
        assert data.turns[0] == (data.prompt, data.answer)
        assert len(set(data.turns)) == len(data.turns) <= 4
        lengths[len(data.turns)] += 1
        family = [info for info in infos if info['image_id'] == data.image_id]
        refs = []
        for prompt, answer in data.turns:
            if '[' in prompt:
                box = parse_answer(part(prompt, ''), grammar='int1000').box
                found = {info['ref_id'] for info in family if box_iou(
                    box * 224, np.array(info['instances'][0]['bbox'])) > 0.95}
            else:
                found = {info['ref_id'] for info in family if f'{info["text"]} ' in f'{prompt} '
                         .replace('.', ' ').replace('?', ' ')}
            assert found, prompt
            refs.append(found)
        known = len({info['ref_id'] for info in family})
        assert len(set.union(*refs)) >= min(known, len(data.turns))
    assert lengths[4] > lengths.total() / 2
    assert dataset[7]['data_samples'].turns == dataset[7]['data_samples'].turns
    assert len(build(root, tasks, True, turns=4)[0]['data_samples'].turns) == 1


def test_siblings_are_decoded_only_where_their_task_needs_a_mask(root, monkeypatch):
    decoded = []
    import simpleseg_mm.datasets.transforms as module
    original = module.target_mask
    monkeypatch.setattr(module, 'target_mask',
                        lambda info: decoded.append(info['img_id']) or original(info))
    dataset = build(root, dict(text2box=1), turns=4)
    for index in range(10):
        assert len(dataset[index]['data_samples'].turns) >= 2
    assert decoded == list(range(10))


def test_a_mask_is_encoded_once_and_by_its_content(root, monkeypatch):
    dataset = build(root, dict(text2mask=1))
    encoded = []
    original = PolygonCodec.encode
    monkeypatch.setattr(PolygonCodec, 'encode',
                        lambda self, mask: encoded.append(mask.copy()) or original(self, mask))
    data = [dataset[index]['data_samples'] for index in [*range(12)] * 2]
    assert len(encoded) == len({sample.ref_id for sample in data}) >= 3
    for sample in data:
        assert sample.answer == original(PolygonCodec(**CODEC), sample.gt_masks.masks[0] > 0)


def test_grammar_is_the_codecs(root):
    for grammar in ('decimal3', 'int100'):
        dataset = build(root, dict(text2box=1), codec=dict(grammar=grammar))
        data = dataset[0]['data_samples']
        box = np.array(data.instances[0]['bbox'])
        assert data.answer == Grammar.from_name(grammar).format_box(box, (224, 224))
        assert data.codec == PolygonCodec(grammar=grammar).spec
