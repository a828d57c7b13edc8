"""Datasets, samplers, transforms and templates."""
from .annotated import AnnotatedShardsDataset, LoadShardImage
from .collate import collate_queries
from .joined import JoinedDataset
from .questions import FormatQuestion, QuestionAnsweringDataset
from .refcoco import RefCOCODataset, RefShapesDataset
from .sampler import InfiniteVisitSampler
from .transforms import FormatQuery, LoadImage, LoadTargetMask, PackQuery

__all__ = [
    'AnnotatedShardsDataset', 'FormatQuery', 'FormatQuestion', 'InfiniteVisitSampler',
    'JoinedDataset', 'LoadImage', 'LoadShardImage', 'LoadTargetMask', 'PackQuery',
    'QuestionAnsweringDataset', 'RefCOCODataset', 'RefShapesDataset', 'collate_queries',
]
