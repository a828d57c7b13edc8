"""Answers in MMEngine's samples: a model puts them there, metrics and pictures find them.

A sample carries one :class:`simpleseg_mm.polygon.Answer` as ``pred_answer``. Its fields
``pred_text, pred_num_tokens, pred_finished, pred_confidence, pred_seconds, pred_has_mask`` and
``pred_instances`` are that answer in the form that MMDetection, dumps and other tools read.
"""
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from .polygon import Answer, Task, codec_of


def read_answer(sample, text: str, kind: str | None = None, **facts) -> Answer:
    """A text as an answer to the query of a sample, by the codec and for the task that it names.

    Args:
        sample: a ``DetDataSample`` or its dict.
        text: anything.
        kind: 'rings', 'box' or 'point', instead of the task's.
        facts: ``num_tokens, finished, seconds`` and ``confidence`` of :class:`Answer`.
    """
    spec, task = sample.get('codec'), Task.find(sample.get('task'))
    return Answer(text, tuple(sample.get('ori_shape', ())[:2]),
                  None if spec is None else codec_of(spec), kind or (task and task.kind), **facts)


def attach_answer(sample, answer: Answer) -> None:
    """Puts an answer into a ``DetDataSample``, in place.

    ``pred_instances`` holds one instance: ``masks`` (1, h, w) bool at ``ori_shape``, ``bboxes``
    (1, 4) xyxy pixels, ``scores`` (1,) 1 where there is a box, ``labels`` (1,). What cannot be
    read gives an all-zero mask. An answer in words has none.
    """
    sample.set_metainfo(dict(
        pred_answer=answer, pred_text=answer.text, pred_num_tokens=answer.num_tokens,
        pred_finished=answer.finished, pred_seconds=answer.seconds,
        pred_confidence=answer.confidence))
    if answer.codec is None:
        return
    mask, box = answer.mask, answer.box
    found = box is not None
    sample.pred_instances = InstanceData(
        masks=torch.from_numpy(mask)[None],
        bboxes=torch.as_tensor(box if found else np.zeros(4), dtype=torch.float32)[None],
        scores=torch.full((1, ), float(found)),
        labels=torch.zeros(1, dtype=torch.long))
    sample.set_metainfo(dict(pred_has_mask=bool(mask.any())))


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
        if isinstance(sample, BaseDataElement):
            sample.set_metainfo(dict(pred_answer=answer))
        elif isinstance(sample, dict):
            sample['pred_answer'] = answer
    return answer


def _spec(answer: Answer) -> str | None:
    return None if answer.codec is None else answer.codec.spec
