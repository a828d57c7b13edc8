"""Models whose weights ``fully_shard`` has split: whole for a while, and tensors to and fro."""
from contextlib import contextmanager
from typing import Iterator

from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside its data-parallel wrapper, if it has one."""
    return model.module if is_model_wrapper(model) else model


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value. For a split one, every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A full tensor that every process has, split as ``model`` is (a view of it, or a copy)."""
    if not isinstance(model, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements,
                             src_data_rank=None)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Within, every process has all weights, and a forward pass exchanges nothing.

    Processes may then run different numbers of passes, as generation and a validation of uneven
    parts do. It costs the memory of one whole copy of the weights. A model that is not split is
    left as it is. Every process must enter and leave.
    """
    split = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in split:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in split:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()
