"""Code run on tensors without data: what it would hold in memory, and what it would compute.

A rehearsal executes the real training step: the network of transformers, autograd, gradient
checkpointing, the optimizer. Only its floating-point tensors hold nothing, so that a 7B takes
seconds and no memory. Integers are real: token ids, masks and positions decide about shapes.
"""
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_DEVICE = torch.ops.prim.device.default


@cache
def _name(operator) -> str:
    """Of an operator, or of one of its variants: 'bmm'. An internal one is named as a public
    one, and one of a CPU, which takes the same arguments, as that of a GPU."""
    return str(operator).partition('.')[2].partition('.')[0].lstrip('_').replace('_for_cpu', '')


def _grouped_mm_flops(a: Tensor, b: Tensor, *args, out_val=None, **kwargs) -> int:
    """Products of rows sorted by expert, in either pass of a mixture of experts."""
    if a.ndim == 3 and b.ndim == 2:
        return 2 * a.shape[-2] * b.numel()
    return 2 * a.numel() * b.shape[-1]


_FLOPS = {_name(operator): formula for operator, formula in flop_registry.items()}
_FLOPS['grouped_mm'] = _grouped_mm_flops


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


class Rehearsal(FakeTensorMode):
    """A context in which floating-point tensors hold nothing and every byte is counted.

    A storage belongs to the category it was given by :meth:`file`; until then to 'logits' if one
    of its dimensions is the vocabulary, else to 'activations'. Storages are counted once, from
    their first tensor to their last; the temporary buffers inside a kernel are not seen.

    Args:
        vocabulary: entries of the language head.
        device: that the tensors claim to be on; it chooses the kernels of attention.
    """

    def __init__(self, vocabulary: int, device: str = 'cpu') -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False  # an operator, whose parts are its own affair
        self._device = torch.device(device)
        self._vocabulary = vocabulary
        self._storages: dict[int, list] = {}  # its number -> [category, bytes]
        self.alive: Counter = Counter()
        self._phase = Phase()
        self._backward = False

    def adopt(self, model: nn.Module) -> None:
        """Turns parameters and buffers of a model on the meta device into tensors without data;
        both are filed as 'weights'."""
        taken: dict[int, Tensor] = {}

        def empty(tensor: Tensor) -> Tensor:
            if id(tensor) not in taken:
                fake = self.from_tensor(tensor.detach().to('meta')).to(self._device)
                taken[id(tensor)] = (nn.Parameter(fake, tensor.requires_grad)
                                     if isinstance(tensor, nn.Parameter) else fake)
            return taken[id(tensor)]  # tied weights stay tied

        for module in model.modules():
            for name, tensor in (*module.named_parameters(recurse=False),
                                 *module.named_buffers(recurse=False)):
                setattr(module, name, empty(tensor))
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
    def phase(self, backward: bool = False) -> Iterator[Phase]:
        """The peak and the operations of what is run within: a backward pass, or anything else."""
        outer, self._phase = self._phase, Phase(dict(self.alive))
        self._backward = backward
        try:
            yield self._phase
        finally:
            self._phase, self._backward = outer, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._inside:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if func is _DEVICE:  # asked half a million times for a 7B
            return args[0].fake_device
        tensors = list(_tensors((*args, *kwargs.values())))
        empty = sum(map(self.is_our_fake, tensors))
        if not empty:
            return self._noted(func(*args, **kwargs))
        if empty < len(tensors):
            if func is _ATEN.index.Tensor:
                args = (args[0], self._numbered(args[1]))
            args = _mapped(self._without_data, args)
            kwargs = dict(zip(kwargs, _mapped(self._without_data, kwargs.values())))
        self._inside = True
        try:
            if _name(func) == 'grouped_mm' and args[0].dtype != torch.bfloat16:
                # torch knows its shape for bfloat16 only, though a CPU runs it in float32
                output = func(*_mapped(_as_bfloat16, args), **kwargs).to(args[0].dtype)
            else:
                output = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._inside = False
        self._noted(output)
        self._count(func, args, kwargs, output)
        return output

    def _without_data(self, x):
        if not isinstance(x, Tensor) or self.is_our_fake(x):
            return x
        self._note(x)
        return self.from_tensor(x)

    def _numbered(self, indices: Sequence) -> list:
        """Masks among indices as numbers: how many are chosen is known, as masks are real."""
        numbered = []
        for index in indices:
            if isinstance(index, Tensor) and not self.is_our_fake(index) \
                    and index.dtype == torch.bool:
                numbered.extend(index.nonzero().unbind(1))
            else:
                numbered.append(index)
        return numbered

    def _noted(self, output):
        for tensor in _tensors(output if isinstance(output, (tuple, list)) else (output, )):
            self._note(tensor)
        return output

    def _note(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key = id(storage)  # one object as long as its memory
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
        formula = _FLOPS.get(_name(func))
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=output)
            self._phase.flops += flops
            # A backward pass records no graph, but where it runs a forward pass once more.
            if self._backward and torch.is_grad_enabled():
                self._phase.recomputed += flops


def _tensors(values: Sequence) -> Iterator[Tensor]:
    """Tensors of an operator's arguments: single ones, and those of lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (x for x in value if isinstance(x, Tensor))


def _mapped(change: Callable, values: Iterable) -> list:
    """An operator's arguments, changed one by one, those in lists too."""
    return [[change(x) for x in value] if isinstance(value, (list, tuple)) else change(value)
            for value in values]


def _as_bfloat16(x):
    return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors' values."""
    return sum(x.numel() * x.element_size() for x in tensors)


def state_tensors(optimizer: torch.optim.Optimizer) -> list:
    """Every tensor of an optimizer's state."""
    return [x for state in optimizer.state.values() for x in state.values()
            if isinstance(x, Tensor)]
