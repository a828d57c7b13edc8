"""ReasonSeg: questions that take reasoning, in the set's own files."""
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from simpleseg_mm.files import is_blank, load_json, shown
from simpleseg_mm.files.coco import read_number
from simpleseg_mm.files.pictures import SUFFIXES
from simpleseg_mm.polygon import mask_to_box, mask_to_rle
from simpleseg_mm.registry import DATASETS

from . import native
from .base import BadSample, QueryDataset, RawRecord
from .pictures import file_fault


@DATASETS.register_module()
class ReasonSegDataset(QueryDataset):
    """ReasonSeg (Lai et al., 'LISA', CVPR 2024).

    ``data_root/<split>/`` holds for each image ``NAME.jpg`` (or another suffix of pictures) and
    ``NAME.json`` (UTF-8, UTF-16 or Windows-1252)::

        {"text": ["the food that ..."], "is_sentence": true,
         "shapes": [{"label": "target", "points": [[x, y], ...]}, ...]}

    Masks are LISA's: polygons are painted with their outlines at whole pixels, large ones first,
    so that a small one stands out of a large one. The label 'flag' is passed over; what is
    labelled 'ignore' counts for neither mask in evaluation.

    In evaluation an image is one sample, asked by its first text, as LISA does; in training each
    text is one. ``split`` of a sample ends in '_long' for sentences and in '_short' for phrases,
    LISA's two columns, which ``per_set=True`` of the metrics gives apart. A sentence is asked as
    it is, see ``templates.REQUESTS``.

    Args:
        data_root: Folder of the splits.
        split: 'train', 'val' or 'test', or a list of them.
        **kwargs: See :class:`QueryDataset`.

    Raises:
        FileNotFoundError, ValueError: One line: what is missing or wrong, and what to do.
    """

    def __init__(self, data_root: str, split: str | list[str] = 'train', **kwargs) -> None:
        self.splits = [split] if isinstance(split, str) else list(split)
        super().__init__(data_root, **kwargs)

    def read_records(self) -> Iterator[RawRecord]:
        """The names of a split's files, and its ``.json`` files of each."""
        for split in self.splits:
            folder = Path(self.data_root) / split
            if not folder.is_dir():
                raise FileNotFoundError(f'reasonseg: there is no folder {folder}; unpack the set '
                                        'so that it holds the pictures and .json files of the '
                                        'split')
            names = _files_by_name(folder)
            if not names:
                raise FileNotFoundError(f'reasonseg: {folder} holds no pictures and .json files')
            for name, sources in names.items():
                yield RawRecord('', (split, name, sources))

    def parse_data_info(self, raw: RawRecord) -> list[dict]:
        """One sample a text, in evaluation the first alone."""
        split, name, sources = raw.content
        folder = Path(self.data_root) / split
        path, how = self._pictures.finder(folder).look_beside(name)
        picture = path or folder / f'{name}.jpg'
        if self._pictures.is_left_out(picture.parent, picture.name):
            raise BadSample(None, 'listed in skip_images')
        if path is None:
            raise BadSample(f'{folder / name}: {how}' if how != 'missing' else
                            native.missing_images(folder, f'there is no image {picture}, nor one '
                                                  'of another suffix'))
        if len(sources) != 1:
            raise BadSample(f'{folder / name} has {len(sources)} .json files' if sources
                            else f'there is no {folder / name}.json')
        if (fault := file_fault(path)) is not None:
            raise BadSample(fault)
        size = self.size_of_picture(path)
        record = read_annotation(sources[0], size)
        length = 'long' if record['is_sentence'] else 'short'
        texts = record.pop('texts')
        samples = []
        for number, text in enumerate(texts[:1] if self.test_mode else texts):
            if is_blank(text):
                self.refuse(BadSample(f'{sources[0]}: text {number} is {shown(text)}: a blank '
                                      'sentence asks nothing', native.BLANK, by_rule=True))
                continue
            samples.append(dict(
                record, height=size[0], width=size[1], img_path=str(path), image_id=name,
                ref_id=f'{split}/{name}', sent_id=number, ann_id=name, text=text,
                split=f'{split}_{length}', source='reasonseg'))
        return samples


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Names of the pictures and ``.json`` files of a folder, sorted, with the latter."""
    names: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if suffix in ('.json', *SUFFIXES) and not path.name.startswith('.'):  # a Mac's ._NAME.jpg
            found = names.setdefault(unicodedata.normalize('NFC', path.stem), [])
            found += [path] if suffix == '.json' else []
    return dict(sorted(names.items()))


def read_annotation(source: Path, size: tuple[int, int]) -> dict:
    """``dict(texts, is_sentence, instances, ignored)`` of an image of (height, width) pixels.
    ValueError says what is wrong."""
    content = load_json(source)
    if not isinstance(content, dict):
        raise ValueError(f'{source} must hold an object, it holds {type(content).__name__}')
    texts = content.get('text')
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"{source}: 'text' must be a list of at least one text, got "
                         f'{shown(texts)}')
    if not isinstance(content.get('is_sentence'), bool):
        raise ValueError(f"{source}: 'is_sentence' must be true or false, got "
                         f"{shown(content.get('is_sentence'))}")
    target, ignored = _paint(content.get('shapes'), size, source)
    if not target.any():
        raise ValueError(f'{source}: no pixel is of the target')
    instance = dict(bbox=mask_to_box(target).tolist(), bbox_label=0, ignore_flag=0,
                    mask=mask_to_rle(target))
    return dict(texts=texts, is_sentence=content['is_sentence'], instances=[instance],
                ignored=[mask_to_rle(ignored)] if ignored.any() else [])


def _paint(shapes, size: tuple[int, int], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the target and ignored ones, (h, w) bool each."""
    if not isinstance(shapes, list):
        raise ValueError(f"{path}: 'shapes' must be a list, got {shown(shapes)}")
    painted = []
    for number, shape in enumerate(shapes):
        try:
            label = shape['label'].lower()
            points = np.array([[read_number(v) for v in point] for point in shape['points']],
                              np.float64)
            if len(points) and points.shape[1:] != (2,):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{path}, shape {number}: it needs 'label' (text) and 'points' "
                             f'([[x, y], ...]), got {shown(shape, 80)}') from None
        if not (len(points) and np.abs(points).max() < 1e5):
            raise ValueError(f'{path}, shape {number}: no points, or not in an image')
        if label == 'flag':
            continue
        canvas = np.zeros(size, np.uint8)
        ring = [points.astype(np.int32)]  # towards 0, as LISA
        cv2.polylines(canvas, ring, True, 1, 1)
        cv2.fillPoly(canvas, ring, 1)
        painted.append((canvas > 0, 'ignore' in label))
    target, ignored = np.zeros(size, bool), np.zeros(size, bool)
    # LISA's order of equal areas is numpy's; here the later one in the file is painted last
    for mask, is_ignored in sorted(painted, key=lambda item: -np.count_nonzero(item[0])):
        target[mask], ignored[mask] = not is_ignored, is_ignored
    return target, ignored
