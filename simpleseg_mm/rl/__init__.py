"""Reinforcement learning's pure part: rewards, advantages and the policy objective."""
from ..structures import AnsweredQuery
from .adapters import easyr1_reward, ms_swift_reward, trl_reward, verl_reward
from .objective import LEVELS, PolicyObjective, group_advantages, max_variance_subset
from .rewards import COMPONENTS, PolygonReward, RewardError, Rewards, read_truth, read_truths

__all__ = ['AnsweredQuery', 'COMPONENTS', 'LEVELS', 'PolicyObjective', 'PolygonReward',
           'RewardError', 'Rewards', 'easyr1_reward', 'group_advantages', 'max_variance_subset',
           'ms_swift_reward', 'read_truth', 'read_truths', 'trl_reward', 'verl_reward']
