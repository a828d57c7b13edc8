"""Answers as annotation files: COCO, LabelMe, CVAT, YOLO, GeoJSON, SVG. No torch, no framework."""
from .formats import FORMATS, Format, export
from .prepare import notes_of

__all__ = ['FORMATS', 'Format', 'export', 'notes_of']
