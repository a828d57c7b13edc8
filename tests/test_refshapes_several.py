"""RefShapes with several and absent targets: every phrase names exactly its objects, or none."""
import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from simpleseg_mm.datasets import RefShapesDataset, refshapes, shape_groups
from simpleseg_mm.datasets.shape_phrases import SHAPES
from simpleseg_mm.scenes import COLOURS

SHARES = dict(absent=1.0, several=1.0)
COLOUR = '|'.join(COLOURS)
SHAPE = '|'.join(SHAPES)
SIZE = dict(small='small', little='small', large='large', big='large')
NOUN = (rf'(?:(?P<size>{"|".join(SIZE)}) )?(?:(?P<colour>{COLOUR}) )?'
        rf'(?P<noun>{SHAPE}|one|object|thing|shape)(?P<plural>e?s)?'
        r'(?: (?:on|at) the (?P<side>left|right|top|bottom))?')


def named(sentence: str, annotations: list[dict]) -> tuple[set[int], bool]:
    """Ids of what a sentence names, and whether it speaks of several; an independent reading."""
    if ' and ' in sentence:
        parts = [named(part, annotations) for part in sentence.split(' and ')]
        assert not any(plural for _, plural in parts)
        assert all(len(found) < 2 for found, _ in parts), sentence
        return set.union(*(found for found, _ in parts)), True
    match = re.fullmatch(NOUN, re.sub('^(all|the) ', '', sentence))
    assert match, f'no reading of {sentence!r}'
    words = match.groupdict()
    found = set()
    for ann in annotations:
        x, y, w, h = ann['bbox']
        right, down = x + w / 2 - 112, y + h / 2 - 112
        sides = dict(left=-right, right=right, top=-down, bottom=down)
        if (words['noun'] in (SHAPES[ann['category_id'] - 1], 'one', 'object', 'thing', 'shape')
                and words['colour'] in (None, ann['colour'])
                and SIZE.get(words['size']) in (None, ann['size'])
                and (words['side'] is None or sides[words['side']] > 0)):
            found.add(ann['id'])
    return found, words['plural'] is not None


@pytest.fixture(scope='module')
def scenes() -> list[dict]:
    return [refshapes.make_scene(5, 'train', i, **SHARES) for i in range(250)]


def extra_refs(scene: dict) -> list[dict]:
    return [ref for ref in scene['refs'] if ref['ann_id'] == [-1] or len(ref['ann_id']) > 1]


def test_phrases_name_exactly_their_objects_and_absent_ones_none(scenes):
    forms = Counter()
    for scene in scenes:
        for ref in extra_refs(scene):
            assert len({sentence['sent'] for sentence in ref['sentences']}) == 3
            for sentence in ref['sentences']:
                found, several = named(sentence['sent'], scene['annotations'])
                assert found == set(ref['ann_id']) - {-1}, (scene['image'], sentence['sent'])
                assert several or not found
                forms[ref['ann_id'] == [-1], several, 'and' in sentence['sent']] += 1
    assert set(forms) == {(False, True, False), (False, True, True), (True, False, False),
                          (True, True, False), (True, True, True)}


def test_wording_does_not_tell_what_is_absent(scenes):
    """Without the words for colours, shapes and sizes, no phrase says more than 'present'."""
    counts = {True: Counter(), False: Counter()}
    for scene in scenes:
        for ref in scene['refs']:
            for sentence in ref['sentences']:
                form = re.sub(f'{"|".join(SIZE)}', 'Z', sentence['sent'].replace('crosses', 'Ss'))
                form = re.sub(SHAPE, 'S', re.sub(COLOUR, 'C', form))
                form = re.sub('one|object|thing|shape', 'N', re.sub(r'\b(the|all) ', '', form))
                counts[ref['ann_id'] == [-1]][form if ' and ' not in form else 'and'] += 1
    frequent = {form for form, count in counts[True].items() if count > 20}
    assert {'C S', 'S', 'C N', 'Ss', 'C Ns', 'and'} <= frequent
    for form in frequent:
        assert counts[True][form] / (counts[True] + counts[False])[form] < 0.55, form


def test_absent_words_are_those_of_the_scene_where_that_can_be():
    draw = np.random.default_rng(0)
    red, blue = (refshapes.draw_scene(draw, objects_range=(1, 1))[1][0] for _ in range(2))
    red = dataclasses.replace(red, colour='red', shape='circle', size='large')
    blue = dataclasses.replace(blue, colour='blue', shape='star', size='large')
    found = set()
    for _ in range(100):
        for sentence in shape_groups.describe_absent([red, blue], draw):
            words = set(re.findall(f'{COLOUR}|{SHAPE}', sentence))
            if len(words) == 2 and 'small' not in sentence and 'little' not in sentence:
                found.add(frozenset(words))
    assert found == {frozenset(pair) for pair in (('red', 'star'), ('blue', 'circle'))}


@pytest.mark.parametrize('several, absent', [(0.0, 0.5), (0.5, 0.0), (0.3, 0.6)])
def test_shares_of_scenes_and_plain_references_unchanged(several, absent):
    counts = Counter()
    for index in range(150):
        plain = refshapes.make_scene(5, 'val', index)
        scene = refshapes.make_scene(5, 'val', index, several=several, absent=absent)
        assert np.array_equal(scene['pixels'], plain['pixels'])
        assert scene['annotations'] == plain['annotations']
        assert [ref['ann_id'] for ref in scene['refs'][:len(plain['refs'])]] == [
            [ref['ann_id']] for ref in plain['refs']]
        counts.update('absent' if ref['ann_id'] == [-1] else 'several'
                      for ref in scene['refs'][len(plain['refs']):])
    for name, share in (('several', several), ('absent', absent)):
        spread = 4 * (150 * share * (1 - share)) ** 0.5
        assert abs(counts[name] - 150 * share) <= spread


def test_a_scene_whose_objects_cannot_be_told_apart_has_no_group():
    _, objects = refshapes.draw_scene(np.random.default_rng(0), objects_range=(1, 1))
    assert shape_groups.describe_group(objects, np.random.default_rng(0)) is None
    _, objects = refshapes.draw_scene(np.random.default_rng(0), objects_range=(2, 2))
    assert shape_groups.describe_group([objects[0]] * 2, np.random.default_rng(0), 99) is None


@pytest.mark.parametrize('change, message', [
    (dict(several=-0.1), 'several must be in 0..1, got -0.1'),
    (dict(several=1.5), 'several must be in 0..1'),
])
def test_bad_shares(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        refshapes.generate(tmp_path, dict(train=1), **change)
    assert not list(tmp_path.iterdir())


def test_files_are_grefcoco_s_reproducible_and_replace_the_plain_ones(tmp_path):
    scenes = dict(train=12, test=4)
    refshapes.generate(tmp_path / 'a', scenes, 3)
    card = refshapes.generate(tmp_path / 'a', scenes, 3, **SHARES)
    refshapes.generate(tmp_path / 'b', scenes, 3, workers=2, **SHARES)
    files = [{str(path.relative_to(root)): path.read_bytes() for path in root.rglob('*.*')}
             for root in (tmp_path / 'a', tmp_path / 'b')]
    assert files[0] == files[1]
    folder = tmp_path / 'a' / 'refshapes'
    assert {path.name for path in folder.iterdir()} == {
        'grefs(refshapes).json', 'instances.json', 'card.json'}
    refs = json.loads((folder / 'grefs(refshapes).json').read_text())
    for ref in refs:
        assert isinstance(ref['ann_id'], list) and len(ref['ann_id']) == len(ref['category_id'])
        assert ref['sent_ids'] == [sentence['sent_id'] for sentence in ref['sentences']]
    assert card['targets']['test']['several'] == card['targets']['test']['absent'] == 4
    assert sum(card['targets']['train'].values()) == card['counts']['train']['refs']

    dataset = RefShapesDataset(str(tmp_path / 'a'), 'test', test_mode=True)
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert len(samples) == card['counts']['test']['sentences']
    for sample in samples:
        assert (sample.answer == '[]') == (sample.ann_id == [-1])
        assert sample.answer == '[]' or sample.answer.count('[[') >= 1
        assert len(sample.instances) == len(set(sample.ann_id) - {-1})

    refshapes.generate(tmp_path / 'a', scenes, 3)
    assert (folder / 'refs(refshapes).p').exists()
    assert not (folder / 'grefs(refshapes).json').exists()
