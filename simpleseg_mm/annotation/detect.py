"""Detection by text, and verification of descriptions by the same models."""
from collections.abc import Sequence

import numpy as np

from simpleseg_mm.files import read_lines
from simpleseg_mm.polygon import box_iou
from simpleseg_mm.registry import STAGES

from .grounding import get_grounder
from .sample import Sample, clean_text
from .stage import Stage


@STAGES.register_module()
class GroundingDetect(Stage):
    """Proposes boxes for labels, by Grounding-DINO or MM-Grounding-DINO.

    A box's category is its best label. A vocabulary longer than the text encoder takes costs one
    forward pass a part of it.

    Args:
        pretrained: local folder or hub id, such as 'IDEA-Research/grounding-dino-base'.
        labels: vocabulary, or a text file with one label a line.
        tags: field of the source with a list of labels of this image, which replaces the
            vocabulary; images without one fall back to it, and are dropped where it is empty.
        threshold: score from which a query is proposed.
        dtype, device: see :class:`Grounder`.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, pretrained: str, labels: Sequence[str] | str = (), tags: str | None = None,
                 threshold: float = 0.25, dtype: str = 'float32', device: str | None = None,
                 batch_size: int = 4, **kwargs) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if isinstance(labels, str):
            labels = read_lines(labels)
        self.labels = [label for label in (clean_text(label, 100) for label in labels) if label]
        if not self.labels and tags is None:
            raise ValueError('give labels (a vocabulary), tags (a field of the source), or both')
        self.tags, self.threshold = tags, threshold
        self.grounder = get_grounder(pretrained, dtype, device)

    def process(self, samples: Sequence[Sample]) -> None:
        known = []
        for sample in samples:
            labels = list(dict.fromkeys((self.tags and sample.meta.get(self.tags)) or self.labels))
            if labels:
                known.append((sample, self.grounder.split(labels)))
            else:
                sample.drop(self.name, 'no labels')
        while known:  # first groups together, then second ones
            found = self.grounder([sample.image for sample, _ in known],
                                  [groups[0] for _, groups in known])
            for (sample, groups), (boxes, scores) in zip(known, found):
                self._propose(sample, groups[0], boxes, scores)
            known = [(sample, groups[1:]) for sample, groups in known if len(groups) > 1]

    def _propose(self, sample: Sample, labels: list[str], boxes: np.ndarray,
                 scores: np.ndarray) -> None:
        best = scores.argmax(1)  # NaN counts as the highest, and is dropped by SelectBoxes
        top = scores[np.arange(len(scores)), best]
        sample.propose([dict(box=boxes[k].tolist(), score=float(top[k]), category=labels[best[k]])
                        for k in np.flatnonzero(~(top < self.threshold))])


@STAGES.register_module()
class VerifyDescriptions(Stage):
    """Grounds every description again; one whose best box is not the object's is dropped.

    All phrases of an image share forward passes, as labels do: the text encoder keeps phrases
    apart at their full stops.

    Args:
        pretrained, dtype, device: see :class:`GroundingDetect`.
        min_iou: of the best box with the object's. Our choice, as all thresholds are.
        min_score: of the best box.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, pretrained: str, min_iou: float = 0.8, min_score: float = 0.2,
                 dtype: str = 'float32', device: str | None = None, batch_size: int = 4,
                 **kwargs) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self.min_iou, self.min_score = min_iou, min_score
        self.grounder = get_grounder(pretrained, dtype, device)

    def process(self, samples: Sequence[Sample]) -> None:
        asked = []
        for sample in samples:
            texts = dict.fromkeys(d['text'] for found in sample.objects
                                  for d in found.get('descriptions', ()))
            if texts:
                asked.append((sample, self.grounder.split(list(texts))))
        while asked:
            answers = self.grounder([sample.image for sample, _ in asked],
                                    [groups[0] for _, groups in asked])
            for (sample, groups), (boxes, scores) in zip(asked, answers):
                for text, own in zip(groups[0], scores.T):
                    self._judge(sample, text, boxes[own.argmax()], own.max())
            asked = [(sample, groups[1:]) for sample, groups in asked if len(groups) > 1]

    def _judge(self, sample: Sample, text: str, box: np.ndarray, score: float) -> None:
        """Keep or drop a text wherever it stands; NaN counts as the highest score."""
        for found in sample.objects:
            kept = []
            for description in found.get('descriptions', ()):
                reason = None
                if description['text'] == text:
                    overlap = box_iou(box, found['box'])
                    reason = ('box or score not finite' if not np.isfinite([*box, score]).all()
                              else 'not found again' if score < self.min_score
                              else 'grounded elsewhere' if overlap < self.min_iou else None)
                    description['iou'] = round(overlap, 4)
                if reason is None:
                    kept.append(description)
                else:
                    sample.counts[self.name, 'descriptions', reason] += 1
            if 'descriptions' in found:
                found['descriptions'] = kept
