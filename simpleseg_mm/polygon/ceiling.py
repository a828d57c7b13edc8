"""What the text itself costs: ground truth -> text -> mask over a COCO file, no model involved."""
import json
import sys
import time
from pathlib import Path

import numpy as np

from .contour import mask_to_rings, signed_area
from .grammar import count_tokens
from .raster import mask_iou, segmentation_to_mask


def load_masks(path, min_area, limit=None):
    """Yield (annotation, mask) of the non-crowd objects; faults are reported and counted."""
    data = json.loads(Path(path).read_text())
    images = {image['id']: image for image in data['images']}
    taken = skipped = 0
    for ann in data['annotations']:
        if ann.get('iscrowd'):
            continue
        image = images[ann['image_id']]
        try:
            mask = segmentation_to_mask(ann['segmentation'], image['height'], image['width'])
        except ValueError as error:
            skipped += 1
            print(f'{path}: annotation {ann["id"]}: {error}', file=sys.stderr)
            continue
        if mask.sum() < min_area:
            continue
        yield ann, mask
        taken += 1
        if taken == limit:
            break
    if skipped:
        print(f'{skipped} annotations could not be read', file=sys.stderr)


def measure(codec, items):
    """One row an object: IoU, tokens, vertices, encode ms, decode ms, area, parts, holes."""
    rows = []
    for _, mask in items:
        start = time.process_time()
        text = codec.encode(mask)
        middle = time.process_time()
        decoded = codec.decode(text, mask.shape)
        end = time.process_time()
        areas = [signed_area(ring) for ring in mask_to_rings(mask, 'edges')]
        rows.append((mask_iou(decoded.mask, mask), count_tokens(text),
                     sum(map(len, decoded.rings)), 1e3 * (middle - start), 1e3 * (end - middle),
                     mask.sum(), sum(area < 0 for area in areas),
                     sum(area > 0 for area in areas)))
    return np.array(rows, np.float64).reshape(-1, 8).T


def summarise(rows) -> dict:
    """The figures of ``measure`` as plain numbers; a group without objects is null."""
    iou, tokens, vertices, encode, decode, area, parts, holes = rows

    def mean(values):
        return round(float(values.mean()), 5) if len(values) else None

    return dict(
        objects=len(iou), mean_iou=mean(iou), mean_tokens=mean(tokens),
        holes_iou=mean(iou[holes > 0]),
        holes=int((holes > 0).sum()), multipart_iou=mean(iou[parts > 1]),
        multipart=int((parts > 1).sum()), small_iou=mean(iou[area < 32**2]),
        medium_iou=mean(iou[(area >= 32**2) & (area < 96**2)]), large_iou=mean(iou[area >= 96**2]),
        mean_vertices=mean(vertices), p95_tokens=round(float(np.percentile(tokens, 95)), 1),
        min_iou=round(float(iou.min()), 5), ms_per_mask=mean(encode),
        ms_per_mask_median=round(float(np.median(encode)), 3),
        ms_per_mask_p95=round(float(np.percentile(encode, 95)), 3), decode_ms=mean(decode))
