"""The inferencer turns a picture as its EXIF tag says, whatever it comes as, and answers in
pixels of the upright one."""
import io

import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.structures import Generated

#: stored (h, w) 60 x 80, black, the object white
OBJECT = np.zeros((60, 80), bool)
OBJECT[6:24, 8:40] = True


@pytest.fixture(scope='module')
def inferencer():
    return SimpleSegInferencer(device='cpu', show_progress=False)


def raw(tag) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    out = io.BytesIO()
    Image.fromarray(np.repeat(OBJECT[..., None] * np.uint8(255), 3, 2)).save(out, 'PNG', exif=exif)
    return out.getvalue()


@pytest.mark.parametrize('tag', range(1, 9))
@pytest.mark.parametrize('form', ['file', 'bytes', 'PIL'])
def test_the_mask_lies_on_the_object(inferencer, monkeypatch, tmp_path, tag, form):
    (tmp_path / 'a.png').write_bytes(raw(tag))
    source = dict(file=str(tmp_path / 'a.png'), bytes=raw(tag),
                  PIL=Image.open(tmp_path / 'a.png'))[form]
    seen = []

    def answer_stream(asked, batch_size=None, **options):
        """A model that sees: the outline of what is white in the picture that it is given."""
        (image, _, _), = asked
        white = image.numpy()[0] > 127
        seen.append(white.shape)
        ys, xs = np.nonzero(white)
        h, w = white.shape
        box = [xs.min() / w, ys.min() / h, (xs.max() + 1) / w, (ys.max() + 1) / h]
        x1, y1, x2, y2 = (round(100 * v) for v in box)
        text = f'[[[{x1},{y1}],[{x1},{y2}],[{x2},{y2}],[{x2},{y1}]]]'
        yield Generated(text, 7, True, (1, ), (-0.1, ))

    monkeypatch.setattr(inferencer.model, 'answer_stream', answer_stream)
    result, = inferencer.segment([source], 'white')
    size = (80, 60) if tag >= 5 else (60, 80)
    assert result.size == result.mask.shape == size == seen[0]
    upright = {1: OBJECT, 2: OBJECT[:, ::-1], 3: OBJECT[::-1, ::-1], 4: OBJECT[::-1],
               5: OBJECT.T, 6: OBJECT.T[:, ::-1], 7: OBJECT.T[::-1, ::-1],
               8: OBJECT.T[::-1]}[tag]
    assert upright[result.mask].mean() == 1 and result.mask.sum() == OBJECT.sum()
