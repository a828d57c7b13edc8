"""The steps of the official preparation and decoding, written afresh from their description.

Peers of the codec's benchmarks and of no other use: whole images and one array after another, as
one writes them by hand. Sources of the steps: the paper, and the official repository's README.
"""
import json
import re

import cv2
import numpy as np
from pycocotools import mask as coco_mask

_NUMBER = r'\d+(?:\.\d+)?'
_POINT = rf'\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]'
_POLYGON = re.compile(rf'\[\s*{_POINT}(?:\s*,\s*{_POINT})*\s*\]')


def annotation_mask(segmentation, h: int, w: int) -> np.ndarray:
    """Polygons or RLE of an annotation -> (h, w) of 0 and 1: its parts, summed and clipped."""
    rles = coco_mask.frPyObjects(segmentation, h, w)
    parts = coco_mask.decode(rles if isinstance(rles, list) else [rles])
    mask = np.sum(parts, axis=2)
    mask[mask > 1] = 1
    return mask


def mask_text(mask: np.ndarray, epsilon: float) -> str:
    """(h, w) -> text: outer contours, Douglas-Peucker at ``epsilon`` x arc length, shares of the
    image rounded to three decimals, printed as Python prints lists."""
    h, w = mask.shape
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_SIMPLE)
    polygons: list[list] = []
    for contour in contours:
        tolerance = epsilon * cv2.arcLength(contour, True)
        points = cv2.approxPolyDP(contour, tolerance, True).reshape(-1, 2)
        polygons.append(np.round(points / np.array([w, h]), 3).tolist())
    return str(polygons)


def text_mask(text: str, h: int, w: int) -> np.ndarray:
    """Answer -> (h, w) uint8: every polygon found, read as JSON, filled over the whole image by
    pycocotools, and the sum of all above 0."""
    masks = []
    for found in _POLYGON.finditer(text):
        points = np.array(json.loads(found.group())) * np.array([w, h])
        parts = coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], h, w))
        masks.append(np.sum(parts, axis=2))
    return (np.sum(masks, axis=0) > 0).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two (h, w) masks of 0 and 1."""
    return float(np.logical_and(a, b).sum() / np.logical_or(a, b).sum())
