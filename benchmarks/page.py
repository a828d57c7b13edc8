"""docs/benchmarks.md, its JSON and its plots, from a report of run.py."""
import json

import codec
import run
from measure import ROOT

PAGE = ROOT / 'docs/benchmarks.md'
FOLDER = ROOT / 'docs/benchmarks'
START, END = '<!-- figures -->', '<!-- end of figures -->'


def write(report: dict[str, dict], quick: bool = False) -> None:
    """Rewrites what stands between the page's marks; rows of earlier reports stay where this one
    has none."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / 'results.json'
    kept = json.loads(path.read_text()) if path.is_file() else {}
    report = {**report, **{name: row for name, row in kept.items() if name not in report}}
    path.write_text(json.dumps(report, indent=1) + '\n')
    head, rest = PAGE.read_text().split(START)
    PAGE.write_text(head + START + '\n' + figures(report) + '\n' + END + rest.split(END)[1])
    draw(quick)
    draw_batches(report)


def figures(report: dict[str, dict]) -> str:
    """The machine, the table, and what each row was."""
    machine = report['machine']
    lines = [f'{machine["cpu"]}, {machine["cores"]} cores, {machine["threads"]} thread(s), load '
             f'{machine["load"]:.1f}; {machine["device"]}; torch {machine["torch"]}, Python '
             f'{machine["python"]}.', '', run.table(report), '']
    for name, row in report.items():
        if row.get('what'):
            lines.append(f'- `{name}`: {row["what"]}{_quality(row)}.')
    return '\n'.join(lines)


def _quality(row: dict) -> str:
    if 'ours_quality' not in row:
        return ''
    ours, peer = row['ours_quality'], row['peer_quality']
    return (f'. IoU {ours["iou"]} at {ours["tokens"]} tokens, the peer '
            f'{peer["iou"]} at {peer["tokens"]}')


def draw(quick: bool = False) -> None:
    """The two plots of the codec."""
    times = codec.by_size(*(((112, 224), 1) if quick else ()))
    figure, axes = _axes()
    for way, label in (('peer', 'official steps'), ('ours', 'ours')):
        axes.loglog(times['side'], times[way], 'o-', label=label)
    axes.set(xlabel='side of the image, pixels', ylabel='answer to IoU, ms')
    _save(figure, axes, 'latency.svg')
    curves = codec.by_tokens(4 if quick else 40)
    figure, axes = _axes()
    for name, label in (('paper', "paper's preset, official decoding"),
                        ('paper_exact', 'the same outlines, decoded exactly, int1000'),
                        ('default', 'default preset')):
        axes.semilogx(*zip(*curves[name]), 'o-', label=label)
    axes.set(xlabel='mean tokens a mask', ylabel='mean IoU')
    _save(figure, axes, 'tokens_iou.svg')
    (FOLDER / 'curves.json').write_text(json.dumps(dict(latency=times, tokens=curves)) + '\n')


def draw_batches(report: dict[str, dict]) -> None:
    """Answers a second against the batch, by grammar, where the report has them."""
    figure, axes = _axes()
    for grammar, color in (('decimal3', 'C0'), ('int1000', 'C1')):
        found = report.get(f'greedy_{grammar}_seconds', {}).get('answers_a_second')
        if found is None:
            continue
        for way, label, style in (('ours', 'ours', 'o-'), ('peer', 'generate', 'o--')):
            axes.plot(found['batch'], found[way], style, color=color, label=f'{grammar}, {label}')
    if axes.lines:
        axes.set(xlabel='questions in a batch', ylabel='answers a second')
        axes.set_xscale('log', base=2)
        _save(figure, axes, 'throughput.svg')


def _axes():
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot.subplots(figsize=(5, 3.2), layout='constrained')


def _save(figure, axes, name: str) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(FOLDER / name, metadata=dict(Date=None))
