"""Texts of any editor, pictures wherever they lie now, and files that are replaced whole."""
import json
import os
import subprocess
import sys
import unicodedata

import pytest

from simpleseg_mm.files import (PictureFinder, is_blank, load_json, read_lines, read_text,
                                replace_json, replace_text, replacing)
from simpleseg_mm.files.paths import ADDRESS, AS_WRITTEN, BARE_NAME, BELOW, CAPITALS, UPLOADED


# --- texts ------------------------------------------------------------------------------------
@pytest.mark.parametrize('raw, message', [
    (b'\x89PNG\r\n\0\0', 'no text'),
    (b'\xef\xbb\xbf\xff', 'no text that can be read'),
    (b'\xff\xfea', 'no text that can be read'),
])
def test_what_is_no_text_is_refused(tmp_path, raw, message):
    path = tmp_path / 'a.txt'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_text(path)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32', 'cp1252'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_text_of_any_editor(tmp_path, encoding, end):
    path = tmp_path / 'a.txt'
    path.write_bytes(f' Häuschen 1.png {end}{end}b/c.png'.encode(encoding))
    assert read_lines(path) == ['Häuschen 1.png', 'b/c.png']


@pytest.mark.parametrize('raw', [b'{"a": 1', b'', b'[' * 100_000])
def test_broken_json_names_the_file(tmp_path, raw):
    path = tmp_path / 'a.json'
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='a.json is not readable JSON'):
        load_json(path)


# --- paths ------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, expected', [
    ('', (None, 'no name')),
    ('a\0b', (None, 'no name')),
    ('x' * 5000, (None, 'missing')),
    ('twice.png', (None, '2 files of this name')),
    ('TWICE.png', (None, '2 files of this name')),
    ('..', (None, 'missing')),
    ('one.png', ('one.png', AS_WRITTEN)),
    ('sub\\two.png', ('sub/two.png', AS_WRITTEN)),
    ('images/one.png', ('one.png', BELOW)),
    ('images\\sub\\two.png', ('sub/two.png', BELOW)),
    ('..\\..\\media\\upload\\4\\one.png', ('one.png', BELOW)),
    ('/home/ann/set/images/sub/two.png', ('sub/two.png', BELOW)),
    ('C:\\Users\\ann\\two.png', ('sub/two.png', BARE_NAME)),
    ('three.png', ('deep/er/three.png', BARE_NAME)),
    ('set/Three.PNG', ('deep/er/three.png', CAPITALS)),
    ('one.PNG', ('one.png', CAPITALS)),
    ('images/1a2b3c4d-one.png', ('one.png', UPLOADED)),
    ('1a2b3c4d-twice.png', (None, '2 files of this name')),
    ('1a2b3c4d-', (None, 'missing')),
    ('https://host/a%20b/one.png?X-Amz-Date=1&d=/x', ('one.png', ADDRESS)),
    (unicodedata.normalize('NFC', 'Häuschen.png'),
     (unicodedata.normalize('NFD', 'Häuschen.png'), AS_WRITTEN)),
])
def test_a_picture_is_found(tmp_path, name, expected):
    folder = tmp_path / 'images'
    for file in ('one.png', 'sub/two.png', 'deep/er/three.png', 'a/twice.png', 'b/twice.png',
                 unicodedata.normalize('NFD', 'Häuschen.png')):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    finder = PictureFinder([folder])
    path, how = finder.look(name)
    assert (path and str(path.relative_to(folder)), how) == expected
    assert finder.guessed == ({how: 1} if path and how != AS_WRITTEN else {})


def test_links_are_followed_and_loops_end(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk/a.png').touch()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/linked').symlink_to(tmp_path / 'disk')
    (tmp_path / 'disk/loop').symlink_to(tmp_path / 'images')
    assert PictureFinder([tmp_path / 'images']).find('elsewhere/a.png') is not None


def test_a_picture_beside_a_file_of_its_name(tmp_path):
    for name in ('a.JPG', 'b.png', 'b.tif', 'c.txt', 'more/d.bmp', 'more/a.png', 'one/e.png',
                 'two/e.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'1')
    finder = PictureFinder([tmp_path])
    assert finder.look_beside('a') == (tmp_path / 'a.JPG', 'as written')
    assert finder.look_beside('b') == (None, '2 pictures of this name: b.png, b.tif')
    assert finder.look_beside('c') == (None, 'missing')
    assert finder.look_beside('d')[0] == tmp_path / 'more/d.bmp'
    assert finder.look_beside('e')[0] is None
    assert finder.look_beside('e', tmp_path / 'two')[0] == tmp_path / 'two/e.png'
    assert finder.guessed == {'by its bare name, which is there once': 1}


@pytest.mark.parametrize('text, blank', [
    ('', True), (' \t\n', True), ('\u200b\ufeff\xa0\u2029', True), ('.', False), ('é', False),
    ('日', False), ('\U0001f600', False), ('\x00', True)])
def test_blank_texts(text, blank):
    assert is_blank(text) is blank


# --- writing ----------------------------------------------------------------------------------
def test_a_file_stays_as_it_was_where_writing_fails(tmp_path):
    path = tmp_path / 'a.json'
    replace_json(path, dict(a='ä'))
    with pytest.raises(OSError), replacing(path) as partial:
        partial.write_text('half')
        raise OSError('disk full')
    assert json.loads(path.read_text()) == dict(a='ä') and list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path):
    (tmp_path / 'real').write_text('old')
    (tmp_path / 'link').symlink_to('real')
    replace_text(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real').read_text() == 'new'


def test_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    code = ('import os, signal, sys; from simpleseg_mm.files import replacing\n'
            f'with replacing({str(path)!r}) as partial:\n'
            '    partial.write_text("half"); os.kill(os.getpid(), signal.SIGKILL)')
    assert subprocess.run([sys.executable, '-c', code], env=os.environ).returncode == -9
    assert path.read_text() == 'old'

