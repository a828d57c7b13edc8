"""Stages that read annotations in the place of models: to convert annotated sets, and to test."""
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from simpleseg_mm.files import coco, load_json
from simpleseg_mm.files.pictures import SUFFIXES, turn_upright, turned
from simpleseg_mm.polygon import mask_to_box, mask_to_rle, segmentation_to_mask
from simpleseg_mm.registry import STAGES

from .sample import Sample, clean_text
from .stage import Stage

VIEWS = ('stored', 'upright')
_REFUSED = (coco.IMAGE_TWICE, coco.ANNOTATION_TWICE, coco.CATEGORY_TWICE, coco.CATEGORIES,
            coco.CATEGORY, coco.IMAGE_FILE, coco.IMAGE_ID, coco.IMAGE_NO_RECORD)
_NO_IMAGE = (coco.ANNOTATION_NO_RECORD, coco.ANNOTATION_IMAGE, coco.UNKNOWN_IMAGE)


@dataclass
class _Image:
    """A record of an image: its size, its name in parts, its annotations."""
    record: coco.CocoImage
    folders: list[str]
    suffix: str
    annotations: list[coco.CocoAnnotation] = field(default_factory=list)


class _Coco(Stage):
    """Reads a COCO file; an image is found by its name.

    Args:
        ann_file: COCO instances file.
        **kwargs: see :class:`Stage`.

    Raises:
        ValueError: the file is none, or two of its records have one id.
    """

    def __init__(self, ann_file: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.images, self.annotations, self.categories = _load(str(ann_file))


@STAGES.register_module()
class OracleDetect(_Coco):
    """Boxes and categories of a COCO file, each with score 1.

    Crowds and records that cannot be read are dropped objects; the image is then not asked for
    their categories, since not all of them are there.

    Args:
        annotated: the view that the annotations are of where an image's EXIF orientation turns it:
            ``'stored'``, its pixels as they lie in the file, as COCO's are; or ``'upright'``, as
            viewers show it. Files do not say which; None drops such images.
        ann_file, **kwargs: see :class:`_Coco`.
    """

    def __init__(self, ann_file: str, annotated: str | None = None, **kwargs) -> None:
        if annotated not in (*VIEWS, None):
            raise ValueError(f'annotated must be one of {VIEWS} or None, got {annotated!r}')
        super().__init__(ann_file, **kwargs)
        self.annotated = annotated

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            image = self._find(sample)
            if isinstance(image, str):
                sample.drop(self.name, image)
                continue
            turn = sample.orientation if self.annotated == 'stored' else 1
            seen = sample.width, sample.height
            sizes = {turned(seen, turn)}
            if self.annotated == 'upright':  # tools write the size as stored all the same
                sizes.add(turned(seen, sample.orientation))
            if sample.orientation != 1 and self.annotated is None:
                sample.drop(self.name, 'turned by EXIF; set annotated of OracleDetect')
            elif (image.record.width, image.record.height) not in sizes:
                sample.drop(self.name, 'size other than annotated')
            else:
                self._propose(sample, image, turn)

    def _propose(self, sample: Sample, image: _Image, turn: int) -> None:
        reasons = [None] * len(sample.objects)
        for annotation in image.annotations:
            found = dict(score=1.0, ann_id=annotation.id, turn=turn,
                         category=self.categories.get(annotation.category_id, ''))
            reasons.append('crowd' if annotation.crowd else 'no category' if not found['category']
                           else 'annotation unusable' if annotation.id is None else None)
            if reasons[-1] is None and annotation.bbox is not None and turn == 1:
                x, y, w, h = annotation.bbox
                found['box'] = [x, y, x + w, y + h]
            elif reasons[-1] is None:
                try:
                    found['box'] = mask_to_box(_mask(annotation, sample, turn)).tolist()
                except ValueError:
                    reasons[-1] = 'annotation unusable'
            sample.propose([found])
        sample.keep(self.name, reasons)

    def _find(self, sample: Sample) -> _Image | str:
        """The record of an image, or why there is none.

        Names are equal as far as both tell their folders. Where no record's are, a name that is
        there once, in the file and in the input, is enough.
        """
        *folders, stem, suffix = _parts(sample.meta['file'])
        if not suffix:  # of an archive: the archive's name, then the key
            folders = folders[1:]
        there = self.images.get(stem, [])
        equal = [image for image in there if all(
            a == b for a, b in zip(reversed(image.folders), reversed(folders)))]
        if len(equal) > 1:  # the one that tells most
            most = max(len(image.folders) for image in equal)
            equal = [image for image in equal if len(image.folders) == most]
        if len(equal) > 1:
            equal = [image for image in equal if image.suffix == suffix] or equal
        if not equal and sample.alone:
            equal = there
        if len(equal) != 1:
            return 'several records of its name' if equal else 'not in the annotations'
        if not sample.alone and (len(equal[0].folders) < len(folders)
                                 or equal[0].suffix != suffix):
            return 'its record may be of another image of its name'
        return equal[0]


@STAGES.register_module()
class OracleSegment(_Coco):
    """Masks of the annotations that ``OracleDetect`` named; polygons are filled by pycocotools."""

    def process(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            reasons: list[str | None] = []
            for found in sample.objects:
                try:
                    mask = _mask(self.annotations[found['ann_id']], sample, found['turn'])
                    found['mask'] = mask_to_rle(mask)
                    reasons.append(None)
                except ValueError:
                    reasons.append('annotation unusable')
            sample.keep(self.name, reasons)


def _mask(annotation: coco.CocoAnnotation, sample: Sample, turn: int):
    """``(H, W) bool`` of the upright image. ValueError where there is none."""
    width, height = turned((sample.width, sample.height), turn)
    return turn_upright(segmentation_to_mask(annotation.segmentation, height, width), turn)


@lru_cache(maxsize=4)  # both stages read one file
def _load(path: str) -> tuple[dict[str, list[_Image]], dict, dict]:
    """Images by the name without folders and suffix, annotations and names of categories by id."""
    tables = coco.read_coco(load_json(path), path)
    if refused := [fault for fault in tables.faults if fault.kind in _REFUSED]:
        more = f', and {len(refused) - 5} more' if len(refused) > 5 else ''
        raise ValueError(f'{"; ".join(map(str, refused[:5]))}{more}. Mend the file')
    lost = Counter(fault.kind for fault in tables.faults if fault.kind in _NO_IMAGE)
    for kind, count in lost.items():
        logging.getLogger(__name__).warning('%s: %d times: %s', path, count, kind)
    images: dict = {}
    names: dict[str, list[_Image]] = {}
    for record in tables.images:
        *folders, stem, suffix = _parts(record.file_name)
        images[record.id] = image = _Image(record, folders, suffix)
        for name in {stem, stem.partition('.')[0]}:  # keys of archives end at the first dot
            names.setdefault(name, []).append(image)
    for annotation in tables.annotations:
        if annotation.image_id in images:
            images[annotation.image_id].annotations.append(annotation)
    return (names, {annotation.id: annotation for annotation in tables.annotations},
            {key: clean_text(name, 100) for key, name in tables.categories.items()})


def _parts(name: str) -> list[str]:
    """Folders, name without suffix, and suffix ('' for what is none of a picture's)."""
    name = unicodedata.normalize('NFC', name.replace('\\', '/'))
    parts = [part for part in name.split('/') if part not in ('', '.')] or ['']
    stem, suffix = os.path.splitext(parts[-1])
    if suffix.lower() not in SUFFIXES:
        stem, suffix = parts[-1], ''
    return [*parts[:-1], stem, suffix.lower()]
