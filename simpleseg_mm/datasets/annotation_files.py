"""Native files that a dataset reads while it loads: each once, whatever is wrong with it told."""
import logging
from collections import Counter
from pathlib import Path

from mmengine.logging import print_log

from simpleseg_mm.files import one_line
from simpleseg_mm.files.coco import CocoAnnotation, CocoImage

from . import native
from .base import REMEDY, BadSample

_PERHAPS_EMPTY = 16  # annotated area in pixels below which a mask is decoded to see if it is empty


class AnnotationFiles:
    """References and COCO files of one load, each read once.

    Args:
        strict: ``bad_samples='error'``: what is wrong with a file as a whole is an error, and only
            masks that are annotated as tiny are decoded. Otherwise it is logged, and all are.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._refs: dict[Path, tuple[list[dict], list[native.BadRecord]]] = {}
        self._instances: dict[Path, native.Instances] = {}
        self._mask_faults: dict[tuple[Path, int], str | None] = {}

    def refs(self, path: Path) -> tuple[list[dict], list[native.BadRecord]]:
        """See :func:`native.read_refs`."""
        if path not in self._refs:
            self._refs[path] = native.read_refs(path)
        return self._refs[path]

    def instances(self, path: Path, categories: bool = False) -> native.Instances:
        """See :func:`native.load_instances`."""
        if path not in self._instances:
            file = native.load_instances(path, categories)
            faults = [fault for fault in file.faults if fault.kind in native.FILE_FAULTS]
            if faults and self.strict:
                raise ValueError(f'{one_line(str(faults[0]))}{REMEDY}')
            if faults:
                print_log(f'{path}: {dict(Counter(fault.kind for fault in faults))}; the first: '
                          f'{one_line(str(faults[0]))}', logger='current', level=logging.WARNING)
            self._instances[path] = file
        return self._instances[path]

    def targets(self, found: list[CocoAnnotation], image: CocoImage,
                file: native.Instances) -> list[dict]:
        """Annotations of an image as ``instances`` of a sample. BadSample where one is broken."""
        instances, fault = native.instances_of(found, image, file)
        if fault is None:
            fault = next(filter(None, (self._mask_fault(one, instance, image, file)
                                       for one, instance in zip(found, instances))), None)
        if fault is not None:
            raise BadSample(fault, 'bad annotation')
        return instances

    def _mask_fault(self, annotation: CocoAnnotation, instance: dict, image: CocoImage,
                    file: native.Instances) -> str | None:
        """What decoding tells, where it is to be known when loading."""
        area = annotation.area
        if self.strict and (area is None or area >= _PERHAPS_EMPTY):
            return None
        key = file.path, annotation.row
        if key not in self._mask_faults:
            fault = native.mask_fault(instance['mask'], image.height, image.width)
            self._mask_faults[key] = fault and f'{file.path}, {annotation.name}: {fault}'
        return self._mask_faults[key]


def check_image(image: CocoImage, file: native.Instances) -> None:
    """BadSample for an image record that cannot be used."""
    fault = file.image_fault(image)
    if fault is not None:
        raise BadSample(fault, 'bad image record')
