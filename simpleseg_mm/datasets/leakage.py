"""Images of evaluation splits, to be kept out of training."""
from collections.abc import Sequence

from mmengine.logging import print_log

from . import native
from .annotation_files import AnnotationFiles


class EvalImages:
    """Images of the eval splits that training must not see, by image family.

    Args:
        wanted: ``exclude_eval_images`` of :class:`RefCOCODataset`.
        data_root: Folder of the sets.
        names: Of the sets that are trained on.
        files: Reads the references.

    Raises:
        FileNotFoundError, ValueError: The references or lists are missing or broken.
    """

    def __init__(self, wanted: bool | str | Sequence[dict], data_root: str, names: Sequence[str],
                 files: AnnotationFiles) -> None:
        self.wanted = bool(wanted)
        self._train_images: dict[str, set] = {}
        self._found: dict[str, set] = {}
        if isinstance(wanted, str) and wanted:
            listed = native.listed_images(wanted)
            print_log(f'exclude_eval_images: {wanted} lists {len(listed)} COCO images',
                      logger='current')
            self._found = dict(coco=listed)
        elif wanted:
            sets = native.eval_sources(names) if wanted is True else \
                [(item['name'], item['split_by']) for item in wanted]
            self._read(sets, data_root, files)

    def _read(self, sets: Sequence[tuple[str, str]], data_root: str,
              files: AnnotationFiles) -> None:
        for name, split_by in sets:
            refs, bad = files.refs(native.find_refs(data_root, name, split_by))
            fault = next((record.message for record in bad if not record.by_rule), None)
            if fault and files.strict:
                raise ValueError(fault)
            self._found.setdefault(native.image_family(name), set()).update(
                native.eval_image_ids(refs))
        print_log(f'exclude_eval_images: eval splits of {sets} hold '
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
