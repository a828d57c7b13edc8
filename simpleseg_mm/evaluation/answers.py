"""The text of a sample, read by the grammar and for the task that the sample names."""
from functools import lru_cache

from ..polygon import Grammar, ParsedAnswer, PolygonCodec, parse_answer

_KIND_OF_TARGET = dict(mask='rings', box='box', point='point')


def read_answer(sample: dict, key: str = 'pred_text', kind: str | None = None) -> ParsedAnswer:
    """``sample[key]`` parsed by the grammar of ``sample['codec']``; never fails on the text.

    Args:
        sample: With ``codec`` (a spec such as 'int1000/default') and ``sample[key]`` (str).
        key: 'pred_text', or 'answer' for the true one.
        kind: 'rings', 'box' or 'point'; None: what the sample's task asks for ('text2mask':
            rings), or the first answer of any kind where it names no task.

    Raises:
        ValueError: The sample lacks the text or the codec.
    """
    for name in (key, 'codec'):
        if not isinstance(sample.get(name), str):
            raise ValueError(f"sample {sample.get('img_id')!r} has no {name!r}; this metric is "
                             'for models that write their answer as text')
    codec = _codec(sample['codec'])
    kind = kind or _KIND_OF_TARGET.get((sample.get('task') or '').rpartition('2')[2])
    limit = None if key == 'answer' else codec.max_chars
    return parse_answer(sample[key], codec.grammar, kind, limit)


def grammar_of(sample: dict) -> Grammar:
    """The grammar that a sample's answers are read by."""
    return _codec(sample['codec']).grammar


def says_nothing(sample: dict) -> bool:
    """Whether the answer says that there is no target. True too for a model without text."""
    return 'pred_text' not in sample or read_answer(sample).kind == 'empty'


@lru_cache(maxsize=64)
def _codec(spec: str) -> PolygonCodec:
    return PolygonCodec.from_spec(spec)
