"""Masks from a point or a box, as promptable segmenters are scored: mIoU, in all and by size."""

from ..registry import METRICS
from .base import SampleQuery, percent, stated
from .res import SIZE_BINS, RESMetric


@METRICS.register_module()
class PromptedMaskMetric(RESMetric):
    """Mean IoU of masks asked for by a point or box on the object, in percent.

    - ``mIoU``: mean IoU an object, and ``objects``, their number;
    - ``mIoU_small``, ``mIoU_medium``, ``mIoU_large``: by the annotation's ``area``, in COCO's
      bins: below 32^2, below 96^2 and from 96^2 pixels. The true mask's area where the sample
      states none;
    - ``point/mIoU``, ``box/mIoU_small`` and so on where both kinds of prompt were asked.

    SAM reports the same mean (Kirillov et al., 2023); its masks are chosen among three, and by
    clicks that are simulated, so compare figures of one protocol only.
    """

    default_prefix = 'prompt'

    def __init__(self, **kwargs) -> None:
        super().__init__(boundary=False, **kwargs)

    def measure(self, query: SampleQuery) -> dict:
        if query.task is None or query.task.wanted != 'mask':
            raise ValueError(f"sample {query.name} has the task {query.meta.get('task')!r}; this "
                             'metric scores point2mask and box2mask')
        result = super().measure(query)
        stated_areas = [instance.get('area') for instance in query.objects]
        size = result['area'] if not stated_areas or None in stated_areas else sum(stated_areas)
        return dict(iou=result['iou'], size=size, given=query.task.given)

    def summarize(self, results: list[dict]) -> dict:
        figures = _by_size(results)
        kinds = sorted({result['given'] for result in results})
        for kind in kinds if len(kinds) > 1 else ():
            part = _by_size([result for result in results if result['given'] == kind])
            figures.update({f'{kind}/{name}': value for name, value in part.items()})
        return stated(figures)


def _by_size(results: list[dict]) -> dict:
    figures = dict(mIoU=percent(result['iou'] for result in results), objects=len(results))
    for name, (low, high) in SIZE_BINS.items():
        least = 0 if name == 'small' else low  # an annotated area may be a fraction of a pixel
        figures[f'mIoU_{name}'] = percent(
            result['iou'] for result in results if least <= result['size'] < high)
    return figures
