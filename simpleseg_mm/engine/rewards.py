"""Rewards in configs: the pure ones of ``simpleseg_mm.rl``, and a user's own, by name."""
import inspect
from collections.abc import Mapping, Sequence
from functools import partial

from ..registry import REWARDS
from ..rl import COMPONENTS, PolygonReward

for _name, _component in COMPONENTS.items():
    REWARDS.register_module(name=_name, module=_component)


@REWARDS.register_module(name='PolygonReward')
def build_polygon_reward(weights: Mapping[str, float] | None = None,
                         rewards: Sequence[Mapping] = (), **kwargs) -> PolygonReward:
    """A ``PolygonReward`` of components that are registered in ``REWARDS``.

    A component of one's own is a function of an :class:`simpleseg_mm.rl.AnsweredQuery`, or a class
    whose objects are called with one. It gives a number, or None where it does not apply::

        @REWARDS.register_module()
        def few_vertices(query, budget=100):
            return -sum(map(len, query.answer.rings)) / budget

    Args:
        weights: weight of each component that takes no parameter, by its name.
        rewards: ``dict(type='few_vertices', weight=0.1, budget=50)``: further components with
            their parameters, and with a ``name`` where two are of one type.
        kwargs: of ``PolygonReward``.

    Raises:
        ValueError: in one line: there is no such component, or it takes no such parameter.
    """
    weights = dict(weights or {})
    made = {name: _component_of(name, {}) for name in weights}
    for entry in rewards or ():
        if not isinstance(entry, Mapping) or not {'type', 'weight'} <= set(entry):
            raise ValueError(f'a reward is {entry!r:.80}; give dict(type=NAME, weight=NUMBER, '
                             'and its parameters)')
        parameters = dict(entry)
        kind, weight = parameters.pop('type'), parameters.pop('weight')
        name = parameters.pop('name', kind if isinstance(kind, str) else
                              getattr(kind, '__name__', str(kind)))
        if name in made:
            raise ValueError(f'two rewards are named {name!r}; give one of them a name=...')
        made[name], weights[name] = _component_of(kind, parameters), weight
    return PolygonReward(weights, extra=made, **kwargs)


def _component_of(kind, parameters: Mapping):
    """A component with its parameters set."""
    try:
        found = REWARDS.get(kind) if isinstance(kind, str) else kind
    except RuntimeError:  # MMEngine's way to say that there is none
        found = None
    if not callable(found) or found is build_polygon_reward:
        known = sorted(set(REWARDS.module_dict) - {'PolygonReward'})
        raise ValueError(f'unknown reward components [{kind!r}]; choose from {known}, or register '
                         'your own in REWARDS and name its module in custom_imports')
    arguments = () if inspect.isclass(found) else (None, )
    try:
        inspect.signature(found).bind(*arguments, **parameters)
    except TypeError as error:
        raise ValueError(f'reward {kind!r} with {dict(parameters)}: {error}; it takes '
                         f'{inspect.signature(found)}') from None
    if not inspect.isclass(found):
        return partial(found, **parameters) if parameters else found
    component = found(**parameters)
    if not callable(component):
        raise ValueError(f'reward {kind!r}: its objects cannot be called; give it a method '
                         '__call__(self, query)')
    return component
