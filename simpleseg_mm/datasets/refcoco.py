"""Referring datasets in RefCOCO's native files: one (image, sentence) a sample."""
import copy
import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from simpleseg_mm.files import PictureFinder, one_line, read_lines
from simpleseg_mm.files.coco import CocoAnnotation, CocoImage
from simpleseg_mm.registry import DATASETS, TRANSFORMS

from . import native
from .transforms import LoadImage

_PERHAPS_EMPTY = 16  # annotated area in pixels below which a mask is decoded to see if it is empty
_REMEDY = (". Mend the files (refcoco.py verify lists all faults of RefCOCO's), or set "
           "bad_samples='skip'")


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
    ``instances.json``; ``data_root/<img_dir>/`` the images. Images are found by ``image_id``, and
    their files as :class:`simpleseg_mm.files.PictureFinder` does where they do not lie as written.

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
        bad_samples: What to do with samples that cannot be used: 'error', or 'skip', which counts
            and reports them. 'skip' decodes each mask once when loading; with 'error' only those
            that are annotated as tiny, and what decoding alone can tell is an error when the
            sample is read. Broken pictures are an error when read; ``refcoco.py verify`` finds
            all of this beforehand.
        skip_images: Images to leave out (counted), or a text file with one a line: their
            ``file_name``, or their path with or without ``img_dir``.
        seed: Seed of the random choices.
        test_mode: Evaluation: first templates, no random choices but the task's.
        indices: Only the first n samples, or these.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Attributes:
        read: How many samples the files hold in the splits that were asked for.
        skipped: How many of them were left out, by reason; the rest are the dataset's. A blank
            sentence, which asks nothing, is always left out.

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
        self.read = 0
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
        self.read, self.skipped = 0, Counter()
        self._examples: dict[str, str] = {}
        self._files: dict = {}  # what was read already, while loading
        self._places: dict[tuple[str, str], tuple[Path, str | None]] = {}
        self._finders: dict[Path, PictureFinder] = {}
        self._mask_faults: dict = {}
        self._listed: set[str] = set()
        evaluated = self._eval_images()
        self._train_images: dict[str, set] = {}
        data_list: list[dict] = []
        for source in self.sources:
            for split in source['splits']:
                data_list += self._load_split(source, split, evaluated)
        self._report(len(data_list))
        self._report_leakage(evaluated)
        self._files, self._places, self._mask_faults = {}, {}, {}
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
        if isinstance(skip_images, str | os.PathLike):
            if not os.path.isfile(skip_images):
                raise FileNotFoundError(f'skip_images: there is no list {skip_images}; refcoco.py '
                                        'verify --bad-images writes one, and several names are '
                                        'given as a list')
            skip_images = read_lines(skip_images)
        return frozenset(map(_plain_name, skip_images))

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
            refs, bad = self._refs(native.find_refs(self.data_root, name, split_by))
            fault = next((record.message for record in bad if not record.by_rule), None)
            if fault and self.bad_samples == 'error':
                raise ValueError(fault)
            found.setdefault(native.image_family(name), set()).update(native.eval_image_ids(refs))
        print_log(f'exclude_eval_images: eval splits of {sets} hold '
                  f'{ {family: len(ids) for family, ids in found.items()} } images',
                  logger='current')
        return found

    def _load_split(self, source: dict, split: str, evaluated: dict[str, set]) -> list[dict]:
        name, split_by = source['name'], source['split_by']
        refs_path = native.find_refs(self.data_root, name, split_by)
        all_refs, bad = self._refs(refs_path)
        for record in bad:
            of_split = record.split == split or (record.split is None
                                                 and split == source['splits'][0])
            if record.by_rule and of_split:
                self._leave_out(record.reason, record.samples, record.message)
            elif not record.by_rule and (of_split or self.bad_samples == 'error'):
                self._bad(record.message, record.reason, record.samples)
        refs = native.select_split(all_refs, split, refs_path)
        self._report_size(name, split_by, split, refs)
        if split == native.TRAIN_SPLIT and self.exclude_eval_images:
            refs = self._without_eval_images(refs, name, f'{name} {split_by} {split}', evaluated)
        file = self._instances_of(Path(self.data_root) / name / 'instances.json')
        folder = self._folder(source)
        data_list = []
        for ref in refs:
            record, samples = f'{refs_path}, ref_id {ref["ref_id"]}', len(ref['sentences'])
            image = file.images.get(ref['image_id'])
            if image is None:
                self._bad(f'{record}: image_id {ref["image_id"]} is not in {file.path}',
                          'image not in instances.json', samples)
                continue
            found, fault = native.referred(ref, file)
            if fault is not None:
                self._bad(f'{record}: {fault}', 'bad annotation', samples)
                continue
            loaded = self._load(found, image, folder, file, f'{record}: ', samples)
            if loaded is None:
                continue
            path, instances = loaded
            self.read += samples
            for sentence in ref['sentences']:
                data_list.append(dict(
                    img_path=str(path), image_id=ref['image_id'], ref_id=ref['ref_id'],
                    sent_id=sentence['sent_id'], ann_id=ref['ann_id'], text=sentence['sent'],
                    height=image.height, width=image.width, split=split, source=name,
                    instances=instances))
        return data_list

    def _refs(self, path: Path) -> tuple[list[dict], list[native.BadRecord]]:
        """See :func:`native.read_refs`; a file is read once."""
        if path not in self._files:
            self._files[path] = native.read_refs(path)
        return self._files[path]

    def _instances_of(self, path: Path, categories: bool = False) -> native.Instances:
        """Records of a COCO file, which is read once; what is wrong with the file as a whole is an
        error, or is logged."""
        if path not in self._files:
            self._files[path] = file = native.load_instances(path, categories)
            faults = [fault for fault in file.faults if fault.kind in native.FILE_FAULTS]
            if faults and self.bad_samples == 'error':
                raise ValueError(f'{one_line(str(faults[0]))}{_REMEDY}')
            if faults:
                print_log(f'{path}: {dict(Counter(fault.kind for fault in faults))}; the first: '
                          f'{one_line(str(faults[0]))}', logger='current', level=logging.WARNING)
        return self._files[path]

    def _folder(self, source: dict) -> Path:
        folder = Path(self.data_root) / source['img_dir']
        if not folder.is_dir():
            raise FileNotFoundError(native.missing_images(
                folder, f'{source["name"]}: there is no image folder {folder}'))
        return folder

    def _load(self, found: Sequence[CocoAnnotation], image: CocoImage, folder: Path,
              file: native.Instances, record: str, samples: int
              ) -> tuple[Path, list[dict]] | None:
        """Path and instances of a query about annotations of an image; None where its ``samples``
        cannot be used or are to be passed over, which is counted (or an error, see
        ``bad_samples``). ``record`` begins what is said of a fault.
        """
        fault, reason = file.image_fault(image), 'bad image record'
        if fault is None:
            if self.skip_images and (listed := self.skip_images
                                     & names_of(image.file_name, folder)):
                self._listed |= listed
                self._leave_out('listed in skip_images', samples)
                return None
            path, fault = self._find(folder, image.file_name)
            reason = 'image file missing or empty'
        if fault is None:
            instances, fault = native.instances_of(found, image, file)
            reason = 'bad annotation'
        if fault is None:
            fault = next(filter(None, (self._mask_fault(one, instance, image, file)
                                       for one, instance in zip(found, instances))), None)
        if fault is not None:
            self._bad(f'{record}{fault}', reason, samples)
            return None
        return path, instances

    def _mask_fault(self, annotation: CocoAnnotation, instance: dict, image: CocoImage,
                    file: native.Instances) -> str | None:
        """What decoding tells, where it is to be known when loading."""
        area = annotation.area
        if self.bad_samples == 'error' and (area is None or area >= _PERHAPS_EMPTY):
            return None
        key = id(file), annotation.row
        if key not in self._mask_faults:
            fault = native.mask_fault(instance['mask'], image.height, image.width)
            self._mask_faults[key] = fault and f'{file.path}, {annotation.name}: {fault}'
        return self._mask_faults[key]

    def _find(self, folder: Path, name: str) -> tuple[Path, str | None]:
        """Where a picture lies, and what is wrong with it, or None."""
        key = str(folder), name
        if key not in self._places:
            path = folder / name
            found, fault = path, file_fault(path)
            if fault is not None and not os.path.lexists(path):
                finder = self._finders.setdefault(folder, PictureFinder([folder]))
                other, how = finder.look(name)
                if other is not None:
                    found, fault = other, file_fault(other)
                elif how != 'missing':
                    fault = f'{fault} ({how})'
            self._places[key] = found, fault
        return self._places[key]

    def _without_eval_images(self, refs: list[dict], name: str, label: str,
                             evaluated: dict[str, set]) -> list[dict]:
        """Records (with ``image_id``) whose image no eval split holds; logs what is removed."""
        family = native.image_family(name)
        train = {ref['image_id'] for ref in refs}
        kept, removed = native.split_leakage(train, evaluated.get(family, ()))
        self._train_images.setdefault(family, set()).update(train)
        remaining = [ref for ref in refs if ref['image_id'] in kept]
        for ref in refs:
            if ref['image_id'] in removed:
                self._leave_out('image of an eval split', len(ref.get('sentences', [0])))
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

    def _bad(self, message: str | None, reason: str, samples: int) -> None:
        """Leave samples out, or raise; what has no message is left out by rule."""
        if message is None:
            self._leave_out(reason, samples)
            return
        message = one_line(message)
        if self.bad_samples == 'error':
            raise ValueError(f'{message}{_REMEDY}')
        self._leave_out(reason, samples, message)

    def _leave_out(self, reason: str, samples: int = 1, example: str | None = None) -> None:
        self.read += samples
        self.skipped[reason] += samples
        if example is not None:
            self._examples.setdefault(reason, one_line(example))
            print_log(f'skipped: {one_line(example)}', logger='current', level=logging.DEBUG)

    def _report(self, samples: int) -> None:
        """Log what was read, left out and guessed."""
        name = type(self).__name__
        if self.skipped:
            print_log(f'{name}: of {self.read} samples {samples} are used, skipped are '
                      f'{dict(self.skipped)}', logger='current', level=logging.WARNING)
        for reason, message in self._examples.items():
            print_log(f'{name}: {reason}, the first: {message}', logger='current',
                      level=logging.WARNING)
        if unknown := self.skip_images - self._listed:
            print_log(f'{name}: {len(unknown)} of {len(self.skip_images)} names in skip_images '
                      f'are of no image that was asked for, such as {min(unknown)!r}',
                      logger='current', level=logging.WARNING)
        for folder, finder in self._finders.items():
            if finder.guessed:
                print_log(f'{name}: pictures below {folder} that do not lie as written: '
                          f'{dict(finder.guessed)}', logger='current', level=logging.WARNING)

    @property
    def orientation(self) -> str:
        """How pictures with an orientation tag are read, see :class:`LoadImage`."""
        return next((step.orientation for step in self.pipeline.transforms
                     if isinstance(step, LoadImage)), 'stored')

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
        found = path.stat()
    except OSError:
        return native.missing_images(path.parent, f'there is no image {path}')
    if not stat.S_ISREG(found.st_mode):
        return f'{path} is no file'
    return None if found.st_size else f'{path} is an empty file'


def _plain_name(name: str) -> str:
    """A picture's name as names are compared: by ``/``, in one normal form of Unicode."""
    return unicodedata.normalize('NFC', os.path.normpath(name.strip().replace('\\', '/')))


def names_of(name: str, folder: Path) -> set[str]:
    """The names that ``skip_images`` may list a picture by."""
    names = name, os.path.join(folder.name, name), os.path.join(folder, name)
    return {_plain_name(one) for one in (*names, os.path.abspath(names[-1]))}
