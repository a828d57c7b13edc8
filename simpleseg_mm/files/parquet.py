"""Parquet files read with care: rows without their pictures, and single pictures by their row.

pyarrow is optional, and imported when a file is opened.
"""
import os
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from .pictures import MAX_BYTES
from .texts import one_line

_ROWS = 1000  # that are unpacked at a time
_PICTURES = 16  # rows with pictures that are unpacked at a time
_MAX_OPEN = 16  # files that a process reads pictures from
# A file of annotations unpacks to some 3 times its bytes. Our choice.
_MAX_UNPACKED = 100
_MIN_UNPACKED = 1 << 28
_INSIDE = re.compile(r'(.+\.parquet)#(.+)\.(\d+)', re.DOTALL)
_POINTER = b'version https://git-lfs'


def open_parquet(path: str | Path):
    """A ``pyarrow.parquet.ParquetFile``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is broken, or pyarrow is not there; one line.
    """
    try:
        import pyarrow.parquet as parquet  # optional
    except ImportError:
        raise ValueError(f'{path} is a parquet file, which needs pyarrow: pip install pyarrow'
                         ) from None
    try:
        with open(path, 'rb') as file:
            head = file.read(len(_POINTER))
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no parquet file {path}') from None
    except OSError as error:
        raise ValueError(f'cannot read {path}: {error.strerror}') from None
    if head == _POINTER:
        raise ValueError(f'{path} is a pointer of Git LFS and holds no data; download the file '
                         'itself (git lfs pull, or hf download)')
    try:
        return parquet.ParquetFile(path, buffer_size=1 << 20)  # else a column is read as a whole
    except Exception as error:  # pyarrow raises whatever broken bytes lead to
        raise ValueError(_broken(path, error)) from None


def parquet_rows(path: str | Path, columns: Sequence[str]) -> Iterator[dict]:
    """Rows of a file as dicts of some columns; ``a.b`` is the field ``b`` of the column ``a``.

    Numbers of 32 bits are read as the shortest decimals that they stand for: 267.52 is 267.52.

    Raises:
        FileNotFoundError, ValueError: See :func:`open_parquet`; or a page is broken, the file
            unpacks to far more than its bytes, or has fewer rows than it says.
    """
    with open_parquet(path) as table:
        left = max(_MIN_UNPACKED, _MAX_UNPACKED * os.path.getsize(path))
        count, said = 0, table.metadata.num_rows
        batches = table.iter_batches(_ROWS, columns=list(columns), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                rows = None if batch is None else _as_decimals(batch).to_pylist()
            except Exception as error:  # whatever its bytes lead to
                raise ValueError(_broken(path, error)) from None
            if rows is None:
                break
            left -= batch.nbytes
            if left < 0:
                raise ValueError(f'{path} unpacks to more than {_MAX_UNPACKED} times its bytes; '
                                 'it is no file of annotations')
            count += len(rows)
            yield from rows
        if columns and count != said:
            raise ValueError(f'{path} holds {count} rows and says {said}; download it again')


def picture_column(path: str | Path, column: str) -> list[bool]:
    """Whether each row holds the bytes of a picture, which are read only where the file's own
    counts do not tell."""
    found: list[bool] = []
    with open_parquet(path) as table:
        metadata = table.metadata
        place = next((place for place in range(metadata.num_columns) if _holds_bytes(
            metadata.schema.column(place), column)), None)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            leaf = None if place is None else group.column(place)
            said = leaf.statistics if leaf is not None and leaf.is_stats_set else None
            nulls = said.null_count if said is not None and said.has_null_count else None
            if leaf is None or nulls in (0, group.num_rows):
                found += [nulls == 0] * group.num_rows
                continue
            try:
                for batch in table.iter_batches(_PICTURES, row_groups=[number],
                                                columns=[leaf.path_in_schema],
                                                use_threads=False):
                    found += [_bytes_of(one) is not None for one in batch.column(0)]
            except Exception as error:  # whatever its bytes lead to
                raise ValueError(_broken(path, error)) from None
    return found


def inside_parquet(path: str | Path, column: str, row: int) -> str:
    """The address of a picture: ``FILE.parquet#COLUMN.ROW``."""
    return f'{path}#{column}.{row}'


def is_inside_parquet(path: str | Path) -> bool:
    """Whether a picture's path is such an address, and no file of that name is there."""
    path = str(path)
    return '.parquet#' in path and _INSIDE.fullmatch(path) is not None and not os.path.exists(path)


def read_inside(address: str | Path) -> bytes:
    """The bytes of a picture by its address. A process reads on from where it read last, and each
    opens its own files.

    Raises:
        OSError: It is not there, or its file is broken.
    """
    path, column, row = _INSIDE.fullmatch(str(address)).groups()
    with _OPEN.lock:
        return _OPEN.cursor(path, column).read(int(row))


class _Cursor:
    """A place in a column of pictures: reading on costs nothing, going back starts a group of
    rows again. Holds few rows at a time."""

    def __init__(self, path: str, column: str) -> None:
        self.path, self.column = path, column
        try:
            self._table = open_parquet(path)
        except ValueError as error:
            raise OSError(str(error)) from None
        metadata = self._table.metadata
        self._starts = [0, *accumulate(metadata.row_group(k).num_rows
                                       for k in range(metadata.num_row_groups))]
        self._group, self._next = -1, 0
        self._batches: Iterator = iter(())
        self._held: deque = deque(maxlen=2)  # two: threads ask nearly in order

    def read(self, row: int) -> bytes:
        try:
            found = self._find(row)
        except OSError:
            raise
        except Exception as error:  # whatever its bytes lead to
            self._group = -1
            raise OSError(_broken(self.path, error)) from None
        if found is None:
            raise OSError(f'row {row} of {self.path} holds no picture')
        if len(found) > MAX_BYTES:
            raise OSError(f'row {row} of {self.path} has {len(found):,} bytes; at most '
                          f'{MAX_BYTES:,}')
        return found

    def _find(self, row: int) -> bytes | None:
        for first, values in self._held:
            if first <= row < first + len(values):
                return _bytes_of(values[row - first])
        group = bisect_right(self._starts, row) - 1
        if group >= len(self._starts) - 1:
            raise OSError(f'{self.path} has no row {row}')
        if group != self._group or row < self._next:
            self._batches = self._table.iter_batches(
                _PICTURES, row_groups=[group], columns=[self.column], use_threads=False)
            self._group, self._next = group, self._starts[group]
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise OSError(f'{self.path} has no row {row}')
            self._held.append((self._next, batch.column(0)))
            self._next += len(batch)
        first, values = self._held[-1]
        return _bytes_of(values[row - first])


class _OpenFiles:
    """The cursors of a process, used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._cursors: dict[tuple[str, str], _Cursor] = {}

    def cursor(self, path: str, column: str) -> _Cursor:
        """The one of a column; the oldest is closed where many are open."""
        if (path, column) not in self._cursors:
            if len(self._cursors) >= _MAX_OPEN:
                del self._cursors[next(iter(self._cursors))]
            self._cursors[path, column] = _Cursor(path, column)
        return self._cursors[path, column]


_OPEN = _OpenFiles()
if hasattr(os, 'register_at_fork'):  # a worker reads by its own files and lock
    os.register_at_fork(after_in_child=_OPEN.__init__)


def _holds_bytes(leaf, column: str) -> bool:
    """Whether a leaf of a schema is a column's bytes: of a picture of ``datasets``, or its own."""
    return (leaf.path in (column, f'{column}.bytes') and leaf.physical_type == 'BYTE_ARRAY'
            and leaf.logical_type.type != 'STRING')


def _bytes_of(value) -> bytes | None:
    """The bytes of an Arrow value: a picture of ``datasets``, ``dict(bytes, path)``, or bytes."""
    value = value.as_py()
    value = value.get('bytes') if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None


def _as_decimals(batch):
    """A batch whose numbers of 32 bits are decimals of 64."""
    import pyarrow  # optional
    columns = []
    for field, column in zip(batch.schema, batch.columns):
        texts = _replaced(pyarrow, field.type, pyarrow.string())
        if texts != field.type:
            column = column.cast(texts).cast(_replaced(pyarrow, field.type, pyarrow.float64()))
        columns.append(column)
    return pyarrow.RecordBatch.from_arrays(columns, batch.schema.names)


def _replaced(pyarrow, kind, by):
    """A type with another in place of numbers of 32 bits."""
    types = pyarrow.types
    if types.is_float32(kind):
        return by
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pyarrow.list_(_replaced(pyarrow, kind.value_type, by))
    if types.is_large_list(kind):
        return pyarrow.large_list(_replaced(pyarrow, kind.value_type, by))
    if types.is_struct(kind):
        return pyarrow.struct([(one.name, _replaced(pyarrow, one.type, by)) for one in kind])
    return kind


def _broken(path: str | Path, error: Exception) -> str:
    return (f'{path} is no whole parquet file: {one_line(str(error) or repr(error))[:200]}; '
            'download it again')
