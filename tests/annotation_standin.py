"""What the tests of the annotation pipeline share: configs, images, stages that misbehave."""
import io
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from simpleseg_mm.annotation.stages import LocalEngine, ReadTars, Stage, annotate
from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.registry import STAGES

FAST = dict(preset='paper', grammar='decimal3')  # a quick codec where outlines do not matter


def jpeg(seed: int = 0, size=(64, 48), mode: str = 'RGB', **options) -> bytes:
    """A JPEG of smooth random content, (width, height)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8).astype(np.uint8))
    out = io.BytesIO()
    small.resize(size, Image.BICUBIC).convert(mode).save(out, 'JPEG', **options)
    return out.getvalue()


def folder_of(root: Path, count: int, **options) -> Path:
    """A folder with so many different JPEGs."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f'{number:03d}.jpg').write_bytes(jpeg(number, **options))
    return root


def photos(real_data: Path, root: Path, count: int) -> Path:
    """The first so many COCO photos."""
    root.mkdir(parents=True, exist_ok=True)
    for path in sorted((real_data / 'coco_photos/images').iterdir())[:count]:
        shutil.copy(path, root / path.name)
    return root


def config(reader: dict, **stages) -> dict:
    """A config of these stages in this order, after a tolerant image filter."""
    stages = dict(image=dict(type='FilterImage', min_side=1, max_aspect=1000)) | stages
    return dict(reader=reader, stages=stages, order=list(stages),
                custom_imports=dict(imports=['annotation_standin']))


def run(cfg: dict, work_dir: Path, workers: int = 0) -> dict:
    """Annotate by the local engine; the counts."""
    return annotate(cfg, str(work_dir), LocalEngine(workers)).as_dict()


def shards(work_dir: Path) -> dict[str, bytes]:
    """All shards and indices by name."""
    return {path.name: path.read_bytes() for path in sorted(Path(work_dir, 'shards').iterdir())}


@STAGES.register_module()
class BoxDetect(Stage):
    """Proposes one box in the middle of each image, or what ``boxes`` says.

    Args:
        wait: seconds an image.
        die_at: key of an image that kills the process.
        once: file; the process dies only as long as it is not there.
        fail_at: key of an image that raises.
    """

    def __init__(self, boxes=None, scores=None, wait=0, die_at='', once='',
                 fail_at='', category='thing', **kwargs):
        super().__init__(**kwargs)
        self.boxes, self.scores, self.wait = boxes, scores, wait
        self.die_at, self.once, self.fail_at = die_at, once, fail_at
        self.category = category

    def process(self, samples):
        for sample in samples:
            time.sleep(self.wait)
            if sample.key == self.fail_at:
                raise RuntimeError('no such\x00 kernel')
            if sample.key == self.die_at and not (self.once and Path(self.once).exists()):
                if self.once:
                    Path(self.once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            w, h = sample.width, sample.height
            boxes = self.boxes or [[w / 4, h / 4, w * 3 / 4, h * 3 / 4]]
            scores = self.scores or [0.9] * len(boxes)
            sample.propose([dict(box=list(map(float, box)), score=float(score),
                                 category=self.category)
                            for box, score in zip(boxes, scores)])


@STAGES.register_module()
class BoxSegment(Stage):
    """Fills each box but for its corner; ``empty``: masks without a pixel."""

    def __init__(self, empty=False, **kwargs):
        super().__init__(**kwargs)
        self.empty = empty

    def process(self, samples):
        for sample in samples:
            for found in sample.objects:
                mask = np.zeros((sample.height, sample.width), bool)
                x1, y1, x2, y2 = np.round(found['box']).astype(int)
                mask[y1:y2, x1:x2] = not self.empty
                mask[y1:y1 + 3, x1:x1 + 3] = False
                found['mask'] = mask_to_rle(mask)


@STAGES.register_module()
class KillingReader(ReadTars):
    """Dies in the second chunk of the file of this name."""

    def __init__(self, die_in, **kwargs):
        super().__init__(**kwargs)
        self.die_in = die_in

    def chunks(self, file, done):
        for number, chunk in enumerate(super().chunks(file, done)):
            if number and file.name == self.die_in:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk


def simple(reader: dict, **detect) -> dict:
    """Filter, one box an image, its mask, its polygon."""
    return config(reader, detect=dict(type='BoxDetect', batch_size=4, **detect),
                  select=dict(type='SelectBoxes'), segment=dict(type='BoxSegment'),
                  clean=dict(type='CleanMasks'), polygon=dict(type='WritePolygons', codec=FAST))
