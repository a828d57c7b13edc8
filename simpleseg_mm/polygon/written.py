"""Outlines while a model is writing them."""
import numpy as np

from .grammar import MAX_CHARS, Grammar
from .text import written_masks


class WrittenRings:
    """Vertices of an answer while it is being written, instance by instance. What has been read
    of an instance whose successor has begun is not read again.

    Args:
        grammar: of the answer.
        many: whether it is a list of masks; else all of it is one instance.
    """

    def __init__(self, grammar: str | Grammar = 'int1000', many: bool = False) -> None:
        self.grammar, self.many = Grammar.from_name(grammar), many
        self._start = self._number = 0  # of the last instance: where it begins, and which it is
        self._closed = self._vertices = 0  # brackets of the text, and vertices of that instance

    def news(self, text: str) -> list[tuple[int, list[np.ndarray]]]:
        """Instances that have won vertices since the last call.

        Args:
            text: all that has been written.

        Returns:
            Their numbers, from 0, and all their rings so far, see :func:`written_masks`.
        """
        text = text[:MAX_CHARS]
        closed = text.count(']')
        if closed == self._closed:
            return []
        self._closed = closed
        found = []
        begins = 0
        for begins, rings in written_masks(text[self._start:], self.grammar, self.many):
            found.append((self._number + len(found), rings))
        if not found:
            return []
        first, before = self._number, self._vertices
        self._start += begins if len(found) > 1 else 0
        self._number, self._vertices = found[-1][0], sum(map(len, found[-1][1]))
        return [(number, rings) for number, rings in found
                if number > first or sum(map(len, rings)) > before]
