"""Images of evaluation splits, to be kept out of training."""
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mmengine.logging import print_log

from . import native
from .annotation_files import AnnotationFiles
from .mirrors import ReferenceSet


class EvalImages:
    """Images of the eval splits that training must not see, by image family.

    Args:
        wanted: ``exclude_eval_images`` of :class:`RefCOCODataset`.
        data_root: Folder of the sets.
        names: Of the sets that are trained on.
        files: Reads the references.
        sources: Those of them that are read from parquet files of another folder: their eval
            splits are read there too.

    Raises:
        FileNotFoundError, ValueError: The references or lists are missing or broken, or parquet
            files hold no eval split that the set has.
    """

    def __init__(self, wanted: bool | str | Sequence[dict], data_root: str, names: Sequence[str],
                 files: AnnotationFiles, sources: Sequence[dict] = ()) -> None:
        self.wanted = bool(wanted)
        self._train_images: dict[str, set] = {}
        self._found: dict[str, set] = {}
        if isinstance(wanted, str) and wanted:
            listed = native.listed_images(wanted)
            print_log(f'exclude_eval_images: {wanted} lists {len(listed)} COCO images',
                      logger='current')
            self._found = dict(coco=listed)
        elif wanted:
            places = {(one['name'], one['split_by']): one for one in sources}
            sets = list(wanted) if wanted is not True else [
                places.get(one, dict(name=one[0], split_by=one[1]))
                for one in native.eval_sources(names)]
            self._read(sets, data_root, files)

    def _read(self, sets: Sequence[dict], data_root: str, files: AnnotationFiles) -> None:
        for source in sets:
            name = source['name']
            for part in _eval_parts(source, data_root, files):
                fault = next((record.message for record in part.bad if not record.by_rule), None)
                if fault and files.strict:
                    raise ValueError(fault)
                found = native.eval_image_ids(part.refs)
                _check_comparable(found, name, part.path)
                self._found.setdefault(native.image_family(name), set()).update(found)
        print_log(f'exclude_eval_images: eval splits of '
                  f'{[(one["name"], one["split_by"]) for one in sets]} hold '
                  f'{ {family: len(ids) for family, ids in self._found.items()} } images',
                  logger='current')

    def part(self, records: list[dict], name: str, split: str,
             label: str) -> tuple[list[dict], list[dict]]:
        """Records (with ``image_id``) of a split that training may see, and those whose image an
        eval split holds; logs what is removed. Of another split than 'train' nothing is."""
        if not self.wanted or split != native.TRAIN_SPLIT:
            return records, []
        family = native.image_family(name)
        train = {record['image_id'] for record in records}
        _check_comparable(train, name, label)
        kept, removed = native.split_leakage(train, self._found.get(family, ()))
        self._train_images.setdefault(family, set()).update(train)
        remaining = [record for record in records if record['image_id'] in kept]
        print_log(f'{label}: {len(removed)} images of eval splits removed, '
                  f'{len(records) - len(remaining)} references; {len(kept)} images, '
                  f'{len(remaining)} references remain', logger='current')
        return remaining, [record for record in records if record['image_id'] in removed]

    def report(self) -> None:
        """Log what was removed of the train images of a family's sets together."""
        for family, train in self._train_images.items():
            kept, removed = native.split_leakage(train, self._found.get(family, ()))
            print_log(f'{family}, all train sets: {len(removed)} of {len(train)} images removed, '
                      f'{len(kept)} remain', logger='current')


def _eval_parts(source: dict, data_root: str, files: AnnotationFiles) -> Iterator[ReferenceSet]:
    """The references of a set's eval splits, and perhaps others. ValueError where parquet files
    lack one of them: its images would stay in training unseen."""
    mirror = files.mirror(data_root, source)
    if mirror is None:
        yield files.set_of(data_root, source, None)
        return
    parts = [mirror.load(None)] if mirror.has_column else [
        mirror.load(split) for split in mirror.splits if split != native.TRAIN_SPLIT]
    there = {ref['split'] for part in parts for ref in part.refs}
    known = native.PUBLISHED.get((source['name'], source['split_by']), {})
    if missing := sorted(set(known) - there - {native.TRAIN_SPLIT}):
        raise ValueError(
            f'exclude_eval_images: {mirror.folder} holds no split {missing} of {source["name"]} '
            f'{source["split_by"]}, whose images would stay in training; add the files, or name a '
            'folder with lists of images instead')
    yield from parts


def _check_comparable(image_ids: Iterable, name: str, where: str | Path) -> None:
    """ValueError where photos of COCO are not told by COCO's ids."""
    unknown = next((one for one in image_ids if isinstance(one, str)), None)
    if unknown is not None and native.image_family(name) == 'coco':
        raise ValueError(f'exclude_eval_images: {where} has the image {unknown!r}, which is not '
                         "told by COCO's id, so nobody knows whether an eval split holds it; take "
                         'files with image_id or file_name')
