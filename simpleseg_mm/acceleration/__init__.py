"""What makes a network faster and changes none of its numbers: one file a measure.

Nothing but the place where a network is built imports this package. Without it, or with
``model.mllm.acceleration=[]``, all runs by transformers' own steps.
"""
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from mmengine.logging import print_log
from torch import nn

from ..registry import MEASURES
from .measure import TOLERANCE, Measure

#: in the order in which they are installed: a measure stands after those that it needs
FILES = ('attention', 'segments', 'patches_as_rows', 'lora_in_place', 'shared_pictures',
         'packed_rows', 'patch_layout', 'ragged_cache', 'shared_prompts', 'recorded_passes',
         'fused_norms', 'fused_gates', 'fused_rotations')


@lru_cache(maxsize=None)
def unreadable() -> dict[str, str]:
    """Reads the files of measures, when a network is first built; name -> why one cannot be."""
    found = {}
    for name in FILES:
        try:
            importlib.import_module(f'.{name}', __name__)
        except (ImportError, AttributeError) as error:  # a release has renamed what it needs
            found[name] = ' '.join(str(error).split())[:200]
    return found


def names() -> list[str]:
    """Every measure, in the order in which they are installed."""
    unreadable()
    return [*FILES, *(name for name in MEASURES.module_dict if name not in FILES)]


def check_measures(wanted: str | Sequence[str]) -> None:
    """ValueError unless it is 'auto' or a list of measures that there are, and none excludes
    another."""
    if wanted == 'auto':
        return
    if isinstance(wanted, str) or not all(isinstance(name, str) for name in wanted):
        raise ValueError(f"acceleration={wanted!r}: give 'auto', or a list of names, of which "
                         f'there are {", ".join(names())}')
    if unknown := [name for name in wanted if name not in names()]:
        raise ValueError(f'acceleration names {unknown}, and there are {", ".join(names())}')
    for name in wanted:
        measure = MEASURES.get(name)
        for other in getattr(measure, 'excludes', ()):
            if other in wanted:
                raise ValueError(f'acceleration={list(wanted)}: {name} and {other} exclude each '
                                 'other; name one of them')


class Acceleration:
    """The measures that are on, for one network.

    Args:
        network: a :class:`~simpleseg_mm.models.Network`.
        wanted: 'auto', or names.

    Attributes:
        on: name -> measure, in the order in which they were installed.
        off: name -> why.

    Raises:
        ValueError: a measure that is asked for by name does not apply; one line.
    """

    def __init__(self, network: nn.Module, wanted: str | Sequence[str] = 'auto') -> None:
        check_measures(wanted)
        self._network = [network]  # in a list: no submodule of itself
        self.on: dict[str, Measure] = {}
        self.off: dict[str, str] = {}
        for name in names():
            if wanted != 'auto' and name not in wanted:
                self.off[name] = 'not asked for'
                continue
            reason = self.install(name)
            if reason is not None and wanted != 'auto':
                raise ValueError(f'acceleration={list(wanted)}: {name} does not apply: {reason}. '
                                 "Leave it out, or set acceleration='auto'")
        told = [f'{name} ({reason})' for name, reason in self.off.items()]
        if wanted != 'auto':
            told = ['all else'] if told else []
        print_log(f'acceleration: on: {", ".join(self.on) or "none"}; '
                  f'off: {"; ".join(told) or "none"}', 'current')

    def install(self, name: str) -> str | None:
        """Put one measure on; why that cannot be, where it cannot: the network is then as
        before."""
        network, = self._network
        reason = self._obstacle(network, name)
        if reason is None:
            measure = MEASURES.build(dict(type=name))
            try:
                measure.install(network)
                reason = _check(measure, network)
            except Exception as error:  # whatever a release has changed: the plain path is there
                reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
            if reason is None:
                self.on[name] = measure
                self.off.pop(name, None)
                return None
            measure.remove(network)
        self.off[name] = reason
        return reason

    def _obstacle(self, network: nn.Module, name: str) -> str | None:
        if name in unreadable():
            return f'cannot be read: {unreadable()[name]}'
        cls = MEASURES.get(name)
        if cls.of_family and name not in network.family.acceleration:
            return f'not known to suit {type(network.family).__name__}'
        if lacking := [other for other in cls.needs if other not in self.on]:
            return f'needs {", ".join(lacking)}'
        if present := [other for other in cls.excludes if other in self.on]:
            return f'{", ".join(present)} is on'
        try:
            return cls().obstacle(network)
        except Exception as error:
            return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'

    def remove(self, name: str) -> None:
        """Take one measure off, and those that need it."""
        for other in [other for other, measure in self.on.items() if name in measure.needs]:
            self.remove(other)
        if name in self.on:
            self.on.pop(name).remove(*self._network)
            self.off[name] = 'taken off'

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Within, all is off: the network runs by transformers' own steps."""
        before = list(self.on)
        for name in reversed(before):
            self.remove(name)
        try:
            yield
        finally:
            for name in before:
                self.install(name)


def _check(measure: Measure, network: nn.Module) -> str | None:
    """Why a measure must not stay on."""
    weight = next(network.hf.parameters())
    if weight.is_meta:  # nothing is computed: a plan
        return None
    found, allowed = measure.deviation(network), TOLERANCE.get(weight.dtype, 0.05)
    if found <= allowed:
        return None
    return f'differs from the plain path by {found:.2g} of its largest value'
