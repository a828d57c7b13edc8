"""How coordinates, points, boxes, rings and lists of them are written, and in how many tokens.

A coordinate is a share of the width or height of the image, written in steps of 1 / N:
0 is the left or top edge, 1 the right or bottom edge.
"""
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

import numpy as np

from .names import quoted_name

# Characters of a model's text that are read: 1,000 vertices of decimal3. Our choice.
MAX_CHARS = 16384
# A share this far outside 0..1 is clipped, one farther away is dropped. Our choice.
CLIP_MARGIN = 0.1

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

    def format_objects(self, names: Sequence[str], masks: Sequence[Sequence], size) -> str:
        """Objects with their names, of each its rings as ``format_rings`` takes them, in pixels:
        ``[["cup",[[[x,y],...],...]],...]``. No object gives '[]'; one without rings is left out.

        Raises:
            ValueError: a name cannot be written, see :func:`quoted_name`.
        """
        return self.format_named(names, [self.format_rings(rings, size) for rings in masks])

    def format_named(self, names: Sequence[str], texts: Sequence[str]) -> str:
        """Answers about one object each, with their names, as the answer about all; those that
        are '[]' are left out."""
        return self.format_list([f'[{quoted_name(name)}{self.comma}{text}]'
                                 for name, text in zip(names, texts) if text != '[]'])

    def format_list(self, texts: Sequence[str]) -> str:
        """Answers about one instance each as the answer about all; those that are '[]' are left
        out."""
        return f'[{self.comma.join(text for text in texts if text != "[]")}]'


# Runs of punctuation that Qwen's vocabulary does not hold as one token. All others that an
# answer needs ('[[', '],[', ' [', ']],', ...) are one.
_TOKENS = re.compile(r'[0-9]| ?[^\W\d_]+| ?[^\s\w]+|\s+|\w', re.ASCII)
_SPLIT_RUNS = {'[[[': 2, ']]]': 2, ']],[[': 3}


def count_tokens(text: str) -> int:
    """Tokens of an answer by Qwen's rule: every digit by itself, runs of punctuation together.

    Exact (against Qwen's vocabulary) for texts that a Grammar writes; a word counts as one.
    """
    return sum(_SPLIT_RUNS.get(run, 1) for run in _TOKENS.findall(text))
