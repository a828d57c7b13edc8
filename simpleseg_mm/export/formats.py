"""The formats by name, and the files that they are."""
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..files import replace_text
from ..structures import FileNames, Segmentation
from .prepare import by_picture, picture_from, prepared
from .sets import YoloLabels, to_coco, to_cvat, to_labelme
from .vectors import to_geojson, to_svg


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        suffix: of its files.
        per_image: whether every picture has its own file; else one for all.
        write: results, ``exact`` and the folder that is written to -> text (of one picture, where
            ``per_image``).
    """
    suffix: str
    per_image: bool
    write: Callable[..., str]


FORMATS: dict[str, Format] = {
    'coco': Format('.json', False, lambda results, exact, _: json_text(to_coco(results, exact))),
    'cvat': Format('.xml', False, lambda results, exact, _: to_cvat(results, exact)),
    'labelme': Format('.json', True, lambda results, exact, folder: json_text(
        to_labelme(picture_from(folder, results[0].image), results[0].size, results, exact))),
    'geojson': Format('.geojson', True, lambda results, exact, _: json_text(
        to_geojson(results, exact))),
    'svg': Format('.svg', True, lambda results, exact, _: to_svg(
        results, results[0].size, exact)),
    'yolo': Format('.txt', True, None),
}
#: stems that a picture's own file may not have: those of files for all pictures
_RESERVED = {'.json': ['coco'], '.txt': ['classes']}


def export(results: Iterable[Segmentation], out_dir: str | os.PathLike, format: str,
           exact: bool = False) -> list[Path]:
    """Write answers as annotation files; docs/inference.md has a table of what each format keeps.

    Outlines are cut at the border of the picture; an object without a pixel in it is left out, and
    labels are one line: :func:`notes_of` says where.

    Args:
        results: of any pictures. Those that found nothing leave no object; their picture stays.
        out_dir: folder. Formats with one file for all write ``FORMAT.json`` or ``.xml``, the
            others ``NAME.SUFFIX`` a picture (YOLO also ``classes.txt`` and ``data.yaml``).
        format: a name in ``FORMATS``.
        exact: False, the vertices that the model wrote, for editing; True, an outline or mask
            whose own reader gives the mask back pixel for pixel.

    Returns:
        The files.

    Raises:
        ValueError: unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f'unknown format {format!r:.40}; choose from {sorted(FORMATS)}')
    kind, results, out_dir = FORMATS[format], list(prepared(results)), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    if not kind.per_image:
        return [_written(out_dir / f'{format}{kind.suffix}', kind.write(results, exact, out_dir))]
    pictures = by_picture(results)
    taken = FileNames(_RESERVED.get(kind.suffix, ()))
    names = [taken.of(group[0].image, group[0].index) for group in pictures.values()]
    if format == 'yolo':
        labels = YoloLabels(exact)
        texts = [labels.of(group) for group in pictures.values()]
        classes = list(labels.classes)
        places = [picture_from(out_dir, group[0].image) for group in pictures.values()]
        files = [_written(out_dir / 'classes.txt', '\n'.join(classes) + '\n'),
                 _written(out_dir / 'data.yaml', data_yaml(
                     classes, _folder_of(places), "Ultralytics looks for a picture's labels "
                     'beside it; where it lies in a folder images, in\n# the folder labels beside '
                     'that: put these .txt files there.'))]
    else:
        texts = [kind.write(group, exact, out_dir) for group in pictures.values()]
        files = []
    return files + [_written(out_dir / f'{name}{kind.suffix}', text)
                    for name, text in zip(names, texts)]


def data_yaml(classes: list[str], folder: str, note: str) -> str:
    """Ultralytics' description of a set: the folder of its pictures, and what its classes are
    called. A text in JSON's quotes is one in YAML, too.

    Args:
        note: a line of comment.
    """
    names = [f'  {number}: {json.dumps(name, ensure_ascii=False)}\n'
             for number, name in enumerate(classes)]
    folder = json.dumps(folder)
    return (f'# {note}\ntrain: {folder}\nval: {folder}\n'
            f'names:{"" if names else " {}"}\n{"".join(names)}')


def _folder_of(places: list[str]) -> str:
    """The folder that holds all these files; where there is none, this one."""
    return (os.path.commonpath([os.path.dirname(place) or '.' for place in places])
            if len({os.path.isabs(place) for place in places}) == 1 else '.')


def json_text(content) -> str:
    """A text of JSON that can be written, whatever names are in it."""
    text = json.dumps(content, ensure_ascii=False) + '\n'
    try:
        text.encode()
    except UnicodeEncodeError:  # names of files that are not UTF-8
        text = json.dumps(content) + '\n'
    return text


def _written(path: Path, text: str) -> Path:
    replace_text(path, text)
    return path
