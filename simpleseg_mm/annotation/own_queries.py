"""What one's own pictures are asked for: never a query whose truth is incomplete."""
import zlib
from collections.abc import Sequence

import numpy as np

from simpleseg_mm.datasets.coco import in_other_capitals

from .own_account import Account
from .own_formats import OwnObject, OwnPicture

_ENOUGH = 0.1  # of the objects: where fewer have expressions, these are notes. Our choice


def choose_question(pictures: Sequence[OwnPicture], asked: str, explicit: bool,
                    account: Account) -> str:
    """'category', 'text' (expressions) or 'both': one rule for all sets.

    Args:
        pictures: of all sets.
        asked: one of :data:`simpleseg_mm.choices.ASK`. 'auto' takes expressions where at least a
            tenth of the objects has some, else categories.
        explicit: whether a file of expressions was given: then 'auto' takes these.

    Raises:
        ValueError: expressions are asked for, and there are none.
    """
    objects = [one for picture in pictures for one in picture.objects if one.records]
    named = sum(bool(one.phrases) for one in objects)
    texts = named + sum(bool(picture.absent) for picture in pictures)
    if asked in ('text', 'both') and not texts:
        raise ValueError(f'--ask {asked}: no object has an expression; give --expressions FILE, '
                         'or --ask category')
    if asked != 'auto':
        return asked
    chosen = 'text' if texts and (explicit or not objects or named >= _ENOUGH * len(objects)) \
        else 'category'
    if 0 < named < len(objects):
        account.decide(f'object asked by {chosen}: {named} of {len(objects)} have an expression '
                       '(--ask tells otherwise)', count=len(objects))
    return chosen


def choose_texts(pictures: Sequence[OwnPicture], by: str, absent: int, seed: int,
                 account: Account) -> None:
    """Set ``texts`` of every object and picture: what is asked, and what that means.

    A text that also means an object which is lost is not asked on its picture, and where an object
    may be of any category, no category is. Counts queries.

    Args:
        pictures: of all sets, checked.
        by: 'category', 'text' or 'both'.
        absent: how many categories each picture is asked for that it does not hold.
        seed: of their draw.
    """
    categories = sorted({one.category for picture in pictures for one in picture.objects
                         if one.category and not one.lost})
    for picture in pictures:
        barred = _barred(picture, by)
        asked: dict[str, None] = {}
        for one in picture.objects:
            one.texts = [] if one.lost else [text for text in _texts(one, by)
                                             if text not in barred]
            asked.update(dict.fromkeys(one.texts))
        picture.texts = _nothing(picture, by, barred, account)
        if absent and by != 'text':
            picture.texts += _absent(picture, categories, {*asked, *barred}, absent, seed, account)
        account.read['query'] += len(asked) + len(barred) + len(picture.texts)
        for text, why in barred.items():
            account.leave('query', f'query whose truth is incomplete: {why}',
                          f'{picture.where}: {text}')


def _texts(one: OwnObject, by: str) -> list[str]:
    texts = list(one.phrases) if by != 'category' else []
    if by != 'text' and one.category:
        texts.append(one.category)
    return list(dict.fromkeys(texts))


def _barred(picture: OwnPicture, by: str) -> dict[str, str]:
    """Texts that are not asked on a picture, and why."""
    found: dict[str, str] = {}
    for one in picture.objects:
        if one.lost:
            found.update((text, one.lost) for text in _texts(one, by) if text not in found)
    anything = next((one.unnamed or one.lost for one in picture.objects
                     if one.category is None), None)
    if anything is not None and by != 'text':
        found.update((one.category, anything) for one in picture.objects
                     if one.category and one.category not in found)
    means: dict[str, list[int]] = {}
    for one in picture.objects:
        for text in _texts(one, by):
            means.setdefault(text, []).append(id(one))
    if by != 'category':
        means.update((text, []) for text in picture.absent if text not in means)
    found.update((text, 'another object has the text in other capitals: give both one text')
                 for text in in_other_capitals(means) if text not in found)
    if by != 'category':
        means = {text for one in picture.objects for text in _texts(one, by)}
        found.update((text, 'an object has the text that is said to fit nothing')
                     for text in picture.absent if text in means and text not in found)
    return found


def _nothing(picture: OwnPicture, by: str, barred: dict, account: Account) -> list[str]:
    """Expressions that fit nothing."""
    absent = list(dict.fromkeys(picture.absent))
    if by == 'category':
        account.read['query'] += len(absent)
        account.leave('query', 'expression that fits nothing, where categories are asked',
                      f'{picture.where}: {absent}', len(absent))
        return []
    return [text for text in absent if text not in barred]


def _absent(picture: OwnPicture, categories: list[str], known: set[str], count: int, seed: int,
            account: Account) -> list[str]:
    """Categories that a picture does not hold, drawn by the seed and its name."""
    if not picture.throughout or any(one.category is None for one in picture.objects):
        account.decide('picture not asked for absent categories: what an object on it is, is not '
                       'known', picture.where)
        return []
    known = {text.casefold() for text in (*known, *picture.texts)}
    others = [name for name in categories if name.casefold() not in known
              and (picture.known_absent is None or name in picture.known_absent)]
    rng = np.random.default_rng([seed, zlib.crc32(picture.path.name.encode('utf-8', 'replace'))])
    return [others[k] for k in rng.permutation(len(others))[:count]]


def keep_used(pictures: Sequence[OwnPicture], by: str, prompts: bool, account: Account
              ) -> list[OwnPicture]:
    """Pictures that anything is asked of, with the objects that it is about; counts the rest.

    Args:
        prompts: whether objects are also trained from a point and a box.
    """
    kept = []
    for picture in pictures:
        used = []
        for one in picture.objects:
            if one.lost:
                account.leave('annotation', one.lost, one.where, one.records)
                continue
            pointed = prompts and not one.crowd
            if prompts:
                account.read['prompt'] += 1
                account.used['prompt'] += pointed
                if one.crowd:
                    account.leave('prompt', 'crowd, which no point or box means (--crowds objects '
                                  'reads each as one object)', one.where)
            if one.texts or pointed:
                used.append(one)
                account.used['annotation'] += one.records
            else:
                account.leave('annotation', _unasked(one, by), one.where, one.records)
        if used or picture.texts:
            account.used['picture'] += 1
            account.used['annotation'] += picture.cuts
            account.used['query'] += len({*picture.texts}.union(*(one.texts for one in used)))
            picture.objects = used
            kept.append(picture)
            continue
        account.leave('annotation', 'shape taken off an object that is left out', picture.where,
                      picture.cuts)
        if not picture.objects:
            reason = 'picture without objects (--absent K asks it for what it does not hold)'
        elif all(one.lost for one in picture.objects):
            reason = 'picture without a usable object'
        elif by == 'text' and not any(one.phrases for one in picture.objects):
            reason = 'picture without an expression'
        else:
            reason = 'picture whose queries are left out'
        account.leave('picture', reason, picture.where)
    return kept


def _unasked(one: OwnObject, by: str) -> str:
    """Why nothing is asked about an object that has an outline."""
    if by == 'text' and not one.phrases:
        return 'object without an expression, where others have one'
    return one.unnamed or 'object whose queries are left out'
