"""A server in a thread whose model writes given texts, for the tests of page and API."""
import re
import threading
import time
from contextlib import contextmanager

import numpy as np

from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.structures import Prompt, Segmentation

SQUARE = '[[[20,20],[60,20],[60,70],[20,70]]]'
TOKEN = re.compile(r'[\[\],]+|\d|.')
RING = '[[[10,10],[10,90],[90,90],[90,10]],[[40,40],[60,40],[60,60],[40,60]]]'


class ScriptedInferencer:
    """Writes an answer by the prompt's words, in tokens such as "],[" and single digits.

    'square', 'ring' (with a hole), 'nothing' ([]), 'babble' (no outline), 'crash' (an error),
    'two' (a list of two instances), 'slow' (a square at ``pause`` seconds a token), 'held' (a
    square once ``gate`` is set); points and boxes give a square.
    """
    codec = PolygonCodec(grammar='int100')
    texts = dict(nothing='[]', ring=RING, two=f'[{SQUARE},{RING}]', slow=SQUARE,
                 babble='I see no such thing')

    def __init__(self, pause: float = 0.08) -> None:
        self.pause = pause
        self.batches, self.written, self.seen = [], [], []
        self.gate = threading.Event()

    def ask_batch(self, asked, on_text=None):
        self.batches.append(len(asked))
        prompts = [prompt for _, prompt in asked]
        self.seen += [(picture.shape, prompt) for picture, prompt in asked]
        if any(prompt.text == 'crash' for prompt in prompts):
            raise RuntimeError('a secret of the model')
        if any(prompt.text == 'held' for prompt in prompts):
            assert self.gate.wait(120)
        texts = [self.texts.get(prompt.text, SQUARE) for prompt in prompts]
        made = [''] * len(asked)
        ended = [False] * len(asked)
        while not all(done or made[i] == texts[i] for i, done in enumerate(ended)):
            if any(prompt.text == 'slow' for prompt in prompts):
                time.sleep(self.pause)
            for i, text in enumerate(texts):
                if not ended[i] and made[i] != text:
                    made[i] += TOKEN.match(text, len(made[i])).group()
                    ended[i] = bool(on_text is not None and on_text(i, made[i]))
        self.written += made
        return [self._result(self.codec, picture, prompt, text)
                for (picture, prompt), text in zip(asked, made)]

    @staticmethod
    def _result(codec, picture: np.ndarray, prompt: Prompt, text: str) -> Segmentation:
        answer = codec.decode(text, picture.shape[:2], prompt.task.kind, num_tokens=len(text),
                              finished=True, seconds=0.1, confidence=0.5)
        return Segmentation.of(answer, '0', prompt)


@contextmanager
def serving(inferencer=None, settings: dict = {}, **limits):
    """A running server; gives its address and inferencer."""
    from simpleseg_mm.serving import Engine, Settings, create_app, make_server
    inferencer = inferencer or ScriptedInferencer()
    settings = Settings(**settings)
    app = create_app(Engine(inferencer, **limits), settings, 'scripted')
    server = make_server(app, settings, '127.0.0.1', 0, log_level='warning',
                         timeout_graceful_shutdown=2)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 600
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, 'the server did not start'
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f'http://127.0.0.1:{port}', inferencer
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), 'the server did not stop'
