"""Training with MMEngine's runner: the loop of reinforcement learning, hooks, optimizers."""
from .experience import Experience  # noqa: F401
from .hooks import *  # noqa: F401,F403
from .look_ahead import LookingAheadTestLoop  # noqa: F401
from .optimizers import *  # noqa: F401,F403
from .rewards import build_polygon_reward  # noqa: F401
from .rl_loop import RLTrainLoop  # noqa: F401
from .rollout import InProcessRollout, RolloutEngine  # noqa: F401
from .safe_stop import StoppableValLoop  # noqa: F401
from .sft_loop import SFTTrainLoop  # noqa: F401
from .sharded_checkpoint import load_sharded, save_sharded  # noqa: F401
from .sharding import whole_weights  # noqa: F401
from .strategies import FullyShardStrategy  # noqa: F401
from .vllm_rollout import VLLMRollout  # noqa: F401
