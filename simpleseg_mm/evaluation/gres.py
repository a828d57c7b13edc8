"""Generalised referring expression segmentation: one, several or no targets, as ReLA scores it."""
from collections.abc import Sequence

from ..registry import METRICS
from .base import SampleQuery, percent, stated
from .res import RESMetric


@METRICS.register_module()
class GRESMetric(RESMetric):
    """The figures of gRefCOCO's tables, in percent (Liu et al., 'GRES', CVPR 2023, and ReLA's
    evaluator).

    - ``cIoU``: sum of intersections over sum of unions; what is predicted where nothing is meant
      joins the union;
    - ``gIoU``: mean IoU a query, an absent target counting 1 if answered with nothing, else 0;
      ``gIoU_single``, ``gIoU_several``: the same over targets of one and of more objects (ours);
    - ``Pr@0.7`` ... ``Pr@0.9``: share of the present targets with at least that IoU;
    - ``N-acc``, ``T-acc``: share of absent targets answered with nothing, and of present ones
      answered with something; left out where no target is absent.

    An answer in words, or one that cannot be read, is not 'nothing' (ours; ReLA has a classifier):
    it is wrong for every target, and a present one was not denied.

    Args:
        protocol: A name in `REGION_PROTOCOLS`; ReLA's unless told, at 480 x 480 pixels.
        thresholds: Of Pr@X.
        **kwargs: ``per_set``, ``prefix`` and others of `QueryMetric`.
    """

    default_prefix = 'gres'

    def __init__(self, protocol: str = 'rela', thresholds: Sequence[float] = (0.7, 0.8, 0.9),
                 **kwargs) -> None:
        super().__init__(protocol, thresholds, boundary=False, **kwargs)

    def measure(self, query: SampleQuery) -> dict:
        return dict(super().measure(query), objects=len(query.objects))

    def summarize(self, results: list[dict]) -> dict:
        found = super().summarize(results)
        figures = {name: found.get(name) for name in ('cIoU', 'gIoU', 'N-acc', 'T-acc')}
        figures.update({f'Pr@{x:g}': found.get(f'P@{x:g}') for x in self.thresholds})
        present = [result for result in results if result['area']]
        figures['gIoU_single'] = percent(r['iou'] for r in present if r['objects'] == 1)
        figures['gIoU_several'] = percent(r['iou'] for r in present if r['objects'] > 1)
        return stated(figures)
