"""EXIF orientation, tags 1 to 8, by everything that reads pictures with outlines.

A picture whose object is white and the rest black: the mean inside the mask is 255, however the
picture is stored and whichever way it was annotated, or the sample is refused and counted. A
reader is a row: it gets the folder, the picture, its tag and the annotation's view, and returns
``(pixels (H, W, 3), mask (H, W) bool)``, or the reason that was counted.
"""
import json
from pathlib import Path

import numpy as np
import pytest
from own_sets import own
from PIL import Image

TAGS = range(1, 9)
VIEWS = ('stored', 'upright')


def scene(path: Path, tag: int, seed: int = 0) -> dict:
    """Write a turned picture; its size and the object's box in both views.

    It lies 64 x 48 as it is stored; the object is a white box, the rest black.
    """
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[5:15, 30:62] = 255
    stored[47, 0] = seed + 1  # no two pictures are equal
    exif = Image.Exif()
    exif[0x0112] = tag
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(path, exif=exif)
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
             4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
             6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_90}
    image = Image.fromarray(stored)
    views = dict(stored=image, upright=image.transpose(turns[tag]) if tag in turns else image)
    found = {}
    for view, seen in views.items():
        y, x = np.nonzero(np.asarray(seen)[..., 0] > 200)
        found[view] = dict(size=seen.size, box=(x.min(), y.min(), x.max() + 1, y.max() + 1))
    return found


def ring(box) -> list[int]:
    x1, y1, x2, y2 = map(int, box)
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def coco_of(folder: Path, tags, view: str, sizes: str, suffix: str = 'png') -> Path:
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='car')])
    for k, tag in enumerate(tags):
        seen = scene(folder / f'images/{k}.{suffix}', tag, k)
        width, height = seen[sizes]['size']
        content['images'].append(dict(id=k, file_name=f'{k}.{suffix}', width=width, height=height))
        content['annotations'].append(dict(id=k + 1, image_id=k, category_id=1,
                                           segmentation=[ring(seen[view]['box'])]))
    path = folder / 'coco.json'
    path.write_text(json.dumps(content))
    return path


def labelme_of(folder: Path, tags, view: str, sizes: str) -> Path:
    for k, tag in enumerate(tags):
        seen = scene(folder / f'{k}.png', tag, k)
        width, height = seen[sizes]['size']
        points = np.reshape(ring(seen[view]['box']), (-1, 2)).tolist()
        (folder / f'{k}.json').write_text(json.dumps(dict(
            imagePath=f'{k}.png', imageWidth=width, imageHeight=height, imageData=None,
            shapes=[dict(label='car', shape_type='polygon', points=points)])))
    return folder


def whitest(samples: dict) -> list[float]:
    return [float(image[mask].mean()) for image, mask in samples.values()]


def tiffs_of(folder: Path, tags, view: str, sizes: str) -> Path:
    """PIL turns TIFF by itself, and states their size upright."""
    return coco_of(folder, tags, view, sizes, 'tif')


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('make', [coco_of, labelme_of, tiffs_of])
def test_own_data_turns_a_set_by_one_rule(tmp_path, make, view):
    """All tags in one set: those of a quarter turn show the rule for the others."""
    report, samples = own(make(tmp_path / 'set', [1, *TAGS], view, view), tmp_path / 'out')
    assert whitest(samples) == [255.0] * 9 and not report['left_out']
    assert all(int(mask.sum()) == 320 for _, mask in samples.values())
    assert sum(report['decided'].values()) == 7  # the turned ones


@pytest.mark.parametrize('tag', TAGS)
@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('make', [coco_of, labelme_of])
def test_own_data_a_tag_alone_with_the_rule_said(tmp_path, make, view, tag):
    """Where nothing shows the rule (tags 2 to 4), --exif says it."""
    report, samples = own(make(tmp_path / 'set', [tag] * 3, view, view), tmp_path / 'out',
                          exif=view)
    assert whitest(samples) == [255.0] * 3 and not report['left_out']


@pytest.mark.parametrize('make', [coco_of, labelme_of])
def test_own_data_outlines_beat_the_size_that_is_stated(tmp_path, make):
    """label-studio #6608: the stored size, and outlines of the upright view."""
    report, samples = own(make(tmp_path / 'set', [1, 6, 8, 3], 'upright', 'stored'),
                          tmp_path / 'out')
    assert whitest(samples) == [255.0] * 4 and not report['left_out']
    assert any('by outlines' in rule for rule in report['decided'])


@pytest.mark.parametrize('make, expected', [(coco_of, 'stored'), (labelme_of, 'upright')])
def test_own_data_without_evidence_follows_the_tool(tmp_path, make, expected):
    """COCO counts stored pixels, LabelMe turns pictures; both are said."""
    report, samples = own(make(tmp_path / 'set', [3, 2, 4], expected, 'stored'), tmp_path / 'out')
    assert whitest(samples) == [255.0] * 3
    (rule, count), = report['decided'].items()
    assert 'for want of evidence' in rule and count == 3
    assert report['left_out_or_changed'][rule] == 3


@pytest.mark.parametrize('make', [coco_of, labelme_of])
def test_own_data_pictures_against_the_rule_are_left_out(tmp_path, make):
    path = make(tmp_path / 'set', [6, 6, 6, 6], 'stored', 'stored')
    other = make(tmp_path / 'other', [6, 6, 6, 6], 'upright', 'upright')
    if make is coco_of:
        content, wrong = json.loads(path.read_text()), json.loads(other.read_text())
        content['images'][3] = wrong['images'][3]
        content['annotations'][3] = wrong['annotations'][3]
        path.write_text(json.dumps(content))
    else:
        (path / '3.json').write_text((other / '3.json').read_text())
    report, samples = own(path, tmp_path / 'out')
    assert whitest(samples) == [255.0] * 3
    assert report['left_out']['picture'] == {
        'turned picture that contradicts the rule for the others': 1}
