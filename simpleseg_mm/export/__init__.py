"""Answers as annotation files: COCO, LabelMe, CVAT, YOLO, GeoJSON, SVG. No torch, no framework."""
from .formats import FORMATS, Format, export

__all__ = ['FORMATS', 'Format', 'export']
