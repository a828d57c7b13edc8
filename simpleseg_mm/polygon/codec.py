"""Mask to text and back: one object that holds every choice made on the way."""
import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .answer import Answer
from .contour import check_mask, mask_to_rings, signed_area, trace_crop
from .fit import fit_rings, rate_of, thin_rings
from .grammar import MAX_CHARS, Grammar
from .parts import Part, group_rings
from .raster import (check_size, mask_to_box, rle_to_crop, rle_to_mask,
                     segmentation_to_rle)
from .simplify import arc_length, simplify_dp


PRESETS = ('default', 'paper', 'paper-exact')
RING_ORDERS = ('opencv', 'reversed', 'shuffled')
PAPER_EPSILON = 0.005
# Characters of a text in which every vertex is written, 64 times those of a model's. Our choice.
MAX_LOSSLESS_CHARS = 64 * MAX_CHARS
# How much coarser the outlines of many masks are tried, one after the other, until all fit in the
# text. Our choice.
_COARSER = tuple(4.0**k for k in range(1, 7))
_TOO_LONG = (f'a mask needs more than {MAX_LOSSLESS_CHARS} characters to be written vertex by '
             'vertex, which is all that decoding reads; give a number of tokens instead of None')


class PolygonCodec:
    """Masks to polygons as text, and any text to a mask.

    What is written is always what decoding reads, ``max_chars`` characters. Where a mask needs
    more, its largest rings are written, each as coarse as it must be, and a warning says so; with
    ``tokens=None``, where nothing may be left out, that is a ValueError.

    Args:
        preset: 'default' (parts and holes, vertices placed on edges between pixels), 'paper'
            (the official preparation: outer contours through pixel centres, Douglas-Peucker,
            and the official decoding of these as corners, half a pixel lost) or 'paper-exact'
            (the same texts, decoded as the pixel centres that they are).
        grammar: 'int1000', 'decimal3', 'fixed3' or another of ``Grammar.from_name``.
        tokens: mean number of tokens a mask asked for over a set such as COCO, 'default' only.
            None writes every vertex: the exact inverse of decoding where the grid of the grammar
            is as fine as the pixels (images up to 1000 px a side for int1000 and decimal3).
        epsilon: tolerance of Douglas-Peucker as a share of the length of a ring; replaces
            ``tokens``. The paper's presets take 0.005 unless told.
        ring_order: 'opencv' (outer rings counter-clockwise on the screen, from the top-most,
            then left-most vertex), or for ablation 'reversed' or 'shuffled' vertices.
        seed: of the shuffling.
    """

    def __init__(self, preset: str = 'default', grammar='int1000',
                 tokens: float | None = 150, epsilon: float | None = None,
                 ring_order: str = 'opencv', seed: int = 0) -> None:
        if preset not in PRESETS:
            raise ValueError(f'preset is {preset!r}; choose one of {PRESETS}')
        if ring_order not in RING_ORDERS:
            raise ValueError(f'ring_order is {ring_order!r}; choose one of {RING_ORDERS}')
        if tokens is not None and not tokens > 0:
            raise ValueError(f'tokens is {tokens!r}; give a mean number above 0, or None to '
                             'write every vertex')
        if epsilon is not None and not 0 <= epsilon < 1:
            raise ValueError(f'epsilon is {epsilon!r}; give a share of the arc length in [0, 1)')
        self.preset = preset
        self.grammar = Grammar.from_name(grammar)
        self.tokens = tokens
        self.epsilon = PAPER_EPSILON if preset != 'default' and epsilon is None else epsilon
        self.ring_order = ring_order
        self.seed = seed

    @property
    def lossless(self) -> bool:
        """Whether every vertex is written."""
        return self.preset == 'default' and self.tokens is None and self.epsilon is None

    @property
    def max_chars(self) -> int:
        """Characters that are written at most, and read."""
        return MAX_LOSSLESS_CHARS if self.lossless else MAX_CHARS

    @property
    def spec(self) -> str:
        """What decoding needs: 'int1000/default', with '/lossless' where texts are unbounded."""
        return f'{self.grammar.name}/{self.preset}' + ('/lossless' if self.lossless else '')

    @classmethod
    def from_spec(cls, spec: str) -> 'PolygonCodec':
        """A codec that decodes as the one whose ``spec`` this is."""
        parts = spec.split('/') if isinstance(spec, str) else []
        if len(parts) == 2:
            return cls(parts[1], parts[0])
        if len(parts) == 3 and parts[2] == 'lossless':
            return cls(parts[1], parts[0], tokens=None)
        raise ValueError(f"spec is {spec!r}; it looks like 'int1000/default'")

    def __repr__(self) -> str:
        return (f'PolygonCodec(preset={self.preset!r}, grammar={self.grammar.name!r}, '
                f'tokens={self.tokens}, epsilon={self.epsilon}, '
                f'ring_order={self.ring_order!r}, seed={self.seed})')

    def encode(self, mask) -> str:
        """Text of a mask ``(H, W)``; '[]' when it is empty. A pure function of the mask.

        Raises:
            ValueError: no mask; or ``tokens=None`` and more than ``max_chars`` characters.
        """
        mask = np.asarray(mask)
        if self.preset == 'default':
            return self._text(self._steps(mask))
        rings = mask_to_rings(mask, holes=False, most=self.grammar.most_rings)
        return self._text(self._paper_steps(rings, mask.shape), len(rings))

    def order(self, masks: Sequence) -> list[int]:
        """Numbers of masks ``(H, W)`` in the order in which :meth:`encode_masks` writes them: from
        left to right by the centre of their box, then from top to bottom, then by area, small
        ones first. Empty ones, which are not written, are left out.
        """
        places = {}
        for number, mask in enumerate(map(check_mask, masks)):
            box = mask_to_box(mask)
            if box is not None:
                places[number] = (box[0] + box[2], box[1] + box[3], np.count_nonzero(mask))
        return sorted(places, key=places.__getitem__)

    def encode_masks(self, masks: Sequence) -> str:
        """Text of the masks ``(H, W)`` of several instances, each as :meth:`encode` writes it, in
        :meth:`order`; '[]' where there are none. Masks may overlap.

        All of them share ``max_chars`` characters. Where that is too little, the outlines of all
        are written coarser alike ('default' with ``tokens``); where it still is, and with the
        other presets and ``epsilon``, the largest masks are written. A warning says either.

        Raises:
            ValueError: as :meth:`encode`, and for masks of several sizes.
        """
        return self._encode_all(masks, lambda texts, _: self.grammar.format_list(texts))

    def encode_objects(self, masks: Sequence, names: Sequence[str]) -> str:
        """Text of the masks ``(H, W)`` of several objects with their names, in :meth:`order`;
        '[]' where there are none. Names may occur several times.

        Raises:
            ValueError: as :meth:`encode_masks`; not one name a mask; or a name that cannot be
                written, see :func:`quoted_name`.
        """
        if len(masks) != len(names):
            raise ValueError(f'{len(masks)} masks have {len(names)} names; give one each')
        return self._encode_all(masks, lambda texts, numbers: self.grammar.format_named(
            [names[number] for number in numbers], texts))

    def _encode_all(self, masks: Sequence, write: Callable[[list[str], list[int]], str]) -> str:
        """The text that ``write`` makes of those of masks, and of their numbers."""
        masks = [check_mask(mask) for mask in masks]
        if len({mask.shape for mask in masks}) > 1:
            raise ValueError(f'masks have the sizes {sorted({mask.shape for mask in masks})}; '
                             'give those of one picture')
        numbers = self.order(masks)
        texts = {number: self.encode(masks[number]) for number in numbers}
        text = write(list(texts.values()), numbers)
        if len(text) <= self.max_chars:
            return text
        if self.lossless:
            raise ValueError(_TOO_LONG)
        fault = f'{len(masks)} masks need more than {self.max_chars} characters, which is all ' \
                'that decoding reads'
        if self.preset == 'default' and self.epsilon is None:
            for coarser in _COARSER:
                texts = {number: self._text(self._steps(masks[number], coarser))
                         for number in numbers}
                text = write(list(texts.values()), numbers)
                if len(text) <= self.max_chars:
                    warnings.warn(f'{fault}; they are written coarser', stacklevel=3)
                    return text
        room, kept = self.max_chars - 2, []  # the largest, as many as there is room for
        for number in sorted(numbers, key=lambda number: -np.count_nonzero(masks[number])):
            room -= len(write([texts[number]], [number])) - 2 + len(self.grammar.comma)
            if room < 0:
                break
            kept.append(number)
        kept = [number for number in numbers if number in kept]
        warnings.warn(f'{fault}; the largest {len(kept)} are written', stacklevel=3)
        return write([texts[number] for number in kept], kept)

    def encode_rle(self, rle: dict) -> str:
        """Text of a COCO RLE: ``encode`` of its mask, which the paper's presets do not build.

        Raises:
            ValueError: as ``rle_to_mask`` and ``encode``.
        """
        if self.preset == 'default':
            return self.encode(rle_to_mask(rle))
        crop, corner = rle_to_crop(rle)
        if not crop.size:
            return self.grammar.format_steps([])
        rings = trace_crop(crop.view(np.uint8), corner, 'centres', False,
                           self.grammar.most_rings)
        return self._text(self._paper_steps(rings, rle['size']), len(rings))

    def encode_segmentation(self, seg, h: int, w: int) -> str:
        """Text of a COCO segmentation of any kind, straight from an annotation file: ``encode``
        of its mask, which the paper's presets do not build.

        Raises:
            ValueError: as ``segmentation_to_mask`` and ``encode``.
        """
        return self.encode_rle(segmentation_to_rle(seg, h, w))

    def _paper_steps(self, rings, size) -> list[np.ndarray]:
        most = self.grammar.most_vertices
        rings = [simplify_dp(ring, self.epsilon * arc_length(ring), most) for ring in rings]
        return self.grammar.rings_to_steps(rings, size)

    def _steps(self, mask, coarser: float = 1.0) -> list[np.ndarray]:
        if self.epsilon is None and not self.lossless:
            return fit_rings(mask, self.grammar, coarser * rate_of(self.tokens, self.grammar))
        if self.lossless:
            rings = mask_to_rings(mask, 'edges')
            if sum(map(len, rings)) * self.grammar.least_vertex_chars > self.max_chars:
                raise ValueError(_TOO_LONG)
            return self.grammar.rings_to_steps(rings, mask.shape)
        return thin_rings(mask, self.grammar, self.epsilon)

    def _text(self, rings: list[np.ndarray], found: int = 0) -> str:
        text = self.grammar.format_steps(self._ordered(rings))
        if len(text) <= self.max_chars and found < self.grammar.most_rings:
            return text
        if self.lossless:
            raise ValueError(_TOO_LONG)
        warnings.warn(f'a mask has more rings than {self.max_chars} characters hold, which is all '
                      'that decoding reads; its largest rings are written', stacklevel=3)
        return self.grammar.format_steps(self._ordered(self._largest(rings)))

    def _largest(self, rings: list[np.ndarray]) -> list[np.ndarray]:
        """The largest of many rings, as many as there is room for; a hole only in its part."""
        areas = [signed_area(ring) for ring in rings]
        owner = np.arange(len(rings))
        for i in range(1, len(rings)):
            if self.preset == 'default' and areas[i] > 0:
                owner[i] = owner[i - 1]
        room, kept = self.max_chars - 2, set()
        for i in sorted(range(len(rings)), key=lambda i: -abs(areas[i])):
            room -= len(self.grammar.format_steps(rings[i:i + 1])) - 2 + len(self.grammar.comma)
            if room < 0:
                break
            if owner[i] == i or owner[i] in kept:
                kept.add(i)
        return [rings[i] for i in sorted(kept)]

    def _ordered(self, rings: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.ring_order == 'reversed':
            return [np.roll(ring[::-1], 1, axis=0) for ring in rings]
        if self.ring_order == 'shuffled':
            return [self._shuffled(ring) for ring in rings]
        return list(rings)

    def _shuffled(self, ring: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(np.ascontiguousarray(ring, np.int64).tobytes()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], 'little')])
        return rng.permutation(ring, axis=0)

    def decode(self, text: str, size, kind: str | None = 'rings', **facts) -> Answer:
        """What a text says about an image of ``size`` (h, w). Never raises on the text.

        Args:
            text: anything.
            size: (h, w).
            kind, facts: of :class:`Answer`.
        """
        return Answer(text, check_size(size), self, kind, **facts)

    def parts(self, rings: Sequence) -> list[Part]:
        """Decoded rings grouped to outer rings with their holes, in pixels, read as edges.

        Vertices stay where the model put them. 'paper' knows no holes; of 'paper-exact', whose
        numbers are pixel centres, the vertices are given half a pixel further, where the centres
        are, and the half pixel around them is in the mask alone.
        """
        shift = 0.5 if self.preset == 'paper-exact' else 0.0
        return group_rings([ring + shift for ring in rings], oriented=self.preset != 'paper')


@lru_cache(maxsize=64)
def _codec_of(spec: str) -> PolygonCodec:
    return PolygonCodec.from_spec(spec)


def codec_of(spec: str) -> PolygonCodec:
    """``PolygonCodec.from_spec``, one object a spec: for reading, many times."""
    return _codec_of(spec) if isinstance(spec, str) else PolygonCodec.from_spec(spec)
