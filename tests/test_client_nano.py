"""A model behind a server answers as the same model in process; the page's server in front."""
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
import torch
from endpoint_standin import SQUARE, breaks_after, endpoint, status
from PIL import Image

from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.client import EndpointInferencer
from simpleseg_mm.datasets.refshapes import make_scene
from simpleseg_mm.structures import Generated

NANO = 'simpleseg_mm://nano_sft'
PROMPTS = ['the ring', dict(point=(100, 90)), dict(box=(20, 30, 120, 140))]


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)


@pytest.fixture(scope='module')
def nano():
    return SimpleSegInferencer(NANO, device='cpu', show_progress=False)


def test_the_same_text_as_in_process(nano):
    """What reaches the network is the same: the picture, resized here, and the question."""
    def says(picture, question):
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
        with torch.no_grad():
            return nano.model.answer([image], [question])[0].text

    pictures = [make_scene(0, 'test', index, size)['pixels']
                for index, size in enumerate((224, 224, 150, 84))]
    with endpoint() as (url, standin):
        standin.says = says
        remote = SimpleSegInferencer(NANO, endpoint=url, show_progress=False)
        assert isinstance(remote, EndpointInferencer)
        there = remote.segment(pictures, PROMPTS[:1])
        there += remote.segment(pictures[0], PROMPTS[1:])
    here = nano.segment(pictures, PROMPTS[:1]) + nano.segment(pictures[0], PROMPTS[1:])
    assert [result.text for result in there] == [result.text for result in here]
    assert len({result.text for result in here}) > 3
    for one, other in zip(there, here):
        assert np.array_equal(one.mask, other.mask) and one.to_dict().keys() == \
            other.to_dict().keys()
        assert (one.prompt, one.size, one.codec, one.valid, one.warnings) == (
            other.prompt, other.size, other.codec, other.valid, other.warnings)


def test_pictures_of_answers_are_the_same(nano, tmp_path, monkeypatch):
    scene = make_scene(0, 'test', 3)['pixels']
    Image.fromarray(scene).save(tmp_path / 'scene.png')
    with endpoint() as (url, _):
        remote = EndpointInferencer(url, NANO, show_progress=False)
        remote.write(str(tmp_path / 'scene.png'), PROMPTS[2], str(tmp_path / 'there'))
    monkeypatch.setattr(nano.model, 'answer_stream', lambda asked, *args, **options: (
        Generated(SQUARE, len(re.findall(r'[\[\],]+|\d', SQUARE)) + 1, True) for _ in asked))
    nano.write(str(tmp_path / 'scene.png'), PROMPTS[2], str(tmp_path / 'here'))
    here, there = (np.asarray(Image.open(tmp_path / name / 'vis/scene.png'))
                   for name in ('here', 'there'))
    assert np.array_equal(here, there)


@pytest.mark.parametrize('options', [dict(weights='x.pth'), dict(device='cpu'),
                                     dict(cfg_options={}), dict(nothing=1)])
def test_what_a_server_has_itself_is_refused(options):
    with pytest.raises(ValueError, match='with an endpoint: .*EndpointInferencer says what'):
        SimpleSegInferencer(NANO, endpoint='http://localhost/v1', **options)


# --- the page's server ---------------------------------------------------------------------------
def events_of(url: str, picture: bytes, prompt) -> list[dict]:
    body = json.dumps(dict(image=base64.b64encode(picture).decode(), prompt=prompt, stream=True))
    with urllib.request.urlopen(f'{url}/api/segment', body.encode(), timeout=60) as reply:
        return [json.loads(line) for line in reply]


def png(size: int = 100) -> bytes:
    file = io.BytesIO()
    Image.new('RGB', (size, size), (200, 200, 200)).save(file, 'PNG')
    return file.getvalue()


def test_the_page_s_events():
    pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
    from serving_standin import serving
    with endpoint() as (url, standin):
        inferencer = EndpointInferencer(url, codec='int100', wait=0.001, retries=1,
                                        show_progress=False)
        with serving(inferencer) as (page, _):
            *_, before, done = found = events_of(page, png(), 'a ring')
            assert [event['event'] for event in found[:2]] == ['queued', 'started']
            assert before == dict(event='outline', instance=0, rings=[
                [[20, 20], [20, 60], [60, 60], [60, 20]]])
            assert sum(event['event'] == 'outline' for event in found) == 4
            assert done['result']['text'] == SQUARE
            standin.faults = [breaks_after(20)]
            assert events_of(page, png(), 'a ring')[-1]['result']['text'] == SQUARE
            standin.faults = [status(413)]
            *_, last = events_of(page, png(), 'a ring')
            assert last['event'] == 'error' and 'does not take a request of this size' in \
                last['message']
            assert events_of(page, png(), 'a ring')[-1]['event'] == 'done'


def test_one_failure_of_a_batch_leaves_the_others():
    pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
    from serving_standin import serving
    with endpoint() as (url, standin):
        gate = threading.Event()

        def says(picture, question):
            assert gate.wait(60)
            return SQUARE
        standin.says = says
        inferencer = EndpointInferencer(url, codec='int100', show_progress=False)
        with serving(inferencer) as (page, _):
            ends, threads = {}, []

            def ask(name):
                ends[name] = events_of(page, png(), name)[-1]['event']
            for name in 'abcd':
                threads.append(threading.Thread(target=ask, args=(name, )))
                threads[-1].start()
                while len(standin.asked) < 1:
                    threads[-1].join(0.01)
            standin.faults = [status(413)]  # of the second batch, of which all wait together
            gate.set()
            for thread in threads:
                thread.join(60)
            assert sorted(ends.values()) == ['done', 'done', 'done', 'error']
            assert len(standin.asked) == 4  # none was asked twice


def test_the_command_serves():
    pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
    with endpoint() as (url, _):
        code = ('import sys; from simpleseg_mm import cli; '
                'import atexit; atexit.register(lambda: print("torch" in sys.modules)); '
                'sys.exit(cli.main(sys.argv[1:]))')
        process = subprocess.Popen(
            [sys.executable, '-c', code, 'serve', '--endpoint', url, '--codec', 'int100',
             '--port', '0'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONUNBUFFERED='1'))
        try:
            seen = ''
            while not (page := re.search(r'http://127\.0\.0\.1:[1-9]\d*', seen)):
                line = process.stderr.readline()
                assert line, 'the server did not start'
                seen += line
            with urllib.request.urlopen(f'{page[0]}/api/info', timeout=60) as reply:
                assert json.loads(reply.read())['model'] == 'nano'
            assert events_of(page[0], png(), 'a ring')[-1]['result']['text'] == SQUARE
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert out.split() == ['False'], err
