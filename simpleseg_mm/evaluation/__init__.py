"""Evaluation: segmentation, boxes, points, prompts, questions, output health, text dumps."""
from .base import QueryMetric, check_metric_names
from .confidence import ConfidenceMetric, fit_calibration
from .gres import GRESMetric
from .health import OutputHealthMetric
from .instances import InstanceMetric
from .prompted import PromptedMaskMetric
from .protocols import BOX_PROTOCOLS, REGION_PROTOCOLS, BoxProtocol, RegionProtocol
from .rec import PointMetric, RECMetric
from .res import RESMetric
from .text_dump import TextDump, match_rows, read_text_rows
from .vqa import QuestionAnsweringMetric, normalise_answer

__all__ = [
    'BOX_PROTOCOLS', 'BoxProtocol', 'ConfidenceMetric', 'GRESMetric', 'InstanceMetric',
    'OutputHealthMetric', 'PointMetric', 'PromptedMaskMetric', 'QueryMetric',
    'QuestionAnsweringMetric', 'RECMetric', 'REGION_PROTOCOLS', 'RESMetric', 'RegionProtocol',
    'TextDump', 'check_metric_names', 'fit_calibration', 'match_rows', 'normalise_answer',
    'read_text_rows',
]
