"""RefShapes: reproducible, in the native formats, and every sentence fits exactly one object."""
import json
import pickle
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from simpleseg_mm.datasets import refshapes

SEED = 3
SCENES = dict(train=60, val=20)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('refshapes')
    refshapes.generate(out, SCENES, SEED)
    return out


@pytest.fixture(scope='module')
def scenes() -> list[dict]:
    return [refshapes.make_scene(SEED, 'train', i) for i in range(150)]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.mark.parametrize('change, message', [
    (dict(scenes=dict(testA=1)), "unknown splits \\['testA'\\]"),
    (dict(scenes=dict(train=-1)), 'must not be negative'),
    (dict(size=8), 'size must be in 64'),
    (dict(absent=1.5), 'absent must be in 0..1'),
])
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        refshapes.generate(**dict(out_dir=tmp_path, scenes=dict(train=1)) | change)


def test_unknown_shape():
    with pytest.raises(ValueError, match='unknown shape'):
        refshapes.outlines('blob', np.random.default_rng(0))


@pytest.mark.parametrize('workers', [1, 2])
def test_same_seed_same_bytes_other_seed_other_bytes(root, tmp_path, workers):
    refshapes.generate(tmp_path / 'a', SCENES, SEED, workers=workers)
    assert files(tmp_path / 'a') == files(root)
    refshapes.generate(tmp_path / 'b', SCENES, SEED + 1)
    name = 'images/refshapes_train_0000000.jpg'
    assert files(tmp_path / 'b')[name] != files(root)[name]


def test_splits_and_scenes_differ(root):
    images = [path.read_bytes() for path in (root / 'images').iterdir()]
    assert len(set(images)) == len(images) == sum(SCENES.values())


def test_a_larger_set_contains_the_smaller(root, tmp_path):
    refshapes.generate(tmp_path, dict(train=5), SEED)
    for path in (tmp_path / 'images').iterdir():
        assert path.read_bytes() == (root / 'images' / path.name).read_bytes()


def test_files_agree_with_each_other(root):
    refs = pickle.loads((root / 'refshapes' / 'refs(refshapes).p').read_bytes())
    instances = json.loads((root / 'refshapes' / 'instances.json').read_text())
    card = json.loads((root / 'refshapes' / 'card.json').read_text())
    images = {image['id']: image for image in instances['images']}
    annotations = {ann['id']: ann for ann in instances['annotations']}
    assert len(images) == sum(SCENES.values()) and card['seed'] == SEED
    for split in SCENES:
        part = [ref for ref in refs if ref['split'] == split]
        assert card['counts'][split] == dict(images=SCENES[split], refs=len(part),
                                             sentences=3 * len(part))
    assert [ref['ref_id'] for ref in refs] == list(range(len(refs)))
    sent_ids = [s['sent_id'] for ref in refs for s in ref['sentences']]
    assert sent_ids == list(range(len(sent_ids)))
    for ref in refs:
        assert annotations[ref['ann_id']]['image_id'] == ref['image_id']
        assert len({s['sent'] for s in ref['sentences']}) == 3
        assert ref['sent_ids'] == [s['sent_id'] for s in ref['sentences']]
    for image in instances['images']:
        pixels = cv2.imread(str(root / 'images' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)


def test_masks_are_exact_and_objects_do_not_touch(scenes):
    topology = {'ring': (1, 1), 'frame': (1, 1), 'split disc': (2, 0)}
    seen = set()
    for scene in scenes:
        union = np.zeros((224, 224), np.uint8)
        for ann in scene['annotations']:
            mask = coco_mask.decode(ann['segmentation'])
            assert ann['area'] == mask.sum() > 0
            ys, xs = np.nonzero(mask)
            assert ann['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            low, high = (round(v * 224) for v in refshapes.SIZES[ann['size']])
            assert low - 2 <= max(ann['bbox'][2:]) <= high + 2
            contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            outers = int((tree[0, :, 3] < 0).sum())
            name = refshapes.SHAPES[ann['category_id'] - 1]
            assert (outers, len(contours) - outers) == topology.get(name, (1, 0)), name
            assert not (cv2.dilate(mask, np.ones((5, 5), np.uint8)) & union).any()
            union |= mask
            colour = scene['pixels'][mask.astype(bool)].mean(0)
            named = min(refshapes.COLOURS, key=lambda c: np.abs(
                colour - refshapes.COLOURS[c]).sum())
            assert named == ann['colour']
            seen.add((name, ann['colour']))
        assert 2 <= len(scene['annotations']) <= 4
    assert {shape for shape, _ in seen} == set(refshapes.SHAPES)
    assert {colour for _, colour in seen} == set(refshapes.COLOURS)


SHAPE = '|'.join(refshapes.SHAPES)
COLOUR = '|'.join(refshapes.COLOURS)
SIDE = 'left|right|top|bottom'
NOUN = rf'(?:(?P<colour>{COLOUR}) )?(?P<noun>{SHAPE}|one|object|thing|shape)'
READINGS = {  # an independent reading of the language
    'relation': rf'(?P<noun>{SHAPE}) (?P<how>left of|right of|above|below) '
                rf'the (?P<acolour>{COLOUR}) (?P<ashape>{SHAPE})',
    'superlative': rf'(?P<most>biggest|largest|smallest) {NOUN}',
    'corner': rf'(?P<a>top|bottom) (?P<b>left|right) {NOUN}',
    'extreme': rf'(?P<side>{SIDE})(?:most)? {NOUN}',
    'side': rf'{NOUN} (?:on|at) the (?P<side>{SIDE})',
    'attribute': rf'(?:(?P<size>small|little|large|big) )?{NOUN}',
}


def referents(sentence: str, anns: list[dict]) -> tuple[str, list[int]]:
    """Kind of the sentence, and ids of the annotations that it fits."""
    sentence = re.sub('^the ', '', sentence)
    for kind, pattern in READINGS.items():
        if match := re.fullmatch(pattern, sentence):
            break
    else:
        raise AssertionError(f'no reading of {sentence!r}')
    words = match.groupdict()

    def middle(ann):
        x, y, w, h = ann['bbox']
        return np.array([x + w / 2, y + h / 2])

    axis = dict(left=(0, -1), right=(0, 1), top=(1, -1), bottom=(1, 1))

    def side(ann, name):
        k, sign = axis[name]
        return sign * (middle(ann)[k] - 112)

    group = [ann for ann in anns
             if words['noun'] in (refshapes.SHAPES[ann['category_id'] - 1],
                                  'one', 'object', 'thing', 'shape')
             and words.get('colour') in (None, ann['colour'])]
    if kind == 'attribute':
        wanted = {'small': 'small', 'little': 'small', 'large': 'large', 'big': 'large'}
        group = [ann for ann in group if words['size'] is None
                 or wanted[words['size']] == ann['size']]
    elif kind == 'superlative':
        sign = -1 if words['most'] == 'smallest' else 1
        best = max(sign * ann['area'] for ann in group)
        group = [ann for ann in group if sign * ann['area'] > best - 0.05 * abs(best)]
    elif kind == 'extreme':
        best = max(side(ann, words['side']) for ann in group)
        group = [ann for ann in group if side(ann, words['side']) > best - 8]
    elif kind == 'side':
        group = [ann for ann in group if side(ann, words['side']) > 0]
    elif kind == 'corner':
        group = [ann for ann in group if side(ann, words['a']) > 0 and side(ann, words['b']) > 0]
    elif kind == 'relation':
        anchors = [ann for ann in anns if (ann['colour'], refshapes.SHAPES[
            ann['category_id'] - 1]) == (words['acolour'], words['ashape'])]
        assert len(anchors) == 1, sentence
        name = {'left of': 'left', 'right of': 'right', 'above': 'top', 'below': 'bottom'}[
            words['how']]
        group = [ann for ann in group if ann is not anchors[0]
                 and side(ann, name) > side(anchors[0], name)]
    return kind, [ann['id'] for ann in group]


def test_every_sentence_fits_its_object_alone(scenes):
    kinds = Counter()
    for scene in scenes:
        for ref in scene['refs']:
            for sentence in ref['sentences']:
                kind, found = referents(sentence['sent'], scene['annotations'])
                assert found == [ref['ann_id']], (scene['image']['file_name'], sentence['sent'])
                kinds[kind] += 1
    assert set(kinds) == set(READINGS)
    assert 0.6 < kinds['attribute'] / kinds.total() < 0.8


def test_absent_targets():
    absent = 0
    for index in range(60):
        plain = refshapes.make_scene(SEED, 'val', index)
        scene = refshapes.make_scene(SEED, 'val', index, absent=0.5)
        assert scene['annotations'] == plain['annotations']
        assert [ref['ann_id'] for ref in scene['refs']][:len(plain['refs'])] == [
            [ref['ann_id']] for ref in plain['refs']]
        for ref in scene['refs']:
            if ref['ann_id'] != [-1]:
                continue
            absent += 1
            for sentence in ref['sentences']:
                assert referents(sentence['sent'], scene['annotations'])[1] == [], sentence
    assert 15 < absent < 45


@pytest.mark.parametrize('size', [64, 112, 336])
def test_other_sizes(size):
    scene = refshapes.make_scene(SEED, 'train', 0, size)
    assert scene['pixels'].shape == (size, size, 3)
    assert scene['annotations'][0]['segmentation']['size'] == [size, size]


def test_a_set_that_is_not_whole_has_no_card(tmp_path, monkeypatch):
    refshapes.generate(tmp_path, dict(train=1), SEED)
    card = tmp_path / 'refshapes/card.json'
    assert card.is_file()

    def stop(*args, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(refshapes, 'make_scene', stop)
    with pytest.raises(KeyboardInterrupt):
        refshapes.generate(tmp_path, dict(train=3), SEED)
    assert not card.exists()
