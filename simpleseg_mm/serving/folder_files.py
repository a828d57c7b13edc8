"""The pictures of a folder, and which file beside each holds its annotations."""
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..files import spelled
from ..files.pictures import SUFFIXES
from ..files.texts import json_of

# Our choices.
MAX_PICTURES = 50_000  # that are listed
MAX_ANNOTATION_BYTES = 100_000_000  # of a file of annotations
_NUMBERS = re.compile('([0-9]+)')


@dataclass(frozen=True)
class Summary:
    """What a file of annotations holds of a picture.

    Attributes:
        objects: how many; None where there are no annotations.
        done: the annotator's mark.
        fault: why they cannot be read.
        owner: the picture that it says it is of.
    """
    objects: int | None = None
    done: bool = False
    fault: str = ''
    owner: str | None = None


class Stamp(NamedTuple):
    """By which a file that was changed is told from what it was."""
    changed: int
    size: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> 'Stamp':
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


@dataclass
class PictureFolder:
    """A folder with pictures.

    Attributes:
        path: below the root; '' is the root.
        pictures: names of its pictures, as people sort.
        stamps: of its .json files, by name.
        linked, outside: paths of linked folders, and of linked pictures that are none of the root.
    """
    path: str
    pictures: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    linked: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    _stems: dict[str, list[str]] = field(default_factory=dict)

    def below(self, name: str) -> str:
        """The path of a file below the root."""
        return f'{self.path}/{name}' if self.path else name

    def like(self, stem: str) -> list[str]:
        """Pictures of a stem, in any capitals: some systems give them one file."""
        if not self._stems:
            for name in self.pictures:
                self._stems.setdefault(_folded(os.path.splitext(name)[0]), []).append(name)
        return self._stems.get(_folded(stem), [])


def place_at(root: Path, path: str) -> tuple[PictureFolder, list[str]]:
    """A folder below a root, and the paths of those in it; OSError where it cannot be read.

    Hidden files and folders are none of it. Links are followed to pictures within the root alone.
    """
    place, folders = PictureFolder(path), []
    with os.scandir(root / path) as found:
        entries = [entry for entry in found if not entry.name.startswith('.')]
    for entry in entries:
        kind = os.path.splitext(entry.name)[1].lower()
        try:
            if entry.is_dir():
                (place.linked if entry.is_symlink() else folders).append(place.below(entry.name))
            elif kind in SUFFIXES and entry.is_symlink() and not is_inside(root, entry.path):
                place.outside.append(place.below(entry.name))
            elif kind in SUFFIXES and entry.is_file():
                place.pictures.append(entry.name)
            elif kind == '.json' and entry.is_file():
                place.stamps[entry.name] = Stamp.of(entry.stat())
        except OSError:  # it has gone meanwhile
            continue
    place.pictures.sort(key=by_people)
    return place, folders


def places_of(root: Path) -> tuple[list[PictureFolder], list[str]]:
    """All folders with pictures below a root, and what was passed over, a line each."""
    places: list[PictureFolder] = []
    unread, linked, outside, many, todo = [], [], [], 0, ['']
    while todo:
        path = todo.pop()
        try:
            place, folders = place_at(root, path)
        except OSError:
            unread.append(path)
            continue
        todo += sorted(folders, key=by_people, reverse=True)
        linked += place.linked
        outside += place.outside
        room = MAX_PICTURES - sum(len(one.pictures) for one in places)
        many += len(place.pictures[room:])
        del place.pictures[room:]
        if place.pictures or not path:
            places.append(place)
    notes = [f'{len(paths)} {what}: ' + ', '.join(repr(spelled(path))[:80] for path in paths[:3])
             for paths, what in (
                 (unread, 'folders cannot be read'), (linked, 'linked folders are passed over'),
                 (outside, 'linked pictures lead out of the folder, or to nothing, and are passed '
                           'over')) if paths]
    if many:
        notes.append(f'{many} more pictures are not listed: open a part of the folder')
    return places, notes


def file_of(place: PictureFolder, name: str, owner: Callable[[str], str | None]) -> str | None:
    """The name of LabelMe's file of a picture, which may not be there yet.

    It is NAME.json, as LabelMe calls it. Where several pictures have one NAME, that file is of
    the one that its ``imagePath`` names, or else of the first; the others have NAME.SUFFIX.json.

    Args:
        owner: name of a .json file of the folder -> that of the picture that it says it is of, if
            it says so.

    Returns:
        None where both names are those of other pictures.
    """
    stem = os.path.splitext(name)[0]
    alike = place.like(stem)
    long, short = f'{name}.json', f'{stem}.json'
    for file in (short, long):
        if file in place.stamps and _same(owner(file), name):
            return file
    same = [one for one in alike if os.path.splitext(one)[0] == stem]
    if short in place.stamps:
        said = owner(short)
        if same[:1] == [name] and not any(_same(said, one) for one in same):
            return short
    elif alike[:1] == [name]:
        return short
    return None if long in place.stamps and place.like(name) else long


def by_people(name: str) -> tuple:
    """A key by which a2 comes before a10, and a before both."""
    stem, suffix = os.path.splitext(name)
    parts = [(1, len(part.lstrip('0')), part.lstrip('0')) if number else (2, 0, part.casefold())
             for place, part in enumerate(_NUMBERS.split(stem)) for number in [place % 2] if part]
    return [*parts, (0, 0, '')], suffix, name


def is_inside(root: Path, path: str | os.PathLike) -> bool:
    """Whether a path leads to something within the root, links followed."""
    try:
        return Path(path).resolve(strict=True).is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        return False


def annotation_bytes(root: Path, file: Path) -> tuple[bytes, Stamp] | tuple[None, None]:
    """Of a file of annotations below the root, at one moment; None where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or a link out of the root or to nothing.
    """
    where = spelled(file.name)
    if file.is_symlink() and not file.exists() or file.exists() and not is_inside(root, file):
        raise ValueError(f'{where} leads out of the folder, or to nothing')
    try:
        with open(file, 'rb') as opened:
            stamp = Stamp.of(os.fstat(opened.fileno()))
            if stamp.size > MAX_ANNOTATION_BYTES:
                raise ValueError(f'{where} has more than {MAX_ANNOTATION_BYTES:,} bytes')
            return opened.read(), stamp
    except FileNotFoundError:
        return None, None


def content_of(raw: bytes | None, file: Path):
    """What the bytes of a JSON file hold; None where there is none. Raises ValueError."""
    content = None if raw is None else json_of(raw, spelled(file.name))
    if raw is not None and content is None:
        raise ValueError('it holds null')
    return content


def reading_fault(file: Path, error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    where = spelled(file.name)
    said = error.strerror if isinstance(error, OSError) else 'it is nested too deep' \
        if isinstance(error, RecursionError) else str(error)
    return said if said.startswith(where) else f'{where} cannot be read: {said}'


def may_write(path: Path) -> bool:
    """Whether a file or folder may be written; true of one that is not there. What nobody may
    write is not written by an administrator either."""
    try:
        status, system = path.stat(), getattr(os, 'statvfs', None)
    except OSError:
        return True
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        return False
    return system is None or not system(path).f_flag & os.ST_RDONLY


def _same(one: str | None, other: str) -> bool:
    return one is not None and unicodedata.normalize('NFC', one) == unicodedata.normalize(
        'NFC', other)


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()
