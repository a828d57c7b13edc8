"""Pictures from anywhere: what is refused, and how, before what is converted."""
import io
import struct
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from simpleseg_mm.files import ImageError, list_images, load_image, pictures

RED = np.zeros((8, 12, 3), np.uint8) + np.array([200, 30, 20], np.uint8)


def encoded(image, format='PNG', **options) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        out, format, **options)
    return out.getvalue()


def png(width, height, *chunks, head=(8, 0), rows=bytes(1000)) -> bytes:
    """A PNG that claims a size, with a few bytes of pixels unless they are given."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))

    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, *head, 0, 0, 0))
            + b''.join(chunk(*one) for one in chunks)
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


BOMB = zlib.compress(bytes(80 << 20), 9)


@pytest.mark.parametrize('raw, message', [
    (b'', 'no picture that can be read'),
    (b'hello, I am a text', 'no picture that can be read.*JPEG'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no picture that can be read'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'no picture that can be read'),
    (encoded(RED, 'JPEG')[:200], 'broken picture|no picture'),
    (encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:900],
     'broken picture'),
    (encoded(np.zeros((10, 20_000), np.uint8)), '20000 x 10 pixels; at most 16384 a side'),
    (png(9_000, 9_500), '9000 x 9500 pixels; at most.*80 million'),
    (png(16_000, 16_000), 'more than 80 million pixels'),
    (png(50_000, 50_000), 'more than .* million pixels'),
    (png(2, 2, (b'zTXt', b'Comment\0\0' + BOMB)), 'broken picture.*[Dd]ecompressed'),
    (encoded(np.zeros((3, 2_000), np.uint8)), '200 times the other'),
    (encoded(Image.new('F', (4, 4)), 'TIFF'), 'fractions.*8 or 16 bits'),
])
def test_what_cannot_be_used_says_why(raw, message):
    with pytest.raises(ImageError, match=message) as error:
        load_image(raw, 'upload.png')
    assert 'upload.png' in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_library_before_pillow_that_lacks_a_decoder(monkeypatch):
    """As ultralytics, which looks for HEIC's when Pillow knows none."""
    plain = Image.open

    def opened(*args, **kwargs):
        try:
            return plain(*args, **kwargs)
        except Image.UnidentifiedImageError:
            raise ModuleNotFoundError("No module named 'pi_heif'")
    monkeypatch.setattr(Image, 'open', opened)
    with pytest.raises(ImageError, match='^a.jpg is no picture that can be read .*JPEG'):
        load_image(b'hello, I am a text', 'a.jpg')


@pytest.mark.parametrize('array, message', [
    (np.zeros((2, 3, 4, 3), np.uint8), r'shape \(2, 3, 4, 3\)'),
    (np.zeros((2, 3, 2), np.uint8), r'shape \(2, 3, 2\)'),
    (np.zeros((0, 3, 3), np.uint8), 'empty'),
    (np.zeros((4, 4, 3)), 'float64; give uint8'),
    (np.broadcast_to(np.uint8(0), (20_000, 200, 3)), '200 x 20000'),
])
def test_arrays_that_cannot_be_used(array, message):
    with pytest.raises(ImageError, match=message):
        load_image(array)


@pytest.mark.parametrize('source', [3, None, ['a.png']])
def test_other_things_are_no_pictures(source):
    with pytest.raises(ImageError, match='a picture is a path.*got ' + type(source).__name__):
        load_image(source)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ImageError, match='there is no picture .*nothing.png'):
        load_image(tmp_path / 'nothing.png')
    with pytest.raises(ImageError, match='cannot read .*: Is a directory'):
        load_image(tmp_path)


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, 'MAX_BYTES', 100)
    (tmp_path / 'a.png').write_bytes(bytes(101))
    with pytest.raises(ImageError, match='101 bytes; at most 100'):
        load_image(tmp_path / 'a.png')


# --- what is converted ---------------------------------------------------------------------------
@pytest.mark.parametrize('orientation, upright', [
    (1, lambda x: x), (2, lambda x: x[:, ::-1]), (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]), (5, lambda x: x.swapaxes(0, 1)), (6, lambda x: np.rot90(x, -1)),
    (7, lambda x: np.rot90(x, 2).swapaxes(0, 1)), (8, lambda x: np.rot90(x, 1))])
@pytest.mark.parametrize('format, depth', [
    ('PNG', np.uint8), ('PNG', np.uint16), ('TIFF', np.uint8), ('TIFF', np.uint16)])
def test_exif_orientation_is_applied(orientation, upright, format, depth):
    """PIL turns a TIFF by itself, and no other picture."""
    stored = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(stored if depth == np.uint8 else stored.astype(depth) * depth(257), format,
                  exif=exif)
    found, tag = pictures.load_tagged(raw)
    assert tag == orientation
    assert np.array_equal(found, np.repeat(upright(stored)[..., None], 3, axis=2))
    assert pictures.upright_size(raw) == found.shape[:2]
    assert np.array_equal(load_image(raw, upright=False)[..., 0], stored)
    with pictures.open_picture(raw) as image:
        size = pictures.stored_size(image)
        assert size == (6, 4) and pictures.turned(size, orientation) == found.shape[1::-1]
        assert np.array_equal(load_image(image)[..., 0], found[..., 0])


def test_cmyk_keeps_its_colours():
    """Adobe's JPEGs store CMYK inverted."""
    found = load_image(encoded(Image.fromarray(RED).convert('CMYK'), 'JPEG', quality=95))
    assert found.shape == RED.shape and np.abs(found.astype(int) - RED).max() < 12


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.linspace(0, 65535, 40).round().astype(np.uint16).reshape(5, 8)
    expected = np.repeat((deep / 257).round().astype(np.uint8)[..., None], 3, axis=2)
    for format in ('PNG', 'TIFF'):
        assert np.array_equal(load_image(encoded(deep, format)), expected)
    assert np.array_equal(load_image(deep), expected)


@pytest.mark.parametrize('mode', ['L', 'LA', 'P', '1', 'RGBA', 'RGB'])
def test_other_modes(mode):
    grey = Image.fromarray(np.where(np.indices((8, 12))[1] < 6, 255, 0).astype(np.uint8))
    found = load_image(encoded(grey.convert(mode)))
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(found, np.asarray(grey.convert('RGB')))


def test_transparency_is_laid_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 10, 20, 30, 255
    expected = np.full((2, 2, 3), 255, np.uint8)
    expected[0, 0] = 10, 20, 30
    assert np.array_equal(load_image(encoded(pixels)), expected)
    assert np.array_equal(load_image(pixels), expected)


def test_the_first_frame_of_several():
    frames = [Image.new('RGB', (4, 4), color) for color in ('red', 'blue')]
    raw = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    assert load_image(raw)[0, 0].tolist() == [255, 0, 0]


def test_every_kind_of_source_gives_the_same(tmp_path):
    path = tmp_path / 'red.png'
    path.write_bytes(encoded(RED))
    with Image.open(path) as picture:
        sources = [path, str(path), path.read_bytes(), RED, picture]
        assert all(np.array_equal(load_image(source), RED) for source in sources)
    assert np.array_equal(load_image(RED[..., 0]), np.repeat(RED[..., :1], 3, axis=2))


def test_a_given_array_is_not_changed_later():
    grey = np.zeros((3, 3), np.uint8)
    load_image(grey)[:] = 9
    assert not grey.any()


def test_folders(tmp_path):
    with pytest.raises(ImageError, match='holds no pictures'):
        list_images(tmp_path)
    for name in ('b.JPG', 'a.png', 'notes.txt', 'c.webp'):
        (tmp_path / name).touch()
    (tmp_path / 'd.png').mkdir()
    assert [path.name for path in list_images(tmp_path)] == ['a.png', 'b.JPG', 'c.webp']


# --- addresses -----------------------------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path.startswith('/red.png')
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(encoded(RED) if found else b'no')

    def log_message(self, *args):
        pass


@pytest.fixture
def address():
    with HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_addresses(address, monkeypatch):
    assert np.array_equal(load_image(f'{address}/red.png?x=1'), RED)
    with pytest.raises(ImageError, match='/gone.png answers 404'):
        load_image(f'{address}/gone.png')
    monkeypatch.setattr(pictures, 'MAX_BYTES', 20)
    with pytest.raises(ImageError, match='sends more than 20 bytes'):
        load_image(f'{address}/red.png')


def test_an_address_that_cannot_be_reached(address):
    port = int(address.rpartition(':')[2])
    with HTTPServer(('127.0.0.1', 0), Handler) as closed:
        free = closed.server_port
    assert free != port
    for url in (f'http://127.0.0.1:{free}/a.png', 'http://', 'http://name.invalid/a.png'):
        with pytest.raises(ImageError, match='cannot reach|no host'):
            load_image(url)


def test_file_addresses_are_paths():
    with pytest.raises(ImageError, match='there is no picture'):
        load_image(f'file://{Path(__file__).resolve()}')


# --- orientation, bits, scans, addresses ------------------------------------------------------
def with_tag(tag, size=(9, 6)) -> bytes:
    """A stored picture (w, h), black but for a white pixel at x 1, y 2."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[2, 1] = 255
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded(pixels, exif=exif)


@pytest.mark.parametrize('tag, size, place', [  # by the EXIF standard: what row 0, column 0 are
    (1, (6, 9), (2, 1)), (2, (6, 9), (2, 7)), (3, (6, 9), (3, 7)), (4, (6, 9), (3, 1)),
    (5, (9, 6), (1, 2)), (6, (9, 6), (1, 3)), (7, (9, 6), (7, 3)), (8, (9, 6), (7, 2)),
    (0, (6, 9), (2, 1)), (9, (6, 9), (2, 1)),
])
def test_a_picture_is_turned_as_its_tag_says(tag, size, place):
    upright = load_image(with_tag(tag))
    assert upright.shape[:2] == size and np.argwhere(upright[..., 0]).tolist() == [list(place)]
    stored = load_image(with_tag(tag), upright=False)
    assert stored.shape[:2] == (6, 9) and np.argwhere(stored[..., 0]).tolist() == [[2, 1]]
    with pictures.open_picture(with_tag(tag)) as image:
        assert pictures.turned(image.size, pictures.orientation_of(image)) == size[::-1]


@pytest.mark.parametrize('exif', [
    b'Exif\0\0', b'Exif\0\0II', b'Exif\0\0II*\0\x08\0\0\0\xff\xff',
    b'Exif\0\0MM\0*' + b'\xff' * 40,
    b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd\0\0\0\0'])
def test_malformed_exif_turns_nothing(exif):
    raw = encoded(RED, 'JPEG', exif=exif)
    assert load_image(raw).shape == RED.shape


def test_a_jpeg_of_endless_scans_is_refused():
    raw = encoded(RED, 'JPEG', progressive=True)
    start = raw.rindex(b'\xff\xda')
    assert load_image(raw).shape == RED.shape
    with pytest.raises(pictures.ImageTooLarge, match='JPEG of [0-9]+ scans'):
        load_image(raw[:start] + raw[start:-2] * 2000 + raw[-2:])


@pytest.mark.parametrize('white, expected', [(65535, [0, 1, 16, 255]), (4095, [0, 16, 255, 255])])
def test_the_brightest_value_of_a_picture_can_be_named(white, expected):
    deep = np.array([[0, 256, 4095, 65535]], np.uint16)
    assert load_image(encoded(deep), white=white)[0, :, 0].tolist() == expected
    assert load_image(deep, white=white)[0, :, 0].tolist() == expected


def deep_png(colours: np.ndarray, kind: int, *chunks) -> bytes:
    """A PNG of 16 bits of any kind of colours; Pillow writes none."""
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in colours)
    return png(*colours.shape[1::-1], *chunks, head=(16, kind), rows=rows)


def tiff(colours: np.ndarray, compression: int) -> bytes:
    return cv2.imencode('.tif', colours[..., ::-1],
                        [cv2.IMWRITE_TIFF_COMPRESSION, compression])[1].tobytes()


COLOURS = np.array([[[0, 256, 4095], [4095, 17, 0], [1, 2048, 65535]]], np.uint16)
#: the same colours as different files hold them
DEEP = {
    'png': deep_png(COLOURS, 2), 'array': COLOURS,
    'png, see-through': deep_png(np.dstack([COLOURS, np.full((1, 3), 65535, np.uint16)]), 6),
    'png, a colour for nothing': deep_png(COLOURS, 2, (b'tRNS', struct.pack('>HHH', 9, 9, 9))),
    'ppm': b'P6 3 1 65535\n' + COLOURS.astype('>u2').tobytes(),
    'tiff': tiff(COLOURS, 1), 'tiff, lzw': tiff(COLOURS, 5), 'tiff, zip': tiff(COLOURS, 8)}


@pytest.mark.parametrize('white, expected', [
    (65535, [[0, 1, 16], [16, 0, 0], [0, 8, 255]]),
    (4095, [[0, 16, 255], [255, 1, 0], [0, 128, 255]])])
@pytest.mark.parametrize('name', DEEP)
def test_colours_of_sixteen_bits_have_a_white_too(name, white, expected):
    """Pillow cuts them to the upper bytes, which is black where twelve bits are used."""
    assert load_image(DEEP[name], white=white)[0].tolist() == expected
    if name != 'array':
        with pictures.open_picture(DEEP[name]) as image:
            assert pictures.brightest_of(image) == 65535
            assert load_image(image, white=white)[0].tolist() == expected


def test_transparency_of_sixteen_bits_is_no_brightness():
    few = np.array([[[4095, 65535], [2048, 0]]], np.uint16)
    grey = deep_png(few, 4)
    key = deep_png(few[..., :1], 0, (b'tRNS', struct.pack('>H', 2048)))
    colours = deep_png(few[..., [0, 0, 0, 1]], 6)
    for raw in (grey, key, colours):
        with pictures.open_picture(raw) as image:
            assert pictures.brightest_of(image) == 4095
        assert load_image(raw, white=4095)[0].tolist() == [[255] * 3, [255] * 3]  # on white
    half = deep_png(np.array([[[0, 32768]]], np.uint16), 4)
    assert load_image(half, white=4095)[0, 0, 0] == 127
    assert load_image(deep_png(np.array([[[0, 4095]]], np.uint16), 4), white=4095)[0, 0, 0] == 0


@pytest.mark.parametrize('url, sent', [
    ('http://h/my photo.jpg', 'http://h/my%20photo.jpg'),
    ('http://h/my%20photo.jpg', 'http://h/my%20photo.jpg'),
    ('http://h/写.jpg?d=a b#part', 'http://h/%E5%86%99.jpg?d=a%20b'),
    ('http://bücher.example/a', 'http://xn--bcher-kva.example/a'),
])
def test_addresses_are_quoted_once(url, sent):
    assert pictures.quoted(url) == sent


def test_hidden_files_of_a_folder_are_no_pictures(tmp_path):
    for name in ('._a.jpg', '.b.png', 'a.jpg', 'B.PNG', 'c.txt'):
        (tmp_path / name).write_bytes(b'\0\5\26\7')
    (tmp_path / 'd.png').mkdir()
    assert [path.name for path in list_images(tmp_path)] == ['B.PNG', 'a.jpg']


def test_a_link_to_nothing_is_listed_and_told(tmp_path):
    """As those of git-annex before their content is fetched."""
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').symlink_to('nowhere')
    (tmp_path / 'c.png').mkdir()
    assert [path.name for path in list_images(tmp_path)] == ['a.png', 'b.png']
    with pytest.raises(ImageError, match='b.png'):
        load_image(tmp_path / 'b.png', 'b.png', 10 ** 6)


def test_the_packaged_example_is_a_picture():
    assert load_image('simpleseg_mm://example.jpg').shape == (224, 224, 3)
    with pytest.raises(ImageError, match='no_such.jpg does not ship with the package; .*example'):
        load_image('simpleseg_mm://no_such.jpg')
