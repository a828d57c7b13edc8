"""From a picture and a prompt to polygons: MMEngine's inferencer for SimpleSeg."""
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from uuid import uuid4

import numpy as np
import torch
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope, init_default_scope

from ..asking import PictureQuery, PromptedInferencer, PromptLike, queries_of
from ..client import EndpointInferencer
from ..datasets.collate import collate_queries
from ..datasets.transforms import LoadImage, LoadTargetMask
from ..models.consensus import Consensus
from ..polygon import PolygonCodec
from ..registry import INFERENCERS, MODELS, TRANSFORMS, VISUALIZERS, builds
from ..samples import answer_of
from ..second_look import look_of
from ..structures import Segmentation
from .loading import load_weights, query_of, resolve
from .taught import taught_by

#: transforms that read what is given here: the picture, and the truth, which is not
_LOADERS = (LoadImage, LoadTargetMask, LoadImageFromFile, LoadAnnotations)


@INFERENCERS.register_module()
class SimpleSegInferencer(PromptedInferencer, BaseInferencer):
    """Segments what a text, a point or a box means, in one picture or many.

        inferencer = SimpleSegInferencer('iter_1200.pth')        # a run's, its config inside
        result, = inferencer.segment('scene.png', 'red circle')  # a Segmentation
        inferencer(['a.jpg', 'b.jpg'], 'the man in red', out_dir='outputs')

    Prompts are written by the evaluation's templates, pictures go through the config's own
    pipeline, answers through ``model.predict``: what ``tools/test.py`` does.

    **Pictures**: a path, an http(s) address, an array ((H, W, 3) **RGB** uint8, see
    :func:`load_image`), a PIL picture, a folder, or a list of these. EXIF's orientation is
    applied; coordinates are those of the upright picture.

    **Prompts**: an expression, ``dict(text='the cups', all=True)`` for every instance of it,
    ``dict(point=(x, y))``, ``dict(box=(x1, y1, x2, y2))`` or a :class:`Prompt`. A list of them is
    asked of every picture; a list of lists, one a picture, asks each picture its own. Every prompt
    is one query.

    **Warnings**: an answer says in ``warnings`` why it may mean nothing: the packaged models know
    generated scenes and not photos, and a model answers the prompts that it was taught.

    **Confidence**: the mean probability of the written tokens, end token included, by the network
    at temperature 1 (``Generated.confidence``). It says how sure the model was of its text and is
    not calibrated; None where transformers' own ``generate`` wrote it (beams, sampling). With
    ``consensus`` it is how far several answers agree, which ranks better, or as calibrated.

    Args:
        model: config file or Config; name of ``configs/simpleseg/metafile.yml``; checkpoint (.pth)
            that holds its config; Hugging Face folder, by ``to_huggingface.py`` or the released
            SimpleSeg weights; hub id. None: the packaged nano_sft. Remote code is never run.
        weights: checkpoint (.pth) or Hugging Face folder for a config's model.
        device: such as 'cuda:0'; None: the GPU where there is one.
        cfg_options: changes to the config, ``{'model.generation.max_new_tokens': 512}``.
        show_progress: whether to show a bar.
        consensus: samples that are voted with the greedy answer, such as 8, or a dict with keys of
            :class:`~simpleseg_mm.models.consensus.Consensus`; None: as ``model.consensus`` of the
            config says, by default none.
        second_look: True or a dict with keys of :class:`~simpleseg_mm.second_look.SecondLook`:
            asks again in a crop round each small outline; None: as ``model.second_look`` of the
            config says, by default not; False: not.
        endpoint: address of an OpenAI-compatible server whose model answers instead. That gives an
            :class:`~simpleseg_mm.client.EndpointInferencer`, which takes its own arguments.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or it does not fit.
    """
    preprocess_kwargs = {'prompts', 'on_error'}
    forward_kwargs: set = set()
    visualize_kwargs = {'return_vis', 'show', 'wait_time', 'no_save_vis'}
    postprocess_kwargs = {'no_save_pred', 'print_result', 'out_dir'}

    def __new__(cls, *args, endpoint: str | None = None, **options):
        if endpoint is None:
            return super().__new__(cls)
        try:
            inspect.signature(EndpointInferencer).bind(endpoint, *args, **options)
        except TypeError as error:
            raise ValueError(f'with an endpoint: {error}; simpleseg_mm.client.EndpointInferencer '
                             'says what is taken') from None
        return EndpointInferencer(endpoint, *args, **options)

    def __init__(self, model: str | dict | Config | None = None,
                 weights: str | None = None, device: str | None = None,
                 scope: str = 'simpleseg_mm', show_progress: bool = True,
                 cfg_options: dict | None = None, consensus: int | dict | None = None,
                 second_look: bool | dict | None = None, endpoint: None = None) -> None:
        self.device = usable_device(device)
        cfg, checkpoint = resolve(model, weights)
        cfg.merge_from_dict(cfg_options or {})
        if consensus is not None:
            asked = consensus if isinstance(consensus, dict) else dict(samples=consensus)
            Consensus.of(asked)  # before a model is built
            cfg.model.consensus = dict(cfg.model.get('consensus') or {}, **asked)
        self.taught = taught_by(cfg)
        if second_look is not None:
            look = look_of(second_look, self.taught)
            cfg.model.second_look = None if look is None else asdict(look)
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

    @property
    def samples(self) -> int:
        consensus = self.model.consensus
        return 0 if consensus is None else consensus.samples

    def ask_batch(self, asked: Sequence[tuple[np.ndarray, PromptLike]],
                  on_text: Callable[[int, str], bool | None] | None = None,
                  consensus: int | None = None) -> list[Segmentation]:
        """As the base says.

        Args:
            consensus: samples that are voted this time; a calibration is of another number, and
                left out then. None: as the model is set.
        """
        if consensus is None or consensus == self.samples:
            return self._ask_batch(asked, on_text)
        usual = self.model.consensus
        self.model.consensus = Consensus.of(replace(
            usual or Consensus(), samples=consensus, calibration=None))
        try:
            return self._ask_batch(asked, on_text)
        finally:
            self.model.consensus = usual

    def _ask_batch(self, asked, on_text) -> list[Segmentation]:
        queries = queries_of(asked)
        if on_text is None:
            return [result for *_, result in self._answer(queries)]
        written: list[list[int]] = [[] for _ in queries]

        def on_tokens(row: int, token_ids: Sequence[int]) -> bool | None:
            written[row].extend(token_ids)
            return on_text(row, self.model.mllm.writer.read(written[row]).text)

        return [result for *_, result in self._answer(queries, on_tokens=on_tokens)]

    def answers(self, queries: Iterator[PictureQuery], batch_size: int) -> Iterator[tuple]:
        while chunk := list(islice(queries, batch_size)):
            yield from self._answer(chunk)

    def visualize(self, inputs: Sequence[PictureQuery], preds: Sequence[DetDataSample],
                  show: bool = False, wait_time: float = 0) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB of answers: outline, vertices in order, the text."""
        pictures = [self.visualizer.draw_query(query.picture, sample, draw_gt=False)
                    for query, sample in zip(inputs, preds)]
        if show:
            for query, picture in zip(inputs, pictures):
                self.visualizer.show(picture, win_name=query.name, wait_time=wait_time)
        return pictures

    # --- MMEngine's form -----------------------------------------------------------------------
    def postprocess(self, preds, visualization, return_datasample: bool = False) -> dict:
        """``dict(predictions=..., visualization=...)``."""
        return dict(predictions=preds, visualization=visualization)

    @torch.no_grad()
    def forward(self, inputs: dict, **options) -> list[DetDataSample]:
        """Samples with predictions; ``options`` are those of ``SimpleSeg.answer``."""
        return self.model.predict(**self.model.data_preprocessor(inputs, False), **options)

    # --- the way -------------------------------------------------------------------------------
    def preprocess(self, inputs: Sequence[PictureQuery], batch_size: int = 1, **kwargs):
        """Batches of the model's input, by the config's pipeline."""
        items = map(self.pipeline, inputs)
        while chunk := list(islice(items, batch_size)):
            yield self.collate_fn(chunk)

    def _answer(self, queries: Sequence[PictureQuery], **options) -> list[tuple]:
        with DefaultScope.overwrite_default_scope(self.scope):
            batch, = self.preprocess(queries, len(queries))
            samples = self.forward(batch, **options)
        return [(query, sample, Segmentation.of(
            answer_of(sample), query.name, query.prompt, query.index, self._doubts(query)))
            for query, sample in zip(queries, samples)]

    def _doubts(self, query: PictureQuery) -> tuple[str, ...]:
        """Why an answer may mean nothing, or is cruder than asked for."""
        look = self.model.second_look
        return (*self.taught.doubts(query.picture, query.prompt),
                *(() if look is None else look.doubts(query.prompt.task)))

    # --- building ------------------------------------------------------------------------------
    def _init_pipeline(self, cfg: Config) -> Compose:
        """The transforms of the test set, with the picture and the prompt that are given instead
        of those that its ``Load...`` read."""
        query = TRANSFORMS.build(copy.deepcopy(dict(query_of(cfg))))
        steps = [copy.deepcopy(dict(step)) for step in cfg.test_dataloader.dataset.get(
            'pipeline', ()) if not builds(TRANSFORMS, step, *_LOADERS)]

        def give(item: PictureQuery) -> dict:
            size = item.picture.shape[:2]
            return dict(img=item.picture, img_id=item.index, img_path=item.name, ori_shape=size,
                        img_shape=size)

        def ask(results: dict) -> dict:
            prompt = results.pop('asked')
            return dict(results, **query.ask(prompt.kind, prompt.value, results['ori_shape'],
                                             prompt.task.wanted))

        return Compose([lambda item: dict(give(item), asked=item.prompt),
                        *(TRANSFORMS.build(step) for step in steps), ask,
                        TRANSFORMS.build(dict(type='PackQuery'))])


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
