"""The data engine turns a picture as its EXIF tag says, and COCO's outlines with it, or counts it.
"""
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from annotation_standin import FAST, config, run  # noqa: E402

from simpleseg_mm.files import load_image  # noqa: E402
from simpleseg_mm.polygon import rle_to_mask  # noqa: E402

#: as the file stores it, black, the object white
OBJECT = np.zeros((48, 64), bool)
OBJECT[6:21, 8:33] = True
UPRIGHT = {1: OBJECT, 2: OBJECT[:, ::-1], 3: OBJECT[::-1, ::-1], 4: OBJECT[::-1], 5: OBJECT.T,
           6: OBJECT.T[:, ::-1], 7: OBJECT.T[::-1, ::-1], 8: OBJECT.T[::-1]}
REFUSED = 'detect: turned by EXIF; set annotated of OracleDetect'


def photo(tag: int, form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    out = io.BytesIO()
    Image.fromarray(np.repeat(OBJECT[..., None] * np.uint8(255), 3, 2)).save(
        out, form, exif=exif, **(dict(quality=95) if form == 'JPEG' else {}))
    return out.getvalue()


def outline(mask: np.ndarray) -> list:
    y, x = np.nonzero(mask)
    x1, y1, x2, y2 = map(int, (x.min(), y.min(), x.max() + 1, y.max() + 1))
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotate(tmp_path, tag, form, view, size_of, annotated, box=True) -> tuple[dict, dict]:
    """Counts, and what was written, of one photo whose outline is of this view."""
    suffix = form.lower()
    (tmp_path / 'images').mkdir()
    (tmp_path / f'images/a.{suffix}').write_bytes(photo(tag, form))
    mask = UPRIGHT[tag] if view == 'upright' else OBJECT
    height, width = (UPRIGHT[tag] if size_of == 'upright' else OBJECT).shape
    ring = outline(mask)
    record = dict(id=1, image_id=1, category_id=1, segmentation=[ring])
    if box:
        record['bbox'] = [*ring[:2], ring[4] - ring[0], ring[5] - ring[1]]
    (tmp_path / 'coco.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name=f'a.{suffix}', width=width, height=height)],
        annotations=[record], categories=[dict(id=1, name='white')])))
    oracle = dict(ann_file=str(tmp_path / 'coco.json'))
    cfg = config(dict(type='ReadFolder', root=str(tmp_path / 'images')),
                 detect=dict(type='OracleDetect', annotated=annotated, **oracle),
                 segment=dict(type='OracleSegment', **oracle), clean=dict(type='CleanMasks'),
                 polygon=dict(type='WritePolygons', codec=FAST))
    counts, found = run(cfg, tmp_path / 'run')['counts'], {}
    for path in (tmp_path / 'run/shards').glob('*.tar'):
        with tarfile.open(path) as archive:
            found = {name: archive.extractfile(name).read() for name in archive.getnames()}
    return counts, found


@pytest.mark.parametrize('tag', range(1, 9))
@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
@pytest.mark.parametrize('view, size_of, annotated', [
    ('stored', 'stored', 'stored'), ('upright', 'upright', 'upright'),
    ('upright', 'stored', 'upright'),  # label-studio #6608
    ('stored', 'stored', None), ('upright', 'upright', None), ('upright', 'stored', None)])
def test_the_mask_lies_on_the_object(tmp_path, tag, form, view, size_of, annotated):
    counts, found = annotate(tmp_path, tag, form, view, size_of, annotated, box=tag % 2 == 0)
    if annotated is None and tag != 1:
        assert counts['images'] == dict(entered=1, written=0, dropped={REFUSED: 1})
        return
    pixels, note = load_image(found['a.jpg']), json.loads(found['a.json'])
    one, = note['objects']
    mask = rle_to_mask(one['segmentation'])
    assert mask.shape == pixels.shape[:2] == UPRIGHT[tag].shape == (note['height'], note['width'])
    assert np.array_equal(mask, UPRIGHT[tag])
    assert pixels[mask].mean() > 253 and pixels[~mask].mean() < 2  # 255 and 0 but for JPEG
    assert load_image(found['a.jpg'], upright=False).shape == pixels.shape
    x, y, *_ = outline(mask)
    assert one['bbox'][:2] == [x, y] and one['area'] == OBJECT.sum()


@pytest.mark.parametrize('tag', [5, 6, 7, 8])
def test_a_size_that_tells_the_other_view_is_refused(tmp_path, tag):
    counts, _ = annotate(tmp_path, tag, 'PNG', 'upright', 'upright', 'stored')
    assert counts['images']['dropped'] == {'detect: size other than annotated': 1}
