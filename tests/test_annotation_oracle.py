"""Annotated photos through the whole pipeline: what is written trains, adds up and repeats."""
import json
from pathlib import Path

import numpy as np
import pytest
from annotation_standin import photos, run, shards, simple
from mmengine.config import Config
from pycocotools.coco import COCO

from simpleseg_mm.annotation.export import write_coco, write_report
from simpleseg_mm.annotation.tar import members
from simpleseg_mm.annotation.writer import Totals
from simpleseg_mm.datasets import AnnotatedShardsDataset
from simpleseg_mm.datasets.templates import TASKS
from simpleseg_mm.polygon import PolygonCodec, mask_iou, segmentation_to_mask

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
    query = dict(tasks={task: 1.0 for task in TASKS}, turns=3)
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
    text = write_report(str(work_dir), totals, PolygonCodec(), pictures=3).read_text()
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
