"""A report of corrections: how good the model's outlines were, and what was done to them."""
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..export.corrections import ACTIONS, CORRECTIONS_FILE, is_touched
from ..files import ImageError, PictureFinder, load_image, load_json, replace_text
from ..polygon import mask_to_rings, segmentation_to_mask
from . import draw
from .report import picture_address, markdown_table, page_environment

#: of an object that nobody asked for
BY_HAND = 'drawn by hand'
_KINDS = ('text', 'point', 'box', 'everything')
_CATEGORIES = 30  # that the table has
_MARGIN = 0.3  # of an object's longer side round it in its picture
_HEAD = ('objects', 'unchanged', 'corrected', 'deleted', 'IoU before', 'actions an object',
         *ACTIONS)


def correction_figures(content: dict) -> dict:
    """What a file of :func:`~simpleseg_mm.export.to_corrections` says.

    Shares and IoU are of the pictures that are done alone: of the others only what was changed is
    in the file.

    Returns:
        ``pictures``, ``done``, ``others`` (annotations without a correction), and ``all``,
        ``by_question`` and ``by_category``: of each ``objects`` (asked or drawn), ``unchanged``,
        ``corrected`` and ``deleted`` (shares of the answers), ``iou`` (mean of before and after,
        a deleted answer is not in it), ``actions`` (mean an object) and each of ``ACTIONS``.

    Raises:
        ValueError: it holds no corrections.
    """
    rows, others = _rows(content)
    images = content['images']
    figures = dict(pictures=len(images), done=sum(image.get('done') is True for image in images),
                   others=others, all=_means(rows))
    for name, key in (('by_question', 'kind'), ('by_category', 'label')):
        groups: dict[str, list] = {}
        for row in rows:
            groups.setdefault(row[key], []).append(row)
        figures[name] = {group: _means(found) for group, found in sorted(
            groups.items(), key=lambda pair: -sum(row['total'] for row in pair[1]))}
    return figures


def write_correction_report(source: str | Path, out_file: str | Path, examples: int = 12,
                            title: str = '') -> dict:
    """Write ``out_file`` (.html) and, beside it, its tables as Markdown (.md).

    Args:
        source: a file of corrections, or its folder.
        examples: objects that are shown, the worst first.
        title: of the page; the source's path unless told.

    Returns:
        The figures.

    Raises:
        FileNotFoundError, ValueError: there are no corrections.
    """
    if Path(out_file).suffix != '.html':
        raise ValueError(f'the report is an .html file, got {out_file}')
    path = Path(source)
    path = path / CORRECTIONS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f'no corrections {path}: give a folder that holds '
                                f'{CORRECTIONS_FILE}, or the file')
    content = load_json(path)
    try:
        figures = correction_figures(content)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    tables = [_table('All', {'all': figures['all']}),
              _table('By question', figures['by_question']),
              _table('By label', dict(list(figures['by_category'].items())[:_CATEGORIES]))]
    lines = _lines(figures)
    title = title or f'Corrections: {source}'
    page = page_environment().get_template('corrections.html.jinja').render(
        title=title, lines=lines, tables=tables, pictures=list(_pictures(path, content, examples)),
        data=json.dumps(figures))
    out_file = Path(out_file)
    out_file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out_file, page)
    parts = [f'# {title}', '', *lines]
    for table in tables:
        parts += ['', f'## {table["title"]}', '', *markdown_table(table['head'], table['rows'])]
    replace_text(out_file.with_suffix('.md'), '\n'.join([*parts, '']))
    return figures


def _rows(content) -> tuple[list[dict], int]:
    """A row an object and a deleted answer; and how many annotations have no correction."""
    if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) and all(isinstance(row, dict)
                                                       for row in content[key])
            for key in ('images', 'annotations', 'categories')):
        raise ValueError('no COCO file: a record of lists `images`, `annotations`, `categories`')
    names = {row.get('id'): row.get('name') for row in content['categories']}
    images = {row.get('id'): row for row in content['images']}
    rows, others = [], 0
    for one in content['annotations']:
        said = one.get('correction')
        if said is None:
            others += 1
            continue
        image = images.get(one.get('image_id'), {})
        try:
            actions = {name: int(said['actions'][name]) for name in ACTIONS}
            iou = None if said['iou'] is None else float(said['iou'])
            kind = _kind(said['question'])
            edited = said['edited'] is True
        except (TypeError, KeyError, ValueError):
            raise ValueError(f'annotation {one.get("id")}: its `correction` is of another '
                             'form than the page writes; export the corrections again') from None
        fate = '' if kind == BY_HAND else (
            'corrected' if is_touched(edited, actions) else 'unchanged')
        rows.append(dict(annotation=one, label=str(names.get(one.get('category_id'))), kind=kind,
                         iou=iou, done=image.get('done') is True, **actions,
                         total=sum(actions.values()), fate=fate))
    for image in content['images']:
        for one in image.get('rejected') or ():
            rows.append(dict(annotation=None, label=str(one.get('label') or 'object'),
                             kind=_kind(one.get('prompt')), iou=None,
                             done=image.get('done') is True, total=0, fate='deleted',
                             **dict.fromkeys(ACTIONS, 0)))
    if not rows:
        raise ValueError('it holds no corrections; the page exports them as `corrections`')
    return rows, others


def _kind(prompt: dict | None) -> str:
    return BY_HAND if prompt is None else next(
        (kind for kind in _KINDS if prompt.get(kind)), 'text')


def _means(rows: Sequence[dict]) -> dict:
    answers = [row for row in rows if row['done'] and row['fate']]
    fates = Counter(row['fate'] for row in answers)
    ious = [row['iou'] for row in answers if row['iou'] is not None]
    objects = [row for row in rows if row['fate'] != 'deleted']
    return dict(
        objects=len(objects), answers=len(answers),
        **{fate: fates[fate] / len(answers) if answers else None
           for fate in ('unchanged', 'corrected', 'deleted')},
        iou=float(np.mean(ious)) if ious else None,
        **{name: sum(row[key] for row in rows) / len(objects) if objects else None
           for name, key in (('actions', 'total'), *((name, name) for name in ACTIONS))})


def _lines(figures: dict) -> list[str]:
    found = [f'{figures["pictures"]} pictures, {figures["done"]} of them marked done; '
             f'{figures["all"]["objects"]} objects. Shares and IoU are of the answers on pictures '
             'that are done. Actions: questions by pointer (clicks), and vertices.']
    if figures['others']:
        found.append(f'{figures["others"]} annotations say nothing of a correction and are not '
                     'counted.')
    more = len(figures['by_category']) - _CATEGORIES
    if more > 0:
        found.append(f'{more} more labels, on which less was done, are not in the table.')
    return found


def _table(title: str, groups: dict) -> dict:
    def share(value):
        return '–' if value is None else f'{100 * value:.0f} %'

    def plain(value):
        return '–' if value is None or math.isnan(value) else f'{value:.2f}'

    return dict(title=title, head=['', *_HEAD], rows=[[
        name, str(row['objects']),
        *(share(row[fate]) for fate in ('unchanged', 'corrected', 'deleted')), plain(row['iou']),
        *(plain(row[key]) for key in ('actions', *ACTIONS))] for name, row in groups.items()])


def _pictures(path: Path, content: dict, examples: int) -> Iterable[tuple[str, str]]:
    """Captions and pictures of the objects whose outline was worst, as data addresses."""
    rows = [row for row in _rows(content)[0]
            if row['iou'] is not None and row['fate'] == 'corrected']
    images = {image['id']: image for image in content['images']}
    finder = PictureFinder([path.parent / 'images', path.parent])
    for row in sorted(rows, key=lambda row: row['iou'])[:examples]:
        image = images[row['annotation']['image_id']]
        place, _ = finder.look(image['file_name'])
        caption = (f'{image["file_name"]}: {row["label"]}, IoU before {row["iou"]:.2f}, '
                   f'{row["total"]} actions')
        try:
            if place is None:
                raise ImageError('picture missing')
            picture = load_image(place, str(place), upright=True)
            yield caption, picture_address(_drawn(picture, row['annotation']))
        except ImageError:
            continue


def _drawn(picture: np.ndarray, annotation: dict) -> np.ndarray:
    """The part of the picture round an object, with its outlines before and after."""
    after = mask_to_rings(segmentation_to_mask(annotation['segmentation'], *picture.shape[:2]),
                          'edges')
    before = [np.asarray(ring, float) for polygon in annotation['correction']['before']
              for ring in (polygon['outer'], *polygon.get('holes', ())) if len(ring) > 1]
    every = np.concatenate([*after, *before]) if after or before else np.zeros((1, 2))
    low, high = every.min(0), every.max(0)
    margin = max(8.0, _MARGIN * (high - low).max())
    size = np.array(picture.shape[1::-1])
    x1, y1 = np.clip(np.floor(low - margin), 0, size - 1).astype(int)
    x2, y2 = np.clip(np.ceil(high + margin), (x1 + 1, y1 + 1), size).astype(int)
    canvas, scale = draw.fit(picture[y1:y2, x1:x2], 420, 900)
    for rings, color, dash in ((before, draw.PREDICTION, None), (after, draw.TRUTH, (10, 6))):
        for ring in rings:
            draw.draw_ring(canvas, (ring - (x1, y1)) * scale, color, 2, dash)
    return canvas
