"""vLLM as one or more servers that take a live model's weights from a folder."""
import http.client
import json
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from mmengine.dist import barrier, broadcast_object_list, get_rank, is_main_process

from .. import stopping
from ..client.chat import data_url
from ..files import shown
from .base import EnginePrompt, ExternalEngine, Written, check_version, cut
from .weights import write_weights

#: requests that one process has open at a time
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
        self.urls = [url.rstrip('/') for url in urls]
        self.weights_dir, self.timeout = Path(weights_dir), timeout
        self.version = 'none'
        head = model.mllm.hf.get_output_embeddings()
        self._tied = head.weight is model.mllm.hf.get_input_embeddings().weight
        self._packing: set[str] = set()  # servers on CPUs, see engines/vllm_worker.py
        self.max_length = min(self._check(url, logprobs_mode) for url in self.urls)
        self.load_weights(model)

    def _check(self, url: str, logprobs_mode: str) -> int:
        """Tokens that a server takes, which is one that can be used."""
        told = self._ask(url, '/version')
        if not isinstance(told, dict) or 'version' not in told:
            raise ConnectionError(f'{url}/version answered {shown(told, 200)}: is it a server of '
                                  'vLLM?')
        check_version(str(told['version']), f'serves {url}')
        try:
            self._ask(url, '/weight_info')
            config = self._ask(url, '/server_info?config_format=json')['vllm_config']
            told = config['model_config']['logprobs_mode']
            length = int(config['model_config']['max_model_len'])
            extension = config['parallel_config']['worker_extension_cls']
            on_cpu = config['device_config']['device'] == 'cpu'
        except (KeyError, TypeError, ConnectionError) as error:
            raise ValueError(f'{url} does not take new weights ({error}): start it with the '
                             f'variable VLLM_SERVER_DEV_MODE=1 ({_START})') from None
        if told != logprobs_mode:
            raise ValueError(f'{url} was started with --logprobs-mode {told}, and the rollout '
                             f'needs {logprobs_mode}: {_START} --logprobs-mode {logprobs_mode}')
        try:
            self._ask(url, _GENERATE, {})
        except ConnectionError as error:  # any other: nothing was asked
            if f'{_GENERATE} answered 403' in str(error):
                raise ValueError(f'{url} takes no token ids ({error}): {_START}') from None
        if extension == PACKS:
            self._packing.add(url)
        elif on_cpu and self._tied:
            raise ValueError(f'{url} runs on a CPU, where vLLM keeps an old copy of a head that '
                             'shares the embeddings\' weight: start it with '
                             f'--worker-extension-cls {PACKS}')
        return length

    def load_weights(self, model) -> None:
        """Every process must call it."""
        name = [uuid.uuid4().hex]
        broadcast_object_list(name)
        if is_main_process():
            folder = self.weights_dir / name[0]
            partial = self.weights_dir / f'{name[0]}.partial'
            partial.mkdir(parents=True)
            write_weights(model.mllm, partial / 'model.safetensors')
            partial.rename(folder)
            try:
                for url in self.urls:
                    self._hand_over(url, folder)
            finally:
                shutil.rmtree(folder)
        barrier()
        self.version = name[0]

    def _hand_over(self, url: str, folder: Path) -> None:
        self._ask(url, '/collective_rpc', dict(
            method='reload_weights', kwargs=dict(weights_path=str(folder.resolve()))))
        if url in self._packing:
            self._ask(url, '/collective_rpc', dict(method='pack_heads'))
        # What was worked out with the old weights; of the pictures the scheduler believes that
        # the worker still has them.
        if not self._ask(url, '/reset_prefix_cache', {})['success']:
            raise ValueError(f'{url} is writing answers for somebody else, and cannot take new '
                             'weights meanwhile: give each run its own servers')
        for what in ('mm_cache', 'encoder_cache'):
            self._ask(url, f'/reset_{what}', {})
        self._ask(url, '/update_weight_version', dict(new_version=folder.name))

    def _run(self, prompts: Sequence[EnginePrompt], params: Sequence[dict]
             ) -> list[Written | None]:
        places: dict[int, int] = {}  # prompts that are one object have one server
        for prompt in prompts:
            places.setdefault(id(prompt), len(places) + get_rank())
        pictures = {id(prompt): data_url(prompt.picture, 'PNG', compress_level=1)
                    for prompt in prompts}
        pool = ThreadPoolExecutor(max_workers=min(_OPEN, len(prompts)))
        try:
            jobs = [pool.submit(self._write_one, self.urls[places[id(prompt)] % len(self.urls)],
                                prompt, pictures[id(prompt)], one)
                    for prompt, one in zip(prompts, params)]
            waiting = set(jobs)
            while waiting and not stopping.asked():
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            return [job.result() if job.done() and not job.cancelled() else None for job in jobs]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _write_one(self, url: str, prompt: EnginePrompt, picture: str, params: dict) -> Written:
        answer = self._ask(url, _GENERATE, dict(
            token_ids=prompt.token_ids, content_parts=[dict(type='image_url', url=picture)],
            sampling_params=params, return_token_ids=True))
        try:
            choice, = answer['choices']
            ids = choice['token_ids']
            logps = [place['logprob'] for place in choice['logprobs']['content']]
            versions = {span['version'] for span in choice['weight_versions'] or ()}
            read_ids = answer['prompt_token_ids']
            if choice['finish_reason'] not in ('stop', 'length') or len(logps) != len(ids):
                raise ValueError(f'it ended by {choice["finish_reason"]}')
        except (KeyError, TypeError, ValueError) as error:
            raise ConnectionError(f'{url} answered without what is needed ({error!r}): '
                                  f'{shown(answer, 200)}') from None
        if ids and versions != {self.version}:
            raise ConnectionError(
                f'{url} wrote with weights {sorted(versions)} instead of {self.version}: it was '
                'started again, or somebody else has given it weights. Nothing of this rollout '
                'was learnt from; tools/train.py CONFIG --resume goes on')
        return Written(read_ids, ids, logps)

    def _ask(self, url: str, path: str, content: dict | None = None):
        """What a server answers to a GET, or with ``content`` to a POST."""
        request = urllib.request.Request(
            url + path, None if content is None else json.dumps(content).encode(),
            {'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                text = response.read()
            return json.loads(text) if text.strip() else None
        except urllib.error.HTTPError as error:
            told = cut(error.read(500).decode(errors='replace'), 300)
            raise ConnectionError(f'{url}{path} answered {error.code}: {told}') from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, 'reason', None) or error
            raise ConnectionError(
                f'{url} does not answer ({str(reason) or type(error).__name__}): nothing of this '
                f'rollout was learnt from. Start the server ({_START}), then tools/train.py '
                'CONFIG --resume goes on') from None
        except ValueError:
            told = cut(text.decode(errors='replace'))
            raise ConnectionError(f'{url}{path} answered no JSON, but {told}: is it a server of '
                                  'vLLM?') from None
