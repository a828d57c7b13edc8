"""X-AnyLabeling's remote models, by the requests of its client."""
import base64
import json
import urllib.error
import urllib.request

import pytest

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402
from test_serving import call, png  # noqa: E402

from simpleseg_mm.serving.xanylabeling import prompts_asked  # noqa: E402
from simpleseg_mm.taught import Taught  # noqa: E402

IMAGE = 'data:image/png;base64,' + base64.b64encode(png()).decode()  # 100 x 50
PARAMS = dict(conf_threshold=0.0, iou_threshold=0.0, epsilon_factor=0.001)


def request(text=None, marks=None, **changes) -> dict:
    """As the client sends it."""
    params = dict(PARAMS, **changes.pop('params', {}))
    if text:
        params['text_prompt'] = text
    if marks:
        params['marks'] = marks
    return dict(dict(model='simpleseg', image=IMAGE, params=params), **changes)


@pytest.fixture(scope='module')
def server():
    with serving() as (url, inferencer):
        yield url, inferencer


def asked(server, **given) -> list[dict]:
    status, _, row = call(server[0], 'POST', '/v1/predict', request(**given))
    assert status == 200 and row['success'], row
    return row['data']['shapes']


def test_the_model_is_found(server):
    status, _, row = call(server[0], 'GET', '/v1/models')
    model, = row['data']
    assert status == 200 and row['success'] and model == 'simpleseg'
    widgets = [one['name'] for one in row['data'][model]['widgets']]
    assert {'edit_text', 'button_send', 'add_pos_rect', 'button_run_rect'} <= set(widgets)
    assert call(server[0], 'GET', f'/v1/models/{model}/info')[2]['data']['model_id'] == model
    status, _, row = call(server[0], 'GET', '/v1/models/yolo/info')
    assert status == 404 and row['error']['code'] == 'MODEL_NOT_FOUND'


BOX = {'add_pos_rect', 'button_run_rect'}
OBJECT = {'button_clear', 'button_finish_object'}


@pytest.mark.parametrize('prompts, widgets, mode', [
    (('text', ), {'edit_text', 'button_send'}, 'text_prompt'),
    (('all', ), {'edit_text', 'button_send'}, 'text_prompt'),
    (('box', ), BOX | OBJECT, None), (('point', ), {'button_add_point'} | OBJECT, None),
    (('text', 'point', 'box'), {'edit_text', 'button_send', 'button_add_point'} | BOX | OBJECT,
     'text_prompt')])
def test_only_what_the_model_was_taught_is_shown(prompts, widgets, mode):
    inferencer = ScriptedInferencer(taught=Taught(prompts=prompts))
    with serving(inferencer) as (url, _):
        row = call(url, 'GET', '/v1/models')[2]['data']['simpleseg']
    shown = {one['name'] for one in row['widgets']}
    assert shown - {'input_conf', 'edit_conf', 'toggle_preserve_existing_annotations'} == widgets
    assert row['batch_processing_mode'] == mode  # None: the tool asks no folder at once


def test_health_is_that_of_both_tools(server):
    row = call(server[0], 'GET', '/health')[2]
    assert row['status'] == 'UP' and row['models_loaded'] == 1 and row['timestamp'][:2] == '20'


def test_texts_are_asked_one_by_one(server):
    shape, ring = asked(server, text='square.ring.square')
    assert (shape['label'], ring['label']) == ('square', 'ring')
    assert shape['shape_type'] == 'polygon' and shape['score'] == 0.5
    assert shape['points'][0] == shape['points'][-1]  # the tool closes it there
    assert sorted(map(tuple, shape['points'][1:])) == [(20, 10), (20, 35), (60, 10), (60, 35)]
    assert len(ring['points']) == 11 and ring['group_id'] is None  # its hole is cut open
    assert [one['label'] for one in asked(server, text='square, ring')] == ['square', 'ring']
    assert asked(server, text='nothing') == []


def test_marks_are_points_and_boxes(server):
    for mark, prompt in (
            (dict(type='rectangle', label=1, data=[60, 40, 10, 5]), dict(box=[10, 5, 60, 40])),
            (dict(type='point', label=1, data=[30, 20]), dict(point=[30, 20]))):
        shape, = asked(server, marks=[mark])
        assert shape['label'] == 'AUTOLABEL_OBJECT'
        assert server[1].seen[-1][1].to_dict() == prompt


@pytest.mark.parametrize('marks, prompts', [
    # points stay until an object is finished: the last counts; each box is an object
    ([(10, 10), (30, 20)], [dict(point=[30, 20])]),
    ([(30, 20), (30, 20)], [dict(point=[30, 20])]),
    ([(1, 1, 9, 9), (5, 6, 20, 30)], [dict(box=[1, 1, 9, 9]), dict(box=[5, 6, 20, 30])]),
    ([(10, 10), (1, 1, 9, 9), (30, 20)], [dict(box=[1, 1, 9, 9]), dict(point=[30, 20])])])
def test_several_marks(marks, prompts):
    marks = [dict(type='point' if len(data) == 2 else 'rectangle', label=1, data=list(data))
             for data in marks]
    assert [prompt.to_dict() for prompt, _ in prompts_asked(dict(marks=marks), False)] == prompts


def test_a_text_that_is_sent_counts_before_marks_that_are_still_drawn(server):
    mark = dict(type='point', label=1, data=[30, 20])
    assert [one['label'] for one in asked(server, text='ring', marks=[mark])] == ['ring']


@pytest.mark.parametrize('given, replace', [
    (dict(text='square'), None), (dict(marks=[dict(type='point', data=[30, 20])]), False),
    ({}, False), (dict(text=''), False)])
def test_what_replaces_the_shapes_that_are_there(server, given, replace):
    """None: as the tool's switch says. Nothing is asked for when its marks are cleared."""
    status, _, row = call(server[0], 'POST', '/v1/predict', request(**given))
    assert status == 200 and row['data']['replace'] is replace
    assert bool(row['data']['shapes']) == bool(given.get('text') or given.get('marks'))


def test_shapes_are_as_the_tools_schema_says():
    odd = 'a "cup", <é>;=\N{GRINNING FACE}'
    with serving(ScriptedInferencer(taught=Taught(prompts=('text', 'all')))) as server:
        shapes = asked(server, text='many.' + odd)
    assert len(shapes) == 201 and shapes[-1]['label'] == odd
    for shape in shapes:
        assert shape['shape_type'] == 'polygon' and 0 <= shape['score'] <= 1
        assert shape['group_id'] is None or shape['group_id'] > 0
        assert all(len(point) == 2 for point in shape['points']) and len(shape['points']) > 3


def test_every_object_of_a_text_where_the_model_knows_lists():
    with serving(ScriptedInferencer(taught=Taught(prompts=('text', 'all')))) as server:
        shapes = asked(server, text='two')
    assert [shape['label'] for shape in shapes] == ['two', 'two']


def test_what_is_less_sure_than_asked_is_left_out(server):
    assert asked(server, text='square', params=dict(conf_threshold=0.6)) == []
    assert len(asked(server, text='square', params=dict(conf_threshold=0.5))) == 1


@pytest.mark.parametrize('body, status, message', [
    (request('square', model='yolo'), 404, 'simpleseg'), (request(' . '), 400, '1 to 100'),
    (request('.'.join(map(str, range(160)))), 400, '1 to 100'),
    (request('square', image=3), 400, '`image`'), (request('square', image='@@'), 400, ''),
    (dict(request('square'), params=3), 400, '`params` is an object'),
    (request(params=dict(text_prompt=3)), 400, '`text_prompt` is a text'),
    (request(marks=3), 400, 'marks of one request'), (request(marks=[3]), 400, 'a mark is'),
    (request(marks=[dict(type='rectangle', data=[1, 2])]), 400, 'four numbers'),
    (request(marks=[dict(type='rectangle', data=[1, 2, 'a', 4])]), 400, 'four numbers'),
    (request(marks=[dict(type='point', data=[1, 2], label=0)]), 400, 'not meant'),
    (request(marks=[dict(type='point', data=[1, 200])]), 400, ''),
    (request('crash'), 500, 'the')])
def test_bad_requests_are_one_line(server, body, status, message):
    got, _, row = call(server[0], 'POST', '/v1/predict', body)
    if status == 500:
        assert got == 500 and message in str(row['error'])
        return
    told = row['error']['message']
    assert got == status and message in told and '\n' not in told and row['success'] is False


def test_the_tool_shows_why(server):
    """Its client raises for the status, and shows what that says; bodies it does not read."""
    asked = urllib.request.Request(server[0] + '/v1/predict', json.dumps(request(
        marks=[dict(type='point', data=[1, 200])])).encode())
    with pytest.raises(urllib.error.HTTPError, match='the point .* is outside the picture'):
        urllib.request.urlopen(asked)
