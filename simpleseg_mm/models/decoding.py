"""The one loop that writes answers: greedy or sampled, one or several to a prompt.

Every pass reads, of each answer, the last token and a *draft*: tokens that the grammar makes
likely to follow. Each is checked in the same pass against the token that is chosen at its place,
and kept up to the first that differs, where the chosen one stands instead. So the answers are
those of one token a pass, whatever is drafted, and fewer passes write them.

Rows whose answers have ended are given to the next prompts, so that one long answer does not hold
the others of its batch.

Shapes: B prompts, G answers each, R answers being written, N tokens to be chosen, T tokens of the
longest run, D features, V tokens of the vocabulary.
"""
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .guide import NEAR
from .to_device import to_device

#: Called with the number of an answer (b * G + g) and the ids that were added to it.
OnTokens = Callable[[int, Sequence[int]], bool | None]
#: Called with the number of a prompt and its answers, all of which have ended, in order: how many
#: more are begun; first with none of them. Never more than G in all.
More = Callable[[int, Sequence['OpenAnswer']], int]
#: Called with a number of prompts: an encoded batch of the next ones, at most so many, and their
#: ``Guide`` each, or ``None`` for free text; ``None``: there are no more.
Take = Callable[[int], tuple[dict[str, Tensor], Sequence] | None]
#: Of the prompts whose answers are written at a time, the share that must have ended before the
#: next are read: reading them takes a pass, and rows that wait for others stand idle.
REFILL = 1 / 4
#: Answers are begun no further ahead of one that has not ended than so many batches, as those
#: behind it wait with their pictures to be given in order.
AHEAD = 8
#: A pass costs as much as so many tokens before it reads one: measured for nano on one core
#: (11 ms against 0.1 ms a token), worked out for 7 B on an H100 (reading the weights against
#: multiplying them).
PASS_COST = 128


@dataclass
class OpenAnswer:
    """An answer being written.

    Attributes:
        row: its number, b * G + g.
        guide: knows the answer's grammar; ``None``: free text.
        prompt: ids (P,) before it, on the CPU.
        start: position of its first token.
        tokens: ids so far, end token included.
        logps: log-probability of each by the network: without bans, constraint or temperature.
        run: last token and draft, which the next pass reads.
        states: of the guide, after each token of ``run``.
        uniforms: what its tokens are drawn with, in [0, 1); ``None``: not known yet, or greedy.
        ended: by an end token or at the limit.
        hurried: completed otherwise than chosen, so as to end within the limit.
    """
    row: int
    guide: Any
    prompt: Tensor
    start: int
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    uniforms: list[float] | None = None
    ended: bool = False
    hurried: bool = False

    def take(self, chosen: Sequence[int], logps: Sequence[float], stops, limit: int) -> int:
        """Append what was chosen after each token of the run, up to the first that the draft did
        not foresee, and return how many."""
        draft = self.run[1:]
        count = 0
        for count, token in enumerate(chosen, 1):
            self.tokens.append(token)
            self.ended = token in stops or len(self.tokens) == limit
            if self.ended or count > len(draft) or token != draft[count - 1]:
                break
        self.logps.extend(logps[:count])
        return count


@dataclass
class ReadPrompts:
    """B prompts that have been read together, as long as answers to them may be begun.

    Attributes:
        first: number of the first.
        guides: of each prompt's answers.
        ids: (P,) of each, on the CPU.
        starts: position of the first token of each one's answers.
        hidden_BD: from which these tokens follow.
        kv_cache: of the network.
        mask_BP: attention mask.
    """
    first: int
    guides: Sequence
    ids: list[Tensor]
    starts: list[int]
    hidden_BD: Tensor
    kv_cache: Any
    mask_BP: Tensor


class Groups:
    """The answers to each prompt: how many have been begun, which have ended.

    Args:
        size: G, answers to a prompt at most.
        more: see :data:`More`; ``None``: all are begun at once.
    """

    def __init__(self, size: int, more: More | None = None) -> None:
        self.size = size
        self.more = more or (lambda number, ended: size)
        #: the prompts that are open, the first first: all that has been begun, what has ended
        self._begun: dict[int, int] = {}
        self._ended: dict[int, list[OpenAnswer]] = {}
        self._read: dict[int, ReadPrompts] = {}
        #: prompts whose answers have ended, and to which so many more are to be begun
        self._waiting: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """Answers that are to be begun."""
        return sum(self._waiting.values())

    @property
    def first(self) -> int | None:
        """The first prompt whose answers have not all been written."""
        return next(iter(self._begun), None)

    def read(self, prompts: ReadPrompts) -> None:
        """Prompts that have been read: the first answers to them wait to be begun."""
        for number in range(prompts.first, prompts.first + len(prompts.guides)):
            self._begun[number], self._ended[number] = 0, []
            self._read[number] = prompts
            self._ask(number)

    def begin(self) -> tuple[ReadPrompts, list[tuple[int, int]], bool]:
        """Of those that wait, all to prompts that were read together: these prompts, the (prompt,
        place in its group) of each, and whether still more may be begun later."""
        prompts = self._read[next(iter(self._waiting))]
        begun = []
        for number in [n for n in self._waiting if self._read[n] is prompts]:
            have = self._begun[number]
            self._begun[number] += self._waiting.pop(number)
            begun += [(number, g) for g in range(have, self._begun[number])]
        return prompts, begun, any(self._read[number] is prompts and count < self.size
                                   for number, count in self._begun.items())

    def end(self, answer: 'OpenAnswer') -> list['OpenAnswer']:
        """An answer has ended: all to its prompt, in order, where there will be no more; else
        none."""
        number = answer.row // self.size
        ended = self._ended[number]
        ended.append(answer)
        if len(ended) < self._begun[number]:
            return []
        ended.sort(key=lambda one: one.row)
        return self._ask(number)

    def _ask(self, number: int) -> list['OpenAnswer']:
        ended = self._ended[number]
        count = min(self.more(number, ended), self.size - len(ended))
        if count > 0:
            self._waiting[number] = count
            return []
        del self._begun[number], self._ended[number], self._read[number]
        return ended


@torch.no_grad()
def write_answers(writer, take: Take, choose: Callable, limit: int, group_size: int = 1,
                  batch_size: int | None = None, draft: bool = True, constrain: bool = False,
                  on_tokens: OnTokens | None = None, more: More | None = None
                  ) -> Iterator[list[OpenAnswer]]:
    """Answers to each prompt, at most G, when all of them have ended; answer g of prompt b has the
    row ``b * G + g``.

    Prompts are read once and their cache is repeated. Answers that have ended leave the batch, and
    once a quarter of it is free the next prompts are read and join it, as do further answers to
    those that were read before.

    Args:
        writer: its network is in eval mode.
        take: gives the prompts.
        choose: ``Likeliest``, ``Drawn`` or ``FirstLikeliest``.
        limit: tokens at which an answer is cut, its end token included.
        group_size: G.
        batch_size: prompts whose answers are written at a time; ``None``: all.
        draft: check what the guides find likely instead of writing it.
        constrain: write nothing but what the guide allows, and complete it within the limit.
        on_tokens: told of the tokens of each pass as they are chosen; True ends the answer there.
        more: how many answers are begun; ``None``: G, all at once.
    """
    size = sys.maxsize if batch_size is None else batch_size
    stops = set(writer.stop_tokens)
    banned = torch.tensor(writer.banned_tokens, dtype=torch.long, device=writer.network.device)
    groups = Groups(group_size, more)

    def advance(hidden_ND: Tensor, answers: list[OpenAnswer], cache) -> dict:
        kept = _choose(writer, hidden_ND, answers, choose, banned, stops, limit, constrain,
                       on_tokens)
        for answer in answers:
            if not answer.ended:
                _draft(answer, kept[answer.row], limit, draft and cache.reads_many)
        return kept

    def ended(answers: list[OpenAnswer]) -> Iterator[list[OpenAnswer]]:
        for answer in answers:
            if answer.ended and (group := groups.end(answer)):
                yield group

    placed: list[OpenAnswer] = []  # the rows of the cache
    apart: list[tuple] = []  # rows in a cache of another kind, which cannot join it
    cache, begun = None, 0
    while True:
        live = [answer for answer in placed if not answer.ended]
        if not live and apart:
            placed, cache = apart.pop()
            continue
        joins = bool(live) and cache.joins and not apart
        room = _room(groups, len(live), begun, size)
        if not live:
            cache = None  # its memory goes before the prompts are read
        starts = groups.waiting and (not live or joins and groups.waiting >= len(live) * REFILL)
        if not starts and (not live or joins and room >= size * REFILL) and (taken := take(room)):
            groups.read(_read_prompts(writer, *taken, begun))
            begun += len(taken[1])
            starts = True
        if starts:
            new, more_rows, hidden_ND = _begin(writer, *groups.begin(), group_size)
            advance(hidden_ND, new, more_rows)
            if cache is None:
                cache, placed = more_rows, new
            elif type(cache) is type(more_rows):
                if len(live) < len(placed):
                    cache.keep([i for i, answer in enumerate(placed) if not answer.ended])
                cache.join(more_rows)
                placed = live + new
            else:
                apart.append((new, more_rows))
            yield from ended(new)
            continue
        if not live:
            return
        if len(live) <= len(placed) * (1 - cache.ended_share):
            cache.keep([i for i, answer in enumerate(placed) if not answer.ended])
            placed = live
        width = _width([len(answer.run) for answer in live], len(placed))
        for answer in live:
            del answer.run[width:], answer.states[width:]
        kept = advance(_read(writer, cache, placed), live, cache)
        cache.close([kept.get(answer.row, 0) for answer in placed])
        yield from ended(live)


def in_order(groups: Iterable[list[OpenAnswer]], group_size: int = 1
             ) -> Iterator[list[OpenAnswer]]:
    """By their prompts, each as soon as those before it have ended."""
    held, following = {}, 0
    for group in groups:
        held[group[0].row // group_size] = group
        while following in held:
            yield held.pop(following)
            following += 1


def at_once(batch: dict[str, Tensor], guides: Sequence = ()) -> Take:
    """Gives one batch, whole; without guides, of free text."""
    left = [(batch, guides or [None] * len(batch['input_ids']))]
    return lambda count: left.pop() if left else None


def _room(groups: Groups, live: int, begun: int, size: int) -> int:
    """How many prompts may be begun."""
    ahead = 0 if groups.first is None else begun - groups.first
    return min(size - -(-(live + groups.waiting) // groups.size), AHEAD * size - ahead)


def _read_prompts(writer, batch: dict[str, Tensor], guides: Sequence, first: int) -> ReadPrompts:
    ids = [ids[mask.bool()].cpu() for ids, mask in zip(batch['input_ids'],
                                                       batch['attention_mask'])]
    batch = writer.network.to_device(batch)
    hidden_BD, kv_cache, position_B = writer.prefill(batch)
    return ReadPrompts(first, guides, ids, position_B.tolist(), hidden_BD, kv_cache,
                       batch['attention_mask'])


def _begin(writer, prompts: ReadPrompts, begun: Sequence[tuple[int, int]], kept: bool,
           group_size: int) -> tuple[list[OpenAnswer], Any, Tensor]:
    """Begins answers: these, the cache of their rows, the hidden states (R, D) from which the
    first tokens follow.

    Args:
        begun: see :meth:`Groups.begin`.
        kept: whether what was read of the prompts is needed again.
    """
    places = [number - prompts.first for number, _ in begun]
    rows = torch.tensor(places, device=prompts.hidden_BD.device)
    hidden_RD, mask_BP, kv_cache = prompts.hidden_BD[rows], prompts.mask_BP, prompts.kv_cache
    if kept:
        kv_cache = copy.deepcopy(kv_cache)
    else:
        prompts.hidden_BD = prompts.kv_cache = None
    chosen, index = rows.unique(return_inverse=True)
    if len(chosen) < len(mask_BP):
        kv_cache.reorder_cache(chosen)
        mask_BP, rows = mask_BP[chosen], index
    cache = writer.network.cache(kv_cache, mask_BP, rows)
    answers = [OpenAnswer(number * group_size + g, prompts.guides[b], prompts.ids[b],
                          prompts.starts[b]) for b, (number, g) in zip(places, begun)]
    for answer in answers:
        answer.states = [answer.guide.start if answer.guide else None]
        answer.run = [-1]  # stands for the end of the prompt, which has been read
    return answers, cache, hidden_RD


def _choose(writer, hidden_ND: Tensor, live: list[OpenAnswer], choose: Callable, banned: Tensor,
            stops, limit: int, constrain: bool, on_tokens: OnTokens | None) -> dict:
    """Choose after each token of the runs and take what stands: how many, by row."""
    logits = writer.network.logits(hidden_ND)
    total = logits.logsumexp(-1)
    open_logits = logits
    places = [(answer.guide, state) for answer in live for state in answer.states]
    logits = constrained(logits, places) if constrain else logits.clone()
    logits.index_fill_(1, banned, -torch.inf)
    prefixes = [(answer, answer.run[1:1 + i])
                for answer in live for i in range(len(answer.run))]
    tokens = choose(logits, prefixes)
    hurried = _hurry(logits, tokens, places, prefixes, choose, limit) if constrain else ()
    logps = open_logits.gather(1, tokens[:, None]).squeeze(1) - total
    tokens, logps = torch.stack([tokens.double(), logps.double()]).tolist()  # one transfer
    tokens, at, kept = [int(token) for token in tokens], 0, {}
    for answer in live:
        end = at + len(answer.run)
        count = answer.take(tokens[at:end], logps[at:end], stops, limit)
        kept[answer.row] = count
        answer.hurried |= any(at <= n < at + count for n in hurried)
        if on_tokens is not None and on_tokens(answer.row, tuple(answer.tokens[-count:])):
            answer.ended = True
        at = end
    return kept


def constrained(logits_NV: Tensor, places: Sequence[tuple[Any, Any]]) -> Tensor:
    """A copy in which all is impossible that the guides do not allow.

    Args:
        logits_NV: of N places.
        places: the guide and its state of each; no guide: all is allowed.
    """
    copy_NV = _only(logits_NV, [guide.allowed(state) if guide else _NOTHING
                                for guide, state in places])
    free = [n for n, (guide, _) in enumerate(places) if guide is None]
    if free:
        copy_NV[free] = logits_NV[free]
    return copy_NV


_NOTHING = np.array([], dtype=np.int64)


def _only(logits_NV: Tensor, ids: Sequence[np.ndarray]) -> Tensor:
    """A copy in which all is impossible but these ids of each row. They are few: a mask over a
    whole vocabulary would be read twice for them."""
    size, copy_NV = logits_NV.shape[1], torch.full_like(logits_NV, -torch.inf)
    starts = np.repeat(np.arange(len(ids)) * size, [len(row) for row in ids])
    index = to_device(torch.from_numpy(starts + np.concatenate(ids)), logits_NV.device)
    copy_NV.view(-1).index_copy_(0, index, logits_NV.view(-1).index_select(0, index))
    return copy_NV


def _hurry(logits_NV: Tensor, tokens_N: Tensor, places: Sequence[tuple[Any, Any]],
           prefixes: Sequence, choose: Callable, limit: int) -> list[int]:
    """Where a chosen token leaves no room to complete the answer, choose one that does, in place.
    Returns where."""
    rooms = [limit - len(answer.tokens) - len(draft) - 1 for answer, draft in prefixes]
    if min(rooms) >= NEAR:
        return []
    found = {}
    for n, ((guide, state), token, room) in enumerate(zip(places, tokens_N.tolist(), rooms)):
        if guide is not None and room < NEAR:
            found[n] = guide.in_time(state, token, room)
    late = [n for n, ids in found.items() if ids]
    if late:
        tokens_N[late] = choose(_only(logits_NV[late], [found[n] for n in late]),
                                [prefixes[n] for n in late])
    return late


def _draft(answer: OpenAnswer, count: int, limit: int, many: bool) -> None:
    """The next run: the last token, and what is likely to follow it."""
    last = answer.tokens[-1]
    answer.run, guide = [last], answer.guide
    if guide is None:
        answer.states = [None]
        return
    answer.states = [guide.track(answer.states[count - 1], last)]
    room = limit - len(answer.tokens) - 1
    while many and len(answer.run) <= room:
        token = guide.draft(answer.states[-1])
        if token is None:
            break
        answer.run.append(token)
        answer.states.append(guide.step(answer.states[-1], token))


def _width(lengths: list[int], rows: int) -> int:
    """How long a run is worth its padding: where most rows have none, a pass of one token a row
    is cheap, and those that wait come together."""
    def worth(width: int) -> float:
        return sum(min(length, width) for length in lengths) / (PASS_COST + rows * (1 + width))
    return max(range(1, max(lengths) + 1), key=worth)


def _read(writer, cache, placed: list[OpenAnswer]) -> Tensor:
    """Hidden states (N, D) after each token of the runs of the answers that have not ended."""
    runs = [[0] if answer.ended else answer.run for answer in placed]
    width = max(map(len, runs))
    tokens_RT = torch.tensor([run + [0] * (width - len(run)) for run in runs])
    start_R = torch.tensor([answer.start + len(answer.tokens) - 1 for answer in placed])
    hidden_ND = cache.read(writer.decode, tokens_RT, start_R).flatten(0, 1)
    real = [row * width + i for row, (answer, run) in enumerate(zip(placed, runs))
            for i in range(len(run)) if not answer.ended]
    if len(real) == len(hidden_ND):
        return hidden_ND
    return hidden_ND.index_select(0, to_device(torch.tensor(real), hidden_ND.device))
