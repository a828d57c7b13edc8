"""MMEngine's loops of validation and test, whose model begins the next batches while a long answer
is being written."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from test_models_refilling import IMAGES, PROMPTS, batches_of, counted_passes

from simpleseg_mm import stopping
from simpleseg_mm.engine import LookingAheadTestLoop, StoppableValLoop
from simpleseg_mm.engine.look_ahead import look_ahead
from simpleseg_mm.engine.safe_stop import Stopped
from simpleseg_mm.registry import LOOPS, MODELS

pytestmark = pytest.mark.usefixtures('one_thread')
KINDS = [('val', StoppableValLoop), ('test', LookingAheadTestLoop)]


@pytest.fixture(scope='module')
def nano():
    return MODELS.build(dict(type='SimpleSeg', generation=dict(max_new_tokens=30), mllm=dict(
        type='QwenVL', pretrained='simpleseg_mm://nano')))


class Texts(BaseMetric):
    """Keeps what it is given."""

    def process(self, data_batch, data_samples):
        assert [item.prompt for item in data_batch['data_samples']] == [
            item['prompt'] for item in data_samples]
        self.results += [item['pred_text'] for item in data_samples]

    def compute_metrics(self, results):
        return dict(texts=results)


class Questions(list):
    metainfo = dict(classes=('object', ))


class Loader:
    """Batches of a data set, which counts those that are drawn."""

    def __init__(self, *sizes):
        self.sizes, self.drawn = sizes, 0
        self.dataset = Questions(range(sum(sizes)))

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        for batch in batches_of(*self.sizes):
            self.drawn += 1
            yield batch


def loop_of(kind, model, loader, hook=lambda *_, **__: None):
    """A loop, and the calls of hooks: (name, index of the batch)."""
    calls = []

    def call_hook(name, batch_idx=None, **more):
        calls.append((name, batch_idx))
        hook(name, batch_idx=batch_idx, **more)

    runner = SimpleNamespace(model=model, call_hook=call_hook, iter=7,
                             visualizer=SimpleNamespace(dataset_meta=None))
    return kind(runner, loader, Evaluator([Texts()])), calls


def texts_of(model, count):
    return [model.answer([image], [prompt])[0].text
            for image, prompt in zip((IMAGES * 2)[:count], (PROMPTS * 2)[:count])]


def test_configs_get_these_loops():
    init_default_scope('simpleseg_mm')
    assert (LOOPS.get('ValLoop'), LOOPS.get('TestLoop')) == (StoppableValLoop,
                                                             LookingAheadTestLoop)


@pytest.mark.parametrize('stage, kind', KINDS)
def test_hooks_and_metrics_see_what_they_saw(nano, stage, kind):
    outputs, modes, begun = [], [], []

    def hook(name, batch_idx=None, data_batch=None, outputs_=outputs, outputs=None, **_):
        if name == f'after_{stage}_iter':
            outputs_.append((data_batch['data_samples'], outputs))
            modes.append(nano.training)
        elif name == f'before_{stage}_iter':
            begun.append(batch_idx)

    loader = Loader(3, 3, 3, 1)
    loop, calls = loop_of(kind, nano, loader, hook)
    assert loop.run()['texts'] == texts_of(nano, 10)
    assert calls == [(f'before_{stage}', None), (f'before_{stage}_epoch', None), *(
        (f'{when}_{stage}_iter', i) for i in range(4) for when in ('before', 'after')),
        (f'after_{stage}_epoch', None), (f'after_{stage}', None)]
    for given, found in outputs:
        assert all(one is other for one, other in zip(given, found, strict=True))
    assert modes == [False] * 4 and begun == [0, 1, 2, 3]
    assert loop.dataloader is loader and nano.upcoming is None and loader.drawn == 4
    assert loop.run()['texts'] == texts_of(nano, 10)  # and again
    nano.train()


def test_a_long_answer_does_not_hold_its_batch(nano, monkeypatch):
    count = counted_passes(nano, monkeypatch)
    lengths = [30, 2, 3, 1, 2, 2, 25, 1, 2, 3, 2, 28]
    original = nano.mllm.writer.generate

    def ended(take, batch_size=None, **options):
        left = lengths[done[0]:]

        def told(row, ids):
            left[row] -= len(ids)
            return left[row] <= 0

        return original(take, batch_size, on_tokens=told, **options)

    monkeypatch.setattr(nano.mllm.writer, 'generate', ended)
    done = [0]
    loop, _ = loop_of(LookingAheadTestLoop, nano, Loader(3, 3, 3, 3))
    texts, passes = loop.run()['texts'], count[0]
    count[0] = 0
    expected = []
    for batch in batches_of(3, 3, 3, 3):
        expected += [item.pred_text for item in nano.predict(**batch)]
        done[0] += 3
    assert texts == expected and passes <= 0.75 * count[0]


def test_a_hook_may_ask_the_model_meanwhile(nano):
    asked = []

    def hook(name, **_):
        if name == 'after_val_iter':
            other, = batches_of(2)
            asked.append([item.pred_text for item in nano.val_step(other)])

    loop, _ = loop_of(StoppableValLoop, nano, Loader(2, 2, 2), hook)
    assert loop.run()['texts'] == texts_of(nano, 6)
    assert asked == [texts_of(nano, 2)] * 3


def test_a_validation_is_given_up_where_the_run_is_asked_to_stop(nano, monkeypatch):
    monkeypatch.setattr(stopping._State, 'asked', 0)

    def hook(name, batch_idx=None, **_):
        if (name, batch_idx) == ('after_val_iter', 1):
            stopping._State.asked = 15

    loader = Loader(2, 2, 2, 2, 2, 2, 2)
    loop, calls = loop_of(StoppableValLoop, nano, loader, hook)
    with pytest.raises(Stopped) as caught:
        loop.run()
    assert (caught.value.step, caught.value.number) == (7, 15)
    assert calls[-1] == ('after_val_iter', 1) and loader.drawn < 7
    assert loop.dataloader is loader and nano.upcoming is None
    assert 'evaluate' not in vars(loop.evaluator)
    nano.train()


@pytest.mark.parametrize('stage, kind', KINDS)
def test_what_is_raised_in_a_batch_ends_the_stream(nano, stage, kind):
    def hook(name, batch_idx=None, **_):
        if (name, batch_idx) == (f'after_{stage}_iter', 1):
            raise RuntimeError('full disk')

    loader = Loader(2, 2, 2)
    loop, _ = loop_of(kind, nano, loader, hook)
    with pytest.raises(RuntimeError, match='full disk'):
        loop.run()
    assert loop.dataloader is loader and nano.upcoming is None
    nano.train()


@pytest.mark.parametrize('stage, kind', KINDS)
def test_a_model_that_cannot_look_ahead_gets_batch_after_batch(stage, kind):
    class Plain(BaseModel):
        def forward(self, inputs, data_samples, mode):
            drawn.append(loader.drawn)
            for item in data_samples:
                item.set_field(item.prompt, 'pred_text', field_type='metainfo')
            return data_samples

    drawn, loader = [], Loader(2, 2, 2)
    loop, _ = loop_of(kind, Plain(), loader)
    assert loop.run()['texts'] == PROMPTS[:6] and drawn == [1, 2, 3]


def test_batches_of_any_loop(nano):
    """As the hook of retention has it."""
    found = []
    with torch.no_grad():
        for batch in look_ahead(batches_of(2, 3), nano):
            found += [item.pred_text for item in nano.val_step(batch)]
    assert found == texts_of(nano, 5)
