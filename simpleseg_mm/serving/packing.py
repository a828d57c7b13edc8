"""Pictures and objects that the page has sent, as a complete data set in a zip. Runs in the
worker process."""
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..export import (CORRECTIONS_FILE, SETS, SetPicture, SetWriter, check_format,
                      to_corrections)
from ..export.complete import ZipFiles
from ..export.formats import json_text
from ..files import ImageError
from . import edited
from .corrected import read_corrected


class _Corrections(SetWriter):
    """What was corrected, for ``own_data.py``; see :func:`..export.to_corrections`."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.documents: list[dict] = []

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.files.write(self.place + name, raw)
        self.documents.append(dict(picture.document, name=name, height=picture.size[0],
                                   width=picture.size[1]))

    def _end(self) -> None:
        content, notes = to_corrections(map(read_corrected, self.documents), self.exact)
        self.files.write(CORRECTIONS_FILE, json_text(content))
        self.said = notes


#: writers of sets by the name of their format
PACKED: dict[str, type[SetWriter]] = {**SETS, 'corrections': _Corrections}
_PARTIAL = 'set.partial'


def formats_of_sets() -> list[str]:
    """Names of the formats that can be written here, sorted."""
    found = []
    for name in sorted(PACKED):
        try:
            check_format(name, PACKED)
        except ValueError:  # parquet without pyarrow
            continue
        found.append(name)
    return found


def pack_set(folder: Path, format: str, exact: bool, pictures: list[dict]) -> list[str]:
    """Write ``set.zip`` in a folder; what was changed or left out, a line each.

    Args:
        folder: of the set.
        format: a name in ``PACKED``.
        exact: see :func:`..export.export`.
        pictures: ``dict(name, size, file, document)``: the file of the picture, and of its
            document, or None.

    Raises:
        ValueError: no picture can be used, or the objects of one are none.
    """
    left, partial = [], folder / _PARTIAL
    try:
        with zipfile.ZipFile(partial, 'w') as archive:
            writer = PACKED[format](ZipFiles(archive, folder), exact)
            for picture in _pictures(pictures):
                try:
                    writer.add(picture)
                except ImageError as error:
                    left.append(f'{picture.name} is left out: {error}')
                except ValueError as error:
                    raise ValueError(f'{picture.name}: {error}') from None
            if not writer.count:
                raise ValueError('the set has no picture' + (
                    f' that can be used: {left[0]}' if left else ': send some first'))
            notes = writer.close()
        os.replace(partial, folder / 'set.zip')
    finally:
        partial.unlink(missing_ok=True)
        (folder / ZipFiles.GROWING).unlink(missing_ok=True)
    return [*left[:5], *([f'{len(left) - 5} more pictures are left out'] if left[5:] else []),
            *notes]


def _pictures(rows: list[dict]) -> Iterator[SetPicture]:
    for row in rows:
        size, document = tuple(row['size']), {}
        if row['document'] is not None:
            document = json.loads(Path(row['document']).read_bytes())
        checked = edited.check_objects(size, document.get('objects', []), edited.MAX_SET_PIXELS)
        yield SetPicture(row['name'], Path(row['file']), size,
                         edited.answers(row['name'], size, checked), document)
