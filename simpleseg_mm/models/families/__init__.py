"""One small class for each family of multimodal LLMs; none holds weights."""
from .auto import AutoVLM
from .base import Family, Head
from .kimi import KimiVL
from .qwen import QwenVL

__all__ = ['AutoVLM', 'Family', 'Head', 'KimiVL', 'QwenVL']
