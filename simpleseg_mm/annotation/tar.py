"""Tar shards in WebDataset's form: equal content gives equal bytes, and what is cut is noticed."""
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

BLOCK = tarfile.BLOCKSIZE


def pack(members: Sequence[tuple[str, bytes]]) -> tuple[list[bytes], np.ndarray]:
    """A tar of these files, without time or owner.

    Returns:
        Its bytes in parts, and ``(N, 2) int64``: offset and size of each file's content in it.
    """
    parts, end = [], 0
    places = np.zeros((len(members), 2), np.int64)
    for number, (name, content) in enumerate(members):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        head, padding = info.tobuf(tarfile.USTAR_FORMAT), b'\0' * (-len(content) % BLOCK)
        places[number] = end + len(head), len(content)
        parts += [head, content, padding]
        end += len(head) + len(content) + len(padding)
    return [*parts, b'\0' * (2 * BLOCK)], places


class TarCut(Exception):
    """A tar ends early or is broken; what came before is good."""


def members(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the files of an uncompressed tar, by their headers alone.

    Raises:
        TarCut: the archive breaks off, or holds something else from some place on.
    """
    try:
        with tarfile.open(fileobj=file, mode='r:') as archive:
            for info in archive:
                if info.offset_data + info.size > size:
                    raise TarCut(f'{info.name} is cut off')
                if info.isfile():
                    yield info.name, info.offset_data, info.size
            end = archive.offset
    except tarfile.TarError as error:
        raise TarCut(str(error)) from None
    file.seek(end)
    mark = file.read(BLOCK)
    if len(mark) < BLOCK or mark.strip(b'\0'):  # tarfile takes both for the end without a word
        raise TarCut('the end mark is missing')
