"""Files that are replaced whole: after a crash there is the old one or the new one."""
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_numbers = itertools.count()  # threads may write files whose names begin alike


def make_folder(path: str | os.PathLike, name: str, keep: bool = True) -> Path:
    """The folder, which is made where it is not there yet.

    Args:
        path: of the folder.
        name: how the user names it, such as '--out-dir', for the message.
        keep: False removes again what was made: it is made when something is written.

    Raises:
        ValueError: it is a file, or cannot be made or written to.
    """
    path = Path(path)
    new = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f'{name} {path} is a file, or lies below one: give a folder') from None
    except OSError as error:
        raise ValueError(f'{name} {path} cannot be made ({error.strerror}): give a folder that '
                         'can be written to') from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f'{name} {path} cannot be written to: give another folder, or change '
                         'who may write there')
    for one in () if keep else new:
        one.rmdir()
    return path


@contextmanager
def replacing(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends.

    The content is on the disk before the name points to it, also where the machine stops. Where
    the block raises, ``path`` stays as it was and nothing is left beside it. A link is followed:
    what it points to is replaced. Who may read and write ``path`` stays.

    Args:
        path: the file.
        durable: False does not wait for the disk, for notes that only have to outlive a process.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path} cannot be written: there is no folder {path.parent}')
    partial = path.with_name(f'{_aside(path)}{os.getpid()}.{next(_numbers)}.partial')
    try:
        yield partial
        if path.is_file() and partial.is_file():
            shutil.copymode(path, partial)
        if durable:
            move_into_place(partial, path)
        else:
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove what writers of ``path`` left that were killed. Only where nobody writes it now."""
    path = Path(os.path.realpath(path))
    with os.scandir(path.parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_aside(path))
                 and entry.name.endswith('.partial')]
    for one in found:
        Path(one).unlink(missing_ok=True)


def _aside(path: Path) -> str:
    """How the names of the files begin that are written to take its place."""
    name = os.fsencode(path.name)[:180].decode('utf-8', 'ignore')  # 255 bytes are a name's most
    return f'.{name}.'


def move_into_place(partial: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a written file or folder its name, in the place of one of that name.

    Its content is on the disk before. A folder cannot take another's place in one step: the old
    one is ``.NAME.replaced`` between two renames.
    """
    partial, path = Path(partial), Path(path)
    for file in [*(partial.rglob('*') if partial.is_dir() else ()), partial]:
        sync_file(file)
    old = path.with_name(f'.{path.name}.replaced')
    if path.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    elif partial.is_dir():
        path.unlink(missing_ok=True)
    os.replace(partial, path)
    sync_file(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_bytes(path: str | os.PathLike, *parts: bytes) -> None:
    """Write a file of these bytes, see :func:`replacing`."""
    with replacing(path) as partial, open(partial, 'wb') as file:
        file.writelines(parts)


def replace_text(path: str | os.PathLike, text: str) -> None:
    """Write a file of UTF-8 text with ``\\n`` at the end of its lines, see :func:`replacing`."""
    replace_bytes(path, text.encode())


def replace_json(path: str | os.PathLike, content, **options) -> None:
    """Write a file of JSON, see :func:`replacing`; ``options`` are those of ``json.dumps``."""
    replace_text(path, json.dumps(content, **{'ensure_ascii': False, **options}) + '\n')


def sync_file(path: Path) -> None:
    """Wait until what was written to a file or folder is on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)
