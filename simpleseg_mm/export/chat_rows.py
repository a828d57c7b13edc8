"""The samples of a config as rows for another trainer, and what became of each."""
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..polygon import Task, mask_to_rle
from .chat import TRAINERS, Conversation, LeftOut, check_conversation, check_form, facts_of
from .picture_paths import PicturePaths
from .tables import check_parquet, list_set

_BOUNDS = ('min_pixels', 'max_pixels')
#: how a trainer is told the bounds of a picture's pixels
_TOLD = {'ms-swift': 'set MIN_PIXELS and MAX_PIXELS in the environment',
         'verl': 'each row has them',
         'llama-factory': 'set image_min_pixels and image_max_pixels',
         'trl': 'give them to AutoProcessor.from_pretrained'}


def _target(masks: np.ndarray, name: str | None) -> dict | list[dict]:
    """What a reward is given as the truth, of masks (N, H, W) and the name of a task."""
    task = Task.find(name)
    if task is None or not task.many:
        return mask_to_rle(masks.any(axis=0))
    if not len(masks):
        masks = np.zeros((1, *masks.shape[1:]), bool)
    return [mask_to_rle(mask) for mask in masks]


class ChatRows:
    """Rows for a trainer, in the order of a set's samples.

    Args:
        dataset: gives ``dict(inputs, data_samples)`` as ``PackQuery`` packs them; an index beyond
            its end is a later visit.
        indices: which samples.
        known_keys: keys that any sample may have; what else it has becomes columns for a reward.
        mllm: ``model.mllm`` of the config.
        trainer, stage: a key of ``TRAINERS``, and 'sft' or 'rl'.
        suffix: of the file.
        pictures: where the trainer finds them.

    Attributes:
        seen, written: samples that were asked for, and that have a row.
        left_out: number of the others by reason.
        examples: the first of each reason.
        turns: largest number of turns of a sample.
    """

    def __init__(self, dataset, indices: Sequence[int], known_keys: Collection[str],
                 mllm: Mapping, trainer: str, stage: str, suffix: str,
                 pictures: PicturePaths) -> None:
        self.dataset, self.indices, self.known_keys = dataset, indices, known_keys
        self.trainer, self.stage, self.suffix, self.pictures = trainer, stage, suffix, pictures
        self.mllm = mllm
        self.pixels = {key: mllm[key] for key in _BOUNDS if mllm.get(key) is not None}
        self.seen = self.written = self.turns = 0
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict]:
        """The rows.

        Raises:
            ValueError: the set's samples are of another kind, or hold what cannot be written.
        """
        for index in self.indices:
            self.seen += 1
            try:
                said = self._conversation(index)
                check_conversation(said, self.trainer, self.stage)
            except LeftOut as found:
                self.left_out[found.reason] += 1
                self.examples.setdefault(found.reason, found.example)
                continue
            yield TRAINERS[self.trainer].row(said, self.stage, self.written, self.suffix)
            self.written += 1

    def _conversation(self, index: int) -> Conversation:
        try:
            item = self.dataset[index]
        except (ValueError, OSError) as error:
            raise LeftOut('it cannot be read, and training would stop at it',
                          ' '.join(str(error).split())) from None
        except IndexError:
            raise ValueError(f'{type(self.dataset).__name__} has no later visits of its samples; '
                             'leave --visits out') from None
        sample = item['data_samples']
        if 'turns' not in sample or 'img_path' not in sample:
            raise ValueError(f'samples of {type(self.dataset).__name__} have no turns or no '
                             'img_path; give a config whose set is a QueryDataset')
        values = dict(sample.all_items())
        columns = set(values) - set(self.known_keys) | {'names'} & set(values)  # of objects
        facts = facts_of(values, sorted(columns))
        masks = values.get('gt_masks')
        self.turns = max(self.turns, len(sample.turns))
        return Conversation(
            picture=self.pictures.of(str(sample.img_path), str(values.get('image_id')),
                                     item['inputs'].permute(1, 2, 0).numpy(),
                                     values.get('window')),
            turns=sample.turns, system=self.mllm.get('system_prompt'),
            mask=None if masks is None else _target(masks.masks > 0, values.get('task')),
            codec=values.get('codec'), task=values.get('task'), facts=facts, pixels=self.pixels)

    def check_some(self) -> None:
        """ValueError where not one sample has a row; one line."""
        if not self.written:
            reasons = '; '.join(f'{number}: {reason}' for reason, number in self.left_out.items())
            raise ValueError(
                f'none of {self.seen} samples can be written for {self.trainer} at --stage '
                f'{self.stage} ({reasons})' + (
                    '. --pictures needed copies pictures that other tools read otherwise'
                    if self.pictures.copies == 'never' else ''))

    def notes(self) -> list[str]:
        """What the trainer must be told, or does otherwise, a line each."""
        notes = []
        if self.pixels:
            bounds = ', '.join(f'{key}={value}' for key, value in self.pixels.items())
            notes.append(f'pictures are resized by {bounds} here; {_TOLD[self.trainer]}')
        if self.mllm.get('chat_template_kwargs'):
            notes.append('the chat template has keywords here; give them to the trainer: '
                         f'{dict(self.mllm["chat_template_kwargs"])}')
        if self.turns > 1 and self.stage == 'rl':
            notes.append('samples have several turns; RL asks the first, as this package does')
        return notes


def check_request(out: Path, trainer: str, stage: str, pictures: PicturePaths,
                  **counts: int | None) -> None:
    """ValueError where a file cannot be written as it is asked for; one line.

    Args:
        counts: of arguments by their names: numbers from 1 on, or None.
    """
    check_form(trainer, stage, out.suffix)
    check_parquet(out)
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f'--{name} {value}: give a number from 1 on')
    for path in (out, *([] if pictures.copies == 'never' else [pictures.folder])):
        if path.exists() or path.is_symlink():
            raise ValueError(f'{path} exists; give another name, or remove it')
    base = pictures.relative_to
    if base is not None and not base.is_dir():
        raise ValueError(f'--relative-to {base}: there is no such folder')
    if TRAINERS[trainer].lists_sets:
        list_set(out, write=False)


def dataset_of(cfg: Mapping, split: str, path: str) -> dict:
    """The config of the set that a dataloader reads, 'train', 'val' or 'test'.

    Raises:
        ValueError: there is none; one line.
    """
    found = {name: (cfg.get(f'{name}_dataloader') or {}).get('dataset')
             for name in ('train', 'val', 'test')}
    if not found[split]:
        has = [name for name, dataset in found.items() if dataset]
        raise ValueError(f'{path} has no {split}_dataloader.dataset; ' + (
            f'it has --split {" and ".join(has)}' if has else 'give a config of training'))
    return found[split]
