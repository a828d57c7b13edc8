"""The base of all datasets of queries: one (image, query) a sample."""
import copy
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from simpleseg_mm.files import ImageError, is_blank, one_line, shown
from simpleseg_mm.files.coco import read_segmentation
from simpleseg_mm.polygon import Task, mask_to_box, segmentation_to_mask
from simpleseg_mm.registry import DATASETS, TRANSFORMS

from . import native
from .pictures import NamedPictures, names_to_leave_out
from .transforms import META_KEYS, LoadImage

#: why a query about a crowd is not asked, where objects are asked for one by one
UNTOLD_CROWD = 'crowd among the objects, which are not told apart'
REMEDY = (". Mend the files (refcoco.py verify lists all faults of RefCOCO's), or set "
          "bad_samples='skip'")
#: what a record can raise that is not as its reader expects
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError,
              RecursionError)


class RawRecord(NamedTuple):
    """What a set's files hold about one sample or several, as it was found.

    Attributes:
        where: Names file and place ('FILE, line 3'); what is said of a fault begins with it.
        content: Whatever ``parse_data_info`` of the set reads.
        samples: How many samples are counted where it cannot be used.
    """
    where: str
    content: Any
    samples: int = 1


class BadSample(ValueError):
    """What a dataset leaves out, or refuses with ``bad_samples='error'``.

    Args:
        message: What is wrong; None where nothing is.
        reason: How ``skipped`` counts it.
        by_rule: Left out in any case: it asks nothing, and the files are right.
        error: Type of the error where it is refused.
    """

    def __init__(self, message: str | None, reason: str = 'bad record', by_rule: bool = False,
                 error: type[Exception] = ValueError) -> None:
        super().__init__(message)
        self.message, self.reason = message, reason
        self.by_rule = by_rule or message is None
        self.error = error


class Siblings:
    """The other queries of a sample's image, each read when asked for."""

    def __init__(self, dataset: 'QueryDataset', indices: np.ndarray) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> dict:
        return self._dataset.get_data_info(int(self._indices[number]))


class QueryDataset(BaseDataset):
    """Queries about images, one a sample; the sets differ in how their records are read.

    A set says what its files hold in :meth:`read_records`, and what samples one record of them is
    in :meth:`parse_data_info`; ``docs/own_dataset.md`` has a whole one. All else stands here.

    A sample's random choices come from ``(seed, img_id, visit)``, where an index beyond the end
    means a later visit: ``index = sample + visit * len(dataset)``.

    Args:
        data_root: Folder of the set.
        query: Config of the transform that writes prompt and answer, see ``FormatQuery``.
        pipeline: Transforms before the query; ``PackQuery`` comes after it.
        meta_keys: Keys that samples carry beside ``PackQuery``'s own, such as a column of the set
            that a reward reads. Each sample must have them.
        bad_samples: What to do with samples that cannot be used: 'error', or 'skip', which counts
            and reports them.
        skip_images: Images to leave out (counted), or a text file with one a line: their
            name as the set writes it, or their path with or without the image folder.
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
    #: whether its objects have names, and it asks for all of a picture and nothing else
    of_pictures = False
    #: the names that these can have, by label; known once it is loaded
    classes: tuple[str, ...] = ()
    #: how the set is known where its config does not name it
    set_name: str | None = None
    #: (width, height) of a picture in pixels to plan with, and how that is known
    typical_picture: tuple[tuple[int, int], str] | None = None

    def __init__(self,
                 data_root: str,
                 query: dict | None = None,
                 pipeline: Sequence[dict] = (dict(type='LoadImage'), dict(type='LoadTargetMask')),
                 meta_keys: Sequence[str] = (),
                 bad_samples: str = 'error',
                 skip_images: Sequence[str] | str = (),
                 seed: int = 0,
                 test_mode: bool = False,
                 indices: int | Sequence[int] | None = None,
                 **kwargs) -> None:
        if bad_samples not in ('error', 'skip'):
            raise ValueError(f"bad_samples must be 'error' or 'skip', got {bad_samples!r}")
        if isinstance(meta_keys, str):
            raise ValueError(f'meta_keys must be a list of keys, got {meta_keys!r}')
        self.bad_samples = bad_samples
        self.skip_images = names_to_leave_out(skip_images)
        self.seed = int(seed)
        self.read = 0
        self.skipped: Counter[str] = Counter()
        tasks = asked_tasks(query)
        #: whether a task asks for objects one by one; a crowd is none then
        self.one_by_one = any(task.many for task in tasks)
        self._check_named([task for task in tasks if task.named != self.of_pictures])
        query = dict(type='FormatQuery') | dict(query or {})
        pack = dict(type='PackQuery', meta_keys=META_KEYS, required_keys=tuple(meta_keys))
        self._needs_siblings = query.get('turns', 1) > 1 and not test_mode
        transforms = [step if callable(step) else TRANSFORMS.build(copy.deepcopy(dict(step)))
                      for step in (*pipeline, query, pack)]
        super().__init__(ann_file='', data_root=str(data_root), test_mode=test_mode,
                         pipeline=transforms, indices=indices, **kwargs)

    def _check_named(self, others: Sequence[Task]) -> None:
        """Refuse tasks that are about all objects of a picture where the set is not, and the
        reverse."""
        names = [task.name for task in others]
        if names and self.of_pictures:
            raise ValueError(f"targets='picture' with the tasks {names}: a sample is about all "
                             'objects of a picture; take query=dict(tasks=dict(image2objects=1.0))'
                             ', and a set of its own for other tasks')
        if names:
            raise ValueError(f'{type(self).__name__} with the tasks {names}: its samples are not '
                             'about all objects of a picture; take CocoQueryDataset or '
                             "RefShapesDataset with targets='picture'")

    # What a set says of itself

    def read_records(self) -> Iterable[RawRecord]:
        """What the set's files hold, in a fixed order.

        Raises:
            FileNotFoundError, ValueError: A file is missing, or broken as a whole.
        """
        raise NotImplementedError(f'{type(self).__name__} must say what its files hold')

    def parse_data_info(self, raw: RawRecord) -> dict | list[dict]:
        """The samples of one record, see :meth:`make_record`.

        Raises:
            BadSample, ValueError, KeyError and others: The record cannot be used.
        """
        raise NotImplementedError(f'{type(self).__name__} must say what its records mean')

    def read_data_info(self, stored: dict) -> dict:
        """The record of a sample, from what is held in memory: the same, unless a set holds only
        where its records are."""
        return stored

    def image_key(self, stored: dict) -> tuple:
        """What samples of one image share."""
        return stored['source'], stored['split'], stored['image_id']

    # What sets build their records with

    def make_record(self, image: str, text: str, segmentations: Sequence, folder: str = '',
                    size: tuple[int, int] | None = None, **more) -> dict:
        """The record of a query about some objects of an image.

        Args:
            image: Name of its file below ``folder``, found as
                :class:`simpleseg_mm.files.PictureFinder` does where it does not lie as written.
            text: What asks for the objects.
            segmentations: One an object, in any form that COCO allows, in pixels of the image;
                none where the text fits nothing.
            folder: Below ``data_root``.
            size: (height, width) of the image; None: as its file says.
            **more: Keys that the set knows better, or has beside these. ``ref_id`` and
                ``sent_id`` together are a query's own within ``source`` and ``split``.

        Returns:
            ``dict(img_path, image_id, ref_id, sent_id, ann_id, text, height, width, split, source,
            instances)``, where ``instances`` is a list of ``dict(bbox=[x1, y1, x2, y2] pixels,
            bbox_label=0, ignore_flag=0, mask=COCO segmentation)``.

        Raises:
            BadSample: It cannot be used.
        """
        if not isinstance(image, str) or is_blank(image):
            raise BadSample(f'an image is a file name, got {shown(image)}')
        if not isinstance(text, str):
            raise BadSample(f'what asks for an object must be a text, got {shown(text)}')
        if is_blank(text):
            raise BadSample(f'{shown(text)}: a blank sentence asks nothing', native.BLANK,
                            by_rule=True)
        if not isinstance(segmentations, list | tuple):
            raise BadSample(f'segmentations must be a list, got {shown(segmentations)}',
                            'bad annotation')
        path = self.find_picture(image, folder)
        height, width = size or self.size_of_picture(path)
        record = dict(
            img_path=str(path), image_id=image, ref_id=self.read, sent_id=0, ann_id=self.read,
            text=text, height=height, width=width, split='all',
            source=self.set_name or type(self).__name__,
            instances=[_instance(one, number, height, width)
                       for number, one in enumerate(segmentations)]) | more
        if 'ref_id' in more:
            key = tuple(record[name] for name in ('source', 'split', 'ref_id', 'sent_id'))
            self._ids.setdefault(key, []).append(self._where)
        return record

    def find_picture(self, name: str, folder: str | Path = '') -> Path:
        """Where a picture lies, by its name below ``data_root/folder``. BadSample where it is to
        be left out, is missing or is empty."""
        folder = Path(self.data_root) / folder
        self.check_left_out(name, folder)
        path, fault = self._pictures.find(folder, name)
        if fault is not None:
            raise BadSample(fault, 'image file missing or empty')
        return path

    def check_left_out(self, name: str, folder: Path) -> None:
        """BadSample for a picture that ``skip_images`` lists."""
        if self._pictures.is_left_out(folder, name):
            raise BadSample(None, 'listed in skip_images')

    def size_of_picture(self, path: str | Path) -> tuple[int, int]:
        """(height, width) in pixels, as the pipeline reads it. BadSample where it cannot be."""
        try:
            return self._pictures.size(path, self.orientation)
        except ImageError as error:
            raise BadSample(f'cannot read {path}: {error}') from None

    def image_folder(self, img_dir: str, name: str) -> Path:
        """``data_root/img_dir``. FileNotFoundError where it is not there."""
        folder = Path(self.data_root) / img_dir
        if not folder.is_dir():
            raise FileNotFoundError(native.missing_images(
                folder, f'{name}: there is no image folder {folder}'))
        return folder

    def refuse(self, fault: BadSample, where: str = '', samples: int = 1) -> None:
        """Leave samples out and count them; or raise, where ``bad_samples`` says so."""
        message = None
        if fault.message is not None:
            message = one_line(f'{where}: {fault.message}' if where else fault.message)
            if not fault.by_rule and self.bad_samples == 'error':
                raise fault.error(f'{message}{REMEDY}') from fault.__cause__
            self._examples.setdefault(fault.reason, message)
            print_log(f'skipped: {message}', logger='current', level=logging.DEBUG)
        self.read += samples
        self.skipped[fault.reason] += samples

    @property
    def metainfo(self) -> dict:
        """As MMEngine has it; of a set of pictures with the names of their objects."""
        named = dict(classes=self.classes, palette='random') if self.of_pictures else {}
        return super().metainfo | named

    @property
    def orientation(self) -> str:
        """How pictures with an orientation tag are read, see :class:`LoadImage`."""
        return next((step.orientation for step in self.pipeline.transforms
                     if isinstance(step, LoadImage)), 'stored')

    # Loading

    def load_data_list(self) -> list[dict]:
        """The samples of all records that can be used, each with its ``img_id``."""
        self.read, self.skipped = 0, Counter()
        self._examples: dict[str, str] = {}
        self._ids: dict[tuple, list[str]] = {}
        self._pictures = NamedPictures(self.skip_images)
        data_list: list[dict] = []
        for raw in self.read_records():
            if not isinstance(raw, RawRecord):
                raise ValueError(f'{type(self).__name__}.read_records must give '
                                 f'RawRecord(where, content), it gave {shown(raw)}')
            self._where = raw.where
            try:
                found = self.parse_data_info(raw)
            except BadSample as fault:
                self.refuse(fault, raw.where, raw.samples)
                continue
            except _MALFORMED as error:
                fault = BadSample(_malformed(error))
                fault.__cause__ = error
                self.refuse(fault, raw.where, raw.samples)
                continue
            found = [found] if isinstance(found, dict) else found
            if not isinstance(found, list):
                raise ValueError(f'{type(self).__name__}.parse_data_info must return a record or '
                                 f'a list of records, it returned {shown(found)}')
            self.read += len(found)
            data_list += found
        data_list = self._without_ids_used_twice(data_list)
        self._report(len(data_list))
        self._pictures, self._ids = NamedPictures(), {}
        if not data_list:
            raise ValueError(f'{type(self).__name__}: no sample is left of those in '
                             f'{self.data_root}; skipped: {dict(self.skipped)}')
        for number, info in enumerate(data_list):
            info['img_id'] = number  # unique a sample: metrics match by it
        return data_list

    def _without_ids_used_twice(self, data_list: list[dict]) -> list[dict]:
        """Of samples that share the ids that their set gave them none can be told from another."""
        twice = {key: places for key, places in self._ids.items() if len(places) > 1}
        if not twice:
            return data_list
        kept = []
        for info in data_list:
            key = tuple(info[name] for name in ('source', 'split', 'ref_id', 'sent_id'))
            if key in twice:
                self.read -= 1  # counted once already
                self.refuse(BadSample(
                    f'{twice[key][0]} and {twice[key][1]}: both have ref_id {shown(key[2])} and '
                    f'sent_id {shown(key[3])}; every query needs its own', 'id used twice'))
            else:
                kept.append(info)
        return kept

    def _report(self, samples: int) -> None:
        """Log what was read, left out and guessed."""
        name = type(self).__name__
        if self.skipped:
            print_log(f'{name}: of {self.read} samples {samples} are used, skipped are '
                      f'{dict(self.skipped)}', logger='current', level=logging.WARNING)
        for reason, message in self._examples.items():
            print_log(f'{name}: {reason}, the first: {message}', logger='current',
                      level=logging.WARNING)
        self._pictures.report(name)

    # Samples

    def full_init(self) -> None:
        """Load everything; see :class:`mmengine.dataset.BaseDataset`."""
        if not hasattr(self, '_groups'):
            super().full_init()
            self._group_by_image()

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep only these samples."""
        super().get_subset_(indices)
        self._group_by_image()

    def get_subset(self, indices: int | Sequence[int]) -> 'QueryDataset':
        """A copy with only these samples."""
        subset = super().get_subset(indices)
        subset._group_by_image()
        return subset

    def get_data_info(self, idx: int) -> dict:
        """The record of a sample."""
        return self.read_data_info(super().get_data_info(idx))

    def __getitem__(self, index: int) -> dict:
        """The packed sample. Nothing is ever resampled: what cannot be read is an error."""
        self.full_init()
        return self.prepare_data(index)

    def __iter__(self) -> Iterator[dict]:
        """The samples of the first visit; an index alone may lie beyond."""
        return map(self.__getitem__, range(len(self)))

    def prepare_data(self, index: int) -> dict:
        """Run the pipeline on sample ``index % len``, at visit ``index // len``."""
        visit, number = divmod(int(index), len(self))
        if visit < 0:
            raise IndexError(f'index {index} is out of range')
        info = self.get_data_info(number)
        info['test_mode'] = self.test_mode
        if self.of_pictures:
            info['classes'] = self.classes
        info['rng'] = np.random.default_rng([self.seed, info['img_id'], visit])
        if self._needs_siblings:
            first, last = self._groups[number]
            members = self._members[first:last]
            info['siblings'] = Siblings(self, members[members != number])
        return self.pipeline(info)

    def _group_by_image(self) -> None:
        """Index the samples by image, where further turns need it."""
        if not self._needs_siblings:
            return
        groups: dict[tuple, list[int]] = {}
        for number in range(len(self)):
            key = self.image_key(super().get_data_info(number))
            groups.setdefault(key, []).append(number)
        self._members = np.array([n for members in groups.values() for n in members], np.int64)
        self._groups = np.zeros((len(self), 2), np.int64)
        start = 0
        for members in groups.values():
            self._groups[members] = start, start + len(members)
            start += len(members)


def asked_tasks(query: Mapping | None) -> list[Task]:
    """The tasks of a dataset's ``query`` that are drawn at all; text2mask unless told."""
    tasks = (query or {}).get('tasks') or {'text2mask': 1}
    if not isinstance(tasks, Mapping):
        return []  # which FormatQuery refuses
    return [task for name, weight in tasks.items()
            if weight and (task := Task.find(name)) is not None]


def set_instances(record: dict, instances: Sequence[dict]) -> dict:
    """A record with its ``instances``; those to ignore (``ignore_flag=1``: crowds) stand apart.

    They are no targets: answers, masks and boxes are made without them. Evaluation passes over
    their pixels (``ignored``), and the packed sample lists them behind the others.
    """
    record['instances'] = [one for one in instances if not one['ignore_flag']]
    if to_ignore := [one for one in instances if one['ignore_flag']]:
        record.update(ignored=[one['mask'] for one in to_ignore], ignored_instances=to_ignore)
    return record


def registered_dataset(kind: str | type | None) -> type | None:
    """The class that a config's ``type`` means, if it is one of this registry; nothing that it
    names is imported."""
    return kind if isinstance(kind, type) else \
        DATASETS.module_dict.get(str(kind).rpartition('.')[2])


def _malformed(error: Exception) -> str:
    """What is said of a record that its reader did not expect."""
    if isinstance(error, KeyError):
        return f'it has no {shown(error.args[0]) if error.args else "such key"}'
    if isinstance(error, ValueError | OSError):
        return str(error)
    return f'it is not as expected ({type(error).__name__}: {error})'


def _instance(segmentation, number: int, height: int, width: int) -> dict:
    """A target in MMDetection's form. BadSample where it is broken, or has no pixel."""
    segmentation, fault = read_segmentation(segmentation)
    if fault is None:
        fault = native.segmentation_fault(segmentation, height, width)
    if fault is None:
        segmentation = native.plain_segmentation(segmentation)
        try:
            mask = segmentation_to_mask(segmentation, height, width)
            fault = None if mask.any() else 'the mask is empty'
        except ValueError as error:
            fault = str(error)
    if fault is not None:
        raise BadSample(f'object {number}: {fault}', 'bad annotation')
    return dict(bbox=mask_to_box(mask).tolist(), bbox_label=0, ignore_flag=0, mask=segmentation)
