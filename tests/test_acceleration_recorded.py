"""Passes that are recorded and replayed write what others write; with a GPU, as CUDA graphs."""
import pytest
import torch
from test_models_decoding import BOXES, FORMS
from test_models_families import PICTURES, PROMPTS, SEEDS, of_family

from simpleseg_mm.acceleration import recorded_passes
from simpleseg_mm.acceleration.recorded_passes import GraphCache, RecordedPasses
from simpleseg_mm.models.sampling import Sampling
from simpleseg_mm.polygon import AnswerAutomaton
from simpleseg_mm.registry import MODELS

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason='needs a CUDA device')


@pytest.fixture(scope='module')
def nano():
    with torch.device('cuda' if CUDA else 'cpu'):
        return MODELS.build(dict(type='SimpleSeg', mllm=dict(
            type='QwenVL', pretrained='simpleseg_mm://nano', acceleration='auto'))).to(
                'cuda' if CUDA else 'cpu')


@pytest.fixture
def replays(monkeypatch):
    """Tokens a row of each pass that is replayed; without a GPU it is computed anew from the
    recording's places, and written where the recording wrote."""
    counts, recorded = [], recorded_passes._recorded

    def standin(run):
        result = run().clone()
        return lambda: result.copy_(run()), result

    def counted(run):
        replay, result = (recorded if CUDA else standin)(run)
        return lambda: (counts.append(result.shape[1]), replay()), result

    monkeypatch.setattr(recorded_passes, '_recorded', counted)
    return counts


def with_replay(model, on, monkeypatch):
    """Install or remove it; without a GPU it is told that there is one."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: True)
        model.mllm.acceleration.remove('recorded_passes')
        if on:
            assert model.mllm.acceleration.install('recorded_passes') is None
    monkeypatch.setattr(RecordedPasses, 'can_record', staticmethod(lambda network: True))
    return model


@pytest.mark.parametrize('batch_size', [None, 2])
def test_greedy_answers_are_the_same(nano, replays, monkeypatch, batch_size):
    found = []
    for on in (False, True):
        with_replay(nano, on, monkeypatch)
        found.append([nano.answer(PICTURES, PROMPTS, forms, constrain=bool(forms),
                                  max_new_tokens=limit, batch_size=batch_size)
                      for forms, limit in ((FORMS, 300), (None, 40))])
    assert found[0] == found[1]
    assert set(replays) > {1, 2} and all(n & (n - 1) == 0 for n in replays)


@pytest.mark.parametrize('batch_size', [None, 2])
def test_samples_are_the_same_when_rows_leave_and_the_cache_grows(nano, replays, monkeypatch,
                                                                  batch_size):
    monkeypatch.setattr(GraphCache, 'step', 8)
    seeds = [(3, p, g) for p in range(3) for g in range(8)]
    forms = [AnswerAutomaton.of('int100', 'box')] * 3
    found = []
    for on in (False, True):
        with_replay(nano, on, monkeypatch)
        found.append(nano.sample(PICTURES, BOXES, 8, seeds, Sampling(60, temperature=.7), forms,
                                 batch_size=batch_size))
    assert found[0] == found[1] and len(replays) > 5
    for one, other in zip(sum(found[0], []), sum(found[1], [])):
        assert one.token_logps == pytest.approx(other.token_logps, abs=1e-3)


def test_sampling_of_random_networks_is_the_same(replays, monkeypatch):
    tiny, found = of_family('qwen2_5_vl', acceleration='auto').to('cuda' if CUDA else 'cpu'), []
    for on in (False, True):
        with_replay(tiny, on, monkeypatch)
        found.append(tiny.sample(PICTURES, PROMPTS, 4, SEEDS, Sampling(30), FORMS))
    assert found[0] == found[1] and replays


@pytest.mark.parametrize('family, reason', [
    ('qwen2_5_vl', None), ('qwen3_5', 'needs ragged_cache'),
    ('qwen3_vl_moe', 'tokens are routed to experts'), ('kimi_vl', 'tokens are routed to experts')])
def test_what_can_be_recorded(family, reason, monkeypatch):
    mllm = of_family(family, acceleration='auto').mllm
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert mllm.acceleration.install('recorded_passes') == reason


@pytest.mark.parametrize('device', ['cpu', *(['cuda'] if CUDA else [])])
def test_passes_are_recorded_where_the_network_is_on_a_gpu(device):
    assert RecordedPasses.can_record(
        of_family('qwen2_5_vl').to(device).mllm) == (device == 'cuda')


@needs_cuda
def test_a_training_step_on_the_gpu_is_that_of_the_cpu():
    from test_acceleration_packing import LINES
    from test_models_simpleseg import sample
    losses = []
    for device in ('cpu', 'cuda'):
        tiny = of_family('qwen2_5_vl', dtype='float64', acceleration='auto').to(device)
        loss = tiny.loss(PICTURES, [sample(turns) for turns in LINES])['loss']
        loss.backward()
        losses.append((loss.item(), tiny.mllm.head_weight.grad.cpu()))
    assert losses[0][0] == pytest.approx(losses[1][0])
    torch.testing.assert_close(losses[0][1], losses[1][1])
