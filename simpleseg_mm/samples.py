"""Answers in MMEngine's samples: a model puts them there, metrics and pictures find them.

A sample carries one :class:`simpleseg_mm.polygon.Answer` as ``pred_answer``. Its fields
``pred_text, pred_num_tokens, pred_finished, pred_confidence, pred_seconds, pred_has_mask`` and
``pred_instances`` are that answer in the form that MMDetection, dumps and other tools read. Of a
consensus also ``pred_agreement``, ``pred_answers`` (how many answers were voted),
``pred_greedy_text`` and, of a list, ``pred_scores`` and ``pred_agreements``; of second looks
``pred_looks``, a list of dicts as ``CropAnswer.to_dict`` gives them. Where names
were asked for, ``pred_no_class``.
"""
from itertools import compress

import numpy as np
import torch
from mmengine.structures import InstanceData

from .answers import answer_of, class_of, instance_masks, read_answer
from .polygon import Answer

__all__ = ['answer_of', 'attach_answer', 'read_answer']


def attach_answer(sample, answer: Answer) -> None:
    """Puts an answer into a ``DetDataSample``, in place.

    ``pred_instances`` holds one instance: ``masks`` (1, h, w) bool at ``ori_shape``, ``bboxes``
    (1, 4) xyxy pixels, ``scores`` (1,) 1 where there is a box, or of a consensus its confidence
    there, ``labels`` (1,). What cannot be read gives an all-zero mask. Where every instance was
    asked for there are N in place of 1, N the number of them that the answer lists, 0 too, and at
    most as many as :func:`simpleseg_mm.answers.instance_masks` gives. An answer in words has none.

    Where names were asked for, ``names`` are those of the instances, as they were written, and
    ``labels`` their places among the sample's ``classes``. An instance whose name is none of them
    has no label, and is no instance then: ``pred_no_class`` lists such names, one an instance.
    Without ``classes`` labels are 0.
    """
    sample.set_metainfo(dict(
        pred_answer=answer, pred_text=answer.text, pred_num_tokens=answer.num_tokens,
        pred_finished=answer.finished, pred_seconds=answer.seconds,
        pred_confidence=answer.confidence))
    if answer.agreement is not None:
        sample.set_metainfo(dict(pred_agreement=answer.agreement))
    if answer.scores:
        sample.set_metainfo(dict(pred_scores=list(answer.scores),
                                 pred_agreements=list(answer.agreements)))
    if answer.looks:
        sample.set_metainfo(dict(pred_looks=[look.to_dict() for look in answer.looks]))
    if answer.voters:
        sample.set_metainfo(dict(pred_answers=len(answer.voters),
                                 pred_greedy_text=answer.voters[0].text))
    if answer.codec is None:
        return
    masks = instance_masks(answer)
    answers = answer.instances[:len(masks)] if answer.many else [answer]
    labels = [0] * len(answers)
    if answer.named and 'classes' in sample:
        labels = [class_of(one.name, sample.get('classes')) for one in answers]
        known = [label is not None for label in labels]
        sample.set_metainfo(dict(pred_no_class=[
            one.name for one, there in zip(answers, known) if not there]))
        masks, answers, labels = (list(compress(rows, known)) for rows in (masks, answers, labels))
        masks = np.array(masks, bool).reshape(-1, *answer.size)
    boxes = [one.box for one in answers]
    sample.pred_instances = InstanceData(
        masks=torch.from_numpy(masks),
        bboxes=torch.tensor([[0.] * 4 if box is None else box.tolist() for box in boxes],
                            dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([_score(one, box is not None) for one, box in zip(answers, boxes)]),
        labels=torch.tensor(labels, dtype=torch.long))
    if answer.named:
        sample.pred_instances.names = [one.name for one in answers]
    sample.set_metainfo(dict(pred_has_mask=bool(masks.any())))


def _score(answer: Answer, found: bool) -> float:
    """How sure a consensus is of an answer or instance; of any other 1."""
    known = answer.agreement is not None and answer.confidence is not None
    return float(found) * (answer.confidence if known else 1.0)
