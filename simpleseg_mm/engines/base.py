"""What all engines share: prompts as they read them, how they draw, and what they gave back."""
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from packaging.version import InvalidVersion, Version
from PIL import Image
from torch import Tensor

from ..files import one_line
from ..models.sampling import Sampling
from ..structures import Generated

#: the least that vLLM's ``logit_bias`` takes: a token is never written
NEVER = -100.0
#: prompts that are encoded together
_ENCODED = 32
#: releases of vLLM that the tests run on: from the first, below the second
TESTED_VLLM = ('0.32', '0.33')


@dataclass(frozen=True)
class EnginePrompt:
    """A prompt about a picture, as an engine takes it.

    Attributes:
        token_ids: with one placeholder for the picture; the engine puts as many in its place as
            the picture takes.
        picture: at the size that our image processor chose, so that another one leaves it as it
            is.
        read_ids: all ids that the network reads, as the training forward has them.
        text: the prompt.
    """
    token_ids: list[int]
    picture: Image.Image
    read_ids: list[int]
    text: str


@dataclass(frozen=True)
class Written:
    """One answer as an engine gave it back.

    Attributes:
        read_ids: ids of the prompt as the engine read it.
        token_ids: of the answer, its end token included.
        logps: log-probability of each.
    """
    read_ids: Sequence[int]
    token_ids: Sequence[int]
    logps: Sequence[float]


class ExternalEngine(ABC):
    """Writes the answers of a live SimpleSeg model with its present weights.

    Prompts go as token ids, and pictures at the size that our image processor chose. What the
    engine has read comes back and is held to what the training forward reads, each time.

    Args:
        model: the unwrapped SimpleSeg, with whole weights; the engine has taken them over when it
            is built.
    """
    #: tokens that a prompt and its answer may have together
    max_length: int

    def __init__(self, model) -> None:
        self.model, self.mllm = model, model.mllm

    @abstractmethod
    def load_weights(self, model) -> None:
        """Takes over the present weights; those of a split model are whole when it is called."""

    @abstractmethod
    def _run(self, prompts: Sequence[EnginePrompt], params: Sequence[dict]
             ) -> list[Written | None]:
        """An answer to each prompt by its own sampling parameters; ``None`` where the run was
        asked to stop before."""

    def sleep(self) -> None:
        """Gives its memory on a GPU back until :meth:`load_weights`."""

    def write(self, images: Sequence[Tensor], prompts: Sequence[str], group_size: int = 1,
              sampling: Sampling | None = None, seeds: Sequence[Sequence[int]] | None = None,
              max_new_tokens: int | None = None, structured: Sequence[dict | None] | None = None,
              more: dict | None = None) -> list[list[Generated]]:
        """``group_size`` answers to each of P prompts.

        Args:
            images: P uint8 tensors (3, H, W), RGB.
            prompts: P prompts.
            group_size: G.
            sampling: how tokens are drawn; ``None``: the likeliest ones.
            seeds: with ``sampling``, P * G tuples of non-negative integers, one an answer, prompt
                by prompt.
            max_new_tokens: without ``sampling``: an answer is cut there; ``None``: as the model's
                ``generation`` says.
            structured: P grammars as vLLM's ``StructuredOutputsParams`` takes them, such as
                ``dict(regex=...)``; ``None``: free text.
            more: further keywords of vLLM's ``SamplingParams``, such as ``repetition_penalty``.

        Returns:
            P lists of G answers with ``token_ids`` and the engine's own ``token_logps``. One that
            the run was asked to stop before has no token.

        Raises:
            ValueError: a prompt and its answer are longer than the engine takes, or the engine
                reads other tokens than the training forward; one line.
        """
        if sampling is not None and len(seeds or ()) != len(prompts) * group_size:
            raise ValueError(f'{len(seeds or ())} seeds for {len(prompts) * group_size} answers: '
                             'give one an answer')
        limit = sampling.max_new_tokens if sampling else (
            max_new_tokens or self.model.generation['max_new_tokens'])
        asked = self.prompts(images, prompts, limit)
        rows = [(p, g) for p in range(len(asked)) for g in range(group_size)]
        params = [self._params(limit, sampling, seeds[p * group_size + g] if sampling else (),
                               structured[p] if structured else None, more or {})
                  for p, g in rows]
        written = self._run([asked[p] for p, _ in rows], params)
        answers = [self._read(asked[p], one) for (p, _), one in zip(rows, written, strict=True)]
        return [answers[i:i + group_size] for i in range(0, len(answers), group_size)]

    def stream(self, asked: Iterable[tuple[Tensor, str, dict | None]], max_new_tokens: int,
               more: dict | None = None, ahead: int = 256) -> Iterator[Generated]:
        """Greedy answers to what is asked, in order, each while later ones are being written.

        Args:
            asked: pictures, prompts and grammars, as :meth:`write` takes them; they are taken as
                they are needed.
            max_new_tokens, more: as for :meth:`write`.
            ahead: requests that the engine has at a time.

        Raises:
            ValueError: as :meth:`write`.
        """
        def requests() -> Iterator[tuple[EnginePrompt, dict]]:
            source = iter(asked)
            while part := list(islice(source, min(_ENCODED, ahead))):
                images, prompts, grammars = zip(*part)
                for prompt, grammar in zip(self.prompts(images, prompts, max_new_tokens),
                                           grammars):
                    yield prompt, self._params(max_new_tokens, None, (), grammar, more or {})

        for prompt, written in self._flow(requests(), ahead):
            yield self._read(prompt, written)

    def _flow(self, requests: Iterator[tuple[EnginePrompt, dict]], ahead: int
              ) -> Iterator[tuple[EnginePrompt, Written | None]]:
        """Requests with what :meth:`_run` gives for them, in order."""
        while part := list(islice(requests, ahead)):
            prompts, params = zip(*part)
            yield from zip(prompts, self._run(prompts, params), strict=True)

    def read(self, images: Sequence[Tensor], prompts: Sequence[str], max_new_tokens: int
             ) -> list[Written | None]:
        """Greedy answers with what was read, which is not held to anything."""
        asked = self.prompts(images, prompts, max_new_tokens)
        params = self._params(max_new_tokens, None, (), None, {})
        return self._run(asked, [params] * len(asked))

    def prompts(self, images: Sequence[Tensor], prompts: Sequence[str], limit: int = 0
                ) -> list[EnginePrompt]:
        """Each prompt about its picture, as the engine takes it; see :meth:`write`.

        Args:
            limit: tokens that an answer may have.
        """
        encoder, family = self.mllm.encoder, self.mllm.family
        batch = encoder.encode(images, [[(prompt, None)] for prompt in prompts],
                               for_generation=True)
        found = []
        for image, prompt, ids, mask in zip(images, prompts, batch['input_ids'],
                                            batch['attention_mask']):
            read = ids[mask.bool()].tolist()
            if len(read) + limit > self.max_length:
                raise ValueError(
                    f'{cut(prompt)} takes {len(read)} tokens with its picture, and its '
                    f'answer up to {limit}: the engine takes {self.max_length}. Give it a larger '
                    'max_model_len, or lower max_new_tokens or model.mllm.max_pixels')
            picture = family.resized(image).cpu().permute(1, 2, 0).numpy()
            found.append(EnginePrompt(encoder.unexpanded_ids(prompt), Image.fromarray(picture),
                                      read, prompt))
        return found

    def _params(self, limit: int, sampling: Sampling | None, seed: Sequence[int],
                structured: dict | None, more: dict) -> dict:
        """Keywords of vLLM's ``SamplingParams``: what is written in process, and how."""
        writer = self.mllm.writer
        banned = dict.fromkeys(writer.banned_tokens, NEVER)
        params = dict(
            max_tokens=limit, temperature=0.0, logprobs=0, detokenize=False,
            stop_token_ids=writer.stop_tokens,
            **{**more, 'logit_bias': {**more.get('logit_bias', {}), **banned}})
        if sampling:
            params.update(temperature=sampling.temperature, top_p=sampling.top_p,
                          top_k=sampling.top_k, seed=number_of(seed))
        if structured:
            params['structured_outputs'] = structured
        return params

    def _read(self, prompt: EnginePrompt, written: Written | None) -> Generated:
        if written is None:
            return Generated('', 0, False)
        self._check_same(prompt, written.read_ids)
        answer = self.mllm.writer.read(list(written.token_ids))
        return replace(answer, token_logps=tuple(written.logps[:answer.num_tokens]))

    def _check_same(self, prompt: EnginePrompt, read_ids: Sequence[int]) -> None:
        """ValueError where the engine read something else than the training forward."""
        ours, theirs = prompt.read_ids, list(read_ids)
        if ours == theirs:
            return
        image = self.mllm.family.image_token_id
        counts = ours.count(image), theirs.count(image)
        if counts[0] != counts[1]:
            told = (f'its picture takes {counts[1]} tokens in the engine and {counts[0]} in '
                    'training: the image processors differ')
        else:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
                      min(len(ours), len(theirs)))
            told = (f'token {at} is {theirs[at:at + 1]} in the engine and {ours[at:at + 1]} in '
                    'training: the engine has changed the ids')
        raise ValueError(f'The engine reads {cut(prompt.text)} otherwise than training '
                         f'does: {told}. Give the engine the folder that '
                         'tools/model_converters/to_huggingface.py writes from this config')


def number_of(seed: Sequence[int]) -> int:
    """A seed of an answer as one number below 2 ** 63."""
    return int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1)


def check_version(version: str, where: str) -> None:
    """ValueError where a release of vLLM is not one that the tests run on."""
    first, end = TESTED_VLLM
    try:
        tested = Version(first).release <= Version(version).release < Version(end).release
    except InvalidVersion:
        tested = False
    if not tested:
        raise ValueError(f'vLLM {version} {where}: this release of simpleseg_mm is tested with '
                         f'vLLM >={first}, <{end}, whose interfaces change often. Install '
                         f"'vllm>={first},<{end}', or another simpleseg_mm")


def cut(text: str, length: int = 80) -> str:
    """The beginning of a text, for a message."""
    return repr(one_line(text)[:length])
