"""Queries about the objects of a COCO-format set: by point or box, by category, by phrase."""
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from simpleseg_mm.polygon import segmentation_to_mask
from simpleseg_mm.registry import DATASETS

from . import native
from .refcoco import RefCOCODataset

TARGETS = ('object', 'category', 'phrase')
_PERHAPS_EMPTY = 16  # annotated area in pixels below which a mask is decoded to see if it is empty


@DATASETS.register_module()
class CocoQueryDataset(RefCOCODataset):
    """Queries about the objects of any set in COCO's instance format.

    ``targets`` says what one sample is about:

    - 'object': one annotation, crowds left out: for tasks that start from a point, a box or a
      mask, as promptable segmenters are trained and evaluated;
    - 'category': all annotations of one category in an image, crowds included, named by the
      category. ``absent`` adds categories that the image does not hold, answered by ``[]``: right
      where a set is annotated throughout, as COCO is;
    - 'phrase': all annotations of an image that name the same phrase (``phrase``: a text or a list
      of texts). An image may list what it does not show in ``absent_phrases``.

    Images without annotations give absent samples only.

    Args:
        data_root: Folder of the set.
        ann_file: Its annotations, below ``data_root``.
        img_dir: Folder of the images, below ``data_root``.
        targets: See above.
        absent: With 'category': how many absent categories an image is asked about, drawn from
            ``seed`` and the image's id.
        name: Of the set. 'coco' says that image ids are COCO's, for ``exclude_eval_images``.
        split: Of the whole file. 'train' is what ``exclude_eval_images`` thins out.
        query: See :class:`RefCOCODataset`.
        **kwargs: Other arguments of :class:`RefCOCODataset`.

    Raises:
        FileNotFoundError, ValueError: One line: what is missing or wrong, and what to do.
    """

    def __init__(self, data_root: str, ann_file: str, img_dir: str, targets: str = 'object',
                 absent: int = 0, name: str = 'coco', split: str = 'val',
                 query: dict | None = None, **kwargs) -> None:
        if targets not in TARGETS:
            raise ValueError(f'targets must be one of {TARGETS}, got {targets!r}')
        if absent < 0 or (absent and targets != 'category'):
            raise ValueError(f"absent={absent} with targets={targets!r}: a number of categories "
                             "from 0, and only with targets='category'")
        tasks = [task for task, weight in (query or {}).get('tasks', {'text2mask': 1}).items()
                 if weight and task.startswith('text')]
        if tasks and targets == 'object':
            raise ValueError(f"targets='object' with the tasks {tasks}: a category does not tell "
                             'one object from another; take tasks that start from a point, a box '
                             "or a mask, or targets='category'")
        self.annotations_path = Path(data_root) / ann_file
        self.targets, self.absent = targets, absent
        super().__init__(data_root, [dict(name=name, split=split, img_dir=img_dir)], query=query,
                         **kwargs)

    def _load_split(self, source: dict, split: str, evaluated: dict[str, set]) -> list[dict]:
        path = self.annotations_path
        if not path.is_file():
            raise FileNotFoundError(f'there is no {path}; name the annotations in ann_file')
        images, annotations, categories = native.load_coco(path)
        folder = Path(self.data_root) / source['img_dir']
        if not folder.is_dir():
            raise FileNotFoundError(native.missing_images(
                folder, f'{source["name"]}: there is no image folder {folder}'))
        refs = list(self._references(images, annotations, categories))
        if split == native.TRAIN_SPLIT and self.exclude_eval_images:
            refs = self._without_eval_images(refs, source['name'], f'{source["name"]} {split}',
                                             evaluated)
        data_list = []
        for number, ref in enumerate(refs):
            image = images.get(ref['image_id'])
            if image is None:
                self._bad(f'{path}: annotations {ref["ann_id"]} are of the unknown image '
                          f'{ref["image_id"]!r}', 'image not in the file', 1)
                continue
            image_path = folder / image['file_name']
            instances = self._instances(ref, image, image_path, annotations, path, '', 1)
            if instances is None:
                continue
            fault = _add_areas(instances, ref, image, annotations)
            if fault is not None:
                self._bad(fault, 'bad annotation', 1)
                continue
            data_list.append(dict(
                img_path=str(image_path), image_id=ref['image_id'], ref_id=number, sent_id=0,
                ann_id=ref['ann_id'], text=ref['text'], height=image['height'],
                width=image['width'], split=split, source=source['name'], instances=instances))
        return data_list

    def _references(self, images: dict, annotations: dict,
                    categories: dict) -> Iterator[dict]:
        """``dict(image_id, ann_id, text)`` of every query, image by image."""
        members: dict = {image_id: [] for image_id in images}
        for annotation in annotations.values():
            members.setdefault(annotation['image_id'], []).append(annotation)
        for image_id, found in members.items():
            if self.targets == 'object':
                for item in found:
                    if not item.get('iscrowd'):
                        yield dict(image_id=image_id, ann_id=[item['id']],
                                   text=self._category(item, categories))
                continue
            groups: dict[str, list] = {}
            for item in found:
                for text in self._texts(item, categories):
                    groups.setdefault(text, []).append(item['id'])
            for text, ids in groups.items():
                yield dict(image_id=image_id, ann_id=ids, text=text)
            for text in self._absent_texts(images.get(image_id, {}), groups, categories):
                yield dict(image_id=image_id, ann_id=[-1], text=text)

    def _texts(self, annotation: dict, categories: dict) -> Sequence[str]:
        if self.targets == 'category':
            return [self._category(annotation, categories)]
        phrases = annotation.get('phrase', [])
        phrases = [phrases] if isinstance(phrases, str) else phrases
        return dict.fromkeys(self._checked(phrases, f'annotation {annotation["id"]!r}: phrase'))

    def _absent_texts(self, image: dict, present: dict, categories: dict) -> Sequence[str]:
        if self.targets == 'phrase':
            where = f'image {image.get("id")!r}: absent_phrases'
            phrases = self._checked(image.get('absent_phrases', []), where)
            if both := sorted(set(phrases) & set(present)):
                raise ValueError(f'{self.annotations_path}, {where} names {both}, which '
                                 'annotations of the image have as their phrase')
            return phrases
        others = sorted(set(categories.values()) - set(present))
        rng = np.random.default_rng([self.seed, zlib.crc32(str(image.get('id')).encode())])
        return [others[k] for k in rng.permutation(len(others))[:self.absent]]

    def _checked(self, phrases, where: str) -> list[str]:
        if not isinstance(phrases, list) or not all(isinstance(one, str) and one.strip()
                                                    for one in phrases):
            raise ValueError(f'{self.annotations_path}, {where} must be a text or a list of '
                             f'texts, got {phrases!r:.60}')
        return phrases

    def _category(self, annotation: dict, categories: dict) -> str:
        name = categories.get(annotation.get('category_id'))
        if name is None:
            raise ValueError(f'{self.annotations_path}, annotation {annotation["id"]!r} has the '
                             f'unknown category_id {annotation.get("category_id")!r}')
        return name


def _add_areas(instances: list[dict], ref: dict, image: dict, annotations: dict) -> str | None:
    """Add each annotation's ``area``; says what is wrong where a small one is an empty mask."""
    for instance, ann_id in zip(instances, native.annotation_ids(ref)):
        area = annotations[ann_id].get('area')
        if area is None:
            continue
        instance['area'] = area
        if area < _PERHAPS_EMPTY and not segmentation_to_mask(
                instance['mask'], image['height'], image['width']).any():
            return f'annotation {ann_id!r}: the mask is empty'
    return None
