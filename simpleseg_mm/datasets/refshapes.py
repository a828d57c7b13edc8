"""RefShapes: generated referring segmentation in RefCOCO's own file formats.

A scene holds two to four coloured shapes (unless told) that do not touch, on a soft pale
background. Every reference has three sentences, each of which fits exactly one object of its scene
by construction; on request there are references to several objects and to none too, in gRefCOCO's
form, and scenes of like objects, whose phrases fit one to six of them or none.
Scene ``i`` of a split depends on ``(seed, split, i)`` alone, so a larger set contains the smaller
one. All sizes, colours, words and frequencies are our choice.

Directions and margins are in units of the image side, x to the right and y down.
"""
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from simpleseg_mm.files import make_folder, replace_bytes, replace_json, replace_text, replacing
from simpleseg_mm.scenes import COLOURS, NAME

from ..choices import SCENE_OBJECTS
from . import shape_groups
from .shape_phrases import SENTENCES, SHAPES, Shape, describe

VERSION = 1
SPLITS = ('train', 'val', 'test')
SIZES = {'small': (44 / 224, 64 / 224), 'large': (76 / 224, 110 / 224)}

_SUPERSAMPLING = 4
_LIKE = dict(shape=0.8, colour=0.2)  # alike are: below 'shape' shapes, from 'colour' on colours
_GAP = 5 / 224  # smallest distance between two objects
_IMAGE_ID_STRIDE = 10_000_000  # image ids of a split: split number x stride + scene


def outlines(shape: str, rng: np.random.Generator) -> list[tuple[np.ndarray, int]]:
    """Outline of a randomly turned shape: rings to paint in order, each with 1 (fill) or 0 (cut).

    Each ring is (N, 2) float64, x then y, centred; the greater side of the whole box is 1.
    """
    angle = rng.uniform(0, 2 * np.pi)
    slight = rng.uniform(-0.35, 0.35)
    circle = _regular(64, 0.5, 0.0)
    square = np.array([(-.5, -.5), (.5, -.5), (.5, .5), (-.5, .5)])
    if shape == 'circle':
        rings = [(circle, 1)]
    elif shape == 'square':
        rings = [(_turn(square, slight), 1)]
    elif shape == 'triangle':
        rings = [(_regular(3, 0.5, angle), 1)]
    elif shape == 'star':
        points = _regular(10, 0.5, angle)
        points[1::2] *= 0.45
        rings = [(points, 1)]
    elif shape == 'cross':
        a, b = 0.5, 0.18
        points = np.array([(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b),
                           (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)])
        rings = [(_turn(points, slight), 1)]
    elif shape == 'ring':
        rings = [(circle, 1), (circle * 0.52, 0)]
    elif shape == 'frame':
        rings = [(_turn(square, slight), 1), (_turn(square * 0.52, slight), 0)]
    elif shape == 'split disc':
        rings = [(circle, 1), (_turn(square * (0.2, 1.2), angle), 0)]
    else:
        raise ValueError(f'unknown shape {shape!r}; choose one of {SHAPES}')
    low, high = rings[0][0].min(0), rings[0][0].max(0)
    return [((ring - (low + high) / 2) / (high - low).max(), paint) for ring, paint in rings]


def draw_scene(rng: np.random.Generator, size: int = 224,
               objects_range: tuple[int, int] = SCENE_OBJECTS, like: bool = False,
               object_size: tuple[int, int] | None = None) -> tuple[np.ndarray, list[Shape]]:
    """Draw one scene.

    Args:
        rng: Source of all choices.
        size: Side of the square image in pixels, at least 64.
        objects_range: Fewest and most objects; fewer than the most where they do not fit.
        like: Whether some objects, from one to all, are alike.
        object_size: Least and greatest side of an object's box, in pixels before it is turned;
            None: 'small' and 'large' are the shares of the image that ``SIZES`` says.

    Returns:
        (size, size, 3) uint8 RGB image and its objects, in drawing order.
    """
    image = _background(rng, size)
    taken = np.zeros((size, size), np.uint8)
    margin = max(1, round(_GAP * size))
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    sizes = _sizes(object_size, size)
    fewest, most = objects_range
    kinds = _choose_like_kinds(rng, fewest, most) if like else None
    count = len(kinds) if like else int(rng.integers(fewest, most + 1))
    objects: list[Shape] = []
    while len(objects) < fewest:
        if kinds is None or objects:
            kinds = _choose_kinds(rng, count - len(objects), objects)
        for shape, colour, size_name in kinds:
            diameter = int(round(rng.uniform(*sizes[size_name]) * size))
            alpha, solid = _paint(outlines(shape, rng), diameter)
            place = _find_place(rng, taken, solid, margin)
            if place is None:
                continue
            x, y = place
            window = np.s_[y:y + len(alpha), x:x + len(alpha)]
            rgb = np.clip(np.array(COLOURS[colour]) + rng.uniform(-12, 12, 3), 0, 255)
            image[window] += (rgb - image[window]) * alpha[..., None]
            mask = np.zeros((size, size), bool)
            mask[window] = alpha >= 0.5
            blocked = np.zeros_like(taken)
            blocked[window] = solid
            taken |= cv2.dilate(blocked, kernel)
            objects.append(_measure(shape, colour, size_name, mask))
    image += rng.standard_normal((size, size, 1), np.float32) * 3
    return np.clip(image, 0, 255).astype(np.uint8), objects


def shape_of(annotation: dict) -> Shape:
    """The object that an annotation of :func:`make_scene` describes."""
    mask = np.ascontiguousarray(coco_mask.decode(annotation['segmentation'])) > 0
    return _measure(SHAPES[annotation['category_id'] - 1], annotation['colour'],
                    annotation['size'], mask)


def make_scene(seed: int, split: str, index: int, size: int = 224, absent: float = 0.0,
               several: float = 0.0, objects_range: tuple[int, int] = SCENE_OBJECTS,
               like: float = 0.0, object_size: tuple[int, int] | None = None) -> dict:
    """Image, annotations and references of one scene, in the native formats.

    Args:
        seed: Seed of the set.
        split: 'train', 'val' or 'test'.
        index: Number of the scene in its split.
        size: Side of the image in pixels.
        absent: Probability that a scene has one more reference, to nothing (gRefCOCO's form:
            ``ann_id [-1]``, and lists in every reference).
        several: Probability that it has one more, to several of its objects (in the same form).
            Absent things are then named in the plural too. A scene of one object has none, nor
            has one whose objects cannot be told apart by words.
        objects_range: See :func:`draw_scene`.
        like: Probability that it is a scene of like objects instead. Its references are to up to
            three groups of its objects, each of one to all, and with ``absent`` to nothing. All
            are named in the plural, so that no wording tells how many there are.
        object_size: See :func:`draw_scene`.

    Returns:
        ``dict(pixels=(size, size, 3) uint8 RGB, image=..., annotations=[...], refs=[...])``, where
        the last three are records of ``instances.json`` and ``refs(...).p``.
    """
    number = SPLITS.index(split)
    rng = np.random.default_rng([seed, number, index])
    is_like = like > 0 and rng.random() < like
    pixels, objects = draw_scene(rng, size, objects_range, is_like, object_size)
    image_id = number * _IMAGE_ID_STRIDE + index
    name = f'{NAME}_{split}_{index:07d}'
    image = dict(id=image_id, file_name=f'{name}.jpg', height=size, width=size)
    annotations = [_annotation(item, image_id, image_id * 10 + k)
                   for k, item in enumerate(objects)]
    refs = []
    for k in range(0 if is_like else len(objects)):
        sentences = [sentence for sentence, _ in describe(objects, k, rng)]
        if len(sentences) == SENTENCES:
            refs.append(_reference(annotations[k]['id'], annotations[k]['category_id'],
                                   image_id, f'{name}_{k}.jpg', split, sentences))
    if absent or several or like:
        refs = [dict(ref, ann_id=[ref['ann_id']], category_id=[ref['category_id']])
                for ref in refs]
    groups = []
    if is_like:
        groups = shape_groups.describe_like(objects, rng)
    elif several and rng.random() < several and (
            group := shape_groups.describe_group(objects, rng)):
        groups = [group]
    for places, sentences in groups:
        members = [annotations[k] for k in places]
        refs.append(_reference([item['id'] for item in members],
                               [item['category_id'] for item in members],
                               image_id, f'{name}.jpg', split, sentences))
    if absent and rng.random() < absent:
        sentences = shape_groups.describe_absent_like(objects, rng) if is_like else \
            shape_groups.describe_absent(objects, rng, several=several > 0)
        refs.append(_reference([-1], [-1], image_id, f'{name}.jpg', split, sentences))
    return dict(pixels=pixels, image=image, annotations=annotations, refs=refs)


def generate(out_dir: str | Path, scenes: dict[str, int], seed: int = 0, size: int = 224,
             absent: float = 0.0, objects_range: tuple[int, int] = SCENE_OBJECTS, workers: int = 1,
             several: float = 0.0, like: float = 0.0,
             object_size: tuple[int, int] | None = None,
             progress: Callable[[Iterable, int], Iterable] = lambda items, total: items) -> dict:
    """Write a RefShapes set: ``images/`` and ``refshapes/`` with references and instances.

    The references are ``refs(refshapes).p`` as in RefCOCO, or, where some have several or no
    targets, ``grefs(refshapes).json`` as in gRefCOCO.

    Args:
        out_dir: Folder to write to; files of an earlier run with the same names are replaced.
        scenes: Number of scenes by split, such as ``dict(train=5000, val=250)``.
        seed: Seed of the set. Equal arguments give byte-identical files (with the same OpenCV).
        size: Side of the images in pixels, at least 64.
        absent, several, like: See :func:`make_scene`.
        objects_range, object_size: See :func:`draw_scene`.
        workers: Processes that draw; the files do not depend on it.
        progress: Wraps the scenes to come, given their number.

    Returns:
        The card: seed, version and counts.

    Raises:
        ValueError: For an unknown split, a negative count, a size below 64, a share outside 0..1,
            an objects_range outside 1..6, or an object_size below 8 pixels or above half the side.
    """
    if unknown := set(scenes) - set(SPLITS):
        raise ValueError(f'unknown splits {sorted(unknown)}; choose from {SPLITS}')
    if min(scenes.values(), default=0) < 0:
        raise ValueError(f'scenes must not be negative, got {scenes}')
    if not 64 <= size <= 4096:
        raise ValueError(f'size must be in 64..4096 pixels, got {size}')
    for share, value in (('absent', absent), ('several', several), ('like', like)):
        if not 0 <= value <= 1:
            raise ValueError(f'{share} must be in 0..1, got {value}')
    if not 1 <= objects_range[0] <= objects_range[1] <= 6:
        raise ValueError(f'objects_range must be (fewest, most) in 1..6, got {objects_range}')
    if object_size is not None and not 8 <= object_size[0] < object_size[1] <= size / 2:
        raise ValueError(f'object_size must be (least, greatest) in 8..{size // 2} pixels, half '
                         f'the side of the images, least < greatest; got {object_size}')
    out_dir = Path(out_dir)
    for folder in (out_dir / 'images', out_dir / NAME):
        make_folder(folder, 'the folder')
    (out_dir / NAME / 'card.json').unlink(missing_ok=True)  # until all is there
    todo = [(split, i) for split in SPLITS for i in range(scenes.get(split, 0))]
    draw = partial(_write_scene, out_dir / 'images', seed=seed, size=size, absent=absent,
                   several=several, objects_range=objects_range, like=like,
                   object_size=object_size)
    images, annotations, refs = [], [], []
    sent_id = 0
    with Pool(workers) if workers > 1 else nullcontext() as pool:
        scenes_in_order = pool.imap(draw, todo, chunksize=16) if pool else map(draw, todo)
        for scene in progress(scenes_in_order, len(todo)):
            images.append(scene['image'])
            annotations += scene['annotations']
            for ref in scene['refs']:
                ref['ref_id'] = len(refs)
                ref['sent_ids'] = list(range(sent_id, sent_id + len(ref['sentences'])))
                for sentence in ref['sentences']:
                    sentence['sent_id'] = sent_id
                    sent_id += 1
                refs.append(ref)
    counts = {split: dict(images=scenes.get(split, 0),
                          refs=sum(ref['split'] == split for ref in refs),
                          sentences=sum(len(ref['sentences']) for ref in refs
                                        if ref['split'] == split)) for split in SPLITS}
    card = dict(name='RefShapes', version=VERSION, seed=seed, size=size, absent=absent,
                objects_range=list(objects_range), counts=counts,
                annotations=len(annotations), shapes=list(SHAPES),
                colours=list(COLOURS), licence='CC0-1.0')
    categories = [dict(id=i + 1, name=name, supercategory='shape')
                  for i, name in enumerate(SHAPES)]
    instances = dict(info=dict(description='RefShapes', version=str(VERSION)), images=images,
                     annotations=annotations, categories=categories)
    if object_size:
        card.update(object_size=list(object_size))
    if several:
        card.update(several=several)
    if like:
        card.update(like=like, objects_a_reference=_count_objects(refs))
    if several or like:
        card.update(targets=_count_targets(refs))
    _write_refs(out_dir / NAME, refs, generalised=bool(absent or several or like))
    replace_json(out_dir / NAME / 'instances.json', instances, separators=(',', ':'))
    replace_json(out_dir / NAME / 'card.json', card, indent=2)
    return card


def _count_targets(refs: list[dict]) -> dict[str, dict[str, int]]:
    """References of each split to one object, to several and to none."""
    sizes = {split: [len(ref['ann_id']) if ref['ann_id'] != [-1] else 0 for ref in refs
                     if ref['split'] == split] for split in SPLITS}
    return {split: dict(single=found.count(1), several=sum(n > 1 for n in found),
                        absent=found.count(0)) for split, found in sizes.items()}


def _count_objects(refs: list[dict]) -> dict[str, dict[int, int]]:
    """References of each split by the number of their objects."""
    sizes = {split: Counter(len(ref['ann_id']) if ref['ann_id'] != [-1] else 0 for ref in refs
                            if ref['split'] == split) for split in SPLITS}
    return {split: dict(sorted(found.items())) for split, found in sizes.items()}


def _write_refs(folder: Path, refs: list[dict], generalised: bool) -> None:
    """Write the references in RefCOCO's or gRefCOCO's file; the other would be read instead."""
    pickled, listed = folder / f'refs({NAME}).p', folder / f'grefs({NAME}).json'
    text = json.dumps(refs, separators=(',', ':'))
    if generalised:
        pickled.unlink(missing_ok=True)
        replace_text(listed, text)
    else:
        listed.unlink(missing_ok=True)
        # read again, as a pickle's bytes depend on which strings are one object
        replace_bytes(pickled, pickle.dumps(json.loads(text), protocol=2))


def _write_scene(folder: Path, place: tuple[str, int], **options) -> dict:
    """Write the picture of scene ``place`` (split, index) and give its records."""
    split, index = place
    scene = make_scene(split=split, index=index, **options)
    path = folder / scene['image']['file_name']
    pixels = scene.pop('pixels')
    jpeg = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    with replacing(path, durable=False) as partial:  # thousands of files: the card comes after all
        partial.write_bytes(jpeg)
    return scene


# Drawing


def _regular(corners: int, radius: float, angle: float) -> np.ndarray:
    """Corners of a regular polygon around 0: (corners, 2) float64."""
    turn = angle + np.arange(corners) * (2 * np.pi / corners)
    return radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([(c, s), (-s, c)])


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A pale colour that changes slowly from corner to corner: (size, size, 3) float32."""
    corners = (rng.uniform(205, 250, 3) + rng.uniform(-14, 14, (2, 2, 3))).astype(np.float32)
    return cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)


def _sizes(object_size: tuple[int, int] | None, side: int) -> dict[str, tuple[float, float]]:
    """``SIZES``, or the same two ranges between other ends (pixels), in shares of the side."""
    if object_size is None:
        return SIZES
    least, greatest = SIZES['small'][0], SIZES['large'][1]
    start, scale = object_size[0] / side, (object_size[1] - object_size[0]) / side
    return {name: tuple(start + (end - least) / (greatest - least) * scale for end in ends)
            for name, ends in SIZES.items()}


def _choose_kinds(rng: np.random.Generator, count: int,
                  given: list[Shape]) -> list[tuple[str, str, str]]:
    """``count`` kinds (shape, colour, size); objects share attributes now and then."""
    kinds = [(item.shape, item.colour, item.size) for item in given]
    chosen = []
    for _ in range(count):
        shape = SHAPES[rng.integers(len(SHAPES))]
        colour = tuple(COLOURS)[rng.integers(len(COLOURS))]
        size = 'large' if rng.random() < 0.5 else 'small'
        if kinds:
            other = kinds[rng.integers(len(kinds))]
            draw = rng.random()
            shape = other[0] if draw < 0.30 else shape
            colour = other[1] if draw > 0.72 or draw < 0.04 else colour
        kinds.append((shape, colour, size))
        chosen.append(kinds[-1])
    return chosen


def _choose_like_kinds(rng: np.random.Generator, fewest: int,
                       most: int) -> list[tuple[str, str, str]]:
    """``fewest`` to ``most`` kinds, of which one to all are alike, each number as often as
    another, and up to two are others."""
    alike = int(rng.integers(1, most + 1))
    count = min(max(alike + int(rng.integers(3)), fewest), most)
    shape = SHAPES[rng.integers(len(SHAPES))]
    colour = tuple(COLOURS)[rng.integers(len(COLOURS))]
    draw = rng.random()
    same_shape, same_colour = draw < _LIKE['shape'], draw >= _LIKE['colour']
    chosen = []
    for k in range(count):
        kind = [SHAPES[rng.integers(len(SHAPES))], tuple(COLOURS)[rng.integers(len(COLOURS))]]
        if k < alike:
            kind = [shape if same_shape else kind[0], colour if same_colour else kind[1]]
        else:
            part = rng.random()  # many share one of the two words, so that both are to be read
            kind = [shape if part < 0.3 else kind[0], colour if part > 0.7 else kind[1]]
        size = 'large' if rng.random() < min(0.5, 1 / count) else 'small'  # six large do not fit
        chosen.append((*kind, size))
    return sorted(chosen, key=lambda kind: kind[2])  # large ones find a place while there is room


def _paint(rings: list[tuple[np.ndarray, int]], diameter: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (d, d) float32 in 0..1, and the filled hull (d, d) uint8, of an outline."""
    fine = diameter * _SUPERSAMPLING
    canvas = np.zeros((fine, fine), np.uint8)
    for ring, paint in rings:
        cv2.fillPoly(canvas, [np.round((ring + 0.5) * fine * 16 - 8).astype(np.int32)],
                     255 * paint, shift=4)
    alpha = cv2.resize(canvas, (diameter, diameter), interpolation=cv2.INTER_AREA)
    hull = np.zeros((diameter, diameter), np.uint8)
    corners = np.round((rings[0][0] + 0.5) * (diameter - 1)).astype(np.int32)
    cv2.fillConvexPoly(hull, cv2.convexHull(corners), 1)
    return alpha.astype(np.float32) / 255, hull


def _find_place(rng: np.random.Generator, taken: np.ndarray, solid: np.ndarray,
                margin: int) -> tuple[int, int] | None:
    """A free top-left corner (x, y) for the object, or None when 40 tries found none."""
    side, room = len(solid), len(taken) - len(solid) - 2 * margin
    for x, y in margin + rng.integers(0, max(room, 1), (40, 2)):
        if not (taken[y:y + side, x:x + side] & solid).any():
            return int(x), int(y)
    return None


def _measure(shape: str, colour: str, size: str, mask: np.ndarray) -> Shape:
    side = len(mask)
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return Shape(shape, colour, size, mask,
                 (x / side, y / side, (x + w) / side, (y + h) / side), mask.sum() / side ** 2)


# Records


def _annotation(item: Shape, image_id: int, ann_id: int) -> dict:
    rle = coco_mask.encode(np.asfortranarray(item.mask, np.uint8))
    return dict(id=ann_id, image_id=image_id, category_id=SHAPES.index(item.shape) + 1,
                bbox=[float(v) for v in coco_mask.toBbox(rle)], area=int(item.mask.sum()),
                iscrowd=0, colour=item.colour, size=item.size,
                segmentation=dict(size=list(item.mask.shape), counts=rle['counts'].decode()))


def _reference(ann_id, category_id, image_id: int, file_name: str, split: str,
               sentences: list[str]) -> dict:
    return dict(ref_id=-1, ann_id=ann_id, category_id=category_id, image_id=image_id,
                file_name=file_name, split=split, sent_ids=[],
                sentences=[dict(sent_id=-1, sent=sent, raw=sent, tokens=sent.split())
                           for sent in sentences])
