"""One small adapter for each family of multimodal LLMs."""
from .base import MLLMAdapter
from .kimi import KimiVL
from .qwen import QwenVL

__all__ = ['KimiVL', 'MLLMAdapter', 'QwenVL']
