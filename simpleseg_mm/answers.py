"""The answer of a sample: read by the codec and for the task that the sample names, once."""
import warnings

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .polygon import Answer, CropAnswer, Task, codec_of, name_key

#: of the masks of all instances of an answer together. Our choice.
MAX_MASK_BYTES = 1 << 31


def read_answer(sample, text: str, kind: str | None = None, **facts) -> Answer:
    """A text as an answer to the query of a sample, by the codec and for the task that it names.

    Args:
        sample: a ``DetDataSample`` or its dict.
        text: anything.
        kind: one of ``ANSWER_KINDS``, instead of the task's.
        facts: ``num_tokens, finished, seconds, confidence, agreement, scores, agreements`` and
            ``looks`` of :class:`Answer`.
    """
    spec, task = sample.get('codec'), Task.find(sample.get('task'))
    return Answer(text, tuple(sample.get('ori_shape', ())[:2]),
                  None if spec is None else codec_of(spec), kind or (task and task.kind), **facts)


def answer_of(sample) -> Answer | None:
    """The answer of a ``DetDataSample`` or its dict, read once for all who ask; None where the
    model wrote no text."""
    text = sample.get('pred_text')
    if text is None:
        return None
    answer = sample.get('pred_answer')
    if answer is None or answer.text != text or _spec(answer) != sample.get('codec'):
        answer = read_answer(sample, text, num_tokens=sample.get('pred_num_tokens'),
                           finished=sample.get('pred_finished'),
                           seconds=sample.get('pred_seconds'),
                           confidence=sample.get('pred_confidence'),
                           agreement=sample.get('pred_agreement'),
                           scores=tuple(sample.get('pred_scores') or ()),
                           agreements=tuple(sample.get('pred_agreements') or ()),
                           looks=looks_of(sample.get('pred_looks')))
        if isinstance(sample, dict):
            sample['pred_answer'] = answer
        elif hasattr(sample, 'set_metainfo'):
            sample.set_metainfo(dict(pred_answer=answer))
    return answer


def looks_of(listed) -> tuple[CropAnswer, ...]:
    """Second looks as samples and files list them, None for none. Raises ValueError, one line."""
    if listed is not None and not isinstance(listed, list | tuple):
        raise ValueError(f'looks are a list, got {str(listed)[:100]!r}')
    return tuple(map(CropAnswer.from_dict, listed or ()))


def _spec(answer: Answer) -> str | None:
    return None if answer.codec is None else answer.codec.spec


def class_of(name: str, classes: Sequence[str]) -> int | None:
    """The place of a name among those of a set, blanks and capitals aside; None where it is none
    of them.

    >>> class_of('Red  circle', ['blue star', 'red circle'])
    1
    """
    return _places(tuple(classes)).get(name_key(name))


@lru_cache(maxsize=16)
def _places(classes: tuple[str, ...]) -> dict[str, int]:
    return {name_key(name): place for place, name in reversed(list(enumerate(classes)))}


def instance_masks(answer: Answer) -> np.ndarray:
    """``(N, h, w) bool``: the mask of an answer, N = 1, or where every instance was asked for that
    of each in ``answer.instances``, N may be 0.

    They are as many as ``MAX_MASK_BYTES`` has room for; a warning says where that is not all.
    """
    if not answer.many:
        return answer.mask[None]
    found = answer.instances
    most = MAX_MASK_BYTES // max(answer.size[0] * answer.size[1], 1)
    if len(found) > most:
        warnings.warn(f'an answer lists {len(found)} instances in a picture of (h, w) '
                      f'{answer.size}: the masks of the first {most} are given', stacklevel=2)
    masks = np.zeros((min(len(found), most), *answer.size), bool)
    for mask, one in zip(masks, found):
        one.spans.paint(mask)
    return masks
