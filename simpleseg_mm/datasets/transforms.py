"""Transforms of one query: read the image and mask, write prompt and answer, pack."""
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from simpleseg_mm.files import ImageError, shown
from simpleseg_mm.files.pictures import load_tagged
from simpleseg_mm.polygon import (MANY, TASKS, PolygonCodec, Task, mask_to_extreme, mask_to_point,
                                  rle_to_mask, segmentation_to_mask, segmentation_to_rle)
from simpleseg_mm.registry import TRANSFORMS
from simpleseg_mm.templates import (ANSWERS, DIRECTIONS, QUESTIONS, REQUESTS, SUBJECTS,
                                    TEMPLATE_SETS, question_about)

from ..choices import ORIENTATIONS
from .native import rle_area
from .pictures import bytes_of_picture

_MERGED = 32  # masks that are united at a time
_MAX_TEXTS = 100_000  # texts of masks that a worker keeps, some 30 MB

#: what a sample carries, as far as its set and its query give it
META_KEYS = ('img_id', 'image_id', 'ref_id', 'sent_id', 'ann_id', 'img_path', 'ori_shape',
              'img_shape', 'text', 'task', 'prompt', 'answer', 'turns', 'codec', 'gt_masks',
              'instances', 'source', 'split', 'answers', 'kind', 'gt_ignore', 'read_as', 'window',
              'names', 'classes')




@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read the image as 8-bit RGB; greyscale, CMYK, palettes, 16 bits and transparency too.

    Adds ``img`` (H, W, 3) uint8, ``ori_shape`` and ``img_shape`` (H, W), and ``read_as``, the
    arguments of :func:`simpleseg_mm.files.load_image` that give the same pixels again.

    Args:
        orientation: What the annotations mean where a photo has an orientation tag (EXIF):
            'stored', the pixels as they lie in the file, as COCO does; or 'upright', as viewers
            and most annotation tools show it. One rule for a whole set. The first photo with a
            tag is logged.
        white: Of pictures of 16 bits: the brightest value, see
            :func:`simpleseg_mm.files.load_image`.
        backend_args: Of MMEngine's file client.

    Raises:
        ValueError: For a broken image, or one of another size than its record says, naming both.
    """

    def __init__(self, orientation: str = 'stored', white: int = 65535,
                 backend_args: dict | None = None) -> None:
        if orientation not in ORIENTATIONS:
            raise ValueError(f'orientation must be one of {ORIENTATIONS}, got {orientation!r}')
        if not (isinstance(white, int) and 1 <= white <= 65535):
            raise ValueError(f'white must be a number from 1 to 65535, got {white!r}')
        self.orientation = orientation
        self.read_as = dict(upright=orientation == 'upright', white=white)
        self.backend_args = backend_args
        self._said = False

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        try:
            image, tag = load_tagged(self.picture_bytes(results), str(path), **self.read_as)
        except (OSError, ImageError) as error:
            raise ValueError(
                f'{_record(results)}: cannot read {path}: {error}. Take the image again, or name '
                'it in skip_images (refcoco.py verify lists all such images)') from None
        shape = image.shape[:2]
        if shape != (results['height'], results['width']):
            raise ValueError(f'{_record(results)}: {path} '
                             + size_fault(shape, (results['height'], results['width']), tag,
                                          self.orientation))
        if tag != 1 and not self._said:
            self._said = True
            print_log(f'{path} has the orientation tag {tag}, and is read '
                      f'{"as it is stored" if self.orientation == "stored" else "upright"}, as '
                      f'are all others (LoadImage, orientation={self.orientation!r}). If masks '
                      'lie beside their objects, take the other; refcoco.py verify counts such '
                      'photos', logger='current', level=logging.WARNING)
        results.update(img=image, ori_shape=shape, img_shape=shape, read_as=self.read_as)
        return results

    def picture_bytes(self, results: dict) -> bytes:
        """The file of a sample's picture."""
        return bytes_of_picture(results['img_path'], self.backend_args)


def size_fault(found: tuple[int, int], said: tuple[int, int], tag: int, orientation: str) -> str:
    """What is said of a picture whose (h, w) is not what its annotations say."""
    fault = (f'has (h, w) {found}, its annotations say {said}; they are not of one set')
    if tag >= 5 and found[::-1] == said:
        advice = ("they are of the upright picture. Set orientation='upright' in LoadImage, if "
                  'all of the set is')
        if orientation == 'upright':
            advice = ("that is the stored picture. Set orientation='stored' in LoadImage where "
                      'outlines are drawn on that too; where they fit the upright one, as '
                      "Label Studio's do, convert the set by own_data.py, which looks at outlines")
        fault = (f'has (h, w) {found} and the orientation tag {tag}, its annotations say {said}: '
                 + advice)
    return fault


@TRANSFORMS.register_module()
class LoadTargetMask(BaseTransform):
    """Rasterise the target: all its instances together, nothing for an absent one.

    Adds ``gt_masks``: ``BitmapMasks`` (1, H, W), of which ``FormatQuery`` makes (N, H, W) where a
    query asks for every instance; and ``gt_ignore`` in the same form, pixels that
    evaluation passes over, where the sample has segmentations ``ignored``.

    Raises:
        ValueError: For a segmentation that cannot be used or is empty, naming the record.
    """

    def transform(self, results: dict) -> dict:
        mask = target_mask(results)
        results['gt_masks'] = BitmapMasks(mask[None].astype(np.uint8), *mask.shape)
        if results.get('ignored'):
            ignored = [segmentation_to_mask(part, *mask.shape) for part in results['ignored']]
            results['gt_ignore'] = BitmapMasks(
                np.any(ignored, axis=0)[None].astype(np.uint8), *mask.shape)
        return results


@TRANSFORMS.register_module()
class FormatQuery(BaseTransform):
    """Write what the user asks and what the model should answer.

    A task ``<given>2<wanted>`` recombines two of text, point, box and mask, or asks for an extreme
    point, or for every instance (``simpleseg_mm.polygon.TASKS`` has all twenty). It is drawn by
    weight, and so are prompts, from ``results['rng']``. With ``results['test_mode']`` the first
    template is taken, a given point is the mask's innermost and an extreme point the topmost.

    A task of every instance, 'text2masks', lists one answer an instance in the order of
    ``PolygonCodec.order``. It needs a set whose samples have all instances of what they name; of
    one with a single instance the answer is a list of one. Where ``gt_masks`` were loaded, they
    become ``BitmapMasks`` (N, H, W), one an instance in the set's order. 'image2objects' lists all
    objects of an image with their names, which the set's ``instances`` hold; the sample has them
    as ``names``, in the order of ``gt_masks``.

    Points and boxes are pixels of the target; boxes come from the annotation. A task that starts
    from a point, box or mask falls back to its text form where the target is absent; an absent
    target is answered by ``[]``.

    With ``turns`` (training only; our choice, so that one image's tokens serve several answers)
    further questions about the same image follow: other references first, each with a task by the
    same weights; then a reference already asked about, but for another kind of answer.

    Adds ``task, prompt, answer, codec`` (the codec's spec) and ``turns``, a list of (prompt,
    answer) whose first entry is the prompt and answer.

    Args:
        tasks: Weight of each task, at least 0.
        codec: Arguments of :class:`simpleseg_mm.polygon.PolygonCodec`.
        templates: 'default', 'single' (the first template of each list only) or 'sentence' (some
            answers inside a sentence).
        turns: Largest number of questions in a sample.

    Raises:
        ValueError: For unknown tasks, weights or templates.
    """

    def __init__(self, tasks: Mapping[str, float] | None = None, codec: Mapping | None = None,
                 templates: str = 'default', turns: int = 1) -> None:
        tasks = {'text2mask': 1.0} if tasks is None else tasks
        if not isinstance(tasks, Mapping):
            raise ValueError(f'tasks must map names to weights, got {tasks!r}')
        if unknown := set(tasks) - set(TASKS):
            raise ValueError(f'unknown tasks {sorted(unknown)}; choose from {tuple(TASKS)}')
        weights = np.array(list(tasks.values()), float)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f'task weights must be at least 0 and one greater, got {tasks}')
        if templates not in TEMPLATE_SETS:
            raise ValueError(f'unknown templates {templates!r}; choose from {list(TEMPLATE_SETS)}')
        if turns < 1:
            raise ValueError(f'turns must be at least 1, got {turns}')
        self.tasks = [TASKS[task] for task, weight in tasks.items() if weight > 0]
        self.edges = np.cumsum(weights[weights > 0])
        self.codec = PolygonCodec(**dict(codec or {}))
        self.templates = templates
        self.turns = turns
        self._texts: dict[bytes, str] = {}

    def transform(self, results: dict) -> dict:
        rng, test_mode = results['rng'], results['test_mode']
        task = self._draw_task(results, rng)
        prompt, answer = self._write(results, task, rng, test_mode)
        turns = [(prompt, answer)]
        if self.turns > 1 and not test_mode:
            turns += self._further_turns(results, task, rng)
        if task.many and 'gt_masks' in results:
            masks = target_masks(results)
            results['gt_masks'] = BitmapMasks(masks.astype(np.uint8), *masks.shape[1:])
        if task.named:
            results['names'] = _names_of(results)
        results.update(task=task.name, prompt=prompt, answer=answer, turns=turns,
                       codec=self.codec.spec)
        return results

    def _draw_task(self, info: dict, rng: np.random.Generator) -> Task:
        task = self.tasks[int(np.searchsorted(self.edges, rng.random() * self.edges[-1],
                                              side='right'))]
        return task if info['instances'] else task.for_absent

    def _further_turns(self, results: dict, task: Task,
                       rng: np.random.Generator) -> list[tuple[str, str]]:
        siblings = results['siblings']
        asked = {(results['ref_id'], task.wanted)}
        infos = [results] + [siblings[int(k)] for k in rng.permutation(len(siblings))]
        seen = {results['ref_id']}
        fresh = [info for info in infos[1:]
                 if info['ref_id'] not in seen and not seen.add(info['ref_id'])]
        chosen = {id(info) for info in fresh}
        turns: list[tuple[str, str]] = []
        for info in fresh + [info for info in infos if id(info) not in chosen]:
            if len(turns) == self.turns - 1:
                break
            task = self._draw_task(info, rng)
            key = (info['ref_id'], task.wanted)
            if key not in asked or key[1] == 'extreme':  # of eight directions
                asked.add(key)
                turns.append(self._write(info, task, rng, test_mode=False))
        return turns

    def ask(self, given: str, value, size: tuple[int, int], wanted: str = 'mask') -> dict:
        """The evaluation's question about what a person gives.

        Args:
            given: 'text', 'point' or 'box'; 'image' for all that it shows.
            value: The expression, or x, y or x1, y1, x2, y2 in pixels; of an image nothing.
            size: (H, W) of the image.
            wanted: What is asked for, 'masks' for every instance, 'objects' of an image.

        Returns:
            What ``transform`` adds, without an answer.
        """
        prompt = question_about(given, value, size, self.codec.grammar, wanted)
        words = dict(text=value) if given == 'text' else {}
        return dict(task=Task(given, wanted).name, prompt=prompt, turns=[(prompt, None)],
                    codec=self.codec.spec, **words)

    def _write(self, info: dict, task: Task, rng: np.random.Generator,
               test_mode: bool) -> tuple[str, str]:
        """Prompt and answer of one task on one target."""
        given, wanted = task.given, task.wanted
        limit, answers = TEMPLATE_SETS[self.templates]

        def pick(templates: tuple[str, ...]) -> str:
            number = int(rng.integers(len(templates[:limit])))
            return templates[0 if test_mode else number]

        if given == 'text' and info.get('is_sentence'):
            prompt = pick(REQUESTS[wanted]).replace('{given}', info['text'])
        else:
            said = '' if given == 'image' else self._express(given, info, rng, asked=True,
                                                             test_mode=test_mode)
            subject = pick(SUBJECTS[given]).replace('{given}', said)
            prompt = pick(QUESTIONS[wanted]).replace('{subject}', subject)
        if wanted == 'extreme':
            names = tuple(DIRECTIONS)
            direction = names[0 if test_mode else int(rng.integers(len(names)))]
            prompt = prompt.replace('{direction}', direction)
            answer = self._extreme(info, direction)
        else:
            answer = self._express(wanted, info, rng, asked=False, test_mode=test_mode)
        if wanted != 'text':
            answer = pick(ANSWERS[answers]).replace('{answer}', answer)
        return prompt, answer

    def _express(self, kind: str, info: dict, rng: np.random.Generator, asked: bool,
                 test_mode: bool) -> str:
        """Text of one description of the target. Masks are decoded only where they are needed."""
        if kind == 'text':
            return info['text']
        if not info['instances']:
            return '[]'
        size = info['height'], info['width']
        grammar = self.codec.grammar
        if kind in MANY:
            return self._express_all(kind, info, size)
        if kind == 'box':
            boxes = np.array([instance['bbox'] for instance in info['instances']], float)
            box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
            return grammar.format_box(box, size)
        mask = _mask_of(info)
        if kind == 'mask':
            return self._encode(mask, self.codec.encode)
        if asked and not test_mode:
            inside = np.flatnonzero(mask)
            y, x = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
            return grammar.format_point((x + 0.5, y + 0.5), size)
        return grammar.format_point(mask_to_point(mask, mode='inside'), size)

    def _express_all(self, kind: str, info: dict, size: tuple[int, int]) -> str:
        """Text of every instance of the target."""
        masks, grammar = target_masks(info), self.codec.grammar
        if kind == 'masks':
            return self._encode(masks, self.codec.encode_masks)
        if kind == 'objects':
            names = _names_of(info)
            return self._encode(masks, lambda masks: self.codec.encode_objects(masks, names),
                                names)
        order = self.codec.order(masks)
        if kind == 'boxes':
            return grammar.format_boxes([info['instances'][i]['bbox'] for i in order], size)
        return grammar.format_points([mask_to_point(masks[i], mode='inside') for i in order],
                                     size)

    def _extreme(self, info: dict, direction: str) -> str:
        """Text of the target's extreme point."""
        if not info['instances']:
            return '[]'
        point = mask_to_extreme(_mask_of(info), DIRECTIONS[direction])
        return self.codec.grammar.format_point(point, (info['height'], info['width']))

    def _encode(self, mask: np.ndarray, encode: Callable[[np.ndarray], str],
                names: Sequence[str] = ()) -> str:
        """Text of a mask (H, W), or of masks (N, H, W) and their names, written once: sentences
        share targets, and epochs repeat them."""
        content = hashlib.blake2b(np.packbits(mask), digest_size=16).digest()
        key = content + str((mask.shape, *names)).encode()
        if key not in self._texts:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            self._texts[key] = encode(mask)
        return self._texts[key]


@TRANSFORMS.register_module()
class PackQuery(BaseTransform):
    """Pack into ``dict(inputs=(3, H, W) uint8 RGB tensor, data_samples=DetDataSample)``.

    Everything but the image is metainfo, so that nothing of it moves to a device.

    Args:
        meta_keys: What a sample carries, as far as it is there.
        required_keys: What it carries beside these, and must have.

    Raises:
        ValueError: A sample has no such key.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS,
                 required_keys: Sequence[str] = ()) -> None:
        self.meta_keys, self.required_keys = tuple(meta_keys), tuple(required_keys)

    def transform(self, results: dict) -> dict:
        if missing := [key for key in self.required_keys if key not in results]:
            raise ValueError(f'{_record(results)}: meta_keys names {missing}, which the sample '
                             f'does not have; it has {sorted(results)}')
        meta = {key: results[key] for key in (*self.meta_keys, *self.required_keys)
                if key in results}
        if results.get('ignored_instances'):  # crowds, as MMDetection's metrics expect them
            meta['instances'] = [*results['instances'], *results['ignored_instances']]
        # Pixels stay as they lie, channels last: so image processors read them.
        if 'img' not in results:
            raise ValueError(f'{_record(results)}: nothing in the pipeline loads the picture: put '
                             'LoadImage first')
        image = torch.from_numpy(results['img']).permute(2, 0, 1)
        return dict(inputs=image, data_samples=DetDataSample(metainfo=meta))


def target_masks(info: dict) -> np.ndarray:
    """Masks (N, H, W) bool, one an instance of a sample, in its order; none of an absent target.

    Raises:
        ValueError: as ``target_mask``.
    """
    rles = _rles_of(info)
    masks = np.zeros((len(rles), info['height'], info['width']), bool)
    for mask, rle in zip(masks, rles):
        mask[:] = rle_to_mask(rle)
    return masks


def _names_of(info: dict) -> list[str]:
    """The name of each instance of a sample, in its order."""
    names = [instance.get('name') for instance in info['instances']]
    if None in names:
        raise ValueError(f'{_record(info)}: its objects have no names; image2objects needs a set '
                         "that gives them: CocoQueryDataset or RefShapesDataset with "
                         "targets='picture'")
    return names


def target_mask(info: dict) -> np.ndarray:
    """Mask (H, W) bool of all instances of a sample, absent ones all False.

    Raises:
        ValueError: For a segmentation that cannot be used, or is empty, naming the record: also
            where others of its sample are not, since the whole would be a half truth.
    """
    height, width = info['height'], info['width']
    rles = _rles_of(info)
    if not rles:
        return np.zeros((height, width), bool)
    if len(rles) > 1:
        rles = [rle if isinstance(rle['counts'], bytes) else coco_mask.frPyObjects(
            dict(size=[height, width], counts=rle['counts'].tolist()), height, width)
            for rle in rles]
    while len(rles) > 1:  # a tree: one after the other takes time by the square of their number
        rles = [coco_mask.merge(rles[k:k + _MERGED]) for k in range(0, len(rles), _MERGED)]
    return rle_to_mask(rles[0])


def _rles_of(info: dict) -> list[dict]:
    """An RLE an instance; ValueError where one cannot be used, or is empty."""
    rles = []
    for instance in info['instances']:
        try:
            rles.append(segmentation_to_rle(instance['mask'], info['height'], info['width']))
        except ValueError as error:
            raise ValueError(f'{_record(info)}: {error}') from None
    empty = [number for number, area in enumerate(map(rle_area, rles)) if not area]
    if empty:
        which = f', that of target {empty[0]}' if len(rles) > 1 else ''
        raise ValueError(f'{_record(info)}: the mask is empty{which}. Leave the sample out, mend '
                         "its annotation, or set bad_samples='skip' (refcoco.py verify lists all "
                         'such records)')
    return rles


def _mask_of(info: dict) -> np.ndarray:
    """The target's mask, which the pipeline may have read already."""
    return info['gt_masks'].masks[0] > 0 if 'gt_masks' in info else target_mask(info)


def _record(info: dict) -> str:
    return (f'{info["source"]} {info["split"]}, ref_id {info["ref_id"]}, sent_id '
            f'{info["sent_id"]}, ann_id {shown(info["ann_id"])}')
