"""Native files that a dataset reads while it loads: each once, whatever is wrong with it told."""
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from mmengine.logging import print_log

from simpleseg_mm.files import one_line
from simpleseg_mm.files.coco import IMAGE_SIZE, CocoAnnotation, CocoImage

from . import native
from .base import REMEDY, BadSample
from .mirrors import Mirror, ReferenceSet, find_mirror, has_parquet

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
        self._mirrors: dict[tuple, Mirror | None] = {}
        self._mask_faults: dict[tuple[Path, int], str | None] = {}

    def mirror(self, data_root: str | Path, source: Mapping) -> Mirror | None:
        """The parquet files of a set, ``source`` being ``dict(name, split_by, parquet, columns)``
        of which the last two may lack; None where its native files are read. See
        :func:`mirrors.find_mirror` for errors."""
        name, split_by, parquet = source['name'], source['split_by'], source.get('parquet')
        columns = source.get('columns')
        key = str(data_root), name, split_by, parquet, repr(columns)
        if key not in self._mirrors:
            folder = find_mirror(data_root, name, split_by, parquet)
            self._mirrors[key] = None
            if folder is not None:
                self._mirrors[key] = Mirror(folder, name, split_by, columns)
                print_log(f'{name} {split_by}: {folder} is read as {self._mirrors[key].kind}, '
                          f'files of {self._mirrors[key].splits}', logger='current')
            elif has_parquet(Path(data_root) / name):
                print_log(f'{name} {split_by}: {Path(data_root) / name} holds native files and '
                          f"parquet; the native ones are read. parquet='{name}' in the source "
                          'reads the others', logger='current', level=logging.WARNING)
        return self._mirrors[key]

    def set_of(self, data_root: str | Path, source: Mapping, split: str | None) -> ReferenceSet:
        """References of a split, or of all where ``split`` is None, in native files or parquet.
        A native file is read as a whole; its ``instances`` are empty until
        :meth:`objects_of` reads them."""
        mirror = self.mirror(data_root, source)
        if mirror is not None:
            return mirror.load(split)
        path = native.find_refs(data_root, source['name'], source['split_by'])
        return ReferenceSet(path, *self.refs(path))

    def objects_of(self, data_root: str | Path, source: Mapping,
                   refs: ReferenceSet) -> native.Instances:
        """What the references of a set name."""
        if refs.instances is None:
            return self.instances(Path(data_root) / source['name'] / 'instances.json')
        if 'masks' in refs.lacks:
            raise ValueError(f'{refs.path} has no masks, only boxes: its objects cannot be asked '
                             'for. Take a mirror of docs/data.md that has them')
        self._check_whole(refs.path, refs.instances)
        return refs.instances

    def refs(self, path: Path) -> tuple[list[dict], list[native.BadRecord]]:
        """See :func:`native.read_refs`."""
        if path not in self._refs:
            self._refs[path] = native.read_refs(path)
        return self._refs[path]

    def instances(self, path: Path, categories: bool = False) -> native.Instances:
        """See :func:`native.load_instances`."""
        if path not in self._instances:
            file = native.load_instances(path, categories)
            self._check_whole(path, file)
            self._instances[path] = file
        return self._instances[path]

    def _check_whole(self, path: Path, file: native.Instances) -> None:
        """Say, or refuse, what is wrong with a file as a whole."""
        faults = [fault for fault in file.faults if fault.kind in native.FILE_FAULTS]
        if faults and self.strict:
            raise ValueError(f'{one_line(str(faults[0]))}{REMEDY}')
        if faults:
            print_log(f'{path}: {dict(Counter(fault.kind for fault in faults))}; the first: '
                      f'{one_line(str(faults[0]))}', logger='current', level=logging.WARNING)

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


def measure_image(image: CocoImage, file: native.Instances,
                  size: Callable[[], tuple[int, int]]) -> None:
    """Take the size of an image from its picture, (height, width), where its set's records need
    not say it and do not."""
    if file.pictures is None or image.height is not None or any(
            image.record.get(side) is not None for side in ('height', 'width')):
        return
    image.height, image.width = size()
    image.faults = tuple(fault for fault in image.faults if fault.kind != IMAGE_SIZE)


def check_image(image: CocoImage, file: native.Instances) -> None:
    """BadSample for an image record that cannot be used."""
    fault = file.image_fault(image)
    if fault is not None:
        raise BadSample(fault, 'bad image record')
