"""Rings, RLE and COCO segmentations to masks; boxes, points and IoU.

Masks are ``(H, W) bool``. Boxes are ``(4,) float64`` x1, y1, x2, y2 in image coordinates (pixel
edges): pixel (0, 0) covers the box (0, 0, 1, 1).
"""
from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from .contour import check_mask, check_reading, crop_of, signed_area
from .spans import Spans, fill, wind

# Guards pycocotools and OpenCV, which crash on or wrap around far coordinates. Our choice.
MAX_COORDINATE = 1e5

# Points of a ring's border that pycocotools may work on at a time: 16 bytes each. Our choice.
MAX_COCO_POINTS = 1 << 22

#: what a character of a compressed RLE says, less 48: five bits; of a number's last, signed
_FIVE_BITS = np.array([*range(16), *range(-16, 0), *range(32)])


def check_size(size) -> tuple[int, int]:
    """Return ``(h, w)`` as positive ints or raise ValueError."""
    try:
        h, w = (int(v) for v in size)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'size is (height, width), got {size!r}') from None
    if h < 1 or w < 1:
        raise ValueError(f'size is (height, width), both at least 1, got {size!r}')
    return h, w


def check_ring(ring) -> np.ndarray:
    """Return a ring as ``(N, 2) float64`` with finite, sane coordinates, or raise ValueError."""
    ring = np.asarray(ring, np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2:
        raise ValueError(f'a ring has shape (N, 2), got {ring.shape}')
    if not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError('a ring has a coordinate that is NaN or beyond '
                         f'{MAX_COORDINATE:g} px; drop or clip it first')
    return ring


def rings_to_mask(rings: Sequence, size, reading: str = 'centres') -> np.ndarray:
    """Fill rings. The exact inverse of ``mask_to_rings`` with the same reading.

    Args:
        rings: ``(N, 2)`` arrays, x then y, pixels. Parts outside the image are cut off.
        size: ``(h, w)``.
        reading: 'centres' rounds vertices to pixels and fills inclusively: a pixel is in the
            mask when more inclusive fills of outer rings than exclusive fills of holes cover it.
            'edges' takes the pixels whose centre has a winding number other than zero, summed
            over all rings.

    The ring of the largest area is an outer ring and says which way outer rings run; rings that
    run the other way are holes. A hole outside every outer ring is an object, filled as one.

    Raises:
        ValueError: a ring is not ``(N, 2)`` or holds NaN or absurd numbers.
    """
    check_reading(reading)
    size = check_size(size)
    rings = _checked_rings(rings)
    if not rings:
        return np.zeros(size, bool)
    return fill(rings, size) if reading == 'edges' else _fill_inclusive(rings, size)


def rings_to_spans(rings: Sequence, size) -> Spans:
    """``rings_to_mask`` in reading 'edges', as spans: for IoU, area and centroid."""
    size = check_size(size)
    rings = _checked_rings(rings)
    return wind(rings, size) if rings else Spans(np.zeros(0, np.int64), size)


def _checked_rings(rings: Sequence) -> list[np.ndarray]:
    rings = [check_ring(ring) for ring in rings]
    return [ring for ring in rings if len(ring)]


def _fill_inclusive(rings: list[np.ndarray], size) -> np.ndarray:
    """Inclusive fills of outer rings minus exclusive fills of holes, more than zero."""
    rings = [np.floor(ring + 0.5).astype(np.int32) for ring in rings]
    areas = [signed_area(ring) for ring in rings]
    outward = -1 if areas[int(np.argmax(np.abs(areas)))] <= 0 else 1
    is_hole = [area * outward < 0 for area in areas]
    mask = np.zeros(size, bool)
    points = np.concatenate(rings)
    low = points.min(axis=0).clip(0, size[::-1])
    w, h = points.max(axis=0).clip(-1, np.array(size[::-1]) - 1) + 1 - low
    if w < 1 or h < 1:
        return mask
    rings = [ring - low.astype(np.int32) for ring in rings]  # all below is inside their box
    if not any(is_hole):  # their union
        union = np.zeros((h, w), np.uint8)
        for ring in rings:
            cv2.fillPoly(union, [ring[:, None]], 1)
        mask[low[1]:low[1] + h, low[0]:low[0] + w] = union
        return mask
    kind = np.int16 if len(rings) < 2**15 else np.int32
    cover = np.zeros((h, w), kind)
    dots = np.concatenate([r for r in rings if len(r) == 1] or [np.zeros((0, 2), np.int32)])
    dots = dots[(dots >= 0).all(axis=1) & (dots[:, 0] < w) & (dots[:, 1] < h)]
    np.add.at(cover, (dots[:, 1], dots[:, 0]), 1)
    spare = np.empty(h * w, kind)  # one for all rings: new memory at each would take longer
    for ring, hole in zip(rings, is_hole):
        if len(ring) > 1 and not hole:
            _add(cover, spare, ring, 1)
    outers = cover > 0
    for ring, hole in zip(rings, is_hole):
        if hole:
            _add(cover, spare, ring, -1, outers)
    mask[low[1]:low[1] + h, low[0]:low[0] + w] = cover > 0
    return mask


def _add(cover: np.ndarray, spare: np.ndarray, ring: np.ndarray, step: int, outers=None) -> None:
    """Add the inclusive fill of an outer ring, or take off the exclusive fill of a hole."""
    h, w = cover.shape
    low, high = ring.min(axis=0), ring.max(axis=0) + 1
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]), w), min(int(high[1]), h)
    if x1 <= x0 or y1 <= y0:
        return
    crop = spare[:(y1 - y0) * (x1 - x0)].reshape(y1 - y0, x1 - x0)
    crop[:] = 0
    points = (ring - np.array([x0, y0], np.int32))[:, None]
    cv2.fillPoly(crop, [points], 1)
    if step < 0:
        if not (outers[y0:y1, x0:x1] & (crop > 0)).any():
            step = 1
        else:
            cv2.polylines(crop, [points], True, 0)
    if step < 0:
        cover[y0:y1, x0:x1] -= crop
    else:
        cover[y0:y1, x0:x1] += crop


def coco_fill(rings: Sequence, size) -> np.ndarray:
    """Union of rings filled by pycocotools, corners of pixels; orientation plays no part.

    Rings of fewer than three points are left out (pycocotools raises or crashes on them). This
    is how COCO annotations and the official SimpleSeg decoder read a polygon.
    """
    h, w = check_size(size)
    rings = [check_ring(ring) for ring in rings if len(ring) >= 3]
    long = [_coco_points(ring).sum() > MAX_COCO_POINTS for ring in rings]
    flat = [ring.ravel().tolist() for ring, is_long in zip(rings, long) if not is_long]
    mask = np.zeros((h, w), bool)
    if flat:
        union = coco_mask.merge(coco_mask.frPyObjects(flat, h, w))
        mask = _mask_of_runs(_runs(union['counts'], 'the RLE'), h, w)
    for ring, is_long in zip(rings, long):
        if is_long:
            mask |= _fill_in_fans(ring, h, w)
    return mask


def _coco_points(ring: np.ndarray) -> np.ndarray:
    """Points of a ring's border that pycocotools works on, for each edge: five a pixel."""
    return 5 * np.abs(np.roll(ring, -1, axis=0) - ring).max(axis=1) + 2


def _fill_in_fans(ring: np.ndarray, h: int, w: int) -> np.ndarray:
    """``coco_fill`` of one long ring, by pycocotools in bounded memory.

    pycocotools turns a pixel's value at each crossing of its column, and the crossings of an edge
    depend on that edge alone. So the ring is the exclusive or of polygons that share its first
    vertex: the edges from and to that vertex come twice and undo each other.
    """
    mask = np.zeros((h, w), bool)
    work = _coco_points(ring).cumsum() // MAX_COCO_POINTS
    cuts = np.flatnonzero(np.diff(work[:-1])) + 1
    cuts = sorted({1, *cuts[cuts > 1].tolist(), len(ring) - 1})
    for start, end in zip(cuts, cuts[1:]):
        fan = np.concatenate([ring[:1], ring[start:end + 1]])
        rle, = coco_mask.frPyObjects([fan.ravel().tolist()], h, w)
        mask ^= _mask_of_runs(_runs(rle['counts'], 'the RLE'), h, w)
    return mask


def segmentation_to_mask(seg, h: int, w: int) -> np.ndarray:
    """Any COCO segmentation to a mask ``(h, w) bool``, by pycocotools: ``segmentation_to_rle``."""
    return rle_to_mask(segmentation_to_rle(seg, h, w))


def segmentation_to_rle(seg, h: int, w: int) -> dict:
    """Any COCO segmentation to one RLE, by pycocotools.

    Args:
        seg: a list of polygons (flat lists x1, y1, x2, y2, ...), an RLE dict with list, str or
            bytes counts, or a list of RLE dicts (RefCLEF). Overlapping parts are united.
        h, w: size of the image, pixels.

    Returns:
        An RLE dict with ``size`` [h, w], for ``rle_to_mask`` or ``rle_to_crop``.

    Raises:
        ValueError: what pycocotools would crash on or misread without a word: an empty list,
            fewer than 3 points, an odd number of coordinates, NaN or absurd numbers, an RLE of
            another size or with wrong counts. The message names the part at fault.
    """
    h, w = check_size((h, w))
    if isinstance(seg, dict):
        return dict(size=[h, w], counts=_checked_runs(seg, h, w, 'the RLE'))
    if not isinstance(seg, (list, tuple, np.ndarray)):
        raise ValueError(f'a segmentation is a list or an RLE dict, got {type(seg).__name__}')
    if len(seg) == 0:
        raise ValueError('the segmentation is an empty list; skip the annotation')
    if all(isinstance(part, dict) for part in seg):
        rles = [_checked_rle(part, h, w, f'RLE {i}') for i, part in enumerate(seg)]
        return coco_mask.merge(rles)
    parts = []
    for i, part in enumerate(seg):
        if isinstance(part, (int, float, np.number)):
            raise ValueError('the segmentation is a flat list of numbers; wrap it in a list')
        try:
            flat = np.asarray(part, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f'polygon {i} is not a flat list of numbers') from None
        if flat.ndim != 1:
            raise ValueError(f'polygon {i} is not a flat list of numbers, '
                             f'its shape is {flat.shape}')
        if len(flat) % 2:
            raise ValueError(f'polygon {i} has an odd number of coordinates, {len(flat)}')
        if len(flat) < 6:
            raise ValueError(f'polygon {i} has {len(flat) // 2} points, at least 3 are needed')
        if not (np.abs(flat) <= MAX_COORDINATE).all():
            raise ValueError(f'polygon {i} has a coordinate that is NaN or beyond '
                             f'{MAX_COORDINATE:g}')
        parts.append(flat.tolist())
    return coco_mask.merge(coco_mask.frPyObjects(parts, h, w))


def _checked_runs(rle: dict, h: int, w: int, name: str) -> np.ndarray:
    """Run lengths ``(N,) int64`` of an RLE of the right size; they cover the image exactly."""
    size = rle.get('size', (h, w))
    try:
        size = tuple(int(v) for v in size)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'{name} has size {size!r}, expected [{h}, {w}]') from None
    if size != (h, w):
        raise ValueError(f'{name} has size {list(size)}, the image has [{h}, {w}]')
    return _whole_runs(rle, h, w, name)


def _whole_runs(rle: dict, h: int, w: int, name: str) -> np.ndarray:
    """Run lengths ``(N,) int64`` of an RLE's counts; they cover the image exactly."""
    if 'counts' not in rle:
        raise ValueError(f'{name} has no counts, only {sorted(map(str, rle))}')
    counts = rle['counts']
    if isinstance(counts, (str, bytes)):
        runs = _runs(counts, name)
        whole = not len(runs) or runs.min() >= 0
    elif isinstance(counts, (list, tuple, np.ndarray)):
        try:
            runs = np.asarray(counts, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f'{name} has counts that are not numbers') from None
        whole = (runs.ndim == 1
                 and bool((np.isfinite(runs) & (runs >= 0) & (runs % 1 == 0)).all()))
    else:
        raise ValueError(f'{name} has counts of type {type(counts).__name__}')
    if not whole:
        raise ValueError(f'{name} has a run that is no whole number of at least 0')
    if runs.sum() != h * w:
        raise ValueError(f'{name} covers {runs.sum():.0f} pixels, the image has {h * w}')
    return runs.astype(np.int64, copy=False)


def _checked_rle(rle: dict, h: int, w: int, name: str) -> dict:
    """A compressed RLE of the right size whose runs cover the image exactly."""
    runs = _checked_runs(rle, h, w, name)
    return coco_mask.frPyObjects(dict(size=[h, w], counts=runs.tolist()), h, w)


def _runs(counts, name: str) -> np.ndarray:
    """Run lengths ``(N,) int64`` of COCO's compressed RLE string (6-bit variable-length code)."""
    data = counts.encode('latin1', 'replace') if isinstance(counts, str) else counts
    codes = np.frombuffer(data, np.uint8) - np.uint8(48)
    if not len(codes):
        return codes.astype(np.int64)
    if codes.max() >= 64:
        raise ValueError(f'{name} has counts that are no compressed RLE')
    ends = np.flatnonzero(codes < 32)  # bit 6: the number goes on
    cut = codes[-1] >= 32
    if cut:
        ends = np.append(ends, len(codes) - 1)
    lengths = ends.copy()
    lengths[0] += 1
    lengths[1:] -= ends[:-1]
    if lengths.max() > 7:
        raise ValueError(f'{name} has counts that are no compressed RLE')
    if cut:
        raise ValueError(f'{name} has counts that end within a number')
    starts = ends - lengths + 1
    shifts = np.arange(len(codes))
    shifts -= starts.repeat(lengths)
    shifts *= 5
    runs = np.add.reduceat(_FIVE_BITS[codes] << shifts, starts)  # the lowest bits come first
    # From the fourth on, a number is the difference to the last but one.
    for same in (runs[1::2], runs[2::2]):
        np.add.accumulate(same, out=same)
    return runs


def mask_to_rle(mask) -> dict:
    """Compressed COCO RLE, ``dict(size=[h, w], counts=str)``, ready for JSON."""
    mask = check_mask(mask)
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    first, last = (columns[0], columns[-1] + 1) if len(columns) else (0, 0)
    flat = mask[:, first:last].T.ravel()  # of a large picture only where the object is
    borders = first * height + np.flatnonzero(np.diff(flat, prepend=False, append=False))
    counts = np.diff(borders, prepend=0, append=height * width).astype(np.uint32)
    if len(borders) and borders[-1] == height * width:
        counts = counts[:-1]
    rle = coco_mask.frPyObjects(dict(size=[height, width], counts=counts), height, width)
    return dict(size=[int(v) for v in rle['size']], counts=rle['counts'].decode('ascii'))


def rle_to_crop(rle: dict) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of an RLE's mask that its tight box holds; the rest is never built.

    Returns:
        ``(h', w') bool``, and x, y of its top left pixel in the mask; (0, 0) in size when empty.

    Raises:
        ValueError: as ``rle_to_mask``.
    """
    return _crop_of_runs(*_sized_runs(rle))


def rle_to_mask(rle: dict) -> np.ndarray:
    """Mask of an RLE with list, str or bytes counts. Raises ValueError on wrong counts."""
    return _mask_of_runs(*_sized_runs(rle))


def _sized_runs(rle: dict) -> tuple[np.ndarray, int, int]:
    """Checked runs of an RLE, and the h and w that it states."""
    if not isinstance(rle, dict) or 'size' not in rle:
        raise ValueError('an RLE is a dict with size and counts')
    h, w = check_size(rle['size'])
    return _whole_runs(rle, h, w, 'the RLE'), h, w


def _mask_of_runs(runs: np.ndarray, h: int, w: int) -> np.ndarray:
    crop, (x, y) = _crop_of_runs(runs, h, w)
    mask = np.zeros((h, w), bool)
    mask[y:y + crop.shape[0], x:x + crop.shape[1]] = crop
    return mask


def _crop_of_runs(runs: np.ndarray, h: int, w: int) -> tuple[np.ndarray, tuple[int, int]]:
    if len(runs) > 1 and not runs[1:].all():  # runs of no pixel: the next two are one
        inside = np.repeat(np.arange(len(runs)) & 1, runs)
        change = np.flatnonzero(np.diff(inside, prepend=0, append=0))
    else:
        change = np.cumsum(runs)[:len(runs) // 2 * 2]
    first, last = change[::2], change[1::2] - 1  # pixels of the runs, column by column
    if not len(first):
        return np.zeros((0, 0), bool), (0, 0)
    x0, x1 = int(first[0]) // h, int(last[-1]) // h + 1
    top, bottom = first % h, last % h
    through = (last - first != bottom - top).any()  # a run that goes on in the next column
    y0, y1 = (0, h) if through else (int(top.min()), int(bottom.max()) + 1)
    counts = np.empty(len(change) + 1, np.int64)  # of the columns x0 to x1
    counts[0], counts[-1] = change[0] - x0 * h, x1 * h - change[-1]
    np.subtract(change[1:], change[:-1], out=counts[1:-1])
    columns = np.repeat((np.arange(len(counts)) & 1).astype(np.uint8), counts)
    crop = columns.reshape(-1, h)[:, y0:y1]
    return cv2.transpose(crop).view(bool), (x0, y0)


def mask_to_box(mask) -> np.ndarray | None:
    """Tight box ``(4,) float64`` x1, y1, x2, y2, right and bottom exclusive; None when empty."""
    box = crop_of(check_mask(mask))
    return None if box is None else np.array(box, np.float64)


def mask_to_point(mask, mode: str = 'inside') -> np.ndarray | None:
    """One point of a mask, ``(2,) float64`` x, y in image coordinates; None when empty.

    Args:
        mask: ``(H, W)``.
        mode: 'inside' is the pixel farthest from the background, always in the mask: its
            ``mask[int(y), int(x)]`` is True. 'centroid' is the mean, which may lie outside.
    """
    if mode not in ('inside', 'centroid'):
        raise ValueError(f"mode is {mode!r}; choose 'inside' or 'centroid'")
    mask = check_mask(mask)
    box = crop_of(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    crop = mask[y0:y1, x0:x1]
    if mode == 'centroid':
        y, x = np.nonzero(crop)
        return np.array([x.mean() + x0 + 0.5, y.mean() + y0 + 0.5])
    far = cv2.distanceTransform(np.pad(crop, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(far.argmax()), far.shape)
    return np.array([x + x0 + 0.5, y + y0 + 0.5])


def mask_to_extreme(mask, direction: Sequence[float]) -> np.ndarray | None:
    """The mask's extreme point in a direction, ``(2,) float64`` x, y on its outer edge.

    Extreme points are those of Papadopoulos et al., Extreme clicking, ICCV 2017, in any direction.
    None for an empty mask; of several equally far pixels, the middle one in reading order.

    Args:
        mask: ``(H, W)``.
        direction: x, y, with y down: (0, -1) is the topmost point.
    """
    y, x = np.nonzero(check_mask(mask))
    if not len(x):
        return None
    way = np.asarray(direction, np.float64)
    if way.shape != (2,) or not (np.isfinite(way).all() and way.any()):
        raise ValueError(f'direction is {direction!r}; give x and y, not both 0')
    far = x * way[0] + y * way[1]
    ties = np.flatnonzero(far >= far.max() - 1e-9)
    middle = ties[len(ties) // 2]
    return np.array([x[middle], y[middle]]) + 0.5 + 0.5 * np.sign(way)


def mask_iou(a, b) -> float:
    """Intersection over union of two masks of one shape; 1.0 when both are empty."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f'masks have shapes {a.shape} and {b.shape}; resize one first')
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def box_iou(a, b) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2; 0.0 when either is empty."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != (4,) or b.shape != (4,):
        raise ValueError(f'boxes have shape (4,), got {a.shape} and {b.shape}')
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    inter = size[0] * size[1]
    areas = [max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b)]
    union = sum(areas) - inter
    return float(inter / union) if union > 0 else 0.0
