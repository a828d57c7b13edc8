"""Visualization: pictures of queries, contact sheets, curves of runs."""
from .curves import find_log, plot_curves, read_scalars
from .draw import contact_sheet
from .visualizer import SimpleSegVisualizer, write_image

__all__ = ['SimpleSegVisualizer', 'contact_sheet', 'find_log', 'plot_curves', 'read_scalars',
           'write_image']
