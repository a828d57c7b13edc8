"""Reinforcement learning's pure part: rewards, advantages and the policy objective."""
from .objective import LEVELS, PolicyObjective, group_advantages
from .rewards import (COMPONENTS, Answer, PolygonReward, RewardError, Rewards, trl_reward)

__all__ = ['Answer', 'COMPONENTS', 'LEVELS', 'PolicyObjective', 'PolygonReward', 'RewardError',
           'Rewards', 'group_advantages', 'trl_reward']
