"""Phrases about the scenes of RefShapes that fit several objects, or none.

All words and frequencies are our choice.
"""
from itertools import combinations, product

import numpy as np

from simpleseg_mm.scenes import COLOURS

from . import shape_phrases as phrases
from .shape_phrases import SENTENCES, SHAPES, Shape

GROUP_SHARES = {'shared': 0.60, 'pair': 0.28, 'side': 0.12}
LIKE_GROUPS = 3  # references that a scene of like objects has at most
ABSENT_FORMS = {'one': 0.66, 'plural': 0.22, 'pair': 0.12}

_DETERMINERS = ('', 'the ', 'the ', 'all ')
_SHARED = {'colour shape': 3, 'colour': 3, 'shape': 3, 'size shape': 1, 'size colour': 1,
           'size': 1, '': 1}
# as often as the groups of a scene allow each, so that none of them tells
_ABSENT_PLURAL = {'colour shape': 0.5, 'colour': 3, 'shape': 3, 'size shape': 0.5,
                  'size colour': 0.5, 'size': 2}
_ABSENT_LIKE = {'colour shape': 3, 'colour': 2, 'shape': 2, 'size shape': 1, 'size colour': 1,
                'size': 0.5}
_VOCABULARY = dict(colour=tuple(COLOURS), shape=SHAPES, size=tuple(phrases.SIZE_WORDS))


def describe_group(objects: list[Shape], rng: np.random.Generator,
                   count: int = SENTENCES) -> tuple[tuple[int, ...], list[str]] | None:
    """Some objects of a scene, and sentences that fit exactly these.

    Returns:
        Places of at least two objects, rising, and ``count`` distinct sentences; or None where
        the scene allows no such group.
    """
    groups = [group for size in range(2, len(objects) + 1)
              for group in combinations(range(len(objects)), size)]
    weights = dict(GROUP_SHARES)
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


def describe_absent(objects: list[Shape], rng: np.random.Generator, several: bool = False,
                    count: int = SENTENCES) -> list[str]:
    """Sentences of one thing, or where ``several`` also of more, none of which is there.

    They are worded as sentences of what is there, so that the wording does not tell that the
    answer is nothing. Where the scene allows it their words are those of its objects, but never
    together.

    Returns:
        ``count`` distinct sentences.
    """
    found: list[str] = []
    while len(found) < count:
        form = phrases.weighted(rng, ABSENT_FORMS) if several else 'one'
        if form == 'plural':
            words = _plural(_absent_values(objects, _ABSENT_PLURAL, rng), rng)
            sentence = phrases.pick(rng, _DETERMINERS) + words
        else:
            kinds = [_absent_values(objects, phrases.ATTRIBUTES, rng)
                     for _ in range(2 if form == 'pair' else 1)]
            if kinds[0] in kinds[1:]:
                continue
            parts = [phrases.noun_phrase(kind, rng) for kind in kinds]
            sentence = ' and '.join(phrases.article(rng) + part for part in parts)
        if sentence not in found:
            found.append(sentence)
    return found


def describe_like(objects: list[Shape], rng: np.random.Generator, most: int = LIKE_GROUPS,
                  count: int = SENTENCES) -> list[tuple[tuple[int, ...], list[str]]]:
    """Up to ``most`` groups of a scene's objects, each with sentences that fit exactly it.

    A group is all that share attributes, from one object to all; all are named in the plural, so
    that no wording tells how many there are. Of the sizes that its groups have, one is
    as likely as another, and none is taken more than twice.

    Returns:
        Places of at least one object, rising, and ``count`` distinct sentences, of each group.
    """
    groups: dict[int, set[tuple[int, ...]]] = {}
    for keys in _SHARED:
        for item in objects:
            known = phrases.values(item, keys)
            group = tuple(k for k, other in enumerate(objects)
                          if phrases.values(other, keys) == known)
            groups.setdefault(len(group), set()).add(group)
    sizes = 2 * sorted(groups)
    found = []
    while sizes and len(found) < most:
        size = sizes.pop(int(rng.integers(len(sizes))))
        if not groups[size]:
            continue
        group = phrases.pick(rng, sorted(groups[size]))
        groups[size].remove(group)
        sentences = _drawn(lambda: _shared(objects, group, rng), count)
        if len(sentences) == count:
            found.append((group, sentences))
    return found


def describe_absent_like(objects: list[Shape], rng: np.random.Generator,
                         count: int = SENTENCES) -> list[str]:
    """Sentences as those of :func:`describe_like`, of what is not there: ``count`` distinct."""
    found: list[str] = []
    while len(found) < count:
        words = _plural(_absent_values(objects, _ABSENT_LIKE, rng), rng)
        sentence = phrases.pick(rng, _DETERMINERS) + words
        if sentence not in found:
            found.append(sentence)
    return found


def _drawn(draw, count: int) -> list[str]:
    """Distinct sentences that a writer gives, ``count`` of them if it has so many."""
    found: list[str] = []
    for _ in range(16 * count):
        sentence = draw()
        if sentence is not None and sentence not in found:
            found.append(sentence)
        if len(found) == count:
            break
    return found


def _absent_values(objects: list[Shape], weights: dict[str, float],
                   rng: np.random.Generator) -> dict[str, str]:
    """Attributes by weight, with values that no object has together."""
    while True:
        keys = phrases.weighted(rng, weights).split()
        seen = {tuple(getattr(item, key) for key in keys) for item in objects}
        there = [sorted({getattr(item, key) for item in objects}) for key in keys]
        for choices in (there, [_VOCABULARY[key] for key in keys]):
            free = [kind for kind in product(*choices) if kind not in seen]
            if free:
                return dict(zip(keys, phrases.pick(rng, free)))


def _sentences(objects: list[Shape], group: tuple[int, ...], family: str,
               rng: np.random.Generator, count: int) -> list[str]:
    """Distinct sentences that fit the group, of the family as far as it has so many."""
    found: list[str] = []
    for name in (family, *GROUP_SHARES):
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
        known = phrases.values(first, keys)
        if group == tuple(k for k, item in enumerate(objects)
                          if phrases.values(item, keys) == known):
            weights[keys] = weight
    if not weights:
        return None
    known = phrases.values(first, phrases.weighted(rng, weights))
    words = _plural(known, rng)
    return (phrases.pick(rng, _DETERMINERS) if known else 'all ') + words


def _plural(known: dict[str, str], rng: np.random.Generator) -> str:
    words = phrases.noun_phrase(known, rng)
    return f'{words}es' if words.endswith('s') else f'{words}s'


def _pair(objects: list[Shape], group: tuple[int, ...], rng: np.random.Generator) -> str | None:
    if len(group) != 2:
        return None
    parts = [phrases.attribute(objects, group[int(k)], rng) for k in rng.permutation(2)]
    return None if None in parts else ' and '.join(parts)


def _side(objects: list[Shape], group: tuple[int, ...], rng: np.random.Generator) -> str | None:
    items = [objects[k] for k in group]
    keys = phrases.pick(rng, ('', 'shape', 'colour'))
    known = phrases.values(items[0], keys)
    if any(phrases.values(item, keys) != known for item in items):
        return None
    noun = _plural(known, rng)
    rivals = [other for k, other in enumerate(objects) if k not in group
              and phrases.values(other, keys) == known]
    for k in rng.permutation(len(phrases.SIDES)):
        name = tuple(phrases.SIDES)[k]
        if rivals and all(phrases.is_on_side(item, rivals, (name,)) for item in items):
            return f'{phrases.pick(rng, _DETERMINERS)}{noun} {phrases.place(name)}'
    return None


_WRITERS = dict(shared=_shared, pair=_pair, side=_side)
