"""Datasets, samplers, transforms and templates."""
from .collate import collate_queries
from .joined import JoinedDataset
from .questions import FormatQuestion, QuestionAnsweringDataset
from .refcoco import RefCOCODataset, RefShapesDataset
from .sampler import InfiniteVisitSampler
from .transforms import FormatQuery, LoadImage, LoadTargetMask, PackQuery

__all__ = [
    'FormatQuery', 'FormatQuestion', 'InfiniteVisitSampler', 'JoinedDataset', 'LoadImage',
    'LoadTargetMask', 'PackQuery', 'QuestionAnsweringDataset', 'RefCOCODataset',
    'RefShapesDataset', 'collate_queries',
]
