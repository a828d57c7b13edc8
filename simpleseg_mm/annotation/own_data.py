"""Annotations of one's own, checked, split and written as a training set in COCO's format.

What is written is read by :class:`~simpleseg_mm.datasets.CocoQueryDataset` with
``targets='phrase'``: each annotation holds the texts that it is asked by, each image those that
fit nothing on it. Holes and parts are kept: masks are stored as RLE unless plain polygons say the
same.
"""
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from simpleseg_mm.files import replace_json

from .own_account import Account
from .own_formats import OwnPicture, OwnSet
from .own_pictures import Checker, choose_orientation, look_at, white_of
from .own_queries import choose_question, choose_texts, keep_used

OWN_SPLITS = ('train', 'val')
UNNAMED = 'object'  # the category of objects that are asked by expressions and have none


@dataclass(frozen=True)
class Choices:
    """What a user may choose where two answers are right.

    Attributes:
        ask: 'auto', 'category', 'text' or 'both', see :func:`.own_queries.choose_question`.
        explicit: whether a file of expressions was given.
        absent: categories that each picture is asked for and does not hold.
        prompts: whether objects are also trained from a point and a box.
        exif: 'auto', 'stored' or 'upright', see :func:`.own_pictures.choose_orientation`.
        white: brightest value of pictures of more than 8 bits; None: the fewest bits that hold
            the sets' brightest.
        share: of the pictures that validate, where they have no set of their own.
        seed: of the split and of absent categories.
    """
    ask: str = 'auto'
    explicit: bool = False
    absent: int = 0
    prompts: bool = False
    exif: str = 'auto'
    white: int | None = None
    share: float = 0.1
    seed: int = 0


@dataclass
class Converted:
    """What :func:`convert` wrote.

    Attributes:
        report: ``targets`` ('category', 'phrase' or 'both'), ``categories``, and what
            :func:`write_split` says of each split.
        img_dir: folder that the pictures' names are relative to.
        written: all files.
    """
    report: dict
    img_dir: Path
    written: list[Path] = field(default_factory=list)


def convert(out: Path, sets: Sequence[OwnSet], choices: Choices, account: Account,
            free: Callable[[Path], bool] = lambda path: True,
            progress: Callable[[Sequence], Iterable] = iter) -> Converted:
    """Check pictures, split them, and write ``annotations/train.json`` and ``val.json``.

    Args:
        out: folder to write to.
        sets: one to split, or one of training and one of validation.
        choices: see :class:`Choices`.
        account: counts what is read, used and left out.
        free: whether a file may be written.
        progress: wraps the pictures for a progress bar.

    Raises:
        ValueError: nothing usable is left of a split, or --absent does not apply.
    """
    check = Checker(out, free, account)
    checked = _check(sets, choices, check, account, progress)
    pictures = [picture for part in checked for picture, _ in part]
    by = choose_question(pictures, choices.ask, choices.explicit, account)
    if choices.absent and by == 'text':
        raise ValueError('--absent asks for categories; these annotations have expressions. Give '
                         '--ask both, or expressions that fit nothing: absent_phrases of an '
                         'image, or rows with ann_id -1 and an image_id')
    choose_texts(pictures, by, choices.absent, choices.seed, account)
    try:
        parts = checked if len(checked) == 2 else _split_asked(checked[0], choices, account)
    except ValueError as error:
        keep_used(pictures, by, choices.prompts, account)
        raise ValueError(f'{error}. {_reasons(account)}') from None
    parts = [keep_used([picture for picture, _ in part], by, choices.prompts and split == 'train',
                       account) for split, part in zip(OWN_SPLITS, parts)]
    for split, part in zip(OWN_SPLITS, parts):
        if not part:
            raise ValueError(f'no usable picture is left for {split}: {_reasons(account)}')
    if choices.prompts and all(one.crowd for picture in parts[0] for one in picture.objects):
        raise ValueError('--prompts: every object of train is a crowd (iscrowd 1), which no point '
                         'or box means. Give --crowds objects where each is one object, such as '
                         'a brush mask, or leave --prompts out')
    categories = sorted({one.category or UNNAMED for part in parts for picture in part
                         for one in picture.objects})
    img_dir = Path(os.path.commonpath([os.path.realpath(picture.path.parent)
                                       for part in parts for picture in part]))
    report: dict = dict(targets='phrase' if by == 'text' else by, categories=categories)
    written = list(check.written)
    for split, part in zip(OWN_SPLITS, parts):
        path = out / f'annotations/{split}.json'
        report[split] = write_split(path, part, img_dir, categories)
        written.append(path)
    return Converted(report, img_dir, written)


def _check(sets: Sequence[OwnSet], choices: Choices, check: Checker, account: Account,
           progress: Callable[[Sequence], Iterable]) -> list[list[tuple[OwnPicture, str]]]:
    """Usable pictures of each set with a digest of their content; none in both sets."""
    for own in sets:
        _refuse_shared_files(own)
    looks = [[look_at(picture) for picture in own.pictures] for own in sets]
    account.decide('picture of several frames, the first is read',
                   count=sum(bool(look and look.several) for some in looks for look in some))
    deep = sum(bool(look and look.brightest) for some in looks for look in some)
    white = choices.white or white_of(look for some in looks for look in some)
    account.decide(f'picture of more than 8 bits: {white} is white (--white tells otherwise)',
                   count=deep)
    rules = [choose_orientation(own, some, choices.exif, name, account)
             for own, some, name in zip(sets, looks, OWN_SPLITS)]
    work = [(number, picture, look) for number, own in enumerate(sets)
            for picture, look in zip(own.pictures, looks[number])]
    checked: list[list] = [[] for _ in sets]
    for number, picture, look in progress(work):
        digest = check(picture, look, rules[number], white)
        if digest is not None:
            checked[number].append((picture, digest))
    if len(sets) == 1:
        return checked
    held = {digest for _, digest in checked[1]}
    kept = []
    for picture, digest in checked[0]:
        if digest not in held:
            kept.append((picture, digest))
            continue
        account.leave('picture', 'train picture that val holds too', picture.where)
        account.leave('annotation', 'object of a train picture that val holds too', picture.where,
                      picture.cuts + sum(one.records for one in picture.objects))
    return [kept, checked[1]]


def _refuse_shared_files(own: OwnSet) -> None:
    """A picture of several records has a part of its truth in each."""
    seen: dict[str, OwnPicture] = {}
    for picture in own.pictures:
        if picture.path is None or picture.raw is not None or picture.fault:
            continue
        place = os.path.realpath(picture.path)
        if place in seen:
            picture.fault = seen[place].fault = 'picture of several records, each a part of it'
        seen[place] = picture


def _split_asked(pictures: Sequence[tuple[OwnPicture, str]], choices: Choices,
                 account: Account) -> list[list]:
    """Split what is asked by text; the rest trains prompts at most, beside its equals."""
    asked = [pair for pair in pictures if pair[0].texts or any(
        one.texts for one in pair[0].objects)]
    sources: dict[str, str] = {}
    for picture, digest in pictures:
        sources.setdefault(digest, _source(picture) or digest)
    held = split_digests([sources[digest] for _, digest in asked], choices.share, choices.seed)
    account.decide('picture of Roboflow kept on the side of the other versions of its photo '
                   '(the name before .rf.)', count=sum(bool(_source(one)) for one, _ in pictures))
    return [[pair for pair in pictures if (sources[pair[1]] in held) == side]
            for side in (False, True)]


def _source(picture: OwnPicture) -> str:
    """The photo that Roboflow made a picture of, often several by augmentation; '' for others."""
    name, mark, _ = picture.path.name.rpartition('.rf.')
    return name if mark else ''


def split_digests(digests: Iterable[str], share: float, seed: int) -> set[str]:
    """Digests of pictures that go to val; pictures of equal content have one.

    Args:
        digests: of all pictures.
        share: of the pictures that go to val, in (0, 1); at least one does.
        seed: of the draw.

    Raises:
        ValueError: the pictures are fewer than two different ones.
    """
    digests = sorted(set(digests))
    if len(digests) < 2:
        raise ValueError(f'{len(digests)} usable picture(s) cannot be split into train and val: '
                         'give more, or annotations of their own for val')
    count = min(max(1, round(share * len(digests))), len(digests) - 1)
    return {digests[k] for k in np.random.default_rng(seed).permutation(len(digests))[:count]}


def write_split(path: Path, pictures: Iterable[OwnPicture], img_dir: Path,
                categories: Sequence[str]) -> dict:
    """One split as a COCO file.

    Args:
        img_dir: folder that ``file_name`` is relative to, links resolved.
        categories: names in the order of their ids, from 1.

    Returns:
        Numbers of ``images`` and ``objects``, and of ``queries`` with ``one``, ``several`` and
        ``none`` targets.
    """
    numbers = {name: number for number, name in enumerate(categories, 1)}
    images, annotations = [], []
    queries = dict(one=0, several=0, none=0)
    for image_id, picture in enumerate(pictures, 1):
        place = Path(os.path.realpath(picture.path.parent), picture.path.name)
        images.append(dict(id=image_id, file_name=os.path.relpath(place, img_dir),
                           height=picture.size[0], width=picture.size[1],
                           **(dict(absent_phrases=picture.texts) if picture.texts else {})))
        targets: dict[str, int] = {}
        for one in picture.objects:
            for text in one.texts:
                targets[text] = targets.get(text, 0) + 1
            x1, y1, x2, y2 = one.box
            annotations.append(dict(
                id=len(annotations) + 1, image_id=image_id,
                category_id=numbers[one.category or UNNAMED],
                iscrowd=int(one.crowd), bbox=[x1, y1, x2 - x1, y2 - y1], area=one.area,
                segmentation=one.segmentation, phrase=one.texts))
        queries['none'] += len(picture.texts)
        for count in targets.values():
            queries['one' if count == 1 else 'several'] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_json(path, dict(images=images, annotations=annotations,
                            categories=[dict(id=number, name=name)
                                        for name, number in numbers.items()]))
    return dict(images=len(images), objects=len(annotations), queries=queries)


def _reasons(account: Account) -> str:
    return f'Left out: {dict(account.reasons) or None}'
