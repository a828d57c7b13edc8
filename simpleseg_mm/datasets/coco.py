"""Queries about the objects of a COCO-format set: by point or box, by category, by phrase."""
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from simpleseg_mm.files import coco, is_blank, one_line, shown
from simpleseg_mm.files.coco import CocoAnnotation, CocoImage
from simpleseg_mm.polygon import quoted_name
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.templates import SUBJECTS

from . import native
from .annotation_files import AnnotationFiles, check_image
from .base import UNTOLD_CROWD, BadSample, QueryDataset, RawRecord, asked_tasks, set_instances
from .leakage import EvalImages

TARGETS = ('object', 'category', 'instances', 'phrase', 'picture')
_CROWD_ALONE = 'crowd alone, which is no object'


@DATASETS.register_module()
class CocoQueryDataset(QueryDataset):
    """Queries about the objects of any set in COCO's instance format.

    ``targets`` says what one sample is about:

    - 'object': one annotation, crowds left out: for tasks that start from a point, a box or a
      mask, as promptable segmenters are trained and evaluated;
    - 'category': all annotations of one category in an image, crowds included, named by the
      category. ``absent`` adds categories that the image does not hold, answered by ``[]``: right
      where a set is annotated throughout, as COCO is;
    - 'instances': the same, one answer an object: for the tasks text2masks, text2boxes and
      text2points. See below for crowds;
    - 'phrase': all annotations of an image that name the same phrase (``phrase``: a text or a list
      of texts). An image may list what it does not show in ``absent_phrases``;
    - 'picture': all annotations of an image, each named by its category: for the task
      image2objects. It is right where a set is annotated throughout. The set's classes are the
      file's categories, and ``bbox_label`` is an object's place among them. Images of LVIS
      (``neg_category_ids``, ``not_exhaustive_category_ids``), of which only some categories are
      annotated, are not asked about.

    Where objects are asked for one by one (by one of these tasks, whatever the targets), a crowd
    stands for an unknown number of them. Such a query is no whole truth and is not asked in
    training. In evaluation it is, with the crowd as an instance of ``ignore_flag=1`` and as
    ``gt_ignore``, so that `mmdet.CocoMetric` passes over what lies in it, as COCO does; a query of
    crowds alone is not. Categories of LVIS's ``not_exhaustive_category_ids`` are not asked for
    'category' and 'instances', and of absent ones only ``neg_category_ids`` where an image has
    them.

    Images without annotations give absent samples only.

    With ``bad_samples='skip'`` no query is asked whose truth may be incomplete: of 'category' and
    'phrase', a query is left out as a whole where one of its annotations is unusable, and all
    queries of an image where it is not known which of them an unusable annotation belongs to.
    An annotation of an image that the file does not hold belongs to no query; one that names no
    image may belong to any, and is an error.

    Args:
        data_root: Folder of the set.
        ann_file: Its annotations, below ``data_root``.
        img_dir: Folder of the images, below ``data_root``.
        targets: See above.
        absent: With 'category' and 'instances': how many absent categories an image is asked
            about, drawn from ``seed`` and the image's id.
        name: Of the set. 'coco' says that image ids are COCO's, for ``exclude_eval_images``.
        split: Of the whole file. 'train' is what ``exclude_eval_images`` thins out.
        exclude_eval_images: See :class:`RefCOCODataset`.
        query, **kwargs: See :class:`QueryDataset`.

    Raises:
        FileNotFoundError, ValueError: One line: what is missing or wrong, and what to do.
    """

    typical_picture = native.COCO_PICTURE

    def __init__(self, data_root: str, ann_file: str, img_dir: str, targets: str = 'object',
                 absent: int = 0, name: str = 'coco', split: str = 'val',
                 query: dict | None = None,
                 exclude_eval_images: bool | str | Sequence[dict] = False, **kwargs) -> None:
        if targets not in TARGETS:
            raise ValueError(f'targets must be one of {TARGETS}, got {targets!r}')
        self.by_category = targets in ('category', 'instances')
        self.of_pictures = targets == 'picture'
        if absent < 0 or (absent and not self.by_category):
            raise ValueError(f"absent={absent} with targets={targets!r}: a number of categories "
                             "from 0, and only with targets='category' or 'instances'")
        tasks = [task for task in asked_tasks(query) if task.given == 'text'
                 and not self.of_pictures]
        if tasks and targets == 'object':
            raise ValueError(f"targets='object' with the tasks {[task.name for task in tasks]}: a "
                             'category does not tell one object from another; take tasks that '
                             "start from a point, a box or a mask, or targets='category'")
        many = [task.name for task in tasks if task.many]
        if many and targets == 'category':
            raise ValueError(f"targets='category' with the tasks {many}: all of a category is one "
                             "target there, crowds included; take targets='instances'")
        self.annotations_path = Path(data_root) / ann_file
        self.img_dir, self.targets, self.absent = img_dir, targets, absent
        self.name, self.split = name, split
        self.exclude_eval_images = exclude_eval_images
        super().__init__(data_root, query=query, **kwargs)

    def read_records(self) -> Iterator[RawRecord]:
        """The queries that the file's annotations allow, image by image."""
        files = AnnotationFiles(strict=self.bad_samples == 'error')
        evaluated = EvalImages(self.exclude_eval_images, self.data_root, [self.name], files)
        path = self.annotations_path
        if not path.is_file():
            raise FileNotFoundError(f'there is no {path}; name the annotations in ann_file')
        file = files.instances(path, categories=self.targets != 'phrase')
        self._check_whole(file)
        if self.of_pictures:
            self.classes = self._classes(file)
        self.image_folder(self.img_dir, self.name)
        queries, removed = evaluated.part(list(self._queries(file)), self.name, self.split,
                                          f'{self.name} {self.split}')
        for _ in removed:
            self.refuse(BadSample(None, 'image of an eval split'))
        for number, query in enumerate(queries):
            yield RawRecord('', dict(query, number=number, file=file, files=files))
        evaluated.report()

    def parse_data_info(self, raw: RawRecord) -> dict:
        """One sample of a query; ``ann_id`` is a list, and ``ref_id`` numbers the queries."""
        query = raw.content
        if query['fault'] is not None:
            raise BadSample(*query['fault'])
        found, file = query['found'], query['file']
        image = file.images[query['image_id']]
        check_image(image, file)
        path = self.find_picture(image.file_name, self.img_dir)
        instances = query['files'].targets(found, image, file)
        for instance, one in zip(instances, found):
            if one.area is not None:
                instance['area'] = one.area
            instance['ignore_flag'] = int(one.crowd and self.one_by_one)
            if self.of_pictures:
                name = file.categories[one.category_id]
                instance.update(name=name, bbox_label=self.classes.index(name))
        record = dict(
            img_path=str(path), image_id=image.id, ref_id=query['number'], sent_id=0,
            ann_id=[one.id for one in found] or [-1], text=query['text'], height=image.height,
            width=image.width, split=self.split, source=self.name)
        return set_instances(record, instances)

    def _check_whole(self, file: native.Instances) -> None:
        """Refuse what leaves no query that is known to be whole."""
        fatal = [coco.CATEGORIES, coco.CATEGORY_TWICE]
        if self.targets != 'object':
            fatal += [coco.ANNOTATION_NO_RECORD, coco.ANNOTATION_IMAGE]
        for fault in file.faults:
            if fault.kind in fatal:
                what = '' if fault.kind in fatal[:2] else \
                    '. It may be of any image, so no query is known to be whole'
                raise ValueError(f'{one_line(str(fault))}{what}. Mend the file')

    def _queries(self, file: native.Instances) -> Iterator[dict]:
        """``dict(image_id, text, found, fault)`` of every query, image by image: the annotations
        that it is about, and ``(message, reason)`` where it cannot be asked, or None.

        What belongs to no query is one of its own, with a fault.
        """
        for fault in file.faults:
            if fault.kind in (coco.IMAGE_NO_RECORD, coco.IMAGE_ID, coco.ANNOTATION_NO_RECORD):
                yield _unasked(None, str(fault), fault.kind)
        members: dict = {image_id: [] for image_id in file.images}
        for one in file.rows:
            if one.image_id in members:
                members[one.image_id].append(one)
            else:
                kind = coco.ANNOTATION_IMAGE if one.image_id is None else coco.UNKNOWN_IMAGE
                yield _unasked(one.image_id, file.annotation_fault(one), kind)
        shared = self._shared_files(file)
        for image_id, found in members.items():
            queries = self._of_image(file, file.images[image_id], found)
            if image_id in shared:
                queries = [_unasked(image_id, shared[image_id], 'picture of two image records')
                           for _ in queries]
            yield from queries

    def _of_image(self, file: native.Instances, image: CocoImage,
                  found: list[CocoAnnotation]) -> Iterator[dict]:
        if self.targets == 'object':
            for one in found:
                if one.crowd and not one.faults:
                    yield _unasked(image.id, None, 'crowd, which is no object')
                else:
                    yield dict(image_id=image.id, found=[one], **self._category(one, file))
            return
        if self.of_pictures:
            yield from self._of_picture(file, image, found)
            return
        groups: dict[str, list[CocoAnnotation]] = {}
        untold = None  # what is said of an annotation whose texts are not known
        for one in found:
            texts, fault = self._texts(one, file)
            if fault is not None:
                untold = untold or fault
                yield _unasked(image.id, *fault)
            elif not texts:
                yield _unasked(image.id, None, 'annotation without a phrase')
            for text in texts:
                groups.setdefault(text, []).append(one)
        absent, fault = self._absent_texts(image, groups, file)
        if fault is not None:
            yield _unasked(image.id, *fault)
        both = set(absent) & set(groups)
        alike = in_other_capitals({**dict.fromkeys(absent, ()), **{
            text: [id(one) for one in ones] for text, ones in groups.items()}})
        partly = image.record.get('not_exhaustive_category_ids')  # LVIS's
        partly = {file.categories.get(coco.read_id(key)) for key in partly or ()
                  } if self.by_category and isinstance(partly, list) else set()
        for text, ones in (*groups.items(), *((text, []) for text in absent)):
            fault = None
            if untold is not None:
                fault = untold[0], 'query of an image with an annotation that may belong to it'
            elif self.one_by_one and any(one.crowd for one in ones) and (
                    not self.test_mode or all(one.crowd for one in ones)):
                fault = None, _CROWD_ALONE if all(one.crowd for one in ones) else UNTOLD_CROWD
            elif text in partly:
                fault = None, 'category that is not annotated throughout on its image'
            elif text in both:
                fault = (f'{file.path}, image {image.id!r}: absent_phrases names {text!r:.60}, '
                         'which annotations of the image have as their phrase', 'phrase that is '
                         'said to be there and to be absent')
            elif text in alike:
                fault = None, 'text that another object of the image has in other capitals'
            yield dict(image_id=image.id, text=text, found=ones, fault=fault)

    @staticmethod
    def _classes(file: native.Instances) -> tuple[str, ...]:
        """The names of the file's categories, in its order. ValueError for one that cannot be
        written in an answer, and for two that differ in capitals alone."""
        names = tuple(dict.fromkeys(file.categories.values()))
        for name in names:
            try:
                quoted_name(name)
            except ValueError as error:
                raise ValueError(f'{file.path}: {error}. Rename the category') from None
        alike = sorted(in_other_capitals({name: [name] for name in names}))
        if alike:
            raise ValueError(f'{file.path}: the categories {alike[:2]} differ in capitals alone, '
                             'so that an answer does not tell them apart. Rename one')
        return names

    def _of_picture(self, file: native.Instances, image: CocoImage,
                    found: list[CocoAnnotation]) -> Iterator[dict]:
        """The query for all objects of an image, or why it is not known which they are."""
        untold = None
        for one in found:
            if (fault := self._category(one, file)['fault']) is not None:
                untold = untold or fault
                yield _unasked(image.id, *fault)
        fault = None
        if untold is not None:
            fault = untold[0], 'query of an image with an annotation that may belong to it'
        elif {'neg_category_ids', 'not_exhaustive_category_ids'} & set(image.record):
            fault = None, 'picture of which only some categories are annotated'
        elif any(one.crowd for one in found) and (
                not self.test_mode or all(one.crowd for one in found)):
            fault = None, _CROWD_ALONE if all(one.crowd for one in found) else UNTOLD_CROWD
        yield dict(image_id=image.id, text=SUBJECTS['image'][0], found=found, fault=fault)

    def _texts(self, annotation: CocoAnnotation, file: native.Instances
               ) -> tuple[Sequence[str], tuple[str, str] | None]:
        """Texts that ask for an annotation, and what is wrong, or None."""
        if self.by_category:
            found = self._category(annotation, file)
            return ([] if found['fault'] else [found['text']]), found['fault']
        return _phrases(annotation.record.get('phrase'),
                        f'{file.path}, {annotation.name}: phrase')

    def _absent_texts(self, image: CocoImage, present: dict, file: native.Instances
                      ) -> tuple[Sequence[str], tuple[str, str] | None]:
        if self.targets == 'phrase':
            return _phrases(image.record.get('absent_phrases'),
                            f'{file.path}, image {image.id!r}: absent_phrases')
        known = {text.casefold() for text in present}
        names, said = set(file.categories.values()), image.record.get('neg_category_ids')  # LVIS's
        if isinstance(said, list):  # others may be on it, too
            names &= {file.categories.get(coco.read_id(key)) for key in said}
        others = sorted(name for name in names if name.casefold() not in known)
        rng = np.random.default_rng([self.seed, zlib.crc32(str(image.id).encode())])
        return [others[k] for k in rng.permutation(len(others))[:self.absent]], None

    @staticmethod
    def _category(annotation: CocoAnnotation, file: native.Instances) -> dict:
        """``dict(text, fault)``: the category's name, or what is wrong with it."""
        name = file.categories.get(annotation.category_id)
        if name is not None:
            return dict(text=name, fault=None)
        fault = next(one for one in annotation.faults
                     if one.kind in (coco.ANNOTATION_CATEGORY, coco.UNKNOWN_CATEGORY))
        return dict(text='', fault=(str(fault), fault.kind))

    def _shared_files(self, file: native.Instances) -> dict:
        """What is said of images whose file another image record names too, so that neither holds
        all of its annotations, by id."""
        if self.targets == 'object':
            return {}
        names: dict[str, list[CocoImage]] = {}
        for image in file.images.values():
            if image.file_name:
                names.setdefault(image.file_name, []).append(image)
        return {image.id: f'{file.path}, images {same[0].id!r} and {same[1].id!r} name one file, '
                f'{image.file_name!r:.80}, so that neither is known to have all annotations of it'
                for same in names.values() if len(same) > 1 for image in same}


def in_other_capitals(meant: Mapping[str, Collection]) -> set[str]:
    """Texts that others of their picture differ from in capitals alone, and that mean others.

    ``Car`` and ``car`` of two annotators mean each a part of the cars.

    Args:
        meant: what each text of a picture means.

    >>> in_other_capitals({'Car': [1], 'car': [2], 'the Bus': [3], 'the bus': [3]}) == {
    ...     'Car', 'car'}
    True
    """
    alike: dict[str, list[str]] = {}
    for text in meant:
        alike.setdefault(text.casefold(), []).append(text)
    return {text for texts in alike.values() if len(texts) > 1
            and len({frozenset(meant[text]) for text in texts}) > 1 for text in texts}


def _unasked(image_id, message: str | None, reason: str) -> dict:
    """A query that cannot be asked; without a message it is left out by rule."""
    return dict(image_id=image_id, text='', found=[], fault=(message, reason))


def _phrases(value, where: str) -> tuple[list[str], tuple[str, str] | None]:
    """A text or a list of texts, each once; and what is wrong with them, or None."""
    if value is None:
        return [], None
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) and not is_blank(one)
                                              for one in texts):
        return [], (f'{where} must be a text or a list of texts, got {shown(value)}',
                    'phrase that is no text')
    return list(dict.fromkeys(texts)), None
