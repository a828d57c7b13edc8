"""The paper's ablation of training stages on nano: SFT; SFT, RL; pre-training, SFT; all three.

    python benchmarks/stages.py --seeds 0 1 2 [--iters 600] [--rollouts 50]

Runs the project's own configs and tools for each seed, every stage from the last checkpoint of
the one before it, and tests on RefShapes' test scenes. Needs data/refshapes and data/refshapes_web
(configs/simpleseg/nano_pretrain_web.py says how). A run that is stopped goes on where it was. The
last line is a JSON object: row -> figure -> the seeds' values.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs/simpleseg'
#: row -> (config, the row that it starts from)
STAGES = {
    'pretrain': ('nano_pretrain_web.py', None),
    'SFT': ('nano_sft_refshapes.py', None),
    'SFT, RL': ('ablations/nano_gspo_from-sft.py', 'SFT'),
    'pre-training, SFT': ('ablations/nano_sft_from-pretrain.py', 'pretrain'),
    'pre-training, SFT, RL': ('ablations/nano_gspo_from-pretrain-sft.py', 'pre-training, SFT'),
}
FIGURES = ('res/gIoU', 'res/cIoU', 'res/P@0.5', 'health/valid_parse')


def tool(log: Path, *command: str) -> str:
    """Output of a tool of the project; its log is kept."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as file:
        code = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=file,
                              stderr=subprocess.STDOUT).returncode
    text = log.read_text()
    if code:
        raise SystemExit(f'{text[-3000:]}\n{" ".join(command)} failed: {log}')
    return text


def run_stage(row: str, folder: Path, start: str, seed: int, options: list) -> str:
    """Trains and tests a row; the path of its checkpoint."""
    config = str(CONFIGS / STAGES[row][0])
    if not (folder / 'figures.json').is_file():
        tool(folder / 'train.log', 'tools/train.py', config, '--work-dir', str(folder),
             '--resume', '--cfg-options', f'load_from={start}', f'randomness.seed={seed}',
             'default_hooks.checkpoint.save_best=None', 'default_hooks.samples.interval=-1',
             *options)
    checkpoint = (folder / 'last_checkpoint').read_text().strip()
    if not (folder / 'figures.json').is_file():
        output = tool(folder / 'test.log', 'tools/test.py', config, checkpoint, '--work-dir',
                      str(folder / 'test'))
        metrics = json.loads(output.splitlines()[-1])
        (folder / 'figures.json').write_text(json.dumps({key: metrics[key] for key in FIGURES}))
    return checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--iters', type=int, default=600, help='updates of pre-training and SFT')
    parser.add_argument('--rollouts', type=int, default=50, help='of RL, at learning rate 1e-4')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/stages')
    args = parser.parse_args()
    results: dict = {row: {key: [] for key in FIGURES} for row in STAGES}
    for seed in args.seeds:
        checkpoints = {None: 'None'}
        for row, (config, start) in STAGES.items():
            count = args.rollouts if 'gspo' in config else args.iters
            options = [f'train_cfg.max_iters={count}', f'train_cfg.val_interval={count}',
                       f'default_hooks.checkpoint.interval={count}']
            if count == args.rollouts:
                options.append('optim_wrapper.optimizer.lr=1e-4')
            folder = (args.work_dir / f'seed{seed}' / row.replace(', ', '-')).resolve()
            checkpoints[row] = run_stage(row, folder, checkpoints[start], seed, options)
            for key, value in json.loads((folder / 'figures.json').read_text()).items():
                results[row][key].append(value)
            print(seed, row, (folder / 'figures.json').read_text(), flush=True)
    print('| stages | ' + ' | '.join(FIGURES) + ' |\n|' + '---|' * (len(FIGURES) + 1))
    for row, columns in results.items():
        cells = [f'{statistics.mean(v):.1f} ({min(v):.1f}-{max(v):.1f})' for v in columns.values()]
        print(f'| {row} | ' + ' | '.join(cells) + ' |')
    print(json.dumps(results))


if __name__ == '__main__':
    main()
