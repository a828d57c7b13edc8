"""Readers: where images come from, cut into chunks whose names depend on the input alone.

What an input file holds becomes samples, or is counted: as a dropped image, in the notes of a
chunk, or as a fault of the file. Nothing that a file holds ends a run.
"""
import glob
import json
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from simpleseg_mm.files.pictures import MAX_BYTES, SUFFIXES
from simpleseg_mm.files.texts import decode_text
from simpleseg_mm.registry import STAGES

from .sample import Chunk, Sample, clean_text, safe_key
from .tar import TarCut, members

# Our choices.
MAX_CAPTION = 1000  # characters of a source's caption that are kept
MAX_BESIDE = 1_000_000  # bytes of a caption or of fields that are read
MAX_CHUNK = 1_000_000_000  # bytes of images in a chunk: it lies in memory as a whole
MAX_MEMBERS = 2_000_000  # files of a tar
MAX_UNPACKED = 100  # of a parquet file, in bytes of the file; MAX_CHUNK is always allowed
MAX_FAULTS = 20  # of an input file that are named one by one

_SIDECARS = ('.json', '.txt')  # fields, caption
_FIELDS = ('caption', 'text', 'TEXT', 'alt_text', 'tags', 'url', 'license', 'sha256', 'id')
_OF_A_SYSTEM = {'__macosx', 'thumbs.db', 'desktop.ini', '$recycle.bin',
                'system volume information'}
_HIDDEN = 'left out: hidden, or of macOS or Windows'
_NO_FILE = 'left out: link, device or sparse file'
_NO_CAPTION = 'picture without a caption'


@dataclass(frozen=True)
class InputFile:
    """A piece of input that one process reads: a tar, a parquet file, a run of a folder's files.

    Attributes:
        name: unique; the chunks' names begin with it.
        paths: relative to the reader's root where it has one; a folder's images come first,
            then the captions and fields beside them.
        weight: of progress: images of a folder, bytes of a file.
        repeated: those of a folder's images whose name, without folders and suffix, another
            image of the folder has too.
        notes: what was met before anything was read, see :class:`Chunk`.
    """
    name: str
    paths: tuple[str, ...]
    weight: float
    repeated: frozenset[str] = frozenset()
    notes: Counter = field(default_factory=Counter)


class Reader:
    """Base of the readers.

    Args:
        shard_size: images of a chunk, hence of an output shard, at most. A chunk ends before it
            too, where its images have a gigabyte.
    """

    def __init__(self, shard_size: int = 256) -> None:
        if shard_size < 1:
            raise ValueError(f'shard_size must be at least 1, got {shard_size}')
        self.shard_size = shard_size

    def files(self) -> list[InputFile]:
        """All input in a fixed order. FileNotFoundError where there is none."""
        raise NotImplementedError

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        """The chunks of a file. Of those that are ``done`` nothing is read where that can be."""
        raise NotImplementedError

    def _named_files(self, paths: Sequence[str] | str, suffix: str) -> list[InputFile]:
        patterns = [paths] if isinstance(paths, str) else list(paths)
        found = sorted({path for pattern in patterns for path in glob.glob(pattern)})
        if not found:
            raise FileNotFoundError(f'no {suffix} files match {patterns}; set reader.paths')
        names = [safe_key(Path(path).name.removesuffix(suffix)) for path in found]
        if len(set(names)) < len(names):
            folders = [safe_key(Path(path).parent.name) for path in found]
            names = [f'{folder}-{name}' for folder, name in zip(folders, names)]
        if len(set(names)) < len(names):
            raise ValueError(f'{patterns} match files of one name: {sorted(names)[:4]}...; give '
                             'them different names, shards are called after them')
        return [InputFile(name, (path,), _size(path) or 0) for name, path in zip(names, found)]

    def _slices(self, sizes: Sequence[int]) -> list[slice]:
        """Where a row of images of these sizes in bytes is cut into chunks; one at least."""
        starts, total = [0], 0
        for place, size in enumerate(sizes):
            size = size if size <= MAX_BYTES else 0  # not read
            if place - starts[-1] == self.shard_size or total + size > MAX_CHUNK:
                starts.append(place)
                total = 0
            total += size
        return [slice(*pair) for pair in zip(starts, [*starts[1:], len(sizes)])]


@STAGES.register_module()
class ReadFolder(Reader):
    """A folder of images and all folders below it, links to folders included.

    ``a.txt`` beside ``a.jpg`` is its caption, ``a.json`` its fields (img2dataset's 'files' form).

    Args:
        root: the folder.
        **kwargs: see :class:`Reader`.
    """

    def __init__(self, root: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def files(self) -> list[InputFile]:
        if not self.root.is_dir():
            raise FileNotFoundError(f'no folder {self.root}; set reader.root')
        notes: Counter = Counter()
        sizes, beside = {}, {}
        for path in _walk(self.root, notes):
            suffix = os.path.splitext(path)[1].lower()
            if suffix in SUFFIXES:
                size = _size(self.root / path)
                if size is None:
                    notes[_NO_FILE] += 1
                else:
                    sizes[path] = size
            elif suffix in _SIDECARS:
                beside.setdefault(_beside(path), path)
            else:
                notes[_other(suffix)] += 1
        paths = sorted(sizes)
        if not paths:
            raise FileNotFoundError(f'{self.root} holds no images ({", ".join(SUFFIXES)})')
        wanted = {(_stem(path), suffix) for path in paths for suffix in _SIDECARS}
        if unused := len(beside.keys() - wanted):
            notes['left out: caption or fields without a picture'] += unused
        names = Counter(_stem(os.path.basename(path)) for path in paths)
        name = safe_key(self.root.resolve().name)
        files = []
        for number, part in enumerate(self._slices([sizes[path] for path in paths])):
            group = paths[part]
            files.append(InputFile(
                f'{name}-{number:06d}',
                (*group, *dict.fromkeys(beside[key] for path in group for suffix in _SIDECARS
                                        if (key := (_stem(path), suffix)) in beside)),
                len(group), frozenset(path for path in group
                                      if names[_stem(os.path.basename(path))] > 1),
                Counter() if number else notes))
        return files

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        chunk = Chunk(file.name, [], file.weight)
        if done(file.name):
            yield chunk
            return
        count = int(file.weight)
        beside = {_beside(path): path for path in file.paths[count:]}
        chunk.notes = Counter(file.notes)
        keys = set()
        for path in file.paths[:count]:
            key = base = safe_key(_stem(path))
            number = 1
            while key in keys:  # a.jpg and a.png: two images
                number += 1
                key = f'{base}-{number}'
            keys.add(key)
            sample = Sample(key, meta=dict(file=_text(path)), alone=path not in file.repeated)
            fields, caption = (beside.get((_stem(path), suffix)) for suffix in _SIDECARS)
            chunk.notes[_NO_CAPTION] += caption is None
            try:
                raw = _content(self.root / path, MAX_BYTES)
                if raw is None:
                    sample.drop('read', 'too many bytes')
                else:
                    sample.raw = raw
                    _add_meta(sample, *(one and _content(self.root / one, MAX_BESIDE + 1, cut=True)
                                        for one in (fields, caption)))
            except OSError as error:
                sample.drop('read', f'failed: {type(error).__name__}', quarantine=True)
            chunk.samples.append(sample)
        yield chunk


@STAGES.register_module()
class ReadTars(Reader):
    """Uncompressed tars in WebDataset's form: ``KEY.jpg``, ``KEY.txt``, ``KEY.json``.

    The key is the path up to the first dot of the file's name. Captions and fields may stand
    anywhere in the tar. A tar that breaks off is used as far as it goes. A key that comes again is
    dropped.

    Args:
        paths: glob patterns.
        **kwargs: see :class:`Reader`.
    """

    def __init__(self, paths: Sequence[str] | str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.paths = paths

    def files(self) -> list[InputFile]:
        return self._named_files(self.paths, '.tar')

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        path, = file.paths
        try:
            tar = _open(path)
        except OSError as error:
            yield _unreadable(file, error)
            return
        with tar:
            notes: Counter = Counter()
            faults: list = []
            groups = _groups(tar, path, notes, faults)
            slices = self._slices([sum(size for _, size in places.values())
                                   for _, places in groups])
            seen: set[str] = set()
            for number, part in enumerate(slices):
                chunk = Chunk(f'{file.name}-{number:04d}', [], file.weight / len(slices))
                if number == len(slices) - 1:
                    chunk.faults, chunk.notes = faults, notes
                if done(chunk.name):
                    seen.update(safe_key(key) for key, _ in groups[part])
                else:
                    chunk.samples = [_tar_sample(tar, path, key, places, seen, chunk.notes)
                                     for key, places in groups[part]]
                yield chunk


def _groups(tar: BinaryIO, path: str, notes: Counter, faults: list) -> list[tuple[str, dict]]:
    """Key, and offset and size by suffix, of all records of a tar, in its order."""
    groups: list[tuple[str, dict]] = []
    try:
        for number, (name, offset, size) in enumerate(members(tar, os.fstat(tar.fileno()).st_size)
                                                      ):
            if number == MAX_MEMBERS:
                raise TarCut(f'it holds more than {MAX_MEMBERS:,} files; the rest is not read')
            parts = [part for part in name.replace('\\', '/').split('/')
                     if part not in ('', '.', '..')]
            if _hidden(parts):
                notes[_HIDDEN] += 1
                continue
            if size < 0:
                notes[_NO_FILE] += 1
                continue
            stem, dot, suffix = parts[-1].partition('.')
            suffix = dot + suffix.lower()
            if suffix not in SUFFIXES and suffix not in _SIDECARS:
                notes[_other(suffix)] += 1
                continue
            key = unicodedata.normalize('NFC', '/'.join([*parts[:-1], stem]))
            if not groups or groups[-1][0] != key or suffix in groups[-1][1]:
                groups.append((key, {}))
            groups[-1][1][suffix] = offset, size
    except (TarCut, OSError) as error:
        faults.append(('tar cut short', f'{path}: {clean_text(error, 300)}'))
    return _joined(groups)


def _joined(groups: list[tuple[str, dict]]) -> list[tuple[str, dict]]:
    """Captions and fields that stand apart from their picture join it, if it is the only one."""
    pictures: dict[str, list[dict]] = {}
    for key, places in groups:
        if any(suffix in places for suffix in SUFFIXES):
            pictures.setdefault(key, []).append(places)
    left = []
    for key, places in groups:
        owners = pictures.get(key, [])
        if len(owners) == 1 and owners[0] is not places and not owners[0].keys() & places.keys():
            owners[0].update(places)
        else:
            left.append((key, places))
    return left


def _tar_sample(tar: BinaryIO, path: str, key: str, places: dict, seen: set, notes: Counter
                ) -> Sample:
    def content(suffix: str, most: int) -> bytes | None:
        if suffix not in places:
            return None
        tar.seek(places[suffix][0])
        return tar.read(min(places[suffix][1], most))

    sample = Sample(safe_key(key), meta=dict(file=_text(f'{os.path.basename(path)}/{key}')))
    suffixes = [suffix for suffix in SUFFIXES if suffix in places]
    if sample.key in seen:
        sample.key = f'{sample.key}-{places[next(iter(places))][0]}'
        sample.drop('read', 'duplicate key')
    elif not suffixes:
        sample.drop('read', 'no image')
    elif places[suffixes[0]][1] > MAX_BYTES:
        sample.drop('read', 'too many bytes')
    else:
        notes['left out: further picture of a key'] += len(suffixes) - 1
        notes[_NO_CAPTION] += '.txt' not in places
        try:
            sample.raw = content(suffixes[0], MAX_BYTES)
            _add_meta(sample, *(content(suffix, MAX_BESIDE + 1) for suffix in _SIDECARS))
        except OSError as error:
            sample.drop('read', f'failed: {type(error).__name__}', quarantine=True)
    seen.add(sample.key)
    return sample


@STAGES.register_module()
class ReadParquet(Reader):
    """Parquet files with encoded images: a column of bytes, or of structs with ``bytes``.

    What is unpacked is bounded by what the file says of its groups of rows before they are read,
    and then by the file's own size: a few bytes of a parquet file can stand for terabytes.

    Args:
        paths: glob patterns.
        image: name of the column of images.
        caption: name of the column of captions, if there is one.
        **kwargs: see :class:`Reader`.
    """

    def __init__(self, paths: Sequence[str] | str, image: str = 'image',
                 caption: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.paths, self.image, self.caption = paths, image, caption
        self.columns = [image, *([caption] if caption else [])]

    def files(self) -> list[InputFile]:
        found = self._named_files(self.paths, '.parquet')
        fault = ''
        for file in found:  # a column that no file has is a mistake of the config
            try:
                self._open(file.paths[0])
                return found
            except LookupError as error:
                fault = fault or error.args[0]
            except ImportError:
                raise
            except Exception:  # a fault of the file, counted when it is read
                pass
        if fault:
            raise ValueError(f'{fault}; set reader.image, reader.caption')
        return found

    def _open(self, path: str):
        """The file. LookupError where it lacks a column; else whatever its bytes lead to."""
        try:
            import pyarrow.parquet as parquet  # optional
        except ImportError:
            raise ImportError("ReadParquet needs pyarrow: pip install 'simpleseg-mm[annotate]'"
                              ) from None
        if _size(path) is None:
            raise OSError('no file')
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
        if missing := sorted(set(self.columns) - set(names)):
            raise LookupError(f'{path} has no column {missing}, only {names}')
        return table

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        path, = file.paths
        try:
            table = self._open(path)
        except ImportError:
            raise
        except Exception as error:  # whatever its bytes lead to
            yield _unreadable(file, error, 'parquet broken')
            return
        with table:
            faults: list = []
            rows = self._rows(table, path, faults)
            number, place, total = 0, 0, max(1, table.metadata.num_rows)
            row = next(rows, None)
            while row is not None or number == 0:
                chunk = Chunk(f'{file.name}-{number:04d}', [])
                skip, count, size = done(chunk.name), 0, 0
                while row is not None and count < self.shard_size:
                    place, raw, caption = row
                    size += len(raw) if raw is not None and len(raw) <= MAX_BYTES else 0
                    if count and size > MAX_CHUNK:
                        break
                    count += 1
                    if not skip:
                        chunk.samples.append(self._sample(path, *row, chunk.notes))
                    row = next(rows, None)
                chunk.weight = file.weight * count / total
                if row is None:
                    chunk.faults = faults[:MAX_FAULTS]
                    if len(faults) > MAX_FAULTS:
                        chunk.faults.append(('parquet broken', f'{path}: {len(faults)} groups of '
                                             'rows'))
                number += 1
                yield chunk

    def _rows(self, table, path: str, faults: list
              ) -> Iterator[tuple[int, bytes | None, str | bytes | None]]:
        """Number, image and caption of each row that can be read; the others are faults."""
        metadata = table.metadata
        left = max(MAX_CHUNK, MAX_UNPACKED * (_size(path) or 0))
        first = 0
        for group in range(metadata.num_row_groups):
            place = first
            try:
                rows = metadata.row_group(group).num_rows
                if rows < 1:
                    continue
                first += rows
                size = metadata.row_group(group).total_byte_size
                if size > left or size > MAX_BYTES * rows:
                    raise ValueError(f'they would unpack to {size:,} bytes')
                # Row by row: a header may lie, and more at once is no faster for images.
                for batch in table.iter_batches(1, row_groups=[group], columns=self.columns):
                    left -= batch.nbytes
                    if left < 0:
                        raise ValueError(f'the file unpacks to more than {MAX_UNPACKED} times its '
                                         'bytes')
                    for row in batch.to_pylist()[:first - place]:
                        image = row[self.image]
                        raw = image.get('bytes') if isinstance(image, dict) else image
                        yield place, raw if isinstance(raw, bytes) else None, row.get(self.caption)
                        place += 1
                if place < first:
                    raise ValueError('they are not there')
            except Exception as error:  # pyarrow raises whatever broken bytes lead to
                faults.append(('parquet broken', f'{path}: {first - place} rows from row {place} '
                               f'on are not read: {clean_text(error, 200)}'))
        if first != metadata.num_rows:
            faults.append(('parquet broken', f'{path}: it holds {first} rows, and says '
                           f'{metadata.num_rows}'))

    def _sample(self, path: str, place: int, raw: bytes | None, caption, notes: Counter) -> Sample:
        sample = Sample(f'{place:08d}', meta=dict(file=_text(f'{os.path.basename(path)}/{place}')))
        if raw is None:
            sample.drop('read', 'no image')
        elif len(raw) > MAX_BYTES:
            sample.drop('read', 'too many bytes')
        else:
            sample.raw = raw
            caption = caption.encode() if isinstance(caption, str) else caption
            caption = caption if isinstance(caption, bytes) else None
            notes[_NO_CAPTION] += self.caption is not None and caption is None
            _add_meta(sample, None, caption)
        return sample


def _unreadable(file: InputFile, error: Exception, reason: str = 'file unreadable') -> Chunk:
    """The only chunk of an input file that cannot be opened."""
    return Chunk(f'{file.name}-0000', [], file.weight,
                 [(reason, f'{file.paths[0]}: {clean_text(error, 200) or type(error).__name__}')])


def _walk(root: Path, notes: Counter) -> Iterator[str]:
    """Files below a folder, relative to it; a folder that is linked twice is entered once."""
    def failed(error: OSError) -> None:
        notes['left out: folder that cannot be read'] += 1

    seen = set()
    for folder, folders, files in os.walk(root, onerror=failed, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            notes['left out: folder that is linked twice'] += 1
            folders[:] = []
            continue
        seen.add(place)
        if folder != str(root) and 'run.json' in files and {'ledger', 'shards'} <= set(folders):
            notes['left out: folder of a run'] += 1
            folders[:] = []
            continue
        hidden = [name for name in (*folders, *files) if _hidden([name])]
        notes[_HIDDEN] += len(hidden)
        folders[:] = sorted(set(folders).difference(hidden))
        for name in set(files).difference(hidden):
            yield os.path.relpath(os.path.join(folder, name), root)


def _hidden(parts: Sequence[str]) -> bool:
    """Whether a path is no user's file: macOS's doubles (``._a.jpg``) and the like."""
    return not parts or any(part.startswith('.') or part.lower() in _OF_A_SYSTEM
                            for part in parts)


def _other(suffix: str) -> str:
    """Reason to leave out a file that is neither picture nor caption nor fields."""
    return f'left out: *{suffix}' if re.fullmatch(r'[.0-9a-z]{2,16}', suffix) else (
        'left out: files of other kinds')


def _stem(path: str) -> str:
    """A path without its suffix; letters composed, as macOS does not write them."""
    return unicodedata.normalize('NFC', os.path.splitext(path)[0])


def _beside(path: str) -> tuple[str, str]:
    """Stem and suffix of a caption or of fields."""
    return _stem(path), os.path.splitext(path)[1].lower()


def _text(name: str) -> str:
    """A name as text, whatever its bytes are."""
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def _size(path: str | os.PathLike) -> int | None:
    """Bytes of a file; 0 where it cannot be looked at, None where it is a pipe or the like."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _open(path: str | os.PathLike) -> BinaryIO:
    if _size(path) is None:  # a pipe would wait for ever
        raise OSError('no file')
    return open(path, 'rb')


def _content(path: Path, most: int, cut: bool = False) -> bytes | None:
    """Bytes of a file. None, or its beginning, where it has more than ``most``."""
    with _open(path) as file:
        raw = file.read(most + 1)
    return raw[:most] if cut else raw if len(raw) <= most else None


def _add_meta(sample: Sample, fields: bytes | None, caption: bytes | None) -> None:
    """Take known fields and the caption over, as one clean line each."""
    try:
        known = {} if fields is None else json.loads(_decoded(fields))
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        sample.notes.append('fields unreadable')
        known = {}
    for name in _FIELDS:
        value = known.get(name)
        if name == 'tags' and isinstance(value, list):
            sample.meta['tags'] = [clean_text(tag, 100) for tag in value[:256]
                                   if isinstance(tag, str)]
        elif isinstance(value, str | int | float):
            sample.meta['caption' if name in ('text', 'TEXT', 'alt_text') else name] = value
    if caption is not None:
        try:
            sample.meta['caption'] = _decoded(caption)
        except ValueError:
            sample.notes.append('caption unreadable')
    for name, value in sample.meta.items():
        if isinstance(value, str) and name != 'file':
            cleaned = clean_text(value, MAX_CAPTION)
            if len(value) > 4 * MAX_CAPTION or len(cleaned) >= MAX_CAPTION - 1:
                sample.notes.append(f'{name} cut')
            elif name == 'caption' and cleaned != value.rstrip('\r\n'):
                sample.notes.append('caption cleaned')
            sample.meta[name] = cleaned


def _decoded(raw: bytes) -> str:
    """Text of a caption or of fields. ValueError where it is none, or too long."""
    if len(raw) > MAX_BESIDE:
        raise ValueError(f'more than {MAX_BESIDE} bytes')
    text = decode_text(raw)
    if text.count('\0') > len(text) // 4:
        raise ValueError('no text')
    return text
