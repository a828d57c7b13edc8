"""Masks in text: the rings of one, or of several."""
import re
from dataclasses import dataclass

import numpy as np

from .grammar import Grammar
from .reading import (BRACKETS, INNER, MASK, MAX_DROPPED, NESTED, PAIRS, PLAIN, TAIL, ParsedAnswer,
                      ending, follows_grammar, is_bare, is_near, opening, shares_of)

_RINGS = re.compile(MASK)
_MASKS = re.compile(rf'\[\s*{MASK}(?:\s*,\s*{MASK})*\s*\]')
_NUMBERS = re.compile(PLAIN)
_RING_END = re.compile(r'\]\s*\]')  # in a whole answer
_CLOSING = re.compile(r'(?:\s*\]){0,2}')

@dataclass
class FoundMask:
    """One mask as it is found: number words x, y, x, y, ... of its rings, where it stands,
    whether its brackets follow the grammar, and the name that stands before it."""
    rings: list[list[str]]
    span: tuple[int, int]
    whole: bool = False
    name: str | None = None


def find_rings(text: str, grammar: Grammar, cut: bool, kind: str) -> ParsedAnswer | None:
    """The first list of rings, or of masks, by the grammar or as much of one as can be told.

    Args:
        kind: 'rings' or 'masks'.
    """
    many = kind == 'masks'
    nested = NESTED.search(text)
    if nested is None:
        return None
    outer = text.rfind('[', 0, nested.start())
    if many and outer >= 0:
        outer = text.rfind('[', 0, outer)
    strict = (_MASKS if many else _RINGS).match(text, outer) if outer >= 0 else None
    if strict is None or not is_bare(text, *strict.span()):
        found = recover(text, *opening(text, nested.start() + 1), cut, many)
        return masks_answer(*found, grammar, kind)
    masks = [FoundMask(split_rings(mask.group()), mask.span(), True)
             for mask in _RINGS.finditer(text, outer + many, strict.end())]
    return masks_answer(masks, False, 0, strict.span(), grammar, kind, True)


def begun_masks(text: str, grammar: Grammar, many: bool) -> list[tuple[int, list[np.ndarray]]]:
    """See :func:`simpleseg_mm.polygon.written_masks`."""
    nested = NESTED.search(text)
    if nested is None:
        return []
    masks, *_ = recover(text, *opening(text, nested.start() + 1), True, many)
    found = []
    for mask in masks:
        shares = [shares_of(ring, grammar)[0].reshape(-1, 2) for ring in mask.rings if ring]
        found.append((mask.span[0], [
            ring[is_near(ring).all(axis=1)].clip(0, 1) for ring in shares]))
    return found


def split_rings(text: str) -> list[list[str]]:
    """Numbers of the rings of a mask by the grammar: nothing else is left to look for."""
    return [_NUMBERS.findall(part) for part in _RING_END.split(text)[:-1]]


def recover(text: str, start: int, depth: int, cut: bool, many: bool):
    """Masks of a malformed answer that starts with ``depth`` brackets before its first vertex.

    Innermost brackets are vertices; a gap between two with a bracket in it starts a new ring, and
    where ``many`` are asked for one with two brackets a new mask. As many closing brackets as
    were opened, or words, end the answer; but nothing except commas between masks that lack the
    brackets of their list does not.

    Returns:
        The masks, and as ``ending`` whether it is cut off, what was dropped, and its span.
    """
    masks: list[FoundMask] = []
    between, listed = min(depth, 2), many and depth < 3  # brackets that end a mask; see above
    dropped, end = 0, None
    for group in INNER.finditer(text, start):
        gap = text[start if end is None else end:group.start()]
        if end is not None:
            plain = BRACKETS.fullmatch(gap) is not None
            if gap.count(']') >= depth and not (listed and plain) or dropped > MAX_DROPPED or (
                    TAIL.fullmatch(gap) is None):
                break
            dropped += not plain
        turns = max(gap.count(']'), gap.count('['))
        if end is None or many and turns >= between:
            _drop_empty(masks)
            masks.append(FoundMask([[]], group.span()))
        elif turns and masks[-1].rings[-1]:
            masks[-1].rings.append([])
        end = group.end()
        masks[-1].span = masks[-1].span[0], end
        pair = PAIRS.fullmatch(group.group())
        if pair is None:
            dropped += 1
        else:
            masks[-1].rings[-1] += pair.groups()
    truncated, dropped, span = ending(text, end, depth, cut, dropped, start, listed)
    if many:
        _drop_empty(masks)
        _place(text, start, masks)
    if many and masks:  # an answer that is cut off holds the brackets of its last mask
        span = start, max(span[1], masks[-1].span[1])
    return masks, truncated, dropped, span


def _drop_empty(masks: list[FoundMask]) -> None:
    """Leave out the last mask where no vertex of it was found."""
    if masks and not masks[-1].rings[0]:
        masks.pop()


def _place(text: str, start: int, masks: list[FoundMask]) -> None:
    """Add to the spans of masks, of an answer that begins at ``start``, the two brackets around
    each; and see whether it follows the grammar."""
    before = start
    for mask in masks:
        first, last = mask.span
        for _ in range(2):
            bracket = text.rfind('[', before, first)
            first = bracket if bracket >= 0 else first
        last = _CLOSING.match(text, last).end()
        mask.span, before = (first, last), last
        mask.whole = _RINGS.fullmatch(text, first, last) is not None


def masks_answer(masks: list[FoundMask], truncated: bool, dropped: int, span, grammar: Grammar,
                 kind: str, valid: bool = False) -> ParsedAnswer:
    """Scale and check the numbers of one mask ('rings'), or of several ('masks', 'objects')."""
    words = [[word for ring in mask.rings for word in ring] for mask in masks]
    shares, follows = shares_of([word for numbers in words for word in numbers], grammar)
    shares = shares.reshape(-1, 2)
    if kind == 'rings':
        return _mask_answer(masks[0].rings, shares, valid and follows, truncated, dropped, span)
    found, at = [], 0
    for mask, numbers in zip(masks, words):
        part = shares[at:at + len(numbers) // 2]
        at += len(part)
        fits = mask.whole and (follows or follows_grammar(''.join(numbers), grammar))
        late = truncated and mask is masks[-1] and not mask.whole
        found.append(_mask_answer(mask.rings, part, fits, late, 0, mask.span, mask.name))
    return ParsedAnswer(
        kind, rings=[ring for one in found for ring in one.rings],
        valid=valid and all(one.valid for one in found), truncated=truncated,
        dropped=dropped + sum(one.dropped for one in found),
        short_rings=sum(one.short_rings for one in found), span=span, instances=tuple(found))


def _mask_answer(rings, shares: np.ndarray, valid: bool, truncated: bool, dropped: int, span,
                 name: str | None = None) -> ParsedAnswer:
    """Check the rings of one mask.

    Args:
        rings: number words x, y, x, y, ... of each.
        shares: (V, 2) of their vertices.
    """
    inside = len(shares) == 0 or bool(shares.min() >= 0 and shares.max() <= 1)
    near = None
    if not inside:
        near = is_near(shares).all(axis=1)
        dropped += int((~near).sum())
        shares = shares.clip(0, 1)
    kept, at, short = [], 0, 0
    for ring in filter(None, rings):
        part = slice(at, at + len(ring) // 2)
        points = shares[part] if near is None else shares[part][near[part]]
        at = part.stop
        if len(set(map(tuple, points.tolist()))) < 3:
            short += 1
        else:
            kept.append(points)
    dropped += short
    return ParsedAnswer('rings', rings=kept, valid=valid and inside and not dropped,
                        truncated=truncated, dropped=dropped, short_rings=short, span=span,
                        name=name)
