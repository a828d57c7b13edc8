"""What makes a network faster and changes none of its numbers: one file a measure.

Nothing but the place where a network is built imports this package. Without it, or with
``model.mllm.acceleration=[]``, all runs by transformers' own steps.
"""
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from mmengine.logging import print_log
from torch import Tensor, nn

from ..registry import MEASURES
from .compiled import uncompiled
from .measure import Measure, allowed, difference

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
        except Exception as error:  # a release has renamed or changed what it needs
            found[name] = _said(error)
    return found


def _said(error: Exception) -> str:
    text = re.sub(r' \(\S*/\S*\)$', '', ' '.join(str(error).split()))  # without the file
    return f'{type(error).__name__}: {text[:200]}'


def names() -> list[str]:
    """Every measure, in the order in which they are installed."""
    unreadable()
    return [*FILES, *(name for name in MEASURES.module_dict if name not in FILES)]


def check_measures(wanted: str | Sequence[str], family: type | None = None) -> None:
    """ValueError unless it is 'auto', or a list of measures that there are, that suit the family,
    that do not exclude each other, and with those that they need; one line."""
    if wanted == 'auto':
        return
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(n, str) for n in wanted):
        raise ValueError(f"acceleration={wanted!r}: give 'auto', or a list of names, of which "
                         f'there are {", ".join(names())}')
    given = f'acceleration={list(wanted)}'
    if unknown := [name for name in wanted if name not in names()]:
        raise ValueError(f'{given}: there is no {", ".join(unknown)}. There are '
                         f'{", ".join(names())}')
    for name in wanted:
        if reason := _unfit(name, family):
            raise ValueError(f'{given}: {name} does not apply: {reason}. Leave it out, or set '
                             "acceleration='auto'")
        measure = MEASURES.get(name)
        if others := [other for other in wanted if _exclude(name, other)]:
            raise ValueError(f'{given}: {name} and {others[0]} exclude each other. Name one of '
                             'them')
        if lacking := [other for other in measure.needs if other not in wanted]:
            raise ValueError(f'{given}: {name} needs {", ".join(lacking)}. Name it as well, or '
                             "set acceleration='auto'")


def _exclude(one: str, other: str) -> bool:
    return one != other and any(
        b in MEASURES.get(a).excludes for a, b in ((one, other), (other, one))
        if a not in unreadable())


def _unfit(name: str, family: type | None) -> str | None:
    """Why a measure applies to no network here, or to none of a family."""
    if name in unreadable():
        return f'its file cannot be read: {unreadable()[name]}'
    if family is not None and MEASURES.get(name).of_family and name not in family.acceleration:
        return f'not known to suit {family.__name__}'
    return None


class Acceleration:
    """The measures that are on, for one network.

    Args:
        network: an :class:`~simpleseg_mm.models.MLLM`.
        wanted: 'auto', or names.

    Attributes:
        on: name -> measure, in the order in which they were installed.
        off: name -> why.

    Raises:
        ValueError: a measure that is asked for by name does not apply; one line.
    """

    def __init__(self, network: nn.Module, wanted: str | Sequence[str] = 'auto') -> None:
        check_measures(wanted, type(network.family))
        self._network = [network]  # in a list: no submodule of itself
        self.on: dict[str, Measure] = {}
        self.off: dict[str, str] = {}
        if wanted == 'auto':
            self._install(names())
            told = [f'{name} ({reason})' for name, reason in self.off.items()]
        else:
            self._install([name for name in names() if name in wanted])
            for name, reason in self.off.items():
                raise ValueError(f'acceleration={list(wanted)}: {name} does not apply: {reason}. '
                                 "Leave it out, or set acceleration='auto'")
            self.off = {name: 'not asked for' for name in names() if name not in wanted}
            told = ['all else'] if self.off else []
        print_log(f'acceleration: on: {", ".join(self.on) or "none"}; '
                  f'off: {"; ".join(told) or "none"}', 'current')

    def install(self, name: str) -> str | None:
        """Put one measure on; why that cannot be, where it cannot: the network is then as
        before."""
        self._install([name])
        return self.off.get(name)

    def _install(self, wanted: Sequence[str]) -> None:
        """Put measures on, one after the other, each held to the network as it was before it."""
        network, = self._network
        before = None
        for name in wanted:
            if name in self.on:
                continue
            self.off[name] = self._obstacle(network, name)
            if self.off[name] is not None:
                continue
            measure = MEASURES.build(dict(type=name))
            try:
                if before is None:
                    before = self._states(network)
                measure.install(network)
                after = self._states(network) if measure.reads else before
                self.off[name] = _difference(measure, network, before, after)
            except Exception as error:  # whatever a release has changed: the plain path is there
                self.off[name] = _said(error)
            if self.off[name] is not None:
                measure.remove(network)
                continue
            before = after
            self.on[name] = measure
            del self.off[name]

    def _states(self, network: nn.Module) -> Tensor | None:
        if next(network.hf.parameters()).is_meta:  # nothing is computed: a plan
            return None
        with uncompiled():  # compiling takes half a minute
            return network.trial.states(network)

    def _obstacle(self, network: nn.Module, name: str) -> str | None:
        if reason := _unfit(name, type(network.family)):
            return reason
        cls = MEASURES.get(name)
        if lacking := [other for other in cls.needs if other not in self.on]:
            return f'needs {", ".join(lacking)}'
        if present := [other for other in self.on if _exclude(name, other)]:
            return f'{", ".join(present)} is on'
        try:
            return cls().obstacle(network)
        except Exception as error:
            return _said(error)

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
            self._install(before)


def _difference(measure: Measure, network: nn.Module, before: Tensor | None,
                after: Tensor | None) -> str | None:
    """Why a measure must not stay on: the states of the trial, without it and with it, or what it
    has changed itself, are not the same."""
    if before is None:
        return None
    found = max(difference(after, before), measure.deviation(network))
    if found <= allowed(before.dtype):
        return None
    return f'differs from the plain path by {found:.2g} of its largest value'
