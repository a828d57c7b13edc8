"""The one way in which servers are asked: what is sent, what is tried again, and what is told."""
import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from endpoint_standin import Handler, drips_head, endpoint, hang_up, no_json, page, status

from simpleseg_mm.client import ChatClient, EndpointError, Transport, transport


class Scripted(Handler):
    """Gives ``faults`` one after the other, and then what it was asked."""

    def do_GET(self) -> None:
        size = int(self.headers.get('Content-Length') or 0)
        asked = dict(method=self.command, path=self.path, body=self.rfile.read(size).decode(),
                     port=self.client_address[1], key=self.headers.get('Authorization'))
        self.serve(asked, self.reply, 200, asked)

    do_POST = do_GET


@pytest.fixture
def server():
    with endpoint(Scripted) as found:
        yield found


def raw_status(code: int, text: bytes):
    return lambda handler: handler.reply(code, text)


def raw(text: bytes, kind: str = 'application/json'):
    return lambda handler: handler.reply(200, text, kind)


def cut_short(handler) -> None:
    """Half of what its head announces."""
    handler.send_response(200)
    handler.send_header('Content-Length', '100')
    handler.end_headers()
    handler.wfile.write(b'{"half": ')
    hang_up(handler)


@pytest.mark.parametrize('base, path, body, asked', [
    ('', 'models', None, ('GET', '/v1/models')),
    ('/v1/', 'chat/completions', dict(a=1), ('POST', '/v1/chat/completions')),
    ('/v1', '/tokenize', {}, ('POST', '/tokenize')),
    ('', '/info?config_format=json', None, ('GET', '/info?config_format=json')),
    ('/node5', '/version', None, ('GET', '/node5/version')),
    ('/openai/v1', '/version', None, ('GET', '/openai/version')),
    ('/openai?api-version=2', 'models', None, ('GET', '/openai/models?api-version=2')),
    ('/openai?a=2', '/x?b=3', None, ('GET', '/openai/x?a=2&b=3'))])
def test_addresses_and_bodies(server, base, path, body, asked):
    url, _ = server
    found = Transport(url.removesuffix('/v1') + base, 'key').ask(path, body)
    assert (found['method'], found['path']) == asked and found['key'] == 'Bearer key'
    assert found['body'] == ('' if body is None else json.dumps(body, separators=(',', ':')))


@pytest.mark.parametrize('text, answer', [
    (b'{"a": 1}', dict(a=1)), (b'[1, 2]', [1, 2]), (b'"text"', 'text'), (b'null', None),
    (b'', None), (b' \n', None)])
@pytest.mark.parametrize('code', [200, 202])
def test_any_json_is_an_answer(server, code, text, answer):
    server[1].faults = [raw_status(code, text)]
    assert Transport(server[0]).ask('x') == answer


FAULTS = {  # what happens; reason; message; requests with two retries
    'page': (page(200), 'broken answer', 'a page of HTML: is this the address of the API', 1),
    'no json': (no_json, 'broken answer', 'something else: it is no JSON object', 1),
    'half a json': (raw(b'{"a": '), 'broken answer', 'it is no JSON object', 1),
    'deep': (raw(b'[' * 200_000), 'broken answer', 'it is no JSON object', 1),
    'not here': (status(404), 'HTTP 404', 'ends in /v1 as a rule', 1),
    'who': (status(401), 'HTTP 401', 'wants an API key: set OPENAI_API_KEY', 1),
    'refused': (status(400, dict(error='no x')), 'HTTP 400', r'refuses.*\(HTTP 400: no x\)', 1),
    'elsewhere': (status(307, {}, Location='https://b/v1'), 'HTTP 307', 'https://b/v1: give', 1),
    'busy': (status(429), 'HTTP 429', r'has too many requests.*\(3 attempts\)', 3),
    'silent': (raw_status(503, b'{}'), 'HTTP 503', r'its log says why \(HTTP 503\) \(3', 3),
    'down': (status(500), 'HTTP 500', r'its log says why \(HTTP 500: no luck\) \(3 att', 3),
    'bad gateway': (page(502), 'HTTP 502', 'HTTP 502: a page of HTML', 3),
    'not implemented': (status(501), 'HTTP 501', 'HTTP 501', 1),
    'hang up': (hang_up, 'no connection', 'the connection to .* broke', 3),
    'cut short': (cut_short, 'no connection', 'the connection to .* broke', 3),
    'drips': (drips_head, 'timed out', r'no whole answer within 0.3 s. Raise --timeout', 3),
}


@pytest.mark.parametrize('name', FAULTS)
@pytest.mark.parametrize('retries', [2, 0])
def test_faults(server, name, retries):
    """In a line, with an address; asked again where that may help, and never without retries."""
    url, standin = server
    fault, reason, message, count = FAULTS[name]
    standin.faults = [fault] * 3
    asks = Transport(url, retries=retries, wait=0.001, timeout=0.3 if name == 'drips' else 60)
    with pytest.raises(EndpointError, match=message if retries else None) as told:
        asks.ask('x', {})
    assert told.value.reason == reason and len(standin.asked) == (count if retries else 1)
    assert '\n' not in str(told.value) and 'http' in str(told.value)


def test_what_passes_is_not_told(server):
    server[1].faults = [status(500), hang_up, status(503)]
    assert Transport(server[0], wait=0.001).ask('x')['path'] == '/v1/x'


def test_waits_are_those_that_are_asked_for(server, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
    monkeypatch.setattr(transport.asyncio, 'sleep', sleep)
    server[1].faults = [status(503), status(429, Retry_After='5'), status(503)]
    Transport(server[0]).ask('x')
    assert waits == [1, 5, 4]


def test_words_of_the_server_are_kept_whole_and_without_the_key(server):
    server[1].faults = [status(400, dict(error=dict(message='a' * 400 + '\nsk-1 seed')))]
    with pytest.raises(EndpointError) as told:
        Transport(server[0], 'sk-1').ask('x')
    assert told.value.said == 'a' * 400 + ' *** seed' and told.value.refused
    assert len(str(told.value)) < 500 and 'sk-1' not in str(told.value)


def test_a_password_is_not_shown():
    asks = Transport('http://me:secret@127.0.0.1:9/v1?token=secret')
    with pytest.raises(EndpointError) as told:
        asks.ask('x')
    assert str(told.value) == ('no connection to http://127.0.0.1:9/v1 (Connection refused): '
                               'start the server, or correct the address')
    assert 'secret' not in str(told.value) and told.value.ends


def test_a_server_that_is_not_there_is_asked_once(monkeypatch):
    waits = []
    monkeypatch.setattr(transport.asyncio, 'sleep', waits.append)
    for url in ('http://127.0.0.1:9', 'http://no.such.host.invalid'):
        with pytest.raises(EndpointError, match='no connection'):
            Transport(url, timeout=5).ask('x')
    assert waits == []


def test_remedies_are_the_callers(server):
    server[1].faults = [status(401), status(413)]
    asks = Transport(server[0], remedies=dict(key='ask Ann'))
    for message in ('wants an API key: ask Ann', '--max-pixels'):
        with pytest.raises(EndpointError, match=message):
            asks.ask('x')


# --- many at a time ------------------------------------------------------------------------------
def test_threads_share_one(server):
    url, standin = server
    standin.faults = [lambda handler: time.sleep(0.02) or handler.reply(200, 1)] * 40
    asks = Transport(url, concurrency=3)
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda number: asks.ask('x', dict(n=number)), range(40))) == [1] * 40
    assert 2 <= standin.most <= 3
    assert sorted(json.loads(asked['body'])['n'] for asked in standin.asked) == list(range(40))


@pytest.mark.parametrize('retries, connections', [(0, 4), (3, 1)])
def test_a_connection_is_kept_where_a_closed_one_would_be_tried_again(server, retries,
                                                                      connections):
    url, standin = server
    asks = Transport(url, retries=retries)
    for _ in range(4):
        asks.ask('x')
    assert len({asked['port'] for asked in standin.asked}) == connections


def test_what_is_given_up_is_not_asked_any_more(server):
    """Its connection is closed, and what waited for its turn never begins."""
    url, standin = server
    begun, gone = threading.Event(), threading.Event()

    def waits(handler):
        begun.set()
        handler.connection.settimeout(30)
        gone.set() if handler.connection.recv(1) == b'' else None
    standin.faults = [waits]
    asks = Transport(url, concurrency=1)
    first, second = asks.start('x', {}), asks.start('x', {})
    assert begun.wait(30)
    second.cancel()
    first.cancel()
    assert gone.wait(30)
    assert asks.ask('x') and len(standin.asked) == 2


def asked_in_a_fork(asks, pipe) -> None:
    pipe.send(asks.ask('x')['path'])


@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork:DeprecationWarning')
def test_a_forked_process_has_connections_of_its_own(server):
    url, standin = server
    asks = Transport(url)
    asks.ask('x')
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=asked_in_a_fork,
                                                          args=(asks, there))
    process.start()
    assert here.poll(60) and here.recv() == '/v1/x'
    process.join(60)
    asks.ask('x')
    ports = [asked['port'] for asked in standin.asked]
    assert ports[0] == ports[2] != ports[1]


# --- the model that is meant ---------------------------------------------------------------------
@pytest.mark.parametrize('told, name, message', [
    (dict(data=[dict(id='a'), dict(id='b')]), None, "serves 'a', 'b': say which by --model"),
    (dict(data=[dict(id='a')]), 'c', "serves no 'c'; it serves 'a': give one of these as --model"),
    (dict(data=[]), None, 'serves no model'),
    ('text', None, 'holds no list of models'), ({}, 'a', 'holds no list of models'),
    ([], 'a', 'holds no list'), (dict(data=3), 'a', 'holds no list')])
def test_which_model(server, told, name, message):
    server[1].faults = [raw(json.dumps(told).encode())]
    with pytest.raises(ValueError, match=message) as error:
        ChatClient(server[0], remedies=dict(model='--model')).served(name)
    assert '\n' not in str(error.value)
