"""What breaks in at the server: wrong types everywhere, half requests, floods, greedy clients."""
import base64
import copy
import http.client
import io
import json
import math
import socket
import threading
from contextlib import closing
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402
from test_serving import ask, asking, call, png, until, upload, waiting  # noqa: E402
from test_serving_label_studio import CONFIG, region, request  # noqa: E402

CONTROLS_CONFIG = CONFIG.replace('toName="image">', 'toName="image" value="$classes">')


@pytest.fixture(scope='module')
def server():
    with serving(settings=dict(max_mb=1.0, max_megapixels=4.0)) as (url, inferencer):
        yield url, inferencer


# --- wrong types everywhere --------------------------------------------------------------------
def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


WRONG = [None, True, 0, -1, 1.5, math.nan, math.inf, 10**400, '', 'x', 'x' * 5000, '\ud800', '\0',
         'http://[::1', [], [[]], {}, [None], [1, 2], dict(a=dict()), deep(150), [10**400] * 2]
TRIANGLE = [[1, 1], [9, 1], [9, 9]]
BODIES = [
    ('/api/segment', dict(picture='?', prompt=dict(text='square'), stream=False)),
    ('/api/segment', dict(picture='?', prompt=dict(point=[1, 2]), stream=True)),
    ('/api/segment', dict(image=base64.b64encode(png()).decode(), name='a.png',
                          prompt=dict(box=[1, 2, 30, 40]))),
    ('/api/segment', dict(path='a.png', prompt='square')),
    ('/api/export', dict(format='coco', width=20, height=20, name='a.png', exact=False, objects=[
        dict(label='x', polygons=[dict(outer=TRIANGLE, holes=[TRIANGLE])])])),
    ('/api/export', dict(format='yolo', picture='?', objects=[
        dict(label='x', polygons=[dict(outer=TRIANGLE)])])),
    ('/api/sets', dict(format='coco', exact=False)),
    ('/api/read', dict(files=[dict(path='a.json', text='{}'), dict(path='b.xml', base64='QQ==')],
                       pictures=[dict(path='a.png', width=20, height=20)])),
    ('/setup', dict(project='1', schema=CONFIG, hostname='h', access_token='t')),
    ('/webhook', dict(action='ANNOTATION_CREATED', project=dict(id=3))),
    ('/predict', request(config=CONTROLS_CONFIG, classes=[dict(value='ring', alias='r')])),
    ('/predict', request(expressions=['ring'])),
    ('/predict', request(region('keypointlabels', dict(x=3, y=4, keypointlabels=['bird']),
                                is_positive=True))),
    ('/predict', request(region('rectangle', dict(x=1, y=2, width=5, height=6, rotation=3)))),
    ('/predict', request(region('textarea', dict(text=['ring']))))]


def places(value, path=()):
    """Paths of all values in a body."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(body: dict, path: tuple, value) -> dict:
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return body


@pytest.mark.parametrize('number', range(len(BODIES)))
def test_wrong_types_everywhere_are_refused_in_one_line(server, number):
    url, _ = server
    path, body = BODIES[number]
    if 'picture' in body:
        body = dict(body, picture=upload(url))
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    shared = {place[:2] for other in BODIES[:number] if other[0] == path
              for place in places(other[1]) if len(place) < 3}  # varied there
    for place in places(body):
        if len(place) < 3 and place[:2] in shared:
            continue
        for value in WRONG:
            connection.request('POST', path, json.dumps(with_value(body, place, value)))
            answer = connection.getresponse()
            raw = answer.read()
            if answer.status in (200, 201):
                continue
            what = (place, f'{value!r:.60}', answer.status, raw[:300])
            assert answer.status in (400, 403, 404, 413), what
            error = json.loads(raw)['error']
            assert error and '\n' not in error and len(error) < 600, what
    assert ask(url, upload(url), 'square')[0] == 200


@pytest.mark.parametrize('method, path, headers, status', [
    ('GET', '/', dict(origin='http://[::1'), 403), ('GET', '/', dict(origin='//['), 403),
    ('GET', '/', dict(origin='\xff'), 403), ('GET', '/', dict(host='['), 421),
    ('GET', '/', dict(host='a b'), 421), ('GET', '/', dict(host='localhost:99999999'), 200),
    ('GET', '/static/a%00b', {}, 404), ('GET', '/static/' + 'a' * 5000, {}, 404),
    ('GET', '/static/%ff%fe', {}, 404), ('GET', '/api/pictures/%ff', {}, 404),
    ('GET', '/api/pictures/' + 'a' * 5000, {}, 404), ('DELETE', '/api/info', {}, 405),
    ('GET', '/api/info', {'cookie': 'x' * 5000}, 200),
    ('GET', '/api/info', {'x-forwarded-for': '\xff,,;' * 50}, 200),
    ('POST', '/api/segment', {'content-type': '\xff'}, 400)])
def test_odd_heads(server, method, path, headers, status):
    got, _, row = call(server[0], method, path, None, headers)
    assert got in (status, 400), row
    if isinstance(row, dict) and got != 200:
        assert '\n' not in row['error']


@pytest.mark.parametrize('name', ['x' * 3000 + '.png', '写' * 300, 'a\nb.png', 'a\0.png', '..',
                                  '../../etc/passwd', 'classes.png', 'a/b\\c.png', '', '\x01'])
def test_odd_names_of_pictures(server, name):
    url, _ = server
    status, _, row = call(url, 'POST', f'/api/pictures?name={quote(name)}', png())
    assert status == 201 and len(row['name']) <= 200 and '/' not in row['name']
    triangle = dict(label='x', polygons=[dict(outer=[[1, 1], [9, 1], [9, 9]])])
    for format in ('coco', 'cvat', 'labelme', 'yolo', 'svg'):
        status, headers, _ = call(url, 'POST', '/api/export', dict(
            format=format, picture=row['picture'], objects=[triangle]))
        assert status == 200 and '\n' not in headers['content-disposition']


def test_too_many_values_are_refused_before_they_are_read(server):
    body = b'{"tasks": [' + b'1,' * 500_001 + b'1]}'
    with serving(settings=dict(max_mb=5)) as (url, _):
        for path in ('/predict', '/api/export', '/api/segment'):
            status, _, row = call(url, 'POST', path, body)
            assert status == 400 and '500,000 values' in row['error']


# --- exports -----------------------------------------------------------------------------------
def box(x1, y1, x2, y2):
    return dict(outer=[[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


@pytest.mark.parametrize('format', ['coco', 'cvat', 'labelme', 'geojson', 'svg', 'yolo'])
def test_exports_say_what_they_leave_out(server, format):
    from urllib.parse import unquote
    objects = [dict(label='a\u2028b', polygons=[box(-5, 10, 50, 95)]),
               dict(label='cat', polygons=[box(200, 10, 250, 60)])]
    status, headers, raw = call(server[0], 'POST', '/api/export', dict(
        format=format, width=100, height=80, name='a.png', objects=objects))
    assert status == 200
    notes = json.loads(unquote(headers['x-notes']))
    assert [note.split(' ')[0:4] for note in notes] == [
        ['1', 'of', '2', 'objects'], ['1', 'of', '2', 'objects'], ['1', 'labels', 'hold', 'line']]
    status, _, row = call(server[0], 'POST', '/api/export', dict(
        format=format, width=100, height=80, objects=objects[1:]))
    assert status == 400 and 'no object has a pixel' in row['error']


def zigzag(vertices: int, height: int) -> dict:
    x = np.linspace(1, 1400, vertices)
    y = np.where(np.arange(vertices) % 2, 1, height - 1)
    ring = np.concatenate([np.stack([x, y], 1), [[1400, height], [1, height]]])
    return dict(label='z', polygons=[dict(outer=ring.round(2).tolist())])


def test_an_export_has_a_deadline_and_is_stopped():
    with serving(settings=dict(export_seconds=0.01)) as (url, _):
        body = dict(format='coco', width=1500, height=1500, objects=[zigzag(2000, 1500)])
        status, _, row = call(url, 'POST', '/api/export', body)
        assert status == 400 and 'more than 0.01 s' in row['error']
        assert ask(url, upload(url), 'square')[0] == 200


def test_an_export_has_bounded_memory():
    from simpleseg_mm.serving.exporter import Exporter

    async def main():
        exporter = Exporter(60, 150_000_000)
        objects = [dict(label='x', polygons=[box(1, 1, 4000, 4000)])] * 12  # 16 MB each
        for count, size in ((12, 4000), (1, 100)):
            body = json.dumps(dict(format='coco', objects=objects[:count])).encode()
            try:
                made = await exporter.export(body, (size, size), 'a.png', '')
                assert size == 100 and json.loads(made.content)['annotations'][0]['area'] > 9000
            except ValueError as error:
                assert size == 4000 and 'too much memory' in str(error)
        await exporter.close()
    import anyio
    anyio.run(main)


def test_exports_wait_apart_from_questions_and_have_limits():
    import anyio

    from simpleseg_mm.serving import Busy
    from simpleseg_mm.serving.exporter import MAX_CLIENT, Exporter

    async def main():
        exporter, statuses = Exporter(60, 10**9), []
        held = anyio.Event()

        async def work(*args):
            await held.wait()
            return dict(file='', kind='', notes=[]), b''
        exporter._work = work

        async def one(client):
            try:
                await exporter.export(b'', (1, 1), '', client)
            except Busy as busy:
                statuses.append((client, busy.status))
        async with anyio.create_task_group() as group:
            for client in 'a' * (MAX_CLIENT + 1) + 'bbbbccccdddde':
                group.start_soon(one, client)
                await anyio.sleep(0)
            held.set()
        assert statuses == [('a', 429), ('e', 503)] and not +exporter._clients
    anyio.run(main)


def test_an_export_whose_client_has_gone_is_stopped():
    import anyio

    from simpleseg_mm.serving.http import while_there
    stopped = []

    class Gone:
        async def is_disconnected(self):
            return True

    async def work():
        try:
            await anyio.sleep(60)
        except BaseException:
            stopped.append(True)
            raise

    async def main():
        with pytest.raises(Exception, match='has gone'):
            await while_there(Gone(), work())
    anyio.run(main)
    assert stopped == [True]


# --- connections and bodies --------------------------------------------------------------------
def opened(url: str, raw: bytes, source='127.0.0.1') -> socket.socket:
    one = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30,
                                   source_address=(source, 0))
    one.sendall(raw)
    return one


def closed(one: socket.socket) -> bytes:
    """What comes until the other side closes."""
    raw = b''
    try:
        while part := one.recv(65536):
            raw += part
    except ConnectionResetError:
        pass
    return raw


HALF = b'POST /api/segment HTTP/1.1\r\nhost: localhost\r\ncontent-le'
HEAD = b'POST /api/pictures HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n'


@pytest.mark.parametrize('raw', [
    b'', HALF, b'\r\n', b'GET /api/info HTTP/1.1\r\nhost: localhost\r\n\r\nGET /a'])
def test_half_requests_end(raw):
    with serving(settings=dict(head_seconds=0.3)) as (url, _):
        with closing(opened(url, raw)) as one:
            closed(one)  # or the time of the socket ends the test


def test_a_client_that_does_not_read_is_let_go():
    with serving(settings=dict(head_seconds=0.3)) as (url, _):
        key = upload(url, png(2000, 1500, format='BMP'))
        get = f'GET /api/pictures/{key} HTTP/1.1\r\nhost: localhost\r\n\r\n'.encode()
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((urlsplit(url).hostname, urlsplit(url).port))
        one.settimeout(60)
        with closing(one), pytest.raises((ConnectionError, BrokenPipeError)):
            while True:  # asks on and on, and reads nothing
                one.sendall(get)


def test_half_bodies_end():
    with serving(settings=dict(body_seconds=0.3)) as (url, _):
        for raw in (HEAD % 1000 + b'x' * 10, HEAD % 1000, HEAD.replace(
                b'content-length: %d', b'transfer-encoding: chunked') + b'5\r\nabc'):
            with closing(opened(url, raw)) as one:
                answer = closed(one)
            assert answer.startswith(b'HTTP/1.1 408') and b'not whole after' in answer


def test_connections_are_limited_and_half_ones_make_room():
    with serving(settings=dict(max_connections=12, max_client_connections=8)) as (url, _):
        halves = [opened(url, HALF) for _ in range(30)]
        assert call(url, 'GET', '/api/info')[0] == 200
        others = [opened(url, HALF, f'127.0.0.{2 + k}') for k in range(20)]
        assert call(url, 'GET', '/api/info')[0] == 200
        assert ask(url, upload(url), 'square')[0] == 200
        for one in halves + others:
            one.close()


def test_a_client_with_too_many_whole_requests_is_told():
    with serving(settings=dict(max_client_connections=4), max_client=9, batch_size=1) as (
            url, inferencer):
        key = upload(url)
        threads, answers = asking(url, key, 'held')
        until(lambda: len(inferencer.batches) == 1)
        more, others = asking(url, key, *['square'] * 3)
        info = b'GET /api/info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n'

        def get_info(source: str) -> bytes:
            with closing(opened(url, info, source)) as one:
                return closed(one)
        until(lambda: b'"waiting":3,' in get_info('127.0.0.2'))
        answer = get_info('127.0.0.1')
        assert answer.startswith(b'HTTP/1.1 503')
        assert json.loads(answer.partition(b'\r\n\r\n')[2])['error'].startswith('too many')
        assert get_info('127.0.0.2').startswith(b'HTTP/1.1 200')  # others are served
        inferencer.gate.set()
        for thread in (*threads, *more):
            thread.join()
        assert {*answers.values(), *others.values()} == {200}


def test_unfinished_bodies_are_bounded_in_memory():
    """The largest of the client that has most makes room; small ones always come through."""
    settings = dict(max_mb=1.0, held_mb=4.0, body_seconds=60)
    with serving(settings=settings) as (url, _):
        app = []
        floods = [opened(url, HEAD % 900_000 + b'x' * 800_000) for _ in range(12)]
        raw = png(300, 200)
        for _ in range(5):
            assert ask(url, upload(url, raw), 'square')[0] == 200
        refused = 0
        for one in floods:
            one.settimeout(0.5)
            try:
                refused += b'503' in one.recv(100)
            except (TimeoutError, ConnectionResetError):
                pass
            one.close()
        assert refused >= 12 - 3, app  # half of four megabytes hold two


def test_bodies_of_one_client_and_of_all():
    from simpleseg_mm.serving.guard import Bodies
    bodies = Bodies(100)
    a, b, c = bodies.open('a'), bodies.open('a'), bodies.open('b')
    bodies.grow(a, 30)
    bodies.grow(c, 40)
    bodies.grow(b, 15)
    assert not (a.refused or b.refused or c.refused)
    bodies.grow(b, 10)  # 'a' has 55 of 50
    assert a.refused and not b.refused and not c.refused
    d = bodies.open('c')
    bodies.grow(d, 45)  # all have 110 of 100, no client more than 50
    assert d.refused and not c.refused
    c.whole = True
    e = bodies.open('d')
    bodies.grow(e, 50)  # what is whole is not refused, nor counted against others twice
    assert e.refused and not c.refused and not b.refused
    for one in (a, b, c, d, e):
        bodies.close(one)
    assert not bodies._all


# --- fair shares -------------------------------------------------------------------------------
class Order(ScriptedInferencer):
    """Notes the texts of each batch."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def ask_batch(self, asked, on_text=None, consensus=None):
        self.asked.append([prompt.text for _, prompt in asked])
        return super().ask_batch(asked, on_text, consensus)


def engine_runs(prompts, inferencer=None, **limits):
    """Batches of texts, where (client, text), or with samples of its own, wait while the first is
    held."""
    import anyio

    from simpleseg_mm.serving import Engine
    from simpleseg_mm.structures import Prompt
    inferencer = inferencer or Order()
    engine = Engine(inferencer, **limits)

    async def main():
        picture = np.zeros((50, 100, 3), np.uint8)
        jobs = [engine.submit(picture, Prompt(text='held'), 'first', False)]
        while not inferencer.asked:
            await anyio.sleep(0.01)
        jobs += [engine.submit(picture, Prompt(text=text), client, False,
                               dict(consensus=samples[0]) if samples else {})
                 for client, text, *samples in prompts]
        inferencer.gate.set()
        events = []
        for job in jobs:
            while (event := await job.events.get())['event'] not in ('done', 'error'):
                pass
            events.append(event['event'])
        return events
    try:
        assert set(anyio.run(main)) == {'done'}
    finally:
        engine.close()
    return inferencer.asked[1:]


@pytest.mark.parametrize('prompts, batch_size, batches', [
    # one client's many and another's one: the one is in the next batch
    ([('a', 'a1'), ('a', 'a2'), ('a', 'a3'), ('b', 'b1')], 2, [['a1', 'b1'], ['a2', 'a3']]),
    ([('a', 'a1'), ('a', 'a2'), ('b', 'b1'), ('c', 'c1')], 1, [['a1'], ['b1'], ['c1'], ['a2']]),
    ([('a', 'a1'), ('b', 'b1'), ('a', 'a2'), ('b', 'b2')], 8, [['a1', 'b1', 'a2', 'b2']]),
    # a batch holds no more text than one long expression: long ones are alone
    ([('a', 'x' * 2000), ('a', 'y' * 2000), ('b', 'b1'), ('c', 'c1')], 8,
     [['x' * 2000], ['b1', 'c1'], ['y' * 2000]]),
    ([('a', 'x' * 600), ('a', 'y' * 700), ('a', 'z')], 8, [['x' * 600, 'y' * 700], ['z']]),
    # those of a batch have as many samples voted
    ([('a', 'a1'), ('a', 'a2', 4), ('b', 'b1')], 8, [['a1', 'b1'], ['a2']]),
    ([('a', 'a1', 4), ('b', 'b1'), ('c', 'c1', 4)], 8, [['a1', 'c1'], ['b1']]),
    ([('a', 'a1', 0), ('a', 'a2', 4), ('a', 'a3', 0)], 8, [['a1'], ['a2'], ['a3']]),
])
def test_clients_take_turns(prompts, batch_size, batches):
    assert engine_runs(prompts, batch_size=batch_size) == batches


def test_a_client_with_more_waiting_makes_room_while_it_is_answered(monkeypatch):
    """And its answers come all the same."""
    from simpleseg_mm.serving import engine
    monkeypatch.setattr(engine, 'PATIENCE', 0.0)
    with serving(ScriptedInferencer(pause=0.03), batch_size=1) as (url, inferencer):
        key = upload(url)
        threads, answers = asking(url, key, *['slow'] * 6)
        until(lambda: waiting(url) == 5)
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60,
                                                source_address=('127.0.0.2', 0))
        connection.request('POST', '/api/segment', json.dumps(dict(picture=key, prompt='ring')))
        assert connection.getresponse().status == 200
        assert waiting(url) >= 4  # answered before the others of the greedy client
        assert len(inferencer.written[0]) < 35  # the first had to begin anew
        for thread in threads:
            thread.join()
        assert set(answers.values()) == {200} and len(answers) == 6


def test_one_question_of_a_client_never_makes_room(monkeypatch):
    from simpleseg_mm.serving import engine
    monkeypatch.setattr(engine, 'PATIENCE', 0.0)
    with serving(ScriptedInferencer(pause=0.02), batch_size=1) as (url, inferencer):
        key = upload(url)
        threads, _ = asking(url, key, 'slow')
        until(lambda: inferencer.batches == [1])
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60,
                                                source_address=('127.0.0.2', 0))
        connection.request('POST', '/api/segment', json.dumps(dict(picture=key, prompt='ring')))
        assert connection.getresponse().status == 200
        threads[0].join()
        assert inferencer.batches == [1, 1] and len(inferencer.written[0]) == 35


def test_pictures_of_waiting_questions_are_bounded():
    with serving(max_bytes=50_000, batch_size=1) as (url, inferencer):
        image = base64.b64encode(png(100, 50)).decode()  # 15 kB
        threads = [threading.Thread(target=call, args=(url, 'POST', '/api/segment', dict(
            image=image, prompt=text))) for text in ('held', 'square', 'square', 'square')]
        for thread in threads:
            thread.start()
            until(lambda: inferencer.batches == [1])
        until(lambda: waiting(url) == 3)
        status, _, row = call(url, 'POST', '/api/segment', dict(image=image, prompt='square'))
        assert status == 503 and 'pictures' in row['error']
        inferencer.gate.set()
        for thread in threads:
            thread.join()


# --- pictures that take long -------------------------------------------------------------------
def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        out, 'JPEG', progressive=True)
    raw = out.getvalue()
    last = raw.rfind(b'\xff\xda')
    tables = raw.rfind(b'\xff\xc4', 0, last)
    return raw[:-2] + raw[tables:-2] * count + b'\xff\xd9'


def broken_exif() -> bytes:
    out = io.BytesIO()
    Image.new('RGB', (40, 20)).save(out, 'JPEG', exif=b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12'
                                    b'\0\x03\xff\xff\xff\xff\0')
    return out.getvalue()


def test_every_entrance_refuses_endless_scans_and_reads_broken_exif(tmp_path):
    (tmp_path / 'scans.jpg').write_bytes(scans(5000))
    (tmp_path / 'exif.jpg').write_bytes(broken_exif())
    with serving(settings=dict(root=str(tmp_path))) as (url, _):
        for raw, name, status in ((scans(5000), 'scans.jpg', 413), (broken_exif(), 'exif.jpg',
                                                                    200)):
            text = base64.b64encode(raw).decode()
            found = [call(url, 'POST', '/api/pictures', raw),
                     call(url, 'POST', '/api/segment', dict(image=text, prompt='square')),
                     call(url, 'POST', '/api/segment', dict(path=name, prompt='square')),
                     call(url, 'POST', '/predict', request(
                         image='data:image/jpeg;base64,' + text)),
                     call(url, 'POST', '/predict', request(
                         image='/data/local-files/?d=' + name))]
            assert [got for got, *_ in found] == [status + (status == 200)] + [status] * 4
            assert status == 200 or all('5' in row['error'] for *_, row in found)


@pytest.mark.parametrize('format, size, options, slow', [
    ('JPEG', (3000, 2000), {}, False), ('JPEG', (3000, 2000), dict(progressive=True), False),
    ('PNG', (3000, 2000), {}, False), ('WEBP', (400, 300), {}, False),
    ('WEBP', (3000, 2000), dict(quality=5, method=0), True), ('GIF', (400, 300), {}, False)])
def test_pictures_that_take_long_wait_apart(format, size, options, slow):
    from simpleseg_mm.serving.app import _QUICK
    from simpleseg_mm.serving.pictures import seconds_of
    raw = png(*size, format=format, **options)
    assert (seconds_of(raw) > _QUICK) == slow
    assert seconds_of(b'no picture') == 0
