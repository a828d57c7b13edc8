"""Answers as annotation files: COCO, LabelMe, CVAT, YOLO, GeoJSON, SVG. No torch, no framework."""
from .complete import SETS, SetPicture, SetWriter, check_format, check_set, export_set
from .corrections import (CORRECTIONS_FILE, CorrectedObject, CorrectedPicture, Rejected,
                          to_corrections)
from .formats import FORMATS, Format, export
from .prepare import notes_of

__all__ = ['CORRECTIONS_FILE', 'CorrectedObject', 'CorrectedPicture', 'FORMATS', 'Format',
           'Rejected', 'SETS', 'SetPicture', 'SetWriter', 'check_format', 'check_set', 'export',
           'export_set', 'notes_of', 'to_corrections']
