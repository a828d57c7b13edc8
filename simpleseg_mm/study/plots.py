"""Pictures of a study: its figures by arm, and how they came during training."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .table import StudyTable


def plot_study(path: Path, table: StudyTable,
               curves: Mapping[str, Sequence[Sequence[tuple[int, Mapping[str, float]]]]]) -> None:
    """A row of pictures a figure: each seed's value and their mean, and, where validations were
    made, its course: the mean of the seeds, and the span from least to most.

    Args:
        curves: arm -> for each seed (step, figures) of its validations.
    """
    wide = any(runs and any(runs) for runs in curves.values())
    rows = len(table.metrics)
    figure = Figure(figsize=(9 if wide else 5, 0.6 + rows * max(2.2, 0.35 * len(table.arms))),
                    layout='constrained')
    axes = figure.subplots(rows, 2 if wide else 1, squeeze=False)
    for k, metric in enumerate(table.metrics):
        _dots(axes[k][0], table, metric)
        if wide:
            _courses(axes[k][1], table.arms, metric, curves)
    figure.savefig(path, dpi=130)


def _dots(ax, table: StudyTable, metric: str) -> None:
    for k, arm in enumerate(table.arms):
        row = table.row(arm, metric)
        ax.plot(list(row.values.values()), [k] * len(row.values), 'o', color=f'C{k % 10}',
                alpha=0.6)
        if row.mean is not None:
            ax.plot([row.mean], [k], '|', color='black', markersize=16)
    ax.set(yticks=range(len(table.arms)), yticklabels=table.arms, xlabel=metric,
           ylim=(len(table.arms) - 0.5, -0.5))
    ax.grid(axis='x', alpha=0.3)


def _courses(ax, arms: Sequence[str], metric: str, curves: Mapping) -> None:
    for k, arm in enumerate(arms):
        by_step: dict[int, list[float]] = {}
        for run in curves.get(arm, ()):
            for step, figures in run:
                if metric in figures:
                    by_step.setdefault(step, []).append(figures[metric])
        steps = sorted(by_step)
        if not steps:
            continue
        values = [by_step[step] for step in steps]
        ax.plot(steps, [np.mean(one) for one in values], '.-', color=f'C{k % 10}', label=arm)
        ax.fill_between(steps, [min(one) for one in values], [max(one) for one in values],
                        color=f'C{k % 10}', alpha=0.15, linewidth=0)
    ax.set(xlabel='step', ylabel=f'{metric}, validation')
    ax.grid(alpha=0.3)
    if ax.lines:
        ax.legend(fontsize='small')
