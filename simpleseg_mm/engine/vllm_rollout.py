"""Rollouts by vLLM: in the trainer's process, or by servers."""
from collections.abc import Sequence

from ..engines.base import ExternalEngine
from ..engines.vllm import VLLMEngine
from ..engines.vllm_server import VLLMServers
from ..models.sampling import Sampling
from ..registry import ROLLOUTS
from .rollout import RolloutEngine, whole_vocabulary


@ROLLOUTS.register_module()
class VLLMRollout(RolloutEngine):
    """Answers by vLLM with the policy's present weights, as token ids with its own
    log-probabilities.

    Args:
        mode: 'colocated': in the trainer's process, one engine a process, which gives a GPU's
            memory back while the policy is updated; 'server': by the servers at ``urls``.
        urls: of the servers; see :class:`simpleseg_mm.engines.vllm_server.VLLMServers`.
        weights_dir: folder for their weights, which they can read.
        timeout: seconds that a server may take for one answer or to load weights.
        engine: of a colocated one, keywords of ``vllm.LLM``.
        sampling: arguments of :class:`simpleseg_mm.models.sampling.Sampling`.

    Raises:
        ValueError: settings that do not go together; one line.
    """
    gives_logps = True

    def __init__(self, mode: str = 'colocated', urls: Sequence[str] = (),
                 weights_dir: str | None = None, timeout: float = 600.0,
                 engine: dict | None = None, **sampling) -> None:
        if mode not in ('colocated', 'server'):
            raise ValueError(f"rollout.mode={mode!r}: allowed are 'colocated' and 'server'")
        urls = [urls] if isinstance(urls, str) else list(urls)
        if mode == 'server' and not (urls and weights_dir):
            raise ValueError("rollout.mode='server' needs rollout.urls=['http://HOST:8000', ...] "
                             'and rollout.weights_dir, a folder that this run writes and the '
                             'servers read')
        if mode == 'server' and engine:
            raise ValueError("rollout.engine is of mode='colocated': a server has the options "
                             'that it was started with')
        if mode == 'colocated' and (urls or weights_dir):
            raise ValueError("rollout.urls and weights_dir are of mode='server', and rollout.mode "
                             "is 'colocated'")
        if bad := [url for url in urls if not url.startswith(('http://', 'https://'))]:
            raise ValueError(f'rollout.urls: {bad[0]!r} is no address such as '
                             "'http://localhost:8000'")
        whole_vocabulary(sampling)
        self.sampling = Sampling(**sampling)
        self.temperature = self.sampling.temperature
        if self.temperature > 2:
            raise ValueError(f'rollout.temperature={self.temperature}: vLLM takes 2 at most')
        if self.temperature != 1 and (self.sampling.top_k or self.sampling.top_p < 1):
            raise ValueError(
                f'rollout.temperature={self.temperature} with top_k or top_p: at a temperature '
                'vLLM gives the log-probabilities among the tokens that those leave, which '
                "cannot be held to the training forward's. Leave top_k and top_p out, or set "
                'temperature=1')
        mode_of_logps = 'raw_logprobs' if self.temperature == 1 else 'processed_logprobs'
        if mode == 'colocated':
            self._build = lambda model: VLLMEngine(model, mode_of_logps, **(engine or {}))
        else:
            self._build = lambda model: VLLMServers(model, urls, weights_dir, mode_of_logps,
                                                    timeout)
        self._engine: ExternalEngine | None = None

    def sync(self, model) -> None:
        if self._engine is None:
            self._engine = self._build(model)  # which takes the weights over
        else:
            self._engine.load_weights(model)

    def generate(self, model, images, prompts, group_size, seeds, forms=None):
        answers = self._engine.write(images, prompts, group_size, self.sampling, seeds)
        self._engine.sleep()
        return answers
