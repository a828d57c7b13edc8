"""SimpleSeg: a multimodal LLM, unmodified, that writes the outline of an object as text."""
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..polygon import AnswerAutomaton, Task
from ..registry import MODELS
from ..samples import answer_of, attach_answer, read_answer
from ..second_look import LISTS_UNSEEN, Asked, SecondLook, cut_out
from ..structures import Generated
from .consensus import Ballot, Consensus, Seeds
from .decoding import Take
from .encoder import IGNORE
from .losses import chunked_token_logp, chunked_token_nll
from .mllm import build_mllm
from .sampling import Sampling


class AsLoaded(BaseDataPreprocessor):
    """Leaves pictures and samples on the CPU: the image processor reads them there, and what it
    makes of them goes to the network's device."""

    def cast_data(self, data):
        return data


@MODELS.register_module()
class SimpleSeg(BaseModel):
    """Segmentation as text generation (arXiv 2601.19228).

    ``loss`` teaches the answers of the data samples; ``predict`` generates answers and decodes
    them by the codec that each sample names. There is no head, no decoder and no new token.

    Args:
        mllm: config of an :class:`MLLM`; its ``type`` names the family.
        generation: keys of ``transformers.GenerationConfig`` for ``predict``; greedy, without
            penalties, with at most 1024 new tokens unless told (our choice; the official 512 cut
            answers at 36 vertices). What the weights' ``generation_config.json`` asks for is not
            taken, but for its end tokens, unless ``inherit=True``. Beside them ``draft`` (default
            True): likely punctuation is checked instead of written, which changes no answer;
            ``constrain`` (default False): where a sample names a codec and a task, nothing but its
            grammar is written.
        consensus: keys of :class:`Consensus`, ``dict(samples=8, temperature=0.6)``: ``predict``
            writes so many sampled answers beside the greedy one and gives their vote. ``None``, or
            no samples: the greedy one.
        second_look: keys of :class:`simpleseg_mm.second_look.SecondLook`, ``dict()`` for the
            defaults: ``predict`` asks again in a crop round a small answer, and takes its outline
            where it agrees with the first. ``None``: no look.
        loss_chunk: tokens of the vocabulary head computed at a time.
    """

    #: of a loop that looks ahead: samples, and the :meth:`predict_stream` that gives them next
    upcoming: tuple[Sequence, Iterator[list]] | None = None

    def __init__(self, mllm: dict, generation: dict | None = None,
                 consensus: dict | None = None, second_look: dict | None = None,
                 loss_chunk: int = 512,
                 data_preprocessor: dict | None = None, init_cfg: dict | None = None):
        super().__init__(data_preprocessor=data_preprocessor or AsLoaded(), init_cfg=init_cfg)
        self.mllm = build_mllm(mllm)
        self.generation = {'do_sample': False, 'max_new_tokens': 1024,
                           **self._inherited(generation or {}), **(generation or {})}
        self.generation.pop('inherit', None)
        self.consensus = Consensus.of(consensus)
        self.second_look = SecondLook.of(second_look)
        self._said_lists = False
        self.loss_chunk = loss_chunk

    def _inherited(self, generation: dict) -> dict:
        """What is taken of the way of writing that the folder of the weights asks for."""
        asked = {key: value for key, value in self.mllm.asked_generation.items()
                 if key not in generation}
        if not asked:
            return {}
        taken = bool(generation.get('inherit'))
        listed = ', '.join(f'{key}={value!r}' for key, value in asked.items())
        print_log(f'generation_config.json of the weights asks for {listed[:500]}: ' + (
            'taken for validation and test; rollouts are drawn without it' if taken else
            'not taken, answers are greedy and without penalties. model.generation='
            'dict(inherit=True) takes it, and so does each key by itself'), 'current')
        return asked if taken else {}

    def init_weights(self) -> None:
        """Nothing: the adapter has loaded or drawn the weights."""

    def forward(self, inputs: list[Tensor], data_samples: Sequence | None = None,
                mode: str = 'tensor', **options):
        """MMEngine's entry: 'loss' -> dict of losses, 'predict' -> samples, 'tensor' -> hidden
        states (B, T, D), 'log_probs' -> :meth:`log_probs`.

        Args:
            inputs: B uint8 tensors (3, H, W), RGB.
            data_samples: B ``DetDataSample`` as packed by ``PackQuery``; for 'log_probs', B
                conversations.
            options: of 'loss' and 'log_probs'.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples, **options)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.mllm.hidden_states(self._encode(inputs, data_samples))
        if mode == 'log_probs':
            return self.log_probs(inputs, data_samples, **options)
        raise ValueError(f"mode={mode!r}: allowed are 'loss', 'predict', 'tensor' and "
                         "'log_probs'")

    # --- training -----------------------------------------------------------------------------
    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's, with the figures for the log read here, before the backward pass is queued
        on a GPU: whoever reads them after it waits until all is done, and the GPU then waits for
        its next work."""
        loss, figures = super().parse_losses(losses)
        read = torch.stack([figure.detach() for figure in figures.values()]).cpu()
        return loss, dict(zip(figures, read))

    def encode(self, inputs: list[Tensor], data_samples: Sequence) -> dict[str, Tensor]:
        """The batch as ``loss`` gives it to the network, where the network is: in rows without
        padding where the measure 'packed_rows' is on; see :meth:`_prepared`."""
        batch = self._encode(inputs, data_samples)
        return self._prepared(batch, _of_answers(batch))

    def loss(self, inputs: list[Tensor], data_samples: Sequence,
             encoded: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Cross-entropy of the answer tokens, averaged over all ranks' tokens.

        Args:
            inputs, data_samples: as for ``forward``.
            encoded: what :meth:`encode` made of them, where that is at hand.

        Returns:
            ``loss``; and to be logged: ``token_accuracy`` (teacher-forced), ``answer_tokens``
            and ``sequence_tokens`` (sums over the local batch).
        """
        batch = self.encode(inputs, data_samples) if encoded is None else encoded
        hidden, target = self._answers(batch)
        nll, hit = chunked_token_nll(hidden, self.mllm.head_weight, target, self.loss_chunk)
        # DDP averages gradients over ranks, so the divisor is the mean count of a rank.
        answer_tokens = nll.new_full((), float(len(target)))
        count = answer_tokens.clone()
        tokens = batch.get('attention_mask', torch.ones_like(batch['input_ids'])).sum()
        all_reduce(count, 'mean')
        return dict(loss=nll.sum() / count.clamp(min=1),
                    token_accuracy=hit.float().mean() if len(hit) else count * 0,
                    answer_tokens=answer_tokens,
                    sequence_tokens=tokens.float())

    def encode_answers(self, images: list[Tensor], conversations: Sequence) -> dict[str, Tensor]:
        """The batch as ``log_probs`` gives it to the network, where the network is."""
        batch = self.mllm.encoder.encode(images, conversations,
                                         share_images=self.mllm.shares_images)
        mask = _of_answers(batch)
        return self._prepared(batch, mask, answer_mask=mask,
                              answer_slots=mask.flatten().nonzero().squeeze(1))

    def log_probs(self, images: list[Tensor], conversations: Sequence, temperature: float = 1.0,
                  encoded: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the answers' tokens, with gradient, head in fp32.

        Args:
            images: B uint8 tensors (3, H, W), RGB. Rows that hold the same tensor object share
                one pass of the vision tower.
            conversations: B lists of (prompt, answer) turns, an answer as token ids.
            temperature: of sampling.
            encoded: what :meth:`encode_answers` made of them, where that is at hand.

        Returns:
            log-probs (B, T - 1) and entropies (B, T - 1) in nats, float32, 0 outside the answers;
            mask (B, T - 1) bool of the answers' tokens.
        """
        batch = self.encode_answers(images, conversations) if encoded is None else encoded
        mask = batch['answer_mask']
        hidden, target = self._answers(batch)
        logp, entropy = chunked_token_logp(hidden, self.mllm.head_weight, target, temperature,
                                           self.loss_chunk)
        blank, slots = logp.new_zeros(mask.numel()), batch['answer_slots']
        logp, entropy = (blank.index_copy(0, slots, x).view(mask.shape) for x in (logp, entropy))
        return logp, entropy, mask

    def _prepared(self, batch: dict[str, Tensor], mask: Tensor, **more: Tensor
                  ) -> dict[str, Tensor]:
        """An encoded batch laid out for training, and on the network's device, with
        ``answer_tokens`` (N,), the tokens that belong to answers, row after row, and
        ``answer_places`` (N,): whose states they follow from. The device is never asked for them:
        whoever asks waits for all that it still has to do.

        Args:
            mask: (B, T - 1), :func:`_of_answers` of the batch.
            more: goes to the device beside it.
        """
        laid_out, places = self.mllm.lay_out(batch)
        return self.mllm.to_device(dict(laid_out, answer_tokens=batch['labels'][:, 1:][mask],
                                        answer_places=places[:, :-1][mask], **more))

    def _answers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden states (N, D) from which the answers' tokens (N,) follow, row after row."""
        hidden = self.mllm.hidden_states(batch).flatten(0, 1)
        return hidden.index_select(0, batch['answer_places']), batch['answer_tokens']

    def _encode(self, inputs: list[Tensor], data_samples: Sequence) -> dict[str, Tensor]:
        return self.mllm.encoder.encode(inputs, [sample.turns for sample in data_samples])

    # --- inference ----------------------------------------------------------------------------
    @torch.no_grad()
    def predict(self, inputs: list[Tensor], data_samples: Sequence, **options) -> list:
        """Generates an answer for each sample and puts it there, see
        :func:`simpleseg_mm.samples.attach_answer`: ``pred_answer``, ``pred_text`` and so on, and
        ``pred_instances``, unless the sample names no codec, as a question about a picture.

        ``pred_seconds`` is the wall time of the batch over its size. ``options`` are those of
        :meth:`answer_stream`.
        """
        if self.upcoming is not None and self.upcoming[0][0] is data_samples[0]:
            return next(self.upcoming[1])
        samples, = self.predict_stream([dict(inputs=inputs, data_samples=data_samples)],
                                       **options)
        return samples

    def predict_stream(self, batches: Iterable[dict], **options) -> Iterator[list]:
        """Batches of samples, with their answers as by :meth:`predict`, in order.

        As many answers are written at a time as the first batch has samples, and where some have
        ended those of the next batches are begun: no answer changes, and a long one holds up no
        others. ``pred_seconds`` is the wall time since the batch before, over the batch's size,
        without the time that ``batches`` took.

        With a second look each batch is ended before the next is begun, since what is looked at
        follows from its answers.

        Args:
            batches: of ``inputs`` and ``data_samples``, as :meth:`forward` takes them.
            options: of :meth:`answer_stream`.
        """
        if self.second_look is None:
            yield from self._answered(batches, **options)
            return
        for batch in batches:
            samples, = self._answered([batch], **options)
            self._look_again(batch['inputs'], samples, **options)
            yield samples

    def _look_again(self, images: list[Tensor], samples: list,
                    on_tokens: Callable | None = None, **options) -> None:
        """Takes second looks at the answers of samples, in place. They are asked as the first
        ones, by :attr:`consensus` too; ``on_tokens`` is told of no ids while they are written, and
        what it ends there is not taken."""
        start = time.perf_counter()
        asked = [(number, ask) for number, sample in enumerate(samples)
                 for ask in self.second_look.asks(sample)]
        parts = (asked[first:first + len(samples)]
                 for first in range(0, len(asked), len(samples)))
        crops = (dict(inputs=[self._crop(images[number], samples[number], ask)
                              for number, ask in part],
                      data_samples=[BaseDataElement(metainfo=ask.sample(samples[number]))
                                    for number, ask in part]) for part in parts)
        told = None if on_tokens is None else lambda row, _: on_tokens(asked[row][0], ())
        seen: list[dict] = [{} for _ in samples]
        for (number, ask), second in zip(asked, chain.from_iterable(
                self._answered(crops, on_tokens=told, **options))):
            seen[number][ask.instance] = ask.window, answer_of(second)
        seconds = (time.perf_counter() - start) / len(samples)
        for sample, found in zip(samples, seen):
            answer = answer_of(sample)
            if answer.many and not self.second_look.lists and not self._said_lists:
                self._said_lists = True
                print_log(LISTS_UNSEEN, 'current', logging.WARNING)
            attach_answer(sample, replace(self.second_look.judged(answer, found),
                                          seconds=answer.seconds + seconds))

    def _crop(self, image: Tensor, sample, ask: Asked) -> Tensor:
        """The crop that a look is about, (3, h, w) uint8, of a picture that may have been resized
        since it was read."""
        h, w = sample.ori_shape[:2]
        picture = image.permute(1, 2, 0).cpu().numpy()
        scale = np.array([picture.shape[1] / w, picture.shape[0] / h] * 2)
        x1, y1, x2, y2 = (scale * ask.window).round().astype(int)
        window = x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)
        return torch.from_numpy(cut_out(picture, window, self.second_look.side)).permute(2, 0, 1)

    def _answered(self, batches: Iterable[dict], **options) -> Iterator[list]:
        """:meth:`predict_stream` without second looks."""
        drawn: deque[list] = deque()  # those that are not answered
        waited = 0.0

        def timed() -> Iterator[dict]:
            nonlocal waited
            source, end = iter(batches), object()
            while True:
                start = time.perf_counter()
                batch = next(source, end)
                waited += time.perf_counter() - start
                if batch is end:
                    return
                drawn.append(list(batch['data_samples']))
                yield batch

        source = timed()
        first = next(source, None)
        if first is None:
            return
        queries: dict[int, Any] = {}  # samples by their number, until they are answered

        def asked() -> Iterator[tuple]:
            for batch in chain([first], source):
                for image, sample in zip(batch['inputs'], batch['data_samples']):
                    queries[len(queries) + answered] = sample
                    yield image, sample.prompt, answer_form(sample)

        answered = 0
        written: list = []
        start, waited = time.perf_counter(), 0.0
        ballot = self.consensus and Ballot(self.consensus, queries.get)
        stream = self.answer_stream(asked(), len(drawn[0]), **options) if ballot is None else (
            self.group_stream(asked(), ballot.more, len(drawn[0]), **options))
        with closing(stream) as answers:
            for answer in answers:
                written.append(answer)
                if len(written) < len(drawn[0]):
                    continue
                samples = drawn.popleft()
                seconds = (time.perf_counter() - start - waited) / len(samples)
                for sample, answer in zip(samples, written):
                    if ballot is None:
                        self.postprocess(sample, answer, seconds)
                    else:
                        attach_answer(sample, ballot.vote(answered, answer, seconds))
                    del queries[answered]
                    answered += 1
                written.clear()
                yield samples
                start, waited = time.perf_counter(), 0.0

    def answer(self, images: list[Tensor], prompts: Sequence[str],
               forms: Sequence | None = None, **options) -> list[Generated]:
        """Answers to one prompt a picture.

        Args:
            images: B uint8 tensors (3, H, W), RGB.
            prompts: B prompts.
            forms: the grammar of each answer, an ``AnswerAutomaton``, or ``None`` for free text;
                drafts and constraints need them.
            options: of :meth:`answer_stream`.
        """
        if {**self.generation, **options}.get('constrain') and forms is None:
            raise ValueError('constrain=True needs `forms`: the grammar of each answer')
        return list(self.answer_stream(_asked(images, prompts, forms), **options))

    def answer_stream(self, asked: Iterable[tuple], batch_size: int | None = None, **options
                      ) -> Iterator[Generated]:
        """Answers to what is asked, in order; each may come while later ones are being written.

        Args:
            asked: pictures (uint8, (3, H, W), RGB), prompts and grammars, as for :meth:`answer`.
            batch_size: answers that are written at a time; ``None``: all. Rows that have ended go
                on with what is asked next. No answer depends on it.
            options: override ``generation``; and ``on_tokens``, a function of (number of the
                answer, ids added to it) that is called while the answers are written.
        """
        options = {**self.generation, **options}
        guided, constrain = options.get('draft', True), options.get('constrain', False)
        take = self._taken(asked, guided or constrain, constrain)
        return self.mllm.writer.generate(take, batch_size, **options)

    def group_stream(self, asked: Iterable[tuple], more: Callable[[int, list[Generated]], int],
                     batch_size: int | None = None, on_tokens: Callable | None = None, **options
                     ) -> Iterator[list[Generated]]:
        """The greedy answer and those that :attr:`consensus` samples beside it to what is asked,
        in order. A prompt is read once.

        Args:
            asked, batch_size, options: as for :meth:`answer_stream`.
            more: called with the number of what is asked and its answers so far: how many further
                ones are written.
            on_tokens: as for :meth:`answer_stream`; told of the ids of the greedy answer, and of
                none while others are written. True ends all answers to what is asked.
        """
        size, options = self.consensus.group_size, {**self.generation, **options}
        seeds, ended = Seeds(self.consensus.seed, size), set()
        guided, constrain = options.get('draft', True), options.get('constrain', False)

        def seeded() -> Iterator[tuple]:
            for image, prompt, form in asked:
                seeds.add(image, prompt)
                yield image, prompt, form

        def told(row: int, token_ids: Sequence[int]) -> bool:
            number, place = divmod(row, size)
            if on_tokens(number, () if place else token_ids):
                ended.add(number)
            return number in ended

        def further(number: int, answers: list[Generated]) -> int:
            return 0 if number in ended else more(number, answers)

        take = self._taken(seeded(), guided or constrain, constrain)
        sampling = self.consensus.sampling(options['max_new_tokens'])
        return self.mllm.writer.generate_groups(
            take, size, seeds, sampling, further, batch_size,
            on_tokens=None if on_tokens is None else told, **options)

    def sample(self, images: list[Tensor], prompts: Sequence[str], group_size: int,
               seeds: Sequence[Sequence[int]], sampling: Sampling,
               forms: Sequence | None = None, **options) -> list[list[Generated]]:
        """``group_size`` sampled answers to one prompt a picture; see ``Writer.sample``.
        With ``forms``, as in :meth:`answer`, the same answers are written in fewer passes; with
        ``batch_size``, so many prompts at a time, as in :meth:`answer_stream`."""
        count = len(prompts) * group_size
        if len(seeds) != count:
            raise ValueError(f'{len(seeds)} seeds for {count} answers: give one an answer')
        take = self._taken(_asked(images, prompts, forms), True, False)
        answers = list(self.mllm.writer.sample(take, group_size, seeds, sampling, **options))
        return [answers[i:i + group_size] for i in range(0, count, group_size)]

    def _taken(self, asked: Iterable[tuple], guided: bool, constrain: bool) -> Take:
        """Encodes what is asked when it is taken."""
        asked = iter(asked)

        def take(count: int):
            chunk = list(islice(asked, count))
            if not chunk:
                return None
            images, prompts, forms = zip(*chunk)
            return self._prompted(list(images), prompts), self.mllm.writer.guides(
                forms if guided else [None] * len(chunk), constrain)
        return take

    def _prompted(self, images: list[Tensor], prompts: Sequence[str]) -> dict[str, Tensor]:
        return self.mllm.encoder.encode(images, [[(prompt, None)] for prompt in prompts],
                                for_generation=True)

    @staticmethod
    def postprocess(sample, answer: Generated, seconds: float) -> None:
        """Puts one answer into the sample, in place, read by its codec and for its task."""
        attach_answer(sample, read_answer(
            sample, answer.text, num_tokens=answer.num_tokens, finished=answer.finished,
            seconds=seconds, confidence=answer.confidence))

    # --- for people ---------------------------------------------------------------------------
    def describe_batch(self, inputs: list[Tensor], data_samples: Sequence) -> list[str]:
        """The batch as the model reads it: tokens that are trained on stand in ``⟦ ⟧``, runs of
        picture tokens are counted."""
        batch = self._encode(inputs, data_samples)
        return [self._describe(ids[mask.bool()].tolist(), labels[mask.bool()].tolist())
                for ids, labels, mask in zip(batch['input_ids'], batch['labels'],
                                             batch['attention_mask'])]

    def _describe(self, ids: list[int], labels: list[int]) -> str:
        text, i, family = '', 0, self.mllm.family
        while i < len(ids):
            end = i + 1
            while end < len(ids) and _same_run(ids, labels, i, end, family.image_token_id):
                end += 1
            if ids[i] == family.image_token_id:
                text += f'{family.image_token}x{end - i}'
            else:
                part = self.mllm.encoder.tokenizer.decode(ids[i:end])
                text += f'⟦{part}⟧' if labels[i] != IGNORE else part
            i = end
        return text


def _asked(images: Sequence[Tensor], prompts: Sequence[str], forms: Sequence | None) -> zip:
    return zip(images, prompts, forms or [None] * len(prompts), strict=True)


def _of_answers(batch: dict[str, Tensor]) -> Tensor:
    """(B, T - 1) bool of the tokens that belong to answers, from a row's second on."""
    return batch['labels'][:, 1:] != IGNORE


def answer_form(sample) -> AnswerAutomaton | None:
    """The grammar of a sample's answer, by the codec and the task that it names; ``None`` where
    the answer is free text or not known to be of one kind."""
    task = Task.find(sample.get('task'))
    if task is None or task.kind is None or 'codec' not in sample:
        return None
    return AnswerAutomaton.of(sample.codec.split('/')[0], task.kind)


def _same_run(ids: list[int], labels: list[int], first: int, other: int, image: int) -> bool:
    return ((ids[first] == image) == (ids[other] == image)
            and (labels[first] == IGNORE) == (labels[other] == IGNORE))
