"""``PolygonReward`` in the forms in which other trainers call a reward.

Truths are masks, COCO RLE dicts or JSON texts of either, as ``PolygonReward`` takes them. A
component of one's own sees all that the trainer tells of a sample as ``query.meta``. Where it does
not apply (None), it is left out of the sum, and its own figure is NaN.
"""
from collections.abc import Callable, Mapping, Sequence

from .rewards import PolygonReward, Rewards


def trl_reward(reward: PolygonReward, truth: str = 'mask', codec: str = 'codec') -> Callable:
    """``reward`` as a reward function of TRL's ``GRPOTrainer``.

    Args:
        reward: the reward.
        truth: column of the dataset with the targets.
        codec: column with the codec's spec, where the dataset has one.

    Returns:
        A function ``(prompts, completions, **columns) -> [float | None]``, None where no
        component applies. Prompts and completions may be texts or conversations (lists of
        messages). ``query.meta`` holds a sample's prompt and its value of each column.
    """

    def simpleseg_polygon(prompts: Sequence | None = None, completions: Sequence = (),
                          **columns) -> list[float | None]:
        if truth not in columns:
            raise ValueError(f'the dataset has no column {truth!r}, only {sorted(columns)}')
        count = len(completions)
        if prompts is not None:
            columns['prompt'] = [_text(prompt) for prompt in prompts]
        lists = {name: list(values) for name, values in columns.items()
                 if _is_column(values, count)}
        found = reward([_text(item) for item in completions], columns[truth],
                       codecs=columns.get(codec),
                       samples=[{name: values[i] for name, values in lists.items()}
                                for i in range(count)])
        return [float(total) if applied else None
                for total, applied in zip(found.total, found.applied)]

    return simpleseg_polygon


def ms_swift_reward(reward: PolygonReward, truth: str = 'mask', codec: str = 'codec') -> type:
    """``reward`` as a class of ms-swift's plugins: ``orms['polygon'] = ms_swift_reward(reward)``.

    Args: as ``trl_reward``. Its objects are called with ``completions, **columns``.
    """
    function = trl_reward(reward, truth, codec)

    class SimpleSegPolygon:

        def __init__(self, *args, **kwargs) -> None:
            """Takes what ms-swift passes, and needs none of it."""

        def __call__(self, completions: Sequence, **columns) -> list[float]:
            return function(completions=completions, **columns)

    return SimpleSegPolygon


def verl_reward(reward: PolygonReward) -> Callable:
    """``reward`` as verl's ``compute_score`` of one sample.

    Returns:
        A function ``(data_source, solution_str, ground_truth, extra_info=None) -> dict``: the
        weighted sum as ``score``, and each component by its name.
    """

    def compute_score(data_source: str, solution_str: str, ground_truth, extra_info=None,
                      **kwargs) -> dict[str, float]:
        sample = dict(extra_info if isinstance(extra_info, Mapping) else {},
                      data_source=data_source)
        return _scores(reward([solution_str], [ground_truth], samples=[sample]), 'score')[0]

    return compute_score


def easyr1_reward(reward: PolygonReward) -> Callable:
    """``reward`` as EasyR1's ``compute_score``, for 'batch' and for 'sequential'.

    Returns:
        A function that takes records ``dict(response, response_length, ground_truth)``, or one
        record, and gives a dict for each: the weighted sum as ``overall``, and each component by
        its name.
    """

    def compute_score(records: dict | Sequence[dict]):
        if isinstance(records, dict):
            return compute_score([records])[0]
        return _scores(reward(records), 'overall')

    return compute_score


def _text(item) -> str:
    """A text, or what the last message of a conversation says."""
    content = item if isinstance(item, str) else item[-1]['content']
    if isinstance(content, (list, tuple)):  # of pictures and words
        content = ''.join(part if isinstance(part, str) else part.get('text') or ''
                          for part in content)
    return content


def _is_column(values, count: int) -> bool:
    """Whether there is a value of each sample, and not one of the whole call."""
    return (not isinstance(values, (str, bytes, Mapping)) and hasattr(values, '__len__')
            and hasattr(values, '__getitem__') and len(values) == count)


def _scores(found: Rewards, name: str) -> list[dict[str, float]]:
    """A dict of each answer: the weighted sum by ``name``, and the components."""
    if name in found.components:
        raise ValueError(f'a component is named {name!r}, which is the name of the sum here; '
                         'give it another name')
    return [dict({name: float(total)},
                 **{key: float(values[i]) for key, values in found.components.items()})
            for i, total in enumerate(found.total)]
