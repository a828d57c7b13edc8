"""Models: SimpleSeg and the multimodal LLM that it writes with."""
from . import requires  # noqa: F401  (before what an old transformers lacks)
from .encoder import Encoder
from .families import AutoVLM, Family, KimiVL, QwenVL
from .losses import chunked_token_nll
from .mllm import MLLM, build_mllm
from .network import Network
from .simpleseg import SimpleSeg
from .writer import Writer

__all__ = ['AutoVLM', 'Encoder', 'Family', 'KimiVL', 'MLLM', 'Network', 'QwenVL', 'SimpleSeg',
           'Writer', 'build_mllm', 'chunked_token_nll']
