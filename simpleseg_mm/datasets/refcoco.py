"""RefCOCO's family in native files or parquet: one (image, sentence) a sample."""
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from simpleseg_mm.files.coco import CocoImage
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.scenes import COLOURS
from simpleseg_mm.templates import SUBJECTS

from . import native
from .annotation_files import AnnotationFiles, check_image, measure_image
from .base import UNTOLD_CROWD, BadSample, QueryDataset, RawRecord
from .leakage import EvalImages
from .shape_phrases import SHAPES


class _Reference(NamedTuple):
    """A reference, and the files that it is about."""
    ref: dict
    source: dict
    split: str
    file: native.Instances
    files: AnnotationFiles


@DATASETS.register_module()
class RefCOCODataset(QueryDataset):
    """RefCOCO, RefCOCO+, RefCOCOg, RefCLEF, gRefCOCO and all sets with the same files.

    ``data_root/<name>/`` holds ``refs(<split_by>).p`` or ``.json`` (or ``refs.json``) and
    ``instances.json``; ``data_root/<img_dir>/`` the images. Images are found by ``image_id``, and
    their files as :class:`simpleseg_mm.files.PictureFinder` does where they do not lie as written.

    Or ``data_root/<name>/`` holds parquet files of a mirror (:mod:`.mirrors`), whose columns are
    read as the same records. Pictures inside them are read when a sample is: ``img_path`` is then
    ``FILE.parquet#COLUMN.ROW``.

    Args:
        data_root: Folder of the sets.
        sources: Sets to join: ``dict(name='refcoco', split_by='unc', split='train',
            img_dir='train2014')``. ``split`` may be a list; ``split_by`` is 'unc' unless given,
            'umd' for refcocog; ``img_dir`` is ``train2014`` ('saiapr_tc-12' for refclef).
            ``parquet`` is the folder of parquet files below ``data_root``, where it is not the
            set's name or native files are beside them; ``columns`` says what they call the fields
            of :data:`mirrors.MIRRORS`, where they are of no mirror that is known.
        exclude_eval_images: Drop train samples whose image occurs in an eval split of RefCOCO
            unc, RefCOCO+ unc or RefCOCOg umd (of RefCLEF unc for RefCLEF): their reference files
            must be there. A list of ``dict(name, split_by)`` names other sets; a text names a
            folder with lists of COCO images instead, see :func:`native.listed_images`. What was
            removed of each set, and of all COCO sets together, is logged.
        **kwargs: See :class:`QueryDataset`. ``bad_samples='skip'`` decodes each mask once when
            loading; with 'error' only those that are annotated as tiny, and what decoding alone
            can tell is an error when the sample is read. Broken pictures are an error when read;
            ``refcoco.py verify`` finds all of this beforehand.

    Raises:
        FileNotFoundError, ValueError: One line: what is missing or wrong, and what to do.
    """

    typical_picture = native.COCO_PICTURE

    def __init__(self, data_root: str, sources: Sequence[dict],
                 exclude_eval_images: bool | str | Sequence[dict] = False, **kwargs) -> None:
        if not sources:
            raise ValueError('sources must name at least one set')
        self.sources = [_parse_source(source) for source in sources]
        self.exclude_eval_images = exclude_eval_images
        super().__init__(data_root, **kwargs)

    def read_records(self) -> Iterator[RawRecord]:
        """The references of the splits that are asked for."""
        files = AnnotationFiles(strict=self.bad_samples == 'error')
        evaluated = EvalImages(self.exclude_eval_images, self.data_root,
                               [source['name'] for source in self.sources], files,
                               self.sources)
        for source in self.sources:
            for split in source['splits']:
                yield from self._read_split(source, split, files, evaluated)
        evaluated.report()

    def parse_data_info(self, raw: RawRecord) -> list[dict]:
        """One sample a sentence of the reference; ``image_id, ref_id, sent_id, ann_id`` are its
        own."""
        ref, source, split, file, files = raw.content
        image = file.images.get(ref['image_id'])
        if image is None:
            raise BadSample(f'image_id {ref["image_id"]} is not in {file.path}',
                            'image not in instances.json')
        found, fault = native.referred(ref, file)
        if fault is not None:
            raise BadSample(fault, 'bad annotation')
        if self.one_by_one and any(one.crowd for one in found):
            raise BadSample(None, UNTOLD_CROWD)
        measure_image(image, file, lambda: self.size_of_picture(
            self._picture_of(image, file, source['img_dir'])))
        check_image(image, file)
        path = self._picture_of(image, file, source['img_dir'])
        instances = files.targets(found, image, file)
        return [dict(
            img_path=str(path), image_id=ref['image_id'], ref_id=ref['ref_id'],
            sent_id=sentence['sent_id'], ann_id=ref['ann_id'], text=sentence['sent'],
            height=image.height, width=image.width, split=split, source=source['name'],
            instances=instances) for sentence in ref['sentences']]

    def _read_split(self, source: dict, split: str, files: AnnotationFiles,
                    evaluated: EvalImages) -> Iterator[RawRecord]:
        name, split_by = source['name'], source['split_by']
        found = files.set_of(self.data_root, source, split)
        for record in found.bad:
            of_split = record.split == split or (record.split is None
                                                 and split == source['splits'][0])
            if of_split or (self.bad_samples == 'error' and not record.by_rule):
                self.refuse(BadSample(record.message, record.reason, record.by_rule),
                            samples=record.samples)
        refs = native.select_split(found.refs, split, found.path)
        _report_size(name, split_by, split, refs)
        refs, removed = evaluated.part(refs, name, split, f'{name} {split_by} {split}')
        for ref in removed:
            self.refuse(BadSample(None, 'image of an eval split'), samples=len(ref['sentences']))
        file = files.objects_of(self.data_root, source, found)
        if not file.pictures:
            self.image_folder(source['img_dir'], name)
        for ref in refs:
            yield RawRecord(found.where(ref),
                            _Reference(ref, source, split, file, files), len(ref['sentences']))

    def _picture_of(self, image: CocoImage, file: native.Instances, img_dir: str) -> str | Path:
        """Where the picture of a record lies: inside the set's files, or in a file of its own."""
        address = (file.pictures or {}).get(image.id)
        if address is None:
            return self.find_picture(image.file_name, img_dir)
        self.check_left_out(image.file_name, Path(self.data_root) / img_dir)
        return address


@DATASETS.register_module()
class RefShapesDataset(RefCOCODataset):
    """RefShapes: a generated set with RefCOCO's files.

    Args:
        data_root: Folder that ``tools/dataset_converters/generate_refshapes.py`` wrote.
        split: 'train' or 'val'.
        targets: 'references', one sample a sentence; or 'picture', one a scene, about all of its
            objects, each named by colour and shape ('red circle'): for the task image2objects.
        **kwargs: See :class:`RefCOCODataset`.
    """

    set_name = 'refshapes'
    typical_picture = (224, 224), "the generator's default"

    def __init__(self, data_root: str, split: str = 'train', targets: str = 'references',
                 **kwargs) -> None:
        if targets not in ('references', 'picture'):
            raise ValueError(f"targets must be 'references' or 'picture', got {targets!r}")
        self.of_pictures = targets == 'picture'
        self._objects: dict[int, list] | None = None
        if self.of_pictures:
            self.classes = tuple(f'{colour} {shape}' for colour in COLOURS for shape in SHAPES)
        super().__init__(data_root, [dict(name=self.set_name, split=split)], **kwargs)

    def _read_split(self, source: dict, split: str, files: AnnotationFiles,
                    evaluated: EvalImages) -> Iterator[RawRecord]:
        """Of pictures, the first reference of each; one without any is not asked about."""
        known: set = set()
        for record in super()._read_split(source, split, files, evaluated):
            image_id = record.content.ref['image_id']
            if not self.of_pictures:
                yield record
            elif image_id not in known:
                known.add(image_id)
                yield record._replace(samples=1)

    def parse_data_info(self, raw: RawRecord) -> list[dict]:
        if not self.of_pictures:
            return super().parse_data_info(raw)
        ref, source, split, file, files = raw.content
        image = file.images.get(ref['image_id'])
        if image is None:
            raise BadSample(f'image_id {ref["image_id"]} is not in {file.path}',
                            'image not in instances.json')
        check_image(image, file)
        path = self.find_picture(image.file_name, source['img_dir'])
        found = self._members(file).get(image.id, [])
        instances = files.targets(found, image, file)
        for instance, one in zip(instances, found):
            name = f'{one.record.get("colour")} {SHAPES[one.category_id - 1]}'
            if name not in self.classes:
                raise BadSample(f'{file.path}, {one.name}: {name!r} is no shape of RefShapes')
            instance.update(name=name, bbox_label=self.classes.index(name))
        return [dict(img_path=str(path), image_id=image.id, ref_id=ref['ref_id'], sent_id=0,
                     ann_id=[one.id for one in found] or [-1], text=SUBJECTS['image'][0],
                     height=image.height, width=image.width, split=split,
                     source=source['name'], instances=instances)]

    def _members(self, file: native.Instances) -> dict[int, list]:
        """The objects of each image."""
        if self._objects is None:
            self._objects = {}
            for one in file.rows:
                self._objects.setdefault(one.image_id, []).append(one)
        return self._objects


def _parse_source(source: dict) -> dict:
    if unknown := set(source) - {'name', 'split_by', 'split', 'img_dir', 'parquet', 'columns'}:
        raise ValueError("a source has the keys 'name', 'split_by', 'split', 'img_dir', 'parquet' "
                         f"and 'columns'; got {sorted(unknown)} in {dict(source)}")
    if not {'name', 'split'} <= set(source):
        raise ValueError(f"a source needs 'name' and 'split', got {dict(source)}")
    name, split = source['name'], source['split']
    return dict(name=name,
                split_by=source.get('split_by', native.DEFAULT_SPLIT_BY.get(name, 'unc')),
                splits=[split] if isinstance(split, str) else list(split),
                img_dir=source.get('img_dir',
                                   native.DEFAULT_IMG_DIR.get(name, 'train2014')),
                parquet=source.get('parquet'), columns=source.get('columns'))


def _report_size(name: str, split_by: str, split: str, refs: list[dict]) -> None:
    size = native.split_sizes(refs)[split]
    expected = native.PUBLISHED.get((name, split_by), {}).get(split)
    message = f'{name} {split_by} {split}: {size} references, sentences, images'
    if expected and any(e not in (None, s) for e, s in zip(expected, size)):
        print_log(f'{message}; published are {expected}', logger='current',
                  level=logging.WARNING)
    else:
        print_log(message, logger='current')
