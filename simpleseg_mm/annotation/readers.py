"""Readers: where images come from, cut into chunks whose names depend on the input alone."""
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simpleseg_mm.registry import STAGES

from .sample import Chunk, Sample, clean_text, safe_key
from .tar import TarCut, members

IMAGE_SUFFIXES = ('jpg', 'jpeg', 'png', 'webp', 'gif', 'bmp', 'tif', 'tiff')
MAX_CAPTION = 1000  # characters of a source's caption that are kept. Our choice
_SIDECARS = ('.json', '.txt')  # fields, caption
_FIELDS = ('caption', 'text', 'TEXT', 'alt_text', 'tags', 'url', 'license', 'sha256', 'id')


@dataclass(frozen=True)
class InputFile:
    """A piece of input that one process reads: a tar, a parquet file, a run of a folder's files.

    Attributes:
        name: unique; the chunks' names begin with it.
        paths: relative to the reader's root where it has one; a folder's images come first,
            then the captions and fields beside them.
        weight: of progress: images of a folder, bytes of a file.
    """
    name: str
    paths: tuple[str, ...]
    weight: float


class Reader:
    """Base of the readers.

    Args:
        shard_size: images of a chunk, hence of an output shard, at most.
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
        return [InputFile(name, (path,), os.path.getsize(path))
                for name, path in zip(names, found)]


@STAGES.register_module()
class ReadFolder(Reader):
    """A folder of images and all folders below it.

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
        found = {str(path.relative_to(self.root)) for path in self.root.rglob('*')}
        paths = sorted(path for path in found
                       if path.rpartition('.')[2].lower() in IMAGE_SUFFIXES)
        if not paths:
            raise FileNotFoundError(f'{self.root} holds no images ({", ".join(IMAGE_SUFFIXES)})')
        groups = [paths[i:i + self.shard_size] for i in range(0, len(paths), self.shard_size)]
        name = safe_key(self.root.resolve().name)
        return [InputFile(f'{name}-{number:06d}', tuple(group) + tuple(
                    beside for path in group for suffix in _SIDECARS
                    if (beside := path.rpartition('.')[0] + suffix) in found), len(group))
                for number, group in enumerate(groups)]

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        if done(file.name):
            yield Chunk(file.name, [], file.weight)
            return
        there = set(file.paths)
        samples, keys = [], set()
        for path in file.paths[:int(file.weight)]:
            key = base = safe_key(path.rpartition('.')[0])
            number = 1
            while key in keys:  # a.jpg and a.png: two images
                number += 1
                key = f'{base}-{number}'
            keys.add(key)
            sample = Sample(key, meta=dict(file=path))
            try:
                sample.raw = (self.root / path).read_bytes()
                _add_meta(sample, *(
                    (self.root / beside).read_bytes() if beside in there else None
                    for beside in (path.rpartition('.')[0] + suffix for suffix in _SIDECARS)))
            except OSError as error:
                sample.drop('read', f'failed: {type(error).__name__}', quarantine=True)
            samples.append(sample)
        yield Chunk(file.name, samples, file.weight)


@STAGES.register_module()
class ReadTars(Reader):
    """Uncompressed tars in WebDataset's form: ``KEY.jpg``, ``KEY.txt``, ``KEY.json``.

    A tar that breaks off is used as far as it goes. A key that comes again is dropped.

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
        groups: list[tuple[str, dict]] = []
        faults = []
        with open(path, 'rb') as tar:
            try:
                for name, offset, size in members(tar, os.path.getsize(path)):
                    folder, _, base = name.rpartition('/')
                    stem, _, suffix = base.partition('.')
                    key, suffix = f'{folder}/{stem}'.lstrip('/'), suffix.lower()
                    if not groups or groups[-1][0] != key or suffix in groups[-1][1]:
                        groups.append((key, {}))
                    groups[-1][1][suffix] = offset, size
            except TarCut as error:
                faults.append(('tar cut short', f'{path}: {error}'))
            count = max(1, -(-len(groups) // self.shard_size))
            seen: set[str] = set()
            for number in range(count):
                part = groups[number * self.shard_size:(number + 1) * self.shard_size]
                chunk = Chunk(f'{file.name}-{number:04d}', [], file.weight / count,
                              faults if number == count - 1 else [])
                if done(chunk.name):
                    seen.update(safe_key(key) for key, _ in part)
                else:
                    chunk.samples = [self._sample(tar, path, key, places, seen)
                                     for key, places in part]
                yield chunk

    @staticmethod
    def _sample(tar, path: str, key: str, places: dict, seen: set) -> Sample:
        def content(suffix: str) -> bytes | None:
            if suffix not in places:
                return None
            tar.seek(places[suffix][0])
            return tar.read(places[suffix][1])

        sample = Sample(safe_key(key), meta=dict(file=f'{os.path.basename(path)}/{key}'))
        suffix = next((s for s in IMAGE_SUFFIXES if s in places), None)
        if sample.key in seen:
            sample.key = f'{sample.key}-{places[next(iter(places))][0]}'
            sample.drop('read', 'duplicate key')
        elif suffix is None:
            sample.drop('read', 'no image')
        else:
            sample.raw = content(suffix)
            _add_meta(sample, content('json'), content('txt'))
        seen.add(sample.key)
        return sample


@STAGES.register_module()
class ReadParquet(Reader):
    """Parquet files with encoded images: a column of bytes, or of structs with ``bytes``.

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

    def files(self) -> list[InputFile]:
        return self._named_files(self.paths, '.parquet')

    def chunks(self, file: InputFile, done: Callable[[str], bool]) -> Iterator[Chunk]:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise ImportError("ReadParquet needs pyarrow: pip install 'simpleseg-mm[annotate]'"
                              ) from None
        path, = file.paths
        number = place = 0
        try:
            table = parquet.ParquetFile(path)
            columns = [self.image, *([self.caption] if self.caption else [])]
            if missing := set(columns) - set(table.schema_arrow.names):
                raise ValueError(f'{path} has no column {sorted(missing)}, only '
                                 f'{table.schema_arrow.names}; set reader.image, reader.caption')
            count = max(1, -(-table.metadata.num_rows // self.shard_size))
            for batch in table.iter_batches(self.shard_size, columns=columns):
                chunk = Chunk(f'{file.name}-{number:04d}', [], file.weight / count)
                if not done(chunk.name):
                    chunk.samples = [self._sample(path, row, place + k)
                                     for k, row in enumerate(batch.to_pylist())]
                number, place = number + 1, place + batch.num_rows
                yield chunk
        except OSError as error:  # pyarrow's errors for what is broken or cut short
            yield self._broken(file, number, error)
        except ValueError as error:
            if type(error) is ValueError:
                raise
            yield self._broken(file, number, error)

    def _broken(self, file: InputFile, number: int, error: Exception) -> Chunk:
        return Chunk(f'{file.name}-{number:04d}', [], 0 if number else file.weight,
                     [('parquet broken', f'{file.paths[0]}: {clean_text(error, 200)}')])

    def _sample(self, path: str, row: dict, place: int) -> Sample:
        sample = Sample(f'{place:08d}', meta=dict(file=f'{os.path.basename(path)}/{place}'))
        image = row[self.image]
        raw = image.get('bytes') if isinstance(image, dict) else image
        if isinstance(raw, bytes):
            sample.raw = raw
            caption = row.get(self.caption)
            _add_meta(sample, None, caption.encode() if isinstance(caption, str) else None)
        else:
            sample.drop('read', 'no image')
        return sample


def _add_meta(sample: Sample, fields: bytes | None, caption: bytes | None) -> None:
    """Take known fields and the caption over, as one clean line each."""
    try:
        known = json.loads(fields) if fields is not None else {}
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
        sample.meta['caption'] = caption.decode('utf-8', 'replace')
    for name, value in sample.meta.items():
        if isinstance(value, str) and name != 'file':
            cleaned = clean_text(value, MAX_CAPTION)
            if len(value) > 4 * MAX_CAPTION or len(cleaned) >= MAX_CAPTION - 1:
                sample.notes.append(f'{name} cut')
            elif name == 'caption' and cleaned != value:
                sample.notes.append('caption cleaned')
            sample.meta[name] = cleaned
