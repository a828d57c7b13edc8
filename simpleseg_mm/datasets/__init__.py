"""Datasets, samplers, transforms and templates."""
from .collate import collate_queries
from .refcoco import RefCOCODataset, RefShapesDataset
from .sampler import InfiniteVisitSampler
from .transforms import FormatQuery, LoadImage, LoadTargetMask, PackQuery

__all__ = [
    'FormatQuery', 'InfiniteVisitSampler', 'LoadImage', 'LoadTargetMask', 'PackQuery',
    'RefCOCODataset', 'RefShapesDataset', 'collate_queries',
]
