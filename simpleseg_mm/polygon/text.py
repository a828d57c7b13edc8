"""Text to rings, boxes, points and lists of them: the one parser."""
import re

import numpy as np

from .grammar import MAX_CHARS, Grammar
from .objects import find_objects, holds_objects, named_parts, without_names
from .outlines import begun_masks, find_rings
from .reading import (ANSWER_KINDS, BRACKETS, INNER, LIST_KINDS, MAX_DROPPED, NAMED_KINDS, NUMBER,
                      PAIRS, PLAIN, RING, TAIL, ParsedAnswer, ending, follows_grammar, is_bare,
                      is_near, opening, shares_of)

_EMPTY = re.compile(r'\[\s*\]')
_QUAD = re.compile(rf'\[\s*({NUMBER})' + rf'\s*,\s*({NUMBER})' * 3 + r'\s*\]')
_BOX = rf'\[\s*{PLAIN}' + rf'\s*,\s*{PLAIN}' * 3 + r'\s*\]'
# A list of boxes or points by the grammar, by the kind of its items.
_LISTS = {'box': re.compile(rf'\[\s*{_BOX}(?:\s*,\s*{_BOX})*\s*\]'),
          'point': re.compile(RING)}
_NUMBERS = {'box': _QUAD, 'point': PAIRS}


def parse_answer(text: str, grammar: str | Grammar = 'int1000',
                 kind: str | None = None, max_chars: int | None = MAX_CHARS
                 ) -> ParsedAnswer:
    """Find the answer in a model's text. Never raises on the text.

    The first list of rings, else the first box, else the first point is the answer; ``kind``
    asks for one of them, or for a list of masks, boxes, points or objects with names. Python's
    repr, fixed decimals, any white space, a sentence around the answer and a tail that was cut off
    are accepted. In an ``int`` grammar, an answer whose numbers all have a decimal point and are
    at most 1 is read as shares (and is not valid).

    Where a list of masks is asked for and the nesting is another, the answer is not valid, and
    two readings are possible. Ours: one list of rings is one mask, one bare ring too; several of
    these with nothing but commas between them are one mask each, as if a bracket around all of
    them were missing; deeper lists are read as if the brackets that are too many were not there.
    Boxes and points likewise: one is a list of one. Asked for one mask, a list of masks is all
    their rings together.

    Where 'objects' are asked for, a mask without a name is an object with the name ''; of a JSON
    object, ``{"cup": [mask, mask]}``, and wherever several masks follow a name, each is one of
    that name; a box is an object without an outline. Where masks are asked for and objects stand
    there, those are read without their names.

    Args:
        text: anything.
        grammar: a name or a Grammar.
        kind: one of ``ANSWER_KINDS``, or None for any of 'rings', 'box' and 'point'.
        max_chars: how much of the text is read; the rest counts as cut off. None reads all: for
            texts of one's own, not a model's.
    """
    grammar = Grammar.from_name(grammar)
    if kind is not None and kind not in ANSWER_KINDS:
        raise ValueError(f'kind is {kind!r}; choose one of {ANSWER_KINDS}, or None for any')
    if not isinstance(text, str):
        return ParsedAnswer()
    cut = max_chars is not None and len(text) > max_chars
    if cut:
        text = text[:max_chars]
    for wanted in ANSWER_KINDS[:3] if kind is None else (kind, ):
        found = _find(text, grammar, wanted, cut)
        if found is not None:
            return found
    return _find_empty(text, cut)


def find_kind(text: str, grammar: Grammar, kind: str, max_chars: int = MAX_CHARS) -> ParsedAnswer:
    """What a text holds of a kind that was not asked for; kind 'none' where it holds none."""
    if not isinstance(text, str):
        return ParsedAnswer()
    found = _find(text[:max_chars], grammar, kind, len(text) > max_chars)
    return ParsedAnswer() if found is None else found


def _find(text: str, grammar: Grammar, kind: str, cut: bool) -> ParsedAnswer | None:
    if kind in NAMED_KINDS:
        return find_objects(text, grammar, cut, kind)
    if kind in ('rings', 'masks'):
        if holds_objects(text):
            return without_names(find_objects(text, grammar, cut, 'objects'), kind)
        return find_rings(text, grammar, cut, kind)
    if kind in LIST_KINDS:
        return _find_list(text, grammar, cut, kind)
    return _find_numbers(text, grammar, kind)


def written_masks(text: str, grammar: str | Grammar = 'int1000', many: bool = False
                  ) -> list[tuple[int, list[np.ndarray]]]:
    """Masks of an answer that is still being written; one, unless ``many`` are asked for.

    For showing, not for judging: :func:`parse_answer` reads the finished text.

    Returns:
        Of each mask the character at which it begins, and its rings, ``(V, 2) float64`` shares
        0..1. A ring may have one vertex; a vertex counts once its bracket is closed.
    """
    grammar = Grammar.from_name(grammar)
    text = text[:MAX_CHARS]
    found = []
    for begins, part in named_parts(text) if many else [(0, text)]:
        found += [(begins + start, rings) for start, rings in begun_masks(part, grammar, many)]
    return found


def _find_empty(text: str, cut: bool) -> ParsedAnswer:
    """The answer '[]', or nothing."""
    empty = _EMPTY.search(text)
    if empty:
        return ParsedAnswer(kind='empty', valid=is_bare(text, *empty.span()), span=empty.span())
    start = text.rfind('[')
    truncated = start >= 0 and (cut or TAIL.fullmatch(text, start) is not None)
    return ParsedAnswer(truncated=truncated)


def _find_numbers(text: str, grammar: Grammar, kind: str) -> ParsedAnswer | None:
    """The first box or point."""
    match = _NUMBERS[kind].search(text)
    if match is None:
        return None
    return _numbers_answer(match, grammar, kind, is_bare(text, *match.span()))


def _numbers_answer(match: re.Match, grammar: Grammar, kind: str, bare: bool,
                    shares: tuple | None = None) -> ParsedAnswer:
    """A box or point, where it stands.

    Args:
        bare: whether it stands where the grammar has it.
        shares: of its numbers, as ``shares_of`` gives them, where they are known.
    """
    shares, valid = shares_of(match.groups(), grammar) if shares is None else shares
    span = match.span()
    near = is_near(shares)
    if not near.all():
        return ParsedAnswer(kind=kind, dropped=1, span=span)
    valid = valid and bare and bool(((shares >= 0) & (shares <= 1)).all())
    shares = shares.clip(0, 1)
    if kind == 'point':
        return ParsedAnswer(kind, point=shares, valid=valid, span=span)
    valid = valid and bool((shares[:2] < shares[2:]).all())
    box = np.concatenate([np.minimum(shares[:2], shares[2:]), np.maximum(shares[:2], shares[2:])])
    return ParsedAnswer(kind, box=box, valid=valid, span=span)


def _find_list(text: str, grammar: Grammar, cut: bool, kind: str) -> ParsedAnswer | None:
    """The first list of boxes or points, or as much of one as can be told."""
    item = LIST_KINDS[kind]
    first = _NUMBERS[item].search(text)
    if first is None:
        return None
    outer = text.rfind('[', 0, first.start())
    strict = _LISTS[item].match(text, outer) if outer >= 0 else None
    if strict is not None and is_bare(text, *strict.span()):
        found = list(_NUMBERS[item].finditer(text, outer + 1, strict.end()))
        valid, truncated, dropped, span = True, False, 0, strict.span()
    else:
        valid = False
        found, truncated, dropped, span = _recover_list(text, first, _NUMBERS[item], cut)
    shares, follows = shares_of([word for match in found for word in match.groups()], grammar)
    rows = shares.reshape(len(found), -1)
    items = tuple(_numbers_answer(match, grammar, item, True, (
        row, follows or follows_grammar(''.join(match.groups()), grammar)))
        for match, row in zip(found, rows))
    dropped += sum(one.dropped for one in items)
    boxes = [one.box for one in items if one.box is not None]
    box = np.concatenate([np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]]) if boxes else None
    return ParsedAnswer(kind, box=box, valid=valid and all(one.valid for one in items),
                        truncated=truncated, dropped=dropped, span=span, instances=items)


def _recover_list(text: str, first: re.Match, pattern: re.Pattern, cut: bool):
    """Boxes or points of a malformed list, from the first on: what stands between two of them in
    brackets is dropped; as many closing brackets as were opened, or words, end the list."""
    start, depth = opening(text, first.start())
    found, dropped, end = [], 0, None
    for group in INNER.finditer(text, first.start()):
        if end is not None:
            gap = text[end:group.start()]
            if 0 < depth <= gap.count(']') or TAIL.fullmatch(gap) is None or (
                    dropped > MAX_DROPPED):
                break
            dropped += BRACKETS.fullmatch(gap) is None
        end = group.end()
        match = pattern.fullmatch(text, *group.span())
        if match is None:
            dropped += 1
        else:
            found.append(match)
    return (found, *ending(text, end, depth, cut, dropped, start, listed=not depth))
