"""The formats by name, and the files that they are."""
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Union

from ..structures import FileNames, Segmentation
from .sets import to_coco, to_cvat, to_labelme, to_yolo
from .vectors import to_geojson, to_svg


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        suffix: of its files.
        per_image: whether every picture has its own file; else one for all.
        write: results and ``exact`` -> text (of one picture, where ``per_image``).
    """
    suffix: str
    per_image: bool
    write: Callable[..., str]


FORMATS: Dict[str, Format] = {
    'coco': Format('.json', False, lambda results, exact: _json(to_coco(results, exact))),
    'cvat': Format('.xml', False, to_cvat),
    'labelme': Format('.json', True, lambda results, exact: _json(to_labelme(results, exact))),
    'geojson': Format('.geojson', True, lambda results, exact: _json(to_geojson(results, exact))),
    'svg': Format('.svg', True, to_svg),
    'yolo': Format('.txt', True, None),
}


def export(results: Iterable[Segmentation], out_dir: Union[str, os.PathLike], format: str,
           exact: bool = False) -> List[Path]:
    """Write answers as annotation files; docs/inference.md has a table of what each format keeps.

    Args:
        results: of any pictures. Those that found nothing leave no object; their picture stays.
        out_dir: folder. Formats with one file for all write ``FORMAT.json`` or ``.xml``, the
            others ``NAME.SUFFIX`` a picture (YOLO also ``classes.txt``).
        format: a name in ``FORMATS``.
        exact: False, the vertices that the model wrote, for editing; True, an outline or mask
            whose own reader gives the mask back pixel for pixel.

    Returns:
        The files.

    Raises:
        ValueError: unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f'unknown format {format!r}; choose from {sorted(FORMATS)}')
    kind, results, out_dir = FORMATS[format], list(results), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    if not kind.per_image:
        return [_written(out_dir / f'{format}{kind.suffix}', kind.write(results, exact))]
    pictures: Dict[int, List[Segmentation]] = {}
    for result in results:
        pictures.setdefault(result.index, []).append(result)
    taken = FileNames()
    names = [taken.of(group[0].image, group[0].index) for group in pictures.values()]
    if format == 'yolo':
        texts, classes = to_yolo(list(pictures.values()), exact)
        files = [_written(out_dir / 'classes.txt', '\n'.join(classes) + '\n')]
    else:
        texts, files = [kind.write(group, exact) for group in pictures.values()], []
    return files + [_written(out_dir / f'{name}{kind.suffix}', text)
                    for name, text in zip(names, texts)]


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False) + '\n'


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding='utf-8')
    return path
