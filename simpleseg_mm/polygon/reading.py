"""What all readers of answers share: what was found, numbers and their shares, brackets."""
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .grammar import CLIP_MARGIN, Grammar

# Malformed vertices after which the rest of an answer is given up. Our choice.
MAX_DROPPED = 256


@dataclass(frozen=True)
class ParsedAnswer:
    """What was found in a text. Coordinates are shares of the image, 0..1.

    Attributes:
        kind: 'rings', 'box', 'point', 'masks', 'boxes', 'points', 'objects', 'empty' (the answer
            '[]') or 'none' (no answer found).
        rings: ``(N, 2) float64`` arrays x, y, each with at least 3 distinct vertices; of 'masks'
            and 'objects' those of all instances.
        box: ``(4,) float64`` x1, y1, x2, y2, or None; of 'boxes' the one around all of them.
        point: ``(2,) float64`` x, y, or None.
        valid: the whole answer follows the grammar, is closed, lies in range, and nothing was
            dropped. A sentence around it is allowed.
        truncated: the text ends inside the answer.
        dropped: points and rings left out: not two numbers, far out of range, or fewer than 3
            distinct vertices in a ring.
        short_rings: rings among the dropped, for fewer than 3 distinct vertices.
        span: characters of the answer, ``text[start:end]``; (0, 0) where there is none.
        instances: of 'masks', 'boxes', 'points' and 'objects' an answer of kind 'rings', 'box' or
            'point' each, in the order of the text, also where nothing of it can be used. It is
            ``valid`` by itself, whatever the others are. Empty for the other kinds.
        name: of an instance of 'objects', '' where none stands; else None.
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
    name: str | None = None


#: lists of answers, each with the kind of its items
LIST_KINDS = {'masks': 'rings', 'boxes': 'box', 'points': 'point', 'objects': 'rings'}
#: those whose items have a name
NAMED_KINDS = ('objects', )
#: those about one object in the order in which an answer of any kind is looked for, then lists
ANSWER_KINDS = ('rings', 'box', 'point', *LIST_KINDS)
NUMBER = r'[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?'
PAIRS = re.compile(rf'\[\s*({NUMBER})\s*,\s*({NUMBER})\s*\]')
# A whole answer by the grammar. Unambiguous at every character, so matching is linear.
PLAIN = r'[0-9]+(?:\.[0-9]*)?'
VERTEX = rf'\[\s*{PLAIN}\s*,\s*{PLAIN}\s*\]'
RING = rf'\[\s*{VERTEX}(?:\s*,\s*{VERTEX})*\s*\]'
MASK = rf'\[\s*{RING}(?:\s*,\s*{RING})*\s*\]'
#: what has no brackets in it
INNER = re.compile(r'\[[^\[\]]*\]')
#: the first vertex of a ring
NESTED = re.compile(r'\[\s*\[[^\[\],]*,[^\[\]]*\]')
BRACKETS = re.compile(r'[\s\[\],]*')
TAIL = re.compile(r'[\s\[\],0-9.eE+-]*')


def is_bare(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` is not itself an item of a list."""
    head, tail = text[:start].rstrip(), text[end:].lstrip()
    if head.endswith(','):
        nested = head[:-1].rstrip().endswith(']')
    else:
        nested = head.endswith('[')
    if tail.startswith(','):
        return not nested and not tail[1:].lstrip().startswith('[')
    return not nested and not tail.startswith(']')


def opening(text: str, end: int) -> tuple[int, int]:
    """Where the brackets before what begins at ``end`` begin, and how many they are."""
    before = text[:end]
    start = before.find('[', len(before.rstrip('[ \t\r\n')))
    return (start, before.count('[', start)) if start >= 0 else (end, 0)


def ending(text: str, end: int, depth: int, cut: bool, dropped: int, start: int, listed: bool):
    """Whether an answer is cut off, what was dropped of it, and its span with the brackets that
    close it. Where it is ``listed`` without brackets around all, one that opens goes on with it.
    """
    tail = TAIL.match(text, end).group()
    closed = tail.count(']') >= depth and not (listed and '[' in tail)
    truncated = not closed and (cut or end + len(tail) == len(text))
    for _ in range(depth if closed else 0):
        end = text.index(']', end) + 1
    return truncated, dropped, (start, end)


def shares_of(words: Sequence[str], grammar: Grammar) -> tuple[np.ndarray, bool]:
    """Numbers as written to shares of the image; and whether they follow the grammar."""
    values = np.array(list(map(float, words)), np.float64)
    letters = ''.join(words)
    follows = follows_grammar(letters, grammar)
    if grammar.style != 'int':
        return values, follows
    dotted = letters.count('.')  # at most one a number
    if dotted and dotted == len(words) and (np.abs(values) <= 1).all():
        return values, False
    return values / grammar.steps, follows


def follows_grammar(letters: str, grammar: Grammar) -> bool:
    """Whether the letters of numbers are those that the grammar writes."""
    return not ('e' in letters or 'E' in letters or grammar.style == 'int' and '.' in letters)


def is_near(shares: np.ndarray) -> np.ndarray:
    """Whether a share is close enough to 0..1 to be clipped."""
    return (shares >= -CLIP_MARGIN) & (shares <= 1 + CLIP_MARGIN)
