"""The server's own folder: its pictures, and the annotations beside them."""
import errno
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..files import open_picture, orientation_of, replacing, spelled, spellings
from ..files.coco import is_coco
from ..files.labelme import is_labelme
from ..files.pictures import SUFFIXES, stored_size, turned
from ..files.texts import is_guessed
from ..files.writing import remove_leftovers, sync_file
from . import folder_coco, folder_labelme
from .folder_coco_file import CocoFolder
from .folder_files import (MAX_ANNOTATION_BYTES, PictureFolder, Stamp, Summary, annotation_bytes,
                           content_of, file_of, is_inside, may_write, place_at, places_of,
                           reading_fault)
from .folder_objects import Document, Frame, Sent, own_of, read_given, sendable
from .http import Refused
from .pictures import MAX_ROOT_BYTES, digest_of

try:
    import fcntl
except ImportError:  # of Unix alone
    fcntl = None

ANNOTATION_FORMATS = ('labelme', 'coco')
# Our choices.
_LIST_SECONDS = 5.0  # that a list takes for reading annotations; the next one goes on
_HELD_SECONDS = 5.0  # that another server's write is waited for
_TRIES = 5  # where another program writes at the same time
_LOCKS = 64
_OTHERS = 10  # files that are of no picture and are looked at
_NO_NAME = 'no name is free for its file: rename the picture'
_COCO = ' is a COCO file: to edit it start the server with --annotations coco'
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class _Look:
    """A picture's file: a digest of its bytes, (h, w) upright, and EXIF orientation."""
    digest: str
    size: tuple[int, int]
    tag: int


@dataclass
class _Opened:
    """What a file holds of a picture, at one moment.

    Attributes:
        file: its place; None where no name is free for it.
        stamp: of the file; None where there is none.
        revision: by which a change of what it holds of the picture is told; None: nothing.
        document: what it holds; None where that cannot be read.
        fault: why it cannot be read, or may be misread; nothing is written then.
        merge: what the page gives -> new content of the file; None: nothing is to be written.
    """
    file: Path | None
    stamp: Stamp | None = None
    revision: str | None = None
    document: Document | None = None
    fault: str = ''
    merge: Callable[[Sent], dict | None] | None = None


class Folder:
    """A folder whose pictures are annotated.

    Args:
        root: the folder.
        form: 'labelme', a file beside each picture, or 'coco', one for all.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown form, or several COCO files.
    """

    def __init__(self, root: str | os.PathLike, form: str = 'labelme') -> None:
        if form not in ANNOTATION_FORMATS:
            raise ValueError(f'annotations are {form!r:.40}; choose from {ANNOTATION_FORMATS}')
        self.root, self.form = Path(root).resolve(), form
        if not self.root.is_dir():
            raise FileNotFoundError(f'there is no folder {root}: give one with pictures')
        self.name = spelled(self.root.name) or spelled(self.root)
        self.id = hashlib.sha256(f'{platform.node()}\0'.encode() + os.fsencode(self.root)
                                 ).hexdigest()[:16]
        self._summaries: dict[str, tuple[Stamp, Summary]] = {}
        self._looks: dict[str, tuple[Stamp, _Look]] = {}
        self._list_lock = threading.Lock()
        self._writing = [threading.Lock() for _ in range(_LOCKS)]
        self._coco = CocoFolder(self.root) if form == 'coco' else None

    @property
    def read_only(self) -> bool:
        """Whether no annotations can be written."""
        return not may_write(self.root)

    def about(self) -> dict:
        """What /api/info says of it."""
        return dict(name=self.name, id=self.id, format=self.form, read_only=self.read_only)

    def listing(self) -> dict:
        """All pictures, with what is known of their annotations; see docs/serving.md."""
        with self._list_lock:
            places, notes = places_of(self.root)
            if self.read_only:
                notes.append('nothing can be written in this folder: annotations are shown, and '
                             'what is changed is kept in the browser alone')
            if self._coco is not None:
                rows = self._coco.rows(places, notes)
            else:
                rows = self._labelme_rows(places, notes)
        return dict(self.about(), notes=notes, pictures=[
            dict(path=spelled(path), objects=one.objects, done=one.done, fault=one.fault)
            for path, one in rows])

    def read(self, path: str) -> dict:
        """The annotations of a picture; see docs/serving.md.

        Raises:
            HTTPException, PermissionError, ImageError: it is no picture of the folder.
        """
        below = self._picture(path)
        look = self._look(below)
        opened = self._open(below, look)
        document = opened.document or Document([], {}, Frame(look.size))
        notes = [f'{opened.fault}. It is left as it is, and nothing is saved'] * bool(opened.fault)
        own = document.own
        known = own.get('digest')
        return dict(sendable({key: value for key, value in own.items() if key != 'digest'}),
                    objects=[one.object for one in document.held], done=own.get('done') is True,
                    rejected=sendable(own['rejected']) if isinstance(
                        own.get('rejected'), list) else [],
                    revision=opened.revision, changed=bool(known) and known != look.digest,
                    fault=opened.fault, notes=[sendable(note)
                                               for note in (*notes, *document.notes)])

    def write(self, path: str, body: dict) -> dict:
        """Save the annotations of a picture; see docs/serving.md.

        Raises:
            Refused: 409, 423 or 507; nothing is written then.
            ValueError: the request is wrong.
            HTTPException, PermissionError, ImageError: it is no picture of the folder.
        """
        given, revision = read_given(body), body.get('revision')
        if revision is not None and not isinstance(revision, str):
            raise ValueError('`revision` is the one that was read, a text or null')
        if not isinstance(body.get('force', False), bool):
            raise ValueError('`force` is true or false')
        below = self._picture(path)
        look = self._look(below)
        given.own['digest'] = given.own.get('digest') or look.digest
        for _ in range(_TRIES):
            saved = self._write(below, look, given, revision, body.get('force') is True)
            if saved is not None:
                return dict(revision=saved)
        raise Refused(423, f'another program writes the annotations of {path!r:.200} all the '
                           'time: try again when it has ended')

    # --- pictures ------------------------------------------------------------------------------
    def _picture(self, path: str) -> str:
        """The path of a picture below the root."""
        for text in spellings(path):
            below = os.path.normpath(text).replace(os.sep, '/')
            parts = below.split('/')
            if '\0' in text or os.path.isabs(text) or '..' in parts:
                raise PermissionError('the path is outside the folder that this server may use')
            place = self.root / below
            if any(part.startswith('.') for part in parts) or \
                    os.path.splitext(below)[1].lower() not in SUFFIXES:
                continue
            try:
                there = place.is_file()
            except OSError:  # a name that is too long
                continue
            if there and not is_inside(self.root, place):
                raise PermissionError('the path leads out of the folder that this server may use')
            if there:
                return below
        raise Refused(404, f'there is no picture {path!r:.200} in the folder of this server (any '
                           'more)')

    def _look(self, below: str) -> _Look:
        place = self.root / below
        try:
            stamp = Stamp.of(place.stat())
            known = self._looks.get(below)
            if known is not None and known[0] == stamp:
                return known[1]
            if stamp.size > MAX_ROOT_BYTES:
                raise Refused(413, f'the picture has more than {MAX_ROOT_BYTES:,} bytes')
            raw = place.read_bytes()
        except OSError as error:
            raise Refused(404, f'the picture {spelled(below)!r:.200} cannot be read: '
                               f'{error.strerror}') from None
        with open_picture(raw, spelled(place.name)) as image:
            stored, tag = stored_size(image)[::-1], orientation_of(image)
        look = _Look(digest_of(raw), turned(stored, tag), tag)
        self._looks[below] = stamp, look
        return look

    # --- reading -------------------------------------------------------------------------------
    def _file(self, below: str) -> Path | None:
        """The file of a picture's annotations; None where no name is free for it."""
        if self._coco is not None:
            return self._coco.file
        folder, _, name = below.rpartition('/')
        try:
            place, _ = place_at(self.root, folder)
        except OSError as error:
            raise Refused(404, f'the folder of {spelled(below)!r:.200} cannot be read: '
                               f'{error.strerror}') from None
        read = partial(self._summary, place, float('inf'))
        file = file_of(place, name, lambda file: read(file).owner)
        return None if file is None else self.root / place.below(file)

    def _open(self, below: str, look: _Look) -> _Opened:
        file = self._file(below)
        if file is None:
            return _Opened(None, fault=_NO_NAME)
        revision = stamp = None
        try:
            raw, stamp = annotation_bytes(self.root, file)
            revision = None if raw is None else digest_of(raw)
            if self._coco is not None:
                index = self._coco.index(raw, below)
                revision = folder_coco.revision_of(index, below)
                document = folder_coco.read_picture(index, below, look.size, look.tag)
                merge = partial(folder_coco.merge_picture, index, below, document)
            else:
                content = content_of(raw, file)
                document = folder_labelme.read_document(content, look.size, look.tag)
                merge = partial(self._merged, file, content, document, below)
        except (OSError, ValueError, RecursionError) as error:
            return _Opened(file, stamp, revision, fault=reading_fault(file, error))
        fault = ''
        if raw is not None and is_guessed(raw):
            fault = (f'{spelled(file.name)} is not in UTF-8 and is read as Windows-1252, so that '
                     'names may be wrong')
        return _Opened(file, stamp, revision, document, fault, merge)

    @staticmethod
    def _merged(file: Path, content, document: Document, below: str, given: Sent) -> dict | None:
        name = below.rpartition('/')[2]
        merged = folder_labelme.merge_document(content, document, given, name)
        if merged is not None and not merged.get('imageData'):
            said = merged.get('imagePath')
            try:
                there = (file.parent / said.replace('\\', '/')).is_file() or (
                    file.parent / said).is_file()
            except (AttributeError, OSError, ValueError):
                there = False
            if not there:  # LabelMe would not find the picture
                merged['imagePath'] = name
        return merged

    # --- writing -------------------------------------------------------------------------------
    def _write(self, below: str, look: _Look, given: Sent, revision: str | None, force: bool
               ) -> str | None:
        """The new revision; None where the file was changed while it was written."""
        folder = self.root if self._coco is not None else (self.root / below).parent
        with self._locked(folder):
            opened = self._open(below, look)
            if opened.fault:
                raise Refused(423, f'{opened.fault}. Nothing is saved, so that nothing of it is '
                                   'lost: mend the file or move it away',
                              revision=opened.revision)
            if opened.revision != revision and not force:
                raise Refused(409, 'another tab or program has changed the annotations of '
                                   f'{spelled(below)!r:.200} meanwhile: read them again, or save '
                                   'with `force`', revision=opened.revision)
            content = opened.merge(given)
            if content is None:
                return opened.revision
            raw = _encoded(content, None if self._coco is not None else 2)
            if len(raw) > MAX_ANNOTATION_BYTES:
                raise Refused(507, f'{spelled(opened.file.name)} would have more than '
                                   f'{MAX_ANNOTATION_BYTES:,} bytes, which are not read again')
            if not self._replace(opened.file, raw, opened.stamp):
                return None
            if self._coco is None:
                return digest_of(raw)
            return folder_coco.revision_of(self._coco.keep(raw, content), below)

    def _replace(self, file: Path, raw: bytes, stamp: Stamp | None) -> bool:
        """Write a file whole; False where it is no longer the one of ``stamp``.

        Raises:
            Refused: it cannot be written.
        """
        where = spelled(file.relative_to(self.root))
        if not may_write(file.parent) or not may_write(file):
            raise Refused(423, f'{where} may not be written: allow it, or start the server with '
                               'another folder')
        try:
            remove_leftovers(file)
            with _free(file), replacing(file) as aside:
                aside.write_bytes(raw)
                sync_file(aside)  # before the last look: the disk takes its time
                try:
                    now = Stamp.of(os.stat(file))
                except FileNotFoundError:
                    now = None
                if now != stamp:
                    raise _Changed
        except _Changed:
            return False
        except BlockingIOError:
            raise Refused(423, f'another program holds {where}: close it there') from None
        except OSError as error:
            if error.errno in _FULL:
                raise Refused(507, f'{where} was not written, the disk is full: make room and '
                                   'save again. The file is as it was') from None
            raise Refused(423, f'{where} was not written: {error.strerror or error}. The file is '
                               'as it was') from None
        return True

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """One write at a time in a folder, of this server and of others on this machine."""
        with self._writing[hash(folder) % _LOCKS], ExitStack() as stack:
            if fcntl is not None:
                try:
                    handle = os.open(folder, os.O_RDONLY)
                except OSError as error:
                    raise Refused(404, f'the folder of the picture cannot be read: '
                                       f'{error.strerror}') from None
                stack.callback(os.close, handle)
                until = time.monotonic() + _HELD_SECONDS
                while not _lock(handle):
                    if time.monotonic() > until:
                        raise Refused(423, f'another program holds {spelled(folder.name)}: close '
                                           'it there')
                    time.sleep(0.01)
            yield

    # --- lists ---------------------------------------------------------------------------------
    def _labelme_rows(self, places: list[PictureFolder], notes: list[str]) -> list:
        rows, late, until = [], 0, time.monotonic() + _LIST_SECONDS
        for place in places:
            read, claimed = partial(self._summary, place, until), set()
            for name in place.pictures:
                file = file_of(place, name, lambda file: getattr(read(file), 'owner', None))
                summary = Summary(fault=_NO_NAME) if file is None else read(file)
                claimed.add(file)
                late += summary is None
                rows.append((place.below(name), summary or Summary()))
            others = [] if place.path else sorted(place.stamps.keys() - claimed)
            notes += [one.fault for one in map(read, others[:_OTHERS])
                      if one is not None and one.fault.endswith(_COCO)]
        there = {place.below(file) for place in places for file in place.stamps}
        for gone in set(self._summaries) - there:
            self._summaries.pop(gone, None)
        if late:
            notes.append(f'the annotations of {late} pictures are not read yet: ask again')
        return rows

    def _summary(self, place: PictureFolder, until: float, file: str) -> Summary | None:
        """Of a file; None where it is not known yet and the time is over."""
        stamp, path = place.stamps.get(file), place.below(file)
        if stamp is None:
            return Summary()
        known = self._summaries.get(path)
        if known is None or known[0] != stamp:
            if time.monotonic() > until:
                return None
            known = self._summaries[path] = stamp, _summed(self.root, self.root / path)
        return known[1]


class _Changed(Exception):
    """Another program wrote the file meanwhile."""


def _summed(root: Path, file: Path) -> Summary:
    """Of a file of LabelMe's."""
    try:
        raw, _ = annotation_bytes(root, file)
        content = content_of(raw, file)
    except (OSError, ValueError, RecursionError) as error:
        return Summary(fault=reading_fault(file, error))
    if content is None:
        return Summary()
    if is_coco(content):
        return Summary(fault=f'{spelled(file.name)}{_COCO}')
    if not is_labelme(content):
        return Summary(fault=f"{spelled(file.name)} is no file of LabelMe's")
    said = content.get('imagePath')
    return Summary(len(folder_labelme.groups_of(content['shapes'])),
                   own_of(content).get('done') is True, '',
                   said.replace('\\', '/').rpartition('/')[2] or None
                   if isinstance(said, str) else None)


def _encoded(content: dict, indent: int | None) -> bytes:
    """A file's bytes: UTF-8; where a name is not of Unicode, as escapes."""
    try:
        return (json.dumps(content, ensure_ascii=False, indent=indent) + '\n').encode()
    except UnicodeEncodeError:
        return (json.dumps(content, indent=indent) + '\n').encode()


@contextmanager
def _free(file: Path) -> Iterator[None]:
    """Raises BlockingIOError where another program holds a file."""
    with ExitStack() as stack:
        if fcntl is not None and file.exists():
            held = stack.enter_context(open(file, 'r+b'))
            for lock in (fcntl.flock, fcntl.lockf):
                try:
                    lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise
                except OSError as error:  # a file system without locks
                    if error.errno == errno.EACCES:
                        raise BlockingIOError from None
        yield


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
