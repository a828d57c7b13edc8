"""One self-contained HTML file about a run, and its figures as a Markdown table."""
import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import mkdir_or_exist
from PIL import Image

from ..calibration import RIGHT_IOU, auroc, expected_error, reliability
from ..datasets.pictures import bytes_of_picture
from ..evaluation.failures import FAILURES, FailureKinds
from ..evaluation.offline import attach_row, score
from ..evaluation.text_dump import match_rows, read_text_rows
from ..files import load_image, replace_text
from ..registry import DATASETS
from .curves import curves_figure, find_log
from .visualizer import SimpleSegVisualizer

#: columns of a paper's table, as far as a run has them
PAPER_ROW = ('res/cIoU', 'res/gIoU', 'res/P@0.5', 'res/P@0.7', 'res/P@0.9', 'res/bIoU',
             'gres/cIoU', 'gres/gIoU', 'gres/N-acc', 'gres/T-acc', 'prompt/mIoU', 'rec/Acc@0.5',
             'health/valid_parse')
_SIDE = 900  # pixels of a picture's longer side in the file


def write_report(config: Config, answers: str, out_file: str | Path,
                 runs: Sequence[str] = (), examples: int = 6, title: str = '') -> dict:
    """Score answers as ``tools/test.py`` does and write ``out_file`` (.html) and, beside it, the
    figures as Markdown (.md).

    Args:
        config: of the test; its evaluator gives the figures.
        answers: what ``tools/test.py --out answers.jsonl`` wrote.
        runs: work directories (or ``scalars.json`` files) whose curves are drawn.
        examples: pictures of each kind of failure, and of answers without one.
        title: of the page; the answers' path unless told.

    Returns:
        The figures.

    Raises:
        FileNotFoundError, ValueError: Files are missing, or do not fit each other.
    """
    if Path(out_file).suffix != '.html':
        raise ValueError(f'the report is an .html file, got {out_file}')
    logs = [find_log(run) for run in runs]
    lens, queries = FailureKinds(), []

    def visit(number: int, sample, row: dict) -> None:
        queries.append(dict(lens.measure(sample.to_dict()), number=number,
                            confidence=row.get('confidence')))

    figures = score(config, answers, visit=visit)
    title = title or f'{answers}'
    groups = _chosen(queries, examples)
    pictures = _pictures(config, answers, [q for group in groups.values() for q in group])
    counts = {kind: sum(q['kind'] == kind for q in queries) for kind in (*FAILURES, None)}
    page = page_environment().get_template('report.html.jinja').render(
        title=title, figures=figures, count=len(queries), kinds=FAILURES, counts=counts,
        groups=groups, pictures=pictures, plots=_plots(queries),
        curves=_png(curves_figure(logs)) if logs else None, runs=[str(run) for run in runs],
        data=json.dumps(figures))
    out_file = Path(out_file)
    mkdir_or_exist(out_file.parent)
    replace_text(out_file, page)
    replace_text(out_file.with_suffix('.md'), to_markdown(figures, counts, title))
    return figures


def to_markdown(figures: dict[str, float], counts: dict[str | None, int], title: str) -> str:
    """A row for a paper, all figures, and the kinds of failures, as Markdown tables."""
    row = [name for name in PAPER_ROW if name in figures]
    total = max(1, sum(counts.values()))
    lines = [f'# {title}', '', *markdown_table([name.partition('/')[2] for name in row],
                                       [[f'{figures[name]:.1f}' for name in row]]), '',
             *markdown_table(['figure', 'value'], [[name, f'{value:.2f}'] for name, value in
                                           sorted(figures.items())]), '',
             *markdown_table(['failure', 'queries', '%'],
                     [[kind or 'none', str(count), f'{100 * count / total:.1f}']
                      for kind, count in counts.items()]), '']
    return '\n'.join(lines)


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    cells = [head, ['---'] * len(head), *rows]
    return ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in cells]


def _chosen(queries: list[dict], examples: int) -> dict[str | None, list[dict]]:
    """Of each kind some, spread over their IoU from the worst; at last those without failure."""
    groups = {}
    for kind in (*FAILURES, None):
        found = sorted((q for q in queries if q['kind'] == kind), key=lambda q: q['iou'])
        if found and examples:
            index = np.linspace(0, len(found) - 1, min(examples, len(found))).round().astype(int)
            groups[kind] = [found[i] for i in index]
    return groups


def _pictures(config: Config, answers: str, queries: list[dict]) -> dict[int, str]:
    """Drawn queries by number, as data addresses: truth and answer side by side, vertices
    numbered."""
    visualizer = SimpleSegVisualizer(name='report', layout='side_by_side', numbers=True)
    backend = config.get('default_hooks', {}).get('visualization', {}).get('backend_args')
    pictures = {}
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'simpleseg_mm')):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        rows = match_rows(read_text_rows(answers),
                          (dataset.get_data_info(i) for i in range(len(dataset))))
        for query in queries:
            sample = dataset[query['number']]['data_samples']
            attach_row(sample, rows[query['number']])
            image = load_image(bytes_of_picture(sample.img_path, backend),
                               **sample.get('read_as', dict(upright=False)))
            pictures[query['number']] = picture_address(visualizer.draw_query(image, sample))
    return pictures


def _plots(queries: list[dict]) -> list[tuple[str, str]]:
    """Titles and pictures: IoU against size, tokens and confidence, as far as they are known."""
    plots = []
    for name, title, label, log in (
            ('area', 'IoU against size', 'true area, pixels', True),
            ('tokens', 'IoU against tokens', 'tokens of the answer', False),
            ('confidence', 'IoU against confidence', 'confidence', False)):
        points = [(q[name], q['iou']) for q in queries if q.get(name) and q['area']]
        if not points:
            continue
        x, y = np.array(points, float).T
        figure = Figure(figsize=(5.2, 3.6), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.scatter(x, y, s=9, alpha=0.35, linewidths=0)
        axes.plot(*_means(np.log(x) if log else x, y, np.exp if log else None), color='C3',
                  marker='o', markersize=4, label='mean of a tenth')
        axes.set(title=title, xlabel=label, ylabel='IoU', ylim=(-0.03, 1.03),
                 xscale='log' if log else 'linear')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        plots.append((title, _png(figure)))
    return plots + _reliability(queries)


def _reliability(queries: list[dict]) -> list[tuple[str, str]]:
    """Whether the confidence is the share of right answers, where it is known."""
    known = [(q['confidence'], q['iou'] >= RIGHT_IOU['answer']) for q in queries
             if q['confidence'] is not None and q['area']]
    if not known:
        return []
    confidence, right = zip(*known)
    counts, mean, share = np.array(reliability(confidence, right)).T
    ranked = auroc(confidence, right)
    figure = Figure(figsize=(5.2, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color='0.6', linewidth=1)
    axes.plot(mean, share, color='C3')
    axes.scatter(mean, share, s=10 + 150 * counts / counts.max(), color='C3', alpha=0.6)
    title = f'ECE {100 * expected_error(confidence, right):.1f} %' + (
        '' if ranked is None else f', AUROC {ranked:.3f}')
    axes.set(title=f'Confidence: {title}', xlabel='confidence, mean of a bin',
             ylabel=f'share of answers with IoU from {RIGHT_IOU["answer"]}', xlim=(-0.03, 1.03),
             ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    return [(f'Reliability of the confidence: {title}', _png(figure))]


def _means(x: np.ndarray, y: np.ndarray, back) -> tuple[list[float], list[float]]:
    """Means over tenths of the points, in the order of x."""
    parts = np.array_split(np.argsort(x, kind='stable'), min(10, len(x)))
    middle = np.array([x[part].mean() for part in parts])
    return (back(middle) if back else middle), np.array([y[part].mean() for part in parts])


def _png(figure) -> str:
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=100)
    return f'data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}'


def picture_address(picture: np.ndarray) -> str:
    image, out = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((2 * _SIDE, 2 * _SIDE))
    image.save(out, 'JPEG', quality=82)
    return f'data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}'


def page_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters['figure'] = lambda value: '–' if value is None or (
        isinstance(value, float) and math.isnan(value)) else f'{value:.2f}'
    return environment
