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
