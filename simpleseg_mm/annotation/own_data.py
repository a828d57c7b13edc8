"""Annotations of one's own, checked, split and written as a training set in COCO's format.

What is written is read by :class:`~simpleseg_mm.datasets.CocoQueryDataset`: by expression
(``targets='phrase'``) where there are any, else by category. Holes and parts are kept: masks are
stored as RLE unless plain polygons say the same.
"""
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from simpleseg_mm.files import ImageError, load_image
from simpleseg_mm.datasets import native
from simpleseg_mm.datasets.transforms import decode_image
from simpleseg_mm.polygon import mask_to_box, segmentation_to_mask

from .own_formats import LeftOut, OwnObject, OwnPicture

SPLITS = ('train', 'val')


def split_pictures(pictures: Sequence[tuple[OwnPicture, str]], share: float, seed: int
                   ) -> tuple[list[OwnPicture], list[OwnPicture]]:
    """Train and val; pictures of equal content come to the same side.

    Args:
        pictures: with a digest of each one's content.
        share: of the pictures that go to val, in (0, 1); at least one does.
        seed: of the draw.

    Raises:
        ValueError: the pictures are fewer than two different ones.
    """
    digests = sorted({digest for _, digest in pictures})
    if len(digests) < 2:
        raise ValueError(f'{len(digests)} usable picture(s) cannot be split into train and val: '
                         'give more, or annotations of their own for val')
    count = min(max(1, round(share * len(digests))), len(digests) - 1)
    chosen = {digests[k] for k in np.random.default_rng(seed).permutation(len(digests))[:count]}
    return ([picture for picture, digest in pictures if digest not in chosen],
            [picture for picture, digest in pictures if digest in chosen])


class Checker:
    """Looks at every picture and decodes every mask; what cannot be used is left out.

    Args:
        out: folder of the new set, for pictures that have to be written anew.
        left_out: where faults are counted.
    """

    def __init__(self, out: Path, left_out: LeftOut) -> None:
        self.out, self.left_out = out, left_out
        self._names: set[str] = set()

    def __call__(self, picture: OwnPicture) -> tuple[OwnPicture, str] | None:
        """The picture with its usable objects, and a digest of its content; None if unusable."""
        size_said, where = picture.size, str(picture.path)
        fault, digest = self._look(picture)
        if fault is None and size_said not in (None, picture.size):
            fault = 'picture of another size than its annotations say'
            where += f': (h, w) {picture.size}, not {size_said}'
        if fault is not None:
            self.left_out.add(fault, where)
            if picture.objects:
                self.left_out.add('object of a picture that is left out', where,
                                  len(picture.objects))
            return None
        picture.objects = [one for one in picture.objects if self._keep(one, picture.size)]
        if not picture.objects and not picture.absent:
            self.left_out.add('picture without a usable object', where)
            return None
        return picture, digest

    def _look(self, picture: OwnPicture) -> tuple[str | None, str]:
        """What is wrong with a picture, or None, and its digest; sets its size and path."""
        raw = picture.raw
        if raw is None:
            if not picture.path.is_file():
                return 'picture missing', ''
            raw = picture.path.read_bytes()
        if not raw:
            return 'picture file empty', ''
        try:
            pixels, seen = decode_image(raw), load_image(raw)
        except (OSError, ImageError):
            return 'picture broken, too large or of no known format', ''
        if pixels.shape != seen.shape and picture.size == pixels.shape[:2]:
            seen = pixels  # annotated as it is stored, not as viewers show it
        if picture.raw is not None or not np.array_equal(pixels, seen):
            if picture.raw is None:
                self.left_out.add('picture written anew, upright and in 8 bits', str(picture.path))
            picture.path = self._write(picture.path, seen)
        picture.size, picture.raw = tuple(seen.shape[:2]), None
        return None, hashlib.sha256(raw).hexdigest()

    def _write(self, path: Path, pixels: np.ndarray) -> Path:
        """Save pixels as a PNG of their own in the new set."""
        folder = self.out / 'images'
        folder.mkdir(parents=True, exist_ok=True)
        name, number = f'{path.stem}.png', 1
        while name in self._names:
            name, number = f'{path.stem}_{number}.png', number + 1
        self._names.add(name)
        Image.fromarray(pixels).save(folder / name)
        return folder / name

    def _keep(self, one: OwnObject, size: tuple[int, int]) -> bool:
        one.segmentation = _thin(one.segmentation)
        fault = native.segmentation_fault(one.segmentation, *size)
        if fault is None:
            try:
                one.segmentation = native.plain_segmentation(one.segmentation)
                mask = segmentation_to_mask(one.segmentation, *size)
            except ValueError as error:
                fault = str(error)
            else:
                if not mask.any():
                    self.left_out.add('empty mask: nothing of it is inside the picture', one.where)
                    return False
                one.box, one.area = mask_to_box(mask).tolist(), int(mask.sum())
                return True
        self.left_out.add('broken segmentation', f'{one.where}: {fault}')
        return False


def _thin(segmentation):
    """Polygons of fewer than three points out, where others are left: slivers of drawing tools."""
    if isinstance(segmentation, list):
        usable = [part for part in segmentation if not (isinstance(part, list) and len(part) < 6)]
        return usable or segmentation
    return segmentation


# --- writing -----------------------------------------------------------------------------------
def write_split(path: Path, pictures: Iterable[OwnPicture], img_dir: Path,
                categories: Sequence[str], by_phrase: bool) -> dict:
    """One split as a COCO file.

    Args:
        img_dir: folder that ``file_name`` is relative to.
        categories: names in the order of their ids, from 1.
        by_phrase: write ``phrase`` and ``absent_phrases``.

    Returns:
        Numbers of ``images`` and ``objects``, and of ``queries`` with ``one``, ``several`` and
        ``none`` targets (absent categories are drawn later and not among them).
    """
    numbers = {name: number for number, name in enumerate(categories, 1)}
    images, annotations = [], []
    queries = dict(one=0, several=0, none=0)
    for image_id, picture in enumerate(pictures, 1):
        row = dict(id=image_id, file_name=os.path.relpath(picture.path, img_dir),
                   height=picture.size[0], width=picture.size[1])
        targets: dict[str, int] = {}
        for one in picture.objects:
            for text in one.phrases if by_phrase else [one.category]:
                targets[text] = targets.get(text, 0) + 1
            x1, y1, x2, y2 = one.box
            annotations.append(dict(
                id=len(annotations) + 1, image_id=image_id, category_id=numbers[one.category],
                iscrowd=int(one.crowd), bbox=[x1, y1, x2 - x1, y2 - y1], area=one.area,
                segmentation=one.segmentation, **(dict(phrase=one.phrases) if by_phrase else {})))
        if by_phrase and (absent := [text for text in dict.fromkeys(picture.absent)
                                     if text not in targets]):
            row['absent_phrases'] = absent
            queries['none'] += len(absent)
        for count in targets.values():
            queries['one' if count == 1 else 'several'] += 1
        images.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=number, name=name) for name, number in numbers.items()]),
        ensure_ascii=False), encoding='utf-8')
    return dict(images=len(images), objects=len(annotations), queries=queries)


def convert(out: Path, train: Sequence[OwnPicture], val: Sequence[OwnPicture] | float, seed: int,
            left_out: LeftOut, img_dir: Path,
            progress: Callable[[Sequence[OwnPicture]], Iterable[OwnPicture]] = iter) -> dict:
    """Check pictures, split them, and write ``annotations/train.json`` and ``val.json``.

    Args:
        out: folder to write to.
        train: pictures of training, or of both splits where ``val`` is a share.
        val: pictures of validation, or the share of pictures that goes there.
        seed: of the split.
        left_out: counts what cannot be used.
        img_dir: folder of most pictures.
        progress: wraps the pictures for a progress bar.

    Returns:
        ``targets`` ('phrase' or 'category'), ``categories``, and what :func:`write_split` says
        of each split.

    Raises:
        ValueError: nothing usable is left of a split.
    """
    check = Checker(out, left_out)
    checked = [found for picture in progress(train) if (found := check(picture)) is not None]
    if isinstance(val, float):
        parts = split_pictures(checked, val, seed)
    else:
        held = [found for picture in progress(val) if (found := check(picture)) is not None]
        known = {digest for _, digest in held}
        parts = [], [picture for picture, _ in held]
        for picture, digest in checked:
            if digest in known:
                left_out.add('train picture that val holds too', str(picture.path))
            else:
                parts[0].append(picture)
    by_phrase = any(one.phrases for part in parts for picture in part for one in picture.objects)
    if by_phrase:
        parts = [_with_phrases(part, left_out) for part in parts]
    for split, part in zip(SPLITS, parts):
        if not part:
            raise ValueError(f'no usable picture is left for {split}: '
                             f'{dict(left_out.counts) or "none was given"}')
    categories = sorted({one.category for part in parts for picture in part
                         for one in picture.objects})
    return dict(targets='phrase' if by_phrase else 'category', categories=categories,
                **{split: write_split(out / f'annotations/{split}.json', part, img_dir,
                                      categories, by_phrase)
                   for split, part in zip(SPLITS, parts)})


def _with_phrases(pictures: Sequence[OwnPicture], left_out: LeftOut) -> list[OwnPicture]:
    """Pictures that a query is about; of their objects those that an expression means."""
    kept = []
    for picture in pictures:
        for one in picture.objects:
            if not one.phrases:
                left_out.add('object without an expression, where others have one', one.where)
        picture.objects = [one for one in picture.objects if one.phrases]
        if picture.objects or picture.absent:
            kept.append(picture)
        else:
            left_out.add('picture without an expression', str(picture.path))
    return kept
