"""What a training step reads: sizes of pictures and answers, from a config's dataset and codec."""
from dataclasses import dataclass, fields

from mmengine.config import Config

from ..datasets.base import registered_dataset
from ..engine import launch
from ..models.sampling import Sampling
from ..polygon import LIST_KINDS, PolygonCodec, Task, count_tokens
from ..templates import QUESTIONS

#: mean tokens a mask of (preset, epsilon) on 1,145 objects of COCO, measured (docs/polygon.md)
EPSILON_TOKENS = {('paper', 0.001): 792, ('paper', 0.002): 502, ('paper', 0.005): 266,
                  ('paper', 0.01): 168, ('default', 0.002): 307, ('default', 0.005): 162}
#: of one that asks for every instance. Assumed.
INSTANCES = 4
PHRASE = 'the man in the red shirt on the left'


@dataclass(frozen=True)
class Batch:
    """What a training step reads.

    Attributes:
        picture: width and height in pixels.
        turns: questions a sample; of reinforcement learning 1.
        longest: tokens an answer that memory is planned for, the end token included.
        mean: tokens an answer that time is planned for.
        sources: (what, value, where it is from).
    """
    picture: tuple[int, int]
    turns: int
    longest: int
    mean: float
    sources: tuple[tuple[str, str, str], ...]


def plan_batch(cfg: Config, picture: tuple[int, int] | None = None,
               answer_tokens: int | None = None) -> Batch:
    """Sizes of pictures and answers, from the config's dataset and codec.

    Args:
        cfg: of training.
        picture, answer_tokens: instead of the dataset's typical picture and the codec's mean.
    """
    dataset = cfg.train_dataloader.dataset
    dataset = dataset.get('datasets', [dataset])[0]  # of several, the first stands for all
    query = dataset.query
    sources = []
    if picture is None:
        known = getattr(registered_dataset(dataset.type), 'typical_picture', None)
        picture, source = known or ((640, 480), 'assumed: dataset unknown')
    else:
        source = 'given'
    sources.append(('picture', f'{picture[0]} x {picture[1]} pixels', source))
    codec = PolygonCodec(**dict(query.get('codec') or {}))
    if answer_tokens is not None:
        mask, source = answer_tokens, 'given'
    elif codec.epsilon is not None:
        mask = EPSILON_TOKENS.get((codec.preset.removesuffix('-exact'), codec.epsilon))
        source = 'mean over 1,145 objects of COCO, measured (docs/polygon.md)'
    else:
        mask, source = codec.tokens, "the codec's budget, a mean over masks; + 1 end token"
    if mask is None:
        raise ValueError('the tokens of a mask are not known for this codec: give answer_tokens '
                         '(tools/analysis_tools/codec_ceiling.py measures them)')
    mask = int(mask) + 1
    sources.append(('tokens a mask', str(mask), source))
    size, grammar = (picture[1], picture[0]), codec.grammar
    kinds = {'rings': mask, None: 5,
             'box': count_tokens(grammar.format_box([100, 100, 200, 200], size)) + 1,
             'point': count_tokens(grammar.format_point([100, 100], size)) + 1}
    for many, item in LIST_KINDS.items():  # brackets and end token aside
        kinds[many] = INSTANCES * kinds[item]
    weights = query.get('tasks') or dict(text2mask=1)
    if any(weight and Task.from_name(name).many for name, weight in weights.items()):
        sources.append(('instances a list', str(INSTANCES), 'assumed'))
    wanted = {name: kinds[Task.from_name(name).kind] for name in weights}
    mean = sum(weight * wanted[name] for name, weight in weights.items()) / sum(weights.values())
    longest = max(wanted[name] for name, weight in weights.items() if weight)
    if launch.is_rl(cfg):
        longest = Sampling(**sampling_of(cfg)).max_new_tokens
        sources.append(('answers, for memory', str(longest), 'rollout.max_new_tokens, the most'))
    else:
        sources.append(('answers, for memory', str(longest), 'the longest kind of the tasks'))
    sources.append(('answers, for time', f'{mean:.0f}', 'mean over the tasks by their weights'))
    return Batch(tuple(picture), query.get('turns', 1), longest, mean, tuple(sources))


def sampling_of(cfg: Config) -> dict:
    """Arguments of :class:`Sampling` in a rollout's config."""
    names = {field.name for field in fields(Sampling)}
    return {key: value for key, value in cfg.train_cfg.rollout.items() if key in names}


def question() -> str:
    return QUESTIONS['mask'][0].replace('{subject}', PHRASE)
