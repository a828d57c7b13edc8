"""Writing answers beside transformers' ``generate``: same weights, same prompts, one core.

    python benchmarks/decoding.py                        # teaches nano each grammar first
    python benchmarks/decoding.py --weights decimal3=CKPT int1000=CKPT
    python benchmarks/decoding.py --quick                # tiny: to see that it runs

Greedy answers with the grammar's constraint and drafts against ``generate``, in forward passes
and in seconds; sampled groups against ``generate(num_return_sequences=8)``, in seconds a token.
Groups of very different lengths, in passes, beside the same written batch after batch: the next
prompts begin in the rows of answers that have ended. The other rows run both sides in turns in one
process, by its own CPU time. nano is taught a grammar by heart on
a few RefShapes scenes, by the SFT config: what counts is that it writes answers of the usual
length, in the grammar. The last line is one JSON object.
"""
import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import alternate, one_thread, released, row
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from simpleseg_mm.apis.loading import load_weights
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch, processes
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.registry import DATASETS, MODELS

CONFIG = Path(__file__).resolve().parent.parent / 'configs/simpleseg/nano_sft_refshapes.py'
GRAMMARS = ('decimal3', 'int1000')
GROUP, LIMIT, BATCH = 8, 240, 8
DEVICE = 'cpu, 1 thread'


def config_of(grammar: str, folder: str) -> Config:
    """The SFT of nano on the few scenes of a folder, without validation."""
    cfg = Config.fromfile(CONFIG)
    data = cfg.train_dataloader.dataset
    data.update(data_root=f'{folder}/data', indices=16)
    data.query.turns = 1
    data.query.codec.update(grammar=grammar, tokens=150)  # as of the RefCOCO configs
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    for part in ('val', 'test'):
        cfg.update({f'{part}_{key}': None for key in ('cfg', 'dataloader', 'evaluator')})
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=20),
                             checkpoint=dict(type='CheckpointHook', interval=10**6,
                                             by_epoch=False))
    cfg.update(custom_hooks=[], log_level='WARNING', work_dir=f'{folder}/{grammar}')
    cfg.model.generation.max_new_tokens = LIMIT
    return cfg


def teach(cfg: Config, steps: int) -> str:
    """Train, and the checkpoint."""
    cfg = cfg.copy()
    cfg.train_cfg = dict(type='SFTTrainLoop', global_batch_size=cfg.train_cfg.global_batch_size,
                         max_iters=steps, val_interval=10**6)
    warm, fall = cfg.param_scheduler
    warm.end = fall.begin = min(warm.end, steps // 2)
    processes.prepare_launcher(cfg, 'none')
    launch.check_training(cfg, 1)
    Runner.from_cfg(cfg).train()
    return f'{cfg.work_dir}/iter_{steps}.pth'


def transformers_answers(mllm, images, prompts, limit: int, do_sample: bool = False,
                         **options) -> list:
    """What transformers' own ``generate`` writes; call it within :func:`measure.released`, whose
    way back checks the network anew and is not the peer's."""
    batch = mllm.to_device(mllm.encoder.encode(
        images, [[(prompt, None)] for prompt in prompts], for_generation=True))
    with mllm.writer.generating(), torch.no_grad():
        output = mllm.hf.generate(
            **batch, max_new_tokens=limit, do_sample=do_sample,
            pad_token_id=mllm.encoder.pad_token_id, eos_token_id=mllm.writer.stop_tokens,
            suppress_tokens=mllm.writer.banned_tokens, **options)
    return [mllm.writer.read(row) for row in output[:, batch['input_ids'].shape[1]:].tolist()]


class Writer:
    """The same questions for both sides."""

    def __init__(self, cfg: Config, checkpoint: str, prompts: int) -> None:
        init_default_scope('simpleseg_mm')
        self.model = MODELS.build(cfg.model).eval()
        load_weights(self.model, cfg, checkpoint)
        dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'test_mode': True})
        items = [dataset[i] for i in range(prompts)]
        self.images = [item['inputs'] for item in items]
        samples = [item['data_samples'] for item in items]
        self.prompts = [sample.prompt for sample in samples]
        self.forms = [answer_form(sample) for sample in samples]
        self.passes = [0]  # shared with copies
        network = self.model.mllm.hf.get_decoder()
        forward = network.forward

        def counted(*args, **kwargs):
            self.passes[0] += 1
            return forward(*args, **kwargs)

        network.forward = counted

    def first(self, count: int) -> 'Writer':
        """The same with so many of the questions."""
        few = copy.copy(self)
        few.images, few.prompts, few.forms = (
            part[:count] for part in (self.images, self.prompts, self.forms))
        return few

    def ours(self) -> list:
        return self.model.answer(self.images, self.prompts, self.forms, constrain=True)

    def peer(self, **options) -> list:
        return transformers_answers(self.model.mllm, self.images, self.prompts, LIMIT, **options)

    def ours_sampled(self, turn: int) -> list:
        seeds = [(turn, p, g) for p in range(len(self.prompts)) for g in range(GROUP)]
        groups = self.model.sample(self.images, self.prompts, GROUP, seeds, Sampling(LIMIT),
                                   self.forms)
        return sum(groups, [])

    def peer_sampled(self, turn: int) -> list:
        torch.manual_seed(turn)
        return self.peer(do_sample=True, top_k=0, num_return_sequences=GROUP)

    def plain(self):
        """The context in which the peer writes."""
        return released(self.model.mllm)

    def timed(self, write: Callable, *args):
        """Answers, seconds of this process, forward passes."""
        self.passes[0], start = 0, time.process_time()
        answers = write(*args)
        return answers, time.process_time() - start, self.passes[0]

    def both(self, ours: Callable, peer: Callable, *args) -> list[tuple]:
        """Of each side what :meth:`timed` gives."""
        first = self.timed(ours, *args)
        with self.plain():
            return [first, self.timed(peer, *args)]


def by_batch(writer: Writer, turns: int) -> dict[str, list[float]]:
    """Greedy answers a second by the number of questions in a batch, medians of some turns."""
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= len(writer.prompts)]
    found: dict[str, list[float]] = dict(batch=sizes, ours=[], peer=[])
    for few in map(writer.first, sizes):
        for name, values in alternate(dict(ours=few.ours, peer=few.peer), turns,
                                      within=dict(peer=few.plain)).items():
            found[name].append(round(len(few.prompts) / statistics.median(values), 2))
    return found


def measured(grammar: str, writer: Writer, turns: int) -> list[dict]:
    """Rows of one grammar; the first turn warms both sides up and is not counted."""
    refill = [refilled(writer, turns)] if grammar == GRAMMARS[0] else []
    answers_a_second, writer = by_batch(writer, turns), writer.first(BATCH)
    seconds, passes, a_token = ([], []), ([], []), ([], [])
    for turn in range(turns + 1):
        greedy = writer.both(writer.ours, writer.peer)
        drawn = writer.both(writer.ours_sampled, writer.peer_sampled, turn)
        for side in (0, 1) if turn else ():
            seconds[side].append(greedy[side][1])
            passes[side].append(greedy[side][2])
            a_token[side].append(drawn[side][1] / sum(a.num_tokens for a in drawn[side][0]))
    written = [[answer.text for answer in side[0]] for side in greedy]
    inside = [form.is_final(form.follow(form.start, text) or form.start)
              for form, text in zip(writer.forms, written[1])]
    same = sum(one == other for one, other, ok in zip(*written, inside) if ok)
    more = dict(prompts=len(inside), in_grammar=sum(inside), same_text=same)
    return [
        row(f'greedy_{grammar}_passes', *passes, 'forward passes a batch', DEVICE, **more),
        row(f'greedy_{grammar}_seconds', *seconds, 'seconds a batch', DEVICE,
            answers_a_second=answers_a_second, **more),
        row(f'rollout_{grammar}_g{GROUP}', *a_token, 'seconds a token', DEVICE,
            prompts=len(inside)),
        *refill]


def refilled(writer: Writer, turns: int) -> dict:
    """A row of passes: groups of answers, two prompts at a time, that are ended at lengths drawn
    here (geometric, 40 tokens in the mean), so that a few are long."""
    few, same = 2, []
    written: dict[str, list] = dict(ours=[], peer=[])
    for turn in range(turns):
        count = len(writer.prompts) * GROUP
        lengths = np.random.default_rng(turn).geometric(1 / 40, count).clip(max=LIMIT).tolist()

        def write(first: int, prompts: int) -> list:
            left = lengths[first * GROUP:]

            def ended(row: int, ids: Sequence[int]) -> bool:
                left[row] -= len(ids)
                return left[row] <= 0

            part = slice(first, first + prompts)
            seeds = [(turn, i) for i in range(count)][first * GROUP:][:prompts * GROUP]
            return writer.model.sample(
                writer.images[part], writer.prompts[part], GROUP, seeds, Sampling(LIMIT),
                batch_size=few, on_tokens=ended)

        answers: list[list] = []
        for side, prompts in (('ours', len(writer.prompts)), ('peer', few)):
            writer.passes[0] = 0
            answers.append([answer for first in range(0, len(writer.prompts), prompts)
                            for group in write(first, prompts) for answer in group])
            written[side].append(writer.passes[0])
        same += [one == other for one, other in zip(*answers)]  # others: a draw at a rounding
    return row('refill_passes', written['ours'], written['peer'], 'forward passes a rollout',
               DEVICE, prompts=len(writer.prompts), group_size=GROUP, prompts_at_a_time=few,
               same_answers=f'{sum(same)} of {len(same)}')


def rows(quick: bool = False, weights: dict[str, str] | None = None) -> list[dict]:
    """All rows: of each grammar greedy passes, greedy seconds, seconds a sampled token; passes of
    rows that are refilled.

    Args:
        quick: tiny sizes: to see that it runs.
        weights: grammar -> checkpoint of nano that writes it; ``None``: taught here, two minutes
            each.
    """
    found = []
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        generate(f'{folder}/data', dict(train=4 if quick else 16))
        for grammar in GRAMMARS[:1] if quick and not weights else weights or GRAMMARS:
            cfg = config_of(grammar, folder)
            checkpoint = (weights or {}).get(grammar) or teach(cfg, 2 if quick else 140)
            found += measured(grammar, Writer(cfg, checkpoint, 2 if quick else 16),
                              1 if quick else 11)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='tiny sizes: to see that it runs')
    parser.add_argument('--weights', nargs='+', default=[], metavar='GRAMMAR=CHECKPOINT')
    args = parser.parse_args()
    weights = dict(pair.split('=', 1) for pair in args.weights)
    print(json.dumps({item.pop('name'): item for item in rows(args.quick, weights)}))


if __name__ == '__main__':
    main()
