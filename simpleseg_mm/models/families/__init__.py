"""One small class for each family of multimodal LLMs; none holds weights."""
from .base import Family, Head
from .kimi import KimiVL
from .qwen import QwenVL

__all__ = ['Family', 'Head', 'KimiVL', 'QwenVL']
