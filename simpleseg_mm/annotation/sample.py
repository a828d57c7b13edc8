"""What travels through the pipeline: images in chunks, with every drop counted where it happens.

Three kinds of things are counted: ``images``, ``objects`` and ``descriptions``. Whatever enters is
either written or dropped under one reason, so for each kind the sum over reasons and what was
written is what was read or proposed.
"""
import hashlib
import io
import os
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from simpleseg_mm.files import load_image

#: reasons to drop an object after which the image does not hold one object more than is kept
NO_FURTHER_OBJECT = {'score too low', 'box or score not finite', 'box outside the image or empty',
                     'overlaps a better box', 'same mask as a better object'}
COUNTED = ('images', 'objects', 'descriptions')
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff'
                      r'\ud800-\udfff]+')


@dataclass
class Sample:
    """One image on its way.

    Attributes:
        key: name, unique in its chunk: letters, digits, '-' and '_'.
        raw: the encoded image; what is written, unless it had to be encoded again.
        meta: what the source says about it (plain JSON): 'file', and 'caption', 'tags', 'url'
            and others where the source has them.
        alone: whether no other image of the input has its name, folders and suffix left out.
        height, width: pixels; 0 until the image has been looked at.
        orientation: EXIF orientation, 1 to 8, of the source; ``raw`` is upright once the image has
            been looked at.
        objects: dicts with ``box`` (x1, y1, x2, y2 pixels), ``category``, ``score``; later
            ``mask`` (COCO RLE), ``mask_score``, ``area``, ``polygon``, ``polygon_iou``, and
            ``descriptions``: dicts with ``text`` and, once verified, ``iou``.
        lost: categories of which the image holds objects that were dropped.
        notes: what was done to the image, such as 're-encoded: CMYK'.
        thumbnail: ``(h, w) uint8`` grey, small; made by ``FilterImage``.
        dropped: ``(stage, reason)`` once the image has left the pipeline.
        quarantined: whether the image itself is kept aside, because it could not be worked on.
        counts: ``(stage, kind, reason)`` of everything dropped here.
        proposed: how many objects and descriptions were proposed, by kind.
    """
    key: str
    raw: bytes = b''
    meta: dict = field(default_factory=dict)
    alone: bool = True
    height: int = 0
    width: int = 0
    orientation: int = 1
    objects: list = field(default_factory=list)
    lost: set = field(default_factory=set)
    notes: list = field(default_factory=list)
    thumbnail: np.ndarray | None = None
    dropped: tuple[str, str] | None = None
    quarantined: bool = False
    counts: Counter = field(default_factory=Counter)
    proposed: Counter = field(default_factory=Counter)
    _image: np.ndarray | None = field(default=None, repr=False)

    @property
    def image(self) -> np.ndarray:
        """Pixels ``(H, W, 3) uint8`` RGB, decoded when asked for and kept in this process only."""
        if self._image is None:
            self._image = load_image(self.raw, self.key)
        return self._image

    def set_image(self, image: np.ndarray, note: str) -> None:
        """Replace the encoded image by these pixels, as JPEG (quality 95, full colour: ours)."""
        out = io.BytesIO()
        Image.fromarray(image).save(out, 'JPEG', quality=95, subsampling=0)
        self.raw, self._image = out.getvalue(), None
        self.height, self.width = image.shape[:2]
        self.notes.append(f're-encoded: {note}')

    def propose(self, objects: list[dict]) -> None:
        """Add objects that a detector found."""
        self.proposed['objects'] += len(objects)
        self.objects += objects

    def keep(self, stage: str, reasons: list[str | None]) -> None:
        """Keep the objects whose reason is None; count the others under their reason."""
        for found, reason in zip(self.objects, reasons, strict=True):
            if reason is not None:
                self.counts[stage, 'objects', reason] += 1
                if reason not in NO_FURTHER_OBJECT:
                    self.lost.add(found.get('category', ''))
        lost = [o for o, reason in zip(self.objects, reasons) if reason is not None]
        self._count_descriptions(stage, lost, 'object dropped')
        self.objects = [o for o, reason in zip(self.objects, reasons) if reason is None]

    def drop(self, stage: str, reason: str, quarantine: bool = False) -> None:
        """Take the image out, with all that was found on it."""
        self.counts[stage, 'images', reason] += 1
        if self.objects:
            self.counts[stage, 'objects', 'image dropped'] += len(self.objects)
            self._count_descriptions(stage, self.objects, 'image dropped')
        self.dropped, self.quarantined, self.objects = (stage, reason), quarantine, []
        self.thumbnail = self._image = None
        if not quarantine:
            self.raw = b''

    def _count_descriptions(self, stage: str, objects: list[dict], reason: str) -> None:
        lost = sum(len(o.get('descriptions', ())) for o in objects)
        if lost:
            self.counts[stage, 'descriptions', reason] += lost

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_image': None}


@dataclass
class Chunk:
    """Images that become one shard. Its name depends on the input alone.

    Attributes:
        name: of the shard, without suffix.
        samples: in input order; dropped ones stay, without their bytes.
        weight: share of the input that it stands for, in the reader's unit.
        faults: what was wrong with the input file itself: ``(reason, detail)``.
        notes: what else the reader met, such as files that are left out, by kind.
        seconds: of each stage here, by the clock.
        handled: images that each stage looked at.
    """
    name: str
    samples: list[Sample]
    weight: float = 0
    faults: list = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)
    handled: Counter = field(default_factory=Counter)

    @property
    def live(self) -> list[Sample]:
        """The samples still in the pipeline."""
        return [sample for sample in self.samples if sample.dropped is None]


def clean_text(text, max_chars: int = 1000) -> str:
    """One line of plain text: control and invisible characters out, blanks joined, cut."""
    return ' '.join(_CONTROL.sub(' ', str(text)[:4 * max_chars]).split())[:max_chars].rstrip()


def safe_key(name: str) -> str:
    """A name as a key of a shard: no dots (WebDataset splits there), no folders, not long.

    A name that has to change keeps apart from others by a digest of it.
    """
    key = re.sub(r'[^0-9A-Za-z_-]', '_', name)[:64]
    return key if key == name else f'{key}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:10]}'
