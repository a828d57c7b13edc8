"""Search the answers and the masks that take the codec the most time.

    python benchmarks/worst_inputs.py --seconds 60

Answers of 16,384 characters, and masks, are drawn at random from families that are known to be
bad, then changed as long as the worst gets worse. Prints the worst of each kind with its time and
the memory that it took, beside what docs/polygon.md claims; exits with 1 where a claim fails.
Times are processor time of one core; the claims allow for a busy machine (factor 3).
"""
import argparse
import json
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np

from simpleseg_mm.polygon import PolygonCodec, count_crossings, group_rings
from simpleseg_mm.polygon.text import MAX_CHARS

SIZES = ((512, 512), (4000, 6000), (16384, 1500))
SLACK = 3.0
NS_A_CROSSING = 40.0
READ_SECONDS = 0.01
US_A_CORNER = 3.0
FIT_SECONDS = 3.0  # of rings, at 150 tokens, beside the corners


def seconds_of(work: Callable) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_mb(work: Callable) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


class Answers:
    """Texts by a few numbers: how vertices jump, and how many a ring has."""

    def draw(self, rng: np.random.Generator) -> dict:
        return dict(seed=int(rng.integers(2**31)), spread=float(rng.choice([0.0, 0.01, 0.1, 1.0])),
                    ring=int(rng.choice([3, 4, 30, 10_000])), jump=int(rng.integers(0, 4)),
                    sign=bool(rng.random() < 0.5), digits=int(rng.choice([9, 99, 999])))

    def change(self, genes: dict, rng: np.random.Generator) -> dict:
        key = rng.choice(list(genes))
        return dict(genes, **{key: self.draw(rng)[key]})

    def text(self, genes: dict) -> str:
        rng = np.random.default_rng(genes['seed'])
        near, far = 1000 * genes['spread'], 999 - 1000 * min(genes['spread'], 0.9)
        rings: list[str] = []
        room = MAX_CHARS - 2
        while room > 30:
            vertices: list[str] = []
            while len(vertices) < genes['ring'] and room > 16:
                up = len(vertices) % 2
                x = rng.integers(0, genes['digits'] + 1)
                y = int(np.clip(far - rng.uniform(0, 9) if up else rng.uniform(0, near + 9), 0,
                                999))
                if genes['jump'] == 1:
                    x, y = y, x
                elif genes['jump'] == 2:
                    x, y = rng.integers(0, 1000, 2)
                vertices.append(f'[{x},{y}]')
                room -= len(vertices[-1]) + 1
            if genes['sign'] and len(rings) % 2:
                vertices.reverse()
            rings.append(f'[{",".join(vertices)}]')
            room -= 3
        return f'[{",".join(rings)}]'


class Masks:
    """Masks by a pattern, its period and noise."""
    patterns = ('checker', 'dots', 'holes', 'comb', 'stripes', 'spiral', 'noise', 'diagonals')

    def __init__(self, side: int) -> None:
        self.y, self.x = np.mgrid[:side, :side]

    def draw(self, rng: np.random.Generator) -> dict:
        return dict(seed=int(rng.integers(2**31)), pattern=str(rng.choice(self.patterns)),
                    period=int(rng.integers(2, 12)), fill=int(rng.integers(1, 8)),
                    noise=float(rng.choice([0, 0, 0.001, 0.05])))

    change = Answers.change

    def mask(self, genes: dict) -> np.ndarray:
        x, y, p = self.x, self.y, genes['period']
        q, rng = min(genes['fill'], p - 1), np.random.default_rng(genes['seed'])
        side = len(x)
        mask = dict(
            checker=lambda: (x // q + y // q) % 2 == 0, dots=lambda: (x % p < q) & (y % p < q),
            holes=lambda: ~((x % p < q) & (y % p < q)), comb=lambda: (x % p < q) | (y < 2),
            stripes=lambda: x % p < q, noise=lambda: rng.random(x.shape) < q / p,
            diagonals=lambda: (x + 2 * y) % p < q,
            spiral=lambda: (np.hypot(x - side / 2, y - side / 2) / p
                            + np.arctan2(y - side / 2, x - side / 2) / 2 / np.pi) % 1 < q / p,
        )[genes['pattern']]()
        return mask ^ (rng.random(x.shape) < genes['noise'])


def search(source, cost: Callable[[dict], float], seconds: float, seed: int = 0
           ) -> tuple[float, dict, int]:
    """The worst cost found, its genes, and how many were tried."""
    rng = np.random.default_rng(seed)
    worst, best, tries = -1.0, None, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or best is None:
        genes = source.draw(rng) if best is None or rng.random() < 0.3 else source.change(best,
                                                                                         rng)
        value, tries = cost(genes), tries + 1
        if value > worst:
            worst, best = value, genes
    return worst, best, tries


def answer_row(size, preset: str, seconds: float) -> dict:
    codec, answers = PolygonCodec(preset), Answers()
    _, genes, tries = search(answers, lambda genes: seconds_of(
        lambda: codec.decode(answers.text(genes), size).mask), seconds)
    text = answers.text(genes)
    read = min(seconds_of(lambda: codec.decode(text, size)) for _ in range(3))
    rings = codec.decode(text, size).rings
    filled = min(seconds_of(lambda: codec.decode(text, size).mask) for _ in range(3)) - read
    crossings = count_crossings(rings, size)
    found = dict(
        what=f'answer, {preset}', size=list(size), tries=tries, genes=genes, chars=len(text),
        crossings=crossings, read_ms=round(1e3 * read, 1), fill_ms=round(1e3 * filled, 1),
        peak_mb=round(peak_mb(lambda: codec.decode(text, size).mask), 1),
        parts_ms=round(1e3 * seconds_of(lambda: group_rings(rings)), 1))
    if preset == 'default':
        found['claim'] = f'{READ_SECONDS} s, {NS_A_CROSSING} ns a crossing, mask + 20 MB'
        found['holds'] = (read < SLACK * READ_SECONDS and found['peak_mb'] < 20 + size[0] * size[1]
                          / 1e6 and filled < SLACK * (0.005 + 1e-9 * NS_A_CROSSING * crossings))
    return found


def mask_row(side: int, settings: dict, seconds: float) -> dict:
    codec, masks = PolygonCodec(**settings), Masks(side)
    worst, genes, tries = search(masks, lambda genes: seconds_of(
        lambda: codec.encode(masks.mask(genes))), seconds)
    mask = masks.mask(genes)
    corners = int(np.count_nonzero(np.diff(np.diff(np.pad(mask, 1).astype(np.int8), axis=0))))
    text = codec.encode(mask)
    found = dict(what=f'mask, {settings}', size=[side, side], tries=tries, genes=genes,
                 corners=corners, encode_ms=round(1e3 * worst, 1), chars=len(text),
                 peak_mb=round(peak_mb(lambda: codec.encode(mask)), 1))
    read = codec.decode(text, mask.shape).parsed
    found['holds'] = len(text) <= MAX_CHARS and not read.truncated
    if settings.get('tokens', 150) <= 300:
        found['claim'] = f'{US_A_CORNER} us a corner and {FIT_SECONDS} s'
        found['holds'] &= worst < SLACK * (1e-6 * US_A_CORNER * corners + FIT_SECONDS)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20, help='of search, for each kind')
    parser.add_argument('--side', type=int, default=512, help='of the masks, pixels')
    args = parser.parse_args()
    warnings.simplefilter('ignore')  # of rings that are left out
    rows = []
    for work in ([lambda size=size: answer_row(size, 'default', args.seconds) for size in SIZES]
                 + [lambda name=name: answer_row(SIZES[0], name, args.seconds)
                    for name in ('paper', 'paper-exact')]
                 + [lambda kw=kw: mask_row(args.side, kw, args.seconds)
                    for kw in (dict(), dict(tokens=2000), dict(epsilon=0.001), dict(
                        preset='paper', epsilon=0.0))]):
        rows.append(work())
        print(json.dumps(rows[-1]), flush=True)
    sys.exit(not all(row.get('holds', True) for row in rows))


if __name__ == '__main__':
    main()
