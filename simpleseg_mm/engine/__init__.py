"""Training with MMEngine's runner: the loop of reinforcement learning, hooks, optimizers."""
from .hooks import *  # noqa: F401,F403
from .optimizers import *  # noqa: F401,F403
from .rewards import build_polygon_reward  # noqa: F401
from .rl_loop import Experience, RLTrainLoop  # noqa: F401
from .rollout import InProcessRollout, RolloutEngine  # noqa: F401
