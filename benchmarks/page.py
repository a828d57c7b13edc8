"""docs/benchmarks.md, its JSON and its plots, from a report of run.py."""
import json
import re

import codec
from measure import ROOT

PAGE = ROOT / 'docs/benchmarks.md'
FOLDER = ROOT / 'docs/benchmarks'
#: row -> its table on the page, what is measured, and the peer; another row stands in 'further'
ROWS = dict(
    decode_iou=('codec', 'answer to IoU', 'the official steps'),
    decode_iou_with_mask=('codec', 'answer to IoU and mask', 'the official steps'),
    annotation_to_text=('codec', 'annotation to text', 'the official steps, epsilon 0.005'),
    annotation_to_text_script_epsilon=('codec', 'annotation to text',
                                       'the official steps, epsilon 0.001'),
    mask_array_to_text=('codec', 'mask array to text', 'the official steps'),
    rewards=('codec', 'three rewards of an answer', 'the official IoU alone'),
    annotate_plain=('codec', 'data engine on a CPU', 'a loop of OpenCV and json'),
    annotate_with_clean=('codec', 'the same, with clean masks', 'a loop of OpenCV and json'),
    greedy_decimal3_passes=('decoding', 'greedy answers, decimal3', "transformers' generate"),
    greedy_decimal3_seconds=('decoding', 'greedy answers, decimal3', "transformers' generate"),
    rollout_decimal3_g8=('decoding', 'groups of 8 samples, decimal3', "transformers' generate"),
    greedy_int1000_passes=('decoding', 'greedy answers, int1000', "transformers' generate"),
    greedy_int1000_seconds=('decoding', 'greedy answers, int1000', "transformers' generate"),
    rollout_int1000_g8=('decoding', 'groups of 8 samples, int1000', "transformers' generate"),
    constraint_llguidance=('decoding', 'grammar constraint', 'llguidance'),
    constraint_xgrammar=('decoding', 'grammar constraint', 'xgrammar'),
    logp_memory=('training', 'memory of log-probabilities', 'a plain fp32 log-softmax'),
    sft_nano=('training', 'SFT of nano', 'transformers.Trainer'),
    gspo_step_nano=('training', 'GSPO of nano', "TRL's GRPOTrainer"),
)
#: of the table at the top
SUMMARY = ('decode_iou', 'annotation_to_text', 'rewards', 'greedy_decimal3_seconds',
           'rollout_decimal3_g8', 'sft_nano', 'gspo_step_nano', 'logp_memory')


def write(report: dict[str, dict], quick: bool = False) -> None:
    """Rewrites what stands between the page's marks; rows of earlier reports stay where this one
    has none."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / 'results.json'
    kept = json.loads(path.read_text()) if path.is_file() else {}
    report = {**report, **{name: row for name, row in kept.items() if name not in report}}
    path.write_text(json.dumps(report, indent=1) + '\n')
    PAGE.write_text(filled(PAGE.read_text(), report))
    curves = dict(latency=codec.by_size(*(((112, 224), 1) if quick else ())),
                  tokens=codec.by_tokens(4 if quick else 40))
    (FOLDER / 'curves.json').write_text(json.dumps(curves) + '\n')
    draw(curves)
    draw_batches(report)


def filled(text: str, report: dict[str, dict]) -> str:
    """The page with new tables: each stands between ``figures: NAME`` and ``end of figures``."""
    tables: dict = dict(machine=machine(report['machine']), summary=summary(report))
    for table in ('codec', 'decoding', 'training', 'further'):
        rows = {name: row for name, row in report.items() if name != 'machine'
                and ROWS.get(name, ('further', ))[0] == table}
        tables[table] = figures(rows)
    return re.sub(r'(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)',
                  lambda found: f'{found[1]}{tables[found[2]]}\n{found[3]}', text, flags=re.S)


def machine(of: dict) -> str:
    return (f'{of["cpu"]}, {of["cores"]} cores, {of["threads"]} threads, load {of["load"]:.1f}; '
            f'{of["device"]}; torch {of["torch"]}, Python {of["python"]}.')


def summary(report: dict[str, dict]) -> str:
    lines = ['| task | compared with | ratio |', '|---|---|---|']
    for name in SUMMARY:
        if report.get(name, {}).get('ratio') is not None:
            _, what, peer = ROWS[name]
            lines.append(f'| {what} | {peer} | **{report[name]["ratio"]:.3g}x** |')
    return '\n'.join(lines)


def figures(rows: dict[str, dict]) -> str:
    """A table of rows, and in a fold what each row is."""
    lines, skipped, more = [], {}, []
    for name, row in rows.items():
        if 'skipped' in row:
            skipped.setdefault(row['skipped'], []).append(f'`{name}`')
            continue
        _, what, peer = ROWS.get(name, (None, f'`{name}`', 'its peer'))
        scale, unit = ((1e3, row['unit'].replace('seconds', 'ms', 1))
                       if row['unit'].startswith('seconds') else (1, row['unit']))
        cells = [f'{scale * row["ours"]:.4g}', 'no peer', '']
        if row['ratio'] is not None:
            least, most = row['spread']
            cells[1:] = [f'{scale * row["peer"]:.4g}, {peer}',
                         f'**{row["ratio"]:.3g}x** ({least:.3g} to {most:.3g})']
        lines.append(f'| {what}, {unit} | {" | ".join(cells)} |')
        more.append(f'- `{name}` ({row["device"]}): {row.get("what", what)}{_quality(row)}.')
    if lines:
        lines[:0] = ['| task | ours | peer | ratio (least to most) |', '|---|---|---|---|']
    lines += ['', *(f'Not run on this machine: {", ".join(names)} ({why}).'
                    for why, names in skipped.items())] if skipped else []
    if more:
        lines += ['', '<details>', '<summary>What each row measures</summary>', '', *more, '',
                  '</details>']
    return '\n'.join(lines).strip('\n')


def _quality(row: dict) -> str:
    if 'ours_quality' not in row:
        return ''
    ours, peer = row['ours_quality'], row['peer_quality']
    return (f'. Ours: IoU {100 * ours["iou"]:.2f} % at {ours["tokens"]} tokens. '
            f'The peer: {100 * peer["iou"]:.2f} % at {peer["tokens"]}')


def draw(curves: dict) -> None:
    """The two plots of the codec."""
    times, by_tokens = curves['latency'], curves['tokens']
    figure, axes = _axes()
    for way, label in (('peer', 'official steps'), ('ours', 'ours')):
        axes.loglog(times['side'], times[way], 'o-', label=label)
    axes.set(xlabel='side of the image, pixels', ylabel='answer to IoU, ms')
    _save(figure, axes, 'latency.svg')
    figure, axes = _axes()
    for name, label in (('paper', "paper's preset, official decoding"),
                        ('paper_exact', 'the same outlines, decoded exactly, int1000'),
                        ('default', 'default preset')):
        tokens, iou = zip(*by_tokens[name])
        axes.semilogx(tokens, [100 * value for value in iou], 'o-', label=label)
    axes.set(xlabel='mean tokens a mask', ylabel='mean IoU, %')
    _save(figure, axes, 'tokens_iou.svg')


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
