"""RefShapes with like objects: every phrase names exactly its one to six objects, or none."""
import json
import re
from collections import Counter

import numpy as np
import pytest
from test_refshapes_several import COLOUR, SHAPE, SIZE, named

from simpleseg_mm.datasets import refshapes, shape_groups

OPTIONS = dict(like=1.0, absent=1.0, objects_range=(1, 6))


@pytest.fixture(scope='module')
def scenes() -> list[dict]:
    return [refshapes.make_scene(5, 'train', i, **OPTIONS) for i in range(250)]


def test_phrases_name_exactly_their_objects(scenes):
    counts = Counter()
    for scene in scenes:
        objects = len(scene['annotations'])
        assert 1 <= objects <= 6
        groups = [tuple(ref['ann_id']) for ref in scene['refs']]
        assert len(groups) == len(set(groups)) and groups.count((-1,)) == 1
        assert max(Counter(map(len, (g for g in groups if g != (-1,)))).values()) <= 2
        for ref in scene['refs']:
            assert len({sentence['sent'] for sentence in ref['sentences']}) == 3
            for sentence in ref['sentences']:
                found, plural = named(sentence['sent'], scene['annotations'])
                assert found == set(ref['ann_id']) - {-1}, (scene['image'], sentence['sent'])
                assert plural, sentence['sent']  # of one object too
            counts[len(set(ref['ann_id']) - {-1})] += 1
    assert set(counts) == set(range(7))
    assert min(counts[n] for n in range(1, 6)) > 40 and counts[6] > 15


def test_no_wording_tells_the_count(scenes):
    """With colours, shapes and sizes taken out, no frequent form is of one count alone."""
    counts = {}
    for scene in scenes:
        for ref in scene['refs']:
            for sentence in ref['sentences']:
                form = re.sub('|'.join(SIZE), 'Z', sentence['sent'].replace('crosses', 'Ss'))
                form = re.sub(SHAPE, 'S', re.sub(COLOUR, 'C', form))
                form = re.sub('one|object|thing|shape', 'N', re.sub(r'^(the|all) ', '', form))
                number = len(set(ref['ann_id']) - {-1})
                counts.setdefault(form, Counter())[min(number, 2)] += 1
    assert set(counts) == {'C Ss', 'Ss', 'C Ns', 'Ns', 'Z Ss', 'Z Ns', 'Z C Ns'}
    for form, found in counts.items():
        if form != 'Ns':  # 'all things' is of a scene
            assert max(found.values()) < 0.75 * found.total(), (form, found)
            assert all(found[n] for n in range(3)), (form, found)


def test_like_objects_share_words_with_others(scenes):
    """To tell the asked from the others takes reading: both words of a phrase, often."""
    shared = Counter()
    for scene in scenes:
        kinds = {(ann['colour'], ann['category_id']) for ann in scene['annotations']}
        one_word = any(a != b and (a[0] == b[0] or a[1] == b[1]) for a in kinds for b in kinds)
        shared[len(kinds) > 1, one_word] += 1
    assert shared[True, True] > 2 * shared[True, False]


def test_a_group_of_two_kinds_is_not_asked_for():
    """Only what words tell apart; and a scene of one kind has one group by each word."""
    _, objects = refshapes.draw_scene(np.random.default_rng(1), objects_range=(1, 1))
    rng = np.random.default_rng(0)
    assert [group for group, _ in shape_groups.describe_like(objects, rng)] == [(0,)]
    assert [group for group, _ in shape_groups.describe_like(objects * 3, rng)] == [(0, 1, 2)]
    sentences = shape_groups.describe_absent_like(objects, rng)
    assert len(set(sentences)) == 3 and all(re.search('s$', one) for one in sentences)


def test_the_share_of_scenes():
    def texts(index, like):
        scene = refshapes.make_scene(5, 'val', index, objects_range=(1, 6), like=like)
        return [(ref['ann_id'], ref['sentences']) for ref in scene['refs']]
    alike = sum(texts(index, 0.4) == texts(index, 1.0) for index in range(100))
    assert abs(alike - 40) <= 4 * (100 * 0.4 * 0.6) ** 0.5


def test_without_the_option_scenes_are_as_before():
    """Sentences that were drawn before the option was there: random draws are the same."""
    def drawn(index, **options):
        scene = refshapes.make_scene(11, 'train', index, **options)
        return [sentence['sent'] for ref in scene['refs'] for sentence in ref['sentences']]
    assert drawn(0)[:4] == PLAIN
    assert drawn(1, several=1.0, absent=1.0)[-6:] == SEVERAL
    assert drawn(2, objects_range=(1, 6))[-3:] == SIX


PLAIN = ['the right frame', 'the rightmost frame', 'bottom right thing', 'orange ring']
SEVERAL = ['the small pink frame and the blue star',
           'the little pink frame and the small blue thing', 'pink one and small blue star',
           'the green object', 'little blue triangle', 'all black ones']
SIX = ['the little black cross', 'the small black cross', 'the little black one']


def test_the_card_counts_the_objects_of_references(tmp_path):
    card = refshapes.generate(tmp_path / 'a', dict(train=12, test=4), 3, workers=1, **OPTIONS)
    again = refshapes.generate(tmp_path / 'b', dict(train=12, test=4), 3, workers=2, **OPTIONS)
    assert card == again
    refs = json.loads((tmp_path / 'a/refshapes/grefs(refshapes).json').read_text())
    assert (tmp_path / 'a/refshapes/grefs(refshapes).json').read_bytes() == (
        tmp_path / 'b/refshapes/grefs(refshapes).json').read_bytes()
    for split in ('train', 'test'):
        numbers = Counter(len(set(ref['ann_id']) - {-1}) for ref in refs if ref['split'] == split)
        assert card['objects_a_reference'][split] == dict(sorted(numbers.items()))
        assert card['targets'][split] == dict(
            single=numbers[1], several=sum(numbers[n] for n in range(2, 7)), absent=numbers[0])
    assert card['like'] == 1.0


@pytest.mark.parametrize('like', [-0.1, 1.5, float('nan')])
def test_bad_share(tmp_path, like):
    with pytest.raises(ValueError, match=r'like must be in 0..1, got'):
        refshapes.generate(tmp_path, dict(train=1), like=like)
    assert not list(tmp_path.iterdir())
