"""What an engine's log-probabilities would be under a known fault: forwards of our own network.

Shapes: T tokens of a row, N of its answer, V of the vocabulary, D features.
"""
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..models.encoder import Encoder
from .observed import Observed

#: tokens of an answer whose logits are held at a time
_CHUNK = 256
#: what Qwen's own template says where no system prompt is given
_SYSTEM = 'You are a helpful assistant.'
#: weights of another time: what they are, and how they are read, name -> tensor
Before = tuple[str, Callable[[], Mapping[str, Tensor]]]
_FILTERS = dict(nearest=0, lanczos=1, bilinear=2, bicubic=3, box=4, hamming=5)


@dataclass(frozen=True, eq=False)
class Case:
    """A request that an engine has answered.

    Attributes:
        name: for people.
        image: uint8 (3, H, W), RGB.
        prompt: text of the question.
        observed: what the engine says.
    """
    name: str
    image: Tensor
    prompt: str
    observed: Observed

    @property
    def told_logps(self) -> bool:
        return bool(self.observed.answer.token_logps)


@dataclass(frozen=True)
class Scores:
    """An answer under a forward, in nats.

    Attributes:
        logp_N: log-probability of each token, float64.
        lost_N: how much likelier the likeliest token is that may be written, float64; 0 where it
            was written.
        likeliest_N: its id.
    """
    logp_N: Tensor
    lost_N: Tensor
    likeliest_N: Tensor


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What an engine might do otherwise. What is not given is done as in training.

    Attributes:
        fault: its name.
        detail: what in particular.
        picture: case -> the picture that is read instead; None: the hypothesis says nothing
            about this case.
        prompt: (case, ids of the prompt) -> what is read instead, or None as above.
        positions: (positions (R, T), tokens of the prompt) -> those that are taken instead.
        blind: pictures' features are not put where their tokens stand.
        setting: what holds while the forward runs.
        harmless: another rounding, no fault.
    """
    fault: str
    detail: str
    picture: Callable[[Case], Tensor | None] | None = None
    prompt: Callable[[Case, list[int]], Sequence[int] | None] | None = None
    positions: Callable[[Tensor, int], Tensor] | None = None
    blind: bool = False
    setting: Callable[[], AbstractContextManager] = nullcontext
    harmless: bool = False


RIGHT = Hypothesis('', 'as in training')


class Forwards:
    """Log-probabilities of engines' answers by a SimpleSeg model, rightly and under hypotheses.

    Args:
        model: the unwrapped SimpleSeg.
    """

    def __init__(self, model) -> None:
        self.model, self.network = model, model.mllm
        self.encoder, self.family = model.mllm.encoder, model.mllm.family
        self.image_id = self.family.image_token_id
        self.banned = set(model.mllm.writer.banned_tokens)

    # --- what stands in a row -----------------------------------------------------------------
    def written(self, case: Case) -> list[int]:
        """An answer's ids up to the first that the network cannot read in an answer."""
        ids = list(case.observed.answer.token_ids)
        return ids[:next((i for i, token in enumerate(ids) if token in self.banned), len(ids))]

    def prompt(self, image: Tensor, prompt: str) -> tuple[list[int], dict[str, Tensor]]:
        """Ids of a prompt, and the network's inputs of its picture."""
        batch = self.encoder.encode([image], [[(prompt, None)]], for_generation=True)
        ids = batch.pop('input_ids')[0].tolist()
        return ids, {key: value for key, value in batch.items()
                     if key not in ('attention_mask', self.family.token_types)}

    def picture_size(self, pictures: Mapping[str, Tensor]) -> tuple[int, int] | None:
        """(width, height) in pixels that the network reads; None where its inputs do not tell."""
        grid, patch = pictures.get('image_grid_thw'), getattr(
            self.family.image_processor, 'patch_size', None)
        if grid is None or not isinstance(patch, int):
            return None
        _, rows, columns = grid[0].tolist()
        return columns * patch, rows * patch

    @cached_property
    def marks(self) -> tuple[list[int], list[int]]:
        """Ids that stand before and behind a picture's."""
        ids = self.encoder.tokenizer.encode(self.family.image_markup, add_special_tokens=False)
        at = ids.index(self.image_id) if self.image_id in ids else 0
        return ids[:at], ids[at + 1:]

    def around(self, ids: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """A prompt in three: before the picture with its marks, these, and what follows."""
        ids = list(ids)
        if self.image_id not in ids:
            return ids, [], []
        first = ids.index(self.image_id)
        last = len(ids) - ids[::-1].index(self.image_id)
        before, behind = self.marks
        if before and ids[max(first - len(before), 0):first] == before:
            first -= len(before)
        if behind and ids[last:last + len(behind)] == behind:
            last += len(behind)
        return ids[:first], ids[first:last], ids[last:]

    # --- forwards -----------------------------------------------------------------------------
    @torch.no_grad()
    def training(self, case: Case) -> Tensor:
        """``SimpleSeg.log_probs`` of an answer (N,), float64."""
        ids = self.written(case)
        if not ids:
            return torch.zeros(0, dtype=torch.float64)
        with self.network.writer.generating():
            logp, _, mask = self.model.log_probs([case.image], [[(case.prompt, ids)]])
        return logp[mask].double().cpu()

    @torch.no_grad()
    def score(self, case: Case, hypothesis: Hypothesis = RIGHT) -> Scores | None:
        """An answer under a hypothesis; None where it says nothing about this case, or the
        network cannot run so."""
        try:
            return self._score(case, hypothesis)
        except (RuntimeError, ValueError, TypeError, LookupError):
            if hypothesis is RIGHT:
                raise
            return None  # as a network does that tells pictures' tokens from features

    def _score(self, case: Case, hypothesis: Hypothesis) -> Scores | None:
        answer = self.written(case)
        image = case.image if hypothesis.picture is None else hypothesis.picture(case)
        if image is None:
            return None
        with hypothesis.setting(), self.network.writer.generating():
            ids, pictures = self.prompt(image, case.prompt)
            if hypothesis.prompt is not None:
                ids = hypothesis.prompt(case, ids)
            told = case.observed.prompt_ids
            if ids is None or (hypothesis.fault == 'resize' and told is not None
                               and list(ids).count(self.image_id) != told.count(self.image_id)):
                return None
            return self._scores(self._hidden(list(ids), answer, pictures, hypothesis), answer)

    def _hidden(self, prompt: list[int], answer: list[int], pictures: dict[str, Tensor],
                hypothesis: Hypothesis) -> Tensor:
        """States (N, D) that an answer's tokens follow from."""
        ids_BT = torch.tensor([prompt + answer])
        batch = dict(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
        if self.family.token_types:
            batch[self.family.token_types] = (ids_BT == self.image_id).long()
        seen = pictures if self.image_id in prompt else {}
        batch = self.network.to_device({**batch, **seen})
        positions = self.network.positions(batch)
        if hypothesis.positions is not None:
            rows_RT = hypothesis.positions(positions.flatten(0, -2), len(prompt))
            positions = rows_RT.reshape(positions.shape)
        if hypothesis.blind:
            batch = {key: value for key, value in batch.items() if key not in pictures}
        output = self.network.run(batch, use_cache=False, position_ids=positions)
        return output.last_hidden_state[0, len(prompt) - 1:ids_BT.shape[1] - 1]

    def _scores(self, hidden_ND: Tensor, answer: list[int]) -> Scores:
        weight_VD = self.network.head_weight.float()
        banned = torch.tensor(sorted(self.banned), dtype=torch.long, device=weight_VD.device)
        target_N = torch.tensor(answer, dtype=torch.long, device=weight_VD.device)
        logps, lost, likeliest = [], [], []
        for hidden, target in zip(hidden_ND.split(_CHUNK), target_N.split(_CHUNK)):
            logits = hidden.float() @ weight_VD.T
            total = logits.logsumexp(-1)
            chosen = logits.gather(1, target[:, None]).squeeze(1)
            best, at = logits.index_fill_(1, banned, -torch.inf).max(-1)
            logps.append((chosen - total).double().cpu())
            lost.append((best - chosen).double().cpu().clamp(min=0))
            likeliest.append(at.cpu())
        empty = torch.zeros(0, dtype=torch.float64)
        return Scores(torch.cat([empty, *logps]), torch.cat([empty, *lost]),
                      torch.cat([empty.long(), *likeliest]))

    # --- hypotheses ---------------------------------------------------------------------------
    def hypotheses(self, cases: Sequence[Case],
                   before: Iterable[Before] = ()) -> Iterator[Hypothesis]:
        """Every known fault.

        Args:
            cases: all that are compared: one might have got another's picture.
            before: weights that an engine may still have.
        """
        yield from self._of_positions()
        yield from self._of_blindness()
        yield from self._of_other_pictures(cases)
        yield from self._of_resizing(cases)
        yield from self._of_pixels()
        yield from self._of_templates()
        yield from self._of_weights(before)
        yield from self._of_precision()

    def _of_positions(self) -> Iterator[Hypothesis]:
        if not hasattr(self.network.hf.model, 'get_rope_index'):
            return
        say = partial(Hypothesis, 'mrope')
        yield say('tokens are counted in one dimension, pictures\' as text', positions=_counted)
        for row, name in enumerate(('time', 'height', 'width')):
            yield say(f'the row of {name} stands for all three',
                      positions=partial(_one_row, row=row))
        yield say('the rows of height and width are exchanged',
                  positions=lambda rows_RT, _: rows_RT[[0, 2, 1]])
        yield say('positions of the answer are counted on from the number of tokens',
                  positions=_counted_answer)

    def _of_blindness(self) -> Iterator[Hypothesis]:
        say = partial(Hypothesis, 'no_picture')
        yield say("the prompt has none of the picture's tokens", prompt=lambda _, ids: [
            token for token in ids if token != self.image_id])
        if any(self.marks):
            yield say('the prompt has neither its tokens nor the marks around them',
                      prompt=lambda _, ids: [*self.around(ids)[0], *self.around(ids)[2]])
        yield say("the prompt has the picture's tokens, but its features are not put there",
                  blind=True)
        for name, value in (('black', 0), ('white', 255), ('grey', 127)):
            yield say(f'a {name} picture is read',
                      picture=lambda case, value=value: torch.full_like(case.image, value))

    def _of_other_pictures(self, cases: Sequence[Case]) -> Iterator[Hypothesis]:
        places = {id(case): i for i, case in enumerate(cases)}
        say = partial(Hypothesis, 'wrong_picture')
        if len(cases) < 2:
            return
        yield say('the first request\'s picture is read for every request',
                  picture=lambda case: None if places[id(case)] == 0 else cases[0].image)
        for step, name in ((-1, 'before'), (1, 'after')):
            yield say(f'the picture of the request {name} it is read',
                      picture=lambda case, step=step: cases[
                          (places[id(case)] + step) % len(cases)].image)

    def _of_resizing(self, cases: Sequence[Case]) -> Iterator[Hypothesis]:
        say = partial(Hypothesis, 'resize')
        processor = self.family.image_processor
        yield say('torchvision\'s bicubic, which rounds otherwise than Pillow\'s', harmless=True,
                  picture=partial(self._resized, mode='bicubic', antialias=True))
        for mode in ('bicubic', 'bilinear'):
            yield say(f'{mode} without antialiasing',
                      picture=partial(self._resized, mode=mode, antialias=False))
        own = getattr(processor, 'resample', None)
        for name, number in _FILTERS.items() if own is not None else ():
            if number != int(own):
                yield say(f'by the filter {name} instead of {Image.Resampling(int(own)).name}',
                          setting=partial(_holding, processor, resample=number))
        for size in self._other_limits(cases):
            yield say(f'between {size["shortest_edge"]:,} and {size["longest_edge"]:,} pixels',
                      setting=partial(_holding, processor, size=size))

    def _other_limits(self, cases: Sequence[Case]) -> Iterator[dict[str, int]]:
        """Bounds of a picture's area that an engine may have instead."""
        processor = self.family.image_processor
        own = getattr(processor, 'size', None)
        try:
            low, high = own['shortest_edge'], own['longest_edge']
        except (KeyError, TypeError):
            return
        if not low or not high or not hasattr(processor, 'merge_size'):
            return
        listed = dict(type(processor).size) if isinstance(
            getattr(type(processor), 'size', None), Mapping) else {}
        pairs = [(low, 16 * high), (1, high), (1, 16 * high)]
        if {'shortest_edge', 'longest_edge'} <= set(listed):
            pairs.append((listed['shortest_edge'], listed['longest_edge']))
        unit = (processor.patch_size * processor.merge_size) ** 2
        for count in sorted({n for case in cases if (n := self.picture_tokens(case))}):
            pairs += [(1, count * unit), (count * unit, 16 * high)]
        for pair in dict.fromkeys(pairs):
            if pair != (low, high):
                yield dict(shortest_edge=pair[0], longest_edge=pair[1])

    def picture_tokens(self, case: Case) -> int | None:
        """Tokens that the engine reads a picture in, where it tells the prompt's ids or their
        number and nothing else differs."""
        seen = case.observed
        if seen.prompt_ids is not None:
            return seen.prompt_ids.count(self.image_id)
        if seen.prompt_tokens is None:
            return None
        ids, _ = self.prompt(case.image, case.prompt)
        count = ids.count(self.image_id) + seen.prompt_tokens - len(ids)
        return count if count > 0 else None

    def _resized(self, case: Case, mode: str, antialias: bool) -> Tensor | None:
        """A picture as torch resizes it to the size that the network reads."""
        _, pictures = self.prompt(case.image, case.prompt)
        size = self.picture_size(pictures)
        if size is None or size == (case.image.shape[2], case.image.shape[1]):
            return None
        values = F.interpolate(case.image[None].float(), size[::-1], mode=mode,
                               antialias=antialias, align_corners=False)[0]
        return values.round().clamp(0, 255).to(torch.uint8)

    def _of_pixels(self) -> Iterator[Hypothesis]:
        say, processor = partial(Hypothesis, 'pixels'), self.family.image_processor
        yield say('red and blue are exchanged', picture=lambda case: case.image.flip(0))
        for quality in (95, 75):
            yield say(f'the picture was written as JPEG of quality {quality}',
                      picture=partial(_as_jpeg, quality=quality))
        if getattr(processor, 'image_mean', None) is not None:
            half = [0.5] * 3
            yield say('it is normalised by a mean and deviation of 0.5', setting=partial(
                _holding, processor, image_mean=half, image_std=half))
            yield say('it is not normalised', setting=partial(
                _holding, processor, do_normalize=False))

    def _of_templates(self) -> Iterator[Hypothesis]:
        say = partial(Hypothesis, 'template')
        yield say('the picture stands behind the question', prompt=self._picture_behind)
        yield say('a line break stands between picture and question', prompt=self._with_break)
        yield say('the words that open an answer are left out', prompt=self._not_opened)
        bos = self.encoder.tokenizer.bos_token_id
        if bos is not None:
            yield say('a token that begins texts stands before it',
                      prompt=lambda _, ids: [bos, *ids])
        for name, system in ((f'the system prompt is {_SYSTEM!r}', _SYSTEM),
                             ("the system prompt is the template's own", None),
                             ('the system prompt is empty', '')):
            try:
                other = Encoder(self.family, self.family.folder, system,
                                self.encoder.chat_template_kwargs)
            except ValueError:
                continue
            if other.frame != self.encoder.frame:
                yield say(name, prompt=partial(_by, other))

    def _picture_behind(self, case: Case, ids: list[int]) -> list[int] | None:
        head, picture, rest = self.around(ids)
        asked = self.encoder.ids_of_text(case.prompt)
        if not picture or not asked or rest[:len(asked)] != asked:
            return None
        return [*head, *asked, *picture, *rest[len(asked):]]

    def _with_break(self, case: Case, ids: list[int]) -> list[int]:
        head, picture, rest = self.around(ids)
        return [*head, *picture, *self.encoder.ids_of_text('\n'), *rest]

    def _not_opened(self, case: Case, ids: list[int]) -> list[int] | None:
        frame = self.encoder.frame
        opening, end, close = (self.encoder.tokenizer.encode(text, add_special_tokens=False)
                               for text in (frame.opening, frame.end, frame.close))
        if not end or end[0] not in opening or ids[-len(opening):] != opening:
            return None
        kept = opening.index(end[0]) + 1  # the end of the question's turn is no such word
        kept += len(close) if opening[kept:kept + len(close)] == close else 0
        return ids[:len(ids) - len(opening) + kept]

    def _of_weights(self, before: Iterable[Before]) -> Iterator[Hypothesis]:
        say = partial(Hypothesis, 'stale_weights')
        for name, read in before:
            yield say(name, setting=partial(weights_of, self.model, read))
        adapters = [module for module in self.network.hf.modules()
                    if hasattr(module, 'enable_adapters') and hasattr(module, 'get_base_layer')]
        if adapters:
            yield say('the weights without the LoRA adapters',
                      setting=partial(_without_adapters, adapters))

    def _of_precision(self) -> Iterator[Hypothesis]:
        own = next(self.network.hf.parameters()).dtype
        for dtype in (torch.bfloat16, torch.float16):
            if dtype != own:
                yield Hypothesis(
                    'precision', f'{_named(dtype)} instead of {_named(own)}',
                    setting=partial(_in_dtype, self.network.hf, dtype))


# --- positions ----------------------------------------------------------------------------------
def _counted(rows_RT: Tensor, _: int) -> Tensor:
    return torch.arange(rows_RT.shape[1], device=rows_RT.device).expand_as(rows_RT)


def _one_row(rows_RT: Tensor, _: int, row: int) -> Tensor:
    return rows_RT[row].expand_as(rows_RT)


def _counted_answer(rows_RT: Tensor, prompt: int) -> Tensor:
    counted_RT = _counted(rows_RT, prompt)
    return torch.cat([rows_RT[:, :prompt], counted_RT[:, prompt:]], 1)


# --- pictures -----------------------------------------------------------------------------------
def _as_jpeg(case: Case, quality: int) -> Tensor:
    file = BytesIO()
    Image.fromarray(case.image.permute(1, 2, 0).cpu().numpy()).save(file, 'JPEG', quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def _by(encoder: Encoder, case: Case, _: list[int]) -> list[int]:
    batch = encoder.encode([case.image], [[(case.prompt, None)]], for_generation=True)
    return batch['input_ids'][0].tolist()


# --- what holds while a forward runs ------------------------------------------------------------
@contextmanager
def _holding(thing, **values) -> Iterator[None]:
    """Other attributes."""
    own = {name: getattr(thing, name) for name in values}
    try:
        for name, value in values.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(thing, name, value)


@contextmanager
def weights_of(model, read: Callable[[], Mapping[str, Tensor]]) -> Iterator[None]:
    """Other weights where what is read names them; the own ones are back after it."""
    own, state = model.state_dict(keep_vars=True), read()
    kept = []
    try:
        for name, value in state.items():
            if name in own and own[name].shape == value.shape:
                kept.append((own[name], own[name].data))
                own[name].data = value.to(own[name])
        yield
    finally:
        for tensor, value in reversed(kept):  # a tied one has two names
            tensor.data = value


@contextmanager
def _without_adapters(adapters: Sequence) -> Iterator[None]:
    try:
        for module in adapters:
            module.enable_adapters(False)
        yield
    finally:
        for module in adapters:
            module.enable_adapters(True)


@contextmanager
def _in_dtype(network, dtype: torch.dtype) -> Iterator[None]:
    kept = [(parameter, parameter.data) for parameter in network.parameters()
            if parameter.is_floating_point()]
    try:
        for parameter, value in kept:
            parameter.data = value.to(dtype)
        yield
    finally:
        for parameter, value in kept:
            parameter.data = value


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')
