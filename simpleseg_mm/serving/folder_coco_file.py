"""The one COCO file of a folder, and what was last read of it."""
import os
import threading
from pathlib import Path

from ..files import spelled
from ..files.coco import is_coco
from .folder_coco import CocoIndex, PictureNames, index_of
from .folder_files import PictureFolder, Summary, annotation_bytes, content_of, reading_fault
from .folder_objects import own_of
from .pictures import digest_of

COCO_FILE = 'annotations.json'


class CocoFolder:
    """What is read of the file, and where it lies. ValueError: the folder holds several."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, _coco_file(root)
        self._names = PictureNames(root)
        self._known: tuple[str, CocoIndex | None] = '', None
        self._missed: set[str] = set()  # pictures that were looked for since
        self._reading = threading.RLock()

    def index(self, raw: bytes | None, below: str = '') -> CocoIndex:
        """Of the bytes of the file; a picture ``below`` the root that is in none of its records
        may be new in the folder, and is looked for again.

        Raises:
            ValueError: it is no COCO file.
        """
        with self._reading:
            digest = 'nothing' if raw is None else digest_of(raw)
            if self._known[0] != digest:
                self._index(digest, content_of(raw, self.file))
            index = self._known[1]
            if below and below not in index.images and index.lost and below not in self._missed:
                self._names.forget()
                missed = self._missed | {below}
                self._index(digest, index.content)
                self._missed = missed
            return self._known[1]

    def keep(self, raw: bytes, content: dict) -> CocoIndex:
        """The index of what was written."""
        with self._reading:
            self._index(digest_of(raw), content)
            return self._known[1]

    def rows(self, places: list[PictureFolder], notes: list[str]) -> list:
        """Path and summary of each picture."""
        paths = [place.below(name) for place in places for name in place.pictures]
        try:
            with self._reading:
                index = self.index(annotation_bytes(self.root, self.file)[0])
                self._names.forget()
                index = self._index(self._known[0], index.content)
        except (ValueError, OSError, RecursionError) as error:
            fault = reading_fault(self.file, error)
            notes.append(f'{fault}. It is left as it is, and nothing is saved')
            return [(path, Summary(fault=fault)) for path in paths]
        if index.lost:
            notes.append(f'{len(index.lost)} pictures of {spelled(self.file.name)} are not in the '
                         'folder; their annotations stay: '
                         + ', '.join(f'{name!r:.80}' for name in index.lost[:3]))
        beside = sum(f'{os.path.splitext(name)[0]}.json' in place.stamps
                     for place in places for name in place.pictures)
        if beside:
            notes.append(f'{beside} pictures have files of their own beside them, which are not '
                         'read: for them start with --annotations labelme')
        return [(path, self._summary(index, path)) for path in paths]

    @staticmethod
    def _summary(index: CocoIndex, path: str) -> Summary:
        if path not in index.images:
            return Summary()
        owns = [own_of(index.tables.images[number].record) for number in index.images[path]]
        return Summary(len(index.annotations.get(path, ())),
                       any(own.get('done') is True for own in owns), index.clashes.get(path, ''))

    def _index(self, digest: str, content) -> CocoIndex:
        index = index_of(content, self.file.name, self._names)
        self._known, self._missed = (digest, index), set()
        return index


def _coco_file(root: Path) -> Path:
    """annotations.json of a folder, or the one COCO file that it holds.

    Raises:
        ValueError: it holds several.
    """
    if (root / COCO_FILE).exists():
        return root / COCO_FILE
    found = []
    for file in sorted([*root.glob('*.json'), *root.glob('annotations/*.json')]):
        if file.name.startswith('.'):
            continue
        try:
            raw, _ = annotation_bytes(root, file)
            content = content_of(raw, file) if raw and b'"annotations"' in raw else None
        except (OSError, ValueError):
            continue
        if is_coco(content):
            found.append(file)
    if len(found) > 1:
        raise ValueError(f'{root} holds {len(found)} COCO files, such as '
                         f'{found[0].relative_to(root)} and {found[1].relative_to(root)}: name '
                         f'the one that is to be edited {COCO_FILE}')
    return found[0] if found else root / COCO_FILE
