"""The server's own folder over HTTP: its pictures, and the annotations beside them."""
import hashlib
import json
import os
from urllib.parse import quote

import pytest

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")

from serving_standin import ScriptedInferencer, serving  # noqa: E402
from test_serving import call, png  # noqa: E402

NAMES = ['a.png', 'a2.png', 'a10.png', 'b/a.png', 'b/50% of #1 ?.png', 'b/\N{GRINNING FACE}.png',
         'b/back\\slash.png', os.fsdecode(b'b/\xe9.png'), 'b/\\xe9 literal.png']


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('root')
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(png(30 + number, 20))
    for name in ('.hidden.png', '.git/c.png', '._a.png', 'notes.txt'):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(png())
    (root.parent / 'secret.png').write_bytes(png())
    (root / 'out.png').symlink_to(root.parent / 'secret.png')
    (root / 'nothing.png').symlink_to(root / 'none.png')
    (root / 'up').symlink_to(root.parent)
    return root


@pytest.fixture(scope='module')
def server(root):
    with serving(ScriptedInferencer(), settings=dict(root=str(root))) as (url, _):
        yield url


def pictures_of(url: str) -> dict:
    status, _, row = call(url, 'GET', '/api/folder')
    assert status == 200, row
    return row


def test_the_list_is_sorted_as_people_sort_and_every_name_opens_its_picture(server, root):
    row = pictures_of(server)
    assert {key: row[key] for key in ('name', 'format')} == dict(name=root.name, format='labelme')
    assert call(server, 'GET', '/api/info')[2]['folder'] == {
        key: row[key] for key in ('name', 'id', 'format', 'read_only')}
    paths = [one['path'] for one in row['pictures']]
    assert paths[:3] == ['a.png', 'a2.png', 'a10.png'] and len(paths) == len(NAMES)
    assert 'b/\\xe9.png' in paths and 'b/\\xe9 literal.png' in paths
    assert [note[:27] for note in row['notes']] == ['1 linked folders are passed',
                                                    '2 linked pictures lead out ']
    widths = set()
    for path in paths:
        status, _, picture = call(server, 'POST', f'/api/pictures?path={quote(path)}')
        name = path.replace('\\', '/').rpartition('/')[2]  # as of every upload
        assert status == 201 and picture['name'] == name, picture
        raw = png(picture['width'], 20)
        assert picture['digest'] == hashlib.sha256(raw).hexdigest()[:32]
        widths.add(picture['width'])
    assert widths == {*range(30, 30 + len(NAMES))}


def test_an_upload_has_its_digest(server):
    raw = png(40, 30)
    row = call(server, 'POST', '/api/pictures?name=a.png', raw)[2]
    assert row['digest'] == hashlib.sha256(raw).hexdigest()[:32] and row['height'] == 30


@pytest.mark.parametrize('path, body, status', [
    ('none.png', None, 400), ('', None, 400), ('b', None, 400), ('a.png%00', None, 400),
    ('../secret.png', None, 403), ('out.png', None, 403), ('up/secret.png', None, 403),
    ('/etc/passwd', None, 403), ('notes.txt', b'x', 400), ('a.png', b'x', 400)])
def test_paths_that_are_no_pictures(server, path, body, status):
    got, _, row = call(server, 'POST', f'/api/pictures?path={path}', body)
    assert got == status and '\n' not in row['error'], row


def test_without_a_folder():
    with serving(ScriptedInferencer()) as (url, _):
        assert call(url, 'GET', '/api/info')[2]['folder'] is None
        for method, path in (('GET', '/api/folder'), ('POST', '/api/pictures?path=a.png')):
            status, _, row = call(url, method, path)
            assert status == 403 and '--root' in row['error']


def test_what_is_known_of_each_picture(tmp_path):
    square = dict(label='a', points=[[1, 1], [9, 1], [9, 9]], shape_type='polygon')
    files = {
        'one.json': dict(shapes=[dict(square, group_id=None), dict(square, group_id=None)]),
        'parts.json': dict(shapes=[dict(square, group_id=1), dict(square, group_id=1),
                                   dict(square, label='b', group_id=1)]),
        'done.json': dict(shapes=[], simpleseg=dict(done=True)),
        'points.json': dict(shapes=[dict(square, shape_type='point'), None, dict(label='a')]),
        'other.json': dict(images=[], annotations=[]),
        'broken.json': None}
    for name, content in files.items():
        (tmp_path / name).with_suffix('.png').write_bytes(png())
        (tmp_path / name).write_text('{"shapes": [' if content is None else json.dumps(content))
    (tmp_path / 'none.png').write_bytes(png())
    with serving(ScriptedInferencer(), settings=dict(root=str(tmp_path))) as (url, _):
        rows = {one['path']: one for one in pictures_of(url)['pictures']}
        assert {path[:-4]: (one['objects'], one['done']) for path, one in rows.items()} == dict(
            none=(None, False), one=(2, False), parts=(2, False), done=(0, True),
            points=(0, False), other=(None, False), broken=(None, False))
        assert '--annotations coco' in rows['other.png']['fault']
        assert 'not readable JSON' in rows['broken.png']['fault']
        assert [path for path, one in rows.items() if one['fault']] == ['broken.png', 'other.png']
        (tmp_path / 'broken.json').write_text(json.dumps(files['one.json']))
        os.remove(tmp_path / 'one.json')
        rows = {one['path']: one for one in pictures_of(url)['pictures']}
        assert rows['broken.png']['objects'] == 2 and rows['one.png']['objects'] is None


# --- annotations --------------------------------------------------------------------------------
RING = [[1, 1], [9, 1], [9, 9]]
ONE = dict(id='one', label='cup', polygons=[dict(outer=RING, holes=[])])


def put(url: str, path: str, body):
    return call(url, 'PUT', f'/api/folder/annotations?path={quote(path)}', body)


def document(**more) -> dict:
    return dict(dict(objects=[ONE], done=False, rejected=[], digest='', revision=None), **more)


@pytest.fixture
def own(tmp_path):
    (tmp_path / 'a.png').write_bytes(png())
    with serving(ScriptedInferencer(), settings=dict(root=str(tmp_path))) as (url, _):
        yield url, tmp_path


def test_annotations_over_the_wire(own):
    url, root = own
    status, _, got = call(url, 'GET', '/api/folder/annotations?path=a.png')
    assert status == 200 and got == dict(objects=[], done=False, rejected=[], revision=None,
                                         changed=False, fault='', notes=[])
    status, _, row = put(url, 'a.png', document(done=True))
    assert status == 200 and [*row] == ['revision']
    status, _, got = call(url, 'GET', '/api/folder/annotations?path=a.png')
    assert status == 200 and got['done'] and got['revision'] == row['revision']
    assert got['objects'][0]['polygons'] == ONE['polygons']
    status, _, conflict = put(url, 'a.png', document(objects=[]))
    assert status == 409 and conflict['revision'] == row['revision'] and conflict['error']
    status, _, forced = put(url, 'a.png', document(objects=[], force=True))
    assert status == 200 and forced['revision'] != row['revision']
    (root / 'a.json').write_text('{"shapes": [')
    status, _, refused = put(url, 'a.png', document(force=True))
    assert status == 423 and 'move it away' in refused['error']
    assert call(url, 'GET', '/api/folder/annotations?path=a.png')[2]['fault']
    for status, path in ((404, 'none.png'), (403, '../a.png'), (404, '')):
        assert call(url, 'GET', f'/api/folder/annotations?path={path}')[0] == status
        assert put(url, path, document())[0] == status
    assert call(url, 'DELETE', '/api/folder/annotations?path=a.png')[0] == 405
    status, _, row = call(url, 'PUT', '/api/folder/annotations?path=a.png',
                          json.dumps(document()).encode(), {'origin': 'http://elsewhere.org'})
    assert status == 403


MALFORMED = {
    'no JSON': b'{', 'a list': b'[]', 'nothing': b'', 'NaN': b'{"objects": [], "done": NaN}',
    'no objects': dict(done=False), 'objects': dict(objects={}), 'an object': dict(objects=[1]),
    'no outline': dict(objects=[dict(ONE, polygons=[])]),
    'two points': dict(objects=[dict(ONE, polygons=[dict(outer=RING[:2])])]),
    'a thin hole': dict(objects=[dict(ONE, polygons=[dict(outer=RING, holes=[RING[:2]])])]),
    'holes': dict(objects=[dict(ONE, polygons=[dict(outer=RING, holes=3)])]),
    'texts': dict(objects=[dict(ONE, polygons=[dict(outer=[['a', 'b']] * 3)])]),
    'far': dict(objects=[dict(ONE, polygons=[dict(outer=[[1e6, 1]] * 3)])]),
    'huge': dict(objects=[dict(ONE, polygons=[dict(outer=[[10**400, 1]] * 3)])]),
    'ragged': dict(objects=[dict(ONE, polygons=[dict(outer=[[1, 2], [3], [4, 5]])])]),
    'a polygon': dict(objects=[dict(ONE, polygons=[RING])]),
    'one id twice': dict(objects=[ONE, ONE]), 'id': dict(objects=[dict(ONE, id=5)]),
    'long id': dict(objects=[dict(ONE, id='x' * 1001)]),
    'label': dict(objects=[dict(ONE, label=5)]),
    'long label': dict(objects=[dict(ONE, label='x' * 100_001)]),
    'score': dict(objects=[dict(ONE, score=2)]), 'agreement': dict(objects=[dict(ONE,
                                                                               agreement='1')]),
    'infinite': b'{"objects": [], "rejected": [{"score": 1e999}]}',
    'done': dict(objects=[], done=1), 'rejected': dict(objects=[], rejected={}),
    'rejected texts': dict(objects=[], rejected=['x']), 'digest': dict(objects=[], digest=5),
    'revision': dict(objects=[], revision=5), 'force': dict(objects=[], force='yes'),
    'half a character': b'{"objects": [{"id": "\\ud800"}]}',
    'deep': b'{"objects": [], "x": ' + b'[' * 50_000 + b']' * 50_000 + b'}',
    'many values': b'{"objects": [' + b'1,' * 500_001 + b'1]}'}


def test_malformed_documents_are_refused_in_one_line_and_write_nothing(own):
    url, root = own
    for name, body in MALFORMED.items():
        status, _, row = put(url, 'a.png', body)
        assert status == 400 and row['error'] and '\n' not in row['error'], (name, row)
        assert os.listdir(root) == ['a.png'], name
    assert put(url, 'a.png', document())[0] == 200


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / 'a.png').write_bytes(png())
    (tmp_path / 'a.json').write_text(json.dumps(dict(shapes=[dict(label='a', points=RING)])))
    tmp_path.chmod(0o555)
    try:
        with serving(ScriptedInferencer(), settings=dict(root=str(tmp_path))) as (url, _):
            assert call(url, 'GET', '/api/info')[2]['folder']['read_only'] is True
            assert pictures_of(url)['read_only'] is True
            got = call(url, 'GET', '/api/folder/annotations?path=a.png')[2]
            assert len(got['objects']) == 1
            assert put(url, 'a.png', document(revision=got['revision']))[0] == 423
    finally:
        tmp_path.chmod(0o755)


def test_a_server_that_restarts_finds_all_again(tmp_path):
    (tmp_path / 'a.png').write_bytes(png())
    settings = dict(root=str(tmp_path), annotations='coco')
    with serving(ScriptedInferencer(), settings=settings) as (url, _):
        revision = put(url, 'a.png', document())[2]['revision']
        first = call(url, 'GET', '/api/info')[2]['folder']
    with serving(ScriptedInferencer(), settings=settings) as (url, _):
        assert call(url, 'GET', '/api/info')[2]['folder'] == first and first['format'] == 'coco'
        assert put(url, 'a.png', document(objects=[], revision=revision))[0] == 200
