"""A server in a thread that speaks the protocol of chat completions, and fails as real ones do."""
import base64
import http.server
import io
import json
import re
import threading
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image

SQUARE = '[[[20,20],[20,60],[60,60],[60,20]]]'
_PIECE = re.compile(r'[\[\],]+|\d|.', re.S)


class Standin:
    """What a server says and what it was asked.

    Attributes:
        models: entries of its list; None: it has none (404).
        says: the answer to (picture, question), as text or as a list of pieces.
        faults: what happens to the next requests instead of an answer: functions of a handler.
        reason: finish_reason of answers.
        logps: whether it gives log-probabilities.
        refuses: keys of a request that it does not take.
        tokens: the answer of /tokenize; None: it has no such address.
        asked: bodies of the requests for answers.
        headers: of all requests.
    """

    def __init__(self) -> None:
        self.models = [dict(id='nano', object='model', owned_by='vllm')]
        self.says = lambda picture, question: SQUARE
        self.faults: list = []
        self.reason, self.logps, self.refuses, self.tokens = 'stop', True, (), None
        self.asked: list[dict] = []
        self.headers: list = []
        self.lock = threading.Lock()
        self.running = self.most = 0  # requests at a time


def picture_of(body: dict) -> np.ndarray:
    """The picture (H, W, 3) of a request."""
    url = body['messages'][-1]['content'][0]['image_url']['url']
    head, _, data = url.partition(',')
    assert head == 'data:image/png;base64'
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))


def question_of(body: dict) -> str:
    return body['messages'][-1]['content'][1]['text']


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args) -> None:
        pass

    def reply(self, code: int, content, kind: str = 'application/json', **headers) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(raw)

    def begin(self) -> None:
        """The head of a stream of events, which ends with the connection."""
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream; charset=utf-8')
        self.send_header('Connection', 'close')
        self.end_headers()
        self.close_connection = True

    def event(self, content) -> None:
        data = content if isinstance(content, str) else json.dumps(content)
        self.wfile.write(f'data: {data}\n\n'.encode())
        self.wfile.flush()

    def do_GET(self) -> None:
        standin = self.server.standin
        standin.headers.append(dict(self.headers))
        if standin.models is None or self.path != '/v1/models':
            self.reply(404, dict(detail='Not Found'))
        else:
            self.reply(200, dict(object='list', data=standin.models))

    def do_POST(self) -> None:
        standin = self.server.standin
        standin.headers.append(dict(self.headers))
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if self.path == '/tokenize' and standin.tokens is not None:
            self.reply(200, dict(count=1, tokens=standin.tokens(body)))
            return
        if self.path != '/v1/chat/completions':
            self.reply(404, dict(detail='Not Found'))
            return
        self.serve(body, self.chat, body)

    def serve(self, asked, answer, *args) -> None:
        """Notes what is asked, and does the next fault or answers."""
        standin = self.server.standin
        with standin.lock:
            standin.asked.append(asked)
            fault = standin.faults.pop(0) if standin.faults else None
            standin.running += 1
            standin.most = max(standin.most, standin.running)
        try:
            answer(*args) if fault is None else fault(self)
        except OSError:
            pass
        finally:
            with standin.lock:
                standin.running -= 1

    def chat(self, body: dict) -> None:
        if unknown := [key for key in self.server.standin.refuses if key in body]:
            self.reply(400, dict(error=dict(message=f'Unknown parameter: {unknown[0]}')))
        else:
            self.answer(body)

    def answer(self, body: dict, until: int | None = None) -> None:
        """Streams what the standin says, or its first ``until`` pieces and no end."""
        standin = self.server.standin
        said = standin.says(picture_of(body), question_of(body))
        pieces = _PIECE.findall(said) if isinstance(said, str) else said
        self.begin()
        self.event(dict(choices=[dict(index=0, delta=dict(role='assistant', content=''))]))
        for piece in pieces[:until]:
            choice = dict(index=0, delta=dict(content=piece), finish_reason=None)
            if standin.logps:
                choice['logprobs'] = dict(content=[dict(token=piece, logprob=-0.5)])
            self.event(dict(choices=[choice]))
        if until is None:
            self.event(dict(choices=[dict(index=0, delta={}, finish_reason=standin.reason)]))
            self.event(dict(choices=[], usage=dict(completion_tokens=len(pieces) + 1)))
            self.event('[DONE]')


@contextmanager
def endpoint(handler=Handler):
    """A running server; gives its address and :class:`Standin`."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    server.standin = Standin()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/v1', server.standin
    finally:
        server.shutdown()
        server.server_close()


# --- faults --------------------------------------------------------------------------------------
def status(code: int, content=None, **headers):
    return lambda handler: handler.reply(code, content or dict(error=dict(message='no luck')),
                                         **headers)


def page(code: int):
    return lambda handler: handler.reply(code, b'<!doctype html><h1>Bad gateway</h1>', 'text/html')


def garbage(handler) -> None:
    handler.reply(200, b'{"choices": 3}')


def no_json(handler) -> None:
    handler.reply(200, b'pong', 'text/plain')


def hang_up(handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def drips_head(handler) -> None:
    """A head, a letter at a time, without an end."""
    while True:
        handler.wfile.write(b'H')
        time.sleep(0.02)


def drips_events(handler) -> None:
    """Comments, which keep a connection alive, without an end."""
    handler.begin()
    while True:
        handler.wfile.write(b': still here\n\n')
        time.sleep(0.02)


def stays_open(handler) -> None:
    """A whole answer, and a line that is kept alive without an end."""
    handler.begin()
    handler.event(dict(choices=[dict(delta=dict(content=SQUARE), finish_reason='stop')]))
    while True:
        handler.wfile.write(b': still here\n\n')
        time.sleep(0.02)


def floods(handler) -> None:
    handler.begin()
    while True:
        handler.wfile.write(b'data: ' + b'x' * 65536)


def fails_in_stream(handler) -> None:
    handler.begin()
    handler.event(dict(error=dict(message='CUDA out of memory', code=500)))


def breaks_after(pieces: int):
    """Some of the answer, and then the line is down."""
    def fault(handler):
        handler.answer(handler.server.standin.asked[-1], pieces)
    return fault
