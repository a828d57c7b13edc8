"""Pictures of one's own: looked at together, turned by one rule, with one white, and checked."""
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from simpleseg_mm.files import ImageError, load_image, open_picture, orientation_of, replacing
from simpleseg_mm.files.labelme import Crop
from simpleseg_mm.files.orientation import slack_of, way_of_outlines, way_of_size
from simpleseg_mm.files.pictures import brightest_of, stored_size, turned

from .own_account import Account
from .own_formats import BOX_ALONE, BOX_BESIDE, OwnObject, OwnPicture, OwnSet
from .own_outlines import placed, settle

_BITS = range(8, 17)
_SAME_BOX = 2.0  # pixels by which a side of a box may differ from its outline's. Our choice
_WAYS = {'stored': 'as they are stored', 'upright': 'as viewers show them'}


@dataclass
class Look:
    """What the header of a picture says.

    Attributes:
        size: (h, w) as it is stored.
        tag: EXIF orientation, 1 to 8.
        brightest: value of a picture of more than 8 bits; 0 for others.
        several: whether it holds several frames: an animation, or pages.
    """
    size: tuple[int, int]
    tag: int
    brightest: int
    several: bool = False


def look_at(picture: OwnPicture) -> Look | None:
    """Read a picture's header, and its brightest value; None, and a fault, where it is none."""
    if picture.fault:
        return None
    if picture.raw is None and not picture.path.is_file():
        picture.fault = 'picture missing'
        return None
    try:
        raw = picture.raw if picture.raw is not None else picture.path.read_bytes()
        if not raw:
            picture.fault = 'picture file empty'
            return None
        with open_picture(raw, str(picture.path)) as image:
            brightest = brightest_of(image)  # before the tag: looking for that may decode a PNG
            size, tag = stored_size(image)[::-1], orientation_of(image)
            # an MPO's other frames are previews and depths of phones
            several = image.format != 'MPO' and getattr(image, 'is_animated', False)
            return Look(size, tag, brightest, several)
    except (OSError, ImageError):
        picture.fault = 'picture broken, too large or of no known format'
        return None


def white_of(looks: Iterable[Look | None]) -> int:
    """The white of a set: of n = 8 to 16 bits, the fewest that hold its brightest value."""
    brightest = max((look.brightest for look in looks if look is not None), default=0)
    return next(2**n - 1 for n in _BITS if 2**n > brightest or n == 16)


# --- EXIF --------------------------------------------------------------------------------------
def choose_orientation(own: OwnSet, looks: Sequence[Look | None], asked: str, where: str,
                       account: Account) -> str:
    """One rule for all turned pictures of a set: 'stored' or 'upright'.

    Two kinds of evidence are counted: outlines that lie inside the picture one way and outside it
    the other, and the size that the annotations state. Both exist for tags 5 to 8 on pictures that
    are no squares; the rule is for all. Outlines are stronger, since tools state the size of the
    file and draw on what they show (Label Studio). Pictures that contradict the rule get a fault.

    Args:
        own: the set; ``own.exif`` is the rule where there is no evidence.
        looks: of its pictures.
        asked: 'auto', or the rule.
        where: names the set.
    """
    pairs = [(picture, look) for picture, look in zip(own.pictures, looks)
             if look is not None and look.tag != 1]
    if not pairs:
        return own.exif if asked == 'auto' else asked
    if asked != 'auto':
        account.decide(f'turned picture (EXIF) read {_WAYS[asked]}, as --exif says', where,
                       len(pairs))
        return asked
    drawn = [way_of_outlines([part for one in picture.objects for part in one.parts],
                             look.size, look.tag) for picture, look in pairs]
    sized = [way_of_size(picture.size, look.size, look.tag) for picture, look in pairs]
    votes, said = Counter(filter(None, drawn)), Counter(filter(None, sized))
    rule, why = own.exif, 'for want of evidence'
    for counts, name in ((votes, 'by outlines that fit this way alone'),
                         (said, 'by the sizes that their annotations state')):
        if counts['stored'] != counts['upright']:
            rule = max(counts, key=counts.get)
            why = f'{name}: {counts[rule]} for it, {counts.total() - counts[rule]} against it'
            break
    account.decide(f'turned picture (EXIF) read {_WAYS[rule]}, {why} (--exif tells otherwise)',
                   where, len(pairs), guessed=why == 'for want of evidence')
    misleading = any(by_outline == rule and by_size not in (None, rule)
                     for by_outline, by_size in zip(drawn, sized))
    for (picture, _), by_outline, by_size in zip(pairs, drawn, sized):
        trusted = by_outline or (None if misleading else by_size)
        if trusted not in (None, rule):
            picture.fault = 'turned picture that contradicts the rule for the others'
    return rule


def _reaches_beyond(part, size: tuple[int, int]) -> bool:
    if not isinstance(part, list):
        return False
    slack = slack_of(size)
    points = np.asarray(part, float).reshape(-1, 2)
    return bool((points < -slack).any() or (points > np.array(size[::-1]) + slack).any())


# --- checking ----------------------------------------------------------------------------------
class Checker:
    """Decodes every picture and every mask, and writes pictures anew that training would not read
    as they are meant.

    Args:
        out: folder of the new set.
        free: whether a path may be written to.
        account: where faults are counted.

    Attributes:
        written: pictures that were written anew.
    """

    def __init__(self, out: Path, free: Callable[[Path], bool], account: Account) -> None:
        self.out, self.free, self.account = out, free, account
        self.written: list[Path] = []
        self._names: set[str] = set()

    def __call__(self, picture: OwnPicture, look: Look | None, rule: str, white: int
                 ) -> str | None:
        """A digest of the picture's content; None where it cannot be used, which is counted.

        Sets the picture's path and size, and what its objects cover; those of which nothing can
        be used are marked as lost.
        """
        where, size_said = picture.where, picture.size
        digest = None if picture.fault or look is None else self._load(picture, look, rule, white)
        if not picture.fault:
            said = {picture.size, look.size, turned(look.size, look.tag), None} if \
                look.tag != 1 else {picture.size, None}
            if size_said not in said:
                picture.fault = 'picture of another size than its annotations say'
                where += f': (h, w) {picture.size}, not {size_said}'
        if picture.fault:
            self.account.leave('picture', picture.fault, where)
            records = picture.cuts + sum(one.records for one in picture.objects)
            self.account.leave('annotation', 'object of a picture that is left out', where,
                               records)
            return None
        settle_objects(picture, self.account)
        return digest

    def _load(self, picture: OwnPicture, look: Look, rule: str, white: int) -> str:
        try:
            raw = picture.raw if picture.raw is not None else picture.path.read_bytes()
            pixels = load_image(raw, upright=rule == 'upright', white=white)
        except (OSError, ImageError):
            picture.fault = 'picture broken, too large or of no known format'
            return ''
        if picture.raw is not None or not _trained_alike(raw, pixels):
            if picture.raw is None:
                self.account.change('picture written anew, upright and in 8 bits',
                                    str(picture.path))
            picture.path = self._write(picture.path, pixels)
        picture.size, picture.raw = tuple(pixels.shape[:2]), None
        return hashlib.sha256(raw).hexdigest()

    def _write(self, path: Path, pixels: np.ndarray) -> Path:
        """Save pixels as a PNG of their own in the new set."""
        folder = self.out / 'images'
        folder.mkdir(parents=True, exist_ok=True)
        name, number = f'{path.stem}.png', 1
        while name in self._names or not self.free(folder / name):
            name, number = f'{path.stem}_{number}.png', number + 1
        self._names.add(name)
        with replacing(folder / name) as partial:
            Image.fromarray(pixels).save(partial, 'PNG')
        self.written.append(folder / name)
        return folder / name


def settle_objects(picture: OwnPicture, account: Account) -> None:
    """Set what each object covers of its picture, whose size is known; boxes that a tool wrote
    beside outlines go to their object. Objects that cannot be used are marked as lost."""
    for one in picture.objects:
        _settle(one, picture.size, account)
    _give_boxes(picture, account)


def _settle(one: OwnObject, size: tuple[int, int], account: Account) -> None:
    if one.lost:
        return
    one.parts = placed(one.parts, size)
    try:
        one.segmentation, one.box, one.area = settle(one.parts, one.cuts, size)
    except ValueError as error:
        drawn = not any(isinstance(part, Crop) for part in (*one.parts, *one.cuts))
        one.lost = 'broken segmentation' if drawn else str(error)
        one.where += f': {error}'
    else:
        if not one.area:
            one.lost = 'empty mask: nothing of it is inside the picture'
        elif any(_reaches_beyond(part, size) for part in one.parts):
            account.change('outline that reaches beyond its picture, cut at its border', one.where)
    one.parts, one.cuts = [], []


def _give_boxes(picture: OwnPicture, account: Account) -> None:
    """Tools write the box of an outline as a shape of its own: it goes to that object."""
    free = [one for one in picture.objects if not one.lost and not one.crowd]
    for box in [one for one in picture.objects if one.lost == BOX_ALONE and one.parts]:
        outline = placed(box.parts, picture.size)[0]
        corners = np.reshape(outline, (-1, 2))
        around = [*corners.min(axis=0), *corners.max(axis=0)]
        one = next((one for one in free if one.category == box.category
                    and np.abs(np.subtract(around, one.box)).max() <= _SAME_BOX), None)
        box.parts = []
        if one is not None:
            free.remove(one)
            picture.objects.remove(box)
            one.records += box.records
            account.change(BOX_BESIDE, box.where, box.records)
        else:
            box.segmentation = [outline]


def _trained_alike(raw: bytes, pixels: np.ndarray) -> bool:
    """Whether training reads the file as these pixels."""
    try:
        return np.array_equal(load_image(raw, upright=False), pixels)
    except (OSError, ValueError):
        return False
