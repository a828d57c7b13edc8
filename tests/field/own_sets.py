"""The smallest sets of one's own, converted in this process, and what training reads of them."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

import simpleseg_mm.datasets  # noqa: F401  registers
from simpleseg_mm.annotation.own_account import Account
from simpleseg_mm.annotation.own_data import Choices, convert
from simpleseg_mm.annotation.own_files import read_own
from simpleseg_mm.annotation.own_formats import Reading
from simpleseg_mm.datasets import CocoQueryDataset

SIZE = (64, 48)  # width, height
SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]  # 600 pixels
SMALL = [45, 5, 60, 5, 60, 20, 45, 20]  # 225 pixels
READING = ('images', 'expressions', 'boxes', 'crowds', 'passed_over')


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options) -> Path:
    """A picture of noise, width and height in ``size``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def coco(root: Path, count: int = 3, objects: int = 1, images: str = 'images',
         name: str = '{}.png') -> dict:
    """A COCO set, pictures below ``root/images``: a car of 600 pixels in each, a second of 225."""
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='car')])
    for k in range(count):
        picture(root / images / name.format(k), k)
        content['images'].append(dict(id=k, file_name=name.format(k), width=64, height=48))
        for ring in (SQUARE, SMALL)[:objects]:
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=k, category_id=1, iscrowd=0,
                bbox=[ring[0], ring[1], ring[2] - ring[0], ring[5] - ring[1]],
                segmentation=[ring]))
    return content


def shape(points, label: str = 'car', kind: str = 'polygon', **more) -> dict:
    """A shape of LabelMe."""
    return dict(dict(label=label, points=np.reshape(points, (-1, 2)).tolist(), shape_type=kind,
                     group_id=None, flags={}, description=''), **more)


def labelme(root: Path, shapes: list, count: int = 3, **more) -> Path:
    """A folder of LabelMe files, each with the same shapes."""
    for k in range(count):
        picture(root / f'{k}.png', k)
        content = dict(dict(version='5.5.0', flags={}, shapes=shapes, imagePath=f'{k}.png',
                            imageData=None, imageHeight=48, imageWidth=64), **more)
        (root / f'{k}.json').write_text(json.dumps(content))
    return root


def written(content, path: Path) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def own(path: Path, out: Path, **options) -> tuple[dict, dict]:
    """Convert; the account, and ``{(picture's name, text): (image, mask)}`` of training.

    ``options`` are those of ``Reading`` and ``Choices``; the last set is ``val=path``.
    """
    reading = Reading(**{key: options.pop(key) for key in READING if key in options})
    val = options.pop('val', None)
    account = Account()
    out.mkdir(parents=True, exist_ok=True)
    sets = [read_own(one, reading, account) for one in (path, val) if one is not None]
    done = convert(out, sets, Choices(**dict(dict(share=0.4, explicit=bool(reading.expressions)),
                                             **options)), account)
    found: dict = {}
    for split in ('train', 'val'):
        if not sum(done.report[split]['queries'].values()):
            continue
        data = CocoQueryDataset(str(out), f'annotations/{split}.json', str(done.img_dir),
                                targets='phrase', test_mode=True)
        for k in range(len(data)):
            item = data[k]
            sample = item['data_samples']
            key = Path(sample.img_path).name, sample.text
            assert key not in found
            found[key] = (item['inputs'].permute(1, 2, 0).numpy(), sample.gt_masks.masks[0] > 0)
    report = account.report()
    assert len(found) == report['used'].get('query', 0)
    return dict(report, **done.report), found


def areas(samples: dict) -> dict:
    """``{(name, text): pixels of the mask}``."""
    return {key: int(mask.sum()) for key, (_, mask) in samples.items()}
