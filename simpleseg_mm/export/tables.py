"""Rows as JSON lines or Parquet, written whole or not at all."""
import json
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..files import load_json, replace_json, replacing
from ..polygon import mask_to_box
from ..structures import Segmentation
from .rings import parts_of

_GROUP = 50_000_000  # bytes of pictures of a group of rows
_BATCH = 2000  # rows of Parquet that are held at a time; types are those of the first


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], images: bool = False) -> int:
    """Write a table, by its suffix ``.jsonl`` or ``.parquet``; nothing where there is no row.

    Args:
        path: of the file, which is replaced.
        rows: the rows; all have the same keys.
        images: the column ``images`` of a Parquet table are lists of ``dict(bytes, path)``, which
            ``datasets`` decodes when it reads them.

    Returns:
        The number of rows.

    Raises:
        ValueError: pyarrow is not there, or values of a column are of several types.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return 0
    rows = chain([first], rows)
    with replacing(path) as partial:
        if path.suffix == '.parquet':
            return _write_parquet(partial, rows, images)
        count = 0
        with open(partial, 'w', encoding='utf-8', newline='\n') as file:
            for count, row in enumerate(rows, 1):
                file.write(json.dumps(row, ensure_ascii=False) + '\n')
        return count


def check_parquet(path: Path) -> None:
    """ValueError where a Parquet file is to be written and pyarrow is not there; one line."""
    if path.suffix == '.parquet':
        _pyarrow()


def list_set(path: Path, write: bool = True) -> Path:
    """Name a set of conversations in LLaMA-Factory's ``dataset_info.json`` beside it, by its stem.

    Args:
        path: of the set.
        write: False: only look whether that can be done.

    Returns:
        That file. Other sets in it stay.

    Raises:
        ValueError: the file is no list of sets, or names another set so.
    """
    info, entry = path.with_name('dataset_info.json'), dict(
        file_name=path.name, formatting='sharegpt',
        columns=dict(messages='messages', images='images'),
        tags=dict(role_tag='role', content_tag='content', user_tag='user',
                  assistant_tag='assistant', system_tag='system'))
    sets = load_json(info) if info.exists() else {}
    if not isinstance(sets, dict):
        raise ValueError(f'{info} is no list of sets by their names; move it away, or write to '
                         'another folder')
    if sets.get(path.stem, entry) != entry:
        raise ValueError(f'{info} has a set {path.stem!r} already; give the file another name')
    if write:
        replace_json(info, {**sets, path.stem: entry}, indent=2)
    return info


def _pyarrow(instead: str = 'a file that ends in .jsonl needs nothing'):
    try:
        import pyarrow  # optional
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f'Parquet needs pyarrow: pip install pyarrow; {instead}') from None
    return pyarrow


class PictureTable:
    """Pictures with objects as a Parquet table that Hugging Face's ``datasets`` reads.

    A row is a picture: ``image`` (its file, which ``datasets`` decodes), ``name``, ``width``,
    ``height`` and ``objects``, a list of ``label``, ``bbox`` (x, y, width, height), ``area``,
    ``score`` and ``parts``: of each part its rings, the outer one first, then its holes, as flat
    lists x1, y1, x2, y2, ... in pixels (edges).

    Args:
        path: of the file.

    Raises:
        ValueError: pyarrow is not there.
    """

    def __init__(self, path: Path) -> None:
        self.check()
        self._arrow = arrow = _pyarrow()
        ring = arrow.list_(arrow.float64())
        one = arrow.struct([('label', arrow.string()), ('bbox', ring), ('area', arrow.int64()),
                            ('score', arrow.float64()),
                            ('parts', arrow.list_(arrow.list_(ring)))])
        features = json.dumps(dict(info=dict(features=dict(image=dict(_type='Image')))))
        self._schema = arrow.schema([
            ('image', arrow.struct([('bytes', arrow.binary()), ('path', arrow.string())])),
            ('name', arrow.string()), ('width', arrow.int32()), ('height', arrow.int32()),
            ('objects', arrow.list_(one))]).with_metadata(dict(huggingface=features))
        self._writer = arrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict] = []
        self._held = 0

    @staticmethod
    def check() -> None:
        """ValueError where pyarrow is not there; one line."""
        _pyarrow('other formats need nothing')

    def add(self, name: str, size: tuple[int, int], raw: bytes, objects: Iterable[Segmentation],
            exact: bool = False) -> None:
        """Add a picture.

        Args:
            name: of the picture.
            size: (h, w).
            raw: its file.
            objects: what is on it.
            exact: outlines of the masks' pixels instead of the vertices.
        """
        found = []
        for one in objects:
            if not one.mask.any():
                continue
            x1, y1, x2, y2 = mask_to_box(one.mask).tolist()
            found.append(dict(
                label=one.label, bbox=[x1, y1, x2 - x1, y2 - y1], score=one.confidence,
                area=int(np.count_nonzero(one.mask)),
                parts=[[np.asarray(ring, np.float64).ravel().tolist() for ring in part.rings]
                       for part in parts_of(one, exact)]))
        self._rows.append(dict(image=dict(bytes=raw, path=name), name=name, width=size[1],
                               height=size[0], objects=found))
        self._held += len(raw)
        if self._held > _GROUP or len(self._rows) == _BATCH:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._held = [], 0


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], images: bool) -> int:
    arrow = _pyarrow()
    rows, count = iter(rows), 0
    batch = list(islice(rows, _BATCH))
    try:
        schema = _schema(arrow, batch, images)
        with arrow.parquet.ParquetWriter(path, schema) as writer:
            while batch:
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
                count += len(batch)
                batch = list(islice(rows, _BATCH))
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise ValueError(
            f'rows {count} to {count + len(batch) - 1} hold values of another type than those '
            f'before ({" ".join(str(error).split())[:200]}); a file that ends in .jsonl takes '
            'them') from None
    return count


def _schema(arrow, batch: list[Mapping[str, Any]], images: bool):
    """Types of the columns; what is empty in all rows is text."""
    kinds = {name: _filled(arrow, arrow.infer_type([row[name] for row in batch]))
             for name in batch[0]}
    if not images:
        return arrow.schema(kinds.items())
    kinds['images'] = arrow.list_(arrow.struct([('bytes', arrow.binary()),
                                                ('path', arrow.string())]))
    return arrow.schema(kinds.items()).with_metadata(dict(huggingface=json.dumps(dict(info=dict(
        features=dict(images=[dict(_type='Image')]))))))  # so `datasets` decodes them


def _filled(arrow, kind):
    """A type without nulls inside it."""
    if arrow.types.is_null(kind):
        return arrow.string()
    if arrow.types.is_list(kind):
        return arrow.list_(_filled(arrow, kind.value_type))
    if arrow.types.is_struct(kind):
        return arrow.struct([(one.name, _filled(arrow, one.type)) for one in kind])
    return kind
