"""The table of a study: means and spreads over seeds, and differences from the first arm."""
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Row:
    """One arm and one figure.

    Attributes:
        arm, metric: names.
        values: by seed, those that are there.
        mean, spread: of them; the spread is the sample's standard deviation, None of one value.
        difference: mean of the arm's value minus the first arm's, seed by seed; None for the first
            arm, and where no seed is in both.
        interval: half of its 95 % confidence interval (Student's t); None of fewer than two pairs,
            and of pairs that differ by the same.
        p: of the paired t-test, two-sided; None as ``interval``. Not corrected for the number of
            rows.
        pairs: seeds that both arms have.
    """
    arm: str
    metric: str
    values: Mapping[int, float]
    mean: float | None
    spread: float | None
    difference: float | None = None
    interval: float | None = None
    p: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class StudyTable:
    """All rows, arm by arm.

    Attributes:
        seeds: how many the study has.
    """
    name: str
    arms: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: int
    rows: tuple[Row, ...]

    def row(self, arm: str, metric: str) -> Row:
        return next(row for row in self.rows if (row.arm, row.metric) == (arm, metric))

    def to_json(self) -> str:
        return json.dumps(dict(study=self.name, rows=[asdict(row) for row in self.rows]),
                          indent=1) + '\n'

    def to_markdown(self) -> str:
        """A Markdown table; the best mean of a column is not marked: what is best is the
        reader's, since of some figures less is better."""
        head = ['', 'seeds', *(part for name in self.metrics
                               for part in (name, f'difference from {self.arms[0]}'))]
        lines = [head, ['---'] * len(head)]
        for arm in self.arms:
            rows = [self.row(arm, metric) for metric in self.metrics]
            lines.append([arm, _counts(rows, self.seeds),
                          *(cell for row in rows
                            for cell in (_mean(row, '±'), _change(row, '±')))])
        return ''.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |\n'
                       for line in lines)

    def to_latex(self) -> str:
        """A ``tabular`` of booktabs."""
        head = ['', 'seeds', *(part for name in self.metrics
                               for part in (_tex(name), r'$\Delta$'))]
        lines = [r'\begin{tabular}{l' + 'r' * (len(head) - 1) + '}', r'\toprule',
                 ' & '.join(head) + r' \\', r'\midrule']
        for arm in self.arms:
            rows = [self.row(arm, metric) for metric in self.metrics]
            cells = [f'${cell}$' if cell else '' for row in rows
                     for cell in (_mean(row, r'\pm'), _change(row, r'\pm', p=False))]
            lines.append(' & '.join([_tex(arm), _counts(rows, self.seeds), *cells]) + r' \\')
        return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', ''])


def table_of(name: str, arms: tuple[str, ...], metrics: tuple[str, ...], seeds: tuple[int, ...],
             figures: Mapping[tuple[str, int], Mapping[str, float]]) -> StudyTable:
    """A study's table.

    Args:
        figures: (arm, seed) -> the figures of its run; runs that have none are left out.
    """
    rows = []
    for arm in arms:
        for metric in metrics:
            values, first = ({seed: float(found[metric]) for seed in seeds
                              if (found := figures.get((one, seed))) and metric in found}
                             for one in (arm, arms[0]))
            pairs = [] if arm == arms[0] else [seed for seed in values if seed in first]
            rows.append(Row(arm, metric, values, *_mean_of(list(values.values())),
                            *_paired([values[seed] - first[seed] for seed in pairs]), len(pairs)))
    return StudyTable(name, arms, metrics, len(seeds), tuple(rows))


def _mean_of(values: list[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _paired(changes: list[float]) -> tuple[float | None, float | None, float | None]:
    """Mean, half of its 95 % interval, and p of a paired t-test that it is 0."""
    mean, spread = _mean_of(changes)
    if mean is None or spread is None:
        return mean, None, None
    error = spread / math.sqrt(len(changes))
    if error <= 1e-9 * max(1, abs(mean)):  # by chance, or nothing changed; a test looks certain
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(changes) - 1)) * error
    return mean, half, float(2 * stats.t.sf(abs(mean / error), len(changes) - 1))


def _counts(rows: list[Row], seeds: int) -> str:
    count = min(len(row.values) for row in rows)
    return str(count) if count == seeds else f'{count} of {seeds}'


def _number(value: float) -> str:
    """With two decimals, or three digits where it is small."""
    return f'{value:.2f}' if value == 0 or abs(value) >= 0.1 else f'{value:.3g}'


def _mean(row: Row, sign: str) -> str:
    if row.mean is None:
        return ''
    return _number(row.mean) + (f' {sign} {_number(row.spread)}' if row.spread is not None else '')


def _change(row: Row, sign: str, p: bool = True) -> str:
    if row.difference is None:
        return ''
    text = f'{"+" if row.difference >= 0 else ""}{_number(row.difference)}'
    if row.interval is not None:
        text += f' {sign} {_number(row.interval)}' + (f' (p {_p(row.p)})' if p else '')
    return text


def _p(p: float) -> str:
    return '< 0.001' if p < 0.001 else f'{p:.3f}'


def _tex(text: str) -> str:
    marks = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
    return ''.join(marks.get(one, f'\\{one}' if one in '&%$#_{}' else one) for one in text)
