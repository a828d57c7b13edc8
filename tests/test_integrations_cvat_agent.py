"""CVAT's own command and agent, with SimpleSeg for their function, against a stand-in of CVAT.

    pip install cvat-cli

The stand-in answers those requests of CVAT's REST API that the command and the agent make.
"""
import http.server
import io
import json
import logging
import re
import threading
import urllib.parse
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('cvat_sdk')
main = pytest.importorskip('cvat_cli.__main__').main

from cvat_sdk.masks import decode_mask  # noqa: E402

import simpleseg_mm.serving  # noqa: E402
from simpleseg_mm.apis import SimpleSegInferencer  # noqa: E402

PICTURE = Path(simpleseg_mm.serving.__file__).parent / 'static' / 'example.jpg'
SIZE = Image.open(PICTURE).size
MODULE = ('--function-module', 'simpleseg_mm.integrations.cvat')
ODD = 'rings; "large" = <é>'
LABELS = '-plabels=str:' + json.dumps({ODD: 'large orange ring', 'nothing': 'blue star'})


class Cvat:
    """A task of one picture; ``requests`` wait for an agent; ``posted`` is what it was told."""

    def __init__(self, *requests: dict) -> None:
        self.waiting = {'interactive': [], 'batch': []}
        for number, request in enumerate(requests):
            kind = 'interactive' if request['type'] == 'interact' else 'batch'
            self.waiting[kind].append(dict(ar_id=f'r{number}', ar_params=dict(task=1, **request)))
        self.function, self.posted = {}, []

    def answer(self, method: str, path: str, query: dict, body):
        if method in ('POST', 'PATCH', 'PUT'):
            self.posted.append((path, body))
        if path == '/api/server/about':
            return dict(name='CVAT', description='', version='2.80.0', logo_url='', subtitle='')
        if path == '/api/functions':
            box = dict(startswith_box='startswith_box' in body,
                       startswith_box_optional='startswith_box_optional' in body)
            self.function = dict(dict(min_neg_points=-1), id=7, **box, **{
                key: value for key, value in body.items() if key not in box})
            for label in self.function.get('labels_v2', ()):
                label.setdefault('type', 'any')
            return self.function
        if path == '/api/functions/7':
            return self.function
        if path.endswith('/acquire'):
            waiting = self.waiting[body['request_category']]
            return dict(ar_assignment=waiting.pop(0) if waiting else None)
        if path.endswith(('/complete', '/fail', '/update')) or path.endswith('/annotations'):
            return {}
        if path == '/api/tasks/1':
            return dict(id=1, name='a', size=1, data_chunk_size=1, mode='annotation',
                        data_original_chunk_type='imageset', data_compressed_chunk_type='imageset',
                        updated_date='2026-01-01T00:00:00Z', created_date='2026-01-01T00:00:00Z',
                        labels=dict(url='x'), url='x',
                        jobs=dict(url='x', count=1, completed=0, validation=0),
                        project_id=None, organization=None, organization_id=None,
                        dimension='2d', status='annotation')
        if path == '/api/tasks/1/data/meta':
            return dict(frames=[dict(name='a.jpg', width=SIZE[0], height=SIZE[1],
                                     related_files=0)], deleted_frames=[], size=1, start_frame=0,
                        stop_frame=0, frame_filter='', image_quality=90, chunk_size=1,
                        chunks_updated_date='2026-01-01T00:00:00Z')
        if path == '/api/labels':
            return dict(count=2, next=None, previous=None, results=[
                dict(id=70 + number, name=name, color='#ff0000', type='any', attributes=[],
                     sublabels=[], has_parent=False) for number, name in enumerate((ODD, 'x'))])
        if path == '/api/tasks/1/data':
            if query.get('type') == ['frame']:
                return PICTURE.read_bytes()
            chunk = io.BytesIO()
            with zipfile.ZipFile(chunk, 'w') as archive:
                archive.write(PICTURE, '0.jpg')
            return chunk.getvalue()
        return None

    def told(self, ending: str) -> list:
        return [body for path, body in self.posted if path.endswith(ending)]


@contextmanager
def serving(cvat: Cvat):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do(self):
            path = urllib.parse.urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            query = urllib.parse.parse_qs(path.query)
            answer = cvat.answer(self.command, path.path.rstrip('/'), query,
                                 json.loads(raw) if raw else None)
            self.send_response(404 if answer is None else 200)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_header('Content-Type', 'application/octet-stream' if isinstance(
                answer, bytes) else 'application/json')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do

        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield '127.0.0.1', str(server.server_port)
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(monkeypatch):
    """Runs ``cvat-cli`` with these arguments against a stand-in; its exit code."""
    monkeypatch.setenv('CVAT_ACCESS_TOKEN', 'abc')

    def run(cvat: Cvat, *arguments: str) -> int:
        with serving(cvat) as (host, port):
            return main(['--server-host', f'http://{host}', '--server-port', port, *arguments])
    yield run
    logging.getLogger('cvat_cli.__main__').handlers.clear()


@pytest.mark.parametrize('parameters, message', [
    (['-plabels=str:;'], 'give names of labels'), (['-plabels=str:["a"'], 'is not JSON'),
    (['-plabels=str:{"a": 3}'], 'give names of labels'),
    (['-plabels=str:a', '-pshapes=str:box'], 'give one of'),
    (['-plabels=str:a', '-pweights=str:/nowhere/a.pth'], '/nowhere/a.pth')])
def test_bad_options_are_one_line(command, capfd, parameters, message):
    cvat = Cvat()
    assert command(cvat, 'function', 'create-native', 'SimpleSeg', *MODULE, *parameters) == 1
    line, = [line for line in capfd.readouterr().err.splitlines() if 'CRITICAL' in line]
    assert message in line and cvat.told('/functions') == []


@pytest.fixture(scope='module')
def asked():
    """Prompt -> mask by the packaged model, asked without CVAT; the prompts are those of an agent:
    the expression, a point on what it means, and the box round it."""
    inferencer = SimpleSegInferencer(show_progress=False)
    ring, = inferencer.segment(str(PICTURE), 'large orange ring')
    y, x = np.argwhere(ring.mask)[0].tolist()
    prompts = dict(point=(x + 0.5, y + 0.5)), dict(box=tuple(ring.box.tolist()))
    assert 100 < ring.mask.sum() < ring.mask.size / 2
    return [(None, ring.mask), *((prompt, inferencer.segment(str(PICTURE), prompt)[0].mask)
                                 for prompt in prompts)]


def mask_of(shape: dict) -> np.ndarray:
    return decode_mask(shape['points'], image_width=SIZE[0], image_height=SIZE[1])


@pytest.mark.slow
@pytest.mark.parametrize('shapes', ['polygon', 'mask'])
def test_a_task_is_annotated(command, asked, shapes):
    cvat = Cvat()
    assert command(cvat, 'task', 'auto-annotate', '1', *MODULE, LABELS, f'-pshapes=str:{shapes}',
                   '--allow-unmatched-labels') == 0
    sent, = cvat.told('/annotations')
    shape, = sent['shapes']
    assert (shape['label_id'], shape['type'], shape['frame']) == (70, shapes, 0)
    assert 0 < shape['score'] < 1 and shape['source'] == 'auto'
    if shapes == 'mask':
        assert np.array_equal(mask_of(shape), asked[0][1])


@pytest.mark.slow
def test_an_agent_detects_and_its_function_is_what_cvat_knows(command):
    request = dict(threshold=None, conv_mask_to_poly=False, mapping={
        ODD: dict(name=ODD, attributes={}, sublabels={})})
    cvat = Cvat(dict(type='annotate_task', **request),
                dict(type='annotate_frame', frame=0, **request),
                dict(type='annotate_frame', frame=9, **request))
    assert command(cvat, 'function', 'create-native', 'SimpleSeg', *MODULE, LABELS) == 0
    assert cvat.function['kind'] == 'detector'
    assert [label['name'] for label in cvat.function['labels_v2']] == [ODD, 'nothing']
    assert command(cvat, 'function', 'run-agent', '7', '--burst', *MODULE, LABELS) == 0
    task, frame = cvat.told('/complete')
    for done in (task, frame):
        shape, = done['annotations']['shapes']
        assert shape['label_id'] == 70 and shape['type'] == 'polygon' and 0 < shape['score'] < 1
    assert 'does not exist' in cvat.told('/fail')[0]['exc_info']  # frame 9


@pytest.mark.slow
def test_an_agent_interacts(command, asked):
    (point, by_point), (box, by_box) = asked[1:]
    drawn = dict(type='interact', frame=0, pos_points=[], neg_points=[], obj_bbox=[])
    corners = np.reshape(box['box'], (2, 2)).tolist()
    cvat = Cvat(dict(drawn, pos_points=[[1, 1], point['point']]), dict(drawn, obj_bbox=corners),
                dict(drawn, pos_points=[point['point']], neg_points=[[1, 1]]))
    assert command(cvat, 'function', 'create-native', 'SimpleSeg', *MODULE) == 0
    assert cvat.function['kind'] == 'interactor' and cvat.function['startswith_box_optional']
    assert command(cvat, 'function', 'run-agent', '7', '--burst', *MODULE) == 0
    done = cvat.told('/complete')
    assert len(done) == 2
    for answer, wanted in zip(done, (by_point, by_box)):
        shape, = answer['shapes']
        assert shape['type'] == 'mask' and np.array_equal(mask_of(shape), wanted)
        sure, = shape['attributes']
        assert sure['spec_id'] == 0 and re.fullmatch(r'0\.\d{4}', sure['value'])
    assert 'negative points are not supported' in cvat.told('/fail')[0]['exc_info']
