"""Pictures that a file names, found where they lie now."""
import os
import re
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .pictures import SUFFIXES

#: how a picture was found that does not lie where its record says
AS_WRITTEN = 'as written'
BELOW = 'below the folder, by the end of its path'
ADDRESS = 'by the path in its address'
BARE_NAME = 'by its bare name, which is there once'
CAPITALS = 'by its bare name in other capitals, which is there once'
UPLOADED = "by its name without the prefix of Label Studio's uploads"
_PREFIX = re.compile(r'[0-9a-f]{8}-(?=.)')
_ESCAPED = re.compile(r'\\x([89a-f][0-9a-f])')  # a byte that is no UTF-8
_FOLDERS = 100_000  # that are looked through for bare names. Our choice


def spelled(path: str | os.PathLike) -> str:
    """A path as a text that every program takes: bytes that are no UTF-8 as ``\\xff``.

    >>> spelled('a\\udcff.jpg')
    'a\\\\xff.jpg'
    """
    return os.fsencode(path).decode('utf-8', 'backslashreplace')


def spellings(text: str) -> list[str]:
    """The paths that :func:`spelled` may have written as ``text``, the likelier one first."""
    raw = _ESCAPED.sub(lambda found: os.fsdecode(bytes.fromhex(found[1])), text)
    return list(dict.fromkeys((text, raw)))


class PictureFinder:
    """Finds pictures by the names that annotation files hold.

    A name is tried, in this order: as it is written, with ``/`` or ``\\``, below each folder and
    by itself where it is absolute; its last parts below each folder and the folder's parent, the
    most parts first; its bare name anywhere below the folders, where it is there once, else in
    other capitals (``.JPG``); the path that it quotes, where it is an address (``%20``,
    ``?token=``, ``/data/local-files/?d=``); the bare name without the eight digits that Label
    Studio puts before the names of uploads. Each is tried in both normal forms of Unicode (macOS
    writes NFD).

    Args:
        folders: to look in, in this order.
        passed_over: a folder below them whose files are not looked through for bare names: the
            one that is written to.
        links: whether linked folders are looked through for bare names, too.

    Attributes:
        guessed: how many names were found otherwise than as written, by how.
    """

    def __init__(self, folders: Iterable[str | os.PathLike],
                 passed_over: str | os.PathLike | None = None, links: bool = True) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.passed_over, self.links = passed_over, links
        self.guessed: Counter[str] = Counter()
        self._names: dict[str, list[Path]] | None = None
        self._stems: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """The picture, or None where there is none or the bare name is there more than once."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[Path | None, str]:
        """The picture and how it was found, or None and why it was not."""
        path, how = self._look(name)
        if path is None and how == 'missing' and (plain := _path_in(name)) != name:
            path, why = self._look(plain)
            how = why if path is None else ADDRESS
        bare = name.replace('\\', '/').rpartition('/')[2]
        if path is None and how == 'missing' and (mark := _PREFIX.match(bare)):
            path, why = self._look(bare[mark.end():])
            how = why if path is None else UPLOADED
        if path is not None and how != AS_WRITTEN:
            self.guessed[how] += 1
        return path, how

    def look_beside(self, stem: str, near: str | os.PathLike | None = None
                    ) -> tuple[Path | None, str]:
        """The picture whose name is ``stem`` and any suffix of pictures, in any capitals; how it
        was found, or None and why it was not.

        Args:
            stem: name without folders and suffix, such as that of a file of annotations.
            near: a folder that is looked into after the folders, and before those below them.
        """
        if self._stems is None:
            self._stems = {}
            for name, paths in self._by_name().items():
                if isinstance(name, str) and os.path.splitext(name)[1].lower() in SUFFIXES:
                    self._stems.setdefault(os.path.splitext(name)[0], []).extend(paths)
        found = self._stems.get(_normal(stem), [])
        for folder in (*self.folders, *([] if near is None else [Path(near)])):
            if here := [path for path in found if path.parent == folder]:
                return (here[0], AS_WRITTEN) if len(here) == 1 else (None, _several(here))
        if len(found) == 1:
            self.guessed[BARE_NAME] += 1
            return found[0], BARE_NAME
        return None, _several(found) if found else 'missing'

    def _look(self, name: str) -> tuple[Path | None, str]:
        if not name or '\0' in name:
            return None, 'no name'
        for spelled in dict.fromkeys((name, name.replace('\\', '/'))):
            for folder in self.folders:
                if (path := _there(folder / spelled)) is not None:
                    return path, AS_WRITTEN
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.')]
        rest = parts[len(parts) - parts[::-1].index('..'):] if '..' in parts else parts
        around = list(dict.fromkeys(place for folder in self.folders
                                    for place in (folder, folder.parent)))
        for start in range(len(rest)):
            for folder in self.folders if start == len(rest) - 1 else around:
                if (path := _there(folder.joinpath(*rest[start:]))) is not None:
                    return path, BELOW
        names = self._by_name()
        for how, key in ((BARE_NAME, _normal), (CAPITALS, _folded)) if rest else ():
            found = names.get(key(rest[-1]), [])
            if len(found) == 1:
                return found[0], how
            if found:
                return None, f'{len(found)} files of this name'
        return None, 'missing'

    def _by_name(self) -> dict[str, list[Path]]:
        """Files below the folders by name and by :func:`_folded`; links are entered once."""
        if self._names is not None:
            return self._names
        names: dict[str | tuple[str], list[Path]] = {}
        seen: set[str] = set()
        if self.passed_over is not None:
            seen = {os.path.realpath(self.passed_over)} - {*map(os.path.realpath, self.folders)}
        for top in self.folders:
            for folder, folders, files in os.walk(top, followlinks=self.links):
                place = os.path.realpath(folder)
                if place in seen or len(seen) >= _FOLDERS:
                    folders[:] = []
                    continue
                seen.add(place)
                folders.sort()
                for file in files:
                    for key in (_normal(file), _folded(file)):
                        names.setdefault(key, []).append(Path(folder, file))
        self._names = names  # whole: threads may look at the same time
        return names


def _several(paths: list[Path]) -> str:
    return f'{len(paths)} pictures of this name: ' + ', '.join(sorted(p.name for p in paths)[:3])


def _there(path: Path) -> Path | None:
    """The file at a path in any normal form of Unicode."""
    text = str(path)
    for form in dict.fromkeys((text, unicodedata.normalize('NFC', text),
                               unicodedata.normalize('NFD', text))):
        try:
            if os.path.isfile(form):
                return Path(form)
        except (OSError, ValueError):  # names that are too long, or no names
            return None
    return None


def _path_in(address: str) -> str:
    """The path that an address quotes; Label Studio's local files have it after ``?d=``."""
    address = address.rpartition('?d=')[2]
    return urllib.parse.unquote(address.partition('?')[0] if '://' in address else address)


def _folded(name: str) -> tuple[str]:
    """A name without its capitals; a tuple, which no name is."""
    return _normal(name).casefold(),


def _normal(name: str) -> str:
    return unicodedata.normalize('NFC', name)
