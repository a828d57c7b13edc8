"""Datasets, samplers, transforms and templates."""
from .coco import CocoQueryDataset
from .collate import collate_queries
from .joined import JoinedDataset
from .questions import FormatQuestion, QuestionAnsweringDataset
from .reasonseg import ReasonSegDataset
from .refcoco import RefCOCODataset, RefShapesDataset
from .sampler import InfiniteVisitSampler
from .transforms import FormatQuery, LoadImage, LoadTargetMask, PackQuery

__all__ = [
    'CocoQueryDataset', 'FormatQuery', 'FormatQuestion', 'InfiniteVisitSampler', 'JoinedDataset',
    'LoadImage', 'LoadTargetMask', 'PackQuery', 'QuestionAnsweringDataset', 'ReasonSegDataset',
    'RefCOCODataset', 'RefShapesDataset', 'collate_queries',
]
