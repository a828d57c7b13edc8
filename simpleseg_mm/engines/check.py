"""Holding an engine to the training forward: what differs, and which known fault explains it.

An engine answers greedily, and says what it has read and with which log-probabilities it wrote.
The training forward works out the log-probabilities of the same tokens. Where they differ, the
forward is run again as each known fault would have it (:mod:`.forwards`): the one whose numbers
are the engine's is named.
"""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from .forwards import RIGHT, Before, Case, Forwards, Hypothesis, Scores

#: mean difference of a token's log-probability, in nats, that is no fault, by the precision of
#: the weights; for 16 bits what others allow between an engine and a trainer (1.05 a token)
ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-3}
ALLOWED_16_BIT = 0.05
#: a token of an answer may lie so many tolerances below the likeliest one, or off the training's
_ONE_TOKEN = 30
#: where it is no fault that one rounds otherwise, as two libraries that resize pictures do
_ROUNDING = 0.02
#: of the tolerance: what differs more is looked into, and a known fault that explains it is named
_LOOKED_INTO = 0.1
#: a hypothesis explains what differs where it leaves no more than this share
_EXPLAINED = 0.2
#: a token's difference counts as no more than this
_MOST = 10.0

#: fault -> what it is, what to do
FAULTS: dict[str, tuple[str, str]] = {
    'no_picture': (
        'the engine does not see the picture',
        'send it as image data beside the text (image_url, or multi_modal_data), and allow it '
        '(limit_mm_per_prompt)'),
    'wrong_picture': (
        "the engine reads another request's picture",
        'give each picture an id of its own, or none (multi_modal_uuids); empty its cache of '
        'pictures (mm_processor_cache_gb=0), or update it'),
    'resize': (
        'the engine reads the picture in another size, or resizes it otherwise',
        "give it the training's limits: mm_processor_kwargs with the min_pixels and max_pixels of "
        'model.mllm, or the preprocessor_config.json of the exported folder'),
    'pixels': (
        "the engine reads other values of the picture's pixels",
        'send it as PNG in RGB, and serve the preprocessor_config.json of the exported folder'),
    'template': (
        "the prompt's tokens are not those of training",
        'serve the chat template of the exported folder (--chat-template '
        'FOLDER/chat_template.jinja, --chat-template-content-format), with the system prompt and '
        'the keywords of model.mllm, or send token ids'),
    'tokenizer': (
        'the engine has another tokenizer',
        'serve the folder that tools/model_converters/to_huggingface.py wrote, tokenizer '
        'included'),
    'mrope': (
        "positions of the picture's tokens are not M-RoPE's",
        'update the engine, or switch off the kernel or fusion that rotates by positions (vLLM: '
        'enforce_eager=True, another attention backend); do not train with it'),
    'stale_weights': (
        'the engine has weights from before',
        'hand the weights over again, and empty its caches of prefixes and pictures after it'),
    'precision': (
        'the engine computes in another precision',
        "start it with the dtype of model.mllm, without quantised weights or cache, or raise "
        '--tolerance where that is meant'),
    'banned_token': (
        'an answer holds a token that stands for a picture',
        'forbid it (logit_bias -100 for each id, or bad_words): a training forward cannot read it '
        'in an answer'),
    'end_tokens': (
        'answers do not end where they do in training',
        'give it the end tokens (stop_token_ids), without stop strings, min_tokens or ignore_eos: '
        'the generation_config.json of the exported folder has them'),
    'cut': (
        "answers are cut before the request's limit",
        'raise max_model_len (--max-model-len) above prompt and answer together'),
    'not_greedy': (
        'the engine does not write the likeliest token',
        'ask with temperature 0, and without penalties: --generation-config vllm, or the '
        'generation_config.json of the exported folder'),
    'not_numbers': (
        'log-probabilities are not finite',
        'weights or states overflow: take bfloat16 or float32 instead of float16'),
    'unexplained': (
        "the engine's log-probabilities are explained by no known fault",
        'compare its weights with the checkpoint (another checkpoint, quantised weights, a LoRA '
        'adapter that is not merged), and its version with the one that was tested'),
}


@dataclass(frozen=True)
class EngineFault:
    """What is wrong with an engine.

    Attributes:
        name: a key of :data:`FAULTS`.
        detail: what differs, where, and by how much.
    """
    name: str
    detail: str

    def __str__(self) -> str:
        what, remedy = FAULTS[self.name]
        return f'{self.name}: {what}: {self.detail}. To do: {remedy}'


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        faults: the first is the one to mend first.
        notes: what differs and is no fault.
        rows: one dict a request, see :meth:`table`.
        figures: mean and largest difference in nats, number of requests, of tokens, and so on.
        explanations: (fault, detail, mean difference that it leaves), the best first; empty where
            nothing had to be explained.
    """
    faults: list[EngineFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    explanations: list[tuple[str, str, float]] = field(default_factory=list)

    def to_dict(self) -> dict:
        """For JSON: ``fault`` is the first one's name, or None."""
        return dict(fault=self.faults[0].name if self.faults else None,
                    faults=[dict(name=fault.name, message=str(fault)) for fault in self.faults],
                    notes=self.notes, **self.figures,
                    explanations=[dict(fault=name, detail=detail, mean_difference=left)
                                  for name, detail, left in self.explanations])

    def table(self) -> str:
        """The rows for people: what each side reads, ours / the engine's, and what differs."""
        columns = ('request', 'prompt', 'picture', 'pixels', 'tokens', 'text', 'mean', 'largest')
        lines = [columns, *([str(row[name]) for name in columns] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                         for line in lines)


def compare(model, cases: Sequence[Case], ours: Sequence | None = None,
            before: Iterable[Before] = (), tolerance: float | None = None) -> Comparison:
    """An engine's answers beside the training forward's view of them.

    Args:
        model: the unwrapped SimpleSeg, with the weights that the engine should have.
        cases: requests and what the engine says of them.
        ours: the model's own greedy answers (``Generated``); None: not compared.
        before: weights that the engine may still have.
        tolerance: mean difference of a token's log-probability that is no fault, in nats;
            None: by the precision of the weights, see :data:`ALLOWED`.

    Raises:
        ValueError: there is nothing to compare, or the engine writes ids that the model has not.
    """
    forwards = Forwards(model)
    if not cases:
        raise ValueError('there are no requests to compare: give at least one')
    size = forwards.network.head_weight.shape[0]
    for case in cases:
        _check_ids(case, size)
    if tolerance is None:
        tolerance = ALLOWED.get(forwards.network.head_weight.dtype, ALLOWED_16_BIT)
    elif not tolerance > 0:
        raise ValueError(f'tolerance={tolerance}: above 0, in nats a token')
    found = Comparison()
    right = [forwards.score(case) for case in cases]
    trained = [forwards.training(case) for case in cases]
    if not sum(map(len, trained)):
        raise ValueError('the engine wrote nothing: all answers are empty. Look at its log, and '
                         'whether the server serves this model')
    right = [Scores(logp, scores.lost_N, scores.likeliest_N)
             for logp, scores in zip(trained, right)]
    apart = [_differences(case, scores) for case, scores in zip(cases, right)]
    for i, case in enumerate(cases):
        found.rows.append(_row(forwards, case, right[i], apart[i], None if ours is None
                               else ours[i]))
    found.figures = _figures(found.rows, cases, apart, tolerance)
    read = _prompt_faults(forwards, cases)
    beyond = [i for i, values in enumerate(apart) if _differs(values, tolerance)]
    differing = beyond or [i for i, values in enumerate(apart)
                           if _differs(values, tolerance * _LOOKED_INTO)]
    numbers = _not_numbers(cases)
    base, explained = RIGHT, True
    if numbers:
        found.faults.append(numbers)
    elif differing:
        base, explained = _explain(forwards, cases, differing, apart, right, before, tolerance,
                                   bool(beyond), read, found)
    else:
        found.faults += read
    found.faults += _answer_faults(forwards, cases)
    if explained and not read and not numbers:
        greedy = _greedy_fault(forwards, cases, right, base, differing, tolerance)
        if greedy and greedy.name not in {fault.name for fault in found.faults}:
            found.faults.append(greedy)
    return found


# --- what is read -------------------------------------------------------------------------------
def _prompt_faults(forwards: Forwards, cases: Sequence[Case]) -> list[EngineFault]:
    """What of the prompts differs: each kind once, with the first request where it does."""
    found: dict[str, tuple[int, str]] = {}
    prompts = [forwards.prompt(case.image, case.prompt)[0] for case in cases]
    more = {case.observed.prompt_tokens - len(ids) for case, ids in zip(cases, prompts)
            if case.observed.prompt_tokens is not None}
    counts = {ids.count(forwards.image_id) for ids in prompts}
    always = len(more) == 1 and len(counts) > 1  # whatever the picture: so it is not the picture
    for case, ids in zip(cases, prompts):
        faults = (_by_ids(forwards, case, ids) if case.observed.prompt_ids is not None
                  else _by_number(forwards, case, ids, always))
        for name, detail in faults:
            number, first = found.get(name, (0, f'{case.name}: {detail}'))
            found[name] = number + 1, first
    return [EngineFault(name, f'{detail} ({number} of {len(cases)} requests)')
            for name, (number, detail) in found.items()]


def _by_ids(forwards: Forwards, case: Case, ids: list[int]):
    read, image = list(case.observed.prompt_ids), forwards.image_id
    ours, theirs = ids.count(image), read.count(image)
    before, picture, rest = forwards.around(ids)
    wanted = [_runs(ids, image)]
    if ours and not theirs:
        yield 'no_picture', (f"the prompt has none of the picture's {ours} tokens")
        marks = [token for token in picture if token != image]
        wanted = [before + marks + rest, before + rest]
    elif ours != theirs and _pictures(read, image) == _pictures(ids, image):
        yield 'resize', _sizes(forwards, case, ours, theirs)
    told = _runs(read, image)
    if told not in wanted:
        yield 'template', _first_difference(forwards, wanted[0], told)


def _by_number(forwards: Forwards, case: Case, ids: list[int], always: bool):
    total, alone = case.observed.prompt_tokens, case.observed.text_tokens
    ours = ids.count(forwards.image_id)
    before, picture, rest = forwards.around(ids)
    without = {len(before) + len(rest), len(ids) - ours}
    if alone is not None and alone not in without:
        yield 'template', (f'without its picture the prompt has {alone} tokens, in training '
                           f'{len(ids) - ours}')
        return
    if total is None or total == len(ids):
        return
    if ours and total in ({alone} if alone is not None else without):
        yield 'no_picture', (f'the prompt has {total} tokens, as many as without the picture; in '
                             f'training {len(ids)}')
    elif not always and _is_grid(ours + total - len(ids), case.image):
        yield 'resize', _sizes(forwards, case, ours, ours + total - len(ids))
    else:
        yield 'template', (f'the prompt has {total} tokens, in training {len(ids)}, of which '
                           f'{ours} are the picture\'s')


def _runs(ids: Sequence[int], image: int) -> list[int]:
    """Ids with a picture as one."""
    return [token for is_image, group in groupby(ids, lambda i: i == image)
            for token in ([image] if is_image else group)]


def _pictures(ids: Sequence[int], image: int) -> int:
    return _runs(ids, image).count(image)


def _is_grid(count: int, image: Tensor) -> bool:
    """Whether a picture of this shape might be read in so many tokens."""
    height, width = image.shape[1:]
    return any(count % rows == 0 and 0.5 < (count // rows / rows) * height / width < 2
               for rows in range(1, max(count, 0) + 1))


def _sizes(forwards: Forwards, case: Case, ours: int, theirs: int) -> str:
    height, width = case.image.shape[1:]
    size = forwards.picture_size(forwards.prompt(case.image, case.prompt)[1])
    as_read = f' ({size[0]} x {size[1]} pixels)' if size else ''
    return (f'a picture of {width} x {height} pixels is read in {theirs} tokens, in training in '
            f'{ours}{as_read}')


def _first_difference(forwards: Forwards, ours: list[int], theirs: list[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
              min(len(ours), len(theirs)))
    known = forwards.network.head_weight.shape[0]
    texts = [forwards.encoder.text_of([i for i in ids[max(at - 3, 0):at + 5] if i < known])
             for ids in (theirs, ours)]
    spelt = [forwards.encoder.text_of([i for i in ids if i < known]) for ids in (theirs, ours)]
    same = ' (the same text in other tokens: another tokenizer)' if spelt[0] == spelt[1] else ''
    return f'from token {at} on it reads {texts[0]!r}, training {texts[1]!r}{same}'


# --- numbers ------------------------------------------------------------------------------------
def _check_ids(case: Case, size: int) -> None:
    answer = case.observed.answer
    for token in (*answer.token_ids, *(case.observed.prompt_ids or ())):
        if not 0 <= token < size:
            raise ValueError(f'{case.name}: the engine has token {token}, and the vocabulary here '
                             f'{size:,} tokens: it serves another model, or another tokenizer; '
                             'name the right one (--model), or serve the exported folder')
    if len(answer.token_logps) > len(answer.token_ids):
        raise ValueError(f'{case.name}: {len(answer.token_logps)} log-probabilities for '
                         f'{len(answer.token_ids)} tokens: they cannot be compared')


def _differences(case: Case, scores: Scores) -> Tensor:
    """(N,) nats: how far a forward's log-probabilities are from the engine's; where it tells
    none, how far each token is from the likeliest, which a greedy engine writes."""
    if not case.told_logps:
        return scores.lost_N.clamp(max=_MOST)
    count = min(len(case.observed.answer.token_logps), len(scores.logp_N))
    told_N = torch.tensor(case.observed.answer.token_logps[:count], dtype=torch.float64)
    return (told_N - scores.logp_N[:count]).abs().nan_to_num(_MOST, _MOST).clamp(max=_MOST)


def _differs(values_N: Tensor, tolerance: float) -> bool:
    return len(values_N) > 0 and (values_N.mean().item() > tolerance
                                  or values_N.max().item() > _ONE_TOKEN * tolerance)


def _mean(parts: Sequence[Tensor]) -> float:
    values = torch.cat(list(parts)) if parts else torch.zeros(0)
    return values.mean().item() if len(values) else 0.0


def _not_numbers(cases: Sequence[Case]) -> EngineFault | None:
    for case in cases:
        for at, value in enumerate(case.observed.answer.token_logps):
            if not math.isfinite(value):
                return EngineFault('not_numbers',
                                   f'{case.name}: {value} for token {at} of the answer')
    return None


def _explain(forwards: Forwards, cases: Sequence[Case], differing: list[int],
             apart: Sequence[Tensor], right: Sequence[Scores], before, tolerance: float,
             beyond: bool, read: list[EngineFault], found: Comparison
             ) -> tuple[Hypothesis, bool]:
    """Names the fault that explains the differences; the hypothesis, and whether it does."""
    was = _mean([apart[i] for i in differing])

    def left_by(hypothesis: Hypothesis) -> float | None:
        values = []
        for i in differing:
            scores = forwards.score(cases[i], hypothesis)
            values.append(apart[i] if scores is None else _differences(cases[i], scores))
        return _mean(values)

    trials = []
    as_read = Hypothesis('', 'as the engine reads the prompt', prompt=_as_read)
    if read and all(cases[i].observed.prompt_ids is not None for i in differing):
        trials.append((as_read, left_by(as_read)))
    names = {fault.name for fault in read}
    if names and any(cases[i].observed.prompt_ids is None for i in differing):
        names |= {'no_picture', 'resize', 'template'}  # a length alone does not tell them apart
    if 'resize' in names:
        names.add('wrong_picture')  # of another size
    if not (trials and trials[0][1] <= tolerance * _LOOKED_INTO):
        trials += [(hypothesis, left_by(hypothesis))
                   for hypothesis in forwards.hypotheses(cases, before)
                   if not names or hypothesis.fault in names]
    trials.sort(key=lambda trial: trial[1])
    found.explanations = [(h.fault, h.detail, left) for h, left in trials[:8]]
    best, left = trials[0] if trials else (RIGHT, was)
    agrees = left <= (max(tolerance, was * _EXPLAINED) if beyond else was * _EXPLAINED)
    after = (f'; so read, the log-probabilities agree to {left:.2g} nats a token, else they '
             f'differ by {was:.2g}')
    if read and agrees and best.fault and best.fault not in {fault.name for fault in read}:
        read = [EngineFault(best.fault, read[0].detail)]
    if read:
        for fault in read:
            explains = agrees and (best.fault in ('', fault.name))
            detail = f', {best.detail}' if explains and best.fault else ''
            found.faults.append(EngineFault(
                fault.name, fault.detail + detail + (after if explains else '')))
        if not agrees:
            found.notes.append('what the engine reads does not explain by itself how far the '
                               f'log-probabilities differ ({was:.2g} nats a token): mend it and '
                               'check again')
        return best, agrees
    if best.harmless and left <= was / 2 and was <= _ROUNDING:
        found.notes.append(f'pictures are resized by {best.detail}: {was:.2g} nats a token, of '
                           f'which {left:.2g} remain. That is no fault')
        return best, True
    if agrees and (beyond or best.fault != 'precision' and not best.harmless):
        found.faults.append(EngineFault(
            best.fault, f'{best.detail}{after} ({len(differing)} of {len(cases)} requests)'))
        return best, True
    if not beyond:
        return RIGHT, True
    narrow = _precision(forwards, cases, differing, right, was)
    if narrow is not None:
        found.faults.append(narrow)
        return RIGHT, False
    what = ('they differ by' if any(cases[i].told_logps for i in differing) else
            'it tells none, and its answers are off the likeliest tokens by')
    found.faults.append(EngineFault(
        'unexplained', f'{what} {was:.2g} nats a token in {len(differing)} of {len(cases)} '
        f'requests, first at {_first_place(forwards, cases, differing, apart, tolerance)}; '
        f'nearest is {best.detail!r}, which leaves {left:.2g}'))
    return RIGHT, False


def _as_read(case: Case, _: list[int]) -> tuple[int, ...] | None:
    return case.observed.prompt_ids


def _precision(forwards: Forwards, cases: Sequence[Case], differing: list[int],
               right: Sequence[Scores], was: float) -> EngineFault | None:
    """Where the differences are as small as those of a narrower precision, that is named."""
    for hypothesis in forwards.hypotheses(cases):
        if hypothesis.fault != 'precision':
            continue
        changed = []
        for i in differing:
            scores = forwards.score(cases[i], hypothesis)
            if scores is not None:
                changed.append((scores.logp_N - right[i].logp_N).abs().clamp(max=_MOST))
        if changed and was <= 4 * _mean(changed):
            return EngineFault(
                'precision', f'the log-probabilities differ by {was:.2g} nats a token and without '
                f'pattern; {hypothesis.detail} makes {_mean(changed):.2g} '
                f'({len(differing)} of {len(cases)} requests)')
    return None


def _first_place(forwards: Forwards, cases: Sequence[Case], differing: list[int],
                 apart: Sequence[Tensor], tolerance: float) -> str:
    i = differing[0]
    at = int((apart[i] > tolerance).int().argmax())
    text = forwards.encoder.text_of(cases[i].observed.answer.token_ids[at:at + 1])
    return f'token {at} ({text!r}) of {cases[i].name}'


# --- answers ------------------------------------------------------------------------------------
def _answer_faults(forwards: Forwards, cases: Sequence[Case]) -> list[EngineFault]:
    """What the answers hold that must not be there; each kind once."""
    found: dict[str, tuple[int, str]] = {}
    stops = set(forwards.network.writer.stop_tokens)
    for case in cases:
        for name, detail in _of_answer(forwards, case, stops):
            number, first = found.get(name, (0, f'{case.name}: {detail}'))
            found[name] = number + 1, first
    return [EngineFault(name, f'{detail} ({number} of {len(cases)} requests)')
            for name, (number, detail) in found.items()]


def _of_answer(forwards: Forwards, case: Case, stops: set[int]):
    answer, limit = case.observed.answer, case.observed.limit
    ids = answer.token_ids

    def named(token: int) -> str:
        return f'{forwards.encoder.text_of([token])!r} (id {token})'

    at = next((i for i, token in enumerate(ids) if token in forwards.banned), None)
    if at is not None:
        yield 'banned_token', f'token {at} of the answer is {named(ids[at])}'
    ends = [i for i, token in enumerate(ids) if token in stops]
    if ends and ends[0] < len(ids) - 1:
        yield 'end_tokens', (f'the answer goes on after {named(ids[ends[0]])}, token {ends[0]} of '
                             f'{len(ids)}')
    elif answer.finished and ids and not ends:
        yield 'end_tokens', f'the answer ends with {named(ids[-1])}, which is no end token'
    if not answer.finished and not ends and limit is not None and len(ids) < limit:
        yield 'cut', f'it has {len(ids)} tokens, and {limit} were allowed'
    skipped = forwards.encoder.tokenizer.decode(
        ids[:ends[0]] if ends else ids, skip_special_tokens=True,
        clean_up_tokenization_spaces=False)
    if ids and at is None and skipped.strip() != _plain(forwards, answer.text):
        yield 'tokenizer', (f'it writes {answer.text[:60]!r}, and its tokens spell '
                            f'{skipped[:60]!r} here')


def _plain(forwards: Forwards, text: str) -> str:
    for token in forwards.encoder.tokenizer.all_special_tokens:
        text = text.replace(token, '')
    return text.strip()


def _greedy_fault(forwards: Forwards, cases: Sequence[Case], right: Sequence[Scores],
                  base: Hypothesis, differing: Sequence[int], tolerance: float
                  ) -> EngineFault | None:
    """Where a token was written although another is likelier, by the forward that explains the
    engine's numbers."""
    worst, where, number = 0.0, None, 0
    for i, case in enumerate(cases):
        scores = (forwards.score(case, base) or right[i]) if i in differing else right[i]
        if len(scores.lost_N) and (most := scores.lost_N.max().item()) > 10 * tolerance:
            number += 1
            if most > worst:
                worst, where = most, (case, int(scores.lost_N.argmax()),
                                      int(scores.likeliest_N[scores.lost_N.argmax()]))
    if where is None:
        return None
    case, at, likelier = where
    ids = case.observed.answer.token_ids
    ends = case.observed.answer.finished and at == len(ids) - 1
    texts = [forwards.encoder.text_of([token]) for token in (ids[at], likelier)]
    return EngineFault(
        'end_tokens' if ends else 'not_greedy',
        f'{case.name}: token {at} of the answer is {texts[0]!r}, and {texts[1]!r} is likelier by '
        f'{worst:.2g} nats ({number} of {len(cases)} requests)')


# --- figures ------------------------------------------------------------------------------------
def _row(forwards: Forwards, case: Case, scores: Scores, values_N: Tensor, ours) -> dict:
    ids, pictures = forwards.prompt(case.image, case.prompt)
    seen, size = case.observed, forwards.picture_size(pictures)
    total = seen.prompt_tokens if seen.prompt_ids is None else len(seen.prompt_ids)
    at = int(values_N.argmax()) if len(values_N) else 0
    text = (forwards.encoder.text_of(seen.answer.token_ids[at:at + 1]) if len(values_N) else '')
    return dict(
        request=case.name, prompt=f'{len(ids)} / {_or(total)}',
        picture=f'{ids.count(forwards.image_id)} / {_or(forwards.picture_tokens(case))}',
        pixels='?' if size is None else f'{size[0]} x {size[1]}', tokens=len(values_N),
        text='' if ours is None else 'same' if ours.text == seen.answer.text else 'other',
        mean=f'{_mean([values_N]):.1e}',
        largest=f'{values_N.max().item() if len(values_N) else 0:.1e} at {at} {text!r}')


def _or(number: int | None) -> str:
    return '?' if number is None else str(number)


def _figures(rows: Sequence[dict], cases: Sequence[Case], apart: Sequence[Tensor],
             tolerance: float) -> dict:
    texts = [row['text'] for row in rows if row['text']]
    values = torch.cat(list(apart))
    return dict(
        requests=len(cases), tokens=len(values),
        mean_difference=values.mean().item(), largest_difference=values.max().item(),
        tolerance=tolerance, logps_told=sum(case.told_logps for case in cases),
        texts_equal=texts.count('same') / len(texts) if texts else None)
