"""Batches of queries."""
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS

from simpleseg_mm.registry import FUNCTIONS


@MMENGINE_FUNCTIONS.register_module()  # the runner looks collate functions up there
@FUNCTIONS.register_module()
def collate_queries(batch: list[dict]) -> dict:
    """Lists of inputs and data samples: images keep their own sizes.

    Returns:
        ``dict(inputs=[(3, H, W) uint8 RGB tensors], data_samples=[DetDataSample, ...])``.
    """
    return dict(inputs=[item['inputs'] for item in batch],
                data_samples=[item['data_samples'] for item in batch])
