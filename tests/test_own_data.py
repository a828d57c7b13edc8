"""Annotations of one's own to a training set: COCO, LabelMe, and what is wrong with them."""
import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import simpleseg_mm.datasets  # noqa: F401  registers
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.registry import DATASETS

TOOL = 'dataset_converters/own_data.py'
SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]  # 30 x 20
HTML = '<b onclick="x()">Häuschen & 犬</b>'


def picture(folder: Path, name: str, shade: int = 200, **options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64, 48), (shade, 90, 30)).save(folder / name, **options)


def coco(folder: Path, count: int = 6, **changes) -> dict:
    """A set of ``count`` pictures with two cars and a dog with a hole each."""
    hole = np.zeros((48, 64), bool)
    hole[5:25, 5:25] = True
    hole[10:15, 10:15] = False
    images, annotations = [], []
    for k in range(count):
        picture(folder / 'images', f'{k}.png', shade=k)
        images.append(dict(id=k, file_name=f'{k}.png', width=64, height=48))
        for category, segmentation in ((1, [SQUARE]), (1, [[50, 30, 60, 30, 60, 35, 50, 35]]),
                                       (2, mask_to_rle(hole))):
            annotations.append(dict(id=len(annotations), image_id=k, category_id=category,
                                    segmentation=segmentation))
    content = dict(images=images, annotations=annotations,
                   categories=[dict(id=1, name='car'), dict(id=2, name='dog'),
                               dict(id=3, name='cat')])
    content.update(changes)
    (folder / 'coco.json').write_text(json.dumps(content))
    return content


def built(config: str) -> tuple:
    cfg = Config.fromfile(config)
    init_default_scope('simpleseg_mm')
    return tuple(DATASETS.build(loader.dataset)
                 for loader in (cfg.train_dataloader, cfg.test_dataloader))


def test_categories_become_expressions_with_the_union_of_their_instances(run, tmp_path):
    coco(tmp_path)
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--val', 0.34)
    assert code == 0 and report['ok'] and report['targets'] == 'category'
    assert report['categories'] == ['car', 'dog']  # no annotation is a cat
    assert report['train'] == dict(images=4, objects=12,
                                   queries=dict(one=4, several=4, none=0))
    assert report['val']['images'] == 2 and report['samples'] == dict(train=8, val=4)
    assert report['left_out_or_changed'] == {}
    train, val = built(report['config'])
    masks = {}
    for number in range(2):
        sample = train[number]['data_samples']
        masks[sample.text] = sample.gt_masks.masks[0]
    assert masks['car'].sum() == 30 * 20 + 50  # both cars
    assert masks['dog'].sum() == 400 - 25 and not masks['dog'][12, 12]  # the hole is kept
    assert not ({train.get_data_info(i)['img_path'] for i in range(len(train))}
                & {val.get_data_info(i)['img_path'] for i in range(len(val))})
    assert val.test_mode and not train.test_mode


def test_absent_categories_are_asked_too(run, tmp_path):
    content = coco(tmp_path)
    content['annotations'] = [row for row in content['annotations']
                              if row['category_id'] == 1 or row['image_id'] < 3]
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--absent', 1)
    assert code == 0
    assert report['samples']['train'] + report['samples']['val'] == 6 * 2
    cfg = Config.fromfile(report['config'])
    assert cfg.val_evaluator[0].type == 'GRESMetric'
    assert cfg.default_hooks.checkpoint.save_best == 'gres/gIoU'


@pytest.mark.parametrize('place', ['annotations', 'rows'])
def test_expressions(run, tmp_path, place):
    content = coco(tmp_path)
    rows = [dict(ann_id=3 * k, sentences=['the left car', HTML]) for k in range(6)]
    rows += [dict(ann_id=[0, 1], sentences=['all cars']),
             dict(ann_id=-1, image_id=0, sentences=['a bicycle'])]
    options = []
    if place == 'rows':
        (tmp_path / 'rows.json').write_text(json.dumps(rows))
        options = ['--expressions', tmp_path / 'rows.json']
    else:
        for row in rows[:6]:
            content['annotations'][row['ann_id']]['phrase'] = row['sentences']
        content['annotations'][0]['expressions'] = [dict(text='all cars')]
        content['annotations'][1]['phrase'] = 'all cars'
        content['images'][0]['absent_phrases'] = ['a bicycle']
        (tmp_path / 'coco.json').write_text(json.dumps(content))
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', *options)
    assert code == 0 and report['targets'] == 'phrase'
    totals = {key: report['train']['queries'][key] + report['val']['queries'][key]
              for key in ('one', 'several', 'none')}
    assert totals == dict(one=12, several=1, none=1)
    assert report['left_out_or_changed'] == {
        'object without an expression, where others have one': 11}
    asked = {}
    for dataset in built(report['config']):
        for k in range(len(dataset)):
            sample = dataset[k]['data_samples']
            asked[sample.text] = sample
    assert set(asked) == {'the left car', HTML, 'all cars', 'a bicycle'}
    assert asked['all cars'].gt_masks.masks[0].sum() == 650
    assert asked['a bicycle'].answer == '[]' and HTML in asked[HTML].prompt


def shape(kind: str, points, label='car', **more) -> dict:
    return dict(label=label, points=points, shape_type=kind, group_id=None, flags={}, **more)


def test_labelme(run, tmp_path):
    png = io.BytesIO()
    Image.fromarray(np.full((5, 10), 255, np.uint8)).save(png, 'PNG')
    mask = base64.b64encode(png.getvalue()).decode()
    rows = [shape('polygon', [[10, 10], [40, 10], [40, 30], [10, 30]], description=HTML),
            dict(shape('rectangle', [[25, 25], [10, 10]], 'house',
                       description='two parts\n\na house'), group_id=3),
            dict(shape('polygon', [[40, 30], [50, 30], [50, 40], [40, 40]], 'house'), group_id=3),
            shape('circle', [[30, 30], [30, 40]], 'ball', description='the ball'),
            shape('mask', [[50, 2], [59, 6]], 'mark', mask=mask, description='the mark'),
            shape('line', [[0, 0], [9, 9]]), shape('polygon', [[0, 0], [9, 9]]),
            shape('mask', [[0, 0], [9, 9]], mask='no'), shape('polygon', [[1, 'x'], [2, 3]]),
            dict(points=[])]
    for k in range(3):
        picture(tmp_path, f'{k}.png', shade=k)
        (tmp_path / f'{k}.json').write_text(json.dumps(dict(
            imagePath=f'{k}.png', imageHeight=48, imageWidth=64, shapes=rows, imageData=None)))
    code, report, _ = run(TOOL, tmp_path, tmp_path / 'mine', '--val', 0.3)
    assert code == 0, report
    assert report['train'] == dict(images=2, objects=8, queries=dict(one=10, several=0, none=0))
    assert report['left_out_or_changed'] == {
        'shape of type line, which has no area': 3, 'polygon without enough points': 6,
        'mask that is no PNG in base64, or larger than the picture': 3,
        'shape without a label': 3}
    train, _ = built(report['config'])
    areas = {}
    for k in range(5):
        sample = train[k]['data_samples']
        areas[sample.text] = int(sample.gt_masks.masks[0].sum())
    assert areas['two parts'] == areas['a house'] == 15 * 15 + 10 * 10
    assert areas[HTML] == 600 and areas['the mark'] == 50
    assert abs(areas['the ball'] - np.pi * 100) < 12


def test_pictures_are_checked_turned_and_taken_from_the_file_that_embeds_them(run, tmp_path):
    content = coco(tmp_path, count=9)
    images = tmp_path / 'images'
    (images / '0.png').unlink()
    (images / '1.png').write_bytes(b'')
    (images / '2.png').write_bytes((images / '2.png').read_bytes()[:40])
    picture(images, '3.png', shade=4)  # a copy of 4.png
    Image.new('RGB', (32, 32)).save(images / '5.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: 48 wide, 64 high as viewers show it
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(images / '6.png', exif=exif)
    Image.fromarray(np.full((48, 64), 40000, np.uint16)).save(images / '7.png')
    content['images'][8].pop('height')
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--val', 0.3)
    assert code == 0, report
    assert report['left_out_or_changed'] == {
        'picture missing': 1, 'picture file empty': 1,
        'picture broken, too large or of no known format': 1,
        'picture of another size than its annotations say': 1,
        'object of a picture that is left out': 12,
        'picture written anew, upright and in 8 bits': 1}  # training reads 16 bits as they are
    train, val = built(report['config'])
    assert len(train) + len(val) == 2 * 5
    sides = []
    for dataset in (train, val):
        infos = [dataset.get_data_info(k) for k in range(len(dataset))]
        names = {Path(info['img_path']).name for info in infos}
        sides.append(names)
        for k, info in enumerate(infos):
            inputs = dataset[k]['inputs']
            assert tuple(inputs.shape) == (3, 48, 64)
            if Path(info['img_path']).name == '7.png':
                assert int(inputs.max()) == 156  # 40000 of 65535
    assert any({'3.png', '4.png'} <= names for names in sides)  # copies stay together


def test_broken_records_are_left_out_and_named(run, tmp_path):
    content = coco(tmp_path, count=6)
    rows = content['annotations']
    rows[0].update(segmentation=[[1, 2, 3]])
    rows[1].update(segmentation=[[1, 2, 3, 4, 5, float('nan')]])
    rows[2].update(segmentation=dict(size=[9, 9], counts=[81]))
    rows[3].update(segmentation=[[100, 100, 120, 100, 120, 120]])
    rows[4].update(category_id=77)
    rows[5].update(image_id='no')
    rows[6].update(segmentation=[SQUARE, [1, 2, 3, 4]])  # a sliver beside a part
    rows[7].update(id=6)
    rows += [None, dict(image_id=3, category_id=1), dict(rows[8], id=[1])]
    content['images'] += [dict(id=3, file_name='other.png'), dict(file_name='x.png'), 5]
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    code, report, out = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--val', 0.5)
    assert code == 0, report
    assert report['left_out'] == dict(
        picture={'image id used for two files (both, with their annotations)': 2,
                 'image without id or file_name': 1, 'image that is no record': 1,
                 'picture without a usable object': 1, 'picture whose queries are left out': 1},
        annotation={
            'broken segmentation': 3, 'annotation of an unknown category': 1,
            'empty mask: nothing of it is inside the picture': 1,
            'annotation of an unknown image': 1, 'annotation that is no record': 1,
            'annotation of an image that is left out': 4},
        query={'query whose truth is incomplete: broken segmentation': 2,
               'query whose truth is incomplete: empty mask: nothing of it is inside the picture':
               1})
    assert report['changed'] == {'part of fewer than three points, which covers nothing': 1}
    assert report['read'] == dict(picture=9, annotation=21, query=9)
    assert 'annotation 2: the RLE has size [9, 9], the image has [48, 64]' in out


@pytest.mark.parametrize('content, options, message', [
    (b'', [], 'not readable JSON'), (b'{"images": []}', [], 'neither a COCO file'),
    (b'[]', [], 'neither a COCO file'),
    (b'{"images": [], "annotations": []}', [], 'holds no usable picture'),
    (None, [], 'no annotations'), ('set', ['--val', '1.5'], 'a share between 0 and 1'),
    ('set', ['--val', 'nowhere.json'], 'a share between 0 and 1'),
    ('set', ['--base', '70b'], 'no base 70b'), ('one', [], 'cannot be split'),
    ('set', ['--images', 'nowhere', '--white', 0], '--white 0: a number from 1')])
def test_what_cannot_be_a_set_is_one_line(run, tmp_path, content, options, message):
    path = tmp_path / 'coco.json'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        coco(tmp_path, count=1 if content == 'one' else 3)
    code, report, _ = run(TOOL, path, tmp_path / 'mine', *options)
    assert code == 1 and not report['ok'] and message in str(report)
    assert '\n' not in report['error']


def test_the_3b_base_gets_a_schedule_of_its_size(run, tmp_path):
    coco(tmp_path)
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--base', '3b-lora',
                          '--epochs', 200)
    assert code == 0, report
    cfg = Config.fromfile(report['config'])
    assert cfg.model.mllm.pretrained == 'Qwen/Qwen2.5-VL-3B-Instruct' and cfg.model.mllm.lora
    samples = report['samples']['train']
    assert cfg.train_cfg.max_iters == -(-200 * samples // 16)
    assert cfg.train_cfg.global_batch_size == 16
    assert cfg.train_dataloader.dataset.query.codec.grammar == 'int1000'
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin < cfg.train_cfg.max_iters


@pytest.mark.slow
def test_points_and_boxes_are_trained_beside_the_texts(run, tmp_path):
    coco(tmp_path)
    code, report, _ = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine', '--prompts')
    assert code == 0, report
    train, val = built(report['config'])
    objects = report['train']['objects']
    assert len(train) == report['samples']['train'] == report['train']['images'] * 2 + objects
    tasks = [train[k]['data_samples'].task for k in range(len(train))]
    assert set(tasks[-objects:]) == {'point2mask', 'box2mask'}
    assert set(tasks[:-objects]) == {'text2mask'} == {val[0]['data_samples'].task}
    assert train[len(train) - 1]['data_samples'].gt_masks.masks[0].sum() in (375, 50, 600)


def test_val_annotations_of_their_own(run, tmp_path):
    coco(tmp_path / 'a')
    content = coco(tmp_path / 'b', count=8)
    (tmp_path / 'a/coco.json').write_text(json.dumps(coco(tmp_path / 'a')))
    code, report, _ = run(TOOL, tmp_path / 'b/coco.json', tmp_path / 'mine', '--val',
                          tmp_path / 'a/coco.json')
    assert code == 0, report
    assert len(content['images']) == 8 and report['val']['images'] == 6
    assert report['left_out'] == dict(
        picture={'train picture that val holds too': 6},
        annotation={'object of a train picture that val holds too': 18})
    assert report['read'] == dict(picture=14, annotation=42, query=16)


def test_all_faults_of_the_arguments_are_one_line(run, tmp_path):
    code, report, _ = run(TOOL, tmp_path / 'none.json', tmp_path / 'mine', '--base', '70b',
                          '--val', 2, '--images', tmp_path / 'no', '--absent', -1, '--epochs', 0)
    assert code == 1 and '\n' not in report['error'] and not (tmp_path / 'mine').exists()
    for part in ('none.json', '70b', '--val 2', '--images', '--absent -1', '--epochs 0'):
        assert part in report['error']


@pytest.mark.slow
def test_what_was_changed_by_hand_is_not_replaced(run, tmp_path):
    coco(tmp_path)
    command = TOOL, tmp_path / 'coco.json', tmp_path / 'mine'
    first = run(*command)[1]
    assert run(*command, '--absent', 1)[0] == 0  # what a run wrote is replaced by the next
    config = Path(first['config'])
    config.write_text(config.read_text() + 'optim_wrapper = dict(optimizer=dict(lr=1e-3))\n')
    mine = config.read_text()
    code, report, _ = run(*command)
    assert code == 1 and str(config) in report['error'] and '--overwrite' in report['error']
    assert config.read_text() == mine
    assert run(*command, '--overwrite')[0] == 0 and config.read_text() != mine


def test_annotations_in_the_new_folder_are_not_replaced(run, tmp_path):
    coco(tmp_path)
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'coco.json').rename(tmp_path / 'annotations/train.json')
    before = (tmp_path / 'annotations/train.json').read_text()
    code, report, _ = run(TOOL, tmp_path / 'annotations/train.json', tmp_path)
    assert code == 1 and 'annotations/train.json' in report['error']
    assert (tmp_path / 'annotations/train.json').read_text() == before


@pytest.mark.slow
def test_the_config_holds_through_links_and_from_any_folder(run, tmp_path, monkeypatch):
    """mmsegmentation #3325: data is a link to another disk."""
    (tmp_path / 'disk/store/data').mkdir(parents=True)
    coco(tmp_path / 'work')
    (tmp_path / 'work/data').symlink_to(tmp_path / 'disk/store/data')
    (tmp_path / 'work/linked').symlink_to(tmp_path / 'work/images')
    monkeypatch.chdir(tmp_path / 'work')
    code, report, _ = run(TOOL, 'coco.json', 'data/my set.v1', '--images', 'linked')
    assert code == 0, report
    monkeypatch.chdir('/')
    assert sum(map(len, built(report['config']))) == 12
    assert sum(map(len, built(tmp_path / 'disk/store/data/my set.v1/nano_my_set_v1.py'))) == 12


def test_nano_is_warned_about_and_its_ceiling_is_said(run, tmp_path):
    content = coco(tmp_path)
    rng = np.random.default_rng(0)
    for row in content['images']:
        noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / 'images' / row['file_name'])
    code, report, out = run(TOOL, tmp_path / 'coco.json', tmp_path / 'mine')
    assert code == 0 and '3b-lora' in report['warning'] and 'text ceiling' in out
    assert report['text_ceiling']['queries'] == 12 and report['text_ceiling']['scenes'] == 0
    assert 0.5 < report['text_ceiling']['mean_iou'] < 1


def test_scenes_of_refshapes_are_what_nano_knows(run, tmp_path):
    generate(tmp_path / 'shapes', dict(train=4, val=1, test=1))
    folder = tmp_path / 'shapes'
    code, report, _ = run(TOOL, folder / 'refshapes/instances.json', tmp_path / 'mine', '--images',
                          folder / 'images', '--expressions',
                          folder / 'refshapes/refs(refshapes).p')
    assert code == 0 and report['warning'] is None and report['targets'] == 'phrase'
