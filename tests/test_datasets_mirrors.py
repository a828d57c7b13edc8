"""RefCOCO from parquet: the samples of the native files, and one line for whatever is wrong."""
import io
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner
from PIL import Image
from test_datasets_refcoco import build, make_set

from simpleseg_mm.datasets import pictures
from simpleseg_mm.export.chat import LeftOut
from simpleseg_mm.export.picture_paths import PicturePaths
from simpleseg_mm.files.parquet import parquet_rows

pyarrow = pytest.importorskip('pyarrow', reason='parquet needs pyarrow')
from parquet_mirrors import SCHEMAS, rle_of, rows_of, write_mirror, write_rows_as  # noqa: E402

REFCOCO = 'dataset_converters/refcoco.py'
HUB = dict(val='validation', testA='test')  # what files of jxu124 are named after
FORMS = sorted(SCHEMAS)


def mirror(tmp_path: Path, form: str = 'flat', edit=None, label=str, folder: str = 'hub/refcoco',
           name: str = 'refcoco') -> Path:
    """The set of :func:`make_set` in a mirror's form, below another folder."""
    if not (tmp_path / name).is_dir():
        make_set(tmp_path, name, suffix='json')
    (tmp_path / 'hub').mkdir(exist_ok=True)
    if not (tmp_path / 'hub' / 'train2014').exists():
        (tmp_path / 'hub' / 'train2014').symlink_to(tmp_path / 'train2014')
    write_mirror(tmp_path, tmp_path / folder, name, form, 'train2014', label, edit)
    return tmp_path / 'hub'


def only_file(root: Path, label: str = 'train') -> Path:
    return next(root.rglob(f'{label}-*.parquet'))


# Files


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def damage_a_page(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    place = raw.index(b'refcoco 100 0 0')
    raw[place - 40:place + 40] = bytes(80)
    path.write_bytes(raw)


def rename(new: str):
    def change(path: Path) -> None:
        path.rename(path.with_name(new))
    return change


def copy_as(new: str):
    def change(path: Path) -> None:
        path.with_name(new).write_bytes(path.read_bytes())
    return change


def other_columns(path: Path) -> None:
    table = pyarrow.table(dict(caption=['a'], box=[[0, 0, 1, 1]], image=[b'x']))
    pyarrow.parquet.write_table(table, path)


def only_boxes(path: Path) -> None:
    image = dict(bytes=next(path.parents[3].glob('train2014/*.jpg')).read_bytes(), path=None)
    pyarrow.parquet.write_table(pyarrow.table(dict(
        question=['the square'], bbox=['[1, 2, 3, 4]'], image=[image])), path)


def without(column: str):
    def change(path: Path) -> None:
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.drop_columns([column]), path)
    return change


@pytest.mark.parametrize('change, message', [
    (truncate, 'train-00000-of-00001.parquet is no whole parquet file: .*download it again'),
    (damage_a_page, 'train-00000-of-00001.parquet is no whole parquet file: .*download it again'),
    (lambda path: path.write_bytes(b''), 'is no whole parquet file'),
    (lambda path: path.write_bytes(b'PAR1 no PAR1'), 'is no whole parquet file'),
    (lambda path: path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid'),
     'is a pointer of Git LFS and holds no data'),
    (lambda path: write_rows_as(path, [], 'flat'), 'hold no references; download them again'),
    (rename('train-00001-of-00003.parquet'),
     r"holds 1 of 3 parts of 'train'; it lacks \['00000', '00002'\]"),
    (copy_as('train-00000-of-00001-0123456789abcdef.parquet'),
     "are both part 00000 of 'train'; keep the newer one"),
    (rename('dev-00000-of-00001.parquet'),
     r"no split 'train'; it has \['dev', 'testA', 'val'\], as lmms-lab/RefCOCO.*docs/data.md"),
    (without('segmentation'), r"lacks the columns \['segmentation'\], which .*testA-.* has"),
])
def test_broken_files_are_one_line(tmp_path, change, message):
    root = mirror(tmp_path)
    change(only_file(root))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        build(root)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('change, columns, message', [
    (other_columns, None, r"has the columns \['caption', 'box', 'image'\]; of Kangheng.* it lacks "
     r"\['question', 'bbox'\].*columns=dict\("),
    (other_columns, dict(sentences='caption'), r"columns must name \['segmentation'\] too"),
    (other_columns, dict(sentences='text', segmentation='mask'),
     r"has no columns \['text', 'mask'\], which columns names; it has \['caption'"),
    (other_columns, dict(sentence='caption'), r"unknown fields \['sentence'\]; \['image'"),
    (only_boxes, None, 'has no masks, only boxes'),
])
def test_other_columns_are_named(tmp_path, change, columns, message):
    root = mirror(tmp_path)
    for path in root.rglob('*.parquet'):
        if path.name.startswith('train'):
            change(path)
        else:
            path.unlink()
    with pytest.raises(ValueError, match=message) as error:
        build(root, [dict(name='refcoco', split='train', columns=columns)])
    assert '\n' not in str(error.value)


def test_a_folder_without_parquet_and_a_machine_without_pyarrow(tmp_path, monkeypatch):
    root = mirror(tmp_path)
    (root / 'empty').mkdir()
    (root / 'empty' / '.cache').mkdir()
    (root / 'empty' / '.cache' / 'half.parquet').write_bytes(b'')
    for parquet in ('empty', 'nowhere'):
        with pytest.raises(FileNotFoundError, match=f'{parquet} holds no parquet files; download'):
            build(root, [dict(name='refcoco', split='train', parquet=parquet)])
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    with pytest.raises(ValueError, match='needs pyarrow: pip install pyarrow$'):
        build(root)


# Rows


def set_in(split: str, number: int, **values):
    def edit(rows):
        rows[split][number].update(values)
    return edit


def picture(raw: bytes | None, path: str | None):
    return set_in('train', 1, image=dict(bytes=raw, path=path))


def change_json(column: str, **values):
    def edit(rows):
        row = rows['train'][1]
        row[column] = json.dumps(json.loads(row[column]) | values)
    return edit


def again(rows):
    rows['train'].append(dict(rows['train'][1]))


def again_with(**values):
    def edit(rows):
        rows['train'].append(dict(rows['train'][1]) | values)
    return edit


def in_sample(**values):
    def edit(rows):
        rows['train'][0]['samples'][1].update(values)
    return edit


def same_sample(rows):
    rows['train'][0]['samples'].append(dict(rows['train'][0]['samples'][1]))


@pytest.mark.parametrize('form, edit, message, reason', [
    ('flat', set_in('train', 1, image=dict(bytes=None, path='x.jpg'),
                    file_name='COCO_train2014_000000000999_4.jpg'), 'there is no image .*0999.jpg',
     'image file missing or empty'),
    ('flat', set_in('train', 1, segmentation=[16, 5, 26, 5, 26, 11, 16, 11]),
     r'train-.*parquet, row 1: its outline ends 4.0 pixels from its box .*one part of several',
     'outline of a part of the object'),
    ('flat', set_in('train', 1, segmentation=[16, 5, 26]), 'degenerate polygon of 3',
     'bad annotation'),
    ('flat', set_in('train', 1, segmentation=None), 'empty or unknown segmentation',
     'bad annotation'),
    ('flat', set_in('train', 1, bbox=[1, 2]), r'bbox is \[1', 'bad annotation'),
    ('flat', set_in('train', 1, answer=None), 'row 1.*: sentences is None; a list',
     'bad reference'),
    ('flat', set_in('train', 1, answer=['a', None]), "a sentence needs 'sent'", 'bad sentence'),
    ('flat', set_in('train', 1, question_id=None, bbox=None, segmentation=None),
     'empty or unknown segmentation', 'bad annotation'),
    ('flat', again_with(answer=['another']), 'row 1 and .*row 4; every reference needs its own',
     'ref_id used twice'),
    ('native', set_in('train', 1, raw_anns='{"id": '), 'row 1: annotation is no JSON', 'bad row'),
    ('native', set_in('train', 1, raw_anns='[1]'), r'annotation is \[1\]; a record', 'bad row'),
    ('native', set_in('train', 1, raw_image_info=None, image_id=None, file_name=None),
     'row 1: it names no image', 'bad row'),
    ('native', change_json('raw_anns', id=5), 'its ann_id is 1001, and its annotation .* id 5',
     'bad row'),
    ('native', change_json('raw_anns', image_id=103), 'annotation 1001 is of image 103, not 100',
     'bad annotation'),
    ('native', change_json('raw_image_info', file_name='COCO_train2014_000000000101.jpg'),
     'its image_id is 100 and its file_name .*0101.jpg.* two images', 'bad row'),
    ('native', set_in('train', 1, sentences=[dict(sent='a', sent_id=None)]), 'a sentence needs',
     'bad sentence'),
    ('benchmark', set_in('train', 1, ref_list=None), 'ref_list is None; a list', 'bad row'),
    ('benchmark', set_in('train', 1, ref_list=[None]), 'a reference is a record, got None',
     'bad row'),
    ('masks', in_sample(mask=None), 'empty or unknown segmentation', 'bad annotation'),
    ('masks', in_sample(mask=dict(size=[20, 30], counts=None)), 'RLE counts None',
     'bad annotation'),
    ('masks', in_sample(mask=dict(size=[21, 30], counts='abc')), r'RLE size \[21, 30\]',
     'bad annotation'),
])
def test_bad_rows_are_an_error_or_counted(tmp_path, form, edit, message, reason):
    root = mirror(tmp_path, form, edit)
    with pytest.raises(ValueError, match=message) as error:
        build(root)
    assert '\n' not in str(error.value)
    dataset = build(root, bad_samples='skip')
    assert dict(dataset.skipped).keys() == {reason}
    assert len(dataset) + dataset.skipped.total() == dataset.read


@pytest.mark.parametrize('form, edit', [('flat', again), ('native', again),
                                        ('masks', same_sample)])
@pytest.mark.parametrize('bad_samples', ['error', 'skip'])
def test_a_row_that_is_there_twice_is_read_once(tmp_path, form, edit, bad_samples):
    dataset = build(mirror(tmp_path, form, edit), bad_samples=bad_samples)
    assert len(dataset) == 8 and dict(dataset.skipped) == {'row that is there twice': 2}
    assert len({dataset.get_data_info(k)['text'] for k in range(8)}) == 8


def rle_rows(tmp_path, mask):
    """One row of columns of one's own, its mask as it is given."""
    make_set(tmp_path, suffix='json')
    row, = (row for row in rows_of(tmp_path, 'refcoco', 'flat', 'train2014')['train'][:1])
    value = mask(rle_of(dict(segmentation=[row['segmentation']]), dict(height=20, width=30)))
    table = pyarrow.table(dict(
        text=[row['answer'][0]], mask=[value], h=[20], w=[30], photo=[row['image']['bytes']]))
    path = tmp_path / 'hub' / 'mine' / 'train.parquet'
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(table, path)
    return tmp_path / 'hub'


RUNS = [45] + [10] * 19 + [365]  # of the square of columns 2 to 11 and rows 5 to 14


@pytest.mark.parametrize('mask', [
    lambda rle: rle,
    lambda rle: dict(size=rle['size'], counts=rle['counts'].encode()),
    lambda rle: dict(size=[20, 30], counts=RUNS),
    json.dumps,
    lambda rle: rle['counts'],
    lambda rle: RUNS,
    lambda rle: json.dumps([[2, 5, 12, 5, 12, 15, 2, 15]]),
    lambda rle: [[2, 5, 12, 5, 12, 15, 2, 15]],
    lambda rle: [2, 5, 12, 5, 12, 15, 2, 15],
], ids=['struct', 'bytes', 'runs in a struct', 'json', 'bare counts', 'bare runs', 'json polygons',
        'polygons', 'flat polygon'])
def test_masks_in_any_form_and_columns_of_ones_own(tmp_path, mask):
    source = dict(name='mine', split='train', columns=dict(
        sentences='text', segmentation='mask', height='h', width='w', image='photo'))
    data = build(rle_rows(tmp_path, mask), [source])[0]['data_samples']
    found = data.gt_masks.masks[0]
    assert found.sum() == 100 and found[5:15, 2:12].all()
    assert data.text == 'refcoco 100 0 0' and data.img_path.endswith('train.parquet#photo.0')


def test_a_picture_may_be_a_name_of_a_file(tmp_path):
    names = [None, 'x/COCO_train2014_000000000100.jpg']

    def edit(rows):
        rows['train'][0]['image'] = dict(bytes=None, path=names[0])
        rows['train'][1]['image'] = dict(bytes=None, path=names[1])
    root = mirror(tmp_path, 'flat', edit)
    native = build(tmp_path)
    dataset = build(root)
    assert {Path(dataset.get_data_info(k)['img_path']).name for k in range(4)} == {
        'COCO_train2014_000000000100.jpg'}
    assert '.parquet#image.2' in dataset.get_data_info(4)['img_path']
    for k in range(8):
        assert (dataset[k]['inputs'] == native[k]['inputs']).all()


# Samples


@pytest.mark.parametrize('form, name', [*((form, 'refcoco') for form in FORMS),
                                        ('native', 'refcocog'), ('native', 'refcoco+')])
def test_samples_are_those_of_the_native_files(real_data, tmp_path, form, name):
    real = real_data / 'refcoco_mini'
    splits = ['val', 'test'] if name == 'refcocog' else ['val', 'testB']
    write_mirror(real, tmp_path / name, name, form, label=lambda split: HUB.get(split, split))
    (tmp_path / 'images').symlink_to(real / 'images')
    query = dict(tasks=dict(text2mask=1, text2box=1), codec=dict(grammar='int1000'))
    sets = [build(root, [dict(name=name, split=splits, img_dir='images')], query=query)
            for root in (real, tmp_path)]
    assert len(sets[0]) == len(sets[1]) == dict(refcocog=9, refcoco=29).get(name, 27)
    keys = ['img_id', 'image_id', 'text', 'prompt', 'answer', 'turns', 'task', 'codec',
            'ori_shape', 'source', 'split', 'read_as']
    keys += ['ref_id', 'sent_id', 'ann_id', 'instances'] if form in ('native', 'benchmark') else []
    for one, other in zip(*sets):
        assert (one['inputs'] == other['inputs']).all()
        one, other = one['data_samples'], other['data_samples']
        assert (one.gt_masks.masks == other.gt_masks.masks).all()
        assert {key: one.get(key) for key in keys} == {key: other.get(key) for key in keys}
    assert all(info['img_path'].startswith(str(tmp_path)) for info in map(
        sets[1].get_data_info, range(len(sets[1]))))


@pytest.mark.parametrize('form', ['benchmark', 'masks'])
def test_pictures_are_read_when_a_sample_is(tmp_path, monkeypatch, form):
    read = []
    inside = pictures.read_inside
    monkeypatch.setattr(pictures, 'read_inside', lambda path: read.append(path) or inside(path))
    dataset = build(mirror(tmp_path, form))
    assert not read
    dataset[5]
    assert [Path(path).name for path in read] == ['train-00000-of-00001.parquet#image.1']


def test_workers_read_what_one_process_does(tmp_path):
    root = mirror(tmp_path, 'flat')

    def texts(workers: int) -> list:
        loader = Runner.build_dataloader(dict(
            batch_size=2, num_workers=workers,
            sampler=dict(type='simpleseg_mm.InfiniteVisitSampler'),
            collate_fn=dict(type='collate_queries'),
            dataset=dict(type='simpleseg_mm.RefCOCODataset', data_root=str(root),
                         sources=[dict(name='refcoco', split='train')])), seed=3)
        loader.dataset[0]  # the parent has the file open when it forks
        batches = iter(loader)
        return [(sample.text, picture.float().mean().item()) for _ in range(8)
                for batch in [next(batches)]
                for sample, picture in zip(batch['data_samples'], batch['inputs'])]

    assert texts(0) == texts(2)


def test_numbers_of_32_bits_are_the_decimals_that_they_stand_for(tmp_path):
    numbers = [267.3, 1.1, 0.05, 639.99]
    table = pyarrow.table(dict(
        a=pyarrow.array([numbers], pyarrow.list_(pyarrow.float32(), 4)),
        b=pyarrow.array([[dict(c=numbers)]], pyarrow.list_(pyarrow.struct([
            ('c', pyarrow.list_(pyarrow.float32()))]))), d=[numbers]))
    pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
    assert [*parquet_rows(tmp_path / 'a.parquet', ['a', 'b', 'd'])] == [
        dict(a=numbers, b=[dict(c=numbers)], d=numbers)]


def test_rows_in_any_order_and_by_threads(tmp_path):
    rows = [dict(image=dict(bytes=bytes([k, k]), path=None)) for k in range(100)]
    path = write_rows_as(tmp_path / 'a.parquet', rows, 'flat', group=30)
    address = [f'{path}#image.{k}' for k in range(100)]
    order = [*range(100), *reversed(range(100)), *random.Random(0).sample(range(100), 60)]
    assert all(pictures.bytes_of_picture(address[k]) == bytes([k, k]) for k in order)
    with ThreadPoolExecutor(4) as pool:
        assert [raw[0] for raw in pool.map(pictures.bytes_of_picture, address)] == [*range(100)]
    write_rows_as(tmp_path / 'b.parquet', [dict(image=None)], 'flat')
    for row, message in ((0, 'row 0 of .*b.parquet holds no picture'), (7, 'has no row 7')):
        with pytest.raises(OSError, match=message):
            pictures.bytes_of_picture(tmp_path / f'b.parquet#image.{row}')


def test_a_broken_picture_is_an_error_when_read_and_can_be_left_out(run, tmp_path):
    root = mirror(tmp_path, 'benchmark', picture(b'not an image', 'x.jpg'))
    with pytest.raises(ValueError, match='refcoco train, ref_id 2.*cannot read .*parquet#image.1'):
        build(root)[4]
    bad = tmp_path / 'bad.txt'
    code, report, out = run(REFCOCO, 'verify', root, '--bad-images', bad)
    assert code == 1 and report['faults']['images'] == 1
    assert 'broken image' in out and 'parquet#image.1' in out
    assert bad.read_text() == 'COCO_train2014_000000000101.jpg\n'
    dataset = build(root, skip_images=str(bad))
    assert len(dataset) == 4 and dict(dataset.skipped) == {'listed in skip_images': 4}


def test_other_tools_get_a_copy(tmp_path):
    sample = build(mirror(tmp_path, 'flat'))[0]
    path, pixels = sample['data_samples'].img_path, sample['inputs'].permute(1, 2, 0).numpy()
    with pytest.raises(LeftOut, match='inside another file'):
        PicturePaths(tmp_path / 'copies', 'never').of(path, '100', pixels)
    copied = PicturePaths(tmp_path / 'copies', 'needed').of(path, '100', pixels)
    assert (np.asarray(Image.open(copied)) == pixels).all()
    assert Image.open(io.BytesIO(pictures.bytes_of_picture(path))).size == (30, 20)


# Sets


def test_native_files_are_preferred_and_parquet_can_be_asked_for(tmp_path, caplog):
    root = mirror(tmp_path, 'native', again)
    (root / 'refcoco' / 'refs(unc).json').write_bytes(
        (tmp_path / 'refcoco' / 'refs(unc).json').read_bytes())
    (root / 'refcoco' / 'instances.json').write_bytes(
        (tmp_path / 'refcoco' / 'instances.json').read_bytes())
    assert not build(root).skipped
    assert build(root, [dict(name='refcoco', split='train', parquet='refcoco')]).skipped


def test_one_folder_of_several_sets(tmp_path):
    """As jxu124/refcoco-benchmark has them: by the names of its files."""
    for name, split_by, first in (('refcoco', 'unc', 100), ('refcoco+', 'unc', 200)):
        make_set(tmp_path, name, split_by, 'json', first_image=first)
        title = name.replace('+', '_plus')
        mirror(tmp_path, 'benchmark', label=lambda split: f'{title}_{split_by}_{split}',  # noqa: B023
               folder='hub/benchmark', name=name)
    root = tmp_path / 'hub'
    sources = [dict(name=name, split='val', parquet='benchmark')
               for name in ('refcoco', 'refcoco+')]
    dataset = build(root, sources)
    assert [dataset.get_data_info(k)['image_id'] for k in range(0, 8, 4)] == [102, 202]
    with pytest.raises(FileNotFoundError, match=r"no parquet files of refcoco google; it holds "
                       r"\['refcoco unc', 'refcoco\+ unc'\]"):
        build(root, [dict(sources[0], split_by='google')])


@pytest.mark.parametrize('form', ['native', 'flat'])
def test_images_of_eval_splits_are_removed_from_train(tmp_path, form):
    for name, split_by, first in (('refcoco', 'unc', 100), ('refcoco+', 'unc', 99),
                                  ('refcocog', 'umd', 300)):
        def more(refs, images, annotations):
            extra = dict(refs[-1], ref_id=90, split='testB' if name != 'refcocog' else 'test',  # noqa: B023
                         sentences=[dict(sent='more', sent_id=99)])
            annotations.append(dict(annotations[-1], id=77))
            refs.append(dict(extra, ann_id=77))
        make_set(tmp_path, name, split_by, 'json', first_image=first, edit=more)
        mirror(tmp_path, form, folder=f'hub/{name}', name=name)
    # val of refcoco+ is image 101, which is a train image of refcoco
    dataset = build(tmp_path / 'hub', exclude_eval_images=True)
    assert len(dataset) == 4 and dict(dataset.skipped) == {'image of an eval split': 4}
    assert {dataset.get_data_info(k)['image_id'] for k in range(4)} == {100}
    for path in (tmp_path / 'hub' / 'refcoco+').rglob('testB-*'):
        path.unlink()
    with pytest.raises(ValueError, match=r"hub/refcoco\+ holds no split \['testB'\].*would stay"):
        build(tmp_path / 'hub', exclude_eval_images=True)


def test_photos_without_an_id_of_coco_cannot_be_checked(tmp_path):
    def edit(rows):
        for row in sum(rows.values(), []):
            row.update(file_name='photo.jpg')
    root = mirror(tmp_path, 'flat', edit)
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists' / 'a.txt').write_text('COCO_train2014_000000000100\n')
    with pytest.raises(ValueError, match="has the image 'photo.jpg', which is not told by COCO"):
        build(root, exclude_eval_images=str(tmp_path / 'lists'), bad_samples='skip')


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('as_root', [True, False])
def test_verify_says_counts_and_what_is_lacking(run, tmp_path, form, as_root):
    root = mirror(tmp_path, form)
    code, report, out = run(REFCOCO, 'verify', root / 'refcoco' if as_root else root)
    assert code == 1 and report['faults'] == dict(counts=3, annotations=0, images=0)
    assert report['sets'] == {'refcoco:unc': dict(
        train=[4, 8, 2], val=[2, 4, 1], testA=[2, 4, 1])} and report['images_checked'] == 4
    lacks = report['lacks']['refcoco:unc']
    assert lacks[0] == 'split testB' and len(lacks) == 1 + (form == 'native')
    assert 'expected (42404, 120624, 16994)' in out and 'it lacks split testB' in out


@pytest.mark.parametrize('edit, faults, said', [
    (again, dict(counts=3, annotations=0, images=0),
     'row that is there twice: 1 are left out in any case'),
    (set_in('train', 1, segmentation=[16, 5, 26, 5, 26, 11, 16, 11]),
     dict(counts=3, annotations=1, images=0), 'the file holds one part of several'),
])
def test_verify_counts_rows(run, tmp_path, edit, faults, said):
    code, report, out = run(REFCOCO, 'verify', mirror(tmp_path, 'flat', edit))
    assert report['faults'] == faults and said in out
    assert report['rows_twice'] == (edit is again)


@pytest.mark.parametrize('change, message', [
    (truncate, 'no whole parquet file'), (only_boxes, 'has no masks, only boxes'),
    (other_columns, 'is of no form that is known'),
    (rename('train-00001-of-00002.parquet'), 'holds 1 of 2 parts')])
def test_verify_of_files_that_cannot_be_used(run, tmp_path, change, message):
    root = mirror(tmp_path)
    for path in sorted(root.rglob('*.parquet')):
        if path.name.startswith('train'):
            change(path)
        else:
            path.unlink()
    code, report, out = run(REFCOCO, 'verify', root)
    assert code == 1 and not report['ok'] and message in out + report.get('error', '')
