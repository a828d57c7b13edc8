"""Phrases about the scenes of RefShapes that fit one object.

All words, margins and frequencies are our choice. Directions and margins are in units of the image
side, x to the right and y down.
"""
from dataclasses import dataclass

import numpy as np

SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring', 'frame', 'split disc')
SENTENCES = 3
ATTRIBUTES = {'colour shape': 5, 'colour': 2, 'shape': 2, 'size shape': 1, 'size colour': 1,
              'size': 1, 'size colour shape': 2}
PHRASE_SHARES = {'attribute': 0.70, 'position': 0.14, 'superlative': 0.08, 'relation': 0.08}

SIZE_WORDS = {'small': ('small', 'little'), 'large': ('large', 'big')}
NOUNS = ('one', 'object', 'thing', 'shape')
SIDES = {'left': (-1, 0), 'right': (1, 0), 'top': (0, -1), 'bottom': (0, 1)}
_RELATIONS = {'left': 'left of', 'right': 'right of', 'top': 'above', 'bottom': 'below'}


@dataclass(frozen=True)
class Shape:
    """One object of a scene.

    ``mask`` is (H, W) bool; ``box`` its (x1, y1, x2, y2) in units of the image side, and ``area``
    its area in units of the image's.
    """
    shape: str
    colour: str
    size: str
    mask: np.ndarray
    box: tuple[float, float, float, float]
    area: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def extent(self) -> float:
        """Square root of the box's area."""
        return ((self.box[2] - self.box[0]) * (self.box[3] - self.box[1])) ** 0.5

    def reach(self, name: str) -> float:
        """How far the object's edge lies in the named direction."""
        x1, y1, x2, y2 = self.box
        return {'left': -x1, 'right': x2, 'top': -y1, 'bottom': y2}[name]


def describe(objects: list[Shape], target: int, rng: np.random.Generator,
             count: int = SENTENCES) -> list[tuple[str, str]]:
    """Sentences that fit ``objects[target]`` and no other object of the scene.

    Returns:
        Up to ``count`` distinct ``(sentence, family)``; fewer where the scene does not allow more.
    """
    found: list[tuple[str, str]] = []
    weights = dict(PHRASE_SHARES)
    for _ in range(8 * count):
        if len(found) == count or not weights:
            break
        family = weighted(rng, weights)
        sentence = _WRITERS[family](objects, target, rng)
        if sentence is None:
            del weights[family]
        elif all(sentence != other for other, _ in found):
            found.append((sentence, family))
    return found


def all_phrases(objects: list[Shape], target: int, rng: np.random.Generator,
                draws: int = 600) -> list[str]:
    """What fits ``objects[target]`` alone, without articles: each family drawn so often that the
    rarest phrase is missed in one of some 200 cases."""
    found = (writer(objects, target, rng) for writer in _WRITERS.values() for _ in range(draws))
    return sorted({phrase.removeprefix('the ') for phrase in found if phrase is not None})


# Every writer returns a sentence that is true of the target alone, or None.


def weighted(rng: np.random.Generator, weights: dict[str, float]) -> str:
    names = list(weights)
    edges = np.cumsum([weights[name] for name in names])
    return names[int(np.searchsorted(edges, rng.random() * edges[-1], side='right'))]


def pick(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def article(rng: np.random.Generator) -> str:
    return 'the ' if rng.random() < 0.6 else ''


def attribute(objects: list[Shape], target: int, rng: np.random.Generator) -> str | None:
    item = objects[target]
    weights = {keys: weight for keys, weight in ATTRIBUTES.items()
               if sum(values(other, keys) == values(item, keys) for other in objects) == 1}
    if not weights:
        return None
    words = noun_phrase(values(item, weighted(rng, weights)), rng)
    return article(rng) + words


def values(item: Shape, keys: str) -> dict[str, str]:
    """Some attributes of an object, named as in ``ATTRIBUTES``."""
    return {key: getattr(item, key) for key in keys.split()}


def noun_phrase(known: dict[str, str], rng: np.random.Generator) -> str:
    """Words for what has these attributes, without an article."""
    words = [pick(rng, SIZE_WORDS[known['size']])] if 'size' in known else []
    words += [known['colour']] if 'colour' in known else []
    words += [known['shape'] if 'shape' in known else pick(rng, NOUNS)]
    return ' '.join(words)


def _group(objects: list[Shape], target: int,
           rng: np.random.Generator) -> tuple[str, list[Shape]]:
    """A noun phrase that fits the target, and all other objects that it fits."""
    item = objects[target]
    others = [other for k, other in enumerate(objects) if k != target]
    draw = rng.random()
    if draw < 0.4:
        return pick(rng, NOUNS), others
    if draw < 0.8:
        return item.shape, [other for other in others if other.shape == item.shape]
    return f'{item.colour} {pick(rng, NOUNS)}', [other for other in others
                                                   if other.colour == item.colour]


def _position(objects: list[Shape], target: int, rng: np.random.Generator) -> str | None:
    item = objects[target]
    for _ in range(6):
        noun, rivals = _group(objects, target, rng)
        name = pick(rng, tuple(SIDES))
        if rivals and _is_outermost(item, rivals, name):
            most = {'top': 'topmost', 'bottom': 'bottommost'}.get(name, f'{name}most')
            return article(rng) + f'{pick(rng, (most, name))} {noun}'
        if is_on_side(item, rivals, (name,)):
            return article(rng) + f'{noun} {place(name)}'
        corner = (pick(rng, ('top', 'bottom')), pick(rng, ('left', 'right')))
        if is_on_side(item, rivals, corner):
            return article(rng) + f'{corner[0]} {corner[1]} {noun}'
    return None


def _superlative(objects: list[Shape], target: int, rng: np.random.Generator) -> str | None:
    item = objects[target]
    for _ in range(4):
        noun, rivals = _group(objects, target, rng)
        if not rivals:
            continue
        if all(_is_bigger(item, other) for other in rivals):
            return article(rng) + f'{pick(rng, ("biggest", "largest"))} {noun}'
        if all(_is_bigger(other, item) for other in rivals):
            return article(rng) + f'smallest {noun}'
    return None


def _relation(objects: list[Shape], target: int, rng: np.random.Generator) -> str | None:
    item = objects[target]
    for k in rng.permutation(len(objects)):
        anchor = objects[k]
        if k == target or sum((other.colour, other.shape) == (anchor.colour, anchor.shape)
                              for other in objects) > 1:
            continue
        for name in SIDES:
            ahead, aside = _offset(anchor, item, name)
            if ahead < 0.15 or aside > ahead:
                continue
            rivals = [other for j, other in enumerate(objects)
                      if j not in (k, target) and other.shape == item.shape]
            if any(_offset(anchor, other, name)[0] > 0 for other in rivals):
                continue
            return (f'{article(rng)}{item.shape} {_RELATIONS[name]} '
                    f'the {anchor.colour} {anchor.shape}')
    return None


def place(name: str) -> str:
    """Words for the side of a picture that a direction names."""
    return f'at the {name}' if name in ('top', 'bottom') else f'on the {name}'


def _offset(anchor: Shape, item: Shape, name: str) -> tuple[float, float]:
    """How far ``item`` lies from ``anchor`` in the named direction, and how far beside it."""
    dx, dy = SIDES[name]
    x, y = item.centre[0] - anchor.centre[0], item.centre[1] - anchor.centre[1]
    return x * dx + y * dy, abs(x * dy) + abs(y * dx)


def _is_outermost(item: Shape, rivals: list[Shape], name: str) -> bool:
    return all(_offset(other, item, name)[0] >= 0.08
               and item.reach(name) >= other.reach(name) + 0.02 for other in rivals)


def is_on_side(item: Shape, rivals: list[Shape], names: tuple[str, ...]) -> bool:
    """Whether ``item`` is clearly on these sides of the image, and every rival clearly is not."""
    def clear(other: Shape, name: str) -> float:
        dx, dy = SIDES[name]
        return (other.centre[0] - 0.5) * dx + (other.centre[1] - 0.5) * dy
    return (all(clear(item, name) >= 0.06 for name in names)
            and all(any(clear(other, name) <= -0.06 for name in names) for other in rivals))


def _is_bigger(item: Shape, other: Shape) -> bool:
    return item.extent >= 1.2 * other.extent and item.area >= 1.2 * other.area


_WRITERS = dict(attribute=attribute, position=_position, superlative=_superlative,
                relation=_relation)
