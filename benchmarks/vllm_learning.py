"""Reinforcement learning of nano by vLLM beside the engine in process: the same recipe and start.

    .vllm/bin/python benchmarks/vllm_learning.py OUT [--rollouts 40] [--only server ...]

Greedy gIoU on val after so many rollouts, in process with three seeds, colocated, and by a server
that this script starts. Each way is a run of tools/train.py below OUT, and one that is there is
not run again. The last line is one JSON object.
"""
import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from measure import ROOT

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engines.vllm_server import PACKS

CONFIG = 'configs/simpleseg/nano_gspo_refshapes.py'
ENGINE = ('train_cfg.rollout.type=VLLMRollout', )
COLOCATED = (*ENGINE, 'train_cfg.rollout.engine.max_model_len=1024',
             'train_cfg.rollout.engine.kv_cache_memory_bytes=1073741824')
WAYS = {**{f'in process, seed {seed}': (f'randomness.seed={seed}', ) for seed in range(3)},
        'colocated': COLOCATED, 'server': ENGINE}


@contextlib.contextmanager
def served(out: Path) -> Iterator[tuple[str, ...]]:
    """A server of the start's weights; what a run is told of it."""
    folder = ROOT / 'simpleseg_mm/zoo/nano_sft'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    url = f'http://127.0.0.1:{port}'
    with open(out / 'server.log', 'w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'vllm.entrypoints.openai.api_server', '--model', folder,
             '--dtype', 'float32', '--port', str(port), '--max-model-len', '1024',
             '--enforce-eager', '--no-enable-chunked-prefill', '--max-num-batched-tokens', '8192',
             '--worker-extension-cls', PACKS, '--enable-scale-out'],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=dict(os.environ, VLLM_SERVER_DEV_MODE='1', VLLM_CPU_KVCACHE_SPACE='1',
                     VLLM_CPU_OMP_THREADS_BIND='nobind'))
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f'{url}/health', timeout=5).read()
                break
            if process.poll() is not None:
                raise SystemExit(f'vllm serve ended: see {out / "server.log"}')
            time.sleep(1)
        yield ('train_cfg.rollout.mode=server', f'train_cfg.rollout.urls=["{url}"]',
               f'train_cfg.rollout.weights_dir={out / "weights"}')
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def learn(out: Path, name: str, rollouts: int) -> dict:
    """One run; its greedy gIoU before and after, and seconds of a rollout and of an update."""
    run = out / name.replace(', ', '_').replace(' ', '_')
    options = [f'train_cfg.max_iters={rollouts}', f'train_cfg.val_interval={rollouts}',
               'optim_wrapper.optimizer.lr=1e-4', 'load_from=None',
               'model.mllm.pretrained=simpleseg_mm://nano_sft', *WAYS[name],
               *(f'{part}_dataloader.dataset.data_root={out / "refshapes"}'
                 for part in ('train', 'val'))]
    with served(out) if name == 'server' else contextlib.nullcontext(()) as more:
        if not (run / f'iter_{rollouts}.pth').is_file():
            subprocess.run([sys.executable, 'tools/train.py', CONFIG, '--work-dir', run,
                            '--cfg-options', *options, *more], cwd=ROOT, check=True)
    log = sorted(run.glob('*/vis_data/scalars.json'))[-1]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figures = [row['res/gIoU'] for row in rows if 'res/gIoU' in row]
    steps = [row for row in rows if 'rollout_seconds' in row]
    found = {key: round(sum(row[key] for row in steps) / len(steps), 3)
             for key in ('rollout_seconds', 'update_seconds')}
    differences = [row['engine_difference_max'] for row in steps if 'engine_difference_max' in row]
    if differences:
        found['engine_difference_max'] = max(differences)
    return dict(before=figures[0], after=figures[-1], **found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of the runs')
    parser.add_argument('--rollouts', type=int, default=40)
    parser.add_argument('--only', nargs='+', choices=list(WAYS), default=list(WAYS))
    args = parser.parse_args()
    out = args.out.absolute()
    if not (out / 'refshapes/card.json').is_file():
        generate(out / 'refshapes', dict(train=400, val=40))
    report = {}
    for name in args.only:
        report[name] = learn(out, name, args.rollouts)
        print(f'{name}: {report[name]}', flush=True)
    print(json.dumps(report))


if __name__ == '__main__':
    main()
