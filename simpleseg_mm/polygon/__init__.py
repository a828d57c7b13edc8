"""The pure core: masks, rings and their text, by numpy, SciPy, OpenCV, pycocotools and shapely
alone."""
from .answer import Answer, CropAnswer
from .automaton import AnswerAutomaton
from .codec import PolygonCodec, codec_of
from .contour import canonical_start, mask_to_rings, signed_area
from .exported_grammar import (DIFFERENCES, GRAMMAR_FORMS, ExportedAutomaton, allowed_beyond,
                               export_grammar, exported_differences, outside_grammar)
from .fit import fit_rings, rate_of, thin_rings
from .grammar import Grammar, count_tokens
from .parts import Part, check_parts, group_rings, mask_to_parts
from .names import MAX_NAME, name_key, quoted_name
from .raster import (box_iou, coco_fill, mask_iou, mask_to_box, mask_to_extreme, mask_to_point,
                     mask_to_rle, rings_to_mask, rings_to_spans, rle_to_crop, rle_to_mask,
                     segmentation_to_mask, segmentation_to_rle)
from .reading import ANSWER_KINDS, LIST_KINDS, NAMED_KINDS, ParsedAnswer
from .simplify import arc_length, simplify_dp
from .spans import Spans, count_crossings
from .spread import SPREAD_QUANTILES, outline_spread
from .task import MANY, TASKS, WANTED, Task
from .text import find_kind, parse_answer, written_masks
from .votes import vote
from .written import WrittenRings

__all__ = [
    'ANSWER_KINDS', 'Answer', 'AnswerAutomaton', 'CropAnswer', 'DIFFERENCES', 'ExportedAutomaton',
    'GRAMMAR_FORMS', 'Grammar', 'LIST_KINDS', 'MANY', 'MAX_NAME', 'NAMED_KINDS', 'ParsedAnswer',
    'Part', 'PolygonCodec', 'SPREAD_QUANTILES', 'Spans', 'TASKS', 'Task', 'WANTED',
    'WrittenRings', 'allowed_beyond', 'arc_length', 'box_iou', 'canonical_start', 'check_parts',
    'coco_fill', 'codec_of', 'count_crossings', 'count_tokens', 'export_grammar',
    'exported_differences', 'find_kind', 'fit_rings', 'group_rings', 'mask_iou', 'mask_to_box',
    'mask_to_extreme', 'mask_to_parts', 'mask_to_point', 'mask_to_rings', 'mask_to_rle',
    'name_key', 'outline_spread', 'outside_grammar', 'parse_answer', 'quoted_name', 'rate_of',
    'rings_to_mask', 'rings_to_spans', 'rle_to_crop', 'rle_to_mask', 'segmentation_to_mask',
    'segmentation_to_rle', 'signed_area', 'simplify_dp', 'thin_rings', 'vote', 'written_masks'
]
