"""Training queries written for other trainers, and read back as those read them."""
import contextlib
import importlib
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from PIL import Image

import simpleseg_mm.datasets  # noqa: F401 (registers sets)
from simpleseg_mm.config import read_config
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.datasets.shape_questions import write_questions
from simpleseg_mm.datasets.transforms import META_KEYS
from simpleseg_mm.export.chat import TRAINERS
from simpleseg_mm.export.chat_rows import ChatRows
from simpleseg_mm.export.picture_paths import PicturePaths
from simpleseg_mm.export.tables import write_rows
from simpleseg_mm.files import load_image
from simpleseg_mm.polygon import codec_of, mask_to_rle, rle_to_mask
from simpleseg_mm.registry import DATASETS
from simpleseg_mm.rl import (PolygonReward, ms_swift_reward, read_truth, trl_reward, verl_reward)

ROOT = Path(__file__).resolve().parents[1]
TOOL = 'dataset_converters/to_chat.py'
MIXED = dict(text2mask=2.0, point2mask=1.0, box2mask=1.0, text2box=1.0, box2text=1.0,
             text2extreme=1.0)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes')
    generate(out, dict(train=5, val=2), seed=3, size=112, absent=.4)
    rows = write_questions(out, 'train', ['colour', 'grounding'], limit=4)
    (out / 'questions.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return out


@pytest.fixture(scope='module')
def configs(shapes, tmp_path_factory):
    """Files of configs by name."""
    folder = tmp_path_factory.mktemp('configs')
    base = f'_base_ = {str(ROOT / "configs/_base_/datasets/refshapes.py")!r}\n'
    query = "query=dict(type='FormatQuery', codec={codec}, tasks={tasks}, turns={turns})"
    own = f"type='RefShapesDataset', data_root={str(shapes)!r}, split='train'"
    coarse, fine = "dict(grammar='int100', tokens=40)", "dict(grammar='decimal3', preset='paper')"
    asked = [query.format(codec=codec, tasks=MIXED, turns=turns)
             for codec, turns in ((coarse, 1), (coarse, 3), (fine, 1))]
    questions = (f"type='QuestionAnsweringDataset', data_root={str(shapes)!r}, "
                 f"questions='questions.jsonl', query=dict(codec={coarse})")
    texts = dict(
        plain=base + f'train_dataloader = dict(dataset=dict({own}, {asked[0]}))\n'
        f'val_dataloader = dict(dataset=dict(data_root={str(shapes)!r}))\n',
        turns=base + f'train_dataloader = dict(dataset=dict({own}, {asked[1]}))\n'
        "model = dict(mllm=dict(system_prompt='You draw.', min_pixels=784, max_pixels=12544))\n",
        questions=f'train_dataloader = dict(dataset=dict({questions}))\n',
        joined=f"train_dataloader = dict(dataset=dict(type='JoinedDataset', datasets=[dict({own}, "
        f"{asked[0]}), dict({own}, {asked[2]}), dict({questions})]))\n",
        words=f'train_dataloader = dict(dataset=dict({questions}, indices=2))\n',
        nothing='model = dict()\n',
        val=f'val_dataloader = dict(dataset=dict({own}))\n')
    for name, text in texts.items():
        (folder / f'{name}.py').write_text(text)
    return {name: folder / f'{name}.py' for name in texts}


@pytest.fixture
def convert(run, configs, tmp_path):
    """Runs the tool; returns its exit code, its last line and all that it says."""
    def convert(name, out, trainer, stage, *more):
        return run(TOOL, configs.get(name, name), tmp_path / out, '--for', trainer, '--stage',
                   stage, *more)
    return convert


def dataset_of(path):
    cfg = read_config(str(path))
    init_default_scope('simpleseg_mm')
    return DATASETS.build(cfg.train_dataloader.dataset)


def read_back(path):
    if path.suffix == '.jsonl':
        return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    parquet = pytest.importorskip('pyarrow.parquet')
    return parquet.read_table(path).to_pylist()


# --- refused ---------------------------------------------------------------------------------
@pytest.mark.parametrize('name, out, trainer, stage, more, message', [
    ('nothing', 'a.jsonl', 'trl', 'sft', (), 'no train_dataloader.dataset; give a config of'),
    ('val', 'a.jsonl', 'trl', 'sft', (), r'no train_dataloader.dataset; it has --split val'),
    ('gone.py', 'a.jsonl', 'trl', 'sft', (), 'no config gone.py'),
    ('plain', 'there.jsonl', 'trl', 'sft', (), 'there.jsonl exists; give another name'),
    ('plain', 'a.json', 'trl', 'sft', (), r"ends in .jsonl or .parquet, not in '.json'"),
    ('plain', 'a', 'trl', 'sft', (), 'ends in .jsonl or .parquet'),
    ('plain', 'a.jsonl', 'verl', 'sft', (), 'verl reads .parquet alone at --stage sft'),
    ('plain', 'a.jsonl', 'llama-factory', 'rl', (), 'no training on a rule reward.*ms-swift, ver'),
    ('plain', 'a.jsonl', 'trl', 'rl', ('--visits', '0'), '--visits 0: give a number from 1 on'),
    ('plain', 'a.jsonl', 'trl', 'rl', ('--limit', '-3'), '--limit -3: give a number from 1 on'),
    ('plain', 'a.jsonl', 'trl', 'rl', ('--relative-to', '/gone'), '/gone: there is no such fold'),
    ('plain', 'copies.jsonl', 'trl', 'rl', ('--pictures', 'all'), 'copies_pictures exists'),
    ('plain', 'listed/a.jsonl', 'llama-factory', 'sft', (), "has a set 'a' already"),
    ('plain', 'broken/a.jsonl', 'llama-factory', 'sft', (), 'dataset_info.json'),
    ('plain', 'numbers/a.jsonl', 'llama-factory', 'sft', (), 'is no list of sets'),
    ('words', 'a.jsonl', 'trl', 'rl', (), r'none of 2 samples can be written .*answered in words'),
])
def test_bad_requests(convert, tmp_path, name, out, trainer, stage, more, message):
    (tmp_path / 'there.jsonl').write_text('')
    (tmp_path / 'copies_pictures').mkdir()
    for folder, text in dict(listed='{"a": {"file_name": "b.json"}}', broken='{',
                             numbers='[1]').items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'dataset_info.json').write_text(text)
    before = sorted(tmp_path.rglob('*'))
    code, _, said = convert(name, out, trainer, stage, *more)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith('ERROR: ')
    assert re.search(message, last), last
    assert sorted(tmp_path.rglob('*')) == before  # nothing is left behind


def test_unknown_trainer(convert, capsys):
    code, _, _ = convert('plain', 'a.jsonl', 'deepspeed-chat', 'sft')
    assert code == 2


def test_parquet_without_pyarrow(convert, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    code, _, said = convert('plain', 'a.parquet', 'trl', 'sft')
    assert (code, said.strip()) == (2, 'ERROR: Parquet needs pyarrow: pip install pyarrow; a file '
                                       'that ends in .jsonl needs nothing')
    assert convert('plain', 'a.jsonl', 'trl', 'sft', '--limit', '1')[0] == 0


# --- rows are what this package trains on -----------------------------------------------------
def expected_messages(sample, mark, stage, system=None):
    said = [] if system is None else [dict(role='system', content=system)]
    for number, (prompt, answer) in enumerate(sample.turns):
        said.append(dict(role='user', content=prompt if number else mark + prompt))
        if stage == 'rl':
            return said
        said.append(dict(role='assistant', content=answer))
    return said


FORMS = [(trainer, stage, suffix) for trainer in TRAINERS for stage in ('sft', 'rl')
         for suffix in ('jsonl', 'parquet') if stage in TRAINERS[trainer].stages
         and (suffix == 'parquet' or stage not in TRAINERS[trainer].parquet_only)]


@pytest.mark.parametrize('trainer, stage, suffix', FORMS)
def test_rows_are_the_samples_of_training(convert, configs, tmp_path, trainer, stage, suffix):
    code, last, said = convert('turns', f'a.{suffix}', trainer, stage, '--visits', '2')
    assert code == 0, said
    dataset = dataset_of(configs['turns'])
    assert last['samples'] == last['rows'] == 2 * len(dataset) == 2 * last['dataset']
    assert last['left_out'] == {} and last['pictures_copied'] == 0
    rows = read_back(tmp_path / f'a.{suffix}')
    assert len(rows) == last['rows'] and last['bytes'] == (tmp_path / f'a.{suffix}').stat().st_size
    mark = '' if trainer == 'trl' else '<image>'
    several = 0
    for index, row in enumerate(rows):
        sample = dataset[index]['data_samples']
        several += len(sample.turns) > 1
        messages = row['prompt' if stage == 'rl' and trainer != 'ms-swift' else 'messages']
        assert messages == expected_messages(sample, mark, stage, 'You draw.')
        texts = ''.join(message['content'] for message in messages)
        assert texts.count('<image>') == (len(row['images']) if mark else 0)
        picture, = row['images']
        if trainer == 'verl':
            assert (picture.pop('min_pixels'), picture.pop('max_pixels')) == (784, 12544)
            picture = picture['image']
        elif isinstance(picture, dict):
            assert picture.pop('bytes') is None
            picture = picture['path']
        assert picture == os.path.abspath(sample.img_path)
        if stage == 'rl':
            columns = row if trainer != 'verl' else dict(
                row['extra_info'], mask=row['reward_model']['ground_truth'])
            assert (columns['codec'], columns['task']) == (sample.codec, sample.task)
            assert np.array_equal(read_truth(columns['mask']), sample.gt_masks.masks[0] > 0)
            assert columns['text'] == sample.text
            assert columns['ref_id'] == json.dumps(sample.ref_id)
            if trainer == 'verl':
                assert (row['data_source'], row['reward_model']['style']) == (
                    sample.source, 'rule')
                assert (columns['index'], columns['prompt']) == (index, sample.prompt)
        else:
            assert set(row) == {'messages', 'images'}
    assert several > 5  # the config has turns
    assert ('note: samples have several turns' in said) == (stage == 'rl')
    assert 'note: pictures are resized by min_pixels=784, max_pixels=12544 here; ' in said
    first, second = rows[:len(dataset)], rows[len(dataset):]
    assert any(a != b for a, b in zip(first, second))  # drawn anew


@pytest.mark.parametrize('name, stage, rows, left_out', [
    ('questions', 'sft', 8, 0), ('questions', 'rl', 4, 4), ('joined', 'sft', None, 0),
    ('joined', 'rl', None, 4)])
def test_what_is_left_out_is_counted(convert, configs, tmp_path, name, stage, rows, left_out):
    code, last, said = convert(name, 'a.jsonl', 'ms-swift', stage)
    assert code == 0 and last['samples'] == len(dataset_of(configs[name]))
    assert last['samples'] == last['rows'] + sum(last['left_out'].values())
    assert (rows in (None, last['rows'])) and sum(last['left_out'].values()) == left_out
    assert ('left out 4: it is answered in words' in said) == bool(left_out)
    assert len(read_back(tmp_path / 'a.jsonl')) == last['rows']


def test_limit_and_split(convert, configs, tmp_path):
    _, last, _ = convert('plain', 'a.jsonl', 'trl', 'sft', '--limit', '3', '--visits', '4')
    assert (last['samples'], last['rows']) == (3, 3)
    _, last, _ = convert('plain', 'b.jsonl', 'trl', 'sft', '--split', 'val')
    assert last['rows'] == last['dataset'] > 3
    rows = read_back(tmp_path / 'b.jsonl')
    assert all(row['messages'][0]['content'].startswith('Output the polygon coordinates of')
               for row in rows)  # the first template, as in evaluation


def test_sets_listed_for_llama_factory(convert, tmp_path):
    (tmp_path / 'dataset_info.json').write_text('{"other": {"file_name": "b.json"}}')
    _, last, _ = convert('plain', 'a.jsonl', 'llama-factory', 'sft')
    listed = json.loads((tmp_path / 'dataset_info.json').read_text())
    assert last['dataset_info'] == str(tmp_path / 'dataset_info.json')
    assert listed['other'] == dict(file_name='b.json')
    assert listed['a'] == dict(
        file_name='a.jsonl', formatting='sharegpt',
        columns=dict(messages='messages', images='images'),
        tags=dict(role_tag='role', content_tag='content', user_tag='user',
                  assistant_tag='assistant', system_tag='system'))


# --- the reward functions read them -----------------------------------------------------------
@pytest.mark.parametrize('trainer', ['trl', 'ms-swift', 'verl'])
def test_rewards_of_rows_are_those_of_training(convert, configs, tmp_path, trainer):
    """Sets of two grammars in one file: each row is read by its own codec."""
    convert('joined', 'a.jsonl', trainer, 'rl')
    rows, dataset = read_back(tmp_path / 'a.jsonl'), dataset_of(configs['joined'])
    samples = [item['data_samples'] for item in (dataset[i] for i in range(len(dataset)))]
    samples = [sample for sample in samples if 'codec' in sample]
    assert len({sample.codec for sample in samples}) == 2
    answers = [sample.answer for sample in samples]
    reward = PolygonReward(dict(mask_iou=1, format=.5), codec='int1000/default')
    ours = reward(answers, [sample.gt_masks.masks[0] for sample in samples],
                  codecs=[sample.codec for sample in samples],
                  samples=[dict(sample.all_items()) for sample in samples])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if trainer == 'trl':
        found = trl_reward(reward)(prompts=columns.pop('prompt'), completions=answers, **columns)
    elif trainer == 'ms-swift':
        for messages, answer in zip(columns['messages'], answers):
            messages.append(dict(role='assistant', content=answer))
        found = ms_swift_reward(reward)()(answers, **columns)
    else:
        found = [verl_reward(reward)(row['data_source'], answer,
                                     row['reward_model']['ground_truth'],
                                     row['extra_info'])['score']
                 for row, answer in zip(rows, answers)]
    expected = [float(total) if applied else None if trainer != 'verl' else 0
                for total, applied in zip(ours.total, ours.applied)]
    assert found == expected
    assert max(ours.total) > 1.3 and len(set(expected)) > 5


def test_a_reward_sees_columns_and_prompts(convert, tmp_path):
    seen = []
    reward = PolygonReward(dict(look=1), extra=dict(look=lambda query: seen.append(query) or 0))
    for trainer in ('trl', 'ms-swift', 'verl'):
        convert('plain', f'{trainer}.jsonl', trainer, 'rl', '--limit', '1')
        row, = read_back(tmp_path / f'{trainer}.jsonl')
        columns = {name: [value] for name, value in row.items()}
        if trainer == 'trl':
            trl_reward(reward)(prompts=columns.pop('prompt'), completions=[''], **columns)
        elif trainer == 'ms-swift':
            ms_swift_reward(reward)()([''], **columns)
        else:
            verl_reward(reward)(row['data_source'], '', row['reward_model']['ground_truth'],
                                row['extra_info'])
    assert len({query.prompt for query in seen}) == 1 and seen[0].prompt
    assert len({query.task for query in seen}) == 1 and seen[0].task
    assert len({query.meta['text'] for query in seen}) == 1


# --- samples of one's own ---------------------------------------------------------------------
def sample_of(path, pixels=None, **changes):
    pixels = load_image(path, upright=False) if pixels is None else pixels
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[2:6, 2:6] = 1
    meta = dict(img_path=str(path), image_id=7, ref_id=1, sent_id=0, ann_id=[3, 4], text='it',
                source='own', split='train', task='text2mask', prompt='Where?', answer='[]',
                turns=[('Where?', '[]')], codec='int100/default',
                gt_masks=BitmapMasks(mask[None], *mask.shape)) | changes
    meta = {key: value for key, value in meta.items() if value is not None}
    return dict(inputs=torch.from_numpy(pixels).permute(2, 0, 1),
                data_samples=DetDataSample(metainfo=meta))


def rows_of(samples, trainer='ms-swift', stage='rl', copies='never', folder=Path('unused'),
            relative_to=None, mllm=None):
    rows = ChatRows(samples, range(len(samples)), META_KEYS, mllm or {}, trainer, stage, '.jsonl',
                    PicturePaths(folder, copies, relative_to))
    return rows, list(rows)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize('task, count, areas', [
    ('text2masks', 3, [16, 4, 16]), ('text2masks', 0, [0]), ('text2boxes', 3, [16, 4, 16]),
    ('text2mask', 3, [16 + 4 + 16 - 4]), ('text2mask', 1, [16])])
def test_the_truth_of_every_instance(photo, task, count, areas):
    masks = np.zeros((count, 12, 16), np.uint8)
    for mask, (y, x, side) in zip(masks, [(0, 0, 4), (8, 8, 2), (2, 2, 4)]):  # two overlap
        mask[y:y + side, x:x + side] = 1
    row, = rows_of([sample_of(photo, task=task, gt_masks=BitmapMasks(masks, 12, 16))])[1]
    truth = json.loads(row['mask'])
    truth = [truth] if isinstance(truth, dict) else truth
    assert [int(rle_to_mask(rle).sum()) for rle in truth] == areas
    assert isinstance(json.loads(row['mask']), list) == (task != 'text2mask')


@pytest.mark.parametrize('turn, stage, trainers, reason', [
    (('the <image> sign', '[]'), 'sft', ('ms-swift', 'verl', 'llama-factory'), 'spells a mark'),
    (('Where?', 'a <video>'), 'sft', ('ms-swift', 'verl', 'llama-factory'), 'spells a mark'),
    (('the <bbox>', '[]'), 'rl', ('ms-swift', ), 'spells a mark'),
    (('the <|im_end|> sign', '[]'), 'rl', tuple(TRAINERS), 'spells a special token'),
    (('Where?', 'x<|endoftext|>'), 'sft', tuple(TRAINERS), 'spells a special token'),
    (('half \ud83d', '[]'), 'rl', tuple(TRAINERS), 'no UTF-8'),
    (('Where?', None), 'sft', tuple(TRAINERS), 'is missing'),
    (('a < b | c > d <|> <a|b>', '[]'), 'sft', (), None),
])
def test_texts_that_others_read_otherwise(photo, turn, stage, trainers, reason):
    for trainer in TRAINERS:
        if stage in TRAINERS[trainer].stages:
            rows, written = rows_of([sample_of(photo, turns=[('first', '[]'), turn] if
                                               stage == 'sft' else [turn]),
                                     sample_of(photo)], trainer, stage)
            assert len(written) == 2 - (trainer in trainers), (trainer, rows.left_out)
            assert rows.seen == len(written) + sum(rows.left_out.values()) == 2
            assert all(reason in said for said in rows.left_out)


@pytest.mark.parametrize('change, stage, reason', [
    (dict(codec=None), 'rl', 'answered in words'), (dict(codec=None), 'sft', None),
    (dict(gt_masks=None), 'rl', 'LoadTargetMask'), (dict(gt_masks=None), 'sft', None)])
def test_samples_without_codec_or_mask(photo, change, stage, reason):
    rows, written = rows_of([sample_of(photo, **change)], 'trl', stage)
    assert len(written) == (reason is None)
    assert all(reason in said for said in rows.left_out)


def test_a_sample_that_training_would_stop_at(photo):
    class Broken(list):
        def __getitem__(self, index):
            if index:
                raise ValueError('photo 1 is broken\n')
            return super().__getitem__(index)
    rows, written = rows_of(Broken([sample_of(photo)] * 2))
    assert len(written) == 1 and rows.left_out == {
        'it cannot be read, and training would stop at it': 1}
    assert list(rows.examples.values()) == ['photo 1 is broken']


@pytest.mark.parametrize('samples, message', [
    (lambda photo: [dict(sample_of(photo), data_samples=DetDataSample())], 'have no turns'),
    (lambda photo: [sample_of(photo, extra={1, 2})], "meta_keys names 'extra', which is"),
    (lambda photo: [sample_of(photo, extra='\udcff')], "meta_keys names 'extra', which is"),
    (lambda photo: [sample_of(photo, mask=1)], "names 'mask', which is a column of its own"),
    (lambda photo: SimpleNamespace(__len__=lambda: 2), None)])
def test_sets_that_cannot_be_written(photo, samples, message):
    if message is None:
        class Once(list):
            def __len__(self):
                return 2
        samples, message = lambda photo: Once([sample_of(photo)]), 'has no later visits'
    with pytest.raises(ValueError, match=message) as error:
        rows_of(samples(photo))
    assert '\n' not in str(error.value)


def test_columns_of_ones_own(photo):
    _, (row, ) = rows_of([sample_of(photo, area=np.float32(2.5), tags=('a', np.int64(3)),
                                    image_id='\udcff.jpg')])
    assert (row['area'], row['tags'], row['image_id']) == (2.5, ['a', 3], '\\udcff.jpg')
    assert (row['ref_id'], row['ann_id'], row['text']) == ('1', '[3, 4]', 'it')


@pytest.mark.parametrize('values, kind', [
    ([None, 'a'], 'string'), ([None, None], 'string'), ([1, 2.5], 'double'), ([[], [1]], 'list'),
    ([1, 'a'], None)])
def test_types_of_a_table(tmp_path, values, kind):
    pytest.importorskip('pyarrow')
    out, rows = tmp_path / 'a.parquet', [dict(x=value, y=dict(z=value)) for value in values]
    if kind is None:
        with pytest.raises(ValueError, match='rows 0 to 1 hold values of another type'):
            write_rows(out, rows)
        assert not out.exists()
        assert write_rows(out.with_suffix('.jsonl'), rows) == 2
    else:
        assert write_rows(out, rows) == 2
        assert read_back(out) == rows
        import pyarrow.parquet
        assert str(pyarrow.parquet.read_schema(out).field('x').type).startswith(kind)


def test_later_rows_of_another_type(tmp_path):
    pytest.importorskip('pyarrow')
    rows = [dict(x=1)] * 2500 + [dict(x='a')]
    with pytest.raises(ValueError, match='rows 2000 to 2500 hold values of another type'):
        write_rows(tmp_path / 'a.parquet', rows)
    assert not list(tmp_path.iterdir())


# --- pictures ---------------------------------------------------------------------------------
def save_tagged(path):
    tags = Image.Exif()
    tags[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, exif=tags)


def save_alpha(path):
    with Image.open(path) as image:
        rgba = image.convert('RGBA')
    rgba.putalpha(100)
    rgba.save(path.with_suffix('.png'))
    return path.with_suffix('.png')


def save_palette(path):
    with Image.open(path) as image:
        image.convert('P').save(path.with_suffix('.png'))
    return path.with_suffix('.png')


def save_deep(path):
    deep = np.arange(192, dtype=np.uint16).reshape(12, 16) * 20
    Image.fromarray(deep).save(path.with_suffix('.png'))
    return path.with_suffix('.png')


def save_in_tar(path):
    path.rename(path.with_suffix('.tar'))
    path.with_suffix('.tar').write_bytes(b'\0' * 512 + path.with_suffix('.tar').read_bytes())
    return path.with_suffix('.tar')


def save_odd_name(path):
    odd = os.fsdecode(os.fsencode(path.parent) + b'/caf\xe9.jpg')
    os.rename(path, odd)
    return odd


def save_blank(path):
    path.rename(path.with_name('photo.jpg '))
    return path.with_name('photo.jpg ')


PICTURES = [
    (lambda path: None, None), (save_palette, None), (save_tagged, 'orientation tag'),
    (save_alpha, 'transparency or more than 8 bits'),
    (save_deep, 'transparency or more than 8 bits'), (save_in_tar, 'inside another file'),
    (save_odd_name, 'no UTF-8'), (save_blank, 'blanks'),
    (lambda path: 'http://x.org/1.jpg', 'no file of this machine')]


@pytest.mark.parametrize('copies', ['never', 'needed', 'all'])
@pytest.mark.parametrize('save, why', PICTURES)
def test_pictures_are_those_that_training_reads(photo, tmp_path, save, why, copies):
    before = load_image(photo, upright=False)
    path = save(photo) or photo
    try:
        pixels = load_image(path, upright=False, white=4095)
    except ValueError:
        pixels = before
    folder = tmp_path / 'out' / 'a_pictures'
    rows, written = rows_of([sample_of(path, pixels)] * 2, copies=copies, folder=folder)
    if copies == 'never' and why:
        (reason, number), = rows.left_out.items()
        assert why in reason and number == 2 and not written
        with pytest.raises(ValueError, match='none of 2 samples.*--pictures needed'):
            rows.check_some()
    else:
        assert len(written) == 2 and written[0] == written[1]
        found, = written[0]['images']
        with Image.open(found) as image:  # as the others do
            assert np.array_equal(np.asarray(image.convert('RGB')), pixels)
            assert image.getexif().get(0x0112) is None
        copied = copies == 'all' or bool(why)
        assert (Path(found).parent == folder) == copied == rows.pictures.copied
    assert folder.exists() == (copies == 'all' or bool(why) and copies == 'needed')


def test_two_pictures_of_one_name_and_relative_paths(photo, tmp_path):
    other = tmp_path / 'b' / 'photo.jpg'
    other.parent.mkdir()
    Image.new('RGB', (16, 12), 'red').save(other)
    folder = tmp_path / 'a_pictures'
    _, written = rows_of([sample_of(photo), sample_of(other), sample_of(photo)], copies='all',
                         folder=folder, relative_to=tmp_path)
    assert [row['images'][0] for row in written] == [
        'a_pictures/photo.jpg', 'a_pictures/photo_1.jpg', 'a_pictures/photo.jpg']
    assert (folder / 'photo_1.jpg').read_bytes() == other.read_bytes()
    _, written = rows_of([sample_of(photo)], relative_to=other.parent)
    assert written[0]['images'] == ['../photo.jpg']


# --- read by the tools' own code --------------------------------------------------------------
#: the chat template of nano's tokenizer, for messages in parts
PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def imported(name):
    """A module of a tool that may not be here, or not load here."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # such as libraries for GPUs
        pytest.skip(f'{name}: {error!r:.200}')


@pytest.fixture(scope='module')
def encoder():
    from transformers import AutoConfig, AutoTokenizer

    from simpleseg_mm.models.encoder import Encoder
    from simpleseg_mm.models.families.qwen import QwenVL
    folder = str(ROOT / 'simpleseg_mm/zoo/nano')
    family = QwenVL(folder, AutoConfig.from_pretrained(folder),
                    AutoTokenizer.from_pretrained(folder), 784, 12544)
    return Encoder(family, folder, 'You draw.')


@pytest.fixture(scope='module')
def processor(encoder):
    """Qwen2.5-VL's own for nano, without its video processor, which needs torchvision."""
    from transformers import AutoTokenizer, Qwen2_5_VLProcessor

    class PictureProcessor(Qwen2_5_VLProcessor):
        def __init__(self, image_processor, tokenizer, chat_template=None):
            super().__init__(image_processor, tokenizer, chat_template=chat_template)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / 'simpleseg_mm/zoo/nano')
    return PictureProcessor(encoder.family.image_processor, tokenizer, PARTS)


def our_ids(encoder, item, stage):
    """The ids and labels that this package trains on; for RL, of the prompt."""
    sample = item['data_samples']
    batch = encoder.encode([item['inputs']],
                           [sample.turns if stage == 'sft' else [(sample.prompt, None)]],
                           for_generation=stage == 'rl')
    return {key: batch[key][0].tolist() for key in ('input_ids', 'labels') if key in batch}


@pytest.mark.parametrize('suffix', ['jsonl', 'parquet'])
@pytest.mark.parametrize('stage', ['sft', 'rl'])
def test_trl_reads_the_tokens_of_training(convert, configs, tmp_path, encoder, processor, stage,
                                          suffix, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    datasets, trl = imported('datasets'), imported('trl')
    convert('turns', f'a.{suffix}', 'trl', stage)
    data = datasets.load_dataset('json' if suffix == 'jsonl' else suffix, split='train',
                                 data_files=str(tmp_path / f'a.{suffix}'),
                                 cache_dir=str(tmp_path / 'cache'))
    if suffix == 'jsonl':
        data = data.cast_column('images', datasets.List(datasets.Image()))
    dataset = dataset_of(configs['turns'])
    assert len(data) == len(dataset)
    collator = imported('trl.trainer.sft_trainer').DataCollatorForVisionLanguageModeling(processor)
    for index, row in enumerate(data):
        item = dataset[index]
        assert all(isinstance(image, Image.Image) for image in row['images'])
        assert np.array_equal(np.asarray(row['images'][0]), item['inputs'].permute(1, 2, 0))
        if stage == 'sft':
            ids = collator([row])['input_ids'][0].tolist()
        else:
            messages = trl.prepare_multimodal_messages(row['prompt'], row['images'])
            ids = processor.apply_chat_template([messages], add_generation_prompt=True,
                                                tokenize=True, return_dict=True)['input_ids'][0]
        assert ids == our_ids(encoder, item, stage)['input_ids']


def with_line_breaks(ours, tokenizer):
    """Labels of tools that also teach the line break after an answer's end."""
    newline, ids = tokenizer.encode('\n'), ours['input_ids']
    labels = [i if label != -100 else label for i, label in zip(ids, ours['labels'])]
    for place in range(1, len(labels)):
        if labels[place - 1] != -100 and labels[place] == -100 and [ids[place]] == newline:
            labels[place] = ids[place]
    return labels


@pytest.mark.parametrize('suffix', ['jsonl', 'parquet'])
def test_llama_factory_reads_the_tokens_and_labels_of_training(convert, configs, tmp_path, encoder,
                                                               processor, suffix):
    loader = imported('llamafactory.data.loader')
    parser = imported('llamafactory.data.parser')
    template = imported('llamafactory.data.template')
    supervised = imported('llamafactory.data.processor.supervised')
    convert('turns', f'a.{suffix}', 'llama-factory', 'sft')
    asked = SimpleNamespace(
        template='qwen2_vl', train_on_prompt=False, tool_format=None, default_system=None,
        mask_history=False, cutoff_len=4096, media_dir=str(tmp_path), dataset_dir=str(tmp_path),
        streaming=False, preprocessing_num_workers=None, overwrite_cache=True, max_samples=None)
    listed, = parser.get_dataset_list(['a'], str(tmp_path))
    data = loader._load_single_dataset(
        listed, SimpleNamespace(cache_dir=str(tmp_path / 'cache'), hf_hub_token=None), asked,
        SimpleNamespace(local_process_index=0))
    with contextlib.suppress(AttributeError):
        processor.image_max_pixels, processor.image_min_pixels = 12544, 784
    reader = supervised.SupervisedDatasetProcessor(
        template=template.get_template_and_fix_tokenizer(processor.tokenizer, asked),
        tokenizer=processor.tokenizer, processor=processor, data_args=asked)
    read = reader.preprocess_dataset(data[:])
    dataset = dataset_of(configs['turns'])
    assert len(read['input_ids']) == len(dataset)
    for index, (ids, labels) in enumerate(zip(read['input_ids'], read['labels'])):
        ours = our_ids(encoder, dataset[index], 'sft')
        assert ids == ours['input_ids']
        assert labels == with_line_breaks(ours, processor.tokenizer)


@pytest.mark.parametrize('suffix', ['jsonl', 'parquet'])
@pytest.mark.parametrize('stage', ['sft', 'rl'])
def test_ms_swift_reads_rows(convert, configs, tmp_path, stage, suffix, monkeypatch):
    monkeypatch.setenv('MODELSCOPE_CACHE', str(tmp_path / 'cache'))
    swift = imported('swift.dataset')
    convert('turns', f'a.{suffix}', 'ms-swift', stage)
    data, _ = swift.load_dataset([str(tmp_path / f'a.{suffix}')], strict=True,
                                 remove_unused_columns=stage == 'sft')
    rows = read_back(tmp_path / f'a.{suffix}')
    assert len(data) == len(rows)
    for read, row in zip(data, rows):
        assert read['messages'] == row['messages']
        assert [image['path'] for image in read['images']] == row['images']
        if stage == 'rl':
            assert all(read[name] == row[name] for name in ('mask', 'codec', 'task', 'text'))


@pytest.mark.parametrize('stage', ['sft', 'rl'])
def test_ms_swift_reads_the_tokens_and_labels_of_training(convert, configs, tmp_path, encoder,
                                                          stage, monkeypatch):
    monkeypatch.setenv('MODELSCOPE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('MIN_PIXELS', '784')
    monkeypatch.setenv('MAX_PIXELS', '12544')
    swift, models = imported('swift.dataset'), imported('swift.model')
    templates = imported('swift.template')
    imported('qwen_vl_utils')
    convert('turns', 'a.jsonl', 'ms-swift', stage)
    template = templates.get_template(
        models.get_processor(str(ROOT / 'simpleseg_mm/zoo/nano'), model_type='qwen2_5_vl'),
        template_type='qwen2_5_vl')
    template.set_mode('train' if stage == 'sft' else 'transformers')
    template.image_token_id = encoder.family.image_token_id  # there, that of Qwen's vocabulary
    data, _ = swift.load_dataset([str(tmp_path / 'a.jsonl')], strict=True,
                                 remove_unused_columns=stage == 'sft')
    dataset = dataset_of(configs['turns'])
    assert len(data) == len(dataset)
    for index, row in enumerate(data):
        read, ours = template.encode(row), our_ids(encoder, dataset[index], stage)
        assert read['input_ids'] == ours['input_ids']
        if stage == 'sft':
            assert read['labels'] == with_line_breaks(ours, encoder.tokenizer)


def test_ms_swift_calls_the_reward(convert, configs, tmp_path, monkeypatch):
    monkeypatch.setenv('MODELSCOPE_CACHE', str(tmp_path / 'cache'))
    swift, rewards = imported('swift.dataset'), imported('swift.rewards')
    algorithm = imported('swift.rl_core.grpo_algorithm')
    convert('plain', 'a.jsonl', 'ms-swift', 'rl')
    data, _ = swift.load_dataset([str(tmp_path / 'a.jsonl')], strict=True,
                                 remove_unused_columns=False)
    dataset = dataset_of(configs['plain'])
    answers = [dataset[index]['data_samples'].answer for index in range(len(data))]
    monkeypatch.setitem(rewards.orms, 'polygon', ms_swift_reward(PolygonReward(dict(mask_iou=1))))
    samples = [algorithm.GRPOSample.from_row(row) for row in data]
    for sample, answer in zip(samples, answers):
        sample.messages.append(dict(role='assistant', content=answer))
    found = algorithm.compute_rewards_per_func(
        samples, [rewards.orms['polygon'](args=None)], None, torch.device('cpu'))[:, 0].tolist()
    expected = PolygonReward(dict(mask_iou=1))(
        answers, [dataset[index]['data_samples'].gt_masks.masks[0] for index in range(len(data))],
        codecs=[dataset[index]['data_samples'].codec for index in range(len(data))],
        samples=[dict(dataset[index]['data_samples'].all_items()) for index in range(len(data))])
    assert found == pytest.approx([float(total) if applied else float('nan') for total, applied in
                                   zip(expected.total, expected.applied)], nan_ok=True)
    assert max(np.nan_to_num(found)) > .9


@pytest.mark.parametrize('suffix', ['jsonl', 'parquet'])
def test_verl_reads_the_tokens_of_training(convert, configs, tmp_path, encoder, processor, suffix):
    omegaconf = imported('omegaconf')
    rl_dataset = imported('verl.utils.dataset.rl_dataset')
    imported('qwen_vl_utils')
    convert('turns', f'a.{suffix}', 'verl', 'rl')
    config = omegaconf.OmegaConf.create(dict(
        cache_dir=str(tmp_path / 'cache'), max_prompt_length=4096, filter_overlong_prompts=True,
        filter_overlong_prompts_workers=1))
    data = rl_dataset.RLHFDataset(str(tmp_path / f'a.{suffix}'), processor.tokenizer, config,
                                  processor)
    dataset = dataset_of(configs['turns'])
    assert len(data) == len(dataset)
    reward = verl_reward(PolygonReward(dict(mask_iou=1)))
    for index in range(len(data)):
        row, item = data[index], dataset[index]
        images, videos, _ = data._process_multi_modal_info(row['raw_prompt'], 14, config)
        text = processor.apply_chat_template(row['raw_prompt'], add_generation_prompt=True,
                                             tokenize=False)
        ids = processor(text=[text], images=images)['input_ids'][0]
        assert ids == our_ids(encoder, item, 'rl')['input_ids']
        truth, codec = row['reward_model']['ground_truth'], codec_of(item['data_samples'].codec)
        mask = item['data_samples'].gt_masks.masks[0] > 0
        assert json.loads(truth) == mask_to_rle(mask)
        if item['data_samples'].task.endswith('2mask'):
            assert reward(row['data_source'], codec.encode(mask), truth,
                          row['extra_info'])['score'] > .7


def test_verl_reads_the_tokens_and_labels_of_sft(convert, configs, tmp_path, encoder, processor):
    sft = imported('verl.utils.dataset.multiturn_sft_dataset')
    imported('qwen_vl_utils')
    convert('turns', 'a.parquet', 'verl', 'sft')
    data = sft.MultiTurnSFTDataset(str(tmp_path / 'a.parquet'), processor.tokenizer,
                                   dict(pad_mode='no_padding', max_length=4096), processor)
    dataset = dataset_of(configs['turns'])
    assert len(data) == len(dataset)
    for index in range(len(data)):
        ids = data[index]['input_ids'].tolist()
        assert ids == our_ids(encoder, dataset[index], 'sft')['input_ids']
