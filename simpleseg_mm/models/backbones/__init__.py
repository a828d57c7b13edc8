"""One small adapter for each family of multimodal LLMs."""
from .base import MLLMAdapter
from .qwen import QwenVL

__all__ = ['MLLMAdapter', 'QwenVL']
