"""Few vertices, placed for area: the outline that buys the most IoU for its tokens. Ours.

The number of pixels in which a filled outline differs from a mask is a sum over its edges. With
``g[y, x]`` the number of background minus foreground pixels of row y left of column x, an edge
that crosses row y at column x adds ``+g`` where it runs up and ``-g`` where it runs down; the sum
over a closed ring is the change in wrong pixels that filling it brings (a hole runs the other
way, so the same sum counts its removal). So the price of an edge depends on its two ends alone,
is exact to the pixel, and takes one lookup a row: no rasterising in the search.

An edge is compared with the stretch of true outline that it replaces (both ends are tied to it
by short spokes): the difference of their prices is what the edge gets wrong. The same sums of
cross products give the area in between. Wrong pixels can hardly be fewer than that area; where
the sum says so, the edge crosses the outline elsewhere and pixels were set off against each
other, and the area is its price.

For each ring: candidates are the vertices of a very fine Douglas-Peucker outline, snapped to the
grid of the grammar; the cheapest closed path through them, price of the tokens included, is found
by dynamic programming; its vertices then move on the grid, alternately one by one and jointly;
the moved vertices join the candidates, and path and moves are done once more. Rings that do not
earn their tokens are dropped.
"""
from dataclasses import dataclass
from typing import List, Optional, Tuple

import cv2
import numpy as np

from .contour import canonical_start, check_mask, crop_of, mask_to_rings, signed_area
from .simplify import arc_length, simplify_dp
from .spans import TIE
from .text import Grammar

# All numbers here are our choice, tried out on COCO objects.
TOLERANCE = 0.3         # of the candidates, pixels
MAX_CANDIDATES = 160    # a ring; the tolerance grows until they are this few
MAX_SKIP = 32           # candidates that one edge may pass over
MAX_ROWS = 96           # rows of the mask that the path search looks at, about
MARGIN = 8              # pixels round the mask in which vertices are priced exactly
SWEEPS = 6
ROUNDS = 2
STAY = [(0, 0)]
CROSS = [(0, -1), (-1, 0), (1, 0), (0, 1)]
DIAGONALS = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
JUMPS = [(0, -2), (-2, 0), (2, 0), (0, 2)]
# Mean tokens over 1,145 COCO objects of at least 20 px, and the rate that gave them (int1000).
RATE_OF_TOKENS = [(33.0, 3e-2), (40.1, 1e-2), (58.0, 3e-3), (84.4, 1e-3), (114.7, 4e-4),
                  (152.3, 1.5e-4), (191.0, 6e-5), (228.9, 2.5e-5), (266.6, 1e-5), (293.4, 3e-6)]
HEADROOM = 0.98  # aim a little below the budget: other sets differ
SINGLE_MOVES = np.array(STAY + CROSS + DIAGONALS + JUMPS)
JOINT_MOVES = np.array(STAY + CROSS)


class _Table:
    """Prices of edges against one mask; see the module.

    Points are given as ``(N, 2)`` in *table* coordinates: pixels of the crop, shifted so that
    the sampled rows and the pixel centres lie on whole numbers.

    Args:
        mask: ``(H, W) uint8``.
        box: its tight box.
        steps: of the grammar.
        stride: every how many rows are sampled.
    """

    def __init__(self, mask: np.ndarray, box, steps: int, stride: int = 1) -> None:
        h, w = mask.shape
        margin = max(MARGIN, 4 * max(h, w) // steps)
        self.x0, self.y0 = max(box[0] - margin, 0), max(box[1] - margin, 0)
        x1, y1 = min(box[2] + margin, w), min(box[3] + margin, h)
        self.stride, self.phase = stride, stride // 2
        crop = mask[self.y0:y1, self.x0:x1][self.phase::stride]
        self.h, self.w = crop.shape
        table = np.zeros((self.h, self.w + 1), np.int32)
        np.cumsum(1 - 2 * crop.astype(np.int8), axis=1, out=table[:, 1:])
        self.g = table.ravel()
        self.scale = np.array([w / steps, h / (steps * stride)])
        self.shift = np.array([self.x0 + TIE, (self.y0 + self.phase + TIE) / stride])

    def from_steps(self, points: np.ndarray) -> np.ndarray:
        """Steps of the grammar to table coordinates."""
        return points * self.scale - self.shift

    def from_pixels(self, points: np.ndarray) -> np.ndarray:
        """Image coordinates to table coordinates."""
        return points / np.array([1, self.stride]) - self.shift

    def price(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Wrong pixels that each edge from a to b adds, and its share of the area, ``(2, E)``."""
        both = np.zeros((2, len(a)))
        both[1] = self.area(a, b)
        first = np.ceil(a[:, 1]).clip(0, self.h)
        last = np.ceil(b[:, 1]).clip(0, self.h)
        count = np.abs(last - first).astype(np.int64)
        live = np.flatnonzero(count)
        if not len(live):
            return both
        if len(live) < len(a):
            a, b, first, last, count = a[live], b[live], first[live], last[live], count[live]
        start = np.cumsum(count) - count
        slope = (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        index = np.arange(start[-1] + count[-1])
        index -= np.repeat(start - np.minimum(first, last).astype(np.int64), count)
        x = index * np.repeat(slope, count)
        x += np.repeat(a[:, 0] - a[:, 1] * slope, count)
        np.ceil(x, out=x)
        np.clip(x, 0, self.w, out=x)
        index *= self.w + 1
        index += x.astype(np.int64)
        wrong = np.add.reduceat(self.g[index], start, dtype=np.int64)
        both[0, live] = np.where(last > first, -wrong, wrong) * self.stride
        return both

    def area(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Share of each edge in the signed area of its ring, pixels squared."""
        return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) * (self.stride / 2)

    def slack(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How far area and counted pixels of an edge may differ by rounding, pixels."""
        return self.stride * (np.abs(b - a).sum(axis=-1) + 3)

    def excess(self, gap: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """What edges from a to b get wrong; ``gap`` is their price less that of the outline."""
        wrong, area = gap[0], np.abs(gap[1])
        return np.where(area > wrong + self.slack(a, b), area, np.maximum(wrong, 0))


class _Outline:
    """A true outline as the chain of its unit steps between pixels.

    Attributes:
        corner: ``(L, 2) int64`` start of every unit step, image coordinates.
        step: ``(L, 2)`` its direction.
    """

    def __init__(self, ring: np.ndarray) -> None:
        edge = np.roll(ring, -1, axis=0) - ring
        length = np.abs(edge).sum(axis=1)
        which = np.repeat(np.arange(len(ring)), length)
        along = np.arange(len(which)) - np.repeat(np.cumsum(length) - length, length)
        self.step = (edge // length[:, None])[which]
        self.corner = ring[which] + self.step * along[:, None]

    def twice_middles(self) -> np.ndarray:
        """Middles of the unit steps, image coordinates times two, ``(L, 2) int32``."""
        return (2 * self.corner + self.step).astype(np.int32)

    def prices(self, table: _Table) -> np.ndarray:
        """Price of the chain from its start to each corner, and all round: ``(2, L + 1)``."""
        x, y = (self.corner - [table.x0, table.y0]).T
        row, rest = np.divmod(np.minimum(y, y + self.step[:, 1]) - table.phase, table.stride)
        used = (self.step[:, 1] != 0) & (rest == 0)
        both = np.zeros((2, len(x) + 1))
        both[0, 1:][used] = -self.step[used, 1] * table.stride * table.g[
            row[used] * (table.w + 1) + x[used]]
        px, py = table.from_pixels(self.corner).T
        both[1, 1:] = (px * self.step[:, 1] - py * table.stride * self.step[:, 0]) / 2
        return np.cumsum(both, axis=1)

    def candidates(self, grammar: Grammar, shape) -> Tuple[np.ndarray, np.ndarray]:
        """Places for vertices: steps ``(M, 2)``, and which unit step each belongs to ``(M,)``."""
        twice = self.twice_middles()
        tolerance = 2 * TOLERANCE
        while True:
            points = cv2.approxPolyDP(twice[:, None], tolerance, True)[:, 0]
            if len(points) <= MAX_CANDIDATES:
                break
            tolerance *= 1.4
        # A middle occurs once in an outline, so it tells its place.
        width = 2 * shape[1] + 2
        key = twice[:, 1].astype(np.int64) * width + twice[:, 0]
        order = np.argsort(key)
        wanted = points[:, 1].astype(np.int64) * width + points[:, 0]
        index = np.sort(order[np.searchsorted(key, wanted, sorter=order)])
        steps = grammar.to_steps(twice[index] / 2, shape)
        new = np.any(steps != np.roll(steps, 1, axis=0), axis=1)
        return steps[new], index[new]


@dataclass
class _Tied:
    """Vertices of a ring, each tied to a corner of the true outline.

    Attributes:
        steps: ``(N, 2) int64`` where they are, steps of the grammar.
        anchor: ``(N, 2)`` corner each is tied to, table coordinates.
        along: ``(2, N)`` price of the true outline from its start to the anchor.
        around: ``(2,)`` price of the whole true outline.
    """
    steps: np.ndarray
    anchor: np.ndarray
    along: np.ndarray
    around: np.ndarray


def _tie(table: _Table, outline: _Outline, prices: np.ndarray, steps, index) -> _Tied:
    return _Tied(steps, table.from_pixels(outline.corner[index]), prices[:, index],
                 prices[:, -1])


def _cheapest_ring(table: _Table, tied: _Tied, tokens: np.ndarray, start: int) -> np.ndarray:
    """Indices of the cheapest closed path through the candidates, by way of ``start``.

    ``tokens`` ``(M,)`` is the price of each vertex. Dynamic programming over the candidates in
    their order, an edge passing over at most MAX_SKIP of them.
    """
    m = len(tied.steps)
    k = min(MAX_SKIP, m - 1)
    points = table.from_steps(tied.steps)
    reach = tied.along + table.price(tied.anchor, points)
    of = np.repeat(np.arange(m), k)
    skip = np.tile(np.arange(1, k + 1), m)
    to = of + skip
    wrap = to >= m
    to[wrap] -= m
    a, b = points[of], points[to]
    replaced = reach[:, to] - reach[:, of] + tied.around[:, None] * wrap
    # An edge that leaves out more area than the vertices passed over would cost is not worth
    # its lookups.
    area = np.abs(table.area(a, b) - replaced[1]) - table.slack(a, b)
    live = np.flatnonzero(area <= skip * (tokens.max() + 2 * table.stride))
    a, b, of, to, skip = a[live], b[live], of[live], to[live], skip[live]
    gap = table.price(a, b) - replaced[:, live]
    edge = np.full((m, k), np.inf)  # edge[i, k - skip]: from i - skip to i
    edge[to, k - skip] = table.excess(gap, a, b)
    edge += tokens[:, None]
    edge = np.roll(edge, -start - 1, axis=0)
    best = np.full(m + k, np.inf)
    best[k - 1] = 0
    came = [0] * m
    for i in range(m):
        total = best[i:i + k] + edge[i]
        j = int(total.argmin())
        best[k + i] = total[j]
        came[i] = k - j
    path, i = [], m
    while i > 0:
        path.append((start + i) % m)
        i -= came[i - 1]
    return np.sort(np.array(path))


def _move_singly(table: _Table, tied: _Tied, grammar: Grammar, rate: float) -> np.ndarray:
    """Move every vertex to the cheapest place near it, neighbours held, until none moves."""
    steps = tied.steps.copy()
    n, q = len(steps), len(SINGLE_MOVES)
    points = table.from_steps(steps)
    reach = tied.along + table.price(tied.anchor, points)
    past = np.zeros((2, n))  # the stretch from vertex n - 1 to vertex 0 closes the outline
    past[:, -1] = tied.around
    groups = [np.arange(0, n - n % 2, 2), np.arange(1, n, 2), np.arange(n - n % 2, n)]
    active = np.ones(n, bool)
    for _ in range(SWEEPS):
        moved = np.zeros(n, bool)
        for group in groups:
            group = group[active[group]]
            if not len(group):
                continue
            before, after = group - 1, (group + 1) % n
            places = (steps[group][:, None] + SINGLE_MOVES).clip(0, grammar.steps)
            here = table.from_steps(places)
            flat = here.reshape(-1, 2)
            came, goes = points[before][:, None], points[after][:, None]
            price = table.price(
                np.concatenate([np.repeat(points[before], q, axis=0), flat,
                                np.repeat(tied.anchor[group], q, axis=0)]),
                np.concatenate([flat, np.repeat(points[after], q, axis=0), flat])
            ).reshape(2, 3, -1, q)
            reached = price[:, 2] + tied.along[:, group, None]
            price = (
                table.excess(price[:, 0] - reached + (reach - past)[:, before, None], came, here) +
                table.excess(price[:, 1] + reached - (reach[:, after] + past[:, group])[..., None],
                             here, goes) +
                rate * grammar.vertex_tokens(places))
            choice = price.argmin(axis=1)
            row = np.arange(len(group))
            better = price[row, choice] < price[:, 0] - 1e-9
            group, choice, row = group[better], choice[better], row[better]
            steps[group] = places[row, choice]
            points[group] = here[row, choice]
            reach[:, group] = reached[:, row, choice]
            moved[group] = True
        if not moved.any():
            break
        active = moved | np.roll(moved, 1) | np.roll(moved, -1)
    return steps


def _move_jointly(table: _Table, tied: _Tied, grammar: Grammar, rate: float) -> np.ndarray:
    """The best of all combinations of one-step moves of all vertices but the first."""
    n, q = len(tied.steps), len(JOINT_MOVES)
    places = (tied.steps[:, None] + JOINT_MOVES).clip(0, grammar.steps)
    points = table.from_steps(places)
    ends = np.roll(points, -1, axis=0)
    price = table.price(
        np.concatenate([np.repeat(points, q, axis=1).reshape(-1, 2),
                        np.repeat(tied.anchor, q, axis=0)]),
        np.concatenate([np.tile(ends, (1, q, 1)).reshape(-1, 2), points.reshape(-1, 2)]))
    reach = price[:, n * q * q:].reshape(2, n, q) + tied.along[..., None]
    then = np.roll(reach, -1, axis=1)
    then[:, -1] += tied.around[:, None]
    gap = price[:, :n * q * q].reshape(2, n, q, q) - then[:, :, None] + reach[..., None]
    edge = table.excess(gap, points[:, :, None], ends[:, None])
    edge += rate * grammar.vertex_tokens(np.roll(places, -1, axis=0))[:, None]
    total, came = edge[0, 0], []
    for i in range(1, n - 1):
        options = total[:, None] + edge[i]
        choice = options.argmin(axis=0)
        came.append(choice)
        total = options[choice, np.arange(q)]
    state = [int((total + edge[n - 1, :, 0]).argmin())]
    for choice in reversed(came):
        state.append(int(choice[state[-1]]))
    return places[np.arange(n), [0] + state[::-1]]


class _Fitter:
    """Fits rings to one mask at one price of a token, in pixels."""

    def __init__(self, mask: np.ndarray, box, grammar: Grammar, rate: float) -> None:
        stride = max(1, round((box[3] - box[1]) / MAX_ROWS))
        self.grammar, self.rate, self.shape = grammar, rate, mask.shape
        self.table = _Table(mask, box, grammar.steps)
        self.coarse = _Table(mask, box, grammar.steps, stride) if stride > 1 else self.table

    def tokens(self, steps: np.ndarray) -> np.ndarray:
        return self.rate * self.grammar.vertex_tokens(steps)

    def cost(self, steps: np.ndarray) -> float:
        """Wrong pixels that a ring adds (below zero: it takes some away) and its tokens."""
        points = self.table.from_steps(steps)
        wrong = self.table.price(points, np.roll(points, -1, axis=0))[0].sum()
        return float(wrong + self.tokens(steps).sum() + self.rate * self.grammar.ring_tokens)

    def fit(self, ring: np.ndarray) -> Optional[np.ndarray]:
        """Steps ``(N, 2)`` for one true ring, or None where the grid cannot hold it."""
        outline = _Outline(ring)
        places, index = outline.candidates(self.grammar, self.shape)
        if len(places) < 3:
            return None
        fine, coarse = outline.prices(self.table), outline.prices(self.coarse)
        steps, at, start = places, index, 0
        for last in range(ROUNDS):
            if last:
                # The moved vertices join the candidates, in their order along the outline.
                order = np.argsort(np.concatenate([index, at]), kind='stable')
                start = int(np.flatnonzero(order == len(places) + len(steps) // 2)[0])
                at = np.concatenate([index, at])[order]
                steps = np.concatenate([places, steps])[order]
            tied = _tie(self.coarse, outline, coarse, steps, at)
            if len(steps) > 3:
                chosen = _cheapest_ring(self.coarse, tied, self.tokens(steps), start)
                steps, at = steps[chosen], at[chosen]
            if len(steps) < 3:
                return None
            for move in (_move_singly, _move_jointly):
                tied = _tie(self.table, outline, fine, steps, at)
                steps = move(self.table, tied, self.grammar, self.rate)
        return _tidy(steps)


def _tidy(steps: np.ndarray) -> Optional[np.ndarray]:
    """Without repeated vertices and from the canonical start; None when nothing is enclosed."""
    steps = steps[np.any(steps != np.roll(steps, 1, axis=0), axis=1)]
    if len(steps) < 3 or not signed_area(steps):
        return None
    return canonical_start(steps)


def _smallest_box(box, grammar: Grammar, shape) -> np.ndarray:
    """The box of a mask as a ring, at least one step wide and high."""
    low = grammar.to_steps(np.array(box[:2]), shape)
    high = np.maximum(grammar.to_steps(np.array(box[2:]), shape), low + 1)
    low = np.minimum(low, grammar.steps - 1)
    high = np.minimum(high, grammar.steps)
    (x0, y0), (x1, y1) = low, high
    return np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]])


def thin_rings(mask, grammar: Grammar, epsilon: float) -> List[np.ndarray]:
    """Plain Douglas-Peucker on the outlines of parts and holes, for comparison.

    ``epsilon`` is the tolerance as a share of the length of each ring. Returns rings as
    ``fit_rings`` does; those that the grid cannot hold are left out.
    """
    mask = check_mask(mask)
    kept: List[np.ndarray] = []
    outer_kept = False
    for ring in mask_to_rings(mask, 'edges'):
        outer = signed_area(ring) < 0
        if not outer and not outer_kept:
            continue
        twice = _Outline(ring).twice_middles()
        points = simplify_dp(twice, epsilon * arc_length(twice)) / 2
        steps = _tidy(grammar.to_steps(points, mask.shape))
        outer_kept = outer_kept if not outer else steps is not None
        if steps is not None:
            kept.append(steps)
    if not kept and mask.any():
        return [_smallest_box(crop_of(mask), grammar, mask.shape)]
    return kept


def rate_of(tokens: float, grammar: Grammar) -> float:
    """The ``rate`` of ``fit_rings`` that gives about so many tokens a mask, mean over COCO.

    Read off a table made with int1000 (see docs/polygon.md); for another grammar, tokens are
    counted in vertices first. Budgets beyond the table give its ends.
    """
    vertex = grammar.mean_vertex_tokens / Grammar.from_name('int1000').mean_vertex_tokens
    known, rates = np.log(RATE_OF_TOKENS).T
    return float(np.exp(np.interp(np.log(HEADROOM * tokens / vertex), known, rates))) / vertex


def fit_rings(mask, grammar: Grammar, rate: float) -> List[np.ndarray]:
    """Polygons of a mask that balance IoU against tokens.

    Args:
        mask: ``(H, W)``.
        grammar: its grid and its tokens.
        rate: IoU that one token must earn, e.g. 1e-4. Larger is coarser.

    Returns:
        Rings ``(N, 2) int64`` in steps of the grammar, read as edges; outer rings by decreasing
        area (of the part), each followed by its holes. Not empty unless the mask is.
    """
    mask = check_mask(mask)
    box = crop_of(mask)
    if box is None:
        return []
    rate = rate * np.count_nonzero(mask)
    fitter = _Fitter(mask, box, grammar, rate)
    least = rate * (3 * grammar.least_vertex_tokens + grammar.ring_tokens)
    parts: List[Tuple[float, List[np.ndarray]]] = []
    group: Optional[Tuple[float, List[np.ndarray]]] = None
    for ring in mask_to_rings(mask, 'edges'):
        area = signed_area(ring)
        outer = area < 0
        if outer:
            group = None
        elif group is None:
            continue
        # No ring can earn more than its area; the first part is written in any case.
        steps = fitter.fit(ring) if abs(area) > least or (outer and not parts) else None
        if steps is None:
            continue
        cost = fitter.cost(steps)
        if outer:
            group = (cost, [steps])
            parts.append(group)
        elif cost < 0:
            group[1].append(steps)
            parts[-1] = group = (group[0] + cost, group[1])
    kept = [rings for cost, rings in parts if cost < 0]
    if not kept and parts:
        kept = [min(parts, key=lambda part: part[0])[1]]
    if not kept:
        return [_smallest_box(box, grammar, mask.shape)]
    return [ring for rings in kept for ring in rings]
