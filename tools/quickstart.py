"""The whole way in one command: data, base model, SFT, reinforcement learning, test, pictures.

    python tools/quickstart.py [--work-dir work_dirs/quickstart]

Runs the project's own tools on nano and RefShapes and leaves, in the work dir, ``summary.json``,
``report.png`` (true and written polygons), ``curves_sft.png``, ``curves_gspo.png`` and the logs.
"""
import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

#: what of MMEngine's log lines is shown: where it is, the time left, the loss or the reward
PROGRESS = re.compile(r'(Iter\(\w+\) *\[ *\d+/ *\d+\])(?=.*?(eta: \S+)|)'
                      r'(?=.*? ((?:loss|reward_mask_iou): [\d.]+)|)')
ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {'sft': 'configs/simpleseg/nano_sft_refshapes.py',
           'gspo': 'configs/simpleseg/nano_gspo_refshapes.py'}
SCENES = dict(train=6000, val=40, test=80)
#: changes to the configs, for the clock; few updates want small ones
CHANGES = {'sft': (), 'gspo': ('train_cfg.max_iters=50', 'train_cfg.val_interval=25',
                               'optim_wrapper.optimizer.lr=1e-4')}
COLUMNS = {'gIoU': 'res/gIoU', 'cIoU': 'res/cIoU', 'P@0.5': 'res/P@0.5', 'Acc@0.5': 'rec/Acc@0.5',
           'valid_parse': 'health/valid_parse'}


def run(log: Path, *command: str) -> None:
    """One tool of the project: its output goes to ``log``, its progress to the screen."""
    print(f'\n$ python {" ".join(command)}\n  (log: {log})', flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as file, subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            file.write(line)
            if found := PROGRESS.search(line):
                print('  ' + '  '.join(part for part in found.groups() if part), flush=True)
    if number := stopping.asked():  # the tool has had the signal too, and has ended
        print(f'{stopping.stopped_by(number)}: the same command starts again.', flush=True)
        raise SystemExit(128 + number)
    if process.returncode:
        tail = ''.join(log.read_text().splitlines(keepends=True)[-15:])
        raise SystemExit(f'{tail}\nquickstart stopped: the command above failed, see {log}')


def has_data(folder: Path) -> bool:
    """Whether a RefShapes set with all splits is there, of whatever size."""
    card = folder / 'refshapes/card.json'
    counts = json.loads(card.read_text())['counts'] if card.is_file() else {}
    return all(counts.get(split, {}).get('images') for split in SCENES)


def test(checkpoint: str, work_dir: Path, data: Path) -> dict:
    """Figures of a checkpoint, as fractions; pictures go to ``work_dir/pictures``."""
    run(work_dir / 'test.log', 'tools/test.py', CONFIGS['sft'], checkpoint,
        '--work-dir', str(work_dir), '--out', str(work_dir / 'answers.jsonl'),
        '--show-dir', str(work_dir / 'pictures'), '--cfg-options',
        f'test_dataloader.dataset.data_root={data}',
        'default_hooks.visualization.interval=24')
    metrics = json.loads((work_dir / 'test.log').read_text().splitlines()[-1])
    return {name: round(metrics[key] / 100, 4) for name, key in COLUMNS.items()}


def train(stage: str, work_dir: Path, data: Path, *options: str) -> str:
    """One stage of training; the path of its best checkpoint on val, or of its last."""
    run(work_dir / 'train.log', 'tools/train.py', CONFIGS[stage], '--work-dir', str(work_dir),
        '--cfg-options', *CHANGES[stage], *options,
        *(f'{part}_dataloader.dataset.data_root={data}' for part in ('train', 'val')))
    from simpleseg_mm.engine.launch import find_checkpoint  # loads torch: not for --help
    return find_checkpoint(str(work_dir))


def report(work_dir: Path, rows: dict) -> None:
    """Pictures for a person: answers of the trained model, and the curves of both stages."""
    from simpleseg_mm.files import load_image
    from simpleseg_mm.visualization import contact_sheet, plot_curves, write_image
    files = sorted((work_dir / 'gspo/pictures').glob('*.png'))
    pictures = [load_image(path) for path in files[:12]]
    write_image(contact_sheet(pictures, columns=4), work_dir / 'report.png')
    for stage in CONFIGS:
        scalars = sorted((work_dir / stage).glob('*/vis_data/scalars.json'))
        plot_curves(scalars[-1:], work_dir / f'curves_{stage}.png')
    print(f'\n{"":8}' + ''.join(f'{name:>13}' for name in COLUMNS))
    for name, row in rows.items():
        print(f'{name:8}' + ''.join(f'{value:13.3f}' for value in row.values()))
    print(f'\npictures: {work_dir}/report.png   curves: {work_dir}/curves_*.png')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/quickstart')
    parser.add_argument('--data', type=Path, default=ROOT / 'data/refshapes',
                        help='folder of RefShapes; generated where it is absent')
    args = parser.parse_args()
    args.work_dir, args.data = args.work_dir.resolve(), args.data.resolve()
    from simpleseg_mm.files import replace_json
    start = time.time()
    stopping.defer()
    if not has_data(args.data):
        run(args.work_dir / 'data.log', 'tools/dataset_converters/generate_refshapes.py',
            str(args.data), *(word for split, count in SCENES.items()
                              for word in (f'--scenes-{split}', str(count))))
    rows = {'base': test('none', args.work_dir / 'base', args.data)}
    start_from: list = []
    for stage in CONFIGS:
        folder = args.work_dir / stage
        checkpoint = train(stage, folder, args.data, *start_from)
        rows[stage] = test(checkpoint, folder, args.data)
        start_from = [f'load_from={checkpoint}']
    report(args.work_dir, rows)
    summary = {**rows, 'seconds': round(time.time() - start)}
    replace_json(args.work_dir / 'summary.json', summary, indent=2)
    print('\nYour model answers expressions about such scenes:  simpleseg segment PICTURE "red '
          f'circle" --model {checkpoint}\nWithout --model the packaged one answers, which knows '
          'points and boxes too; for photos see docs/inference.md\n')
    print(json.dumps(summary))


if __name__ == '__main__':
    main()
