"""From a picture and a prompt to polygons: MMEngine's inferencer for SimpleSeg."""
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.utils import mkdir_or_exist
from rich.progress import track

from ..datasets.collate import collate_queries
from ..datasets.transforms import LoadImage, LoadTargetMask
from ..files import ImageError, is_url, list_images, load_image, replace_json
from ..polygon import PolygonCodec
from ..registry import INFERENCERS, MODELS, TRANSFORMS, VISUALIZERS, builds
from ..samples import answer_of
from ..structures import FileNames, Prompt, Segmentation
from ..visualization import write_image
from .loading import load_weights, query_of, resolve
from .taught import Taught

PromptLike = Prompt | str | dict
#: transforms that read what is given here: the picture, and the truth, which is not
_LOADERS = (LoadImage, LoadTargetMask, LoadImageFromFile, LoadAnnotations)


class _Query(NamedTuple):
    """One prompt about one picture."""
    index: int
    name: str
    picture: np.ndarray
    prompt: Prompt


@INFERENCERS.register_module()
class SimpleSegInferencer(BaseInferencer):
    """Segments what a text, a point or a box means, in one picture or many.

        inferencer = SimpleSegInferencer('iter_1200.pth')        # a run's, its config inside
        result, = inferencer.segment('scene.png', 'red circle')  # a Segmentation
        inferencer(['a.jpg', 'b.jpg'], 'the man in red', out_dir='outputs')

    Prompts are written by the evaluation's templates, pictures go through the config's own
    pipeline, answers through ``model.predict``: what ``tools/test.py`` does.

    **Pictures**: a path, an http(s) address, an array ((H, W, 3) **RGB** uint8, see
    :func:`load_image`), a PIL picture, a folder, or a list of these. EXIF's orientation is
    applied; coordinates are those of the upright picture.

    **Prompts**: an expression, ``dict(point=(x, y))``, ``dict(box=(x1, y1, x2, y2))`` or a
    :class:`Prompt`. A list of them is asked of every picture; a list of lists, one a picture, asks
    each picture its own. Every prompt is one query.

    **Warnings**: an answer says in ``warnings`` why it may mean nothing: the packaged models know
    generated scenes and not photos, and a model answers the prompts that it was taught.

    **Confidence**: the mean probability of the written tokens, end token included, by the network
    at temperature 1 (``Generated.confidence``). It says how sure the model was of its text and is
    not calibrated; None where transformers' own ``generate`` wrote it (beams, sampling).

    Args:
        model: config file or Config; name of ``configs/simpleseg/metafile.yml``; checkpoint (.pth)
            that holds its config; Hugging Face folder, by ``to_huggingface.py`` or the released
            SimpleSeg weights; hub id. None: the packaged nano_sft. Remote code is never run.
        weights: checkpoint (.pth) or Hugging Face folder for a config's model.
        device: such as 'cuda:0'; None: the GPU where there is one.
        cfg_options: changes to the config, ``{'model.generation.max_new_tokens': 512}``.
        show_progress: whether to show a bar.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or it does not fit.
    """
    preprocess_kwargs = {'prompts', 'on_error'}
    forward_kwargs: set = set()
    visualize_kwargs = {'return_vis', 'show', 'wait_time', 'no_save_vis'}
    postprocess_kwargs = {'no_save_pred', 'print_result', 'out_dir'}

    def __init__(self, model: str | dict | Config | None = None,
                 weights: str | None = None, device: str | None = None,
                 scope: str = 'simpleseg_mm', show_progress: bool = True,
                 cfg_options: dict | None = None) -> None:
        self.device = usable_device(device)
        cfg, checkpoint = resolve(model, weights)
        cfg.merge_from_dict(cfg_options or {})
        self.taught = Taught.of(cfg)
        init_default_scope(scope)
        self.scope, self.cfg, self.show_progress = scope, cfg, show_progress
        self.pipeline = self._init_pipeline(cfg)
        self.model = MODELS.build(cfg.model)
        if checkpoint is not None:
            load_weights(self.model, cfg, checkpoint)
        self.model = self.model.to(self.device).eval()
        self.collate_fn = collate_queries
        cfg.setdefault('visualizer', dict(type='SimpleSegVisualizer'))
        cfg.visualizer.pop('vis_backends', None)
        cfg.visualizer.name = f'inferencer-{uuid4().hex}'  # two of one name would be one
        self.visualizer = VISUALIZERS.build(cfg.visualizer)

    @property
    def codec(self) -> PolygonCodec:
        """How the outlines in answers are written."""
        return PolygonCodec(**query_of(self.cfg)['codec'])

    # --- typed ---------------------------------------------------------------------------------
    def segment(self, inputs, prompts, batch_size: int = 1, on_error: str = 'raise'
                ) -> list[Segmentation]:
        """Answers, picture by picture and prompt by prompt.

        Args:
            inputs, prompts: see the class.
            batch_size: queries that are answered together.
            on_error: 'raise' at the first picture or prompt that cannot be used, or 'skip' it;
                what was skipped is in ``self.errors``, a list of messages.

        Raises:
            ValueError: (ImageError among them) names what is wrong, before the model runs on it.
        """
        return [result for *_, result in self._run(inputs, prompts, batch_size, on_error)]

    def write(self, inputs, prompts, out_dir: str, batch_size: int = 1, on_error: str = 'raise'
              ) -> list[Segmentation]:
        """As :meth:`segment`, with ``out_dir/vis/NAME.png`` and ``out_dir/preds/NAME.json``
        written as the answers come."""
        names, results = FileNames(), []
        for query, sample, result in self._run(inputs, prompts, batch_size, on_error):
            picture = self.visualize([query], [sample])[0]
            _save(Path(out_dir), names.of(query.name, query.index), picture, result)
            results.append(result)
        return results

    def ask(self, picture: np.ndarray, prompt: PromptLike,
            on_text: Callable[[str], None] | None = None) -> Segmentation:
        """One prompt about one loaded picture ((H, W, 3) uint8, RGB), without a bar.

        Args:
            on_text: is given the text written so far whenever it grows. What it raises ends the
                writing.

        Raises:
            ValueError: the prompt cannot be used.
        """
        tell = None if on_text is None else lambda _, text: on_text(text)
        return self.ask_batch([(picture, prompt)], tell)[0]

    def ask_batch(self, asked: Sequence[tuple[np.ndarray, PromptLike]],
                  on_text: Callable[[int, str], bool | None] | None = None
                  ) -> list[Segmentation]:
        """Several loaded pictures and a prompt each, answered together.

        Args:
            asked: pictures ((H, W, 3) uint8, RGB) and prompts.
            on_text: is given the number of the answer and the text written so far, after every
                token; True ends that answer there. What it raises ends the writing of all.

        Raises:
            ValueError: a prompt cannot be used.
        """
        queries = [_Query(index, str(index), picture, Prompt.of(prompt).within(picture.shape[:2]))
                   for index, (picture, prompt) in enumerate(asked)]
        if on_text is None:
            return [result for *_, result in self._answer(queries)]
        written: list[list[int]] = [[] for _ in queries]

        def on_tokens(row: int, token_ids: Sequence[int]) -> bool | None:
            written[row].extend(token_ids)
            return on_text(row, self.model.mllm.writer.read(written[row]).text)

        return [result for *_, result in self._answer(queries, on_tokens=on_tokens)]

    # --- MMEngine's form -----------------------------------------------------------------------
    def __call__(self, inputs, prompts=None, return_datasamples: bool = False,
                 batch_size: int = 1, on_error: str = 'raise', return_vis: bool = False,
                 show: bool = False, wait_time: float = 0, no_save_vis: bool = False,
                 no_save_pred: bool = False, print_result: bool = False,
                 out_dir: str = '') -> dict:
        """Answers in MMDetection's form.

        Args:
            inputs, prompts, batch_size, on_error: see :meth:`segment`.
            return_datasamples: give ``DetDataSample`` instead of dicts.
            return_vis: give the pictures, (H, W, 3) uint8 RGB.
            show, wait_time: show each in a window for so many seconds (0: until a key).
            no_save_vis, no_save_pred: leave pictures or JSON out of ``out_dir``.
            print_result: print each dict.
            out_dir: folder for ``vis/NAME.png`` and ``preds/NAME.json``, written as they come.

        Returns:
            ``predictions``: one a query, :meth:`Segmentation.to_dict`; ``visualization``: the
            pictures or None.
        """
        if prompts is None:
            raise ValueError("say what to segment: prompts='the man in red', "
                             'dict(point=(x, y)) or dict(box=(x1, y1, x2, y2))')
        names, predictions, pictures = FileNames(), [], []
        for query, sample, result in self._run(inputs, prompts, batch_size, on_error):
            visible = return_vis or show or (out_dir and not no_save_vis)
            picture = self.visualize([query], [sample], show, wait_time)[0] if visible else None
            if out_dir:
                _save(Path(out_dir), names.of(query.name, query.index),
                      None if no_save_vis else picture, None if no_save_pred else result)
            if print_result:
                print(json.dumps(result.to_dict()), flush=True)
            if return_vis:
                pictures.append(picture)
            predictions.append(sample if return_datasamples else result.to_dict())
        return self.postprocess(predictions, pictures if return_vis else None)

    def visualize(self, inputs: Sequence[_Query], preds: Sequence[DetDataSample],
                  show: bool = False, wait_time: float = 0) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB of answers: outline, vertices in order, the text."""
        pictures = [self.visualizer.draw_query(query.picture, sample, draw_gt=False)
                    for query, sample in zip(inputs, preds)]
        if show:
            for query, picture in zip(inputs, pictures):
                self.visualizer.show(picture, win_name=query.name, wait_time=wait_time)
        return pictures

    def postprocess(self, preds, visualization, return_datasample: bool = False) -> dict:
        """``dict(predictions=..., visualization=...)``."""
        return dict(predictions=preds, visualization=visualization)

    @torch.no_grad()
    def forward(self, inputs: dict, **options) -> list[DetDataSample]:
        """Samples with predictions; ``options`` are those of ``SimpleSeg.answer``."""
        return self.model.predict(**self.model.data_preprocessor(inputs, False), **options)

    # --- the way -------------------------------------------------------------------------------
    def preprocess(self, inputs: Sequence[_Query], batch_size: int = 1, **kwargs):
        """Batches of the model's input, by the config's pipeline."""
        items = map(self.pipeline, inputs)
        while chunk := list(islice(items, batch_size)):
            yield self.collate_fn(chunk)

    def _run(self, inputs, prompts, batch_size: int, on_error: str) -> Iterator[tuple]:
        if batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; at least 1')
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'")
        sources = _sources(inputs)
        asked = prompts_by_picture(prompts, len(sources))
        self.errors: list[str] = []
        queries = self._queries(sources, asked, on_error)
        if self.show_progress:
            queries = track(queries, total=sum(map(len, asked)), description='Inference')
        queries = iter(queries)
        while chunk := list(islice(queries, batch_size)):
            yield from self._answer(chunk)

    def _answer(self, queries: Sequence[_Query], **options) -> list[tuple]:
        with DefaultScope.overwrite_default_scope(self.scope):
            batch, = self.preprocess(queries, len(queries))
            samples = self.forward(batch, **options)
        return [(query, sample, Segmentation.of(
            answer_of(sample), query.name, query.prompt, query.index,
            self.taught.doubts(query.picture, query.prompt)))
            for query, sample in zip(queries, samples)]

    def _queries(self, sources: list, asked: list[list[Prompt]], on_error: str
                 ) -> Iterator[_Query]:
        """Pictures are read one after the other, each once."""
        for index, (source, prompts) in enumerate(zip(sources, asked)):
            name = str(source) if isinstance(source, (str, Path)) else str(index)
            try:
                picture = load_image(source, name if name == str(source) else f'picture {index}')
            except ImageError as error:
                self._fault(error, on_error)
                continue
            for prompt in prompts:
                try:
                    yield _Query(index, name, picture, prompt.within(picture.shape[:2]))
                except ValueError as error:
                    self._fault(ValueError(f'{name}: {error}'), on_error)

    def _fault(self, error: ValueError, on_error: str) -> None:
        if on_error == 'raise':
            raise error
        self.errors.append(str(error))

    # --- building ------------------------------------------------------------------------------
    def _init_pipeline(self, cfg: Config) -> Compose:
        """The transforms of the test set, with the picture and the prompt that are given instead
        of those that its ``Load...`` read."""
        query = TRANSFORMS.build(copy.deepcopy(dict(query_of(cfg))))
        steps = [copy.deepcopy(dict(step)) for step in cfg.test_dataloader.dataset.get(
            'pipeline', ()) if not builds(TRANSFORMS, step, *_LOADERS)]

        def give(item: _Query) -> dict:
            size = item.picture.shape[:2]
            return dict(img=item.picture, img_id=item.index, img_path=item.name, ori_shape=size,
                        img_shape=size)

        def ask(results: dict) -> dict:
            prompt = results.pop('asked')
            return dict(results, **query.ask(prompt.kind, prompt.value, results['ori_shape']))

        return Compose([lambda item: dict(give(item), asked=item.prompt),
                        *(TRANSFORMS.build(step) for step in steps), ask,
                        TRANSFORMS.build(dict(type='PackQuery'))])


def _sources(inputs) -> list:
    """The pictures that are meant: of a folder, a list, or one."""
    if isinstance(inputs, (str, Path)) and not is_url(inputs) and Path(inputs).is_dir():
        return list_images(inputs)
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not inputs:
        raise ValueError('no picture is given')
    return inputs


def usable_device(name: str | None) -> str:
    """The device that is meant; None: the GPU where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name is None:
        return get_device()
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = [f'cuda:{k}' for k in range(torch.cuda.device_count())]
        raise ValueError(f'no device {name}: PyTorch sees {", ".join(["cpu", *gpus])} here '
                         f'({str(error).splitlines()[0]:.80})') from None
    return name


def prompts_by_picture(prompts, count: int) -> list[list[Prompt]]:
    """A list of prompts for each of ``count`` pictures.

    Raises:
        ValueError: there are none, not one list a picture, or one is no prompt.
    """
    if not isinstance(prompts, (list, tuple)):
        prompts = [prompts]
    if not prompts:
        raise ValueError('no prompt is given')
    if not all(isinstance(entry, (list, tuple)) for entry in prompts):
        return [[Prompt.of(entry) for entry in prompts]] * count
    if len(prompts) != count:
        raise ValueError(f'{len(prompts)} lists of prompts for {count} pictures; give one list a '
                         'picture, or a flat list that is asked of every picture')
    return [[Prompt.of(entry) for entry in entries] for entries in prompts]


def _save(out_dir: Path, name: str, picture: np.ndarray | None,
          result: Segmentation | None) -> None:
    if picture is not None:
        write_image(picture, out_dir / 'vis' / f'{name}.png')
    if result is not None:
        path = out_dir / 'preds' / f'{name}.json'
        mkdir_or_exist(path.parent)
        replace_json(path, result.to_dict())
