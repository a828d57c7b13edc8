"""How sure an outline is, vertex by vertex: how far other outlines of the same object pass it."""
from collections.abc import Sequence

import numpy as np

#: shares of the outlines that pass within the distances
SPREAD_QUANTILES = (0.5, 0.9)
#: pairs of a vertex and an edge that are worked on at a time
_CHUNK = 1 << 16


def outline_spread(rings: Sequence[np.ndarray], outlines: Sequence[Sequence[np.ndarray]]
                   ) -> list[np.ndarray]:
    """Distances from the vertices of an outline to other outlines.

    Args:
        rings: ``(V, 2)`` each, x then y, pixels.
        outlines: N outlines, their rings each; those without one are left out.

    Returns:
        ``(V, 2) float64`` a ring, pixels: half of the outlines pass within the first number,
        90 % within the second (``SPREAD_QUANTILES``). NaN where there is no outline.
    """
    edges = [_edges(outline) for outline in outlines if len(outline)]
    found = []
    for ring in rings:
        apart = np.array([_distances(ring, *ends) for ends in edges])
        found.append(np.quantile(apart, SPREAD_QUANTILES, axis=0).T if edges else
                     np.full((len(ring), len(SPREAD_QUANTILES)), np.nan))
    return found


def _edges(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """``(E, 2)`` the ends of all edges."""
    return (np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]))


def _distances(points: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """``(V,)`` from each point to the nearest of E edges."""
    nearest = np.full(len(points), np.inf)
    along = end - begin
    length = np.maximum((along ** 2).sum(axis=1), 1e-12)
    step = max(_CHUNK // len(points), 1)
    for at in range(0, len(begin), step):
        part = slice(at, at + step)
        offset = points[:, None] - begin[part]
        share = ((offset * along[part]).sum(axis=2) / length[part]).clip(0, 1)
        apart = offset - share[..., None] * along[part]
        nearest = np.minimum(nearest, (apart ** 2).sum(axis=2).min(axis=1))
    return np.sqrt(nearest)
