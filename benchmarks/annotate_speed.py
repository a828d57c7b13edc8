"""Images a second of one core: the pipeline's CPU stages against a plain loop of OpenCV and json.

    python benchmarks/annotate_speed.py IMAGES ANNOTATIONS [--repeats 7] [--copies 1]

IMAGES is a folder, ANNOTATIONS a COCO file with their masks. Both sides do the same work on every
image: read the file, look whether it decodes, filter by size and aspect, perceptual hash, every
mask (from its RLE) to polygon text in the official SimpleSeg form (outer contours, Douglas-Peucker
at 0.005), write the untouched bytes and a JSON with boxes, RLE and text. 'with_clean' removes
small parts and holes of the masks before. Texts, RLE and areas of both are compared, object by
object. The peer is written as one would by hand: ``cv2.imdecode``, ``cv2.findContours`` and
``cv2.connectedComponentsWithStats`` on the mask, ``json.dumps``, a file each. Repeats of the two
alternate; times are processor time. The last line is JSON.
"""
import argparse
import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from measure import Skip, alternate, real_data, row
from pycocotools import mask as coco_mask

from simpleseg_mm.annotation.pipeline import ChunkRunner, Plan
from simpleseg_mm.annotation.stage import Stage
from simpleseg_mm.annotation.tar import members
from simpleseg_mm.annotation.writer import FOLDERS
from simpleseg_mm.polygon import mask_to_box, mask_to_rle, segmentation_to_mask
from simpleseg_mm.registry import STAGES

MIN_SIDE, MAX_ASPECT, EPSILON = 64, 4, 0.005


@STAGES.register_module()
class GivenMasks(Stage):
    """Objects with masks from a dict by file name: what detector and segmenter leave behind."""
    objects: dict = {}

    def process(self, samples) -> None:
        for sample in samples:
            sample.propose([dict(found) for found in self.objects[sample.meta['file']]])


def without_small(mask: np.ndarray) -> np.ndarray:
    """The peer's cleaning: parts below 1 % and holes below 0.5 % of the largest part."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = stats[1:, cv2.CC_STAT_AREA].max()
    for number in range(1, len(stats)):
        if stats[number, cv2.CC_STAT_AREA] < 0.01 * largest:
            mask[labels == number] = 0
    outside = np.pad(1 - mask, 1, constant_values=1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    for number in range(1, len(stats)):
        if number != labels[0, 0] and stats[number, cv2.CC_STAT_AREA] < 0.005 * largest:
            mask[labels[1:-1, 1:-1] == number] = 1
    return mask


def plain_loop(images: Path, objects: dict, out: Path, clean: bool) -> None:
    """The peer."""
    seen = set()
    for path in sorted(images.iterdir()):
        raw = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            continue
        h, w = image.shape[:2]
        if min(h, w) < MIN_SIDE or max(h, w) > MAX_ASPECT * min(h, w):
            continue
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32),
                          interpolation=cv2.INTER_AREA)
        low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
        seen.add(np.packbits(low > np.median(low[1:])).tobytes())
        rows = []
        for number, found in enumerate(objects[path.name]):
            mask, rle, area = coco_mask.decode(found['mask']), found['mask'], found['area']
            if clean:
                mask = without_small(mask)
                area = int(np.count_nonzero(mask))
                rle = coco_mask.encode(np.asfortranarray(mask))
                rle['counts'] = rle['counts'].decode()
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            polygons = []
            for contour in contours:
                ring = cv2.approxPolyDP(contour, EPSILON * cv2.arcLength(contour, True), True)
                polygons.append(np.round(ring[:, 0] / [w, h], 3).tolist())
            x1, y1, x2, y2 = found['box']
            rows.append(dict(id=number, category=found['category'], score=found['score'],
                             bbox=[x1, y1, x2 - x1, y2 - y1], area=area,
                             segmentation=rle, polygon=json.dumps(polygons)))
        (out / path.name).write_bytes(raw)
        (out / f'{path.stem}.json').write_text(json.dumps(dict(
            file_name=path.name, width=w, height=h, objects=rows)))


def pipeline(images: Path, out: Path, codec: dict, clean: bool) -> dict:
    """Ours: survey and main pass, as a run does them, in this process. Seconds of each stage."""
    plan = Plan.from_config(dict(
        reader=dict(type='ReadFolder', root=str(images), shard_size=256),
        stages=dict(image=dict(type='FilterImage', min_side=MIN_SIDE, max_aspect=MAX_ASPECT),
                    masks=dict(type='GivenMasks'),
                    clean=dict(type='CleanMasks', min_area=0, min_box_iou=0, max_sides=4,
                               max_iou=1.1),
                    polygon=dict(type='WritePolygons', codec=codec,
                                 min_iou=None if 'preset' in codec else 0.5),
                    duplicates=dict(type='FilterDuplicates', distance=0)),
        order=['image', 'masks', *(['clean'] if clean else []), 'polygon', 'duplicates']),
        str(out))
    for folder in FOLDERS:
        (out / folder).mkdir(parents=True, exist_ok=True)
    runner = ChunkRunner(plan, survey=False)
    hashing = runner.stages[-1]
    hashing.process = lambda samples: [hashing_of(sample) for sample in samples]
    seconds: dict = {}
    for file in runner.reader.files():
        for record in runner.run_file(file):
            for name, times in record['stages'].items():
                seconds[name] = seconds.get(name, 0) + times['seconds']
    return seconds


def hashing_of(sample) -> None:
    """The hash alone: copies of the images would all be dropped as duplicates."""
    from simpleseg_mm.annotation.filters import perceptual_hash
    perceptual_hash(sample.thumbnail)


def same_texts(ours: Path, theirs: Path) -> int:
    """Objects whose rings are the same set on both sides; raises where one differs."""
    def rings(text: str) -> set:
        return {tuple(sorted(map(tuple, ring))) for ring in json.loads(text)}

    count = 0
    for path in (ours / 'shards').glob('*.tar'):
        with open(path, 'rb') as tar:
            for name, offset, size in members(tar, path.stat().st_size):
                if name.endswith('.json'):
                    tar.seek(offset)
                    mine = json.loads(tar.read(size))['objects']
                    peer = json.loads((theirs / name).read_text())['objects']
                    for a, b in zip(mine, peer, strict=True):
                        assert rings(a['polygon']) == rings(b['polygon']), (name, a['id'])
                        assert a['segmentation'] == b['segmentation'] and a['area'] == b['area']
                        count += 1
    return count


def load(images: Path, annotations: Path, copies: int, root: Path) -> dict:
    """Copies of the images in one folder; their objects with RLE masks by file name."""
    content = json.loads(annotations.read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    by_image: dict = {}
    for annotation in content['annotations']:
        if not annotation.get('iscrowd'):
            by_image.setdefault(annotation['image_id'], []).append(annotation)
    objects = {}
    for image in content['images']:
        rows = []
        for annotation in by_image.get(image['id'], ()):
            mask = segmentation_to_mask(annotation['segmentation'], image['height'],
                                        image['width'])
            if mask.any():
                rows.append(dict(box=mask_to_box(mask).tolist(), mask=mask_to_rle(mask), score=1.0,
                                 category=names[annotation['category_id']],
                                 area=int(mask.sum())))
        for number in range(copies if rows else 0):
            name = f'{number}_{image["file_name"]}'
            shutil.copy(images / image['file_name'], root / name)
            objects[name] = rows
    return objects


def compare(name: str, root: Path, repeats: int, codec: dict, clean: bool) -> dict:
    """A row of images a second."""
    images, count = root / 'images', len(GivenMasks.objects)

    def fresh(way: str) -> None:
        shutil.rmtree(root / way, ignore_errors=True)
        (root / way).mkdir()

    seconds = alternate(dict(
        ours=lambda: pipeline(images, root / 'ours', codec, clean),
        peer=lambda: plain_loop(images, GivenMasks.objects, root / 'peer', clean)),
        repeats, before=fresh)
    if same_texts(root / 'ours', root / 'peer') != sum(map(len, GivenMasks.objects.values())):
        raise AssertionError('objects are missing')
    return row(name, *([count / s for s in seconds[way]] for way in ('ours', 'peer')),
               unit='images/s', more_is_better=True)


def rows(quick: bool = False) -> list:
    data = real_data()
    if data is None:
        raise Skip('no photos: set SIMPLESEG_DATA to the folder with coco_photos')
    photos = data / 'coco_photos'
    return measure(photos / 'images', photos / 'instances.json', *((1, 1) if quick else (7, 1)))[0]


def measure(images: Path, annotations: Path, repeats: int, copies: int) -> tuple:
    """Both rows, and images a second of each stage by codec."""
    cv2.setNumThreads(1)
    paper = dict(preset='paper', grammar='decimal3', epsilon=EPSILON)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / 'images').mkdir()
        GivenMasks.objects = load(images, annotations, copies, root / 'images')
        count = len(GivenMasks.objects)
        found = [compare(name, root, repeats, paper, clean)
                 for name, clean in (('annotate_plain', False), ('annotate_with_clean', True))]
        stages = dict(images=count, objects=sum(map(len, GivenMasks.objects.values())))
        for name, codec in (('paper', paper), ('default', dict(grammar='int1000', tokens=150))):
            shutil.rmtree(root / 'ours')
            seconds = pipeline(root / 'images', root / 'ours', codec, True)
            stages[name] = {k: round(count / v, 1) for k, v in seconds.items()}
    return found, stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', type=Path)
    parser.add_argument('annotations', type=Path)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--copies', type=int, default=1)
    found, stages = measure(**vars(parser.parse_args()))
    report = {**{r.pop('name'): r for r in found}, 'stages': stages}
    for key, value in report.items():
        print(f'{key:28} {value}')
    print(json.dumps(report))


if __name__ == '__main__':
    main()
