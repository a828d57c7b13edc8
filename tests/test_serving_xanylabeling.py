"""X-AnyLabeling's remote models, by the requests of its client."""
import base64

import pytest

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402
from test_serving import call, png  # noqa: E402

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


@pytest.mark.parametrize('prompts, widgets', [
    (('text', ), {'edit_text', 'button_send'}), (('all', ), {'edit_text', 'button_send'}),
    (('box', ), {'add_pos_rect', 'button_run_rect', 'button_clear', 'button_finish_object'})])
def test_only_what_the_model_was_taught_is_shown(prompts, widgets):
    inferencer = ScriptedInferencer(taught=Taught(prompts=prompts))
    with serving(inferencer) as (url, _):
        row = call(url, 'GET', '/v1/models')[2]
    shown = {one['name'] for one in row['data']['simpleseg']['widgets']}
    assert shown - {'input_conf', 'edit_conf', 'toggle_preserve_existing_annotations'} == widgets


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


def test_every_object_of_a_text_where_the_model_knows_lists():
    with serving(ScriptedInferencer(taught=Taught(prompts=('text', 'all')))) as server:
        shapes = asked(server, text='two')
    assert [shape['label'] for shape in shapes] == ['two', 'two']


def test_what_is_less_sure_than_asked_is_left_out(server):
    assert asked(server, text='square', params=dict(conf_threshold=0.6)) == []
    assert len(asked(server, text='square', params=dict(conf_threshold=0.5))) == 1


@pytest.mark.parametrize('body, status, message', [
    (request('square', model='yolo'), 404, 'simpleseg'), (request(), 400, 'nothing is asked for'),
    (request(' . '), 400, '1 to 100'), (request('.'.join(map(str, range(160)))), 400, '1 to 100'),
    (request('square', image=3), 400, '`image`'), (request('square', image='@@'), 400, ''),
    (dict(request('square'), params=3), 400, 'nothing is asked for'),
    (request(marks=3), 400, 'marks of one request'), (request(marks=[3]), 400, 'a mark is'),
    (request(marks=[dict(type='rectangle', data=[1, 2])]), 400, 'four numbers'),
    (request(marks=[dict(type='rectangle', data=[1, 2, 'a', 4])]), 400, 'four numbers'),
    (request(marks=[dict(type='point', data=[1, 2], label=0)]), 400, 'not meant'),
    (request(marks=[dict(type='point', data=[1, 200])]), 400, ''),
    (request('crash'), 500, 'the')])
def test_bad_requests_are_one_line(server, body, status, message):
    got, _, row = call(server[0], 'POST', '/v1/predict', body)
    told = row['error'] if isinstance(row['error'], str) else row['error']['message']
    assert got == status and message in told and '\n' not in told
