"""vLLM itself, on its CPU build: ``make test-vllm``. Skipped where it is not installed."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_standin import BASE, ROOT, logged_rows, run_tool
from mmengine.config import Config
from mmengine.registry import init_default_scope
from scipy.stats import chisquare

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine import launch
from simpleseg_mm.engines.answers import EngineAnswers
from simpleseg_mm.engines.weights import folder_weights
from simpleseg_mm.models.consensus import Ballot, Consensus
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.models.simpleseg import answer_form
from simpleseg_mm.polygon import Spans, export_grammar, mask_iou, outside_grammar
from simpleseg_mm.registry import DATASETS, MODELS

pytest.importorskip('vllm')

from simpleseg_mm.engines.vllm import VLLMEngine  # noqa: E402
from simpleseg_mm.engines.vllm_server import PACKS  # noqa: E402

CONFIG = ROOT / 'configs/simpleseg/nano_sft_refshapes.py'
#: of the engine's cache, so that several runs fit into a small machine
SMALL = dict(max_model_len=1024, max_num_seqs=128, kv_cache_memory_bytes=1 << 28)

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('vllm')
    generate(folder / 'refshapes', dict(train=40, val=4, test=80))  # as the quickstart's test set
    return folder / 'refshapes'


def build(**mllm):
    init_default_scope('simpleseg_mm')
    cfg = Config.fromfile(CONFIG).model
    cfg.mllm.update(pretrained='simpleseg_mm://nano_sft', **mllm)
    return MODELS.build(cfg).eval()


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.fixture(scope='module')
def samples(data):
    init_default_scope('simpleseg_mm')
    cfg = Config.fromfile(CONFIG).test_dataloader.dataset
    cfg.data_root = str(data)
    queries = DATASETS.build(cfg)  # which goes on for ever, visit after visit
    rows = [queries[i] for i in range(len(queries))]
    return [row['inputs'] for row in rows], [row['data_samples'] for row in rows]


@pytest.fixture(scope='module')
def engine(model):
    return VLLMEngine(model, **SMALL)


def in_process(model, images, samples):
    answers = []
    for i in range(0, len(images), 64):
        answers += model.answer(images[i:i + 64], [s.prompt for s in samples[i:i + 64]],
                                forms=[answer_form(s) for s in samples[i:i + 64]])
    return answers


def largest_difference(answers, others):
    return max(float(np.abs(np.subtract(a.token_logps, b.token_logps)).max())
               for a, b in zip(answers, others) if a.token_ids == b.token_ids)


def giou(model, samples, answers):
    found = []
    for sample, answer in zip(samples, answers):
        sample = sample.clone()
        model.postprocess(sample, answer, 0.0)
        found.append(mask_iou(sample.pred_instances.masks[0].numpy(), sample.gt_masks.masks[0]))
    return 100 * float(np.mean(found))


# --- the same model ---------------------------------------------------------------------------
def test_greedy_answers_are_those_in_process(model, engine, samples):
    images, rows = samples
    assert len(rows) == 588
    ours = in_process(model, images, rows)
    groups = engine.write(images, [row.prompt for row in rows])
    theirs = [answer for answer, in groups]
    same = sum(a == b for a, b in zip(ours, theirs))
    print(f'{same} of {len(rows)} answers are equal; log-probabilities differ by at most '
          f'{largest_difference(ours, theirs):.1e}; gIoU {giou(model, rows, ours):.4f} in '
          f'process, {giou(model, rows, theirs):.4f} by vLLM')
    assert same >= 0.99 * len(rows)
    assert largest_difference(ours, theirs) < 1e-3
    assert giou(model, rows, theirs) == pytest.approx(giou(model, rows, ours), abs=0.2)


def test_pictures_of_another_size_are_read_alike(model, engine):
    """vLLM's processor would resize them otherwise: each answer's prompt is held to ours."""
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 255, (3, *size), dtype=np.uint8))
              for size in ((100, 231), (57, 300), (301, 290))]
    prompts = ['the red star', 'a <|image_pad|> “x”', 'the ring']
    ours = model.answer(images, prompts, max_new_tokens=24)
    theirs = [answer for answer, in engine.write(images, prompts, max_new_tokens=24)]
    assert ours == theirs and largest_difference(ours, theirs) < 1e-3


def test_samples_follow_the_network_s_distribution(model, engine, samples):
    """Second tokens of one prompt, behind the usual first one, against the training forward's
    probabilities; and the log-probabilities that vLLM gives."""
    image, prompt, count = samples[0][0], samples[1][0].prompt, 2000
    group, = engine.write([image], [prompt], count, Sampling(2), [(3, i) for i in range(count)])
    first = Counter(answer.token_ids[0] for answer in group).most_common(1)[0][0]
    said = {answer.token_ids[1]: answer.token_logps[1] for answer in group
            if answer.token_ids[0] == first and len(answer.token_ids) == 2}
    counts = Counter(answer.token_ids[1] for answer in group
                     if answer.token_ids[0] == first and len(answer.token_ids) == 2)
    with torch.no_grad():
        logp, _, mask = model.log_probs([image] * len(said), [
            [(prompt, (first, token))] for token in said])
    exact = {token: float(row[at][1]) for token, row, at in zip(said, logp, mask)}
    for token, value in said.items():
        assert value == pytest.approx(exact[token], abs=1e-3)
    total = sum(counts.values())
    common = [token for token in exact if np.exp(exact[token]) * total >= 10]
    assert len(common) >= 2
    seen = [counts[token] for token in common]
    expected = [np.exp(exact[token]) * total for token in common]
    rest = total - sum(expected)
    if rest >= 5:
        seen, expected = [*seen, total - sum(seen)], [*expected, rest]
    else:
        expected = [value * sum(seen) / sum(expected) for value in expected]
    assert chisquare(seen, expected).pvalue > 1e-3


def test_sampled_tokens_are_as_frequent_as_in_process(model, engine, samples):
    images, prompts = samples[0][:48], [row.prompt for row in samples[1][:48]]
    seeds = [(5, p, g) for p in range(48) for g in range(8)]
    sampling = Sampling(80)
    ours, theirs = (Counter(token for group in groups for answer in group
                            for token in answer.token_ids)
                    for groups in (model.sample(images, prompts, 8, seeds, sampling),
                                   engine.write(images, prompts, 8, sampling, seeds)))
    totals = sum(ours.values()), sum(theirs.values())
    assert totals[0] == pytest.approx(totals[1], rel=0.05)
    for token in ours | theirs:
        a, b = ours[token] / totals[0], theirs[token] / totals[1]
        assert abs(a - b) < 0.004 + 0.1 * max(a, b), token


@pytest.mark.parametrize('early_stop', [None, 0.02])
def test_votes_are_those_in_process_but_for_what_is_drawn(model, engine, samples, monkeypatch,
                                                          early_stop):
    images, rows = samples[0][:96], samples[1][:96]
    asked = [(image, row.prompt, None) for image, row in zip(images, rows)]
    monkeypatch.setattr(model, 'consensus', Consensus(samples=8, early_stop=early_stop))

    def voted(stream):
        ballot = Ballot(model.consensus, rows.__getitem__)
        return [ballot.vote(i, answers, 0.0)
                for i, answers in enumerate(stream(asked, ballot.more, 32))]

    ours = voted(model.group_stream)
    theirs = voted(EngineAnswers(model, engine).groups)
    same = sum(a.voters[0].text == b.voters[0].text for a, b in zip(ours, theirs))
    figures = [[np.mean([answer.spans.iou(Spans.from_mask(row.gt_masks.masks[0]))
                         for answer, row in zip(answers, rows)]),
                np.mean([answer.agreement for answer in answers]),
                np.mean([answer.confidence for answer in answers]),
                np.mean([len(answer.voters) for answer in answers])] for answers in (ours, theirs)]
    print(f'{same} greedy answers of {len(rows)} are equal; gIoU, agreement, confidence, answers: '
          f'{np.round(figures, 3).tolist()}')
    assert same >= 95
    assert figures[1] == pytest.approx(figures[0], rel=0.05)


# --- what the config says ---------------------------------------------------------------------
def test_an_answer_depends_on_its_seed_alone(engine, samples):
    images, prompts = samples[0][:3], [row.prompt for row in samples[1][:3]]
    seeds = [(1, p, g) for p in range(3) for g in range(4)]
    groups = engine.write(images, prompts, 4, Sampling(40), seeds)
    alone, = engine.write(images[1:2], prompts[1:2], 1, Sampling(40), [seeds[6]])
    assert alone[0] == groups[1][2]
    assert len({answer.token_ids for answer in groups[1]}) > 1
    again = engine.write(images, prompts, 4, Sampling(40), [(2, *seed) for seed in seeds])
    assert again != groups


def test_banned_tokens_are_not_written(model, engine, samples):
    """Though they are made likelier than all others."""
    images, rows = samples[0][:8], samples[1][:8]
    head = model.mllm.head_weight
    before = head.detach().clone()
    bracket = model.mllm.encoder.ids_of_text('[[[')[0]
    banned = model.mllm.writer.banned_tokens
    try:
        head.data[banned] = 3 * head.data[bracket]
        engine.load_weights(model)
        ours = in_process(model, images, rows)
        theirs = [answer for answer, in engine.write(images, [row.prompt for row in rows])]
    finally:
        head.data.copy_(before)
        engine.load_weights(model)
    assert ours == theirs
    assert not any(set(answer.token_ids) & set(banned) for answer in theirs)


def test_both_end_tokens_end_an_answer(model, engine, samples, monkeypatch):
    """One that the model does not use takes the place of the one that it does."""
    used, other = model.mllm.writer.stop_tokens[0], model.mllm.encoder.pad_token_id
    monkeypatch.setattr(model.mllm.hf.generation_config, 'eos_token_id', [used, other])
    assert set(model.mllm.writer.stop_tokens) == {used, other} and used != other
    head, images, rows = model.mllm.head_weight, samples[0][:8], samples[1][:8]
    before = head.detach().clone()
    try:
        head.data[[used, other]] = head.data[[other, used]]
        engine.load_weights(model)
        ours = in_process(model, images, rows)
        swapped = [answer for answer, in engine.write(images, [row.prompt for row in rows])]
    finally:
        head.data.copy_(before)
        engine.load_weights(model)
    assert swapped == ours
    assert any(answer.finished and answer.token_ids[-1] == other for answer in swapped)


@pytest.mark.parametrize('limit', [1, 5])
def test_answers_are_cut_at_the_limit(engine, samples, limit):
    group, = engine.write(samples[0][:1], [samples[1][0].prompt], 3, Sampling(limit),
                          [(0, ), (1, ), (2, )])
    assert all(answer.num_tokens == limit == len(answer.token_logps) and not answer.finished
               for answer in group)


def test_a_prompt_that_is_too_long_is_told(engine, samples):
    with pytest.raises(ValueError, match='tokens with its picture.*takes 1024.*max_model_len'):
        engine.write(samples[0][:1], ['star ' * 900], max_new_tokens=200)


def test_an_exported_regex_holds_the_answers(engine, samples):
    """Of tokens drawn so hot that without it many an answer is no polygon."""
    images, prompts = samples[0][:32], [row.prompt for row in samples[1][:32]]
    grammar = samples[1][0].codec.partition('/')[0]
    drawn = dict(group_size=4, sampling=Sampling(300, temperature=2.0),
                 seeds=[(i, ) for i in range(128)])
    regex = export_grammar(grammar, 'rings', 'regex')
    free, held = (
        [answer for group in engine.write(images, prompts, structured=structured, **drawn)
         for answer in group] for structured in (None, [dict(regex=regex)] * 32))
    inside = [outside_grammar(answer.text, grammar) in (None, *cut(answer)) for answer in held]
    print(f'{sum(inside)} of {len(inside)} answers are inside the grammar')
    assert len(held) == 128 and all(inside)
    assert sum(outside_grammar(answer.text, grammar) is None for answer in free) < 96


def cut(answer):
    """Where an answer may leave the grammar: at its end, if the limit cut it."""
    return () if answer.finished else (len(answer.text), )


# --- weights ----------------------------------------------------------------------------------
def test_new_weights_are_in_use_at_once(model, engine, samples):
    images, rows = samples[0][:16], samples[1][:16]
    prompts = [row.prompt for row in rows]
    old = engine.write(images, prompts)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    try:
        for p in model.parameters():
            p.data += 0.02 * torch.randn(p.shape, generator=generator) * p.data.std()
        assert engine.write(images, prompts) == old  # a copy
        engine.load_weights(model)
        new = engine.write(images, prompts)
        assert [answer for answer, in new] == in_process(model, images, rows)
    finally:
        for name, p in model.named_parameters():
            p.data.copy_(before[name])
        engine.load_weights(model)
    assert sum(a == b for a, b in zip(old, new)) < 12
    assert engine.write(images, prompts) == old


def test_adapters_are_handed_over_merged(engine, samples):
    """Into an engine of the plain network; the names are the same."""
    model = build(lora=dict(r=4, lora_alpha=8, target_modules=r'.*(language_model|visual).*'
                            r'(q_proj|down_proj|qkv)'))
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if 'lora_B' in name:
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    images, rows = samples[0][:16], samples[1][:16]
    plain = engine.write(images, [row.prompt for row in rows])
    assert folder_weights(model.mllm).keys() == folder_weights(engine.mllm).keys()
    engine.load_weights(model)
    try:
        theirs = [answer for answer, in engine.write(images, [row.prompt for row in rows])]
    finally:
        engine.load_weights(engine.model)
    assert theirs == in_process(model, images, rows)
    assert theirs != [answer for answer, in plain]


def test_training_goes_on_as_if_there_were_no_engine(model, samples):
    """Neither its random numbers nor its threads change; nor does the model."""
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.set_num_threads
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    engine = VLLMEngine(model, **SMALL)
    engine.write(samples[0][:2], ['the ring'] * 2, 2, Sampling(5), [(i, ) for i in range(4)])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.set_num_threads is before[2]
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


# --- reinforcement learning -------------------------------------------------------------------
@pytest.fixture(scope='module')
def config(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    loader = f"num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'"
    path = folder / 'rl.py'
    path.write_text(f"""
_base_ = ['{BASE}/models/nano.py', '{BASE}/datasets/refshapes.py',
          '{BASE}/evaluators/res.py', '{BASE}/schedules/gspo_nano.py', '{BASE}/rl_runtime.py']
custom_imports = dict(imports=['simpleseg_mm.datasets', 'simpleseg_mm.models',
    'simpleseg_mm.engine', 'simpleseg_mm.evaluation', 'simpleseg_mm.visualization',
    'engine_standin'])
model = dict(mllm=dict(pretrained='simpleseg_mm://nano_sft'))
train_dataloader = dict({loader}, query=dict(templates='single')))
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
train_cfg = dict(global_batch_size=8, max_iters=4, val_interval=9, group_size=4,
                 down_sample=None, mini_batches=2, micro_batch_size=8,
                 objective=dict(clip_low=0.2, clip_high=0.2),
                 rollout=dict(_delete_=True, type='VLLMRollout', max_new_tokens=60))
optim_wrapper = dict(optimizer=dict(lr=1e-3, ns_dtype='float32'))
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=9), rollouts=dict(interval=-1),
                     record=dict(type='RecordHook'))
""")
    return path


COLOCATED = {f'train_cfg.rollout.engine.{key}': value for key, value in SMALL.items()}


def train(config, work_dir, **options):
    return run_tool('train.py', config, '--work-dir', work_dir, *(
        ['--resume'] if options.pop('resume', False) else []), '--cfg-options',
        *(f'{key}={value}'.replace(' ', '') for key, value in options.items()))


def record_of(work_dir):
    return json.loads(Path(work_dir, 'record_rank0.json').read_text())


def assert_equal_states(first, second):
    states = [torch.load(Path(folder, 'iter_4.pth'), weights_only=False)['state_dict']
              for folder in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def check_log(work_dir):
    rows = [row for row in logged_rows(work_dir) if 'engine_difference' in row]
    assert len(rows) == 4
    for row in rows:
        assert row['engine_difference'] < 1e-4 and row['engine_difference_max'] < 1e-3, row
        assert row['reward_std'] > 0 and row['kl'] > 0


@pytest.fixture(scope='module')
def colocated(config, tmp_path_factory):
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp('colocated')
    done = train(config, folder, **COLOCATED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_learning_in_one_process(colocated):
    """Every rollout's log-probabilities are the training forward's, so its weights are in use."""
    check_log(colocated)
    record = record_of(colocated)
    assert len(record) == 4 and all(len(rows) == 32 for rows in record)
    assert all(0 < row['tokens'] <= 60 for rows in record for row in rows)


def test_a_killed_run_goes_on_bit_for_bit(config, colocated, tmp_path):
    killed = train(config, tmp_path, **COLOCATED, **{
        'default_hooks.kill.type': 'KillHook', 'default_hooks.kill.at': 2,
        'default_hooks.kill.method': 'train_loop.rollout._engine._run'})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    done = train(config, tmp_path, resume=True, **COLOCATED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert record_of(tmp_path) == record_of(colocated)[2:]
    assert_equal_states(colocated, tmp_path)


# --- servers ----------------------------------------------------------------------------------
@contextmanager
def served(folder, log, port):
    """``vllm serve`` of a folder; its address and its process."""
    with open(log, 'w') as file:
        process = subprocess.Popen(
            [sys.executable, '-m', 'vllm.entrypoints.openai.api_server', '--model', str(folder),
             '--dtype', 'float32', '--port', str(port), '--max-model-len', '1024',
             '--enforce-eager', '--no-enable-chunked-prefill', '--max-num-batched-tokens', '8192',
             '--limit-mm-per-prompt', '{"image": 1, "video": 0}', '--worker-extension-cls',
             PACKS, '--enable-scale-out'],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env=dict(os.environ, VLLM_SERVER_DEV_MODE='1', VLLM_CPU_KVCACHE_SPACE='1',
                     VLLM_CPU_OMP_THREADS_BIND='nobind', OMP_NUM_THREADS='1'))
    url = f'http://127.0.0.1:{port}'
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f'{url}/health', timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, Path(log).read_text()[-3000:]
                time.sleep(1)
        yield url, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What a server is started with."""
    out = tmp_path_factory.mktemp('folder') / 'nano'
    start = tmp_path_factory.mktemp('start') / 'start.pth'
    torch.save(dict(state_dict=build().state_dict()), start)
    done = run_tool('model_converters/to_huggingface.py', CONFIG, start, out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def test_learning_by_a_server_that_is_killed(config, folder, tmp_path, colocated):
    """One line where it is killed in mid-rollout; after a start and --resume, the answers and
    weights of a run whose engine is in process."""
    port = free_port()
    options = {'train_cfg.rollout.mode': 'server', 'train_cfg.rollout.weights_dir':
               str(tmp_path / 'weights'),
               'train_cfg.rollout.urls': f'["http://127.0.0.1:{port}"]'}
    run = tmp_path / 'run'
    with served(folder, tmp_path / 'first.log', port) as (_, process):
        kill = {'default_hooks.kill.type': 'KillServerHook', 'default_hooks.kill.at': 2,
                'default_hooks.kill.process': process.pid}
        stopped = train(config, run, **options, **kill)
    assert stopped.returncode == 2, stopped.stdout[-3000:] + stopped.stderr[-3000:]
    last = stopped.stdout.strip().splitlines()[-1]
    assert last.startswith('ERROR: http://127.0.0.1') and 'does not answer' in last
    assert '--resume goes on' in last and 'Traceback' not in stopped.stderr
    assert launch.find_resumable(str(run)).endswith('iter_2.pth')
    with served(folder, tmp_path / 'second.log', port):
        done = train(config, run, resume=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    whole = record_of(colocated)[2:]
    assert record_of(run) == [[replace_floats(row, other) for row, other in zip(*rows)]
                              for rows in zip(record_of(run), whole)]
    assert [[row['answer'] for row in rows] for rows in record_of(run)] == [
        [row['answer'] for row in rows] for rows in whole]


def replace_floats(row, other):
    """A row of another run where its numbers are close."""
    return {key: row[key] if isinstance(value, float) and row[key] == pytest.approx(
        value, rel=1e-3, abs=1e-4) else value for key, value in other.items()}
