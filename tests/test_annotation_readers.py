"""Input as it is found: what a file holds is a sample or is counted, and no file ends a run."""
import io
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from annotation_standin import config, jpeg, run, simple
from PIL import Image

from simpleseg_mm.annotation import readers
from simpleseg_mm.annotation import tar as tar_module
from simpleseg_mm.annotation.stages import ReadFolder, ReadParquet, ReadTars
from simpleseg_mm.annotation.tar import TarCut, members
from simpleseg_mm.files import pictures

HIDDEN = 'left out: hidden, or of macOS or Windows'
NO_FILE = 'left out: link, device or sparse file'
BARE = 'picture without a caption'
DOUBLE = b'\0\5\x16\7\0\2\0\0Mac OS X        ' + bytes(120)  # AppleDouble, as macOS writes it
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n'


def tar_of(*entries, form=tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, content) or (name, type of member)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=form) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) != 1:
                info.size = len(content)
            else:
                info.type, info.linkname, content = content, 'a.jpg', b''
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def annotated(tmp_path: Path, reader: dict) -> tuple[dict, dict]:
    """Counts of a run that only looks at the images, and (bytes, caption) by source file."""
    counts = run(config(reader), tmp_path / 'run')
    images = counts['counts']['images']
    assert images['entered'] == images['written'] + sum(images['dropped'].values())
    found = {}
    for path in sorted((tmp_path / 'run/shards').glob('*.tar')):
        with tarfile.open(path) as archive:
            for name in archive.getnames():
                if name.endswith('.json'):
                    note = json.loads(archive.extractfile(name).read())
                    raw = archive.extractfile(note['file_name']).read()
                    found[note['source']['file']] = raw, note['source'].get('caption')
    return counts, found


def of_tar(tmp_path: Path, content: bytes, **options) -> tuple[dict, dict]:
    (tmp_path / 't.tar').write_bytes(content)
    return annotated(tmp_path, dict(type='ReadTars', paths=str(tmp_path / 't.tar'), **options))


A, B = ('a.jpg', jpeg(0)), ('b.jpg', jpeg(1))
A_TEXT, B_TEXT = ('a.txt', b'one'), ('b.txt', b'two')
TARS = {  # entries, captions of what is written, notes, reasons
    'plain': ([A, A_TEXT, B, B_TEXT], dict(a='one', b='two'), {}, {}),
    'mac': ([('._a.jpg', DOUBLE), A, ('._a.txt', DOUBLE), A_TEXT, ('._b.jpg', DOUBLE), B,
             ('__MACOSX/._a.jpg', DOUBLE), ('.DS_Store', b'Bud1')], dict(a='one', b=None),
            {HIDDEN: 5, BARE: 1}, {}),
    'windows': ([A, A_TEXT, ('Thumbs.db', b'\xd0\xcf'), ('x/desktop.ini', b'[.x]')],
                dict(a='one'), {HIDDEN: 2}, {}),
    'dot': ([('./a.jpg', A[1]), ('./a.txt', b'one'), ('./', tarfile.DIRTYPE)], dict(a='one'), {},
            {}),
    'folders': ([('x/a.jpg', A[1]), ('x/a.txt', b'one'), ('y/a.jpg', B[1]), ('y/a.txt', b'two')],
                {'x/a': 'one', 'y/a': 'two'}, {}, {}),
    'apart': ([A, B, B_TEXT, A_TEXT], dict(a='one', b='two'), {}, {}),
    'apart_twice': ([A, B, ('a.jpg', jpeg(3)), ('c.jpg', jpeg(4)), A_TEXT],
                    dict(a=None, b=None, c=None), {BARE: 3}, {'read: duplicate key': 2}),
    'upper': ([('A.JPEG', A[1]), ('A.TXT', b'one'), ('B.Png', B[1])], dict(A='one', B=None),
              {BARE: 1}, {}),
    'dots': ([('a.v2.jpg', A[1]), ('a.jpg', A[1]), A_TEXT, ('a.seg.png', A[1])], dict(a='one'),
             {'left out: *.v2.jpg': 1, 'left out: *.seg.png': 1}, {}),
    'two_pictures': ([A, ('a.png', jpeg(2)), A_TEXT], dict(a='one'),
                     {'left out: further picture of a key': 1}, {}),
    'others': ([A, A_TEXT, ('a.cls', b'33'), ('README', b'hi'), ('b.heic', b'ftyp')],
               dict(a='one'),
               {'left out: *.cls': 1, 'left out: *.heic': 1, 'left out: files of other kinds': 1},
               {}),
    'links': ([A, A_TEXT, ('b.jpg', tarfile.LNKTYPE), ('c.jpg', tarfile.SYMTYPE),
               ('d.jpg', tarfile.CHRTYPE), ('e.jpg', tarfile.FIFOTYPE)], dict(a='one'),
              {NO_FILE: 4}, {}),
    'caption_alone': ([A, A_TEXT, ('b.txt', b'two'), ('c.json', b'{}')], dict(a='one'), {},
                      {'read: no image': 2}),
    'blanks': ([('my photo.jpg', A[1]), ('my photo.txt', b'one')], {'my photo': 'one'}, {}, {}),
    'composed': ([('é.jpg', A[1]), ('e\u0301.txt', b'one')], {'é': 'one'}, {}, {}),
    'long': ([('x/' * 80 + 'a.jpg', A[1]), ('x/' * 80 + 'a.txt', b'one')],
             {'x/' * 80 + 'a': 'one'}, {}, {}),
    'up': ([('../../a.jpg', A[1]), ('/a.txt', b'one')], dict(a='one'), {}, {}),
    'backslashes': ([('x\\a.jpg', A[1]), ('x\\a.txt', b'one')], {'x/a': 'one'}, {}, {}),
    'postscript': ([('a.jpg', EPS), B], dict(b=None), {BARE: 2},
                   {'image: unreadable image': 1}),
    'captions': ([A, ('a.txt', '\ufeffein Hund\r\n'.encode()), B,
                  ('b.txt', 'кот'.encode('utf-16'))], dict(a='ein Hund', b='кот'), {}, {}),
    'no_texts': ([A, ('a.txt', bytes(40)), B, ('b.txt', b'x' * 2_000_000)],
                 dict(a=None, b=None), {'caption unreadable': 2}, {}),
}


@pytest.mark.parametrize('form', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=['pax', 'gnu'])
@pytest.mark.parametrize('name', TARS)
def test_tars_as_they_are_found(tmp_path, name, form):
    entries, captions, notes, dropped = TARS[name]
    counts, found = of_tar(tmp_path, tar_of(*entries, form=form))
    assert {name: caption for name, (_, caption) in found.items()} == {
        f't.tar/{key}': caption for key, caption in captions.items()}
    assert counts['notes'] == notes and counts['counts']['images']['dropped'] == dropped
    assert counts['input_faults'] == []


def header(name: str, size: bytes, kind: bytes = b'0') -> bytes:
    """A tar's header with any twelve bytes for the size."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size.ljust(12, b'\0'), kind, b' ' * 8
    block[148:155] = b'%06o\0' % sum(block)
    return bytes(block)


NEGATIVE = b'\xff' * 11 + b'\0'  # -256 in base 256
START = tar_of(A, A_TEXT)[:512 + -(-len(A[1]) // 512) * 512 + 1024]
BROKEN_TARS = {
    'negative': (header('b.jpg', NEGATIVE) + bytes(1024), 'has no size that can be'),
    'negative_name': (header('b.jpg', NEGATIVE, b'L') + bytes(1024), 'of -256 bytes'),
    'negative_pax': (header('x', b'%011o' % 13, b'x') + b'13 size=-512\n'.ljust(512, b'\0')
                     + header('b.jpg', b'%011o' % 5) + bytes(1024), 'has no size that can be'),
    'huge': (header('b.jpg', b'7' * 11) + bytes(1024), 'is cut off'),
    'huge_base_256': (header('b.jpg', b'\x80' + b'\x7f' * 11) + bytes(1024), 'has no size'),
    'huge_name': (header('b', b'%011o' % 2_000_000, b'L') + bytes(2_002_048), '2,000,000 bytes'),
    'noise': (b'noise' * 200, 'no header'),
    'checksum': (bytes([header('b.jpg', b'0')[0] ^ 1]) + header('b.jpg', b'0')[1:] + bytes(1024),
                 'no header'),
    'nothing_behind': (b'', 'end mark is missing'),
    'part_of_a_header': (header('b.jpg', b'0')[:300], 'no header'),
}


@pytest.mark.parametrize('name', BROKEN_TARS)
def test_a_tar_that_is_broken_is_used_as_far_as_it_goes(tmp_path, name):
    rest, message = BROKEN_TARS[name]
    counts, found = of_tar(tmp_path, START + rest)
    assert found == {'t.tar/a': (A[1], 'one')}
    (reason, detail), = counts['input_faults']
    place = len(START) + (1024 if name == 'negative_pax' else 0)
    assert reason == 'tar cut short' and message in detail
    assert f'nothing is read from byte {place:,} of {len(START + rest):,} on' in detail
    assert run(config(dict(type='ReadTars', paths=str(tmp_path / 't.tar'))),
               tmp_path / 'run')['input_faults'] == [[reason, detail]]  # resumed


def test_headers_one_in_another_and_sparse_files():
    """Python's tarfile calls itself for each header before a file, and reads whole maps."""
    chain = b''.join(header('x', b'%011o' % 14, b'x') + b'14 path=a.jpg\n'.ljust(512, b'\0')
                     for _ in range(3000))
    content = chain + header('b.jpg', b'%011o' % 3) + b'abc'.ljust(512, b'\0') + bytes(1024)
    found, = members(io.BytesIO(content), len(content))
    assert found == ('a.jpg', len(content) - 1536, 3)
    old = bytearray(header('s.jpg', b'%011o' % 3, b'S'))
    old[482], old[148:156] = 1, b' ' * 8
    old[148:155] = b'%06o\0' % sum(old)
    more = bytes(504) + b'\1' + bytes(7)
    content = bytes(old) + more + bytes(512) + b'abc'.ljust(512, b'\0') + tar_of(A)
    assert [(name, size) for name, _, size in members(io.BytesIO(content), len(content))] == [
        ('s.jpg', -1), ('a.jpg', len(A[1]))]


def test_tars_behind_one_another_are_one(tmp_path):
    counts, found = of_tar(tmp_path, tar_of(A, A_TEXT) + tar_of(B, B_TEXT))
    assert {caption for _, caption in found.values()} == {'one', 'two'}
    assert counts['input_faults'] == []


@pytest.mark.parametrize('magic, name', [(b'\x1f\x8b\x08', 'gzip'), (b'PK\x03\x04', 'zip')])
def test_packed_tars_are_said_to_be_packed(tmp_path, magic, name):
    counts, found = of_tar(tmp_path, magic + bytes(2000))
    assert found == {} and f'packed by {name}; unpack it' in counts['input_faults'][0][1]


def test_no_files_among_the_tars(tmp_path):
    """A folder, a pipe and a link to nothing, all called .tar."""
    (tmp_path / 'a.tar').mkdir()
    os.mkfifo(tmp_path / 'b.tar')
    (tmp_path / 'c.tar').symlink_to(tmp_path / 'gone')
    (tmp_path / 'd.tar').write_bytes(tar_of(A))
    counts, found = annotated(tmp_path, dict(type='ReadTars', paths=str(tmp_path / '*.tar')))
    assert list(found) == ['d.tar/a']
    assert [reason for reason, _ in counts['input_faults']] == ['file unreadable'] * 3


def test_bytes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, 'MAX_BYTES', 3000)
    monkeypatch.setattr(readers, 'MAX_CHUNK', 4000)
    small = [(f'{k}.jpg', jpeg(k)) for k in range(8)]
    assert all(1000 < len(raw) < 2000 for _, raw in small)
    counts, found = of_tar(tmp_path, tar_of(*small, ('x.jpg', bytes(3001))))
    assert len(found) == 8 and counts['counts']['images']['dropped'] == {'read: too many bytes': 1}
    assert counts['chunks'] > 2
    root = tmp_path / 'folder'
    root.mkdir()
    for name, raw in (*small, ('x.jpg', bytes(3001))):
        (root / name).write_bytes(raw)
    assert len(ReadFolder(str(root)).files()) > 2
    counts, found = annotated(tmp_path / 'f', dict(type='ReadFolder', root=str(root)))
    assert len(found) == 8 and counts['counts']['images']['dropped'] == {'read: too many bytes': 1}
    monkeypatch.setattr(readers, 'MAX_MEMBERS', 4)
    counts, found = of_tar(tmp_path / 'folder', tar_of(*small))
    assert len(found) == 4 and 'more than 4 files' in counts['input_faults'][0][1]


# --- folders ---------------------------------------------------------------------------------
def test_a_folder_as_it_is_found(tmp_path):
    root, elsewhere = tmp_path / 'images', tmp_path / 'elsewhere'
    for folder in (root / 'x', root / '__MACOSX', root / '.trash', elsewhere):
        folder.mkdir(parents=True)
    files = {
        'my photo.JPEG': jpeg(0), 'my photo.TXT': '\ufeffein Hund'.encode(), 'é.jpg': jpeg(1),
        'e\u0301.txt': b'caf\xe9', 'x/a.jpg': jpeg(2), 'a.jpg': jpeg(3), 'a.png': jpeg(4),
        '._a.jpg': DOUBLE, '.DS_Store': b'Bud1', 'Thumbs.db': b'', '__MACOSX/._a.jpg': DOUBLE,
        '.trash/a.jpg': jpeg(5), 'alone.txt': b'nothing', 'instances.json': b'{}',
        'b.heic': b'ftyp', 'c.jpg': EPS, 'd.pgm': b'P5 4 4 255 ' + bytes(16)}
    for name, content in files.items():
        (root / name).write_bytes(content)
    (elsewhere / 'l.jpg').write_bytes(jpeg(6))
    (root / 'link').symlink_to(elsewhere)
    (root / 'z_again').symlink_to(elsewhere)
    (root / 'loop').symlink_to(root)
    (root / 'gone.jpg').symlink_to(root / 'nothing.jpg')
    os.mkfifo(root / 'pipe.jpg')
    counts, found = annotated(tmp_path, dict(type='ReadFolder', root=str(root)))
    assert {name: caption for name, (_, caption) in found.items()} == {
        'my photo.JPEG': 'ein Hund', 'é.jpg': 'café', 'x/a.jpg': None, 'a.jpg': None,
        'a.png': None, 'd.pgm': None, 'link/l.jpg': None}
    assert counts['counts']['images']['dropped'] == {
        'image: unreadable image': 1, 'read: failed: FileNotFoundError': 1}
    assert counts['notes'] == {
        HIDDEN: 5, NO_FILE: 1, BARE: 7, 'left out: *.heic': 1, 're-encoded: PPM L': 1,
        'left out: folder that is linked twice': 2,
        'left out: caption or fields without a picture': 2}


def test_names_that_are_no_text_and_the_run_s_own_folder(tmp_path):
    """The report and the next run take them too."""
    from simpleseg_mm.annotation.export import write_coco, write_annotation_report
    from simpleseg_mm.annotation.writer import Totals
    from simpleseg_mm.polygon import PolygonCodec
    root = tmp_path / 'images'
    root.mkdir()
    with open(os.fsencode(root) + b'/\xff\xe9.jpg', 'wb') as file:
        file.write(jpeg(0))
    with open(os.fsencode(root) + b'/\xff.jpg', 'wb') as file:
        file.write(b'nothing')
    cfg = simple(dict(type='ReadFolder', root=str(root)))
    counts = run(cfg, root / 'run')
    write_coco(str(root / 'run'), str(root / 'run/coco.json'))
    totals = Totals()
    totals.add(json.loads((root / 'run/ledger/images-000000.json').read_text()))
    write_annotation_report(str(root / 'run'), totals, PolygonCodec())
    again = run(cfg, root / 'run')
    assert again['counts'] == counts['counts'] and again['counts']['images']['written'] == 1
    assert run(cfg, tmp_path / 'other')['notes']['left out: folder of a run'] == 1
    with open(os.fsencode(tmp_path) + b'/\xff.tar', 'wb') as file:
        file.write(b'noise' * 200)
    counts = run(simple(dict(type='ReadTars', paths=str(tmp_path / '*.tar'))), tmp_path / 'tars')
    (reason, detail), = counts['input_faults']
    assert reason == 'tar cut short' and detail.isprintable()


def test_postscript_is_run_nowhere(tmp_path, monkeypatch):
    """Pillow gives EPS to Ghostscript: a gs that leaves a trace is first on the PATH."""
    canary = tmp_path / 'canary'
    (tmp_path / 'gs').write_text(f'#!/bin/sh\ntouch {canary}\nexit 1\n')
    (tmp_path / 'gs').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    from PIL import EpsImagePlugin
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None, raising=False)
    with pytest.raises(Exception), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert canary.exists()  # the trap works
    canary.unlink()
    root = tmp_path / 'images'
    root.mkdir()
    for suffix in ('jpg', 'png', 'tif', 'webp'):
        (root / f'{suffix}.{suffix}').write_bytes(EPS)
    (tmp_path / 't.tar').write_bytes(tar_of(('a.jpg', EPS), ('b.png', EPS)))
    todo = [dict(type='ReadFolder', root=str(root)),
            dict(type='ReadTars', paths=str(tmp_path / 't.tar'))]
    try:
        import pyarrow
        import pyarrow.parquet
        pyarrow.parquet.write_table(pyarrow.table(dict(image=[EPS])), tmp_path / 'p.parquet')
        todo.append(dict(type='ReadParquet', paths=str(tmp_path / 'p.parquet')))
    except ImportError:
        pass
    for number, reader in enumerate(todo):
        counts, found = annotated(tmp_path / str(number), reader)
        images = counts['counts']['images']
        assert found == {} and images['dropped'] == {
            'image: unreadable image': images['entered']}
    from simpleseg_mm.annotation.stages import Sample
    with pytest.raises(pictures.ImageError):
        Sample('a', EPS).image
    assert not canary.exists()


def test_malformed_exif_endless_scans_and_twelve_bits_are_counted(tmp_path):
    def encoded(image, form='JPEG', **options):
        out = io.BytesIO()
        image.save(out, form, **options)
        return out.getvalue()

    plain = Image.new('RGB', (64, 48), 'red')
    bad = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd\0\0\0\0'
    scans = encoded(plain, progressive=True)
    start = scans.rindex(b'\xff\xda')
    deep = Image.frombytes('I;16', (64, 48), struct.pack('<3072H', *range(0, 3072)))
    root = tmp_path / 'images'
    root.mkdir()
    (root / 'exif.jpg').write_bytes(encoded(plain, exif=bad))
    (root / 'scans.jpg').write_bytes(scans[:start] + scans[start:-2] * 3000 + scans[-2:])
    (root / 'deep.png').write_bytes(encoded(deep, 'PNG'))
    (root / 'good.jpg').write_bytes(encoded(plain))
    counts, found = annotated(tmp_path, dict(type='ReadFolder', root=str(root)))
    assert sorted(found) == ['deep.png', 'exif.jpg', 'good.jpg']
    assert counts['counts']['images']['dropped'] == {'image: too many pixels': 1}
    assert {note: number for note, number in counts['notes'].items() if note != BARE} == {
        'EXIF orientation unreadable, not turned': 1, 're-encoded: PNG I;16': 1,
        'nearly black for 16 bits; set white of FilterImage to 4095 if it holds 12': 1}
    cfg = config(dict(type='ReadFolder', root=str(root)))
    cfg['stages']['image']['white'] = 4095
    notes = run(cfg, tmp_path / 'white')['notes']
    assert not any('black' in note for note in notes)
    with tarfile.open(tmp_path / 'white/shards/images-000000.tar') as archive:
        pixels = pictures.load_image(archive.extractfile('deep.jpg').read())
    assert abs(int(pixels.max()) - 3071 * 255 // 4095) < 3


# --- parquet ---------------------------------------------------------------------------------
@pytest.fixture
def parquet():
    return pytest.importorskip('pyarrow.parquet', reason='parquet needs pyarrow')


def of_parquet(tmp_path, **options) -> tuple[dict, dict]:
    return annotated(tmp_path, dict(type='ReadParquet', paths=str(tmp_path / '*.parquet'),
                                    **options))


BOMB = '''
import resource, sys
sys.path[:0] = {paths!r}
from annotation_standin import config, run
import pyarrow.parquet
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
counts = run(config(dict(type='ReadParquet', paths=sys.argv[1], shard_size=256)), sys.argv[2])
images = counts['counts']['images']
assert images['written'] == 0 and len(counts['input_faults']) == {faults}, counts
print(counts['input_faults'], images)
'''


@pytest.mark.slow
@pytest.mark.parametrize('rows, size, faults', [
    (75, 100_000_000, 1),  # 7.5 GB, by a dictionary of one value
    (2, 400_000_000, 1)])
def test_a_parquet_file_that_unpacks_to_gigabytes(tmp_path, parquet, rows, size, faults):
    import pyarrow
    values = pyarrow.array([bytes(size)], pyarrow.binary())
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()),
                                                 values)
    table = pyarrow.table(dict(image=column))
    parquet.write_table(table, tmp_path / 'a.parquet', compression='brotli', store_schema=False)
    assert (tmp_path / 'a.parquet').stat().st_size < 5000
    here = Path(__file__).resolve().parent
    code = BOMB.format(paths=[str(here.parent), str(here)], faults=faults)
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.parquet'),
                           str(tmp_path / 'run')], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'parquet broken' in done.stdout


def test_rows_that_would_unpack_to_too_much_are_counted(tmp_path, parquet, monkeypatch):
    import pyarrow
    monkeypatch.setattr(readers, 'MAX_CHUNK', 40_000)
    monkeypatch.setattr(readers, 'MAX_UNPACKED', 2)
    monkeypatch.setattr(readers, 'MAX_BYTES', 9_000)
    rows = [jpeg(0), bytes(9_001), jpeg(1)]
    parquet.write_table(pyarrow.table(dict(image=rows)), tmp_path / 'a.parquet')
    parquet.write_table(pyarrow.table(dict(image=[bytes(8_000)] * 20)), tmp_path / 'b.parquet')
    parquet.write_table(pyarrow.table(dict(image=[bytes(30_000)] * 2)), tmp_path / 'c.parquet')
    counts, found = of_parquet(tmp_path)
    assert sorted(found) == ['a.parquet/0', 'a.parquet/2']
    dropped = counts['counts']['images']['dropped']
    assert dropped.pop('read: too many bytes') == 1
    details = [detail.split(': ', 1)[1] for _, detail in counts['input_faults']]
    assert 'rows from row' in details[0] and details[1].startswith('2 rows from row 0 on')
    lost = sum(int(detail.split()[0]) for detail in details)
    assert 3 + 20 + 2 == counts['counts']['images']['entered'] + lost
    assert sum(dropped.values()) == 20 + 2 - lost  # zeros are no picture


def test_one_file_without_the_column_is_a_fault_and_none_with_it_a_mistake(tmp_path, parquet):
    import pyarrow
    parquet.write_table(pyarrow.table(dict(picture=[jpeg(0)])), tmp_path / 'a.parquet')
    parquet.write_table(pyarrow.table(dict(image=[jpeg(0)])), tmp_path / 'b.parquet')
    (tmp_path / 'c.parquet').write_bytes(b'PAR1')
    os.mkfifo(tmp_path / 'd.parquet')
    counts, found = of_parquet(tmp_path)
    assert list(found) == ['b.parquet/0'] and len(counts['input_faults']) == 3
    assert "no column ['image'], only ['picture']" in counts['input_faults'][0][1]
    with pytest.raises(ValueError, match="a.parquet has no column.*set reader.image"):
        ReadParquet(str(tmp_path / '[acd].parquet')).files()


def test_other_columns(tmp_path, parquet):
    import pyarrow
    table = pyarrow.table({'image': [dict(bytes=jpeg(0), path='x'), None, dict(bytes=None)],
                           'text': [b'caf\xe9', 'two'.encode(), b''], 'image.b': [1, 2, 3]})
    parquet.write_table(table, tmp_path / 'a.parquet')
    parquet.write_table(table.slice(0, 0), tmp_path / 'b.parquet')
    parquet.write_table(pyarrow.table(dict(image=[1, 2], text=['a', 'b'])),
                        tmp_path / 'c.parquet')
    counts, found = of_parquet(tmp_path, caption='text')
    assert found == {'a.parquet/0': (jpeg(0), 'café')} and counts['input_faults'] == []
    assert counts['counts']['images']['dropped'] == {'read: no image': 4}


# --- any reader ------------------------------------------------------------------------------
def test_a_reader_that_raises_ends_its_file_and_not_the_run(tmp_path, monkeypatch):
    for name in 'ab':
        (tmp_path / f'{name}.tar').write_bytes(tar_of((f'{name}.jpg', jpeg(0))))
    plain = ReadTars.chunks

    def chunks(self, file, done):
        yield from plain(self, file, done)
        if file.name == 'a':
            raise RecursionError('too deep\n for me')

    monkeypatch.setattr(ReadTars, 'chunks', chunks)
    for _ in range(2):  # and resumed
        counts, found = annotated(tmp_path, dict(type='ReadTars', paths=str(tmp_path / '*.tar')))
        assert sorted(found) == ['a.tar/a', 'b.tar/b']
        fault, = counts['input_faults']
        assert list(fault) == ['file unreadable', f'{tmp_path}/a.tar, after 1 chunks: '
                               'failed: RecursionError: too deep for me']


COUNT = 6
RECORDS = [(f'{k:03d}', jpeg(k), f'thing number {k}') for k in range(COUNT)]


def entries_of(records) -> list:
    return [entry for key, raw, text in records
            for entry in ((f'{key}.jpg', raw), (f'{key}.txt', text.encode()))]


def faulty(rng: random.Random) -> tuple[list, int, set]:
    """Entries with a fault at a random place, how many files are left out by a note, and the
    records that the fault is of."""
    entries, place = entries_of(RECORDS), rng.randrange(2 * COUNT)
    name, content = entries[place]
    key = name[:3]
    fault = rng.choice(['double', 'hidden', 'other', 'link', 'no picture', 'no caption', 'broken',
                        'empty', 'twice', 'moved', 'postscript', 'cut'])
    if fault == 'double':
        entries.insert(place, (f'._{name}', DOUBLE))
        return entries, 1, set()
    if fault == 'hidden':
        entries.insert(place, (rng.choice(['.DS_Store', '__MACOSX/x.jpg', '.x/001.jpg']), b'xx'))
        return entries, 1, set()
    if fault == 'other':
        entries.insert(place, (rng.choice(['x.cls', '003.npy', 'a.mp4', 'x']), b'xx'))
        return entries, 1, set()
    if fault == 'link':
        entries.insert(place, ('x.jpg', tarfile.SYMTYPE))
        return entries, 1, set()
    place -= place % 2
    raw = entries[place][1]
    if fault == 'no picture':
        del entries[place]
    elif fault == 'no caption':
        del entries[place + 1]
    elif fault == 'twice':
        entries.insert(place + 2, entries[place])
        return entries, 0, set()
    elif fault == 'moved':
        entries.append(entries.pop(place + 1))
        return entries, 0, set()
    else:
        entries[place] = (f'{key}.jpg', dict(
            broken=raw[:200] + bytes(99) + raw[299:], empty=b'', postscript=EPS,
            cut=raw[:rng.randrange(2, len(raw) - 2)])[fault])
    return entries, 0, {key}


@pytest.mark.parametrize('kind', ['tar', 'folder'])
@pytest.mark.parametrize('seed', range(40))
def test_counts_add_up_whatever_is_at_fault(tmp_path, kind, seed):
    entries, left_out, faulted = faulty(random.Random(seed))
    if kind == 'tar':
        counts, found = of_tar(tmp_path, tar_of(*entries), shard_size=2)
        found = {name.removeprefix('t.tar/'): one for name, one in found.items()}
    else:
        for name, content in entries:
            path = tmp_path / 'images' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes) and len(content) != 1:
                path.write_bytes(content)
            elif not path.exists():
                os.mkfifo(path)
        counts, found = annotated(tmp_path, dict(type='ReadFolder', root=str(tmp_path / 'images'),
                                                 shard_size=2))
        found = {name.removesuffix('.jpg'): one for name, one in found.items()}
    for key, raw, text in RECORDS:
        if key not in faulted:
            assert found[key] == (raw, text)
    images, notes = counts['counts']['images'], counts['notes']
    assert sum(n for note, n in notes.items() if note.startswith('left out')) >= left_out
    assert set(found) <= {key for key, *_ in RECORDS}
    assert images['written'] == len(found) >= COUNT - len(faulted)
    if kind == 'tar':  # every file is of a sample, or left out
        pictures_in = sum(name.endswith('.jpg') and not name.startswith(('.', '_'))
                          and isinstance(content, bytes) and len(content) != 1
                          for name, content in entries)
        alone = images['dropped'].get('read: no image', 0)
        assert images['entered'] == pictures_in + alone
    assert counts['input_faults'] == []


@pytest.mark.parametrize('seed', range(60))
def test_a_tar_with_wrong_bytes_anywhere(tmp_path, seed):
    """Headers and contents alike: what comes before is as it was, and the run ends well."""
    rng = random.Random(seed)
    content = bytearray(tar_of(*entries_of(RECORDS)))
    place = rng.randrange(len(content) - tarfile.RECORDSIZE)
    place = place - place % 512 if seed % 2 else place
    wrong = rng.choice([bytes(512), b'\xff' * 512, rng.randbytes(40), NEGATIVE, b''])
    content[place:place + len(wrong)] = wrong
    if not wrong:
        del content[place:]
    counts, found = of_tar(tmp_path, bytes(content), shard_size=2)
    whole = {f't.tar/{key}': (raw, text) for key, raw, text in RECORDS}
    _, places = zip(*((name, offset + size) for name, offset, size in
                      members(io.BytesIO(tar_of(*entries_of(RECORDS))), 1 << 30)))
    for number, (key, raw, text) in enumerate(RECORDS):
        if places[2 * number + 1] <= place:
            assert found[f't.tar/{key}'] == (raw, text)
    differing = [name for name, one in whole.items() if found.get(name) != one]
    said = len(counts['input_faults']) + sum(counts['counts']['images']['dropped'].values()) + sum(
        number for note, number in counts['notes'].items())
    assert said or not differing or len(differing) == 1  # bytes of a picture or of a caption


@pytest.mark.parametrize('seed', range(60))
def test_a_parquet_file_with_wrong_bytes_anywhere(tmp_path, parquet, seed):
    import pyarrow
    rng = random.Random(seed)
    table = pyarrow.table(dict(image=[raw for _, raw, _ in RECORDS] * 2,
                               text=[text for *_, text in RECORDS] * 2))
    parquet.write_table(table, tmp_path / 'a.parquet', row_group_size=3)
    content = bytearray((tmp_path / 'a.parquet').read_bytes())
    for _ in range(rng.choice([1, 1, 4])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    (tmp_path / 'a.parquet').write_bytes(content[:rng.choice([len(content)] * 3 + [5_000])])
    counts, found = of_parquet(tmp_path, caption='text', shard_size=5)
    images, faults = counts['counts']['images'], counts['input_faults']
    rows = sum(int(detail.split(': ')[1].split()[0]) for _, detail in faults
               if 'rows from row' in detail)
    assert faults or images['entered'] == 12
    if all('rows from row' in detail for _, detail in faults):
        assert images['entered'] + rows == 12
    assert len(found) <= 12


def test_what_tarfile_would_follow_for_ever():
    content = header('a.jpg', NEGATIVE) + bytes(5120)
    with pytest.raises(TarCut, match='no size'):
        list(members(io.BytesIO(content), len(content)))
    assert tar_module.MAX_EXTENSION < 10 ** 7
