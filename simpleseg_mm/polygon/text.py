"""Rings, boxes and points to text and back: the grammars, the one parser, the token count.

A coordinate is a share of the width or height of the image, written in steps of 1 / N:
0 is the left or top edge, 1 the right or bottom edge.
"""
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Union

import numpy as np

# Characters of a model's text that are read: 1,000 vertices of decimal3. Our choice.
MAX_CHARS = 16384
# A share this far outside 0..1 is clipped, one farther away is dropped. Our choice.
CLIP_MARGIN = 0.1

# Malformed vertices after which the rest of an answer is given up. Our choice.
MAX_DROPPED = 256

_UNSIGNED = re.compile(r'[0-9]+(?:\.[0-9]*)?', re.ASCII)
_NAME = re.compile(r'(decimal|fixed|int)([1-9][0-9]{0,5})', re.ASCII)


@lru_cache(maxsize=None)
def _coordinate_tokens(grammar: 'Grammar') -> np.ndarray:
    """Tokens of every coordinate of a grammar, half of a vertex's brackets and commas included."""
    steps = range(grammar.steps + 1)
    if grammar.style == 'int':
        return np.array([1 + len(str(k)) for k in steps])
    tokens = np.full(len(steps), 4 + grammar.digits)
    if grammar.style == 'decimal':
        for k in range(1, grammar.digits):
            tokens[::10**k] -= 1
    return tokens


@lru_cache(maxsize=None)
def _words(grammar: 'Grammar') -> list[str]:
    """Every coordinate of a grammar as text; none where they would be too many to keep."""
    return [grammar.number(k) for k in range(grammar.steps + 1)] if grammar.steps <= 1e4 else []


@lru_cache(maxsize=None)
def _vertex_chars(grammar: 'Grammar', step: int) -> int:
    """Characters of a vertex, with the comma after it."""
    return len(grammar._list([step, step])) + len(grammar.comma)


@dataclass(frozen=True)
class Grammar:
    """How a coordinate is written.

    Attributes:
        style: 'decimal' (Python's repr: 0.26), 'fixed' (0.260) or 'int' (260, no spaces).
        steps: N, the number of steps from edge to edge; N + 1 values can be written.
        digits: decimals of 'decimal' and 'fixed'.
    """
    style: str
    steps: int
    digits: int = 0

    @classmethod
    def from_name(cls, name: Union[str, 'Grammar']) -> 'Grammar':
        """Build by name.

        ``decimalN`` rounds to N decimals and prints Python's repr, ``[[[0.26, 0.5], ...]]``: the
        official data. ``fixedN`` prints N decimals always, ``0.260``: the released weights.
        ``intN`` prints whole numbers 0..N without spaces, ``[[[260,500],...]]``, where k means
        k / N: int1000 is decimal3 without its '0.' (N itself, the far edge, is rare).
        """
        if isinstance(name, Grammar):
            return name
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f'grammar is {name!r}; choose decimal3, fixed3, int1000, or another '
                             'number of decimals or steps')
        style, number = match.group(1), int(match.group(2))
        if style == 'int':
            return cls(style, number)
        if number > 6:
            raise ValueError(f'grammar is {name!r}; at most 6 decimals are written')
        return cls(style, 10**number, number)

    @property
    def name(self) -> str:
        """The name that ``from_name`` takes."""
        return f'{self.style}{self.steps if self.style == "int" else self.digits}'

    @property
    def comma(self) -> str:
        """The separator, ',' or ', '."""
        return ',' if self.style == 'int' else ', '

    @property
    def least_vertex_chars(self) -> int:
        """Characters of the shortest vertex, with the comma after it."""
        return _vertex_chars(self, 0)

    @property
    def most_rings(self) -> int:
        """One more ring than a text of ``MAX_CHARS`` characters can hold."""
        return MAX_CHARS // (3 * self.least_vertex_chars + 2) + 1

    @property
    def most_vertices(self) -> int:
        """Vertices of one ring for which a text of ``MAX_CHARS`` characters has room."""
        return (MAX_CHARS - 4) // _vertex_chars(self, self.steps - 1)

    @property
    def ring_tokens(self) -> int:
        """Tokens that one more ring adds to those of its vertices."""
        return 2 if self.style == 'int' else 0

    @property
    def least_vertex_tokens(self) -> int:
        """Tokens of the shortest vertex."""
        return int(self.vertex_tokens(np.zeros(2, np.int64)))

    @property
    def mean_vertex_tokens(self) -> float:
        """Tokens of a vertex, mean over the whole image."""
        line = np.arange(self.steps + 1)
        return float(self.vertex_tokens(np.stack([line, line], axis=1)).mean())

    def vertex_tokens(self, points) -> np.ndarray:
        """Tokens of vertices ``(..., 2)`` in steps, with their brackets and commas: ``(...,)``.

        By Qwen's rule, see ``count_tokens``.
        """
        tokens = _coordinate_tokens(self).take(points)
        return tokens[..., 0] + tokens[..., 1]

    def is_foreign(self, text: str) -> bool | None:
        """Whether a text has a number that this grammar does not write: one with a decimal point
        or far above N for 'int', a whole number above 1 for the others. None: no number.

        Many such texts say that a model was taught another grammar.
        """
        words = _UNSIGNED.findall(text)
        if not words:
            return None
        if self.style == 'int':
            return any('.' in w or len(w) > 7 or int(w) > self.steps * (1 + CLIP_MARGIN)
                       for w in words)
        return any('.' not in w and w.lstrip('0') not in ('', '1') for w in words)

    def to_steps(self, points, size) -> np.ndarray:
        """Pixels ``(..., 2)`` x, y to whole steps ``(..., 2) int64``, clipped to 0..N.

        ``size`` is (h, w). Halves round to even, as numpy and the official script do.
        """
        h, w = size
        steps = np.rint(np.divide(points, np.array([w, h], np.float64)) * self.steps)
        if steps.size and not (steps.min() >= 0 and steps.max() <= self.steps):  # or NaN
            if not np.isfinite(steps).all():
                raise ValueError('a coordinate to be written is NaN or infinite')
            steps = np.clip(steps, 0, self.steps)
        return steps.astype(np.int64)

    def rings_to_steps(self, rings: Sequence, size) -> list[np.ndarray]:
        """``to_steps`` for a list of rings, ``(N, 2)`` each; rings without points are left out."""
        rings = [ring for ring in rings if len(ring)]
        if not rings:
            return []
        if len(rings) == 1:
            return [self.to_steps(rings[0], size)]
        steps = self.to_steps(np.concatenate(rings), size)
        ends = np.cumsum([len(ring) for ring in rings]).tolist()
        return [steps[end - len(ring):end] for ring, end in zip(rings, ends)]

    def number(self, step: int) -> str:
        """One coordinate, ``step`` in 0..N."""
        if self.style == 'int':
            return str(step)
        if self.style == 'fixed':
            return f'{step / self.steps:.{self.digits}f}'
        return repr(step / self.steps)

    def _list(self, steps) -> str:
        return f'[{self.comma.join([self.number(s) for s in steps])}]'

    def format_steps(self, rings: Sequence) -> str:
        """Rings of whole steps ``(N, 2)`` to text; no ring gives '[]'."""
        rings = [np.asarray(ring).tolist() for ring in rings if len(ring)]
        join, words, comma = self.comma.join, _words(self), self.comma
        if words:
            rings = [[f'[{words[x]}{comma}{words[y]}]' for x, y in ring] for ring in rings]
        else:
            rings = [[self._list(p) for p in ring] for ring in rings]
        body = join([f'[{join(ring)}]' for ring in rings])
        return f'[{body}]'

    def format_point(self, xy, size) -> str:
        """A point ``(2,)`` x, y in pixels of an image of ``size`` (h, w): ``[x,y]``."""
        return self._list(self.to_steps(xy, size).tolist())

    def format_box(self, xyxy, size) -> str:
        """A box ``(4,)`` x1, y1, x2, y2 in pixels: ``[x1,y1,x2,y2]``."""
        corners = np.asarray(xyxy, np.float64).reshape(2, 2)
        return self._list(self.to_steps(corners, size).ravel().tolist())

    def format_rings(self, rings: Sequence, size) -> str:
        """Rings, ``(N, 2)`` each, in pixels: ``[[[x,y],...],...]``; no ring gives '[]'."""
        return self.format_steps(self.rings_to_steps(rings, size))

    def format_masks(self, masks: Sequence[Sequence], size) -> str:
        """The rings of each instance, as ``format_rings`` takes them, in pixels:
        ``[[[[x,y],...],...],...]``. No instance gives '[]'; one without rings is left out."""
        return self.format_list([self.format_rings(rings, size) for rings in masks])

    def format_boxes(self, boxes: Sequence, size) -> str:
        """Boxes ``(N, 4)`` in pixels: ``[[x1,y1,x2,y2],...]``; none gives '[]'."""
        return self.format_list([self.format_box(box, size) for box in boxes])

    def format_points(self, points: Sequence, size) -> str:
        """Points ``(N, 2)`` in pixels: ``[[x,y],...]``; none gives '[]'."""
        return self.format_list([self.format_point(point, size) for point in points])

    def format_list(self, texts: Sequence[str]) -> str:
        """Answers about one instance each as the answer about all; those that are '[]' are left
        out."""
        return f'[{self.comma.join(text for text in texts if text != "[]")}]'


@dataclass(frozen=True)
class ParsedAnswer:
    """What was found in a text. Coordinates are shares of the image, 0..1.

    Attributes:
        kind: 'rings', 'box', 'point', 'masks', 'boxes', 'points', 'empty' (the answer '[]') or
            'none' (no answer found).
        rings: ``(N, 2) float64`` arrays x, y, each with at least 3 distinct vertices; of 'masks'
            those of all instances.
        box: ``(4,) float64`` x1, y1, x2, y2, or None; of 'boxes' the one around all of them.
        point: ``(2,) float64`` x, y, or None.
        valid: the whole answer follows the grammar, is closed, lies in range, and nothing was
            dropped. A sentence around it is allowed.
        truncated: the text ends inside the answer.
        dropped: points and rings left out: not two numbers, far out of range, or fewer than 3
            distinct vertices in a ring.
        short_rings: rings among the dropped, for fewer than 3 distinct vertices.
        span: characters of the answer, ``text[start:end]``; (0, 0) where there is none.
        instances: of 'masks', 'boxes' and 'points' an answer of kind 'rings', 'box' or 'point'
            each, in the order of the text, also where nothing of it can be used. It is ``valid``
            by itself, whatever the others are. Empty for the other kinds.
    """
    kind: str = 'none'
    rings: list[np.ndarray] = field(default_factory=list)
    box: np.ndarray | None = None
    point: np.ndarray | None = None
    valid: bool = False
    truncated: bool = False
    dropped: int = 0
    short_rings: int = 0
    span: tuple[int, int] = (0, 0)
    instances: tuple['ParsedAnswer', ...] = ()


#: lists of answers, each with the kind of its items
LIST_KINDS = {'masks': 'rings', 'boxes': 'box', 'points': 'point'}
#: those about one object in the order in which an answer of any kind is looked for, then lists
ANSWER_KINDS = ('rings', 'box', 'point', *LIST_KINDS)
_NUMBER = r'[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?'
_PAIR = rf'\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]'
_PAIRS = re.compile(_PAIR)
_QUAD = re.compile(rf'\[\s*({_NUMBER})' + rf'\s*,\s*({_NUMBER})' * 3 + r'\s*\]')
# A whole answer by the grammar. Unambiguous at every character, so matching is linear.
_PLAIN = r'[0-9]+(?:\.[0-9]*)?'
_VERTEX = rf'\[\s*{_PLAIN}\s*,\s*{_PLAIN}\s*\]'
_RING = rf'\[\s*{_VERTEX}(?:\s*,\s*{_VERTEX})*\s*\]'
_MASK = rf'\[\s*{_RING}(?:\s*,\s*{_RING})*\s*\]'
_RINGS = re.compile(_MASK)
_MASKS = re.compile(rf'\[\s*{_MASK}(?:\s*,\s*{_MASK})*\s*\]')
_BOX = rf'\[\s*{_PLAIN}' + rf'\s*,\s*{_PLAIN}' * 3 + r'\s*\]'
# A list of boxes or points by the grammar, by the kind of its items.
_LISTS = {'box': re.compile(rf'\[\s*{_BOX}(?:\s*,\s*{_BOX})*\s*\]'),
          'point': re.compile(_RING)}
_RING_END = re.compile(r'\]\s*\]')  # in a whole answer
_INNER = re.compile(r'\[[^\[\]]*\]')
_NESTED = re.compile(r'\[\s*\[[^\[\],]*,[^\[\]]*\]')
_EMPTY = re.compile(r'\[\s*\]')
_BRACKETS = re.compile(r'[\s\[\],]*')
_CLOSING = re.compile(r'(?:\s*\]){0,2}')
_TAIL = re.compile(r'[\s\[\],0-9.eE+-]*')


def parse_answer(text: str, grammar: str | Grammar = 'int1000',
                 kind: str | None = None, max_chars: int | None = MAX_CHARS
                 ) -> ParsedAnswer:
    """Find the answer in a model's text. Never raises on the text.

    The first list of rings, else the first box, else the first point is the answer; ``kind``
    asks for one of them, or for a list of masks, boxes or points. Python's repr, fixed decimals,
    any white space, a sentence around the answer and a tail that was cut off are accepted. In an
    ``int`` grammar, an answer whose numbers all have a decimal point and are at most 1 is read as
    shares (and is not valid).

    Where a list of masks is asked for and the nesting is another, the answer is not valid, and
    two readings are possible. Ours: one list of rings is one mask, one bare ring too; several of
    these with nothing but commas between them are one mask each, as if a bracket around all of
    them were missing; deeper lists are read as if the brackets that are too many were not there.
    Boxes and points likewise: one is a list of one. Asked for one mask, a list of masks is all
    their rings together.

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
    if kind in ('rings', 'masks'):
        return _find_rings(text, grammar, cut, kind == 'masks')
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
    nested = _NESTED.search(text)
    if nested is None:
        return []
    masks, *_ = _recover(text, *_opening(text, nested.start() + 1), True, many)
    found = []
    for mask in masks:
        shares = [_shares(ring, grammar)[0].reshape(-1, 2) for ring in mask.rings if ring]
        found.append((mask.span[0], [
            ring[_is_near(ring).all(axis=1)].clip(0, 1) for ring in shares]))
    return found


def _find_empty(text: str, cut: bool) -> ParsedAnswer:
    """The answer '[]', or nothing."""
    empty = _EMPTY.search(text)
    if empty:
        return ParsedAnswer(kind='empty', valid=_is_bare(text, *empty.span()), span=empty.span())
    start = text.rfind('[')
    truncated = start >= 0 and (cut or _TAIL.fullmatch(text, start) is not None)
    return ParsedAnswer(truncated=truncated)


def _is_bare(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` is not itself an item of a list."""
    head, tail = text[:start].rstrip(), text[end:].lstrip()
    if head.endswith(','):
        nested = head[:-1].rstrip().endswith(']')
    else:
        nested = head.endswith('[')
    if tail.startswith(','):
        return not nested and not tail[1:].lstrip().startswith('[')
    return not nested and not tail.startswith(']')


_NUMBERS = {'box': _QUAD, 'point': _PAIRS}


def _find_numbers(text: str, grammar: Grammar, kind: str) -> ParsedAnswer | None:
    """The first box or point."""
    match = _NUMBERS[kind].search(text)
    if match is None:
        return None
    return _numbers_answer(match, grammar, kind, _is_bare(text, *match.span()))


def _numbers_answer(match: re.Match, grammar: Grammar, kind: str, bare: bool,
                    shares: tuple | None = None) -> ParsedAnswer:
    """A box or point, where it stands.

    Args:
        bare: whether it stands where the grammar has it.
        shares: of its numbers, as ``_shares`` gives them, where they are known.
    """
    shares, valid = _shares(match.groups(), grammar) if shares is None else shares
    span = match.span()
    near = _is_near(shares)
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
    if strict is not None and _is_bare(text, *strict.span()):
        found = list(_NUMBERS[item].finditer(text, outer + 1, strict.end()))
        valid, truncated, dropped, span = True, False, 0, strict.span()
    else:
        valid = False
        found, truncated, dropped, span = _recover_list(text, first, _NUMBERS[item], cut)
    shares, follows = _shares([word for match in found for word in match.groups()], grammar)
    rows = shares.reshape(len(found), -1)
    items = tuple(_numbers_answer(match, grammar, item, True, (
        row, follows or _follows(''.join(match.groups()), grammar)))
        for match, row in zip(found, rows))
    dropped += sum(one.dropped for one in items)
    boxes = [one.box for one in items if one.box is not None]
    box = np.concatenate([np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]]) if boxes else None
    return ParsedAnswer(kind, box=box, valid=valid and all(one.valid for one in items),
                        truncated=truncated, dropped=dropped, span=span, instances=items)


def _recover_list(text: str, first: re.Match, pattern: re.Pattern, cut: bool):
    """Boxes or points of a malformed list, from the first on: what stands between two of them in
    brackets is dropped; as many closing brackets as were opened, or words, end the list."""
    start, depth = _opening(text, first.start())
    found, dropped, end = [], 0, None
    for group in _INNER.finditer(text, first.start()):
        if end is not None:
            gap = text[end:group.start()]
            if 0 < depth <= gap.count(']') or _TAIL.fullmatch(gap) is None or (
                    dropped > MAX_DROPPED):
                break
            dropped += _BRACKETS.fullmatch(gap) is None
        end = group.end()
        match = pattern.fullmatch(text, *group.span())
        if match is None:
            dropped += 1
        else:
            found.append(match)
    return (found, *_ending(text, end, depth, cut, dropped, start, listed=not depth))


def _ending(text: str, end: int, depth: int, cut: bool, dropped: int, start: int, listed: bool):
    """Whether an answer is cut off, what was dropped of it, and its span with the brackets that
    close it. Where it is ``listed`` without brackets around all, one that opens goes on with it.
    """
    tail = _TAIL.match(text, end).group()
    closed = tail.count(']') >= depth and not (listed and '[' in tail)
    truncated = not closed and (cut or end + len(tail) == len(text))
    for _ in range(depth if closed else 0):
        end = text.index(']', end) + 1
    return truncated, dropped, (start, end)


def _shares(words: Sequence[str], grammar: Grammar) -> tuple[np.ndarray, bool]:
    """Numbers as written to shares of the image; and whether they follow the grammar."""
    values = np.array(list(map(float, words)), np.float64)
    letters = ''.join(words)
    follows = _follows(letters, grammar)
    if grammar.style != 'int':
        return values, follows
    dotted = letters.count('.')  # at most one a number
    if dotted and dotted == len(words) and (np.abs(values) <= 1).all():
        return values, False
    return values / grammar.steps, follows


def _follows(letters: str, grammar: Grammar) -> bool:
    """Whether the letters of numbers are those that the grammar writes."""
    return not ('e' in letters or 'E' in letters or grammar.style == 'int' and '.' in letters)


def _is_near(shares: np.ndarray) -> np.ndarray:
    """Whether a share is close enough to 0..1 to be clipped."""
    return (shares >= -CLIP_MARGIN) & (shares <= 1 + CLIP_MARGIN)


@dataclass
class _Mask:
    """One mask as it is found: number words x, y, x, y, ... of its rings, where it stands, and
    whether its brackets follow the grammar."""
    rings: list[list[str]]
    span: tuple[int, int]
    whole: bool = False


def _find_rings(text: str, grammar: Grammar, cut: bool, many: bool) -> ParsedAnswer | None:
    """The first list of rings, or of masks, by the grammar or as much of one as can be told."""
    nested = _NESTED.search(text)
    if nested is None:
        return None
    outer = text.rfind('[', 0, nested.start())
    if many and outer >= 0:
        outer = text.rfind('[', 0, outer)
    strict = (_MASKS if many else _RINGS).match(text, outer) if outer >= 0 else None
    if strict is None or not _is_bare(text, *strict.span()):
        opening = _opening(text, nested.start() + 1)
        return _rings_answer(*_recover(text, *opening, cut, many), grammar, many)
    masks = [_Mask(_split_rings(mask.group()), mask.span(), True)
             for mask in _RINGS.finditer(text, outer + many, strict.end())]
    return _rings_answer(masks, False, 0, strict.span(), grammar, many, True)


def _split_rings(text: str) -> list[list[str]]:
    """Numbers of the rings of a mask by the grammar: nothing else is left to look for."""
    return [_UNSIGNED.findall(part) for part in _RING_END.split(text)[:-1]]


def _opening(text: str, end: int) -> tuple[int, int]:
    """Where the brackets before what begins at ``end`` begin, and how many they are."""
    before = text[:end]
    start = before.find('[', len(before.rstrip('[ \t\r\n')))
    return (start, before.count('[', start)) if start >= 0 else (end, 0)


def _recover(text: str, start: int, depth: int, cut: bool, many: bool):
    """Masks of a malformed answer that starts with ``depth`` brackets before its first vertex.

    Innermost brackets are vertices; a gap between two with a bracket in it starts a new ring, and
    where ``many`` are asked for one with two brackets a new mask. As many closing brackets as
    were opened, or words, end the answer; but nothing except commas between masks that lack the
    brackets of their list does not.

    Returns:
        The masks, and as ``_ending`` whether it is cut off, what was dropped, and its span.
    """
    masks: list[_Mask] = []
    between, listed = min(depth, 2), many and depth < 3  # brackets that end a mask; see above
    dropped, end = 0, None
    for group in _INNER.finditer(text, start):
        gap = text[start if end is None else end:group.start()]
        if end is not None:
            plain = _BRACKETS.fullmatch(gap) is not None
            if gap.count(']') >= depth and not (listed and plain) or dropped > MAX_DROPPED or (
                    _TAIL.fullmatch(gap) is None):
                break
            dropped += not plain
        turns = max(gap.count(']'), gap.count('['))
        if end is None or many and turns >= between:
            _drop_empty(masks)
            masks.append(_Mask([[]], group.span()))
        elif turns and masks[-1].rings[-1]:
            masks[-1].rings.append([])
        end = group.end()
        masks[-1].span = masks[-1].span[0], end
        pair = _PAIRS.fullmatch(group.group())
        if pair is None:
            dropped += 1
        else:
            masks[-1].rings[-1] += pair.groups()
    truncated, dropped, span = _ending(text, end, depth, cut, dropped, start, listed)
    if many:
        _drop_empty(masks)
        _place(text, start, masks)
    if many and masks:  # an answer that is cut off holds the brackets of its last mask
        span = start, max(span[1], masks[-1].span[1])
    return masks, truncated, dropped, span


def _drop_empty(masks: list[_Mask]) -> None:
    """Leave out the last mask where no vertex of it was found."""
    if masks and not masks[-1].rings[0]:
        masks.pop()


def _place(text: str, start: int, masks: list[_Mask]) -> None:
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


def _rings_answer(masks: list[_Mask], truncated: bool, dropped: int, span, grammar: Grammar,
                  many: bool, valid: bool = False) -> ParsedAnswer:
    """Scale and check the numbers of one mask, or of ``many``."""
    words = [[word for ring in mask.rings for word in ring] for mask in masks]
    shares, follows = _shares([word for numbers in words for word in numbers], grammar)
    shares = shares.reshape(-1, 2)
    if not many:
        return _mask_answer(masks[0].rings, shares, valid and follows, truncated, dropped, span)
    found, at = [], 0
    for mask, numbers in zip(masks, words):
        part = shares[at:at + len(numbers) // 2]
        at += len(part)
        fits = mask.whole and (follows or _follows(''.join(numbers), grammar))
        late = truncated and mask is masks[-1] and not mask.whole
        found.append(_mask_answer(mask.rings, part, fits, late, 0, mask.span))
    return ParsedAnswer(
        'masks', rings=[ring for one in found for ring in one.rings],
        valid=valid and all(one.valid for one in found), truncated=truncated,
        dropped=dropped + sum(one.dropped for one in found),
        short_rings=sum(one.short_rings for one in found), span=span, instances=tuple(found))


def _mask_answer(rings, shares: np.ndarray, valid: bool, truncated: bool, dropped: int, span
                 ) -> ParsedAnswer:
    """Check the rings of one mask.

    Args:
        rings: number words x, y, x, y, ... of each.
        shares: (V, 2) of their vertices.
    """
    inside = len(shares) == 0 or bool(shares.min() >= 0 and shares.max() <= 1)
    near = None
    if not inside:
        near = _is_near(shares).all(axis=1)
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
                        truncated=truncated, dropped=dropped, short_rings=short, span=span)


# Runs of punctuation that Qwen's vocabulary does not hold as one token. All others that an
# answer needs ('[[', '],[', ' [', ']],', ...) are one.
_TOKENS = re.compile(r'[0-9]| ?[^\W\d_]+| ?[^\s\w]+|\s+|\w', re.ASCII)
_SPLIT_RUNS = {'[[[': 2, ']]]': 2, ']],[[': 3}


def count_tokens(text: str) -> int:
    """Tokens of an answer by Qwen's rule: every digit by itself, runs of punctuation together.

    Exact (against Qwen's vocabulary) for texts that a Grammar writes; a word counts as one.
    """
    return sum(_SPLIT_RUNS.get(run, 1) for run in _TOKENS.findall(text))
