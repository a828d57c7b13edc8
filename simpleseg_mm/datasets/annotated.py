"""Shards of the annotation pipeline as a training set, read by random access."""
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from simpleseg_mm.registry import DATASETS, TRANSFORMS

from .base import QueryDataset, RawRecord
from .transforms import LoadImage

_MAX_OPEN = 64  # shards that a worker keeps open


@TRANSFORMS.register_module()
class LoadShardImage(LoadImage):
    """:class:`LoadImage` for an image inside a tar: ``img_path`` is the tar, ``img_place`` where.
    """

    def picture_bytes(self, results: dict) -> bytes:
        return results['shards'].read(results['img_path'], *results['img_place'])


class ShardFiles:
    """Open shards of one process; each worker opens its own."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._process = os.getpid()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Bytes of a tar. OSError where they are not there."""
        if self._process != os.getpid():
            self.__init__()
        if path not in self._files:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[path] = os.open(path, os.O_RDONLY)
        content = os.pread(self._files[path], size, offset)
        if len(content) != size:
            raise OSError(f'{path} ends before byte {offset + size}; take the shard again')
        return content

    def __getstate__(self) -> dict:
        return dict(_files={}, _process=-1)

    def __deepcopy__(self, memo) -> 'ShardFiles':
        return self


@DATASETS.register_module()
class AnnotatedShardsDataset(QueryDataset):
    """What ``tools/annotate.py`` wrote: one (object, text) a sample.

    Only the shards' indices are held in memory, 56 bytes a sample and MMEngine's overhead; image
    and annotation are read from the tar when a sample is asked for. Shards are taken in the order
    of their names. A shard whose run was killed before it was done has no index and is not read.

    Args:
        data_root: the work directory of the run, or several.
        categories: whether an object may be asked for by its category too, where the image holds
            no other of it.
        **kwargs: see :class:`QueryDataset`. What is in the shards has been checked: nothing is
            left out when loading.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: ``bad_samples`` or ``skip_images`` would leave samples out.
    """

    def __init__(self, data_root: str | Sequence[str], categories: bool = True,
                 pipeline: Sequence[dict] = (dict(type='LoadShardImage'),
                                             dict(type='LoadTargetMask')), **kwargs) -> None:
        if kwargs.get('bad_samples', 'error') != 'error' or kwargs.get('skip_images'):
            raise ValueError("annotated shards take neither bad_samples='skip' nor skip_images: "
                             'they are read sample by sample while training. Leave both out; '
                             'filter in the annotation config instead')
        self.roots = [data_root] if isinstance(data_root, str | Path) else list(data_root)
        self.categories = categories
        self._shards: list[str] = []
        self._files = ShardFiles()
        super().__init__(str(self.roots[0]), pipeline=pipeline, **kwargs)

    def read_records(self) -> Iterator[RawRecord]:
        """The rows of the shards' indices, shard by shard."""
        self._shards = []
        for root in self.roots:
            paths = sorted(Path(root, 'shards').glob('*.npy'))
            if not paths:
                raise FileNotFoundError(f'{root}/shards holds no shards; tools/annotate.py '
                                        'CONFIG --work-dir writes them there')
            for path in paths:
                rows = _index(path)
                if not self.categories:
                    rows = rows[rows[:, 5] >= 0]
                yield RawRecord(str(path), (len(self._shards), rows), len(rows))
                self._shards.append(str(path.with_suffix('.tar')))
        if not self.read:
            raise ValueError(f'the shards of {self.roots} hold no object with a text')

    def parse_data_info(self, raw: RawRecord) -> list[dict]:
        """One small record a sample: ``dict(row=(shard, index columns))``."""
        shard, rows = raw.content
        return [dict(row=(shard, *row)) for row in rows.tolist()]

    def image_key(self, stored: dict) -> tuple:
        """From the index alone."""
        return stored['row'][:2]

    def read_data_info(self, stored: dict) -> dict:
        """The record of a sample, read from its shard."""
        info = stored
        shard, image_offset, image_size, offset, size, number, text = info.pop('row')
        path = self._shards[shard]
        try:
            annotation = json.loads(self._files.read(path, offset, size))
            found = annotation['objects'][number]
            x, y, w, h = found['bbox']
            name = f'{Path(path).stem}/{annotation["key"]}'
            asked = found['category'] if text < 0 else found['descriptions'][text]['text']
        except FileNotFoundError:
            raise FileNotFoundError(f'there is no {path}; its index is there, so take the shard '
                                    'again') from None
        except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise ValueError(f'{path}, byte {offset}: no annotation as the data engine writes it '
                             f'({error!r:.80}); take the shard again') from None
        info.update(
            img_path=path, img_place=(image_offset, image_size), shards=self._files,
            image_id=name, ref_id=f'{name}/{number}', sent_id=text, ann_id=number, text=asked,
            height=annotation['height'], width=annotation['width'], split='train',
            source='annotated', instances=[dict(bbox=[x, y, x + w, y + h], bbox_label=0,
                                                ignore_flag=0, mask=found['segmentation'])])
        return info


def _index(path: Path) -> np.ndarray:
    """Rows of a shard's index, (N, 6) integers. ValueError where it is none."""
    try:
        rows = np.load(path)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise ValueError(f'{path} is no index of a shard: {error}. Take the shard again') from None
    if not isinstance(rows, np.ndarray) or rows.shape[1:] != (6,) or rows.dtype.kind not in 'iu':
        raise ValueError(f'{path} is no index of a shard: it holds no rows of six whole numbers. '
                         'Take the shard again')
    return rows
