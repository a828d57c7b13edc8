"""Models: SimpleSeg and the adapters of multimodal LLMs."""
from . import requires  # noqa: F401  (before what an old transformers lacks)
from .backbones import KimiVL, MLLMAdapter, QwenVL
from .losses import chunked_token_nll
from .simpleseg import SimpleSeg

__all__ = ['KimiVL', 'MLLMAdapter', 'QwenVL', 'SimpleSeg', 'chunked_token_nll']
