"""Code run on tensors without data: what it would hold in memory, and what it would compute.

A rehearsal executes the real training step: the network of transformers, autograd, gradient
checkpointing, the optimizer. Only its floating-point tensors hold nothing, so that a 7B takes
seconds and no memory. Integers are real: token ids, masks and positions decide about shapes.
"""
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
# torch counts the attention of a GPU only; that of a CPU takes the same arguments.
_FLOPS = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu:
        flop_registry[_ATEN._scaled_dot_product_flash_attention],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward:
        flop_registry[_ATEN._scaled_dot_product_flash_attention_backward],
}


def _grouped_mm_flops(a: Tensor, b: Tensor, *args, out_val=None, **kwargs) -> int:
    """Products of rows sorted by expert, in either pass of a mixture of experts."""
    if a.ndim == 3 and b.ndim == 2:
        return 2 * a.shape[-2] * b.numel()
    return 2 * a.numel() * b.shape[-1]


_FLOPS[_ATEN._grouped_mm] = _grouped_mm_flops


@dataclass
class Phase:
    """What a part of a rehearsal took.

    Attributes:
        peak: bytes by category at the moment when most bytes were alive.
        flops: floating-point operations of matrix products, convolutions and attention.
        recomputed: those of ``flops`` that gradient checkpointing spent a second time.
    """
    peak: dict[str, int] = field(default_factory=dict)
    flops: int = 0
    recomputed: int = 0

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.peak.values())


class Rehearsal(TorchDispatchMode):
    """A context in which floating-point tensors hold nothing and every byte is counted.

    A storage belongs to the category it was given by :meth:`file`; until then to 'logits' if one
    of its dimensions is the vocabulary, else to 'activations'. Storages are counted once, from
    their first tensor to their last; the temporary buffers inside a kernel are not seen.

    Args:
        vocabulary: entries of the language head.
        device: that the tensors claim to be on; it chooses the kernels of attention.
    """

    def __init__(self, vocabulary: int, device: str = 'cpu') -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._device = torch.device(device)
        self._vocabulary = vocabulary
        self._storages: dict[int, list] = {}  # its number -> [category, bytes]
        self.alive: Counter = Counter()
        self._phase = Phase()

    def __enter__(self) -> 'Rehearsal':
        self._fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._fake.__exit__(*error)

    def adopt(self, model: nn.Module) -> None:
        """Turns parameters and buffers of a model on the meta device into tensors without data;
        both are filed as 'weights'."""
        taken: dict[int, Tensor] = {}

        def empty(tensor: Tensor) -> Tensor:
            if id(tensor) not in taken:
                fake = FakeTensor(self._fake, tensor.detach().to('meta'), self._device)
                taken[id(tensor)] = (nn.Parameter(fake, tensor.requires_grad)
                                     if isinstance(tensor, nn.Parameter) else fake)
            return taken[id(tensor)]  # tied weights stay tied

        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = empty(tensor)
        self._keep = taken  # an id is only good while its tensor lives
        self.file(taken.values(), 'weights')
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p: self.file([p.grad], 'gradients'))

    def file(self, tensors: Iterable[Tensor], category: str) -> None:
        """Counts these tensors under a category from now on."""
        for tensor in tensors:
            key = self._note(tensor)
            old, size = self._storages[key]
            self.alive[old] -= size
            self.alive[category] += size
            self._storages[key][0] = category

    @contextmanager
    def phase(self) -> Iterator[Phase]:
        """The peak and the operations of what is run within."""
        outer, self._phase = self._phase, Phase(dict(self.alive))
        try:
            yield self._phase
        finally:
            self._phase = outer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is _DEVICE:  # asked half a million times for a 7B
            return args[0].fake_device
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        empty = sum(isinstance(x, FakeTensor) for x in tensors)
        if not empty:
            with unset_fake_temporarily():
                return self._noted(func(*args, **kwargs))
        if empty < len(tensors):
            if func is _ATEN.index.Tensor:
                args = (args[0], _numbered(args[1]))
            args, kwargs = tree_map(self._without_data, (args, kwargs))
        if func is _ATEN._grouped_mm.default and args[0].dtype != torch.bfloat16:
            # torch knows its shape for bfloat16 only, though a CPU runs it in float32
            low = tree_map(_as_bfloat16, args)
            output = self._noted(func(*low, **kwargs).to(args[0].dtype))
        else:
            output = self._noted(func(*args, **kwargs))
        self._count(func, args, kwargs, output)
        return output

    def _without_data(self, x):
        if not isinstance(x, Tensor) or isinstance(x, FakeTensor):
            return x
        self._note(x)
        return self._fake.from_tensor(x)

    def _noted(self, output):
        for tensor in _tensors(output if isinstance(output, (tuple, list)) else (output, )):
            self._note(tensor)
        return output

    def _note(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            category = 'logits' if self._vocabulary in tensor.shape else 'activations'
            self._storages[key] = [category, storage.nbytes()]
            self.alive[category] += storage.nbytes()
            finalize(storage, self._forget, key).atexit = False
            if sum(self.alive.values()) > self._phase.total:
                self._phase.peak = dict(self.alive)
        return key

    def _forget(self, key: int) -> None:
        category, size = self._storages.pop(key)
        self.alive[category] -= size

    def _count(self, func, args, kwargs, output) -> None:
        formula = _FLOPS.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=output)
            self._phase.flops += flops
            # A backward pass records no graph, but where it runs a forward pass once more.
            if torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled():
                self._phase.recomputed += flops


def _tensors(values: Sequence) -> Iterator[Tensor]:
    """Tensors of an operator's arguments: single ones, and those of lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (x for x in value if isinstance(x, Tensor))


def _as_bfloat16(x):
    return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x


def _numbered(indices: Sequence) -> list:
    """Masks among indices as numbers: how many are chosen is known, as masks are real."""
    numbered = []
    with unset_fake_temporarily():
        for index in indices:
            if isinstance(index, Tensor) and not isinstance(index, FakeTensor) \
                    and index.dtype == torch.bool:
                numbered.extend(index.nonzero().unbind(1))
            else:
                numbered.append(index)
    return numbered


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors' values."""
    return sum(x.numel() * x.element_size() for x in tensors)


def state_tensors(optimizer: torch.optim.Optimizer) -> list:
    """Every tensor of an optimizer's state."""
    return [x for x in tree_leaves(dict(optimizer.state)) if isinstance(x, Tensor)]
