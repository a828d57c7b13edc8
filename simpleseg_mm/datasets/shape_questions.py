"""Questions about RefShapes scenes with short answers, in the form of `QuestionAnsweringDataset`.

Colour, count and position ask what a general model can say; naming and grounding what nano's base
is trained on. Every answer follows from the scene's annotations. All templates, margins and
frequencies are our choice.
"""
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from simpleseg_mm.polygon import mask_to_point
from simpleseg_mm.scenes import COLOURS
from simpleseg_mm.templates import QUESTIONS, SUBJECTS

from . import native, refshapes, shape_phrases
from .questions import REGION
from .shape_phrases import SHAPES, Shape

#: x to the right, y down
RELATIONS = {'left of': (-1, 0), 'right of': (1, 0), 'above': (0, -1), 'below': (0, 1)}
LEAST_DISTANCE = 0.15  # least distance between the centres in that direction, of the image side


def write_questions(data_root: str | Path, split: str, kinds: Sequence[str] | None = None,
                    each: int = 1, limit: int | None = None, seed: int = 0) -> list[dict]:
    """Questions about the scenes of a generated RefShapes set.

    Args:
        data_root: Folder that ``generate_refshapes.py`` wrote.
        split: Of its scenes, which are taken in order.
        kinds: Of :data:`QUESTION_KINDS`; None: all.
        each: Questions of a kind about one scene, where it allows so many different ones.
        limit: Questions of a kind in all; None: no limit.
        seed: Of all choices; those about a scene depend on nothing else.

    Returns:
        Rows for the file, kind by kind.

    Raises:
        ValueError, FileNotFoundError: Unknown kinds, numbers below 1, a missing set or split.
    """
    kinds = tuple(QUESTION_KINDS) if kinds is None else tuple(kinds)
    if unknown := set(kinds) - set(QUESTION_KINDS):
        raise ValueError(f'unknown kinds {sorted(unknown)}; choose from {list(QUESTION_KINDS)}')
    if each < 1 or (limit is not None and limit < 1):
        raise ValueError(f'each={each}, limit={limit}: at least 1')
    scenes = list(_scenes(data_root, split))
    rows = []
    for kind in kinds:
        found: list[dict] = []
        for image, objects in scenes:
            if limit is not None and len(found) >= limit:
                break
            rng = np.random.default_rng([seed, image['id'], zlib.crc32(kind.encode())])
            fresh: list[dict] = []
            for _ in range(each):
                row = QUESTION_KINDS[kind](objects, rng)
                if row is not None and row not in fresh:
                    fresh.append(row)
            found += [dict(image=f'images/{image["file_name"]}', kind=kind, **row)
                      for row in fresh]
        rows += found[:limit]
    return rows


def _scenes(data_root: str | Path, split: str) -> Iterable[tuple[dict, list[Shape]]]:
    refs_path = native.find_refs(data_root, refshapes.NAME, refshapes.NAME)
    refs = native.select_split(native.load_refs(refs_path), split, refs_path)
    file = native.load_instances(Path(data_root) / refshapes.NAME / 'instances.json')
    members: dict[int, list[dict]] = {}
    for annotation in file.rows:
        members.setdefault(annotation.image_id, []).append(annotation.record)
    for image_id in dict.fromkeys(ref['image_id'] for ref in refs):
        yield file.images[image_id].record, [refshapes.shape_of(a) for a in members[image_id]]


def _colour(objects: list[Shape], rng: np.random.Generator) -> dict | None:
    named = [(item, name) for item in objects
             for name in _names_of_one(objects, item, ('shape',), ('size', 'shape'))]
    if not named:
        return None
    item, name = shape_phrases.pick(rng, named)
    return dict(question=f'What colour is the {name}?', answers=[item.colour])


def _count(objects: list[Shape], rng: np.random.Generator) -> dict:
    """A count that the scene has, each as likely; then something that occurs so often."""
    groups = {'objects': len(objects)}
    groups.update({f'{colour} objects': sum(item.colour == colour for item in objects)
                   for colour in COLOURS})
    groups.update({_shapes_in_words(shape): sum(item.shape == shape for item in objects)
                   for shape in SHAPES})
    count = shape_phrases.pick(rng, sorted(set(groups.values())))
    name = shape_phrases.pick(rng, [name for name, number in groups.items() if number == count])
    return dict(question=f'How many {name} are there?', answers=[str(count)])


def _position(objects: list[Shape], rng: np.random.Generator) -> dict | None:
    """Yes or no, as likely; what lies in no clear direction is not asked about."""
    wanted = bool(rng.integers(2))
    named = [(item, names[0]) for item in objects
             if (names := _names_of_one(objects, item, ('shape',), ('colour', 'shape')))]
    asked = []
    for item, name in named:
        for other, other_name in named:
            for relation, (dx, dy) in RELATIONS.items():
                ahead = ((item.centre[0] - other.centre[0]) * dx
                         + (item.centre[1] - other.centre[1]) * dy)
                if item is not other and abs(ahead) >= LEAST_DISTANCE and (ahead > 0) == wanted:
                    asked.append(f'Is the {name} {relation} the {other_name}?')
    if not asked:
        return None
    return dict(question=shape_phrases.pick(rng, asked), answers=['yes' if wanted else 'no'])


def _naming(objects: list[Shape], rng: np.random.Generator, given: str) -> dict | None:
    """Accepted is every phrase that RefShapes has for this object alone."""
    target = int(rng.integers(len(objects)))
    phrases = shape_phrases.all_phrases(objects, target, rng)
    if not phrases:
        return None
    item = objects[target]
    region = mask_to_point(item.mask, 'inside') if given == 'point' else _pixels(item)
    subject = SUBJECTS[given][0].replace('{given}', REGION)
    return dict(question=QUESTIONS['text'][0].replace('{subject}', subject),
                region=[float(v) for v in region], answers=phrases)


def _naming_box(objects: list[Shape], rng: np.random.Generator) -> dict | None:
    return _naming(objects, rng, 'box')


def _naming_point(objects: list[Shape], rng: np.random.Generator) -> dict | None:
    return _naming(objects, rng, 'point')


def _grounding(objects: list[Shape], rng: np.random.Generator) -> dict | None:
    target = int(rng.integers(len(objects)))
    phrases = shape_phrases.describe(objects, target, rng, 1)
    if not phrases:
        return None
    return dict(question=QUESTIONS['box'][0].replace('{subject}', phrases[0][0]),
                box=_pixels(objects[target]))


#: kind: writes a question about a scene, or None where it allows none
QUESTION_KINDS = dict(
    colour=_colour, count=_count, position=_position, naming_box=_naming_box,
    naming_point=_naming_point, grounding=_grounding)


def _names_of_one(objects: list[Shape], item: Shape, *keys: tuple[str, ...]) -> list[str]:
    """Names by these attributes that fit ``item`` alone."""
    return [' '.join(getattr(item, key) for key in names) for names in keys
            if sum(all(getattr(other, key) == getattr(item, key) for key in names)
                   for other in objects) == 1]


def _pixels(item: Shape) -> list[float]:
    return [float(round(v * len(item.mask))) for v in item.box]


def _shapes_in_words(shape: str) -> str:
    return f'{shape}es' if shape == 'cross' else f'{shape}s'
