"""Pictures of test samples: ``tools/test.py --show`` and ``--show-dir``."""
from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook

from simpleseg_mm.datasets.pictures import bytes_of_picture
from simpleseg_mm.files import load_image
from simpleseg_mm.registry import HOOKS


@HOOKS.register_module()
class PredictionVisualizationHook(Hook):
    """Draws every ``interval``-th test sample with the runner's visualizer.

    The arguments are those of MMDetection's ``DetVisualizationHook``, which cannot be imported
    where mmcv has no compiled ops.

    Args:
        draw: Whether to do anything.
        interval: Of test samples, counted in each process; the first is drawn.
        show: Whether to show each picture in a window.
        wait_time: Seconds that it stays.
        test_out_dir: Folder for the pictures, named ``IMG_ID.png``. Where this is None and
            nothing is shown, the visualizer's backends get them.
        backend_args: Of MMEngine's file client, for the images.

    Raises:
        ValueError: ``interval`` is less than 1.
    """

    def __init__(self, draw: bool = False, interval: int = 10, show: bool = False,
                 wait_time: float = 0., test_out_dir: str | None = None,
                 backend_args: dict | None = None) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}; draw=False switches '
                             'the hook off')
        self.draw = draw
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.test_out_dir = test_out_dir
        self.backend_args = backend_args
        self._seen = 0

    def before_test(self, runner) -> None:
        self._seen = 0

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence | None = None) -> None:
        if not self.draw:
            return
        for sample in outputs or ():
            if self._seen % self.interval == 0:
                self._draw(runner, sample)
            self._seen += 1

    def _draw(self, runner, sample) -> None:
        image = load_image(bytes_of_picture(sample.img_path, self.backend_args),
                           **sample.get('read_as', dict(upright=False)))
        out_file = None
        if self.test_out_dir is not None:
            out_file = str(Path(self.test_out_dir) / f'{sample.img_id}.png')
        runner.visualizer.add_datasample(
            f'test_{sample.img_id}', image, data_sample=sample, show=self.show,
            wait_time=self.wait_time, out_file=out_file, step=self._seen)
