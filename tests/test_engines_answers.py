"""A test whose answers an engine writes, with a stand-in for vLLM; what servers answer."""
import json
import runpy
import sys
from importlib.util import find_spec

import pytest
import torch
from engine_standin import ROOT
from mmengine.registry import init_default_scope

from simpleseg_mm.client import EndpointError
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engine.hooks import answers as hook_module
from simpleseg_mm.engines.answers import greedy_keywords
from simpleseg_mm.engines.asked import ask_server
from simpleseg_mm.polygon import export_grammar
from simpleseg_mm.registry import MODELS

CONFIG = ROOT / 'configs/simpleseg/nano_sft_refshapes.py'


class InProcess:
    """The model itself behind the interface of an engine; it counts what it is asked."""
    asked = []
    check_installed = staticmethod(lambda: None)

    def __init__(self, model, **options):
        self.model, self.own, self.options = model, type(model).answer, options

    def stream(self, asked, max_new_tokens, more):
        images, prompts, grammars = zip(*asked)
        self.asked.append((len(prompts), max_new_tokens, more, set(map(str, grammars)),
                           self.options))
        own = dict(self.model.__dict__)
        self.model.__dict__.pop('answer'), self.model.__dict__.pop('answer_stream')
        answers = self.own(self.model, list(images), prompts, constrain=False,
                           max_new_tokens=max_new_tokens)
        self.model.__dict__.update(own)
        yield from answers


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    generate(folder, dict(train=1, val=1, test=4), seed=2)
    return folder


@pytest.fixture
def standin(monkeypatch):
    monkeypatch.setattr(hook_module, 'VLLMEngine', InProcess)
    monkeypatch.setattr(InProcess, 'asked', [])
    return InProcess


def arguments(shapes, out, *more):
    return (CONFIG, 'none', '--work-dir', out, '--out', out / 'answers.jsonl', *more,
            '--cfg-options', f'test_dataloader.dataset.data_root={shapes}',
            'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
            'model.mllm.pretrained=simpleseg_mm://nano_sft', 'model.generation.max_new_tokens=60')


def without_time(row):
    """Nor confidences, whose last digits depend on the batch."""
    return {key: value for key, value in row.items()
            if not any(word in key for word in ('second', 'time', 'confidence'))}


def test_the_loop_and_what_it_writes_are_the_same(run, shapes, tmp_path, standin):
    rows = []
    for name, options in (('plain', ()), ('engine', ('--engine', 'vllm'))):
        code, figures, _ = run('test.py', *arguments(shapes, tmp_path / name, *options))
        lines = (tmp_path / name / 'answers.jsonl').read_text().splitlines()
        answers = [json.loads(line) for line in lines]
        rows.append((code, without_time(figures), list(map(without_time, answers))))
    assert rows[0][0] == rows[1][0] == 0 and rows[0][1]['res/gIoU'] > 0.3
    assert rows[0][1] == pytest.approx(rows[1][1])
    assert rows[0][2] == rows[1][2] and 'pred_text' in rows[0][2][0]
    (count, *asked), = standin.asked  # all at a time
    assert count == len(rows[0][2]) > 4 and asked == [60, {}, {'None'}, {}]


def test_what_is_asked_for_reaches_the_engine(run, shapes, tmp_path, standin):
    code, _, _ = run('test.py', *arguments(
        shapes, tmp_path, '--engine', 'vllm', '--engine-options', 'max_num_seqs=4'),
        'model.generation.constrain=True', 'model.generation.repetition_penalty=1.1')
    (_, limit, more, grammars, options), = standin.asked
    assert code == 0 and options == dict(max_num_seqs=4) and limit == 60
    assert more == dict(repetition_penalty=1.1)
    assert grammars == {str(dict(regex=export_grammar('int100', 'rings')))}


@pytest.mark.skipif(find_spec('vllm') is not None, reason='vLLM is there')
def test_without_vllm_it_says_so(run, shapes, tmp_path):
    code, _, out = run('test.py', *arguments(shapes, tmp_path, '--engine', 'vllm'))
    assert code == 2 and 'ERROR: vLLM is not installed here' in out.splitlines()[-1]


@pytest.mark.parametrize('options, message', [
    (('--engine-options', 'max_num_seqs=4'), '--engine-options are those of --engine vllm'),
    (('--engine', 'sglang'), "invalid choice: 'sglang'"),
])
def test_bad_arguments(monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, 'argv', ['test.py', str(CONFIG), 'none', *options])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('options, message', [
    (('--engine', 'sglang'), "--engine sglang: 'vllm', or the address of a server"),
    (('--engine', 'localhost:8000'), "--engine localhost:8000: 'vllm', or the address"),
    (('--engine', 'vllm', '--model', 'x'), '--model is the name at a server'),
    (('--engine', 'vllm', '--timeout', '9'), '--timeout is of a server'),
    (('--engine', 'http://x', '--engine-options', 'a=1'), '--engine-options are those of'),
    (('--engine', 'vllm', '--samples', '0'), '--samples 0: at least 1'),
    (('--engine', 'vllm', '--tolerance', 'nan'), '--tolerance nan: above 0'),
    ((), 'required: --engine'),
])
def test_bad_arguments_of_the_check(monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, 'argv', ['engine_check.py', str(CONFIG), 'none', *options])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'tools/analysis_tools/engine_check.py'), run_name='__main__')
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('generation, keywords', [
    (dict(max_new_tokens=60, do_sample=False, draft=True, constrain=True), {}),
    (dict(temperature=0.1, num_beams=1, repetition_penalty=1.0), {}),
    (dict(repetition_penalty=1.3), dict(repetition_penalty=1.3)),
    (dict(sequence_bias=[[[66], 1.0]]), dict(logit_bias={66: 1.0})),
    (dict(sequence_bias={(66, ): -2.0}), dict(logit_bias={66: -2.0})),
    (dict(suppress_tokens=[4, 5]), dict(logit_bias={4: -100.0, 5: -100.0})),
    (dict(bad_words_ids=[[7]], suppress_tokens=[4]), dict(logit_bias={7: -100.0, 4: -100.0})),
])
def test_what_an_engine_is_told_of_generation(generation, keywords):
    assert greedy_keywords(generation) == keywords


@pytest.mark.parametrize('generation', [
    dict(num_beams=4), dict(do_sample=True), dict(sequence_bias=[[[66, 67], 1.0]]),
    dict(bad_words_ids=[[1, 2]]), dict(no_repeat_ngram_size=3),
    dict(length_penalty=2.0), dict(forced_eos_token_id=2)])
def test_what_an_engine_cannot_do_is_refused(generation):
    key, = generation
    with pytest.raises(ValueError, match=f'model.generation.{key}=.*without --engine'):
        greedy_keywords(generation)


# --- servers --------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def model():
    init_default_scope('simpleseg_mm')
    return MODELS.build(dict(
        type='SimpleSeg', generation=dict(max_new_tokens=40), mllm=dict(
            type='QwenVL', pretrained='simpleseg_mm://nano_sft', acceleration=[],
            system_prompt='Write outlines.')))


TEXT = '[[[10,20],[30,40],[50,60]]]'


class Server:
    """What servers answer: ``knows`` of 'ids', 'logprobs', 'tokenize', 'usage'."""

    def __init__(self, model, knows, text=TEXT, reason='stop'):
        self.model, self.knows, self.text, self.reason = model, knows, text, reason
        self.bodies = []

    def __call__(self, path, body):
        encoder = self.model.mllm.encoder
        has_picture = any(part['type'] == 'image_url' for part in body['messages'][-1]['content'])
        text = body['messages'][-1]['content'][-1]['text']
        image = torch.zeros(3, 84, 84, dtype=torch.uint8)
        prompt = encoder.encode([image], [[(text, None)]], for_generation=True)[
            'input_ids'][0].tolist()
        placeholder = self.model.mllm.family.image_token_id
        if not has_picture:
            prompt = [i for i in prompt if i != placeholder]
        if path == '/tokenize':
            if 'tokenize' not in self.knows:
                raise ValueError('404')
            first = prompt.index(placeholder)
            return dict(tokens=[i for n, i in enumerate(prompt)
                                if i != placeholder or n == first])
        assert path == 'chat/completions' and body['temperature'] == 0
        self.bodies.append(body)
        for key, what in (('return_token_ids', 'ids'), ('logprobs', 'logprobs')):
            if key in body and what not in self.knows:
                raise EndpointError(f'extra field {key}', 'HTTP 400')
        ids = encoder.ids_of_text(self.text) + self.model.mllm.writer.stop_tokens[:1]
        choice = dict(message=dict(role='assistant', content=self.text),
                      finish_reason=self.reason)
        told = dict(choices=[choice])
        if 'usage' in self.knows:
            told['usage'] = dict(prompt_tokens=len(prompt), completion_tokens=len(ids))
        if 'logprobs' in self.knows:
            choice['logprobs'] = dict(content=[dict(token='x', logprob=-0.5)] * len(ids))
        if 'ids' in self.knows:
            choice['token_ids'], told['prompt_token_ids'] = ids, prompt
        return told


@pytest.mark.parametrize('knows', [
    ('ids', 'logprobs', 'usage', 'tokenize'), ('logprobs', 'usage', 'tokenize'),
    ('logprobs', 'usage'), ('usage', ), ()])
def test_all_that_a_server_says_is_taken(model, knows):
    image = torch.zeros(3, 84, 84, dtype=torch.uint8)
    server = Server(model, knows)
    first, second = ask_server(server, 'served', model, [image, image], ['a cat', 'a dog'], 40)
    wanted = model.mllm.encoder.encode([image], [[('a dog', None)]], for_generation=True)[
        'input_ids'][0].tolist()
    end = model.mllm.writer.stop_tokens[:1]
    assert second.answer.text == TEXT and second.answer.finished and second.limit == 40
    assert list(second.answer.token_ids) == model.mllm.encoder.ids_of_text(TEXT) + end
    assert len(second.answer.token_logps) == (
        len(second.answer.token_ids) if 'logprobs' in knows else 0)
    reads = 'ids' in knows or 'tokenize' in knows
    assert (second.prompt_ids is None) == (not reads)
    assert not reads or list(second.prompt_ids) == wanted
    assert second.prompt_tokens == (len(wanted) if 'usage' in knows else None)
    assert second.text_tokens == (
        len(wanted) - wanted.count(model.mllm.family.image_token_id)
        if 'usage' in knows and not reads else None)
    system, user = server.bodies[0]['messages']
    assert system == dict(role='system', content='Write outlines.')
    assert user['content'][0]['image_url']['url'].startswith('data:image/png;base64,')


@pytest.mark.parametrize('told', [
    {}, [], 'text', None, dict(choices=[]), dict(choices=[dict(text='[]')]),
    dict(error=dict(message='out of memory')), dict(choices=[dict(message=dict(content=3))]),
    dict(choices=[dict(message=dict(content=[dict(type='text', text='[]')]))]),
    *(dict(choices=[dict(message=dict(content='[]'))], usage=dict(prompt_tokens=number))
      for number in ('30', 2.5, -1, True, 10**12)),
    dict(choices=[dict(message=dict(content='[]'), token_ids=['a'])]),
    dict(choices=[dict(message=dict(content='a'), logprobs=dict(content=[{}]))])])
def test_what_is_no_answer_of_the_api(model, told):
    image = torch.zeros(3, 84, 84, dtype=torch.uint8)
    with pytest.raises(ValueError, match='Is it OpenAI-compatible') as error:
        ask_server(lambda *_: told, 'served', model, [image], ['a cat'], 40)
    assert '\n' not in str(error.value)
