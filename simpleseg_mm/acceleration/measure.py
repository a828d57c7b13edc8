"""What every measure that makes a network faster offers."""
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

#: largest difference to the plain path, as a share of its largest value
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}


def allowed(dtype: torch.dtype) -> float:
    """The tolerance of a dtype."""
    return TOLERANCE.get(dtype, 0.05)


class Measure:
    """One way to the same numbers in less time.

    ``install`` may assume what ``obstacle`` has looked at, and ``remove`` leaves the network as it
    was, also after an ``install`` that failed. A subclass touches what transformers, torch or peft
    do not promise to keep: any exception of it keeps the measure off, and is the reason that the
    log gives.

    Whoever installs it compares the network's hidden states, of rows with pictures that it reads
    as in training, before and after.
    """
    #: names of measures that must be on
    needs: tuple[str, ...] = ()
    #: names of measures that must be off
    excludes: tuple[str, ...] = ()
    #: whether families need to name it in ``Family.acceleration``
    of_family = False
    #: whether it changes how a batch is read; else answers alone are written otherwise
    reads = True

    def obstacle(self, network: nn.Module) -> str | None:
        """Why it does not apply to a :class:`~simpleseg_mm.models.Network`; ``None``: it does."""
        raise NotImplementedError

    def install(self, network: nn.Module) -> None:
        raise NotImplementedError

    def remove(self, network: nn.Module) -> None:
        raise NotImplementedError

    def deviation(self, network: nn.Module) -> float:
        """What it has changed beside what those hidden states show, such as a cache, on random
        inputs and beside the plain path of this network: the largest difference as a share of the
        plain path's largest value. It is on."""
        return 0.0


class CacheMeasure(Measure):
    """Writes answers with a cache of its own (:meth:`make`), where those of measures that are
    installed later do not apply."""
    reads = False

    def make(self, cache: Cache, mask_BP: Tensor, rows: Tensor):
        """A cache for rows of answers after prompts that have been read, or ``None``; see
        :class:`~simpleseg_mm.models.step_cache.StepCache`."""
        raise NotImplementedError

    def install(self, network: nn.Module) -> None:
        network.caches.insert(0, self.make)

    def remove(self, network: nn.Module) -> None:
        if self.make in network.caches:
            network.caches.remove(self.make)


def difference(found: Tensor, plain: Tensor) -> float:
    """Largest difference as a share of the plain values' largest; infinite for other shapes, and
    where one alone is finite."""
    if found.shape != plain.shape or not torch.equal(found.isfinite(), plain.isfinite()):
        return float('inf')
    scale = float(plain.detach().abs().max()) or 1.0
    return float((found.detach().double() - plain.detach().double()).abs().max()) / scale


def numbers(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    """Normal random numbers of the dtype and on the device of a tensor, the same each time."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(like.device, like.dtype)


class ForwardMeasure(Measure):
    """Replaces the ``forward`` of single modules.

    A subclass says which (:meth:`suits`), by which function (:meth:`forward_of`), and makes
    inputs for the check (:meth:`inputs_of`).
    """

    def suits(self, module: nn.Module) -> bool:
        raise NotImplementedError

    def forward_of(self, module: nn.Module):
        """A function of (module, inputs) -> outputs."""
        raise NotImplementedError

    def inputs_of(self, module: nn.Module) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _suited(self, network: nn.Module) -> list[nn.Module]:
        return [module for module in network.hf.modules() if self.suits(module)]

    def obstacle(self, network: nn.Module) -> str | None:
        return None if self._suited(network) else 'no module of this network is of the kind'

    def install(self, network: nn.Module) -> None:
        self.changed = self._suited(network)
        for module in self.changed:
            module.forward = self.forward_of(module).__get__(module)

    def remove(self, network: nn.Module) -> None:
        for module in getattr(self, 'changed', ()):
            module.__dict__.pop('forward', None)

    @torch.no_grad()
    def deviation(self, network: nn.Module) -> float:
        """Of one module of each class and shape."""
        worst, seen = 0.0, set()
        for module in self.changed:
            kind = type(module), tuple(tuple(p.shape) for p in module.parameters())
            if kind in seen:
                continue
            seen.add(kind)
            worst = max(worst, self.compare(module))
        return worst

    def compare(self, module: nn.Module) -> float:
        """Of one module, beside the ``forward`` of its class."""
        inputs = self.inputs_of(module)
        return difference(module(*inputs), type(module).forward(module, *inputs))
