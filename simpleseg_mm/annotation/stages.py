"""The stages of the data engine, and what runs them; importing it registers them."""
from .boxes import SelectBoxes
from .describe import DescribeByEndpoint
from .describe_chat import DescribeByChat
from .detect import GroundingDetect, VerifyDescriptions
from .filters import FilterDuplicates, FilterImage
from .local_engine import LocalEngine
from .masks import CleanMasks, WritePolygons
from .oracle import OracleDetect, OracleSegment
from .own_model import SimpleSegSegment
from .pipeline import Plan, annotate
from .readers import ReadFolder, ReadParquet, ReadTars
from .sample import Chunk, Sample
from .segment import SamSegment
from .stage import Stage

__all__ = [
    'Chunk', 'CleanMasks', 'DescribeByChat', 'DescribeByEndpoint', 'FilterDuplicates',
    'FilterImage', 'GroundingDetect', 'LocalEngine', 'OracleDetect', 'OracleSegment', 'Plan',
    'ReadFolder', 'ReadParquet', 'ReadTars', 'SamSegment', 'Sample', 'SelectBoxes',
    'SimpleSegSegment', 'Stage', 'VerifyDescriptions', 'WritePolygons', 'annotate'
]
