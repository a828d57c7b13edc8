"""Annotated photos through the whole pipeline: what is written trains, adds up and repeats."""
import json
from pathlib import Path

import numpy as np
import pytest
from annotation_standin import photos, run, shards, simple
from mmengine.config import Config
from pycocotools.coco import COCO

from simpleseg_mm.annotation.export import write_coco, write_annotation_report
from simpleseg_mm.annotation.tar import members
from simpleseg_mm.annotation.writer import Totals
from simpleseg_mm.datasets import AnnotatedShardsDataset
from simpleseg_mm.polygon import TASKS, PolygonCodec, mask_iou, segmentation_to_mask

ROOT = Path(__file__).resolve().parents[1]
COUNT = 12


def oracle(real_data, root, shard_size=8) -> dict:
    cfg = Config.fromfile(ROOT / 'configs/annotation/coco_oracle.py')
    ann_file = str(real_data / 'coco_photos/instances.json')
    cfg.reader.update(root=str(root), shard_size=shard_size)
    cfg.stages.detect.ann_file = cfg.stages.segment.ann_file = ann_file
    return cfg


@pytest.fixture(scope='module')
def annotated(real_data, tmp_path_factory):
    root = tmp_path_factory.mktemp('oracle')
    images = photos(real_data, root / 'images', COUNT)
    cfg = oracle(real_data, images)
    return root / 'run', cfg, run(cfg, root / 'run')


def truth(real_data, names=None) -> dict:
    coco = json.loads((real_data / 'coco_photos/instances.json').read_text())
    sizes = {image['id']: image for image in coco['images']}
    return {a['id']: segmentation_to_mask(a['segmentation'], sizes[a['image_id']]['height'],
                                          sizes[a['image_id']]['width'])
            for a in coco['annotations'] if not a.get('iscrowd')
            and (names is None or sizes[a['image_id']]['file_name'] in names)}


def check_ceiling(work_dir, masks):
    """Every annotation once; its mask exactly; its text as good as the codec alone."""
    codec, seen = PolygonCodec(), {}
    for path in sorted((work_dir / 'shards').glob('*.tar')):
        with open(path, 'rb') as tar:
            for name, offset, size in members(tar, path.stat().st_size):
                if name.endswith('.json'):
                    tar.seek(offset)
                    for found in json.loads(tar.read(size))['objects']:
                        assert found['ann_id'] not in seen
                        seen[found['ann_id']] = found
    assert seen.keys() == masks.keys()
    for ann_id, mask in masks.items():
        found = seen[ann_id]
        assert np.array_equal(segmentation_to_mask(found['segmentation'], *mask.shape), mask)
        assert found['polygon'] == codec.encode(mask)
        fit = mask_iou(codec.decode(found['polygon'], mask.shape).mask, mask)
        assert found['polygon_iou'] == pytest.approx(fit, abs=1e-4)
    return np.mean([found['polygon_iou'] for found in seen.values()])


def test_what_is_written_is_at_the_codec_s_ceiling(real_data, annotated):
    work_dir, _, _ = annotated
    names = {path.name for path in (work_dir.parent / 'images').iterdir()}
    assert check_ceiling(work_dir, truth(real_data, names)) > 0.95


@pytest.mark.slow
def test_all_photos_at_the_codec_s_ceiling(real_data, tmp_path):
    cfg = oracle(real_data, real_data / 'coco_photos/images', 64)
    counts = run(cfg, tmp_path, 2)['counts']
    assert counts['images']['entered'] == 131
    assert check_ceiling(tmp_path, truth(real_data)) > 0.97


def test_counts_add_up(annotated):
    work_dir, _, counts = annotated
    assert counts['counts']['images']['entered'] == COUNT
    for kind in counts['counts'].values():
        assert kind['entered'] == kind['written'] + sum(kind['dropped'].values())
    names = {path.stem for path in (work_dir / 'ledger').iterdir()}
    assert names == {f'images-{k:06d}' for k in range(2)}
    assert not list((work_dir / 'in_work').iterdir())


def test_jpeg_bytes_are_untouched(annotated):
    work_dir, _, _ = annotated
    written = {}
    for path in (work_dir / 'shards').glob('*.tar'):
        with open(path, 'rb') as tar:
            for name, offset, size in members(tar, path.stat().st_size):
                tar.seek(offset)
                written[name] = tar.read(size)
    for path in (work_dir.parent / 'images').iterdir():
        if path.name in written:
            assert written[path.name] == path.read_bytes()


def test_a_second_run_writes_the_same_and_a_third_does_nothing(annotated, tmp_path):
    work_dir, cfg, counts = annotated
    again = run(cfg, tmp_path)
    assert shards(tmp_path) == shards(work_dir)
    assert again['counts'] == counts['counts']
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'shards').iterdir()}
    assert run(cfg, tmp_path)['counts'] == counts['counts']
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / 'shards').iterdir()}


def test_another_config_or_input_is_refused(tmp_path, real_data):
    images = photos(real_data, tmp_path / 'images', 3)
    reader = dict(type='ReadFolder', root=str(images))
    run(simple(reader), tmp_path / 'run')
    changed = simple(reader)
    changed['stages']['select']['iou'] = 0.5
    with pytest.raises(ValueError, match=r'stages\.select\.iou'):
        run(changed, tmp_path / 'run')
    photos(real_data, tmp_path / 'images', 4)
    with pytest.raises(ValueError, match='input has changed'):
        run(simple(reader), tmp_path / 'run')


def test_the_training_set_keeps_refcoco_s_contract(real_data, annotated):
    work_dir, _, _ = annotated
    masks = truth(real_data)
    query = dict(tasks={name: 1.0 for name, task in TASKS.items() if not task.named}, turns=3)
    dataset = AnnotatedShardsDataset(str(work_dir), query=query)
    codec, tasks = PolygonCodec(), set()
    assert len(dataset) > COUNT
    for index in (*range(len(dataset)), *range(3 * len(dataset), 3 * len(dataset) + 30)):
        packed = dataset[index]
        sample = packed['data_samples']
        tasks.add(sample.task)
        assert packed['inputs'].shape[1:] == sample.ori_shape
        assert sample.img_id == index % len(dataset) and 1 <= len(sample.turns) <= 3
        if sample.task == 'text2mask':
            decoded = codec.decode(sample.answer, sample.ori_shape).mask
            mask = sample.gt_masks.masks[0] > 0
            assert any(np.array_equal(mask, m) for m in masks.values() if m.shape == mask.shape)
            assert mask_iou(decoded, mask) > 0.5
    assert len(tasks) > 8
    first, again = dataset[5]['data_samples'], dataset[5]['data_samples']
    assert (first.prompt, first.answer) == (again.prompt, again.answer)
    assert len(AnnotatedShardsDataset([str(work_dir)] * 2, indices=7)) == 7
    with pytest.raises(ValueError, match='no object with a text'):
        len(AnnotatedShardsDataset(str(work_dir), categories=False))
    with pytest.raises(FileNotFoundError, match='tools/annotate.py'):
        len(AnnotatedShardsDataset(str(work_dir / 'shards')))


def test_a_category_names_an_object_only_where_it_is_alone(annotated):
    work_dir, _, _ = annotated
    dataset = AnnotatedShardsDataset(str(work_dir))
    infos = [dataset.get_data_info(k) for k in range(len(dataset))]
    assert len({(info['image_id'], info['text']) for info in infos}) == len(infos)


def test_coco_file_and_report(real_data, annotated):
    work_dir, _, counts = annotated
    written = write_coco(str(work_dir), str(work_dir / 'coco.json'))
    assert written['annotations'] == counts['counts']['objects']['written']
    coco, masks = COCO(str(work_dir / 'coco.json')), truth(real_data)
    assert len(coco.imgs) == counts['counts']['images']['written']
    for annotation in coco.anns.values():
        assert np.array_equal(coco.annToMask(annotation) > 0, masks[annotation['ann_id']])
    totals = Totals()
    for path in (work_dir / 'ledger').iterdir():
        totals.add(json.loads(path.read_text()))
    text = write_annotation_report(str(work_dir), totals, PolygonCodec(), pictures=3).read_text()
    assert text.count('<img src="data:image/jpeg') == 3 and 'person' in text


def test_pictures_of_different_form(tmp_path):
    """Tar and folder of the same images give the same annotations."""
    from annotation_standin import folder_of
    images = folder_of(tmp_path / 'images', 5, size=(300, 280))
    from simpleseg_mm.annotation.tar import pack
    parts, _ = pack([(p.name, p.read_bytes()) for p in sorted(images.iterdir())])
    (tmp_path / 'a.tar').write_bytes(b''.join(parts))
    one = run(simple(dict(type='ReadFolder', root=str(images))), tmp_path / 'folder')
    two = run(simple(dict(type='ReadTars', paths=str(tmp_path / '*.tar'))), tmp_path / 'tar')
    assert one['counts'] == two['counts'] and one['counts']['objects']['written'] == 5


def test_coco_json_is_read_by_the_other_half(tmp_path, monkeypatch, capsys):
    """By own_data.py and by CocoQueryDataset, through a link and from any working directory."""
    import runpy
    import sys

    from annotation_standin import folder_of

    from simpleseg_mm.datasets import CocoQueryDataset
    images = folder_of(tmp_path / 'images', 6, size=(128, 96))
    cfg = simple(dict(type='ReadFolder', root=str(images), shard_size=2),
                 category='traffic\u2028light\n\x07')
    run(cfg, tmp_path / 'run')
    for path in (tmp_path / 'run/shards').glob('*.npy'):
        assert (np.load(path)[:, 5] == -1).all()
    assert write_coco(str(tmp_path / 'run'), str(tmp_path / 'run/coco.json'))['images'] == 6
    coco = json.loads((tmp_path / 'run/coco.json').read_text())
    assert coco['categories'] == [dict(id=1, name='traffic light')]
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'run')
    monkeypatch.chdir(tmp_path / 'elsewhere')
    data = CocoQueryDataset('../link', 'coco.json', 'images', targets='category')
    assert [data[k]['data_samples'].text for k in range(len(data))] == ['traffic light'] * 6
    monkeypatch.setattr(sys, 'argv', ['own_data.py', '../link/coco.json', '../own', '--val',
                                      '0.4'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools/dataset_converters/own_data.py'), run_name='__main__')
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not end.value.code and report['train']['images'] + report['val']['images'] == 6
    assert report['left_out_or_changed'] == {}


def test_a_category_of_which_an_object_was_dropped_is_not_asked(tmp_path):
    """Two are proposed, one is too small: the image holds two all the same. Asked for all
    objects, the other half goes by the same rule."""
    from annotation_standin import folder_of

    from simpleseg_mm.datasets import CocoQueryDataset
    images = folder_of(tmp_path / 'images', 1, size=(128, 96))
    reader = dict(type='ReadFolder', root=str(images))
    asked, objects = {}, {}
    for name, boxes, scores in [
            ('small', [[10, 10, 60, 60], [90, 10, 94, 40]], [0.9, 0.9]),
            ('doubtful', [[10, 10, 60, 60], [90, 10, 120, 40]], [0.9, 0.1]),
            ('twice', [[10, 10, 60, 60], [11, 10, 60, 60]], [0.9, 0.8]),
            ('two', [[80, 10, 120, 60], [10, 10, 60, 60]], [0.9, 0.9])]:
        run(simple(reader, boxes=boxes, scores=scores), tmp_path / name)
        asked[name] = len(np.load(tmp_path / name / 'shards/images-000000.npy'))
        write_coco(str(tmp_path / name), str(tmp_path / name / 'coco.json'))
        image, = json.loads((tmp_path / name / 'coco.json').read_text())['images']
        assert image['not_exhaustive_category_ids'] == ([1] if name == 'small' else [])
        def load():
            return CocoQueryDataset(str(tmp_path / name), 'coco.json', 'images',
                                    targets='instances', query=dict(tasks=dict(text2masks=1.0)))
        if name == 'small':
            with pytest.raises(ValueError, match='no sample is left.*not annotated throughout'):
                load()
            continue
        sample = load()[0]['data_samples']
        objects[name] = [one['bbox'][0] for one in sample.instances]
    assert asked == dict(small=0, doubtful=1, twice=1, two=0)
    assert objects == dict(doubtful=[10], twice=[10], two=[80, 10])


RECORDS = dict(images=[dict(id=1, file_name='x/001.jpg', width=64, height=48),
                    dict(id=2, file_name='y/001.jpg', width=64, height=48),
                    dict(id=3, file_name='000.jpg', width=64, height=48),
                    dict(id='4', file_name='y\\002.jpg', width=64.0, height='48')],
            categories=[dict(id=1, name='car'), dict(id=2, name='man')],
            annotations=[
                dict(id=1, image_id=1, category_id=1, bbox=[8, 8, 20, 20],
                     segmentation=[8, 8, 28, 8, 28, 28, 8, 28]),  # flat
                dict(id=2, image_id=1, category_id=2, bbox=None, iscrowd=1,
                     segmentation=dict(size=[48, 64], counts=[0, 500, 2572])),
                dict(id=3, image_id=2, category_id=1, segmentation=[['8', 8, 28, 8, 28, 28]]),
                dict(id=4, image_id=2, category_id=1, segmentation='?'),
                dict(id=5, image_id=3, category_id=1, segmentation=None),
                dict(id=6, image_id=4, category_id='1', bbox=[8, 8, 20, 20],
                     segmentation=[[8, 8, 28, 8, 28, 28, 8, 28]])])


def test_records_are_found_by_their_whole_name(tmp_path):
    from annotation_standin import config, jpeg
    for number, name in enumerate(['x/001.jpg', 'y/001.jpg', 'y/002.jpg', 'x/000.jpg',
                                   'y/000.jpg', 'z/003.jpg']):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    ann_file = tmp_path / 'coco.json'
    ann_file.write_text(json.dumps(RECORDS))
    cfg = config(dict(type='ReadFolder', root=str(tmp_path / 'images')),
                 detect=dict(type='OracleDetect', ann_file=str(ann_file)),
                 segment=dict(type='OracleSegment', ann_file=str(ann_file)),
                 clean=dict(type='CleanMasks'))
    counts = run(cfg, tmp_path / 'run')['counts']
    assert counts['images'] == dict(entered=6, written=3, dropped={
        'detect: its record may be of another image of its name': 2,
        'detect: not in the annotations': 1})
    assert counts['objects'] == dict(entered=5, written=3, dropped={
        'detect: annotation unusable': 1, 'detect: crowd': 1})
    write_coco(str(tmp_path / 'run'), str(tmp_path / 'run/coco.json'), images=False)
    found = json.loads((tmp_path / 'run/coco.json').read_text())
    files = {image['id']: image['source']['file'] for image in found['images']}
    assert {files[a['image_id']]: a['ann_id'] for a in found['annotations']} == {
        'x/001.jpg': 1, 'y/001.jpg': 3, 'y/002.jpg': 6}
    names = {c['id']: c['name'] for c in found['categories']}
    assert {files[image['id']]: [names[k] for k in image['not_exhaustive_category_ids']]
            for image in found['images']} == {'x/001.jpg': ['man'], 'y/001.jpg': ['car'],
                                              'y/002.jpg': []}
    assert not (tmp_path / 'run/images').exists()


@pytest.mark.parametrize('change, message', [
    (dict(images=[*RECORDS['images'], dict(RECORDS['images'][0], file_name='z.jpg')]),
     'used twice'),
    (dict(annotations=RECORDS['annotations'] * 2), 'and 1 more'),
    (dict(categories=None), 'categories is None'), (dict(images=3), 'no COCO file')])
def test_a_coco_file_with_two_meanings_is_refused(tmp_path, change, message):
    from simpleseg_mm.annotation.stages import OracleDetect
    (tmp_path / 'coco.json').write_text(json.dumps({**RECORDS, **change}))
    with pytest.raises(ValueError, match=message) as error:
        OracleDetect(str(tmp_path / 'coco.json'))
    assert len(str(error.value).splitlines()) == 1 and 'coco.json' in str(error.value)


def test_the_other_half_does_not_ask_what_is_not_annotated_throughout(tmp_path):
    from annotation_standin import jpeg

    from simpleseg_mm.datasets import CocoQueryDataset
    ring = [8, 8, 28, 8, 28, 28, 8, 28]
    (tmp_path / 'images').mkdir()
    for number in range(4):
        (tmp_path / f'images/{number}.jpg').write_bytes(jpeg(number))
    (tmp_path / 'coco.json').write_text(json.dumps(dict(
        images=[dict(id=k, file_name=f'{k}.jpg', width=64, height=48,
                     not_exhaustive_category_ids=[1] if k == 2 else []) for k in range(4)],
        annotations=[dict(id=10 * k + c, image_id=k, category_id=c, segmentation=[ring], area=400,
                          bbox=[8, 8, 20, 20]) for k in range(4) for c in (1, 2)],
        categories=[dict(id=1, name='car'), dict(id=2, name='man')])))
    data = CocoQueryDataset(str(tmp_path), 'coco.json', 'images', targets='category')
    asked = sorted((Path(data.get_data_info(k)['img_path']).stem, data.get_data_info(k)['text'])
                   for k in range(len(data)))
    assert asked == sorted((str(k), name) for k in range(4) for name in ('car', 'man')
                           if (k, name) != (2, 'car'))
    from simpleseg_mm.annotation.own_account import Account
    from simpleseg_mm.annotation.own_coco import read_coco_set
    from simpleseg_mm.annotation.own_formats import Reading
    path = tmp_path / 'coco.json'
    own = read_coco_set(path, json.loads(path.read_text()), Reading(), Account())
    lost = [(Path(picture.path).stem, one.category) for picture in own.pictures
            for one in picture.objects if one.lost]
    assert lost == [('2', 'car')]
