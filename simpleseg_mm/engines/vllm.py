"""vLLM in this process, with a live model's weights."""
import os
import random
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_world_size

from .. import stopping
from .base import EnginePrompt, ExternalEngine, Written, check_version
from .vllm_worker import pack_heads
from .weights import folder_weights, write_folder, write_weights

#: bytes of the KV cache on a CPU, where neither the option nor vLLM's variable says more
_CPU_CACHE = 1 << 30
#: answers that wait for one before them, in units of the requests that are open at a time
_WAITING = 4
#: tokens of a prompt and its answer, unless the network takes fewer
_LENGTH = 8192


class VLLMEngine(ExternalEngine):
    """vLLM in this process; one a process.

    It is built from an exported folder, a temporary one, and later takes the model's weights over
    in memory: the model may change, and :meth:`load_weights` brings the change in. Adapters are
    handed over merged: an engine that holds LoRA apart adds to every layer of every token, and
    adapters of the vision tower are not taken by all its networks.

    Args:
        model: the unwrapped SimpleSeg, with whole weights.
        logprobs_mode: of vLLM. 'raw_logprobs': those of the network over the whole vocabulary, at
            temperature 1; 'processed_logprobs': those that the tokens were drawn by.
        options: keywords of ``vllm.LLM``, such as ``max_model_len``, ``max_num_seqs`` and
            ``gpu_memory_utilization`` (0.3 here: the model is on the GPU, too).

    Raises:
        ValueError: vLLM is not installed, its release is not tested, or options that cannot be;
            one line.
    """

    @staticmethod
    def check_installed() -> None:
        """ValueError where vLLM is not there; it is not loaded."""
        if find_spec('vllm') is None:
            raise ValueError('vLLM is not installed here: docs/engines.md says how it is; without '
                             '--engine the model itself writes the answers')

    def __init__(self, model, logprobs_mode: str = 'raw_logprobs', **options) -> None:
        super().__init__(model)
        if options.get('tensor_parallel_size', 1) != 1:
            raise ValueError(f'tensor_parallel_size={options["tensor_parallel_size"]}: an engine '
                             'in this process has one GPU; a server takes several '
                             "(train_cfg.rollout.mode='server')")
        os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'] = '0'  # in this process
        os.environ.setdefault('VLLM_LOGGING_LEVEL', 'WARNING')
        try:
            import vllm  # optional
        except ImportError as error:
            raise ValueError(f'vLLM cannot be imported ({error}): docs/engines.md says how it '
                              "is installed; train_cfg.rollout.type='InProcessRollout' needs "
                              'no other engine') from None
        check_version(vllm.__version__, 'is installed')
        self._vllm = vllm
        config = model.mllm.hf.config.get_text_config()
        on_gpu = torch.cuda.is_available()
        defaults = dict(
            dtype=str(model.mllm.hf.dtype).removeprefix('torch.'),
            max_model_len=min(_LENGTH, getattr(config, 'max_position_embeddings', _LENGTH)),
            limit_mm_per_prompt=dict(image=1, video=0), generation_config='vllm')
        if on_gpu:
            defaults.update(enable_sleep_mode=True, gpu_memory_utilization=0.3)
        else:
            # vLLM 0.32 cannot go back in a seeded answer's draws there, as it does for a prompt
            # that is read in pieces.
            defaults.update(enforce_eager=True, enable_chunked_prefill=False,
                            max_num_batched_tokens=_LENGTH)
            if 'VLLM_CPU_KVCACHE_SPACE' not in os.environ:
                defaults['kv_cache_memory_bytes'] = _CPU_CACHE
        if get_world_size() > 1:  # vLLM joins the trainer's processes, each with one engine
            defaults['distributed_executor_backend'] = 'external_launcher'
        self._folder = tempfile.TemporaryDirectory(prefix='simpleseg_vllm_')
        write_folder(model.mllm, self._folder.name)
        weights = Path(self._folder.name, 'model.safetensors')
        write_weights(model.mllm, weights)
        with _undisturbed():
            self.llm = vllm.LLM(self._folder.name, logprobs_mode=logprobs_mode,
                                **{**defaults, **options})
        weights.unlink()
        self.max_length = self.llm.model_config.max_model_len
        self._sleeps = self.llm.llm_engine.vllm_config.model_config.enable_sleep_mode
        self._asleep = False

    def load_weights(self, model) -> None:
        with _undisturbed():
            if self._asleep:
                self.llm.wake_up(tags=['weights'])
            self.llm.collective_rpc('reload_weights', kwargs=dict(
                weights_iterator=list(folder_weights(model.mllm).items())))
            self.llm.apply_model(pack_heads)
            if self._asleep:
                self.llm.wake_up(tags=['kv_cache'])
                self._asleep = False
            # What was worked out with the old weights; of the pictures the scheduler believes
            # that the worker still has them.
            if not self.llm.reset_prefix_cache():
                raise RuntimeError('vLLM does not forget what it read with the old weights: '
                                   'requests are still running')
            self.llm.reset_mm_cache()
            self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Gives weights and cache on a GPU back; :meth:`load_weights` wakes it. Does nothing on
        a CPU."""
        if self._sleeps and not self._asleep:
            self.llm.sleep(level=2)
            self._asleep = True

    def _run(self, prompts: Sequence[EnginePrompt], params: Sequence[dict]
             ) -> list[Written | None]:
        engine, ended = self.llm.llm_engine, {}
        with _undisturbed():
            numbers = self._enqueue(prompts, params)
            while engine.has_unfinished_requests():
                self._step(ended)
                if stopping.asked():
                    engine.abort_request(list(map(str, numbers)))
                    break
        return [ended.get(number) for number in numbers]

    def _flow(self, requests: Iterator[tuple[EnginePrompt, dict]], ahead: int
              ) -> Iterator[tuple[EnginePrompt, Written | None]]:
        waiting: deque[tuple[int, EnginePrompt]] = deque()
        ended: dict[int, Written] = {}
        try:
            while True:
                room = min(ahead - len(waiting) + len(ended), _WAITING * ahead - len(waiting))
                part = list(islice(requests, max(room, 0)))
                if part:
                    prompts, params = zip(*part)
                    with _undisturbed():
                        waiting.extend(zip(self._enqueue(prompts, params), prompts))
                if not waiting:
                    return
                while waiting and waiting[0][0] in ended:
                    number, prompt = waiting.popleft()
                    yield prompt, ended.pop(number)
                if waiting:
                    with _undisturbed():
                        self._step(ended)
        finally:
            self.llm.llm_engine.abort_request([str(number) for number, _ in waiting])

    def _enqueue(self, prompts: Sequence[EnginePrompt], params: Sequence[dict]) -> list[int]:
        """Numbers of requests that have been added."""
        self.llm.enqueue(
            [dict(prompt_token_ids=prompt.token_ids,
                  multi_modal_data=dict(image=prompt.picture)) for prompt in prompts],
            [self._sampling(one) for one in params], use_tqdm=False)
        end = int(self.llm.request_counter.counter)
        return list(range(end - len(prompts), end))

    def _step(self, ended: dict[int, Written]) -> None:
        """One step of the engine; what has ended is added by its number."""
        ended.update((int(output.request_id), _written(output))
                     for output in self.llm.llm_engine.step() if output.finished)

    def _sampling(self, params: dict):
        params = dict(params)
        if 'structured_outputs' in params:
            params['structured_outputs'] = self._vllm.sampling_params.StructuredOutputsParams(
                **params['structured_outputs'])
        return self._vllm.SamplingParams(**params)


def _written(output) -> Written:
    answer, = output.outputs
    ids = list(answer.token_ids)
    return Written(output.prompt_token_ids, ids,
                   [place[token].logprob for place, token in zip(answer.logprobs, ids)])


@contextmanager
def _undisturbed() -> Iterator[None]:
    """vLLM seeds this process's generators, and on a CPU sets its threads: within, it may."""
    states, set_num_threads = (random.getstate(), np.random.get_state()), torch.set_num_threads
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)
