"""How long a normal question waits while others break in at the page's server.

    python benchmarks/serve_hostile.py [--model M] [--weights W] [--questions 5] [--limit 2]

A server of its own (``tools/serve.py``) is attacked in one way after the other, from two threads
or more, for as long as the normal questions take: a picture is sent and an object of it is asked
for. All come from one address, but for 'one client's 16 long questions', which come from
another. Each way is one that stopped an earlier server for 35 s or more. A question that takes
longer than ``--limit`` seconds, or is refused, makes the exit status 1. The last line is JSON: a
list of rows with name, ours (median), peer (None), ratio (None), unit, spread, device.
"""
import argparse
import base64
import http.client
import io
import json
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from serve import Server, add_model_arguments, device_of, row, scenes  # noqa: E402

CONFIG = ('<View><Image name="i" value="$image"/><PolygonLabels name="l" toName="i">'
          '<Label value="ring"/></PolygonLabels></View>')


def post(place: str, path: str, body: bytes, source: str = '127.0.0.1') -> tuple:
    """Status and content of a request."""
    connection = http.client.HTTPConnection(place, timeout=120, source_address=(source, 0))
    try:
        connection.request('POST', path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def zigzag_export() -> bytes:
    """8,000 vertices between top and bottom of a picture of 16,384 rows."""
    ring = [[k % 1500, 16_383 * (k % 2)] for k in range(8000)]
    return json.dumps(dict(format='coco', width=1500, height=16_384, objects=[
        dict(label='z', polygons=[dict(outer=ring)])])).encode()


def holes_export() -> bytes:
    """A part with 2,916 holes."""
    def box(x, y, size):
        return [[x, y], [x + size, y], [x + size, y + size], [x, y + size]]
    holes = [box(4 + 8 * i, 4 + 8 * j, 4) for i in range(54) for j in range(54)]
    return json.dumps(dict(format='labelme', width=500, height=500, objects=[
        dict(label='h', polygons=[dict(outer=box(0, 0, 450), holes=holes)])])).encode()


def jpeg_of_scans(size: tuple, count: int) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times more."""
    out = io.BytesIO()
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[::7] = 200
    Image.fromarray(pixels).save(out, 'JPEG', progressive=True)
    raw = out.getvalue()
    last = raw.rfind(b'\xff\xda')
    return raw[:-2] + raw[raw.rfind(b'\xff\xc4', 0, last):-2] * count + b'\xff\xd9'


def long_text_predict(scene: bytes, length: int) -> bytes:
    image = 'data:image/png;base64,' + base64.b64encode(scene).decode()
    return json.dumps(dict(tasks=[dict(data=dict(image=image, expression='x ' * (length // 2)))],
                           label_config=CONFIG)).encode()


class Attack:
    """Runs until the block ends, in threads."""

    def __init__(self, place: str) -> None:
        self.place, self.stop = place, threading.Event()
        self.threads: list = []
        self.sockets: list = []

    def again(self, path: str, body: bytes, threads: int, source: str = '127.0.0.1') -> None:
        """Send a request again and again."""
        def run():
            while not self.stop.is_set():
                try:
                    post(self.place, path, body, source)
                except (OSError, http.client.HTTPException):
                    time.sleep(0.05)
        self.threads += [threading.Thread(target=run, daemon=True) for _ in range(threads)]

    def hold(self, raw: bytes, count: int) -> None:
        """Keep ``count`` connections open that have sent ``raw``."""
        host, port = self.place.split(':')

        def run():
            while not self.stop.is_set():
                try:
                    one = socket.create_connection((host, int(port)), timeout=10)
                    self.sockets.append(one)
                    one.sendall(raw)
                except OSError:
                    pass
                self.stop.wait(0.01 if len(self.sockets) < count else 0.2)
        self.threads += [threading.Thread(target=run, daemon=True) for _ in range(4)]

    def __enter__(self) -> 'Attack':
        for thread in self.threads:
            thread.start()
        if self.threads:
            time.sleep(2)
        return self

    def __exit__(self, *error) -> None:
        self.stop.set()
        for one in self.sockets:
            one.close()
        for thread in self.threads:
            thread.join(timeout=150)


def question(place: str, scene: bytes, text: str) -> float:
    """Seconds of an upload and a question about it; infinite where one is refused."""
    start = time.perf_counter()
    try:
        status, content = post(place, '/api/pictures', scene)
        if status != 201:
            print(status, content[:200])
            return float('inf')
        status, content = post(place, '/api/segment', json.dumps(dict(
            picture=json.loads(content)['picture'], prompt=text)).encode())
    except (OSError, http.client.HTTPException) as error:
        print(repr(error))
        return float('inf')
    if status != 200:
        print(status, content[:200])
    return time.perf_counter() - start if status == 200 else float('inf')


def memory_of(process: int) -> float:
    """Megabytes that a process holds."""
    for line in Path(f'/proc/{process}/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) / 1000
    return 0.0


def attacks(place: str, scene: bytes) -> dict:
    """Each way by its name."""
    made = {name: Attack(place) for name in (
        'nothing else', '8,000 vertices over 16,384 rows', '2,916 holes',
        'texts of 30 kB in /predict', '80 unfinished bodies of 19 MB', '400 half requests',
        'JPEGs of thousands of scans', 'JPEGs of 60 scans of 20 MP',
        "one client's 16 long questions")}
    made['8,000 vertices over 16,384 rows'].again('/api/export', zigzag_export(), 2)
    made['2,916 holes'].again('/api/export', holes_export(), 2)
    made['texts of 30 kB in /predict'].again('/predict', long_text_predict(scene, 30_000), 2)
    made['80 unfinished bodies of 19 MB'].hold(
        b'POST /api/pictures HTTP/1.1\r\nhost: localhost\r\ncontent-length: 19500000\r\n\r\n'
        + b'x' * 19_000_000, 80)
    made['400 half requests'].hold(b'POST /api/segment HTTP/1.1\r\nhost: localhost\r\nconte', 400)
    made['JPEGs of thousands of scans'].again('/api/pictures', jpeg_of_scans((1024, 768), 5000), 2)
    made['JPEGs of 60 scans of 20 MP'].again('/api/pictures', jpeg_of_scans((5000, 4000), 50), 2)
    made["one client's 16 long questions"].again('/predict', long_text_predict(scene, 2000), 16,
                                                 '127.0.0.2')
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument('--questions', type=int, default=5)
    parser.add_argument('--limit', type=float, default=2.0, help='seconds that one may take')
    args = parser.parse_args()
    (scene, sentences), = scenes(1)
    server = Server(args, 8)
    device = device_of(args)
    rows = []
    try:
        for _ in range(2):
            question(server.place, scene, sentences[0])  # the first of a process is slow
        for name, attack in attacks(server.place, scene).items():
            with attack:
                seconds = []
                for number in range(args.questions):
                    seconds.append(question(server.place, scene,
                                            sentences[number % len(sentences)]))
                    time.sleep(0.3)
                held = memory_of(server.process.pid)
            rows.append(row(name, seconds, 's', device=device))
            print(f'{name:34} {rows[-1]["ours"]} s  {rows[-1]["spread"]}  server {held:.0f} MB',
                  flush=True)
    finally:
        server.close()
    print(json.dumps(rows))
    return 0 if all(one['spread'][1] <= args.limit for one in rows) else 1


if __name__ == '__main__':
    sys.exit(main())
