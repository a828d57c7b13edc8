"""Label Studio's ML-backend protocol, with the requests that label-studio-ml documents."""
import base64
import http.server
import threading

import pytest

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import serving  # noqa: E402
from test_serving import call, png  # noqa: E402

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
