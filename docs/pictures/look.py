"""One look of all pictures: an SVG 600 pixels wide on a white card, whose letters are readable
where a phone shows it at 60 % of that."""
import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline
from PIL import Image

WIDTH = 600  # pixels
#: Okabe and Ito's colours, which people who see few colours tell apart too
BLUE, ORANGE, GREEN, RED = '#0072B2', '#E69F00', '#009E73', '#D55E00'
SKY, PINK, INK, GREY, PALE = '#56B4E9', '#CC79A7', '#1f2937', '#6b7280', '#eef1f5'
PIXEL = 72 / 96  # of CSS, in points
BIG, SMALL = 17.5 * PIXEL, 16 * PIXEL  # sizes of letters, points

SETTINGS = {
    'font.family': 'DejaVu Sans', 'font.size': SMALL, 'text.color': INK, 'axes.labelcolor': INK,
    'xtick.color': INK, 'ytick.color': INK, 'axes.edgecolor': GREY, 'axes.titlesize': BIG,
    'axes.titlelocation': 'left', 'axes.labelsize': SMALL, 'xtick.labelsize': SMALL,
    'ytick.labelsize': SMALL, 'legend.fontsize': SMALL, 'legend.frameon': False,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid.axis': 'y',
    'grid.color': '#d5dae1', 'axes.axisbelow': True, 'lines.linewidth': 2, 'svg.hashsalt': 'docs'}


def canvas(height: int) -> tuple[Figure, 'matplotlib.axes.Axes']:
    """A figure to draw on in pixels, (0, 0) at the left top."""
    figure = Figure(figsize=(WIDTH / 96, height / 96), dpi=96)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis('off')
    return figure, ax


def chart(height: int, rows: int = 1, columns: int = 1, **options):
    """A figure of plots, and its axes."""
    figure = Figure(figsize=(WIDTH / 96, height / 96), dpi=96, layout='constrained')
    figure.get_layout_engine().set(w_pad=.12, h_pad=.12)
    return figure, figure.subplots(rows, columns, **options)


def write(ax, x: float, y: float, text: str, size: float = SMALL, color: str = INK,
          align: str = 'left', **options) -> None:
    """A text whose first line's middle is at y, pixels."""
    ax.text(x, y, text, fontsize=size, color=color, ha=align,
            va=options.pop('va', 'center'), **options)


def box(ax, x: float, y: float, width: float, height: float, title: str = '',
        lines: Sequence[str] = (), color: str = BLUE, filled: bool = False) -> None:
    """A rounded box with a title and lines of text below it, all in its middle."""
    ax.add_patch(FancyBboxPatch(
        (x, y), width, height, boxstyle='round,pad=0,rounding_size=8', linewidth=1.6,
        edgecolor=color, facecolor=color if filled else 'white', zorder=2))
    rows = [*([(title, 'bold')] if title else []), *((line, 'normal') for line in lines)]
    top = y + height / 2 - 11 * (len(rows) - 1)
    for number, (text, weight) in enumerate(rows):
        write(ax, x + width / 2, top + 22 * number, text, align='center', zorder=3, weight=weight,
              color='white' if filled else INK)


def arrow(ax, start: tuple[float, float], end: tuple[float, float], color: str = GREY,
          **options) -> None:
    ax.annotate('', end, start, zorder=1, arrowprops=dict(
        arrowstyle='-|>', color=color, linewidth=2, shrinkA=0, shrinkB=0, mutation_scale=14,
        **options))


def show(ax, image: np.ndarray, place: tuple[float, float, float, float]) -> None:
    """An RGB picture (H, W, 3) at x, y, width, height."""
    x, y, width, height = place
    ax.imshow(image, extent=(x, x + width, y + height, y), interpolation='none', zorder=1)
    ax.set(xlim=(0, WIDTH), ylim=ax.get_ylim(), aspect='auto')


def rings_patch(rings: Sequence[np.ndarray], scale: float = 1, at: tuple[float, float] = (0, 0),
                **options) -> PathPatch:
    """Rings (N, 2) as one patch; holes run the other way and stay empty."""
    whole = [scale * np.concatenate([ring, ring[:1]]) + at for ring in rings]
    codes = [[Outline.MOVETO, *[Outline.LINETO] * (len(ring) - 2), Outline.CLOSEPOLY]
             for ring in whole]
    return PathPatch(Outline(np.concatenate(whole), np.concatenate(codes)), **options)


def save(figure: Figure, path: Path, label: str) -> None:
    """Write the SVG on its white card.

    Args:
        label: what the picture shows, for those who hear it.
    """
    figure.patch.set_visible(False)
    for ax in figure.axes:
        ax.patch.set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata=dict(Date=None, Creator=None))
    svg = re.sub(r'<\?xml.*?(?=<svg)|<metadata>.*?</metadata>', '', text.getvalue(), flags=re.S)
    svg = re.sub(r'data:image/png;base64,([^"]+)', _smaller, svg)
    svg = re.sub(r'<svg [^>]*>', lambda found: (
        found[0][:-1] + f' role="img" aria-label="{escape(label)}">\n'
        '<rect width="100%" height="100%" rx="9" fill="#fff"/>'), svg, count=1)
    path.write_text(re.sub(r' +\n', '\n', svg))


def _smaller(found: re.Match) -> str:
    """A picture as JPEG, where that is smaller than PNG."""
    png = base64.b64decode(found[1])
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(png))
    if picture.mode == 'RGBA' and picture.getextrema()[3][0] < 255:
        return found[0]
    picture.convert('RGB').save(out, 'JPEG', quality=72)
    if out.tell() >= len(png):
        return found[0]
    return f'data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}'
