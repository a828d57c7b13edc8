"""Settings of a config as dataclasses that check themselves."""
from collections.abc import Iterable, Mapping
from typing import TypeVar

_S = TypeVar('_S')


def settings_of(cls: type[_S], given: 'Mapping | _S', name: str, otherwise: str = '') -> _S:
    """A dataclass of a config's keys, or the settings that are there already.

    Args:
        name: of the settings in the config, such as 'model.consensus'.
        otherwise: what may be given instead of keys, for the message.

    Raises:
        ValueError: a key is unknown, or a value does not fit.
    """
    if isinstance(given, cls):
        return given
    known = list(cls.__dataclass_fields__)
    if not isinstance(given, Mapping) or set(given) - set(known):
        raise ValueError(f'{name} is {given!r}; give a dict with keys of {known}{otherwise}')
    return cls(**given)


def check_fields(settings, name: str, rules: Iterable[tuple[str, bool, str]]) -> None:
    """ValueError for the first value that does not fit.

    Args:
        rules: (field, whether it fits, what is allowed) each.
    """
    for field, fits, allowed in rules:
        if not fits:
            raise ValueError(f'{name}.{field} is {getattr(settings, field)!r}; give {allowed}')


def is_within(value, least: float = float('-inf'), most: float = float('inf')) -> bool:
    """Whether it is a number from ``least`` to ``most``; True and False are none."""
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and least <= value <= most)


def is_whole_within(value, least: float = float('-inf'), most: float = float('inf')) -> bool:
    """The same of a whole number."""
    return isinstance(value, int) and is_within(value, least, most)
