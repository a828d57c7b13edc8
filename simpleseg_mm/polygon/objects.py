"""Objects with their names in text: a list of pairs of a name and a mask."""
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .grammar import Grammar
from .names import NAME_PATTERN, read_name
from .outlines import FoundMask, masks_answer, recover, split_rings
from .reading import MASK, NESTED, NUMBER, TAIL, ParsedAnswer, is_bare, opening, shares_of

_HEAD = rf'\[\s*({NAME_PATTERN})\s*,\s*'
_HEADS = re.compile(_HEAD)
_OBJECT = rf'{_HEAD}({MASK})\s*\]'
_OBJECT_OF = re.compile(_OBJECT)
_OBJECTS = re.compile(rf'\[\s*{_OBJECT}(?:\s*,\s*{_OBJECT})*\s*\]')
# A name before a bracket, in quotes of JSON or of Python, or a few words alone. Of all that begin
# with one quotation mark the next one ends it, so that matching is linear.
_NAMED = re.compile(
    r'''(?:\A|[\[{,])\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?<=[\[{])[^\W\d_][\w '-]{0,99})'''
    r'\s*(?:[,:]\s*)?(?=\[)', re.DOTALL)
_WRITTEN = re.compile(rf'\[\s*{NAME_PATTERN}\s*,\s*\[\s*\[')
_BOX = re.compile(rf'\[\s*({NUMBER})' + rf'\s*,\s*({NUMBER})' * 3 + r'\s*\]')
#: what may stand between two objects
_JOIN = re.compile(r'[\s\[\]{},]*')
_STRING = re.compile(r'''(["'])(?:(?!\1)[^\\]|\\.)*\1''', re.DOTALL)
_AFTER_NAME = re.compile(r'\s*[,:]?[\s\[]*')


def holds_objects(text: str) -> bool:
    """Whether a mask with a name before it stands in a text."""
    return '"' in text and _WRITTEN.search(text) is not None


def named_parts(text: str) -> Iterator[tuple[int, str]]:
    """The text between names and where it begins; all of it where it holds no objects."""
    start = 0
    for match in _NAMED.finditer(text) if holds_objects(text) else ():
        yield start, text[start:match.start()]
        start = match.end()
    yield start, text[start:]


def without_names(found: ParsedAnswer | None, kind: str) -> ParsedAnswer | None:
    """Objects where 'rings' or 'masks' were asked for: their masks, in an answer that is not
    valid."""
    instances = () if found is None else tuple(
        replace(one, name=None) for one in found.instances if one.kind == 'rings')
    if not instances:
        return None
    return replace(found, kind=kind, valid=False, instances=instances if kind == 'masks' else ())


def find_objects(text: str, grammar: Grammar, cut: bool, kind: str) -> ParsedAnswer | None:
    """The first list of objects, by the grammar or as much of one as can be told."""
    heads = list(_NAMED.finditer(text))
    outer = text.rfind('[', 0, heads[0].start()) if heads else -1
    strict = _OBJECTS.match(text, outer) if outer >= 0 else None
    if strict is not None and is_bare(text, *strict.span()):
        masks = [FoundMask(split_rings(one[2]), one.span(2), True, read_name(one[1]))
                 for one in _OBJECT_OF.finditer(text, outer + 1, strict.end())]
        return masks_answer(masks, False, 0, strict.span(), grammar, kind, True)
    return _recovered(text, heads, grammar, cut, kind)


def _recovered(text: str, heads: list[re.Match], grammar: Grammar, cut: bool, kind: str
               ) -> ParsedAnswer | None:
    """Objects of a malformed list: what stands between two names is read as masks of the first of
    them, before all names as masks without one. Words that are no name end the answer."""
    masks: list[FoundMask] = []
    boxes: list[ParsedAnswer] = []
    start, end, late, dropped = None, 0, False, 0
    for head, stop in zip([None, *heads], [*(head.start() for head in heads), len(text)]):
        begin = head.end() if head else 0
        part, last = text[begin:stop], stop == len(text)
        name = read_name(head[1]) if head else ''
        found, first = [], NESTED.search(part)
        box = _BOX.search(part) if head and not first else None
        if first:
            found, unclosed, lost, (left, right) = recover(
                part, *opening(part, first.start() + 1), cut and last, True)
            dropped += lost
            late = last and unclosed
        elif box:
            left, right = box.span()
            boxes.append(_box(box, grammar, begin, name))
        if not found and not box:
            if head:
                dropped += 1
                late = last and TAIL.fullmatch(part) is not None
                if _JOIN.fullmatch(part) is None:
                    break
            continue  # words before the answer
        if start is None:
            start = _list_start(text, head.start()) if head else left
        written = head is not None and _HEADS.fullmatch(text, *head.span()) is not None
        for mask in found:
            mask.whole &= written and mask is found[0] and not mask.span[0]
            mask.span, mask.name = (begin + mask.span[0], begin + mask.span[1]), name
        masks += found
        end = found[-1].span[1] if found else begin + right
        if _JOIN.fullmatch(text, end, stop) is None:
            break
    if start is None:
        begun = text.rfind('[')
        quoted = begun >= 0 and ('"' in text[begun:] or "'" in text[begun:])
        return ParsedAnswer(truncated=True) if quoted and _begins_object(text, begun) else None
    closed, end = _closed(text, start, end, heads)
    late = not closed and (cut or late or _begins_object(text, end))
    parsed = masks_answer(masks, late, dropped, (start, end), grammar, kind)
    if boxes:
        parsed = replace(parsed, instances=tuple(sorted(
            (*parsed.instances, *boxes), key=lambda one: one.span)))
    return parsed


def _box(match: re.Match, grammar: Grammar, begin: int, name: str) -> ParsedAnswer | None:
    """An object of which a box stands where its outline should."""
    shares = shares_of(match.groups(), grammar)[0].clip(0, 1)
    box = np.concatenate([np.minimum(shares[:2], shares[2:]), np.maximum(shares[:2], shares[2:])])
    return ParsedAnswer('box', box=box, span=(begin + match.start(), begin + match.end()),
                        name=name)


def _list_start(text: str, first: int) -> int:
    """Where the brackets begin of which the last is at ``first``."""
    start = first
    while start and text[start - 1] in '[{ \t\r\n':
        start -= 1
    return start + len(text[start:]) - len(text[start:].lstrip())


def _closed(text: str, start: int, end: int, heads: list[re.Match]) -> tuple[bool, int]:
    """Whether all brackets from ``start`` on are closed after the last mask, which ends at
    ``end``; and where the answer ends."""
    depth, at = 0, start
    for first, after in (*(head.span(1) for head in heads if start <= head.start() < end),
                         (end, end)):
        part, at = text[at:first], after
        depth += sum(map(part.count, '[{')) - sum(map(part.count, ']}'))
    while depth > 0 and end < len(text) and text[end] in ']} \t\r\n':
        depth -= text[end] in ']}'
        end += 1
    return depth <= 0, end


def _begins_object(text: str, start: int) -> bool:
    """Whether a text ends, from ``start`` on, before the mask of an object has begun."""
    start = _JOIN.match(text, start).end()
    if start == len(text):
        return True
    if text[start] not in '"\'':
        return False
    name = _STRING.match(text, start)
    return name is None or _AFTER_NAME.fullmatch(text, name.end()) is not None
