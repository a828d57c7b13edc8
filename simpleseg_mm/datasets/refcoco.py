"""Referring datasets in RefCOCO's native files: one (image, sentence) a sample."""
import copy
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from simpleseg_mm.registry import DATASETS, TRANSFORMS

from . import native


class Siblings:
    """The other queries of a sample's image, each read when asked for."""

    def __init__(self, dataset: 'RefCOCODataset', indices: np.ndarray) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> dict:
        return self._dataset.get_data_info(int(self._indices[number]))


@DATASETS.register_module()
class RefCOCODataset(BaseDataset):
    """RefCOCO, RefCOCO+, RefCOCOg, RefCLEF, gRefCOCO and all sets with the same files.

    ``data_root/<name>/`` holds ``refs(<split_by>).p`` or ``.json`` (or ``refs.json``) and
    ``instances.json``; ``data_root/<img_dir>/`` the images. Images are found by ``image_id``.

    A sample's random choices come from ``(seed, img_id, visit)``, where an index beyond the end
    means a later visit: ``index = sample + visit * len(dataset)``.

    Args:
        data_root: Folder of the sets.
        sources: Sets to join: ``dict(name='refcoco', split_by='unc', split='train',
            img_dir='train2014')``. ``split`` may be a list; ``split_by`` is 'unc' unless given,
            'umd' for refcocog; ``img_dir`` is ``train2014`` ('saiapr_tc-12' for refclef).
        query: Config of the transform that writes prompt and answer, see ``FormatQuery``.
        pipeline: Transforms before the query; ``PackQuery`` comes after it.
        exclude_eval_images: Drop train samples whose image occurs in an eval split of RefCOCO
            unc, RefCOCO+ unc or RefCOCOg umd (of RefCLEF unc for RefCLEF): their reference files
            must be there. A list of ``dict(name, split_by)`` names other sets; a text names a
            folder with lists of COCO images instead, see :func:`native.listed_images`. What was
            removed of each set, and of all COCO sets together, is logged.
        bad_samples: What to do with samples that cannot be used, as far as loading can tell
            (no image file, an empty one, no annotation, a degenerate segmentation): 'error', or
            'skip', which counts and reports them. What only decoding can tell is an error when
            the sample is read; ``refcoco.py verify`` finds it beforehand.
        skip_images: Image file names to leave out (counted), or a text file with one a line.
        seed: Seed of the random choices.
        test_mode: Evaluation: first templates, no random choices but the task's.
        indices: Only the first n samples, or these.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError, ValueError: One line: what is missing or wrong, and what to do.
    """
    METAINFO = dict(classes=('object',), palette=[(220, 20, 60)])

    def __init__(self,
                 data_root: str,
                 sources: Sequence[dict],
                 query: dict | None = None,
                 pipeline: Sequence[dict] = (dict(type='LoadImage'), dict(type='LoadTargetMask')),
                 exclude_eval_images: bool | str | Sequence[dict] = False,
                 bad_samples: str = 'error',
                 skip_images: Sequence[str] | str = (),
                 seed: int = 0,
                 test_mode: bool = False,
                 indices: int | Sequence[int] | None = None,
                 **kwargs) -> None:
        if bad_samples not in ('error', 'skip'):
            raise ValueError(f"bad_samples must be 'error' or 'skip', got {bad_samples!r}")
        if not sources:
            raise ValueError('sources must name at least one set')
        self.sources = [self._parse_source(source) for source in sources]
        self.exclude_eval_images = exclude_eval_images
        self.bad_samples = bad_samples
        self.skip_images = self._read_skip_images(skip_images)
        self.seed = int(seed)
        self.skipped: Counter[str] = Counter()
        query = dict(type='FormatQuery') | dict(query or {})
        self._needs_siblings = query.get('turns', 1) > 1 and not test_mode
        transforms = [step if callable(step) else TRANSFORMS.build(copy.deepcopy(dict(step)))
                      for step in (*pipeline, query, dict(type='PackQuery'))]
        super().__init__(ann_file='', data_root=str(data_root), test_mode=test_mode,
                         pipeline=transforms, indices=indices, **kwargs)

    def full_init(self) -> None:
        """Load everything; see :class:`mmengine.dataset.BaseDataset`."""
        if not self._fully_initialized:
            super().full_init()
            self._group_by_image()

    def load_data_list(self) -> list[dict]:
        """One record a sentence.

        Returns:
            Dicts with ``img_path, img_id`` (unique a sample), ``image_id`` (native), ``ref_id,
            sent_id, ann_id, text, height, width, split, source`` and ``instances``: a list of
            ``dict(bbox=[x1, y1, x2, y2] pixels, bbox_label=0, ignore_flag=0, mask=COCO
            segmentation)``, empty where nothing is meant.
        """
        self.skipped = Counter()
        self._file_faults: dict[Path, str | None] = {}
        evaluated = self._eval_images()
        self._train_images: dict[str, set] = {}
        data_list: list[dict] = []
        for source in self.sources:
            for split in source['splits']:
                data_list += self._load_split(source, split, evaluated)
        self._report_leakage(evaluated)
        if self.skipped:
            print_log(f'{type(self).__name__}: skipped samples: {dict(self.skipped)}',
                      logger='current', level=logging.WARNING)
        if not data_list:
            raise ValueError(f'no sample is left of {self.sources} in {self.data_root}; '
                             f'skipped: {dict(self.skipped)}')
        for number, info in enumerate(data_list):
            info['img_id'] = number
        return data_list

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep only these samples."""
        super().get_subset_(indices)
        self._group_by_image()

    def get_subset(self, indices: int | Sequence[int]) -> 'RefCOCODataset':
        """A copy with only these samples."""
        subset = super().get_subset(indices)
        subset._group_by_image()
        return subset

    def __getitem__(self, index: int) -> dict:
        """The packed sample. Nothing is ever resampled: what cannot be read is an error."""
        self.full_init()
        return self.prepare_data(index)

    def prepare_data(self, index: int) -> dict:
        """Run the pipeline on sample ``index % len``, at visit ``index // len``."""
        visit, number = divmod(int(index), len(self))
        if visit < 0:
            raise IndexError(f'index {index} is out of range')
        info = self.get_data_info(number)
        info['test_mode'] = self.test_mode
        info['rng'] = np.random.default_rng([self.seed, info['img_id'], visit])
        if self._needs_siblings:
            first, last = self._groups[number]
            members = self._members[first:last]
            info['siblings'] = Siblings(self, members[members != number])
        return self.pipeline(info)

    # Loading

    @staticmethod
    def _parse_source(source: dict) -> dict:
        if unknown := set(source) - {'name', 'split_by', 'split', 'img_dir'}:
            raise ValueError(f"a source has the keys 'name', 'split_by', 'split' and 'img_dir'; "
                             f'got {sorted(unknown)} in {dict(source)}')
        if not {'name', 'split'} <= set(source):
            raise ValueError(f"a source needs 'name' and 'split', got {dict(source)}")
        name, split = source['name'], source['split']
        return dict(name=name,
                    split_by=source.get('split_by', native.DEFAULT_SPLIT_BY.get(name, 'unc')),
                    splits=[split] if isinstance(split, str) else list(split),
                    img_dir=source.get('img_dir',
                                       native.DEFAULT_IMG_DIR.get(name, 'train2014')))

    @staticmethod
    def _read_skip_images(skip_images: Sequence[str] | str) -> frozenset[str]:
        if isinstance(skip_images, str):
            skip_images = Path(skip_images).read_text().split()
        return frozenset(skip_images)

    def _eval_images(self) -> dict[str, set]:
        """Images of the eval splits to keep out of training, by image family."""
        if not self.exclude_eval_images:
            return {}
        if isinstance(self.exclude_eval_images, str):
            listed = native.listed_images(self.exclude_eval_images)
            print_log(f'exclude_eval_images: {self.exclude_eval_images} lists {len(listed)} COCO '
                      'images', logger='current')
            return dict(coco=listed)
        if self.exclude_eval_images is True:
            sets = native.eval_sources(source['name'] for source in self.sources)
        else:
            sets = [(item['name'], item['split_by']) for item in self.exclude_eval_images]
        found: dict[str, set] = {}
        for name, split_by in sets:
            refs = native.load_refs(native.find_refs(self.data_root, name, split_by))
            found.setdefault(native.image_family(name), set()).update(native.eval_image_ids(refs))
        print_log(f'exclude_eval_images: eval splits of {sets} hold '
                  f'{ {family: len(ids) for family, ids in found.items()} } images',
                  logger='current')
        return found

    def _load_split(self, source: dict, split: str, evaluated: dict[str, set]) -> list[dict]:
        name, split_by = source['name'], source['split_by']
        refs_path = native.find_refs(self.data_root, name, split_by)
        refs = native.select_split(native.load_refs(refs_path), split, refs_path)
        self._report_size(name, split_by, split, refs)
        if split == native.TRAIN_SPLIT and self.exclude_eval_images:
            refs = self._without_eval_images(refs, name, f'{name} {split_by} {split}', evaluated)
        instances_path = Path(self.data_root) / name / 'instances.json'
        images, annotations = native.load_instances(instances_path)
        folder = Path(self.data_root) / source['img_dir']
        if not folder.is_dir():
            raise FileNotFoundError(native.missing_images(
                folder, f'{name}: there is no image folder {folder}'))
        data_list = []
        for ref in refs:
            record = f'{refs_path}, ref_id {ref["ref_id"]}'
            image = images.get(ref['image_id'])
            if image is None:
                self._bad(f'{record}: image_id {ref["image_id"]} is not in {instances_path}',
                          'image not in instances.json', len(ref['sentences']))
                continue
            path = folder / image['file_name']
            instances = self._instances(ref, image, path, annotations, instances_path,
                                        f'{record}: ', len(ref['sentences']))
            if instances is None:
                continue
            for sentence in ref['sentences']:
                data_list.append(dict(
                    img_path=str(path), image_id=ref['image_id'], ref_id=ref['ref_id'],
                    sent_id=sentence['sent_id'], ann_id=ref['ann_id'], text=sentence['sent'],
                    height=image['height'], width=image['width'], split=split, source=name,
                    instances=instances))
        return data_list

    def _instances(self, ref: dict, image: dict, path: Path, annotations: dict,
                   source: Path, record: str, samples: int) -> list[dict] | None:
        """Instances of a reference whose image is at ``path``; None where its ``samples`` cannot
        be used or are to be passed over, which is counted (or an error, see ``bad_samples``).

        ``record`` begins what is said of a fault; ``source`` is the annotations' file.
        """
        if image['file_name'] in self.skip_images:
            self.skipped['listed in skip_images'] += samples
            return None
        if path not in self._file_faults:
            self._file_faults[path] = file_fault(path)
        fault, label = self._file_faults[path], 'image file missing or empty'
        if fault is None:
            instances, fault = native.reference_instances(ref, image, annotations, source)
            label = 'bad annotation'
        if fault is not None:
            self._bad(f'{record}{fault}', label, samples)
            return None
        return instances

    def _without_eval_images(self, refs: list[dict], name: str, label: str,
                             evaluated: dict[str, set]) -> list[dict]:
        """Records (with ``image_id``) whose image no eval split holds; logs what is removed."""
        family = native.image_family(name)
        train = {ref['image_id'] for ref in refs}
        kept, removed = native.split_leakage(train, evaluated.get(family, ()))
        self._train_images.setdefault(family, set()).update(train)
        remaining = [ref for ref in refs if ref['image_id'] in kept]
        print_log(f'{label}: {len(removed)} images of eval splits removed, '
                  f'{len(refs) - len(remaining)} references; {len(kept)} images, '
                  f'{len(remaining)} references remain', logger='current')
        return remaining

    def _report_leakage(self, evaluated: dict[str, set]) -> None:
        """Log what was removed of the train images of a family's sets together."""
        for family, train in self._train_images.items():
            kept, removed = native.split_leakage(train, evaluated.get(family, ()))
            print_log(f'{family}, all train sets: {len(removed)} of {len(train)} images removed, '
                      f'{len(kept)} remain', logger='current')

    def _bad(self, message: str, label: str, samples: int) -> None:
        if self.bad_samples == 'error':
            raise ValueError(f"{message}. Mend the files (refcoco.py verify lists all faults of "
                             "RefCOCO's), or set bad_samples='skip'")
        self.skipped[label] += samples
        print_log(f'skipped: {message}', logger='current', level=logging.DEBUG)

    @staticmethod
    def _report_size(name: str, split_by: str, split: str, refs: list[dict]) -> None:
        size = native.split_sizes(refs)[split]
        expected = native.PUBLISHED.get((name, split_by), {}).get(split)
        message = f'{name} {split_by} {split}: {size} references, sentences, images'
        if expected and any(e not in (None, s) for e, s in zip(expected, size)):
            print_log(f'{message}; published are {expected}', logger='current',
                      level=logging.WARNING)
        else:
            print_log(message, logger='current')

    def _group_by_image(self) -> None:
        """Index the samples by (source, split, image), where further turns need it."""
        if not self._needs_siblings:
            return
        groups: dict[tuple, list[int]] = {}
        for number in range(len(self)):
            info = self.get_data_info(number)
            groups.setdefault((info['source'], info['split'], info['image_id']),
                              []).append(number)
        self._members = np.array([n for members in groups.values() for n in members], np.int64)
        self._groups = np.zeros((len(self), 2), np.int64)
        start = 0
        for members in groups.values():
            self._groups[members] = start, start + len(members)
            start += len(members)


@DATASETS.register_module()
class RefShapesDataset(RefCOCODataset):
    """RefShapes: a generated set with RefCOCO's files.

    Args:
        data_root: Folder that ``tools/dataset_converters/generate_refshapes.py`` wrote.
        split: 'train' or 'val'.
        **kwargs: See :class:`RefCOCODataset`.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        super().__init__(data_root, [dict(name='refshapes', split=split)], **kwargs)


def file_fault(path: Path) -> str | None:
    """What is wrong with an image file as far as can be told without reading it, or None."""
    try:
        return None if path.stat().st_size else f'{path} is an empty file'
    except OSError:
        return native.missing_images(path.parent, f'there is no image {path}')
