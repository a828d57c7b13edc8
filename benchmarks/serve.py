"""Waiting at the page's server: first vertex, whole outline, and many users at once.

    python benchmarks/serve.py [--model M] [--weights W] [--users 8] [--requests 5] [--repeats 3]

Every user has a scene of RefShapes of their own and asks for its objects one after the other, by
the streaming API, as the page does; with 1 user and with --users. The peer is the same server
without batches (``--batch-size 1``): 'ratio' is what batching gives in answers a second. Runs of
the two alternate. A request is lost where its stream does not end with 'done'; one lost request
makes the exit status 1. The last line is JSON: a list of rows with name, ours, peer, ratio,
unit, spread (smallest and largest), device.
"""
import argparse
import http.client
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from simpleseg_mm.commands.segment import add_model_arguments
from simpleseg_mm.datasets.refshapes import make_scene

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """``tools/serve.py`` as a process of its own."""

    def __init__(self, args: argparse.Namespace, batch_size: int) -> None:
        command = [sys.executable, str(ROOT / 'tools/serve.py'), '--port', '0', '--batch-size',
                   str(batch_size), '--max-client', '1000', '--max-queue', '1000']
        for name in ('model', 'weights', 'device'):
            if getattr(args, name):
                command += [f'--{name}', getattr(args, name)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if 'running on http' in line:
                self.place = urlsplit(line.split('running on ')[1].split()[0]).netloc
                break
        else:
            raise SystemExit('the server did not start')
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def call(self, method: str, path: str, body: bytes) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.place, timeout=600)
        connection.request(method, path, body)
        return connection.getresponse()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


def scenes(count: int) -> list:
    """(PNG, sentences) of ``count`` scenes."""
    made = []
    for index in range(count):
        scene = make_scene(0, 'test', index)
        out = io.BytesIO()
        Image.fromarray(scene['pixels']).save(out, 'PNG')
        made.append((out.getvalue(), [ref['sentences'][0]['sent'] for ref in scene['refs']]))
    return made


def ask(server: Server, picture: str, text: str) -> dict:
    """Seconds to the first vertex (None: there was none) and to the end; whether it ended well."""
    start, first, last = time.perf_counter(), None, {}
    answer = server.call('POST', '/api/segment', json.dumps(
        dict(picture=picture, prompt=text, stream=True)).encode())
    for line in answer:
        last = json.loads(line)
        if first is None and last['event'] == 'outline':
            first = time.perf_counter() - start
    return dict(first=first, whole=time.perf_counter() - start,
                done=last.get('event') == 'done')


def load(server: Server, users: list, requests: int) -> dict:
    """All users at once; their answers and the seconds they took together."""
    rows: list = []

    def user(raw: bytes, sentences: list) -> None:
        picture = json.loads(server.call('POST', '/api/pictures', raw).read())['picture']
        for number in range(requests):
            rows.append(ask(server, picture, sentences[number % len(sentences)]))
    threads = [threading.Thread(target=user, args=one) for one in users]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    return dict(rate=len(rows) / seconds, lost=len(users) * requests - sum(
        row['done'] for row in rows), rows=rows)


def device_of(args: argparse.Namespace) -> str:
    """What the server runs on, for the rows."""
    return f'{platform.machine()}, {os.cpu_count()} cores' + (
        f', {args.device}' if args.device else '')


def row(name: str, values: list, unit: str, peer: list = (), device: str = '') -> dict:
    """A figure: median and spread; the peer's median and the ratio of both."""
    made = dict(name=name, ours=None, peer=None, ratio=None, unit=unit, spread=None, device=device)
    if values:
        made.update(ours=round(statistics.median(values), 3),
                    spread=[round(min(values), 3), round(max(values), 3)])
    if values and peer:
        made.update(peer=round(statistics.median(peer), 3), ratio=round(
            statistics.median(a / b for a, b in zip(values, peer)), 3))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument('--users', type=int, default=8)
    parser.add_argument('--requests', type=int, default=5, help='of each user')
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    users = scenes(args.users)
    ours, peer = Server(args, 8), Server(args, 1)
    try:
        for server in (ours, peer):
            load(server, users[:1], 1)  # the first answer of a process is slow
        alone = [load(ours, users[:1], args.requests) for _ in range(args.repeats)]
        pairs = [[load(server, users, args.requests) for server in (ours, peer)]
                 for _ in range(args.repeats)]
    finally:
        ours.close()
        peer.close()
    device = device_of(args)
    together = [row for run, _ in pairs for row in run['rows']]
    single = [row for run in alone for row in run['rows']]
    lost = sum(run['lost'] for run in (*alone, *(run for pair in pairs for run in pair)))
    rows = [row(f'{who}: {what}', [one[key] for one in found if one[key] is not None], 's',
                device=device)
            for who, found in (('1 user', single), (f'{args.users} users', together))
            for what, key in (('first vertex', 'first'), ('whole outline', 'whole'))]
    rows += [row(f'{args.users} users: answers a second', [run['rate'] for run, _ in pairs],
                 '1/s', [run['rate'] for _, run in pairs], device),
             row('lost requests', [lost], 'requests', device=device)]
    for one in rows:
        print(f'{one["name"]:32} {one["ours"]} {one["unit"]}  {one["spread"]}'
              + (f'  without batches {one["peer"]}, ratio {one["ratio"]}' if one['peer'] else ''))
    print(json.dumps(rows))
    return 1 if lost else 0


if __name__ == '__main__':
    sys.exit(main())
