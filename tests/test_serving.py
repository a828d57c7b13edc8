"""The JSON API: answers, streams, limits, bad input, and who may talk to it."""
import base64
import http.client
import io
import json
import struct
import threading
import time
import zipfile
import zlib
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402

from simpleseg_mm.taught import Taught  # noqa: E402

HTML = '<img src=x onerror=alert(1)> & "q"'


def png(width=100, height=50, mode='RGB', **options) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, options.pop('format', 'PNG'), **options)
    return out.getvalue()


def call(url: str, method: str, path: str, body=None, headers=None):
    """Status, headers and body (JSON where it is) of one request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.headers.get_content_type() == 'application/json' and (path, answer.status) != (
            '/api/export', 200):
        content = json.loads(content)
    return answer.status, answer.headers, content


def ask(url: str, picture: str, prompt, **more):
    return call(url, 'POST', '/api/segment', dict(picture=picture, prompt=prompt, **more))


def upload(url: str, raw: bytes = None, name: str = 'a.png') -> str:
    status, _, row = call(url, 'POST', f'/api/pictures?name={name}', raw or png())
    assert status == 201, row
    return row['picture']


@pytest.fixture(scope='module')
def server():
    with serving(ScriptedInferencer(pause=0.2),
                 settings=dict(max_mb=1.0, max_megapixels=4.0)) as (url, inferencer):
        yield url, inferencer


@pytest.fixture
def alive(server):
    """The server, which must answer as before when the test is over."""
    yield server[0]
    status, _, row = ask(server[0], upload(server[0]), 'square')
    assert status == 200 and row['text'].startswith('[[[20,20]')


def test_an_answer(server):
    url, _ = server
    key = upload(url, name='scene.png')
    status, headers, row = ask(url, key, 'ring')
    assert status == 200 and row['image'] == 'scene.png' and row['label'] == 'ring'
    part, = row['polygons']
    assert part['outer'][0] == [10, 5] and len(part['holes'][0]) == 4
    assert row['size'] == [50, 100] and row['confidence'] == 0.5 and row['valid']
    assert headers['content-security-policy'].startswith("default-src 'none'")
    assert 'access-control-allow-origin' not in headers
    assert ask(url, key, 'nothing')[2]['says_nothing']
    assert ask(url, key, 'babble')[2]['polygons'] == []


def test_every_instance(server):
    url, inferencer = server
    key = upload(url)
    status, _, row = ask(url, key, dict(text='two', all=True))
    assert status == 200 and row['prompt'] == dict(text='two', all=True) and row['label'] == 'two'
    assert row['valid'] and row['bboxes'] == [[20, 10, 60, 35], [10, 5, 90, 45]]
    assert row['scores'] == [0.5, 0.5] and len(row['masks']) == 2
    assert [(one['instance'], len(one['holes'])) for one in row['polygons']] == [(0, 0), (1, 1)]
    assert row['agreements'] is None and row['warnings'] == []
    assert inferencer.seen[-1][1].task.name == 'text2masks'
    assert ask(url, key, dict(text='nothing', all=True))[2]['bboxes'] == []
    raw = stream(url, key, dict(text='two', all=True))
    assert [(event['instance'], sum(map(len, event['rings']))) for event in raw[2:-1]] == [
        *((0, count) for count in range(1, 5)), *((1, count) for count in range(1, 9))]
    assert raw[-1]['result']['bboxes'] == row['bboxes']


@pytest.mark.parametrize('text, count, said', [
    ('nothing', 0, []), ('two', 2, []), ('many', 200, []),
    ('babble', 0, []),
    ('twins', 3, ['1 of 3 instances are the same as another one']),
    ('holed', 2, ['the list is not valid: it is given as far as it can be read, without '
                  '1 points or rings']),
    ('thin', 1, ['1 of 2 instances hold no pixel: their outline cannot be read or is too small']),
    ('cut', 2, ['the list is cut off after 2 instances: there may be more']),
    ('square', 1, ['the list is not valid: it is given as far as it can be read'])])
def test_odd_lists_are_given_and_told(alive, text, count, said):
    key = upload(alive)
    status, _, row = ask(alive, key, dict(text=text, all=True))
    assert status == 200 and row['warnings'] == said
    assert len(row['bboxes']) == len(row['scores']) == len(row['masks']) == count
    assert sorted({one['instance'] for one in row['polygons']}) == list(range(count))
    assert row['says_nothing'] == (text == 'nothing')
    events = stream(alive, key, dict(text=text, all=True))
    assert dict(events[-1]['result'], seconds=0) == dict(row, seconds=0)
    shown = {event['instance'] for event in events[2:-1]}
    assert sorted(shown) == list(range(count + (text == 'thin')))
    # a list where one outline was asked for
    status, _, row = ask(alive, key, text)
    assert status == 200 and row['warnings'] == [] and len(row['masks']) == (count > 0)


@pytest.mark.parametrize('prompt', [dict(point=[50, 25]), dict(box=[10, 5, 60, 40])])
def test_points_and_boxes_and_pictures_in_the_request(server, prompt):
    url, inferencer = server
    image = base64.b64encode(png()).decode()
    for given in (image, 'data:image/png;base64,' + image):
        status, _, row = call(url, 'POST', '/api/segment', dict(image=given, prompt=prompt))
        assert status == 200 and row['prompt'] == prompt and row['label'] == 'object'
    assert inferencer.seen[-1][0] == (50, 100, 3)


@pytest.mark.parametrize('write', [
    lambda raw: base64.encodebytes(raw).decode(),  # validator.js #1424: in lines (RFC 2045)
    lambda raw: base64.encodebytes(raw).decode().replace('\n', '\r\n'),
    lambda raw: base64.urlsafe_b64encode(raw).decode(),
    lambda raw: base64.b64encode(raw).decode().rstrip('='),
    lambda raw: 'data:image/png;charset=utf-8;base64,' + base64.b64encode(raw).decode(),
    lambda raw: 'data:image/png;name="a, b.png";BASE64 ,' + base64.encodebytes(raw).decode(),
    lambda raw: 'data:;base64,' + quote(base64.b64encode(raw)),
    lambda raw: 'data:image/png,' + quote(raw)])
def test_base64_as_it_is_written(server, write):
    url, inferencer = server
    raw = png(31, 23)
    status, _, row = call(url, 'POST', '/api/segment', dict(image=write(raw), prompt='square'))
    assert status == 200 and inferencer.seen[-1][0] == (23, 31, 3), row


@pytest.mark.parametrize('text', ['data:', 'data:image/png;base64', 'data:,', '=', 'é', 'AAAAA',
                                  '\ud800', 'data:image/png;base64,@@'])
def test_base64_that_is_none(server, text):
    status, _, row = call(server[0], 'POST', '/api/segment', dict(image=text, prompt='square'))
    assert status == 400 and '\n' not in row['error']


def stream(url, key, prompt):
    """The events of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request('POST', '/api/segment', json.dumps(dict(
        picture=key, prompt=prompt, stream=True)))
    answer = connection.getresponse()
    assert answer.headers['content-type'] == 'application/x-ndjson'
    return [json.loads(line) for line in answer]


def test_a_stream_has_every_vertex_as_it_comes(server):
    url, _ = server
    events = stream(url, upload(url), dict(text='ring'))
    names = [event['event'] for event in events]
    assert names == ['queued', 'started', *['outline'] * 8, 'done']
    counts = [sum(map(len, event['rings'])) for event in events[2:-1]]
    assert counts == list(range(1, 9))
    assert events[2]['rings'] == [[[10, 5]]] and len(events[-2]['rings']) == 2
    assert events[-1]['result']['polygons'][0]['outer'][0] == [10, 5]


def zip_bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few kilobytes of file."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack('>I', len(data)) + kind + data
                + struct.pack('>I', zlib.crc32(kind + data)))
    body = zlib.compress(b'\0' * 10_000_000, 9)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 30000, 30000, 8, 0, 0,
                                                              0, 0))
            + chunk(b'IDAT', body) + chunk(b'IEND', b''))


def text_bomb() -> bytes:
    """A PNG whose text chunk unpacks to 200 MB."""
    raw = png()
    data = b'k\0\0' + zlib.compress(b'\0' * 200_000_000, 9)
    chunk = struct.pack('>I', len(data)) + b'zTXt' + data + struct.pack(
        '>I', zlib.crc32(b'zTXt' + data))
    return raw[:33] + chunk + raw[33:]


@pytest.mark.parametrize('raw, status, message', [
    (b'', 400, 'empty'), (b'not a picture', 400, 'no picture'), (b'GIF89a', 400, 'picture'),
    (png()[:60], 400, 'broken'), (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 400, 'no picture'),
    (png(20_000, 10, '1'), 413, '20000 x 10'), (png(3000, 3000, '1'), 413, '3000 x 3000'),
    (zip_bomb(), 413, 'million pixels'), (text_bomb(), 400, 'broken'),
    (b'\0' * 1_200_000, 413, 'more than 1 MB')])
def test_bad_pictures(alive, raw, status, message):
    got, _, row = call(alive, 'POST', '/api/pictures', raw)
    assert got == status and message in row['error'] and '\n' not in row['error']


def test_a_body_without_a_length_is_cut_off(alive):
    connection = http.client.HTTPConnection(urlsplit(alive).netloc, timeout=120)
    connection.request('POST', '/api/pictures', (b'\0' * 100_000 for _ in range(20)),
                       {'transfer-encoding': 'chunked'}, encode_chunked=True)
    assert connection.getresponse().status == 413


@pytest.mark.parametrize('raw, pixel', [
    (png(40, 20, mode='L'), 0), (png(40, 20, mode='CMYK', format='JPEG'), 255),
    (png(40, 20, mode='I;16'), 0), (png(40, 20, mode='RGBA'), 255), (png(40, 20, mode='P'), 0),
    (png(40, 20, mode='LA', format='PNG'), 255), (png(40, 20, format='TIFF'), 0)])
def test_every_kind_of_picture_becomes_rgb(server, raw, pixel):
    url, inferencer = server
    key = upload(url, raw)
    assert ask(url, key, 'square')[0] == 200
    assert inferencer.seen[-1][0] == (20, 40, 3)
    status, headers, shown = call(url, 'GET', f'/api/pictures/{key}')
    assert status == 200 and headers['content-type'] == 'image/jpeg'
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (40, 20) and abs(int(np.asarray(image).max()) - pixel) < 3


def test_exif_turns_the_picture(server):
    url, inferencer = server
    exif = Image.Exif()
    exif[0x0112] = 6
    key = upload(url, png(40, 20, format='JPEG', exif=exif))
    assert ask(url, key, dict(point=[10, 35]))[0] == 200  # upright it is 20 wide and 40 high
    assert inferencer.seen[-1][0] == (40, 20, 3)


@pytest.mark.parametrize('body, status, message', [
    (dict(prompt=''), 400, 'the expression is'), (dict(prompt=dict(text='  ')), 400, 'expression'),
    (dict(prompt=None), 400, 'a prompt is'), (dict(prompt=dict(mask=[1])), 400, 'a prompt is'),
    (dict(prompt=dict(text='a', point=[1, 1])), 400, 'one of text'),
    (dict(prompt='x' * 2001), 400, 'more than 2000'),
    (dict(prompt=dict(point=[100.5, 10])), 400, 'outside the picture'),
    (dict(prompt=dict(point=[-1, 10])), 400, 'outside'),
    (dict(prompt=dict(point=[1])), 400, '2 numbers'),
    (dict(prompt=dict(point=[1, 1], all=True)), 400, 'in words, not by a point'),
    (dict(prompt=dict(text='a', all='yes')), 400, 'say True or False'),
    (dict(prompt=dict(text='a', all=None)), 400, 'say True or False'),
    (dict(prompt=dict(point=['a', None])), 400, '2 numbers'),
    (dict(prompt=dict(box=[50, 40, 10, 10])), 400, 'negative size'),
    (dict(prompt=dict(box=[200, 10, 300, 20])), 400, 'outside the picture'),
    (dict(prompt='a', stream=1), 400, 'true or false'),
    (dict(promt='a'), 400, "no field 'promt': give `picture`"),
    (dict(prompt='a', consenus=8), 400, "no field 'consenus'"),
    (dict(prompt='a', picture='unknown'), 404, 'no such picture'),
    (dict(prompt='a', picture=None), 400, 'give one of'),
    (dict(prompt='a', picture=['x']), 400, 'give one of'),
    (dict(prompt='a', picture=None, image='@@@'), 400, 'base64'),
    (dict(prompt='a', picture=None, path='/etc/passwd'), 403, 'reads no paths')])
def test_bad_requests(alive, body, status, message):
    got, _, row = call(alive, 'POST', '/api/segment', dict(picture=upload(alive)) | body)
    assert got == status and message in row['error']


@pytest.mark.parametrize('body', [b'', b'{', b'[]', b'[' * 100_000, b'\xff\xfe', b'{"a": NaN'])
def test_bodies_that_are_no_json(alive, body):
    for path in ('/api/segment', '/api/export', '/predict', '/setup', '/webhook'):
        status, _, row = call(alive, 'POST', path, body)
        assert status == 400 and 'JSON' in row['error']


def test_wrong_addresses(alive):
    for method, path, status in (('GET', '/nothing', 404), ('GET', '/api/segment', 405),
                                 ('GET', '/static/../app.py', 404),
                                 ('GET', '/static/%2e%2e/app.py', 404),
                                 ('GET', '/api/pictures/unknown', 404)):
        assert call(alive, method, path)[0] == status


def test_html_in_an_expression_stays_text(alive):
    status, headers, row = ask(alive, upload(alive), HTML)
    assert status == 200 and row['label'] == HTML
    assert headers['content-type'] == 'application/json'
    assert headers['x-content-type-options'] == 'nosniff'
    objects = [dict(label=HTML, polygons=row['polygons'])]
    status, headers, svg = call(alive, 'POST', '/api/export', dict(
        format='svg', width=100, height=50, name='a.png', objects=objects))
    assert status == 200 and b'<img' not in svg and b'&lt;img' in svg
    assert headers['content-disposition'].startswith('attachment')


def test_a_crash_of_the_model_is_told_without_its_words(alive):
    status, _, row = ask(alive, upload(alive), 'crash')
    assert status == 500 and 'the model failed' in row['error'] and 'secret' not in str(row)


def asking(url: str, key: str, *texts: str) -> tuple:
    """Threads that ask, and the dict where the statuses of their answers come to."""
    answers: dict = {}
    threads = [threading.Thread(target=lambda k=k, text=text: answers.update(
        {(k, text): ask(url, key, text)[0]})) for k, text in enumerate(texts)]
    for thread in threads:
        thread.start()
    return threads, answers


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(url: str) -> int:
    return call(url, 'GET', '/api/info')[2]['waiting']


def test_one_crash_of_a_batch_leaves_the_others():
    with serving() as (url, inferencer):
        key = upload(url)
        first, _ = asking(url, key, 'held')
        until(lambda: inferencer.batches == [1])
        threads, answers = asking(url, key, 'crash', 'square', 'ring')
        until(lambda: waiting(url) == 3)
        inferencer.gate.set()
        for thread in first + threads:
            thread.join()
        assert answers == {(0, 'crash'): 500, (1, 'square'): 200, (2, 'ring'): 200}
        assert inferencer.batches == [1, 3, 1, 1, 1]


def test_a_closed_connection_ends_its_answer(server):
    url, inferencer = server
    key = upload(url)
    inferencer.written.clear()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request('POST', '/api/segment', json.dumps(dict(picture=key, prompt='slow',
                                                               stream=True)))
    answer = connection.getresponse()
    events = [json.loads(answer.readline()) for _ in range(4)]
    assert events[-1]['event'] == 'outline'
    answer.close()
    connection.close()
    status, _, row = ask(url, key, 'square')
    assert status == 200 and len(row['polygons'][0]['outer']) == 4
    stopped, whole = inferencer.written
    assert 0 < len(stopped) < len(whole) == 35


def test_eight_users_at_once_lose_no_request():
    with serving(ScriptedInferencer(pause=0.001), batch_size=4) as (url, inferencer):
        keys = [upload(url, png(100 + k, 50)) for k in range(8)]
        rows = [[] for _ in keys]

        def user(k: int) -> None:
            for _ in range(5):
                rows[k].append(ask(url, keys[k], 'slow' if k % 2 else 'ring'))
        threads = [threading.Thread(target=user, args=(k, )) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for k, answers in enumerate(rows):
            assert [status for status, *_ in answers] == [200] * 5
            assert all(row['size'] == [50, 100 + k] for *_, row in answers)
        assert sum(inferencer.batches) == 40 and max(inferencer.batches) > 1


@pytest.mark.parametrize('limits, status, message', [
    (dict(max_client=3), 429, 'waiting already'), (dict(max_queue=2), 503, 'try again')])
def test_full_queues_are_told(limits, status, message):
    with serving(batch_size=1, **limits) as (url, inferencer):
        key = upload(url)
        threads, _ = asking(url, key, 'held')
        until(lambda: inferencer.batches == [1])
        threads += asking(url, key, 'square', 'square')[0]
        until(lambda: waiting(url) == 2)
        got, headers, row = ask(url, key, 'ring')
        assert got == status and message in row['error'] and headers['retry-after']
        inferencer.gate.set()
        for thread in threads:
            thread.join()
        assert ask(url, key, 'ring')[0] == 200


def test_paths_only_of_the_allowed_folder(tmp_path):
    (tmp_path / 'in/deep').mkdir(parents=True)
    (tmp_path / 'in/deep/a.png').write_bytes(png(30, 20))
    (tmp_path / 'secret.png').write_bytes(png())
    (tmp_path / 'in/link.png').symlink_to(tmp_path / 'secret.png')
    with serving(settings=dict(root=str(tmp_path / 'in'))) as (url, _):
        def by(path):
            return call(url, 'POST', '/api/segment', dict(path=path, prompt='square'))
        status, _, row = by('deep/a.png')
        assert status == 200 and row['size'] == [20, 30] and row['image'] == 'a.png'
        for path in ('../secret.png', str(tmp_path / 'secret.png'), 'link.png',
                     'deep/../../secret.png'):
            status, _, row = by(path)
            assert status == 403 and str(tmp_path) not in row['error']
        for path in ('deep', 'none.png', 'a\0b.png', ''):
            status, _, row = by(path)
            assert status == 400 and str(tmp_path) not in row['error']


@pytest.mark.parametrize('headers, status', [
    (dict(host='evil.example'), 421), (dict(host='localhost.evil.example:80'), 421),
    (dict(host=''), 421), (dict(host='[::1'), 421), (dict(host='localhost:1'), 200),
    (dict(host='my.name:8600'), 200), (dict(host='MY.name'), 200),
    (dict(origin='http://evil.example'), 403), (dict(origin='null'), 403),
    (dict(host='localhost:1', origin='http://localhost:2'), 403),
    (dict(host='localhost:1', origin='http://localhost:1'), 200),
    ({'sec-fetch-site': 'cross-site'}, 403), ({'sec-fetch-site': 'same-origin'}, 200),
    ({'content-length': '-5'}, 413)])
def test_other_sites_are_refused(headers, status):
    import asyncio

    from simpleseg_mm.serving.guard import Guard
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope)
        await send(dict(type='http.response.start', status=200, headers=[]))

    async def receive():
        return dict(type='http.request', body=b'', more_body=False)

    async def send(message):
        sent.append(message)
    pairs = [(key.encode(), value.encode())
             for key, value in (dict(host='127.0.0.1:80') | headers).items()]
    asyncio.run(Guard(app, ['my.name'], 100)(dict(type='http', headers=pairs), receive, send))
    assert sent[0]['status'] == status and bool(reached) == (status == 200)
    assert b'content-security-policy' in dict(sent[0]['headers'])


@pytest.mark.parametrize('format, check', [
    ('coco', lambda raw: json.loads(raw)['annotations'][0]['area'] == 1200),
    ('labelme', lambda raw: json.loads(raw)['shapes'][0]['label'] == 'a bird'),
    ('geojson', lambda raw: len(json.loads(raw)['features'][0]['geometry']['coordinates']) == 2),
    ('svg', lambda raw: b'<path' in raw), ('cvat', lambda raw: b'mask' in raw),
    ('yolo', lambda raw: zipfile.ZipFile(io.BytesIO(raw)).read('classes.txt') == b'a bird\n')])
def test_edited_outlines_are_exported(server, format, check):
    square = [[10, 10], [50, 10], [50, 45], [10, 45]]
    hole = [[20, 20], [30, 20], [30, 40], [20, 40]]  # the same way round
    objects = [dict(label='a bird', polygons=[dict(outer=square, holes=[hole])])]
    status, _, raw = call(server[0], 'POST', '/api/export', dict(
        format=format, picture=upload(server[0]), objects=objects))
    assert status == 200 and check(raw)


def picked(rows: list[dict], *keys: str) -> list[tuple]:
    return [tuple(row.get(key) for key in keys) for row in rows]


@pytest.mark.parametrize('format, read, expected', [
    ('coco', lambda raw: picked(json.loads(raw)['annotations'], 'category_id', 'area', 'score',
                                'agreement', 'uncertainty'),
     [(1, 50, 0.9, 0.8, [[4, 3, None, 1.5]]), (1, 50, 0.9, 0.8, None),
      (2, 50, None, None, None)]),
    ('labelme', lambda raw: picked(json.loads(raw)['shapes'], 'label', 'group_id', 'score',
                                   'uncertainty'),
     [('cup', 0, 0.9, [4, 3, None, 1.5]), ('cup', 1, 0.9, None), ('plate', 2, None, None)]),
    ('geojson', lambda raw: picked([one['properties'] for one in json.loads(raw)['features']],
                                   'label', 'confidence', 'agreement', 'uncertainty'),
     [('cup', 0.9, 0.8, [[1.5, None, 3, 4, 1.5]]), ('cup', 0.9, 0.8, None),
      ('plate', None, None, None)]),
    ('svg', lambda raw: [raw.count(b'<path'), raw.count(b'data-confidence="0.9'),
                         raw.count(b'<circle'), raw.count(b'nan')], [3, 2, 3, 0]),
    ('cvat', lambda raw: [raw.count(b'<polygon'), raw.count(b'>0.9000</attribute>')], [3, 2]),
    ('yolo', lambda raw: zipfile.ZipFile(io.BytesIO(raw)).read('a.txt').count(b'\n'), 3)])
def test_objects_keep_their_score_and_how_sure_their_vertices_are(server, format, read, expected):
    ring = [[10, 10], [20, 10], [20, 15], [10, 15]]  # the second vertex was moved by hand
    spread = [[[1, 1.5], None, [2, 3], [3, 4]]]
    cup = dict(label='cup', score=0.9, agreement=0.8, polygons=[dict(outer=ring, holes=[])])
    sure = dict(cup, polygons=[dict(outer=ring, holes=[], spread=spread)])
    plate = dict(label='plate', score=None, polygons=cup['polygons'])
    status, _, raw = call(server[0], 'POST', '/api/export', dict(
        format=format, picture=upload(server[0]), objects=[sure, cup, plate]))
    assert status == 200 and read(raw) == expected


def test_an_answer_is_exported_as_it_came():
    with serving(ScriptedInferencer(samples=4), settings=dict(export_seconds=100.0)) as (url, _):
        key = upload(url)
        row = ask(url, key, dict(text='two', all=True))[2]
        assert [len(one['spread']) for one in row['polygons']] == [1, 2]
        assert row['agreements'][0] == row['scores'][0] * 2 and row['answers'] == 5
        objects = [dict(label='cup', score=score, agreement=agreement, polygons=[polygon])
                   for score, agreement, polygon in zip(row['scores'], row['agreements'],
                                                        row['polygons'])]
        raw = call(url, 'POST', '/api/export', dict(format='geojson', picture=key,
                                                    objects=objects))[2]
        for feature, polygon in zip(json.loads(raw)['features'], row['polygons'], strict=True):
            widths = {tuple(point): pair[1] for ring, spread in zip(
                [polygon['outer'], *polygon['holes']], polygon['spread'])
                for point, pair in zip(ring, spread)}
            for ring, found in zip(feature['geometry']['coordinates'],
                                   feature['properties']['uncertainty'], strict=True):
                assert found == [widths[tuple(point)] for point in ring]


@pytest.mark.parametrize('samples, most, given, answers', [
    (0, None, {}, 1), (4, None, {}, 5), (4, None, dict(consensus=0), 1),
    (0, 6, {}, 1), (0, 6, dict(consensus=6), 7), (4, 2, dict(consensus=3), 4)])
def test_a_request_says_how_many_samples_are_voted(samples, most, given, answers):
    with serving(ScriptedInferencer(samples=samples),
                 settings=dict(max_consensus=most)) as (url, _):
        info = call(url, 'GET', '/api/info')[2]
        assert (info['consensus'], info['max_consensus']) == (samples, max(samples, most or 0))
        status, _, row = ask(url, upload(url), 'square', **given)
        assert (status, row['answers']) == (200, answers)
        assert (row['agreement'] is None) == (answers == 1)
        for bad in (-1, info['max_consensus'] + 1, 1.0, True, '2', [1]):
            status, _, row = ask(url, upload(url), 'square', consensus=bad)
            assert status == 400 and '0 to' in row['error']
        assert ask(url, upload(url), 'square', consensus=None)[0] == 200


@pytest.mark.parametrize('arguments, message', [
    (['-1'], '--max-consensus is -1; give a number of samples, 0 to 1000'),
    (['1001'], '0 to 1000'),
    (['4', '--endpoint', 'http://localhost:9/v1'], 'is for a model that runs here')])
def test_samples_of_the_command_are_checked_before_a_model_is_loaded(arguments, message, capsys):
    from simpleseg_mm import cli
    assert cli.main(['serve', '--max-consensus', *arguments]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('prompts, asked', [
    ((), ['text', 'point', 'box', 'all', 'everything']), (('text', ), ['text']),
    (('all', 'text'), ['text', 'all'])])
def test_what_the_model_was_taught_is_told(prompts, asked):
    with serving(ScriptedInferencer(taught=Taught(prompts=prompts))) as (url, _):
        assert call(url, 'GET', '/api/info')[2]['asked'] == asked


@pytest.mark.parametrize('change, message', [
    (dict(objects=[dict(label='x', polygons=[], score=1.5)]), '`score` is a number from 0 to 1'),
    (dict(objects=[dict(label='x', polygons=[], score='1')]), '`score` is a number from 0 to 1'),
    (dict(objects=[dict(label='x', polygons=[], score=True)]), '`score` is a number from 0 to 1'),
    (dict(objects=[dict(label='x', polygons=[], agreement=[])]), '`agreement` is a number'),
    *((dict(objects=[dict(polygons=[dict(outer=[[1, 1], [2, 2], [3, 1]], spread=spread)])]),
       '`spread` of a polygon') for spread in (
        3, 'abc', {}, [], [[]], [[None] * 2], [[[1, 2]] * 4], [[1, 2, 3]], [[[1, 2, 3]] * 3],
        [[[1, -1]] * 3], [[[1, 'x']] * 3], [[[1, 1e99]] * 3], [[[1, 2]] * 3, [[1, 2]]])),
    (dict(format='psd'), 'unknown format'), (dict(objects=[]), 'no object'),
    (dict(objects=[dict(polygons=[dict(outer=[[1, 1], [2, 2]])])]), 'at least 3 points'),
    (dict(objects=[dict(polygons=[dict(outer=[[1, 1], [2, 2], [3, 1e9]])])]), 'at least 3'),
    (dict(objects=[dict(polygons=[dict(outer=None)])]), 'at least 3'),
    (dict(objects=[dict(polygons='x')]), 'give dict'), (dict(objects=[3]), 'give dict'),
    (dict(objects=[dict(polygons=[dict(outer=[[1, 1], [2, 2], [3, 1]], holes=3)])]), 'polygon is'),
    (dict(objects=None), 'a list'), (dict(width=10**9), 'within the limits'),
    (dict(width='5'), 'within the limits')])
def test_bad_exports(alive, change, message):
    triangle = dict(label='x', polygons=[dict(outer=[[1, 1], [9, 1], [9, 9]], holes=[])])
    status, _, raw = call(alive, 'POST', '/api/export', dict(
        format='coco', width=20, height=20, objects=[triangle]) | change)
    assert status == 400 and message in raw['error']


def test_objects_times_pixels_are_bounded_before_anything_is_filled():
    from simpleseg_mm.serving.edited import read_objects
    thing = dict(label='x', polygons='not looked at')
    with pytest.raises(ValueError, match='too many objects for so large a picture'):
        read_objects('a.png', (3000, 4000), [thing] * 84)
    with pytest.raises(ValueError, match='object 0: give dict'):
        read_objects('a.png', (3000, 4000), [thing] * 83)


def test_the_page_asks_the_network_for_nothing_of_others(server):
    import re
    status, headers, page = call(server[0], 'GET', '/')
    assert status == 200 and headers['content-type'] == 'text/html; charset=utf-8'
    text = page.decode()
    for address in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert address.startswith('/static/')
        status, _, content = call(server[0], 'GET', address)
        assert status == 200
        text += content.decode()
    assert not re.findall(r'https?://(?!www\.w3\.org/2000/svg)', text)
    assert 'innerHTML' not in text and ' style=' not in text
    row = call(server[0], 'GET', '/api/info')[2]
    assert row['formats'] == ['coco', 'cvat', 'geojson', 'labelme', 'svg', 'yolo']


def test_old_pictures_make_room():
    with serving(settings=dict(picture_mb=0.05)) as (url, _):
        keys = [upload(url) for _ in range(5)]  # 15 kB each
        states = [call(url, 'GET', f'/api/pictures/{key}')[0] for key in keys]
        assert states == [404, 404, 200, 200, 200]
