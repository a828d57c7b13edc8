"""The client of OpenAI-compatible servers, against a stand-in that has the faults of real ones."""
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from endpoint_standin import (SQUARE, Handler, breaks_after, drips_events, drips_head, endpoint,
                              fails_in_stream, floods, garbage, hang_up, no_json, page, picture_of,
                              question_of, stays_open, status)
from PIL import Image
from tokenizers import Tokenizer

from simpleseg_mm import cli
from simpleseg_mm.asking import Unanswered
from simpleseg_mm.client import (AskedForm, ChatClient, EndpointError, EndpointInferencer,
                                 chat, data_url, transport)
from simpleseg_mm.client.form import PixelBounds
from simpleseg_mm.client.transport import base_url
from simpleseg_mm.files.packaged import packaged
from simpleseg_mm.polygon import PolygonCodec, export_grammar

SCENE = np.full((60, 80, 3), 128, np.uint8)
HEAVY = {'torch', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft', 'matplotlib'}


@pytest.fixture
def server(monkeypatch):
    """Address and stand-in; no key in the environment, and no waiting between attempts."""
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    with endpoint() as found:
        yield found


@pytest.fixture
def asking(server):
    """Makes an inferencer of the stand-in."""
    url, standin = server

    def make(**options):
        return EndpointInferencer(url, **dict(
            dict(codec='int100/default', wait=0.001, show_progress=False), **options))
    return make, standin


# --- what is loaded ------------------------------------------------------------------------------
def test_no_framework_is_loaded(server, tmp_path):
    """Neither by the import nor by the command, from its start to its files."""
    url, _ = server
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    code = (f'import sys; from simpleseg_mm import cli; status = cli.main(sys.argv[1:]); '
            f'print(sorted({HEAVY} & set(sys.modules))); sys.exit(status)')
    done = subprocess.run(
        [sys.executable, '-c', code, 'segment', str(tmp_path / 'a.png'), 'red circle',
         '--endpoint', url, '--codec', 'int100', '--out-dir', str(tmp_path / 'out')],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
    assert {path.name for path in (tmp_path / 'out').rglob('*.*')} == {
        'a.png', 'a.json', 'a.svg', 'a.geojson'}


# --- what is sent --------------------------------------------------------------------------------
def test_a_request(asking):
    make, standin = asking
    make(max_tokens=99).segment(SCENE, ['red circle', dict(point=(40, 30)),
                                        dict(box=(8, 6, 40, 30))])
    assert sorted(map(question_of, standin.asked)) == [
        'Output the polygon coordinates of red circle in the image.',
        'Output the polygon coordinates of the object at point [50,50] in the image.',
        'Output the polygon coordinates of the stuff within the box region [10,10,50,50] in the '
        'image.']
    body = standin.asked[0]
    assert [part['type'] for part in body['messages'][0]['content']] == ['image_url', 'text']
    assert np.array_equal(picture_of(body), SCENE)  # as it is: the processor is not known
    assert {key: body[key] for key in ('model', 'temperature', 'max_tokens', 'stream',
                                       'repetition_penalty')} == dict(
        model='nano', temperature=0, max_tokens=99, stream=True, repetition_penalty=1.0)
    assert not {'structured_outputs', 'regex', 'grammar', 'chat_template_kwargs'} & set(body)


@pytest.mark.parametrize('constrain, owner, key, form', [
    ('vllm', None, 'structured_outputs', 'regex'), ('sglang', None, 'regex', 'regex'),
    ('llama.cpp', None, 'grammar', 'gbnf'), ('auto', 'vllm', 'structured_outputs', 'regex'),
    ('auto', 'sglang', 'regex', 'regex'), ('auto', 'llamacpp', 'grammar', 'gbnf')])
def test_grammars_go_as_each_server_takes_them(asking, constrain, owner, key, form):
    make, standin = asking
    standin.models = [dict(id='nano', owned_by=owner)]
    result, = make(constrain=constrain).segment(SCENE, 'a')
    sent, = [standin.asked[0][name] for name in ('structured_outputs', 'regex', 'grammar')
             if name in standin.asked[0]]
    sent = sent['regex'] if key == 'structured_outputs' else sent
    assert key in standin.asked[0] and sent == export_grammar('int100', 'rings', form)
    assert not result.warnings
    make(constrain=constrain).segment(SCENE, dict(text='a', all=True))
    sent = standin.asked[1][key]
    assert (sent['regex'] if key == 'structured_outputs' else sent) == export_grammar(
        'int100', 'masks', form)
    assert 'of all a in the image' in json.dumps(standin.asked[1])


def test_a_folder_says_how_its_model_is_asked(asking, tmp_path):
    make, standin = asking
    folder = tmp_path / 'exported'
    folder.mkdir()
    for path in packaged('nano_sft').iterdir():
        if path.suffix == '.json' and path.name != 'simpleseg.json':
            (folder / path.name).write_bytes(path.read_bytes())
    note = json.loads((packaged('nano_sft') / 'simpleseg.json').read_text())
    note['mllm'].update(system_prompt='Be brief.', chat_template_kwargs=dict(x=1))
    (folder / 'simpleseg.json').write_text(json.dumps(note))
    inferencer = make(codec=None, model=str(folder))
    assert inferencer.codec.spec == 'int100/default'
    photo = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    result, = inferencer.segment(photo, 'a dog')
    body, = standin.asked
    assert body['max_tokens'] == 160 and body['chat_template_kwargs'] == dict(x=1)
    assert body['messages'][0] == dict(role='system', content='Be brief.')
    assert picture_of(body).shape == (112, 84, 3)  # at most 12544 pixels, in steps of 28
    assert result.size == (300, 200) and result.box.tolist() == [40, 60, 120, 180]
    assert 'this picture is none' in result.warnings[0]


def test_pictures_are_resized_as_the_processor_would():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil, smart_resize)
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(n) for n in rng.integers(10, 1200, 2))
        least, most = sorted(int(n) for n in rng.integers(28 * 28, 10**6, 2))
        bounds = PixelBounds(28, least, max(most, 4 * least))
        found = bounds.fit(height, width)
        assert found == smart_resize(height, width, 28, bounds.least, bounds.most)
    processor = Qwen2VLImageProcessorPil.from_pretrained(packaged('nano_sft'))
    bounds = AskedForm.of('simpleseg_mm://nano_sft').bounds
    for size in ((224, 224), (60, 80), (500, 333), (28, 28)):
        picture = rng.integers(0, 256, (*size, 3), np.uint8)
        direct, ours = (processor(images=[image], return_tensors='np')
                        for image in (picture, bounds.resized(picture)))
        assert np.array_equal(direct['pixel_values'], ours['pixel_values'])
        assert np.array_equal(direct['image_grid_thw'], ours['image_grid_thw'])


def test_pixels_may_be_bounded(asking):
    make, standin = asking
    make(max_pixels=1200).segment(np.zeros((60, 80, 3), np.uint8), 'a')
    height, width = picture_of(standin.asked[0]).shape[:2]
    assert (height, width) == (30, 40)


def test_the_key_goes_to_the_server_alone(asking, monkeypatch):
    make, standin = asking
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-secret')
    make()
    assert standin.headers[-1]['Authorization'] == 'Bearer sk-secret'
    standin.faults = [status(401, dict(error=dict(message='Incorrect key: sk-other')))]
    with pytest.raises(EndpointError, match='refuses the API key') as caught:
        make(api_key='sk-other').segment(SCENE, 'a')
    assert 'sk-other' not in str(caught.value)
    with pytest.raises(ValueError, match='the API key has characters') as caught:
        make(api_key='a\nb')
    assert 'a\nb' not in str(caught.value)


@pytest.mark.parametrize('given, path', [
    ('http://h:8000', '/v1'), ('http://h:8000/', '/v1'), ('http://h:8000/v1/', '/v1'),
    ('https://h/openai/v1', '/openai/v1'), ('http://h/v1/chat/completions', '/v1'),
    ('http://h/v1/models', '/v1'), (' http://h/v1 ', '/v1')])
def test_addresses(given, path):
    assert base_url(given).path == path


@pytest.mark.parametrize('given', ['', 'localhost:8000', 'h', 'ftp://h/v1', 'http://', 'file:///x',
                                   'http://h:port/v1', 'http://[::1/v1', None, 3])
def test_what_is_no_address(given):
    with pytest.raises(ValueError, match='give an address such as http://localhost:8000/v1'):
        base_url(given)


# --- what comes back -----------------------------------------------------------------------------
def test_an_answer(asking):
    make, standin = asking
    standin.says = lambda picture, question: f'Here: {SQUARE}' if 'ring' in question else '[]'
    found, nothing = make().segment(SCENE, ['ring', 'dog'])
    expected = PolygonCodec(grammar='int100').decode(SQUARE, (60, 80)).mask
    assert np.array_equal(found.mask, expected) and expected.sum() == 32 * 24
    assert found.confidence == pytest.approx(np.exp(-0.5)) and found.finished
    assert found.valid and nothing.valid and nothing.says_nothing
    assert nothing.num_tokens == 2 and nothing.box is None  # '[]' is one piece, and the end
    assert (found.codec, found.warnings, nothing.warnings) == ('int100/default', (), ())


def test_without_log_probabilities_there_is_no_confidence(asking):
    make, standin = asking
    standin.logps = False
    assert make().segment(SCENE, 'a')[0].confidence is None


def test_a_server_that_does_not_stream(asking):
    make, standin = asking
    standin.faults = [lambda handler: handler.reply(200, dict(choices=[dict(
        message=dict(content=SQUARE), finish_reason='stop')], usage=dict(completion_tokens=7)))]
    seen = []
    result = make().ask(SCENE, 'a', seen.append)
    assert (result.text, result.num_tokens, result.finished) == (SQUARE, 7, True)
    assert seen == [SQUARE]


def test_text_comes_as_it_is_written_and_can_be_ended(asking):
    make, standin = asking
    seen = []
    whole = make().ask(SCENE, 'a', lambda text: seen.append(text))
    assert seen[-1] == whole.text == SQUARE and len(seen) > 10
    assert all(after.startswith(before) for before, after in zip(seen, seen[1:]))
    ended, other = make().ask_batch([(SCENE, 'a'), (SCENE, 'b')],
                                    lambda number, text: number == 0 and text.count(']') > 1)
    assert ended.text.count(']') == 2 and not ended.finished and other.text == SQUARE
    with pytest.raises(KeyError, match='mine'):
        make().ask(SCENE, 'a', lambda text: {}['mine'])


def test_halves_of_characters_do_no_harm(asking):
    make, standin = asking
    standin.says = lambda picture, question: ['\ud83d', 'no']
    result = make().ask(SCENE, 'a')
    json.dumps(result.to_dict(), ensure_ascii=False).encode()
    assert not result.valid


def test_answers_keep_their_order_and_requests_their_bound(asking):
    make, standin = asking

    def says(picture, question):
        number = int(question.split(' of ')[1].split()[0])
        time.sleep(0.05 * (number % 3 == 0))
        return f'[[[{number},0],[{number},9],[50,50]]]'
    standin.says = says
    results = make(concurrency=4).segment(SCENE, [str(number) for number in range(1, 20)])
    assert [result.text for result in results] == [
        f'[[[{number},0],[{number},9],[50,50]]]' for number in range(1, 20)]
    assert 2 <= standin.most <= 4


# --- the wrong server or model -------------------------------------------------------------------
@pytest.mark.parametrize('models, name, message', [
    ([dict(id='a'), dict(id='b')], None, "serves 'a', 'b': say which by --served-model-name"),
    ([dict(id='a'), dict(id='b')], 'c', "serves no 'c'; it serves 'a', 'b'"),
    ([], None, 'serves no model: load a model there first, or name it by --served-model-name'),
    ([dict(name='a'), 3], None, 'serves no model'),
    (None, None, 'has no such model or address'),
])
def test_which_model_is_meant(asking, models, name, message):
    make, standin = asking
    standin.models = models
    with pytest.raises(ValueError, match=message) as caught:
        make(served_model_name=name)
    assert '\n' not in str(caught.value)


def test_one_of_several_models_and_a_server_without_a_list(asking):
    make, standin = asking
    standin.models = [dict(id='a'), dict(id='b')]
    make(served_model_name='b').segment(SCENE, 'x')
    standin.models = None
    make(served_model_name='mine').segment(SCENE, 'x')
    standin.models = []
    make(served_model_name='folder').segment(SCENE, 'x')
    assert [body['model'] for body in standin.asked] == ['b', 'mine', 'folder']


def test_a_broken_list_of_models(server, monkeypatch):
    """As `transformers serve` has it without a cache."""
    monkeypatch.setattr(Handler, 'do_GET', lambda self: self.reply(500, dict()))
    with pytest.raises(EndpointError, match='failed: its log says why'):
        EndpointInferencer(server[0], wait=0.001)
    EndpointInferencer(server[0], wait=0.001, served_model_name='mine')


def test_logprobs_passed_over_in_silence(asking):
    make, standin = asking
    inferencer = make()
    inferencer.segment(SCENE, 'x')
    assert inferencer.notes == []
    standin.logps = False
    inferencer.segment(SCENE, 'x')
    assert inferencer.notes == ['the server passes over logprobs in silence: answers have no '
                                'confidence']
    standin.refuses = ('logprobs', )
    inferencer.segment(SCENE, 'x')
    assert inferencer.notes == ['the server does not take logprobs; it was left out: answers '
                                'have no confidence']


def test_a_server_that_takes_no_grammar(asking):
    make, standin = asking
    standin.refuses = ('structured_outputs', )
    with pytest.raises(EndpointError, match='does not take structured_outputs, which holds '
                                            'the grammar: leave --constrain out') as caught:
        make(constrain='vllm').segment(SCENE, 'x')
    assert caught.value.ends and '\n' not in str(caught.value)


def test_no_server(server):
    with endpoint() as (url, _):
        pass
    with pytest.raises(EndpointError, match='no connection to http://127.* start the server'):
        EndpointInferencer(url)


def test_an_address_of_something_else(server, monkeypatch):
    monkeypatch.setattr(Handler, 'do_GET', lambda self: self.reply(200, b'<html>', 'text/html'))
    with pytest.raises(EndpointError, match='a page of HTML: is this the address of the API'):
        EndpointInferencer(server[0], wait=0.001)
    monkeypatch.setattr(Handler, 'do_GET', lambda self: self.reply(200, dict(ok=True)))
    with pytest.raises(EndpointError, match='holds no list of models'):
        EndpointInferencer(server[0])
    monkeypatch.setattr(Handler, 'do_GET', lambda self: self.reply(
        308, dict(), location='https://other/v1'))
    with pytest.raises(EndpointError, match='sends on to https://other/v1: give that address'):
        EndpointInferencer(server[0])


def test_another_tokenizer_is_refused(asking):
    make, standin = asking
    own = Tokenizer.from_file(str(packaged('nano_sft') / 'tokenizer.json'))
    standin.tokens = lambda body: own.encode(body['prompt'], add_special_tokens=False).ids
    make(model='simpleseg_mm://nano_sft', codec=None)
    standin.tokens = lambda body: [1, 2, 3]
    with pytest.raises(ValueError, match='splits text into other tokens .* Serve that folder'):
        make(model='simpleseg_mm://nano_sft', codec=None)
    standin.tokens = lambda body: [dict(id=1)]  # another form: nothing is known
    make(model='simpleseg_mm://nano_sft', codec=None)


@pytest.mark.parametrize('codec, says, message', [
    ('fixed3/paper', SQUARE, 'the answer is not written in fixed3/paper'),
    ('int1000/default', '[[[0.2, 0.2], [0.2, 0.6], [0.6, 0.6]]]', 'is not written in int1000'),
    ('int100/default', '[[[200,200],[200,600],[600,600]]]', 'is not written in int100'),
])
def test_another_grammar_is_said(asking, codec, says, message):
    make, standin = asking
    standin.says = lambda picture, question: says
    result, = make(codec=codec).segment(SCENE, 'a')
    assert len(result.warnings) == 1 and message in result.warnings[0]
    assert '--codec' in result.warnings[0]


def test_a_coarser_grammar_is_said_after_some_answers(asking):
    """int100 read as int1000 is valid: outlines shrink into a corner."""
    make, standin = asking
    results = make(codec='int1000', concurrency=1).segment(SCENE, list('abcde'))
    assert [len(result.warnings) for result in results] == [0, 0, 0, 1, 1]
    assert 'such as int100' in results[-1].warnings[0]
    standin.says = lambda picture, question: '[[[20,20],[20,60],[900,60]]]'
    assert not any(result.warnings for result in make(codec='int1000').segment(
        SCENE, list('abcde')))


@pytest.mark.parametrize('options, message', [
    (dict(codec='int'), "codec: grammar is 'int'"), (dict(codec=''), 'codec: '),
    (dict(codec='int1000/other'), 'codec: preset is'),
    (dict(model='/no/such/folder'), 'no folder /no/such/folder: with an endpoint'),
    (dict(model='simpleseg_mm://no'), 'does not ship with the package'),
    (dict(max_tokens=0), 'max_tokens is 0'), (dict(max_pixels=0), 'max_pixels is 0'),
    (dict(constrain='tgi'), "constrain is 'tgi'; choose from"),
    (dict(timeout=0), 'timeout is 0'), (dict(timeout=float('nan')), 'timeout is nan'),
    (dict(retries=-1), 'retries is -1'), (dict(concurrency=0), 'concurrency is 0'),
])
def test_arguments_that_are_none(asking, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        asking[0](**options)


def test_a_folder_without_its_note(asking, tmp_path):
    (tmp_path / 'preprocessor_config.json').write_text('{"image_processor_type": "Qwen2VL..."}')
    with pytest.raises(ValueError, match='has no simpleseg.json'):
        asking[0](codec=None, model=str(tmp_path))
    assert asking[0](model=str(tmp_path)).form.bounds == PixelBounds()
    (tmp_path / 'preprocessor_config.json').write_text(
        '{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": "x"}')
    with pytest.raises(ValueError, match='broken preprocessor_config.json'):
        asking[0](model=str(tmp_path))


# --- faults --------------------------------------------------------------------------------------
FAULTS = {  # what happens: (how often, then); message; requests
    'busy': (status(429), 'has too many requests', 3),
    'error': (status(500), r'failed: its log says why \(HTTP 500: no luck\) \(3 attempts\)', 3),
    'page': (page(502), 'HTTP 502: a page of HTML', 3),
    'a page as an answer': (page(200), 'a page of HTML: is this the address', 3),
    'garbage': (garbage, 'is no chat completion', 3),
    'no json': (no_json, 'it is no JSON object', 3),
    'hang up': (hang_up, 'the connection to .* broke', 3),
    'drips its head': (drips_head, 'timed out: no whole answer within 0.3 s. Raise --timeout', 3),
    'drips events': (drips_events, 'timed out', 3),
    'floods': (floods, 'answers with something else', 3),
    'fails in the stream': (fails_in_stream, 'the server failed: CUDA out of memory', 3),
    'ends at once': (breaks_after(0), 'ended the answer in its midst', 3),
    'refused': (status(400, dict(message='bad temperature')), 'refuses the request', 1),
    'too large': (status(413), 'does not take a request of this size.*--max-pixels', 1),
    'too long': (status(400, dict(error=dict(message='The prompt exceeds the context length'))),
                 'does not take a request of this size.*--max-pixels', 1),
    'not there': (status(404, dict(detail='model not found')), 'no such model', 1),
    'forbidden': (status(403), 'wants an API key: set OPENAI_API_KEY', 1),
}


@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_told_in_a_line(asking, name):
    make, standin = asking
    fault, message, count = FAULTS[name]
    standin.faults = [fault] * 3
    inferencer = make(retries=2, timeout=0.3 if 'drips' in name else 60)
    with pytest.raises(EndpointError, match=message) as caught:
        inferencer.segment(SCENE, 'a')
    assert len(standin.asked) == count
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize('name', [name for name, (_, _, count) in FAULTS.items() if count == 3])
def test_what_may_pass_is_tried_again(asking, name):
    make, standin = asking
    standin.faults = [FAULTS[name][0]]
    result, = make(retries=1, timeout=2 if 'drips' in name else 60).segment(SCENE, 'a')
    assert result.text == SQUARE and result.finished and not result.warnings
    assert len(standin.asked) == 2


def test_waits_grow_and_are_those_that_a_server_asks_for(asking, monkeypatch):
    make, standin = asking
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
    monkeypatch.setattr(transport.asyncio, 'sleep', sleep)
    standin.faults = [status(500), status(429, Retry_After='7'), status(503), status(
        503, Retry_After='Thu, 01 Jan 1970 00:00:00 GMT'), status(503, Retry_After='soon')]
    make(wait=0.25, retries=5).segment(SCENE, 'a')
    assert waits == [0.25, 7, 1, 0, 4]
    standin.faults = [status(429, Retry_After='3600')]
    with pytest.raises(EndpointError, match='It asks to wait 3600 s: try again then'):
        make(retries=5).segment(SCENE, 'a')
    assert len(waits) == 5


def test_a_whole_answer_needs_no_end_of_the_line(asking, monkeypatch):
    make, standin = asking
    monkeypatch.setattr(chat, 'LAST_SECONDS', 0.1)
    standin.faults = [stays_open]
    result, = make(timeout=60).segment(SCENE, 'a')
    assert result.text == SQUARE and result.finished and not result.warnings


def test_an_expression_that_is_no_text(asking):
    make, standin = asking
    with pytest.raises(ValueError, match=r"'ring \\udcff' holds what is no character: .*UTF-8"):
        make().segment(SCENE, b'ring \xff'.decode(errors='surrogateescape'))
    assert not standin.asked


def test_what_a_server_does_not_take_is_left_out_and_said(asking):
    make, standin = asking
    standin.refuses, standin.logps = ('logprobs', 'repetition_penalty'), False
    inferencer = make(retries=0, concurrency=1)
    first, second = inferencer.segment(SCENE, ['a', 'b'])
    assert first.text == second.text == SQUARE and len(standin.asked) == 4
    assert inferencer.notes == [
        'the server does not take logprobs; it was left out: answers have no confidence',
        'the server does not take repetition_penalty; it was left out']


def test_a_cut_answer_is_kept_and_said(asking):
    make, standin = asking
    standin.reason, standin.says = 'length', lambda picture, question: SQUARE[:-3]
    result, = make(constrain='vllm').segment(SCENE, 'a')
    assert not result.finished and result.mask.any()
    assert len(result.warnings) == 1 and 'raise --max-tokens' in result.warnings[0]


def test_what_came_before_the_line_broke_is_kept(asking):
    make, standin = asking
    standin.faults = [breaks_after(30), breaks_after(12)]
    result, = make(retries=1).segment(SCENE, 'a')
    assert SQUARE.startswith(result.text) and result.mask.any() and not result.finished
    assert 'broke off, and is kept as far as it came' in result.warnings[0]
    assert '(2 attempts)' in result.warnings[0]


@pytest.mark.parametrize('says, warned', [
    (SQUARE, False), ('[]', False), (f'Sure: {SQUARE}', True), ('', True), (SQUARE[:-1], True),
    ('[[[20, 20], [20, 60], [60, 60]]]', True), ('[20,20,60,60]', True)])
def test_a_server_that_passes_over_the_grammar(asking, says, warned):
    make, standin = asking
    standin.says = lambda picture, question: says
    result, = make(constrain='llama.cpp').segment(SCENE, 'a')
    assert any('did not hold its answer to the grammar (int100)' in warning
               for warning in result.warnings) == warned


def test_a_server_that_does_not_say_what_it_is(asking):
    make, standin = asking
    standin.models = [dict(id='a', owned_by='library')]
    with pytest.raises(ValueError, match="owned_by is 'library'.*constrain is one of"):
        make(constrain='auto')


def test_no_text_is_said(asking):
    make, standin = asking
    standin.faults = [lambda handler: handler.reply(200, dict(choices=[dict(
        message=dict(content=None, reasoning_content='Hm'), finish_reason='stop')]))]
    result, = make().segment(SCENE, 'a')
    assert result.text == '' and 'without a parser of thoughts' in result.warnings[0]


# --- nothing is lost -----------------------------------------------------------------------------
def failing_at(*numbers, fault=status(413)):
    """None for a request that is answered, else the fault."""
    return [fault if number in numbers else None for number in range(max(numbers) + 1)]


def test_answers_before_an_error_go_with_it(asking):
    make, standin = asking
    standin.faults = failing_at(2)
    with pytest.raises(EndpointError, match='HTTP 413') as caught:
        make(concurrency=1).segment(SCENE, list('abcd'))
    assert [result.prompt.text for result in caught.value.results] == ['a', 'b']


def test_others_are_answered(asking):
    make, standin = asking
    standin.faults = failing_at(1)
    inferencer = make(concurrency=1)
    results = inferencer.segment(SCENE, list('abcd'), on_error='skip')
    assert [result.prompt.text for result in results] == ['a', 'c', 'd']
    assert len(inferencer.errors) == 1 and '413' in inferencer.errors[0]


def test_where_nothing_would_be_answered_any_more_nothing_is_asked(asking):
    make, standin = asking
    standin.faults = failing_at(2, fault=status(401))
    inferencer = make(concurrency=1)
    results = inferencer.segment(SCENE, list('abcdefgh'), on_error='skip')
    assert len(results) == 2 and len(standin.asked) == 3
    assert len(inferencer.errors) == 1 and inferencer.errors[0].endswith(
        '6 of 8 queries have no answer; what was answered is kept')


def test_what_is_under_way_at_the_end_is_kept(asking):
    make, standin = asking
    standin.says = lambda picture, question: time.sleep(0.1) or SQUARE
    standin.faults = failing_at(0, fault=status(401))
    inferencer = make(concurrency=3)
    results = inferencer.segment(SCENE, list('abcdefgh'), on_error='skip')
    assert 2 <= len(results) == len(standin.asked) - 1 < 7  # one was refused, of the first three
    assert f'{8 - len(results)} of 8 queries have no answer' in inferencer.errors[0]


def test_several_asked_together(asking):
    make, standin = asking
    standin.faults = [status(413)]
    with pytest.raises(Unanswered) as caught:
        make(concurrency=1).ask_batch([(SCENE, text) for text in 'abc'])
    assert [isinstance(result, EndpointError) for result in caught.value.results] == [
        True, False, False]
    assert caught.value.results[2].text == SQUARE


def test_a_bad_picture_behind_good_ones(asking, tmp_path):
    make, _ = asking
    inferencer = make()
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'no')
    with pytest.raises(ValueError, match='b.png'):
        inferencer.segment(tmp_path, 'x')
    done = []
    with pytest.raises(ValueError, match='b.png'):
        for _, _, result in inferencer.run(tmp_path, 'x'):
            done.append(result)
    assert [result.text for result in done] == [SQUARE]


def test_a_row_of_failures_is_the_last(asking):
    make, standin = asking
    standin.faults = [status(413)] * 19 + [None] + [status(413)] * 100
    inferencer = make(concurrency=1)
    results = inferencer.segment(SCENE, ['a'] * 60, on_error='skip')
    assert len(results) == 1 and len(standin.asked) == 40
    assert '(20 queries in a row). 59 of 60 queries have no answer' in inferencer.errors[-1]


@pytest.mark.parametrize('options, text', [
    (dict(), 'the <|im_end|> dog'),
    (dict(model='simpleseg_mm://nano_sft', codec=None), 'a<|image_pad|>'),
    (dict(model='simpleseg_mm://nano_sft', codec=None), '<|endoftext|>')])
def test_expressions_that_spell_a_special_token(asking, options, text):
    """In process they stay text; a server takes them for tokens."""
    make, standin = asking
    inferencer = make(**options)
    found = inferencer.segment(SCENE, [text, 'a < b | c > d'], on_error='skip')
    assert [result.prompt.text for result in found] == ['a < b | c > d']
    assert 'takes for a special token' in inferencer.errors[0] and len(standin.asked) == 1


# --- commands ------------------------------------------------------------------------------------
def test_the_command(server, tmp_path, capsys):
    url, standin = server
    for name in 'abc':
        Image.fromarray(SCENE).save(tmp_path / f'{name}.png')
    out = tmp_path / 'out'
    standin.faults = [None, status(413)]
    assert cli.main(['segment', str(tmp_path), 'ring', '--endpoint', url, '--codec', 'int100',
                     '--out-dir', str(out), '--batch-size', '1', '--formats', 'coco']) == 1
    said = capsys.readouterr()
    assert 'skipped: ' in said.out and '--max-pixels' in said.out
    assert sorted(path.name for path in (out / 'preds').iterdir()) == ['a.json', 'c.json']
    assert len(json.loads(next(out.glob('*.json')).read_text())['annotations']) == 2


@pytest.mark.parametrize('options, message', [
    (['--endpoint', 'nowhere'], 'give an address such as'),
    (['--endpoint', 'URL', '--weights', 'x.pth'], 'are for a model that runs here'),
    (['--endpoint', 'URL', '--codec', 'int0'], "codec: grammar is 'int0'"),
    (['--endpoint', 'URL', '--model', 'x.py'], 'no folder x.py'),
    (['--endpoint', 'URL', '--batch-size', '0'], '--batch-size is 0'),
    (['--codec', 'int100', '--timeout', '3'], '--codec, --timeout belong to a server'),
])
def test_commands_that_are_refused(server, tmp_path, capsys, options, message):
    url, _ = server
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    options = [url if option == 'URL' else option for option in options]
    assert cli.main(['segment', str(tmp_path / 'a.png'), 'ring', '--out-dir', str(tmp_path),
                     *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith('simpleseg: ') and message in said[-1]


def test_mmdet_like_dicts(asking, tmp_path):
    out = asking[0]()(SCENE, ['a'], return_vis=True, out_dir=str(tmp_path))
    assert out['predictions'][0]['text'] == SQUARE and out['visualization'][0].ndim == 3
    assert len(list(tmp_path.rglob('*.*'))) == 2
    with pytest.raises(ValueError, match='show needs the windows'):
        asking[0]()(SCENE, ['a'], show=True)


# --- clients share a server ----------------------------------------------------------------------
def test_a_client_of_its_own(server):
    url, standin = server
    client = ChatClient(url, concurrency=2)
    body = dict(model='nano', stream=True, messages=[dict(role='user', content=[
        dict(type='image_url', image_url=dict(url=data_url(Image.fromarray(SCENE), 'PNG'))),
        dict(type='text', text='a')])])
    replies = [future.result() for future in [client.start(body) for _ in range(5)]]
    assert [reply.text for reply in replies] == [SQUARE] * 5 and standin.most <= 2
    assert client.models() == standin.models
