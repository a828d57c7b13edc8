"""Training whose weights, gradients and optimizer state are split over processes."""
import os
import re
from collections.abc import Callable
from typing import Any

import mmengine.runner  # noqa: F401  (registers MMEngine's strategies)
import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.dist import (broadcast_object_list, get_world_size, infer_launcher, init_dist,
                           is_main_process)
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (MixedPrecisionPolicy, fully_shard,
                                    register_fsdp_forward_method)
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from simpleseg_mm.registry import STRATEGIES

from .checkpoint_file import CheckpointError, fault_of
from .sharded_checkpoint import Place, load_sharded, save_sharded
from .sharding import split_like


@STRATEGIES.register_module()
class FullyShardStrategy(MMENGINE_STRATEGIES.get('SingleDeviceStrategy')):
    """FSDP2: ``torch.distributed.fsdp.fully_shard`` for MMEngine's ``FlexibleRunner``.

    Each transformer block is gathered for its forward and backward pass alone. Parameters stay
    matrices (DTensors), so that Muon can orthogonalise them; MMEngine's own ``FSDPStrategy``
    flattens them. Checkpoints are folders (see :mod:`.sharded_checkpoint`) that any number of
    processes, and a plain run, can load and resume.

    Args:
        shard_size: processes that share one copy of the weights, a divisor of their number; the
            copies are data-parallel among each other (HSDP). A node's GPUs are a good choice
            where nodes are far apart. None: all processes share one copy.
        reduce_dtype: type in which gradients are summed over processes. Ours: float32, since
            bfloat16 loses small gradients among many.

    Raises:
        ValueError: ``shard_size`` does not divide the processes, or the model has no blocks
            (``GradientCheckpointingLayer`` of transformers).
    """

    def __init__(self, *, shard_size: int | None = None, reduce_dtype: str = 'float32',
                 **kwargs) -> None:
        _join(**(kwargs.get('env_kwargs') or {}))
        super().__init__(**kwargs)
        self.shard_size = shard_size
        self.reduce_dtype = getattr(torch, reduce_dtype)

    def _mesh(self) -> DeviceMesh:
        device, processes = get_device(), get_world_size()
        if not dist.is_initialized():
            raise ValueError('FullyShardStrategy needs processes to split the model over: start '
                             'with torchrun and --launcher pytorch (tools/dist_train.sh does).')
        size = processes if self.shard_size is None else self.shard_size
        if size < 1 or processes % size:
            raise ValueError(f'shard_size={size} does not divide {processes} processes')
        if size == processes:
            return init_device_mesh(device, (processes, ))
        return init_device_mesh(device, (processes // size, size),
                                mesh_dim_names=('replicate', 'shard'))

    def convert_model(self, model: nn.Module) -> nn.Module:
        """Split the model, block by block."""
        options = dict(mesh=self._mesh(),
                       mp_policy=MixedPrecisionPolicy(reduce_dtype=self.reduce_dtype),
                       reshard_after_forward=True)
        for block in _blocks(model):
            fully_shard(block, **options)
        fully_shard(model, **options)
        # The root is the first module that runs, which must not be a block that generates.
        register_fsdp_forward_method(model, 'init_weights')
        model.init_weights()
        return model

    # --- checkpoints --------------------------------------------------------------------------
    def save_checkpoint(self, filename: str, *, save_optimizer: bool = True,
                        save_param_scheduler: bool = True, extra_ckpt: dict | None = None,
                        callback: Callable | None = None) -> None:
        """Every process writes its part into the folder ``filename``."""
        checkpoint: dict[str, Any] = dict(state_dict=self.model_state_dict())
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            checkpoint['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()
        checkpoint.update(extra_ckpt or {})
        checkpoint.setdefault('meta', {})['seed'] = self.seed
        if callback is not None:
            callback(checkpoint)
        save_sharded(checkpoint, filename)

    def model_state_dict(self) -> dict:
        return dict(self.model.state_dict())

    def load_checkpoint(self, filename: str, *, callback: Callable | None = None,
                        **kwargs) -> dict:
        """A folder, of which each process reads its part, or a file of a plain run."""
        if not os.path.isdir(filename):
            return super().load_checkpoint(filename, callback=callback, **kwargs)
        fault = [fault_of(filename) if is_main_process() else None]
        broadcast_object_list(fault)
        if fault[0]:
            raise CheckpointError(fault[0])
        self.logger.info(f'Load checkpoint from {filename}')
        weights = self.model.state_dict()
        params = self._optimized() if hasattr(self, 'optim_wrapper') else []

        def part(place: Place, size: torch.Size, dtype: torch.dtype) -> Tensor:
            """What a stored tensor is read into: this process's part, where it is split."""
            like = None
            if place[0] == 'state_dict':
                like = weights.get(place[1])
            elif params and place[:2] == ('optimizer', 'state'):
                like = params[place[2]]
            if isinstance(like, DTensor) and like.shape == size:
                return torch.empty_like(like, dtype=dtype)
            return torch.empty(size, dtype=dtype)

        checkpoint = load_sharded(filename, part)
        if callback is not None:
            callback(checkpoint)
        self.load_model_state_dict(checkpoint.pop('state_dict'))
        return checkpoint

    def load_model_state_dict(self, state_dict: dict, **kwargs) -> None:
        own = self.model.state_dict()
        super().load_model_state_dict(
            {name: split_like(value, own[name]) if name in own else value
             for name, value in ((re.sub(r'^module\.', '', name), value)
                                 for name, value in state_dict.items())}, **kwargs)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        params = self._optimized()
        for i, state in state_dict['state'].items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == params[i].shape:
                    state[key] = split_like(value, params[i])
        super().load_optim_state_dict(state_dict)

    def _optimized(self) -> list[Tensor]:
        """The optimizer's parameters in the order of its saved state."""
        return [p for group in self.optim_wrapper.param_groups for p in group['params']]


def _join(launcher: str | None = None, mp_cfg: dict | None = None, dist_cfg: dict | None = None,
          **_) -> None:
    """Join the processes that a launcher has started, as MMEngine's strategies for several do."""
    launcher = launcher or infer_launcher()
    if launcher != 'none' and not dist.is_initialized():
        set_multi_processing(distributed=True, **(mp_cfg or {}))
        init_dist(launcher, **(dist_cfg or {}))


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a model, inner ones first."""
    blocks = [module for module in model.modules()
              if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ValueError(f'{type(model).__name__} has no GradientCheckpointingLayer, the blocks '
                         'of transformers: FullyShardStrategy would gather all at once.')
    return blocks[::-1]
