"""Masks by SimpleSeg itself: a trained model annotates what the next one learns from."""
from collections.abc import Sequence

import numpy as np

from simpleseg_mm.registry import STAGES
from simpleseg_mm.structures import Prompt

from .sample import Sample
from .stage import Stage

ASKED_BY = ('box', 'category')


@STAGES.register_module()
class SimpleSegSegment(Stage):
    """Gives each object the outline that a SimpleSeg model writes.

    ``mask_score`` is the confidence: with ``consensus`` how far several answers agree, or as
    calibrated. :class:`CleanMasks` drops what is less sure than its ``min_score``. An object for
    which no outline is written is dropped here.

    Args:
        model, weights, device, consensus, second_look, cfg_options: as
            :class:`simpleseg_mm.apis.SimpleSegInferencer` takes them.
        ask: 'box', of what is in an object's box; or 'category', of what its category means, for
            pictures with one object of each.
        max_asked: prompts in one pass of the model.
        **kwargs: see :class:`Stage`.

    Raises:
        ValueError: the model was not taught to be asked so.
    """

    def __init__(self, model: str | None = None, weights: str | None = None,
                 device: str | None = None, consensus: int | dict | None = None,
                 second_look: bool | dict | None = None, cfg_options: dict | None = None,
                 ask: str = 'box', max_asked: int = 16, **kwargs) -> None:
        super().__init__(**kwargs)
        from simpleseg_mm.apis import SimpleSegInferencer  # loads torch
        if ask not in ASKED_BY or max_asked < 1:
            raise ValueError(f'ask={ask!r:.40}, max_asked={max_asked}: give one of {ASKED_BY}, '
                             'and 1 prompt or more')
        self.inferencer = SimpleSegInferencer(model, weights, device, show_progress=False,
                                              cfg_options=cfg_options, consensus=consensus,
                                              second_look=second_look)
        self.ask, self.max_asked = ask, max_asked
        kind = dict(box='box', category='text')[ask]
        if not self.inferencer.taught.knows(kind):
            raise ValueError(f'ask={ask!r}: the model was taught to be asked by '
                             f'{", ".join(self.inferencer.taught.prompts)} alone')

    def process(self, samples: Sequence[Sample]) -> None:
        asked = [(sample, found) for sample in samples for found in sample.objects]
        for start in range(0, len(asked), self.max_asked):
            part = [(sample, found, self._prompt(sample, found))
                    for sample, found in asked[start:start + self.max_asked]]
            part = [one for one in part if one[2] is not None]
            if not part:
                continue
            results = self.inferencer.ask_batch([(sample.image, prompt)
                                                 for sample, _, prompt in part])
            for (_, found, _), result in zip(part, results, strict=True):
                if result.mask.any():
                    found['mask'] = result.to_dict()['masks'][0]
                    if result.confidence is not None:
                        found['mask_score'] = round(result.confidence, 4)
        for sample in samples:
            sample.keep(self.name, [None if found.get('mask') else 'no outline is written for it'
                                    for found in sample.objects])

    def _prompt(self, sample: Sample, found: dict) -> Prompt | None:
        """None for a box without a pixel, and for an object without a category."""
        if self.ask == 'category':
            return Prompt(text=found['category']) if (found.get('category') or '').strip() else \
                None
        x1, y1, x2, y2 = np.clip(found['box'], 0, [sample.width, sample.height] * 2).tolist()
        return Prompt(box=(x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None
