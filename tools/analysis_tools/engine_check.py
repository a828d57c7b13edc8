"""Holds an engine to the training forward of a checkpoint, on real samples, and names its fault.

    python tools/analysis_tools/engine_check.py CONFIG CHECKPOINT --engine vllm
    python tools/analysis_tools/engine_check.py CONFIG CHECKPOINT --engine http://HOST:8000/v1

Greedy answers of the engine are compared: what it reads (token ids of the prompt, tokens of the
picture), what it writes, and the log-probability of each token. Where they differ, the training
forward is run as each known fault would have it, and the one whose numbers are the engine's is
named. The last line is one JSON object. Exit status: 0 no fault, 1 a fault is named, 2 it could
not be checked.
"""
import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import KeyValues, add_config_options

if TYPE_CHECKING:
    from mmengine.config import Config

#: what may be done about a server's faults
REMEDIES = dict(slow='Raise --timeout', busy='ask again later, or with fewer --samples',
                key='set OPENAI_API_KEY', size='raise its limit, or lower model.mllm.max_pixels',
                model='--model')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help="checkpoint or run; 'none' for the weights that the "
                        'config names')
    parser.add_argument('--engine', required=True, metavar='vllm|URL',
                        help="'vllm': in this process; or the address of an OpenAI-compatible "
                        'server')
    parser.add_argument('--model', help='name of the model at the server (default: its only one)')
    parser.add_argument('--timeout', type=float, metavar='SECONDS',
                        help='of one attempt at an answer of the server (default: 120)')
    parser.add_argument('--set', choices=['test', 'val', 'train'], default='test',
                        help='whose samples are asked')
    parser.add_argument('--samples', type=int, default=8, help='how many, spread over the set')
    parser.add_argument('--before', nargs='+', default=[], metavar='CHECKPOINT',
                        help='weights that the engine may still have, beside those that the '
                        'config names and the other checkpoints of the run')
    parser.add_argument('--tolerance', type=float, help='mean difference of the log-probability '
                        'of a token that is no fault, in nats (default: 0.001; for weights of 16 '
                        'bits 0.05)')
    parser.add_argument('--engine-options', nargs='+', action=KeyValues,
                        help='keywords of vllm.LLM: key=value')
    add_config_options(parser)
    args = parser.parse_args()
    if args.samples < 1:
        parser.error(f'--samples {args.samples}: at least 1')
    if args.tolerance is not None and not args.tolerance > 0:
        parser.error(f'--tolerance {args.tolerance}: above 0, in nats a token')
    if args.engine != 'vllm' and not args.engine.startswith(('http://', 'https://')):
        parser.error(f"--engine {args.engine}: 'vllm', or the address of a server, such as "
                     'http://localhost:8000/v1')
    if args.engine == 'vllm' and args.model:
        parser.error('--model is the name at a server; --engine vllm takes the checkpoint')
    if args.engine == 'vllm' and args.timeout is not None:
        parser.error('--timeout is of a server; --engine vllm writes in this process')
    if args.engine != 'vllm' and args.engine_options:
        parser.error('--engine-options are those of --engine vllm; a server has its own')
    return args


def load_config(args: argparse.Namespace) -> 'Config':
    from simpleseg_mm.config import read_config
    from simpleseg_mm.engine import launch  # takes seconds to load: not for --help
    cfg = read_config(args.config, args.cfg_options, said={
        'load_from': 'the argument checkpoint', 'resume': 'the argument checkpoint'})
    if not (cfg.get(f'{args.set}_dataloader') or {}).get('dataset'):
        raise ValueError(f'{args.config} has no {args.set}_dataloader.dataset: choose another '
                         '--set')
    args.checkpoint = launch.existing_checkpoint(args.checkpoint)
    args.before = [launch.find_checkpoint(name) for name in args.before]
    return cfg


def read_queries(cfg: 'Config', which: str, count: int) -> list[tuple]:
    """(name, picture, prompt) of samples that lie far apart in a set."""
    from simpleseg_mm.registry import DATASETS
    dataset = DATASETS.build(cfg[f'{which}_dataloader'].dataset)
    if not len(dataset):
        raise ValueError(f'{which}_dataloader.dataset has no samples')
    count = min(count, len(dataset))
    found = []
    for i in range(count):
        index = i * (len(dataset) - 1) // max(count - 1, 1)
        item = dataset[index]
        prompt = item['data_samples'].prompt
        found.append((f'{which} {index}', item['inputs'], prompt))
    return found


def earlier(cfg: 'Config', args: argparse.Namespace) -> Iterator[tuple[str, Callable]]:
    """Weights that the engine may still have, and how they are read."""
    from functools import partial

    from simpleseg_mm.registry import MODELS
    here = args.checkpoint and Path(args.checkpoint).resolve()
    paths = [Path(path) for path in args.before]
    if here is not None:
        yield 'those that the config names', lambda: MODELS.build(cfg.model).state_dict()
        if isinstance(cfg.get('load_from'), str):
            paths.append(Path(cfg.load_from))
        paths += sorted(here.parent.glob('*.pth'), key=lambda path: -path.stat().st_mtime)[:5]
    seen = {here}
    for path in paths:
        if path.resolve() not in seen and path.exists():
            seen.add(path.resolve())
            yield f'those of {path}', partial(state_of, str(path))


def state_of(path: str) -> dict:
    """The weights in a checkpoint, by the names of the model."""
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    from simpleseg_mm.engine import launch
    from simpleseg_mm.engine.checkpoint_file import read_checkpoint
    content = read_checkpoint(launch.find_checkpoint(path))
    weights = content.get('state_dict', content)
    consume_prefix_in_state_dict_if_present(weights, 'module.')
    return weights


def check(args: argparse.Namespace, cfg: 'Config'):
    """Asks the engine and compares; a ``Comparison``."""
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope

    from simpleseg_mm.apis.loading import load_weights
    from simpleseg_mm.client import ChatClient
    from simpleseg_mm.engines.asked import ask_server, ask_vllm
    from simpleseg_mm.engines.check import compare
    from simpleseg_mm.engines.forwards import Case
    from simpleseg_mm.registry import MODELS
    init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
    if args.engine != 'vllm':  # before weights are read
        client = ChatClient(args.engine, os.environ.get('OPENAI_API_KEY'),
                            120.0 if args.timeout is None else args.timeout, remedies=REMEDIES)
        served = client.served(args.model)['id']
    names, images, prompts = zip(*read_queries(cfg, args.set, args.samples))
    model = MODELS.build(cfg.model)
    if args.checkpoint is not None:
        load_weights(model, cfg, args.checkpoint)
    model.eval()
    limit = model.generation['max_new_tokens']
    model.generation = dict(do_sample=False, max_new_tokens=limit)  # the likeliest tokens
    if args.engine == 'vllm':
        observed = ask_vllm(model, images, prompts, limit, args.engine_options or {})
    else:
        observed = ask_server(client.transport.ask, served, model, images, prompts, limit)
    model.to(get_device())
    ours = model.answer(list(images), prompts)
    cases = [Case(*parts) for parts in zip(names, images, prompts, observed)]
    return compare(model, cases, ours, earlier(cfg, args), args.tolerance)


def main() -> None:
    args = parse_args()
    from simpleseg_mm.engine import launch
    with launch.one_line_errors():
        found = check(args, load_config(args))
    print(found.table())
    for name, detail, left in [(row['fault'], row['detail'], row['mean_difference'])
                               for row in found.to_dict()['explanations']]:
        print(f'  {left:9.2e} nats a token remain if: {detail}' + (f' ({name})' if name else ''))
    for note in found.notes:
        print(f'Note: {note}')
    for fault in found.faults:
        print(f'FAULT {fault}')
    if not found.faults:
        print(f'No fault in {found.figures["requests"]} requests and {found.figures["tokens"]} '
              f'tokens: {found.figures["mean_difference"]:.1e} nats a token, at most '
              f'{found.figures["largest_difference"]:.1e}')
    print(json.dumps(found.to_dict()), flush=True)
    raise SystemExit(1 if found.faults else 0)


if __name__ == '__main__':
    main()
