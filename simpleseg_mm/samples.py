"""Answers in MMEngine's samples: a model puts them there, metrics and pictures find them.

A sample carries one :class:`simpleseg_mm.polygon.Answer` as ``pred_answer``. Its fields
``pred_text, pred_num_tokens, pred_finished, pred_confidence, pred_seconds, pred_has_mask`` and
``pred_instances`` are that answer in the form that MMDetection, dumps and other tools read.
"""
import numpy as np
import torch
from mmengine.structures import InstanceData

from .answers import answer_of, read_answer
from .polygon import Answer

__all__ = ['answer_of', 'attach_answer', 'read_answer']


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
