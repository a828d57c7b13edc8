"""Complete data sets: annotations with their pictures, laid out as each tool takes them."""
import os
import shutil
import unicodedata
import urllib.parse
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from ..files import one_line
from ..files.writing import move_into_place
from ..structures import Segmentation
from .formats import data_yaml, json_text
from .picture_paths import picture_file
from .prepare import ObjectNotes, by_picture, picture_names, prepared, shortened
from .sets import CocoFile, CvatFile, LabelNumbers, YoloLabels, to_labelme
from .studio import studio_config, studio_task
from .tables import PictureTable
from .vectors import to_geojson, to_svg

_MAX_NAME = 180  # bytes of a part of a path; file systems take 255 with what is added


@dataclass(frozen=True)
class SetPicture:
    """A picture of a data set, with what is on it.

    Attributes:
        name: path below the folder of all pictures, such as ``a/b.jpg``; it may change.
        source: path, http(s) address, or the bytes of its file.
        size: (h, w) of the upright picture.
        objects: what is on it; gone through once, so that one mask is held at a time.
        document: the picture as the annotation page keeps it (``objects``, ``done``,
            ``rejected``), for formats that hold more than outlines; empty where there is none.
    """
    name: str
    source: str | os.PathLike | bytes
    size: tuple[int, int]
    objects: Iterable[Segmentation]
    document: Mapping = field(default_factory=dict)


class FolderFiles:
    """Files of a set, written to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file of the set; ``name`` is its path there, with ``/``."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def begun(self, name: str) -> Path:
        """A path to write a large file of the set to, until :meth:`finish`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, name: str) -> None:
        """That file is written."""


class ZipFiles:
    """Files of a set, written to a zip. Pictures are packed already, and stored as they are.

    Args:
        archive: the zip.
        folder: for a file that is written before it is packed.
    """
    GROWING = 'set.growing'

    def __init__(self, archive: zipfile.ZipFile, folder: Path) -> None:
        self.archive, self.folder = archive, folder

    def write(self, name: str, content: bytes | str) -> None:
        kind = zipfile.ZIP_STORED if isinstance(content, bytes) else zipfile.ZIP_DEFLATED
        self.archive.writestr(name, content, kind)

    def begun(self, name: str) -> Path:
        return self.folder / self.GROWING

    def finish(self, name: str) -> None:
        path = self.begun(name)
        self.archive.write(path, name, zipfile.ZIP_STORED)
        path.unlink()


class SetNames:
    """Names of pictures in a set: no two differ by suffix or capitals alone, since tools put
    ``a.txt`` or ``a.json`` beside ``a.jpg``, and none leads out of it.

    Args:
        banned: names of folders that have a meaning to the tool.

    Attributes:
        changed: (name before, name in the set) of those that had to change.
    """

    def __init__(self, banned: Sequence[str] = ()) -> None:
        self.banned = banned
        self.changed: list[tuple[str, str]] = []
        self._taken: set[str] = set()
        self._folders: set[str] = set()

    def of(self, name: str, suffix: str) -> str:
        """The name of a picture whose file has this suffix."""
        parts = [_clean(part) for part in name.replace('\\', '/').split('/')]
        parts = [part for part in parts if part]
        stem = os.path.splitext(parts.pop())[0] if parts else ''
        folders = [f'{part}_' if part in self.banned else part for part in parts]
        if any('/'.join(map(_key, folders[:end])) in self._taken
               for end in range(1, len(folders) + 1)):
            folders = ['_'.join(folders)]  # a folder called as a picture before
        stem = stem.strip() or 'picture'
        found, count = stem, 1
        while self._is_taken('/'.join(map(_key, (*folders, found)))):
            found, count = f'{stem}_{count}', count + 1
        self._taken.add('/'.join(map(_key, (*folders, found))))
        self._folders |= {'/'.join(map(_key, folders[:end]))
                          for end in range(1, len(folders) + 1)}
        new = '/'.join((*folders, found + suffix))
        if new != name:
            self.changed.append((name, new))
        return new

    def _is_taken(self, key: str) -> bool:
        return key in self._taken or key in self._folders


def _clean(part: str) -> str:
    """A part of a path as a name of a file: one line, not hidden, not too long."""
    part = one_line(part).strip().lstrip('.')
    stem, suffix = os.path.splitext(part)
    suffix = suffix if len(suffix) <= 10 else ''
    stem = part.removesuffix(suffix) if suffix else part
    return stem.encode()[:_MAX_NAME].decode(errors='ignore').rstrip() + suffix


def _key(part: str) -> str:
    return unicodedata.normalize('NFC', part).casefold()


class SetWriter:
    """Writes a data set picture by picture.

    A format says by ``place`` where its pictures lie and by ``_add`` and ``_end`` what stands
    beside them.

    Args:
        files: :class:`FolderFiles` or :class:`ZipFiles`.
        exact: see :func:`.export`.
    """
    place = 'images/'
    banned: Sequence[str] = ()
    said: Sequence[str] = ()  # notes of every set

    def __init__(self, files, exact: bool = False) -> None:
        self.files, self.exact = files, exact
        self.names = SetNames(self.banned)
        self.counted = ObjectNotes()
        self.anew: list[str] = []
        self.count = 0

    def add(self, picture: SetPicture) -> None:
        """Write a picture and what is on it.

        Raises:
            ImageError: the picture cannot be read, or is of another size than ``size``; nothing
                is written.
        """
        raw, suffix, anew = picture_file(picture.source, picture.name, picture.size)
        name = self.names.of(picture.name, suffix)
        if anew:
            self.anew.append(name)
        self._add(name, picture, raw)
        self.count += 1

    def close(self) -> list[str]:
        """Write what is of all pictures; what was changed or left out, a line each."""
        self._end()
        notes = self.counted.lines()
        if self.names.changed:
            told = [f'{old} is {new}' for old, new in self.names.changed]
            notes.append(f'{len(told)} pictures have another name in the set, as theirs was '
                         f'taken or is none that tools find: {shortened(told)}')
        if self.anew:
            notes.append(f'{len(self.anew)} pictures were written anew, upright, in 8 bits and '
                         'without transparency, since tools read theirs in several ways: '
                         f'{shortened(self.anew)}')
        return [*notes, *self.said]

    def objects_of(self, picture: SetPicture) -> Iterator[Segmentation]:
        """What is on a picture, cut at its border and counted, one by one."""
        for one in picture.objects:
            self.counted.see(one)
            yield from prepared([one])

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        """Write a picture's file and what stands beside it."""
        raise NotImplementedError

    def _end(self) -> None:
        """Write the files of all pictures."""


class _OneFile(SetWriter):
    """Sets with one file for all pictures."""

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.files.write(self.place + name, raw)
        self.file.add(name, self.count, picture.size, self.objects_of(picture))


class _Coco(_OneFile):
    """As CVAT, datumaro and FiftyOne lay it out."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.file = CocoFile(self.exact)

    def _end(self) -> None:
        self.files.write('annotations/instances_default.json', json_text(self.file.content()))


class _Cvat(_OneFile):
    """As CVAT's 'CVAT for images 1.1' is, with pictures."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.file = CvatFile(self.exact)

    def _end(self) -> None:
        self.files.write('annotations.xml', self.file.text())


class _Yolo(SetWriter):
    """As Ultralytics lays it out: it looks for labels where ``labels`` stands for ``images`` in
    the path of a picture."""
    banned = ('images', 'labels')
    said = ('train and val of data.yaml are the same pictures: split them before you trust a '
            'figure', )

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.labels = YoloLabels(self.exact)

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.files.write(self.place + name, raw)
        self.files.write(f'labels/{os.path.splitext(name)[0]}.txt',
                         self.labels.of(self.objects_of(picture)))

    def _end(self) -> None:
        classes = list(self.labels.classes)
        self.files.write('classes.txt', ''.join(f'{name}\n' for name in classes))
        self.files.write('data.yaml', data_yaml(classes, 'images', 'train and val are the same '
                                                'pictures: split them before you train'))


class _Beside(SetWriter):
    """Sets with a file beside each picture."""
    place = ''
    suffix = ''

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.files.write(name, raw)
        self.files.write(os.path.splitext(name)[0] + self.suffix,
                         self._text(name.rpartition('/')[2], picture))

    def _text(self, name: str, picture: SetPicture) -> str:
        raise NotImplementedError


class _Labelme(_Beside):
    suffix = '.json'

    def _text(self, name: str, picture: SetPicture) -> str:
        return json_text(to_labelme(name, picture.size, self.objects_of(picture), self.exact))


class _Geojson(_Beside):
    suffix = '.geojson'

    def _text(self, name: str, picture: SetPicture) -> str:
        return json_text(to_geojson(
            self.objects_of(picture), self.exact,
            dict(name=name, height=picture.size[0], width=picture.size[1])))


class _Svg(_Beside):
    """The picture is linked, and shows below the outlines."""
    suffix = '.svg'

    def _text(self, name: str, picture: SetPicture) -> str:
        return to_svg(self.objects_of(picture), picture.size, self.exact,
                      urllib.parse.quote(name))


class _Studio(SetWriter):
    """Tasks of Label Studio, whose pictures it serves itself as local files."""
    said = ('Label Studio serves the pictures itself: start it with '
            'LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and '
            'LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at the folder of the set, add its folder '
            'images as local storage, take label_config.xml, and import tasks.json', )

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.tasks: list[dict] = []
        self.labels = LabelNumbers()

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.files.write(self.place + name, raw)
        address = f'/data/local-files/?d={urllib.parse.quote(self.place + name)}'
        document = picture.document
        made = bool(document.get('done')) or any(
            one.get('edited') for one in document.get('objects', ()))
        self.tasks.append(studio_task(address, self.objects_of(picture), self.labels,
                                      len(self.tasks), made, self.exact))

    def _end(self) -> None:
        root = studio_config(self.labels)
        ElementTree.indent(root)
        self.files.write('label_config.xml', ElementTree.tostring(root, 'unicode') + '\n')
        self.files.write('tasks.json', json_text(self.tasks))


class _Parquet(SetWriter):
    """A table for Hugging Face's ``datasets``, pictures in it: ``load_dataset(FOLDER)``."""
    place = ''
    table_name = 'data/train-00000-of-00001.parquet'

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.table = PictureTable(self.files.begun(self.table_name))

    def _add(self, name: str, picture: SetPicture, raw: bytes) -> None:
        self.table.add(name, picture.size, raw, self.objects_of(picture), self.exact)

    def _end(self) -> None:
        self.table.close()
        self.files.finish(self.table_name)


#: writers of sets by the name of their format
SETS: dict[str, type[SetWriter]] = {
    'coco': _Coco, 'cvat': _Cvat, 'geojson': _Geojson, 'labelme': _Labelme,
    'labelstudio': _Studio, 'parquet': _Parquet, 'svg': _Svg, 'yolo': _Yolo}


def export_set(results: Iterable[Segmentation], out_dir: str | os.PathLike, format: str,
               exact: bool = False) -> list[str]:
    """Write answers and their pictures as a data set, which the tool takes as it is.

    Args:
        results: of any pictures that are files or addresses; those that found nothing leave no
            object, their picture is there.
        out_dir: folder of the set. It must not be there, or be empty: files of another set would
            be taken for part of this one.
        format: a name in ``SETS``.
        exact: see :func:`.export`.

    Returns:
        What was changed or left out, a line each.

    Raises:
        ValueError: unknown format, the folder is not empty, or pyarrow is not there for
            'parquet'.
        ImageError: a picture is no file or address, cannot be read, or has changed.
    """
    out_dir = check_set(out_dir, format)
    pictures = by_picture(results)
    names = picture_names(group[0].image for group in pictures.values())
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = out_dir.with_name(f'.{out_dir.name}.{os.getpid()}.partial')
    partial.mkdir()
    try:
        writer = SETS[format](FolderFiles(partial), exact)
        for group in pictures.values():
            writer.add(SetPicture(names[group[0].image], group[0].image, group[0].size, group))
        notes = writer.close()
        move_into_place(partial, out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return notes


def check_set(out_dir: str | os.PathLike, format: str) -> Path:
    """The folder of a set that can be written. Raises ValueError as :func:`export_set`."""
    check_format(format)
    out_dir = Path(out_dir)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ValueError(f'{out_dir} is there already: a set is written to a folder of its own. '
                         'Give another one, or move it away')
    return out_dir


def check_format(format, writers: Mapping[str, type[SetWriter]] = SETS) -> None:
    """ValueError where ``format`` is none of these writers', or pyarrow is not there for it."""
    if not isinstance(format, str) or format not in writers:
        raise ValueError(f'unknown format {format!r:.40}; choose from {sorted(writers)}')
    if format == 'parquet':
        PictureTable.check()
