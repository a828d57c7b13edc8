"""Tar shards in WebDataset's form: equal content gives equal bytes, and what is cut is noticed."""
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

TAR_BLOCK = tarfile.BLOCKSIZE
MAX_EXTENSION = 1_000_000  # bytes of a long name or a PAX header. Our choice
_PACKED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd',
           b'PK\x03\x04': 'zip', b'Rar!': 'rar', b'7z\xbc\xaf': '7-Zip'}
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, *_PAX, tarfile.XGLTYPE)
_NO_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
               tarfile.DIRTYPE, tarfile.FIFOTYPE)


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
        head, padding = info.tobuf(tarfile.USTAR_FORMAT), b'\0' * (-len(content) % TAR_BLOCK)
        places[number] = end + len(head), len(content)
        parts += [head, content, padding]
        end += len(head) + len(content) + len(padding)
    return [*parts, b'\0' * (2 * TAR_BLOCK)], places


class TarCut(Exception):
    """A tar ends early or is broken; what came before is good."""


def members(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of what an uncompressed tar holds, by the headers alone.

    Names are those of ustar, GNU and PAX headers; tars behind one another are read as one. Links,
    devices and sparse files come with size -1: no file's bytes lie there. Folders do not come.

    ``tarfile`` parses the blocks. The way from one to the next is ours: it trusts no size, and
    its work and memory are those of the headers (``tarfile`` follows negative sizes for ever).

    Raises:
        TarCut: the archive breaks off, or holds something else from some place on.
    """
    place, ended = 0, False
    extra: dict[bytes, bytes] = {}
    while True:
        file.seek(place)
        buffer = file.read(TAR_BLOCK)
        if not buffer.strip(b'\0') and (ended or len(buffer) == TAR_BLOCK):
            if len(buffer) < TAR_BLOCK:
                return
            place, ended = place + TAR_BLOCK, True  # the end mark and its padding
            continue
        info = _header(file, buffer, place, size)
        if info.type in _EXTENSIONS:
            if not 0 <= info.size <= min(MAX_EXTENSION, size - place - TAR_BLOCK):
                raise _cut(f'a name or header of {info.size:,} bytes', place, size)
            content = file.read(info.size)
            if info.type == _LONG_NAME:
                extra[b'path'] = content.split(b'\0')[0]
            elif info.type in _PAX:  # global ones hold neither names nor sizes
                extra.update(_pax(content))
            place += TAR_BLOCK + _padded(info.size)
            continue
        name = extra.get(b'GNU.sparse.name', extra.get(b'path'))
        name = info.name if name is None else name.decode('utf-8', 'surrogateescape')
        length = extra.get(b'size', b'%d' % info.size)
        length = int(length) if length.isdigit() and len(length) < 20 else -1
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(b'GNU.sparse' in key for key in extra)
        extra, ended, start = {}, False, place + TAR_BLOCK
        if info.type in _NO_CONTENT:
            if info.type != tarfile.DIRTYPE and not name.endswith('/'):
                yield name, start, -1
            place = start
            continue
        if info.type == tarfile.GNUTYPE_SPARSE and buffer[482]:  # more blocks of its map
            start += TAR_BLOCK
            while file.read(TAR_BLOCK)[504:505].strip(b'\0'):
                start += TAR_BLOCK
        if length < 0 or start + length > size:
            what = 'is cut off' if length >= 0 else 'has no size that can be'
            raise _cut(f'{name!r:.100} {what}', place, size)
        yield name, start, -1 if sparse or not info.isreg() else length
        place = start + _padded(length)


def _header(file: BinaryIO, buffer: bytes, place: int, size: int) -> tarfile.TarInfo:
    """The header in a block. TarCut where there is none."""
    if len(buffer) < TAR_BLOCK and not buffer:
        raise _cut('the end mark is missing', place, size)
    try:
        return tarfile.TarInfo.frombuf(buffer, 'utf-8', 'surrogateescape')
    except Exception as error:  # whatever its bytes lead to
        packed = [name for magic, name in _PACKED.items() if buffer.startswith(magic)]
        if place == 0 and packed:
            raise TarCut(f'it is packed by {packed[0]}; unpack it to a plain tar') from None
        raise _cut(f'no header of a tar ({error})', place, size) from None


def _pax(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records of a PAX header, 'LENGTH KEY=VALUE' and a line end each, as far as they are whole.
    """
    place = 0
    while place < len(content):
        length = content[place:place + 8].split(b' ')[0]
        if not length.isdigit() or not 0 < int(length) <= len(content) - place:
            return
        record = content[place + len(length) + 1:place + int(length) - 1]
        key, _, value = record.partition(b'=')
        yield key, value
        place += int(length)


def _padded(size: int) -> int:
    return -(-size // TAR_BLOCK) * TAR_BLOCK


def _cut(what: str, place: int, size: int) -> TarCut:
    return TarCut(f'{what}; nothing is read from byte {place:,} of {size:,} on')
