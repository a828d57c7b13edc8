"""Photos with an orientation tag in the loaders: the mask lies on the object by the rule that is
set for all of a set, or the size contradicts it and the error names the other rule."""
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.datasets import CocoQueryDataset, RefCOCODataset
from simpleseg_mm.datasets import transforms
from simpleseg_mm.files import load_image

#: stored (h, w) 48 x 64, black, the object white and in no symmetry
OBJECT = np.zeros((48, 64), bool)
OBJECT[6:18, 8:40] = True


def make(root: Path, tag: int, annotated: str, suffix: str = 'png') -> Path:
    """A set of one picture in RefCOCO's files, annotated on one of the two views."""
    exif = Image.Exif()
    exif[0x0112] = tag
    (root / 'images').mkdir()
    (root / 'mine').mkdir()
    path = root / f'images/a.{suffix}'
    Image.fromarray(np.repeat(OBJECT[..., None] * np.uint8(255), 3, 2)).save(path, exif=exif)
    view = load_image(path, upright=annotated == 'upright')[..., 0] > 127
    ys, xs = np.nonzero(view)
    x1, y1, x2, y2 = (int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    (root / 'mine/instances.json').write_text(json.dumps(dict(
        images=[dict(id=0, file_name=path.name, height=view.shape[0], width=view.shape[1])],
        annotations=[dict(id=1, image_id=0, category_id=1, bbox=[x1, y1, x2 - x1, y2 - y1],
                          segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]])],
        categories=[dict(id=1, name='car')])))
    (root / 'mine/refs.json').write_text(json.dumps([dict(
        ref_id=0, ann_id=1, image_id=0, split='train', sentences=[dict(sent_id=0, sent='car')])]))
    return root


def load(kind: str, root: Path, **image):
    pipeline = [dict(type='LoadImage', **image), dict(type='LoadTargetMask')]
    if kind == 'RefCOCO':
        return RefCOCODataset(str(root), [dict(name='mine', split='train', img_dir='images')],
                              pipeline=pipeline)
    return CocoQueryDataset(str(root), 'mine/instances.json', 'images', targets='category',
                            pipeline=pipeline)


@pytest.mark.parametrize('tag', range(1, 9))
@pytest.mark.parametrize('annotated', ['stored', 'upright'])
@pytest.mark.parametrize('kind, suffix', [('RefCOCO', 'png'), ('CocoQuery', 'png'),
                                          ('RefCOCO', 'tif')])
def test_the_mask_lies_on_the_object(tmp_path, kind, suffix, annotated, tag):
    root = make(tmp_path, tag, annotated, suffix)
    sample = load(kind, root, orientation=annotated)[0]
    mask = sample['data_samples'].gt_masks.masks[0] > 0
    image = sample['inputs'].numpy()
    assert mask.sum() == OBJECT.sum() and (image[:, mask] == 255).all()
    assert (image[:, ~mask] == 0).all()
    drawn = load_image(root / f'images/a.{suffix}', **sample['data_samples'].read_as)
    assert np.array_equal(drawn.transpose(2, 0, 1), image)  # what tools draw on is what was seen


@pytest.mark.parametrize('tag', range(5, 9))
@pytest.mark.parametrize('annotated, other', [('stored', 'upright'), ('upright', 'stored')])
@pytest.mark.parametrize('kind', ['RefCOCO', 'CocoQuery'])
def test_sizes_of_the_other_rule_are_an_error_that_names_it(tmp_path, kind, annotated, other,
                                                            tag):
    dataset = load(kind, make(tmp_path, tag, annotated), orientation=other)
    what = {'stored': 'that is the stored', 'upright': 'they are of the upright'}[annotated]
    with pytest.raises(ValueError, match=f"orientation tag {tag}, .* {what} picture. Set "
                       f"orientation='{annotated}' in LoadImage") as error:
        dataset[0]
    # the stored size beside upright outlines (label-studio #6608): 'stored' would be wrong
    assert ('convert the set by own_data.py' in str(error.value)) == (annotated == 'stored')


def test_the_default_is_cocos_and_is_said_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(transforms, 'print_log', lambda text, **more: said.append((text, more)))
    dataset = load('RefCOCO', make(tmp_path, 3, 'stored'))
    for _ in range(3):
        sample = dataset[0]
        assert (sample['inputs'].numpy()[:, sample['data_samples'].gt_masks.masks[0] > 0]
                == 255).all()
    (text, more), = said
    assert 'a.png has the orientation tag 3, and is read as it is stored' in text
    assert "orientation='stored'" in text and more['level'] == logging.WARNING


def test_untagged_pictures_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(transforms, 'print_log', lambda *args, **more: pytest.fail(args[0]))
    load('RefCOCO', make(tmp_path, 1, 'stored'))[0]


@pytest.mark.parametrize('image, message', [
    (dict(orientation='exif'), "orientation must be one of .'stored', 'upright'., got 'exif'"),
    (dict(white=0), 'white must be a number from 1 to 65535'),
    (dict(white=2.5), 'white must be a number'), (dict(white=70_000), 'white must be a number')])
def test_bad_options(tmp_path, image, message):
    with pytest.raises(ValueError, match=message):
        transforms.LoadImage(**image)


@pytest.mark.parametrize('tag, annotated, found, advice', [
    (1, 'stored', dict(turned=0, tags={}, fit_stored=0, fit_upright=0, undecided=0), None),
    (6, 'stored', dict(turned=1, tags={'6': 1}, fit_stored=1, fit_upright=0, undecided=0),
     "take orientation='stored'"),
    (8, 'upright', dict(turned=1, tags={'8': 1}, fit_stored=0, fit_upright=1, undecided=0),
     "take orientation='upright'"),
    (3, 'stored', dict(turned=1, tags={'3': 1}, fit_stored=0, fit_upright=0, undecided=1),
     'sizes cannot tell'),
])
def test_verify_counts_turned_photos_and_says_which_rule_fits(run, tmp_path, tag, annotated,
                                                              found, advice):
    root = make(tmp_path, tag, annotated, 'jpg')
    tool = 'dataset_converters/refcoco.py', 'verify', root, '--sets', 'mine', '--img-dir', 'images'
    code, report, out = run(*tool)
    assert report['orientation'] == found
    assert advice is None and 'orientation tag' not in out or advice in out
    assert (code == 0) == (annotated == 'stored')
    if annotated == 'upright':
        assert "Set orientation='upright'" in out and report['faults']['images'] == 1
        code, report, out = run(*tool, '--orientation', 'upright')
        assert code == 0 and report['orientation'] == found


def test_twelve_bits_in_sixteen(tmp_path):
    root = make(tmp_path, 1, 'stored')
    Image.fromarray(OBJECT.astype(np.uint16) * np.uint16(4095)).save(root / 'images/a.png')
    dark = load('RefCOCO', root)[0]['inputs'].numpy()
    right = load('RefCOCO', root, white=4095)[0]['inputs'].numpy()
    assert dark.max() == 16 and np.array_equal(right[0] == 255, OBJECT)


@pytest.mark.parametrize('orientation', ['stored', 'upright'])
@pytest.mark.parametrize('colours', [cv2.COLOR_GRAY2BGR, cv2.COLOR_GRAY2BGRA])
def test_twelve_bits_in_colours_of_sixteen(tmp_path, colours, orientation):
    root = make(tmp_path, 1, 'stored')
    cv2.imwrite(str(root / 'images/a.png'),
                cv2.cvtColor(OBJECT.astype(np.uint16) * np.uint16(4095), colours))
    found = load('RefCOCO', root, white=4095, orientation=orientation)[0]['inputs'].numpy()
    assert (found == np.where(OBJECT, 255, 0)).all()
