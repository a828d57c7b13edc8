"""Bad input, one case each: counted under its reason, and kept aside where it is the image."""
import http.server
import io
import json
import runpy
import struct
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from annotation_standin import config, folder_of, jpeg, run, simple
from PIL import Image, PngImagePlugin

from simpleseg_mm.annotation.stages import FilterImage, ReadTars, Sample
from simpleseg_mm.annotation.describe import PROMPT, text_fault
from simpleseg_mm.annotation.filters import find_duplicates, perceptual_hash
from simpleseg_mm.annotation.sample import clean_text
from simpleseg_mm.annotation.tar import TarCut, members
from simpleseg_mm.annotation.tar import pack as pack_parts

ROOT = Path(__file__).resolve().parents[1]


def pack(files) -> tuple:
    parts, places = pack_parts(files)
    return b''.join(parts), places


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height pixels; there is next to nothing behind it."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I',
                                                                        zlib.crc32(kind + data))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0,
                                                              0, 0))
            + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))


RGB = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (48, 1, 3)))
GREY16 = Image.fromarray((np.arange(64 * 48).reshape(48, 64) * 21).astype(np.uint16))
EXIF = Image.Exif()
EXIF[0x0112] = 6
BOMB = encoded(RGB, 'PNG', pnginfo=PngImagePlugin.PngInfo())
IMAGES = {
    'empty': (b'', 'unreadable image', True),
    'text': (b'<html>404</html>', 'unreadable image', True),
    'cut': (jpeg(1)[:-300], 'unreadable image', True),
    'header_only': (jpeg(1)[:200], 'unreadable image', True),
    'cut_png': (encoded(RGB, 'PNG')[:-60], 'unreadable image', True),
    'noise': (b'\xff\xd8\xff' + bytes(range(256)) * 8, 'unreadable image', True),
    'animated_gif': (encoded(RGB, 'GIF', save_all=True, append_images=[RGB.rotate(90)]),
                     'animated', False),
    'animated_webp': (encoded(RGB, 'WEBP', save_all=True, append_images=[RGB.rotate(90)]),
                      'animated', False),
    'huge': (huge_png(20_000, 20_000), 'too many pixels', False),
    'huge_side': (huge_png(20_000, 2_000), 'too many pixels', False),
    'thread': (huge_png(9_000, 30), 'aspect ratio', False),
    'tiny': (jpeg(1, size=(9, 9)), 'too small', False),
    'long': (jpeg(1, size=(200, 20)), 'aspect ratio', False),
}
ODD = {
    'plain': (jpeg(1), None),
    'grey': (jpeg(1, mode='L'), None),
    'cmyk': (jpeg(1, mode='CMYK'), 'CMYK'),
    'turned': (encoded(RGB, 'JPEG', exif=EXIF), 'orientation'),
    'grey16': (encoded(GREY16, 'PNG'), 'PNG I;16'),
    'palette': (encoded(RGB.quantize(8), 'PNG'), 'PNG P'),
    'alpha': (encoded(Image.new('RGBA', (64, 48), (255, 0, 0, 0)), 'PNG'), 'PNG RGBA'),
    'still_gif': (encoded(RGB, 'GIF'), 'GIF P'),
    'bmp': (encoded(RGB, 'BMP'), 'BMP RGB'),
    'webp': (encoded(RGB, 'WEBP'), 'WEBP RGB'),
}


@pytest.fixture
def look():
    stage = FilterImage(min_side=16, max_aspect=4)
    stage.name = 'image'

    def process(raw: bytes) -> Sample:
        sample = Sample('a', raw)
        stage.process([sample])
        return sample
    return process


@pytest.mark.parametrize('name', IMAGES)
def test_images_that_are_dropped(look, name):
    raw, reason, quarantined = IMAGES[name]
    start = time.process_time()
    sample = look(raw)
    assert sample.dropped == ('image', reason) and sample.quarantined == quarantined
    assert sample.raw == (raw if quarantined else b'')
    assert sample.counts == {('image', 'images', reason): 1}
    assert time.process_time() - start < 1  # nothing huge is decoded


@pytest.mark.parametrize('name', ODD)
def test_images_that_are_kept(look, name):
    raw, note = ODD[name]
    sample = look(raw)
    assert sample.dropped is None
    assert (sample.notes == []) == (note is None)
    assert (sample.raw == raw) == (note is None)
    assert sample.notes == ([] if note is None else [f're-encoded: {note}'])
    image = Image.open(io.BytesIO(sample.raw))
    assert image.format == 'JPEG' and image.size == (sample.width, sample.height)
    assert image.size == ((48, 64) if name == 'turned' else (64, 48))
    assert sample.image.shape == (sample.height, sample.width, 3)


def test_pixels_of_odd_images(look):
    grey = look(ODD['grey16'][0]).image
    assert abs(int(grey[-1, -1, 0]) - (64 * 48 - 1) * 21 // 257) < 4  # scaled, not clipped
    assert (look(ODD['alpha'][0]).image > 250).all()  # on white
    turned = look(ODD['turned'][0]).image  # brightness rose to the right; now downwards
    assert turned[0].mean() < 20 and turned[-1].mean() > 230


def test_hashes_find_what_is_the_same_picture(look):
    first = look(jpeg(7, size=(320, 240)))
    for again in (jpeg(7, size=(320, 240), quality=30), jpeg(7, size=(160, 120))):
        distance = perceptual_hash(first.thumbnail) ^ perceptual_hash(look(again).thumbnail)
        assert bin(distance).count('1') <= 4
    others = [perceptual_hash(look(jpeg(seed)).thumbnail) for seed in range(40)]
    assert min(bin(a ^ b).count('1') for k, a in enumerate(others) for b in others[:k]) > 4


@pytest.mark.parametrize('distance', range(8))
def test_duplicates_against_comparing_all(distance):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 60, np.uint64)
    near = hashes[:20] ^ np.array([sum(1 << int(k) for k in rng.choice(64, rng.integers(0, 9),
                                                                      replace=False))
                                   for _ in range(20)], np.uint64)
    hashes = rng.permutation(np.concatenate([hashes, near, hashes[:5]]))
    expected = [next((a for a in range(b) if bin(int(hashes[a]) ^ int(hashes[b])).count('1')
                      <= distance), -1) for b in range(len(hashes))]
    assert find_duplicates(hashes, distance).tolist() == expected


def test_duplicates_of_the_whole_input(tmp_path):
    images = folder_of(tmp_path / 'images', 6, size=(64, 64))
    (images / '004.jpg').write_bytes(jpeg(0, size=(64, 64), quality=60))  # of another chunk
    (images / '001.jpg').write_bytes(b'broken')
    cfg = config(dict(type='ReadFolder', root=str(images), shard_size=2),
                 duplicates=dict(type='FilterDuplicates', distance=4),
                 detect=dict(type='BoxDetect'))
    assert run(cfg, tmp_path / 'run')['counts']['images'] == dict(
        entered=6, written=4,
        dropped={'image: unreadable image': 1, 'duplicates: duplicate': 1})


def test_quarantine_keeps_the_bytes_and_the_reason(tmp_path):
    images = folder_of(tmp_path / 'images', 3)
    (images / 'x.jpg').write_bytes(b'not an image')
    found = run(simple(dict(type='ReadFolder', root=str(images)), fail_at='001'), tmp_path / 'r')
    assert found['counts']['images']['dropped'] == {'image: unreadable image': 1,
                                                    'detect: failed: RuntimeError': 1}
    assert found['quarantined'] == 2
    path = tmp_path / 'r/quarantine/images-000000.tar'
    with open(path, 'rb') as tar:
        places = {name: (offset, size) for name, offset, size in members(tar,
                                                                         path.stat().st_size)}
        content = {name: tar.seek(offset) and tar.read(size)
                   for name, (offset, size) in places.items()}
    assert content['x.bin'] == b'not an image' and content['001.bin'] == jpeg(1)
    assert content['001.txt'] == (b'detect: failed: RuntimeError. detect: RuntimeError: no such '
                                  b'kernel')


# Tars

def test_packing_is_read_by_python_and_repeats():
    files = [('a.jpg', b'x' * 700), ('a.json', b'{}'), ('b.jpg', b'')]
    content, places = pack(files)
    assert content == pack(files)[0]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [(m.name, archive.extractfile(m).read()) for m in archive] == files
    assert [content[offset:offset + size] for offset, size in places] == [b for _, b in files]
    assert [name for name, *_ in members(io.BytesIO(content), len(content))] == ['a.jpg',
                                                                                'a.json', 'b.jpg']


@pytest.mark.parametrize('cut, left', [
    (-512, 2), (-1024, 2), (-1025, 2), (-1500, 1), (1324, 1), (1024, 1), (700, 0), (512, 0),
    (100, 0), (0, 0)])
def test_a_tar_cut_anywhere_gives_what_is_whole_and_says_so(tmp_path, cut, left):
    content, _ = pack([('a.jpg', b'x' * 400), ('b.jpg', b'y' * 400)])
    path = tmp_path / 't.tar'
    path.write_bytes(content[:cut] if cut else b'')
    reader = ReadTars(str(path))
    chunk, = reader.chunks(reader.files()[0], lambda name: False)
    if cut == -512:  # one block of the end mark is enough
        assert chunk.faults == []
    else:
        assert [reason for reason, _ in chunk.faults] == ['tar cut short']
    assert [sample.key for sample in chunk.samples] == ['a', 'b'][:left]


def test_noise_is_no_tar():
    noise = bytes(range(256)) * 8
    with pytest.raises(TarCut):
        list(members(io.BytesIO(noise), len(noise)))


def test_keys_that_come_again_and_samples_without_image(tmp_path):
    files = [('a.jpg', jpeg(0)), ('a.jpg', jpeg(1)), ('b.jpg', jpeg(2)), ('a.txt', b'late'),
             ('c.txt', b'no image'), ('x/a.jpg', jpeg(3)), ('b.jpg', jpeg(4))]
    (tmp_path / 't.tar').write_bytes(pack(files)[0])
    for size in (100, 2):  # in one chunk, and across chunks
        found = run(simple(dict(type='ReadTars', paths=str(tmp_path / '*.tar'),
                                shard_size=size)), tmp_path / f'r{size}')
        assert found['counts']['images']['written'] == 3
        assert found['counts']['images']['dropped'] == {'read: duplicate key': 3,
                                                        'read: no image': 1}


def test_names_that_cannot_be_keys_stay_apart(tmp_path):
    names = ['a' * 90, 'a' * 91, '写真', '画像', 'x/写', 'plain-1', 'a b', 'a_b']
    with tarfile.open(tmp_path / 't.tar', 'w') as archive:
        for number, name in enumerate(names):
            raw = jpeg(number)
            info = tarfile.TarInfo(f'{name}.jpg')
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    found = run(simple(dict(type='ReadTars', paths=str(tmp_path / '*.tar'))), tmp_path / 'run')
    assert found['counts']['images'] == dict(entered=8, written=8, dropped={})
    with tarfile.open(tmp_path / 'run/shards/t-0000.tar') as archive:
        written = archive.getnames()
    assert len(set(written)) == 16 and 'plain-1.jpg' in written and 'a_b.json' in written
    assert all(name.isascii() and len(name) < 100 for name in written)


def test_duplicates_without_the_image_filter(tmp_path):
    images = folder_of(tmp_path / 'images', 1)
    cfg = config(dict(type='ReadFolder', root=str(images)),
                 duplicates=dict(type='FilterDuplicates'))
    with pytest.raises(ValueError, match='needs FilterImage before it'):
        run(dict(cfg, order=['duplicates']), tmp_path / 'run')


def test_tars_of_one_name_are_told_apart(tmp_path):
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 't.tar').write_bytes(pack([('a.jpg', jpeg(0))])[0])
    assert [file.name for file in ReadTars(str(tmp_path / '*/t.tar')).files()] == ['a-t', 'b-t']
    with pytest.raises(FileNotFoundError, match='no .tar files match'):
        ReadTars(str(tmp_path / '*.tar')).files()


CAPTIONS = {
    'control': ('a \x00dog\r\non\u202e the\u200b grass\x1b[0m', 'a dog on the grass [0m'),
    'long': ('word ' * 10_000, ('word ' * 200)[:-1]),
    'not_utf8': (b'caf\xe9', 'caf\xe9'),
    'utf16': ('a café'.encode('utf-16'), 'a café'),
    'marked': (b'\xef\xbb\xbfa dog\r\n', 'a dog'),
    'empty': ('', ''),
}


@pytest.mark.parametrize('name', CAPTIONS)
def test_captions(tmp_path, name):
    caption, expected = CAPTIONS[name]
    raw = caption if isinstance(caption, bytes) else caption.encode()
    fields = json.dumps(dict(caption='from json', tags=['a', 3, 'b\x07'], secret={'x': 1}))
    (tmp_path / 't.tar').write_bytes(pack([('a.jpg', jpeg(0)), ('a.json', fields.encode()),
                                           ('a.txt', raw), ('b.jpg', jpeg(1)),
                                           ('b.json', b'[1')])[0])
    reader = ReadTars(str(tmp_path / 't.tar'))
    chunk, = reader.chunks(reader.files()[0], lambda name: False)
    assert chunk.samples[0].meta == dict(file='t.tar/a', caption=expected, tags=['a', 'b'])
    assert chunk.samples[1].notes == ['fields unreadable']
    assert bool(chunk.samples[0].notes) == (name in ('control', 'long'))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip('pyarrow', reason='parquet needs pyarrow')
    import pyarrow.parquet as parquet
    rows = [dict(image=dict(bytes=jpeg(k), path=''), text=f'nr {k}') for k in range(5)]
    rows[1]['image'] = None
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / 'a.parquet')
    (tmp_path / 'b.parquet').write_bytes((tmp_path / 'a.parquet').read_bytes()[:-50])
    parquet.write_table(pyarrow.table(dict(image=[jpeg(9)], text=['x'])), tmp_path / 'c.parquet')
    reader = dict(type='ReadParquet', paths=str(tmp_path / '*.parquet'), caption='text',
                  shard_size=2)
    found = run(simple(reader), tmp_path / 'run')
    assert found['counts']['images'] == dict(entered=6, written=5, dropped={'read: no image': 1})
    assert [reason for reason, _ in found['input_faults']] == ['parquet broken']
    with pytest.raises(ValueError, match='no column'):
        run(simple(dict(reader, image='picture')), tmp_path / 'other')


# Detector and segmenter

BOXES = {
    'nan': ([[float('nan'), 0, 9, 9]], None, 'box or score not finite'),
    'inf': ([[0, 0, float('inf'), 9]], None, 'box or score not finite'),
    'nan_score': ([[0, 0, 20, 20]], [float('nan')], 'box or score not finite'),
    'short': ([[0, 0, 20]], None, 'box or score not finite'),
    'outside': ([[100, 100, 140, 140]], None, 'box outside the image or empty'),
    'turned': ([[40, 40, 10, 10]], None, 'box outside the image or empty'),
    'low': ([[0, 0, 20, 20]], [0.1], 'score too low'),
    'small': ([[0, 0, 4, 20]], None, 'box too small'),
    'whole': ([[-5, -5, 90, 90]], None, 'box covers the image'),
}


@pytest.mark.parametrize('name', BOXES)
def test_boxes(tmp_path, name):
    boxes, scores, reason = BOXES[name]
    boxes, scores = [*boxes, [5, 5, 40, 40], [5, 5, 39, 40]], [*(scores or [0.9]), 0.5, 0.6]
    images = folder_of(tmp_path / 'images', 1)
    found = run(simple(dict(type='ReadFolder', root=str(images)), boxes=boxes, scores=scores),
                tmp_path / 'run')
    assert found['counts']['objects'] == dict(entered=3, written=1, dropped={
        f'select: {reason}': 1, 'select: overlaps a better box': 1})


def test_masks_without_a_pixel(tmp_path):
    images = folder_of(tmp_path / 'images', 2)
    cfg = simple(dict(type='ReadFolder', root=str(images)))
    cfg['stages']['segment']['empty'] = True
    found = run(cfg, tmp_path / 'run')['counts']
    assert found['objects']['dropped'] == {'clean: mask has no pixel': 2}
    assert found['images'] == dict(entered=2, written=0, dropped={'clean: no object': 2})


# Endpoint

class Endpoint(http.server.BaseHTTPRequestHandler):
    behaviour, seen = None, []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.seen.append(body)
        try:
            self.behaviour(self)
        except OSError:
            pass

    def answer(self, content: bytes, code: int = 200):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    Endpoint.seen = []
    yield f'http://127.0.0.1:{server.server_port}/v1'
    server.shutdown()
    server.server_close()


def says(text) -> bytes:
    return json.dumps(dict(choices=[dict(message=dict(content=text))])).encode()


def drip(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b' ')
        time.sleep(0.05)


ANSWERS = {
    'good': (lambda h: h.answer(says('1. "the red thing"\n- thing on the left.\n')), [],
             ['the red thing', 'thing on the left']),
    'many': (lambda h: h.answer(says('one thing\nOne thing\ntwo things\nthree things')),
             ['repeated', 'more than asked for'], ['one thing', 'two things']),
    'timeout': (lambda h: time.sleep(0.5), ['endpoint: timed out'], []),
    'drip': (lambda h: drip(h),
             ['endpoint: timed out'], []),
    'server_error': (lambda h: h.answer(b'oops', 503), ['endpoint: HTTP 503'], []),
    'refused': (lambda h: h.answer(b'no', 401), ['endpoint: HTTP 401'], []),
    'no_json': (lambda h: h.answer(b'<html>'), ['endpoint: broken answer'], []),
    'other_json': (lambda h: h.answer(b'{"choices": []}'), ['endpoint: broken answer'], []),
    'null': (lambda h: h.answer(says(None)), ['endpoint: broken answer'], []),
    'hang_up': (lambda h: h.wfile.close(), ['endpoint: no connection'], []),
    'empty': (lambda h: h.answer(says(' \n ')), ['empty'], []),
    'refusal': (lambda h: h.answer(says("I'm sorry, I can't help.")),
                ['refusal or talk of the box'], []),
    'box': (lambda h: h.answer(says('the dog in the red box')), ['refusal or talk of the box'],
            []),
    'novel': (lambda h: h.answer(says('word ' * 10_000)), ['too long'], []),
    'numbers': (lambda h: h.answer(says('[[0.1, 0.2]]')), ['nonsense'], []),
    'control': (lambda h: h.answer(says('a\x00 dog\x07\u202e')), [], ['a dog']),
}


@pytest.mark.parametrize('name', ANSWERS)
def test_endpoints(tmp_path, endpoint, name):
    behaviour, reasons, texts = ANSWERS[name]
    Endpoint.behaviour = staticmethod(behaviour)
    images = folder_of(tmp_path / 'images', 1)
    cfg = simple(dict(type='ReadFolder', root=str(images)))
    cfg['stages']['describe'] = dict(type='DescribeByEndpoint', base_url=endpoint, model='m',
                                     timeout=0.2, retries=1, wait=0.01)
    cfg['order'].append('describe')
    found = run(cfg, tmp_path / 'run')['counts']
    assert found['images']['written'] == found['objects']['written'] == 1
    assert found['descriptions'] == dict(entered=len(reasons) + len(texts), written=len(texts),
                                         dropped={f'describe: {r}': 1 for r in reasons})
    content = (tmp_path / 'run/shards/images-000000.tar').read_bytes()
    assert all(json.dumps(dict(text=text), separators=(',', ':')).encode() in content
               for text in texts)
    assert len(Endpoint.seen) == (1 if texts or name in ('refused', 'null') or 'endpoint' not in
                                  str(reasons) else 2)
    content = Endpoint.seen[0]['messages'][0]['content']
    assert content[1]['text'] == PROMPT.format(category='thing', count=2)
    assert content[0]['image_url']['url'].startswith('data:image/jpeg;base64,')


def test_a_missing_key_is_said_before_anything_runs(tmp_path):
    images = folder_of(tmp_path / 'images', 1)
    cfg = config(dict(type='ReadFolder', root=str(images)), describe=dict(
        type='DescribeByEndpoint', base_url='http://x', model='m', key_variable='NO_SUCH_KEY'))
    with pytest.raises(ValueError, match='NO_SUCH_KEY'):
        run(cfg, tmp_path / 'run')


def test_texts():
    assert text_fault('the dog', 3) is None and text_fault('der Hund über', 3) is None
    assert text_fault('狗在草地上', 3) is None
    assert text_fault('a b c d', 3) == 'too long' and text_fault('12 3', 3) == 'nonsense'
    assert clean_text('a\ud800b') == 'a b'


# The tool

@pytest.fixture
def tool(monkeypatch, capsys):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['annotate.py', *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools/annotate.py'), run_name='__main__')
        out, err = capsys.readouterr()
        return end.value.code, out, err
    return call


def test_the_tool(tool, tmp_path):
    images = folder_of(tmp_path / 'images', 3, size=(300, 280))
    (images / 'x.jpg').write_bytes(b'broken')
    (images / 'y.jpg').write_bytes(jpeg(0, size=(300, 280)))
    ann_file = tmp_path / 'coco.json'
    ann_file.write_text(json.dumps(dict(
        images=[dict(id=k, file_name=f'{k:03d}.jpg', width=300, height=280) for k in range(3)],
        categories=[dict(id=1, name='thing')],
        annotations=[dict(id=1, image_id=0, category_id=1, iscrowd=0, bbox=[50, 50, 100, 100],
                          segmentation=[[50, 50, 150, 50, 150, 150, 50, 150]]),
                     dict(id=2, image_id=1, category_id=1, iscrowd=0, bbox=[0, 0, 9, 9],
                          segmentation=[[1, 1]])])))
    config_path = ROOT / 'configs/annotation/coco_oracle.py'
    options = ['--work-dir', tmp_path / 'run', '--cfg-options', f'reader.root={images}',
               f'stages.detect.ann_file={ann_file}', f'stages.segment.ann_file={ann_file}']
    code, out, err = tool(config_path, *options)
    result = json.loads(out.splitlines()[-1])
    assert code == 0 and result['coco'] == dict(images=1, annotations=1, categories=1)
    assert result['counts']['images'] == dict(entered=5, written=1, dropped={
        'image: unreadable image': 1, 'detect: not in the annotations': 1, 'select: no box': 1,
        'clean: no object': 1})
    assert result['counts']['objects']['dropped'] == {'segment: annotation unusable': 1}
    assert (tmp_path / 'run/report.html').is_file() and 'WARNING' not in err
    code, _, err = tool(config_path, *options, 'stages.clean.min_area=5')
    assert code == 2 and 'stages.clean.min_area' in err
    code, _, err = tool(config_path, '--work-dir', tmp_path / 'no', '--cfg-options',
                        f'reader.root={tmp_path / "nothing"}')
    assert code == 2 and 'set reader.root' in err
    code, _, err = tool(config_path, *options[:2], '--cfg-options', 'order=["image","paint"]')
    assert code == 2 and "order names ['paint']" in err
