"""What kind of failure an answer is, from what the metrics measure on it."""
from .base import SampleQuery
from .health import OutputHealthMetric
from .res import RESMetric

#: kinds in the order in which they are asked; what each means
FAILURES = {
    'truncated': 'the answer has no end',
    'unparseable': 'no outline can be read, and the answer is not "nothing"',
    'false object': 'an absent target was answered with a mask',
    'missed': 'a present target was answered with nothing',
    'semantic': 'another object: mask IoU and box IoU at most 0.5',
    'geometric': 'the right object, box IoU above 0.5, badly outlined: mask IoU at most 0.5',
    'part or hole missed': 'mask IoU above 0.5, but a part or hole of the target is not there',
}


class FailureKinds:
    """Measures queries one by one with :class:`RESMetric` and :class:`OutputHealthMetric`."""

    def __init__(self) -> None:
        self._res, self._health = RESMetric(boundary=False), OutputHealthMetric()

    def measure(self, sample: dict) -> dict:
        """``iou`` (0..1, at the original size), ``area`` (true pixels), ``tokens``, ``vertices``
        and ``kind``, a name in ``FAILURES`` or None, of a sample as the metrics get it."""
        query = SampleQuery(sample)
        res, health = self._res.measure(query), self._health.measure(query)
        return dict(iou=float(res['iou']), area=res['area'], tokens=health['tokens'],
                    vertices=health.get('vertices'), kind=kind_of(res, health))


def kind_of(res: dict, health: dict):
    """The kind of failure, from one query's measures; None: none of them."""
    if health['truncated']:
        return 'truncated'
    if not res['area']:
        return ('false object' if health['false_object'] else
                'unparseable' if not health['valid_parse'] else None)
    if health['empty']:
        return 'missed' if health['valid_parse'] else 'unparseable'
    if res['iou'] <= 0.5:
        return 'geometric' if health['box_right_mask_wrong'] else 'semantic'
    if any(health.get(f'found_{name}', 0) < health.get(f'true_{name}', 0)
           for name in ('parts', 'holes')):
        return 'part or hole missed'
    return None
