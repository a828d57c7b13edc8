"""RefCOCODataset: one sentence a sample, joint sets, and one clear line for whatever is wrong."""
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as coco_mask

from simpleseg_mm.datasets import InfiniteVisitSampler, RefCOCODataset, RefShapesDataset
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.polygon import box_iou, mask_to_box
from simpleseg_mm.registry import DATA_SAMPLERS, DATASETS

SIZE = (20, 30)  # h, w
SPLITS = ('train', 'train', 'val', 'testA')


def make_set(root: Path, name: str = 'refcoco', split_by: str = 'unc', suffix: str = 'p',
             img_dir: str = 'train2014', first_image: int = 100, edit=None) -> Path:
    """A set of four images with two references each, two sentences a reference, 10x10 squares."""
    refs, images, annotations = [], [], []
    (root / img_dir).mkdir(parents=True, exist_ok=True)
    (root / name).mkdir(exist_ok=True)
    for k, split in enumerate(SPLITS):
        image_id = first_image + k
        file_name = f'COCO_train2014_{image_id:012d}.jpg'
        Image.new('RGB', SIZE[::-1], (40 * k, 0, 0)).save(root / img_dir / file_name)
        images.append(dict(id=image_id, file_name=file_name, height=SIZE[0], width=SIZE[1]))
        for j in range(2):
            x = 2 + 14 * j
            ann_id = image_id * 10 + j
            annotations.append(dict(
                id=ann_id, image_id=image_id, category_id=1, iscrowd=0, area=100,
                bbox=[x, 5, 10, 10],
                segmentation=[[x, 5, x + 10, 5, x + 10, 15, x, 15]]))
            sent_id = len(refs) * 2
            refs.append(dict(
                ref_id=len(refs), ann_id=ann_id, image_id=image_id, split=split,
                file_name=file_name.replace('.jpg', f'_{j}.jpg'), category_id=1,
                sentences=[dict(sent_id=sent_id + s, sent=f'{name} {image_id} {j} {s}')
                           for s in range(2)]))
    if edit:
        edit(refs, images, annotations)
    refs_path = root / name / f'refs({split_by}).{suffix}'
    refs_path.write_bytes(pickle.dumps(refs, 2) if suffix == 'p' else json.dumps(refs).encode())
    (root / name / 'instances.json').write_text(
        json.dumps(dict(images=images, annotations=annotations)))
    return root


def build(root: Path, sources=(dict(name='refcoco', split='train'),), **kwargs) -> RefCOCODataset:
    kwargs.setdefault('serialize_data', False)  # serialising runs the garbage collector: slow
    return RefCOCODataset(str(root), list(sources), **kwargs)


@pytest.mark.parametrize('suffix, serialize', [('p', True), ('json', False)])
def test_one_sentence_a_sample(tmp_path, suffix, serialize):
    dataset = build(make_set(tmp_path, suffix=suffix), serialize_data=serialize)
    assert len(dataset) == 8
    infos = [dataset.get_data_info(i) for i in range(8)]
    assert [info['img_id'] for info in infos] == list(range(8))
    info = infos[3]
    assert info['img_path'] == str(tmp_path / 'train2014' / 'COCO_train2014_000000000100.jpg')
    assert {key: info[key] for key in ('image_id', 'ref_id', 'sent_id', 'ann_id', 'text', 'height',
                                       'width', 'split', 'source')} == dict(
        image_id=100, ref_id=1, sent_id=3, ann_id=1001, text='refcoco 100 1 1', height=20,
        width=30, split='train', source='refcoco')
    assert info['instances'] == [dict(bbox=[16, 5, 26, 15], bbox_label=0, ignore_flag=0,
                                      mask=[[16, 5, 26, 5, 26, 15, 16, 15]])]
    assert dataset.metainfo['classes'] == ('object',)


def test_sample_as_the_evaluators_need_it(tmp_path):
    sample = build(make_set(tmp_path))[3]
    assert sample['inputs'].shape == (3, 20, 30) and sample['inputs'].dtype == torch.uint8
    data = sample['data_samples']
    assert data.ori_shape == (20, 30) and data.img_id == 3 and data.text == 'refcoco 100 1 1'
    mask = data.gt_masks.masks
    assert mask.shape == (1, 20, 30) and mask.sum() == 100 and mask[0, 5:15, 16:26].all()
    assert data.turns == [(data.prompt, data.answer)] and data.task == 'text2mask'
    assert data.codec == 'int1000/default'


def test_text_coordinates_are_shares_of_width_and_height(tmp_path):
    query = dict(tasks=dict(text2box=1), templates='single')
    data = build(make_set(tmp_path), query=query)[3]['data_samples']
    assert data.answer == '[533,250,867,750]'  # 16/30, 5/20, 26/30, 15/20
    assert data.prompt == 'Output the bounding box of refcoco 100 1 1 in the image.'


@pytest.mark.parametrize('blank', ['', ' \n', '\u200b', '\ufeff\xa0'])
@pytest.mark.parametrize('bad_samples', ['error', 'skip'])
def test_a_blank_sentence_is_left_out_and_counted(tmp_path, blank, bad_samples):
    def edit(refs, images, annotations):
        refs[1]['sentences'][0]['sent'] = blank
        refs[4]['sentences'][0]['sent'] = blank  # of val, which is not asked for
        refs[0]['sentences'][0]['sent'] = '.'  # seen, if odd
    dataset = build(make_set(tmp_path, edit=edit), bad_samples=bad_samples)
    found = [(info['text'], info['sent_id']) for info in map(dataset.get_data_info, range(7))]
    assert found[:4] == [('.', 0), ('refcoco 100 0 1', 1), ('refcoco 100 1 1', 3),
                         ('refcoco 101 0 0', 4)]
    assert (len(dataset), dataset.read, dict(dataset.skipped)) == (7, 8, {'blank sentence': 1})


def test_joint_sets_keep_their_own_images(tmp_path):
    make_set(tmp_path)
    make_set(tmp_path, 'refcocog', 'umd', first_image=200)
    make_set(tmp_path, 'refclef', 'unc', img_dir='saiapr_tc-12')
    dataset = build(tmp_path, [dict(name='refcoco', split=['train', 'val']),
                               dict(name='refcocog', split='train'),
                               dict(name='refclef', split='testA')])
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert len(infos) == 12 + 8 + 4
    assert [info['img_id'] for info in infos] == list(range(24))
    assert {(info['source'], Path(info['img_path']).parent.name) for info in infos} == {
        ('refcoco', 'train2014'), ('refcocog', 'train2014'), ('refclef', 'saiapr_tc-12')}
    assert all(info['text'].startswith(info['source'] + ' ') for info in infos)


def test_string_ids_and_rle_lists_of_refclef(tmp_path):
    def edit(refs, images, annotations):
        for item in (*refs, *annotations):
            key = 'id' if 'id' in item else 'ann_id'
            item[key] = f'{item["image_id"]}_{item[key] % 10}'
        mask = np.zeros(SIZE, np.uint8)
        mask[5:15, 2:7] = 1
        rles = [coco_mask.encode(np.asfortranarray(m)) for m in (mask, np.roll(mask, 5, 1))]
        annotations[0]['segmentation'] = [
            dict(size=list(rle['size']), counts=rle['counts'].decode()) for rle in rles]
    make_set(tmp_path, 'refclef', img_dir='saiapr_tc-12', edit=edit)
    data = build(tmp_path, [dict(name='refclef', split='train')])[0]['data_samples']
    assert data.ann_id == '100_0' and data.gt_masks.masks[0, 5:15, 2:12].sum() == 100


def test_crowd_rle_with_list_counts(tmp_path):
    def edit(refs, images, annotations):
        annotations[0]['segmentation'] = dict(size=list(SIZE), counts=[40, 3, 20 * 30 - 43])
        annotations[0]['bbox'] = [2, 0, 1, 3]
    data = build(make_set(tmp_path, edit=edit))[0]['data_samples']
    assert data.gt_masks.masks.sum() == 3 and data.gt_masks.masks[0, :3, 2].all()


def test_several_and_absent_targets(tmp_path):
    def edit(refs, images, annotations):
        refs[0]['ann_id'] = [1000, 1001]
        refs[1].update(ann_id=[-1], category_id=[-1])
    dataset = build(make_set(tmp_path, 'grefcoco', edit=edit), [dict(name='grefcoco',
                                                                     split='train')])
    both, none = dataset[0]['data_samples'], dataset[2]['data_samples']
    assert both.gt_masks.masks.sum() == 200 and len(both.instances) == 2
    assert none.gt_masks.masks.sum() == 0 and none.answer == '[]' and none.instances == []


def drop_image(refs, images, annotations):
    del images[0]


def drop_annotation(refs, images, annotations):
    del annotations[1]


def segmentation(value):
    def edit(refs, images, annotations):
        annotations[1]['segmentation'] = value
    return edit


def foreign(refs, images, annotations):
    annotations[1]['image_id'] = 103


def no_box(refs, images, annotations):
    annotations[1]['bbox'] = [3, 3, 0, 5]


@pytest.mark.parametrize('edit, message, lost', [
    (drop_image, 'image_id 100 is not in', 4),
    (drop_annotation, 'ref_id 1: ann_id 1001 is not in', 2),
    (segmentation([[1, 1, 5, 5]]), 'ref_id 1: .*annotation 1001: degenerate polygon of 4', 2),
    (segmentation([]), 'annotation 1001: empty or unknown', 2),
    (segmentation([[1, 1, 5, float('nan'), 5, 5]]), 'no finite', 2),
    (segmentation(dict(size=[5, 5], counts=[1])), r'RLE size \[5, 5\], image .*\[20, 30\]', 2),
    (foreign, 'annotation 1001 is of image 103, not 100', 2),
    (no_box, r'annotation 1001: empty bbox \[3, 3, 0, 5\]', 2),
])
def test_bad_records_are_an_error_or_counted(tmp_path, caplog, edit, message, lost):
    make_set(tmp_path, edit=edit)
    with pytest.raises(ValueError, match=message) as error:
        build(tmp_path)
    assert 'refs(unc).p' in str(error.value) and '\n' not in str(error.value)
    dataset = build(tmp_path, bad_samples='skip')
    assert len(dataset) == 8 - lost and dataset.skipped.total() == lost
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == list(
        range(len(dataset)))


def test_missing_and_empty_images(tmp_path):
    make_set(tmp_path)
    path = tmp_path / 'train2014' / 'COCO_train2014_000000000101.jpg'
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='ref_id 2: .*0101.jpg is an empty file'):
        build(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="ref_id 2: there is no image .*0101.jpg.* train2014"):
        build(tmp_path)
    dataset = build(tmp_path, bad_samples='skip')
    assert len(dataset) == 4 and dict(dataset.skipped) == {'image file missing or empty': 4}


@pytest.mark.parametrize('damage', ['noise', 'truncated', 'other size'])
def test_a_broken_image_is_an_error_when_read_never_another_sample(tmp_path, damage):
    make_set(tmp_path)
    path = tmp_path / 'train2014' / 'COCO_train2014_000000000101.jpg'
    if damage == 'noise':
        path.write_bytes(b'not an image')
    elif damage == 'truncated':
        path.write_bytes(path.read_bytes()[:-40])
    else:
        Image.new('RGB', (31, 20)).save(path)
    dataset = build(tmp_path)
    assert dataset[3]['data_samples'].image_id == 100
    with pytest.raises(ValueError, match=r'refcoco train, ref_id 2, sent_id 4.*0101.jpg'):
        dataset[4]
    listed = tmp_path / 'bad.txt'
    listed.write_text(path.name + '\n')
    for names in ([path.name], str(listed)):
        dataset = build(tmp_path, skip_images=names)
        assert len(dataset) == 4 and dict(dataset.skipped) == {'listed in skip_images': 4}


def test_an_empty_mask_is_an_error_when_read(tmp_path):
    make_set(tmp_path, edit=segmentation([[1, 1, 1.2, 1, 1.2, 1.2]]))
    with pytest.raises(ValueError, match='ref_id 1, sent_id 2, ann_id 1001: the mask is empty'):
        build(tmp_path)[2]


def test_greyscale_images_and_orientation_tags(tmp_path):
    make_set(tmp_path)
    path = tmp_path / 'train2014' / 'COCO_train2014_000000000100.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # 'turn by 90 degrees': annotations are of the unturned pixels
    Image.new('L', SIZE[::-1], 77).save(path, exif=exif)
    image = build(tmp_path)[0]['inputs']
    assert image.shape == (3, 20, 30) and (image == 77).all()


@pytest.mark.parametrize('kwargs, error, message', [
    (dict(sources=[]), ValueError, 'at least one set'),
    (dict(sources=[dict(name='refcoco')]), ValueError, "needs 'name' and 'split'"),
    (dict(sources=[dict(name='refcoco', split='train', splitby='unc')]), ValueError, 'splitby'),
    (dict(sources=[dict(name='refcoco', split='test')]), ValueError,
     r"no split 'test'; it has \['testA', 'train', 'val'\]"),
    (dict(sources=[dict(name='refcoco', split='train', split_by='google')]), FileNotFoundError,
     r"split_by='google'.*refs\(unc\).p"),
    (dict(sources=[dict(name='refcoco+', split='train')]), FileNotFoundError, r'no folder .*\+'),
    (dict(sources=[dict(name='refcoco', split='train', img_dir='val2014')]), FileNotFoundError,
     'there is no image folder .*val2014'),
    (dict(bad_samples='ignore'), ValueError, "'error' or 'skip'"),
    (dict(exclude_eval_images=True), FileNotFoundError, r'no folder .*refcoco\+'),
    (dict(query=dict(tasks=dict(text2video=1))), ValueError, 'unknown tasks'),
])
def test_bad_arguments(tmp_path, kwargs, error, message):
    with pytest.raises(error, match=message):
        build(make_set(tmp_path), **kwargs)


def test_images_of_eval_splits_are_removed_from_train_alone(tmp_path):
    make_set(tmp_path)
    make_set(tmp_path, 'refcoco+', first_image=98)  # its val is image 100, its testA 101
    make_set(tmp_path, 'refcocog', 'umd', first_image=300)
    make_set(tmp_path, 'other', first_image=98)
    sources = [dict(name='refcoco', split=['train', 'val']), dict(name='other', split='train')]
    assert len(build(tmp_path, sources)) == 12 + 8
    removed = build(tmp_path, [dict(name='refcoco', split='val'), dict(name='refcoco+',
                                                                       split='train')],
                    exclude_eval_images=True)  # images 98 and 99 are in no eval split
    assert len(removed) == 4 + 8
    with pytest.raises(ValueError, match='no sample is left'):
        build(tmp_path, exclude_eval_images=True)
    kept = build(tmp_path, sources, exclude_eval_images=[dict(name='refcocog', split_by='umd')])
    assert len(kept) == 12 + 8
    mixed = build(tmp_path, sources, exclude_eval_images=True)  # 'other' has photos of its own
    assert {mixed.get_data_info(i)['source'] for i in range(len(mixed))} == {'refcoco', 'other'}
    assert len(mixed) == 4 + 8


@pytest.mark.parametrize('serialize', [True, False])
def test_subsets(tmp_path, serialize):
    make_set(tmp_path)
    assert [build(tmp_path, indices=3).get_data_info(i)['sent_id'] for i in range(3)] == [0, 1, 2]
    dataset = build(tmp_path, query=dict(turns=3), serialize_data=serialize)
    subset = dataset.get_subset([0, 1, 5])
    assert [subset.get_data_info(i)['sent_id'] for i in range(3)] == [0, 1, 5]
    assert [len(subset[i]['data_samples'].turns) for i in range(3)] == [1, 1, 1]
    assert [len(dataset[i]['data_samples'].turns) for i in range(3)] == [2, 2, 2]


def test_real_references(real_data):
    counts = {}
    for name, splits in (('refcoco', ['val', 'testB']), ('refcoco+', ['val', 'testB']),
                         ('refcocog', ['val', 'test'])):
        dataset = build(real_data / 'refcoco_mini',
                        [dict(name=name, split=splits, img_dir='images')], test_mode=True)
        counts[name] = len(dataset)
        for index in range(len(dataset)):
            sample = dataset[index]
            data = sample['data_samples']
            assert sample['inputs'].shape[1:] == data.ori_shape == data.gt_masks.masks.shape[1:]
            box = mask_to_box(data.gt_masks.masks[0])
            assert box_iou(box, np.array(data.instances[0]['bbox'])) > 0.95
            assert data.text in data.prompt and data.answer.startswith('[[[')
    assert counts == {'refcoco': 29, 'refcoco+': 27, 'refcocog': 9}


# Samplers and loaders


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp('refshapes')
    generate(root, dict(train=12, val=3), seed=1)
    return str(root)


QUERY = dict(tasks=dict(text2box=1, text2point=1, point2box=1), codec=dict(grammar='int100'))


def train_texts(root: str, workers: int = 0, skip: int = 0, batches: int = 40) -> list[str]:
    """Prompts and answers of the first batches of a training run."""
    loader = Runner.build_dataloader(dict(
        batch_size=4, num_workers=workers, sampler=dict(type='simpleseg_mm.InfiniteVisitSampler'),
        collate_fn=dict(type='collate_queries'),
        dataset=dict(type='simpleseg_mm.RefShapesDataset', data_root=root,
                     query=QUERY | dict(turns=2))), seed=5)
    texts = []
    for number, batch in enumerate(loader):
        if number >= skip:
            texts.append([sample.turns for sample in batch['data_samples']])
        if number == batches - 1:
            return texts


def test_samples_do_not_depend_on_workers_or_resuming(shapes):
    texts = train_texts(shapes)
    assert train_texts(shapes, workers=2) == texts
    assert train_texts(shapes, skip=30) == texts[30:]


def test_ranks_share_one_stream(shapes, monkeypatch):
    dataset = RefShapesDataset(shapes, query=QUERY)
    streams = []
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world))
        iterator = iter(InfiniteVisitSampler(dataset, seed=5))
        streams.append([next(iterator) for _ in range(400 // world)])
    assert [n for pair in zip(*streams[1:]) for n in pair] == streams[0]


def test_every_visit_is_a_permutation_with_other_choices(shapes):
    dataset = RefShapesDataset(shapes, query=QUERY)
    size = len(dataset)
    iterator = iter(InfiniteVisitSampler(dataset, seed=0))
    visits = [[next(iterator) for _ in range(size)] for _ in range(3)]
    for visit, indices in enumerate(visits):
        assert sorted(indices) == list(range(visit * size, (visit + 1) * size))
    assert [i % size for i in visits[0]] != [i % size for i in visits[1]]
    prompts = [[dataset[i + visit * size]['data_samples'].prompt for i in range(20)]
               for visit in range(2)]
    assert prompts[0] != prompts[1]
    assert prompts[0] == [dataset[i]['data_samples'].prompt for i in range(20)]
    with pytest.raises(IndexError):
        dataset[-1]


def test_evaluation_visits_each_sample_once(shapes):
    loader = Runner.build_dataloader(dict(
        batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False,
                                                  round_up=False),
        collate_fn=dict(type='collate_queries'),
        dataset=dict(type='simpleseg_mm.RefShapesDataset', data_root=shapes, split='val',
                     query=QUERY, test_mode=True)))
    ids = [sample.img_id for batch in loader for sample in batch['data_samples']]
    assert ids == list(range(len(loader.dataset))) and isinstance(loader.sampler, DefaultSampler)


def test_registered():
    assert DATASETS.get('RefCOCODataset') is RefCOCODataset
    assert DATA_SAMPLERS.get('InfiniteVisitSampler') is InfiniteVisitSampler
    with pytest.raises(ValueError, match='empty dataset'):
        next(iter(InfiniteVisitSampler([], seed=0)))
