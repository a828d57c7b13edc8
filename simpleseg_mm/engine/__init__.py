"""Optimizers and hooks for MMEngine's runner."""
from .hooks import *  # noqa: F401,F403
from .optimizers import *  # noqa: F401,F403
