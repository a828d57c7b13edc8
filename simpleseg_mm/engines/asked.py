"""Greedy answers of an engine, with all that it says of what it has read."""
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image
from torch import Tensor

from ..client import EndpointError, data_url
from ..files import shown
from ..structures import Generated
from .observed import Observed
from .vllm import VLLMEngine

#: requests that are open at a time
_OPEN = 8
#: tokens of a prompt: no model reads as many
_MOST = 1 << 24


def ask_vllm(model, images: Sequence[Tensor], prompts: Sequence[str], limit: int,
             options: dict) -> list[Observed]:
    """Answers of vLLM in this process, with the weights of a model.

    Args:
        model: the unwrapped SimpleSeg.
        images: uint8 (3, H, W), RGB.
        prompts: one a picture.
        limit: tokens of an answer.
        options: keywords of ``vllm.LLM``.
    """
    engine = VLLMEngine(model, **options)
    written = engine.read(images, prompts, limit)
    engine.sleep()
    return [_observed(model, one, limit) for one in written]


def _observed(model, written, limit: int) -> Observed:
    ids = tuple(written.token_ids)
    ends = set(model.mllm.writer.stop_tokens)
    end = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    answer = Generated(model.mllm.encoder.text_of(ids[:end]), len(ids),
                       end < len(ids) or len(ids) < limit, ids, tuple(written.logps))
    return Observed(answer, tuple(written.read_ids), len(written.read_ids), limit=limit)


def ask_server(post: Callable[[str, dict | None], Any], name: str, model,
               images: Sequence[Tensor], prompts: Sequence[str], limit: int) -> list[Observed]:
    """Answers of an OpenAI-compatible server to messages, as its users ask it.

    Args:
        post: (path below the address, or from its root where it begins with '/'; content, or None
            to look) -> what the server answers, as :meth:`simpleseg_mm.client.Transport.ask`.
        name: of the model at the server.
        model, images, prompts, limit: as for :func:`ask_vllm`.

    Raises:
        ValueError: the server does not answer as the API says; one line.
    """
    asked = [_messages(model.mllm.encoder, image, prompt)
             for image, prompt in zip(images, prompts)]
    server = _Server(post, name, model, limit)
    first = server.ask(asked[0])  # what it understands is known before many ask at a time
    with ThreadPoolExecutor(_OPEN) as pool:
        return [first, *pool.map(server.ask, asked[1:])]


def _messages(encoder, image: Tensor, prompt: str) -> list[dict]:
    address = data_url(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), 'PNG')
    system = encoder.system_prompt
    return [*([] if system is None else [dict(role='system', content=system)]),
            dict(role='user', content=[
                dict(type='image_url', image_url=dict(url=address)),
                dict(type='text', text=prompt)])]


class _Server:
    """One server, and what it understands."""

    def __init__(self, post: Callable[[str, dict | None], Any], name: str, model,
                 limit: int) -> None:
        self.post, self.name, self.limit = post, name, limit
        self.encoder = model.mllm.encoder
        self.end = tuple(self.encoder.tokenizer.encode(self.encoder.frame.end,
                                                       add_special_tokens=False))
        self.more: dict | None = dict(logprobs=True, return_token_ids=True)
        self.tokenizes = True

    def ask(self, messages: list[dict]) -> Observed:
        body = dict(model=self.name, messages=messages, max_tokens=self.limit, temperature=0)
        if self.encoder.chat_template_kwargs:
            body['chat_template_kwargs'] = self.encoder.chat_template_kwargs
        told = self._chat(body)
        try:
            choice = told['choices'][0]
            text = (choice['message']['content'] or '').encode('utf-8', 'replace').decode()
            usage = told.get('usage') or {}
            entries = (choice.get('logprobs') or {}).get('content') or []
            logps = tuple(float(entry['logprob']) for entry in entries)
            finished = choice.get('finish_reason') == 'stop'
            ids, read = choice.get('token_ids'), told.get('prompt_token_ids')
            ids = None if ids is None else tuple(map(int, ids))
            read = None if read is None else tuple(map(int, read))
            total = usage.get('prompt_tokens')
            if total is not None and not (type(total) is int and 0 <= total < _MOST):
                raise ValueError(f'usage.prompt_tokens is {shown(total, 40)}')
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f'the server answers without what the API of chat completions says '
                             f'({type(error).__name__} {error}): {shown(told, 200)}. Is it '
                             'OpenAI-compatible?') from None
        if ids is None:
            ids = tuple(self.encoder.ids_of_text(text))
            ids += self.end if finished else ()
            if len(logps) not in (len(ids), len(ids) - finished):
                logps = ()  # of other tokens
        if read is None:
            read = self._tokenized(body, total)
        alone = None
        if read is None and total is not None:
            alone = self._without_picture(body)
        return Observed(Generated(text, len(ids), finished, ids, logps), read, total, alone,
                        self.limit)

    def _chat(self, body: dict) -> Any:
        """With all that vLLM can tell; some servers refuse what they do not know."""
        while True:
            try:
                return self.post('chat/completions', {**body, **(self.more or {})})
            except EndpointError as fault:
                if not (fault.refused and self.more):
                    raise
                self.more.popitem()

    def _tokenized(self, body: dict, total: int | None) -> tuple[int, ...] | None:
        """A prompt's ids by vLLM's ``/tokenize``; a picture may be one id in it."""
        if not self.tokenizes:
            return None
        try:
            told = self.post('/tokenize', {key: body[key] for key in (
                'model', 'messages', 'chat_template_kwargs') if key in body})
            ids = [int(token) for token in told['tokens']]
        except (ValueError, KeyError, TypeError):
            self.tokenizes = False
            return None
        image = self.encoder.family.image_token_id
        if total is not None and len(ids) != total and ids.count(image) == 1:
            at = ids.index(image)
            ids[at:at + 1] = [image] * max(total - len(ids) + 1, 0)
        return tuple(ids)

    def _without_picture(self, body: dict) -> int | None:
        messages = [dict(message, content=[part for part in message['content'] if part['type'] ==
                                           'text']) if message['role'] == 'user' else message
                    for message in body['messages']]
        try:
            told = self.post('chat/completions', dict(body, messages=messages, max_tokens=1))
            return int(told['usage']['prompt_tokens'])
        except (ValueError, KeyError, TypeError):
            return None
