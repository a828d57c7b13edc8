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
from functools import lru_cache
from operator import add

import numpy as np

from .contour import canonical_start, check_mask, crop_of, signed_area, trace_crop
from .simplify import PIECE, arc_length, simplify_dp
from .spans import TIE
from .grammar import Grammar

# All numbers here are our choice, tried out on COCO objects.
TOLERANCE = 0.3         # of the candidates, pixels
MAX_CANDIDATES = 160    # a ring; the tolerance grows until they are this few
# Of a mask; from there on a ring has few. A text that is read has room for some 1,500 vertices.
MAX_CANDIDATES_A_MASK = 8192
FEW_CANDIDATES = 16
MAX_SKIP = 32           # candidates that one edge may pass over
MAX_ROWS = 96           # rows of the mask that the path search looks at, about
BLOCK = 8192            # lookups at once: larger arrays would be new memory at every call
MARGIN = 8              # pixels round the mask in which vertices are priced exactly
MAX_WORK = 1 << 15      # rows of all outlines together above which not every one is counted
MAX_TRIES = 16          # parts that are too small to earn a token, tried where no other is left
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
        inner = table[:, 1:]
        np.multiply(crop, -2 * stride, out=inner, dtype=np.int32, casting='unsafe')
        inner += stride
        np.cumsum(inner, axis=1, out=inner)
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
        """Of each edge from a to b, ``(3, E)``: the wrong pixels that it adds, its share of the
        area, and its slack.
        """
        price = np.empty((3, len(a)))
        if not len(a):
            return price
        step = b - a
        price[1] = self.area(a, b)
        price[2] = self.slack(step)
        first, last = np.ceil(a[:, 1]).clip(0, self.h), np.ceil(b[:, 1]).clip(0, self.h)
        up = first - last
        count = np.abs(up).astype(np.int64)
        end = count.cumsum()
        start = end - count
        ahead = start - np.minimum(first, last)
        slope = step[:, 0] / (step[:, 1] + (step[:, 1] == 0))
        shift = a[:, 0] - a[:, 1] * slope
        cuts = [0, len(a)]
        if end[-1] > BLOCK:
            cuts = sorted({*cuts, *end.searchsorted(np.arange(BLOCK, end[-1], BLOCK)).tolist()})
        for i, j in zip(cuts, cuts[1:]):
            many = count[i:j]
            row = np.arange(float(start[i]), float(end[j - 1]))
            row -= ahead[i:j].repeat(many)
            index = slope[i:j].repeat(many)
            index *= row
            index += shift[i:j].repeat(many)
            np.ceil(index, out=index)
            index.clip(0, self.w, out=index)
            row *= self.w + 1
            index += row
            # One more: an edge that crosses no row may be the last. Its sum is multiplied by 0.
            found = np.zeros(len(row) + 1, np.int32)
            self.g.take(index.astype(np.int64), out=found[:-1], mode='clip')
            price[0, i:j] = np.add.reduceat(found, start[i:j] - start[i], dtype=np.int32)
        price[0] *= np.sign(up)
        return price

    def area(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Share of each edge in the signed area of its ring, pixels squared."""
        return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) * (self.stride / 2)

    def slack(self, step: np.ndarray) -> np.ndarray:
        """How far area and counted pixels of an edge may differ by rounding, pixels."""
        step = np.abs(step)
        return self.stride * (step[..., 0] + step[..., 1] + 3)


def _excess(gap: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """What edges get wrong; ``gap`` is their price less that of the outline."""
    wrong, area = gap[0], np.abs(gap[1])
    return np.where(area > wrong + slack, area, np.maximum(wrong, 0))


def _next(ring: np.ndarray) -> np.ndarray:
    """For each of a ring, the one after it."""
    return np.concatenate([ring[1:], ring[:1]])


def _is_new(ring: np.ndarray) -> np.ndarray:
    """Whether each point of a ring differs from the one before it."""
    new = ring != np.concatenate([ring[-1:], ring[:-1]])
    return new[:, 0] | new[:, 1]


class _Outline:
    """A true outline as the chain of its unit steps between pixels.

    Attributes:
        corner: ``(L, 2) int64`` start of every unit step, image coordinates.
        step: ``(L, 2)`` its direction.
    """

    def __init__(self, ring: np.ndarray) -> None:
        edge = _next(ring) - ring
        length = np.abs(edge[:, 0] + edge[:, 1])  # one of them is 0
        end = length.cumsum()
        along = np.arange(end[-1]) - (end - length).repeat(length)
        self.step = np.sign(edge).repeat(length, axis=0)
        self.corner = ring.repeat(length, axis=0) + self.step * along[:, None]

    def twice_middles(self) -> np.ndarray:
        """Middles of the unit steps, image coordinates times two, ``(L, 2) int32``."""
        return (2 * self.corner + self.step).astype(np.int32)

    def prices(self, table: _Table) -> np.ndarray:
        """Price of the chain from its start to each corner, and all round: ``(2, L + 1)``."""
        x, y = (self.corner - [table.x0, table.y0]).T
        down = self.step[:, 1]
        row, rest = np.divmod(np.minimum(y, y + down) - table.phase, table.stride)
        found = table.g.take(row * (table.w + 1) + x, mode='clip')  # of level steps: times 0
        both = np.zeros((2, len(x) + 1))
        both[0, 1:] = found * -down * (rest == 0)
        px, py = table.from_pixels(self.corner).T
        both[1, 1:] = (px * down - py * table.stride * self.step[:, 0]) / 2
        return both.cumsum(axis=1)

    def candidates(self, grammar: Grammar, shape, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Places for vertices: steps ``(M, 2)``, M at most ``most``, and which unit step each
        belongs to ``(M,)``."""
        twice = points = self.twice_middles()
        tolerance = 2 * TOLERANCE
        while True:
            # Of a very long outline, each tolerance starts from what the one before it left.
            points = simplify_dp(points if len(twice) > PIECE else twice, tolerance)
            if len(points) <= most:
                break
            tolerance *= 1.4
        # A middle occurs once in an outline, so it tells its place.
        width = 2 * shape[1] + 2
        key = twice[:, 1].astype(np.int64) * width + twice[:, 0]
        order = np.argsort(key)
        wanted = points[:, 1].astype(np.int64) * width + points[:, 0]
        index = np.sort(order[np.searchsorted(key, wanted, sorter=order)])
        steps = grammar.to_steps(twice[index] / 2, shape)
        new = _is_new(steps)
        return steps[new], index[new]


@dataclass
class _Tied:
    """Where the vertices of a ring are tied to the true outline, each to a corner.

    Attributes:
        anchor: ``(N, 2)`` the corners, table coordinates.
        along: ``(2, N)`` price of the true outline from its start to the anchor.
        around: ``(2,)`` price of the whole true outline.
    """
    anchor: np.ndarray
    along: np.ndarray
    around: np.ndarray


def _tie(table: _Table, outline: _Outline, prices: np.ndarray, index) -> _Tied:
    return _Tied(table.from_pixels(outline.corner[index]), prices[:, index], prices[:, -1])


def _cheapest_ring(table: _Table, tied: _Tied, steps: np.ndarray, tokens: np.ndarray,
                   start: int, known: np.ndarray) -> np.ndarray:
    """Indices of the cheapest closed path through the candidates, by way of ``start``.

    ``tokens`` ``(M,)`` is the price of each vertex, ``known`` ``(M, M)`` what the edge from one
    to another costs, inf where that is not known: edges looked up are entered. Dynamic
    programming over the candidates in their order, an edge passing over at most MAX_SKIP of them.
    """
    m = len(steps)
    k = min(MAX_SKIP, m - 1)
    points = table.from_steps(steps)
    # Edges to each candidate, (M, K): from the k before it, in their order.
    lag = np.arange(-k, 0)
    to = np.arange(m)[:, None]
    of = to + lag
    closing = of < 0
    of += m * closing
    a, b = points.take(of, axis=0), points[:, None]
    area = tied.along[1] + table.area(tied.anchor, points)
    replaced = area[:, None] - area.take(of) + tied.around[1] * closing
    # An edge that leaves out more area than the vertices passed over would cost is not worth
    # its lookups.
    near = (np.abs(table.area(a, b) - replaced) - table.slack(b - a)
            <= -lag * (tokens.max() + 2 * table.stride))
    place = of * m + to
    edge = known.take(place)
    new = np.flatnonzero(near & (edge == np.inf))
    to, of, closing = new // k, of.take(new), closing.take(new)
    price = table.price(np.concatenate([tied.anchor, points.take(of, axis=0)]),
                        np.concatenate([points, points.take(to, axis=0)]))
    reach, price = tied.along + price[:2, :m], price[:, m:]
    replaced = reach.take(to, axis=1) - reach.take(of, axis=1) + tied.around[:, None] * closing
    edge.put(new, _excess(price[:2] - replaced, price[2]) + tokens.take(to))
    known.put(place, edge)
    best = np.full(m + k, np.inf)
    best[k - 1] = 0
    total, back = np.empty(k), []
    for i, row in enumerate([*edge[start + 1:], *edge[:start + 1]]):
        np.add(best[i:i + k], row, total)
        j = total.argmin()
        best[k + i] = total[j]
        back.append(k - int(j))
    path, i = [], m
    while i > 0:
        path.append((start + i) % m)
        i -= back[i - 1]
    return np.array(sorted(path))


def _move_singly(table: _Table, tied: _Tied, steps: np.ndarray, grammar: Grammar,
                 rate: float) -> tuple[np.ndarray, bool]:
    """Move every vertex to the cheapest place near it, neighbours held, until none moves.

    Also returns whether it has come to that.
    """
    steps = steps.copy()
    n, q = len(steps), len(SINGLE_MOVES)
    points = table.from_steps(steps)
    reach = np.empty((2, n))
    past = np.zeros((2, n))  # the stretch from vertex n - 1 to vertex 0 closes the outline
    past[:, -1] = tied.around
    choice = np.zeros(n, np.int64)

    def choose(group: np.ndarray) -> None:
        """Find the best moves of vertices, given where all are."""
        before, after = group - 1, (group + 1) % n
        places = _clipped(steps.take(group, axis=0)[:, None] + SINGLE_MOVES, grammar)
        ends = np.empty((2, 3, len(group), q, 2))  # of the edges to and from, and the spoke
        ends[0, 0] = points.take(before, axis=0)[:, None]
        ends[1, 1] = points.take(after, axis=0)[:, None]
        ends[0, 2] = tied.anchor.take(group, axis=0)[:, None]
        ends[1, 0] = ends[0, 1] = ends[1, 2] = table.from_steps(places)
        price = table.price(*ends.reshape(2, -1, 2)).reshape(3, 3, -1, q)
        gap, slack = price[:2, :2], price[2, :2]
        reached = price[:2, 2] + tied.along.take(group, axis=1)[..., None]
        reach[:, group] = reached[..., 0]
        gap[:, 0] -= reached
        gap[:, 0] += (reach - past).take(before, axis=1)[..., None]
        gap[:, 1] += reached
        gap[:, 1] -= (reach.take(after, axis=1) + past.take(group, axis=1))[..., None]
        cost = _excess(gap, slack)
        cost = cost[0] + cost[1] + rate * grammar.vertex_tokens(places)
        better = np.minimum.reduce(cost, axis=1) < cost[:, 0] - 1e-9
        choice[group] = better * cost.argmin(axis=1)

    def around(group) -> set:
        return {j % n for i in group for j in (i - 1, i, i + 1)}

    groups = [range(0, n - n % 2, 2), range(1, n, 2), range(n - n % 2, n)]
    active = stale = set(range(n))
    for _ in range(SWEEPS):
        moved = set()
        for group in groups:
            group = active.intersection(group)
            if not stale.isdisjoint(group):
                # All at once: the choices of later groups hold where no neighbour moves.
                choose(np.array(sorted(stale)))
                stale = set()
            group = [i for i in group if choice[i]]
            if group:
                steps[group] = _clipped(steps[group] + SINGLE_MOVES[choice[group]], grammar)
                points[group] = table.from_steps(steps[group])
                moved.update(group)
                stale = stale | around(group)
        if not moved:
            return steps, True
        active = around(moved)
    return steps, False


def _move_jointly(table: _Table, tied: _Tied, steps: np.ndarray, grammar: Grammar,
                  rate: float) -> np.ndarray:
    """The best of all combinations of one-step moves of all vertices but the first."""
    n, q = len(steps), len(JOINT_MOVES)
    places = _clipped(steps[:, None] + JOINT_MOVES, grammar)
    points = table.from_steps(places)
    ends = np.empty((2, n, q + 1, q, 2))  # of the edges to the next vertex, and of the spokes
    ends[0, :, :q] = points[:, :, None]
    ends[1, :, :q] = _next(points)[:, None]
    ends[0, :, q] = tied.anchor[:, None]
    ends[1, :, q] = points
    price = table.price(*ends.reshape(2, -1, 2)).reshape(3, n, q + 1, q)
    reach = price[:2, :, q] + tied.along[..., None]
    then = np.concatenate([reach[:, 1:], reach[:, :1] + tied.around[:, None, None]], axis=1)
    gap = price[:2, :, :q] - then[:, :, None] + reach[..., None]
    edge = _excess(gap, price[2, :, :q])
    edge += _next(rate * grammar.vertex_tokens(places))[:, None]
    # Lists: numpy is slower on five numbers.
    edges = edge.swapaxes(1, 2).tolist()
    totals = [[to[0] for to in edges[0]]]
    for edge in edges[1:]:
        totals.append([min(map(add, totals[-1], to)) for to in edge])
    state = [0]
    for total, edge in zip(totals[-2::-1], edges[:0:-1]):
        options = list(map(add, total, edge[state[-1]]))
        state.append(options.index(min(options)))
    return places[np.arange(n), [0] + state[:0:-1]]


def _clipped(steps: np.ndarray, grammar: Grammar) -> np.ndarray:
    return np.minimum(np.maximum(steps, 0), grammar.steps)


class _Fitter:
    """Fits rings to one mask at one price of a token, in pixels."""

    def __init__(self, mask: np.ndarray, box, grammar: Grammar, rate: float,
                 fine: int = 1) -> None:
        stride = max(fine, round((box[3] - box[1]) / MAX_ROWS))
        self.grammar, self.rate, self.shape = grammar, rate, mask.shape
        self.candidates = 0  # of all rings so far
        self.table = _Table(mask, box, grammar.steps, fine)
        self.coarse = _Table(mask, box, grammar.steps, stride) if stride > fine else self.table

    def tokens(self, steps: np.ndarray) -> np.ndarray:
        return self.rate * self.grammar.vertex_tokens(steps)

    def cost(self, steps: np.ndarray) -> float:
        """Wrong pixels that a ring adds (below zero: it takes some away) and its tokens."""
        points = self.table.from_steps(steps)
        wrong = self.table.price(points, _next(points))[0].sum()
        return float(wrong + self.tokens(steps).sum() + self.rate * self.grammar.ring_tokens)

    def fit(self, ring: np.ndarray) -> np.ndarray | None:
        """Steps ``(N, 2)`` for one true ring, or None where the grid cannot hold it."""
        outline = _Outline(ring)
        most = MAX_CANDIDATES if self.candidates < MAX_CANDIDATES_A_MASK else FEW_CANDIDATES
        places, index = outline.candidates(self.grammar, self.shape, most)
        self.candidates += len(places)
        if len(places) < 3:
            return None
        fine = coarse = outline.prices(self.table)
        if self.coarse is not self.table:
            coarse = outline.prices(self.coarse)
        steps, at, start, settled = places, index, 0, False
        known = np.full((len(places), ) * 2, np.inf)
        for last in range(ROUNDS):
            before, before_at = steps, at
            if last:
                # The moved vertices join the candidates, in their order along the outline.
                order = np.argsort(np.concatenate([index, at]), kind='stable')
                start = int(np.flatnonzero(order == len(places) + len(steps) // 2)[0])
                at = np.concatenate([index, at])[order]
                steps = np.concatenate([places, steps])[order]
                wider = np.full((len(order), ) * 2, np.inf)
                wider[:len(places), :len(places)] = known
                known = wider[order[:, None], order]
            if len(steps) > 3:
                tied = _tie(self.coarse, outline, coarse, at)
                chosen = _cheapest_ring(self.coarse, tied, steps, self.tokens(steps), start,
                                        known)
                steps, at = steps[chosen], at[chosen]
            if len(steps) < 3:
                return None
            if settled and np.array_equal(at, before_at) and np.array_equal(steps, before):
                break  # nothing would move
            tied = _tie(self.table, outline, fine, at)
            single, settled = _move_singly(self.table, tied, steps, self.grammar, self.rate)
            steps = _move_jointly(self.table, tied, single, self.grammar, self.rate)
            settled = settled and np.array_equal(steps, single)
        return _tidy(steps)


def _tidy(steps: np.ndarray) -> np.ndarray | None:
    """Without repeated vertices and from the canonical start; None when nothing is enclosed."""
    steps = steps[_is_new(steps)]
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


def thin_rings(mask, grammar: Grammar, epsilon: float) -> list[np.ndarray]:
    """Plain Douglas-Peucker on the outlines of parts and holes, for comparison.

    ``epsilon`` is the tolerance as a share of the length of each ring. Returns rings as
    ``fit_rings`` does, of the ``grammar.most_rings`` largest; those that the grid cannot hold are
    left out.
    """
    mask = check_mask(mask)
    box = crop_of(mask)
    if box is None:
        return []
    kept: list[np.ndarray] = []
    outer_kept = False
    x0, y0, x1, y1 = box
    for ring in trace_crop(mask[y0:y1, x0:x1], (x0, y0), 'edges', True, grammar.most_rings):
        outer = signed_area(ring) < 0
        if not outer and not outer_kept:
            continue
        twice = _Outline(ring).twice_middles()
        points = simplify_dp(twice, epsilon * arc_length(twice), grammar.most_vertices) / 2
        steps = _tidy(grammar.to_steps(points, mask.shape))
        outer_kept = outer_kept if not outer else steps is not None
        if steps is not None:
            kept.append(steps)
    if not kept:
        return [_smallest_box(box, grammar, mask.shape)]
    return kept


@lru_cache(maxsize=None)
def rate_of(tokens: float, grammar: Grammar) -> float:
    """The ``rate`` of ``fit_rings`` that gives about so many tokens a mask, mean over COCO.

    Read off a table made with int1000 (see docs/polygon.md); for another grammar, tokens are
    counted in vertices first. Budgets beyond the table give its ends.
    """
    vertex = grammar.mean_vertex_tokens / Grammar.from_name('int1000').mean_vertex_tokens
    known, rates = np.log(RATE_OF_TOKENS).T
    return float(np.exp(np.interp(np.log(HEADROOM * tokens / vertex), known, rates))) / vertex


def fit_rings(mask, grammar: Grammar, rate: float) -> list[np.ndarray]:
    """Polygons of a mask that balance IoU against tokens.

    The work is bounded: of the rings, the ``grammar.most_rings`` of the largest area are looked
    at, candidates are at most some 160 a ring and some 20,000 a mask, and where the outlines have
    more than ``MAX_WORK`` rows together, only every other one (third one, ...) is counted.

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
    least = rate * (3 * grammar.least_vertex_tokens + grammar.ring_tokens)
    x0, y0, x1, y1 = box
    rings = trace_crop(mask[y0:y1, x0:x1], (x0, y0), 'edges', True, grammar.most_rings)
    areas = [signed_area(ring) for ring in rings]
    work = sum(_height(ring) for ring, area in zip(rings, areas) if abs(area) > least)
    fitter = _Fitter(mask, box, grammar, rate, 1 + work // MAX_WORK)
    parts: list[tuple[float, list[np.ndarray]]] = []
    group: tuple[float, list[np.ndarray]] | None = None
    tries = MAX_TRIES
    for ring, area in zip(rings, areas):
        outer = area < 0
        if outer:
            group = None
        elif group is None:
            continue
        # No ring can earn more than its area; the first part is written in any case.
        worthy = abs(area) > least
        if not worthy and outer and not parts:
            worthy, tries = tries > 0, tries - 1
        steps = fitter.fit(ring) if worthy else None
        if steps is None:
            continue
        cost = fitter.cost(steps) if len(rings) > 1 else 0.0  # the only one is written anyway
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


def _height(ring: np.ndarray) -> int:
    """Rows that the edges of a ring cross, summed over all edges."""
    return int(np.abs(np.diff(ring[:, 1], append=ring[:1, 1])).sum())
