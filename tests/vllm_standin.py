"""A stand-in for ``vllm serve`` in a thread: answers as vLLM 0.32 does, and fails as told."""
import base64
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image
from safetensors.torch import load_file


class StandIn:
    """What the server says, and what it was asked.

    Attributes:
        fault: how it fails: 'plain' (started without VLLM_SERVER_DEV_MODE), '403' (without
            --enable-scale-out), 'html', '500', '429',
            'stale' (weights of another version), 'resized' (one picture token less), 'aborted',
            'changed' (the last id of the prompt), 'unscored' (no log-probabilities), 'busy'
            (the cache is not reset), 'dies' (after ``until`` answers the connection is cut).
        text: ids of every answer.
    """

    def __init__(self, image_token: int, text, fault: str = '', version: str = '0.32.0+cpu',
                 logprobs_mode: str = 'raw_logprobs', max_model_len: int = 1024,
                 until: int = 0, patch: int = 28, device: str = 'cuda',
                 worker_extension_cls: str = '') -> None:
        self.image_token, self.text, self.fault, self.version = image_token, text, fault, version
        self.settings = dict(
            model_config=dict(logprobs_mode=logprobs_mode, max_model_len=max_model_len),
            device_config=dict(device=device),
            parallel_config=dict(worker_extension_cls=worker_extension_cls))
        self.until, self.patch = until, patch
        self.weight_version, self.packed = 'default', 0
        self.weights, self.asked, self.paths = [], [], []
        self.lock = threading.Lock()

    def answer(self, path: str, content):
        """What vLLM answers to a request."""
        if path == '/version':
            return dict(version=self.version)
        if path == '/server_info?config_format=json':
            return dict(vllm_config=self.settings)
        if path == '/collective_rpc':
            if content['method'] == 'pack_heads':
                assert self.weights, 'packed before the weights came'
                self.packed += 1
                return dict(results=[None])
            assert content['method'] == 'reload_weights'
            self.weights.append(load_file(f'{content["kwargs"]["weights_path"]}/model.safetensors'))
            return dict(results=[None])
        if path == '/reset_prefix_cache':
            return dict(success=self.fault != 'busy')
        if path == '/update_weight_version':
            self.weight_version = content['new_version']
            return dict(success=True, new_version=self.weight_version)
        if path == '/weight_info':
            return dict(weight_version=self.weight_version)
        if path == '/inference/v1/generate':
            return self.write(content)
        return None

    def write(self, content):
        part, = content['content_parts']
        kind, data = part['url'].split(',')
        assert (part['type'], kind) == ('image_url', 'data:image/png;base64')
        with self.lock:
            self.asked.append(content)
        width, height = Image.open(io.BytesIO(base64.b64decode(data))).size
        assert width % self.patch == height % self.patch == 0  # resized already
        count = width * height // self.patch**2 - (self.fault == 'resized')
        ids, at = content['token_ids'], content['token_ids'].index(self.image_token)
        ids = ids[:at] + [self.image_token] * count + ids[at + 1:]
        if self.fault == 'changed':
            ids[-1] += 1
        stale = 'default' if self.fault == 'stale' else self.weight_version
        content = [dict(token_id=token, logprob=-0.5, top_logprobs=[]) for token in self.text]
        return dict(prompt_token_ids=ids, choices=[dict(
            index=0, token_ids=self.text,
            finish_reason='abort' if self.fault == 'aborted' else 'stop',
            logprobs=None if self.fault == 'unscored' else dict(content=content),
            weight_versions=[dict(version=stale, start=0, end=len(self.text))])])


class _Handler(BaseHTTPRequestHandler):

    def do_GET(self):
        self.reply(None)

    def do_POST(self):
        self.reply(json.loads(self.rfile.read(int(self.headers['Content-Length']))))

    def reply(self, content):
        server = self.server.standin
        with server.lock:
            server.paths.append(self.path)
        generates = self.path == '/inference/v1/generate'
        dead = server.fault == 'dies' and generates and len(server.asked) >= server.until
        if dead:
            self.close_connection = True
            self.connection.close()
            return
        status, kind = 200, 'application/json'
        if server.fault == 'plain' and self.path.startswith(('/weight_info', '/server_info')):
            status, body = 404, b'{"detail":"Not Found"}'
        elif server.fault == 'html':
            kind, body = 'text/html', b'<html>\n<title>Welcome to nginx!</title>'
        elif server.fault in ('403', '429', '500') and generates:
            status, body = int(server.fault), b'{"error": {"message": "out of cache"}}'
        elif generates and not content:
            status, body = 400, b'{"error": {"message": "token_ids: Field required"}}'
        else:
            answer = server.answer(self.path, content)
            body = b'' if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(standin: StandIn):
    """Its address."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.standin, server.daemon_threads = standin, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()
