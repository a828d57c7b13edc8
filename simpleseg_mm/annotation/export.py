"""What is made of a finished run: one COCO file, and a report with pictures."""
import base64
import html
import io
import json
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from simpleseg_mm.files import load_image, replace_text, replacing
from simpleseg_mm.polygon import PolygonCodec, rle_to_mask
from simpleseg_mm.visualization.draw import draw_ring, fit, tint

from .tar import members
from .writer import Totals

NO_NAME = 'thing'  # category of objects that a detector gave no name
_COLORS = [(255, 64, 160), (0, 200, 255), (57, 255, 20), (255, 214, 0), (190, 120, 255)]


def annotations_of(work_dir: str) -> Iterator[tuple[Path, dict, bytes]]:
    """Every shard, annotation and encoded image of a run, in the order of names and input."""
    for path in sorted(Path(work_dir, 'shards').glob('*.tar')):
        with open(path, 'rb') as tar:
            places = {name: (offset, size)
                      for name, offset, size in members(tar, os.path.getsize(path))}

            def content(name: str) -> bytes:
                tar.seek(places[name][0])
                return tar.read(places[name][1])

            for name in places:
                if name.endswith('.json'):
                    annotation = json.loads(content(name))
                    yield path, annotation, content(annotation['file_name'])


def write_coco(work_dir: str, out_file: str, images: bool = True) -> dict:
    """All annotations as one COCO instances file; memory does not grow with the number of images.

    ``file_name`` is ``SHARD/KEY.jpg``, in the folder ``images`` beside the file. An annotation has
    ``descriptions``, ``phrase`` (their texts), ``score`` and ``polygon`` besides COCO's fields. An
    image has LVIS's ``not_exhaustive_category_ids``: categories of which it holds objects that
    were dropped.

    Args:
        work_dir: of the run.
        out_file: the file.
        images: write the images too, below ``images``.

    Returns:
        Numbers of images, annotations and categories.
    """
    categories: dict[str, int] = {}
    count = annotations = 0
    with replacing(out_file) as partial, open(partial, 'w') as out, \
            tempfile.TemporaryFile('w+', dir=work_dir) as later:
        out.write('{"images":[')
        for path, annotation, raw in annotations_of(work_dir):
            count += 1
            name = f'{path.stem}/{annotation["file_name"]}'
            if images:
                _write_image(Path(out_file).parent / 'images' / name, raw)
            partly = [categories.setdefault(category, len(categories) + 1)
                      for category in annotation['incomplete'] if category]
            out.write(',\n' if count > 1 else '\n')
            json.dump(dict(id=count, file_name=name, width=annotation['width'],
                           height=annotation['height'], not_exhaustive_category_ids=partly,
                           source=annotation['source']), out)
            for found in annotation['objects']:
                annotations += 1
                category = categories.setdefault(found['category'], len(categories) + 1)
                later.write(',\n' if annotations > 1 else '\n')
                phrases = [d['text'] for d in found['descriptions']]
                json.dump(dict(found, id=annotations, image_id=count, iscrowd=0,
                               category_id=category, **dict(phrase=phrases) if phrases else {}),
                          later)
        out.write('],\n"annotations":[')
        later.seek(0)
        while part := later.read(1 << 20):
            out.write(part)
        out.write('],\n"categories":')
        json.dump([dict(id=number, name=name or NO_NAME) for name, number in categories.items()],
                  out)
        out.write('}\n')
    return dict(images=count, annotations=annotations, categories=len(categories))


def _write_image(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as partial:
        partial.write_bytes(raw)


def write_annotation_report(work_dir: str, totals: Totals, codec: PolygonCodec,
                            pictures: int = 12) -> Path:
    """``report.html`` in the work directory: counts by reason, times, pictures. Self-contained.

    Args:
        codec: that decodes the polygon texts, which are drawn where there are any.
        pictures: images drawn, spread over the shards.
    """
    found = totals.as_dict()
    parts = ['<!doctype html><meta charset="utf-8"><title>Annotation</title><style>'
             'body{font:15px/1.5 sans-serif;margin:2em auto;max-width:1100px;padding:0 1em}'
             'table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:'
             '1px solid #ccc;text-align:left}td:nth-child(n+2){text-align:right}'
             'figure{display:inline-block;width:340px;margin:6px;vertical-align:top}'
             'img{width:100%}figcaption{font-size:12px}</style>'
             f'<h1>Annotation</h1><p>{found["chunks"]} shards, {found["bytes"] / 1e6:.1f} MB</p>']
    for kind, count in found['counts'].items():
        rows = [('read' if kind == 'images' else 'proposed', count['entered']),
                *sorted(count['dropped'].items(), key=lambda row: -row[1]),
                ('written', count['written'])]
        parts.append(_table(kind, [(name, number, f'{number / max(count["entered"], 1):.1%}')
                                   for name, number in rows]))
    parts.append(_table('images/s of one process, by stage',
                        list(found['images_per_second'].items())))
    parts.append(_table('notes', sorted(found['notes'].items(), key=lambda row: -row[1])))
    parts.append(_table('input files at fault', found['input_faults']))
    parts.append(_table(f'quarantined: {found["quarantined"]} (the first 50)',
                        totals.quarantined[:50]))
    parts += ['<h2>Pictures</h2>', *islice(_figures(work_dir, codec, pictures), pictures)]
    path = Path(work_dir) / 'report.html'
    replace_text(path, '\n'.join(parts))
    return path


def _table(title: str, rows: list) -> str:
    if not rows:
        return ''
    cells = [''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) for row in rows]
    return (f'<h2>{html.escape(title)}</h2><table>'
            + ''.join(f'<tr>{row}</tr>' for row in cells) + '</table>')


def _figures(work_dir: str, codec: PolygonCodec, count: int) -> Iterator[str]:
    shards = sorted(Path(work_dir, 'shards').glob('*.tar'))
    chosen = shards[::max(1, len(shards) // count)][:count] if count else []
    share = -(-count // max(1, len(chosen)))
    for path in chosen:
        with open(path, 'rb') as tar:
            places = {name: (offset, size)
                      for name, offset, size in members(tar, os.path.getsize(path))}
            names = [name for name in places if name.endswith('.json')]
            for name in names[::max(1, len(names) // share)][:share]:
                tar.seek(places[name][0])
                annotation = json.loads(tar.read(places[name][1]))
                offset, size = places[annotation['file_name']]
                tar.seek(offset)
                yield _figure(annotation, load_image(tar.read(size)), codec)


def _figure(annotation: dict, image: np.ndarray, codec: PolygonCodec) -> str:
    canvas, scale = fit(image)
    lines = []
    for number, found in enumerate(annotation['objects']):
        color = _COLORS[number % len(_COLORS)]
        if found['segmentation']:
            tint(canvas, rle_to_mask(found['segmentation']), color)
        if found.get('polygon'):
            for ring in codec.decode(found['polygon'], image.shape[:2]).rings:
                draw_ring(canvas, ring * scale, color)
        text = '; '.join(d['text'] for d in found['descriptions']) or found['category']
        lines.append(f'<span style="color:rgb{color}">&#9632;</span> {html.escape(text)} '
                     f'({found["score"]:.2f})')
    out = io.BytesIO()
    picture = Image.fromarray(canvas)
    picture.thumbnail((680, 680))
    picture.save(out, 'JPEG', quality=80)
    data = base64.b64encode(out.getvalue()).decode()
    return (f'<figure><img src="data:image/jpeg;base64,{data}" alt="{annotation["key"]}">'
            f'<figcaption>{annotation["key"]}<br>{"<br>".join(lines)}</figcaption></figure>')
