"""Evaluation: segmentation, boxes, points, output health, text dumps."""
from .base import QueryMetric, check_metric_names
from .health import OutputHealthMetric
from .protocols import BOX_PROTOCOLS, REGION_PROTOCOLS, BoxProtocol, RegionProtocol
from .rec import PointMetric, RECMetric
from .res import RESMetric
from .text_dump import TextDump, match_rows, read_text_rows

__all__ = [
    'BOX_PROTOCOLS', 'BoxProtocol', 'OutputHealthMetric', 'PointMetric', 'QueryMetric',
    'RECMetric', 'REGION_PROTOCOLS', 'RESMetric', 'RegionProtocol', 'TextDump',
    'check_metric_names', 'match_rows', 'read_text_rows',
]
