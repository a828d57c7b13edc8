"""The dataset of docs/own_dataset.md, and what QueryDataset does for it and for every sibling."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from simpleseg_mm import datasets
from simpleseg_mm.datasets import BadSample, QueryDataset, RawRecord
from simpleseg_mm.registry import DATASETS

PAGE = Path(__file__).resolve().parents[1] / 'docs/own_dataset.md'
H, W = 20, 30
SQUARE = [[2, 5, 12, 5, 12, 15, 2, 15]]  # 100 pixels
OTHER = [[15, 5, 20, 5, 20, 15, 15, 15]]  # 50 pixels
ROW = dict(image='a.png', sentence='the cat', segmentations=[SQUARE])


@pytest.fixture(scope='module')
def shown():
    """The page's dataset."""
    block = re.search(r'`my_dataset.py`:\n\n```python\n(.*?)```', PAGE.read_text(), re.S)[1]
    assert len(block.splitlines()) < 30
    names = {}
    exec(compile(block, 'my_dataset.py', 'exec'), names)
    yield names['JsonLinesDataset']
    DATASETS.module_dict.pop('JsonLinesDataset')


def write(folder, *rows, size=(W, H)):
    for name in ('a.png', 'b.png'):
        if not (folder / name).exists():
            Image.new('RGB', size, (80, 0, 0)).save(folder / name)
    (folder / 'q.jsonl').write_text('\n'.join(
        row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(folder)


@pytest.fixture
def build(shown, tmp_path):
    def build(*rows, **kwargs):
        return shown(write(tmp_path, *rows), 'q.jsonl', **kwargs)
    return build


def but(**changes):
    return {key: value for key, value in (ROW | changes).items() if value is not ...}


RLE = coco_mask.encode(np.asfortranarray(np.eye(H, W, dtype=np.uint8)))


@pytest.mark.parametrize('row, reason, message', [
    ('{"image": ', 'bad record', 'Expecting value'),
    ('[1, 2]', 'bad record', 'it is not as expected .TypeError'),
    ('3', 'bad record', 'it is not as expected .TypeError'),
    ('[' * 100_000, 'bad record', 'it is not as expected .RecursionError'),
    (but(image=...), 'bad record', "it has no 'image'"),
    (but(sentence=...), 'bad record', "it has no 'sentence'"),
    (but(segmentations=...), 'bad record', "it has no 'segmentations'"),
    (but(image=3), 'bad record', 'an image is a file name, got 3'),
    (but(image=' '), 'bad record', "an image is a file name, got ' '"),
    (but(image='a\0.png'), 'image file missing or empty', 'there is no image'),
    (but(image='none.png'), 'image file missing or empty', 'there is no image .*none.png'),
    (but(image='empty.png'), 'image file missing or empty', 'empty.png is an empty file'),
    (but(image='folder'), 'image file missing or empty', 'folder is no file'),
    (but(image='text.png'), 'bad record', 'cannot read .*text.png'),
    (but(sentence=['x']), 'bad record', r"must be a text, got \['x'\]"),
    (but(segmentations='x'), 'bad annotation', "segmentations must be a list, got 'x'"),
    (but(segmentations=None), 'bad annotation', 'segmentations must be a list, got None'),
    (but(segmentations=[None]), 'bad annotation', 'object 0: segmentation is None'),
    (but(segmentations=[SQUARE, []]), 'bad annotation', 'object 1: empty or unknown'),
    (but(segmentations=[[[1, 2, 3, 4]]]), 'bad annotation', 'object 0: degenerate polygon'),
    (but(segmentations=[[[1, 2, 3, 4, 'x', 6]]]), 'bad annotation', 'object 0: '),
    (but(segmentations=[[[1, 2, 3, 4, 1e99, 6]]]), 'bad annotation', 'object 0: '),
    (but(segmentations=[[[1, 1, 1.1, 1, 1.1, 1.1]]]), 'bad annotation', 'the mask is empty'),
    (but(segmentations=[[[90, 90, 95, 90, 95, 95]]]), 'bad annotation', 'the mask is empty'),
    (but(segmentations=[dict(size=[9, 9], counts=[81])]), 'bad annotation', r'RLE size \[9, 9\]'),
    (but(segmentations=[dict(size=[H, W], counts=[5, 5])]), 'bad annotation', 'RLE of 10 pixels'),
])
def test_a_broken_record_is_named_or_counted(build, tmp_path, row, reason, message):
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('no picture')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ValueError, match=rf'q\.jsonl, line 2: .*{message}') as caught:
        build(ROW, row)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 1000
    assert "bad_samples='skip'" in str(caught.value)
    data = build(ROW, row, ROW, bad_samples='skip')
    assert len(data) == 2 and data.read == 3 and dict(data.skipped) == {reason: 1}
    assert [data.get_data_info(k)['img_id'] for k in range(2)] == [0, 1]


def test_a_blank_sentence_is_left_out_in_any_case(build):
    data = build(ROW, but(sentence=' \u200b'), '')
    assert (len(data), data.read, dict(data.skipped)) == (1, 2, {'blank sentence': 1})


def test_nothing_left_and_no_file(build, shown, tmp_path):
    with pytest.raises(ValueError, match="no sample is left.*'bad record': 1"):
        build('{', bad_samples='skip')
    with pytest.raises(ValueError, match='no sample is left'):
        build('')
    with pytest.raises(FileNotFoundError, match='none.jsonl'):
        shown(str(tmp_path), 'none.jsonl')


@pytest.mark.parametrize('kwargs, message', [
    (dict(bad_samples='maybe'), "bad_samples must be 'error' or 'skip'"),
    (dict(meta_keys='kind'), 'meta_keys must be a list'),
    (dict(query=dict(tasks=dict(text2nothing=1))), 'unknown tasks'),
])
def test_bad_arguments(build, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(ROW, **kwargs)


def test_samples(build):
    sizes = dict(size=[H, W], counts=RLE['counts'].decode())
    data = build(ROW, but(image='b.png', segmentations=[SQUARE, OTHER]),
                 but(sentence='no dog', segmentations=[]), but(segmentations=[sizes]),
                 but(segmentations=[SQUARE[0]]), test_mode=True,
                 query=dict(tasks=dict(text2box=1), codec=dict(grammar='int100')))
    samples = [data[k]['data_samples'] for k in range(5)]
    assert [int(sample.gt_masks.masks.sum()) for sample in samples] == [100, 150, 0, 20, 100]
    assert samples[0].answer == '[7,25,40,75]' and samples[1].answer == '[7,25,67,75]'
    assert samples[2].answer == '[]'
    assert samples[0].prompt == 'Output the bounding box of the cat in the image.'
    assert [sample.img_id for sample in samples] == [0, 1, 2, 3, 4]
    assert {(sample.source, sample.split) for sample in samples} == {('JsonLinesDataset', 'all')}
    assert data[0]['inputs'].shape == (3, H, W) and data.skipped == {} and data.read == 5


def test_a_config_builds_it_joins_it_and_takes_a_part_of_it(shown, tmp_path):
    rows = [but(sentence=f'cat {k}', image='ab'[k % 2] + '.png') for k in range(8)]
    config = dict(type='JsonLinesDataset', data_root=write(tmp_path, *rows), lines='q.jsonl')
    whole, some = DATASETS.build(config), DATASETS.build(config | dict(indices=[5, 2]))
    assert [some[k]['data_samples'].text for k in range(2)] == ['cat 5', 'cat 2']
    assert some[1]['data_samples'].prompt == whole[2]['data_samples'].prompt
    joined = DATASETS.build(dict(type='JoinedDataset', datasets=[config, config]))
    assert len(joined) == 16 and joined[11]['data_samples'].text == 'cat 3'
    left = DATASETS.build(config | dict(skip_images=['a.png', 'z.png']))
    assert len(left) == 4 and dict(left.skipped) == {'listed in skip_images': 4}


@pytest.mark.parametrize('serialize', [True, False])
def test_visits_turns_and_subsets(build, serialize):
    rows = [but(sentence=f'cat {k}', image='ab'[k % 2] + '.png') for k in range(8)]
    tasks = dict(text2mask=1, point2box=1, text2point=1)
    data = build(*rows, query=dict(tasks=tasks, turns=3), seed=4, serialize_data=serialize)
    prompts = [data[k]['data_samples'].turns for k in range(8)]
    assert prompts == [data[k]['data_samples'].turns for k in range(8)]
    assert prompts != [data[k + 8]['data_samples'].turns for k in range(8)]
    for number, turns in enumerate(prompts):
        assert len(turns) == 3
        named = {int(n) for prompt, _ in turns for n in re.findall(r'cat (\d)', prompt)}
        assert {n % 2 for n in named} <= {number % 2}  # of the same picture
    part = data.get_subset([1, 3])
    assert len(part) == 2 and part[1]['data_samples'].text == 'cat 3'


class Numbered(QueryDataset):
    """Rows with ids and a column of their own."""

    def __init__(self, data_root, rows, **kwargs):
        self.rows = rows
        super().__init__(data_root, **kwargs)

    def read_records(self):
        for number, row in enumerate(self.rows):
            yield RawRecord(f'row {number}', row, samples=2)

    def parse_data_info(self, raw):
        if 'fault' in raw.content:
            raise BadSample(raw.content['fault'], 'a fault of its own')
        return [self.make_record('a.png', f'{text} {raw.where}', [SQUARE], sent_id=number,
                                 size=(H, W), **raw.content)
                for number, text in enumerate(('cat', 'dog'))]


def numbered(tmp_path, *rows, **kwargs):
    return Numbered(write(tmp_path), rows, **kwargs)


def test_ids_that_stand_twice_are_refused_both(tmp_path):
    rows = dict(ref_id=7), dict(ref_id=8), dict(ref_id=7), dict(ref_id=7, split='val')
    with pytest.raises(ValueError, match='row 0 and row 2: both have ref_id 7 and sent_id 0'):
        numbered(tmp_path, *rows)
    data = numbered(tmp_path, *rows, bad_samples='skip')
    assert (len(data), data.read, dict(data.skipped)) == (4, 8, {'id used twice': 4})
    assert [data.get_data_info(k)['ref_id'] for k in range(4)] == [8, 8, 7, 7]
    assert [data.get_data_info(k)['img_id'] for k in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='row 0: it is not as expected .TypeError: unhashable'):
        numbered(tmp_path, dict(ref_id=[7]))


def test_a_record_counts_as_its_samples(tmp_path):
    data = numbered(tmp_path, dict(ref_id=1), dict(fault='no good'), dict(fault=None),
                    bad_samples='skip')
    assert (len(data), data.read, dict(data.skipped)) == (2, 6, {'a fault of its own': 4})
    data = numbered(tmp_path, dict(ref_id=1), dict(fault=None))  # left out by rule
    assert (len(data), data.read) == (2, 4)
    with pytest.raises(ValueError, match='row 1: no good. Mend the files'):
        numbered(tmp_path, dict(ref_id=1), dict(fault='no good'))


@pytest.mark.parametrize('changes, message', [
    (dict(read_records=lambda self: [dict(ref_id=1)]), r'must give RawRecord\(where, content\)'),
    (dict(parse_data_info=lambda self, raw: None), 'must return a record or a list of records'),
])
def test_a_set_that_gives_something_else(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f'Other.{next(iter(changes))} {message}'):
        type('Other', (Numbered,), changes)(write(tmp_path), [{}])


def test_records_may_be_made_otherwise(tmp_path):
    """As MMEngine's sets do: the whole list at once."""
    class Whole(QueryDataset):
        def load_data_list(self):
            return [dict(img_path=f'{self.data_root}/a.png', img_id=k, image_id=0, ref_id=k,
                         sent_id=0, ann_id=k, text=f'cat {k}', height=H, width=W, split='x',
                         source='y', instances=[dict(bbox=[2, 5, 12, 15], mask=SQUARE)])
                    for k in range(3)]

    data = Whole(write(tmp_path), query=dict(turns=3))
    assert len(data) == 3 and len(data[1]['data_samples'].turns) == 3


def test_meta_keys_carry_a_column(tmp_path):
    rows = dict(ref_id=1, hard=True, area=5), dict(ref_id=2, hard=False)
    data = numbered(tmp_path, *rows, meta_keys=['hard'])
    assert [data[k]['data_samples'].hard for k in (0, 2)] == [True, False]
    assert 'area' not in data[0]['data_samples'] and data[0]['data_samples'].ref_id == 1
    data = numbered(tmp_path, *rows, meta_keys=['area'])
    assert data[0]['data_samples'].area == 5
    with pytest.raises(ValueError, match=r"ref_id 2.*meta_keys names \['area'\]"):
        data[2]


def test_the_size_is_that_of_the_pipelines_picture(shown, tmp_path):
    folder = write(tmp_path, but(segmentations=[[[2, 22, 12, 22, 12, 28, 2, 28]]]))
    image, exif = Image.new('RGB', (W, H)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    (tmp_path / 'q.jsonl').write_text((tmp_path / 'q.jsonl').read_text().replace('.png', '.jpg'))
    upright = [dict(type='LoadImage', orientation='upright'), dict(type='LoadTargetMask')]
    data = shown(folder, 'q.jsonl', pipeline=upright)
    assert data[0]['inputs'].shape == (3, W, H)
    assert data[0]['data_samples'].gt_masks.masks.shape == (1, W, H)
    with pytest.raises(ValueError, match='the mask is empty'):  # below the picture as stored
        shown(folder, 'q.jsonl')


SETS = ('RefCOCODataset', 'CocoQueryDataset', 'ReasonSegDataset', 'AnnotatedShardsDataset',
        'QuestionAnsweringDataset')


@pytest.mark.parametrize('name', SETS)
def test_the_sets_are_siblings(name):
    one = getattr(datasets, name)
    assert one.__bases__ == (QueryDataset,) and DATASETS.get(name) is one
    common = {'load_data_list', 'full_init', 'get_data_info', '__getitem__', 'prepare_data',
              'get_subset', 'get_subset_', '__len__'}
    assert not common & vars(one).keys()


@pytest.mark.parametrize('options', [dict(bad_samples='skip'), dict(skip_images=['a.png'])])
def test_shards_say_what_they_cannot_leave_out(tmp_path, options):
    with pytest.raises(ValueError, match="take neither bad_samples='skip' nor skip_images"):
        datasets.AnnotatedShardsDataset(str(tmp_path), **options)


def test_broken_questions_are_counted(tmp_path):
    good = dict(image='a.png', question='What?', kind='naming', answers=['a cat'])
    rows = good, good | dict(kind=3), '{', good | dict(image='none.png'), good | dict(
        question='Where?', answers=None, box=[1, 1, 99, 9])
    root = write(tmp_path, *rows)
    data = datasets.QuestionAnsweringDataset(root, 'q.jsonl', bad_samples='skip')
    assert (len(data), data.read) == (1, 5)
    assert dict(data.skipped) == {'bad question': 2, 'image file missing or empty': 1,
                                  'bad record': 1}
    assert data.counts() == dict(naming=1, overall=1)
    left = datasets.QuestionAnsweringDataset(
        write(tmp_path, good, good | dict(image='b.png')), 'q.jsonl', skip_images=['b.png'])
    assert dict(left.skipped) == {'listed in skip_images': 1} and len(left) == 1
