"""Passes of decoding recorded as CUDA graphs: launched kernel by kernel, a pass of a 7B takes
several times as long as its work."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..models.step_cache import Decode
from ..registry import MEASURES
from .measure import CacheMeasure
from .ragged_cache import RaggedCache, is_plain


@MEASURES.register_module(name='recorded_passes')
class RecordedPasses(CacheMeasure):
    """Answers are written with a :class:`GraphCache`, wherever the network then is on a GPU."""
    needs = ('ragged_cache', )

    def obstacle(self, network: nn.Module) -> str | None:
        if not torch.cuda.is_available():
            return 'CUDA graphs need a GPU, and there is none'
        if network.attention != 'sdpa':
            return f'attn_implementation={network.attention!r} may not be recorded'
        text = network.hf.config.get_text_config()
        experts = (getattr(text, name, None) for name in ('num_experts', 'n_routed_experts'))
        return 'tokens are routed to experts' if any(experts) else None

    def install(self, network: nn.Module) -> None:
        self.network = [network]
        #: (rows, tokens) of the passes of decoding so far that can be recorded
        self.ready: set[tuple[int, int]] = set()
        super().install(network)

    def make(self, cache: Cache, mask_BP: Tensor, rows: Tensor):
        if is_plain(cache) and self.can_record(self.network[0]):
            return GraphCache(cache, mask_BP, rows, self.ready)
        return None

    @staticmethod
    def can_record(network: nn.Module) -> bool:
        """Whether weights lie on the GPU as they are: not split, not in few bits."""
        return network.device.type == 'cuda' and all(
            type(p) is nn.Parameter and not hasattr(p, 'ds_id') for p in network.hf.parameters())

    def deviation(self, network: nn.Module) -> float:
        """Nothing is computed otherwise than by ``ragged_cache``, which is held to the plain
        path; passes are recorded when the network is on its device."""
        return 0.0


@dataclass
class _Recording:
    """A pass that can be run again: all that it reads and writes stays where it is."""
    inputs: Tensor
    replay: Callable[[], None]
    hidden: Tensor

    def play(self, inputs: Tensor) -> Tensor:
        self.inputs.copy_(inputs)
        self.replay()
        return self.hidden


def _recorded(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What runs it again as a CUDA graph, and where the result then stands."""
    graph, stream = torch.cuda.CUDAGraph(), _recording_stream()
    stream.wait_stream(torch.cuda.current_stream())
    # torch.cuda.graph would also empty the allocator's cache, which costs more than it gives here
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode='thread_local')  # other threads go on
        try:
            result = run()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay, result


@lru_cache(maxsize=None)
def _recording_stream():
    return torch.cuda.Stream()


class GraphCache(RaggedCache):
    """As :class:`RaggedCache`, on a CUDA device: passes of one shape are recorded and replayed.

    So that there are few shapes, a pass looks at all slots that are allocated and reads a power
    of two tokens a row, and rows move together only when half of them have ended.

    Args:
        cache, mask_BP, rows: as for the base.
        ready: (R, T) of passes that the network has run; those that are new are not recorded.
    """
    ended_share = 1 / 2
    step = 256

    def __init__(self, cache: Cache, mask_BP: Tensor, rows: Tensor,
                 ready: set[tuple[int, int]]) -> None:
        super().__init__(cache, mask_BP, rows)
        self._ready = ready
        self._recordings: dict[int, _Recording] = {}

    def read(self, decode: Decode, tokens_RT: Tensor, start_R: Tensor) -> Tensor:
        """As the base's; the next pass of as many tokens overwrites the result."""
        real = tokens_RT.shape[1]
        count = 1 << (real - 1).bit_length()
        slots = self._reserve(max(self.lengths) + count)
        # one transfer: tokens, position, slot
        given = torch.cat([F.pad(tokens_RT, (0, count - real)), start_R[:, None],
                           torch.tensor(self.lengths)[:, None]], 1)
        if count in self._recordings:
            return self._recordings[count].play(given)[:, :real]
        inputs = given.to(self.visible_RC.device)

        def run() -> Tensor:
            return self._run(decode, inputs[:, :count], inputs[:, count], inputs[:, count + 1],
                             slots)

        shape = len(self.lengths), count
        if shape not in self._ready:  # loads what cannot be loaded while recording
            self._ready.add(shape)
            return run()[:, :real]
        self._recordings[count] = _Recording(inputs, *_recorded(run))
        return self._recordings[count].play(given)[:, :real]

    def _reserve(self, used: int) -> int:
        before = self.visible_RC.shape[1]
        super()._reserve(used)
        if self.visible_RC.shape[1] != before:
            self._forget()
        return self.visible_RC.shape[1]

    def keep(self, rows: list[int]) -> None:
        self._forget()
        super().keep(rows)

    def join(self, other: 'GraphCache') -> None:
        self._forget()
        super().join(other)

    def _forget(self) -> None:
        """Buffers are about to move, and recordings know them by their place."""
        self._recordings.clear()
