"""Training pictures cropped round their targets: all of a sample is the crop's, and stays true."""
import json
from collections import Counter

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from test_datasets_instances import MASKS, coco, load

from simpleseg_mm.datasets import CropToTarget, RefShapesDataset, refshapes
from simpleseg_mm.datasets.transforms import META_KEYS
from simpleseg_mm.export.chat_rows import ChatRows
from simpleseg_mm.export.picture_paths import PicturePaths
from simpleseg_mm.polygon import (codec_of, mask_iou, mask_to_box, parse_answer,
                                  segmentation_to_mask)
from simpleseg_mm.samples import read_answer

CODEC = dict(grammar='int1000', tokens=None)


def pipeline(**options) -> list:
    return [dict(type='LoadImage'), dict(type='LoadTargetMask'),
            dict(type='CropToTarget', **dict(dict(prob=1.0, side=1), **options))]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """A set of small objects, some queries to nothing."""
    root = tmp_path_factory.mktemp('crops')
    refshapes.generate(root, dict(train=12), size=256, object_size=(20, 50), absent=0.5)
    return root


def shapes(root, query=None, **options) -> RefShapesDataset:
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        return RefShapesDataset(str(root), split='train', serialize_data=False, seed=3,
                                query=dict(dict(codec=CODEC), **(query or {})),
                                pipeline=pipeline(**options))


# --- refused ------------------------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(prob=1.5), 'prob must be in 0..1, got 1.5'), (dict(margin=(1, 0)), 'margin must be'),
    (dict(margin=(-1, 0)), 'margin must be'), (dict(margin=(1, )), 'margin must be'),
    (dict(side=0), 'side must be'), (dict(side=2.5), 'side must be')])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        CropToTarget(**options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('results, message', [
    (dict(test_mode=True), 'for training.*model.second_look'),
    (dict(test_mode=False, question='How many?'), 'a question about a picture')])
def test_what_is_not_cropped(results, message):
    with pytest.raises(ValueError, match=message):
        CropToTarget().transform(results)


# --- what a crop is -----------------------------------------------------------------------------
def test_all_of_a_sample_is_the_crop_s(scenes):
    cropped, whole = shapes(scenes), shapes(scenes, prob=0.0)
    shifts = []
    for number in range(len(whole)):
        one, all_of_it = cropped[number]['data_samples'], whole[number]['data_samples']
        x1, y1, x2, y2 = one.window
        assert 'window' not in all_of_it and one.text == all_of_it.text
        assert one.ori_shape == (y2 - y1, x2 - x1) == one.img_shape
        picture = whole[number]['inputs'][:, y1:y2, x1:x2]
        assert (cropped[number]['inputs'] == picture).all()
        mask, full = one.gt_masks.masks[0], all_of_it.gt_masks.masks[0]
        assert (mask == full[y1:y2, x1:x2]).all() and mask.sum() == full.sum()
        for instance, other in zip(one.instances, all_of_it.instances, strict=True):
            assert instance['bbox'] == [v - o for v, o in zip(other['bbox'], (x1, y1, x1, y1))]
            assert (segmentation_to_mask(instance['mask'], *one.ori_shape) == mask).all()
        if not mask.any():
            assert one.answer == '[]'
            continue
        assert mask_iou(read_answer(one, one.answer).mask, mask > 0) > 0.85
        box = mask_to_box(mask > 0)
        shifts.append((box[:2] + box[2:]) / 2 / (x2 - x1, y2 - y1))
    assert 0.05 < np.std(shifts) and np.min(shifts) < 0.4 and np.max(shifts) > 0.6


def test_small_crops_are_enlarged_but_keep_their_own_coordinates(scenes):
    small, large = (shapes(scenes, side=side)[0] for side in (1, 448))
    assert max(large['inputs'].shape) == 448 > max(small['inputs'].shape)
    one, other = small['data_samples'], large['data_samples']
    assert (one.ori_shape, one.answer, one.window) == (other.ori_shape, other.answer, other.window)
    assert other.img_shape == tuple(large['inputs'].shape[1:])


def test_samples_depend_on_seed_and_visit_alone(scenes):
    one, other = shapes(scenes), shapes(scenes)
    count = len(one)
    windows = [one[number]['data_samples'].window for number in range(5)]
    assert windows == [other[number]['data_samples'].window for number in range(4, -1, -1)][::-1]
    assert windows != [one[number + count]['data_samples'].window for number in range(5)]


def test_further_turns_are_about_what_lies_in_the_crop(scenes):
    """Each of them is whole there, and answered in the crop's coordinates."""
    dataset = shapes(scenes, dict(turns=4, codec=CODEC), margin=(0.0, 3.0))
    plain = shapes(scenes, prob=0.0)
    truths = {}
    for number in range(len(plain)):
        one = plain[number]['data_samples']
        truths[one.image_id, one.text] = one.gt_masks.masks[0] > 0
    more = 0
    for number in range(len(dataset)):
        one = dataset[number]['data_samples']
        x1, y1, x2, y2 = one.window
        for prompt, answer in one.turns[1:]:
            texts = [text for image, text in truths if image == one.image_id
                     and text in prompt]
            truth = truths[one.image_id, max(texts, key=len)]
            mask = read_answer(one, answer).mask
            assert truth[y1:y2, x1:x2].sum() == truth.sum()
            assert mask_iou(mask, truth[y1:y2, x1:x2]) > (0.85 if truth.any() else 0.99)
            more += truth.any()
    assert more > 10


@pytest.mark.parametrize('words, cropped', [
    ('cup', True), ('the left cup', True), ('the second cup', False), ('the cup in the CENTER', 0),
    ('the 2nd one', False), ('the middle', False), ('a half-eaten cup', False),
    ('rowing boat', True), ('cornered', True)])
def test_queries_that_need_the_whole_picture_keep_it(tmp_path, words, cropped):
    root = coco(tmp_path, lambda content: content['categories'][0].update(name=words))
    dataset = load(root, test_mode=False, pipeline=pipeline(margin=(0, 0.1)))
    found = [dataset[k]['data_samples'] for k in range(len(dataset))]
    assert {'window' in one for one in found if one.text == words} == {bool(cropped)}
    reasons = dataset.pipeline.transforms[2].counts
    assert (reasons['whole as the query counts, or names a part of the picture'] == 0) == bool(
        cropped)


def test_a_crop_that_is_the_picture_is_the_picture(tmp_path):
    dataset = load(coco(tmp_path), test_mode=False, pipeline=pipeline(margin=(50, 50)))
    one = dataset[0]
    assert 'window' not in one['data_samples'] and one['inputs'].shape == (3, 30, 40)
    assert dataset.pipeline.transforms[2].counts == {'the crop is the whole picture': 1}


def test_every_instance_lies_in_the_crop(tmp_path):
    dataset = load(coco(tmp_path), test_mode=False, pipeline=pipeline(margin=(0, 0)))
    cups = next(one for one in (dataset[k]['data_samples'] for k in range(len(dataset)))
                if (one.image_id, one.text) == (1, 'cup'))
    assert cups.window == (2, 2, 35, 25)  # of 25..35 x 2..12 and 2..12 x 15..25
    assert cups.gt_masks.masks.shape == (2, 23, 33)
    assert cups.gt_masks.masks.sum((1, 2)).tolist() == [100, 100]
    lists = parse_answer(cups.answer, codec_of(cups.codec).grammar, 'masks')
    assert lists.valid and len(lists.instances) == 2


def test_what_is_ignored_is_cut_to_the_crop(tmp_path):
    """A crowd of plates in the left 10 columns, beside a plate at 28..38 x 18..28."""
    def crops(margin, edit=None):
        root = tmp_path / f'{margin}'
        root.mkdir()
        dataset = load(coco(root), dict(MASKS, tasks=dict(text2mask=1)), targets='instances')
        info = next(dataset.get_data_info(k) for k in range(len(dataset))
                    if dataset.get_data_info(k)['image_id'] == 2
                    and dataset.get_data_info(k)['text'] == 'plate')
        return info
    info = crops(0)
    crowd = dict(size=[30, 40], counts=[0, 300, 900])
    info.update(ignored=[crowd], ignored_instances=[
        dict(bbox=[0, 0, 10, 30], bbox_label=0, ignore_flag=1, mask=crowd)],
        instances=info['instances'][:1], test_mode=False)
    for least, pixels in ((2.5, 270), (0.5, 0)):  # 25 and 5 pixels to the left and above
        transform = CropToTarget(prob=1, margin=(least, least), side=1)
        found = transform.transform(_loaded(dict(info, rng=np.random.default_rng(0))))
        assert found['gt_ignore'].masks.sum() == sum(
            segmentation_to_mask(one, found['height'], found['width']).sum()
            for one in found['ignored'])
        assert bool(found['ignored_instances']) == bool(pixels) == bool(found['ignored'])


def _loaded(info: dict) -> dict:
    from simpleseg_mm.datasets import LoadImage, LoadTargetMask
    return LoadTargetMask().transform(LoadImage().transform(info))


def test_counts_are_logged(scenes, caplog):
    transform = CropToTarget(prob=0.5)
    info = dict(test_mode=False, text='the middle one', rng=np.random.default_rng(0))
    for _ in range(100):
        transform.transform(dict(info))
    assert transform.counts.total() == 100
    assert Counter(transform.counts).keys() == {
        'whole by prob', 'whole as the query counts, or names a part of the picture'}


# --- other trainers -----------------------------------------------------------------------------
def test_other_trainers_get_the_crop_or_nothing(scenes, tmp_path):
    """Never the whole picture with the crop's answer."""
    def rows(copies):
        pictures = PicturePaths(tmp_path / copies, copies)
        found = ChatRows(shapes(scenes, side=1), range(6), META_KEYS, {}, 'ms-swift', 'sft',
                         '.jsonl', pictures)
        return list(found), found
    none, left = rows('never')
    assert not none and list(left.left_out) == ['its query is about a crop of its picture']
    written, _ = rows('needed')
    paths = [json.dumps(row) for row in written]
    assert len(written) == 6 and len(set(paths)) == 6
    assert len(list((tmp_path / 'needed').iterdir())) == 6
