"""Label Studio's ML-backend protocol, with the requests that label-studio-ml documents."""
import base64
import http.server
import json
import threading
import time
from contextlib import contextmanager
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402
from test_serving import call, png  # noqa: E402

from simpleseg_mm.polygon import PolygonCodec  # noqa: E402
from simpleseg_mm.serving import label_studio as label_studio_backend  # noqa: E402
from simpleseg_mm.serving.studio_regions import (read_context, read_label_config,  # noqa: E402
                                                 regions)
from simpleseg_mm.structures import Prompt, Segmentation  # noqa: E402
from simpleseg_mm.taught import Taught  # noqa: E402

CONFIG = '''<View>
  <Image name="image" value="$image" zoom="true"/>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="bird"/></KeyPointLabels>
  <RectangleLabels name="rect" toName="image" smart="true"><Label value="ring"/></RectangleLabels>
  <PolygonLabels name="label" toName="image"><Label value="ring"/><Label value="bird"/>
  </PolygonLabels></View>'''
IMAGE = 'data:image/png;base64,' + base64.b64encode(png()).decode()  # 100 x 50


def request(context=None, config=CONFIG, **data) -> dict:
    """As Label Studio sends it."""
    return dict(tasks=[dict(id=7, data=dict(image=IMAGE) | data)], model_version='v',
                project='3.1700000000', label_config=config,
                params=dict(login=None, password=None, context=context))


def region(kind: str, value: dict, **more) -> dict:
    return dict(result=[dict(id='a', type=kind, original_width=100, original_height=50,
                             image_rotation=0, from_name='kp', to_name='image', value=value)
                        | more])


@pytest.fixture(scope='module')
def server():
    with serving() as (url, inferencer):
        yield url, inferencer


def test_the_project_connects(server):
    url, _ = server
    assert call(url, 'GET', '/health')[2]['status'] == 'UP'
    status, _, row = call(url, 'POST', '/setup', dict(
        project='3.1700000000', schema=CONFIG, hostname='http://localhost:8080',
        access_token='t', extra_params='{}'))
    version = row['model_version']
    assert status == 200 and 'simpleseg' in version
    assert call(url, 'GET', '/versions')[2] == dict(versions=[version])
    assert call(url, 'GET', '/metrics')[0] == 200
    for action in ('ANNOTATION_CREATED', 'START_TRAINING'):
        assert call(url, 'POST', '/webhook', dict(action=action, project=dict(id=3)))[0] == 201


def test_every_label_is_asked_for(server):
    url, inferencer = server
    status, _, row = call(url, 'POST', '/predict', request())
    assert status == 200
    prediction, = row['results']
    assert [prompt.text for _, prompt in inferencer.seen[-2:]] == ['ring', 'bird']
    ring, bird = prediction['result']
    assert prediction['score'] == 0.5 and prediction['model_version'] == row['model_version']
    assert bird['from_name'] == 'label' and bird['to_name'] == 'image'
    assert bird['type'] == 'polygonlabels' and bird['image_rotation'] == 0
    assert (bird['original_width'], bird['original_height']) == (100, 50)
    value = bird['value']  # 20..60 of 100 in both directions, in percent
    assert sorted(map(tuple, value['points'])) == [(20, 20), (20, 70), (60, 20), (60, 70)]
    assert value['polygonlabels'] == ['bird'] and value['closed']
    assert ring['value']['polygonlabels'] == ['ring']
    assert len(ring['value']['points']) == 10  # the hole is cut open: 4 + 4 + the cut
    assert ring['id'] != bird['id']


def test_expressions_of_the_task_come_before_the_labels(server):
    url, inferencer = server
    _, _, row = call(url, 'POST', '/predict', request(expressions=['a bird', 'nothing']))
    assert [prompt.text for _, prompt in inferencer.seen[-2:]] == ['a bird', 'nothing']
    assert [one['value']['polygonlabels'] for one in row['results'][0]['result']] == [['ring']]


@pytest.mark.parametrize('context, prompt', [
    (region('keypointlabels', dict(x=30, y=40, width=.6, keypointlabels=['bird']),
            is_positive=True), dict(point=[30, 20])),
    (region('keypoint', dict(x=30, y=40, width=.6)), dict(point=[30, 20])),
    (region('rectanglelabels', dict(x=10, y=20, width=50, height=60, rotation=0,
                                    rectanglelabels=['bird'])), dict(box=[10, 10, 60, 40])),
    (region('textarea', dict(text=['the red one'])), dict(text='the red one'))])
def test_what_is_drawn_is_asked(server, context, prompt):
    url, inferencer = server
    status, _, row = call(url, 'POST', '/predict', request(context))
    assert status == 200 and inferencer.seen[-1][1].to_dict() == prompt
    found, = row['results'][0]['result']
    label = context['result'][0]['value'].get(context['result'][0]['type'], ['ring'])
    assert found['value']['polygonlabels'] == label


@pytest.mark.parametrize('body, status, message', [
    (request(config='<View>'), 400, 'not XML'), (request(config='<View/>'), 400, 'PolygonLabels'),
    (request(config='<!DOCTYPE a [<!ENTITY b "c">]><View/>'), 400, 'DOCTYPE'),
    (request(config=None), 400, 'label_config'), (dict(request(), tasks=None), 400, 'tasks'),
    (dict(request(), tasks=[3]), 400, 'no picture'), (request(image=5), 400, 'no picture'),
    (request(image='data:image/png;base64,AAAA'), 400, 'no picture that can be read'),
    (request(image='http://169.254.169.254/x'), 403, 'fetches no addresses'),
    (request(image='/data/upload/1/a.png'), 403, 'fetches no addresses'),
    (request(image='/data/local-files/?d=a.png'), 403, 'reads no paths'),
    (request(image='file:///etc/passwd'), 403, 'fetches no addresses'),
    (request(dict(result=[])), 400, 'no keypoint'), (request(dict(result=[3])), 400, 'no value'),
    (request(region('keypoint', dict(x='a', y=1))), 400, 'could not convert'),
    (request(region('keypoint', dict(x=130, y=1))), 400, 'outside'),
    (request(region('keypoint', dict(x=1, y=1), is_positive=0)), 400, 'no keypoint'),
    (request(region('rectangle', dict(x=1, y=1, width=-5, height=3))), 400, 'negative size'),
    (request(region('textarea', dict(text=['']))), 400, 'expression')])
def test_bad_requests(server, body, status, message):
    url, _ = server
    got, _, row = call(url, 'POST', '/predict', body)
    assert got == status and message in row['error']
    assert call(url, 'GET', '/health')[0] == 200



def tasks_of(*pictures: str) -> dict:
    return dict(request(), tasks=[dict(id=number, data=dict(image=picture))
                                  for number, picture in enumerate(pictures)])


BROKEN = 'data:image/png;base64,AAAA'


def test_a_task_that_fails_leaves_the_others(server):
    """Label Studio takes nothing of a request that fails, and passes over a prediction without a
    result, which it logs."""
    status, _, row = call(server[0], 'POST', '/predict', tasks_of(
        IMAGE, BROKEN, 'http://169.254.169.254/x', IMAGE))
    assert status == 200
    assert [len(one.get('result', ())) for one in row['results']] == [2, 0, 0, 2]
    assert 'no picture that can be read' in row['results'][1]['error']
    assert 'fetches no addresses' in row['results'][2]['error']
    assert not any('result' in one or '\n' in one['error'] for one in row['results'][1:3])


def test_a_model_that_fails_on_one_task(server):
    body = tasks_of(IMAGE, IMAGE)
    body['tasks'][0]['data']['expression'] = 'crash'
    status, _, row = call(server[0], 'POST', '/predict', body)
    assert status == 200 and 'error' in row['results'][0] and row['results'][1]['result']


def test_tasks_that_all_fail_are_an_error(server):
    status, _, row = call(server[0], 'POST', '/predict', tasks_of(BROKEN, BROKEN))
    assert status == 400 and 'no picture that can be read' in row['error']


def test_of_more_tasks_than_are_taken_label_studio_asks_one_by_one(server):
    """It does so where one answer comes for several tasks."""
    before = len(server[1].seen)
    status, _, row = call(server[0], 'POST', '/predict', tasks_of(*[IMAGE] * 101))
    found, = row['results']
    assert status == 200 and 'result' not in found and 'at most 100' in found['error']
    assert len(server[1].seen) == before


def test_what_is_done_is_kept_where_time_is_up(server, monkeypatch):
    monkeypatch.setattr(label_studio_backend, 'BATCH_SECONDS', -1.0)
    status, _, row = call(server[0], 'POST', '/predict', tasks_of(IMAGE, IMAGE))
    first, second = row['results']
    assert status == 200 and first['result'] and 'Retrieve it again' in second['error']


def polygon_labels(inside='', more='') -> str:
    return (f'<View><Image name="image" value="$image"/><PolygonLabels name="label" '
            f'toName="image" {more}>{inside}</PolygonLabels></View>')


@pytest.mark.parametrize('config, data, asked, names', [
    # label-studio #2223, #2502: labels from the task
    (polygon_labels(more='value="$classes"'), dict(classes=[dict(value='ring')]),
     ['ring'], ['ring']),
    (polygon_labels(more='value="$classes"'), dict(classes=['ring', 'bird']), ['ring', 'bird'],
     ['ring', 'bird']),
    (polygon_labels(more='value="$a.labels[0]"'), dict(a=dict(labels=[[dict(value='ring')]])),
     ['ring'], ['ring']),
    (polygon_labels('<Label value="bird"/>', 'value="$classes"'),
     dict(classes=[dict(value='ring', alias='r'), dict(value='bird')]), ['bird', 'ring'],
     ['bird', 'r']),
    # annotations hold the alias; the value is the words
    (polygon_labels('<Label value="small ring" alias="ring_s"/>'), {}, ['small ring'],
     ['ring_s']),
    (polygon_labels('<View><Label value=" ring "/></View>'), {}, ['ring'], ['ring']),
    (polygon_labels('<Label value="a"/><Label value="small ring" alias="s"/>'),
     dict(expression='small ring'), ['small ring'], ['s']),
    (polygon_labels(), dict(expression='ring'), ['ring'], ['ring']),
    (polygon_labels('<Label value="ring"/>').replace('"$image"', '"data:$kind,$raw"'),
     dict(kind='image/png;base64', raw=IMAGE.partition(',')[2]), ['ring'], ['ring'])])
def test_labels_of_config_and_task(server, config, data, asked, names):
    url, inferencer = server
    status, _, row = call(url, 'POST', '/predict', request(config=config, **data))
    assert status == 200, row
    assert [prompt.text for _, prompt in inferencer.seen[-len(asked):]] == asked
    found = [one['value']['polygonlabels'] for one in row['results'][0]['result']]
    assert found == [[name] for name in names]


@pytest.mark.parametrize('config, data, message', [
    (polygon_labels(more='value="$classes"'), {}, 'no label to ask for'),
    (polygon_labels(more='value="$classes"'), dict(classes=[]), 'no label to ask for'),
    (polygon_labels(more='value="$classes"'), dict(classes='ring'), 'is to be a list'),
    (polygon_labels(more='value="$classes"'), dict(classes=[[1]]), 'a label of data.classes'),
    (polygon_labels(), {}, 'no label to ask for'),
    (polygon_labels('<Label value="x"/>'), dict(expressions=['a'] * 101), 'at most 100'),
    (polygon_labels(''.join(f'<Label value="{k}"/>' for k in range(101))), {}, 'at most 100'),
    ('<View><Image name="i" value="$image"/><KeyPointLabels name="k" toName="i"/></View>', {},
     'needs <Image')])
def test_labels_that_are_missing_are_told(server, config, data, message):
    status, _, row = call(server[0], 'POST', '/predict', request(config=config, **data))
    assert status == 400 and message in row['error']


TOO_LONG = 'x' * 2001


@pytest.mark.parametrize('body', [
    request(expression=TOO_LONG), request(expressions=['ring', TOO_LONG]),
    request(config=polygon_labels(f'<Label value="{TOO_LONG}"/>')),
    request(config=polygon_labels(more='value="$c"'), c=[TOO_LONG]),
    request(region('textarea', dict(text=[TOO_LONG]))),
    request(region('textarea', dict(text=TOO_LONG)))])
def test_one_limit_of_texts_for_all_entrances(server, body):
    url, inferencer = server
    count = len(inferencer.seen)
    status, _, row = call(url, 'POST', '/predict', body)
    assert status == 400 and 'more than 2000 characters' in row['error']
    assert len(inferencer.seen) == count  # none of the request's texts was asked


@pytest.mark.parametrize('kind, value, prompt', [
    # label-studio #2502: a right border of 100 % is inside, whatever the width
    ('keypoint', dict(x=100, y=100), dict(point=[223, 49])),
    ('keypoint', dict(x=100.000001, y=-0.000001), dict(point=[223, 0])),
    ('rectangle', dict(x=50, y=0, width=50, height=100), dict(box=[111.5, 0, 223, 49])),
    # turned by 90 degrees about its first corner: it lies to the left of it
    ('rectangle', dict(x=50, y=0, width=20, height=100, rotation=90),
     dict(box=[62.5, 0, 111.5, 44.6]))])
def test_positions_in_percent(server, kind, value, prompt):
    url, inferencer = server
    image = 'data:image/png;base64,' + base64.b64encode(png(223, 49)).decode()
    status, _, row = call(url, 'POST', '/predict', request(region(kind, value), image=image))
    assert status == 200, row
    asked = inferencer.seen[-1][1].to_dict()
    assert list(asked) == list(prompt)
    assert np.allclose(*(list(one.values())[0] for one in (asked, prompt)), atol=1e-3)


def read_brush(rle) -> np.ndarray:
    """rle-pack's own way back: (values) uint8."""
    bits = ''.join(f'{byte:08b}' for byte in rle)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count:place], 2)
    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list = []
    while len(out) < count:
        repeated, length = take(1), take(sizes[take(2)]) + 1
        out += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    return np.array(out[:count], np.uint8)


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (40, 50), (300, 260)])
def test_brush_masks_are_the_mask(size):
    from simpleseg_mm.files.brush import write_brush
    for share in (0, 0.02, 0.5, 1):
        mask = np.random.default_rng(0).random(size) < share
        mask[size[0] // 2:] |= share == 0.02  # a run longer than a length has bits
        found = read_brush(write_brush(mask)).reshape(*size, 4)
        assert (found == np.where(mask, 255, 0)[..., None]).all()


def test_brushes_and_rectangles_where_the_config_has_no_polygons(server):
    def predict(control):
        config = polygon_labels('<Label value="ring"/>').replace('PolygonLabels', control)
        status, _, row = call(server[0], 'POST', '/predict', request(config=config))
        assert status == 200, row
        found, = row['results'][0]['result']
        return found
    brush = predict('BrushLabels')
    assert brush['type'] == 'brushlabels' and brush['value']['brushlabels'] == ['ring']
    mask = read_brush(brush['value']['rle']).reshape(50, 100, 4)[..., 0] > 0
    assert mask.sum() == 80 * 40 - 20 * 10 and not mask[25, 50]  # with its hole
    box = predict('RectangleLabels')
    value = box['value']
    assert box['type'] == 'rectanglelabels' and value['rectanglelabels'] == ['ring']
    assert (value['x'], value['y'], value['width'], value['height']) == (10, 10, 80, 80)


@pytest.mark.parametrize('control, read', [
    ('PolygonLabels', lambda value: len(value['points'])),
    ('BrushLabels', lambda value: int((read_brush(value['rle']).reshape(-1, 4)[:, 0] > 0).sum())),
    ('RectangleLabels', lambda value: (value['width'], value['height']))])
def test_a_label_means_all_its_objects_where_the_model_knows_lists(control, read):
    expected = dict(PolygonLabels=[4, 10], BrushLabels=[40 * 25, 80 * 40 - 20 * 10],
                    RectangleLabels=[(40, 50), (80, 80)])[control]
    config = polygon_labels('<Label value="two"/><Label value="nothing"/>').replace(
        'PolygonLabels', control)
    inferencer = ScriptedInferencer(taught=Taught(prompts=('all', 'text')), samples=2)
    with serving(inferencer) as (url, _):
        status, _, row = call(url, 'POST', '/predict', request(config=config))
        assert status == 200, row
        assert [(prompt.text, prompt.all) for _, prompt in inferencer.seen] == [
            ('two', True), ('nothing', True)]
        prediction, = row['results']
        first, second = prediction['result']
        assert [read(one['value']) for one in (first, second)] == expected
        assert 0.4 < first['score'] < second['score'] < 0.5  # each its own
        assert prediction['score'] == pytest.approx((first['score'] + second['score']) / 2)
        # an expression means one object, whatever it holds
        row = call(url, 'POST', '/predict', request(config=config, expression='two'))[2]
        assert not inferencer.seen[-1][1].all and row['results'][0]['result']


def corners_of(value: dict, size: tuple[int, int]) -> np.ndarray:
    """Of a rectangle of Label Studio, turned about its first corner: (4, 2) pixels."""
    w, h = np.multiply((value['width'], value['height']), size[::-1]) / 100
    turn = np.deg2rad(value['rotation'])
    across, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    first = np.multiply((value['x'], value['y']), size[::-1]) / 100
    return np.array([first, first + w * across, first + w * across + h * down, first + h * down])


@pytest.mark.parametrize('corners, turned, sides', [
    ([(40, 5), (75, 40), (60, 48), (25, 15)], True, None),  # a bar across the picture
    ([(20, 10), (60, 10), (60, 30), (20, 30)], True, (20, 40)),
    ([(0, 0), (100, 0), (100, 50), (0, 50)], True, (50, 100)),
    # a band from corner to corner, whose turned rectangle has all corners outside
    ([(0, 40), (90, 0), (100, 0), (100, 10), (10, 50), (0, 50)], True, (50, 100)),
    ([(40, 5), (75, 40), (60, 48), (25, 15)], False, None)])
def test_rectangles_are_turned_where_the_config_says_so(corners, turned, sides):
    text = '[[' + ','.join(f'[{x},{y * 2}]' for x, y in corners) + ']]'
    answer = PolygonCodec(grammar='int100').decode(text, (50, 100), num_tokens=1, finished=True,
                                                   seconds=0, confidence=0.5)
    found = Segmentation.of(answer, 'a', Prompt(text='ring'))
    config = read_label_config(
        '<View><Image name="image" value="$image"/><RectangleLabels name="r" toName="image" '
        f'canRotate="{str(turned).lower()}"><Label value="ring"/></RectangleLabels></View>')
    row, = regions(found, config, 'ring')
    value = row['value']
    assert 0 <= min(value['x'], value['y']) and max(value['x'], value['y']) <= 100
    box = corners_of(value, (50, 100)).astype(np.float32)
    rows, columns = np.nonzero(found.mask)
    distance = min(cv2.pointPolygonTest(box, (float(x) + 0.5, float(y) + 0.5), True)
                   for x, y in zip(columns, rows))
    assert distance > 0.49  # every pixel is inside
    area = value['width'] * value['height'] / 2
    if value['rotation']:
        assert turned and area < np.prod(found.box[2:] - found.box[:2]) - 1
    else:
        assert area == pytest.approx(np.prod(found.box[2:] - found.box[:2]), abs=0.1)
    if sides:
        assert sorted(np.ptp(box, axis=0)) == pytest.approx(sides, abs=0.1)
    # read again, as a box that was drawn, it is asked as the box around it
    (prompt, label), = read_context(dict(result=[dict(row, type='rectanglelabels')]), (50, 100))
    assert label == 'ring'
    assert prompt.box == pytest.approx([*box.min(axis=0), *box.max(axis=0)], abs=0.01)


ODD = 'a "cup", <é>;=\N{GRINNING FACE}'


@pytest.mark.parametrize('control, more', [
    ('PolygonLabels', ''), ('BrushLabels', ''), ('RectangleLabels', ''),
    ('RectangleLabels', ' canRotate="true"'), ('PolygonLabels', ' value="$classes"')])
def test_label_studios_own_code_takes_the_predictions(control, more):
    """Of the package label-studio-sdk: its validator, and the type of an answer."""
    sdk = pytest.importorskip('label_studio_sdk.label_interface')
    from label_studio_sdk.label_interface.objects import PredictionValue
    labels = '' if '$' in more else ''.join(
        f'<Label value="{escape(name, {chr(34): "&quot;"})}"/>' for name in ('two', 'ring', ODD))
    config = (f'<View><Image name="image" value="$image"/><{control} name="label" toName="image"'
              f'{more}>{labels}</{control}></View>')
    with serving(ScriptedInferencer(taught=Taught(prompts=('text', 'all')))) as (url, _):
        status, _, row = call(url, 'POST', '/predict', request(
            config=config, classes=[dict(value=name) for name in ('two', 'ring', ODD)]))
    assert status == 200
    prediction, = row['results']
    assert len(prediction['result']) == 4
    checked = {key: prediction[key] for key in ('model_version', 'score', 'result')}
    assert PredictionValue(**checked).model_version == row['model_version']
    interface = sdk.LabelInterface(config)
    if '$' in more:  # the validator sees no labels of a task
        interface = sdk.LabelInterface(config.replace(' value="$classes"', '').replace(
            '></Poly', '>' + ''.join(f'<Label value="{escape(name, {chr(34): "&quot;"})}"/>'
                                     for name in ('two', 'ring', ODD)) + '</Poly'))
    assert interface.validate_prediction(checked, return_errors=True) == []


@pytest.mark.parametrize('prompts', [(), ('text', 'point', 'box')])
def test_a_label_means_one_object_where_lists_are_not_known(prompts):
    inferencer = ScriptedInferencer(taught=Taught(prompts=prompts))
    with serving(inferencer) as (url, _):
        assert call(url, 'POST', '/predict', request())[0] == 200
    assert [prompt.all for _, prompt in inferencer.seen] == [False, False]


@pytest.mark.parametrize('tag', range(1, 9))
def test_percent_are_of_the_upright_picture(server, tag):
    """Label Studio shows pictures upright (label-studio #1266, #5313)."""
    url, inferencer = server
    exif = Image.Exif()
    exif[0x0112] = tag
    raw = base64.b64encode(png(100, 50, format='JPEG', exif=exif)).decode()
    status, _, row = call(url, 'POST', '/predict', request(
        region('keypoint', dict(x=10, y=90)), image='data:image/jpeg;base64,' + raw))
    width, height = (100, 50) if tag < 5 else (50, 100)
    assert status == 200 and inferencer.seen[-1][0] == (height, width, 3)
    assert inferencer.seen[-1][1].point == pytest.approx((width / 10, height * 0.9))
    found, = row['results'][0]['result']
    assert (found['original_width'], found['original_height']) == (width, height)
    assert found['image_rotation'] == 0
    assert sorted(map(tuple, found['value']['points'])) == [(20, 20), (20, 70), (60, 20),
                                                            (60, 70)]


@contextmanager
def label_studio(answer):
    """A Label Studio whose ``answer(handler)`` gives (status, headers, body)."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get('Content-Length') or 0)
            self.body = self.rfile.read(length)
            seen.append((self.path, self.headers.get('Authorization')))
            status, headers, body = answer(self)
            self.send_response(status)
            for key, value in {'Content-Length': len(body), **headers}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body)
        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', seen
    finally:
        server.shutdown()
        server.server_close()


def fetcher(base, key=None, max_bytes=10**6):
    from simpleseg_mm.serving.studio_pictures import Fetcher
    return Fetcher(base, key, max_bytes)


@pytest.mark.parametrize('place, path', [
    # bing_image_downloader #30, label-studio #2291, #1266
    ('/data/upload/1/my photo.jpg', '/data/upload/1/my%20photo.jpg'),
    ('/data/upload/1/my%20photo.jpg', '/data/upload/1/my%20photo.jpg'),
    ('/data/upload/1/写真.jpg', '/data/upload/1/%E5%86%99%E7%9C%9F.jpg'),
    ('/data/upload/1/%E5%86%99%E7%9C%9F é.jpg', '/data/upload/1/%E5%86%99%E7%9C%9F%20%C3%A9.jpg'),
    ('/data/upload/1/100%.jpg', '/data/upload/1/100%25.jpg'),
    ('/data/upload/1/a#1.jpg', '/data/upload/1/a%231.jpg'),
    ('data/upload/1/a.jpg', '/data/upload/1/a.jpg'),
    ('/data/local-files/?d=in/my photo.jpg', '/data/local-files/?d=in/my%20photo.jpg'),
    ('BASE/data/upload/1/my photo.jpg', '/data/upload/1/my%20photo.jpg'),
    ('BASE/tasks/1/resolve/?fileuri=czM6Ly9h', '/tasks/1/resolve/?fileuri=czM6Ly9h')])
def test_addresses_as_they_are_sent(place, path):
    base = 'http://studio:8080'
    assert fetcher(base).address(place.replace('BASE', base)) == base + path
    below = 'http://studio:8080/ls'
    assert fetcher(below + '/').address(place.replace('BASE', below)) == below + path
    if place.startswith('/'):
        assert fetcher(below).address('/ls' + place) == below + path


@pytest.mark.parametrize('place', [
    'http://studio:8081/a.png', 'https://studio:8080/a.png', '//evil.example/a.png',
    'http://studio:8080@evil.example/a.png', 'http://x@studio:8080/a.png', 's3://bucket/a.png',
    'file:///etc/passwd', 'javascript:alert(1)', 'http://studio:99999/a', 'http://[::1/a'])
def test_addresses_of_other_places(place):
    with pytest.raises((PermissionError, ValueError)) as found:
        fetcher('http://studio:8080').address(place)
    assert '\n' not in str(found.value)


def test_default_ports_and_letters_are_one_place():
    assert fetcher('http://Studio').address('http://studio:80/a') == 'http://studio:80/a'


@pytest.mark.parametrize('base, key', [
    ('localhost:8080', None), ('ftp://studio', None), ('http://', None), ('', None),
    ('http://studio', 'a b'), ('http://studio', 'ä'), ('http://studio', 'a\nb')])
def test_a_wrong_address_or_token_is_told_at_the_start(base, key):
    with pytest.raises(ValueError) as found:
        fetcher(base, key)
    assert '\n' not in str(found.value) and (key is None or key not in str(found.value))


def jwt(**claims) -> str:
    def part(row):
        return base64.urlsafe_b64encode(json.dumps(row).encode()).decode().rstrip('=')
    return f'{part(dict(alg="HS256", typ="JWT"))}.{part(claims)}.c2ln'


PERSONAL = jwt(token_type='refresh', exp=time.time() + 9e6)


def test_a_personal_token_that_has_ended_is_told_at_the_start():
    with pytest.raises(ValueError, match='has expired: make a new one') as found:
        fetcher('http://studio', jwt(token_type='refresh', exp=time.time() - 1))
    assert '\n' not in str(found.value)
    for claims in ({}, dict(exp='x'), dict(exp=None)):  # Label Studio says whether it is good
        fetcher('http://studio', jwt(**claims))


@pytest.mark.parametrize('slash', ['/', ''])
def test_a_personal_token_is_exchanged(slash):
    """Label Studio 1.18: personal access tokens are JWTs, good for /api/token/refresh alone."""
    given = []

    def answer(handler):
        if handler.command == 'POST':
            if handler.path != '/api/token/refresh' + slash:
                return 404, {}, b''
            assert json.loads(handler.body) == dict(refresh=PERSONAL)
            given.append(jwt(token_type='access', exp=time.time() + 300, number=len(given)))
            return 200, {}, json.dumps(dict(access=given[-1])).encode()
        good = handler.headers['Authorization'] == f'Bearer {given[-1]}' and not answer.refused
        answer.refused = False
        return (200, {}, png(60, 40)) if good else (401, {}, b'{}')
    answer.refused = False
    with label_studio(answer) as (base, seen):
        one = fetcher(base, f' {PERSONAL}\n')
        assert one.fetch('/a.png') == one.fetch('/a.png') == png(60, 40)
        assert len(given) == 1  # one exchange for several pictures
        answer.refused = True  # as where it was withdrawn: renewed once
        assert one.fetch('/a.png') == png(60, 40) and len(given) == 2
        assert not any(PERSONAL in str(header) for _, header in seen)


@pytest.mark.parametrize('key, status, message', [
    ('abc', 401, 'the token is not'), ('abc', 403, 'the token is not'), (None, 401, 'wants a to'),
    (None, 403, 'LABEL_STUDIO_API_KEY'), (PERSONAL, 401, 'personal access token'),
    ('abc', 404, '404'), ('abc', 500, '500')])
def test_refusals_are_told_in_one_line(key, status, message):
    with label_studio(lambda handler: (status, {}, b'{}')) as (base, _):
        with serving(settings=dict(label_studio_url=base, label_studio_key=key)) as (url, _):
            got, _, row = call(url, 'POST', '/predict', request(image='/data/upload/1/a.png'))
    assert got == 400 and message in row['error'] and '\n' not in row['error']
    assert key is None or key not in row['error']


def test_redirects_stay_on_the_site():
    def elsewhere(handler):
        return 200, {}, png()

    def answer(handler):
        place = dict([('/a', '/b'), ('/b', '/c.png'), ('/out', other + '/x'), ('/up', 'https://'
                      + base[7:] + '/x'), ('/round', '/round'), ('/none', '')]).get(handler.path)
        return (200, {}, png()) if place is None else (302, dict(Location=place), b'')
    with label_studio(elsewhere) as (other, strangers), label_studio(answer) as (base, seen):
        one = fetcher(base, 'abc')
        assert one.fetch('/a') == png()
        assert seen == [(path, 'Token abc') for path in ('/a', '/b', '/c.png')]
        for place in ('/out', '/up', '/round', '/none'):
            with pytest.raises(ValueError) as found:
                one.fetch(place)
            assert '\n' not in str(found.value)
        assert not strangers  # nothing was asked there, with or without the token


@pytest.mark.parametrize('body, headers, message', [
    (b'x' * 2000, {}, 'more than 0.001 MB'), (b'abc', {'Content-Length': 10}, 'sent 3 of 10')])
def test_pictures_that_are_too_long_or_short(body, headers, message):
    with label_studio(lambda handler: (200, headers, body)) as (base, _):
        with pytest.raises(ValueError, match=message):
            fetcher(base, max_bytes=1000).fetch('/a.png')


def test_local_files_as_they_are_quoted(tmp_path):
    names = ['my photo.png', '写真.png', 'a+b.png', 'a&b.png', '100%.png', 'q%20.png', '日 é.png']
    for name in names:
        (tmp_path / name).write_bytes(png(30, 20))
    from urllib.parse import quote
    with serving(settings=dict(root=str(tmp_path))) as (url, inferencer):
        for name in names:
            for place in (f'/data/local-files/?d={quote(name)}', f'/data/local-files/?d={name}',
                          f'http://localhost:8080/data/local-files/?d={quote(name)}'):
                status, _, row = call(url, 'POST', '/predict', request(image=place))
                assert status == 200, (place, row)
                assert inferencer.seen[-1][0] == (20, 30, 3)
        status, _, row = call(url, 'POST', '/predict', request(
            image='/data/local-files/?d=none.png'))
        assert status == 400 and 'no picture' in row['error']


def test_local_files_come_from_label_studio_where_no_folder_is_allowed():
    with label_studio(lambda handler: (200, {}, png(60, 40))) as (base, seen):
        with serving(settings=dict(label_studio_url=base)) as (url, _):
            assert call(url, 'POST', '/predict', request(
                image='/data/local-files/?d=a b.png'))[0] == 200
    assert seen == [('/data/local-files/?d=a%20b.png', None)]


@pytest.fixture
def studio():
    """A server that gives a picture to those who have the token."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get('Authorization')))
            if self.path == '/data/upload/1/a.png':
                self.send_response(200)
                self.end_headers()
                self.wfile.write(png(60, 40))
            else:
                self.send_response(302)
                self.send_header('Location', 'http://169.254.169.254/')
                self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', seen
    server.shutdown()


def test_uploads_are_fetched_from_label_studio_alone(studio, tmp_path):
    address, seen = studio
    (tmp_path / 'a.png').write_bytes(png(30, 20))
    with serving(settings=dict(label_studio_url=address, label_studio_key='abc',
                               root=str(tmp_path))) as (url, inferencer):
        for place in ('/data/upload/1/a.png', f'{address}/data/upload/1/a.png'):
            assert call(url, 'POST', '/predict', request(image=place))[0] == 200
            assert inferencer.seen[-1][0] == (40, 60, 3)
        assert seen == [('/data/upload/1/a.png', 'Token abc')] * 2
        for place in ('http://127.0.0.1:1/a.png', '//evil.example/a.png', 'ftp://127.0.0.1/a'):
            status, _, row = call(url, 'POST', '/predict', request(image=place))
            assert status == 403 and 'alone' in row['error']
        status, _, row = call(url, 'POST', '/predict', request(image='/moved'))
        assert status == 400 and '302' in row['error']
        place = '/data/local-files/?d='
        assert call(url, 'POST', '/predict', request(image=place + 'a.png'))[0] == 200
        assert inferencer.seen[-1][0] == (20, 30, 3)
        assert call(url, 'POST', '/predict', request(image=place + '../x.png'))[0] == 403
