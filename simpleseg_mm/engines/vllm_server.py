"""vLLM as one or more servers that take a live model's weights from a folder."""
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank, is_main_process

from .. import stopping
from ..client import EndpointError, Transport, data_url
from ..files import shown
from ..together import failing_together
from .base import EnginePrompt, ExternalEngine, Written, check_version, cut
from .weights import write_weights

#: requests that one process has open at a server
_OPEN = 64
_START = 'VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --enable-scale-out'
_GENERATE = '/inference/v1/generate'
#: what a server on a CPU does besides
PACKS = 'simpleseg_mm.engines.vllm_worker.PackedHeads'


class VLLMServers(ExternalEngine):
    """Servers that write answers together, shared by all processes of a run.

    Each is started by ``VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --enable-scale-out``, FOLDER by
    ``tools/model_converters/to_huggingface.py``. The first process writes the weights into a
    fresh folder that all servers can read, and tells them to load it. Each answer says by which
    weights it was written, and one by others than the last is an error.

    Every process of the run must build one.

    Args:
        model: the unwrapped SimpleSeg, with whole weights.
        urls: of the servers, such as 'http://node5:8000'. The answers to one prompt come from one
            of them, which reads it once.
        weights_dir: folder that the first process writes to and all servers read.
        logprobs_mode: that the servers must have been started with; see :class:`VLLMEngine`.
        timeout: seconds that a server may take for one answer or to load weights.

    Raises:
        ConnectionError: a server does not answer, or not as vLLM does; one line.
        ValueError: a server cannot be used as it was started; one line.
    """

    def __init__(self, model, urls: Sequence[str], weights_dir: str,
                 logprobs_mode: str = 'raw_logprobs', timeout: float = 600.0) -> None:
        super().__init__(model)
        self.servers = [_Server(url, timeout) for url in urls]
        self.weights_dir = Path(weights_dir)
        self.version = 'none'
        head = model.mllm.hf.get_output_embeddings()
        tied = head.weight is model.mllm.hf.get_input_embeddings().weight
        with failing_together():
            self.max_length = min(server.check(logprobs_mode, tied) for server in self.servers)
        self.load_weights(model)

    def load_weights(self, model) -> None:
        """Every process must call it."""
        name = [uuid.uuid4().hex]
        broadcast_object_list(name)
        with failing_together():  # all wait for the first, or fail with it
            if is_main_process():
                self._hand_over(model, self.weights_dir / name[0])
        self.version = name[0]

    def _hand_over(self, model, folder: Path) -> None:
        partial = folder.with_suffix('.partial')
        partial.mkdir(parents=True)
        write_weights(model.mllm, partial / 'model.safetensors')
        partial.rename(folder)
        try:
            for server in self.servers:
                server.load(folder)
        finally:
            shutil.rmtree(folder)

    def _run(self, prompts: Sequence[EnginePrompt], params: Sequence[dict]
             ) -> list[Written | None]:
        places: dict[int, int] = {}  # prompts that are one object have one server
        for prompt in prompts:
            places.setdefault(id(prompt), len(places) + get_rank())
        pictures = {id(prompt): data_url(prompt.picture, 'PNG', compress_level=1)
                    for prompt in prompts}
        servers = [self.servers[places[id(prompt)] % len(self.servers)] for prompt in prompts]
        jobs = {}
        try:
            for server, prompt, one in zip(servers, prompts, params):
                jobs[server.write(prompt, pictures[id(prompt)], one)] = server
            written, waiting = {}, set(jobs)
            while waiting and not stopping.asked():
                done, waiting = wait(waiting, timeout=0.2)
                written.update((job, jobs[job].read(job, self.version)) for job in done)
            return [written.get(job) for job in jobs]
        finally:
            for job in jobs:
                job.cancel()


class _Server:
    """One server. It is asked once: one that was started again has other weights."""

    def __init__(self, url: str, timeout: float) -> None:
        self.transport = Transport(url, timeout=timeout, retries=0, concurrency=_OPEN)
        self.url = self.transport.shown.removesuffix('/v1')
        self._packs = False  # on a CPU, see engines/vllm_worker.py

    def check(self, logprobs_mode: str, tied: bool) -> int:
        """Tokens that it takes. ValueError where it cannot be used.

        Args:
            tied: the network's head shares the embeddings' weight.
        """
        told = self.ask('/version')
        if not isinstance(told, dict) or 'version' not in told:
            raise ConnectionError(f'{self.url}/version answered {shown(told, 200)}: is it a '
                                  'server of vLLM?')
        check_version(str(told['version']), f'serves {self.url}')
        try:
            self.ask('/weight_info')
            config = self.ask('/server_info?config_format=json')['vllm_config']
            told = config['model_config']['logprobs_mode']
            length = int(config['model_config']['max_model_len'])
            extension = config['parallel_config']['worker_extension_cls']
            on_cpu = config['device_config']['device'] == 'cpu'
        except (KeyError, TypeError, ConnectionError) as error:
            raise ValueError(f'{self.url} does not take new weights ({error}): start it with the '
                             f'variable VLLM_SERVER_DEV_MODE=1 ({_START})') from None
        if told != logprobs_mode:
            raise ValueError(f'{self.url} was started with --logprobs-mode {told}, and the '
                             f'rollout needs {logprobs_mode}: {_START} --logprobs-mode '
                             f'{logprobs_mode}')
        try:
            self.transport.ask(_GENERATE, {})
        except EndpointError as fault:  # any other: nothing was asked
            if fault.reason == 'HTTP 403':
                raise ValueError(f'{self.url} takes no token ids ({_GENERATE} answered 403: '
                                 f'{cut(fault.said)}): {_START}') from None
        self._packs = extension == PACKS
        if on_cpu and tied and not self._packs:
            raise ValueError(f'{self.url} runs on a CPU, where vLLM keeps an old copy of a head '
                             'that shares the embeddings\' weight: start it with '
                             f'--worker-extension-cls {PACKS}')
        return length

    def load(self, folder: Path) -> None:
        """Takes weights over from a folder, whose name is their version."""
        self.ask('/collective_rpc', dict(
            method='reload_weights', kwargs=dict(weights_path=str(folder.resolve()))))
        if self._packs:
            self.ask('/collective_rpc', dict(method='pack_heads'))
        # What was worked out with the old weights; of the pictures the scheduler believes that
        # the worker still has them.
        told = self.ask('/reset_prefix_cache', {})
        if not isinstance(told, dict) or not told.get('success'):
            raise ValueError(f'{self.url} is writing answers for somebody else, and cannot take '
                             'new weights meanwhile: give each run its own servers')
        for what in ('mm_cache', 'encoder_cache'):
            self.ask(f'/reset_{what}', {})
        self.ask('/update_weight_version', dict(new_version=folder.name))

    def write(self, prompt: EnginePrompt, picture: str, params: dict) -> 'Future[Any]':
        """Starts an answer, which :meth:`read` takes."""
        return self.transport.start(_GENERATE, dict(
            token_ids=prompt.token_ids, content_parts=[dict(type='image_url', url=picture)],
            sampling_params=params, return_token_ids=True))

    def read(self, job: 'Future[Any]', version: str) -> Written:
        """An answer by these weights; ConnectionError where it is none."""
        answer = self._result(job, _GENERATE)
        try:
            choice, = answer['choices']
            ids = choice['token_ids']
            logps = [place['logprob'] for place in choice['logprobs']['content']]
            versions = {span['version'] for span in choice['weight_versions'] or ()}
            read_ids = answer['prompt_token_ids']
            if choice['finish_reason'] not in ('stop', 'length') or len(logps) != len(ids):
                raise ValueError(f'it ended by {choice["finish_reason"]}')
        except (KeyError, TypeError, ValueError) as error:
            raise ConnectionError(f'{self.url} answered without what is needed ({error!r}): '
                                  f'{shown(answer, 200)}') from None
        if ids and versions != {version}:
            raise ConnectionError(
                f'{self.url} wrote with weights {sorted(versions)} instead of {version}: it was '
                'started again, or somebody else has given it weights. Nothing of this rollout '
                'was learnt from; tools/train.py CONFIG --resume goes on')
        return Written(read_ids, ids, logps)

    def ask(self, path: str, content: dict | None = None) -> Any:
        """What it answers to a GET, or with ``content`` to a POST."""
        return self._result(self.transport.start(path, content), path)

    def _result(self, job: 'Future[Any]', path: str) -> Any:
        try:
            return job.result()
        except EndpointError as fault:
            told = cut(fault.said, 300)
            if fault.reason.startswith('HTTP'):
                told = f'{self.url}{path} answered {fault.reason.removeprefix("HTTP ")}: {told}'
            elif fault.reason == 'broken answer':
                told = (f'{self.url}{path} answered no JSON, but {told}: is it a server of '
                        'vLLM?')
            else:
                told = (f'{self.url} does not answer ({fault.said}): nothing of this rollout was '
                        f'learnt from. Start the server ({_START}), then tools/train.py CONFIG '
                        '--resume goes on')
            raise ConnectionError(told) from None
