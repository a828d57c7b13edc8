"""Curves of a run: losses, learning rate and metrics as MMEngine's local backend logs them."""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.utils import mkdir_or_exist

from ..files import replacing

_MAIN = ('loss', 'lr', 'res/gIoU', 'res/cIoU', 'health/valid_parse', 'valid_parse', 'length',
         'entropy', 'kl', 'clipped', 'dropped_groups', 'engine_difference',
         'engine_difference_max')

Series = dict[str, tuple[list[float], list[float]]]


def find_log(run: str | Path) -> Path:
    """The scalars of a run: a file itself, or a work directory's newest.

    Raises:
        FileNotFoundError: There are none.
    """
    path = Path(run)
    if path.is_file():
        return path
    logs = sorted(path.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'{run} is neither a scalars.json nor a work directory with '
                                'TIMESTAMP/vis_data/scalars.json')
    return logs[-1]


def read_scalars(path: str | Path) -> Series:
    """Values by name from a ``vis_data/scalars.json``: name -> (steps, values).

    A line that was being written when the run was killed is passed over.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no scalars at {path}; it is written by LocalVisBackend into '
                                'work_dirs/NAME/TIMESTAMP/vis_data')
    series: Series = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        for name, value in row.items():
            if name != 'step' and isinstance(value, (int, float)) and np.isfinite(value):
                steps, values = series.setdefault(name, ([], []))
                steps.append(row.get('step', len(steps)))
                values.append(value)
    return series


def plot_curves(scalars: str | Path | Sequence[str | Path], out_file: str | Path,
                names: Sequence[str] | None = None) -> None:
    """Draws one panel a scalar, all runs in it.

    Args:
        scalars: One or more ``vis_data/scalars.json``. A run is named after its work directory.
        out_file: PNG, SVG or PDF; folders are made.
        names: Scalars to draw. Unless told: loss, lr, gIoU, cIoU, valid_parse, and of
            reinforcement learning its rewards, length, entropy, KL, clip share and dropped
            groups, as far as they occur.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: None of the names occurs; the message lists what does.
    """
    figure = curves_figure(scalars, names)
    mkdir_or_exist(Path(out_file).parent)
    with replacing(out_file, durable=False) as partial:
        figure.savefig(partial, dpi=110, format=Path(out_file).suffix[1:] or 'png')


def curves_figure(scalars: str | Path | Sequence[str | Path],
                  names: Sequence[str] | None = None):
    """The matplotlib figure of :func:`plot_curves`."""
    paths = [scalars] if isinstance(scalars, (str, Path)) else list(scalars)
    runs = {_label(path, paths): read_scalars(path) for path in paths}
    known = sorted({name for run in runs.values() for name in run})
    wanted = names or [*_MAIN, *(name for name in known if name.startswith('reward'))]
    drawn = [name for name in wanted if name in known]
    if not drawn:
        raise ValueError(f'nothing to draw: none of {list(wanted)} is in {known}')
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, drawn):
        for number, (label, run) in enumerate(runs.items()):
            if name in run:
                _draw(axes, *run[name], label=label, color=f'C{number}')
        axes.set_title(name, fontsize=11)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(drawn):]:
        axes.remove()
    if len(runs) > 1:
        figure.axes[0].legend(fontsize=8)
    return figure


def _draw(axes, steps: list[float], values: list[float], label: str, color: str) -> None:
    """Few values as dots on a line; many faintly, under their running mean."""
    if len(values) <= 40:
        axes.plot(steps, values, marker='o', markersize=3, label=label, color=color)
        return
    window = max(3, len(values) // 30)
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode='edge')
    smooth = np.convolve(padded, np.ones(window) / window, mode='valid')
    axes.plot(steps, values, alpha=0.3, linewidth=0.8, color=color)
    axes.plot(steps, smooth, label=label, color=color)


def _label(path: str | Path, paths: Sequence[str | Path]) -> str:
    """The work directory of a run, or else its time, whichever tells it from the others."""
    parts = Path(path).resolve().parts[:-1]
    parts = parts[:-1][-2:] if parts[-1:] == ('vis_data', ) else parts[-1:]
    others = [Path(other).resolve().parts for other in paths if str(other) != str(path)]
    for name in parts:
        if not any(name in other for other in others):
            return name
    return str(path)
