"""Visualization: pictures of queries, contact sheets, curves of runs.

Names are loaded when they are first asked for: drawing needs neither MMEngine nor torch.
"""
from importlib import import_module

_HOMES = dict(SimpleSegVisualizer='visualizer', QueryPainter='painter', contact_sheet='draw',
              write_image='draw', find_log='curves', plot_curves='curves', read_scalars='curves')
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
