"""The codec beside the official steps: text to IoU, annotation to text; milliseconds of one core.

Objects are those of the COCO photos in ``SIMPLESEG_DATA`` of at least 20 pixels, or generated
blobs where there are none.
"""
import json
from collections.abc import Callable

import cv2
import numpy as np
import official
from measure import alternate, real_data, row
from pycocotools import mask as coco_mask

from simpleseg_mm.polygon import (Grammar, PolygonCodec, Spans, count_tokens, mask_iou,
                                  mask_to_rle, segmentation_to_mask)
from simpleseg_mm.rl import PolygonReward

SIZE = (480, 640)
EPSILON = 0.005  # the paper's best
OURS = dict(preset='paper-exact', grammar='int1000', epsilon=EPSILON)


def blob(rng: np.random.Generator, size: tuple[int, int], vertices: int = 200) -> np.ndarray:
    """``(N, 2)`` outline of a rough star about the middle of an image of ``size`` (h, w)."""
    h, w = size
    angle = -np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    waves = sum(rng.normal() / k * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 8))
    radius = min(size) / 3 * np.clip(1 + 0.15 * waves, 0.3, 1.4)
    return np.stack([w / 2 + radius * np.cos(angle), h / 2 + radius * np.sin(angle)], axis=1)


def answers(size: tuple[int, int], count: int, vertices: int = 20) -> list[tuple]:
    """(answer in fixed3, the same in int1000, target) of each: the target is the answer's outline,
    moved and rough."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        ring = blob(rng, size, vertices)
        target = cv2.fillPoly(np.zeros(size, np.uint8),
                              [np.int32(ring + rng.normal(0, size[0] / 60, ring.shape))], 1)
        found.append((*(Grammar.from_name(name).format_rings([ring], size)
                        for name in ('fixed3', 'int1000')), target))
    return found


def objects(count: int) -> tuple[list[tuple], str]:
    """(segmentation, h, w) of each object, and where they are from."""
    data = real_data()
    if data is None:
        rng = np.random.default_rng(0)
        return [([blob(rng, SIZE).round(2).ravel().tolist()], *SIZE)
                for _ in range(count)], 'generated'
    content = json.loads((data / 'coco_photos' / 'instances.json').read_text())
    images = {image['id']: image for image in content['images']}
    found = []
    for annotation in content['annotations']:
        image = images[annotation['image_id']]
        size = image['height'], image['width']
        if not annotation.get('iscrowd') and annotation['area'] >= 20:
            found.append((annotation['segmentation'], *size))
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i] for i in order], 'COCO photos'


def compare(name: str, ours: Callable, peer: Callable, count: int, repeats: int, **notes) -> dict:
    """A row of milliseconds an item; each way does ``count`` of them a turn."""
    seconds = alternate(dict(ours=ours, peer=peer), repeats)
    return row(name, *([1e3 * s / count for s in seconds[way]] for way in ('ours', 'peer')),
               unit='ms', **notes)


def decode_rows(count: int, repeats: int) -> list[dict]:
    codec, items = PolygonCodec(), answers(SIZE, count)
    # pycocotools' masks lie column after column; so does the peer's target
    columns = [np.asfortranarray(target) for *_, target in items]
    targets = [Spans.from_mask(target) for *_, target in items]

    def peer():
        return [official.iou(official.text_mask(fixed, *SIZE), target)
                for (fixed, *_), target in zip(items, columns)]

    def spans():
        return [codec.decode(text, SIZE).spans.iou(target)
                for (_, text, _), target in zip(items, targets)]

    def masks():
        return [mask_iou(codec.decode(text, SIZE).mask, target) for _, text, target in items]

    what = f'{count} answers of 20 vertices, 640 x 480'
    return [compare('decode_iou', spans, peer, count, repeats, what=what),
            compare('decode_iou_with_mask', masks, peer, count, repeats, what=what)]


def encode_rows(count: int, repeats: int) -> list[dict]:
    items, source = objects(count)
    codec = PolygonCodec(**OURS)
    # what the official decoding gives, where it does not raise: on rings of one or two points
    official_codec = PolygonCodec('paper', 'decimal3')
    masks = [official.annotation_mask(*item).astype(np.uint8) for item in items]

    def quality(texts: list[str], reader: PolygonCodec) -> dict:
        ious = [mask_iou(reader.decode(text, mask.shape).mask, mask)
                for text, mask in zip(texts, masks)]
        return dict(iou=round(float(np.mean(ious)), 4),
                    tokens=round(float(np.mean([count_tokens(text) for text in texts])), 1))

    found = []
    for suffix, epsilon in (('', EPSILON), ('_script_epsilon', 0.001)):
        notes = dict(
            what=f'{len(items)} objects, {source}; ours {codec}, the peer at epsilon {epsilon}',
            ours_quality=quality([codec.encode_segmentation(*item) for item in items], codec),
            peer_quality=quality([official.mask_text(mask, epsilon) for mask in masks],
                                 official_codec))
        found.append(compare(
            'annotation_to_text' + suffix,
            lambda: [codec.encode_segmentation(*item) for item in items],
            lambda: [official.mask_text(official.annotation_mask(*item), epsilon)
                     for item in items], len(items), repeats, **notes))
    found.append(compare(
        'mask_array_to_text', lambda: [codec.encode(mask) for mask in masks],
        lambda: [official.mask_text(mask, EPSILON) for mask in masks], len(items), repeats,
        **{**notes, 'what': 'as annotation_to_text, from a decoded (h, w) uint8 mask',
           'peer_quality': found[0]['peer_quality']}))
    return found


def reward_rows(prompts: int, group: int, repeats: int) -> list[dict]:
    """The three rewards of a rollout batch in one thread; the peer gives the IoU alone."""
    items = answers(SIZE, prompts)
    texts = [text for _, text, _ in items for _ in range(group)]
    fixed = [text for text, *_ in items for _ in range(group)]
    rles = [mask_to_rle(target) for *_, target in items for _ in range(1)]
    truths = [rle for rle in rles for _ in range(group)]
    reward = PolygonReward(dict(mask_iou=1.0, centroid=0.2, format=0.2), max_side=640)

    def peer():
        decoded = [coco_mask.decode(rle) for rle in rles]
        for i, text in enumerate(fixed):
            official.iou(official.text_mask(text, *SIZE), decoded[i // group])

    return [compare('rewards', lambda: reward(texts, truths), peer, len(texts), repeats,
                    what=f'{prompts} prompts x {group} answers, 640 x 480: ours IoU, centroid '
                         'and format; the peer IoU alone; ms an answer')]


def rows(quick: bool = False) -> list[dict]:
    cv2.setNumThreads(1)
    repeats = 2 if quick else 9
    return (decode_rows(4 if quick else 20, repeats) + encode_rows(6 if quick else 100, repeats)
            + reward_rows(*((2, 2, 2) if quick else (32, 8, 3))))


def by_size(sides=(112, 224, 448, 896, 1792), repeats: int = 5) -> dict:
    """Milliseconds of decoding and IoU at each side of a square image: for the plot."""
    cv2.setNumThreads(1)
    found: dict = dict(side=list(sides), ours=[], peer=[])
    codec = PolygonCodec()
    for side in sides:
        size = (side, side)
        (fixed, text, target), = answers(size, 1)
        spans, columns = Spans.from_mask(target), np.asfortranarray(target)
        seconds = alternate(dict(
            ours=lambda: codec.decode(text, size).spans.iou(spans),
            peer=lambda: official.iou(official.text_mask(fixed, *size), columns)), repeats)
        for way, values in seconds.items():
            found[way].append(round(1e3 * float(np.median(values)), 4))
    return found


def by_tokens(count: int = 40) -> dict:
    """Mean tokens and IoU over objects, ours at several budgets, the paper's at several epsilons
    (as the official code decodes): for the plot."""
    items, source = objects(count)
    masks = [segmentation_to_mask(*item) for item in items]
    curves: dict = dict(source=source, objects=len(items))
    for name, settings in dict(
            default=[dict(tokens=t) for t in (40, 60, 85, 115, 150, 200, 250)],
            paper_exact=[dict(OURS, epsilon=e) for e in (0.001, 0.002, 0.005, 0.01)],
            paper=[dict(preset='paper', grammar='decimal3', epsilon=e)
                   for e in (0.001, 0.002, 0.005, 0.01)]).items():
        curves[name] = []
        for options in settings:
            codec = PolygonCodec(**options)
            texts = [codec.encode(mask) for mask in masks]
            ious = [mask_iou(codec.decode(text, mask.shape).mask, mask)
                    for text, mask in zip(texts, masks)]
            curves[name].append([round(float(np.mean([count_tokens(t) for t in texts])), 1),
                                 round(float(np.mean(ious)), 4)])
    return curves
