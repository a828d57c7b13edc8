"""Models whose weights are split over processes: whole for a while, and tensors to and fro."""
from collections.abc import Iterator
from contextlib import contextmanager

import mmengine.runner  # noqa: F401  (registers its classes for DeepSpeed)
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS, OPTIM_WRAPPERS, STRATEGIES
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

_DeepSpeedWrapper = MODEL_WRAPPERS.get('MMDeepSpeedEngineWrapper')
DeepSpeedOptimWrapper = OPTIM_WRAPPERS.get('DeepSpeedOptimWrapper')
DeepSpeedStrategy = STRATEGIES.get('DeepSpeedStrategy')


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside its data-parallel wrapper, if it has one."""
    return model.module if is_model_wrapper(model) else model


def deepspeed_engine(model: nn.Module):
    """The engine in MMEngine's wrapper, which cannot be called itself; None without DeepSpeed."""
    return model.model if isinstance(model, _DeepSpeedWrapper) else None


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

    Args:
        model: the model in its wrapper, as the runner holds it.
    """
    engine = deepspeed_engine(model)
    if engine and engine.zero_optimization_partition_weights():
        with _gathered_by_zero(engine):
            yield
        return
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


@contextmanager
def _gathered_by_zero(engine) -> Iterator[None]:
    """All weights of ZeRO-3, without its hooks, which let go of a weight after its module."""
    from deepspeed.runtime.zero import GatheredParameters  # optional
    offload = engine.optimizer.parameter_offload
    with GatheredParameters(list(engine.module.parameters())):
        start = getattr(offload, 'fwd_pre_hook', None)  # of the whole module; set up anew, too
        for hook in (*offload.forward_hooks, *offload.backward_hooks, *filter(None, [start])):
            hook.remove()
        try:
            yield
        finally:
            offload.forward_hooks.clear()
            offload.backward_hooks.clear()
            offload.setup_zero_stage3_hooks()
