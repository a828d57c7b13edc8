"""Rewards in configs: the pure ones of ``simpleseg_mm.rl``, and a user's own, by name."""
from collections.abc import Mapping

from ..registry import REWARDS
from ..rl import PolygonReward


@REWARDS.register_module(name='PolygonReward')
def build_polygon_reward(weights: Mapping[str, float], **kwargs) -> PolygonReward:
    """A ``PolygonReward`` whose ``weights`` may also name functions registered in ``REWARDS``.

    A component of one's own is a function of an :class:`simpleseg_mm.rl.Answer`::

        @REWARDS.register_module()
        def few_vertices(answer):
            return -sum(map(len, answer.parsed.rings)) / 100
    """
    extra = {name: REWARDS.get(name) for name in weights if name in REWARDS.module_dict}
    return PolygonReward(weights, extra=extra, **kwargs)
