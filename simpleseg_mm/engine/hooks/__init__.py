"""Hooks."""
from .checkpoint import TrainableCheckpointHook
from .logs import NonFiniteGuardHook, ProgressBarHook, ReduceLogsHook, ThroughputHook
from .randomness import ExactResumeHook
from .samples import FirstBatchHook, SampleGenerationHook

__all__ = [
    'ExactResumeHook', 'FirstBatchHook', 'NonFiniteGuardHook', 'ProgressBarHook', 'ReduceLogsHook',
    'SampleGenerationHook', 'ThroughputHook', 'TrainableCheckpointHook'
]
