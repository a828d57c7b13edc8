"""EXIF tags 1 to 8 at every entrance of the server: what is outlined is what viewers show.

The picture is black with one white object, and the model outlines what is white.
"""
import base64
import io
import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving_standin import ScriptedInferencer, serving  # noqa: E402

from simpleseg_mm.polygon import mask_to_box, mask_to_parts, rings_to_mask  # noqa: E402
from simpleseg_mm.structures import Segmentation  # noqa: E402

CONFIG = ('<View><Image name="i" value="$image"/><PolygonLabels name="l" toName="i">'
          '<Label value="white"/></PolygonLabels></View>')


class White(ScriptedInferencer):
    """Outlines what is white."""

    def ask_batch(self, asked, on_text=None, consensus=None):
        found = []
        for picture, prompt in asked:
            mask = picture[..., 0] > 127
            found.append(Segmentation(
                image='0', size=mask.shape, prompt=prompt, parts=tuple(mask_to_parts(mask)),
                mask=mask, box=mask_to_box(mask), text='', confidence=0.5, valid=True,
                finished=True, says_nothing=False, num_tokens=1, seconds=0.1, codec=''))
        return found


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp('root')
    with serving(White(), settings=dict(root=str(root))) as (url, _):
        yield url, root


def post(url: str, body) -> dict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, raw), timeout=300) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize('format', ['PNG', 'JPEG'])
@pytest.mark.parametrize('tag', range(1, 9))
def test_what_is_white_is_outlined(server, tag, format):
    url, root = server
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[8:24, 8:24] = stored[8:16, 24:40] = 255  # in whole blocks of a JPEG
    exif = Image.Exif()
    exif[0x0112] = tag
    out = io.BytesIO()
    Image.fromarray(stored).save(out, format, exif=exif, **(
        dict(quality=100, subsampling=0) if format == 'JPEG' else {}))
    raw = out.getvalue()
    with Image.open(io.BytesIO(raw)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert('L'))
    (root / 'a.img').write_bytes(raw)
    text = base64.b64encode(raw).decode()
    picture = post(f'{url}/api/pictures', raw)
    answers = [post(f'{url}/api/segment', dict(given, prompt='white')) for given in (
        dict(picture=picture['picture']), dict(image=text), dict(path='a.img'))]
    masks = [rings_to_mask([np.array(ring) for part in answer['polygons']
                            for ring in (part['outer'], *part['holes'])], shown.shape, 'edges')
             for answer in answers]
    for place in ('data:image/x;base64,' + text, '/data/local-files/?d=a.img'):
        row = post(f'{url}/predict', dict(tasks=[dict(data=dict(image=place))],
                                          label_config=CONFIG))
        region, = row['results'][0]['result']
        assert (region['original_height'], region['original_width']) == shown.shape
        ring = np.array(region['value']['points']) * shown.shape[::-1] / 100
        masks.append(rings_to_mask([ring], shown.shape, 'edges'))
    for mask in masks:
        assert mask.sum() == 16 * 16 + 8 * 16 and shown[mask].mean() > 254
