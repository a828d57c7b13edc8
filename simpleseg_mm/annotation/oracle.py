"""Stages that read annotations in the place of models: to convert annotated sets, and to test."""
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from simpleseg_mm.polygon import mask_to_rle, segmentation_to_mask
from simpleseg_mm.registry import STAGES

from .sample import Sample
from .stage import Stage


class _Coco(Stage):
    """Reads a COCO file; an image is found by its file name.

    Args:
        ann_file: COCO instances file.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, ann_file: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.images, self.annotations, self.categories = _load(str(ann_file))


@STAGES.register_module()
class OracleDetect(_Coco):
    """Boxes and categories of a COCO file, each with score 1. Crowds are left out."""

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            image = self.images.get(Path(sample.meta['file']).stem)
            if image is None:
                sample.drop(self.name, 'not in the annotations')
            elif (image['width'], image['height']) != (sample.width, sample.height):
                sample.drop(self.name, 'size other than annotated')
            else:
                sample.propose([dict(
                    box=[x, y, x + w, y + h], score=1.0, ann_id=annotation['id'],
                    category=self.categories[annotation['category_id']])
                    for annotation in image['annotations']
                    for x, y, w, h in [annotation['bbox']]])


@STAGES.register_module()
class OracleSegment(_Coco):
    """Masks of the annotations that ``OracleDetect`` named; polygons are filled by pycocotools."""

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            reasons: list[str | None] = []
            for found in sample.objects:
                segmentation = self.annotations[found['ann_id']]['segmentation']
                try:
                    mask = segmentation_to_mask(segmentation, sample.height, sample.width)
                    found['mask'] = mask_to_rle(mask)
                    reasons.append(None)
                except ValueError:
                    reasons.append('annotation unusable')
            sample.keep(self.name, reasons)


@lru_cache(maxsize=4)  # both stages read one file
def _load(path: str) -> tuple[dict, dict, dict]:
    from simpleseg_mm.datasets import native  # with mmdet behind it: only where it is needed
    images, annotations, categories = native.load_coco(path)
    images = {number: {**image, 'annotations': []} for number, image in images.items()}
    annotations = {number: a for number, a in annotations.items() if not a.get('iscrowd')}
    for annotation in annotations.values():
        images[annotation['image_id']]['annotations'].append(annotation)
    return ({Path(image['file_name']).stem: image for image in images.values()}, annotations,
            categories)
