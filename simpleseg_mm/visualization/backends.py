"""Backends of MMEngine's visualizer that need other names than ours."""
import re

import numpy as np
from mmengine import visualization

from ..registry import VISBACKENDS


@VISBACKENDS.register_module()
class MLflowVisBackend(visualization.MLflowVisBackend):
    """MMEngine's, with names that MLflow takes. It refuses all figures where one has a sign in
    its name that it does not know, such as ``P@0.5``, or is no number; of a picture it wants the
    name of a file, and takes no step."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        super().add_image(f'{name}_{step}.png', image, step, **kwargs)

    def add_scalar(self, name: str, value: float, step: int = 0, **kwargs) -> None:
        super().add_scalar(_known(name), value, step, **kwargs)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None,
                    **kwargs) -> None:
        super().add_scalars({_known(name): value for name, value in scalar_dict.items()
                             if value is not None}, step, file_path, **kwargs)


def _known(name: str) -> str:
    return re.sub(r'[^\w\-. :/]', '_', name)
