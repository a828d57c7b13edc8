"""Reinforcement learning's pure part: rewards, advantages and the policy objective."""
from .objective import LEVELS, PolicyObjective, group_advantages, max_variance_subset
from .rewards import (COMPONENTS, Answer, PolygonReward, RewardError, Rewards, trl_reward)

__all__ = ['Answer', 'COMPONENTS', 'LEVELS', 'PolicyObjective', 'PolygonReward', 'RewardError',
           'Rewards', 'group_advantages', 'max_variance_subset', 'trl_reward']
