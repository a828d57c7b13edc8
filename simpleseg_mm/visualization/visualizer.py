"""MMEngine's visualizer of queries."""
import numpy as np
from mmdet.structures import DetDataSample
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from ..registry import VISUALIZERS
from .draw import write_image
from .painter import QueryPainter


@VISUALIZERS.register_module()
class SimpleSegVisualizer(QueryPainter, Visualizer):
    """Draws queries as :class:`QueryPainter`, for MMEngine's hooks.

    Args:
        layout, side, largest, numbers: See :class:`QueryPainter`.
        **kwargs: Of `mmengine.visualization.Visualizer`.
    """

    def __init__(self, name: str = 'visualizer', layout: str = 'overlay', side: int = 560,
                 largest: int = 1600, numbers: bool = False, **kwargs) -> None:
        QueryPainter.__init__(self, layout, side, largest, numbers)
        Visualizer.__init__(self, name=name, **kwargs)

    @master_only
    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: DetDataSample | None = None, draw_gt: bool = True,
                       draw_pred: bool = True, show: bool = False, wait_time: float = 0,
                       out_file: str | None = None, pred_score_thr: float = 0.3,
                       step: int = 0) -> None:
        """Draws a query and shows it, writes it, or hands it to the backends.

        Args:
            name: Of the picture in the backends and of the window.
            image, data_sample, draw_gt, draw_pred: See `draw_query`.
            show: Whether to open a window.
            wait_time: Seconds that it stays; 0: until a key is pressed.
            out_file: Path of the picture; folders are made. None: the backends get it.
            pred_score_thr: Taken for compatibility with MMDetection's visualizer; not used.
            step: Of the backends.
        """
        picture = self.draw_query(image, data_sample, draw_gt, draw_pred)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            write_image(picture, out_file)
        elif not show:
            self.add_image(name, picture, step)
