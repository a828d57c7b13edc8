"""Hooks."""
from .answers import EngineAnswersHook
from .checkpoint import TrainableCheckpointHook
from .grammar import GrammarHook
from .logs import NonFiniteGuardHook, ProgressBarHook, ReduceLogsHook, ThroughputHook
from .randomness import ExactResumeHook
from .retention import RetentionHook
from .rollouts import RolloutTableHook
from .samples import FirstBatchHook, SampleGenerationHook
from .saving import WholeCheckpointHook
from .visualization_hook import PredictionVisualizationHook
from .whole_weights import WholeWeightsHook

__all__ = [
    'EngineAnswersHook', 'ExactResumeHook', 'FirstBatchHook', 'GrammarHook', 'NonFiniteGuardHook',
    'PredictionVisualizationHook', 'ProgressBarHook', 'ReduceLogsHook', 'RetentionHook',
    'RolloutTableHook', 'SampleGenerationHook', 'ThroughputHook', 'TrainableCheckpointHook',
    'WholeCheckpointHook', 'WholeWeightsHook'
]
