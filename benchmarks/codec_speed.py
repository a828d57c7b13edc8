"""Milliseconds a mask of the codec: encode, parse, decode. Generated masks, no data needed.

    python benchmarks/codec_speed.py [--masks 60]

Processor time of one core. Prints one JSON object on its last line.
"""
import argparse
import json
import time

import cv2
import numpy as np

from simpleseg_mm.polygon import PolygonCodec, count_tokens, mask_iou, parse_answer


def make_mask(rng, size):
    """A star-shaped blob with a rough outline, a hole, and a small part beside it."""
    h, w = size
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    waves = sum(rng.normal() / k * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 20))
    radius = min(size) / 3 * (1 + 0.15 * waves)
    points = np.stack([w / 2 + radius * np.cos(angle), h / 2 + radius * np.sin(angle)], axis=1)
    mask = cv2.fillPoly(np.zeros(size, np.uint8), [np.int32(points)], 1)
    cv2.circle(mask, (w // 2, h // 2), min(size) // 12, 0, -1)
    cv2.circle(mask, (w // 12, h // 12), min(size) // 16, 1, -1)
    return mask.astype(bool)


def timed(function, *args):
    """(result, milliseconds of processor time)."""
    start = time.process_time()
    result = function(*args)
    return result, 1e3 * (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--masks', type=int, default=60)
    args = parser.parse_args()
    report = {}
    for name, size, codec in [
        ('coco', (480, 640), PolygonCodec()),
        ('coco_250', (480, 640), PolygonCodec(tokens=250)),
        ('square_1000', (1000, 1000), PolygonCodec()),
        ('small_int100', (112, 112), PolygonCodec(grammar='int100', tokens=60)),
        ('paper', (480, 640), PolygonCodec('paper', 'decimal3')),
    ]:
        rng = np.random.default_rng(0)
        rows = []
        for _ in range(args.masks):
            mask = make_mask(rng, size)
            text, encode = timed(codec.encode, mask)
            _, parse = timed(parse_answer, text, codec.grammar)
            decoded, decode = timed(codec.decode, text, size)
            rows.append((encode, parse, decode, mask_iou(decoded.mask, mask), count_tokens(text)))
        keys = ('encode_ms', 'parse_ms', 'decode_ms', 'iou', 'tokens')
        report[name] = dict(zip(keys, np.mean(rows, axis=0).round(4).tolist()))
        print(f'{name:14}', report[name])
    print(json.dumps(report))


if __name__ == '__main__':
    main()
