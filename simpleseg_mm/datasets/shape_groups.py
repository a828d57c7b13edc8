"""Phrases about the scenes of RefShapes that fit several objects, or none.

All words and frequencies are our choice.
"""
from itertools import combinations

import numpy as np

from . import shape_phrases as phrases
from .shape_phrases import SENTENCES, SHAPES, Shape

FAMILIES = {'shared': 0.60, 'pair': 0.28, 'side': 0.12}
ABSENT_FORMS = {'one': 0.5, 'plural': 0.35, 'pair': 0.15}
PLURALS = {shape: f'{shape}es' if shape == 'cross' else f'{shape}s' for shape in SHAPES}

_NOUNS = tuple(f'{noun}s' for noun in phrases.NOUNS)
_DETERMINERS = ('', 'the ', 'the ', 'all ')
_SHARED = {('colour', 'shape'): 3, ('colour',): 3, ('shape',): 3, ('size', 'shape'): 1,
           ('size', 'colour'): 1, ('size',): 1, (): 1}


def describe_group(objects: list[Shape], rng: np.random.Generator,
                   count: int = SENTENCES) -> tuple[tuple[int, ...], list[str]] | None:
    """Some objects of a scene, and sentences that fit exactly these.

    Returns:
        Places of at least two objects, rising, and ``count`` distinct sentences; or None where
        the scene allows no such group.
    """
    groups = [group for size in range(2, len(objects) + 1)
              for group in combinations(range(len(objects)), size)]
    weights = dict(FAMILIES)
    while weights:
        family = phrases.weighted(rng, weights)
        for k in rng.permutation(len(groups)):
            if _WRITERS[family](objects, groups[k], rng) is None:
                continue
            sentences = _sentences(objects, groups[k], family, rng, count)
            if len(sentences) == count:
                return groups[k], sentences
        del weights[family]
    return None


def describe_absent(objects: list[Shape], rng: np.random.Generator,
                    count: int = SENTENCES) -> list[str]:
    """Sentences of one or several things, none of which is there.

    Where the scene allows it, they name a colour and a shape that are there, but never together;
    so that neither word alone, nor the number, tells that the answer is nothing.
    """
    pairs = phrases.absent_kinds(objects)
    chosen = [pairs[k] for k in rng.permutation(len(pairs))[:2]]
    form = phrases.weighted(rng, ABSENT_FORMS)
    colour, shape = chosen[0]
    if form == 'pair' and len(chosen) == 2:
        ends = [f'{colour} {shape}', ' '.join(chosen[1])]
        sentences = [f'{first}{a} and {second}{b}' for a, b in (ends, ends[::-1])
                     for first in ('', 'the ') for second in ('', 'the ')]
    elif form == 'one':
        return phrases.describe_absent(objects, rng, count)
    else:
        sentences = [f'{determiner}{colour} {PLURALS[shape]}'
                     for determiner in dict.fromkeys(_DETERMINERS)]
        sentences += [f'{PLURALS[shape]} in {colour}', f'the {PLURALS[shape]} that are {colour}']
    return [sentences[k] for k in rng.permutation(len(sentences))[:count]]


def _sentences(objects: list[Shape], group: tuple[int, ...], family: str,
               rng: np.random.Generator, count: int) -> list[str]:
    """Distinct sentences that fit the group, of the family as far as it has so many."""
    found: list[str] = []
    for name in (family, *FAMILIES):
        for _ in range(8 * count):
            if len(found) == count:
                return found
            sentence = _WRITERS[name](objects, group, rng)
            if sentence is not None and sentence not in found:
                found.append(sentence)
    return found


# Every writer returns a sentence that is true of every object of the group and of no other, or
# None.


def _shared(objects: list[Shape], group: tuple[int, ...], rng: np.random.Generator) -> str | None:
    first = objects[group[0]]
    weights = {}
    for keys, weight in _SHARED.items():
        fits = tuple(k for k, item in enumerate(objects)
                     if all(getattr(item, key) == getattr(first, key) for key in keys))
        if fits == group:
            weights[' '.join(keys)] = weight
    if not weights:
        return None
    keys = phrases.weighted(rng, weights).split()
    words = [phrases.pick(rng, phrases.SIZE_WORDS[first.size])] if 'size' in keys else []
    words += [first.colour] if 'colour' in keys else []
    words += [PLURALS[first.shape] if 'shape' in keys else phrases.pick(rng, _NOUNS)]
    determiner = phrases.pick(rng, _DETERMINERS) if keys else 'all '
    return determiner + ' '.join(words)


def _pair(objects: list[Shape], group: tuple[int, ...], rng: np.random.Generator) -> str | None:
    if len(group) != 2:
        return None
    parts = [phrases.attribute(objects, group[int(k)], rng) for k in rng.permutation(2)]
    return None if None in parts else ' and '.join(parts)


def _side(objects: list[Shape], group: tuple[int, ...], rng: np.random.Generator) -> str | None:
    items = [objects[k] for k in group]
    key, noun = phrases.pick(rng, ((None, phrases.pick(rng, _NOUNS)),
                                   ('shape', PLURALS[items[0].shape]),
                                   ('colour', f'{items[0].colour} {phrases.pick(rng, _NOUNS)}')))
    if key and any(getattr(item, key) != getattr(items[0], key) for item in items):
        return None
    rivals = [other for k, other in enumerate(objects) if k not in group
              and (key is None or getattr(other, key) == getattr(items[0], key))]
    for k in rng.permutation(len(phrases.DIRECTIONS)):
        name = tuple(phrases.DIRECTIONS)[k]
        if rivals and all(phrases.is_on_side(item, rivals, (name,)) for item in items):
            place = f'at the {name}' if name in ('top', 'bottom') else f'on the {name}'
            return f'{phrases.pick(rng, _DETERMINERS)}{noun} {place}'
    return None


_WRITERS = dict(shared=_shared, pair=_pair, side=_side)
