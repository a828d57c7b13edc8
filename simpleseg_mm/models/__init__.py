"""Models: SimpleSeg and the adapters of multimodal LLMs."""
from .backbones import MLLMAdapter, QwenVL
from .losses import chunked_token_nll
from .simpleseg import SimpleSeg

__all__ = ['MLLMAdapter', 'QwenVL', 'SimpleSeg', 'chunked_token_nll']
