"""A server in a thread whose model writes given texts, for the tests of page and API."""
import re
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np

from simpleseg_mm.polygon import PolygonCodec, vote
from simpleseg_mm.structures import Prompt, Segmentation
from simpleseg_mm.taught import Taught

SQUARE = '[[[20,20],[60,20],[60,70],[20,70]]]'
TOKEN = re.compile(r'[\[\],]+|\d|.')
RING = '[[[10,10],[10,90],[90,90],[90,10]],[[40,40],[60,40],[60,60],[40,60]]]'


class ScriptedInferencer:
    """Writes an answer by the prompt's words, in tokens such as "],[" and single digits.

    'square', 'ring' (with a hole), 'nothing' ([]), 'babble' (no outline), 'crash' (an error),
    'slow' and 'slow two' (``pause`` seconds a token), 'held' (a square once ``gate`` is set);
    points and boxes give a square. Lists: 'two' instances, 'many' (200), 'twins' (one of three
    twice), 'holed' (one of three has no readable vertex), 'thin' (one of two fills no pixel),
    'cut' (in the middle of the third). With ``consensus`` the greedy answer is voted with copies
    of itself, each moved by a step. ``confidence`` is of a picture.
    """
    codec = PolygonCodec(grammar='int100')
    texts = dict(nothing='[]', ring=RING, slow=SQUARE, babble='I see no such thing',
                 two=f'[{SQUARE},{RING}]', twins=f'[{SQUARE},{RING},{SQUARE}]',
                 thin=f'[{SQUARE},[[[1,1],[2,2],[3,3]]]]',
                 holed=f'[{SQUARE},[[[x]]],{RING}]', cut=f'[{SQUARE},{RING},[[[10',
                 many='[' + ','.join(f'[[[{x},{y}],[{x + 3},{y}],[{x},{y + 4}]]]'
                                     for x in range(0, 80, 4) for y in range(0, 50, 5)) + ']')

    def __init__(self, pause: float = 0.08, taught: Taught = Taught(), samples: int = 0,
                 confidence=lambda picture: 0.5) -> None:
        self.pause, self.taught, self.samples = pause, taught, samples
        self.confidence = confidence
        self.batches, self.written, self.seen = [], [], []
        self.gate = threading.Event()

    def ask_batch(self, asked, on_text=None, consensus=None):
        consensus = self.samples if consensus is None else consensus
        self.batches.append(len(asked))
        prompts = [prompt for _, prompt in asked]
        self.seen += [(picture.shape, prompt) for picture, prompt in asked]
        if any(prompt.text == 'crash' for prompt in prompts):
            raise RuntimeError('a secret of the model')
        if any(prompt.text == 'held' for prompt in prompts):
            assert self.gate.wait(120)
        texts = [self.texts.get((prompt.text or '').removeprefix('slow '), SQUARE)
                 for prompt in prompts]
        made = [''] * len(asked)
        ended = [False] * len(asked)
        while not all(done or made[i] == texts[i] for i, done in enumerate(ended)):
            if any((prompt.text or '').startswith('slow') for prompt in prompts):
                time.sleep(self.pause)
            for i, text in enumerate(texts):
                if not ended[i] and made[i] != text:
                    made[i] += TOKEN.match(text, len(made[i])).group()
                    ended[i] = bool(on_text is not None and on_text(i, made[i]))
        self.written += made
        return [self._result(picture, prompt, text, consensus)
                for (picture, prompt), text in zip(asked, made)]

    def _result(self, picture: np.ndarray, prompt: Prompt, text: str, samples: int
                ) -> Segmentation:
        moved = [re.sub(r'\[(\d+),', lambda x: f'[{int(x[1]) + step},', text)
                 for step in range(samples + 1)]
        answers = [self.codec.decode(one, picture.shape[:2], prompt.task.kind,
                                     num_tokens=len(one), finished=text != self.texts['cut'],
                                     seconds=0.1, confidence=self.confidence(picture))
                   for one in moved]
        return Segmentation.of(vote(answers), '0', prompt)


@contextmanager
def serving(inferencer=None, settings: dict = {}, port: int = 0, name: str = 'scripted', **limits):
    """A running server of a model of this name; gives its address and inferencer. Port 0 is a free
    one."""
    from simpleseg_mm.serving import Engine, Settings, create_app, make_server
    inferencer = inferencer or ScriptedInferencer()
    settings = Settings(**settings)
    app = create_app(Engine(inferencer, **limits), settings, name)
    server = make_server(app, settings, '127.0.0.1', port, log_level='warning',
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


if __name__ == '__main__':  # PORT [FOLDER]: a server that a test can kill
    with serving(ScriptedInferencer(pause=0.03), dict(root=sys.argv[2] if sys.argv[2:] else None),
                 int(sys.argv[1])):
        threading.Event().wait()
