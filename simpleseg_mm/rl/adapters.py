"""``PolygonReward`` in the forms in which other trainers call a reward.

Forms are those of TRL 1.16, ms-swift 4.6, verl 0.9 and EasyR1 0.3.3.
``tools/dataset_converters/to_chat.py`` writes the data that they read, with the columns that these
functions look for.

Truths are masks, COCO RLE dicts or JSON texts of either, as ``PolygonReward`` takes them. A
component of one's own sees all that the trainer tells of a sample as ``query.meta``. Where it does
not apply (None), it is left out of the sum, and its own figure is NaN.
"""
from collections.abc import Callable, Mapping, Sequence

from .rewards import PolygonReward, Rewards

#: what stands for a picture in the texts of ms-swift's messages
_PICTURE = '<image>'


def trl_reward(reward: PolygonReward, truth: str = 'mask', codec: str = 'codec') -> Callable:
    """``reward`` as a reward function of TRL's ``GRPOTrainer``.

    Args:
        reward: the reward.
        truth: column of the dataset with the targets; None in a row to which the reward does not
            apply.
        codec: column with the codec's spec, where the dataset has one; None in a row: the
            reward's own.

    Returns:
        A function ``(prompts, completions, completion_ids, **columns) -> [float | None]``, None
        where no component applies. Prompts and completions may be texts or conversations (lists
        of messages). ``query.meta`` holds a sample's prompt and its value of each column.
    """

    def simpleseg_polygon(prompts: Sequence | None = None, completions: Sequence = (),
                          completion_ids: Sequence[Sequence[int]] | None = None,
                          **columns) -> list[float | None]:
        told = {}
        if prompts is not None:
            told['prompt'] = [_text(prompt) for prompt in prompts]
        if completion_ids is not None:
            told['completion_ids'] = completion_ids
        return _column_scores(reward, completions, columns, told, truth, codec, num_tokens=(
            None if completion_ids is None else [len(ids) for ids in completion_ids]))

    return simpleseg_polygon


def ms_swift_reward(reward: PolygonReward, truth: str = 'mask', codec: str = 'codec') -> type:
    """``reward`` as a class of ms-swift's plugins: ``orms['polygon'] = ms_swift_reward(reward)``.

    Args: as ``trl_reward``. Its objects are called with ``completions, **columns`` and give what
    ``trl_reward``'s function does. Prompts come from ``messages``; an answer is finished unless
    ``is_truncated``; its tokens are counted by ``response_token_ids``.
    """

    class SimpleSegPolygon:

        def __init__(self, *args, **kwargs) -> None:
            """Takes what ms-swift passes, and needs none of it."""

        def __call__(self, completions: Sequence, **columns) -> list[float | None]:
            told = {}
            if 'messages' in columns and 'prompt' not in columns:
                told['prompt'] = [_asked(messages) for messages in columns['messages']]
            cut, ids = columns.get('is_truncated'), columns.get('response_token_ids')
            return _column_scores(
                reward, completions, columns, told, truth, codec,
                finished=None if cut is None else [not value for value in cut],
                num_tokens=None if ids is None else [_length(of_one) for of_one in ids])

    return SimpleSegPolygon


def verl_reward(reward: PolygonReward, codec: str = 'codec') -> Callable:
    """``reward`` as verl's ``compute_score``: of one sample, as its reward loop calls it, or of a
    batch, as its 'batch' manager does.

    Args:
        reward: the reward.
        codec: key of ``extra_info`` with the codec's spec, where it has one.

    Returns:
        A function ``(data_source, solution_str, ground_truth, extra_info) -> dict``: the weighted
        sum as ``score``, and each component by its name. Called with the plurals of these names
        (``data_sources=...``), it takes lists and gives a list.
    """

    def compute_score(data_source: str | None = None, solution_str: str | None = None,
                      ground_truth=None, extra_info: Mapping | None = None, *,
                      data_sources: Sequence[str] = (), solution_strs: Sequence[str] | None = None,
                      ground_truths: Sequence = (), extra_infos: Sequence[Mapping | None] = (),
                      **kwargs) -> dict[str, float] | list[dict[str, float]]:
        if solution_strs is None:
            return compute_score(data_sources=[data_source], solution_strs=[solution_str],
                                 ground_truths=[ground_truth], extra_infos=[extra_info])[0]
        samples = [dict(info if isinstance(info, Mapping) else {}, data_source=source)
                   for source, info in zip(data_sources, extra_infos)]
        return _scores(reward(solution_strs, ground_truths, samples=samples, codecs=[
            sample.get(codec) or reward.codec for sample in samples]), 'score', 'reward')

    return compute_score


def easyr1_reward(reward: PolygonReward) -> Callable:
    """``reward`` as EasyR1's ``compute_score``, for 'batch' and for 'sequential'.

    Returns:
        A function that takes records ``dict(response, response_length, ground_truth)``, or one
        record, and gives a dict for each: the weighted sum as ``overall``, and each component by
        its name.
    """

    def compute_score(reward_inputs: dict | Sequence[dict]):
        if isinstance(reward_inputs, Mapping):
            return compute_score([reward_inputs])[0]
        return _scores(reward(reward_inputs), 'overall')

    return compute_score


def _column_scores(reward: PolygonReward, completions: Sequence, columns: Mapping, told: Mapping,
                   truth: str, codec: str, **known: Sequence | None) -> list[float | None]:
    """The weighted sum of each completion; None where no component applies, or there is no truth.

    Args:
        columns, told: of the dataset, and of the trainer.
        known: of ``PolygonReward.__call__``, a value of each completion.
    """
    if truth not in columns:
        raise ValueError(f'the dataset has no column {truth!r}, only {sorted(columns)}')
    count = len(completions)
    lists = {name: list(values) for name, values in {**columns, **told}.items()
             if _is_column(values, count)}
    for name in {truth, codec} & set(columns) - set(lists):
        raise ValueError(f'there are {count} completions, and the column {name!r} is '
                         f'{columns[name]!r:.60}: give a list with one value of each')
    truths, specs = lists[truth], lists.get(codec, [None] * count)
    rows = [i for i in range(count) if truths[i] is not None]
    found = reward([_text(completions[i]) for i in rows], [truths[i] for i in rows],
                   codecs=[specs[i] or reward.codec for i in rows],
                   samples=[{name: values[i] for name, values in lists.items()} for i in rows],
                   **{name: None if values is None else [values[i] for i in rows]
                      for name, values in known.items()})
    scores: list[float | None] = [None] * count
    for i, total, applied in zip(rows, found.total, found.applied):
        scores[i] = float(total) if applied else None
    return scores


def _text(item) -> str:
    """A text, or what the last message of a conversation says."""
    content = item
    if not isinstance(item, str):
        content = item[-1].get('content') if item else ''
    if isinstance(content, (list, tuple)):  # of pictures and words
        content = ''.join(part if isinstance(part, str) else part.get('text') or ''
                          for part in content)
    return content or ''


def _length(ids: Sequence) -> int | None:
    """Number of an answer's tokens in ms-swift: its ids, or a list of ids a turn."""
    if len(ids) and not isinstance(ids[-1], int):
        ids = ids[-1]
    return len(ids) or None


def _asked(messages: Sequence[Mapping]) -> str:
    """The last thing that a user says in ms-swift's messages, without the mark of a picture."""
    for message in reversed(messages):
        if message['role'] == 'user':
            return _text([message]).replace(_PICTURE, '')
    return ''


def _is_column(values, count: int) -> bool:
    """Whether there is a value of each sample, and not one of the whole call."""
    return (not isinstance(values, (str, bytes, Mapping)) and hasattr(values, '__len__')
            and hasattr(values, '__getitem__') and len(values) == count)


def _scores(found: Rewards, name: str, *taken: str) -> list[dict[str, float]]:
    """A dict of each answer: the weighted sum by ``name``, and the components."""
    if names := {name, *taken} & set(found.components):
        raise ValueError(f'a component is named {min(names)!r}, which is the name of the sum '
                         'here; give it another name')
    return [dict({name: float(total)},
                 **{key: float(values[i]) for key, values in found.components.items()})
            for i, total in enumerate(found.total)]
