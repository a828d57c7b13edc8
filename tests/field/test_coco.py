"""COCO files as tools write them: odd records with one meaning, paths, ids, half truths, bits."""
import json
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from own_sets import SMALL, SQUARE, areas, coco, own, picture, written
from PIL import Image

from simpleseg_mm.datasets import CocoQueryDataset

CARS = {(f'{k}.png', 'car'): 600 for k in range(3)}


def each(table, key, change):
    def apply(content):
        for row in content[table]:
            row[key] = change(row.get(key))
    return apply


def rle(segmentation, text=bytes.decode) -> dict:
    found = coco_mask.merge(coco_mask.frPyObjects(segmentation, 48, 64))
    return dict(size=found['size'], counts=text(found['counts']))


def runs(segmentation, number=int) -> dict:
    flat = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, 48, 64)))
    flat = flat.flatten('F')
    cuts = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *cuts, len(flat)])
    return dict(size=[number(48), number(64)], counts=[number(one) for one in counts])


@pytest.mark.parametrize('change', [
    each('annotations', 'segmentation', lambda s: s[0]),  # one flat polygon: yolact #156
    each('annotations', 'segmentation', lambda s: [np.reshape(s[0], (-1, 2)).tolist()]),
    each('annotations', 'segmentation', lambda s: [s]),
    each('annotations', 'segmentation', lambda s: [[str(one) for one in s[0]]]),
    each('annotations', 'segmentation', rle),
    each('annotations', 'segmentation', lambda s: rle(s, str)),  # cocoapi #70
    each('annotations', 'segmentation', runs), each('annotations', 'segmentation',
                                                    lambda s: runs(s, float)),
    each('annotations', 'segmentation', lambda s: runs(s, str)),
    each('annotations', 'image_id', str), each('annotations', 'image_id', float),
    each('images', 'id', float), each('annotations', 'category_id', str),
    each('categories', 'id', float), each('annotations', 'bbox', lambda _: None),
    each('annotations', 'bbox', lambda box: [box]), each('annotations', 'iscrowd', lambda _: None),
    each('annotations', 'iscrowd', lambda _: '0'), each('annotations', 'area', lambda _: None),
    each('images', 'height', lambda _: 48.0), each('images', 'height', lambda _: '48'),
    each('images', 'height', lambda _: None)])
def test_odd_records_with_one_meaning_are_read(tmp_path, change):
    content = coco(tmp_path)
    change(content)
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == CARS and not report['left_out'] and not report['changed']


def test_names_that_are_numbers(tmp_path):
    content = coco(tmp_path)
    content['categories'][0]['name'] = 7
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert {text for _, text in samples} == {'7'}


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'cp1252'])
def test_encodings(tmp_path, encoding):
    content = coco(tmp_path)
    content['categories'][0]['name'] = 'Häuser'
    (tmp_path / 'coco.json').write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    _, samples = own(tmp_path / 'coco.json', tmp_path / 'out')
    assert {text for _, text in samples} == {'Häuser'}


@pytest.mark.parametrize('number', [lambda k: 0, lambda k: k % 2, lambda k: None])
def test_repeated_annotation_ids_lose_nothing(tmp_path, number):
    """cvat #2155, TACO #46, datasetinsights #217."""
    content = coco(tmp_path, objects=2)
    for k, row in enumerate(content['annotations']):
        row['id'] = number(k)
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert set(areas(samples).values()) == {825} and not report['left_out']
    assert sum(report['decided'].values()) == 6


def test_an_expression_of_a_repeated_id_is_left_out_with_both_named(tmp_path):
    content = coco(tmp_path, objects=2)
    content['annotations'][1]['id'] = 1
    rows = [dict(ann_id=row, sentences=[text]) for row, text in
            ((1, 'the left car'), (3, 'a car'), (4, 'a car'), (5, 'the big car'))]
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out',
                          expressions=written(rows, tmp_path / 'rows.json'))
    assert areas(samples) == {('1.png', 'a car'): 825, ('2.png', 'the big car'): 600}
    reason = 'expression of an annotation id that several annotations have'
    assert report['left_out']['expression'] == {reason: 1}
    assert report['left_out']['query'] == {f'query whose truth is incomplete: {reason}': 1}


def test_two_files_of_one_image_id_are_both_left_out(tmp_path):
    content = coco(tmp_path, count=4)
    content['images'][3]['id'] = 2
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {key: 600 for key in list(CARS)[:2]}
    assert sum(report['left_out']['picture'].values()) == 2
    assert sum(report['left_out']['annotation'].values()) == 2


def test_a_category_id_of_two_names_is_no_name(tmp_path):
    content = coco(tmp_path, objects=2)
    content['categories'] += [dict(id=2, name='dog'), dict(id=2, name='cat')]
    content['annotations'][1]['category_id'] = 2
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {(f'{k}.png', 'car'): 825 for k in (1, 2)}  # 0.png: any may be there


# --- half truths -------------------------------------------------------------------------------
LOST = [dict(segmentation=[], bbox=[45, 5, 15, 15]), dict(segmentation=None, bbox=None),
        dict(segmentation=[[1, 2, 3, 4]]), dict(segmentation=[[900, 900, 910, 900, 910, 910]]),
        dict(segmentation='x'), dict(segmentation=dict(size=[9, 9], counts=[81])),
        dict(segmentation=[SMALL, [1, None, 2, 2, 3, 3]]), dict(category_id=None),
        dict(iscrowd='maybe')]


@pytest.mark.parametrize('change', LOST)
@pytest.mark.parametrize('ask', ['category', 'text', 'both'])
def test_a_query_of_a_lost_object_is_not_asked(tmp_path, change, ask):
    content = coco(tmp_path, count=4, objects=2)
    content['categories'].append(dict(id=2, name='dog'))
    for row in content['annotations']:
        row['phrase'] = ['a car']
    content['annotations'][0]['phrase'] += ['the left car']
    content['annotations'][1].update(change)
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', ask=ask,
                          absent=int(ask != 'text'))
    texts = {text for name, text in samples if name == '0.png'}
    if 'category_id' in change:  # of any category; the expressions still mean their objects
        assert texts == {'category': set(), 'text': {'a car', 'the left car'},
                         'both': {'a car', 'the left car'}}[ask]
    else:
        assert texts == (set() if ask == 'category' else {'the left car'})
    whole = {mask for (name, text), mask in areas(samples).items() if text in ('car', 'a car')}
    assert whole == {825}


def test_plain_boxes_are_taken_where_that_is_said(tmp_path):
    content = coco(tmp_path, objects=2)
    for row in content['annotations'][1::2]:
        row['segmentation'] = []
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', boxes='take')
    assert set(areas(samples).values()) == {825}
    assert report['decided'] == {'box read as the outline of its object': 3}
    with pytest.raises(ValueError, match='--boxes take'):
        own(tmp_path / 'coco.json', tmp_path / 'other')


def test_lost_categories_are_not_asked_as_absent(tmp_path):
    content = coco(tmp_path, count=4)
    content['categories'].append(dict(id=2, name='dog'))
    content['annotations'].append(dict(id=9, image_id=0, category_id=2, segmentation=[SMALL]))
    content['annotations'].append(dict(id=10, image_id=1, category_id=2, segmentation=[]))
    content['annotations'].append(dict(id=11, image_id=2, category_id=99, segmentation=[SMALL]))
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', absent=1)
    assert areas(samples) == {('0.png', 'car'): 600, ('0.png', 'dog'): 225, ('1.png', 'car'): 600,
                              ('2.png', 'car'): 600, ('3.png', 'car'): 600, ('3.png', 'dog'): 0}


def test_background_pictures_are_negatives(tmp_path):
    """mmdetection #10666: pictures without objects."""
    content = coco(tmp_path)
    content['images'].append(dict(id=9, file_name='9.png', width=64, height=48))
    picture(tmp_path / 'images/9.png', 9)
    path = written(content, tmp_path / 'coco.json')
    assert areas(own(path, tmp_path / 'out', absent=2)[1]) == CARS | {('9.png', 'car'): 0}
    report, samples = own(path, tmp_path / 'other')
    assert areas(samples) == CARS and sum(report['left_out']['picture'].values()) == 1


def test_a_text_that_fits_something_and_nothing_is_not_asked(tmp_path):
    content = coco(tmp_path)
    for row in content['annotations']:
        row['phrase'] = 'a car'
    content['images'][0]['absent_phrases'] = ['a car', 'a dog']
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {('0.png', 'a dog'): 0, ('1.png', 'a car'): 600,
                              ('2.png', 'a car'): 600}


# --- paths -------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, folder, source, images', [
    ('images/{}', 'images', 'result.json', None), ('images/{}', 'images', 'result.json', 'images'),
    ('images\\{}', 'images', 'result.json', '.'),
    ('..\\..\\label-studio\\media\\upload\\4\\{}', 'images', 'result.json', 'images'),
    ('/home/ann/set/images/{}', 'images', 'result.json', 'images'),
    ('C:\\Users\\Ann\\{}', 'images', 'result.json', None),
    ('https://server/set/{}', 'images', 'result.json', 'images'),
    ('{}', 'images/default', 'annotations/instances_default.json', None),
    ('{}', 'val2017', 'annotations/instances_val2017.json', None),
    ('{}', 'deep/er', 'coco.json', None), ('default/{}', 'pics', 'coco.json', 'pics')])
def test_pictures_where_tools_put_them(tmp_path, name, folder, source, images):
    content = coco(tmp_path, images=folder)
    for row in content['images']:
        row['file_name'] = name.format(row['file_name'])
    options = {} if images is None else dict(images=tmp_path / images)
    report, samples = own(written(content, tmp_path / source), tmp_path / 'out', **options)
    assert areas(samples) == CARS and not report['left_out']


def test_the_subset_of_the_name_wins_over_others(tmp_path):
    coco(tmp_path, images='train2017')
    content = coco(tmp_path, images='val2017')
    for k in range(3):
        picture(tmp_path / f'train2017/{k}.png', k + 10)
    own(written(content, tmp_path / 'annotations/instances_val2017.json'), tmp_path / 'out')
    rows = json.loads((tmp_path / 'out/annotations/train.json').read_text())
    assert rows['images'] and not (tmp_path / 'out/images').exists()


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_names_in_both_normal_forms(tmp_path, form):
    other = 'NFD' if form == 'NFC' else 'NFC'
    content = coco(tmp_path, name=unicodedata.normalize(form, 'Häuschen_{}.png'))
    for row in content['images']:
        row['file_name'] = unicodedata.normalize(other, row['file_name'])
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert set(areas(samples).values()) == {600} and len(samples) == 3


def test_one_file_for_two_records_is_used_for_neither(tmp_path):
    content = coco(tmp_path, count=4)
    content['images'][3]['file_name'] = 'elsewhere/0.png'
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {key: 600 for key in list(CARS)[1:]}
    assert report['left_out']['picture'] == {'picture of several records, each a part of it': 2}


# --- bits --------------------------------------------------------------------------------------
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_bits_of_a_set_are_those_it_uses(tmp_path, bits, suffix):
    """labelImg #828, plantcv #1804: 12 bits in a file of 16."""
    content = coco(tmp_path)
    content['images'] = [dict(row, file_name=f'{row["id"]}.{suffix}') for row in content['images']]
    for k in range(3):  # one white for the set: the second picture is half as bright
        values = np.zeros((48, 64), np.uint16)
        values[10:30, 10:40] = (2**bits - 1) // (2 if k == 1 else 1)
        values[0, 0] = k
        Image.fromarray(values).save(tmp_path / f'images/{k}.{suffix}')
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    means = {Path(name).stem: round(float(image[mask].mean())) for (name, _), (image, mask)
             in samples.items()}
    assert means == {'0': 255, '1': 127, '2': 255}
    assert report['decided'] == {
        f'picture of more than 8 bits: {2**bits - 1} is white (--white tells otherwise)': 3}
    _, samples = own(tmp_path / 'coco.json', tmp_path / 'other', white=65535)
    assert max(image.max() for image, _ in samples.values()) == round((2**bits - 1) / 257)


def test_colours_of_twelve_bits(tmp_path):
    cv2 = pytest.importorskip('cv2')
    content = coco(tmp_path)
    for k in range(3):
        values = np.zeros((48, 64, 3), np.uint16)
        values[10:30, 10:40] = 0, 0, 4095  # red, as OpenCV writes it
        values[0, 0] = k
        cv2.imwrite(str(tmp_path / f'images/{k}.png'), values)
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert {tuple(image[mask].mean(0)) for image, mask in samples.values()} == {(255.0, 0.0, 0.0)}


# --- links and safety --------------------------------------------------------------------------
def test_a_picture_of_ones_own_is_never_written_over(tmp_path):
    content = coco(tmp_path / 'set')
    exif = Image.Exif()
    exif[0x0112] = 3
    for k in range(3):
        picture(tmp_path / f'set/images/{k}.png', k, exif=exif)
    before = {path: path.read_bytes() for path in (tmp_path / 'set/images').iterdir()}
    from simpleseg_mm.annotation.own_account import Account
    from simpleseg_mm.annotation.own_data import Choices, convert
    from simpleseg_mm.annotation.own_folder import OwnFolder
    from simpleseg_mm.annotation.own_files import read_own
    from simpleseg_mm.annotation.own_formats import Reading
    path, account = written(content, tmp_path / 'set/coco.json'), Account()
    done = convert(tmp_path / 'set', [read_own(path, Reading(), account)],
                   Choices(exif='upright', share=0.4), account,
                   OwnFolder(tmp_path / 'set').is_ours)
    assert all(path.read_bytes() == raw for path, raw in before.items())
    assert len({Path(one).name for one in map(str, done.written)} & {'0_1.png', '1_1.png'}) == 2


def test_a_broken_polygon_beside_others_loses_its_object(tmp_path):
    content = coco(tmp_path)
    content['annotations'][0]['segmentation'] = [SQUARE, [1, 2, 3, 4, 5, 6, 7]]
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {key: 600 for key in list(CARS)[1:]}
    assert report['left_out']['annotation'] == {'broken segmentation': 1}


def test_names_in_other_capitals_are_not_asked_where_each_means_a_part(tmp_path):
    content = coco(tmp_path, objects=2)
    content['categories'].append(dict(id=2, name='Car'))
    content['annotations'][1]['category_id'] = 2  # of 0.png, beside a car
    content['annotations'][2]['category_id'] = content['annotations'][3]['category_id'] = 2
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', absent=1)
    assert areas(samples) == {('1.png', 'Car'): 825, ('2.png', 'car'): 825}
    assert report['left_out']['query'] == {'query whose truth is incomplete: another object has '
                                           'the text in other capitals: give both one text': 2}


def test_expressions_in_other_capitals(tmp_path):
    content = coco(tmp_path, objects=2)
    phrases = ['The car', 'the car', ['A car', 'a car'], 'x', 'y', 'z']
    for one, phrase in zip(content['annotations'], phrases):
        one['phrase'] = phrase
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {('1.png', 'A car'): 600, ('1.png', 'a car'): 600,
                              ('1.png', 'x'): 225, ('2.png', 'y'): 600, ('2.png', 'z'): 225}


@pytest.mark.parametrize('nothing', [[], [[]], None])
def test_no_outline_is_a_box_alone(tmp_path, nothing):
    content = coco(tmp_path)
    each('annotations', 'segmentation', lambda _: nothing)(content)
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', boxes='take')
    assert areas(samples) == CARS


@pytest.mark.parametrize('ring, area', [
    ([-9, -9, 10, -9, 10, 10, -9, 10], 100), ([50, 10, 80, 10, 80, 60, 50, 60], 532)])
def test_outlines_that_are_cut_are_counted(tmp_path, ring, area):
    content = coco(tmp_path)
    content['annotations'][0]['segmentation'] = [ring]
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert areas(samples) == {**CARS, ('0.png', 'car'): area}
    assert report['changed'] == {'outline that reaches beyond its picture, cut at its border': 1}


@pytest.mark.parametrize('suffix, several', [('gif', 1), ('tif', 1), ('png', 0), ('webp', 0)])
def test_pictures_of_several_frames_are_counted(tmp_path, suffix, several):
    content = coco(tmp_path, name='{}.' + suffix)
    path = tmp_path / f'images/0.{suffix}'
    more = dict(save_all=True, append_images=[Image.new('RGB', (64, 48))]) if several else {}
    Image.open(path).convert('RGB').save(path, **more)
    report, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert sum(report['decided'].values()) == several and len(samples) == 3


def test_versions_of_one_photo_stay_together(tmp_path):  # Roboflow augments before it exports
    content = coco(tmp_path, count=12)
    for k, row in enumerate(content['images']):
        name = f'photo{k // 4}_jpg.rf.{k:032x}.png'
        (tmp_path / 'images' / row['file_name']).rename(tmp_path / 'images' / name)
        row['file_name'] = name
    for seed in range(4):
        report, _ = own(written(content, tmp_path / 'coco.json'), tmp_path / f'{seed}', seed=seed)
        names = [{row['file_name'].split('_')[0] for row in json.loads(
            (tmp_path / f'{seed}/annotations/{split}.json').read_text())['images']}
            for split in ('train', 'val')]
        assert not names[0] & names[1] and len(names[0] | names[1]) == 3
        assert report['val']['images'] == 4 and sum(report['decided'].values()) == 12


@pytest.mark.parametrize('row, text', [
    (dict(ann_id=-1, image_id=0), 0), (dict(ann_id='-1', image_id='0'), 0),
    (dict(ann_id=[-1.0], image_id=0.0), 0), (dict(ann_id='1', image_id='0'), 600),
    (dict(ann_id=1, image_id=None), 600), (dict(ann_id=1, image_id=2), None)])
def test_ids_of_expressions(tmp_path, row, text):
    path = written(coco(tmp_path), tmp_path / 'coco.json')
    rows = [dict(row, sentences=['a b']), *(dict(ann_id=k, sentences=['it']) for k in (1, 2, 3))]
    _, samples = own(path, tmp_path / 'out', expressions=written(rows, tmp_path / 'rows.json'))
    expected = {(f'{k}.png', 'it'): 600 for k in range(3)}
    assert areas(samples) == expected | ({} if text is None else {('0.png', 'a b'): text})


def test_expressions_in_a_pickle_are_read_as_in_json(tmp_path):
    """RefCOCO's own form, with rows that are no references of a set."""
    path = written(coco(tmp_path), tmp_path / 'coco.json')
    rows = [*(dict(ann_id=k, sentences=[dict(sent=f'it {k}', sent_id=0)]) for k in (1, 2, 3)),
            dict(ann_id='1', image_id='0', sentences=['a b']), dict(sentences=['lost']), 7]
    expressions = tmp_path / 'rows.p'
    expressions.write_bytes(pickle.dumps(rows, 2))
    report, samples = own(path, tmp_path / 'out', expressions=expressions)
    assert areas(samples) == {('0.png', 'it 1'): 600, ('1.png', 'it 2'): 600,
                              ('2.png', 'it 3'): 600, ('0.png', 'a b'): 600}
    assert report['left_out']['expression'] == {
        'row of expressions without ann_id or sentences': 2}


def test_a_second_run_does_not_find_what_the_first_has_written(tmp_path):
    content = coco(tmp_path, images='deep/er')
    for k in range(3):
        grey = np.full((48, 64), 16 * k, np.uint16)
        Image.fromarray(grey).save(tmp_path / f'deep/er/{k}.png')
    path = written(content, tmp_path / 'coco.json')
    for _ in range(2):
        _, samples = own(path, tmp_path / 'out', passed_over=tmp_path / 'out')
        assert areas(samples) == CARS


@pytest.mark.parametrize('raw, message', [
    (b'<annotations/>', "Label Studio's 'JSON'"), (b'PK\3\4\0\0', "Label Studio's 'JSON'"),
    (b'[{"image": "a.png", "label": []}]', "Label Studio's 'JSON'"),  # its JSON-MIN
    (b'[{"annotations": [], "data": {"image": "a.png"}}]', 'task without an annotation'),
    (b'{"a.png12": {"filename": "a.png", "regions": []}}', "Label Studio's 'JSON'")])
def test_other_exports_are_told_what_to_export(tmp_path, raw, message):
    (tmp_path / 'a.json').write_bytes(raw)
    with pytest.raises(ValueError, match=f'^[^\n]*{message}[^\n]*$'):
        own(tmp_path / 'a.json', tmp_path / 'out')


def test_an_encoding_that_nothing_shows_is_counted(tmp_path):
    content = coco(tmp_path)
    content['categories'][0]['name'] = '汽车'
    (tmp_path / 'coco.json').write_bytes(json.dumps(content, ensure_ascii=False).encode('gbk'))
    report, _ = own(tmp_path / 'coco.json', tmp_path / 'out')
    assert [key for key in report['left_out_or_changed'] if 'not in UTF-8' in key]


def test_lvis_tells_what_is_absent(tmp_path):
    content = coco(tmp_path)
    content['categories'] += [dict(id=2, name='dog'), dict(id=3, name='cat')]
    for k, category in enumerate((1, 2, 3)):
        content['annotations'][k]['category_id'] = category
        content['images'][k].update(neg_category_ids=[[2], [], [1, 2]][k],
                                    not_exhaustive_category_ids=[])
    path = written(content, tmp_path / 'coco.json')
    _, samples = own(path, tmp_path / 'out', absent=3)
    expected = {('0.png', 'car'): 600, ('0.png', 'dog'): 0, ('1.png', 'dog'): 600,
                ('2.png', 'cat'): 600, ('2.png', 'car'): 0, ('2.png', 'dog'): 0}
    assert areas(samples) == expected
    data = CocoQueryDataset(str(tmp_path), 'coco.json', 'images', targets='category', absent=3)
    infos = map(data.get_data_info, range(len(data)))
    assert {(Path(info['img_path']).name, info['text']) for info in infos} == set(expected)


def test_boxes_that_cvat_turned(tmp_path):
    content = coco(tmp_path)
    for one, angle in zip(content['annotations'], (0, 90.0, 45)):
        one.update(segmentation=[], bbox=[20, 20, 20, 10], attributes=dict(rotation=angle))
    _, samples = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out', boxes='take')
    boxes = [np.argwhere(samples[f'{k}.png', 'car'][1]) for k in range(3)]
    assert [(*one.min(0).tolist(), *(one.max(0) + 1).tolist()) for one in boxes[:2]] == [
        (20, 20, 30, 40), (15, 25, 35, 35)]  # top, left, bottom, right
    mask = samples['2.png', 'car'][1]
    assert mask[19, 24] and mask[30, 35] and not mask[30, 24] and not mask[19, 35]


def test_several_files_of_one_name_are_told_apart(tmp_path):
    for split in ('train', 'valid'):
        written(coco(tmp_path / split), tmp_path / split / '_annotations.coco.json')
    with pytest.raises(ValueError, match='train/_annotations.coco.json and valid/_anno.*--val'):
        own(tmp_path, tmp_path / 'out')
