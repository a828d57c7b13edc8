"""A transform that cuts the picture round its target, so that a model learns second looks."""
import logging
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import print_log

from simpleseg_mm.polygon import mask_to_rle, segmentation_to_mask
from simpleseg_mm.registry import TRANSFORMS
from simpleseg_mm.second_look import Window, cut_out

#: what counts places or names parts of the picture; a crop has others. Our choice.
FRAME_WORDS = ('first', 'second', 'third', 'fourth', 'fifth', 'last', '1st', '2nd', '3rd', '4th',
               '5th', 'middle', 'mid', 'center', 'centre', 'between', 'corner', 'edge', 'half',
               'row', 'background', 'foreground')
_SHARES = (0.25, 0.75)  # sides of a crop without a target, in shares of the picture's


@TRANSFORMS.register_module()
class CropToTarget(BaseTransform):
    """Cut the picture round the target of its query, as a second look does. For training.

    It stands behind ``LoadTargetMask``. With probability ``prob`` the picture, the masks, the
    boxes and the ignored pixels become those of a crop that holds the target whole. Each of its
    four sides lies as far from the target as ``margin`` allows, drawn by itself, so the target is
    seldom in the middle. A crop round an absent target lies anywhere: what is absent in the whole
    is absent in it.

    A query must stay true in its crop. A crop shows a part of the objects and keeps their order,
    so 'the left circle' and 'the largest circle' are still these. What counts, or names a part of
    the picture (``whole_words``), is asked of the whole picture. A word for a thing beside the
    target ('left of the square') stays although that may be outside: such a query tells less, but
    nothing wrong. Of the picture's other queries (``turns`` of ``FormatQuery``) those are asked
    whose targets lie in the crop, whole.

    ``height``, ``width`` and ``ori_shape`` become the crop's own; ``img`` is as large as the model
    gets it, and ``window`` says where the crop lies.

    Args:
        prob: Share of the samples that are cropped.
        margin: Least and greatest distance between the target's box and a side of the crop, in
            lengths of the box's longer side.
        side: Pixels to which the longer side of a smaller crop is enlarged, as in
            ``model.second_look``.
        whole_words: Words of queries that are asked of the whole picture alone.

    Attributes:
        counts: Samples so far by what became of them: 'cropped', 'whole by prob', and why others
            are whole. Logged after the first 100 samples, and at each tenfold of these.

    Raises:
        ValueError: An argument is out of its range, or the set is one for evaluation or of
            questions about pictures.
    """

    def __init__(self, prob: float = 0.5, margin: tuple[float, float] = (0.0, 1.5),
                 side: int = 448, whole_words: Sequence[str] = FRAME_WORDS) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be in 0..1, got {prob!r}')
        if len(margin) != 2 or not 0 <= margin[0] <= margin[1] <= 100:
            raise ValueError('margin must be (least, greatest) in lengths of the target, 0 to 100,'
                             f' got {margin!r}')
        if not (isinstance(side, int) and side >= 1):
            raise ValueError(f'side must be a number of pixels from 1 on, got {side!r}')
        self.prob, self.margin, self.side = prob, tuple(margin), side
        self.whole = re.compile(r'\b(%s)\b' % '|'.join(map(re.escape, whole_words)), re.I) \
            if whole_words else None
        self.counts: Counter[str] = Counter()

    def transform(self, results: dict) -> dict:
        if results['test_mode']:
            raise ValueError('CropToTarget is for training: leave it out of the pipelines of '
                             'val_dataloader and test_dataloader (model.second_look crops there)')
        if 'question' in results:
            raise ValueError('CropToTarget is for queries about objects: a question about a '
                             'picture has its answer in the whole of it')
        rng = results['rng']
        reason = self._whole(results, rng)
        if reason is None:
            window = self._draw(results, rng)
            if window == (0, 0, results['width'], results['height']):
                reason = 'the crop is the whole picture'
            else:
                results = self._cropped(results, window)
        self.counts[reason or 'cropped'] += 1
        total = self.counts.total()
        if total in (100, 1000, 10_000, 100_000, 1_000_000):
            print_log(f'CropToTarget: of {total} samples of this process '
                      + ', '.join(f'{number} {name}' for name, number in
                                  self.counts.most_common()), 'current', logging.INFO)
        return results

    def _whole(self, results: dict, rng: np.random.Generator) -> str | None:
        """Why a sample is asked of its whole picture."""
        if rng.random() >= self.prob:
            return 'whole by prob'
        if self._names_frame(results):
            return 'whole as the query counts, or names a part of the picture'
        return None

    def _names_frame(self, info: dict) -> bool:
        return self.whole is not None and self.whole.search(info['text']) is not None

    def _draw(self, results: dict, rng: np.random.Generator) -> Window:
        width, height = results['width'], results['height']
        size = np.array([width, height, width, height])
        if results['instances']:
            box = _extent(results)
            margins = rng.uniform(*self.margin, 4) * max(box[2] - box[0], box[3] - box[1])
            sides = np.array(box) + margins * (-1, -1, 1, 1)
        else:
            span = rng.uniform(*_SHARES, 2) * size[:2]
            corner = rng.uniform(0, 1, 2) * (size[:2] - span)
            sides = np.concatenate([corner, corner + span])
        low, high = np.floor(sides[:2]), np.ceil(sides[2:])
        return tuple(int(side) for side in np.clip(np.concatenate([low, high]), 0, size))

    def _cropped(self, results: dict, window: Window) -> dict:
        x1, y1, x2, y2 = window
        view = np.s_[..., y1:y2, x1:x2]
        siblings = [_moved(info, window) for info in results.get('siblings', ())
                    if not self._names_frame(info) and _lies_in(info, window)]
        results = _moved(results, window)
        if 'siblings' in results:
            results['siblings'] = siblings
        for key in ('gt_masks', 'gt_ignore'):
            if key in results:
                masks = np.ascontiguousarray(results[key].masks[view])
                results[key] = BitmapMasks(masks, y2 - y1, x2 - x1)
        image = cut_out(results['img'], window, self.side)
        return dict(results, img=image, img_shape=image.shape[:2], ori_shape=(y2 - y1, x2 - x1),
                    window=window)


def _extent(info: dict) -> tuple[int, int, int, int]:
    """The pixels x1, y1, x2, y2 round all targets: their masks and their boxes."""
    boxes = [instance['bbox'] for instance in info['instances']]
    if 'gt_masks' in info:
        ys, xs = np.nonzero(info['gt_masks'].masks.any(axis=0))
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    boxes = np.array(boxes, float)
    low, high = np.floor(boxes[:, :2].min(0)), np.ceil(boxes[:, 2:].max(0))
    return (*np.maximum(low, 0).astype(int),
            *np.minimum(high, (info['width'], info['height'])).astype(int))


def _lies_in(info: dict, window: Window) -> bool:
    """Whether all targets of a query lie in the window, whole; so do those of an absent one."""
    if not info['instances']:
        return True
    x1, y1, x2, y2 = _extent(info)
    return window[0] <= x1 and window[1] <= y1 and x2 <= window[2] and y2 <= window[3]


def _moved(info: dict, window: Window) -> dict:
    """A record in pixels of the window. What is to be ignored is cut to it."""
    size = info['height'], info['width']
    info = dict(info, height=window[3] - window[1], width=window[2] - window[0],
                instances=[_part(one, window, size) for one in info['instances']])
    if 'ignored' in info:
        parts = [_cut_mask(one, window, size) for one in info['ignored']]
        info['ignored'] = [mask_to_rle(part) for part in parts if part.any()]
    if 'ignored_instances' in info:
        parts = [_part(one, window, size) for one in info['ignored_instances']]
        info['ignored_instances'] = [part for part in parts if part['bbox'][0] < part['bbox'][2]
                                     and part['bbox'][1] < part['bbox'][3]]
    return info


def _part(instance: dict, window: Window, size: tuple[int, int]) -> dict:
    x1, y1, x2, y2 = window
    box = np.array(instance['bbox'], float) - (x1, y1, x1, y1)
    box = np.clip(box, 0, (x2 - x1, y2 - y1, x2 - x1, y2 - y1))
    return dict(instance, bbox=box.tolist(),
                mask=mask_to_rle(_cut_mask(instance['mask'], window, size)))


def _cut_mask(segmentation, window: Window, size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = window
    return np.ascontiguousarray(segmentation_to_mask(segmentation, *size)[y1:y2, x1:x2])
