"""Datasets, samplers, transforms and templates."""
from .annotated import AnnotatedShardsDataset, LoadShardImage
from .base import BadSample, QueryDataset, RawRecord
from .coco import CocoQueryDataset
from .collate import collate_queries
from .crops import CropToTarget
from .joined import JoinedDataset
from .questions import FormatQuestion, QuestionAnsweringDataset
from .reasonseg import ReasonSegDataset
from .refcoco import RefCOCODataset, RefShapesDataset
from .sampler import InfiniteVisitSampler
from .transforms import FormatQuery, LoadImage, LoadTargetMask, PackQuery

__all__ = [
    'AnnotatedShardsDataset', 'BadSample', 'CocoQueryDataset', 'CropToTarget', 'FormatQuery',
    'FormatQuestion', 'InfiniteVisitSampler', 'JoinedDataset', 'LoadImage', 'LoadShardImage',
    'LoadTargetMask', 'PackQuery', 'QueryDataset', 'QuestionAnsweringDataset', 'RawRecord',
    'ReasonSegDataset', 'RefCOCODataset', 'RefShapesDataset', 'collate_queries',
]
