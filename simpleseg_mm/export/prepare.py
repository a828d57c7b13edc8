"""What every format is given: outlines within the picture, names as other tools look for them."""
import os
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from ..files import is_url, one_line
from ..polygon import Part, mask_to_parts, rings_to_mask, signed_area
from ..structures import Segmentation


def prepared(results: Iterable[Segmentation]) -> Iterator[Segmentation]:
    """Answers, one an object, whose outlines lie in the picture: what leaves it is cut off at its
    border, an outline without a pixel in it has no parts. The pixels are the same; how sure the
    vertices were is not known of the new ones and left out."""
    for result in results:
        for one in result.objects:
            fits = _inside(one) and (one.mask.any() or not one.parts)
            yield one if fits else replace(one, parts=_cut(one), spread=())


def by_picture(results: Iterable[Segmentation]) -> dict[int, list[Segmentation]]:
    """Answers of each picture by its number, in the order of their first."""
    pictures: dict[int, list[Segmentation]] = {}
    for result in results:
        pictures.setdefault(result.index, []).append(result)
    return pictures


class ObjectNotes:
    """Counts what an export leaves out of answers or changes in them."""

    def __init__(self) -> None:
        self.objects = self.empty = self.cut = 0
        self.voted = False
        self.labels: set[str] = set()

    def see(self, result: Segmentation) -> None:
        """Count an answer, object by object; what was not found is no object."""
        for one in result.objects:
            filled = bool(one.mask.any())
            if not filled and not one.parts:
                continue
            cut = filled and not _inside(one)
            self.objects += 1
            self.empty += not filled
            self.cut += cut
            self.voted |= cut and bool(one.spread)
            text = one.prompt.text if one.name is None else one.name
            if text and one.label != text.strip():
                self.labels.add(one.label)

    def lines(self) -> list[str]:
        """What was counted, a line each."""
        notes = []
        if self.empty:
            notes.append(f'{self.empty} of {self.objects} objects have no pixel in the picture '
                         'and are left out')
        if self.cut:
            notes.append(f'{self.cut} of {self.objects} objects leave the picture and are cut at '
                         'its border' + ', without how sure their vertices are' * self.voted)
        if self.labels:
            notes.append(f'{len(self.labels)} labels hold line breaks or control characters, '
                         f'which became blanks: {shortened(self.labels)}')
        return notes


def shortened(names: Iterable[str]) -> str:
    """The first names of some, for a note."""
    names = sorted(names)
    return ', '.join(f'{name!r:.60}' for name in names[:5]) + ', ...' * (len(names) > 5)


def notes_of(results: Sequence[Segmentation], format: str) -> list[str]:
    """What an export leaves out of these answers or changes in them, a line each; what was not
    found is no object, and not counted."""
    counted = ObjectNotes()
    for result in results:
        counted.see(result)
    notes = counted.lines()
    if format == 'cvat':
        odd = sorted({result.image for result in results
                      if one_line(result.image) != result.image})
        if odd:
            notes.append(f'{len(odd)} pictures have names that XML cannot hold; they are written '
                         'with blanks: ' + shortened(odd))
    if format == 'yolo':
        stems: dict[str, set] = {}
        for result in results:
            name = picture_names([result.image])[result.image]
            stems.setdefault(Path(name).stem.casefold(), set()).add(result.image)
        odd = sorted(image for images in stems.values() if len(images) > 1 for image in images)
        if odd:
            notes.append(f'{len(odd)} pictures have a name of others, but for suffix, folder or '
                         'capitals; YOLO finds labels by that name, so rename the pictures and '
                         'export them again: ' + shortened(odd))
    return notes


def picture_names(images: Iterable[str]) -> dict[str, str]:
    """Names below the folder that holds all pictures, with ``/``: a bare name where they lie in
    one folder. Other tools look for them below a folder that their user names."""
    images = list(dict.fromkeys(images))
    files = {image: os.path.abspath(image) for image in images if not is_url(image)}
    try:
        top = os.path.commonpath([os.path.dirname(path) for path in files.values()] or ['.'])
    except ValueError:  # several drives
        top = None
    names = {image: Path(os.path.relpath(path, top)).as_posix() if top is not None else
             Path(path).name for image, path in files.items()}
    urls = {image: urllib.parse.urlsplit(image) for image in images if is_url(image)}
    bare = {image: urllib.parse.unquote(url.path).rpartition('/')[2] or url.netloc
            for image, url in urls.items()}
    count = Counter([*names.values(), *bare.values()])
    for image, name in bare.items():
        names[image] = name if count[name] == 1 else f'{urls[image].netloc}/{name}'
    return {image: names[image] for image in images}


def picture_from(folder: Path, image: str) -> str:
    """The path of a picture from a folder, with ``/``; a name where no file is there."""
    if is_url(image) or not os.path.isfile(image):
        return picture_names([image])[image]
    place = os.path.join(os.path.realpath(os.path.dirname(image)), os.path.basename(image))
    try:
        return Path(os.path.relpath(place, os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return Path(place).as_posix()


def _inside(result: Segmentation) -> bool:
    limit = np.array(result.size[::-1])
    return all(((0 <= ring) & (ring <= limit)).all()
               for part in result.parts for ring in part.rings)


def _cut(result: Segmentation) -> tuple:
    """Parts cut at the border of the picture; the mask's exact outline where that is not to be
    had from the vertices (rings that cross themselves)."""
    if not result.mask.any():
        return ()
    height, width = result.size
    parts: list[Part] = []
    for part in result.parts:
        polygon = shapely.Polygon(part.outer, part.holes)
        if not polygon.is_valid:
            return tuple(mask_to_parts(result.mask))
        pieces = shapely.get_parts(polygon.intersection(shapely.box(0, 0, width, height)))
        parts += [Part(_ring(piece.exterior, -1), tuple(_ring(hole, 1)
                                                        for hole in piece.interiors))
                  for piece in pieces if piece.geom_type == 'Polygon']
    rings = [ring for part in parts for ring in part.rings]
    same = rings and np.array_equal(rings_to_mask(rings, result.size, 'edges'), result.mask)
    return tuple(parts if same else mask_to_parts(result.mask))


def _ring(line, sign: int) -> np.ndarray:
    return with_sign(line.coords[:-1], sign)


def with_sign(points, sign: int) -> np.ndarray:
    """A ring (n, 2) with an area of this sign; one without an area as it is."""
    ring = np.asarray(points, np.float64)
    return ring if signed_area(ring) * sign >= 0 else ring[::-1]
