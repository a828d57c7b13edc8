"""The planner against a real step's allocations, against figures by hand, and what it refuses."""
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.checkpoint import checkpoint

import simpleseg_mm.datasets  # noqa: F401
import simpleseg_mm.engine  # noqa: F401
import simpleseg_mm.models  # noqa: F401
from simpleseg_mm.analysis import (Measured, Phase, Rehearsal, build_on_meta, make_plan,
                                   plan_batch, rehearse, shapes)
from simpleseg_mm.analysis.sharing import share_out, strategy_of
from simpleseg_mm.polygon import TASKS

ROOT = Path(__file__).resolve().parent.parent
LORA = dict(r=8, lora_alpha=16, target_modules=r'.*language_model.*\.(q|v|up)_proj')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('simpleseg_mm')


def config(name: str = 'nano_sft_refshapes', **options) -> Config:
    cfg = Config.fromfile(ROOT / f'configs/simpleseg/{name}.py')
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


# --- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize('options, message', [
    (dict(gpu_memory=0), 'gpu_memory=0'),
    (dict(gpu_memory=-80), 'gpu_memory=-80'),
    (dict(gpus=0), 'gpus=0'),
    (dict(mfu=0), 'mfu=0'),
    (dict(mfu=1.5), 'mfu=1.5'),
    (dict(tokens_per_s=-1), 'tokens_per_s=-1'),
    (dict(answer_tokens=0), 'answer_tokens=0'),
    (dict(memory_bandwidth=0), 'memory_bandwidth=0'),
    (dict(rollout_tokens_per_s=-1), 'rollout_tokens_per_s=-1'),
    (dict(rollout_tokens_per_s=9), 'rollout_tokens_per_s=9: this config has no rollouts'),
    (dict(gpus=3), r'number of processes may be \[1, 2, 4, 8\]'),
    (dict(gpus=2), r'train_dataloader.batch_size may be \[1, 2, 4\]'),
])
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        make_plan(config(), **{**dict(gpus=1, gpu_memory=80), **options})


def test_prompts_that_do_not_make_the_updates_are_refused_as_in_training():
    cfg = config('nano_gspo_refshapes', train_cfg__global_batch_size=2, train_cfg__mini_batches=4)
    with pytest.raises(ValueError, match='2 prompts a process .* mini_batches=4'):
        make_plan(cfg, 1, 80)


def test_a_codec_without_a_budget_needs_a_number_of_tokens():
    cfg = config()
    cfg.train_dataloader.dataset.query.codec.tokens = None
    with pytest.raises(ValueError, match='give answer_tokens'):
        plan_batch(cfg)
    assert plan_batch(cfg, answer_tokens=300).longest == 301


def test_an_unknown_model_without_a_hub(monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match='no/such-model'):
        make_plan(config(model__mllm__pretrained='no/such-model'), 1, 80)


@pytest.mark.parametrize('argument, message', [
    (['no_such_config.py', '--gpus', '1', '--gpu-memory', '80'], 'no config no_such_config.py'),
    (['configs/simpleseg/nano_sft_refshapes.py', '--gpus', '1', '--gpu-memory', '0'],
     'gpu_memory=0'),
])
def test_the_tool_ends_with_one_line(argument, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('sys.argv', ['plan.py', *argument])
    with pytest.raises(SystemExit) as caught:
        load('tools/analysis_tools/plan.py').main()
    said = f'{capsys.readouterr().out}{caught.value}'
    assert message in said and 'Traceback' not in said and caught.value.code != 0


@pytest.mark.parametrize('plan, words', [
    (dict(tokens_per_s=None, peak_tflops=989., mfu=0.35),
     ['989 TFLOPS at MFU 0.35', 'an H100', '--peak-tflops of yours']),
    (dict(tokens_per_s=None, peak_tflops=165., mfu=0.3), ['165 TFLOPS at MFU 0.3']),
    (dict(tokens_per_s=1200., peak_tflops=989., mfu=None), ['1200 tokens/s, as measured']),
])
def test_the_hours_say_what_gpu_they_are_for(plan, words):
    said = load('tools/analysis_tools/plan.py')._speed(plan)
    assert all(word in said for word in words)
    assert ('H100' in said) == (plan['peak_tflops'] == 989 and plan['tokens_per_s'] is None)


def load(path: str):
    spec = importlib.util.spec_from_file_location('a_script', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- memory -----------------------------------------------------------------------------------
@pytest.mark.parametrize('options', [
    dict(train_dataloader__batch_size=2),
    dict(train_dataloader__batch_size=8),
    dict(train_dataloader__batch_size=8, model__mllm__gradient_checkpointing=True),
    dict(train_dataloader__batch_size=8, model__mllm__gradient_checkpointing=.5),
    dict(train_dataloader__batch_size=4, model__mllm__lora=LORA),
    dict(train_dataloader__batch_size=4, model__mllm__lora=LORA,
         model__mllm__gradient_checkpointing=True),
    dict(train_dataloader__batch_size=4, model__mllm__freeze=['vision'],
         model__mllm__dtype='bfloat16', optim_wrapper__optimizer__type='AdamW'),
], ids=['2', '8', '8 checkpointed', '8 half checkpointed', 'lora',
        'lora checkpointed', 'bfloat16 frozen adamw'])
def test_the_plan_is_what_a_real_step_allocates(options):
    """Measured by the allocator's events, which know nothing of the rehearsal; 10 % allowed."""
    benchmark = load('benchmarks/plan_memory.py')
    cfg = config(**options)
    phases = rehearse(cfg, plan_batch(cfg), on_gpu=False).phases
    planned = max(phases[name].total for name in benchmark.STEP)
    assert planned == pytest.approx(benchmark.measure(cfg, 'cpu'), rel=0.1)


def test_the_optimizer_state_of_bfloat16_weights():
    """Muon: momentum 2 bytes, low bits 2. AdamW: two moments 4 bytes each, low bits 2; a step."""
    cfg = config(model__mllm__dtype='bfloat16')
    model = build_on_meta(cfg.model)
    small = ('lm_head', 'embed', 'merger')  # the config's adamw_keys
    muon = adamw = tensors = 0
    for name, p in model.named_parameters():
        if p.ndim == 2 and not any(key in name for key in small):
            muon += p.numel()
        else:
            adamw += p.numel()
            tensors += 1
    measured = rehearse(cfg, plan_batch(cfg))
    assert measured.state == 4 * muon + 10 * adamw + 4 * tensors
    assert measured.weights == 2 * (muon + adamw)
    assert measured.phases['update'].peak['gradients'] == measured.weights


def test_rl_counts_the_cache_and_the_reference():
    cfg = config('nano_gspo_refshapes', train_cfg__objective__beta=0.01)
    measured = rehearse(cfg, plan_batch(cfg))
    rollout, backward = measured.phases['rollout'].peak, measured.phases['backward'].peak
    # keys and values, 4 layers of 128 numbers, float32, and a layer's copy
    length = measured.sample_tokens - 100 - 1 + 100  # the closing newline is not in a prompt
    rows = 16 * 16
    assert rollout['kv_cache'] == pytest.approx(rows * length * 2 * 5 * 128 * 4, rel=0.02)
    assert rollout['reference'] == backward['reference'] == measured.trained
    assert 'gradients' not in {k for k, v in rollout.items() if v}


def hand_made() -> Measured:
    peak = dict(weights=800, gradients=400, optimizer=1600, activations=100, logits=40)
    return Measured(phases=dict(update=Phase(dict(peak)), backward=Phase(dict(peak))),
                    parts=dict(llm=(400, 200)), weights=800, trained=400, trained_count=200,
                    layer=(100, 50), root=(200, 100))


@pytest.mark.parametrize('options, gpus, backward, update', [
    ({}, 1, {}, {}),
    ({}, 4, dict(buckets=400), dict(buckets=400)),
    (dict(model_wrapper_cfg=dict(gradient_as_bucket_view=True)), 4, {}, {}),
    (dict(strategy=dict(type='SomethingElse')), 4, dict(buckets=400), dict(buckets=400)),
    (dict(strategy=dict(type='FullyShardStrategy')), 4,
     dict(weights=200, gradients=100, optimizer=400, gathered=200 + 2 * 100 + 100 + 50),
     dict(weights=200, gradients=100, optimizer=400, activations=25, logits=10)),
    (dict(strategy=dict(type='FullyShardStrategy', shard_size=2)), 4,
     dict(weights=400, gradients=200, optimizer=800, gathered=200 + 2 * 100 + 100 + 50),
     dict(weights=400, gradients=200, optimizer=800, activations=50, logits=20)),
    (dict(strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=2))), 4,
     dict(gradients=100, optimizer=600, buckets=400),
     dict(gradients=100, optimizer=600, buckets=400, activations=200, logits=None)),
    (dict(strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=3))), 4,
     dict(weights=200, gradients=100, optimizer=600, buckets=400, gathered=800),
     dict(weights=200, gradients=100, optimizer=600, buckets=400, activations=200, logits=None)),
    (dict(strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(
        stage=2, offload_optimizer=dict(device='cpu')))), 4,
     dict(gradients=100, optimizer=None, buckets=400),
     dict(gradients=100, optimizer=None, buckets=400, activations=200, logits=None)),
], ids=['one', 'ddp', 'bucket view', 'unknown', 'fsdp', 'hsdp', 'zero 2', 'zero 3', 'offload'])
def test_strategies_by_hand(options, gpus, backward, update):
    for name, expected in dict(backward=backward, update=update).items():
        plain = hand_made().phases[name].peak
        shared = share_out(Config(options), hand_made(), name, gpus)
        assert shared == {key: value for key, value in {**plain, **expected}.items() if value}


@pytest.mark.parametrize('name', ['validation', 'rollout'])
def test_answers_are_written_with_all_weights_at_hand(name):
    measured = hand_made()
    measured.phases[name] = Phase(dict(weights=800, optimizer=1600, activations=100))
    cfg = Config(dict(strategy=dict(type='FullyShardStrategy')))
    assert share_out(cfg, measured, name, 4) == dict(weights=200, optimizer=400, activations=100,
                                                     gathered=800)


def test_groups_of_processes_must_divide_the_gpus():
    cfg = Config(dict(strategy=dict(type='FullyShardStrategy', shard_size=3)))
    with pytest.raises(ValueError, match='shard_size=3 does not divide 4 GPUs'):
        share_out(cfg, hand_made(), 'update', 4)


def test_four_bits_below_adapters():
    """28 matrices of the language model at 4 bits and a byte a 64 weights, and a float32 a 256
    of these bytes; the rest as it is."""
    whole, few = (make_plan(config(
        model__mllm__lora=LORA, **options), 1, 80) for options in (
            {}, dict(model__mllm__quantization=dict(load_in_4bit=True,
                                                    bnb_4bit_use_double_quant=True))))
    assert few['parameters'] == whole['parameters'] and few['trained'] == whole['trained']
    matrices = 4 * (4 * 128 * 128 + 3 * 128 * 384)
    saved = matrices * (4 - 0.5 - 1 / 64 - 4 / 64 / 256) / 2**30
    weights = [plan['memory_gib']['update']['weights'] for plan in (whole, few)]
    assert weights[0] - weights[1] == pytest.approx(saved, rel=1e-3)
    assert few['tflops_per_step'] == pytest.approx(whole['tflops_per_step'])


@pytest.mark.parametrize('name, expected', [
    ('qwen25vl_sft_refcoco', 'DDP'), ('qwen25vl_fsdp_gspo_refcoco', 'FSDP'),
    ('qwen25vl_zero2_sft_refcoco', 'ZeRO-2'), ('qwen25vl_zero3_sft_refcoco', 'ZeRO-3')])
def test_the_configs_strategies_are_known(name, expected):
    assert strategy_of(config(name)) == expected


def test_every_kind_of_answer_has_a_length():
    cfg = config('nano_sft_refshapes')
    lengths = {}
    for task in TASKS:
        cfg.train_dataloader.dataset.query.tasks = {task: 1.0}
        lengths[task] = plan_batch(cfg).longest
    assert lengths['text2extreme'] == lengths['text2point'] < lengths['text2box'] < 40


@pytest.mark.slow
def test_advice_names_what_helps_and_the_combination_that_fits():
    cfg = config(optim_wrapper__optimizer__type='AdamW', train_dataloader__batch_size=2)
    plan = make_plan(cfg, 1, 1.045)
    assert not plan['fits'] and not any(row['fits'] for row in plan['knobs'])
    assert [(row['name'], row['fits']) for row in plan['together']] == [
        ('gradient checkpointing', False), ('1 sample validated at a time', True)]
    cfg.merge_from_dict(plan['knobs'][0]['options'])  # each row is a plan of its own
    assert make_plan(cfg, 1, 80)['peak_gib'] == pytest.approx(plan['knobs'][0]['peak_gib'])


@pytest.mark.slow
def test_memory_that_is_left_buys_operations():
    cfg = config(train_dataloader__batch_size=8, model__mllm__gradient_checkpointing=True)
    plan = make_plan(cfg, 1, 80)
    spare = plan['spare']
    assert spare['name'] == 'no gradient checkpointing'
    assert spare['saved_share'] == pytest.approx(plan['recomputed_share'], rel=.05)
    quarter = config(train_dataloader__batch_size=8, model__mllm__gradient_checkpointing=.25)
    found = make_plan(quarter, 1, 80, advise=False)
    assert plan['peak_gib'] < found['peak_gib'] < spare['peak_gib']
    needed = found['peak_gib'] + found['reserve_gib']
    assert make_plan(cfg, 1, needed + .001)['spare']['peak_gib'] == found['peak_gib']
    assert make_plan(cfg, 1, plan['peak_gib'] + plan['reserve_gib'] + .001)['spare'] is None
    cfg.model.mllm.gradient_checkpointing = False
    assert make_plan(cfg, 1, 80)['spare'] is None


# --- work -------------------------------------------------------------------------------------
def test_time_and_work_by_hand():
    cfg = config('nano_sft_refshapes')
    plan = make_plan(cfg, 1, 80, mfu=0.5, peak_tflops=2)
    assert plan['samples'] == 8 * 1200
    assert plan['hours'] == pytest.approx(
        plan['tflops_per_step'] * 1200 / (0.5 * 2) / 3600)
    measured = make_plan(cfg, 1, 80, tokens_per_s=1000)
    assert measured['hours'] == pytest.approx(measured['tokens_per_step'] * 1200 / 1000 / 3600)


@pytest.mark.parametrize('rollout, passes', [
    (dict(max_new_tokens=100), 100),  # all at a time: as long as the longest
    (dict(max_new_tokens=100, batch_size=2, draft=False), 'mean'),
    (dict(max_new_tokens=100, batch_size=64), 100),  # more than there are
    (dict(max_new_tokens=1000, batch_size=2), 1000)])
def test_the_time_of_rollouts_by_hand(rollout, passes):
    """16 prompts a step on one GPU; float32 weights are read once a pass."""
    cfg = config('nano_gspo_refshapes')
    cfg.train_cfg.rollout = dict(type='InProcessRollout', **rollout)
    settings = dict(mfu=0.5, peak_tflops=2, advise=False)
    plan = make_plan(cfg, 1, 80, memory_bandwidth=3, **settings)
    mean = plan_batch(cfg).mean
    passes = 16 / 2 * mean if passes == 'mean' else passes
    assert plan['rollout_seconds_per_step'] == pytest.approx(
        passes * plan['parameters'] * 4 / 3e9)
    updates = plan['tflops_per_step'] / (0.5 * 2)
    assert plan['seconds_per_step'] == pytest.approx(updates + plan['rollout_seconds_per_step'])
    given = make_plan(cfg, 1, 80, rollout_tokens_per_s=50, **settings)
    group = cfg.train_cfg.get('group_size', 8)
    assert given['rollout_seconds_per_step'] == pytest.approx(16 * group * mean / 50)
    assert given['seconds_per_step'] == pytest.approx(updates + given['rollout_seconds_per_step'])
    whole = make_plan(cfg, 1, 80, tokens_per_s=50, **settings)
    assert whole['rollout_seconds_per_step'] is None
    assert whole['seconds_per_step'] == pytest.approx(16 * group * mean / 50)
    assert [row[:2] for row in plan['sources'] if row[0].startswith('time')] == [
        ['time of updates', 'at MFU 0.5 of 2 TFLOPS'],
        ['time of rollouts', 'weights read at 3 GB/s a pass']]


def test_a_prompt_is_read_once_by_the_answers_of_a_micro_batch():
    cfg = config('nano_gspo_refshapes', train_cfg__group_size=8, train_cfg__down_sample=6)
    tokens, work = [], []
    for rows, measures in ((8, 'auto'), (4, 'auto'), (4, [])):
        cfg.train_cfg.micro_batch_size, cfg.model.mllm.acceleration = rows, measures
        plan = make_plan(cfg, 1, 80, advise=False)
        tokens.append(plan['tokens_per_step'])
        work.append(plan['tflops_per_step'])
    batch = plan_batch(cfg)
    prompt = plan['sequence_tokens'] - batch.longest
    assert tokens == [round(16 * (read * prompt + 6 * batch.mean)) for read in (1, 2, 6)]
    assert sorted(work) == work


@pytest.mark.slow
def test_a_network_that_cannot_pack_reads_a_prompt_for_each_answer(monkeypatch):
    """Such as one with layers of linear attention: what is built counts, not what is asked."""

    def unpacked(model):
        return build_on_meta({**model, 'mllm': dict(model['mllm'], acceleration=[])})
    cfg = config('nano_gspo_refshapes')
    packed = make_plan(cfg, 1, 80, advise=False)['tokens_per_step']
    monkeypatch.setattr('simpleseg_mm.analysis.step.build_on_meta', unpacked)
    tokens = make_plan(cfg, 1, 80, advise=False)['tokens_per_step']
    cfg.model.mllm.acceleration = []
    assert tokens == make_plan(cfg, 1, 80, advise=False)['tokens_per_step'] > packed


def test_a_micro_batch_holds_no_more_than_an_update():
    cfg = config('nano_gspo_refshapes', train_cfg__global_batch_size=4, train_cfg__group_size=8,
                 train_cfg__mini_batches=2)
    peaks = []
    for cfg.train_cfg.micro_batch_size in (8, 16, 64):
        memory = make_plan(cfg, 1, 80, advise=False)['memory_gib']
        peaks.append(memory['backward']['activations'])
    assert peaks[0] < peaks[1] == peaks[2]


def test_flops_of_a_checkpointed_pair_of_layers():
    """Forward 2 a weight and row; backward 4, without the input's gradient 2; the first layer is
    run again, the second is not, as nothing after it needs its output."""
    with torch.device('meta'):
        model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(),
                              nn.Linear(16, 8, bias=False))
    with Rehearsal(vocabulary=3) as rehearsal:
        rehearsal.adopt(model)
        rows = torch.zeros(5, 8)
        with rehearsal.phase() as forward:
            output = checkpoint(model, rows, use_reentrant=False)
        with rehearsal.phase(backward=True) as backward:
            output.sum().backward()
    weight = 2 * 5 * 8 * 16
    assert (forward.flops, forward.recomputed) == (2 * weight, 0)
    assert backward.flops - backward.recomputed == weight + 2 * weight
    assert backward.recomputed == weight


# --- the rehearsal ----------------------------------------------------------------------------
def test_bytes_live_once_and_until_their_last_tensor():
    with torch.device('meta'):
        model = nn.Linear(100, 100, bias=False)
    with Rehearsal(vocabulary=7) as rehearsal:
        rehearsal.adopt(model)
        assert rehearsal.alive['weights'] == 40_000
        with rehearsal.phase() as phase:
            output = model.weight * 2
            view = output.view(-1)[:5]
            del output
            logits = model.weight[:, :7] * 2
            assert rehearsal.alive['activations'] == 40_000  # the view keeps all of it
            assert rehearsal.alive['logits'] == 2_800
            del view, logits
        assert rehearsal.alive['activations'] == rehearsal.alive['logits'] == 0
        assert phase.total == 82_800


def test_masks_choose_as_many_rows_as_they_say():
    with torch.device('meta'):
        model = nn.Embedding(10, 4)
    with Rehearsal(vocabulary=10) as rehearsal:
        rehearsal.adopt(model)
        ids = torch.tensor([[1, 2, 3], [4, 0, 0]])
        assert model(ids)[ids > 0].shape == (4, 4)


# --- shapes -----------------------------------------------------------------------------------
@pytest.mark.parametrize('name, count', [
    ('Qwen/Qwen2.5-VL-3B-Instruct', 3_754_622_976),
    ('Qwen/Qwen2.5-VL-7B-Instruct', 8_292_166_656),
    ('Qwen/Qwen3-VL-4B-Instruct', 4_437_815_808),
])
def test_shapes_have_the_published_number_of_parameters(name, count):
    assert name in shapes()
    model = build_on_meta(dict(type='SimpleSeg', mllm=dict(type='QwenVL', pretrained=name)))
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_borrowed_processor_cuts_the_network_s_patches():
    """nano's processor has patches of 14 pixels and one frame."""
    for name, width in [('qwen25vl_7b', 3 * 2 * 14 * 14), ('qwen3vl_4b', 3 * 2 * 16 * 16)]:
        mllm = build_on_meta(
            Config.fromfile(ROOT / f'configs/_base_/models/{name}.py').model).mllm
        visual, _ = mllm.family.read_pictures([torch.zeros(3, 64, 64, dtype=torch.uint8)])
        assert visual['pixel_values'].shape[1] == width
