"""The answer of a sample: read by the codec and for the task that the sample names, once."""
from .polygon import Answer, Task, codec_of


def read_answer(sample, text: str, kind: str | None = None, **facts) -> Answer:
    """A text as an answer to the query of a sample, by the codec and for the task that it names.

    Args:
        sample: a ``DetDataSample`` or its dict.
        text: anything.
        kind: one of ``ANSWER_KINDS``, instead of the task's.
        facts: ``num_tokens, finished, seconds`` and ``confidence`` of :class:`Answer`.
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
                           confidence=sample.get('pred_confidence'))
        if isinstance(sample, dict):
            sample['pred_answer'] = answer
        elif hasattr(sample, 'set_metainfo'):
            sample.set_metainfo(dict(pred_answer=answer))
    return answer


def _spec(answer: Answer) -> str | None:
    return None if answer.codec is None else answer.codec.spec
